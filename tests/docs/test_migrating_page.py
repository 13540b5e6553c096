"""docs/migrating.md knows every alias, and promises none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policygrad.algorithms.config import aliases, parameters, pieces, resolve
from policygrad.algorithms.foreign import ANSWERS
from policygrad.algorithms.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text("utf8")
ROW = re.compile(r"^\| (.+?) \| (.*?) \|", re.MULTILINE)
UNDERSTOOD = re.compile(r"^\| (`.+?`) \| (.+?) \| ✓", re.MULTILINE)
NAME = re.compile(r"`(\w+)`")
EVERY = {name for algo in RECIPES for name in parameters(algo)} | {"seed"}


def pairs() -> list[tuple[str, str]]:
    """(their name, ours) in every row that says the name is understood."""
    found = []
    for theirs, ours in UNDERSTOOD.findall(PAGE):
        names = NAME.findall(theirs)
        found += zip(names, names if "the same" in ours else NAME.findall(ours), strict=True)
    return found


def test_every_alias_is_on_the_page_with_the_name_it_stands_for():
    every = {pair for algo in RECIPES for pair in aliases(algo).items()}
    assert len(every) > 20
    assert every <= set(pairs())


def test_every_name_that_the_page_calls_understood_is():
    assert {("batch_size", "minibatches"), ("batch_size", "critic_minibatches")} <= set(pairs())
    for theirs, ours in pairs():
        meanings = {aliases(algo).get(theirs, theirs) for algo in RECIPES}
        assert theirs == "batch_size" or ours in meanings
        assert ours in EVERY


def test_every_name_of_ours_in_the_tables_of_hyperparameters_is_one():
    rest = PAGE.partition("### Hyperparameters")[2]
    tables = [
        rest.partition("### Around")[0],
        rest.partition("## From CleanRL")[2].partition("CleanRL's attraction")[0],
    ]
    ours = {
        word for table in tables for _, column in ROW.findall(table) for word in re.findall(r"`([a-z_]+)[=`]", column)
    }
    assert len(ours) > 15
    assert ours - EVERY - {"body"} == set()


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_aliases_of_the_page_reach_the_configuration(theirs, ours):
    if ours == "seed":
        return
    value, expected = {"standardize": (False, "no"), "shrink": (0.5, 0.5)}.get(ours, (1, 1))
    given = {}
    if theirs == "batch_size":
        given, value, expected = {"num_envs": 8, "num_steps": 128}, 256, 4
    means = pieces if theirs == "batch_size" else lambda algo: aliases(algo).get(theirs, theirs)
    algo = next(algo for algo in ("ppo", "trpo") if means(algo) == ours and ours in parameters(algo))
    config, _ = resolve(algo, "CartPole-v1", given | {theirs: value})
    assert config[ours] == expected


def test_every_name_that_has_to_be_changed_is_answered_in_an_error():
    """In the tables of hyperparameters; a line of Spinning Up's is of functions and of the shell."""
    rest = PAGE.partition("### Hyperparameters")[2].partition("### Around")[0]
    rest += PAGE.partition("## From CleanRL")[2].partition("## What is different")[0]
    rows = [(theirs, line) for line in rest.splitlines() if (m := ROW.match(line)) and (theirs := m[1]) != "---"]
    words = {
        re.split(r"[=(]", word)[0]
        for theirs, line in rows
        if "✓" not in line
        for word in re.findall(r"`(\w[^`]*)`", theirs)
    }
    words -= EVERY | {word for algo in RECIPES for word in aliases(algo)} | NO_KEYWORDS
    assert {"vf_coef", "use_sde", "policy_kwargs", "device", "anneal_lr", "ac_kwargs"} <= words
    assert words - set(ANSWERS) == set()


NO_KEYWORDS = {
    "vpg_pytorch",
    "ppo_pytorch",
    "trpo",
    '"MlpPolicy"',
    '"CnnPolicy"',
    '"MultiInputPolicy"',
    "python -m spinup.run ppo --env E --exp_name n",
}
