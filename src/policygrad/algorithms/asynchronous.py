"""The recipe of asynchronous advantage actor-critic. Nothing heavy is imported here."""
# ruff: noqa: B008  groups are frozen, so one instance serves all calls

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from policygrad.algorithms import keywords as kw
from policygrad.algorithms.keywords import Option
from policygrad.algorithms.recipe import RecipeSpec
from policygrad.algorithms.registry import packaged

if TYPE_CHECKING:
    from policygrad.algorithms.task import Plan, Task


@packaged(RecipeSpec("GAE − V", "VanillaGradient"))
def a3c(
    task: Task,
    *,
    run: kw.Run = kw.Run(),
    workers: Annotated[
        int,
        Option(
            "workers, each with its share of the environments; never more than there are environments",
            1,
            4096,
            tune=(1, 16, "log"),
        ),
    ] = 2,
    asynchrony: Annotated[
        Literal["simulated", "processes"],
        Option("workers in one process, their order drawn from the seed; or a process each, which race"),
    ] = "simulated",
    num_steps: kw.NumSteps = 16,
    advantage: kw.Advantage = kw.Advantage(lam=1.0, standardize="no"),
    ascent: kw.Ascent = kw.Ascent(lr=7e-4, max_grad_norm=0.5),
    fit: kw.CriticFit = kw.CriticFit(critic_epochs=1, critic_minibatches=1),
) -> Plan:
    """Asynchronous advantage actor-critic (Mnih et al. 2016): workers push gradients that they took at a copy, which is older.

    Where the processes of workers race, a seed does not decide the run.

    What differs from the paper: the optimiser is Adam with shared moments, or SGD, where the paper has RMSProp. Policy and
    critic are two networks, with a push each. A worker may have several environments, and rollouts go on over the ends of
    episodes. The critic's targets are standardised, and gradients are clipped, as in `a2c`. The schedule of the learning rate
    counts the steps of all workers.
    """
    from policygrad.algorithms.crew import CrewSource, PulledLearner
    from policygrad.algorithms.simulated import SimulatedLearner
    from policygrad.algorithms.task import Plan
    from policygrad.updates import VanillaGradient

    critic, update = task.critic(**fit.values(ascent)), VanillaGradient(**ascent.values(task.seed))
    parts, workers = (task.policy(), advantage.estimator(), update), min(workers, run.num_envs)
    if asynchrony == "processes":
        return Plan(
            PulledLearner(*parts, critic=critic), num_steps=num_steps, source=CrewSource(workers), compile_from=None
        )
    learner = SimulatedLearner(*parts, critic=critic, workers=workers, seed=task.seed)
    return Plan(learner, num_steps=num_steps, compile_from=None)
