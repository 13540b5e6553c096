"""One measurement of one library, in a process of its own: throughput.py runs this file with the Python that has the library.

    python benchmarks/peers.py SIDE CONFIG ITERATIONS SEED CHECKOUT

One line of JSON is printed: the steps of the warm-up, the steps under the clock, its seconds, and versions. CHECKOUT is where
the sources of a library are that is not installed but run from there (an empty string for the others). Every library runs as
fast as we know how to make it run; README.md beside this file says what that is, and the docstring of each
library's function what still differs.
"""

# pyright: reportMissingImports=false
# Most of these libraries are in other environments than the one that is checked.

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from configurations import CONFIGS, Config

Learn = Callable[[int], int]  # trains for so many environment steps more, in whole iterations; returns the steps done
Measured = dict[str, Any]
NEVER = 10**12  # steps between rows of metrics
HORIZON = 10**9  # steps of a training that no measurement reaches; hyperparameters are constant


def make_sb3(config: Config, seed: int, workers: bool = False) -> Learn:
    """Stable-Baselines3 at its best: each choice is the faster for it, or equal within the noise.

    Environments come from callables: `make_vec_env("LunarLander-v3")` would set `render_mode="rgb_array"`, and every firing
    engine would leave a particle, so rollouts would get several times slower as the policy learns to hover. They have neither
    Gymnasium's checker nor `Monitor`, which costs about 1 %: policygrad has episode statistics, SB3 then not. torch's fused
    Adam is 10 % faster on ppo-lunarlander than SB3's default loop over tensors. A2C has `use_rms_prop=False`: Adam on both
    sides. There is no callback and no output of the logger: `log_interval=None`, `verbose=0`.
    """
    import gymnasium
    import numpy as np
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    one_thread()
    makers: list[Callable[[], Any]] = [lambda: gymnasium.make(config.env, disable_env_checker=True)] * config.num_envs
    envs = SubprocVecEnv(makers) if workers else DummyVecEnv(makers)
    network: dict[str, Any] = {"optimizer_kwargs": {"eps": 1e-5, "fused": True}}
    options = config.keywords | {"policy_kwargs": network}
    if config.hidden is not None:
        network["net_arch"] = list(config.hidden)
    if config.algo == "td3":  # our noise
        options["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    if config.algo == "a2c":
        options["use_rms_prop"] = False
    library = sb3_contrib if config.algo == "trpo" else stable_baselines3
    name = "MlpPolicy" if config.policy is None else "CnnPolicy"
    network |= config.policy or {}
    return sb3_learn(getattr(library, config.algo.upper())(name, envs, seed=seed, device="cpu", **options))


def make_sbx(config: Config, seed: int) -> Learn:
    """SBX, which is Stable-Baselines3 in JAX: the same environments and keywords. It may use all cores, as JAX does, which
    compiles in every process, within the process clock.
    """
    import gymnasium
    import sbx
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([lambda: gymnasium.make(config.env, disable_env_checker=True)] * config.num_envs)
    options = dict(config.keywords)
    if config.hidden is not None:
        options["policy_kwargs"] = {"net_arch": list(config.hidden)}
    return sb3_learn(getattr(sbx, config.algo.upper())("MlpPolicy", envs, seed=seed, **options))


def sb3_learn(model: Any) -> Learn:
    """Training as SB3 and SBX do it."""

    def learn(steps: int) -> int:
        before = model.num_timesteps
        model.learn(steps, log_interval=None, reset_num_timesteps=before == 0)
        return model.num_timesteps - before

    return learn


def make_torchrl(config: Config, seed: int) -> Learn:
    """TorchRL's PPO: its collector on Gymnasium's SyncVectorEnv, nearly twice as fast as its SerialEnv, and fused Adam."""
    import gymnasium
    import torch
    from gymnasium.vector import AutoresetMode, SyncVectorEnv
    from tensordict.nn import TensorDictModule
    from torch.distributions import Categorical
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper
    from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    one_thread()
    torch.manual_seed(seed)
    words, size = config.keywords, {"num_cells": [64, 64], "activation_class": torch.nn.Tanh}
    makers = [lambda: gymnasium.make(config.env, disable_env_checker=True)] * config.num_envs
    vector: Any = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = GymWrapper(vector, categorical_action_encoding=True)
    envs.set_seed(seed)
    inputs, outputs = vector.single_observation_space.shape[0], int(vector.single_action_space.n)
    body = TensorDictModule(MLP(inputs, outputs, **size), ["observation"], ["logits"])
    actor = ProbabilisticActor(body, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)
    critic = ValueOperator(MLP(inputs, 1, **size))
    advantage = GAE(gamma=words["gamma"], lmbda=words["gae_lambda"], value_network=critic, shifted=True)
    ppo = {"clip_epsilon": words["clip_range"], "critic_coeff": 0.5, "normalize_advantage": True}
    loss = ClipPPOLoss(actor, critic, entropy_coeff=words["ent_coef"], loss_critic_type="l2", **ppo)
    optimizer = torch.optim.Adam(loss.parameters(), lr=words["learning_rate"], eps=1e-5, fused=True)
    batches = iter(Collector(envs, actor, frames_per_batch=config.rows, total_frames=-1))

    def update(data: Any) -> None:
        with torch.no_grad():
            rows = advantage(data).reshape(-1)
        for _ in range(words["n_epochs"]):
            for chosen in torch.randperm(config.rows).split(words["batch_size"]):
                losses = loss(rows[chosen])
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), words["max_grad_norm"])
                optimizer.step()

    def learn(steps: int) -> int:
        for _ in range(steps // config.rows):
            update(next(batches))
        return steps // config.rows * config.rows

    return learn


def make_policygrad(config: Config, seed: int) -> Learn:
    """Policygrad with its compiled functions and episode statistics; no tuned preset. It takes no metrics, as SB3 does not, and
    so has diagnostics in the first iteration only; a configuration with metrics has a row after nearly every iteration.
    """
    import policygrad

    one_thread()
    words = config.keywords | config.own | ({} if config.hidden is None else {"hidden": config.hidden})
    words |= {"num_envs": config.num_envs, "backend": config.backend, "kernel": "compiled", "preset": {}}
    agent = getattr(policygrad, config.algo)(config.env, seed=seed, **words)

    # one training of several calls, whose first iteration, in the warm-up, is the only one with a row of metrics
    one = {} if config.metrics or "n_steps" not in config.keywords else {"horizon": HORIZON}

    def learn(steps: int) -> int:
        before = agent.collector.steps_done
        agent.learn(steps, log_every=None if config.metrics else NEVER, **one)
        return agent.collector.steps_done - before

    return learn


def one_thread() -> None:
    """One thread for torch and one for the BLAS."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def timed(learn: Learn, config: Config, iterations: int) -> Measured:
    """The warm-up, then the clock."""
    warmup = learn(config.warmup * config.rows)
    start = time.perf_counter()
    steps = learn(iterations * config.rows)
    return {"warmup": warmup, "steps": steps, "seconds": time.perf_counter() - start}


def run_cleanrl(config: Config, iterations: int, seed: int, checkout: Path) -> Measured:
    """CleanRL's script ppo.py as it is, by the lines that it prints after each iteration: the clock runs from the one after the
    warm-up to the last. It writes TensorBoard files and statistics, clips the critic's loss, lets the learning rate fall to 0,
    takes truncated episodes for terminated ones, and with Gymnasium 1 also trains on resets.
    """
    steps = (config.warmup + iterations) * config.rows
    command = [sys.executable, "-u", str(checkout.resolve() / "cleanrl" / "ppo.py"), "--no-cuda"]
    command += ["--total-timesteps", str(steps), "--seed", str(seed)]
    with (
        tempfile.TemporaryDirectory() as folder,  # where it writes its TensorBoard files
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        ends = [time.perf_counter() for line in process.stdout if line.startswith("SPS:")]
    if process.returncode or len(ends) != config.warmup + iterations:
        sys.exit(f"{command} ended with {process.returncode} after {len(ends)} iterations")
    seconds = ends[-1] - ends[config.warmup - 1]
    return {"warmup": config.warmup * config.rows, "steps": iterations * config.rows, "seconds": seconds}


def run_purejaxrl(config: Config, iterations: int, seed: int, checkout: Path) -> Measured:
    """PureJaxRL's own ppo.py and configuration, one compiled function: compiled once, then run once, which is what the clock is
    for. It may use all cores, and compiles within the process clock. It has its own compiled environments, as has policygrad
    here; it clips the critic's loss, lets the learning rate fall to 0, takes truncated episodes for terminated ones, and prints
    no returns.
    """
    sys.path.insert(0, str(checkout / "purejaxrl"))
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        sys.modules[name] = MagicMock()  # wrappers.py imports them for other environments: it need not wait for them
    import jax
    from ppo import make_train

    words, steps = config.keywords, (config.warmup + iterations) * config.rows
    theirs = {"ENV_NAME": config.env, "NUM_ENVS": config.num_envs, "NUM_STEPS": words["n_steps"]}
    theirs |= {"TOTAL_TIMESTEPS": steps, "UPDATE_EPOCHS": words["n_epochs"], "ACTIVATION": "tanh", "ANNEAL_LR": True}
    theirs |= {"NUM_MINIBATCHES": config.rows // words["batch_size"], "LR": words["learning_rate"], "DEBUG": False}
    theirs |= {"GAMMA": words["gamma"], "GAE_LAMBDA": words["gae_lambda"], "CLIP_EPS": words["clip_range"]}
    theirs |= {"ENT_COEF": words["ent_coef"], "VF_COEF": 0.5, "MAX_GRAD_NORM": words["max_grad_norm"]}
    key = jax.random.PRNGKey(seed)
    train = jax.jit(make_train(theirs)).lower(key).compile()
    start = time.perf_counter()
    jax.block_until_ready(train(key))
    return {"warmup": 0, "steps": steps, "seconds": time.perf_counter() - start}


def run_rltools(config: Config, _iterations: int, _seed: int, checkout: Path) -> Measured:
    """RLtools' PPO on Pendulum, compiled as README.md says: always the whole of its training, so that `--steps` changes
    nothing, by the time that it prints; the process also has 1,000 evaluation episodes. It fills its normaliser before
    training, policygrad after each batch.
    """
    command = [str(checkout.resolve() / "pendulum_ppo")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, iterations = re.search(r"Time: ([\d.]+)s", text), re.search(r"PPO steps: (\d+)", text)
    if seconds is None or iterations is None:
        sys.exit(f"{command[0]} printed neither 'Time: …s' nor 'PPO steps: …': {text}")
    return {"warmup": 0, "steps": int(iterations[1]) * config.rows, "seconds": float(seconds[1])}


MAKERS: dict[str, Callable[[Config, int], Learn]] = {
    "policygrad": make_policygrad,
    "sb3": make_sb3,
    "sb3-workers": lambda config, seed: make_sb3(config, seed, workers=True),
    "sbx": make_sbx,
    "torchrl": make_torchrl,
}
SCRIPTS: dict[str, Callable[[Config, int, int, Path], Measured]] = {  # run from a checkout
    "cleanrl": run_cleanrl,
    "purejaxrl": run_purejaxrl,
    "rltools": run_rltools,
}
PACKAGES = {
    "policygrad": ("torch", "gymnasium", "numpy", "numba"),
    "sb3": ("stable-baselines3", "sb3-contrib", "torch", "gymnasium", "numpy"),
    "sb3-workers": ("stable-baselines3", "torch", "gymnasium", "numpy"),
    "sbx": ("sbx-rl", "jax", "stable-baselines3", "gymnasium"),
    "torchrl": ("torchrl", "torch", "gymnasium"),
    "cleanrl": ("torch", "gymnasium"),
    "purejaxrl": ("jax", "gymnax"),
    "rltools": (),
}


def versions(side: str, checkout: str) -> dict[str, str]:
    """What the numbers depend on; of a checkout its commit."""
    found = {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES[side]}
    if side == "policygrad":
        import policygrad

        return {"policygrad": policygrad.__version__} | found
    if side in SCRIPTS:
        git = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        return {side: commit} | (found if PACKAGES[side] else {})
    return found


def main() -> None:
    """Measure, and print what came out."""
    side, name, iterations, seed, checkout = sys.argv[1:]
    config = CONFIGS[name]
    if side in MAKERS:
        measured = timed(MAKERS[side](config, int(seed)), config, int(iterations))
    else:
        measured = SCRIPTS[side](config, int(iterations), int(seed), Path(checkout))
    print(json.dumps(measured | {"versions": versions(side, checkout)}))


if __name__ == "__main__":
    main()
