"""Rules about runs that look at the rows of metrics, each of which measures an update: see `diagnosis/run.py`."""

from __future__ import annotations

import numpy as np

from policygrad.diagnosis.run_case import JONES, SCHULMAN, RunCase
from policygrad.diagnosis.symptoms import CannotTell, Symptom
from policygrad.reports.columns import lasting, num

HUANG = "Huang et al. 2022, 37 details of PPO"
TRL = "TRL, share of groups without a spread"
PETRENKO = "Petrenko, sample-factory #281"
TIPS = "Stable-Baselines3, tips"

RATIO = 1e-5  # mean |log ratio|
NO_SPREAD, SPREADLESS = 1e-8, 0.2  # of advantages, and share of the rows without
CLIPPED_GRADIENTS = 0.9  # share of the rows
COSINE = 0.1  # between the gradient and the step
CLIPPED_ACTIONS = 0.3  # share of the numbers of the actions
TURNS, SWING = 4, 0.2  # of the entropy, each of this share of the first one


def first_ratio(case: RunCase) -> Symptom | None:
    """Before the update the new policy is the old one, and so all ratios are 1."""
    middle = float(np.nanmedian(case.column("ratio_error")))
    if middle <= RATIO:
        return None
    text = (
        f"before the update the policy's log-probabilities already differ by {middle:.2g} from those it acted by: what "
    )
    text += "acts is not what learns (dropout, masks, normalisation, a network with a state of its own)"
    advice = "policy = policygrad.load(run).policy; print(policy(obs) - policy(obs))  # of one obs, is to be 0"
    return Symptom("first ratio", text, middle, f"above {RATIO:g} (median)", advice, HUANG)


def no_advantage(case: RunCase) -> Symptom | None:
    """Most batches have steps that are better than others."""
    spread = case.column("adv_std")
    share = float((spread[np.isfinite(spread)] < NO_SPREAD).mean())
    if share <= SPREADLESS:
        return None
    text = (
        f"in {share:.0%} of the measured batches all advantages are equal, so that nothing is learned from them: the "
    )
    text += "reward is too coarse, or the batch too small to see it"
    return Symptom("no advantage", text, share, f"above {SPREADLESS:g} of the rows", case.train("--num-envs 32"), TRL)


def gradient_clipping(case: RunCase) -> Symptom | None:
    """The gradient is clipped at times, and not always. The gradient of the whole batch, which those of minibatches exceed."""
    norm, most = case.column("grad_norm"), case.updates.setting("max_grad_norm")
    if most is None:
        raise CannotTell("gradients are not clipped")
    share = float((norm[np.isfinite(norm)] > most).mean())
    if share <= CLIPPED_GRADIENTS:
        return None
    median = num(float(np.nanmedian(norm)))
    text = (
        f"{share:.0%} of the gradients are longer than max_grad_norm = {most:g} (median {median}): all are cut to one"
    )
    larger = f"{float(f'{2 * np.nanmax(norm):.1g}'):g}"
    return Symptom(
        "gradient clipping",
        text,
        share,
        f"above {CLIPPED_GRADIENTS:g} of the rows",
        case.train(f"--max-grad-norm {larger}"),
        SCHULMAN,
    )


def momentum(case: RunCase) -> Symptom | None:
    """Steps follow the gradient of their batch, and not only those of earlier ones: the cosine of the angle between them."""
    if "optimizer" not in case.config:
        raise CannotTell("steps are not those of an optimiser with momentum")
    length = case.column("grad_norm") * case.column("step_norm")
    cosine = np.divide(case.column("predicted_gain"), length, out=np.full(len(length), np.nan), where=length > 0.0)
    if not np.isfinite(cosine).any():
        raise CannotTell("there is no gradient")
    middle = float(np.nanmedian(cosine))
    if middle >= COSINE:
        return None
    text = f"steps hardly follow the gradient of their batch, the cosine of the angle between them is {middle:.2g} (median): "
    text += "momentum, an entropy bonus or the noise of minibatches outweighs it"
    return Symptom("momentum", text, middle, f"below {COSINE:g}", case.train("--optimizer sgd"), PETRENKO)


def clipped_actions(case: RunCase) -> Symptom | None:
    """Most actions are inside of their bounds, beyond which all are alike."""
    share = case.column("clipped_actions")
    often, middle = float((lasting(share) > CLIPPED_ACTIONS).mean()), float(np.nanmedian(share))
    if often <= 0.5:
        return None
    text = f"{middle:.0%} of the numbers of the actions are outside of their bounds and clipped (median): there all are alike"
    limits = f"above {CLIPPED_ACTIONS:g} in half of the rows"
    return Symptom("clipped actions", text, middle, limits, case.train("--head squashed"), TIPS)


def entropy_swings(case: RunCase) -> Symptom | None:
    """The entropy falls, and does not rise and fall over and over."""
    path = lasting(case.column("entropy"))
    path = path[np.isfinite(path)]
    if not len(path) or path[0] <= 0.0:
        raise CannotTell("the first entropy is not positive")
    count = turns(path, SWING * float(path[0]))
    if count < TURNS:
        return None
    text = f"the entropy rose and fell {count} times, by a fifth of its first value each time: steps are too large"
    limits = f"from {TURNS} turns on"
    return Symptom("entropy swings", text, float(count), limits, case.lr(0.1), JONES)


def turns(x: np.ndarray, least: float) -> int:
    """How often a sequence turns from rising to falling or back, ignoring movements smaller than `least`."""
    low = high = float(x[0])
    way, count = 0, 0
    for value in map(float, x):
        low, high = min(low, value), max(high, value)
        if way >= 0 and high - value >= least:
            count, way, low, high = count + (way > 0), -1, value, value
        elif way <= 0 and value - low >= least:
            count, way, low, high = count + (way < 0), 1, value, value
    return count
