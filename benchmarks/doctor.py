"""How many planted faults the doctor finds, and how often it warns of what is healthy.

    python benchmarks/doctor.py                          # everything: about an hour
    python benchmarks/doctor.py --envs CartPole-v1 --seeds 1

Trainings have a script of their own, doctor_runs.py.

The rules were set on CartPole and Pendulum; Acrobot, LunarLander and Taxi are for measuring. A fault counts as found if one
of the rules that tests/doctor/faults.py names for it speaks; a false alarm is any symptom of a healthy case.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from policygrad.diagnosis.environment import examine_environment
from policygrad.diagnosis.symptoms import Diagnosis
from policygrad.envs.single import make_one

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "doctor"))
from faults import ALL, ENV_FAULTS  # pyright: ignore[reportMissingImports]

HELD_OUT = ("Acrobot-v1", "LunarLander-v3", "Taxi-v4")


def made(env_id: str, wrap: Callable[..., Any] | None) -> Any:
    """A healthy environment, or one with a fault."""
    env = make_one(env_id)
    return env if wrap is None else wrap(env)


def environments(envs: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    """The rows of the matrix for environments."""
    for env in envs:
        for seed in range(seeds):
            yield row("healthy", env, seed, (), examine_environment(partial(made, env, None), seed=seed))
            for fault in ENV_FAULTS:
                if env in fault.envs:
                    found = examine_environment(partial(made, env, fault.wrap), seed=seed)
                    yield row(fault.name, env, seed, fault.rules, found)


def row(fault: str, env: str, seed: int, rules: tuple[str, ...], found: Diagnosis) -> dict[str, Any]:
    """One line of the matrix."""
    spoke = [symptom.rule for symptom in found]
    return {
        "fault": fault,
        "env": env,
        "seed": seed,
        "found": bool(set(spoke) & set(rules)),
        "sure": any(symptom.sure for symptom in found if symptom.rule in rules or not rules),
        "spoke": spoke,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Shares of faults found and of false alarms, a line per fault."""
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        of = [row for row in rows if row["fault"] == fault]
        if fault == "healthy":
            count = sum(bool(row["spoke"]) for row in of)
            which = sorted({f"{row['env']}: {name}" for row in of for name in row["spoke"]})
            lines.append(f"{'false alarms':<50}{count} of {len(of)}  {'; '.join(which)}")
        else:
            missed = sorted({row["env"] for row in of if not row["found"]})
            count = sum(row["found"] for row in of)
            lines.append(
                f"{fault:<50}{count} of {len(of)}  {'missed on ' + ', '.join(missed) if missed else ''}".rstrip()
            )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=list(HELD_OUT), choices=["CartPole-v1", "Pendulum-v1", *ALL])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the rows, as JSON")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for line in environments(given.envs, given.seeds):
        rows.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)
    print(table(rows))
    if given.out is not None:
        given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
