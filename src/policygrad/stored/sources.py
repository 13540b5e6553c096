"""The Python files that a run's own environment, recipe and wrappers are in, `file.py:name`, from wherever they are named.

Nothing is imported here: whether the code of a file runs, its user decides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def split(text: str) -> tuple[str, str] | None:
    """File and name of `file.py:name`; None for anything else."""
    place, _, name = text.rpartition(":")
    return (place, name) if place.endswith(".py") and name else None


def files_of(names: Iterable[str]) -> dict[str, str]:
    """For config.json: the absolute path of every file that is named by a relative one."""
    places = [found[0] for name in names if (found := split(name)) is not None]
    return {place: absolute(place) for place in places if not os.path.isabs(os.path.expanduser(place))}


def at_hand(text: str, files: Any) -> str:
    """The name `file.py:name` as it can be given here: with the absolute path where the relative one means no such file.

    files: what config.json says, see `files_of`; whoever wrote it may have been somebody else, and it is looked at only.
    """
    found = split(text)
    known = files.get(found[0]) if found is not None and isinstance(files, Mapping) else None
    if found is None or not isinstance(known, str) or not known.endswith(".py"):
        return text
    return f"{known}:{found[1]}" if absolute(found[0]) != known and os.path.isfile(known) else text


def same_source(one: Any, other: Any) -> bool:
    """Whether two names can mean the same object: they are equal, or files of one name are given from different folders."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    first, second = split(one), split(other)
    if first is None or second is None:
        return one == other
    return first[1] == second[1] and Path(first[0]).name == Path(second[0]).name


def folder_name(name: str) -> str:
    """The name of a directory for what has this name; an environment of a file is called by stem and class: `envs-Tank`."""
    found = split(name)
    name = name if found is None else f"{Path(found[0]).stem}-{found[1]}"
    return re.sub(r"[^\w.+-]", "-", name)


def absolute(place: str) -> str:
    """The absolute path of a file, as it is here."""
    return str(Path(os.path.expanduser(place)).resolve())
