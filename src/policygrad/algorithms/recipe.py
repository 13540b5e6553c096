"""What a recipe is: a function `(task, *, keywords) → Plan` and the spec that says what other rooms want to know of it.

    @recipe(RecipeSpec(estimator="GAE − V", update="my rule"))
    def mine(task, *, num_steps: int = 128, lr: float = 3e-4) -> Plan: ...

A function without the decorator is a recipe with an empty spec. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from policygrad.algorithms.task import Plan, Task

TAKES_EVERY_STEP = "it takes every step as it comes, and lr sets its length"


@dataclass(frozen=True)
class Option:
    """What the command line says of a keyword, and its bounds: `clip: Annotated[float, Option("ε upwards", low=0.0)] = 0.2`.

    The bounds are inclusive, and hold for each number of a tuple.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RecipeSpec:
    """What reports, lists and the command line say of an algorithm. Every field has a default: a bare function is a recipe.

    A run keeps its spec in config.json, so that reports of a recipe from elsewhere import nothing.
    """

    estimator: str = ""  # the row of the grid
    update: str = ""  # its column: the name of the update rule
    kl_limit: str | None = None  # the hyperparameter that KL(old ‖ new) is held to
    kl_free_with: str | None = None  # a hyperparameter that, where it is set, takes the place of that limit
    steers_kl: bool = False  # whether the limit is a target from both sides
    shorter: str = "lr"  # what to lower for shorter steps
    no_rejection: str | None = TAKES_EVERY_STEP  # what the rule has instead of rejecting steps; None: it rejects them
    num_steps: int | None = None  # steps of every environment per iteration, where no hyperparameter says it
    batch_size: str | None = None  # the count of minibatches that `batch_size` is turned into
    dataset: bool = False  # whether it can learn from stored trajectories
    aliases: Mapping[str, str | None] = field(
        default_factory=dict
    )  # words that mean something else here; None: nothing

    @property
    def cell(self) -> str:
        """The cell of the grid, in words."""
        return " × ".join(filter(None, (self.estimator, self.update)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Any) -> RecipeSpec:
        """The inverse of `to_json`; fields that are not known are left out. Raises ValueError for values of other types."""
        if not isinstance(values, dict):
            raise ValueError(f"expected a table, got {values!r}")
        kinds = {"num_steps": int, "steers_kl": bool, "dataset": bool, "aliases": dict}  # the others are text
        known = {f.name: values[f.name] for f in fields(RecipeSpec) if f.name in values}
        for name, value in known.items():
            if value is not None and not isinstance(value, kinds.get(name, str)):
                raise ValueError(f"{name} = {value!r} has another type than it should")
        return RecipeSpec(**known)


class Recipe(Protocol):
    """A recipe, as `recipe` or `as_recipe` returns it."""

    name: str  # "ppo"; of one from elsewhere "module:function", as the command line takes it
    spec: RecipeSpec
    keywords: dict[str, Parameter]  # its own and those that all recipes share

    def __call__(self, task: Task, **keywords: Any) -> Plan:
        """The composition."""
        ...


def network(
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
) -> None:
    """What every recipe has besides its own keywords: the policy's network and head, `Task.network`."""


def environments(*, num_envs: int = 8) -> None:
    """What every recipe has that does not name it itself."""


OLD_KEYWORDS = {"correlation": "noise_autocorrelation", "legal": "mask_source"}  # of version 0.4, and what they are now


def current_keywords(algo: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration read from a file, by today's keywords. Version 0.4 had no recipes from elsewhere: theirs stay."""
    return dict(config) if ":" in algo else {OLD_KEYWORDS.get(name, name): value for name, value in config.items()}


SHARED, COUNTED = signature(network).parameters, signature(environments).parameters


def recipe(spec: RecipeSpec = RecipeSpec(), name: str | None = None) -> Callable[[Callable[..., Plan]], Any]:
    """Make a function a recipe with this spec; name: how it is called where it is registered."""

    def decorate(function: Callable[..., Plan]) -> Any:
        own, shared = signature(function), SHARED
        keywords = {p.name: p for p in own.parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
        counted = {} if "num_envs" in keywords else COUNTED
        missing = [p.name for p in keywords.values() if p.default is Parameter.empty]
        if missing or len(own.parameters) - len(keywords) != 1:
            what = f"{', '.join(missing)} has no default" if missing else f"its signature is {own}"
            raise TypeError(
                f"a recipe is a function (task, *, keywords with defaults) → Plan; of {function.__qualname__} {what}"
            )
        every: dict[str, Parameter] = {**counted, **keywords, **{k: p for k, p in shared.items() if k not in keywords}}
        named = {spec.kl_limit, spec.kl_free_with, spec.batch_size, *spec.aliases.values()}
        named |= {"num_steps"} if spec.batch_size is not None else set()  # batch_size counts steps
        unknown = named - {None, *every}
        if unknown:
            raise TypeError(
                f"the spec of {function.__qualname__} names {', '.join(map(repr, unknown))}, which it has not"
            )

        @wraps(function)
        def with_network(task: Task, **given: Any) -> Plan:
            options = {k: given.pop(k, p.default) for k, p in shared.items() if k not in keywords}
            for k in counted:
                given.pop(k, None)
            return function(replace(task, network=options), **given)

        made: Any = with_network
        made.keywords = every
        made.__signature__ = own.replace(parameters=[next(iter(own.parameters.values())), *made.keywords.values()])
        made.name = name or f"{function.__module__}:{function.__qualname__}"
        made.spec = spec
        return made

    return decorate


@cache
def _bare(function: Callable[..., Plan]) -> Recipe:
    """A function without the decorator, made a recipe once."""
    return recipe()(function)


def as_recipe(given: Any) -> Recipe:
    """A recipe, or any function that could be one. Raises TypeError for what is none."""
    if hasattr(given, "spec") and hasattr(given, "keywords"):
        return given
    if not callable(given) or isinstance(given, type):
        raise TypeError(f"a recipe is a function (task, *, keywords) → Plan, got {given!r}")
    return _bare(given)


@cache
def renamed(given: Any, name: str) -> Recipe:
    """The same recipe under another name; the one that is given keeps its own."""
    return recipe(given.spec, name)(given.__wrapped__)
