"""Every example runs, with few steps; those that prove something prove it here, too."""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from explicit import roll_episodes

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW: dict[str, list[str]] = {  # the arguments that make each of them short
    "reinforce_from_scratch": ["--steps", "200"],
    "dqn_from_scratch": ["--steps", "1100"],
    "off_policy": ["--steps", "80"],
    "live_variance": ["--batches", "4", "--out", "live.png"],
    "baseline_ladder": ["--steps", "200", "--seeds", "2"],
    "mountain_car_continuous": ["--steps", "100", "--seeds", "1"],
    "custom_environment": ["2000"],
    "custom_network": ["2000"],
    "auxiliary_prediction": ["2000"],
    "custom_estimator": ["2"],
    "audit_your_own": [],
    "custom_update_rule": ["2000"],
}


def load(name: str) -> dict[str, Any]:
    """The example's names, without running it."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture(autouse=True)
def global_state(monkeypatch):
    """What scripts may change for good: torch's generator and threads."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


SERVICES = ("serve", "serve_numpy")  # which do not end: tests/serving/test_services.py asks them


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*FEW, *SERVICES}


def test_every_example_is_in_the_list_of_examples():
    page = (EXAMPLES / "README.md").read_text("utf8")
    assert all(f"]({name}.py)" in page for name in (*FEW, *SERVICES))


@pytest.mark.parametrize("name", FEW)
def test_the_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *FEW[name]])
    monkeypatch.setattr(gym.spec("MountainCarContinuous-v0"), "max_episode_steps", 100)  # 999 of them are no other test
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in FEW if name.startswith("custom_")])
def test_an_example_of_something_of_your_own_has_at_most_forty_lines(name):
    assert len((EXAMPLES / f"{name}.py").read_text("utf8").splitlines()) <= 40


def test_from_scratch_and_with_the_library_the_parameters_stay_the_same_over_many_updates():
    example = load("reinforce_from_scratch")
    import policygrad as pg
    from policygrad.models.heads import Categorical

    n, network, make = example["EPISODES"], example["make_network"](0), example["make_network"]
    policy = pg.Policy(make(0), Categorical(2))
    optimizer = torch.optim.Adam(network.parameters(), example["LR"])
    update = pg.VanillaGradient(example["LR"], max_grad_norm=None)
    learner = pg.Learner(policy, pg.RewardToGo(example["GAMMA"]), update, reduction="trajectory")
    collector = pg.Collector(pg.make_envs("CartPole-v1", n), seed=0)
    start = policy.flat.clone()
    for _ in range(5):
        rollout = roll_episodes(collector, policy, n)
        optimizer.zero_grad()
        example["loss"](network, example["episodes_of"](rollout)).backward()
        optimizer.step()
        learner.step(rollout)
    plain = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (policy.flat - start).abs().max() > 0.02
    # Adam's eps differs, 1e-8 and 1e-5, and the first step has the size lr whatever the gradient
    torch.testing.assert_close(plain, policy.flat, rtol=0.0, atol=1e-3)


def test_a_utility_without_curvature_is_the_total_return_and_its_expected_gradient_is_that_of_the_utility():
    example = load("custom_estimator")
    import policygrad as pg
    from policygrad.lab.exact import tabular

    mdp = example["gamble"]
    policy = tabular.tabular_policy(mdp, torch.Generator().manual_seed(0))
    rollout, probability = tabular.enumerate_trajectories(mdp, policy)
    none = pg.Values.zeros(rollout)
    total = pg.TotalReturn()(rollout, none).ret
    torch.testing.assert_close(example["Utility"](beta=1e-9)(rollout, none).ret, total, rtol=1e-6, atol=1e-6)

    utility = example["Utility"](beta=-1.0)
    valid = rollout.valid
    evaluation = policy.evaluate(pg.Batch.of(valid(rollout.obs[:-1]), valid(rollout.act)))
    expected = evaluation.gradient(valid(probability * utility(rollout, none).ret))

    def mean_utility(step: float) -> torch.Tensor:
        policy.flat[1] += step
        p = tabular.enumerate_trajectories(mdp, policy)[1]
        policy.flat[1] -= step
        return p @ (1.0 - torch.exp(-total[0]))  # (exp(βR) − 1)/β for β = −1

    slope = (mean_utility(1e-5) - mean_utility(-1e-5)) / 2e-5
    torch.testing.assert_close(expected[1], slope, rtol=1e-6, atol=1e-8)
    assert expected[1] < 0 < tabular.exact_gradient(mdp, policy)[1]  # risk is shunned, though it pays on average


def test_movement_that_counts_makes_oscillation_the_best_and_the_potential_does_not():
    """Two ways to spend an episode, swinging to the goal and swinging for ever, paid by the example's own wrappers."""
    example = load("mountain_car_continuous")

    def play(env: gym.Env, arrive: bool) -> tuple[float, int]:
        obs, _ = env.reset(seed=0)
        total, steps, over = 0.0, 0, False
        while not over:
            push = 1.0 if obs[1] > 0 else -1.0  # with the movement: swings higher and higher
            energy = obs[1] ** 2 / 2 + 0.0025 / 3 * math.sin(3 * obs[0])  # 0.0008 takes it to the top
            if not arrive and energy > 0.0:
                push = -push  # it brakes, and goes on swinging
            obs, reward, terminated, truncated, _ = env.step([push])
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        return total, steps

    for name, arriving_is_better in (("plain", True), ("movement 100", False), ("potential", True)):
        make, _ = example["VARIANTS"][name]
        envs = [gym.make(make) if make == example["ENV"] else make() for _ in range(2)]
        (arrived, fast), (swinging, slow) = play(envs[0], arrive=True), play(envs[1], arrive=False)
        assert fast < slow == 999
        assert (arrived > swinging) is arriving_is_better, name


def test_the_custom_clip_is_ppos_when_both_sides_are_equal_and_leaves_more_room_upwards_when_they_are_not():
    import policygrad as pg

    rule = load("custom_update_rule")["ClipHigher"]
    ratio = torch.linspace(0.5, 1.5, 41, dtype=torch.float64)
    old = torch.full_like(ratio, -2.0)
    for sign in (1.0, -1.0):
        batch = pg.Batch(torch.zeros(41, 1), torch.zeros(41), old, torch.full_like(ratio, sign), torch.ones(41) / 41, 1)
        logp = old + (ratio + 1e-6).log()  # off the edges
        same = rule(low=0.2, high=0.2)
        torch.testing.assert_close(
            same.score_weights(logp, batch), pg.ClippedSurrogate(clip=0.2).score_weights(logp, batch)
        )
        wider = rule(low=0.2, high=0.4).score_weights(logp, batch) != 0
        expected = ratio < 1.4 if sign > 0 else ratio > 0.8 - 1e-9
        assert torch.equal(wider, expected)
