"""Spaces of hyperparameters, for sweeps and tuning: per name the values that are tried, a list or a range.

    lr=1e-4..1e-2:log      a range whose values are even in logarithms
    gamma=0.9..0.999       a range whose values are even; of a whole-number keyword, or with :int, whole numbers
    ent_coef=0,0.01,0.1    a list; of tuples hidden=(32,32),(64,64)

A setting is one value per name. Whole texts, `str(space[name])`, parse back to equal values.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np

from policygrad.algorithms.config import (
    Algo,
    ConfigError,
    aliases,
    check,
    options,
    parameters,
    pieces,
    unknown_keyword,
)
from policygrad.training.sides import as_value, as_word

NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
SPAN = re.compile(rf"({NUMBER})\.\.(?!\.)({NUMBER})((?::\w*)*)", re.ASCII)
TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)  # a quoted text, or one letter
PLAIN = re.compile(r"(?!.*\.\.)(?!.*:(?:log|int)$)[\w.+:/-]+", re.ASCII)  # texts that need no quotation marks
DIGITS = 12  # significant ones of a value inside a range: the last bits of a logarithm differ from machine to machine
EXPECTED = "expected NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=VALUE,VALUE, such as lr=1e-4..1e-2:log"


@dataclass(frozen=True)
class Choice:
    """A list of values of a hyperparameter, each as JSON has it: numbers, text, true or false, null, or lists of them.

    Raises ConfigError for an empty list, for a value twice, and for values that JSON cannot hold.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise ConfigError(f"a list of values is expected, such as [0, 0.01, 0.1], got {self.values!r}")
        object.__setattr__(self, "values", tuple(map(_frozen, self.values)))
        try:
            texts = [json.dumps(value, allow_nan=False) for value in self.values]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"values must be numbers, text, true, false or none, got {self.values!r}") from error
        twice = [text for text in texts if texts.count(text) > 1]
        if not texts or twice:
            raise ConfigError(
                f"a list has different values, one or more; got {f'{twice[0]} twice' if twice else 'none'}"
            )

    def grid(self, points: int = 0) -> list[Any]:
        """All values. points: means nothing here."""
        return list(self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        """One of the values, each equally likely."""
        return self.values[int(rng.integers(len(self.values)))]

    def __str__(self) -> str:
        return ",".join(map(_as_text, self.values))


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both included. log: even in logarithms. integer: whole numbers only.

    Raises ConfigError for low ≥ high, for log with low ≤ 0, and for ends that are not finite, or not whole with integer.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if isinstance(end, bool) or not isinstance(end, int | float | np.number) or not math.isfinite(end):
                raise ConfigError(f"the ends of a range must be finite numbers, got {self.low!r} and {self.high!r}")
        kind = int if self.integer else float
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ConfigError(f"the ends of a range of whole numbers must be whole, got {self.low:g}..{self.high:g}")
        object.__setattr__(self, "low", kind(self.low))
        object.__setattr__(self, "high", kind(self.high))
        if self.low >= self.high:
            raise ConfigError(f"a range goes from a lower to a higher number, got {self.low!r}..{self.high!r}")
        if self.log and self.low <= 0:
            raise ConfigError(f"a range in logarithms must lie above 0, got {self.low!r}..{self.high!r}:log")

    def grid(self, points: int) -> list[float]:
        """`points` values, both ends among them, even, or even in logarithms. Whole numbers are rounded, each kept once.

        Raises ConfigError for fewer than two points.
        """
        if points < 2:
            raise ConfigError(f"points = {points} must be at least 2: a range has two ends")
        evenly = np.geomspace if self.log else np.linspace
        inner = evenly(self.low, self.high, points)[1:-1]
        return list(dict.fromkeys([self.low, *map(self._inside, inner.tolist()), self.high]))

    def sample(self, rng: np.random.Generator) -> float:
        """A value drawn uniformly, or uniformly in logarithms.

        With both integer and log, a whole number n has the probability of (n − ½, n + ½) in logarithms.
        """
        if self.integer and not self.log:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        half = 0.5 if self.integer else 0.0
        low, high = self.low - half, self.high + half
        if not self.log:
            return self._inside(float(rng.uniform(low, high)))
        return self._inside(math.exp(rng.uniform(math.log(low), math.log(high))))

    def _inside(self, value: float) -> float:
        """The value without the noise of rounding, within the ends."""
        value = round(value) if self.integer else float(f"{value:.{DIGITS - 1}e}")
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low!r}..{self.high!r}" + ":log" * self.log + ":int" * self.integer


Space = Mapping[str, Choice | Range]


def parse_space(
    over: Sequence[str] | Mapping[str, Any], algo: Algo | None = None, fixed: Mapping[str, Any] | None = None
) -> dict[str, Choice | Range]:
    """The space that texts such as "lr=1e-4..1e-2:log" mean, or a mapping of names to Choice, Range, lists or such texts.

    algo: whose hyperparameters the names and values must be; the names become the algorithm's own, and the values get their
    types. fixed: hyperparameters that have one value, which therefore must not be in the space.
    Raises ConfigError, for unknown names with `train`'s message.
    """
    if isinstance(over, str):
        over = [over]
    pairs = list(over.items()) if isinstance(over, Mapping) else [_split(word) for word in over]
    if not pairs:
        raise ConfigError(f"there is nothing to search: {EXPECTED}")
    space: dict[str, Choice | Range] = {}
    for name, given in pairs:
        name = str(name).strip().replace("-", "_")
        dimension = _dimension(name, given)
        if algo is not None:
            name, dimension = _checked(algo, name, dimension)
        if name in space:
            raise ConfigError(f"{name} is given twice: give all of its values at once, such as {name}=0.1,0.2")
        space[name] = dimension
    own = {} if algo is None else aliases(algo)
    for name in fixed or {}:
        if own.get(name, name) in space:
            raise ConfigError(f"{name} has a fixed value and values to search: leave one of them out")
    return space


def space_texts(space: Space) -> list[str]:
    """The space as texts that `parse_space` reads: "lr=0.0001..0.01:log"."""
    return [f"{name}={dimension}" for name, dimension in space.items()]


def grid(space: Space, points: int) -> list[dict[str, Any]]:
    """All settings: every value of every list with `points` values of every range. The last name changes first."""
    values = [dimension.grid(points) for dimension in space.values()]
    return [dict(zip(space, setting, strict=True)) for setting in itertools.product(*values)]


def sample(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """One setting, every value drawn by itself."""
    return {name: dimension.sample(rng) for name, dimension in space.items()}


def _split(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=") if isinstance(word, str) else ("", "", "")
    if not equals or not name.strip() or not text.strip():
        raise ConfigError(f"cannot read {word!r}: {EXPECTED}")
    return name, text


def _dimension(name: str, given: Any) -> Choice | Range:
    """A list or range; its errors begin with the name."""
    if isinstance(given, Choice | Range):
        return given
    try:
        if not isinstance(given, str):
            return Choice(tuple(given) if isinstance(given, list | np.ndarray) else given)
        span = SPAN.fullmatch(given.strip())
        if span is None:
            return Choice(tuple(map(as_value, _listed(name, given))))
        words = [word for word in span[3].split(":") if word]
        if len(set(words) & {"log", "int"}) < len(words) or span[3].count(":") != len(words):
            raise ConfigError(f"{given.strip()} ends in :log, :int, both, or neither")
        low, high = (int(end) if end.isdigit() else float(end) for end in (span[1], span[2]))
        return Range(low, high, log="log" in words, integer="int" in words)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _listed(name: str, text: str) -> list[str]:
    """The values between commas, but for commas in brackets and quotation marks."""
    values, depth, closed = [""], 0, True
    for token in TOKEN.findall(text):
        depth += (token in "([{") - (token in ")]}")
        closed = closed and token not in "'\""
        if token == "," and depth == 0:
            values.append("")
        else:
            values[-1] += token
    values = [value.strip() for value in values]
    if not all(values) or depth or not closed:
        raise ConfigError(f"cannot read {text!r}: a value is empty, or a bracket or quotation mark is not closed")
    bare = [value for value in values if value[0] not in "'\"([{"]  # what is quoted or in brackets is a value
    if any(".." in value or value.endswith((":log", ":int")) for value in bare):
        raise ConfigError(f"cannot read {text!r}: {EXPECTED.replace('NAME', name)}")
    return values


def _checked(algo: Algo, name: str, dimension: Choice | Range) -> tuple[str, Choice | Range]:
    """The algorithm's own name, and the values as its types. Raises ConfigError."""
    kinds = {own: kind for own, (kind, _) in parameters(algo).items()}
    if name == "seed":
        raise ConfigError("seed is no hyperparameter: every setting is trained with the same seeds")
    name = aliases(algo).get(name, name)
    if name == "batch_size" and pieces(algo) is not None:
        kinds[name] = int
    if name not in kinds:
        raise ConfigError(unknown_keyword(algo, name))
    kind, option = kinds[name], options(algo).get(name)
    if isinstance(dimension, Choice):
        values = [as_word(kind, value) for value in dimension.values]
        return name, _dimension(name, [check(name, kind, value, option) for value in values])
    number = _number(kind)
    if number is None:
        raise ConfigError(f"{name} takes no range, because its values are no numbers: list them, {name}=VALUE,VALUE")
    low, high = (check(name, number, end, option) for end in (dimension.low, dimension.high))
    return name, Range(low, high, dimension.log, dimension.integer or number is int)


def _number(kind: Any) -> type | None:
    """The number, int or float, of a keyword that is such a number, or such a number or None; None for other kinds."""
    kinds = (kind,) if get_origin(kind) in (None, tuple) else get_args(kind)
    return next((k for k in kinds if k in (int, float)), None)


def _frozen(value: Any) -> Any:
    """Lists as tuples, which nobody changes."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _as_text(value: Any) -> str:
    """A value as `parse_space` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}"  # 1e+16 would be read as a whole number
    if isinstance(value, str) and PLAIN.fullmatch(value) and as_value(value) == value:
        return value
    return repr(value)
