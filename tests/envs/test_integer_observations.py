"""Pictures stay bytes from the environment to the network, large passes are split, acting builds no graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import policygrad as pg
from policygrad import tree
from policygrad.data import Batch, Record, Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.models.critic import make_critic, make_q_critic
from policygrad.models.observations import Encoding
from policygrad.models.policy import make_policy
from policygrad.tree import Tree, tree_leaves

pytestmark = pytest.mark.filterwarnings("ignore:the observations.* are bytes")  # which is what these tests are about


class Pictures(gym.Env):
    """Random pictures; the reward is for telling dark from light. parts: as a Dict, with a number beside."""

    action_space = spaces.Discrete(2)

    def __init__(self, dtype: Any = np.uint8, high: int = 255, parts: bool = False) -> None:
        self.dtype, self.high, self.parts = dtype, high, parts
        picture = spaces.Box(0, high, (3, 4), dtype)
        self.observation_space = spaces.Dict(a=picture, b=spaces.Box(-1.0, 1.0, (2,))) if parts else picture

    def _show(self) -> Any:
        self.now = self.np_random.integers(0, self.high + 1, (3, 4)).astype(self.dtype)
        return {"a": self.now, "b": np.full(2, self.now[0, 0] / self.high, np.float32)} if self.parts else self.now

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == (self.now[0, 0] > self.high / 2))
        self.time += 1
        return self._show(), reward, self.time == 9, False, {}


class Image(nn.Module):
    """A body that looks at the picture of either form."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())

    def forward(self, obs: Any) -> Tensor:
        return self.layers(obs["a"] if isinstance(obs, dict) else obs)


INTEGERS = [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.bool_]


@pytest.mark.parametrize(
    "keywords", [{}, {"normalize_obs": True}, {"body": lambda space: Image()}], ids=["mlp", "normalised", "body"]
)
@pytest.mark.parametrize("parts", [False, True], ids=["one", "parts"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_training_on_integers_is_training_on_their_floats_to_the_bit(
    dtype: Any, parts: bool, keywords: dict[str, Any]
) -> None:
    high = 1 if dtype is np.bool_ else 255

    def train(dtype: Any, high: int) -> Tensor:
        agent = pg.ppo(
            lambda: Pictures(dtype, high, parts),
            num_envs=2,
            num_steps=32,
            minibatches=2,
            seed=1,
            hidden=(8,),
            **keywords,
        )
        return agent.learn(128).policy.flat

    assert torch.equal(found := train(dtype, high), train(np.float32, high))
    assert not torch.equal(found, train(np.float32, high + 1))  # so the numbers do reach the weights


def parts_of(obs: Tree) -> list[Any]:
    return list(tree_leaves(obs))


@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
@pytest.mark.parametrize("parts", [False, True], ids=["one", "parts"])
@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
def test_observations_keep_their_type_through_record_rollout_and_batch(
    dtype: Any, parts: bool, mode: AutoresetMode | None
) -> None:
    env, kept = Pictures(dtype, 1, parts), np.dtype(np.float32 if dtype is np.float64 else dtype)
    expected = [kept, np.dtype(np.float32)][: 1 + parts]
    policy = make_policy(env.observation_space, env.action_space, hidden=(4,))
    makers = [lambda: Pictures(dtype, 1, parts)] * 2
    envs = make_envs(makers[0], 2) if mode is None else SyncVectorEnv(makers, autoreset_mode=mode)
    collector = Collector(envs, 0)
    for record in (collector.steps(policy, 12), collector.episodes(policy, 3)):
        assert isinstance(record, Record)
        for obs in (record.obs, record.next_obs):
            assert [x.dtype for x in parts_of(obs)] == expected
        rollout = Rollout.of(record, policy)
        batch = rollout.flatten(torch.zeros_like(rollout.rew), "step")
        pieces = list(batch.minibatches(2, torch.Generator().manual_seed(0)))
        assert len(pieces) == 2
        for obs in (
            rollout.obs,
            rollout.next_obs,
            rollout.columns([1, 0]).obs,
            *(piece.obs for piece in (batch, *pieces)),
        ):
            assert [x.numpy().dtype for x in parts_of(obs)] == expected
        for x, shown in zip(parts_of(rollout.obs), parts_of(record.obs), strict=True):
            assert x.data_ptr() == shown.__array_interface__["data"][0]  # the same memory


def test_large_integers_are_no_one_elses() -> None:
    """2²⁴ + 1 is no float32: what is kept is the integer."""
    encoding = Encoding(spaces.Box(0, 2**40, (1,), np.int64))
    encoding.encode(np.array([[2**24 + 1]]), {}, out := encoding.empty(1))
    assert out.tolist() == [[2**24 + 1]]
    assert encoding.features(torch.from_numpy(out), torch.float64).tolist() == [[2**24 + 1]]


@pytest.mark.parametrize("parts", [False, True], ids=["one", "parts"])
@pytest.mark.parametrize("kernel", ["autograd", "closed_form"])
def test_passes_in_chunks_agree_with_whole_ones(kernel: str, parts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    env = Pictures(np.uint8, parts=parts)
    policy = make_policy(env.observation_space, env.action_space, kernel=kernel, normalize_obs=True)
    critics = (
        make_critic(env.observation_space, kernel=kernel),
        make_q_critic(env.observation_space, env.action_space, kernel=kernel),
    )
    makers = [lambda: Pictures(np.uint8, parts=parts)] * 2
    record = Collector(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP), 0).steps(policy, 21)
    assert policy.normalizer is not None
    policy.normalizer.merge(policy.raw_features(Rollout.of(record, policy).valid_obs))
    sizes: dict[int, list[int]] = {}
    for network in (policy, *critics):
        forward = network.kernel.forward

        def counted(x: Tensor, grad: bool = True, forward: Callable = forward, key: int = id(network)) -> Tensor:
            sizes.setdefault(key, []).append(len(x))
            return forward(x, grad)

        monkeypatch.setattr(network.kernel, "forward", counted)

    def all_of_it() -> list[Tensor]:
        r = Rollout.of(record, policy)
        values = [critic(r, policy) for critic in critics]
        assert values[1].act_val is not None
        return [r.logp, *(x for v in values for x in (v.val, v.next_val)), values[1].act_val]

    whole, once = all_of_it(), {key: list(seen) for key, seen in sizes.items()}
    sizes.clear()
    numbers = 14 if parts else 12
    monkeypatch.setattr(tree, "NUMBERS", 3 * (numbers + 8))  # a few rows, and not all of one size
    for split, one in zip(all_of_it(), whole, strict=True):
        torch.testing.assert_close(split, one, atol=1e-6, rtol=0)
    for key, seen in sizes.items():
        assert sum(seen) == sum(once[key])
        assert max(once[key]) >= 42
        assert max(seen) <= 5
        assert len(seen) > len(once[key])
    with pytest.raises(AssertionError):  # the negative control: one row's number is another's
        torch.testing.assert_close(whole[0].roll(1, 0), whole[0], atol=1e-6, rtol=0)


def test_a_row_larger_than_a_chunk_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "NUMBERS", 1)
    x, rows = torch.arange(12.0).view(4, 3), []
    found = tree.in_chunks(lambda part: (rows.append(len(part["x"])), {"y": part["x"].sum(-1)})[1], {"x": x})
    assert rows == [1, 1, 1, 1]
    assert torch.equal(found["y"], x.sum(-1))


def test_what_a_pass_reuses_is_copied_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "NUMBERS", 2)
    memory = torch.zeros(2)
    found = tree.in_chunks(lambda part: torch.mul(part, 10.0, out=memory), torch.arange(6.0))
    assert torch.equal(found, 10.0 * torch.arange(6.0))


KERNELS = {
    "mlp": {"kernel": "autograd"},
    "body": {"body": lambda space: Image()},
    "normalised": {"kernel": "autograd", "normalize_obs": True},
}


@pytest.mark.parametrize("name", KERNELS)
def test_acting_builds_no_graph(name: str) -> None:
    env = Pictures(np.uint8)
    policy = make_policy(env.observation_space, env.action_space, **KERNELS[name])
    obs, act = np.ones((2, 3, 4), np.uint8), torch.zeros(2, dtype=torch.int64)
    products = (
        lambda: policy.kernel.vjp(torch.ones(2, 2)),
        lambda: policy.kernel.jvp(torch.ones_like(policy.flat)),
    )
    graphs: list[bool] = []
    policy.network.register_forward_hook(lambda module, given, out: graphs.append(out.requires_grad))
    record = Collector(make_envs(lambda: Pictures(np.uint8), 2), 0).steps(policy, 3)
    rollout = Rollout.of(record, policy)
    critic = make_critic(env.observation_space, kernel="autograd")
    critic.network.register_forward_hook(lambda module, given, out: graphs.append(out.requires_grad))
    values = critic(rollout, policy)
    assert len(graphs) == 3 + 1 + 1
    assert not any(graphs)
    assert not any(x.requires_grad for x in (rollout.logp, values.val, values.next_val))
    without: list[Callable[[], Any]] = [
        lambda: policy.outputs(obs),
        lambda: policy.dist(torch.from_numpy(obs)),
        lambda: policy.log_probs(torch.from_numpy(obs)[:, None], act[:, None]),
        lambda: policy.kernel.forward(torch.ones(2, 3, 4), grad=False),
    ]
    for forward in without:
        policy.evaluate(Batch.of(torch.from_numpy(obs), act))
        assert graphs.pop()
        for product in products:
            assert torch.isfinite(product()).all()
        forward()
        assert not graphs.pop()
        for product in products:
            with pytest.raises(RuntimeError, match="without a graph"):
                product()
