"""Write the tables of docs/performance.md from speed.json, commands.json and solve.json, as many as there are.

python benchmarks/performance.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from configurations import CONFIGS, Config
from solve import middle
from throughput import summary

from policygrad.marks import with_tables

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
NAMES = {
    "machine": "the machine",
    "policygrad": "policygrad",
    "sb3": "SB3",
    "sb3-workers": "SB3, environments in processes",
    "sbx": "SBX",
    "torchrl": "TorchRL",
    "cleanrl": "CleanRL",
    "purejaxrl": "PureJaxRL",
    "rltools": "RLtools",
}


def about(config: Config) -> str:
    """A configuration in words."""
    env = {"frames:Frames-v0": "on pictures of 84 × 84 × 4"}.get(config.env, config.env)
    words, name = config.keywords, f"{config.algo.upper()} {env}"
    if "train_freq" in words:
        every = "a step" if words["train_freq"] == 1 else f"{words['train_freq']} steps"
        count = "a minibatch" if words["gradient_steps"] == 1 else f"{words['gradient_steps']} minibatches"
        text = f"{name}, {every}, then {count} of {words['batch_size']}"
    else:
        text = f"{name}, {config.num_envs} × {words['n_steps']}"
        text += f", minibatch {words['batch_size']}" if "batch_size" in words else ""
        text += f", {words['n_epochs']} epochs" if "n_epochs" in words else ""
    text += "" if not config.hidden else f", {' × '.join(map(str, config.hidden))}"
    own = {
        "compiled": "our compiled environments",
        "split": "Gymnasium's environments, ours on both cores",
        "envpool": "EnvPool's environments for us",
    }
    text += f"; {own[config.backend]}" if config.backend in own else ""
    text += "; one network for policy and values" if config.own.get("shared_body") else ""
    return text + ("; with metrics" if config.metrics else "")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def spread(s: dict[str, float]) -> str:
    """A ratio with the lowest and the highest."""
    return f"**{s['ratio']:.2f}** [{s['min']:.2f}, {s['max']:.2f}]"


def speed(report: dict[str, Any]) -> list[str]:
    """One row for each configuration and library, in the order of CONFIGS, and the versions."""
    rows, used = [], {}
    for name in [name for name in CONFIGS if name in report]:
        pairs = report[name]["pairs"]
        for side in [side for side in pairs[0] if side != "policygrad"]:
            t, whole = (summary(pairs, side, clock) for clock in ("training", "process"))
            speeds = (f"{t['theirs']:,.0f}", f"{t['ours']:,.0f}")
            rows.append((about(CONFIGS[name]), NAMES[side], *speeds, spread(t), spread(whole)))
        for side, found in report[name]["versions"].items():
            said = ", ".join(f"{k} {v}" for k, v in found.items())
            used.setdefault(side, {})[said] = None
    heads = ("configuration", "against", "its steps/s", "policygrad's", "ratio [lowest, highest]", "whole process")
    versions = [(NAMES[side], "; ".join(used[side])) for side in NAMES if side in used]
    return [*table(heads, rows), "", *table(("measured with", "versions"), versions)]


def commands(report: dict[str, Any]) -> list[str]:
    """One row for each command and version."""
    rows = [
        (f"`policygrad {command}`", version, f"{median(times):.2f} s", ", ".join(f"{t:.2f}" for t in times))
        for command, by_version in report["commands"].items()
        for version, times in by_version.items()
    ]
    return table(("command", "version", "median", "measurements"), rows)


def solve(report: dict[str, Any]) -> list[str]:
    """One row for each environment and library, every seed listed."""
    rows = []
    for env, sides in report["runs"].items():
        for side, runs in sides.items():
            steps = [run["evaluations"][-1][0] for run in runs if run["seconds"] is not None]
            listed = ", ".join("–" if run["seconds"] is None else f"{run['seconds']:.1f}" for run in runs)
            reached = f"{median(steps):,.0f}" if steps else "–"
            rows.append((env, NAMES[side], f"**{middle(runs):.1f} s**", listed, reached))
    return table(("environment", "library", "median", "seconds, seed by seed", "median steps"), rows)


WRITERS: dict[str, Callable[[dict[str, Any]], list[str]]] = {"speed": speed, "commands": commands, "solve": solve}


def written(text: str, folder: Path) -> str:
    """The page with each table between its two marks, of those that there is a file for."""
    files = {name: folder / f"{name}.json" for name in WRITERS}
    made = {name: "\n".join(WRITERS[name](json.loads(x.read_text()))) for name, x in files.items() if x.exists()}
    return with_tables(text, made, "benchmarks/performance.py")


def main() -> None:
    """Write them."""
    PAGE.write_text(written(PAGE.read_text("utf8"), HERE), "utf8")


if __name__ == "__main__":
    main()
