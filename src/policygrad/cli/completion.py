"""`policygrad completion SHELL`: a script that completes commands, algorithms, environments, flags, their values and runs.

shtab writes it from one parser that has all commands. Everything except the runs is in the script, so that the Tab key starts
no Python process.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

import shtab

from policygrad.algorithms.config import tuned_for
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import COMMANDS, hub, lab
from policygrad.cli.comparing import compare_parser
from policygrad.cli.doctor import doctor_parser
from policygrad.cli.exporting import export_parser
from policygrad.cli.flags import PARSERS, SHELLS, completion_parser, first_line, train_parser
from policygrad.cli.parser import Parser, Switch
from policygrad.cli.runs import runs_parser
from policygrad.cli.sweeping import sweep_parser
from policygrad.cli.tuning import tune_parser
from policygrad.cli.values import UsageError

BASH = """
_policygrad_run_or_file() {
  local config names=latest
  for config in runs/*/config.json runs/*/*/config.json runs/*/*/*/config.json; do
    if [[ -e $config ]]; then
      config=${config#runs/}
      names+=" ${config%/config.json}"
    fi
  done
  compgen -W "$names" -- "$1" || compgen -f -- "$1"
}
"""
ZSH = """
_policygrad_run_or_file() {
  local -a runs
  runs=(runs/*/config.json(N) runs/*/*/config.json(N) runs/*/*/*/config.json(N))
  compadd -- latest ${${runs#runs/}%/config.json} || _files
}
"""
FISH = """
function __policygrad_run_or_file
  echo latest
  for config in runs/*/config.json runs/*/*/config.json runs/*/*/*/config.json
    string replace -r '^runs/(.*)/config.json$' '$1' -- $config
  end
  __fish_complete_path (commandline -ct)
end
"""
RUN: Any = {
    "bash": "_policygrad_run_or_file",
    "zsh": "_policygrad_run_or_file",
    "fish": "(__policygrad_run_or_file)",
    "preamble": {"bash": BASH, "zsh": ZSH, "fish": FISH},
}
PLACES: dict[str, Any] = dict.fromkeys(("--run-dir", "--runs-root", "directory"), shtab.DIRECTORY)
PLACES |= dict.fromkeys(("--preset", "--zoo", "--out", "--html", "--dataset"), shtab.FILE)


def completion_command(words: Sequence[str]) -> None:
    """`policygrad completion`."""
    given = completion_parser().parse(words)
    if given.shell not in SHELLS:
        raise UsageError(f"there is no completion for {given.shell!r}. Available: {', '.join(SHELLS)}.")
    print(script(given.shell), end="")


def script(shell: str) -> str:
    """The completion script of a shell."""
    return shtab.complete(whole_parser(), shell)


def whole_parser() -> argparse.ArgumentParser:
    """All commands, algorithms and experiments as one parser, which is for shtab's eyes only."""
    top = argparse.ArgumentParser("policygrad")
    top.add_argument("--version", action="store_true", help="show the version")
    ours = {
        "compare": compare_parser,
        "doctor": doctor_parser,
        "export": export_parser,
        "runs": runs_parser,
        "sweep": sweep_parser,
        "tune": tune_parser,
    }
    commands, parsers = top.add_subparsers(), PARSERS | hub.PARSERS | ours
    for name, (_, what, *_) in COMMANDS.items():
        command = commands.add_parser(name, help=what)
        if name in parsers:
            add_words(command, parsers[name]())
        under = None if name in parsers else command.add_subparsers()
        if name == "train" and under is not None:
            for algo, recipe in RECIPES.items():
                algorithm = under.add_parser(algo, help=first_line(recipe))
                algorithm.add_argument("env", nargs="?", choices=[*tuned_for(algo)], help="environment")
                add_words(algorithm, train_parser(algo, None))
        if name == "lab" and under is not None:
            for experiment, (_, what, _) in lab.EXPERIMENTS.items():
                add_words(under.add_parser(experiment, help=what), lab.module(experiment).parser())
    return top


def add_words(parser: argparse.ArgumentParser, source: Parser) -> None:
    """Add the arguments of one of our parsers, with the words that they take."""
    for action in source._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        keywords: dict[str, Any] = {"help": re.sub(r"\s*\[[^]]*\]$", "", action.help or "")}  # without the default
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        choices = metavar.strip("{}").split(",") if metavar.startswith("{") else list(getattr(action, "words", ()))
        if choices:
            keywords["choices"] = choices
        if not action.option_strings:
            added = parser.add_argument(action.dest, nargs=action.nargs, **keywords)
        elif action.nargs == 0 or isinstance(action, Switch):
            added = parser.add_argument(*action.option_strings, help=keywords["help"], action="store_true")
        else:
            added = parser.add_argument(*action.option_strings, **keywords)
        word = action.option_strings[0] if action.option_strings else action.dest
        place = PLACES.get(word, RUN if "run" in word and word == action.dest else None)
        if place is not None:
            added.complete = place  # pyright: ignore[reportAttributeAccessIssue]
