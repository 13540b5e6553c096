"""Mutants: bugs that a person could have written, each a patch in `tests/mutants/`, and each killed by the tests it names.

A patch begins with a sentence that says what is wrong with it, and with the test files that must fail. The fast tests look
whether every patch still fits the code. The slow ones apply each to a copy of the package and run the tests it names there;
the same tests must pass in a copy that nothing was applied to.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATCHES = sorted((ROOT / "tests" / "mutants").glob("*.patch"))
HUNK = re.compile(r"^@@.*\n((?:[-+ ].*\n)+)", re.MULTILINE)
SECONDS = 900  # that the tests of one mutant may take on a busy machine: one that does not end is not killed


def killers(patch: Path) -> list[str]:
    """The test files that must fail, relative to the root of the repository."""
    return re.findall(r"^tests: (.+)$", patch.read_text("utf8"), re.MULTILINE)[0].split()


def mutated(patch: str) -> tuple[str, str]:
    """The file that a patch changes, relative to the root, and its text afterwards.

    Line numbers count for nothing: raises ValueError where the lines of a hunk are not there, or are there twice.
    """
    (name,) = re.findall(r"^\+\+\+ b/(.+)$", patch, re.MULTILINE)
    text = (ROOT / name).read_text("utf8")
    for hunk in HUNK.findall(patch):
        before, after = ("".join(re.findall(rf"^[{sign} ](.*\n)", hunk, re.MULTILINE)) for sign in "-+")
        found = f"\n{text}".count(f"\n{before}")
        if found != 1:
            raise ValueError(f"the lines of a hunk are {found} times in {name}:\n{hunk}")
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    return name, text


def copied(folder: Path) -> Path:
    """A copy of the package, whose modules win over the installed ones where the folder is on PYTHONPATH."""
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python on these words, with the copy of the package."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def run_tests(folder: Path, files: list[str]) -> subprocess.CompletedProcess[str]:
    """The fast tests of these files, until one fails. Exit code 0: all pass; 1: one failed."""
    return run(folder, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *files)


def test_every_patch_fits_the_code_and_says_what_is_wrong_with_it_and_who_notices() -> None:
    assert len(PATCHES) >= 40
    for patch in PATCHES:
        words = patch.read_text("utf8")
        sentence, second = words.splitlines()[:2]
        assert re.fullmatch(r"[A-Z].*\.", sentence), f"{patch.name} does not begin with a sentence"
        assert second.startswith("tests: "), f"{patch.name} does not name its tests in its second line"
        assert all((ROOT / file).is_file() for file in killers(patch)), f"{patch.name} names tests that are not there"
        try:
            name, text = mutated(words)
        except ValueError as error:
            pytest.fail(f"{patch.name} does not fit the code any more, so write it anew: {error}")
        assert text != (ROOT / name).read_text("utf8")
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize(
    ("hunk", "token"), [("-    nobody wrote this\n+    x\n", "0 times"), (" import math\n+import x\n \n", "0 times")]
)
def test_a_patch_that_does_not_fit_is_noticed(hunk: str, token: str) -> None:
    name = "src/policygrad/gradient/returns.py"
    with pytest.raises(ValueError, match=token):
        mutated(f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n{hunk}")
    with pytest.raises(ValueError, match="2 times"):
        mutated("+++ b/src/policygrad/gradient/noise.py\n@@ -1 +1 @@\n-@cache\n+@property\n")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("file", sorted({file for patch in PATCHES for file in killers(patch)}))
def test_without_a_mutant_the_same_tests_pass(file: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / "src")
    where = run(folder, "-c", "import policygrad; print(policygrad.__file__)")
    assert where.stdout.strip() == str(folder / "policygrad" / "__init__.py"), where.stderr
    ended = run_tests(folder, [file])
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_mutant_is_killed(patch: Path, tmp_path: Path) -> None:
    folder = copied(tmp_path / "src")
    name, text = mutated(patch.read_text("utf8"))
    (tmp_path / name).write_text(text, "utf8")
    ended = run_tests(folder, killers(patch))
    assert ended.returncode == 1, f"exit code {ended.returncode}: {ended.stdout[-3000:]}{ended.stderr[-1000:]}"
