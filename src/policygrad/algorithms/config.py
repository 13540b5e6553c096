"""Configurations: a recipe's defaults, then the tuned preset, then the user's keywords; checked once, in one place.

Nothing heavy is imported.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from policygrad.algorithms.checked import ConfigError, checked
from policygrad.algorithms.foreign import algorithm_answer, answer
from policygrad.algorithms.keywords import Network, Option, Run
from policygrad.algorithms.recipe import OLD_KEYWORDS, Recipe, as_recipe, renamed
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.sharing import contradiction, fitting_preset
from policygrad.algorithms.without_effect import without_effect
from policygrad.envs.families import FAMILIES, family_of
from policygrad.files import MIB, read_text
from policygrad.locate import LocateError, locate
from policygrad.models.schedules import read_schedule

OF_EVERY_AGENT = {
    "seed": Option("random seed", 0, 2**32 - 1),
    "fisher_eigenvalues": Option("number of largest Fisher eigenvalues in every row of metrics", 0, 100),
}
MADE_BY = {f.name for f in fields(Network)} | {
    "optimizer",
    "baseline",
    "cross_fit",
    "critic",
    "asynchrony",
    "twin",
    "critic_hidden",
    "shared_body",
}  # what a learner is made by
FITTED = ("running-mean", "time-average", "linear")  # baselines that can be cross-fitted


class Configuration(dict[str, Any]):
    """An agent's hyperparameters, read-only, because an assignment would not reach the learner."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ConfigError("a configuration is not changed in place: use agent.change(lr=…), or another keyword")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse  # pyright: ignore

    def __reduce__(self) -> tuple[Any, ...]:
        return Configuration, (dict(self),)


Algo = str | Recipe | Callable[..., Any]  # a name, module:name, or the recipe itself
Preset = str | Path | Mapping[str, Any]  # a name, a TOML file, or hyperparameters


def find_recipe(algo: Algo) -> Recipe:
    """The recipe of a name, of `module:name` or `file.py:name`, or of a function.

    `-` and `_` are one in names. Raises ConfigError with the nearest match.
    """
    try:
        if not isinstance(algo, str):
            return as_recipe(algo)
        if ":" in algo:
            found = as_recipe(locate(algo))
            return renamed(found, algo) if ":" in found.name else found  # one of the package keeps its name
    except (LocateError, TypeError) as error:
        raise ConfigError(str(error)) from error
    key = algo.lower().replace("-", "_")
    if key not in RECIPES:
        instead, near = algorithm_answer(key), difflib.get_close_matches(key, RECIPES, n=1, cutoff=0.6)
        if instead is not None:
            raise ConfigError(f"there is no algorithm {algo!r}: {instead}.")
        hint = f" Did you mean {near[0]!r}?" if near else ""
        own = " Give your own recipe as module:name or file.py:name."
        raise ConfigError(f"unknown algorithm {algo!r}.{hint} Available: {', '.join(RECIPES)}.{own}")
    return RECIPES[key]


def algorithm(algo: Algo) -> str:
    """The recipe's name, see `find_recipe`."""
    return find_recipe(algo).name


def parameters(algo: Algo) -> dict[str, tuple[Any, Any]]:
    """The recipe's hyperparameters, `steps` first: name → (type, default)."""
    return _parameters(find_recipe(algo))


@cache
def _parameters(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    hints = _hints(recipe)
    kinds = {name: _bare_type(hints.get(name, type(p.default))) for name, p in recipe.keywords.items()}
    for name, kind in kinds.items():
        if not _plain(kind):
            raise ConfigError(
                f"{recipe.name}: {name} must be an int, float, bool, str, Literal or tuple[int, ...], or one of them | None, "
                f"got {kind}"
            )
    return {name: (kinds[name], p.default) for name, p in recipe.keywords.items()}


def options(algo: Algo) -> dict[str, Option]:
    """The options of the recipe's hyperparameters, from its own `Annotated[…, Option(…)]` or from the package's recipes."""
    return _options(find_recipe(algo))


@cache
def _options(recipe: Recipe) -> dict[str, Option]:
    every = _said(recipe) if recipe.name in RECIPES else known() | _said(recipe)
    return {name: every[name] for name in recipe.keywords if name in every}


def _said(recipe: Recipe) -> dict[str, Option]:
    said = {name: getattr(hint, "__metadata__", ()) for name, hint in _hints(recipe).items() if name in recipe.keywords}
    return {name: option for name, metadata in said.items() for option in metadata if isinstance(option, Option)}


@cache
def known() -> dict[str, Option]:
    """The options of all keywords of the package's recipes, for recipes whose keywords of the same name have none."""
    found = dict(OF_EVERY_AGENT)
    for recipe in RECIPES.values():
        found = _said(recipe) | found
    return found


@cache
def _hints(recipe: Recipe) -> dict[str, Any]:
    """The annotations of a recipe's keywords, resolved, `Annotated` kept."""
    own = {k: v for k, v in getattr(recipe, "__annotations__", {}).items() if k in recipe.keywords}
    try:
        where = getattr(unwrap(recipe), "__globals__", {})
        resolved = get_type_hints(SimpleNamespace(__annotations__=own), where, include_extras=True)
        groups = [_group_hints(group) for group in recipe.groups]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"{recipe.name}: an annotation cannot be resolved, {error}") from error
    return dict(ChainMap(*groups, resolved, _group_hints(Network), _group_hints(Run)))


@cache
def _group_hints(group: type) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def _bare_type(hint: Any) -> Any:
    return get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


def _plain(kind: Any) -> bool:
    """Whether a keyword of this type can come from the command line and from a file."""
    args = get_args(kind)
    if type(None) in args:
        return all(_plain(a) for a in args if a is not type(None))
    return (
        kind in (int, float, bool, str) or get_origin(kind) is Literal or (get_origin(kind) is tuple and args[0] is int)
    )


def aliases(algo: Algo) -> dict[str, str]:
    """The aliases of a recipe's hyperparameters: alias → hyperparameter."""
    return _aliases(find_recipe(algo))


@cache
def _aliases(recipe: Recipe) -> dict[str, str]:
    every = {alias: name for name, option in options(recipe).items() for alias in option.foreign}
    return {alias: name for alias, name in (every | dict(recipe.spec.aliases)).items() if alias not in recipe.keywords}


def pieces(algo: Algo) -> str | None:
    """The number of minibatches that batch_size is converted to, a hyperparameter's name; None for a recipe that has none."""
    return find_recipe(algo).spec.batch_size


def presets(algo: Algo) -> dict[str, dict[str, Any]]:
    """The tuned presets of a recipe: environment → hyperparameters. Recipes from outside the package have none."""
    return _packaged_presets(find_recipe(algo).name)


@cache
def _packaged_presets(name: str) -> dict[str, dict[str, Any]]:
    if name not in RECIPES:
        return {}
    from importlib.resources import files  # slow to import, and `policygrad --help` needs no preset

    return tomllib.loads((files("policygrad") / "presets" / f"{name}.toml").read_text("utf8"))


def tuned_for(algo: Algo) -> list[str]:
    """The environments that a recipe has presets for; families of them, which have one, too, are none."""
    return [name for name in presets(algo) if name not in {family.name for family in FAMILIES}]


def preset_name(algo: Algo, env_name: str) -> str:
    """The name of an environment's preset: its own, or that of its family, where the recipe has one."""
    family, tuned = family_of(env_name), presets(algo)
    return family.name if env_name not in tuned and family is not None and family.name in tuned else env_name


def find_preset(algo: Algo, env_name: str, preset: Preset | None) -> dict[str, Any] | None:
    """The preset below the user's keywords: the environment's tuned hyperparameters, or those of `preset`; or None.

    preset: the name of an environment that has tuned ones, a TOML file, or a mapping. A file has hyperparameters for every
    environment at its top, and tables of more for each environment that it names; with tables, others are refused.
    Raises ConfigError.
    """
    tuned = presets(algo)
    if preset is None:
        return tuned.get(preset_name(algo, env_name))
    if isinstance(preset, Mapping):
        return dict(preset)
    if not str(preset).endswith(".toml"):
        if preset not in tuned:
            has = (
                f"{algorithm(algo)} has presets for: {', '.join(tuned)}"
                if tuned
                else f"{algorithm(algo)} has no presets"
            )
            raise ConfigError(f"preset = {preset!r} is neither a preset nor a .toml file; {has}")
        return tuned[str(preset)]
    try:
        table = tomllib.loads(read_text(os.path.expanduser(preset), MIB))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the preset {preset}: {error}") from error
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    if tables and env_name not in tables:
        raise ConfigError(f"{preset} has no table for {env_name or 'every environment'}; it has: {', '.join(tables)}")
    return {name: value for name, value in table.items() if name not in tables} | tables.get(env_name, {})


def resolve(
    algo: Algo, env_name: str, overrides: dict[str, Any], preset: Preset | None = None
) -> tuple[dict[str, Any], bool]:
    """The full configuration, and whether it contains a preset. Raises ConfigError."""
    algo = find_recipe(algo)
    known, bounds = parameters(algo), options(algo)
    found = find_preset(algo, env_name, preset)
    config = {name: default for name, (_, default) in known.items()}
    for given in (fitting_preset(found or {}, overrides), overrides):
        for name, value in _unalias(algo, given, config).items():
            if name not in known:
                raise ConfigError(unknown_keyword(algo, name, value))
            config[name] = value
    for name, (kind, _) in known.items():
        config[name] = check(name, kind, config[name], bounds.get(name))
    _check_together(config)
    wrong = contradiction(config, {name: default for name, (_, default) in known.items()})
    wrong = wrong or without_effect([aliases(algo).get(name, name) for name in overrides], config, algo.groups)
    if wrong is not None:
        raise ConfigError(wrong)
    return config, found is not None


def changed(algo: Algo, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """An agent's configuration with other values. Raises ConfigError for hyperparameters of its networks."""
    stuck = {aliases(algo).get(name, name) for name in overrides} & MADE_BY
    if stuck:
        raise ConfigError(f"{min(stuck)} cannot change in an agent that has learned: make a new one")
    return resolve(algo, "", dict(overrides), config)[0]


def _check_together(config: dict[str, Any]) -> None:
    """What no single hyperparameter shows."""
    if config.get("baseline") == "leave-one-out" and config.get("episodes", 2) < 2:
        raise ConfigError("baseline = leave-one-out averages over the other episodes, so episodes must be at least 2")
    folds = config.get("cross_fit")
    if folds is not None and config.get("baseline", FITTED[0]) not in FITTED:
        raise ConfigError(f"cross_fit needs a baseline that is fitted: {', '.join(FITTED)}")
    if folds is not None and config.get("episodes", folds) < folds:
        raise ConfigError(f"cross_fit = {folds} needs one episode per fold: episodes must be at least {folds}")
    rows = config["num_envs"] * config.get("num_steps", 1)
    if "num_steps" in config and config.get("standardize", "no") != "no" and rows < 2:
        raise ConfigError("standardize needs at least 2 steps per iteration: raise num_steps, or set standardize = no")
    for name in ("minibatches", "critic_minibatches"):
        if "num_steps" in config and (config.get(name) or 1) > rows:
            raise ConfigError(f"{name} = {config[name]} must be at most num_envs × num_steps = {rows}")


def check_dataset(recipe: Recipe, config: Mapping[str, Any]) -> None:
    """Raises ConfigError for a recipe that cannot learn from stored trajectories, or would store them once more."""
    if not recipe.spec.dataset:
        raise ConfigError(
            f"{recipe.name} learns from episodes of its own policy; only off_policy_pg learns from a dataset"
        )
    if config.get("replay_episodes"):
        raise ConfigError(
            f"replay_episodes = {config['replay_episodes']} replays what a training played itself, but a dataset is replayed "
            "in any case: set replay_episodes = 0"
        )


def check_measurements(recipe: Recipe, **asked: object) -> None:
    """Raises ConfigError where measurements of a score function are asked for, by keyword, and the recipe has none."""
    names = " and ".join(name for name, value in asked.items() if value)
    if names and recipe.spec.gradient != "score function":
        raise ConfigError(f"{recipe.name} follows no score function ∇log π that could be measured: leave {names} out")


def unknown_keyword(algo: Algo, name: str, value: object = None) -> str:
    """The message for a keyword that a recipe does not have."""
    known, instead = parameters(algo), answer(name, off=value is False)
    if instead is not None:
        return f"{algorithm(algo)} has no hyperparameter {name!r}: {instead}."
    near = [OLD_KEYWORDS[name]] if OLD_KEYWORDS.get(name) in known else []
    owner = next((other for other in RECIPES if name in parameters(other) or name in aliases(other)), None)
    if owner is not None and not near:  # it is spelt as it should be, so nothing like it is meant
        return (
            f"{algorithm(algo)} has no hyperparameter {name!r}, which is one of {owner}. Available: {', '.join(known)}."
        )
    near = near or difflib.get_close_matches(name, [*known, *aliases(algo)], n=1, cutoff=0.75)
    hint = f" Did you mean {near[0]!r}?" if near else f" Available: {', '.join(known)}."
    return f"{algorithm(algo)} has no hyperparameter {name!r}.{hint}"


def _unalias(algo: Algo, overrides: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Aliases replaced by our names, and batch_size, a number of steps, by a number of minibatches."""
    own: dict[str, Any] = {}
    for name, value in overrides.items():
        target = aliases(algo).get(name, name)
        if target in own or {pieces(algo), "batch_size"} <= {target, *own}:
            raise ConfigError(
                f"{name} = {value!r} contradicts another keyword, so leave one of them out; given: {', '.join(overrides)}"
            )
        own[target] = value
    count = pieces(algo)
    if "batch_size" in own and count is not None:
        size = check("batch_size", int, own.pop("batch_size"))
        envs, steps = (check(name, int, own.get(name, config[name])) for name in ("num_envs", "num_steps"))
        rows = envs * steps
        if size < 1 or rows % size:
            raise ConfigError(f"batch_size = {size} must divide num_envs × num_steps = {rows}")
        own.setdefault(count, rows // size)
    return {name: _own_value(name, value) for name, value in own.items()}


def _own_value(name: str, value: Any) -> Any:
    """The value of one of our keywords that another library's value means. Raises ConfigError for one that has none."""
    if name == "standardize" and isinstance(value, bool):
        return "batch" if value else "no"
    if name == "num_steps" and isinstance(value, tuple | list) and len(value) == 2:  # Stable-Baselines3's train_freq
        if value[1] != "step":
            raise ConfigError(f"train_freq = {value!r}: networks learn after a number of steps, so use num_steps")
        return value[0]
    none = {"gradient_steps": -1, "target_entropy": "auto"}
    return None if name in none and value == none[name] else value


def check(name: str, kind: Any, value: Any, option: Option | None = None) -> Any:
    """The value as its type, inside its bounds, `option`'s or those known here. Raises ConfigError."""
    return checked(name, kind, value, option or known().get(name, Option()))


def with_schedules(algo: Algo, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a recipe takes it: schedules, which files hold as text, are functions of progress."""
    may = {name for name, option in options(algo).items() if option.schedule}
    return {name: (read_schedule(value) or value) if name in may else value for name, value in config.items()}


def show(value: Any) -> str:
    """A value as the user would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
