"""Words of other libraries' command lines, and words that nearly mean a command or a list: each with the right one.

Flags of `train` that other libraries have are in `policygrad.algorithms.foreign`, beside the keywords that they stand for.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from policygrad.algorithms.recipes import RECIPES

COMMANDS: Mapping[str, str] = {  # what somebody may type: our command
    **dict.fromkeys(("run", "learn", "fit", "start"), "train"),
    **dict.fromkeys(("continue", "restart", "load"), "resume"),
    **dict.fromkeys(("evaluate", "evaluation", "test", "test_policy", "benchmark", "score"), "eval"),
    **dict.fromkeys(("record", "record_video", "film", "movie", "gif"), "video"),
    **dict.fromkeys(("play", "enjoy", "render", "visualize", "visualise", "view", "demo"), "watch"),
    **dict.fromkeys(("curves", "draw", "graph", "plot_train", "plot_from_file"), "plot"),
    **dict.fromkeys(("versus", "vs", "rliable", "benchmark_algorithms"), "compare"),
    **dict.fromkeys(("optimize", "optimise", "optuna", "hpo", "hyperparameters"), "tune"),
    **dict.fromkeys(("grid", "grid_search", "random_search", "sensitivity", "ablate", "ablation"), "sweep"),
    **dict.fromkeys(("explain", "analyze", "analyse", "info", "show"), "report"),
    **dict.fromkeys(("diagnose", "check", "check_env", "debug", "preflight"), "doctor"),
    **dict.fromkeys(("status", "ps", "jobs", "top", "monitor", "overview", "progress"), "runs"),
    **dict.fromkeys(("upload", "push_to_hub"), "push"),
    **dict.fromkeys(("download", "load_from_hub"), "pull"),
    **dict.fromkeys(("ls", "envs", "environments", "algos", "algorithms", "presets", "policies"), "list"),
    **dict.fromkeys(("dataset", "sample", "rollout"), "collect"),
    **dict.fromkeys(("convert", "onnx", "deploy"), "export"),
    **dict.fromkeys(("audit", "claims", "theory", "steps"), "lab"),
}

LISTS: Mapping[str, str] = {
    **dict.fromkeys(("env", "environment", "environments", "games", "tasks"), "envs"),
    **dict.fromkeys(("algo", "algos", "algorithm", "recipe", "recipes"), "algorithms"),
    **dict.fromkeys(("policy", "model", "models", "agent", "agents", "pretrained"), "policies"),
    **dict.fromkeys(("version", "info", "system_info", "system-info"), "versions"),
    **dict.fromkeys(("preset", "hyperparameters", "hyperparams", "tuned"), "presets"),
    **dict.fromkeys(("metric", "columns", "numbers", "logs", "scalars", "tags"), "metrics"),
}

BOTH = "the greedy and the sampled policy are both evaluated"
NO_WINDOW = "nothing is drawn; `policygrad watch RUN` shows a window, `policygrad video RUN` records a video"
X_AXIS = "the x axis is environment steps"
FLAGS: Mapping[
    str, Mapping[str, str]
] = {  # by command: of RL Zoo's enjoy.py, Spinning Up's test_policy and plot, and CleanRL
    "eval": {
        **dict.fromkeys(("deterministic", "stochastic", "greedy", "sampled"), BOTH),
        **dict.fromkeys(("n_episodes", "n_eval_episodes", "eval_episodes", "n"), "use --episodes N"),
        "n_timesteps": "use --episodes N: whole episodes are played",
        **dict.fromkeys(("norender", "no_render", "render", "render_mode"), NO_WINDOW),
        **dict.fromkeys(("load_best", "load_checkpoint", "load_last_checkpoint", "itr"), "give the model file as RUN"),
        **dict.fromkeys(("folder", "f", "log_dir"), "give the run directory as RUN, or its parent as --runs-root"),
        "algo": "the run knows its algorithm",
        "seed": "evaluations have fixed seeds, so that they can be compared",
    },
    "plot": {
        **dict.fromkeys(("value", "y", "key", "y_axis"), "use --metric COL, e.g. --metric return_mean"),
        **dict.fromkeys(("xaxis", "x", "x_axis"), X_AXIS),
        **dict.fromkeys(("legend", "labels"), "use --by: curves are named by what they differ in"),
        "count": "use --by seed for a curve per seed",
        **dict.fromkeys(("select", "exclude", "exp_folders"), "name the runs, or a directory of runs"),
        **dict.fromkeys(("episode_window", "w"), "use --smooth N, rows of a moving average"),
    },
}
WATCHED = {
    **dict.fromkeys(("deterministic", "greedy"), "the greedy policy plays; --sampled samples its actions"),
    "stochastic": "use --sampled",
    **dict.fromkeys(("n_episodes", "n_eval_episodes", "len", "n"), "use --episodes N: whole episodes are played"),
}


def command_hint(word: str, commands: Mapping[str, tuple[str, str, str]]) -> str:
    """The sentence that names the right command for a word that is none. commands: usage, what it does, module."""
    key = word.lower().replace("-", "_")
    meant = key if key in commands else "train" if key in RECIPES else COMMANDS.get(key)
    if meant is not None:
        usage, what, _ = commands[meant]
        return f"Use `policygrad {usage}`: {what}."
    near = difflib.get_close_matches(key, commands, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Available: {', '.join(commands)}."


def flag_answer(command: str, name: str) -> str | None:
    """What to do instead of a flag that a command other than `train` does not have; None for an unknown one."""
    return (WATCHED if command in ("watch", "video") else FLAGS.get(command, {})).get(name)
