"""What the commands do: call `policygrad.runs`, print what came out."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.algorithms import recipes
from policygrad.algorithms.config import HYPERPARAMETERS, parameters, presets, resolve
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.arguments import Parser, check_env, parse_train
from policygrad.cli.tables import table
from policygrad.cli.values import UsageError, flag, positive, show
from policygrad.runs.directory import ROOT, RunDirectory, find, runs

if TYPE_CHECKING:
    from policygrad.runs.agent import Agent
    from policygrad.runs.evaluate import Evaluation


@contextmanager
def mending(*errors: type[Exception]) -> Iterator[None]:
    """Turn what the user can mend into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except errors as error:
        raise UsageError(as_flags(str(error)) or type(error).__name__) from error


def as_flags(message: str) -> str:
    """`lr = 5 must be …` as the command line says it: `--lr = 5 must be …`."""
    name = message.partition(" = ")[0]
    return message.replace(name, flag(name), 1) if name in HYPERPARAMETERS or name == "batch_size" else message


def train(words: Sequence[str]) -> None:
    """`policygrad train`."""
    given = parse_train(words)
    from policygrad.data import TooFewError
    from policygrad.envs.collector import EndlessEpisodeError
    from policygrad.runs import train as training
    from policygrad.runs.agent import Agent
    from policygrad.runs.progress import clock, make_progress

    with mending(ValueError, TypeError, ImportError):
        agent = Agent(given.algo, given.env, seed=given.seed, **given.overrides)
    command = ["policygrad", "train", *words]
    run = training.start(agent, given.run_dir, root=given.runs_root or ROOT, command=command)
    if not given.quiet:
        print(f"{agent.algo} on {agent.env_name}, seed {agent.seed}, {length(agent)}; {preset(agent)}")
        print(f"run directory: {run.path}", flush=True)
    started = time.perf_counter()
    try:
        training.learn(agent, run, make_progress(given.quiet))
        if not given.quiet:
            spent = clock(time.perf_counter() - started)
            print(f"{agent.collector.steps_done:,} steps in {spent}; now playing the final policy", flush=True)
        evaluations = training.assess(agent, run, given.eval_episodes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {saved(run)}") from None
    except (TooFewError, FloatingPointError, MemoryError, EndlessEpisodeError) as error:
        when = "evaluation" if run.policy_file.exists() else "training"
        raise UsageError(f"{when} stopped: {str(error) or type(error).__name__}\n{saved(run)}") from error
    if not given.quiet:
        print("\n" + evaluation_table(evaluations) + "\n")
        print("\n".join(f"{name:<7}{path}" for name, path in (("policy", run.policy_file), ("curve", run.curve_file))))


def length(agent: Agent) -> str:
    """How long training is to be; where that is less than an iteration, how long it will be."""
    steps, plan = agent.config["steps"], agent.plan
    size = agent.config["num_envs"] * plan.num_steps if plan.num_steps is not None else plan.episodes or 1
    unit = "steps" if plan.num_steps is not None else "episodes"  # an episode is a step at least
    return f"{steps:,} steps" + (f" (at least one iteration, {size:,} {unit})" if steps < size else "")


def preset(agent: Agent) -> str:
    """Whether a tuned preset is under the configuration, and what was changed."""
    base, _ = resolve(agent.algo, agent.env_name, {})
    changed = [f"{k} {show(v)}" for k, v in agent.config.items() if k != "steps" and v != base[k]]
    text = (
        f"tuned preset for {agent.env_name}"
        if agent.tuned
        else f"no preset for {agent.env_name}: {agent.algo}'s defaults"
    )
    return text + (f", changed: {', '.join(changed[:4])}{', …' if len(changed) > 4 else ''}" if changed else "")


def saved(run: RunDirectory) -> str:
    """Where a run is, what is there, and what can be done with it, for those that did not finish."""
    there = [p.relative_to(run.path).as_posix() for p in (run.policy_file, *run.checkpoints()[-1:]) if p.exists()]
    if not there:
        return f"{run.path} holds no checkpoint yet"
    return f"{run.path} holds {' and '.join(there)}\nnext: policygrad eval {shlex.quote(str(run.path))}"


def evaluation_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Greedy and sampled, a row each."""
    rows = []
    for name, evaluation in evaluations.items():
        low, high = evaluation.ci95
        rows.append([name, f"{evaluation.mean:,.1f}", f"[{low:,.1f}, {high:,.1f}]", str(len(evaluation.returns))])
    return table(["policy", "mean return", "95 % interval", "episodes"], rows, right=(1, 2, 3))


def evaluate(words: Sequence[str]) -> None:
    """`policygrad eval`."""
    parser = Parser("policygrad eval", description="Play a trained policy on fixed seeds, greedily and sampled.")
    parser.add_argument("run", metavar="RUN", help="run directory, model file, beginning of a run's name, or latest")
    parser.add_argument("--episodes", default="100", metavar="N", help="of each kind [100]")
    parser.add_argument("--env", help="play in this environment, of the same spaces [the one it was trained in]")
    parser.add_argument("--json", action="store_true", help="print what evaluation.json holds")
    parser.add_argument("--runs-root", default=ROOT, metavar="DIR", help="where runs are looked for [runs]")
    given = parser.parse(words)
    episodes = positive("episodes", given.episodes)
    path = find(given.run, given.runs_root)
    path = RunDirectory(path).model_file() if path.is_dir() else path
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is not a policygrad model: expected a .safetensors file or a run directory.")
    if given.env is not None:
        check_env(given.env)
    from policygrad.envs.collector import EndlessEpisodeError
    from policygrad.runs.agent import load
    from policygrad.runs.storage import load_state
    from policygrad.runs.train import WAYS

    try:
        if given.env is None:
            refuse_import(given.run, load_state(path)[1].get("env"))
        agent = load(path, env=given.env)
    except UsageError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(str(error).replace("pass env=", "name an environment with --env")) from error
    with mending(EndlessEpisodeError):
        evaluations = {name: agent.evaluate(episodes, greedy) for name, greedy in WAYS.items()}
    if given.json:
        print(json.dumps({name: e.to_json() for name, e in evaluations.items()}, indent=2))
    else:
        print(f"{agent.algo} on {agent.env_name}, seed {agent.seed}: {path}\n\n{evaluation_table(evaluations)}")


def refuse_import(run: str, env: object) -> None:
    """Say which words import a module that a model file names: only the user may."""
    if isinstance(env, str) and re.fullmatch(r"[\w.]+:[\w./-]+", env):
        raise UsageError(
            f"{run} was trained on {env}. Importing a module runs its code, so name it yourself:\n"
            f"policygrad eval {shlex.quote(run)} --env {env}"
        )


def plot(words: Sequence[str]) -> None:
    """`policygrad plot`."""
    parser = Parser(
        "policygrad plot",
        description="Draw the learning curves of runs: mean return of the last 100 episodes against steps. Runs that differ "
        "in the seed alone are drawn as their mean, with a band from the lowest to the highest.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directory, a directory of runs, beginning of a name, or latest"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="png, pdf or svg [the run's learning_curve.png; several: learning_curves.png]"
    )
    parser.add_argument("--runs-root", default=ROOT, metavar="DIR", help="where runs are looked for [runs]")
    given = parser.parse(words)
    chosen: dict[Path, RunDirectory] = {}
    for text in given.runs:
        path = find(text, given.runs_root)
        below = sorted(runs(path)) if path.is_dir() else []
        if not below:
            raise UsageError(f"{path} is not a run directory: it has no config.json.")
        chosen |= {run.resolve(): RunDirectory(run) for run in below}
    directories = list(chosen.values())
    out = directories[0].curve_file if len(directories) == 1 else Path("learning_curves.png")
    out = Path(given.out) if given.out is not None else out
    from policygrad.runs.plots import FORMATS, plot_runs

    if out.suffix not in FORMATS:
        raise UsageError(f"--out = {str(out)!r} must end in one of: {', '.join(FORMATS)}")
    plot_runs(directories, out)
    print(out)


def show_list(words: Sequence[str]) -> None:
    """`policygrad list`."""
    parser = Parser(
        "policygrad list", description="Show tuned presets, algorithms, environments; all three by default."
    )
    parser.add_argument("what", nargs="?", metavar="{" + ",".join(LISTS) + "}")
    given = parser.parse(words)
    if given.what is not None and given.what not in LISTS:
        raise UsageError(f"there is no list of {given.what!r}: there are {', '.join(LISTS)}.")
    chosen = LISTS if given.what is None else {given.what: LISTS[given.what]}
    print("\n\n".join(make() for make in chosen.values()))


def presets_table() -> str:
    """Environments with tuned presets."""
    rows = [
        [env, algo, f"{preset.get('steps', parameters(algo)['steps'][1]):,}"]
        for algo in RECIPES
        for env, preset in presets(algo).items()
    ]
    return table(["preset", "algorithm", "steps"], sorted(rows), right=(2,))


def algorithms_table() -> str:
    """The recipes, each with its cell of the grid estimator × update rule, from the table in their module's docstring."""
    cells = dict(re.findall(r"^    (\w+)\s+(.+?)$", recipes.__doc__ or "", re.MULTILINE))
    rows = [
        [name, re.sub(r"\s{2,}", " × ", cells.get(name, "")), (function.__doc__ or "").strip().splitlines()[0]]
        for name, function in RECIPES.items()
    ]
    return table(["algorithm", "estimator × update rule", "what it is"], rows)


# observations that are Discrete or Tuple, JAX, and names that are only kept to raise an error
UNSUPPORTED = re.compile(r"gymnasium\.envs\.(toy_text|tabular|phys2d|registration$)|gymnasium\.envs$")
EXTRAS = {"gymnasium.envs.mujoco": "mujoco", "gymnasium.envs.box2d": "Box2D"}


def environments_table() -> str:
    """The latest versions of the registered environments whose spaces we support, without making them."""
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec

    latest: dict[str, EnvSpec] = {}
    for spec in gym.registry.values():
        where = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
        if not UNSUPPORTED.match(where):
            name = re.sub(r"-v\d+$", "", spec.id)
            if name not in latest or (spec.version or 0) > (latest[name].version or 0):
                latest[name] = spec
    rows = []
    for spec in sorted(latest.values(), key=lambda spec: spec.id):
        missing = [p for module, p in EXTRAS.items() if str(spec.entry_point).startswith(module) and not find_spec(p)]
        tuned = ", ".join(algo for algo in RECIPES if spec.id in presets(algo))
        solved = "" if spec.reward_threshold is None else f"{spec.reward_threshold:g}"
        needs = f"gymnasium[{missing[0].lower()}]" if missing else ""
        rows.append([spec.id, str(spec.max_episode_steps or ""), solved, tuned, needs])
    return table(["environment", "max steps", "solved at", "presets", "needs"], rows, right=(1, 2))


LISTS = {"presets": presets_table, "algorithms": algorithms_table, "envs": environments_table}
