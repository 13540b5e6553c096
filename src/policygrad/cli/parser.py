"""argparse with our messages: `-` and `_` are the same in flags, and an error names the nearest right flag."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from policygrad.algorithms.config import aliases, parameters, pieces
from policygrad.algorithms.foreign import answer
from policygrad.algorithms.recipe import OLD_KEYWORDS
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.foreign_words import flag_answer
from policygrad.cli.values import FALSE, UsageError, flag_of

NOT_SUGGESTED = ("--help", "--env", "--env-id", "--algo", "--run-dir", "--runs-root", "--env-kwargs", "--wrapper")


def same(algo: str, name: str) -> str:
    """The hyperparameter that a flag sets, also if the flag has another name or another unit."""
    others = {"normalize_advantage": "standardize", "batch_size": pieces(algo) or "batch_size"}
    return others.get(name) or aliases(algo).get(name, name)


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, treats `_` in flags as `-`, and names the nearest flag."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, formatter_class=Formatter, **kwargs)
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].lower()}{message[1:]}. `{self.prog} --help` explains the flags.")

    def parse(self, words: Sequence[str], meaning: Callable[[str], str] = lambda dest: dest) -> argparse.Namespace:
        """The parsed words. Raises UsageError. meaning: the keyword that a flag sets, from argparse's name for it."""
        words = [dashed(word) for word in words]
        self.refuse_twice(words, meaning)
        known, rest = self.parse_known_args(words)
        for index, word in enumerate(rest):
            if is_flag(word):
                raise UsageError(self.unknown_flag(word.partition("=")[0], off=is_off(rest, index)))
        if rest:
            raise UsageError(f"unexpected argument {rest[0]!r}. `{self.prog} --help` lists the arguments.")
        return known

    def refuse_twice(self, words: Sequence[str], meaning: Callable[[str], str] = lambda dest: dest) -> None:
        """Raise UsageError for a flag that is given twice, or two flags that set the same keyword."""
        seen: dict[str, str] = {}
        for word in filter(is_flag, words):
            name = word.partition("=")[0]
            name = name if name.startswith("--") or name in self._option_string_actions else name[:2]  # -n100
            action = self._option_string_actions.get(name)
            if action is None or action.nargs == 0 or isinstance(action, argparse._AppendAction):
                continue
            first = seen.setdefault(meaning(action.dest), "")
            if first == name:
                raise UsageError(f"{name} is given twice: give it once.")
            if first:
                raise UsageError(f"{first} and {name} set the same hyperparameter: give one of them.")
            seen[meaning(action.dest)] = name

    def unknown_flag(self, flag: str, others: Sequence[str] = (), off: bool = False) -> str:
        """The message for an unknown flag. others: flags that may be meant, besides its own. off: its value is false."""
        given = flag.lstrip("-").lower().replace("-", "_")
        name, off = given.removeprefix("no_"), off or given.startswith("no_")
        command = self.prog.removeprefix("policygrad ")
        if command.startswith("train"):
            command = " ".join(command.split()[:2])  # the algorithm decides which flags there are, not the environment
            old = OLD_KEYWORDS.get(name)
            instead = answer(name, command_line=True, off=off) if old is None else f"use {flag_of(old)}"
        else:
            instead = flag_answer(command, given) or flag_answer(command, name)
        if instead is not None:
            return f"{command} has no flag {flag}: {instead}."
        owners = [algo for algo in RECIPES if same(algo, name) in parameters(algo)]
        has = f" ({owners[0]} has)" if owners and command.startswith("train") else ""
        near = [] if has else difflib.get_close_matches(flag.lstrip("-"), self.suggested(others), n=1, cutoff=0.75)
        hint = f"Did you mean --{near[0]}?" if near else f"`{self.prog} --help` lists the flags."
        return f"{command} has no flag {flag}{has}. {hint}"

    def suggested(self, others: Sequence[str] = ()) -> list[str]:
        """The flags that may be suggested for a misspelt one: not those for files."""
        return [f[2:] for f in (*self._option_string_actions, *others) if f.startswith("--") and f not in NOT_SUGGESTED]


class Formatter(argparse.HelpFormatter):
    """argparse's layout, a little wider, with each option's value named once: `--lr, --learning-rate X`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)  # names may have hyphens

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A paragraph is wrapped; a text of several lines, such as examples, keeps its lines."""
        return text if "\n" in text else super()._fill_text(text, width, indent)

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


def is_off(words: Sequence[str], index: int) -> bool:
    """Whether the flag at this index is given the value false: `--x false`, `--x=false`."""
    _, equals, value = words[index].partition("=")
    return (value if equals else "".join(words[index + 1 : index + 2])).lower() in FALSE


def dashed(word: str) -> str:
    """A flag with `-` in place of `_` in its name; other words are not changed."""
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
