"""The final weights of a list of configurations, as one digest each: to show that a change moved no number.

    python benchmarks/same_bits.py > old.json      with the parent's package on the path
    python benchmarks/same_bits.py > new.json      with the new one; then `diff old.json new.json`

Takes about a minute. Only names that both versions have are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import nn

import policygrad as pg


class Masked(gym.Env):
    """A Dict of vector, one-hot and action mask: episodes of ten steps, the legal actions turning."""

    observation_space = spaces.Dict(
        {
            "x": spaces.Box(-1.0, 1.0, (3,)),
            "kind": spaces.Discrete(4),
            "action_mask": spaces.Box(0, 1, (3,), np.int8),
        }
    )
    action_space = spaces.Discrete(3)

    def _see(self) -> dict[str, Any]:
        mask = np.ones(3, np.int8)
        mask[self.time % 3] = 0
        return {"x": self.np_random.uniform(-1, 1, 3).astype(np.float32), "kind": self.time % 4, "action_mask": mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        super().reset(seed=seed)
        self.time = 0
        self.seen = self._see()
        return self.seen, {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict]:
        rew = float(self.seen["x"][int(action)])
        self.time += 1
        self.seen = self._see()
        return self.seen, rew, self.time == 10, False, {}


def body(space: spaces.Space) -> nn.Module:
    """A network of the user's own: autograd."""
    assert space.shape is not None
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(space.shape)), 32), nn.GELU())


CartPole, Lander, Car = "CartPole-v1", "LunarLander-v3", "MountainCarContinuous-v0"
CASES: dict[str, tuple[str, Any, int, dict[str, Any]]] = {  # name: recipe, environment, steps, keywords
    **{f"{algo} CartPole": (algo, CartPole, 20_000, {}) for algo in ("ppo", "a2c", "trpo", "npg", "ppo_kl")},
    **{
        f"reinforce {b}": ("reinforce", CartPole, 20_000, {"baseline": b}) for b in ("value", "leave-one-out", "linear")
    },
    **{f"actor_critic {c}": ("actor_critic", CartPole, 20_000, {"critic": c}) for c in ("v", "q")},
    "a3c CartPole": ("a3c", CartPole, 20_000, {}),
    "dqn CartPole": ("dqn", CartPole, 5_000, {"n_step": 3}),
    "dqn Dict with masks": ("dqn", Masked, 3_000, {"num_envs": 2}),
    "pqn CartPole": ("pqn", CartPole, 20_000, {}),
    **{f"{algo} Pendulum": (algo, "Pendulum-v1", 2_500, {"hidden": (64, 64)}) for algo in ("ddpg", "td3", "sac")},
    "ppo LunarLander": ("ppo", Lander, 60_000, {"backend": "gymnasium"}),
    "ppo MountainCarContinuous": ("ppo", Car, 20_000, {}),
    "ppo squashed": ("ppo", "Pendulum-v1", 10_000, {"head": "squashed", "num_steps": 128}),
    "ppo beta": ("ppo", "Pendulum-v1", 10_000, {"head": "beta", "num_steps": 128}),
    "ppo normalize_obs": ("ppo", "Pendulum-v1", 10_000, {"normalize_obs": True, "num_steps": 128}),
    "ppo body": ("ppo", CartPole, 10_000, {"body": body}),
    "a2c async": ("a2c", CartPole, 4_000, {"backend": "async", "num_envs": 2}),
    "ppo Dict with masks": ("ppo", Masked, 10_000, {"num_steps": 64}),
    "ppo Taxi": ("ppo", "Taxi-v4", 20_000, {}),
}
if "HalfCheetah-v5" in gym.registry:
    CASES["ppo HalfCheetah"] = ("ppo", "HalfCheetah-v5", 20_000, {"normalize_obs": True})


def digest(agent: pg.Agent) -> str:
    """Of the policy's and the critic's parameters and of the normaliser."""
    parts = [agent.policy.flat, getattr(getattr(agent.learner, "critic", None), "flat", None)]
    parts += [] if agent.policy.normalizer is None else [agent.policy.normalizer.mean, agent.policy.normalizer.var]
    found = hashlib.sha256()
    for part in parts:
        found.update(b"" if part is None else part.numpy().tobytes())
    return found.hexdigest()[:16]


def off_policy() -> str:
    """Learning from episodes that another policy has played."""
    trajectories = pg.a2c(CartPole, seed=1).learn(2_000).collect(64)
    return digest(pg.off_policy_pg(CartPole, dataset=trajectories, episodes=32).learn(5_000))


def attempt(run: Callable[[], str]) -> str:
    """The digest, or what went wrong."""
    try:
        return run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Print all digests as JSON."""
    found = {}
    for name, (algo, env, steps, keywords) in CASES.items():
        found[name] = attempt(lambda: digest(pg.Agent(algo, env, seed=0, **keywords).learn(steps)))  # noqa: B023
    found["off_policy_pg from a data set"] = attempt(off_policy)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
