"""Claims about learning, from recorded runs. The rules that turn numbers into verdicts are here, the runs in recorded/.

"Speed" is the mean return over a whole training, "final" is the mean over its last fifth. P(a > b) is the probability that a
run of a has more than a run of b. Intervals are 95 %, over seeds. benchmarks/claims.py makes the runs.

A comparison of two algorithms is decided by an interval: it is won if the interval is above the tie, lost if it is below, and
undecided if it holds it. A claim that names several algorithms or tasks holds if all of its comparisons are won, fails as
stated if one is lost, and is undecided otherwise.
"""

from __future__ import annotations

import itertools

import numpy as np

from policygrad.lab.claims import Outcome, claim, decide, every
from policygrad.lab.claims.recorded import (
    Interval,
    Recorded,
    difference,
    interval,
    load_recorded,
    probability_of_improvement,
    rank_correlation,
    share,
    share_difference,
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


PLAIN, WITH_V = "reinforce, no baseline", "reinforce"


def compared(algo: str, rival: str, title: str) -> tuple[list[Interval], dict[str, float], str, int]:
    """The comparisons that decide (CartPole at best rates, Acrobot), their numbers, a sentence, and how many were lost."""
    cart, acrobot = load_recorded("stability"), load_recorded("practical-acrobot")
    best, there = beats(cart, cart.best(_rates(algo)), cart.best(_rates(rival))), beats(acrobot, algo, rival)
    equal = [beats(cart, x, y) for x, y in zip(_rates(algo), _rates(rival), strict=True)]
    numbers = {f"CartPole, best rates: P({algo} > {rival})": best.mean, f"Acrobot: P({algo} > {rival})": there.mean}
    numbers |= {f"CartPole, lr {lr}: P({algo} > {rival})": p.mean for lr, p in zip(RATES, equal, strict=True)}
    fast = [f"{cart.speed(cart.best(_rates(name))).mean():.0f}" for name in (algo, rival)]
    slow = [f"{acrobot.speed(name).mean():.0f}" for name in (algo, rival)]
    said = (
        f"{algo.upper()} against {title}: on CartPole at the best rates P = {best} ({' and '.join(fast)}), at equal rates it "
        f"is better at {sum(p.low > 0.5 for p in equal)} of 5 and worse at {sum(p.high < 0.5 for p in equal)}; on Acrobot P = "
        f"{there} ({' and '.join(slow)})"
    )
    return [best, there], numbers, said, sum(p.high < 0.5 for p in (best, there, *equal))


@claim("A2C and PPO reduce variance and improve sample efficiency.", "recorded")
def a2c_and_ppo_improve_on_reinforce() -> Outcome:
    """Speed compared with REINFORCE, on CartPole at best and at equal rates, on Acrobot at one rate; errors of ĝ.

    Rule: both algorithms must be faster than REINFORCE without a baseline, on both tasks, at the best rates; and the error of
    GAE with a learned V must be smaller than that of reward-to-go without a baseline, on both MDPs. A caveat, if one of them is
    slower than REINFORCE anywhere, with V or without.
    """
    errors = load_recorded("estimators-mse")
    numbers: dict[str, float] = {}
    said, won, lost = [], [], 0
    for algo, (rival, title) in itertools.product(
        ("a2c", "ppo"), ((PLAIN, "REINFORCE without a baseline"), (WITH_V, "REINFORCE with V"))
    ):
        decisive, found, sentence, losses = compared(algo, rival, title)
        won += [p.above(0.5) for p in decisive] if rival == PLAIN else []
        numbers |= found
        said.append(sentence)
        lost += losses
    lower, ratios = [], []
    for mdp in ("random", "chain"):
        to_go, gae = (errors.final(f"{mdp}: {x}", "mse") for x in ("to-go", "GAE 0.95, learned V"))
        lower.append(difference(to_go, gae).above(0.0))
        ratios.append(f"{to_go.mean():.3g} to {gae.mean():.2g} (MDP {mdp})")
        numbers |= {f"{mdp}: error of ĝ, to-go": float(to_go.mean()), f"{mdp}: error, GAE": float(gae.mean())}
    return Outcome(
        decide(every([*won, *lower]), caveat=lost > 0),
        "P is the probability that a run has a higher mean return over 100,000 steps, in brackets with its interval and "
        f"the mean returns; 10 seeds; the best rates were chosen on these seeds. {'. '.join(said)}. Variance: E‖ĝ − ∇J‖² "
        f"/ ‖∇J‖² falls from {' and from '.join(ratios)}, from reward-to-go to GAE with a V that is learned meanwhile. "
        "The claim holds only if A2C and PPO win against REINFORCE without a baseline on both tasks at the best rates, and "
        "the variance falls on both MDPs.",
        numbers,
    )


TRUST, FREE = ("ppo", "trpo"), ("reinforce", "a2c", "ppo, no clip")  # with and without a limit on the step


@claim("TRPO and PPO give stable updates.", "recorded")
def trust_regions_are_stable() -> Outcome:
    """Runs that fell on CartPole, worst seeds, and the largest KL of an update; PPO with and without its clip.

    Rule: of the runs that reached 400, a smaller share must fall later than of each of the three that do not limit their steps,
    REINFORCE among them. A caveat, if a run of TRPO or PPO falls.
    """
    runs = load_recorded("stability")
    numbers: dict[str, float] = {}
    counts, said = {}, []
    for algo in (*FREE, *TRUST):
        arms = _rates(algo)
        got = np.concatenate([runs.curves(arm).max(1) >= SOLVED for arm in arms])
        fell = np.concatenate([runs.falls(arm, SOLVED, SHARE) for arm in arms])
        kl = float(np.median([np.nanmax(runs.arm(arm).measures["kl"], 1) for arm in arms]))
        top = max(arms, key=lambda arm: float(runs.final(arm).mean()))
        worst = float(runs.final(top).min())
        counts[algo] = (int(fell.sum()), int(got.sum()))
        numbers |= {
            f"{algo}: runs": float(len(got)),
            f"{algo}: runs that reached {SOLVED:g}": float(got.sum()),
            f"{algo}: of these, fell below half of it": float(fell.sum()),
            f"{algo}: worst seed, best step size, final": worst,
            f"{algo}: largest KL of an update, median run, nats": kl,
        }
        rate = share(*counts[algo])
        said.append(
            f"{algo} {fell.sum()} of {got.sum()} ({rate.low:.0%} to {rate.high:.0%}; {len(got)} runs in all; KL {kl:.2g}, "
            f"worst seed {worst:.0f})"
        )
    gaps = {(a, b): share_difference(*counts[b], *counts[a]) for a, b in itertools.product(TRUST, FREE)}
    numbers |= {f"share that fell, {b} − {a}": gap.mean for (a, b), gap in gaps.items()}
    open_ = [f"{a} against {b}, {gap}" for (a, b), gap in gaps.items() if gap.above(0.0) is not True]
    return Outcome(
        decide(every(gap.above(0.0) for gap in gaps.values()), caveat=counts["ppo"][0] + counts["trpo"][0] > 0),
        f"CartPole with 10 seeds per step size (five learning rates, for TRPO three KL bounds). Number of runs that reached "
        f"{SOLVED:g} and later fell below {SHARE * SOLVED:g}: {', '.join(said)}. KL is the largest of a measured update "
        "in the median run, in nats. The worst seed is given for the best step size, with its return in the last fifth. Of the "
        f"six differences in the share that fell, those that are not shown are: {'; '.join(open_) or 'none'}. Runs that never "
        "get there cannot fall, so that few runs of REINFORCE count.",
        numbers,
    )


@claim("Results are sensitive to learning rate, entropy coefficient and discount.", "recorded")
def sensitive_hyperparameters() -> Outcome:
    """The largest effect of each factor while the other two are fixed, in a grid of A2C runs with 5 seeds per cell.

    Rule: the effect of each factor on CartPole's return must be above 100, by an interval that is wider because the largest of
    many is taken; for the entropy coefficient a success on FrozenLake that is halved counts as well, with a caveat.
    """
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
        gap = difference(runs.final(cells[a]), runs.final(cells[b]), len(pairs) // 2)
        seen.append(gap.above(LARGE_EFFECT))
        numbers |= {f"largest effect of the {factor}": gap.mean, f"largest effect of the {factor}, lower end": gap.low}
        said.append(f"{gap} for the {factor} ({a[k]} and {b[k]})")
    lake = load_recorded("entropy-lake")
    arms = ["FrozenLake-v1, entropy 0.01", "FrozenLake-v1, entropy 0.1"]
    some, much = (interval(lake.final(arm)) for arm in arms)
    numbers |= {f"{arm}: success": x.mean for arm, x in zip(arms, (some, much), strict=True)}
    shown = [seen[0], True if some.low > 2.0 * much.high else seen[1], seen[2]]
    return Outcome(
        decide(every(shown), caveat=shown != seen),
        f"The return of A2C on CartPole over the last fifth of 60,000 steps is {mean[bottom]:.0f} in the worst of {len(mean)} "
        f"settings and {mean[top]:.0f} in the best; {good} is within 10 % of it. The largest difference that one factor makes "
        f"alone is {', '.join(said)}; the intervals hold for all pairs that were looked at, and one counts if it is above "
        f"{LARGE_EFFECT:g}. With 5 seeds they are wide. On FrozenLake the "
        f"entropy coefficient is decisive: the success is {some} with 0.01 and {much} with 0.1.",
        numbers,
    )


SCALED_RATE = {"sgd": "0.1", "adam": "0.01"}  # of "normalisation", which has the rewards times 100, too
OTHER_RATES = {"sgd": ("0.01", "1", "10"), "adam": ("0.003", "0.03")}


def _normalised(optimizer: str, way: str) -> tuple[str, np.ndarray]:
    """The best learning rate of a way to treat returns, and its final returns, with the rewards as they are."""
    found = {SCALED_RATE[optimizer]: load_recorded("normalisation").final(f"{optimizer}, {way}, rewards x 1")}
    others = load_recorded("normalisation-rates")
    found |= {lr: others.final(f"{optimizer} {lr}, {way}") for lr in OTHER_RATES[optimizer]}
    best = max(found, key=lambda lr: float(found[lr].mean()))
    return best, found[best]


@claim("Return normalisation is recommended.", "recorded")
def return_normalisation() -> Outcome:
    """REINFORCE on CartPole: returns as they are, standardised over the batch, or over each episode; rewards times 100, too.

    Rule: with the rewards as they are and each way at its best learning rate, standardising over the batch must end higher
    than nothing, with SGD and with Adam. A caveat, if over each episode is worse than over the batch. That an unchanged
    learning rate fits rewards times 100 only with standardised returns is reported, and does not count: a rate divided by 100
    does the same.
    """
    runs = load_recorded("normalisation")
    numbers: dict[str, float] = {}
    gains, costs, said, large = [], [], [], []
    for optimizer in ("sgd", "adam"):
        final = {way: _normalised(optimizer, way) for way in ("no", "batch", "episode")}
        gains.append(difference(final["batch"][1], final["no"][1]))
        costs.append(difference(final["batch"][1], final["episode"][1]))
        numbers |= {f"{optimizer}, {way}, best rate": float(x.mean()) for way, (_, x) in final.items()}
        numbers |= {f"{optimizer}: batch − none": gains[-1].mean, f"{optimizer}: batch − episode": costs[-1].mean}
        listed = ", ".join(f"{x.mean():.0f} {way} (rate {lr})" for way, (lr, x) in final.items())
        said.append(f"{optimizer.upper()} {listed}; batch minus none is {gains[-1]}, batch minus episode {costs[-1]}")
        arms = {way: f"{optimizer}, {way}, rewards x 100" for way in final}
        times_100 = {way: float(runs.final(arm).mean()) / 100.0 for way, arm in arms.items()}
        numbers |= {f"{optimizer}, {way}, rewards x 100, same rate": x for way, x in times_100.items()}
        large.append(f"{optimizer.upper()} {' / '.join(f'{x:.0f}' for x in times_100.values())}")
    return Outcome(
        decide(every(gap.above(0.0) for gap in gains), caveat=any(gap.low > 0.0 for gap in costs)),
        "Return of REINFORCE without a baseline on CartPole in the last fifth: no normalisation, standardised over the "
        "batch, and over each episode, each way at its best learning rate (of 0.01 to 10 for SGD and 0.003 to 0.03 for "
        f"Adam, chosen on these seeds). {'. '.join(said)}. With rewards times 100 and the rate unchanged (0.1 and 0.01) "
        f"it is {' and '.join(large)}: this is what normalisation is for, but with SGD a rate divided by 100 would do the "
        "same, and Adam does not see the scale.",
        numbers,
    )


@claim("Unbiased and of low variance is what makes an estimator good.", "recorded")
def what_makes_an_estimator_good() -> Outcome:
    """Rank correlation of estimators' errors at the start and the speed of learning, on two exact MDPs at two rates.

    Rule: the correlation of a small mean squared error (squared bias and variance) and speed must be above 0 in each of the
    four cases; a caveat, if one is below 0.8. The error of c ĝ with the best c is reported, and does not count.
    """
    errors, runs = load_recorded("estimators-mse"), load_recorded("estimators-tabular")
    numbers: dict[str, float] = {}
    agreement: dict[str, list[Interval]] = {"mse": [], "scaled_mse": []}
    count = 0
    for task, lr in itertools.product(("random", "chain"), ("0.25", "1")):
        names = [arm.split(": ", 1)[1] for arm in errors.arms if arm.startswith(f"{task}: ")]
        count = len(names)
        speed = [float(runs.speed(f"{task}: {name}, lr {lr}").mean()) for name in names]
        for measure, found in agreement.items():
            error = np.array([float(errors.final(f"{task}: {name}", measure).mean()) for name in names])
            found.append(rank_correlation(-error, speed))
            numbers[f"{task}, lr {lr}: rank correlation of −{measure} and speed"] = found[-1].mean
    arms = ("total return", "to-go", "to-go, leave-one-out", "to-go, V")
    cart = {arm: interval(load_recorded("estimators-cartpole").final(arm)) for arm in arms}
    numbers |= {f"CartPole, {arm}": x.mean for arm, x in cart.items()}
    biased, plain = "chain: TD error, V = 0", "chain: total return"
    for name in (biased, plain):
        numbers |= {
            f"{name}: error of ĝ": float(errors.final(name, "mse").mean()),
            f"{name}, lr 1: J at the end": float(runs.final(f"{name}, lr 1").mean()),
        }
    raw = agreement["mse"]
    return Outcome(
        decide(every(x.above(0.0) for x in raw), caveat=min(x.mean for x in raw) < 0.8),
        f"{count} estimators were compared on two exact MDPs at two learning rates. Spearman's rank correlation of speed and "
        f"small error of ĝ is {', '.join(map(str, raw))}; for the error of c ĝ with the best factor c it is "
        f"{', '.join(map(str, agreement['scaled_mse']))}: what differs in length only is made equal by the learning rate. A "
        "small error that is bias does not average out: on the chain, the TD error "
        f"with V = 0 has an error of {numbers[f'{biased}: error of ĝ']:.2f} and ends at J = "
        f"{numbers[f'{biased}, lr 1: J at the end']:.2f}; the total return has {numbers[f'{plain}: error of ĝ']:.2f} and ends "
        f"at J = {numbers[f'{plain}, lr 1: J at the end']:.2f}. Return of REINFORCE on CartPole in the last fifth: "
        f"{'; '.join(f'{arm} {x}' for arm, x in cart.items())}.",
        numbers,
    )


@claim("Actor-critic is more practical than vanilla REINFORCE.", "recorded")
def actor_critic_is_practical() -> Outcome:
    """The speed of A2C and of REINFORCE without and with a learned V, on CartPole at five rates, on Acrobot at one.

    Rule: A2C must be faster than REINFORCE without a baseline on both tasks, on CartPole at the best rates. A caveat, if it is
    slower than REINFORCE anywhere, with V or without.
    """
    decisive, numbers, plain, losses = compared("a2c", PLAIN, "REINFORCE without a baseline")
    _, found, with_v, more = compared("a2c", WITH_V, "REINFORCE with V")
    return Outcome(
        decide(every(p.above(0.5) for p in decisive), caveat=losses + more > 0),
        "Mean return over 100,000 steps, 10 seeds; P is the probability that A2C is better, in brackets are the mean "
        f"returns; best rates were chosen on these seeds. {plain}. {with_v}.",
        numbers | found,
    )
