"""A vector environment of our own in worker processes: what `SerialVectorEnv` does, on several cores.

Every worker steps a block of neighbouring environments and writes into shared memory. A vector step is one byte to each worker
and one byte back. Trajectories are those of the serial case, bit for bit, whatever the number of workers.

Processes are forked from a server that has imported NumPy and Gymnasium and runs nothing (Linux: forking this process, with
torch's threads in it, is not safe), or start from nothing (elsewhere). The callables that make environments travel by
cloudpickle, and the user's script is not run again.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import util
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from policygrad.envs.block import DONE, STEP, STEP_WITH_MASKS, Failure, Made, pack, unpack
from policygrad.envs.own_block import OwnHandle
from policygrad.envs.processes import cores_for, exit_text
from policygrad.envs.scores import Score
from policygrad.envs.serial import each_seed, mask_info
from policygrad.envs.shared import ARRAYS, Arrays, Memory, copy, put_rows, sharable, some_rows
from policygrad.envs.supervision import CLOSE_SECONDS, Watch, WorkerError, WorkerHandle, end, payloads

DEADLINE = 60.0  # seconds for a step, a reset, or the making of the environments
START = "forkserver" if sys.platform == "linux" else "spawn"  # how processes start
STAGES = ("made", "prepared", "reset", "step")  # of which an error closes the pool
LONG = 3600.0  # seconds for playing episodes again
AWAKE = 5e-4  # seconds that processes wait for each other without falling asleep


class WorkerVectorEnv(VectorEnv):
    """Environments in `num_workers` processes (None: one per core, as far as there are environments), in NEXT_STEP mode.

    deadline: seconds for a step, a reset or the making; a process that takes longer is killed. restart: a process that died
    or hung is replaced, which is warned of and counted in `restarts`; its environments end their episodes truncated, with
    reward 0 and what they showed last. Without it, and for errors that environments raise, a WorkerError says which
    environment it was, in which step of which episode, and the pool is closed.

    join: this process steps the first block itself, and with the workers it stays awake between two steps, so that a vector
    step is a tenth of a millisecond shorter; what is killed in time is then only what hangs in a worker.

    `paused` (N,) bool: who sits the steps out, until the next reset. report_masks: whether `info` shows the action masks, all
    that is kept of infos. The arrays that `step` and `reset` return are the next step's, too. Raises TypeError for spaces
    whose members are no arrays, and SendError for callables that cannot be pickled.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        num_workers: int | None = None,
        deadline: float = DEADLINE,
        restart: bool = False,
        join: bool = False,
    ) -> None:
        self.num_envs = N = len(env_fns)
        W = cores_for(N) if num_workers is None else num_workers
        if not 1 <= W <= N:
            raise ValueError(f"num_workers must be between 1 and the {N} environments, got {W}")
        self.deadline, self.restart, self.restarts, self.report_masks = deadline, restart, 0, False
        self._arrays: Arrays | None = None
        self._error = ""  # why the pool was closed
        # workers that were replaced, and the vector steps until they have certainly stepped an environment
        self._renewed: dict[int, int] = {}
        self._seeds: list[int | None] = [None] * N
        self._watch: Watch | None = None
        self._asking = False  # from a question to its replies: if it is so at the next one, Ctrl-C came in between
        self._attributes: dict[str, list[Any]] = {}  # what `set_attr` has set
        self._blocks = [range(i * N // W, (i + 1) * N // W) for i in range(W)]
        self._makers = env_fns[: self._blocks[0].stop] if join else None
        self._payloads = payloads([env_fns[block.start : block.stop] for block in self._blocks[join:]])
        self._awake = AWAKE if join else 0.0
        self._memory = Memory()
        self._context: Any = multiprocessing.get_context(START)
        if START == "forkserver":
            self._context.set_forkserver_preload(["policygrad.envs.block"])  # if it is not running yet
        self.workers: list[WorkerHandle | OwnHandle] = []
        # at the end of this object or process, before multiprocessing waits for its children; not in forked processes
        self._end = util.Finalize(self, end, (self.workers, self._memory), exitpriority=100)
        try:
            for index in range(W):
                self.workers.append(self._start(index))
            self._begin(self._gather("made"))
        except BaseException:
            self.close()
            raise

    def _start(self, index: int) -> WorkerHandle | OwnHandle:
        if self._makers is not None and index == 0:
            return OwnHandle(self._makers, self._memory, index, self._blocks[index])
        payload, more = self._payloads[index - (self._makers is not None)], (self._awake,)
        return WorkerHandle(self._context, self._memory, payload, index, self._blocks[index], more=more)

    def _begin(self, made: list[Made]) -> None:
        """Know the spaces, and share memory for them."""
        first = made[0]
        for worker, other in zip(self.workers, made, strict=True):
            for name in ("observation_space", "action_space"):
                if getattr(other, name) != getattr(first, name):
                    raise ValueError(
                        f"environment {worker.block.start} has {name} {getattr(other, name)}, environment 0 has "
                        f"{getattr(first, name)}: all must have the same"
                    )
        obs, act = first.observation_space, first.action_space
        if not sharable(obs) or not isinstance(act, ARRAYS):
            space, wanted = (act, "actions") if sharable(obs) else (obs, "observations")
            raise TypeError(
                f"{wanted} in {space} cannot be arrays in shared memory: expected Box, Discrete, MultiDiscrete or "
                f"MultiBinary{', or Dict and Tuple of those' if wanted == 'observations' else ''}, or backend='gymnasium'"
            )
        self.single_observation_space, self.single_action_space = obs, act
        self.observation_space, self.action_space = batch_space(obs, self.num_envs), batch_space(act, self.num_envs)
        self.metadata = first.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode, self.spec = first.render_mode, first.spec
        layout = obs, act, self.num_envs, len(self.workers)
        size = Arrays(*layout).size
        self._memory.resize(size)
        self._arrays = Arrays(*layout, self._memory.map(size))
        for worker in self.workers:
            if isinstance(worker, OwnHandle):
                worker.use(self._arrays)
        self._ask(pack(("attach", self.num_envs, len(self.workers))), "prepared")

    @property
    def paused(self) -> np.ndarray:
        """(N,) bool: the environments that are not stepped."""
        return self._shared.paused

    @paused.setter
    def paused(self, who: np.ndarray) -> None:
        self._shared.paused[:] = who

    @property
    def _shared(self) -> Arrays:
        assert self._arrays is not None
        return self._arrays

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere, paused environments included. seed: of environment i seed + i, or its own of a list."""
        seeds = each_seed(seed, self.num_envs)
        if options and "reset_mask" in options:
            raise ValueError("environments that reset themselves (NEXT_STEP) cannot be reset one by one: no reset_mask")
        self._shared.paused[:] = False
        messages = [pack(("reset", seeds[w.rows], options, self.report_masks)) for w in self.workers]
        replies = self._ask(messages, "reset")
        self._seeds = seeds if seed is not None else self._seeds
        lost = [i for i, reply in enumerate(replies) if isinstance(reply, WorkerError)]
        for i in lost:
            self._renew(i, replies[i])
            self.workers[i].send(messages[i])
        if lost:
            again, self._asking = self._gather("reset"), False
            for i in lost:
                replies[i] = again[i]
        return self._shared.obs, self._info(replies)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step."""
        if len(actions) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} actions, one per environment, got {len(actions)}")
        arrays = self._shared
        np.copyto(arrays.act, actions, casting="same_kind")
        replies = self._ask(STEP_WITH_MASKS if self.report_masks else STEP, "step")
        if self._renewed:
            self._renewed = {i: left - 1 for i, left in self._renewed.items() if left > 1}
        if self.restart:
            for i, reply in enumerate(replies):
                if isinstance(reply, WorkerError):
                    replies[i] = self._go_on(i, reply)
        return arrays.obs, arrays.rew, arrays.terminated, arrays.truncated, self._info(replies)

    def _info(self, replies: list[Any]) -> dict[str, Any]:
        if not self.report_masks:
            return {}
        silent = ([None] * len(block) for block in self._blocks)  # a block that was lost shows no masks
        return mask_info([mask for reply, none in zip(replies, silent, strict=True) for mask in reply or none])

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """A method of every environment, or an attribute."""
        return tuple(self.call_block("call", name, *args, **kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment: to its own of a list or tuple, or to the one value."""
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} values of {name!r}, one per environment, got {len(values)}")
        self._ask([pack(("call", "set_attr", (name, values[w.rows]), {})) for w in self.workers], "set_attr")
        self._attributes[name] = values

    def render(self) -> tuple[Any, ...]:
        """A picture of every environment."""
        return self.call("render")

    def call_block(self, name: str, *args: Any, split: Sequence[Any] | None = None, **kwargs: Any) -> list[Any]:
        """A method of each worker's SerialVectorEnv that returns one value per environment: all values.

        split: one value per environment; those of its own are each worker's first argument.
        """
        given = [args if split is None else (list(split[w.rows]), *args) for w in self.workers]
        replies = self._ask([pack(("call", name, each, kwargs)) for each in given], name)
        return [value for reply in replies for value in reply or ()]

    def mark(self) -> None:
        """As `SerialVectorEnv.mark`."""
        self.call_block("mark")

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """As `SerialVectorEnv.snapshot`; of environments that are lost nobody knows where they were."""
        try:
            return self.call_block("snapshot", marked)
        except WorkerError:
            return [None] * self.num_envs

    def restore(self, snapshots: Sequence[dict[str, Any] | None]) -> list[str | None]:
        """As `SerialVectorEnv.restore`; it may take as long as the episodes took."""
        return self.call_block("restore", split=snapshots)

    def scores(self) -> list[list[Score] | None]:
        """As `SerialVectorEnv.scores`."""
        return self.call_block("scores")

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end their processes within two seconds, even if they are busy."""
        self._end()

    def _ask(self, messages: bytes | list[bytes], doing: str) -> list[Any]:
        """Send a message to every worker, or to each its own, and wait for the replies."""
        if self.closed:
            raise WorkerError(f"the environments are closed{self._error and f', because {self._error}'}")
        if self._asking:  # Ctrl-C has interrupted what was asked last: its replies are nobody's
            for worker in self.workers:
                if not worker.settle(self.deadline) and isinstance(worker, WorkerHandle):
                    self._lost(worker, worker.process.is_alive(), "a step that was interrupted")
        self._asking = True
        for i, worker in enumerate(self.workers):
            worker.send(messages if isinstance(messages, bytes) else messages[i])
        replies = self._gather(doing)
        self._asking = False
        wrong = [reply for reply in replies if isinstance(reply, WorkerError)]
        if wrong and doing not in STAGES:
            raise wrong[0]
        return replies

    def _gather(self, doing: str) -> list[Any]:
        """The replies of all busy workers; a WorkerError for a worker that is lost and may be replaced."""
        replies: list[Any] = [None] * len(self.workers)
        for worker in self.workers:
            if isinstance(worker, OwnHandle) and worker.busy and (reply := worker.reply()) != DONE:
                replies[worker.index] = self._read(worker, reply, doing)
        again = doing == "made" and self._arrays is not None  # a process in another's place may take its time to start
        until = time.monotonic() + (LONG if doing == "restore" else DEADLINE if again else self.deadline)
        others = [worker for worker in self.workers if isinstance(worker, WorkerHandle)]
        busy = sum(worker.busy for worker in others)
        while busy:
            left = until - time.monotonic()
            hung = left <= 0
            for worker, by_pipe in [(worker, False) for worker in others] if hung else self._watched.ready(left):
                if not worker.busy:
                    continue
                if not (hung or by_pipe or worker.gone()):
                    self._watched.forget(worker)
                    continue
                busy -= 1
                reply = None if hung else worker.receive(by_pipe)
                if reply is None:
                    replies[worker.index] = self._lost(worker, hung, doing)
                elif reply != DONE:
                    replies[worker.index] = self._read(worker, reply, doing)
        return replies

    @property
    def _watched(self) -> Watch:
        """Who waits for the workers; another one after a worker was replaced."""
        if self._watch is None:
            self._watch = Watch(self.workers, self._awake)
        return self._watch

    def _read(self, worker: WorkerHandle | OwnHandle, reply: bytes, doing: str) -> Any:
        """What a reply says. Raises WorkerError if it is an error; that of a call is returned."""
        try:
            said = unpack(reply)
        except Exception as error:
            said = Failure.of(error, -1)
        if isinstance(said, Failure):
            who, when = self._place(worker, said.at, doing)
            text = (
                f"{who} raised {said.kind} {when}{said.message and f': {said.message}'}" if said.kind else said.message
            )
            if doing in STAGES:
                self._fail(text, said.trace)
            return error_text(text, said.trace)
        return said

    def _lost(self, worker: WorkerHandle, hung: bool, doing: str) -> WorkerError:
        """The error of a process that ended or hangs; it is raised, unless the process may be replaced."""
        who, when = self._place(worker, -1 if self._arrays is None else int(self._arrays.at[worker.index]), doing)
        if not hung:
            worker.wait(CLOSE_SECONDS)
        code = worker.process.exitcode
        worker.end()
        if hung:
            text = f"{who} did not answer for {self.deadline:g} seconds {when}, and its process was killed"
        elif code is None:
            text = f"{who} closed the connection to its process {when}"
        else:
            text = f"{who} {'was killed by' if code < 0 else 'ended its process with'} {exit_text(code)} {when}"
        if not self.restart or doing not in ("step", "reset"):
            self._fail(text)
        if worker.index in self._renewed:
            self._fail(f"{text}, although its process was a new one that had not made a single step")
        return WorkerError(text)

    def _place(self, worker: WorkerHandle | OwnHandle, at: int, doing: str) -> tuple[str, str]:
        """Which environment of a worker something happened in, and when."""
        block, pid, arrays, i = worker.block, worker.pid, self._arrays, worker.block.start + max(at, 0)
        who = f"environment {i} (process {pid})"
        if at < 0 and len(block) > 1:
            who = f"one of the environments {block[0]} to {block[-1]} (process {pid})"
        if doing != "step" or arrays is None:
            return who, f"while it was {doing}" if doing in STAGES else f"in {doing}"
        if at < 0:
            return who, "between two steps"
        if arrays.terminated[i] or arrays.truncated[i]:
            return who, f"in the reset after its episode {arrays.episode[i]}"
        return who, f"at step {arrays.time[i]} of its episode {arrays.episode[i]}"

    def _fail(self, text: str, trace: str = "") -> NoReturn:
        """Close the pool, and say why."""
        self._error = text
        self.close()
        raise error_text(text, trace)

    def _renew(self, i: int, why: WorkerError) -> None:
        """A new process in place of worker i, its environments made and not reset."""
        warnings.warn(f"{why}; a new process takes its place", RuntimeWarning, stacklevel=3)
        self.restarts += 1
        self._asking = True
        self._renewed[i] = 2  # the first one may be a reset
        self._watch = None
        self.workers[i] = worker = self._start(i)
        self._gather("made")
        messages = [("attach", self.num_envs, len(self.workers))]
        messages += [("call", "set_attr", (name, x[worker.rows]), {}) for name, x in self._attributes.items()]
        for message in messages:
            worker.send(pack(message))
            self._gather("prepared")

    def _go_on(self, i: int, why: WorkerError) -> Any:
        """Replace worker i, which was lost in a step: what it leaves are truncated episodes. Returns the action masks.

        Those whose step was a reset begin their episodes; the others show what they showed last, and the next step resets.
        """
        arrays, block = self._shared, self.workers[i].rows
        begins = (arrays.terminated | arrays.truncated)[block]
        paused, obs = arrays.paused[block].copy(), some_rows(arrays.obs, block)
        shown, time, episode = copy(obs), arrays.time[block] + 1, arrays.episode[block].copy()
        self._renew(i, why)
        seeds = [s if s is None else derived(s, self.restarts) for s in self._seeds[block]]
        self.workers[i].send(pack(("reset", seeds, None, self.report_masks)))
        masks = self._gather("reset")[i]
        put_rows(obs, shown, ~begins)
        ends = ~begins & ~paused
        arrays.paused[block], arrays.truncated[block] = paused, ends
        arrays.time[block], arrays.episode[block] = np.where(begins, 0, time), episode + begins
        self.workers[i].send(pack(("go_on", ends)))
        self._gather("prepared")
        self._asking = False
        return masks and [mask if begun else None for mask, begun in zip(masks, begins, strict=True)]


def error_text(text: str, trace: str) -> WorkerError:
    """The text of an error in another process, with its traceback."""
    error = WorkerError(text)
    if trace:
        error.add_note(f"in the process of the environment:\n{trace}")
    return error


def derived(seed: int, number: int) -> int:
    """Another seed from a seed."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
