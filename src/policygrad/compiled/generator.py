"""NumPy's random numbers in compiled code: those of `numpy.random.PCG64`, bit for bit.

A generator is four words (uint64): the upper and the lower half of its state, and those of its increment.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policygrad.compiled.cache import part

WORD = 2**64 - 1
UPPER, LOWER = np.uint64(2549297995355413924), np.uint64(4865540595714422341)  # the multiplier
HALF, MASK, TOP, WIDTH, ELEVEN = np.uint64(32), np.uint64(2**32 - 1), np.uint64(58), np.uint64(63), np.uint64(11)
UNIT = 1.0 / 2**53


@part
def _upper_half(a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two words."""
    a1, a0, b1, b0 = a >> HALF, a & MASK, b >> HALF, b & MASK
    middle = a1 * b0 + (a0 * b0 >> HALF)
    low = (middle & MASK) + a0 * b1
    return a1 * b1 + (middle >> HALF) + (low >> HALF)


@part
def next_word(generators: np.ndarray, i: int) -> Any:
    """The next 64 random bits of generator i of (N, 4)."""
    high, low = generators[i, 0], generators[i, 1]
    product = low * LOWER
    lower = product + generators[i, 3]
    carry = np.uint64(1) if lower < product else np.uint64(0)
    upper = _upper_half(low, LOWER) + high * LOWER + low * UPPER + generators[i, 2] + carry
    generators[i, 0], generators[i, 1] = upper, lower
    mixed, turn = upper ^ lower, upper >> TOP
    return (mixed >> turn) | (mixed << ((~turn + np.uint64(1)) & WIDTH))


@part
def unit(generators: np.ndarray, i: int) -> float:
    """`Generator.random()`: uniform in [0, 1)."""
    return np.float64(next_word(generators, i) >> ELEVEN) * UNIT


@part
def uniform(generators: np.ndarray, i: int, low: float, high: float) -> float:
    """`Generator.uniform(low, high)`."""
    return low + (high - low) * unit(generators, i)


def words_of(state: dict[str, Any]) -> list[int]:
    """The words of the state of a `numpy.random.PCG64`."""
    numbers = state["state"]["state"], state["state"]["inc"]
    return [word for x in numbers for word in (x >> 64, x & WORD)]


def state_of(words: np.ndarray) -> dict[str, Any]:
    """The inverse of `words_of`."""
    high, low, increment_high, increment_low = words.tolist()
    whole = {"state": high << 64 | low, "inc": increment_high << 64 | increment_low}
    return {"bit_generator": "PCG64", "state": whole, "has_uint32": 0, "uinteger": 0}
