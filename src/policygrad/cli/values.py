"""Conversion of words on the command line to values of a hyperparameter's type."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from policygrad.errors import UserError
from policygrad.files import parse_json

SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}  # 20k, 2M: as plots write steps
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
PICTURES = (".png", ".pdf", ".svg")
MAX_SEED = 2**32 - 1
MAX_SEEDS = 1000  # in one command
MOST_EPISODES = 10_000_000  # to play, and of whatever else is counted on the command line


class UsageError(UserError, ValueError):
    """A mistake on the command line: what is wrong, what was given and what is allowed, in at most three lines."""


def flag_of(name: str) -> str:
    """The flag of a keyword."""
    return "--" + name.replace("_", "-")


def inner(kind: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was in it."""
    args = get_args(kind)
    return (next(a for a in args if a is not type(None)), True) if type(None) in args else (kind, False)


def parse_value(name: str, kind: Any, words: list[str]) -> Any:
    """The words after a flag as a value of its type; bounds are checked later, by `config.check`."""
    kind, optional = inner(kind)
    text = words[0] if words else ""
    if optional and text.lower() == "none":
        return None
    if get_origin(kind) is tuple:
        items = [item for word in words for item in word.strip("()[]").split(",") if item]
        return () if [i.lower() for i in items] == ["none"] else tuple(parse_value(name, int, [i]) for i in items)
    if get_origin(kind) is Literal:
        # a wrong choice is left to config.check, which says what there is
        return next((c for c in get_args(kind) if c == text.lower().replace("_", "-")), text)
    if kind is bool:
        return parse_bool(name, words)
    if kind is float and text.lower().startswith("lin"):  # a schedule; config.check says which there are
        return text
    return parse_number(name, kind, text, " or none" if optional else "")


def parse_bool(name: str, words: list[str]) -> bool:
    """True for a bare flag."""
    text = words[0].lower() if words else "true"
    if text not in TRUE + FALSE:
        raise UsageError(f"{flag_of(name)} = {words[0]!r} must be true or false; {flag_of(name)} alone is true.")
    return text in TRUE


def parse_number(name: str, kind: type, text: str, also: str = "") -> int | float:
    """A number; 1e6, 1_000_000, 20k and 1.5M are whole numbers."""
    times = SUFFIXES.get(text[-1:], 1.0) if kind is int else 1.0
    try:
        text.encode("ascii")  # Python reads the digits of every script
        number = round(float(text[:-1]) * times, 6) if times > 1 else float(text)
        whole = int(text) if kind is int and set(text) <= set("+-_0123456789") else None
    except ValueError:
        number, whole = math.nan, None
    if not math.isfinite(number) or (kind is int and number != math.floor(number)):
        what = "a whole number, such as 64, 1e6, 20k or 1_000_000" if kind is int else "a number, such as 0.5 or 3e-4"
        raise UsageError(f"{flag_of(name)} = {text!r} must be {what}{also}.")
    return kind(number) if whole is None else whole


def positive(name: str, text: str, least: int = 1, most: int = MOST_EPISODES) -> int:
    """A whole number from 1, or from `least`, up to `most`."""
    value = parse_number(name, int, text)
    if not least <= value <= most:
        raise UsageError(
            f"{flag_of(name)} = {text} must be {f'at least {least}' if value < least else f'at most {most:,}'}."
        )
    return int(value)


PAIR = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
PYTHON = {"True": True, "False": False, "None": None}  # which JSON spells in another way


def parse_pairs(name: str, words: Iterable[str]) -> dict[str, Any]:
    """Keywords with their values, `k=v …`. A value is read as JSON, as True, False or None, or otherwise as text."""
    found: dict[str, Any] = {}
    for word in words:
        pair = PAIR.fullmatch(word)
        if pair is None:
            raise UsageError(f"{flag_of(name)} expects keyword=value, such as is_slippery=false, got {word!r}.")
        key, text = pair.groups()
        if key in found:
            raise UsageError(f"{flag_of(name)} has {key} twice: give it once.")
        try:
            found[key] = PYTHON[text] if text in PYTHON else parse_json(text)
        except ValueError:
            found[key] = text
    return found


def picture(out: str | Path) -> Path:
    """The file of a plot. Raises UsageError for a suffix other than png, pdf or svg."""
    if Path(out).suffix not in PICTURES:
        raise UsageError(f"--out = {str(out)!r} must end in one of: {', '.join(PICTURES)}")
    return Path(out)


def parse_seed(text: str) -> int:
    """A seed."""
    seed = parse_number("seed", int, text)
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed = {text} must be in [0, {MAX_SEED}].")
    return int(seed)


def parse_seeds(words: list[str]) -> tuple[int, ...]:
    """Seeds: 0 1 2, 0,1,2 or 0-2; each once."""
    seeds: list[int] = []
    for item in (item for word in words for item in word.split(",")):
        span = re.fullmatch(r"(\d+)-(\d+)", item)
        first, last = (parse_seed(end) for end in (span.groups() if span else (item, item)))
        if not first <= last < first + MAX_SEEDS:
            raise UsageError(f"--seed = {item} must be a range such as 0-3, of at most {MAX_SEEDS:,} seeds.")
        seeds += range(first, last + 1)
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise UsageError(f"--seed names {twice} twice: give every seed once.")
    return tuple(seeds)
