"""The house rules, read from the source: imports go down only, no heavy or unsafe modules, public names documented."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import policygrad
from policygrad import errors
from policygrad.algorithms.recipes import RECIPES

ROOT = Path(policygrad.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STDLIB = sys.stdlib_module_names

BELOW = {
    "data",
    "gradient",
    "models",
    "compiled",
    "updates",
    "envs",
    "algorithms",
    "presets",
    "interop",
    "stored",
    "replay",
    "reports",
    "diagnosis",
    "streams",
}
# room → the rooms of ours it may import; a room may always import itself
MAY_IMPORT = {
    "errors": set(),
    "data": set(),
    "streams": set(),
    "total": set(),
    "tree": set(),
    "replay": {"data"},
    "locate": set(),
    "files": set(),
    "forms": set(),
    "html": set(),
    "marks": set(),
    "spelling": set(),
    "gradient": {"data"},
    "pieces": set(),
    "compiled": set(),
    "models": {"data", "gradient", "compiled"},
    "updates": {"data", "gradient", "models", "replay", "compiled"},
    "envs": {"data", "gradient", "models", "compiled", "locate", "streams"},
    "algorithms": {"data", "gradient", "models", "updates", "envs", "compiled", "locate", "replay", "streams"},
    "interop": set(),
    "stored": {"data", "gradient", "models", "updates", "envs", "algorithms", "presets", "replay", "streams"},
    "reports": {"data", "gradient", "models", "updates", "envs", "algorithms", "presets", "stored"},
    "diagnosis": {"data", "gradient", "models", "updates", "envs", "algorithms", "presets", "stored", "reports"},
    "training": BELOW,
    "serving": {*BELOW, "training"},
    "pretrained": set(),
    "lab": {*BELOW, "training"},
    "presets": set(),
    "cli": {*BELOW, "training", "serving", "lab"},
}
# what everybody may import: errors, names that are meant, sums over a shared batch, trees of arrays and their pieces, how
# files are read and what is in them
ANYWHERE = {"errors", "total", "tree", "pieces", "files", "forms", "html", "marks", "spelling"}
# files of the lab that may import less than their room
AUDIT = ("audit", "bench", "cells", "page", "table", "optimal_baselines", "verdicts")
LAB = {
    f"lab/exact/{stem}.py": {"data", "gradient", "models", "lab"} for stem in ("policies", "tabular", "trajectories")
}
LAB |= {f"lab/auditing/{stem}.py": {"data", "gradient", "models", "updates", "lab"} for stem in AUDIT}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
SAFE_PARTS = {"algorithms/zoo.py": {"yaml.safe_load", "yaml.YAMLError"}}  # what a file may use of an unsafe module
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
# files are opened in files.py alone; here are those that read what is the package's own, or no file
OPENING = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "safe_open",
    "load",
    "loads",
    "savez",
    "save_file",
}
OPENS = {
    "files.py": OPENING,
    "algorithms/config.py": {"read_text", "loads"},  # the package's presets; a user's are read by files.py
    "cli/__init__.py": {"open"},  # /dev/null
    "cli/completion.py": {"read_text"},  # the package's
    "envs/block.py": {"loads"},  # of its own processes
    "interop/sb3.py": {"load", "savez"},  # of bytes in memory
    "lab/claims/recorded.py": {"read_text", "loads"},  # the package's
    "serving/export.py": {"load", "read_text", "savez"},  # of bytes in memory; and the package's own
    "stored/pretrained.py": {"read_text", "loads"},  # the package's
    "stored/storage.py": {"load", "loads"},  # of the other processes of a run
    "serving/standalone.py": {"load", "loads"},  # of its copy's own file, elsewhere
    "training/progress.py": {"open"},  # /dev/null
    "training/seeds.py": {"loads"},  # of its own processes
}
OWN_NAMES = {"load", "read_text", "read_bytes"}  # functions of ours
IMPORTING = {"import_module", "spec_from_file_location", "locate", "exec_module", "run_path", "run_module"}
READING = {
    "files",
    "forms",
    "interop",
    "stored",
    "reports",
    "training",
    "serving",
}  # the rooms that see what is in files
HEAVY = {"torch", "numpy", "gymnasium", "scipy", "matplotlib", "safetensors", "rich"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, path: Path) -> Iterator[str]:
    """Every module imported anywhere in the file, absolute; `from a import b` gives a and a.b, for b may be a module."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def faults(check: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """What a check finds wrong, by file: one test for all files, since a test of each takes longer than its check."""
    return {path.relative_to(ROOT).as_posix(): wrong for path in FILES if (wrong := check(path))}


def ours(name: str) -> str | None:
    """policygrad.room.… → room."""
    parts = name.split(".")
    return parts[1] if parts[0] == "policygrad" and len(parts) > 1 else None


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def broken_rules(path: Path, tree: ast.Module) -> list[str]:
    """What the file imports or calls against the rules."""
    room, stem, wrong = room_of(path), path.stem, []
    names = set(imports(tree, path))
    rooms = {r for r in map(ours, names) if r is not None}
    top = {name.split(".")[0] for name in names}
    if room in MAY_IMPORT:
        allowed = (LAB.get(path.relative_to(ROOT).as_posix()) or MAY_IMPORT[room] | {room}) | ANYWHERE
        wrong += [f"{room} imports {r}" for r in sorted((rooms & set(MAY_IMPORT)) - allowed)]
    if room != "cli" and "cli" in rooms and stem != "__main__":
        wrong.append("only the command line imports cli")
    if room == "gradient":
        wrong += [f"gradient imports {t}" for t in sorted(top - STDLIB - {"torch", "policygrad"})]
        wrong += [f"gradient imports {t}" for t in sorted(top & {"random", "os", "io", "pathlib"})]
    if room == "errors" and top:
        wrong += [f"errors imports {t}" for t in sorted(top - {"__future__"})]
    if room == "updates":
        hidden = ("policygrad.gradient.estimators", "policygrad.gradient.returns", "policygrad.envs")
        wrong += [f"updates cannot see time: {n}" for n in sorted(names) if n.startswith(hidden)]
    if "matplotlib" in top and not stem.endswith("plots"):
        wrong.append("only plots import matplotlib")
    where, used = (
        path.relative_to(ROOT).as_posix(),
        {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)},
    )
    safe = SAFE_PARTS.get(where, set())
    partly = {name.split(".")[0] for name in safe}
    wrong += [f"unsafe module {t}" for t in sorted(top & UNSAFE_MODULES - partly)]
    wrong += [f"unsafe {name}" for name in sorted({*used, *names} - safe) if name.partition(".")[0] in partly - {name}]
    wrong += opened_or_imported(path, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            wrong.append(f"line {node.lineno}: {node.func.id}()")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save"):
            wrong.append(f"line {node.lineno}: {ast.unparse(node.func)} is pickle")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            wrong.append(f"line {node.value.lineno}: allow_pickle")
    return wrong


def opened_or_imported(path: Path, tree: ast.Module) -> list[str]:
    """Files that are opened elsewhere than in files.py, and modules that are imported by names from anywhere."""
    wrong, name = [], path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.rpartition(".")[2]
        if last in OPENING - OPENS.get(name, set()) and called not in OWN_NAMES:
            wrong.append(f"line {node.lineno}: {called}() is for files.py")
        if last in IMPORTING and room_of(path) in READING:
            wrong.append(f"line {node.lineno}: {called}() imports by a name")
    return wrong


def file_imports(path: Path, tree: ast.Module) -> set[str]:
    """The modules of ours that the file imports when it runs, at the top or inside functions: not for types alone."""
    types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")]
    for node in types:
        node.body = []
    return {name for name in imports(tree, path) if ours(name) is not None} - {module_name(path)}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The files that are on a circle of imports: what is left when files that import nothing (more) are taken away."""
    graph = {name: imported & set(graph) for name, imported in graph.items()}
    while free := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - free for name, imported in graph.items() if name not in free}
    while unused := set(graph) - {name for imported in graph.values() for name in imported}:
        graph = {name: imported for name, imported in graph.items() if name not in unused}
    return sorted(graph)


def test_no_files_import_each_other_in_a_circle():
    assert circles({module_name(path): file_imports(path, parsed(path)) for path in FILES}) == []


def test_a_circle_is_noticed():
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}) == ["a", "b", "c"]
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import policygrad.a\ndef f():\n    import policygrad.b"
    assert file_imports(ROOT / "x.py", ast.parse(lazy)) == {"policygrad.b"}


def module_level_imports(tree: ast.Module, path: Path) -> set[str]:
    """Top-level packages that importing the file imports: not inside functions, not under TYPE_CHECKING."""
    body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING"))]
    outside = [n for n in body if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return {name.split(".")[0] for name in imports(ast.Module(outside, []), path)}


def test_every_file_keeps_the_house_rules():
    assert faults(lambda path: broken_rules(path, parsed(path))) == {}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("gradient/x.py", "import numpy"),
        ("gradient/x.py", "from policygrad.models import policy"),
        ("gradient/x.py", "from ..models import policy"),
        ("gradient/x.py", "import random"),
        ("gradient/x.py", "def f():\n    import gymnasium"),
        ("updates/x.py", "from policygrad.gradient.estimators import GAE"),
        ("updates/x.py", "from policygrad.gradient import returns"),
        ("updates/x.py", "import policygrad.envs.make"),
        ("models/x.py", "from policygrad.updates import vanilla"),
        ("envs/x.py", "from policygrad.algorithms.learner import Learner"),
        ("lab/exact/tabular.py", "from policygrad.updates import VanillaGradient"),
        ("lab/auditing/audit.py", "from policygrad.algorithms import recipes"),
        ("lab/auditing/table.py", "from policygrad.training.agent import Agent"),
        ("lab/steps/rules.py", "from matplotlib import pyplot"),
        ("lab/claims/x.py", "from policygrad import cli"),
        ("data.py", "from policygrad.gradient import returns"),
        ("errors.py", "import math"),
        ("errors.py", "from policygrad.data import Rollout"),
        ("training/x.py", "import matplotlib.pyplot as plt"),
        ("training/plots_of_runs.py", "from matplotlib.figure import Figure"),
        ("training/x.py", "from pickle import loads"),
        ("algorithms/zoo.py", "import yaml\nyaml.load('x')"),
        ("algorithms/zoo.py", "from yaml import unsafe_load"),
        ("training/x.py", "import torch\ntorch.load('x')"),
        ("training/x.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        ("stored/x.py", "open('x')"),
        ("stored/x.py", "from pathlib import Path\nPath('x').read_text()"),
        ("stored/x.py", "import json\njson.loads('x')"),
        ("stored/x.py", "from safetensors import safe_open\nsafe_open('x')"),
        ("reports/x.py", "path.open('a')"),
        ("training/x.py", "from importlib import import_module\nimport_module(meta['env'])"),
        ("training/x.py", "from policygrad.locate import locate\nlocate(meta['algo'])"),
        ("cli/x.py", "import yaml"),
        ("cli/x.py", "eval('1')"),
        ("cli/x.py", "exec('1')"),
    ],
)
def test_the_rules_catch_what_they_are_for(file, source):
    assert broken_rules(ROOT / file, ast.parse(source))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("gradient/x.py", "import math\nimport torch\nfrom policygrad.data import Rollout\nfrom . import returns"),
        ("updates/x.py", "from policygrad.gradient.natural import fisher_product"),
        ("lab/claims/x.py", "from policygrad.training.agent import Agent"),
        ("lab/steps/rules.py", "from policygrad.training.agent import Agent"),
        ("lab/theory/plots.py", "from matplotlib.axes import Axes"),
        ("reports/plots.py", "from matplotlib import pyplot"),
        ("reports/report_plots.py", "from matplotlib.figure import Figure"),
        ("models/x.py", "policy.eval()"),
    ],
)
def test_the_rules_allow_what_is_meant(file, source):
    assert broken_rules(ROOT / file, ast.parse(source)) == []


def errors_without_base(tree: ast.Module, kinds: set[str]) -> list[str]:
    """Error classes that inherit none of the package's kinds, and NaNs that are raised as a built-in error."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) in BUILT_IN for base in node.bases):
            wrong += [node.name] if kinds.isdisjoint(map(ast.unparse, node.bases)) else []
        if isinstance(node, ast.Raise) and node.exc is not None and "FloatingPointError" in ast.unparse(node.exc)[:18]:
            wrong.append(f"line {node.lineno}: raise NotFiniteError")
    return wrong


BUILT_IN = {name for name, x in vars(builtins).items() if isinstance(x, type) and issubclass(x, BaseException)}
KINDS = {name for name, x in vars(errors).items() if isinstance(x, type) and issubclass(x, errors.PolicygradError)}


def test_every_error_of_the_package_has_one_base():
    assert set(faults(lambda path: errors_without_base(parsed(path), KINDS))) <= {"errors.py"}


def test_an_error_without_the_base_is_noticed():
    source = "class A(ValueError): ...\nclass B(UserError, ValueError): ...\nraise FloatingPointError('nan')"
    assert errors_without_base(ast.parse(source), KINDS) == ["A", "line 3: raise NotFiniteError"]


def test_every_room_has_its_rule_and_every_rule_its_file():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(MAY_IMPORT)
    assert set(LAB) <= {path.relative_to(ROOT).as_posix() for path in FILES}


def test_recipes_import_nothing_heavy_so_that_the_command_line_can_read_signatures_at_once():
    path = ROOT / "algorithms" / "recipes.py"
    assert module_level_imports(parsed(path), path) <= STDLIB | {"policygrad"}  # of which, below
    heavy = "from policygrad.algorithms import recipes; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.split()
    assert "policygrad.algorithms.recipes" in loaded
    assert set(loaded) & HEAVY == set()
    assert module_level_imports(ast.parse("import torch"), path) == {"torch"}
    assert module_level_imports(ast.parse("def f():\n    import torch"), path) == set()


def undocumented(tree: ast.Module) -> list[str]:
    """The module, its public classes and its public functions; methods speak through their protocol."""
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [node.name]
    return missing


def test_every_module_and_public_name_has_a_docstring():
    assert faults(lambda path: undocumented(parsed(path))) == {}


def test_a_missing_docstring_is_noticed():
    assert undocumented(ast.parse("def f(): ...\nclass A: ...\ndef _g(): ...")) == ["the module", "f", "A"]


def repeated_classes(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Names of public classes that more than one file defines, and the files: one word, one meaning."""
    homes: dict[str, list[str]] = {}
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def test_no_two_files_define_public_classes_of_one_name():
    assert repeated_classes({module_name(path): parsed(path) for path in FILES}) == {}


def test_a_repeated_class_is_noticed():
    a, b = ast.parse("class A: ...\nclass _P: ..."), ast.parse("class A: ...\nclass _P: ...\nclass B: ...")
    assert repeated_classes({"a": a, "b": b}) == {"A": ["a", "b"]}


def test_the_package_and_its_lab_offer_no_two_things_of_one_name():
    assert set(policygrad.__all__) & set(policygrad.lab.__all__) == set()


SPELLINGS = {spelling for name in RECIPES for spelling in (name, name.replace("_", "-"))}
ABOUT_ALGORITHMS = {
    "lab/claims/learning.py",
    "lab/claims/off_policy.py",
    "lab/claims/variance.py",
}  # claims that textbooks make about algorithms by name


def named_algorithms(tree: ast.Module) -> list[str]:
    """The text constants that are the name of an algorithm; names inside of longer texts, such as examples, are not."""
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [f"line {node.lineno}: {node.value}" for node in constants if node.value in SPELLINGS]


def test_only_algorithms_know_algorithms_by_name():
    naming = {p.relative_to(ROOT).as_posix() for p in FILES if named_algorithms(parsed(p))}
    assert {name for name in naming if not name.startswith("algorithms/")} == ABOUT_ALGORITHMS


def test_the_name_of_an_algorithm_is_noticed():
    source = '"""As `policygrad train ppo`."""\nif algo == "ppo-kl":\n    x = {"trpo": 1}[algo]'
    assert named_algorithms(ast.parse(source)) == ["line 2: ppo-kl", "line 3: trpo"]


LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 50
TOO_LONG: set[str] = set()  # what is longer, to be split: an entry that is no longer needed must go


def too_long(name: str, source: str) -> set[str]:
    """The file, and its functions, where they have too many lines; a docstring is none of a function's."""
    found = {name} if len(source.splitlines()) > LINES_OF_A_FILE else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            lines = (node.end_lineno or 0) - node.lineno + 1
            lines -= (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            found |= {f"{name}: {node.name}"} if lines > LINES_OF_A_FUNCTION else set()
    return found


def test_no_file_and_no_function_is_too_long():
    assert set().union(*(too_long(p.relative_to(ROOT).as_posix(), p.read_text()) for p in FILES)) == TOO_LONG


def test_what_is_too_long_is_noticed():
    body = "    x = 1\n" * LINES_OF_A_FUNCTION
    assert too_long("a.py", f"def f():\n{body}") == {"a.py: f"}
    assert too_long("a.py", f'def f():\n    """\n    Words.\n    """\n{body[10:]}') == set()
    assert too_long("a.py", "x = 1\n" * 401) == {"a.py"}
