"""What `policygrad tune` searches where the user does not say: one row per algorithm, in the words of `--over`.

Ranges are those of RL Zoo (rl_zoo3/hyperparams_opt.py), shortened to what matters most in the study of Andrychowicz et al.
2021, "What matters for on-policy deep actor-critic methods?": the learning rate, the discount, λ, how much is collected for an
update, and how often it is used. The learning rate reaches 1e-2 in place of RL Zoo's 2e-3, because the networks are small, and
begins at 1e-4 in place of 1e-5, because most trainings here are short. Architectures are left out: a larger network is nearly
always slower, so that it would have to be searched at equal time and not at equal steps. A critic's own learning rate is
searched where the algorithm has one by default.
"""

from __future__ import annotations

from dataclasses import fields

from policygrad.algorithms.config import Algo, ConfigError, find_recipe, options
from policygrad.algorithms.keywords import Network, Run

LR, CRITIC_LR = "lr=1e-4..1e-2:log", "critic_lr=1e-4..1e-2:log"
GAMMA, LAM = "gamma=0.9,0.95,0.98,0.99,0.995,0.999", "lam=0.8,0.9,0.95,0.98,1"
NUM_STEPS, ENT_COEF = "num_steps=32,64,128,256,512", "ent_coef=0,0.001,0.003,0.01,0.03"
PASSES = ("epochs=4,6,10,20", "minibatches=4,8,16,32")
EPISODES = "episodes=4,8,16,32"
MAX_KL, DAMPING, NATURAL_LAM = "max_kl=0.003..0.1:log", "damping=0.01,0.03,0.1,0.3", "lam=0.9,0.95,0.97,0.98,1"
CRITIC = ("critic_lr=3e-4..1e-2:log", "critic_epochs=5,10,20")
REPLAY = ("batch_size=64,128,256", "warmup=500,1000,2000,10_000")
PATHWISE = ("lr=1e-4..3e-3:log", "tau=0.002,0.005,0.01,0.02", GAMMA)

SPACES: dict[str, tuple[str, ...]] = {
    "reinforce": (LR, CRITIC_LR, GAMMA, EPISODES),
    "off_policy_pg": (LR, CRITIC_LR, GAMMA, "episodes=64,128,256,512"),
    "actor_critic": (LR, GAMMA),
    "a2c": (LR, GAMMA, LAM, "num_steps=5,8,16,32,64,128", ENT_COEF),
    "a3c": (LR, GAMMA, ENT_COEF),
    "ppo": (LR, GAMMA, LAM, NUM_STEPS, *PASSES, "clip=0.1,0.2,0.3", ENT_COEF),
    "ppo_kl": (LR, GAMMA, LAM, NUM_STEPS, *PASSES, "target_kl=0.003..0.1:log", ENT_COEF),
    "npg": (MAX_KL, DAMPING, GAMMA, NATURAL_LAM, NUM_STEPS, *CRITIC),
    "trpo": (MAX_KL, DAMPING, GAMMA, NATURAL_LAM, NUM_STEPS, *CRITIC),
    "dqn": (
        LR,
        GAMMA,
        *REPLAY,
        "target_every=10..5000:log",
        "epsilon=0.01..0.1",
        "epsilon_fraction=0.05..0.5",
    ),
    "pqn": (LR, GAMMA, "lam=0.2,0.5,0.65,0.8,0.95", "num_steps=16,32,64,128", "epochs=1,2,4", "minibatches=2,4,8,16"),
    "ddpg": (*PATHWISE, *REPLAY, "noise=0.05,0.1,0.2,0.4"),
    "td3": (*PATHWISE, *REPLAY, "noise=0.05,0.1,0.2,0.4"),
    "sac": (*PATHWISE, *REPLAY),
}


def default_space(algo: Algo) -> list[str]:
    """The words that `--over` would have, for an algorithm: its row above, or what the options of its keywords declare.

    Raises ConfigError for a recipe of the user's own whose keywords have no `Option(tune=…)`.
    """
    recipe = find_recipe(algo)
    if recipe.name in SPACES:
        return list(SPACES[recipe.name])
    every = {f.name for group in (Run, Network) for f in fields(group)}  # of all recipes: speed and architecture
    declared = {k: option.tune for k, option in options(recipe).items() if option.tune is not None and k not in every}
    words = [f"{name}={tune[0]:g}..{tune[1]:g}" + (":log" if len(tune) == 3 else "") for name, tune in declared.items()]
    if not words:
        raise ConfigError(
            f"it is not known what to search for {recipe.name}: give --over lr=1e-5..1e-2:log, or declare ranges of its "
            "keywords, Option(tune=(1e-5, 1e-2, 'log'))"
        )
    return words
