"""Keywords of Stable-Baselines3, CleanRL and Spinning Up that do not exist here, each with its replacement.

Words that do mean a keyword are that keyword's `Option.foreign`. docs/migrating.md says the same in its tables. Nothing heavy
is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from policygrad.errors import UserError

NETWORK = "the network follows from the spaces, so leave the policy's name out"
BAR = "policygrad.train(agent, progress=policygrad.training.progress.make_progress()) shows a bar"
EVENTS = "every run directory holds event files, which `tensorboard --logdir runs` shows"

# what to write in Python, or a pair: in Python, and on the command line
ANSWERS: dict[str, str | tuple[str, str]] = {
    "policy": f"{NETWORK}; hidden=(64, 64) sets the widths, and body= takes a module of your own",
    "net_arch": ("use hidden=(64, 64)", "use --hidden, e.g. --hidden 64 64"),
    "policy_kwargs": ('use hidden=(64, 64), activation="relu", log_std=-1 or body=', "use --hidden and --activation"),
    "activation_fn": ('use activation="relu"', "use --activation"),
    "features_extractor_class": "use body=, any module or function of the observation space",
    "vf_coef": (
        "actor and critic are separate networks, see critic_lr; with shared_body=True there is value_coef: CleanRL's vf_coef, "
        "or twice that of Stable-Baselines3, whose loss has no ½",
        "actor and critic are separate networks, see --critic-lr; with --shared-body there is --value-coef: CleanRL's vf_coef, "
        "or twice that of Stable-Baselines3, whose loss has no ½",
    ),
    **dict.fromkeys(
        ("shared_body", "value_coef"),
        "actor_critic, a2c, ppo and ppo_kl alone can have one network for policy and values; a natural step moves the policy "
        "alone, and critic_hidden sets the size of a critic's own network",
    ),
    **dict.fromkeys(("clip_vloss", "clip_range_vf"), "the critic's loss is the plain squared error"),
    "anneal_lr": ('use lr_schedule="linear"', "use --lr-schedule linear"),
    "norm_adv": ('use standardize="batch" or standardize="no"', "use --standardize batch, or --standardize no"),
    **dict.fromkeys(
        ("use_sde", "sde_sample_freq"), ("use noise_autocorrelation=0.9", "use --noise-autocorrelation 0.9")
    ),
    **dict.fromkeys(("use_rms_prop", "rms_prop_eps"), ('use optimizer="adam" or "sgd"', "use --optimizer adam or sgd")),
    "sub_sampling_factor": "all rows are used",
    **dict.fromkeys(("device", "cuda"), ('use device="cuda" where the agent is made', "use --device cuda")),
    "torch_deterministic": "equal seeds always give equal results",
    "verbose": (f"agents print nothing, and {BAR}", "use -q for quiet"),
    "progress_bar": (BAR, "use -q for quiet"),
    "log_interval": "use log_every, the steps between rows of metrics",
    "stats_window_size": "means are of the last 100 episodes",
    "reset_num_timesteps": "learn always goes on from the steps already done, with schedules from their start",
    **dict.fromkeys(
        ("track", "wandb", "wandb_project_name", "wandb_entity"),
        "metrics are written to metrics.jsonl in the run directory",
    ),
    **dict.fromkeys(("tensorboard_log", "tb_log_name"), (f"use policygrad.train(agent): {EVENTS}", EVENTS)),
    "capture_video": "use `policygrad video RUN` after training",
    "render": "use `policygrad watch RUN` after training",
    "render_mode": "training draws nothing; use `policygrad video RUN` or policygrad.record(agent, path) after training",
    "deterministic": "use greedy=True or greedy=False",
    "n_eval_episodes": "use episodes=",
    **dict.fromkeys(("eval_env", "eval_freq"), "use callback=policygrad.EvalCallback(every=…, env=…) in learn"),
    "env_id": "it is the second argument",
    **dict.fromkeys(("pi_lr", "actor_lr"), ("use lr", "use --lr")),
    "clip_ratio": ("use clip", "use --clip"),
    "train_pi_iters": ("use epochs, with minibatches=1", "use --epochs, with --minibatches 1"),
    "steps_per_epoch": ("it is num_envs · num_steps: use num_steps", "it is num_envs · num_steps: use --num-steps"),
    "epochs": "passes over a batch are for ppo and pqn; an iteration is num_envs · num_steps, and steps is the whole training",
    "max_ep_len": "wrap the environment in gymnasium.wrappers.TimeLimit",
    **dict.fromkeys(("ac_kwargs", "hidden_sizes"), ("use hidden=(64, 64)", "use --hidden, e.g. --hidden 64 64")),
    "ent_coef": (
        "sac has alpha: alpha=0.2 with learn_alpha=False for a constant weight, alpha=0.1 for 'auto_0.1'",
        "sac has --alpha, with --no-learn-alpha for a constant weight",
    ),
    "tau": "copies of networks follow with tau in ddpg, td3 and sac; in dqn target_every is the steps between whole copies",
    **dict.fromkeys(
        ("target_update_interval", "target_network_frequency"), "copies of networks follow after every step, by tau"
    ),
    **dict.fromkeys(
        ("policy_delay", "policy_frequency"), "the policy moves with every minibatch; ddpg and td3 have delay"
    ),
    "polyak": ("use tau=1 − polyak, e.g. tau=0.005 for 0.995", "use --tau with 1 − polyak, e.g. 0.005 for 0.995"),
    **dict.fromkeys(
        ("action_noise", "exploration_noise", "act_noise"),
        "ddpg and td3 have noise, its standard deviation, and noise_autocorrelation for an Ornstein–Uhlenbeck process; "
        "sac explores by sampling its actions",
    ),
    **dict.fromkeys(
        ("exploration_initial_eps", "start_e"), "the probability of a random action falls from 1 to epsilon"
    ),
    **dict.fromkeys(
        ("replay_buffer_class", "replay_buffer_kwargs"),
        "replay is uniform; policygrad.ReplayLearner takes a rule of your own, see the guide",
    ),
    "optimize_memory_usage": "observations are always stored once",
    "use_sde_at_warmup": "the first steps are uniformly random, see warmup",
    **dict.fromkeys(("env_fn", "env"), "the environment is the first argument"),
    "actor_critic": ("use hidden=(64, 64), or body=", "use --hidden, e.g. --hidden 64 64"),
    "num_test_episodes": ("use agent.evaluate(episodes=10)", "use --eval-episodes"),
    **dict.fromkeys(("logger_kwargs", "exp_name"), ("policygrad.train(agent, run_dir) writes a run", "use --run-dir")),
    "save_freq": "runs keep checkpoints; in Python use callback=policygrad.CheckpointCallback(every=…)",
    "save_model": "every run keeps its policy",
    **dict.fromkeys(("upload_model", "hf_entity"), "nothing is uploaded"),
    "custom_objects": "give what is to change as keywords, as in load(path, lr=1e-4)",
}
ATTRIBUTES = {  # of Stable-Baselines3's models, and what an Agent has instead
    **dict.fromkeys(
        ("set_env", "get_env"), "the environments are agent.envs; policygrad.load(path, env=…) takes others"
    ),
    **dict.fromkeys(("get_parameters", "set_parameters"), "use agent.state_dict() and agent.load_state_dict(state)"),
    "num_timesteps": "use agent.collector.steps_done",
    "ep_info_buffer": "use agent.collector.returns and agent.collector.lengths",
    "load": "use policygrad.load(path)",
    **dict.fromkeys(
        ("save_replay_buffer", "load_replay_buffer"), "save keeps the replay buffer, and policygrad.load brings it back"
    ),
    "replay_buffer": "use agent.learner.replay",
    **dict.fromkeys(("actor", "q_net"), "use agent.policy"),
    **dict.fromkeys(
        ("logger", "set_logger"), "rows of metrics come to learn(callback=…), and to a run's metrics.jsonl"
    ),
    "lr_schedule": 'use the keyword lr_schedule="linear", or agent.change(lr_schedule="linear")',
}


class ForeignWordError(UserError, TypeError):
    """A keyword that a function does not have; for another library's keyword the message names the replacement."""


def answer(word: str, command_line: bool = False) -> str | None:
    """The replacement of another library's keyword; None for an unknown keyword."""
    found = ANSWERS.get(word)
    return found[command_line] if isinstance(found, tuple) else found


def refuse_keyword(function: str, given: Mapping[str, Any]) -> NoReturn:
    """Raise ForeignWordError, because a function has no such keyword."""
    word = next(iter(given))
    instead = answer(word)
    raise ForeignWordError(f"{function} has no keyword {word!r}" + (f": {instead}" if instead else ""))
