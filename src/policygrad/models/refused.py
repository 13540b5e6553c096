"""Methods of other libraries' policies, which are not here: each says what to ask instead."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

Class = TypeVar("Class", bound=type)

INSTEAD = {
    "predict": "use agent.predict(obs)",
    "predict_values": "use agent.value(obs)",
    "evaluate_actions": "use agent.value(obs) and agent.log_prob(obs, act)",
    "get_distribution": "agent.log_prob(obs, act) is log π(a|s); policy.dist takes encoded observations and gives the numbers "
    "of the distribution (B, P), which policy.head reads",
}


def refused(kind: Class) -> Class:
    """The class, with these methods, each of which raises AttributeError with the answer."""
    for name, instead in INSTEAD.items():
        setattr(kind, name, _refusing(name, instead))
    return kind


def _refusing(name: str, instead: str) -> Any:
    def refuse(self: Any, *given: Any, **keywords: Any) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} has no {name!r}: {instead}", name=name, obj=self)

    refuse.__name__ = name
    return refuse
