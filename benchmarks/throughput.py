"""Training throughput, policygrad against Stable-Baselines3: paired, alternating, each measurement in a process of its own.

    python benchmarks/throughput.py [--config NAME…] [--pairs 5] [--steps N] [--json FILE]
    python benchmarks/throughput.py --docs            # the table in docs/performance.md, from speed.json

What is measured is written into speed.json, beside what is there already of other configurations, with the versions of each.

Needs `pip install policygrad[compare]` and a machine with nothing else running. What is compared, and what still differs
between the two sides: README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

Learn = Callable[[int], int]  # trains for so many environment steps more, in whole iterations; returns the steps done
SIDES = ("sb3", "policygrad")
SPEED, PAGE = Path(__file__).parent / "speed.json", Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- speed: from benchmarks/throughput.py -->", "<!-- end of speed -->"


@dataclass(frozen=True)
class Config:
    """One comparison. keywords: hyperparameters by SB3's names, given to both sides as they are. hidden: widths of the layers,
    where they are not the default of both sides. own: what only our side has a word for. backend: who steps our environments;
    SB3 always has Gymnasium's.
    """

    algo: str
    env: str
    num_envs: int
    keywords: dict[str, Any]
    bar: float  # the least median ratio that we promise
    warmup: int  # iterations before the clock starts
    iterations: int  # iterations under it
    hidden: tuple[int, ...] | None = None
    own: dict[str, Any] = field(default_factory=dict)
    backend: str = "gymnasium"

    @property
    def rows(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.keywords["n_steps" if "n_steps" in self.keywords else "train_freq"]


COMMON = {"gamma": 0.99, "ent_coef": 0.0, "max_grad_norm": 0.5}
PPO = COMMON | {"learning_rate": 3e-4, "n_epochs": 4, "clip_range": 0.2}
TRPO = {  # sb3-contrib's defaults, written out
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "target_kl": 0.01,
    "cg_max_steps": 15,
    "cg_damping": 0.1,
    "line_search_max_iter": 10,
    "line_search_shrinking_factor": 0.8,
    "learning_rate": 1e-3,
    "n_critic_updates": 10,
}
DQN = {  # RL Zoo's for CartPole
    "gamma": 0.99,
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
PAIR = {  # a step of the environment, a step of the networks
    "gamma": 0.99,
    "learning_rate": 1e-3,
    "batch_size": 256,
    "buffer_size": 100_000,
    "learning_starts": 100,
    "tau": 0.005,
    "train_freq": 1,
    "gradient_steps": 1,
}
ZOO = PPO | {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98, "learning_rate": 1e-3}
LANDER = PPO | {"n_steps": 1024, "batch_size": 64, "gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01}
CHEETAH = PPO | {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gae_lambda": 0.95}
GYMNASIUM = {
    "ppo-cartpole": Config(
        "ppo", "CartPole-v1", 8, PPO | {"n_steps": 256, "batch_size": 512, "gae_lambda": 0.95}, 5.5, 2, 60
    ),
    "ppo-cartpole-zoo": Config("ppo", "CartPole-v1", 8, ZOO, 8.0, 10, 300),
    "ppo-lunarlander": Config("ppo", "LunarLander-v3", 16, LANDER, 4.5, 1, 2),
    "ppo-halfcheetah": Config("ppo", "HalfCheetah-v5", 1, CHEETAH, 4.0, 1, 4),
    "a2c-cartpole": Config(
        "a2c", "CartPole-v1", 8, COMMON | {"n_steps": 5, "learning_rate": 7e-4, "gae_lambda": 1.0}, 5.0, 100, 1500
    ),
    "dqn-cartpole": Config("dqn", "CartPole-v1", 1, DQN, 2.5, 8, 60, (256, 256), {"double": False}),
    "sac-pendulum-64": Config("sac", "Pendulum-v1", 1, PAIR, 3.0, 300, 3000, (64, 64)),
    "sac-pendulum-256": Config("sac", "Pendulum-v1", 1, PAIR, 1.5, 300, 1500, (256, 256)),
    "td3-pendulum-64": Config("td3", "Pendulum-v1", 1, PAIR | {"policy_delay": 2}, 3.0, 300, 3000, (64, 64)),
    "td3-pendulum-256": Config("td3", "Pendulum-v1", 1, PAIR | {"policy_delay": 2}, 1.5, 300, 1500, (256, 256)),
    "trpo-cartpole": Config("trpo", "CartPole-v1", 8, TRPO | {"n_steps": 256, "batch_size": 128}, 5.5, 2, 30),
}
OTHERS = {  # the same with our environments
    "ppo-cartpole": ("compiled", 18.0),
    "ppo-cartpole-zoo": ("compiled", 12.0),
    "a2c-cartpole": ("compiled", 12.0),
    "trpo-cartpole": ("compiled", 9.0),
    "ppo-lunarlander": ("envpool", 8.0),
}
CONFIGS = GYMNASIUM | {
    f"{name}-{backend}": replace(GYMNASIUM[name], backend=backend, bar=bar) for name, (backend, bar) in OTHERS.items()
}


def make_sb3(config: Config, seed: int) -> Learn:
    """SB3 at its best: no render mode, Monitor, environment checker or log, and torch's fused Adam."""
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([lambda: gymnasium.make(config.env, disable_env_checker=True)] * config.num_envs)
    network: dict[str, Any] = {"optimizer_kwargs": {"eps": 1e-5, "fused": True}}
    options = config.keywords | {"policy_kwargs": network}
    if config.hidden is not None:
        network["net_arch"] = list(config.hidden)
    if config.algo == "td3":  # our noise
        options["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    if config.algo == "a2c":
        options["use_rms_prop"] = False
    library = sb3_contrib if config.algo == "trpo" else stable_baselines3
    model = getattr(library, config.algo.upper())("MlpPolicy", envs, seed=seed, device="cpu", **options)

    def learn(steps: int) -> int:
        before = model.num_timesteps
        model.learn(steps, log_interval=None, reset_num_timesteps=before == 0)
        return model.num_timesteps - before

    return learn


def make_policygrad(config: Config, seed: int) -> Learn:
    """Policygrad as it comes for a long training: rows of metrics, diagnostics and episode statistics; no tuned preset."""
    import policygrad

    words = config.keywords | config.own | ({} if config.hidden is None else {"hidden": config.hidden})
    words |= {"num_envs": config.num_envs, "backend": config.backend, "kernel": "compiled", "preset": {}}
    agent = getattr(policygrad, config.algo)(config.env, seed=seed, **words)

    def learn(steps: int) -> int:
        before = agent.collector.steps_done
        agent.learn(steps)
        return agent.collector.steps_done - before

    return learn


def measure(side: str, config: Config, iterations: int, seed: int) -> None:
    """In the child: print the steps of the warm-up, those under the clock and its seconds, as one line of JSON."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    learn = (make_sb3 if side == "sb3" else make_policygrad)(config, seed)
    warmup = learn(config.warmup * config.rows)
    start = time.perf_counter()
    steps = learn(iterations * config.rows)
    seconds = time.perf_counter() - start
    print(json.dumps({"warmup": warmup, "steps": steps, "seconds": seconds}))


def run_child(side: str, name: str, iterations: int, seed: int) -> dict[str, float]:
    """One measurement in a fresh process: steps/s in training, and steps/s by the clock of the whole process."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", side, name, str(iterations), str(seed)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one_thread)
    process_seconds = time.perf_counter() - start
    m = json.loads(done.stdout)
    return m | {"training": m["steps"] / m["seconds"], "process": (m["warmup"] + m["steps"]) / process_seconds}


def compare(name: str, iterations: int, pairs: int) -> list[dict[str, dict[str, float]]]:
    """Pairs of measurements; who goes first alternates, so that a drift of the machine favours nobody."""
    results = []
    for k in range(pairs):
        order = SIDES if k % 2 == 0 else SIDES[::-1]
        results.append({side: run_child(side, name, iterations, seed=k) for side in order})
        ours, theirs = results[-1]["policygrad"]["training"], results[-1]["sb3"]["training"]
        print(f"  {name} pair {k + 1}/{pairs}: {theirs:.0f}, {ours:.0f} steps/s", file=sys.stderr)
    return results


def summary(results: list[dict[str, dict[str, float]]], clock: str) -> dict[str, float]:
    """Medians of both sides, and of the pairs' ratios with the smallest and the largest."""
    ratios = [pair["policygrad"][clock] / pair["sb3"][clock] for pair in results]
    medians = {side: statistics.median(pair[side][clock] for pair in results) for side in SIDES}
    return medians | {"ratio": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    packages = ("policygrad", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "numpy")
    return {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"} | {
        p: importlib.metadata.version(p) for p in packages
    }


def about(config: Config) -> str:
    """A configuration in words."""
    words, name = config.keywords, f"{config.algo.upper()} {config.env}"
    if "train_freq" in words:
        every = "a step" if words["train_freq"] == 1 else f"{words['train_freq']} steps"
        count = "a minibatch" if words["gradient_steps"] == 1 else f"{words['gradient_steps']} minibatches"
        text = f"{name}, {every}, then {count} of {words['batch_size']}"
    else:
        text = f"{name}, {config.num_envs} × {words['n_steps']}"
        text += f", minibatch {words['batch_size']}" if "batch_size" in words else ""
        text += f", {words['n_epochs']} epochs" if "n_epochs" in words else ""
    text += "" if config.hidden is None else f", {' × '.join(map(str, config.hidden))}"
    own = {"compiled": "our compiled environments", "envpool": "EnvPool's environments for us"}
    return text + (f"; {own[config.backend]}" if config.backend in own else "")


def write_table() -> None:
    """The table of docs/performance.md from speed.json, in the order of CONFIGS."""
    report = json.loads(SPEED.read_text())
    lines = ["| configuration | SB3 | policygrad | ratio [lowest, highest] | whole process |", "|---|---|---|---|---|"]
    for name in CONFIGS:
        if name in report:
            t, whole = report[name]["training"], report[name]["process"]["ratio"]
            ratio = f"**{t['ratio']:.2f}** [{t['min']:.2f}, {t['max']:.2f}]"
            lines.append(
                f"| {about(CONFIGS[name])} | {t['sb3']:,.0f} | {t['policygrad']:,.0f} | {ratio} | {whole:.2f} |"
            )
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text("\n".join([before + START, "", *lines, "", END]) + rest.partition(END)[2])


def main() -> int:
    """Measure, print the table, and return 1 when a ratio misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="default: all")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="environment steps under the clock, not the configuration's")
    parser.add_argument("--json", type=Path, default=SPEED, help="where every measurement goes [speed.json]")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write the table of what was measured")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, name, iterations, seed = args.child
        measure(side, CONFIGS[name], int(iterations), int(seed))
        return 0
    if args.docs:
        write_table()
        return 0
    report: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    lines, missed = [], False
    for name in args.config:
        config = CONFIGS[name]
        iterations = max(1, round(args.steps / config.rows)) if args.steps else config.iterations
        results = compare(name, iterations, args.pairs)
        clocks = {clock: summary(results, clock) for clock in ("training", "process")}
        report[name] = {"config": asdict(config), "versions": versions(), "pairs": results} | clocks
        args.json.write_text(json.dumps(report))
        missed |= clocks["training"]["ratio"] < config.bar
        for clock, s in clocks.items():
            bar = f"{config.bar:.1f}" if clock == "training" else ""
            ratio = f"{s['ratio']:6.2f}  [{s['min']:.2f}, {s['max']:.2f}]"
            lines.append(f"{name:<24} {clock:<9} {s['sb3']:>11.0f} {s['policygrad']:>11.0f} {ratio:>22} {bar:>5}")
    print(", ".join(f"{k} {v}" for k, v in versions().items()))
    print(f"{'configuration':<24} {'clock':<9} {'SB3':>11} {'policygrad':>11} {'ratio  [min, max]':>22} {'bar':>5}")
    print("\n".join(lines))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
