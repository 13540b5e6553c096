"""Every number that is logged is described, in `policygrad list metrics` and docs/metrics.md, and no other."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from zoo import SCORED, home, quick

import policygrad as pg
from policygrad.algorithms.recipes import RECIPES
from policygrad.interop.metrics import METRICS
from policygrad.interop.sb3 import scalars
from policygrad.training.callbacks import EvalCallback, History

pytestmark = pytest.mark.xdist_group("metrics page")  # one training for all


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


def test_every_number_that_is_logged_is_described_and_no_other(logged):
    assert logged == set(METRICS)


def test_the_page_has_the_descriptions(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    pages = importlib.import_module("pages")
    text = pages.DOCS.joinpath("metrics.md").read_text("utf8")
    assert text == pages.written(pages.DOCS / "metrics.md")
    for name, metric in METRICS.items():
        assert f"| `{name}` | {f'`{metric.written}`' if metric.written else metric.tag} | " in text


def test_numbers_are_written_under_the_tags_that_are_described():
    found = scalars(dict.fromkeys(METRICS, 1.0) | {"mine": 1.0})
    beside = {"train/mine", "train/is_line_search_success"}
    assert set(found) == {metric.written for metric in METRICS.values() if metric.written} | beside
    assert {"rollout/exploration_rate", "train/ent_coef", "train/approx_kl", "train/learning_rate"} <= set(found)
