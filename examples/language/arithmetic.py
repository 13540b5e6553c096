"""A transformer of 100,000 parameters learns to add: supervised, then RLOO, GRPO, PPO.

    python examples/language/arithmetic.py [--seeds 5] [--updates 200] [--out runs.json] [--page docs/language.md]

Supervised learning from nothing ends when half of the sums that it has not seen are right. That model is frozen as the
reference, and every algorithm goes on from it by the exact-match reward alone: 1 for the right answer, 0 for all others.

Each update has 32 prompts with eight answers each. RLOO and PPO subtract 0.02 k1 from the reward; GRPO has 0.02 k3 as a loss.
Answers without an end in five characters are masked: they count in others' baselines, but nothing is learned from their
tokens. Seconds are of one thread. arithmetic_model.py has the transformer, batched decoding, a `pg.Policy` that reads whole
answers in one pass, and its critic.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from arithmetic_model import (
    ANSWERS,
    PAD,
    PROMPT,
    AnswerCritic,
    AnswerPolicy,
    Problems,
    Transformer,
    answer_policy,
    decode,
    rollout_of,
)
from group_estimators import GroupRelative, by_own_length
from torch import Tensor, nn
from torch.nn import functional as F

import policygrad as pg
from policygrad.marks import markdown_table, with_tables

GROUP = 8  # answers to each prompt
BETA = 0.02  # of the KL divergence to the reference
PATIENCE = 20_000  # steps of supervised learning


def split(seed: int = 0, held_out: int = 1000) -> tuple[Problems, Problems]:
    """The sums to learn from, and those that are never learned from."""
    problems = Problems.all()
    order = torch.randperm(len(problems), generator=torch.Generator().manual_seed(seed))
    return problems.take(order[held_out:]), problems.take(order[:held_out])


def accuracy(transformer: Transformer, problems: Problems) -> float:
    """The share of problems whose greedy answer is right."""
    return float(problems.right(decode(transformer, problems.prompts, None)).double().mean())


def supervised(train: Problems, held_out: Problems, enough: float = 0.5, seed: int = 0, rows: int = 512) -> Transformer:
    """A new transformer, trained by maximum likelihood until so many of the held-out sums are right."""
    torch.manual_seed(seed)
    transformer, generator = Transformer(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(transformer.parameters(), 2e-3)
    for step in range(PATIENCE):
        some = train.take(torch.randint(len(train), (rows,), generator=generator))
        logits = transformer(torch.cat([some.prompts, some.answers[:, :-1]], 1))[:, PROMPT - 1 :]
        loss = F.cross_entropy(logits.flatten(0, 1), some.answers.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            share = accuracy(transformer, held_out)
            if step % 100 == 99:
                print(f"supervised step {step + 1}: loss {loss:.3f}, held-out accuracy {share:.3f}", flush=True)
            if share >= enough:
                print(f"supervised learning ends at step {step + 1}: held-out accuracy {share:.3f}", flush=True)
                break
    return transformer


def with_value(transformer: Transformer, seed: int) -> Transformer:
    """A copy with one more output, which begins at 0 for every input: V."""
    made, old = copy.deepcopy(transformer), transformer.out
    made.out = nn.Linear(old.in_features, old.out_features + 1)
    with torch.no_grad():
        made.out.weight.copy_(torch.cat([old.weight, torch.zeros(1, old.in_features)]))
        made.out.bias.copy_(torch.cat([old.bias, torch.zeros(1)]))
    return made


@dataclass(frozen=True)
class K3:
    """−beta · ∇ of the mean k3 to the reference, as a term of an update: what GRPO adds. Reads `extra["reference"]`."""

    beta: float = BETA

    def __call__(self, evaluation: Any, batch: pg.Batch) -> Tensor:
        log_r = batch.extra["reference"] - evaluation.logp
        return evaluation.score(self.beta * batch.weight * log_r.expm1())  # −∇k3 = (r − 1) ∇log π


def without_truncated(reduction: Callable[[pg.Rollout], Tensor]) -> Callable[[pg.Rollout], Tensor]:
    """A reduction that gives the characters of truncated answers the weight 0."""

    def weights(rollout: pg.Rollout) -> Tensor:
        kept = ~rollout.truncated.any(0)
        return reduction(rollout) * rollout.valid(kept.expand_as(rollout.mask))

    return weights


def by_answer(rollout: pg.Rollout) -> Tensor:
    """1 / N for every character: the library's "trajectory"."""
    return rollout.rew.new_full((rollout.steps,), 1.0 / rollout.trajectories)


def by_character(rollout: pg.Rollout) -> Tensor:
    """1 / (number of characters): the library's "step"."""
    return rollout.rew.new_full((rollout.steps,), 1.0 / rollout.steps)


@dataclass(frozen=True)
class Side:
    """An algorithm: its learner, and whether k1 to the reference is subtracted from the rewards."""

    transformer: Transformer
    learner: pg.Learner
    in_reward: bool


def warm_up(lr: float) -> Callable[[float], float]:
    """A schedule: the rate grows to lr in the first tenth of a run, because Adam's first steps are as long as its others."""
    return lambda progress: lr * min(1.0, 0.01 + 10.0 * progress)


def rloo(reference: Transformer, seed: int, lr: float) -> Side:
    transformer = copy.deepcopy(reference)
    policy, rule, loo = (
        answer_policy(transformer),
        pg.VanillaGradient(warm_up(lr), max_grad_norm=1.0),
        pg.LeaveOneOut(by="group"),
    )
    learner = pg.Learner(policy, pg.TotalReturn(), rule, baseline=loo, reduction=without_truncated(by_answer))
    return Side(transformer, learner, True)


def grpo(reference: Transformer, seed: int, lr: float) -> Side:
    transformer = copy.deepcopy(reference)
    rule = pg.ClippedSurrogate(warm_up(lr), epochs=1, minibatches=2, terms=(K3(),), max_grad_norm=1.0, seed=seed)
    reduction = without_truncated(by_own_length)
    return Side(transformer, pg.Learner(answer_policy(transformer), GroupRelative(), rule, reduction=reduction), False)


def ppo(reference: Transformer, seed: int, lr: float) -> Side:
    transformer, critic = with_value(reference, seed), AnswerCritic(value_coef=0.5)
    rule = pg.ClippedSurrogate(warm_up(lr), epochs=1, minibatches=2, terms=(critic.term,), max_grad_norm=1.0, seed=seed)
    estimator, reduction = pg.Standardized(pg.GAE(gamma=1.0, lam=0.95)), without_truncated(by_character)
    learner = pg.Learner(answer_policy(transformer), estimator, rule, critic=critic, reduction=reduction)
    return Side(transformer, learner, True)


SIDES: dict[str, Callable[[Transformer, int, float], Side]] = {"RLOO": rloo, "GRPO": grpo, "PPO": ppo}


def with_reference(rollout: pg.Rollout, reference: AnswerPolicy, in_reward: bool) -> pg.Rollout:
    """The rollout with log π of the reference in `extra`, and with −BETA · k1 in every reward, if wanted."""
    log_ref = reference.log_probs(rollout.obs[:-1], rollout.act)
    rollout = replace(rollout, extra=rollout.extra | {"reference": log_ref})
    k1 = torch.where(rollout.mask, rollout.logp - log_ref, 0.0)
    return replace(rollout, rew=rollout.rew - BETA * k1) if in_reward else rollout


def update(
    side: Side, reference: AnswerPolicy, problems: Problems, generator: torch.Generator, progress: float = 0.0
) -> float:
    """Answers to problems, GROUP each, and one step of the learner. Returns the share of right answers."""
    index = torch.arange(len(problems)).repeat_interleave(GROUP)
    asked = problems.take(index)
    answers = decode(side.transformer, asked.prompts, generator)
    right, policy = asked.right(answers).float(), side.learner.policy
    assert isinstance(policy, AnswerPolicy)
    rollout = rollout_of(asked.prompts, answers, right, index, policy)
    side.learner.step(with_reference(rollout, reference, side.in_reward), progress)
    return float(right.mean())


@torch.no_grad()
def measured(transformer: Transformer, reference: Transformer, problems: Problems, seed: int = 0) -> dict[str, float]:
    """On held-out problems: greedy accuracy; of sampled answers accuracy, length, the share of truncated ones, and the exact KL
    to the reference, per answer in nats.
    """
    answers = decode(transformer, problems.prompts, torch.Generator().manual_seed(seed))
    whole = torch.cat([problems.prompts, answers[:, :-1]], 1)
    mask = answers != PAD
    new, old = (net(whole)[:, PROMPT - 1 :, :ANSWERS].double().log_softmax(-1) for net in (transformer, reference))
    kl = torch.where(mask, (new.exp() * (new - old)).sum(-1), 0.0).sum(1).mean()
    return {
        "greedy": accuracy(transformer, problems),
        "sampled": float(problems.right(answers).double().mean()),
        "length": float(mask.sum(1).double().mean()),
        "truncated": float((~(answers == ANSWERS - 1).any(1)).double().mean()),
        "kl": float(kl),
    }


def run(name: str, seed: int, reference: Transformer, args: argparse.Namespace) -> dict[str, Any]:
    """One run: what was measured before, during and after it."""
    train, held_out = split()
    generator, began = torch.Generator().manual_seed(1000 + seed), time.perf_counter()
    side, frozen, curve = SIDES[name](reference, seed, args.lr), answer_policy(copy.deepcopy(reference)), []
    for done in range(args.updates + 1):
        if done % args.every == 0 or done == args.updates:
            curve.append({"updates": done} | measured(side.transformer, reference, held_out))
        if done < args.updates:
            problems = train.take(torch.randint(len(train), (args.prompts,), generator=generator))
            update(side, frozen, problems, generator, done / args.updates)
    return {"name": name, "seed": seed, "seconds": round(time.perf_counter() - began, 1), "curve": curve}


def table(runs: list[dict[str, Any]]) -> str:
    """The reference, and every algorithm at the end of its runs: the numbers of all seeds, in the order of the seeds."""
    first = runs[0]["curve"][0]
    rows = [["reference", f"{first['greedy']:.3f}", f"{first['sampled']:.3f}", "0", f"{first['length']:.2f}", ""]]
    for name in SIDES:
        own = [run for run in runs if run["name"] == name]
        ends = [run["curve"][-1] for run in own]
        cells = [" ".join(f"{end[key]:.3f}" for end in ends) for key in ("greedy", "sampled", "kl")]
        lengths, seconds = (f"{end['length']:.2f}" for end in ends), (f"{run['seconds']:.0f}" for run in own)
        rows.append([name, *cells, " ".join(lengths), " ".join(seconds)])
    return markdown_table(["", "accuracy, greedy", "accuracy, sampled", "KL", "length", "seconds"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=32, help=f"of an update, with {GROUP} answers each")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--every", type=int, default=100, help="updates between two measurements")
    parser.add_argument("--enough", type=float, default=0.5, help="held-out accuracy that ends supervised learning")
    parser.add_argument("--out", type=Path, default=Path("arithmetic.json"), help="what was measured")
    parser.add_argument("--page", type=Path, help="a page with markers for the table")
    args = parser.parse_args()
    torch.set_num_threads(1)

    reference, runs = supervised(*split(), args.enough), []
    for seed in range(args.seeds):
        for name in SIDES:
            runs.append(run(name, seed, reference, args))
            end = runs[-1]["curve"][-1]
            numbers = ", ".join(f"{key} {end[key]:.3f}" for key in ("greedy", "sampled", "kl", "length", "truncated"))
            print(f"{name} seed {seed}: {numbers}, {runs[-1]['seconds']} s", flush=True)
            args.out.write_text(json.dumps(runs, indent=1), "utf8")
    print(f"\n{table(runs)}")
    if args.page is not None:
        page = args.page.read_text("utf8")
        args.page.write_text(with_tables(page, {"arithmetic": table(runs)}, "examples/language/arithmetic.py"), "utf8")


if __name__ == "__main__":
    main()
