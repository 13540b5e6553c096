"""`policygrad completion SHELL`: a script that completes commands, algorithms, environments, flags, their values and runs.

Everything except the runs is written into the script, so that the Tab key starts no Python process.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from policygrad.algorithms.config import tuned_for
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import COMMANDS, lab
from policygrad.cli.flags import LISTS, PARSERS, SHELLS, completion_parser, first_line, train_parser
from policygrad.cli.parser import Parser, Switch
from policygrad.cli.values import UsageError

CHOICES = {"lab": tuple(lab.EXPERIMENTS), "list": LISTS, "completion": SHELLS}  # the first word after a command
WHERE = {"--run-dir": "dirs", "--runs-root": "dirs"}
WHERE |= dict.fromkeys(("--preset", "--out", "--html", "--dataset"), "files")


@dataclass(frozen=True)
class Flag:
    """A flag: its spellings, the kind of value that follows it (words, dirs, files, any or nothing), and its help."""

    names: tuple[str, ...]
    follows: str
    choices: tuple[str, ...]
    help: str


def completion_command(words: Sequence[str]) -> None:
    """`policygrad completion`."""
    given = completion_parser().parse(words)
    if given.shell not in SHELLS:
        raise UsageError(f"there is no completion for {given.shell!r}. Available: {', '.join(SHELLS)}.")
    print(script(given.shell), end="")


def script(shell: str) -> str:
    """The completion script of a shell."""
    text = (files("policygrad.cli") / "completion_scripts" / f"policygrad.{shell}").read_text("utf8")
    parts = WRITERS[shell]()
    return re.sub(r"^( *)@(\w+)@\n", lambda m: "".join(f"{m[1]}{line}\n" for line in parts[m[2]]), text, flags=re.M)


def flags(parser: Parser) -> list[Flag]:
    """The flags of a command."""
    found = []
    for action in parser._actions:
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        choices, follows = (), "any"
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if action.nargs == 0 or isinstance(action, Switch):
            follows = "nothing"
        elif words := getattr(action, "words", ()):
            follows, choices = "words", words
        elif metavar.startswith("{"):
            follows, choices = "words", tuple(metavar.strip("{}").split(","))
        follows = WHERE.get(action.option_strings[0], follows)
        meaning = re.sub(r"\s*\[[^]]*\]$", "", (action.help or "").replace("%%", "%"))
        found.append(Flag(tuple(action.option_strings), follows, choices, meaning))
    return found


def groups() -> dict[str, list[Flag]]:
    """The flags of every algorithm, of every other command and of every experiment, by group."""
    trains = {f"train {algo}": flags(train_parser(algo, None)) for algo in RECIPES}
    experiments = {f"lab {name}": flags(lab.module(name).parser()) for name in lab.EXPERIMENTS}
    return trains | {command: flags(make()) for command, make in PARSERS.items()} | experiments


def spellings(found: Iterable[Flag], follows: str | None = None) -> list[str]:
    """The spellings of the flags. follows: only of the flags that this kind of value follows."""
    return [name for flag in found if follows in (None, flag.follows) for name in flag.names]


def bash() -> dict[str, list[str]]:
    """The parts that the bash script is filled with."""
    fill: dict[str, list[str]] = {
        "commands": [f'words="{" ".join([*COMMANDS, "--help", "--version"])}"'],
        "algorithms": [f"{'|'.join(RECIPES)}) algo=${{COMP_WORDS[i]}} ;;"],
        "algorithm_names": [f'words="{" ".join(RECIPES)}"'],
        "lists": [f'{command}) words="{" ".join(choices)}" ;;' for command, choices in CHOICES.items()],
        "environments": [f'{algo}) words="{" ".join(tuned_for(algo))}" ;;' for algo in RECIPES],
        "values": [],
        "flags": [],
    }
    for group, found in groups().items():
        chosen = [flag for flag in found if flag.choices]
        fill["values"] += [f'"{group} {n}") words="{" ".join(f.choices)}" ;;' for f in chosen for n in f.names]
        for kind in ("dirs", "files", "any"):
            if several := spellings(found, kind):
                fill["values"].append(f"{'|'.join(f'{chr(34)}{group} {n}{chr(34)}' for n in several)}) kind={kind} ;;")
        fill["flags"].append(f'"{group}") words="{" ".join(spellings(found))}" ;;')
    return fill


def zsh() -> dict[str, list[str]]:
    """The parts that the zsh script is filled with: words with their meanings, `word:meaning`."""
    fill = bash()
    fill["commands"] = [f"found=({described((name, what) for name, (_, what, *_) in COMMANDS.items())})"]
    fill["algorithms"] = [f"{'|'.join(RECIPES)}) algo=$words[i] ;;"]
    fill["algorithm_names"] = [f"found=({described((name, first_line(algo)) for name, algo in RECIPES.items())})"]
    for part in ("lists", "environments", "values"):
        fill[part] = [re.sub(r'words="(.*)"', r"found=(\1)", line) for line in fill[part]]
    fill["flags"] = [
        f'"{group}") found=({described((n, flag.help) for flag in found for n in flag.names)}) ;;'
        for group, found in groups().items()
    ]
    return fill


def fish() -> dict[str, list[str]]:
    """The parts that the fish script is filled with: one line per word."""
    start = "complete -c policygrad"
    lines = [f"{start} -n '__policygrad_first' -a {name} -d {quoted(what)}" for name, (_, what, *_) in COMMANDS.items()]
    for algo, function in RECIPES.items():
        lines.append(f"{start} -n '__policygrad_no_algo' -a {algo} -d {quoted(first_line(function))}")
        lines += [f"{start} -n '__policygrad_no_env {algo}' -a {env}" for env in tuned_for(algo)]
    for command, choices in CHOICES.items():
        lines.append(f"{start} -n '__policygrad_is {command}' -a '{' '.join(choices)}'")
    for group, found in groups().items():
        for flag in found:
            spelt = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
            after = {"nothing": "", "any": " -x", "files": " -r -F", "words": f" -x -a '{' '.join(flag.choices)}'"}
            after["dirs"] = " -x -a '(__fish_complete_directories)'"
            lines.append(f"{start} -n '__policygrad_is {group}' {spelt}{after[flag.follows]} -d {quoted(flag.help)}")
    return {"words": lines}


def described(words: Iterable[tuple[str, str]]) -> str:
    """Words with their meanings as zsh takes them, `word:meaning`, quoted."""
    return " ".join(quoted(f"{word}:{meaning}", "'\\''") for word, meaning in words)


def quoted(text: str, apostrophe: str = "\\'") -> str:
    """A text in quotes, as one word of the shell."""
    return "'" + text.replace("'", apostrophe) + "'"


WRITERS = {"bash": bash, "zsh": zsh, "fish": fish}
