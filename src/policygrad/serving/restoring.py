"""The policy of a model file in torch, without environments: the recipe makes its networks for the spaces of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces

from policygrad.algorithms.config import Algo, changed, find_recipe
from policygrad.algorithms.recipe import current_keywords
from policygrad.algorithms.task import Plan, Task
from policygrad.forms import FormError, anything, form_of, table
from policygrad.models.policy import Body, Policy
from policygrad.serving.described import space_form, width_of
from policygrad.stored.storage import open_state, space_from_json, space_to_json
from policygrad.training.loading import META, as_model_error, check_custom, check_recipe, check_sizes
from policygrad.training.threads import single_thread

MOST = 10**7  # numbers of an observation or an action


def restore(
    path: Path, body: Body | None = None, recipe: Algo | None = None
) -> tuple[Policy, tuple[spaces.Space, spaces.Space], dict[str, Any]]:
    """The policy of a model file, its observation and its action space, and the file's description.

    body: the network of the user's own that it was trained with; recipe: the recipe of the user's own. Raises ModelFileError
    for what is no model, ValueError where body or recipe is missing.
    """
    with open_state(path) as file:
        meta = file.meta
        with as_model_error(path, own_env=body is not None or recipe is not None):
            META("description", meta)
            check_recipe(path, meta, recipe)
            check_custom(path, meta, (body, None))
            check_sizes(path, meta, file.tensors)
            observed, acted = (space_of(meta, name) for name in ("observation_space", "action_space"))
            found = find_recipe(meta["algo"] if recipe is None else recipe)
            config = changed(found, current_keywords(meta["algo"], meta["config"]), {})
            with single_thread():
                task = Task(observed, acted, meta["seed"], body, None, meta["kernel"])
                plan: Plan = found(task, **{name: value for name, value in config.items() if name != "steps"})
            policy = plan.learner.policy
        with as_model_error(path, own_env=False, own_body=body is not None):
            learner = table({"policy": form_of(policy)}, others=anything)
            state = file.state(table({"learner": learner}, others=anything))
            policy.load_state_dict(state["learner"]["policy"])
    return policy, (observed, acted), meta


def space_of(meta: Mapping[str, Any], name: str) -> spaces.Space:
    """A space of a file's description, with its bounds. Raises FormError for what is none."""
    description = meta[name]
    space_form(f"description/{name}", description)
    if width_of(description, top=False) > MOST:
        raise FormError(f"{name} has {width_of(description):,} numbers, more than the {MOST:,} a file may ask for")
    space = space_from_json(description, MOST, bounds=True)
    if space_to_json(space) != description:
        raise FormError(f"{name} is not described as it should be")
    return space
