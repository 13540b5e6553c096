"""DQN in 60 lines of plain PyTorch, and with the library: for the same transitions both give the same gradient.

    python examples/dqn_from_scratch.py [--steps 20000] [--seed 0]

CartPole-v1, ε-greedy actions, replay, a target network, Double Q-learning, a step of Adam after every fourth step.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import policygrad as pg

GAMMA, LR, BATCH, WARMUP, EVERY, COPY_EVERY, CAPACITY = 0.99, 1e-3, 64, 1_000, 4, 500, 20_000
Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # s (B, 4), a (B,), r (B,), s' (B, 4), 1 if s' is terminal (B,)


# ── from scratch ─────────────────────────────────────────────────────────────────────────────────────────────────────


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))


def loss(network: nn.Module, target_network: nn.Module, columns: Columns) -> Tensor:
    """Huber's, of the error of q(s, a) against r + γ q̄(s', argmax_b q(s', b)); a truncated episode goes on."""
    obs, act, rew, following, terminal = columns
    with torch.no_grad():
        best = network(following).argmax(-1, keepdim=True)
        target = rew + GAMMA * (1.0 - terminal) * target_network(following).gather(-1, best).squeeze(-1)
    q = network(obs).gather(-1, act.unsqueeze(-1)).squeeze(-1)
    return nn.functional.smooth_l1_loss(q, target)


def stacked(memory: list) -> Columns:
    obs, act, rew, following, terminal = zip(*memory, strict=True)
    numbers = (torch.tensor(x, dtype=torch.float32) for x in (rew, terminal))
    reward, over = numbers
    return torch.from_numpy(np.stack(obs)), torch.tensor(act), reward, torch.from_numpy(np.stack(following)), over


def from_scratch(steps: int, seed: int) -> list[float]:
    """The returns of the episodes played."""
    env, network, copy = gym.make("CartPole-v1"), make_network(seed), make_network(seed)
    optimizer, memory, rng = torch.optim.Adam(network.parameters(), LR), deque(maxlen=CAPACITY), random.Random(seed)
    scores, score, obs = [], 0.0, env.reset(seed=seed)[0]
    for step in range(1, steps + 1):
        epsilon = 1.0 if step <= WARMUP else max(0.05, 1.0 - 0.95 * step / (0.1 * steps))
        with torch.no_grad():
            act = rng.randrange(2) if rng.random() < epsilon else int(network(torch.from_numpy(obs)).argmax())
        following, reward, terminated, truncated, _ = env.step(act)
        memory.append((obs, act, reward, following, terminated))
        obs, score = following, score + float(reward)
        if terminated or truncated:
            scores.append(score)
            obs, score = env.reset()[0], 0.0
        if step >= WARMUP and step % EVERY == 0:
            for _ in range(EVERY):
                optimizer.zero_grad()
                loss(network, copy, stacked(rng.choices(memory, k=BATCH))).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 10.0)
                optimizer.step()
        if step % COPY_EVERY == 0:
            copy.load_state_dict(network.state_dict())
    return scores


# ── with the library ─────────────────────────────────────────────────────────────────────────────────────────────────


def make_policy(network: nn.Module) -> pg.ExploringPolicy:
    """Greedy in the outputs of a network, with a random action now and then; pg.dqn would make the network, too."""
    space = gym.make("CartPole-v1").observation_space
    return pg.ExploringPolicy(network, pg.ActionValues(2), encoding=pg.Encoding(space))


def with_library(steps: int, seed: int) -> list[float]:
    """The returns of the last 100 episodes."""
    policy = make_policy(make_network(seed))
    rule = pg.QLearning(policy, lr=LR, target_every=COPY_EVERY)
    learner = pg.ReplayLearner(
        policy,
        rule,
        num_envs=1,
        gamma=GAMMA,
        buffer_size=CAPACITY,
        batch_size=BATCH,
        warmup=WARMUP,
        epsilon=lambda progress: max(0.05, 1.0 - 9.5 * progress),
        seed=seed,
    )
    collector = pg.Collector(pg.make_envs("CartPole-v1", num_envs=1), seed=seed)
    while collector.steps_done < steps:
        learner.step(collector.steps(policy, EVERY), collector.steps_done / steps)
    return list(collector.returns)


# ── side by side ─────────────────────────────────────────────────────────────────────────────────────────────────────


def gradients(seed: int) -> tuple[Tensor, Tensor]:
    """The gradients of both for the same transitions of the same networks: (P,) each."""
    network, copy = make_network(seed), make_network(seed + 1)
    policy = make_policy(network)
    record = pg.Collector(pg.make_envs("CartPole-v1", 1), seed).steps(policy, 200)
    buffer = pg.ReplayBuffer(200, record.obs[0], record.act[0], seed)
    buffer.add(record)
    batch = buffer.sample(BATCH, GAMMA)
    columns = batch.obs, batch.act, batch.ret, batch.next_obs, 1.0 - batch.discount / GAMMA
    plain = torch.autograd.grad(loss(network, copy, columns), list(network.parameters()))

    rule = pg.QLearning(policy, lr=1.0, optimizer="sgd", max_grad_norm=None)
    assert rule.copy is not None
    rule.copy.follow(make_policy(copy), 1.0)
    before = policy.flat.clone()
    rule(policy, batch)  # a step of length 1 down the gradient
    return torch.cat([g.flatten() for g in plain]), before - policy.flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps for each of the two")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    plain, ours = gradients(args.seed)
    print(f"‖g‖ from scratch {plain.norm():.4f}, with the library {ours.norm():.4f}")
    print(f"largest difference {(plain - ours).abs().max():.1e}")
    torch.testing.assert_close(plain, ours, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))

    for name, train in (("from scratch", from_scratch), ("with the library", with_library)):
        started, returns = time.perf_counter(), train(args.steps, args.seed)[-100:]
        mean, seconds = sum(returns) / len(returns), time.perf_counter() - started
        print(f"{name:17}: mean return of the last {len(returns)} episodes {mean:.1f}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
