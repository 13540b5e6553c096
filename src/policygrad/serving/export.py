"""Trained policies as files that other runtimes run: ONNX, TorchScript, and NumPy alone.

Before a file is written, what is in it acts on 1,000 observations, extreme ones among them, in batches of 1, 5, 64 and all, and
is compared with `predict` of the original. Where they differ nothing is written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import policygrad
from policygrad.algorithms.config import Algo
from policygrad.files import write_atomically
from policygrad.models.policy import Body, Policy
from policygrad.models.recurrent import RecurrentPolicy
from policygrad.serving.comparing import Acted, Restored, compare
from policygrad.serving.described import described
from policygrad.serving.graphs import ExportError, Graph, draw
from policygrad.serving.probes import Probes, probes
from policygrad.serving.restoring import restore
from policygrad.serving.standalone import NumpyPolicy
from policygrad.stored.found import located
from policygrad.stored.pretrained import folder_of
from policygrad.stored.states import open_state
from policygrad.training.agent import Agent

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "numpy": ".npz"}
MODULE = "numpy_policy.py"  # beside a .npz: the code that acts with it
OPSET = 17  # of ONNX; onnxruntime 1.12 and later run it
COUNT = 1000  # observations of the comparison
SEED = 15_000  # of the observations, and of the samples that are compared

Act = Callable[[Sequence[np.ndarray]], Acted]  # the inputs of a graph → actions, and the memory after them


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and how it compares with `predict`.

    files: that of the policy first. difference: the largest one of a number of a Box action. ties: choices that differ, because
    two actions are equally good but for rounding. inputs: types and shapes of what a graph takes, by name; n is the batch.
    """

    files: list[Path]
    format: str
    difference: float
    ties: int
    inputs: dict[str, str] = field(default_factory=dict)


def export(
    run: str | Path | Agent,
    format: str,
    out: str | Path | None = None,
    *,
    sample: bool = False,
    body: Body | None = None,
    recipe: Algo | None = None,
    runs_root: str | Path = "runs",
) -> Exported:
    """Write the policy of a run in a format of other runtimes: "onnx", "torchscript" or "numpy".

    run: as for `load_policy`, or an agent, whose policy is written as it is now. out: the file, with the suffix .onnx, .pt or
    .npz; without it, `policy` beside the model file, or here for an agent and for a policy that comes with the package.
    sample: the graph samples actions, from noise that is one input more; without it, it takes the most likely ones. (A policy
    in the format numpy does both.) body, recipe: as for `load_policy`.
    Raises ExportError where the format cannot have the policy, MismatchError where what would be written does not act as the
    policy does, and ImportError where onnxruntime is missing; then nothing is written.
    """
    format = str(format).lower()
    if format not in SUFFIXES:
        raise ExportError(f"format must be one of {', '.join(SUFFIXES)}, got {format!r}")
    if isinstance(run, Agent):
        policy = deepcopy(run.policy)
        policy = policy.to("cpu") if isinstance(policy, Policy) else policy
        restored = Restored(policy, run.observation_space, run.action_space, run.metadata())
        with TemporaryDirectory() as folder:
            model = run.save_policy(Path(folder) / "policy")
            return _export(restored, model, format, _checked(out, Path(), format), sample)
    model = located(run, runs_root)
    out = _checked(out, folder_of(model), format)
    policy, spaces, meta = restore(model, body, recipe)
    return _export(Restored(policy, *spaces, meta), model, format, out, sample)


def _checked(out: str | Path | None, folder: Path, format: str) -> Path:
    """The file that is to be written."""
    out = folder / f"policy{SUFFIXES[format]}" if out is None else Path(out).expanduser()
    if out.suffix != SUFFIXES[format]:
        raise ExportError(f"out = {str(out)!r} must end in {SUFFIXES[format]}")
    return out


def _export(restored: Restored, model: Path, format: str, out: Path, sample: bool) -> Exported:
    policy = restored.policy
    if not isinstance(policy, Policy) or policy.encoding is None:
        raise ExportError(f"expected a policy of policygrad, got {type(policy).__name__}: it cannot be exported")
    remembers = policy.core.width if isinstance(policy, RecurrentPolicy) else 0
    given = probes(policy.encoding, policy.head, COUNT, np.random.default_rng(SEED), remembers)
    if format == "numpy":
        return _export_numpy(restored, model, given, out)
    graph = Graph(policy, restored.action_space, sample).eval().requires_grad_(False)
    names, seed = input_names(graph), SEED if sample else None

    def inputs(rows: slice) -> list[np.ndarray]:
        parts = given.inputs(rows)
        return parts + [draw(policy, np.random.default_rng(SEED), len(parts[0]))] * sample

    example = inputs(slice(0, 3))
    write, tensors = _onnx if format == "onnx" else _torchscript, [torch.from_numpy(x) for x in example]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch announces successors of both formats
        try:
            with redirect_stdout(StringIO()):  # torch prints the graph that it cannot write
                data, act = write(graph, names, tensors)
        except RuntimeError as error:
            raise ExportError(f"torch cannot write this network as {format}: {str(error).splitlines()[0]}") from error
        found = compare(restored, given, COUNT, lambda rows: _run(act, inputs(rows)), seed)
    write_atomically(out, data)
    return Exported([out], format, *found, {name: _shown(x) for name, x in zip(names, example, strict=True)})


def _run(act: Act, inputs: list[np.ndarray]) -> Acted:
    """The actions of a graph. Raises ExportError where it takes no batch of this size."""
    try:
        return act(inputs)
    except Exception as error:  # of whatever runtime
        raise ExportError(
            f"the graph does not take a batch of {len(inputs[0])} observations. In a graph len(x) is a constant: use "
            f"x.flatten(1) or x.shape[0] in a network of your own ({str(error)[:200]})"
        ) from error


def _shown(x: np.ndarray) -> str:
    """The type and shape of an input; n is the batch."""
    return f"{x.dtype} ({', '.join(['n', *map(str, x.shape[1:])])})"


def input_names(graph: Graph) -> list[str]:
    """The names of a graph's inputs, in their order."""
    names = [leaf.name for leaf in graph.encoding.leaves]
    return names + ["action_mask"] * graph.masked + ["memory"] * graph.remembers + ["noise"] * graph.sample


def output_names(graph: Graph) -> list[str]:
    """The names of a graph's outputs, in their order."""
    return ["action"] + ["next_memory"] * graph.remembers


def _torchscript(graph: Graph, names: list[str], example: list[Any]) -> tuple[bytes, Act]:
    file = BytesIO()
    torch.jit.save(torch.jit.trace(graph, tuple(example), check_trace=False), file)
    data = file.getvalue()
    module = torch.jit.load(BytesIO(data))

    def act(inputs: Sequence[np.ndarray]) -> Acted:
        made = module(*map(torch.from_numpy, inputs))
        return (made[0].numpy(), made[1].numpy()) if graph.remembers else (made.numpy(), None)

    return data, act


def _onnx(graph: Graph, names: list[str], example: list[Any]) -> tuple[bytes, Act]:
    try:
        import onnx  # noqa: F401  torch writes with it
        import onnxruntime
    except ImportError as error:
        raise ImportError("the format onnx needs onnx and onnxruntime: pip install 'policygrad[export]'") from error
    file = BytesIO()
    outputs = output_names(graph)
    axes = {name: {0: "batch"} for name in (*names, *outputs)}
    words: dict[str, Any] = {"input_names": names, "output_names": outputs, "dynamic_axes": axes}
    torch.onnx.export(graph, tuple(example), file, dynamo=False, opset_version=OPSET, **words)  # pyright: ignore
    data = file.getvalue()
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4  # a graph that takes no other batch is an ExportError, which says so once
    session = onnxruntime.InferenceSession(data, quiet, providers=["CPUExecutionProvider"])

    def act(inputs: Sequence[np.ndarray]) -> Acted:
        made = [np.asarray(x) for x in session.run(outputs, dict(zip(names, inputs, strict=True)))]
        return made[0], made[1] if graph.remembers else None

    return data, act


def _export_numpy(restored: Restored, model: Path, given: Probes, out: Path) -> Exported:
    with open_state(model) as file:
        parts = described(file)
    if parts is None:
        raise ExportError("the format numpy is for MLPs and tables of policygrad: use onnx or torchscript")
    description, arrays = parts
    said = description | {
        "policygrad": policygrad.__version__,
        "algo": restored.meta["algo"],
        "env": restored.meta["env"],
    }
    file = BytesIO()
    np.savez(file, description=np.array(json.dumps(said)), **arrays)  # pyright: ignore[reportArgumentType]
    data = file.getvalue()
    written = NumpyPolicy.load(BytesIO(data))

    def act(rows: slice, seed: int | None) -> Acted:
        obs, masks = given.given(rows)
        written.rng = np.random.default_rng(seed)
        return np.asarray(written.predict(obs, seed is None, masks)[0]), None

    greedy, sampled = (compare(restored, given, COUNT, lambda rows, s=s: act(rows, s), s) for s in (None, SEED))
    code = (files("policygrad.serving") / "standalone.py").read_text("utf8")
    write_atomically(out, data)
    write_atomically(out.with_name(MODULE), code.encode())
    written_files = [out, out.with_name(MODULE)]
    return Exported(written_files, "numpy", max(greedy[0], sampled[0]), greedy[1] + sampled[1])
