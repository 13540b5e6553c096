"""Who does which piece of work, in a directory that several machines share.

    KEY.0, KEY.1, …    claims of one piece of work: the newest one counts, and is valid while its owner touches it
    KEY.end            it has ended: done, or failed for a reason

A claim is a file that is created atomically, so one process gets it. Its owner touches it several times per lease; a claim
that is older than the lease belongs to a machine that died, and the next process makes the claim with the next number. An
owner that was only asleep sees that number, and stops. Ages are differences of times of the file system, so that clocks of
machines do not matter; network disks may show an age that is up to a minute old, so a lease there is longer than that.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from policygrad.files import BadFileError, make_folder, read_json, write_atomically
from policygrad.stored.directory import RunError

LEASE_SECONDS = 120.0
TOUCHES = 6  # of a claim by its owner, per lease
CLAIM = re.compile(r"(?P<key>[0-9a-f]{32})\.(?P<number>\d{1,9}|end)")


class Claims:
    """The claims of this process in a directory. lease: seconds without a sign of life after which a claim is lost."""

    def __init__(self, folder: Path, lease: float = LEASE_SECONDS) -> None:
        self.lease = lease
        try:
            self.folder = make_folder(folder)
        except (OSError, BadFileError) as error:
            raise RunError(f"cannot make {folder}, where the shards of a shared directory meet: {error}") from error
        self._clock = folder / f".{socket.gethostname()}-{os.getpid()}.clock"  # touched to know the file system's time
        self._began = self._now()
        self._mine: dict[str, Path] = {}
        self._lost: set[str] = set()
        self._newest: dict[str, tuple[int, float]] = {}  # of each key: number and time
        self._ended: set[str] = set()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)
        self._heart.start()
        self.look()

    def look(self) -> None:
        """Read the directory again."""
        newest: dict[str, tuple[int, float]] = {}
        ended: set[str] = set()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                found = CLAIM.fullmatch(entry.name)
                if found is None:
                    continue
                try:
                    at = entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue
                if found["number"] != "end":
                    claim = int(found["number"]), at
                    newest[found["key"]] = max(claim, newest.get(found["key"], claim))
                elif at >= self._began or self.failure(found["key"]) is None:  # an older failure is tried once more
                    ended.add(found["key"])
        self._newest, self._ended, self._seen = newest, ended, self._now()

    def has_ended(self, key: str) -> bool:
        """Whether somebody has ended this work, at the last look."""
        return key in self._ended

    def failure(self, key: str) -> str | None:
        """Why it failed, if it did."""
        try:
            said = read_json(self.folder / f"{key}.end").get("failed")
        except (BadFileError, AttributeError):
            return None
        return said if isinstance(said, str) else None

    def take(self, key: str) -> bool:
        """Claim it, unless another process has a valid claim."""
        number, at = self._newest.get(key, (-1, -self.lease))
        if self._seen - at < self.lease:
            return False
        path = self.folder / f"{key}.{number + 1}"
        who = {"host": socket.gethostname(), "process": os.getpid()}
        try:
            write_atomically(path, json.dumps(who).encode() + b"\n", new=True)
        except FileExistsError:
            self._newest[key] = number + 1, self._seen  # another one was faster; its time is read at the next look
            return False
        with self._lock:
            self._mine[key] = path
        return True

    def is_lost(self, key: str) -> bool:
        """Whether a claim of this process has become another one's, because this one showed no sign of life for a lease."""
        return key in self._lost

    def release(self, key: str) -> None:
        """Leave the work to whoever wants it, at once."""
        with self._lock:
            path = self._mine.pop(key, None)
            lost = key in self._lost
            self._lost.discard(key)
        if path is not None and not lost:
            with suppress(FileNotFoundError):
                os.utime(path, (0.0, 0.0))
        self._newest.pop(key, None)
        self.look()

    def end(self, key: str, failed: str | None = None) -> None:
        """Say that it has ended. failed: why, if it failed."""
        said = {} if failed is None else {"failed": failed[:1000]}
        write_atomically(self.folder / f"{key}.end", json.dumps(said).encode() + b"\n")
        self._ended.add(key)
        with self._lock:
            self._mine.pop(key, None)

    def clear(self, keys: Iterable[str]) -> None:
        """Remove what is left of finished work."""
        for key in keys:
            for path in self.folder.glob(f"{key}.*"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release what is not ended, show no more signs of life, and remove the directory if nothing is left in it."""
        self._closing.set()
        self._heart.join()
        for key in list(self._mine):
            self.release(key)
        now = self._now()
        self._clock.unlink()
        for path in self.folder.glob(".*.clock"):
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > self.lease:  # of a process that was killed
                    path.unlink()
        with suppress(OSError):  # others are at work
            self.folder.rmdir()

    def _now(self) -> float:
        """The time of the file system."""
        self._clock.touch()
        os.utime(self._clock)
        return self._clock.stat().st_mtime

    def _beat(self) -> None:
        """Touch every claim of this process, and see which ones are another's by now."""
        while not self._closing.wait(self.lease / TOUCHES):
            with self._lock:
                for key, path in self._mine.items():
                    key_, number = path.name.split(".")
                    try:
                        os.utime(path)
                    except FileNotFoundError:
                        self._lost.add(key)
                    except OSError:  # the disk is away: others see no sign of life either
                        continue
                    if (path.parent / f"{key_}.{int(number) + 1}").exists():
                        self._lost.add(key)
