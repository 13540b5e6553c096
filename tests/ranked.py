"""Ranks of a data-parallel run as forked processes of a test, which talk by gloo as those of `--nproc` do."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from policygrad.training import ranks

SECONDS = 100.0  # that a rank may take on a busy machine


class Failed(Exception):
    """A rank has raised an error, or has ended; the text says which."""


def in_ranks(size: int, function: Callable[[int], Any], **env: str) -> list[Any]:
    """What function(rank) returns in each of so many ranks: plain values and arrays, or the error that it has raised."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(size):
            here, there = fork.Pipe(duplex=False)
            words = {"RANK": str(rank), "WORLD_SIZE": str(size), ranks.STORE: f"{folder}/store"} | env
            process = fork.Process(target=_run, args=(function, rank, words, there))
            process.start()
            there.close()
            started.append((process, here))
        found = []
        for rank, (process, here) in enumerate(started):
            try:
                found.append(here.recv() if here.poll(SECONDS) else Failed(f"rank {rank} says nothing"))
            except EOFError:
                process.join(5)
                found.append(Failed(f"rank {rank} has ended with {process.exitcode}"))
            process.kill()
            process.join()
    return found


def _run(function: Callable[[int], Any], rank: int, words: dict[str, str], there: Any) -> None:
    os.environ.update(words)
    for name in [name for name, value in words.items() if not value]:
        del os.environ[name]
    try:
        if function.__name__ != "unjoined":
            ranks.data_parallel()
        said = function(rank)
    except BaseException as error:
        said = error
        said.add_note(traceback.format_exc())
    try:
        there.send(said)
    except Exception:
        there.send(Failed(repr(said)))
    ranks.leave()
    os._exit(0)


def together(size: int, function: Callable[[int], Any], **env: str) -> list[Any]:
    """As `in_ranks`, and an error is one of the test."""
    found = in_ranks(size, function, **env)
    for each in found:
        if isinstance(each, BaseException):
            raise Failed("\n".join([repr(each), *getattr(each, "__notes__", [])]))
    return found
