"""`load_policy`: the actions of `Agent.predict`, without environment and torch, from files that may be anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from kinds import KINDS, TREE, VECTOR, WHEEL, Kind, batch, observations

import policygrad as pg
from policygrad.errors import NotFiniteError, ObservationError
from policygrad.serving.served import ServedPolicy, TorchServedPolicy
from policygrad.stored.states import StateFile, open_state
from policygrad.stored.storage import ModelFileError, load_state, save_state
from policygrad.training.train import train


def close(got: Any, expected: Any) -> None:
    """The same actions; numbers of Box actions but for the last bits, which depend on the size of a batch."""
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", KINDS)
def test_the_actions_are_those_of_the_agent_one_by_one_and_in_batches_greedy_and_sampled(name, tmp_path):
    kind = KINDS[name]
    agent, path = kind.saved(tmp_path)
    served = pg.load_policy(path)
    assert isinstance(served, ServedPolicy)
    assert not served.needs_torch
    rows, masks = observations(kind, 40)
    for deterministic in (True, False):
        for i in range(10):
            mask = None if masks is None else masks[i]
            got = served.predict(rows[i], deterministic, mask)
            close(got[0], agent.predict(rows[i], deterministic, mask)[0])
            assert got[1] is None
        together = served.predict(batch(rows), deterministic, masks)[0]
        close(together, agent.predict(batch(rows), deterministic, masks)[0])  # and the generators are at the same place
        if kind.acted.shape != ():  # Gymnasium takes no number of NumPy for a Box of the shape ()
            assert all(action in kind.acted for action in together)
    assert len(np.unique(np.asarray(together).reshape(40, -1), axis=0)) > 1


@pytest.mark.parametrize("name", ["choices that begin at 2", "a table", "squashed, of parts", "beta"])
def test_a_batch_may_be_empty(name, tmp_path):
    agent, path = KINDS[name].saved(tmp_path)
    rows, _ = observations(KINDS[name], 1)
    empty = no_rows(batch(rows))
    for deterministic in (True, False):
        act = pg.load_policy(path).predict(empty, deterministic)[0]
        one = agent.predict(batch(rows), deterministic)[0]
        assert (act.shape, act.dtype) == ((0, *one.shape[1:]), one.dtype)
        own = agent.predict(empty, deterministic)[0]
        assert (own.shape, own.dtype) == (act.shape, act.dtype)


def no_rows(obs: Any) -> Any:
    """A batch without its rows."""
    if isinstance(obs, dict):
        return {key: no_rows(part) for key, part in obs.items()}
    return tuple(map(no_rows, obs)) if isinstance(obs, tuple) else obs[:0]


def test_another_seed_gives_other_samples_and_the_same_seed_the_same(tmp_path):
    _, path = KINDS["correlated normal"].saved(tmp_path)
    x = np.zeros((5, 3), np.float32)
    one, again, other = (pg.load_policy(path, seed=seed).predict(x)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.isclose(one, other).any()


def test_loading_and_acting_need_neither_torch_nor_gymnasium_and_are_quick(tmp_path):
    _, path = KINDS["squashed, of parts"].saved(tmp_path)
    obs = "{'camera': np.zeros((2, 3), np.uint8), 'speed': 0.5, 'where': (0, np.ones((2, 2), np.int8))}"
    code = f"""
import sys, policygrad as pg
policy = pg.load_policy({str(path)!r})
import numpy as np
print(policy.predict({obs}, deterministic=True)[0].shape)
print(*sorted({{"torch", "gymnasium", "scipy", "numba", "safetensors"}} & set(sys.modules)))
"""
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = os.times()  # of processes that have ended; others may keep us waiting
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.stdout == "(2, 1)\n\n"
    assert min(seconds) < 0.6  # 0.15 on a quiet machine; with torch it would be 1.5 and more


def test_eight_threads_get_the_actions_of_one(tmp_path):
    _, path = KINDS["correlated normal"].saved(tmp_path)
    served = pg.load_policy(path)
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32).clip(-2, 0.5)
    expected = [served.predict(row, deterministic=True)[0] for row in x]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            got = list(pool.map(lambda row: served.predict(row, deterministic=True)[0], x))
            assert np.array_equal(got, expected)


def test_outputs_of_the_network_that_are_not_the_heads_are_left_out(tmp_path):
    for name, layer in (
        ("choices that begin at 2", "network.layers.1"),
        ("correlated normal", "network.mean.layers.1"),
    ):
        agent, path = KINDS[name].saved(tmp_path)

        def widen(meta: Any, weights: dict[str, Any], layer: str = layer) -> None:
            for part in ("weight", "bias"):
                x = weights[f"{layer}.{part}"]
                weights[f"{layer}.{part}"] = torch.cat([x, torch.full_like(x[:1], 9.0)])

        served = pg.load_policy(changed(path, widen))
        rows, _ = observations(KINDS[name], 20)
        close(served.predict(batch(rows), True)[0], agent.predict(batch(rows), True)[0])


# ---- what is no observation

WRONG: list[tuple[str, Any, str]] = [
    ("choices that begin at 2", np.zeros(4), r"shape \(3,\) or \(n, 3\), got \(4,\)"),
    ("choices that begin at 2", np.zeros((2, 2, 3)), r"got \(2, 2, 3\)"),
    ("choices that begin at 2", ["a", "b", "c"], "expected numbers in an observation, got the type <U1"),
    ("choices that begin at 2", None, "expected observations of shape|expected numbers"),
    ("choices that begin at 2", (np.zeros(3), {}), r"pair \(observation, info\)"),
    ("several choices of pictures", np.full((2, 3), 0.5), "must be uint8, got float64 with other values"),
    ("several choices of pictures", np.full((2, 3), 256), "must be uint8, got int64"),
    ("bits of bits", [0, 1, 2, 0], "of 0 and 1, got 0 to 2"),
    ("a table", 3, r"of Discrete\(5, start=-2\), got \[3\]"),
    ("a table", -3, r"got \[-3\]"),
    ("a table", 0.5, r"got \[0.5\]"),
    ("normal, of several choices", [[0, 0], [0, 2]], r"of MultiDiscrete\(\[\[2, 3\], \[4, 2\]\]"),
    ("squashed, of parts", {"camera": np.zeros((2, 3), np.uint8)}, r"observation\['speed'\]"),
    ("squashed, of parts", 3, r"observation\['camera'\], got 3"),
    (
        "squashed, of parts",
        {"camera": np.zeros((2, 3), np.uint8), "speed": [0.0, 1.0], "where": (0, np.ones((2, 2), np.int8))},
        "one observation, or n of every part",
    ),
    ("masks in the observation", {"x": [0.0, 0.0], "action_mask": [0, 0, 0, 0]}, "no legal action"),
    ("masks in the observation", {"x": [0.0, 0.0]}, r"\['action_mask'\]"),
]


@pytest.mark.parametrize(("name", "obs", "words"), WRONG)
def test_what_is_no_observation_is_refused_with_the_reason(name, obs, words, tmp_path):
    agent, path = KINDS[name].saved(tmp_path)
    with pytest.raises(ObservationError, match=words):
        pg.load_policy(path).predict(obs, deterministic=True)
    with pytest.raises((ValueError, TypeError)):  # the agent refuses the same
        agent.predict(obs, deterministic=True)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30, 1e300])
def test_numbers_that_are_not_finite_are_refused(number, tmp_path):
    agent, path = KINDS["choices that begin at 2"].saved(tmp_path)
    for policy in (agent, pg.load_policy(path)):
        with pytest.raises(NotFiniteError, match="finite numbers below 1e"), np.errstate(over="ignore"):
            policy.predict([0.0, number, 0.0], deterministic=True)


def test_action_masks_are_asked_for_counted_and_refused_where_they_mean_nothing(tmp_path):
    _, path = KINDS["masks in info"].saved(tmp_path)
    served, x = pg.load_policy(path), np.zeros(3, np.float32)
    with pytest.raises(ObservationError, match="pass action_masks="):
        served.predict(x)
    with pytest.raises(ObservationError, match="expected 5 entries in an action mask"):
        served.predict(x, action_masks=np.ones(4))
    with pytest.raises(ObservationError, match="action_masks of 2 observations, got 1"):
        served.predict(np.zeros((2, 3), np.float32), action_masks=[np.ones(5)])
    with pytest.raises(ObservationError, match="no legal action"):
        served.predict(x, action_masks=[1, 1, 1, 0, 0])
    assert served.predict(x, action_masks=(np.array([0, 1, 0]), np.array([0, 1])))[0].tolist() == [1, 1]
    _, plain = KINDS["a table"].saved(tmp_path)
    with pytest.raises(ObservationError, match="mask_source = info"):
        pg.load_policy(plain).predict(0, action_masks=np.ones(3))


# ---- finding


def test_a_run_its_name_its_beginning_and_latest_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = pg.ppo("CartPole-v1", hidden=(4,), num_envs=2, num_steps=16, minibatches=1, epochs=1)
    train(agent, "runs/CartPole-v1/ppo/mine", steps=32, episodes=1)
    x = np.array([0.1, 0.2, -0.1, 0.3], np.float32)
    expected = pg.load("runs/CartPole-v1/ppo/mine").predict(x)[0]
    for words in (
        "latest",
        "mine",
        "CartPole-v1/ppo/mine",
        "runs/CartPole-v1/ppo/mine",
        Path("runs/CartPole-v1/ppo/mine"),
    ):
        assert pg.load_policy(words).predict(x)[0] == expected
    policy = "runs/CartPole-v1/ppo/mine/policy"
    assert pg.load_policy(policy).predict(x)[0] == pg.load_policy(f"{policy}.safetensors").predict(x)[0] == expected
    checkpoint = agent.save("whole")
    assert pg.load_policy(checkpoint).predict(x, True)[0] == agent.predict(x, True)[0]
    with pytest.raises(ValueError, match="there is no run 'other'"):
        pg.load_policy("other")
    with pytest.raises(ModelFileError, match="there is no model file"):
        pg.load_policy("other.safetensors")
    Path("theirs.zip").write_bytes(b"PK")
    with pytest.raises(ModelFileError, match="Stable-Baselines3 hold pickles"):
        pg.load_policy("theirs.zip")


# ---- networks and recipes of the user's own


def body(space: Any) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 5), torch.nn.ELU())


def test_a_network_of_ones_own_is_asked_for_and_acts_in_torch_from_threads_too(tmp_path):
    kind = Kind("ppo", VECTOR, WHEEL, {"body": body, "normalize_obs": True})
    agent, path = kind.saved(tmp_path)
    with pytest.raises(ValueError, match="custom network: pass body="):
        pg.load_policy(path)
    served = pg.load_policy(path, body=body)
    assert isinstance(served, TorchServedPolicy)
    rows, _ = observations(kind, 60)
    for row in rows[:5]:
        close(served.predict(row)[0], agent.predict(row)[0])
    expected = [agent.predict(row, deterministic=True)[0] for row in rows]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda row: served.predict(row, deterministic=True)[0], rows))
    assert np.array_equal(got, expected)
    with pytest.raises(NotFiniteError):
        served.predict([np.nan, 0.0, 0.0])


def mine(task: Any, *, num_steps: int = 8) -> Any:
    """A recipe of one's own."""
    return pg.Plan(pg.Learner(task.policy(), pg.RewardToGo(), pg.VanillaGradient(0.01)), num_steps=num_steps)


def test_a_recipe_of_ones_own_is_asked_for_and_never_imported(tmp_path):
    agent, path = Kind(mine, TREE, WHEEL, {"normalize_obs": True}).saved(tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="pass recipe="):
        pg.load_policy(path)
    served, (rows, _) = pg.load_policy(path, recipe=mine), observations(KINDS["normalised parts"], 3)
    for row in rows:
        close(served.predict(row)[0], agent.predict(row)[0])


# ---- files that may be anything


def changed(path: Path, change: Any) -> Path:
    """The model file with another description or other weights, and a checksum that fits."""
    state, meta = load_state(path)
    change(meta, state["learner"]["policy"])
    out = path.with_name("changed.safetensors")
    save_state(out, state, meta)
    return out


def drop(key: str) -> Any:
    return lambda meta, weights: weights.pop(key)


DAMAGE: dict[str, Any] = {
    "an observation with more numbers": lambda meta, w: meta["observation_space"].update(shape=[4]),
    "a gigantic observation": lambda meta, w: meta["observation_space"].update(shape=[2**28, 2**28]),
    "an observation of another kind": lambda meta, w: meta.update(observation_space={"type": "Graph"}),
    "no observation space": lambda meta, w: meta.pop("observation_space"),
    "an action with more numbers": lambda meta, w: meta["action_space"].update(shape=[9]),
    "bounds that are no numbers": lambda meta, w: meta["action_space"].update(low="x"),
    "bounds of another shape": lambda meta, w: meta["action_space"].update(low=["0", "1", "2"]),
    "a type that is none": lambda meta, w: meta["action_space"].update(dtype="object"),
    "a head that is none": lambda meta, w: meta["config"].update(head="other"),
    "noise beyond its bounds": lambda meta, w: meta["config"].update(noise_autocorrelation=11.0),
    "a mask source that is none": lambda meta, w: meta["config"].update(mask_source="there"),
    "no weights": lambda meta, w: w.clear(),
    "a layer without bias": drop("network.mean.layers.0.bias"),
    "NaN": lambda meta, w: w["network.mean.layers.0.bias"].fill_(torch.nan),
    "a layer that does not fit": lambda meta, w: w.update({"network.mean.layers.1.weight": torch.zeros(2, 9)}),
    "a log std that does not fit": lambda meta, w: w.update({"network.log_std": torch.zeros(3)}),
    "a bias of integers": lambda meta, w: w.update({"network.mean.layers.1.bias": torch.zeros(2, dtype=torch.int64)}),
    "a mean of another shape": lambda meta, w: w.update({"normalizer.mean": torch.zeros(2, dtype=torch.float64)}),
    "half a normaliser": drop("normalizer.var"),
    "a state that is a list": lambda meta, w: meta.update(config=[]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_says_what_cannot_be_is_refused_by_its_name(name, tmp_path):
    kind = Kind("ppo", VECTOR, WHEEL, {"normalize_obs": True})
    _, path = kind.saved(tmp_path)
    assert pg.load_policy(changed(path, lambda meta, w: None)).predict(np.zeros(3))[0].shape == (2,)
    with pytest.raises(ModelFileError, match=r"changed\.safetensors"):
        pg.load_policy(changed(path, DAMAGE[name]))


@pytest.mark.slow
def test_no_forged_file_crashes_or_takes_memory(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from survival import files, forgeries

    outcomes, whole = {}, files.samples(tmp_path)
    for case, make in forgeries.cases(*whole).items():
        path = tmp_path / f"forged-{case.partition(':')[0]}.safetensors"
        make(path)
        size = path.lstat().st_size
        with files.memory() as grown:
            outcomes[case] = outcome(path)
            outcomes[case] += " MEMORY" if grown() - 2 * size > 2 * files.SLACK else ""
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert set(outcomes.values()) == {"refused", "accepted"}, outcomes
    assert list(outcomes.values()).count("refused") > 100


def outcome(path: Path) -> str:
    """What becomes of a file; errors of the user's, such as a missing recipe, must name it."""
    try:
        pg.load_policy(path).predict(np.zeros(4, np.float32))
    except pg.PolicygradError:
        return "refused"
    except ValueError as error:
        return "refused" if path.name in str(error) else f"{error}"
    return "accepted"


def test_a_damaged_file_is_called_damaged(tmp_path):
    _, path = KINDS["a table"].saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="damaged"):
        pg.load_policy(path)


def test_states_without_torch_are_those_with_it(tmp_path):
    types = (torch.float64, torch.float16, torch.int8, torch.uint8, torch.bool, torch.int64, torch.float32)
    given = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in types}
    given |= {"number": torch.zeros(()), "empty": torch.zeros(0, 3)}
    save_state(tmp_path / "x", {"a": [given, {"n": 3}]}, {"m": 1})
    with open_state(tmp_path / "x") as file:
        assert type(file) is StateFile
        tensors, plain = file.state()["a"]
    assert plain == {"n": 3}
    for name, x in given.items():
        assert isinstance(tensors[name], np.ndarray)
        np.testing.assert_array_equal(tensors[name], x.numpy())
        assert tensors[name].dtype == x.numpy().dtype
    save_state(tmp_path / "x", {"a": torch.zeros(3, dtype=torch.bfloat16)}, {})
    with pytest.raises(ModelFileError, match="bfloat16"), open_state(tmp_path / "x"):
        pass


def test_bounds_and_parts_of_spaces_go_round_through_their_descriptions():
    from policygrad.stored.storage import space_from_json, space_to_json

    whole = spaces.Box(np.array([-5, 0], np.int64), np.array([2**63 - 1, 7], np.int64), dtype=np.int64)
    for space in (
        TREE,
        VECTOR,
        WHEEL,
        whole,
        spaces.Box(0, 1, (2,), bool),
        spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    ):
        again = space_from_json(json.loads(json.dumps(space_to_json(space))), 1000, bounds=True)
        assert space_to_json(again) == space_to_json(space)
        assert again == space or space is TREE
    assert isinstance(gym.make("CartPole-v1").observation_space, spaces.Box)
