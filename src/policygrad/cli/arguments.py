"""The arguments of `policygrad train`. ALGO decides which flags there are, and ALGO and ENV may stand anywhere among them."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, pairwise
from typing import Any, get_origin

from policygrad.algorithms.config import ConfigError, algorithm, find_recipe, parameters
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.flags import BACKENDS, train_help, train_parser
from policygrad.cli.parser import Parser, dashed, is_flag, is_off, same
from policygrad.cli.values import (
    FALSE,
    PAIR,
    TRUE,
    UsageError,
    inner,
    parse_bool,
    parse_pairs,
    parse_seeds,
    parse_value,
    positive,
)
from policygrad.stored.directory import ROOT, find_run

LEAST = {
    "eval_episodes": 1,
    "jobs": 1,
    "nproc": 1,
    "fisher_eigenvalues": 0,
}  # the least values of whole numbers that are no keywords


@dataclass
class TrainArguments:
    """The arguments of `policygrad train`, parsed."""

    algo: str
    env: str
    seeds: tuple[int, ...] = (0,)
    jobs: int | None = None
    shard: str | None = None
    lease: str | None = None
    engine: str = "processes"
    nproc: int = 1
    backend: str | None = None
    device: str | None = None
    run_dir: str | None = None
    runs_root: str | None = None
    eval_episodes: int = 100
    fisher_eigenvalues: int = 0
    gradient_meter: bool = False
    save_trajectories: bool = False
    resume: bool = False
    dataset: str | None = None
    preset: Any = None
    zoo: str | None = None
    name: str | None = None
    wandb: str | None = None
    mlflow: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str] = field(default_factory=list)
    quiet: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def trackers(self) -> dict[str, str]:
        """The trackers that are asked for, with the project or experiment."""
        return {name: value for name in ("wandb", "mlflow") if (value := getattr(self, name)) is not None}

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of the Agent, without the seed."""
        names = (
            "backend",
            "device",
            "fisher_eigenvalues",
            "gradient_meter",
            "dataset",
            "preset",
            "name",
            "env_kwargs",
            "wrappers",
        )
        return self.overrides | {name: value for name in names if (value := getattr(self, name))}


def split_words(words: Sequence[str], own: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The words that belong to no flag (ALGO and ENV), and all other words.

    own: recipes from outside the package, whose flags are known, too.
    """
    known = flags_of_all(own)
    kinds = {name: inner(kind)[0] for algo in (*RECIPES, *own) for name, (kind, _) in parameters(algo).items()}
    bare = {"quiet", "gradient-meter", "save-trajectories", "help", "q", "h", "normalize-advantage"} | {
        name.replace("_", "-") for name, kind in kinds.items() if kind is bool
    }
    many = {name.replace("_", "-") for name, kind in kinds.items() if get_origin(kind) is tuple} | {"seed"}
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
        elif name == "env-kwargs":
            pairs = next((k for k, w in enumerate(words[index:]) if not PAIR.fullmatch(w)), len(words) - index)
            take = max(next_is_value, pairs)
        elif name in many:
            take = max(next_is_value, numbers_from(words, index))
        elif word in known:
            take = next_is_value
        else:
            take = int(index < len(words) and words[index].lower() in TRUE + FALSE) or numbers_from(words, index)
        flags += words[index : index + take]
        index += take
    return free, flags


def own_recipes(free: Sequence[str], flags: Sequence[str]) -> tuple[str, ...]:
    """The recipe from outside the package that is given as ALGO, if any. Its module is imported."""
    named = [flags[i + 1] for i, flag in enumerate(flags[:-1]) if flag == "--algo"]
    named += [flag.partition("=")[2] for flag in flags if flag.startswith("--algo=")]
    algo = next((word for word in [*named, *free] if ":" in word), "")
    try:
        return (algo,) if ":" in find_recipe(algo).name else ()
    except ConfigError:
        return ()  # the error is raised where the recipe is used


@cache
def flags_of_all(own: tuple[str, ...] = ()) -> frozenset[str]:
    """The flags of `train` with any algorithm of the package, and with `own`."""
    flags = {f for algo in (*RECIPES, *own) for f in train_parser(algo, None)._option_string_actions}
    return frozenset(flags | {"--algo", "--env", "--env-id"})


def numbers_from(words: Sequence[str], index: int) -> int:
    """The number of consecutive words, from this index on, that look like numbers."""
    return next((k for k, w in enumerate(words[index:]) if not _like_numbers(w)), len(words) - index)


def refuse_unknown(free: list[str], flags: list[str]) -> None:
    """Raise UsageError for a flag that no algorithm has, before its words are taken for something else."""
    own = own_recipes(free, flags)
    known = flags_of_all(own)
    for index, word in enumerate(flags):
        name = word.partition("=")[0]
        if is_flag(word) and name not in known and (word.startswith("--") or word[:2] not in known):
            algos = [*own, *(w.lower().replace("-", "_") for w in free if w.lower().replace("-", "_") in RECIPES)]
            parser = train_parser(algos[0], None) if algos else Parser("policygrad train")
            parser.prog = " ".join(["policygrad train", *(free if len(free) == 2 and algos else algos[:1])])
            raise UsageError(parser.unknown_flag(name, () if algos else sorted(known), is_off(flags, index)))


def refuse_resume(words: Sequence[str], flags: Sequence[str]) -> None:
    """Raise UsageError for `train … --resume` without a directory: whoever names a run means `policygrad resume RUN`."""
    if "--resume" not in flags or any(flag.partition("=")[0] == "--run-dir" for flag in flags):
        return
    named = next((after for word, after in pairwise(words) if word == "--resume" and os.path.exists(after)), "RUN")
    raise UsageError(
        f"--resume needs --run-dir: the directory of the run to continue or to begin.\n"
        f"`policygrad resume {shlex.quote(named)}` continues a run that there is; it needs neither algorithm nor environment."
    )


def _like_numbers(word: str) -> bool:
    return word.lower() == "none" or (bool(word) and set(word) <= set("0123456789_,.eE+-()[]") and not is_flag(word))


def algo_and_env(free: Sequence[str], flags: list[str]) -> tuple[Namespace, list[str]]:
    """ALGO and ENV (as words or as --algo, --env, --env-id), --preset, and the flags without them."""
    parser = Parser("policygrad train", add_help=False)
    parser.add_argument("--algo")
    parser.add_argument("--env", "--env-id")
    parser.add_argument("--preset")
    parser.refuse_twice(flags)
    given, flags = parser.parse_known_args(flags)
    rest = list(free)
    for name in ("algo", "env"):
        if getattr(given, name) is None and rest:
            setattr(given, name, rest.pop(0))
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: expected policygrad train ALGO ENV and flags.")
    return given, flags


def parse_train(words: Sequence[str]) -> TrainArguments:
    """Parse the arguments of `policygrad train`. Prints the help and raises SystemExit if the user asks for it."""
    free, flags = split_words(words)
    own = own_recipes(free, flags)
    if own:  # its flags may be followed by words, too
        free, flags = split_words(words, own)
    wants_help = "--help" in flags or "-h" in flags
    if not wants_help:
        refuse_unknown(free, flags)
        refuse_resume(words, flags)
    given, flags = algo_and_env(free, flags)
    if wants_help and given.algo is None:
        print(train_help(), end="")
        raise SystemExit(0)
    algo, env = check_algo(given.algo, given.env), None if given.env is None else check_env(given.env)
    if wants_help:
        train_parser(algo, env, given.preset).print_help()
        raise SystemExit(0)
    if env is None:
        raise UsageError(
            f"train {algo} needs an environment, e.g. `policygrad train {algo} CartPole-v1`.\n"
            "`policygrad list envs` lists the environments."
        )
    parser = train_parser(algo, env)
    known = vars(parser.parse(flags, lambda dest: same(algo, dest)))
    return fill_arguments(TrainArguments(algo, env, preset=given.preset), known)


def check_algo(algo: str | None, env: str | None) -> str:
    """The algorithm's name. Raises UsageError if there is none, or if it comes second."""
    if algo is None:
        raise UsageError(
            f"train needs an algorithm and an environment, e.g. `policygrad train ppo CartPole-v1`.\n"
            f"Algorithms: {', '.join(RECIPES)}. `policygrad list` shows everything."
        )
    first, second = (word.lower().replace("-", "_") in RECIPES for word in (algo, env or ""))
    if second and not first:
        raise UsageError(f"the algorithm comes first: policygrad train {env} {algo}")
    return algorithm(algo)


def fill_arguments(arguments: TrainArguments, known: Mapping[str, Any]) -> TrainArguments:
    """The arguments, filled with the words after each flag as values of its type."""
    kinds = {name: kind for name, (kind, _) in parameters(arguments.algo).items()} | {"batch_size": int}
    for name, value in known.items():
        if name == "seed":
            arguments.seeds = parse_seeds(value)
        elif name == "env_kwargs":
            arguments.env_kwargs = parse_pairs(name, chain.from_iterable(value))
        elif name == "wrapper":
            arguments.wrappers = value
        elif name in LEAST:
            setattr(arguments, name, positive(name, value, LEAST[name]))
        elif name in kinds:
            arguments.overrides[name] = parse_value(name, kinds[name], value)
        elif name == "normalize_advantage":
            arguments.overrides[name] = parse_bool(name, value) if value != ["no"] else False
        else:
            setattr(arguments, name, value)
    if arguments.backend not in (None, *BACKENDS):
        raise UsageError(f"--backend = {arguments.backend!r} is not one of: {', '.join(BACKENDS)}")
    if arguments.zoo is not None:
        if arguments.preset is not None:
            raise UsageError("--preset and --zoo both say what the defaults are: give one of the two.")
        from policygrad.algorithms.zoo import read

        arguments.preset = read(arguments.zoo, arguments.algo, arguments.env)
    if arguments.dataset is not None:
        if arguments.save_trajectories:
            raise UsageError(
                "--save-trajectories saves played episodes, but with --dataset none are played: give one of the two."
            )
        if not arguments.dataset.startswith("minari:"):  # a path, or a run as the other commands find it
            arguments.dataset = str(find_run(arguments.dataset, arguments.runs_root or ROOT))
    return arguments


def check_env(env: str) -> str:
    """The environment's id; modules of `module:id` are searched in the current directory, too, after installed ones."""
    if ":" in env and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    from policygrad.envs.single import check_env_id

    try:
        return check_env_id(env)
    except ValueError as error:
        raise UsageError(str(error)) from error
