"""Forms: the types, shapes and ranges that values from a file must have. Every other value is refused with its name.

A form is a function (name, value) that returns nothing, or raises FormError. Forms are built from forms:

    table({"t": whole(), "m": array((3,), "float32")})

Everything with a state has `state_form()`, the form of what its `state_dict` returns; where a part has none, its state is
`anything`: plain values and arrays, which the part checks itself. Arrays may be known by type and shape alone, before they
are read (`is_meta`): then only these are looked at. Nothing heavy is imported: arrays are looked at through their methods.
"""

from __future__ import annotations

import math
import reprlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from policygrad.errors import FileError

Form = Callable[[str, Any], None]

LARGEST = 1e18  # of the numbers in arrays: their squares are finite in 32 bits
MANY = 2**53  # of steps and other counts: what a float still counts one by one
RECENT = 100  # episodes whose returns and lengths an experience source keeps
MAX_DEPTH = 32  # of tables in tables


class FormError(FileError, ValueError):
    """A value does not have the required form."""


def refuse(name: str, value: Any, expected: str) -> NoReturn:
    """Raise FormError."""
    shown = f"an array {_type(value)} {tuple(value.shape)}" if _is_array(value) else _short.repr(value)
    raise FormError(f"{name} must be {expected}, got {shown}")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def whole(low: int = 0, high: int = MANY) -> Form:
    """A whole number in [low, high]."""

    def check(name: str, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            refuse(name, value, f"a whole number in [{low}, {high}]")

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Form:
    """A finite number in [low, high]."""

    def check(name: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            refuse(name, value, f"a finite number in [{low:g}, {high:g}]")

    return check


def text(most: int = 200, choices: Sequence[str] = (), lines: bool = False) -> Form:
    """A printable text of at most `most` characters, or one of the choices. lines: whether it may have several."""

    def check(name: str, value: Any) -> None:
        if (
            not isinstance(value, str)
            or len(value) > most
            or not (value.replace("\n", "") if lines else value).isprintable()
        ):
            refuse(name, value, f"a printable text of at most {most:,} characters")
        if choices and value not in choices:
            refuse(name, value, f"one of {', '.join(choices)}")

    return check


def flag(name: str, value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        refuse(name, value, "true or false")


def setting(name: str, value: Any) -> None:
    """A hyperparameter: a plain value, or a list of them."""
    if isinstance(value, list):
        each(setting, 1000)(name, value)
    elif not isinstance(value, bool):
        (text(1000) if isinstance(value, str) else maybe(number()))(name, value)


def maybe(form: Form) -> Form:
    """None, or a value of this form."""
    return lambda name, value: None if value is None else form(name, value)


def each(form: Form, most: int, least: int = 0) -> Form:
    """A list of values of one form."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            refuse(
                name,
                value,
                f"a list of {least:,} to {most:,} values" if least != most else f"a list of {most:,} values",
            )
        for i, x in enumerate(value):
            form(f"{name}/{i}", x)

    return check


def table(fields: Mapping[str, Form], optional: Mapping[str, Form] = {}, others: Form | None = None) -> Form:
    """A dict with all fields, any of the optional ones, and other keys only if a form for them is given."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict):
            refuse(name, value, "a table")
        missing = [key for key in fields if key not in value]
        if missing:
            raise FormError(f"{name} has no {missing[0]}")
        for key, x in value.items():
            form = fields.get(key) or optional.get(key) or others
            if form is None:
                raise FormError(f"{name} has {_short.repr(key)}, which is not known")
            form(f"{name}/{str(key)[:60]}", x)

    return check


def array(shape: Sequence[int | None], dtype: str, low: float | None = -LARGEST, high: float | None = LARGEST) -> Form:
    """An array of a type and shape (None: any length), its numbers in [low, high] and not NaN; low = None: any number.

    dtype: a type's name, or several: "float32|float64".
    """

    def check(name: str, value: Any) -> None:
        fits = _is_array(value) and _type(value) in dtype.split("|") and len(value.shape) == len(shape)
        if not fits or any(n is not None and n != m for n, m in zip(shape, value.shape, strict=True)):
            refuse(name, value, f"an array {dtype} ({', '.join('any' if n is None else str(n) for n in shape)})")
        if low is None or high is None or value.is_meta or not value.numel():
            return
        least, most = (float(x) for x in value.aminmax())
        if not (least >= low and most <= high):  # so that NaN fails too
            raise FormError(f"{name} must have finite numbers in [{low:g}, {high:g}], it has {least:g} to {most:g}")

    return check


def anything(name: str, value: Any, depth: int = 0) -> None:
    """Any plain values and arrays; the object that reads them checks them."""
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise FormError(f"{name} is nested too deeply")
        for x in value.values() if isinstance(value, dict) else value:
            anything(name, x, depth + 1)


def form_of(part: Any, *given: Any) -> Form:
    """The form of a part's state, by its `state_form`. Without one, or where a subclass keeps a state of its own and says no
    form of it, the state is the part's own business.
    """
    says, keeps = (_first(type(part), names) for names in (("state_form", "_forms"), ("state_dict", "get_extra_state")))
    return part.state_form(*given) if hasattr(part, "state_form") and says <= keeps else anything


def _first(kind: type, names: tuple[str, ...]) -> int:
    """How far up the bases the first class is that defines one of the names."""
    found = (i for i, base in enumerate(kind.__mro__) if any(name in vars(base) for name in names))
    return next(found, len(kind.__mro__))


def like(state: Mapping[str, Any]) -> dict[str, Form]:
    """Forms of arrays of the same types and shapes, for a table; what is no array is its owner's business."""
    return {k: array(tuple(x.shape), _type(x), None, None) if _is_array(x) else anything for k, x in state.items()}


PCG64 = table(  # the state of NumPy's default generator
    {
        "bit_generator": text(choices=("PCG64",)),
        "state": table({"state": whole(0, 2**128 - 1), "inc": whole(0, 2**128 - 1)}),
        "has_uint32": whole(0, 1),
        "uinteger": whole(0, 2**32 - 1),
    }
)


def source_form(more: Mapping[str, Form] = {}) -> Form:
    """Of the state of an experience source: its generator, its counters, the last episodes, and what else it may keep."""
    counters = {"steps_done": whole(), "episodes_done": whole()}
    recent = {"returns": each(number(), RECENT), "lengths": each(whole(), RECENT)}
    form = table({"rng": PCG64, **counters, **recent}, optional={"begun": flag, **more})

    def check(name: str, value: Any) -> None:
        form(name, value)
        if not len(value["returns"]) == len(value["lengths"]) <= value["episodes_done"] <= value["steps_done"]:
            raise FormError(f"{name}: its numbers of steps, episodes, returns and lengths contradict each other")

    return check


def collector_form(num_envs: int) -> Form:
    """Of the state of a source that steps environments. Files of version 0.4 do not say where the environments were."""
    origin = {"seed": maybe(whole(0, 2**32 - 1)), "state": maybe(PCG64), "actions": finite}
    evidence = {"over": flag, "shown": text(64), "generator": maybe(text(64))}
    played = table(origin | evidence, optional={"asked": finite})
    counted = {"time": array((num_envs,), "int64", 0, MANY), "ret": array((num_envs,), "float64")}
    where = counted | {"resetting": array((num_envs,), "bool", None, None), "obs": finite, "state": finite}
    seeds, envs = each(whole(0, 2**32 - 1), num_envs), maybe(each(maybe(played), num_envs, num_envs))
    here, known = where | {"env_seeds": seeds, "envs": envs}, source_form()
    exact = source_form(here)

    def check(name: str, value: Any) -> None:
        old = isinstance(value, dict) and here.keys().isdisjoint(value)
        (known if old else exact)(name, value)
        if not old and (missing := [key for key in here if key not in value]):
            raise FormError(f"{name} has no {missing[0]}")

    return check


def finite(name: str, value: Any) -> None:
    """None, an array of any shape without NaN, or a table of such values."""
    if isinstance(value, dict):
        for key, x in value.items():
            finite(f"{name}/{str(key)[:60]}", x)
    elif value is not None:
        if not _is_array(value):
            refuse(name, value, "an array")
        array((None,) * len(value.shape), _type(value))(name, value)


def mersenne(size: int) -> Form:
    """The state of a generator of torch, of so many bytes: one that reads its own memory only."""
    form = array((size,), "uint8", None, None)

    def check(name: str, value: Any) -> None:
        form(name, value)
        if value.is_meta:
            return
        data = value.numpy().tobytes()
        # numbers left of the block, and the next one's place
        left, seeded, following = struct.unpack_from("<iiQ", data, 8)
        begun = (left, following) == (1, 0) or (1 <= left <= 624 and left + following == 625)
        if seeded != 1 or not begun:
            raise FormError(f"{name} is not the state of a generator")

    return check


def _is_array(value: Any) -> bool:
    return hasattr(value, "is_meta")


def _type(value: Any) -> str:
    return str(value.dtype).rpartition(".")[2]
