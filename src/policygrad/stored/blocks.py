"""The replay buffer of a run, in blocks: files of consecutive rows, each written once, so that checkpoints stay small.

    replay/rows-<n>.safetensors    the rows from n on, counted from the first that was ever added

A buffer above 8 MiB is kept in blocks of 4 MiB, which are deleted when neither of the last two checkpoints needs them. A
checkpoint holds the rows that are in no block yet, and the list of the blocks that it needs, with their checksums. When a
block is written depends on the rows alone, not on when checkpoints are taken, so a run that goes on writes the same files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policygrad.files import make_folder
from policygrad.forms import Form, FormError, each, table, text, whole
from policygrad.replay import ReplayBuffer
from policygrad.stored.directory import KEEP_CHECKPOINTS
from policygrad.stored.storage import ModelFileError, open_state, save_state
from policygrad.tree import Tree, take, to_torch, tree_map

FOLDER = "replay"
BLOCK = 4 * 2**20  # bytes of a block, about; a buffer of less than two is kept in the checkpoints
NAME = re.compile(r"rows-(\d+)\.safetensors")
MOST = 100_000  # blocks of a buffer

# what a checkpoint says of them
BLOCKS: Form = each(table({"first": whole(), "stop": whole(1), "sha256": text(64)}), MOST)


class ReplayBlocks:
    """The blocks of a run's replay buffer, as they are written and deleted. known: those that a checkpoint says it needs.

    due: the number of rows beyond which there is something to write.
    """

    def __init__(self, run: Path, known: Sequence[dict[str, Any]] = ()) -> None:
        self.folder = run / FOLDER
        # needed by the buffer as it is, oldest first; each begins where the one before it ended
        self.blocks = list(known)
        self.due: float = 0
        # by the last checkpoints, at so many steps: the first row of the first block
        self._needed: dict[int, float] = {}

    def write(self, buffer: ReplayBuffer) -> None:
        """Write the blocks that have become whole. The last row of a block is not the buffer's last, which may still change."""
        length = _length(buffer, self._bytes(buffer))
        while True:
            oldest = buffer.added - buffer.size
            self.blocks = [block for block in self.blocks if block["stop"] > oldest]
            first = max(self.blocks[-1]["stop"] if self.blocks else 0, oldest)
            self.due = first + length
            if buffer.added <= self.due:
                return
            stop = first + int(length)
            sha256 = self._save(first, stop, to_torch(buffer.columns(first, stop)))
            self.blocks.append({"first": first, "stop": stop, "sha256": sha256})

    def _save(self, first: int, stop: int, columns: Tree) -> str:
        """Write a block; its checksum."""
        return save_state(make_folder(self.folder) / _name(first), {"first": first, "columns": columns}, {})

    def _bytes(self, buffer: ReplayBuffer) -> int:
        """Of memory, of all environments."""
        return buffer.nbytes

    @contextmanager
    def apart(self, buffer: ReplayBuffer) -> Iterator[None]:
        """In this context the buffer's state leaves out what is in blocks."""
        self.write(buffer)
        if self.blocks:
            buffer.apart = self.blocks[-1]["stop"] - (buffer.added - buffer.size)
        try:
            yield
        finally:
            buffer.apart = 0

    def forget(self, steps: int) -> None:
        """After a checkpoint at so many steps: delete the blocks that none of the last checkpoints needs."""
        self._needed.pop(steps, None)
        self._needed[steps] = self.blocks[0]["first"] if self.blocks else math.inf
        while len(self._needed) > KEEP_CHECKPOINTS:
            del self._needed[next(iter(self._needed))]
        oldest = min(self._needed.values())
        for path in self.folder.glob("rows-*"):
            if (found := NAME.fullmatch(path.name)) and int(found[1]) < oldest:
                path.unlink(missing_ok=True)


def fill(buffer: ReplayBuffer, blocks: Any, checkpoint: Path, envs: tuple[int, int, int] | None = None) -> None:
    """Give a buffer the rows that the state in a run's checkpoint left out. blocks: what the checkpoint says of them. envs:
    where the buffer is of a part of the environments, the first of them, the one after the last, and how many are in files.

    Raises ModelFileError for a block that is not there, is damaged, or is not the one that the checkpoint needs.
    """
    BLOCKS("run/replay", blocks)
    folder, (begin, end, num_envs) = checkpoint.parent.parent / FOLDER, envs or (0, buffer.num_envs, buffer.num_envs)
    now = buffer.added - buffer.size
    stop = now + buffer.apart
    for block in blocks:
        first, path = block["first"], folder / _name(block["first"])
        if block["stop"] <= now:  # of rows that a smaller buffer than the checkpoint's has no room for
            continue
        if not first <= now < block["stop"] <= stop:
            break
        if not path.exists():
            raise ModelFileError(f"{path} is gone, which holds a part of the replay buffer of {checkpoint}")
        form = table({"first": whole(first, first), "columns": buffer.columns_form(block["stop"] - first, num_envs)})
        with open_state(path) as file:
            if file.sha256 != block["sha256"]:
                raise ModelFileError(
                    f"{path} is not the part of the replay buffer that {checkpoint} needs, but another one"
                )
            columns = tree_map(lambda x: x.numpy()[:, begin:end], file.state(form)["columns"])
        buffer.put_columns(now, take(columns, slice(now - first, None)))
        now = block["stop"]
    if now != stop:
        raise FormError(f"it names no blocks with the rows {now:,} to {stop:,} of its replay buffer")
    buffer.apart = 0


def _length(buffer: ReplayBuffer, size: int) -> float:
    """Rows of a block; ∞ for a buffer that needs none. size: its bytes."""
    length = max(1, BLOCK * buffer.rows // size)
    return length if buffer.rows > 2 * length else math.inf


def _name(first: int) -> str:
    return f"rows-{first}.safetensors"
