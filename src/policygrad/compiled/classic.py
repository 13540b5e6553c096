"""Gymnasium's classic control in batches, bit for bit.

Each formula is Gymnasium's, operation by operation and in its types: where NumPy rounds to float32, so does this. NumPy
squares a number by `pow(x, 2)`, whose last bit may differ from that of x · x; the compiler would make x · x of it if it knew
the exponent, so the exponent is an argument, in `rules.numbers`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from policygrad.compiled.cache import part
from policygrad.compiled.environments import environment
from policygrad.compiled.generator import uniform

NUMBERS = np.array([2.0])
f32, f64 = np.float32, np.float64


class Cart(NamedTuple):
    """CartPole."""

    numbers: np.ndarray  # (1,): 2, here and below


class Car(NamedTuple):
    """MountainCar."""

    numbers: np.ndarray


class PoweredCar(NamedTuple):
    """MountainCarContinuous."""

    numbers: np.ndarray


class Pendulum(NamedTuple):
    """Pendulum."""

    numbers: np.ndarray


# attributes of Gymnasium's environments that are compiled in
SETTINGS: dict[type, dict[str, Any]] = {
    Cart: {
        "_sutton_barto_reward": False,
        "gravity": 9.8,
        "masscart": 1.0,
        "masspole": 0.1,
        "total_mass": 1.1,
        "length": 0.5,
        "polemass_length": 0.05,
        "force_mag": 10.0,
        "tau": 0.02,
        "kinematics_integrator": "euler",
        "theta_threshold_radians": 12 * 2 * math.pi / 360,
        "x_threshold": 2.4,
    },
    Car: {
        "min_position": -1.2,
        "max_position": 0.6,
        "max_speed": 0.07,
        "goal_position": 0.5,
        "goal_velocity": 0,
        "force": 0.001,
        "gravity": 0.0025,
    },
    PoweredCar: {
        "min_action": -1.0,
        "max_action": 1.0,
        "min_position": -1.2,
        "max_position": 0.6,
        "max_speed": 0.07,
        "goal_position": 0.45,
        "goal_velocity": 0,
        "power": 0.0015,
    },
    Pendulum: {"max_speed": 8, "max_torque": 2.0, "dt": 0.05, "g": 10.0, "m": 1.0, "l": 1.0},
}
CART_LIMIT, POLE_LIMIT = 2.4, 12 * 2 * math.pi / 360


@part
def cart_begin(state: np.ndarray, i: int, generators: np.ndarray, rules: Any) -> None:
    """Four numbers in [−0.05, 0.05)."""
    for k in range(4):
        state[i, k] = uniform(generators, i, -0.05, 0.05)


@part
def cart_play(
    state: np.ndarray, i: int, action: int, time: int, generators: np.ndarray, rules: Any
) -> tuple[float, bool]:
    """`CartPoleEnv.step`."""
    x, x_dot, theta, theta_dot = state[i, 0], state[i, 1], state[i, 2], state[i, 3]
    force = 10.0 if action == 1 else -10.0
    cosine, sine = math.cos(theta), math.sin(theta)
    temp = (force + 0.05 * (theta_dot * theta_dot) * sine) / 1.1
    turned = (9.8 * sine - cosine * temp) / (0.5 * (4.0 / 3.0 - 0.1 * (cosine * cosine) / 1.1))
    moved = temp - 0.05 * turned * cosine / 1.1
    x, x_dot = x + 0.02 * x_dot, x_dot + 0.02 * moved
    theta, theta_dot = theta + 0.02 * theta_dot, theta_dot + 0.02 * turned
    state[i, 0], state[i, 1], state[i, 2], state[i, 3] = x, x_dot, theta, theta_dot
    return 1.0, x < -CART_LIMIT or x > CART_LIMIT or theta < -POLE_LIMIT or theta > POLE_LIMIT


@part
def plain_show(state: np.ndarray, i: int, time: int, obs: np.ndarray, rules: Any) -> None:
    """The state, rounded."""
    for k in range(state.shape[1]):
        obs[i, k] = state[i, k]


@part
def car_begin(state: np.ndarray, i: int, generators: np.ndarray, rules: Any) -> None:
    """A place in [−0.6, −0.4), at rest."""
    state[i, 0], state[i, 1] = uniform(generators, i, -0.6, -0.4), 0.0


@part
def car_play(
    state: np.ndarray, i: int, action: int, time: int, generators: np.ndarray, rules: Any
) -> tuple[float, bool]:
    """`MountainCarEnv.step`."""
    position, velocity = state[i, 0], state[i, 1]
    velocity += (action - 1) * 0.001 + math.cos(3 * position) * -0.0025
    velocity = min(max(velocity, -0.07), 0.07)
    position = min(max(position + velocity, -1.2), 0.6)
    if position == -1.2 and velocity < 0.0:
        velocity = 0.0
    state[i, 0], state[i, 1] = position, velocity
    return -1.0, position >= 0.5 and velocity >= 0.0


DOUBLE = (0.07, 0.6, -1.2, 0.45, 0.0)  # top speed, end, beginning, goal, nothing
SINGLE = (f32(0.07), f32(0.6), f32(-1.2), f32(0.45), f32(0.0))


@part
def _drive(position: Any, velocity: Any, push: Any, limits: Any) -> tuple[Any, Any, bool]:
    """The rest of a step, in the type of the limits."""
    speed, end, beginning, goal, nothing = limits
    velocity += push
    if velocity > speed:
        velocity = speed
    if velocity < -speed:
        velocity = -speed
    position += velocity
    if position > end:
        position = end
    if position < beginning:
        position = beginning
    if position == beginning and velocity < nothing:
        velocity = nothing
    return position, velocity, position >= goal and velocity >= nothing


@part
def powered_play(
    state: np.ndarray, i: int, action: Any, time: int, generators: np.ndarray, rules: Any
) -> tuple[float, bool]:
    """`Continuous_MountainCarEnv.step`: in float64 after a reset, and in float32 from then on.

    An action beyond ±1 becomes a Python number there, and the push is rounded later than that of others.
    """
    beyond, power = action > f32(1.0) or action < f32(-1.0), (0.0015 if action > f32(0.0) else -0.0015)
    position, velocity = state[i, 0], state[i, 1]
    if time == 0:
        pull = 0.0025 * math.cos(3 * position)
        push = power - pull if beyond else f64(action * f32(0.0015) - f32(pull))
        position, velocity, terminated = _drive(position, velocity, push, DOUBLE)
        state[i, 0], state[i, 1] = f32(position), f32(velocity)
    else:
        pull = 0.0025 * math.cos(f64(f32(3.0) * f32(position)))
        push = f32(power - pull) if beyond else action * f32(0.0015) - f32(pull)
        place, speed, terminated = _drive(f32(position), f32(velocity), push, SINGLE)
        state[i, 0], state[i, 1] = place, speed
    spent = f64(action) * f64(action)  # exact, as `math.pow` is here
    return (100.0 if terminated else 0.0) - spent * 0.1, terminated


@part
def pendulum_begin(state: np.ndarray, i: int, generators: np.ndarray, rules: Any) -> None:
    """An angle in [−π, π) and a speed in [−1, 1)."""
    state[i, 0] = uniform(generators, i, -math.pi, math.pi)
    state[i, 1] = uniform(generators, i, -1.0, 1.0)


@part
def pendulum_play(
    state: np.ndarray, i: int, action: Any, time: int, generators: np.ndarray, rules: Any
) -> tuple[float, bool]:
    """`PendulumEnv.step`."""
    angle, speed, two = state[i, 0], state[i, 1], rules.numbers[0]
    u = action
    if u > f32(2.0):
        u = f32(2.0)
    if u < f32(-2.0):
        u = f32(-2.0)
    turned = np.fmod(angle + math.pi, 2 * math.pi)
    if turned < 0.0:
        turned += 2 * math.pi
    costs = (turned - math.pi) ** two + 0.1 * speed**two + f64(f32(0.001) * u ** f32(two))
    speed = speed + (15.0 * math.sin(angle) + f64(f32(3.0) * u)) * 0.05
    if speed > 8.0:
        speed = 8.0
    if speed < -8.0:
        speed = -8.0
    state[i, 0], state[i, 1] = angle + speed * 0.05, speed
    return -costs, False


@part
def pendulum_show(state: np.ndarray, i: int, time: int, obs: np.ndarray, rules: Any) -> None:
    """Cosine and sine of the angle, and the speed."""
    obs[i, 0], obs[i, 1], obs[i, 2] = math.cos(state[i, 0]), math.sin(state[i, 0]), state[i, 1]


environment(Cart, cart_begin, cart_play, plain_show)
environment(Car, car_begin, car_play, plain_show)
environment(PoweredCar, car_begin, powered_play, plain_show)
environment(Pendulum, pendulum_begin, pendulum_play, pendulum_show)
