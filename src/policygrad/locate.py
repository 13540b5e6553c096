"""Objects by name, `module:name` or `file.py:name`, as users type them. No file may name one, because an import runs code."""

from __future__ import annotations

import difflib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from policygrad.errors import UserError


class LocateError(UserError, ValueError):
    """A name was not found. The message says what was searched, where, and which names exist."""


def nearest(word: str, known: Iterable[str], foreign: Mapping[str, str] | None = None) -> str | None:
    """The known name that is most like a word, or None: the same in other letters, what another library's word means, the
    only one that begins or ends like it, or one that is spelt nearly so. foreign: those words, in lower case.
    """
    names = {name.lower().replace("_", "-"): name for name in known}
    key = word.lower().replace("_", "-")
    if key in names:
        return names[key]
    meant = next((ours for theirs, ours in (foreign or {}).items() if theirs.replace("_", "-") == key), None)
    if meant in names.values():
        return meant
    alike = [name for name in names if key and (name.startswith(key) or name.endswith(key))]
    close = alike if len(alike) == 1 else difflib.get_close_matches(key, names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def locate(text: str) -> Any:
    """The object that `module:name` or `path/file.py:name` names; `name` may have dots.

    Modules in the current directory are found, too, after everything that is installed. Raises LocateError.
    """
    place, _, name = text.rpartition(":")
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


def _from_file(path: Path) -> Any:
    """The module of a file, once per process."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(os.path.expanduser(path)).resolve()
    key = f"policygrad_file_{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # the same in every process
    if key in sys.modules:
        return sys.modules[key]
    if not path.is_file():
        raise LocateError(f"there is no file {path}")
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
