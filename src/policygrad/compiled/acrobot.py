"""Gymnasium's Acrobot in batches, bit for bit: see classic.py."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from policygrad.compiled.cache import part
from policygrad.compiled.classic import f32
from policygrad.compiled.environments import environment
from policygrad.compiled.generator import uniform


class Acrobot(NamedTuple):
    """Acrobot."""

    numbers: np.ndarray  # (1,): 2


SETTINGS: dict[type, dict[str, Any]] = {
    Acrobot: {
        "dt": 0.2,
        "LINK_LENGTH_1": 1.0,
        "LINK_LENGTH_2": 1.0,
        "LINK_MASS_1": 1.0,
        "LINK_MASS_2": 1.0,
        "LINK_COM_POS_1": 0.5,
        "LINK_COM_POS_2": 0.5,
        "LINK_MOI": 1.0,
        "MAX_VEL_1": 4 * math.pi,
        "MAX_VEL_2": 9 * math.pi,
        "AVAIL_TORQUE": [-1.0, 0.0, +1],
        "torque_noise_max": 0.0,
        "book_or_nips": "book",
    },
}
SIXTH = 0.2 / 6.0
# NumPy's polynomials of x² for float32, where the processor multiplies and adds in one operation; the last power first
COSINE = tuple(
    f32(float.fromhex(x)) for x in ("0x1.98e616p-16", "-0x1.6c06dcp-10", "0x1.55553cp-5", "-0x1p-1", "0x1p0")
)
SINE = tuple(
    f32(float.fromhex(x)) for x in ("0x1.7d3bbcp-19", "-0x1.a06bbap-13", "0x1.11119ap-7", "-0x1.555556p-3", "0x0p0")
)


@part
def acrobot_begin(state: np.ndarray, i: int, generators: np.ndarray, rules: Any) -> None:
    """Four numbers in [−0.1, 0.1), rounded to float32."""
    for k in range(4):
        state[i, k] = f32(uniform(generators, i, -0.1, 0.1))


@part
def _slopes(torque: float, y: tuple[float, float, float, float], two: float) -> tuple[float, float, float, float]:
    """The derivatives by time of angles and speeds: `AcrobotEnv._dsdt`, "book"."""
    theta1, theta2, speed1, speed2 = y
    cosine, sine = math.cos(theta2), math.sin(theta2)
    d1 = 0.25 + (1.25 + cosine) + 1.0 + 1.0
    d2 = (0.25 + 0.5 * cosine) + 1.0
    phi2 = 4.9 * math.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = -0.5 * speed2**two * sine - speed2 * speed1 * sine
    phi1 = phi1 + (1.5 * 9.8) * math.cos(theta1 - math.pi / 2) + phi2
    turn2 = (torque + d2 / d1 * phi1 - 0.5 * speed1**two * sine - phi2) / (1.25 - d2**two / d1)
    return speed1, speed2, -(d2 * turn2 + phi1) / d1, turn2


@part
def _along(
    y: tuple[float, float, float, float], dt: float, k: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Y + dt · k."""
    return y[0] + dt * k[0], y[1] + dt * k[1], y[2] + dt * k[2], y[3] + dt * k[3]


@part
def _wrapped(x: float) -> float:
    """The angle in [−π, π]."""
    while x > math.pi:
        x = x - 2 * math.pi
    while x < -math.pi:
        x = x + 2 * math.pi
    return x


@part
def acrobot_play(
    state: np.ndarray, i: int, action: int, time: int, generators: np.ndarray, rules: Any
) -> tuple[float, bool]:
    """`AcrobotEnv.step`: one step of Runge and Kutta's method of fourth order."""
    torque, two, y = float(action - 1), rules.numbers[0], (state[i, 0], state[i, 1], state[i, 2], state[i, 3])
    k1 = _slopes(torque, y, two)
    k2 = _slopes(torque, _along(y, 0.1, k1), two)
    k3 = _slopes(torque, _along(y, 0.1, k2), two)
    k4 = _slopes(torque, _along(y, 0.2, k3), two)
    for k in range(4):
        state[i, k] = y[k] + SIXTH * (k1[k] + 2 * k2[k] + 2 * k3[k] + k4[k])
    theta1, theta2 = _wrapped(state[i, 0]), _wrapped(state[i, 1])
    state[i, 0], state[i, 1] = theta1, theta2
    state[i, 2] = min(max(state[i, 2], -4 * math.pi), 4 * math.pi)
    state[i, 3] = min(max(state[i, 3], -9 * math.pi), 9 * math.pi)
    terminated = -math.cos(theta1) - math.cos(theta2 + theta1) > 1.0
    return 0.0 if terminated else -1.0, terminated


@intrinsic
def _fused(context: Any, x: Any, y: Any, z: Any) -> Any:
    """X · y + z in float32, rounded once."""

    def generate(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


fused: Any = _fused  # called without the context, which numba adds


@part
def _small_cosine(x: Any) -> Any:
    """NumPy's cosine of a float32 up to π/4: its polynomial."""
    square, r = x * x, COSINE[0]
    for k in range(1, 5):
        r = fused(r, square, COSINE[k])
    return r


@part
def _small_sine(x: Any) -> Any:
    """NumPy's sine of a float32 up to π/4: its polynomial."""
    square, r = x * x, SINE[0]
    for k in range(1, 5):
        r = fused(r, square, SINE[k])
    return fused(r, x, x)


@part
def acrobot_show(state: np.ndarray, i: int, time: int, obs: np.ndarray, rules: Any) -> None:
    """Cosine and sine of both angles, and the speeds. The first state is float32, and NumPy's cosine of it, too."""
    for k in range(2):
        if time == 0:
            angle = f32(state[i, k])
            obs[i, 2 * k], obs[i, 2 * k + 1] = _small_cosine(angle), _small_sine(angle)
        else:
            obs[i, 2 * k], obs[i, 2 * k + 1] = math.cos(state[i, k]), math.sin(state[i, k])
        obs[i, 4 + k] = state[i, 2 + k]


environment(Acrobot, acrobot_begin, acrobot_play, acrobot_show)
