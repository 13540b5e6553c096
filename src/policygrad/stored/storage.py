"""State in files that cannot run code: tensors in safetensors, everything else as JSON in its header.

A state is a tree of dicts and lists with tensors and plain values at the leaves. One metadata key holds the JSON, sorted,
without times or paths, so that equal states are equal bytes. Writes are atomic: a file is there whole, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from policygrad.errors import FileError, Naming

KEY = "policygrad"
FORMAT = 1


class ModelFileError(FileError, ValueError):
    """A file that is no policygrad model, or a damaged one."""


def save_state(path: Path, state: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write a state tree and its description."""
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, "", tensors)
    header = {"format": FORMAT, "meta": meta, "tree": tree}
    text = json.dumps(header | {"sha256": _digest(header, tensors)}, sort_keys=True, allow_nan=False)
    write_atomically(path, save(tensors, {KEY: text}))


def load_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state tree and its description. Raises ModelFileError, naming the file; never runs what it reads."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})[KEY]
            header = json.loads(text)
            if header["format"] != FORMAT:
                raise ModelFileError(
                    f"{path} has format {header['format']}, but this version reads {FORMAT}: install a newer policygrad"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            whole = json.dumps(header, sort_keys=True, allow_nan=False) == text
            if header.pop("sha256") != _digest(header, tensors) or not whole:
                raise ModelFileError(f"{path} is damaged: its contents do not match their checksum")
            return _restore(header["tree"], tensors), header["meta"]
    except ModelFileError:
        raise
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no model file {path}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelFileError(f"{path} is not a policygrad model, or it is damaged ({type(error).__name__})") from error


def with_suffix(path: str | Path) -> Path:
    """A model file's path, with its suffix; `~` is the user's home."""
    path = Path(os.path.expanduser(path))
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file beside it, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with Naming(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _restore(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"$tensor"}:
            return tensors[node["$tensor"]]
        return {k: _restore(v, tensors) for k, v in node.items()}
    return [_restore(v, tensors) for v in node] if isinstance(node, list) else node


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of everything in the file: against damage, not against forgery."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
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


def _bound(x: np.ndarray) -> Any:
    """Numbers as strings: JSON has no infinity."""
    if not x.size:
        return []
    return str(float(x.flat[0])) if (x == x.flat[0]).all() else np.vectorize(str)(x.astype(float)).tolist()
