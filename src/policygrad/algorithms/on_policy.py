"""The named algorithms that learn from what their current policy does. A recipe's signature is its configuration; its body
is the composition.

A recipe gets a `Task` (spaces, seed, network, modules of the user's own) and returns a `Plan`: the learner, and how much it
wants to see per iteration. Keywords that several recipes have come in groups (`keywords.py`), those of one stand here. The
spec says its cell of the grid and all that reports and the command line want to know. Nothing heavy is imported here, so the
command line can read signatures at once.
"""
# ruff: noqa: B008  groups are frozen, so one instance serves all calls

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from policygrad.algorithms import keywords as kw
from policygrad.algorithms.keywords import TINY, Option
from policygrad.algorithms.memory_keywords import Recurrence, SegmentedRecurrence
from policygrad.algorithms.recipe import RecipeSpec
from policygrad.algorithms.registry import packaged
from policygrad.algorithms.sharing import Sharing

if TYPE_CHECKING:
    from policygrad.algorithms.learner import Learner
    from policygrad.algorithms.task import Plan, Task
    from policygrad.gradient.estimators import Estimator

CloneEpochs = Annotated[
    int,
    Option("with a dataset: epochs of behaviour cloning (maximum likelihood) before training", 0, 10_000, (0, 50)),
]
ReplayEpisodes = Annotated[
    int,
    Option(
        "without a dataset: episodes of earlier iterations that every update learns from as well, by their weights",
        0,
        10**6,
        (0, 64),
    ),
]
SCALE_RATE = 1e-3  # of a critic that is fitted after every step: its scale is that of a thousand targets


@packaged(RecipeSpec("TotalReturn or RewardToGo − any baseline", "VanillaGradient"))
def reinforce(
    task: Task,
    *,
    episodes: kw.Episodes = 16,
    returns: Annotated[
        Literal["to-go", "total"],
        Option("credit an action with the rewards after it (to-go) or with the whole episode's return (total)"),
    ] = "to-go",
    advantage: kw.Returns = kw.Returns(),
    ascent: kw.Ascent = kw.Ascent(lr=3e-3),
    fit: kw.CriticFit = kw.CriticFit(critic_lr=3e-3, critic_epochs=10, critic_minibatches=4),
    remember: Recurrence = Recurrence(),
) -> Plan:
    """REINFORCE (Williams 1992): one gradient step per batch of whole episodes, with a choice of returns and of baselines.

    `returns="total", baseline="none"` is the naive form; the default, reward-to-go − V(s), is "vanilla policy gradient".
    """
    from policygrad.algorithms.task import Plan
    from policygrad.gradient.estimators import RewardToGo, TotalReturn

    task = task.remembering(remember)
    estimator = TotalReturn(advantage.gamma) if returns == "total" else RewardToGo(advantage.gamma)
    return Plan(_episodic(task, advantage.wrap(estimator), advantage, ascent, fit), episodes=episodes)


def _episodic(
    task: Task, estimator: Estimator, advantage: kw.Returns, ascent: kw.Ascent, fit: kw.CriticFit, replay: int = 0
) -> Learner:
    """The plan of a plain policy gradient from whole episodes, with any baseline."""
    from policygrad.algorithms.task import Learner, make_baseline
    from policygrad.models.critic import NoCritic
    from policygrad.updates import VanillaGradient

    critic = task.critic(**fit.values(ascent)) if advantage.baseline == "value" else NoCritic()
    update = VanillaGradient(**ascent.values(task.seed))
    baseline = make_baseline(advantage.baseline, advantage.baseline_value, advantage.cross_fit)
    parts: dict[str, Any] = {"critic": critic, "baseline": baseline, "reduction": advantage.reduction}
    return Learner(task.policy(), estimator, update, **parts, replay_episodes=replay)


@packaged(RecipeSpec("RewardToGo, weighed − any baseline", "VanillaGradient", dataset=True))
def off_policy_pg(
    task: Task,
    *,
    episodes: kw.StoredEpisodes = 512,
    weighting: Annotated[
        Literal["per-decision", "trajectory"],
        Option("one importance weight per trajectory, or one per reward, from the ratios up to it"),
    ] = "per-decision",
    self_normalize: Annotated[
        bool,
        Option(
            "divide the importance weights by their mean; the estimate is then bounded, with a bias of O(1/episodes)"
        ),
    ] = True,
    max_weight: Annotated[
        float | None,
        Option(
            "largest importance weight, clipped before normalising (biased); none: no clipping",
            TINY,
            tune=(1, 100, "log"),
        ),
    ] = None,
    min_ess: Annotated[
        float,
        Option(
            "stop when the effective sample size falls below this share of the episodes; usually 0.1 to 0.5",
            0,
            1,
        ),
    ] = 0.1,
    clone_epochs: CloneEpochs = 10,
    replay_episodes: ReplayEpisodes = 0,
    advantage: kw.Returns = kw.Returns(),
    ascent: kw.Ascent = kw.Ascent(),
    fit: kw.CriticFit = kw.CriticFit(critic_lr=3e-3, critic_epochs=10, critic_minibatches=4),
) -> Plan:
    """REINFORCE from stored trajectories by importance sampling (Precup, Sutton & Singh 2000); refuses weights that collapse.

    Without a dataset it samples its own episodes: every weight is 1, and it is REINFORCE. With replay_episodes its updates also
    learn from episodes that its earlier policies sampled.
    """
    from policygrad.algorithms.task import Plan
    from policygrad.gradient.estimators import RewardToGo
    from policygrad.gradient.importance import ImportanceWeighted, PerDecision

    weighed = PerDecision if weighting == "per-decision" else ImportanceWeighted
    estimator = weighed(advantage.wrap(RewardToGo(advantage.gamma)), self_normalize, max_weight, min_ess)
    learner = _episodic(task, estimator, advantage, ascent, fit, replay_episodes)
    return Plan(learner, episodes=episodes, clone_epochs=clone_epochs)


@packaged(RecipeSpec("TD error, or q − V, every step", "VanillaGradient", num_steps=1))
def actor_critic(
    task: Task,
    *,
    run: kw.Run = kw.Run(num_envs=1),
    critic: Annotated[
        Literal["v", "q"],
        Option("function that the critic learns: V(s), or q(s, a) with Discrete actions"),
    ] = "v",
    gamma: kw.Gamma = 0.99,
    state_discount: kw.StateDiscount = False,
    ascent: kw.Ascent = kw.Ascent(),
    critic_lr: kw.CriticLr = None,
    critic_hidden: kw.CriticHidden = None,
    sharing: Sharing = Sharing(),
    remember: Recurrence = Recurrence(),
) -> Plan:
    """One-step actor-critic (Sutton & Barto, 13.5): the TD error, or q(s,a) − V(s), and an update after every step.

    With `state_discount` it is the book's algorithm; without, as in all of deep RL, γᵗ is left out.
    """
    from policygrad.algorithms.task import Learner, Plan
    from policygrad.gradient.estimators import QValue, TDError
    from policygrad.updates import VanillaGradient

    task = task.remembering(remember)
    fit = kw.CriticFit(critic_lr=critic_lr, critic_hidden=critic_hidden).values(ascent)
    policy, values, terms = task.actor_critic(sharing, False, **fit, of=critic, scale_rate=SCALE_RATE)
    estimator = kw.wrapped(QValue(gamma) if critic == "q" else TDError(gamma), state_discount)
    update = VanillaGradient(**ascent.values(task.seed), terms=terms)
    return Plan(Learner(policy, estimator, update, critic=values), num_steps=1)


@packaged(RecipeSpec("GAE − V", "VanillaGradient"))
def a2c(
    task: Task,
    *,
    num_steps: kw.NumSteps = 16,
    advantage: kw.Advantage = kw.Advantage(lam=1.0, standardize="no"),
    ascent: kw.Ascent = kw.Ascent(lr=7e-4, max_grad_norm=0.5),
    fit: kw.CriticFit = kw.CriticFit(critic_epochs=1, critic_minibatches=1),
    sharing: Sharing = Sharing(),
    remember: SegmentedRecurrence = SegmentedRecurrence(),
) -> Plan:
    """Advantage actor-critic, synchronous (Mnih et al. 2016): GAE − V and one gradient step every few steps."""
    from policygrad.algorithms.task import Learner, Plan
    from policygrad.updates import VanillaGradient

    task = task.remembering(remember, num_steps)
    policy, critic, terms = task.actor_critic(sharing, advantage.standardize != "no", **fit.values(ascent))
    update = VanillaGradient(**ascent.values(task.seed), terms=terms)
    return Plan(Learner(policy, advantage.estimator(), update, critic=critic), num_steps=num_steps)


@packaged(
    RecipeSpec(
        "GAE − V",
        "NaturalGradient",
        kl_limit="max_kl",
        kl_free_with="lr",
        shorter="max_kl, or lr where it is set",
        no_rejection="it takes the step that the quadratic model of KL allows, without a check",
        batch_size="critic_minibatches",
    )
)
def npg(
    task: Task,
    *,
    num_steps: kw.NumSteps = 256,
    budget: kw.Budget = kw.Budget(),
    lr: Annotated[  # no `learning_rate`: that may be the policy's or the critic's
        float | None,
        Option(
            "learning rate of the natural step, in place of max_kl; none: max_kl sets the step's length",
            0,
            100,
            schedule=True,
        ),
    ] = None,
    lr_schedule: kw.LrSchedule = "constant",
    fisher: kw.Fisher = kw.Fisher(),
    advantage: kw.Advantage = kw.Advantage(),
    bonus: kw.Bonus = kw.Bonus(),
    max_grad_norm: kw.MaxGradNorm = 0.5,
    fit: kw.CriticFit = kw.CriticFit(critic_lr=1e-3, critic_epochs=10, critic_minibatches=8),
    remember: SegmentedRecurrence = SegmentedRecurrence(),
) -> Plan:
    """Natural policy gradient (Kakade 2001): one step per batch, with its length measured in policy space.

    With `lr` the step is lr · F⁻¹ĝ, whatever its length.
    """
    from policygrad.algorithms.task import Learner, Plan, make_schedule
    from policygrad.updates import NaturalGradient

    task = task.remembering(remember, num_steps)
    policy, critic = task.policy(), task.critic(**fit.values(kw.Rates(lr, lr_schedule, max_grad_norm)))
    rate = None if lr is None else make_schedule(lr_schedule, lr)
    update = NaturalGradient(**kw.natural(policy, budget, fisher, bonus), lr=rate)
    return Plan(Learner(policy, advantage.estimator(), update, critic=critic), num_steps=num_steps)


@packaged(
    RecipeSpec(
        "GAE − V",
        "TrustRegion",
        kl_limit="max_kl",
        shorter="max_kl",
        no_rejection=None,
        batch_size="critic_minibatches",
        aliases={"learning_rate": "critic_lr"},  # sb3-contrib's rate is the critic's
    )
)
def trpo(
    task: Task,
    *,
    num_steps: kw.NumSteps = 256,
    budget: kw.Budget = kw.Budget(),
    backtracks: Annotated[
        int,
        Option(
            "number of times that a step is shortened, if it breaks the bound or does not improve, before it is rejected",
            0,
            1000,
            tune=(5, 20),
            foreign=("line_search_max_iter", "backtrack_iters"),
        ),
    ] = 10,
    shrink: Annotated[
        float,
        Option(
            "factor by which a step is shortened",
            0.01,
            0.99,
            tune=(0.5, 0.9),
            foreign=("line_search_shrinking_factor", "backtrack_coeff"),
        ),
    ] = 0.8,
    fisher: kw.Fisher = kw.Fisher(),
    advantage: kw.Advantage = kw.Advantage(),
    bonus: kw.Bonus = kw.Bonus(),
    lr_schedule: kw.LrSchedule = "constant",
    max_grad_norm: kw.MaxGradNorm = 0.5,
    fit: kw.CriticFit = kw.CriticFit(critic_lr=1e-3, critic_epochs=10, critic_minibatches=8),
    remember: SegmentedRecurrence = SegmentedRecurrence(),
) -> Plan:
    """Trust-region policy optimisation (Schulman et al. 2015): a natural step that must meet its KL bound and improve."""
    from policygrad.algorithms.task import Learner, Plan
    from policygrad.updates import TrustRegion

    task = task.remembering(remember, num_steps)
    policy, critic = task.policy(), task.critic(**fit.values(kw.Rates(None, lr_schedule, max_grad_norm)))
    update = TrustRegion(**kw.natural(policy, budget, fisher, bonus), backtracks=backtracks, shrink=shrink)
    return Plan(Learner(policy, advantage.estimator(), update, critic=critic), num_steps=num_steps)


@packaged(
    RecipeSpec(
        "GAE − V",
        "ClippedSurrogate",
        kl_limit="target_kl",
        shorter="lr, epochs or clip",
        no_rejection="the clip removes gradients and does not reject steps",
        batch_size="minibatches",
        reuses_batch=True,
    )
)
def ppo(
    task: Task,
    *,
    num_steps: kw.NumSteps = 256,
    passes: kw.Passes = kw.Passes(),
    clip: Annotated[
        float,
        Option(
            "ε of the clipped surrogate; usually 0.1 to 0.3",
            TINY,
            10,
            tune=(0.05, 0.4),
            schedule=True,
            foreign=("clip_range", "clip_coef", "clip_ratio"),
        ),
    ] = 0.2,
    target_kl: Annotated[
        float | None,
        Option(
            "exact mean KL(old ‖ new) above which an update ends early; none: all epochs are run",
            TINY,
            tune=(1e-3, 0.1, "log"),
            schedule=True,
        ),
    ] = None,
    advantage: kw.Advantage = kw.Advantage(),
    ascent: kw.Ascent = kw.Ascent(max_grad_norm=0.5),
    fit: kw.CriticFit = kw.CriticFit(),
    sharing: Sharing = Sharing(),
    remember: SegmentedRecurrence = SegmentedRecurrence(),
) -> Plan:
    """Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017)."""
    from policygrad.algorithms.task import Learner, Plan
    from policygrad.updates import ClippedSurrogate

    task = task.remembering(remember, num_steps)
    policy, critic, terms = task.actor_critic(sharing, advantage.standardize != "no", **fit.values(ascent, passes))
    update = ClippedSurrogate(**ascent.values(task.seed), **vars(passes), clip=clip, target_kl=target_kl, terms=terms)
    return Plan(Learner(policy, advantage.estimator(), update, critic=critic), num_steps=num_steps)


@packaged(
    RecipeSpec(
        "GAE − V",
        "PenalizedSurrogate",
        kl_limit="target_kl",
        steers_kl=True,
        shorter="lr, epochs or target_kl",
        no_rejection="it raises β after a step that is too long",
        batch_size="minibatches",
        reuses_batch=True,
    )
)
def ppo_kl(
    task: Task,
    *,
    num_steps: kw.NumSteps = 256,
    passes: kw.Passes = kw.Passes(),
    beta: Annotated[
        float,
        Option(
            "weight β of the KL penalty; its initial value if target_kl is given",
            TINY,
            1e6,
            tune=(0.01, 10, "log"),
            schedule=True,
        ),
    ] = 1.0,
    target_kl: Annotated[
        float | None,
        Option(
            "exact mean KL(old ‖ new) towards which β is adapted; none: β is not adapted",
            TINY,
            tune=(1e-3, 0.1, "log"),
            schedule=True,
        ),
    ] = 0.01,
    advantage: kw.Advantage = kw.Advantage(),
    ascent: kw.Ascent = kw.Ascent(max_grad_norm=0.5),
    fit: kw.CriticFit = kw.CriticFit(),
    sharing: Sharing = Sharing(),
    remember: SegmentedRecurrence = SegmentedRecurrence(),
) -> Plan:
    """Proximal policy optimisation with a penalty β · KL(old ‖ new) in place of the clip (Schulman et al. 2017, section 4).

    β is steered towards an update's KL of `target_kl`; with `target_kl=None` it stays what it is.
    """
    from policygrad.algorithms.task import Learner, Plan
    from policygrad.updates import PenalizedSurrogate

    task = task.remembering(remember, num_steps)
    policy, critic, terms = task.actor_critic(sharing, advantage.standardize != "no", **fit.values(ascent, passes))
    update = PenalizedSurrogate(**ascent.values(task.seed), **vars(passes), beta=beta, target_kl=target_kl, terms=terms)
    return Plan(Learner(policy, advantage.estimator(), update, critic=critic), num_steps=num_steps)
