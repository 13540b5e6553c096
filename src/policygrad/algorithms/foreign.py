"""Words of Stable-Baselines3, RL Zoo, CleanRL and Spinning Up that do not exist here, each with its replacement.

One table answers keywords in Python and flags on the command line. Words that do mean a keyword are that keyword's
`Option.foreign`. docs/migrating.md has both as tables. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from policygrad.errors import UserError

NETWORK = "the network follows from the spaces, so leave the policy's name out"
BAR = "learn(progress_bar=True) shows a bar, and policygrad.train writes a run with its metrics"
EVENTS = "every run directory holds event files, which `tensorboard --logdir runs` shows"
WIDTHS = ("use hidden=(64, 64)", "use --hidden, e.g. --hidden 64 64")
ACTIVATION = ('use activation="relu"', "use --activation relu")
WANDB = ("use callback=policygrad.WandbCallback(project=…)", "use --wandb PROJECT")
CALLBACK = "use callback=policygrad.EvalCallback(every=…, env=…) in learn"
CHECKPOINTS = "runs keep checkpoints; in Python use callback=policygrad.CheckpointCallback(every=…)"
TUNING = "`policygrad tune ALGO ENV` and pg.tune search for hyperparameters; tuned presets are the default"
SDE = ("use noise_autocorrelation=0.9", "use --noise-autocorrelation 0.9")
ADAM = ('the optimiser is Adam; optimizer="sgd" is the other one', "the optimiser is Adam; see --optimizer")
ZOO = (
    "give hyperparameters as keywords; policygrad.zoo.read(FILE, ENV) reads RL Zoo's YAML",
    "give hyperparameters as flags; --zoo FILE reads RL Zoo's YAML",
)
RECORD = ("use callback=policygrad.VideoCallback(every=…)", "use `policygrad video RUN` after training")
ACT = "use agent.predict(obs), which returns the action and the state of a memory, or None"
RUN_DIR = ("policygrad.train(agent, run_dir) writes a run", "use --run-dir, or --runs-root")

# what to write in Python, or a pair: in Python, and on the command line
ANSWERS: dict[str, str | tuple[str, str]] = {
    # networks
    "policy": f"{NETWORK}; hidden=(64, 64) sets the widths, and body= takes a module of your own",
    **dict.fromkeys(("net_arch", "hidden_sizes", "ac_kwargs", "actor_critic", "hid", "layers"), WIDTHS),
    "l": ("it is the number of hidden layers: hidden=(64, 64) are two of them", "use --hidden, e.g. --hidden 64 64"),
    "policy_kwargs": ('use hidden=(64, 64), activation="relu", log_std=-1 or body=', "use --hidden and --activation"),
    **dict.fromkeys(("activation_fn", "act"), ACTIVATION),
    "log_std_init": ("use log_std", "use --log-std"),
    "squash_output": ('use head="squashed"', "use --head squashed"),
    "ortho_init": "weights always begin orthogonal",
    "share_features_extractor": ("use shared_body=True", "use --shared-body"),
    **dict.fromkeys(("shared_lstm", "enable_critic_lstm"), "policy and critic have a memory each, of the same kind"),
    "n_lstm_layers": "a memory has one layer, whose width is memory_size",
    **dict.fromkeys(
        ("features_extractor_class", "features_extractor_kwargs"),
        "use body=, any module or function of the observation space",
    ),
    "normalize_images": "observations are standardised with normalize_obs; a body of your own may divide by 255",
    **dict.fromkeys(("optimizer_class", "optimizer_kwargs"), ADAM),
    **dict.fromkeys(("use_rms_prop", "rms_prop_eps"), ('use optimizer="adam" or "sgd"', "use --optimizer adam or sgd")),
    **dict.fromkeys(
        ("model", "net", "policy_net", "encoder", "backbone", "feature_extractor"),
        "use body=, any module or function of the observation space; the linear layer to the actions is put after it",
    ),
    **dict.fromkeys(
        ("lstm", "recurrent", "use_lstm", "rnn", "gru"),
        ('use memory="lstm", or memory="gru"', "use --memory lstm or gru"),
    ),
    "n_critics": ("twin=True has two critics, twin=False has one", "--twin has two critics, --no-twin has one"),
    # updates
    **dict.fromkeys(
        ("update", "update_rule", "estimator"),
        "the algorithm's name is the update rule: take another recipe, or compose a policygrad.Learner of estimator and update",
    ),
    **dict.fromkeys(
        ("aux_loss", "auxiliary_loss", "extra_loss", "loss_fn"),
        (
            "use auxiliary=, a function of (policy, batch) whose gain is ascended",
            "a loss of your own is for Python, see auxiliary=",
        ),
    ),
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
    **dict.fromkeys(("use_sde", "sde_sample_freq", "full_std", "use_expln"), SDE),
    "use_sde_at_warmup": "the first steps are uniformly random, see warmup",
    "sub_sampling_factor": "all rows are used",
    "train_pi_iters": ("use epochs, with minibatches=1", "use --epochs, with --minibatches 1"),
    **dict.fromkeys(
        ("pi_lr", "actor_lr", "policy_lr"), ("use lr; trpo and npg have max_kl", "use --lr; trpo and npg have --max-kl")
    ),
    "minibatch_size": ("use batch_size, or minibatches", "use --batch-size, or --minibatches"),
    "steps_per_epoch": ("it is num_envs · num_steps: use num_steps", "it is num_envs · num_steps: use --num-steps"),
    "epochs": "passes over a batch are for ppo and pqn; an iteration is num_envs · num_steps, and steps is the whole training",
    **dict.fromkeys(("num_iterations", "num_updates", "n_iter"), "steps is the whole training, in environment steps"),
    **dict.fromkeys(
        ("rollout_buffer_class", "rollout_buffer_kwargs"), "a rollout is one batch of the on-policy learner"
    ),
    # replay and exploration
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
        ("action_noise", "exploration_noise", "act_noise", "noise_type", "noise_std"),
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
    # the environment
    **dict.fromkeys(
        ("reward_fn", "reward_function", "reward_wrapper"),
        (
            "wrap the environment: gymnasium's TransformReward, or policygrad.ShapedReward, a bonus in training alone",
            "use --wrapper module:name, a wrapper that changes the reward",
        ),
    ),
    **dict.fromkeys(("env_id", "env_name"), "it is the second argument"),
    **dict.fromkeys(("env_fn", "env"), "the environment is the first argument"),
    "env_wrapper": ("use wrappers=[…]", "use --wrapper module:name"),
    "frame_stack": "wrap the environment in gymnasium.wrappers.FrameStackObservation",
    "max_ep_len": "wrap the environment in gymnasium.wrappers.TimeLimit",
    **dict.fromkeys(("norm_obs", "obs_norm"), ("use normalize_obs=True", "use --normalize-obs")),
    "norm_reward": "the critic standardises its targets, and ppo its advantages, so rewards stay what they are",
    "normalize": (
        "use normalize_obs=True; rewards need no scaling, as the critic standardises its targets",
        "use --normalize-obs; rewards need no scaling, as the critic standardises its targets",
    ),
    **dict.fromkeys(
        ("vec_env", "vec_env_cls", "vec_env_class", "vec_env_kwargs", "vec_env_wrapper"),
        ('backend="split" or "async" steps environments in processes', "see --backend: split or async for processes"),
    ),
    **dict.fromkeys(("n_eval_envs", "eval_env_kwargs"), "evaluations play in environments like those of training"),
    "monitor_dir": "every run writes monitor.csv",
    "gym_packages": "name the module with the environment, as in my_package:MyEnv-v0",
    # the machine
    **dict.fromkeys(("device", "cuda"), ('use device="cuda" where the agent is made', "use --device cuda")),
    "torch_deterministic": "equal seeds always give equal results",
    **dict.fromkeys(("num_threads", "num_cpu", "cpu"), "one thread is used, and `backend` says who steps environments"),
    # what is shown and kept
    "verbose": (f"agents print nothing; {BAR}", "a live line is shown; use -q for quiet"),
    **dict.fromkeys(("progress_bar", "progress", "p"), (BAR, "a bar is shown; use -q for quiet")),
    "log_interval": "use log_every, the steps between rows of metrics",
    "stats_window_size": "means are of the last 100 episodes",
    **dict.fromkeys(("track", "wandb_project_name"), WANDB),
    **dict.fromkeys(("wandb_entity", "wandb_tags", "tags"), (f"{WANDB[0]}, with entity= or tags=", WANDB[1])),
    **dict.fromkeys(
        ("tensorboard_log", "tb_log_name", "tb", "tensorboard"), (f"use policygrad.train(agent): {EVENTS}", EVENTS)
    ),
    "capture_video": RECORD,
    "render": "use `policygrad watch RUN` after training",
    "render_mode": "training draws nothing; use `policygrad video RUN` or policygrad.record(agent, path) after training",
    "exp_name": (
        "use name=… where the agent is made; policygrad.train(agent, run_dir) writes a run",
        "use --name NAME, which run directories are called by, or --run-dir DIR for the whole path",
    ),
    **dict.fromkeys(("logger_kwargs", "data_dir", "log_folder", "log_dir", "log_path", "f"), RUN_DIR),
    **dict.fromkeys(("datestamp", "dt", "uuid"), "names of run directories hold seed and time, so no two are the same"),
    **dict.fromkeys(("save_freq", "save_replay_buffer"), CHECKPOINTS),
    "save_model": "every run keeps its policy",
    **dict.fromkeys(("upload_model", "hf_entity"), "use `policygrad push RUN OWNER/NAME` after training"),
    **dict.fromkeys(
        ("load", "load_path", "load_model", "model_path", "checkpoint", "resume_from"),
        (
            "use policygrad.load(run, lr=…), which goes on with what was learned",
            "use `policygrad resume RUN` to continue a run; in Python, pg.load(run, lr=…) learns on with other keywords",
        ),
    ),
    **dict.fromkeys(("trained_agent", "i"), "use `policygrad resume RUN`, or policygrad.load(path)"),
    "truncate_last_trajectory": "a run goes on where it stopped, with its replay buffer, see `policygrad resume`",
    "custom_objects": "give what is to change as keywords, as in load(path, lr=1e-4)",
    # evaluation
    "deterministic": "use greedy=True or greedy=False",
    "n_eval_episodes": ("use episodes=", "use --eval-episodes"),
    "num_test_episodes": ("use agent.evaluate(episodes=10)", "use --eval-episodes"),
    **dict.fromkeys(("eval_env", "eval_freq", "eval_log_path", "n_evaluations"), CALLBACK),
    **dict.fromkeys(("return_episode_rewards", "reward_threshold"), "an Evaluation has returns, lengths and mean"),
    "warn": "episodes are counted by this package, whatever the environment is wrapped in",
    "use_masking": "action masks are used wherever there are any, see mask_source",
    # RL Zoo's files and its search
    **dict.fromkeys(("hyperparams", "params", "conf", "conf_file", "config_file", "yaml_file"), ZOO),
    **dict.fromkeys(("n_trials", "max_total_trials", "n_startup_trials", "sampler", "pruner"), TUNING),
    **dict.fromkeys(("optimize", "optimize_hyperparameters", "optimization_log_path", "optim_plots"), TUNING),
    "no_optim_plots": TUNING,
    **dict.fromkeys(("storage", "study_name"), TUNING),
    "n_jobs": ("policygrad.training.seeds trains several seeds", "--seed 0 1 2 3 trains several seeds, --jobs at once"),
}

LEAVE = "leave it out"
SWITCHED_OFF: dict[str, str | tuple[str, str]] = {  # where the same word with the value False has another answer
    "anneal_lr": ('use lr_schedule="constant"', "use --lr-schedule constant"),
    "norm_adv": ('use standardize="no"', "use --standardize no"),
    **dict.fromkeys(("norm_obs", "obs_norm", "normalize"), ("use normalize_obs=False", "use --no-normalize-obs")),
    **dict.fromkeys(("cuda", "device"), ('use device="cpu", the default', "use --device cpu, the default")),
    **dict.fromkeys(("use_sde", "use_sde_at_warmup"), f"{LEAVE}: noise_autocorrelation is 0 unless you set it"),
    **dict.fromkeys(("track", "wandb_project_name"), f"{LEAVE}: rows are sent to a tracker only if you name one"),
    **dict.fromkeys(("capture_video", "render"), f"{LEAVE}: nothing is drawn during training"),
    "upload_model": f"{LEAVE}: runs are uploaded only by `policygrad push`",
    "share_features_extractor": f"{LEAVE}: policy and values have a network each unless shared_body is true",
    "squash_output": ('use head="gaussian"', "use --head gaussian"),
    **dict.fromkeys(("progress_bar", "progress"), (f"{LEAVE}: {BAR}", "use -q for quiet")),
    "save_model": "every run keeps its policy; in Python, agent.learn writes no files",
    **dict.fromkeys(
        ("datestamp", "dt"), "use --run-dir DIR, a directory of your own; others are named by seed and time"
    ),
}

# values of keywords, as others call them, and columns of metrics.jsonl
VALUES: dict[str, dict[str, str]] = {
    "baseline": {
        **dict.fromkeys(("critic", "state-value", "value-function", "critic-value", "vf", "actor-critic"), "value"),
        **dict.fromkeys(("loo", "rloo"), "leave-one-out"),
        **dict.fromkeys(("mean", "average", "moving-average", "ema"), "running-mean"),
        "time": "time-average",
        **dict.fromkeys(("no", "false", "no-baseline", "NoneType"), "none"),
    },
    "returns": {"rtg": "to-go", "reward-to-go": "to-go", **dict.fromkeys(("episode", "full", "total-return"), "total")},
    "head": {
        **dict.fromkeys(("normal", "diag-gaussian", "clipped"), "gaussian"),
        **dict.fromkeys(("tanh", "squashed-gaussian", "tanh-normal"), "squashed"),
    },
    "activation": {"swish": "silu", "leaky-relu": "relu", "elu": "relu", "gelu": "silu"},
    "network": {"cnnpolicy": "cnn", "mlppolicy": "mlp", "conv": "cnn"},
    "solver": {"conjugate-gradients": "cg", "direct": "dense", "exact": "dense"},
    "loss": {**dict.fromkeys(("mse", "l2"), "squared"), "smooth-l1": "huber"},
}
RETURNS = ("return", "returns", "reward", "rewards", "score", "performance", "averageepret", "ep_rew_mean", "ep_reward")
COLUMNS = {
    **dict.fromkeys((*RETURNS, "episodic_return", "episode_reward", "mean_reward", "average_return"), "return_mean"),
    **dict.fromkeys(
        ("length", "ep_len_mean", "eplen", "ep_length", "episodic_length", "episode_length"), "length_mean"
    ),
    **dict.fromkeys(("approx_kl", "mean_kl", "approxkl"), "kl"),
    **dict.fromkeys(("lossv", "vf_loss", "critic_loss", "qf_loss", "v_loss"), "value_loss"),
    **dict.fromkeys(("clipfrac", "clip_frac"), "clip_fraction"),
    **dict.fromkeys(("entropy_loss",), "entropy"),
    **dict.fromkeys(("fps", "sps"), "steps_per_second"),
    **dict.fromkeys(("time", "wall_time", "time_elapsed"), "seconds"),
    **dict.fromkeys(("total_timesteps", "timesteps", "totalenvinteracts", "global_step"), "steps"),
    **dict.fromkeys(("learning_rate",), "lr"),
}


LEARNING: dict[str, str] = {  # where a word has another answer in `learn`
    "progress": "use progress_bar=True",
    "verbose": f"agents print nothing; {BAR}",
    "learning_rate": "use agent.change(lr=…) between two calls of learn",
    "seed": "the seed is given where the agent is made",
    **dict.fromkeys(
        ("episodes", "n_episodes", "num_episodes"),
        "training is counted in environment steps, learn(steps); a callback that returns False ends it, e.g. when "
        "agent.collector.episodes_done is large enough",
    ),
}

CALLBACKS = {  # keywords of Stable-Baselines3's callbacks
    **dict.fromkeys(("eval_freq", "save_freq"), "use every=, in environment steps: theirs times num_envs"),
    "n_eval_episodes": "use episodes=",
    "deterministic": "use greedy=",
    "eval_env": "use env=",
    **dict.fromkeys(("best_model_save_path", "log_path", "save_path"), "use directory=, or none for a run's own"),
    "callback_on_new_best": "use stop_at=, or a callback of your own that looks at `evaluations`",
}

LOADING: dict[str, str] = {  # of Stable-Baselines3's `load`
    "print_system_info": "`policygrad list versions` prints them, and a run's config.json says those that it was trained with",
    "force_reset": "environments always begin anew where an agent is loaded",
    "seed": "the seed is the file's, and generators go on where the file left them",
}

ATTRIBUTES = {  # of Stable-Baselines3's models, and what an Agent has instead
    **dict.fromkeys(
        ("set_env", "get_env", "env_"), "the environments are agent.envs; policygrad.load(path, env=…) takes others"
    ),
    **dict.fromkeys(("get_parameters", "set_parameters"), "use agent.state_dict() and agent.load_state_dict(state)"),
    "ep_info_buffer": "use agent.collector.returns and agent.collector.lengths",
    "load": "use policygrad.load(path)",
    **dict.fromkeys(
        ("save_replay_buffer", "load_replay_buffer"), "save keeps the replay buffer, and policygrad.load brings it back"
    ),
    "replay_buffer": "use agent.learner.replay",
    "rollout_buffer": "a callback of agent.collector.observers is shown every record",
    **dict.fromkeys(("actor", "q_net"), "use agent.policy"),
    "critic": "use agent.value(obs), or agent.learner.critic",
    **dict.fromkeys(
        ("logger", "set_logger"), "rows of metrics come to learn(callback=…), and to a run's metrics.jsonl"
    ),
    "lr_schedule": 'use the keyword lr_schedule="linear", or agent.change(lr_schedule="linear")',
    "learning_rate": 'use agent.config["lr"], and agent.change(lr=…)',
    **dict.fromkeys(("n_envs",), "use agent.envs.num_envs"),
    **dict.fromkeys(("n_steps", "batch_size", "gamma", "ent_coef", "gae_lambda"), "use agent.config"),
    "set_random_seed": "the seed is given where the agent is made",
    "record": "use policygrad.record(agent, path)",
    "plot": "use callback=policygrad.History() in learn, whose plot() draws; policygrad.plot draws runs of policygrad.train",
    **dict.fromkeys(("play", "watch", "render"), "use policygrad.record(agent, path), or agent.evaluate(env=…)"),
    **dict.fromkeys(("train", "fit"), "use agent.learn(steps), or policygrad.train(agent), which writes a run"),
    **dict.fromkeys(("act", "get_action", "select_action", "choose_action", "step", "compute_action"), ACT),
    "get_action_and_value": f"{ACT}, agent.log_prob(obs, act) and agent.value(obs)",
    "get_value": "use agent.value(obs)",
    **dict.fromkeys(
        ("parameters", "named_parameters"), "use agent.policy.parameters(), or agent.policy.flat, all in one vector"
    ),
    **dict.fromkeys(("to", "cuda"), "give device= where the agent is made"),
    **dict.fromkeys(("model", "net", "network"), "use agent.policy.network"),
    "get_vec_normalize_env": "the policy itself standardises observations, see normalize_obs",
}

MASKS = "use ppo: action masks work in every algorithm, see mask_source"
RECURRENT = "use ppo with memory = lstm, or memory = gru"
ALGORITHMS = {  # of other libraries: their names, and what to take here
    **dict.fromkeys(
        ("vpg", "pg"),
        "the vanilla policy gradient is reinforce where a batch is whole episodes, and a2c where it is some steps; "
        "Spinning Up's vpg is a2c with lam = 0.97, standardize = batch and critic_epochs = 80",
    ),
    **dict.fromkeys(("ppo1", "ppo2", "ppo_clip", "ppo_continuous_action", "ppo_atari", "ppo_pytorch"), "use ppo"),
    **dict.fromkeys(("ppo_penalty", "ppo_adaptive_kl"), "use ppo_kl"),
    **dict.fromkeys(("maskableppo", "maskable_ppo", "ppo_mask"), MASKS),
    **dict.fromkeys(("recurrentppo", "recurrent_ppo", "ppo_lstm", "ppo_atari_lstm"), RECURRENT),
    **dict.fromkeys(("acktr", "kfac", "acer"), "use trpo or npg, which follow the natural gradient, too"),
    **dict.fromkeys(("ac", "a2c_pytorch", "sync_a2c"), "use a2c, or actor_critic, which learns after every step"),
    **dict.fromkeys(("ddqn", "double_dqn", "dqn_atari"), "use dqn, which is double unless double = false"),
    **dict.fromkeys(
        ("qrdqn", "qr_dqn", "c51", "rainbow", "iqn", "apex_dqn", "dueling_dqn", "r2d2"),
        "use dqn or pqn: there are no distributional values here",
    ),
    **dict.fromkeys(("tqc", "crossq", "redq", "droq", "sac_continuous_action", "sac_pytorch"), "use sac"),
    **dict.fromkeys(("sac_discrete", "sac_atari", "discrete_sac"), "use ppo or dqn: sac is for Box actions"),
    **dict.fromkeys(("ddpg_continuous_action", "ddpg_pytorch"), "use ddpg"),
    **dict.fromkeys(("td3_continuous_action", "td3_pytorch"), "use td3"),
    "her": "replay is uniform: use sac, td3 or ddpg, or policygrad.ReplayLearner with a rule of your own",
    **dict.fromkeys(("ars", "es", "cma_es"), "use reinforce: searches without a gradient are not here"),
    **dict.fromkeys(("impala", "vtrace", "appo"), "use a3c, or ppo"),
}
MODULE = {  # names that other packages export, and what to write here; see also ALGORITHMS
    "make_vec_env": 'give the id and the number: policygrad.ppo("CartPole-v1", num_envs=8)',
    "evaluate_policy": "use agent.evaluate(episodes=10)",
    **dict.fromkeys(("DummyVecEnv", "SubprocVecEnv"), 'use num_envs=8, with backend="split" for processes'),
    "VecNormalize": "use normalize_obs=True; rewards need no scaling",
    "VecFrameStack": "wrap the environment in gymnasium.wrappers.FrameStackObservation",
    "Monitor": "every run writes monitor.csv",
    "BaseCallback": "a callback is any function of (agent, row), see policygrad.training.callbacks",
    "set_random_seed": "use seed=",
    **dict.fromkeys(
        ("StopTrainingOnRewardThreshold", "StopTrainingOnNoModelImprovement"), "use EvalCallback(stop_at=…)"
    ),
    "StopTrainingOnMaxEpisodes": "use StopAfter(seconds), or a callback that returns False",
    "CallbackList": "give learn and train a list of callbacks",
    "ProgressBarCallback": "use learn(progress_bar=True)",
    "EveryNTimesteps": "use Every(steps, function)",
}


class ForeignWordError(UserError, TypeError):
    """A keyword that a function does not have; for another library's keyword the message names the replacement."""


def answer(word: str, command_line: bool = False, off: bool = False) -> str | None:
    """The replacement of another library's keyword; None for an unknown keyword. off: its value is False."""
    found = SWITCHED_OFF.get(word, ANSWERS.get(word)) if off else ANSWERS.get(word)
    return found[command_line] if isinstance(found, tuple) else found


def module_answer(env: Any) -> str:
    """The hint for a vector environment of Stable-Baselines3 in place of an environment; empty for other things."""
    if not type(env).__module__.startswith(("stable_baselines3.", "sb3_contrib.")):
        return ""
    return ": " + MODULE.get(type(env).__name__, MODULE["make_vec_env"])


def algorithm_answer(name: str) -> str | None:
    """What to take here for the name of another library's algorithm; None for an unknown name."""
    return ALGORITHMS.get(name.lower().replace("-", "_"))


def refuse_keyword(function: str, given: Mapping[str, Any]) -> NoReturn:
    """Raise ForeignWordError, because a function has no such keyword."""
    word, value = next(iter(given.items()))
    own = {"learn": LEARNING, "load": LOADING}.get(function, CALLBACKS if function.endswith("Callback") else {})
    instead = own.get(word) or answer(word, off=value is False)
    raise ForeignWordError(f"{function} has no keyword {word!r}" + (f": {instead}" if instead else ""))
