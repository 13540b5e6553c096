"""Environments of tensors: Gymnasium's dynamics, the laws of records, and rollouts that never leave the device."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from elsewhere import Elsewhere, a_second_device

import policygrad as pg
from policygrad.data import Record, Rollout, Wants
from policygrad.envs.make import resolve_backend
from policygrad.envs.on_device import OnDeviceError, draw, sample
from policygrad.envs.torch_envs import TorchVectorEnv, why_not_torch
from policygrad.errors import PolicygradError

IDS = ("CartPole-v1", "Pendulum-v1")
UNITS = (
    32  # of the last place, at most: 4π from the angle of a pendulum, 17 from the cost itself, which is as much as 17
)
SMALL: dict[str, Any] = {"num_envs": 8, "num_steps": 32, "minibatches": 2, "epochs": 2, "hidden": (8,)}


def played(env_id: str, dtype: torch.dtype, steps: int = 300, wrong: bool = False) -> float:
    """The largest difference between a step of ours and one of Gymnasium's, from the same states, over many steps.

    In units of the last place of the largest number of the state, of 1 at least: an angle is rounded by half a unit when it is
    given, by as much when whole turns are taken off, and a pendulum's cost θ² hands on 2 |θ| ≤ 2π times that.
    """
    envs, env, rng = TorchVectorEnv(env_id, 1), gym.make(env_id).unwrapped, np.random.default_rng(0)
    worst = 0.0
    for seed in range(4):
        env.reset(seed=seed)
        for _ in range(steps // 4):
            state: Any = env.state  # pyright: ignore[reportAttributeAccessIssue]
            action: Any = env.action_space.sample() if rng.random() < 0.1 or env_id != IDS[0] else int(state[2] > 0)
            action = np.float64(action) if env_id == "Pendulum-v1" else action  # of 32 bits, it would round
            act = torch.as_tensor(np.asarray(action))[None]
            given = torch.tensor(np.asarray(state)[None], dtype=dtype)
            after, rew, over = envs.game.play(given, 1 - act if wrong else act)
            obs, expected, terminated, _, _ = env.step(action)
            assert bool(over[0]) is terminated
            unit = torch.finfo(dtype).eps * max(1.0, float(np.abs(state).max()))
            worst = max(worst, float((after[0].double() - torch.as_tensor(np.asarray(env.state))).abs().max()) / unit)
            worst = max(worst, abs(float(rew[0]) - expected) / unit)
            assert np.abs(envs.game.show(after)[0].numpy() - obs).max() < 1e-5
            if terminated:
                break
    return worst


@pytest.mark.parametrize("env_id", IDS)
def test_a_step_is_gymnasiums(env_id: str) -> None:
    assert played(env_id, torch.float64) < UNITS
    assert played(env_id, torch.float32) < UNITS


def test_another_action_is_another_step() -> None:
    with pytest.raises(AssertionError):
        assert played("CartPole-v1", torch.float64, wrong=True) < UNITS


@pytest.mark.parametrize(("env_id", "bounds"), [("CartPole-v1", [0.05] * 4), ("Pendulum-v1", [np.pi, 1.0])])
def test_episodes_begin_where_gymnasiums_do(env_id: str, bounds: list[float]) -> None:
    n = 4000
    game = TorchVectorEnv(env_id, n).game
    first = game.begin(torch.rand(n, game.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    edge = torch.tensor(bounds, dtype=torch.float64)
    assert (first.abs() <= edge).all()
    assert (first.mean(0).abs() < 4 * edge / (3 * n) ** 0.5).all()  # of a uniform number, 4 standard errors
    assert (first.abs().amax(0) > 0.99 * edge).all()


def test_episodes_end_at_the_limit_and_the_next_row_is_a_reset() -> None:
    """Played with a policy that knows nothing, the record is what `Rollout` asks for, and its times and returns are right."""
    agent = pg.ppo("Pendulum-v1", backend="torch", num_envs=3, num_steps=450, hidden=(4,))
    record = agent.collector.collect(agent.policy, Wants(450))
    assert record.truncated.nonzero()[:, 0].tolist() == [199] * 3 + [400] * 3
    assert (~record.mask).nonzero()[:, 0].tolist() == [200] * 3 + [401] * 3
    assert record.time[[0, 199, 200, 201, 449], 0].tolist() == [0, 199, 0, 0, 47]
    assert record.cut[-1].all()
    assert not record.cut[:-1].any()
    assert [length for _, length in record.finished] == [200] * 6
    sums = record.rew[:200].sum(0, dtype=torch.float64).tolist()
    assert [ret for ret, _ in record.finished[:3]] == pytest.approx(sums)
    assert (record.rew[200] == 0).all()
    assert agent.collector.steps_done == record.steps == 450 * 3 - 6
    later = agent.collector.collect(agent.policy, Wants(2))
    assert torch.equal(later.obs[0], record.obs[-1])
    assert later.time[0].tolist() == [48] * 3


def test_a_rollout_of_cartpole_keeps_the_laws() -> None:
    agent = pg.ppo("CartPole-v1", backend="torch", **SMALL | {"num_steps": 128})
    for _ in range(3):
        record = agent.collector.collect(agent.policy, Wants(128))
        rollout = Rollout.of(record, agent.policy)  # which checks the ends
        assert rollout.obs[1:].data_ptr() == rollout.next_obs.data_ptr()
        assert rollout.terminated.any()
        assert ((rollout.obs[:-1][~rollout.mask].abs() > 0.05).any(-1)).all()  # what is shown before the reset: the end
        begun = rollout.obs[1:][~rollout.mask]
        assert (begun.abs() <= 0.05).all()
    assert len(agent.collector.returns) == min(agent.collector.episodes_done, 100)
    assert list(agent.collector.returns) == list(map(float, agent.collector.lengths))  # a reward of 1 a step


def gradient(agent: pg.Agent, record: Record | Rollout) -> torch.Tensor:
    iteration = agent.learner.prepare(Rollout.of(record, agent.policy))
    batch = iteration.batch
    return agent.policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()


@pytest.mark.parametrize("env_id", IDS)
def test_the_gradient_of_a_record_does_not_depend_on_the_device(env_id: str) -> None:
    """In double precision: the closed form in NumPy, and autograd on the device."""
    own = {"backend": "torch", "num_envs": 4, "num_steps": 60, "hidden": (8,)}
    here = pg.ppo(env_id, **own)
    here.policy.double(), here.learner.critic.double()
    record = here.collector.collect(here.policy, Wants(60))
    expected = gradient(here, record)
    arrays = {
        name: getattr(record, name).numpy() for name in ("act", "rew", "terminated", "truncated", "cut", "mask", "time")
    }
    obs = record.obs.numpy()
    assert torch.equal(gradient(here, Record(obs, obs[1:], **arrays)), expected)
    with a_second_device() as device:
        there = pg.ppo(env_id, device=device, **own)
        there.policy.double(), there.learner.critic.double()
        there.learner.load_state_dict(here.learner.state_dict())
        found = gradient(there, Record(obs, obs[1:], **arrays))
    assert isinstance(found, Elsewhere)
    assert float((found.cpu() - expected).norm() / expected.norm()) < 1e-12


@pytest.mark.parametrize("env_id", IDS)
def test_nothing_of_a_rollout_leaves_the_device(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the record nor what is learned from it; the numbers are those of the CPU."""
    with a_second_device() as device:
        there = pg.ppo(env_id, backend="torch", device=device, kernel="autograd", **SMALL)
        moved: list[tuple[int, ...]] = []
        there.collector.observers.append(
            lambda record: moved.extend(x.shape for x in vars(record).values() if type(x) is torch.Tensor)
        )
        there.collector.collect(there.policy, Wants(32))
        record = there.collector.collect(there.policy, Wants(32))
        assert moved == []
        obs = record.obs.cpu()
        there.learn(256)
    here = pg.ppo(env_id, backend="torch", kernel="autograd", **SMALL)
    here.collector.collect(here.policy, Wants(32))
    assert torch.equal(here.collector.collect(here.policy, Wants(32)).obs, obs)


def test_a_record_that_fails_leaves_all_as_it_was() -> None:
    agent = pg.ppo("CartPole-v1", backend="torch", **SMALL)
    agent.collector.collect(agent.policy, Wants(5))

    def now() -> dict[str, Any]:
        state = agent.collector.state_dict()
        return {name: x.tolist() if isinstance(x, torch.Tensor) else x for name, x in state.items()}

    def interrupt(record: Record) -> None:
        raise KeyboardInterrupt

    before = now()
    agent.collector.observers.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        agent.collector.collect(agent.policy, Wants(7))
    agent.collector.observers.clear()
    assert now() == before
    agent.collector.collect(agent.policy, Wants(7))
    assert now() != before


def test_files_hold_where_the_environments_are(tmp_path: Path) -> None:
    whole, part = (pg.ppo("CartPole-v1", backend="torch", **SMALL) for _ in range(2))
    whole.learn(256), whole.learn(256)
    path = part.learn(256).save(tmp_path / "a")
    again = pg.load(path).learn(256)
    assert again.backend == "torch"
    assert torch.equal(again.policy.flat, whole.policy.flat)
    assert list(again.collector.returns) == list(whole.collector.returns)
    more = pg.load(path, num_envs=3).learn(96)
    assert more.collector.num_envs == 3
    with pytest.warns(UserWarning, match="begin new episodes"):  # Gymnasium's environments cannot be put there
        other = pg.load(path, backend="gymnasium").learn(256)
    back = pg.load(other.save(tmp_path / "b"), backend="torch").learn(256)
    assert back.collector.steps_done > other.collector.steps_done


def test_a_run_in_environments_of_tensors_resumes_to_the_last_bit(tmp_path: Path) -> None:
    words, stops = SMALL | {"steps": 768}, [True]

    def stop(agent: pg.Agent, row: Any) -> None:
        if stops and agent.collector.steps_done > 300:
            stops.pop()
            raise KeyboardInterrupt

    whole = pg.train(pg.ppo("CartPole-v1", backend="torch", **words), tmp_path / "whole", episodes=1)
    with pytest.raises(KeyboardInterrupt):
        pg.train(pg.ppo("CartPole-v1", backend="torch", **words), tmp_path / "cut", episodes=1, callback=stop)
    pg.resume(tmp_path / "cut", callback=stop)
    assert (tmp_path / "cut/policy.safetensors").read_bytes() == whole.policy_file.read_bytes()


def test_noise_in_tensors_is_that_of_the_head() -> None:
    """Frequencies of choices, and moments of normal numbers, within 4 standard errors."""
    n, like = 20_000, {"dtype": torch.float32, "device": torch.device("cpu")}
    choices = pg.ppo("CartPole-v1", hidden=()).policy.head
    logits = torch.tensor([0.0, 1.0]).expand(n, 2)
    act = sample(choices, logits, draw(choices, (n,), torch.Generator().manual_seed(0), like))
    p = float(torch.sigmoid(torch.tensor(1.0)))
    assert abs(float(act.double().mean()) - p) < 4 * (p * (1 - p) / n) ** 0.5
    normal = pg.ppo("Pendulum-v1", hidden=()).policy.head
    out = torch.tensor([0.5, -1.0]).expand(n, 2)
    act = sample(normal, out, draw(normal, (n,), torch.Generator().manual_seed(0), like)).double()
    std = float(np.exp(-1.0))
    assert act.shape == (n, 1)
    assert abs(float(act.mean()) - 0.5) < 4 * std / n**0.5
    assert abs(float(act.std()) - std) < 4 * std / (2 * n) ** 0.5


def test_what_cannot_be_played_is_refused() -> None:
    assert why_not_torch("CartPole-v0") is None
    assert resolve_backend("CartPole-v1", "auto", 10**6) != "torch"
    for env, keywords in (("Acrobot-v1", {}), ("CartPole-v1", {"env_kwargs": {"sutton_barto_reward": True}})):
        with pytest.raises(ValueError, match="as tensors"):
            pg.ppo(env, backend="torch", **keywords)
    refused = [
        ("reinforce", {}, "whole episodes"),
        ("ppo", {"head": "squashed"}, "SquashedGaussian"),
        ("ppo", {"noise_autocorrelation": 0.5}, "context"),
        ("sac", {}, "policies of the class Policy|heads"),
        ("a3c", {"workers": 2, "num_envs": 2}, "class Policy"),
    ]
    for algo, keywords, message in refused:
        with pytest.raises((OnDeviceError, PolicygradError), match=message):
            pg.Agent(algo, "Pendulum-v1", backend="torch", **keywords)


def test_a_run_on_the_command_line_says_what_stepped_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from policygrad.cli import main

    words = "train ppo CartPole-v1 -n 256 --num-envs 4 --num-steps 32 --hidden 8 --backend torch --device auto"
    assert main([*words.split(), "--eval-episodes", "2", "--run-dir", str(tmp_path / "run")]) == 0
    assert "environments as tensors" in capsys.readouterr().out
    assert main(["eval", str(tmp_path / "run"), "--episodes", "2"]) == 0


@pytest.mark.slow
def test_ppo_learns_cartpole_of_tensors() -> None:
    agent = pg.ppo("CartPole-v1", backend="torch", device="cpu", steps=50_000)
    agent.learn()
    assert agent.evaluate(episodes=20).mean >= 400.0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_a_compiled_step_is_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for env_id in IDS:
        ours = [pg.ppo(env_id, backend="torch", **SMALL) for _ in range(2)]
        ours[1].envs.compile()  # pyright: ignore[reportAttributeAccessIssue]
        records = [agent.collector.collect(agent.policy, Wants(32)) for agent in ours]
        assert float((records[0].obs - records[1].obs).abs().max()) < 1e-4
        lengths = [[length for _, length in record.finished] for record in records]
        assert lengths[0] == lengths[1]


def test_the_benchmark_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "gpu.py"))["main"]
    main(["--device", "cpu", "--quick", "--json", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["best"] == max(row["steps_per_second"] for row in found["rows"]) > 0
    assert [row["rollout_share"] + row["update_share"] for row in found["rows"]] == pytest.approx([1.0, 1.0])
    assert found["learning"]["steps"] > 0
    assert len(found["bars"]) == 2
    assert "20,000,000" in capsys.readouterr().out
