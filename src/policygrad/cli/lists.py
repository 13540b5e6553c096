"""`policygrad list`: presets, algorithms, environments, policies that come with the package, versions, logged numbers."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import policygrad
from policygrad.algorithms.config import parameters, presets
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.flags import LISTS, first_line, list_parser
from policygrad.cli.foreign_words import LISTS as OTHERS
from policygrad.cli.tables import paragraph, text_table
from policygrad.cli.values import UsageError


def list_command(words: Sequence[str]) -> None:
    """`policygrad list`."""
    given = list_parser().parse(words)
    what = given.what and OTHERS.get(given.what.lower(), given.what.lower())
    if what is not None and what not in LISTS:
        raise UsageError(f"there is no list of {given.what!r}. Available: {', '.join(LISTS)}.")
    chosen = LISTS if what is None else (what,)
    print("\n\n".join(TABLES[name]() for name in chosen))


def presets_table() -> str:
    """The table of environments with tuned presets."""
    rows = [
        [env, algo, f"{preset.get('steps', parameters(algo)['steps'][1]):,}"]
        for algo in RECIPES
        for env, preset in presets(algo).items()
    ]
    return text_table(["preset", "algorithm", "steps"], sorted(rows), right=(2,))


def algorithms_table() -> str:
    """The table of recipes, each with its cell of the grid estimator × update rule and what gives its gradient."""
    rows = [[name, recipe.spec.cell, recipe.spec.gradient, first_line(recipe)] for name, recipe in RECIPES.items()]
    return text_table(["algorithm", "estimator × update rule", "gradient", "description"], rows)


# JAX, and names that are only kept to raise an error
UNSUPPORTED = re.compile(r"gymnasium\.envs\.(tabular|phys2d|registration$)|gymnasium\.envs$")
EXTRAS = {"gymnasium.envs.mujoco": "mujoco", "gymnasium.envs.box2d": "Box2D"}


def environments_table() -> str:
    """The table of registered environments in their latest versions, if their spaces are supported; none is made."""
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec

    latest: dict[str, EnvSpec] = {}
    for spec in gym.registry.values():
        where = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
        if not UNSUPPORTED.match(where):
            name = re.sub(r"-v\d+$", "", spec.id)
            if name not in latest or (spec.version or 0) > (latest[name].version or 0):
                latest[name] = spec
    rows = []
    for spec in sorted(latest.values(), key=lambda spec: spec.id):
        missing = [p for module, p in EXTRAS.items() if str(spec.entry_point).startswith(module) and not find_spec(p)]
        tuned = ", ".join(algo for algo in RECIPES if spec.id in presets(algo))
        solved = "" if spec.reward_threshold is None else f"{spec.reward_threshold:g}"
        extra = "policygrad[mujoco]" if "mujoco" in missing else f"gymnasium[{''.join(missing).lower()}]"
        needs = extra if missing else ""
        rows.append([spec.id, needs, str(spec.max_episode_steps or ""), solved, tuned])
    return text_table(["environment", "needs", "max steps", "solved at", "presets"], rows, right=(2, 3))


def policies_table() -> str:
    """The table of trained policies that come with the package."""
    from policygrad.stored.pretrained import PRETRAINED, policies

    rows = [
        [f"{PRETRAINED}{name}", f"{p['steps']:,}", f"{p['greedy']['mean']:,.2f}", f"{p['sampled']['mean']:,.2f}"]
        for name, p in policies().items()
    ]
    return text_table(["policy", "trained for steps", "greedy return", "sampled return"], rows, right=(1, 2, 3))


# what results may depend on; the first five are always installed
PACKAGES = (
    "torch",
    "numpy",
    "gymnasium",
    "scipy",
    "safetensors",
    "numba",
    "box2d",
    "mujoco",
    "envpool",
    "ale-py",
    "minigrid",
)


def versions_table() -> str:
    """The table of versions that a bug report needs: of Python, the system, policygrad and the packages that it uses."""
    rows = [
        ["policygrad", policygrad.__version__],
        ["python", platform.python_version()],
        ["system", f"{platform.system()} {platform.release()} {platform.machine()}"],
    ]
    for package in PACKAGES:
        try:
            rows.append([package, version(package)])
        except PackageNotFoundError:
            rows.append([package, "not installed"])
    return text_table(["package", "version"], rows)


def metrics_table() -> str:
    """The table of the numbers in rows of metrics, with their tags in TensorBoard and what is healthy."""
    from policygrad.interop.metrics import METRICS, NOTATION

    rows = [
        [metric.name, metric.written, f"{metric.text}. Healthy: {metric.healthy}" if metric.healthy else metric.text]
        for metric in METRICS.values()
    ]
    return f"{text_table(['number', 'TensorBoard', 'what it is'], rows)}\n{paragraph(NOTATION, '')}"


TABLES = {
    "presets": presets_table,
    "algorithms": algorithms_table,
    "envs": environments_table,
    "policies": policies_table,
    "versions": versions_table,
    "metrics": metrics_table,
}
