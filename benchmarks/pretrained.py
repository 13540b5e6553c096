"""The trained policies that come with the package: train them, evaluate them, and write src/policygrad/pretrained/.

    python benchmarks/pretrained.py [NAME …]

Each is trained once, with seed 0 and the tuned preset of its environment, but for the overrides in POLICIES; none is chosen
among several. Its evaluation is recorded as it came out: 100 episodes with the most likely actions, and 100 with samples. About
five minutes for all of them, on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import policygrad as pg

FOLDER = Path(__file__).parents[1] / "src" / "policygrad" / "pretrained"
SEED, EPISODES = 0, 100
SHOWN = 5  # greedy episodes whose returns are recorded one by one, for the tests
MOST = 60_000  # bytes of a file
POLICIES: dict[
    str, dict[str, Any]
] = {  # what is not the preset's; a smaller network where the preset's is too large a file
    "ppo-CartPole-v1": {},
    "dqn-CartPole-v1": {"hidden": (64, 64)},
    "ppo-Acrobot-v1": {},
    "sac-Pendulum-v1": {},
    "td3-Pendulum-v1": {},
    "ppo-MountainCar-v0": {},
    "ppo-MountainCarContinuous-v0": {},
    "ppo-LunarLander-v3": {},
    "ppo-LunarLanderContinuous-v3": {},
    "ppo-FrozenLake-v1": {},
    "ppo-Taxi-v4": {},
}


def train(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train a policy, write its file, and return what is recorded of it."""
    algo, env = name.split("-", 1)
    start = time.perf_counter()
    with pg.Agent(algo, env, seed=SEED, **overrides) as agent:
        agent.learn()
        path = agent.save_policy(FOLDER / name)
        found = {kind: agent.evaluate(EPISODES, greedy) for kind, greedy in (("greedy", True), ("sampled", False))}
        size, steps = path.stat().st_size, agent.collector.steps_done
    if size > MOST:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {MOST:,}: train a smaller network")
    names = ("mean", "std", "ci95", "return_range")
    evaluations = {
        kind: {name: e.to_json()[name] for name in names} | {"episodes": EPISODES} for kind, e in found.items()
    }
    seconds = time.perf_counter() - start
    print(
        f"{name}: {size:,} bytes, {steps:,} steps, {seconds:.0f} s; greedy {found['greedy']}; sampled {found['sampled']}"
    )
    said = {"algo": algo, "env": env, "seed": SEED, "steps": steps, "overrides": overrides, "version": pg.__version__}
    return said | evaluations | {"greedy_returns": list(found["greedy"].returns[:SHOWN])}


def main() -> None:
    """Train those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(POLICIES)} [all]")
    names = parser.parse_args().names or list(POLICIES)
    index = FOLDER / "policies.json"
    known = json.loads(index.read_text("utf8")) if index.exists() else {}
    for name in names:
        known[name] = train(name, POLICIES[name])
        ordered = {name: known[name] for name in POLICIES if name in known}
        index.write_text(json.dumps(ordered, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
