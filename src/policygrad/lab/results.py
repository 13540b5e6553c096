"""The common base of results: a table to read, and JSON."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from policygrad.html import text_html

T = TypeVar("T")


class Result:
    """A frozen dataclass of numbers. `print` shows `table()`; `to_json()` has fields and properties, but no tensors."""

    def table(self) -> str:
        """The numbers as a table to read."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return text_html(str(self))

    def to_json(self) -> dict[str, Any]:
        """All fields and properties, for json.dumps. Tensors are left out, NaN and ±∞ are None."""
        return _json(self)


def _json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        properties = [name for name, x in vars(type(value)).items() if isinstance(x, property)]
        named = {name: getattr(value, name) for name in [*(f.name for f in fields(value)), *properties]}
        return {name: _json(x) for name, x in named.items() if not isinstance(x, Tensor)}
    if isinstance(value, dict):
        return {key: _json(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_json(x) for x in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column is aligned to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def find_by_name(kind: str, name: str, table: Mapping[str, T], known: Sequence[str] | None = None) -> T:
    """table[name]. Raises ValueError with the nearest name, whatever its capitals, or with all [the keys]."""
    if name not in table:
        lower = {key.lower(): key for key in table}
        near = difflib.get_close_matches(name.lower(), lower, n=1)
        hint = f"did you mean {lower[near[0]]!r}?" if near else f"available: {', '.join(known or table)}"
        raise ValueError(f"there is no {kind} {name!r}: {hint}")
    return table[name]


def least_seconds(call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The least time of several calls. clock: `time.process_time` leaves out the time of other processes."""

    def once() -> float:
        started = clock()
        call()
        return clock() - started

    return min(once() for _ in range(repeats))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of log y over log x, by least squares: the power p of y ∝ xᵖ. Points with y = 0 are left out.

    Raises ValueError where fewer than two are left.
    """
    points = np.array([(a, b) for a, b in zip(x, y, strict=True) if b > 0.0])
    if len(points) < 2:
        raise ValueError(f"a slope needs two points with y > 0, got {len(points)}")
    return float(np.polyfit(*np.log(points).T, deg=1)[0])
