"""What version 0.4.0 has written is still read: a run directory, its policy and its checkpoint, kept beside this file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import policygrad as pg
from policygrad.cli import main

RUN = (
    Path(__file__).parent / "run_0_4_0"
)  # policygrad train ppo CartPole-v1 --steps 300 --num-envs 1 --hidden 3 --seed 5


def test_a_policy_of_0_4_0_acts_as_it_did_then() -> None:
    agent = pg.load(RUN / "policy.safetensors")
    assert (agent.algo, agent.env_name, agent.seed, agent.config["hidden"]) == ("ppo", "CartPole-v1", 5, (3,))
    assert float(agent.policy.flat.double().sum()) == pytest.approx(-3.040046701207757, abs=1e-6)
    assert agent.predict(np.array([0.1, 0.2, -0.1, 0.3], np.float32), deterministic=True)[0] == 1
    assert agent.evaluate(3).returns == (26.0, 24.0, 27.0)


def test_a_checkpoint_of_0_4_0_goes_on_as_it_would_have_then() -> None:
    (checkpoint,) = (RUN / "checkpoints").iterdir()
    agent = pg.load(checkpoint)
    assert agent.collector.steps_done == 230
    agent.learn(200)
    assert agent.collector.steps_done == 384  # on the seeds that version 0.5 draws
    assert float(agent.policy.flat.double().sum()) == pytest.approx(-3.13616270, abs=1e-4)


def test_the_commands_read_a_run_of_0_4_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(RUN, tmp_path / "run")
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    assert "ppo on CartPole-v1, seed 5" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert main(["plot", str(run)]) == 0
