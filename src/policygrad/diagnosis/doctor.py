"""`policygrad.doctor`: of an environment, before training; of a run, afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.diagnosis.run import examine_run
from policygrad.stored.directory import RunDirectory, RunError, find_run

if TYPE_CHECKING:
    from policygrad.diagnosis.symptoms import Diagnosis
    from policygrad.envs.single import EnvLike, Wrapper

STEPS = 20_000  # of random play, unless given


def doctor(
    what: RunDirectory | EnvLike | Path = "latest",
    algo: str | None = None,
    *,
    steps: int = STEPS,
    seed: int = 0,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
) -> Diagnosis:
    """What is wrong with an environment, or with a run that does not learn: `print(doctor("CartPole-v1"))`.

    what: an environment (id, callable, or a single one), or a run (what `train` returned, a directory, a name, "latest").
    algo: whose preset says γ and whether observations are normalised; γ and normalisation of ppo unless given. steps: of random
    play at most, at least 100; it also ends after 300 episodes. seed: of that play. env_kwargs, wrappers: as for an Agent. All
    but `what` are for environments; of a run the files are read, and nothing is played.
    Raises RunError for what is neither an environment nor a run, ValueError for steps that are too few.
    """
    run = run_of(what)
    if run is not None:
        if algo is not None or env_kwargs or wrappers:
            raise ValueError("algo, env_kwargs and wrappers are for environments, and this is a run: leave them out")
        return examine_run(run)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 100:
        raise ValueError(f"steps must be a whole number of at least 100, got {steps!r}")
    from policygrad.diagnosis.environment import examine_environment

    return examine_environment(what, algo, steps, seed, env_kwargs, wrappers)  # pyright: ignore[reportArgumentType]


def run_of(what: object, root: str | Path = "runs") -> RunDirectory | None:
    """The run that is meant, or None where an environment is. A directory without a config.json is no run.

    Raises RunError for a text that is neither.
    """
    if isinstance(what, RunDirectory):
        return what
    if not isinstance(what, str | Path):
        return None
    text = str(what)
    path = Path(os.path.expanduser(text))
    if path.suffix == ".safetensors" and path.is_file():
        path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if (path / "config.json").is_file():
        return RunDirectory(path)
    if text == "latest":
        return RunDirectory(find_run(text, root))
    if path.suffix == ".py" or ":" in text:
        return None
    from policygrad.envs.single import check_env_id

    try:
        check_env_id(text)
    except ValueError as error:
        try:
            run = RunDirectory(find_run(text, root))
        except RunError:
            raise RunError(f"{text!r} is neither a run nor an environment: {error}") from None
        if run.config_file.exists():
            return run
        raise RunError(f"{run.path} is not a run directory: it has no config.json") from None
    return None
