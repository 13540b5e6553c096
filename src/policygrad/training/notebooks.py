"""What notebooks show of an agent and of a history, as HTML."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.config import ConfigError, preset_name, resolve, show
from policygrad.html import grid_html, picture_html, table_html
from policygrad.reports.columns import num, title

if TYPE_CHECKING:
    from policygrad.training.callbacks import History


def agent_html(agent: Any) -> str:
    """Algorithm, environment, seed, steps done, preset, and the hyperparameters that are not what the preset says."""
    usual, otherwise = _usual(agent), "other than in the preset" if agent.tuned else "other than by default"
    given = {name: x for name, x in agent.config.items() if name not in usual or usual[name] != x}
    rows = {
        "seed": agent.seed,
        "steps done": f"{agent.collector.steps_done:,}",
        "episodes done": f"{agent.collector.episodes_done:,}",
        "preset": _preset(agent),
        otherwise: ", ".join(f"{name} = {show(x)}" for name, x in given.items()) or "nothing",
    }
    return table_html(f"{title(agent.algo)} on {agent.name or agent.env_name}", rows)


def _usual(agent: Any) -> dict[str, Any]:
    """The configuration without keywords; empty where there is none, as of a preset file that is gone."""
    tuned_for, preset = agent._preset
    try:
        return resolve(agent.recipe, tuned_for, {}, preset)[0]
    except (ConfigError, OSError):
        return {}


def _preset(agent: Any) -> str:
    tuned_for, preset = agent._preset
    if not agent.tuned:
        return "none"
    if preset is None:
        return f"{preset_name(agent.recipe, tuned_for)}, tuned"
    return str(preset) if isinstance(preset, str) else "given as a mapping"


def history_html(history: History) -> str:
    """The learning curve, and a table of the last row of metrics."""
    if history.agent is None or not history.rows:
        return table_html("History", {"rows": "none yet: pass it to agent.learn(steps, history)"})
    name = f"{title(history.agent.algo)} on {history.agent.name or history.agent.env_name}"
    picture = picture_html(history.plot()._repr_png_(), f"learning curve of {name}")
    rows = [(column, _number(x)) for column, x in history.rows[-1].items()]
    about = f"the last row of {len(history.rows):,}, after {len(history.returns):,} episodes"
    return picture + grid_html(about, ["column", "value"], rows, numbers=True)


def _number(x: Any) -> str:
    if not isinstance(x, int | float) or not math.isfinite(x):
        return "–"
    return f"{x:,}" if isinstance(x, int) else num(x)
