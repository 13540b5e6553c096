"""Machine code on disk: where it is, and that it makes no difference whether it was there before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from policygrad.compiled.cache import compiled, folder

TRAIN = """
import hashlib, policygrad as pg
words = {"seed": 2, "preset": {}, "hidden": (64, 64), "kernel": "compiled"}
agent = pg.sac("Pendulum-v1", warmup=100, **words)
made = hashlib.sha256()
for _ in range(30):
    agent.learn(20)
    made.update(repr(sorted(agent.learner.rule.report().items())).encode())
print(made.hexdigest(), hashlib.sha256(agent.policy.flat.numpy().tobytes()).hexdigest())
for algo in ("ppo", "trpo"):
    agent = getattr(pg, algo)("CartPole-v1", backend="compiled", num_steps=128, **words).learn(4_000)
    flat = agent.policy.flat.numpy().tobytes() + agent.learner.critic.flat.numpy().tobytes()
    print(algo, hashlib.sha256(flat).hexdigest())
"""


def test_machine_code_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder.cache_clear()
    try:
        assert folder().parent == tmp_path / "policygrad"
    finally:
        folder.cache_clear()


@pytest.mark.slow  # everything is compiled
def test_the_process_that_compiles_and_the_next_one_agree_to_the_last_bit(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    words = [sys.executable, "-c", TRAIN]
    first, second = (
        subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=300)
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert first.stdout == second.stdout
    assert first.stderr.count("compiles the updates") == first.stderr.count("compiles the environments") == 1
    assert "compiles" not in second.stderr


def test_a_damaged_or_unwritable_cache_is_none(tmp_path: Path) -> None:
    def machine_code_of_a_sum(x: float) -> float:
        return x + 1.0

    before = numba.config.CACHE_DIR  # pyright: ignore
    numba.config.CACHE_DIR = str(tmp_path)  # pyright: ignore
    try:
        assert compiled(machine_code_of_a_sum)(1.0) == 2.0
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert files
        for file in files:
            file.write_bytes(b"damaged")
        again = compiled(machine_code_of_a_sum)
        for file in files:
            file.unlink()
            file.mkdir()  # nothing can be written there
        assert again(1.0) == 2.0
    finally:
        numba.config.CACHE_DIR = before  # pyright: ignore
