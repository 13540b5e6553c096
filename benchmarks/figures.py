"""Write tables of docs/results.md and README.md from what learning.py (in benchmarks/results) and tabular.py recorded.

python benchmarks/figures.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from policygrad.algorithms.recipes import RECIPES
from policygrad.marks import between, markdown_table, with_tables
from policygrad.reports.aggregates import interval, iqm

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE.parent / "docs" / "results.md"
PAGES, SOURCE = (README, RESULTS), "benchmarks/figures.py"
UNSAID = "0.2.0"  # of results that do not say which version they are of
START, END = "<!-- learning: from benchmarks/figures.py -->", "<!-- end -->"
SHOWN = ("CartPole-v1", "LunarLander-v3", "LunarLanderContinuous-v3", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0")
SHOWN += ("MountainCarContinuous-v0", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")  # of README.md
MUJOCO = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")  # which others have published figures of


def table(results: list[dict[str, Any]]) -> str:
    """One row a result, every seed listed."""
    rows = [
        "| environment | recipe | steps | greedy, seed by seed | IQM | 95 % interval | mean | lowest | version |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        backend = ["--backend envpool"] if r.get("backend") == "envpool" else []  # other ones give the same environment
        recipe = " ".join([r["algo"], *(f"--{item.replace('=', ' ')}" for item in r["set"]), *backend])
        scores = [s["greedy"] for s in r["seeds"]]
        middle, ends = float(iqm([np.array(scores)])), interval(iqm, [np.array(scores)])
        steps = max(s["steps"] for s in r["seeds"])
        digits = 1 if max(map(abs, scores)) >= 10 else 2
        listed, center, span, average, lowest = (
            ", ".join(f"{x:.{digits}f}" for x in numbers)
            for numbers in (scores, [middle], ends, [mean(scores)], [min(scores)])
        )
        version = r.get("versions", {}).get("policygrad", UNSAID)
        cells = [
            r["env"],
            f"`{recipe}`",
            f"{steps:,}",
            listed,
            f"**{center}**",
            f"[{span}]" if ends[0] < ends[1] else "–",
            average,
            lowest,
            version,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def scores(results: list[dict[str, Any]], env: str, algo: str) -> list[dict[str, Any]]:
    """The seeds of a preset, with its own backend."""
    found = [
        r["seeds"]
        for r in results
        if (r["env"], r["algo"], r["set"]) == (env, algo, []) and r.get("backend") != "envpool"
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} results of {algo} on {env}")
    return found[0]


def rounded(x: float) -> str:
    """Three digits, or all of the whole number."""
    return (f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}").replace("-", "−")


def of_ppo(results: list[dict[str, Any]]) -> str:
    """What PPO learned with its presets."""
    rows = []
    for env in SHOWN:
        seeds = scores(results, env, "ppo")
        steps, greedy = float(f"{max(s['steps'] for s in seeds):.1g}"), [s["greedy"] for s in seeds]
        rows.append([env, f"{steps:,.0f}", str(len(seeds)), rounded(mean(greedy)), rounded(min(greedy))])
    return markdown_table(["environment", "steps", "seeds", "mean", "lowest seed"], rows)


def sources(published: dict[str, dict[str, Any]]) -> str:
    """How others measured what they published."""
    rows = [
        [each["about"], f"`{each['environments']}`", str(each["seeds"]), each["policy"]] for each in published.values()
    ]
    return markdown_table(["source", "environments", "seeds", "policy"], rows, "---")


def beside(results: list[dict[str, Any]], published: dict[str, dict[str, Any]]) -> str:
    """IQMs on MuJoCo's environments beside what others published."""
    rows = []
    for env in MUJOCO:
        for algo in ("ppo", "trpo", "npg"):
            ours = float(iqm([np.array([s["greedy"] for s in scores(results, env, algo)])]))
            theirs = [each[env.partition("-")[0]].get(algo) for each in published.values()]
            rows.append([env, f"`{algo}`", f"**{ours:,.0f}**", *("–" if x is None else f"{x:,}" for x in theirs)])
    return markdown_table(["environment", "recipe", "policygrad", *published], rows)


def of_tables(found: dict[str, Any]) -> str:
    """Expected greedy returns of tabular policies, divided by the best policy's."""
    envs = {name: kept for name, kept in found.items() if name != "version"}
    rows = []
    for algo in (algo for algo in RECIPES if any(algo in kept["greedy"] for kept in envs.values())):
        shares = [[x / kept["optimum"] for _, x in sorted(kept["greedy"][algo].items())] for kept in envs.values()]
        rows.append([f"`{algo}`", *(", ".join(f"{x:.3f}" for x in each) for each in shares)])
    return markdown_table(["recipe", *(f"{name} ({kept['optimum']})" for name, kept in envs.items())], rows, "---")


def written(page: Path) -> str:
    """A page with its tables as they are now."""
    results = [json.loads(place.read_text("utf8")) for place in sorted((HERE / "results").glob("*.json"))]
    text = page.read_text("utf8")
    if page == README:
        return with_tables(text, {"results": of_ppo(results)}, SOURCE)
    published = json.loads((HERE / "published.json").read_text("utf8"))
    tables = json.loads((HERE / "tabular.json").read_text("utf8"))
    made = {"sources": sources(published), "published": beside(results, published), "tabular": of_tables(tables)}
    return with_tables(between(text, START, END, table(results)), made, SOURCE)


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(written(each), "utf8")
