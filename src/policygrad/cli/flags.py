"""The flags of `train`, generated from the signatures of the recipes, and the flags of the other commands."""

from __future__ import annotations

import argparse
import shutil
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
    resolve,
    show,
    tuned_for,
)
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.parser import Parser, Switch, same
from policygrad.cli.values import flag_of, inner
from policygrad.stored.directory import ROOT

BACKENDS = ("auto", "gymnasium", "compiled", "split", "async", "envpool", "torch")
LISTS = ("presets", "algorithms", "envs", "policies", "versions", "metrics")
SHELLS = ("bash", "zsh", "fish")


RUN_FLAGS = {  # flag: the value that follows it ("" for a switch), and its help; --dataset is for recipes that take one
    "--seed": ("S", "random seed [0]; several seeds (0 1 2, or 0-2) are trained in parallel, one run per seed"),
    "--jobs": ("N", "number of runs trained at the same time [the number of cores]"),
    "--shard": ("I/N", "on a shared directory of runs: train what no other of N shards does, 0/N to N-1/N"),
    "--lease": ("SECONDS", "without a sign of life, after which the runs of a shard are taken over [120]"),
    "--engine": ("{processes,ray}", "what trains the runs: processes of this machine, or a Ray cluster [processes]"),
    "--nproc": ("N", "number of processes that train one run together, each with a part of the environments [1]"),
    "--backend": ("{" + ",".join(BACKENDS) + "}", "implementation that steps the environments [auto]"),
    "--device": ("cpu|cuda|auto", "device on which the networks are and learn, as torch names it [cpu]"),
    "--preset": (
        "FILE|ENV",
        "TOML file of hyperparameters, or the environment whose tuned preset is used [ENV]",
    ),
    "--zoo": ("FILE", "YAML file of RL Zoo (rl-baselines3-zoo) whose hyperparameters are used"),
    "--name": ("NAME", "name of the environment in run directories and files [that of ENV]"),
    "--run-dir": (
        "DIR",
        "new or empty run directory [runs/ENV/ALGO/seed<S>-<UTC>]; several seeds: DIR/seed<S> per run",
    ),
    "--resume": ("", "continue the run in --run-dir from its last checkpoint, if there is one"),
    "--runs-root": ("DIR", "directory in which run directories are created [runs]"),
    "--env-kwargs": ("KEY=VALUE", "keywords of the environment, e.g. is_slippery=false [none]"),
    "--wrapper": ("MODULE:NAME", "wrapper around the environment; repeat the flag for several, innermost first [none]"),
    "--eval-episodes": ("N", "episodes per final evaluation, greedy and sampled [100]"),
    "--fisher-eigenvalues": ("K", "number of largest Fisher eigenvalues to compute for every row of metrics [0]"),
    "--gradient-meter": ("", "measure signal and noise of the gradient for every second row of metrics"),
    "--save-trajectories": ("", "save every training episode in the run directory, as a dataset"),
    "--wandb": ("PROJECT", "send rows of metrics to this project of Weights & Biases"),
    "--mlflow": ("EXPERIMENT", "send rows of metrics to this experiment of MLflow"),
    "--dataset": (
        "DATA",
        "stored trajectories to learn from: a run, a file, a directory, or minari:NAME [none: episodes are played]",
    ),
}


def train_parser(algo: str, env: str | None, preset: str | None = None) -> Parser:
    """The flags of an algorithm, with the defaults that hold in the environment, or with a preset that is named."""
    recipe = find_recipe(algo)
    given = find_preset(algo, env or "", preset) or {}
    config, tuned = resolve(algo, "", given)[0], {same(algo, name) for name in given}
    summary = " ".join((recipe.__doc__ or "").strip().split("\n\n")[0].split())
    parser = Parser(
        f"policygrad train {algo}{f' {env}' if env else ''}",
        usage=f"policygrad train {algo} {env or 'ENV'} [flags]",
        description=f"{summary} {_note(algo, env, preset, bool(tuned))}",
        argument_default=argparse.SUPPRESS,
    )
    run = parser.add_argument_group("run")
    for name, (metavar, text) in RUN_FLAGS.items():
        keywords: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        if name in ("--seed", "--env-kwargs"):
            keywords["nargs"] = "+"
        if name in ("--env-kwargs", "--wrapper"):
            keywords["action"] = "append"
        if name != "--dataset" or recipe.spec.dataset:
            run.add_argument(name, help=text, **keywords)
    run.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    group = parser.add_argument_group("hyperparameters")
    for name, (kind, _) in parameters(algo).items():
        add_flag(group, algo, name, kind, show(config[name]) + "*" * (name in tuned))
    count = pieces(algo)
    if count is not None:
        group.add_argument("--batch-size", nargs=1, metavar="N", help=f"steps per minibatch; replaces {flag_of(count)}")
    return parser


def _note(algo: str, env: str | None, preset: str | None, tuned: bool) -> str:
    """A sentence that explains the defaults in brackets."""
    if preset is not None:
        return f"Defaults in brackets; * marks values from {preset}."
    if env is not None:
        return f"Defaults in brackets; {'* marks values tuned' if tuned else 'there is no tuned preset'} for {env}."
    there = ", ".join(tuned_for(algo))
    return "Defaults in brackets." + (f" Name an environment to see its tuned values: {there}." if there else "")


def add_flag(group: Any, algo: str, name: str, kind: Any, default: str) -> None:
    """Add the flag of a hyperparameter, with its aliases and its help."""
    strings = [
        flag_of(n)
        for n in (name, *(a for a, own in aliases(algo).items() if own == name))
        if n != "normalize_advantage"
    ]
    strings = ["-n", *strings] if name == "steps" else strings
    text = f"{options(algo)[name].help if name in options(algo) else ''} [{default}]".strip().replace("%", "%%")
    kind, optional = inner(kind)
    if kind is bool:
        strings += [flag_of("no_" + name)]
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
    """The first line of an algorithm's docstring."""
    return (function.__doc__ or "").strip().splitlines()[0]


def train_help() -> str:
    """`policygrad train --help`, before an algorithm is known."""
    width = shutil.get_terminal_size().columns - 16
    rows = "\n".join(
        f"  {name:<14}{textwrap.shorten(first_line(function), width, placeholder=' …')}"
        for name, function in RECIPES.items()
    )
    return f"""usage: policygrad train ALGO ENV [flags]

Train a policy, evaluate it on fixed seeds with greedy and with sampled
actions, and save everything in a run directory.

algorithms:
{rows}

examples:
  policygrad train ppo LunarLander-v3
  policygrad train a2c CartPole-v1 --seed 0 1 2 3 --steps 5e4 --lr 1e-3

more help:
  policygrad train ppo --help                  the flags of an algorithm
  policygrad train ppo LunarLander-v3 --help   with the values tuned for ENV
  policygrad list                              presets and environments
"""


def resume_parser() -> Parser:
    """`policygrad resume`."""
    parser = Parser(
        "policygrad resume",
        usage="policygrad resume RUN [flags]",
        description="Continue the training of a run that was stopped or killed, from its last checkpoint, and evaluate its "
        "policy. The result is the same as without the stop. A finished run is not changed, unless --steps asks for more.",
        epilog="examples:\n  policygrad resume latest\n  policygrad resume CartPole-v1/ppo/seed0 --steps 1e6",
    )
    add_run_directory(parser)
    parser.add_argument("--steps", metavar="N", help="total number of steps, to train longer [those of the run]")
    parser.add_argument("--nproc", default="1", metavar="N", help="number of processes that train it together [1]")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    add_environment(parser, "environment to train in")
    return parser


def eval_parser() -> Parser:
    """`policygrad eval`."""
    parser = Parser(
        "policygrad eval",
        usage="policygrad eval RUN [flags]",
        description="Evaluate a trained policy on fixed seeds, with greedy and with sampled actions.",
        epilog="examples:\n  policygrad eval latest\n  policygrad eval CartPole-v1/ppo/seed0 --episodes 500",
    )
    add_model(parser)
    parser.add_argument("--episodes", default="100", metavar="N", help="episodes per evaluation [100]")
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON, as in evaluation.json")
    add_environment(parser)
    return parser


def collect_parser() -> Parser:
    """`policygrad collect`."""
    parser = Parser(
        "policygrad collect",
        usage="policygrad collect RUN [flags]",
        description="Play a trained policy with sampled actions and save the trajectories and their log-probabilities as a "
        "dataset for off_policy_pg.",
        epilog="examples:\n  policygrad collect latest --episodes 1000 --out data.safetensors\n"
        "  policygrad train off_policy_pg CartPole-v1 --dataset data.safetensors",
    )
    add_model(parser)
    parser.add_argument("--episodes", default="500", metavar="N", help="number of whole episodes [500]")
    parser.add_argument("--seed", default="20000", metavar="S", help="random seed of environments and actions [20000]")
    parser.add_argument(
        "--out", metavar="FILE", help="output file, .safetensors [trajectories.safetensors in the run directory]"
    )
    add_environment(parser)
    return parser


def video_parser() -> Parser:
    """`policygrad video`."""
    parser = Parser(
        "policygrad video",
        usage="policygrad video RUN [flags]",
        description="Record whole episodes of a trained policy as an mp4 video.",
        epilog="examples:\n  policygrad video latest\n  policygrad video latest --episodes 3 --sampled --out lander.mp4",
    )
    add_model(parser)
    parser.add_argument("--out", metavar="FILE", help="output file, .mp4 [video.mp4 in the run directory]")
    add_film(parser, 1)
    add_environment(parser)
    return parser


def watch_parser() -> Parser:
    """`policygrad watch`."""
    parser = Parser(
        "policygrad watch",
        usage="policygrad watch RUN [flags]",
        description="Watch a trained policy play in a window.",
        epilog="examples:\n  policygrad watch latest --episodes 1",
    )
    add_model(parser)
    add_film(parser, 5)
    add_environment(parser)
    return parser


def plot_parser() -> Parser:
    """`policygrad plot`."""
    parser = Parser(
        "policygrad plot",
        usage="policygrad plot RUN [RUN ...] [flags]",
        description="Draw the mean return of the last 100 episodes, or another metric, against steps. Runs that "
        "differ only in the seed are drawn as one curve, their mean, with a band from the lowest to the highest.",
        epilog="examples:\n  policygrad plot latest\n  policygrad plot runs/CartPole-v1 --by algo --out comparison.png\n"
        "  policygrad plot runs/CartPole-v1 --by lr --metric kl --smooth 5",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directory, directory of runs, beginning of a run's name, or latest"
    )
    parser.add_argument(
        "--by",
        default="config",
        metavar="{config,algo,seed}",
        help="draw one curve per config, algo or seed, or per value of hyperparameters, such as lr or lr,clip [config]",
    )
    parser.add_argument(
        "--metric",
        default="return_mean",
        metavar="COL",
        help="column of metrics.jsonl to draw, such as kl [return_mean]",
    )
    parser.add_argument("--smooth", default="1", metavar="N", help="rows of a moving average; 1: as measured [1]")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="file of the plot, png, pdf or svg [the run's learning_curve.png; several runs: learning_curves.png; with "
        "--metric, --smooth or --by, a file that is named after them]",
    )
    add_root(parser)
    return parser


def report_parser() -> Parser:
    """`policygrad report`."""
    parser = Parser(
        "policygrad report",
        usage="policygrad report RUN [flags]",
        description="Explain, in text and in a plot, what each measured update of a run predicted and achieved: where steps "
        "were rejected, where the linear and quadratic models were wrong, where the surrogate stopped tracking the return.",
        epilog="examples:\n  policygrad report latest\n  policygrad report latest --eigenvalues 10 --out report.pdf",
    )
    add_run_directory(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="file of the plot, png, pdf or svg [report.png in the run directory]"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON; a plot is drawn only with --out"
    )
    parser.add_argument(
        "--eigenvalues",
        default="0",
        metavar="K",
        help="number of largest Fisher eigenvalues of the final policy to compute, at most 100 [0]",
    )
    add_environment(parser, "with --eigenvalues: environment that the batch is collected in")
    return parser


def list_parser() -> Parser:
    """`policygrad list`."""
    parser = Parser(
        "policygrad list",
        description="List presets, algorithms, environments, trained policies, versions and logged numbers.",
    )
    parser.add_argument("what", nargs="?", metavar="{" + ",".join(LISTS) + "}", help="which list to show [all of them]")
    return parser


def completion_parser() -> Parser:
    """`policygrad completion`."""
    parser = Parser(
        "policygrad completion",
        description="Print a script that completes commands, algorithms, environments, flags and runs with the Tab key.",
        epilog="examples:\n"
        '  eval "$(policygrad completion bash)"   in ~/.bashrc\n'
        '  eval "$(policygrad completion zsh)"    in ~/.zshrc\n'
        "  policygrad completion fish > ~/.config/fish/completions/policygrad.fish",
    )
    parser.add_argument("shell", metavar="{" + ",".join(SHELLS) + "}", help="shell that runs the script")
    return parser


def add_model(parser: Parser) -> None:
    """RUN, for commands that need only a model file."""
    parser.add_argument("run", metavar="RUN", help="run directory, model file, beginning of a run's name, or latest")


def add_run_directory(parser: Parser) -> None:
    """RUN, for commands that need a run directory."""
    parser.add_argument("run", metavar="RUN", help="run directory, beginning of a run's name, or latest")


def add_environment(parser: Parser, what: str = "environment to play in") -> None:
    """The flags of the environment of a run, of your own code that it needs, and of the directory of runs."""
    group = parser.add_argument_group("the run and its environment")
    group.add_argument("--env", help=f"{what}; its spaces must match [that of the run]")
    add_own_code(group)
    add_root(group)


def add_own_code(group: Any) -> None:
    """The keywords of the environment, and your own wrappers and recipe, whose modules are imported only if you name them."""
    group.add_argument(
        "--env-kwargs",
        nargs="+",
        action="append",
        metavar="KEY=VALUE",
        help="keywords of the environment, e.g. is_slippery=false [those of the run]",
    )
    group.add_argument(
        "--wrapper",
        action="append",
        metavar="MODULE:NAME",
        help="a wrapper of your own that the run has; repeat the flag for several, innermost first",
    )
    group.add_argument("--recipe", metavar="MODULE:NAME", help="your own recipe, if the run was trained with one")


def add_film(parser: Parser, episodes: int) -> None:
    """The flags of episodes that are played to be seen."""
    parser.add_argument("--episodes", default=str(episodes), metavar="N", help=f"number of whole episodes [{episodes}]")
    parser.add_argument("--seed", metavar="S", help="random seed of the first episode [that of the evaluation]")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the most likely one")


def add_root(parser: Any) -> None:
    """The directory of runs."""
    parser.add_argument("--runs-root", default=ROOT, metavar="DIR", help="directory in which RUN is searched [runs]")


PARSERS = {
    "resume": resume_parser,
    "eval": eval_parser,
    "collect": collect_parser,
    "video": video_parser,
    "watch": watch_parser,
    "plot": plot_parser,
    "report": report_parser,
    "list": list_parser,
    "completion": completion_parser,
}
