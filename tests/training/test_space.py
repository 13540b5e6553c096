"""Spaces of hyperparameters: what lies in them, how evenly, what their texts mean, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policygrad.algorithms.config import ConfigError
from policygrad.training.space import Choice, Range, grid, parse_space, sample, space_texts

QUICK = settings(max_examples=60, deadline=None)
WORDS = st.text(max_size=6) | st.sampled_from(
    ["none", "true", "1e5", "1..2", "a:log", "it's", 'a"b', "x,y", "(", "tanh"]
)
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    NUMBERS | WORDS | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


def unequal(values):
    return repr(values)


CHOICES = st.lists(VALUES, min_size=1, max_size=4, unique_by=unequal).map(lambda x: Choice(tuple(x)))


@st.composite
def ranges(draw):
    integer, log = draw(st.booleans()), draw(st.booleans())
    if integer:
        low = draw(st.integers(1 if log else -(10**6), 10**6))
        return Range(low, low + draw(st.integers(1, 10**6)), log, integer)
    low = draw(st.floats(1e-12, 1e6)) * (1 if log else draw(st.sampled_from([1, -1])))
    return Range(low, low + abs(low) * draw(st.floats(1e-3, 1e6)), log, integer)


@QUICK
@given(ranges(), st.integers(2, 12))
def test_grids_lie_in_their_range_and_are_even(span, points):
    values = span.grid(points)
    assert values == sorted(set(values))
    assert (values[0], values[-1]) == (span.low, span.high)
    scale = math.log if span.log else float
    expected = np.linspace(scale(span.low), scale(span.high), points)
    if span.integer:
        assert all(isinstance(value, int) for value in values)
        exact = np.exp(expected) if span.log else expected
        assert set(values) == {round(x) for x in np.clip(exact, span.low, span.high)} or points > len(values)
        return
    assert len(values) == points
    step = expected[1] - expected[0]
    assert np.diff([scale(x) for x in values]) == pytest.approx(step, rel=1e-6, abs=1e-9)


@QUICK
@given(ranges(), st.integers(0, 2**32))
def test_samples_lie_in_their_range(span, seed):
    rng = np.random.default_rng(seed)
    for value in [span.sample(rng) for _ in range(5)]:
        assert span.low <= value <= span.high
        assert isinstance(value, int if span.integer else float)


def test_lists_of_texts_that_look_like_ranges_parse_back():
    for values in ((("a..b",),), (("1..2", "x:log"), ("(",))):
        assert parse_space({"x": str(Choice(values))})["x"] == Choice(values)


@QUICK
@given(st.dictionaries(st.sampled_from("abcd"), CHOICES | ranges(), min_size=1))
def test_texts_parse_back(space):
    read = parse_space(space_texts(space))
    assert read == space
    assert repr(read) == repr(space)


@pytest.mark.parametrize("log", [False, True])
def test_samples_are_uniform_on_their_scale(log):
    """Kolmogorov–Smirnov: 10,000 samples; the other scale is refused."""
    from scipy import stats

    rng, span = np.random.default_rng(0), Range(1e-4, 1e-2, log)
    values = np.array([span.sample(rng) for _ in range(10_000)])
    even = (values - 1e-4) / (1e-2 - 1e-4)
    even_logs = (np.log(values) - math.log(1e-4)) / math.log(100)
    right, wrong = (even_logs, even) if log else (even, even_logs)
    assert stats.kstest(right, "uniform").pvalue > 1e-3
    assert stats.kstest(wrong, "uniform").pvalue < 1e-9


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_have_their_probabilities(log):
    from scipy import stats

    rng, span = np.random.default_rng(0), Range(1, 4, log, integer=True)
    counts = np.bincount([span.sample(rng) for _ in range(10_000)], minlength=5)[1:]
    edges = np.log(np.arange(0.5, 5)) if log else np.arange(0.5, 5)
    expected = np.diff(edges) / (edges[-1] - edges[0])
    assert stats.chisquare(counts, 10_000 * expected).pvalue > 1e-3
    assert stats.chisquare(counts, 10_000 * expected[::-1]).pvalue < 1e-9 or not log


def test_texts_mean_what_they_say():
    words = ["lr=1e-4..1e-2:log", "ent-coef=0,0.01,0.1", "gamma=0.9..0.999", "epochs=1..10", "hidden=(32,32),(64,)"]
    space = parse_space([*words, "target_kl=none,0.01", "normalize_obs=true,false", "activation=relu"], "ppo")
    assert space["lr"] == Range(1e-4, 1e-2, log=True)
    assert space["ent_coef"] == Choice((0.0, 0.01, 0.1))
    assert space["gamma"] == Range(0.9, 0.999)
    assert space["epochs"] == Range(1, 10, integer=True)
    assert space["hidden"] == Choice(((32, 32), (64,)))
    assert space["target_kl"] == Choice((None, 0.01))
    assert space["normalize_obs"] == Choice((True, False))
    assert parse_space(["baseline=none,value"], "reinforce")["baseline"] == Choice(("none", "value"))
    assert list(parse_space(["learning_rate=1e-3,1e-2", "batch_size=32,64"], "ppo")) == ["lr", "batch_size"]
    assert parse_space({"lr": [1e-3, 1e-2], "gamma": "0.9..1", "clip": Range(0.1, 0.3)}, "ppo") == {
        "lr": Choice((1e-3, 1e-2)),
        "gamma": Range(0.9, 1),
        "clip": Range(0.1, 0.3),
    }
    assert parse_space(["max_grad_norm=0.1..10:log"], "ppo")["max_grad_norm"] == Range(0.1, 10, log=True)


def test_a_grid_has_every_combination_and_a_sample_one_value_each():
    space = parse_space(["lr=1e-4..1e-2:log", "epochs=1..3", "clip=0.1,0.2"], "ppo")
    settings_ = grid(space, 5)
    assert len(settings_) == 5 * 3 * 2
    assert [x["lr"] for x in settings_[::6]] == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])
    assert settings_[1] == {"lr": 1e-4, "epochs": 1, "clip": 0.2}
    drawn = [sample(space, np.random.default_rng(k)) for k in range(20)]
    assert drawn == [sample(space, np.random.default_rng(k)) for k in range(20)]
    assert {x["clip"] for x in drawn} == {0.1, 0.2}
    assert list(drawn[0]) == list(space)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ([], "nothing to search"),
        (["lr"], "expected NAME=LOW"),
        (["lr="], "expected NAME=LOW"),
        (["=1,2"], "expected NAME=LOW"),
        (["lr=1e-2..1e-4"], "lr: a range goes from a lower to a higher"),
        (["lr=1e-3..1e-3:log"], "lower to a higher"),
        (["ent_coef=0..0.1:log"], "ent_coef: a range in logarithms must lie above 0"),
        (["lr=1e-4..1e-2:lgo"], "ends in :log, :int"),
        (["lr=1e-4..1e-2:"], "ends in :log, :int"),
        (["lr=1e-4:1e-2:log"], "expected lr=LOW"),
        (["lr=0...5"], "expected lr=LOW"),
        (["lr=1e-4..1e-2,0.1"], "expected lr=LOW"),
        (["lr=1e-3,,1e-2"], "a value is empty"),
        (["hidden=(32,32"], "not closed"),
        (["lr=1e-3,1e-3"], "twice"),
        (["lr=1,1.0"], "twice"),
        (["lr=1e-3,1e-2", "lr=0.1"], "lr is given twice"),
        (["lr=1e-3,1e-2", "learning-rate=0.1"], "lr is given twice"),
        (["lrr=1e-3,1e-2"], "ppo has no hyperparameter 'lrr'"),
        (["epsilon=0,1"], "which is one of"),
        (["ent_coefs=0,1"], "Did you mean 'ent_coef'"),
        (["gamma=0.9..1.5"], "gamma = 1.5 must be in"),
        (["gamma=0.9,1.5"], "gamma = 1.5 must be in"),
        (["epochs=1.5..3"], "epochs = 1.5 must be a whole number"),
        (["activation=0..1"], "activation takes no range"),
        (["hidden=1..64"], "hidden takes no range"),
        (["activation=tan,relu"], "Did you mean 'tanh'"),
        (["seed=0,1"], "seed is no hyperparameter"),
        ({"lr": []}, "got none"),
        ({"lr": [math.nan, 1.0]}, "must be numbers, text"),
        ({"lr": object()}, "list of values is expected"),
    ],
)
def test_mistakes_are_named(over, words):
    with pytest.raises(ConfigError, match=words):
        parse_space(over, "ppo")


def test_a_fixed_value_is_not_searched():
    with pytest.raises(ConfigError, match="learning_rate has a fixed value and values to search"):
        parse_space(["lr=1e-3,1e-2"], "ppo", {"learning_rate": 1e-3})
    parse_space(["lr=1e-3,1e-2"], "ppo", {"gamma": 0.9})


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (math.nan, 1), (0, math.inf), ("a", "b"), (True, 2), (0.5, 2)])
def test_ranges_have_two_ends(ends):
    with pytest.raises(ConfigError, match="range"):
        Range(*ends, integer=True)


def test_a_grid_needs_both_ends():
    with pytest.raises(ConfigError, match="at least 2"):
        Range(0, 1).grid(1)
