"""Claims about learning: what recorded runs say. The rules that turn numbers into verdicts are here, the runs in recorded/.

"Speed" is the mean return over a whole training, "final" that over its last fifth; P(a > b) the probability that a run of a has
more than a run of b. Intervals are 95 %, over seeds. What is *not* here: how the runs were made (benchmarks/claims.py).
"""

from __future__ import annotations

import itertools

import numpy as np

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.recorded import Interval, Recorded, difference, interval, load, probability_of_improvement

RATES = ("0.0003", "0.001", "0.003", "0.01", "0.03")


BOUNDS = ("0.01", "0.03", "0.1")


LARGE_EFFECT = 100.0  # of CartPole's return: the lower end of an effect that is called one


SOLVED, SHARE = 400.0, 0.5  # CartPole's return of at most 500; a run that had it and then less than half of it fell


def _rates(algo: str) -> list[str]:
    """An algorithm of "stability" at all its step sizes."""
    return [f"{algo}, max_kl {kl}" for kl in BOUNDS] if algo == "trpo" else [f"{algo}, lr {lr}" for lr in RATES]


def beats(runs: Recorded, arm: str, other: str) -> Interval:
    """The probability that a run of an arm is faster than a run of the other."""
    return probability_of_improvement(runs.speed(arm), runs.speed(other))


@claim("A2C and PPO reduce variance and improve sample efficiency.", "recorded")
def a2c_and_ppo_improve_on_reinforce() -> Outcome:
    """Speed against plain REINFORCE, on CartPole each at its best rate and at equal ones, on Acrobot at one; errors of ĝ."""
    cart, acrobot, errors = load("stability"), load("practical-acrobot"), load("estimators-mse")
    plain = "reinforce, no baseline"
    best = cart.best(_rates(plain))
    numbers = {f"CartPole, {best}: speed": float(cart.speed(best).mean())}
    wins, said = {}, []
    for algo in ("a2c", "ppo"):
        top = cart.best(_rates(algo))
        at_best, there = beats(cart, top, best), beats(acrobot, algo, plain)
        equal = [beats(cart, x, y) for x, y in zip(_rates(algo), _rates(plain), strict=True)]
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


@claim("TRPO and PPO give stable updates.", "recorded")
def trust_regions_are_stable() -> Outcome:
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


@claim("Results are sensitive to learning rate, entropy coefficient and discount.", "recorded")
def sensitive_hyperparameters() -> Outcome:
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


@claim("Return normalisation is recommended.", "recorded")
def return_normalisation() -> Outcome:
    """REINFORCE on CartPole, rewards times 1 and 100: raw returns, standardised over the batch, over each episode."""
    runs = load("normalisation")
    scales = ("1", "100")
    numbers: dict[str, float] = {}
    final: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for optimizer, way in itertools.product(("sgd", "adam"), ("no", "batch", "episode")):
        final[optimizer, way] = {s: runs.final(f"{optimizer}, {way}, rewards x {s}") / float(s) for s in scales}
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


@claim("Unbiased and of low variance is what makes an estimator good.", "recorded")
def what_makes_an_estimator_good() -> Outcome:
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
    arms = ("total return", "to-go", "to-go, leave-one-out", "to-go, V")
    cart = {arm: interval(load("estimators-cartpole").final(arm)) for arm in arms}
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


@claim("Actor-critic is more practical than vanilla REINFORCE.", "recorded")
def actor_critic_is_practical() -> Outcome:
    """A2C against REINFORCE without and with a learned V: speed on CartPole at five rates, and on Acrobot at one."""
    cart, acrobot = load("stability"), load("practical-acrobot")
    numbers: dict[str, float] = {}
    said, wins, losses = [], [], 0
    for rival in ("reinforce, no baseline", "reinforce"):
        against = [beats(cart, f"a2c, lr {lr}", f"{rival}, lr {lr}") for lr in RATES]
        numbers |= {f"CartPole, lr {lr}: P(a2c > {rival})": p.mean for lr, p in zip(RATES, against, strict=True)}
        top, other = cart.best(_rates("a2c")), cart.best(_rates(rival))
        best, there = beats(cart, top, other), beats(acrobot, "a2c", rival)
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
