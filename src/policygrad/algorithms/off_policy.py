"""The named algorithms that learn from a replay buffer, from actions that earlier policies took.

`dqn` learns action values and acts greedily in them. `ddpg`, `td3` and `sac` are policy gradients: they follow the pathwise
gradient E[∇θ a · ∇_a q(s, a)] of a critic. Nothing heavy is imported here.
"""
# ruff: noqa: B008  groups are frozen, so one instance serves all calls

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from policygrad.algorithms import keywords as kw
from policygrad.algorithms import replay_keywords as rkw
from policygrad.algorithms.keywords import Option
from policygrad.algorithms.recipe import RecipeSpec
from policygrad.algorithms.registry import packaged

if TYPE_CHECKING:
    from gymnasium import spaces

    from policygrad.algorithms.task import Plan, Task

ALIASES = {"n_steps": "n_step"}  # of Stable-Baselines3, where it is the length of a rollout for other algorithms
COMPILE_FROM = 4_000  # steps: with a minibatch for each, what compiling saves is soon more than it costs
NO_STEP_LIMIT = "it takes every step, and lr sets its length"

LearningRate = Annotated[
    float,
    Option(
        "learning rate of the action values (Adam)",
        0,
        100,
        tune=(1e-4, 5e-3, "log"),
        schedule=True,
        foreign=("learning_rate",),
    ),
]
Alpha = Annotated[
    float,
    Option(
        "weight α of the entropy; its initial value where it is learned",
        0,
        1000,
        tune=(0.01, 1, "log"),
        schedule=True,
    ),
]


@packaged(RecipeSpec("r + γ max q", "QLearning", gradient="none", aliases=ALIASES))
def dqn(
    task: Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),
    num_steps: rkw.TrainEvery = 4,
    lr: LearningRate = 1e-3,
    lr_schedule: kw.LrSchedule = "constant",
    replay: Annotated[
        bool, Option("draw minibatches from the replay buffer; without it, from the steps just played alone")
    ] = True,
    target_every: Annotated[
        int | None,
        Option(
            "environment steps between copies of the network to bootstrap from; none: bootstrap from the network itself",
            1,
            tune=(10, 10_000, "log"),
            foreign=("target_update_interval", "target_network_frequency"),
        ),
    ] = 500,
    double: Annotated[bool, Option("let the network choose the action that its copy values (Double DQN)")] = True,
    loss: Annotated[Literal["huber", "squared"], Option("loss of the temporal-difference error")] = "huber",
    memory: rkw.ReplayMemory = rkw.ReplayMemory(),
    exploration: rkw.Exploration = rkw.Exploration(),
    max_grad_norm: kw.MaxGradNorm = 10.0,
    network: kw.Network = kw.Network(activation="relu"),
) -> Plan:
    """Deep Q-learning (Mnih et al. 2015): action values by a network, from replayed transitions; ε-greedy actions.

    `replay=False`, `target_every=None` and `double=False` show what each part buys.
    """
    from policygrad.algorithms.replay_learner import ReplayLearner
    from policygrad.algorithms.task import Plan, make_schedule
    from policygrad.updates.q_learning import QLearning

    policy = task.exploring_policy(_greedy(task))
    rate = make_schedule(lr_schedule, lr)
    rule = QLearning(policy, lr=rate, double=double, target_every=target_every, loss=loss, max_grad_norm=max_grad_norm)
    values = memory.values() | ({} if replay else {"buffer_size": num_steps * run.num_envs, "warmup": 0})
    learner = ReplayLearner(
        policy, rule, num_envs=run.num_envs, epsilon=exploration.schedule(), seed=task.seed, **values
    )
    return Plan(learner, num_steps=num_steps, compile_from=COMPILE_FROM)


@packaged(RecipeSpec("r + γ max q, λ-return", "QLambdaLearner", gradient="none", batch_size="minibatches"))
def pqn(
    task: Task,
    *,
    num_steps: kw.NumSteps = 32,
    gamma: kw.Gamma = 0.99,
    lam: Annotated[
        float, Option("λ of the return; 0: one step, 1: Monte Carlo return", 0, 1, tune=(0, 1), foreign=("q_lambda",))
    ] = 0.65,
    lr: LearningRate = 1e-3,
    lr_schedule: kw.LrSchedule = "constant",
    passes: kw.Passes = kw.Passes(epochs=2, minibatches=4),
    exploration: rkw.Exploration = rkw.Exploration(),
    max_grad_norm: kw.MaxGradNorm = 10.0,
    network: kw.Network = kw.Network(activation="relu"),
) -> Plan:
    """Q(λ) in parallel environments, without replay and without a target network (Peng 1994; PQN, Gallici et al. 2024)."""
    from policygrad.algorithms.q_lambda import QLambdaLearner
    from policygrad.algorithms.task import Plan, make_schedule

    policy, rate = task.exploring_policy(_greedy(task)), make_schedule(lr_schedule, lr)
    learner = QLambdaLearner(
        policy,
        gamma=gamma,
        lam=lam,
        lr=rate,
        **vars(passes),
        max_grad_norm=max_grad_norm,
        epsilon=exploration.schedule(),
        seed=task.seed,
    )
    return Plan(learner, num_steps=num_steps, compile_from=COMPILE_FROM)


def _greedy(task: Task) -> Any:
    """The head of action values. Raises TypeError for actions that cannot be listed."""
    from gymnasium import spaces

    from policygrad.models.exploring import ActionValues

    space = task.action_space
    if not isinstance(space, spaces.Discrete):
        raise TypeError(
            f"action values need Discrete actions, to take the largest, and the action space is {space}: use sac or td3 for Box"
        )
    return lambda masked: ActionValues(int(space.n), masked)


def _bounded(task: Task) -> spaces.Box:
    """The action space. Raises TypeError where it is not a bounded Box."""
    import numpy as np
    from gymnasium import spaces

    space = task.action_space
    floats = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if not floats:
        raise TypeError(
            f"the pathwise gradient differentiates by the action, so it needs Box actions, and the action space is {space}: "
            "use dqn or an on-policy algorithm"
        )
    assert isinstance(space, spaces.Box)
    if not space.is_bounded() or not (space.low < space.high).all():
        raise TypeError(
            f"actions are tanh(u) scaled to the bounds, and {space} has no finite bounds on every action: wrap the environment "
            "in gymnasium.wrappers.RescaleAction, or use an on-policy algorithm with head = gaussian"
        )
    return space


def _deterministic(
    task: Task, run: kw.Run, num_steps: int, actor: rkw.DeterministicActor, memory: rkw.ReplayMemory, pair: rkw.Pair
) -> Plan:
    """The plan of DDPG and of TD3, which differ by the defaults of `actor`."""
    from policygrad.algorithms.replay_learner import ReplayLearner
    from policygrad.algorithms.task import Plan
    from policygrad.models.exploring import Deterministic
    from policygrad.models.schedules import at
    from policygrad.streams import stream
    from policygrad.updates.pathwise import Pathwise, Smoothing

    space, rho = _bounded(task), task.network.noise_autocorrelation
    policy = task.exploring_policy(
        lambda _: Deterministic(space.shape, space.low, space.high, at(actor.noise, 0.0), rho),
        takes=("noise_autocorrelation",),
    )
    words: dict[str, Any] = {"count": 2 if actor.twin else 1, "tau": pair.tau, "hidden": pair.critic_hidden}
    critic = task.action_critic(policy.head.dims, **words)
    smoothing = Smoothing(actor.smoothing, actor.smoothing_limit) if actor.smoothing else None
    rule = Pathwise(
        policy, critic, **pair.rates(), smoothing=smoothing, delay=actor.delay, seed=stream(task.seed, "paths")
    )
    noise = actor.noise if callable(actor.noise) else None  # a number is the head's, once and for all
    learner = ReplayLearner(policy, rule, num_envs=run.num_envs, noise=noise, seed=task.seed, **memory.values())
    return Plan(learner, num_steps=num_steps, compile_from=COMPILE_FROM)


@packaged(RecipeSpec("q(s, a)", "Pathwise", gradient="pathwise", aliases=ALIASES))
def ddpg(
    task: Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),
    num_steps: rkw.TrainEvery = 1,
    actor: rkw.DeterministicActor = rkw.DeterministicActor(),
    memory: rkw.ReplayMemory = rkw.ReplayMemory(batch_size=256),
    pair: rkw.Pair = rkw.Pair(),
    network: kw.Network = kw.Network(hidden=(256, 256), activation="relu"),
) -> Plan:
    """Deep deterministic policy gradient (Lillicrap et al. 2016): the pathwise gradient of a deterministic policy.

    `twin=True, delay=2, smoothing=0.2` is TD3.
    """
    return _deterministic(task, run, num_steps, actor, memory, pair)


@packaged(RecipeSpec("min q(s, a)", "Pathwise", gradient="pathwise", aliases=ALIASES))
def td3(
    task: Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),
    num_steps: rkw.TrainEvery = 1,
    actor: rkw.DeterministicActor = rkw.DeterministicActor(twin=True, delay=2, smoothing=0.2),
    memory: rkw.ReplayMemory = rkw.ReplayMemory(batch_size=256),
    pair: rkw.Pair = rkw.Pair(),
    network: kw.Network = kw.Network(hidden=(256, 256), activation="relu"),
) -> Plan:
    """Twin delayed DDPG (Fujimoto et al. 2018): twin critics, a delayed policy, and smoothed target actions."""
    return _deterministic(task, run, num_steps, actor, memory, pair)


@packaged(RecipeSpec("min q(s, a) − α log π", "Pathwise", gradient="pathwise", aliases=ALIASES))
def sac(
    task: Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),
    num_steps: rkw.TrainEvery = 1,
    alpha: Alpha = 1.0,
    learn_alpha: Annotated[
        bool, Option("learn α, so that the entropy becomes target_entropy", foreign=("autotune",))
    ] = True,
    target_entropy: Annotated[
        float | None,
        Option(
            "entropy that α steers towards, in nats, of actions scaled to [-1, 1]; none: minus the number of dimensions",
            -1e6,
            1e6,
        ),
    ] = None,
    twin: rkw.Twin = True,
    memory: rkw.ReplayMemory = rkw.ReplayMemory(batch_size=256),
    pair: rkw.Pair = rkw.Pair(),
    network: kw.Network = kw.Network(hidden=(256, 256), activation="relu"),
) -> Plan:
    """Soft actor-critic (Haarnoja et al. 2018): the pathwise gradient of a squashed normal, with an entropy bonus."""
    import math

    from policygrad.algorithms.replay_learner import ReplayLearner
    from policygrad.algorithms.task import Plan
    from policygrad.models.exploring import Squashed
    from policygrad.streams import stream
    from policygrad.updates.pathwise import Pathwise, Temperature

    space, rho = _bounded(task), task.network.noise_autocorrelation
    takes = ("log_std", "noise_autocorrelation")
    policy = task.exploring_policy(lambda _: Squashed(space.shape, space.low, space.high, rho), takes)
    dims = policy.head.dims
    critic = task.action_critic(dims, count=2 if twin else 1, tau=pair.tau, hidden=pair.critic_hidden)
    target = (-float(dims) if target_entropy is None else target_entropy) if learn_alpha else None
    most = dims * math.log(2.0)  # of the uniform distribution on [−1, 1]ᴰ
    if target is not None and target >= most:
        raise ValueError(
            f"target_entropy = {target:g} cannot be reached, α would only grow: the entropy of {dims} numbers in [-1, 1] is "
            f"below {most:.3g}; the default is {-dims}"
        )
    rates = pair.rates()
    temperature = Temperature(alpha, target, rates["lr"])
    rule = Pathwise(policy, critic, **rates, temperature=temperature, seed=stream(task.seed, "paths"))
    learner = ReplayLearner(policy, rule, num_envs=run.num_envs, seed=task.seed, **memory.values())
    return Plan(learner, num_steps=num_steps, compile_from=COMPILE_FROM)
