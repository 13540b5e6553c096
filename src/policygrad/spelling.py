"""The name that a mistyped one means, for errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping


def nearest(word: str, known: Iterable[str], foreign: Mapping[str, str] | None = None) -> str | None:
    """The known name that is most like a word, or None: the same in other letters, what another library's word means, the
    only one that begins or ends like it, or one that is spelt nearly so. foreign: those words. Capitals, - and _ are
    forgiven.
    """
    names = {_plain(name): name for name in known}
    key = _plain(word)
    if key in names:
        return names[key]
    meant = next((ours for theirs, ours in (foreign or {}).items() if _plain(theirs) == key), None)
    if meant in names.values():
        return meant
    alike = [name for name in names if key and (name.startswith(key) or name.endswith(key))]
    close = alike if len(alike) == 1 else difflib.get_close_matches(key, names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def _plain(word: str) -> str:
    return re.sub(r"[-_ ]", "", word.lower())
