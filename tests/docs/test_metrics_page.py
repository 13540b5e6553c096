"""docs/metrics.md knows every number that is logged, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from zoo import SCORED, home, quick

import policygrad as pg
from policygrad.algorithms.recipes import RECIPES
from policygrad.interop.sb3 import NO_TAG, TAGS
from policygrad.training.callbacks import EvalCallback, History

pytestmark = pytest.mark.xdist_group("metrics page")  # one training for all

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf8")
DOCUMENTED = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (.+?) \|", PAGE, re.MULTILINE))  # name → the TensorBoard column


@pytest.fixture(scope="module")
def logged() -> set[str]:
    """The numbers in the rows of all recipes, those of an evaluation, an eigenvalue and the gradient meter included."""
    names: set[str] = set()
    for algo, env in [*((algo, home(algo)) for algo in RECIPES), ("ppo", "Pendulum-v1")]:
        history = History()
        measured = {"fisher_eigenvalues": 1, "gradient_meter": True} if algo in SCORED else quick(algo)
        agent = pg.Agent(algo, env, num_envs=2, hidden=(8,), **measured)
        agent.learn(100, [EvalCallback(every=1, episodes=1), history], log_every=1)
        names |= {name for row in history.rows for name in row}
    return names


def test_the_page_describes_every_number_that_is_logged(logged):
    assert logged <= set(DOCUMENTED)


def test_every_number_on_the_page_is_logged(logged):
    assert set(DOCUMENTED) <= logged


def test_the_tensorboard_tags_on_the_page_are_the_ones_written(logged):
    for name in logged:
        tag = re.match(r"`([\w/]+)`", DOCUMENTED[name])
        if name in NO_TAG:
            assert tag is None, name
        else:
            assert tag is not None, name
            assert tag[1] == TAGS.get(name, f"train/{name}")
