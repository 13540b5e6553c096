"""A trained policy in NumPy alone. This file needs nothing else of policygrad: `policygrad export RUN --format numpy` writes a
copy of it beside the weights.

    from numpy_policy import NumpyPolicy
    policy = NumpyPolicy.load("policy.npz")
    action, _ = policy.predict(obs, deterministic=True)

The path from an observation to an action is the one of training:

    features   the parts of the observation, one after another, as float32; choices are one-hot
    x          (features − mean) · inv_std, clipped to ±clip, where the policy has a normaliser
    out        an MLP of x, or a table of numbers by state
    action     from out and the action mask by the head: the most likely one, or a sample; then scaled and clipped

Nothing is changed by a call but the state of the generator that samples are drawn from: threads may share a policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

LARGEST = 1e18  # observations below are safe to square and to sum as float32
MASK_PENALTY = 1e8  # taken from the logit of an illegal action
LOG_STD_MIN, LOG_STD_MAX = -20.0, 10.0  # beyond, float32 overflows
BETA_MARGIN = 2.0**-24  # how near to 0 and 1 a Beta's x may be
EDGE = 1e-6  # how near to ±1 a uniform action may be, for its inverse tanh
MASK = "action_mask"


class NumpyPolicy:
    """Actions for observations.

    description: plain values, the spaces (`observation_space`, `action_space`), where action masks come from (`mask`), the
    network (`activation`, `layers`) and the head (`head`, `head_words`). arrays: the weights `weight0` (outputs, inputs),
    `bias0`, …; or the `table` (states, outputs); `log_std`, `mean` and `inv_std` where there are any. seed: of what samples
    are drawn from, as for `numpy.random.default_rng`.
    """

    wrong: type[Exception] = ValueError  # what is raised for an observation that is none
    not_finite: type[Exception] = ValueError  # what is raised for NaN and ±∞ in one

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], seed: Any = 0) -> None:
        self.description, self.arrays = dict(description), dict(arrays)
        self.rng = np.random.default_rng(seed)
        space, action = description["observation_space"], description["action_space"]
        self._action, self._mask = action, description["mask"]
        self._pairs = space["type"] == "Tuple" and space["spaces"][-1]["type"] == "Dict"  # which observations are, too
        parts = [Part(path, part) for path, part in leaves(space)]
        masks = [part for part in parts if space["type"] == "Dict" and part.path[0] == MASK]
        self._leaves = [part for part in parts if part not in masks]
        self._mask_shape = masks[0].shape if masks else ()
        self._layers = [(arrays[f"weight{i}"].T, arrays[f"bias{i}"]) for i in range(description["layers"])]
        self._activation = description["activation"]
        self._head, self._words = description["head"], description["head_words"]
        self._clip = float(description["clip"])
        box = action["type"] == "Box"
        self._shape = tuple(action.get("shape", ()) if action["type"] != "MultiDiscrete" else np.shape(action["nvec"]))
        self._dtype = np.dtype(action["dtype"] if box else "int8" if action["type"] == "MultiBinary" else "int64")
        self._sizes = np.reshape(_sizes(action), -1).tolist() if not box else []
        self._dims = math.prod(self._shape) if box else sum(self._sizes)
        self._ends = np.cumsum(self._sizes)
        self._start = np.array(action.get("start", 0), np.int64)
        if box:
            self._low, self._high = (_bound(action[name], self._shape, self._dtype) for name in ("low", "high"))
            self._least = self._low.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # of bounds at infinity, for a head that does not scale
                self._width = self._high.astype(np.float64) - self._least

    @classmethod
    def load(cls, path: Any, seed: Any = 0) -> NumpyPolicy:
        """The policy of a .npz file that `policygrad export --format numpy` wrote: arrays, and a text of plain values."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(json.loads(str(arrays.pop("description"))), arrays, seed)

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, None]:
        """Actions for one observation, or for a batch of them, ready for `env.step`; the second value is None.

        state, episode_start: not looked at, as the policy has no memory. deterministic: the most likely action; otherwise a
        sample. action_masks: the legal actions, for a policy that learned with mask_source = info. Raises an error for what is
        no observation of the space, and for NaN and ±∞.
        """
        if isinstance(state, bool | np.bool_):  # `predict(obs, True, masks)`
            deterministic, action_masks = bool(state), episode_start if action_masks is None else action_masks
        if not isinstance(deterministic, bool | np.bool_):
            self._refuse(f"expected deterministic = True or False, got {deterministic!r:.60}")
        features, mask, single = self.encode(obs, action_masks)
        noise = None if deterministic else self.noise(len(features))
        act = self.act(features, mask, noise)
        if not single:
            return act, None
        return (act[0] if self._shape or self._sizes else np.asarray(act[0])), None

    # ---- observations

    def encode(self, obs: Any, action_masks: Any = None) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """The features (n, D) of observations, their action masks (n, A), 1 or 0, and whether it was a single one."""
        if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], dict) and not self._pairs:
            self._refuse("expected an observation, got the pair (observation, info) that env.reset() returns")
        given = [(leaf, self._part(obs, leaf.path)) for leaf in self._leaves]
        shapes = [(x.shape, leaf.shape) for leaf, x in given]
        mask = None
        if self._mask == "observation":
            mask = self._part(obs, (MASK,))
            shapes.append((mask.shape, self._mask_shape))
        counts = {self._count(*pair) for pair in shapes}
        if len(counts) > 1:
            self._refuse("expected one observation, or n of every part of it")
        count = counts.pop()
        single, n = count is None, 1 if count is None else count
        parts = [self._encoded(leaf, x.reshape(n, math.prod(leaf.shape))) for leaf, x in given]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if self._mask == "info":
            mask = self._given_masks(action_masks, n, single)
        elif action_masks is not None:
            self._refuse(f"action_masks are for policies with mask_source = info, this one has {self._mask}")
        return features, None if mask is None else self._legal(mask.reshape(n, self._dims)), single

    def _part(self, obs: Any, path: tuple[Any, ...]) -> np.ndarray:
        part = obs
        try:
            for key in path:
                part = part[key]
            return np.asarray(part.detach().cpu() if hasattr(part, "detach") else part)  # of tensors, the numbers
        except (KeyError, IndexError, TypeError, ValueError):
            where = "".join(f"[{key!r}]" for key in path)
            self._refuse(f"expected an observation{where}, got {brief(obs)}")

    def _count(self, shape: tuple[int, ...], expected: tuple[int, ...]) -> int | None:
        """How many observations there are; None for one alone."""
        if shape == expected:
            return None
        if shape[1:] != expected or not shape:
            many = str(("n", *expected)).replace("'", "")
            self._refuse(f"expected observations of shape {expected} or {many}, got {shape}")
        return shape[0]

    def _encoded(self, leaf: Part, x: np.ndarray) -> np.ndarray:
        """The features (n, width) of a part, (n, *)."""
        if x.dtype.kind not in "biuf":
            self._refuse(f"expected numbers in an observation{leaf.where}, got the type {x.dtype}")
        if leaf.values is not None:
            one_hot = x[:, leaf.entry] == leaf.values
            wrong = one_hot.sum(-1) != x.shape[1]
            if wrong.any():
                self._refuse(f"expected an observation{leaf.where} of {leaf.named}, got {x[wrong][0].tolist()!s:.200}")
            return one_hot.astype(np.float32)
        if leaf.dtype.kind != "f":
            with np.errstate(all="ignore"):
                exact = x.astype(leaf.dtype, copy=False)
            if not np.array_equal(exact, x):
                lost = x[exact != x][0]
                self._refuse(
                    f"observations{leaf.where} must be {leaf.dtype}, got {x.dtype} with other values, such as {lost}"
                )
            if leaf.binary and ((x < 0) | (x > 1)).any():
                self._refuse(f"expected an observation{leaf.where} of 0 and 1, got {x.min()} to {x.max()}")
            return exact.astype(np.float32)
        if x.dtype != np.float32:
            with np.errstate(over="ignore"):  # what becomes ∞ is refused below
                x = x.astype(np.float32)
        if x.size and not (x.max() < LARGEST and x.min() > -LARGEST):
            worst = x[~(np.abs(x) < LARGEST)][0]
            text = f"expected an observation{leaf.where} of finite numbers below {LARGEST:g}, got {worst}"
            raise self.not_finite(text)
        return x

    def _given_masks(self, masks: Any, n: int, single: bool) -> np.ndarray:
        if masks is None:
            self._refuse("this policy gets its action masks from info: pass action_masks=info['action_mask']")
        masks = [masks] if single else list(masks)
        if len(masks) != n:
            self._refuse(f"expected action_masks of {n} observations, got {len(masks)}")
        rows = []
        for mask in masks:
            parts = mask if isinstance(mask, list | tuple) else [mask]
            rows.append(np.concatenate([np.asarray(part).reshape(-1) for part in parts]))
            if len(rows[-1]) != self._dims:
                self._refuse(f"expected {self._dims} entries in an action mask, one per action, got {len(rows[-1])}")
        return np.array(rows)

    def _legal(self, mask: np.ndarray) -> np.ndarray:
        if mask.dtype.kind not in "biuf":
            self._refuse(f"expected 0 or 1 in an action mask, got {mask.reshape(-1).tolist()[0]!r:.60}")
        wrong = mask != mask.astype(bool)  # NaN, too
        if wrong.any():
            self._refuse(f"expected 0 or 1 in an action mask, got {mask[wrong].tolist()[0]!r:.60}")
        legal = mask.astype(np.float32)
        if not np.maximum.reduceat(legal, self._ends - self._sizes, axis=-1).all():
            self._refuse("there is no legal action to predict")
        return legal

    def _refuse(self, text: str) -> NoReturn:
        raise self.wrong(text)

    # ---- the network

    @np.errstate(over="ignore", invalid="ignore")  # exp(−z) of SiLU may overflow to ∞, rightly
    def outputs(self, features: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """What the head acts on, (n, outputs), from features (n, D): logits, or means and log stds, or action values."""
        x, arrays = features, self.arrays
        if "mean" in arrays:
            x = ((x - arrays["mean"]) * arrays["inv_std"]).clip(-self._clip, self._clip)
        if "table" in arrays:
            out = np.dot(x, arrays["table"])
        else:
            x = np.ascontiguousarray(x)
            *hidden, (weight, bias) = self._layers
            for inner, shift in hidden:
                x = self._activate(x.dot(inner) + shift)
            out = x.dot(weight) + bias
        if "log_std" in arrays:
            out = np.concatenate([out, np.broadcast_to(arrays["log_std"], out.shape)], axis=-1)
        return out if mask is None else out + (mask - np.float32(1.0)) * np.float32(MASK_PENALTY)

    def _activate(self, z: np.ndarray) -> np.ndarray:
        if self._activation == "tanh":
            return np.tanh(z, out=z)
        if self._activation == "relu":
            return np.maximum(z, 0.0, out=z)
        return z / (1.0 + np.exp(-z))  # SiLU

    # ---- the head

    def noise(self, n: int) -> np.ndarray:
        """What n samples are drawn with, (n, K): Gumbel noise of choices, a normal or uniform draw a dimension of a Box, and
        of a policy that explores a coin and a uniform number for every action or dimension besides.
        """
        correlated = float(self._words.get("correlation", 0.0))
        before = self._draw(n) if correlated else None
        now = self._draw(n)
        if before is None:
            return now
        d, explores = self._dims, "epsilon" in self._words
        # the noise of a first step: that of an episode is autoregressive, and each call begins one
        normal = (
            before[:, :d]
            if explores
            else correlated * before[:, d:] + math.sqrt(1.0 - correlated**2) * now[:, :d].astype(np.float32)
        )
        return np.concatenate([normal, now[:, d:]], axis=-1) if explores else normal

    def _draw(self, n: int) -> np.ndarray:
        """Random numbers in the order in which training draws them."""
        rng, words = self.rng, self._words
        if self._head in ("categorical", "multicategorical"):
            exponential = rng.standard_exponential((n, self._dims), dtype=np.float32)
            return -np.log(np.maximum(exponential, np.finfo(np.float32).tiny))
        if self._head == "beta":
            return rng.random((n, self._dims))
        double = bool(words.get("correlation")) and "epsilon" not in words
        normals = 0 if self._head == "values" else self._dims * (1 + double)
        own = rng.standard_normal((n, normals), dtype=np.float32) if normals else np.empty((n, 0), np.float32)
        if "epsilon" not in words:
            return own
        return np.concatenate([own, rng.random((n, 1 + self._dims), dtype=np.float32)], axis=-1)

    def act(self, features: np.ndarray, mask: np.ndarray | None, noise: np.ndarray | None) -> np.ndarray:
        """Actions (n, *) in the environment's format; noise None: the most likely ones."""
        out, head, words = self.outputs(features, mask), self._head, self._words
        if head in ("categorical", "multicategorical", "values"):
            return self._choices(out, mask, noise)
        d = self._dims
        mean, epsilon = out[:, :d], words.get("epsilon", 0.0)
        if head == "beta":
            x = self._beta(out, noise)
        elif head == "deterministic":
            x = np.tanh(mean)
            if noise is not None:
                x = (x + np.float32(words["noise"]) * noise[:, :d]).clip(-1.0, 1.0)
        else:
            x = mean if noise is None else mean + np.exp(out[:, d:].clip(LOG_STD_MIN, LOG_STD_MAX)) * noise[:, :d]
        if noise is not None and epsilon:
            explores = noise[:, d] < epsilon
            uniform = 2.0 * noise[:, d + 1 :] - 1.0
            if head == "squashed":
                uniform = np.arctanh(uniform.clip(EDGE - 1.0, 1.0 - EDGE)).astype(np.float32)
            x = np.where(explores[:, None], uniform, x)
        return self._scaled(x.reshape(-1, *self._shape))

    def _choices(self, out: np.ndarray, mask: np.ndarray | None, noise: np.ndarray | None) -> np.ndarray:
        n, scores = len(out), out
        if noise is not None and self._head != "values":
            scores = out + noise
        entries = zip(self._sizes, self._ends, strict=True)
        act = np.stack([scores[:, end - size : end].argmax(-1) for size, end in entries], axis=-1)
        if noise is not None and self._head == "values":
            numbers = noise[:, 1:] if mask is None else noise[:, 1:] + (mask - 1.0) * MASK_PENALTY
            act = np.where(noise[:, :1] < self._words["epsilon"], numbers.argmax(-1)[:, None], act)
        return (act.reshape(n, *self._shape) + self._start).astype(self._dtype)

    def _beta(self, out: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Of Beta(α, β) on [0, 1] with α, β = 1 + softplus(out): the mode, or the quantile of the noise."""
        concentration = 1.0 + np.logaddexp(out.astype(np.float64), 0.0)
        alpha, beta = concentration[:, : self._dims], concentration[:, self._dims :]
        if noise is None:
            rest = alpha + beta - 2.0
            x = np.where(rest > 1e-6, (alpha - 1.0) / np.maximum(rest, 1e-6), 0.5)
        else:
            from scipy.special import betaincinv  # only samples of this head need SciPy

            x = betaincinv(alpha, beta, noise)
        return x.clip(BETA_MARGIN, 1.0 - BETA_MARGIN).astype(np.float32)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        if self._head == "squashed":
            x = self._least + self._width * (0.5 * (np.tanh(x) + 1.0))
        elif self._head == "deterministic":
            x = self._least + self._width * (0.5 * (x + 1.0))
        elif self._head == "beta":
            x = self._least + self._width * x
        return np.clip(x, self._low, self._high).astype(self._dtype, copy=False)


class Part:
    """A part of the observation without parts of its own: where it is, its shape and type, and how it becomes features."""

    def __init__(self, path: tuple[Any, ...], space: Mapping[str, Any]) -> None:
        self.path, self.named = path, space["type"]
        self.where = "".join(f"[{key!r}]" for key in path)
        self.binary = space["type"] == "MultiBinary"
        self.shape = tuple(space.get("shape", ()))
        self.dtype = np.dtype("int8" if self.binary else space.get("dtype", "int64"))
        self.values: np.ndarray | None = None  # of a one-hot encoding, what every column stands for
        self.entry: np.ndarray | None = None  # and the entry that it looks at
        if space["type"] in ("Discrete", "MultiDiscrete"):
            sizes = np.array(_sizes(space))
            starts, self.shape = np.array(space["start"]).reshape(-1), sizes.shape
            counts = sizes.reshape(-1)
            self.values = np.concatenate([first + np.arange(k) for k, first in zip(counts, starts, strict=True)])
            self.entry = np.repeat(np.arange(len(counts)), counts)
            self.named = f"{space['type']}({space.get('n', space.get('nvec'))}, start={space['start']})"


def brief(obs: Any) -> str:
    """An observation in a few words."""
    if isinstance(obs, Mapping):
        return f"a dict with {', '.join(map(repr, obs)) or 'nothing in it'}"
    if isinstance(obs, np.ndarray) and obs.ndim:
        return f"an array of {obs.dtype} of shape {obs.shape}"
    words = " ".join(repr(obs).split())
    return words if len(words) <= 100 else f"{words[:100]}…"


def leaves(space: Mapping[str, Any], path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """The smallest parts of a space as files describe it, with their paths."""
    if space["type"] == "Dict":
        return [leaf for key, part in space["spaces"] for leaf in leaves(part, (*path, key))]
    if space["type"] == "Tuple":
        return [leaf for i, part in enumerate(space["spaces"]) for leaf in leaves(part, (*path, i))]
    return [(path, space)]


def _sizes(space: Mapping[str, Any]) -> Any:
    """How many choices every entry of a discrete space has."""
    if space["type"] == "Discrete":
        return space["n"]
    return space["nvec"] if space["type"] == "MultiDiscrete" else np.full(space["shape"], 2)


def _bound(words: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A bound of a Box, which a description has as a text, or as lists of texts: JSON has no infinity."""
    return np.broadcast_to(np.array(words, str).astype(np.float64), shape).astype(dtype)
