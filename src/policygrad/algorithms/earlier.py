"""Episodes of earlier iterations, from which a learner may learn again: the replay of on-policy methods.

Each is kept with the log-probabilities of the policy that played it, so that importance weights (importance.py) can carry it
over to the policy that learns. What is *not* here: the weights, and episodes from files (`stored/`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from policygrad.data import Rollout
from policygrad.forms import MANY, Form, FormError, array, finite, table
from policygrad.tree import Tree, concatenate, take, to_device, tree_leaves, tree_map

ROWS = ("obs", "act", "rew", "behavior")  # of every step, (R, *)
EPISODES = ("last_obs", "length", "terminated")  # of every episode, (E, *)


class EarlierEpisodes:
    """The last `most` whole episodes that were learned from; 0: none are kept.

    columns: the steps of all of them, one episode after another, the oldest first; empty before the first are kept.
    """

    def __init__(self, most: int = 0) -> None:
        if most < 0:
            raise ValueError(f"replay_episodes must be a number of episodes, 0 or more, got {most}")
        self.most = most
        self.columns: dict[str, Tree] = {}

    def __len__(self) -> int:
        return len(self.columns["length"]) if self.columns else 0

    def joined(self, fresh: Rollout, policy: Any) -> Rollout:
        """The new episodes (T, N) and, in the columns after them, the earlier ones, as the policy sees them now.

        `logp` is the policy's own everywhere, `behavior` is that of the policies that played. Raises ValueError for columns
        that are no whole episodes, and for named arrays, which are not kept.
        """
        if not self.columns:
            return fresh
        seen = {"obs": self.columns["obs"], "act": self.columns["act"]}
        logp = policy.log_probs(**tree_map(lambda x: x.unsqueeze(1), seen)).squeeze(1)
        new = _columns_of(fresh)
        logp = torch.cat([fresh.logp.T[fresh.mask.T], logp])
        return _rollout_of(_appended(new, self.columns), logp, len(fresh.rew))

    def keep(self, fresh: Rollout) -> None:
        """Keep these episodes, and forget the oldest ones beyond the limit."""
        columns = _columns_of(fresh)
        self.columns = _latest(_appended(self.columns, columns) if self.columns else columns, self.most)

    def state_dict(self) -> dict[str, Any]:
        """The episodes."""
        return self.columns

    def state_form(self) -> Form:
        """Of `state_dict`; what the policy's observations and actions must be is seen when it is shown them."""
        lengths = {"length": array((None,), "int64", 1, MANY), "terminated": array((None,), "bool", None)}
        steps = {"rew": array((None,), "float32|float64"), "behavior": array((None,), "float32|float64")}
        form = table(dict.fromkeys(("obs", "act", "last_obs"), finite) | steps | lengths)
        return lambda name, state: None if state == {} else form(name, state)

    def load_state_dict(self, state: dict[str, Any], policy: Any) -> None:
        """The inverse of `state_dict`. Raises FormError for what the policy cannot have played."""
        self.state_form()("earlier episodes", state)
        if state:
            _check(state, policy)
        columns = _latest(state, self.most) if state and self.most else {}
        self.columns = to_device(columns, getattr(policy, "device", None))


def _columns_of(rollout: Rollout) -> dict[str, Tree]:
    """The columns of a rollout as `EarlierEpisodes.columns`."""
    if not rollout.whole_episodes:
        raise ValueError("earlier episodes can be learned from again only if they are whole: collect with .episodes")
    named = set(rollout.extra) - {"logp"}
    if named:
        raise ValueError(
            f"episodes are kept without the actor's named arrays, but these have {', '.join(sorted(named))}"
        )
    n, t = rollout.mask.T.nonzero().unbind(1)  # one column after another
    length = rollout.mask.sum(0)
    last = (length - 1, torch.arange(len(length), device=length.device))
    columns = {name: take(getattr(rollout, name), (t, n)) for name in ROWS}
    return columns | {
        "last_obs": take(rollout.next_obs, last),
        "length": length,
        "terminated": rollout.terminated[last],
    }


def _appended(first: dict[str, Tree], second: dict[str, Tree]) -> dict[str, Tree]:
    return {name: concatenate([first[name], second[name]]) for name in (*ROWS, *EPISODES)}


def _latest(columns: dict[str, Tree], count: int) -> dict[str, Tree]:
    """The last so many episodes, in memory of their own."""
    gone = max(len(columns["length"]) - count, 0)
    rows = int(columns["length"][:gone].sum())
    cut = {name: take(columns[name], slice(rows, None)) for name in ROWS}
    cut |= {name: take(columns[name], slice(gone, None)) for name in EPISODES}
    return tree_map(lambda x: x.clone(), cut)


def _rollout_of(columns: dict[str, Tree], logp: Tensor, least: int) -> Rollout:
    """One episode per column, with at least so many rows; padding repeats the last step."""
    length = columns["length"]
    T, N = max(least, int(length.max())), len(length)
    time = torch.arange(T, device=length.device).unsqueeze(1).expand(T, N)
    row = (length.cumsum(0) - length) + torch.minimum(time, length - 1)
    mask, end = time < length, time == length - 1

    def observations(x: Tensor, last: Tensor) -> Tensor:
        shown = torch.cat([x[row], x[row[-1:]]])
        shown[length, torch.arange(N, device=length.device)] = last
        return shown

    obs = tree_map(observations, columns["obs"], columns["last_obs"])
    return Rollout(
        obs=obs,
        next_obs=take(obs, slice(1, None)),
        act=columns["act"][row],
        rew=columns["rew"][row],
        logp=logp[row],
        terminated=end & columns["terminated"],
        truncated=end & ~columns["terminated"],
        cut=torch.zeros_like(mask),
        mask=mask,
        time=torch.where(mask, time, 0),
        extra={"logp": columns["behavior"][row]},
    )


def _check(state: dict[str, Any], policy: Any) -> None:
    """Refuse columns of other lengths, and steps to which the policy gives no probability."""
    R, E = len(state["rew"]), len(state["length"])
    sizes = dict.fromkeys(ROWS, R) | dict.fromkeys(EPISODES, E)
    leaves = [(len(x) if x.ndim else -1, size) for name, size in sizes.items() for x in tree_leaves(state[name])]
    if E == 0 or any(found != size for found, size in leaves) or int(state["length"].sum()) != R:
        raise FormError(f"{E} earlier episodes of {R} steps do not fit together")
    shown = {"obs": state["obs"], "act": state["act"]}
    try:
        logp = policy.log_probs(**tree_map(lambda x: x.unsqueeze(1), shown))
        concatenate([state["obs"], state["last_obs"]])
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise FormError(f"the earlier episodes are of another task: {error}") from error
    if not bool((logp > -math.inf).all()):
        raise FormError("an action of the earlier episodes is none that the policy can take")
