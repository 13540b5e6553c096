"""What a model file of a policy says, as the description and the arrays of a `NumpyPolicy`; without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from policygrad.algorithms.heads import EXPLORING, head_of
from policygrad.forms import LARGEST, Form, FormError, anything, each, flag, number, refuse, table, text, whole
from policygrad.stored.states import StateFile

HEADS = ("categorical", "multicategorical", "values", "gaussian", "squashed", "beta", "deterministic")
ACTIVATIONS = ("tanh", "relu", "silu")
CLIP = 10.0  # of the normaliser
MOMENTS = ("normalizer.mean", "normalizer.var", "normalizer.count")
POLICY = table({"learner": table({"policy": table({}, others=anything)}, others=anything)}, others=anything)

META = table(
    {
        "algo": text(1000),
        "env": text(1000),
        "seed": whole(0, 2**63 - 1),
        "config": table({}, others=anything),
        "custom": flag,
        "observation_space": anything,
        "action_space": anything,
    },
    optional={"return_range": each(number(-LARGEST, LARGEST), 2, least=2)},
    others=anything,
)
COUNT = whole(1, 100_000)  # of choices
START = whole(-(2**63), 2**63 - 1)
MOST = 2**28  # numbers in a space
LAYER = re.compile(r"layers\.(\d+)\.(weight|bias)")


def nested(form: Any, depth: int = 16) -> Any:
    """A value of this form, or lists of lists of such values."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, list) and depth:
            each(nested(form, depth - 1), MOST)(name, value)
        else:
            form(name, value)

    return check


def bound(name: str, value: Any) -> None:
    """A bound of a Box: numbers as texts."""
    try:
        np.array(value, str).astype(np.float64)
    except ValueError as error:
        raise FormError(f"{name} must be numbers as texts ({error})") from error


SHAPE = each(whole(0, MOST), 16)
INTEGERS = tuple(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64))
DTYPE = text(choices=("bool", *INTEGERS, "float16", "float32", "float64"))
SPACES = {
    "Discrete": table({"type": text(), "n": COUNT, "start": START}),
    "MultiDiscrete": table({"type": text(), "nvec": nested(COUNT), "start": nested(START)}),
    "MultiBinary": table({"type": text(), "shape": SHAPE}),
    "Box": table({"type": text(), "shape": SHAPE, "dtype": DTYPE, "low": bound, "high": bound}),
}


def space_form(name: str, value: Any, depth: int = 0) -> None:
    """The description of a space, as `space_to_json` writes it."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("Dict", "Tuple") and depth < 16:
        table({"type": text(), "spaces": each(anything, 10_000, least=1)})(name, value)
        for part in value["spaces"]:
            if kind == "Dict":
                each(anything, 2, least=2)(name, part)
                text(1000)(name, part[0])
            space_form(name, part[1] if kind == "Dict" else part, depth + 1)
    elif kind in SPACES:
        SPACES[kind](name, value)
    else:
        raise FormError(f"{name} is of an unknown kind: {kind!r:.60}")


def floats(dtype: str, most: float = LARGEST) -> Form:
    """An array of a type, or a tensor that a file announces; its numbers, where they are there, finite and at most `most`."""

    def check(name: str, value: Any) -> None:
        if str(getattr(value, "dtype", "")) != dtype:
            refuse(name, value, f"an array of {dtype}")
        if isinstance(value, np.ndarray) and not (np.abs(value) <= most).all():
            raise FormError(f"{name} must have finite numbers, at most {most:g}")

    return check


def described(file: StateFile) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The description and the arrays of the policy in a model file; None where it takes torch: for a network or a recipe of the
    user's own, and for networks that `NumpyPolicy` does not know. Raises FormError for what cannot be a policy.
    """
    meta = file.meta
    META("description", meta)
    for name in ("observation_space", "action_space"):
        space_form(f"description/{name}", meta[name])
    config, algo = meta["config"], meta["algo"]
    head = head_of(algo, meta["action_space"]["type"], config.get("head"))
    if meta["custom"] or head is None or config.get("activation") not in ACTIVATIONS:
        return None
    POLICY("state", file.tree)
    names = _names(file.tree["learner"]["policy"])
    if names is None:
        return None
    forms: dict[str, Form] = dict.fromkeys(names.values(), floats("float32"))
    if config.get("normalize_obs"):
        forms |= dict.fromkeys(MOMENTS, floats("float64", LARGEST**2))
    if algo in EXPLORING:
        forms["_extra_state"] = table({"epsilon": number(0.0, 1.0)})
    rest = anything if "collector" in file.tree else None  # of a whole agent, which others check
    form = table({"learner": table({"policy": table(forms)}, others=rest)}, others=rest)
    state = file.state(form)["learner"]["policy"]
    arrays = {short: state[name] for short, name in names.items()}
    if config.get("normalize_obs"):
        mean, var = (state[name].reshape(-1) for name in MOMENTS[:2])
        if (var < 0.0).any():
            raise FormError("state/learner/policy/normalizer.var must not be negative")
        arrays |= {"mean": mean.astype(np.float32), "inv_std": (1.0 / np.sqrt(var + 1e-8)).astype(np.float32)}
    explores = state.get("_extra_state")
    text(choices=HEADS)("description/config/head", head)
    words = _head_words(head, config)
    if explores is not None:
        words["epsilon"] = float(explores["epsilon"])
    description = {
        "format": 1,
        "observation_space": meta["observation_space"],
        "action_space": meta["action_space"],
        "mask": _mask(meta, config),
        "activation": config["activation"],
        "layers": sum(name.startswith("weight") for name in arrays),
        "head": head,
        "head_words": words,
        "clip": CLIP,
    }
    choices = width_of(meta["action_space"])
    doubled = (meta["action_space"]["type"] in ("Box", "MultiBinary")) + 1
    outputs = choices * (1 if head == "deterministic" else doubled)
    return description, _checked(arrays, width_of(meta["observation_space"]), outputs)


def width_of(space: Mapping[str, Any], top: bool = True) -> int:
    """How many features observations of a described space have: those of its parts, without an action mask at the top."""
    if space["type"] in ("Dict", "Tuple"):
        parts = space["spaces"] if space["type"] == "Dict" else [(None, part) for part in space["spaces"]]
        return sum(width_of(part, top=False) for key, part in parts if not (top and key == "action_mask"))
    if space["type"] == "Discrete":
        return space["n"]
    return int(np.sum(space["nvec"])) if space["type"] == "MultiDiscrete" else math.prod(space["shape"])


def _names(parameters: Mapping[str, Any]) -> dict[str, str] | None:
    """The names of the weights in a state, by those of `NumpyPolicy`; None for networks that it does not know."""
    names: dict[str, str] = {}
    for name in parameters:
        short = name.removeprefix("network.").removeprefix("mean.")
        if short in ("table", "log_std"):
            names[short] = name
        elif found := LAYER.fullmatch(short):
            names[f"{found[2]}{found[1]}"] = name
        elif name != "_extra_state" and name not in MOMENTS:
            return None
    count = sum(name.startswith("weight") for name in names)
    whole_mlp = all(f"{part}{i}" in names for i in range(count) for part in ("weight", "bias"))
    return names if whole_mlp and ("table" in names) != (count > 0) else None


def _head_words(head: str, config: Mapping[str, Any]) -> dict[str, float]:
    """What samples of a head depend on besides the outputs."""
    names = {"gaussian": {"correlation": "noise_autocorrelation"}, "squashed": {"correlation": "noise_autocorrelation"}}
    names["deterministic"] = names["gaussian"] | {"noise": "noise"}
    words = {}
    for word, keyword in names.get(head, {}).items():
        value = config.get(keyword, 0.0)
        number(0.0, 10.0 if word == "noise" else 1.0)(f"description/config/{keyword}", value)
        words[word] = float(value)
    return words


def _mask(meta: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Where action masks come from, as `resolve_mask_source` says it of spaces."""
    source = config.get("mask_source", "auto")
    text(choices=("auto", "none", "observation", "info"))("description/config/mask_source", source)
    if source != "auto":
        return source
    space = meta["observation_space"]
    there = space["type"] == "Dict" and any(key == "action_mask" for key, _ in space["spaces"])
    return "observation" if there and meta["action_space"]["type"] != "Box" else "none"


def _checked(arrays: dict[str, np.ndarray], width: int, outputs: int) -> dict[str, np.ndarray]:
    """The arrays, which must lead from so many features to so many outputs. A network may have more of them, such as the values
    on a body that policy and critic share: those are left out. Raises FormError.
    """
    if "mean" in arrays and not arrays["mean"].shape == arrays["inv_std"].shape == (width,):
        raise FormError(f"mean and inv_std must have {width} numbers, got {arrays['mean'].shape}")
    ends = outputs // 2 if "log_std" in arrays else outputs
    if "log_std" in arrays and arrays["log_std"].shape != (ends,):
        raise FormError(f"log_std must have {ends} numbers, got {arrays['log_std'].shape}")
    if "table" in arrays:
        shape = arrays["table"].shape
        if len(shape) != 2 or shape[0] != width or shape[1] < ends:
            raise FormError(f"the table must have the shape {(width, ends)}, got {shape}")
        return arrays | {"table": arrays["table"][:, :ends]}
    last = sum(name.startswith("weight") for name in arrays) - 1
    for i in range(last + 1):
        weight, bias = arrays[f"weight{i}"], arrays[f"bias{i}"]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise FormError(f"layer {i} must take {width} numbers, got weights of the shape {weight.shape}")
        width = len(weight)
    if width < ends:
        raise FormError(f"the last layer must have {ends} outputs, got {width}")
    return arrays | {f"{part}{last}": arrays[f"{part}{last}"][:ends] for part in ("weight", "bias")}
