"""Runs on the Hugging Face hub: `push` uploads one with a model card that is made from it, `pull` downloads one.

What is uploaded are numbers, JSON and a picture: policy.safetensors, config.json without the command line and the machine,
evaluation.json, metrics.jsonl, learning_curve.png and README.md. What is downloaded are files of these names alone, and loading
them runs no code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policygrad.algorithms.config import show
from policygrad.errors import UserError
from policygrad.files import printable, read_bytes
from policygrad.html import OF_WHAT, interval_text
from policygrad.stored.directory import ROOT, RunDirectory, environment, find_run

FILES = ("policy.safetensors", "config.json", "evaluation.json", "metrics.jsonl", "learning_curve.png")
PRIVATE = ("command", "machine", "files")  # of config.json: paths and processors are nobody's business
MOST = 2**31  # bytes of a file that is uploaded
REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class HubError(UserError, RuntimeError):
    """A run cannot be uploaded to the hub, or there is none to download."""


def push(run: RunDirectory | str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a finished run to the model repository OWNER/NAME, which is made if it is not there. Returns its address.

    The token is the one of `hf auth login`, or of the variable HF_TOKEN. Raises HubError, or RunError for what is no run.
    """
    hub, run = _hub(repo), run if isinstance(run, RunDirectory) else RunDirectory(find_run(str(run)))
    config = {name: value for name, value in run.config().items() if name not in PRIVATE}
    if not run.policy_file.exists():
        raise HubError(f"{run.path} has no policy.safetensors, as its training has not ended: see `policygrad resume`")
    contents = {name: read_bytes(run.path / name, MOST) for name in FILES if (run.path / name).exists()}
    contents["config.json"] = json.dumps(config, indent=2).encode()
    contents["README.md"] = model_card(run, repo).encode()
    with _as_hub_error(f"uploading {run.path} to {repo}"):
        api = hub.HfApi()
        api.create_repo(repo_id=repo, repo_type="model", private=private, exist_ok=True)
        added = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
        message = f"{config['algo']} on {config['env']}, seed {config['seed']}"
        api.create_commit(repo_id=repo, repo_type="model", operations=added, commit_message=message)
    return f"https://huggingface.co/{repo}"


def pull(repo: str, directory: str | Path | None = None, *, revision: str | None = None) -> RunDirectory:
    """Download a run from the model repository OWNER/NAME into a new directory, by default runs/hub/OWNER/NAME.

    revision: a branch, a tag, or a commit. Raises HubError.
    """
    hub, path = _hub(repo), Path(ROOT) / "hub" / repo if directory is None else Path(directory)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise HubError(f"{path} is there already: give another directory, or remove it first")
    with _as_hub_error(f"downloading {repo}"):
        hub.snapshot_download(repo_id=repo, revision=revision, local_dir=str(path), allow_patterns=list(FILES))
    run = RunDirectory(path)
    if not (run.config_file.is_file() and run.policy_file.is_file()):
        raise HubError(f"{repo} holds no run of policygrad: it needs config.json and policy.safetensors")
    run.config()
    return run


def _hub(repo: str) -> Any:
    if not REPO.fullmatch(repo) or ".." in repo:
        raise HubError(f"a repository is OWNER/NAME, got {repo!r}")
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise HubError("huggingface_hub is not installed: pip install 'policygrad[hub]'") from error
    return huggingface_hub


@contextmanager
def _as_hub_error(what: str) -> Iterator[None]:
    """In this context, an error of the hub or of the network becomes a HubError."""
    try:
        yield
    except Exception as error:  # of the hub's code and of the network, of many classes
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise HubError(f"{what} failed: {printable(first.strip())}") from error


def model_card(run: RunDirectory, repo: str) -> str:
    """README.md of a run: what it is, what the final policy reached, how to load it, and every hyperparameter.

    The heading has the tags and the results as the hub's leaderboards read them.
    """
    config, evaluation = run.config(), run.evaluation() or {}
    algo, env = printable(config["algo"]), printable(environment(config))
    head = ["---", "library_name: policygrad", "tags:"]
    head += [f"- {json.dumps(tag)}" for tag in (env, algo, "deep-reinforcement-learning", "reinforcement-learning")]
    head += [*_model_index(algo, env, evaluation), "---", ""]
    version = config.get("versions", {}).get("policygrad", "")
    body = [
        f"# {algo} on {env}",
        "",
        f"A policy trained with [policygrad](https://pypi.org/project/policygrad/) {printable(str(version))}: "
        f"the algorithm `{algo}`, {config['config'].get('steps', 0):,} environment steps, seed {config['seed']}.",
        "The file `policy.safetensors` holds numbers and JSON; loading it runs no code.",
        "",
        *_results(evaluation),
        "## Use",
        "",
        "```bash",
        f"policygrad pull {repo} --out trained",
        "policygrad eval trained",
        "```",
        "",
        "```python",
        "import policygrad as pg",
        "",
        f'agent = pg.load(pg.pull("{repo}").path)',
        "action, _ = agent.predict(obs, deterministic=True)",
        "```",
        "",
        "## Hyperparameters",
        "",
        "| name | value |",
        "|---|---|",
        *(f"| {name} | {_cell(show(value))} |" for name, value in config["config"].items()),
    ]
    return "\n".join([*head, *body]) + "\n"


def _model_index(algo: str, env: str, evaluation: dict[str, Any]) -> list[str]:
    """The mean return with its standard deviation, as other libraries on the hub write it: JSON, which is YAML, too."""
    if "greedy" not in evaluation:
        return []
    greedy = evaluation["greedy"]
    metric = {
        "type": "mean_reward",
        "value": f"{greedy['mean']:.2f} +/- {greedy.get('std', 0.0):.2f}",
        "name": "mean_reward",
    }
    task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
    result = {"task": task, "dataset": {"name": env, "type": env}, "metrics": [metric | {"verified": False}]}
    return [f"model-index: {json.dumps([{'name': algo, 'results': [result]}])}"]


def _results(evaluation: dict[str, Any]) -> list[str]:
    if not evaluation:
        return []
    rows = []
    for name in ("greedy", "sampled"):
        if name in evaluation:
            found = evaluation[name]
            interval = interval_text(found["ci95"])
            rows.append(f"| {name} | {found['mean']:.1f} | {interval} | {len(found.get('returns', ()))} |")
    table = ["| actions | mean return | 95 % interval | episodes |", "|---|---|---|---|", *rows]
    about = ["The final policy, on seeds that training did not see.", OF_WHAT]
    return ["## Results", "", *about, "", *table, ""]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
