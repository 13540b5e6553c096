"""The example services answer as the policy does, and refuse what is no observation with the reason."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import KINDS, VECTOR, WHEEL, Kind, observations

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


@pytest.mark.parametrize("words", [{"memory": "lstm"}, {"memory": "gru", "noise_autocorrelation": 0.5}])
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_memory_of_a_policy_goes_out_with_an_answer_and_comes_back_with_the_next_question(
    words, deterministic, tmp_path
):
    kind = Kind("ppo", VECTOR, WHEEL, {"memory_size": 4} | words)
    _, path = kind.saved(tmp_path)
    app, policy = client(example("serve")(str(path))), pg.load_policy(path)
    rows, _ = observations(kind, 6)
    state, told, forgot = None, None, []
    for obs in rows:
        question = {"obs": obs.tolist(), "deterministic": deterministic}
        answer = app.post("/act", json=question | {"state": told}).json()
        action, state = policy.predict(obs, state, deterministic=deterministic)
        told = answer["state"]
        assert answer["action"] == action.tolist()  # to the bit
        assert {name: np.asarray(x).tolist() for name, x in state.items()} == told
        if deterministic:  # a question without a state begins an episode
            forgot.append(app.post("/act", json=question).json()["action"] == answer["action"])
    if deterministic:
        assert forgot == [True] + [False] * 5
    for wrong in ({"memory": [[0.0]]}, [1.0], {**told, "memory": [[float("nan")] * 8]}, {**told, "first": ["x"]}, 3):
        content = json.dumps({"obs": rows[0].tolist(), "state": wrong})
        answer = app.post("/act", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert "expected the state of 1 observations" in answer.json()["detail"]


def test_the_memories_of_a_batch_begin_where_it_says(tmp_path):
    kind = Kind("ppo", VECTOR, WHEEL, {"memory_size": 4, "memory": "gru"})
    _, path = kind.saved(tmp_path)
    app, rows = client(example("serve")(str(path))), [row.tolist() for row in observations(kind, 4)[0]]
    first = app.post("/act", json={"obs": rows[:2]}).json()
    on = app.post("/act", json={"obs": rows[2:], "state": first["state"]}).json()["action"]
    one = app.post("/act", json={"obs": rows[2:], "state": first["state"], "episode_start": [True, False]}).json()
    new = app.post("/act", json={"obs": rows[2:]}).json()["action"]
    assert one["action"] == [new[0], on[1]]
    assert on[0] != new[0]


# ---- the container, without a container


def test_the_steps_of_the_container_file_give_a_service_of_numpy_alone(tmp_path):
    """What it copies is there after the steps of docs/deploy.md, what it runs is the service, and that needs no more."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    lines = (EXAMPLES / "Containerfile").read_text().splitlines()
    instructions = {word: rest for word, _, rest in (line.partition(" ") for line in lines) if not word.startswith("#")}
    *copied, target = instructions["COPY"].split()
    assert target == "./"
    pg.export("pretrained:ppo-CartPole-v1", "numpy", tmp_path / "deployed" / "policy.npz")
    shutil.copy(EXAMPLES / "serve_numpy.py", tmp_path / "deployed")
    app = tmp_path / "app"
    app.mkdir()
    for name in copied:
        shutil.copy(tmp_path / "deployed" / name, app)
    python, script, *words = json.loads(instructions["CMD"])
    assert (python, script) == ("python", "serve_numpy.py")
    assert {"numpy", "fastapi", "uvicorn"} == set(re.findall(r'"([a-z]+)', instructions["RUN"]))
    code = f"""
import runpy, sys, types
for name in ("policygrad", "torch", "gymnasium", "scipy", "safetensors"):
    sys.modules[name] = None  # as if it were not installed
from fastapi.testclient import TestClient
def ask(app, host, port):
    client = TestClient(app)
    print(host, port, client.get("/health").json(), client.post("/act", json={{"obs": {CART}}}).json())
sys.modules["uvicorn"] = types.ModuleType("uvicorn")  # a stand-in, which asks instead of serving
sys.modules["uvicorn"].run = ask
sys.argv = {[script, *words]!r}
sys.path.insert(0, ".")
runpy.run_path({script!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=app, capture_output=True, text=True, check=True)
    act = int(pg.load_policy("pretrained:ppo-CartPole-v1").predict(CART, deterministic=True)[0])
    health = {"policy": "<policy of ppo on CartPole-v1, in NumPy>"}
    assert done.stdout == f"0.0.0.0 {instructions['EXPOSE']} {health} {{'action': {act}}}\n"
