"""`policygrad lab steps`: the steps of all update rules from one policy and one batch."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.config import Algo, find_recipe, show
from policygrad.cli.flags import add_own_code, add_root
from policygrad.cli.lab_flags import add_mdp, optional, positive_number
from policygrad.cli.parser import Parser
from policygrad.cli.playing import load_run
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.values import UsageError, flag_of, parse_seed, picture, positive
from policygrad.stored.directory import RunDirectory, find_run

if TYPE_CHECKING:
    from policygrad.data import Batch
    from policygrad.lab.steps.relations import Match, TrustPoint
    from policygrad.lab.steps.rules import Comparison, Objective
    from policygrad.models.policy import Policy

LEAST_KL, MOST_KL = 1e-8, 100.0  # the exact problem is solved down to a thousandth of max_kl, and that from 1e-12 up


def parser() -> Parser:
    """The parser of `policygrad lab steps`."""
    made = Parser(
        "policygrad lab steps",
        usage="policygrad lab steps [RUN] [flags]",
        description="Compare the steps that PG, NPG, TRPO, PPO with a clip and PPO with a penalty take from one policy and one "
        "batch, by the rules that training uses: length and direction of the step, its KL, its predicted gain, and the real "
        "gains of the surrogate and of J. It also finds the penalty that reproduces TRPO's step.",
        epilog="examples:\n  policygrad lab steps\n  policygrad lab steps latest --max-kl 0.02 --out steps.png",
    )
    made.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="run whose last checkpoint is the policy [none: a table of logits on --mdp]",
    )
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    made.add_argument("--out", metavar="FILE", help="file of a plot: png, pdf or svg")
    _add_rules(made)
    world = made.add_argument_group("without a RUN")
    add_mdp(world, "MDP in which the policy acts", "FrozenLake-v1")
    world.add_argument("--episodes", metavar="N|exact", help="episodes in the batch; exact: all trajectories [exact]")
    world.add_argument("--seed", metavar="S", help="random seed of logits, episodes and random MDPs [0]")
    world.add_argument("--scale", metavar="X", help="standard deviation of the policy's logits [1]")
    trained = made.add_argument_group("with a RUN")
    trained.add_argument("--env", help="environment to play in; its spaces must match [that of the run]")
    trained.add_argument("--eval-episodes", metavar="N", help="episodes on fixed seeds that estimate J [30]")
    add_own_code(trained)
    add_root(trained)
    return made


def _add_rules(made: Parser) -> None:
    rules = made.add_argument_group("update rules", "The configuration of a RUN, if there is one, gives the defaults.")
    rules.add_argument(
        "--max-kl",
        metavar="X",
        help="KL bound of NPG and TRPO in nats; PG's step is as long as NPG's [max-kl or target-kl of RUN; 0.01]",
    )
    rules.add_argument(
        "--damping", metavar="X", help="damping of the Fisher matrix [that of RUN; 0 for a table, 0.1 for a network]"
    )
    rules.add_argument("--clip", metavar="X", help="ε that clips PPO's ratio to 1 ± ε [that of RUN; 0.2]")
    rules.add_argument(
        "--beta",
        default="match",
        metavar="X|match",
        help="weight of PPO's KL penalty; match: the weight that gives TRPO's KL [match]",
    )
    rules.add_argument(
        "--epochs", default="100", metavar="N", help="epochs of PPO, each with one step on the whole batch [100]"
    )
    rules.add_argument(
        "--lr",
        metavar="X",
        help="learning rate of PPO's Adam [that of a PPO RUN; 0.02 for a table, 3e-4 for a network]",
    )


@dataclass(frozen=True)
class StepCase:
    """The case of a comparison: its name, a policy, a batch, and the function that computes J."""

    name: str
    about: tuple[str, ...]  # lines of text
    policy: Policy
    batch: Batch
    objective: Objective
    own: Mapping[str, Any] = field(default_factory=dict)  # settings that a run has


@dataclass(frozen=True)
class Found:
    """The results of the comparison."""

    comparison: Comparison
    match: Match | None
    reason: str  # why there is no match
    trust: list[TrustPoint]  # for a table of logits


def run(words: Sequence[str]) -> None:
    """`policygrad lab steps`."""
    given = parser().parse(words)
    settings = step_settings(given)
    from policygrad.training.threads import single_thread

    with as_usage_error(ValueError, TypeError, FloatingPointError), single_thread():
        case = of_mdp(given) if given.run is None else of_run(given)
        settings = with_defaults(settings, case)
        found = measure_steps(case, settings)
        if given.json:
            print(json.dumps(as_json(case, settings, found), indent=2, ensure_ascii=False))
        else:
            print(comparison_text(case, settings, found))
        if given.out is not None:
            out = write_figure(case, settings, found, Path(given.out))
            if not given.json:
                print(f"\n{out}")


def step_settings(given: Namespace) -> dict[str, Any]:
    """The keywords of `five_rules`, None for a default. Raises UsageError for wrong values, and if a RUN is missing."""
    trained = given.run is not None
    of_a_run = ("env", "eval_episodes", "recipe", "env_kwargs", "wrapper")
    for name in ("mdp", "episodes", "seed", "scale") if trained else of_a_run:
        if getattr(given, name) is not None:
            wrong = "cannot be used with a RUN" if trained else "needs a RUN"
            raise UsageError(f"{flag_of(name)} {wrong}. `policygrad lab steps --help` explains the flags.")
    if given.out is not None:
        picture(given.out)
    max_kl = optional(positive_number, "max_kl", given.max_kl)
    if max_kl is not None and not LEAST_KL <= max_kl <= MOST_KL:
        why = f"smaller KLs are mostly rounding error, and at {MOST_KL:g} nats the policy is greedy"
        raise UsageError(f"--max-kl = {given.max_kl} must be in [{LEAST_KL:g}, {MOST_KL:g}]: {why}.")
    return {
        "max_kl": max_kl,
        "damping": optional(positive_number, "damping", given.damping, least=0.0),
        "clip": optional(positive_number, "clip", given.clip),
        "beta": None if given.beta == "match" else positive_number("beta", given.beta, " or match"),
        "epochs": positive("epochs", given.epochs),
        "lr": optional(positive_number, "lr", given.lr),
    }


def with_defaults(settings: dict[str, Any], case: StepCase) -> dict[str, Any]:
    """The settings, completed by those of a run and by the defaults for the policy."""
    from policygrad.lab.steps.relations import default_damping, default_lr

    defaults = {"max_kl": 0.01, "damping": default_damping(case.policy), "clip": 0.2, "lr": default_lr(case.policy)}
    return settings | {name: value for name, value in {**defaults, **case.own}.items() if settings[name] is None}


def own_settings(algo: Algo, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the rules in a run's configuration; of schedules the first value.

    Of lr only that of many small steps a batch, as PPO's. No β: the default is the one that matches TRPO.
    """
    spec = find_recipe(algo).spec
    found = {name: config.get(name) for name in ("damping", "clip")}
    found["max_kl"] = config.get(spec.kl_limit) if spec.kl_limit else None
    if spec.reuses_batch:
        found["lr"] = config.get("lr") or None  # 0 would not move
    return {name: value for name, value in found.items() if value is not None}


def of_mdp(given: Namespace) -> StepCase:
    """The case of an MDP: a policy with random logits, a batch of all or of sampled trajectories, and the exact J."""
    from policygrad.lab.exact.mdp import counted
    from policygrad.lab.exact.tabular import optimum
    from policygrad.lab.exact.worlds import (
        exact_batch,
        exact_objective,
        make_mdp,
        read_tables,
        sampled_batch,
        starting_policy,
    )

    seed, scale = parse_seed(given.seed or "0"), positive_number("scale", given.scale or "1", least=0.0)
    episodes = None if given.episodes in (None, "exact") else positive("episodes", given.episodes)
    name = given.mdp or "FrozenLake-v1"
    mdp = make_mdp(name, seed)
    policy = starting_policy(name, mdp, seed, scale)
    batch = exact_batch(mdp, policy) if episodes is None else sampled_batch(mdp, policy, episodes, seed)
    sampled = f"{episodes:,} episodes sampled, {len(batch):,} steps in all" if episodes else ""
    horizon, told = mdp.horizon or "none", "" if mdp.groups is None else ", a policy that tells all states apart"
    logits = "log 9 and 0" if name == "deceptive" else f"standard deviation {scale:g}, seed {seed}"
    if name.endswith(".json") and "pi" in read_tables(name):
        logits = "log pi of the file"
    about = (
        f"{name}: {counted(mdp.states, 'state')}, {mdp.actions} actions, horizon {horizon}; "
        f"the best J is {optimum(mdp):.4g}{told}",
        f"policy: a table of {len(policy.flat):,} logits, {logits}",
        f"batch: {sampled or 'every trajectory, weighed by its probability'}",
    )
    return StepCase(name, about, policy, batch, exact_objective(mdp))


def of_run(given: Namespace) -> StepCase:
    """The case of a run: its last checkpoint, the batch of its next update, and a sampled J."""
    path = find_run(given.run, given.runs_root)
    if path.is_dir():
        checkpoints = RunDirectory(path).checkpoints()
        if not checkpoints:
            raise UsageError(f"{path} holds no checkpoint, but a batch needs the critic: is it a run directory?")
        path = checkpoints[-1]
    agent, _ = load_run(Namespace(**vars(given) | {"run": str(path)}), "lab steps")
    from policygrad.lab.steps.rules import sampled_objective, training_batch
    from policygrad.stored.storage import open_state

    with open_state(path) as file:
        whole = "collector" in file.tree
    if not whole:
        raise UsageError(f"{path} holds only a policy, but a batch needs the critic: give the run or a checkpoint.")
    episodes, steps = positive("eval_episodes", given.eval_episodes or "30"), agent.collector.steps_done
    batch = training_batch(agent)
    about = (
        f"{agent.env_name}: J is the mean return of {episodes} episodes, actions sampled, always on the same seeds",
        f"policy: {agent.algo} after {steps:,} steps; {len(agent.policy.flat):,} parameters",
        f"batch: the next update's, {len(batch):,} step{'s' * (len(batch) > 1)}; gains are in units of its advantages",
    )
    own = own_settings(agent.recipe, agent.config)
    return StepCase(agent.env_name, about, agent.policy, batch, sampled_objective(agent, episodes), own)


def measure_steps(case: StepCase, settings: dict[str, Any]) -> Found:
    """Compare the rules. If no β gives TRPO's KL, PPO's penalty gets the β of the quadratic model."""
    from policygrad.lab.steps.constrained import is_table
    from policygrad.lab.steps.relations import apply, matching_beta, quadratic_beta, solver, trust_path
    from policygrad.lab.steps.rules import compare, five_rules
    from policygrad.updates import TrustRegion

    policy, batch, max_kl, damping = case.policy, case.batch, settings["max_kl"], settings["damping"]
    kl = apply(TrustRegion(max_kl, **solver(policy, damping)), policy, batch)[0]["kl"]
    match, reason = None, ""
    try:
        match = matching_beta(policy, batch, kl, lr=settings["lr"], epochs=settings["epochs"], damping=damping)
    except ValueError as error:
        reason = str(error)
    found = quadratic_beta(policy, batch, max_kl, damping) if match is None else match.beta
    keywords: dict[str, Any] = settings | {"beta": settings["beta"] or found}
    rules = five_rules(policy, batch, **keywords)
    comparison = compare(policy, batch, rules, objective=case.objective, max_kl=max_kl, damping=damping)
    deltas = [max_kl * factor for factor in (1.0, 1e-1, 1e-2, 1e-3)]
    return Found(comparison, match, reason, trust_path(policy, batch, deltas) if is_table(policy) else [])


def comparison_text(case: StepCase, settings: dict[str, Any], found: Found) -> str:
    """The table, an explanation of its columns, and conclusions."""
    from policygrad.lab.steps.rules import HEADER

    comparison = found.comparison
    sampled = any(step.interval for step in comparison.steps)
    notes = (
        f"max_kl = {show(settings['max_kl'])}, damping = {show(settings['damping'])}; PPO: clip = {show(settings['clip'])}, "
        f"lr = {show(settings['lr'])}, {settings['epochs']} epochs",
        "PG's learning rate gives its step the same ½ΔθᵀFΔθ as NPG's. F: the batch's Fisher matrix",
        "KL(old ‖ new): exact, in nats. predicted: ĝᵀΔθ. surrogate: Σ weight · (ratio − 1) · adv",
        f"real: J(θ + Δθ) − J(θ), {'with its 95 % interval' if sampled else 'exact'}; J(θ) = {comparison.before:.4g}",
    )
    parts = [
        paragraph("\n".join(case.about)),
        text_table(HEADER, comparison.cells(), right=range(1, len(HEADER))),
        paragraph("\n".join(notes)),
        paragraph(penalty_text(found)),
        trust_table(found),
    ]
    return "\n\n".join(filter(None, parts))


def penalty_text(found: Found) -> str:
    """The penalty that reproduces TRPO's step."""
    match = found.match
    if match is None:
        return f"no β reproduces TRPO's KL: {found.reason}"
    from policygrad.lab.steps.relations import angle

    trpo, whose = found.comparison["TRPO"], "maximiser has" if found.trust else "epochs end at"
    degrees, more = angle(match.step, trpo.step), 100.0 * (match.gain / trpo.gain - 1.0)
    return (
        f"β* = {match.beta:.3g}: the penalty whose {whose} TRPO's KL ({match.beta_quadratic:.3g}, were the gain linear and KL "
        f"quadratic)\nits step is {degrees:.1f}° from TRPO's, its surrogate gain {more:+.1f} %"
    )


def trust_table(found: Found) -> str:
    """The table of NPG compared with the exact solution as δ → 0."""
    header = ["δ → 0", "NPG to exact, °", "gain lost by NPG at equal KL, %", "by TRPO, %"]
    rows = [
        [f"{p.max_kl:g}", *(f"{abs(round(max(x, 0.0), 9)):.2g}" for x in (p.angle, 100.0 * p.gap, 100.0 * p.trpo_gap))]
        for p in found.trust
    ]
    return text_table(header, rows, right=(1, 2, 3)) if rows else ""


def as_json(case: StepCase, settings: dict[str, Any], found: Found) -> dict[str, Any]:
    """All results as plain values."""
    match = None if found.match is None else {k: v for k, v in vars(found.match).items() if k != "step"}
    rest = {"match": match, "trust_path": [asdict(point) for point in found.trust]}
    return {"name": case.name, "about": case.about, "settings": settings} | found.comparison.to_json() | rest


def write_figure(case: StepCase, settings: dict[str, Any], found: Found, out: Path) -> Path:
    """Measure what only the plot shows, and write the plot."""
    import numpy as np

    from policygrad.lab.steps import plots
    from policygrad.lab.steps.relations import dense_against_cg, penalty_path, quadratic_beta, trust_path

    policy, batch, max_kl = case.policy, case.batch, settings["max_kl"]
    middle = found.match.beta if found.match else quadratic_beta(policy, batch, max_kl, settings["damping"])
    betas = np.geomspace(middle / 10.0, middle * 10.0, 9).tolist()
    penalties = penalty_path(policy, batch, betas, lr=settings["lr"], epochs=settings["epochs"])
    about = " · ".join(line.partition("; ")[0] for line in case.about[1:])
    title = f"Five update rules on one policy and one batch: {case.name}"
    theory: dict[str, Any] = {}  # what only a table of logits has
    if not any(step.interval for step in found.comparison.steps):
        theory["trust"] = trust_path(policy, batch, np.geomspace(1e-6, 0.1, 11).tolist())
        theory["costs"] = dense_against_cg((2, 4, 8, 16, 24, 64, 128, 256))
    return plots.draw_steps(plots.Story(title, about, found.comparison, found.match, penalties, **theory), out)
