"""Sweeps: many settings of one algorithm with several seeds each, and the best ones once more on fresh seeds.

The runs that are missing are trained as a comparison trains its own; `policygrad.reports.sweeps` has the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.algorithms.config import Algo, ConfigError, check, find_preset, find_recipe, pieces
from policygrad.algorithms.devices import CPU, find_device
from policygrad.envs.single import check_env_id
from policygrad.reports.comparison import read_run
from policygrad.reports.sweep_result import SweepResult
from policygrad.reports.sweeps import Design, Setting, SweptRun, fresh_settings, setting_text
from policygrad.stored.directory import ROOT, RunDirectory, RunError
from policygrad.stored.sources import folder_name
from policygrad.training.compare import read_level, read_seeds
from policygrad.training.engines import Engine, read_engine, settle
from policygrad.training.jobs import Job, SilentBoard, State
from policygrad.training.shards import Shard
from policygrad.training.sides import Existing, configuration, divergence
from policygrad.training.space import Choice, Range, grid, parse_space, sample, space_texts
from policygrad.training.wanted import Wanted

FOLDER = "sweeps"  # under the directory of runs
MOST_SETTINGS = 10_000
WORDS = ("preset", "name", "env_kwargs", "wrappers", "device", "backend")  # of the Agent, besides hyperparameters
DRAWS = 100  # per setting that is asked for, until no other one is found


@dataclass(frozen=True)
class SweepRequest:
    """Everything that a sweep is asked for, checked.

    settings: hyperparameters that differ, one mapping per setting. fixed: those that all share. words: of the Agent.
    """

    algo: str
    env: str
    space: Mapping[str, Choice | Range]
    settings: list[dict[str, Any]]
    random: bool
    seeds: list[int]
    episodes: int
    greedy: bool
    level: float
    fixed: dict[str, Any]
    words: dict[str, Any]
    root: Path

    def config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The complete configuration of a setting. Raises ConfigError, naming the setting."""
        try:
            return configuration(self.algo, self.env, self.fixed | dict(values), self.words.get("preset"))
        except ConfigError as error:
            raise ConfigError(f"{setting_text(values)}: {error}" if values else str(error)) from error

    @property
    def fresh(self) -> list[int]:
        """As many seeds as the sweep has, and none of them: the smallest ones."""
        return list(islice((seed for seed in count() if seed not in self.seeds), len(self.seeds)))

    def design(self) -> Design:
        """What the numbers need to know."""
        has_preset = find_preset(self.algo, self.env, self.words.get("preset")) is not None
        return Design(
            algo=self.algo,
            env=str(self.words.get("name", self.env)),
            space=space_texts(self.space),
            names=list(self.space),
            logs=[name for name, x in self.space.items() if isinstance(x, Range) and x.log],
            random=self.random,
            seeds=self.seeds,
            fresh_seeds=self.fresh,
            episodes=self.episodes,
            greedy=self.greedy,
            level=self.level,
            fixed={name: list(x) if isinstance(x, tuple) else x for name, x in self.fixed.items()},
            baseline="the preset" if has_preset else "the defaults",
        )

    def folder(self) -> str:
        """A name for its directory, the same for the same request."""
        whole = [self.design().to_json(), self.settings, {k: str(x) for k, x in self.words.items()}]
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]
        parts = [self.algo, "-".join(self.space), str(self.words.get("name", self.env))]
        return f"{'_'.join(map(folder_name, parts))[:150]}_{digest}"


def sweep(
    algo: Algo,
    env: str,
    over: Sequence[str] | Mapping[str, Any],
    *,
    points: int = 5,
    random: int | None = None,
    seeds: int | Sequence[int] = 5,
    steps: int | None = None,
    episodes: int = 100,
    level: float = 0.95,
    greedy: bool = True,
    root: str | Path = ROOT,
    out: str | Path | None = None,
    jobs: int | None = None,
    shard: str | Shard | None = None,
    engine: str = "processes",
    board: SilentBoard | None = None,
    **keywords: Any,
) -> SweepResult:
    """Train many settings of hyperparameters, and say how sensitive the score is, and whether the best beats the preset.

    `print(pg.sweep("ppo", "CartPole-v1", ["lr=1e-4..1e-2:log", "ent_coef=0,0.01"]))` prints tables and the verdict.

    over: the hyperparameters that change, as texts (see `policygrad.training.space`) or as a mapping of names to `Range`,
    `Choice`, lists or texts. points: values of each range; every combination is a setting. random: so many settings drawn at
    random instead; a larger number keeps those of a smaller one. seeds: how many (0, 1, …), or which, two at least. steps: of
    every run; default the preset's. episodes: of the final evaluation, whose mean return is a run's score; greedy: whether it
    takes the most likely actions or samples. level: of intervals and of the verdict. jobs: runs at the same time; default one
    per core. shard: "i/n" where n processes or machines make the same call on a shared `root` (see docs/cluster.md). engine:
    "processes", or "ray". keywords: hyperparameters that all settings share, and the Agent's preset, name, env_kwargs,
    wrappers, device and backend; environments and wrappers are named, because other processes make them.

    The best setting, the second best and the preset's own are trained once more on as many fresh seeds, and only these runs
    decide the verdict: the best of many settings was chosen for its luck, too. A run whose numbers become infinite or NaN is
    a result: it counts as the lowest score of any other run.

    `out`, by default `<root>/sweeps/<name>`, gets the runs, sweep.json (the same bytes for the same runs), clocks.json (places
    and seconds), sweep.png and sweep.html. Finished runs under `root` are reused and unfinished ones resumed, so that the same
    call goes on after a kill. In a script call it under `if __name__ == "__main__":`, because it starts processes.
    Raises ConfigError for what means nothing, before anything is trained; RunError for runs that fail; Interrupted for Ctrl-C.
    """
    kind, own = read_engine(engine, shard)
    how = {"points": points, "random": random, "seeds": seeds, "episodes": episodes, "level": level, "greedy": greedy}
    request = read_request(algo, env, over, keywords | ({} if steps is None else {"steps": steps}), root=root, **how)
    place = request.root / FOLDER / request.folder() if out is None else Path(out).expanduser()
    if place.exists() and not place.is_dir():
        raise RunError(f"{place} exists and is not a directory: give another one for the sweep")
    board, design = board or SilentBoard(), request.design()
    settings = trained(request, place, request.settings, request.seeds, jobs, board, own, kind)
    again = fresh_settings(design, settings)
    fresh = trained(request, place, [setting.values for setting in again] + [{}], request.fresh, jobs, board, own, kind)
    result = SweepResult(design, settings, fresh[:-1], replace(fresh[-1], values=own_values(request)))
    result.write(place)
    return result


def read_request(
    algo: Algo,
    env: str,
    over: Sequence[str] | Mapping[str, Any],
    keywords: Mapping[str, Any],
    *,
    points: int,
    random: int | None,
    seeds: int | Sequence[int],
    episodes: int,
    level: float,
    greedy: bool,
    root: str | Path,
) -> SweepRequest:
    """What is asked for, everything checked before anything is trained. Raises ConfigError."""
    name = find_recipe(algo).name
    check_env_id(env)
    words = read_words(keywords)
    fixed = {key: value for key, value in keywords.items() if key not in WORDS}
    if "seed" in fixed:
        raise ConfigError("seed is no hyperparameter: the seeds of a sweep are `seeds`, how many or which")
    space = parse_space(over, name, fixed)
    if check("episodes", int, episodes) < 1:
        raise ConfigError(f"episodes = {episodes} must be at least 1")
    settings = drawn(space, random) if random is not None else crossed(space, points)
    if len(settings) < 2:
        raise ConfigError("a sweep has two settings or more: give a range, or several values of a hyperparameter")
    shared = {"fixed": fixed, "words": words, "root": Path(root).expanduser()}
    scores = {"seeds": read_seeds(seeds), "episodes": episodes, "greedy": greedy, "level": read_level(level)}
    request = SweepRequest(name, env, space, settings, random is not None, **scores, **shared)
    for values in [{}, *settings]:
        request.config(values)
    return request


def read_words(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The words of the Agent that are given, as a run's config.json has them. Raises ConfigError."""
    given = {name: keywords[name] for name in WORDS if keywords.get(name) is not None}
    words = {name: value for name, value in given.items() if value or name == "preset"}  # {} is a preset, too
    wrappers = words.get("wrappers", [])
    if isinstance(wrappers, str) or not all(isinstance(x, str) for x in wrappers):
        raise ConfigError("wrappers of a sweep are a list of names, module:name, because other processes make them")
    if "device" in words:
        words["device"] = find_device(words["device"])
    return {name: value for name, value in words.items() if (name, value) != ("device", CPU)}


def crossed(space: Mapping[str, Choice | Range], points: int) -> list[dict[str, Any]]:
    """Every combination of the values. Raises ConfigError for too many."""
    total = int(np.prod([len(x.grid(points)) for x in space.values()], dtype=float))
    if total > MOST_SETTINGS:
        raise ConfigError(f"the grid has {total:,} settings, more than {MOST_SETTINGS:,}: take fewer points, or random")
    return grid(space, points)


def drawn(space: Mapping[str, Choice | Range], number: int) -> list[dict[str, Any]]:
    """So many different settings, drawn at random, always the same; fewer where there are fewer. Raises ConfigError."""
    if not 2 <= check("random", int, number) <= MOST_SETTINGS:
        raise ConfigError(f"random = {number} must be from 2 to {MOST_SETTINGS:,} settings")
    rng, found = np.random.default_rng(0), {}
    for _ in range(DRAWS * number):
        values = sample(space, rng)
        found.setdefault(json.dumps(values, sort_keys=True), values)
        if len(found) == number:
            break
    return list(found.values())


def own_values(request: SweepRequest) -> dict[str, Any]:
    """The values that the preset, or the recipe itself, gives to the hyperparameters of the space."""
    config, count = request.config({}), pieces(request.algo)
    if count is not None:
        config["batch_size"] = config["num_envs"] * config["num_steps"] // (config[count] or 1)
    return {name: config[name] for name in request.space}


def trained(
    request: SweepRequest,
    place: Path,
    settings: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    jobs: int | None,
    board: SilentBoard,
    shard: Shard | None,
    engine: Engine,
) -> list[Setting]:
    """The settings with their runs; missing ones are trained, the first seeds of all settings first."""
    existing = Existing.under(request.root)
    if not place.resolve().is_relative_to(request.root.resolve()):
        existing = Existing.under(request.root, place)
    wanted: dict[str, Wanted] = {}  # equal settings have one run
    for seed in seeds:
        for values in settings:
            wanted.setdefault(run_key(request, values, seed), wanted_run(request, place, values, seed))
    states = settle(list(wanted.values()), request.root, existing, jobs, board, shard, engine)
    refuse_failures(states)
    ended = dict(zip(wanted, states, strict=True))
    return [
        Setting(dict(values), [run_of(ended[run_key(request, values, seed)], request.greedy) for seed in seeds])
        for values in settings
    ]


def run_key(request: SweepRequest, values: Mapping[str, Any], seed: int) -> str:
    """What makes a run of this sweep another one."""
    return json.dumps([seed, request.config(values)], sort_keys=True)


def wanted_run(request: SweepRequest, place: Path, values: Mapping[str, Any], seed: int) -> Wanted:
    """The run of a setting and a seed."""
    words = {name: value for name, value in request.words.items() if name != "preset"}
    label = setting_text(values) if values else request.design().baseline
    keywords = request.fixed | dict(values) | request.words
    job = Job(request.algo, request.env, seed, keywords, None, str(place), request.episodes, side=label)
    return Wanted(job, request.config(values), words, diverged=True)


def refuse_failures(states: Sequence[State]) -> None:
    """Raise RunError for runs that failed for other reasons than their numbers."""
    failed = [state for state in states if state.phase != "done" and reason_of(state) is None]
    if failed:
        said = (failed[0].message.splitlines() or ["stopped"])[0]
        raise RunError(
            f"{len(failed)} of {len(states)} runs failed, and not because of their numbers.\n{failed[0].name}: {said}\n"
            "The other runs are kept: remove the cause, and the same command goes on."
        )


def reason_of(state: State) -> str | None:
    """Why a run diverged; None for one that did not."""
    if state.path is None or state.phase != "failed":
        return None
    over = "evaluation stopped: the policy's parameters are not finite" in state.message  # which no state.json says
    return state.message if over else divergence(RunDirectory(Path(state.path)))


def run_of(state: State, greedy: bool) -> SweptRun:
    """A run as the numbers need it."""
    run = RunDirectory(Path(str(state.path)))
    reason = reason_of(state)
    if reason is not None:
        return SweptRun(state.seed, None, str(run.path), reason=reason)
    scored = read_run(run, greedy)
    seconds = float(scored.seconds[-1]) if len(scored.seconds) and np.isfinite(scored.seconds[-1]) else None
    return SweptRun(state.seed, scored.score, str(run.path), seconds)
