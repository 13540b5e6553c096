"""Training several seeds in parallel: one process with one thread per seed, forked from one that has imported everything.

A seed's process does what a run of that seed alone does, and leaves the same bits. It tells its steps, and is told to stop,
over a pipe; when the other end is gone it saves what it has and ends, so that nobody trains on for a parent that was killed.
A signal to a seed's process goes to the parent over the pipe, too, and comes back as the word to stop: it is the same word,
and comes once, whether the signal was sent to that process alone or to the whole group.
Where forking is not safe (macOS, Windows) every process imports for itself. Nothing heavy is imported here.
"""

from __future__ import annotations

import _thread
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.envs import processes
from policygrad.envs.processes import exit_text
from policygrad.errors import EnvError, PolicygradError
from policygrad.files import write_atomically
from policygrad.stored.directory import RunDirectory
from policygrad.training.interrupts import SIGNALS, handled, heard, interrupts, terminations
from policygrad.training.jobs import Job, Queue, SilentBoard, State
from policygrad.training.pausing import is_paused, pause_at
from policygrad.training.progress import plain

if TYPE_CHECKING:
    from policygrad.training.agent import Agent

# two seconds, once instead of once a seed
PRELOAD = ["policygrad.training.train", "policygrad.reports.plots", "scipy.stats"]
POLL_SECONDS = 0.1  # seconds between looks at Ctrl-C and at the display
ORPHAN_SECONDS = 60.0  # seconds to end an iteration and save it, for those whose parent is gone
EXIT_SECONDS = 5.0  # seconds to leave, for those that have said their last word


def run_seeds(jobs: Sequence[Job], at_once: int, board: SilentBoard) -> list[State]:
    """Run the jobs, `at_once` in parallel, and return how each ended. A job that fails does not stop the others.

    After Ctrl-C none begins, and those that run end their iteration and save it; a second one ends them at once. A signal to
    one seed's process stops that seed alone, and its message says so.
    """
    return run_queue(Queue(jobs), at_once, board)


def run_queue(queue: Queue, at_once: int, board: SilentBoard) -> list[State]:
    """Run the jobs of a queue, as `run_seeds` does, until none waits."""
    context, running = process_context(), list[Worker]()
    with interrupts() as interrupt:
        try:
            while running or not (queue.over or interrupt):
                while len(running) < at_once and not interrupt and (taken := queue.take()) is not None:
                    running.append(Worker(context, *taken, board.interval))
                board.show(queue.states)
                rest(running)
                over = [worker for worker in running if worker.ended(board)]
                running = [worker for worker in running if worker not in over]
                for worker in over:
                    queue.ended(worker.state)
                if len(interrupt) > 1:
                    break
                for worker in running:
                    if interrupt or worker.state.signal or queue.is_lost(worker.state):
                        worker.stop(interrupt[0] if interrupt else worker.state.signal or signal.SIGINT)
        finally:
            for worker in running:
                worker.kill()
    for state in queue.states:
        state.phase = state.phase if state.over else "stopped"
        if state.phase == "stopped" and not interrupt:
            state.message = f"its process was sent {signal.Signals(state.signal or signal.SIGINT).name}"
        state.signal = interrupt[0] if interrupt and state.phase == "stopped" else 0
    board.show(queue.states)
    return queue.states


def process_context() -> Any:
    """What processes are made with: forked from a server that has imported everything, where forking is safe."""
    fork = sys.platform.startswith("linux")
    context = multiprocessing.get_context("forkserver" if fork else "spawn")
    if fork:
        context.set_forkserver_preload(PRELOAD)
        with handled(dict.fromkeys(SIGNALS, signal.SIG_IGN)):  # what is sent to the whole group is not for the server
            forkserver.ensure_running()
        import policygrad.reports.plots  # noqa: F401  for the picture, while the server imports torch on another core
    return context


def rest(running: Sequence[Worker]) -> None:
    """Wait until a process says something or ends, POLL_SECONDS at most."""
    if running:
        connection.wait([x for worker in running for x in (worker.pipe, worker.process.sentinel)], POLL_SECONDS)
    else:
        time.sleep(POLL_SECONDS)


class Worker:
    """The process of a seed, in the process that started it."""

    def __init__(self, context: Any, job: Job, state: State, interval: float) -> None:
        self.state, self.stopping, self.deadline = state, False, float("inf")
        state.phase = "starting"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(job, theirs, interval, heard()), name=f"seed {job.seed}")
        self.process.start()
        theirs.close()

    def ended(self, board: SilentBoard) -> bool:
        """Read its messages, and return whether it has ended."""
        gone = not self.process.is_alive()  # asked first: what it said last is in the pipe by then
        while self._readable():
            try:
                self._hear(json.loads(self.pipe.recv_bytes()), board)
            except (EOFError, OSError):
                break
        if self.state.over:
            self.deadline = min(self.deadline, time.monotonic() + EXIT_SECONDS)
        if not gone and time.monotonic() < self.deadline:
            return False
        if not self.state.over:
            self.state.phase, self.state.died = "failed", True
            self.state.message = f"its process ended with {exit_text(self.process.exitcode)}"
        self.kill()
        return True

    def _readable(self) -> bool:
        try:
            return self.pipe.poll()
        except OSError:
            return False

    def _hear(self, news: dict[str, Any], board: SilentBoard) -> None:
        if "say" in news:
            board.say(self.state.name, news["say"], news["warning"])
            return
        for name, value in news.items():
            setattr(self.state, name, value)

    def stop(self, number: int) -> None:
        """Ask it to finish its iteration and save, because of this signal; only the first call does so."""
        if not self.stopping:
            self.stopping = True
            with suppress(OSError):  # it is gone
                self.pipe.send_bytes(b"%d" % number)

    def kill(self) -> None:
        """End it now, if it has not ended."""
        for end in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                end()
                self.process.join(1.0)
        self.process.join()
        self.process.close()
        self.pipe.close()


class Channel:
    """The worker's end of the pipe: its words, its display and its standard output. Without a reader all is lost in silence."""

    def __init__(self, pipe: connection.Connection, interval: float) -> None:
        self.pipe, self.interval = pipe, interval
        self.lock, self.rest, self.over = threading.Lock(), "", False

    def tell(self, **news: Any) -> None:
        """Set attributes of the State."""
        with self.lock, suppress(OSError):  # a reader that is gone is `obey`'s business
            self.pipe.send_bytes(json.dumps(news, default=str).encode())

    def start(self, total: int) -> None:
        self.tell(phase="training", total=total)

    def finish(self, steps: int) -> None:
        self.tell(total=max(steps, 1))

    def update(self, steps: int, speed: float, mean_return: float | None, note: str = "") -> None:
        self.tell(steps=steps, speed=speed, mean=mean_return, note=note)

    def stop(self) -> None: ...

    def write(self, text: str) -> int:
        """Print: pass on whole lines."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.tell(say=line, warning=False)
        return len(text)

    def flush(self) -> None: ...

    def listen(self, numbers: Sequence[int]) -> None:
        """Wait for signals, which no thread takes, and tell the parent of them."""
        while True:
            self.tell(signal=int(signal.sigwait(numbers)))

    def obey(self) -> None:
        """Wait for the word to stop, or for the parent's end, and act as if the signal had come."""
        told = False
        while True:
            word, gone = b"", False
            try:
                word = self.pipe.recv_bytes()
            except (EOFError, OSError):
                gone = True
            if not told and not self.over:
                told = True
                _thread.interrupt_main(signal.Signals(int(word or signal.SIGINT)))
            if gone:
                time.sleep(ORPHAN_SECONDS)
                os._exit(1)


def work(job: Job, pipe: connection.Connection, interval: float, numbers: Sequence[int]) -> None:
    """The main function of a seed's process: train, evaluate and report. numbers: the signals that ask for the end."""
    channel = Channel(pipe, interval)
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        threading.Thread(target=channel.listen, args=(numbers,), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number in numbers else signal.SIG_IGN)
    sys.stdout = sys.stderr = channel  # pyright: ignore[reportAttributeAccessIssue]
    warnings.showwarning = lambda message, *_, **__: channel.tell(say=plain(str(message)), warning=True)
    threading.Thread(target=channel.obey, daemon=True).start()
    run: list[RunDirectory] = []
    try:
        with terminations():
            last = run_job(job, channel, run)
    except KeyboardInterrupt:
        last = {"phase": "stopped"}
    except BaseException as error:  # SystemExit, too: an environment's code may do anything
        last = {"phase": "failed", "message": failure(error, run[0] if run else None)}
    channel.over = True
    channel.tell(**last)


def run_job(job: Job, channel: Channel, run: list[RunDirectory]) -> dict[str, Any]:
    """Train and evaluate one seed, as `policygrad train` does; its run directory is put into `run` as soon as it exists."""
    from policygrad.training import train as training
    from policygrad.training.agent import Agent
    from policygrad.training.resume import followers

    processes.most_cores = 1
    agent = Agent(job.algo, job.env, seed=job.seed, **job.keywords)
    kept = None
    if job.resume:
        run.append(RunDirectory(Path(job.run_dir or "")))
        agent, kept = resumed(job, run[0], agent)
    else:
        given = {"command": job.command, "episodes": job.episodes, "save_trajectories": job.save_trajectories}
        given["trackers"] = job.trackers
        run.append(training.start(agent, job.run_dir, root=job.root, **given))
    channel.tell(path=str(run[0].path))
    if kept is None and job.resume:
        evaluations = run[0].evaluation() or {}
        return {"phase": "done", "evaluations": {name: evaluations[name] for name in training.GREEDY}}
    callbacks = followers(run[0])
    if job.until is not None:
        pause_at(agent, job.until)
    training.learn(agent, run[0], channel, callbacks, save_trajectories=job.save_trajectories, resumed=kept)
    if job.until is not None and is_paused(agent, run[0]):
        return {"phase": "done"}
    channel.tell(phase="evaluating")
    found = training.assess(agent, run[0], job.episodes, callback=callbacks)
    return {"phase": "done", "evaluations": {name: e.to_json() for name, e in found.items()}}


def resumed(job: Job, run: RunDirectory, agent: Agent) -> tuple[Agent, dict[str, Any] | None]:
    """The agent of a run's last checkpoint, and the state of the run; None if it is finished."""
    from policygrad.training.resume import check_same_configuration, finished, prepare

    check_same_configuration(run, agent)
    total = agent.config["steps"]
    steps = total if total > run.config()["config"]["steps"] else None
    if finished(run, steps):
        return agent, None
    agent.close()
    own = ":" in job.algo
    words = {name: job.keywords.get(name) for name in ("env_kwargs", "wrappers")}
    return prepare(run, steps, env=job.env, recipe=job.algo if own else None, **words)


def failure(error: BaseException, run: RunDirectory | None) -> str:
    """The text of an error; the traceback of an unexpected one is written into the run directory."""
    if run is None:
        expected = isinstance(error, PolicygradError | ValueError | TypeError | ImportError | OSError | MemoryError)
        return (expected and str(error)) or f"{error_name(error)} ({error_place(error)})"
    foreign = isinstance(error, EnvError) and error.__cause__ is not None  # what the environment's own code has raised
    own_file = isinstance(error, OSError) and str(error.filename or "").startswith(str(run.path))  # on a full disk
    if (isinstance(error, PolicygradError | MemoryError) and not foreign) or own_file:
        return stopped(error, run)
    file = run.path / "traceback.txt"
    try:
        write_atomically(file, "".join(traceback.format_exception(error)).encode("utf8", "backslashreplace"))
    except OSError:
        return stopped(error, run)
    return f"{stopped(error, run)} (see {file})"


def stopped(error: BaseException, run: RunDirectory) -> str:
    """The reason that ended a run, and the part in which it ended; other errors than the package's with their class."""
    over = run.state()["status"] == "trained"
    text = message_line(error) if isinstance(error, PolicygradError) else error_name(error)
    return f"{'evaluation' if over else 'training'} stopped: {text}"


def error_name(error: BaseException) -> str:
    """The class of an error, and the first line of its message if it has one."""
    text = message_line(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message_line(error: BaseException) -> str:
    """The first line of an error's message; the others belong to the traceback."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def error_place(error: BaseException) -> str:
    """The line of code that raised an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(frame.filename)}, line {frame.lineno}"
