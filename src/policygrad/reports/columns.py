"""Rows of metrics as columns, and numbers as text. Each row measures an update, see `policygrad.updates.diagnostics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from policygrad.algorithms.recipe import RecipeSpec
from policygrad.algorithms.recipes import RECIPES
from policygrad.forms import LARGEST
from policygrad.models.schedules import linear, read_schedule

MEASURES = ("kl", "td_error")  # a row with one of them measures an update
NEIGHBOURS = 5  # rows whose median says that something lasts


class Updates:
    """The measured updates of a run, as columns: `updates["kl"]` is an array (R,), NaN where a row has no such number."""

    def __init__(
        self, algo: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], spec: RecipeSpec | None = None
    ) -> None:
        """spec: what the algorithm's recipe says of it; of one of the package it is known."""
        self.algo, self.config = algo, config
        self.spec = spec or (RECIPES[algo].spec if algo in RECIPES else RecipeSpec())
        self.rows = [row for row in rows if any(math.isfinite(as_number(row.get(name))) for name in MEASURES)]
        self.columns: dict[str, np.ndarray] = {}
        self.steps = self["steps"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            self.columns[name] = np.array([as_number(row.get(name)) for row in self.rows], float)
            self.columns[name].flags.writeable = False
        return self.columns[name]

    def has(self, *names: str) -> bool:
        """Whether there are numbers with all these names."""
        return all(np.isfinite(self[name]).any() for name in names)

    def setting(self, name: str) -> float | None:
        """A hyperparameter that is a number, or None."""
        value = as_number(self.config.get(name))
        return value if math.isfinite(value) else None

    def batch(self) -> int | None:
        """The number of steps per update, if rollouts have a fixed number."""
        envs, steps = self.setting("num_envs"), self.spec.num_steps or self.setting("num_steps")
        return int(envs * steps) if envs and steps else None

    def measured(self) -> str:
        """The number of measured updates, as text; empty if all were measured or if the settings do not tell."""
        batch = self.batch()
        every = (self.steps[-1] - self.steps[0]) / max(len(self) - 1, 1) / (batch or math.inf)
        return f"about 1 in {every:,.0f}" if every >= 1.5 else ""

    def bound(self) -> tuple[str, np.ndarray] | None:
        """The limit of KL(old ‖ new): its name, and its value at every row (R,); None if there is none."""
        name, free = self.spec.kl_limit, self.spec.kl_free_with
        schedule = None if name is None else read_schedule(self.config.get(name))
        value = None if name is None else self.setting(name) if schedule is None else schedule.start
        if name is None or value is None or (free is not None and self.setting(free) is not None):
            return None
        if schedule is None and name == "max_kl" and self.config.get("kl_schedule") == "linear":
            schedule = linear(value)
        if schedule is None:
            return name, np.full(len(self), value)
        started = self.steps - (self.batch() or 0)  # a schedule sees the steps before the batch, at least these
        progress = np.clip(started / (self.setting("steps") or math.inf), 0.0, 1.0)
        return name, np.array([schedule(x) for x in progress])


def lasting(x: np.ndarray) -> np.ndarray:
    """The median of every row and its neighbours (R,), which ignores single outliers. NaN where there are no numbers."""
    half = NEIGHBOURS // 2
    near = sliding_window_view(np.pad(x, half, constant_values=np.nan), NEIGHBOURS)
    near = np.sort(near, axis=1)  # NaNs are last
    count, row = np.isfinite(near).sum(1), np.arange(len(x))
    return (near[row, np.maximum(count - 1, 0) // 2] + near[row, count // 2]) / 2.0


def ends(x: np.ndarray) -> tuple[float, float]:
    """The medians of the first and of the last fifth of the numbers."""
    x = x[np.isfinite(x)]
    fifth = max(len(x) // 5, 1)
    return float(np.median(x[:fifth])), float(np.median(x[-fifth:]))


def middle(x: np.ndarray) -> float | None:
    """The median of the numbers that are not NaN."""
    return float(np.nanmedian(x)) if np.isfinite(x).any() else None


def spread(x: np.ndarray) -> dict[str, float] | None:
    """The median and the quartiles of the numbers that are not NaN."""
    if not np.isfinite(x).any():
        return None
    low, median, high = np.nanquantile(x, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "quartile_1": low, "quartile_3": high}


def spread_text(x: np.ndarray) -> str:
    """The median and the quartiles as text."""
    s = spread(x)
    if s is None:
        return "is undefined in every row"
    return f"median {num(s['median'])} (quartiles {num(s['quartile_1'])} to {num(s['quartile_3'])})"


def stretches(steps: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    """The stretches where the mask holds: their first and last steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [[int(steps[a]), int(steps[b - 1])] for a, b in zip(edges[::2], edges[1::2], strict=True)]


def when(steps: np.ndarray, mask: np.ndarray) -> str:
    """The steps where the mask holds, as text: `at 41k and 55k to 61k steps`, `from 80k steps on`."""
    found = stretches(steps, mask)
    if len(found) == 1 and found[0][1] == steps[-1] and found[0][0] < steps[-1]:
        return "throughout" if found[0][0] == steps[0] else f"from {steps_text(found[0][0])} steps on"
    parts = [steps_text(a) if a == b else f"{steps_text(a)} to {steps_text(b)}" for a, b in found]
    if len(parts) > 4:
        return f"at {', '.join(parts[:3])} steps and {len(parts) - 3} times more"
    return f"at {' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))} steps"


def steps_text(steps: float) -> str:
    """Steps to three digits: 512, 41.2k, 1.05M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{float(f'{steps / size:.3g}'):g}{unit}"
    return f"{steps:g}"


def num(x: float) -> str:
    """A number with three digits, or whole if it is large, with a real minus."""
    text = f"{x:,.0f}" if 1e3 <= abs(x) < 1e9 else f"{x:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def percent(x: float) -> str:
    """A share in per cent; above 1000 % it is rounded."""
    return f"{num(100 * x)} %" if x <= 10.0 else "over 1,000 %"


def title(algo: str) -> str:
    """The name of an algorithm as in papers, such as PPO-KL. A recipe from outside the package keeps its function's name."""
    if ":" in algo:
        return algo.rpartition(":")[2]
    return algo.upper().replace("_", "-")


def as_number(x: Any) -> float:
    """A number as a float; NaN for anything else, and for numbers whose squares are not finite."""
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= LARGEST else math.nan
