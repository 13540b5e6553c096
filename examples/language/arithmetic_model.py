"""A character transformer that adds, `12+07=` → `19.`, as a policy of policygrad whose episodes are answers.

The state is the prompt and the answer so far, an action the next character. One pass over a whole answer gives the
distributions of all its characters, because no position sees a later one. So the rows of a batch are read as answers
(`segment`), not one by one: `AnswerPolicy` is `pg.Policy` with that one difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import policygrad as pg

LETTERS = "0123456789.+="  # what can be answered comes first: digits and the end
ANSWERS, PAD, END = 11, 13, 10
PROMPT, LONGEST = 6, 5  # characters of a prompt, and at most of an answer, the end included
POSITIONS = PROMPT + LONGEST - 1  # the last character of an answer is never read


class Transformer(nn.Module):
    """Causal, pre-norm: characters (N, L) → outputs (N, L, outputs). A position sees itself and those before it."""

    def __init__(self, outputs: int = ANSWERS, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(PAD + 1, width), nn.Embedding(POSITIONS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


class Block(nn.Module):
    """Attention to earlier positions, then a network for each position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.before, self.between = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attend(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.join(seen.transpose(1, 2).flatten(2))
        return x + self.inner(self.between(x))


class OfAnswers(nn.Module):
    """The transformer as a policy's network: sequences (N, L) → the outputs of their answers' characters, (N·T, outputs)."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, sequences: Tensor) -> Tensor:
        return self.transformer(sequences.long())[:, PROMPT - 1 :].flatten(0, 1)


class AnswerPolicy(pg.Policy):
    """π(character | prompt and answer so far). Rows come answer by answer, LONGEST rows each, those after the end masked."""

    segment = 0  # whole columns: an answer is never torn apart
    known = False  # compiled functions know no transformer

    def features(self, obs: Any) -> Tensor:
        """The last row of an answer has seen all of it but its last character: (N·T, L) → (N, L)."""
        return obs.view(-1, LONGEST, POSITIONS)[:, -1]

    def log_probs(self, obs: Any, act: Tensor, extra: Any = None) -> Tensor:
        """Log π of a rollout, (T, N, L) and (T, N) → (T, N)."""
        dist = self.dist(obs.transpose(0, 1).reshape(-1, POSITIONS))
        return self.head.logp(dist, act.T.reshape(-1)).view(act.shape[1], -1).T.contiguous()


def answer_policy(transformer: Transformer) -> AnswerPolicy:
    """A policy on the transformer itself, not a copy."""
    return AnswerPolicy(OfAnswers(transformer), pg.Categorical(ANSWERS))


class AnswerCritic(pg.SharedCritic):
    """V of every prefix: one output more of the same transformer, trained in the policy's update.

    Rewards are 0 or 1, so that targets need no scaling.
    """

    def __call__(self, rollout: pg.Rollout, policy: pg.Policy) -> pg.Values:
        obs = rollout.obs[:-1].transpose(0, 1).reshape(-1, POSITIONS)
        V = policy.kernel.forward(policy.features(obs), grad=False)[:, -1]
        V = V.view(-1, LONGEST).T.contiguous()
        return pg.Values(V, torch.cat([V[1:], torch.zeros_like(V[:1])]))

    def rescale_to(self, rollout: pg.Rollout, target: Tensor, policy: pg.Policy) -> None:
        """The scale stays."""


def encoded(text: str) -> list[int]:
    """Characters as numbers."""
    return [LETTERS.index(letter) for letter in text]


@dataclass(frozen=True)
class Problems:
    """Sums a + b of numbers below 100: prompts (N, 6), and answers (N, 5), padded behind their end."""

    prompts: Tensor
    answers: Tensor

    @staticmethod
    def all() -> Problems:
        pairs = [(a, b) for a in range(100) for b in range(100)]
        answers = [(encoded(f"{a + b}.") + [PAD] * LONGEST)[:LONGEST] for a, b in pairs]
        return Problems(torch.tensor([encoded(f"{a:02}+{b:02}=") for a, b in pairs]), torch.tensor(answers))

    def take(self, index: Tensor) -> Problems:
        return Problems(self.prompts[index], self.answers[index])

    def __len__(self) -> int:
        return len(self.prompts)

    def right(self, answers: Tensor) -> Tensor:
        """(N,) bool: the answer is the sum, character by character, and then ends."""
        return (answers == self.answers).all(1)


@torch.no_grad()
def decode(transformer: Transformer, prompts: Tensor, generator: torch.Generator | None) -> Tensor:
    """Answers (N, LONGEST), all of them at a time, padded behind their end; without a generator the most likely characters."""
    tokens = torch.cat([prompts, torch.full((len(prompts), LONGEST), PAD)], 1)
    running = torch.arange(len(prompts))
    for place in range(PROMPT, PROMPT + LONGEST):
        logits = transformer(tokens[running, :place])[:, -1, :ANSWERS]
        if generator is None:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
        tokens[running, place] = chosen
        running = running[chosen != END]
        if not len(running):
            break
    return tokens[:, PROMPT:]


def rollout_of(prompts: Tensor, answers: Tensor, reward: Tensor, group: Tensor, policy: AnswerPolicy) -> pg.Rollout:
    """Answers as episodes, one per column, with the reward at their last character; one without an end is truncated."""
    N = len(answers)
    place = torch.arange(LONGEST).unsqueeze(1)
    length = (answers != PAD).sum(1)
    ended = (answers == END).any(1)
    whole = torch.cat([prompts, answers[:, :-1]], 1)
    shown = torch.arange(POSITIONS) < PROMPT + torch.arange(LONGEST + 1).unsqueeze(1)  # at time t: (T + 1, L)
    obs = torch.where(shown.unsqueeze(1), whole, PAD)  # (T + 1, N, L)
    mask, last = place < length, place == length - 1
    act = torch.where(mask, answers.T, 0)
    time, none = place.expand(LONGEST, N), torch.zeros(LONGEST, N, dtype=torch.bool)
    logp = policy.log_probs(obs[:-1], act)
    rew, extra = torch.where(last, reward, 0.0), {"group": group.expand(LONGEST, N)}
    return pg.Rollout(obs, obs[1:], act, rew, logp, last & ended, last & ~ended, none, mask, time, extra)
