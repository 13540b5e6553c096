"""`--nproc N`: a command as N processes that train one run together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policygrad.cli.values import UsageError

if TYPE_CHECKING:
    from policygrad.training.ranks import Ranks


def several(nproc: int, words: Sequence[str], seeds: Sequence[int] = (0,)) -> Ranks | None:
    """The ranks of which this process is one, where torchrun has started it, or `--nproc` in another process. Where this one is
    to start them it does, and raises SystemExit with their exit code when they have ended. None: it trains alone.

    words: the command and what follows it. seeds: the seeds to train.
    """
    started = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    if nproc == 1 and not started:
        return None
    from policygrad.training.ranks import STORE, data_parallel

    if len(seeds) > 1:
        raise UsageError(
            f"several processes train one run together, and there are {len(seeds)} seeds: give one seed, or --jobs in place of "
            "--nproc to train the seeds at the same time"
        )
    if not started and os.name == "nt":
        raise UsageError(
            "--nproc starts processes as Linux and macOS do: train in one process, or start them with torchrun"
        )
    if not started:
        from policygrad.training.launching import launch

        raise SystemExit(launch(words, nproc))
    ranks = data_parallel()
    if nproc not in (1, ranks.size) or (nproc > 1 and STORE not in os.environ):
        raise UsageError(
            "torchrun has started the processes, so leave out --nproc: it says how many with --nproc-per-node"
        )
    return ranks


def refuse_more(nproc: int, num_envs: int) -> None:
    """Raises UsageError where there are more processes than environments, before any is started."""
    if num_envs < nproc:
        raise UsageError(f"--nproc {nproc} needs as many environments, and num_envs = {num_envs}: give a larger one.")
