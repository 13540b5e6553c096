"""A contextual bandit: learning from a log, a policy's value with intervals, exploration.

    python examples/recommender/recommender.py [--seeds 5] [--repeats 2000] [--out recommender.png] [--page docs/recommender.md]

A recommender learns from the log of another one, and its value is estimated from a log before anybody sees it.
Every seed is a shop of its own. What a policy is worth is known, since the shop's click probabilities are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import estimates as ope
import numpy as np
from click_model import ClickModel, most_clicked
from estimates import Estimate, student
from matplotlib.axes import Axes
from online import BATCH, SIDES
from shop import Log, Recommendations, Shop, logged, logging_policy, probabilities, stored

import policygrad as pg
from policygrad.marks import markdown_table, with_tables
from policygrad.reports.style_plots import Chart, head, look, panels_figure

SOURCE = "examples/recommender/recommender.py"
SIZES = (200, 500, 2000, 10_000)  # rows of the logs that values are estimated from
CLIP = 10.0  # of the weights, where they are clipped
SHOWN = 20_000  # recommendations in the log to learn from
STEPS = 1_200_000  # learned from, every row 60 times; 20 times was too few in shops 10 to 17, where it was chosen
COMPARED = ("logging policy", "most clicked item", "greedy click model")

Coverage = dict[int, dict[str, tuple[float, float]]]
"""By rows of the log and estimate: the share of intervals that cover the truth, and their mean half-width."""


@dataclass(frozen=True)
class Side:
    """A shop with its logging policy, and what was learned from the log: all by probabilities of held-out users, (U, K)."""

    shop: Shop
    logging: np.ndarray
    most_clicked: np.ndarray
    model: ClickModel
    learned: np.ndarray

    @property
    def values(self) -> dict[str, float]:
        """V of every policy on the held-out users, without sampling."""
        greedy = self.model.greedy(self.shop.held_out.users)
        policies = self.logging, self.most_clicked, greedy, self.learned
        return dict(zip((*COMPARED, "learned"), map(self.shop.held_out.value, policies), strict=True))

    def log(self, n: int, rng: np.random.Generator) -> Log:
        """A new log of the logging policy with held-out users."""
        return logged(self.shop.held_out, self.logging, n, rng)


def learned_from_log(seed: int, steps: int = STEPS, lr: float = 3e-3, rows: int = SHOWN) -> Side:
    """A log of the training users, and an off-policy gradient on it."""
    shop = Shop.make(seed)
    policy, rng = logging_policy(shop, seed), np.random.default_rng([seed, 2])
    log = logged(shop.train, probabilities(policy, shop.train.users), rows, rng)
    agent = pg.off_policy_pg(
        lambda: Recommendations(shop.train),
        dataset=stored(log, shop.train, policy),
        seed=seed,
        preset={},
        episodes=2000,  # recommendations of an update
        weighting="trajectory",  # an episode has one step
        min_ess=0.02,
        clone_epochs=3,
        lr=lr,
    )
    agent.learn(steps)
    users, items = shop.held_out.users, shop.clicks.shape[1]
    best = np.tile(np.eye(items)[most_clicked(log, items)], (len(users), 1))
    model = ClickModel.fit(log, shop.train)
    return Side(shop, probabilities(policy, users), best, model, probabilities(agent.policy, users))


def estimated(side: Side, log: Log) -> dict[str, Estimate]:
    """Every estimate of the learned policy's value from a log, by name."""
    users, weights = side.shop.held_out.users, side.learned / side.logging
    clicks = side.model.clicks(users)
    w, r, q = weights[log.user, log.item], log.click, clicks[log.user, log.item]
    v = (side.learned * clicks).sum(1)[log.user]
    return {
        "IPS": ope.ips(w, r),
        "IPS, weights clipped at 10": ope.clipped_ips(w, r, CLIP),
        "self-normalised IPS": ope.self_normalised(w, r),
        "doubly robust": ope.doubly_robust(w, r, q, v),
        "IPS, empirical Bernstein": ope.empirical_bernstein(w, r, float(weights.max())),
    }


def clipping_bias(side: Side, most: float = CLIP) -> float:
    """E[(min(w, most) − w) r], by enumeration of users and items."""
    weights = side.learned / side.logging
    return side.shop.held_out.value(side.logging * (np.minimum(weights, most) - weights))


def coverage(side: Side, n: int, repeats: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The share of new logs whose interval covers the truth, and the mean half-width, by the estimate's name.

    The policy stays the same: it was learned from another log, of other users.
    """
    rng, truth = np.random.default_rng([seed, n]), side.values["learned"]
    found = [estimated(side, side.log(n, rng)) for _ in range(repeats)]
    return {
        name: (
            float(np.mean([each[name].covers(truth) for each in found])),
            float(np.mean([each[name].high - each[name].low for each in found])) / 2,
        )
        for name in found[0]
    }


def averaged(shops: list[Coverage]) -> Coverage:
    """The means over shops, of shares and of half-widths."""
    return {
        n: {name: tuple(np.mean([shop[n][name] for shop in shops], 0).tolist()) for name in estimates}
        for n, estimates in shops[0].items()
    }


def values_table(sides: list[Side]) -> str:
    """A row per seed, as Markdown, and the differences with Student's interval over seeds."""
    head = ["seed", *COMPARED, "learned", "learned, estimated from 2,000 rows"]
    rows = []
    for seed, side in enumerate(sides):
        guess = estimated(side, side.log(2000, np.random.default_rng([seed, 3])))["doubly robust"]
        rows.append([str(seed), *(f"{x:.3f}" for x in side.values.values()), f"{guess.value:.3f} {interval(guess)}"])
    for name in COMPARED:
        gains = np.array([side.values["learned"] - side.values[name] for side in sides])
        mean = student(gains)
        rows.append([f"learned − {name}", "", "", "", f"{mean.value:+.3f} {interval(mean)}", ""])
    return markdown_table(head, rows)


def interval(x: Estimate) -> str:
    return f"[{x.low:.3f}, {x.high:.3f}]"


def coverage_table(found: Coverage) -> str:
    """Rows are estimates, columns sizes of logs: coverage ± half-width."""
    head = ["estimate", *(f"{n:,} rows" for n in found)]
    names = next(iter(found.values()))
    rows = [[name, *(f"{each[name][0]:.1%} ± {each[name][1]:.3f}" for each in found.values())] for name in names]
    return markdown_table(head, rows)


def shops_table(shops: list[Coverage], name: str = "doubly robust") -> str:
    """Coverage of one estimate: rows are shops, columns sizes of logs."""
    head = ["seed", *(f"{n:,} rows" for n in shops[0])]
    rows = [[str(seed), *(f"{each[name][0]:.1%}" for each in found.values())] for seed, found in enumerate(shops)]
    return markdown_table(head, rows)


def online_table(curves: dict[str, np.ndarray]) -> str:
    """Rows are sides; the values while learning and at the end, means of seeds with Student's interval. curves: (seeds, T)."""
    rows = []
    for name, values in curves.items():
        during, end = student(values[:, :-1].mean(1)), student(values[:, -1])
        rows.append([name, *(f"{x.value:.3f} {interval(x)}" for x in (during, end))])
    return markdown_table(["side", "while learning", "at the end"], rows)


def picture(found: Coverage, curves: dict[str, np.ndarray]) -> Chart:
    """How often the intervals cover the truth, and the values of the sides that learn on-line."""

    def cover(axis: Axes) -> None:
        for k, name in enumerate(next(iter(found.values()))):
            axis.plot(list(found), [each[name][0] for each in found.values()], marker="o", ms=3, label=name, **look(k))
        axis.axhspan(0.93, 1.0, color="#e2e8f0", lw=0)
        axis.set(xscale="log", xlabel="rows of the log", ylabel="intervals that cover the truth", ylim=(0.0, 1.05))
        axis.set_xticks(list(found), [f"{n:,}" for n in found])
        axis.minorticks_off()
        axis.legend(loc="lower left")
        head(axis, "Coverage of 95 % intervals", "of learned policies, mean of shops; grey: ≥ 93 %")

    def learn(axis: Axes) -> None:
        for k, (name, values) in enumerate(curves.items()):
            axis.plot(BATCH * np.arange(values.shape[1]), values.mean(0), label=name, **look(k))
        axis.set(xlabel="recommendations", ylabel="clicks per recommendation, held-out users")
        axis.legend(loc="lower right")
        head(axis, "Learning on-line", "means of all seeds")

    return panels_figure([cover, learn], "A recommender whose truth is known", margin=0.55)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="shops, at least 2")
    parser.add_argument("--repeats", type=int, default=2000, help="logs of every size and shop")
    parser.add_argument("--rows", type=int, default=SHOWN, help="of the log to learn from")
    parser.add_argument("--steps", type=int, default=STEPS, help="logged recommendations learned from, with repetition")
    parser.add_argument("--updates", type=int, default=150, help="of the sides that learn on-line")
    parser.add_argument("--out", type=Path, help="the picture")
    parser.add_argument("--page", type=Path, help="a page whose tables, between markers, are written anew")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, since intervals are over seeds, got {args.seeds}")
    sides = []
    for seed in range(args.seeds):
        sides.append(learned_from_log(seed, args.steps, rows=args.rows))
        print(f"seed {seed}:", ", ".join(f"{name} {x:.3f}" for name, x in sides[-1].values.items()), flush=True)
    covered = [{n: coverage(side, n, args.repeats, seed) for n in SIZES} for seed, side in enumerate(sides)]
    found = averaged(covered)
    shops = [side.shop for side in sides]
    curves = {
        name: np.stack([learn(shop, args.updates, seed) for seed, shop in enumerate(shops)])
        for name, learn in SIDES.items()
    }
    made = {"values": values_table(sides), "coverage": coverage_table(found), "shops": shops_table(covered)}
    made["online"] = online_table(curves)
    print(*made.values(), sep="\n\n")
    print(f"\nbias of clipping at {CLIP:g}:", ", ".join(f"{clipping_bias(side):+.3f}" for side in sides))
    if args.out is not None:
        picture(found, curves).write(args.out)
    if args.page is not None:
        args.page.write_text(with_tables(args.page.read_text("utf8"), made, SOURCE), "utf8")


if __name__ == "__main__":
    main()
