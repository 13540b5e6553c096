"""Sabotages of claims about TRPO's constraint and PPO's penalty."""

from __future__ import annotations

from dataclasses import replace

from policygrad.lab.claims import tools
from policygrad.lab.claims import trust_regions as claims
from policygrad.lab.steps import relations
from policygrad.models.heads import Categorical
from policygrad.updates import PenalizedSurrogate
from sabotages import Sabotage, replaced, times, wrapped
from sabotages.natural import plain_step


def squared(exact_batch):
    """Advantages that are squared."""
    return lambda mdp, pi: replace(batch := exact_batch(mdp, pi), adv=batch.adv.square())


def adaptive(beta, epochs):
    """PPO's penalty with Adam, where plain steps are said."""
    return PenalizedSurrogate(0.3, beta=beta, epochs=epochs, target_kl=None, minibatches=1)


def harder(beta, lr, epochs=100):
    return relations.penalty(1.1 * beta, lr, epochs)


SABOTAGES = [
    Sabotage("taylor-is-enough-for-trpo", plain_step),
    Sabotage("penalty-is-a-soft-constraint", replaced(claims, "penalty", harder)),
    Sabotage("constant-of-kl-can-be-dropped", wrapped(Categorical, "kl_gradient", times(1.1))),
    Sabotage("action-ratios-reweigh-data", wrapped(tools, "exact_batch", squared)),
    Sabotage("ppo-climbs-a-sampled-objective", replaced(claims, "epochs_of", adaptive), slow=True),
]
