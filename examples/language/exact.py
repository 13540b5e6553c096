"""RLOO, GRPO, DAPO, REINFORCE++ and KL penalties against the exact gradient, of 40 answers: which of them estimate ∇J?

    python examples/language/exact.py [--group 8] [--out language.png] [--page docs/language.md]

Three letters and an end, at most three letters: 40 answers. A group of G answers is one of 40ᴳ, so the mean and the variance of
any estimator are finite sums, without sampling. page: a file whose tables, between markers, are written anew.

The lengths in the first table are changes in a step along the mean estimate that is as long as the step along ∇J that raises J
by 0.1. In the table of ratios the baseline is constant.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from exact_kl import kl_rows, kl_values
from exact_names import Classes, Named, audit, difficulty_weight, greedy_reward, named
from exact_ratios import micro_rows, ratio_rows, temperature_rows
from matplotlib.axes import Axes
from tiny_language import Answers, Language, ascended, random_policy

import policygrad as pg
from policygrad.marks import markdown_table, with_tables
from policygrad.reports.style_plots import COLORS, DOTTED, INK, THIN, head, logarithmic, look, panels_figure

SHOWN = ("RLOO", "GRPO", "DAPO", "REINFORCE++")  # of the curves


def decimal(x: float, digits: int = 3) -> str:
    """A number for a table; what is 0 up to rounding is 0."""
    return "–" if math.isnan(x) else "0" if abs(x) < 1e-12 else f"{round(x, digits) + 0.0:.{digits}f}"


def tables(language: Language, group: int) -> dict[str, str]:
    """Every table of the page, by name."""
    reference = random_policy(language)
    policy = ascended(language, reference, 0.5)  # half of its answers are right, as after supervised learning
    further = ascended(language, policy, 0.7)
    names = named(language, greedy_reward(language, policy))
    answers = Answers.of(language, policy)
    eight = torch.multinomial(answers.p, 8, replacement=True, generator=torch.Generator().manual_seed(0))
    return {
        "estimators": estimator_table(language, policy, group),
        "kl": kl_table(language, policy, reference),
        "kl values": value_table(language, policy, reference),
        "ratios": ratio_table(language, policy, further),
        "temperatures": temperature_table(language, policy),
        "micro-batches": micro_table(policy, answers.rollout.columns(eight), names),
    }


def estimator_table(language: Language, policy: pg.Policy, group: int) -> str:
    head = ["name", "bias²", "variance", "variance / ‖E ĝ‖²", "cosine", "length", "length of wrong answers"]
    rows = [
        [row.named.name, *map(decimal, (row.bias2, row.variance, row.noise, row.cosine, row.longer, row.wrong_longer))]
        for row in audit(language, policy, group)
    ]
    return markdown_table(head, rows)


def kl_table(language: Language, policy: pg.Policy, reference: pg.Policy) -> str:
    head = ["estimator", "size of the mean", "cosine with ∇KL(π ‖ ref)", "cosine with ∇KL(ref ‖ π)", "variance"]
    rows = [
        [f"{row.kind} {row.placed}", *map(decimal, (row.size, row.reverse, row.forward)), decimal(row.variance, 1)]
        for row in kl_rows(language, policy, reference)
    ]
    return markdown_table(head, rows)


def value_table(language: Language, policy: pg.Policy, reference: pg.Policy) -> str:
    rows = [[kind, *map(decimal, numbers)] for kind, numbers in kl_values(language, policy, reference).items()]
    return markdown_table(["estimate", "mean", "standard deviation"], rows)


def ratio_table(language: Language, old: pg.Policy, new: pg.Policy) -> str:
    rows = [
        [row.name, decimal(row.bias2), decimal(row.variance, 2), decimal(row.cosine)]
        for row in ratio_rows(language, old, new)
    ]
    return markdown_table(["ratio", "bias²", "variance", "cosine"], rows)


def temperature_table(language: Language, policy: pg.Policy, temperature: float = 0.7) -> str:
    rows = [
        [row.what, decimal(row.ratio), row.against, decimal(row.bias2), decimal(row.cosine)]
        for row in temperature_rows(language, policy, temperature)
    ]
    return markdown_table(["training", "largest error of the first ratio", "∇J of", "bias²", "cosine"], rows)


def micro_table(policy: pg.Policy, rollout: pg.Rollout, names: list[Named]) -> str:
    rows = [
        [row.name, *("same" if x <= 1e-6 else f"{100 * x:.0f} % off" for x in (row.rows, row.mean, row.all))]
        for row in micro_rows(policy, rollout, names, 4)
    ]
    return markdown_table(["name", "rows split", "mean in each", "mean and statistics in each"], rows)


# --- the picture ---------------------------------------------------------------------------------------------------


def draw(language: Language, group: int, steps: int, out: Path) -> None:
    """What the error is made of; which prompts GRPO prefers; how the wrong answers grow."""
    policy = ascended(language, random_policy(language), 0.5)
    panels = [
        lambda axis: draw_errors(axis, language, policy, group),
        lambda axis: draw_difficulty(axis, named(language, 0.0)),
        lambda axis: draw_lengths(axis, language, group, steps),
    ]
    panels_figure(panels, "Estimators of language models, exactly", margin=1.15).write(out)


def draw_errors(axis: Axes, language: Language, policy: pg.Policy, group: int) -> None:
    rows = audit(language, policy, group)
    for y, row in enumerate(rows):
        axis.plot(row.variance, y, "o", color=COLORS[0], label="variance" if y == 0 else None)
        if row.bias2 > 1e-12:
            axis.plot(row.bias2, y, "D", color=COLORS[2], label="bias²" if row.named.name == "Dr. GRPO" else None)
    axis.set_yticks(range(len(rows)), [row.named.name for row in rows])
    axis.set_xscale("log")
    logarithmic(axis.xaxis)
    axis.set(xlabel=f"of one group of {group} answers, in ‖∇J‖²", ylim=(len(rows) - 0.5, -0.5))
    head(axis, "What the error is made of", "bias² and variance of each estimator")
    axis.legend(loc="upper left")


def draw_difficulty(axis: Axes, names: list[Named]) -> None:
    p = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    each = {one.name: one for one in names}
    for k, size in enumerate((4, 16, 64), 1):
        axis.plot(p, difficulty_weight(p, size, each["GRPO without length"]), **look(k), label=f"GRPO, G = {size}")
    axis.plot(p, 1.0 / (p * (1.0 - p)).sqrt(), color=INK, ls=DOTTED, lw=THIN, label="1 / √(p (1 − p))")
    axis.plot(p, difficulty_weight(p, 4, each["RLOO"]), **look(0), label="RLOO, any G")
    axis.set(
        xlabel="p, the probability of a right answer to a prompt", ylabel="weight of the prompt's ∇p", ylim=(0, 10)
    )
    head(axis, "σ of the group prefers easy and hard prompts", "weight of a prompt, by its difficulty")
    axis.legend(loc="upper center")


def draw_lengths(axis: Axes, language: Language, group: int, steps: int) -> None:
    policy = random_policy(language)
    each = {one.name: one for one in named(language, 0.0)}
    for k, name in enumerate(SHOWN):
        curve = torch.tensor(ascent(language, policy, each[name], group, steps, 2.0))
        axis.plot(curve[:, 0], curve[:, 2], **look(k), label=name)
    axis.set(
        xlabel="J, the share of right answers", ylabel="mean length of the wrong ones, in tokens", xlim=(None, 0.95)
    )
    head(axis, "Length of wrong answers", "along the mean of each estimator")
    axis.legend()


def ascent(
    language: Language, policy: pg.Policy, each: Named, group: int, steps: int, rate: float
) -> list[list[float]]:
    """J, the mean length, and that of the wrong answers, along steps of rate · ‖∇J‖ in the direction of E ĝ."""
    start, rows = policy.flat.clone(), []
    classes = Classes(Answers.of(language, policy), group)
    table = classes.table(each)
    for _ in range(steps):
        answers = Answers.of(language, policy)
        p, wrong = answers.p, 1.0 - answers.reward
        wrong_length = (p * wrong) @ answers.length / (p @ wrong)
        rows.append([float(x) for x in (p @ answers.reward, p @ answers.length, wrong_length)])
        mean, _ = classes.moments(table, answers)
        policy.flat += rate * answers.gradient.norm() * mean / mean.norm()
    policy.flat.copy_(start)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", type=int, default=8, help="answers of a group")
    parser.add_argument("--letters", default="abc")
    parser.add_argument("--longest", type=int, default=3, help="the most letters of an answer")
    parser.add_argument("--steps", type=int, default=150, help="of the ascents in the picture")
    parser.add_argument("--out", type=Path, help="a picture, png, pdf or svg")
    parser.add_argument("--page", type=Path, help="a page with markers for the tables")
    args = parser.parse_args()
    language = Language(args.letters, args.longest)
    made = tables(language, args.group)
    for name, table in made.items():
        print(f"\n{name}\n\n{table}")
    if args.page is not None:
        args.page.write_text(with_tables(args.page.read_text("utf8"), made, "examples/language/exact.py"), "utf8")
    if args.out is not None:
        draw(language, args.group, args.steps, args.out)
        print(f"\ndrawn: {args.out}")


if __name__ == "__main__":
    main()
