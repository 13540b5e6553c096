"""Work that several processes and machines share: every shard takes what nobody has, until all of it is done.

Shards need a directory that all of them see, and nothing else: no server, no network, no order in which they start. Shard i
of n begins with the runs i, i + n, i + 2n, …, and helps with the others' runs when its own are done. It ends when all runs
have ended, whoever trained them, so that what a dead machine leaves is taken over by those that wait. See `claims` for how
they agree.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policygrad.algorithms.config import ConfigError
from policygrad.training.claims import LEASE_SECONDS, Claims
from policygrad.training.jobs import Job, Queue, SilentBoard, State
from policygrad.training.seeds import run_queue
from policygrad.training.sides import Existing
from policygrad.training.wanted import Wanted, is_free, set_settled

FOLDER = "claims"  # under the directory of runs
WORD = re.compile(r"(\d{1,9})/(\d{1,9})")
PAUSE = 1.0  # seconds between looks at the directory while there is nothing to take, at least
SHARE = 10.0  # such a pause is so many times as long as the look, so that thousands of shards do not wear out the disk
ATTEMPTS = 3  # at a run whose process dies or is stopped from outside


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`, from 0. lease: seconds without a sign of life after which a shard's runs are taken over."""

    index: int = 0
    count: int = 1
    lease: float = LEASE_SECONDS

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"shard = {self.index}/{self.count}: shards are numbered from 0, so 0/4 to 3/4 are four")
        if not 1.0 <= self.lease <= 86_400.0:
            raise ConfigError(f"lease = {self.lease} must be from 1 to 86400 seconds")

    @classmethod
    def read(cls, text: str | Shard, lease: float = LEASE_SECONDS) -> Shard:
        """The shard that a text such as "0/4" means. Raises ConfigError."""
        if isinstance(text, Shard):
            return text
        found = WORD.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise ConfigError(f"shard = {text!r} must be such as 0/4, the first of four")
        return cls(int(found[1]), int(found[2]), lease)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class SharedQueue(Queue):
    """The runs that are wanted, of which this process takes those that no other shard has."""

    def __init__(self, wanted: Sequence[Wanted], shard: Shard, claims: Claims, existing: Existing, board: SilentBoard):
        super().__init__([one.job for one in wanted])
        self.wanted, self.shard, self.claims, self.existing, self.board = wanted, shard, claims, existing, board
        own = sorted(range(len(wanted)), key=lambda k: ((k - shard.index) % shard.count, k))
        self._left = [k for k in own if not self._settle(k)]
        self._running: dict[int, int] = {}  # the number of a state: that of its run
        self._attempts = [0] * len(wanted)
        self._looks_at, self._said = 0.0, False

    @property
    def over(self) -> bool:
        return not self._left

    def take(self) -> tuple[Job, State] | None:
        if time.monotonic() < self._looks_at:
            return None
        began = time.monotonic()
        self.claims.look()
        for k in list(self._left):
            job = self._claimed(k)
            if job is not None:
                self._left.remove(k)
                self._running[id(self.states[k])] = k
                return job, self.states[k]
        now = time.monotonic()
        self._looks_at = now + max(PAUSE, SHARE * (now - began))
        self._say_waiting()
        return None

    def is_lost(self, state: State) -> bool:
        return self.claims.is_lost(self.wanted[self._running[id(state)]].key)

    def ended(self, state: State) -> None:
        k = self._running.pop(id(state))
        key, lost = self.wanted[k].key, self.claims.is_lost(self.wanted[k].key)
        self._attempts[k] += not lost
        again = lost or ((state.died or state.phase == "stopped") and self._attempts[k] < ATTEMPTS)
        if again:
            self._left.append(k)
            self.claims.release(key)
            state.phase, state.steps, state.signal, state.died, state.message = "waiting", 0, 0, False, ""
        elif state.phase == "stopped":
            self.claims.release(key)
        else:
            failed = state.phase == "failed" and not self._settle(k)
            self.claims.end(key, state.message if failed else None)

    def _claimed(self, k: int) -> Job | None:
        """The job of a run that this process now has; None if it has ended, or is another one's."""
        one, state = self.wanted[k], self.states[k]
        if self.claims.has_ended(one.key):
            reason = self.claims.failure(one.key)
            if reason is not None:
                state.phase, state.message = "failed", reason
            if reason is not None or self._settle(k, again=True):
                self._left.remove(k)
                return None
        if not self.claims.take(one.key):
            return None
        if self._settle(k, again=True):  # another shard did it since the last look
            self._left.remove(k)
            self.claims.end(one.key)
            return None
        run = one.run_among(self.existing)
        if run is not None and not is_free(run):  # what a killed shard left behind saves it and ends
            self.claims.release(one.key)
            return None
        return one.job_of(run)

    def _settle(self, k: int, again: bool = False) -> bool:
        """Whether a run is settled, whose state then says so. again: look at new runs first."""
        one, state = self.wanted[k], self.states[k]
        if again:
            self.existing.look(one.folder)
        run = one.run_among(self.existing)
        if run is None or not one.is_settled(run):
            return False
        set_settled(state, run)
        return True

    def _say_waiting(self) -> None:
        if self._left and not self._running and not self._said:
            self._said = True
            left = len(self._left)
            text = f"waits for {left} run{'' if left == 1 else 's'} of other shards"
            self.board.say(f"shard {self.shard}", text, False)


def settle_shared(
    wanted: Sequence[Wanted], shard: Shard, root: Path, existing: Existing, at_once: int, board: SilentBoard
) -> list[State]:
    """Train what no other shard trains, wait for the rest, and return how each run ended.

    root: the shared directory; claims are made in it. After Ctrl-C what is unfinished is left to others.
    """
    claims = Claims(root / FOLDER, shard.lease)
    try:
        states = run_queue(SharedQueue(wanted, shard, claims, existing, board), at_once, board)
        if all(one.has_settled(state) for one, state in zip(wanted, states, strict=True)):
            claims.clear(one.key for one in wanted)
        return states
    finally:
        claims.close()
