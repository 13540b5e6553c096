"""Videos: the frames are those of the episodes that evaluation plays, and who cannot be drawn says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import policygrad as pg
from policygrad.training.video import frame, make_shown, no_display, record, watch

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def frames(path: Path) -> tuple[str, np.ndarray]:
    """What a player shows: the description, and (frames, height, width, 3)."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = next(line for line in done.stderr.decode().splitlines() if "Video: " in line)
    size = re.search(r" (\d+)x(\d+)[, ]", about)
    assert size is not None
    return about, np.frombuffer(done.stdout, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3)


class Counter(gym.Env):
    """Shows how many steps its episode has: the whole picture is 40 · steps bright. Episodes end after 4 steps, and after 2."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    size: tuple[int, ...] = (31, 45, 3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.episodes, self.steps, self.drawn = render_mode, 0, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes, self.steps = self.episodes + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == (4 if self.episodes % 2 else 2), False, {}

    def render(self):
        self.drawn += 1
        return np.full(self.size, 40 * self.steps, np.uint8)


def test_the_frames_are_those_of_the_episodes_with_a_pause_after_each(tmp_path):
    agent = pg.ppo(Counter, num_envs=1, num_steps=8)
    assert record(agent, tmp_path / "in" / "x.mp4", episodes=2) == [4.0, 2.0]
    about, shown = frames(tmp_path / "in" / "x.mp4")
    assert "Video: h264" in about
    assert "yuv420p" in about
    assert " 10 fps" in about
    assert shown.shape[1:] == (32, 46, 3)  # even
    pause = 5
    steps = np.rint(shown.astype(float).mean((1, 2, 3)) / 40)
    assert steps.tolist() == [0, 1, 2, 3, 4, *[4] * pause, 0, 1, 2, *[2] * pause]
    assert (
        np.ptp(shown.astype(int), axis=(1, 2, 3)).max() <= 2
    )  # the row and the column that were added are no other colour
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("greedy", [True, False])
def test_what_is_filmed_is_what_is_evaluated(tmp_path, greedy):
    agent = pg.ppo(lambda: gym.make("CartPole-v1", max_episode_steps=12), num_envs=2, num_steps=64).learn(128)
    seed = {"seed": 77} if greedy else {}
    returns = record(agent, tmp_path / "x.mp4", 2, greedy=greedy, **seed)
    assert returns == pytest.approx(agent.evaluate(2, greedy, **seed).returns)
    _, shown = frames(tmp_path / "x.mp4")
    assert len(shown) == sum(returns) + 2 + 2 * 25
    assert np.ptp(shown.astype(int)) > 100  # a cart, a pole, and the white behind them
    assert len({one.tobytes() for one in shown}) > 10


def test_filming_leaves_the_training_environments_and_the_agent_as_they_were(tmp_path):
    made = []

    def make(**keywords):
        made.append(Counter(**keywords))
        return made[-1]

    agent = pg.ppo(make, num_envs=2, num_steps=8)
    training, before = list(made), agent.policy.flat.clone()
    record(agent, tmp_path / "x.mp4")
    assert len(made) == 3
    assert [env.drawn for env in training] == [0, 0]
    assert made[2].render_mode == "rgb_array"
    assert made[2].drawn == 5
    assert bool((agent.policy.flat == before).all())


def test_environments_are_made_again_from_id_spec_and_callable():
    class Unrecorded(gym.Wrapper):
        pass

    with no_display():
        for env in (
            "CartPole-v1",
            gym.make("CartPole-v1"),
            lambda: gym.make("CartPole-v1", max_episode_steps=7),
            lambda render_mode=None: Unrecorded(gym.make("CartPole-v1", render_mode=render_mode)),
            lambda: Unrecorded(gym.make("CartPole-v1", render_mode="rgb_array")),
            Counter("rgb_array"),
        ):
            made = make_shown(env, "rgb_array")
            made.reset(seed=0)
            assert frame(made).ndim == 3
            made.close()
        limited = make_shown(lambda: gym.make("CartPole-v1", max_episode_steps=7), "rgb_array")
        assert limited.get_wrapper_attr("_max_episode_steps") == 7


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (Counter(), "its render modes are rgb_array, human; pass env="),
        (lambda: Counter(), "pass env=, a callable that makes it with render_mode='rgb_array'"),
        (SyncVectorEnv([Counter]), "vector environment"),
    ],
)
def test_who_cannot_be_made_again_with_a_render_mode_is_refused_with_the_way_out(env, said, tmp_path):
    agent = pg.ppo(env, num_steps=8)
    with pytest.raises(ValueError, match=said):
        record(agent, tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())
    if not isinstance(env, SyncVectorEnv):
        assert record(agent, tmp_path / "x.mp4", env=lambda: Counter("rgb_array")) == [4.0]


def test_a_class_in_a_file_is_drawn_by_its_keyword(tmp_path, monkeypatch):
    (tmp_path / "drawn.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\n\nclass Tall(CartPoleEnv):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    env = make_shown("./drawn.py:Tall", "rgb_array")
    assert type(env.unwrapped).__name__ == "Tall"
    env.reset(seed=0)
    assert frame(env).shape == (400, 600, 3)
    with pytest.raises(ValueError, match="unknown environment"):
        make_shown("./drawn.py:Short", "rgb_array")


def test_modes_that_an_environment_does_not_have_are_refused():
    class Blind(Counter):
        metadata = {"render_modes": []}  # noqa: RUF012

    with pytest.raises(ValueError, match="render modes are not known"):
        make_shown(Blind, "rgb_array")
    gym.register("Blind-v0", lambda **_: Blind(None))
    try:
        with pytest.raises(ValueError, match="Blind-v0 cannot be drawn"):
            make_shown("Blind-v0", "rgb_array")
    finally:
        del gym.registry["Blind-v0"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "got None"),
        ("pixels", "got str"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 2), np.uint8), "4, 2"),
    ],
)
def test_pictures_that_are_none_are_refused(image, said, tmp_path):
    class Strange(Counter):
        def render(self):
            return image

    with pytest.raises(ValueError, match=rf"render\(\) must give an image.*{said}"):
        record(pg.ppo(Strange, num_envs=1, num_steps=8), tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 1), (8, 8, 4)])
def test_grey_pictures_and_transparent_ones_are_drawn(size, tmp_path):
    class Shaped(Counter):
        pass

    Shaped.size = size
    record(pg.ppo(Shaped, num_envs=1, num_steps=8), tmp_path / "x.mp4")
    assert frames(tmp_path / "x.mp4")[1].shape[1:] == (8, 8, 3)


def test_pictures_that_change_their_size_are_refused(tmp_path):
    class Grows(Counter):
        def render(self):
            return np.zeros((4, 4 + 2 * self.steps, 3), np.uint8)

    with pytest.raises(ValueError, match=r"one size, got \(4, 4\) and then \(4, 6\)"):
        record(pg.ppo(Grows, num_envs=1, num_steps=8), tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


def test_a_film_that_breaks_off_leaves_the_old_one(tmp_path):
    class Breaks(Counter):
        def render(self):
            if self.steps == 3:
                raise RuntimeError("out of film")
            return super().render()

    (tmp_path / "x.mp4").write_text("old")
    with pytest.raises(RuntimeError, match="out of film"):
        record(pg.ppo(Breaks, num_envs=1, num_steps=8), tmp_path / "x.mp4")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_files_that_are_no_mp4_or_cannot_be_written_are_refused(tmp_path):
    agent = pg.ppo(Counter, num_envs=1, num_steps=8)
    with pytest.raises(ValueError, match=r"\.mp4"):
        record(agent, tmp_path / "x.avi")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write"):
        record(agent, tmp_path / "file" / "x.mp4")


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install policygrad\[video\]"):
        record(pg.ppo(Counter, num_envs=1, num_steps=8), tmp_path / "x.mp4")


def test_the_environment_variables_are_put_back(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    before = dict(os.environ)
    with no_display():
        assert os.environ.get("SDL_VIDEODRIVER") == ("dummy" if sys.platform.startswith("linux") else None)
    assert dict(os.environ) == before
    monkeypatch.setenv("DISPLAY", ":0")
    with no_display():
        assert "SDL_VIDEODRIVER" not in os.environ
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
    monkeypatch.delenv("DISPLAY")
    with no_display():
        assert os.environ["SDL_VIDEODRIVER"] == "offscreen"


def test_watching_draws_nothing_itself_and_needs_a_display(monkeypatch):
    made = []

    def make(**keywords):
        made.append(Counter(**keywords))
        return made[-1]

    agent = pg.ppo(make, num_envs=1, num_steps=8)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ValueError, match="no display"):
        watch(agent)
    monkeypatch.setenv("DISPLAY", ":0")
    assert watch(agent, episodes=3) == [4.0, 2.0, 4.0]
    assert made[-1].render_mode == "human"
    assert made[-1].episodes == 3  # the one after the last is not shown
    assert made[-1].drawn == 0


def test_a_callback_films_the_policy_of_the_moment_and_training_stays_what_it_is(tmp_path):
    small: dict[str, Any] = {
        "num_envs": 2,
        "num_steps": 16,
        "minibatches": 1,
        "hidden": (4,),
        "steps": 200,
        "preset": {},
    }
    plain = pg.ppo("CartPole-v1", **small).learn(200)
    agent = pg.ppo("CartPole-v1", **small)
    run = pg.train(agent, tmp_path / "run", episodes=1, callback=pg.VideoCallback(every=80))
    assert torch.equal(agent.policy.flat, plain.policy.flat)
    films = sorted((run.path / "videos").iterdir(), key=lambda path: int(path.stem.partition("-")[2]))
    assert len(films) == 2
    assert all(len(frames(film)[1]) > 5 for film in films)
    assert 80 <= int(films[0].stem.partition("-")[2]) < 80 + 32
    with pytest.raises(ValueError, match="needs directory="):
        pg.ppo("CartPole-v1", **small).learn(50, pg.VideoCallback())
    with pytest.raises(TypeError, match=r"EvalCallback has no keyword 'eval_freq': use every="):
        pg.EvalCallback(eval_freq=500)
    with pytest.raises(TypeError, match=r"CheckpointCallback has no keyword 'save_path': use directory="):
        pg.CheckpointCallback(save_path="here")
