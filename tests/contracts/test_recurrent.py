"""A recurrent policy: its state is the actor's, begins anew where episodes do, and its batches are segments of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
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
