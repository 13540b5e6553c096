"""Data-parallel learners in real processes: what they learn, what they write, and how they end."""

from __future__ import annotations

import os
import signal
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import files
from ranked import Failed, in_ranks, together

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.errors import Interrupted
from policygrad.stored import blocks
from policygrad.stored.directory import RunDirectory
from policygrad.stored.storage import load_state
from policygrad.total import is_shared
from policygrad.training import ranks as module
from policygrad.training.nearby import CAPACITY
from policygrad.training.ranks import STORE, LostRankError, Ranks, RanksDifferError, RanksError, current, data_parallel

# recipe, environment, keywords: without minibatches, of which each rank shuffles its own
SAME: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a2c": ("a2c", "CartPole-v1", {"normalize_obs": True}),
    "trpo": ("trpo", "Pendulum-v1", {"num_steps": 16, "critic_minibatches": 1, "hidden": (8,)}),
    "episodes": ("reinforce", "CartPole-v1", {"episodes": 7, "baseline": "linear", "cross_fit": None}),
    "memory": ("a2c", "CartPole-v1", {"memory": "gru", "memory_size": 4, "hidden": (8,), "num_steps": 16}),
}


def agent_of(algo: str, env: str, **words: Any) -> pg.Agent:
    return pg.Agent(algo, env, preset={}, seed=3, **{"num_envs": 5} | words)


def learned(cell: str) -> tuple[np.ndarray, int, list[float]]:
    algo, env, words = SAME[cell]
    agent = agent_of(algo, env, **words)
    for part in (agent.policy, agent.learner.critic):
        if hasattr(part, "double"):
            part.double()
    agent.learn(500)
    return agent.policy.flat.numpy().copy(), agent.collector.steps_done, list(agent.collector.returns)


SLOW = pytest.mark.slow
FAST = [("a2c", 2), ("episodes", 3)]
LEARNED = [*FAST, *(pytest.param(*x, marks=SLOW) for x in product(SAME, (2, 3)) if x not in FAST)]


@pytest.mark.parametrize(("cell", "size"), LEARNED)
def test_ranks_learn_what_one_process_learns(cell: str, size: int) -> None:
    """To the sums' last bits, in double precision: an environment has the same seed and noise, whoever has it."""
    weights, *counted = learned(cell)
    start = agent_of(*SAME[cell][:2], **SAME[cell][2]).policy.flat.numpy()
    assert np.abs(weights - start).max() > 1e-3
    for found, *others in together(size, lambda rank: learned(cell)):
        np.testing.assert_allclose(found, weights, rtol=0, atol=1e-7)
        assert others == counted


RECIPES: dict[str, tuple[str, str, dict[str, Any]]] = {  # recipe, environment, keywords
    "total": ("reinforce", "CartPole-v1", {"returns": "total", "baseline": "running-mean"}),
    "leave-one-out": ("reinforce", "CartPole-v1", {"baseline": "leave-one-out", "reduction": "trajectory"}),
    "cross-fit": ("reinforce", "CartPole-v1", {"baseline": "time-average", "cross_fit": 2, "standardize": "episode"}),
    "one step": ("actor_critic", "CartPole-v1", {"state_discount": True}),
    "q": ("actor_critic", "CartPole-v1", {"critic": "q"}),
    "shared": ("a2c", "CartPole-v1", {"shared_body": True, "standardize": "running"}),
    "npg": ("npg", "Acrobot-v1", {"num_steps": 32, "solver": "dense", "hidden": (6,), "fisher_eigenvalues": 2}),
    "ppo": ("ppo", "Pendulum-v1", {"num_steps": 32, "target_kl": 0.01, "head": "beta"}),
    "ppo-kl": ("ppo_kl", "CartPole-v1", {"num_steps": 32}),
    "trpo": ("trpo", "CartPole-v1", {"num_steps": 32}),
    "sac": ("sac", "Pendulum-v1", {"hidden": (8,), "warmup": 50, "batch_size": 16}),
    "stored": ("off_policy_pg", "CartPole-v1", {"episodes": 9}),
    "dqn": ("dqn", "CartPole-v1", {"warmup": 50, "n_step": 3, "batch_size": 16}),
    "no replay": ("dqn", "CartPole-v1", {"replay": False, "target_every": None, "batch_size": 8}),
    "pqn": ("pqn", "CartPole-v1", {"num_steps": 16, "normalize_obs": True}),
    "ddpg": ("ddpg", "Pendulum-v1", {"hidden": (8,), "warmup": 50, "batch_size": 16, "noise_autocorrelation": 0.5}),
    "td3": ("td3", "Pendulum-v1", {"hidden": (8,), "warmup": 50, "batch_size": 16}),
}


@pytest.mark.slow
@pytest.mark.parametrize("cell", RECIPES)
def test_every_recipe_keeps_its_ranks_equal(cell: str, unused_tcp_port: int) -> None:
    """A hundred iterations, as torchrun starts ranks: the parameters after each of them, and every number of the last row."""
    algo, env, words = RECIPES[cell]

    def learn(rank: int) -> tuple[list[int], dict[str, float | None]]:
        hashes: list[int] = []
        rows: list[Any] = []

        def look(agent: pg.Agent, row: Any) -> bool:
            hashes.append(module.digest(agent.learner))
            rows.extend([row] if row else [])
            return len(hashes) < 100

        agent_of(algo, env, **words).learn(10**6, look, log_every=100)
        clocks = ("seconds", "steps_per_second")
        return hashes, {name: value for name, value in rows[-1].items() if name not in clocks}

    address = {STORE: "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_tcp_port)}
    first, second = together(2, learn, **address)
    assert second == first
    assert len(first[0]) == 100
    assert len(set(first[0])) > 50  # it learns


def test_a_rank_with_other_parameters_is_found_out() -> None:
    def differ(rank: int) -> str:
        agent = agent_of("a2c", "CartPole-v1")
        agent.collector.observers += [lambda record: agent.policy.flat.add_(1e-6)] if rank == 1 else []
        with pytest.raises(RanksDifferError) as found:
            agent.learn(1000, log_every=10**9)
        return str(found.value)

    for text in together(3, differ):
        assert text.startswith("after 1 updates the parameters of rank 1 are not those of rank 0")


def test_parameters_are_compared_at_the_first_update_and_at_every_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(module, "digest", lambda learner: compared.append(len(done)) or 0)
    monkeypatch.setattr(module, "counts", lambda *x: np.array([x]))
    ranks, done = Ranks(0, 1), []
    for update in range(250):
        done.append(update)
        ranks.compare(None)
    assert compared == [1, 101, 201]


RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ppo": ("ppo", "CartPole-v1", {"num_steps": 20, "minibatches": 3, "epochs": 2, "normalize_obs": True}),
    "sac": ("sac", "Pendulum-v1", {"num_envs": 3, "hidden": (8,), "warmup": 60, "batch_size": 16, "gradient_steps": 1}),
}


def stopping(at: int | None, rank: int) -> Any:
    """A callback that sends this process a signal after so many steps."""

    def stop(agent: pg.Agent, row: Any) -> None:
        if at is not None and agent.collector.steps_done >= at and rank == int(os.environ["RANK"]):
            os.kill(os.getpid(), signal.SIGTERM)

    return stop


def trained(cell: str, folder: Path, at: int | None = None) -> RunDirectory:
    algo, env, words = RUNS[cell]
    return pg.train(agent_of(algo, env, **words), folder, steps=600, episodes=2, callback=stopping(at, 0))


@pytest.mark.parametrize("cell", ["ppo", pytest.param("sac", marks=SLOW)])
def test_an_interrupted_run_of_ranks_goes_on_to_the_last_bit(cell: str, tmp_path: Path) -> None:
    def interrupted(rank: int) -> int:
        with pytest.raises(Interrupted) as stop:
            trained(cell, tmp_path / "stopped", 300)
        assert load_state(RunDirectory(tmp_path / "stopped").checkpoints()[-1])[0]["trainer"]["total"] == 600
        pg.resume(tmp_path / "stopped", callback=stopping(None, 0))
        return stop.value.number

    together(2, lambda rank: trained(cell, tmp_path / "whole").path.name)
    assert together(2, interrupted) == [signal.SIGTERM] * 2
    whole, stopped = (RunDirectory(tmp_path / name) for name in ("whole", "stopped"))
    assert whole.state()["status"] == "finished"
    assert whole.config()["ranks"] == 2
    assert files(stopped) == files(whole)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_of_which_a_rank_was_killed_goes_on_to_the_last_bit(victim: int, tmp_path: Path) -> None:
    """From the last checkpoint of all: what was written since then is written again."""
    algo, env, words = RUNS["ppo"]

    def killed(rank: int) -> None:
        agent = agent_of(algo, env, **words)
        die = lambda record: os._exit(9) if agent.collector.steps_done >= 400 else None  # noqa: E731
        agent.collector.observers += [die] if rank == victim else []
        pg.train(agent, tmp_path / "killed", steps=600, episodes=2, callback=stopping(None, 0))

    together(2, lambda rank: trained("ppo", tmp_path / "whole").path.name)
    found = in_ranks(2, killed)
    assert isinstance(found[victim], Failed)
    assert isinstance(found[1 - victim], LostRankError)
    assert RunDirectory(tmp_path / "killed").state()["status"] == ("running" if victim == 0 else "stopped")
    together(2, lambda rank: pg.resume(tmp_path / "killed", callback=stopping(None, 0)).path.name)
    whole, resumed = (RunDirectory(tmp_path / name) for name in ("whole", "killed"))
    assert files(resumed) == files(whole)


@pytest.mark.parametrize("size", [pytest.param(1, marks=SLOW), 3])
def test_any_number_of_ranks_goes_on(size: int, tmp_path: Path) -> None:
    """From a checkpoint of two, in the middle of episodes, with a critic that remembers them."""
    algo, env, words = SAME["memory"]

    def train(folder: Path, rank: int | None = None) -> RunDirectory:
        agent = agent_of(algo, env, **words)
        stop = stopping(200, 1)
        agent.collector.observers += [lambda record: stop(agent, None)] if rank == 1 else []
        return pg.train(agent, folder, steps=400, episodes=2, callback=stopping(None, 0))

    def interrupted(rank: int) -> None:
        with pytest.raises(Interrupted):  # rank 1 has got the signal, and both stop
            train(tmp_path / "stopped", rank)

    train(tmp_path / "whole")
    together(2, interrupted)
    checkpoint = RunDirectory(tmp_path / "stopped").checkpoints()[-1]
    assert load_state(checkpoint)[0]["collector"]["time"].shape == (5,)

    def go_on(rank: int) -> str:
        with pytest.warns(
            UserWarning, match=f"goes on in {'one' if size == 1 else size} process(es)? in place of 2 processes"
        ):
            return pg.resume(tmp_path / "stopped", callback=stopping(None, 0)).path.name

    assert (together(size, go_on) if size > 1 else [go_on(0)]) == ["stopped"] * size
    states = [load_state(RunDirectory(tmp_path / name).checkpoints()[-1])[0] for name in ("whole", "stopped")]
    policies = [pg.load(tmp_path / name).policy.flat.numpy() for name in ("whole", "stopped")]
    np.testing.assert_allclose(policies[1], policies[0], rtol=0, atol=2e-5)
    returns = [state["collector"]["returns"] for state in states]
    assert returns[0] == returns[1]
    assert states[0]["trainer"] == states[1]["trainer"]


def test_the_replay_buffers_of_ranks_are_one_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, which rank 0 writes, and in the checkpoint; and each rank takes its part of them again."""
    monkeypatch.setattr(blocks, "BLOCK", 4096)
    words: dict[str, Any] = {"num_envs": 3, "warmup": 100, "gradient_steps": 1, "hidden": (8,), "buffer_size": 600}

    def rows_of(agent: pg.Agent) -> dict[str, Any]:
        buffer = agent.learner.replay
        return buffer.columns(buffer.added - buffer.size, buffer.added) | {"added": buffer.added}

    def train(rank: int) -> dict[str, Any]:
        agent = agent_of("dqn", "CartPole-v1", **words)
        pg.train(agent, tmp_path / "run", steps=1000, episodes=2)
        return rows_of(agent)

    trained = together(2, train)
    checkpoint = RunDirectory(tmp_path / "run").checkpoints()[-1]
    assert len(load_state(checkpoint)[0]["run"]["replay"]) > 1
    whole, parts = rows_of(pg.load(checkpoint)), together(3, lambda rank: rows_of(pg.load(checkpoint)))
    for name, column in whole.items():
        if name == "added":
            assert {part[name] for part in (*trained, *parts)} == {column}
            continue
        np.testing.assert_array_equal(np.concatenate([part[name] for part in trained], 1), column)
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], 1), column)


def lost(folder: Path, how: str) -> Any:
    """A run of which rank 1 ends in the middle: it exits at once, or its environment fails."""

    def run(rank: int) -> Any:
        agent = agent_of("a2c", "CartPole-v1")

        def end(record: Any) -> None:
            if agent.collector.steps_done >= 500:
                if how == "exits":
                    os._exit(9)
                raise RuntimeError("the simulator is broken")

        agent.collector.observers += [end] if rank == 1 else []
        try:
            pg.train(agent, folder, steps=1000, episodes=2)
        except Exception as error:
            return error
        return None

    return run


@pytest.mark.parametrize("how", ["exits", pytest.param("fails", marks=SLOW)])
def test_a_lost_rank_ends_the_others_and_the_last_checkpoint_stays(how: str, tmp_path: Path) -> None:
    first, second = in_ranks(2, lost(tmp_path / "run", how))
    assert isinstance(first, LostRankError)
    assert str(first).startswith("another process of this run has ended, or cannot be reached (")
    assert isinstance(second, Failed if how == "exits" else RuntimeError)
    run = RunDirectory(tmp_path / "run")
    assert run.state()["status"] == "stopped"
    assert run.state()["reason"].startswith("LostRankError: another process")
    assert pg.load(run.checkpoints()[-1]).collector.steps_done == run.state()["steps"]
    with pytest.warns(UserWarning, match="goes on in one process in place of 2 processes"):
        assert pg.resume(run, steps=1000).state()["status"] == "finished"


def test_a_callback_is_asked_in_rank_0_and_ends_all(tmp_path: Path) -> None:
    def stopped(rank: int) -> tuple[int, int]:
        asked: list[int] = []

        def enough(agent: pg.Agent, row: Any) -> bool:
            asked.append(agent.collector.steps_done)
            assert not is_shared()  # what a callback sums is its own
            return len(asked) < 3

        agent = agent_of("a2c", "CartPole-v1")
        run = pg.train(agent, tmp_path / "run", steps=5000, episodes=2, callback=enough)
        assert run.state()["status"] == "finished"  # all return when the evaluation is written
        return len(asked), agent.collector.steps_done

    (first, steps), (second, others) = together(2, stopped)
    assert (first, second) == (3, 0)
    assert steps == others <= 3 * 80


def listening(pid: int | str = "self") -> list[str]:
    """The addresses, in hexadecimal, at which a process accepts connections."""
    held = {
        os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink() and os.path.lexists(link)
    }
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the sockets of Linux")
@pytest.mark.parametrize("env", [{}, {STORE: "", "MASTER_ADDR": "127.0.0.1"}], ids=["file", "store"])
def test_nothing_listens_beyond_this_machine(env: dict[str, str], unused_tcp_port: int) -> None:
    env |= {"MASTER_PORT": str(unused_tcp_port)} if env else {}
    found = together(2, lambda rank: (listening(), current().size), **env)
    assert sum(len(addresses) for addresses, _ in found) >= 2 + bool(env)  # one for each, and the store
    assert all(address == "0100007F" for addresses, _ in found for address in addresses)  # 127.0.0.1
    assert [size for _, size in found] == [2, 2]


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# words of agents that cannot be divided among two processes, with what is said of them
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "too few": ("num_envs = 1 cannot be divided among 2 processes", {"num_envs": 1}),
    "episodes": ("episodes = 2 leaves one of the 2 processes without", {"algo": "reinforce", "episodes": 2}),
    "object": ("makes its own environments: give an id", {"env": "object"}),
    "workers": ("a3c has workers of its own: use a2c", {"algo": "a3c"}),
    "simulated": ("a3c has workers of its own: use a2c", {"algo": "a3c", "asynchrony": "simulated"}),
    "tensors": ("backend = torch keeps its environments on one device", {"backend": "torch"}),
    "earlier": ("set replay_episodes = 0", {"algo": "off_policy_pg", "replay_episodes": 4, "episodes": 8}),
    "meter": ("leave gradient_meter off", {"gradient_meter": True}),
}


@pytest.fixture
def rank_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ranks", Ranks(1, 2))


@pytest.mark.usefixtures("rank_of_two")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_divided_is_refused(case: str) -> None:
    import gymnasium as gym

    text, words = REFUSED[case]
    env: Any = gym.make("CartPole-v1") if words.get("env") == "object" else "CartPole-v1"
    words = {"num_envs": 4} | {name: value for name, value in words.items() if name not in ("env", "algo")}
    words.pop("num_envs") if env != "CartPole-v1" else None
    with pytest.raises(ConfigError, match=text):
        pg.Agent(REFUSED[case][1].get("algo", "a2c"), env, preset={}, **words)


@pytest.mark.usefixtures("rank_of_two")
def test_a_rank_has_its_part(tmp_path: Path) -> None:
    agent = pg.Agent("dqn", "CartPole-v1", preset={}, num_envs=5, batch_size=64, buffer_size=1000)
    assert (agent.envs.num_envs, agent.collector.place, agent.config["num_envs"]) == (3, (2, 5), 5)
    assert agent.learner.rows == 64 - 64 * 2 // 5
    current_ranks, module._ranks = module._ranks, None
    whole = pg.Agent("dqn", "CartPole-v1", preset={}, num_envs=5, batch_size=64, buffer_size=1000)
    module._ranks = current_ranks
    assert agent.learner.replay.rows == whole.learner.replay.rows
    assert agent.collector.env_seeds == whole.collector.env_seeds[2:]
    with pytest.raises(ConfigError, match="has a part of the environments"):
        agent.save(tmp_path / "agent")
    agent.save_policy(tmp_path / "policy")


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, got 'two'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK = 2, but WORLD_SIZE = 2: ranks count from 0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "not MASTER_ADDR where they meet: start them with torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "MASTER_PORT must be a whole number, got None"),
    ],
)
def test_variables_that_say_something_else_are_refused(
    env: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", STORE):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items() | {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RanksError, match=text):
        data_parallel()


def test_a_process_that_is_alone_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # that of a scheduler
    ranks = data_parallel()
    assert (ranks.rank, ranks.size, current()) == (0, 1, None)


def sums_of_many(rank: int) -> tuple[bool, list[list[float]]]:
    """Sums and maxima of all kinds of tensors, in the memory that ranks share and, where they have no room, by gloo."""
    ranks = module.current()
    assert ranks is not None
    rng, found = torch.Generator().manual_seed(rank), []
    for size in (1, 7, 1000, CAPACITY // 4, CAPACITY // 4 + 1):
        for dtype in (torch.float32, torch.float64, torch.int64):
            x = torch.randint(-50, 50, (size,), generator=rng).to(dtype)
            found.append(
                [float((y.double() * (torch.arange(size) % 97 + 1)).sum()) for y in (ranks.add(x), ranks.largest(x))]
            )
    for k in range(300):  # who is fast must not write over what others still read
        if k % (rank + 2) == 0:
            time.sleep(1e-4)
        found.append(ranks.add(torch.full((50,), float(k * 3 + rank))).unique().tolist())
    return ranks.near is not None, found


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="ranks share memory on Linux")
def test_sums_in_shared_memory_are_those_of_gloo_and_equal_in_all_ranks(monkeypatch):
    near = together(3, sums_of_many)
    monkeypatch.setattr(module, "make_memory", lambda path, size: False)
    far = together(3, sums_of_many)
    assert [is_near for is_near, _ in near + far] == [True] * 3 + [False] * 3
    assert all(found == near[0][1] for _, found in near + far)
    assert near[0][1][-300:] == [[9.0 * k + 3.0] for k in range(300)]
