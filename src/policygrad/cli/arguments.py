"""Flags generated from the recipes' signatures, and the words of a command line sorted among them.

`-` and `_` are one in flags and names; the flags that Stable-Baselines3 and CleanRL users type are accepted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NoReturn, get_args, get_origin

from policygrad.algorithms.config import ALIASES, HYPERPARAMETERS, algorithm, parameters, presets
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.values import (
    FALSE,
    TRUE,
    UsageError,
    flag,
    inner,
    parse_bool,
    parse_seed,
    parse_value,
    positive,
    show,
)

# what users of Stable-Baselines3 and CleanRL type, and what there is instead
HINTS = {
    "net_arch": "use --hidden, e.g. --hidden 64 64.",
    "policy_kwargs": "use --hidden and --activation.",
    "activation_fn": "use --activation.",
    "vf_coef": "actor and critic are separate networks, see --critic-lr.",
    "clip_vloss": "the critic's loss is the plain squared error.",
    "clip_range_vf": "the critic's loss is the plain squared error.",
    "anneal_lr": "use --lr-schedule linear.",
    "norm_adv": "use --standardize batch, or --standardize no.",
    "device": "training runs on the CPU.",
    "cuda": "training runs on the CPU.",
    "torch_deterministic": "equal seeds always give equal results.",
    "verbose": "use -q for quiet.",
    "progress_bar": "use -q for quiet.",
    "track": "metrics are in the run directory, in metrics.jsonl.",
    "wandb": "metrics are in the run directory, in metrics.jsonl.",
    "wandb_project_name": "metrics are in the run directory, in metrics.jsonl.",
    "tensorboard_log": "metrics are in the run directory, in metrics.jsonl.",
    "capture_video": "videos are not made; metrics are in the run directory, in metrics.jsonl.",
    "render": "training does not draw the environment.",
}

NOT_SUGGESTED = ("--help", "--env", "--env-id", "--algo", "--run-dir", "--runs-root")

# two flags that set one hyperparameter in different units
SAME = {"normalize_advantage": "standardize", "batch_size": "minibatches"}


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, treats `_` in flags as `-`, and names the nearest flag."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, formatter_class=Formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].lower()}{message[1:]}. `{self.prog} --help` says more.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse, or say what is wrong."""
        known, rest = self.parse_known_args([dashed(word) for word in words])
        for word in rest:
            if is_flag(word):
                raise UsageError(self.unknown_flag(word.partition("=")[0]))
        if rest:
            raise UsageError(f"unexpected argument {rest[0]!r}. `{self.prog} --help` says what there is.")
        return known

    def unknown_flag(self, flag: str) -> str:
        """The message for a flag that is not there."""
        name = flag.lstrip("-").replace("-", "_").removeprefix("no_")
        command = self.prog.removeprefix("policygrad ")
        if command.startswith("train") and name in HINTS:
            return f"{command} has no flag {flag}: {HINTS[name]}"
        owners = [algo for algo in RECIPES if SAME.get(name, ALIASES.get(name, name)) in parameters(algo)]
        has = f" ({owners[0]} has)" if owners and command.startswith("train") else ""
        near = [] if has else difflib.get_close_matches(flag.lstrip("-"), self.suggested(), n=1, cutoff=0.75)
        hint = f"Did you mean --{near[0]}?" if near else f"`{self.prog} --help` lists the flags."
        return f"{command} has no flag {flag}{has}. {hint}"

    def suggested(self) -> list[str]:
        """Flags that a typing error may have been meant for: not those that are about files."""
        return [f[2:] for f in self._option_string_actions if f.startswith("--") and f not in NOT_SUGGESTED]


class Formatter(argparse.HelpFormatter):
    """argparse's layout, a little wider, with each option's value named once: `--lr, --learning-rate X`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        if isinstance(action, Switch):
            return ", ".join(action.option_strings)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return ", ".join(action.option_strings) + " " + value


def is_flag(word: str) -> bool:
    """Whether a word is a flag; -1 and -1e-3 are values."""
    if len(word) < 2 or not word.startswith("-"):
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def dashed(word: str) -> str:
    """A flag with `-` for `_` in its name; other words as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


@dataclass
class TrainArguments:
    """`policygrad train`, understood."""

    algo: str
    env: str
    seed: int = 0
    run_dir: str | None = None
    runs_root: str | None = None
    eval_episodes: int = 100
    quiet: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that belong to no flag, ALGO and ENV, and all others: ALGO decides which flags there are."""
    known = flags_of_all()
    kinds = {name: inner(kind)[0] for algo in RECIPES for name, (kind, _) in parameters(algo).items()}
    bare = {"quiet", "help", "q", "h", "normalize-advantage"} | {
        name.replace("_", "-") for name, kind in kinds.items() if kind is bool
    }
    many = {name.replace("_", "-") for name, kind in kinds.items() if get_origin(kind) is tuple}
    free, flags, index = [], [], 0
    while index < len(words):
        word = dashed(words[index])
        index += 1
        if not is_flag(word):
            free.append(word)
            continue
        flags.append(word)
        name = word.lstrip("-")
        if "=" in name:
            continue
        next_is_value = int(index < len(words) and not is_flag(words[index]))
        if name in bare or name.removeprefix("no-") in bare:
            take = int(index < len(words) and words[index].lower() in TRUE + FALSE)
        elif name in many:
            take = max(next_is_value, numbers_from(words, index))
        elif word in known:
            take = next_is_value
        else:
            take = numbers_from(words, index)
        flags += words[index : index + take]
        index += take
    return free, flags


@cache
def flags_of_all() -> frozenset[str]:
    """The flags of `train` with any algorithm."""
    flags = {f for algo in RECIPES for f in train_parser(algo, None)._option_string_actions}
    return frozenset(flags | {"--algo", "--env", "--env-id"})


def numbers_from(words: Sequence[str], index: int) -> int:
    """How many words from there on look like numbers."""
    return next((k for k, w in enumerate(words[index:]) if not _like_numbers(w)), len(words) - index)


def refuse_unknown(free: list[str], flags: list[str]) -> None:
    """Name a flag that no algorithm has, before its words are taken for something else."""
    known = flags_of_all()
    for word in flags:
        name = word.partition("=")[0]
        if is_flag(word) and name not in known and (word.startswith("--") or word[:2] not in known):
            algos = [w.lower().replace("-", "_") for w in free if w.lower().replace("-", "_") in RECIPES]
            parser = train_parser(algos[0] if algos else "ppo", None)
            parser.prog = " ".join(["policygrad train", *(free if len(free) == 2 and algos else algos[:1])])
            raise UsageError(parser.unknown_flag(name))


def refuse_twice(parser: Parser, flags: list[str], algo: str) -> None:
    """Name two flags that set one hyperparameter."""
    seen: dict[str, str] = {}
    for word in flags:
        name = word.partition("=")[0]
        action = parser._option_string_actions.get(name) if is_flag(word) else None
        if action is None:
            continue
        own = SAME.get(action.dest, action.dest)
        if own in parameters(algo) and seen.setdefault(own, name) != name:
            raise UsageError(f"{seen[own]} and {name} set the same hyperparameter: give one of them.")


def _like_numbers(word: str) -> bool:
    return word.lower() == "none" or (bool(word) and set(word) <= set("0123456789_,.eE+-()[]") and not is_flag(word))


def named_positionals(free: list[str], flags: list[str]) -> tuple[str | None, str | None, list[str]]:
    """ALGO and ENV, given as words or as --algo, --env, --env-id; and the flags without them."""
    parser = Parser("policygrad train", add_help=False)
    parser.add_argument("--algo")
    parser.add_argument("--env", "--env-id")
    known, flags = parser.parse_known_args(flags)
    free = list(free)
    algo = known.algo if known.algo is not None else free.pop(0) if free else None
    env = known.env if known.env is not None else free.pop(0) if free else None
    if free:
        raise UsageError(f"unexpected argument {free[0]!r}: expected policygrad train ALGO ENV and flags.")
    return algo, env, flags


def parse_train(words: Sequence[str]) -> TrainArguments:
    """`policygrad train …`; prints help and raises SystemExit where it is asked for."""
    free, flags = split(words)
    wants_help = "--help" in flags or "-h" in flags
    if not wants_help:
        refuse_unknown(free, flags)
    algo, env, flags = named_positionals(free, flags)
    if algo is None:
        if wants_help:
            print(train_help(), end="")
            raise SystemExit(0)
        raise UsageError(
            f"train needs an algorithm and an environment, e.g. `policygrad train ppo CartPole-v1`.\n"
            f"Algorithms: {', '.join(RECIPES)}. `policygrad list` shows everything."
        )
    if env is not None and env.lower().replace("-", "_") in RECIPES and algo.lower().replace("-", "_") not in RECIPES:
        raise UsageError(f"the algorithm comes first: policygrad train {env} {algo}")
    algo = algorithm(algo)
    if env is not None:
        env = check_env(env)
    parser = train_parser(algo, env)
    if wants_help:
        parser.print_help()
        raise SystemExit(0)
    if env is None:
        raise UsageError(
            f"train {algo} needs an environment, e.g. `policygrad train {algo} CartPole-v1`.\n"
            "`policygrad list envs` shows what there is."
        )
    known = vars(parser.parse(flags))
    refuse_twice(parser, flags, algo)
    arguments = TrainArguments(algo, env)
    kinds = {name: kind for name, (kind, _) in parameters(algo).items()} | {"batch_size": int}
    for name, value in known.items():
        if name == "seed":
            arguments.seed = parse_seed(value)
        elif name == "eval_episodes":
            arguments.eval_episodes = positive(name, value)
        elif name in ("run_dir", "runs_root", "quiet"):
            setattr(arguments, name, value)
        elif name == "normalize_advantage":
            arguments.overrides[name] = parse_bool(name, value) if value != ["no"] else False
        else:
            arguments.overrides[name] = parse_value(name, kinds[name], value)
    return arguments


def check_env(env: str) -> str:
    """The environment's id; `module:id` finds modules beside the user, too, after everything that is installed."""
    if ":" in env and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    from policygrad.envs.make import check_env_id

    try:
        return check_env_id(env)
    except ValueError as error:
        raise UsageError(str(error)) from error


class Switch(argparse.Action):
    """`--x`, `--no-x`, `--x false`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        words = [] if values is None else [values]
        if option_string is not None and option_string.startswith("--no-"):
            if words:
                raise UsageError(f"{option_string} takes no value, got {words[0]!r}.")
            words = ["no"]
        setattr(namespace, self.dest, words)


def train_parser(algo: str, env: str | None) -> Parser:
    """The flags of an algorithm, with the defaults that hold in the environment."""
    tuned = presets(algo).get(env or "", {})
    notes = {
        "": "Defaults in brackets.",
        "tuned": f"Defaults in brackets; * marks what is tuned for {env}.",
        "none": f"Defaults in brackets; there is no tuned preset for {env}.",
    }
    note = notes["" if env is None else "tuned" if tuned else "none"]
    if env is None and presets(algo):
        note += f" Name an environment to see what is tuned for it: {', '.join(presets(algo))}."
    summary = (RECIPES[algo].__doc__ or "").strip().split("\n\n")[0]
    parser = Parser(
        f"policygrad train {algo}{f' {env}' if env else ''}",
        usage=f"policygrad train {algo} {env or 'ENV'} [flags]",
        description=f"{summary} {note}",
        argument_default=argparse.SUPPRESS,
    )
    run = parser.add_argument_group("run")
    run.add_argument("--seed", metavar="S", help="of everything random [0]")
    run.add_argument("--run-dir", metavar="DIR", help="new or empty [runs/ENV/ALGO/seed<S>-<UTC>]")
    run.add_argument("--runs-root", metavar="DIR", help="where run directories are made [runs]")
    run.add_argument("--eval-episodes", metavar="N", help="of the final evaluations, greedy and sampled [100]")
    run.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    group = parser.add_argument_group("hyperparameters")
    for name, (kind, default) in parameters(algo).items():
        shown = show(tuned.get(name, default)) + ("*" if name in tuned else "")
        add_flag(group, algo, name, kind, shown)
    if "minibatches" in parameters(algo):
        group.add_argument("--batch-size", nargs=1, metavar="N", help="steps a minibatch, instead of --minibatches")
    return parser


def add_flag(group: Any, algo: str, name: str, kind: Any, default: str) -> None:
    """One hyperparameter's flag, its aliases, its help."""
    aliases = [alias for alias, own in ALIASES.items() if own == name and alias not in parameters(algo)]
    strings = [flag(n) for n in (name, *aliases) if n != "normalize_advantage"]
    strings = ["-n", *strings] if name == "steps" else strings
    text = f"{HYPERPARAMETERS.get(name, ('',))[0]} [{default}]".strip().replace("%", "%%")
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


def train_help() -> str:
    """`policygrad train --help`, before an algorithm is known."""
    rows = "\n".join(
        f"  {name:<12}{textwrap.shorten((function.__doc__ or '').strip().splitlines()[0], 100, placeholder=' …')}"
        for name, function in RECIPES.items()
    )
    return f"""usage: policygrad train ALGO ENV [--steps N] [--seed S] [--num-envs N] [--run-dir DIR] [--quiet] [flags]

Train a policy, evaluate it greedily and sampled on fixed seeds, keep everything in a run directory.

algorithms:
{rows}

  policygrad train ppo --help                     its flags
  policygrad train ppo LunarLander-v3 --help      its flags with what is tuned for the environment
  policygrad list                                 presets, algorithms, environments
"""
