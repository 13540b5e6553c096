"""The table of many runs: which are in it, in which order, and how it fits into a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import policygrad as pg
from policygrad.algorithms.checked import ConfigError
from policygrad.reports.run_table import (
    CELLS,
    KEYS,
    LEFT_OUT,
    STATES,
    ago,
    counts,
    cut,
    head,
    notes,
    ordered,
    selected,
    table,
)
from policygrad.stored.standing import RunSummary


def a_run(name: str, state: Any = "training", **known: Any) -> RunSummary:
    return RunSummary(Path("runs", name), name, state, **known)


RUNS = [
    a_run(
        "CartPole-v1/ppo/seed0",
        algo="ppo",
        env="CartPole-v1",
        seed=0,
        steps=250,
        total=1000,
        speed=99.6,
        machine="gpu1",
    ),
    a_run("CartPole-v1/ppo_kl/seed10", "lost", algo="ppo_kl", env="CartPole-v1", seed=10, machine="gpu2", age=9.0),
    a_run(
        "ALE-Pong-v5/ppo/seed2", "finished", algo="ppo", env="ALE/Pong-v5", seed=2, evaluation=-3.0, train_return=20.0
    ),
    a_run("notes", "broken", reason="config.json has no seed"),
    a_run("CartPole-v1/ppo/seed1", "finished", algo="ppo", env="CartPole-v1", seed=1, evaluation=500.0, age=5.0),
]
FIRST, LOST, PONG, BROKEN, BEST = RUNS


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, RUNS),
        ({"state": "lost"}, [LOST]),
        ({"state": ["lost", "broken"]}, [LOST, BROKEN]),
        ({"algo": "ppo"}, [FIRST, PONG, BEST]),
        ({"algo": "ppo-kl"}, [LOST]),
        ({"algo": "ppo*"}, [FIRST, LOST, PONG, BEST]),
        ({"env": "ALE/*"}, [PONG]),
        ({"env": "CartPole-v1", "algo": ["ppo"], "state": "finished"}, [BEST]),
        ({"machine": "gpu?"}, [FIRST, LOST]),
        ({"match": "ppo/seed"}, [FIRST, PONG, BEST]),
        ({"match": "runs/notes"}, [BROKEN]),
        ({"env": "cartpole"}, []),
        ({"state": []}, RUNS),
    ],
)
def test_runs_are_chosen_by_words(choice, expected):
    assert selected(RUNS, **choice) == expected


def test_brackets_of_an_environment_are_no_pattern():
    named = a_run("x", env="E (size=[1, 2])")
    assert selected([named], env="E (size=[1, 2])") == [named]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("run", [PONG, FIRST, BEST, LOST, BROKEN]),
        ("-run", [BROKEN, LOST, BEST, FIRST, PONG]),
        ("seed", [FIRST, BEST, PONG, LOST, BROKEN]),  # by number, and the one without a seed last
        ("-seed", [LOST, PONG, BEST, FIRST, BROKEN]),
        ("return", [PONG, BEST, FIRST, LOST, BROKEN]),
        ("-return", [BEST, PONG, FIRST, LOST, BROKEN]),
        ("age", [BEST, LOST, PONG, FIRST, BROKEN]),
        ("state", [FIRST, PONG, BEST, LOST, BROKEN]),
    ],
)
def test_runs_are_sorted_and_those_without_a_value_are_last(sort, expected):
    assert ordered(RUNS, sort) == expected


def test_every_column_sorts_and_ties_are_by_name():
    for column in KEYS:
        assert sorted(map(id, ordered(RUNS, column))) == sorted(map(id, RUNS))
        same = [a_run("b"), a_run("c"), a_run("a")]
        assert [run.name for run in ordered(same, column)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"state": "runing"}, "state = 'runing' is not one of: training, trained, .*Did you mean"),
        ({"state": ["lost", "dead"]}, "state = 'dead'"),
        ({"sort": "returns"}, "Did you mean 'return'"),
        ({"sort": "--return"}, "sort = '-return' is not one of"),
        ({"limit": 0}, "limit = 0 must be at least 1"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_read(given, said):
    with pytest.raises(ConfigError, match=said):
        pg.runs("missing", **given)


def test_the_head_counts_by_state():
    assert head(RUNS, 5, "runs") == "5 runs under runs: 1 training, 2 finished, 1 lost, 1 broken"
    assert head(RUNS[:1], 5, "runs") == "1 of 5 runs under runs: 1 training"
    assert head([], 0, "runs") == "0 runs under runs"
    assert head(RUNS[:1], 1, "runs") == "1 run under runs: 1 training"
    assert sum(counts(RUNS).values()) == len(RUNS)
    assert list(counts(RUNS)) == [state for state in STATES if state in counts(RUNS)]


def test_cells_show_what_is_known():
    header, rows, right = table([FIRST, BROKEN, PONG])
    assert header == [title for title, *_ in CELLS.values()]
    shown = dict(zip(CELLS, rows[0], strict=True))
    assert (shown["steps"], shown["of"], shown["percent"], shown["speed"]) == ("250", "1,000", "25", "100")
    assert [row[header.index("return")] for row in rows] == ["–", "–", "-3.0"]  # of the evaluation, where there is one
    assert [row[header.index("seed")] for row in rows] == ["0", "", "2"]
    assert header.index("return") in right
    assert header.index("run") not in right
    almost = a_run("x", steps=9999, total=10_000)
    assert table([almost])[1][0][list(CELLS).index("percent")] == "99"  # not there yet


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 160, 200])
def test_a_table_fits_into_the_terminal(width):
    long = a_run("a/" + "x" * 300 + "/seed3", algo="m:" + "y" * 900, env="z" * 900, seed=7, steps=10**9, total=10**10)
    header, rows, _ = table([*RUNS, long], width)
    wide = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    assert sum(wide) + 2 * (len(wide) - 1) <= width
    assert {"run", "state", "%", "return"} <= set(header)
    assert rows[-1][0].startswith("a/x")
    assert rows[-1][0].endswith("/seed3")


def test_columns_that_say_the_same_of_every_run_are_left_out_first():
    several = [
        a_run(f"a-rather-long-name/seed{k}", algo="ppo", env="CartPole-v1", seed=k, machine="here") for k in range(9)
    ]
    header = table(several, 65)[0]
    assert "seed" in header
    assert "machine" not in header
    assert "algorithm" not in header
    several.append(a_run("other", machine="there"))
    assert "machine" in table(several, 80)[0]
    assert len(table(several, math.inf)[0]) == len(CELLS)  # in a pipe there is room for all
    assert set(LEFT_OUT) <= set(CELLS)


def test_long_names_keep_their_end():
    assert cut("abc", 3) == "abc"
    assert cut("CartPole-v1/ppo/seed0-20260131", 16) == "Cart…d0-20260131"
    assert len(cut("x" * 500, 24)) == 24


def test_what_died_is_said_with_what_to_do():
    useless = a_run("u", "diverged", reason="NotFiniteError: no")
    lost = a_run("my run", "lost", checkpoint=5)
    assert notes([useless, BROKEN, lost, LOST, FIRST, BEST]) == [
        "lost: policygrad resume 'runs/my run'",
        "lost: it has no checkpoint: train it again",
        "broken: notes: config.json has no seed",
        "diverged: u: NotFiniteError: no",
    ]
    assert notes([useless] * 9, 3)[-1] == "and 6 more, see --state lost,broken,failed,diverged"
    assert notes([FIRST, BEST]) == []


def test_a_summary_as_json_has_every_number():
    said = json.loads(json.dumps(FIRST.to_json(), allow_nan=False))
    assert (said["path"], said["percent"], said["mean_return"], said["hint"]) == (
        "runs/CartPole-v1/ppo/seed0",
        25.0,
        None,
        "",
    )
    assert a_run("x", total=0).percent is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (3600.0, "1 h"), (86400.0 * 400, "400 d")]
)
def test_ages_are_short(seconds, said):
    assert ago(seconds) == said
