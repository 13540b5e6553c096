"""The ranks of a data-parallel run on this machine, as processes that this one starts, watches and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from policygrad.envs.processes import exit_text
from policygrad.errors import Interrupted
from policygrad.files import printable
from policygrad.training.interrupts import SIGNALS, interrupts
from policygrad.training.ranks import LOST, PARENT, STORE

POLL = 0.05  # seconds
# seconds after a rank has failed until the others, which notice it at their next sum, are asked to end, and are killed
ASKED, KILLED = (4.0, 6.0), 8.0


class Rank:
    """A process that runs `policygrad` with some words."""

    def __init__(self, words: Sequence[str], rank: int, size: int, folder: Path, parent: int) -> None:
        # what can be imported here can be imported there
        safe = [] if {"", os.getcwd()} & {*sys.path} else ["-P"]
        start = "import sys; from policygrad.cli import main; sys.exit(main())"
        env = os.environ | {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
        env |= {name: str(size) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        env |= {STORE: str(folder / "store"), PARENT: str(parent)}
        self.rank, self.lost = rank, folder / f"store{LOST}{rank}"
        self.errors: IO[bytes] | None = None if rank == 0 else tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *safe, "-c", start, *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=self.errors,
            pass_fds=(parent,),
            start_new_session=True,  # Ctrl-C comes from here, once
        )

    @property
    def code(self) -> int | None:
        """Its exit code; None as long as it runs."""
        return self.process.poll()

    @property
    def stopped(self) -> bool:
        """Whether it has ended because it was interrupted, before it could handle that or after."""
        return interruption(self.code) is not None

    @property
    def failed(self) -> bool:
        """Whether it has ended because something was wrong, or was killed."""
        return bool(self.code) and not self.stopped

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.code is None:
            self.process.send_signal(number)

    def close(self) -> None:
        """End it, if it has not."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        if self.errors is not None:
            self.errors.close()

    def said(self) -> str:
        """The last lines of what it has said of an error."""
        if self.errors is None:
            return ""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf8", "replace").splitlines()
        said = [printable(line.removeprefix("policygrad: ")) for line in lines if line.strip()]
        return "\n".join(said[-3:])


def interruption(code: int | None) -> int | None:
    """The signal by which a process was interrupted, with this exit code."""
    number = -(code or 0) if (code or 0) < 0 else (code or 0) - 128
    return number if number in SIGNALS else None


def launch(words: Sequence[str], size: int) -> int:
    """Run `policygrad` with these words in so many processes, which find each other and learn together, and return the exit
    code of rank 0, or of another one that failed. Raises Interrupted where a signal came before rank 0 had started.

    Rank 0 has this process's output; of the others the error is shown, where it is the reason why rank 0 ended. Signals are
    handed on. Where one process fails, the others end within ten seconds.
    """
    reading, writing = os.pipe()  # the ranks see it closed when this process ends, however it does
    ranks: list[Rank] = []
    try:
        with tempfile.TemporaryDirectory(prefix="policygrad-") as folder, interrupts() as pressed:
            for rank in range(size):
                ranks.append(Rank(words, rank, size, Path(folder), reading))
            failed = _watch(ranks, pressed)
            codes = [rank.process.returncode for rank in ranks]
            for text in _reasons(ranks, failed):
                print(f"policygrad: {text}", file=sys.stderr)
            if codes[0] < 0 and ranks[0].stopped and not failed:  # before it could say so
                raise Interrupted(number=interruption(codes[0]) or signal.SIGTERM)
    finally:
        for rank in ranks:
            rank.close()
        os.close(reading)
        os.close(writing)
    told = failed if failed and ranks[0].stopped else [ranks[0], *failed]  # rank 0 was stopped because they had failed
    code = next((rank.process.returncode for rank in told if rank.process.returncode), 0)
    return 128 - code if code < 0 else code


def _watch(ranks: Sequence[Rank], pressed: Sequence[int]) -> list[Rank]:
    """Until all have ended. Returns those that failed on their own.

    Where one was interrupted, all are: they end after the same iteration, and rank 0 may take its time to save it.
    """
    handed, since, asked, failed, stopped = 0, 0.0, [*ASKED], [], False
    while any(rank.code is None for rank in ranks):
        now = time.monotonic()
        for number in pressed[handed:]:
            handed += 1
            for rank in ranks:
                rank.signal(number)
        if not (stopped or handed or failed) and any(rank.stopped for rank in ranks):
            stopped = True
            for rank in ranks:
                rank.signal(signal.SIGTERM)
        ending = failed or ranks[0].code is not None  # the others have nothing more to do
        if not ending:
            since = now
        if asked == [*ASKED]:
            failed = [rank for rank in ranks if rank.failed]
        if ending and asked and now - since > asked[0]:
            asked.pop(0)
            for rank in ranks:
                rank.signal(signal.SIGTERM)
        if ending and now - since > KILLED:
            for rank in ranks:
                rank.signal(signal.SIGKILL)
        time.sleep(POLL)
    return failed if asked != [*ASKED] else [rank for rank in ranks if rank.failed]


def _reasons(ranks: Sequence[Rank], failed: Sequence[Rank]) -> list[str]:
    """What rank 0 cannot say: who was killed, and what other ranks' own errors were, where it ended because of them."""
    told = [f"rank {rank.rank} was ended by {exit_text(rank.code)}" for rank in failed if (rank.code or 0) < 0]
    if ranks[0].code == 0 or ranks[0].lost.exists() or ranks[0] not in failed:
        errors = [rank for rank in failed if (rank.code or 0) > 0 and rank.rank and not rank.lost.exists()]
        told += [f"rank {rank.rank}: {rank.said() or exit_text(rank.code)}" for rank in errors]
    return told
