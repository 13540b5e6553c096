"""The errors of the package: `except policygrad.errors.PolicygradError` catches every one of them, and nothing else.

Each class below is a kind. What is raised is a subclass of one kind, beside what is raised, and keeps the built-in class that
fits, so that `except ValueError` goes on working. The message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class PolicygradError(Exception):
    """Anything that policygrad refuses or gives up, with a message for the user."""


class UserError(PolicygradError):
    """What was asked for cannot be: a mistake in a name, a value, or how parts are combined."""


class EnvError(PolicygradError):
    """The environment does what no algorithm here can use."""


class FileError(PolicygradError):
    """A file that is not there, is damaged, is of another kind, or would be overwritten."""


class TrainingError(PolicygradError):
    """Learning cannot go on: too little data, numbers that are not finite."""


class NotFiniteError(TrainingError, FloatingPointError):
    """A number that must be finite is NaN or ±∞."""


class Interrupted(KeyboardInterrupt):
    """A signal that asked for the end: no error, and none of the kinds above. `number` is the signal's."""

    def __init__(self, message: str = "", number: int = 2) -> None:
        super().__init__(message)
        self.number = int(number)

    @property
    def code(self) -> int:
        """The exit code by which a shell knows it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class ContractError(EnvError, ValueError):
    """An environment gave what its spaces or Gymnasium's interface do not allow."""


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
