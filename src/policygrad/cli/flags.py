"""The flags of `train`, generated from the recipes' signatures, and those of the other commands."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from policygrad.algorithms.config import (
    aliases,
    find_preset,
    find_recipe,
    options,
    parameters,
    pieces,
    presets,
    resolve,
    show,
)
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.parser import Parser, Switch, same
from policygrad.cli.values import flag, inner
from policygrad.stored.directory import ROOT

BACKENDS = ("auto", "gymnasium", "async", "envpool")
LISTS = ("presets", "algorithms", "envs")
SHELLS = ("bash", "zsh", "fish")


RUN_FLAGS = {  # flag: what follows it, "" for a switch, and its help; --dataset is for recipes that take one
    "--seed": ("S", "random seed [0]; several, as 0 1 2 or 0-2, are trained in parallel, one run per seed"),
    "--jobs": ("N", "how many runs train at the same time [the number of cores]"),
    "--backend": ("{" + ",".join(BACKENDS) + "}", "what steps the environments [auto]"),
    "--preset": ("FILE|ENV", "hyperparameters from a TOML file, or those tuned for ENV [those tuned for it]"),
    "--run-dir": ("DIR", "new or empty [runs/ENV/ALGO/seed<S>-<UTC>]; of several seeds: DIR/seed<S>"),
    "--runs-root": ("DIR", "where run directories are made [runs]"),
    "--eval-episodes": ("N", "episodes per final evaluation, greedy and sampled [100]"),
    "--fisher-eigenvalues": ("K", "how many of the largest Fisher eigenvalues every row of metrics has [0]"),
    "--gradient-meter": ("", "measure signal and noise of the gradient in every second row [no]"),
    "--save-trajectories": ("", "keep every training episode in the run directory, to learn from [no]"),
    "--dataset": (
        "DATA",
        "learn from stored trajectories: a run's, a file or directory of them, minari:NAME [episodes of its own]",
    ),
}


def train_parser(algo: str, env: str | None, preset: str | None = None) -> Parser:
    """The flags of an algorithm, with the defaults that hold in the environment, or with a preset that is named."""
    recipe = find_recipe(algo)
    given = find_preset(algo, env or "", preset) or {}
    config, tuned = resolve(algo, "", given)[0], {same(algo, name) for name in given}
    summary = (recipe.__doc__ or "").strip().split("\n\n")[0]
    parser = Parser(
        f"policygrad train {algo}{f' {env}' if env else ''}",
        usage=f"policygrad train {algo} {env or 'ENV'} [flags]",
        description=f"{summary} {_note(algo, env, preset, bool(tuned))}",
        argument_default=argparse.SUPPRESS,
    )
    run = parser.add_argument_group("run")
    for name, (metavar, text) in RUN_FLAGS.items():
        keywords: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        if name == "--seed":
            keywords["nargs"] = "+"
        if name != "--dataset" or recipe.spec.dataset:
            run.add_argument(name, help=text, **keywords)
    run.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    group = parser.add_argument_group("hyperparameters")
    for name, (kind, _) in parameters(algo).items():
        add_flag(group, algo, name, kind, show(config[name]) + "*" * (name in tuned))
    count = pieces(algo)
    if count is not None:
        group.add_argument("--batch-size", nargs=1, metavar="N", help=f"steps a minibatch, instead of {flag(count)}")
    return parser


def _note(algo: str, env: str | None, preset: str | None, tuned: bool) -> str:
    """What the defaults in brackets are."""
    if preset is not None:
        return f"Defaults in brackets; * marks what {preset} says."
    if env is not None:
        return f"Defaults in brackets; {'* marks what is tuned' if tuned else 'there is no tuned preset'} for {env}."
    there = ", ".join(presets(algo))
    return "Defaults in brackets." + (f" Name an environment to see what is tuned for it: {there}." if there else "")


def add_flag(group: Any, algo: str, name: str, kind: Any, default: str) -> None:
    """One hyperparameter's flag, its aliases, its help."""
    strings = [
        flag(n) for n in (name, *(a for a, own in aliases(algo).items() if own == name)) if n != "normalize_advantage"
    ]
    strings = ["-n", *strings] if name == "steps" else strings
    text = f"{options(algo)[name].help if name in options(algo) else ''} [{default}]".strip().replace("%", "%%")
    kind, optional = inner(kind)
    if kind is bool:
        strings += [flag("no_" + name)]
        group.add_argument(*strings, dest=name, action=Switch, nargs="?", metavar="", help=text)
    elif get_origin(kind) is Literal:
        group.add_argument(*strings, dest=name, nargs=1, metavar="{" + ",".join(get_args(kind)) + "}", help=text)
    elif get_origin(kind) is tuple:
        group.add_argument(*strings, dest=name, nargs="+", metavar="N", help=text)
    else:
        metavar = ("N" if kind is int else "X") + ("|none" if optional else "")
        group.add_argument(*strings, dest=name, nargs=1, metavar=metavar, help=text)
    if name == "standardize":  # SB3's, a switch: True is "batch"
        hidden = ("--normalize-advantage", "--no-normalize-advantage")
        group.add_argument(*hidden, dest="normalize_advantage", action=Switch, nargs="?", help=argparse.SUPPRESS)


def first_line(function: Callable) -> str:
    """What an algorithm is."""
    return (function.__doc__ or "").strip().splitlines()[0]


def train_help() -> str:
    """`policygrad train --help`, before an algorithm is known."""
    rows = "\n".join(
        f"  {name:<14}{textwrap.shorten(first_line(function), 100, placeholder=' …')}"
        for name, function in RECIPES.items()
    )
    return f"""usage: policygrad train ALGO ENV [--steps N] [--seed S …] [--run-dir DIR] [--quiet] [flags]

Train a policy, evaluate it greedily and sampled on fixed seeds, keep everything in a run directory.

algorithms:
{rows}

  policygrad train ppo --help                     its flags
  policygrad train ppo LunarLander-v3 --help      its flags with what is tuned for the environment
  policygrad list                                 presets, algorithms, environments
"""


def eval_parser() -> Parser:
    """`policygrad eval`."""
    parser = Parser("policygrad eval", description="Play a trained policy on fixed seeds, greedily and sampled.")
    add_run(parser)
    parser.add_argument("--episodes", default="100", metavar="N", help="episodes per evaluation [100]")
    parser.add_argument("--json", action="store_true", help="print what evaluation.json holds")
    return parser


def collect_parser() -> Parser:
    """`policygrad collect`."""
    parser = Parser(
        "policygrad collect",
        description="Play a trained policy, its actions sampled, and keep the trajectories with their log-probabilities: a "
        "dataset for off_policy_pg.",
    )
    add_run(parser)
    parser.add_argument("--episodes", default="500", metavar="N", help="whole episodes [500]")
    parser.add_argument("--seed", default="20000", metavar="S", help="of environments and actions [20000]")
    parser.add_argument("--out", metavar="FILE", help="safetensors [trajectories.safetensors in the run directory]")
    return parser


def video_parser() -> Parser:
    """`policygrad video`."""
    parser = Parser("policygrad video", description="Film a trained policy: an mp4 of whole episodes.")
    add_run(parser)
    parser.add_argument("--out", metavar="FILE", help="mp4 [video.mp4 in the run directory]")
    add_film(parser, 1)
    return parser


def watch_parser() -> Parser:
    """`policygrad watch`."""
    parser = Parser("policygrad watch", description="Watch a trained policy play, in a window.")
    add_run(parser)
    add_film(parser, 5)
    return parser


def plot_parser() -> Parser:
    """`policygrad plot`."""
    parser = Parser(
        "policygrad plot",
        description="Draw the learning curves of runs: mean return of the last 100 episodes against steps. Runs that differ "
        "in the seed alone are drawn as their mean, with a band from the lowest to the highest.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directory, a directory of runs, beginning of a name, or latest"
    )
    parser.add_argument(
        "--by", default="config", metavar="{config,algo}", help="a curve for each: configuration, or algorithm [config]"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="png, pdf or svg [the run's learning_curve.png; several: learning_curves.png]"
    )
    add_root(parser)
    return parser


def report_parser() -> Parser:
    """`policygrad report`."""
    parser = Parser(
        "policygrad report",
        description="Say, in words and in a picture, what every measured update of a run promised and did: where steps were "
        "rejected, where linear and quadratic models were off, where the surrogate stopped tracking the return.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, beginning of a run's name, or latest")
    parser.add_argument("--out", metavar="FILE", help="the picture, png, pdf or svg [report.png in the run directory]")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON; a picture only with --out")
    parser.add_argument(
        "--eigenvalues",
        default="0",
        metavar="K",
        help="how many of the largest Fisher eigenvalues of the final policy to compute, at most 100 [0]",
    )
    parser.add_argument(
        "--env", help="with --eigenvalues: where that batch is played, of the same spaces [where it was trained]"
    )
    parser.add_argument(
        "--recipe", metavar="MODULE:NAME", help="with --eigenvalues: the recipe, where it is not the package's"
    )
    add_root(parser)
    return parser


def list_parser() -> Parser:
    """`policygrad list`."""
    parser = Parser(
        "policygrad list", description="Show tuned presets, algorithms, environments; all three by default."
    )
    parser.add_argument("what", nargs="?", metavar="{" + ",".join(LISTS) + "}")
    return parser


def completion_parser() -> Parser:
    """`policygrad completion`."""
    parser = Parser(
        "policygrad completion",
        description="Print a script that completes commands, algorithms, environments, flags and runs with the Tab key.",
        epilog='bash and zsh: eval "$(policygrad completion bash)" in ~/.bashrc (zsh, ~/.zshrc). '
        "fish: policygrad completion fish > ~/.config/fish/completions/policygrad.fish",
    )
    parser.add_argument("shell", metavar="{" + ",".join(SHELLS) + "}")
    return parser


def add_run(parser: Parser) -> None:
    """A trained policy, and where it plays."""
    parser.add_argument("run", metavar="RUN", help="run directory, model file, beginning of a run's name, or latest")
    parser.add_argument("--env", help="environment to play in; its spaces must match [the one it was trained in]")
    parser.add_argument("--recipe", metavar="MODULE:NAME", help="the recipe, where it is not one of the package's")
    add_root(parser)


def add_film(parser: Parser, episodes: int) -> None:
    """What is played for people to see."""
    parser.add_argument("--episodes", default=str(episodes), metavar="N", help=f"whole episodes [{episodes}]")
    parser.add_argument("--seed", metavar="S", help="of the first episode [the evaluation's]")
    parser.add_argument("--sampled", action="store_true", help="draw actions instead of taking the most likely")


def add_root(parser: Parser) -> None:
    """Where runs are."""
    parser.add_argument("--runs-root", default=ROOT, metavar="DIR", help="where runs are looked for [runs]")


PARSERS = {
    "eval": eval_parser,
    "collect": collect_parser,
    "video": video_parser,
    "watch": watch_parser,
    "plot": plot_parser,
    "report": report_parser,
    "list": list_parser,
    "completion": completion_parser,
}
