"""The theorem for policies with a memory: over all histories of a small POMDP, the production estimate is the exact gradient.

The exact J, V(history) and ∇J come from listing all trajectories, with log-probabilities of torch.nn.GRU and torch.nn.LSTM, one
episode at a time; the production side reads recorded segments, with resets and padding in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.envs.adapters import begun
from policygrad.models.recurrent import RecurrentPolicy, make_recurrent_policy

S, A, HORIZON = 4, 2, 3  # states besides the end, actions, steps at most
SHOWN = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)  # states 2 and 3 look alike
END = S


@dataclass(frozen=True)
class Trajectory:
    """States and actions until the end or the horizon, with what the environment's part of the probability is."""

    states: tuple[int, ...]
    acts: tuple[int, ...]
    rewards: tuple[float, ...]
    chance: float

    def __len__(self) -> int:
        return len(self.acts)

    @property
    def shown(self) -> np.ndarray:
        """(T, 2) what was seen."""
        return SHOWN[list(self.states)]


@cache
def trajectories() -> tuple[Trajectory, ...]:
    """All trajectories of the POMDP: random transitions, of which some end the episode before the horizon."""
    draw = np.random.default_rng(0)
    P, r = draw.dirichlet(np.ones(S + 1), (S, A)), draw.normal(size=(S, A))
    start = np.array([0.6, 0.4])
    found, open_ = [], [Trajectory((s,), (), (), start[s]) for s in range(2)]
    while open_:
        now = open_.pop()
        s = now.states[-1]
        for a in range(A):
            acts, rewards = (*now.acts, a), (*now.rewards, float(r[s, a]))
            if len(acts) == HORIZON:
                found.append(Trajectory(now.states, acts, rewards, now.chance))
                continue
            found.append(Trajectory(now.states, acts, rewards, now.chance * P[s, a, END]))
            open_ += [Trajectory((*now.states, k), acts, rewards, now.chance * P[s, a, k]) for k in range(S)]
    return tuple(found)


def policy_of(cell: str, kernel: str = "auto", kind: type[RecurrentPolicy] = RecurrentPolicy) -> RecurrentPolicy:
    """A small policy in float64, of parameters that are not small."""
    space, draw = spaces.Box(-1.0, 1.0, (2,)), torch.Generator().manual_seed(1)
    made: Any = make_recurrent_policy(
        space, spaces.Discrete(A), memory=cell, memory_size=4, hidden=(3,), kernel=kernel
    ).double()
    made.flat.add_(0.5 * torch.randn(len(made.flat), generator=draw).double())
    made.__class__ = kind
    return made


def log_policy(policy: RecurrentPolicy) -> list[Tensor]:
    """Log π(·|history) of every trajectory, (T, A), with its graph, by torch's own layers."""
    core, all_ = policy.core, trajectories()
    out: list[Any] = [None] * len(all_)
    for length in range(1, HORIZON + 1):
        which = [i for i, each in enumerate(all_) if len(each) == length]
        obs = torch.from_numpy(np.stack([all_[i].shown for i in which], 1)).double()
        logp = core.output(core.cell(core.encoder(obs.flatten(0, 1)).view(length, len(which), -1))[0]).log_softmax(-1)
        for k, i in enumerate(which):
            out[i] = logp[:, k]
    return out


def probabilities(policy: RecurrentPolicy) -> Tensor:
    """(n,) of the trajectories, with their graph."""
    logs = [
        logp.gather(1, torch.tensor(each.acts)[:, None]).sum()
        for logp, each in zip(log_policy(policy), trajectories(), strict=True)
    ]
    return torch.stack(logs).exp() * torch.tensor([each.chance for each in trajectories()], dtype=torch.float64)


def exact_gradient(policy: RecurrentPolicy, gamma: float) -> Tensor:
    """∇ of J = Σ_τ p(τ) Σ_t γᵗ r_t, (P,)."""
    returns = [sum(gamma**t * r for t, r in enumerate(each.rewards)) for each in trajectories()]
    return policy.gradient((probabilities(policy) * torch.tensor(returns, dtype=torch.float64)).sum())


def exact_values(policy: RecurrentPolicy, gamma: float) -> list[list[float]]:
    """V of the observations and actions so far, before every step of every trajectory, and 0 after the last."""
    mass: dict[Any, float] = {}
    value: dict[Any, float] = {}
    chances = probabilities(policy).detach().tolist()
    seen = [[str((each.shown[: t + 1].tolist(), each.acts[:t])) for t in range(len(each))] for each in trajectories()]
    for p, each, keys in zip(chances, trajectories(), seen, strict=True):
        for t, key in enumerate(keys):
            to_go = sum(gamma**k * r for k, r in enumerate(each.rewards[t:]))
            mass[key], value[key] = mass.get(key, 0.0) + p, value.get(key, 0.0) + p * to_go
    return [[*(value[key] / mass[key] for key in keys), 0.0] for keys in seen]


def rollout_of(policy: RecurrentPolicy, columns: list[list[int]], gamma: float, rows: int) -> pg.Rollout:
    """Trajectories one after another in each column, with reset rows between them: as they are collected. extra: "p" and the
    exact values besides the memory.
    """
    N, all_ = len(columns), trajectories()
    chances, values = probabilities(policy).detach().numpy(), exact_values(policy, gamma)
    obs, act = np.zeros((rows + 1, N, 2), np.float32), np.zeros((rows, N), np.int64)
    rew, p, val, following = (np.zeros((rows, N)) for _ in range(4))
    mask, end, time = np.zeros((rows, N), bool), np.zeros((rows, N), bool), np.zeros((rows, N), np.int64)
    for n, column in enumerate(columns):
        t = 0
        for i in column:
            each, at = all_[i], slice(t, t + len(all_[i]))
            obs[at, n], act[at, n], rew[at, n], p[at, n] = each.shown, each.acts, each.rewards, chances[i]
            val[at, n], following[at, n] = values[i][:-1], values[i][1:]
            mask[at, n], end[at.stop - 1, n], time[at, n] = True, True, np.arange(len(each))
            obs[at.stop, n] = 7.0  # what the end shows, in a reset row
            t = at.stop + 1
    noise, state, extras = np.zeros((N, A)), policy.begin(np.zeros((N, A))), []
    for t in range(rows):
        state = begun(~mask[t] | (time[t] == 0), policy.begin(noise), state)
        _, state, extra = policy.act(obs[t], state, noise)
        extras.append(dict(extra))
    extra: dict[str, Any] = {k: torch.from_numpy(np.stack([e[k] for e in extras])) for k in extras[0]}
    extra |= {"p": torch.from_numpy(p), "val": torch.from_numpy(val), "following": torch.from_numpy(following)}
    shown, none = torch.from_numpy(obs), torch.zeros(rows, N, dtype=torch.bool)
    fields = {"act": act, "rew": rew, "terminated": end, "mask": mask, "time": time}
    tensors = {k: torch.from_numpy(x) for k, x in fields.items()}
    logp = policy.log_probs(shown[:-1], tensors["act"], extra)
    return pg.Rollout(shown, shown[1:], logp=logp, truncated=none, cut=none, extra=extra, **tensors)


class Exact(pg.NoCritic):
    """The exact values, as they stand in the rollout."""

    bootstraps = True

    def __call__(self, rollout: pg.Rollout, policy: Any) -> pg.Values:
        return pg.Values(rollout.extra["val"], rollout.extra["following"])


def by_chance(rollout: pg.Rollout) -> Tensor:
    """The weights that make a sum over all trajectories their expectation."""
    return rollout.valid(rollout.extra["p"])


def whole() -> list[list[int]]:
    """Each trajectory in a column of its own, as iterations of whole episodes have them."""
    return [[i] for i in range(len(trajectories()))]


def packed(rows: int) -> list[list[int]]:
    """As many as fit into each column, in a random order."""
    columns, left = [], np.random.default_rng(0).permutation(len(trajectories())).tolist()
    while left:
        column, t = [], 0
        while left and t + len(trajectories()[left[-1]]) <= rows:
            column.append(left.pop())
            t += len(trajectories()[column[-1]]) + 1
        columns.append(column)
    return columns


LAYOUTS: dict[str, Any] = {"whole": (whole, HORIZON), "packed": (lambda: packed(11), 11)}
ESTIMATORS = {
    "reward-to-go": (pg.RewardToGo(1.0), None),
    "reward-to-go − V": (pg.RewardToGo(1.0), Exact()),
    "discounted": (pg.StateDiscounted(pg.RewardToGo(0.8)), None),
    "TD error": (pg.TDError(1.0), Exact()),
    "GAE": (pg.GAE(1.0, 0.7), Exact()),
    "discounted GAE": (pg.StateDiscounted(pg.GAE(0.8, 0.6)), Exact()),
}


def ascent(policy: RecurrentPolicy, rule: str = "plain", **keywords: Any) -> Any:
    """A rule whose step is the gradient itself."""
    kinds = {"plain": pg.VanillaGradient, "clipped": pg.ClippedSurrogate, "penalised": pg.PenalizedSurrogate}
    return kinds[rule](1.0, optimizer="sgd", max_grad_norm=None, epochs=1, minibatches=1, **keywords)


def prepared(policy: RecurrentPolicy, estimator: str, layout: str) -> pg.Batch:
    """The batch of all trajectories."""
    made, critic = ESTIMATORS[estimator]
    columns, rows = LAYOUTS[layout]
    learner = pg.Learner(policy, made, ascent(policy), critic=critic, reduction=by_chance)  # pyright: ignore
    iteration = learner.prepare(rollout_of(policy, columns(), made.gamma, rows))
    assert iteration is not None
    return iteration.batch


def test_the_pomdp_hides_something_and_its_episodes_have_several_lengths() -> None:
    assert {len(each) for each in trajectories()} == {1, 2, 3}
    for cell in ("gru", "lstm"):
        p = probabilities(policy_of(cell))
        assert p.sum().item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_estimate_over_all_histories_is_the_exact_gradient(cell: str, layout: str, estimator: str) -> None:
    policy = policy_of(cell)
    exact = exact_gradient(policy, ESTIMATORS[estimator][0].gamma)
    batch = prepared(policy, estimator, layout)
    assert batch.segment == LAYOUTS[layout][1]
    found = policy.evaluate(batch).gradient(batch.weight * batch.adv)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


class NeverReset(RecurrentPolicy):
    """Reads a segment as if it were one episode."""

    def _segments(self, obs: Any, extra: Any, length: int) -> Any:
        return super()._segments(obs, extra, length)._replace(first=torch.zeros_like(extra["first"]))


@pytest.mark.parametrize("kernel", ["auto", "autograd"])
def test_without_resets_inside_segments_it_is_another_vector(kernel: str) -> None:
    policy, wrong = policy_of("gru", kernel), policy_of("gru", kernel, NeverReset)
    exact, batch = exact_gradient(policy, 1.0), prepared(policy, "reward-to-go", "packed")
    right = policy.evaluate(batch).gradient(batch.weight * batch.adv)
    torch.testing.assert_close(right, exact, rtol=0, atol=1e-12)
    assert (wrong.evaluate(batch).gradient(batch.weight * batch.adv) - exact).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["plain", "clipped", "penalised"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_first_order_rules_step_along_the_exact_gradient_and_minibatches_sum_to_it(cell: str, rule: str) -> None:
    policy = policy_of(cell)
    exact, batch = exact_gradient(policy, 1.0), prepared(policy, "GAE", "packed")
    before = policy.flat.clone()
    ascent(policy, rule)(policy, batch)
    torch.testing.assert_close(policy.flat - before, exact, rtol=0, atol=1e-12)
    policy.flat.copy_(before)
    total, rows = torch.zeros_like(before), 0
    for piece in batch.minibatches(3, torch.Generator().manual_seed(0)):
        share = len(piece) / len(batch)
        total += share * policy.evaluate(piece).gradient(piece.weight * piece.adv)
        rows += len(piece)
        assert len(piece) % batch.segment == 0
        assert 0 < share < 1
    assert rows == len(batch)
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("cell", "kernel"), [("gru", "auto"), ("lstm", "auto"), ("gru", "autograd")])
def test_natural_steps_solve_with_the_exact_fisher_matrix(cell: str, kernel: str) -> None:
    policy, damping = policy_of(cell, kernel), 0.01
    exact, batch = exact_gradient(policy, 1.0), prepared(policy, "reward-to-go", "packed")
    F, mass = torch.zeros(len(policy.flat), len(policy.flat)).double(), 0.0
    chances = probabilities(policy).detach().tolist()
    seen: dict[str, Tensor] = {}
    for p, each, logp in zip(chances, trajectories(), log_policy(policy), strict=True):
        for t in range(len(each)):
            key = str(each.shown[: t + 1].tolist())
            if key not in seen:
                scores = [torch.cat([g.flatten() for g in gradient_of(policy, logp[t, a])]) for a in range(A)]
                seen[key] = sum(logp[t, a].exp().item() * torch.outer(s, s) for a, s in enumerate(scores))  # pyright: ignore
            F += p * seen[key]
            mass += p
    F /= mass
    v = torch.randn(len(F), generator=torch.Generator().manual_seed(3)).double()
    found = policy.evaluate(batch).fisher_product(v, batch.normalized_weight)
    torch.testing.assert_close(found, F @ v, rtol=0, atol=1e-12)
    before = policy.flat.clone()
    pg.NaturalGradient(lr=1.0, solver="dense", damping=damping)(policy, batch)
    expected = torch.linalg.solve(F + damping * torch.eye(len(F)), exact)
    torch.testing.assert_close(policy.flat - before, expected, rtol=1e-7, atol=1e-8)


def gradient_of(policy: RecurrentPolicy, x: Tensor) -> Any:
    """Of a number of the graph, which is kept."""
    return torch.autograd.grad(x, list(policy.network.parameters()), retain_graph=True)


def test_segments_shorter_than_an_episode_cut_the_gradient_and_nothing_else() -> None:
    """Log π stays exact, since the memory is recorded; what went before the segment gets no gradient."""
    policy = policy_of("gru")
    rollout = rollout_of(policy, packed(12), 1.0, 12)
    whole_, short = (rollout.flatten(rollout.rew, by_chance, segment=k) for k in (12, 2))

    def to_columns(x: Tensor, segment: int) -> Tensor:
        return x.view(-1, rollout.mask.shape[1], segment).transpose(1, 2).flatten(0, 1)[rollout.mask]

    logp, gradients = [], []
    for batch in (whole_, short):
        evaluation = policy.evaluate(batch)
        logp.append(to_columns(evaluation.logp, batch.segment))
        gradients.append(evaluation.gradient(batch.weight).clone())
    torch.testing.assert_close(*logp, rtol=0, atol=1e-13)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4
