"""The keywords that recipes share: each is declared once, with its type, help and bounds, and stands in a group.

A group is a frozen dataclass. A recipe takes one as a keyword whose default is an instance, with the defaults that are its own:

    def a2c(task, *, num_steps: NumSteps = 16, ascent: Ascent = Ascent(lr=7e-4)) -> Plan: ...

The group's fields are then the recipe's keywords, `pg.a2c(env, lr=1e-3)`, and the body reads `ascent.lr`. Nothing heavy is
imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from policygrad.gradient.estimators import Estimator
    from policygrad.models.policy import Policy

TINY = 1e-9  # the lowest value of what must be above 0
MOST = {int: 10**15, float: 1e30}  # the largest value of what says none: training in float32 must be able to hold it


@dataclass(frozen=True)
class Option:
    """The help and bounds of a keyword: `clip: Annotated[float, Option("ε of the clip", low=0.0)] = 0.2`.

    help: one line. low, high: inclusive bounds, which hold for each number of a tuple; without `high` it is `MOST`. tune: the
    range to search when hyperparameters are tuned, (low, high) or (low, high, "log"). schedule: whether it may change with
    training's progress: recipes then get a number, or a function of progress (`policygrad.linear`). foreign: what the keyword
    is called in Stable-Baselines3, CleanRL or Spinning Up.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    tune: tuple[float, float] | tuple[float, float, str] | None = None
    schedule: bool = False
    foreign: tuple[str, ...] = ()


# keywords that stand in several groups or signatures
Schedule = Literal["constant", "linear"]
NumSteps = Annotated[
    int, Option("steps per environment per iteration", 1, 10**7, tune=(16, 2048, "log"), foreign=("n_steps",))
]
Episodes = Annotated[int, Option("whole episodes per iteration", 1, 10**6, tune=(4, 64, "log"))]
StoredEpisodes = Annotated[  # of a recipe that takes a dataset
    int,
    Option("whole episodes per iteration; a smaller dataset gives all of its episodes", 1, 10**6, tune=(4, 64, "log")),
]
Gamma = Annotated[
    float, Option("discount γ; usually 0.98 to 0.999, or 1 with a finite horizon", 0, 1, tune=(0.9, 0.999))
]
StateDiscount = Annotated[bool, Option("weight step t by γᵗ, as in the gradient of the discounted objective")]
Standardize = Annotated[
    Literal["no", "batch", "running", "episode"],
    Option(
        "scale advantages to mean 0 and standard deviation 1 over the batch, by earlier batches, or (biased) per episode",
        foreign=("normalize_advantage",),
    ),
]
LrSchedule = Annotated[
    Schedule, Option("schedule of learning rates that are numbers: constant, or linear to 0; see also linear(a, b)")
]
EntCoef = Annotated[
    float,
    Option("weight of the entropy bonus; usually 0 to 0.02, below 0 a penalty", -1, 1000, (1e-4, 0.05, "log"), True),
]
EntSchedule = Annotated[Schedule, Option("schedule of the entropy bonus: constant, or linear down to 0")]
MaxGradNorm = Annotated[
    float | None,
    Option("largest ℓ₂ norm of each network's gradient, clipped to it; none: no clipping", TINY, tune=(0.1, 10, "log")),
]
CriticLr = Annotated[
    float | None,
    Option(
        "learning rate of the critic (Adam); none: that of the policy",
        0,
        100,
        tune=(1e-4, 1e-2, "log"),
        schedule=True,
        foreign=("vf_lr",),
    ),
]
CriticHidden = Annotated[
    tuple[int, ...] | None,
    Option("widths of the hidden layers of the critic's network; none: those of the policy's", 1, 65536),
]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The keywords of every recipe for the length of training and the number of environments."""

    steps: Annotated[
        int,
        Option(
            "number of environment steps; training stops after the last whole iteration that fits",
            1,
            foreign=("total_timesteps", "n_timesteps"),
        ),
    ] = 100_000
    num_envs: Annotated[
        int, Option("number of environments stepped in parallel", 1, 4096, tune=(1, 64, "log"), foreign=("n_envs",))
    ] = 8


@dataclass(frozen=True, kw_only=True)
class Network:
    """The keywords of every recipe for the policy's network and head; the critic's network has the same widths."""

    hidden: Annotated[
        tuple[int, ...],
        Option(
            "widths of the hidden layers of policy and critic, after the convolutions of pictures; none: linear, or "
            "a table for Discrete states",
            1,
            65536,
        ),
    ] = (64, 64)
    activation: Annotated[Literal["tanh", "relu", "silu"], Option("activation function of the hidden layers")] = "tanh"
    network: Annotated[
        Literal["auto", "cnn", "mlp"],
        Option("what observations go through; auto: convolutions (cnn) where they are pictures, otherwise an MLP"),
    ] = "auto"
    head: Annotated[
        Literal["gaussian", "squashed", "beta"],
        Option("distribution of Box actions: a normal clipped at the bounds, the tanh of a normal, or Beta"),
    ] = "gaussian"
    std: Annotated[
        Literal["parameter", "network"],
        Option("standard deviation of Box actions: a free parameter, or an output of the network"),
    ] = "parameter"
    log_std: Annotated[float, Option("initial log standard deviation of Box actions", -20, 5, tune=(-2, 0))] = 0.0
    noise_autocorrelation: Annotated[
        float,
        Option(
            "autocorrelation of the noise of Box actions; 0: independent noise, 0.9: correlated over about ten steps",
            0,
            0.9999,
            tune=(0, 0.95),
        ),
    ] = 0.0
    mask_source: Annotated[
        Literal["auto", "none", "observation", "info"],
        Option("source of action masks; auto: the entry action_mask of a Dict observation, if there is one"),
    ] = "auto"
    normalize_obs: Annotated[
        bool, Option("standardise observations by a running mean and variance, which the policy stores")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """The keywords of generalised advantage estimation, and of the wrappers of advantages."""

    gamma: Gamma = 0.99
    lam: Annotated[
        float,
        Option(
            "λ of generalised advantage estimation; 0: TD error, 1: Monte Carlo return; usually 0.9 to 0.98",
            0,
            1,
            tune=(0.8, 1),
            foreign=("gae_lambda",),
        ),
    ] = 0.95
    state_discount: StateDiscount = False
    standardize: Standardize = "batch"

    def estimator(self) -> Estimator:
        """GAE(γ, λ), wrapped."""
        from policygrad.gradient.estimators import GAE

        return wrapped(GAE(self.gamma, self.lam), self.state_discount, self.standardize)


@dataclass(frozen=True, kw_only=True)
class Returns:
    """The keywords of returns of whole episodes minus a baseline, and of their wrappers."""

    baseline: Annotated[
        Literal["value", "leave-one-out", "running-mean", "time-average", "linear", "constant", "none"],
        Option("baseline subtracted from the returns; value: a learned V(s)"),
    ] = "value"
    baseline_value: Annotated[float, Option("value of the constant baseline")] = 0.0
    cross_fit: Annotated[
        int | None,
        Option(
            "folds of the batch; each fold's baseline is fitted to the other folds; none: fitted to earlier batches",
            2,
            tune=(2, 8),
        ),
    ] = None
    gamma: Gamma = 0.99
    state_discount: StateDiscount = False
    standardize: Standardize = "no"
    reduction: Annotated[
        Literal["trajectory", "step"],
        Option("sum over each episode and average over episodes, as in theory, or average over all steps"),
    ] = "trajectory"

    def wrap(self, estimator: Estimator) -> Estimator:
        """The estimator, wrapped."""
        return wrapped(estimator, self.state_discount, self.standardize)


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The keywords that say how often a batch is used."""

    epochs: Annotated[
        int,
        Option(
            "passes over each batch when the policy is updated",
            1,
            1000,
            tune=(1, 20),
            foreign=("n_epochs", "update_epochs"),
        ),
    ] = 10
    minibatches: Annotated[
        int,
        Option(
            "number of minibatches per pass when the policy is updated",
            1,
            10**6,
            tune=(1, 32, "log"),
            foreign=("num_minibatches",),
        ),
    ] = 8


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """The keywords of first-order ascent."""

    optimizer: Annotated[Literal["adam", "sgd"], Option("optimiser of the policy")] = "adam"
    lr: Annotated[
        float,
        Option(
            "learning rate of the policy; Adam: usually 1e-4 to 1e-2",
            0,
            100,
            tune=(1e-5, 1e-2, "log"),
            schedule=True,
            foreign=("learning_rate", "pi_lr", "actor_lr"),
        ),
    ] = 3e-4
    lr_schedule: LrSchedule = "constant"
    ent_coef: EntCoef = 0.0
    ent_schedule: EntSchedule = "constant"
    max_grad_norm: MaxGradNorm = None

    def values(self, seed: int) -> dict[str, Any]:
        """The keywords of a first-order update rule. seed: of the order of minibatches."""
        from policygrad.models.schedules import make_schedule

        return {
            "lr": make_schedule(self.lr_schedule, self.lr),
            "optimizer": self.optimizer,
            "ent_coef": make_schedule(self.ent_schedule, self.ent_coef),
            "max_grad_norm": self.max_grad_norm,
            "seed": seed,
        }


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The keyword of the length of a natural step."""

    max_kl: Annotated[
        float,
        Option(
            "largest KL(old ‖ new) of one update, in nats; usually 0.003 to 0.05",
            TINY,
            100,
            tune=(1e-3, 0.1, "log"),
            schedule=True,
            foreign=("delta", "target_kl"),
        ),
    ] = 0.01
    kl_schedule: Annotated[Schedule, Option("schedule of max_kl: constant, or linear down to 0")] = "constant"


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """The keywords of the linear system of a natural step."""

    damping: Annotated[
        float,
        Option(
            "number added to the diagonal of the Fisher matrix; usually 0.01 to 0.1",
            0,
            1e6,
            tune=(1e-3, 0.3, "log"),
            foreign=("cg_damping", "damping_coeff"),
        ),
    ] = 0.1
    cg_iterations: Annotated[
        int,
        Option(
            "conjugate-gradient iterations per natural step; usually 10 to 20",
            1,
            10_000,
            tune=(5, 30),
            foreign=("cg_max_steps", "cg_iters"),
        ),
    ] = 10
    solver: Annotated[
        Literal["cg", "dense"],
        Option(
            "solver of natural steps: cg (conjugate gradients), or dense (the whole Fisher matrix of a small policy)"
        ),
    ] = "cg"


@dataclass(frozen=True, kw_only=True)
class Bonus:
    """The keyword of the entropy bonus of a natural step."""

    ent_coef: EntCoef = 0.0
    ent_schedule: EntSchedule = "constant"


def natural(policy: Policy, budget: Budget, fisher: Fisher, bonus: Bonus) -> dict[str, Any]:
    """The keywords of a natural update rule, from three groups. Raises ValueError if F is too large to be solved densely."""
    from policygrad.gradient.natural import check_dense
    from policygrad.models.schedules import make_schedule

    if fisher.solver == "dense":
        check_dense(len(policy.flat))
    return vars(fisher) | {
        "max_kl": make_schedule(budget.kl_schedule, budget.max_kl),
        "ent_coef": make_schedule(bonus.ent_schedule, bonus.ent_coef),
    }


@dataclass(frozen=True)
class Rates:
    """What a critic follows where the policy has no `Ascent`, which has the same fields. Not a group."""

    lr: float | None
    lr_schedule: str
    max_grad_norm: float | None


@dataclass(frozen=True, kw_only=True)
class CriticFit:
    """The keywords of fitting the critic; None means the policy's value."""

    critic_lr: CriticLr = None
    critic_epochs: Annotated[
        int | None,
        Option(
            "passes over each batch when the critic is updated; none: as many as for the policy",
            1,
            1000,
            tune=(1, 80, "log"),
            foreign=("n_critic_updates", "train_v_iters"),
        ),
    ] = None
    critic_minibatches: Annotated[
        int | None,
        Option(
            "number of minibatches per pass when the critic is updated; none: as many as for the policy",
            1,
            10**6,
            tune=(1, 32, "log"),
        ),
    ] = None
    critic_hidden: CriticHidden = None

    def values(self, rates: Ascent | Rates, passes: Passes | None = None) -> dict[str, Any]:
        """The keywords of `Task.critic`. passes: the passes of the policy, if it makes more than one."""
        lr = rates.lr if self.critic_lr is None else self.critic_lr
        if lr is None:
            raise ValueError("critic_lr = none takes the policy's learning rate, but lr is none: set critic_lr")
        return {
            "lr": lr,
            "lr_schedule": rates.lr_schedule,
            "epochs": self.critic_epochs or (passes.epochs if passes else 1),
            "minibatches": self.critic_minibatches or (passes.minibatches if passes else 1),
            "max_grad_norm": rates.max_grad_norm,
            "hidden": self.critic_hidden,
        }


def wrapped(estimator: Estimator, state_discount: bool, standardize: str = "no") -> Estimator:
    """The estimator inside the wrappers that the keywords ask for."""
    from policygrad.gradient.estimators import Standardized, StateDiscounted

    if state_discount:
        estimator = StateDiscounted(estimator)
    return estimator if standardize == "no" else Standardized(estimator, over=standardize)
