"""The sides of a comparison: what a word such as `ppo:clip=0.1,epochs=5` means, and which of its runs are there already."""

from __future__ import annotations

import ast
import inspect
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import gymnasium

import policygrad
from policygrad.algorithms.config import ConfigError, Preset, aliases, find_recipe, parameters, resolve
from policygrad.algorithms.devices import CPU
from policygrad.algorithms.recipes import RECIPES
from policygrad.envs.single import own_maker
from policygrad.interop.foreign_runs import ForeignRun, foreign_runs
from policygrad.reports.comparison import ScoredRun, read_run
from policygrad.stored.directory import RunDirectory, RunError, environment, runs, runs_at
from policygrad.stored.standing import DIVERGED
from policygrad.training.seeds import ORPHAN_SECONDS

VARIANT = re.compile(r"(?P<algo>[^=]+?):(?P<words>\w+=.*)", re.DOTALL)
WORD = re.compile(r",(?=\s*\w+=)")  # between `name=value` and the next one; values may have commas
VERSIONS = ("torch", "numpy", "gymnasium")
LOCK_SECONDS = ORPHAN_SECONDS + 30  # in which the processes of a killed comparison save their runs and end


@dataclass(frozen=True)
class Side:
    """One side: an algorithm with the keywords that differ from its preset, or a directory of runs.

    label: what tables and pictures call it.
    """

    label: str
    algo: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None


def read_sides(sides: Sequence[str] | Mapping[str, str]) -> list[Side]:
    """The sides that words mean; of a mapping, by their labels. Raises ConfigError for fewer than two, or equal ones."""
    if isinstance(sides, str):
        raise ConfigError(f"sides = {sides!r} must be a list of two or more, such as ['ppo', 'a2c']")
    named = list(sides.items()) if isinstance(sides, Mapping) else [(None, text) for text in sides]
    found = [read_side(text, label) for label, text in named]
    labels = [side.label for side in found]
    twice = [label for label in labels if labels.count(label) > 1]
    if len(found) < 2 or twice:
        got = f"{twice[0]} twice" if twice else ", ".join(labels) or "none"
        raise ConfigError(
            f"a comparison needs two or more different sides, got {got}: such as ppo a2c, or ppo ppo:clip=0.1"
        )
    return found


def read_side(text: str, label: str | None = None) -> Side:
    """The side that a word means: an algorithm, `algorithm:name=value,…`, `module:recipe`, or a directory of runs."""
    if not isinstance(text, str | os.PathLike):
        raise ConfigError(f"a side is an algorithm's name, module:recipe or a directory, got {text!r}")
    text = os.fspath(text)
    place = Path(os.path.expanduser(text))
    if text.lower().replace("-", "_") not in RECIPES and place.is_dir():
        return Side(label or text.rstrip("/"), folder=place)
    variant = VARIANT.fullmatch(text)
    before = text.partition(":")[0]
    if variant is None and before != text and before.lower().replace("-", "_") in RECIPES:
        raise ConfigError(f"cannot read {text!r}: expected {before}:name=value,name=value")
    try:
        recipe = find_recipe(variant["algo"] if variant else text)
    except ConfigError as error:
        if os.sep in text and variant is None and ".py" not in text:
            raise ConfigError(f"there is no directory {text}, and it is no algorithm") from error
        raise
    own, kinds = aliases(recipe.name), {name: kind for name, (kind, _) in parameters(recipe.name).items()}
    read = read_words(variant["words"], text) if variant else {}
    keywords = {name: as_word(kinds.get(own.get(name, name)), value) for name, value in read.items()}
    words = ",".join(f"{name}={value}".replace(" ", "") for name, value in keywords.items())
    return Side(label or recipe.name + (f":{words}" if words else ""), recipe.name, keywords)


def read_words(words: str, text: str) -> dict[str, Any]:
    """`clip=0.1,epochs=5` as keywords: numbers, true, false, none, tuples, and everything else as text."""
    found: dict[str, Any] = {}
    for word in WORD.split(words):
        name, equals, value = (part.strip() for part in word.partition("="))
        name = name.replace("-", "_")
        if not equals or not value or name in found or name == "seed":
            reason = (
                "seeds are those of the comparison" if name == "seed" else "expected algorithm:name=value,name=value"
            )
            raise ConfigError(f"cannot read {word!r} of {text!r}: {reason}")
        found[name] = as_value(value)
    return found


def as_value(text: str) -> Any:
    """The value that a text means."""
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    whole = isinstance(value, float) and value.is_integer() and "e" in text.lower()  # 1e5 steps
    return int(value) if whole else value


def as_word(kind: Any, value: Any) -> Any:
    """The word none in place of None, where it is among the words that a hyperparameter of this kind chooses from."""
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return "none" if value is None and "none" in words else value


def planned(side: Side, env: str, steps: int | None) -> dict[str, Any]:
    """The complete configuration of a side's runs in an environment. Raises ConfigError."""
    return configuration(side.algo or "", env, ({} if steps is None else {"steps": steps}) | dict(side.keywords))


def configuration(algo: str, env: str, keywords: Mapping[str, Any], preset: Preset | None = None) -> dict[str, Any]:
    """The complete configuration of a run, as its config.json has it. Raises ConfigError."""
    config, _ = resolve(algo, env, dict(keywords), preset)
    return {name: list(x) if isinstance(x, tuple) else x for name, x in config.items()}


def same_steps(sides: Iterable[Side], env: str) -> int | None:
    """The steps that all sides take where the caller does not say: the most that a preset of theirs asks for."""
    return max((planned(side, env, None)["steps"] for side in sides if side.algo is not None), default=None)


@dataclass(frozen=True)
class Existing:
    """The runs under a directory, with what their config.json says."""

    runs: list[tuple[RunDirectory, dict[str, Any]]]

    @classmethod
    def under(cls, *roots: Path) -> Existing:
        """Read every config.json under these directories; those that cannot be read are no runs."""
        return cls.at([path for root in roots for path in sorted(runs(root))])

    @classmethod
    def at(cls, paths: Iterable[Path]) -> Existing:
        """Those of these directories that are runs."""
        existing = cls([])
        existing._read(paths)
        return existing

    def look(self, folder: Path) -> None:
        """Read those that have appeared in a directory, as other processes make them."""
        if folder.is_dir():
            self._read(sorted(path for path in folder.iterdir() if (path / "config.json").exists()))

    def _read(self, paths: Iterable[Path]) -> None:
        known = {run.path for run, _ in self.runs}
        for path in paths:
            if path in known:
                continue
            try:
                self.runs.append((RunDirectory(path), RunDirectory(path).config()))
            except RunError:
                continue
            known.add(path)

    def best(
        self,
        algo: str,
        env: str,
        seed: int,
        config: Mapping[str, Any],
        episodes: int,
        words: Mapping[str, Any] | None = None,
        diverged: bool = False,
    ) -> RunDirectory | None:
        """A finished run of exactly this configuration, seed and version, or one to resume: that which is farthest.

        words: see `same_run`. diverged: whether a run that diverged is one that is finished.
        """
        words = words or {}
        newest = max(changed_at(name) for name in (algo, env, *words.get("wrappers", ())))
        same = [
            run
            for run, said in self.runs
            if (said["algo"], said["env"], said["seed"]) == (algo, env, seed)
            and same_run(said, config, episodes, words)
            and run.config_file.stat().st_mtime >= newest
        ]
        done = [run for run in same if run.state()["status"] == "finished" and run.evaluation() is not None]
        done += [run for run in same if diverged and divergence(run) is not None]
        begun = [run for run in same if run.checkpoints()]
        return (done or sorted(begun, key=lambda run: -run.state()["steps"]) or [None])[0]


def divergence(run: RunDirectory) -> str | None:
    """Why a run could not go on, where its own numbers are the reason: not finite, or of no use; None for all others.

    It would end there again, so it is a result and nothing to resume.
    """
    state = run.state()
    name, _, said = str(state.get("reason", "")).partition(": ")
    return (said or name) if state["status"] == "stopped" and name in DIVERGED else None


def same_run(
    said: Mapping[str, Any], config: Mapping[str, Any], episodes: int, words: Mapping[str, Any] | None = None
) -> bool:
    """Whether a run's config.json is that of a run of this configuration, with this version, and without anything else.

    words: what it has besides, of "name", "env_kwargs", "wrappers", "device" and "backend".
    """
    versions = said.get("versions")
    if not isinstance(versions, dict) or any(
        versions.get(name, "").partition("+")[0] != x.partition("+")[0] for name, x in current_versions().items()
    ):
        return False
    words = words or {}
    names = ("custom", "dataset", "auxiliary", "env_kwargs", "wrappers", "name", "gradient_meter")
    bare = all((said.get(name) or None) == (words.get(name) or None) for name in names)
    plain = bare and said.get("device", CPU) == words.get("device", CPU)
    plain = plain and words.get("backend", "auto") in ("auto", said.get("backend"))
    return plain and said["config"] == config and said.get("episodes", 100) == episodes


@cache
def current_versions() -> dict[str, str]:
    """The versions here that a run's numbers depend on most."""
    return {"policygrad": policygrad.__version__} | {name: version(name) for name in VERSIONS}


def changed_at(name: str) -> float:
    """When the file of a recipe or an environment of the user's own was changed, in seconds since 1970; 0 for the package's."""
    if ":" not in name:
        return 0.0
    try:
        found: Any = find_recipe(name)
    except ConfigError:
        found = own_maker(name)
    try:
        file = inspect.getsourcefile(inspect.unwrap(found))
    except TypeError:
        return 0.0
    return os.stat(file).st_mtime if file is not None and os.path.exists(file) else 0.0


def wait_for(run: RunDirectory, seconds: float = LOCK_SECONDS) -> None:
    """Wait while another process trains a run: those of a comparison that was killed end by themselves. Raises RunError."""
    until = time.monotonic() + seconds
    while True:
        try:
            with run.lock():
                return
        except RunError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def of_folder(side: Side, env: Sequence[str], greedy: bool) -> dict[str, list[ScoredRun]]:
    """The runs in a directory by environment, all finished and of one configuration per environment. env: which; empty: all.

    Raises RunError for unfinished runs, for several configurations, and for two runs of one seed.
    """
    folder = side.folder or Path()
    if next(runs(folder), None) is None and (theirs := foreign_runs(folder)):
        return of_others(side, theirs, env)
    found: dict[str, list[ScoredRun]] = {}
    there: dict[str, None] = {}
    for run in runs_at(folder):
        there[environment(run.config())] = None
        if not env or environment(run.config()) in env:
            scored = read_run(run, greedy)
            found.setdefault(scored.env, []).append(scored)
    refuse_missing(found, env, folder, there)
    for name, several in found.items():
        if any(run.settings != several[0].settings for run in several):
            raise RunError(f"{folder} has runs of several configurations on {name}: give one directory per side")
        seeds = [run.seed for run in several]
        if len(set(seeds)) < len(seeds):
            raise RunError(f"{folder} has two runs of one seed on {name}: a seed counts once")
    return found


def of_others(side: Side, theirs: Sequence[ForeignRun], env: Sequence[str]) -> dict[str, list[ScoredRun]]:
    """Runs of Stable-Baselines3 by environment. Where their files do not name it, it is the only one that is asked for."""
    found: dict[str, list[ScoredRun]] = {}
    for run in theirs:
        name = run.env or (env[0] if len(env) == 1 else None)
        if name is None:
            raise RunError(f"{run.place} does not say its environment: give one, and compare one environment at a time")
        if not env or name in env:
            spec = gymnasium.registry.get(name)
            goal, settings = (None if spec is None else spec.reward_threshold), {"algo": side.label}
            curve = (run.steps, run.returns, run.episodes, run.seconds)
            found.setdefault(name, []).append(
                ScoredRun(name, run.seed, run.score, *curve, str(run.place), goal, settings)
            )
    refuse_missing(found, env, side.folder, dict.fromkeys(run.env for run in theirs if run.env))
    return found


def refuse_missing(found: Mapping[str, Any], env: Sequence[str], folder: Path | None, there: Iterable[str]) -> None:
    """Raises RunError where a directory has no runs in an environment that is asked for. there: those that it has runs in."""
    for name in env:
        if name not in found:
            raise RunError(
                f"{folder} has no runs in {name}: it has runs in {', '.join(there) or 'no other environment'}"
            )
