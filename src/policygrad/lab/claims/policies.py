"""Claims about the policies that can be learned, and the policies at which gradient ascent stops; exact and recorded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from policygrad.lab.claims import Counterexample, Outcome, both, claim, decide, every
from policygrad.lab.claims.recorded import difference, interval, is_recorded, load_recorded, not_recorded
from policygrad.lab.claims.tasks import detour, greedy_in_fit, irregular
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.tabular import objective, optimum, policy_matrix, tabular_policy
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.ascent import Path, ascend, fixed
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import cautious, improvement, shortcut
from policygrad.models.policy import Policy


def rises(path: Path) -> bool:
    """Whether no step of the ascent lowered J."""
    return all(after >= before for before, after in itertools.pairwise(path.value))


def sharing(mdp: MDP, probability: float) -> Policy:
    """A policy with two actions and one logit per action for all states: action 1 has this probability everywhere."""
    policy = tabular_policy(replace(mdp, groups=(0,) * mdp.states), scale=0.0)
    policy.flat[1] = torch.tensor(probability / (1.0 - probability), dtype=torch.float64).log()
    return policy


@claim(
    "Policy gradients have better convergence guarantees than methods that learn values, in some cases; "
    "they may end in local optima.",
    "exact",
)
def convergence_guarantees() -> Outcome:
    """Exact ascent with a table and where states look alike, fitted policy iteration, and two optima of one parameter."""
    paths, gaps = [], []
    for seed in range(3):
        mdp = make_mdp("small", seed, horizon=float("inf"))
        policy = tabular_policy(mdp, torch.Generator().manual_seed(seed))
        paths.append(ascend(performance(mdp, policy), policy.flat, 300))
        gaps.append((optimum(mdp) - paths[-1].value[-1]) / (optimum(mdp) - paths[-1].value[0]))
    mdp = shortcut()
    alike = ascend(performance(mdp, cautious(mdp)), cautious(mdp).flat, 300)
    values = improvement(mdp, iterations=20).paths["PI, fitted Q"][-10:]
    swings = max(values) - min(values)
    mdp = replace(detour(3), groups=(0,) * 4)
    ends = {p: ascend(performance(mdp, policy := sharing(mdp, p)), policy.flat, 300) for p in (0.1, 0.5)}
    near, far = (ends[p].value[-1] for p in (0.1, 0.5))
    local = near < far - 1.0
    guaranteed = all(map(rises, (*paths, alike, *ends.values()))) and max(gaps) < 0.01 and alike.grad_norm[-1] < 1e-3
    start = policy_matrix(mdp, sharing(mdp, 0.1)).detach()
    return Outcome(
        decide(guaranteed and swings > 1.0, caveat=local),
        "No step of exact gradient ascent lowered J. With a table of logits it closed the gap to J* up to "
        f"{max(gaps):.0e} of it, on three random MDPs. Where states look alike it converged (‖∇J‖ = "
        f"{alike.grad_norm[-1]:.0e}), while fitted policy iteration keeps changing between J = {min(values):.0f} and "
        f"{max(values):.0f}. But where all states share one parameter the result depends on the start: from π(1) = 0.1 ascent "
        f"ends at J = {near:.2f}, from 0.5 at {far:.2f}.",
        {
            "largest share of the gap to J* that is left, table": max(gaps),
            "‖∇J‖ at the end, states that look alike": alike.grad_norm[-1],
            "swing of J, fitted policy iteration": swings,
            "J where ascent ends, from π(1) = 0.1": near,
            "J where ascent ends, from π(1) = 0.5": far,
        },
        Counterexample(
            "detour",
            mdp,
            tuple(tuple(round(p, 6) for p in row) for row in start.tolist()),
            f"all states share one parameter, J = 1 − p + 10 p³; from p = 0.1 ascent goes to p = 0 and J = {near:.2f}, "
            "not to J = 10",
        )
        if local
        else None,
    )


def certain(mdp: MDP, actions: Sequence[int], epsilon: float = 0.0) -> Tensor:
    """A table (S, A): one action per group of states that look alike; with probability ε a random action instead."""
    chosen = nn.functional.one_hot(torch.tensor(actions), mdp.actions).double()
    groups = range(mdp.states) if mdp.groups is None else mdp.groups
    return ((1.0 - epsilon) * chosen + epsilon / mdp.actions)[list(groups)]


def best_certain(mdp: MDP, epsilon: float = 0.0) -> float:
    """The best J of all policies that are greedy, or ε-greedy, for values per group of states."""
    groups = range(mdp.states) if mdp.groups is None else mdp.groups
    live = {group for s, group in enumerate(groups) if s not in mdp.terminal}
    choices = [range(mdp.actions) if group in live else (0,) for group in range(max(groups) + 1)]

    def J(actions: Sequence[int]) -> float:
        try:
            return float(objective(mdp, certain(mdp, actions, epsilon)))
        except ValueError:  # an episode that need not end, at a cost for every step
            return -math.inf

    return max(map(J, itertools.product(*choices)))


STOCHASTIC = ("rock-paper-scissors", "aliased", "corridor")


def stochastic_optima() -> Outcome:
    """The exact part of `stochastic_policies`: J where ascent ends, and of every deterministic and every ε-greedy policy."""
    numbers, above, said = {}, [], []
    for world in STOCHASTIC:
        mdp = make_mdp(world)
        policy = tabular_policy(mdp, torch.Generator().manual_seed(0))
        path = ascend(performance(mdp, policy), policy.flat, 300, fixed(0.01) if world == "corridor" else None)
        found = {
            "where ascent ends": path.value[-1],
            "deterministic, best": best_certain(mdp),
            "ε-greedy, ε = 0.1, best": best_certain(mdp, 0.1),
        }
        numbers |= {f"{world}: J {name}": J for name, J in found.items()}
        above.append(path.value[-1] > max(list(found.values())[1:]) + 1e-3)
        if world == "corridor":
            policy.flat.copy_(path.theta[-1])
            numbers["corridor: π(right) at the end"] = float(policy_matrix(mdp, policy).detach()[0, 1])
        J, greedy_J, epsilon_J = (f"{x:.2f}".replace("-inf", "−∞") for x in found.values())
        said.append(f"{world} {J}, {greedy_J}, {epsilon_J}")
    return Outcome(
        decide(all(above)),
        "J where exact ascent from random logits ends, J of the best greedy policy for any values, and J of the best "
        f"ε-greedy policy with ε = 0.1: {'; '.join(said)}. In the corridor ascent ends at π(right) = "
        f"{numbers['corridor: π(right) at the end']:.4f}; 2 − √2 is best.",
        numbers,
    )


@claim("Policy gradients learn stochastic policies (value-based: difficult).", "recorded")
def stochastic_policies() -> Outcome:
    """Three tasks whose best policy is stochastic: the exact J of learned and of the best deterministic policies, and of DQN's.

    Rule: on each task J of REINFORCE's policies must be above that of the best deterministic policy, and above J of the greedy
    policies that DQN learns.
    """
    runs, values = load_recorded("stochastic"), load_recorded(VALUES) if is_recorded(VALUES) else None
    numbers: dict[str, float] = {}
    above, said = [], []
    for world in STOCHASTIC:
        task = "corridor 100" if world == "corridor" else world
        arm = runs.best(arm for arm in runs.arms if arm.startswith(f"{task}, "))
        best = best_certain(make_mdp(world, horizon=100 if world == "corridor" else None))
        J = interval(runs.final(arm))
        above.append(J.above(best))
        numbers |= {
            f"{world}: J of the learned policy": J.mean,
            f"{world}: J of the worst seed": float(runs.final(arm).min()),
            f"{world}: J of its likeliest actions": float(runs.final(arm, "greedy").mean()),
            f"{world}: best J of a deterministic policy in as many steps": best,
        }
        said.append(f"{world} {J} (worst seed {runs.final(arm).min():.3g}, best deterministic policy {best:.3g}")
        if values is not None:
            gap = difference(runs.final(arm), values.final(world, "exact"))
            above.append(gap.above(0.0))
            numbers |= {f"{world}: J of DQN's greedy policy": float(values.final(world, "exact").mean())}
            numbers[f"{world}: J of REINFORCE − DQN"] = gap.mean
            said[-1] += f"; DQN's greedy policy {interval(values.final(world, 'exact'))}, {gap} below"
    because = (
        f"J of the policies that REINFORCE learned from random logits, 20 seeds: {', '.join(f'{x})' for x in said)}."
    )
    if values is None:
        learned = replace(not_recorded(VALUES, "what DQN learns there"), numbers=numbers)
        learned = replace(learned, because=f"{because} {learned.because} {OF_TABLES}")
    else:
        learned = Outcome(decide(every(above)), because, numbers)
    return both(stochastic_optima(), learned)


VALUES = "stochastic-values"
OF_TABLES = "What Q-learning and SARSA with a table learn there is measured: `values-and-random-policies`."


@claim("Policy gradients handle continuous actions directly.", "recorded")
def continuous_actions() -> Outcome:
    """Pendulum and MountainCarContinuous: the returns of the final policy and of the first interval of training."""
    pendulum, car = load_recorded("continuous-pendulum"), load_recorded("continuous-car")
    numbers: dict[str, float] = {}
    better, said = [], []
    for arm in pendulum.arms:
        greedy, start = pendulum.final(arm, "greedy"), pendulum.curves(arm)[:, 0]
        better.append(difference(greedy, start).low > 0)
        numbers |= {f"Pendulum, {arm}": float(greedy.mean()), f"Pendulum, {arm}, worst seed": float(greedy.min())}
        numbers[f"Pendulum, {arm}, at the start"] = float(start.mean())
        said.append(
            f"{arm} {interval(greedy)} (worst seed {greedy.min():.0f}; sampled, at the start of training {start.mean():.0f})"
        )
    arrive = {arm: int((car.final(arm, "greedy") > 0).sum()) for arm in car.arms}
    least, most = min(arrive.values()), max(arrive.values())
    numbers |= {f"MountainCarContinuous, {arm}, seeds that arrive": float(n) for arm, n in arrive.items()}
    return Outcome(
        decide(any(better) and most > 0, caveat=not all(better) or least < len(car.seeds)),
        f"Greedy return on Pendulum after 100,000 steps: {', '.join(said)}. Number of seeds of {len(car.seeds)} that reach the "
        f"goal of MountainCarContinuous: {'; '.join(f'{arm} {n}' for arm, n in arrive.items())}. A Gaussian policy can act in "
        "a continuous space, but it does not always explore well.",
        numbers,
    )


@claim("The policy can be simpler than the values.", "recorded")
def policy_simpler_than_values() -> Outcome:
    """A task where a threshold is best and Q is irregular: a policy of two parameters, and polynomial fits of the exact Q.

    Rule: the policy must be worth more than the greedy one in the best linear fit. The caveat is that the task was built for
    it.
    """
    runs = load_recorded("simple-policy")
    (arm,) = runs.arms
    mdps = [irregular(32, np.random.default_rng(seed)) for seed in runs.seeds]
    top = np.array([float(mdp.reward.amax(1).mean()) for mdp in mdps])
    none = np.array([float(mdp.reward.mean()) for mdp in mdps])

    def share(J: np.ndarray) -> np.ndarray:  # 0: the uniform policy, 1: the best
        return (J - none) / (top - none)

    fits = np.array([[greedy_in_fit(mdp, degree) for degree in range(mdp.states)] for mdp in mdps])  # (seeds, 32, 2)
    learned = share(runs.final(arm, "greedy"))
    linear = share(fits[:, 1, 0])
    below = [np.flatnonzero(best - 1e-9 > J).max(initial=-1) for J, best in zip(fits[..., 0], top, strict=True)]
    degree = np.array(below) + 1  # from which on greedy in the fit is best
    enough = 2 * (1 + degree)
    gap = difference(learned, linear)
    numbers = {
        "policy of 2 parameters: share of what can be gained": float(learned.mean()),
        "greedy in the linear fit of Q, 4 parameters: share": float(linear.mean()),
        "R² of the linear fit": float(fits[:, 1, 1].mean()),
        "parameters from which on greedy in the fit of Q is best, median": float(np.median(enough)),
    }
    return Outcome(
        decide(gap.above(0.0), caveat=True),
        "The task is a bandit with 32 contexts and random rewards, drawn 20 times, whose best policy is a threshold. Of the "
        f"gain of the best policy over the uniform policy, REINFORCE with two parameters reaches {interval(learned)}. The "
        f"greedy policy for the best linear fit of the exact Q (four parameters, R² {fits[:, 1, 1].mean():.2f}) reaches "
        f"{interval(linear)}; a polynomial fit needs {np.median(enough):.0f} parameters (median) until its greedy policy is "
        "best. The task was constructed so that the policy is simpler: it shows that this can be, and not how often it is.",
        numbers,
    )
