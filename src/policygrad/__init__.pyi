"""Written by benchmarks/stub.py from the recipes: change those, and run it again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from policygrad import lab as lab
from policygrad.algorithms import zoo as zoo
from policygrad.algorithms.config import Preset
from policygrad.algorithms.diagnosed import diagnosed_step as diagnosed_step
from policygrad.algorithms.keywords import Option as Option
from policygrad.algorithms.learner import Learner as Learner
from policygrad.algorithms.q_lambda import QLambdaLearner as QLambdaLearner
from policygrad.algorithms.recipe import RecipeSpec as RecipeSpec
from policygrad.algorithms.recipe import recipe as recipe
from policygrad.algorithms.replay_learner import ReplayLearner as ReplayLearner
from policygrad.algorithms.replay_learner import TransitionRule as TransitionRule
from policygrad.algorithms.task import Plan as Plan
from policygrad.algorithms.task import Task as Task
from policygrad.data import Batch as Batch
from policygrad.data import Estimate as Estimate
from policygrad.data import Record as Record
from policygrad.data import Rollout as Rollout
from policygrad.data import Values as Values
from policygrad.data import Wants as Wants
from policygrad.diagnosis.doctor import doctor as doctor
from policygrad.diagnosis.symptoms import Diagnosis as Diagnosis
from policygrad.diagnosis.symptoms import Symptom as Symptom
from policygrad.envs.collector import Collector as Collector
from policygrad.envs.make import make_envs as make_envs
from policygrad.envs.shaping import PotentialShaping as PotentialShaping
from policygrad.envs.shaping import ShapedReward as ShapedReward
from policygrad.envs.single import EnvLike, Wrapper
from policygrad.envs.wrappers import ActionRepeat as ActionRepeat
from policygrad.errors import PolicygradError as PolicygradError
from policygrad.gradient.baselines import Constant as Constant
from policygrad.gradient.baselines import CriticValue as CriticValue
from policygrad.gradient.baselines import CrossFit as CrossFit
from policygrad.gradient.baselines import LeaveOneOut as LeaveOneOut
from policygrad.gradient.baselines import LinearFeatures as LinearFeatures
from policygrad.gradient.baselines import NoBaseline as NoBaseline
from policygrad.gradient.baselines import Regressor as Regressor
from policygrad.gradient.baselines import RunningMean as RunningMean
from policygrad.gradient.baselines import TimeAverage as TimeAverage
from policygrad.gradient.estimators import GAE as GAE
from policygrad.gradient.estimators import NStep as NStep
from policygrad.gradient.estimators import QValue as QValue
from policygrad.gradient.estimators import RewardToGo as RewardToGo
from policygrad.gradient.estimators import Standardized as Standardized
from policygrad.gradient.estimators import StateDiscounted as StateDiscounted
from policygrad.gradient.estimators import TDError as TDError
from policygrad.gradient.estimators import TotalReturn as TotalReturn
from policygrad.gradient.estimators import advantages as advantages
from policygrad.gradient.importance import CollapsedError as CollapsedError
from policygrad.gradient.importance import ImportanceWeighted as ImportanceWeighted
from policygrad.gradient.importance import PerDecision as PerDecision
from policygrad.gradient.importance import trajectory_kl as trajectory_kl
from policygrad.models.action_values import ActionCritic as ActionCritic
from policygrad.models.action_values import make_action_critic as make_action_critic
from policygrad.models.advantage import AdvantageRegressor as AdvantageRegressor
from policygrad.models.advantage import fit_advantage as fit_advantage
from policygrad.models.ascent import Gain
from policygrad.models.continuous import Beta as Beta
from policygrad.models.continuous import Gaussian as Gaussian
from policygrad.models.continuous import SquashedGaussian as SquashedGaussian
from policygrad.models.critic import Critic as Critic
from policygrad.models.critic import NoCritic as NoCritic
from policygrad.models.critic import QCritic as QCritic
from policygrad.models.critic import make_critic as make_critic
from policygrad.models.critic import make_q_critic as make_q_critic
from policygrad.models.exploring import ActionValues as ActionValues
from policygrad.models.exploring import Deterministic as Deterministic
from policygrad.models.exploring import ExploringPolicy as ExploringPolicy
from policygrad.models.exploring import Squashed as Squashed
from policygrad.models.heads import Categorical as Categorical
from policygrad.models.heads import Head as Head
from policygrad.models.heads import MultiCategorical as MultiCategorical
from policygrad.models.networks import FourierFeatures as FourierFeatures
from policygrad.models.observations import Encoding as Encoding
from policygrad.models.policy import Body
from policygrad.models.policy import Policy as Policy
from policygrad.models.policy import make_policy as make_policy
from policygrad.models.recurrent import RecurrentPolicy as RecurrentPolicy
from policygrad.models.recurrent import make_recurrent_policy as make_recurrent_policy
from policygrad.models.recurrent_critic import RecurrentCritic as RecurrentCritic
from policygrad.models.recurrent_critic import make_recurrent_critic as make_recurrent_critic
from policygrad.models.schedules import Linear
from policygrad.models.schedules import linear as linear
from policygrad.models.shared import SharedCritic as SharedCritic
from policygrad.models.shared import with_value as with_value
from policygrad.replay import ReplayBuffer as ReplayBuffer
from policygrad.replay import Transitions as Transitions
from policygrad.reports.comparison_result import RunComparison as RunComparison
from policygrad.reports.plots import plot as plot
from policygrad.reports.run_table import runs as runs
from policygrad.reports.sweep_result import SweepResult as SweepResult
from policygrad.reports.tuning import Tuning as Tuning
from policygrad.serving.export import export as export
from policygrad.serving.served import load_policy as load_policy
from policygrad.stored.standing import RunSummary as RunSummary
from policygrad.stored.trajectories import Trajectories as Trajectories
from policygrad.training.agent import Agent as Agent
from policygrad.training.callbacks import CheckpointCallback as CheckpointCallback
from policygrad.training.callbacks import EvalCallback as EvalCallback
from policygrad.training.callbacks import Every as Every
from policygrad.training.callbacks import History as History
from policygrad.training.callbacks import StopAfter as StopAfter
from policygrad.training.callbacks import StopOnReward as StopOnReward
from policygrad.training.compare import compare as compare
from policygrad.training.evaluate import Evaluation as Evaluation
from policygrad.training.evaluate import evaluate as evaluate
from policygrad.training.hub import pull as pull
from policygrad.training.hub import push as push
from policygrad.training.loading import load as load
from policygrad.training.probing import probe as probe
from policygrad.training.ranks import data_parallel as data_parallel
from policygrad.training.reporting import report as report
from policygrad.training.resume import resume as resume
from policygrad.training.space import Choice as Choice
from policygrad.training.space import Range as Range
from policygrad.training.sweep import sweep as sweep
from policygrad.training.trackers import LiveCurve as LiveCurve
from policygrad.training.trackers import MLflowCallback as MLflowCallback
from policygrad.training.trackers import WandbCallback as WandbCallback
from policygrad.training.train import train as train
from policygrad.training.tune import tune as tune
from policygrad.training.video import VideoCallback as VideoCallback
from policygrad.training.video import record as record
from policygrad.updates import ClippedSurrogate as ClippedSurrogate
from policygrad.updates import FirstOrder as FirstOrder
from policygrad.updates import NaturalGradient as NaturalGradient
from policygrad.updates import PenalizedSurrogate as PenalizedSurrogate
from policygrad.updates import TrustRegion as TrustRegion
from policygrad.updates import VanillaGradient as VanillaGradient
from policygrad.updates.pathwise import Pathwise as Pathwise
from policygrad.updates.pathwise import Smoothing as Smoothing
from policygrad.updates.pathwise import Temperature as Temperature
from policygrad.updates.q_learning import QLearning as QLearning

__version__: str
__all__: list[str]

def a2c(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 16,
    gamma: float = 0.99,
    lam: float = 1.0,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "no",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0007,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = None,
    critic_epochs: int | None = 1,
    critic_minibatches: int | None = 1,
    critic_hidden: tuple[int, ...] | None = None,
    shared_body: bool = False,
    value_coef: float = 0.5,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    segment_steps: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
) -> Agent:
    """Advantage actor-critic, synchronous (Mnih et al. 2016): GAE − V and one gradient step every few steps.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        shared_body: one network for policy and values, with one optimiser and one norm of the gradient of both
        value_coef: with shared_body: weight of the values' loss, ½ (V − target)², beside the policy's gain; usually
            0.25 to 1
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        segment_steps: with a memory: steps of the segments that gradients go back through, which must divide
            num_steps; none: whole rollouts
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def a3c(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    workers: int = 2,
    asynchrony: Literal["simulated", "processes"] = "simulated",
    num_steps: int = 16,
    gamma: float = 0.99,
    lam: float = 1.0,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "no",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0007,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = None,
    critic_epochs: int | None = 1,
    critic_minibatches: int | None = 1,
    critic_hidden: tuple[int, ...] | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
) -> Agent:
    """Asynchronous advantage actor-critic (Mnih et al. 2016): workers push gradients that they took at a copy, which is older.

    Where the processes of workers race, a seed does not decide the run.

    What differs from the paper: the optimiser is Adam with shared moments, or SGD, where the paper has RMSProp. Policy and
    critic are two networks, with a push each. A worker may have several environments, and rollouts go on over the ends of
    episodes. The critic's targets are standardised, and gradients are clipped, as in `a2c`. The schedule of the learning rate
    counts the steps of all workers.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        workers: workers, each with its share of the environments; never more than there are environments
        asynchrony: workers in one process, their order drawn from the seed; or a process each, which race
        num_steps: steps per environment per iteration
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def actor_critic(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 1,
    critic: Literal["v", "q"] = "v",
    gamma: float = 0.99,
    state_discount: bool = False,
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0003,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float | str | Linear | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    shared_body: bool = False,
    value_coef: float = 0.5,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    lstm_hidden_size: int = ...,
) -> Agent:
    """One-step actor-critic (Sutton & Barto, 13.5): the TD error, or q(s,a) − V(s), and an update after every step.

    With `state_discount` it is the book's algorithm; without, as in all of deep RL, γᵗ is left out.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        critic: function that the critic learns: V(s), or q(s, a) with Discrete actions
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        shared_body: one network for policy and values, with one optimiser and one norm of the gradient of both
        value_coef: with shared_body: weight of the values' loss, ½ (V − target)², beside the policy's gain; usually
            0.25 to 1
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def ddpg(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 1,
    num_steps: int = 1,
    noise: float | str | Linear = 0.1,
    twin: bool = False,
    delay: int = 1,
    smoothing: float = 0.0,
    smoothing_limit: float = 0.5,
    buffer_size: int = 100000,
    batch_size: int = 256,
    gradient_steps: int | None = None,
    warmup: int = 1000,
    n_step: int = 1,
    gamma: float = 0.99,
    lr: float | str | Linear = 0.001,
    critic_lr: float | str | Linear | None = None,
    lr_schedule: Literal["constant", "linear"] = "constant",
    tau: float = 0.005,
    max_grad_norm: float | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    hidden: Sequence[int] = (256, 256),
    activation: Literal["tanh", "relu", "silu"] = "relu",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    train_freq: int = ...,
    train_frequency: int = ...,
    update_every: int = ...,
    exploration_noise: float | str | Linear = ...,
    act_noise: float | str | Linear = ...,
    policy_delay: int = ...,
    policy_frequency: int = ...,
    target_policy_noise: float = ...,
    policy_noise: float = ...,
    target_noise: float = ...,
    target_noise_clip: float = ...,
    noise_clip: float = ...,
    replay_size: int = ...,
    learning_starts: int = ...,
    start_steps: int = ...,
    update_after: int = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    policy_lr: float | str | Linear = ...,
    q_lr: float | str | Linear | None = ...,
    n_steps: int = ...,
) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al. 2016): the pathwise gradient of a deterministic policy.

    `twin=True, delay=2, smoothing=0.2` is TD3.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment between updates, which come in groups of gradient_steps
        noise: standard deviation of the exploration noise, in units of half the action range
        twin: two critics, whose smaller value is bootstrapped from
        delay: steps of the critic for every step of the policy
        smoothing: standard deviation of the noise on the actions in targets; 0: none
        smoothing_limit: largest size of the noise on the actions in targets
        buffer_size: steps that the replay buffer keeps
        batch_size: transitions in a minibatch
        gradient_steps: minibatches after every num_steps; none: as many as environment steps were played
        warmup: steps with uniformly random actions, before anything is learned
        n_step: rewards that are summed before a value is bootstrapped from
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lr: learning rate of the policy (Adam)
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        tau: share by which the copies of the networks move towards them at every step
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def dqn(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 1,
    num_steps: int = 4,
    lr: float | str | Linear = 0.001,
    lr_schedule: Literal["constant", "linear"] = "constant",
    replay: bool = True,
    target_every: int | None = 500,
    double: bool = True,
    loss: Literal["huber", "squared"] = "huber",
    buffer_size: int = 100000,
    batch_size: int = 64,
    gradient_steps: int | None = None,
    warmup: int = 1000,
    n_step: int = 1,
    gamma: float = 0.99,
    epsilon: float | str | Linear = 0.05,
    epsilon_fraction: float = 0.1,
    max_grad_norm: float | None = 10.0,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "relu",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    train_freq: int = ...,
    train_frequency: int = ...,
    update_every: int = ...,
    learning_rate: float | str | Linear = ...,
    target_update_interval: int | None = ...,
    target_network_frequency: int | None = ...,
    replay_size: int = ...,
    learning_starts: int = ...,
    start_steps: int = ...,
    update_after: int = ...,
    exploration_final_eps: float | str | Linear = ...,
    end_e: float | str | Linear = ...,
    exploration_fraction: float = ...,
    n_steps: int = ...,
) -> Agent:
    """Deep Q-learning (Mnih et al. 2015): action values by a network, from replayed transitions; ε-greedy actions.

    `replay=False`, `target_every=None` and `double=False` show what each part buys.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment between updates, which come in groups of gradient_steps
        lr: learning rate of the action values (Adam)
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        replay: draw minibatches from the replay buffer; without it, from the steps just played alone
        target_every: environment steps between copies of the network to bootstrap from; none: bootstrap from the
            network itself
        double: let the network choose the action that its copy values (Double DQN)
        loss: loss of the temporal-difference error
        buffer_size: steps that the replay buffer keeps
        batch_size: transitions in a minibatch
        gradient_steps: minibatches after every num_steps; none: as many as environment steps were played
        warmup: steps with uniformly random actions, before anything is learned
        n_step: rewards that are summed before a value is bootstrapped from
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        epsilon: final probability of a random action; a schedule is that of the probability itself
        epsilon_fraction: share of training in which the probability of a random action falls from 1 to epsilon
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def npg(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 256,
    max_kl: float | str | Linear = 0.01,
    kl_schedule: Literal["constant", "linear"] = "constant",
    lr: float | str | Linear | None = None,
    lr_schedule: Literal["constant", "linear"] = "constant",
    damping: float = 0.1,
    cg_iterations: int = 10,
    solver: Literal["cg", "dense"] = "cg",
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "batch",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = 0.001,
    critic_epochs: int | None = 10,
    critic_minibatches: int | None = 8,
    critic_hidden: tuple[int, ...] | None = None,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    segment_steps: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    delta: float | str | Linear = ...,
    target_kl: float | str | Linear = ...,
    cg_damping: float = ...,
    damping_coeff: float = ...,
    cg_max_steps: int = ...,
    cg_iters: int = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
    batch_size: int = ...,
) -> Agent:
    """Natural policy gradient (Kakade 2001): one step per batch, with its length measured in policy space.

    With `lr` the step is lr · F⁻¹ĝ, whatever its length.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        max_kl: largest KL(old ‖ new) of one update, in nats; usually 0.003 to 0.05
        kl_schedule: schedule of max_kl: constant, or linear down to 0
        lr: learning rate of the natural step, in place of max_kl; none: max_kl sets the step's length
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        damping: number added to the diagonal of the Fisher matrix; usually 0.01 to 0.1
        cg_iterations: conjugate-gradient iterations per natural step; usually 10 to 20
        solver: solver of natural steps: cg (conjugate gradients), or dense (the whole Fisher matrix of a small
            policy)
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        segment_steps: with a memory: steps of the segments that gradients go back through, which must divide
            num_steps; none: whole rollouts
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def off_policy_pg(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    dataset: Trajectories | str | Path | None = None,
    steps: int = 100000,
    num_envs: int = 8,
    episodes: int = 512,
    weighting: Literal["per-decision", "trajectory"] = "per-decision",
    self_normalize: bool = True,
    max_weight: float | None = None,
    min_ess: float = 0.1,
    clone_epochs: int = 10,
    replay_episodes: int = 0,
    baseline: Literal["value", "leave-one-out", "running-mean", "time-average", "linear", "constant", "none"] = "value",
    baseline_value: float = 0.0,
    cross_fit: int | None = None,
    gamma: float = 0.99,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "no",
    reduction: Literal["trajectory", "step"] = "trajectory",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0003,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float | str | Linear | None = 0.003,
    critic_epochs: int | None = 10,
    critic_minibatches: int | None = 4,
    critic_hidden: tuple[int, ...] | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
) -> Agent:
    """REINFORCE from stored trajectories by importance sampling (Precup, Sutton & Singh 2000); refuses weights that collapse.

    Without a dataset it samples its own episodes: every weight is 1, and it is REINFORCE. With replay_episodes its updates also
    learn from episodes that its earlier policies sampled.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        dataset: stored trajectories to learn from instead of playing: Trajectories, a path, or minari:NAME
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        episodes: whole episodes per iteration; a smaller dataset gives all of its episodes
        weighting: one importance weight per trajectory, or one per reward, from the ratios up to it
        self_normalize: divide the importance weights by their mean; the estimate is then bounded, with a bias of
            O(1/episodes)
        max_weight: largest importance weight, clipped before normalising (biased); none: no clipping
        min_ess: stop when the effective sample size falls below this share of the episodes; usually 0.1 to 0.5
        clone_epochs: with a dataset: epochs of behaviour cloning (maximum likelihood) before training
        replay_episodes: without a dataset: episodes of earlier iterations that every update learns from as well, by
            their weights
        baseline: baseline subtracted from the returns; value: a learned V(s)
        baseline_value: value of the constant baseline
        cross_fit: folds of the batch; each fold's baseline is fitted to the other folds; none: fitted to earlier
            batches
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        reduction: sum over each episode and average over episodes, as in theory, or average over all steps
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def ppo(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 256,
    epochs: int = 10,
    minibatches: int = 8,
    clip: float | str | Linear = 0.2,
    target_kl: float | str | Linear | None = None,
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "batch",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0003,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = None,
    critic_epochs: int | None = None,
    critic_minibatches: int | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    shared_body: bool = False,
    value_coef: float = 0.5,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    segment_steps: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    n_epochs: int = ...,
    update_epochs: int = ...,
    num_minibatches: int = ...,
    clip_range: float | str | Linear = ...,
    clip_coef: float | str | Linear = ...,
    clip_ratio: float | str | Linear = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
    batch_size: int = ...,
) -> Agent:
    """Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017).

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        epochs: passes over each batch when the policy is updated
        minibatches: number of minibatches per pass when the policy is updated
        clip: ε of the clipped surrogate; usually 0.1 to 0.3
        target_kl: exact mean KL(old ‖ new) above which an update ends early; none: all epochs are run
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        shared_body: one network for policy and values, with one optimiser and one norm of the gradient of both
        value_coef: with shared_body: weight of the values' loss, ½ (V − target)², beside the policy's gain; usually
            0.25 to 1
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        segment_steps: with a memory: steps of the segments that gradients go back through, which must divide
            num_steps; none: whole rollouts
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def ppo_kl(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 256,
    epochs: int = 10,
    minibatches: int = 8,
    beta: float | str | Linear = 1.0,
    target_kl: float | str | Linear | None = 0.01,
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "batch",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.0003,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = None,
    critic_epochs: int | None = None,
    critic_minibatches: int | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    shared_body: bool = False,
    value_coef: float = 0.5,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    segment_steps: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    n_epochs: int = ...,
    update_epochs: int = ...,
    num_minibatches: int = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
    batch_size: int = ...,
) -> Agent:
    """Proximal policy optimisation with a penalty β · KL(old ‖ new) in place of the clip (Schulman et al. 2017, section 4).

    β is steered towards an update's KL of `target_kl`; with `target_kl=None` it stays what it is.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        epochs: passes over each batch when the policy is updated
        minibatches: number of minibatches per pass when the policy is updated
        beta: weight β of the KL penalty; its initial value if target_kl is given
        target_kl: exact mean KL(old ‖ new) towards which β is adapted; none: β is not adapted
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        shared_body: one network for policy and values, with one optimiser and one norm of the gradient of both
        value_coef: with shared_body: weight of the values' loss, ½ (V − target)², beside the policy's gain; usually
            0.25 to 1
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        segment_steps: with a memory: steps of the segments that gradients go back through, which must divide
            num_steps; none: whole rollouts
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def pqn(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 32,
    gamma: float = 0.99,
    lam: float = 0.65,
    lr: float | str | Linear = 0.001,
    lr_schedule: Literal["constant", "linear"] = "constant",
    epochs: int = 2,
    minibatches: int = 4,
    epsilon: float | str | Linear = 0.05,
    epsilon_fraction: float = 0.1,
    max_grad_norm: float | None = 10.0,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "relu",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    q_lambda: float = ...,
    learning_rate: float | str | Linear = ...,
    n_epochs: int = ...,
    update_epochs: int = ...,
    num_minibatches: int = ...,
    exploration_final_eps: float | str | Linear = ...,
    end_e: float | str | Linear = ...,
    exploration_fraction: float = ...,
    batch_size: int = ...,
) -> Agent:
    """Q(λ) in parallel environments, without replay and without a target network (Peng 1994; PQN, Gallici et al. 2024).

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of the return; 0: one step, 1: Monte Carlo return
        lr: learning rate of the action values (Adam)
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        epochs: passes over each batch when the policy is updated
        minibatches: number of minibatches per pass when the policy is updated
        epsilon: final probability of a random action; a schedule is that of the probability itself
        epsilon_fraction: share of training in which the probability of a random action falls from 1 to epsilon
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def reinforce(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    episodes: int = 16,
    returns: Literal["to-go", "total"] = "to-go",
    baseline: Literal["value", "leave-one-out", "running-mean", "time-average", "linear", "constant", "none"] = "value",
    baseline_value: float = 0.0,
    cross_fit: int | None = None,
    gamma: float = 0.99,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "no",
    reduction: Literal["trajectory", "step"] = "trajectory",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | str | Linear = 0.003,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float | str | Linear | None = 0.003,
    critic_epochs: int | None = 10,
    critic_minibatches: int | None = 4,
    critic_hidden: tuple[int, ...] | None = None,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    normalize_advantage: bool = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    actor_lr: float | str | Linear = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
) -> Agent:
    """REINFORCE (Williams 1992): one gradient step per batch of whole episodes, with a choice of returns and of baselines.

    `returns="total", baseline="none"` is the naive form; the default, reward-to-go − V(s), is "vanilla policy gradient".

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        episodes: whole episodes per iteration
        returns: credit an action with the rewards after it (to-go) or with the whole episode's return (total)
        baseline: baseline subtracted from the returns; value: a learned V(s)
        baseline_value: value of the constant baseline
        cross_fit: folds of the batch; each fold's baseline is fitted to the other folds; none: fitted to earlier
            batches
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        reduction: sum over each episode and average over episodes, as in theory, or average over all steps
        optimizer: optimiser of the policy
        lr: learning rate of the policy; Adam: usually 1e-4 to 1e-2
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def sac(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 1,
    num_steps: int = 1,
    alpha: float | str | Linear = 1.0,
    learn_alpha: bool = True,
    target_entropy: float | None = None,
    twin: bool = True,
    buffer_size: int = 100000,
    batch_size: int = 256,
    gradient_steps: int | None = None,
    warmup: int = 1000,
    n_step: int = 1,
    gamma: float = 0.99,
    lr: float | str | Linear = 0.001,
    critic_lr: float | str | Linear | None = None,
    lr_schedule: Literal["constant", "linear"] = "constant",
    tau: float = 0.005,
    max_grad_norm: float | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    hidden: Sequence[int] = (256, 256),
    activation: Literal["tanh", "relu", "silu"] = "relu",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    train_freq: int = ...,
    train_frequency: int = ...,
    update_every: int = ...,
    autotune: bool = ...,
    replay_size: int = ...,
    learning_starts: int = ...,
    start_steps: int = ...,
    update_after: int = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    policy_lr: float | str | Linear = ...,
    q_lr: float | str | Linear | None = ...,
    n_steps: int = ...,
) -> Agent:
    """Soft actor-critic (Haarnoja et al. 2018): the pathwise gradient of a squashed normal, with an entropy bonus.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment between updates, which come in groups of gradient_steps
        alpha: weight α of the entropy; its initial value where it is learned
        learn_alpha: learn α, so that the entropy becomes target_entropy
        target_entropy: entropy that α steers towards, in nats, of actions scaled to [-1, 1]; none: minus the number
            of dimensions
        twin: two critics, whose smaller value is bootstrapped from
        buffer_size: steps that the replay buffer keeps
        batch_size: transitions in a minibatch
        gradient_steps: minibatches after every num_steps; none: as many as environment steps were played
        warmup: steps with uniformly random actions, before anything is learned
        n_step: rewards that are summed before a value is bootstrapped from
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lr: learning rate of the policy (Adam)
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        tau: share by which the copies of the networks move towards them at every step
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def td3(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 1,
    num_steps: int = 1,
    noise: float | str | Linear = 0.1,
    twin: bool = True,
    delay: int = 2,
    smoothing: float = 0.2,
    smoothing_limit: float = 0.5,
    buffer_size: int = 100000,
    batch_size: int = 256,
    gradient_steps: int | None = None,
    warmup: int = 1000,
    n_step: int = 1,
    gamma: float = 0.99,
    lr: float | str | Linear = 0.001,
    critic_lr: float | str | Linear | None = None,
    lr_schedule: Literal["constant", "linear"] = "constant",
    tau: float = 0.005,
    max_grad_norm: float | None = None,
    critic_hidden: tuple[int, ...] | None = None,
    hidden: Sequence[int] = (256, 256),
    activation: Literal["tanh", "relu", "silu"] = "relu",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    train_freq: int = ...,
    train_frequency: int = ...,
    update_every: int = ...,
    exploration_noise: float | str | Linear = ...,
    act_noise: float | str | Linear = ...,
    policy_delay: int = ...,
    policy_frequency: int = ...,
    target_policy_noise: float = ...,
    policy_noise: float = ...,
    target_noise: float = ...,
    target_noise_clip: float = ...,
    noise_clip: float = ...,
    replay_size: int = ...,
    learning_starts: int = ...,
    start_steps: int = ...,
    update_after: int = ...,
    learning_rate: float | str | Linear = ...,
    pi_lr: float | str | Linear = ...,
    policy_lr: float | str | Linear = ...,
    q_lr: float | str | Linear | None = ...,
    n_steps: int = ...,
) -> Agent:
    """Twin delayed DDPG (Fujimoto et al. 2018): twin critics, a delayed policy, and smoothed target actions.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment between updates, which come in groups of gradient_steps
        noise: standard deviation of the exploration noise, in units of half the action range
        twin: two critics, whose smaller value is bootstrapped from
        delay: steps of the critic for every step of the policy
        smoothing: standard deviation of the noise on the actions in targets; 0: none
        smoothing_limit: largest size of the noise on the actions in targets
        buffer_size: steps that the replay buffer keeps
        batch_size: transitions in a minibatch
        gradient_steps: minibatches after every num_steps; none: as many as environment steps were played
        warmup: steps with uniformly random actions, before anything is learned
        n_step: rewards that are summed before a value is bootstrapped from
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lr: learning rate of the policy (Adam)
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        tau: share by which the copies of the networks move towards them at every step
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """

def trpo(
    env: EnvLike,
    *,
    seed: int = 0,
    preset: Preset | None = None,
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    auxiliary: Gain | None = None,
    kernel: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    fisher_eigenvalues: int = 0,
    gradient_meter: bool = False,
    steps: int = 100000,
    num_envs: int = 8,
    num_steps: int = 256,
    max_kl: float | str | Linear = 0.01,
    kl_schedule: Literal["constant", "linear"] = "constant",
    backtracks: int = 10,
    shrink: float = 0.8,
    damping: float = 0.1,
    cg_iterations: int = 10,
    solver: Literal["cg", "dense"] = "cg",
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "running", "episode"] = "batch",
    ent_coef: float | str | Linear = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    lr_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | str | Linear | None = 0.001,
    critic_epochs: int | None = 10,
    critic_minibatches: int | None = 8,
    critic_hidden: tuple[int, ...] | None = None,
    memory: Literal["none", "gru", "lstm"] = "none",
    memory_size: int = 64,
    segment_steps: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    network: Literal["auto", "cnn", "mlp"] = "auto",
    head: Literal["gaussian", "squashed", "beta"] = "gaussian",
    std: Literal["parameter", "network"] = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: Literal["auto", "none", "observation", "info"] = "auto",
    normalize_obs: bool = False,
    total_timesteps: int = ...,
    n_timesteps: int = ...,
    n_envs: int = ...,
    n_steps: int = ...,
    delta: float | str | Linear = ...,
    target_kl: float | str | Linear = ...,
    line_search_max_iter: int = ...,
    backtrack_iters: int = ...,
    line_search_shrinking_factor: float = ...,
    backtrack_coeff: float = ...,
    cg_damping: float = ...,
    damping_coeff: float = ...,
    cg_max_steps: int = ...,
    cg_iters: int = ...,
    gae_lambda: float = ...,
    normalize_advantage: bool = ...,
    vf_lr: float | str | Linear | None = ...,
    n_critic_updates: int | None = ...,
    train_v_iters: int | None = ...,
    lstm_hidden_size: int = ...,
    learning_rate: float | str | Linear | None = ...,
    batch_size: int = ...,
) -> Agent:
    """Trust-region policy optimisation (Schulman et al. 2015): a natural step that must meet its KL bound and improve.

    Returns an `Agent`.

        env: a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment
        seed: random seed of networks, environments and actions
        preset: hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file,
            or a mapping; {} takes the defaults
        name: what run directories and pictures call the environment
        env_kwargs: keywords that the environment is made with, in training, evaluations and videos
        wrappers: wrappers around the environment, the innermost first: functions environment → environment, or
            module:name
        body: a torch module, or a function observation space → module, in place of the policy's hidden layers
        critic_body: the same for the critic
        auxiliary: a function (policy, batch) → scalar that is ascended besides
        kernel: how derivatives of networks are computed: auto, autograd, closed_form or compiled
        device: device on which the networks are and learn: cpu, cuda, cuda:1, or auto
        backend: implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or
            torch
        fisher_eigenvalues: number of largest Fisher eigenvalues in every row of metrics
        gradient_meter: measure signal and noise of the gradient for every second row of metrics
        steps: number of environment steps; training stops after the last whole iteration that fits
        num_envs: number of environments stepped in parallel
        num_steps: steps per environment per iteration
        max_kl: largest KL(old ‖ new) of one update, in nats; usually 0.003 to 0.05
        kl_schedule: schedule of max_kl: constant, or linear down to 0
        backtracks: number of times that a step is shortened, if it breaks the bound or does not improve, before it
            is rejected
        shrink: factor by which a step is shortened
        damping: number added to the diagonal of the Fisher matrix; usually 0.01 to 0.1
        cg_iterations: conjugate-gradient iterations per natural step; usually 10 to 20
        solver: solver of natural steps: cg (conjugate gradients), or dense (the whole Fisher matrix of a small
            policy)
        gamma: discount γ; usually 0.98 to 0.999, or 1 with a finite horizon
        lam: λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98
        state_discount: weight step t by γᵗ, as in the gradient of the discounted objective
        standardize: scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or
            (biased) per episode
        ent_coef: weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty
        ent_schedule: schedule of the entropy bonus: constant, or linear down to 0
        lr_schedule: schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)
        max_grad_norm: largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping
        critic_lr: learning rate of the critic (Adam); none: that of the policy
        critic_epochs: passes over each batch when the critic is updated; none: as many as for the policy
        critic_minibatches: number of minibatches per pass when the critic is updated; none: as many as for the
            policy
        critic_hidden: widths of the hidden layers of the critic's network; none: those of the policy's
        memory: memory of policy and critic, each its own: a GRU or LSTM layer after the hidden layers; none: no
            memory
        memory_size: number of units of the memory's layer
        segment_steps: with a memory: steps of the segments that gradients go back through, which must divide
            num_steps; none: whole rollouts
        hidden: widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear,
            or a table for Discrete states
        activation: activation function of the hidden layers
        network: what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP
        head: distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta
        std: standard deviation of Box actions: a free parameter, or an output of the network
        log_std: initial log standard deviation of Box actions
        noise_autocorrelation: autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated
            over about ten steps
        mask_source: source of action masks; auto: the entry action_mask of a Dict observation, if there is one
        normalize_obs: standardise observations by a running mean and variance, which the policy stores
    """
