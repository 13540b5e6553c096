"""docs/migrating.md knows every alias, and promises none that is not there."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import policygrad as pg
from policygrad.algorithms.config import aliases, parameters, pieces, resolve
from policygrad.algorithms.foreign import ANSWERS, answer
from policygrad.algorithms.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text("utf8")
ROW = re.compile(r"^\| (.+?) \| (.*?) \|", re.MULTILINE)
UNDERSTOOD = PAGE.partition("<!-- names that are understood")[2].partition("<!-- end of")[0]
NAME = re.compile(r"`(\w+)`")
EVERY = {name for algo in RECIPES for name in parameters(algo)} | {"seed"}


def pairs() -> list[tuple[str, str]]:
    """(their name, ours) of all names that are understood; one of ours may stand for several of theirs."""
    return [(name, ours.strip("`")) for theirs, ours in ROW.findall(UNDERSTOOD) for name in NAME.findall(theirs)]


def test_the_tables_are_made_of_the_code_as_it_is(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    pages = importlib.import_module("pages")
    for page in pages.pages():
        assert page.read_text("utf8") == pages.written(page)


def test_every_alias_is_on_the_page_with_the_name_it_stands_for():
    every = {pair for algo in RECIPES for pair in aliases(algo).items()}
    assert len(every) > 20
    assert every <= set(pairs())


def test_every_name_that_the_page_calls_understood_is():
    assert {("batch_size", "minibatches"), ("batch_size", "critic_minibatches")} <= set(pairs())
    for theirs, ours in pairs():
        meanings = {aliases(algo).get(theirs, theirs) for algo in RECIPES}
        assert theirs == "batch_size" or ours in meanings
        assert ours in EVERY


OF_FUNCTIONS = {  # keywords of Agent, learn, evaluate and callbacks
    *(
        "auxiliary",
        "backend",
        "body",
        "callback",
        "device",
        "entity",
        "env",
        "every",
        "greedy",
        "log_every",
        "name",
        "progress_bar",
    ),
    *("project", "tags", "wrappers"),
}


def test_every_name_of_ours_in_the_tables_of_hyperparameters_and_in_answers_is_one():
    table = PAGE.partition("### Hyperparameters")[2].partition("### Around")[0]
    ours = {word for _, column in ROW.findall(table) for word in re.findall(r"\b([a-z_]+)=", column)}
    assert len(ours) > 5
    for said in (said if isinstance(said, str) else said[0] for said in ANSWERS.values()):
        ours |= set(re.findall(r"\b([a-z_]+)=", said))
        ours |= set(re.findall(r"\b(?:use|see|have|is) ([a-z]+_[a-z_]+)\b", said))
    assert len(ours) > 30
    assert ours - EVERY - OF_FUNCTIONS == set()


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_aliases_of_the_page_reach_the_configuration(theirs, ours):
    if ours == "seed":
        return
    special = {"standardize": (False, "no"), "shrink": (0.5, 0.5), "learn_alpha": (False, False)}
    value, expected = special.get(ours, (1, 1))
    given, counts = {}, theirs == "batch_size" != ours
    if counts:
        given, value, expected = {"num_envs": 8, "num_steps": 128}, 256, 4
    means = pieces if counts else lambda algo: aliases(algo).get(theirs, theirs)
    algo = next(algo for algo in ("ppo", *RECIPES) if means(algo) == ours and ours in parameters(algo))
    given |= {"memory": "gru"} if ours == "memory_size" else {}  # without a memory it is refused
    config, _ = resolve(algo, "", given | {theirs: value})
    assert config[ours] == expected


def test_every_name_that_has_to_be_changed_is_answered_in_an_error():
    """In the tables of hyperparameters; a line of Spinning Up's is of functions and of the shell."""
    rest = PAGE.partition("### Hyperparameters")[2].partition("### Around")[0]
    rest += PAGE.partition("## From CleanRL")[2].partition("## What is different")[0]
    rows = [(theirs, line) for line in rest.splitlines() if (m := ROW.match(line)) and (theirs := m[1]) != "---"]
    words = {re.split(r"[=(]", word)[0] for theirs, line in rows for word in re.findall(r"`(\w[^`]*)`", theirs)}
    words -= EVERY | {word for algo in RECIPES for word in aliases(algo)} | NO_KEYWORDS
    assert {"vf_coef", "use_sde", "policy_kwargs", "device", "anneal_lr", "ac_kwargs"} <= words
    assert words - set(ANSWERS) == set()


CLEANRL = (
    "exp_name seed torch_deterministic cuda track wandb_project_name wandb_entity capture_video save_model upload_model"
)
CLEANRL += " hf_entity env_id total_timesteps num_envs buffer_size gamma tau batch_size learning_starts "
SPINNING_UP = (
    "env_fn actor_critic ac_kwargs seed steps_per_epoch epochs replay_size gamma polyak batch_size start_steps"
)
SPINNING_UP += " update_after update_every num_test_episodes max_ep_len logger_kwargs save_freq "
DETERMINISTIC = CLEANRL + "learning_rate exploration_noise policy_frequency noise_clip "
OTHERS = {  # every flag of CleanRL's dqn.py, ddpg_continuous_action.py, …; every argument of Spinning Up's functions
    "dqn": [CLEANRL + "learning_rate target_network_frequency start_e end_e exploration_fraction train_frequency"],
    "ddpg": [DETERMINISTIC, SPINNING_UP + "pi_lr q_lr act_noise"],
    "td3": [DETERMINISTIC + "policy_noise", SPINNING_UP + "pi_lr q_lr act_noise target_noise noise_clip policy_delay"],
    "sac": [
        CLEANRL + "policy_lr q_lr policy_frequency target_network_frequency alpha autotune",
        SPINNING_UP + "lr alpha",
    ],
}


@pytest.mark.parametrize("algo", OTHERS)
def test_every_word_of_other_libraries_is_a_keyword_an_alias_or_answered(algo):
    sb3 = pytest.importorskip("stable_baselines3")
    words = set(inspect.signature(getattr(sb3, algo.upper()).__init__).parameters) - {"self", "_init_setup_model"}
    words |= {word for words in OTHERS[algo] for word in words.split()}
    known = {*parameters(algo), *aliases(algo), "seed"}
    assert len(words & known) > 10
    for word in words - known:
        with pytest.raises(pg.PolicygradError) as error:
            resolve(algo, "", {word: 1})
        assert answer(word) is not None
        assert answer(word) in str(error.value)


@pytest.mark.parametrize(
    ("algo", "theirs", "ours"),
    [
        ("sac", {"gradient_steps": -1}, {"gradient_steps": None}),
        ("sac", {"target_entropy": "auto"}, {"target_entropy": None}),
        ("dqn", {"train_freq": (4, "step")}, {"num_steps": 4}),
        ("dqn", {"n_steps": 3, "learning_starts": 7, "exploration_final_eps": 0.1}, {"n_step": 3, "warmup": 7}),
        ("td3", {"start_steps": 9, "act_noise": 0.2, "learning_rate": 0.5}, {"warmup": 9, "noise": 0.2, "lr": 0.5}),
    ],
)
def test_values_of_other_libraries_mean_what_they_mean_there(algo, theirs, ours):
    config, _ = resolve(algo, "", theirs)
    assert {name: config[name] for name in ours} == ours


@pytest.mark.parametrize(
    ("algo", "given", "words"),
    [
        ("dqn", {"train_freq": (1, "episode")}, ("episode", "num_steps")),
        ("sac", {"ent_coef": "auto"}, ("alpha", "learn_alpha")),
        ("td3", {"polyak": 0.995}, ("tau",)),
        ("dqn", {"tau": 1.0}, ("target_every",)),
        ("sac", {"target_update_interval": 1}, ("tau",)),
        ("td3", {"start_steps": 1, "update_after": 2}, ("contradicts",)),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(algo, given, words):
    with pytest.raises(pg.PolicygradError) as error:
        resolve(algo, "", given)
    assert all(word in str(error.value) for word in words)


NO_KEYWORDS = {
    "vpg_pytorch",
    "ppo_pytorch",
    "trpo",
    '"MlpPolicy"',
    '"CnnPolicy"',
    '"MultiInputPolicy"',
    "python -m spinup.run ppo --env E --exp_name n",
}
