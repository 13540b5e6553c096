"""The Collector: steps environments with an actor and hands out Records.

Three autoreset modes, one layout. NEXT_STEP: the row after an end is a reset row, masked, and obs[t+1] at an end *is* the
final observation, so next_obs is a view of obs[1:]. SAME_STEP: next_obs is patched with `final_obs`. DISABLED: the
environments that ended are reset here, and next_obs keeps what they showed last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.data import Record, Wants
from policygrad.envs.serial import SerialVectorEnv
from policygrad.errors import EnvError, NotFiniteError
from policygrad.forms import RECENT, Form, source_form
from policygrad.models.contracts import Actor
from policygrad.models.observations import ACTION_MASK, ActionMaskError, Encoding, expand
from policygrad.streams import seeds, stream
from policygrad.tree import Tree, concatenate, put, take, tree_leaves, tree_map


class EndlessEpisodeError(EnvError, RuntimeError):
    """Whole episodes are needed, and one does not end."""


class Collector:
    """Steps `envs` with an actor. Owns the environments, the sampling noise and the episode statistics.

    steps_done: environment steps that counted so far; episodes_done: finished ones; returns, lengths: of the last 100 of
    them. observers: functions that are shown every record.
    """

    def __init__(self, envs: VectorEnv, seed: int = 0, max_episode_steps: int = 100_000) -> None:
        self.envs = envs
        self.num_envs = envs.num_envs
        self.mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.pauses = hasattr(envs, "paused")  # ours do: who has no episode left to play sits out
        self.max_episode_steps = max_episode_steps
        self.seed = seed
        self.rng = np.random.default_rng(stream(seed, "acting"))
        self._seed_environments(0)
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=RECENT)
        self.lengths: deque[int] = deque(maxlen=RECENT)
        self.observers: list[Callable[[Record], None]] = []
        self.begun = True  # environments need no actor to be made ready for them
        self.obs: Tree = None  # what the environments show now; None before a reset
        self.state: Tree = None  # the actor's
        self.time = np.zeros(self.num_envs, np.int64)  # steps into the current episodes
        self.ret = np.zeros(self.num_envs)  # their returns so far
        self.resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the next row is a reset row

    def _seed_environments(self, steps: int) -> None:
        """Seeds for the next reset: of the run's start, or of where it goes on."""
        self.env_seeds = seeds(self.seed, "environments", self.num_envs, steps)

    def begin(self, actor: Actor) -> None:
        """Nothing to do before the first record."""

    def collect(self, actor: Actor, wants: Wants) -> Record:
        """As much as is wanted: rows of every environment, or whole episodes."""
        if wants.episodes is not None:
            return self.episodes(actor, wants.episodes)
        assert wants.num_steps is not None
        return self.steps(actor, wants.num_steps)

    def steps(self, actor: Actor, T: int) -> Record:
        """T rows of every environment, unfinished episodes `cut` at the edge."""
        if self.obs is None:
            self._reset(actor)
        record = self._record(actor, T)
        record.cut[-1] = record.mask[-1] & ~record.end[-1]
        record.finished.extend(self._count(record))
        return self._shown(record)

    def episodes(self, actor: Actor, n: int) -> Record:
        """Whole episodes, n in all, from fresh resets, one per column, padded with masked rows.

        Environment i plays a quota fixed in advance: taking the first n to finish would favour short episodes. Our own
        environments pause when theirs is done; a user's vector environment steps on until all are, and those steps, which
        nobody learns from, are not counted.
        """
        self._reset(actor)
        quota = np.full(self.num_envs, n // self.num_envs)
        quota[: n % self.num_envs] += 1
        left: np.ndarray = quota.copy()
        chunks: list[Record] = []
        self._count_down(left, np.zeros(self.num_envs, bool))  # with fewer episodes than environments, some have none
        while (left > 0).any():
            chunks.append(self._record(actor, 64, left))
            waiting = (left > 0) & (self.time >= self.max_episode_steps)
            if waiting.any():
                i = int(waiting.argmax())
                raise EndlessEpisodeError(
                    f"environment {i} did not end its episode in {self.time[i]} steps: give it a time limit (gymnasium's "
                    "TimeLimit wrapper), or use an estimator with a critic, which needs no whole episodes"
                )
        self.obs = None  # the environments beyond their quota are abandoned
        return self._shown(self._one_episode_per_column(chunks, quota))

    def _shown(self, record: Record) -> Record:
        for observer in self.observers:
            observer(record)
        return record

    def _reset(self, actor: Actor) -> None:
        """Reset all environments: seeded the first time, from their own generators afterwards."""
        seeds: Any = self.env_seeds or None
        if seeds and not isinstance(self.envs.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            seeds = seeds[0]  # native vector environments have one generator
        encoding = encoding_of(actor, self.envs.single_observation_space)
        if isinstance(self.envs, SerialVectorEnv):
            self.envs.report_masks = encoding.mask_source == "info"
        obs, info = self.envs.reset(seed=seeds)
        self.env_seeds = []
        self.obs = encoding.empty(self.num_envs)
        encoding.encode(obs, info, self.obs)
        self.state = actor.begin(actor.noise(self.rng, (self.num_envs,))) if actor.stateful else None
        self.time[:], self.ret[:] = 0, 0.0
        envs = self.envs.unwrapped
        if not (isinstance(envs, AsyncVectorEnv) and not envs.shared_memory):
            self.resetting[:] = False  # those, in Gymnasium 1.4, reset again where an episode had ended

    def _record(self, actor: Actor, T: int, left: np.ndarray | None = None) -> Record:
        """Step T rows. The hot loop: act, step; everything else is done for all rows at once.

        left: the episodes each environment still has to play, counted down; the record ends when none has any.
        """
        N, envs, state, stateful = self.num_envs, self.envs, self.state, actor.stateful
        encoding = encoding_of(actor, envs.single_observation_space)
        encode, masks_told = encoding.encode, encoding.mask_source == "info"
        separate = self.mode is not AutoresetMode.NEXT_STEP
        obs, final = encoding.empty(T + 1, N), encoding.empty(T, N) if separate else None
        noise = actor.noise(self.rng, (T, N))
        to_env = action_adapter(envs.single_action_space, actor)
        rew, terminated, truncated = np.empty((T, N), np.float32), np.empty((T, N), bool), np.empty((T, N), bool)
        quota = None if left is None else left.copy()
        actions, extras, over = [], [], self.resetting.copy()  # over: whether this row is a reset row
        now = take(obs, 0)
        put(now, ..., self.obs)
        for t in range(T):
            act, state, extra = actor.act(now, state, noise[t])
            actions.append(act)
            extras.append(extra)
            given, rew[t], terminated[t], truncated[t], info = envs.step(to_env(act))
            end = terminated[t] | truncated[t]
            now = take(obs, t + 1)
            encode(given, info, now, self._silent(end) if masks_told else None)
            if final is not None:
                put(final, t, now)
                self._after_end(encoding, now, take(final, t), end, info)
            if stateful:
                begins = end if actor.begins_once or separate else end | over
                state, over = _begun(begins, actor.begin(noise[t]), state), end
            if left is not None and self._count_down(left, end):
                break
        self.obs, self.state = now, state
        T = len(actions)
        ends = terminated[:T], truncated[:T] & ~terminated[:T]
        next_obs = take(obs, slice(1, T + 1)) if final is None else take(final, slice(T))
        record = self._noted(take(obs, slice(T + 1)), next_obs, actions, rew[:T], *ends, extras, quota)
        if encoding.mask_source != "none":
            self._check_masks(record, actor)
        return record

    def _noted(
        self,
        obs: Tree,
        next_obs: Tree,
        actions: list[np.ndarray],
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        extras: list[Mapping[str, Tree]],
        quota: np.ndarray | None,
    ) -> Record:
        """The record of what was stepped, with the rows that count and the time of each."""
        end = terminated | truncated
        mask = self._mask(end)
        if quota is not None:
            mask &= end.cumsum(0) - end < quota  # what follows an environment's last episode are no steps
        record = Record(
            obs=obs,
            next_obs=next_obs,
            act=np.stack(actions),
            rew=rew,
            terminated=terminated,
            truncated=truncated,
            cut=np.zeros_like(mask),
            mask=mask,
            time=self._times(mask, end),
            extra={name: tree_map(lambda *x: np.stack(x), *(each[name] for each in extras)) for name in extras[0]},
        )
        self._check_finite(record)
        return record

    def _silent(self, end: np.ndarray) -> np.ndarray:
        """Who need not say which actions are legal: there is nothing to act upon."""
        return end | self.envs.paused if self.pauses else end  # pyright: ignore[reportAttributeAccessIssue]

    def _count_down(self, left: np.ndarray, end: np.ndarray) -> bool:
        """Subtract the ended episodes from those left, and pause environments that have none; True when none has any."""
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
        parts = [(name, x) for name in ("act", "rew", "obs", "next_obs") for x in tree_leaves(getattr(record, name))]
        for name, x in parts:
            if x.dtype.kind != "f" or np.isfinite(x).all():
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

    def _check_masks(self, record: Record, actor: Any) -> None:
        """An environment without a legal action stops the run: whatever is sampled then is none."""
        acted_on = tree_map(lambda x: x[:-1].reshape(-1, *x.shape[2:]), record.obs)
        wrong = record.mask & ~actor.has_legal_action(acted_on).reshape(record.mask.shape)
        if wrong.any():
            t, n = (int(i) for i in np.argwhere(wrong)[0])
            raise ActionMaskError(
                f"environment {n} leaves no legal action at step {int(record.time[t, n])} of its episode"
            )

    def _after_end(self, encoding: Encoding, obs: Tree, next_obs: Tree, end: np.ndarray, info: dict[str, Any]) -> None:
        """SAME_STEP: obs shows the new episodes, final_obs the old. DISABLED: reset the ended ones now."""
        if not end.any():
            return
        if self.mode is AutoresetMode.SAME_STEP:
            for n in end.nonzero()[0]:
                final = {k: [_of_one(v, int(n))] for k, v in info.get("final_info", {}).items() if k == ACTION_MASK}
                one, rows = expand(_of_one(info["final_obs"], int(n)), encoding.space), slice(n, n + 1)
                put(next_obs, rows, encoding.empty(1))
                encoding.encode(one, final, take(next_obs, rows), end[rows])
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

    def _count(self, record: Record) -> list[tuple[float, int]]:
        """Steps, episodes, and the returns and lengths of finished episodes."""
        self.steps_done += record.steps
        running = np.cumsum(np.where(record.mask, record.rew, 0.0), axis=0, dtype=np.float64)
        running += self.ret
        done_before = np.zeros(self.num_envs)
        finished = []
        for t, n in zip(*record.end.nonzero(), strict=True):
            finished.append((float(running[t, n] - done_before[n]), int(record.time[t, n]) + 1))
            done_before[n] = running[t, n]
        self.ret = running[-1] - done_before
        return self._finished(finished)

    def _finished(self, episodes: list[tuple[float, int]]) -> list[tuple[float, int]]:
        self.returns.extend(ret for ret, _ in episodes)
        self.lengths.extend(length for _, length in episodes)
        self.episodes_done += len(episodes)
        return episodes

    def _one_episode_per_column(self, chunks: list[Record], quota: np.ndarray) -> Record:
        """Cut the recorded rows into episodes, one per column; count them."""
        names = ("next_obs", "act", "rew", "terminated", "truncated", "mask", "time", "extra")
        rows = {name: concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
        rows["obs"] = concatenate([take(chunk.obs, slice(-1)) for chunk in chunks])
        next_obs, mask, rew = rows.pop("next_obs"), rows["mask"], rows["rew"]
        spans = []  # (environment, first row, row after the last) of every episode
        for n, count in enumerate(quota):
            first = 0
            for last in (rows["terminated"][:, n] | rows["truncated"][:, n]).nonzero()[0][:count].tolist():
                spans.append((n, first + int(not mask[first, n]), last + 1))  # without the reset row
                first = last + 1
        T, columns = max(stop - start for _, start, stop in spans), len(spans)
        cut = {
            name: tree_map(lambda x, T=T + (name == "obs"): np.zeros((T, columns, *x.shape[2:]), x.dtype), tree)
            for name, tree in rows.items()
        }
        for column, (n, start, stop) in enumerate(spans):
            length = stop - start
            put(cut, (slice(length), column), take(rows, (slice(start, stop), n)))
            put(cut["obs"], (length, column), take(next_obs, (stop - 1, n)))
        returns = [float(rew[start:stop, n].sum(dtype=np.float64)) for n, start, stop in spans]
        record = Record(
            next_obs=take(cut["obs"], slice(1, None)),
            cut=np.zeros((T, columns), bool),
            finished=self._finished(
                [(ret, stop - start) for ret, (_, start, stop) in zip(returns, spans, strict=True)]
            ),
            **cut,
        )
        self.steps_done += record.steps
        return record

    def state_dict(self) -> dict[str, Any]:
        """The sampling generator and the counters; environments start afresh."""
        return {
            "rng": self.rng.bit_generator.state,
            "steps_done": self.steps_done,
            "episodes_done": self.episodes_done,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return source_form()

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


def _begun(where: np.ndarray, fresh: Tree, state: Tree) -> Tree:
    """The fresh state in the rows (N,) where an episode begins, the other one elsewhere."""
    return tree_map(lambda new, old: np.where(where.reshape(-1, *[1] * (new.ndim - 1)), new, old), fresh, state)


def encoding_of(actor: Actor, space: spaces.Space) -> Encoding:
    """How observations become arrays: the actor's own way, or for one made by hand the space's."""
    return Encoding(space) if actor.encoding is None else actor.encoding


def _of_one(final: Any, n: int) -> Any:
    """The final observation of one environment; Gymnasium turns a Dict's into a dict of arrays."""
    return {key: _of_one(part, n) for key, part in final.items()} if isinstance(final, dict) else final[n]


def action_adapter(space: spaces.Space, actor: Actor) -> Callable[[np.ndarray], Any]:
    """From the actor's actions to the environment's: discrete ones count from `start`, Box is clipped to its bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        start, dtype = space.start, space.dtype
        if not np.any(start) and dtype == np.int64:
            return lambda act: act
        return lambda act: (act + start).astype(dtype)
    if isinstance(space, spaces.MultiBinary):
        return lambda act: act.astype(space.dtype)
    assert isinstance(space, spaces.Box)
    low, high, dtype, to_scale = space.low, space.high, space.dtype, actor.to_env
    if not space.shape:  # a row of these is a number, which is no member of the space
        return lambda act: [np.asarray(a, dtype) for a in np.clip(to_scale(act), low, high)]
    return lambda act: np.clip(to_scale(act), low, high).astype(dtype, copy=False)
