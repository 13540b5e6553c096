"""The trials of a search on the disk: the same proposals however often it is killed, and every trial for one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

from policygrad.training.pruning import Rule
from policygrad.training.space import parse_space
from policygrad.training.study import Lock, Study, mend

SPACE = parse_space(["lr=1e-4..1e-1:log", "gamma=0.9,0.99,0.999", "epochs=1..20", "hidden=(32,),(64,64)"], "ppo")
STEPS = 600


def open_study(folder, seed=0, **words):
    return Study(folder, SPACE, seed, Rule(), STEPS, **words)


def value_of(params):
    return -((np.log10(params["lr"]) + 2) ** 2) - abs(params["gamma"] - 0.99) * 10 - 0.01 * params["epochs"]


def work(study, candidate):
    """Trials of three kinds: every seventh fails, every fifth is given up."""
    if candidate.number % 7 == 6:
        study.fail(candidate, "a reason")
    elif candidate.number % 5 == 4:
        study.report(candidate, [0.0, value_of(candidate.params)])
        study.prune(candidate)
    else:
        study.report(candidate, [value_of(candidate.params)] * 6)
        study.finish(candidate, {0: value_of(candidate.params), 1: value_of(candidate.params) + 1})


def table(study):
    return [row.to_json() for row in study.rows()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The rows of a study of 24 trials, more than the ten that the sampler begins with at random."""
    study = open_study(tmp_path_factory.mktemp("whole"))
    while (candidate := study.begin(24)) is not None:
        work(study, candidate)
    return table(study)


def test_a_study_that_is_opened_anew_for_every_trial_proposes_the_same(undisturbed, tmp_path):
    while (candidate := (study := open_study(tmp_path)).begin(24)) is not None:
        work(study, candidate)
    assert table(study) == undisturbed
    assert len({json.dumps(row["params"]) for row in undisturbed}) == 24


def test_another_seed_proposes_others(undisturbed, tmp_path):
    study = open_study(tmp_path, seed=1)
    for _ in range(3):
        candidate = study.begin(24)
        assert candidate is not None
        work(study, candidate)
    assert [row["params"] for row in table(study)] != [row["params"] for row in undisturbed[:3]]


def test_the_sampler_learns_from_the_trials(undisturbed, tmp_path):
    """With other values it proposes something else, from the trial on that it no longer draws at random."""
    study = open_study(tmp_path)
    while (candidate := study.begin(20)) is not None:
        study.finish(candidate, {0: -value_of(candidate.params)})
    ours, theirs = [row["params"] for row in table(study)], [row["params"] for row in undisturbed]
    assert ours[:10] == theirs[:10]
    assert ours[13:20] != theirs[13:20]


def test_a_trial_of_a_process_that_died_is_given_out_again_and_one_of_a_living_process_is_not(tmp_path):
    first = open_study(tmp_path)
    ours = first.begin(10)
    other = open_study(tmp_path)
    theirs = other.begin(10)
    assert ours is not None
    assert theirs is not None
    assert (ours.number, theirs.number) == (0, 1)
    assert open_study(tmp_path).busy() == [0, 1]
    ours.lock.release()  # as the system does for a process that has died
    assert other.busy() == [1]
    again = open_study(tmp_path).begin(10)
    assert again is not None
    assert (again.number, again.params) == (0, ours.params)
    assert [row.state for row in first.rows()] == ["running", "running"]


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
import test_study as t
study = t.open_study(Path(sys.argv[1]))
dies = int(sys.argv[2])
while (candidate := study.begin(24)) is not None:
    if candidate.number == dies:
        study.report(candidate, [t.value_of(candidate.params)])
        os.kill(os.getpid(), signal.SIGKILL)
    t.work(study, candidate)
"""


def child(folder, dies=-1):
    words = [sys.executable, "-c", CHILD, str(folder), str(dies), str(Path(__file__).parent)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_a_study_whose_process_is_killed_goes_on_as_if_it_had_not_been(undisturbed, tmp_path):
    for dies in (13, -1):
        code = child(tmp_path, dies).wait(120)
        assert code == (0 if dies < 0 else -signal.SIGKILL)
    found = table(open_study(tmp_path))
    assert [row["params"] for row in found] == [row["params"] for row in undisturbed]
    assert [row["state"] for row in found] == [row["state"] for row in undisturbed]


@pytest.mark.slow
def test_two_processes_share_a_study_and_no_trial_is_done_twice(tmp_path):
    both = [child(tmp_path), child(tmp_path)]
    assert [process.wait(120) for process in both] == [0, 0]
    rows = open_study(tmp_path).rows()
    assert [row.number for row in rows] == list(range(24))
    assert all(row.state != "running" for row in rows)


def test_a_last_line_that_was_half_written_is_cut_off(tmp_path):
    study = open_study(tmp_path)
    candidate = study.begin(3)
    assert candidate is not None
    work(study, candidate)
    before, journal = table(study), tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"worker')
    again = open_study(tmp_path)
    assert table(again) == before
    candidate = again.begin(3)
    assert candidate is not None
    work(again, candidate)
    assert len(open_study(tmp_path).rows()) == 2
    with journal.open("ab") as file:  # without the repair, the next line is spoilt and the study with it
        file.write(b'{"op_code":4,"worker')
    with journal.open("ab") as file:
        file.write(b'{"op_code":0}\n')
    with pytest.raises(ValueError, match=r".*"):
        open_study(tmp_path)


def test_mending_leaves_whole_files_alone(tmp_path):
    journal = tmp_path / "journal.log"
    mend(journal)
    assert not journal.exists()
    for text, left in ((b"", b""), (b"one\n", b"one\n"), (b"one\ntwo", b"one\n"), (b"one", b"")):
        journal.write_bytes(text)
        mend(journal)
        assert journal.read_bytes() == left


def test_the_standing_parameters_are_the_first_trial_if_they_are_in_the_space(tmp_path):
    inside = {"lr": 3e-4, "gamma": 0.99, "epochs": 10, "hidden": (64, 64)}
    first = open_study(tmp_path / "in", first=inside).begin(5)
    assert first is not None
    assert first.params == inside
    for outside in (inside | {"lr": 1.0}, inside | {"gamma": 0.98}, inside | {"hidden": (64,)}, {"lr": 3e-4}):
        study = open_study(tmp_path / str(outside), first=outside)
        assert not study.holds(outside)
        first = study.begin(5)
        assert first is not None
        assert first.params != outside
    assert len(open_study(tmp_path / "in", first=inside).rows()) == 1  # not put there once more


def test_what_is_proposed_is_in_the_space_with_its_types_and_few_digits(undisturbed):
    for row in undisturbed:
        lr, gamma, epochs, hidden = (row["params"][name] for name in SPACE)
        assert 1e-4 <= lr <= 1e-1
        assert lr == float(f"{lr:.4g}")
        assert gamma in (0.9, 0.99, 0.999)
        assert type(epochs) is int
        assert 1 <= epochs <= 20
        assert hidden in ((32,), (64, 64))


def test_rows_keep_values_scores_curves_and_reasons(tmp_path):
    study = open_study(tmp_path)
    for _ in range(7):
        candidate = study.begin(7)
        assert candidate is not None
        work(study, candidate)
    rows = study.rows()
    assert [row.state for row in rows] == ["finished"] * 4 + ["pruned", "finished", "failed"]
    assert rows[0].value == pytest.approx(value_of(rows[0].params) + 0.5)
    assert rows[0].scores == [value_of(rows[0].params), value_of(rows[0].params) + 1]
    assert rows[0].curve == [value_of(rows[0].params)] * 6
    assert rows[4].curve == [0.0, value_of(rows[4].params)]
    assert rows[4].value is None
    assert rows[6].reason == "a reason"
    assert study.curves() == [row.curve for row in rows if row.state != "failed"]


def test_reports_can_be_repeated_and_unknown_values_stay_unknown(tmp_path):
    study = open_study(tmp_path)
    candidate = study.begin(1)
    assert candidate is not None
    study.report(candidate, [None, 2.0])
    study.report(candidate, [None, 3.0, None, 4.0])
    study.prune(candidate)
    assert study.rows()[0].curve == [None, 2.0, None, 4.0]


def test_importances_find_what_matters(tmp_path):
    study = open_study(tmp_path)
    while (candidate := study.begin(30)) is not None:
        assert study.importances() == {} or candidate.number >= 10
        study.finish(candidate, {0: -abs(np.log10(candidate.params["lr"]) + 3)})
    shares = study.importances()
    assert set(shares) == set(SPACE)
    assert max(shares, key=lambda name: shares[name]) == "lr"
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_lock_is_one_process_s_until_it_is_given_back(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.take()
    assert not other.take()
    one.release()
    assert other.take()
