"""Every planted fault of an environment is found by the rule that is named for it, and healthy environments have none."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import pytest

import policygrad as pg
from policygrad.diagnosis import preflight, run, run_case, statistics
from policygrad.diagnosis.environment import play_all
from policygrad.diagnosis.preflight import RULES
from policygrad.diagnosis.symptoms import examine
from policygrad.envs.probes import TwoSteps
from policygrad.envs.single import make_one
from policygrad.reports import findings

sys.path.insert(0, str(Path(__file__).parent))
from faults import ENV_FAULTS, THRESHOLDS

STEPS = {"no end and no limit": 5_000, "a reward beyond the horizon": 16_000, "velocities hidden": 3_000}
RULE = {rule.name: rule for rule in RULES}


def faulty(wrap):
    return wrap(make_one("CartPole-v1"))


@pytest.mark.parametrize("fault", ENV_FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault):
    case = play_all(partial(faulty, fault.wrap), None, STEPS.get(fault.name, 800), 0)
    found = examine("", [RULE[name] for name in fault.rules], case)
    assert found.symptoms, found.silent
    assert {symptom.rule for symptom in found} <= set(fault.rules)
    assert all(RULE[symptom.rule].sure for symptom in found if symptom.sure)
    assert all(symptom.sure for symptom in found if RULE[symptom.rule].sure == "yes")
    assert all(symptom.advice and symptom.source and symptom.threshold for symptom in found)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_healthy_environment_has_no_symptom(env):
    found = pg.doctor(env, "ppo", steps=3_000)
    assert list(found) == []
    assert found.healthy
    assert len(found.healthy_rules) + len(found.silent) == len(RULES)


def test_the_thresholds_are_those_that_were_written_before_the_rules():
    p, t = preflight, THRESHOLDS
    assert t["bounds"] == p.OUTSIDE
    assert t["observation scale"] == (p.FAR_MEAN, p.SMALL_STD, p.LARGE_STD)
    assert t["reward scale"] == (p.SMALL_REWARD, p.LARGE_REWARD)
    assert (t["reward outlier"], t["actions"], t["reachable reward"]) == (p.OUTLIER, p.LEVEL, p.RARE)
    assert (t["horizon"], t["time limit as an end"]) == (p.WEIGHT, p.SAME_LENGTH)
    assert t["memory"] == (statistics.UNEXPLAINED, statistics.LEFT)
    assert (t["entropy stays"], t["entropy collapse"]) == (run.STAYS, (run.LOST, run.BEFORE))
    assert (t["KL"], t["clip"], t["no gradient"]) == (findings.MAX_UPDATE_KL, run.CLIPPED, run.NO_GRADIENT)
    assert (t["batch"], t["short run"], t["settings"]) == (run.BATCH, run.SHORT, run.FACTOR)
    assert t["improvement"] == run_case.ERRORS


def test_what_the_environment_raises_is_a_symptom_and_other_rules_still_speak():
    class Breaks(TwoSteps):
        steps = 0

        def step(self, action):
            Breaks.steps += 1
            if Breaks.steps % 400 == 0:
                raise ZeroDivisionError("no more fuel")
            return super().step(action)

    found = pg.doctor(Breaks, steps=1_000)
    symptom = next(iter(found))
    assert (symptom.rule, symptom.sure) == ("contract", True)
    assert "no more fuel" in symptom.text


def test_gamma_comes_from_the_preset_of_the_algorithm_and_scale_matters_less_to_one_that_standardises():
    env = partial(faulty, next(fault.wrap for fault in ENV_FAULTS if fault.name == "rewards × 1e5"))
    assert any(symptom.rule == "reward scale" for symptom in pg.doctor(env, steps=1_000))
    told = pg.doctor(env, "ppo", steps=1_000)
    assert "standardises" in told.silent["reward scale"]


def test_a_single_environment_with_a_wrapper_that_standardises_is_advised():
    found = pg.doctor(gym.wrappers.NormalizeObservation(gym.make("CartPole-v1")), steps=500)
    assert any(symptom.rule == "spaces" and "NormalizeObservation" in symptom.text for symptom in found)


def test_the_diagnosis_is_text_json_and_html():
    found = pg.doctor("MountainCar-v0", "dqn", steps=500)
    symptom = next(iter(found))
    assert symptom.rule == "observation scale"
    assert "maybe" in str(found)
    assert symptom.advice in " ".join(str(found).split())
    assert found.to_json()["symptoms"][0]["number"] == symptom.number
    assert found.to_json()["healthy"] is False
    html = found._repr_html_()
    assert "observation scale" in html
    assert "<table>" in html


@pytest.mark.parametrize(
    ("what", "keywords", "text"),
    [
        ("no-such-thing", {}, "neither a run nor an environment"),
        ("CartPole-v1", {"steps": 5}, "at least 100"),
        ("CartPole-v1", {"algo": "pppo"}, "pppo"),
    ],
)
def test_mistakes_are_named(what, keywords, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=text):
        pg.doctor(what, **keywords)
