"""A block of environments that the training process steps itself, while the workers of a pool step the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np

from policygrad.envs.block import CLOSE, DONE, Block, Failure, pack
from policygrad.envs.shared import Arrays, Memory


class OwnBlock(Block):
    """As in a worker, on arrays that are here, and without a word to NumPy's and Python's global generators: they are the
    user's.
    """

    def attach(self, num_envs: int, num_workers: int) -> None:
        """Nothing: it has been told to `use` the arrays."""

    def reset(self, seeds: list[int | None], options: dict[str, Any] | None, masks: bool) -> Any:
        return self.begin(seeds, options, masks)


class OwnHandle:
    """A `WorkerHandle` of the block in this process: it does what it was sent when somebody asks for the reply."""

    own = True

    def __init__(self, makers: Sequence[Callable[[], gym.Env]], memory: Memory, index: int, block: range) -> None:
        self.makers, self.memory = makers, memory
        self.index, self.block, self.rows, self.pid = index, block, slice(block.start, block.stop), os.getpid()
        self.busy, self.message = True, b""
        self.envs: OwnBlock | None = None

    def use(self, arrays: Arrays) -> None:
        """Work on these arrays from now on."""
        assert self.envs is not None
        self.envs.use(arrays)

    def send(self, message: bytes) -> None:
        """Keep a message."""
        self.busy, self.message = True, message

    def reply(self) -> bytes:
        """Do what the message says, or make the environments; what a worker would have sent back."""
        at = np.full(1, -1) if self.envs is None else self.envs.at
        try:
            if self.envs is None:
                self.envs = OwnBlock(self.makers, self.memory, self.index, self.block.start, at)
                reply = pack(self.envs.made())
            else:
                result = self.envs.answer(self.message)
                reply = DONE if result is None else pack(result)
        except (Exception, SystemExit) as error:
            reply = pack(Failure.of(error, int(at[0])))
        self.busy = False
        return reply

    def settle(self, seconds: float) -> bool:
        """Forget what was asked, because Ctrl-C came in between."""
        self.busy = False
        return True

    def wait(self, seconds: float) -> None:
        """Close the environments, if that is what was sent."""
        if self.message == CLOSE and self.envs is not None:
            with suppress(Exception):
                self.envs.serial.close()
            self.envs = None

    def end(self) -> None:
        """Let go of the environments."""
        self.envs = None
