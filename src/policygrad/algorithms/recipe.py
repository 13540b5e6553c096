"""Recipes: functions `(task, *, keywords) → Plan`, each with a spec that describes it for the other parts of the package.

    @recipe(RecipeSpec(estimator="GAE − V", update="my rule"))
    def mine(task, *, num_steps: int = 128, lr: float = 3e-4) -> Plan: ...

A function without the decorator is a recipe with an empty spec, and a `functools.partial` of either one has other defaults.
Keywords that several recipes have come in groups, see `keywords.py`. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache, partial, wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Protocol

from policygrad.algorithms.keywords import Network, Run

if TYPE_CHECKING:
    from policygrad.algorithms.task import Plan, Task

TAKES_EVERY_STEP = "it takes every step, and lr sets its length"


@dataclass(frozen=True)
class RecipeSpec:
    """The description of an algorithm for reports, lists and the command line. Every field has a default.

    A run keeps its spec in config.json, so that reports of a recipe from elsewhere import nothing.
    """

    estimator: str = ""  # the row of the grid
    update: str = ""  # its column: the name of the update rule
    gradient: str = "score function"  # what gives the gradient: "score function", "pathwise", or "none"
    kl_limit: str | None = None  # the hyperparameter that KL(old ‖ new) is held to
    kl_free_with: str | None = None  # a hyperparameter that, where it is set, takes the place of that limit
    steers_kl: bool = False  # whether the limit is a target from both sides
    shorter: str = "lr"  # what to lower for shorter steps
    no_rejection: str | None = TAKES_EVERY_STEP  # what the rule has instead of rejecting steps; None: it rejects them
    num_steps: int | None = None  # steps of every environment per iteration, where no hyperparameter says it
    batch_size: str | None = None  # the count of minibatches that `batch_size` is turned into
    reuses_batch: bool = False  # whether it makes many small steps on a batch, so that its lr is theirs
    dataset: bool = False  # whether it can learn from stored trajectories
    aliases: Mapping[str, str] = field(default_factory=dict)  # foreign words that mean another keyword here

    @property
    def cell(self) -> str:
        """The cell of the grid, as text."""
        return " × ".join(filter(None, (self.estimator, self.update)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Any) -> RecipeSpec:
        """The inverse of `to_json`; unknown fields are left out. Raises ValueError for values of other types."""
        if not isinstance(values, dict):
            raise ValueError(f"expected a table, got {values!r}")
        kinds: dict[str, type] = {"num_steps": int, "aliases": dict}
        kinds |= dict.fromkeys(("steers_kl", "reuses_batch", "dataset"), bool)  # the others are text
        known = {f.name: values[f.name] for f in fields(RecipeSpec) if f.name in values}
        for name, value in known.items():
            if value is not None and not isinstance(value, kinds.get(name, str)):
                raise ValueError(f"{name} = {value!r} has the wrong type")
        return RecipeSpec(**known)


class Recipe(Protocol):
    """A recipe, as `recipe` or `as_recipe` returns it."""

    name: str  # "ppo"; of one from elsewhere "module:function", as the command line takes it
    spec: RecipeSpec
    keywords: dict[str, Parameter]  # those of its groups and its own, as users give them
    groups: tuple[type, ...]  # the dataclasses that some of them come from

    def __call__(self, task: Task, **keywords: Any) -> Plan:
        """The composition."""
        ...


OLD_KEYWORDS = {"correlation": "noise_autocorrelation", "legal": "mask_source"}  # of version 0.4, and what they are now


def current_keywords(algo: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration from a file, with the current names of keywords. Recipes from outside the package keep theirs."""
    return dict(config) if ":" in algo else {OLD_KEYWORDS.get(name, name): value for name, value in config.items()}


def keywords_of(group: Any) -> list[Parameter]:
    """The keywords of a group, with its defaults."""
    values = vars(group)
    return [Parameter(f.name, Parameter.KEYWORD_ONLY, default=values[f.name], annotation=f.type) for f in fields(group)]


def recipe(spec: RecipeSpec = RecipeSpec(), name: str | None = None) -> Callable[[Callable[..., Plan]], Any]:
    """Make a function a recipe with this spec; name: how it is called where it is registered.

    A keyword whose default is a dataclass is a group of keywords, as those in `keywords.py`. `Run` and `Network` are every
    recipe's; one that takes them itself has defaults of its own. Raises TypeError for what is no recipe.
    """

    def decorate(function: Callable[..., Plan]) -> Any:
        own = signature(function)
        taken = {p.name: p for p in own.parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
        defaults: dict[str, Any] = {k: p.default for k, p in taken.items()}
        groups = {k: v for k, v in defaults.items() if is_dataclass(v) and not isinstance(v, type)}
        listed = [q for k, p in taken.items() for q in (keywords_of(p.default) if k in groups else [p])]
        names = [p.name for p in listed]
        keywords = {p.name: p for p in [*(p for p in keywords_of(Run()) if p.name not in names), *listed]}
        keywords |= {p.name: p for p in keywords_of(Network()) if p.name not in names}
        source = function_of(function)
        _check(source, own, names, keywords, spec)

        @wraps(source)
        def composed(task: Task, **given: Any) -> Plan:
            values = {k: given.pop(k, p.default) for k, p in keywords.items()}
            bundles = {k: replace(g, **{f.name: values[f.name] for f in fields(g)}) for k, g in groups.items()}
            plain = {k: values[k] for k in taken if k not in groups}
            network = Network(**{f.name: values[f.name] for f in fields(Network) if f.name not in plain})
            return function(replace(task, network=network), **plain, **bundles, **given)

        made: Any = composed
        made.keywords, made.groups = keywords, tuple(map(type, groups.values()))
        made.__signature__ = own.replace(parameters=[next(iter(own.parameters.values())), *keywords.values()])
        made.name = name or f"{source.__module__}:{source.__qualname__}"
        made.spec = spec
        return made

    return decorate


def function_of(function: Any) -> Any:
    """The function with a name behind `functools.partial`, or the method `__call__` of an object."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function).__call__


def _check(
    function: Any, own: Signature, names: list[str], keywords: Mapping[str, Parameter], spec: RecipeSpec
) -> None:
    """Refuse a function that is not a recipe, and a spec that names unknown keywords."""
    missing = [p.name for p in keywords.values() if p.default is Parameter.empty]
    twice = {name for name in names if names.count(name) > 1}
    positional = [p for p in own.parameters.values() if p.kind is not Parameter.KEYWORD_ONLY]
    if missing or twice or len(positional) != 1:
        what = f"{', '.join(missing)} has no default" if missing else f"its signature is {own}"
        what = f"{', '.join(sorted(twice))} is declared twice" if twice else what
        raise TypeError(
            f"a recipe is a function (task, *, keywords with defaults) → Plan; of {function.__qualname__} {what}"
        )
    named = {spec.kl_limit, spec.kl_free_with, spec.batch_size, *spec.aliases.values()}
    named |= {"num_steps"} if spec.batch_size is not None else set()  # batch_size counts steps
    unknown = named - {None, *keywords}
    if unknown:
        raise TypeError(
            f"the spec of {function.__qualname__} names {', '.join(map(repr, unknown))}, which it does not have"
        )


def is_recipe(given: Any) -> bool:
    """Whether `recipe` made it; a `functools.partial` has keywords, too."""
    return hasattr(given, "spec") and hasattr(given, "keywords")


@cache
def _bare(function: Callable[..., Plan]) -> Recipe:
    """A function without the decorator as a recipe; the same object every time."""
    return recipe()(function)


def _variant(given: Any, name: str, bound: Mapping[str, Any]) -> Recipe:
    """A copy of a recipe with another name, and with bound keywords as defaults."""

    @wraps(given)
    def composed(task: Task, **keywords: Any) -> Plan:
        return given(task, **{**bound, **keywords})

    made: Any = composed  # `wraps` gives it the spec and the groups, too
    made.keywords = {k: p.replace(default=bound.get(k, p.default)) for k, p in given.keywords.items()}
    own = signature(given)
    made.__signature__ = own.replace(parameters=[next(iter(own.parameters.values())), *made.keywords.values()])
    made.name = name
    return made


@cache
def _partial(given: partial[Plan], of: Recipe) -> Recipe:
    """The recipe with the keywords of a `functools.partial` as defaults."""
    unknown = [repr(k) for k in given.keywords if k not in of.keywords]
    if ":" not in of.name:
        raise TypeError(
            f"a partial of {of.name} is no recipe: give its keywords to the agent, as in Agent({of.name!r}, env, lr=1e-3)"
        )
    if given.args or unknown:
        said = ", ".join([*map(repr, given.args), *unknown])
        raise TypeError(f"a partial of the recipe {of.name} may have its keywords only, got {said}")
    return _variant(of, of.name, given.keywords)


def as_recipe(given: Any) -> Recipe:
    """The recipe of a recipe, a function, or a partial of one of these. Raises TypeError for other objects."""
    if is_recipe(given):
        return given
    if isinstance(given, partial) and is_recipe(given.func):
        return _partial(given, given.func)
    if not callable(given) or isinstance(given, type):
        raise TypeError(f"a recipe is a function (task, *, keywords) → Plan, got {given!r}")
    if (source := function_of(given)).__module__ == "policygrad":
        raise TypeError(f"policygrad.{source.__name__} makes an agent: as a recipe, give its name, {source.__name__!r}")
    return _bare(given)


@cache
def renamed(given: Any, name: str) -> Recipe:
    """A copy of the recipe with another name; the given recipe keeps its name."""
    return _variant(given, name, {})
