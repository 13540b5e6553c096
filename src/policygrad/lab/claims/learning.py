"""Claims about learning, from recorded runs. The rules that turn numbers into verdicts are here, the runs in recorded/.

"Speed" is the mean return over a whole training, "final" is the mean over its last fifth. P(a > b) is the probability that a
run of a has more than a run of b. Intervals are 95 %, over seeds. benchmarks/claims.py makes the runs.
"""

from __future__ import annotations

import itertools

import numpy as np

from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.recorded import (
    Interval,
    Recorded,
    difference,
    interval,
    load_recorded,
    probability_of_improvement,
)

RATES = ("0.0003", "0.001", "0.003", "0.01", "0.03")


BOUNDS = ("0.01", "0.03", "0.1")


LARGE_EFFECT = 100.0  # an effect on CartPole's return counts if the lower end of its interval is above this


SOLVED, SHARE = 400.0, 0.5  # CartPole's return, at most 500; a run fell if it reached this and later had less than half


def _rates(algo: str) -> list[str]:
    """The arms of an algorithm in "stability", one for each step size."""
    return [f"{algo}, max_kl {kl}" for kl in BOUNDS] if algo == "trpo" else [f"{algo}, lr {lr}" for lr in RATES]


def beats(runs: Recorded, arm: str, other: str) -> Interval:
    """The probability that a run of one arm is faster than a run of the other arm."""
    return probability_of_improvement(runs.speed(arm), runs.speed(other))


@claim("A2C and PPO reduce variance and improve sample efficiency.", "recorded")
def a2c_and_ppo_improve_on_reinforce() -> Outcome:
    """Speed compared with plain REINFORCE, on CartPole at best and at equal rates, on Acrobot at one rate; errors of ĝ."""
    cart, acrobot, errors = (
        load_recorded("stability"),
        load_recorded("practical-acrobot"),
        load_recorded("estimators-mse"),
    )
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
            f"{top} has {interval(cart.speed(top))}, P = {at_best.mean:.2f} [{at_best.low:.2f}, {at_best.high:.2f}]; at equal "
            f"rates it is better at {sum(p.low > 0.5 for p in equal)} of 5 and worse at {sum(p.high < 0.5 for p in equal)}; on "
            f"Acrobot it has {acrobot.speed(algo).mean():.0f}, REINFORCE {acrobot.speed(plain).mean():.0f}, P = "
            f"{there.mean:.2f}"
        )
    total, gae = (float(errors.final(f"random: {x}", "mse").mean()) for x in ("total return", "GAE 0.95, exact V"))
    numbers |= {"error of ĝ, total return": total, "error of ĝ, GAE with V": gae}
    return Outcome(
        decide(all(map(any, wins.values())) and gae < total, caveat=not all(map(all, wins.values()))),
        "Mean return over 100,000 steps on CartPole, each algorithm at its best of five learning rates (chosen on these "
        f"seeds); P is the probability to beat REINFORCE. {best} has {interval(cart.speed(best))}. {'. '.join(said)}. On an "
        f"exact MDP, E‖ĝ − ∇J‖² / ‖∇J‖² falls from {total:.3g} (total return) to {gae:.2g} (GAE with the exact V).",
        numbers,
    )


@claim("TRPO and PPO give stable updates.", "recorded")
def trust_regions_are_stable() -> Outcome:
    """Runs that fell on CartPole, worst seeds, and the largest KL of an update; PPO with and without its clip."""
    runs = load_recorded("stability")
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
        f"CartPole with 10 seeds per step size (five learning rates, for TRPO three KL bounds). Of the runs that reached "
        f"{SOLVED:g}, so many fell below {SHARE * SOLVED:g} later: {', '.join(said)}. KL is the largest of a measured update "
        "in the median run, in nats. The worst seed is given for the best step size, with its return in the last fifth.",
        numbers,
    )


@claim("Results are sensitive to learning rate, entropy coefficient and discount.", "recorded")
def sensitive_hyperparameters() -> Outcome:
    """The largest effect of each factor while the other two are fixed, in a grid of A2C runs with 5 seeds per cell."""
    runs = load_recorded("sensitivity")
    cells = {tuple(part.split(" ")[1] for part in arm.split(", ")): arm for arm in runs.arms}
    mean = {cell: float(runs.final(arm).mean()) for cell, arm in cells.items()}
    top, bottom = max(mean, key=lambda cell: mean[cell]), min(mean, key=lambda cell: mean[cell])
    good = sum(value >= 0.9 * mean[top] for value in mean.values())
    numbers = {
        "best setting": mean[top],
        "worst setting": mean[bottom],
        "settings within 10 % of the best": float(good),
    }
    seen, said = [], []
    for k, factor in enumerate(("learning rate", "entropy coefficient", "discount")):
        pairs = [(a, b) for a, b in itertools.permutations(cells, 2) if [i for i in range(3) if a[i] != b[i]] == [k]]
        a, b = max(pairs, key=lambda pair: mean[pair[0]] - mean[pair[1]])
        gap = difference(runs.final(cells[a]), runs.final(cells[b]))
        seen.append(gap.low > LARGE_EFFECT)
        numbers |= {f"largest effect of the {factor}": gap.mean, f"largest effect of the {factor}, lower end": gap.low}
        said.append(f"{gap} for the {factor} ({a[k]} and {b[k]})")
    lake = load_recorded("entropy-lake")
    arms = ["FrozenLake-v1, entropy 0.01", "FrozenLake-v1, entropy 0.1"]
    some, much = (interval(lake.final(arm)) for arm in arms)
    numbers |= {f"{arm}: success": x.mean for arm, x in zip(arms, (some, much), strict=True)}
    seen[1] = seen[1] or some.low > 2.0 * much.high
    return Outcome(
        decide(any(seen), caveat=not all(seen)),
        f"The return of A2C on CartPole over the last fifth of 60,000 steps is {mean[bottom]:.0f} in the worst of {len(mean)} "
        f"settings and {mean[top]:.0f} in the best; {good} is within 10 % of it. The largest difference that one factor makes "
        f"alone is {', '.join(said)}. With 5 seeds an interval counts only if it is above {LARGE_EFFECT:g}. On FrozenLake the "
        f"entropy coefficient is decisive: the success is {some} with 0.01 and {much} with 0.1.",
        numbers,
    )


@claim("Return normalisation is recommended.", "recorded")
def return_normalisation() -> Outcome:
    """REINFORCE on CartPole, rewards times 1 and 100: returns raw, standardised over the batch, or over each episode."""
    runs = load_recorded("normalisation")
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
        "Return of REINFORCE without a baseline on CartPole, with original rewards / with rewards times 100. With SGD it is "
        f"{line('sgd', 'no')} without normalisation, {line('sgd', 'batch')} with returns standardised over the batch, and "
        f"{line('sgd', 'episode')} over each episode. With Adam it is {line('adam', 'no')}, {line('adam', 'batch')} and "
        f"{line('adam', 'episode')}; batch minus episode is {biased}, batch minus none is {needless}.",
        numbers,
    )


@claim("Unbiased and of low variance is what makes an estimator good.", "recorded")
def what_makes_an_estimator_good() -> Outcome:
    """Rank correlation of estimators' errors at the start and the speed of learning, on two exact MDPs at two rates."""
    from scipy.stats import rankdata

    errors, runs = load_recorded("estimators-mse"), load_recorded("estimators-tabular")
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
    cart = {arm: interval(load_recorded("estimators-cartpole").final(arm)) for arm in arms}
    numbers |= {f"CartPole, {arm}": x.mean for arm, x in cart.items()}
    biased, plain = "chain: TD error, V = 0", "chain: total return"
    for name in (biased, plain):
        numbers |= {
            f"{name}: error of ĝ": float(errors.final(name, "mse").mean()),
            f"{name}, lr 1: J at the end": float(runs.final(f"{name}, lr 1").mean()),
        }
    return Outcome(
        decide(low > 0.0, caveat=min(low, *agreement["mse"]) < 0.8),
        f"{count} estimators were compared on two exact MDPs at two learning rates. Spearman's rank correlation of speed and "
        f"small error of ĝ is {min(agreement['mse']):.2f} to {max(agreement['mse']):.2f}; for the error of c ĝ with the best "
        f"factor c it is {low:.2f} to {high:.2f}. A small error that is bias does not average out: on the chain, the TD error "
        f"with V = 0 has an error of {numbers[f'{biased}: error of ĝ']:.2f} and ends at J = "
        f"{numbers[f'{biased}, lr 1: J at the end']:.2f}; the total return has {numbers[f'{plain}: error of ĝ']:.2f} and ends "
        f"at J = {numbers[f'{plain}, lr 1: J at the end']:.2f}. Return of REINFORCE on CartPole in the last fifth: "
        f"{'; '.join(f'{arm} {x}' for arm, x in cart.items())}.",
        numbers,
    )


@claim("Actor-critic is more practical than vanilla REINFORCE.", "recorded")
def actor_critic_is_practical() -> Outcome:
    """The speed of A2C and of REINFORCE without and with a learned V, on CartPole at five rates, on Acrobot at one."""
    cart, acrobot = load_recorded("stability"), load_recorded("practical-acrobot")
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
            f"Against {name}: on CartPole it is better at {sum(p.low > 0.5 for p in against)} of 5 equal rates and worse at "
            f"{sum(p.high < 0.5 for p in against)}; at the best rates P = {best.mean:.2f} [{best.low:.2f}, {best.high:.2f}] "
            f"({' and '.join(fast)}); on Acrobot P = {there.mean:.2f} [{there.low:.2f}, {there.high:.2f}] "
            f"({' and '.join(slow)})"
        )
    return Outcome(
        decide(any(wins), caveat=not all(wins) or losses > 0),
        "Mean return of A2C over 100,000 steps, 10 seeds; P is the probability that A2C is better, in brackets are the mean "
        f"returns; best rates were chosen on these seeds. {'. '.join(said)}.",
        numbers,
    )
