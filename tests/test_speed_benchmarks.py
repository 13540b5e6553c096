"""The scripts that measure speed: who is measured, in which order, what the bars decide, and what the page says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a script, which finds its neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def throughput(load, monkeypatch) -> ModuleType:
    """throughput.py with invented speeds, by side and clock; `order` has who was measured, and `speeds` can be changed."""
    module: Any = load("throughput")
    module.order, module.speeds = [], {"policygrad": (600.0, 100.0), "sb3": (100.0, 80.0)}

    def run_child(side, name, iterations, seed, places):
        module.order.append((side, seed, iterations))
        training, process = module.speeds.get(side, (50.0, 10.0))
        return {"training": training + seed, "process": process, "versions": {side: "1.0"}}

    monkeypatch.setattr(module, "run_child", run_child)
    return module


def test_every_side_of_every_configuration_can_be_run(load):
    peers, page, configs = load("peers"), load("performance"), load("configurations").CONFIGS
    known = peers.MAKERS.keys() | peers.SCRIPTS.keys()
    assert {side for config in configs.values() for side in config.sides} == known - {"policygrad"}
    assert peers.PACKAGES.keys() == known
    assert page.NAMES.keys() == known | {"machine"}


def test_who_goes_first_changes_and_all_sides_share_a_record(throughput, tmp_path, capsys):
    into = tmp_path / "speed.json"
    words = ["--config", "ppo-cartpole", "--against", "sb3", "sbx", "--pairs", "3", "--steps", "5000"]
    assert throughput.main([*words, "--json", str(into)]) == 0
    everybody = ["policygrad", "sb3", "sbx"]
    rounds = [[side for side, k, _ in throughput.order if k == seed] for seed in range(3)]
    assert [order[0] for order in rounds] == ["sb3", "sbx", "policygrad"]
    assert all(sorted(order) == everybody for order in rounds)
    assert {iterations for *_, iterations in throughput.order} == {2}  # of 2,048 steps
    record = json.loads(into.read_text())["ppo-cartpole"]
    assert [list(pair) for pair in record["pairs"]] == [everybody] * 3
    assert record["versions"]["sbx"] == {"sbx": "1.0"}
    assert not any("versions" in one for pair in record["pairs"] for one in pair.values())
    out = capsys.readouterr().out
    assert "sbx: sbx 1.0" in out
    assert [line.split()[1:3] for line in out.splitlines() if line.startswith("ppo-cartpole")] == [
        [side, clock] for side in ("sb3", "sbx") for clock in ("training", "process")
    ]


@pytest.mark.parametrize(
    ("name", "options", "speeds", "missed"),
    [
        ("ppo-cartpole", [], {"sb3": (100.0, 80.0)}, False),
        ("ppo-cartpole", [], {"sb3": (200.0, 1.0)}, True),  # the bar is about the training
        ("ppo-cartpole", ["--against", "sb3", "sbx"], {"sbx": (1e6, 1e6)}, False),  # no promise
        ("ppo-lunarlander", [], {"sb3": (50.0, 50.0), "sb3-workers": (100.0, 1.0)}, False),
        ("ppo-lunarlander", [], {"sb3": (50.0, 50.0), "sb3-workers": (200.0, 1.0)}, True),  # the faster one counts
        ("ppo-cartpole-jax", ["--against", "purejaxrl", "--purejaxrl", "."], {"purejaxrl": (1e6, 50.0)}, False),
        ("ppo-cartpole-jax", ["--against", "purejaxrl", "--purejaxrl", "."], {"purejaxrl": (1.0, 90.0)}, True),
    ],
)
def test_the_bar_decides(throughput, tmp_path, name, options, speeds, missed):
    throughput.speeds |= speeds
    assert throughput.main(["--config", name, *options, "--pairs", "1", "--json", str(tmp_path / "s")]) == int(missed)


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--config", "ppo-cartpole-zoo", "--against", "sbx"], "ppo-cartpole-zoo is compared with sb3, not with sbx"),
        (["--config", "ppo-pendulum-cpp", "--against", "rltools"], "--rltools PATH"),
        (["--python", "sbx"], "NAME=PATH"),
        (["--python", "sbxx=python"], "names among policygrad, sb3"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(throughput, capsys, tmp_path, words, telling):
    with pytest.raises(SystemExit, match="2"):
        throughput.main([*words, "--json", str(tmp_path / "speed.json")])
    assert telling in capsys.readouterr().err
    assert throughput.order == []


@pytest.mark.parametrize("side", ["policygrad", "sb3"])
def test_a_side_trains_whole_iterations(load, monkeypatch, side):
    if side == "sb3":
        pytest.importorskip("sb3_contrib")
    peers, config = load("peers"), load("configurations").CONFIGS["ppo-cartpole"]
    monkeypatch.setattr(peers, "one_thread", lambda: None)
    keywords = config.keywords | {"n_steps": 16, "batch_size": 32}
    tiny = dataclasses.replace(config, num_envs=2, keywords=keywords, warmup=1)
    measured = peers.timed(peers.MAKERS[side](tiny, 0), tiny, 2)
    assert 26 <= measured["warmup"] <= 32  # rows that reset are no steps of ours
    assert 52 <= measured["steps"] <= 64
    assert measured["seconds"] > 0.0


def test_a_script_is_timed_by_what_it_prints(load, tmp_path):
    peers, config = load("peers"), load("configurations").CONFIGS["ppo-cartpole-script"]
    script = tmp_path / "cleanrl" / "ppo.py"
    script.parent.mkdir()
    text = "import sys, time\nfor k in range(int(sys.argv[sys.argv.index('--total-timesteps') + 1]) // 512):\n"
    script.write_text(text + "    time.sleep(0.3 if k == 0 else 0.03)\n    print('SPS:', k)\n")
    short = dataclasses.replace(config, warmup=1)
    measured = peers.run_cleanrl(short, 4, 0, tmp_path)
    assert (measured["warmup"], measured["steps"]) == (512, 2048)
    assert measured["seconds"] >= 0.12  # the first iteration, of 0.3 s, is not in it
    script.write_text("print('SPS: 1')")
    with pytest.raises(SystemExit, match="after 1 iterations"):
        peers.run_cleanrl(short, 4, 0, tmp_path)


def test_a_binary_is_timed_by_its_own_clock(load, tmp_path):
    peers, config = load("peers"), load("configurations").CONFIGS["ppo-pendulum-cpp"]
    binary = tmp_path / "pendulum_ppo"
    binary.write_text(f"#!{sys.executable}\nprint('Time: 0.512s\\nPPO steps: 75')\n")
    binary.chmod(0o755)
    assert peers.run_rltools(config, 1, 0, tmp_path) == {"warmup": 0, "steps": 75 * 4096, "seconds": 0.512}
    binary.write_text(f"#!{sys.executable}\nprint('PPO steps: 75')\n")
    with pytest.raises(SystemExit, match="Time"):
        peers.run_rltools(config, 1, 0, tmp_path)


def test_the_page_has_what_is_recorded(load):
    page = load("performance")
    text = page.PAGE.read_text("utf8")
    assert page.written(text, BENCHMARKS) == text, "run: python benchmarks/performance.py"


def test_the_tables_have_a_row_for_every_library_and_version(load, throughput, tmp_path):
    page, into = load("performance"), tmp_path / "speed.json"
    throughput.main(["--config", "ppo-cartpole", "--against", "sb3", "sbx", "--pairs", "3", "--json", str(into)])
    (tmp_path / "commands.json").write_text(json.dumps({"commands": {"--help": {"0.5.0": [1.0, 3.0, 2.0]}}}))
    runs = [{"seconds": 2.0, "evaluations": [[64, 500.0]]}, {"seconds": None, "evaluations": [[99, 9.0]]}]
    (tmp_path / "solve.json").write_text(json.dumps({"runs": {"CartPole-v1": {"sb3": [*runs, runs[0]]}}}))
    marks = [f"<!-- {name}: from benchmarks/performance.py -->\nold\n<!-- end of {name} -->" for name in page.WRITERS]
    text = page.written("\n".join(["before", *marks, "after"]), tmp_path)
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text
    assert "4 epochs | SBX | 51 | 601 | **11.78** [11.58, 12.00] | **10.00** [10.00, 10.00] |" in text
    assert "| SBX | sbx 1.0 |" in text
    assert "| `policygrad --help` | 0.5.0 | 2.00 s | 1.00, 3.00, 2.00 |" in text
    assert "| CartPole-v1 | SB3 | **2.0 s** | 2.0, –, 2.0 | 64 |" in text


def test_it_is_solved_when_an_evaluation_that_was_due_is_over_the_threshold(load):
    solve = load("solve")
    means = iter([100.0, 475.0, 475.1])
    judge = solve.Judge(solve.TASKS["CartPole-v1"], lambda: next(means), 1000)
    assert [judge(steps) for steps in (900, 1100, 1900, 2500, 2600, 3000)] == [False] * 5 + [True]
    assert judge.seen == [[1100, 100.0], [2500, 475.0], [3000, 475.1]]
    times = [{"seconds": 3.0}, {"seconds": None}, {"seconds": 1.0}]
    assert solve.middle(times) == 3.0
    assert solve.middle([*times, {"seconds": None}, {"seconds": None}]) == math.inf


@pytest.mark.parametrize("side", ["policygrad", "sb3"])
def test_both_sides_evaluate_as_they_train(load, side):
    if side == "sb3":
        pytest.importorskip("stable_baselines3")
    judge = getattr(load("solve"), f"train_{side}")("CartPole-v1", 0, 1024, 500)
    assert judge.seen[0][0] in range(500, 1025)
    assert not judge.solved
    assert all(8.0 < mean < 475.0 for _, mean in judge.seen)


def test_a_command_is_measured_beside_another_version(load, monkeypatch, capsys):
    job: Any = load("main_job")
    taken = []
    monkeypatch.setattr(job, "run", lambda words, folder, source: "0.5.0\n" if source is None else "0.4.0\n")
    monkeypatch.setattr(
        job, "seconds", lambda words, folder, source: taken.append(source) or (1.0 if source is None else 1.9)
    )
    old = Path("old")
    times = job.measure(["train"], 3, [None, old])
    assert times == {"0.5.0": [1.0] * 3, "0.4.0": [1.9] * 3}
    assert taken == [None, old, old, None, None, old]
    assert job.report(job.FIRST, times)  # under 2
    assert not job.report(job.FIRST, times | {"0.4.0": [2.1] * 3})
    assert "2.10 times as fast" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another version"):
        job.measure(["train"], 1, [None, None])


def test_the_model_of_ranks_finds_the_numbers_it_was_made_with(load):
    """Iterations that the model itself made: the fit gives its four numbers back, also from the points it does not use."""
    ranks: Any = load("ranks")
    true, rows = [0.02, 9e-5, 4e-4, 3.0], []
    for point in [*ranks.FITTED, *ranks.HELD_OUT]:
        row: dict[str, Any] = {"point": dataclasses.asdict(point), "calls": 79.0 * (point.ranks > 1), "bits": 5e6}
        rows.append(row | {"seconds": ranks.predicted(true, row)})
    assert ranks.fit(rows) == pytest.approx(true, rel=1e-9)
    for row in rows:
        row["seconds"] *= 1.5 if row["point"]["held_out"] else 1.0
    assert ranks.fit(rows) == pytest.approx(true, rel=1e-9)  # held-out points do not count
    rows[4]["seconds"] *= 1.5
    assert ranks.fit(rows) != pytest.approx(true, rel=1e-2)  # negative control


def test_more_ranks_wait_longer_for_each_other_and_compute_less(load):
    ranks: Any = load("ranks")
    row = {"calls": 79.0, "bits": 5e6}
    seconds = [ranks.grown([0.02, 9e-5, 4e-4, 2.0], row, n, 65_536, 5e-5, 1e10) for n in (1, 2, 8, 1000)]
    assert seconds[0] == pytest.approx(0.02 + 9e-5 * 65_536)
    assert seconds[1] == pytest.approx(0.02 + 9e-5 * 32_768 + 79 * (4e-4 + 1e-4) + 5e6 / 1e10)
    assert seconds[2] < seconds[1] < seconds[0] < seconds[3]
