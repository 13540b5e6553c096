"""Environments that misbehave: each is named in one sentence, or what is learned from it is right.

    python benchmarks/survival/environments.py

Every case is an environment of five steps an episode, which shows the time and pays 1 a step, with one fault. `rows()` trains
on each for a few steps and evaluates: "named" is an error of the package in one line that has the words expected, "right" is
a record whose observations, ends and returns are those of five steps. Everything else is "wrong", with what happened.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import policygrad as pg
from policygrad.errors import PolicygradError
from policygrad.training.callbacks import EvalCallback
from policygrad.training.evaluate import evaluate
from policygrad.tree import take

LENGTH, AT = 5, 3  # steps of an episode; the step in which a fault shows
BOX, BYTES = spaces.Box(-9.0, 9.0, (3,)), spaces.Box(0, 255, (3,), np.uint8)
NUMBER = spaces.Discrete(6)
DICT = spaces.Dict(a=spaces.Box(-9.0, 9.0, (2,)), b=NUMBER)
PAIR = spaces.Tuple((spaces.Box(-9.0, 9.0, (2,)), NUMBER))
Answer = tuple[Any, ...]


class Plain(gym.Env):
    """Shows the time. `fault(answer, time)` is what a step answers at its fault; `at_reset(answer)` likewise of every reset."""

    def __init__(
        self,
        space: spaces.Space = BOX,
        fault: Callable[[Answer, int], Any] | None = None,
        at_reset: Callable[[Answer], Any] | None = None,
        *,
        actions: spaces.Space | None = None,
        always: bool = False,
        length: int = LENGTH,
    ) -> None:
        self.observation_space, self.action_space = space, actions or spaces.Discrete(2)
        self.fault, self.at_reset, self.always, self.length = fault, at_reset, always, length
        self.time = 0

    def show(self, space: spaces.Space | None = None) -> Any:
        """The time, in whatever form the space wants."""
        space = space or self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: self.show(part) for key, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self.show(part) for part in space)
        if isinstance(space, spaces.Discrete):
            return int(space.start) + self.time
        if isinstance(space, spaces.MultiBinary):
            return np.full(space.shape, self.time % 2, space.dtype)
        return np.full(space.shape or (), self.time, space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        answer = self.show(), {}
        return answer if self.at_reset is None else self.at_reset(answer)

    def step(self, action: Any) -> Any:
        self.time += 1
        answer = self.show(), 1.0, self.time == self.length, False, {}
        faulty = self.fault is not None and (self.always or self.time == AT)
        return self.fault(answer, self.time) if faulty else answer  # pyright: ignore[reportOptionalCall]


@dataclass(frozen=True)
class Case:
    """make() gives what is trained in. words: what the message must have; () where all must be right."""

    name: str
    make: Callable[[], Any]
    words: tuple[str, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)  # of the agent


def put(k: int, x: Any) -> Callable[[Answer, int], Answer]:
    """Entry k of a step's answer is x, or x(time)."""
    return lambda answer, time: (*answer[:k], x(time) if callable(x) else x, *answer[k + 1 :])


def obs(name: str, x: Any, *words: str, space: spaces.Space = BOX, **keywords: Any) -> Case:
    """An observation in the middle of an episode."""
    return Case(f"observation: {name}", lambda: partial(Plain, space, put(0, x), **keywords), words)


def rew(name: str, x: Any, *words: str) -> Case:
    """A reward."""
    return Case(f"reward: {name}", lambda: partial(Plain, fault=put(1, x)), words)


def end(name: str, x: Any, *words: str) -> Case:
    """A flag: `truncated` where the episode goes on, so that x stands for False."""
    return Case(f"end: {name}", lambda: partial(Plain, fault=put(3, x)), words)


def first(name: str, x: Callable[[Answer], Any], *words: str, space: spaces.Space = BOX) -> Case:
    """What a reset answers."""
    return Case(f"reset: {name}", lambda: partial(Plain, space, at_reset=x), words)


def form(name: str, x: Callable[[Answer, int], Any], *words: str) -> Case:
    """The form of a step's answer."""
    return Case(f"step: {name}", lambda: partial(Plain, fault=x), words)


def info(name: str, x: Any) -> Case:
    """An info, which nobody reads."""
    fault = put(4, x)
    return Case(
        f"info: {name}",
        lambda: partial(Plain, fault=fault, at_reset=lambda a: (a[0], fault((*a, 0, 0, 0), 1)[4]), always=True),
    )


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def fault(*_: Any) -> Any:
        raise error

    return fault


def grad(time: int) -> torch.Tensor:
    """A tensor that NumPy cannot read."""
    return torch.full((3,), float(time), requires_grad=True)


SHAPE = ("environment 0 (Plain)", "step()", "shape", "step 2 of its episode 1")
OBSERVATIONS = [
    obs("shape (1,)", np.array([7.0], np.float32), *SHAPE, "(1,)", "(3,)"),
    obs("shape (1, 3)", np.zeros((1, 3), np.float32), *SHAPE),
    obs("shape (3, 1)", np.zeros((3, 1), np.float32), *SHAPE),
    obs("shape (4,)", np.zeros(4, np.float32), *SHAPE),
    obs("a number", 7.0, *SHAPE, "()"),
    obs("None", None, "None", "real numbers"),
    obs("a word", "left", "'left'", "real numbers"),
    obs("words", np.array(["1", "2", "3"]), "<U1", "real numbers"),
    obs("complex", np.zeros(3, complex), "complex128", "real numbers"),
    obs("objects", np.array([None] * 3), "real numbers"),
    obs("ragged", [[1.0], [1.0, 2.0], [3.0]], "real numbers"),
    obs("a dict", {"a": 1}, "real numbers"),
    obs("the pair of a reset", lambda t: (np.zeros(3), {}), "real numbers"),
    obs("a tensor with a gradient", grad, "real numbers"),
    obs("NaN", np.array([0.0, np.nan, 0.0], np.float32), "observation[1] is nan", "environment 0"),
    obs("infinite", np.array([0.0, 0.0, -np.inf], np.float32), "observation[2] is -inf"),
    obs("1e38", np.array([1e38, 0.0, 0.0], np.float32), "observation[0] is 1", "overflow"),
    obs("1e300", np.array([1e300, 0.0, 0.0]), "observation[0] is inf"),
    obs("a list", lambda t: [t, t, t]),
    obs("a tuple", lambda t: (t, t, t)),
    obs("float64", lambda t: np.full(3, float(t))),
    obs("float16", lambda t: np.full(3, t, np.float16)),
    obs("int64", lambda t: np.full(3, t)),
    obs("big-endian", lambda t: np.full(3, t, ">f4")),
    obs("a tensor", lambda t: torch.full((3,), float(t))),
    obs("a view", lambda t: np.full((2, 3), t, np.float32).T[:, 0]),
    obs("read-only", lambda t: np.broadcast_to(np.float32(t), (3,))),
    obs("floats 0…1 as bytes", np.array([0.2, 0.9, 0.5]), "0.2", "uint8", space=BYTES),
    obs("300 as a byte", np.array([0, 300, 0]), "300", "uint8", space=BYTES),
    obs("-5 as a byte", np.array([0, 0, -5]), "-5", "uint8", space=BYTES),
    obs("NaN as a byte", np.full(3, np.nan), "nan", "uint8", space=BYTES),
    obs("200 as int8", np.full(3, 200), "200", "int8", space=spaces.Box(-100, 100, (3,), np.int8)),
    obs("int64 as bytes", lambda t: np.full(3, t), space=BYTES),
    obs("whole floats as bytes", lambda t: np.full(3, float(t)), space=BYTES),
    obs("6 of Discrete(6)", 6, "6", "Discrete(6)", "step 2", space=NUMBER),
    obs("-1 of Discrete(6)", -1, "-1", "Discrete(6)", space=NUMBER),
    obs("0 where it starts at 1", 0, "0", "start=1", space=spaces.Discrete(6, start=1)),
    obs("1.5 of Discrete", 1.5, "1.5", space=NUMBER),
    obs("[3] of Discrete", np.array([3]), "shape (1,)", space=NUMBER),
    obs("None of Discrete", None, "None", space=NUMBER),
    obs("a word of Discrete", "2", "'2'", space=NUMBER),
    obs("int32 of Discrete", np.int32, space=NUMBER),
    obs("0-d of Discrete", np.array, space=NUMBER),
    obs("float of Discrete", float, space=NUMBER),
    obs("outside MultiDiscrete", np.array([0, 3]), "MultiDiscrete", space=spaces.MultiDiscrete([9, 3])),
    obs("negative MultiDiscrete", np.array([-1, 0]), "MultiDiscrete", space=spaces.MultiDiscrete([9, 9])),
    obs("shape of MultiDiscrete", np.array([1]), "shape (1,)", space=spaces.MultiDiscrete([9, 9])),
    obs("2 in MultiBinary", np.array([0, 2], np.int8), "MultiBinary", space=spaces.MultiBinary(2)),
    obs("-1 in MultiBinary", np.array([0, -1], np.int8), "MultiBinary", space=spaces.MultiBinary(2)),
    obs("Dict without a key", {"a": np.zeros(2, np.float32)}, "'b'", space=DICT),
    obs("Dict with None", {"a": np.zeros(2, np.float32), "b": None}, "['b']", space=DICT),
    obs("Dict, shape of a part", {"a": np.zeros(1, np.float32), "b": 1}, "['a']", "shape (1,)", space=DICT),
    obs("Dict, choice of a part", {"a": np.zeros(2, np.float32), "b": 6}, "['b']", "6", space=DICT),
    obs("no Dict", np.zeros(3), "Dict", space=DICT),
    obs("Dict with more", lambda t: {"a": np.full(2, t), "b": t, "c": "?"}, space=DICT),
    obs("OrderedDict", lambda t: OrderedDict(b=t, a=np.full(2, t)), space=DICT),
    obs("Tuple, one more", (np.zeros(2), 1, 2), "2 parts", space=PAIR),
    obs("Tuple, one less", (np.zeros(2),), "2 parts", space=PAIR),
    obs("Tuple as dict", {0: np.zeros(2), 1: 2}, "2 parts", space=PAIR),
    obs("Tuple as list", lambda t: [np.full(2, t), t], space=PAIR),
    obs("one number", float, space=spaces.Box(-9.0, 9.0, ())),
]
REWARDS = [
    rew("shape (1,)", np.array([1.0]), "reward", "one number", "step 2"),
    rew("a word", "1", "reward '1'"),
    rew("None", None, "reward None"),
    rew("complex", 1j, "reward 1j"),
    rew("a list", [1.0], "reward [1.0]"),
    rew("a dict", {"all": 1.0}, "reward"),
    rew("NaN", float("nan"), "reward is nan"),
    rew("infinite", float("-inf"), "reward is -inf"),
    rew("a tensor with a gradient", lambda t: torch.ones(1, requires_grad=True), "reward"),
    rew("int", 1),
    rew("bool", True),
    rew("float32", np.float32(1.0)),
    rew("0-d", np.array(1.0)),
    rew("a tensor", torch.tensor(1.0)),
    rew("Decimal", Decimal(1)),
    rew("Fraction", Fraction(1)),
]
ENDS = [
    end("a word", "no", "truncated = 'no'", "bool(truncated)"),
    end("NaN", float("nan"), "truncated = nan"),
    end("None", None, "truncated = None"),
    end("shape (1,)", np.array([False]), "truncated = array([False])"),
    end("2", 2, "truncated = 2"),
    end("a float", 0.0, "truncated = 0.0"),
    end("a list", [], "truncated = []"),
    end("np.bool_", np.False_),
    end("0", 0),
    end("0-d", np.array(False)),
    end("a tensor", torch.tensor(False)),
]
FORMS = [
    form("4 values", lambda a, t: a[:3] + a[4:], "returned 4 values", "5 values", "truncated"),
    form("6 values", lambda a, t: (*a, 1), "returned 6 values"),
    form("None", lambda a, t: None, "returned None"),
    form("the observation", lambda a, t: a[0], "5 values"),
    form("a dict", lambda a, t: {"obs": a[0]}, "returned {'obs'"),
    form("a list", lambda a, t: list(a)),
    first("the observation", lambda a: a[0], "reset()", "2 values"),
    first("the observation, of two", lambda a: a[0], "2 values", space=spaces.Box(-9.0, 9.0, (2,))),
    first("None", lambda a: None, "returned None"),
    first("3 values", lambda a: (*a, 0), "returned 3 values"),
    first("one number", lambda a: a[0], "2 values", space=NUMBER),
    first("shape", lambda a: (a[0][:1], {}), "reset()", "shape (1,)", "episode 1"),
    first("None to see", lambda a: (None, {}), "reset()", "None"),
    first("NaN", lambda a: (a[0] * np.nan, {}), "observation[0] is nan"),
    first("floats as bytes", lambda a: (a[0] + 0.5, {}), "0.5", "uint8", space=BYTES),
    first("a list", list),
]
INFOS = [
    info("None", None),
    info("a list", [1, 2]),
    info("a number", 3),
    info("arrays of varying length", lambda t: {"moves": np.arange(t)}),
    info("None or a number", lambda t: {"winner": None if t < 3 else t}),
    info("a number or a word", lambda t: {"state": t if t < 3 else "lost"}),
    info("2**70", {"hash": 2**70}),
    Case(
        "info: None where a mask is asked for",
        lambda: partial(Plain, at_reset=lambda a: (a[0], None)),
        ("info", "dict", "action_mask"),
        {"mask_source": "info"},
    ),
    Case(
        "info: a mask of another length",
        lambda: partial(Plain, at_reset=lambda a: (a[0], {"action_mask": [1, 1, 1]})),
        ("action_mask", "2 entries", "got 3"),
        {"mask_source": "info"},
    ),
]


class NoSeed(Plain):
    """Its reset takes nothing."""

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().reset()


class SeedOnly(Plain):
    """Its reset takes no options."""

    def reset(self, seed: int | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().reset(seed=seed)


class NeedsSize(Plain):
    """Reads its options where there are any."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if options is not None:
            raise KeyError(options["size"])
        return super().reset(seed=seed)


class Lost(Exception):
    """Wants two arguments."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)


class Mute(Exception):
    """Has nothing to say, not even that."""

    def __str__(self) -> str:
        raise RuntimeError


class ClosesBadly(Plain):
    """Its close raises."""

    def close(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'close'")


class Reuses(Plain):
    """Gives the same array every time, and edits it."""

    def show(self, space: spaces.Space | None = None) -> Any:
        self.memory = getattr(self, "memory", np.zeros(3, np.float32))
        self.memory[:] = self.time
        return self.memory


class EditsActions(Plain):
    """Writes into the actions that it is given."""

    def step(self, action: Any) -> Any:
        action[...] = -1
        return super().step(action)


class Spaceless(gym.Env):
    """Has no spaces."""


class Halfway(gym.Env):
    """Has one space."""

    observation_space = BOX
    action_space = "two"  # pyright: ignore


def one_object() -> Callable[[], gym.Env]:
    """A callable that hands out the same environment again."""
    env = Plain()
    return lambda: env


def one_inside() -> Callable[[], gym.Env]:
    """A callable that wraps the same environment again."""
    env = Plain()
    return lambda: gym.wrappers.TimeLimit(env, 9)


def all_different() -> Callable[[], gym.Env]:
    """A callable whose environments differ in their spaces."""
    sizes = iter(range(1, 100))
    return lambda: Plain(spaces.Box(-9.0, 9.0, (next(sizes),)))


def throws(name: str, error: BaseException, *words: str) -> Case:
    """An exception in a step."""
    return Case(f"raises {name}", lambda: partial(Plain, fault=raising(error)), ("environment 0", "step()", *words))


OTHERS = [
    Case("reset without seed", lambda: NoSeed, ("NoSeed", "reset(self, *, seed=None, options=None)")),
    Case("reset without options", lambda: SeedOnly),
    Case("reset that reads its options", lambda: NeedsSize),
    throws("RuntimeError", RuntimeError("simulator lost"), "RuntimeError: simulator lost", "step 2 of its episode 1"),
    throws("ConnectionError", ConnectionError("gone"), "ConnectionError: gone"),
    throws("KeyError", KeyError("wheel"), "KeyError: 'wheel'"),
    throws("an error of its own", Lost("host", 1), "Lost"),
    throws("an error that cannot be printed", Mute(), "Mute"),
    throws("an error of two lines", ValueError("one\ntwo"), "ValueError: one"),
    throws("AssertionError without words", AssertionError(), "AssertionError"),
    throws("StopIteration", StopIteration(3), "StopIteration"),
    throws("SystemExit", SystemExit(1), "SystemExit"),
    throws("what unpacking raises", ValueError("not enough values to unpack (expected 5, got 4)"), "raised ValueError"),
    Case("raises in reset", lambda: partial(Plain, at_reset=raising(OSError("port"))), ("reset()", "OSError: port")),
    Case("raises when it is made", lambda: raising(RuntimeError("no licence")), ("making", "RuntimeError: no licence")),
    Case("exits when it is made", lambda: raising(SystemExit(1)), ("making", "SystemExit")),
    Case("made: None", lambda: lambda: None, ("gymnasium.Env", "NoneType")),
    Case("made: an id", lambda: lambda: "CartPole-v1", ("gymnasium.Env", "str")),
    Case("no spaces", lambda: Spaceless, ("Spaceless.observation_space",)),
    Case("no action space", lambda: Halfway, ("Halfway.action_space", "'two'")),
    Case("one object", one_object, ("one object", "new environment")),
    Case("one object in wrappers", one_inside, ("one object", "new environment")),
    Case("different spaces", all_different, ("same observation and action space",)),
    Case("close raises", lambda: ClosesBadly),
    Case("one array for ever", lambda: Reuses),
    Case("edits actions", lambda: partial(EditsActions, actions=spaces.MultiDiscrete([3, 3]))),
    Case("edits actions of a Box", lambda: partial(EditsActions, actions=spaces.Box(-1.0, 1.0, (2,)))),
    Case("both ends at once", lambda: partial(Plain, fault=lambda a, t: (*a[:3], t == LENGTH, {}), always=True)),
]


class Sync(SyncVectorEnv):
    """A vector environment with a fault in its steps. change(answer) is what it answers; metadata: added to its own."""

    def __init__(
        self,
        change: Callable[[Any], Any] = lambda answer: answer,
        mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        make: Callable[[], gym.Env] = Plain,
        metadata: dict[str, Any] | None = None,
        at_reset: Callable[[Any], Any] = lambda answer: answer,
    ) -> None:
        super().__init__([make] * 2, autoreset_mode=mode)
        self.change, self.at_reset = change, at_reset
        self.metadata = self.metadata if metadata is None else metadata

    def reset(self, **keywords: Any) -> Any:
        return self.at_reset(super().reset(**keywords))

    def step(self, actions: Any) -> Any:
        return self.change(super().step(actions))


class Eager(Sync):
    """DISABLED, and resets all of its environments where one is to be."""

    def __init__(self) -> None:
        lengths = iter((5, 4))
        super().__init__(mode=AutoresetMode.DISABLED, make=lambda: Plain(length=next(lengths)))

    def reset(self, **keywords: Any) -> Any:
        return super().reset(seed=keywords.get("seed"))


class Bare(VectorEnv):
    """Has nothing."""


def tensors(answer: Any) -> Any:
    """The arrays of an answer as tensors."""
    return tuple(torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x for x in answer)


def entry(k: int, f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Entry k of an answer is f of it."""
    return lambda answer: (*answer[:k], f(answer[k]), *answer[k + 1 :])


def renamed(said: Any, old: str = "final_obs", new: str = "final_observation") -> Any:
    """An info with other names."""
    return {key.replace(old, new): x for key, x in said.items()}


def vec(name: str, change: Callable[[Any], Any], *words: str, mode: Any = AutoresetMode.NEXT_STEP, **more: Any) -> Case:
    """A fault of a vector environment."""
    return Case(f"vector: {name}", lambda: Sync(change, mode, **more), words)


SAME, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
WHO = "the vector environment Sync: step()"
VECTORS = [
    vec("does not say how it resets", lambda a: a, "how it resets", "autoreset_mode", metadata={}),
    vec("says it in a word", lambda a: a, metadata={"autoreset_mode": "NextStep"}),
    vec("another mode", lambda a: a, "'Sometimes'", metadata={"autoreset_mode": "Sometimes"}),
    vec("shape (1, 3)", entry(0, lambda x: x[:1]), WHO, "(1, 3)", "(2, 3)"),
    vec("shape (2, 1)", entry(0, lambda x: x[:, :1]), WHO, "(2, 1)"),
    vec("None", entry(0, lambda x: None), WHO, "None"),
    vec("words", entry(0, lambda x: x.astype(str)), WHO, "real numbers"),
    vec("NaN", entry(0, lambda x: x * np.nan), "observation[0] is nan"),
    vec("floats as bytes", entry(0, lambda x: x + 0.5), "uint8", make=partial(Plain, BYTES)),
    vec("outside Discrete", entry(0, lambda x: x + 6), "Discrete(6)", make=partial(Plain, NUMBER)),
    vec("Dict without a key", entry(0, lambda x: {"a": x["a"]}), "parts a, b", make=partial(Plain, DICT)),
    vec("rewards of shape (2, 1)", entry(1, lambda x: x[:, None]), WHO, "rewards", "(2, 1)"),
    vec("one reward", entry(1, lambda x: 1.0), WHO, "rewards", "()"),
    vec("words as rewards", entry(1, lambda x: x.astype(str)), WHO, "rewards"),
    vec("float ends", entry(2, lambda x: x.astype(float)), WHO, "terminated", "booleans"),
    vec("one end", entry(3, lambda x: False), WHO, "truncated", "()"),
    vec("None as ends", entry(2, lambda x: None), WHO, "terminated = None"),
    vec("4 values", lambda a: a[:4], WHO, "4 values"),
    vec("None at all", lambda a: None, WHO, "None"),
    vec("raises", raising(RuntimeError("card lost")), WHO, "RuntimeError: card lost"),
    vec("ends twice", entry(2, lambda x: np.ones(2, bool)), "ended an episode in the step that began it"),
    vec("reset: the observations", lambda a: a, "reset()", "2 values", at_reset=lambda a: a[0]),
    vec("reset: one of two", lambda a: a, "reset()", "(1, 3)", at_reset=entry(0, lambda x: x[:1])),
    vec("no final_obs", entry(4, lambda x: {}), "final_obs", "SAME_STEP", mode=SAME),
    vec("final_obs of none", entry(4, lambda x: x | {"_final_obs": [False] * 2}), "final_obs", mode=SAME),
    vec("final_obs of another shape", entry(4, lambda x: x | {"final_obs": np.zeros((2, 1))}), "final_obs", mode=SAME),
    vec("an info that is a list", entry(4, lambda x: [x]), "info", "dict", mode=SAME),
    vec("the old key", entry(4, renamed), mode=SAME),
    Case("vector: resets all", Eager, ("DISABLED", "reset_mask")),
    Case("vector: bare", Bare, ("Bare.single_observation_space",)),
    Case("vector: one object", lambda: Sync(make=one_object()), ("environments 0 and 1 are one object",)),
    *(vec(f"tensors, {mode.name}", tensors, mode=mode, at_reset=tensors) for mode in AutoresetMode),
    *(vec(f"as it should be, {mode.name}", lambda a: a, mode=mode) for mode in AutoresetMode),
    vec("an info that nobody reads", entry(4, lambda x: None), at_reset=entry(1, lambda x: None)),
    vec("0 and 1 as ends", entry(2, lambda x: x.astype(int))),
]


class Flaky(Plain):
    """Raises in its 25th step, unless another one with the same error has."""

    steps = 0

    def __init__(self, error: BaseException, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.error = error

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 25 and not hasattr(self.error, "raised"):
            self.error.raised = True  # pyright: ignore[reportAttributeAccessIssue]
            raise self.error
        return super().step(action)


SMALL: dict[str, Any] = {"num_steps": 8, "hidden": (4,), "epochs": 1, "minibatches": 1}


class Seen:
    """Looks at every record: the observations are the time, and every episode has the length it has."""

    def __init__(self, agent: pg.Agent, length: int = LENGTH) -> None:
        self.encoding, self.length, self.episodes = agent.policy.encoding, length, 0
        agent.collector.observers.append(self.see)

    def times(self, obs: Any) -> np.ndarray:
        """The time that the first part of the observations shows."""
        leaf, x = self.encoding.arrays(obs)[0]
        if leaf.one_hot:
            return x.argmax(-1)
        return x[..., 0] if leaf.shape else x

    def see(self, record: Any) -> None:
        """Of the collector."""
        self.episodes += len(record.finished)
        time = record.time[record.mask]
        for name, expected in (("obs", time), ("next_obs", time + 1)):
            tree = getattr(record, name)
            found = self.times(tree if name == "next_obs" else take(tree, slice(-1)))[record.mask]
            assert (found == expected).all(), f"{name} of {time.tolist()} are {found.tolist()}"
        for ret, length in record.finished:
            assert ret == length == self.length, f"an episode of {length} steps and return {ret}"


def learn(case: Case) -> None:
    """Train for three iterations and evaluate."""
    env = case.make()
    more: dict[str, Any] = {} if isinstance(env, VectorEnv) else {"num_envs": 2}
    agent = pg.ppo(env, **SMALL, **more, **case.keywords)
    seen = Seen(agent)
    agent.learn(45)
    assert seen.episodes >= 4
    evaluation = agent.evaluate(3, env=case.make())
    assert evaluation.returns == evaluation.lengths == (LENGTH,) * 3, str(evaluation.returns)


def outcome(run: Callable[[], None], words: tuple[str, ...] = ()) -> tuple[str, str]:
    """right, named, or wrong; and what was said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except (PolicygradError, TypeError) as error:
        text = str(error)
        whole = words and "\n" not in text and len(text) < 400 and all(word in text for word in words)
        return ("named" if whole else "wrong"), f"{type(error).__name__}: {text}"
    except BaseException as error:  # an AssertionError of ours among them
        return "wrong", f"{type(error).__name__}: {error!r}"
    return ("wrong", "nobody noticed") if words else ("right", "")


def looks(env: Any, agent: pg.Agent) -> None:
    """The user steps by hand between two calls of learn."""
    for _ in range(4):
        agent.learn(20)
        observation, _ = env.reset()
        for _ in range(3):
            observation = env.step(agent.predict(observation)[0])[0]


def steps_by_hand(env: Any) -> Callable[..., None]:
    """A callback that steps the environment, or resets and steps it, by turns."""
    calls = iter(range(1000))

    def callback(agent: pg.Agent, row: Any) -> None:
        if next(calls) % 2 or env.time == env.length:
            env.reset()
        env.step(0)

    return callback


def goes_on(error: type[BaseException], make: Callable[[BaseException], Any]) -> None:
    """An error in the middle of a record; the user catches it and learns on."""
    env: Any = make(error())
    more: dict[str, Any] = {} if isinstance(env, gym.Env) else {"num_envs": 2}
    agent = pg.ppo(env, **SMALL, **more)
    Seen(agent)
    try:
        agent.learn(200)
    except error:
        agent.learn(100)
        return
    raise AssertionError("nothing was raised")


def with_one(run: Callable[[Any, pg.Agent], Any]) -> None:
    """An environment object of the user's, and an agent that learns in it."""
    env = Plain(length=7)
    agent = pg.ppo(env, **SMALL)
    seen = Seen(agent, 7)
    run(env, agent)
    agent.learn(100)
    assert seen.episodes >= 10


def two_agents(env: Any, agent: pg.Agent, together: bool) -> None:
    """Another one learns in the same environment, between the first's iterations or in the middle of them."""
    other = pg.ppo(env, **SMALL, seed=1)
    Seen(other, 7)
    if together:
        agent.learn(100, lambda *_: other.learn(20) and None)
    for _ in range(3):
        agent.learn(20)
        other.learn(20)


def moved_vector() -> None:
    """A vector environment that the user steps between two calls of learn, and in a callback."""
    envs = Sync()
    agent = pg.ppo(envs, **SMALL)
    Seen(agent)
    for _ in range(3):
        agent.learn(50, lambda *_: envs.step(np.zeros(2, int)) and None)
        envs.reset()
        envs.step(np.zeros(2, int))
    agent.evaluate(3, env=envs)
    agent.learn(50)


def endless() -> None:
    """An episode that does not end."""
    agent = pg.ppo(lambda: Plain(spaces.Box(-9.0, 999.0, (3,)), length=10**6), **SMALL, num_envs=2)
    agent.learn(40)
    evaluate(agent.policy, lambda: Plain(length=10**6), 2, max_episode_steps=50)


def not_finite() -> None:
    """A policy whose weights are none."""
    agent = pg.ppo(Plain, **SMALL, num_envs=2)
    agent.policy.flat.fill_(float("nan"))
    agent.evaluate(2)


def evaluated(fault: Callable[[Answer, int], Any]) -> None:
    """A fault that shows in evaluation only."""
    pg.ppo(Plain, **SMALL, num_envs=2).evaluate(2, env=partial(Plain, fault=fault))


def set_attribute() -> None:
    """Settings on the instance: the evaluation plays with them, too."""
    env = gym.make("CartPole-v1")
    env.unwrapped.gravity = 0.0  # pyright: ignore
    layer: Any = env
    while not isinstance(layer, gym.wrappers.TimeLimit):
        layer = layer.env
    layer._max_episode_steps = 7
    agent = pg.ppo(env, **SMALL)
    agent.learn(40)
    made: Any = agent.evaluation_env()
    assert max(agent.evaluate(4).lengths) <= 7
    assert made.unwrapped.gravity == 0.0


MOVED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "moved: looked at by hand": (lambda: with_one(looks), ()),
    "moved: stepped by a callback": (lambda: with_one(lambda env, agent: agent.learn(200, steps_by_hand(env))), ()),
    "moved: EvalCallback": (lambda: with_one(lambda e, a: a.learn(100, EvalCallback(16, episodes=1, env=e))), ()),
    "moved: evaluate in a callback": (
        lambda: with_one(lambda e, a: a.learn(100, lambda *_: a.evaluate(1, env=e) and None)),
        (),
    ),
    "moved: evaluate in a wrapper": (
        lambda: with_one(
            lambda e, a: a.learn(100, lambda *_: a.evaluate(1, env=gym.wrappers.TimeLimit(e, 4)) and None)
        ),
        (),
    ),
    "moved: collect": (lambda: with_one(lambda e, a: a.learn(100, lambda *_: (a.collect(1, env=e), None)[1])), ()),
    "moved: two agents by turns": (lambda: with_one(partial(two_agents, together=False)), ()),
    "moved: two agents at once": (lambda: with_one(partial(two_agents, together=True)), ()),
    "moved: a vector environment": (moved_vector, ()),
    "interrupted: ConnectionError": (lambda: goes_on(ConnectionError, lambda e: partial(Flaky, e)), ()),
    "interrupted: Ctrl-C": (lambda: goes_on(KeyboardInterrupt, lambda e: partial(Flaky, e)), ()),
    "interrupted: an object of the user's": (lambda: goes_on(KeyboardInterrupt, Flaky), ()),
    "evaluation: an episode that does not end": (endless, ("did not end", "time limit")),
    "evaluation: weights that are NaN": (not_finite, ("parameters are not finite",)),
    "evaluation: NaN in observations": (lambda: evaluated(put(0, np.full(3, np.nan))), ("finite", "nan")),
    "evaluation: NaN as a reward": (
        lambda: evaluated(put(1, float("nan"))),
        ("a reward that is finite, got nan", "seed 10000"),
    ),
    "evaluation: shape": (lambda: evaluated(put(0, np.zeros(1))), ("shape (1,)", "step 2 of its episode 1")),
    "evaluation: raises": (lambda: evaluated(raising(OSError("gone"))), ("OSError: gone",)),
    "evaluation: attributes set on the instance": (set_attribute, ()),
}
CASES = [*OBSERVATIONS, *REWARDS, *ENDS, *FORMS, *INFOS, *OTHERS, *VECTORS]
RUNS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    **{case.name: (partial(learn, case), case.words) for case in CASES},
    **MOVED,
}


def rows() -> Iterator[tuple[str, str, str]]:
    """(case, outcome, what was said) of every case."""
    for name, (run, words) in RUNS.items():
        yield name, *outcome(run, words)


if __name__ == "__main__":
    found = list(rows())
    for name, result, text in found:
        print(f"{result:<6} {name:<45} {text}")
    print({result: sum(r == result for _, r, _ in found) for result in ("right", "named", "wrong")})
