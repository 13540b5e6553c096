"""One thread: small matrices, two cores shared by the test workers, and the same bits every time. No waiting for disks.

Gymnasium's generators that nobody seeds are seeded here, for a test that fails with them has to fail again.
"""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.utils import seeding
from hypothesis import settings
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
THREADS = threadpool_limits(limits=1)

with suppress(ImportError):  # there is no numba
    from policygrad.compiled.cache import SAID

    SAID.update(("the updates", "the environments"))  # what tests read does not depend on what has been compiled before

settings.register_profile("fixed", derandomize=True, deadline=None)  # the same examples in every run
settings.register_profile("random", database=None, deadline=None)  # every night: pytest --hypothesis-seed=SEED
settings.load_profile(os.environ.get("POLICYGRAD_EXAMPLES", "fixed"))

# Nobody pulls the plug on a test. Those of what is flushed, and when, put a function of their own in its place.
os.fsync = lambda fd: None


@pytest.fixture(autouse=True)
def unseeded_is_seeded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space or an environment without a seed gets the next one of this test's, in its own process."""
    made, seeds = seeding.np_random, count(zlib.crc32(request.node.nodeid.encode()))
    monkeypatch.setattr(seeding, "np_random", lambda seed=None: made(next(seeds) if seed is None else seed))


@pytest.fixture(autouse=True)
def curves_are_drawn_once() -> None:
    """Drawing its learning curve takes longer than a tiny training: only the first training of a process does it here.

    All other callers of `plot_runs` draw, and so do the processes that a test starts.
    """
    plots: Any = sys.modules.get("policygrad.reports.plots")
    if plots is None or hasattr(plots.plot_runs, "drawn"):
        return
    plot_runs = plots.plot_runs

    def draw(runs: Any, out: Path, *args: Any, **keywords: Any) -> Path:
        if sys._getframe(1).f_globals["__name__"] != "policygrad.training.train":
            return plot_runs(runs, out, *args, **keywords)
        out.write_bytes(b"\x89PNG of a test")
        return out

    draw.drawn = plot_runs  # pyright: ignore[reportFunctionMemberAccess]
    plots.plot_runs = draw
