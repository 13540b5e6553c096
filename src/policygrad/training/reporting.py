"""The report of a run, with the eigenvalues of its policy if they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.algorithms.config import Algo, ConfigError, check
from policygrad.reports.report import Report, read_report
from policygrad.stored.directory import RunDirectory, find_run, named

if TYPE_CHECKING:
    from policygrad.envs.single import EnvLike, Wrapper


def report(
    run: RunDirectory | str | Path = "latest",
    eigenvalues: int = 0,
    recipe: Algo | None = None,
    env: EnvLike | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
) -> Report:
    """The report of a run: `print(report("latest"))`, or `report("latest")` in a notebook.

    run: what `train` returned, a run directory, or a run's name as on the command line. eigenvalues: how many of the largest
    of its policy's Fisher matrix are found as well, on a fresh batch, 100 at most; 0 plays nothing and needs no torch.
    recipe, env, env_kwargs, wrappers: for eigenvalues, where the run's are not in the package, as for `load`.
    Raises RunError for what is no run, or has no row of metrics yet, ConfigError for eigenvalues that are no such number.
    """
    eigenvalues = checked_eigenvalues(eigenvalues)
    run = run if isinstance(run, RunDirectory) else RunDirectory(find_run(named(run)))
    made = read_report(run)
    if eigenvalues:
        from policygrad.training.loading import load
        from policygrad.training.spectrum import spectrum

        agent = load(run.model_file(), env, recipe=recipe, env_kwargs=env_kwargs, wrappers=wrappers, device="cpu")
        made.add(spectrum(agent, eigenvalues))
    return made


def checked_eigenvalues(count: int) -> int:
    """The number of eigenvalues, 0 to 100 as for an Agent's rows. Raises ConfigError."""
    try:
        return int(check("fisher_eigenvalues", int, count))
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("fisher_")) from None
