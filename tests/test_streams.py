"""The named streams are those of version 0.4: whoever trains with a seed gets the same numbers as then."""

from __future__ import annotations

import numpy as np
import pytest

import policygrad as pg
from policygrad.streams import seeds, stream

SEED = 3
FIRST = {
    "acting": [0.08564916714362436, 0.2368105065960997],
    "prediction": [0.25325307785026463, 0.40719719128199483],
    "stored": [0.025540150665761763, 0.743307414363619],
}


@pytest.mark.parametrize(("name", "entropy"), [("acting", [SEED, 0]), ("prediction", [SEED, 1]), ("stored", [SEED, 2])])
def test_generators_draw_what_they_drew(name: str, entropy: list[int]) -> None:
    drawn = np.random.default_rng(stream(SEED, name)).random(2)
    np.testing.assert_array_equal(drawn, np.random.default_rng(entropy).random(2))
    np.testing.assert_allclose(drawn, FIRST[name], rtol=1e-15)


def test_seeds_are_the_same_whole_numbers() -> None:
    assert seeds(SEED, "environments", 2, 0) == [457190280, 512822579]
    assert seeds(SEED, "environments", 2, 640) == [928563853, 803923962]
    assert seeds(SEED, "weights", 2) == [1576890651, 2902887791]


def test_an_agent_draws_from_them() -> None:
    agent = pg.Agent("a2c", "CartPole-v1", seed=SEED, num_envs=2)
    assert agent.collector.rng.random() == np.random.default_rng([SEED, 0]).random()
    assert agent.rng.random() == np.random.default_rng([SEED, 1]).random()
    assert agent.collector.env_seeds == seeds(SEED, "environments", 2, 0)
