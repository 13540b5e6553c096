"""The Collector: steps environments with a policy and hands out Rollouts.

Three autoreset modes, one layout. NEXT_STEP: the row after an end is a reset row, masked, and obs[t+1] at an end *is* the
final observation, so next_obs is a view of obs[1:]. SAME_STEP: next_obs is patched with `final_obs`. DISABLED: the
environments that ended are reset here, and next_obs keeps what they showed last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.data import Rollout
from policygrad.envs.serial import SerialVectorEnv
from policygrad.errors import EnvError, NotFiniteError
from policygrad.models.heads import Head
from policygrad.models.observations import LEGAL, Encoding, LegalActionsError, expand
from policygrad.models.policy import Policy


@dataclass
class Record:
    """What stepping N environments T times leaves behind, in numpy. Grows along the first axis."""

    obs: np.ndarray  # (T+1, N, *)
    next_obs: np.ndarray  # (T, N, *)
    act: np.ndarray  # (T, N, *)
    rew: np.ndarray  # (T, N)
    terminated: np.ndarray  # (T, N)
    truncated: np.ndarray  # (T, N)
    mask: np.ndarray  # (T, N)
    time: np.ndarray  # (T, N)

    @property
    def end(self) -> np.ndarray:
        """(T, N) bool: the ends the environment announced."""
        return self.terminated | self.truncated


class EndlessEpisodeError(EnvError, RuntimeError):
    """Whole episodes are needed, and one does not end."""


class Collector:
    """Steps `envs` with a policy. Owns the environments, the sampling noise and the episode statistics.

    steps: environment steps that counted so far; episodes: finished ones; returns, lengths: of the last 100 of them.
    """

    def __init__(self, envs: VectorEnv, seed: int = 0, max_episode_steps: int = 100_000) -> None:
        self.envs = envs
        self.num_envs = envs.num_envs
        self.mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.pauses = hasattr(envs, "paused")  # ours do: who has no episode left to play sits out
        self.max_episode_steps = max_episode_steps
        self.seed = seed
        self.rng = np.random.default_rng([seed, 0])
        self._seed_environments(0)
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=100)
        self.lengths: deque[int] = deque(maxlen=100)
        self.finished: list[tuple[float, int]] | None = None  # a list here gets (return, length) of every one of them
        self.obs: np.ndarray | None = None  # what the environments show now
        self.time = np.zeros(self.num_envs, np.int64)  # steps into the current episodes
        self.ret = np.zeros(self.num_envs)  # their returns so far
        self.resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the next row is a reset row

    def _seed_environments(self, steps: int) -> None:
        """Seeds for the next reset: of the run's start, or of where it goes on."""
        seeds = np.random.SeedSequence([self.seed, 1, steps]).generate_state(self.num_envs)
        self.env_seeds: list[int] = [int(s) for s in seeds]

    def steps(self, policy: Policy, T: int) -> Rollout:
        """T rows of every environment, unfinished episodes `cut` at the edge."""
        if self.obs is None:
            self._reset(policy)
        record = self._record(policy, T)
        cut = np.zeros_like(record.mask)
        cut[-1] = record.mask[-1] & ~record.end[-1]
        self._count(record)
        return self._rollout(policy, record, cut)

    def episodes(self, policy: Policy, n: int) -> Rollout:
        """Whole episodes, n in all, from fresh resets, one a column, padded with masked rows.

        Environment i plays a quota fixed in advance: taking the first n to finish would favour short episodes. Our own
        environments pause when theirs is done; a user's vector environment steps on until all are, and those steps, which
        nobody learns from, are not counted.
        """
        self._reset(policy)
        quota = np.full(self.num_envs, n // self.num_envs)
        quota[: n % self.num_envs] += 1
        left: np.ndarray = quota.copy()
        chunks: list[Record] = []
        self._count_down(left, np.zeros(self.num_envs, bool))  # with fewer episodes than environments, some have none
        while (left > 0).any():
            chunks.append(self._record(policy, 64, left))
            waiting = (left > 0) & (self.time >= self.max_episode_steps)
            if waiting.any():
                i = int(waiting.argmax())
                raise EndlessEpisodeError(
                    f"environment {i} did not end its episode in {self.time[i]} steps: give it a time limit (gymnasium's "
                    "TimeLimit wrapper), or use an estimator with a critic, which needs no whole episodes"
                )
        self.obs = None  # the environments beyond their quota are abandoned
        record = self._one_episode_a_column(chunks, quota)
        return self._rollout(policy, record, np.zeros_like(record.mask))

    def _reset(self, policy: Policy) -> None:
        """Reset all environments: seeded the first time, from their own generators afterwards."""
        seeds: Any = self.env_seeds or None
        if seeds and not isinstance(self.envs.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            seeds = seeds[0]  # native vector environments have one generator
        encoding = encoding_of(policy, self.envs.single_observation_space)
        if isinstance(self.envs, SerialVectorEnv):
            self.envs.report_legal = encoding.legal == "info"
        obs, info = self.envs.reset(seed=seeds)
        self.env_seeds = []
        self.obs = encoding.empty(self.num_envs)
        encoding.encode(obs, info, self.obs)
        if policy.head.remembers:
            start = policy.head.noise(self.rng, (self.num_envs,))
            memory = self.obs[:, encoding.features :]
            memory[:] = policy.head.remember(memory, start, np.ones(self.num_envs, bool))
        self.time[:], self.ret[:] = 0, 0.0
        envs = self.envs.unwrapped
        if not (isinstance(envs, AsyncVectorEnv) and not envs.shared_memory):
            self.resetting[:] = False  # those, in Gymnasium 1.4, reset again where an episode had ended

    def _record(self, policy: Policy, T: int, left: np.ndarray | None = None) -> Record:
        """Step T rows. The hot loop: actor forward, sample, step; everything else is done for all rows at once.

        left: the episodes each environment still has to play, counted down; the record ends when none has any.
        """
        N, envs, head = self.num_envs, self.envs, policy.head
        encoding = encoding_of(policy, envs.single_observation_space)
        encode, features, told = encoding.encode, encoding.features, encoding.legal == "info"
        obs = encoding.empty(T + 1, N)
        noise = head.noise(self.rng, (T, N))
        to_env = action_adapter(envs.single_action_space, head)
        rew = np.empty((T, N), np.float32)
        terminated, truncated = np.empty((T, N), bool), np.empty((T, N), bool)
        separate = self.mode is not AutoresetMode.NEXT_STEP
        next_obs = encoding.empty(T, N) if separate else obs[1:]
        actions = []
        quota = None if left is None else left.copy()
        obs[0] = self.obs
        for t in range(T):
            act = head.sample(policy.outputs(obs[t]), noise[t])
            actions.append(act)
            now, rew[t], terminated[t], truncated[t], info = envs.step(to_env(act))
            encode(now, info, obs[t + 1], self._silent(terminated[t] | truncated[t]) if told else None)
            if separate:
                next_obs[t] = obs[t + 1]
                self._after_end(encoding, obs[t + 1], next_obs[t], terminated[t] | truncated[t], info)
            if head.remembers:
                obs[t + 1, :, features:] = head.remember(obs[t, :, features:], noise[t], terminated[t] | truncated[t])
            if left is not None and self._count_down(left, terminated[t] | truncated[t]):
                break
        if len(actions) < T:
            T = len(actions)
            obs, next_obs, rew = obs[: T + 1], next_obs[:T], rew[:T]
            terminated, truncated = terminated[:T], truncated[:T]
        self.obs = obs[T]
        truncated &= ~terminated
        end = terminated | truncated
        mask = self._mask(end)
        if quota is not None:
            mask &= end.cumsum(0) - end < quota  # what follows an environment's last episode are no steps
        time = self._times(mask, end)
        record = Record(obs, next_obs, np.stack(actions), rew, terminated, truncated, mask, time)
        self._check_finite(record)
        if head.context:
            self._check_possible(record, head, features)
        return record

    def _silent(self, end: np.ndarray) -> np.ndarray:
        """Who need not say which actions are legal: there is nothing to act upon."""
        return end | self.envs.paused if self.pauses else end  # pyright: ignore[reportAttributeAccessIssue]

    def _count_down(self, left: np.ndarray, end: np.ndarray) -> bool:
        """Take the ended episodes from those left, and pause who has none; True when nobody has."""
        np.subtract(left, end, out=left)
        if self.pauses:
            self.envs.paused = left <= 0  # pyright: ignore[reportAttributeAccessIssue]
        return bool((left <= 0).all())

    def _mask(self, end: np.ndarray) -> np.ndarray:
        """NEXT_STEP: False on reset rows, the rows after ends. The other modes have none."""
        mask = np.ones_like(end)
        if self.mode is AutoresetMode.NEXT_STEP:
            mask[0], mask[1:] = ~self.resetting, ~end[:-1]
            self.resetting = end[-1].copy()
        return mask

    def _check_finite(self, record: Record) -> None:
        """Numbers that are not finite stop the run before they reach the parameters."""
        for name in ("act", "rew", "obs", "next_obs"):
            x = getattr(record, name)
            if np.isfinite(x).all():
                continue
            t, n, *index = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
            row = min(t, len(record.rew) - 1)
            episode = self.episodes_done + int(record.end[:row].sum()) + 1
            what = {"act": f"action{index}", "rew": "reward"}.get(name, f"observation{index}")
            hint = (
                "The policy's parameters are not finite any more: lower lr" if name == "act" else "Nothing was updated"
            )
            raise NotFiniteError(
                f"{what} is {x[(t, n, *index)]} in environment {n}, around step {int(record.time[row, n])} of its episode "
                f"(about number {episode} of the run); the action was {record.act[row, n].tolist()}. {hint}."
            )

    def _check_possible(self, record: Record, head: Head, features: int) -> None:
        """An environment without a legal action stops the run: whatever is sampled then is none."""
        context = record.obs[:-1].reshape(-1, record.obs.shape[-1])[:, features:]
        wrong = record.mask & ~head.possible(context).reshape(record.mask.shape)
        if wrong.any():
            t, n = (int(i) for i in np.argwhere(wrong)[0])
            raise LegalActionsError(
                f"environment {n} leaves no legal action at step {int(record.time[t, n])} of its episode"
            )

    def _after_end(
        self, encoding: Encoding, obs: np.ndarray, next_obs: np.ndarray, end: np.ndarray, info: dict[str, Any]
    ) -> None:
        """SAME_STEP: obs shows the new episodes, final_obs the old. DISABLED: reset the ended ones now."""
        if not end.any():
            return
        if self.mode is AutoresetMode.SAME_STEP:
            for n in end.nonzero()[0]:
                final = {k: [_of_one(v, int(n))] for k, v in info.get("final_info", {}).items() if k == LEGAL}
                next_obs[n : n + 1, ...] = encoding.empty(1)
                one = _of_one(info["final_obs"], int(n))
                encoding.encode(expand(one, encoding.space), final, next_obs[n : n + 1], end[n : n + 1])
        else:
            encoding.encode(*self.envs.reset(options={"reset_mask": end.copy()}), obs, ~end)

    def _times(self, mask: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The step index inside the episode, for every row."""
        T = len(mask)
        row = np.arange(T)[:, None]
        # an episode starts at the row after a reset row (NEXT_STEP) or after an end (the other modes)
        starts = np.where(mask, 0, row + 1)
        if self.mode is not AutoresetMode.NEXT_STEP:
            starts[1:] = np.where(end[:-1], row[1:], 0)
        first = np.maximum.accumulate(starts)
        time = np.where(mask, row - first + np.where(first == 0, self.time, 0), 0)
        over = end[-1] | ~mask[-1]
        self.time = np.where(over, 0, time[-1] + 1)
        return time

    def _count(self, record: Record) -> None:
        """Steps, episodes, and the returns and lengths of finished episodes."""
        self.steps_done += int(record.mask.sum())
        running = np.cumsum(np.where(record.mask, record.rew, 0.0), axis=0, dtype=np.float64)
        running += self.ret
        done_before = np.zeros(self.num_envs)
        for t, n in zip(*record.end.nonzero(), strict=True):
            self._finished(float(running[t, n] - done_before[n]), int(record.time[t, n]) + 1)
            done_before[n] = running[t, n]
        self.ret = running[-1] - done_before

    def _finished(self, ret: float, length: int) -> None:
        self.returns.append(float(ret))
        self.lengths.append(length)
        self.episodes_done += 1
        if self.finished is not None:
            self.finished.append((float(ret), length))

    def _one_episode_a_column(self, chunks: list[Record], quota: np.ndarray) -> Record:
        """Cut the recorded rows into episodes, one a column; count them."""
        names = ("next_obs", "act", "rew", "terminated", "truncated", "mask", "time")
        rows = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
        rows["obs"] = np.concatenate([chunk.obs[:-1] for chunk in chunks])
        spans = []  # (environment, first row, row after the last) of every episode
        for n, count in enumerate(quota):
            first = 0
            for last in (rows["terminated"][:, n] | rows["truncated"][:, n]).nonzero()[0][:count].tolist():
                spans.append((n, first + int(not rows["mask"][first, n]), last + 1))  # without the reset row
                first = last + 1
        T, columns = max(stop - start for _, start, stop in spans), len(spans)
        shapes = {name: (T + (name == "obs"), columns, *x.shape[2:]) for name, x in rows.items() if name != "next_obs"}
        cut = {name: np.zeros(shape, rows[name].dtype) for name, shape in shapes.items()}
        for column, (n, start, stop) in enumerate(spans):
            length = stop - start
            for name in shapes:
                cut[name][:length, column] = rows[name][start:stop, n]
            cut["obs"][length, column] = rows["next_obs"][stop - 1, n]
            self._finished(float(cut["rew"][:length, column].sum(dtype=np.float64)), length)
        self.steps_done += int(cut["mask"].sum())
        return Record(next_obs=cut["obs"][1:], **cut)

    def _rollout(self, policy: Policy, record: Record, cut: np.ndarray) -> Rollout:
        """To tensors on the same memory, with the behaviour policy's log-probabilities in one batched pass."""
        obs, act = torch.from_numpy(record.obs), torch.from_numpy(record.act)
        T, N = record.rew.shape
        shared = record.next_obs.base is record.obs
        logp = policy.evaluate(obs[:-1].flatten(0, 1), act.flatten(0, 1)).logp.view(T, N)
        return Rollout(
            obs=obs,
            next_obs=obs[1:] if shared else torch.from_numpy(record.next_obs),
            act=act,
            rew=torch.from_numpy(record.rew).to(logp.dtype),
            logp=logp,
            terminated=torch.from_numpy(record.terminated),
            truncated=torch.from_numpy(record.truncated),
            cut=torch.from_numpy(cut),
            mask=torch.from_numpy(record.mask),
            time=torch.from_numpy(record.time),
        )

    def state_dict(self) -> dict[str, Any]:
        """The sampling generator and the counters; environments start afresh."""
        return {
            "rng": self.rng.bit_generator.state,
            "steps_done": self.steps_done,
            "episodes_done": self.episodes_done,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`; the next rollout begins with fresh episodes, on seeds of their own."""
        self.rng.bit_generator.state = state["rng"]
        self.steps_done, self.episodes_done = state["steps_done"], state["episodes_done"]
        self.returns.clear()
        self.returns.extend(state["returns"])
        self.lengths.clear()
        self.lengths.extend(state["lengths"])
        self.obs = None
        self._seed_environments(self.steps_done)


def encoding_of(policy: Policy, space: spaces.Space) -> Encoding:
    """How observations become tensors: the policy's own, or for one made by hand the space's."""
    return Encoding(space) if policy.encoding is None else policy.encoding


def _of_one(final: Any, n: int) -> Any:
    """The final observation of one environment; Gymnasium turns a Dict's into a dict of arrays."""
    return {key: _of_one(part, n) for key, part in final.items()} if isinstance(final, dict) else final[n]


def action_adapter(space: spaces.Space, head: Head) -> Callable[[np.ndarray], Any]:
    """From the head's actions to the environment's: discrete ones count from `start`, Box is clipped to its bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        start, dtype = space.start, space.dtype
        if not np.any(start) and dtype == np.int64:
            return lambda act: act
        return lambda act: (act + start).astype(dtype)
    if isinstance(space, spaces.MultiBinary):
        return lambda act: act.astype(space.dtype)
    assert isinstance(space, spaces.Box)
    low, high, dtype, to_scale = space.low, space.high, space.dtype, head.to_env
    if not space.shape:  # a row of these is a number, which is no member of the space
        return lambda act: [np.asarray(a, dtype) for a in np.clip(to_scale(act), low, high)]
    return lambda act: np.clip(to_scale(act), low, high).astype(dtype, copy=False)
