"""Recording and showing episodes: an mp4 or a window. They are played as in evaluations, in an environment made for it."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import check
from policygrad.data import Row
from policygrad.envs.families import family_of
from policygrad.envs.single import EnvLike, check_env_id, env_name, make_one, own_maker
from policygrad.files import reason, sweep
from policygrad.training.agent import Agent
from policygrad.training.evaluate import EVALUATION_SEED

FPS = 30  # of environments that do not say
LAST_FRAME_SECONDS = 0.5  # seconds that an episode's last frame stays


def record(
    agent: Agent,
    path: str | Path,
    episodes: int = 1,
    seed: int = EVALUATION_SEED,
    greedy: bool = True,
    env: EnvLike | None = None,
) -> list[float]:
    """Record whole episodes, one after the other, as an mp4 with the environment's frame rate; return their returns.

    They are `agent.evaluate`'s first ones, unless drawing changes the environment. env: another one to play in. Works
    without a display. Raises ValueError for an environment that cannot be drawn, ImportError without imageio-ffmpeg.
    """
    _check_agent(agent)
    path = Path(os.path.expanduser(path))
    if path.suffix != ".mp4":
        raise ValueError(f"a video is an .mp4 file, got {path.name!r}")
    ffmpeg()  # refused before the first episode is played
    with no_display(), shown(agent, env, "rgb_array") as made, Mp4(path, frame_rate(made)) as film:
        playing = Played(made, episodes, lambda: film.add(frame(made)), film.pause)
        return list(agent.evaluate(episodes, greedy, seed, playing).returns)


class VideoCallback:
    """Record whole episodes every so many steps as step-<N>.mp4, in `directory` or in a run's `videos`.

    every: in environment steps. episodes, greedy, env: as for `record`. They are played in separate environments, so that
    training does not change. Raises ValueError, before training, for an environment that cannot be drawn, and ImportError
    without imageio-ffmpeg.
    """

    folder = "videos"

    def __init__(
        self,
        every: int = 50_000,
        episodes: int = 1,
        *,
        directory: str | Path | None = None,
        greedy: bool = True,
        env: EnvLike | None = None,
    ) -> None:
        self.every, self.episodes = int(check("steps", int, every)), episodes
        self.given = self.directory = None if directory is None else Path(os.path.expanduser(directory))
        self.greedy, self.env, self.next = greedy, env, 0

    def start(self, agent: Agent) -> None:
        """Training begins."""
        if self.directory is None:
            raise ValueError("VideoCallback needs directory=, where the videos go")
        ffmpeg()
        with no_display(), shown(agent, self.env, "rgb_array"):
            self.next = agent.collector.steps_done + self.every

    def __call__(self, agent: Agent, row: Row | None) -> None:
        steps = agent.collector.steps_done
        if steps >= self.next and self.directory is not None:
            self.next = steps + self.every
            self.directory.mkdir(parents=True, exist_ok=True)
            record(agent, self.directory / f"step-{steps}.mp4", self.episodes, greedy=self.greedy, env=self.env)

    def state_dict(self) -> dict[str, Any]:
        """When the next one is due."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.next = state["next"]


def watch(
    agent: Agent, episodes: int = 5, seed: int = EVALUATION_SEED, greedy: bool = True, env: EnvLike | None = None
) -> list[float]:
    """Play whole episodes in a window; return their returns. Ctrl-C ends it."""
    _check_agent(agent)
    headless = sys.platform.startswith("linux") and not displays()
    if headless and "SDL_VIDEODRIVER" not in os.environ:
        instead = "record a video instead, with `policygrad video RUN` or pg.record(agent, path)"
        raise ValueError(f"there is no display for a window: {instead}")
    with shown(agent, env, "human") as made:
        return list(agent.evaluate(episodes, greedy, seed, Played(made, episodes)).returns)


def _check_agent(agent: Any) -> None:
    if not hasattr(agent, "evaluation_env"):
        raise TypeError(
            f"expected an Agent to play, got {agent!r:.100}: policygrad.load(path) gives that of a run or a file"
        )


class Played(gym.Wrapper):
    """Calls after every step and reset, and after an episode's last step; rests when so many episodes are over."""

    def __init__(
        self,
        env: gym.Env,
        episodes: int,
        look: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(env)
        self.left, self.look, self.ended = episodes, look, ended
        self.last: tuple[Any, dict[str, Any]] | None = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; after the last episode there is nothing to see any more."""
        if self.left == 0 and self.last is not None:
            return self.last
        self.last = self.env.reset(**kwargs)
        self.look()
        return self.last

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        out = self.env.step(action)
        obs, _, terminated, truncated, info = out
        self.look()
        if terminated or truncated:
            self.left, self.last = self.left - 1, (obs, info)
            self.ended()
        return out


@contextmanager
def shown(agent: Agent, env: EnvLike | None, mode: str) -> Iterator[gym.Env]:
    """In this context there is an environment that renders; it is closed afterwards."""
    made = make_shown(agent.evaluation_env() if env is None else env, mode)
    try:
        yield made
    finally:
        made.close()


def make_shown(env: EnvLike, mode: str) -> gym.Env:
    """An environment like this one with a render mode, from its id, its spec, or a callable's keyword `render_mode`."""
    name = env_name(env)
    hint = f"pass env=, a callable that makes it with render_mode={mode!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modes that there are not: that is said below
            made = _make(env, mode)
    except gym.error.DependencyNotInstalled as error:
        raise ValueError(f"{name} needs a package that is not installed to be drawn: {error}") from error
    except (TypeError, ValueError, gym.error.Error) as error:
        raise ValueError(f"{name} cannot be drawn: {error}. Or {hint}") from error
    if made is not None and made.render_mode == mode and mode in made.metadata.get("render_modes", [mode]):
        return made
    metadata = getattr(env if made is None else made, "metadata", {})
    modes = ", ".join(map(str, metadata.get("render_modes", [])))
    if made is not None and made is not env:
        made.close()
    raise ValueError(f"{name} cannot be drawn as {mode!r}: its render modes are {modes or 'not known'}; {hint}")


def _make(env: EnvLike, mode: str) -> gym.Env | None:
    if isinstance(env, str) and ":" in env:
        env = own_maker(env) or env  # a class or function of the user's
    if isinstance(env, str):
        if family_of(env) is not None:
            return make_one(env, render_mode=mode)
        return gym.make(check_env_id(env), render_mode=mode, disable_env_checker=True)
    if isinstance(env, VectorEnv):
        raise ValueError("it is a vector environment")
    if isinstance(env, gym.Env):
        return env if env.render_mode == mode else _from_spec(env, mode)
    keywords = inspect.signature(env).parameters.values()
    if any(k.name == "render_mode" or k.kind is k.VAR_KEYWORD for k in keywords):
        return env(render_mode=mode)  # pyright: ignore[reportCallIssue]
    made = env()
    if made.render_mode == mode or made.spec is None:
        return made
    try:
        return _from_spec(made, mode)
    finally:
        made.close()


def _from_spec(env: gym.Env, mode: str) -> gym.Env | None:
    return None if env.spec is None else gym.make(env.spec, render_mode=mode, disable_env_checker=True)


def frame_rate(env: gym.Env) -> float:
    """The frames per second of an environment."""
    return float(env.metadata.get("render_fps") or FPS)


def frame(env: gym.Env) -> np.ndarray:
    """The current picture of the environment: (height, width, 3) uint8."""
    drawn: Any = env.render()
    image = np.asarray(drawn) if drawn is not None else np.zeros(0)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or image.dtype != np.uint8:
        what = "None" if drawn is None else f"{type(drawn).__name__} of shape {image.shape} and type {image.dtype}"
        raise ValueError(
            f"{env_name(env)}'s render() must give an image of type uint8 and shape (height, width, 3), got {what}"
        )
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]


class Mp4:
    """An mp4 that appears when it is complete, H.264 with colours that every player and browser can read."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.writer: Any = None
        self.last: np.ndarray | None = None

    def __enter__(self) -> Mp4:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.path.parent)
            self.temporary.unlink(missing_ok=True)
            self.temporary.touch(exist_ok=False)  # nothing is written through a link
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {reason(error)}") from error
        return self

    def add(self, image: np.ndarray) -> None:
        """A frame. H.264 wants even sizes: the last row and column are doubled where they are odd."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self.writer is None:
            self.writer = ffmpeg().write_frames(
                str(self.temporary),
                (image.shape[1], image.shape[0]),
                fps=self.fps,
                codec="libx264",
                pix_fmt_out="yuv420p",
                macro_block_size=1,
                ffmpeg_log_level="error",
                output_params=["-f", "mp4", "-movflags", "+faststart"],  # plays before all of it has been read
            )
            self._send(None)
        elif self.last is not None and image.shape != self.last.shape:
            raise ValueError(f"frames must have one size, got {self.last.shape[:2]} and then {image.shape[:2]}")
        self._send(np.ascontiguousarray(image))
        self.last = image

    def pause(self) -> None:
        """Let the last frame stay for a moment."""
        for _ in range(round(LAST_FRAME_SECONDS * self.fps)):
            self._send(np.ascontiguousarray(self.last))

    def _send(self, image: np.ndarray | None) -> None:
        try:
            self.writer.send(image)
        except OSError as error:
            raise RuntimeError(f"ffmpeg stopped writing {self.path}: {str(error).partition(chr(10))[0]}") from error

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.writer is not None:
            self.writer.close()
        whole = self.temporary.exists() and self.temporary.stat().st_size > 0
        if kind is None and whole:
            self.temporary.replace(self.path)
        self.temporary.unlink(missing_ok=True)
        if kind is None and not whole:
            raise RuntimeError(f"ffmpeg wrote nothing to {self.path}: is the disk full?")


def ffmpeg() -> Any:
    """The imageio_ffmpeg module, which brings a program of that name."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError("videos need the package imageio-ffmpeg: pip install policygrad[video]") from error
    return imageio_ffmpeg


def displays() -> bool:
    """Whether the machine has a display."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def no_display() -> Iterator[None]:
    """Let pygame draw without a display if there is none, and without its greeting."""
    wanted = {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    if sys.platform.startswith("linux") and not displays():
        wanted["SDL_VIDEODRIVER"] = "dummy"
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
