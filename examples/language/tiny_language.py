"""A language so small that every answer can be listed, with its probability under a policy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

import policygrad as pg
from policygrad.lab.exact import tabular


@dataclass(frozen=True)
class Language:
    """Strings of at most `longest` letters. A state is a prefix, an action the next letter or the end.

    An answer is right if its letters are in the order of the alphabet, none of them twice, and there is at least one.
    A full string ends by itself. mdp: one state per prefix, and one behind the end.
    """

    letters: str = "abc"
    longest: int = 3

    @property
    def prefixes(self) -> list[str]:
        """Those that can be continued; the shorter ones come first."""
        each = (itertools.product(self.letters, repeat=n) for n in range(self.longest))
        return ["".join(letters) for same in each for letters in same]

    def right(self, answer: str) -> bool:
        """Whether an answer is rewarded."""
        return answer != "" and all(a < b for a, b in itertools.pairwise(answer))

    @property
    def mdp(self) -> pg.lab.MDP:
        """The language as an MDP: the reward, 1 or 0, comes with the action that ends the answer."""
        number = {prefix: n for n, prefix in enumerate(self.prefixes)}
        end, A = len(number), len(self.letters) + 1
        transition, reward = torch.zeros(end + 1, A, end + 1, dtype=torch.float64), torch.zeros(end + 1, A)
        transition[end, :, end] = 1.0
        for prefix, state in number.items():
            for action, letter in enumerate((*self.letters, "")):
                after = number.get(prefix + letter, end) if letter else end
                transition[state, action, after] = 1.0
                reward[state, action] = float(after == end and self.right(prefix + letter))
        return pg.lab.MDP(transition, reward, torch.eye(end + 1)[0], self.longest, terminal=(end,))


@dataclass(frozen=True)
class Answers:
    """Every answer of a policy, one per column: its probability, reward, number of tokens (the end is one), and score."""

    rollout: pg.Rollout
    p: Tensor  # (N,)
    reward: Tensor  # (N,)
    length: Tensor  # (N,)
    score: Tensor  # (N, P)  ∇log π of the whole answer, the sum over its tokens

    @staticmethod
    def of(language: Language, policy: pg.Policy) -> Answers:
        rollout, p = tabular.enumerate_trajectories(language.mdp, policy)
        scores = tabular.scores(language.mdp, policy)[rollout.obs[:-1].argmax(-1), rollout.act]
        score = torch.where(rollout.mask.unsqueeze(-1), scores, 0.0).sum(0)
        return Answers(rollout, p, rollout.rew.sum(0), rollout.mask.sum(0).double(), score)

    @property
    def gradient(self) -> Tensor:
        """∇J = Σ π(o) R(o) ∇log π(o), (P,)."""
        return (self.p * self.reward) @ self.score

    def slope(self, x: Tensor) -> Tensor:
        """∇E[x] of a number x (N,) per answer, (P,)."""
        return (self.p * x) @ self.score


def random_policy(language: Language, seed: int = 0, scale: float = 0.5) -> pg.Policy:
    """A table of logits N(0, scale²)."""
    return tabular.tabular_policy(language.mdp, torch.Generator().manual_seed(seed), scale)


def ascended(language: Language, policy: pg.Policy, least: float) -> pg.Policy:
    """A copy that has gone along ∇J until J, the share of right answers, is at least so much."""
    made, mdp = tabular.tabular_policy(language.mdp), language.mdp
    made.flat.copy_(policy.flat)
    while float(tabular.objective(mdp, tabular.policy_matrix(mdp, made).detach())) < least:
        made.flat += tabular.exact_gradient(mdp, made)
    return made
