"""Write src/policygrad/__init__.pyi: the public names, and every recipe as a function with all of its keywords.

    python benchmarks/stub.py

Editors and type checkers read it; at run time `policygrad/__init__.py` finds the same names on first use. A test says when it
is out of date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import Any, get_args, get_origin

import policygrad as pg
from policygrad.algorithms.config import aliases, options, parameters, pieces
from policygrad.algorithms.recipes import RECIPES
from policygrad.training import agent, functions

OUT = Path(agent.__file__).parent.parent / "__init__.pyi"
HEAD = '"""Written by benchmarks/stub.py from the recipes: change those, and run it again."""'


def imports() -> dict[str, set[str]]:
    """Modules and names that signatures need: those of the Agent's annotations, as its own file imports them, and two more."""
    every = (p for recipe in RECIPES.values() for p in functions.signature_of(recipe).parameters.values())
    annotations = " ".join(str(p.annotation) for p in every)
    words, found = set(re.findall(r"\w+", annotations)), {"collections.abc": {"Sequence"}, "typing": {"Literal"}}
    found["policygrad.models.schedules"] = {"Linear"}
    for node in ast.parse(Path(agent.__file__).read_text("utf8")).body:
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            names = {alias.name for alias in node.names if alias.name in words and alias.name not in pg.__all__}
            found |= {str(node.module): names} if names else {}
    return found


def type_text(kind: Any) -> str:
    """A type as a stub writes it; where a tuple is wanted, any sequence will do."""
    if isinstance(kind, str):
        return kind
    if get_origin(kind) is tuple:
        return f"Sequence[{get_args(kind)[0].__name__}]"
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    return text.replace("typing.", "").replace("'", '"')


def scheduled(recipe: Any, name: str, text: str) -> str:
    """The type of a hyperparameter, with what stands for a schedule where there may be one."""
    option = options(recipe).get(name)
    return text.replace("float", "float | str | Linear", 1) if option is not None and option.schedule else text


def parameter(p: Parameter, recipe: Any) -> str:
    """One parameter."""
    default = "" if p.default is Parameter.empty else f" = {p.default!r}".replace("'", '"')
    return f"    {p.name}: {scheduled(recipe, p.name, type_text(p.annotation))}{default},"


def function(name: str) -> Iterator[str]:
    """The lines of a recipe's function; its foreign words stand after our own."""
    recipe = RECIPES[name]
    env, *keywords = functions.signature_of(recipe).parameters.values()
    foreign = {w: scheduled(recipe, own, type_text(parameters(recipe)[own][0])) for w, own in aliases(recipe).items()}
    foreign |= {"normalize_advantage": "bool"} if "normalize_advantage" in foreign else {}
    foreign |= {"batch_size": "int"} if pieces(recipe) else {}
    yield from ("", f"def {name}(", parameter(env, recipe), "    *,", *(parameter(p, recipe) for p in keywords))
    yield from (f"    {word}: {kind} = ...," for word, kind in foreign.items())
    about, *more = functions.help_of(recipe).splitlines()
    yield from (") -> Agent:", f'    """{about}', *(f"    {line}".rstrip() for line in more), '    """')


def stub() -> str:
    """The whole file."""
    needed, homes = imports(), {name: pg._HOME[name] for name in sorted(set(pg.__all__) & set(pg._HOME))}  # pyright: ignore
    lines = [HEAD, ""]
    lines += [
        f"from {m} import {', '.join(sorted(needed[m]))}" for m in sorted(needed) if not m.startswith("policygrad")
    ]
    lines += ["", "from policygrad import lab as lab", "from policygrad.algorithms import zoo as zoo"]
    for module in sorted({*homes.values(), *(m for m in needed if m.startswith("policygrad"))}):
        lines += [f"from {module} import {', '.join(sorted(needed[module]))}"] if module in needed else []
        lines += [f"from {module} import {name} as {name}" for name, home in homes.items() if home == module]
    lines += ["", "__version__: str", "__all__: list[str]"]
    return "\n".join([*lines, *(line for name in sorted(RECIPES) for line in function(name))]) + "\n"


if __name__ == "__main__":
    OUT.write_text(stub(), "utf8")
    print(OUT)
