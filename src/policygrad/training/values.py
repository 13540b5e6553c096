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
from policygrad.training.predicting import encoded
from policygrad.tree import Tree, rows, to_torch


class NoValueError(UserError, ValueError):
    """The agent learns no values, or its policy has no density."""


def value(learner: Any, space: spaces.Space, obs: Any, action_masks: Any = None) -> np.ndarray:
    """V of one observation, a number, or of a batch, (B,): in units of the return that the critic regresses on.

    Of a critic of q(s, a), V is Σ_a π(a|s) q(s, a); of action values, whose policy is greedy, max_a q(s, a); of a pathwise
    critic, the smallest q(s, a) of its networks at the most likely action. Raises NoValueError where nothing learns values, and
    for a critic with a memory.
    """
    x, single = encoded(learner.policy, space, obs, action_masks)
    val = _values(learner, to_torch(x)).cpu().numpy()
    return val[0] if single else val


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
    return critic.value(features)


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
    on its way there: at a bound, the density is that of the number given. Raises NoValueError for policies without one.
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


def _stored(head: Any, space: spaces.Space, act: np.ndarray) -> np.ndarray:
    """The environment's actions as the head stores them."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (act - space.start).astype(np.int64)
    return head.from_env(act.astype(np.int64 if isinstance(space, spaces.MultiBinary) else np.float32))
