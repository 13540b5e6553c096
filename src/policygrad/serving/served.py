"""`load_policy`: a trained policy that acts, without environments, and without torch where NumPy is enough."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policygrad.errors import NotFiniteError, ObservationError
from policygrad.files import reason
from policygrad.forms import FormError
from policygrad.serving.described import described
from policygrad.serving.standalone import NumpyPolicy
from policygrad.stored.found import model_file
from policygrad.stored.states import open_state, with_suffix
from policygrad.streams import stream

if TYPE_CHECKING:
    from policygrad.algorithms.config import Algo
    from policygrad.models.policy import Body

PRETRAINED = "pretrained:"


class ServedPolicy(NumpyPolicy):
    """A policy of a model file in NumPy. It has no environment, and threads may share it.

    meta: the plain values of the model file: `algo`, `env`, `seed`, `config`, the spaces. needs_torch: whether torch computes
    the actions. The samples that `predict` draws are those of `pg.load(path).predict`.
    """

    wrong = ObservationError
    not_finite = NotFiniteError
    needs_torch = False

    def __init__(self, meta: Mapping[str, Any], description: Mapping[str, Any], arrays: Mapping[str, Any], seed: int):
        super().__init__(description, arrays, stream(seed, "prediction"))
        self.meta = dict(meta)

    def __repr__(self) -> str:
        return f"<policy of {self.meta['algo']} on {self.meta['env']}, in NumPy>"


class TorchServedPolicy:
    """A policy of a model file in torch: one with a network or a head of the user's own. Threads take turns."""

    needs_torch = True

    def __init__(self, meta: Mapping[str, Any], policy: Any, spaces: tuple[Any, Any], seed: int) -> None:
        self.meta, self.policy = dict(meta), policy
        self.observation_space, self.action_space = spaces
        self.rng = np.random.default_rng(stream(seed, "prediction"))
        self._turn = threading.Lock()  # a network's passes share memory

    def __repr__(self) -> str:
        return f"<policy of {self.meta['algo']} on {self.meta['env']}, in torch>"

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:
        """As `Agent.predict`: the second value is the state for the next call, of a policy with a memory."""
        from policygrad.training.predicting import predict

        given = self.observation_space, self.action_space, obs, self.rng, deterministic, action_masks
        with self._turn:
            return predict(self.policy, *given, state, episode_start)


def load_policy(
    path: str | Path,
    *,
    seed: int | None = None,
    body: Body | None = None,
    recipe: Algo | None = None,
    runs_root: str | Path = "runs",
) -> ServedPolicy | TorchServedPolicy:
    """A trained policy that acts, without its environment: `policy.predict(obs, deterministic=True)` gives `(action, None)`.

    path: a model file, a run directory, the beginning of a run's name or "latest" (under runs_root), or "pretrained:NAME", one
    of those that come with the package (`policygrad list policies`). seed: of the samples of `predict`; None: the file's.
    body, recipe: needed where the policy was trained with a network or a recipe of your own; torch is then imported, and
    otherwise it is not. Nothing in the file is executed, and its environment is neither imported nor made.
    Raises ModelFileError for what is no model, RunError for what is no run, ValueError where body or recipe is missing.
    """
    found = located(path, runs_root)
    with open_state(found) as file:
        meta = file.meta
        parts = described(file) if body is None and recipe is None else None
        if parts is not None:
            try:
                return ServedPolicy(meta, *parts, meta["seed"] if seed is None else seed)
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise FormError(f"its description contradicts itself ({reason(error)})") from error
    from policygrad.serving.restoring import restore

    policy, spaces, meta = restore(found, body, recipe)
    return TorchServedPolicy(meta, policy, spaces, meta["seed"] if seed is None else seed)


def located(path: str | Path, runs_root: str | Path = "runs") -> Path:
    """The model file that a path, a run's name, "latest" or "pretrained:NAME" means."""
    words = str(path)
    if words.startswith(PRETRAINED):
        from policygrad.serving.pretrained import pretrained_file

        return pretrained_file(words.removeprefix(PRETRAINED))
    expanded = Path(words).expanduser()
    if expanded.exists() or expanded.suffix in (".safetensors", ".zip") or with_suffix(expanded).exists():
        return model_file(expanded)
    from policygrad.stored.directory import find_run

    return model_file(find_run(words, runs_root))
