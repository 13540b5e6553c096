"""Misbehaving environments in worker processes: each must be named within seconds, and leave no process behind.

    python benchmarks/survival/workers.py [CASE…]

Prints a line per case: what it does, whether the outcome was the right one, after how many seconds, and what was said.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policygrad.envs.workers import WorkerVectorEnv
from policygrad.errors import PolicygradError

DEADLINE, MAKE_DEADLINE = 1.0, 4.0  # seconds for a step, and for the making
BAD, STEP = 1, 3  # which environment misbehaves, and in which step
GOES_ON = "goes on"
SHOWN = np.zeros(3, np.float32)


@dataclass(frozen=True)
class Case:
    """where: the method that misbehaves; what: does so, and its result is the method's; says: a pattern of the error."""

    where: str
    what: Callable[[], Any]
    says: str = GOES_ON


def throw(error: BaseException) -> Any:
    """Raise it."""
    raise error


def kill(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def local() -> Any:
    """An exception of a class that nobody else can find."""

    class Local(Exception):
        pass

    raise Local("of a local class")


def locked() -> Any:
    """An exception that cannot be pickled."""
    error = ValueError("a lock inside")
    error.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]
    raise error


class Mute(Exception):
    """An exception without words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def spin() -> None:
    """Hold the interpreter's lock for ever."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def recurse() -> Any:
    """Use up the stack."""
    return recurse()


def close_descriptors() -> None:
    """Close everything, the pipe to the parent among it."""
    os.closerange(3, 200)


def step(obs: Any = SHOWN, rew: Any = 1.0, info: Any = None) -> Any:
    """What a step returns."""
    return obs, rew, False, False, {} if info is None else info


def raised(what: str) -> str:
    """A pattern of the error of an environment that raised this in its step."""
    return f"environment {BAD} .* raised {what}.* at step {STEP - 1} of its episode 1"


CASES = {
    "step: an exception": Case("step", partial(throw, ValueError("no")), raised("ValueError: no,")),
    "step: of a local class": Case("step", local, raised("Local")),
    "step: with a lock inside": Case("step", locked, raised("ValueError")),
    "step: without words": Case("step", partial(throw, Mute()), raised("Mute")),
    "step: of 10 MB": Case("step", partial(throw, ValueError("x" * 10_000_000)), raised("ValueError")),
    "step: KeyboardInterrupt": Case("step", partial(throw, KeyboardInterrupt()), raised("KeyboardInterrupt")),
    "step: SystemExit": Case("step", partial(sys.exit, 3), raised("SystemExit")),
    "step: GeneratorExit": Case("step", partial(throw, GeneratorExit()), raised("GeneratorExit")),
    "step: MemoryError": Case("step", partial(throw, MemoryError()), raised("MemoryError")),
    "step: endless recursion": Case("step", recurse, raised("RecursionError")),
    "step: os._exit": Case(
        "step", partial(os._exit, 9), "ended its process with exit code 9 at step 2 of its episode 1"
    ),
    "step: SIGKILL": Case("step", partial(kill, signal.SIGKILL), "was killed by SIGKILL .* at step 2 of its episode 1"),
    # where pygame has been imported, it makes an abort of a segmentation fault
    "step: SIGSEGV": Case("step", partial(kill, signal.SIGSEGV), "was killed by SIG(SEGV|ABRT) at step 2"),
    "step: SIGINT": Case("step", partial(kill, signal.SIGINT)),
    "step: SIGTERM": Case("step", partial(kill, signal.SIGTERM)),
    "step: SIGSTOP": Case("step", partial(kill, signal.SIGSTOP), "did not answer for 1 seconds at step 2"),
    "step: hangs": Case("step", partial(time.sleep, 1000), "did not answer for 1 seconds at step 2"),
    "step: hangs in C": Case("step", spin, "did not answer for 1 seconds at step 2"),
    "step: closes all descriptors": Case("step", close_descriptors, "ended its process with exit code 0"),
    "step: four values": Case("step", lambda: step()[:4], "returned 4 values.* at step 2"),
    "step: no values": Case("step", tuple, "returned 0 values.* at step 2"),
    "step: info that cannot be pickled": Case("step", lambda: step(info={"lock": threading.Lock()})),
    "step: observation of text": Case("step", lambda: step(obs=np.array(["a", "b", "c"])), "at step 2"),
    "step: reward None": Case("step", lambda: step(rew=[None]), "at step 2"),
    "reset: an exception": Case("reset", partial(throw, ValueError("no")), "raised ValueError: no, at the beginning"),
    "reset: info is None": Case("reset", lambda: (SHOWN, None)),
    "reset: observation only": Case("reset", lambda: SHOWN, r"reset\(\) returned"),
    "reset: hangs": Case("reset", partial(time.sleep, 1000), "did not answer for 1 seconds while it was reset"),
    "reset: dies": Case("reset", partial(os._exit, 1), "exit code 1 while it was reset"),
    "make: an exception": Case("make", partial(throw, ValueError("no")), "raised ValueError while it was made: no"),
    "make: SystemExit": Case("make", sys.exit, "raised SystemExit while it was made"),
    "make: dies": Case("make", partial(os._exit, 4), "exit code 4 while it was made"),
    "make: hangs": Case("make", partial(time.sleep, 1000), "did not answer for .* while it was made"),
    "make: another space": Case("make", lambda: spaces.Box(-1.0, 1.0, (4,)), "observation"),
    "make: cannot be sent": Case("make", threading.Lock().acquire, "cannot be sent"),
    "call: cannot be sent": Case("call", threading.Lock, "raised TypeError"),
    "call: dies": Case("call", partial(os._exit, 5), "exit code 5 in call"),
    "call: hangs": Case("call", partial(time.sleep, 1000), "did not answer for 1 seconds in call"),
    "close: an exception": Case("close", partial(throw, ValueError("no"))),
    "close: dies": Case("close", partial(os._exit, 1)),
    "close: hangs": Case("close", partial(time.sleep, 1000)),
}


class Misbehaving(gym.Env):
    """Does what a case says. Without one it behaves."""

    def __init__(self, case: Case | None = None) -> None:
        self.case, self.time = case, 0
        self.observation_space: spaces.Space = self.do("make") or spaces.Box(-1.0, 1.0, (3,))
        self.action_space = spaces.Discrete(2)

    def do(self, where: str) -> Any:
        """Misbehave, if it is the place."""
        return self.case.what() if self.case is not None and self.case.where == where else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        bad = self.do("reset")
        return (SHOWN, {}) if bad is None else bad

    def step(self, action: Any) -> Any:
        self.time += 1
        bad = self.do("step") if self.time == STEP else None
        return step() if bad is None else bad

    def ask(self) -> Any:
        """For `call`."""
        return self.do("call")

    def close(self) -> None:
        self.do("close")


def play(case: Case) -> tuple[str, float]:
    """Make, reset, step, call and close; what was said, or GOES_ON, and the seconds since they were made."""
    makers = [partial(Misbehaving, case if i == BAD else None) for i in range(3)]
    envs, said, begun = None, GOES_ON, time.monotonic()
    try:
        envs = WorkerVectorEnv(makers, 2, deadline=MAKE_DEADLINE)
        envs.deadline, begun = DEADLINE, time.monotonic()
        envs.reset(seed=0)
        for _ in range(2 * STEP):
            envs.step(np.zeros(3, int))
        envs.call("ask")
    except (PolicygradError, ValueError) as error:
        said = str(error)
    if envs is not None:
        envs.close()
        envs.close()
    return said, time.monotonic() - begun


def campaign(names: Sequence[str] = ()) -> list[tuple[str, bool, float, str]]:
    """Rows of a case, whether its outcome was the right one, the seconds it took, and what was said."""
    found = []
    for name in names or CASES:
        said, seconds = play(CASES[name])
        found.append((name, re.search(CASES[name].says, said) is not None, seconds, said))
    return found


if __name__ == "__main__":
    for name, right, seconds, said in campaign(sys.argv[1:]):
        print(f"{name:36}{'right' if right else 'WRONG':7}{seconds:5.1f} s  {said[:150]}", flush=True)
