"""Texts of the commands about runs and agents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.algorithms.config import preset_name, resolve, show
from policygrad.cli.tables import text_table
from policygrad.cli.values import UsageError, flag_of
from policygrad.errors import PolicygradError
from policygrad.html import decimals, interval_text
from policygrad.stored.directory import RunDirectory
from policygrad.training.seeds import error_name, error_place, failure

if TYPE_CHECKING:
    from policygrad.training.agent import Agent
    from policygrad.training.evaluate import Evaluation
    from policygrad.training.jobs import State


@contextmanager
def as_usage_error(*errors: type[BaseException]) -> Iterator[None]:
    """In this context, errors of these kinds become UsageErrors."""
    try:
        yield
    except UsageError:
        raise
    except errors as error:
        raise UsageError(as_flags(failure(error, None))) from error


@contextmanager
def ended(what: str) -> Iterator[None]:
    """In this context, an error in an environment's code becomes a UsageError that says what it ended and where it arose."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, PolicygradError | MemoryError) or getattr(error, "filename", None):
            raise
        raise UsageError(f"{what} stopped: {error_name(error)} ({error_place(error)})") from error


def as_flags(message: str) -> str:
    """A message about keywords as one about flags: `lr = 5 must be …` becomes `--lr = 5 must be …`."""
    name, equals, _ = message.partition(" = ")
    return message.replace(name, flag_of(name), 1) if equals and re.fullmatch(r"[a-z][a-z0-9_]*", name) else message


NOTICEABLE = 0.05  # of the steps that were asked for; more than this that no iteration takes is said


def length(config: Mapping[str, Any], num_steps: int | None, episodes: int | None = None) -> str:
    """The text about the length of training, and about steps that whole iterations leave out; the first one always runs.

    num_steps, episodes: of an iteration, in each environment and altogether; None for what does not bound it.
    """
    steps = config["steps"]
    size, unit = (episodes or 1, "episodes") if num_steps is None else (config["num_envs"] * num_steps, "steps")
    if steps < size:  # an episode is a step at least
        return f"{steps:,} steps (trains one whole iteration of {size:,} {unit})"
    count = steps // size
    if num_steps is None or steps - count * size <= NOTICEABLE * steps:
        return f"{steps:,} steps"
    fit = f"{count:,} fit{'s' * (count == 1)}"
    text = f"{steps:,} steps (trains whole iterations of {size:,} steps, of which {fit}"
    shorter = steps // (config["num_envs"] * (count + 1))
    used = shorter * config["num_envs"] * (count + 1)
    if config.get("num_steps") != num_steps or steps - used > NOTICEABLE * steps:
        return text + ")"
    return f"{text}; --num-steps {shorter} would use {'all ' * (used == steps)}{used:,})"


def why_fewer(agent: Agent, asked: int) -> str:
    """The text about why a training that is over took fewer steps than were asked for; empty where it took about as many."""
    done, size = agent.collector.steps_done, (agent.plan.wants.num_steps or 0) * agent.envs.num_envs
    if agent.trainer.stopped or done >= asked or not size:
        return ""
    if asked < size:
        return f" (the other {size - done:,} of the iteration only reset an environment)"
    if asked - done <= NOTICEABLE * asked:
        return ""
    rest = "a step that only resets an environment is not counted"
    return f" (another iteration of {size:,} would exceed {asked:,}; {rest})"


def preset(algo: str, env: str, config: Mapping[str, Any], tuned: bool, given: str | None = None) -> str:
    """The text about the preset of the configuration and the keywords that differ from it."""
    base, _ = resolve(algo, env, {}, given)
    changed = [f"{k} {show(v)}" for k, v in config.items() if k != "steps" and v != base[k]]
    named = preset_name(algo, env)
    kind = (
        "tuned preset" if named == env else "common settings"
    )  # of a family, which nobody has tuned for each of its members
    text = f"{kind} for {named}" if tuned else f"no preset for {env}: {algo}'s defaults"
    text = f"preset {given}" if given is not None else text
    return text + (f", changed: {', '.join(changed[:4])}{', …' if len(changed) > 4 else ''}" if changed else "")


def stepped(backend: str) -> str:
    """The text about the backend, if it is another than Gymnasium in this process, or its compiled copy."""
    names = {
        "split": "environments on all cores",
        "async": "environments in separate processes",
        "envpool": "environments in EnvPool",
        "torch": "environments as tensors",
    }
    return f"; {names[backend]}" if backend in names else ""


def saved(run: RunDirectory) -> str:
    """The text about a run that did not finish: where it is, what it contains, and how to continue."""
    there = [p.relative_to(run.path).as_posix() for p in (run.policy_file, *run.checkpoints()[-1:]) if p.exists()]
    if not there:
        return f"{run.path} holds no checkpoint yet"
    word = "resume" if run.checkpoints() else "eval"
    return f"{run.path} holds {' and '.join(there)}\nnext: policygrad {word} {shlex.quote(str(run.path))}"


def evaluation_table(evaluations: Mapping[str, Evaluation]) -> str:
    """The table of the greedy and the sampled evaluation."""
    rows = []
    for name, evaluation in evaluations.items():
        mean = f"{evaluation.mean:,.{decimals(*evaluation.ci95)}f}"
        rows.append([name, mean, interval_text(evaluation.ci95), str(len(evaluation.returns))])
    notes = {name: evaluation.note for name, evaluation in evaluations.items()}
    same = len(set(notes.values())) == 1
    lines = [text_table(["policy", "mean return", "95 % interval", "episodes"], rows, right=(1, 2, 3))]
    lines += [next(iter(notes.values()))] if same else [f"{name}: {note}" for name, note in notes.items()]
    return "\n".join(
        [*lines, "the interval says nothing about other seeds of training: train several, as with --seed 0-4"]
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as text: seed 3; seeds 0 to 3, 7."""
    groups: list[list[int]] = []
    for seed in sorted(seeds):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    parts = [f"{g[0]} to {g[-1]}" if len(g) > 2 else ", ".join(map(str, g)) for g in groups]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(parts)}"


def seeds_table(states: Sequence[State]) -> str:
    """The table with one row per seed, and below the means over the seeds, with the lowest and the highest."""
    rows, done = [], []
    for state in states:
        run = Path(state.path or "").name
        if state.phase == "done":
            greedy, sampled = (state.evaluations[way]["mean"] for way in ("greedy", "sampled"))
            interval = interval_text(state.evaluations["greedy"]["ci95"])
            rows.append([str(state.seed), f"{greedy:,.1f}", interval, f"{sampled:,.1f}", run])
            done.append((greedy, sampled))
        else:
            rows.append([str(state.seed), state.phase, "", "", run])
    for name, of in {"mean": lambda x: sum(x) / len(x), "min": min, "max": max}.items():
        if len(done) > 1:
            greedy, sampled = (of(values) for values in zip(*done, strict=True))
            rows.append([name, f"{greedy:,.1f}", "", f"{sampled:,.1f}", ""])
    note = "\n95 % interval: of the mean return of that seed's policy; how much seeds differ, the rows show"
    return text_table(["seed", "greedy", "95 % interval", "sampled", "run"], rows, right=(1, 2, 3)) + note * bool(done)


def failures(states: Sequence[State]) -> str:
    """The text about the seeds that failed or were stopped alone, at most three lines; empty if there are none."""
    reasons: dict[str, list[State]] = {}
    for state in states:
        if state.phase == "failed" or (state.phase == "stopped" and state.message):
            reasons.setdefault(as_flags(state.message), []).append(state)
    lines = [
        f"{seeds_text([s.seed for s in failed])} {failed[0].phase}: {(message.splitlines() or [''])[0]}"
        for message, failed in reasons.items()
    ]
    if len(reasons) == 1:
        ((message, failed),) = reasons.items()
        path = failed[0].path
        if path is None and len(failed) == len(states):  # what one seed alone would have said
            return message
        lines += [saved(RunDirectory(Path(path)))] if path is not None else []
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], f"and {len(lines) - 2} more"])


def saved_seeds(states: Sequence[State]) -> str:
    """The text about stopped runs that have a policy, and how to play it."""
    held = [s for s in states if s.path is not None and has_model(RunDirectory(Path(s.path)))]
    if not held:
        return "no run has saved anything yet"
    rest = [s.seed for s in states if s not in held]
    text = f"{seeds_text([s.seed for s in held])} {'is' if len(held) == 1 else 'are'} saved"
    text += f", {seeds_text(rest)} had not started" if rest else ""
    return f"{text}\nnext: policygrad eval {shlex.quote(str(held[0].path))}"


def has_model(run: RunDirectory) -> bool:
    """Whether a run has a policy to play."""
    return run.policy_file.exists() or bool(run.checkpoints())
