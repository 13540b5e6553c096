"""Environments with keywords and wrappers, in words: in training, evaluation, videos and files, from Python and the shell."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import policygrad as pg
from policygrad.cli import main
from policygrad.cli.arguments import parse_train
from policygrad.cli.training import make_jobs
from policygrad.cli.values import UsageError, parse_pairs
from policygrad.envs.single import EnvMaker, env_name, with_words
from policygrad.errors import ContractError
from policygrad.stored.directory import environment
from policygrad.stored.storage import load_state, save_state
from policygrad.training.video import make_shown

SMALL = {"num_envs": 2, "num_steps": 20, "minibatches": 1, "hidden": (8,)}
TINY = ["--steps", "100", "--num-envs", "2", "--num-steps", "20", "--minibatches", "1", "--eval-episodes", "2", "-q"]
STRAIGHT = {"is_slippery": False, "map_name": "8x8"}
WRAPPERS = "wrappers_of_mine.py"
SOURCE = """
import gymnasium as gym

def short(env):
    return gym.wrappers.TimeLimit(env, 7)

class Doubled(gym.Wrapper):
    def step(self, action):
        obs, rew, *rest = self.env.step(action)
        return obs, 2 * rew + 1, *rest
"""


def short(env: gym.Env) -> gym.Env:
    """Seven steps."""
    return gym.wrappers.TimeLimit(env, 7)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(WRAPPERS).write_text(SOURCE)


def test_keywords_and_wrappers_hold_in_training_evaluation_and_videos():
    kwargs = STRAIGHT | {"render_mode": None}
    agent = pg.ppo("FrozenLake-v1", env_kwargs=kwargs, wrappers=[short, f"{WRAPPERS}:Doubled"], **SMALL)
    assert agent.envs.single_observation_space == gym.spaces.Discrete(64)
    assert agent.env_name == "FrozenLake-v1"
    agent.learn(100)
    assert max(agent.collector.lengths) <= 7
    evaluation = agent.evaluate(3)
    assert max(evaluation.lengths) <= 7
    assert min(evaluation.returns) >= 1.0  # Doubled
    shown = make_shown(agent.evaluation_env(), "rgb_array")
    assert (shown.render_mode, type(shown).__name__) == ("rgb_array", "Doubled")
    shown.close()


def test_classes_and_callables_are_made_with_keywords_too():
    class Sized(gym.Env):
        action_space = gym.spaces.Discrete(2)

        def __init__(self, size: int = 1):
            self.observation_space = gym.spaces.Box(-1, 1, (size,))

    assert pg.ppo(Sized, env_kwargs={"size": 5}, **SMALL).envs.single_observation_space.shape == (5,)
    assert pg.ppo(Sized, wrappers=gym.wrappers.FlattenObservation, **SMALL).env_name == "Sized"  # type: ignore


@pytest.mark.parametrize(
    ("env", "words", "error"),
    [
        (gym.make("CartPole-v1"), {"wrappers": [short]}, "made already"),
        ("CartPole-v1", {"env_kwargs": {"nonsense": 1}}, "unexpected keyword argument 'nonsense'"),
        ("CartPole-v1", {"wrappers": ["no_such_module:W"]}, "no_such_module"),
        ("CartPole-v1", {"wrappers": [3]}, "a wrapper is a function"),
        ("CartPole-v1", {"wrappers": [lambda env: None]}, "must return a gymnasium.Env, got NoneType"),
    ],
)
def test_what_cannot_be_made_is_refused(env, words, error):
    with pytest.raises((TypeError, ValueError), match=error):
        pg.ppo(env, **words, **({} if isinstance(env, gym.Env) else SMALL))


def test_a_file_keeps_the_keywords_and_never_imports_a_wrapper(tmp_path):
    plain = pg.ppo("FrozenLake-v1", env_kwargs=STRAIGHT, **SMALL)
    loaded = pg.load(plain.save(tmp_path / "plain"))
    assert loaded.envs.single_observation_space == gym.spaces.Discrete(64)
    assert loaded.env_words() == plain.env_words() == {"env_kwargs": STRAIGHT, "wrappers": []}
    wrapped = pg.ppo("FrozenLake-v1", env_kwargs=STRAIGHT, wrappers=[f"{WRAPPERS}:short"], **SMALL)
    path = wrapped.save(tmp_path / "wrapped")
    with pytest.raises(ValueError, match=rf"{WRAPPERS}:short.*pass wrappers="):
        pg.load(path)
    again = pg.load(path, wrappers=[short])
    assert max(again.evaluate(3).lengths) <= 7
    assert again.env_words()["env_kwargs"] == STRAIGHT
    assert pg.load(path, env=lambda: gym.make("FrozenLake-v1", map_name="8x8")).env_words() == {}
    assert "wrappers" not in pg.ppo("FrozenLake-v1", **SMALL).metadata()


def test_keywords_that_a_file_cannot_hold_are_asked_for(tmp_path):
    rows = np.array([["S", "F"], ["F", "G"]])
    agent = pg.ppo("FrozenLake-v1", env_kwargs={"desc": rows}, **SMALL)
    path = agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="pass env_kwargs="):
        pg.load(path)
    assert pg.load(path, env_kwargs={"desc": rows}).envs.single_observation_space == gym.spaces.Discrete(4)


@pytest.mark.parametrize(
    "hostile",
    [3, ["x"], {"map_name": {"a": 1}}, {"nonsense": 1}, {"render_mode": "human", "x": 2}, {"render_mode": "nonsense"}],
)
def test_hostile_keywords_in_a_file_are_no_model(hostile, tmp_path):
    path = pg.ppo("FrozenLake-v1", env_kwargs=STRAIGHT, **SMALL).save(tmp_path / "agent")
    state, meta = load_state(path)
    save_state(path, state, meta | {"env_kwargs": hostile})
    with pytest.raises(ValueError, match=r"agent\.safetensors"):
        pg.load(path)


def test_a_render_mode_that_there_is_not_is_refused_with_those_that_there_are(capsys):
    with pytest.raises(ContractError, match=r"FrozenLake-v1 has no render_mode 'nonsense': .* human, ansi, rgb_array"):
        pg.ppo("FrozenLake-v1", env_kwargs={"render_mode": "nonsense"}, **SMALL)
    assert main(["train", "ppo", "FrozenLake-v1", "--env-kwargs", "render_mode=nonsense", *TINY]) == 2
    assert "has no render_mode 'nonsense'" in capsys.readouterr().err
    assert not Path("runs").exists()
    agent = pg.ppo("FrozenLake-v1", env_kwargs={"render_mode": "rgb_array_list"}, **SMALL)  # one that Gymnasium adds
    assert agent.envs.envs[0].render_mode == "rgb_array_list"  # pyright: ignore[reportAttributeAccessIssue]


def test_makers_are_values():
    maker = with_words("FrozenLake-v1", STRAIGHT, ["gymnasium.wrappers:FlattenObservation"])
    assert isinstance(maker, EnvMaker)
    for same in (pickle.loads(pickle.dumps(maker)), deepcopy(maker)):
        assert same == maker
        assert env_name(same) == "FrozenLake-v1"
        assert same().observation_space == gym.spaces.Box(0, 1, (64,), np.int64)
    assert with_words("FrozenLake-v1") == "FrozenLake-v1"


def test_runs_in_other_words_are_other_environments_to_reports():
    base = {"env": "FrozenLake-v1"}
    assert environment(base) == "FrozenLake-v1"
    assert environment(base | {"env_kwargs": {"is_slippery": False}, "wrappers": ["m:W"]}) == (
        "FrozenLake-v1 (is_slippery=false, m:W)"
    )
    assert environment(base | {"env_kwargs": 3, "wrappers": "x"}) == "FrozenLake-v1"


def test_the_command_line_trains_evaluates_and_films_in_the_same_words(capsys):
    words = ["--env-kwargs", "is_slippery=false", "map_name=8x8", "--wrapper", f"{WRAPPERS}:short"]
    words += ["--wrapper", f"{WRAPPERS}:Doubled"]
    assert main(["train", "ppo", *words, "FrozenLake-v1", *TINY, "--run-dir", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["env_kwargs"] == STRAIGHT
    assert config["wrappers"] == [f"{WRAPPERS}:short", f"{WRAPPERS}:Doubled"]
    assert main(["eval", "run", "--episodes", "2"]) == 2
    err = capsys.readouterr().err
    assert f"policygrad eval run --wrapper {WRAPPERS}:short --wrapper {WRAPPERS}:Doubled" in err
    assert main(["eval", "run", "--episodes", "2", "--json", *words[3:]]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("run/evaluation.json").read_text())
    assert main(["collect", "run", "--episodes", "2", *words[3:]]) == 0
    assert main(["report", "run"]) == 0
    assert "FrozenLake-v1 (is_slippery=false" in capsys.readouterr().out


def test_every_seed_has_the_same_words():
    words = ["--env-kwargs", "is_slippery=false", "--wrapper", f"{WRAPPERS}:short", "--seed", "0", "1"]
    for job in make_jobs(parse_train(["ppo", "FrozenLake-v1", *TINY, *words]), []):
        agent = pg.Agent(job.algo, job.env, **job.keywords)
        assert agent.env_words() == {"env_kwargs": {"is_slippery": False}, "wrappers": [f"{WRAPPERS}:short"]}


def test_values_of_pairs_are_json_where_they_are_and_text_elsewhere():
    words = ["a=1", "b=1e-3", "c=false", "d=False", "e=None", "f=8x8", 'g=["SF","FG"]', "h=", "i=a=b", "j={x", "k=null"]
    assert parse_pairs("env_kwargs", words) == {
        "a": 1,
        "b": 1e-3,
        "c": False,
        "d": False,
        "e": None,
        "f": "8x8",
        "g": ["SF", "FG"],
        "h": "",
        "i": "a=b",
        "j": "{x",
        "k": None,
    }
    for wrong in ("x", "1=2", "=3", "a-b=1"):
        with pytest.raises(UsageError, match="keyword=value"):
            parse_pairs("env_kwargs", [wrong])
