"""The experiment of examples/sim_to_real: its physics, its bounds, its rules for answers, and a small run from end to end."""

from __future__ import annotations

import importlib
import json
import math
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.models.ascent import mean_kl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "sim_to_real"


class Modules:
    """The files of the example, imported as it imports them."""

    def __init__(self) -> None:
        self.physics, self.tuning = importlib.import_module("physics"), importlib.import_module("tuning")
        self.experiment, self.plots = importlib.import_module("experiment"), importlib.import_module("transfer_plots")


@pytest.fixture
def x(monkeypatch) -> Modules:
    monkeypatch.syspath_prepend(FOLDER)
    return Modules()


@pytest.fixture
def simulated(x) -> pg.Agent:
    """An agent whose policy is that of the simulation; nothing here asks it to be good."""
    return pg.Agent("ppo", "Pendulum-v1", preset={}, num_envs=1, num_steps=200, wrappers=[x.physics.randomised])


def drawn(env: gym.Env, episodes: int, seed: int) -> list[dict[str, float]]:
    first = env.reset(seed=seed)[1]["physics"]
    return [first, *(env.reset()[1]["physics"] for _ in range(episodes - 1))]


def test_physics_are_drawn_anew_at_every_reset_within_their_ranges_and_are_those_of_the_environment(x):
    env = x.physics.randomised(gym.make("Pendulum-v1"))
    for physics in drawn(env, 50, seed=0)[-1:]:
        assert {name: getattr(env.unwrapped, name) for name in physics} == physics
    every = drawn(env, 200, seed=1)
    for name, (low, high) in x.physics.RANDOMISED.items():
        values = np.array([physics[name] for physics in every])
        assert len(np.unique(values)) == 200
        assert (low <= values).all()
        assert (values <= high).all()
        error = 4 * (high - low) / math.sqrt(12 * 200)  # four standard errors of a uniform mean
        assert abs(values.mean() - (low + high) / 2) < error


def test_the_same_seed_draws_the_same_physics_and_another_seed_draws_others(x):
    envs = [x.physics.randomised(gym.make("Pendulum-v1")) for _ in range(3)]
    same, again, other = (drawn(env, 5, seed) for env, seed in zip(envs, (3, 3, 4), strict=True))
    assert same == again
    assert all(a != b for a, b in zip(same, other, strict=True))


def test_the_first_state_does_not_tell_the_physics(x):
    """Both come from one generator, one after the other: over many seeds they must not be correlated."""
    env = x.physics.randomised(gym.make("Pendulum-v1"))
    rows = []
    for seed in range(400):
        _, info = env.reset(seed=seed)
        rows.append([*env.unwrapped.state, *info["physics"].values()])
    correlation = np.corrcoef(np.array(rows).T)[:2, 2:]
    assert np.abs(correlation).max() < 4 / math.sqrt(400)


def test_a_step_follows_the_physics_that_were_set(x):
    """θ̈ = 3g / 2l · sin θ + 3u / ml², Euler steps of 0.05 s (Gymnasium's documentation)."""
    for name, q in x.physics.REALITIES.items():
        env = x.physics.reality(name)
        env.reset(seed=0)
        env.unwrapped.state = np.array([0.5, 0.1])
        obs, *_ = env.step(np.array([1.5], np.float32))
        speed = 0.1 + (3 * q["g"] / (2 * q["l"]) * math.sin(0.5) + 3 * 1.5 / (q["m"] * q["l"] ** 2)) * 0.05
        assert obs[2] == pytest.approx(speed, rel=1e-5)
    nominal = 0.1 + (15 * math.sin(0.5) + 4.5) * 0.05
    assert abs(obs[2] - nominal) > 0.1  # the negative control: the simulation's physics move it otherwise


def test_reality_is_outside_of_what_training_sees(x):
    for q in x.physics.REALITIES.values():
        assert any(not low <= q[name] <= high for name, (low, high) in x.physics.RANDOMISED.items())
        assert q != x.physics.FIXED
    assert all(low <= x.physics.FIXED[name] <= high for name, (low, high) in x.physics.RANDOMISED.items())


@pytest.mark.parametrize(
    ("physics", "said"),
    [({"mass": 1.0}, "no number 'mass'"), ({"m": (2.0, 1.0)}, "low ≤ high"), ({"m": math.nan}, "finite")],
)
def test_physics_that_cannot_be_are_refused(x, physics, said):
    with pytest.raises(ValueError, match=said):
        x.physics.Physics(gym.make("Pendulum-v1"), **physics)


def test_a_policy_that_is_not_tuned_stays_the_same_to_the_last_bit_and_so_does_the_simulated_agent(x, simulated):
    before = simulated.policy.flat.clone()
    run = x.tuning.tune(simulated, "untouched", "light", 0, episodes=4, evaluated=2)
    assert run["kl_update"] == run["kl_total"] == 0.0
    mean = simulated.evaluate(2, env=partial(x.physics.reality, "light")).mean
    assert run["after"] == round(mean, 2)
    x.tuning.tune(simulated, "no bound", "light", 0, episodes=4, evaluated=2)
    assert torch.equal(simulated.policy.flat, before)


def test_the_bounds_hold_and_without_them_the_policy_goes_further(x, simulated):
    settings = {"max_kl": 0.01, "max_total_kl": 0.015, "lr": 1e-3}
    free, bound, total = (
        x.tuning.tune(simulated, side, "light", 1, settings, episodes=8, evaluated=1)
        for side in ("no bound", "bound per update", "bound in total")
    )
    assert 0.0 < bound["kl_update"] <= settings["max_kl"] < free["kl_update"]
    assert 0.0 < total["kl_update"] <= settings["max_kl"]
    assert total["kl_total"] < bound["kl_total"] < free["kl_total"]
    first = x.tuning.PER_UPDATE
    assert bound["returns"][:first] == free["returns"][:first]  # the same policy plays them
    assert bound["returns"] != free["returns"]


def batch_of(policy: pg.Policy) -> pg.Batch:
    generator = torch.Generator().manual_seed(0)
    obs, act = torch.randn(64, 3, generator=generator), torch.randn(64, 1, generator=generator)
    rows = pg.Batch.of(obs, act)
    adv = torch.randn(64, generator=generator)
    return replace(rows, logp=policy.evaluate(rows).logp, adv=adv, weight=torch.full((64,), 1 / 64))


@pytest.mark.parametrize("total", [1e-9, 1e-3, 1.0])
def test_the_bound_in_total_is_on_the_distance_to_the_anchor(x, simulated, total):
    policy = deepcopy(simulated.policy)
    batch, anchor, before = batch_of(policy), deepcopy(policy), policy.flat.clone()
    rule = x.tuning.AnchoredTrustRegion(0.01, anchor=anchor, max_total_kl=total)
    rule(policy, batch)
    kl = mean_kl(policy, anchor.distributions(batch), batch)
    assert kl <= total
    assert torch.equal(policy.flat, before) == (total == 1e-9)  # no shortened step is that short: none is taken
    if total == 1.0:  # TRPO's own step, to the last bit
        plain = deepcopy(simulated.policy)
        pg.TrustRegion(0.01)(plain, batch)
        assert torch.equal(policy.flat, plain.flat)


def planted(x: Modules, better: float) -> list[dict[str, Any]]:
    """Runs in which the bound's worst episode is better by so much, and nothing else differs."""
    rng = np.random.default_rng(0)
    return [
        {"simulation": sim, "reality": world, "side": side, "seed": seed, "kl_update": 0.01, "kl_total": 0.1,
         "after": float(rng.normal()), "worst": float(rng.normal()) + better * (side != "no bound")}
        for sim in x.physics.SIMULATIONS for world in x.physics.REALITIES for side in x.tuning.SIDES for seed in range(10)
    ]  # fmt: skip


def test_answers_say_what_was_planted_and_are_open_where_nothing_was(x):
    for better, verdict in ((10.0, 1), (-10.0, -1), (0.0, 0)):
        for question, _, difference in x.experiment.answers(planted(x, better)):
            about = question.one[2] == "worst" and question.other[1] == "no bound"
            assert difference.verdict == (verdict if about else 0), question.text


def test_the_script_runs_from_end_to_end_and_reads_its_own_runs(x, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ("sides", "answers")
    places = [f"<!-- {name}: from examples/sim_to_real/experiment.py -->\n<!-- end of {name} -->\n" for name in names]
    Path("page.md").write_text("".join(places), "utf8")
    monkeypatch.setattr(x.experiment, "tune", partial(x.tuning.tune, episodes=4))
    for module in (x.experiment, x.plots):
        monkeypatch.setattr(module, "REALITIES", {"light": x.physics.REALITIES["light"]})
    few = ["--seeds", "1", "--steps", "200", "--evaluated", "2", "--picture", "made.png", "--page", "page.md"]
    monkeypatch.setattr(sys, "argv", ["experiment", *few])
    x.experiment.main()
    first = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["experiment", "--read", "runs.json"])
    x.experiment.main()
    assert first.endswith(capsys.readouterr().out)
    assert Path("made.png").stat().st_size > 10_000
    assert "| light | fixed | untouched |" in Path("page.md").read_text("utf8")
    assert len(json.loads(Path("runs.json").read_text("utf8"))) == 2 * 4  # simulations × sides


def test_the_tables_of_the_page_are_those_of_the_recorded_runs_and_settings_those_that_were_chosen(x):
    page = (ROOT / "docs" / "sim-to-real.md").read_text("utf8")
    runs = json.loads((FOLDER / "runs.json").read_text("utf8"))
    tables = {"sides": x.experiment.table(runs), "answers": x.experiment.verdicts(runs)}
    assert x.experiment.written(page, tables) == page
    assert {run["seed"] for run in runs} == set(range(10))
    assert json.loads((FOLDER / "choice.json").read_text("utf8"))["chosen"] == x.tuning.SETTINGS
