"""Wheel and sdist: they hold what is needed and nothing else, and the installed wheel works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = {".ci/run"}  # of the sdist
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # ten processes, each of which imports torch


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with both; the wheel is built from the sdist."""
    for tool in ("build", "hatchling"):
        pytest.importorskip(tool)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], check=True)
    return out


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the repository that exist and that git knows or would know."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built, tracked):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == {name.removeprefix("src/") for name in tracked if name.startswith("src/")}
    assert {Path(name).name for name in info} == {"METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt"}
    assert {"policygrad/py.typed", "policygrad/__init__.pyi", "policygrad/presets/ppo.toml"} <= names


def test_the_sdist_has_every_file_of_the_repository_that_its_tests_need(built, tracked):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert tracked - names == LEFT_OUT
    assert names - tracked == {"PKG-INFO"}


def test_the_installed_wheel_trains_plays_and_exports_away_from_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    python = env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and the rest, from this environment

    away = tmp_path / "away"
    away.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words: str) -> str:
        done = subprocess.run([str(python), *words], cwd=away, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    assert Path(run("-c", "import policygrad; print(policygrad.__file__)").strip()).is_relative_to(own)
    command = ("-m", "policygrad")
    run(*command, "train", "ppo", "CartPole-v1", "--steps", "2048", "--eval-episodes", "2", "--run-dir", "run")
    assert "greedy" in run(*command, "eval", "run", "--episodes", "2")
    run(*command, "export", "run", "--format", "numpy", "--out", "exported.npz")
    assert "ppo" in run(*command, "list", "presets")
    assert "holds" in run(*command, "lab", "claims", "log-derivative-trick", "data-must-be-fresh")
    code = "import policygrad as pg; policy = pg.load_policy('pretrained:ppo-CartPole-v1'); print(policy.predict([0.0] * 4)[0])"
    assert run("-c", code).strip() in ("0", "1")
