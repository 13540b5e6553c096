"""The recipes as functions that make an Agent, `pg.ppo("CartPole-v1", lr=1e-3)`, with a complete signature and help."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, NoReturn

from policygrad.algorithms.config import options, parameters
from policygrad.algorithms.foreign import ForeignWordError, answer
from policygrad.algorithms.recipe import Recipe
from policygrad.training.agent import Agent

SB3_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")

KEYWORDS = {  # the Agent's own, which every recipe has
    "env": "a Gymnasium id, a class or function that makes an environment, an environment, or a vector environment",
    "seed": "random seed of networks, environments and actions",
    "preset": "hyperparameters in place of the environment's tuned ones: another environment's name, a TOML file, or a "
    "mapping; {} takes the defaults",
    "name": "what run directories and pictures call the environment",
    "env_kwargs": "keywords that the environment is made with, in training, evaluations and videos",
    "wrappers": "wrappers around the environment, the innermost first: functions environment → environment, or module:name",
    "body": "a torch module, or a function observation space → module, in place of the policy's hidden layers",
    "critic_body": "the same for the critic",
    "auxiliary": "a function (policy, batch) → scalar that is ascended besides",
    "kernel": "how derivatives of networks are computed: auto, autograd, closed_form or compiled",
    "device": "device on which the networks are and learn: cpu, cuda, cuda:1, or auto",
    "backend": "implementation that steps the environments: auto, gymnasium, compiled, split, async, envpool or torch",
    "fisher_eigenvalues": "number of largest Fisher eigenvalues in every row of metrics",
    "gradient_meter": "measure signal and noise of the gradient for every second row of metrics",
    "dataset": "stored trajectories to learn from instead of playing: Trajectories, a path, or minari:NAME",
}


def as_function(recipe: Recipe) -> Callable[..., Agent]:
    """The recipe as a function of an environment; its keywords are the Agent's and the recipe's."""

    def make(*given: Any, **keywords: Any) -> Agent:
        envs = [*given, *([keywords.pop("env")] if "env" in keywords else [])]
        policy = any(isinstance(env, str) and env in SB3_POLICIES for env in envs)
        if len(envs) != 1 or policy:
            text = f"{recipe.name} takes one environment, and everything else by keyword"
            raise ForeignWordError(f"{text}; {answer('policy')}" if policy else text)
        return Agent(recipe.name, envs[0], **keywords)

    def load(*given: Any, **keywords: Any) -> NoReturn:
        raise ForeignWordError(
            f"{recipe.name} has no load: use policygrad.load(path), which knows the algorithm of a file"
        )

    function: Any = make
    function.load = load
    function.__module__, function.__name__, function.__qualname__ = "policygrad", recipe.name, recipe.name
    function.__doc__, function.__signature__ = help_of(recipe), signature_of(recipe)
    return function


def signature_of(recipe: Recipe) -> Signature:
    """`env`, the Agent's own keywords, and the recipe's with their types and defaults."""
    _, _, *own = signature(Agent.__init__).parameters.values()
    left_out = set() if recipe.spec.dataset else {"dataset"}  # which the Agent would refuse
    shared = [p for p in own if p.kind is not Parameter.VAR_KEYWORD and p.name not in left_out]
    keywords = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in parameters(recipe).items()
    ]
    return Signature([*shared, *keywords], return_annotation=Agent)


def help_of(recipe: Recipe) -> str:
    """The help text of a recipe: its docstring, and a line or two about each of its keywords."""
    texts = {name: KEYWORDS[name] for name in signature_of(recipe).parameters if name in KEYWORDS}
    texts |= {name: option.help for name, option in options(recipe).items()}
    lines = [line for name, text in texts.items() for line in _described(name, text)]
    about = textwrap.dedent("    " + (recipe.__doc__ or "").strip())
    return "\n".join([about, "", "Returns an `Agent`.", "", *lines])


def _described(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", 112, initial_indent="    ", subsequent_indent="        ")
