"""The bench: what the theory of policy gradients says, measured on small MDPs. Each experiment by its name:

    print(experiments.measure("surrogate", mdp="FrozenLake-v1"))

The experiments are in modules of their own, to be called with policies and MDPs that have no name. Here large MDPs get less:
fewer pairs, runs, or steps where H · S · A, the size of a table, is above 5,000 or 100,000, so that none takes long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policygrad.lab.exact.tabular import MDP, optimum
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.lab.results import Result
from policygrad.lab.results import find as find_named
from policygrad.lab.theory.ascent import AscentCase, ascend, landscapes
from policygrad.lab.theory.derivatives import three_ways
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import improvement
from policygrad.lab.theory.lemma import check_lemma, episode_limit
from policygrad.lab.theory.losses import losses
from policygrad.lab.theory.staleness import staleness
from policygrad.lab.theory.stochastic import BUDGETS, decay
from policygrad.lab.theory.surrogate import surrogate_order
from policygrad.models.policy import Policy

LARGE, VERY_LARGE = 5_000, 100_000  # H · S · A


@dataclass(frozen=True)
class Experiment:
    """What is measured, and what theory says of it; on an MDP by its name, or on the experiment's own."""

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


def _made(name: str, seed: int) -> tuple[MDP, Policy]:
    mdp = make_mdp(name, seed)
    return mdp, starting_policy(name, mdp, seed)


def by_size(mdp: MDP, small: int, large: int, very_large: int) -> int:
    """What an MDP of this size gets of something: H · S · A up to 5,000, up to 100,000, or above."""
    size = (mdp.horizon or episode_limit(mdp) or 1) * mdp.states * mdp.actions
    return small if size <= LARGE else large if size <= VERY_LARGE else very_large


EXPERIMENTS = {
    "lemma": Experiment(
        "The performance difference lemma",
        "J(π') − J(π) is the mean advantage of π along the trajectories of π'. Both sides are exact, then one from episodes.",
        _lemma,
    ),
    "surrogate": Experiment(
        "The surrogate matches to first order",
        "With the states of π instead of those of π', the error is of second order in the step, and below two bounds.",
        _surrogate,
    ),
    "improvement": Experiment(
        "A greedy step can lose, a trust region does not",
        "Policy iteration with fitted values may lose H times the worst advantage; small steps with the same values rise.",
        _improvement,
    ),
    "ascent": Experiment(
        "Gradient ascent stops where it is flat",
        "A stationary point is the maximum of a concave function; elsewhere it may be a lower hill, a saddle, a plateau.",
        _ascent,
    ),
    "sgd": Experiment(
        "Stochastic ascent finds flat places",
        "The mean of ‖∇J‖² over K steps falls as 1/√K with steps ∝ 1/√K, below 2 (J_K − J_0)/(αK) + αLσ².",
        _sgd,
    ),
    "derivatives": Experiment(
        "One derivative, three ways",
        "Differences trade truncation for rounding and cost D + 1 or 2 D evaluations; automatic differentiation does neither.",
        lambda name, seed: three_ways(make_mdp(name or "small", seed), seed),
    ),
    "loss": Experiment(
        "The loss is not performance",
        "Losses with one gradient: a constant on all rewards turns a loss that falls with J's rise into one that rises.",
        lambda name, seed: losses(*_made(name or "random", seed)),
    ),
    "staleness": Experiment(
        "Data of an older policy",
        "Uncorrected it is biased, more with every update; a trajectory's weight takes the bias away and brings variance.",
        lambda name, seed: staleness(*_made(name or "rock-paper-scissors", seed)),
    ),
}


def measure(name: str, mdp: str | None = None, seed: int = 0) -> Result:
    """One experiment, on its own MDP or on another one by its name. seed: of policies, of what is sampled, of random MDPs.

    Raises ValueError for a name that is not there, with the nearest, and for an MDP that the experiment is not for.
    """
    return find(name).run(mdp, seed)


def find(name: str) -> Experiment:
    """The experiment of this name. Raises ValueError for one that is not there, with the nearest."""
    return find_named("experiment", name, EXPERIMENTS)
