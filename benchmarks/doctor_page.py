"""Write the tables of docs/doctor.md: of the rules, and of the recorded lines of doctor.py and doctor_runs.py.

python benchmarks/doctor_page.py              # from benchmarks/doctor.json and benchmarks/doctor_runs.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policygrad.diagnosis import preflight, run
from policygrad.diagnosis.symptoms import SymptomRule
from policygrad.marks import between
from policygrad.training.probing import TASKS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "doctor.md"
END = "<!-- end -->"
LUNAR = {"LunarLanderContinuous-v3": "LunarLander-v3"}  # in one column
ENVS = ("Acrobot-v1", "LunarLander-v3", "Taxi-v4")
SET_ON = ("CartPole-v1", "Pendulum-v1")
CALM = ("short run", "not improving")  # what is true of a training that was made short

Line = dict[str, Any]


def rules(listed: Sequence[SymptomRule], stalls: bool = False) -> str:
    """What each calls a symptom. stalls: with a column that says whether it is looked for only in runs that stall."""
    heads = ["rule", "a symptom is", "certain", *(["only if the run"] if stalls else [])]
    rows = [f"| {' | '.join(heads)} |", "|---|---|---|" + "---|" * stalls]
    for rule in listed:
        text = rule.symptom.replace("e-0", "e-").replace("|", "\\|").replace("the report", "[the report](report.md)")
        cells = [rule.name, text, rule.sure]
        rows.append(f"| {' | '.join([*cells, 'stalls' * rule.stalls] if stalls else cells)} |")
    return "\n".join(rows)


def probes() -> str:
    """What each probe asks for."""
    rows = [f"| {asked.name} | {asked.answer} | {asked.broken} |" for asked in TASKS]
    return "\n".join(["| probe | asked | if it fails first |", "|---|---|---|", *rows])


def share(lines: Sequence[Line], counts: Callable[[Line], bool]) -> str:
    """`3 of 5`; a dash where there is none."""
    return f"{sum(map(counts, lines))} of {len(lines)}" if lines else "–"


def of_env(lines: Sequence[Line], env: str) -> list[Line]:
    """Those of an environment."""
    return [line for line in lines if LUNAR.get(line["env"], line["env"]) == env]


def found(line: Line) -> bool:
    """Whether the fault was found."""
    return bool(line["found"])


def environments(lines: Sequence[Line]) -> str:
    """The planted faults of environments that were found."""
    rows = [f"| planted fault | {' | '.join(ENVS)} |", "|---|" + "---|" * len(ENVS)]
    faults = [line for line in lines if line["fault"] != "healthy"]
    for name in dict.fromkeys(line["fault"] for line in faults):
        of = [line for line in faults if line["fault"] == name]
        rows.append(f"| {name} | {' | '.join(share(of_env(of, env), found) for env in ENVS)} |")
    rows.append(f"| **all** | {' | '.join(share(of_env(faults, env), found) for env in ENVS)} |")
    well = [line for line in lines if line["fault"] == "healthy"]
    rows.append(
        f"| **false alarms** | {' | '.join(share(of_env(well, env), lambda x: bool(x['spoke'])) for env in ENVS)} |"
    )
    return "\n".join(rows)


def runs(lines: Sequence[Line]) -> str:
    """The planted faults of trainings: found among those that did harm, and those that did none. Where the rules were set, all
    are counted.
    """
    faults = [line for line in lines if line["fault"] not in ("healthy", "reference", "twin")]
    heads = ["CartPole and Pendulum, where the rules were set", *ENVS, "did no harm"]
    rows = [f"| planted fault | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in [*dict.fromkeys(line["fault"] for line in faults), "**all**"]:
        of = [line for line in faults if name in (line["fault"], "**all**")]
        known, unseen = ([line for line in of if (line["env"] in SET_ON) == seen] for seen in (True, False))
        harmful = [line for line in unseen if line["harm"]]
        none = sum(line["harm"] is False for line in unseen)
        cells = [share(known, found), *(share(of_env(harmful, env), found) for env in ENVS), str(none or "–")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def healthy(lines: Sequence[Line]) -> str:
    """Runs of presets that the doctor warned of, the shortness that the measurement itself made aside."""
    rows = ["| recipe | steps of the preset | runs | warned of | by |", "|---|---|---|---|---|"]
    for kind, words in (("healthy", "a third"), ("reference", "fewer")):
        of_kind = [line for line in lines if line["fault"] == kind]
        for algo in dict.fromkeys(line["algo"] for line in of_kind):
            of = [line for line in of_kind if line["algo"] == algo]
            spoken = [[rule for rule in line["spoke"] if kind == "healthy" or rule not in CALM] for line in of]
            names = sorted({rule for rules in spoken for rule in rules})
            rows.append(f"| {algo} | {words} | {len(of)} | {sum(map(bool, spoken))} | {', '.join(names) or '–'} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    """The tables by their marks."""
    played = json.loads((HERE / "doctor.json").read_text("utf8"))
    trained = json.loads((HERE / "doctor_runs.json").read_text("utf8"))
    return {
        "rules of environments": rules(preflight.RULES),
        "rules of runs": rules(run.RULES, stalls=True),
        "probes": probes(),
        "environments": environments(played),
        "runs": runs(trained),
        "healthy": healthy(trained),
    }


def written(text: str) -> str:
    """The page with its tables as they are now."""
    for name, table in tables().items():
        start = f"<!-- {name}: from benchmarks/doctor_page.py -->"
        text = between(text, start, END, table)
    return text


def main() -> None:
    """Replace what stands between the marks."""
    PAGE.write_text(written(PAGE.read_text("utf8")), "utf8")


if __name__ == "__main__":
    main()
