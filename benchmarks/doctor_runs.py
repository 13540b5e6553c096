"""How many planted faults of trainings the doctor finds, and how often it warns of healthy ones.

    python benchmarks/doctor_runs.py train RUNS --envs CartPole-v1 Pendulum-v1 --seeds 2     # to tune the rules on
    python benchmarks/doctor_runs.py train RUNS                                              # to measure them on: an hour
    python benchmarks/doctor_runs.py judge RUNS --out benchmarks/doctor_runs.json

`train` keeps every run below RUNS and leaves those alone that are there, so that it can be broken off and started again.
`judge` reads the runs. What counts as harm is said in tests/doctor/run_faults.py, where the faults are.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import policygrad as pg
from policygrad.algorithms.config import resolve
from policygrad.diagnosis.run import examine_run
from policygrad.stored.directory import RunDirectory
from policygrad.training.train import learn, start

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "doctor"))
from run_faults import (  # pyright: ignore[reportMissingImports]
    CONTINUOUS,
    LUCK,
    REPLAYED,
    RUN_FAULTS,
    SCREENED,
    STEPS,
    RunFault,
)

HELD_OUT = ("Acrobot-v1", "LunarLander-v3", "LunarLanderContinuous-v3", "Taxi-v4")
RECIPES = ("ppo", "a2c", "reinforce", "trpo", "dqn")
EPISODES = 5  # of the evaluation


@dataclass(frozen=True)
class Training:
    """One training. kind: "healthy", "reference", "twin", or the name of a fault."""

    kind: str
    env: str
    algo: str
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()
    fault: RunFault | None = None

    def folder(self, root: Path) -> Path:
        """Where it is kept."""
        name = re.sub(r"[^a-z0-9]+", "-", self.kind.lower()).strip("-")
        return root / self.env / name / self.algo / f"{dict(self.settings)['steps']}" / f"seed{self.seed}"


def steps_of(algo: str, env: str, settings: dict[str, Any]) -> int:
    """The steps of a training with a fault, or of its reference."""
    return settings.get("steps") or (REPLAYED if algo == "dqn" else STEPS[env])


def trainings(envs: list[str], seeds: int) -> list[Training]:
    """Everything that is trained, in order."""
    found = []
    for seed in range(seeds):
        for env in envs:
            for fault in RUN_FAULTS:
                if env in fault.envs:
                    settings = fault.settings | {"steps": steps_of(fault.algo, env, fault.settings)}
                    found.append(Training(fault.name, env, fault.algo, seed, tuple(settings.items()), fault))
            if env in {env for fault in RUN_FAULTS if fault.algo == "ppo" for env in fault.envs} - set(CONTINUOUS):
                lr = resolve("ppo", env, {})[0]["lr"] * LUCK[2]
                found.append(Training("twin", env, "ppo", seed, (("steps", STEPS[env]), ("lr", lr))))
    references = [
        Training("reference", one.env, one.algo, seed, (("steps", reference_steps(one)),))
        for one in found
        if one.fault is not None and not one.fault.broken
        for seed in range(seeds)
    ]
    found = [*references, *found, *(one for seed in range(seeds) for one in healthy(envs, seed))]
    return sorted({one.folder(Path()): one for one in found}.values(), key=order)


def order(one: Training) -> tuple[int, bool, int]:
    """Seed by seed; what has a replay buffer is slow, and last; faults that need no reference are first."""
    kinds = ("reference", "twin", "healthy")
    rank = 2 + kinds.index(one.kind) if one.kind in kinds else int(one.fault is not None and not one.fault.broken)
    return one.seed, one.algo == "dqn", rank


def healthy(envs: list[str], seed: int) -> list[Training]:
    """The presets, with a part of their steps."""
    found = [(env, algo, resolve(algo, env, {})) for env in envs for algo in RECIPES]
    return [
        Training("healthy", env, algo, seed, (("steps", config["steps"] // SCREENED),))
        for env, algo, (config, tuned) in found
        if tuned
    ]


def reference_steps(one: Training) -> int:
    """The steps of the reference of a training with a fault."""
    short = one.fault is not None and one.fault.short
    return steps_of(one.algo, one.env, {}) if short else dict(one.settings)["steps"]


def train(one: Training, root: Path) -> None:
    """Train and keep the run, or an empty folder with the error where it did not begin."""
    path = one.folder(root)
    if (path / "done").exists():
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    fault = one.fault
    more = {} if fault is None or fault.wrap is None else {"wrappers": [fault.wrap]}
    if fault is not None and fault.body is not None:
        more["body"] = fault.body
    said = ""
    try:
        agent = getattr(pg, one.algo)(one.env, seed=one.seed, **dict(one.settings), **more)
        if fault is not None and fault.alter is not None:
            fault.alter(agent)
        run = start(agent, path / "run", episodes=EPISODES)
        learn(agent, run)
        ways = {"greedy": True, "sampled": False}
        run.write_evaluation({name: agent.evaluate(EPISODES, greedy).to_json() for name, greedy in ways.items()})
        run.write_state("finished", agent.collector.steps_done)
    except Exception as error:  # a fault may do anything
        said = f"{type(error).__name__}: {error}"
    shutil.rmtree(path / "run" / "checkpoints", ignore_errors=True)
    shutil.rmtree(path / "run" / "replay", ignore_errors=True)
    (path / "done").write_text(said)


def last_fifth(path: Path) -> float:
    """The mean return of the last fifth of the training episodes; NaN where fewer than five ended."""
    returns = RunDirectory(path / "run").returns() if (path / "run").exists() else []
    return float(np.mean(returns[-(len(returns) // 5) :])) if len(returns) >= 5 else float("nan")


def harmed(one: Training, root: Path, seeds: int) -> bool | None:
    """Whether a setting did harm; None where its reference is not complete."""
    if one.fault is None or one.fault.broken:
        return True
    path = one.folder(root)
    others = [Training("reference", one.env, one.algo, s, (("steps", reference_steps(one)),)) for s in range(seeds)]
    x = np.array([last_fifth(each.folder(root)) for each in others if (each.folder(root) / "done").exists()])
    if len(x) < 2:
        return None
    mine, t = last_fifth(path), float(stats.t.ppf(0.975, len(x) - 1))
    lower = x.mean() - t * x.std(ddof=1) * np.sqrt(1.0 + 1.0 / len(x))
    return bool(mine < lower or not np.isfinite(mine) or "NotFiniteError" in (path / "done").read_text())


def judged(one: Training, root: Path, seeds: int) -> dict[str, Any] | None:
    """One line of the matrix; None where the run is not there."""
    path = one.folder(root)
    if not (path / "done").exists():
        return None
    line = {"fault": one.kind, "env": one.env, "algo": one.algo, "seed": one.seed}
    mean = last_fifth(path)
    line |= {"harm": harmed(one, root, seeds), "return": round(mean, 3) if np.isfinite(mean) else None}
    if not (path / "run" / "config.json").exists():
        return line | {"found": False, "sure": False, "spoke": [], "error": (path / "done").read_text()[:200]}
    found = examine_run(RunDirectory(path / "run"))
    rules = () if one.fault is None else one.fault.rules
    spoke = [symptom.rule for symptom in found]
    sure = any(symptom.sure for symptom in found if symptom.rule in rules or not rules)
    return line | {"found": bool(set(spoke) & set(rules)), "sure": sure, "spoke": spoke}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["train", "judge"])
    parser.add_argument("root", type=Path)
    parser.add_argument("--envs", nargs="+", default=list(HELD_OUT), choices=list(STEPS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--until", default="", help="HH:MM, UTC: no training begins after it")
    parser.add_argument("--out", type=Path, help="file for the lines, as JSON")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    every = trainings(given.envs, given.seeds)
    if given.what == "train":
        for one in every:
            if given.until and time.strftime("%H:%M", time.gmtime()) >= given.until:
                print("the time is up", flush=True)
                return
            begun = time.perf_counter()
            train(one, given.root)
            print(f"{one.folder(given.root)} {time.perf_counter() - begun:.1f} s", flush=True)
        return
    lines = [line for one in every if (line := judged(one, given.root, given.seeds)) is not None]
    for line in lines:
        print(json.dumps(line))
    if given.out is not None:
        given.out.write_text("[\n" + ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n]\n")


if __name__ == "__main__":
    main()
