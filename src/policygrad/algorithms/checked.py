"""One value of a configuration, checked: its type, its bounds, or a schedule in its place. Nothing heavy is imported."""

from __future__ import annotations

import difflib
import math
from numbers import Real
from typing import Any, Literal, get_args, get_origin

from policygrad.algorithms.foreign import CHOICES
from policygrad.algorithms.keywords import MOST, TINY, Option
from policygrad.errors import UserError, brief
from policygrad.models.schedules import Linear, read_schedule


class ConfigError(UserError, ValueError):
    """An invalid configuration. The message says what is wrong, what is allowed and what to do, in at most three lines."""


def checked(name: str, kind: Any, value: Any, option: Option) -> Any:
    """The value as its type, inside the option's bounds. Raises ConfigError."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        if not isinstance(value, str | int | None) or value not in args:
            raise ConfigError(
                f"{name} = {_shown(value)} is not one of: {', '.join(map(str, args))}{_nearest(value, args)}"
            )
        return value
    if type(None) in args:
        return None if value is None else checked(name, next(a for a in args if a is not type(None)), value, option)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(checked(name, args[0], item, option) for item in items)
    if kind in (str, bool):
        if not isinstance(value, kind):
            raise ConfigError(f"{name} = {value!r} must be {'text' if kind is str else 'true or false'}")
        return value
    if option.schedule and kind is float and (schedule := _as_schedule(name, value)) is not None:
        checked(name, float, schedule.start, option)
        if not (schedule.end == 0.0 and schedule.share == 1.0 and option.low == TINY):  # progress stays below 1
            checked(name, float, schedule.end, option)
        return str(schedule)
    number = _as_float(value)
    if number is None or (kind is int and math.isfinite(number) and not number.is_integer()):
        raise ConfigError(f"{name} = {value!r} must be {'a whole number' if kind is int else 'a number'}")
    low, high = option.low, option.high
    most = MOST[kind] if high is None else high
    if not (-MOST[kind] if low is None else low) <= number <= most:  # as NaN is not
        bounds = f"at most {most:g}" if high is None and number > most else _bounds(low, high)
        raise ConfigError(f"{name} = {value if abs(number) < 1e16 else number} must be {bounds}")
    return int(number) if kind is int else number


def _shown(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else brief(value)


def _nearest(value: Any, choices: tuple[Any, ...]) -> str:
    """The choice that was meant, as a question: a part's class means its name, and capitals, - and _ are forgiven."""
    word = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
    plain = {_plain(str(choice)): choice for choice in choices}
    other = CHOICES.get(_plain(word))
    near: list[Any] = [_plain(word)] if _plain(word) in plain else [other] if other in choices else []
    near = near or difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.7)
    return f". Did you mean {plain.get(near[0], near[0])!r}?" if near else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")


def _as_schedule(name: str, value: Any) -> Linear | None:
    """The schedule that is given in place of a number; None where a number is. Raises ConfigError for what is neither."""
    try:
        schedule = read_schedule(value)
    except ValueError as error:
        raise ConfigError(f"{name} = {value!r}: {error}") from error
    if schedule is not None:
        return schedule
    if isinstance(value, str):
        raise ConfigError(
            f"{name} = {value!r} must be a number, or a schedule such as linear(1e-3) or linear(1e-3, 1e-4)"
        )
    if callable(value):
        raise ConfigError(
            f"{name} is a function, and files hold no code: use policygrad.linear(start, end), of the progress done; "
            "schedules of Stable-Baselines3 are of the progress that remains"
        )
    return None


def _as_float(value: Any) -> float | None:
    """A number as a float, ∞ if it is too large; None for other values."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _bounds(low: float | None, high: float | None) -> str:
    if high is None:
        return "finite" if low is None else "above 0" if low == TINY else f"at least {low}"
    return f"above 0 and at most {high}" if low == TINY else f"in [{low}, {high}]"
