"""The words of Stable-Baselines3, RL Zoo, CleanRL and Spinning Up: each is understood, or answered; none is misread.

A hint "Did you mean" for a word that another library has would send its users to something else, so there must be none.
"""

from __future__ import annotations

import inspect
from functools import cache

import pytest

import policygrad as pg
from policygrad.algorithms.config import ConfigError, aliases, check, find_recipe, options, parameters, pieces, resolve
from policygrad.algorithms.foreign import ALGORITHMS, ANSWERS, ATTRIBUTES, MODULE, ForeignWordError, answer
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli.arguments import parse_train
from policygrad.cli.values import UsageError

SB3 = """
    policy learning_rate n_steps batch_size n_epochs gae_lambda clip_range clip_range_vf normalize_advantage vf_coef use_sde
    sde_sample_freq rollout_buffer_class rollout_buffer_kwargs stats_window_size tensorboard_log policy_kwargs verbose
    use_rms_prop rms_prop_eps learning_starts train_freq replay_buffer_class replay_buffer_kwargs optimize_memory_usage
    target_update_interval exploration_fraction exploration_initial_eps exploration_final_eps action_noise policy_delay
    target_policy_noise target_noise_clip use_sde_at_warmup cg_max_steps cg_damping line_search_shrinking_factor
    line_search_max_iter n_critic_updates sub_sampling_factor n_envs net_arch activation_fn ortho_init log_std_init full_std
    use_expln squash_output features_extractor_class features_extractor_kwargs share_features_extractor normalize_images
    optimizer_class optimizer_kwargs n_critics shared_lstm enable_critic_lstm env_wrapper vec_env_cls monitor_dir norm_obs
    norm_reward"""
CLEANRL = """exp_name torch_deterministic cuda track wandb_project_name wandb_entity capture_video save_model upload_model
    hf_entity env_id total_timesteps learning_rate num_minibatches update_epochs anneal_lr norm_adv clip_coef clip_vloss
    vf_coef minibatch_size num_iterations policy_lr q_lr learning_starts train_frequency target_network_frequency start_e
    end_e exploration_noise policy_noise noise_clip policy_frequency autotune q_lambda"""
SPINNING_UP = """env_fn actor_critic ac_kwargs steps_per_epoch pi_lr vf_lr clip_ratio train_pi_iters train_v_iters max_ep_len
    logger_kwargs save_freq delta damping_coeff cg_iters backtrack_iters backtrack_coeff replay_size polyak start_steps
    update_after update_every num_test_episodes act_noise target_noise hid l act exp_name num_cpu data_dir datestamp
    hidden_sizes"""
ZOO = """n_timesteps normalize noise_type noise_std frame_stack vec_env_wrapper trained_agent truncate_last_trajectory
    num_threads log_interval eval_freq optimization_log_path n_eval_envs save_replay_buffer log_folder vec_env n_trials
    max_total_trials optimize_hyperparameters no_optim_plots n_jobs sampler pruner n_startup_trials n_evaluations storage
    study_name verbose gym_packages eval_env_kwargs hyperparams conf_file uuid track wandb_tags progress"""
LEARN = "log_interval tb_log_name eval_env eval_freq n_eval_episodes eval_log_path use_masking"
EVALUATE = "n_eval_episodes deterministic render reward_threshold return_episode_rewards warn use_masking"
SHORT = "-tb -i -f -P -tags -params -conf -uuid -optimize"  # of RL Zoo, beside those that are ours
LIBRARIES = {"SB3": SB3, "CleanRL": CLEANRL, "Spinning Up": SPINNING_UP, "RL Zoo": ZOO}
WORDS = sorted({word for text in LIBRARIES.values() for word in text.split()})
ENV = "CartPole-v1"


@cache
def understood(algo: str) -> set[str]:
    return {*parameters(algo), *aliases(algo), "seed"} | ({"batch_size"} if pieces(algo) else set())


def in_python(algo: str, word: str) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(algo, "", {word: 1})
    return str(error.value)


def on_the_command_line(algo: str, flag: str) -> str:
    with pytest.raises(UsageError) as error:
        parse_train([algo, ENV, flag, "1"])
    return str(error.value)


def test_the_list_is_long_and_every_word_is_answered_or_understood_somewhere() -> None:
    assert len(WORDS) > 120
    assert {w for w in WORDS if answer(w) is None and not any(w in understood(algo) for algo in RECIPES)} == set()


@pytest.mark.parametrize("algo", RECIPES)
def test_no_word_of_others_gets_a_hint_of_another_meaning(algo: str) -> None:
    """In Python for every algorithm, and on the command line for four: one that has the word elsewhere is named instead."""
    for word in WORDS:
        if word in understood(algo):
            continue
        owned = any(word in understood(other) for other in RECIPES)
        texts = [in_python(algo, word)]
        if word != "env_id" and algo in ("ppo", "trpo", "dqn", "sac"):  # which is a flag; parsers take their time
            texts.append(on_the_command_line(algo, "--" + word.replace("_", "-")))
        for text in texts:
            assert "Did you mean" not in text, (algo, word, text)
            assert (answer(word) or "") in text or (answer(word, command_line=True) or "") in text
            assert answer(word) is not None or (owned and " has" in text) or "one of" in text, (algo, word, text)


def test_short_flags_of_rl_zoo_are_answered() -> None:
    for flag in SHORT.split():
        text = on_the_command_line("ppo", flag)
        assert "Did you mean" not in text
        assert ": " in text


def test_a_real_slip_still_gets_its_hint() -> None:
    """The negative control: what is no word of anybody is helped as before."""
    assert "Did you mean 'learning_rate'" in in_python("ppo", "learning_rat")
    assert "Did you mean --num-steps" in on_the_command_line("ppo", "--num-step")


@pytest.mark.parametrize(
    ("algo", "theirs", "value", "ours", "expected"),
    [
        ("ppo", "n_timesteps", 1000, "steps", 1000),
        ("ppo", "pi_lr", 0.01, "lr", 0.01),
        ("a2c", "actor_lr", 0.01, "lr", 0.01),
        ("ppo", "clip_ratio", 0.3, "clip", 0.3),
        ("trpo", "delta", 0.02, "max_kl", 0.02),
    ],
)
def test_words_that_mean_a_keyword_are_that_keyword(algo, theirs, value, ours, expected) -> None:
    assert resolve(algo, "", {theirs: value})[0][ours] == expected
    assert parse_train([algo, ENV, "--" + theirs.replace("_", "-"), str(value)]).overrides[ours] == expected


def test_every_keyword_of_stable_baselines3_s_classes_is_in_the_list() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    contrib = pytest.importorskip("sb3_contrib")
    classes = [sb3.PPO, sb3.A2C, sb3.DQN, sb3.SAC, sb3.TD3, sb3.DDPG, contrib.TRPO, contrib.RecurrentPPO]
    words = {word for each in classes for word in inspect.signature(each.__init__).parameters}
    ours = {word for algo in RECIPES for word in understood(algo)}
    assert words - {"self", "_init_setup_model", "env", "device"} - ours - set(ANSWERS) == set()


def test_learn_and_evaluate_answer_theirs() -> None:
    agent = pg.ppo(ENV, num_envs=1, num_steps=8, minibatches=1, hidden=(2,))
    for word in LEARN.split():
        with pytest.raises(ForeignWordError, match=f"learn has no keyword '{word}': "):
            agent.learn(8, **{word: 1})
    for word in EVALUATE.split():
        with pytest.raises(ForeignWordError, match=f"evaluate has no keyword '{word}': "):
            agent.evaluate(1, **{word: 1})
    for word in ATTRIBUTES:
        with pytest.raises(AttributeError, match=f"an Agent has no '{word}': "):
            getattr(agent, word)


def test_algorithms_of_others_are_answered_with_one_that_is_here() -> None:
    for name in ALGORITHMS:
        assert name not in RECIPES
        with pytest.raises(ConfigError, match="there is no algorithm") as error:
            find_recipe(name)
        assert "Did you mean" not in str(error.value)
        assert any(algo in str(error.value).replace("(", " ").split(": ", 1)[1] for algo in RECIPES)
    for typed in ("PPO2", "RecurrentPPO", "vpg", "Rainbow"):
        with pytest.raises(UsageError if typed == "" else pg.PolicygradError, match="there is no algorithm"):
            parse_train([typed, ENV])
        with pytest.raises(AttributeError, match=r"no attribute '\w+': use|no attribute '\w+': the vanilla"):
            getattr(pg, typed)
    for name in MODULE:
        with pytest.raises(AttributeError, match=f"no attribute '{name}': "):
            getattr(pg, name)


def test_answers_name_keywords_that_exist() -> None:
    """`use lr`, `see critic_lr`: what an answer recommends is a keyword of some recipe, or of the Agent."""
    keywords = {name for algo in RECIPES for name in parameters(algo)} | set(inspect.signature(pg.Agent).parameters)
    assert {"lr_schedule", "noise_autocorrelation", "twin", "normalize_obs"} <= keywords
    python = [text if isinstance(text, str) else text[0] for text in ANSWERS.values()]
    named = {word.split("=")[0] for text in python for word in text.replace(",", " ").split() if "=" in word}
    others = {"callback", "entity", "tags", "project", "every", "env", "greedy", "episodes", "progress_bar"}
    named = {word.rpartition("(")[2] for word in named}
    assert named - keywords - others - {"optimizer"} == set()
    assert check("clip", float, 0.2, options("ppo")["clip"]) == 0.2
