"""The command line. Thin: parse, call `policygrad.runs`, print.

Nothing heavy is imported before a command needs it. Exit code 0; 2 for anything the user can mend, with at most three
lines that say what is wrong, what was given and what is allowed; 130 after Ctrl-C.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import policygrad

COMMANDS = {  # usage, what it does, module and function
    "train": (
        "train ALGO ENV",
        "train a policy, evaluate it and save everything in a run directory",
        "training",
        "train",
    ),
    "eval": ("eval RUN", "evaluate a trained policy on fixed seeds: mean return, 95 % interval", "playing", "evaluate"),
    "collect": ("collect RUN", "play a trained policy and save the trajectories as a dataset", "playing", "collect"),
    "video": ("video RUN", "record a trained policy as an mp4 video", "playing", "video"),
    "watch": ("watch RUN", "watch a trained policy play in a window", "playing", "watch"),
    "plot": ("plot RUN …", "draw learning curves", "drawing", "plot"),
    "report": (
        "report RUN",
        "explain what each update predicted and achieved, in text and a plot",
        "reporting",
        "report",
    ),
    "lab": ("lab EXPERIMENT", "experiments on gradients and update steps", "lab", "lab"),
    "list": ("list", "list presets, algorithms and environments", "lists", "show_list"),
    "completion": (
        "completion SHELL",
        "print a script for Tab completion in bash, zsh or fish",
        "completion",
        "completion",
    ),
}

HELP = """usage: policygrad COMMAND …

Policy gradients for PyTorch and Gymnasium.

{commands}

ALGO: {algorithms}. ENV: a Gymnasium id, or module:id.
RUN: a run directory, a model file, the beginning of a run's name, or `latest`.
Every command has --help; `policygrad train ALGO ENV --help` shows every
hyperparameter with its tuned default.

examples:
  policygrad train ppo LunarLander-v3
  policygrad train a2c CartPole-v1 --seed 0 1 2 3 --steps 5e4 --lr 1e-3
  policygrad eval latest --episodes 500
  policygrad plot runs/CartPole-v1 --out comparison.png
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # an ASCII locale has no γ
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    format_before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"policygrad: {message}\n"
    try:
        return run(argv)
    except KeyboardInterrupt as interrupt:
        print(f"\npolicygrad: {str(interrupt) or 'interrupted: nothing was saved'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # policygrad list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        warnings.formatwarning = format_before


def run(argv: list[str]) -> int:
    """Dispatch; turn errors that the user can mend into a message and exit code 2."""
    from policygrad.errors import PolicygradError
    from policygrad.files import printable

    try:
        dispatch(argv)
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except BrokenPipeError:
        raise
    except (PolicygradError, OSError, MemoryError) as error:
        lines = [printable(line.strip()) for line in str(error).splitlines() if line.strip()] or ["not enough memory"]
        print("policygrad: " + "\n".join(lines[:3]), file=sys.stderr)
        return 2
    return 0


def dispatch(argv: list[str]) -> None:
    """Call the command."""
    from policygrad.cli.values import UsageError

    command, words = (argv[0], argv[1:]) if argv else ("help", [])
    if command in ("help", "-h", "--help"):
        print(help_text(), end="")
        return
    if command in ("-V", "--version"):
        print(f"policygrad {policygrad.__version__}")
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Available: {', '.join(COMMANDS)}."
        raise UsageError(f"there is no command {command!r}. {hint}")
    *_, module, function = COMMANDS[command]
    getattr(import_module(f"policygrad.cli.{module}"), function)(words)


def help_text() -> str:
    """`policygrad --help`."""
    from policygrad.algorithms.recipes import RECIPES

    rows = "\n".join(f"  {usage:<18}{what}" for usage, what, *_ in COMMANDS.values())
    text = HELP.format(commands=rows, algorithms=", ".join(RECIPES))
    if not sys.stdout.isatty():
        return text
    from policygrad.cli.tables import paragraph

    return paragraph(text, " " * 4)
