"""argparse with our messages: `-` and `_` are one in flags, and a wrong flag is answered with the right one."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from policygrad.algorithms.config import aliases, parameters, pieces
from policygrad.algorithms.recipe import OLD_KEYWORDS
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.values import UsageError

# what users of Stable-Baselines3, CleanRL and version 0.4 type, and what there is instead
HINTS = {
    "net_arch": "use --hidden, e.g. --hidden 64 64.",
    "policy_kwargs": "use --hidden and --activation.",
    "activation_fn": "use --activation.",
    "vf_coef": "actor and critic are separate networks; see --critic-lr.",
    **dict.fromkeys(("clip_vloss", "clip_range_vf"), "the critic's loss is the plain squared error."),
    "anneal_lr": "use --lr-schedule linear.",
    "norm_adv": "use --standardize batch, or --standardize no.",
    **dict.fromkeys(("device", "cuda"), "training always runs on the CPU."),
    "torch_deterministic": "equal seeds always give equal results.",
    **dict.fromkeys(("verbose", "progress_bar"), "use -q for quiet."),
    **dict.fromkeys(
        ("track", "wandb", "wandb_project_name"), "metrics are written to metrics.jsonl in the run directory."
    ),
    "tensorboard_log": "every run directory holds event files; see `tensorboard --logdir runs`.",
    "capture_video": "use `policygrad video RUN` after training.",
    "render": "use `policygrad watch RUN` after training.",
} | {old: f"use --{new.replace('_', '-')}." for old, new in OLD_KEYWORDS.items()}

NOT_SUGGESTED = ("--help", "--env", "--env-id", "--algo", "--run-dir", "--runs-root")


def same(algo: str, name: str) -> str:
    """The hyperparameter that a flag sets, in its own units or in others."""
    others = {"normalize_advantage": "standardize", "batch_size": pieces(algo) or "batch_size"}
    return others.get(name) or aliases(algo).get(name, name)


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, treats `_` in flags as `-`, and names the nearest flag."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, formatter_class=Formatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].lower()}{message[1:]}. `{self.prog} --help` explains the flags.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse, or say what is wrong."""
        known, rest = self.parse_known_args([dashed(word) for word in words])
        for word in rest:
            if is_flag(word):
                raise UsageError(self.unknown_flag(word.partition("=")[0]))
        if rest:
            raise UsageError(f"unexpected argument {rest[0]!r}. `{self.prog} --help` lists the arguments.")
        return known

    def unknown_flag(self, flag: str) -> str:
        """The message for a flag that is not there."""
        name = flag.lstrip("-").replace("-", "_").removeprefix("no_")
        command = self.prog.removeprefix("policygrad ")
        if command.startswith("train") and name in HINTS:
            return f"{command} has no flag {flag}: {HINTS[name]}"
        owners = [algo for algo in RECIPES if same(algo, name) in parameters(algo)]
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


class Switch(argparse.Action):
    """`--x`, `--no-x`, `--x false`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        words = [] if values is None else [values]
        if option_string is not None and option_string.startswith("--no-"):
            if words:
                raise UsageError(f"{option_string} takes no value, got {words[0]!r}.")
            words = ["no"]
        setattr(namespace, self.dest, words)
