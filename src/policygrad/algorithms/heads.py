"""Which heads the policies of the named recipes have, for readers of model files who make no policy. Nothing is imported."""

from __future__ import annotations

SCORED = (
    "reinforce",
    "off_policy_pg",
    "actor_critic",
    "a2c",
    "a3c",
    "npg",
    "trpo",
    "ppo",
    "ppo_kl",
)  # by the action space
EXPLORING = {"dqn": "values", "pqn": "values", "ddpg": "deterministic", "td3": "deterministic", "sac": "squashed"}


def head_of(algo: str, action_space: str, head: str | None) -> str | None:
    """The head by its name; None for recipes of the user's own. action_space: its type; head: the keyword, of Box actions."""
    if algo in EXPLORING:
        return EXPLORING[algo]
    if algo not in SCORED:
        return None
    return {"Box": head, "Discrete": "categorical"}.get(action_space, "multicategorical")
