"""A worker process of an asynchronous learner, and the memory that all of them share.

The memory holds the newest parameters of policy and critic, the statistics of their optimisers, the scale of the critic's
targets and the moments of observations. Whoever has the lock reads it, moves it, and writes it back. Without the lock, as in
Hogwild, two workers that move Adam's moments and the scale at the same time would lose one of the moves, or leave a critic
in a scale that is half the old one; and the lock is held for a small part of a worker's time only: some hundredths of a
millisecond.
"""

from __future__ import annotations

import mmap
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from policygrad.algorithms.learner import Learner
from policygrad.algorithms.pushing import AsyncWorker, Turn
from policygrad.data import Record
from policygrad.envs.block import Failure, die_with_parent, unpack
from policygrad.envs.collector import Collector
from policygrad.envs.families import make_known
from policygrad.envs.make import make_envs
from policygrad.envs.shared import ALIGNMENT, Memory
from policygrad.envs.single import EnvLike
from policygrad.models.critic import Critic
from policygrad.models.optim import Adam
from policygrad.streams import seeds, stream

NUMBERS = (
    "seen",
    "mean",
    "std",
    "var",
)  # of the critic, after the count of pushes, the progress and two counts of Adam
SKIPPED = 4


class SharedNewest:
    """The newest state of a learner in shared memory. Without a buffer only the `size` in bytes is computed."""

    def __init__(self, learner: Learner, buffer: mmap.mmap | None = None) -> None:
        self.size = 0
        numbers = torch.zeros(SKIPPED + len(NUMBERS), dtype=torch.float64)
        places = []
        for x in (numbers, *tensors(learner)):
            places.append((x, self.size))
            self.size += -(-x.numel() * x.element_size() // ALIGNMENT) * ALIGNMENT
        if buffer is not None:
            self.numbers, *self.tensors = (
                torch.frombuffer(buffer, dtype=x.dtype, count=x.numel(), offset=start).view(x.shape)
                for x, start in places
            )
            self.values = self.numbers.numpy()

    def write(self, learner: Learner, pushes: int) -> None:
        """From a learner to the memory."""
        for shared, own in zip(self.tensors, tensors(learner), strict=True):
            shared.copy_(own)
        critic = critic_of(learner)
        counts = [getattr(optimizer, "t", 0) for optimizer in optimizers(learner)]
        self.values[0], self.values[2:SKIPPED] = pushes, counts
        self.values[SKIPPED:] = [getattr(critic, name) for name in NUMBERS]

    def read(self, learner: Learner) -> int:
        """From the memory to a learner; the count of pushes."""
        for shared, own in zip(self.tensors, tensors(learner), strict=True):
            own.copy_(shared)
        critic, values = critic_of(learner), self.values.tolist()
        for optimizer, t in zip(optimizers(learner), values[2:SKIPPED], strict=True):
            if isinstance(optimizer, Adam):
                optimizer.t = int(t)
                if optimizer.t == 0:
                    optimizer.m = optimizer.v = None
        critic.seen = int(values[SKIPPED])
        critic.mean, critic.std, critic.var = values[SKIPPED + 1 :]
        if learner.policy.normalizer is not None:
            learner.policy.normalizer.refresh()
        return int(values[0])


def tensors(learner: Learner) -> list[Tensor]:
    """The arrays that learning changes: parameters, moments of Adam and of observations."""
    found = [learner.policy.flat, critic_of(learner).flat]
    for optimizer, params in zip(optimizers(learner), tuple(found), strict=True):
        if isinstance(optimizer, Adam):
            if optimizer.m is None or optimizer.v is None:
                optimizer.m, optimizer.v = torch.zeros_like(params), torch.zeros_like(params)
            found += [optimizer.m, optimizer.v]
    normalizer = learner.policy.normalizer
    return found if normalizer is None else [*found, *normalizer.buffers()]


def optimizers(learner: Learner) -> list[Any]:
    """The optimisers of policy and critic."""
    update: Any = learner.update
    return [update.optimizer, critic_of(learner).optimizer]


def critic_of(learner: Learner) -> Critic:
    """The learner's critic, of V."""
    assert isinstance(learner.critic, Critic)
    return learner.critic


class SharedTurn(Turn):
    """A turn that other processes wait for: the newest state is read from the memory, and written back."""

    def __init__(self, learner: Learner, shared: SharedNewest, lock: Any) -> None:
        super().__init__()
        self.learner, self.shared, self.lock = learner, shared, lock

    def __enter__(self) -> None:
        self.lock.acquire()
        self.pushes = self.shared.read(self.learner)

    def __exit__(self, *_: object) -> None:
        self.shared.write(self.learner, self.pushes)
        self.lock.release()


@dataclass(frozen=True)
class Shift:
    """What a worker process is told. index: of the worker; block: its environments, of num_envs in all; steps_done: by all of
    them before, so that other episodes are played when a training goes on.
    """

    learner: Learner
    env: EnvLike
    backend: str
    index: int
    block: range
    num_envs: int
    seed: int
    steps_done: int
    num_steps: int

    def collector(self) -> Collector:
        """The worker's environments, with seeds and noise of their own."""
        envs: Any = make_envs(self.env, len(self.block), self.backend)
        envs.first = self.block.start  # errors number them as everybody does
        collector = Collector(envs, self.seed)
        collector.rng = np.random.default_rng(stream(self.seed, "acting", self.index + 1, self.steps_done))
        chosen = seeds(self.seed, "environments", self.num_envs, self.steps_done)
        collector.env_seeds = chosen[self.block.start : self.block.stop]
        return collector


def serve(pipe: Connection, memory: Memory, payload: bytes, index: int, first: int, lock: Any, permits: Any) -> None:
    """The main loop of a worker: play, wait for a permit to push, push, and send what was played.

    Ctrl-C and SIGTERM, which a terminal or a scheduler sends to all processes at once, are the parent's business. A message
    of any kind is the end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    with suppress(OSError, EOFError):  # the parent is gone
        try:
            (shift,), registered, variables = unpack(payload)
            os.environ.update(variables)
            make_known(registered)
            torch.set_num_threads(1)  # other workers have the other cores
            threadpool_limits(1)
            work(pipe, memory, shift, lock, permits)
        except (OSError, EOFError):
            raise
        except BaseException as error:  # SystemExit, too: an environment's code may do anything
            pipe.send(Failure.of(error, index))


def work(pipe: Connection, memory: Memory, shift: Shift, lock: Any, permits: Any) -> None:
    """Play and push until a message comes."""
    collector, newest = shift.collector(), shift.learner
    shared = SharedNewest(newest, memory.map(SharedNewest(newest).size))
    memory.close()
    turn = SharedTurn(newest, shared, lock)
    worker = AsyncWorker(newest, turn, shift.index)
    with turn:
        worker.renew()
    while True:
        record = collector.steps(worker.policy, shift.num_steps)
        permits.acquire()
        if pipe.poll():
            collector.envs.close()
            return
        stats = worker.step(record, float(shared.values[1]))
        pipe.send((lighter(record), stats))


def lighter(record: Record) -> Record:
    """The record without next_obs where that is a view of obs[1:], for the way."""
    return replace(record, next_obs=None) if is_view(record.next_obs, record.obs) else record


def is_view(next_obs: Any, obs: Any) -> bool:
    """Whether every array of next_obs is one of obs from its second row on."""
    if isinstance(obs, dict):
        return all(is_view(next_obs[key], part) for key, part in obs.items())
    return next_obs.__array_interface__["data"] == obs[1:].__array_interface__["data"]
