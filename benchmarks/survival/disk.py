"""A disk that is full, and a process that is killed, at each of the system calls that write a checkpoint or a replay block.

The calls are those of `policygrad.files.write_atomically`: open, write, flush to the disk, read back, rename, flush of the
directory, and the removal of checkpoints and blocks that are no longer needed. Before and after each of them the previous
checkpoint must load, and the run must go on to the end that it has without any fault.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

CALLS = ("open", "fsync", "replace", "unlink")  # of os, and write, which is a file's
FAULTS = ("full", "killed")
MOST = 200  # calls of a run that are tried
REPLAY = {"buffer_size": 200, "warmup": 100, "num_steps": 8, "gradient_steps": 1}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "a2c": ("CartPole-v1", {"num_envs": 2}),
    "dqn": ("CartPole-v1", REPLAY),
    "sac": ("Pendulum-v1", REPLAY),
}
BLOCK = 2000  # bytes of a block of the replay buffer


class Fault:
    """Counts the calls, and at one of them makes the disk full or ends the process."""

    def __init__(self, at: int, kind: str) -> None:
        self.at, self.kind, self.count, self.armed = at, kind, 0, False

    def __call__(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **keywords: Any) -> Any:
            if self.armed and sys._getframe(1).f_globals.get("__name__") in ("policygrad.files", "pathlib", "io"):
                self.count += 1
                if self.count == self.at:
                    if self.kind == "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*args, **keywords)

        return called


def child(directory: str, algo: str, at: int, kind: str) -> int:
    """A run in whose second half what is written meets the fault; 3 where the run has no such call."""
    import policygrad as pg
    from policygrad.stored import blocks
    from policygrad.training import recorder
    from policygrad.training.train import train

    fault = Fault(at, kind)
    for name in CALLS:
        setattr(os, name, fault(getattr(os, name)))

    def armed(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: Any, *given: Any) -> Any:
            fault.armed = self.agent.collector.steps_done > 500
            try:
                return method(self, *given)
            finally:
                fault.armed = False

        return called

    for name in ("save", "keep_rows"):
        setattr(recorder.Recorder, name, armed(getattr(recorder.Recorder, name)))
    blocks.BLOCK = BLOCK
    recorder.CHECKPOINT_SHARE = float("inf")
    env, keywords = RUNS[algo]
    train(pg.Agent(algo, env, seed=1, hidden=(8,), **keywords), directory, steps=1000, episodes=2)
    return 3


def campaign(trials: int, folder: Path, only: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Both faults at every call, until a run has no more of them."""
    from policygrad.stored import blocks
    from policygrad.training.resume import resume

    blocks.BLOCK = BLOCK
    rows = []
    for algo, kind in product([algo for algo in RUNS if not only or algo in only], FAULTS):
        whole = folder / algo
        if not whole.exists():
            run(whole, algo, 10**9, "full")
        for at in range(1, min(trials, MOST) + 1):
            directory = folder / "run"
            shutil.rmtree(directory, ignore_errors=True)
            code = run(directory, algo, at, kind)
            if code == 3:
                break
            try:
                resume(directory)
                found = f"call {at}: {other}" if (other := different(directory, whole)) else "right"
            except Exception as error:
                found = f"call {at}: {type(error).__name__}: {error}"
            rows.append((f"{algo}, {kind} at each call", found))
    return rows


def different(run: Path, whole: Path) -> str:
    """The first that differs of the policy and of the blocks of the replay buffer that both runs have, or nothing."""
    blocks = [path.relative_to(whole) for path in sorted(whole.glob("replay/rows-*"))]
    files = [Path("policy.safetensors"), *(file for file in blocks if (run / file).exists())]
    return next((f"another {file}" for file in files if (run / file).read_bytes() != (whole / file).read_bytes()), "")


def run(directory: Path, algo: str, at: int, kind: str) -> int:
    """A child's exit code."""
    words = [sys.executable, __file__, str(directory), algo, str(at), kind]
    return subprocess.run(words, capture_output=True, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(child(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
