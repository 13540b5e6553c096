"""A disk that is full, and a process that is killed, at each of the system calls that write a checkpoint.

The calls are those of `policygrad.files.write_atomically`: open, write, flush to the disk, read back, rename, flush of the
directory, and the removal of the checkpoint that is no longer needed. Before and after each of them the previous checkpoint
must load, and the run must go on to the end that it has without any fault.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("open", "fsync", "replace", "unlink")  # of os, and write, which is a file's
FAULTS = ("full", "killed")
MOST = 200  # calls of a run that are tried


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


def child(directory: str, at: int, kind: str) -> int:
    """A run whose second checkpoint meets the fault; 3 where the run has no such call."""
    import policygrad as pg
    from policygrad.training import recorder
    from policygrad.training.train import train

    fault = Fault(at, kind)
    for name in CALLS:
        setattr(os, name, fault(getattr(os, name)))
    before = recorder.Recorder.save

    def save(self: Any) -> None:
        fault.armed = self.agent.collector.steps_done > 300
        try:
            before(self)
        finally:
            fault.armed = False

    recorder.Recorder.save = save  # pyright: ignore[reportAttributeAccessIssue]
    recorder.CHECKPOINT_SHARE = float("inf")
    train(pg.a2c("CartPole-v1", seed=1, num_envs=2, hidden=(8,)), directory, steps=1000, episodes=2)
    return 3


def campaign(trials: int, folder: Path) -> list[tuple[str, str]]:
    """Both faults at every call, until a run has no more of them."""
    from policygrad.training.resume import resume

    whole = folder / "whole"
    run(whole, 10**9, "full")
    rows = []
    for kind in FAULTS:
        for at in range(1, min(trials, MOST) + 1):
            directory = folder / "run"
            shutil.rmtree(directory, ignore_errors=True)
            code = run(directory, at, kind)
            if code == 3:
                break
            try:
                resume(directory)
                same = (directory / "policy.safetensors").read_bytes() == (whole / "policy.safetensors").read_bytes()
                found = "right" if same else f"call {at}: another policy"
            except Exception as error:
                found = f"call {at}: {type(error).__name__}: {error}"
            rows.append((f"{kind} at each call", found))
    return rows


def run(directory: Path, at: int, kind: str) -> int:
    """A child's exit code."""
    words = [sys.executable, __file__, str(directory), str(at), kind]
    return subprocess.run(words, capture_output=True, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(child(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
