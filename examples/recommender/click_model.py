"""A click model: for every item, ridge regression of clicks on the features of the users who saw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shop import Log, Shop


@dataclass(frozen=True)
class ClickModel:
    """Weights (1 + F, K) of q̂(x, k) = (1, x) · w_k, clipped to [0, 1]."""

    weights: np.ndarray

    @staticmethod
    def fit(log: Log, shop: Shop, ridge: float = 1.0) -> ClickModel:
        """By least squares; an item that nobody has seen has q̂ = 0."""
        x, weights = with_constant(shop.users)[log.user], []
        for item in range(shop.clicks.shape[1]):
            seen = log.item == item
            gram = x[seen].T @ x[seen] + ridge * np.eye(x.shape[1])
            weights.append(np.linalg.solve(gram, x[seen].T @ log.click[seen]))
        return ClickModel(np.stack(weights, 1))

    def clicks(self, users: np.ndarray) -> np.ndarray:
        """q̂ of every user and item, (U, K)."""
        return (with_constant(users) @ self.weights).clip(0.0, 1.0)

    def greedy(self, users: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
        """The policy that shows the item of the largest (1, x) · w_k, and any item with the probability ε: (U, K)."""
        scores = with_constant(users) @ self.weights
        best = np.eye(scores.shape[1])[scores.argmax(1)]
        return (1.0 - epsilon) * best + epsilon / scores.shape[1]


def most_clicked(log: Log, items: int) -> int:
    """The item with the highest click-through rate, clicks per showing."""
    shown = np.bincount(log.item, minlength=items)
    return int((np.bincount(log.item, log.click, minlength=items) / np.maximum(shown, 1)).argmax())


def with_constant(x: np.ndarray) -> np.ndarray:
    """The features with a 1 before them, float64."""
    return np.hstack([np.ones((len(x), 1)), x])
