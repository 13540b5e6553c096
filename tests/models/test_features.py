"""Policies that are linear in features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.data import Batch

BOX = spaces.Box(np.array([-1.0, 2.0]), np.array([1.0, 6.0]), dtype=np.float64)


def test_the_features_are_cosines_of_all_frequencies() -> None:
    features = pg.FourierFeatures(BOX, 2)
    obs = torch.tensor([[0.5, 3.0], [-1.0, 6.0]])
    x = [(0.75, 0.25), (0.0, 1.0)]
    expected = [[math.cos(math.pi * (i * u + j * v)) for i in range(3) for j in range(3)] for u, v in x]
    torch.testing.assert_close(features(obs), torch.tensor(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(features(torch.tensor([[9.0, -9.0]])), features(torch.tensor([[1.0, 2.0]])))


def test_a_linear_softmax_has_the_textbooks_score() -> None:
    policy = pg.make_policy(BOX, spaces.Discrete(3), body=lambda space: pg.FourierFeatures(space, 1)).double()
    policy.flat += torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    obs, act = torch.tensor([[0.3, 4.0]], dtype=torch.float64), torch.tensor([2])
    phi = pg.FourierFeatures(BOX, 1).double()(obs)
    pi = policy.dist(obs).exp()
    score = torch.outer(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - pi[0], phi[0])
    gradient = policy.evaluate(Batch.of(obs, act)).gradient(torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(gradient[: score.numel()].view(3, -1), score, rtol=0, atol=1e-12)


def test_features_without_bounds_need_them_named() -> None:
    unbounded = spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(ValueError, match="give low= and high="):
        pg.FourierFeatures(unbounded, 2)
    assert pg.FourierFeatures(unbounded, 2, low=[-1, -1], high=[1, 1])(torch.zeros(4, 2)).shape == (4, 9)
    with pytest.raises(ValueError, match="order must be at least 1"):
        pg.FourierFeatures(BOX, 0)
    with pytest.raises(ValueError, match="at most"):
        pg.FourierFeatures(spaces.Box(0, 1, (20,)), 3)
    with pytest.raises(TypeError, match="need a Box"):
        pg.FourierFeatures(spaces.Discrete(3), 2)
