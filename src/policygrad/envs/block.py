"""A worker process: steps a block of environments, as `SerialVectorEnv` does, for the pool in workers.py.

It says what it made, is shown the shared memory, and then answers one message at a time: a byte for a vector step, a pickled
(method, arguments) for everything else. Whatever goes wrong is told as text, so that nothing has to survive pickling. Ctrl-C
and SIGTERM, which a terminal or a scheduler sends to all processes at once, are the parent's business; when the parent is
gone the worker ends at once, in silence.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import CloudpickleWrapper
from threadpoolctl import threadpool_limits

from policygrad.envs.families import make_known
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.shared import Arrays, Memory, put_rows, some_rows
from policygrad.errors import EnvError
from policygrad.models.observations import ACTION_MASK

STEP, STEP_WITH_MASKS, DONE, CLOSE = b"s", b"m", b"d", b"c"  # messages of one byte; others are pickled
ECHO = b"e"  # begins a message that is sent back as it is
LONGEST_TEXT = 20_000  # characters of an error's message or traceback


def pack(x: Any) -> bytes:
    """A message; what the user has defined in `__main__` travels by value."""
    return bytes(ForkingPickler.dumps(CloudpickleWrapper(x)))


def unpack(message: bytes) -> Any:
    """What was packed. Both ends are processes of ours: nothing is read from files or from a network."""
    return ForkingPickler.loads(message).fn  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Failure:
    """An error in a worker, as text. kind: its class, or "" for an error of the package, whose message is complete.

    at: which environment of the block it was at, or −1.
    """

    at: int
    kind: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: BaseException, at: int) -> Failure:
        """The text of an error; the error's own methods may fail, too."""
        try:
            message = str(error)
        except BaseException:
            message = "(its message cannot be read)"
        try:
            trace = "".join(traceback.format_exception(error))
        except BaseException:
            trace = ""
        kind = "" if isinstance(error, EnvError) else type(error).__name__
        return cls(at, kind, message[:LONGEST_TEXT], trace[-LONGEST_TEXT:])


@dataclass(frozen=True)
class Made:
    """The description of a block's environments."""

    observation_space: spaces.Space
    action_space: spaces.Space
    metadata: dict[str, Any]
    render_mode: str | None
    spec: EnvSpec | None


class Tracked(list):
    """A list that notes where whoever goes through it is."""

    def __init__(self, items: Sequence[Any], at: np.ndarray) -> None:
        super().__init__(items)
        self.at = at

    def __iter__(self) -> Iterator[Any]:
        at = self.at
        for i, item in enumerate(super().__iter__()):
            at[0] = i
            yield item

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, int):
            self.at[0] = i
        return super().__getitem__(i)


class Block:
    """The environments of one worker. first: the number of its first one, of all; index: the worker's."""

    def __init__(
        self, makers: Sequence[Callable[[], gym.Env]], memory: Memory, index: int, first: int, at: np.ndarray
    ) -> None:
        self.serial = SerialVectorEnv(Tracked(makers, at))
        self.serial.first = first
        self.memory, self.at = memory, at
        self.index, self.block = index, slice(first, first + len(makers))

    def made(self) -> Made:
        """The description for the parent process."""
        envs, spec = self.serial, None
        with suppress(Exception):  # some wrappers cannot say how they were made
            pack(envs.envs[0].spec)
            spec = envs.envs[0].spec
        return Made(
            envs.single_observation_space, envs.single_action_space, dict(envs.metadata), envs.render_mode, spec
        )

    def attach(self, num_envs: int, num_workers: int) -> None:
        """Work on shared memory from now on."""
        layout = self.serial.single_observation_space, self.serial.single_action_space, num_envs, num_workers
        all_of_them = Arrays(*layout, self.memory.map(Arrays(*layout).size))
        self.memory.close()
        self.use(all_of_them)

    def use(self, all_of_them: Arrays) -> None:
        """Work on these arrays from now on."""
        self.act, self.obs = all_of_them.act[self.block], some_rows(all_of_them.obs, self.block)
        self.rew, self.paused = all_of_them.rew[self.block], all_of_them.paused[self.block]
        self.terminated, self.truncated = all_of_them.terminated[self.block], all_of_them.truncated[self.block]
        self.time, self.episode = all_of_them.time[self.block], all_of_them.episode[self.block]
        self.at = all_of_them.at[self.index : self.index + 1]
        self.at[0] = -1
        self.serial.envs = Tracked(self.serial.envs, self.at)
        space = self.serial.single_action_space
        self.numbers = isinstance(space, spaces.Box) and not space.shape  # a row of these is no member of the space

    def step(self, masks: bool) -> Any:
        """A vector step; the reply."""
        serial = self.serial
        serial.paused, serial.report_masks = self.paused, masks
        actions = self.act.copy()  # which an environment may keep
        given: Any = [np.asarray(a) for a in actions] if self.numbers else actions
        _, rew, terminated, truncated, info = serial.step(given)
        self.show()
        self.rew[:], self.terminated[:], self.truncated[:] = rew, terminated, truncated
        self.at[0] = -1
        return info[ACTION_MASK] if masks else None

    def reset(self, seeds: list[int | None], options: dict[str, Any] | None, masks: bool) -> Any:
        """Begin an episode everywhere, with global generators that follow the seeds; the action masks, if wanted."""
        seed_globally(seeds)
        return self.begin(seeds, options, masks)

    def begin(self, seeds: list[int | None], options: dict[str, Any] | None, masks: bool) -> Any:
        """The same, and the global generators stay."""
        self.serial.report_masks = masks
        self.serial.paused = self.paused
        _, info = self.serial.reset(seed=seeds, options=options)
        self.show()
        self.rew[:], self.terminated[:], self.truncated[:] = 0.0, False, False
        if not masks:
            return None
        told = info.get(f"_{ACTION_MASK}", np.zeros(len(seeds), bool))
        return [info[ACTION_MASK][i] if told[i] else None for i in range(len(seeds))]

    def show(self) -> None:
        """Write the environments' observations and the steps of their episodes into the shared memory."""
        serial = self.serial
        put_rows(self.obs, serial._observations)
        self.time[:] = serial._begun
        np.subtract(serial._count, self.time, out=self.time)
        self.episode[:] = serial._episodes

    def go_on(self, ends: np.ndarray) -> None:
        """In place of a process that was lost: the next step resets where an episode `ends`; times and episodes as shared."""
        serial = self.serial
        serial._autoreset_envs = ends.copy()
        serial._begun, serial._episodes = (serial._count - self.time).tolist(), self.episode.tolist()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of the vector environment."""
        result = getattr(self.serial, name)(*args, **kwargs)
        self.show()
        over = self.serial._autoreset_envs
        if not np.array_equal(over, self.terminated | self.truncated):  # it has put the environments elsewhere
            self.terminated[:], self.truncated[:] = over, False
        return result

    def answer(self, message: bytes) -> Any:
        """Do what a message asks for."""
        if message in (STEP, STEP_WITH_MASKS):
            return self.step(message == STEP_WITH_MASKS)
        name, *args = unpack(message)
        result = getattr(self, name)(*args)
        self.at[0] = -1
        return result


def serve(pipe: Connection, memory: Memory, payload: bytes, index: int, first: int, awake: float = 0.0) -> None:
    """The main loop of a worker. payload: the makers of environments, ids that the user registered, and environment variables.

    first: the number of its first environment. awake: see `Waiting`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    at = np.full(1, -1)
    block: Block | None = None
    try:
        random.seed()
        np.random.seed()  # noqa: NPY002  forked processes would have one state
        makers, registered, variables = unpack(payload)
        os.environ.update(variables)
        make_known(registered)
        block = Block(makers, memory, index, first, at)
        threadpool_limits(1)  # other workers have the other cores
        reply = pack(block.made())
    except BaseException as error:  # SystemExit, too: an environment's code may do anything
        reply = pack(Failure.of(error, int(at[0])))
    waiting = Waiting(pipe, awake)
    failed = b""  # what went wrong in a step: there is no next one
    with suppress(OSError, EOFError):  # the parent is gone
        pipe.send_bytes(reply)
        while (message := waiting.receive()) != CLOSE and block is not None:
            if message.startswith(ECHO):
                reply = message
            else:
                try:
                    result = None if failed else block.answer(message)
                    reply = failed or (DONE if result is None else pack(result))
                except BaseException as error:
                    reply = pack(Failure.of(error, int(block.at[0])))
                    failed = reply if message in (STEP, STEP_WITH_MASKS) else b""
            pipe.send_bytes(reply)
    if block is not None:
        block.serial.envs = Tracked(block.serial.envs[:], at)  # where it was stays where it was
        with suppress(BaseException):
            block.serial.close()


class Waiting:
    """Waits for messages, and stays awake for so many seconds: to fall asleep and wake up takes longer than a short wait."""

    def __init__(self, pipe: Connection, awake: float) -> None:
        self.pipe, self.awake, self.poll = pipe, awake, None
        if awake > 0.0 and hasattr(select, "poll"):  # Windows has none
            self.poll = select.poll()
            self.poll.register(pipe.fileno(), select.POLLIN)

    def receive(self) -> bytes:
        """The next message."""
        if self.poll is not None:
            until = time.perf_counter() + self.awake
            while not self.poll.poll(0) and time.perf_counter() < until:
                pass
        return self.pipe.recv_bytes()


def die_with_parent() -> None:
    """End this process when its parent has ended, even while an environment is busy.

    A thread waits for the parent on every platform. It needs the interpreter's lock, which C code may hold for ever; on Linux
    the kernel itself kills us when the pipe to the parent closes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)


def seed_globally(seeds: Sequence[int | None]) -> None:
    """NumPy's and Python's global generators, for environments that draw from them: from the environments' seeds."""
    given = [int(seed) % 2**64 for seed in seeds if seed is not None]
    if given:
        entropy = np.random.SeedSequence(given).generate_state(8)
        np.random.seed(entropy)  # noqa: NPY002
        random.seed(entropy.tobytes())
