"""The Collector: steps environments with an actor and hands out Records.

Three autoreset modes, one layout. NEXT_STEP: the row after an end is a reset row, masked, and obs[t+1] at an end *is* the
final observation, so next_obs is a view of obs[1:]. SAME_STEP: next_obs is patched with `final_obs`. DISABLED: the
environments that ended are reset here, and next_obs keeps what they showed last.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.data import Record, Wants
from policygrad.envs.adapters import acting, action_adapter, begun, encoding_of, noise_of, rolled, to_arrays, to_tensors
from policygrad.envs.checks import (
    Watched,
    autoreset_mode,
    check_begun,
    check_masks,
    check_others,
    check_record,
    final_observation,
    of_one,
    singles,
)
from policygrad.envs.columns import finished_episodes, of_all_shards, one_episode_per_column, quotas, step_times
from policygrad.envs.endless import check_endless
from policygrad.envs.envpool import EnvPoolVectorEnv
from policygrad.envs.lent import Witness
from policygrad.envs.scores import Scores
from policygrad.forms import RECENT, Form, collector_form
from policygrad.models.contracts import Actor
from policygrad.models.observations import ACTION_MASK, Encoding
from policygrad.streams import seeds, stream
from policygrad.total import greatest, total
from policygrad.tree import Tree, put, take, tree_map

COUNTED = ("steps_done", "episodes_done")
RECENTLY = ("returns", "lengths")
# of every environment, where it is known; see `SerialVectorEnv.restore`
Snapshots = Sequence[dict[str, Any] | None] | None
WHERE = ("obs", "state", "time", "ret", "resetting")  # arrays of the episodes that are being played


class Collector:
    """Steps `envs` with an actor. Owns the environments, the sampling noise and the episode statistics.

    Where a record fails or is interrupted before it is whole, all is as it was before: the environments are brought back, by
    playing the episodes again, when the next one is asked for.
    steps_done: environment steps that counted so far; episodes_done: finished ones; returns, lengths: of the last 100 of
    them. observers: functions that are shown every record. lent: whether others hold these environments, too; where it shows
    that somebody moved them between two records, there is a warning, and the next record begins with a reset. place: which of
    all environments of a data-parallel learner these are: the number of the first, and how many there are in all.
    """

    def __init__(
        self,
        envs: VectorEnv,
        seed: int = 0,
        max_episode_steps: int = 100_000,
        *,
        lent: bool = False,
        place: tuple[int, int] | None = None,
    ) -> None:
        self.envs, self.mode, self.num_envs = envs, autoreset_mode(envs), envs.num_envs
        self.place = (0, envs.num_envs) if place is None else place
        # ours pause, go back to where they were, and check what they are given
        self.ours = hasattr(type(envs), "restore")
        self.source: Any = envs if self.ours else Watched(envs)
        self.pooled = isinstance(envs, EnvPoolVectorEnv)
        self.witness = Witness(singles(envs)) if lent else None
        self.max_episode_steps, self.seed = max_episode_steps, seed
        self.rng = np.random.default_rng(stream(seed, "acting"))
        self._seed_environments(0)
        self.pending: Snapshots = None  # how to bring the environments to where they are to be
        self.steps_done = self.episodes_done = 0
        self.returns: deque[float] = deque(maxlen=RECENT)
        self.lengths: deque[int] = deque(maxlen=RECENT)
        self.observers: list[Callable[[Record], None]] = []
        self.scores, self.begun, self.progress = Scores(envs), True, 0.0  # begun: environments need not know the actor
        self.obs: Tree = None  # what they show now; None before a reset
        self.state: Tree = None  # the actor's
        self.time = np.zeros(self.num_envs, np.int64)  # steps into the current episodes
        self.ret = np.zeros(self.num_envs)  # their returns so far
        self.resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the next row is a reset row

    def _seed_environments(self, steps: int) -> None:
        """Seeds for the next reset: of the run's start, or of where it goes on."""
        first, whole = self.place
        self.env_seeds = seeds(self.seed, "environments", whole, steps)[first : first + self.num_envs]

    def begin(self, actor: Actor) -> None:
        """Nothing to do before the first record."""

    def forget(self) -> None:
        """Somebody else has moved the environments: begin anew, on new seeds. The episodes that were open are not counted."""
        self.obs = self.pending = None
        self._seed_environments(self.steps_done)

    def collect(self, actor: Actor, wants: Wants) -> Record:
        """As much as is wanted: rows of every environment, or whole episodes."""
        if wants.episodes is not None:
            return self.episodes(actor, wants.episodes)
        assert wants.num_steps is not None
        return self.steps(actor, wants.num_steps)

    def steps(self, actor: Actor, T: int) -> Record:
        """T rows of every environment, unfinished episodes `cut` at the edge."""
        return self._whole(self._steps, actor, T)

    def _steps(self, actor: Actor, T: int) -> Record:
        if self.obs is None:
            self._reset(actor)
        record = self._record(actor, T)
        record.cut[-1] = record.mask[-1] & ~record.end[-1]
        record.finished.extend(self._count(record))
        return record

    def episodes(self, actor: Actor, n: int) -> Record:
        """Whole episodes, n in all, from fresh resets, one per column, padded with masked rows.

        Environment i plays a quota fixed in advance: taking the first n to finish would favour short episodes. Ours pause when
        theirs is done; a user's vector environment steps on until all are, and those steps, of no use, are not counted.
        """
        return self._whole(self._episodes, actor, n)

    def _episodes(self, actor: Actor, n: int) -> Record:
        self._reset(actor)
        quota = quotas(n, *self.place, self.num_envs)
        left: np.ndarray = quota.copy()
        chunks: list[Record] = []
        self._count_down(left, np.zeros(self.num_envs, bool))  # with fewer episodes than environments, some have none
        while (left > 0).any():
            chunks.append(self._record(actor, 64, left))
            check_endless(left, self.time, self.max_episode_steps)
        for _ in range(greatest(len(chunks)) - len(chunks)):  # as much as the slowest shard, so that all draw alike
            noise_of(actor, self.rng, (64, self.num_envs), self.place)
        self.obs = None  # the environments beyond their quota are abandoned
        record = one_episode_per_column(chunks, quota)
        self.steps_done += total(record.steps)
        record.finished[:] = self._finished(record.finished)
        return record

    def _whole(self, collect: Callable[[Actor, int], Record], actor: Actor, count: int) -> Record:
        """A record, or everything as it was before."""
        self.restore()
        if self.witness is not None and self.obs is not None and self.witness.moved():
            self.forget()
        if self.pooled and self.source.worn:  # by its steps, so that a run that goes on does the same
            self.forget()
        before = self._now()
        if self.ours:
            self.source.mark()
        try:
            record = collect(actor, count)
            for observer in self.observers:
                observer(record)
        except BaseException:
            self.load_state_dict(before | {"envs": self._snapshot(before, marked=True)})
            raise
        if self.witness is not None:
            self.witness.look()
        return record

    def _reset(self, actor: Actor) -> None:
        """Reset all environments: seeded the first time, from their own generators afterwards."""
        seeds: Any = self.env_seeds or None
        each = self.ours or isinstance(self.envs.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        if seeds and (self.pooled or not each):
            seeds = seeds[0]  # native vector environments have one generator
        encoding = encoding_of(actor, self.envs.single_observation_space)
        self._listen(encoding)
        shown = encoding.empty(self.num_envs)
        obs, info = self.source.reset(seed=seeds)
        encoding.encode(obs, info, shown)
        self.env_seeds = []
        self.obs = shown
        self.state = actor.begin(noise_of(actor, self.rng, (self.num_envs,), self.place)) if actor.stateful else None
        self.time, self.ret = np.zeros_like(self.time), np.zeros_like(self.ret)
        envs = self.envs.unwrapped
        if not (isinstance(envs, AsyncVectorEnv) and not envs.shared_memory):
            # those, in Gymnasium 1.4, reset again where an episode had ended
            self.resetting = np.zeros_like(self.resetting)
        if self.witness is not None:
            self.witness.begin()

    def _listen(self, encoding: Encoding) -> None:
        """Have those infos told that are read."""
        masks = encoding.mask_source == "info"
        if self.ours:
            self.source.report_masks, self.source.no_masks = masks, encoding.mask_source == "none"
        else:
            self.source.reads_info = masks or self.mode is AutoresetMode.SAME_STEP

    def _record(self, actor: Actor, T: int, left: np.ndarray | None = None) -> Record:
        """Step T rows. The hot loop: act, step; everything else is done for all rows at once.

        left: the episodes each environment still has to play, counted down; the record ends when none has any.
        """
        N, envs, state, stateful = self.num_envs, self.envs, self.state, actor.stateful
        step = self.source.step if self.witness is None else self.witness.watching(self.source.step)
        encoding = encoding_of(actor, envs.single_observation_space)
        self._listen(encoding)
        encode, masks_told = encoding.encode, encoding.mask_source == "info"
        separate = self.mode is not AutoresetMode.NEXT_STEP
        ends_matter = masks_told or separate or stateful or left is not None
        obs, final = encoding.empty(T + 1, N), encoding.empty(T, N) if separate else None
        noise = noise_of(actor, self.rng, (T, N), self.place)
        rew, terminated, truncated = np.empty((T, N), np.float32), np.empty((T, N), bool), np.empty((T, N), bool)
        quota = None if left is None else left.copy()
        actions: Any = []
        extras, over = [], self.resetting.copy()  # over: whether this row is a reset row
        now = take(obs, 0)
        put(now, ..., self.obs)
        played = None if ends_matter or self.witness else rolled(envs, actor, obs, noise)
        if played is not None:
            actions, rew, terminated, truncated = played
            now, extras = take(obs, T), [{}]
        to_env, choose = self._step_by_step(actor, played is None)
        for t in range(T if played is None else 0):
            act, state, extra = choose(now, state, noise[t])
            actions.append(act)
            extras.append(extra)
            given, rew[t], terminated[t], truncated[t], info = step(to_env(act))
            now = take(obs, t + 1)
            if not ends_matter:
                encode(given, info, now)
                continue
            end = terminated[t] | truncated[t]
            encode(given, info, now, self._silent(end) if masks_told else None)
            if final is not None:
                put(final, t, now)
                self._after_end(encoding, now, take(final, t), end, info)
            if stateful:
                begins = end if actor.begins_once or separate else end | over
                state, over = begun(begins, actor.begin(noise[t]), state), end
            if left is not None and self._count_down(left, end):
                break
        self.obs, self.state = now, state
        T = len(actions)
        ends = terminated[:T], truncated[:T] & ~terminated[:T]
        next_obs = take(obs, slice(1, T + 1)) if final is None else take(final, slice(T))
        record = self._noted(take(obs, slice(T + 1)), next_obs, actions, rew[:T], *ends, extras, quota)
        check_record(record, encoding, self.episodes_done, ("obs", "next_obs") if separate else ("obs",))
        if encoding.mask_source != "none":
            check_masks(record, actor)
        return record

    def _step_by_step(self, actor: Actor, wanted: bool) -> tuple[Any, Any]:
        """What turns an actor's actions into the environments', and the actor's `act`, if it is to be asked."""
        if not wanted:
            return None, None
        return action_adapter(self.envs.single_action_space, actor), acting(actor, self.num_envs)

    def _noted(
        self,
        obs: Tree,
        next_obs: Tree,
        actions: Sequence[np.ndarray] | np.ndarray,
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        extras: Sequence[Mapping[str, Tree]],
        quota: np.ndarray | None,
    ) -> Record:
        """The record of what was stepped, with the rows that count and the time of each."""
        end = terminated | truncated
        mask = self._mask(end)
        check_begun(end, mask)
        if quota is not None:
            mask &= end.cumsum(0) - end < quota  # what follows an environment's last episode are no steps
        time, self.time = step_times(mask, end, self.time, self.mode is AutoresetMode.NEXT_STEP)
        return Record(
            obs=obs,
            next_obs=next_obs,
            act=np.array(actions),
            rew=rew,
            terminated=terminated,
            truncated=truncated,
            cut=np.zeros_like(mask),
            mask=mask,
            time=time,
            extra={name: tree_map(lambda *x: np.stack(x), *(each[name] for each in extras)) for name in extras[0]},
        )

    def _silent(self, end: np.ndarray) -> np.ndarray:
        """Who need not say which actions are legal: there is nothing to act upon."""
        return end | self.envs.paused if self.ours else end  # pyright: ignore[reportAttributeAccessIssue]

    def _count_down(self, left: np.ndarray, end: np.ndarray) -> bool:
        """Subtract the ended episodes from those left, and pause environments that have none; True when none has any."""
        np.subtract(left, end, out=left)
        if self.ours:
            self.envs.paused = left <= 0  # pyright: ignore[reportAttributeAccessIssue]
        return bool((left <= 0).all())

    def _mask(self, end: np.ndarray) -> np.ndarray:
        """NEXT_STEP: False on reset rows, the rows after ends. The other modes have none."""
        mask = np.ones_like(end)
        if self.mode is AutoresetMode.NEXT_STEP:
            mask[0], mask[1:] = ~self.resetting, ~end[:-1]
            self.resetting = end[-1].copy()
        return mask

    def _after_end(self, encoding: Encoding, obs: Tree, next_obs: Tree, end: np.ndarray, info: dict[str, Any]) -> None:
        """SAME_STEP: obs shows the new episodes, final_obs the old. DISABLED: reset the ended ones now."""
        if not end.any():
            return
        if self.mode is AutoresetMode.SAME_STEP:
            for n in end.nonzero()[0].tolist():
                said, rows = info.get("final_info"), slice(n, n + 1)
                mask = said.get(ACTION_MASK) if isinstance(said, dict) else None
                put(next_obs, rows, encoding.empty(1))
                final = {} if mask is None else {ACTION_MASK: [of_one(mask, n)]}
                encoding.encode(final_observation(encoding.space, info, n), final, take(next_obs, rows), end[rows])
        else:
            fresh, told = self.source.reset(options={"reset_mask": end.copy()})
            encoding.encode(fresh, told, obs, ~end)
            check_others(next_obs, obs, end)

    def _count(self, record: Record) -> list[tuple[float, int]]:
        """Steps, episodes, and the returns and lengths of finished episodes."""
        self.steps_done += total(record.steps)
        finished, self.ret = finished_episodes(record, self.ret)
        return self._finished(finished, record.end.nonzero()[0])

    def _finished(self, episodes: list[tuple[float, int]], when: Any = ()) -> list[tuple[float, int]]:
        episodes = of_all_shards(self.scores.instead_of(episodes), when)
        if episodes:
            self.returns = deque([*self.returns, *(ret for ret, _ in episodes)], RECENT)
            self.lengths = deque([*self.lengths, *(length for _, length in episodes)], RECENT)
            self.episodes_done += len(episodes)
        return episodes

    def _now(self) -> dict[str, Any]:
        """Everything that collecting changes, but for the insides of the environments. None of it is changed in place."""
        return {
            "rng": self.rng.bit_generator.state,
            **{name: getattr(self, name) for name in (*COUNTED, *WHERE, *RECENTLY, "env_seeds")},
        }

    def _snapshot(self, now: dict[str, Any], marked: bool = False) -> Snapshots:
        """How to bring the environments to where they are, or were at the last mark; None where they have not been reset."""
        if now["env_seeds"]:
            return None
        return self.source.snapshot(marked) if self.ours else [None] * self.num_envs

    def restore(self) -> None:
        """Bring the environments to where they are to be, where that is still to be done; it is done before the next record.

        Where that cannot be done exactly a warning says so, and all environments begin new episodes.
        """
        if self.pending is None:
            return
        wrong = self.source.restore(self.pending) if self.ours else ["its state cannot be kept"] * self.num_envs
        self.pending = None  # not earlier: Ctrl-C in the middle of it leaves it still to be done
        if not any(wrong):
            if self.witness is not None:
                self.witness.begin()
            return
        n, why = next((n, why) for n, why in enumerate(wrong) if why)
        warnings.warn(
            f"environment {n} of {self.num_envs} cannot be brought back to where it was ({why}): all of them begin new "
            "episodes, so the run differs from one that was not interrupted",
            stacklevel=2,
        )
        self.obs = None
        self._seed_environments(self.steps_done)

    def state_dict(self) -> dict[str, Any]:
        """Everything that collecting changes, and how to bring the environments back to where they are."""
        state = self._now()
        recent = {name: list(state[name]) for name in RECENTLY}
        return to_tensors(state | recent | {"envs": self.pending or self._snapshot(state)})

    def state_form(self) -> Form:
        """Of `state_dict`."""
        return collector_form(self.num_envs)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`; the environments follow with the next record, see `restore`."""
        self.rng.bit_generator.state = state["rng"]
        for name in COUNTED:
            setattr(self, name, state[name])
        for name in RECENTLY:
            setattr(self, name, deque(state[name], RECENT))
        self.obs = self.pending = None
        if state.keys().isdisjoint({"envs", *WHERE}):  # version 0.4 did not say where the environments were
            self._seed_environments(self.steps_done)
            return
        for name in (*WHERE, "env_seeds"):
            setattr(self, name, to_arrays(state[name]))
        self.pending = to_arrays(state["envs"])
        if self.pending is None and not self.env_seeds:
            self.pending = [None] * self.num_envs
