"""Time to solve: from the start of the process to the first evaluation whose greedy mean is over the environment's threshold.

    python benchmarks/solve.py                                   # CartPole-v1 and LunarLander-v3, seeds 0 to 9: about an hour
    python benchmarks/solve.py CartPole-v1 --seeds 0 1 2 --json solve.json

policygrad trains with its preset, Stable-Baselines3 with the hyperparameters of RL Zoo, both with PPO and both with the
schedules of their whole training. After every N steps, at the end of an iteration, the greedy policy plays 20 episodes, reset
with the same seeds on both sides, in environments of their own; the time of that counts. Who goes first alternates.

N is 2,000 steps on CartPole and 20,000 on LunarLander, whose hyperparameters in RL Zoo are those of LunarLander-v2, with the
same physics. Each side evaluates by its own function: `evaluate_policy` with 20 environments in a `DummyVecEnv`, and
`agent.evaluate`. policygrad has `backend="auto"`: compiled CartPole, and EnvPool's LunarLander where it is installed. SB3 is at
its best, as in peers.py. Both sides have one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

SIDES = ("policygrad", "sb3")
EPISODES, FIRST_SEED = 20, 10_000  # of an evaluation: episode k is reset with FIRST_SEED + k
Evaluate = Callable[[], float]


@dataclass(frozen=True)
class Task:
    """threshold: the mean return that counts as solved. every: steps between evaluations. zoo: RL Zoo's settings for SB3, with
    the numbers that fall linearly to 0; steps: its whole training.
    """

    threshold: float
    every: int
    zoo: dict[str, Any]
    falling: dict[str, float]
    num_envs: int
    steps: int


CARTPOLE = {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0}
LANDER = {"n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01}
TASKS = {
    "CartPole-v1": Task(475.0, 2_000, CARTPOLE, {"learning_rate": 1e-3, "clip_range": 0.2}, 8, 100_000),
    "LunarLander-v3": Task(200.0, 20_000, LANDER, {}, 16, 1_000_000),
}


class Judge:
    """Evaluates when it is due, and knows when the training may stop."""

    def __init__(self, task: Task, evaluate: Evaluate, steps: int | None) -> None:
        self.task, self.evaluate, self.every = task, evaluate, steps or task.every
        self.next, self.seen, self.solved = self.every, [], False

    def __call__(self, steps: int) -> bool:
        """Whether it is solved, after so many steps."""
        if steps >= self.next:
            self.next = steps - steps % self.every + self.every
            self.seen.append([steps, round(self.evaluate(), 2)])
            self.solved = self.seen[-1][1] > self.task.threshold
        return self.solved


def train_policygrad(env: str, seed: int, steps: int | None, every: int | None) -> Judge:
    """The preset, with the backend that it picks."""
    import policygrad

    agent = policygrad.ppo(env, seed=seed)
    judge = Judge(TASKS[env], lambda: agent.evaluate(episodes=EPISODES, seed=FIRST_SEED).mean, every)
    agent.learn(steps, callback=lambda agent, row: not judge(agent.collector.steps_done))
    return judge


def train_sb3(env: str, seed: int, steps: int | None, every: int | None) -> Judge:
    """RL Zoo's hyperparameters, as fast as SB3 goes: plain environments, no log, torch's fused Adam."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)
    task = TASKS[env]
    falling = {name: lambda left, first=first: first * left for name, first in task.falling.items()}
    make = partial(gymnasium.make, env, disable_env_checker=True)
    envs, other = (DummyVecEnv([make] * count) for count in (task.num_envs, EPISODES))
    options: dict[str, Any] = task.zoo | falling | {"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-5, "fused": True}}}
    model: Any = PPO("MlpPolicy", envs, seed=seed, device="cpu", **options)

    def evaluate() -> float:
        other.seed(FIRST_SEED)  # environment k is reset with FIRST_SEED + k, and plays one episode that counts
        means: Any = evaluate_policy(model, other, EPISODES, deterministic=True, warn=False)
        return float(means[0])

    judge = Judge(task, evaluate, every)

    class Stop(BaseCallback):
        """Asks after every iteration, which is before the next rollout."""

        def _on_rollout_start(self) -> None:
            judge(self.num_timesteps)

        def _on_step(self) -> bool:
            return not judge.solved

    model.learn(steps or task.steps, callback=Stop(), log_interval=None)
    if not judge.solved:
        judge(model.num_timesteps)
    return judge


def child(side: str, env: str, seed: int, steps: int | None, every: int | None) -> None:
    """In a process of its own: train, and print one line as soon as the environment is solved or the training over."""
    judge = (train_policygrad if side == "policygrad" else train_sb3)(env, seed, steps, every)
    print(json.dumps({"solved": judge.solved, "evaluations": judge.seen}), flush=True)


def run_child(side: str, env: str, seed: int, steps: int | None, every: int | None) -> dict[str, Any]:
    """The line of a child, and the seconds from its start to it; `seconds` is None where it was not solved."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", side, env, str(seed), str(steps or 0), str(every or 0)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | one_thread) as process:
        assert process.stdout is not None
        text = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{side} on {env} with seed {seed} ended with {process.returncode}")
    found = json.loads(text)
    return {"seed": seed, "seconds": seconds if found["solved"] else None, "evaluations": found["evaluations"]}


def middle(runs: Sequence[dict[str, Any]]) -> float:
    """The median of the seconds; what was not solved took forever."""
    return median(inf if run["seconds"] is None else run["seconds"] for run in runs)


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    from importlib.metadata import version

    import policygrad

    found = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    found["policygrad"] = policygrad.__version__
    return found | {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium", "numpy")}


def main(words: Sequence[str] | None = None) -> None:
    """Train every seed on both sides, print the times, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=list(TASKS), help=f"default: {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument(
        "--every", type=int, help="steps between evaluations [2,000 on CartPole, 20,000 on LunarLander]"
    )
    parser.add_argument("--steps", type=int, help="of a training, at most [the preset's, and RL Zoo's]")
    parser.add_argument("--json", type=Path, help="where every time and every evaluation goes")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.child:
        side, env, seed, steps, every = args.child
        return child(side, env, int(seed), int(steps) or None, int(every) or None)
    if unknown := set(args.envs) - TASKS.keys():
        parser.error(f"the environments are {', '.join(TASKS)}, got {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"versions": versions(), "episodes": EPISODES, "runs": {}}
    for env in args.envs:
        runs = found["runs"][env] = {side: [] for side in SIDES}
        for k, seed in enumerate(args.seeds):
            for side in SIDES if k % 2 == 0 else SIDES[::-1]:
                runs[side].append(run_child(side, env, seed, args.steps, args.every))
                taken = runs[side][-1]["seconds"]
                print(
                    f"  {env} seed {seed}, {side}: {'not solved' if taken is None else f'{taken:.1f} s'}",
                    file=sys.stderr,
                )
        for side in SIDES:
            listed = ", ".join("–" if run["seconds"] is None else f"{run['seconds']:.1f}" for run in runs[side])
            print(f"{env}, {side}: median {middle(runs[side]):.1f} s of {listed}")
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
