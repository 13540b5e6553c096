"""Experiments that measure, on small MDPs, what the theory of policy gradients predicts. Each has a name:

    print(experiments.measure("surrogate", mdp="FrozenLake-v1"))

The functions in the other modules of this folder take any policy and any MDP. On large MDPs, where H · S · A is above 5,000
(CliffWalking: 19,200) or 100,000 (Taxi: 600,000), the experiments here use fewer pairs, runs, steps or components of ∇J, so
that none of them takes more than half a minute. `loss` needs an MDP without terminal states, `staleness` a horizon, and
`derivatives` states that all look different; `triad` and `pathwise` have tasks of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policygrad.lab.exact.tabular import MDP, optimum
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.lab.results import Result
from policygrad.lab.results import find_by_name as find_named
from policygrad.lab.theory.ascent import AscentCase, ascend, landscapes
from policygrad.lab.theory.delays import delayed_ascent
from policygrad.lab.theory.derivatives import three_ways
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import improvement
from policygrad.lab.theory.lemma import check_lemma, episode_limit
from policygrad.lab.theory.losses import losses
from policygrad.lab.theory.pathwise import pathwise
from policygrad.lab.theory.staleness import staleness
from policygrad.lab.theory.stochastic import BUDGETS, decay
from policygrad.lab.theory.surrogate import surrogate_order
from policygrad.lab.values.comparison import compare
from policygrad.lab.values.triad import triad
from policygrad.models.policy import Policy

LARGE, VERY_LARGE = 5_000, 100_000  # H · S · A


@dataclass(frozen=True)
class Experiment:
    """An experiment: its title, the prediction of theory, and the function that runs it. MDP None: its default MDP."""

    title: str
    says: str
    run: Callable[[str | None, int], Result]  # name of the MDP, seed


def _lemma(name: str | None, seed: int) -> Result:
    mdp = make_mdp(name or "small", seed)
    return check_lemma(mdp, by_size(mdp, 100, 100, 20), seed=seed)


def _surrogate(name: str | None, seed: int) -> Result:
    mdp, policy = _made(name or "small", seed)
    return surrogate_order(mdp, policy, seed=seed)


def _improvement(name: str | None, seed: int) -> Result:
    if name is None:
        return improvement()
    mdp, policy = _made(name, seed)
    return improvement(mdp, policy, iterations=by_size(mdp, 20, 20, 8))


def _ascent(name: str | None, seed: int) -> Result:
    if name is None:
        return landscapes()
    mdp, policy = _made(name, seed)
    path = ascend(performance(mdp, policy), policy.flat, by_size(mdp, 200, 200, 40))
    return landscapes(extra=[AscentCase(f"J of {name}", path, optimum(mdp))])


def _sgd(name: str | None, seed: int) -> Result:
    mdp, policy = _made(name or "small", seed)
    budgets, runs = BUDGETS[: by_size(mdp, 4, 3, 2)], by_size(mdp, 4, 4, 2)
    return decay(mdp, policy, budgets=budgets, runs=runs, seed=seed, limit=episode_limit(mdp))


def _values(name: str | None, seed: int) -> Result:
    mdp, policy = _made(name or "gridworld", seed)
    return compare(mdp, policy, sweeps=by_size(mdp, 100, 20, 5), seed=seed)


def _triad(name: str | None, seed: int) -> Result:
    if name is not None:
        raise ValueError("the deadly triad is shown on Baird's MDP: leave --mdp out")
    return triad()


def _delays(name: str | None, seed: int) -> Result:
    mdp, policy = _made(name or "random", seed)
    delays, updates = ((0, 1, 2, 4, 8), 24) if by_size(mdp, 1, 1, 0) else ((0, 1, 2), 6)
    return delayed_ascent(mdp, policy, delays=delays, updates=updates)


def _pathwise(name: str | None, seed: int) -> Result:
    if name is not None:
        raise ValueError(
            "score function and path are compared on one continuous action, not on an MDP with listed ones"
        )
    return pathwise(seed=seed)


def _made(name: str, seed: int) -> tuple[MDP, Policy]:
    mdp = make_mdp(name, seed)
    return mdp, starting_policy(name, mdp, seed)


def by_size(mdp: MDP, small: int, large: int, very_large: int) -> int:
    """A number chosen by the size of the MDP: H · S · A up to 5,000, up to 100,000, or above."""
    size = (mdp.horizon or episode_limit(mdp) or 1) * mdp.states * mdp.actions
    return small if size <= LARGE else large if size <= VERY_LARGE else very_large


EXPERIMENTS = {
    "lemma": Experiment(
        "The performance difference lemma",
        "J(π') − J(π) is the mean advantage of π along the trajectories of π'. Both sides are computed exactly, one also from "
        "episodes.",
        _lemma,
    ),
    "surrogate": Experiment(
        "The surrogate matches to first order",
        "If the states of π replace those of π', the error is of second order in the step, and two bounds hold.",
        _surrogate,
    ),
    "improvement": Experiment(
        "A greedy step can lower J, a trust region does not",
        "Policy iteration with fitted values may lower J by H times the worst advantage. Small steps with the same values "
        "raise it.",
        _improvement,
    ),
    "ascent": Experiment(
        "Gradient ascent stops at stationary points",
        "For a concave function a stationary point is the maximum. For others it may be a lower maximum or a saddle, and a "
        "plateau looks like one.",
        _ascent,
    ),
    "sgd": Experiment(
        "Stochastic ascent approaches stationary points",
        "With steps α ∝ 1/√K the mean of ‖∇J‖² over K steps falls as 1/√K and is at most 2 (J_K − J_0)/(αK) + αLσ².",
        _sgd,
    ),
    "derivatives": Experiment(
        "Three ways to compute one derivative",
        "Differences have a truncation or a rounding error and need D + 1 or 2 D evaluations for D parameters; automatic "
        "differentiation has no truncation error and needs one evaluation.",
        lambda name, seed: three_ways(make_mdp(name or "small", seed), seed, horizons=(1, 2, 3)),
    ),
    "loss": Experiment(
        "The loss is not performance",
        "All these losses have the same gradient. But with a constant added to all rewards or subtracted from them, the loss "
        "falls or rises while J rises.",
        lambda name, seed: losses(*_made(name or "random", seed)),
    ),
    "staleness": Experiment(
        "Data from an older policy",
        "Without a correction the gradient is biased, more with every update. Importance weights of whole trajectories remove "
        "the bias and raise the variance.",
        lambda name, seed: staleness(*_made(name or "rock-paper-scissors", seed)),
    ),
    "delays": Experiment(
        "Gradients of an older policy",
        "An asynchronous worker pushes a gradient of k updates ago. Its error grows in proportion to the delay k, and to the "
        "step size.",
        _delays,
    ),
    "pathwise": Experiment(
        "Score function or pathwise",
        "Both estimates have the mean ∇J where q is smooth, and the pathwise one has less variance. It has more where q is "
        "rough, and it is biased where q jumps.",
        _pathwise,
    ),
    "values": Experiment(
        "Values or policies",
        "With a table that tells all states apart Q-learning finds q* and a policy with J*, which ascent approaches, too. "
        "Where states look alike, a greedy policy may be worse than a random one.",
        _values,
    ),
    "triad": Experiment(
        "The deadly triad",
        "Semi-gradient TD with linear features, from off-policy data, diverges on Baird's MDP. With a table, on-policy data or "
        "no bootstrapping it does not.",
        _triad,
    ),
}


def measure(name: str, mdp: str | None = None, seed: int = 0) -> Result:
    """Run an experiment by its name, on its default MDP or on a named one. seed: of policies, samples and random MDPs.

    Raises ValueError for an unknown name, with the nearest one, and for an MDP on which the experiment is not possible.
    """
    return find_experiment(name).run(mdp, seed)


def find_experiment(name: str) -> Experiment:
    """The experiment of this name. Raises ValueError for an unknown name, with the nearest one."""
    return find_named("experiment", name, EXPERIMENTS)
