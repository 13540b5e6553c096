"""Breaking training off at a number of steps, so that it can be resumed as if it had not been."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policygrad.stored.directory import RunDirectory

if TYPE_CHECKING:
    from policygrad.data import Record
    from policygrad.training.agent import Agent


def pause_at(agent: Agent, steps: int) -> None:
    """Let training break off after the iteration that reaches so many of its steps.

    An observer of the records does it and no callback, so that the run is one without callbacks: any process can resume it.
    """

    def look(record: Record) -> None:
        if agent.trainer.done >= steps:
            agent.trainer.leave = True

    agent.collector.observers.append(look)


def is_paused(agent: Agent, run: RunDirectory) -> bool:
    """Whether training was broken off before its end; the run's state then says so."""
    if agent.trainer.over:
        return False
    run.write_state("stopped", agent.collector.steps_done, "paused")
    return True
