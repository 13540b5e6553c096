"""Worker processes: the trajectories of the serial case, and an end of every process, whatever environments do."""

from __future__ import annotations

import gc
import os
import random
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import same, same_state
from gymnasium import spaces

import policygrad as pg
from policygrad.envs import processes, workers
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Counting
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.supervision import SendError, WorkerError
from policygrad.envs.workers import WorkerVectorEnv
from policygrad.errors import EnvError
from policygrad.models.policy import make_policy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "survival"))
survival = import_module("workers")

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # or every worker would import all this, and torch

Makers = Sequence[Callable[[], gym.Env]]


@contextmanager
def pool(makers: Makers, num_workers: int | None = 2, **keywords: Any) -> Iterator[WorkerVectorEnv]:
    """A pool that is closed, and has left no process then."""
    envs = WorkerVectorEnv(makers, num_workers, **keywords)
    try:
        yield envs
    finally:
        begun = time.monotonic()
        envs.close()
        assert time.monotonic() - begun < 2.5
        assert not any(alive(worker.pid) for worker in envs.workers if not worker.own)


def alive(pid: int | None) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


def children() -> list[int]:
    """The processes of our workers: children of the server that forks them."""
    from multiprocessing import forkserver

    server = forkserver._forkserver._forkserver_pid  # pyright: ignore[reportAttributeAccessIssue]
    path = Path(f"/proc/{server}/task/{server}/children")
    return [int(pid) for pid in path.read_text().split() if state(int(pid)) != "Z"] if path.exists() else []


class Drawing(gym.Env):
    """Every kind of part in the observation, the action in it, and a mask in `info`; all drawn, ends too."""

    def __init__(self, action_space: spaces.Space, obs: spaces.Space | None = None, masks: bool = False) -> None:
        self.action_space, self.masks = action_space, masks
        self.observation_space = spaces.Dict(x=spaces.Box(-9.0, 9.0, (2,)), y=obs or spaces.Discrete(3))

    def show(self) -> tuple[Any, dict[str, Any]]:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        mask = np.append(1, self.np_random.integers(0, 2, 3)).astype(np.int8)
        return self.observation_space.sample(), {"action_mask": mask} if self.masks else {"other": object()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.show()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        obs, info = self.show()
        obs["x"][0] = np.sum(action)
        return obs, float(self.np_random.normal()), *(self.np_random.random(2) < 0.1), info


KINDS: dict[str, Makers] = {
    "CartPole": [partial(gym.make, "CartPole-v1")] * 5,
    "LunarLander": [partial(gym.make, "LunarLanderContinuous-v3")] * 3,
    "FrozenLake": [partial(gym.make, "FrozenLake-v1")] * 4,
    "different ones": [partial(Counting, 2), partial(Counting, 3, truncates=True), partial(Counting, 5)],
    "masks in info": [partial(Drawing, spaces.Discrete(4), spaces.MultiBinary(3), True)] * 3,
    "pictures": [partial(Drawing, spaces.MultiDiscrete([2, 3]), spaces.Box(0, 255, (4, 5), np.uint8))] * 3,
    "a number": [partial(Drawing, spaces.Box(-1.0, 1.0, ()), spaces.Tuple((spaces.MultiDiscrete([2, 2]),)))] * 3,
    "bits": [partial(Drawing, spaces.MultiBinary(2), spaces.Box(-1.0, 1.0, (2, 1), np.float64))] * 3,
}


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_are_those_of_the_serial_case_to_the_bit(kind: str, join: bool) -> None:
    makers = KINDS[kind]
    here = SerialVectorEnv(makers)
    masks = "info" if kind == "masks in info" else "none"
    policy = make_policy(
        here.single_observation_space, here.single_action_space, hidden=(8,), seed=0, mask_source=masks
    )
    first = Collector(here, seed=1)
    with pool(makers, join=join) as there:
        assert [worker.own for worker in there.workers] == [join, False]
        second = Collector(there, seed=1)
        for T in (7, 1, 1, 60):
            assert same(first.steps(policy, T), second.steps(policy, T))
        assert same(first.episodes(policy, 7), second.episodes(policy, 7))  # some are paused meanwhile
        assert same(first.episodes(policy, 1), second.episodes(policy, 1))
        assert same(first.steps(policy, 9), second.steps(policy, 9))
        assert same_state(first.state_dict(), second.state_dict())
        assert there.metadata == here.metadata
        for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            assert getattr(there, name) == getattr(here, name)


@pytest.mark.parametrize("kind", ["CartPole", "masks in info", "a number"])
def test_where_environments_are_can_be_kept_and_brought_back_here_and_there(kind: str) -> None:
    makers = KINDS[kind]
    with pool(makers, join=True) as envs, pool(makers, 1) as others:
        first = Collector(envs, seed=1)
        masks = "info" if kind == "masks in info" else "none"
        both = envs.single_observation_space, envs.single_action_space
        policy = make_policy(*both, hidden=(8,), seed=0, mask_source=masks)
        first.steps(policy, 37)
        state = first.state_dict()
        expected = first.steps(policy, 30)
        for again in (others, SerialVectorEnv(makers)):
            second = Collector(again, seed=2)
            second.load_state_dict(state)
            assert same(second.steps(policy, 30), expected)
        assert same_state(first.state_dict(), second.state_dict())
        # the processes know how far the episodes are
        assert np.array_equal(*(x._shared.time for x in (envs, others)))


def test_training_in_worker_processes_ends_in_the_same_weights() -> None:
    flats = []
    for backend in ("gymnasium", "async", "split"):
        agent = pg.ppo("CartPole-v1", num_envs=3, num_steps=40, minibatches=2, seed=4, backend=backend)
        agent.learn(500)
        flats.append(agent.policy.flat.clone())
        agent.envs.close()
    assert torch.equal(flats[0], flats[1])
    assert torch.equal(flats[0], flats[2])


def test_seeds_are_numbers_lists_or_none() -> None:
    makers = KINDS["CartPole"][:3]
    with pool(makers) as envs:
        first = envs.reset(seed=5)[0].copy()
        np.testing.assert_array_equal(first, SerialVectorEnv(makers).reset(seed=5)[0])
        np.testing.assert_array_equal(first, envs.reset(seed=[5, 6, 7])[0])
        assert not np.array_equal(first, envs.reset()[0])
        with pytest.raises(ValueError, match=r"3 seeds.*got 2"):
            envs.reset(seed=[1, 2])
        with pytest.raises(ValueError, match=r"3 actions.*got 4"):
            envs.step(np.zeros(4, int))
        with pytest.raises(TypeError, match="same_kind"):
            envs.step(np.full(3, 0.5))


class Noisy(gym.Env):
    """Draws from the global generators, as one should not."""

    observation_space, action_space = spaces.Box(-9.0, 9.0, (2,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.array([np.random.normal(), random.random()], np.float32), {}  # noqa: NPY002


def test_environments_that_draw_from_global_generators_are_not_alike_but_follow_the_seed() -> None:
    shown = []
    for seed in (0, 0, 1, None):
        with pool([Noisy] * 4) as envs:
            shown.append(envs.reset(seed=seed)[0].copy())
    assert np.array_equal(shown[0], shown[1])
    assert len({x for obs in shown[1:] for x in obs.ravel().tolist()}) == 24


def test_the_block_of_this_process_leaves_the_global_generators_to_the_user() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with pool(KINDS["CartPole"], join=True) as envs:
        envs.reset(seed=0)
        envs.step(np.zeros(5, int))
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("step: an exception", "environment 0 .* raised ValueError: no, at step 2 of its episode 1"),
        ("step: SystemExit", "environment 0 .* raised SystemExit.* at step 2 of its episode 1"),
        ("reset: an exception", "environment 0 .* raised ValueError: no, at the beginning"),
        ("make: an exception", "environment 0 .* raised ValueError while it was made: no"),
        ("close: an exception", survival.GOES_ON),
    ],
)
def test_what_goes_wrong_in_the_block_of_this_process_is_named_and_no_process_is_left(name: str, says: str) -> None:
    case, said, before = survival.CASES[name], survival.GOES_ON, set(children())
    try:
        with pool([partial(survival.Misbehaving, case if i == 0 else None) for i in range(4)], join=True) as envs:
            envs.reset(seed=0)
            for _ in range(4):
                envs.step(np.zeros(4, int))
    except EnvError as error:
        said = str(error)
    assert re.search(says, said)
    assert set(children()) <= before


def test_a_slow_step_of_this_process_is_no_fault_of_the_others() -> None:
    class Slow(Counting):
        def step(self, action: Any) -> Any:
            time.sleep(0.4)
            return super().step(action)

    with pool([partial(Slow, 3), partial(Counting, 3)], join=True) as envs:
        envs.deadline = 0.3
        envs.reset(seed=0)
        assert envs.step(np.zeros(2, int))[0][:, 1].tolist() == [1, 1]


def test_a_worker_that_hangs_beside_the_block_of_this_process_is_ended() -> None:
    case = survival.CASES["step: hangs"]
    with pool([partial(survival.Misbehaving, case if i == 3 else None) for i in range(4)], join=True) as envs:
        envs.deadline = 0.5
        envs.reset(seed=0)
        for _ in range(2):
            envs.step(np.zeros(4, int))
        with pytest.raises(
            WorkerError, match=r"environment 3 \(process \d+\) did not answer for 0.5 seconds at step 2"
        ):
            envs.step(np.zeros(4, int))


@pytest.mark.parametrize("join", [False, True])
def test_attributes_and_methods_of_environments(join: bool) -> None:
    with pool([partial(Counting, i + 2) for i in range(5)], join=join) as envs:
        assert envs.get_attr("length") == (2, 3, 4, 5, 6)
        envs.set_attr("length", 9)
        assert envs.get_attr("length") == (9,) * 5
        envs.set_attr("length", [1, 2, 3, 4, 5])
        assert envs.call_block("get_attr", "length") == [1, 2, 3, 4, 5]
        with pytest.raises(WorkerError, match="raised AttributeError in call"):
            envs.get_attr("width")  # a slip of the pen costs no environments
        with pytest.raises(ValueError, match=r"5 values of 'length'.*got 2"):
            envs.set_attr("length", [1, 2])
        envs.reset(seed=0)
        values = envs.call_block("step", split=[0, 1, 2, 3, 1])  # each worker steps its own: five values of each
        assert [values[0][:, 2].tolist(), values[5][:, 2].tolist()] == [[0, 1], [2, 3, 1]]


def test_environments_are_spread_evenly_over_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 3)
    with pool(KINDS["CartPole"], None) as envs:
        assert [len(worker.block) for worker in envs.workers] == [1, 2, 2]
        assert len({worker.pid for worker in envs.workers}) == 3
    assert processes.cores_for(2) == 2
    monkeypatch.setattr(processes, "most_cores", 1)
    assert processes.cores_for(8) == 1
    with pytest.raises(ValueError, match="between 1 and the 5"):
        WorkerVectorEnv(KINDS["CartPole"], 6)


QUICK = [name for name in survival.CASES if "hang" not in name and "STOP" not in name]


@pytest.mark.parametrize("name", [*QUICK, "step: hangs in C"])
def test_what_an_environment_does_wrong_is_named_at_once(name: str) -> None:
    ((_, right, seconds, said),) = survival.campaign([name])
    assert right, said
    assert seconds < 5.0
    if name.startswith("step") and "step 2" in survival.CASES[name].says:
        assert re.search(r"environment 1 \((process \d+|Misbehaving)\)", said)


@pytest.mark.slow
def test_no_misbehaviour_survives() -> None:
    assert [row for row in survival.campaign() if not row[1]] == []


def test_the_traceback_of_an_environment_comes_along() -> None:
    case = survival.CASES["step: with a lock inside"]
    with pool([partial(survival.Misbehaving, case)], 1) as envs:
        envs.reset()
        envs.step(np.zeros(1, int))
        envs.step(np.zeros(1, int))
        with pytest.raises(
            EnvError, match=r"environment 0 .* raised ValueError: .*, at step 2 of its episode 1"
        ) as caught:
            envs.step(np.zeros(1, int))
        assert "def locked" not in str(caught.value)
        assert "in locked" in caught.value.__notes__[0]
        with pytest.raises(WorkerError, match="are closed, because environment 0"):
            envs.step(np.zeros(1, int))


def test_an_agent_whose_environments_are_lost_can_be_saved(tmp_path: Path) -> None:
    class Doomed(Counting):
        def step(self, action: Any) -> Any:
            if self.time == 70:
                os._exit(7)
            return super().step(action)

    agent = pg.a2c(partial(Doomed, 99), num_envs=2, num_steps=20, backend="async")
    with pytest.raises(WorkerError, match=r"^environment [01] .* exit code 7 at step 70 of its episode 1$"):
        agent.learn(1000)
    assert agent.collector.steps_done == 120, "whole iterations"
    loaded = pg.load(agent.save(tmp_path / "agent"), env=partial(Counting, 99), backend="gymnasium")
    assert torch.equal(loaded.policy.flat, agent.policy.flat)
    with pytest.warns(UserWarning, match="cannot be brought back"):
        loaded.learn(40)


def test_a_process_that_is_killed_between_two_steps_is_named_in_the_next_one() -> None:
    with pool(KINDS["CartPole"]) as envs:
        envs.reset(seed=0)
        pid = envs.workers[1].pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=rf"2 to 4 \(process {pid}\) was killed by SIGKILL.* between two steps"):
            envs.step(np.zeros(5, int))
        envs.close()
        envs.close()


def test_a_pool_that_nobody_holds_ends_its_processes() -> None:
    envs = WorkerVectorEnv(KINDS["CartPole"], 2)
    pids = [worker.pid for worker in envs.workers]
    assert all(map(alive, pids))
    del envs
    gc.collect()
    assert not any(map(alive, pids))


def test_what_other_platforms_have_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START", "spawn")
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.delattr(select, "poll", raising=False)
    makers = KINDS["CartPole"]
    with pool(makers) as envs:
        assert np.array_equal(envs.reset(seed=3)[0], SerialVectorEnv(makers).reset(seed=3)[0])
        os.kill(envs.workers[0].pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed by SIGKILL"):
            envs.step(np.zeros(5, int))


class Fragile(gym.Env):
    """Counts its steps, and its process dies in step `dies` of the process's first episode, if there is a file to take."""

    observation_space, action_space = spaces.Box(-99.0, 99.0, (2,)), spaces.Discrete(2)

    def __init__(self, mark: Path | None, dies: Any, length: int = 5) -> None:
        self.mark, self.dies, self.length, self.start = mark, dies, length, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.start = 0, self.np_random.uniform(1.0, 9.0)
        return self.show(), {}

    def show(self) -> np.ndarray:
        return np.array([self.start, self.time], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        if self.mark is not None and self.time == 3 and self.mark.exists():
            self.mark.unlink()
            self.dies()
        return self.show(), 1.0, self.time == self.length, False, {}


@pytest.mark.parametrize("dies", [partial(os._exit, 3), partial(time.sleep, 1000)], ids=["dies", "hangs"])
def test_a_lost_process_is_replaced_and_its_episodes_end_truncated(dies: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    makers = [partial(Fragile, None, None, 2), partial(Fragile, None, None, 2), partial(Fragile, mark, dies)]
    with pool(makers, 2, restart=True) as envs:
        envs.set_attr("length", [2, 2, 6])
        envs.reset(seed=7)
        envs.deadline = 1.0
        action = np.zeros(3, int)
        envs.step(action)
        shown = envs.step(action)[0].copy()
        with pytest.warns(RuntimeWarning, match=r"environment 2 .* at step 2 of its episode 1.*; a new process"):
            obs, rew, terminated, truncated, _ = envs.step(action)
        # 0 is in another process; 1 was being reset, in the process that is lost; 2 was to make its third step
        assert obs[0, 1] == 0
        assert obs[1, 1] == 0
        assert obs[1, 0] != shown[1, 0]
        assert obs[2].tolist() == shown[2].tolist()
        assert rew.tolist() == [0, 0, 0]
        assert terminated.tolist() == [False] * 3
        assert truncated.tolist() == [False, False, True]
        assert envs.restarts == 1
        obs, rew, *_ = envs.step(action)
        assert rew.tolist() == [1, 1, 0]
        assert obs[:, 1].tolist() == [1, 1, 0]
        assert obs[2, 0] != shown[2, 0]
        ends = [envs.step(action)[2][2] for _ in range(6)]
        assert ends == [False] * 5 + [True], "the new process has the attributes that were set"


def test_a_new_process_that_is_lost_at_once_is_an_error() -> None:
    class Doomed(Counting):
        def step(self, action: Any) -> Any:
            os._exit(1)

    with pool([partial(Doomed, 2)] * 2, 1, restart=True) as envs:
        envs.reset(seed=0)
        with pytest.warns(RuntimeWarning, match="exit code 1"):
            envs.step(np.zeros(2, int))
        envs.step(np.zeros(2, int))  # their reset
        with pytest.raises(WorkerError, match="not made a single step"):
            envs.step(np.zeros(2, int))


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Dict(a=spaces.Graph(spaces.Box(0, 1), None))], ids=repr)
def test_spaces_of_no_arrays_are_refused_by_name(space: spaces.Space) -> None:
    class Odd(Counting):
        def __init__(self) -> None:
            super().__init__(3)
            self.observation_space = space

    with pytest.raises(TypeError, match=rf"observations in {type(space).__name__}.* backend='gymnasium'"):
        WorkerVectorEnv([Odd])


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    lock = threading.Lock()

    def make() -> gym.Env:
        with lock:
            return Counting(3)

    with pytest.raises(SendError, match=r"cannot be sent .*lock.* inside the callable"):
        make_envs(make, 2, "async")


def press(*_: Any) -> None:
    """As Ctrl-C."""
    raise KeyboardInterrupt


@pytest.fixture
def alarm() -> Iterator[None]:
    """The alarm is Ctrl-C."""
    before = signal.signal(signal.SIGALRM, press)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.usefixtures("alarm")
def test_after_ctrl_c_in_a_step_the_next_one_gets_its_own_reply(join: bool) -> None:
    class Slow(Counting):
        def step(self, action: Any) -> Any:
            time.sleep(0.3 * (action == 3))
            return super().step(action)

    with pool([partial(Slow, 9)] * 2, join=join) as envs:
        envs.reset(seed=0)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            envs.step(np.full(2, 3))
        obs = envs.step(np.full(2, 1))[0]
        # (episode, step, action): the interrupted one was the first, unless it was this process's own, which did not end it
        assert obs.tolist() == [[0, 1 if join else 2, 1], [0, 2, 1]]


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.usefixtures("alarm")
def test_wherever_ctrl_c_falls_every_step_gets_its_own_reply(join: bool) -> None:
    rng, pressed, steps = random.Random(0), 0, 0
    with pool([partial(Counting, 10**6)] * 2, deadline=20.0, join=join) as envs:
        envs.reset(seed=0)
        while pressed < 150:
            steps += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 4e-4))
                obs = envs.step(np.full(2, steps % 4))[0]
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                assert (obs[:, 2] == steps % 4).all()
            except KeyboardInterrupt:
                pressed += 1


LOGGED = """
import os
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

with open(__file__ + ".log", "a") as log:
    print(os.getpid(), file=log)

class Logged(CartPoleEnv):
    pass

gym.register("Logged-v0", Logged, vector_entry_point=Logged)
"""


def test_a_worker_imports_the_module_of_a_registered_class_only_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logged_on_import.py").write_text(LOGGED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(gym.registry, "Logged-v0", raising=False)
    import_module("logged_on_import")
    log, here = tmp_path / "logged_on_import.py.log", str(os.getpid())
    with pool(KINDS["CartPole"], 2):
        assert log.read_text().split() == [here]  # the module may import torch, which takes seconds
    with pool([partial(gym.make, "Logged-v0")] * 2, 2) as envs:
        there = [str(worker.pid) for worker in envs.workers]
        first, *others = log.read_text().split()
        assert (first, sorted(others)) == (here, sorted(there))
        assert gym.registry["Logged-v0"].entry_point is sys.modules["logged_on_import"].Logged  # ours is what it was
    del gym.registry["Logged-v0"], sys.modules["logged_on_import"]


# No `if __name__` guard, a class and an id of its own: none of it is run again, all of it is there.
SCRIPT = """
    import os, re, signal, sys, time
    import gymnasium as gym
    import numpy as np
    from policygrad.envs.make import make_envs

    print("begun", flush=True)

    class Mine(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 9, (1,)), gym.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            if action == 1:
                re.match("(a+)+$", "a" * 60 + "b")  # for ever, with the interpreter's lock held
            return np.ones(1, np.float32), 1.0, False, False, {}

        def loaded(self):
            return "torch" in sys.modules, os.getpid()

    gym.register("Mine-v0", Mine, order_enforce=False, disable_env_checker=True)
    envs = make_envs("Mine-v0", 2, "async")
    envs.reset(seed=0)
    found = envs.call("loaded")
    assert not any(torch for torch, _ in found)
    print(*{pid for _, pid in found}, flush=True)
"""


@contextmanager
def script(end: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a pool, in a session of its own, and the numbers of its workers."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(end))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, path], text=True, start_new_session=True, **pipes)
    pids: list[int] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n", process.communicate()
        pids += [int(pid) for pid in process.stdout.readline().split()]
        yield process, pids
    finally:
        for pid in pids:
            if state(pid) != "Z":
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def until_gone(pids: list[int], seconds: float) -> None:
    """Wait for the end of processes that are not ours."""
    limit = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids):
        assert time.monotonic() < limit, pids
        time.sleep(0.02)


def state(pid: int) -> str:
    """The letter that /proc has for it; Z if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize("action", [0, 1], ids=["idle", "hangs in C"])
def test_when_the_parent_is_killed_its_workers_end_in_silence(action: int, tmp_path: Path) -> None:
    end = f"envs.step(np.full(2, {action}))\nprint('stepped', flush=True)\ntime.sleep(1000)"
    with script(end, tmp_path) as (process, pids):
        assert pids
        if action == 0:
            assert process.stdout is not None
            assert process.stdout.readline() == "stepped\n"
        time.sleep(0.1)
        process.kill()
        until_gone(pids, 2.0 if os.getloadavg()[0] < 3 else 10.0)
        out, err = process.communicate(timeout=10)
        assert (out, err) == ("", "")


@linux
def test_ctrl_c_and_sigterm_to_the_whole_group_are_the_parents_business(tmp_path: Path) -> None:
    end = """
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        while True:
            envs.step(np.zeros(2, int))
    except KeyboardInterrupt:
        pass
    envs.step(np.zeros(2, int))
    print("goes on")
    """  # and the pool is closed at the end of the process
    with script(end, tmp_path) as (process, pids):
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.1)
        assert all(state(pid) != "Z" for pid in pids)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (out, err, process.returncode) == ("goes on\n", "", 0)
        until_gone(pids, 10.0)
