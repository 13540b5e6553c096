"""Machine code on disk: where it is, and that it makes no difference whether it was there before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policygrad.compiled.cache import folder

TRAIN = """
import hashlib, policygrad as pg
agent = pg.sac("Pendulum-v1", seed=2, preset={}, hidden=(64, 64), warmup=100)
made = hashlib.sha256()
for _ in range(30):
    agent.learn(20)
    made.update(repr(sorted(agent.learner.rule.report().items())).encode())
print(made.hexdigest(), hashlib.sha256(agent.policy.flat.numpy().tobytes()).hexdigest())
"""


def test_machine_code_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    assert "compiles" not in second.stderr
