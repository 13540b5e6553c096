"""Odd JSON, and what is none, in the files of a run and as tables of an MDP."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policygrad.stored.directory import RunDirectory

CONFIG: dict[str, Any] = {
    "algo": "ppo",
    "env": "CartPole-v1",
    "seed": 0,
    "config": {"steps": 8000, "num_envs": 8, "num_steps": 10, "lr": 1e-3, "epochs": 4},
    "reward_threshold": 475.0,
}
ROW = {
    **{"steps": 80, "episodes": 4, "return_mean": 20.0, "length_mean": 20.0, "seconds": 0.1, "steps_per_second": 800.0},
    **{"kl": 0.01, "kl_quadratic": 0.009, "kl_k1": 0.01, "kl_k2": 0.01, "kl_k3": 0.01, "gain": 0.1},
    **{"predicted_gain": 0.1, "step_norm": 0.1, "policy_step": 0.1, "clip_fraction": 0.1, "accepted": 1.0, "beta": 1.0},
    **{
        "meter_groups": 9,
        "signal": 1.0,
        "noise": 2.0,
        "snr": 0.5,
        "noise_scale": 10.0,
        "fisher_1": 3.0,
        "cg_residual": 0.1,
    },
    **{"cg_iterations": 10, "cg_curvature": 0.1, "epochs": 4, "meter_seconds": 0.01},
}
EVALUATION: dict[str, Any] = {"greedy": {"mean": 20.0, "ci95": [18.0, 22.0], "std": 1.0, "returns": [20.0]}}
ODD: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a table": {"a": 1},
    "true": True,
    "a text": "x",
    "an empty text": "",
    "-1": -1,
    "1e308": 1e308,
    "2^63": 2**63,
    "400 digits": 10**400,
    "mathtext": "$\\frac{",
    "dollars": "a$b$c_{",
    "escapes": "\x1b]0;x\x07\x1b[2J",
    "200,000 letters": "x" * 200_000,
    "a list of lists": [[[]]],
}
MDP = {
    "transition": [[[0.5, 0.5], [1, 0]], [[0, 1], [0.5, 0.5]]],
    "reward": [[1, 0], [0, 2]],
    "start": [1, 0],
    "horizon": 3,
}


def a_run(path: Path) -> RunDirectory:
    """A whole run, made anew."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    run = RunDirectory(path)
    run.write_config(CONFIG)
    run.metrics_file.write_bytes(rows())
    run.write_evaluation(EVALUATION)
    run.monitor_file.write_text("#{}\nr,l,t\n" + "20.0,20,1.0\n" * 100)
    return run


def rows(count: int = 20, **change: Any) -> bytes:
    """Rows of metrics; change: what is other in the tenth."""
    made = [ROW | {"steps": 80 * (i + 1), "episodes": 4 * (i + 1)} | (change if i == 9 else {}) for i in range(count)]
    return "".join(json.dumps(row) + "\n" for row in made).encode()


def runs() -> dict[str, tuple[str, bytes]]:
    """Cases by name: a file of the run, and what is in it."""
    made: dict[str, tuple[str, bytes]] = {}
    for key in ("algo", "env", "seed", "config", "reward_threshold", "recipe"):
        for what, value in ODD.items():
            made[f"{key} {what}"] = "config.json", json.dumps(CONFIG | {key: value}).encode()
    for key in ("steps", "num_envs", "lr"):
        for what, value in ODD.items():
            config = CONFIG["config"] | {key: value}
            made[f"setting {key} {what}"] = "config.json", json.dumps(CONFIG | {"config": config}).encode()
    for key in (
        "steps",
        "return_mean",
        "kl",
        "gain",
        "accepted",
        "meter_groups",
        "signal",
        "snr",
        "fisher_1",
        "episodes",
    ):
        for what, value in ODD.items():
            made[f"row's {key} {what}"] = "metrics.jsonl", rows(**{key: value})
    for key in ("mean", "ci95"):
        for what, value in ODD.items():
            greedy = {"greedy": EVALUATION["greedy"] | {key: value}}
            made[f"evaluation's {key} {what}"] = "evaluation.json", json.dumps(greedy).encode()
    for what, value in ODD.items():
        made[f"evaluation {what}"] = "evaluation.json", json.dumps(value).encode()
        made[f"greedy {what}"] = "evaluation.json", json.dumps({"greedy": value}).encode()
        made[f"configuration {what}"] = "config.json", json.dumps(value).encode()
    for file in ("config.json", "evaluation.json", "metrics.jsonl", "monitor.csv"):
        for what, content in broken().items():
            made[f"{file} {what}"] = file, content
    spec = {"kl_limit": "$\x1b", "shorter": "x" * 10**5, "aliases": {"a": 1}, "evil": "y"}
    for key, value in spec.items():
        made[f"recipe's {key}"] = "config.json", json.dumps(CONFIG | {"recipe": {key: value}}).encode()
    made["row of 10,000 numbers"] = "metrics.jsonl", rows(**{f"x{i}": i for i in range(10_000)})
    made["fisher_ of 5,000 digits"] = "metrics.jsonl", rows(20, **{f"fisher_{'9' * 5_000}": 1.0})
    made["no fisher_1"] = "metrics.jsonl", rows().replace(b"fisher_1", b"fisher_7")
    made["ci95 of three"] = "evaluation.json", json.dumps({"greedy": {"mean": 1, "ci95": [1, 2, 3]}}).encode()
    made["ci95 upside down"] = "evaluation.json", json.dumps({"greedy": {"mean": 1, "ci95": [2, 0]}}).encode()
    made["no ci95"] = "evaluation.json", b'{"greedy": {"mean": 1}}'
    made["steps that fall"] = "metrics.jsonl", rows(steps=5)
    made["one row"] = "metrics.jsonl", rows(1)
    made["steps of 0"] = "metrics.jsonl", json.dumps(ROW | {"steps": 0}).encode() + b"\n"
    made["returns of 1e308"] = "monitor.csv", b"#{}\nr,l,t\n" + b"1e308,1,1\n-1e308,1,1\n" * 50
    return made


def broken() -> dict[str, bytes]:
    """What is no JSON, or too much of it."""
    return {
        "empty": b"",
        "zeros": bytes(1000),
        "no text": b"\xff\xfe\x00{",
        "cut off": b'{"algo": "pp',
        "deep": b"[" * 200_000,
        "deep and closed": b"[" * 100_000 + b"]" * 100_000 + b"\n",
        "deep tables": b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
        "NaN": b'{"steps": NaN}\n',
        "infinity": b'{"steps": 1e999}\n',
        "a key twice": b'{"steps": 1, "steps": 2}\n',
        "5,000 digits": b'{"steps": ' + b"9" * 5_000 + b"}\n",
        "a million tables": b"[" + b"{}," * 10**6 + b"{}]\n",
        "one long line": b"x" * 10**6 + b"\n",
        "escapes": b"\x1b[2J\n",
    }


def mdps() -> dict[str, bytes]:
    """Cases by name: a file of tables."""
    made = {f"{key} {what}": json.dumps(MDP | {key: value}).encode() for key in MDP for what, value in ODD.items()}
    for key in ("gamma", "terminal", "groups", "pi"):
        made |= {f"{key} {what}": json.dumps(MDP | {key: value}).encode() for what, value in ODD.items()}
    other: dict[str, dict[str, Any]] = {
        "horizon 2.5": {"horizon": 2.5},
        "horizon 10^9": {"horizon": 10**9},
        "horizon 0": {"horizon": 0},
        "rows of different lengths": {"transition": [[[1, 0], [1]], [[0, 1]]]},
        "pi of different lengths": {"pi": [[0.5, 0.5], [1]]},
        "pi of 0": {"pi": [[0, 1], [0.5, 0.5]]},
        "terminal 7": {"terminal": [7]},
        "groups of text": {"groups": ["a", "b"]},
        "probabilities of 1e308": {"start": [1e308, 1e308]},
    }
    made |= {what: json.dumps(MDP | change).encode() for what, change in other.items()}
    return made | {f"file {what}": content for what, content in broken().items()}


def pipes() -> dict[str, Callable[[RunDirectory], object]]:
    """What stands in a file's place and is none."""

    def instead(file: str, make: Callable[[Path], object]) -> Callable[[RunDirectory], object]:
        def replace(run: RunDirectory) -> None:
            (run.path / file).unlink()
            make(run.path / file)

        return replace

    made = {}
    for file in ("config.json", "metrics.jsonl", "evaluation.json"):
        made[f"{file} a pipe"] = instead(file, os.mkfifo)
        made[f"{file} a directory"] = instead(file, os.mkdir)
        made[f"{file} a link to a device"] = instead(file, lambda path: path.symlink_to("/dev/zero"))
        made[f"{file} a link to itself"] = instead(file, lambda path: path.symlink_to(path))
    return made
