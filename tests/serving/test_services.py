"""The example services answer as the policy does, and refuse what is no observation with the reason."""

from __future__ import annotations

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import KINDS

import policygrad as pg
from policygrad.serving.standalone import NumpyPolicy

EXAMPLES = Path(__file__).parents[2] / "examples"
CART = [0.01, 0.2, -0.03, 0.1]


def client(app: Any) -> Any:
    testing = pytest.importorskip("fastapi.testclient")
    return testing.TestClient(app)


def example(name: str) -> Any:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["service"]


@pytest.mark.parametrize("name", ["serve", "serve_numpy"])
def test_the_service_acts_as_the_policy_and_refuses_with_422(name, tmp_path):
    make = example(name)
    if name == "serve_numpy":
        policy = NumpyPolicy.load(pg.export("pretrained:ppo-CartPole-v1", "numpy", tmp_path / "policy.npz").files[0])
        app = client(make(policy))
    else:
        app = client(make("pretrained:ppo-CartPole-v1"))
        assert app.get("/health").json() == {"policy": "<policy of ppo on CartPole-v1, in NumPy>"}
    policy = pg.load_policy("pretrained:ppo-CartPole-v1")
    assert app.post("/act", json={"obs": CART}).json() == {"action": int(policy.predict(CART, deterministic=True)[0])}
    many = np.random.default_rng(0).normal(size=(64, 4)).round(3).tolist()
    expected = policy.predict(many, deterministic=True)[0].tolist()
    assert app.post("/act", json={"obs": many}).json() == {"action": expected}
    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(lambda obs: app.post("/act", json={"obs": obs}).json()["action"], many)
        assert list(asked) == expected
    sampled = {app.post("/act", json={"obs": [0.0] * 4, "deterministic": False}).json()["action"] for _ in range(40)}
    assert sampled <= {0, 1}
    for obs in ([0.0] * 3, ["a"] * 4, None, {"x": 1}, [0.0, 0.0, 0.0, 1e30]):
        answer = app.post("/act", json={"obs": obs})
        assert answer.status_code == 422
        assert "expected" in answer.json()["detail"]
    assert app.post("/act", json={}).status_code == 422


def test_observations_with_parts_come_as_tables_and_lists(tmp_path):
    agent, path = KINDS["squashed, of parts"].saved(tmp_path)
    obs = {"camera": [[0, 1, 2], [3, 4, 255]], "speed": 0.25, "where": [-1, [[0, 1], [1, 0]]]}
    answer = client(example("serve")(str(path))).post("/act", json={"obs": obs}).json()
    np.testing.assert_allclose(answer["action"], agent.predict(obs, deterministic=True)[0], rtol=1e-6)
