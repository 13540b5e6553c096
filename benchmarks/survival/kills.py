"""Runs that are killed at random moments, or asked to end by a signal, and go on: are they the run that nobody disturbed?

A trial starts a run in a process of its own, kills it at a moment drawn uniformly from the undisturbed run's time (one in five
twice in a row), resumes it, and compares every file with the undisturbed run's, the clocks aside.

The cases are eleven configurations of six algorithms on six environments, with callbacks, saved trajectories, workers, and two
seeds at a time; and, added later, DQN on CartPole and SAC on Pendulum (`--only dqn sac`), whose steps are the same to the last
bit whether they were just compiled or come from the cache. In docs/reliability.md SAC's checkpoints have the default interval,
and its networks 64 × 64 units.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policygrad.envs.envpool import installed
from policygrad.training.interrupts import terminations

Row = tuple[str, str]  # case and outcome; "right" is the good one
AT_ONCE = 2  # trials


@dataclass(frozen=True)
class Case:
    """A run: what is trained, and with what around it."""

    algo: str
    env: str
    steps: int
    keywords: dict[str, Any] = field(default_factory=dict)
    callbacks: bool = False
    trajectories: bool = False
    seeds: int = 1  # more than one: by the command line, side by side
    block: int | None = (
        None  # bytes of a block of the replay buffer, where the buffer is too small for those of the package
    )


CASES = {
    "ppo, CartPole, callbacks": Case("ppo", "CartPole-v1", 60_000, callbacks=True),
    "a2c, CartPole, trajectories": Case("a2c", "CartPole-v1", 40_000, trajectories=True),
    "reinforce, CartPole, callbacks, trajectories": Case(
        "reinforce", "CartPole-v1", 60_000, {"episodes": 16}, callbacks=True, trajectories=True
    ),
    "trpo, LunarLander": Case("trpo", "LunarLander-v3", 40_000, {"num_steps": 256}),
    "actor_critic, LunarLander": Case("actor_critic", "LunarLander-v3", 10_000),
    "ppo, MountainCarContinuous, correlated noise": Case(
        "ppo", "MountainCarContinuous-v0", 40_000, {"noise_autocorrelation": 0.6}
    ),
    "ppo_kl, Taxi": Case("ppo_kl", "Taxi-v4", 40_000, {"num_steps": 128}),
    "ppo, HalfCheetah, normalised observations": Case(
        "ppo", "HalfCheetah-v5", 16_000, {"normalize_obs": True, "num_steps": 256}
    ),
    "ppo, BipedalWalker": Case("ppo", "BipedalWalker-v3", 16_000, {"num_steps": 256}),
    "ppo, CartPole, worker processes": Case("ppo", "CartPole-v1", 40_000, {"backend": "async"}),
    "dqn, CartPole, blocks of the replay buffer": Case(
        "dqn", "CartPole-v1", 12_000, {"buffer_size": 3000, "n_step": 3}, callbacks=True, block=2**14
    ),
    "sac, Pendulum, blocks of the replay buffer": Case(
        "sac", "Pendulum-v1", 2500, {"buffer_size": 1000, "hidden": (32,), "warmup": 200}, block=2**12
    ),
    "ppo, CartPole, two seeds side by side": Case("ppo", "CartPole-v1", 60_000, seeds=2),
}
if installed():
    CASES["ppo, LunarLander, EnvPool"] = Case("ppo", "LunarLander-v3", 40_000, {"backend": "envpool", "num_steps": 256})


def child(what: str, case: Case, directory: str) -> None:
    """In a process of its own: train or go on."""
    from policygrad.stored import blocks
    from policygrad.training import recorder
    from policygrad.training.agent import Agent
    from policygrad.training.callbacks import CheckpointCallback, EvalCallback, History
    from policygrad.training.resume import resume
    from policygrad.training.train import train

    recorder.CHECKPOINT_SECONDS = 0.5  # of a run that takes seconds, as 30 of one that takes minutes
    blocks.BLOCK = case.block or blocks.BLOCK
    callbacks = (
        [EvalCallback(case.steps // 6, 2), CheckpointCallback(case.steps // 5), History()] if case.callbacks else []
    )
    if what == "train":
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        agent = Agent(case.algo, case.env, seed=1, **case.keywords)
        keywords: dict[str, Any] = {"save_trajectories": case.trajectories, "callback": callbacks}
        train(agent, directory, steps=case.steps, episodes=3, **keywords)
    else:
        resume(directory, callback=callbacks)


def process(what: str, name: str, directory: Path) -> subprocess.Popen:
    """A child, in a process group of its own."""
    case = CASES[name]
    if case.seeds > 1 and what == "train":
        words = ["train", case.algo, case.env, "--steps", str(case.steps), "--seed", *map(str, range(case.seeds))]
        words += ["--run-dir", str(directory), "--eval-episodes", "3", "-q"]
        command = [sys.executable, "-m", "policygrad", *words]
    else:
        command = [sys.executable, __file__, what, name, str(directory)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    env = os.environ | one | {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def parts(name: str, directory: Path) -> list[Path]:
    """The run directories of a case."""
    count = CASES[name].seeds
    return [directory] if count == 1 else [directory / f"seed{k}" for k in range(count)]


def finish(name: str, directory: Path) -> str:
    """Go on until the end; what was said, if that went wrong or was not exact."""
    said = ""
    for part in parts(name, directory):
        child = process("resume", name, part)
        err = child.communicate(timeout=300)[1]
        said += (
            f"exit code {child.returncode}: {err[-300:]}" if child.returncode or "cannot be brought back" in err else ""
        )
    return said


def started(name: str, directory: Path) -> bool:
    """Whether every run of a case has its first checkpoint, without which there is nothing to go on from."""
    return all(any((part / "checkpoints").glob("step-*")) for part in parts(name, directory))


def begin(name: str, directory: Path) -> subprocess.Popen:
    """A child that has begun to train."""
    shutil.rmtree(directory, ignore_errors=True)
    child = process("train", name, directory)
    while not started(name, directory):
        if child.poll() is not None:
            raise RuntimeError(f"{name}: {child.communicate()[1]}")
        time.sleep(0.005)
    return child


def undisturbed(name: str, directory: Path) -> float:
    """A run from beginning to end; the seconds from its first checkpoint on."""
    child = begin(name, directory)
    since = time.perf_counter()
    if child.wait() != 0:
        raise RuntimeError(f"{name}: {child.communicate()[1]}")
    return time.perf_counter() - since


def kill(name: str, reference: Path, seconds: float, directory: Path, rng: random.Random) -> str:
    """One trial: kill −9, of the whole process group, once or twice."""
    child = begin(name, directory)
    for again in range(2 if rng.random() < 0.2 and CASES[name].seeds == 1 else 1):
        if again:
            child = process("resume", name, directory)
            time.sleep(2.0)  # to import
        time.sleep(rng.uniform(0.0, seconds))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return finish(name, directory) or difference(name, reference, directory)


def interrupt(name: str, reference: Path, seconds: float, directory: Path, rng: random.Random, number: int) -> str:
    """One trial: a signal to the process, or to its group."""
    child = begin(name, directory)
    time.sleep(rng.uniform(0.0, seconds))
    (os.kill if rng.random() < 0.5 else os.killpg)(child.pid, number)
    sent = time.perf_counter()
    code = child.wait(timeout=60)
    took = time.perf_counter() - sent
    over = all(json.loads((part / "state.json").read_text())["status"] == "finished" for part in parts(name, directory))
    if code != 128 + number and not over:  # in its last moments Python has no handlers any more
        return f"exit code {code}: {child.communicate()[1][-200:]}"
    if took > 5.0:
        return f"it took {took:.1f} s to end"
    return finish(name, directory) or difference(name, reference, directory)


def difference(name: str, reference: Path, directory: Path) -> str:
    """The first file that differs, or nothing."""
    for one, other in zip(parts(name, reference), parts(name, directory), strict=True):
        a, b = (contents(run, CASES[name].seeds == 1) for run in (one, other))
        for file in sorted(a.keys() | b.keys()):
            if not same(a.get(file), b.get(file)):
                return f"{file} differs{where(a.get(file), b.get(file))}"
    return ""


def contents(run: Path, seeded: bool) -> dict[str, Any]:
    """What a run has written, the clocks aside. Of checkpoints the last, and of the replay buffer's blocks those that it needs:
    when the others are taken is the clock's business.

    seeded: whether the process had seeded the global generators, of which nothing here draws.
    """
    found: dict[str, Any] = {"checkpoint": checkpoint(run, seeded)}
    needed = {f"replay/rows-{block['first']}.safetensors" for block in found["checkpoint"][1]["run"].get("replay", [])}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = path.relative_to(run).as_posix()
        if path.parent.name == "replay" and name not in needed:
            continue
        if path.suffix == ".safetensors" and path.parent.name != "checkpoints":
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            with np.load(path) as table:
                found[name] = {key: table[key] for key in table.files}
    found["metrics.jsonl"] = [rows(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["monitor.csv"] = [line.rpartition(",")[0] for line in (run / "monitor.csv").read_text().splitlines()[1:]]
    found["evaluation.json"] = (run / "evaluation.json").read_text()
    found["state.json"] = (run / "state.json").read_text()
    found["events"] = list(scalars(run))
    return found


def rows(line: str) -> dict[str, Any]:
    """A row of metrics without its clocks."""
    return {k: v for k, v in json.loads(line).items() if k not in ("seconds", "steps_per_second", "meter_seconds")}


def scalars(run: Path) -> Iterator[Any]:
    """What TensorBoard reads, in order."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for file in sorted(run.glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            clocks = ("time/fps", "gradient/meter_seconds")
            yield event.step, [(v.tag, str(v.tensor)) for v in event.summary.value if v.tag not in clocks]


def checkpoint(run: Path, seeded: bool) -> Any:
    """The last checkpoint: everything there is to know of the end of training."""
    from policygrad.stored.directory import RunDirectory
    from policygrad.stored.storage import load_state

    path = RunDirectory(run).checkpoints()[-1]
    state = load_state(path)[0]
    idle = () if seeded else ("generators",)
    for name in ("seconds", "files", "measured", *idle):  # clocks, and files that clocks are written into
        state["run"].pop(name)
    for callback in state["run"]["callbacks"]:
        for row in callback["state"].get("rows", []):
            row.pop("seconds")
            row.pop("steps_per_second")
    return path.name, state


def same(a: Any, b: Any) -> bool:
    """Equality of nested dicts and lists with arrays and tensors in them."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "shape"):
        return hasattr(b, "shape") and a.shape == b.shape and bool((a == b).all())
    return type(a) is type(b) and a == b


def where(a: Any, b: Any) -> str:
    """The first place in which two trees differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(k, a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys())]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = [(k, x, y) for k, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return ""
    return next((f" / {k}{where(x, y)}" for k, x, y in pairs if not same(x, y)), "")


def campaign(trial: Callable[..., str], jobs: list[tuple[str, tuple[Any, ...]]], folder: Path, seed: int) -> list[Row]:
    """Trials of the cases, so many at a time, after an undisturbed run of each."""
    names = sorted({name for name, _ in jobs})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seconds = dict(zip(names, pool.map(lambda n: undisturbed(n, folder / n), names), strict=True))

        def one(job: tuple[int, tuple[str, tuple[Any, ...]]]) -> Row:
            k, (name, more) = job
            directory, rng = folder / f"trial {k}", random.Random(1000 * seed + k)
            found = trial(name, folder / name, seconds[name], directory, rng, *more) or "right"
            if found == "right":
                shutil.rmtree(directory)
            print(f"{name}: {found}", flush=True)
            return name, found

        return list(pool.map(one, enumerate(jobs)))


def named(only: Sequence[str]) -> list[str]:
    """The cases whose names contain one of these words; all, without any."""
    return [name for name in CASES if not only or any(word in name for word in only)]


def kills(trials: int, folder: Path, only: Sequence[str] = (), seed: int = 0) -> list[Row]:
    """Kill −9, so many times, over the cases in turn."""
    names = named(only)
    return campaign(kill, [(names[k % len(names)], ()) for k in range(trials)], folder, seed)


def signals(trials: int, folder: Path, only: Sequence[str] = (), seed: int = 0) -> list[Row]:
    """SIGINT, SIGTERM and SIGHUP in turn, over the cases."""
    names, numbers = named(only), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    jobs = [(names[k // 3 % len(names)], (int(numbers[k % 3]),)) for k in range(trials)]
    return campaign(interrupt, jobs, folder, seed)


if __name__ == "__main__":
    try:
        with terminations():  # as the command line has it
            child(sys.argv[1], CASES[sys.argv[2]], sys.argv[3])
    except KeyboardInterrupt as ended:
        sys.exit(getattr(ended, "code", 130))
