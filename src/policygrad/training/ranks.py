"""The processes of a data-parallel learner, its *ranks*: `torch.distributed` with gloo on CPUs and NCCL on GPUs.

Every rank has the same parameters and a part of the environments, and makes the same calls. Sums over the batch go over all of
them (`policygrad.total`), so they learn what one process with all environments learns.

Gloo and the store in which ranks find each other trust whoever connects. On one machine nothing listens beyond the loopback
interface. Between machines they listen where `torchrun` or MASTER_ADDR say.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policygrad.envs import processes
from policygrad.errors import ParallelError, UserError
from policygrad.total import counts, reducing
from policygrad.training.interrupts import at_once
from policygrad.training.nearby import NearbySums, make_memory
from policygrad.tree import to_numpy

STORE = "POLICYGRAD_STORE"  # the file in which the ranks of one machine find each other, where we have started them,
PARENT = "POLICYGRAD_PARENT"  # the end of a pipe that is closed when whoever has started them ends,
SUMS = "-sums"  # and the name of a file that they share as memory
LOST = "-lost-"  # and the name, with the rank, of a file that says that a rank has ended because another one had
MINUTES = 30.0  # that a rank waits for another one, which may play a long episode, or evaluate
CHECK_EVERY = 100  # updates between comparisons of the ranks' parameters, each about the time of one minibatch
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LostRankError(ParallelError, ConnectionError):
    """Another process of a data-parallel run has ended, or cannot be reached."""


class RanksDifferError(ParallelError, RuntimeError):
    """The processes of a data-parallel run no longer have the same parameters."""


class Ranks:
    """This process's place among those of a data-parallel learner. rank: its number, from 0. size: how many there are."""

    def __init__(self, rank: int = 0, size: int = 1, near: NearbySums | None = None) -> None:
        self.rank, self.size, self.near = rank, size, near
        self.updates = 0

    def add(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, in new memory."""
        return self._all(x, "SUM", torch.add)

    def largest(self, x: Tensor) -> Tensor:
        """The maximum of all ranks' x, element by element, in new memory."""
        return self._all(x, "MAX", torch.maximum)

    def _all(self, x: Tensor, op: str, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        import torch.distributed as dist

        if self.near is not None and self.near.fits(x):
            return self.near.reduce(x, combine)
        y = x.detach().clone().contiguous()
        _call(dist.all_reduce, y, getattr(dist.ReduceOp, op))
        return y

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """In this context sums over a batch go over all ranks, which must make the same calls."""
        with reducing(self.add, self.largest, self.rank, self.size):
            yield

    def said(self, data: bytes = b"") -> bytes:
        """What rank 0 says. data: of the others it does not matter."""
        import torch.distributed as dist

        size = int(self.add(torch.tensor(len(data) if self.rank == 0 else 0)))
        told = _bytes(data) if self.rank == 0 else torch.zeros(size, dtype=torch.uint8)
        _call(dist.broadcast, told, 0)
        return to_numpy(told).tobytes()

    def gathered(self, data: bytes) -> list[bytes]:
        """What every rank says, in rank 0; nothing in the others."""
        import torch.distributed as dist

        with self.sharing():
            sizes = counts(len(data))[:, 0].tolist()
        if self.rank:
            _call(dist.send, _bytes(data), 0)
            return []
        found = [data]
        for rank, size in enumerate(sizes[1:], 1):
            told = torch.zeros(size, dtype=torch.uint8)
            _call(dist.recv, told, rank)
            found.append(to_numpy(told).tobytes())
        return found

    def wait(self) -> None:
        """Until all ranks have come here."""
        self.add(torch.zeros(1))

    def compare(self, learner: Any) -> None:
        """After an update, and the first and every 100th time in earnest: raises RanksDifferError, which names the ranks whose
        parameters are not those of rank 0.
        """
        self.updates += 1
        if self.updates % CHECK_EVERY != 1:
            return
        with self.sharing():
            each = counts(digest(learner))[:, 0].tolist()
        other = [str(rank) for rank, number in enumerate(each) if number != each[0]]
        if other:
            raise RanksDifferError(
                f"after {self.updates:,} updates the parameters of rank {', '.join(other)} are not those of rank 0: a part of "
                "the learner sums over its own rows without policygrad.total, a callback has changed one rank, or the machines "
                "are of different kinds. Training has stopped; the last checkpoint is from before"
            )


def digest(learner: Any) -> int:
    """A number of 48 bits that depends on every bit of the parameters, and of the moments of observations."""
    rule, policy = getattr(learner, "rule", None), learner.policy
    parts = [policy, getattr(learner, "critic", None), getattr(getattr(rule, "critic", None), "network", None)]
    tensors = [part.flat for part in parts if isinstance(getattr(part, "flat", None), Tensor)]
    tensors += [] if getattr(policy, "normalizer", None) is None else policy.normalizer.buffers()
    told = blake2b(digest_size=6)
    for x in tensors:
        told.update(to_numpy(x.detach().cpu().reshape(-1)).data)
    return int.from_bytes(told.digest(), "little")


_ranks: Ranks | None = None


def current() -> Ranks | None:
    """The ranks of which this process is one; None where it is alone."""
    return _ranks


def data_parallel() -> Ranks:
    """Join the other processes of this training, which `torchrun` or `policygrad train … --nproc N` has started: from now on
    agents of this process have a part of the environments, and learn with the other processes.

    To be called before agents are made, once; in a process that was started alone it does nothing. Returns the rank of this
    process and how many there are. Raises UserError where the environment variables do not say what they should, and
    LostRankError where the others do not come.
    """
    global _ranks
    if _ranks is None and asked_size() > 1:
        rank, size = _variable("RANK"), asked_size()
        if not 0 <= rank < size:
            raise RanksError(f"RANK = {rank}, but WORLD_SIZE = {size}: ranks count from 0")
        if PARENT in os.environ:
            threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), daemon=True).start()
        with at_once():  # the others may need minutes to start, or never come
            _call(_join, rank, size)
        _ranks = Ranks(rank, size, _call(_nearby, rank, size) if STORE in os.environ else None)
    return _ranks or Ranks()


class RanksError(UserError, ValueError):
    """The processes of a data-parallel run are not started as they should be."""


def asked_size() -> int:
    """How many processes whoever started this one says there are."""
    return _variable("WORLD_SIZE") if "WORLD_SIZE" in os.environ and "RANK" in os.environ else 1


def leave() -> None:
    """The other processes are no longer needed."""
    global _ranks
    if _ranks is not None:
        import torch.distributed as dist

        _ranks = None
        dist.destroy_process_group()


def _join(rank: int, size: int) -> None:
    import torch.distributed as dist

    local, here = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    near = os.environ.get("MASTER_ADDR") in LOOPBACK
    if STORE in os.environ or near:
        names = [name for _, name in socket.if_nameindex()]
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, "lo" if "lo" in names else "lo0")
    backend, gpus = "gloo", torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(local % gpus)
        # NCCL wants a GPU for every rank
        backend = "cpu:gloo,cuda:nccl" if gpus >= here and dist.is_nccl_available() else "cpu:gloo,cuda:gloo"
    words: dict[str, Any] = {"rank": rank, "world_size": size, "timeout": timedelta(minutes=MINUTES)}
    if STORE in os.environ:
        store = dist.FileStore(os.environ[STORE], size)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, **words)
    elif near and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend, store=_near_store(rank, size), **words)
    elif not os.environ.get("MASTER_ADDR"):
        raise RanksError(
            f"RANK and WORLD_SIZE = {size} say that this process is one of several, but not MASTER_ADDR where they meet"
            ": start them with torchrun, or unset RANK to train in one process"
        )
    else:
        _variable("MASTER_PORT")
        dist.init_process_group(backend, init_method="env://", **words)
    atexit.register(leave)  # threads of gloo that are left running abort the process
    dist.barrier()  # all of them are there, and connected
    processes.most_cores = max(1, processes.usable_cores() // here)


def _nearby(rank: int, size: int) -> NearbySums | None:
    """The memory that the ranks of this machine share, where that is possible."""
    import torch.distributed as dist

    path = Path(f"{os.environ[STORE]}{SUMS}")
    made = torch.tensor([int(rank > 0 or make_memory(path, size))])
    dist.all_reduce(made, dist.ReduceOp.MIN)
    if not int(made):
        return None
    pids = torch.zeros(size, dtype=torch.int64)
    pids[rank] = os.getpid()
    dist.all_reduce(pids)
    return NearbySums(path, rank, pids.tolist(), _lost)


def _lost() -> None:
    """Raises LostRankError: a rank of this machine has ended."""

    def end() -> None:
        raise RuntimeError("its process is gone")

    _call(end)


def _end_with(pipe: int) -> None:
    """End as after SIGTERM when the process at the other end of a pipe has ended."""
    with suppress(OSError):
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)


def _near_store(rank: int, size: int) -> Any:
    """A store that listens on 127.0.0.1 alone: torch's own binds every interface, whatever host it is told."""
    import torch.distributed as dist

    words: dict[str, Any] = {}
    port, patience = _variable("MASTER_PORT"), timedelta(minutes=MINUTES)
    if rank == 0:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        words = {"master_listen_fd": listening.detach()}
    return dist.TCPStore("127.0.0.1", port, size, rank == 0, patience, **words)  # pyright: ignore[reportPrivateImportUsage]


def _variable(name: str) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        raise RanksError(
            f"the environment variable {name} must be a whole number, got {os.environ.get(name)!r}: start the processes with "
            "torchrun, or with policygrad train … --nproc N"
        ) from None


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def _call(function: Callable[..., Any], *given: Any) -> Any:
    """Call what needs the other ranks. Raises LostRankError where one of them is gone."""
    try:
        return function(*given)
    except RuntimeError as error:  # gloo, NCCL and the store have no others
        if STORE in os.environ:
            Path(f"{os.environ[STORE]}{LOST}{os.environ['RANK']}").touch()
        said = re.sub(r"^(\[\S+\.cc:\d+\]\s*)+", "", str(error).strip()).partition("\n")[0].partition(". ")[0]
        raise LostRankError(
            f"another process of this run has ended, or cannot be reached ({said[:200] or type(error).__name__})"
        ) from error
