"""What an agent is asked: values, log-probabilities, and the names that Stable-Baselines3's tools expect."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.errors import ObservationError
from policygrad.training.progress import Lines
from policygrad.training.values import NoValueError

SMALL: dict[str, Any] = {"num_envs": 1, "num_steps": 16, "hidden": (4,), "steps": 64}
REPLAY: dict[str, Any] = {"hidden": (4,), "warmup": 8, "batch_size": 4, "steps": 32}


def observations(env: str, count: int = 5) -> np.ndarray:
    space = gym.make(env).observation_space
    space.seed(0)
    return np.stack([np.clip(space.sample(), -2, 2) for _ in range(count)]).astype(np.float32)


def test_the_value_is_the_critics_in_units_of_the_return() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1).learn()
    obs = observations("CartPole-v1")
    values = agent.value(obs)
    critic = agent.learner.critic
    with torch.no_grad():  # by the network itself
        expected = critic.network(torch.from_numpy(obs)).squeeze(-1) * critic.std + critic.mean
    assert values.shape == (5,)
    assert values == pytest.approx(expected.numpy(), rel=1e-5)
    assert agent.value(obs[0]) == pytest.approx(values[0], rel=1e-5)
    assert np.ndim(agent.value(obs[0])) == 0


def test_values_of_other_critics() -> None:
    obs = observations("CartPole-v1")
    ac = pg.actor_critic("CartPole-v1", critic="q", hidden=(4,), steps=8).learn()
    rows = torch.from_numpy(obs)
    q, p = ac.learner.critic.action_values(rows), torch.softmax(ac.policy.network(rows), -1).detach()
    assert ac.value(obs) == pytest.approx((p * q).sum(-1).numpy(), rel=1e-5)
    dqn = pg.dqn("CartPole-v1", **REPLAY).learn()
    assert dqn.value(obs) == pytest.approx(dqn.policy.network(rows).detach().max(-1).values.numpy(), rel=1e-5)
    obs = observations("Pendulum-v1")
    for make in (pg.sac, pg.td3):
        agent = make("Pendulum-v1", **REPLAY).learn()
        x = torch.from_numpy(agent.predict(obs, deterministic=True)[0] / 2.0)  # ±2 are the bounds
        q = agent.learner.rule.critic.network.kernel.forward(torch.cat([torch.from_numpy(obs), x], -1), grad=False)
        assert agent.value(obs) == pytest.approx(q.min(-1).values.numpy(), rel=1e-4, abs=1e-5)
    none = pg.reinforce("CartPole-v1", baseline="none", hidden=(4,))
    with pytest.raises(NoValueError, match="baseline = value has one"):
        none.value(observations("CartPole-v1"))


def test_log_probabilities_of_discrete_actions_sum_to_one() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1).learn()
    obs = observations("CartPole-v1")
    both = [agent.log_prob(obs, np.full(5, a)) for a in (0, 1)]
    assert np.exp(both).sum(0) == pytest.approx(np.ones(5), rel=1e-5)
    assert agent.log_prob(obs[0], 1) == pytest.approx(both[1][0], rel=1e-5)
    with pytest.raises(ValueError, match=r"expected actions of shape \(5,\)"):
        agent.log_prob(obs, np.zeros(4, np.int64))


@pytest.mark.parametrize("head", ["gaussian", "squashed", "beta"])
def test_log_densities_are_those_of_the_environments_actions(head: str) -> None:
    """The density integrates to 1 over the action space, which a forgotten Jacobian would not; a Gaussian's over the line."""
    agent = pg.ppo("Pendulum-v1", **SMALL, minibatches=1, head=head, log_std=-1.0 if head != "beta" else 0.0)
    obs = observations("Pendulum-v1", 1)[0]
    edge = 2.0 if head != "gaussian" else 8.0
    act = np.linspace(-edge, edge, 4001)[1:-1].astype(np.float32)
    density = np.exp(agent.log_prob(np.tile(obs, (len(act), 1)), act[:, None]))
    assert float(np.trapezoid(density, act)) == pytest.approx(1.0, abs=2e-3)
    sampled = np.concatenate([agent.predict(np.tile(obs, (4000, 1)))[0]])[:, 0]
    if head != "gaussian":  # whose actions are clipped
        below = float(np.trapezoid(density[act < 0.5], act[act < 0.5]))
        assert (sampled < 0.5).mean() == pytest.approx(below, abs=4 * math.sqrt(0.25 / 4000) + 1e-3)


def test_policies_without_a_density_say_so() -> None:
    for make, env, act in ((pg.dqn, "CartPole-v1", 0), (pg.td3, "Pendulum-v1", [0.0])):
        with pytest.raises(NoValueError, match="deterministic"):
            make(env, **REPLAY).log_prob(observations(env)[0], act)
    walks = pg.ppo("Pendulum-v1", **SMALL, minibatches=1, noise_autocorrelation=0.5)
    with pytest.raises(NoValueError, match="depends on the episode so far"):
        walks.log_prob(observations("Pendulum-v1")[0], [0.0])
    remembers = pg.ppo("CartPole-v1", **SMALL, minibatches=1, memory="gru")
    for ask in (remembers.value, lambda obs: remembers.log_prob(obs, 0)):
        with pytest.raises(NoValueError, match="depends on the episode so far"):
            ask(observations("CartPole-v1")[0])


def test_stable_baselines3_evaluates_our_agents() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecNormalize

    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1).learn()
    for env in (Monitor(gym.make("CartPole-v1")), make_vec_env("CartPole-v1", 2, seed=3)):
        mean, std = evaluation.evaluate_policy(agent, env, n_eval_episodes=4)
        assert 8.0 <= mean <= 500.0
        assert std >= 0.0
    box = pg.ppo("Pendulum-v1", **SMALL, minibatches=1)
    assert evaluation.evaluate_policy(box, Monitor(gym.make("Pendulum-v1")), 1, deterministic=False)[0] < 0.0
    for env, says in (
        (make_vec_env("CartPole-v1", 2), "use num_envs=8"),
        (VecNormalize(make_vec_env("CartPole-v1", 2)), "use normalize_obs=True"),
    ):
        with pytest.raises(TypeError, match=says):
            pg.ppo(env)


def test_what_users_try_on_an_agent_is_answered(tmp_path) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1)
    answers = {
        "record": r"policygrad\.record\(agent, path\)",
        "plot": r"policygrad\.History\(\)",
        "play": r"policygrad\.record",
        "train": r"agent\.learn",
        "act": r"agent\.predict",
        "get_action": r"agent\.predict",
        "get_action_and_value": r"agent\.value",
        "parameters": r"agent\.policy\.parameters",
    }
    for name, answer in answers.items():
        with pytest.raises(AttributeError, match=f"an Agent has no '{name}': .*{answer}"):
            getattr(agent, name)
    with pytest.raises(AttributeError, match=r"an Agent has no 'nonsense'$"):
        getattr(agent, "nonsense")  # noqa: B009
    with pytest.raises(pg.PolicygradError, match=r"use agent\.predict\(obs\)"):
        agent(np.zeros(4, np.float32))
    with pytest.raises(pg.PolicygradError, match="counted in environment steps"):
        agent.learn(episodes=5)
    for ask in (pg.plot, pg.report, pg.resume):
        with pytest.raises(pg.PolicygradError, match=r"expected a run, .* class Agent; policygrad\.History"):
            ask(agent)
    for given in ("ppo", pg.ppo):
        with pytest.raises(pg.PolicygradError, match=r"agent must be an agent, such as policygrad\.ppo"):
            pg.train(given, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_takes_an_agent_for_its_policy() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1)
    assert pg.evaluate(agent, "CartPole-v1", 3) == pg.evaluate(agent.policy, "CartPole-v1", 3) == agent.evaluate(3)
    with pytest.raises(pg.PolicygradError, match=r"policy must be an agent or its policy, .* class Linear"):
        pg.evaluate(torch.nn.Linear(4, 2), "CartPole-v1", 3)


def test_names_of_theirs() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1).learn(64)
    assert agent.steps_done == agent.num_timesteps == agent.collector.steps_done > 48
    assert f"steps_done={agent.steps_done}" in repr(agent)
    env = gym.make("CartPole-v1")
    assert agent.observation_space == env.observation_space
    assert agent.action_space == env.action_space
    action, state = agent.predict(env.reset(seed=0)[0], state=None, episode_start=np.ones(1, bool), deterministic=True)
    assert env.action_space.contains(int(action))
    assert state is None


def test_counting_on_takes_the_schedules_with_it() -> None:
    """Two calls of n steps: anew, the rate falls twice; going on, it falls over both, from where it was."""

    def rates(**keywords: Any) -> list[float]:
        agent = pg.a2c(
            "CartPole-v1", num_envs=1, num_steps=10, hidden=(2,), lr=pg.linear(1.0, 0.0), lr_schedule="constant"
        )
        seen: list[float] = []
        agent.learner.update.lr, moved = 1e-3, agent.learner.update.lr
        assert callable(moved)
        for words in ({}, keywords):
            agent.learn(100, lambda a, row: seen.append(a.collector.progress), **words)
        return seen

    anew, on = rates(), rates(reset_num_timesteps=False)
    first = len(anew) // 2
    assert anew[0] == anew[first] == 0.0
    assert on[:first] == anew[:first]
    assert 0.45 <= on[first] <= 0.5  # done / (done + 100)
    assert on == sorted(on[:first]) + sorted(on[first:])
    assert on[-1] < 1.0


def test_a_progress_bar_is_shown_if_wanted_and_taken_away(capsys, monkeypatch) -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1)
    before = agent.learn(64).num_timesteps
    assert capsys.readouterr().out == ""
    steps = agent.learn(64, progress_bar=True).num_timesteps - before  # rows that only reset are not counted
    out = capsys.readouterr().out
    assert f"100 %  {steps} of {steps} steps" in out
    assert "return" in out
    stopped = []
    monkeypatch.setattr(Lines, "stop", lambda self: stopped.append(1))

    def fail(agent: Any, row: Any) -> None:
        raise KeyError("a callback's")

    with pytest.raises(KeyError):
        agent.learn(64, fail, progress_bar=True)
    assert stopped == [1]


def test_a_body_that_policy_and_values_share_gives_values_too() -> None:
    agent = pg.ppo("CartPole-v1", **SMALL, minibatches=1, shared_body=True).learn()
    obs = observations("CartPole-v1")
    out = agent.policy.network(torch.from_numpy(obs)).detach()[:, -1]
    critic = agent.learner.critic
    assert agent.value(obs) == pytest.approx((out * critic.std + critic.mean).numpy(), rel=1e-5)


class Acted(gym.Env):
    """An environment of any action space."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 0.0, False, True, {}


ACTS: dict[str, tuple[spaces.Space, list[Any], list[Any]]] = {  # actions of the space, and what is none
    "Discrete": (spaces.Discrete(3, start=-1), [-1, 1, 1.0, np.int8(0)], [0.5, -2, 2, math.nan, "0", None, math.inf]),
    "MultiDiscrete": (
        spaces.MultiDiscrete([3, 2], start=[0, 4]),
        [[2, 5], [0.0, 4.0]],
        [[3, 4], [0, 3], [0, 6], [0.9, 4.9], [math.nan, 4]],
    ),
    "MultiBinary": (spaces.MultiBinary(2), [[0, 1], [True, False]], [[0, 2], [-1, 0], [0.5, 1]]),
    "Box": (spaces.Box(-1.0, 1.0, (2,)), [[0.5, 1.0]], [[math.nan, 0.0], [0.0, math.inf], ["a", "b"]]),
}


@pytest.mark.parametrize("name", ACTS)
def test_the_log_probability_of_what_is_no_action_is_refused(name: str) -> None:
    space, right, wrong = ACTS[name]
    agent = pg.ppo(lambda: Acted(space), **SMALL, minibatches=1)
    x = np.zeros(2, np.float32)
    for act in right:
        assert math.isfinite(agent.log_prob(x, act))
    for act in wrong:
        for obs, given in ((x, act), ([x, x], [right[0], act])):
            with pytest.raises(ValueError, match=f"expected actions of {name}"):
                agent.log_prob(obs, given)


def test_methods_of_their_policies_are_answered() -> None:
    policy = pg.ppo("CartPole-v1", **SMALL, minibatches=1).policy
    answers = {
        "predict_values": r"agent\.value\(obs\)",
        "evaluate_actions": "agent.log_prob",
        "predict": "agent.predict",
    }
    for name, words in (answers | {"get_distribution": "policy.dist"}).items():
        with pytest.raises(AttributeError, match=f"a Policy has no '{name}': .*{words}"):
            getattr(policy, name)(np.zeros(4))


# ---- what is asked wrongly, of an agent and of a policy that is served


def both(folder: Any, env: Any = "CartPole-v1", **keywords: Any) -> list[Any]:
    agent = pg.ppo(env, **SMALL | {"minibatches": 1} | keywords)
    return [agent, pg.load_policy(agent.save_policy(folder / "policy"))]


def test_deterministic_is_true_or_false(tmp_path: Any) -> None:
    for policy in both(tmp_path):
        for wrong in ("False", "true", 1, 0.0, None):
            with pytest.raises(ObservationError, match=f"expected deterministic = True or False, got {wrong!r}"):
                policy.predict(np.zeros(4), deterministic=wrong)
        assert policy.predict(np.zeros(4), deterministic=np.True_)[0] == policy.predict(np.zeros(4), np.True_)[0]


def test_tensors_are_taken_without_their_graph(tmp_path: Any) -> None:
    x = observations("CartPole-v1")
    for policy in both(tmp_path):
        expected = policy.predict(x, deterministic=True)[0]
        tensor = torch.from_numpy(x).requires_grad_()
        assert np.array_equal(policy.predict(tensor, deterministic=True)[0], expected)
        assert policy.predict(tensor[0] * 1.0, deterministic=True)[0] == expected[0]
        assert tensor.grad is None


class Seen(Acted):
    observation_space = spaces.Dict(camera=spaces.Box(0, 255, (40, 40, 3), np.uint8), mode=spaces.Discrete(3))  # pyright: ignore

    def __init__(self) -> None:
        super().__init__(spaces.Discrete(2))


def test_messages_about_observations_are_short_and_name_the_part(tmp_path: Any) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    half = picture + 0.5
    for policy in both(tmp_path, Seen, network="mlp", normalize_obs=True):
        for obs, words in (
            ({"camera": picture}, r"observation\['mode'\]"),
            ({"camera": half, "mode": 0}, r"\['camera'\].* must be uint8, got float64 with other values, such as 0.5"),
            ({"camera": picture, "mode": 7}, r"\['mode'\] of Discrete\(3"),
            ({"camera": picture.tolist(), "mod": 7}, r"got a dict with 'camera', 'mod'"),
            ([picture], r"expected an observation.*, got "),
        ):
            with pytest.raises((ValueError, pg.PolicygradError), match=words) as raised:
                policy.predict(obs)
            assert len(str(raised.value)) < 300


# ---- a served policy


@pytest.mark.parametrize("body", [None, lambda space: torch.nn.Linear(4, 3)])
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_served_policy_is_evaluated_as_the_agent_is(body: Any, memory: str, tmp_path: Any) -> None:
    keywords = {} if body is None else {"body": body}
    agent, path = pg.ppo("CartPole-v1", **SMALL, minibatches=1, memory=memory, **keywords), tmp_path / "policy"
    served = pg.load_policy(agent.save_policy(path), **keywords)
    assert served.observation_space == agent.observation_space
    assert served.action_space == agent.action_space
    for greedy in (True, False):
        assert pg.evaluate(served, "CartPole-v1", 5, greedy) == agent.evaluate(5, greedy)  # pyright: ignore
    with pytest.raises(TypeError, match=r"expected an Agent to play, got <policy of ppo.*policygrad\.load\(path\)"):
        pg.record(served, tmp_path / "x.mp4")  # pyright: ignore[reportArgumentType]
