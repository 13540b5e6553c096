"""Defects of published tutorial code, each re-created in a few lines, and the check of this library that catches it.

Every test shows the defect, shows that the check sees it, and shows that our own code passes the same check. Most checks are
one: the mean of an estimate over *all* trajectories of a small MDP is compared with the exact gradient.

| n  | defect                                                        | check                                              |
|----|---------------------------------------------------------------|----------------------------------------------------|
| 1  | the same data for several updates, without a correction       | exact gradient at the new policy; refused          |
| 2  | the loss read as a score                                      | exact J next to the loss                           |
| 3  | stuck at a policy that is certain and not the best            | exact gap to the optimum                           |
| 4  | a step so large that it undoes what the gradient promised     | `compare`: promised against real gain              |
| 5  | (T, 1) times (T,) makes (T, T)                                | exact gradient; shapes are checked                 |
| 6  | a method that is called and nowhere defined                   | two iterations on a probe                          |
| 7  | the standard deviation of one number                          | the learner refuses what is not finite             |
| 8  | returns standardised within an episode                        | exact gradient                                     |
| 9  | V fitted to standardised returns                              | exact V; `value_loss`                               |
| 10 | a time limit taken for a failure                              | exact gradient; the value a probe states           |
| 11 | log π of the clipped action; mass beyond the bounds           | quadrature                                         |
| 12 | p log p at p = 0                                              | finite entropy and gradient                        |
| 13 | softmax, then its logarithm                                   | log-probabilities in float64                       |
| 14 | γᵗ left out                                                   | exact gradient; the direction's curl               |
| 15 | a bonus for movement; a bonus that is never paid              | exact optimum of the shaped MDP                    |
| 16 | a trust region's gain of the old policy                       | exact gradient of the surrogate                    |
| 17 | the advantage fitted on the trajectories it is used on        | exact gradient over all batches                    |
| 18 | a function's name rebound to its own result                   | two iterations on a probe                          |
| 19 | KL from one sample of each state                              | exact KL, never negative                           |
| 20 | the penalty's sign                                            | exact gradient of the KL; the step's KL            |
| 21 | directions that LunarLander's engines do not have             | one step of the environment                        |
| 22 | an environment that is no longer registered                   | the error names the new one                        |
| 23 | actions paired with the state after; one reward too many      | exact gradient; shapes; exact J                    |
| 24 | Adam on the gradient of one trajectory                        | exact mean of the step                             |
| 25 | a bootstrap after a termination                               | exact V: every advantage 0                         |
| 26 | the KL estimator differentiated through its samples           | exact gradient of the KL                           |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps
from gymnasium import spaces
from torch import Tensor

from policygrad.algorithms.diagnosed import value_loss
from policygrad.algorithms.learner import Learner
from policygrad.data import Batch, Rollout, Values
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import ActionReward, Target, TimeLimit
from policygrad.envs.shaping import PotentialShaping, ShapedReward
from policygrad.envs.single import check_env_id
from policygrad.errors import PartError
from policygrad.gradient.baselines import Constant, CriticValue, CrossFit, NoBaseline, RunningMean, TimeAverage
from policygrad.gradient.estimators import (
    GAE,
    RewardToGo,
    Standardized,
    StateDiscounted,
    TDError,
    TotalReturn,
    advantages,
)
from policygrad.lab.exact import worlds
from policygrad.lab.exact.mdp import MDP, bandit, random_mdp
from policygrad.lab.exact.tabular import (
    ExactCritic,
    credited_gradient,
    enumerate_batches,
    enumerate_trajectories,
    exact_gradient,
    gradient_theorem,
    objective,
    optimal_policy,
    optimum,
    policy_matrix,
    solve,
    tabular_policy,
)
from policygrad.lab.steps.rules import compare
from policygrad.models.ascent import mean_kl
from policygrad.models.continuous import Beta, Gaussian
from policygrad.models.critic import make_critic
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy, make_policy
from policygrad.updates import ClippedSurrogate, NaturalGradient, PenalizedSurrogate, TrustRegion, VanillaGradient

TINY = 1e-12  # what rounding leaves; a defect must be beyond 1e-3


def world(gamma: float = 1.0, terminal: tuple[int, ...] = (2,), horizon: int = 3, seed: int = 3) -> MDP:
    return random_mdp(3, 2, horizon, np.random.default_rng(seed), gamma, terminal)


def policy_of(mdp: MDP, seed: int = 0) -> Policy:
    return tabular_policy(mdp, torch.Generator().manual_seed(seed))


def pi_of(mdp: MDP, policy: Policy) -> Tensor:
    return policy_matrix(mdp, policy).detach()


def J(mdp: MDP, policy: Policy) -> float:
    return float(objective(mdp, pi_of(mdp, policy)))


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


Loss = Callable[[Tensor, list[float]], Tensor]  # (log π(a_t|s_t) (T,) with its graph, rewards) → a scalar to descend


def mean_step(mdp: MDP, policy: Policy, loss: Loss) -> Tensor:
    """Minus the exact mean of the loss's gradient, as a tutorial's loop over episodes would have it."""
    rollout, p = enumerate_trajectories(mdp, policy)
    total = torch.zeros_like(policy.flat)
    for n in range(len(p)):
        T = int(rollout.mask[:, n].sum())
        logp = policy.logp(rollout.obs[:T, n], rollout.act[:T, n])
        total -= p[n] * policy.gradient(loss(logp, rollout.rew[:T, n].tolist()))
    return total


def ours(mdp: MDP, policy: Policy, estimator: Any, baseline: Any = None, values: Values | None = None) -> Tensor:
    """The exact mean of the production estimate."""
    rollout, p = enumerate_trajectories(mdp, policy)
    values = ExactCritic(mdp)(rollout, policy) if values is None else values
    adv, _ = advantages(rollout, values, estimator, baseline or NoBaseline())
    return weighted(policy, rollout, p, adv)


def weighted(policy: Policy, rollout: Rollout, p: Tensor, adv: Tensor) -> Tensor:
    """Σ_n p_n Σ_t adv ∇log π."""
    valid = rollout.valid
    weight = valid(p.expand_as(rollout.rew)) * valid(adv)
    return policy.evaluate(Batch.of(valid(rollout.obs[:-1]), valid(rollout.act))).gradient(weight).clone()


def to_go(rewards: list[float], gamma: float = 1.0) -> Tensor:
    """The tutorials' loop."""
    returns, G = [], 0.0
    for r in reversed(rewards):
        G = r + gamma * G
        returns.insert(0, G)
    return torch.tensor(returns, dtype=torch.float64)


def test_the_loop_that_the_defects_start_from_is_right():
    mdp = world()
    policy = policy_of(mdp)
    exact = exact_gradient(mdp, policy)
    assert exact.abs().max() > 0.1
    assert off(mean_step(mdp, policy, lambda logp, rew: -(logp * to_go(rew)).sum()), exact) < TINY
    assert off(ours(mdp, policy, RewardToGo()), exact) < TINY


# --- 1 to 4: habits -----------------------------------------------------------------------------------------------------


def test_01_a_second_update_with_the_same_data_is_no_gradient_of_the_new_policy():
    mdp = bandit([1.0, 0.0, 2.0])
    policy = policy_of(mdp)
    batch = worlds.exact_batch(mdp, policy)  # of the policy before its update

    def follow(weight: Callable[[Tensor], Tensor]) -> float:
        new = policy_of(mdp)
        new.flat.add_(2.0 * exact_gradient(mdp, policy))
        evaluation = new.evaluate(batch)
        return off(evaluation.gradient(weight(evaluation.logp)), exact_gradient(mdp, new))

    assert follow(lambda logp: batch.weight * batch.adv) > 0.02
    assert follow(lambda logp: PenalizedSurrogate().score_weights(logp, batch)) < TINY  # the ratio corrects for it
    with pytest.raises(ValueError, match=r"VanillaGradient.*one step.*ratio"):
        VanillaGradient(epochs=2)


def test_02_the_loss_rises_while_the_policy_gets_better_though_its_gradient_is_right():
    mdp = bandit([1.0, 0.0])

    def loss(policy: Policy) -> float:
        rollout, p = enumerate_trajectories(mdp, policy)
        return -float((p * rollout.logp[0] * rollout.rew[0]).sum())

    worse, better = policy_of(mdp), policy_of(mdp)
    worse.flat.copy_(torch.tensor([0.2, 0.8], dtype=torch.float64).log())
    better.flat.copy_(torch.tensor([0.35, 0.65], dtype=torch.float64).log())
    assert J(mdp, better) - J(mdp, worse) == pytest.approx(0.15)
    assert loss(better) > loss(worse) + 0.04
    assert off(mean_step(mdp, worse, lambda logp, rew: -(logp * to_go(rew)).sum()), exact_gradient(mdp, worse)) < TINY


def test_03_a_policy_that_is_certain_of_the_second_best_hardly_moves_and_the_gap_says_so():
    mdp = bandit([0.9, 1.0])
    gaps = {}
    rules = {"PG": VanillaGradient(0.5, optimizer="sgd"), "NPG": NaturalGradient(0.02, damping=0.0, solver="dense")}
    for name, rule in rules.items():
        policy = policy_of(mdp)
        policy.flat.copy_(torch.tensor([9.0, 0.0], dtype=torch.float64))
        assert exact_gradient(mdp, policy).norm() < 2e-5  # as small as at an optimum
        for _ in range(60):
            rule(policy, worlds.exact_batch(mdp, policy))
        gaps[name] = optimum(mdp) - J(mdp, policy)
    assert gaps["PG"] > 0.099
    assert gaps["NPG"] < 0.005


def test_04_a_step_that_is_too_long_is_seen_by_what_it_promised():
    mdp = worlds.make_mdp("two-states")
    policy = worlds.starting_policy("two-states", mdp)
    batch = worlds.exact_batch(mdp, policy)
    rules = {"PG": VanillaGradient(20.0, optimizer="sgd", max_grad_norm=None), "TRPO": TrustRegion(0.01)}
    steps = compare(policy, batch, rules, objective=worlds.exact_objective(mdp))
    promised, real = steps["PG"].predicted_gain, steps["PG"].real_gain
    assert real is not None
    assert promised > 10.0 * abs(real)
    real = steps["TRPO"].real_gain
    assert real is not None
    assert steps["TRPO"].predicted_gain == pytest.approx(real, rel=0.2)


# --- 5 to 9: a REINFORCE with baseline ----------------------------------------------------------------------------------


def test_05_a_broadcast_multiplies_every_action_with_every_advantage():
    mdp = world(terminal=(), horizon=2)
    policy = policy_of(mdp)
    exact = exact_gradient(mdp, policy)

    def broadcast(logp: Tensor, rew: list[float]) -> Tensor:
        log_probs = torch.stack([x.unsqueeze(0) for x in logp])  # (T, 1), as get_action returns one with a batch axis
        product = log_probs * (to_go(rew) - 0.3)
        assert product.shape == (2, 2)
        return -2.0 * product.mean()  # = −T · mean(log π) · mean(A)

    def as_meant(logp: Tensor, rew: list[float]) -> Tensor:
        return -2.0 * (logp * (to_go(rew) - 0.3)).mean()

    assert off(mean_step(mdp, policy, as_meant), exact) < TINY
    assert off(mean_step(mdp, policy, broadcast), exact) > 0.1
    assert off(ours(mdp, policy, RewardToGo(), Constant(0.3)), exact) < TINY
    rollout, _ = enumerate_trajectories(mdp, policy)
    with pytest.raises(ValueError, match=r"logp must be \(T, N\) = \(2, 108\), got \(2, 108, 1\)"):
        dataclasses.replace(rollout, logp=rollout.logp.unsqueeze(-1))

    class Flat(NoBaseline):  # (T,) where (T, 1) is due
        def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
            return torch.zeros(len(ret))

    one = rollout.columns([0])
    with pytest.raises(ValueError, match=r"Flat must give b as \(T, N\) = \(2, 1\), got \(2,\)"):
        advantages(one, Values.zeros(one), RewardToGo(), Flat())


def iterate(learner: Learner, env: Callable[[], gym.Env], times: int = 2) -> None:
    collector = Collector(make_envs(env, 2), seed=0)
    for _ in range(times):
        rollout = (
            roll_episodes(collector, learner.policy, 4)
            if learner.needs_episodes
            else roll_steps(collector, learner.policy, 8)
        )
        learner.step(rollout)


def test_06_a_class_that_calls_what_it_does_not_define_fails_at_its_first_update_and_our_cells_do_not():
    class REINFORCEWithBaseline:
        def __init__(self) -> None:
            self.rewards: list[float] = []

        def update(self) -> Any:
            return getattr(self, "compute_returns")()  # noqa: B009

    with pytest.raises(AttributeError, match="compute_returns"):
        REINFORCEWithBaseline().update()
    discrete, continuous = ActionReward(), Target()
    for env, baseline in ((discrete, RunningMean()), (continuous, TimeAverage())):
        policy = make_policy(env.observation_space, env.action_space, hidden=(4,))
        before = policy.flat.clone()
        iterate(Learner(policy, RewardToGo(), VanillaGradient(0.1), baseline=baseline), type(env))
        assert not torch.equal(policy.flat, before)
    incomplete: Any = REINFORCEWithBaseline()
    with pytest.raises(PartError, match="must be an estimator"):  # before a step is taken
        Learner(small_policy(discrete), incomplete, VanillaGradient())


class TutorialStandardized(Standardized):
    """(G − mean) / (std + 1e-8) of an episode, std with n − 1: for one step it is 0 / NaN."""

    def wrap(self, adv: Tensor, rollout: Rollout) -> Tensor:
        adv = adv.clone()
        for n in range(adv.shape[1]):
            rows = rollout.mask[:, n]
            adv[rows, n] = (adv[rows, n] - adv[rows, n].mean()) / (adv[rows, n].std() + 1e-8)
        return adv


@pytest.mark.filterwarnings("ignore:std\\(\\). degrees of freedom")
def test_07_an_episode_of_one_step_makes_no_number_of_the_weights():
    returns = to_go([1.0])
    assert torch.isnan((returns - returns.mean()) / (returns.std() + 1e-8)).all()
    env = ActionReward()  # episodes of one step
    policy = make_policy(env.observation_space, env.action_space, hidden=(4,))
    before = policy.flat.clone()
    with pytest.raises(FloatingPointError, match=r"the advantage is not finite \(nan\) in environment . at step 0"):
        iterate(Learner(policy, TutorialStandardized(RewardToGo()), VanillaGradient(0.1)), ActionReward)
    assert torch.equal(policy.flat, before)
    iterate(Learner(policy, Standardized(RewardToGo(), over="episode"), VanillaGradient(0.1)), ActionReward)
    assert torch.isfinite(policy.flat).all()


def balancing(steps: int = 5) -> MDP:
    """Every step pays 1; a good action goes on for certain, a bad one falls with probability ½: a CartPole of two states."""
    P = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]]])
    return MDP(P, torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]), steps, terminal=(1,))


def standardised(rew: list[float], gamma: float = 1.0) -> Tensor:
    """As tutorials do it, 0 for one step."""
    G = to_go(rew, gamma)
    return (G - G.mean()) / (G.std() + 1e-8) if len(G) > 1 else torch.zeros_like(G)


def test_08_standardised_within_the_episode_late_steps_are_bad_and_long_episodes_no_better_than_short_ones():
    mdp = balancing()
    policy = tabular_policy(mdp, scale=0.0)
    exact = exact_gradient(mdp, policy)
    for steps in (2, 3, 5):
        adv = standardised([1.0] * steps)
        assert adv[-1] < 0.0 < adv[0]  # whatever was done
        assert float(adv.sum()) == pytest.approx(0.0, abs=1e-12)  # whether it lasted or not
    mean = mean_step(mdp, policy, lambda logp, rew: -(logp * standardised(rew)).sum())
    assert off(mean, exact) > 0.1
    assert mean[:2].norm() < 0.5 * exact[:2].norm()  # less than half is left
    assert off(ours(mdp, policy, RewardToGo()), exact) < TINY
    assert (
        off(ours(mdp, policy, Standardized(RewardToGo(), over="episode")), exact) > 0.1
    )  # ours of that name is flagged, too


def test_09_v_fitted_to_standardised_returns_is_not_v():
    mdp = balancing()
    policy = policy_of(mdp)
    rollout, p = enumerate_trajectories(mdp, policy)
    weight = p.expand_as(rollout.rew)[rollout.mask]
    V = solve(mdp, pi_of(mdp, policy))[0]

    def fitted(target: Tensor) -> Tensor:
        """What least squares by time step ends at: the mean of the targets of the trajectories still running."""
        time = rollout.time[rollout.mask]
        sums = (
            torch.zeros(5, dtype=torch.float64).index_add(0, time, weight * x)
            for x in (target, torch.ones_like(target))
        )
        total, count = sums
        return total / count

    columns = [standardised(rollout.rew[rollout.mask[:, n], n].tolist()) for n in range(len(p))]
    defect = torch.zeros_like(rollout.rew)
    for n, column in enumerate(columns):
        defect[: len(column), n] = column
    values = Values.zeros(rollout)
    _, estimate = advantages(rollout, values, Standardized(RewardToGo(), over="episode"), NoBaseline())
    assert off(fitted(defect[rollout.mask]), V[:5, 0]) > 1.0
    assert off(fitted(estimate.target[rollout.mask]), V[:5, 0]) < TINY  # our target is the return, whatever the wrapper
    exact = ExactCritic(mdp)(rollout, policy)
    wrong = dataclasses.replace(exact, val=rollout.scatter(fitted(defect[rollout.mask])[rollout.time[rollout.mask]]))
    target = estimate.target
    assert value_loss(wrong, target, rollout) > 3.0 * value_loss(exact, target, rollout)  # what the metrics show


# --- 10 to 14: estimators -----------------------------------------------------------------------------------------------


def test_10_a_time_limit_is_no_failure():
    mdp = dataclasses.replace(balancing(), horizon=None, gamma=0.9)
    policy = policy_of(mdp)
    rollout, p = enumerate_trajectories(mdp, policy, limit=3)
    assert rollout.truncated.any()
    V = ExactCritic(mdp)(rollout, policy)
    exact = gradient_theorem(mdp, policy, limit=3)
    discount = mdp.gamma ** rollout.time.double()

    def tutorial(done: Tensor) -> Tensor:
        return discount * (rollout.rew + mdp.gamma * V.next_val * (1.0 - done.double()) - V.val)

    assert off(weighted(policy, rollout, p, tutorial(rollout.terminated | rollout.truncated)), exact) > 0.05
    assert off(weighted(policy, rollout, p, tutorial(rollout.terminated)), exact) < TINY
    adv, _ = advantages(rollout, V, StateDiscounted(TDError(mdp.gamma)), CriticValue())
    assert off(weighted(policy, rollout, p, adv), exact) < TINY
    # the value that the probe states solves the equation that bootstraps, and not the one that does not
    values, gamma = dict(TimeLimit.values), TimeLimit.gamma
    collected = roll_steps(Collector(make_envs(TimeLimit, 1), seed=0), small_policy(TimeLimit()), 12)
    end = collected.truncated & collected.mask
    assert end.any()
    state, after = (float(x[end][0]) for x in (collected.obs[:-1].squeeze(-1), collected.next_obs.squeeze(-1)))
    rew = float(collected.rew[end][0])
    assert rew + gamma * values[after] == pytest.approx(values[state])
    assert rew != pytest.approx(values[state])


def small_policy(env: gym.Env) -> Policy:
    return make_policy(env.observation_space, env.action_space, hidden=(4,))


def test_11_the_log_probability_belongs_to_the_action_that_was_drawn():
    """One step that pays the action clipped to ±1, π = N(μ, 1): dJ/dμ = P(|a| < 1), and E[r ∂log π/∂μ] by quadrature."""
    head, low, high = Gaussian((1,)), -1.0, 1.0
    a = torch.linspace(-12.0, 12.0, 200_001, dtype=torch.float64)
    dist = torch.zeros(1, 2, dtype=torch.float64).expand(len(a), 2)
    density = head.logp(dist, a.unsqueeze(-1)).exp()

    def mean(x: Tensor) -> float:
        return float(torch.trapezoid(density * x, a))

    def estimate(act: Tensor) -> float:
        return mean(a.clamp(low, high) * head.gradient(dist, act.unsqueeze(-1), torch.ones_like(a))[:, 0])

    exact = math.erf(math.sqrt(0.5))
    assert estimate(a) == pytest.approx(exact, rel=1e-7)  # of the draw: right for "environment with a clip in front"
    assert estimate(a.clamp(low, high)) < 0.8 * exact  # of what the environment saw: wrong
    # what the clip wastes, and bounded heads do not
    assert mean(((a < low) | (a > high)).double()) > 0.3
    bounded = Beta((1,), np.array([low]), np.array([high]))
    drawn = bounded.sample(np.zeros((1000, 2), np.float32), bounded.noise(np.random.default_rng(0), (1000,)))
    assert np.logical_and(bounded.to_env(drawn) >= low, bounded.to_env(drawn) <= high).all()
    # the collector keeps the draw
    policy = make_policy(Target().observation_space, Target().action_space, head="gaussian", hidden=(4,), log_std=3.0)
    rollout = roll_steps(Collector(make_envs(Target, 2), seed=0), policy, 20)
    space = Target().action_space
    assert isinstance(space, spaces.Box)
    assert (rollout.act.abs() > float(space.high.max())).any()
    torch.testing.assert_close(
        policy.logp(rollout.valid(rollout.obs[:-1]), rollout.valid(rollout.act)), rollout.valid(rollout.logp)
    )


def test_12_entropy_at_probability_0_is_a_number_and_so_is_its_gradient():
    logits = torch.tensor([[0.0, -200.0, 1.0]], requires_grad=True)
    probs = logits.softmax(-1)
    assert probs[0, 1] == 0.0
    entropy = -(probs * probs.log()).sum(-1).mean()
    assert torch.isnan(entropy)
    for head, out in (
        (Categorical(3), logits.detach()),
        (
            Categorical(3, masked=True),
            Categorical(3, masked=True).apply_context(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]])),
        ),
    ):
        dist = head.canonical(out)
        assert dist.exp()[0, 1] == 0.0
        two = torch.softmax(out[:, [0, 2]].double(), -1)
        assert float(head.entropy(dist)) == pytest.approx(float(-(two * two.log()).sum()), rel=1e-6)
        one = torch.ones(1)
        assert torch.isfinite(head.gradient(dist, torch.tensor([0]), one, one)).all()


def test_13_a_softmax_first_loses_the_logarithm_of_what_is_rare():
    logits = torch.tensor([[0.0, -30.0]])
    exact = float(torch.log_softmax(logits.double(), -1)[0, 1])
    rare = torch.tensor([1])
    lossy = torch.distributions.Categorical(torch.softmax(logits, -1))
    assert float(lossy.log_prob(rare)) > exact + 10.0  # clamped at float32's ε
    head = Categorical(2)
    assert float(head.logp(head.canonical(logits), rare)) == pytest.approx(exact, rel=1e-6)
    assert float(torch.distributions.Categorical(logits=logits).log_prob(rare)) == pytest.approx(exact, rel=1e-6)


def test_14_without_gamma_to_the_t_the_direction_is_the_gradient_of_no_function():
    """Nota & Thomas 2020: a gradient's Jacobian is symmetric, and this direction's is not."""
    mdp = dataclasses.replace(worlds.two_states(4), gamma=0.6)
    tutorial: Loss = lambda logp, rew: -(logp * to_go(rew, 0.6)).sum()  # noqa: E731
    discounted: Loss = lambda logp, rew: -(0.6 ** torch.arange(len(rew)).double() * logp * to_go(rew, 0.6)).sum()  # noqa: E731

    def closed(theta: tuple[float, float], drop: bool) -> Tensor:
        policy = worlds.two_logit_policy(theta)
        if not drop:
            return gradient_theorem(mdp, policy)
        return credited_gradient(mdp, policy, solve(mdp, pi_of(mdp, policy))[1])

    def curl(drop: bool, step: float = 1e-5) -> float:
        x, y = 0.3, -0.4
        right, left = closed((x + step, y), drop), closed((x - step, y), drop)
        up, down = closed((x, y + step), drop), closed((x, y - step), drop)
        return float((right - left)[1] - (up - down)[0]) / (2.0 * step)

    policy = worlds.two_logit_policy((0.3, -0.4))
    exact = exact_gradient(mdp, policy)
    assert off(mean_step(mdp, policy, tutorial), exact) > 0.1
    assert off(mean_step(mdp, policy, tutorial), closed((0.3, -0.4), drop=True)) < TINY
    assert off(mean_step(mdp, policy, discounted), exact) < TINY
    assert abs(curl(drop=True)) > 1e-2
    assert abs(curl(drop=False)) < 1e-9
    assert off(ours(mdp, policy, StateDiscounted(RewardToGo(0.6))), exact) < TINY
    assert off(ours(mdp, policy, RewardToGo(0.6)), exact) > 0.1  # ours without the wrapper is flagged, too


# --- 15: shaping --------------------------------------------------------------------------------------------------------

GOAL, GAMMA = 3, 0.95


class Line(gym.Env):
    """Positions 0 to 3, left or right; 1 for arriving at 3, the end."""

    observation_space, action_space = spaces.Box(0.0, 3.0, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x = (options or {"x": 0})["x"]
        return np.array([self.x], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x = min(max(self.x + 2 * action - 1, 0), GOAL)
        return np.array([self.x], np.float32), float(self.x == GOAL), self.x == GOAL, False, {}


def table_of(env: gym.Env) -> MDP:
    """An MDP by trying every action in every state."""
    P, r = torch.zeros(GOAL + 1, 2, GOAL + 1), torch.zeros(GOAL + 1, 2)
    P[GOAL, :, GOAL] = 1.0
    for x in range(GOAL):
        for a in range(2):
            env.reset(options={"x": x})
            after, rew, *_ = env.step(a)
            P[x, a, int(after[0])], r[x, a] = 1.0, float(rew)
    return MDP(P, r, torch.eye(GOAL + 1)[0], None, GAMMA, (GOAL,))


def test_15_paid_for_movement_the_best_is_to_go_back_and_forth_and_a_potential_cannot_do_this():
    plain = table_of(Line())

    def true_value(env: gym.Env) -> float:
        """What the shaped problem's best policy is worth in the environment's own rewards."""
        return float(objective(plain, optimal_policy(table_of(env))))

    assert optimum(plain) == pytest.approx(GAMMA**2)
    movement = ShapedReward(Line(), lambda obs, act, after, over: 0.1 * abs(float(after[0] - obs[0])))
    assert true_value(movement) == 0.0  # it never arrives
    for potential in (
        lambda obs: float(obs[0]),
        lambda obs: -7.0 * (obs[0] == 1.0),
        lambda obs: -7.0 * (obs[0] == GOAL),
    ):
        assert true_value(PotentialShaping(Line(), potential, GAMMA)) == pytest.approx(optimum(plain))


def test_15_a_bonus_for_a_positive_reward_is_never_paid_where_rewards_are_negative():
    env = gym.make("MountainCar-v0")
    env.reset(seed=0)
    setattr(env.unwrapped, "state", np.array([0.49, 0.07], np.float32))  # noqa: B010
    _, reward, terminated, _, _ = env.step(2)
    bonus = 100 if terminated and float(reward) > 0 else 0
    assert terminated
    assert bonus == 0


# --- 16 to 20: trust regions --------------------------------------------------------------------------------------------


def test_16_a_gain_of_the_old_policy_is_constant_and_promises_nothing():
    mdp = world()
    policy, other = policy_of(mdp), policy_of(mdp, 1)
    old = pi_of(mdp, policy)
    batch = worlds.exact_batch(mdp, policy)
    V, Q = solve(mdp, old)
    reached, A = worlds.occupancy(mdp, old).unsqueeze(-1), Q - V[:-1].unsqueeze(-1)

    def gain(pi: Tensor) -> Tensor:
        return (reached * pi * A).sum()

    def pseudo_code(theta_opt: Policy) -> float:
        return float(gain(old))  # pi(theta), not pi(theta_opt)

    assert pseudo_code(policy) == pseudo_code(other)
    assert abs(pseudo_code(other)) < TINY  # Σ_a π A = 0, wherever one looks
    exact = exact_gradient(mdp, policy)
    assert off(policy.gradient(gain(policy_matrix(mdp, policy))), exact) < TINY
    step, _ = NaturalGradient(0.01, damping=0.0, solver="dense").propose(policy.evaluate(batch), batch, 0.0)
    assert float(step @ exact) > 0.01
    nothing = dataclasses.replace(batch, adv=torch.zeros_like(batch.adv))
    idle, _ = NaturalGradient(0.01, damping=0.0, solver="dense").propose(policy.evaluate(batch), nothing, 0.0)
    assert not idle.any()


class FittedOnItself(TimeAverage):
    """A baseline that is fitted before it is subtracted, on the same batch."""

    def __call__(self, rollout: Rollout, ret: Tensor, values: Values) -> Tensor:
        own = TimeAverage()
        own.fit(rollout, ret)
        return own(rollout, ret, values)


def test_17_fitted_on_the_trajectories_it_is_used_on_a_baseline_shrinks_the_gradient():
    transition = torch.zeros(2, 2, 2)
    transition[:, 0, 0] = transition[:, 1, 1] = 1.0
    mdp = MDP(transition, torch.tensor([[1.0, -0.5], [0.3, 2.0]]), torch.tensor([1.0, 0.0]), 2)
    policy = policy_of(mdp)
    rollout, p = enumerate_trajectories(mdp, policy)

    def mean(baseline: Any) -> Tensor:
        total = torch.zeros_like(policy.flat)
        for batch, q in enumerate_batches(rollout, p, 2):
            adv, _ = advantages(batch, Values.zeros(batch), RewardToGo(), baseline)
            total += weighted(policy, batch, q.expand(2) / 2.0, adv)
        return total

    exact = exact_gradient(mdp, policy)
    assert off(mean(FittedOnItself()), 0.5 * exact) < TINY  # 1 − 1/N of it
    assert off(mean(FittedOnItself()), exact) > 0.1
    assert off(mean(CrossFit(TimeAverage(), 2)), exact) < TINY
    assert off(mean(NoBaseline()), exact) < TINY

    def trpo() -> int:
        return sum(1 for _ in range(K))  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore

    with pytest.raises(NameError, match="'K' is not defined"):
        trpo()


def test_18_a_name_rebound_to_its_own_result_never_runs_and_our_ppo_does():
    def sample_trajectories() -> list[int]:
        return [1]

    def ppo() -> list[int]:
        fit_trajectories = sample_trajectories()  # noqa: F823  # pyright: ignore
        sample_trajectories = fit_trajectories
        return sample_trajectories  # noqa: RET504

    assert sample_trajectories() == [1]
    with pytest.raises(UnboundLocalError, match="sample_trajectories"):
        ppo()
    env = ActionReward()
    policy, critic = small_policy(env), make_critic(env.observation_space, hidden=(4,))
    before = policy.flat.clone()
    iterate(Learner(policy, GAE(), ClippedSurrogate(1e-3, epochs=2, minibatches=2), critic=critic), ActionReward)
    assert not torch.equal(policy.flat, before)


def kl_div_trajectories(rollout: Rollout, new: Policy) -> Tensor:
    """Σ_t log π_old(a_t|s_t) − log π_new(a_t|s_t) of every trajectory, (N,), by the actions taken."""
    valid = rollout.valid
    difference = valid(rollout.logp) - new.logp(valid(rollout.obs[:-1]), valid(rollout.act)).detach()
    return rollout.scatter(difference).sum(0)


def test_19_a_kl_from_the_actions_taken_can_be_negative_and_the_exact_one_is_its_mean():
    mdp = world()
    old, new = policy_of(mdp), policy_of(mdp, 1)
    rollout, p = enumerate_trajectories(mdp, old)
    estimates = kl_div_trajectories(rollout, new)
    assert float(p[estimates < -0.01].sum()) > 0.2  # how often a trust region would be "kept" by any step at all
    batch = worlds.exact_batch(mdp, old)
    steps = float(batch.weight.sum())
    exact = mean_kl(new, old.dist(batch.obs), batch)
    assert float(p @ estimates) == pytest.approx(steps * exact, rel=1e-10)
    for n in range(len(p)):
        one = rollout.columns([n]).flatten(rollout.rew[:, [n]], "trajectory")
        assert mean_kl(new, old.dist(one.obs), one) >= 0.0


def test_20_a_penalty_with_the_wrong_sign_drives_the_policy_away():
    mdp = world()
    old, new = policy_of(mdp), policy_of(mdp, 1)
    batch = worlds.exact_batch(mdp, old)
    towards = new.gradient(
        (batch.normalized_weight * new.logp(batch.obs, batch.act)).sum()
    )  # +λ log π(θ) in what is maximised
    away = -towards  # −λ log π(θ)
    evaluation = new.evaluate(batch)
    zero = torch.zeros_like(batch.adv)
    exact = evaluation.gradient(zero, None, -batch.normalized_weight, old.dist(batch.obs))  # our −KL
    assert off(towards, exact) < TINY  # −λ KL(old ‖ new) up to a constant
    assert off(away, exact) > 0.1

    def kl_after(sign: float) -> float:
        policy = policy_of(mdp)
        for _ in range(30):
            evaluation = policy.evaluate(batch)
            ratio = (evaluation.logp - batch.logp).exp()
            policy.flat.add_(
                evaluation.gradient(batch.weight * ratio * batch.adv + sign * batch.weight * 3.0), alpha=0.1
            )
        return mean_kl(policy, old.dist(batch.obs), batch)

    production = policy_of(mdp)
    rule = PenalizedSurrogate(
        0.1, beta=3.0, target_kl=None, epochs=30, minibatches=1, optimizer="sgd", max_grad_norm=None
    )
    kl = rule(production, batch)["kl"]
    assert kl == pytest.approx(kl_after(+1.0), rel=1e-9)
    assert kl_after(-1.0) > 3.0 * kl


# --- 21, 22: environments -----------------------------------------------------------------------------------------------


def test_21_lunar_lander_has_engines_and_no_directions():
    pytest.importorskip("Box2D")

    def after(action: int) -> np.ndarray:
        env = gym.make("LunarLander-v3")
        env.reset(seed=0)
        for _ in range(10):
            env.step(action)
        obs, *_ = env.step(action)
        env.close()
        return obs

    space = gym.make("LunarLander-v3").action_space
    assert isinstance(space, spaces.Discrete)
    assert space.n == 4
    nothing, left, main, right = (after(a) for a in range(4))
    rise, turn = 3, 5  # velocity upwards, angular velocity
    assert main[rise] > nothing[rise] + 0.1  # 2 is the main engine; nothing is "down"
    assert (left[turn] - nothing[turn]) * (right[turn] - nothing[turn]) < 0.0  # 1 and 3 turn it, opposite ways
    assert max(abs(left[rise] - nothing[rise]), abs(right[rise] - nothing[rise])) < 0.1


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_22_an_environment_that_is_gone_is_answered_with_its_successor():
    with pytest.raises(gym.error.Error):
        gym.make("LunarLander-v2")
    with pytest.raises(ValueError, match="LunarLander-v2 is LunarLander-v3 now"):
        check_env_id("LunarLander-v2")
    assert check_env_id("LunarLander-v3") == "LunarLander-v3"


# --- 23 to 26 -----------------------------------------------------------------------------------------------------------


def test_23_one_step_too_many_or_too_few_is_seen():
    mdp = world(terminal=(), horizon=2)
    policy = policy_of(mdp)
    exact = exact_gradient(mdp, policy)
    rollout, p = enumerate_trajectories(mdp, policy)
    # an action credited with what follows the next one: G_{t+1}
    late = torch.cat([rollout.rew[1:], torch.zeros_like(rollout.rew[:1])])
    assert off(weighted(policy, rollout, p, late), exact) > 0.05
    # an action paired with the state that it leads to
    act, after = rollout.valid(rollout.act), rollout.valid(rollout.next_obs)
    adv, _ = advantages(rollout, Values.zeros(rollout), RewardToGo(), NoBaseline())
    weight = rollout.valid(p.expand_as(adv)) * rollout.valid(adv)
    assert off(policy.evaluate(Batch.of(after, act)).gradient(weight), exact) > 0.05
    assert off(weighted(policy, rollout, p, adv), exact) < TINY
    # a reward for s_H, to which no action belongs; T observations where there are T + 1
    longer = dataclasses.replace(mdp, horizon=3)
    assert abs(J(longer, policy) - J(mdp, policy)) > 0.05
    assert float((p * rollout.rew).sum()) == pytest.approx(J(mdp, policy), abs=TINY)
    with pytest.raises(ValueError, match=r"obs must be \(3, 108, 3\), got \(2, 108, 3\)"):
        dataclasses.replace(rollout, obs=rollout.obs[:-1])


def test_24_adam_on_one_trajectory_at_a_time_follows_the_sign_of_most_and_not_the_mean():
    """A small loss nine times in ten, a large gain else: the mean is +0.91, and most steps go down."""
    P = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[1.0, 0.0], [1.0, 0.0]]])
    reward = torch.zeros(2, 2, 2)
    reward[0, 1] = torch.tensor([-0.1, 10.0])
    mdp = MDP(P, reward, torch.tensor([1.0, 0.0]), 1)
    policy = tabular_policy(mdp, scale=0.0)
    exact = exact_gradient(mdp, policy)
    rollout, p = enumerate_trajectories(mdp, policy)

    def mean(optimizer: str) -> Tensor:
        total = torch.zeros_like(policy.flat)
        for n in range(len(p)):
            moved, one = tabular_policy(mdp, scale=0.0), rollout.columns([n])
            rule = VanillaGradient(0.01, optimizer=optimizer, max_grad_norm=None)
            rule(moved, one.flatten(one.rew, "trajectory"))
            total += p[n] * (moved.flat - policy.flat) / 0.01
        return total

    assert off(mean("sgd"), exact) < TINY
    assert cosine(mean("adam"), exact) < -0.5
    # of many trajectories at once the step has the mean's sign
    moved = tabular_policy(mdp, scale=0.0)
    VanillaGradient(0.01, optimizer="adam", max_grad_norm=None)(moved, worlds.exact_batch(mdp, policy))
    assert cosine(moved.flat - policy.flat, exact) > 0.99


def test_25_after_a_termination_there_is_nothing_to_come():
    """With the exact V of what is not random, every advantage is 0; one that bootstraps at the end has more."""
    transition = torch.zeros(3, 1, 3)
    transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 2] = 1.0
    mdp = MDP(transition, torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([1.0, 0.0, 0.0]), None, 0.9, (2,))
    policy = tabular_policy(mdp)
    rollout, _ = enumerate_trajectories(mdp, policy, limit=5)
    V = ExactCritic(mdp)(rollout, policy)
    reset = torch.where(
        rollout.terminated, V.val[0], V.next_val
    )  # V of the observation that the environment came back with
    assert (rollout.rew + mdp.gamma * reset - V.val)[rollout.mask].abs().max() > 1.0
    for estimator in (TDError(0.9), GAE(0.9, 0.95), RewardToGo(0.9)):
        adv, _ = advantages(rollout, dataclasses.replace(V, next_val=reset), estimator, CriticValue())
        assert adv[rollout.mask].abs().max() < TINY


def test_26_the_kl_estimator_differentiated_at_its_own_samples_has_no_gradient_or_the_other_kls():
    """Samples of π itself, r = ref/π: E ∇(−log r) = 0, and E ∇(r − 1 − log r) is that of KL(ref ‖ π), not KL(π ‖ ref)."""
    mdp = bandit([0.0, 0.0, 0.0])
    policy, reference = policy_of(mdp), pi_of(mdp, policy_of(mdp, 1))[0]
    pi, obs = pi_of(mdp, policy)[0], torch.ones(3, 1, dtype=torch.float64)

    def expected(estimator: Callable[[Tensor], Tensor]) -> Tensor:
        log_ratio = reference.log() - policy.logp(obs, torch.arange(3))
        return policy.gradient((pi * estimator(log_ratio)).sum())

    def of(kl: Callable[[Tensor], Tensor]) -> Tensor:
        return policy.gradient(kl(policy.logp(obs, torch.arange(3))))

    reverse = of(lambda logp: (logp.exp() * (logp - reference.log())).sum())
    forward = of(lambda logp: (reference * (reference.log() - logp)).sum())
    assert off(reverse, forward) > 0.05
    assert off(expected(lambda x: -x), torch.zeros(3).double()) < TINY
    assert off(expected(lambda x: x.exp() - 1.0 - x), forward) < TINY
    assert off(expected(lambda x: 0.5 * x.square()), reverse) < TINY
    # ours: the exact KL of the distributions, and its gradient
    new = policy.evaluate(Batch.of(obs[:1], torch.tensor([0])))
    one = torch.ones(1, dtype=torch.float64)
    assert off(new.gradient(0.0 * one, None, one, reference.log().unsqueeze(0)), forward) < TINY


def test_a_batch_is_what_an_update_sees_and_its_weights_make_the_mean_over_trajectories():
    """A mean over steps is another scale, and with episodes of different lengths another direction of the mean."""
    mdp = balancing(3)
    policy = policy_of(mdp)
    rollout, p = enumerate_trajectories(mdp, policy)
    exact = exact_gradient(mdp, policy)

    def mean(reduction: str) -> Tensor:
        total = torch.zeros_like(policy.flat)
        for n in range(len(p)):
            one = rollout.columns([n])
            adv, _ = advantages(one, Values.zeros(one), TotalReturn(), NoBaseline())
            batch: Batch = one.flatten(adv, reduction)
            total += p[n] * policy.evaluate(batch).gradient(batch.weight * batch.adv)
        return total

    assert off(mean("trajectory"), exact) < TINY
    assert off(mean("step"), exact) > 0.05
    assert math.isfinite(cosine(mean("step"), exact))
