"""The network for an observation space: an MLP, convolutions where there are pictures, or a body of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from gymnasium import spaces
from torch import nn

from policygrad.models.body_trial import module_of
from policygrad.models.networks import MLP, BodyNetwork, Parts
from policygrad.models.observations import Encoding
from policygrad.models.pictures import make_body

Body = nn.Module | Callable[[spaces.Space], nn.Module]


def make_network(
    observation_space: spaces.Space,
    outputs: int,
    *,
    hidden: Sequence[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
    body: Body | None = None,
    network: str = "auto",
) -> nn.Module:
    """An MLP, or a body with a linear layer after it: `body` (a module, or a function of the observation space that makes one),
    or convolutions where there are pictures, see `pictures.make_body`.
    """
    encoding = Encoding(observation_space)
    if body is None:
        made = make_body(encoding, network, hidden=hidden, activation=activation, generator=generator)
        if made is None:
            return MLP(encoding.width, hidden, outputs, activation, output_gain, generator)
        return BodyNetwork(made, torch.zeros(2, *encoding.features_shape), outputs, output_gain, generator)
    with torch.random.fork_rng(devices=()):  # what a function makes is the seed's business, too
        torch.manual_seed(generator.initial_seed())
        module = module_of(body, observation_space)
    if encoding.parts:
        module = Parts(encoding.tree, module)
    return BodyNetwork(module, torch.zeros(2, *encoding.features_shape), outputs, output_gain, generator)
