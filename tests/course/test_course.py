"""The notebooks of the course run from top to bottom with the solutions, and no wrong answer passes its check."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

COURSE = Path(__file__).parents[2] / "docs" / "course"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))
WRONG = Path(__file__).parent / "wrong"
PART = re.compile(r"^# Exercise (\d+).*\n", re.MULTILINE)


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf8"))["cells"]


def code(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def task(cell: dict[str, Any]) -> tuple[str, int] | None:
    """("exercise", 1), ("check", 1), …, or None for any other cell."""
    (tag,) = cell["metadata"].get("tags", []) or [""]
    kind, _, number = tag.partition("-")
    return (kind, int(number)) if number else None


def answers(folder: Path, notebook: Path) -> list[tuple[int, str]]:
    """The parts of a file of answers: the number of the exercise and the code that takes the place of its cell."""
    _, *parts = PART.split((folder / f"{notebook.stem}.py").read_text("utf8"))
    return [(int(number), text) for number, text in zip(parts[::2], parts[1::2], strict=True)]


def run(text: str, names: dict[str, Any], where: str) -> None:
    exec(compile(text, where, "exec", dont_inherit=True), names)


def made(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """What an answer defines. Its functions see the names of the notebook, which stays as it is."""
    trial = dict(names)
    run(text, trial, "an answer")
    return trial


def refuses(check: str, names: dict[str, Any]) -> bool:
    """Whether the check ends with a reason."""
    try:
        run(check, names, "the check")
    except (AssertionError, NotImplementedError) as error:
        return bool(str(error))
    return False


@pytest.fixture(autouse=True)
def nothing_is_shown():
    matplotlib.use("agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_with_its_solutions_and_its_checks_refuse_wrong_answers(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    right, refused, checked = dict(answers(COURSE / "solutions", path)), answers(WRONG, path), []
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        where, what = f"{path.name}, cell {number}", task(cell)
        if what and what[0] == "exercise":
            unsolved = code(cell)
            continue
        if what:
            wrong = [text for exercise, text in refused if exercise == what[1]]
            assert len(wrong) >= 2
            for text in (unsolved, *wrong):
                assert refuses(code(cell), made(text, names)), f"{where} takes\n{text}"
            run(right[what[1]], names, f"the solution for {where}")
            checked.append(what[1])
        run(code(cell), names, where)
        plt.close("all")
    assert checked == sorted(right) == sorted({exercise for exercise, _ in refused})
    assert len(re.findall("^right", capsys.readouterr().out, re.MULTILINE)) == len(checked)


def test_there_are_five_notebooks_with_three_to_five_exercises_each():
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        tasks = [task(cell) for cell in cells(path) if cell["cell_type"] == "code" and task(cell)]
        exercises = [what for what in tasks if what and what[0] == "exercise"]
        assert 3 <= len(exercises) <= 5
        assert tasks == [
            pair for _, n in exercises for pair in (("exercise", n), ("check", n))
        ]  # each before its check


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_results_and_its_cells_have_names(path):
    book = json.loads(path.read_text("utf8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in book["cells"] if "outputs" in cell)
    names = [cell["id"] for cell in book["cells"]]
    assert len(set(names)) == len(names)
    assert not [line for line in path.read_text("utf8").splitlines() if line.rstrip() != line]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path):
    prose = "\n".join(code(cell) for cell in cells(path) if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", prose):
        assert (path.parent / target).exists(), target


def test_the_ten_questions_have_the_verdicts_of_their_claims():
    page, claims = ((COURSE.parent / name).read_text("utf8") for name in ("course/questions.md", "claims.md"))
    asked = dict(re.findall(r"^\| (\d+) \| .* \| `policygrad lab claims ([a-z-]+)` \|$", page, re.MULTILINE))
    said = dict(re.findall(r"^\| (\d+) \| ([a-z ]+) \|$", page, re.MULTILINE))
    measured = dict(re.findall(r"^\| ([a-z0-9-]+) \| .* \| ([a-z ]+) \|$", claims, re.MULTILINE))
    assert list(asked) == list(said) == [str(n) for n in range(1, 11)]
    assert {n: measured[claim] for n, claim in asked.items()} == said
