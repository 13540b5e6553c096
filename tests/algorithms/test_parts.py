"""Parts of another kind than expected: classes without brackets, names, modules, optimisers, environments for spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from torch import nn

import policygrad as pg
from policygrad.errors import PartError, brief, check_part

OBS, ACT = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
GOOD: dict[str, Any] = {"estimator": pg.RewardToGo(), "update": pg.VanillaGradient()}


def learner(**parts: Any) -> pg.Learner:
    return pg.Learner(**{"policy": pg.make_policy(OBS, ACT, hidden=(3,))} | GOOD | parts)


def brackets(name: str) -> str:
    return rf"got the class {name}: did you forget the brackets, {name}\(\)\?"


CASES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: learner(baseline="leave-one-out"),
        "such as policygrad.LeaveOneOut.*names of baselines are for .*'leave-one-out'",
    ),
    (lambda: learner(baseline=pg.LeaveOneOut), brackets("LeaveOneOut")),
    (lambda: learner(baseline=pg.CrossFit(pg.TimeAverage)), brackets("TimeAverage")),  # pyright: ignore
    (lambda: learner(estimator=pg.RewardToGo), brackets("RewardToGo")),
    (lambda: learner(estimator=pg.Standardized(pg.RewardToGo)), brackets("RewardToGo")),
    (lambda: learner(estimator=pg.PerDecision(pg.RewardToGo)), brackets("RewardToGo")),
    (lambda: learner(estimator=pg.StateDiscounted("gae")), "the estimator inside StateDiscounted .* got 'gae'"),
    (lambda: learner(update=pg.VanillaGradient), brackets("VanillaGradient")),
    (lambda: learner(update=object.__new__(torch.optim.Adam)), "an update rule, such as .* class Adam"),
    (lambda: learner(update=torch.optim.Adam), "an update rule, such as .* got the class Adam$"),
    (lambda: learner(estimator=GOOD["update"], update=GOOD["estimator"]), "estimator must be an estimator"),
    (lambda: learner(policy=nn.Linear(4, 2)), r"policy must be a policy, such as .*make_policy.* class Linear"),
    (lambda: learner(critic=nn.Linear(4, 1)), "critic must be a critic, such as .*make_critic"),
    (lambda: pg.Collector("CartPole-v1"), r"make_envs\(…\) first, got 'CartPole-v1'"),  # pyright: ignore
    (lambda: pg.Collector(gym.make("CartPole-v1")), r"make_envs\(…\) first, .* class TimeLimit"),  # pyright: ignore
    (lambda: pg.make_policy(pg.make_envs("CartPole-v1", 2)), r"such as envs\.single_observation_space"),  # pyright: ignore
    (lambda: pg.make_policy(gym.make("CartPole-v1")), r"such as env\.observation_space"),  # pyright: ignore
    (lambda: pg.make_policy(OBS, 2), r"action_space must be a space .* got 2"),  # pyright: ignore
    (lambda: pg.make_policy(OBS), r"action_space must be a space .* got None"),
    (lambda: pg.make_critic(pg.make_envs("CartPole-v1", 2)), r"such as envs\.single_observation_space"),  # pyright: ignore
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=map(str, range(len(CASES))))
def test_a_part_of_another_kind_is_refused_where_it_is_given(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(PartError, match=message):
        make()


def test_any_object_with_the_members_is_a_part() -> None:
    """The negative control: nothing must be subclassed, and a function is an update rule that keeps nothing."""

    class Mine:
        needs_critic = needs_episodes = False

        def __call__(self, rollout: Any, ret: torch.Tensor, values: Any) -> torch.Tensor:
            return torch.zeros_like(ret)

    learner(baseline=Mine(), update=lambda policy, batch, progress: {})
    with pytest.raises(PartError, match=brackets("Mine")):
        learner(baseline=Mine)


def test_a_class_is_asked_for_its_own_members_and_not_for_those_of_classes() -> None:
    """Every class can be called, so that an object without `__call__` is no update rule in brackets either."""
    with pytest.raises(PartError, match="got the class Module: did you forget the brackets"):
        check_part("x", nn.Module, ("forward", "__call__"), "a thing")
    with pytest.raises(PartError, match=r"got the class int$"):
        check_part("x", int, ("__call__",), "a thing")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a" * 9, "'aaaaaaaaa'"),
        (None, "None"),
        ("a" * 99, "an object of the class str"),
        (OBS, "an object of the class Box"),
    ],
)
def test_values_are_one_short_line_in_messages(value: Any, text: str) -> None:
    assert brief(value) == text
