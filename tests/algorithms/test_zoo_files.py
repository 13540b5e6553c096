"""RL Zoo's YAML as presets: what is translated, what is left out and said, and that nothing in a file is executed."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import policygrad as pg
from policygrad.algorithms.config import ConfigError, resolve
from policygrad.algorithms.zoo import DEFAULTS, WHY, ZooError, literal, read
from policygrad.cli import main

pytest.importorskip("yaml")

PPO = """
default:
  n_timesteps: !!float 1e6
  policy: 'MlpPolicy'
CartPole-v1:
  n_envs: 8
  n_timesteps: !!float 1e5
  policy: 'MlpPolicy'
  n_steps: 32
  batch_size: 256
  gae_lambda: 0.8
  n_epochs: 20
  ent_coef: 0.0
  learning_rate: lin_0.001
  clip_range: lin_0.2
HalfCheetah-v3: &cheetah
  normalize: "{'norm_obs': True, 'norm_reward': False}"
  n_envs: 1
  n_timesteps: 1e6
  n_steps: 8
  batch_size: 256
  vf_coef: 0.58
  use_sde: True
  policy_kwargs: "dict(log_std_init=-2, ortho_init=False, activation_fn=nn.ReLU,
                       net_arch=[dict(pi=[256, 256], vf=[256, 256])])"
Hopper-v3:
  <<: *cheetah
  gamma: 0.999
  policy_kwargs: "dict(net_arch=dict(pi=[64], vf=[256, 256]), activation_fn=nn.GELU)"
"""


def file(folder: Path, text: str, name: str = "zoo.yml") -> Path:
    path = folder / name
    path.write_text(text, "utf8")
    return path


def config(preset: Any, algo: str) -> dict[str, Any]:
    return resolve(algo, "", {}, preset)[0]


def test_a_table_is_translated_on_top_of_their_defaults(tmp_path) -> None:
    preset = read(file(tmp_path, PPO), "ppo", "CartPole-v1")
    found = config(preset, "ppo")
    expected = {
        "steps": 100_000, "num_envs": 8, "num_steps": 32, "minibatches": 1, "epochs": 20, "lam": 0.8, "gamma": 0.99,
        "lr": "linear(0.001, 0.0)", "clip": "linear(0.2, 0.0)", "max_grad_norm": 0.5, "hidden": (64, 64),
        "standardize": "batch", "normalize_obs": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert preset.left == {}
    assert preset.said() == ""
    assert pickle.loads(pickle.dumps(preset)).source == str(preset) == "zoo.yml of RL Zoo, CartPole-v1"


def test_expressions_another_version_and_what_is_left_out(tmp_path) -> None:
    path = file(tmp_path, PPO)
    preset = read(path, "ppo", "HalfCheetah-v5")
    found = config(preset, "ppo")
    expected = {"steps": 10**6, "hidden": (256, 256), "activation": "relu", "log_std": -2.0, "normalize_obs": True}
    assert {name: found[name] for name in expected} == expected
    assert found["minibatches"] == 1  # 256 rows of 8
    assert set(preset.left) == {"vf_coef", "use_sde"}
    assert "vf_coef (the critic has an optimiser of its own)" in preset.said()
    other = read(path, "ppo", "Hopper-v3")
    assert config(other, "ppo")["gamma"] == 0.999
    assert config(other, "ppo")["hidden"] == (64,)
    assert {"net_arch", "activation_fn"} <= set(other.left)
    assert config(read(path, "ppo", "Swimmer-v5"), "ppo")["steps"] == 10**6  # their table `default`


@pytest.mark.parametrize(
    ("algo", "text", "expected", "left"),
    [
        ("sac", "ent_coef: 'auto_0.1'", {"alpha": 0.1, "learn_alpha": True, "warmup": 100, "hidden": (256, 256)}, set()),
        ("sac", "ent_coef: 0.1\n  train_freq: 32\n  gradient_steps: -1", {"alpha": 0.1, "learn_alpha": False}, set()),
        ("sac", "train_freq: [1, 'episode']", {"num_steps": 1}, {"train_freq"}),
        ("sac", "policy_kwargs: dict(log_std_init=-3, net_arch=[400, 300])", {"hidden": (400, 300)}, {"log_std_init"}),
        ("td3", "noise_type: normal\n  noise_std: 0.5", {"noise": 0.5, "twin": True, "hidden": (400, 300)}, set()),
        ("dqn", "exploration_final_eps: 0.07\n  gradient_steps: 8", {"epsilon": 0.07, "gradient_steps": 8}, set()),
        ("trpo", "n_steps: 512\n  n_envs: 2\n  batch_size: 512", {"critic_minibatches": 2, "max_kl": 0.01}, set()),
        ("a2c", "n_steps: 8", {"num_steps": 8, "lr": 7e-4, "standardize": "no"}, {"use_rms_prop"}),
    ],
)  # fmt: skip
def test_every_algorithm_of_both(tmp_path, algo, text, expected, left) -> None:
    preset = read(file(tmp_path, f"E-v0:\n  {text}\n"), algo, "E-v0")
    found = config(preset, algo)
    assert {name: found[name] for name in expected} == expected
    assert set(preset.left) == left


def test_their_correlated_noise_has_the_same_stationary_deviation(tmp_path) -> None:
    """Against the process itself: x ← x − θ x dt + σ √dt z."""
    import numpy as np

    found = config(
        read(file(tmp_path, "E-v0:\n  noise_type: ornstein-uhlenbeck\n  noise_std: 0.5"), "ddpg", "E-v0"), "ddpg"
    )
    rng, x = np.random.default_rng(0), np.zeros(4000)
    for _ in range(3000):
        x = x - 0.15 * x * 0.01 + 0.5 * 0.1 * rng.standard_normal(4000)
    assert found["noise"] == pytest.approx(x.std(), rel=4 / np.sqrt(2 * 4000))
    assert found["noise_autocorrelation"] == pytest.approx(1.0 - 0.15 * 0.01)


@pytest.mark.parametrize("algo", DEFAULTS)
def test_the_defaults_are_those_of_stable_baselines3(algo: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    home = pytest.importorskip("sb3_contrib") if algo == "trpo" else sb3
    theirs = {n: p.default for n, p in inspect.signature(getattr(home, algo.upper()).__init__).parameters.items()}
    own = {"net_arch", "activation_fn", "noise_std"}
    assert {n: v for n, v in DEFAULTS[algo].items() if n not in own} == {
        n: theirs[n] for n in DEFAULTS[algo] if n not in own
    }


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "dict(a=open('x'))",
        "[x for x in y]",
        "dict(**x)",
        "1 if 2 else 3",
        "f'{x}'",
        "(",
        "lambda: 1",
    ],
)
def test_expressions_that_are_no_literals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no expression of literals"):
        literal(text)


def test_literals_are_read() -> None:
    assert literal("dict(a=-2, b=[1, (2, 3)], c=nn.ReLU, d={'x': True}, e=None)") == {
        "a": -2, "b": [1, [2, 3]], "c": "ReLU", "d": {"x": True}, "e": None,
    }  # fmt: skip


def test_yaml_that_would_run_code_or_is_none_is_refused(tmp_path) -> None:
    evil = file(tmp_path, f"E-v0:\n  n_envs: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    for path in (evil, file(tmp_path, "a: [", "broken.yml"), file(tmp_path, "[" * 1200, "deep.yml")):
        with pytest.raises(ZooError, match="is no YAML"):
            read(path, "ppo", "E-v0")
    assert not (tmp_path / "made").exists()
    with pytest.raises(ZooError, match="has no hyperparameters for E-v0; it has: F-v0"):
        read(file(tmp_path, "F-v0:\n  n_envs: 1\n"), "ppo", "E-v0")
    with pytest.raises(ZooError, match="not for reinforce"):
        read(evil, "reinforce", "E-v0")
    hostile = read(file(tmp_path, "E-v0:\n  policy_kwargs: \"dict(x=__import__('os'))\"\n"), "ppo", "E-v0")
    assert hostile.left == {"policy_kwargs": "it is no expression of literals"}


def test_the_command_line_trains_with_it_and_says_what_it_left_out(tmp_path, capsys) -> None:
    text = "CartPole-v1:\n  n_envs: 2\n  n_steps: 16\n  n_timesteps: 64\n  learning_rate: lin_0.01\n  use_sde: true\n"
    path = file(tmp_path, text)
    words = f"train ppo CartPole-v1 --zoo {path} --runs-root {tmp_path} --eval-episodes 1 --clip 0.3 --name pole"
    assert main(words.split()) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "preset zoo.yml of RL Zoo, CartPole-v1, changed: clip 0.3" in out
    assert "left out use_sde" in out
    run = next(tmp_path.glob("pole/ppo/*"))
    agent = pg.load(run)
    assert agent.config["lr"] == "linear(0.01, 0.0)"
    assert agent.env_name == "CartPole-v1"
    assert main([*words.split(), "--preset", "CartPole-v1"]) == 2
    assert "give one of the two" in capsys.readouterr().err


def test_it_can_be_written_as_a_preset_of_ours(tmp_path) -> None:
    preset = read(file(tmp_path, PPO), "ppo", "HalfCheetah-v3")
    toml = file(tmp_path, preset.to_toml(), "own.toml")
    assert config(str(toml), "ppo") == config(preset, "ppo")
    with pytest.raises(ConfigError):
        config(str(file(tmp_path, preset.to_toml().replace("n_envs", "n_env"), "wrong.toml")), "ppo")


def test_all_atari_games_have_one_table_and_what_it_prepares_is_done_already(tmp_path) -> None:
    path = file(
        tmp_path,
        "atari:\n  env_wrapper:\n    - stable_baselines3.common.atari_wrappers.AtariWrapper\n  frame_stack: 4\n"
        "  policy: 'CnnPolicy'\n  n_envs: 8\n  n_steps: 128\n  n_epochs: 4\n  batch_size: 256\n  n_timesteps: !!float 1e7\n"
        "  learning_rate: lin_2.5e-4\n  clip_range: lin_0.1\n  vf_coef: 0.5\n  ent_coef: 0.01\n"
        "BreakoutNoFrameskip-v4:\n  n_envs: 2\n",
        "ppo.yml",
    )
    for env in ("PongNoFrameskip-v4", "ALE/Pong-v5"):
        found = read(path, "ppo", env)
        assert [config(found, "ppo")[name] for name in ("num_envs", "minibatches", "epochs")] == [8, 4, 4]
        assert found.left == {"vf_coef": WHY["vf_coef"]}
        assert str(found) == "ppo.yml of RL Zoo, atari"
    assert read(path, "ppo", "BreakoutNoFrameskip-v4")["n_envs"] == 2
    with pytest.raises(ZooError, match="has no hyperparameters for CartPole-v1"):
        read(path, "ppo", "CartPole-v1")
    with pytest.raises(ValueError, match=r"cannot read .*nowhere\.yml"):
        read(tmp_path / "nowhere.yml", "ppo", "CartPole-v1")
