"""The gradient meter: signal and noise of the gradient of an update, measured during training.

ĝ = Σ weight · adv · ∇log π over the batch is a sum over trajectories, independent given the policy: whole episodes, and what
the edges of a rollout cut off. They are dealt into at most 16 groups, whose gradients A_k give all that `gradient.noise` needs:
one pass over the batch, and two for as many products with the Jacobian. Of batches above 16,384 steps a sample is measured.
The advantages are taken as the update takes them: what standardisation, a critic or a baseline of the same batch has done to
them is held fixed. No random number of the training is drawn, and nothing is kept from one measurement to the next.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from policygrad.data import Batch, Reduction, Rollout, Stats, by_step, resolve_reduction
from policygrad.gradient.noise import deviations, measure_noise
from policygrad.models.kernels import SecondDerivativeError
from policygrad.models.policy import Policy

MAX_GROUPS = 16  # at most, and as many gradients
MAX_ROWS = 16_384  # steps measured, about: of a larger batch some of the trajectories
MAX_NUMBERS = 2**26  # of all the groups' gradients together, as long as that leaves 8 groups
BUCKETS = 4  # of the steps of an episode


def refuse_segments(segment: int) -> None:
    """Raises ValueError for a policy that reads segments of more than one step; 0, whole columns."""
    if segment != 1:
        said = f"segments of {segment} steps" if segment else "whole columns of steps"
        raise ValueError(
            f"the gradient meter takes a batch apart by trajectories, and this policy reads {said}: leave gradient_meter off"
        )


def gradient_noise(policy: Policy, rollout: Rollout, batch: Batch, reduction: str | Reduction) -> Stats:
    """Measure the gradient of `batch`, the flattened `rollout`, at the current policy.

    | signal, noise           | ‖E ĝ‖², unbiased and so at times negative, and tr Cov(ĝ), of the whole batch              |
    | snr, snr_low, snr_high  | signal / noise, and the 95 % interval of their true ratio                                 |
    | half_cosine             | cosine of the angle between the gradients of two halves of what was measured              |
    | noise_scale             | steps a batch would need for SNR = 1: steps / SNR; NaN where the estimate is not above 0  |
    | noise_trajectories      | the same in trajectories, tr Σ / ‖E g‖² (McCandlish et al. 2018, arXiv 1812.06162)        |
    | batch_suggested         | noise_scale, where the interval of the SNR excludes 0                                     |
    | variance_1 … variance_4 | shares of tr Cov(ĝ), which sum to 1, of four equal stretches of the step index            |
    | variance_steps          | the steps in the four stretches together: the longest episode measured                    |
    | meter_groups            | the groups that the numbers stand on; with 1 there are no numbers, below 8 no interval    |
    | meter_seconds           | what the measurement took                                                                 |

    The gradient of a time stretch, g = Σ_b g_b, has the share Σ_k A_kᵇ · D_k / Σ ‖D_k‖², an estimate of
    tr Cov(g_b, g) / tr Cov(g); it may be negative. Absent for networks without a second derivative. Raises ValueError for
    segments, which trajectories cannot be taken from row by row.
    """
    refuse_segments(batch.segment)
    started = time.perf_counter()
    stats = _measure(policy, rollout, batch, reduction)
    return stats | {"meter_seconds": time.perf_counter() - started}


def _measure(policy: Policy, rollout: Rollout, batch: Batch, reduction: str | Reduction) -> Stats:
    group, sampled = assign_groups(rollout, most_groups(len(policy.flat)))
    rows = group.argsort(stable=True)[int((group < 0).sum()) :]
    sizes = torch.bincount(group[rows]).tolist()
    stats: Stats = {"meter_groups": len(sizes)}
    if len(sizes) < 2:
        return stats
    end, weight = rollout.valid(rollout.end)[rows], batch.weight[rows]
    by_steps = resolve_reduction(reduction) is by_step
    mass, whole = (torch.ones_like(weight), rollout.steps) if by_steps else (end.double(), rollout.trajectories)
    share = torch.stack([part.sum() for part in mass.split(sizes)]).double() / mass.sum()
    weight = weight * batch.adv[rows] * (whole / float(mass.sum()))
    parts = list(zip(map(batch.take, rows.split(sizes)), weight.split(sizes), strict=True))
    A = torch.stack([policy.evaluate(part).gradient(w).clone() for part, w in parts])
    noise = measure_noise((A @ A.T).double().cpu(), share.cpu(), sampled)  # sixteen numbers by sixteen
    found = noise.snr > 0.0
    stats |= {
        "signal": noise.signal,
        "noise": noise.noise,
        "snr": noise.snr,
        "snr_low": noise.low,
        "snr_high": noise.high,
        "half_cosine": noise.cosine,
        "noise_scale": rollout.steps / noise.snr if found else float("nan"),
        "noise_trajectories": rollout.trajectories / noise.snr if found else float("nan"),
        "batch_suggested": rollout.steps / noise.snr if found and noise.low > 0.0 else float("nan"),
    }
    step = rollout.valid(rollout.time)[rows]
    length = int(step.max()) + 1
    try:
        shares = variance_shares(policy, parts, A, share, step * BUCKETS // length)
    except SecondDerivativeError:
        return stats
    return stats | {f"variance_{b}": x for b, x in enumerate(shares, 1)} | {"variance_steps": length}


def variance_shares(policy: Policy, parts: list, A: Tensor, share: Tensor, bucket: Tensor) -> list[float]:
    """Σ_k A_kᵇ · (D_k − Σ_j f_j D_j) / Σ ‖D_k‖² for every bucket b: a directional derivative of every row's log π.

    The second term is what centring the stretches would change, and is 0 for equal shares. bucket: of every row, (B,).
    """
    minus = deviations(share).to(A.dtype)
    D = minus @ A
    pushed = minus.T @ D
    terms = [w * policy.evaluate(part).score_jvp(v) for (part, w), v in zip(parts, pushed, strict=True)]
    sums = torch.bincount(bucket, torch.cat(terms).double(), BUCKETS)
    return (sums / D.double().square().sum()).tolist()


def most_groups(parameters: int) -> int:
    """The largest number of groups for a policy of this size."""
    return min(MAX_GROUPS, max(8, MAX_NUMBERS // parameters))


def assign_groups(rollout: Rollout, groups: int) -> tuple[Tensor, float]:
    """The group of every valid row, (B,), or −1; and the share of trajectories that are in a group.

    Trajectories are dealt like shuffled cards, always shuffled alike. Of a batch above MAX_ROWS steps as many are as
    have MAX_ROWS on average, 8 at least: how many does not depend on which.
    """
    ends = rollout.end.long()
    before = ends.cumsum(0) - ends  # in the same column
    first = ends.sum(0).cumsum(0) - ends.sum(0)
    n = rollout.trajectories
    count = min(n, max(8, n * MAX_ROWS // rollout.steps))
    # of the shuffled trajectories, where each one is
    rank = torch.randperm(n, generator=torch.Generator().manual_seed(0)).argsort().to(ends.device)
    group = torch.where(rank < count, rank % min(groups, count), -1)
    return group[rollout.valid(before + first)], count / n
