"""Probe environments: so small that the right answer is known and a failure shows which part is wrong.

| probe              | answer                                        | what is broken if it alone fails          |
|--------------------|-----------------------------------------------|-------------------------------------------|
| `ConstantReward`   | V = 1                                         | the critic's regression                   |
| `ObservedReward`   | V(s) = s                                      | observations on their way to the critic   |
| `TwoSteps`         | V(s₀) = γ, V(s₁) = 1                          | discounting                               |
| `ActionReward`     | π(1) = 1, V = 1                               | the sign or size of the policy gradient   |
| `MatchObservation` | π(s|s) = 1, V = 1                             | pairing of observations and actions       |
| `TimeLimit`        | V(1) = 1/(1 − γ²), V(0) = γ/(1 − γ²)          | bootstrapping past a truncation           |
| `Target`           | mean action = 0.5                             | continuous actions                        |

After Jones 2019 ("probe environments") and rejax. Each states its answer in attributes: `gamma`, the discount it holds for;
`values`, pairs (obs, V) under the best policy; `best`, pairs (obs, action). Two more are for the plumbing: `Chain`, whose
exact V makes every advantage 0, and `Counting`, whose transitions name where they come from. `TMaze` is for memory: without one
no policy has a mean return above ½, and with one the best has 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Pairs = tuple[tuple[float, float], ...]
Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Probe(gym.Env):
    """One number as the observation, and the answers. A subclass says what a step does; `self.state` is that number."""

    gamma: ClassVar[float] = 0.5
    starts: ClassVar[tuple[float, ...]] = (0.0,)  # equally likely first observations
    values: ClassVar[Pairs] = ()  # (obs, V(obs)) under the best policy
    best: ClassVar[Pairs] = ()  # (obs, best action); empty where the action makes no difference

    def __init__(self) -> None:
        self.observation_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,))
        self.action_space: spaces.Space = spaces.Discrete(2)
        self.state = 0.0
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.starts[int(self.np_random.integers(len(self.starts)))]
        self.time = 0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        """The observation."""
        return np.array([self.state], np.float32)

    def one_step(self, rew: float) -> Step:
        """The last step of an episode of one step."""
        return self.observe(), rew, True, False, {}


class ConstantReward(Probe):
    """One step, reward 1."""

    values = ((0.0, 1.0),)

    def step(self, action: Any) -> Step:
        return self.one_step(1.0)


class ObservedReward(Probe):
    """One step, the reward is the observation, ±1."""

    starts = (-1.0, 1.0)
    values = ((-1.0, -1.0), (1.0, 1.0))

    def step(self, action: Any) -> Step:
        return self.one_step(self.state)


class TwoSteps(Probe):
    """Two steps, reward 1 on the second."""

    values = ((0.0, 0.5), (1.0, 1.0))

    def step(self, action: Any) -> Step:
        last = self.state == 1.0
        self.state = 1.0
        return self.observe(), float(last), last, False, {}


class ActionReward(Probe):
    """One step, reward 1 for action 1 and −1 for action 0."""

    values = ((0.0, 1.0),)
    best = ((0.0, 1),)

    def step(self, action: Any) -> Step:
        return self.one_step(1.0 if action == 1 else -1.0)


class MatchObservation(Probe):
    """One step, reward 1 if the action is the observation, 0 or 1, and −1 if it is not."""

    starts = (0.0, 1.0)
    values = ((0.0, 1.0), (1.0, 1.0))
    best = ((0.0, 0), (1.0, 1))

    def step(self, action: Any) -> Step:
        return self.one_step(1.0 if action == self.state else -1.0)


class TimeLimit(Probe):
    """0 → 1 → 0 → …, for ever; reward 1 on leaving 1. Truncated after two steps: a limit, not an end of the task.

    V(1) = 1 + γ V(0) and V(0) = γ V(1). Were truncation termination, V would be 1 and γ/2.
    """

    starts = (0.0, 1.0)
    values = ((0.0, 2.0 / 3.0), (1.0, 4.0 / 3.0))

    def step(self, action: Any) -> Step:
        rew = self.state
        self.state = 1.0 - self.state
        self.time += 1
        return self.observe(), rew, False, self.time == 2, {}


class Target(Probe):
    """One step, one continuous action a in [−2, 2], reward −(a − ½)²."""

    best = ((0.0, 0.5),)

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-2.0, 2.0, (1,))

    def step(self, action: Any) -> Step:
        return self.one_step(-float((action[0] - 0.5) ** 2))


PROBES: tuple[type[Probe], ...] = (
    ConstantReward,
    ObservedReward,
    TwoSteps,
    ActionReward,
    MatchObservation,
    TimeLimit,
    Target,
)


class Chain(gym.Env):
    """States 0 → 1 → … → S−1 → 0 in a circle, reward rewards[s] on leaving s; actions change nothing.

    The observation is the state's number. An episode starts in `start`, terminates after `terminate_after` steps and is
    truncated after `truncate_after` (None: never); both at once are both reported, as Gymnasium allows.
    """

    def __init__(
        self,
        rewards: Sequence[float],
        *,
        start: int = 0,
        terminate_after: int | None = None,
        truncate_after: int | None = None,
    ) -> None:
        self.rewards, self.start = tuple(float(r) for r in rewards), start
        self.terminate_after, self.truncate_after = terminate_after, truncate_after
        self.observation_space = spaces.Box(0.0, float(len(self.rewards)), (1,))
        self.action_space = spaces.Discrete(2)
        self.time = 0

    def exact_values(self, gamma: float) -> np.ndarray:
        """V(s) of every state, (S,), float64: V(s) = rewards[s] + γ V(s + 1), and 0 where the episode has terminated.

        With `terminate_after`, that of the states an episode passes, which must be different ones; 0 elsewhere.
        """
        S = len(self.rewards)
        if self.terminate_after is None:
            following = np.roll(np.eye(S), 1, axis=1)
            return np.linalg.solve(np.eye(S) - gamma * following, np.array(self.rewards))
        if self.terminate_after > S:
            raise ValueError(f"V is no function of the state if {self.terminate_after} steps go round {S} states")
        values, value = np.zeros(S), 0.0
        for k in reversed(range(self.terminate_after)):
            state = (self.start + k) % S
            values[state] = value = self.rewards[state] + gamma * value
        return values

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        """The observation."""
        return np.array([(self.start + self.time) % len(self.rewards)], np.float32)

    def step(self, action: Any) -> Step:
        rew = self.rewards[(self.start + self.time) % len(self.rewards)]
        self.time += 1
        terminated, truncated = self.time == self.terminate_after, self.time == self.truncate_after
        return self.observe(), rew, terminated, truncated, {}


class TMaze(gym.Env):
    """A cue of −1 or 1, a corridor in which everything looks alike, and a junction, where the action must be the cue's.

    Observation (cue, junction): the cue at the first step only, and a 1 at the last. An episode has `length` steps, at least 2;
    actions count at the last one: reward 1 for action 1 after cue 1 and for action 0 after cue −1, otherwise 0. At the junction
    both cues look the same, so that a policy of the observation alone, π(1|junction) = p, has the mean return
    ½ p + ½ (1 − p) = ½, whatever p. After Bakker 2002 ("Reinforcement learning with long short-term memory"), without the walk.
    """

    best_return, best_without_memory = 1.0, 0.5

    def __init__(self, length: int = 4) -> None:
        if length < 2:
            raise ValueError(f"length must be at least 2, got {length}")
        self.length, self.cue, self.time = length, 1, 0
        self.observation_space = spaces.Box(-1.0, 1.0, (2,))
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.cue, self.time = 2 * int(self.np_random.integers(2)) - 1, 0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        """The observation."""
        return np.array([self.cue * (self.time == 0), self.time == self.length - 1], np.float32)

    def step(self, action: Any) -> Step:
        self.time += 1
        over = self.time == self.length
        obs = np.zeros(2, np.float32) if over else self.observe()
        return obs, float(over and action == (self.cue + 1) // 2), over, False, {}


class Counting(gym.Env):
    """Episodes of `length` steps whose transitions name where they come from: no two of an environment are alike.

    Observation (episode, step, last action; −1 at a reset), counted from 0, episodes since the last seeded reset; reward
    100 · episode + 10 · step + action.
    The last step is `terminated`, or `truncated` where `truncates`.
    """

    def __init__(self, length: int, truncates: bool = False) -> None:
        self.length, self.truncates = length, truncates
        self.observation_space = spaces.Box(-1.0, np.inf, (3,))
        self.action_space = spaces.Discrete(4)
        self.episode, self.time = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.time = 0 if seed is not None else self.episode + 1, 0
        return np.array([self.episode, 0, -1], np.float32), {}

    def step(self, action: Any) -> Step:
        rew = 100.0 * self.episode + 10.0 * self.time + float(action)
        self.time += 1
        end = self.time == self.length
        obs = np.array([self.episode, self.time, action], np.float32)
        return obs, rew, end and not self.truncates, end and self.truncates, {}
