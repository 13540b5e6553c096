"""The matrix games of examples/game: equilibria, gradients against closed forms, cycles and what ends them."""

from __future__ import annotations

import importlib
import itertools
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import policygrad as pg

FOLDER = Path(__file__).parents[2] / "examples" / "game"
DOUBLE = torch.float64


@pytest.fixture
def games(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("matrix_games")


@pytest.fixture
def play(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("self_play")


def pair(play: ModuleType, actions: int = 3) -> tuple[pg.Policy, pg.Policy, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return play.player(actions, generator), play.player(actions, generator), torch.tensor(play.random_game(actions))


def test_the_linear_program_finds_equilibria_that_are_known_and_every_one_is_unexploitable(games, play):
    for payoff in play.GAMES.values():
        assert np.abs(payoff).max() <= 1.0
        x, y, value = games.nash(payoff)
        assert games.exploitability(payoff, x, y) < 1e-9
        assert x @ payoff @ y == pytest.approx(value, abs=1e-9)
    assert games.nash(games.rock_paper_scissors())[0] == pytest.approx([1 / 3] * 3)
    # xᵀA = 0 for A antisymmetric: x is proportional to the payoffs of the other two against each other
    assert games.nash(games.rock_paper_scissors(0.25))[0] == pytest.approx(np.array([1.0, 0.25, 1.0]) / 2.25)


def test_exploitability_is_what_best_responses_gain_and_grows_away_from_the_equilibrium(games):
    payoff, uniform, rock = games.rock_paper_scissors(), np.full(3, 1 / 3), np.array([1.0, 0.0, 0.0])
    assert games.exploitability(payoff, rock, uniform) == pytest.approx(
        0.5
    )  # paper gains 1 against rock, the other nothing
    assert games.exploitability(payoff, rock, rock) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="finite"):
        games.nash(np.array([[0.0, np.nan]]))


def test_the_divisions_of_blotto_are_all_of_them_and_the_game_is_symmetric(games):
    assert len(games.blotto(5, 3)) == 21
    assert np.array_equal(games.blotto(), -games.blotto().T)


def test_the_exact_gradient_is_that_of_the_expected_payoff(play):
    policy, other, payoff = pair(play)
    logits = policy.flat.detach().clone().requires_grad_()
    (logits.softmax(0) @ payoff @ play.probabilities(other)).backward()
    torch.testing.assert_close(play.exact_gradient(policy, payoff @ play.probabilities(other)), logits.grad)


def test_the_mean_of_the_sampled_gradient_over_all_pairs_of_games_is_the_exact_one(play):
    """Leave-one-out couples the games of a batch: every batch of two, weighted by its probability."""
    policy, other, payoff = pair(play)
    x, y = play.probabilities(policy), play.probabilities(other)
    exact = play.exact_gradient(policy, payoff @ y)
    for baseline in (pg.NoBaseline(), pg.LeaveOneOut()):
        mean = torch.zeros(3, dtype=DOUBLE)
        for a, b, c, d in itertools.product(range(3), repeat=4):
            mine, theirs = torch.tensor([a, b]), torch.tensor([c, d])
            rollout = play.games(policy, mine, payoff[mine, theirs])
            adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.TotalReturn(), baseline)
            batch = rollout.flatten(adv, "trajectory")
            p = x[a] * x[b] * y[c] * y[d]
            mean += p * policy.evaluate(batch).gradient(batch.weight * batch.adv)
        torch.testing.assert_close(mean, exact, rtol=0.0, atol=1e-12)
    assert (exact + mean).norm() > exact.norm()  # a sign that was wrong would be seen


def test_the_natural_rule_with_an_entropy_bonus_is_magnetic_mirror_descent_and_without_it_multiplicative_weights(play):
    """Sokota et al. 2023: π' ∝ (π ρ^{ηα} e^{ηq})^{1/(1 + ηα)}, ρ uniform, where lr = η / (1 + ηα)."""
    policy, other, payoff = pair(play, 5)
    gains, old = payoff @ play.probabilities(other), play.probabilities(policy)
    eta, alpha = 0.5, 0.2
    for bonus, expected in (
        (alpha, (old.log() + eta * gains) / (1.0 + eta * alpha)),
        (0.0, old.log() + eta / (1.0 + eta * alpha) * gains),
    ):
        policy.flat.copy_(old.log())
        rule = pg.NaturalGradient(lr=eta / (1.0 + eta * alpha), damping=1e-9, solver="dense", ent_coef=bonus)
        rule(policy, play.exact_batch(policy, gains))
        torch.testing.assert_close(play.probabilities(policy), expected.softmax(0), rtol=1e-6, atol=1e-8)
    assert (play.probabilities(policy) - old).abs().max() > 0.01


def test_without_a_bonus_the_last_iterate_moves_away_from_the_equilibrium_and_the_time_average_to_it(play):
    found = play.self_play(play.GAMES["rock-paper-scissors"], play.GRADIENT, 600)
    assert found.last[-60:].min() > 0.2
    assert found.last[-60:].mean() > found.last[:60].mean()
    assert found.mean[-1] < 0.2 * found.mean[0]


def test_multiplicative_weights_never_come_nearer_to_the_interior_equilibrium(play):
    """Bailey & Piliouras 2018: the summed KL divergence from the equilibrium to the strategies does not fall."""
    found = play.self_play(play.GAMES["rock-paper-scissors"], play.NATURAL, 60)
    kl = -np.log(found.x).mean(1) - np.log(found.y).mean(1)
    assert (np.diff(kl) > -1e-9).all()
    calmer = play.self_play(play.GAMES["rock-paper-scissors"], play.MAGNETIC, 60)
    assert (np.diff(-np.log(calmer.x).mean(1)) < 0.0).any()  # the negative control


def test_the_optimistic_rule_is_below_two_hundredths_and_comes_near_the_equilibrium_of_the_linear_program(play):
    payoff = play.rock_paper_scissors()
    found = play.self_play(payoff, play.OPTIMISTIC, 500)
    assert play.worst(found.last) < 0.02
    assert np.abs(found.x[-1] - play.nash(payoff)[0]).max() < 0.1


def test_the_script_writes_tables_and_a_picture(play, tmp_path, monkeypatch, capsys):
    page, picture = tmp_path / "page.md", tmp_path / "game.png"
    places = [f"<!-- {name}: from {play.SOURCE} -->\n<!-- end of {name} -->\n" for name in ("games", "sampling")]
    page.write_text("\n".join(places))
    given = ["--iterations", "10", "--seeds", "1", "--out", str(picture), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["self_play.py", *given])
    monkeypatch.setattr(play, "GAMES", {play.FULL: play.rock_paper_scissors()})
    monkeypatch.setattr(play, "BATCH", 10)
    monkeypatch.setattr(play, "sampling_table", partial(play.sampling_table, 2))
    play.main()
    assert f"| rock-paper-scissors | {play.MAGNETIC} |" in page.read_text("utf8")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no place for the table"):
        play.with_tables("nothing", {"games": "|"}, play.SOURCE)
