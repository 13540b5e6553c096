"""Reading the files of states without torch: their header, their plain values, and their tensors as arrays of NumPy.

A file is read as if a stranger had written it. The header says which tensors there are; it must be what `save_state` of
`storage.py` writes, to the byte, and its tensors must fill the file. Whoever reads the state says what it must be (`forms`),
and is answered from the header first. A small file is read whole before anything of it is believed, so that damage is called
damage; of a large one a tensor that is not expected is never read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.errors import FileError
from policygrad.files import MIB, BadFileError, opened, parse_json, reason
from policygrad.forms import Form, FormError, anything, each, table, text, whole

KEY = "policygrad"
FORMAT = 1
MAX_HEADER = 8 * MIB  # bytes of the JSON: what is large is kept in tensors
SMALL = 64 * 2**20  # bytes of a file that is read at once
INT_BITS = 128  # of the largest whole number: a generator's state

TYPES = {  # safetensors' names, torch's, and the bytes of a number
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "BOOL": ("bool", 1),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1),
}  # fmt: skip

HEADER = table(
    {"format": whole(FORMAT, FORMAT), "meta": anything, "sha256": text(), "tree": table({}, others=anything)}
)
METADATA = table({KEY: text(MAX_HEADER)})
ENTRY = table(
    {"dtype": text(choices=tuple(TYPES)), "shape": each(whole(), 16), "data_offsets": each(whole(), 2, least=2)}
)


class ModelFileError(FileError, ValueError):
    """A file is not a policygrad model, or it is damaged."""


@dataclass(frozen=True)
class Announced:
    """A tensor of a file's header: its type by torch's name, its shape, and its place among the bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    is_meta: bool = True  # as torch says it of tensors without numbers

    def region(self, data: np.ndarray) -> np.ndarray:
        """Its bytes, in the memory of all of them."""
        region = data[self.start : self.stop]
        if self.dtype == "bool" and (region > 1).any():
            raise FormError("a truth value in it is neither 0 nor 1")
        return region


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

    def bytes_of(self, node: Any) -> Any:
        """A part of `tree` with the type, shape and bytes of every tensor in its place: two are equal to the bit, or not. The
        checksum is not looked at.
        """
        if isinstance(node, dict):
            return {key: self.bytes_of(part) for key, part in node.items()}
        if isinstance(node, list):
            return [self.bytes_of(part) for part in node]
        if not isinstance(node, Announced):
            return node
        self._file.seek(self._size - max(x.stop for x in self.tensors.values()) + node.start)
        return node.dtype, node.shape, self._file.read(node.stop - node.start)

    def _tensors(self) -> dict[str, Any]:
        data = bytearray(sum(x.stop - x.start for x in self.tensors.values()))
        self._file.seek(self._size - len(data))
        if self._file.readinto(data) != len(data):
            raise ModelFileError(f"{self.path} is damaged: it became shorter while it was read")
        everything = np.frombuffer(data, np.uint8)  # tensors share it
        regions = {name: announced.region(everything) for name, announced in self.tensors.items()}
        parts = ((name, x.dtype, x.shape, regions[name].data) for name, x in self.tensors.items())
        if digest_of(self._header, parts) != self.sha256:
            raise ModelFileError(f"{self.path} is damaged: its contents do not match their checksum")
        return {name: self.tensor(announced, regions[name]) for name, announced in self.tensors.items()}

    def tensor(self, announced: Announced, region: np.ndarray) -> Any:
        """A tensor from its bytes, on their memory: here an array."""
        if announced.dtype == "bfloat16":
            raise ValueError("it has numbers of the type bfloat16, which NumPy does not have")
        return region.view(announced.dtype).reshape(announced.shape)


@contextmanager
def open_state(path: Path, kind: type[StateFile] = StateFile) -> Iterator[StateFile]:
    """A file of a state. Raises ModelFileError, naming the file, for what is none, and for what a form refuses inside."""
    if not path.exists():
        raise ModelFileError(f"there is no model file {path}")
    try:
        with opened(path) as file:
            try:
                found = kind(path, file)
            except ModelFileError:
                raise
            except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
                raise ModelFileError(f"{path} is not a policygrad model, or it is damaged ({reason(error)})") from error
            yield found
    except FormError as error:
        raise ModelFileError(f"{path} does not hold what it should: {error}") from error
    except BadFileError as error:
        raise ModelFileError(str(error)) from error


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
        (dtype, width), shape, (start, stop) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if start != end or stop - start != math.prod(shape) * width or start % width:
            raise ValueError("a tensor is not where its type and shape put it")
        found[name], end = Announced(dtype, tuple(shape), start, stop), stop
    if end != size:
        raise ValueError(f"its tensors have {end:,} bytes, but the file has {size:,}")
    return found, outer["__metadata__"][KEY]


def restored(tree: Any, tensors: dict[str, Any]) -> Any:
    """The tree with its tensors in their places."""
    return _restore(tree, "", tensors)


def _restore(node: Any, path: str, tensors: dict[str, Any]) -> Any:
    """The tree with its tensors in the places of the references, which name where they are; each is taken out of `tensors`."""
    if isinstance(node, dict):
        if set(node) == {"$tensor"}:
            if node["$tensor"] != path or path not in tensors:
                raise ValueError(f"there is no tensor {path!r:.60}")
            return tensors.pop(path)
        return {k: _restore(v, f"{path}/{k}" if path else k, tensors) for k, v in node.items()}
    return [_restore(v, f"{path}/{i}", tensors) for i, v in enumerate(node)] if isinstance(node, list) else node


def digest_of(header: Mapping[str, Any], parts: Iterable[tuple[str, str, tuple[int, ...], memoryview]]) -> str:
    """SHA-256 of everything in the file: against damage, not against forgery. parts: name, type, shape and bytes of tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name, dtype, shape, data in sorted(parts, key=lambda part: part[0]):
        digest.update(f"{name} torch.{dtype} {shape}".encode())
        digest.update(data)
    return digest.hexdigest()


def with_suffix(path: str | Path) -> Path:
    """A model file's path, with its suffix; `~` is the user's home."""
    path = Path(os.path.expanduser(path))
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def bound_from_json(words: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A bound of a Box from a file, which has one number as a text, or a list of as many as the shape has."""
    values = np.broadcast_to(np.array(words, str).astype(np.float64), shape)
    if dtype.kind == "f":
        return values.astype(dtype)
    info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    whole_numbers = [min(max(int(x), info.min), info.max) for x in values.reshape(-1)]  # a float may be one too large
    return np.array(whole_numbers, dtype).reshape(shape)
