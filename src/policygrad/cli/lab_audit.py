"""`policygrad lab audit`: estimators of the policy gradient, compared with the exact gradient."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.cli.lab_flags import add_mdp, optional, positive_number
from policygrad.cli.parser import Parser
from policygrad.cli.reports import as_usage_error
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.values import UsageError, flag_of, parse_number, parse_seed, picture, positive

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit
    from policygrad.lab.auditing.optimal_baselines import BaselineCurve
    from policygrad.lab.exact.mdp import MDP

CRITICS = ("exact", "wrong", "zero", "none")
ESTIMATORS = "total, to-go, td, n-step:N, gae:LAMBDA, q"
BASELINES = (
    "none, const:X, value, mean, time, linear, loo, crossfit, best, best-state, best-time-state, best-parameter; "
)
BASELINES += "same-mean and same-time are biased on purpose"
WRAPPERS = (
    "plain, discount, standardize, standardize-running, standardize-episode, step; with --off-policy also is, is:C, "
)
WRAPPERS += "is-normalized, per-decision; join several with +, as in discount+standardize"
# limits the numbers in the observations of all episodes: with hundreds of states there are fewer repeats
MAX_NUMBERS = 400_000_000


def parser() -> Parser:
    """The parser of `policygrad lab audit`."""
    made = Parser(
        "policygrad lab audit",
        usage="policygrad lab audit [flags]",
        description="Compare estimators of the policy gradient with the exact gradient on a finite MDP. For every "
        "combination of estimator, baseline and wrapper it shows the bias, the variance and how many episodes make the "
        "signal as large as the noise. The estimators are those that training uses.",
        epilog="examples:\n  policygrad lab audit\n"
        "  policygrad lab audit --mdp chain --baselines none,value,loo --html audit.html",
    )
    what = made.add_argument_group("what to compare", "Names, separated by commas.")
    what.add_argument(
        "--estimators", metavar="A,B", help=f"names of estimators: {ESTIMATORS} [total,to-go,td,n-step:5,gae:0.95,q]"
    )
    what.add_argument("--baselines", metavar="A,B", help=f"names of baselines: {BASELINES} [none,value]")
    what.add_argument("--wrappers", metavar="A,B", help=f"names of wrappers: {WRAPPERS} [plain,discount]")
    what.add_argument(
        "--critic",
        default="exact",
        choices=CRITICS,
        metavar="{" + ",".join(CRITICS) + "}",
        help="values V and q: exact, with noise as large as the values, all 0, or no critic [exact]",
    )
    world = made.add_argument_group("MDP and policy")
    add_mdp(world, "MDP in which the policy acts", "small")
    world.add_argument("--horizon", metavar="N|inf", help="steps per episode [the MDP's]")
    world.add_argument("--gamma", metavar="X", help="discount γ [the MDP's]")
    world.add_argument(
        "--limit", metavar="T", help="step after which episodes are truncated; needed without a horizon [no limit]"
    )
    world.add_argument("--scale", default="1", metavar="X", help="standard deviation of the policy's logits [1]")
    world.add_argument(
        "--off-policy",
        metavar="X",
        help="sample episodes from another policy, whose logits differ by N(0, X²); for the wrappers is, per-decision [none]",
    )
    how = made.add_argument_group("sampling")
    how.add_argument("--batch", default="16", metavar="N", help="episodes per estimate [16]")
    how.add_argument("--repeats", metavar="R", help="number of estimates [1000; fewer with hundreds of states]")
    how.add_argument("--alpha", default="0.01", metavar="X", help="probability of any false alarm in the table [0.01]")
    how.add_argument("--seed", default="0", metavar="S", help="random seed of logits, episodes and random MDPs [0]")
    _add_output(made)
    return made


def _add_output(made: Parser) -> None:
    out = made.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print everything as JSON")
    out.add_argument("--out", metavar="FILE", help="file of a plot: png, pdf or svg")
    out.add_argument(
        "--html", metavar="FILE", help="file of a web page with the table, plots, formulas and an explanation"
    )
    out.add_argument(
        "--curve", action="store_true", help="also show the variance as a function of a constant baseline (U-curve)"
    )


@dataclass(frozen=True)
class Settings:
    """The values of the flags."""

    mdp: dict[str, Any]
    grid: dict[str, Any]
    scale: float
    off_policy: float | None
    repeats: int | None
    options: dict[str, Any]


def run(words: Sequence[str]) -> None:
    """`policygrad lab audit`."""
    given = parser().parse(words)
    settings = audit_settings(given)
    from policygrad.training.threads import single_thread

    with as_usage_error(ValueError), single_thread():
        audit, curve = run_audit(given.mdp or "small", settings, given.curve)
        if given.json:
            found = audit.to_json() | {"mdp": given.mdp or "small", "curve": None if curve is None else curve.to_json()}
            print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
        else:
            print(audit_text(audit, curve))
        written = write_files(given, audit, curve)
        if written and not given.json:
            print("\n" + "\n".join(map(str, written)))


def audit_settings(given: Namespace) -> Settings:
    """The settings. Raises UsageError for wrong values; names are checked later."""
    if given.out is not None:
        picture(given.out)
    if given.html is not None and Path(given.html).suffix not in (".html", ".htm"):
        raise UsageError(f"--html = {given.html!r} must end in .html")
    seed = parse_seed(given.seed)
    horizon = float("inf") if given.horizon == "inf" else optional(positive, "horizon", given.horizon)
    alpha = positive_number("alpha", given.alpha)
    if alpha >= 1.0:
        raise UsageError(f"--alpha = {given.alpha} must be below 1.")
    gamma = None if given.gamma is None else parse_number("gamma", float, given.gamma)
    grid = {name: optional(split_names, name, getattr(given, name)) for name in ("estimators", "baselines", "wrappers")}
    options = {"critic": given.critic, "batch": positive("batch", given.batch), "alpha": alpha, "seed": seed}
    return Settings(
        mdp={"seed": seed, "horizon": horizon, "gamma": gamma},
        grid={name: chosen for name, chosen in grid.items() if chosen is not None},
        scale=positive_number("scale", given.scale, least=0.0),
        off_policy=optional(positive_number, "off_policy", given.off_policy),
        repeats=optional(positive, "repeats", given.repeats, 2),
        options=options | {"limit": optional(positive, "limit", given.limit)},
    )


def split_names(name: str, text: str) -> list[str]:
    """The names between commas, each once."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{flag_of(name)} = {text!r} names nothing. `policygrad lab audit --help` lists the names.")
    return found


def run_audit(name: str, settings: Settings, with_curve: bool) -> tuple[Audit, BaselineCurve | None]:
    """The audit; and the U-curve of its first estimator, whose baseline is a constant."""
    from dataclasses import replace

    import torch

    from policygrad.lab.auditing.audit import ESTIMATORS, audit
    from policygrad.lab.auditing.optimal_baselines import baseline_curve
    from policygrad.lab.exact.worlds import make_mdp, starting_policy

    mdp = make_mdp(name, **settings.mdp)
    seed, options = settings.mdp["seed"], settings.options
    policy = starting_policy(name, mdp, seed, settings.scale)
    repeats = settings.repeats or default_repeats(mdp, options["batch"], options["limit"])
    behavior = None
    if settings.off_policy is not None:
        behavior = starting_policy(name, mdp, seed, settings.scale)
        generator = torch.Generator().manual_seed(seed + 1)
        noise = torch.randn(policy.flat.shape, generator=generator, dtype=policy.flat.dtype)
        behavior.flat.add_(settings.off_policy * noise)
    made = audit(mdp, policy, **settings.grid, **options, repeats=repeats, behavior=behavior)
    where = f"{name}: {made.about}" + ("" if behavior is None else "; episodes of another policy")
    made = replace(made, about=where)
    curve = None
    if with_curve:
        first = settings.grid.get("estimators", ESTIMATORS)[0]
        curve = baseline_curve(mdp, policy, first, critic=options["critic"], limit=options["limit"], seed=seed)
    return made, curve


def default_repeats(mdp: MDP, batch: int, limit: int | None) -> int:
    """The default of --repeats: 1000, or fewer if that would take minutes."""
    from policygrad.lab.exact.trajectories import steps_seen

    return max(50, min(1000, MAX_NUMBERS // (batch * steps_seen(mdp, limit) * mdp.states)))


def audit_text(audit: Audit, curve: BaselineCurve | None) -> str:
    """The table, an explanation of its columns, and the cells that were left out."""
    from policygrad.lab.auditing import table as audit_table

    rows = [audit_table.cells_of(row) for row in audit.rows]
    parts = [
        paragraph(audit_table.header(audit)),
        text_table(audit_table.HEADER, rows, right=range(1, len(audit_table.HEADER))),
        "" if curve is None else curve.table(),
        paragraph(audit_table.legend(audit), " " * 10),
        paragraph(audit_table.left_out(audit), " " * 4),
    ]
    return "\n\n".join(filter(None, parts))


def write_files(given: Namespace, audit: Audit, curve: BaselineCurve | None) -> list[Path]:
    """Write the plot and the page, if they were asked for."""
    written = []
    if given.out is not None:
        audit.plot(given.out, curve)
        written.append(Path(given.out))
    if given.html is not None:
        written.append(audit.html(given.html, curve))
    return written
