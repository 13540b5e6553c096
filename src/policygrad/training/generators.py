"""Python's, NumPy's and torch's own generators of random numbers: environments and callbacks may draw from them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policygrad.forms import Form, anything, mersenne, table

GENERATORS: Form = table(
    {
        "python": anything,  # `random.setstate` and `numpy.random.set_state` look at what they are given
        "numpy": anything,
        "torch": mersenne(len(torch.get_rng_state())),
    }
)


def global_generators() -> dict[str, Any]:
    """Their states."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.array(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def set_global_generators(state: Mapping[str, Any]) -> None:
    """The inverse of `global_generators`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
