"""Keywords are declared once, in groups or in a recipe's signature; anybody's recipe can take the groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_origin

import pytest
from gymnasium import spaces

import policygrad as pg
from policygrad.algorithms.config import ConfigError, aliases, check, find_recipe, options, parameters, resolve
from policygrad.algorithms.keywords import Advantage, Ascent, CriticFit, Network, Rates, Run
from policygrad.algorithms.recipes import RECIPES


@dataclass(frozen=True)
class Heat:
    """A group of one's own."""

    heat: Annotated[int, pg.Option("how hot it is", low=1, high=5, foreign=("temperature",))] = 3
    spice: str = "salt"


def grouped(
    task: pg.Task,
    *,
    num_steps: int = 16,
    run: Run = Run(num_envs=2),  # noqa: B008
    heat: Heat = Heat(spice="pepper"),
    ascent: Ascent = Ascent(lr=0.5),  # noqa: B008
    hidden: tuple[int, ...] = (5,),
) -> pg.Plan:
    """It keeps what it was given."""
    seen.append((num_steps, run, heat, ascent, hidden, task.network))
    learner = pg.Learner(task.policy(), pg.RewardToGo(), pg.VanillaGradient(**ascent.values(task.seed)))
    return pg.Plan(learner, episodes=1)


seen: list[Any] = []


def test_a_groups_fields_are_keywords_and_arrive_in_the_group() -> None:
    made = find_recipe(grouped)
    assert list(made.keywords)[:6] == ["num_steps", "steps", "num_envs", "heat", "spice", "optimizer"]
    assert parameters(grouped)["heat"] == (int, 3)
    assert parameters(grouped)["num_envs"] == (int, 2)
    assert aliases(grouped)["temperature"] == "heat"
    assert options(grouped)["hidden"].help.startswith("widths")  # said by the package's recipes
    agent = pg.Agent(grouped, "CartPole-v1", temperature=4, lr=0.25, activation="relu")
    num_steps, run, heat, ascent, hidden, network = seen[-1]
    assert (num_steps, run.num_envs, heat, hidden) == (16, 2, Heat(4, "pepper"), (5,))
    assert ascent == Ascent(lr=0.25)
    assert network == Network(activation="relu")
    assert agent.learner.update.lr == 0.25
    with pytest.raises(ConfigError, match="heat = 6 must be in"):
        resolve(grouped, "E", {"heat": 6})


def test_a_recipe_with_some_keywords_given_is_one() -> None:
    agent = pg.Agent(partial(grouped, num_steps=32), "CartPole-v1", spice="salt")
    assert (seen[-1][0], seen[-1][2].spice, agent.algo.rpartition(":")[2]) == (32, "salt", "grouped")
    with pytest.raises(ConfigError, match="of grouped its signature is"):
        pg.Agent(partial(grouped, "a task"), "CartPole-v1")  # pyright: ignore[reportArgumentType]


MINE = """
from functools import partial
import policygrad as pg

def needs(task, *, flavour: float):
    raise ValueError(f"flavour {flavour}")

@pg.recipe(pg.RecipeSpec(reuses_batch=True, aliases={"glow": "flavour"}))
def decorated(task, *, flavour: float = 1.0): return needs(task, flavour=flavour)

class Called:
    flavour: float | None = None
    def __call__(self, task, *, flavour: float = 3.0): return needs(task, flavour=flavour)

given, mild, called = partial(needs, flavour=2.0), partial(decorated, flavour=0.1), Called()
"""


@pytest.mark.parametrize(("name", "flavour"), [("given", 2.0), ("mild", 0.1), ("called", 3.0)])
def test_partials_and_objects_are_the_same_recipes_by_name(name: str, flavour: float, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    word = f"{tmp_path / 'mine.py'}:{name}"
    made = find_recipe(word)
    assert (made.name, made.keywords["flavour"].default, parameters(word)["flavour"]) == (
        word,
        flavour,
        (float, flavour),
    )
    for keywords, arrives in ({}, flavour), ({"flavour": 7.0}, 7.0):
        with pytest.raises(ValueError, match=f"flavour {arrives}"):
            pg.Agent(word, "CartPole-v1", **keywords)
    assert (made.spec.reuses_batch, aliases(word).get("glow")) == (
        (True, "flavour") if name == "mild" else (False, None)
    )


def test_a_partial_of_a_recipe_has_known_keywords_only() -> None:
    with pytest.raises(ConfigError, match="may have its keywords only, got 'salt'"):
        find_recipe(partial(pg.recipe()(grouped), salt=1))
    with pytest.raises(ConfigError, match="a partial of ppo is no recipe"):
        find_recipe(partial(find_recipe("ppo"), clip=0.1))
    for given in (pg.ppo, partial(pg.ppo, clip=0.1)):
        with pytest.raises(ConfigError, match=r"policygrad\.ppo makes an agent: as a recipe, give its name, 'ppo'"):
            find_recipe(given)


def test_a_keyword_that_is_there_twice_is_refused() -> None:
    def twice(task: pg.Task, *, lr: float = 0.1, ascent: Ascent = Ascent()) -> Any: ...  # noqa: B008

    with pytest.raises(TypeError, match="lr is declared twice"):
        pg.recipe()(twice)


def test_a_group_that_was_not_made_is_refused() -> None:
    def forgotten(task: pg.Task, *, ascent: Any = Ascent) -> Any: ...

    with pytest.raises(ConfigError, match="ascent must be an int"):
        parameters(forgotten)


def test_a_recipe_called_with_what_it_has_not_is_refused() -> None:
    box = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(TypeError, match="clipp"):
        RECIPES["ppo"](pg.Task(box, box), clipp=0.1)


@pytest.mark.parametrize("algo", RECIPES)
def test_every_keyword_says_what_it_is_and_searches_inside_its_bounds(algo: str) -> None:
    said, words = options(algo), list[str]()
    for name, (kind, default) in parameters(algo).items():
        option = said[name]
        assert option.help
        assert not option.help.endswith(".")
        words += option.foreign
        if option.tune is not None:
            low, high, *scale = option.tune
            assert scale in ([], ["log"])
            assert 0 < low < high if scale else low < high
            assert [check(name, kind, value, option) for value in (low, high)] == [low, high]
        if option.schedule:
            assert "float" in str(kind)
        if get_origin(kind) is None and isinstance(default, float):
            assert option.tune or name in ("baseline_value", "min_ess"), name
    assert len(words) == len(set(words))
    assert not set(words) & set(said) - {"target_kl"}


def test_a_critic_follows_the_policy_in_what_it_is_not_told() -> None:
    fit, ascent = CriticFit(critic_epochs=3), Ascent(lr=0.5, max_grad_norm=2.0, lr_schedule="linear")
    assert fit.values(ascent) == {
        "lr": 0.5,
        "lr_schedule": "linear",
        "epochs": 3,
        "minibatches": 1,
        "max_grad_norm": 2.0,
        "hidden": None,
    }
    with pytest.raises(ValueError, match=r"critic_lr = none .* lr is none: set critic_lr"):
        fit.values(Rates(None, "constant", None))
    with pytest.raises(ValueError, match="set critic_lr"):
        pg.trpo("CartPole-v1", critic_lr=None)


def test_groups_build_what_they_name() -> None:
    estimator = Advantage(gamma=0.5, lam=0.25, state_discount=True).estimator()
    assert estimator == pg.Standardized(pg.StateDiscounted(pg.GAE(0.5, 0.25)))
    assert Advantage(gamma=0.5, lam=0.25, standardize="no").estimator() == pg.GAE(0.5, 0.25)
