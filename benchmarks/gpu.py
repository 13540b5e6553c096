"""PPO on CartPole with environments of tensors: steps per second on one GPU, in at most five minutes.

    python benchmarks/gpu.py [--device cuda] [--json gpu.json]
    python benchmarks/gpu.py --device cpu --quick       # whether the script runs

Every number of environments is measured with two settings of the update, and with the first of them also with the step of
the environments compiled by torch.compile. A measurement is of whole iterations, after two that are not counted; the rollout
and the update are timed apart, and the device is waited for after each. `learning` says that what is fast also learns: the
seconds until CartPole is solved, and what the greedy policy then reaches in Gymnasium's own environment.

Beside the results stand two bars: what Isaac Lab publishes for its CartPole on one GPU, and what PufferLib says of its fastest
environments. Their environments, networks and numbers of epochs are others, so that these are orders of magnitude.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

import policygrad as pg
from policygrad.data import Wants

BARS = {"Isaac Lab, CartPole": 0.5e6, "PufferLib, its fastest": 20e6}
ENVS = (4_096, 16_384, 65_536)
STEPS = 16  # of every environment, an iteration
FEW: dict[str, Any] = {"epochs": 1, "minibatches": 4, "critic_epochs": 1, "critic_minibatches": 4}
MANY: dict[str, Any] = {"epochs": 5, "minibatches": 4, "critic_epochs": 5, "critic_minibatches": 4}
UPDATES = {"1 epoch of 4 minibatches": FEW, "5 epochs of 4 minibatches": MANY}
COMMON: dict[str, Any] = {"hidden": (64, 64), "lr": 1e-3, "gamma": 0.98, "lam": 0.95, "lr_schedule": "constant"}
WARMUP, SOLVED = 2, 475.0


def make(device: str, envs: int, update: dict[str, Any], compiled: bool = False) -> pg.Agent:
    """An agent with environments on the device."""
    own: dict[str, Any] = {"num_envs": envs, "num_steps": STEPS, "steps": 10**9}
    agent: Any = pg.ppo("CartPole-v1", backend="torch", device=device, kernel="autograd", **COMMON, **own, **update)
    if compiled:
        agent.envs.compile(dynamic=False)
    return agent


def wait(device: str) -> float:
    """The time, when the device has done all that it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(agent: pg.Agent, seconds: float) -> dict[str, float]:
    """Steps per second of whole iterations, for so many seconds, and the shares of the rollout and of the update."""
    rollout = update = warm = 0.0
    began, first, done, steps = 0.0, wait(agent.device), -WARMUP, 0
    while done < 1 or wait(agent.device) - began < seconds:
        start = wait(agent.device)
        began = start if done == 0 else began
        record = agent.collector.collect(agent.policy, Wants(STEPS))
        middle = wait(agent.device)
        agent.learner.step(record)
        stop = wait(agent.device)
        done += 1
        if done > 0:
            rollout, update, steps = rollout + middle - start, update + stop - middle, steps + record.steps
        else:
            warm = stop - first
    total = rollout + update
    return {
        "steps_per_second": steps / total,
        "rollout_share": rollout / total,
        "update_share": update / total,
        "iterations": done,
        "warmup_seconds": warm,
    }


def learning(device: str, envs: int, seconds: float) -> dict[str, Any]:
    """How long it takes to solve CartPole, or what is reached after so many seconds.

    Solved: 475 steps an episode, in as many iterations as an episode of 500 takes. The last 100 returns would not do: all
    environments begin together, so these are of episodes that are all short, or all long.
    """
    agent, start = make(device, envs, MANY), time.perf_counter()
    counts: deque[tuple[int, int]] = deque([(0, 0)], 1 + math.ceil(500 / STEPS))
    lengths = [0.0]

    def go_on(agent: pg.Agent, row: Any) -> bool:
        counts.append((agent.collector.steps_done, agent.collector.episodes_done))
        steps, episodes = (last - first for first, last in zip(counts[0], counts[-1], strict=True))
        lengths.append(steps / max(episodes, 1))
        solved = len(counts) == counts.maxlen and lengths[-1] >= SOLVED
        return not solved and time.perf_counter() - start < seconds

    agent.learn(callback=go_on)
    return {
        "envs": envs,
        "seconds": wait(device) - start,
        "steps": agent.collector.steps_done,
        "length_mean": lengths[-1],
        "greedy": agent.evaluate(episodes=20).mean,
    }


def main(words: list[str] | None = None) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="64 environments, for tenths of a second, nothing compiled"
    )
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    args = parser.parse_args(words)
    sizes, seconds, limit = ((64,), 0.1, 0.3) if args.quick else (ENVS, 8.0, 60.0)
    device = pg.ppo("CartPole-v1", device=args.device).device  # refused where there is none
    rows = []
    print(f"{'environments':>12}  {'update':<26}{'step':<10}{'steps/s':>12}{'rollout':>9}{'update':>8}")
    for envs in sizes:
        for name, update in UPDATES.items():
            for compiled in (False, True) if update is FEW and not args.quick else (False,):
                found = measure(make(device, envs, update, compiled), seconds)
                rows.append({"envs": envs, "update": name, "compiled": compiled} | found)
                shares = f"{found['rollout_share']:>9.0%}{found['update_share']:>8.0%}"
                step = "compiled" if compiled else "eager"
                print(f"{envs:>12,}  {name:<26}{step:<10}{found['steps_per_second']:>12,.0f}{shares}", flush=True)
    best = max(row["steps_per_second"] for row in rows)
    learned = learning(device, sizes[0], limit)
    print(f"learning: {learned}")
    for bar, speed in BARS.items():
        print(f"{bar}: {speed:,.0f} steps/s; the best here is {best / speed:.2f} times as fast")
    chip = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    about = {"device": device, "chip": chip, "torch": torch.__version__, "policygrad": pg.__version__, "steps": STEPS}
    text = json.dumps(about | {"bars": BARS, "best": best, "rows": rows, "learning": learned}, indent=1)
    args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
