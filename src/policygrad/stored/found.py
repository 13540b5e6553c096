"""Finding model files: of a run, of a path with or without its suffix. Nothing heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from policygrad.stored.states import ModelFileError, with_suffix


def model_file(path: str | Path) -> Path:
    """The model file of a path: the file itself, or a run's policy or last checkpoint. Raises ModelFileError, or RunError."""
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        from policygrad.stored.directory import RunDirectory  # which a file alone does not need

        return RunDirectory(path).model_file()
    if not path.suffix and not with_suffix(path).exists():
        raise ModelFileError(f"there is no run directory {path}, and no model file {with_suffix(path).name} beside it")
    other = path.is_file() or path.suffix == ".zip"
    if other and path.suffix != ".safetensors" and not with_suffix(path).exists():
        hint = ": files of Stable-Baselines3 hold pickles, which loading would run" if path.suffix == ".zip" else ""
        raise ModelFileError(f"{path} is not a policygrad model, which is a .safetensors file{hint}")
    return with_suffix(path)
