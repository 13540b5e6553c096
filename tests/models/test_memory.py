"""Networks with a memory against torch.nn.GRU and torch.nn.LSTM, which read one episode after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.models.memory import MemoryNetwork, Segments
from policygrad.models.recurrent import RecurrentPolicy, make_recurrent_policy
from policygrad.models.recurrent_critic import RecurrentCritic, make_recurrent_critic

THREE = spaces.Discrete(3)
OBS = spaces.Box(-1.0, 1.0, (3,))
CELLS = ["gru", "lstm"]


def policy_of(cell: str, act: spaces.Space = THREE, **keywords: Any) -> RecurrentPolicy:
    """A policy in float64 with parameters that are not small."""
    words: dict[str, Any] = {"memory_size": 6, "hidden": (5, 4)} | keywords
    policy: Any = make_recurrent_policy(OBS, act, memory=cell, **words).double()
    policy.flat.add_(0.3 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(1)).double())
    return policy


def read(network: MemoryNetwork, episode: Tensor) -> Tensor:
    """The outputs (T, outputs) of one episode (T, *) from its beginning, by torch's own layer."""
    return network.output(network.cell(network.encoder(episode).unsqueeze(1))[0].squeeze(1))


def some_segments(width: int, length: int = 7, count: int = 4) -> Segments:
    """Random segments in whose middles episodes begin, also twice in a row."""
    draw = torch.Generator().manual_seed(0)
    rows = length * count
    first = torch.rand(rows, generator=draw) < 0.3
    first[2:4] = True
    features, memory = (torch.randn(rows, k, generator=draw).double() for k in (3, width))
    return Segments(features, memory, first, length)


@pytest.mark.parametrize("cell", CELLS)
def test_segments_are_read_as_torch_reads_each_episode_alone(cell: str) -> None:
    network = policy_of(cell).core
    rows = some_segments(network.width)
    given = rows._replace(memory=torch.zeros_like(rows.memory))
    pieces = []
    for features, first in zip(rows.features.split(7), rows.first.split(7), strict=True):
        starts = [t for t in range(7) if t == 0 or first[t]]
        pieces += [read(network, features[a:b]) for a, b in zip(starts, [*starts[1:], 7], strict=True)]
    torch.testing.assert_close(network(given), torch.cat(pieces), rtol=0, atol=1e-14)
    # a memory from before counts, unless an episode begins there
    from_before = network(rows).view(4, 7, -1)[:, 0] != network(given).view(4, 7, -1)[:, 0]
    assert from_before.any(-1).tolist() == (~rows.first.view(4, 7)[:, 0]).tolist()


@pytest.mark.parametrize("act", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))], ids=["discrete", "box"])
@pytest.mark.parametrize("hidden", [(5, 4), ()])
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_closed_form_is_autograds(cell: str, activation: str, hidden: tuple[int, ...], act: spaces.Space) -> None:
    ours = policy_of(cell, act, activation=activation, hidden=hidden)
    reference = policy_of(cell, act, activation=activation, hidden=hidden, kernel="autograd")
    assert (ours.kernel.name, reference.kernel.name) == ("closed_form", "autograd")
    rows: Any = some_segments(ours.core.width)
    out = ours.kernel.forward(rows)
    torch.testing.assert_close(out, reference.kernel.forward(rows), rtol=0, atol=1e-13)
    draw = torch.Generator().manual_seed(2)
    g, v = torch.randn(*out.shape, generator=draw).double(), torch.randn(len(ours.flat), generator=draw).double()
    torch.testing.assert_close(ours.kernel.vjp(g), reference.kernel.vjp(g), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.kernel.jvp(v), reference.kernel.jvp(v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["auto", "autograd"])
@pytest.mark.parametrize("cell", CELLS)
def test_acting_step_by_step_is_what_the_batch_says(cell: str, kernel: str) -> None:
    policy = policy_of(cell, kernel=kernel)
    obs = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
    state = policy.begin(np.zeros((2, 3)))
    greedy = []
    for row in obs:
        act, state = policy.mode(row, state)
        greedy.append(act)
    for n in range(2):
        logits = read(policy.core, torch.from_numpy(obs[:, n]).double())
        assert logits.argmax(-1).tolist() == [act[n] for act in greedy]


def test_what_needs_a_memory_is_refused_without_one() -> None:
    policy, critic = policy_of("gru"), make_recurrent_critic(OBS)
    obs = torch.zeros(2, 3)
    for call in (policy.dist, policy):
        with pytest.raises(ValueError, match="'memory' and 'first' in extra"):
            call(obs)
    with pytest.raises(ValueError, match="use act and mode"):
        policy.outputs(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="call it with a rollout"):
        critic.value(obs)
    with pytest.raises(ValueError, match=r"memory must be one of \('gru', 'lstm'\), got 'rnn'"):
        make_recurrent_policy(OBS, spaces.Discrete(2), memory="rnn")


def packed_rollout(rows: int, lengths: list[list[int]], truncates: bool, seed: int = 0) -> pg.Rollout:
    """Columns of whole episodes of these lengths with reset rows between them, the last one cut at the edge."""
    N, draw = len(lengths), np.random.default_rng(seed)
    obs = draw.normal(size=(rows + 1, N, 3)).astype(np.float32)
    end, mask, cut = np.zeros((rows, N), bool), np.ones((rows, N), bool), np.zeros((rows, N), bool)
    time = np.zeros((rows, N), np.int64)
    for n, column in enumerate(lengths):
        t = 0
        for length in column:
            stop = min(t + length, rows)
            time[t:stop, n] = np.arange(stop - t)
            if t + length <= rows:
                end[stop - 1, n] = True
            if stop < rows:
                mask[stop, n] = False
            t = stop + 1
        cut[-1, n] = mask[-1, n] and not end[-1, n]
    ends = {"terminated": end & (not truncates), "truncated": end & truncates, "cut": cut, "mask": mask, "time": time}
    zeros = torch.zeros(rows, N, dtype=torch.float64)
    shown = torch.from_numpy(obs)
    return pg.Rollout(shown, shown[1:], zeros.long(), zeros, zeros, **{k: torch.from_numpy(x) for k, x in ends.items()})


class Features(nn.Module):
    """All that a critic asks of a policy."""

    segment = 0

    def features(self, obs: Tensor) -> Tensor:
        """As they are."""
        return obs.double()


def values_alone(critic: RecurrentCritic, rollout: pg.Rollout) -> tuple[Tensor, Tensor]:
    """V of every step and of the observation after it, by torch's own layer on each history. NaN where there is no step."""
    val, following = torch.full_like(rollout.rew, torch.nan), torch.full_like(rollout.rew, torch.nan)
    for t, n in rollout.mask.nonzero().tolist():
        start = t - int(rollout.time[t, n])
        history = torch.cat([rollout.obs[start : t + 1, n], rollout.next_obs[t : t + 1, n]]).double()
        val[t, n], following[t, n] = (read(critic.network, history)[-2:, 0] * critic.std + critic.mean).detach()
    return val, following


@pytest.mark.parametrize("cell", CELLS)
def test_values_are_those_of_each_history_and_go_on_over_the_edge_of_a_rollout(cell: str) -> None:
    critic: Any = make_recurrent_critic(OBS, memory=cell, memory_size=5, hidden=(4,), lr=0.0).double()
    critic.mean, critic.std, critic.var, critic.seen = 1.5, 2.0, 4.0, 10  # later fits keep the values that there are
    policy: Any = Features()
    whole = packed_rollout(12, [[3, 1, 20], [6, 4, 5]], truncates=True)
    val, following = values_alone(critic, whole)
    found = critic(whole, policy)
    torch.testing.assert_close(found.val[whole.mask], val[whole.mask], rtol=0, atol=1e-13)
    torch.testing.assert_close(found.next_val[whole.mask], following[whole.mask], rtol=0, atol=1e-13)

    def part(a: int, b: int) -> pg.Rollout:
        fields = {k: getattr(whole, k)[a:b] for k in ("act", "rew", "logp", "terminated", "truncated", "mask", "time")}
        cut = torch.zeros(b - a, 2, dtype=torch.bool)
        cut[-1] = fields["mask"][-1] & ~(fields["terminated"] | fields["truncated"])[-1]
        return pg.Rollout(whole.obs[a : b + 1], whole.obs[a + 1 : b + 1], cut=cut, **fields)

    for a, b in ((0, 5), (5, 7), (7, 12)):
        piece = part(a, b)
        found, counts = critic(piece, policy), piece.mask
        torch.testing.assert_close(found.val[counts], val[a:b][counts], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.next_val[counts], following[a:b][counts], rtol=0, atol=1e-12)
        critic.fit(piece, torch.ones_like(piece.rew), policy)  # lr = 0: only the memory moves on, and the scale
    critic(part(0, 5), policy)
    assert len(critic.reached) == 2  # a call alone moves nothing


@pytest.mark.parametrize("segment", [0, 4])
def test_the_critic_climbs_minus_half_the_mean_squared_error_of_the_steps(segment: int) -> None:
    policy: Any = Features()
    policy.segment = segment
    rollout = packed_rollout(12, [[3, 1, 20], [6, 4, 5]], truncates=False)
    target = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).double()
    target[~rollout.mask] = torch.nan  # nobody may read what is no step

    def moved(minibatches: int, lr: float) -> tuple[Any, Tensor]:
        critic: Any = make_recurrent_critic(
            OBS, memory_size=5, hidden=(4,), lr=lr, minibatches=minibatches, max_grad_norm=None
        ).double()
        before, seen = critic.flat.clone(), []
        critic.optimizer.step = lambda flat, grad, lr: seen.append(grad.clone())
        critic.regress(rollout, target, policy)
        assert torch.equal(critic.flat, before)
        return critic, torch.stack(seen)

    critic, grads = moved(1, 1.0)
    if segment == 0:  # the whole gradient, by autograd through torch's own layer
        network, errors = critic.network, []
        for n, starts in enumerate(((0, 4, 6), (0, 7, 12))):
            for a, b in zip(starts, [*starts[1:], 13], strict=True):
                steps = [t for t in range(a, min(b, 12)) if rollout.mask[t, n]]
                if steps:
                    errors.append(target[steps, n] - read(network, rollout.obs[steps, n].double())[:, 0])
        gain = -0.5 * torch.cat(errors).square().mean()
        exact = torch.cat([g.flatten() for g in torch.autograd.grad(gain, list(network.parameters()))])
        torch.testing.assert_close(grads[0], exact, rtol=0, atol=1e-13)
    _, parts = moved(2, 1.0)
    torch.testing.assert_close(parts.mean(0), grads[0], rtol=0, atol=1e-13)
