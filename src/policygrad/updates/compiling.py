"""Whole steps as compiled functions, where they are wanted and there are any. numba is imported here, when it is to be used."""

from __future__ import annotations

from typing import Any

from policygrad.total import is_shared


class CompiledStep:
    """The step of a rule by the name of its class in `compiled_steps`, which is made when it is first to be used.

    networks, optimizers: all that the rule moves, besides the policy.
    """

    def __init__(self, name: str, networks: list[Any], optimizers: list[Any]) -> None:
        self.name, self.networks, self.optimizers = name, networks, optimizers
        self.step: Any = None
        self.tried = False

    def __call__(self, rule: Any, policy: Any, batch: Any, progress: float) -> bool:
        """Take the step; False where the reference is to."""
        if not policy.compiles or is_shared():
            return False
        if not self.tried:
            self.step, self.tried = self.make(policy), True
        if self.step is None:
            return False
        self.step(rule, policy, batch, progress)
        return True

    def make(self, policy: Any) -> Any:
        """The step, or None where there is none."""
        from policygrad.updates.compiled_steps import step_of

        return step_of(self.name, policy, self.networks, self.optimizers)
