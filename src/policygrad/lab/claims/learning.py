"""Claims about learning: what recorded runs say. The rules that turn numbers into verdicts are here, the runs in recorded/.

"Speed" is the mean return over a whole training, "final" that over its last fifth; P(a > b) the probability that a run of a has
more than a run of b. Intervals are 95 %, over seeds. What is *not* here: how the runs were made (benchmarks/claims.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from policygrad.lab.claims import Outcome, Verdict, claim, decide, policies
from policygrad.lab.claims.recorded import Recorded, difference, interval, load, probability_of_improvement
from policygrad.lab.claims.tasks import greedy_in_fit, irregular
from policygrad.lab.exact.worlds import make_mdp

TOPIC, POLICIES = "Learning", "Policies, exploration and rewards"
RATES = ("0.0003", "0.001", "0.003", "0.01", "0.03")
BOUNDS = ("0.01", "0.03", "0.1")
LARGE_EFFECT = 100.0  # of CartPole's return: the lower end of an effect that is called one
SOLVED, SHARE = 400.0, 0.5  # CartPole's return of at most 500; a run that had it and then less than half of it fell


def _best(runs: Recorded, names: Iterable[str]) -> str:
    """The arm of the highest mean speed."""
    return max(names, key=lambda name: float(runs.speed(name).mean()))


def _rates(algo: str) -> list[str]:
    """An algorithm of "stability" at all its step sizes."""
    return [f"{algo}, max_kl {kl}" for kl in BOUNDS] if algo == "trpo" else [f"{algo}, lr {lr}" for lr in RATES]


def _both(exact: Outcome, recorded: Outcome) -> Outcome:
    """What is exact and what was recorded, with the weaker of the two verdicts; numbers that are finite."""
    weaker: tuple[Verdict, ...] = ("holds", "holds with caveat", "fails as stated")
    return Outcome(
        weaker[max(weaker.index(exact.verdict), weaker.index(recorded.verdict))],
        f"{exact.because} {recorded.because}",
        {name: x for name, x in {**exact.numbers, **recorded.numbers}.items() if np.isfinite(x)},
        exact.counterexample,
    )


@claim(102, "A2C and PPO reduce variance and improve sample efficiency.", TOPIC, "recorded")
def claim_102() -> Outcome:
    """Speed against plain REINFORCE, on CartPole each at its best rate and at equal ones, on Acrobot at one; errors of ĝ."""
    cart, acrobot, errors = load("stability"), load("practical-acrobot"), load("estimators-mse")
    plain = "reinforce, no baseline"
    best = _best(cart, _rates(plain))
    numbers = {f"CartPole, {best}: speed": float(cart.speed(best).mean())}
    wins, said = {}, []
    for algo in ("a2c", "ppo"):
        top = _best(cart, _rates(algo))
        at_best = probability_of_improvement(cart.speed(top), cart.speed(best))
        there = probability_of_improvement(acrobot.speed(algo), acrobot.speed(plain))
        equal = [
            probability_of_improvement(cart.speed(x), cart.speed(y))
            for x, y in zip(_rates(algo), _rates(plain), strict=True)
        ]
        wins[algo] = [at_best.low > 0.5, there.low > 0.5]
        numbers |= {f"CartPole, {top}: speed": float(cart.speed(top).mean())}
        numbers |= {f"CartPole, best rates: P({algo} > plain)": at_best.mean, f"Acrobot: P({algo} > plain)": there.mean}
        numbers |= {f"CartPole, lr {lr}: P({algo} > plain)": p.mean for lr, p in zip(RATES, equal, strict=True)}
        said.append(
            f"{top} {interval(cart.speed(top))}, P = {at_best.mean:.2f} [{at_best.low:.2f}, {at_best.high:.2f}], better at "
            f"{sum(p.low > 0.5 for p in equal)} of 5 equal rates and worse at {sum(p.high < 0.5 for p in equal)}; on "
            f"Acrobot {acrobot.speed(algo).mean():.0f} against {acrobot.speed(plain).mean():.0f}, P = {there.mean:.2f}"
        )
    total, gae = (float(errors.final(f"random: {x}", "mse").mean()) for x in ("total return", "GAE 0.95, exact V"))
    numbers |= {"error of ĝ, total return": total, "error of ĝ, GAE with V": gae}
    return Outcome(
        decide(all(map(any, wins.values())) and gae < total, caveat=not all(map(all, wins.values()))),
        f"Mean return over 100 000 steps, CartPole, each at its best of five learning rates, chosen on these seeds: {best} "
        f"{interval(cart.speed(best))}; {'. '.join(said)}. On an exact MDP, E‖ĝ − ∇J‖² / ‖∇J‖² falls from {total:.3g} "
        f"(total return) to {gae:.2g} (GAE with the exact V).",
        numbers,
    )


@claim(103, "TRPO and PPO give stable updates.", TOPIC, "recorded")
def claim_103() -> Outcome:
    """Falls on CartPole at five step sizes, worst seeds, and the largest KL of an update; PPO with and without its clip."""
    runs = load("stability")
    numbers: dict[str, float] = {}
    rate, said = {}, []
    for algo in ("reinforce", "a2c", "ppo, no clip", "ppo", "trpo"):
        arms = _rates(algo)
        got = np.concatenate([runs.curves(arm).max(1) >= SOLVED for arm in arms])
        fell = np.concatenate([runs.falls(arm, SOLVED, SHARE) for arm in arms])
        kl = float(np.median([np.nanmax(runs.arm(arm).measures["kl"], 1) for arm in arms]))
        top = max(arms, key=lambda arm: float(runs.final(arm).mean()))
        worst = float(runs.final(top).min())
        rate[algo] = fell.sum() / max(got.sum(), 1)
        numbers |= {
            f"{algo}: runs that reached {SOLVED:g}": float(got.sum()),
            f"{algo}: of these, fell below half of it": float(fell.sum()),
            f"{algo}: worst seed, best step size, final": worst,
            f"{algo}: largest KL of an update, median run, nats": kl,
        }
        said.append(f"{algo} {fell.sum()} of {got.sum()} (KL {kl:.2g}, worst seed {worst:.0f})")
    calmer = rate["ppo"] < rate["ppo, no clip"] and max(rate["ppo"], rate["trpo"]) < rate["a2c"]
    return Outcome(
        decide(calmer, caveat=rate["ppo"] + rate["trpo"] > 0.0),
        "CartPole, 10 seeds at each of five learning rates, or three bounds of the KL; of the runs that reached "
        f"{SOLVED:g}, those that fell below {SHARE * SOLVED:g} later: {', '.join(said)}. KL is the largest "
        "of a measured update, in the median run, in nats; the worst seed is that of the best step size, in the last fifth.",
        numbers,
    )


@claim(104, "Entropy regularisation encourages exploration.", POLICIES, "recorded")
def claim_104() -> Outcome:
    """Entropy, success and worst seed with bonuses of several sizes, on two FrozenLakes and MountainCarContinuous."""
    lake, car = load("entropy-lake"), load("entropy-car")
    numbers: dict[str, float] = {}
    higher, gain, said = [], [], []
    for task in ("FrozenLake-v1", "FrozenLake8x8-v1"):
        arms = {size: f"{task}, entropy {size}" for size in ("0", "0.001", "0.01", "0.1")}
        for size, arm in arms.items():
            success, entropy = lake.final(arm), lake.final(arm, "entropy")
            numbers |= {f"{arm}: success": float(success.mean()), f"{arm}: success, worst seed": float(success.min())}
            numbers[f"{arm}: entropy at the end, nats"] = float(entropy.mean())
            if size != "0":
                higher.append(difference(lake.speed(arm, "entropy"), lake.speed(arms["0"], "entropy")))
                gain.append(difference(success, lake.final(arms["0"])))
        each = (f"{lake.final(arm).mean():.2f} (worst {lake.final(arm).min():.2f})" for arm in arms.values())
        said.append(f"{task} {', '.join(each)} with {', '.join(arms)}")
    found = {size: int((car.final(f"entropy {size}", "greedy") > 0).sum()) for size in ("0", "0.01", "0.1", "0.3")}
    numbers |= {f"MountainCarContinuous, entropy {size}: seeds that arrive": float(n) for size, n in found.items()}
    raised = sum(x.low > 0 for x in higher)
    helped = any(x.low > 0 for x in gain) or max(found.values()) >= found["0"] + 5
    hurt = any(x.high < 0 for x in gain)
    return Outcome(
        decide(raised > 0 and helped, caveat=hurt or raised < len(higher)),
        f"The bonus raised the entropy in {raised} of {len(higher)} cases, which is not to find more. Share of episodes "
        f"that reach the goal, 20 seeds: {'; '.join(said)}. MountainCarContinuous, seeds of 10 that arrive: "
        f"{', '.join(map(str, found.values()))} with {', '.join(found)}.",
        numbers,
    )


@claim(107, "Results are sensitive to learning rate, entropy coefficient and discount.", TOPIC, "recorded")
def claim_107() -> Outcome:
    """The largest effect of each factor, the two others held, in a map of A2C with 5 seeds a cell."""
    runs = load("sensitivity")
    cells = {tuple(part.split(" ")[1] for part in arm.split(", ")): arm for arm in runs.arms}
    mean = {cell: float(runs.final(arm).mean()) for cell, arm in cells.items()}
    top, bottom = max(mean, key=lambda cell: mean[cell]), min(mean, key=lambda cell: mean[cell])
    good = sum(value >= 0.9 * mean[top] for value in mean.values())
    numbers = {"best cell": mean[top], "worst cell": mean[bottom], "cells within 10 % of the best": float(good)}
    seen, said = [], []
    for k, factor in enumerate(("learning rate", "entropy coefficient", "discount")):
        pairs = [(a, b) for a, b in itertools.permutations(cells, 2) if [i for i in range(3) if a[i] != b[i]] == [k]]
        a, b = max(pairs, key=lambda pair: mean[pair[0]] - mean[pair[1]])
        gap = difference(runs.final(cells[a]), runs.final(cells[b]))
        seen.append(gap.low > LARGE_EFFECT)
        numbers |= {f"largest effect of the {factor}": gap.mean, f"largest effect of the {factor}, lower end": gap.low}
        said.append(f"the {factor} makes {gap} ({a[k]} against {b[k]})")
    lake = load("entropy-lake")
    arms = ["FrozenLake-v1, entropy 0.01", "FrozenLake-v1, entropy 0.1"]
    some, much = (interval(lake.final(arm)) for arm in arms)
    numbers |= {f"{arm}: success": x.mean for arm, x in zip(arms, (some, much), strict=True)}
    seen[1] = seen[1] or some.low > 2.0 * much.high
    return Outcome(
        decide(any(seen), caveat=not all(seen)),
        f"A2C on CartPole, return over the last fifth of 60 000 steps: {mean[bottom]:.0f} in the worst of {len(mean)} "
        f"cells, {mean[top]:.0f} in the best, {good} within 10 % of it. Changed alone, in the cells where it matters most, "
        f"{', '.join(said)}: with 5 seeds only an interval above {LARGE_EFFECT:g} is more than noise. On FrozenLake the "
        f"entropy coefficient decides: success {some} with 0.01, {much} with 0.1.",
        numbers,
    )


@claim(113, "Return normalisation is recommended.", TOPIC, "recorded")
def claim_113() -> Outcome:
    """REINFORCE on CartPole, rewards times 1 and 100: raw returns, standardised over the batch, over each episode."""
    runs = load("normalisation")
    scales = ("1", "100")
    numbers: dict[str, float] = {}
    final: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for optimizer, way in itertools.product(("sgd", "adam"), ("no", "batch", "episode")):
        final[optimizer, way] = {
            scale: runs.final(f"{optimizer}, {way}, rewards x {scale}") / float(scale) for scale in scales
        }
        numbers |= {f"{optimizer}, {way}, rewards x {s}": float(x.mean()) for s, x in final[optimizer, way].items()}

    def worst(optimizer: str, way: str) -> float:
        return min(float(x.mean()) for x in final[optimizer, way].values())

    def line(optimizer: str, way: str) -> str:
        return " / ".join(f"{x.mean():.0f}" for x in final[optimizer, way].values())

    helps = worst("sgd", "batch") > worst("sgd", "no")
    biased = difference(final["adam", "batch"]["1"], final["adam", "episode"]["1"])
    needless = difference(final["adam", "batch"]["1"], final["adam", "no"]["1"])
    numbers |= {"Adam: batch − episode": biased.mean, "Adam: batch − none": needless.mean}
    return Outcome(
        decide(helps, caveat=biased.low > 0 or needless.low <= 0),
        "CartPole, REINFORCE without a baseline, return with rewards as they are / times 100. SGD: "
        f"{line('sgd', 'no')} as they are, {line('sgd', 'batch')} standardised over the batch, "
        f"{line('sgd', 'episode')} over each episode. Adam: {line('adam', 'no')}, {line('adam', 'batch')}, "
        f"{line('adam', 'episode')}; batch minus episode {biased}, batch minus none {needless}.",
        numbers,
    )


@claim(118, "Unbiased and of low variance is what makes an estimator good.", TOPIC, "recorded")
def claim_118() -> Outcome:
    """Rank correlation of the estimators' errors at the start with how fast they learn, on two exact MDPs at two rates."""
    from scipy.stats import rankdata

    errors, runs = load("estimators-mse"), load("estimators-tabular")
    numbers: dict[str, float] = {}
    agreement: dict[str, list[float]] = {"mse": [], "scaled_mse": []}
    count = 0
    for task, lr in itertools.product(("random", "chain"), ("0.25", "1")):
        names = [arm.split(": ", 1)[1] for arm in errors.arms if arm.startswith(f"{task}: ")]
        count = len(names)
        speed = [float(runs.speed(f"{task}: {name}, lr {lr}").mean()) for name in names]
        for measure, found in agreement.items():
            error = [float(errors.final(f"{task}: {name}", measure).mean()) for name in names]
            found.append(float(np.corrcoef(rankdata(-np.array(error)), rankdata(speed))[0, 1]))
            numbers[f"{task}, lr {lr}: rank correlation of −{measure} and speed"] = found[-1]
    low, high = min(agreement["scaled_mse"]), max(agreement["scaled_mse"])
    cart = {
        arm: interval(load("estimators-cartpole").final(arm))
        for arm in ("total return", "to-go", "to-go, leave-one-out", "to-go, V")
    }
    numbers |= {f"CartPole, {arm}": x.mean for arm, x in cart.items()}
    biased, plain = "chain: TD error, V = 0", "chain: total return"
    for name in (biased, plain):
        numbers |= {
            f"{name}: error of ĝ": float(errors.final(name, "mse").mean()),
            f"{name}, lr 1: J at the end": float(runs.final(f"{name}, lr 1").mean()),
        }
    return Outcome(
        decide(low > 0.0, caveat=min(low, *agreement["mse"]) < 0.8),
        f"{count} estimators on two exact MDPs at two learning rates. Spearman's rank correlation of speed with a small "
        f"error of ĝ is {min(agreement['mse']):.2f} to {max(agreement['mse']):.2f}; with a small error of c ĝ, best c, "
        f"{low:.2f} to {high:.2f}. A small error that is bias does not average out: on the chain the TD error with V = 0 "
        f"has {numbers[f'{biased}: error of ĝ']:.2f} and ends at J = {numbers[f'{biased}, lr 1: J at the end']:.2f}, the "
        f"total return {numbers[f'{plain}: error of ĝ']:.2f} and {numbers[f'{plain}, lr 1: J at the end']:.2f}. On CartPole, "
        f"REINFORCE, return in the last fifth: {', '.join(f'{arm} {x}' for arm, x in cart.items())}.",
        numbers,
    )


@claim(140, "Policy gradients handle continuous actions directly.", POLICIES, "recorded")
def claim_140() -> Outcome:
    """Pendulum and MountainCarContinuous: the final policy against how it was in the first interval of training."""
    pendulum, car = load("continuous-pendulum"), load("continuous-car")
    numbers: dict[str, float] = {}
    better, said = [], []
    for arm in pendulum.arms:
        greedy, start = pendulum.final(arm, "greedy"), pendulum.curves(arm)[:, 0]
        better.append(difference(greedy, start).low > 0)
        numbers |= {f"Pendulum, {arm}": float(greedy.mean()), f"Pendulum, {arm}, worst seed": float(greedy.min())}
        numbers[f"Pendulum, {arm}, at the start"] = float(start.mean())
        said.append(
            f"{arm} {interval(greedy)} (worst seed {greedy.min():.0f}, at the start, sampled, {start.mean():.0f})"
        )
    arrive = {arm: int((car.final(arm, "greedy") > 0).sum()) for arm in car.arms}
    numbers |= {f"MountainCarContinuous, {arm}, seeds that arrive": float(n) for arm, n in arrive.items()}
    return Outcome(
        decide(
            any(better) and max(arrive.values()) > 0, caveat=not all(better) or min(arrive.values()) < len(car.seeds)
        ),
        f"Pendulum, greedy return after 100 000 steps: {', '.join(said)}. MountainCarContinuous, seeds of {len(car.seeds)} "
        f"that arrive: {', '.join(f'{arm} {n}' for arm, n in arrive.items())}. A Gaussian acts in a continuum; that it "
        "explores well does not follow.",
        numbers,
    )


STOCHASTIC = {"aliased": "aliased", "rock-paper-scissors": "rock-paper-scissors", "corridor 100": "corridor"}


@claim(141, "Policy gradients learn stochastic policies (value-based: difficult).", POLICIES, "recorded")
def claim_141() -> Outcome:
    """Three tasks whose best policy is stochastic: exact J that is learned against the best deterministic one."""
    runs = load("stochastic")
    numbers: dict[str, float] = {}
    above, said = [], []
    for task, world in STOCHASTIC.items():
        arm = _best(runs, (arm for arm in runs.arms if arm.startswith(f"{task}, ")))
        certain = policies.best_certain(make_mdp(world, horizon=100 if task.endswith("100") else None))
        J = interval(runs.final(arm))
        above.append(J.low > certain)
        numbers |= {
            f"{world}: J of the learned policy": J.mean,
            f"{world}: J of the worst seed": float(runs.final(arm).min()),
            f"{world}: J of its likeliest actions": float(runs.final(arm, "greedy").mean()),
            f"{world}: best J of a deterministic policy in as many steps": certain,
        }
        said.append(f"{world} {J} (worst seed {runs.final(arm).min():.3g}, deterministic {certain:.3g})")
    learned = Outcome(
        decide(all(above)), f"J of what REINFORCE learned from random logits, 20 seeds: {', '.join(said)}.", numbers
    )
    return _both(policies.stochastic_optima(), learned)


@claim(142, "The policy can be simpler than the values.", POLICIES, "recorded")
def claim_142() -> Outcome:
    """A threshold is best while Q is irregular: two parameters of a policy against polynomial fits of the exact Q."""
    runs = load("simple-policy")
    (arm,) = runs.arms
    mdps = [irregular(32, np.random.default_rng(seed)) for seed in runs.seeds]
    top = np.array([float(mdp.reward.amax(1).mean()) for mdp in mdps])
    none = np.array([float(mdp.reward.mean()) for mdp in mdps])

    def share(J: np.ndarray) -> np.ndarray:  # 0: the uniform policy, 1: the best
        return (J - none) / (top - none)

    fits = np.array([[greedy_in_fit(mdp, degree) for degree in range(mdp.states)] for mdp in mdps])  # (seeds, 32, 2)
    learned = share(runs.final(arm, "greedy"))
    linear = share(fits[:, 1, 0])
    enough = 2 * (
        1
        + np.array(
            [np.flatnonzero(best - 1e-9 > J).max(initial=-1) + 1 for J, best in zip(fits[..., 0], top, strict=True)]
        )
    )
    gap = difference(learned, linear)
    numbers = {
        "policy of 2 parameters: share of what can be gained": float(learned.mean()),
        "greedy in the linear fit of Q, 4 parameters: share": float(linear.mean()),
        "R² of the linear fit": float(fits[:, 1, 1].mean()),
        "parameters from which on greedy in the fit of Q is best, median": float(np.median(enough)),
    }
    return Outcome(
        decide(gap.low > 0),
        "32 contexts with random stakes, 20 draws. Of what the best policy, a threshold, gains over the uniform one, "
        f"REINFORCE with two parameters gets {interval(learned)}; acting greedily in the best linear fit of the exact Q "
        f"(four parameters, R² {fits[:, 1, 1].mean():.2f}) {interval(linear)}, and a polynomial fit needs "
        f"{np.median(enough):.0f} parameters (median) until that is best. It can be so, and was made so here.",
        numbers,
    )


@claim(144, "Stochastic policies are more flexible and avoid local optima.", POLICIES, "recorded")
def claim_144() -> Outcome:
    """1 at once, or 10 after n right actions: seeds that find the 10, from uniform and from nearly certain policies."""
    runs = load("local-optima")
    numbers: dict[str, float] = {}
    said, share = [], {}
    for n in (2, 4, 8):
        for start in ("uniform, entropy 0", "uniform, entropy 1", "nearly certain, entropy 0"):
            arm = f"detour {n}, {start}"
            share[n, start] = float((runs.final(arm) > 5.0).mean())
            numbers[f"{arm}: share of seeds that find 10"] = share[n, start]
        said.append(
            f"n = {n}: {share[n, 'uniform, entropy 0']:.1f} from uniform, {share[n, 'uniform, entropy 1']:.1f} with an "
            f"entropy bonus of 1, {share[n, 'nearly certain, entropy 0']:.1f} from nearly certain"
        )
    explored = {n: share[n, "uniform, entropy 0"] for n in (2, 4, 8)}
    learned = Outcome(
        decide(explored[2] > share[2, "nearly certain, entropy 0"], caveat=min(explored.values()) < 1.0),
        f"REINFORCE, share of {len(runs.seeds)} seeds that find the 10: {'; '.join(said)}.",
        numbers,
    )
    return _both(policies.exploring(), learned)


@claim(147, "Reward shaping solves sparse rewards.", POLICIES, "recorded")
def claim_147() -> Outcome:
    """MountainCarContinuous with a tutorial's bonus for movement, a larger one, and a potential; scored without any."""
    runs = load("shaping")
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
        said.append(f"{arm}: {interval(plain)}, {arrive[arm]} seeds arrive (return learned from {shaped.mean():.4g})")
    changed = difference(runs.final("potential", "greedy"), runs.final("movement 100", "greedy")).low > 0
    solved = arrive["potential"] > arrive["no bonus"]
    learned = Outcome(
        decide(solved, caveat=changed or arrive["movement 0.1"] < len(runs.seeds)),
        "MountainCarContinuous, PPO, 10 seeds, return of the greedy policy without any bonus: "
        f"{'; '.join(said)}. Paid enough for movement, swinging for ever earns more than arriving.",
        numbers,
    )
    return _both(policies.shaping(), learned)


@claim(148, "Actor-critic is more practical than vanilla REINFORCE.", TOPIC, "recorded")
def claim_148() -> Outcome:
    """A2C against REINFORCE without and with a learned V: speed on CartPole at five rates, and on Acrobot at one."""
    cart, acrobot = load("stability"), load("practical-acrobot")
    numbers: dict[str, float] = {}
    said, wins, losses = [], [], 0
    for rival in ("reinforce, no baseline", "reinforce"):
        against = [
            probability_of_improvement(cart.speed(f"a2c, lr {lr}"), cart.speed(f"{rival}, lr {lr}")) for lr in RATES
        ]
        numbers |= {f"CartPole, lr {lr}: P(a2c > {rival})": p.mean for lr, p in zip(RATES, against, strict=True)}
        top, other = _best(cart, _rates("a2c")), _best(cart, _rates(rival))
        best = probability_of_improvement(cart.speed(top), cart.speed(other))
        there = probability_of_improvement(acrobot.speed("a2c"), acrobot.speed(rival))
        numbers |= {f"CartPole, best rates: P(a2c > {rival})": best.mean, f"Acrobot: P(a2c > {rival})": there.mean}
        losses += sum(p.high < 0.5 for p in (*against, best, there))
        if rival == "reinforce, no baseline":
            wins = [best.low > 0.5, there.low > 0.5]
        name = "REINFORCE with V" if rival == "reinforce" else "REINFORCE"
        fast = [f"{cart.speed(arm).mean():.0f}" for arm in (top, other)]
        slow = [f"{acrobot.speed(arm).mean():.0f}" for arm in ("a2c", rival)]
        said.append(
            f"against {name}: CartPole, better at {sum(p.low > 0.5 for p in against)} of 5 rates, worse at "
            f"{sum(p.high < 0.5 for p in against)}, best rates, chosen on these seeds, P = {best.mean:.2f} "
            f"[{best.low:.2f}, {best.high:.2f}] ({' and '.join(fast)}); Acrobot P = {there.mean:.2f} "
            f"[{there.low:.2f}, {there.high:.2f}] ({' and '.join(slow)})"
        )
    return Outcome(
        decide(any(wins), caveat=not all(wins) or losses > 0),
        f"Mean return over 100 000 steps, 10 seeds, A2C {'; '.join(said)}.",
        numbers,
    )
