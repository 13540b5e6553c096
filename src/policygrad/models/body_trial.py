"""Bodies of the user's own, tried on an example before they are used: what a body must be, and what it is of no use to have.

A body is called with batches of any size, once to act and again to learn. A gradient needs ∂features/∂θ, and the ratio of two
policies needs log π(a|s) of the same network both times. So features must have a graph, belong to their own row alone, and be
the same for the same observation.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.errors import AdviceWarning, PolicygradError, UserError, brief

A_BODY = "A body is a torch.nn.Module: observations (B, …) → features (B, F), both float32"
PACKAGE = str(Path(__file__).parents[1])
SAME = 1e-3  # of the largest feature: below, two results differ by rounding
REPEATS = 8  # of the same batch: two dropout masks on four numbers are equal once in 16 times, nine once in 4 billion
DROPOUTS = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout | nn.FeatureAlphaDropout


class BodyError(UserError, ValueError):
    """A body is no module, cannot take the observations, or gives what no policy or critic can use."""


def module_of(body: nn.Module | Callable[[spaces.Space], nn.Module], space: spaces.Space) -> nn.Module:
    """The module that is given, or that a function of the observation space makes. Raises BodyError for other things."""
    if isinstance(body, nn.Module):
        return body
    if not callable(body):
        raise BodyError(f"body must be a module, or a function of the observation space, got {brief(body)}. {A_BODY}")
    name = getattr(body, "__name__", type(body).__name__)
    try:
        module = body(space)
    except PolicygradError:
        raise
    except Exception as error:
        if not isinstance(body, type):
            error.add_note(f"{name} was given as body, and is called with the observation space. {A_BODY}")
            raise
        raise BodyError(
            f"body is the class {name}, which is called with the observation space, and {name}(space) raised "
            f"{type(error).__name__}: {error}. Give an instance, body={name}(…), or body=lambda space: {name}(…)"
        ) from error
    if not isinstance(module, nn.Module):
        raise BodyError(
            f"{name}, given as body, is called with the observation space and made {brief(module)}. {A_BODY}"
        )
    return module


def try_body(body: nn.Module, own: nn.Module, example: Tensor) -> int:
    """The number F of features that a body makes of an example (B, *), and the body in eval mode.

    own: the user's module, which `body` may stand around. Raises BodyError for what no policy can use; warns of layers
    without effect in eval mode, and of features that are probabilities, with AdviceWarning.
    """
    name = type(own).__name__
    if "_modules" not in vars(own):
        raise BodyError(f"the body {name} did not call super().__init__(), which makes it a torch.nn.Module")
    body.eval()  # as it will be used: batch statistics of the example must not stay behind
    features = _features(body, own, example)
    moving = [p for p in own.parameters() if p.requires_grad]
    wrong = sorted({str(p.dtype) for p in moving if p.dtype != example.dtype})
    if wrong:
        raise BodyError(f"the body {name} has parameters of {', '.join(wrong)}: call body.float()")
    if moving and not features.requires_grad and not torch.is_inference_mode_enabled():
        raise BodyError(
            f"the body {name} has parameters, but no gradient of its features reaches them, so that it would never learn: "
            "leave out .detach(), .numpy() and torch.no_grad() inside, or freeze it with body.requires_grad_(False)"
        )
    with torch.random.fork_rng(devices=()):
        probe = _check_repeatable(body, own, example)
    for text in (*_idle(own), *(_probabilities(name, probe) if moving else ())):
        warnings.warn(text, AdviceWarning, stacklevel=_outside())
    return features.shape[1]


def _features(body: nn.Module, own: nn.Module, obs: Tensor) -> Tensor:
    """What the body makes of a batch of observations, with its graph, if it is (B, F) of their type."""
    try:
        with torch.enable_grad():
            out = body(obs)
    except PolicygradError:
        raise
    except Exception as error:
        given = _shapes(_seen(body, own, obs))
        raise BodyError(
            f"the body {type(own).__name__} raised {type(error).__name__} for observations {given}: "
            f"{str(error).strip() or 'it says no more'}. {_hint_for_error(own, error, obs)}"
        ) from error
    said = f"the body {type(own).__name__} made {_shapes(out)} of observations {_shapes(_seen(body, own, obs))}"
    if not isinstance(out, Tensor):
        raise BodyError(f"{said}. {_hint_for_type(own, out)}")
    if out.ndim != 2 or len(out) != len(obs):
        raise BodyError(f"{said}, where ({len(obs)}, F) is expected: {_hint_for_shape(out, len(obs))}")
    if out.dtype != obs.dtype:
        raise BodyError(f"{said}, where {obs.dtype} is expected: end it with .float()")
    return out


def _seen(body: Any, own: nn.Module, obs: Tensor) -> Any:
    """The observations as the user's module gets them."""
    return obs if body is own else body.tree(obs)


def _shapes(x: Any) -> str:
    """Shapes and types, in one line."""
    if isinstance(x, Tensor):
        return f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shapes(part)}" for key, part in x.items()) + "}"
    if isinstance(x, tuple | list):
        return f"a {type(x).__name__} of {len(x)}: " + ", ".join(map(_shapes, x))
    return brief(x)


def _recurrent(own: nn.Module) -> str | None:
    """The word for the memory of a body that has one of its own."""
    kinds = {nn.LSTM: "lstm", nn.LSTMCell: "lstm", nn.GRU: "gru", nn.GRUCell: "gru", nn.RNN: "gru", nn.RNNCell: "gru"}
    return next((kinds[type(part)] for part in own.modules() if type(part) in kinds), None)


def _hint_for_error(own: nn.Module, error: Exception, obs: Tensor) -> str:
    dtypes = {str(p.dtype).removeprefix("torch.") for p in own.parameters() if p.dtype != obs.dtype}
    if hasattr(own, "get_action_and_value"):
        return f"It looks like an agent of CleanRL: give the layers below its actor as the body. {A_BODY}"
    if isinstance(error, NotImplementedError) and type(own).forward is nn.Module.forward:
        return f"Give it a method forward(self, obs). {A_BODY}"
    if dtypes:
        return f"Its parameters are {', '.join(sorted(dtypes))}, and observations are float32: call body.float()"
    if any(p.device != obs.device for p in own.parameters()):
        return "Bodies are tried on the CPU: give one that is there; device= moves it afterwards"
    memory = _recurrent(own)
    return f"{A_BODY}{'' if memory is None else f'. For a memory give memory={memory!r} instead'}"


def _hint_for_type(own: nn.Module, out: Any) -> str:
    memory = _recurrent(own)
    if memory is not None:
        return f'{A_BODY}. A memory over the steps of an episode is memory="{memory}", beside any body or none'
    if isinstance(out, torch.distributions.Distribution):
        return (
            f"{A_BODY}. The distribution follows from the action space, after a linear layer from features to actions"
        )
    return A_BODY


def _hint_for_shape(out: Tensor, rows: int) -> str:
    if out.ndim > 2 and len(out) == rows:
        return "end it with nn.Flatten()"
    if out.ndim > 2 and rows in out.shape:
        return "the batch must stay the first axis; leave out what moved it, such as unsqueeze(0)"
    if out.ndim == 1 and len(out) == rows:
        return "one feature a row is (B, 1); leave out squeeze(), or end it with unsqueeze(-1)"
    return "every observation keeps a row of its own; do not squeeze, sum or average over the batch"


def _check_repeatable(body: nn.Module, own: nn.Module, example: Tensor) -> Tensor:
    """Raise BodyError unless features depend on their own row alone. Returns those of another example, (B, F)."""
    probe = example.clone()
    probe[-1] = 0.5  # a number that is small enough for pixels, and below 1, for indices
    try:
        first = _features(body, own, probe)
    except BodyError:  # which may be no observation of this space
        probe = example
        first = _features(body, own, probe)
    again = [_features(body, own, probe) for _ in range(REPEATS)]
    alone = _features(body, own, probe[-1:])
    what = [("the same observations had other features the second time", first, other) for other in again]
    what.append(("an observation had other features in a batch of its own", first[-1:], alone))
    for text, one, other in what:
        if not _same(one, other):
            raise BodyError(
                f"the body {type(own).__name__} cannot be used, because {text}: log-probabilities of recorded actions would be "
                "those of another policy. Leave out dropout that is always on, noise, statistics of the batch, and what is "
                "remembered between calls"
            )
    return first.detach()


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach().nan_to_num(), other.detach().nan_to_num()
    return one.shape == other.shape and bool(((one - other).abs() <= SAME * one.abs().max()).all())


def _idle(own: nn.Module) -> list[str]:
    """Sentences about layers that do nothing in eval mode."""
    found = []
    why = "networks are used in eval mode, so that the policy that learns is the policy that acted"
    dropout = next((part for part in own.modules() if isinstance(part, DROPOUTS) and part.p > 0), None)
    if dropout is not None:
        found.append(f"{type(dropout).__name__} drops nothing in the body {type(own).__name__}: {why}")
    norms = (part for part in own.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    norm = next((part for part in norms if part.track_running_stats and not part.num_batches_tracked), None)
    if norm is not None:
        found.append(
            f"{type(norm).__name__} in the body {type(own).__name__} keeps its mean 0 and variance 1 and normalises nothing: "
            f"{why}. nn.LayerNorm has no statistics of a batch; normalize_obs standardises observations"
        )
    return found


def _probabilities(name: str, features: Tensor) -> list[str]:
    """A sentence about features that are probabilities or their logarithms."""
    for what, x in (("Softmax", features), ("LogSoftmax", features.exp())):
        sums = x.sum(-1)
        if x.shape[1] > 1 and bool((x >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            return [
                f"the features of the body {name} are those of a {what}, which is for probabilities of actions and slows "
                "learning down here: leave it out; the layer to the actions and their distribution come after the body"
            ]
    return []


def _outside() -> int:
    """The stacklevel of the first frame outside the package, for a warning of the function that calls this one."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
