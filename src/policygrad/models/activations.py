"""Activation functions of the closed-form network backends, in NumPy, and their slopes."""

from __future__ import annotations

import numpy as np

# OpenBLAS computes in lanes it throws away, and whatever lies there can raise the flag; exp(−z) of SiLU may overflow to ∞,
# rightly. Numbers that are not finite are looked for where they enter and before every update.
QUIET = np.errstate(invalid="ignore", over="ignore")


def activate(activation: str, z: np.ndarray) -> np.ndarray:
    """f(z), in z's memory, but for SiLU, whose slope needs z."""
    if activation == "tanh":
        return np.tanh(z, out=z)
    if activation == "relu":
        return np.maximum(z, 0.0, out=z)
    return z / (1.0 + np.exp(-z))


def slope_of(activation: str, h: np.ndarray, z: np.ndarray) -> np.ndarray:
    """f'(z) of h = f(z); z as `activate` left it."""
    if activation == "tanh":
        slope = h * h
        return np.subtract(1.0, slope, out=slope)
    if activation == "relu":
        return h > 0
    sigmoid = 1.0 / (1.0 + np.exp(-z))
    return sigmoid * (1.0 + z * (1.0 - sigmoid))
