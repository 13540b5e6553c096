"""Evaluation: whole episodes on fixed seeds, greedy or sampled, never with training environments."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policygrad.envs.collector import EndlessEpisodeError, action_adapter, encoding_of
from policygrad.envs.shaping import unshaped
from policygrad.envs.single import EnvLike, make_one
from policygrad.models.contracts import Actor
from policygrad.models.observations import ActionMaskError
from policygrad.tree import Tree, put, take, tree_map

EVALUATION_SEED = 10_000  # episode k is reset with seed EVALUATION_SEED + k, in every evaluation


@dataclass(frozen=True)
class Evaluation:
    """Returns of whole episodes, and their mean with a 95 % bootstrap interval."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the mean: BCa bootstrap (Efron 1987), fixed seed; a point if all returns are equal."""
        x = np.asarray(self.returns)
        if len(x) < 2 or np.ptp(x) == 0.0 or not np.isfinite(x).all():
            return (self.mean, self.mean)
        from scipy.stats import bootstrap

        interval = bootstrap((x,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
        return (float(interval.low), float(interval.high))

    def to_json(self) -> dict:
        """The entry of evaluation.json."""
        return {"mean": self.mean, "std": self.std, "ci95": list(self.ci95), "returns": list(self.returns)}

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.mean:.1f}  [{low:.1f}, {high:.1f}]"


def evaluate(
    policy: Actor,
    env: EnvLike,
    episodes: int = 100,
    greedy: bool = True,
    seed: int = EVALUATION_SEED,
    num_envs: int = 10,
    max_episode_steps: int = 100_000,
) -> Evaluation:
    """Play `episodes` episodes and return their returns and lengths, in the order of their seeds.

    Environment i plays episodes i, i + num_envs, …: which episodes count is fixed in advance, and neither num_envs nor the
    lengths of the others change an episode, but for the rounding of batches of another size. Sampled actions draw from a
    generator of the episode's own. Reward shaping (envs/shaping.py) rests meanwhile: what is scored is the task. Raises
    EndlessEpisodeError for an episode of more than max_episode_steps.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    num_envs = 1 if isinstance(env, gym.Env) else min(num_envs, episodes)
    envs = SyncVectorEnv([lambda: make_one(env)] * num_envs, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    with unshaped(*envs.envs):
        evaluation = _play(policy, envs, episodes, greedy, seed, max_episode_steps)
    if not isinstance(env, gym.Env):  # one that was lent stays open
        envs.close()
    return evaluation


def _play(
    actor: Actor, envs: SyncVectorEnv, episodes: int, greedy: bool, seed: int, max_episode_steps: int
) -> Evaluation:
    """The episodes, several at a time."""
    num_envs = envs.num_envs
    to_env = action_adapter(envs.single_action_space, actor)
    encoding = encoding_of(actor, envs.single_observation_space)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    playing = np.arange(num_envs)  # the episode each environment plays; ≥ episodes when it has none left
    obs = encoding.empty(num_envs)
    encoding.encode(*envs.reset(seed=[seed + int(k) for k in playing]), obs)
    rngs = [np.random.default_rng([seed, int(k)]) for k in playing]
    state: Tree = None
    over, active = np.ones(num_envs, bool), np.ones(num_envs, bool)
    while active.any():
        if actor.stateful and over.any():
            state = _begun(actor, state, over, rngs)
        if encoding.mask_source != "none" and not actor.has_legal_action(take(obs, active)).all():  # pyright: ignore
            raise ActionMaskError("an environment leaves no legal action")
        if greedy:
            act, state = actor.mode(obs, state)
        else:
            act, state, _ = actor.act(obs, state, np.concatenate([actor.noise(rng, (1,)) for rng in rngs]))
        now, rew, terminated, truncated, info = envs.step(to_env(act))
        over = terminated | truncated
        obs = tree_map(np.copy, obs)  # a state may hold what was shown before
        encoding.encode(now, info, obs, over)
        returns[playing[active]] += rew[active]
        lengths[playing[active]] += 1
        ended = over & active
        if lengths[playing[active & ~ended]].max(initial=0) >= max_episode_steps:
            raise EndlessEpisodeError(
                f"an episode did not end in {max_episode_steps:,} steps: give the environment a time limit (gymnasium's "
                "TimeLimit wrapper)"
            )
        for i in ended.nonzero()[0]:
            playing[i] += num_envs
            active[i] = playing[i] < episodes
            rngs[i] = np.random.default_rng([seed, int(playing[i])])
        if over.any():
            seeds: list[int | None] = [seed + int(k) for k in playing]
            encoding.encode(*envs.reset(seed=seeds, options={"reset_mask": over}), obs, ~over)
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))


def _begun(actor: Actor, state: Tree, over: np.ndarray, rngs: list[np.random.Generator]) -> Tree:
    """The state, begun anew where an episode begins, from the episode's own generator."""
    for i in over.nonzero()[0]:
        fresh = actor.begin(actor.noise(rngs[i], (1,)))
        if state is None:
            state = tree_map(lambda x: np.repeat(x, len(over), 0), fresh)
        put(state, slice(i, i + 1), fresh)
    return state
