"""The probes find every planted fault of an algorithm, each the one that is there for it, and no fault of a healthy one."""

from __future__ import annotations

import numpy as np
import pytest
from learner_faults import LEARNER_FAULTS, healthy

import policygrad as pg
from policygrad.envs.probes import ActionReward, TwoSteps
from policygrad.training.probing import agent_for, find_recipe, least_probability, probe, value_error


def spoken(found):
    """The probes that fail."""
    return [symptom.rule for symptom in found]


@pytest.mark.parametrize("fault", LEARNER_FAULTS, ids=lambda fault: fault.name)
def test_the_probe_of_a_part_is_the_first_that_fails_without_it(fault):
    found = probe(fault.recipe)
    assert spoken(found) == [fault.rule]
    assert list(found.silent.values()) == [f"the {fault.rule} fails already"] * (4 - len(found.healthy_rules))


@pytest.mark.parametrize("algo", [healthy, "ppo", "reinforce"])
def test_healthy_algorithms_pass(algo):
    found = probe(algo)
    assert found.healthy, str(found)
    assert len(found.healthy_rules) == 5


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["a2c", "trpo", "actor_critic", "npg", "ppo_kl", "dqn", "pqn", "ddpg", "td3", "sac"])
def test_the_other_algorithms_pass_too(algo):
    assert probe(algo).healthy, str(probe(algo))


def test_settings_of_a_run_are_probed_with_it():
    assert spoken(probe("ppo", {"critic_lr": 1e-10})) == [
        "probe of observation"
    ]  # a constant, the critic's scale knows


def test_what_is_not_learned_is_not_asked():
    found = probe("reinforce", {"baseline": "none"})
    assert found.silent["probe of value"] == "the algorithm learns no values"
    assert found.healthy


def test_numbers_are_those_of_the_agents_own_values_and_probabilities():
    agent = agent_for(find_recipe("ppo"), {}, 0, TwoSteps)
    obs = np.array([[0.0], [1.0]], np.float32)
    assert value_error(agent, TwoSteps) == pytest.approx(np.abs(agent.value(obs) - [0.5, 1.0]).max())
    agent = agent_for(find_recipe("ppo"), {}, 0, ActionReward)
    first = np.array([0.0], np.float32)
    both = [np.exp(agent.log_prob(first, act)) for act in (0, 1)]
    assert sum(both) == pytest.approx(1.0)
    assert least_probability(agent, ActionReward) == pytest.approx(both[1])


def test_settings_that_there_are_not_are_refused():
    with pytest.raises(pg.PolicygradError, match="no_such"):
        probe("ppo", {"no_such": 1})
