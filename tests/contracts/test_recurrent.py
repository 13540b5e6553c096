"""A recurrent policy: its state is the actor's, begins anew where episodes do, and its batches are segments of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.models.heads import Categorical
from policygrad.models.observations import Encoding
from policygrad.models.policy import PolicyEvaluation

OBS, WIDTH, LENGTH = spaces.Box(-1.0, 12.0, (1,)), 5, 4


class GRU(nn.Module):
    """Features (B, D) in segments of LENGTH rows, and the recorded states (B, WIDTH): the first of a segment is where it
    begins, and a state of 0 where an episode does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.output = nn.GRUCell(1, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        features, recorded = (x.unflatten(0, (-1, LENGTH)) for x in inputs)
        state, outputs = recorded[:, 0], []
        for t in range(LENGTH):
            begins = (recorded[:, t] == 0.0).all(-1, keepdim=True)
            state = self.cell(features[:, t], torch.where(begins, 0.0, state))
            outputs.append(self.output(state))
        return torch.stack(outputs, 1).flatten(0, 1)


class Recurrent(pg.Policy):
    """π(a | everything since the episode began)."""

    stateful, begins_once, segment = True, False, LENGTH  # pyright: ignore[reportAssignmentType]

    def begin(self, noise: np.ndarray) -> np.ndarray:
        return np.zeros((len(noise), WIDTH), np.float32)

    def act(self, obs: Any, state: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        with torch.no_grad():
            after = self.network.cell(torch.from_numpy(obs), torch.from_numpy(state))
            return self.head.sample(self.network.output(after).numpy(), noise), after.numpy(), {"state": state}

    def mode(self, obs: Any, state: Any = None) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            after = self.network.cell(torch.from_numpy(obs), torch.from_numpy(state))
            return self.head.mode(self.network.output(after).numpy()), after.numpy()

    def evaluate(self, batch: Any) -> Any:
        out = self.kernel.forward((self.features(batch.obs), batch.extra["state"]))  # pyright: ignore[reportArgumentType]
        dist = self.head.canonical(out)
        logp = self.head.logp(dist, batch.act)
        return PolicyEvaluation(self.kernel, self.head, out, dist, batch.act, logp, None, self.kernel.passes)

    def log_probs(self, obs: Any, act: Tensor, extra: Any = None) -> Tensor:
        with torch.no_grad():
            state = self.network.cell(obs.flatten(0, 1), extra["state"].flatten(0, 1))
            return self.head.logp(self.head.canonical(self.network.output(state)), act.flatten()).view(act.shape)


def learner() -> pg.Learner:
    torch.manual_seed(0)
    policy = Recurrent(GRU(), Categorical(2), encoding=Encoding(OBS))
    rule = pg.ClippedSurrogate(0.01, epochs=2, minibatches=3)
    return pg.Learner(policy, pg.GAE(), rule, critic=pg.make_critic(OBS, hidden=(8,)))


def test_segments_give_the_log_probabilities_of_acting_and_learning_goes_on_from_a_saved_state() -> None:
    first, again = learner(), learner()
    lengths = iter((2, 3, 5))
    collector = Collector(
        make_envs(lambda: Chain((1.0, -2.0, 0.5, 1.0, 1.0), terminate_after=next(lengths)), 3), seed=0
    )
    records = [collector.steps(first.policy, 3 * LENGTH) for _ in range(2)]
    for record in records:
        fresh = record.mask & (record.time == 0)
        assert fresh.sum() > 5
        assert (record.extra["state"][fresh] == 0.0).all()
        assert (np.abs(record.extra["state"][record.mask & (record.time > 0)]).sum(-1) > 0.0).all()
    iteration = first.prepare(pg.Rollout.of(records[0], first.policy))
    assert iteration is not None
    batch = iteration.batch
    counts = batch.weight > 0.0
    assert int(counts.sum()) == records[0].steps
    evaluated = first.policy.evaluate(batch).logp
    torch.testing.assert_close(evaluated[counts], batch.logp[counts], rtol=0, atol=1e-6)
    first.step(records[0])
    again.load_state_dict(first.state_dict())
    assert first.step(records[1]) == again.step(records[1])
    assert torch.equal(first.policy.flat, again.policy.flat)
    assert not torch.equal(first.policy.flat, learner().policy.flat)


def recurrent(task: pg.Task, *, num_steps: int = 3 * LENGTH) -> pg.Plan:
    """A recurrent policy with PPO's rule."""
    return pg.Plan(learner(), num_steps=num_steps)


def test_an_agent_with_a_state_acts_greedily_too_and_goes_on_from_a_file(tmp_path: Path) -> None:
    def env() -> Chain:
        return Chain((1.0, -2.0, 0.5), terminate_after=3)

    agent = pg.Agent(recurrent, env, num_envs=3).learn(100)
    again = pg.load(agent.save(tmp_path / "agent"), env=env, recipe=recurrent)
    obs = np.zeros((4, 1), np.float32)
    greedy = again.predict(obs, deterministic=True)[0]
    assert set(greedy.tolist()) <= {0, 1}
    assert agent.evaluate(4) == again.evaluate(4)
    # greedy actions draw nothing: the sampled ones after them are the same
    np.testing.assert_array_equal(agent.predict(obs)[0], again.predict(obs)[0])
    assert agent.collect(3).steps == 9


def test_what_segments_cannot_be_used_for_is_refused() -> None:
    def env() -> Chain:
        return Chain((1.0,) * LENGTH, terminate_after=LENGTH)  # trajectories that would divide into segments

    with pytest.raises(ValueError, match=f"segments of {LENGTH}.*num_steps"):
        pg.Agent(recurrent, env, num_envs=2, num_steps=10).learn(50)
    with pytest.raises(ValueError, match=f"segments of {LENGTH}.*gradient_meter"):
        pg.Agent(recurrent, env, num_envs=2, gradient_meter=True)
