"""The reference of the API: one page of Markdown per public name, from its signature and its docstring, which is Markdown."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import policygrad
from policygrad.algorithms.recipes import RECIPES as RECIPES_OF

ROOMS = {  # the page's section by the first part of a name's module
    "training": "Training and evaluating",
    "algorithms": "Algorithms",
    "gradient": "Estimators and baselines",
    "updates": "Update rules",
    "models": "Policies, critics and networks",
    "envs": "Environments",
    "replay": "Replay buffers",
    "data": "Data",
    "serving": "Serving",
    "reports": "Reports",
    "diagnosis": "The doctor",
    "interop": "Files of others",
    "stored": "Stored runs",
    "errors": "Errors",
}
RECIPES = "Recipes"
NAME = re.compile(r"(?<!\[)`((?:pg\.)?(\w+))`")
LONG = 100  # characters of a signature on one line


def public() -> dict[str, Any]:
    """Everything in policygrad.__all__ but its version."""
    return {name: getattr(policygrad, name) for name in policygrad.__all__ if name != "__version__"}


def pages() -> dict[str, str]:
    """The page of every public name, and index.md, which lists them by room."""
    names = public()
    rooms: dict[str, list[str]] = {}
    for name, thing in names.items():
        rooms.setdefault(room_of(name, thing), []).append(name)
    found = {f"{name}.md": page(name, thing, names) for name, thing in names.items()}
    order = [RECIPES, *ROOMS.values(), "Modules"]
    parts = ["# Reference\n\nEvery public name: `import policygrad as pg`, then `pg.NAME`.\n"]
    for room in sorted(rooms, key=order.index):
        rows = [
            f"| [`{name}`]({name}.md) | {first_sentence(names[name])} |" for name in sorted(rooms[room], key=str.lower)
        ]
        parts.append("\n".join([f"## {room}\n", "| name | what it is |", "|---|---|", *rows, ""]))
    listed = "\n".join(sorted(names, key=str.lower))
    parts.append(f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n")
    return found | {"index.md": "\n".join(parts)}


def room_of(name: str, thing: Any) -> str:
    """The section that a name belongs to."""
    if isinstance(thing, ModuleType):
        return "Modules"
    return RECIPES if name in RECIPES_OF else ROOMS[thing.__module__.split(".")[1]]


def first_sentence(thing: Any) -> str:
    """The first paragraph's first sentence, for a table."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", text)[0].replace("|", r"\|")


def page(name: str, thing: Any, names: dict[str, Any]) -> str:
    """The page of one name."""
    if isinstance(thing, ModuleType):
        return module_page(name, thing, names)
    parts = [f"# {name}\n", signature(f"pg.{name}", thing), prose(thing, names, name)]
    if inspect.isclass(thing):
        parts += members(thing, names, name)
    if name not in RECIPES_OF:
        parts.append(f"Defined in `{thing.__module__}`.\n")
    return "\n".join(parts)


def module_page(name: str, module: ModuleType, names: dict[str, Any]) -> str:
    """The page of a module: its docstring, and its public functions and classes."""
    parts = [f"# {name}\n", prose(module, names, name)]
    listed = getattr(module, "__all__", None) or [
        key for key, x in vars(module).items() if callable(x) and getattr(x, "__module__", "") == module.__name__
    ]
    for key in listed:
        thing = getattr(module, key)
        if not key.startswith("_") and callable(thing):
            parts += [f"## {key}\n", signature(f"pg.{name}.{key}", thing), prose(thing, names, key)]
    return "\n".join(parts)


def members(cls: type, names: dict[str, Any], name: str) -> list[str]:
    """The public methods and properties that a class has of its own or from the package's classes."""
    parts = []
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for key in sorted(dir(cls)):
        thing = inspect.getattr_static(cls, key)
        owner = next((c for c in cls.__mro__ if key in vars(c)), cls)
        if key.startswith("_") or key in fields or not owner.__module__.startswith("policygrad"):
            continue
        if isinstance(thing, property):
            parts += [f"## {key}\n", "A property.\n", prose(thing, names, name)]
        elif callable(thing) or isinstance(thing, classmethod | staticmethod):
            method = getattr(cls, key)
            parts += [f"## {key}\n", signature(f"{name}.{key}", method), prose(method, names, name)]
    return parts


def signature(shown: str, thing: Callable[..., Any]) -> str:
    """The call as a block of code; one parameter a line where it is long."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    arrow = (
        ""
        if inspect.isclass(thing) or found.return_annotation is found.empty
        else f" -> {name_of(found.return_annotation)}"
    )
    parts, star = [], False
    for one in found.parameters.values():
        if one.name == "self":
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        parts.append(parameter(one))
    text = f"{shown}({', '.join(parts)}){arrow}"
    if len(text) > LONG:
        text = "\n".join([f"{shown}(", *(f"    {part}," for part in parts), f"){arrow}"])
    return f"```python\n{text}\n```\n"


def parameter(one: inspect.Parameter) -> str:
    """A parameter as it stands in the source."""
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    kind = "" if one.annotation is one.empty else f": {name_of(one.annotation)}"
    if one.default is one.empty:
        return f"{stars}{one.name}{kind}"
    value = repr(str(one.default) if isinstance(one.default, Path) else one.default)
    if value.startswith("<"):  # a class, a function or an object without a text of its own
        value = getattr(one.default, "__name__", "...")
    return f"{stars}{one.name}{kind}" + (" = " if kind else "=") + value


def name_of(annotation: Any) -> str:
    """An annotation as text, without the modules that names come from."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("collections.abc.", "").replace("typing.", "")


def as_list(block: str, words: set[str]) -> str:
    """A paragraph `x: what it is. y, z: what they are.` about the parameters as a list, one a line; else as it is."""
    begins = [
        m for m in re.finditer(r"(?:^|(?<=[.;)]\s))(\w+(?:, \w+)*)(?= ?[(:])", block) if set(m[1].split(", ")) <= words
    ]
    if not begins or begins[0].start() > 0:
        return block
    block, raises, rest = block.partition(" Raises ") if " Raises " in block else block.partition("\nRaises ")
    ends = [m.start() for m in begins[1:]] + [len(block)]
    parts = [f"- `{m[1]}`{after(block[m.end() : end])}" for m, end in zip(begins, ends, strict=True)]
    return "\n".join([*parts, *(["", f"{raises.strip()} {rest}"] if raises else [])])


def after(text: str) -> str:
    """What follows a name, on one line: ": a number" or " (N,): numbers"."""
    return ("" if text.startswith(":") else " ") + " ".join(text.split())


def prose(thing: Any, names: dict[str, Any], here: str) -> str:
    """The docstring, with links where it names public things, and a list where it explains parameters."""
    text, blocks = inspect.getdoc(thing) or "", []
    fields = {key for key in (*dir(thing), *getattr(thing, "__annotations__", ())) if not key.startswith("_")}
    with contextlib.suppress(TypeError, ValueError):
        fields |= set(inspect.signature(thing).parameters)
    for whole in text.split("\n\n"):
        if whole.startswith("    "):
            table = as_list(re.sub(r"\n {5,}", " ", whole).replace("    ", "").replace("\n", ".\n"), fields)
            blocks.append(table.replace(".\n", "\n") if table.startswith("- `") else whole)
            continue
        block = as_list(whole, fields)
        escaped = re.sub(r"(?<![`\w])([*_])(?=\S)", r"\\\1", block) if "`" not in block else block
        blocks.append(NAME.sub(lambda m: f"[`{m[1]}`]({m[2]}.md)" if m[2] in names and m[2] != here else m[0], escaped))
    return "\n\n".join(blocks) + "\n"
