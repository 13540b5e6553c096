"""Claims: where policy gradients come to rest. Of claims that training runs are recorded for, in learning.py, what is exact:
policies that must be stochastic, local optima, what shaped rewards do to the best policy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import gymnasium as gym
import torch
from torch import Tensor, nn

from policygrad.envs.shaping import PotentialShaping, ShapedReward
from policygrad.lab.claims import Counterexample, Outcome, claim, decide
from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.mdp import MDP, from_gymnasium
from policygrad.lab.exact.tabular import (
    exact_gradient,
    greedy,
    objective,
    optimal_policy,
    optimum,
    policy_matrix,
    tabular_policy,
)
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.ascent import Path, ascend, fixed
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import cautious, improvement, shortcut
from policygrad.models.policy import Policy

TOPIC = "Policies, exploration and rewards"


def rises(path: Path) -> bool:
    """Whether no step of the ascent made J fall."""
    return all(after >= before for before, after in itertools.pairwise(path.value))


def sharing(mdp: MDP, probability: float) -> Policy:
    """Two actions, one logit each for all states: action 1 has this probability everywhere."""
    policy = tabular_policy(replace(mdp, groups=(0,) * mdp.states), scale=0.0)
    policy.flat[1] = torch.tensor(probability / (1.0 - probability), dtype=torch.float64).log()
    return policy


@claim(
    143,
    "Policy gradients have better convergence guarantees than methods that learn values, in some cases; they may "
    "end in local optima.",
    TOPIC,
    "exact",
)
def convergence() -> Outcome:
    """Exact ascent with a table, and where states look alike; fitted policy iteration there; two optima of one parameter."""
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
        f"No step of exact ascent made J fall, and with a table of logits it closed all but {max(gaps):.0e} of the "
        "gap to J* on three random MDPs. Where states look alike it came to rest (‖∇J‖ = "
        f"{alike.grad_norm[-1]:.0e}) while fitted policy iteration swings between J = {min(values):.0f} and "
        f"{max(values):.0f} for ever. But where all states share one parameter its start decides: from π(1) = 0.1 "
        f"it ends at J = {near:.2f}, from 0.5 at {far:.2f}.",
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
            f"One parameter for all states, J = 1 − p + 10 p³: from p = 0.1 ascent goes to p = 0, J = {near:.2f}, "
            "and not to 10.",
        )
        if local
        else None,
    )


def certain(mdp: MDP, actions: Sequence[int], epsilon: float = 0.0) -> Tensor:
    """One action for each group of states that look alike, with probability ε any action instead: (S, A)."""
    chosen = nn.functional.one_hot(torch.tensor(actions), mdp.actions).double()
    groups = range(mdp.states) if mdp.groups is None else mdp.groups
    return ((1.0 - epsilon) * chosen + epsilon / mdp.actions)[list(groups)]


def best_certain(mdp: MDP, epsilon: float = 0.0) -> float:
    """The best J of all policies that are greedy, or ε-greedy, in values that see the groups."""
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
    """Of claim 141, what is exact: ascent's end against every deterministic and every ε-greedy policy."""
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
        said.append(f"{world} {J} against {greedy_J} and {epsilon_J}")
    return Outcome(
        decide(all(above)),
        "J where exact ascent from random logits ends, against the best policy that is greedy, and ε-greedy with ε "
        f"= 0.1, in whatever values: {'; '.join(said)}. In the corridor π(right) = "
        f"{numbers['corridor: π(right) at the end']:.4f}, the best is 2 − √2. A value-based agent's own runs are "
        "pending: what it can represent is this.",
        numbers,
    )


def exploring() -> Outcome:
    """Of claim 144, what is exact: single changes of deterministic policies, and ascent from stochastic ones, on detours."""
    numbers, ends = {}, {}
    for length in (3, 8):
        mdp = detour(length)
        policy = tabular_policy(mdp, scale=0.0)
        ends[length] = ascend(performance(mdp, policy), policy.flat, 300).value[-1]
        numbers[f"J where ascent from uniform ends, {length} actions"] = ends[length]
    mdp = detour(3)
    lazy = float(objective(mdp, certain(mdp, (0,) * 4)))
    changes = [float(objective(mdp, certain(mdp, [int(s == k) for s in range(4)]))) for k in range(3)]
    alike = replace(mdp, groups=(0,) * 4)
    shared = ascend(performance(alike, sharing(alike, 0.1)), sharing(alike, 0.1).flat, 300).value[-1]
    numbers |= {"J of the best single change of the lazy policy": max(changes), "J from π(1) = 0.1, shared": shared}
    helps = max(changes) <= lazy and ends[3] > 9.0
    return Outcome(
        decide(helps, caveat=shared < 9.0),
        "1 at once, or 10 after n right actions. With n = 3 no single change of the deterministic policy that "
        f"takes the 1 is better ({max(changes):.0f} at most): a local optimum, which exact ascent from the uniform "
        f"policy does not end in (J = {ends[3]:.2f}, and {ends[8]:.2f} with n = 8). With one parameter for all "
        f"states there is one for stochastic policies too: from π(1) = 0.1 ascent ends at J = {shared:.2f}.",
        numbers,
    )


def lake() -> tuple[gym.Env, MDP]:
    """FrozenLake without slipping, 1 at the goal and 0 elsewhere, and its MDP without a horizon, γ = 0.99."""
    env = gym.make("FrozenLake-v1", is_slippery=False)
    return env, replace(from_gymnasium(env), horizon=None, gamma=0.99)


def cells(state: int, other: int) -> int:
    """Steps between two cells of the lake, four in a row."""
    return sum(abs(a - b) for a, b in zip(divmod(state, 4), divmod(other, 4), strict=True))


def shaped(mdp: MDP, wrapper: ShapedReward) -> MDP:
    """The MDP with the rewards of a wrapped environment whose observations are its states."""
    bonus = torch.zeros(mdp.states, mdp.actions, mdp.states, dtype=torch.float64)
    for s, a, after in (mdp.transition * mdp.live[:, None, None]).nonzero().tolist():
        bonus[s, a, after] = wrapper.bonus(s, a, after, after in mdp.terminal)
    return replace(mdp, reward=mdp.outcome + bonus)


def shaping() -> Outcome:
    """Of claim 147, what is exact: what is best on a lake under a bonus for movement and under a potential; ∇J under it."""
    env, mdp = lake()
    best, goal = optimum(mdp), mdp.states - 1

    def true_J(wrapper: ShapedReward) -> float:  # of what is best under the shaped rewards
        return float(objective(mdp, optimal_policy(shaped(mdp, wrapper))))

    sizes = (0.001, 0.01, 0.02, 0.1)
    moved = [true_J(ShapedReward(env, lambda s, a, after, over, c=c: c * cells(s, after))) for c in sizes]
    potential = PotentialShaping(env, lambda s: 0.1 * (6 - cells(s, goal)), mdp.gamma)
    kept = true_J(potential)
    policy, other = tabular_policy(mdp, scale=0.0), shaped(mdp, potential)
    gradient = exact_gradient(mdp, policy)
    same = float((exact_gradient(other, policy) - gradient).norm() / gradient.norm())
    at_once = [float(objective(mdp, greedy(m.reward))) for m in (mdp, other)]  # by the next reward alone
    changed = [c for c, J in zip(sizes, moved, strict=True) if best - 1e-9 > J]
    return Outcome(
        decide(abs(kept - best) <= 1e-9 and same <= 1e-9, caveat=bool(changed)),
        f"On a FrozenLake of 16 cells, γ = 0.99, exactly: if every cell moved pays {sizes[-1]:g} it is best to walk "
        f"for ever, J without the bonus is {moved[-1]:.2f} instead of {best:.2f}; so from "
        f"{min(changed, default=0.0):g} on, and not at {sizes[1]:g}. With a potential, the distance gone, what is "
        f"best has J = {kept:.2f}; who looks at the next reward alone gets {at_once[1]:.2f} instead of "
        f"{at_once[0]:.2f}, while ∇J stays what it is, to {same:.0e}.",
        {
            "J of the best policy": best,
            **{f"J of what is best with {c:g} a cell": J for c, J in zip(sizes, moved, strict=True)},
            "J of what is best with a potential": kept,
            "relative change of ∇J by the potential": same,
            "J by the next reward alone": at_once[0],
            "J by the next reward alone, with the potential": at_once[1],
        },
    )
