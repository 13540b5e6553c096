"""The errors that are raised for exceptions and wrong answers of an environment."""

from __future__ import annotations

from typing import Any, NoReturn

from policygrad.errors import ContractError, ForeignCodeError

PENDING: Any = object()  # the answer of an environment that has not answered yet
LONGEST = 300  # characters of another error's message
ANSWERS = {
    "reset": ("observation", "info"),
    "step": ("observation", "reward", "terminated", "truncated", "info"),
}


def blame(error: BaseException, who: str, method: str, answer: Any, when: str) -> NoReturn:
    """Raise ContractError for a wrong answer of an environment, and ForeignCodeError for an exception in its code."""
    if answer is not PENDING:
        wrong = misshapen(method, answer)
        if wrong is not None:
            raise ContractError(f"{who}: {method}() {wrong}, {when}") from None
        if isinstance(error, ContractError):
            raise ContractError(f"{who}: {method}() gave {error}, {when}") from None
    if method == "reset" and type(error) is TypeError and "unexpected keyword argument" in str(error):
        raise ContractError(f"{who}: {error}, but Gymnasium's is reset(self, *, seed=None, options=None)") from error
    raise_foreign(error, f"{who}: {method}() raised", f", {when}")


def raise_foreign(error: BaseException, before: str, after: str = "") -> NoReturn:
    """Raise a ForeignCodeError: "before ClassName: first line of the message, after"."""
    try:
        first = next(iter(str(error).splitlines()), "")
    except Exception:  # of an error that cannot be printed
        first = ""
    first = first if len(first) <= LONGEST else f"{first[:LONGEST]}…"
    message = f"{before} {type(error).__name__}{f': {first}' if first else ''}{after}"
    raise foreign(type(error), message) from error


def foreign(kind: type[BaseException], message: str) -> ForeignCodeError:
    """A ForeignCodeError that is also of this class, where that can be."""
    if issubclass(kind, ForeignCodeError) or not issubclass(kind, Exception) or issubclass(kind, StopIteration):
        return ForeignCodeError(message)
    try:
        return type(ForeignCodeError.__name__, (ForeignCodeError, kind), {})(message)
    except TypeError:  # two classes that no third one can be of
        return ForeignCodeError(message)


def misshapen(method: str, answer: Any) -> str | None:
    """The fault in the form of an answer, or None."""
    names = ANSWERS[method]
    if isinstance(answer, tuple | list) and len(answer) == len(names):
        return None
    came = f"{len(answer)} values" if isinstance(answer, tuple | list) else brief(answer)
    return f"returned {came}, where Gymnasium's {method} returns {len(names)} values, {', '.join(names)}"


def brief(x: Any) -> str:
    """A value as one short line."""
    try:
        text = " ".join(repr(x).split())
    except Exception:
        text = ""
    return text if 0 < len(text) <= 60 else f"a {type(x).__name__}" + (f" {text[:50]}…" if text else "")
