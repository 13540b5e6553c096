"""Model files: exact, byte-equal for equal states, and harmless when damaged or hostile."""

from __future__ import annotations

import gc
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.algorithms.recipe import current_keywords
from policygrad.stored.storage import (
    DTYPES,
    KEY,
    ModelFileError,
    load_state,
    packed,
    save_state,
    space_to_json,
    write_atomically,
)


class Planted:
    """A pickle of it writes a file when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[bytes]:
    """A whole agent's file and a policy's."""
    agent = pg.ppo("CartPole-v1", num_envs=1, hidden=(4,), num_steps=8, epochs=1, minibatches=1).learn(16)
    directory = tmp_path_factory.mktemp("models")
    return [agent.save(directory / "agent").read_bytes(), agent.save_policy(directory / "policy").read_bytes()]


def read(data: bytes) -> tuple[dict, bytes]:
    """The JSON header of a safetensors file, and the tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def written(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_a_file_has_the_bytes_that_safetensors_would_write():
    from safetensors.torch import save

    shapes = ((), (0,), (3,), (2, 5))
    tensors = {f'{n}/{s} γ"': torch.ones(s).to(dtype) for n, dtype in DTYPES.items() for s in shapes}
    words = json.dumps({"a": 'γ"\\ \n\x01'}, ensure_ascii=False)
    for some in (tensors, {}):
        assert packed(some, words) == save(some, {KEY: words})


def test_saving_leaves_nothing_in_memory_whatever_the_lengths_of_tensors(tmp_path):
    def kept() -> int:
        gc.collect()
        return len(gc.get_objects())

    save_state(tmp_path / "x", {"x": torch.zeros(1000)}, {})
    before = kept()
    for n in range(1001, 1021):
        save_state(tmp_path / "x", {"x": torch.zeros(n)}, {})
    assert kept() - before < 20


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "tensor": torch.tensor([[1.5, -0.0, float("inf")]]),
        "view": torch.arange(6).reshape(2, 3).T,
        "double": torch.tensor(1 / 3, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "plain": [None, True, 3, 0.1, "γ", {"deep": [torch.ones(2, dtype=torch.uint8)]}],
        "big": 2**127 + 1,  # a generator's state
    }
    save_state(tmp_path / "x.safetensors", state, {"meta": [1]})
    loaded, meta = load_state(tmp_path / "x.safetensors")
    assert meta == {"meta": [1]}
    assert loaded.keys() == state.keys()
    for name in ("tensor", "view", "double", "empty"):
        assert loaded[name].dtype == state[name].dtype
        assert torch.equal(loaded[name], state[name])
    assert torch.signbit(loaded["tensor"][0, 1])
    assert loaded["plain"][:5] == state["plain"][:5]
    assert torch.equal(loaded["plain"][5]["deep"][0], torch.ones(2, dtype=torch.uint8))
    assert loaded["big"] == state["big"]


def test_equal_states_are_equal_bytes_whatever_the_order_of_their_keys(tmp_path):
    a, b = torch.arange(3.0), torch.arange(4.0)
    save_state(tmp_path / "1", {"a": a, "b": b}, {"x": 1, "y": 2})
    save_state(tmp_path / "2", {"b": b.clone(), "a": a.clone()}, {"y": 2, "x": 1})
    save_state(tmp_path / "3", {"a": a + 1e-7, "b": b}, {"x": 1, "y": 2})
    one, two, three = ((tmp_path / name).read_bytes() for name in "123")
    assert one == two
    assert one != three


def test_a_state_of_anything_else_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="'a/0'"):
        save_state(tmp_path / "x", {"a": [np.zeros(3)]}, {})
    with pytest.raises(TypeError, match=r"two tensors .* 'a/b'"):
        save_state(tmp_path / "x", {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.safetensors"):
        pg.load(tmp_path / "nothing")


@pytest.mark.parametrize("which", [0, 1], ids=["agent", "policy"])
def test_a_file_cut_off_anywhere_is_refused(which, models, tmp_path):
    path, data = tmp_path / "cut.safetensors", models[which]
    for size in [*range(0, 16), *range(16, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match=r"cut\.safetensors"):
            pg.load(path)


@pytest.mark.parametrize("which", [0, 1], ids=["agent", "policy"])
def test_a_file_with_any_bit_flipped_is_refused(which, models, tmp_path):
    path, data, rng = tmp_path / "flipped.safetensors", models[which], np.random.default_rng(which)
    size = 8 + int.from_bytes(data[:8], "little")
    for place in [*rng.integers(0, size, 150), *rng.integers(size, len(data), 50)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"flipped\.safetensors"):
            pg.load(path)


def foreign(data: bytes) -> list[bytes]:
    """Well-formed safetensors files that are no models of ours."""
    header, body = read(data)
    text = header["__metadata__"][KEY]
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    metadata = [
        {},
        {"format": "pt"},
        {KEY: ""},
        {KEY: "[]"},
        {KEY: "{}"},
        {KEY: "1"},
        {KEY: text[:-1]},
        {KEY: "[" * 10_000},
    ]
    return [written({"__metadata__": m} | tensors, body) for m in metadata] + [written(tensors, body)]


def test_files_of_others_are_refused(models, tmp_path):
    path = tmp_path / "foreign.safetensors"
    for data in foreign(models[0]):
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=r"foreign\.safetensors"):
            pg.load(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_executed(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").write_bytes(pickle.dumps(Planted(), protocol))
    with pytest.raises(ModelFileError):
        pg.load("model")
    torch.save({"x": 1}, "torch.safetensors")
    with pytest.raises(ModelFileError):
        pg.load("torch")
    assert not Path("executed").exists()
    pickle.loads(Path("model.safetensors").read_bytes())  # the control: it would have been
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("meta", "algo"), "os"),
        (("meta", "algo"), 3),
        (("meta", "env"), None),
        (("meta", "env"), "os:CartPole-v1"),
        (("meta", "env"), "NoSuchEnv-v0"),
        (("meta", "seed"), "x"),
        (("meta", "config"), []),
        (("meta", "config"), {"hidden": [5]}),
        (("meta", "config"), {"steps": "__import__('os')"}),
        (("meta", "observation_space"), {"type": "Box"}),
        (("meta",), {}),
        (("meta",), []),
        (("state",), {}),
        (("state",), {"learner": {}}),
        (("state", "learner"), {"policy": {"weight": {"$tensor": "no such tensor"}}}),
        (("state", "learner"), {"policy": {"weight": {"$tensor": ["no string"]}}}),
        (("state", "learner"), 1),
    ],
)
def test_a_whole_file_with_hostile_contents_is_refused_with_its_name(place, value, models, tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(models[1])
    state, meta = load_state(path)
    whole = node = {"state": state, "meta": meta}
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    save_state(path, whole["state"], whole["meta"])
    with pytest.raises(ValueError, match=r"hostile\.safetensors|unknown algorithm|steps = "):
        pg.load(path)


@pytest.mark.parametrize(("version", "message"), [(999, "format 999"), (0, "format must be .* got 0")])
def test_a_file_of_another_format_is_refused(version, message, models, tmp_path, monkeypatch):
    path = tmp_path / "other.safetensors"
    path.write_bytes(models[1])
    state, meta = load_state(path)
    monkeypatch.setattr("policygrad.stored.storage.FORMAT", version)
    save_state(path, state, meta)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=message):
        pg.load(path)


BOX = spaces.Box(-1.0, 1.0, (3,))
SPACES: list[spaces.Space] = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=1),
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiDiscrete([2, 3], start=[0, 1]),
    spaces.MultiDiscrete([[2, 3]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 2)),
    BOX,
    spaces.Box(-1.0, 2.0, (3,)),
    spaces.Box(-1.0, 1.0, (3, 1)),
    spaces.Box(-1.0, 1.0, ()),
    spaces.Box(-1.0, 1.0, (3,), np.float64),
    spaces.Box(-1.0, np.inf, (3,)),
    spaces.Box(np.array([-1, -1, -2], np.float32), np.array([1, 1, np.inf], np.float32)),
    spaces.Box(0, 255, (3,), np.uint8),
    spaces.Dict(a=BOX, b=spaces.Discrete(3)),
    spaces.Dict(a=BOX, c=spaces.Discrete(3)),
    spaces.Dict(a=BOX, b=spaces.Dict(c=spaces.MultiBinary(2))),
    spaces.Tuple([BOX, spaces.Discrete(3)]),
    spaces.Tuple([spaces.Discrete(3), BOX]),
    spaces.Tuple([BOX, spaces.Tuple([spaces.Discrete(3)])]),
]


def test_equal_spaces_are_described_alike_and_others_are_not() -> None:
    described = [json.dumps(space_to_json(space), sort_keys=True, allow_nan=False) for space in SPACES]
    assert len(set(described)) == len(SPACES)
    for space, text in zip(SPACES, described, strict=True):
        again = pickle.loads(pickle.dumps(space))
        assert space_to_json(again) == json.loads(text) == space_to_json(space)  # from the file as well


def test_the_order_of_a_dict_is_part_of_it() -> None:
    one, two = (spaces.Dict(OrderedDict((key, BOX) for key in keys)) for keys in ("ab", "ba"))
    texts = [json.dumps(space_to_json(space), sort_keys=True) for space in (one, two)]
    assert texts[0] != texts[1]


def test_a_part_with_nothing_in_it_is_described_too() -> None:
    space = spaces.Dict(a=BOX, nothing=spaces.Box(0.0, 1.0, (0,)))
    assert space_to_json(space) != space_to_json(spaces.Dict(a=BOX))


class Anything(gym.Env):
    """Three steps; the reward depends on the action."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.spec = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(1000)))
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.observation_space.sample(), float(np.sum(action)), self.time == 3, False, {}


DICT = spaces.Dict(a=BOX, b=spaces.Tuple([spaces.Discrete(3, start=1), spaces.MultiDiscrete([[2, 3]])]))
MASKED = spaces.Dict(action_mask=spaces.Box(1, 1, (5,), np.int8), x=spaces.MultiBinary(2))
AGENTS: list[tuple[spaces.Space, spaces.Space, dict[str, Any]]] = [
    (DICT, spaces.Discrete(3, start=-1), {}),
    (spaces.Discrete(4, start=2), spaces.MultiDiscrete([[2, 3]], start=[[1, 5]]), {"hidden": ()}),
    (spaces.Tuple([BOX, spaces.MultiBinary(2)]), spaces.MultiBinary((2, 2)), {"normalize_obs": True}),
    (MASKED, spaces.MultiDiscrete([2, 3]), {}),
    (spaces.Box(0, 99, (2, 2, 1), np.uint8), spaces.Box(-1.0, np.inf, (2, 1)), {"std": "network"}),
    (BOX, spaces.Box(-1.0, 1.0, (2,)), {"head": "squashed", "noise_autocorrelation": 0.5, "normalize_obs": True}),
    (DICT, spaces.Box(-1.0, 1.0, (2,)), {"head": "beta"}),
]


@pytest.mark.parametrize(("observation_space", "action_space", "keywords"), AGENTS)
def test_an_agent_of_any_spaces_comes_back_as_it_was(observation_space, action_space, keywords, tmp_path) -> None:
    def env() -> gym.Env:
        return Anything(observation_space, action_space)

    small = {"num_envs": 2, "hidden": (4,), "num_steps": 8, "epochs": 1, "minibatches": 2}
    agent = pg.ppo(env, **small | keywords).learn(32)
    path = agent.save(tmp_path / "agent")
    loaded = pg.load(path, env=env)
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()
    observation_space.seed(0)
    obs = [observation_space.sample() for _ in range(5)]
    for deterministic in (True, False):
        for x in obs:
            a, b = agent.predict(x, deterministic)[0], loaded.predict(x, deterministic)[0]
            np.testing.assert_array_equal(a, b)
            assert np.asarray(a) in action_space
    policy = pg.load(agent.save_policy(tmp_path / "policy"), env=env)
    np.testing.assert_array_equal(policy.predict(obs[0], True)[0], agent.predict(obs[0], True)[0])
    one, two = (pg.load(path, env=env).learn(32) for _ in range(2))
    assert torch.equal(one.policy.flat, two.policy.flat)
    assert not torch.equal(one.policy.flat, agent.policy.flat)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "which"),
    [
        (DICT, spaces.Discrete(3), "action_space"),
        (spaces.Dict(a=BOX, c=DICT["b"]), spaces.Discrete(3, start=-1), "observation_space"),
        (spaces.Dict(a=spaces.Box(-1.0, 2.0, (3,)), b=DICT["b"]), spaces.Discrete(3, start=-1), "observation_space"),
    ],
    ids=["start", "key", "bound"],
)
def test_an_environment_of_other_spaces_is_refused_though_the_weights_fit(
    observation_space, action_space, which, tmp_path
) -> None:
    agent = pg.ppo(lambda: Anything(DICT, spaces.Discrete(3, start=-1)), num_envs=1, hidden=(4,))
    path = agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=rf"was trained with another {which}: .* and the environment's is"):
        pg.load(path, env=lambda: Anything(observation_space, action_space))


OLD = {"noise_autocorrelation": "correlation", "mask_source": "legal"}  # keywords as version 0.4 wrote them


def as_in_0_4(config: dict[str, Any]) -> dict[str, Any]:
    assert OLD.keys() <= config.keys()
    return {OLD.get(name, name): value for name, value in config.items()}


def test_what_version_0_4_wrote_loads_with_todays_keywords(tmp_path: Path) -> None:
    agent = pg.a2c("Pendulum-v1", num_envs=1, hidden=(4,), num_steps=8, noise_autocorrelation=0.5)
    run = pg.train(agent, tmp_path / "run", steps=16, episodes=1)
    state, meta = load_state(run.policy_file)
    save_state(run.policy_file, state, meta | {"config": as_in_0_4(meta["config"])})
    loaded = pg.load(run.policy_file)
    assert loaded.config == agent.config
    assert torch.equal(loaded.policy.flat, agent.policy.flat)
    config = json.loads(run.config_file.read_text())
    run.write_config(config | {"config": as_in_0_4(config["config"])})
    assert run.config() == config


def test_a_recipe_from_elsewhere_may_call_its_keywords_what_it_likes() -> None:
    assert current_keywords("mine.py:mine", {"legal": 1}) == {"legal": 1}
    assert current_keywords("ppo", {"legal": 1}) == {"mask_source": 1}
