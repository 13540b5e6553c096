"""Comparing algorithms: the runs that are missing are trained, and all are compared by `policygrad.reports.comparison`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policygrad.algorithms.config import ConfigError, check
from policygrad.envs.single import check_env_id
from policygrad.reports.comparison import ScoredRun, read_run
from policygrad.reports.comparison_result import RunComparison
from policygrad.stored.directory import ROOT, RunDirectory, RunError
from policygrad.stored.sources import folder_name
from policygrad.training.engines import Engine, read_engine, settle
from policygrad.training.jobs import Job, SilentBoard, State
from policygrad.training.shards import Shard
from policygrad.training.sides import Existing, Side, of_folder, planned, read_sides, same_steps
from policygrad.training.wanted import Wanted

FOLDER = "comparisons"  # under the directory of runs


@dataclass(frozen=True)
class Request:
    """The runs that a comparison needs: sides × environments × seeds, and how many steps each takes."""

    sides: list[Side]
    envs: list[str]
    seeds: list[int]
    steps: int | None
    episodes: int
    root: Path
    greedy: bool

    def name(self) -> str:
        """A name for its directory, the same for the same request."""
        sides = "-vs-".join(folder_name(side.label) for side in self.sides)
        seeds = (
            f"{len(self.seeds)}-seeds"
            if self.seeds == list(range(len(self.seeds)))
            else "seeds-" + "-".join(map(str, self.seeds))
        )
        parts = [sides, *map(folder_name, self.envs), seeds, *([f"{self.steps}-steps"] if self.steps else [])]
        return "_".join(parts)[:180]


def compare(
    sides: Sequence[str] | Mapping[str, str],
    env: str | Sequence[str] = (),
    *,
    seeds: int | Sequence[int] = 10,
    steps: int | None = None,
    episodes: int = 100,
    level: float = 0.95,
    threshold: float | Mapping[str, float] | None = None,
    greedy: bool = True,
    root: str | Path = ROOT,
    out: str | Path | None = None,
    jobs: int | None = None,
    shard: str | Shard | None = None,
    engine: str = "processes",
    board: SilentBoard | None = None,
) -> RunComparison:
    """Train what is missing, and say which side is better, by how much and how surely.

    `print(pg.compare(["ppo", "a2c"], "CartPole-v1"))` prints tables and verdicts.

    sides: each an algorithm ("ppo"), one with other hyperparameters ("ppo:clip=0.1,epochs=5"), a recipe of your own
    ("my_module:mine"), or a directory of finished runs; a mapping gives them other labels. env: one environment id or several;
    directories of runs need none. seeds: how many (0, 1, …), or which. steps: of every run; default the most that a preset of
    the sides asks for. episodes: of the final evaluation, whose mean return is a run's score; greedy: whether it takes the most
    likely actions or samples. level: 1 − the probability of a false verdict. threshold: the return that counts as solved, or
    one per environment; default what Gymnasium says. jobs: runs at the same time; default one per core. shard: "i/n" where n
    processes or machines make the same call on a shared `root` (see docs/cluster.md). engine: "processes", or "ray".

    Runs under `root` of the same configuration, seed and version are reused, unfinished ones are resumed, and the others are
    trained there, each as `policygrad train` would. `out`, by default `<root>/comparisons/<name>`, gets compare.json (the same
    bytes for the same runs), clocks.json and clocks.png (places and seconds), compare.png and compare.html. Stopped or killed
    at any time, the same call goes on. In a script it must be called under `if __name__ == "__main__":`, because it starts
    processes.
    Raises ConfigError for sides and numbers that mean nothing, RunError for runs that fail, Interrupted for Ctrl-C.
    """
    request = read_request(sides, env, seeds, steps, episodes, root, greedy)
    level, (kind, own) = read_level(level), read_engine(engine, shard)
    goals = read_thresholds(threshold, request.envs)
    found = {side.label: of_folder(side, request.envs, greedy) for side in request.sides if side.folder is not None}
    found |= trained(request, jobs, board or SilentBoard(), own, kind)
    comparison = RunComparison({side.label: found[side.label] for side in request.sides}, level, goals)
    comparison.write(request.root / FOLDER / request.name() if out is None else Path(out).expanduser())
    return comparison


def read_request(
    sides: Sequence[str] | Mapping[str, str],
    env: str | Sequence[str],
    seeds: int | Sequence[int],
    steps: int | None,
    episodes: int,
    root: str | Path,
    greedy: bool,
) -> Request:
    """The runs that are asked for, everything checked before anything is trained."""
    read = read_sides(sides)
    envs = list(dict.fromkeys([env] if isinstance(env, str) else env))
    for one in envs:
        check_env_id(one)
    if not envs and any(side.folder is None for side in read):
        raise ConfigError('a comparison needs an environment to train in: env="CartPole-v1", or several in a list')
    numbers = read_seeds(seeds)
    if episodes < 1:
        raise ConfigError(f"episodes = {episodes} must be at least 1")
    request = Request(read, envs, numbers, steps, episodes, Path(root).expanduser(), greedy)
    for side in read:
        for one in envs if side.folder is None else []:
            planned(side, one, steps)
    return request


def read_level(level: float) -> float:
    """1 − the probability of a false verdict. Raises ConfigError."""
    if not 0.5 <= float(level) < 1.0:
        raise ConfigError(f"level = {level} must be at least 0.5 and below 1, e.g. 0.95")
    return float(level)


def read_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds: 0, 1, … where a number of them is given. Raises ConfigError for fewer than two."""
    numbers = (
        list(range(check("seeds", int, seeds))) if isinstance(seeds, int) else [check("seed", int, x) for x in seeds]
    )
    if len(set(numbers)) < max(2, len(numbers)):
        raise ConfigError(f"seeds = {seeds} must be two or more different ones: the spread of one run is unknown")
    return numbers


def read_thresholds(threshold: float | Mapping[str, float] | None, envs: Sequence[str]) -> dict[str, float]:
    """The return that counts as solved, per environment."""
    given = threshold if isinstance(threshold, Mapping) else {} if threshold is None else dict.fromkeys(envs, threshold)
    wrong = [name for name in given if envs and name not in envs]
    if wrong or not all(math.isfinite(x) for x in given.values()):
        raise ConfigError(
            f"threshold = {threshold} must be a finite return, or one per environment of {', '.join(envs)}"
        )
    return {name: float(x) for name, x in given.items()}


def trained(
    request: Request, jobs: int | None, board: SilentBoard, shard: Shard | None = None, engine: Engine = "processes"
) -> dict[str, dict[str, list[ScoredRun]]]:
    """The runs of all sides that are no directories, by side and environment; missing ones are trained.

    Raises RunError if any failed, Interrupted after Ctrl-C.
    """
    work: list[tuple[Side, str, Wanted]] = []
    for env in request.envs:
        steps = request.steps or same_steps(request.sides, env)
        for seed in request.seeds:  # the first seeds of all sides first
            for side in request.sides:
                if side.algo is not None:
                    work.append((side, env, wanted_run(request, side, env, seed, steps)))
    existing = Existing.under(request.root)
    states = settle([one for _, _, one in work], request.root, existing, jobs, board, shard, engine)
    failed = [state for state in states if state.phase != "done"]
    if failed:
        raise RunError(failure_text(failed, len(states)))
    found: dict[str, dict[str, list[ScoredRun]]] = {}
    for (side, env, _), state in zip(work, states, strict=True):
        run = read_run(RunDirectory(Path(str(state.path))), request.greedy)
        found.setdefault(side.label, {}).setdefault(env, []).append(run)
    return found


def wanted_run(request: Request, side: Side, env: str, seed: int, steps: int | None) -> Wanted:
    """The run of a side with a seed."""
    config, algo = planned(side, env, steps), str(side.algo)
    keywords = {"steps": config["steps"]} | dict(side.keywords)
    label = f"{side.label} on {env}" if len(request.envs) > 1 else side.label
    return Wanted(Job(algo, env, seed, keywords, None, str(request.root), request.episodes, side=label), config)


def failure_text(failed: Sequence[State], count: int) -> str:
    """The message about runs that failed: without them the others would look better than they are."""
    first = failed[0]
    reason = (first.message.splitlines() or ["stopped"])[0]
    return (
        f"{len(failed)} of {count} runs failed, and a comparison without them would be biased.\n"
        f"{first.name}: {reason}\nThe other runs are kept: change the side that failed, and the same command goes on."
    )
