"""Loading agents from files. Nothing in a file is executed, and a file cannot make the library import a module."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from policygrad.algorithms import foreign
from policygrad.algorithms.config import Algo, ConfigError, changed, find_recipe
from policygrad.algorithms.devices import device_for
from policygrad.algorithms.recipe import current_keywords
from policygrad.envs.advice import AdviceWarning
from policygrad.envs.collector import WHERE
from policygrad.envs.envpool import TESTED, installed
from policygrad.envs.make import BACKENDS, why_not_compiled
from policygrad.envs.single import EnvLike, Wrapper, check_env_id
from policygrad.envs.torch_envs import why_not_torch
from policygrad.errors import EnvError
from policygrad.forms import LARGEST, FormError, anything, each, flag, maybe, number, setting, table, text, whole
from policygrad.models.ascent import Gain
from policygrad.models.kernels import KERNELS
from policygrad.models.policy import Body
from policygrad.replay import ReplayBuffer
from policygrad.stored.blocks import fill
from policygrad.stored.found import located
from policygrad.stored.sources import same_source
from policygrad.stored.storage import Announced, ModelFileError, StateFile, open_state
from policygrad.stored.trajectories import Trajectories
from policygrad.training.agent import Agent
from policygrad.training.shares import place
from policygrad.training.whole import part_of

MAX_ROWS = 2**28  # steps of an iteration that a file may ask for

MOST_OF_A_CRITIC = 2**22  # parameters that a file without a critic may ask for

WIDTHS = each(whole(1), 100)
HIDDEN = table({"hidden": WIDTHS}, optional={"critic_hidden": maybe(WIDTHS)}, others=anything)
META = table(
    {
        "algo": text(1000),
        "env": text(1000),
        "seed": whole(0, 2**63 - 1),
        "config": table({}, others=setting),
        "custom": flag,
        "kernel": text(choices=KERNELS),
        "observation_space": anything,
        "action_space": anything,
    },
    optional={  # files of 0.4 have none of these
        "auxiliary": flag,
        "parts": table({}, others=text()),
        "backend": text(choices=BACKENDS),
        "device": text(100),
        "env_kwargs": maybe(table({}, others=anything)),
        "wrappers": each(text(1000), 100),
        "return_range": each(number(-LARGEST, LARGEST), 2, least=2),
    },
)


def same_recipe(one: str, other: str) -> bool:
    """Whether two names can mean the same recipe: the module may have moved, but the function has the same name."""
    return (":" in one) == (":" in other) and one.rpartition(":")[2] == other.rpartition(":")[2]


def load(
    path: str | Path,
    env: EnvLike | None = None,
    body: Body | None = None,
    critic_body: Body | None = None,
    dataset: Trajectories | str | Path | None = None,
    recipe: Algo | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    backend: str | None = None,
    device: str | None = None,
    auxiliary: Gain | None = None,
    parts: Mapping[str, Any] | None = None,
    runs_root: str | Path = "runs",
    **overrides: Any,
) -> Agent:
    """An agent to act with and to learn on from. Nothing in a file is executed.

    path: a file of `Agent.save` or `Agent.save_policy`, a run directory, the beginning of a run's name or "latest" (under
    runs_root), or "pretrained:NAME", see `policygrad list policies`. Of a run it is the last checkpoint, if that is of the same
    step as the run's policy: with critic, optimisers and counters. A file of the policy alone is enough to act. Its agent has
    no trained critic: `value` raises an error until it has learned, and `learn` warns that critic and optimisers begin anew.
    env: needed when the agent was not made from an environment id. wrappers: needed when it had some; env_kwargs: those of the
    file, for the environment of the file. recipe: needed when it was made by one from outside the package, whose module a
    file may not import. body, critic_body: needed when it had its own. auxiliary: needed when it had one, and the file is one
    to learn on from. parts: needed when parts of its learner were set, as {"update": MyRule(3e-4)} for `agent.learner.update`.
    dataset: to learn on from stored trajectories. backend:
    who steps the environments, see `make_envs`; without it Gymnasium in this process, unless it was another of these.
    device: where it is to be, by default where it was, or on the CPU where there is no such device.
    Hyperparameters given here, as in `load(path, lr=1e-4)`, take the place of the file's.
    Raises ModelFileError for what is no model, ConfigError for hyperparameters that cannot change any more.
    """
    if words := foreign.LOADING.keys() & overrides.keys():
        foreign.refuse_keyword("load", dict.fromkeys(sorted(words)))
    given = env, body, critic_body, dataset, recipe, env_kwargs, wrappers, backend, device, auxiliary, parts
    policy, whole = (located(path, runs_root, whole) for whole in (False, True))
    if whole != policy and (auxiliary is not None or not _had_gain(policy)):
        try:
            return _loaded(whole, *given, **overrides)
        except ModelFileError as error:  # such as a critic_body that was not given
            warnings.warn(f"{error}: the policy alone is loaded, without its critic", stacklevel=2)
    return _loaded(policy, *given, **overrides)


def _had_gain(policy: Path) -> bool:
    """Whether the agent of a file needs an auxiliary gain to learn on from, which it does not need to act."""
    with open_state(policy) as file:
        return isinstance(file.meta, dict) and bool(file.meta.get("auxiliary"))


def _loaded(
    path: Path,
    env: EnvLike | None,
    body: Body | None,
    critic_body: Body | None,
    dataset: Trajectories | str | Path | None,
    recipe: Algo | None,
    env_kwargs: Mapping[str, object] | None,
    wrappers: Sequence[Wrapper] | None,
    backend: str | None,
    device: str | None,
    auxiliary: Gain | None,
    parts: Mapping[str, Any] | None,
    **overrides: Any,
) -> Agent:
    """The agent of a model file. Everything as for `load`."""
    own = any(x is not None for x in (env, env_kwargs, wrappers))
    own_body = any(x is not None for x in (body, critic_body))
    with open_state(path) as file:
        meta = file.meta
        with as_model_error(path, own):
            META("description", meta)
            _check_given(path, meta, recipe, (body, critic_body), auxiliary, "collector" not in file.tree)
            _check_parts(path, meta, parts or {}, "collector" not in file.tree)
            env_kwargs, wrappers = _words(path, meta, env, env_kwargs, wrappers)
            env = _environment(path, meta["env"]) if env is None else env
            check_sizes(path, meta, file.tensors)
            algo = meta["algo"] if recipe is None else recipe
            config = _config(meta, env, algo)
        device = device_for(device, meta.get("device"))
        config = changed(algo, config, overrides) if overrides else config
        backend = backend or _backend(None if env_kwargs or wrappers else env, meta.get("backend"))
        given = {"env_kwargs": env_kwargs, "wrappers": wrappers, "body": body, "critic_body": critic_body}
        given |= {"auxiliary": auxiliary, "dataset": dataset, "device": device, "backend": backend}
        with as_model_error(path, own or own_body, told=not own and bool(env_kwargs)):
            agent = Agent(algo, env, seed=meta["seed"], kernel=meta["kernel"], **given, **config)
            agent.put(parts or {})
            agent.widen(meta.get("return_range", ()))
            _check_spaces(path, meta, agent.metadata())
        with as_model_error(path, own_env=False, own_body=own_body):
            _restore(agent, file, path)
    return agent


def _config(meta: Mapping[str, Any], env: EnvLike, algo: Algo) -> dict[str, Any]:
    """The configuration of a file, by today's keywords and with the defaults of newer ones, for an environment."""
    # a file that does not say what pictures go through is older than the choice: through an MLP
    config: dict[str, Any] = {"network": "mlp"} | current_keywords(meta["algo"], meta["config"])
    config |= {"num_envs": getattr(env, "num_envs", 1)} if isinstance(env, gym.Env | VectorEnv) else {}
    return changed(algo, config, {})


def _backend(env: EnvLike | None, said: str | None) -> str:
    """Who steps the environment by default: EnvPool or compiled code, where the file says so and it can."""
    if isinstance(env, VectorEnv):
        return "auto"
    if said == "compiled" and env is not None and why_not_compiled(env) is None:
        return said
    if said == "torch" and env is not None and why_not_torch(env) is None:
        return said
    return "envpool" if said == "envpool" and env in TESTED and installed() else "gymnasium"


def _restore(agent: Agent, file: StateFile, path: Path) -> None:
    """Give the agent what the file holds, and the replay buffer what a run keeps of it beside its checkpoints. Where other
    environments were is nothing to these, which begin anew.
    """
    number = file.meta["config"].get("num_envs")
    state = file.state(agent.state_form("collector" not in file.tree, number))
    whole = agent.config["num_envs"]
    if number != whole and "collector" in state:
        gone = {"envs", "env_seeds", *WHERE}
        state["collector"] = {name: x for name, x in state["collector"].items() if name not in gone}
    agent.load_state_dict(part_of(state, agent.ranks, whole))
    buffer = getattr(agent.learner, "replay", None)
    if isinstance(buffer, ReplayBuffer) and buffer.apart:
        run = state.get("run")
        envs = (*place(agent.ranks, whole), whole)
        fill(buffer, run.get("replay") if isinstance(run, dict) else None, path, envs)


def _check_spaces(path: Path, meta: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Refuse an environment of other spaces than the file's."""
    for name in ("observation_space", "action_space"):
        if said[name] != meta[name]:
            where, before, now = _differing(name, meta[name], said[name])
            raise ValueError(
                f"{path} was trained with another {name}: {where} was {before!s:.300}, and the environment's is {now!s:.300}"
            )


def _differing(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """What first differs between two described spaces: its name, and both."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        one, other = ("missing" if x is None else x.get("type") for x in (before, now))
        return name, one, other
    word = next(word for word in ("type", *now) if before.get(word) != now.get(word))
    if word != "spaces" or not isinstance(before[word], list):
        return f"the {word} of {name}", before.get(word), now.get(word)
    old, new = (dict(x[word] if x["type"] == "Dict" else enumerate(x[word])) for x in (before, now))
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            return _differing(f"{name}[{key!r}]", old.get(key), new.get(key))
    return f"the order of the parts of {name}", list(old), list(new)


def check_sizes(path: Path, meta: Mapping[str, Any], tensors: Mapping[str, Announced]) -> None:
    """Refuse a description with networks that are larger than the file, or with more steps than fit into memory."""
    config = meta["config"]
    if not (meta["custom"] or ":" in meta["algo"]):  # one's own network need not have these widths
        HIDDEN("description/config", config)
        shapes = {x.shape for x in tensors.values()}
        layers, of_critic = _layers(config["hidden"]), _layers(config.get("critic_hidden") or ())
        if not shapes.issuperset(layers):
            raise ModelFileError(f"{path} says hidden = {config['hidden']}, but its weights have other sizes")
        small = sum(map(math.prod, of_critic)) <= MOST_OF_A_CRITIC  # a file may hold the policy alone
        if not (small or (shapes | {shape[1:] for shape in shapes}).issuperset(of_critic)):  # critics may be a stack
            raise ModelFileError(f"{path} says critic_hidden = {config['critic_hidden']}, but has no such weights")
    rows = math.prod(x for x in (config.get("num_envs"), config.get("num_steps")) if isinstance(x, int))
    if rows > MAX_ROWS:
        raise ModelFileError(
            f"{path} asks for {rows:,} steps per iteration, more than the {MAX_ROWS:,} a file may ask for"
        )


def _layers(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of the weights between hidden layers, and of the first one's biases."""
    return [(b, a) for a, b in pairwise(widths)] + [(a,) for a in widths[:1]]


def _words(
    path: Path,
    meta: dict[str, Any],
    env: EnvLike | None,
    env_kwargs: Mapping[str, object] | None,
    wrappers: Sequence[Wrapper] | None,
) -> tuple[Mapping[str, object] | None, Sequence[Wrapper] | None]:
    """The keywords and wrappers of the environment: those given, or those of the file if the environment is the file's."""
    if env is not None and not same_source(env, meta["env"]):
        return env_kwargs, wrappers
    if wrappers is None and meta.get("wrappers"):
        raise ValueError(
            f"{path} was trained with the wrappers {', '.join(meta['wrappers'])}, which loading does not import: pass wrappers="
        )
    if env_kwargs is not None:
        return env_kwargs, wrappers
    said = meta.get("env_kwargs", {})
    if said is None:
        raise ValueError(f"{path} was trained with environment keywords that a file cannot hold: pass env_kwargs=")
    return said, wrappers


@contextmanager
def as_model_error(path: Path, own_env: bool, told: bool = False, own_body: bool = False) -> Iterator[None]:
    """Name the file in errors of what it holds; those of the user's own environment stay what they are. Advice was given when
    the agent was made first.

    told: whether the file says what the environment is made with, which may be the reason why it cannot be. own_body: whether
    the user gave a body, of which the weights may not be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdviceWarning)
            yield
    except EnvError as error:
        if told:
            raise ModelFileError(f"{path}: {error}") from error
        raise
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except FormError as error:
        if own_body and ".body." in str(error):
            raise ModelFileError(
                f"the body given does not fit {path}: {error}. Give the module that it was saved with, of the same sizes"
            ) from error
        raise ModelFileError(f"{path} does not hold what it should: {error}") from error
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        if own_env:  # whose own code may raise anything
            raise
        raise ModelFileError(f"{path} does not hold a policygrad agent ({type(error).__name__}: {error})") from error


def _check_given(
    path: Path,
    meta: dict,
    recipe: Algo | None,
    bodies: Sequence[Body | None],
    auxiliary: Gain | None,
    policy_only: bool,
) -> None:
    """Ask for what a file cannot hold."""
    check_recipe(path, meta, recipe)
    check_custom(path, meta, bodies)
    _check_auxiliary(path, meta, auxiliary, policy_only)


def check_recipe(path: Path, meta: dict, recipe: Algo | None) -> None:
    """Refuse another recipe than that of the file, and a file's recipe that the user has not named."""
    if recipe is None and ":" in meta["algo"]:
        raise ValueError(
            f"{path} was trained by the recipe {meta['algo']!r}, which loading does not import: pass recipe=, the function"
        )
    if recipe is not None and not same_recipe(find_recipe(recipe).name, meta["algo"]):
        raise ValueError(f"{path} was trained by the recipe {meta['algo']}, not by {find_recipe(recipe).name}")


def check_custom(path: Path, meta: dict, bodies: Sequence[Body | None]) -> None:
    """Refuse a file of a network of the user's own without one."""
    if meta["custom"] and not any(body is not None for body in bodies):
        raise ValueError(f"{path} was saved with a custom network: pass body= (and critic_body=) as when it was made")


def _check_auxiliary(path: Path, meta: dict, auxiliary: Gain | None, policy_only: bool) -> None:
    """Ask for the auxiliary gain of a file to learn on from; say of a policy that it had one."""
    if not meta.get("auxiliary") or auxiliary is not None:
        return
    said = f"{path} was trained with an auxiliary gain, a function that a file cannot hold: pass auxiliary="
    if not policy_only:
        raise ValueError(said)
    warnings.warn(f"{said} to learn on with it; to act, it is not needed", stacklevel=5)


def _check_parts(path: Path, meta: dict, parts: Mapping[str, Any], policy_only: bool) -> None:
    """Ask for the parts of a learner that were set in place of the recipe's; a file cannot hold them."""
    missing = {name: kind for name, kind in meta.get("parts", {}).items() if name not in parts}
    if not missing:
        return
    said = ", ".join(f"{name} = {kind}" for name, kind in missing.items())
    asked = ", ".join(f"{name!r}: {kind}(…)" for name, kind in missing.items())
    said = f"{path} was trained with parts of its learner set, {said}, which a file cannot hold: pass parts={{{asked}}}"
    if not policy_only:
        raise ValueError(said)
    warnings.warn(f"{said} to learn on with them; to act, they are not needed", stacklevel=5)


def _environment(path: Path, name: str) -> str:
    """The id of the environment, if the file alone is enough to make it."""
    try:
        if ":" in name:
            raise ValueError("a file may not name a module to import")
        return check_env_id(name)
    except ValueError as error:
        raise ValueError(
            f"{path} was trained on {name!r}, which cannot be made from the file alone: pass env="
        ) from error
