"""What throughput.py compares: algorithms, environments, hyperparameters, and with whom. Data only; README.md explains it.

All sides get the same environment callables (off-policy one), so policygrad uses no preset, and the same keywords, by SB3's
names. On-policy actors and critics are separate tanh networks of 64 × 64, as is SB3's default, with Adam (eps = 1e-5),
gradients clipped to norm 0.5 and a clip range of 0.2. DQN has RL Zoo's hyperparameters and is not Double; TRPO has
sb3-contrib's defaults, with all rows in every product; SAC learns α, and TD3 has noise of 0.1. Pictures are random, 84 × 84 ×
4 bytes, for the convolutions of Mnih et al. 2015, which policy and values share, as is SB3's default; in ppo-pictures-separate
each side has two networks. RLtools' bar of 0.25 lets policygrad take four times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Config:
    """One comparison. keywords: hyperparameters by SB3's names, given to every library as they are. bars: the least median
    ratios that we promise, by the name of the other side; others: sides that are measured on request, without a promise.
    clock: the one that the bars are about. hidden: widths of the layers, where they are not the default of all sides. own:
    what only our side has a word for. backend: who steps our environments; SB3, SBX, TorchRL and CleanRL have Gymnasium's.
    metrics: whether we take rows of metrics, with diagnostics, as often as we do by default. policy: of pictures, the keywords
    of SB3's CnnPolicy.
    """

    algo: str
    env: str
    num_envs: int
    keywords: dict[str, Any]
    bars: dict[str, float]
    warmup: int  # iterations before the clock starts
    iterations: int  # iterations under it
    hidden: tuple[int, ...] | None = None
    own: dict[str, Any] = field(default_factory=dict)
    backend: str = "gymnasium"
    others: tuple[str, ...] = ()
    clock: str = "training"
    metrics: bool = False
    policy: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.keywords["n_steps" if "n_steps" in self.keywords else "train_freq"]

    @property
    def sides(self) -> tuple[str, ...]:
        """All that we are compared with here."""
        return (*self.bars, *self.others)


COMMON = {"gamma": 0.99, "ent_coef": 0.0, "max_grad_norm": 0.5}
PPO = COMMON | {"learning_rate": 3e-4, "n_epochs": 4, "clip_range": 0.2}
TRPO = {  # sb3-contrib's defaults, written out
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "target_kl": 0.01,
    "cg_max_steps": 15,
    "cg_damping": 0.1,
    "line_search_max_iter": 10,
    "line_search_shrinking_factor": 0.8,
    "learning_rate": 1e-3,
    "n_critic_updates": 10,
}
DQN = {  # RL Zoo's for CartPole
    "gamma": 0.99,
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
PAIR = {  # a step of the environment, a step of the networks
    "gamma": 0.99,
    "learning_rate": 1e-3,
    "batch_size": 256,
    "buffer_size": 100_000,
    "learning_starts": 100,
    "tau": 0.005,
    "train_freq": 1,
    "gradient_steps": 1,
}
CARTPOLE = PPO | {"n_steps": 256, "batch_size": 512, "gae_lambda": 0.95}
ZOO = PPO | {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98, "learning_rate": 1e-3}
LANDER = PPO | {"n_steps": 1024, "batch_size": 64, "gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01}
CHEETAH = PPO | {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gae_lambda": 0.95}
SCRIPT = PPO | {"n_steps": 128, "batch_size": 128, "gae_lambda": 0.95, "ent_coef": 0.01, "learning_rate": 2.5e-4}
ATARI = PPO | {"n_steps": 128, "batch_size": 256, "gae_lambda": 0.95, "clip_range": 0.1, "learning_rate": 2.5e-4}
SWING = PPO | {"n_steps": 1024, "batch_size": 256, "n_epochs": 2, "gamma": 0.9, "gae_lambda": 0.95}
SWING |= {"learning_rate": 1e-3, "max_grad_norm": None}
SWING_OWN = {"activation": "relu", "log_std": 0.6931, "normalize_obs": True}
GYMNASIUM = {
    "ppo-cartpole": Config(
        "ppo", "CartPole-v1", 8, CARTPOLE, {"sb3": 5.5}, warmup=2, iterations=60, others=("sbx", "torchrl")
    ),
    "ppo-cartpole-zoo": Config("ppo", "CartPole-v1", 8, ZOO, {"sb3": 8.0}, 10, 300),
    "ppo-lunarlander": Config(
        "ppo", "LunarLander-v3", 16, LANDER, {"sb3": 4.5, "sb3-workers": 4.5}, 1, 2, backend="split"
    ),
    "ppo-halfcheetah": Config("ppo", "HalfCheetah-v5", 1, CHEETAH, {"sb3": 4.0}, 1, 4),
    "a2c-cartpole": Config(
        "a2c",
        "CartPole-v1",
        8,
        COMMON | {"n_steps": 5, "learning_rate": 7e-4, "gae_lambda": 1.0},
        {"sb3": 5.0},
        100,
        1500,
    ),
    "dqn-cartpole": Config("dqn", "CartPole-v1", 1, DQN, {"sb3": 2.5}, 8, 60, (256, 256), {"double": False}),
    "sac-pendulum-64": Config("sac", "Pendulum-v1", 1, PAIR, {"sb3": 3.0}, 300, 3000, (64, 64), others=("sbx",)),
    "sac-pendulum-256": Config("sac", "Pendulum-v1", 1, PAIR, {"sb3": 1.5}, 300, 1500, (256, 256), others=("sbx",)),
    "td3-pendulum-64": Config("td3", "Pendulum-v1", 1, PAIR | {"policy_delay": 2}, {"sb3": 3.0}, 300, 3000, (64, 64)),
    "td3-pendulum-256": Config(
        "td3", "Pendulum-v1", 1, PAIR | {"policy_delay": 2}, {"sb3": 1.5}, 300, 1500, (256, 256)
    ),
    "trpo-cartpole": Config("trpo", "CartPole-v1", 8, TRPO | {"n_steps": 256, "batch_size": 128}, {"sb3": 5.5}, 2, 30),
}
OTHERS = {  # the same with our environments
    "ppo-cartpole": ("compiled", 18.0),
    "ppo-cartpole-zoo": ("compiled", 12.0),
    "a2c-cartpole": ("compiled", 12.0),
    "trpo-cartpole": ("compiled", 9.0),
    "ppo-lunarlander": ("envpool", 8.0),
}
THEIRS = {  # configurations of other libraries' own
    "ppo-cartpole-script": Config("ppo", "CartPole-v1", 4, SCRIPT, {}, 10, 190, others=("cleanrl", "sb3")),
    "ppo-cartpole-jax": Config(
        "ppo", "CartPole-v1", 4, SCRIPT, {"purejaxrl": 1.5}, 10, 966, backend="compiled", clock="process"
    ),
    "ppo-pendulum-cpp": Config(
        "ppo", "Pendulum-v1", 4, SWING, {"rltools": 0.25}, 2, 73, (64, 64), SWING_OWN, backend="compiled"
    ),
}
CONFIGS = GYMNASIUM | {
    f"{name}-{backend}": replace(GYMNASIUM[name], backend=backend, bars=dict.fromkeys(GYMNASIUM[name].bars, bar))
    for name, (backend, bar) in OTHERS.items()
}
CONFIGS |= THEIRS
# a network for the policy and one for the critic on both sides, and SB3's default, one set of convolutions for both
PICTURES = Config(
    "ppo", "frames:Frames-v0", 8, ATARI, {"sb3": 1.1}, 1, 4, (), policy={"share_features_extractor": False}
)
CONFIGS["ppo-pictures-separate"] = PICTURES
SHARED = {"shared_body": True, "value_coef": 1.0}  # of ½ (V − target)²: SB3's vf_coef = 0.5 is of the whole square
CONFIGS["ppo-pictures"] = replace(PICTURES, policy={}, own=SHARED)
CONFIGS["ppo-cartpole-compiled-metrics"] = replace(
    CONFIGS["ppo-cartpole-compiled"], bars={}, others=("sb3",), metrics=True
)
