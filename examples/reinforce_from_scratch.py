"""REINFORCE in 40 lines of plain PyTorch, and with the library: for the same episodes both give the same gradient.

    python examples/reinforce_from_scratch.py [--steps 100000] [--seed 0]

CartPole-v1, reward-to-go, no baseline, 8 episodes a step of Adam.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import policygrad as pg
from policygrad.models import heads

GAMMA, LR, EPISODES = 0.99, 1e-2, 8
Episode = tuple[Tensor, Tensor, list[float]]  # observations (T, 4), actions (T,), rewards


# ── from scratch ─────────────────────────────────────────────────────────────────────────────────────────────────────


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))


def play(env: gym.Env, network: nn.Module, seed: int | None) -> Episode:
    obs, acts, rewards = [torch.as_tensor(env.reset(seed=seed)[0])], [], []
    over = False
    while not over:
        with torch.no_grad():
            acts.append(Categorical(logits=network(obs[-1])).sample())
        after, reward, terminated, truncated, _ = env.step(acts[-1].item())
        obs.append(torch.as_tensor(after))
        rewards.append(float(reward))
        over = terminated or truncated  # without a critic there is nothing to count behind either
    return torch.stack(obs[:-1]), torch.stack(acts), rewards


def reward_to_go(rewards: list[float]) -> Tensor:
    """G_t = r_t + γ G_{t+1}."""
    returns = [0.0]
    for reward in reversed(rewards):
        returns.append(reward + GAMMA * returns[-1])
    return torch.tensor(returns[:0:-1])


def loss(network: nn.Module, episodes: list[Episode]) -> Tensor:
    """−1/N Σ_i Σ_t G_t log π(a_t|s_t): minus its gradient is ĝ. Its value says nothing."""
    total = torch.zeros(())
    for obs, act, rewards in episodes:
        logp = Categorical(logits=network(obs)).log_prob(act)  # (T,), as is G: (T, 1) would broadcast to (T, T)
        total = total - (logp * reward_to_go(rewards)).sum()
    return total / len(episodes)


def from_scratch(steps: int, seed: int) -> list[float]:
    """The returns of the episodes played."""
    env, network, scores, played = gym.make("CartPole-v1"), make_network(seed), [], 0
    optimizer = torch.optim.Adam(network.parameters(), LR)
    while played < steps:
        episodes = [play(env, network, None if scores else seed) for _ in range(EPISODES)]
        optimizer.zero_grad()
        loss(network, episodes).backward()
        optimizer.step()
        scores += [sum(rewards) for _, _, rewards in episodes]
        played += sum(len(rewards) for _, _, rewards in episodes)
    return scores


# ── with the library ─────────────────────────────────────────────────────────────────────────────────────────────────


def with_library(steps: int, seed: int) -> list[float]:
    """The returns of the last 100 episodes."""
    policy = pg.Policy(make_network(seed), heads.Categorical(2))  # the same network; make_policy would make one
    learner = pg.Learner(
        policy, pg.RewardToGo(GAMMA), pg.VanillaGradient(LR, max_grad_norm=None), reduction="trajectory"
    )
    collector = pg.Collector(pg.make_envs("CartPole-v1", num_envs=EPISODES), seed=seed)
    while collector.steps_done < steps:
        learner.step(collector.episodes(policy, EPISODES))
    return list(collector.returns)


# ── side by side ─────────────────────────────────────────────────────────────────────────────────────────────────────


def episodes_of(rollout: pg.Rollout) -> list[Episode]:
    """The columns of a rollout of whole episodes, without the padding."""
    valid = [rollout.mask[:, n] for n in range(rollout.trajectories)]
    return [(rollout.obs[:-1][m, n], rollout.act[m, n], rollout.rew[m, n].tolist()) for n, m in enumerate(valid)]


def gradients(seed: int) -> tuple[Tensor, Tensor]:
    """ĝ of both for the same episodes of the same network: (P,) each."""
    network = make_network(seed)
    policy = pg.Policy(network, heads.Categorical(2))
    record = pg.Collector(pg.make_envs("CartPole-v1", EPISODES), seed).episodes(policy, EPISODES)  # one per column
    rollout = pg.Rollout.of(record, policy)
    plain = torch.autograd.grad(-loss(network, episodes_of(rollout)), list(network.parameters()))

    adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.RewardToGo(GAMMA), pg.NoBaseline())
    batch = rollout.flatten(adv, reduction="trajectory")
    ours = policy.evaluate(batch).gradient(batch.weight * batch.adv)
    return torch.cat([g.flatten() for g in plain]), ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps for each of the two")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    plain, ours = gradients(args.seed)
    print(f"‖ĝ‖ from scratch {plain.norm():.4f}, with the library {ours.norm():.4f}")
    print(f"largest difference {(plain - ours).abs().max():.1e}")
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))

    for name, train in (("from scratch", from_scratch), ("with the library", with_library)):
        started, returns = time.perf_counter(), train(args.steps, args.seed)[-100:]
        mean, seconds = sum(returns) / len(returns), time.perf_counter() - started
        print(f"{name:17}: mean return of the last {len(returns)} episodes {mean:.1f}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
