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
    plain = gym.make("Pendulum-v1").unwrapped
    assert all(getattr(plain, name) == value for name, value in x.physics.FIXED.items())
    assert all(low <= x.physics.FIXED[name] <= high for name, (low, high) in x.physics.RANDOMISED.items())


@pytest.mark.parametrize(
    ("physics", "said"),
    [({"mass": 1.0}, "no number 'mass'"), ({"m": (2.0, 1.0)}, "low ≤ high"), ({"m": math.nan}, "finite")],
)
def test_physics_that_cannot_be_are_refused(x, physics, said):
    with pytest.raises(ValueError, match=said):
        x.physics.Physics(gym.make("Pendulum-v1"), **physics)


def test_the_simulated_agent_stays_the_same_to_the_last_bit_whatever_is_tuned(x, simulated):
    before = simulated.policy.flat.clone()
    first = x.tuning.tune(simulated, "untouched", "light", 0, evaluated=2)
    run = x.tuning.tune(simulated, "no bound", "light", 0, episodes=4, evaluated=2)
    assert torch.equal(simulated.policy.flat, before)
    assert x.tuning.tune(simulated, "untouched", "light", 0, evaluated=2) == first
    assert run["worst"] == min(run["returns"][x.tuning.PER_UPDATE :])
    assert run["after"] != first["after"]


def test_the_bound_holds_and_without_it_the_policy_goes_further(x, simulated):
    free, bound = (
        x.tuning.tune(simulated, side, "light", 1, {"max_kl": 0.01, "lr": 1e-3}, episodes=8, evaluated=1)
        for side in ("no bound", "KL bound")
    )
    assert 0.0 < bound["kl_update"] <= 0.01 < free["kl_update"]
    assert bound["kl_total"] < free["kl_total"]
    first = x.tuning.PER_UPDATE
    assert bound["returns"][:first] == free["returns"][:first]  # the same policy plays them
    assert bound["returns"] != free["returns"]


def test_the_rule_without_a_bound_ascends_the_surrogate_that_the_trust_region_has(x, simulated):
    """Its score weights are those of ∇ Σ weight · ratio · adv, also where PPO would clip them."""
    policy = deepcopy(simulated.policy)
    rows = pg.Batch.of(torch.randn(64, 3), torch.randn(64, 1))
    old = policy.evaluate(rows).logp - torch.linspace(-2.0, 2.0, 64)  # ratios of 0.14 to 7.4
    batch = replace(rows, logp=old, adv=torch.linspace(-1.0, 1.0, 64), weight=torch.full((64,), 1 / 64))
    logp = policy.evaluate(batch).logp.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((batch.weight * (logp - batch.logp).exp() * batch.adv).sum(), logp)
    torch.testing.assert_close(x.tuning.unbounded({"lr": 1e-3}, 0).score_weights(logp.detach(), batch), wanted)
    clipped = pg.ClippedSurrogate(1e-3).score_weights(logp.detach(), batch)
    assert (clipped - wanted).abs().max() > 1e-3  # the negative control


def test_every_update_has_so_many_whole_episodes_and_too_few_are_refused(x, simulated):
    seen = []
    with pg.Agent(x.tuning.going_on(simulated, "KL bound", x.tuning.SETTINGS), "Pendulum-v1", num_envs=1) as agent:
        agent.learner.observers.append(
            lambda rollout: seen.append((rollout.trajectories, rollout.steps, rollout.cut.any()))
        )
        agent.learn(4 * x.tuning.LENGTH)
    assert seen == [(x.tuning.PER_UPDATE, x.tuning.PER_UPDATE * x.tuning.LENGTH, False)] * 2
    with pytest.raises(ValueError, match="at least 4"):
        x.tuning.tune(simulated, "KL bound", "light", 0, episodes=3)


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
    assert len(json.loads(Path("runs.json").read_text("utf8"))) == 2 * 3  # simulations × sides


def test_the_tables_of_the_page_are_those_of_the_recorded_runs_and_the_rate_is_the_one_that_was_chosen(x):
    page = (ROOT / "docs" / "sim-to-real.md").read_text("utf8")
    runs = json.loads((FOLDER / "runs.json").read_text("utf8"))
    tables = {"sides": x.experiment.table(runs), "answers": x.experiment.verdicts(runs)}
    assert x.experiment.with_tables(page, tables, x.experiment.SOURCE) == page
    assert {run["seed"] for run in runs} <= set(range(10))  # and none of those that the rate was chosen on
    choice = json.loads((FOLDER / "choice.json").read_text("utf8"))
    assert choice["lr"] == x.tuning.SETTINGS["lr"] == max(choice["tried"], key=lambda row: row["return"])["lr"]
    assert [row["lr"] for row in choice["tried"]] == list(x.experiment.RATES)
