"""The errors of the package: `except policygrad.errors.PolicygradError` catches every one of them, and nothing else.

Each class below is a kind. What is raised is a subclass of one kind, beside what is raised, and keeps the built-in class that
fits, so that `except ValueError` goes on working. The message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class PolicygradError(Exception):
    """The base of all errors of policygrad; its message is for the user."""


class UserError(PolicygradError):
    """A mistake of the user: in a name, in a value, or in the combination of parts."""


class EnvError(PolicygradError):
    """The environment behaves in a way that no algorithm can use."""


class FileError(PolicygradError):
    """A file does not exist, is damaged, is of another kind, or would be overwritten."""


class TrainingError(PolicygradError):
    """Training cannot continue: too little data, or numbers that are not finite."""


class ParallelError(PolicygradError):
    """Processes that train together have come apart: one has ended, or has other parameters."""


class NotFiniteError(TrainingError, FloatingPointError):
    """A number that must be finite is NaN or ±∞."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end. It is not one of the errors above. `number` is that of the signal."""

    def __init__(self, message: str = "", number: int = 2) -> None:
        super().__init__(message)
        self.number = int(number)

    @property
    def code(self) -> int:
        """The exit code for the shell: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class ContractError(EnvError, ValueError):
    """An environment returned values that its spaces or Gymnasium's interface do not allow."""


class ObservationError(UserError, ValueError):
    """An observation does not belong to the space, or its action mask is missing."""


class AdviceWarning(UserError, UserWarning):
    """Training is possible, but unlikely to succeed with these settings."""


class PartError(UserError, TypeError):
    """A part is a class, a word, or an object of another kind than the one expected."""


def check_part(name: str, value: object, members: tuple[str, ...], expected: str) -> None:
    """Raise PartError unless `value` is an object with these members. name: the argument's; expected: what would do."""
    if not isinstance(value, type):
        if all(hasattr(value, member) for member in members):
            return
        raise PartError(f"{name} must be {expected}, got {brief(value)}")
    own = {member for each in value.__mro__ for member in vars(each)}
    hint = f": did you forget the brackets, {value.__name__}()?" if own.issuperset(members) else ""
    raise PartError(f"{name} must be {expected}, got the class {value.__name__}{hint}")


def brief(value: object) -> str:
    """A value in one line of a message: plain ones as Python writes them, others by their class."""
    plain = isinstance(value, str | int | float | bool | list | tuple | dict | type(None))
    text = repr(value) if plain else ""
    return text if 0 < len(text) <= 60 else f"an object of the class {type(value).__name__}"


class ForeignCodeError(EnvError, RuntimeError):
    """Code of an environment raised an error, which is the `__cause__`.

    Raised is a subclass of this one and, wherever Python allows it, of the cause's class, so that whoever waits for a
    ConnectionError of a simulator goes on catching it.
    """

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)  # the class of the cause may want other arguments, and print them otherwise
        self.message = message

    def __str__(self) -> str:
        return self.message
