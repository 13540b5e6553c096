"""Runs that several processes share: each is one shard's at a time, is trained to its end once, and outlives a dead one."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from in_process import Silent
from interrupted import Kill, files

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.cli import main
from policygrad.files import make_folder
from policygrad.stored.directory import RunDirectory, runs
from policygrad.training import claims as claims_module
from policygrad.training import seeds as several
from policygrad.training.claims import Claims
from policygrad.training.jobs import Job, SilentBoard
from policygrad.training.recorder import Recorder
from policygrad.training.shards import ATTEMPTS, Shard, SharedQueue
from policygrad.training.sides import Existing, configuration
from policygrad.training.wanted import Wanted

ENV = "CartPole-v1"
KEY = "0" * 32
SMALL = {"steps": 256, "num_envs": 2, "num_steps": 16, "hidden": (8,)}


def die_at(steps: int, monkeypatch: pytest.MonkeyPatch, begin: Callable[[], object]) -> None:
    """Let a run die at so many steps, with what is on the disk then; a checkpoint is written with every row."""
    record = Recorder.__call__

    def die(self: Recorder, agent: pg.Agent, row) -> bool | None:
        if agent.collector.steps_done >= steps:
            raise Kill
        return record(self, agent, row)

    with monkeypatch.context() as patch:
        patch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", math.inf)
        patch.setattr("policygrad.training.train.keep", lambda *_: None)
        patch.setattr(Recorder, "__call__", die)
        with pytest.raises(Kill):
            begin()


def older(folder: Path, seconds: float) -> None:
    """Let all claims in a directory be so many seconds older."""
    for path in folder.glob("*.[0-9]*"):
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))


@pytest.fixture
def two(tmp_path):
    """Two processes' claims in one directory."""
    both = Claims(tmp_path / "claims", 600.0), Claims(tmp_path / "claims", 600.0)
    yield both
    for claims in both:
        claims.close()


def test_a_claim_is_one_process_s_until_it_is_released(two):
    first, second = two
    assert first.take(KEY)
    second.look()
    assert not second.take(KEY)
    first.release(KEY)
    second.look()
    assert second.take(KEY)
    first.look()
    assert not first.take(KEY)


def test_a_claim_that_was_not_seen_yet_is_not_taken_either(two):
    first, second = two
    assert first.take(KEY)  # after the second one's look
    assert not second.take(KEY)


def test_a_claim_without_a_sign_of_life_is_taken_over_and_its_owner_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_module, "TOUCHES", 30)
    first, second = Claims(tmp_path / "claims", 3.0), Claims(tmp_path / "claims", 3.0)
    first._closing.set()  # it is asleep: its heart stands still
    first._heart.join()
    assert first.take(KEY)
    second.look()
    assert not second.take(KEY)
    older(tmp_path / "claims", 4.0)
    second.look()
    assert second.take(KEY)
    first._closing.clear()  # it wakes up
    threading.Thread(target=first._beat, daemon=True).start()
    until = time.monotonic() + 5.0
    while not first.is_lost(KEY) and time.monotonic() < until:
        time.sleep(0.01)
    assert first.is_lost(KEY)
    assert not second.is_lost(KEY)
    first.release(KEY)  # of what is not its own any more
    second.look()
    first.look()
    assert not first.take(KEY)


def test_a_living_owner_keeps_its_claim(tmp_path, monkeypatch):
    """Negative control of the test above: the same age, but the owner's heart beats."""
    monkeypatch.setattr(claims_module, "TOUCHES", 30)
    first, second = Claims(tmp_path / "claims", 3.0), Claims(tmp_path / "claims", 3.0)
    assert first.take(KEY)
    older(tmp_path / "claims", 4.0)
    time.sleep(0.4)
    second.look()
    assert not second.take(KEY)
    assert not first.is_lost(KEY)


def test_of_many_that_want_it_at_once_one_gets_it(tmp_path):
    keys = [f"{k:032x}" for k in range(20)]
    all_claims = [Claims(tmp_path / "claims", 600.0) for _ in range(6)]
    got: Counter[str] = Counter()
    lock, gate = threading.Lock(), threading.Barrier(len(all_claims))

    def grab(claims: Claims) -> None:
        gate.wait()
        for key in keys:
            if claims.take(key):
                with lock:
                    got[key] += 1

    threads = [threading.Thread(target=grab, args=(claims,)) for claims in all_claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for claims in all_claims:
        claims.close()
    assert got == Counter(keys)


def test_a_failure_is_known_to_those_that_were_there_and_tried_again_by_later_ones(two, tmp_path):
    first, second = two
    assert first.take(KEY)
    first.end(KEY, "a reward is NaN")
    second.look()
    assert second.has_ended(KEY)
    assert second.failure(KEY) == "a reward is NaN"
    at = time.time() - 60
    os.utime(tmp_path / "claims" / f"{KEY}.end", (at, at))
    third = Claims(tmp_path / "claims", 600.0)
    assert not third.has_ended(KEY)
    third.close()


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/4", "0/0", "1/4/2", "", None])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ConfigError, match="shard"):
        Shard.read(text)


def test_a_shard_is_read():
    assert Shard.read(" 2/4 ", 30.0) == Shard(2, 4, 30.0)
    with pytest.raises(ConfigError, match="lease"):
        Shard(0, 1, 0.5)


def wanted_runs(root: Path, seeds: int, **other) -> list[Wanted]:
    keywords = SMALL | other
    config = configuration("a2c", ENV, keywords)
    return [Wanted(Job("a2c", ENV, seed, keywords, None, str(root), 2), config) for seed in range(seeds)]


def queue(wanted: list[Wanted], root: Path, shard: Shard) -> SharedQueue:
    return SharedQueue(wanted, shard, Claims(root / "claims", shard.lease), Existing.under(root), SilentBoard())


def next_job(shared: SharedQueue):
    shared._looks_at = 0.0
    return shared.take()


def trained(taken) -> str:
    """Train a job here, and say how its state is then."""
    job, state = taken
    state.phase = "starting"
    for name, value in several.run_job(job, Silent(state), []).items():
        setattr(state, name, value)
    return state.phase


@pytest.fixture
def here(monkeypatch, tmp_path):
    from policygrad.envs import processes
    from policygrad.reports import plots

    monkeypatch.setattr(processes, "most_cores", None)
    monkeypatch.setattr(plots, "plot_runs", lambda runs, out: out)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_shards_train_every_run_once(here):
    wanted = wanted_runs(Path("runs"), 5)
    make_folder(Path("runs"))
    queues = [queue(wanted, Path("runs"), Shard(k, 2)) for k in range(2)]
    order: list[tuple[int, int]] = []
    while not all(shared.over for shared in queues):
        begun = [(k, next_job(shared)) for k, shared in enumerate(queues)]  # both at once
        for k, taken in begun:
            if taken is not None:
                order.append((k, taken[0].seed))
                assert trained(taken) == "done"
                queues[k].ended(taken[1])
    assert sorted(seed for _, seed in order) == [0, 1, 2, 3, 4]
    assert order[:4] == [(0, 0), (1, 1), (0, 2), (1, 3)]  # each its own first
    for shared in queues:
        assert [state.phase for state in shared.states] == ["done"] * 5
        assert {state.path for state in shared.states} == {str(run) for run in runs("runs")}
        shared.claims.close()
    whole = pg.train(pg.Agent("a2c", ENV, seed=3, **SMALL), "alone", episodes=2)
    mine = next(Path(str(state.path)) for state in queues[0].states if state.seed == 3)
    assert files(RunDirectory(mine)) == files(whole)


def test_what_a_dead_shard_began_is_resumed_by_another_with_the_same_files(here, monkeypatch):
    wanted = wanted_runs(Path("runs"), 1)
    make_folder(Path("runs"))
    dead = queue(wanted, Path("runs"), Shard(0, 2))
    job, _ = next_job(dead)
    agent = pg.Agent(job.algo, job.env, seed=job.seed, **job.keywords)
    place = Path("runs") / ENV / "a2c" / "seed0-20260101-000000"
    die_at(128, monkeypatch, lambda: pg.train(agent, place, episodes=2))
    assert RunDirectory(place).state()["status"] == "running"
    assert int(RunDirectory(place).checkpoints()[-1].stem.partition("-")[2]) > 64
    dead.claims._closing.set()  # no sign of life from now on
    dead.claims._heart.join()
    other = queue(wanted, Path("runs"), Shard(1, 2))
    assert next_job(other) is None
    older(Path("runs/claims"), 3600.0)
    taken = next_job(other)
    assert taken is not None
    assert (taken[0].run_dir, taken[0].resume) == (str(place), True)
    assert trained(taken) == "done"
    other.ended(taken[1])
    assert other.over
    whole = pg.train(pg.Agent("a2c", ENV, seed=0, **SMALL), "alone", episodes=2)
    assert files(RunDirectory(place)) == files(whole)
    other.claims.close()


def test_a_run_that_a_process_still_holds_is_left_to_it(here):
    wanted = wanted_runs(Path("runs"), 1)
    run = pg.train(pg.Agent("a2c", ENV, seed=0, **SMALL), root="runs", episodes=2)
    run.write_state("running", 256)
    shared = queue(wanted, Path("runs"), Shard(0, 1))
    with run.lock():
        assert next_job(shared) is None
    assert next_job(shared) is not None
    shared.claims.close()


def test_a_run_whose_process_dies_is_tried_again_and_then_failed(here):
    wanted = wanted_runs(Path("runs"), 1)
    make_folder(Path("runs"))
    shared = queue(wanted, Path("runs"), Shard(0, 1))
    for attempt in range(ATTEMPTS):
        _, state = next_job(shared)
        state.phase, state.died, state.message = "failed", True, "its process ended with signal SIGKILL"
        shared.ended(state)
        assert shared.over == (attempt == ATTEMPTS - 1)
    assert state.phase == "failed"
    later = queue(wanted, Path("runs"), Shard(0, 1))
    assert not later.over  # whoever asks once more gets it
    for each in (shared, later):
        each.claims.close()


def test_the_key_tells_runs_apart(tmp_path):
    one = wanted_runs(tmp_path, 2)
    assert one[0].key == wanted_runs(tmp_path / "elsewhere", 1)[0].key
    others = [one[1], wanted_runs(tmp_path, 1, lr=0.5)[0], replace(one[0], words={"name": "Other"})]
    others.append(replace(one[0], job=replace(one[0].job, episodes=3)))
    assert len({run.key for run in [one[0], *others]}) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train ppo CartPole-v1 --shard 2/2", "numbered from 0"),
        ("train ppo CartPole-v1 --shard two", "0/4, the first of four"),
        ("train ppo CartPole-v1 --lease 60", "give --shard, too"),
        ("train ppo CartPole-v1 --shard 0/2 --lease 0", "from 1 to 86400"),
        ("train ppo CartPole-v1 --shard 0/2 --run-dir there", "--runs-root"),
        ("train ppo CartPole-v1 --engine slurm", "processes, ray"),
        ("train ppo CartPole-v1 --engine ray --shard 0/2", "one of the two"),
        ("compare ppo a2c --env CartPole-v1 --shard 2/2", "numbered from 0"),
        ("sweep ppo CartPole-v1 --over lr=1e-3,1e-2 --shard 2/2", "numbered from 0"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(here, capsys, words, said):
    assert main(words.split()) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not os.path.exists("runs")


STORM = "policygrad compare ppo a2c reinforce --env CartPole-v1 --seeds 8 --steps 4000 --eval-episodes 2 --quiet --out there"
LIMIT = 600.0  # seconds for the storm


@pytest.mark.slow
def test_a_requeue_storm_ends_in_the_bytes_of_a_quiet_machine(tmp_path):
    """24 runs as 4 shards; every shard is killed at random three times, with all its processes or alone, and begun again."""
    words = [sys.executable, "-m", *STORM.split()]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    subprocess.run(words, cwd=whole, check=True, stdout=subprocess.DEVNULL)
    rng = random.Random(0)

    def begin(k: int) -> subprocess.Popen[bytes]:
        more = ["--shard", f"{k}/4", "--lease", "4", "--jobs", "1"]
        with (broken / f"log{k}").open("ab") as log:
            return subprocess.Popen([*words, *more], cwd=broken, stdout=log, stderr=log, start_new_session=True)

    shards = {k: begin(k) for k in range(4)}
    kills = [k for k in range(4) for _ in range(3)]
    rng.shuffle(kills)
    for k in kills:
        time.sleep(rng.uniform(0.5, 4.0))
        if rng.random() < 0.5:
            os.killpg(shards[k].pid, 9)  # with its workers: the machine died
        else:
            shards[k].kill()  # alone: its workers save and end
        shards[k].wait()
        shards[k] = begin(k)
    until = time.monotonic() + LIMIT
    for k, process in shards.items():
        assert process.wait(until - time.monotonic()) == 0, (broken / f"log{k}").read_text()
    assert (broken / "there" / "compare.json").read_bytes() == (whole / "there" / "compare.json").read_bytes()
    ended = [RunDirectory(run) for run in runs(broken / "runs") if RunDirectory(run).evaluation() is not None]
    alone = {(run.config()["algo"], run.config()["seed"]): run for run in map(RunDirectory, runs(whole / "runs"))}
    assert Counter((run.config()["algo"], run.config()["seed"]) for run in ended) == Counter(alone.keys())
    for run in ended:
        assert files(run) == files(alone[run.config()["algo"], run.config()["seed"]])
    assert not list((broken / "runs").glob("claims/[0-9a-f]*"))


@pytest.mark.slow
def test_a_sweep_in_two_shards_has_the_bytes_of_one(tmp_path):
    """Its second stage, on fresh seeds, begins where all shards know the first."""
    words = "policygrad sweep a2c CartPole-v1 --over lr=1e-3,1e-2 --seeds 2 --steps 2000 --eval-episodes 2 --quiet --out there"
    command = [sys.executable, "-m", *words.split()]
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    for folder in (whole, shared):
        folder.mkdir()
    subprocess.run(command, cwd=whole, check=True, stdout=subprocess.DEVNULL)
    shards = [
        subprocess.Popen([*command, "--shard", f"{k}/2", "--jobs", "1"], cwd=shared, stdout=subprocess.DEVNULL)
        for k in range(2)
    ]
    assert [process.wait(LIMIT) for process in shards] == [0, 0]
    assert (shared / "there" / "sweep.json").read_bytes() == (whole / "there" / "sweep.json").read_bytes()
    assert len(list(runs(shared))) == len(list(runs(whole)))
