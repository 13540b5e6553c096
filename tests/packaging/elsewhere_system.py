"""Train, save, evaluate and load on a system that has less than Linux: run as a script, with the name of the system.

What Windows or macOS lack is taken away from this process: modules can no longer be imported by policygrad, and names of
`os`, `signal` and `select` are gone. Other packages keep their modules, because theirs are made for each system.
"""

from __future__ import annotations

import builtins
import importlib
import os
import select
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {
    "win32": ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "readline", "curses", "syslog", "posix"),
    "darwin": ("msvcrt", "winreg", "_winapi"),
}
NAMES: dict[str, dict[Any, tuple[str, ...]]] = {
    "win32": {
        os: (
            "fork", "forkpty", "register_at_fork", "sched_getaffinity", "memfd_create", "posix_fallocate", "sysconf", "statvfs",
            "killpg", "getuid", "geteuid", "getpgid", "setsid", "mkfifo", "getloadavg", "nice", "wait3", "wait4", "pread",
            "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_ASYNC", "O_CLOEXEC", "chown", "fchown", "fchmod",
        ),
        signal: (
            "SIGHUP", "SIGALRM", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGQUIT", "setitimer", "ITIMER_REAL",
            "alarm", "pause", "pthread_sigmask", "pthread_kill", "sigwait", "SIG_BLOCK", "siginterrupt",
        ),
        select: ("poll", "epoll", "kqueue"),
    },
    "darwin": {
        os: ("sched_getaffinity", "memfd_create", "posix_fallocate", "O_ASYNC", "sched_setaffinity"),
        select: ("epoll",),
    },
}  # fmt: skip


def packages() -> None:
    """Import the packages of others, which are made for the system that this is."""
    for name in (
        "torch.utils.tensorboard",
        "gymnasium",
        "matplotlib.pyplot",
        "numba",
        "safetensors.torch",
        "scipy.stats",
    ):
        importlib.import_module(name)


def become(system: str) -> None:
    """Take away what this system lacks, once the packages of others are imported."""
    packages()
    for module, names in NAMES[system].items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    usual = builtins.__import__

    def there(name: str, globals: Any = None, *rest: Any, **others: Any) -> Any:
        ours = (globals or {}).get("__name__", "").startswith("policygrad")
        if ours and name.split(".")[0] in MODULES[system]:
            raise ModuleNotFoundError(f"No module named {name!r} on {system}", name=name)
        return told if ours and name == "sys" else usual(name, globals, *rest, **others)

    told = Sys("sys")
    told.__dict__["platform"] = system
    builtins.__import__ = there


class Sys(ModuleType):
    """The module `sys` as policygrad sees it, which names another system."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(sys, name, value)


def everyday(place: Path) -> None:
    """A run of the command line, and its policy and an agent in Python."""
    import policygrad as pg
    from policygrad.cli import main

    words = [
        "train",
        "ppo",
        "CartPole-v1",
        "--steps",
        "256",
        "--num-steps",
        "64",
        "--num-envs",
        "2",
        "--eval-episodes",
        "2",
    ]
    assert main([*words, "--run-dir", str(place / "run")]) == 0
    assert main(["eval", str(place / "run"), "--episodes", "2"]) == 0
    assert main(["resume", str(place / "run")]) == 0
    assert main(["list", "versions"]) == 0
    agent = pg.a2c("CartPole-v1", num_envs=2, seed=0, preset={}).learn(256)
    path = agent.save(place / "agent")
    assert (pg.load(path).policy.flat == agent.policy.flat).all()
    pg.load_policy(place / "run").predict(agent.envs.single_observation_space.sample())


def workers() -> None:
    """Environments in processes, over a file without a name, and started anew instead of forked."""
    import policygrad as pg

    with pg.a2c("CartPole-v1", num_envs=2, backend="async", seed=0, preset={}) as agent:
        agent.learn(64)


if __name__ == "__main__":
    become(sys.argv[1])
    everyday(Path(sys.argv[2]))
    if sys.argv[1] == "darwin":
        workers()
