"""Several seeds at once: the same bits as alone, failures that stay alone, Ctrl-C, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policygrad.cli import main
from policygrad.envs.make import resolve_backend
from policygrad.envs.processes import usable_cores
from policygrad.stored.directory import RunDirectory
from policygrad.training import seeds
from policygrad.training.jobs import Job, SilentBoard, State
from policygrad.training.seeds import run_seeds

TINY = ["--steps", "400", "--num-envs", "2", "--num-steps", "10", "--eval-episodes", "3"]

MODULE = '''
import os, signal, sys, time, warnings
import gymnasium as gym
from policygrad.envs.probes import TimeLimit

def first(name):
    """Whether this process is the first that asks."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

class Odd(TimeLimit):
    """In the first process that gets to 50 steps something happens."""
    steps, strikes = 0, False

    def step(self, action):
        Odd.steps += 1
        if Odd.steps == 50 and first("claimed"):
            self.strike()
        return super().step(action)

    def strike(self): raise RuntimeError("the wheel came off\\nand rolled away")

class NoNumber(Odd):
    def step(self, action):
        obs, rew, *rest = super().step(action)
        return obs, float("nan") if Odd.strikes else rew, *rest
    def strike(self): Odd.strikes = True

class Killed(Odd):
    def strike(self): os.kill(os.getpid(), signal.SIGKILL)

class Leaving(Odd):
    def strike(self): sys.exit("enough")

class Talking(TimeLimit):
    steps = 0
    def step(self, action):
        Talking.steps += 1
        if Talking.steps == 50:
            print("half of it\\nis done")
            warnings.warn("mind the gap")
        return super().step(action)

class Slow(TimeLimit):
    """Says who it is, and takes its time."""
    steps = 0
    def step(self, action):
        Slow.steps += 1
        if Slow.steps == 50:
            open(f"pid-{os.getpid()}", "w").close()
        time.sleep(0.002)
        return super().step(action)

class Stuck(Slow):
    def step(self, action):
        if Slow.steps == 60:
            time.sleep(1000)
        return super().step(action)

class Text(gym.Env):
    observation_space, action_space = gym.spaces.Text(5), gym.spaces.Discrete(2)

for entry in (Odd, NoNumber, Killed, Leaving, Talking, Slow, Stuck, Text):
    gym.register(f"{entry.__name__}-v0", entry, order_enforce=False, disable_env_checker=True)
'''


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory with the module `odd`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("odd.py").write_text(MODULE)
    yield
    sys.modules.pop("odd", None)
    import gymnasium as gym

    for name in [name for name, spec in gym.registry.items() if str(spec.entry_point).startswith("<class 'odd.")]:
        del gym.registry[name]


def several(env: str, *words: str) -> int:
    return main(["train", "a2c", env, "--seed", "0", "1", "2", *TINY, "--run-dir", "runs/x", *words])


def policies() -> list[str]:
    return sorted(path.parent.name for path in Path("runs/x").glob("seed*/policy.safetensors"))


class Recording(SilentBoard):
    """What was shown."""

    interval = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[list[str]] = []

    def show(self, states) -> None:
        self.phases.append([state.phase for state in states])


@pytest.mark.parametrize("algo", ["ppo", pytest.param("reinforce", marks=pytest.mark.slow)])
def test_a_seed_among_several_leaves_the_same_bits_as_alone_and_quiet_prints_nothing(algo, capfd):
    words = ["train", algo, "CartPole-v1", "--steps", "1500", "--num-envs", "4", "--eval-episodes", "5", "-q"]
    resolve_backend("CartPole-v1")  # where that has to be compiled, it says so
    capfd.readouterr()
    assert main([*words, "--seed", "4-5", "--run-dir", "several"]) == 0
    assert main([*words, "--seed", "4", "--run-dir", "alone"]) == 0
    for file in ("policy.safetensors", "evaluation.json"):
        alone = Path("alone", file).read_bytes()
        assert Path("several/seed4", file).read_bytes() == alone
        assert Path("several/seed5", file).read_bytes() != alone
    rows, same = (RunDirectory(Path(path)).metrics() for path in ("alone", "several/seed4"))
    for a, b in zip(rows, same, strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}
    config = json.loads(Path("several/seed4/config.json").read_text())
    assert config["seed"] == 4
    assert config["command"][:3] == ["policygrad", "train", algo]
    assert {p.name for p in Path("several/seed4").iterdir()} >= {p.name for p in Path("alone").glob("[!e]*")}
    assert capfd.readouterr() == ("", "")


def test_the_end_is_a_table_of_the_seeds_and_a_picture_of_all_curves(capsys):
    assert main(["train", "a2c", "CartPole-v1", "--seed", "0,7", *TINY]) == 0
    out = capsys.readouterr().out
    runs = sorted(Path("runs/CartPole-v1/a2c").glob("seed?-*/"))
    assert [run.name[:6] for run in runs] == ["seed0-", "seed7-"]
    evaluations = [json.loads((run / "evaluation.json").read_text()) for run in runs]
    means = [[e[way]["mean"] for e in evaluations] for way in ("greedy", "sampled")]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    for seed, run, e in zip("07", runs, evaluations, strict=True):
        low, high = e["greedy"]["ci95"]
        greedy, sampled = e["greedy"]["mean"], e["sampled"]["mean"]
        assert rows[seed][1:] == [f"{greedy:.1f}", f"[{low:.1f},", f"{high:.1f}]", f"{sampled:.1f}", run.name]
    for name, of in (("mean", lambda x: sum(x) / 2), ("min", min), ("max", max)):
        assert rows[name][1:] == [f"{of(x):.1f}" for x in means]
    picture = Path(rows["curves"][1])
    assert picture.parent == runs[0].parent
    assert picture.name == f"seeds0-7-{runs[0].name[6:]}.png"
    for path in (picture, *(run / "learning_curve.png" for run in runs)):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000  # drawn, not only written
    assert main(["plot", "runs/CartPole-v1"]) == 0


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("odd:Odd-v0", "step() raised RuntimeError: the wheel came off"),
        pytest.param("odd:NoNumber-v0", "failed: training stopped: reward is nan", marks=pytest.mark.slow),
        ("odd:Killed-v0", "failed: its process ended with SIGKILL (out of memory?)"),
        pytest.param("odd:Leaving-v0", "step() raised SystemExit: enough", marks=pytest.mark.slow),
    ],
)
def test_a_seed_that_fails_does_not_stop_the_others_and_is_named(env, message, capsys):
    assert several(env, "--jobs", "2") == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) <= 3
    assert message in lines[0]
    assert "Traceback" not in captured.err
    failed = lines[0].removeprefix("policygrad: seed ")[0]
    lost = {f"seed{failed}"} if "SIGKILL" in message else set()  # the others saved what they had
    assert set(policies()) == {f"seed{k}" for k in range(3)} - lost
    row = next(line for line in captured.out.splitlines() if line.startswith(f"{failed} "))
    assert row.split()[1] == "failed"
    assert sum(line.startswith(("mean", "min", "max")) for line in captured.out.splitlines()) == 3
    assert Path("runs/x/learning_curves.png").exists()
    traceback = Path(f"runs/x/seed{failed}/traceback.txt")
    assert traceback.exists() == ("RuntimeError" in message or "SystemExit" in message)
    assert not traceback.exists() or "odd.py" in traceback.read_text()


def test_what_no_seed_can_do_is_said_once_as_for_one_seed_alone(capsys):
    assert main(["train", "a2c", "odd:Text-v0", *TINY]) == 2
    alone = capsys.readouterr().err
    assert several("odd:Text-v0") == 2
    assert capsys.readouterr().err == alone
    assert not Path("runs").exists()


def test_what_the_runs_print_is_passed_on_and_a_warning_is_given_once(capsys):
    assert several("odd:Talking-v0", "-q") == 0
    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == [f"seed {k}: {x}" for k in range(3) for x in ("half of it", "is done")]
    assert captured.err == "policygrad: mind the gap\n"


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_no_more_runs_are_under_way_than_may_be_and_as_many_as_can_be(at_once):
    board = Recording()
    keywords = {"steps": 400, "num_envs": 2}
    jobs = [Job("a2c", "CartPole-v1", seed, keywords, f"run{seed}", "runs", 2) for seed in range(3)]
    states = run_seeds(jobs, at_once, board)
    assert [state.phase for state in states] == ["done"] * 3
    under_way = [sum(p in ("starting", "training", "evaluating") for p in phases) for phases in board.phases]
    assert max(under_way) == at_once
    assert {"waiting", "starting", "training", "done"} <= {p for phases in board.phases for p in phases}
    assert [Path(state.path or "").name for state in states] == ["run0", "run1", "run2"]
    assert all(300 < state.steps == state.total <= 400 for state in states)


def test_the_usable_cores_are_those_that_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cores() == 5


@pytest.mark.slow
def test_without_forking_every_process_imports_for_itself_and_leaves_the_same_bits(monkeypatch):
    words = ["train", "a2c", "CartPole-v1", *TINY, "-q"]
    assert main([*words, "--seed", "1", "--run-dir", "alone"]) == 0
    monkeypatch.setattr(seeds.sys, "platform", "darwin")
    assert main([*words, "--seed", "0", "1", "--run-dir", "several"]) == 0
    assert Path("several/seed1/policy.safetensors").read_bytes() == Path("alone/policy.safetensors").read_bytes()


def started(env: str, steps: str = "1e6") -> subprocess.Popen:
    """The command, when two of its three seeds have trained 50 steps, in a session of its own."""
    command = ["train", "a2c", env, "--seed", "0", "1", "2", "--jobs", "2", *TINY[2:], "--steps", steps]
    process = subprocess.Popen(
        [sys.executable, "-m", "policygrad", *command, "--run-dir", "runs/x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(lambda: len(workers()) == 2)
    return process


def workers() -> list[int]:
    return [int(path.name[4:]) for path in Path().glob("pid-*")]


def alive(pid: int) -> bool:
    """Whether a process is there, zombies included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def session(leader: int) -> list[int]:
    """The processes of a session, without zombies that nobody here can reap."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
@pytest.mark.parametrize("whole_group", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ctrl_c_saves_every_run_that_has_begun_and_leaves_no_process(whole_group):
    process = started("odd:Slow-v0")
    if whole_group:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = err.strip().splitlines()
    assert lines == [
        "policygrad: interrupted: seeds 0, 1 are saved, seed 2 had not started",
        "next: policygrad eval runs/x/seed0",
    ]
    assert "Traceback" not in out + err
    assert policies() == ["seed0", "seed1"]
    assert not Path("runs/x/seed2").exists()
    assert not any(map(alive, workers()))
    until(lambda: not session(process.pid), 10)


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_one_seeds_process_saves_and_stops_that_seed_alone(number):
    process = started("odd:Slow-v0", "800")
    os.kill(min(workers()), number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    lines = err.strip().splitlines()
    assert len(lines) == 3
    stopped = lines[0].removeprefix("policygrad: seed ")[0]
    assert lines[0] == f"policygrad: seed {stopped} stopped: its process was sent {signal.Signals(number).name}"
    assert lines[2] == f"next: policygrad resume runs/x/seed{stopped}"
    for seed in "012":
        state = RunDirectory(Path(f"runs/x/seed{seed}")).state()
        alone = ("stopped", signal.Signals(number).name)
        assert (state["status"], state.get("reason")) == (alone if seed == stopped else ("finished", None))
    assert policies() == ["seed0", "seed1", "seed2"]
    row = next(line for line in out.splitlines() if line.startswith(f"{stopped} "))
    assert row.split()[1] == "stopped"
    assert Path("runs/x/learning_curves.png").exists()


@linux
@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait():
    process = started("odd:Stuck-v0")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not any(map(alive, workers()))
    until(lambda: not session(process.pid), 10)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_parent_is_killed_its_runs_save_what_they_have_and_end(number):
    process = started("odd:Slow-v0")
    process.send_signal(number)
    assert process.wait(20) in (-number, 128 + number)
    until(lambda: not session(process.pid), 30)
    assert policies() == ["seed0", "seed1"]
    process.communicate()


def test_a_run_that_hangs_ends_when_its_parent_is_gone(monkeypatch, tmp_path):
    left = []
    monkeypatch.setattr(seeds.os, "_exit", left.append)
    monkeypatch.setattr(seeds, "ORPHAN_SECONDS", 0.0)
    monkeypatch.setattr(seeds._thread, "interrupt_main", left.append)
    monkeypatch.setattr(seeds.time, "sleep", lambda s: left.append(s) if len(left) < 5 else sys.exit())
    ours, theirs = seeds.multiprocessing.Pipe()
    channel = seeds.Channel(theirs, 0.0)
    ours.send_bytes(b"15")
    ours.close()
    with pytest.raises(SystemExit):
        channel.obey()
    assert left[:3] == [signal.SIGTERM, 0.0, 1]  # interrupted once, though there were two reasons
    channel.tell(phase="done")  # nobody listens: no error
    theirs.close()


def test_states_that_are_over_are_those_after_which_nothing_happens():
    assert [State(0, phase).over for phase in ("waiting", "starting", "training", "evaluating")] == [False] * 4
    assert [State(0, phase).over for phase in ("done", "stopped", "failed")] == [True] * 3
