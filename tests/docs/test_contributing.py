"""CONTRIBUTING.md is true: the lines that it adds to the zoo are members of which the theorem holds."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo

from policygrad.gradient.baselines import CriticValue
from policygrad.gradient.estimators import StateDiscounted, advantages
from policygrad.lab.exact.tabular import credited_gradient, discounts, enumerate_trajectories, exact_gradient

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf8")
ADDED = re.compile(r"^```diff\n--- a/(\S+)\n\+\+\+ b/\1\n@@ ?(\w*)\n((?:\+.*\n)+)```", re.MULTILINE)


@pytest.fixture(scope="module")
def members() -> dict[str, list[Any]]:
    """What the page adds to each list of the zoo, made from its code; list → members."""
    names: dict[str, Any] = {"__name__": "contributing"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if "learn(" not in block:
            exec(compile(block, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    names |= {"est": SimpleNamespace(Blend=names["Blend"])}
    found = {name: lines for path, name, lines in ADDED.findall(PAGE) if path == "tests/zoo.py"}
    return {
        name: eval("[" + re.sub(r"^\+", "", lines, flags=re.MULTILINE) + "]", {**vars(zoo), **names})
        for name, lines in found.items()
    }


def test_the_files_that_the_page_changes_are_there_and_the_lists_too(members):
    assert all((Path(__file__).parents[2] / path).exists() for path, _, _ in ADDED.findall(PAGE))
    assert set(members) == {"ESTIMATORS", "UPDATES"}
    assert all(isinstance(m, type(getattr(zoo, name)[0])) for name, made in members.items() for m in made)


@pytest.mark.parametrize("critic", [c for c in zoo.CRITICS if c.name in ("exact V", "wrong V")], ids=lambda c: c.name)
@pytest.mark.parametrize("world", zoo.MDPS, ids=lambda w: w.name)
def test_the_expectation_of_the_added_estimator_is_its_credit(members, world, critic):
    (member,) = members["ESTIMATORS"]
    policy, values = world.policy(), critic.make(world)
    rollout, p = enumerate_trajectories(world.mdp, policy)
    estimator = StateDiscounted(member.make(world.mdp.gamma))
    adv, _ = advantages(rollout, values(rollout, policy), estimator, CriticValue())
    batch = rollout.flatten(adv, "trajectory")
    weight = batch.weight * batch.adv * p.expand_as(adv)[rollout.mask] * rollout.trajectories
    expected = policy.evaluate(batch).gradient(weight).clone()
    V = world.V if critic.exact else values.V
    credit = discounts(world.mdp) * member.credit(world.mdp, world.pi, V, None)
    torch.testing.assert_close(expected, credited_gradient(world.mdp, policy, credit), rtol=0.0, atol=1e-12)
    unbiased = critic.exact or member.reach >= world.mdp.horizon
    assert bool((expected - exact_gradient(world.mdp, policy)).abs().max() <= 1e-12) == unbiased


def test_the_first_step_of_the_added_rule_is_the_gradient(members):
    (member,) = members["UPDATES"]
    world = zoo.MDPS[0]
    policy, plain = world.policy(), world.policy()
    rollout, _ = enumerate_trajectories(world.mdp, policy)
    batch = rollout.flatten(rollout.rew, "trajectory")
    rule, vanilla = member.make(), zoo.UPDATES[0].make()
    assert member.first_order
    assert rule.lr == vanilla.lr
    rule(policy, batch)
    vanilla(plain, batch)
    torch.testing.assert_close(policy.flat, plain.flat)
