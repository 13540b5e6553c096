"""What editors, type checkers and `help` are told of the recipes' functions."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import policygrad as pg
from policygrad.algorithms.config import options, parameters
from policygrad.algorithms.recipes import RECIPES

ROOT = Path(__file__).parent.parent
STUB = Path(str(pg.__file__)).with_suffix(".pyi")


def test_the_stub_is_what_the_recipes_say_today() -> None:
    written = runpy.run_path(str(ROOT / "benchmarks" / "stub.py"))["stub"]()
    assert STUB.read_text("utf8") == written, "run: python benchmarks/stub.py"


@pytest.mark.parametrize("name", RECIPES)
def test_signature_and_help_show_every_keyword(name: str) -> None:
    function = getattr(pg, name)
    assert function is getattr(pg, name)
    signature = inspect.signature(function)
    assert list(signature.parameters)[:3] == ["env", "seed", "preset"]
    for keyword, (kind, default) in parameters(name).items():
        assert signature.parameters[keyword].default == default
        assert signature.parameters[keyword].annotation == kind
        first = options(name)[keyword].help.split()[:3]
        assert f"\n    {keyword}: {' '.join(first)}" in function.__doc__
    assert RECIPES[name].__doc__.splitlines()[0] in function.__doc__
    assert function.__name__ == name


def test_the_functions_make_agents_and_importing_the_package_is_light() -> None:
    agent = pg.ppo("CartPole-v1", seed=3, clip=0.1, learning_rate=1e-3)
    assert (agent.algo, agent.seed, agent.config["clip"], agent.config["lr"]) == ("ppo", 3, 0.1, 1e-3)
    assert {*RECIPES, "Agent", "lab"} <= set(pg.__all__) & set(dir(pg))
    with pytest.raises(AttributeError, match="no attribute 'ppoo'"):
        _ = pg.ppoo  # pyright: ignore
    code = "import policygrad as pg, sys; pg.__all__; print({'torch', 'numpy', 'gymnasium'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.slow
def test_a_type_checker_accepts_what_is_right_and_refuses_what_is_not(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    lines = ['pg.ppo("CartPole-v1", clip=0.1, hidden=[32], n_steps=8).learn(10)', 'pg.ppo("CartPole-v1", clip="a")']
    lines += ['pg.ppo("CartPole-v1", clipp=0.1)', "pg.nothing"]
    (tmp_path / "use.py").write_text("\n".join(["import policygrad as pg", *lines]))
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(STUB.parent.parent)]}))
    words = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "use.py"]
    out = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout
    assert [f"use.py:{n}:" in out for n in range(2, 6)] == [False, True, True, True], out
