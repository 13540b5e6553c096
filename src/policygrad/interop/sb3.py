"""The files that users and tools of Stable-Baselines3 expect in a run: its TensorBoard tags, monitor.csv, evaluations.npz.

`interop/metrics.py` has the tags. As in sb3-contrib, TRPO's train/is_line_search_success is
`accepted` > 0, beside train/accepted.

`kl` is exact, SB3 estimates it from the actions taken. sb3-contrib's train/kl_divergence_loss is exact, too, but KL(new ‖ old).
`td_error` is the root of a mean square: SB3's train/critic_loss is the sum of the critics' mean squares, and its train/loss of
DQN is Huber's, so neither is written.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policygrad.files import BadFileError, appending, parse_json, read_bytes, read_text, write_atomically
from policygrad.forms import anything, number, table
from policygrad.interop.metrics import tag_of

MAX_ROWS = 2**29  # bytes of a file of episodes or evaluations


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics by SB3's tags; missing numbers are left out."""
    numbers = {tag_of(k): float(v) for k, v in row.items() if isinstance(v, int | float | np.number)}
    tagged = {tag: number for tag, number in numbers.items() if tag}
    if "train/entropy_loss" in tagged:
        tagged["train/entropy_loss"] *= -1.0
    if "train/accepted" in tagged:
        tagged["train/is_line_search_success"] = float(tagged["train/accepted"] > 0.0)
    return tagged


def split(tagged: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Those of training, and those of an evaluation, which may be of earlier steps."""
    evaluation = {tag: value for tag, value in tagged.items() if tag.startswith("eval/")}
    return {tag: value for tag, value in tagged.items() if tag not in evaluation}, evaluation


class MonitorFile:
    """monitor.csv: return, length and seconds since the start (r, l, t) of every finished training episode.

    The Collector counts episodes once a rollout, so their times are spread evenly between two calls.
    """

    def __init__(self, path: Path, env: str) -> None:
        """Start the file, or continue an existing file at its end."""
        self.path, now, self.last = path, time.time(), 0.0
        if path.exists():
            lines = read_text(path, MAX_ROWS).splitlines()
            written = lines[-1].rpartition(",")[2] if len(lines) > 2 else "0"
            self.last = max(_number(written), now - _started(path, lines[0]))  # a clock that was set back may say less
        else:
            write_atomically(path, f"#{json.dumps({'t_start': now, 'env_id': env})}\nr,l,t\n".encode())
        self.started = time.monotonic() - self.last

    def write(self, episodes: Sequence[tuple[float, int]]) -> None:
        """Add episodes; they are in the file when this returns."""
        if not episodes:
            return
        now = time.monotonic() - self.started
        times = np.linspace(self.last, now, len(episodes) + 1)[1:].tolist()
        self.last = now
        lines = (f"{round(r, 6)},{n},{t:.6f}\n" for (r, n), t in zip(episodes, times, strict=True))
        with appending(self.path) as file:
            file.write("".join(lines).encode())


def _started(path: Path, line: str) -> float:
    """When a monitor file was begun, from its first line."""
    try:
        about = parse_json(line.removeprefix("#"))
        table({"t_start": number()}, others=anything)("it", about)
    except ValueError as error:
        raise BadFileError(f"{path} is not a monitor file: {error}") from error
    return float(about["t_start"])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class EvaluationTable:
    """evaluations.npz: returns and lengths of every evaluation's episodes, and the steps it was made at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: list[int] = []
        self.returns: list[list[float]] = []
        self.lengths: list[list[int]] = []

    def read(self, before: int | None = None) -> EvaluationTable:
        """Take in what the file holds of the steps before these, if there is a file."""
        if self.path.exists():
            steps, returns, lengths = self._arrays()
            keep = steps < (np.inf if before is None else before)
            self.steps, self.returns, self.lengths = (
                steps[keep].tolist(),
                returns[keep].tolist(),
                lengths[keep].tolist(),
            )
        return self

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The file's steps (K,), returns (K, E) and lengths (K, E). Raises BadFileError for anything else."""
        data = read_bytes(self.path, MAX_ROWS)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                if sum(entry.file_size for entry in file.infolist()) > len(data):
                    raise ValueError("it is compressed, as np.savez does not write it")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                steps, returns, lengths = (file[name] for name in ("timesteps", "results", "ep_lengths"))
        except (
            ValueError,
            TypeError,
            KeyError,
            EOFError,
            SyntaxError,
            OSError,
            NotImplementedError,
            zipfile.BadZipFile,
        ) as error:
            raise BadFileError(f"{self.path} is not a table of evaluations: {error}") from error
        whole = steps.ndim == 1 and returns.ndim == 2 and returns.shape == lengths.shape and len(returns) == len(steps)
        if not whole or steps.dtype.kind != "i" or lengths.dtype.kind != "i" or returns.dtype.kind != "f":
            raise BadFileError(f"{self.path} is not a table of evaluations: its arrays have unexpected shapes or types")
        return steps, returns, lengths

    @property
    def width(self) -> int:
        """The number of episodes per row."""
        return len(self.returns[0]) if self.returns else 0

    def write(self, steps: int, returns: Sequence[float], lengths: Sequence[int]) -> None:
        """Add an evaluation, and write the file, whole or not at all. Rows are as long as the first: SB3 reads a matrix.

        Raises ValueError for one that is shorter; of a longer one the last episodes are left out.
        """
        width = self.width or len(returns)
        if len(returns) < width:
            raise ValueError(f"evaluations of {self.path} have {width} episodes, got one of {len(returns)}")
        self.steps.append(steps)
        self.returns.append(list(returns[:width]))
        self.lengths.append(list(lengths[:width]))
        data = io.BytesIO()
        np.savez(data, timesteps=self.steps, results=self.returns, ep_lengths=self.lengths)
        write_atomically(self.path, data.getvalue())
