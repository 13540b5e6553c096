"""Elementary functions that a compiler can vectorise: the C library's, called number by number, take 40 times as long."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from policygrad.compiled.cache import OPTIONS

# tanh x ≈ x · P(x²) / Q(x²) for |x| ≤ LARGEST, where float32's tanh is 1: the minimax coefficients of Eigen and TensorFlow
LARGEST = np.float32(7.90531110763549805)
P = [
    np.float32(c)
    for c in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
]
Q = [np.float32(c) for c in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)]
P0, P1, P2, P3, P4, P5, P6 = P
Q0, Q1, Q2, Q3 = Q


def tanh(x: Any) -> Any:
    """Tanh x: of a float32 with a relative error below 4e-7, of a float64 the C library's."""
    return math.tanh(x)


def _rational(x: Any) -> Any:
    x = min(max(x, -LARGEST), LARGEST)
    s = x * x
    above = ((((((P6 * s + P5) * s + P4) * s + P3) * s + P2) * s + P1) * s + P0) * x
    return above / (((Q3 * s + Q2) * s + Q1) * s + Q0)


def _exact(x: Any) -> Any:
    return math.tanh(x)


@overload(tanh, jit_options=OPTIONS)  # pyright: ignore
def _tanh(x: Any) -> Any:
    return _rational if x == types.float32 else _exact
