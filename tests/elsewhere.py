"""A second device for tests on machines that have none: its tensors say that they are elsewhere, and are computed on the CPU.

torch knows the device "meta", whose tensors have no numbers. Inside `a_second_device()` they have: an `Elsewhere` tensor says
that it is on "meta", and holds an ordinary tensor on which every operation is done. It is as strict as a GPU is, and stricter:
an operation on tensors of both devices raises WrongDeviceError, and so does `.numpy()`. Only numbers (tensors without axes) and
copies (`.to`, `.cpu`, `copy_`) pass between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = "meta"
COPIES = {"aten::_to_copy", "aten::copy_"}


class WrongDeviceError(RuntimeError):
    """An operation had tensors of two devices."""


class Elsewhere(Tensor):
    """A tensor that says it is on another device."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        size = {"strides": here.stride(), "storage_offset": here.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, here.shape, dtype=here.dtype, device=DEVICE, **size)  # pyright: ignore

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.here})"

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    @property
    def is_meta(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return False

    def tolist(self) -> list[Any]:
        return self.here.tolist()

    @property
    def data(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, Elsewhere)
        Tensor.data.__set__(self, value)  # pyright: ignore[reportAttributeAccessIssue]  its type and shape
        self.here = value.here

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """What makes tensors on the device, and notices those that were made beside it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation, on the tensors that are held, and its results on the device that they belong to."""
    flat, spec = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    away = [x for x in tensors if isinstance(x, Elsewhere)]
    name = func._schema.name
    if away and name not in COPIES:
        for x in tensors:
            if not isinstance(x, Elsewhere) and x.ndim:
                raise WrongDeviceError(f"{name}: a tensor {tuple(x.shape)} of the CPU among those of the device")
    asked = kwargs.get("device")
    there = bool(away) if asked is None else torch.device(asked).type == DEVICE
    if name == "aten::copy_":
        there = isinstance(args[0], Elsewhere)
    held = [x.here if isinstance(x, Elsewhere) else x for x in flat]
    given, options = tree_unflatten(held, spec)
    if asked is not None:
        options["device"] = torch.device("cpu")
    result = func(*given, **options)
    known = {id(x.here): x for x in away}  # an operation in place returns what it was given

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x) if there else x

    return tree_map(wrapped, result)


@contextmanager
def a_second_device() -> Iterator[str]:
    """The name of the device, which is there inside this context. Its random generators are the CPU's."""

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Generator:
            return super().__new__(cls, "cpu" if torch.device(device).type == DEVICE else device)

    with SecondDevice(), patch.object(torch, "Generator", Generator):
        yield DEVICE
