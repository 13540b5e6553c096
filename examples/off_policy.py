"""SAC on Pendulum, and a rule of your own for replayed transitions: expected SARSA.

    python examples/off_policy.py [--steps 10000] [--seed 0]

`pg.QLearning` bootstraps from the best action. Expected SARSA bootstraps from what the policy does, which takes a random action
with probability ε: with an ε that stays large it learns to keep away from where one random action is fatal.
"""

from __future__ import annotations

import argparse

import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.algorithms import keywords as kw
from policygrad.algorithms import replay_keywords as rkw


class ExpectedSarsa(pg.QLearning):
    """Everything as in Q-learning but for what the next state is worth."""

    def next_value(self, policy: pg.ExploringPolicy, obs: Tensor) -> Tensor:
        """(1 − ε) max_a q̄(s', a) + ε · mean_a q̄(s', a): (B,)."""
        assert self.copy is not None
        q = policy.action_values(obs, self.copy.kernel)
        return (1.0 - policy.epsilon) * q.amax(-1) + policy.epsilon * q.mean(-1)


@pg.recipe(pg.RecipeSpec("r + γ E q", "expected SARSA", gradient="none"))
def expected_sarsa(
    task: pg.Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),  # noqa: B008
    num_steps: int = 4,
    lr: float = 1e-3,
    epsilon: float = 0.1,
    memory: rkw.ReplayMemory = rkw.ReplayMemory(warmup=500),  # noqa: B008
) -> pg.Plan:
    """Expected SARSA with replay: `policygrad train examples/off_policy.py:expected_sarsa CartPole-v1`."""
    assert isinstance(task.action_space, spaces.Discrete)
    actions = int(task.action_space.n)
    policy = task.exploring_policy(lambda masked: pg.ActionValues(actions, masked))
    learner = pg.ReplayLearner(
        policy,
        ExpectedSarsa(policy, lr=lr, double=False),
        num_envs=run.num_envs,
        epsilon=epsilon,
        seed=task.seed,
        **memory.values(),
    )
    return pg.Plan(learner, num_steps=num_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps for each of the two")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    few = min(1_000, args.steps // 2)
    for algo, env, keywords in (
        ("sac", "Pendulum-v1", {"hidden": (64, 64), "warmup": few}),
        (expected_sarsa, "CartPole-v1", {"hidden": (64,), "warmup": few}),
    ):
        with pg.Agent(algo, env, seed=args.seed, **keywords) as agent:
            agent.learn(args.steps)
            print(f"{agent.algo.rpartition(':')[2]} on {env}: mean return {agent.evaluate(episodes=5).mean:.1f}")


if __name__ == "__main__":
    main()
