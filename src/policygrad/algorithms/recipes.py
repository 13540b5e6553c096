"""The registry of all named algorithms, after the modules that register them have been imported, in the order of lists.

What multiplies the score in each, when it updates, and what biases its gradient, as docs/guide.md lists them:

| `pg.` | adv | updates | bias |
|---|---|---|---|
| `reinforce(env, returns="total", baseline="none")` | R(τ) | per episodes | none |
| `reinforce(env)` | G_t − b | per episodes | none |
| `off_policy_pg(env, replay_episodes=8)` | weighted G_t − b | per episodes, earlier ones too | O(1/N), normalised weights |
| `off_policy_pg(env, dataset=…)` | weighted G_t − b | as often as weights allow | O(1/N) |
| `actor_critic(env)` | δ | every step | wrong V |
| `a2c(env)`, `a3c(env)` | GAE | every few steps | wrong V; A3C: delay |
| `npg(env)`, `trpo(env)` | GAE | once per hundreds of steps | wrong V |
| `ppo(env)`, `ppo_kl(env)` | GAE | several epochs per hundreds of steps | wrong V, clip or penalty |
| `ddpg(env)`, `td3(env)` | ∇_a q | every step, replayed | wrong slope of q, other states |
| `sac(env)` | ∇_a (q − α log π) | every step, replayed | as `ddpg`, and entropy |
| `dqn(env)` | none: q is learned | every few steps, replayed | wrong q |
| `pqn(env)` | none: q is learned | few epochs per rollout, without replay | wrong q |
"""

from __future__ import annotations

# isort: off
from policygrad.algorithms import on_policy
from policygrad.algorithms import asynchronous
from policygrad.algorithms import off_policy
from policygrad.algorithms.registry import RECIPES
# isort: on

USUAL = "ppo"  # the one to try first, in advice where none is named

__all__ = ["RECIPES", "USUAL", "asynchronous", "off_policy", "on_policy"]
