"""Claims about exploration, local optima and shaped rewards; exact results and recorded runs."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import torch

from policygrad.envs.shaping import PotentialShaping, ShapedReward
from policygrad.lab.claims import Outcome, both, claim, decide, every, some
from policygrad.lab.claims.policies import certain, sharing
from policygrad.lab.claims.recorded import Interval, difference, interval, load_recorded, share_difference
from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.mdp import MDP, from_gymnasium
from policygrad.lab.exact.tabular import exact_gradient, greedy, objective, optimal_policy, optimum, tabular_policy
from policygrad.lab.theory.ascent import ascend
from policygrad.lab.theory.functions import performance


@claim("Entropy regularisation encourages exploration.", "recorded")
def entropy_encourages_exploration() -> Outcome:
    """Entropy, success and worst seed for bonuses of several sizes, on two FrozenLakes and MountainCarContinuous.

    Rule: on each task a bonus of some size must raise the entropy during training, and on some task a bonus of some size must
    raise the success; intervals are of differences to no bonus, made wider because one of three sizes is chosen. A caveat, if
    on a task no size raises the success, or one lowers it.
    """
    lake, car = load_recorded("entropy-lake"), load_recorded("entropy-car")
    numbers: dict[str, float] = {}
    higher: dict[str, list[Interval]] = {}
    gain: dict[str, list[Interval]] = {}
    said = []
    for task in ("FrozenLake-v1", "FrozenLake8x8-v1"):
        none, *arms = (f"{task}, entropy {size}" for size in ("0", "0.001", "0.01", "0.1"))
        for arm in (none, *arms):
            success, entropy = lake.final(arm), lake.final(arm, "entropy")
            numbers |= {f"{arm}: success": float(success.mean()), f"{arm}: success, worst seed": float(success.min())}
            numbers[f"{arm}: entropy at the end, nats"] = float(entropy.mean())
        higher[task] = [difference(lake.speed(arm, "entropy"), lake.speed(none, "entropy"), 3) for arm in arms]
        gain[task] = [difference(lake.final(arm), lake.final(none), 3) for arm in arms]
        each = (f"{lake.final(arm).mean():.2f} (worst {lake.final(arm).min():.2f})" for arm in (none, *arms))
        said.append(f"{task} {', '.join(each)} with a bonus of 0, 0.001, 0.01, 0.1")
    sizes, seeds = ("0", "0.01", "0.1", "0.3"), len(car.seeds)
    found = {size: int((car.final(f"entropy {size}", "greedy") > 0).sum()) for size in sizes}
    none = car.speed("entropy 0", "entropy")
    higher["car"] = [difference(car.speed(f"entropy {size}", "entropy"), none, 3) for size in sizes[1:]]
    gain["car"] = [share_difference(found[size], seeds, found["0"], seeds, 3) for size in sizes[1:]]
    numbers |= {f"MountainCarContinuous, entropy {size}: seeds that arrive": float(n) for size, n in found.items()}
    raised, helped = ({task: some(x.above(0.0) for x in xs) for task, xs in got.items()} for got in (higher, gain))
    hurt = any(x.high < 0 for xs in gain.values() for x in xs)
    gains = [f"{name} {', '.join(map(str, gain[task]))}" for task, name in TASK_NAMES.items()]
    return Outcome(
        decide(every([*raised.values(), some(helped.values())]), caveat=hurt or every(helped.values()) is not True),
        f"The bonus raised the entropy in {sum(x.low > 0 for xs in higher.values() for x in xs)} of 9 cases, but more "
        f"entropy did not always mean more success. Share of episodes that reach the goal, 20 seeds: {'; '.join(said)}. "
        f"Number of seeds of {seeds} that reach the goal of MountainCarContinuous: {', '.join(map(str, found.values()))} "
        f"with a bonus of {', '.join(found)}. Gain of the three sizes over no bonus, in share of episodes or of seeds, "
        f"with intervals that hold for all three at once: {'; '.join(gains)}.",
        numbers,
    )


TASK_NAMES = {"FrozenLake-v1": "4 × 4", "FrozenLake8x8-v1": "8 × 8", "car": "car"}


def exploring() -> Outcome:
    """The exact part: single changes of deterministic policies, and ascent from stochastic policies, on the task `detour`."""
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
        "The task pays 1 at once, or 10 after n right actions. With n = 3, changing a single action of the deterministic "
        f"policy that takes the 1 never helps (J = {max(changes):.0f} at most), so that it is a local optimum. Exact ascent "
        f"from the uniform policy avoids it (J = {ends[3]:.2f}, with n = 8 J = {ends[8]:.2f}). With one parameter for all "
        "states stochastic policies have a local optimum, too: from "
        f"π(1) = 0.1 ascent ends at J = {shared:.2f}.",
        numbers,
    )


@claim("Stochastic policies are more flexible and avoid local optima.", "recorded")
def stochastic_policies_avoid_local_optima() -> Outcome:
    """Rewards of 1 at once or 10 after n right actions: seeds that find the 10, from uniform and nearly certain policies.

    Rule: with n = 2 more seeds must find it from the uniform policy; a caveat, if with some n not all do.
    """
    runs = load_recorded("local-optima")
    numbers: dict[str, float] = {}
    said, share = [], {}
    for n in (2, 4, 8):
        for start in ("uniform, entropy 0", "uniform, entropy 1", "nearly certain, entropy 0"):
            arm = f"detour {n}, {start}"
            share[n, start] = float((runs.final(arm) > 5.0).mean())
            numbers[f"{arm}: share of seeds that find 10"] = share[n, start]
        said.append(
            f"with n = {n}, {share[n, 'uniform, entropy 0']:.1f} from the uniform policy, "
            f"{share[n, 'uniform, entropy 1']:.1f} if there is also an entropy bonus of 1, "
            f"{share[n, 'nearly certain, entropy 0']:.1f} from a nearly certain policy"
        )
    explored, seeds = {n: share[n, "uniform, entropy 0"] for n in (2, 4, 8)}, len(runs.seeds)
    counts = [round(seeds * x) for x in (explored[2], share[2, "nearly certain, entropy 0"])]
    learned = Outcome(
        decide(share_difference(counts[0], seeds, counts[1], seeds).above(0.0), caveat=min(explored.values()) < 1.0),
        f"Share of {len(runs.seeds)} seeds of REINFORCE that find the 10: {'; '.join(said)}.",
        numbers,
    )
    return both(exploring(), learned)


def lake() -> tuple[gym.Env, MDP]:
    """FrozenLake without slipping, 1 at the goal and 0 elsewhere, and its MDP without a horizon, γ = 0.99."""
    env = gym.make("FrozenLake-v1", is_slippery=False)
    return env, replace(from_gymnasium(env), horizon=None, gamma=0.99)


def cells(state: int, other: int) -> int:
    """Steps between two cells of the lake, four in a row."""
    return sum(abs(a - b) for a, b in zip(divmod(state, 4), divmod(other, 4), strict=True))


def shaped(mdp: MDP, wrapper: ShapedReward) -> MDP:
    """The MDP with the rewards of a wrapped environment, whose observations are the MDP's states."""
    bonus = torch.zeros(mdp.states, mdp.actions, mdp.states, dtype=torch.float64)
    for s, a, after in (mdp.transition * mdp.live[:, None, None]).nonzero().tolist():
        bonus[s, a, after] = wrapper.bonus(s, a, after, after in mdp.terminal)
    return replace(mdp, reward=mdp.outcome + bonus)


def shaping() -> Outcome:
    """The exact part: the best policies on a lake with a bonus for movement and with a potential, and ∇J with the potential."""
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
        f"On a FrozenLake of 16 cells with γ = 0.99, exactly: a bonus of {min(changed, default=0.0):g} or more per cell moved "
        f"makes it best to walk for ever, so that J without the bonus is {moved[-1]:.2f} instead of {best:.2f}; a bonus of "
        f"{sizes[1]:g} does not. With the distance as a potential, the best policy still has J = {kept:.2f} and ∇J does not "
        f"change, to {same:.0e}, while a policy that maximises only the next reward gets {at_once[1]:.2f} instead of "
        f"{at_once[0]:.2f}.",
        {
            "J of the best policy": best,
            **{f"J of the best policy for {c:g} per cell": J for c, J in zip(sizes, moved, strict=True)},
            "J of the best policy for a potential": kept,
            "relative change of ∇J by the potential": same,
            "J of the policy for the next reward only": at_once[0],
            "J of the policy for the next reward only, with the potential": at_once[1],
        },
    )


@claim("Reward shaping solves sparse rewards.", "recorded")
def shaping_solves_sparse_rewards() -> Outcome:
    """MountainCarContinuous with a small and a large bonus for movement and with a potential; returns without any bonus.

    Rule: with the potential more seeds must reach the goal than without a bonus. A caveat, if a large bonus for movement
    changes what is best, or a small one does not bring all seeds there.
    """
    runs = load_recorded("shaping")
    numbers: dict[str, float] = {}
    said, arrive = [], {}
    for arm in runs.arms:
        plain, shaped = runs.final(arm, "greedy"), runs.final(arm)
        arrive[arm] = int((plain > 0).sum())
        numbers |= {
            f"{arm}: return without bonus": float(plain.mean()),
            f"{arm}: return that was learned from": float(shaped.mean()),
            f"{arm}: seeds that arrive": float(arrive[arm]),
        }
        said.append(
            f"{arm}: {interval(plain)}, {arrive[arm]} seeds reach the goal (return in training {shaped.mean():.4g})"
        )
    changed = difference(runs.final("potential", "greedy"), runs.final("movement 100", "greedy")).low > 0
    seeds = len(runs.seeds)
    solved = share_difference(arrive["potential"], seeds, arrive["no bonus"], seeds).above(0.0)
    learned = Outcome(
        decide(solved, caveat=changed or arrive["movement 0.1"] < len(runs.seeds)),
        "Return of the greedy policy without any bonus on MountainCarContinuous, PPO, 10 seeds: "
        f"{'; '.join(said)}. With a large bonus for movement, swinging for ever earns more than reaching the goal.",
        numbers,
    )
    return both(shaping(), learned)
