"""`policygrad eval`, `video`, `watch`: play a trained policy."""

from __future__ import annotations

import json
import re
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.cli.arguments import check_env
from policygrad.cli.episodes import Episodes
from policygrad.cli.flags import collect_parser, eval_parser, video_parser, watch_parser
from policygrad.cli.reports import as_usage_error, ended, evaluation_table
from policygrad.cli.values import UsageError, parse_pairs, parse_seed, positive
from policygrad.files import printable
from policygrad.stored.directory import RunDirectory, RunError
from policygrad.stored.found import located
from policygrad.stored.pretrained import folder_of
from policygrad.stored.sources import at_hand, same_source
from policygrad.training.seeds import failure

if TYPE_CHECKING:
    from policygrad.training.agent import Agent


def eval_command(words: Sequence[str]) -> None:
    """`policygrad eval`."""
    given = eval_parser().parse(words)
    episodes = positive("episodes", given.episodes)
    agent, path = load_run(given, "eval")
    from policygrad.training.train import GREEDY

    told = Episodes()
    with ended("evaluation"):
        evaluations = {name: agent.evaluate(episodes, greedy, progress=told) for name, greedy in GREEDY.items()}
    if given.json:
        print(json.dumps({name: e.to_json() for name, e in evaluations.items()}, indent=2))
    else:
        print(f"{agent.algo} on {agent.env_name}, seed {agent.seed}: {printable(str(path))}\n")
        print(evaluation_table(evaluations))


def collect_command(words: Sequence[str]) -> None:
    """`policygrad collect`."""
    given = collect_parser().parse(words)
    episodes = positive("episodes", given.episodes)
    seed = parse_seed(given.seed)
    if given.out is not None and Path(given.out).suffix != ".safetensors":
        raise UsageError(f"--out = {given.out!r} must end in .safetensors")
    agent, path = load_run(given, "collect")
    with ended("collecting"):
        trajectories = agent.collect(episodes, seed)
    out = trajectories.save(directory_of(path) / "trajectories.safetensors" if given.out is None else given.out)
    mean = float(trajectories.returns.mean())
    print(
        f"{printable(str(out))}  {len(trajectories):,} episodes, {trajectories.steps:,} steps, mean return {mean:,.1f}"
    )


def video_command(words: Sequence[str]) -> None:
    """`policygrad video`."""
    given = video_parser().parse(words)
    keywords = film(given)
    if given.out is not None and Path(given.out).suffix != ".mp4":
        raise UsageError(f"--out = {given.out!r} must end in .mp4")
    agent, path = load_run(given, "video")
    out = Path(given.out) if given.out is not None else directory_of(path) / "video.mp4"
    from policygrad.training.video import record

    with ended("the video"), as_usage_error(ValueError, ImportError):
        returns = record(agent, out, **keywords)
    print(f"{printable(str(out))}  return {', '.join(f'{x:,.1f}' for x in returns)}")


def watch_command(words: Sequence[str]) -> None:
    """`policygrad watch`."""
    given = watch_parser().parse(words)
    keywords = film(given)
    agent, _ = load_run(given, "watch")
    from policygrad.training.video import watch

    with ended("watching"), as_usage_error(ValueError, ImportError), suppress(KeyboardInterrupt):
        watch(agent, **keywords)


def film(given: Namespace) -> dict[str, Any]:
    """The keywords of `record` and `watch`."""
    seed = {} if given.seed is None else {"seed": parse_seed(given.seed)}
    return {"episodes": positive("episodes", given.episodes), "greedy": not given.sampled} | seed


def directory_of(model: Path) -> Path:
    """The run directory of a model file; outside of a run, the directory of the file."""
    return model.parent.parent if model.parent.name == "checkpoints" else folder_of(model)


def files_at(model: Path) -> Any:
    """What the config.json of a model file's run says of the user's own files; None where there is none, or it is damaged."""
    with suppress(RunError):
        return RunDirectory(directory_of(model)).config().get("files")


MEASURING = ("report", "lab steps")  # commands that collect steps as training does


def load_run(given: Namespace, command: str) -> tuple[Agent, Path]:
    """The agent that RUN names, and its model file."""
    path = located(given.run, given.runs_root)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is not a policygrad model: expected a .safetensors file or a run directory.")
    if given.env is not None:
        check_env(given.env)
    from policygrad.stored.storage import open_state
    from policygrad.training.loading import load

    try:
        recipe, kwargs = getattr(given, "recipe", None), given.env_kwargs
        kwargs = None if kwargs is None else parse_pairs("env_kwargs", chain.from_iterable(kwargs))
        with open_state(path) as file:
            refuse_import(command, given.run, file.meta, given.env, recipe, given.wrapper, files_at(path))
        # its own environments are measured on, or stand still: then none is worth the wait for compiled code; and a few
        # environments are played fastest on the CPU
        backend = None if command in MEASURING else "gymnasium"
        words = {"env_kwargs": kwargs, "wrappers": given.wrapper, "backend": backend, "device": "cpu"}
        return load(path, env=given.env, recipe=recipe, **words), path
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            failure(error, None)
            .replace("pass env=", "name the environment with --env")
            .replace("pass recipe=", "name it with --recipe")
            .replace("pass env_kwargs=", "give them with --env-kwargs")
            .replace("pass wrappers=", "name them with --wrapper")
        ) from error


NAME = re.compile(r"[\w./ -]+:[\w./-]+")  # module:name or file.py:name, and nothing that a shell or a terminal obeys


def refuse_import(
    command: str,
    run: str,
    meta: Mapping[str, Any],
    env: str | None,
    recipe: str | None,
    wrappers: Sequence[str] | None = None,
    files: Any = None,
) -> None:
    """Raise UsageError if a model file names modules that the user has not named, because an import runs code.

    files: what the run's config.json says of where they are, see `policygrad.stored.sources`.
    """
    around = meta.get("wrappers") if env is None or same_source(env, meta.get("env")) else None
    named = [("--env", env, meta.get("env")), ("--recipe", recipe, meta.get("algo"))]
    named += [("--wrapper", wrappers, text) for text in around] if isinstance(around, list) else []
    missing = [
        (flag, text) for flag, own, text in named if own is None and isinstance(text, str) and NAME.fullmatch(text)
    ]
    if missing:
        here = [(flag, found if NAME.fullmatch(found := at_hand(text, files)) else text) for flag, text in missing]
        words = " ".join(f"{flag} {shlex.quote(text)}" for flag, text in here)
        raise UsageError(
            f"{run} was trained with {' and '.join(text for _, text in missing)}. "
            "Importing a module runs its code, so you must name it yourself:\n"
            f"policygrad {command} {shlex.quote(run)} {words}"
        )
