"""Objects by name, `module:name` or `file.py:name`, as users type them. No file may name one, because an import runs code."""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from policygrad.errors import UserError
from policygrad.spelling import nearest


class LocateError(UserError, ValueError):
    """A name was not found. The message says what was searched, where, and which names exist."""


def locate(text: str) -> Any:
    """The object that `module:name` or `path/file.py:name` names; `name` may have dots.

    Modules in the current directory are found, too, after everything that is installed. Raises LocateError.
    """
    place, _, name = text.rpartition(":")
    if place.endswith(".py") and not name:
        raise LocateError(f"the name is missing. {choice(place, list(callables_in(place)))}")
    if not place or not name:
        raise LocateError(f"expected module:name or file.py:name, got {text!r}")
    found: Any = module_of(place)
    for part in name.split("."):
        if not hasattr(found, part):
            there = ", ".join(
                n for n, x in getattr(found, "__dict__", {}).items() if callable(x) and not n.startswith("_")
            )
            raise LocateError(f"{place} has no {name!r}. It has: {there or 'nothing that can be called'}.")
        found = getattr(found, part)
    return found


def callables_in(file: str) -> dict[str, Any]:
    """What is defined in a file and can be called, by name. Its code is run. Raises LocateError."""
    found = module_of(file)
    own = {n: x for n, x in vars(found).items() if callable(x) and getattr(x, "__module__", None) == found.__name__}
    return {n: x for n, x in own.items() if not n.startswith("_")}


def choice(file: str, names: Sequence[str]) -> str:
    """The sentence about the names in a file, one of which is to be given."""
    if not names:
        return f"{file} has nothing that can be called"
    return f"It has: {', '.join(names)}; give {file}:{names[0]}"


def module_of(place: str) -> Any:
    """The module of this name or file. Raises LocateError, also for any error in its code."""
    if not place.endswith(".py") and not MODULE.fullmatch(place):
        raise LocateError(f"{place!r} is not the name of a module: expected module:name or file.py:name")
    try:
        return _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    except LocateError:
        raise
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise LocateError(f"cannot import {place!r}: {kind}{error}") from error


MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def _from_name(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return import_module(name)


def _misspelt(path: Path) -> str:
    """The hint about a file that may be meant: one beside it, or the same with slashes for the backslashes of Windows."""
    slashed = Path(str(path).replace("\\", "/"))
    if slashed != path and slashed.is_file():
        return f": paths have / here, give {os.path.relpath(slashed)}"
    name = nearest(slashed.name.lstrip("."), (file.name for file in slashed.parent.glob("*.py")))
    return "" if name is None else f"; did you mean {os.path.relpath(slashed.with_name(name))}?"


def _from_file(path: Path) -> Any:
    """The module of a file, once per process."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(os.path.expanduser(path)).resolve()
    key = f"policygrad_file_{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # the same in every process
    if key in sys.modules:
        return sys.modules[key]
    if not path.is_file():
        raise LocateError(f"there is no file {path}{_misspelt(path)}")
    spec = spec_from_file_location(key, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]
        raise
    return module
