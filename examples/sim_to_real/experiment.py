"""Randomised physics, and fine-tuning with few episodes under a KL bound: from simulation to reality, in miniature.

    python examples/sim_to_real/experiment.py [--choose] [--seeds 10] [--out runs.json] [--page PAGE] [--picture PNG]
    python examples/sim_to_real/experiment.py --read examples/sim_to_real/runs.json

A pendulum swings up in a simulator, and then in a reality that it never saw (docs/sim-to-real.md).
PPO trains in a simulation, with one physics or with physics that are drawn anew in every episode. Twenty episodes of each
reality follow, with the policy as it is, under a bound on the KL divergence, and without one. `--choose` tries rates on
seeds 10 to 12; the experiment itself has the seeds from 0.

PPO has 100,000 steps and the preset. A policy is evaluated greedily in 25 episodes of reality, before and after fine-tuning.
Both rules of fine-tuning ascend E[π/π_old · adv] with GAE(0.95, 0.9) and the simulation's critic. The rule without a bound has
the best of three learning rates, by the mean return of all four cases (choice.json): −305 with 3e-5, −299 with 1e-4, −296 with
3e-4, the largest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from physics import REALITIES, SIMULATIONS
from tuning import SETTINGS, SIDES, tune

import policygrad as pg
from policygrad.marks import with_tables
from policygrad.reports.aggregates import interval, iqm
from policygrad.reports.differences import Difference, compare_scores

STEPS = 100_000  # in simulation
LEVEL = 0.95
RATES = (3e-5, 1e-4, 3e-4)  # that are tried for the rule without a bound
Run = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """Whether one side is better than another: (simulation, side, measure) of both, and what each answer means.

    Rule: yes if `compare_scores` says that the first side is better, no if it says that the second is, open otherwise. It is
    asked in every reality, and all answers together share one level.
    """

    text: str
    one: tuple[str, str, str]
    other: tuple[str, str, str]


SOURCE = "examples/sim_to_real/experiment.py"
QUESTIONS = (  # written before the runs with seeds 0 to 9
    Question("Does randomisation help before fine-tuning?",
             ("randomised", "untouched", "after"), ("fixed", "untouched", "after")),
    *(Question(f"Does fine-tuning under the bound help a policy from the {name} simulation?",
               (name, "KL bound", "after"), (name, "untouched", "after")) for name in SIMULATIONS),
    *(Question(f"Does fine-tuning without a bound help a policy from the {name} simulation?",
               (name, "no bound", "after"), (name, "untouched", "after")) for name in SIMULATIONS),
    *(Question(f"Is the worst episode better with the bound than without, from the {name} simulation?",
               (name, "KL bound", "worst"), (name, "no bound", "worst")) for name in SIMULATIONS),
    *(Question(f"Is the final policy better with the bound than without, from the {name} simulation?",
               (name, "KL bound", "after"), (name, "no bound", "after")) for name in SIMULATIONS),
    Question("Does randomisation still help after fine-tuning under the bound?",
             ("randomised", "KL bound", "after"), ("fixed", "KL bound", "after")),
)  # fmt: skip


def simulated(simulation: str, seed: int, steps: int = STEPS) -> pg.Agent:
    """An agent of PPO with the preset of Pendulum-v1, trained in a simulation."""
    return pg.Agent("ppo", "Pendulum-v1", seed=seed, wrappers=SIMULATIONS[simulation], steps=steps).learn()


def runs(
    seeds: Sequence[int], sides: Sequence[str] = SIDES, settings: Mapping[str, float] = SETTINGS, **few: int
) -> Iterator[Run]:
    """Every simulation, reality and side with these seeds."""
    agents = ((name, seed, simulated(name, seed, few.get("steps", STEPS))) for seed in seeds for name in SIMULATIONS)
    for name, seed, agent in agents:
        yield from tuned(name, seed, agent, sides, settings, **few)


def tuned(
    name: str, seed: int, agent: pg.Agent, sides: Sequence[str], settings: Mapping[str, float], **few: int
) -> Iterator[Run]:
    """The runs of one simulated agent."""
    short = {key: value for key, value in few.items() if key != "steps"}
    for world in REALITIES:
        for side in sides:
            run = {"simulation": name, "reality": world, "side": side, "seed": seed}
            yield run | tune(agent, side, world, seed, settings, **short)


def scores(found: Sequence[Run], world: str, simulation: str, side: str, measure: str) -> np.ndarray:
    """One number per seed."""
    asked = (world, simulation, side)
    return np.array([run[measure] for run in found if (run["reality"], run["simulation"], run["side"]) == asked])


def answers(found: Sequence[Run]) -> list[tuple[Question, str, Difference]]:
    """Every question in every reality, with the difference of interquartile means."""
    asked = [(question, world) for world in REALITIES for question in QUESTIONS]
    return [
        (question, world, compare_scores([scores(found, world, *question.one)], [scores(found, world, *question.other)],
                                         level=LEVEL, comparisons=len(asked)))
        for question, world in asked
    ]  # fmt: skip


def choose(seeds: Sequence[int]) -> tuple[float, list[dict[str, float]]]:
    """The rate of the rule without a bound that has the highest return after fine-tuning, and what was tried.

    The criterion is the mean over simulations and realities of the interquartile mean over seeds.
    """
    agents = [(name, seed, simulated(name, seed)) for seed in seeds for name in SIMULATIONS]
    tried = []
    for lr in RATES:
        found = [run for agent in agents for run in tuned(*agent, ["no bound"], SETTINGS | {"lr": lr})]
        asked = [(world, name, "no bound", "after") for world in REALITIES for name in SIMULATIONS]
        cells = [round(float(iqm([scores(found, *each)])), 1) for each in asked]
        tried.append({"lr": lr, "return": round(float(np.mean(cells)), 1)})
        print(f"lr = {lr}: {tried[-1]['return']}  {cells}", flush=True)
    return max(tried, key=lambda x: x["return"])["lr"], tried


def cell(x: np.ndarray) -> str:
    """An interquartile mean with its bootstrap interval."""
    low, high = interval(iqm, [x], level=LEVEL)
    return f"{iqm([x]):,.0f} [{low:,.0f}, {high:,.0f}]".replace("-", "−")


def table(found: Sequence[Run]) -> str:
    """All sides: return after, worst episode, and the medians of both KL divergences; and the seeds below."""
    seeds = sorted({run["seed"] for run in found})
    lines = ["| reality | simulation | fine-tuning | return after | worst episode | largest KL of an update | KL in total |",
             "|---|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for world in REALITIES:
        for simulation in SIMULATIONS:
            for side in SIDES:
                of = partial(scores, found, world, simulation, side)
                numbers = [cell(of("after")), "", "", ""]
                if side != "untouched":
                    kl = [f"{np.median(of(name)):.2g}" for name in ("kl_update", "kl_total")]
                    numbers = [cell(of("after")), cell(of("worst")), *kl]
                lines.append(f"| {' | '.join([world, simulation, side, *numbers])} |")
    lines += ["", f"Seeds: {', '.join(map(str, seeds))}."]
    return "\n".join(lines)


def verdicts(found: Sequence[Run]) -> str:
    """All answers, with differences of interquartile means and their intervals."""
    word = {1: "**yes**", -1: "**no**", 0: "open"}
    lines = ["| question | reality | answer | difference | p, adjusted |", "|---|---|---|---:|---:|"]
    for question, world, d in answers(found):
        gap = f"{d.estimate:+,.0f} [{d.low:+,.0f}, {d.high:+,.0f}]".replace("-", "−")
        lines.append(f"| {question.text} | {world} | {word[d.verdict]} | {gap} | {d.p_adjusted:.2g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0")
    parser.add_argument("--steps", type=int, default=STEPS, help="in simulation")
    parser.add_argument("--evaluated", type=int, default=25, help="episodes of an evaluation")
    parser.add_argument("--choose", action="store_true", help="try rates on seeds 10 to 12, and nothing else")
    parser.add_argument("--read", type=Path, help="runs of before, in place of new ones")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs.json"),
        help="the runs, where seeds that are there already are kept, or with --choose what was tried",
    )
    parser.add_argument("--page", type=Path, help="a page with markers for the tables")
    parser.add_argument("--picture", type=Path, help="a png, pdf or svg")
    args = parser.parse_args()
    if args.choose:
        lr, tried = choose(range(10, 13))
        args.out.write_text(json.dumps({"lr": lr, "tried": tried}, indent=1) + "\n", "utf8")
        return
    there = args.out if args.read is None else args.read
    found: list[Run] = json.loads(there.read_text("utf8")) if there.exists() or args.read else []
    missing = [seed for seed in range(args.seeds) if all(run["seed"] != seed for run in found)]
    for seed in missing if args.read is None else ():
        for run in (new := list(runs([seed], steps=args.steps, evaluated=args.evaluated))):
            print(" ".join(f"{key}={value}" for key, value in run.items() if key != "returns"), flush=True)
        found = sorted(found + new, key=lambda run: run["seed"])
        lines = ",\n".join(json.dumps(run) for run in found)
        args.out.write_text(f"[\n{lines}\n]\n", "utf8")
    tables = {"sides": table(found), "answers": verdicts(found)}
    print("\n\n".join(tables.values()))
    if args.page is not None:
        args.page.write_text(with_tables(args.page.read_text("utf8"), tables, SOURCE), "utf8")
    if args.picture is not None:
        from transfer_plots import figure

        figure(found).write(args.picture)


if __name__ == "__main__":
    main()
