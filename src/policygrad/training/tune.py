"""Searching for hyperparameters: trials of several seeds, proposed by Optuna, and the best one checked on fresh seeds."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import policygrad
from policygrad.algorithms.config import ConfigError, algorithm, check, resolve
from policygrad.algorithms.search_spaces import default_space
from policygrad.envs.processes import usable_cores
from policygrad.envs.single import check_env_id
from policygrad.errors import UserError
from policygrad.files import make_folder, read_json, write_atomically
from policygrad.reports.comparison_result import RunComparison
from policygrad.reports.comparison_words import verdicts
from policygrad.reports.tuning import Check, TrialRow, Tuning, settings_text, value_text
from policygrad.stored.directory import RunError, write_json
from policygrad.stored.sources import folder_name
from policygrad.training.compare import compare
from policygrad.training.jobs import SilentBoard
from policygrad.training.preset_file import check_expressible, preset_text
from policygrad.training.pruning import Rule, gives_up
from policygrad.training.space import Choice, parse_space
from policygrad.training.trials import Ending, Player, Search

if TYPE_CHECKING:
    from policygrad.training.study import Candidate, Study

ROOT = "tuning"  # the directory of searches
CHECK_OFFSET = 1000  # of the seeds of the check, from those of the search
FILES = {  # what is in the directory, as docs/tune.md lists it
    "best.toml": "the best setting, for `--preset`, with evidence",
    "tune.json": "request, trials with scores and values at rungs, check, verdict",
    "tune.png": "the history and, after ten finished trials, each hyperparameter's importance",
    "trials/0007/seed1": "a [run directory](metrics.md)",
    "check/": "the comparison, with `compare.html`",
    "journal.log": "Optuna's journal, for optuna-dashboard",
}
Heard = Callable[[TrialRow, TrialRow | None], None]  # told of a trial that has ended, and of the best one so far
Play = Callable[[int, Mapping[str, Any], Path, Callable[[list[float | None]], bool], bool], Ending]  # as Player.play


class TuneError(UserError, RuntimeError):
    """A search cannot begin or go on."""


def tune(
    algo: str,
    env: str,
    *,
    over: Sequence[str] | Mapping[str, Any] | None = None,
    trials: int = 50,
    seeds: int = 3,
    steps: int | None = None,
    hours: float | None = None,
    check_seeds: int = 10,
    prune: bool = True,
    prune_after: float = 1 / 3,
    eval_episodes: int = 100,
    seed: int = 0,
    jobs: int | None = None,
    out: str | Path | None = None,
    board: SilentBoard | None = None,
    heard: Heard | None = None,
    **fixed: Any,
) -> Tuning:
    """Search for hyperparameters that raise the final return, and check the best ones on fresh seeds.

    `print(pg.tune("ppo", "CartPole-v1", trials=20))` prints the best trials and a verdict.

    over: what is searched, such as ["lr=1e-4..1e-2:log", "gamma=0.98,0.99"], or {"lr": "1e-4..1e-2:log"}; default the
    algorithm's row in `policygrad.algorithms.search_spaces`. trials: how many in all, those of earlier calls included. seeds:
    per trial; its value is the mean over them of the final policy's mean return with greedy actions. steps: of every run;
    default the preset's. hours: after which no trial begins. check_seeds: fresh seeds on which the best trial is compared
    with what stands, the preset or the defaults; 0: no check. prune, prune_after: whether trials are given up, and the share
    of the steps before which none is (see `policygrad.training.pruning`); with one seed none is. eval_episodes: of a final
    evaluation. seed: the first one of the trials, and that of the proposals. jobs: runs at the same time; default one per
    core. out: the directory; default tuning/<env>/<algo>. fixed: hyperparameters that all runs share, such as num_envs=8.
    heard: called with every trial that has ended, and the best one so far.

    Stopped or killed at any time, the same call goes on: trials that were running are resumed. Several processes may work on
    one directory of one machine. `FILES` says what is in it. In a script it must be called under `if __name__ == "__main__":`,
    because it starts processes.
    Raises ConfigError for what means nothing, TuneError without Optuna or for the directory of another search, Interrupted for
    Ctrl-C.
    """
    request = read_request(algo, env, over, seeds, steps, prune_after if prune else 1.0, eval_episodes, seed, fixed)
    trials, check_seeds = counted("trials", trials, 1), counted("check_seeds", check_seeds, 0)
    if 0 < check_seeds < 3:
        raise ConfigError(f"check_seeds = {check_seeds} must be 0, for no check, or at least 3: fewer can never tell")
    if hours is not None and not hours > 0:
        raise ConfigError(f"hours = {hours} must be above 0")
    jobs, board = counted("jobs", usable_cores() if jobs is None else jobs, 1), board or SilentBoard()
    place = Path(ROOT) / folder_name(env) / folder_name(request.algo) if out is None else Path(out).expanduser()
    study_class = load_study()
    claim(place, request)
    standing = {name: standing_of(request).get(name) for name in request.space}
    study = study_class(place, request.space, request.seeds[0], request.rule, request.steps, standing)
    try:
        search(study, request, Player(request, jobs, board).play, trials, hours, heard)
        return conclude(study, request, standing, check_seeds, jobs, board)
    finally:
        board.stop()


def read_request(
    algo: str,
    env: str,
    over: Sequence[str] | Mapping[str, Any] | None,
    seeds: int,
    steps: int | None,
    prune_after: float,
    episodes: int,
    seed: int,
    fixed: Mapping[str, Any],
) -> Search:
    """What is searched for, everything checked before anything is trained."""
    algo = algorithm(algo)
    check_env_id(env)
    given = default_space(algo) if over is None else over
    if over is None:  # what is held fixed is not searched
        given = [word for word in given if word.partition("=")[0] not in fixed]
    space = parse_space(given, algo, fixed)
    words = dict(fixed) | ({} if steps is None else {"steps": check("steps", int, steps)})
    config, _ = resolve(algo, env, words)
    if "steps" in space or "steps" in fixed:
        raise ConfigError("steps is the same in all trials, so that they can be compared: give steps=N")
    for name, each in space.items():
        for value in each.values if isinstance(each, Choice) else ():
            check_expressible(algo, {name: value})
    check_expressible(algo, config)
    if not 0.0 <= prune_after <= 1.0:
        raise ConfigError(f"prune_after = {prune_after} must be a share of the steps, from 0 to 1")
    many, first = counted("seeds", seeds, 1), int(check("seed", int, seed))
    if many >= CHECK_OFFSET:
        raise ConfigError(f"seeds = {seeds} must be below {CHECK_OFFSET}")
    rule = Rule(warmup=prune_after if many > 1 else 1.0)  # nothing is judged by one seed
    numbers = tuple(range(first, first + many))
    return Search(algo, env, space, dict(fixed), config["steps"], numbers, counted("eval_episodes", episodes, 1), rule)


def counted(name: str, value: Any, least: int) -> int:
    """A whole number, at least this large."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} = {value!r} must be a whole number, at least {least}")
    return value


def standing_of(request: Search) -> dict[str, Any]:
    """The configuration that stands without a search: the preset or the defaults, with what is held fixed."""
    return resolve(request.algo, request.env, {**request.fixed, "steps": request.steps})[0]


def claim(place: Path, request: Search) -> None:
    """Keep the request in the directory, or see that it is the same. Raises TuneError for the directory of another search."""
    if place.exists() and not place.is_dir():
        raise TuneError(f"{place} exists and is not a directory: give another one")
    file, asked = make_folder(place) / "request.json", request.to_json()
    try:
        write_json(file, asked, new=True)
        return
    except FileExistsError:
        before = read_json(file)
    other = [name for name in asked if not isinstance(before, dict) or before.get(name) != asked[name]]
    if other:
        then = before.get(other[0]) if isinstance(before, dict) else before
        raise TuneError(
            f"{place} has another search: its {other[0]} is {then}, and now {asked[other[0]]}.\n"
            "Give the same words to go on with it, or another directory."
        )


def load_study() -> type[Study]:
    """The class that needs Optuna. Raises TuneError without it."""
    try:
        from policygrad.training.study import Study
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise TuneError("searching needs the package Optuna: pip install 'policygrad[tune]'") from error
    return Study


def search(
    study: Study, request: Search, play: Play, trials: int, hours: float | None = None, heard: Heard | None = None
) -> None:
    """Work on trials until there are as many as asked for, or the time is over."""
    until = time.monotonic() + 3600 * hours if hours is not None else float("inf")
    while time.monotonic() < until and (candidate := study.begin(trials)) is not None:
        try:
            work_on(study, request, candidate, play)
        finally:
            candidate.lock.release()
        if heard is not None:
            rows = study.rows()
            best = max((row for row in rows if row.value is not None), key=lambda row: row.value or 0.0, default=None)
            heard(rows[candidate.number], best)


def work_on(study: Study, request: Search, candidate: Candidate, play: Play) -> None:
    """Train one trial, and keep how it ended."""

    def judge(curve: list[float | None]) -> bool:
        study.report(candidate, curve)
        return gives_up(curve, study.curves(), request.rule)

    finished = sum(row.state == "finished" for row in study.rows())
    stops = finished >= request.rule.finished
    outcome = play(candidate.number, candidate.params, candidate.folder, judge, stops)
    if outcome.reason:
        study.fail(candidate, outcome.reason)
    elif outcome.pruned:
        study.prune(candidate)
    else:
        study.finish(candidate, outcome.scores)


def conclude(
    study: Study, request: Search, standing: Mapping[str, Any], check_seeds: int, jobs: int, board: SilentBoard
) -> Tuning:
    """Check the best trial, unless another process still searches, and write the files."""
    from policygrad.reports.tuning_plots import figure

    with study.concluding.waited_for():
        running = study.busy()
        words = {"request": request.to_json(), "trials": study.rows(), "standing": standing, "place": study.folder}
        if running:
            return Tuning(**words, running=running, version=policygrad.__version__)
        found = Tuning(**words)
        checked = None
        if check_seeds and found.best is not None and not found.is_standing:
            checked = run_check(request, found.best.params, check_seeds, study.folder / "check", jobs, board)
        found = Tuning(**words, importances=study.importances(), check=checked, version=policygrad.__version__)
        if found.best is not None:
            write_atomically(found.preset, preset_of(request, found).encode())
        figure(found).write(study.folder / "tune.png")
        write_json(study.folder / "tune.json", found.to_json())
    return found


def run_check(
    request: Search, params: Mapping[str, Any], count: int, place: Path, jobs: int, board: SilentBoard
) -> Check:
    """Compare the best trial's hyperparameters with those that stand, on seeds that the search has not seen."""
    seeds = [request.seeds[0] + CHECK_OFFSET + k for k in range(count)]
    sides = {"tuned": side(request.algo, {**request.fixed, **params}), "standing": side(request.algo, request.fixed)}
    how = {"seeds": seeds, "steps": request.steps, "episodes": request.episodes, "jobs": jobs, "board": board}
    try:
        found: RunComparison = compare(sides, request.env, **how, root=place / "runs", out=place)
    except RunError as error:
        return Check(seeds, failed=" ".join(str(error).splitlines()[1:2] or [str(error)]))
    (difference,) = found.differences[request.env].values()
    tuned, standing = ([float(x) for x in found.scores(name, request.env)] for name in sides)
    numbers = {name: x for name, x in asdict(difference).items() if isinstance(x, int | float | str)}
    finite = {name: None if isinstance(x, float) and abs(x) == float("inf") else x for name, x in numbers.items()}
    return Check(seeds, tuned, standing, difference.verdict, verdicts(found, request.env)[0], finite)


def side(algo: str, params: Mapping[str, Any]) -> str:
    """A side of a comparison: ppo:lr=0.001,gamma=0.99."""
    words = ",".join(f"{name}={Choice((value,))}" for name, value in params.items())
    return f"{algo}:{words}" if words else algo


def preset_of(request: Search, found: Tuning) -> str:
    """The best trial as a preset file, with what is known about it above."""
    best = found.best
    assert best is not None
    config, _ = resolve(request.algo, request.env, {**request.fixed, **best.params, "steps": request.steps})
    seeds = f"{len(request.seeds)} seed" + "s" * (len(request.seeds) > 1)
    comments = [
        f"{request.algo} on {request.env}: trial {best.number} of {len(found.trials)} ({found.counts()}), "
        f"policygrad {found.version}.",
        f"In the search: {value_text(best.value or 0.0)}, the mean of {seeds} "
        f"({', '.join(map(value_text, best.scores))}), with {settings_text(best.params)}.",
        *found.verdict.splitlines(),
        "tune.json beside this file has every trial.",
        f"policygrad train {request.algo} {request.env} --preset {found.preset.name}",
    ]
    wrapped = [line for text in comments for line in textwrap.wrap(text, 110, break_on_hyphens=False)]
    return preset_text(request.algo, request.env, config, wrapped)
