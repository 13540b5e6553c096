"""How the runs under a directory stand: which train, how far they are and how fast, which have ended and why.

Of each run its small files are read and the end of metrics.jsonl, and nothing is written. No link is followed. What a damaged
or malicious file says is refused, and the run's record says so.

A run whose state.json says that it trains is *lost* if nobody trains it any more. On this machine its lock tells. Where it
does not (another machine, a disk without locks), a run is lost that has written nothing for LOST_SECONDS.
"""

from __future__ import annotations

import math
import os
import platform
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from policygrad.files import BadFileError, disk_time, printable, reason
from policygrad.forms import FormError
from policygrad.stored.directory import CHECKPOINT, ROOT, RunError
from policygrad.stored.locks import is_taken
from policygrad.stored.standing import (
    ASKED,
    DIVERGED,
    LONGEST,
    RunSummary,
    Standing,
    read_about,
    read_evaluation,
    read_progress,
    read_state,
)

# A run that trains writes a checkpoint at least every 30 seconds, but never in the middle of an iteration, and one that takes
# long to write less often: every 10 minutes if it takes 12 seconds.
LOST_SECONDS = 600.0
PARTS = ("checkpoints", "replay", "trajectories", "snapshots")  # directories in a run that hold no runs


@dataclass
class Signs:
    """What the files of a run say, before it is known what they mean. written, checkpoint_written: seconds since 1970."""

    status: str | None = None
    taken: bool | None = None
    here: bool = False
    written: float = -math.inf
    checkpoint_written: float | None = None

    @property
    def doubtful(self) -> bool:
        """Whether only the age of its files tells if somebody trains it."""
        ended = self.status not in (None, "running")
        known = self.taken is True or (self.taken is False and self.here and self.status == "running")
        return not ended and not known

    def standing(self, why: str, age: float) -> Standing:
        """What a run is, whose files are as old as this. why: the reason in state.json."""
        if self.status == "stopped":
            kind = why.partition(":")[0]
            return "diverged" if kind in DIVERGED else "stopped" if why in ASKED else "failed"
        if self.status in ("trained", "finished"):
            return self.status
        if self.taken:
            return "training"
        return "lost" if not self.doubtful or age > LOST_SECONDS else "training"


class Overview:
    """The runs under a directory. Every `look` finds them anew, and reads only files that have changed since the last one.

    clock: "disk" where ages are by the clock of the disk, or "machine": that of this machine.
    """

    def __init__(self, root: str | Path = ROOT) -> None:
        self.root = Path(os.path.expanduser(root))
        self.clock: Literal["disk", "machine"] = "machine"
        self.host = platform.node()
        self.offset: float | None = None  # of the disk's clock
        self.known: dict[str, tuple[Any, Any]] = {}  # of every file: its stamp, and what it says
        self.used: dict[str, tuple[Any, Any]] = {}  # in this look

    def look(self) -> list[RunSummary]:
        """The runs as they are now, in the order of their names. Raises RunError if there is no such directory."""
        if not self.root.is_dir():
            raise RunError(f"there is no directory {self.root}: give a directory of runs")
        self.used = {}
        gathered = [self._gather(path, entries) for path, entries in self._directories()]
        several = [both for both in gathered if both is not None]
        self.known = self.used
        now = time.time()
        if any(signs.doubtful and "state" not in said for signs, said in several):
            now += self._disk_offset()
        return sorted((summary(signs, said, now) for signs, said in several), key=lambda run: run.name)

    def _directories(self) -> Iterator[tuple[str, dict[str, os.DirEntry[str]] | OSError]]:
        """Every run directory, with its entries; and directories that cannot be read, with the error."""
        waiting = [str(self.root)]
        while waiting:
            path = waiting.pop()
            try:
                with os.scandir(path) as inside:
                    entries = {entry.name: entry for entry in inside}
            except (FileNotFoundError, NotADirectoryError):  # it was removed meanwhile
                continue
            except OSError as error:
                yield path, error
                continue
            is_run = "config.json" in entries
            if is_run:
                yield path, entries
            below = [entry for entry in entries.values() if entry.is_dir(follow_symlinks=False)]
            waiting += [entry.path for entry in below if not (is_run and entry.name in PARTS)]

    def _gather(
        self, path: str, entries: Mapping[str, os.DirEntry[str]] | OSError
    ) -> tuple[Signs, dict[str, Any]] | None:
        """What is found of a run, and the fields of its summary that follow from its files; None if it is gone."""
        name = path[len(os.path.join(self.root, "")) :] or self.root.absolute().name
        signs, said = Signs(), {"path": Path(path), "name": printable(name)}
        if isinstance(entries, OSError):
            return signs, said | {"state": "broken", "reason": f"cannot read the directory: {reason(entries)}"}
        try:
            self._read(signs, said, entries)
        except (BadFileError, RunError, OSError) as error:
            if not os.path.lexists(entries["config.json"].path):  # removed meanwhile
                return None
            shown = str(error).replace(path + os.sep, "") or type(error).__name__
            said |= {"state": "broken", "reason": printable(shown)[:LONGEST]}
        return signs, said

    def _read(self, signs: Signs, said: dict[str, Any], entries: Mapping[str, os.DirEntry[str]]) -> None:
        """Read the files of a run. What they say is in `said` as far as they can be read."""
        said |= self._file(signs, entries, "config.json", read_about)
        self._checkpoint(signs, said, entries)
        if "metrics.jsonl" in entries:
            said |= self._file(signs, entries, "metrics.jsonl", read_progress)
        if "state.json" in entries:
            state = dict(self._file(signs, entries, "state.json", read_state))
            signs.status = state.pop("status")
            state["steps"] = max(state["steps"], said.get("steps", 0))
            said |= state
        elif "evaluation.json" in entries or "policy.safetensors" in entries:  # of version 0.4
            signs.status = "finished" if "evaluation.json" in entries else "stopped"
        if signs.status == "finished":  # a run that was made longer still has the evaluation from before
            said |= self._file(signs, entries, "evaluation.json", read_evaluation)
        signs.here = said.get("machine") == self.host
        if signs.status in (None, "running"):
            signs.taken = is_taken(Path(entries["config.json"].path))

    def _file(
        self, signs: Signs, entries: Mapping[str, os.DirEntry[str]], name: str, read: Callable[[str], dict[str, Any]]
    ) -> dict[str, Any]:
        """What a file says, which is read unless it is the one of the last look. Raises RunError, or BadFileError."""
        entry = entries.get(name)
        if entry is None:
            raise RunError(f"there is no {name}")
        about = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(about.st_mode):
            kind = "a link, which is not followed" if entry.is_symlink() else "a directory, a pipe or a device"
            raise RunError(f"{name} must be a file, and is {kind}")
        signs.written = max(signs.written, about.st_mtime)
        stamp = about.st_mtime_ns, about.st_size, about.st_ino
        known = self.known.get(entry.path)
        if known is not None and known[0] == stamp:
            value = known[1]
        else:
            try:
                value = read(entry.path)
            except (BadFileError, RunError, FormError, RecursionError) as error:
                value = str(error)
        self.used[entry.path] = stamp, value
        if isinstance(value, str):
            raise RunError(value)
        return value

    def _checkpoint(self, signs: Signs, said: dict[str, Any], entries: Mapping[str, os.DirEntry[str]]) -> None:
        """Find the last checkpoint."""
        folder = entries.get("checkpoints")
        if folder is None or not folder.is_dir(follow_symlinks=False):
            return
        last = None
        with os.scandir(folder.path) as inside:
            for entry in inside:
                match = CHECKPOINT.fullmatch(entry.name)
                if match and (last is None or int(match[1]) > last[0]):
                    last = int(match[1]), entry
        if last is not None:
            said["checkpoint"] = last[0]
            signs.checkpoint_written = last[1].stat(follow_symlinks=False).st_mtime
            signs.written = max(signs.written, signs.checkpoint_written)

    def _disk_offset(self) -> float:
        """Seconds by which the disk's clock is ahead of this machine's, measured once. Nothing is written into a run."""
        if self.offset is None:
            there = None if (self.root / "config.json").exists() else disk_time(self.root)
            self.offset = 0.0 if there is None else there - time.time()
            self.clock = "machine" if there is None else "disk"
        return self.offset


def summary(signs: Signs, said: dict[str, Any], now: float) -> RunSummary:
    """The summary of a run. now: seconds since 1970, by the clock of its files."""
    age = None if signs.written == -math.inf else max(now - signs.written, 0.0)
    written = signs.checkpoint_written
    ages: dict[str, Any] = {"age": age, "checkpoint_age": None if written is None else max(now - written, 0.0)}
    if "state" not in said:
        ages["state"] = signs.standing(said.get("reason", ""), math.inf if age is None else age)
    return RunSummary(**{name: x for name, x in (said | ages).items() if name in FIELDS})


FIELDS = {field.name for field in fields(RunSummary)}
