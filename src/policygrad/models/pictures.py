"""Pictures: which parts of an observation are some, and the convolutions that they go through.

A picture is a Box of bytes from 0 to 255 with sides of 16 or more and at most 32 channels:

    (height, width)   (height, width, channels)   (channels, height, width)   and a stack of such frames, (frames, …)

The channels are the smallest axis, as in Stable-Baselines3's `is_image_space`; the frames of a stack become channels.
MiniGrid's symbolic 7 × 7 × 3 is no picture: its numbers are names. Bytes are divided by 255 here, in the network, unless the
policy standardises every pixel: in records and in the replay buffer they stay bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.errors import UserError
from policygrad.models.networks import ACTIVATIONS, init_linear
from policygrad.models.observations import Encoding, Leaf
from policygrad.tree import flat

NETWORKS = ("auto", "cnn", "mlp")
LEAST_SIDE, MOST_CHANNELS = 16, 32  # of what is taken for a picture without being asked
RAW = 256  # bytes in a part from which an MLP is refused, unless it is asked for: a picture of 16 × 16
PASS = 256  # rows of a pass without a graph: more do not stay in the cache
FEATURES, FEATURES_OF_PART = 512, 256  # of a picture alone, and of one among several parts

# channels, kernel and stride of each convolution, for the largest pictures first
LAYERS = {
    "the convolutions of Mnih et al. (2015)": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),  # from 36 × 36
    "three small convolutions": ((32, 4, 2), (64, 3, 2), (64, 3, 1)),  # from 16 × 16
    "three convolutions of 2 × 2": ((16, 2, 1), (32, 2, 1), (64, 2, 1)),  # from 4 × 4, where they are asked for
}


class PictureError(UserError, TypeError):
    """A network does not suit the observations: an MLP for raw pixels, or convolutions for what has no height and width."""


@dataclass(frozen=True)
class Layout:
    """How the numbers of a picture lie: so many frames, each height × width with its channels first or last."""

    frames: int
    channels: int
    height: int
    width: int
    first: bool  # whether channels are the first axis of a frame

    @property
    def planes(self) -> int:
        """Input channels of the first convolution."""
        return self.frames * self.channels

    def images(self, x: Tensor) -> Tensor:
        """(B, *shape) → (B, frames · channels, height, width), a view where the numbers lie so."""
        # x.shape[0] everywhere: len(x) would be a constant in exported graphs
        if self.first:
            return x.reshape(x.shape[0], self.planes, self.height, self.width)
        frames = x.reshape(x.shape[0], self.frames, self.height, self.width, self.channels)
        return frames.permute(0, 1, 4, 2, 3).reshape(x.shape[0], self.planes, self.height, self.width)

    def __str__(self) -> str:
        stack = f"{self.frames} frames of " if self.frames > 1 else ""
        where = f", channels {'first' if self.first else 'last'}" if self.channels > 1 or self.first else ""
        return f"{stack}{self.height} × {self.width} pixels, {self.channels} channel{'s' * (self.channels > 1)}{where}"


def layout_of(shape: Sequence[int]) -> Layout | None:
    """The layout of a picture of this shape; None for shapes of other than 2 to 4 axes, or with the channels in the middle."""
    if len(shape) == 2:
        return Layout(1, 1, shape[0], shape[1], first=True)
    if len(shape) not in (3, 4):
        return None
    frames, frame = (shape[0], tuple(shape[1:])) if len(shape) == 4 else (1, tuple(shape))
    axis = frame.index(min(frame))
    if axis == 1 and frame[1] < frame[2]:
        return None
    first = axis == 0
    channels, height, width = frame if first else (frame[2], frame[0], frame[1])
    return Layout(frames, channels, height, width, first)


def picture(space: spaces.Space) -> Layout | None:
    """The layout of a space that is taken for a picture; None for all others."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or not math.prod(space.shape):
        return None
    found = layout_of(space.shape)
    if found is None or min(found.height, found.width) < LEAST_SIDE or found.planes > MOST_CHANNELS:
        return None
    return found if (space.low == 0).all() and (space.high == 255).all() else None


def layers_for(layout: Layout) -> tuple[str, tuple[tuple[int, int, int], ...]] | None:
    """The name and the convolutions for pictures of this size; None for sides below 4."""
    for name, layers in LAYERS.items():
        if min(_side(layout.height, layers), _side(layout.width, layers)) >= 1:
            return name, layers
    return None


def _side(side: int, layers: Sequence[tuple[int, int, int]]) -> int:
    """What convolutions without padding leave of a side; below 1 where it is too short."""
    for _, kernel, stride in layers:
        side = (side - kernel) // stride + 1 if side >= kernel else 0
    return side


def chosen(leaf: Leaf, network: str) -> Layout | None:
    """The layout of a part that goes through convolutions, with this choice of `NETWORKS`; None for all other parts."""
    if network == "mlp":
        return None
    if network == "auto":
        return picture(leaf.space)
    found = layout_of(leaf.shape) if isinstance(leaf.space, spaces.Box) else None
    return found if found is not None and layers_for(found) is not None else None


class Convolutions(nn.Module):
    """A picture (B, *shape) through convolutions and a linear layer, ReLU after each: (B, features).

    Mnih et al. 2015 (Nature 518, "Model architecture"): 32 8 × 8 stride 4, 64 4 × 4 stride 2, 64 3 × 3 stride 1, 512 features;
    smaller ones where these do not fit. Orthogonal weights with gain √2, zero biases. The numbers are divided by `largest`,
    in the weights of the first layer: conv(x / 255, W) = conv(x, W / 255); by nothing where they are `standardized` before.
    """

    standardized = False

    def __init__(
        self, layout: Layout, largest: float = 255.0, features: int = FEATURES, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        fits = layers_for(layout)
        if fits is None:
            raise PictureError(f"convolutions need sides of at least 4, got {layout.height} × {layout.width}")
        self.layout, self.largest, (self.name, layers) = layout, largest, fits
        inputs = [layout.planes, *(channels for channels, _, _ in layers)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, channels, kernel, stride)
            for i, (channels, kernel, stride) in zip(inputs, layers, strict=False)
        )
        left = inputs[-1] * _side(layout.height, layers) * _side(layout.width, layers)
        self.linear = nn.Linear(left, features)
        for layer in (*self.convolutions, self.linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2.0), generator=generator)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, obs: Tensor) -> Tensor:
        if torch.is_grad_enabled() or _is_tracing() or obs.shape[0] <= PASS:  # a graph has no branches
            return self._forward(obs)
        return torch.cat([self._forward(part) for part in obs.split(PASS)])

    def _forward(self, obs: Tensor) -> Tensor:
        # channels last in memory: on a CPU that takes two thirds of the time
        x = self.layout.images(obs).contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.convolutions):
            weight: Any = layer.weight if i else layer.weight * (1.0 / self.largest)  # pyright: ignore[reportOperatorIssue]
            weight = weight.contiguous(memory_format=torch.channels_last)
            x = torch.relu_(nn.functional.conv2d(x, weight, layer.bias, layer.stride))  # pyright: ignore
        return torch.relu_(self.linear(x.flatten(1)))

    def extra_repr(self) -> str:
        scaled = "standardised" if self.standardized else f"over {self.largest:g}"
        return f"{self.layout}, {scaled}, through {self.name}"


def _is_tracing() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


class PictureBody(nn.Module):
    """Each picture of an observation through convolutions of its own, the other parts as they are, side by side; then hidden
    layers: features (B, *) → (B, F).
    """

    def __init__(
        self,
        encoding: Encoding,
        layouts: Sequence[Layout | None],
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.spans = [(leaf.start, leaf.start + leaf.width, leaf.shape) for leaf in encoding.leaves]
        size = FEATURES if len(layouts) == 1 else FEATURES_OF_PART
        self.parts = nn.ModuleList(
            nn.Identity() if layout is None else Convolutions(layout, _largest(leaf), size, generator)
            for leaf, layout in zip(encoding.leaves, layouts, strict=True)
        )
        width = sum(
            leaf.width if layout is None else size for leaf, layout in zip(encoding.leaves, layouts, strict=True)
        )
        self.hidden = nn.Sequential()
        for below, above in zip([width, *hidden], hidden, strict=False):
            layer = nn.Linear(below, above)
            init_linear(layer, math.sqrt(2.0), generator)
            self.hidden.extend([layer, ACTIVATIONS[activation]()])

    def forward(self, features: Tensor) -> Tensor:
        rows = flat(features)
        seen = [
            part(rows[:, start:stop].reshape(rows.shape[0], *shape))
            if isinstance(part, Convolutions)
            else rows[:, start:stop]
            for part, (start, stop, shape) in zip(self.parts, self.spans, strict=True)
        ]
        return self.hidden(seen[0] if len(seen) == 1 else torch.cat(seen, dim=-1))


def _largest(leaf: Leaf) -> float:
    """The number by which a picture is divided: the largest that its space allows; 1 where that is not finite, or below 1."""
    high = float(np.max(leaf.space.high))  # pyright: ignore[reportAttributeAccessIssue]
    return high if math.isfinite(high) and high > 1.0 else 1.0


def layouts_of(encoding: Encoding, network: str = "auto") -> list[Layout | None]:
    """Of every part of the observations: its layout, where it goes through convolutions.

    network: "auto", convolutions for what `picture` takes for one; "cnn", for every Box that has a height and a width; "mlp",
    for nothing. Raises PictureError where "auto" would give raw pixels to an MLP, and where "cnn" finds no picture.
    """
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {NETWORKS}, got {network!r}")
    layouts = [chosen(leaf, network) for leaf in encoding.leaves]
    for leaf, layout in zip(encoding.leaves, layouts, strict=True):
        if network == "auto" and layout is None and _raw_pixels(leaf):
            raise PictureError(
                f"the observations{leaf.where}, {leaf.space}, look like pixels, and an MLP on raw pixels learns little: give "
                "them as (height, width, channels), choose network = cnn, or network = mlp if an MLP is what you want"
            )
    if network == "cnn" and not any(layouts):
        raise PictureError(
            "network = cnn needs a Box of height × width (× channels), with sides of at least 4, and the space is "
            f"{encoding.space}"
        )
    return layouts


def make_body(
    encoding: Encoding,
    network: str = "auto",
    *,
    hidden: Sequence[int] = (),
    activation: str = "tanh",
    generator: torch.Generator | None = None,
) -> nn.Module | None:
    """The body for observations with pictures, features (B, *) → (B, F); None where an MLP takes the numbers as they are.

    network: see `layouts_of`. hidden, activation: of the layers after the convolutions.
    """
    layouts = layouts_of(encoding, network)
    return PictureBody(encoding, layouts, hidden, activation, generator) if any(layouts) else None


def _raw_pixels(leaf: Leaf) -> bool:
    """Whether a part has as many bytes as a picture has."""
    space = leaf.space
    return (
        isinstance(space, spaces.Box) and space.dtype == np.uint8 and leaf.width >= RAW and int(space.high.max()) > 100
    )


def standardize(module: nn.Module) -> None:
    """Divide no pictures any more: the numbers come standardised."""
    for part in module.modules():
        if isinstance(part, Convolutions):
            part.standardized, part.largest = True, 1.0


def has_pictures(module: Any) -> bool:
    """Whether a network has convolutions over pictures that were made here."""
    return isinstance(module, nn.Module) and any(isinstance(part, Convolutions) for part in module.modules())


def described(module: nn.Module, encoding: Encoding) -> list[str]:
    """What was taken for pictures, a sentence each; none where nothing was."""
    bodies = [part for part in module.modules() if isinstance(part, PictureBody)][:1]
    return [
        f"observations{leaf.where} are pictures of {part.extra_repr()} (network = mlp: numbers)"
        for body in bodies
        for leaf, part in zip(encoding.leaves, body.parts, strict=True)
        if isinstance(part, Convolutions)
    ]
