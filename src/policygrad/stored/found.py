"""Finding model files: of a run, of a path with or without its suffix, of words for one. Nothing heavy is imported."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.errors import FileError
from policygrad.stored.pretrained import PRETRAINED, pretrained_file
from policygrad.stored.states import ModelFileError, open_state, with_suffix

if TYPE_CHECKING:
    from policygrad.stored.directory import RunDirectory


def located(path: str | Path, runs_root: str | Path = "runs", whole: bool = False) -> Path:
    """The model file that a path, a run's name, its beginning, "latest" or "pretrained:NAME" means.

    whole: of a run, the file of the whole agent where there is one, see `agent_file`. Raises ModelFileError for
    what is no model, RunError for what is no run.
    """
    words = str(path)
    if words.startswith(PRETRAINED):
        return pretrained_file(words.removeprefix(PRETRAINED))
    given = Path(os.path.expanduser(words))
    named = given.suffix in (".safetensors", ".zip") or given.is_absolute()  # no name of a run
    if named or given.exists() or with_suffix(given).exists():
        return model_file(given, whole)
    from policygrad.stored.directory import find_run

    return model_file(find_run(words, runs_root), whole)


def model_file(path: str | Path, whole: bool = False) -> Path:
    """The model file of a path: the file itself, or a run's policy or last checkpoint. Raises ModelFileError, or RunError."""
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        from policygrad.stored.directory import RunDirectory  # which a file alone does not need

        run = RunDirectory(path)
        return agent_file(run) if whole else run.model_file()
    if not path.suffix and not with_suffix(path).exists():
        raise ModelFileError(f"there is no run directory {path}, and no model file {with_suffix(path).name} beside it")
    other = path.is_file() or path.suffix == ".zip"
    if other and path.suffix != ".safetensors" and not with_suffix(path).exists():
        hint = ": files of Stable-Baselines3 hold pickles, which loading would run" if path.suffix == ".zip" else ""
        raise ModelFileError(f"{path} is not a policygrad model, which is a .safetensors file{hint}")
    return with_suffix(path)


def agent_file(run: RunDirectory) -> Path:
    """A run's last checkpoint, which holds critic, optimisers and counters, too, where the policy in it is the final one to the
    bit; otherwise the file of the policy alone. A checkpoint that cannot be read is passed over with a warning.
    """
    policy, checkpoint = run.model_file(), next(reversed(run.checkpoints()), None)
    if checkpoint is None or checkpoint == policy:
        return policy
    try:
        same = _policy_in(checkpoint) == _policy_in(policy)
    except FileError as error:
        warnings.warn(f"{error}: the policy alone is loaded", stacklevel=5)
        same = False
    return checkpoint if same else policy


def _policy_in(path: Path) -> Any:
    """The policy of a model file, to be compared with another one. Raises ModelFileError."""
    with open_state(path) as file:
        learner = file.tree.get("learner")
        return file.bytes_of(learner.get("policy") if isinstance(learner, dict) else None)
