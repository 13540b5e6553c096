"""Run directories: the files of a training run, and finding a run by its name.

    config.json            algorithm, environment, seed, every hyperparameter, versions, command line
    metrics.jsonl          one row of metrics a line, written as training goes
    checkpoints/           step-<N>.safetensors: the whole agent, the last two
    replay/                rows-<n>.safetensors: the parts of a large replay buffer that these two need
    state.json             running, stopped and why, trained but not evaluated, or finished; at how many steps, and where
    policy.safetensors     weights and normaliser: what acting needs
    evaluation.json        the final policy, greedy and sampled: mean, std, 95 % interval, every return
    learning_curve.png
    report.png             what every update promised and did, once `report` was asked
    events.out.tfevents.*  metrics for TensorBoard, by Stable-Baselines3's tags
    monitor.csv            return, length and time of every finished training episode, as SB3's Monitor writes them
    evaluations.npz        returns of every evaluation, as SB3's EvalCallback writes them; the final policy's are the last
    trajectories/          every training episode, with `save_trajectories`; trajectories.safetensors: what `collect` played
    best_policy.safetensors, snapshots/    of an EvalCallback and a CheckpointCallback

Nothing heavy is imported: plots and tables read runs without torch.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.recipe import current_keywords
from policygrad.errors import FileError, NotFiniteError, brief
from policygrad.files import (
    TEMPORARY,
    BadFileError,
    appending,
    make_folder,
    opened,
    parse_json,
    read_json,
    read_text,
    reason,
    write_atomically,
)
from policygrad.forms import LARGEST, MANY, FormError, anything, each, flag, maybe, number, setting, table, text, whole
from policygrad.html import interval_text, table_html
from policygrad.stored.locks import take
from policygrad.stored.sources import folder_name

if TYPE_CHECKING:
    from policygrad.data import Row

ROOT = Path("runs")
KEEP_CHECKPOINTS = 2
STATUSES = ("running", "stopped", "trained", "finished")
MAX_LOG = 2**29  # bytes of the rows of metrics, and of those of episodes
MAX_LINE = 2**16  # characters of a row
MAX_NUMBERS = 1000  # of a row

RECIPE = table(  # the types, `RecipeSpec.from_json` looks at
    {}, others=lambda name, value: (table({}, others=text()) if isinstance(value, dict) else setting)(name, value)
)
SETTINGS = table({}, optional={"steps": whole()}, others=setting)
CONFIG = table(
    {"algo": text(1000), "env": text(1000), "seed": whole(0, 2**63 - 1), "config": SETTINGS},
    optional={
        "recipe": RECIPE,
        "name": text(1000),
        "reward_threshold": maybe(number(-LARGEST, LARGEST)),
        "custom": flag,
    },
    others=anything,
)
STATE = table({"status": text(choices=STATUSES), "steps": whole()}, optional={"reason": text(1000)}, others=anything)
GREEDY = table(
    {"mean": number(-LARGEST, LARGEST), "ci95": each(maybe(number(-LARGEST, LARGEST)), 2, least=2)}, others=anything
)
EVALUATION = table({"greedy": GREEDY}, others=anything)
PLAIN = frozenset((int, float, bool, str, type(None)))  # types in a row of metrics


class RunError(FileError, ValueError):
    """A run does not exist, cannot be read, or would be overwritten."""


class RunDirectory:
    """The files of one run. Reading raises RunError, naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"  # what was trained
        self.state_file = path / "state.json"  # running, stopped, trained, or finished
        self.metrics_file = path / "metrics.jsonl"  # rows of metrics
        self.policy_file = path / "policy.safetensors"  # the final policy
        self.evaluation_file = path / "evaluation.json"  # the final policy's returns
        self.curve_file = path / "learning_curve.png"
        self.report_file = path / "report.png"  # the picture of its report
        self.monitor_file = path / "monitor.csv"  # every finished training episode
        self.evaluations_file = path / "evaluations.npz"  # every evaluation

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    def _repr_html_(self) -> str:
        config, state, evaluation = self.config(), self.state(), self.evaluation() or {}
        rows: dict[str, Any] = {"directory": self.path, "state": f"{state['status']} at {state['steps']:,} steps"}
        means = {name: evaluation[name] for name in ("greedy", "sampled") if name in evaluation}
        rows |= {
            f"{name} policy": f"{e['mean']:.1f}  95 % interval {interval_text(e['ci95'])}" for name, e in means.items()
        }
        return table_html(f"{config['algo']} on {environment(config)}, seed {config['seed']}", rows)

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        found = {int(m[1]): p for p in self.path.glob("checkpoints/*") if (m := CHECKPOINT.fullmatch(p.name))}
        return [found[step] for step in sorted(found)]

    def model_file(self) -> Path:
        """The final policy, or the last checkpoint of a run that did not get that far."""
        if self.policy_file.exists():
            return self.policy_file
        checkpoints = self.checkpoints()
        if not checkpoints and self.config_file.exists():
            raise RunError(
                f"{self.path} was stopped before its first checkpoint, so there is nothing to play: train it again"
            )
        if not checkpoints:
            inside = sorted(runs(self.path))
            hint = (
                f"give one of the {len(inside)} runs in it, such as {inside[0]}" if inside else "is it a run directory?"
            )
            raise RunError(f"{self.path} holds no policy.safetensors and no checkpoint: {hint}")
        return checkpoints[-1]

    def config(self) -> dict[str, Any]:
        """config.json; `algo`, `env`, `seed` and `config` are there, as texts, a whole number and a table of settings."""
        with _as_run_error(f"{self.config_file} is not a run's configuration: it needs algo, env, seed and config"):
            config = read_json(self.config_file)
            CONFIG("it", config)
        return config | {"config": current_keywords(config["algo"], config["config"])}

    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl. A last line that a killed run left half written is no row."""
        rows = []
        for count, line in enumerate(read_lines(self.metrics_file), 1):
            if not line.endswith("\n"):
                break
            row = parse_row(line)
            if row is None:
                raise RunError(f"{self.metrics_file}, line {count} is not a row of metrics: {line[:60]!r}")
            rows.append(row)
        return rows

    def returns(self) -> list[float]:
        """The return of every finished training episode, in order, from monitor.csv; none without that file."""
        return [episode[0] for episode in self.episodes()]

    def episodes(self) -> list[tuple[float, float]]:
        """Return and length of every finished training episode, in order, from monitor.csv; none without that file."""
        lines = read_lines(self.monitor_file)[2:] if self.monitor_file.exists() else []  # below a comment and the names
        found = []
        for count, line in enumerate(lines, 3):
            parts = line.split(",")
            try:
                found += [(float(parts[0]), float(parts[1]))] if line.endswith("\n") else []
            except (ValueError, IndexError):
                raise RunError(f"{self.monitor_file}, line {count} is not an episode: {line[:60]!r}") from None
        return found

    def state(self) -> dict[str, Any]:
        """state.json: `status` (running, stopped, trained, finished), `steps` of the last checkpoint, `reason` of the stop.

        A run that was killed says that it is running; `lock` knows better. Runs of version 0.4 have no such file.
        """
        if not self.state_file.exists():
            return {
                "status": "finished" if self.evaluation_file.exists() else "stopped",
                "steps": 0,
                "reason": "unknown",
            }
        with _as_run_error(f"{self.state_file} is not the state of a run"):
            state = read_json(self.state_file)
            STATE("it", state)
        return state

    def write_state(self, status: str, steps: int, reason: str = "") -> None:
        """Write state.json, with the name of this machine, which may be another one than that where the run began."""
        state = {"status": status, "steps": steps, "hostname": platform.node()}
        write_json(self.state_file, state | ({"reason": reason} if reason else {}))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process. Raises RunError if another process trains it.

        The system gives the lock back however a process ends; see `policygrad.stored.locks`.
        """
        with opened(self.config_file) as file:
            if not take(file):
                raise RunError(f"{self.path} is being trained by another process")
            yield

    def evaluation(self) -> dict[str, Any] | None:
        """The contents of evaluation.json, with the greedy policy's mean and interval; None if it does not exist yet."""
        if not self.evaluation_file.exists():
            return None
        with _as_run_error(f"{self.evaluation_file} is not an evaluation: it needs greedy, mean and ci95"):
            evaluation = read_json(self.evaluation_file)
            EVALUATION("it", evaluation)
        return evaluation

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.config_file, config)

    def write_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Write evaluation.json."""
        write_json(self.evaluation_file, evaluation)

    def append_metrics(self, row: Row) -> None:
        """Add a row; it is in the file when this returns."""
        row = {name: _finite(x) if isinstance(x, float) else x for name, x in row.items()}
        with appending(self.metrics_file) as file:
            file.write(json.dumps(row, default=_finite).encode() + b"\n")

    def save_checkpoint(self, save: Callable[[Path], Path], steps: int) -> Path:
        """Write a checkpoint with `save`, as the one at this many steps, and delete all but the last ones."""
        path = save(make_folder(self.path / "checkpoints") / f"step-{steps}.safetensors")
        for old in self.checkpoints()[:-KEEP_CHECKPOINTS]:
            old.unlink()
        return path


CHECKPOINT = re.compile(r"step-(\d+)\.safetensors")


def create(path: str | Path | None, root: str | Path, config: dict[str, Any]) -> RunDirectory:
    """A run directory with its config.json and nothing else: the one given, or a new `<root>/<env>/<algo>/seed<k>-<utc>`.

    config: what config.json is to say. Of several that want the same directory at the same time one gets it. Raises RunError
    for a directory that is not empty, or cannot be made.
    """
    if path is None:
        parent = folder_of(root, config.get("name") or config["env"], config["algo"])
        path = _make_new(parent, f"seed{config['seed']}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    run = RunDirectory(Path(os.path.expanduser(path)))
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        taken = any(not TEMPORARY.fullmatch(name) for name in os.listdir(run.path))
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise RunError(f"cannot make the run directory {path}: {reason(error)}") from error
    try:
        if not taken:
            write_json(run.config_file, config, new=True)
    except FileExistsError:  # another one was faster
        taken = True
    if taken:
        raise RunError(f"{path} is not empty: give a new directory, or remove this one first")
    return run


def folder_of(root: str | Path, env: str, algo: str) -> Path:
    """The directory that new runs of an algorithm in an environment are made in."""
    names = env, algo.rpartition(":")[2]  # of module:recipe, the recipe
    return Path(os.path.expanduser(root)).joinpath(*map(folder_name, names))


def _make_new(parent: Path, name: str) -> Path:
    """A directory that was not there before; runs that start in the same second get different ones."""
    for count in range(1, 10_000):
        path = parent / (name if count == 1 else f"{name}-{count}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {reason(error)}") from error
        else:
            return path
    raise RunError(f"there are 10,000 runs named {parent / name} already")


def runs(root: str | Path = ROOT) -> Iterator[Path]:
    """The run directories under root."""
    for config in Path(root).rglob("config.json"):
        yield config.parent


def named(run: object) -> str:
    """What `find_run` is asked for a run that is given by its path or name. Raises RunError for other objects."""
    if not isinstance(run, str | Path):
        raise RunError(
            f"expected a run, what policygrad.train(agent) returned, or its directory or name, got {brief(run)}; "
            "policygrad.History() and policygrad.LiveCurve() are callbacks that draw what agent.learn does"
        )
    return str(run)


def find_run(text: str, root: str | Path = ROOT) -> Path:
    """The path of a run: a directory or model file, the beginning of a name under root, or `latest`.

    A name may begin at the environment (`CartPole-v1/ppo/seed0`) or at the seed (`seed0-20260131`).
    """
    root = Path(os.path.expanduser(root))
    if (path := Path(os.path.expanduser(text))).exists():
        return path
    names = {run.relative_to(root).as_posix(): run for run in runs(root)}
    if not names:
        raise RunError(f"there is no run {text!r}: no such file or directory, and no runs under {root}")
    if text == "latest":
        return max(names.values(), key=lambda run: (run / "config.json").stat().st_mtime_ns)
    prefix = text.rstrip("/")
    if prefix in names:
        return names[prefix]
    matches = sorted(n for n in names if n.startswith(prefix) or n.rpartition("/")[2].startswith(prefix))
    if len(matches) == 1:
        return names[matches[0]]
    if not matches:
        known = sorted(names)
        more = f" and {len(known) - 3} more" if len(known) > 3 else ""
        raise RunError(
            f"there is no run {text!r}: no such file or directory, and no run under {root} begins like this.\n"
            f"Available: {', '.join(known[:3])}{more}."
        )
    more = ", …" if len(matches) > 3 else ""
    raise RunError(f"{text!r} is the beginning of {len(matches)} runs, type more of it: {', '.join(matches[:3])}{more}")


def runs_at(path: Path) -> list[RunDirectory]:
    """The run at this path, or all runs below it. Raises RunError if there is none."""
    found = [RunDirectory(run) for run in sorted(runs(path))] if path.is_dir() else []
    if not found:
        raise RunError(f"{path} is not a run directory: it has no config.json.")
    return found


def environment(config: Mapping[str, Any]) -> str:
    """The name of a run's environment: the one that it was given, or its own with keywords and wrappers, if there are any."""
    if config.get("name"):
        return str(config["name"])
    kwargs, wrappers = config.get("env_kwargs"), config.get("wrappers")
    words = [f"{key}={json.dumps(value)}" for key, value in kwargs.items()] if isinstance(kwargs, dict) else []
    words += [str(wrapper) for wrapper in wrappers] if isinstance(wrappers, list) else []
    return f"{config['env']}" + (f" ({', '.join(words)})" if words else "")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, with their ends. Raises RunError, naming it."""
    with _as_run_error():
        return read_text(path, MAX_LOG).splitlines(keepends=True)


def _finite(x: Any) -> float | None:
    """A number as JSON has it; one that is not finite does not exist."""
    return float(x) if math.isfinite(x) else None


def parse_row(line: str) -> Row | None:
    """A row of metrics, plain values by name with `steps` among them; None for anything else."""
    try:
        row = parse_json(line) if len(line) <= MAX_LINE else None
    except ValueError:
        return None
    if not isinstance(row, dict) or len(row) > MAX_NUMBERS or not PLAIN.issuperset(map(type, row.values())):
        return None
    steps = row.get("steps")
    return row if type(steps) is int and 0 <= steps <= MANY else None


@contextmanager
def _as_run_error(what: str = "") -> Iterator[None]:
    """RunError for a file that cannot be read, and for what a form refuses in it."""
    try:
        yield
    except BadFileError as error:
        raise RunError(str(error)) from error
    except FormError as error:
        raise RunError(f"{what}; {error}") from error


def write_json(path: Path, data: Any, new: bool = False) -> None:
    """A JSON file for people and machines, whole or not at all. new: as for `write_atomically`. Raises NotFiniteError for
    numbers that JSON does not have.
    """
    try:
        words = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise NotFiniteError(f"{path} was not written: a number in it is not finite") from error
    write_atomically(path, words.encode("utf8", "backslashreplace") + b"\n", new)
