"""What Windows and macOS lack is not needed for training, saving and loading; nothing at the top of a module asks for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from elsewhere_system import MODULES

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "elsewhere_system.py"
MISSING = {name for names in MODULES.values() for name in names}


def unguarded(source: str) -> list[str]:
    """Modules of one system alone that are imported at the top, outside `try`."""
    found = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            found += [one.name for one in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            found.append(statement.module or "")
    return [name for name in found if name.split(".")[0] in MISSING]


@pytest.mark.parametrize("folder", ["src", "tests", "examples"])
def test_no_module_of_one_system_is_imported_without_a_guard(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert not unguarded(path.read_text("utf8")), path


@pytest.mark.parametrize(("source", "found"), [
    ("import fcntl", ["fcntl"]),
    ("from resource import getrusage", ["resource"]),
    ("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None", []),
    ("def f():\n    import fcntl", []),
    ("from importlib.resources import files", []),
])  # fmt: skip
def test_an_import_without_a_guard_is_noticed(source, found):
    assert unguarded(source) == found


@pytest.mark.parametrize("system", ["win32", pytest.param("darwin", marks=pytest.mark.slow)])
def test_training_saving_and_loading_need_nothing_that_a_system_lacks(system, tmp_path):
    done = run(system, tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_import_that_the_system_does_not_have_is_refused(tmp_path):
    """The control: code of the package that needs it ends with an error there, and other packages keep theirs."""
    (tmp_path / "policygrad_needs.py").write_text("import fcntl\n")
    code = f"""
import sys
sys.path[:0] = [{str(SCRIPT.parent)!r}, {str(tmp_path)!r}]
import elsewhere_system
elsewhere_system.packages = lambda: None
elsewhere_system.become("win32")
import os, signal, fcntl
assert not hasattr(os, "register_at_fork") and not hasattr(signal, "SIGALRM")
import policygrad_needs
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith("ModuleNotFoundError: No module named 'fcntl' on win32")


def run(system: str, place: Path) -> subprocess.CompletedProcess[str]:
    """The script, in a process of its own."""
    words = [sys.executable, "-W", "error", str(SCRIPT), system, str(place)]
    return subprocess.run(words, capture_output=True, text=True, cwd=place)
