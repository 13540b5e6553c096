"""The critic is fitted beside the update of the policy, and nobody can tell from the numbers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import policygrad as pg
from policygrad.algorithms import learner
from policygrad.algorithms.side_by_side import side_by_side
from policygrad.envs import processes


@pytest.mark.parametrize("algo", ["ppo", "trpo"])
def test_one_core_and_two_give_the_same_bits(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "LONG_FIT", 100)
    found: list[tuple[Any, bool]] = []
    for cores in (1, 2):
        monkeypatch.setattr(processes, "usable_cores", lambda cores=cores: cores)
        agent, used = getattr(pg, algo)("CartPole-v1", seed=3, num_steps=64, kernel="compiled", preset={}), []
        fit = agent.learner.critic.fit
        agent.learner.critic.fit = lambda *given, fit=fit, used=used: (
            used.append(threading.current_thread()) or fit(*given)
        )
        agent.learn(2048)
        aside = {thread is not threading.main_thread() for thread in used}
        assert aside == {cores == 2}
        found.append((torch.cat([agent.policy.flat, agent.learner.critic.flat]), agent.learner.critic.mean))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_small_fits_and_those_that_are_not_compiled_have_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "side_by_side", None)  # calling it would fail
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    pg.a2c("CartPole-v1", kernel="compiled", preset={}).learn(200)
    monkeypatch.setattr(learner, "LONG_FIT", 0)
    pg.ppo("CartPole-v1", num_steps=32, kernel="closed_form", preset={}).learn(200)
    monkeypatch.setattr(processes, "most_cores", 1)  # other seeds have the others
    pg.ppo("CartPole-v1", num_steps=32, kernel="compiled", preset={}).learn(200)


def test_an_error_of_either_is_raised_and_the_other_is_waited_for() -> None:
    done, gate = [], threading.Event()

    def fails() -> None:
        gate.set()
        raise ValueError("first")

    def slow() -> None:
        gate.wait(10.0)
        done.append(torch.get_num_threads())

    with pytest.raises(ValueError, match="first"):
        side_by_side(fails, slow)
    assert done == [torch.get_num_threads()]
    gate.clear()
    with pytest.raises(ValueError, match="first"):
        side_by_side(lambda: None, fails)
    assert side_by_side(lambda: 1, lambda: 2) == (1, 2)
