"""What the command line says: of the length of training, of foreign words, of names that nearly exist."""

from __future__ import annotations

import io
import re

import pytest

from policygrad.cli import main
from policygrad.cli.reports import length
from policygrad.training.progress import Lines


@pytest.mark.parametrize(
    ("steps", "envs", "num_steps", "says"),
    [
        (4000, 8, 256, "4,000 steps (trains whole iterations of 2,048 steps, of which 1 fits; --num-steps 250 would use all 4,000)"),
        (2000, 8, 256, "2,000 steps (trains one whole iteration of 2,048 steps)"),
        (2048, 8, 256, "2,048 steps"),
        (100_000, 8, 256, "100,000 steps"),  # 98,304, which is 1.7 % less
        (6100, 8, 256, "6,100 steps (trains whole iterations of 2,048 steps, of which 2 fit; --num-steps 254 would use 6,096)"),
        (3, 2, 1, "3 steps (trains whole iterations of 2 steps, of which 1 fits)"),  # none is shorter
    ],
)  # fmt: skip
def test_steps_that_whole_iterations_leave_out_are_said_with_a_number_that_takes_them(steps, envs, num_steps, says):
    assert length({"steps": steps, "num_envs": envs, "num_steps": num_steps}, num_steps) == says
    advised = re.search(r"--num-steps (\d+) would use .*?([\d,]+)\)", says)
    if advised:  # the advice is true: whole iterations of so many steps fit, and nothing more is left out than it says
        size = int(advised[1]) * envs
        assert steps // size * size == int(advised[2].replace(",", ""))
        assert (
            length({"steps": steps, "num_envs": envs, "num_steps": int(advised[1])}, int(advised[1]))
            == f"{steps:,} steps"
        )


def test_a_training_that_left_steps_out_does_not_look_broken_off(tmp_path, capsys):
    words = ["ppo", "CartPole-v1", "--steps", "200", "--num-envs", "4", "--num-steps", "32", "--eval-episodes", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "a")]) == 0
    first, _, bar, last, *_ = capsys.readouterr().out.splitlines()
    assert (
        "200 steps (trains whole iterations of 128 steps, of which 1 fits; --num-steps 25 would use all 200)" in first
    )
    done = int(last.partition(" ")[0])
    assert bar.startswith(f"100 %  {done} of {done} steps")
    assert done < 128  # resets are not counted
    assert "another iteration of 128 would exceed 200; a step that only resets an environment is not counted" in last


def test_one_iteration_that_is_more_than_was_asked_for_says_what_is_not_counted(tmp_path, capsys):
    words = ["ppo", "CartPole-v1", "--steps", "100", "--num-envs", "4", "--num-steps", "32", "--eval-episodes", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "a")]) == 0
    last = capsys.readouterr().out.splitlines()[3]
    done = int(last.partition(" ")[0])
    assert (f"(the other {128 - done} of the iteration only reset an environment)" in last) == (done < 100)


def test_lines_end_with_all_there_is_where_no_other_iteration_fits():
    lines = Lines(stream := io.StringIO())
    lines.start(2048)
    lines.update(1984, 1.0, None)
    lines.finish(1984)
    lines.update(1984, 1.0, None)
    assert [line[:24] for line in stream.getvalue().splitlines()] == [
        " 96 %  1,984 of 2,048 st",
        "100 %  1,984 of 1,984 st",
    ]
