"""Sabotages of claims about data of another policy, and about replay."""

from __future__ import annotations

import numpy as np

from policygrad.gradient import importance
from policygrad.lab.claims.recorded import Recorded
from sabotages import Break, Sabotage, invent, invented, wrapped
from sabotages.estimators import LATE

WEIGHTS = wrapped(importance, "log_weights", lambda of: lambda rollout: 0.9 * of(rollout) + 0.01)
ARMS = ("dqn, lr 0.1", "dqn, no replay, lr 0.1", "reinforce, lr 0.1", "a2c, lr 0.1", "ppo, lr 0.1", "trpo, max_kl 0.1")


def arrives(step: float, spread: float, seconds: float) -> dict[str, np.ndarray]:
    """Ten runs that get to 200 at this step of 100, give or take; and their seconds at the end."""
    when = step + spread * np.linspace(-1.0, 1.0, 10)
    at = np.arange(1, 101)
    return {"return": np.where(at >= when[:, None], 200.0, 20.0), "seconds": np.tile(seconds * at / 100.0, (10, 1))}


def off_policy(**changed: tuple[float, float, float]) -> Break:
    """DQN is there at step 20, all others at step 60, and DQN takes no longer. changed: of arms, by their first word."""
    arms = {arm: arrives(20 if arm == ARMS[0] else 60, 3, 1.0) for arm in ARMS}
    for arm in ARMS:
        if (word := "no_replay" if "no replay" in arm else arm.split(",")[0]) in changed:
            arms[arm] = arrives(*changed[word])
    runs: Recorded = invent("off-policy", 10_000, arms)
    return invented(runs)


ON_POLICY, REPLAY = "on-policy-needs-many-rollouts", "replay-is-sample-efficient"

SABOTAGES = [
    Sabotage(ON_POLICY, off_policy(), "holds"),
    Sabotage(ON_POLICY, off_policy(dqn=(20, 3, 50.0)), "holds with caveat"),  # the others need fewer seconds
    Sabotage(ON_POLICY, off_policy(ppo=(22, 30, 1.0)), "undecided"),
    Sabotage(ON_POLICY, off_policy(a2c=(5, 1, 1.0)), "fails as stated"),
    Sabotage(REPLAY, off_policy(), "holds"),
    Sabotage(REPLAY, off_policy(dqn=(20, 3, 50.0)), "holds with caveat"),
    Sabotage(REPLAY, off_policy(no_replay=(22, 30, 1.0)), "undecided"),
    Sabotage(REPLAY, off_policy(no_replay=(5, 1, 1.0)), "fails as stated"),
    Sabotage("data-must-be-fresh", LATE),
    Sabotage("importance-sampling-is-unbiased", LATE),
    Sabotage("importance-sampling-is-unbiased", WEIGHTS),
    Sabotage("importance-sampling-variance", WEIGHTS),
    Sabotage("reinforce-is-importance-sampling", WEIGHTS),
]
