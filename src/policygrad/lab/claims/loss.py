"""Claims about policy gradients in code: log-probabilities, the loss, and what becomes likely after an update."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Batch, Values
from policygrad.gradient.baselines import NoBaseline
from policygrad.gradient.estimators import TotalReturn, advantages
from policygrad.lab.claims import Outcome, claim, decide
from policygrad.lab.claims.tools import EXACT, MAX_SEARCHED, Case, case, cosine, simple, small
from policygrad.lab.exact.tabular import exact_gradient, log_policy
from policygrad.lab.exact.trajectories import seen_by
from policygrad.lab.exact.worlds import exact_batch
from policygrad.lab.theory.functions import probabilities
from policygrad.lab.theory.losses import losses
from policygrad.updates import VanillaGradient


@claim("Log-probabilities are easier than probabilities.", "simulated")
def log_probabilities_are_easier() -> Outcome:
    """The product of 2,000 probabilities and the sum of their logarithms, in float32 and float64, and their gradients."""
    c = case("random", horizon=2000)
    r = c.sample(1)
    logp = r.logp[:, 0]
    underflow = {}
    for dtype in (torch.float32, torch.float64):
        product = logp.exp().to(dtype).cumprod(0)
        underflow[dtype] = int((product == 0).nonzero()[0]) + 1 if (product == 0).any() else len(logp) + 1
    error = abs(float(logp.float().sum()) / float(logp.sum()) - 1.0)
    pi = probabilities(c.mdp, c.policy)
    chosen = (r.obs[:-1, 0].argmax(-1), r.act[:, 0])
    theta = c.policy.flat.clone().requires_grad_()
    product = torch.autograd.grad(pi(theta)[chosen].prod(), theta)[0]
    score = torch.autograd.grad(pi(theta)[chosen].log().sum(), theta)[0]
    gap = float((score - c.contract(r, torch.ones_like(r.rew))[0]).abs().max() / score.norm())
    return Outcome(
        decide(max(underflow.values()) <= len(logp) and error < 1e-5 and gap <= EXACT and not product.any()),
        f"The product of the probabilities of a trajectory's actions underflows to 0 at step {underflow[torch.float32]} in "
        f"float32 and at step {underflow[torch.float64]} in float64, and then its gradient is 0, too. The sum of their "
        f"logarithms is {float(logp.sum()):.0f} after {len(logp)} steps, with a relative error of {error:.0e} in float32, and "
        "its gradient is right.",
        {
            "steps until the product is 0, float32": underflow[torch.float32],
            "steps until the product is 0, float64": underflow[torch.float64],
            "relative error of the sum of logarithms, float32": error,
            "relative error of its gradient": gap,
        },
    )


@claim("The loss of a policy gradient does not measure performance.", "exact")
def loss_is_not_performance() -> Outcome:
    """Losses and J along exact ascent, with a constant added to all rewards or subtracted from them."""
    c = small()[1]
    found = losses(c.mdp, c.policy, steps=60, lr=0.25)
    shift = found.shift
    raised, lowered = (found[f"returns, {by:+.3g} per step"] for by in (shift, -shift))
    gap = 0.0
    for by in (shift, -shift):
        shifted = replace(c.mdp, reward=c.mdp.outcome + by)
        gap = max(gap, float((exact_gradient(shifted, c.policy) - c.gradient).abs().max()))
    return Outcome(
        decide(found.J[-1] > found.J[0] and gap <= EXACT and raised.correlation < -0.5 and lowered.correlation > 0.5),
        f"In {len(found.J) - 1} exact updates J rises from {found.J[0]:.2f} to {found.J[-1]:.2f}. A constant added to every "
        f"reward does not change the gradient (to {gap:.0e}), so that the policies are the same. But with {shift:.1f} added "
        f"the loss falls from {raised.values[0]:.1f} to {raised.values[-1]:.1f} (correlation with J {raised.correlation:.2f}), "
        f"and with {shift:.1f} subtracted it rises from {lowered.values[0]:.1f} to {lowered.values[-1]:.1f} (correlation "
        f"{lowered.correlation:+.2f}).",
        {
            "correlation of loss and J, rewards raised": raised.correlation,
            "correlation of loss and J, rewards lowered": lowered.correlation,
            "correlation of loss and J, advantages": found["advantages"].correlation,
            "share of steps on which J and the loss rise, rewards lowered": lowered.worse,
            "rise of J": found.J[-1] - found.J[0],
            "largest difference of ∇J": gap,
        },
    )


@claim("The gradient of the loss −mean(adv · log π) is the policy gradient.", "exact")
def loss_gradient_is_policy_gradient() -> Outcome:
    """The gradient of the loss by autograd; batches with a mean over steps, single ones and their expectation."""
    c = small()[0]
    batch, estimate = batch_and_estimate(c, "trajectory")
    loss = -(batch.weight * batch.adv * c.policy.logp(batch.obs, batch.act)).sum()
    gap = float((c.policy.gradient(-loss) - estimate).abs().max())
    cases = simple(MAX_SEARCHED, ends=True)
    scaled = 0.0  # batches of episodes of any length: ĝ times N/ΣT
    for c in cases[:20]:
        batch, estimate = batch_and_estimate(c, "step")
        step = c.policy.evaluate(batch).gradient(batch.weight * batch.adv)
        scaled = max(scaled, float((step - estimate * batch.trajectories / len(batch)).abs().max()))
    by_length = [c.estimates(c.to_go) / c.rollout.mask.sum(0).unsqueeze(-1) for c in cases]
    agreement = [cosine(c.mean(x), c.gradient) for c, x in zip(cases, by_length, strict=True)]
    c = cases[int(np.argmin(agreement))]
    worst = {k: cosine(c.batch_mean(k, c.to_go, reduction="step"), c.gradient) for k in (1, 2)}
    what = f"with a mean over steps the cosine with ∇J is {worst[1]:.2f} for batches of one, {worst[2]:.2f} for batches of two"
    return Outcome(
        decide(gap <= EXACT and scaled <= EXACT, caveat=worst[1] < 1.0 - 1e-6),
        f"It is, if the mean is over trajectories (autograd agrees to {gap:.0e}). The usual mean over steps multiplies this "
        f"gradient by N/ΣT (to {scaled:.0e}). That is a constant if all episodes have the same length, and otherwise a random "
        f"number that is correlated with the returns. On {len(cases)} random MDPs with terminal states the cosine of the "
        f"expected gradient with ∇J, for batches of one episode, is {np.median(agreement):.4f} in the median and "
        f"{worst[1]:.2f} at worst.",
        {
            "largest difference, mean over trajectories": gap,
            "largest difference from ĝ N/ΣT": scaled,
            "cosine with ∇J, median": float(np.median(agreement)),
            "cosine with ∇J, lowest": worst[1],
            "cosine with ∇J there in batches of 2": worst[2],
        },
        c.counterexample("found among random MDPs", what) if worst[1] < 0.0 else None,
    )


def batch_and_estimate(c: Case, reduction: str) -> tuple[Batch, Tensor]:
    """A batch of 64 episodes as update rules get it, and ĝ, the mean of Σ_t adv_t ∇log π over the trajectories."""
    r = c.sample(64)
    adv = advantages(r, Values.zeros(r), c.to_go, NoBaseline())[0]
    return r.flatten(adv, reduction), c.contract(r, adv).mean(0)


@claim("Good trajectories become more likely after an update.", "exact")
def good_trajectories_become_likely() -> Outcome:
    """Δlog P(τ) of every trajectory after a small step along ∇J."""
    step, slopes, mass = 1e-4, [], []
    for c in small():
        r, policy = c.rollout, deepcopy(c.policy)
        VanillaGradient(step, optimizer="sgd", max_grad_norm=None)(policy, exact_batch(c.mdp, c.policy))
        new = seen_by(r, log_policy(c.mdp, policy).detach()).logp
        change = torch.where(r.mask, new - r.logp, 0.0).sum(0)  # of log P(τ)
        ret = TotalReturn(c.mdp.gamma)(r, Values.zeros(r)).ret[0]
        good = ret > c.mean(ret)
        slopes.append(float(c.mean((ret - c.mean(ret)) * change) / step / c.gradient.square().sum()))
        mass.append(float(c.probability[good & (change > 0)].sum() / c.probability[good].sum()))
    gap = max(abs(x - 1.0) for x in slopes)
    return Outcome(
        decide(gap <= 0.01, caveat=min(mass) < 0.99),
        f"They do on average: after the step α ∇J, Cov(R, Δlog P) is α ‖∇J‖², to {gap:.0e} on 20 random MDPs. "
        "But not each of them does. Of the probability of trajectories better than average, trajectories that became more "
        f"likely have {np.mean(mass):.0%} (mean), {min(mass):.0%} in the worst MDP; the others share actions with bad "
        "trajectories.",
        {
            "largest |Cov(R, Δlog P) / (α ‖∇J‖²) − 1|": gap,
            "share of good trajectories that became more likely, mean": float(np.mean(mass)),
            "share in the worst MDP": min(mass),
        },
    )
