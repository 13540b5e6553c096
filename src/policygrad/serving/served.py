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
from policygrad.stored.found import located
from policygrad.stored.states import open_state
from policygrad.streams import stream

if TYPE_CHECKING:
    from policygrad.algorithms.config import Algo
    from policygrad.models.policy import Body


class Ranged:
    """What a model file says about its policy."""

    meta: dict[str, Any]

    @property
    def return_range(self) -> tuple[float, float] | None:
        """The lowest and the highest return of the episodes that the policy was trained on; None in files of version 0.4."""
        found = self.meta.get("return_range")
        return None if found is None else (float(found[0]), float(found[1]))


class ServedPolicy(Ranged, NumpyPolicy):
    """A policy of a model file in NumPy. It has no environment, and threads may share it.

    meta: the plain values of the model file: `algo`, `env`, `seed`, `config`, the spaces. needs_torch: whether torch computes
    the actions. file: where it is from. The samples that `predict` draws are those of `pg.load(path).predict`.
    """

    wrong = ObservationError
    not_finite = NotFiniteError
    needs_torch = False

    def __init__(
        self, meta: Mapping[str, Any], description: Mapping[str, Any], arrays: Mapping[str, Any], seed: int, file: Path
    ) -> None:
        super().__init__(description, arrays, stream(seed, "prediction"))
        self.meta, self.file = dict(meta), file

    def __repr__(self) -> str:
        return f"<policy of {self.meta['algo']} on {self.meta['env']}, in NumPy>"

    @property
    def observation_space(self) -> Any:
        """The observation space, of Gymnasium, which is imported for it."""
        return self._space("observation_space")

    @property
    def action_space(self) -> Any:
        """The action space, of Gymnasium, which is imported for it."""
        return self._space("action_space")

    def _space(self, name: str) -> Any:
        from policygrad.serving.restoring import space_of  # only who asks needs Gymnasium

        return space_of(self.meta, name)

    def as_actor(self) -> Any:
        """The same policy in torch, from its file: an `Actor`, as `pg.evaluate` takes it."""
        from policygrad.serving.restoring import restore

        return restore(self.file)[0]


class TorchServedPolicy(Ranged):
    """A policy of a model file in torch: one with a network or a head of the user's own. Threads take turns."""

    needs_torch = True

    def __init__(self, meta: Mapping[str, Any], policy: Any, spaces: tuple[Any, Any], seed: int) -> None:
        self.meta, self.policy = dict(meta), policy
        self.observation_space, self.action_space = spaces
        self.rng = np.random.default_rng(stream(seed, "prediction"))
        self._turn = threading.Lock()  # a network's passes share memory

    def __repr__(self) -> str:
        return f"<policy of {self.meta['algo']} on {self.meta['env']}, in torch>"

    def as_actor(self) -> Any:
        """The policy itself: an `Actor`, as `pg.evaluate` takes it."""
        return self.policy

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
                return ServedPolicy(meta, *parts, meta["seed"] if seed is None else seed, found)
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise FormError(f"its description contradicts itself ({reason(error)})") from error
    from policygrad.serving.restoring import restore

    policy, spaces, meta = restore(found, body, recipe)
    return TorchServedPolicy(meta, policy, spaces, meta["seed"] if seed is None else seed)
