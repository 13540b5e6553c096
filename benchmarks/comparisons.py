"""Write the tables of docs/compare.md from the compare.json of comparisons, which are in benchmarks/comparisons/.

python benchmarks/comparisons.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policygrad.marks import markdown_table, with_tables

ROOT = Path(__file__).parents[1]
PAGE, SOURCE = ROOT / "docs" / "compare.md", "benchmarks/comparisons.py"
PAGES = (PAGE,)
HEAD = ["IQM", "interval", "lowest", "steps to 200"]
ENVS = {"lunarlander": "LunarLander-v3", "pendulum": "Pendulum-v1", "acrobot": "Acrobot-v1"}


def environment(name: str, env: str) -> dict[str, Any]:
    """What a comparison says of an environment."""
    text = (ROOT / "benchmarks" / "comparisons" / f"{name}.json").read_text("utf8")
    return json.loads(text)["environments"][env]


def numbers(side: dict[str, Any]) -> list[str]:
    """IQM, interval, lowest score and median steps to the threshold of a side."""
    low, high = side["iqm"]["interval"]
    steps = (side.get("to_threshold") or {}).get("median_steps")
    shown = [f"{side['iqm']['value']:.1f}", f"{low:.1f} to {high:.1f}", f"{side['worst']:.1f}"]
    return [*(text.replace("-", "−") for text in shown), f"{round(steps, -3):,.0f}" if steps else "–"]


def five() -> str:
    """The five algorithms on LunarLander."""
    sides = environment("five", "LunarLander-v3")["summary"]
    ranked = sorted(sides, key=lambda side: -sides[side]["iqm"]["value"])
    return markdown_table(["LunarLander-v3", *HEAD], [[f"`{side}`", *numbers(sides[side])] for side in ranked])


def against() -> str:
    """PPO beside Stable-Baselines3's on three environments, and the probability that one run beats one of the other side."""
    rows = []
    for name, env in ENVS.items():
        found = environment(f"sb3-{name}", env)
        ours, theirs = (numbers(side)[:3] for side in found["summary"].values())
        pair = found["pairs"][0]
        verdict = {"ppo": "`ppo` is better", None: "cannot tell"}.get(pair["verdict"], "Stable-Baselines3 is better")
        rows += [[env, "`ppo`", *ours, verdict, f"{pair['improvement']:.2f}"]]
        rows += [["", "Stable-Baselines3", *theirs, "", ""]]
    return markdown_table(["environment", "side", *HEAD[:3], "verdict", "P(improvement)"], rows)


def written(page: Path) -> str:
    """The page with its tables as they were recorded."""
    made = {"five": five(), "against Stable-Baselines3": against()}
    return with_tables(page.read_text("utf8"), made, SOURCE)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE), "utf8")
