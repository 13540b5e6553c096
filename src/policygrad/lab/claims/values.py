"""Claims about methods that learn values and methods that learn policies, row by row of the usual table; exact or simulated."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from policygrad.lab.claims import Counterexample, Outcome, agreed, claim, decide, every
from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import greedy, policy_matrix, tabular_policy
from policygrad.lab.exact.tabular import occupancy, optimum, solve
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.theory.improvement import shortcut
from policygrad.lab.values.contests import EPSILON, ascent_from, climb, contest, jump, loss_of_greedy, reach
from policygrad.lab.values.tables import epsilon_greedy, expected_values, learn, performance_of

DIMENSIONS = (1, 2, 4, 6)
WORLDS = ("small", "random", "gridworld", "chain")
OFFSET = 100.0  # added to every reward


def gap_of_values(mdp: MDP, epsilon: float) -> float:
    """Max |q − q^π| for the q that expected SARSA settles at, π its own ε-greedy policy; ε = 0: Q-learning."""
    choose = epsilon_greedy(epsilon)
    q = expected_values(mdp, choose)
    return float((q - solve(mdp, choose(q))[1]).abs().max())


@claim(
    "Methods based on values learn Q(s, a) and take the policy from it; policy gradients learn π(a|s) directly.",
    "exact",
)
def what_is_learned() -> Outcome:
    """The values that sweeps and transitions lead to; and the logits that ascent leads to, where the values are other ones."""
    mdps = [make_mdp(world) for world in WORLDS]
    wrong = max(gap_of_values(mdp, epsilon) for mdp in mdps for epsilon in (0.0, 0.3))
    lost = max(optimum(mdp) - performance_of(mdp, greedy(expected_values(mdp))) for mdp in mdps)
    small, generator = mdps[0], torch.Generator().manual_seed(0)
    sampled = {}
    for steps in (3, 300):
        found = learn(small, generator, acting=epsilon_greedy(0.5), steps=steps, actors=100)
        sampled[steps] = float((found.q[found.sight.rows] - expected_values(small)).abs().max())
    paid = replace(small, reward=small.outcome + OFFSET)
    moved = float((expected_values(paid) - expected_values(small)).abs().min())
    policy = tabular_policy(small, torch.Generator().manual_seed(0))
    path, other = (climb(mdp, policy, 50) for mdp in (small, paid))
    same = float((path.theta[:20] - other.theta[:20]).abs().max())
    left = optimum(small) - path.value[-1]
    return Outcome(
        decide(max(wrong, lost) <= 1e-9 and sampled[300] < 0.3 * sampled[3] and left < 0.01 and same <= 1e-6 < moved),
        f"On {len(mdps)} MDPs expected updates end at the values of their own policy, to {wrong:.0e}: those of Q-learning at "
        "q*, whose greedy policy is optimal, and those of expected SARSA at the values of its ε-greedy policy, ε = 0.3. From "
        f"sampled transitions the error of Q-learning is {sampled[3]:.2f} after 300 and {sampled[300]:.2f} after 30,000. "
        f"Exact ascent comes within {left:.0e} of J*, and no values are in its parameters: if {OFFSET:g} is added to every "
        f"reward, all of q* moves by {moved:.0f} or more, and the logits of the first 20 steps by {same:.0e}.",
        {
            "largest |q − q^π| of the learned q": wrong,
            "largest J* − J of the greedy policy": lost,
            "largest |q − q*|, 300 transitions": sampled[3],
            "largest |q − q*|, 30,000 transitions": sampled[300],
            "J* − J after 50 steps of ascent": left,
            "least change of q* with an offset": moved,
            "largest change of the logits with an offset": same,
        },
    )


@claim(
    "A small change of the values can change a greedy policy completely; the probabilities of a softmax policy change in "
    "proportion.",
    "exact",
)
def greedy_policies_jump() -> Outcome:
    """Two values, or two logits, that cross: the distance of the policies and of their J. And greedy policies near q*."""
    deltas = (1e-1, 1e-4, 1e-8, 1e-12)
    jumps = [jump(shortcut(), delta) for delta in deltas]
    complete, rise = min(j.greedy_tv for j in jumps), min(j.greedy_rise for j in jumps)
    slopes = [j.softmax_rise / j.delta for j in jumps]
    proportional = all(j.softmax_tv <= 0.5 * j.delta for j in jumps) and max(slopes) < 1.1 * min(slopes)
    losses: dict[float, list[float]] = {delta: [] for delta in (1e-6, 0.01, 0.1, 1.0)}
    shares = []
    for mdp in map(make_mdp, WORLDS):
        q, steps = expected_values(mdp), sum(mdp.gamma**t for t in range(mdp.horizon or 0))
        for delta, lost in losses.items():
            lost.append(loss_of_greedy(mdp, q, delta, 10, torch.Generator().manual_seed(0)))
            shares.append(lost[-1] / (2.0 * delta * steps))
    near = max(losses[1e-6])
    cold = jump(shortcut(), 1e-4, temperature=1e-6)
    return Outcome(
        decide(complete == 1.0 and rise > 1.0 and proportional, caveat=max(shares) <= 1.0),
        f"Where two values cross, by {deltas[-1]:g} as well as by {deltas[0]:g}, the greedy policies before and after have a "
        f"total variation distance of {complete:g}; on an MDP whose states look alike J changes by {rise:.0f}. Softmax "
        f"policies whose logits cross so differ by at most δ/2, and J by {slopes[-1]:.2g} δ. At a temperature of 1e-6 softmax "
        f"jumps, too (TV {cold.softmax_tv:.2f} for δ = 1e-4). And a jump does no harm where the values are nearly right: with "
        f"q* ± δ a greedy policy lost at most {max(shares):.0%} of the bound 2 δ Σ γᵗ on {len(WORLDS)} MDPs, and with δ = "
        f"1e-6 {near:.1g}.",
        {
            "TV of the greedy policies, δ = 1e-12": complete,
            "change of J, greedy, δ = 1e-12": rise,
            "change of J / δ, softmax": slopes[-1],
            "TV / δ, softmax": jumps[-1].softmax_tv / deltas[-1],
            "TV at temperature 1e-6, δ = 1e-4": cold.softmax_tv,
            "largest share of the bound that q* ± δ loses": max(shares),
            "loss with q* ± 1e-6": near,
        },
    )


@claim(
    "Methods based on values are mainly for discrete actions; policy gradients handle continuous ones, too.",
    "simulated",
)
def values_need_a_maximum() -> Outcome:
    """One action in [−1, 1]ᴰ: the values of a grid, the actions REINFORCE samples, and a Q whose maximum is a formula.

    Rule: REINFORCE must arrive for every D, and for D = 6 with 1,000 times fewer actions than the grid has cells. It is
    undecided where the seeds differ.
    """
    seeds, tolerance = (0, 1), 0.01
    found = {D: [reach(D, tolerance, seed) for seed in seeds] for D in DIMENSIONS}
    cells = {D: runs[0].cells for D, runs in found.items()}
    sampled = {D: max(r.sampled for r in runs) for D, runs in found.items()}
    fitted = max(r.quadratic_loss for runs in found.values() for r in runs)
    arrived = [agreed(r.sampled < math.inf for r in runs) for runs in found.values()]
    fewer = agreed(r.cells > 1e3 * r.sampled for r in found[6])
    listed = ", ".join(f"{cells[D]:,.0f} and {sampled[D]:,.0f} for D = {D}" for D in found)
    return Outcome(
        decide(every([*arrived, fewer]), caveat=cells[1] < sampled[1] or fitted <= tolerance),
        f"The best action in [−1, 1]ᴰ is to be found to {tolerance:g} in r = −‖a − a*‖². A table of values needs a grid; the "
        "numbers of its cells, each of which must be tried, and of the actions that REINFORCE with a Gaussian policy samples "
        f"(the worse of {len(seeds)} seeds) are {listed}. In one dimension the table is the better way. And the obstacle is "
        f"the maximum over actions, not the values: a quadratic Q, whose maximum is a formula, needs {found[6][0].quadratic} "
        f"actions for D = 6 and is exact here (to {fitted:.0e}), because r is quadratic.",
        {f"cells of the grid, D = {D}": n for D, n in cells.items()}
        | {f"actions that REINFORCE samples, D = {D}": n for D, n in sampled.items()}
        | {
            "actions for a quadratic Q, D = 6": float(found[6][0].quadratic),
            "largest loss of a quadratic Q": fitted,
        },
    )


RANDOM_IS_BEST = ("rock-paper-scissors", "aliased", "corridor")


@claim(
    "Where the best policy is random, policy gradients find it; for methods based on values it is difficult.",
    "simulated",
)
def values_and_random_policies() -> Outcome:
    """Q-learning and expected SARSA on three tasks whose best policy is random, and a softmax of the values.

    Rule: where ascent ends J must be above that of every policy that was learned from values, by 0.1. It is undecided where
    the seeds of one kind of policy differ.
    """
    found = {world: contest(make_mdp(world)) for world in RANDOM_IS_BEST}
    above = [
        agreed(c.gradient > J + 0.1 for J in kind) for c in found.values() for kind in (c.greedy, c.acting, c.sarsa)
    ]
    close = {world: c.softest[1] - c.gradient for world, c in found.items()}
    short = max(abs(x) for x in close.values())
    numbers: dict[str, float] = {}
    said, soft = [], []
    for world, c in found.items():
        numbers |= {
            f"{world}: J, policy gradient": c.gradient,
            f"{world}: J, greedy after Q-learning, best seed": max(c.greedy),
            f"{world}: J, ε-greedy after Q-learning, best seed": max(c.acting),
            f"{world}: J, expected SARSA": c.sarsa[0],
            f"{world}: J, softmax of the values, best temperature": c.softest[1],
            f"{world}: best temperature": c.softest[0],
        }
        of = (c.gradient, max(c.greedy), max(c.acting), c.sarsa[0])
        said.append(f"{world} " + ", ".join(f"{x:.2f}".replace("-inf", "−∞").replace("-0.00", "0.00") for x in of))
        soft.append(f"{c.softest[1] + 0.0:.2f} at {c.softest[0]:g}")
    return Outcome(
        decide(every(above), caveat=short < 0.1),
        "J where exact ascent ends, and of what is learned from sampled transitions with one row of values for states that "
        "look alike (the best of three seeds): the greedy and the ε-greedy policy of Q-learning, and expected SARSA, ε = "
        f"{EPSILON:g}: {'; '.join(said)}. It is the greedy choice that is in the way: a softmax of the values, learned by "
        f"expected SARSA, comes near the optimum at one of three temperatures (J = {', '.join(soft)}), a different one in "
        "each task.",
        {name: x for name, x in numbers.items() if math.isfinite(x)},
    )


@claim("Policy gradients may end in local optima, where Q-learning with a table does not.", "exact")
def local_optima_of_policies() -> Outcome:
    """A reward of 1 at once or 10 after n right actions: ascent with one shared parameter and with a table, and Q-learning."""
    n, start = 8, 0.1
    mdp = detour(n)
    alike = replace(mdp, groups=(0,) * mdp.states)
    shared, table = ascent_from(alike, start), ascent_from(mdp, start)
    from_uniform = ascent_from(alike, 0.5)
    best = optimum(mdp)
    q = expected_values(mdp, sweeps=n)
    found = performance_of(mdp, greedy(q))
    lazy = greedy(torch.tensor([1.0, 0.0], dtype=torch.float64).expand(mdp.states, 2))
    far = {epsilon: chance(mdp, (1.0 - epsilon) * lazy + epsilon / 2.0) for epsilon in (EPSILON, 1.0)}
    data = learn(mdp, torch.Generator().manual_seed(0), steps=150)
    stuck = performance_of(mdp, data.policy())
    pi = policy_matrix(alike, tabular_policy(alike, scale=0.0)).detach()
    local = min(shared.value[-1], from_uniform.value[-1]) < best - 1.0 and shared.grad_norm[-1] < 1e-2
    what = (
        f"all states share one row of logits; from the uniform policy ascent ends at J = {from_uniform.value[-1]:.2f}"
    )
    return Outcome(
        decide(local and found > best - 1e-9, caveat=stuck < best - 1.0),
        f"The task pays 1 at once, or {best:g} after {n} right actions. Where all states share their logits exact ascent ends "
        f"at J = {shared.value[-1]:.2f}, from π(1) = {start:g} and from the uniform policy. With a table of logits it stops "
        f"at J = {table.value[-1]:.2f} from π(1) = {start:g}, too: at ‖∇J‖ = {table.grad_norm[-1]:.0e}, a plateau. Q-learning "
        f"needs {n} sweeps of expected updates of all states and actions (J = {found:.0f}). That is because it can learn from "
        f"any data, not because it explores: with its own ε-greedy data J is {stuck:.0f} after {int(data.count.sum()):,} "
        f"transitions, as an episode goes all the way with probability {far[EPSILON]:.0e}; it is {far[1.0]:.0e} if all "
        "actions are random.",
        {
            "J where ascent ends, shared logits, from 0.1": shared.value[-1],
            "J where ascent ends, shared logits, from 0.5": from_uniform.value[-1],
            "J after the last step, a table of logits": table.value[-1],
            "J, Q-learning, expected updates": found,
            "J, Q-learning, its own data": stuck,
            "chance of going all the way, ε-greedy": far[EPSILON],
            "chance of going all the way, random": far[1.0],
        },
        Counterexample("detour", alike, tuple(tuple(row) for row in pi.tolist()), what) if local else None,
    )


def chance(mdp: MDP, pi: torch.Tensor) -> float:
    """The probability that an episode takes every action of the detour: it is in the last state, and goes on."""
    last = mdp.states - 2
    return float(occupancy(mdp, pi)[:, last].sum() * pi[last, 1])
