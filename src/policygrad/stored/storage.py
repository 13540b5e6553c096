"""State in files that cannot run code: tensors in safetensors, everything else as JSON in its header.

A state is a tree of dicts and lists with tensors and plain values at the leaves. One metadata key holds the JSON, sorted,
without times or paths, so that equal states are equal bytes. Writes are atomic: a file is there whole, or not at all.

A file is read as if a stranger had written it. The header says which tensors there are; it must be what `save_state` writes,
to the byte, and its tensors must fill the file. Whoever reads the state says what it must be (`forms`), and is answered from
the header first. A small file is read whole before anything of it is believed, so that damage is called damage; of a large
one a tensor that is not expected is never read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.errors import FileError
from policygrad.files import MIB, BadFileError, opened, parse_json, reason, write_atomically
from policygrad.forms import Form, FormError, anything, each, refuse, table, text, whole
from policygrad.tree import to_numpy

KEY = "policygrad"
FORMAT = 1
MAX_HEADER = 8 * MIB  # bytes of the JSON: what is large is kept in tensors
SMALL = 64 * 2**20  # bytes of a file that is read at once
INT_BITS = 128  # of the largest whole number: a generator's state

DTYPES = {  # safetensors' names, and torch's
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL")  # of them in a file

FLOATS = ("float16", "float32", "float64")
HEADER = table(
    {"format": whole(FORMAT, FORMAT), "meta": anything, "sha256": text(), "tree": table({}, others=anything)}
)
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
METADATA = table({KEY: text(MAX_HEADER)})
ENTRY = table(
    {"dtype": text(choices=tuple(DTYPES)), "shape": each(whole(), 16), "data_offsets": each(whole(), 2, least=2)}
)


class ModelFileError(FileError, ValueError):
    """A file is not a policygrad model, or it is damaged."""


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


def _bytes(x: Tensor) -> memoryview:
    return to_numpy(x.reshape(-1).view(torch.uint8)).data


@dataclass(frozen=True)
class Announced:
    """A tensor of a file's header: its type, its shape, and its place among the bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int
    is_meta: bool = True  # as torch says it of tensors without numbers

    def of(self, data: np.ndarray) -> Tensor:
        """The tensor, in the memory of the bytes."""
        region = data[self.start : self.stop]
        if self.dtype == torch.bool and (region > 1).any():
            raise FormError("a truth value in it is neither 0 nor 1")
        return torch.from_numpy(region).view(self.dtype).view(self.shape)


class StateFile:
    """An open file of a state, its header read and checked.

    meta: the description. tree: the state, its tensors `Announced`. sha256: the checksum of both, with the numbers of tensors.
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path, self._file = path, file
        self._size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(self._size - 8, MAX_HEADER):
            raise ValueError("its header has no possible length")
        self.tensors, words = _read_header(file.read(length), self._size - 8 - length)
        header = parse_json(words, INT_BITS, 4 * MIB)
        version = header.get("format") if isinstance(header, dict) else None
        if type(version) is int and version > FORMAT:
            raise ModelFileError(
                f"{path} has format {version}, but this version reads {FORMAT}: install a newer policygrad"
            )
        HEADER("header", header)
        if json.dumps(header, sort_keys=True, allow_nan=False) != words:
            raise ValueError("its header has been changed")
        self.sha256 = header.pop("sha256")
        self._header, self.meta = header, header["meta"]
        left = dict(self.tensors)
        self.tree = _restore(header["tree"], "", left)
        if left:
            raise ValueError(f"nothing refers to its tensor {next(iter(left))!r:.60}")
        self._read = self._tensors() if self._size <= SMALL else None

    def state(self, form: Form = anything) -> dict[str, Any]:
        """The state. Raises FormError where it is not of this form, ModelFileError where it does not match its checksum."""
        form("state", self.tree)
        tensors = self._tensors() if self._read is None else self._read
        state = _restore(self._header["tree"], "", dict(tensors))
        form("state", state)
        return state

    def _tensors(self) -> dict[str, Tensor]:
        data = bytearray(sum(x.stop - x.start for x in self.tensors.values()))
        self._file.seek(self._size - len(data))
        if self._file.readinto(data) != len(data):
            raise ModelFileError(f"{self.path} is damaged: it became shorter while it was read")
        region = np.frombuffer(data, np.uint8)  # tensors share it
        tensors = {name: announced.of(region) for name, announced in self.tensors.items()}
        if _digest(self._header, tensors) != self.sha256:
            raise ModelFileError(f"{self.path} is damaged: its contents do not match their checksum")
        return tensors


@contextmanager
def open_state(path: Path) -> Iterator[StateFile]:
    """A file of a state. Raises ModelFileError, naming the file, for what is none, and for what a form refuses inside."""
    if not path.exists():
        raise ModelFileError(f"there is no model file {path}")
    try:
        with opened(path) as file:
            try:
                found = StateFile(path, file)
            except ModelFileError:
                raise
            except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
                raise ModelFileError(f"{path} is not a policygrad model, or it is damaged ({reason(error)})") from error
            yield found
    except FormError as error:
        raise ModelFileError(f"{path} does not hold what it should: {error}") from error
    except BadFileError as error:
        raise ModelFileError(str(error)) from error


def load_state(path: Path, form: Form = anything) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state tree, which must be of a form, and its description. Raises ModelFileError, naming the file."""
    with open_state(path) as file:
        return file.state(form), file.meta


def _read_header(data: bytes, size: int) -> tuple[dict[str, Announced], str]:
    """The tensors of a safetensors header, which must fill `size` bytes without a gap, and our own JSON in its metadata.

    Raises ValueError for anything that safetensors would not have written.
    """
    words, aligned = data.decode(), len(data) % 8 == 0
    del data  # the header may be large
    outer = parse_json(words, memory=4 * MIB)
    again = json.dumps(outer, ensure_ascii=False, separators=(",", ":"))
    padding = words[len(again) :]
    if not (aligned and words.startswith(again) and padding == " " * len(padding) and len(padding) < 8):
        raise ValueError("its header has been changed")
    if not isinstance(outer, dict):
        raise ValueError("its header is no table")
    del words, again
    METADATA("metadata", outer.get("__metadata__"))
    found, end = {}, 0
    for name, entry in outer.items():
        if name == "__metadata__":
            continue
        ENTRY("a tensor", entry)
        dtype, shape, (start, stop) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or start % dtype.itemsize:
            raise ValueError("a tensor is not where its type and shape put it")
        found[name], end = Announced(dtype, tuple(shape), start, stop), stop
    if end != size:
        raise ValueError(f"its tensors have {end:,} bytes, but the file has {size:,}")
    return found, outer["__metadata__"][KEY]


def with_suffix(path: str | Path) -> Path:
    """A model file's path, with its suffix; `~` is the user's home."""
    path = Path(os.path.expanduser(path))
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


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


def _restore(node: Any, path: str, tensors: dict[str, Any]) -> Any:
    """The tree with its tensors in the places of the references, which name where they are; each is taken out of `tensors`."""
    if isinstance(node, dict):
        if set(node) == {"$tensor"}:
            if node["$tensor"] != path or path not in tensors:
                raise ValueError(f"there is no tensor {path!r:.60}")
            return tensors.pop(path)
        return {k: _restore(v, f"{path}/{k}" if path else k, tensors) for k, v in node.items()}
    return [_restore(v, f"{path}/{i}", tensors) for i, v in enumerate(node)] if isinstance(node, list) else node


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything in the file: against damage, not against forgery."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


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


def space_from_json(description: Any, most: int) -> spaces.Space:
    """A space of the same kinds, shapes and types; bounds are left out. most: how many numbers its arrays may have.

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
            return spaces.Dict([(key, space_from_json(part, most)) for key, part in description["spaces"]])
        if kind == "Tuple":
            return spaces.Tuple([space_from_json(part, most) for part in description["spaces"]])
        return spaces.Box(0, 1, shape, np.dtype(description["dtype"]).type)
    except FormError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError) as error:
        raise FormError(f"a space is not described as it should be: {reason(error)}") from error


def _bound(x: np.ndarray) -> Any:
    """Numbers as strings: JSON has no infinity."""
    if not x.size:
        return []
    return str(float(x.flat[0])) if (x == x.flat[0]).all() else np.vectorize(str)(x.astype(float)).tolist()
