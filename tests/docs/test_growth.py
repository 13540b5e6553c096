"""The growth curves of docs/performance.md: what is counted, where a curve is linear, and what a measurement writes."""

from __future__ import annotations

import importlib
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import policygrad
from policygrad.algorithms.learner import Learner

ROOT = Path(__file__).parents[2]
X = [1, 2, 4, 8, 16, 32]
BETWEEN = r"(?<=from benchmarks/growth.py -->).*?(?=<!-- end of )"


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("growth")


@pytest.fixture
def bounds(growth):
    return importlib.import_module("growth_bounds")


@pytest.fixture
def page(growth):
    return importlib.import_module("growth_page")


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([3 * x for x in X], [0, 5]),
        ([3 * x**0.9 for x in X], [0, 5]),  # nearly
        ([min(x, 8) for x in X], [0, 3]),  # leaves it at a knee
        ([max(x, 4) for x in X], [2, 5]),  # enters it at one
        ([min(max(x, 2), 16) for x in X], [1, 4]),
        ([x if x < 8 else x**2 for x in X], [0, 2]),  # grows faster
        ([5.0 for _ in X], None),
        ([x**0.5 for x in X], None),
        ([100 / x for x in X], None),
    ],
)
def test_the_linear_range_is_found_by_a_rule(growth, y, expected):
    assert growth.linear(X, y)["range"] == expected


def test_slopes_are_those_of_logarithmic_axes(growth):
    assert growth.linear([1, 4, 16, 1024], [7, 14, 56, 56])["slopes"] == pytest.approx([0.5, 1.0, 0.0])


@pytest.mark.parametrize(("sizes", "rows"), [((4, 8, 8, 2), 5), ((3, 7, 1), 16)])
def test_operations_are_those_that_torch_counts(bounds, sizes, rows):
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))
    with FlopCounterMode(display=False) as forward:
        out = network(torch.randn(rows, sizes[0]))
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert bounds.forward_flops(sizes, rows) == forward.get_total_flops()
    assert bounds.backward_flops(sizes, rows) == backward.get_total_flops()
    assert bounds.parameters(sizes) == sum(p.numel() for p in network.parameters())


def test_bytes_of_a_minibatch_are_counted_by_hand_once(bounds):
    rows, (i, o) = 10, (3, 2)
    gathered, weights, parameters = 2 * rows * i, i * o, (i + 1) * o
    forward = weights + rows * i + rows * o + 2 * rows * o
    backward = rows * i + rows * o + weights + rows * o
    assert bounds.minibatch_bytes((i, o), rows) == 4 * (gathered + forward + backward + parameters + 7 * parameters)


def test_the_networks_that_are_counted_are_those_that_are_trained(growth, bounds):
    task = growth.Task(width=16)
    agent = growth.make_agent(task)
    networks = agent.learner.policy, agent.learner.critic
    assert [len(n.flat) for n in networks] == [bounds.parameters(sizes) for sizes in growth.networks(task)]


@pytest.fixture
def in_this_process(growth, monkeypatch):
    """Points are measured here, so that nothing has to be imported anew."""
    monkeypatch.setattr(growth, "start_child", lambda *words: [str(word) for word in words])
    monkeypatch.setattr(growth, "result", lambda words: json.loads(json.dumps(growth.child(words))))
    monkeypatch.setattr(Learner, "improve", Learner.improve)  # put back after the test


def run(growth, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["growth.py", *map(str, words)])
    return growth.main()


def test_a_quick_curve_is_measured_and_written(growth, bounds, in_this_process, monkeypatch, tmp_path):
    for name, less in (("TRIAL_SECONDS", 1e-3), ("LARGE", 64), ("COPIED", 2**14)):
        monkeypatch.setattr(bounds, name, less)
    file = tmp_path / "growth.json"
    known = {"point": 2048, "minibatch_seconds": 1.0} | dict.fromkeys(growth.PEAKS, 1e-9)
    file.write_text(json.dumps({"batch": {"points": [known]}, "other": 1}))
    assert run(growth, monkeypatch, "--quick", "--json", file, "--curve", "batch", "--points", 512) == 0
    report = json.loads(file.read_text())
    curve, p = report["batch"], report["batch"]["points"][0]
    assert report["other"] == 1
    assert curve["points"][1] == known
    assert len(curve["slopes"]) == 1
    assert curve["versions"]["policygrad"] == policygrad.__version__
    assert curve["machine"] == {name: p[name] for name in growth.PEAKS}
    assert (p["point"], p["quick"], p["task"]["minibatch"]) == (512, True, 512)
    assert p["gemm_large_one"] > 0.1  # GFLOP/s
    assert p["low"] <= p["steps_per_second"] <= p["high"]
    assert p["steps_per_second"] * p["seconds"] == pytest.approx(2048, rel=0.1)  # but for rows that reset
    assert 0.0 < p["update_seconds"] < p["seconds"]
    assert p["minibatch_seconds"] * 4 * 4 == pytest.approx(p["update_seconds"])  # epochs, minibatches
    assert p["gflops"] == pytest.approx(p["gflop"] / p["seconds"])
    assert p["arithmetic"] > 0.0  # below 1 on a machine that does nothing else
    assert p["memory"] > 0.0


def made_up(growth, page):
    """A report of all curves, with points that are linear, and seeds that gain 1.9 where loops gain 2."""
    columns = [column for _, found in page.TABLES.values() for column in found]
    report = {}
    for name, curve in growth.CURVES.items():
        keys = {c.key for c in columns if c.curve == name} | {curve.x, curve.y} - {"point"}
        points = [{"point": x, "quick": False} | dict.fromkeys(keys, 0.25 * x) for x in curve.points]
        report[name] = {"points": points, "linear": [curve.points[1], curve.points[-1]], "versions": {"numba": "1"}}
        report[name]["machine"] = dict.fromkeys(growth.PEAKS, 100.0)
    rounds = [{"loops_1": 10.0, "loops_2": 20.0, "seeds_1": 1000.0, "seeds_2": 1900.0, "seed_on_two_cores": 1500.0}]
    report["seeds"] = rounds[0] | {"rounds": rounds, "ratio": 0.95, "ratios": [0.95], "bar": 0.95, "versions": {}}
    return report


def test_the_page_and_the_picture_are_written(growth, page, monkeypatch, tmp_path):
    file, real = tmp_path / "growth.json", page.PAGE.read_text("utf8")
    monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(page, "PICTURE", tmp_path / "growth.png")
    page.PAGE.write_text(real, "utf8")
    for report in ({}, made_up(growth, page)):
        file.write_text(json.dumps(report))
        assert run(growth, monkeypatch, "--docs", "--json", file) == 0
        text = page.PAGE.read_text("utf8")
        assert run(growth, monkeypatch, "--docs", "--json", file) == 0  # in place of what stands there
        assert page.PAGE.read_text("utf8") == text
        assert page.PICTURE.exists() == ("images/growth.png" in text) == bool(report)
        assert re.sub(BETWEEN, "", text, flags=re.DOTALL) == re.sub(BETWEEN, "", real, flags=re.DOTALL)
    assert page.PICTURE.read_bytes().startswith(b"\x89PNG")
    assert "| 4,096 | 1,024 | 1,024 |" in text
    assert "over its operations is linear from 32 to 1,024, the last point." in text
    assert "**0.95** [0.95, 0.95]" in text


@pytest.mark.parametrize(("together", "code"), [(1920.0, 0), (1880.0, 1)])
def test_two_seeds_are_held_against_two_loops(growth, monkeypatch, tmp_path, together, code):
    def speed(words):
        kind, count = words[:2]
        return 10.0 if kind == "loop" else {1: 1000.0, 2: together}[count]  # two loops: 20

    monkeypatch.setattr(growth, "start_child", lambda *words: words)
    monkeypatch.setattr(growth, "result", speed)
    assert run(growth, monkeypatch, "--quick", "--json", tmp_path / "growth.json", "--curve", "seeds") == code
    seeds = json.loads((tmp_path / "growth.json").read_text())["seeds"]
    assert seeds["ratio"] == pytest.approx(together / 2000.0)
    assert seeds["loops_2"] == 20.0
