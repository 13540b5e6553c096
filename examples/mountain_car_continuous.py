"""MountainCarContinuous: why policy gradients fail there, and what helps: entropy, shaping, correlated noise.

    python examples/mountain_car_continuous.py [--steps 100000] [--seeds 5] [--out mountain-car.png]

A car in a valley gets 100 for reaching the hilltop, and pays 0.1·a² for every step. The engine is too weak to drive up: the car
must swing to and fro, in time with the slope. Gaussian noise that is drawn anew at every step pushes to and fro far too fast
for that, and averages out. So the goal is hardly ever seen, all that is ever seen is the price of moving, and the gradient
says, rightly: stop. The return becomes 0, a local optimum, and the standard deviation shrinks so that nothing else is
ever tried.

    plain                nothing happens, on any seed
    entropy bonus        keeps the noise large, so that some seeds find the goal by luck
    movement 0.1         |Δposition|, times 0.1, and 100 more at the goal: at most 0.007 a step, so nobody notices
    movement 100         noticed: it learns to arrive, and then that swinging for ever pays more. The shaped return is superb
    potential            γΦ(s′) − Φ(s), Φ the kinetic energy: pays for speed and takes it back. The best policy stays the best
    correlated noise     ε_t = 0.95 ε_{t−1} + …: exploration pushes one way for some 20 steps. No reward is touched

The numbers are returns of the greedy policy in the environment as it is, whatever it was trained with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import policygrad as pg
from policygrad.envs.shaping import PotentialShaping, ShapedReward
from policygrad.reports.style_plots import AMBER, BLUE, DASHED, chart, round_ticks
from policygrad.training.callbacks import EvalCallback

ENV, GAMMA = "MountainCarContinuous-v0", 0.99
PPO: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 256,
    "epochs": 10,
    "minibatches": 8,
    "lr": 1e-3,
    "gamma": GAMMA,
    "normalize_obs": True,
}


def movement(scale: float, at_goal: float = 0.0) -> Callable[[], gym.Env]:
    """Free-form shaping: observation 0 is the position."""

    def bonus(obs: np.ndarray, act: Any, next_obs: np.ndarray, terminated: bool) -> float:
        return scale * abs(float(next_obs[0] - obs[0])) + at_goal * terminated

    return lambda: ShapedReward(gym.make(ENV), bonus)


def kinetic_energy(obs: np.ndarray) -> float:
    """50 at full speed; observation 1 is the velocity, 0.07 at most."""
    return 50.0 * (float(obs[1]) / 0.07) ** 2


VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (ENV, {}),
    "entropy bonus": (ENV, {"ent_coef": 0.1}),
    "movement 0.1": (movement(0.1, at_goal=100.0), {}),
    "movement 100": (movement(100.0), {}),
    "potential": (lambda: PotentialShaping(gym.make(ENV), kinetic_energy, GAMMA), {}),
    "correlated noise": (ENV, {"noise_autocorrelation": 0.95}),
}


def train(variant: str, seed: int, steps: int) -> tuple[pg.Agent, dict[int, float]]:
    """The agent, and its return in the environment as it is, every tenth of the training."""
    env, keywords = VARIANTS[variant]
    agent = pg.ppo(env, seed=seed, preset={}, **PPO, **keywords)
    evaluation = EvalCallback(every=max(steps // 10, 1), episodes=5, env=ENV)
    agent.learn(steps, evaluation)
    return agent, {step: result.mean for step, result in evaluation.evaluations.items()}


def draw(curves: dict[str, list[dict[int, float]]], out: Path) -> None:
    """A panel a variant, a line a seed."""
    with chart("page", 4.0) as figure:
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for panel, (variant, seeds) in zip(panels.flat, curves.items(), strict=True):
            for curve in seeds:
                panel.plot(list(curve), list(curve.values()), color=BLUE, alpha=0.7, lw=1.0)
            panel.set_title(variant)
            panel.axhline(90.0, color=AMBER, lw=1.0, ls=DASHED)
            round_ticks(panel.xaxis, 4)
        figure.supxlabel("environment steps")
        figure.supylabel("return without any bonus")
        figure.tight_layout()
    figure.write(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("mountain-car.png"))
    args = parser.parse_args()

    curves: dict[str, list[dict[int, float]]] = {}
    for variant in VARIANTS:
        curves[variant] = []
        finals, shaped = [], []
        for seed in range(args.seeds):
            agent, curve = train(variant, seed, args.steps)
            curves[variant].append(curve)
            finals.append(agent.evaluate(episodes=5, env=ENV).mean)
            shaped.append(float(np.mean(agent.collector.returns or [np.nan])))
        print(
            f"{variant:17} return, seed by seed: {', '.join(f'{x:.0f}' for x in finals)}"
            f"   in training, with noise and bonus: {np.mean(shaped):.0f}"
        )
    draw(curves, args.out)
    print(f"drawn: {args.out}")


if __name__ == "__main__":
    main()
