"""Self-play in matrix games: why policy gradients cycle, and rules that converge.

    python examples/game/self_play.py [--iterations 3000] [--seeds 2] [--out game.png] [--page docs/game.md]

The games are of two players, and zero-sum. Each player has a table of logits and an update rule of the library. Both move at
the same time, along the exact gradient or along one that is sampled in a batch of games.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matrix_games import blotto, exploitability, nash, random_game, rock_paper_scissors
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.learner import UpdateRule
from policygrad.gradient.baselines import Baseline
from policygrad.marks import with_tables
from policygrad.models.networks import TabularNetwork
from policygrad.reports.style_plots import DOTTED, INK, PALE, THIN, Chart, head, logarithmic, look, panels_figure

SOURCE = "examples/game/self_play.py"
GAMES = {
    "rock-paper-scissors": rock_paper_scissors(),
    "rock-paper-scissors, rock wins ¼": rock_paper_scissors(0.25),
    "random, 5 × 5": random_game(),
    "Blotto, 10 × 10": blotto(),
}
GRADIENT, NATURAL, OPTIMISTIC, ANNEALED, MAGNETIC = (
    "policy gradient",
    "natural gradient",
    "natural, optimistic",
    "policy gradient, entropy annealed",
    "natural, entropy annealed",
)
RULES = (GRADIENT, NATURAL, OPTIMISTIC, ANNEALED, MAGNETIC)
FULL, FEW = "rock-paper-scissors", (GRADIENT, ANNEALED)  # the game with all rules, and the rules of the other games
SAMPLED = (ANNEALED,)  # the rules that are also shown with sampled gradients
BATCH = 2000  # games of an iteration, where the gradient is sampled


def falling(first: float, last: float) -> Callable[[float], float]:
    """A schedule that falls by the same factor in every iteration."""
    return lambda progress: first * (last / first) ** progress


def rules(actions: int) -> dict[str, Callable[[], UpdateRule]]:
    """The update rules by name, each made anew for every player.

    The rates of the plain gradient are proportional to the number of actions, since ∂J/∂θ_a has the factor π(a).
    """
    plain = partial(pg.VanillaGradient, optimizer="sgd", max_grad_norm=None)
    natural = partial(pg.NaturalGradient, damping=1e-9, solver="dense")
    bonus = falling(1.0, 0.01)
    return {
        GRADIENT: partial(plain, 0.1 * actions),
        NATURAL: partial(natural, lr=0.1),  # θ ← θ + lr · q: multiplicative weights
        OPTIMISTIC: partial(natural, lr=0.4),
        ANNEALED: partial(plain, falling(0.3 * actions, 0.03 * actions), ent_coef=bonus),
        MAGNETIC: partial(natural, lr=falling(0.3, 0.03), ent_coef=bonus),  # θ ← (1 − lr α) θ + lr q
    }


def player(actions: int, generator: torch.Generator) -> pg.Policy:
    """A table of logits N(0, ½²), one per action: there is one state. In float64."""
    policy = pg.Policy(TabularNetwork(1, actions), pg.Categorical(actions)).double()
    policy.flat.copy_(0.5 * torch.randn(actions, generator=generator, dtype=torch.float64))
    return policy


def probabilities(policy: pg.Policy) -> Tensor:
    """π, (A,)."""
    return policy.flat.detach().softmax(0)


def exact_batch(policy: pg.Policy, gains: Tensor) -> pg.Batch:
    """Every action once, weighted by π, with its gain q(a), (A,): Σ π(a) q(a) ∇log π(a) is the exact gradient."""
    actions = len(gains)
    pi = probabilities(policy)
    return pg.Batch.of(
        torch.ones(actions, 1).double(), torch.arange(actions), pi, logp=pi.log(), adv=gains - pi @ gains
    )


def games(policy: pg.Policy, act: Tensor, reward: Tensor) -> pg.Rollout:
    """N games as one player sees them, episodes of one step: its actions (N,) and its payoffs (N,)."""
    obs, end = torch.ones(2, len(act), 1).double(), torch.ones(1, len(act), dtype=torch.bool)
    logp = policy.log_probs(obs[:-1], act.unsqueeze(0))
    return pg.Rollout(
        obs, obs[1:], act.unsqueeze(0), reward.unsqueeze(0), logp, end, ~end, ~end, end, torch.zeros(end.shape).long()
    )


@dataclass(frozen=True)
class Play:
    """The exploitability of every iterate, and of the mean of the later half of them so far: (iterations,) each."""

    last: np.ndarray
    mean: np.ndarray
    x: np.ndarray  # (iterations, A) strategies of the row player
    y: np.ndarray  # (iterations, B) and of the column player


def self_play(payoff: np.ndarray, name: str, iterations: int, seed: int = 0, batch: int | None = None) -> Play:
    """Both players learn by a rule. batch: games of an iteration; None: the exact gradient."""
    generator, A = torch.Generator().manual_seed(seed), torch.as_tensor(payoff)
    payoffs = A, -A.T  # of every player: own actions × the other's
    policies = [player(len(each), generator) for each in payoffs]
    updates = [rules(len(each))[name]() for each in payoffs]
    learners = [
        pg.Learner(policy, pg.TotalReturn(), update, baseline=pg.LeaveOneOut(), reduction="trajectory")
        for policy, update in zip(policies, updates, strict=True)
    ]
    before: list[Tensor] | None = None
    shown: list[list[np.ndarray]] = []
    for t in range(iterations):
        pi = [probabilities(policy) for policy in policies]
        shown.append([each.numpy() for each in pi])
        if batch is None:
            gains = [own @ other for own, other in zip(payoffs, reversed(pi), strict=True)]
            for policy, update, gain, old in zip(policies, updates, gains, before or gains, strict=True):
                ahead = 2.0 * gain - old if name == OPTIMISTIC else gain
                update(policy, exact_batch(policy, ahead), t / iterations)
            before = gains
        else:
            x, y = (torch.multinomial(each, batch, replacement=True, generator=generator) for each in pi)
            for policy, learner, act, reward in zip(policies, learners, (x, y), (A[x, y], -A[x, y]), strict=True):
                learner.step(games(policy, act, reward), t / iterations)
    return measured(payoff, shown)


def later_mean(x: np.ndarray) -> np.ndarray:
    """At every iteration the mean of the later half of the strategies so far: (T, A) → (T, A)."""
    sums, end = np.vstack([np.zeros_like(x[:1]), x.cumsum(0)]), np.arange(1, len(x) + 1)
    return (sums[end] - sums[end // 2]) / (end - end // 2)[:, None]


def measured(payoff: np.ndarray, shown: list[list[np.ndarray]]) -> Play:
    """What the strategies of every iteration are worth, and their means."""
    x, y = (np.array([pair[side] for pair in shown]) for side in (0, 1))
    both = zip(x, y, strict=True), zip(later_mean(x), later_mean(y), strict=True)
    last, mean = (np.array([exploitability(payoff, *pair) for pair in pairs]) for pairs in both)
    return Play(last, mean, x, y)


def worst(x: np.ndarray) -> float:
    """The largest of the last tenth, so that a lucky last iterate does not count."""
    return float(x[-max(len(x) // 10, 1) :].max())


def compared(iterations: int, seeds: int) -> dict[tuple[str, str, bool], list[Play]]:
    """(game, rule, whether sampled) → plays: one of the exact gradient, one per seed of the sampled one."""
    found = {}
    for game, payoff in GAMES.items():
        for rule in RULES if game == FULL else FEW:
            found[game, rule, False] = [self_play(payoff, rule, iterations)]
            if rule in SAMPLED:
                found[game, rule, True] = [self_play(payoff, rule, iterations, seed, BATCH) for seed in range(seeds)]
            print(game, "|", rule, "|", *(f"{worst(x.last):.4f}" for k in (False, True)
                  for x in found.get((game, rule, k), [])), flush=True)  # fmt: skip
    return found


def table(found: dict[tuple[str, str, bool], list[Play]]) -> str:
    """A row per game and rule, as Markdown: exploitability, the largest of all seeds where the gradient is sampled."""
    lines = ["| game | rule | exact: last | exact: time average | sampled: last | sampled: time average |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for game in dict.fromkeys(key[0] for key in found):
        for rule in (key[1] for key in found if key[0] == game and not key[2]):
            cells = [game, rule]
            for sampled in (False, True):
                plays = found.get((game, rule, sampled))
                cells += (
                    ["–", "–"]
                    if plays is None
                    else [f"{max(worst(p.last) for p in plays):.3f}", f"{max(worst(p.mean) for p in plays):.3f}"]
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sampling_table(repeats: int = 100) -> str:
    """How far the sampled gradient is from the exact one in rock-paper-scissors, as Markdown."""
    payoff, lines = (
        torch.as_tensor(rock_paper_scissors()),
        ["| games | no baseline | leave-one-out |", "|---:|---:|---:|"],
    )
    generator = torch.Generator().manual_seed(0)
    policy, other = player(3, generator), player(3, generator)
    exact = exact_gradient(policy, payoff @ probabilities(other))
    for count in (16, 256, 4096):
        cells = [f"{count:,}"]
        for baseline in (pg.NoBaseline(), pg.LeaveOneOut()):
            off = [sampled_gradient(policy, other, payoff, count, baseline, generator) - exact for _ in range(repeats)]
            cells.append(f"{float(torch.stack(off).square().sum(1).mean().sqrt() / exact.norm()):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def exact_gradient(policy: pg.Policy, gains: Tensor) -> Tensor:
    """Σ π(a) q(a) ∇log π(a), (A,)."""
    batch = exact_batch(policy, gains)
    return policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()


def sampled_gradient(
    policy: pg.Policy, other: pg.Policy, payoff: Tensor, count: int, baseline: Baseline, generator: torch.Generator
) -> Tensor:
    """The same from `count` games, as the learner estimates it, (A,)."""
    x, y = (torch.multinomial(probabilities(each), count, True, generator=generator) for each in (policy, other))
    rollout = games(policy, x, payoff[x, y])
    adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.TotalReturn(), baseline)
    batch = rollout.flatten(adv, "trajectory")
    return policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()


def picture(found: dict[tuple[str, str, bool], list[Play]]) -> Chart:
    """Exploitability in rock-paper-scissors, and the strategies of the row player, with the exact gradient."""
    plays = {rule: found[FULL, rule, False][0] for rule in (GRADIENT, OPTIMISTIC, ANNEALED, MAGNETIC)}
    equilibrium, iterations = nash(GAMES[FULL])[0], len(plays[GRADIENT].last)

    def curves(axis: Axes) -> None:
        for k, (rule, play) in enumerate(plays.items()):
            axis.plot(np.arange(1, iterations + 1), play.last, label=rule, **look(k))
        axis.plot(np.arange(1, iterations + 1), plays[GRADIENT].mean, label=f"{GRADIENT}, time average", **look(4))
        axis.axhline(0.02, color=INK, ls=DOTTED, lw=THIN)
        axis.set(xscale="log", yscale="log", xlabel="iteration", ylabel="exploitability", ylim=(1e-4, 2.0))
        logarithmic(axis.xaxis)
        logarithmic(axis.yaxis)
        axis.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")
        head(
            axis,
            "Exploitability of the last iterate",
            "rock-paper-scissors, exact gradients; dotted: 0.02",
        )

    def triangle(axis: Axes) -> None:
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
        axis.plot(*corners[[0, 1, 2, 0]].T, color=PALE, lw=THIN)
        for k, rule in ((0, GRADIENT), (3, MAGNETIC)):
            axis.plot(*(plays[rule].x @ corners).T, label=rule, alpha=0.8, color=look(k)["color"])
        axis.plot(*(equilibrium @ corners), "o", color=INK, ms=4, label="equilibrium")
        for name, corner, place in zip(
            ("rock", "paper", "scissors"), corners, ("right", "left", "center"), strict=True
        ):
            up = 0.03 if name == "scissors" else -0.03
            axis.text(corner[0], corner[1] + up, name, ha=place, va="bottom" if up > 0 else "top", color=PALE)
        axis.set(xlim=(-0.15, 1.15), ylim=(-0.45, 1.0), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.legend(loc="lower center")
        head(axis, "Strategies of one player", "each point is a mixture of rock, paper and scissors")

    return panels_figure([curves, triangle], "Self-play by policy gradients", margin=0.55)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=2, help="of the sampled gradients")
    parser.add_argument("--out", type=Path, help="the picture")
    parser.add_argument("--page", type=Path, help="a page whose tables, between markers, are written anew")
    args = parser.parse_args()
    for game, payoff in GAMES.items():
        x, y, value = nash(payoff)
        print(f"{game}: value {value:.3f}, exploitability of the linear program {exploitability(payoff, x, y):.1e}")
    found = compared(args.iterations, args.seeds)
    made = {"games": table(found), "sampling": sampling_table()}
    print(*made.values(), sep="\n\n")
    if args.out is not None:
        picture(found).write(args.out)
    if args.page is not None:
        args.page.write_text(with_tables(args.page.read_text("utf8"), made, SOURCE), "utf8")


if __name__ == "__main__":
    main()
