"""PPO of Stable-Baselines3 with RL Zoo's hyperparameters: finished runs that `policygrad compare` takes as a side.

    python benchmarks/zoo.py Acrobot-v1 --seeds 0 1 2 3 4 5 6 7 8 9 --out runs/sb3
    policygrad compare ppo runs/sb3/Acrobot-v1 --env Acrobot-v1 --steps 1000000 --seeds 10

Every run has its training episodes in monitor.csv, and in evaluations.npz one evaluation: the final policy, greedy, over 100
episodes that are reset with the seeds of policygrad's own evaluations. A finished run is not trained again.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

EPISODES, FIRST_SEED = 100, 10_000  # of an evaluation: episode k is reset with FIRST_SEED + k
# hyperparams/ppo.yml of rl-baselines3-zoo; what is not said there is the default of Stable-Baselines3.
ZOO: dict[str, dict[str, Any]] = {
    "LunarLander-v3": {
        "num_envs": 16, "steps": 1_000_000,
        "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01,
    },
    "Pendulum-v1": {
        "num_envs": 4, "steps": 100_000,
        "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "learning_rate": 1e-3,
        "use_sde": True, "sde_sample_freq": 4,
    },
    "Acrobot-v1": {
        "num_envs": 16, "steps": 1_000_000, "normalize": True,
        "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4,
    },
}  # fmt: skip


def train_one(env: str, seed: int, place: Path) -> None:
    """One run, written to `place`."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

    torch.set_num_threads(1)
    place.mkdir(parents=True, exist_ok=True)
    settings = dict(ZOO[env])
    num_envs, steps, normalize = settings.pop("num_envs"), settings.pop("steps"), settings.pop("normalize", False)
    make = partial(gymnasium.make, env, disable_env_checker=True)
    envs: Any = VecMonitor(DummyVecEnv([make] * num_envs), str(place / "monitor.csv"))
    if normalize:
        envs = VecNormalize(envs, gamma=settings["gamma"])
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    model.learn(steps, log_interval=10**9)
    judge: Any = DummyVecEnv([make] * EPISODES)
    if normalize:
        judge = VecNormalize(judge, training=False, norm_reward=False)
        judge.obs_rms = envs.obs_rms
    judge.seed(FIRST_SEED)  # environment k is reset with FIRST_SEED + k, and plays one episode that counts
    found: Any = evaluate_policy(model, judge, EPISODES, deterministic=True, return_episode_rewards=True, warn=False)
    returns, lengths = np.array(found[0], float), np.array(found[1])
    np.savez(
        place / "evaluations.npz",
        timesteps=np.array([model.num_timesteps]),
        results=returns[None],
        ep_lengths=lengths[None],
    )
    print(f"{env} seed {seed}: greedy {returns.mean():.1f}", flush=True)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=list(ZOO))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--out", type=Path, default=Path("runs/sb3"))
    args = parser.parse_args()
    for env in args.envs:
        for seed in args.seeds:
            place, begin = args.out / env / f"seed{seed}", time.perf_counter()
            if not (place / "evaluations.npz").exists():
                train_one(env, seed, place)
                print(f"{time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
