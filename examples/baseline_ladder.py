"""Six baselines on CartPole: what is subtracted from the reward-to-go, and what that does to the learning curves.

    python examples/baseline_ladder.py [--steps 100000] [--seeds 5] [--out baseline-ladder.png]

All six are unbiased: the mean of the gradient is the same, its variance is not. Everything else is equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import policygrad as pg
from policygrad.reports.style_plots import chart, look, round_ticks

LADDER: dict[str, dict[str, Any]] = {
    "none": {"baseline": "none"},
    "constant 25": {"baseline": "constant", "baseline_value": 25.0},
    "running mean": {"baseline": "running-mean"},  # of earlier batches
    "mean at this time step": {"baseline": "time-average"},  # of earlier batches
    "leave one out": {"baseline": "leave-one-out"},  # of the batch's other episodes, at this time step
    "V(s)": {"baseline": "value"},  # a network's
}


def curve(steps: int, seed: int, keywords: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean return of the last 100 episodes there."""
    points: list[tuple[int, float]] = []

    def record(agent: pg.Agent, row: Any) -> None:
        points.append((agent.collector.steps_done, float(np.mean(agent.collector.returns))))

    pg.reinforce("CartPole-v1", seed=seed, **keywords).learn(steps, record)
    x, y = np.array(points).T
    return x, y


def draw(curves: dict[str, list[tuple[np.ndarray, np.ndarray]]], steps: int, out: Path) -> None:
    """Mean over the seeds, and the band from the lowest to the highest."""
    with chart("page", 4.0) as figure:
        axis = figure.subplots()
        for k, (name, runs) in enumerate(curves.items()):
            grid = np.linspace(max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs), 200)
            returns = np.array([np.interp(grid, x, y) for x, y in runs])
            axis.plot(grid, returns.mean(0), label=name, **look(k))
            axis.fill_between(grid, returns.min(0), returns.max(0), color=look(k)["color"], alpha=0.12, linewidth=0)
        axis.set(xlabel="environment steps", ylabel="mean return of the last 100 episodes", xlim=(0, steps))
        axis.set_title("CartPole-v1, REINFORCE with reward-to-go: the baselines")
        round_ticks(axis.xaxis)
        axis.legend(loc="upper left", handlelength=2.5)
        figure.tight_layout()
    figure.write(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("baseline-ladder.png"))
    args = parser.parse_args()

    curves = {}
    for name, keywords in LADDER.items():
        curves[name] = [curve(args.steps, seed, keywords) for seed in range(args.seeds)]
        final = [y[-1] for _, y in curves[name]]
        area = np.mean([np.trapezoid(y, x) / x[-1] for x, y in curves[name]])
        print(f"{name:24} at the end {np.mean(final):5.0f}, over all of training {area:5.0f}")
    draw(curves, args.steps, args.out)
    print(f"drawn: {args.out}")


if __name__ == "__main__":
    main()
