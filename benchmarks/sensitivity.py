"""How sensitive PPO and A2C are to lr, the entropy bonus and γ: the sweeps of docs/sweep.md.

    python benchmarks/sensitivity.py ppo CartPole-v1                  # 27 settings × 3 seeds, 50,000 steps each
    python benchmarks/sensitivity.py ppo LunarLander-v3               # the same, 300,000 steps each: half an hour
    python benchmarks/sensitivity.py ppo CartPole-v1 --docs           # and the picture and the text of docs/sweep.md

Runs that are there are used again, so that the same command goes on after a kill. The settings were chosen before any of them
was trained: each hyperparameter at three values around those that are usual.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import policygrad as pg

ROOT = Path(__file__).parents[1]
PAGE, IMAGES = ROOT / "docs" / "sweep.md", ROOT / "docs" / "images"
OVER = ["lr=1e-4..1e-2:log", "ent_coef=0,0.01,0.1", "gamma=0.9,0.99,0.999"]
STEPS = {"CartPole-v1": 50_000, "LunarLander-v3": 300_000}
BEGIN, END = "<!-- {name}: begin -->\n", "<!-- {name}: end -->"


def picture(algo: str, env: str) -> Path:
    """Where the picture of a sweep is."""
    return IMAGES / f"sweep-{algo}-{env.partition('-')[0].lower()}.png"


def write(algo: str, env: str, found: pg.SweepResult) -> None:
    """The picture, and the text of the page between its marks, where the page has some for this sweep."""
    picture(algo, env).write_bytes((Path(str(found.place)) / "sweep.png").read_bytes())
    text = PAGE.read_text("utf8")
    begin, end = (mark.format(name=f"{algo} on {env}") for mark in (BEGIN, END))
    if begin not in text:
        return
    head, _, rest = text.partition(begin)
    said = "\n".join("    " + line if line else "" for line in str(found).splitlines())
    PAGE.write_text(f"{head}{begin}\n{said}\n\n{end}{rest.partition(end)[2]}", "utf8")


def main() -> None:
    """Run a sweep, print it, and with --docs write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo")
    parser.add_argument("env", choices=list(STEPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--runs-root", default="runs")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    how = {"points": 3, "seeds": given.seeds, "jobs": given.jobs, "root": given.runs_root}
    found = pg.sweep(given.algo, given.env, OVER, steps=STEPS[given.env], **how)
    print(found)
    print(found.place)
    if given.docs:
        write(given.algo, given.env, found)


if __name__ == "__main__":
    main()
