"""The command line. A command parses its arguments, calls `policygrad.training` or another room, and prints.

Nothing heavy is imported before a command needs it. The exit code is 0, or 2 for mistakes that the user can correct, with at
most three lines that say what is wrong, what was given and what is allowed; 130 after Ctrl-C, 143 after SIGTERM, 129 after
SIGHUP. Training continues, and ends with 0, if its output is closed.

It is written with argparse, which is imported in 10 ms (click in 35, typer 55, cyclopts 68, tyro 102), because in none of these
can ALGO, wherever it stands, decide the flags, and none answers other libraries' flags.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import policygrad
from policygrad.training.interrupts import terminations
from policygrad.training.progress import SafeStream, plain

COMMANDS = {  # usage, what it does, and the module with the function `…_command`
    "train": ("train ALGO ENV", "train a policy, evaluate it, and save everything", "training"),
    "resume": ("resume RUN", "continue a run that was stopped or killed", "resuming"),
    "eval": ("eval RUN", "evaluate a trained policy: mean return, 95 % interval", "playing"),
    "collect": ("collect RUN", "save trajectories of a trained policy as a dataset", "playing"),
    "export": ("export RUN", "write a trained policy as ONNX, TorchScript or NumPy", "exporting"),
    "video": ("video RUN", "record a trained policy as an mp4 video", "playing"),
    "watch": ("watch RUN", "watch a trained policy play in a window", "playing"),
    "plot": ("plot RUN …", "draw learning curves", "drawing"),
    "compare": ("compare ALGO …", "which is better, by how much, how surely", "comparing"),
    "tune": ("tune ALGO ENV", "search for hyperparameters, check them on fresh seeds", "tuning"),
    "sweep": ("sweep ALGO ENV", "how hyperparameters matter, and whether the best is better", "sweeping"),
    "report": ("report RUN", "explain what each update predicted and achieved", "reporting"),
    "doctor": ("doctor WHAT", "find what is wrong with an environment, or with a run", "doctor"),
    "runs": ("runs [DIR]", "which runs train, how far they are, and what has died", "runs"),
    "lab": ("lab EXPERIMENT", "experiments on gradients and update steps", "lab"),
    "push": ("push RUN REPO", "upload a run to the Hugging Face hub", "hub"),
    "pull": ("pull REPO", "download a run from the Hugging Face hub", "hub"),
    "list": ("list", "list presets, algorithms, environments, versions", "lists"),
    "completion": ("completion SHELL", "print a script for Tab completion in bash, zsh or fish", "completion"),
}

HELP = """usage: policygrad COMMAND …

Policy gradients for PyTorch and Gymnasium.

{commands}

ALGO  {algorithms};
      or your own recipe, module:name or file.py:name
ENV   a Gymnasium id; or your own environment, module:name or file.py:name
RUN   a run directory, a model file, the beginning of a run's name, or latest;
      or a policy of `policygrad list policies`

`policygrad COMMAND --help` explains a command.
`policygrad train ALGO ENV --help` shows every hyperparameter with its value.

examples:
  policygrad train ppo LunarLander-v3
  policygrad train a2c CartPole-v1 --seed 0 1 2 3 --steps 5e4 --lr 1e-3
  policygrad eval latest --episodes 500
  policygrad plot runs/CartPole-v1 --out comparison.png
  policygrad compare ppo a2c --env CartPole-v1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # an ASCII locale has no γ
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    before = sys.stdout, sys.stderr, warnings.formatwarning
    out, err = SafeStream(sys.stdout), SafeStream(sys.stderr)
    sys.stdout, sys.stderr = out, err  # pyright: ignore[reportAttributeAccessIssue]
    warnings.formatwarning = warning_lines()
    try:
        code = run_command(argv)
        out.flush()
        return refuse_output(out.lost) if code == 0 and argv[:1] != ["train"] else code
    except KeyboardInterrupt as interrupt:
        print(f"\npolicygrad: {str(interrupt) or 'interrupted: nothing was saved'}", file=sys.stderr)
        return getattr(interrupt, "code", 130)
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr, warnings.formatwarning = before


def warning_lines() -> Callable[..., str]:
    """How warnings are shown: as a line, each once, without the colours and the "WARN: " of Gymnasium's."""
    shown: set[str] = set()

    def line(message: Any, *_: Any, **__: Any) -> str:
        text = plain(str(message))
        new = text not in shown
        shown.add(text)
        return f"policygrad: {text}\n" if new else ""

    return line


def open_streams() -> None:
    """Open the null device for closed standard streams, because the next opened file would become one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def refuse_output(lost: Exception | None) -> int:
    """The exit code of a command that only prints: 2 if the output was lost, as on a full disk; a closed pipe is no failure."""
    if lost is None or not isinstance(lost, OSError) or isinstance(lost, BrokenPipeError):
        return 0
    print(f"policygrad: cannot write to standard output: {lost.strerror or lost}", file=sys.stderr)
    return 2


def run_command(argv: list[str]) -> int:
    """Run a command; errors that the user can correct become a message and exit code 2."""
    from policygrad.errors import PolicygradError
    from policygrad.files import printable

    try:
        with terminations():
            dispatch(argv)
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except (PolicygradError, OSError, MemoryError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        lines = [printable(line.strip()) for line in text.splitlines() if line.strip()] or ["not enough memory"]
        print("policygrad: " + "\n".join(lines[:3]), file=sys.stderr)
        return 2
    return 0


def dispatch(argv: list[str]) -> None:
    """Call the function of the command that argv names."""
    from policygrad.cli.foreign_words import command_hint
    from policygrad.cli.values import UsageError

    command, words = (argv[0], argv[1:]) if argv else ("help", [])
    if command in ("help", "-h", "--help") and words and words[0] not in ("help", "-h", "--help"):
        command, words = words[0], [*words[1:], "--help"]  # help train
    if command in ("help", "-h", "--help"):
        print(help_text(), end="")
        return
    if command in ("-V", "--version"):
        print(f"policygrad {policygrad.__version__}")
        return
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}. {command_hint(command, COMMANDS)}")
    module = COMMANDS[command][-1]
    getattr(import_module(f"policygrad.cli.{module}"), f"{command}_command")(words)


def help_text() -> str:
    """`policygrad --help`."""
    from policygrad.algorithms.recipes import RECIPES

    rows = "\n".join(f"  {usage:<18}{what}" for usage, what, *_ in COMMANDS.values())
    text = HELP.format(commands=rows, algorithms=", ".join(RECIPES))
    if not sys.stdout.isatty():
        return text
    from policygrad.cli.tables import paragraph

    return paragraph(text, " " * 4)
