"""Every rule about runs speaks of a run that has its fault, and of no healthy one. The runs are written, not trained."""

from __future__ import annotations

import json
import re
import shlex
from itertools import combinations

import numpy as np
import pytest

import policygrad as pg
from policygrad.algorithms.config import resolve
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.arguments import parse_train
from policygrad.diagnosis.run import RULES
from policygrad.diagnosis.settings_rules import lr_width
from policygrad.diagnosis.update_rules import turns

ROWS, EPISODES = 40, 400
NOISE = np.random.default_rng(0).normal(size=EPISODES)
RISING = 20.0 + np.linspace(0.0, 200.0, EPISODES) + 5.0 * NOISE
FLAT = 20.0 + 5.0 * NOISE
HEALTHY = {"kl": 0.005, "entropy": 0.6, "clip_fraction": 0.05, "explained_variance": 0.7, "grad_norm": 0.3}
OFF_POLICY = {"q_mean": 20.0, "td_error": 1.0, "epsilon": 0.05, "replay_steps": 10_000}


def written(path, algo="ppo", returns=RISING, lengths=None, settings=None, state=None, greedy=None, **columns):
    """A run directory of CartPole-v1, healthy unless said otherwise; columns: numbers, or arrays (ROWS,), of the rows."""
    lengths = 10 + np.arange(len(returns)) % 3 if lengths is None else np.broadcast_to(lengths, len(returns))
    config = resolve(algo, "CartPole-v1", {})[0] | (settings or {})
    told = {"algo": algo, "env": "CartPole-v1", "seed": 0, "config": config, "recipe": RECIPES[algo].spec.to_json()}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(told | {"reward_threshold": 475.0}, default=str))
    (path / "state.json").write_text(json.dumps(state or {"status": "finished", "steps": config["steps"]}))
    lines = "".join(f"{x},{n},0.1\n" for x, n in zip(returns, lengths, strict=True))
    (path / "monitor.csv").write_text(f"#{{}}\nr,l,t\n{lines}")
    columns = {name: np.broadcast_to(x, ROWS) for name, x in columns.items()}
    rows = []
    for i in range(ROWS):
        base = {"steps": (i + 1) * config["steps"] // ROWS, "episodes": len(returns) * (i + 1) // ROWS}
        base |= {"return_mean": float(np.mean(returns)) if len(returns) else None}
        rows.append(base | {name: float(x[i]) for name, x in columns.items()})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = {way: {"mean": m, "std": 1.0, "ci95": [m - 1, m + 1], "returns": [m]} for way, m in (greedy or {}).items()}
    if both:
        (path / "evaluation.json").write_text(json.dumps(both))
    return path


def path_of(*parts):
    """A column that has these values in equal parts of the run."""
    return np.concatenate(
        [np.full(len(x), v) for v, x in zip(parts, np.array_split(np.zeros(ROWS), len(parts)), strict=True)]
    )


SICK = {
    "stopped": {"state": {"status": "stopped", "steps": 10, "reason": "NotFiniteError: observation[0] is nan"}},
    "no episodes": {"returns": ()},
    "equal returns": {"returns": np.full(EPISODES, 9.0)},
    "not improving": {"returns": FLAT},
    "lost again": {"returns": np.concatenate([RISING[:320], FLAT[:80]])},
    "short run": {"settings": {"steps": 1000}},
    "settings": {"returns": FLAT, "settings": {"lr": 1.0}},
    "batch": {"returns": FLAT, "settings": {"num_envs": 1, "num_steps": 8}},
    "no gradient": {"grad_norm": 0.0},
    "entropy": {"returns": FLAT, "entropy": 0.69},
    "KL": {"returns": FLAT, "kl": 0.3},
    "clip": {"returns": FLAT, "clip_fraction": 0.5},
    "critic": {"returns": FLAT, "explained_variance": path_of(0.5, 0.5, 0.5, -0.2, -0.2)},
    "gradient noise": {
        "returns": FLAT,
        "meter_groups": 16.0,
        "signal": 0.001,
        "noise": 1.0,
        "snr": 0.001,
        "noise_scale": 1e6,
    },
    "steps": {"algo": "trpo", "returns": FLAT, "accepted": 0.0, "cg_residual": 0.5, "cg_iterations": 10.0},
    "action values": {"algo": "dqn", "returns": FLAT, **OFF_POLICY, "q_mean": 1e6},
    "greedy": {"greedy": {"greedy": 20.0, "sampled": 200.0}},
    "progress": {"returns": FLAT, "lengths": 10 + np.arange(EPISODES) // 8},
    "limit": {"returns": FLAT, "lengths": 200},
    "horizon": {"settings": {"gamma": 0.1}, "lengths": 100},
    "replay": {"algo": "dqn", "returns": FLAT, **OFF_POLICY, "settings": {"num_steps": 256, "gradient_steps": 1}},
    "first ratio": {"ratio_error": 1e-3},
    "no advantage": {"adv_std": path_of(1.0, 0.0, 1.0)},
    "gradient clipping": {"returns": FLAT, "settings": {"max_grad_norm": 0.01}},
    "momentum": {"returns": FLAT, "predicted_gain": 0.001, "step_norm": 0.1},
    "clipped actions": {"returns": FLAT, "clipped_actions": 0.5},
    "entropy swings": {"returns": FLAT, "entropy": path_of(0.6, 0.3, 0.6, 0.3, 0.6, 0.3)},
}
OTHERS = [
    ("replay", {"algo": "dqn", "returns": FLAT, **OFF_POLICY, "settings": {"num_steps": 1, "gradient_steps": 32}}),
    ("progress", {"returns": np.where(np.arange(EPISODES) == 390, 90.0, FLAT)}),
    ("settings", {"returns": FLAT, "settings": {"lr": 1e-8}}),
    ("settings", {"returns": FLAT, "settings": {"critic_lr": 1e-9}}),
    ("entropy", {"returns": FLAT, "entropy": path_of(0.69, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001)}),
    ("KL", {"returns": FLAT, "kl": 1e-7}),
    ("clip", {"returns": FLAT, "clip_fraction": 0.0}),
    ("critic", {"explained_variance": -0.01}),
]


NEAR = [  # just inside of the thresholds
    ("progress", {"returns": np.where(np.arange(EPISODES) == 390, 40.0, FLAT)}),
    ("limit", {"returns": FLAT, "lengths": 200 - (np.arange(EPISODES) == 7)}),
    ("horizon", {"settings": {"gamma": 0.1}, "lengths": 10}),
    ("horizon", {"settings": {"gamma": 0.81}, "lengths": 1000}),
    ("critic", {"returns": np.full(EPISODES, 480.0) + NOISE, "explained_variance": -0.1}),  # of a task that is solved
    ("replay", {"algo": "dqn", "returns": FLAT, **OFF_POLICY, "settings": {"num_steps": 1, "gradient_steps": 8}}),
    ("first ratio", {"ratio_error": 1e-6}),
    ("no advantage", {"adv_std": path_of(1.0, 0.0, 1.0, 1.0, 1.0, 1.0)}),
    ("gradient clipping", {"returns": FLAT, "settings": {"max_grad_norm": 0.31}}),
    ("momentum", {"returns": FLAT, "predicted_gain": 0.004, "step_norm": 0.1}),
    ("clipped actions", {"returns": FLAT, "clipped_actions": path_of(0.5, 0.1, 0.1)}),
    ("entropy swings", {"returns": FLAT, "entropy": path_of(0.6, 0.5, 0.6, 0.5, 0.6, 0.5)}),
    ("entropy swings", {"returns": FLAT, "entropy": path_of(0.6, 0.3, 0.6, 0.3)}),
]


def rules(path, **what):
    """The names of the rules that speak of such a run."""
    base = HEALTHY if what.get("algo", "ppo") != "dqn" else {}
    return [symptom.rule for symptom in pg.doctor(written(path, **(base | what)))]


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if rule.name != "luck"])
def test_every_rule_finds_its_fault(rule, tmp_path):
    found = pg.doctor(written(tmp_path / "run", **(({} if SICK[rule].get("algo") == "dqn" else HEALTHY) | SICK[rule])))
    assert rule in [symptom.rule for symptom in found]
    assert {symptom.rule for symptom in found if symptom.sure} <= {each.name for each in RULES if each.sure}
    assert {symptom.rule for symptom in found if not symptom.sure} & {
        each.name for each in RULES if each.sure == "yes"
    } == set()


@pytest.mark.parametrize(("rule", "what"), OTHERS)
def test_faults_on_the_other_side_are_found_too(rule, what, tmp_path):
    assert rule in rules(tmp_path / "run", **what)


@pytest.mark.parametrize(("rule", "what"), NEAR)
def test_what_is_just_inside_of_a_threshold_is_no_symptom(rule, what, tmp_path):
    assert rule not in rules(tmp_path / "run", **what)


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"greedy": {"greedy": 200.0, "sampled": 20.0}},
        {"greedy": {"greedy": 199.0, "sampled": 200.0}},
        {"state": {"status": "stopped", "steps": 10, "reason": "SIGINT"}},
        {"explained_variance": path_of(-0.5, 0.2, 0.5)},
        {"algo": "dqn", **OFF_POLICY},
        {"algo": "a2c", "kl": 2e-5},
    ],
)
def test_a_healthy_run_has_no_symptom(what, tmp_path):
    assert rules(tmp_path / "run", **what) == []


SUSPICIOUS = {"entropy": 0.69, "kl": 0.3, "clip_fraction": 0.5, "settings": {"lr": 1.0}}


def test_settings_are_blamed_only_where_the_return_does_not_rise(tmp_path):
    found = pg.doctor(written(tmp_path / "rises", **(HEALTHY | SUSPICIOUS)))
    assert found.healthy
    speak_only_of_stalls = {name for name, why in found.silent.items() if why == "the return rises"}
    assert {"settings", "entropy", "KL", "clip"} <= speak_only_of_stalls
    assert speak_only_of_stalls == {rule.name for rule in RULES if rule.stalls} | {"progress"}
    assert {"settings", "entropy", "KL", "clip"} <= set(rules(tmp_path / "flat", returns=FLAT, **SUSPICIOUS))


def test_a_plateau_below_the_solved_return_stalls_and_one_above_does_not(tmp_path):
    plateau = np.concatenate([RISING[:100], np.full(300, 70.0)]) + 5.0 * NOISE
    assert "KL" in rules(tmp_path / "below", returns=plateau, kl=0.3)
    assert "KL" not in rules(tmp_path / "above", returns=plateau + 450.0, kl=0.3)


def test_a_run_that_has_just_begun_says_what_could_not_be_looked_at(tmp_path):
    path = written(tmp_path / "run", returns=FLAT[:3], state={"status": "running", "steps": 0}, **HEALTHY)
    (path / "metrics.jsonl").unlink()
    found = pg.doctor(path)
    assert found.healthy
    assert {"equal returns", "not improving", "short run", "KL"} <= set(found.silent)


@pytest.mark.parametrize("case", [*SICK.values(), *(what for _, what in OTHERS)])
def test_advice_to_train_is_a_command_that_there_is(case, tmp_path):
    path = written(tmp_path / "run", **((HEALTHY if case.get("algo") != "dqn" else {}) | case))
    for symptom in pg.doctor(path):
        for words in re.findall(r"policygrad train (.*)", symptom.advice):
            parse_train(shlex.split(words))


def test_files_of_strangers_are_refused_by_name(tmp_path):
    path = written(tmp_path / "run", **HEALTHY)
    (path / "monitor.csv").write_text("#{}\nr,l,t\nnine,1,1\n")
    with pytest.raises(pg.PolicygradError, match=r"monitor\.csv, line 3"):
        pg.doctor(path)
    with pytest.raises(ValueError, match="leave them out"):
        pg.doctor(path, "ppo")


def folder_of(path, ours, others):
    """Finished runs of two settings with these final returns, in one folder; the first of ours."""
    for i, score in enumerate(ours):
        written(path / f"ours{i}", greedy={"greedy": score, "sampled": score}, **HEALTHY)
    for i, score in enumerate(others):
        settings = {"lr": 0.0011}
        written(path / f"other{i}", greedy={"greedy": score, "sampled": score}, settings=settings, **HEALTHY)
    return path / "ours0"


@pytest.mark.parametrize(
    ("ours", "others", "spoken"),
    [
        ((200, 180, 150, 190), (160, 195, 170, 140), True),
        ((200, 180, 175, 190), (60, 95, 70, 40), False),  # no overlap: p = 2/70
        ((160, 195, 170, 140), (200, 180, 150, 190), False),  # this one is the worse
        ((200, 180, 150), (160, 195, 170), False),  # too few seeds
    ],
)
def test_luck_is_a_lead_that_seeds_of_one_setting_have_too(ours, others, spoken, tmp_path):
    found = [symptom for symptom in pg.doctor(folder_of(tmp_path, ours, others)) if symptom.rule == "luck"]
    assert bool(found) == spoken
    if spoken:  # two-sided, of 70 ways to deal the seeds: at least this many are as far from 1/2 as the one seen
        wins = [
            sum(a > b for a in one for b in set(ours + others) - set(one)) for one in combinations(ours + others, 4)
        ]
        seen = sum(a > b for a in ours for b in others)
        assert found[0].number == pytest.approx(sum(abs(w - 8) >= abs(seen - 8) for w in wins) / 70)


def test_entropy_turns_are_counted_once_each_and_small_ones_not_at_all():
    assert turns(np.array([1.0, 0.5, 1.0, 0.5, 1.0]), 0.2) == 3
    assert turns(np.array([1.0, 0.9, 1.0, 0.9, 1.0]), 0.2) == 0
    assert turns(np.linspace(1.0, 0.0, 50), 0.2) == 0
    assert turns(np.concatenate([np.linspace(1.0, 0.0, 50), np.linspace(0.0, 1.0, 50)]), 0.2) == 1


def test_the_width_of_a_sweep_is_that_of_the_rates_next_to_the_best_that_work():
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    assert lr_width(rates, [0.0, 96.0, 100.0, 10.0]) == pytest.approx(10.0)
    assert lr_width(rates, [0.0, 10.0, 100.0, 10.0]) == 1.0
    assert lr_width(rates, [96.0, 10.0, 100.0, 95.0]) == pytest.approx(10.0)  # the first works, but not beside the best
    assert lr_width(rates[::-1], [5.0, 5.0, 5.0, 5.0]) == pytest.approx(1000.0)
    with pytest.raises(ValueError, match="three or more"):
        lr_width([1e-3, 1e-2], [1.0, 2.0])
