"""Gymnasium's toy text: environments that are tables of what may follow, in batches and bit for bit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from policygrad.compiled.cache import part
from policygrad.compiled.environments import environment
from policygrad.compiled.generator import unit

STATES, ACTIONS, OUTCOMES, START = range(4)  # in `numbers`: how many there are, and where first states begin
CHANCE, NEXT, REWARD, END, FIELDS = range(5)  # of an outcome, and how many they are


class Tables(NamedTuple):
    """What may follow, in one vector: the chances of the first states (S,), and outcomes (S, A, K, FIELDS).

    Chances are summed up; behind the last outcome of a state and an action they are −1.
    """

    numbers: np.ndarray


@part
def table_begin(state: np.ndarray, i: int, generators: np.ndarray, rules: Tables) -> None:
    """`categorical_sample`: the first state whose summed chance is larger than a uniform number, or else state 0."""
    numbers = rules.numbers
    x, low, end = unit(generators, i), 0, int(numbers[STATES])
    high = end
    while low < high:
        middle = (low + high) // 2
        if numbers[START + middle] > x:
            high = middle
        else:
            low = middle + 1
    state[i, 0] = low if low < end else 0


@part
def table_play(
    state: np.ndarray, i: int, action: int, time: int, generators: np.ndarray, rules: Tables
) -> tuple[Any, bool]:
    """Draw an outcome, as `table_begin` draws a state."""
    numbers = rules.numbers
    x, outcomes = unit(generators, i), int(numbers[OUTCOMES])
    pair = state[i, 0] * int(numbers[ACTIONS]) + action
    first = START + int(numbers[STATES]) + pair * outcomes * FIELDS
    found = first
    for k in range(outcomes):
        if numbers[first + k * FIELDS + CHANCE] > x:
            found = first + k * FIELDS
            break
    state[i, 0] = int(numbers[found + NEXT])
    return numbers[found + REWARD], numbers[found + END] != 0.0


@part
def table_show(state: np.ndarray, i: int, time: int, obs: np.ndarray, rules: Tables) -> None:
    """The number of the state."""
    obs[i] = state[i, 0]


environment(Tables, table_begin, table_play, table_show)


def tables_of(env: Any) -> Tables:
    """The tables of an environment that has `P` and `initial_state_distrib`."""
    known = env.P
    widest = max(len(outcomes) for actions in known.values() for outcomes in actions.values())
    array = np.full((len(known), len(known[0]), widest, FIELDS), -1.0)
    for s, actions in known.items():
        for a, outcomes in actions.items():
            array[s, a, : len(outcomes)] = outcomes
            array[s, a, : len(outcomes), CHANCE] = np.cumsum([outcome[CHANCE] for outcome in outcomes])
    return Tables(np.concatenate([array.shape[:3], np.cumsum(env.initial_state_distrib), array.ravel()]))
