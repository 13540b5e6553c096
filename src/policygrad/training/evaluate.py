"""Evaluation: whole episodes on fixed seeds, greedy or sampled, never in the training environments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from policygrad.envs.adapters import action_adapter, encoding_of
from policygrad.envs.checks import check_same, check_vector, singles
from policygrad.envs.collector import Collector
from policygrad.envs.endless import EndlessEpisodeError
from policygrad.envs.make import make_envs
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.shaping import is_shaped, unshaped
from policygrad.envs.single import EnvLike, env_name
from policygrad.errors import NotFiniteError, check_part
from policygrad.html import decimals, interval_text, table_html
from policygrad.models.contracts import Actor
from policygrad.models.observations import ActionMaskError, Encoding
from policygrad.reports.intervals import mean_interval
from policygrad.tree import Tree, put, take, tree_map

Told = Callable[[int, int], None]  # (episodes that have ended, episodes in all)

EVALUATION_SEED = 10_000  # episode k is reset with seed EVALUATION_SEED + k, in every evaluation
SELECTION_SEED = 1_000_000_000  # the same for EvalCallback: what chooses the best policy must not be what scores it


@dataclass(frozen=True)
class Evaluation:
    """Returns of whole episodes, and their mean with its 95 % interval.

    The interval is one for the mean return of this policy over new episodes. How much another training seed changes is
    something else: train several. return_range: the lowest and the highest return that an episode can plausibly have, for the
    outcomes that these episodes do not show; None where it is not known.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    return_range: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))

    @cached_property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the mean, see `reports.intervals.mean_interval`.

        Without a range it takes the lowest and the highest of these returns for it, and covers too rarely where other
        outcomes are rare. (−∞, ∞) where all returns are equal and no other is known to be possible.
        """
        return mean_interval(self.returns, self.return_range)

    @property
    def note(self) -> str:
        """What the interval is one of, and what it assumes; or why there is none."""
        n = len(self.returns)
        low, high = self.ci95
        if math.isfinite(low):
            ends = [*self.returns, *(self.return_range or ())]
            digits, seen = decimals(low, high), "" if self.return_range else ", as these have"
            among = f"{min(ends):,.{digits}f} to {max(ends):,.{digits}f}"
            return f"95 % interval of this policy's mean return, if new episodes have returns of {among}{seen}"
        if n == 0:
            return ""
        share = 100.0 * (1.0 - 0.05 ** (1.0 / n))
        why = (
            f"all {n} are equal, and with 95 % confidence at most {share:.1f} % of episodes differ"
            if n > 1
            else "it is one"
        )
        return f"these returns alone have no interval: {why}; evaluate(return_range=(lowest, highest)) gives one"

    def to_json(self) -> dict:
        """The entry of evaluation.json: `ci95` has null for an end that is infinite, `return_range` is null if not known."""
        ends = [end if math.isfinite(end) else None for end in self.ci95]
        known = None if self.return_range is None else list(self.return_range)
        return {"mean": self.mean, "std": self.std, "ci95": ends, "return_range": known, "returns": list(self.returns)}

    def _repr_html_(self) -> str:
        digits = decimals(*self.ci95)
        rows: dict[str, Any] = {
            "95 % interval": interval_text(self.ci95),
            "standard deviation": f"{self.std:.{digits}f}",
        }
        rows |= {"episodes": len(self.returns), "mean length": f"{np.mean(self.lengths):.1f}" if self.lengths else "–"}
        return table_html(f"mean return {self.mean:.{digits}f}", rows | ({"note": self.note} if self.note else {}))

    def __str__(self) -> str:
        mean = f"{self.mean:,.{decimals(*self.ci95)}f}"
        return f"{mean}  {interval_text(self.ci95)}" + (f"  ({self.note})" if self.note else "")


def evaluate(
    policy: Any,
    env: EnvLike,
    episodes: int = 100,
    greedy: bool = True,
    seed: int = EVALUATION_SEED,
    num_envs: int = 10,
    max_episode_steps: int = 100_000,
    progress: Told | None = None,
    backend: str = "gymnasium",
    return_range: tuple[float, float] | None = None,
) -> Evaluation:
    """Play `episodes` episodes and return their returns and lengths, in the order of their seeds.

    policy: an agent, whose policy it then is, what `load_policy` returns, or an `Actor`, such as `agent.policy`.
    return_range: the lowest and the highest return that an episode can plausibly have, for the interval of the mean; by default
    those of the episodes that an agent was trained on, or the policy of `load_policy`, unless a reward was shaped for them.
    Environment i plays episodes i, i + num_envs, …: which episodes count is fixed in advance, and neither num_envs nor the
    lengths of the others change an episode, but for the rounding of batches of another size. Sampled actions draw from a
    generator of the episode's own. Reward shaping (envs/shaping.py) is switched off; returns are those of the unshaped task.
    A vector environment plays as many episodes in each of its environments, which are seeded once, with `seed`; it and an
    environment object stay open. progress(done, episodes) is called whenever an episode has ended. backend: "gymnasium", or
    "compiled" for the same in less time, see `make_envs`.

    Raises EndlessEpisodeError for an episode of more than max_episode_steps, NotFiniteError for parameters, observations or
    rewards that are no finite numbers, and what training raises for environments that break their contract.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    given = None if return_range is None else checked_range(return_range)
    trained = getattr(policy, "return_range", None)
    policy = policy.as_actor() if hasattr(policy, "as_actor") else policy  # pyright: ignore  of `load_policy`
    policy = policy if hasattr(policy, "act") else getattr(policy, "policy", policy)  # of an agent
    check_part("policy", policy, ("act", "mode"), "an agent or its policy, or what policygrad.make_policy made")
    flat = getattr(policy, "flat", None)
    if isinstance(flat, torch.Tensor) and not torch.isfinite(flat).all():
        raise NotFiniteError("the policy's parameters are not finite, so there is nothing to evaluate")
    progress = progress or (lambda done, episodes: None)
    if isinstance(env, VectorEnv):
        with unshaped(*singles(check_vector(env))):
            check_same(encoding_of(policy, env.single_observation_space), env.single_observation_space)
            found = _play_vector(policy, env, episodes, greedy, seed, max_episode_steps, progress)
        return replace(found, return_range=given or (None if is_shaped(*singles(env)) else trained))
    num_envs = 1 if isinstance(env, gym.Env) else min(num_envs, episodes)
    envs: Any = make_envs(env, num_envs, backend)
    try:
        with unshaped(*singles(envs)):
            check_same(encoding_of(policy, envs.single_observation_space), envs.single_observation_space)
            found = _play(policy, envs, episodes, greedy, seed, max_episode_steps, progress)
        return replace(found, return_range=given or (None if is_shaped(*singles(envs)) else trained))
    finally:
        if not isinstance(env, gym.Env):
            close(envs)


def checked_range(return_range: Any) -> tuple[float, float]:
    """The range as two numbers. Raises ValueError for what is none."""
    try:
        low, high = map(float, return_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(
            f"return_range must be two finite numbers, the lowest and the highest return of an episode, got {return_range!r}"
        )
    return low, high


def close(envs: VectorEnv) -> None:
    """Close the environments. An error in closing becomes a warning, because the episodes are already played."""
    try:
        envs.close()
    except Exception as error:
        warnings.warn(
            f"closing the environment {env_name(singles(envs)[0])} raised {type(error).__name__}: {error}", stacklevel=3
        )


def _play(
    actor: Actor, envs: SerialVectorEnv, episodes: int, greedy: bool, seed: int, max_episode_steps: int, progress: Told
) -> Evaluation:
    """The episodes, several at a time."""
    num_envs = envs.num_envs
    to_env = action_adapter(envs.single_action_space, actor)
    encoding = encoding_of(actor, envs.single_observation_space)
    envs.report_masks = encoding.mask_source == "info"
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    playing = np.arange(num_envs)  # the episode each environment plays; ≥ episodes when it has none left, and pauses
    obs = encoding.empty(num_envs)
    encoding.encode(*envs.reset(seed=[seed + int(k) for k in playing]), obs)
    rngs = [np.random.default_rng([seed, int(k)]) for k in playing]
    state: Tree = None
    over, active = np.ones(num_envs, bool), np.ones(num_envs, bool)

    def whose(i: int) -> str:
        k = int(playing[i])
        return f"environment {i}, step {lengths[k]} of the episode with seed {seed + k}: expected"

    while active.any():
        _check_shown(encoding, obs, whose)
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
        encoding.encode(now, info, obs, over | ~active)
        _check_rewards(rew, whose)
        returns[playing[active]] += rew[active]
        lengths[playing[active]] += 1
        _check_length(lengths[playing[active & ~over]], max_episode_steps)
        if over.any():
            _check_shown(encoding, obs, whose)  # the last ones, too
            for i in over.nonzero()[0]:
                playing[i] += num_envs
                rngs[i] = np.random.default_rng([seed, int(playing[i])])
            active = playing < episodes
            envs.paused = ~active
            encoding.encode(*envs.restart(over & active, [seed + int(k) for k in playing]), obs, ~(over & active))
            progress(int((playing // num_envs).sum()), episodes)
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))


def _check_length(lengths: np.ndarray, most: int) -> None:
    if lengths.max(initial=0) >= most:
        raise EndlessEpisodeError(
            f"an episode did not end in {most:,} steps: give the environment a time limit (gymnasium's TimeLimit wrapper)"
        )


def _check_shown(encoding: Encoding, obs: Tree, whose: Callable[[int], str]) -> None:
    """Refuse observations that are none: of plain arrays quickly, because it is done in every step."""
    if encoding.plain:
        x = obs.reshape(-1)
        if math.isfinite(x.dot(x)):
            return
    encoding.check(obs, whose=whose)


def _check_rewards(rew: np.ndarray, whose: Callable[[int], str]) -> None:
    if math.isfinite(rew.dot(rew)) or np.isfinite(rew).all():
        return
    i = int((~np.isfinite(rew)).argmax())
    raise NotFiniteError(f"{whose(i)} a reward that is finite, got {rew[i]}")


def _play_vector(
    actor: Actor, envs: VectorEnv, episodes: int, greedy: bool, seed: int, max_episode_steps: int, progress: Told
) -> Evaluation:
    """The episodes of a user's vector environment: one of each environment at a time, so that little is held."""
    collector = Collector(envs, seed, max_episode_steps)
    player: Any = Greedy(actor) if greedy else actor
    returns: list[float] = []
    lengths: list[int] = []
    while len(returns) < episodes:
        record = collector.episodes(player, min(envs.num_envs, episodes - len(returns)))
        returns += [ret for ret, _ in record.finished]
        lengths += [length for _, length in record.finished]
        progress(len(returns), episodes)
    return Evaluation(tuple(returns), tuple(lengths))


class Greedy:
    """An actor that takes another actor's most likely actions."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.actor, name)

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        """The actor's most likely actions."""
        act, state = self.actor.mode(obs, state)
        return act, state, {}


def _begun(actor: Actor, state: Tree, over: np.ndarray, rngs: list[np.random.Generator]) -> Tree:
    """The state, new where an episode begins, from the episode's own generator."""
    for i in over.nonzero()[0]:
        fresh = actor.begin(actor.noise(rngs[i], (1,)))
        if state is None:
            state = tree_map(lambda x: np.repeat(x, len(over), 0), fresh)
        put(state, slice(i, i + 1), fresh)
    return state
