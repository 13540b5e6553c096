"""Files as an attacker, a broken disk or an absent-minded editor leaves them, and what becomes of them.

    python benchmarks/survival/files.py            10,000 random damages, all forged files, all malformed JSON
    python benchmarks/survival/files.py 500        fewer damages

Each campaign returns rows (case, outcome) and prints a table. Good outcomes begin with "refused", or with "shown" where a
command made sense of what it could; everything else is a fault: "ACCEPTED", "CRASHED", "SLOW", "MEMORY".
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import policygrad as pg
from policygrad.cli import main
from policygrad.errors import PolicygradError
from policygrad.stored import blocks
from policygrad.stored.blocks import FOLDER
from policygrad.stored.directory import RunDirectory
from policygrad.stored.storage import load_state
from policygrad.stored.trajectories import read_trajectories
from policygrad.training.train import train
from survival import forgeries, malformations

Row = tuple[str, str]
SLACK = 16 * 2**20  # bytes beyond twice the file: agents, environments, what Python keeps
SECONDS = 1.0  # of a processor that a command may take for an odd file, and ten times as many to wait


def attempt(path: Path) -> str:
    """What becomes of a model file, a file of trajectories, or a block of a replay buffer with the checkpoint that needs it: it
    is loaded, and goes on learning.
    """
    try:
        if "trajectories" in path.name:
            read_trajectories(path)
        else:
            agent = pg.load(RunDirectory(path.parents[1]).checkpoints()[-1] if path.parent.name == FOLDER else path)
            if "policy" not in path.name:
                agent.learn(1)
    except (PolicygradError, ValueError) as error:
        if not isinstance(error, PolicygradError) and path.name not in str(error):
            return f"CRASHED: {type(error).__name__}: {error}"[:200]
        return f"refused: {error}"
    except BaseException as error:
        return f"CRASHED: {type(error).__name__}: {error}"[:200]
    return "ACCEPTED"


def samples(folder: Path) -> list[Path]:
    """A policy, a checkpoint and trajectories, small ones."""
    agent = pg.ppo("CartPole-v1", num_envs=2, hidden=(4,), num_steps=16, epochs=1, minibatches=1, normalize_obs=True)
    agent.learn(64)
    stored = agent.collect(3).save(folder / "trajectories.safetensors")
    return [agent.save_policy(folder / "policy"), agent.save(folder / "checkpoint"), stored]


def block(folder: Path, algo: str) -> Path:
    """A block of the replay buffer of a small run of dqn or sac."""
    before, blocks.BLOCK = blocks.BLOCK, 400
    env = {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}[algo]
    agent = pg.Agent(algo, env, hidden=(4,), buffer_size=64, warmup=8, batch_size=4, num_steps=8)
    run = train(agent, folder / algo, steps=200, episodes=1)
    blocks.BLOCK = before
    needed = load_state(run.checkpoints()[-1])[0]["run"]["replay"]
    return run.path / FOLDER / f"rows-{needed[-1]['first']}.safetensors"


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data after one accident of a disk, a network or a program: never the data itself."""
    made, kind = bytearray(data), int(rng.integers(9))
    a, b = sorted(int(x) for x in rng.integers(0, len(data), 2))
    b = min(b + 1, a + 4096)
    if kind == 0:
        made[a] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        made[a] = int(rng.integers(256))
    elif kind == 2:
        made[a:b] = rng.bytes(b - a)
    elif kind == 3:
        made[a:b] = bytes(b - a)
    elif kind == 4:
        del made[a:]
    elif kind == 5:
        made += rng.bytes(b - a)
    elif kind == 6:
        del made[a:b]
    elif kind == 7:
        made[a:a] = made[a:b]
    else:
        place = int(rng.integers(len(data)))
        made[a:b] = data[place : place + b - a].ljust(b - a, b"\0")
    return bytes(made) if bytes(made) != data else damaged(data, rng)


def corruptions(n: int = 10_000, seed: int = 0, show: bool = True, only: Sequence[str] = ()) -> list[Row]:
    """Random damage of policies, checkpoints, trajectories and blocks of a replay buffer, and of the checkpoints that need
    these; only: those whose paths contain one of these words.
    """
    rng, rows = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = [block(folder, algo) for algo in ("dqn", "sac")]
        paths = [*samples(folder), *held, *(RunDirectory(path.parents[1]).checkpoints()[-1] for path in held)]
        words = {path: path.relative_to(folder).as_posix() for path in paths}
        whole = {p: p.read_bytes() for p in paths if not only or any(word in words[p] for word in only)}
        for i in range(n):
            path = list(whole)[i % len(whole)]
            path.write_bytes(damaged(whole[path], rng))
            rows.append((f"{words[path]} {i}", attempt(path)))
            path.write_bytes(whole[path])
    return told("random damage", rows, show)


@contextlib.contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """By how many bytes this process has grown at most since; 0 where Linux is not there to say."""

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
    except OSError:
        yield lambda: 0
        return
    yield lambda: status("VmHWM") - before


def forged(show: bool = True, only: Sequence[str] = ()) -> list[Row]:
    """Files made by hand, with a right checksum where they can have one; only: cases whose names contain one of these."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = samples(folder)
        for path in whole:
            attempt(path)  # what is imported and cached is no file's doing
        for case, make in forgeries.cases(*whole).items():
            if only and not any(word in case for word in only):
                continue
            path = folder / f"forged-{case.partition(':')[0]}.safetensors"
            make(path)
            size = os.lstat(path).st_size
            with memory() as grown:
                outcome = attempt(path)
                beyond = grown() - 2 * size
            rows.append((case, outcome if beyond <= SLACK else f"MEMORY: {beyond:,} bytes beyond twice the file"))
            path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()
    return told("forged files", rows, show)


def command(words: list[str]) -> str:
    """What a command makes of it: its exit code, its time, its first line."""
    out, err, started, begun = io.StringIO(), io.StringIO(), time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = main(words)
        except BaseException as error:
            return f"CRASHED: {type(error).__name__}: {error}"[:200]
    seconds, waited = time.process_time() - started, time.perf_counter() - begun
    text = out.getvalue() + err.getvalue()
    if seconds > SECONDS or waited > 10 * SECONDS:
        return f"SLOW: {seconds:.1f} s, {waited:.1f} s waited"
    if "\x1b" in text or "Traceback" in text:
        return f"CRASHED: it printed {text[:100]!r}"
    return (
        f"{'shown' if code == 0 else 'refused'}: {text.partition(chr(10))[0]}"
        if code in (0, 2)
        else f"CRASHED: exit {code}"
    )


def malformed(show: bool = True, step: int = 1, drawn: bool = True) -> list[Row]:
    """JSON that is odd, or none, in a run or as an MDP; through the commands that read it.

    step: take one case of so many. drawn: draw pictures, which takes most of the time.
    """
    rows, commands = [], (["plot"], ["report"]) if drawn else (["report", "--json"],)
    with tempfile.TemporaryDirectory() as name:
        for case, (file, content) in list(malformations.runs().items())[::step]:
            run = malformations.a_run(Path(name) / "run")
            (run.path / file).write_bytes(content)
            rows += [(f"{words[0]}: {case}", command([words[0], str(run.path), *words[1:]])) for words in commands]
        for case, content in list(malformations.mdps().items())[::step]:
            path = Path(name) / "mdp.json"
            path.write_bytes(content)
            words = ["lab", "audit", "--mdp", str(path), "--repeats", "20", "--batch", "2"]
            rows.append((f"lab audit: {case}", command(words)))
        for case, make in malformations.pipes().items():
            run = malformations.a_run(Path(name) / "run")
            make(run)
            rows += [(f"{words[0]}: {case}", command([words[0], str(run.path), *words[1:]])) for words in commands[:1]]
    return told("malformed JSON", rows, show)


def told(title: str, rows: list[Row], show: bool) -> list[Row]:
    """The rows, after a table of what came out."""
    if show:
        counts = Counter(outcome.partition(":")[0] for _, outcome in rows)
        print(f"{title}: {len(rows):,} cases, " + ", ".join(f"{n:,} {what}" for what, n in counts.most_common()))
        for case, outcome in rows:
            if not outcome.startswith(("refused", "shown")):
                print(f"  {case:<40} {outcome}")
    return rows


if __name__ == "__main__":
    corruptions(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    forged()
    malformed()
