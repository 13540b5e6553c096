"""Findings about runs that learn action values from transitions: DQN, DDPG, TD3, SAC. No files, no torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policygrad.reports.columns import (
    Updates,
    as_number,
    ends,
    lasting,
    num,
    percent,
    spread,
    steps_text,
    stretches,
    when,
)
from policygrad.reports.findings import Finding

TOO_LARGE = 3.0  # times the values that the returns allow: above it, values diverge
OFTEN = 0.3  # share of the rows: for a while values may run ahead of returns, which are those of the last 100 episodes
MUCH_EXPLORED = 0.2  # share of random actions at the end that makes a difference to the returns
GROWN = 10.0  # times its first value: α does not find its level


def value_findings(updates: Updates) -> list[Finding]:
    """All findings about the measured updates, and at the end what such updates do not have."""
    found = [check(updates) for needs, check in CHECKS.items() if updates.has(*needs)]
    absent = "no KL, no surrogate and no Fisher matrix: they are measured on the batch of an on-policy update"
    return [*found, Finding("not here", "-", f"{absent}.")]


def allowed_values(updates: Updates) -> np.ndarray:
    """The size that values can have, as far as the returns up to a row tell, (R,); NaN before the first episode ended.

    The largest mean return of 100 episodes so far, and with an entropy bonus what it gives for ever. Values are larger where
    short episodes are truncated, after fewer than 1 / (1 − γ) steps: they count what would come.
    """
    gamma, size = updates.setting("gamma"), np.fmax.accumulate(np.abs(updates["return_mean"]))
    if gamma is not None and gamma < 1.0:
        size = size + np.nan_to_num(np.abs(updates["alpha"] * updates["entropy"])) / (1.0 - gamma)
    return size


def action_values(updates: Updates) -> Finding:
    """`q_mean` and the largest mean return so far, with the entropy's value.

    `!`: above three times it in a third of the rows.
    """
    q, allowed = updates["q_mean"], allowed_values(updates)
    off = lasting(np.abs(q)) > TOO_LARGE * allowed
    first, last = ends(q)
    text = f"mean of q {num(first)} in the first fifth of the run, {num(last)} in the last"
    if np.isfinite(allowed).any():
        text += f"; the returns so far allow about ± {num(float(allowed[np.isfinite(allowed)][-1]))}"
    often = bool(off.mean() > OFTEN)
    if often:
        text += (
            f". Far above that {when(updates.steps, off)}: values are overestimated or diverge, unless short episodes are "
            "truncated. Lower the learning rate of the values, move the copy of the network more slowly (target_every, tau), "
            "or use double or twin"
        )
    numbers = {"first": first, "last": last, "q_mean": spread(q), "too_large_at": stretches(updates.steps, off)}
    return Finding("action values", "!" if often else "ok", text + ".", numbers)


def td_error(updates: Updates) -> Finding:
    """`td_error` and the largest mean return so far, with the entropy's value. `!`: larger in a third of the rows."""
    error = updates["td_error"]
    first, last = ends(error)
    off = lasting(error) > allowed_values(updates)
    often = bool(off.mean() > OFTEN)
    text = f"root of the mean square {num(first)} in the first fifth of the run, {num(last)} in the last"
    if often:
        text += f". Larger than any value that the returns allow {when(updates.steps, off)}: the values do not follow their "
        text += "targets. Lower the learning rate of the values, or scale the rewards"
    numbers = {"first": first, "last": last, "td_error": spread(error), "too_large_at": stretches(updates.steps, off)}
    return Finding("TD error", "!" if often else "ok", text + ".", numbers)


def exploration(updates: Updates) -> Finding:
    """The last `epsilon`, where it is ever above 0. `!`: above 0.2."""
    path = updates["epsilon"][np.isfinite(updates["epsilon"])]
    first, last = float(path[0]), float(path[-1])
    if not path.any():
        text = (
            f"no action is uniformly random after the first {steps_text(updates.setting('warmup') or 0)} steps (warmup)"
        )
        return Finding("exploration", "ok", text + ".", {"first": first, "last": last})
    text = f"a random action has probability {percent(first)} in the first row, {percent(last)} in the last"
    much = last > MUCH_EXPLORED
    if much:
        text += ". That is much: the returns in the rows are far below those of greedy actions. Lower epsilon or "
        text += "epsilon_fraction, or train longer"
    return Finding("exploration", "!" if much else "ok", text + ".", {"first": first, "last": last})


def temperature(updates: Updates) -> Finding:
    """SAC: `alpha` in the first and last fifth. `!`: ten times its first value."""
    alpha, begun = updates["alpha"], updates.setting("alpha")
    first, last = ends(alpha)
    text = f"α {num(first)} in the first fifth of the run, {num(last)} in the last"
    numbers = {"first": first, "last": last, "alpha": spread(alpha), "entropy": spread(updates["entropy"])}
    if updates.config.get("learn_alpha") is False:
        return Finding("temperature", "ok", f"α is constant, {num(last)}.", numbers)
    if updates.has("entropy"):
        text += f"; entropy {num(ends(updates['entropy'])[1])} nats in the last"
    grown = begun is not None and last > GROWN * max(begun, first)
    if grown:
        text += ". It grows, because the entropy stays below target_entropy: lower target_entropy, or give alpha with "
        text += "learn_alpha = false"
    return Finding("temperature", "!" if grown else "ok", text + ".", numbers)


def replay(updates: Updates) -> Finding:
    """Steps in the buffer, and draws of each. `!`: never."""
    held, size, batch = updates["replay_steps"][-1], updates.setting("buffer_size"), updates.setting("batch_size")
    text = f"the buffer holds {steps_text(held)} steps" + (f" of {steps_text(size)}" if size else "")
    played, asked = updates.batch(), as_number(updates.config.get("gradient_steps"))
    numbers = {"held": float(held)}
    if played and batch:
        ratio = asked / played if np.isfinite(asked) else 1.0
        numbers |= {"minibatches_per_step": ratio, "draws_per_step": ratio * batch}
        many = "minibatch" if ratio == 1.0 else "minibatches"
        text += f"; {num(ratio)} {many} of {num(batch)} for every step of the environment, so a step is drawn about "
        text += f"{num(ratio * batch)} times before it is overwritten"
    return Finding("replay", "ok", text + ".", numbers)


CHECKS: dict[tuple[str, ...], Callable[[Updates], Finding]] = {  # the numbers that a finding needs
    ("q_mean",): action_values,
    ("td_error",): td_error,
    ("epsilon",): exploration,
    ("alpha",): temperature,
    ("replay_steps",): replay,
}
