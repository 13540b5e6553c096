"""The named algorithms. A recipe's keyword signature is its configuration; its body is the composition.

A recipe gets a `Task` (spaces, seed, modules of the user's own) and returns a `Plan`: the learner, and how much it wants to
see per iteration. The spec above it says its cell of the grid and all that reports and the command line want to know.
Nothing heavy is imported here, so the command line can read signatures at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from policygrad.algorithms.recipe import Recipe, RecipeSpec, recipe

if TYPE_CHECKING:
    from policygrad.algorithms.task import Plan, Task

SCALE_RATE = 1e-3  # of a critic that is fitted after every step: its scale is that of a thousand targets

RECIPES: dict[str, Recipe] = {}


def _packaged(spec: RecipeSpec) -> Callable[[Callable[..., Plan]], Recipe]:
    """Register a recipe of the package under its function's name: command line, presets and tests pick it up from here."""

    def register(function: Callable[..., Plan]) -> Recipe:
        made = RECIPES[function.__name__] = recipe(spec, function.__name__)(function)
        return made

    return register


@_packaged(RecipeSpec("TotalReturn or RewardToGo − any baseline", "VanillaGradient"))
def reinforce(
    task: Task,
    *,
    num_envs: int = 8,
    episodes: int = 16,
    returns: Literal["to-go", "total"] = "to-go",
    baseline: Literal["value", "leave-one-out", "running-mean", "time-average", "linear", "constant", "none"] = "value",
    baseline_value: float = 0.0,
    cross_fit: int | None = None,
    gamma: float = 0.99,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "no",
    reduction: Literal["trajectory", "step"] = "trajectory",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 3e-3,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float = 3e-3,
    critic_epochs: int = 10,
    critic_minibatches: int = 4,
) -> Plan:
    """REINFORCE (Williams 1992): one gradient step a batch of whole episodes, with a choice of returns and of baselines.

    `--returns total --baseline none` is the naive form; the default, reward-to-go − V(s), is "vanilla policy gradient".
    """
    from policygrad.algorithms.task import Plan, make_baseline
    from policygrad.gradient import estimators as est
    from policygrad.models.critic import NoCritic

    policy = task.policy()
    critic = NoCritic()
    if baseline == "value":
        critic = task.critic(critic_lr, lr_schedule, critic_epochs, critic_minibatches, max_grad_norm)
    estimator = est.TotalReturn(gamma) if returns == "total" else est.RewardToGo(gamma)
    update = task.vanilla(lr, lr_schedule, ent_coef, ent_schedule, optimizer, max_grad_norm)
    learner = task.learner(
        policy,
        estimator,
        update,
        critic,
        make_baseline(baseline, baseline_value, cross_fit),
        state_discount,
        standardize,
        reduction,
    )
    return Plan(learner, episodes=episodes)


@_packaged(RecipeSpec("RewardToGo, weighed − any baseline", "VanillaGradient", dataset=True))
def off_policy_pg(
    task: Task,
    *,
    num_envs: int = 8,
    episodes: int = 512,
    weighting: Literal["per-decision", "trajectory"] = "per-decision",
    self_normalize: bool = True,
    max_weight: float | None = None,
    min_ess: float = 0.1,
    clone_epochs: int = 10,
    baseline: Literal["value", "leave-one-out", "running-mean", "time-average", "linear", "constant", "none"] = "value",
    baseline_value: float = 0.0,
    cross_fit: int | None = None,
    gamma: float = 0.99,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "no",
    reduction: Literal["trajectory", "step"] = "trajectory",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 3e-4,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float = 3e-3,
    critic_epochs: int = 10,
    critic_minibatches: int = 4,
) -> Plan:
    """REINFORCE from stored trajectories by importance sampling (Precup, Sutton & Singh 2000); refuses weights that collapse.

    Without a dataset it samples its own episodes: every weight is 1, and it is REINFORCE.
    """
    from policygrad.algorithms.task import Plan, make_baseline
    from policygrad.gradient.estimators import RewardToGo
    from policygrad.gradient.importance import ImportanceWeighted, PerDecision
    from policygrad.models.critic import NoCritic

    policy = task.policy()
    critic = NoCritic()
    if baseline == "value":
        critic = task.critic(critic_lr, lr_schedule, critic_epochs, critic_minibatches, max_grad_norm)
    form = PerDecision if weighting == "per-decision" else ImportanceWeighted
    update = task.vanilla(lr, lr_schedule, ent_coef, ent_schedule, optimizer, max_grad_norm)
    learner = task.learner(
        policy,
        RewardToGo(gamma),
        update,
        critic,
        make_baseline(baseline, baseline_value, cross_fit),
        state_discount,
        standardize,
        reduction,
        lambda estimator: form(estimator, self_normalize, max_weight, min_ess),
    )
    return Plan(learner, episodes=episodes, clone_epochs=clone_epochs)


@_packaged(RecipeSpec("TD error, or q − V, every step", "VanillaGradient", num_steps=1))
def actor_critic(
    task: Task,
    *,
    num_envs: int = 1,
    critic: Literal["v", "q"] = "v",
    gamma: float = 0.99,
    state_discount: bool = False,
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 3e-4,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = None,
    critic_lr: float | None = None,
) -> Plan:
    """One-step actor-critic (Sutton & Barto, 13.5): the TD error, or q(s,a) − V(s), and an update after every step.

    With `state_discount` it is the book's algorithm; without, as in all of deep RL, γᵗ is left out.
    """
    from policygrad.algorithms.task import Plan
    from policygrad.gradient.estimators import QValue, TDError

    policy = task.policy()
    made = task.critic(
        lr if critic_lr is None else critic_lr,
        lr_schedule,
        1,
        1,
        max_grad_norm,
        of=critic,
        scale_rate=SCALE_RATE,
    )
    update = task.vanilla(lr, lr_schedule, ent_coef, ent_schedule, optimizer, max_grad_norm)
    estimator = QValue(gamma) if critic == "q" else TDError(gamma)
    learner = task.learner(policy, estimator, update, made, None, state_discount, "no", "step")
    return Plan(learner, num_steps=1)


@_packaged(RecipeSpec("GAE − V", "VanillaGradient"))
def a2c(
    task: Task,
    *,
    num_envs: int = 8,
    num_steps: int = 16,
    gamma: float = 0.99,
    lam: float = 1.0,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "no",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 7e-4,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | None = None,
    critic_epochs: int = 1,
    critic_minibatches: int = 1,
) -> Plan:
    """Advantage actor-critic, synchronous (Mnih et al. 2016): GAE − V and one gradient step every few steps."""
    from policygrad.algorithms.task import Plan
    from policygrad.gradient.estimators import GAE

    policy = task.policy()
    critic = task.critic(
        lr if critic_lr is None else critic_lr,
        lr_schedule,
        critic_epochs,
        critic_minibatches,
        max_grad_norm,
    )
    update = task.vanilla(lr, lr_schedule, ent_coef, ent_schedule, optimizer, max_grad_norm)
    learner = task.learner(policy, GAE(gamma, lam), update, critic, None, state_discount, standardize, "step")
    return Plan(learner, num_steps=num_steps)


@_packaged(
    RecipeSpec(
        "GAE − V",
        "NaturalGradient",
        kl_limit="max_kl",
        kl_free_with="lr",
        shorter="max_kl, or lr where it is set",
        no_rejection="it takes the step that the quadratic model of KL allows, unchecked",
        batch_size="critic_minibatches",
        aliases={"learning_rate": None, "target_kl": "max_kl"},  # the policy's rate, or the critic's: it has both
    )
)
def npg(
    task: Task,
    *,
    num_envs: int = 8,
    num_steps: int = 256,
    max_kl: float = 0.01,
    kl_schedule: Literal["constant", "linear"] = "constant",
    lr: float | None = None,
    lr_schedule: Literal["constant", "linear"] = "constant",
    damping: float = 0.1,
    cg_iterations: int = 10,
    solver: Literal["cg", "dense"] = "cg",
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "batch",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float = 1e-3,
    critic_epochs: int = 10,
    critic_minibatches: int = 8,
) -> Plan:
    """Natural policy gradient (Kakade 2001): one step a batch, of a length in policy space.

    With `lr` the step is lr · F⁻¹ĝ, whatever its length.
    """
    from policygrad.algorithms.task import Plan, make_schedule
    from policygrad.gradient.estimators import GAE
    from policygrad.gradient.natural import check_dense
    from policygrad.updates import NaturalGradient

    policy = task.policy()
    if solver == "dense":
        check_dense(len(policy.flat))
    critic = task.critic(critic_lr, lr_schedule, critic_epochs, critic_minibatches, max_grad_norm)
    update = NaturalGradient(
        make_schedule(kl_schedule, max_kl),
        lr=None if lr is None else make_schedule(lr_schedule, lr),
        damping=damping,
        cg_iterations=cg_iterations,
        solver=solver,
        ent_coef=make_schedule(ent_schedule, ent_coef),
    )
    learner = task.learner(policy, GAE(gamma, lam), update, critic, None, state_discount, standardize, "step")
    return Plan(learner, num_steps=num_steps)


@_packaged(
    RecipeSpec(
        "GAE − V",
        "TrustRegion",
        kl_limit="max_kl",
        shorter="max_kl",
        no_rejection=None,
        batch_size="critic_minibatches",
        aliases={"learning_rate": "critic_lr", "target_kl": "max_kl"},  # sb3-contrib's rate is the critic's
    )
)
def trpo(
    task: Task,
    *,
    num_envs: int = 8,
    num_steps: int = 256,
    max_kl: float = 0.01,
    kl_schedule: Literal["constant", "linear"] = "constant",
    backtracks: int = 10,
    shrink: float = 0.8,
    damping: float = 0.1,
    cg_iterations: int = 10,
    solver: Literal["cg", "dense"] = "cg",
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "batch",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    lr_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float = 1e-3,
    critic_epochs: int = 10,
    critic_minibatches: int = 8,
) -> Plan:
    """Trust-region policy optimisation (Schulman et al. 2015): the natural step, held to its KL bound and to a gain."""
    from policygrad.algorithms.task import Plan, make_schedule
    from policygrad.gradient.estimators import GAE
    from policygrad.gradient.natural import check_dense
    from policygrad.updates import TrustRegion

    policy = task.policy()
    if solver == "dense":
        check_dense(len(policy.flat))
    critic = task.critic(critic_lr, lr_schedule, critic_epochs, critic_minibatches, max_grad_norm)
    update = TrustRegion(
        make_schedule(kl_schedule, max_kl),
        backtracks=backtracks,
        shrink=shrink,
        damping=damping,
        cg_iterations=cg_iterations,
        solver=solver,
        ent_coef=make_schedule(ent_schedule, ent_coef),
    )
    learner = task.learner(policy, GAE(gamma, lam), update, critic, None, state_discount, standardize, "step")
    return Plan(learner, num_steps=num_steps)


@_packaged(
    RecipeSpec(
        "GAE − V",
        "ClippedSurrogate",
        kl_limit="target_kl",
        shorter="lr, epochs or clip",
        no_rejection="its clip stops gradients, not steps",
        batch_size="minibatches",
    )
)
def ppo(
    task: Task,
    *,
    num_envs: int = 8,
    num_steps: int = 256,
    epochs: int = 10,
    minibatches: int = 8,
    clip: float = 0.2,
    target_kl: float | None = None,
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "batch",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 3e-4,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | None = None,
    critic_epochs: int | None = None,
    critic_minibatches: int | None = None,
) -> Plan:
    """Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017)."""
    from policygrad.algorithms.task import Plan, make_schedule
    from policygrad.gradient.estimators import GAE
    from policygrad.updates import ClippedSurrogate

    policy = task.policy()
    critic = task.critic(
        lr if critic_lr is None else critic_lr,
        lr_schedule,
        critic_epochs or epochs,
        critic_minibatches or minibatches,
        max_grad_norm,
    )
    update = ClippedSurrogate(
        make_schedule(lr_schedule, lr),
        clip=clip,
        epochs=epochs,
        minibatches=minibatches,
        optimizer=optimizer,
        ent_coef=make_schedule(ent_schedule, ent_coef),
        max_grad_norm=max_grad_norm,
        target_kl=target_kl,
        seed=task.seed,
    )
    learner = task.learner(policy, GAE(gamma, lam), update, critic, None, state_discount, standardize, "step")
    return Plan(learner, num_steps=num_steps)


@_packaged(
    RecipeSpec(
        "GAE − V",
        "PenalizedSurrogate",
        kl_limit="target_kl",
        steers_kl=True,
        shorter="lr, epochs or target_kl",
        no_rejection="after a step too long it raises β",
        batch_size="minibatches",
    )
)
def ppo_kl(
    task: Task,
    *,
    num_envs: int = 8,
    num_steps: int = 256,
    epochs: int = 10,
    minibatches: int = 8,
    beta: float = 1.0,
    target_kl: float | None = 0.01,
    gamma: float = 0.99,
    lam: float = 0.95,
    state_discount: bool = False,
    standardize: Literal["no", "batch", "episode"] = "batch",
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float = 3e-4,
    lr_schedule: Literal["constant", "linear"] = "constant",
    ent_coef: float = 0.0,
    ent_schedule: Literal["constant", "linear"] = "constant",
    max_grad_norm: float | None = 0.5,
    critic_lr: float | None = None,
    critic_epochs: int | None = None,
    critic_minibatches: int | None = None,
) -> Plan:
    """Proximal policy optimisation with a penalty β · KL(old ‖ new) in place of the clip (Schulman et al. 2017, section 4).

    β is steered towards an update's KL of `target_kl`; with `--target-kl none` it stays what it is.
    """
    from policygrad.algorithms.task import Plan, make_schedule
    from policygrad.gradient.estimators import GAE
    from policygrad.updates import PenalizedSurrogate

    policy = task.policy()
    critic = task.critic(
        lr if critic_lr is None else critic_lr,
        lr_schedule,
        critic_epochs or epochs,
        critic_minibatches or minibatches,
        max_grad_norm,
    )
    update = PenalizedSurrogate(
        make_schedule(lr_schedule, lr),
        beta=beta,
        target_kl=target_kl,
        epochs=epochs,
        minibatches=minibatches,
        optimizer=optimizer,
        ent_coef=make_schedule(ent_schedule, ent_coef),
        max_grad_norm=max_grad_norm,
        seed=task.seed,
    )
    learner = task.learner(policy, GAE(gamma, lam), update, critic, None, state_discount, standardize, "step")
    return Plan(learner, num_steps=num_steps)
