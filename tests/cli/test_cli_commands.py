"""Every command, in this process, from its words to its files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from zoo import SCORED, home

import policygrad as pg
from policygrad.algorithms.config import aliases, parameters, presets, show, tuned_for
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import COMMANDS, main
from policygrad.cli.arguments import parse_train
from policygrad.envs.families import family_of
from policygrad.envs.probes import Target, TimeLimit
from policygrad.interop.metrics import METRICS

TINY = ["--steps", "400", "--num-envs", "2", "--eval-episodes", "4"]
SMALL = {
    "ppo": ["--num-steps", "50", "--epochs", "2", "--minibatches", "2"],
    "a2c": ["--num-steps", "10"],
    "a3c": ["--num-steps", "10"],
    "reinforce": ["--episodes", "4"],
    "off_policy_pg": ["--episodes", "4"],
    "actor_critic": [],
    "npg": ["--num-steps", "50", "--critic-epochs", "2"],
    "trpo": ["--num-steps", "50", "--critic-epochs", "2"],
    "ppo_kl": ["--num-steps", "50", "--epochs", "2", "--minibatches", "2"],
    "pqn": ["--num-steps", "10"],
    **{
        algo: ["--num-steps", "10", "--warmup", "50", "--batch-size", "8", "--gradient-steps", "1", "--hidden", "8"]
        for algo in ("dqn", "ddpg", "td3", "sac")
    },
}


class Interrupting(TimeLimit):
    """Presses Ctrl-C in its 60th step."""

    steps = 0

    def step(self, action):
        Interrupting.steps += 1
        if Interrupting.steps == 60:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


class Endless(Target):
    """Never ends an episode."""

    def step(self, action):
        return self.observe(), 0.0, False, False, {}


class Fading(TimeLimit):
    """Its episodes end until it is evaluated."""

    endless = False

    def step(self, action):
        obs, rew, terminated, truncated, info = super().step(action)
        return obs, rew, terminated and not Fading.endless, truncated and not Fading.endless, info


class Broken(TimeLimit):
    """Its 30th reward is not a number."""

    steps = 0

    def step(self, action):
        Broken.steps += 1
        return self.observe(), float("nan") if Broken.steps == 30 else 0.0, False, Broken.steps % 2 == 0, {}


ENTRIES = {"Interrupting": Interrupting, "Endless": Endless, "Fading": Fading, "Broken": Broken, "Bandit": Target}
for name, entry in ENTRIES.items():
    if f"{name}-v0" not in gym.registry:
        gym.register(f"{name}-v0", entry, order_enforce=False, disable_env_checker=True)


for name in ("Twice-v10", "Twice-v9"):
    if name not in gym.registry:
        gym.register(name, Target)  # pyright: ignore[reportArgumentType]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A trained run, under a `runs` directory of its own."""
    path = tmp_path_factory.mktemp("trained") / "runs" / "CartPole-v1" / "ppo" / "seed7-20260101-000000"
    assert main(["train", "ppo", "CartPole-v1", "--seed", "7", *TINY, *SMALL["ppo"], "--run-dir", str(path), "-q"]) == 0
    return path


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_the_commands_and_the_algorithms(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in (*COMMANDS, "examples", *RECIPES))


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"policygrad {pg.__version__}\n"


def test_help_imports_nothing_heavy_and_takes_under_a_tenth_of_a_second():
    code = (
        "import sys; from policygrad.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'gymnasium', 'matplotlib', 'scipy', 'rich', 'argparse', 'multiprocessing'}; "
        "sys.exit(repr(heavy & set(sys.modules) or 0))"
    )
    seconds = []
    for _ in range(5):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()  # of processes that have ended; others use the machine
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.stderr.strip() == "0"  # none of them
    assert min(seconds) < 0.15


def test_python_dash_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "policygrad", "--version"], capture_output=True, text=True)
    assert done.stdout == f"policygrad {pg.__version__}\n"


@pytest.mark.parametrize("algo", list(RECIPES))
def test_train_help_shows_the_presets_values_for_an_environment_and_the_recipes_without_one(algo, capsys):
    there = [env for env in tuned_for(algo) if (of := family_of(env)) is None or find_spec(of.module)]
    for env in ["", *there]:
        preset = presets(algo).get(env, {})
        assert main(["train", algo, *([env] if env else []), "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for name, (_, default) in parameters(algo).items():
            shown = f"[{show(preset[name])}*]" if name in preset else f"[{show(default)}]"
            after = text[text.index(f" --{name.replace('_', '-')}") :]
            assert shown in after[:420], f"{name}: {shown} not in {after[:420]}"


def test_train_without_words_but_help_lists_the_algorithms(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {algo} " in out for algo in RECIPES)


@pytest.mark.parametrize("algo", list(RECIPES))
def test_train_leaves_a_whole_run_directory_and_says_what_it_did(algo, capsys):
    env = home(algo)
    assert main(["train", algo, env, "--seed", "3", *TINY, *SMALL[algo]]) == 0
    out = capsys.readouterr().out
    (run,) = Path("runs", env, algo).iterdir()
    assert run.name.startswith("seed3-")
    assert (f"tuned preset for {env}" in out) == (env in presets(algo))
    assert all(text in out for text in (str(run), "400 steps", "greedy", "sampled", "95 % interval"))
    (events,) = run.glob("events.out.tfevents.*")
    assert {p.name for p in run.iterdir()} == {
        events.name,
        "monitor.csv",
        "evaluations.npz",
        "config.json",
        "state.json",
        "metrics.jsonl",
        "checkpoints",
        "policy.safetensors",
        "evaluation.json",
        "learning_curve.png",
    }
    config = json.loads((run / "config.json").read_text())
    assert (config["algo"], config["env"], config["seed"]) == (algo, env, 3)
    assert set(config["config"]) == set(parameters(algo))
    assert config["config"]["steps"] == 400
    assert config["config"]["num_envs"] == 2
    assert config["command"][:4] == ["policygrad", "train", algo, env]
    assert set(config["versions"]) == {"policygrad", "python", "torch", "numpy", "gymnasium"}
    assert config["kernel"] == "closed_form"  # a training that is too short to compile for
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["steps"] for row in rows]
    assert len(rows) >= 2
    assert steps == sorted(set(steps))
    assert {"return_mean", "steps_per_second"} <= set(rows[-1])
    assert {"kl", "entropy"} <= set(rows[-1]) or (algo not in SCORED and {"td_error", "epsilon"} <= set(rows[-1]))
    last = pg.load(sorted((run / "checkpoints").iterdir(), key=lambda p: int(p.stem[5:]))[-1])
    assert last.collector.steps_done >= steps[-1]
    assert len(list((run / "checkpoints").iterdir())) == 2
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert list(evaluation) == ["greedy", "sampled"]
    for entry in evaluation.values():
        assert set(entry) == {"mean", "std", "ci95", "return_range", "returns"}
        assert len(entry["returns"]) == 4
        assert entry["mean"] == pytest.approx(np.mean(entry["returns"]))
        low, high = entry["ci95"]
        assert low is high is None or low <= entry["mean"] <= high
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_train_on_continuous_actions_says_that_there_is_no_preset(capsys):
    assert main(["train", "a2c", "Bandit-v0", *TINY]) == 0
    assert "no preset for Bandit-v0: a2c's defaults" in capsys.readouterr().out


def test_quiet_training_prints_nothing(capsys):
    assert main(["train", "a2c", "Bandit-v0", *TINY, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_equal_trainings_give_equal_bytes_and_another_seed_others(tmp_path):
    for path, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        words = ["train", "ppo", "CartPole-v1", "--seed", seed, *TINY, *SMALL["ppo"], "--run-dir", path, "-q"]
        assert main(words) == 0
    a, b, c = (Path(p, "policy.safetensors").read_bytes() for p in "abc")
    assert a == b
    assert a != c
    assert Path("a/evaluation.json").read_bytes() == Path("b/evaluation.json").read_bytes()


def test_eval_repeats_the_runs_own_evaluation_exactly(run, capsys):
    assert main(["eval", str(run), "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "evaluation.json").read_text())


def test_eval_finds_runs_by_name_by_prefix_and_the_latest(run, capsys):
    root = str(run.parents[2])
    outputs = []
    for word in ("latest", "seed7", "CartPole-v1/ppo/seed7", "CartPole-v1/ppo/seed7-20260101-000000"):
        assert main(["eval", word, "--runs-root", root, "--episodes", "2", "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert all(output == outputs[0] for output in outputs)
    assert main(["eval", str(run / "policy.safetensors"), "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert f"{outputs[0]['greedy']['mean']:,.1f}" in out


def test_eval_plays_the_last_checkpoint_of_a_run_without_a_policy(run, tmp_path, capsys):
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.stem[5:]))
    for name in ("step-9.safetensors", "step-10.safetensors"):  # as text, step-9 would be the last
        (tmp_path / "half" / "checkpoints" / name).write_bytes(newest.read_bytes() if "10" in name else b"")
    assert main(["eval", "half", "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "evaluation.json").read_text())


def test_plot_draws_one_run_into_its_directory_and_several_here(run, tmp_path, capsys):
    (run / "learning_curve.png").unlink()
    assert main(["plot", "latest", "--runs-root", str(run.parents[2])]) == 0
    assert capsys.readouterr().out.strip() == str(run / "learning_curve.png")
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    other = ["train", "a2c", "CartPole-v1", *TINY, *SMALL["a2c"], "--run-dir", "runs/other", "-q"]
    assert main(other) == 0
    assert main(["plot", str(run.parents[2]), "runs/other"]) == 0
    assert capsys.readouterr().out.strip() == "learning_curves.png"
    assert main(["plot", str(run), "other", "--out", "deep/both.svg"]) == 0
    assert Path("learning_curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--metric kl", "kl.png"),
        ("--metric return-mean --smooth 2", "learning_curve-smooth2.png"),
        ("--by algo --metric kl --smooth 2", "kl-by-algo-smooth2.png"),
        ("--by lr,clip", "learning_curve-by-lr-clip.png"),
    ],
)
def test_another_picture_than_the_learning_curve_has_a_file_of_its_own(words, name, run, capsys):
    before = (run / "learning_curve.png").read_bytes()
    assert main(["plot", str(run), *words.split()]) == 0
    assert capsys.readouterr().out.strip() == str(run / name)
    assert (run / name).exists()
    assert (run / "learning_curve.png").read_bytes() == before
    (run / name).unlink()


def test_another_picture_of_several_runs_has_a_file_of_its_own_and_says_in_what_they_differ(run, capsys):
    other = ["train", "ppo", "CartPole-v1", *TINY, *SMALL["ppo"], "--lr", "0.5", "--run-dir", "runs/lr", "-q"]
    assert main(other) == 0
    with pytest.warns(UserWarning, match="CartPole-v1: runs of one curve differ in"):
        assert main(["plot", str(run), "runs/lr", "--metric", "kl", "--by", "algo"]) == 0
    assert capsys.readouterr().out.strip() == "kl-by-algo.png"
    assert not Path("learning_curves.png").exists()


def test_video_films_the_greedy_policy_into_the_run_directory(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    assert main(["video", str(run)]) == 0
    words = capsys.readouterr().out.split()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert words == [str(run / "video.mp4"), "return", f"{evaluation['greedy']['returns'][0]:,.1f}"]
    assert (run / "video.mp4").read_bytes()[4:8] == b"ftyp"
    (run / "video.mp4").unlink()
    calls = []
    monkeypatch.setattr(
        "policygrad.training.video.record", lambda agent, out, **k: calls.append((out, k)) or [1.0, 2.0]
    )
    checkpoint = str(next((run / "checkpoints").iterdir()))
    assert main(["video", checkpoint, "--episodes", "2", "--seed", "7", "--sampled", "--env", "CartPole-v1"]) == 0
    assert capsys.readouterr().out == f"{run / 'video.mp4'}  return 1.0, 2.0\n"
    assert main(["video", str(run), "--out", "deep/film.mp4"]) == 0
    assert calls == [
        (run / "video.mp4", {"episodes": 2, "greedy": False, "seed": 7}),
        (Path("deep/film.mp4"), {"episodes": 1, "greedy": True}),
    ]


def test_watch_plays_in_a_window_until_it_is_closed_or_says_that_there_is_none(run, capsys, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    if sys.platform.startswith("linux"):
        assert main(["watch", str(run)]) == 2
        assert "no display" in capsys.readouterr().err
    calls = []
    monkeypatch.setattr("policygrad.training.video.watch", lambda agent, **k: calls.append(k))
    assert main(["watch", str(run), "--seed", "3"]) == 0
    assert calls == [{"episodes": 5, "greedy": True, "seed": 3}]

    def closed(agent, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("policygrad.training.video.watch", closed)
    assert main(["watch", str(run)]) == 0


def test_plot_by_algorithm_and_by_configuration(run, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("policygrad.reports.plots.plot_runs", lambda runs, out, *how: calls.append(how))
    for words in ([], ["--by", "algo"], ["--by=lr", "--metric", "kl", "--smooth", "5"]):
        assert main(["plot", str(run), *words]) == 0
    assert calls == [("config", "return_mean", 1), ("algo", "return_mean", 1), ("lr", "kl", 5)]


@pytest.mark.parametrize("backend", ["gymnasium", "compiled", "envpool"])
def test_backend_reaches_the_agent(backend):
    given = parse_train(["ppo", "CartPole-v1", "--backend", backend, "--lr", "1"])
    assert given.keywords == {"lr": 1.0, "backend": backend}
    assert parse_train(["ppo", "CartPole-v1"]).keywords == {}


def test_lists_show_every_preset_algorithm_and_supported_environment(capsys):
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    parts = []
    for what in ("presets", "algorithms", "envs", "policies", "versions", "metrics"):
        assert main(["list", what]) == 0
        parts.append(capsys.readouterr().out)
    assert everything == "\n".join(parts)
    for algo in RECIPES:
        for env, preset in presets(algo).items():
            steps = preset.get("steps", parameters(algo)["steps"][1])
            assert any({env, algo, f"{steps:,}"} <= set(line.split()) for line in parts[0].splitlines())
        row = next(line for line in parts[1].splitlines() if line.startswith(algo + " "))
        assert " × " in row  # its cell of the grid
    ids = [line.split()[0] for line in parts[2].splitlines()[1:]]
    assert {"CartPole-v1", "LunarLander-v3", "Pendulum-v1", "Ant-v5", "Bandit-v0", "Twice-v10"} <= set(ids)
    assert {"FrozenLake-v1", "Blackjack-v1", "Taxi-v4", "CliffWalking-v1"} <= set(ids)
    assert not {"CartPole-v0", "Twice-v9", "Ant-v4", "tabular/Blackjack-v0", "phys2d/CartPole-v1"} & set(ids)
    said = dict(line.split(maxsplit=1) for line in parts[4].splitlines()[1:])
    assert said["policygrad"] == pg.__version__
    assert said["torch"] == torch.__version__
    assert said["python"] == sys.version.split()[0]
    described = {line.split()[0]: line for line in parts[5].splitlines()[1:-1]}
    assert set(described) == set(METRICS)
    assert re.match(
        r"kl +train/approx_kl +exact mean KL\(old ‖ new\), nats. Healthy: PPO: 0.002 to 0.02$", described["kl"]
    )


def test_environments_listed_without_a_need_can_be_trained(capsys):
    assert main(["list", "envs"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines()[1:] if "gymnasium[" not in line]
    light = re.compile(r"gymnasium\.envs\.(classic_control|toy_text)")
    chosen = [e for e in (row.split()[0] for row in rows) if light.match(str(gym.spec(e).entry_point))]
    assert len(chosen) >= 10
    for env in chosen:
        pg.a2c(env, num_envs=1)


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["--n-steps", "32", "--n_envs=3"], {"num_steps": 32, "num_envs": 3}),
        (["--total-timesteps", "1e6"], {"steps": 1_000_000}),
        (["-n", "1_000"], {"steps": 1000}),
        (["--clip-range", "0.1", "--gae_lambda", ".9", "--learning-rate=3e-4"], {"clip": 0.1, "lam": 0.9, "lr": 3e-4}),
        (["--clip_coef", "0.3", "--update-epochs", "4"], {"clip": 0.3, "epochs": 4}),
        (["--batch-size", "64"], {"batch_size": 64}),
        (["--steps", "20k", "--num-steps", "1.5k"], {"steps": 20_000, "num_steps": 1500}),
        (["--total-timesteps=2M"], {"steps": 2_000_000}),
        (["--hidden", "32", "16"], {"hidden": (32, 16)}),
        (["--hidden", "32,16"], {"hidden": (32, 16)}),
        (["--hidden=(32,)"], {"hidden": (32,)}),
        (["--hidden", "none"], {"hidden": ()}),
        (["--max-grad-norm", "none", "--target_kl", "0.01"], {"max_grad_norm": None, "target_kl": 0.01}),
        (["--normalize-obs"], {"normalize_obs": True}),
        (["--no-normalize_obs"], {"normalize_obs": False}),
        (["--normalize-obs", "False"], {"normalize_obs": False}),
        (["--normalize-obs=true"], {"normalize_obs": True}),
        (["--no-normalize-advantage"], {"normalize_advantage": False}),
        (["--normalize-advantage", "true"], {"normalize_advantage": True}),
        (["--standardize", "NO"], {"standardize": "no"}),
        (["--log-std", "-1"], {"log_std": -1.0}),
    ],
)
def test_flags_are_read_as_their_users_mean_them(words, overrides):
    arguments = parse_train(["ppo", "CartPole-v1", *words])
    assert arguments.overrides == overrides
    assert [type(v) for v in arguments.overrides.values()] == [type(v) for v in overrides.values()]


@pytest.mark.parametrize("alias", sorted({alias for algo in RECIPES for alias in aliases(algo)}))
def test_every_alias_is_a_flag_of_the_recipes_that_have_its_keyword(alias):
    flag = "--" + alias.replace("_", "-")
    having = [algo for algo in RECIPES if alias in aliases(algo)]
    assert having
    for algo in having:
        word = "true" if alias in ("normalize_advantage", "autotune") else "2"
        assert len(parse_train([algo, "CartPole-v1", flag, word]).overrides) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["PPO", "CartPole-v1", "--seed", "5", "--hidden", "8", "8", "--normalize-obs"],
        ["--seed", "5", "--normalize-obs", "--hidden", "8", "8", "ppo", "CartPole-v1"],
        ["ppo", "--hidden", "8,8", "--seed=5", "CartPole-v1", "--normalize-obs"],
        ["--algo", "ppo", "--env-id", "CartPole-v1", "--seed", "5", "--hidden", "8", "8", "--normalize-obs", "true"],
        ["--env", "CartPole-v1", "ppo", "--seed", "5", "--hidden", "8", "8", "--normalize_obs"],
    ],
)
def test_algorithm_and_environment_may_stand_anywhere(words):
    arguments = parse_train(words)
    assert (arguments.algo, arguments.env, arguments.seeds) == ("ppo", "CartPole-v1", (5,))
    assert arguments.overrides == {"hidden": (8, 8), "normalize_obs": True}


@pytest.fixture
def interruptible():
    """SIGINT as a terminal's program has it: started in the background, it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_saves_the_iteration_and_says_where(interruptible, capsys):
    Interrupting.steps = 0
    assert main(["train", "a2c", "Interrupting-v0", *TINY, *SMALL["a2c"], "--run-dir", "stopped"]) == 130
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 2
    assert "stopped" in err
    assert err.endswith("next: policygrad resume stopped")
    assert "policy.safetensors" in err
    checkpoints = sorted(Path("stopped/checkpoints").iterdir(), key=lambda p: int(p.stem[5:]))
    assert checkpoints[-1].name in err
    assert pg.load("stopped/policy").env_name == "Interrupting-v0"
    assert Path("stopped/policy.safetensors").exists()
    assert not Path("stopped/evaluation.json").exists()
    assert main(["eval", "stopped", "--episodes", "2"]) == 0
    assert main(["plot", "stopped"]) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_reward_that_is_no_number_stops_training_with_a_message(capsys):
    Broken.steps = 0
    assert main(["train", "a2c", "Broken-v0", *TINY, *SMALL["a2c"], "--run-dir", "broken", "-q"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) <= 3
    assert "reward is nan" in err[0]
    assert "broken" in err[-1]


def test_an_environment_that_never_ends_an_episode_stops_reinforce_with_a_message(capsys, monkeypatch):
    from functools import partial

    from policygrad.envs.collector import Collector

    monkeypatch.setattr("policygrad.training.agent.Collector", partial(Collector, max_episode_steps=200))
    assert main(["train", "reinforce", "Endless-v0", *TINY, "-q"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) <= 3
    assert "time limit" in err[0]


def test_a_batch_of_one_step_stops_training_with_a_message(capsys):
    words = "train a2c Bandit-v0 --num-envs 1 --num-steps 1 --standardize batch --steps 20 --run-dir few -q"
    assert main(words.split()) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) <= 3
    assert err[0].startswith("policygrad: ")
    assert "at least 2" in err[0]


def test_one_trajectory_for_leave_one_out_is_a_message(capsys):
    words = "train reinforce Bandit-v0 --num-envs 1 --episodes 1 --baseline leave-one-out --steps 20 --run-dir one -q"
    assert main(words.split()) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) <= 3
    assert "at least 2" in err[0]


def test_too_few_rows_while_training_are_a_message_that_says_what_is_saved(capsys, monkeypatch):
    from policygrad.data import TooFewError
    from policygrad.training.train import Recorder

    def fail(self, agent, row):
        if agent.collector.steps_done >= 200:
            self.run.save_checkpoint(agent.save, agent.collector.steps_done)
            raise TooFewError("Standardized needs at least 2 valid steps, got 1")

    monkeypatch.setattr(Recorder, "__call__", fail)
    assert main(["train", "a2c", "Bandit-v0", *TINY, "--run-dir", "few", "-q"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "policygrad: training stopped: Standardized needs at least 2 valid steps, got 1"
    assert err[1].startswith("few holds checkpoints/step-2")
    assert err[2] == "next: policygrad resume few"


def test_an_endless_evaluation_is_a_message_that_says_what_is_saved(capsys, monkeypatch):
    from functools import partial

    from policygrad.training import evaluate, face, train

    before = train.assess

    def endless(*args, **keywords):
        Fading.endless = True
        return before(*args, **keywords)

    monkeypatch.setattr(train, "assess", endless)
    monkeypatch.setattr(face, "evaluate", partial(evaluate.evaluate, max_episode_steps=50))
    try:
        assert main(["train", "a2c", "Fading-v0", *TINY, *SMALL["a2c"], "--run-dir", "fading", "-q"]) == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 3
        assert err[0].startswith("policygrad: evaluation stopped: ")
        assert "50 steps" in err[0]
        assert err[1].startswith("fading holds policy.safetensors and checkpoints/step-")
        assert main(["eval", "fading"]) == 2
        assert "50 steps" in capsys.readouterr().err
    finally:
        Fading.endless = False
    assert main(["eval", "fading", "--episodes", "2"]) == 0


MODULE = """
import gymnasium as gym
from policygrad.envs.probes import Target
gym.register("MyTarget-v0", Target, reward_threshold=-0.25)
"""


def test_an_environment_of_a_module_beside_the_user_is_trained_evaluated_and_plotted(capsys, monkeypatch):
    Path("myenvs.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert main(["train", "a2c", "myenvs:MyTarget-v0", *TINY]) == 0
        (run,) = Path("runs/myenvs-MyTarget-v0/a2c").iterdir()
        config = json.loads((run / "config.json").read_text())
        assert config["env"] == "myenvs:MyTarget-v0"
        assert config["reward_threshold"] == -0.25
        capsys.readouterr()
        assert main(["eval", "latest", "--episodes", "4", "--json"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert "Importing a module runs its code" in lines[0]
        assert lines[1] == "policygrad eval latest --env myenvs:MyTarget-v0"
        assert main([*lines[1].split()[1:], "--episodes", "4", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((run / "evaluation.json").read_text())
        assert main(["plot", "latest"]) == 0
    finally:
        gym.registry.pop("MyTarget-v0", None)
        sys.modules.pop("myenvs", None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ppo CartPole-v1 --num-envs 8", "tuned preset for CartPole-v1\n"),
        (
            "ppo CartPole-v1 --num-steps 25 --lr 3e-4",
            "tuned preset for CartPole-v1, changed: num_steps 25, lr 0.0003\n",
        ),
        ("a2c Bandit-v0 --hidden 8 8", "no preset for Bandit-v0: a2c's defaults, changed: hidden 8 8\n"),
        (
            "ppo CartPole-v1 --num-envs 1 --num-steps 8 --epochs 1 --minibatches 2 --clip 0.3",
            "changed: num_envs 1, num_steps 8, epochs 1, minibatches 2, …\n",
        ),
        ("ppo CartPole-v1 --num-envs 4", "100 steps (trains one whole iteration of 512 steps); tuned"),
        ("reinforce Bandit-v0 --episodes 200", "100 steps (trains one whole iteration of 200 episodes); "),
        ("a2c Bandit-v0 --num-envs 2 --num-steps 50", "100 steps; no preset"),
    ],
)
def test_the_first_line_says_what_was_changed_and_how_long_an_iteration_is(words, says, capsys):
    assert main(["train", *words.split(), "--steps", "100", "--eval-episodes", "1"]) == 0
    assert says in capsys.readouterr().out.splitlines()[0] + "\n"


def test_the_first_line_says_who_steps_the_environments_where_it_is_not_this_process(tmp_path, capsys):
    words = ["train", "reinforce", "CartPole-v1", "--num-envs", "2", "--episodes", "2", "--steps", "30"]
    for backend, text in (("async", "; environments in separate processes"), ("gymnasium", "")):
        folder = str(tmp_path / backend)
        main([*words, "--eval-episodes", "1", "--run-dir", folder, "--backend", backend])
        first = capsys.readouterr().out.split("run directory")[0]
        assert ("environments in" in first) == bool(text)
