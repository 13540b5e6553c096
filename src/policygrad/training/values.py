"""What an agent thinks of observations and actions: V(s), and log π(a|s)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.errors import UserError
from policygrad.models.action_values import ActionCritic
from policygrad.models.critic import QCritic
from policygrad.models.exploring import ActionValues, PathwiseHead, Squashed
from policygrad.models.recurrent_critic import RecurrentCritic
from policygrad.models.shared import SharedCritic
from policygrad.training.predicting import encoded
from policygrad.tree import Tree, rows, to_torch


class NoValueError(UserError, ValueError):
    """The agent learns no values, or its policy has no density."""


def value(
    learner: Any, space: spaces.Space, obs: Any, action_masks: Any = None, policy_only: bool = False
) -> np.ndarray:
    """V of one observation, a number, or of a batch, (B,): in units of the return that the critic regresses on.

    Of a critic of q(s, a), V is Σ_a π(a|s) q(s, a); of action values, whose policy is greedy, max_a q(s, a); of a pathwise
    critic, the smallest q(s, a) of its networks at the most likely action. policy_only: whether the policy alone was loaded, so
    that a critic beside it is untrained. Raises NoValueError then, where nothing learns values, and for a critic with a memory.
    """
    x, single = encoded(learner.policy, space, obs, action_masks)
    if policy_only and not isinstance(learner.policy.head, ActionValues):  # whose values are the policy's own
        _refuse_untrained(learner)
    val = _values(learner, to_torch(x)).cpu().numpy()
    return val[0] if single else val


def _refuse_untrained(learner: Any) -> None:
    critic = getattr(learner, "critic", None) or getattr(getattr(learner, "rule", None), "critic", None)
    if isinstance(critic, QCritic | ActionCritic) or hasattr(critic, "value"):
        raise NoValueError(
            "this agent was loaded from a file of the policy alone, so its critic is untrained: load a run directory, a "
            "checkpoint, or a file of agent.save, or call learn first"
        )


def _values(learner: Any, obs: Tree) -> Tensor:
    policy, critic = learner.policy, getattr(learner, "critic", None)
    pathwise = getattr(getattr(learner, "rule", None), "critic", None)
    if isinstance(policy.head, ActionValues):
        return policy.action_values(obs).max(-1).values
    features = policy.features(obs)
    if isinstance(pathwise, ActionCritic):
        stored = torch.from_numpy(np.asarray(policy.head.mode(policy.outputs(obs)), np.float32))
        return pathwise.action_gradient(features, policy.head.to_unit(stored))[0]
    if isinstance(critic, QCritic):
        return (policy.head.probabilities(policy.dist(obs)) * critic.action_values(features)).sum(-1)
    if critic is None or not hasattr(critic, "value"):
        raise NoValueError("this agent learns no values: its baseline is not a critic (baseline = value has one)")
    if isinstance(critic, RecurrentCritic):
        raise NoValueError("V depends on the episode so far, as the critic has a memory")
    return critic.value(obs, policy) if isinstance(critic, SharedCritic) else critic.value(features)


def log_prob(
    learner: Any,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    obs: Any,
    act: Any,
    action_masks: Any = None,
) -> np.ndarray:
    """Log π(a|s) of one observation and action, a number, or of a batch, (B,); act: the environment's, as `predict` gives it.

    Of Box actions it is a density, by the action as the environment gets it. A Gaussian's action is clipped to the bounds
    on its way there: at a bound, the density is that of the number given. Raises NoValueError for policies without one,
    ValueError for what is no action of the space: choices must be whole numbers in their ranges, numbers of a Box finite.
    """
    policy = learner.policy
    if isinstance(policy.head, ActionValues) or (
        isinstance(policy.head, PathwiseHead) and not isinstance(policy.head, Squashed)
    ):
        raise NoValueError(f"the policy is deterministic, so log π(a|s) says nothing: {policy.head}")
    if policy.stateful:
        raise NoValueError("log π(a|s) depends on the episode so far, as the policy has a state")
    x, single = encoded(policy, observation_space, obs, action_masks)
    given = np.asarray(act)[None] if single else np.asarray(act)
    shape = (rows(x), *(action_space.shape or ()))
    if given.shape != shape:
        raise ValueError(f"expected actions of shape {shape[single:]}, of {action_space}, got shape {np.shape(act)}")
    stored = torch.from_numpy(_stored(policy.head, action_space, given)).to(policy.flat.device)
    logp = policy.head.logp(policy.dist(to_torch(x)), stored).cpu().numpy()
    return logp[0] if single else logp


def _check_actions(space: spaces.Space, act: np.ndarray) -> None:
    """Refuse what is no action: no number, and of choices what is not one of them."""
    if act.dtype.kind not in "biuf":
        raise ValueError(f"expected actions of {space}, which are numbers, got the type {act.dtype}")
    if isinstance(space, spaces.Box):
        wrong, what = ~np.isfinite(act), "finite numbers"
    else:
        start, count = 0, 2  # of a MultiBinary
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            start, count = space.start, space.n if isinstance(space, spaces.Discrete) else space.nvec
        x = act.astype(np.float64)
        wrong, what = ~((x == np.floor(x)) & (x >= start) & (x < start + count)), "whole numbers in their ranges"
    if wrong.any():
        row = act[int(np.argwhere(wrong)[0, 0])].tolist()
        raise ValueError(f"expected actions of {space}, {what}, got {row!s:.200}")


def _stored(head: Any, space: spaces.Space, act: np.ndarray) -> np.ndarray:
    """The environment's actions as the head stores them."""
    _check_actions(space, act)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (act - space.start).astype(np.int64)
    return head.from_env(act.astype(np.int64 if isinstance(space, spaces.MultiBinary) else np.float32))
