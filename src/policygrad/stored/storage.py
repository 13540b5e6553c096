"""State in files that cannot run code: tensors in safetensors, everything else as JSON in its header.

A state is a tree of dicts and lists with tensors and plain values at the leaves. One metadata key holds the JSON, sorted,
without times or paths, so that equal states are equal bytes. Writes are atomic: a file is there whole, or not at all.

Files are read by `states.py`, with care; here their numbers become tensors of torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.files import reason, write_atomically
from policygrad.forms import Form, FormError, anything, each, refuse, table, text, whole
from policygrad.stored import states
from policygrad.stored.states import (
    FORMAT,
    KEY,
    MAX_HEADER,
    TYPES,
    Announced,
    ModelFileError,
    StateFile,
    bound_from_json,
    digest_of,
    with_suffix,
)
from policygrad.tree import to_numpy

DTYPES = {name: getattr(torch, of_torch) for name, (of_torch, _) in TYPES.items()}
ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL")  # of them in a file

FLOATS = ("float16", "float32", "float64")
SPACE = table(
    {"type": text()},
    optional={
        "shape": each(whole(), 16),
        "dtype": text(
            choices=("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), *FLOATS)
        ),
        "n": whole(),
        "start": anything,
        "nvec": anything,
        "spaces": anything,
        "low": anything,
        "high": anything,
    },
)

__all__ = [
    "DTYPES", "KEY", "Announced", "ModelFileError", "StateFile", "load_state", "open_state", "save_state", "with_suffix",
]  # fmt: skip


def save_state(path: Path, state: dict[str, Any], meta: dict[str, Any]) -> str:
    """Write a state tree and its description; returns the checksum of both."""
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, "", tensors)
    header = {"format": FORMAT, "meta": meta, "tree": tree}
    sha256 = _digest(header, tensors)
    words = json.dumps(header | {"sha256": sha256}, sort_keys=True, allow_nan=False)
    data = packed(tensors, words)
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER:
        raise ValueError(
            f"{path} was not written: its plain values take {size:,} bytes, more than {MAX_HEADER:,}; keep them in tensors"
        )
    write_atomically(path, data)
    return sha256


def packed(tensors: Mapping[str, Tensor], words: str) -> bytes:
    """A safetensors file with our JSON, as the function `save` of safetensors writes it.

    That function makes a ctypes type for every length of tensor that it meets, which is kept for ever, so that a long run would
    grow with every checkpoint: the actions that a checkpoint keeps are of another length each time.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (ORDER.index(names[tensors[name].dtype]), name))
    header: dict[str, Any] = {"__metadata__": {KEY: words}}
    stop = 0
    for name in order:
        x, start = tensors[name], stop
        stop += x.numel() * x.dtype.itemsize
        header[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [start, stop]}
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *(_bytes(tensors[name]) for name in order)])


def to_bytes(state: dict[str, Any]) -> bytes:
    """A state tree, for another process."""
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, "", tensors)
    return packed(tensors, json.dumps(tree))


def from_bytes(data: bytes) -> dict[str, Any]:
    """The inverse of `to_bytes`."""
    size = int.from_bytes(data[:8], "little")
    tree = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
    return states.restored(tree, safetensors.torch.load(data))


def _bytes(x: Tensor) -> memoryview:
    return to_numpy(x.reshape(-1).view(torch.uint8)).data


class TensorFile(StateFile):
    """An open file of a state, its numbers as tensors of torch."""

    def tensor(self, announced: Announced, region: np.ndarray) -> Tensor:
        """A tensor from its bytes, on their memory."""
        return torch.from_numpy(region).view(getattr(torch, announced.dtype)).view(announced.shape)


@contextmanager
def open_state(path: Path) -> Iterator[StateFile]:
    """A file of a state. Raises ModelFileError, naming the file, for what is none, and for what a form refuses inside."""
    with states.open_state(path, TensorFile) as file:
        yield file


def load_state(path: Path, form: Form = anything) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state tree, which must be of a form, and its description. Raises ModelFileError, naming the file."""
    with open_state(path) as file:
        return file.state(form), file.meta


def _strip(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The tree with every tensor moved to `tensors` and a reference left in its place."""
    if isinstance(node, Tensor):
        if path in tensors:
            raise TypeError(f"two tensors of a state have the name {path!r}: use keys without '/'")
        tensors[path] = node.detach().clone().contiguous()
        return {"$tensor": path}
    if isinstance(node, dict):
        return {str(k): _strip(v, f"{path}/{k}" if path else str(k), tensors) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_strip(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, np.generic):
        return node.item()
    raise TypeError(f"a state holds tensors and plain values only, got {type(node).__name__} at {path!r}")


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The checksum of a state that is to be written."""
    named = ((name, str(x.dtype).rpartition(".")[2], tuple(x.shape), _bytes(x)) for name, x in tensors.items())
    return digest_of(header, named)


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A space as plain values; a bound that is the same everywhere is stored once."""
    kind = type(space).__name__
    if isinstance(space, spaces.Discrete):
        return {"type": kind, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": kind, "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": kind, "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):  # the order counts
        return {"type": kind, "spaces": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"type": kind, "spaces": [space_to_json(part) for part in space.spaces]}
    assert isinstance(space, spaces.Box)
    bounds = {"low": _bound(space.low), "high": _bound(space.high)}
    return {"type": kind, "shape": list(space.shape), "dtype": str(space.dtype)} | bounds


def space_from_json(description: Any, most: int, bounds: bool = False) -> spaces.Space:
    """A space of the same kinds, shapes and types. most: how many numbers its arrays may have. bounds: whether those of a Box
    are taken over, too.

    Raises FormError for what `space_to_json` does not return.
    """
    SPACE("space", description)
    kind, shape = description["type"], tuple(description.get("shape", ()))
    if math.prod(shape) > most:
        refuse("the shape of a space", shape, f"one of at most {most:,} numbers")
    try:
        if kind == "Discrete":
            return spaces.Discrete(description["n"], start=description["start"])
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(description["nvec"], start=description["start"])
        if kind == "MultiBinary":
            return spaces.MultiBinary(shape)
        if kind == "Dict":
            return spaces.Dict([(key, space_from_json(part, most, bounds)) for key, part in description["spaces"]])
        if kind == "Tuple":
            return spaces.Tuple([space_from_json(part, most, bounds) for part in description["spaces"]])
        dtype = np.dtype(description["dtype"])
        low, high = (bound_from_json(description[name], shape, dtype) for name in ("low", "high")) if bounds else (0, 1)
        return spaces.Box(low, high, shape, dtype.type)
    except FormError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError) as error:
        raise FormError(f"a space is not described as it should be: {reason(error)}") from error


def _bound(x: np.ndarray) -> Any:
    """Numbers as strings: JSON has no infinity."""
    if not x.size:
        return []
    return str(float(x.flat[0])) if (x == x.flat[0]).all() else np.vectorize(str)(x.astype(float)).tolist()
