"""Hyperparameters of RL Zoo (rl-baselines3-zoo), as a preset: what its YAML files say, and Stable-Baselines3's defaults.

    preset = policygrad.zoo.read("hyperparams/ppo.yml", "ppo", "CartPole-v1")
    agent = policygrad.ppo("CartPole-v1", preset=preset)
    print(preset.left)  # what has no counterpart, with the reason

RL Zoo's files say only what differs from the defaults of Stable-Baselines3, so these are in the preset, too. Nothing in a file
is executed: YAML is read by its safe loader, and expressions such as `dict(net_arch=[64, 64])` by a parser of literals.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policygrad.algorithms.checked import ConfigError
from policygrad.envs.families import family_of
from policygrad.files import MIB, read_text

PPO = {
    "learning_rate": 3e-4, "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
    "clip_range": 0.2, "normalize_advantage": True, "ent_coef": 0.0, "max_grad_norm": 0.5,
}  # fmt: skip
A2C = {
    "learning_rate": 7e-4, "n_steps": 5, "gamma": 0.99, "gae_lambda": 1.0, "ent_coef": 0.0, "max_grad_norm": 0.5,
    "normalize_advantage": False, "use_rms_prop": True,
}  # fmt: skip
TRPO = {
    "learning_rate": 1e-3, "n_steps": 2048, "batch_size": 128, "gamma": 0.99, "gae_lambda": 0.95, "target_kl": 0.01,
    "cg_max_steps": 15, "cg_damping": 0.1, "line_search_shrinking_factor": 0.8, "line_search_max_iter": 10,
    "n_critic_updates": 10, "normalize_advantage": True,
}  # fmt: skip
REPLAY = {"buffer_size": 1_000_000, "learning_starts": 100, "gamma": 0.99, "train_freq": 1, "gradient_steps": 1}
PATHWISE = REPLAY | {"batch_size": 256, "tau": 0.005}
DQN = REPLAY | {
    "learning_rate": 1e-4, "batch_size": 32, "train_freq": 4, "target_update_interval": 10_000,
    "exploration_fraction": 0.1, "exploration_final_eps": 0.05, "max_grad_norm": 10.0,
}  # fmt: skip
TD3 = PATHWISE | {"learning_rate": 1e-3, "target_policy_noise": 0.2, "target_noise_clip": 0.5, "policy_delay": 2}
DEFAULTS: dict[str, dict[str, Any]] = {  # of Stable-Baselines3 2.9, with the networks of its policies
    "ppo": PPO | {"net_arch": [64, 64], "activation_fn": "Tanh"},
    "a2c": A2C | {"net_arch": [64, 64], "activation_fn": "Tanh"},
    "trpo": TRPO | {"net_arch": [64, 64], "activation_fn": "Tanh"},
    "dqn": DQN | {"net_arch": [64, 64], "activation_fn": "ReLU"},
    "sac": PATHWISE | {"learning_rate": 3e-4, "ent_coef": "auto", "net_arch": [256, 256], "activation_fn": "ReLU"},
    "td3": TD3 | {"noise_std": 0.0, "net_arch": [400, 300], "activation_fn": "ReLU"},
    "ddpg": PATHWISE | {"learning_rate": 1e-3, "noise_std": 0.0, "net_arch": [400, 300], "activation_fn": "ReLU"},
}
COUNTS = {"ppo": "minibatches", "trpo": "critic_minibatches"}  # what a batch_size is turned into
SAME = frozenset(  # words of theirs that the recipes understand
    [
        "learning_rate",
        "n_steps",
        "n_epochs",
        "gamma",
        "gae_lambda",
        "clip_range",
        "normalize_advantage",
        "max_grad_norm",
        "target_kl",
        "cg_max_steps",
        "cg_damping",
        "line_search_shrinking_factor",
        "line_search_max_iter",
        "n_critic_updates",
        "buffer_size",
        "learning_starts",
        "tau",
        "gradient_steps",
        "target_update_interval",
        "exploration_fraction",
        "exploration_final_eps",
        "policy_delay",
        "target_policy_noise",
        "target_noise_clip",
        "target_entropy",
        "n_envs",
        "n_timesteps",
        "seed",
        "batch_size",
        "ent_coef",
        "train_freq",
    ]
)
ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "SiLU": "silu"}
ATARI, PREPARED = "atari", ("env_wrapper", "frame_stack")  # the table for all games, and what it asks to prepare
THETA, DT = 0.15, 0.01  # of Stable-Baselines3's Ornstein–Uhlenbeck noise
WHY = {  # why a word has no counterpart
    "vf_coef": "the critic has an optimiser of its own",
    "clip_range_vf": "values are not clipped",
    "use_sde": "noise_autocorrelation is the nearest",
    "sde_sample_freq": "noise_autocorrelation is the nearest",
    "use_rms_prop": "the optimiser is Adam",
    "rms_prop_eps": "the optimiser is Adam",
    "ortho_init": "weights always begin orthogonal",
    "env_wrapper": "give wrappers= or --wrapper",
    "frame_stack": "wrap the environment in gymnasium.wrappers.FrameStackObservation",
    "norm_reward": "the critic standardises its targets",
    "sub_sampling_factor": "all rows are used",
}
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class ZooError(ConfigError):
    """A file is not RL Zoo's, or has no hyperparameters for the environment."""


class Preset(dict[str, Any]):
    """Hyperparameters, for `preset=`. left: the words without a counterpart, with the reason. source: where they are from."""

    def __init__(self, values: Mapping[str, Any], left: Mapping[str, str], source: str) -> None:
        super().__init__(values)
        self.left, self.source = dict(left), source

    def __reduce__(self) -> tuple[Any, ...]:
        return Preset, (dict(self), self.left, self.source)

    def __str__(self) -> str:
        return self.source

    def said(self) -> str:
        """A sentence about what was left out; empty if nothing was."""
        parts = [f"{word} ({why})" if why else word for word, why in self.left.items()]
        return f"{self.source}: left out {', '.join(parts)}" if parts else ""

    def to_toml(self) -> str:
        """The preset as a TOML file, for `--preset FILE`."""
        return "".join(f"{name} = {_toml(value)}\n" for name, value in self.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def read(path: str | Path, algo: str, env: str) -> Preset:
    """The hyperparameters of an algorithm in an environment, from a YAML file of RL Zoo.

    algo: ppo, a2c, trpo, dqn, ddpg, td3 or sac. env: an id; where the file has only another version of it, that one is taken,
    its table `atari` for Atari games, and its table `default` where it has none. Raises ZooError, or BadFileError for what
    cannot be read.
    """
    algo = algo.lower().replace("-", "_")
    if algo not in DEFAULTS:
        raise ZooError(f"RL Zoo's files are read for {', '.join(DEFAULTS)}, not for {algo}")
    name, table = _table(path, env)
    left: dict[str, str] = {}
    if name == ATARI:  # what the file asks for is done wherever an Atari id is made
        table = {word: value for word, value in table.items() if word not in PREPARED}
    given: dict[str, Any] = {}
    for word, value in table.items():
        given |= _expanded(str(word), value, left)
    values = _translated(algo, DEFAULTS[algo] | given, left)
    return Preset(values, left, f"{os.path.basename(path)} of RL Zoo, {name}")


def _table(path: str | Path, env: str) -> tuple[str, dict[Any, Any]]:
    """The name and the values of the environment's table."""
    try:
        import yaml
    except ImportError as error:
        raise ZooError(f"reading {path} needs the package PyYAML: pip install policygrad[zoo]") from error
    text = read_text(os.path.expanduser(path), MIB)
    try:
        tables = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ZooError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    tables = {k: v for k, v in tables.items() if isinstance(v, dict)} if isinstance(tables, dict) else {}
    bare = re.sub(r"-v\d+$", "", env)
    same = (n for n in tables if isinstance(n, str) and re.sub(r"-v\d+$", "", n) == bare)
    family = family_of(env)
    names = [env, *same, *([ATARI] if family is not None and family.name == "Atari" else []), "default"]
    name = next((n for n in names if n in tables), None)
    if name is None:
        has = ", ".join(str(n) for n in list(tables)[:20]) or "nothing"
        raise ZooError(f"{path} has no hyperparameters for {env}; it has: {has}")
    return name, tables[name]


def _expanded(word: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    """A word with its value; expressions and tables as the words inside them."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):  # YAML 1.1 reads 1e5 as text
        value = float(value)
    if word in ("policy", "callback"):  # networks follow from the spaces
        return {}
    if word in ("policy_kwargs", "normalize") and isinstance(value, str):
        try:
            value = literal(value)
        except ValueError as error:
            left[word] = str(error)
            return {}
    if word == "normalize":
        return {"normalize": value} if isinstance(value, dict | bool) else {}
    if word == "policy_kwargs" and isinstance(value, dict):
        return dict(value)
    return {word: value}


def literal(text: str) -> Any:
    """The value of an expression of numbers, text, lists and `dict(…)`. Names such as nn.ReLU are their last word.

    Raises ValueError for everything else; nothing is executed.
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("it is no expression of literals") from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_value(item) for item in node.elts]
        case ast.Dict():
            if None not in node.keys:
                return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            if all(keyword.arg is not None for keyword in node.keywords):
                return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        case ast.Attribute():
            return node.attr
        case ast.Name():
            return node.id
    raise ValueError("it is no expression of literals")


def _translated(algo: str, given: dict[str, Any], left: dict[str, str]) -> dict[str, Any]:
    """Our keywords, or words that the recipes understand; the others are put into `left`."""
    values: dict[str, Any] = {"n_envs": 1}
    for word, value in given.items():
        special = SPECIAL.get(word)
        if special is not None:
            values |= special(algo, value, left)
        elif word in SAME:
            values[word] = int(value) if isinstance(value, float) and value.is_integer() and word in WHOLE else value
        elif word not in ("noise_type", "noise_std") and not (word in WHY and value in (False, None)):
            left[word] = WHY.get(word, "")
    if algo in ("ddpg", "td3"):
        values |= _noise(str(given.get("noise_type", "normal")), float(given["noise_std"]), left)
    if "target_update_interval" in values and algo == "dqn" and given.get("tau", 1.0) != 1.0:
        left["tau"] = "dqn copies the whole network"
    if algo in COUNTS:
        rows, size = int(values["n_envs"]) * int(values["n_steps"]), int(values.pop("batch_size"))
        values[COUNTS[algo]] = max(1, math.ceil(rows / size))
    if algo == "dqn":
        values.pop("tau", None)
    return values


WHOLE = frozenset(
    ["n_steps", "n_epochs", "n_envs", "n_timesteps", "batch_size", "buffer_size", "learning_starts", "gradient_steps"]
)


def _noise(kind: str, std: float, left: dict[str, str]) -> dict[str, Any]:
    """The noise of a deterministic policy. Ornstein–Uhlenbeck: its standard deviation once it is stationary."""
    if kind == "ornstein-uhlenbeck":
        rho = 1.0 - THETA * DT
        return {"noise": std * math.sqrt(DT / (1.0 - rho**2)), "noise_autocorrelation": rho}
    if kind != "normal":
        left["noise_type"] = f"{kind} is not here"
    return {"noise": std}


def _widths(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    arch = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else value
    policy = arch.get("pi") if isinstance(arch, dict) else arch
    critic = (arch.get("vf", arch.get("qf", policy))) if isinstance(arch, dict) else policy
    if not isinstance(policy, list) or not all(isinstance(n, int) for n in policy):
        left["net_arch"] = "give hidden= or body="
        return {}
    if critic != policy:
        left["net_arch"] = f"the critic is as wide as the policy, {policy}"
    return {"hidden": tuple(policy)}


def _activation(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    if value in ACTIVATIONS:
        return {"activation": ACTIVATIONS[value]}
    left["activation_fn"] = f"{value} is none of tanh, relu and silu"
    return {}


def _normalize(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    parts = value if isinstance(value, dict) else {"norm_obs": bool(value), "norm_reward": bool(value)}
    if parts.get("norm_reward", True):
        left["norm_reward"] = WHY["norm_reward"]
    return {"normalize_obs": bool(parts.get("norm_obs", True))}


def _entropy(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    if algo != "sac":
        return {"ent_coef": value}
    if isinstance(value, str) and value.startswith("auto"):
        return {"alpha": float(value.partition("_")[2] or 1.0), "learn_alpha": True}
    return {"alpha": float(value), "learn_alpha": False}


def _frequency(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    if isinstance(value, list | tuple):
        if len(value) == 2 and value[1] != "step":
            left["train_freq"] = "networks learn after steps, not after episodes"
            return {}
        value = value[0]
    return {"train_freq": int(value)}


def _log_std(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    if algo in ("ppo", "a2c", "trpo"):
        return {"log_std": float(value)}
    left["log_std_init"] = "the standard deviation is an output of the network"
    return {}


def _critics(algo: str, value: Any, left: dict[str, str]) -> dict[str, Any]:
    if value in (1, 2) and algo in ("sac", "td3", "ddpg"):
        return {"twin": value == 2}
    left["n_critics"] = "there are one or two critics"
    return {}


SPECIAL: dict[str, Callable[[str, Any, dict[str, str]], dict[str, Any]]] = {
    "net_arch": _widths,
    "activation_fn": _activation,
    "normalize": _normalize,
    "ent_coef": _entropy,
    "train_freq": _frequency,
    "log_std_init": _log_std,
    "n_critics": _critics,
}
