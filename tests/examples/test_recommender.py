"""The recommender of examples/recommender: estimates against exact values, their intervals, and what is learned from a log."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import policygrad as pg

FOLDER = Path(__file__).parents[2] / "examples" / "recommender"


class Modules:
    """The files of the example, imported as it imports them."""

    def __init__(self) -> None:
        self.run, self.shop, self.ope, self.model, self.online = (
            importlib.import_module(name) for name in ("recommender", "shop", "estimates", "click_model", "online")
        )


@pytest.fixture
def x(monkeypatch) -> Modules:
    monkeypatch.syspath_prepend(FOLDER)
    return Modules()


def quick_side(x: Modules, seed: int = 0) -> Any:
    """A side whose policy is a click model's, nearly greedy: nothing is trained by gradients."""
    shop = x.shop.Shop.make(seed)
    acted = x.shop.logging_policy(shop, seed)
    chosen = [x.shop.probabilities(acted, half.users) for half in (shop.train, shop.held_out)]
    log = x.shop.logged(shop.train, chosen[0], 5000, np.random.default_rng(seed))
    model = x.model.ClickModel.fit(log, shop.train)
    return x.run.Side(shop, chosen[1], chosen[1], model, model.greedy(shop.held_out.users, 0.1))


def every_row() -> tuple[np.ndarray, ...]:
    """A log whose shares are exactly the probabilities: 2 users, 2 items, π, μ and p in quarters. → (w, r, user, item)."""
    mu, pi = np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[0.75, 0.25], [0.25, 0.75]])
    p = np.array([[0.5, 0.25], [0.75, 0.5]])
    rows = [
        (u, k, r)
        for u in range(2)
        for k in range(2)
        for r, share in ((1.0, p[u, k]), (0.0, 1.0 - p[u, k]))
        for _ in range(round(16 * mu[u, k] * share))
    ]
    user, item, reward = (np.array(column) for column in zip(*rows, strict=True))
    return pi, p, pi[user, item] / mu[user, item], reward, user, item


def test_on_all_rows_with_their_probabilities_the_estimates_are_the_truth_and_the_clipped_one_is_off_by_its_bias(x):
    pi, p, w, r, user, item = every_row()
    truth = float((pi * p).sum(1).mean())
    anything = np.array([[0.9, 0.2], [0.1, 0.4]])  # a click model that is wrong
    v = (pi * anything).sum(1)[user]
    assert x.ope.ips(w, r).value == pytest.approx(truth, abs=1e-12)
    assert x.ope.self_normalised(w, r).value == pytest.approx(truth, abs=1e-12)  # the mean of w is 1 here
    assert x.ope.doubly_robust(w, r, anything[user, item], v).value == pytest.approx(truth, abs=1e-12)
    bias = float(((np.minimum(w, 2.0) - w) * r).mean())
    assert bias < -0.01
    assert x.ope.clipped_ips(w, r, 2.0).value == pytest.approx(truth + bias, abs=1e-12)
    assert abs(r.mean() - truth) > 0.01  # without weights it is the value of the logging policy


def test_the_intervals_are_those_of_the_literature(x):
    rng = np.random.default_rng(0)
    w, r = rng.exponential(size=50), rng.random(50).round()
    low, high = stats.ttest_1samp(w * r, 0.0).confidence_interval(0.95)
    found = x.ope.ips(w, r)
    assert (found.low, found.high) == pytest.approx((low, high))
    wide = x.ope.empirical_bernstein(w, r, 10.0)
    half = np.sqrt(2 * (w * r).var(ddof=1) * np.log(80) / 50) + 7 * 10.0 * np.log(80) / (3 * 49)
    assert wide.high - wide.value == pytest.approx(half)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_doubly_robust_interval_covers_the_truth_in_93_percent_of_logs_and_clipped_weights_do_not(x, seed):
    side = quick_side(x, seed)
    found = x.run.coverage(
        side, 2000, 1000, seed
    )  # with 200 the share has a standard error of 1.5 %, with 1,000 one of 0.7 %
    assert found["doubly robust"][0] >= 0.93
    assert found["IPS, empirical Bernstein"][0] >= 0.95
    assert found["IPS, weights clipped at 10"][0] < 0.93  # the negative control
    assert x.run.clipping_bias(side) < -0.01


def test_a_policy_that_was_chosen_by_the_same_log_is_overestimated_on_it(x):
    """Why the log to learn from and the log to estimate from are two."""
    side, rng = quick_side(x), np.random.default_rng(0)
    log, users = side.log(500, rng), len(side.shop.held_out.users)
    policies = [np.eye(10)[rng.integers(10, size=users)] for _ in range(200)]  # each at random
    weights = [policy / side.logging for policy in policies]
    values = [float((w[log.user, log.item] * log.click).mean()) for w in weights]
    best = int(np.argmax(values))
    truth = side.shop.held_out.value(policies[best])
    assert values[best] > truth + 0.05
    again = side.log(20_000, rng)
    assert x.ope.ips(weights[best][again.user, again.item], again.click).value == pytest.approx(truth, abs=0.05)


def test_the_environment_clicks_as_the_shop_says_and_its_stored_log_is_a_data_set_of_the_library(x):
    shop = x.shop.Shop.make(0, users=4, items=3)
    env = x.shop.Recommendations(shop)
    env.reset(seed=0)
    clicks = []
    for _ in range(2000):
        env.reset()
        _, reward, terminated, truncated, _ = env.step(1)
        assert terminated
        assert not truncated
        clicks.append(reward)
    p = float(shop.clicks[:, 1].mean())
    assert abs(np.mean(clicks) - p) < 4 * np.sqrt(p * (1 - p) / 2000)

    policy = x.shop.logging_policy(shop)
    chosen = x.shop.probabilities(policy, shop.users)
    assert chosen.sum(1) == pytest.approx(np.ones(4))
    assert chosen.min() >= 0.2 / 3 - 1e-6
    log = x.shop.logged(shop, chosen, 50, np.random.default_rng(0))
    stored = x.shop.stored(log, shop, policy)
    stored.check(policy, env.observation_space, env.action_space)
    rollout = stored.rollout(policy)
    torch.testing.assert_close(rollout.logp, rollout.behavior)  # the logged probabilities are the policy's own
    assert rollout.trajectories == 50
    assert rollout.rew.sum() == log.click.sum()


def test_what_is_learned_from_the_log_beats_the_logging_policy_and_the_most_clicked_item(x):
    values = x.run.learned_from_log(0, 48_000, lr=0.02).values
    assert values["learned"] > values["most clicked item"] + 0.05
    assert values["most clicked item"] > values["logging policy"]


@pytest.mark.slow
def test_the_intervals_of_learned_policies_cover_in_every_shop_and_they_beat_the_log_and_its_most_clicked_item(x):
    """Over five shops, the share of 1,000 logs each, whose standard error is 0.7 %. The truth is a sum, not a sample."""
    shares = []
    for seed in range(5):
        side = x.run.learned_from_log(seed)
        found = x.run.coverage(side, 2000, 1000, seed)
        shares.append([found[name][0] for name in ("doubly robust", "IPS, weights clipped at 10")])
        values = side.values
        assert values["learned"] > max(values["logging policy"], values["most clicked item"])
    assert min(right for right, _ in shares) >= 0.93
    assert np.mean([biased for _, biased in shares]) < 0.93  # the negative control


def test_coverage_is_averaged_over_shops(x):
    found = [{200: {"a": (0.9, 0.2), "b": (1.0, 0.5)}}, {200: {"a": (1.0, 0.4), "b": (1.0, 0.7)}}]
    mean = x.run.averaged(found)[200]
    assert mean["a"] == pytest.approx((0.95, 0.3))
    assert mean["b"] == pytest.approx((1.0, 0.6))
    assert x.run.shops_table(found, "a").splitlines()[2:] == ["| 0 | 90.0% |", "| 1 | 100.0% |"]


def test_a_click_model_is_ridge_regression_and_the_most_clicked_item_has_the_highest_rate(x):
    shop = x.shop.Shop(np.array([[0.0], [1.0]], np.float32), np.array([[0.2, 0.4], [0.8, 0.4]]))
    log = x.shop.Log(
        np.array([0, 0, 1, 1, 0]), np.array([0, 0, 0, 0, 1]), np.ones(5), np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    )
    model = x.model.ClickModel.fit(log, shop, ridge=1e-9)
    assert model.clicks(shop.users)[:, 0] == pytest.approx([0.5, 1.0])
    assert x.model.most_clicked(log, 2) == 1
    assert model.greedy(shop.users, 0.2).sum(1) == pytest.approx([1.0, 1.0])


def test_on_line_a_policy_gradient_learns_and_visits_of_a_user_are_a_group(x):
    shop = x.shop.Shop.make(0)
    values = x.online.by_gradient(shop, 20, 0, grouped=True)
    assert values.shape == (21,)
    assert values[-1] > values[0] + 0.02
    assert np.array_equal(values, x.online.by_gradient(shop, 20, 0, grouped=True))
    log = x.shop.logged(shop, np.full((1000, 10), 0.1), 8, np.random.default_rng(0), visits=4)
    assert len(np.unique(log.user)) == 2
    policy = x.shop.logging_policy(shop)
    rollout = x.online.episodes(log, shop, policy)
    adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.TotalReturn(), pg.LeaveOneOut(by="user"))
    expected = log.click - (log.click.reshape(2, 4).sum(1).repeat(4) - log.click) / 3
    assert adv.squeeze(0).numpy() == pytest.approx(expected, abs=1e-6)


def test_the_script_writes_tables_and_a_picture(x, tmp_path, monkeypatch, capsys):
    page, picture = tmp_path / "page.md", tmp_path / "recommender.png"
    names = ("values", "coverage", "shops", "online")
    page.write_text("\n".join(f"<!-- {name}: from {x.run.SOURCE} -->\n<!-- end of {name} -->" for name in names))
    given = ["--seeds", "2", "--repeats", "2", "--updates", "2", "--out", str(picture), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["recommender.py", *given])
    monkeypatch.setattr(x.run, "learned_from_log", lambda seed, steps, rows: quick_side(x, seed))
    x.run.main()
    text = page.read_text("utf8")
    assert "| learned − logging policy |" in text
    assert "| doubly robust |" in text
    assert "| policy gradient |" in text
    shops = text.split("<!-- end of shops -->")[0].split("<!-- shops: ")[1]
    assert [line[:4] for line in shops.splitlines()[4:6]] == ["| 0 ", "| 1 "]
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["recommender.py", "--seeds", "1"])
    with pytest.raises(SystemExit):
        x.run.main()
    assert "at least 2" in capsys.readouterr().err
