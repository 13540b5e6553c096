"""What users get wrong: exit code 2, three lines at most, no traceback, and the hint that mends it."""

from __future__ import annotations

import pickle
from pathlib import Path

import gymnasium as gym
import pytest

from policygrad.cli import main
from policygrad.stored.storage import load_state, save_state

CARTPOLE = ["CartPole-v1", "--steps", "60", "--num-envs", "1", "--eval-episodes", "2"]


class Planted:
    """A pickle of it writes a file when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


class Chat(gym.Env):
    """Its observations are words."""

    observation_space, action_space = gym.spaces.Text(5), gym.spaces.Discrete(2)


if "Chat-v0" not in gym.registry:
    gym.register("Chat-v0", Chat)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A directory with two runs under `runs`, and things that are none."""
    root = tmp_path_factory.mktemp("mistakes")
    for seed in ("1", "2"):
        words = [
            "train",
            "a2c",
            *CARTPOLE,
            "--seed",
            seed,
            "--run-dir",
            str(root / f"runs/CartPole-v1/a2c/seed{seed}-x"),
            "-q",
        ]
        assert main(words) == 0
    run = root / "runs/CartPole-v1/a2c/seed1-x"
    (root / "empty").mkdir()
    (root / "several" / "seed1").mkdir(parents=True)
    (root / "several" / "seed1" / "file").write_text("text")
    (root / "file").write_text("text")
    (root / "model.pt").write_bytes(pickle.dumps(Planted()))
    model = (run / "policy.safetensors").read_bytes()
    (root / "truncated.safetensors").write_bytes(model[: len(model) // 2])
    (root / "pickle.safetensors").write_bytes(pickle.dumps(Planted()))
    (root / "nothing.safetensors").write_bytes(b"")
    (root / "stopped").mkdir()
    (root / "stopped" / "config.json").write_bytes((run / "config.json").read_bytes())
    for name, file, text in (
        ("bad-config", "config.json", "{"),
        ("other-config", "config.json", '{"algo": "a2c"}'),
        ("bad-metrics", "metrics.jsonl", "nonsense\n"),
        ("list-metrics", "metrics.jsonl", "[1]\n"),
        ("bad-evaluation", "evaluation.json", '{"greedy": {}}'),
    ):
        (root / name).mkdir()
        for good in ("config.json", "metrics.jsonl", "evaluation.json"):
            (root / name / good).write_bytes((run / good).read_bytes())
        (root / name / file).write_text(text)
    return root


MISTAKES = [
    # commands, algorithms, environments
    ("trian ppo CartPole-v1", ["'trian'", "'train'"]),
    (
        "frobnicate",
        [
            "train, resume, eval, collect, export, video, watch, plot, compare, tune, sweep, report, doctor, runs, lab, "
            "push, pull, list, completion"
        ],
    ),
    ("train", ["policygrad train ppo CartPole-v1", "reinforce"]),
    ("train ppo", ["policygrad train ppo CartPole-v1", "list envs"]),
    ("train trpo CartPole-v1 --solver dense", ["solver = dense is for at most 1,500 parameters", "use cg"]),
    ("train trpo CartPole-v1 --fisher-eigenvalues 1000", ["fisher", "in [0, 100]"]),
    ("train pppo CartPole-v1", ["'pppo'", "Did you mean 'ppo'"]),
    ("train reinforc CartPole-v1", ["Did you mean 'reinforce'"]),
    ("train zzz CartPole-v1", ["'zzz'", "reinforce, off_policy_pg, actor_critic, a2c, npg, trpo, ppo, ppo_kl"]),
    ("train ppo CartPol-v1", ["'CartPol-v1'", "Did you mean 'CartPole-v1'"]),
    ("train ppo lunarlander-v3", ["Did you mean 'LunarLander-v3'"]),
    ("train ppo LunarLander-v2", ["LunarLander-v2 is LunarLander-v3 now"]),
    ("train ppo LunarLander-v2 --help", ["LunarLander-v3"]),
    ("train ppo Xyzzy", ["'Xyzzy'", "policygrad list envs"]),
    ("train ppo no_such_module:Env-v0", ["no_such_module"]),
    ("train CartPole-v1 ppo", ["policygrad train ppo CartPole-v1"]),
    ("train ppo CartPole-v1 more", ["'more'", "ALGO ENV"]),
    ("train ppo Chat-v0", ["Text", "Box"]),
    # flags
    ("train ppo CartPole-v1 --num-step 3", ["--num-step", "Did you mean --num-steps"]),
    ("train ppo CartPole-v1 --learning_rte=3", ["Did you mean --learning-rate"]),
    ("train ppo CartPole-v1 --sede 3", ["Did you mean --seed"]),
    ("train ppo CartPole-v1 --frobnicate 3", ["--frobnicate", "policygrad train ppo CartPole-v1 --help"]),
    ("train a2c CartPole-v1 --clip 0.2", ["a2c", "--clip", "ppo has"]),
    ("train a2c CartPole-v1 --batch-size 64", ["--batch-size"]),
    ("train ppo CartPole-v1 -x", ["-x"]),
    ("train ppo CartPole-v1 --frobnicate 64 64", ["has no flag --frobnicate", "train ppo CartPole-v1 --help"]),
    ("train ppo CartPole-v1 --frobnicate --steps 2000", ["has no flag --frobnicate"]),
    ("train ppo --frobnicate CartPole-v1", ["has no flag --frobnicate", "train ppo CartPole-v1 --help"]),
    ("train --frobnicate ppo CartPole-v1 --lr 1", ["has no flag --frobnicate"]),
    ("train --frobnicate", ["has no flag --frobnicate", "policygrad train --help"]),
    ("train ppo CartPole-v1 --hidden --frobnicate 3", ["has no flag --frobnicate"]),
    # what Stable-Baselines3 and CleanRL have
    ("train ppo CartPole-v1 --net-arch 64 64", ["--net-arch", "--hidden 64 64"]),
    ("train ppo CartPole-v1 --norm-adv --steps 2000", ["--norm-adv", "--standardize batch"]),
    ("train ppo CartPole-v1 --no-norm-adv", ["--no-norm-adv", "--standardize no"]),
    ("train a2c CartPole-v1 --vf_coef=0.5", ["--vf-coef", "separate networks", "--critic-lr"]),
    ("train ppo CartPole-v1 --anneal-lr", ["--lr-schedule linear"]),
    ("train ppo CartPole-v1 --device gpu", ["device must be cpu", "'gpu'"]),
    ("train ppo CartPole-v1 --cuda", ["--cuda", "--device cuda"]),
    ("train ppo CartPole-v1 --verbose 1", ["-q"]),
    ("train ppo CartPole-v1 --track", ["--wandb PROJECT"]),
    ("train ppo CartPole-v1 --tensorboard-log logs", ["tensorboard --logdir runs"]),
    ("train ppo CartPole-v1 --capture-video", ["policygrad video RUN"]),
    ("train reinforce CartPole-v1 --n-steps 32", ["--n-steps (a2c has)", "train reinforce CartPole-v1 --help"]),
    # one hyperparameter, twice
    ("train ppo CartPole-v1 --lr 1e-3 --learning-rate 1e-4", ["--lr and --learning-rate", "one of them"]),
    ("train ppo CartPole-v1 --learning_rate=1 --lr=1", ["--learning-rate and --lr"]),
    ("train ppo CartPole-v1 -n 100 --total-timesteps 200", ["-n and --total-timesteps"]),
    ("train ppo CartPole-v1 --batch-size 64 --num-minibatches 4", ["--batch-size and --num-minibatches"]),
    ("train ppo CartPole-v1 --standardize no --normalize-advantage", ["--standardize and --normalize-advantage"]),
    ("train ppo CartPole-v1 --normalize-obs --no-normalize-obs", ["--normalize-obs and --no-normalize-obs"]),
    ("train ppo CartPole-v1 --lr 1e-3 --lr 1e-4", ["--lr is given twice"]),
    ("train ppo CartPole-v1 --lr=1e-3 --lr=1e-3", ["--lr is given twice"]),
    ("train ppo CartPole-v1 --seed 0 --seed 1", ["--seed is given twice"]),
    ("train ppo CartPole-v1 --algo ppo --algo a2c", ["--algo is given twice"]),
    ("train ppo CartPole-v1 -n 100 -n200", ["-n is given twice"]),
    ("eval latest --episodes 3 --episodes 4", ["--episodes is given twice"]),
    ("plot latest --out a.png --out b.png", ["--out is given twice"]),
    # values
    ("train ppo CartPole-v1 --lr abc", ["--lr", "'abc'", "a number"]),
    ("train ppo CartPole-v1 --lr nan", ["--lr", "'nan'", "a number"]),
    ("train ppo CartPole-v1 --lr 1000", ["lr", "1000", "[0, 100]"]),
    ("train ppo CartPole-v1 --lr", ["--lr", "expected 1 argument"]),
    ("train ppo CartPole-v1 --gamma 1.5", ["gamma", "1.5", "[0, 1]"]),
    ("train ppo CartPole-v1 --clip 0", ["clip", "above 0"]),
    ("train ppo CartPole-v1 --target-kl small", ["--target-kl", "'small'", "or none"]),
    ("train ppo CartPole-v1 --steps 0", ["steps", "0", "at least 1"]),
    ("train ppo CartPole-v1 --steps 1.5", ["--steps", "'1.5'", "whole number"]),
    ("train ppo CartPole-v1 --steps k", ["--steps", "'k'", "20k"]),
    ("train ppo CartPole-v1 --steps 1.0001k", ["--steps", "'1.0001k'", "whole number"]),
    ("train ppo CartPole-v1 --legal info", ["no flag --legal", "--mask-source"]),
    ("train ppo Pendulum-v1 --correlation 0.5", ["no flag --correlation", "--noise-autocorrelation"]),
    ("train ppo CartPole-v1 --lr 1k", ["--lr", "'1k'", "a number"]),
    ("train ppo CartPole-v1 --steps inf", ["--steps", "'inf'", "whole number"]),
    ("train ppo CartPole-v1 --num-envs 0", ["--num-envs = 0", "[1, 4096]"]),
    ("train ppo CartPole-v1 --num-envs=-3", ["--num-envs = -3", "[1, 4096]"]),
    ("train ppo CartPole-v1 --seed -1", ["--seed", "-1", "[0, "]),
    ("train ppo CartPole-v1 --seed x", ["--seed", "'x'", "whole number"]),
    ("train ppo CartPole-v1 --seed 0 x 2", ["unexpected argument 'x'"]),
    ("train ppo CartPole-v1 --seed 0,1,", ["--seed", "''", "whole number"]),
    ("train ppo CartPole-v1 --seed 3-1", ["--seed = 3-1", "0-3"]),
    ("train ppo CartPole-v1 --seed 0-1000", ["--seed = 0-1000", "1,000"]),
    ("train ppo CartPole-v1 --seed 0-3 2", ["--seed", "2 twice"]),
    ("train ppo CartPole-v1 --seed 0 4294967296", ["--seed = 4294967296", "[0, "]),
    ("train ppo CartPole-v1 --seed 0 1 --jobs 0", ["--jobs = 0", "at least 1"]),
    ("train ppo CartPole-v1 --seed 0 1 --gamma 1.5", ["--gamma = 1.5", "[0, 1]"]),
    ("train ppo CartPole-v1 --seed 0 1 --run-dir runs/CartPole-v1/a2c/seed1-x", ["seed1-x is a run directory"]),
    ("train ppo CartPole-v1 --seed 0 1 --run-dir several", ["several/seed1 is not empty"]),
    ("train ppo CartPole-v1 --seed 0 1 --run-dir file", ["file", "exists"]),
    ("train ppo CartPole-v1 --backend jax", ["--backend = 'jax'", "auto, gymnasium, compiled, split, async, envpool"]),
    ("train ppo CartPole-v1 --hidden 64,x", ["--hidden", "'x'", "whole number"]),
    ("train ppo CartPole-v1 --hidden 64 0", ["hidden", "0", "[1, "]),
    ("train ppo CartPole-v1 --activation gelu", ["activation", "'gelu'", "tanh, relu, silu"]),
    ("train reinforce CartPole-v1 --baseline mean", ["baseline", "'mean'", "leave-one-out"]),
    ("train ppo CartPole-v1 --normalize-obs=maybe", ["--normalize-obs", "'maybe'", "true or false"]),
    ("train ppo CartPole-v1 --no-normalize-obs true", ["--no-normalize-obs", "no value"]),
    ("train ppo CartPole-v1 --batch-size 7 --num-envs 2 --num-steps 64", ["--batch-size = 7", "128"]),
    ("train ppo CartPole-v1 --eval-episodes 0", ["--eval-episodes", "0", "at least 1"]),
    ("train reinforce CartPole-v1 --returns total --state-discount", ["TotalReturn"]),
    # digits of other scripts, and absurd sizes
    ("train ppo CartPole-v1 --lr ٣", ["--lr", "a number"]),
    ("train ppo CartPole-v1 --num-envs ٤", ["--num-envs", "a whole number"]),
    ("train ppo CartPole-v1 --seed ٠-٣", ["--seed", "a whole number"]),
    ("train ppo CartPole-v1 --steps 1e300", ["--steps = 1e+300", "at most 1e+15"]),
    ("train ppo CartPole-v1 --num-steps 9223372036854775808", ["--num-steps", "10000000"]),
    ("train ppo CartPole-v1 --num-steps 1e12", ["--num-steps", "10000000"]),
    ("train ppo CartPole-v1 --num-steps 1e7 --num-envs 4096 --minibatches 1", ["GiB", "lower num_steps"]),
    ("train ppo CartPole-v1 --ent-coef 1e308", ["--ent-coef", "[-1, 1000]"]),
    ("train ppo CartPole-v1 --max-grad-norm 1e300", ["--max-grad-norm", "1e+30"]),
    (f"train ppo CartPole-v1 --hidden {'65536 ' * 30}", ["hidden", "GiB", "lower hidden"]),
    ("train ppo CartPole-v1 --eval-episodes 1e99", ["--eval-episodes", "at most 10,000,000"]),
    ("eval latest --episodes 1e99", ["--episodes", "at most 10,000,000"]),
    ("collect latest --episodes 1e99", ["--episodes", "at most 10,000,000"]),
    ("video latest --episodes 1e99", ["--episodes", "at most 10,000,000"]),
    # names that lead nowhere
    ("train ppo ..:..", ["'..' is not the name of a module"]),
    ("train ppo .x:Y-v0", ["'.x' is not the name of a module"]),
    ("train ..:.. CartPole-v1", ["'..' is not the name of a module"]),
    ("train ppo sys:exit", ["SystemExit"]),
    ("train ppo a/b:C", ["'a/b' is not the name of a module"]),
    ("train ppo :", ["':'", "module:name"]),
    ("train ppo no.py:C", ["there is no file"]),
    ("train ppo highway-v0", ["'highway-v0'", "module:highway-v0"]),
    # what environments are made with
    ("train ppo CartPole-v1 --env-kwargs x", ["--env-kwargs", "keyword=value", "'x'"]),
    ("train ppo --env-kwargs CartPole-v1", ["needs an environment"]),
    ("train ppo CartPole-v1 --env-kwargs a=1 a=2", ["--env-kwargs has a twice"]),
    ("train ppo CartPole-v1 --env-kwargs nonsense=1", ["unexpected keyword argument 'nonsense'"]),
    ("train ppo CartPole-v1 --wrapper no_such_module:W", ["no_such_module"]),
    ("train ppo CartPole-v1 --wrapper gymnasium.wrappers:Nothing", ["gymnasium.wrappers has no 'Nothing'"]),
    ("train ppo CartPole-v1 --wrapper gymnasium:__version__", ["a wrapper is a function"]),
    ("train ppo CartPole-v1 --seed 0 1 --wrapper gymnasium:__version__", ["a wrapper is a function"]),
    ("train ppo CartPole-v1 --wrapper builtins:id", ["the wrapper builtins:id must return a gymnasium.Env, got int"]),
    ("train ppo CartPole-v1 --wrapper builtins:id --backend envpool", ["EnvPool has its own environments"]),
    ("eval latest --env-kwargs nonsense=1", ["unexpected keyword argument 'nonsense'"]),
    ("eval latest --wrapper builtins:id", ["the wrapper builtins:id must return a gymnasium.Env, got int"]),
    # run directories
    ("eval stopped", ["stopped was stopped before its first checkpoint"]),
    ("train a2c CartPole-v1 --run-dir runs", ["runs", "not empty"]),
    ("train a2c CartPole-v1 --run-dir file", ["file", "exists"]),
    ("train a2c CartPole-v1 --run-dir file/x", ["file/x", "Not a directory"]),
    # eval
    ("eval", ["RUN"]),
    ("eval nowhere", ["'nowhere'", "CartPole-v1/a2c/seed1-x"]),
    ("eval nowhere --runs-root empty", ["'nowhere'", "empty"]),
    ("eval latest --runs-root empty", ["'latest'", "empty"]),
    ("eval seed", ["2 runs", "seed1-x", "seed2-x"]),
    ("eval empty", ["empty", "policy.safetensors"]),
    ("eval model.pt", ["model.pt", ".safetensors"]),
    ("eval truncated.safetensors", ["truncated.safetensors", "damaged"]),
    ("eval pickle.safetensors", ["pickle.safetensors", "not a policygrad model"]),
    ("eval nothing.safetensors", ["nothing.safetensors"]),
    ("eval latest --episodes 0", ["--episodes", "0", "at least 1"]),
    ("eval latest --episodes many", ["--episodes", "'many'", "whole number"]),
    ("eval latest --episods 3", ["--episods", "Did you mean --episodes"]),
    ("eval latest --env Pendulum-v1", ["observation_space", "CartPole-v1"]),
    ("eval latest --env Pendulm-v1", ["Did you mean 'Pendulum-v1'"]),
    # video, watch
    ("video", ["RUN"]),
    ("video nowhere", ["'nowhere'", "CartPole-v1/a2c/seed1-x"]),
    ("video latest --out film.gif", ["'film.gif'", ".mp4"]),
    ("video latest --episodes 0", ["--episodes", "at least 1"]),
    ("video latest --seed x", ["--seed", "'x'", "whole number"]),
    ("video latest --fps 3", ["video has no flag --fps"]),
    ("video truncated.safetensors", ["truncated.safetensors", "damaged"]),
    ("watch nowhere", ["'nowhere'"]),
    # completion
    ("completion", ["bash,zsh,fish"]),
    ("completion tcsh", ["'tcsh'", "bash, zsh, fish"]),
    # plot, list
    ("plot", ["RUN"]),
    ("plot nothing", ["'nothing'"]),
    ("plot empty", ["empty", "config.json"]),
    ("plot file", ["file", "config.json"]),
    ("plot latest --out curve.gif", ["'curve.gif'", ".png, .pdf, .svg"]),
    ("plot bad-config", ["bad-config/config.json"]),
    ("plot other-config", ["other-config/config.json", "algo, env, seed"]),
    ("plot bad-metrics", ["bad-metrics/metrics.jsonl", "line 1", "nonsense"]),
    ("plot list-metrics", ["list-metrics/metrics.jsonl", "line 1"]),
    ("plot bad-evaluation", ["bad-evaluation/evaluation.json"]),
    ("plot latest --out file/x.png", ["file"]),
    ("list frogs", ["'frogs'", "presets, algorithms, envs"]),
    ("list presets envs", ["'envs'"]),
]


NAMES = ("CartPole-v1", "LunarLander-v2", "TotalReturn", "EnvPool", "CartPoleEnv.__init__()", "SystemExit")


@pytest.mark.parametrize(
    "words",
    [
        "train ppo CartPole-v1 --render",
        "train reinforce CartPole-v1 --n-steps 32",
        "train ppo CartPole-v1 --dir x",
        "train ppo CartPole-v1 --hel",
        "train ppo CartPole-v1 --vf-coef 0.5",
    ],
)
def test_no_flag_is_suggested_that_is_not_a_hyperparameters(words, capsys):
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert f"no flag {words.split()[3]}" in err
    assert "Did you mean" not in err


@pytest.mark.parametrize(("words", "hints"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_gets_exit_code_2_and_a_short_message_with_the_hint(words, hints, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    before = sorted(trained.rglob("*"))
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("policygrad: ")
    assert not lines[0][12].isupper() or lines[0].split()[1] in NAMES, lines[0]
    assert "Traceback" not in captured.err
    assert not [hint for hint in hints if hint not in captured.err], captured.err
    assert sorted(trained.rglob("*")) == before  # nothing was made, nothing was executed


def test_legal_actions_that_nobody_tells_are_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "a2c", *CARTPOLE, "--mask-source", "info", "-q"]) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "policygrad: training stopped: mask_source = info, but the environment's info has no 'action_mask'"
    )
    assert len(rest) <= 2


def test_more_than_memory_can_hold_is_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "a2c", *CARTPOLE, "--num-steps", "1e14", "-q"]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 3


def test_a_model_file_may_not_have_modules_imported(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    Path("planted.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    state, meta = load_state(Path("runs/CartPole-v1/a2c/seed1-x/policy.safetensors"))
    save_state(Path("hostile.safetensors"), state, meta | {"env": "planted:CartPole-v1"})
    assert main(["eval", "hostile.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "planted:CartPole-v1" in err
    assert "--env" in err
    assert not Path("executed").exists()
    Path("hostile.safetensors").unlink()
    Path("planted.py").unlink()
