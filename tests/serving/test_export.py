"""`policygrad export`: files that act as `predict` does, in other runtimes and with any batch, or no files."""

from __future__ import annotations

import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explicit import same_state
from gymnasium import spaces
from kinds import ARM, KINDS, MASKED, TREE, VECTOR, WHEEL, Kind, batch, observations

import policygrad as pg
from policygrad.cli import main
from policygrad.models.heads import Categorical
from policygrad.serving import graphs
from policygrad.serving.comparing import MismatchError
from policygrad.serving.export import MODULE, OPSET
from policygrad.serving.graphs import ExportError, draw
from policygrad.serving.probes import probes
from policygrad.serving.standalone import NumpyPolicy

BATCHES = (1, 5, 64)
SAMPLED = [name for name in KINDS if name != "beta"]


def session(path: Path) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def parts(kind: Kind, obs: Any, path: tuple[Any, ...] = ()) -> dict[str, np.ndarray]:
    """A batch of observations as the inputs of a graph, by their names."""
    if isinstance(obs, dict):
        return {k: v for key, part in obs.items() for k, v in parts(kind, part, (*path, key)).items()}
    if isinstance(obs, tuple):
        return {k: v for i, part in enumerate(obs) for k, v in parts(kind, part, (*path, i)).items()}
    x = np.asarray(obs)
    if path == ("action_mask",):
        return {"action_mask": x.astype(bool)}
    return {"/".join(map(str, path)) or "obs": x.astype(np.float32) if x.dtype == np.float64 else x}


def agree(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_onnx_acts_as_the_agent_whatever_the_batch(name, tmp_path):
    pytest.importorskip("onnxruntime")
    kind = KINDS[name]
    agent, path = kind.saved(tmp_path)
    made = pg.export(path, "onnx")
    assert made.files == [tmp_path / "policy.onnx"]
    graph, (rows, masks) = session(made.files[0]), observations(kind, 64)
    assert [x.name for x in graph.get_inputs()] == list(made.inputs)
    acts = []
    for size in BATCHES:
        obs, mask = batch(rows[:size]), None if masks is None else masks[:size]
        given = parts(kind, obs) | ({} if mask is None else {"action_mask": np.array(mask)})
        (act,) = graph.run(["action"], given)
        agree(act, np.asarray(agent.predict(obs, deterministic=True, action_masks=mask)[0]))
        acts.append(act)
    assert len(np.unique(acts[-1].reshape(64, -1), axis=0)) > 1


@pytest.mark.parametrize("name", SAMPLED)
def test_with_the_same_noise_onnx_draws_the_samples_of_the_agent(name, tmp_path):
    pytest.importorskip("onnxruntime")
    kind = KINDS[name]
    agent, path = kind.saved(tmp_path)
    graph, (rows, masks) = session(pg.export(path, "onnx", sample=True).files[0]), observations(kind, 64)
    for size in BATCHES:
        obs, mask = batch(rows[:size]), None if masks is None else masks[:size]
        given = parts(kind, obs) | ({} if mask is None else {"action_mask": np.array(mask)})
        agent.rng = np.random.default_rng(size)
        given["noise"] = draw(agent.policy, np.random.default_rng(size), size)
        agree(graph.run(["action"], given)[0], np.asarray(agent.predict(obs, action_masks=mask)[0]))


@pytest.mark.parametrize("name", ["squashed, of parts", "masks in info", "beta", "a table", "soft actor-critic"])
@pytest.mark.parametrize("sample", [False, True])
def test_torchscript_acts_as_the_agent_whatever_the_batch(name, sample, tmp_path):
    kind = KINDS[name]
    agent, path = kind.saved(tmp_path)
    if sample and name == "beta":
        with pytest.raises(ExportError, match="use the format numpy"):
            pg.export(path, "torchscript", sample=True)
        return
    made = pg.export(path, "torchscript", tmp_path / "other.pt", sample=sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = torch.jit.load(made.files[0])
    rows, masks = observations(kind, 64)
    for size in BATCHES:
        obs, mask = batch(rows[:size]), None if masks is None else masks[:size]
        given = [torch.from_numpy(x) for x in parts(kind, obs).values()]
        given += [] if mask is None else [torch.from_numpy(np.array(mask))]
        if sample:
            agent.rng = np.random.default_rng(size)
            given.append(torch.from_numpy(draw(agent.policy, np.random.default_rng(size), size)))
        agree(graph(*given).numpy(), np.asarray(agent.predict(obs, not sample, mask)[0]))


@pytest.mark.parametrize("name", ["normalised parts", "action values with masks", "beta"])
def test_the_exported_numpy_policy_needs_nothing_but_numpy(name, tmp_path):
    kind = KINDS[name]
    agent, path = kind.saved(tmp_path)
    made = pg.export(path, "numpy", tmp_path / "there" / "mine.npz")
    assert [file.name for file in made.files] == ["mine.npz", MODULE]
    rows, _ = observations(kind, 5)
    held = np.empty(5, object)
    for i, row in enumerate(rows):
        held[i] = row
    np.save(tmp_path / "rows.npy", held)
    code = """
import sys
import numpy as np
sys.path.insert(0, "there")
from numpy_policy import NumpyPolicy
policy = NumpyPolicy.load("there/mine.npz")
rows = np.load("rows.npy", allow_pickle=True)
np.save("acts.npy", np.array([policy.predict(row, deterministic=True)[0] for row in rows]))
try:
    policy.predict(3)
except ValueError as error:
    print("refused:", error)
print(*{"policygrad", "torch", "gymnasium"} & set(sys.modules))
"""
    words = {"capture_output": True, "text": True, "check": True, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": "", "OPENBLAS_NUM_THREADS": "1"}, **words)
    assert done.stdout.startswith("refused: expected")
    assert done.stdout.endswith("\n\n")
    for row, act in zip(rows, np.load(tmp_path / "acts.npy"), strict=True):
        agree(act, np.asarray(agent.predict(row, deterministic=True)[0]))


def pixels(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


PICTURES: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "channels last": (pixels(36, 36, 3), {}),
    "channels first": (pixels(3, 36, 36), {}),
    "no channels": (pixels(36, 36), {}),
    "one channel": (pixels(20, 20, 1), {}),
    "frames": (pixels(4, 36, 36), {}),
    "frames with channels": (pixels(4, 20, 20, 3), {}),
    "one body": (pixels(20, 20, 3), {"shared_body": True}),
    "parts": (spaces.Dict(camera=pixels(20, 20, 3), speed=spaces.Box(-1.0, 1.0, (2,))), {}),
    "parts on one body": (spaces.Dict(a=pixels(20, 20), b=pixels(16, 16, 3)), {"shared_body": True}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_layout_are_exported_whatever_the_batch(name, tmp_path):
    pytest.importorskip("onnxruntime")
    space, words = PICTURES[name]
    kind = Kind("ppo", space, WHEEL, {"head": "squashed"} | words, scale=0.06)
    agent, path = kind.saved(tmp_path)
    graph, (rows, _) = session(pg.export(path, "onnx").files[0]), observations(kind, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(pg.export(path, "torchscript").files[0])
    for size in BATCHES:
        given = parts(kind, batch(rows[:size]))
        expected = np.asarray(agent.predict(batch(rows[:size]), deterministic=True)[0])
        agree(graph.run(["action"], given)[0], expected)
        agree(script(*map(torch.from_numpy, given.values())).numpy(), expected)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the pictures are seen
    assert (np.abs(expected - 0.5) < 1.4).all()  # and no action is at a bound, where a difference would not show


def body(space: Any) -> torch.nn.Module:
    """With the idiom that freezes a batch when it is traced, in a form that does not."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.SiLU())


class Frozen(torch.nn.Module):
    """A network with a batch that is a constant in a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.reshape(len(x), 3) + torch.zeros(x.reshape(len(x), 3).shape))


def test_a_network_of_ones_own_is_exported_and_a_fourier_basis_is(tmp_path):
    pytest.importorskip("onnxruntime")
    for make in (body, lambda space: pg.FourierFeatures(space, 2, low=[-2, -2, -2], high=[2, 2, 2])):
        agent, path = Kind("ppo", VECTOR, WHEEL, {"body": make, "normalize_obs": True}).saved(tmp_path)
        graph, (rows, _) = session(pg.export(path, "onnx", body=make).files[0]), observations(KINDS["a linear map"], 5)
        agree(graph.run(["action"], {"obs": batch(rows)})[0], agent.predict(batch(rows), deterministic=True)[0])
        with pytest.raises(ExportError, match="format numpy is for MLPs"):
            pg.export(path, "numpy", body=make)


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_network_whose_graph_has_a_fixed_batch_is_refused_in_one_message(format, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    make = lambda space: Frozen()  # noqa: E731
    _, path = Kind("ppo", VECTOR, WHEEL, {"body": make}).saved(tmp_path)
    with pytest.raises(ExportError, match=r"batch"):
        pg.export(path, format, body=make)
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]
    assert capfd.readouterr() == ("", "")  # onnxruntime prints its own errors


def test_an_agent_is_exported_as_it_is_and_stays_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = Kind("ppo", VECTOR, WHEEL, {"normalize_obs": True, "num_steps": 16, "minibatches": 1})
    agent = kind.agent()
    before = deepcopy(agent.state_dict())
    made = [pg.export(agent, format) for format in ("TorchScript", "NUMPY")]
    assert [file.name for one in made for file in one.files] == ["policy.pt", "policy.npz", MODULE]
    rows, _ = observations(kind, 5)
    expected = agent.predict(batch(rows), deterministic=True)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        agree(torch.jit.load("policy.pt")(torch.from_numpy(batch(rows))).numpy(), expected)
    agree(NumpyPolicy.load("policy.npz").predict(batch(rows), deterministic=True)[0], expected)
    assert same_state(agent.state_dict(), before)
    assert agent.learn(64).num_timesteps == 48  # and 16 resets
    own = Kind("ppo", VECTOR, WHEEL, {"body": body(None)}).agent()  # whose network needs no body= again
    pg.export(own, "torchscript", "own.pt")
    assert all(p.requires_grad for p in own.policy.network.parameters())
    with pytest.raises(ExportError, match=r"must end in \.pt"):
        pg.export(agent, "torchscript", "policy.onnx")


REMEMBERING = {
    "gru, choices": Kind("ppo", VECTOR, spaces.Discrete(3, start=2), {"memory": "gru"}),
    "lstm, several choices": Kind("ppo", VECTOR, spaces.MultiDiscrete([2, 3]), {"memory": "lstm", "hidden": ()}),
    "gru, normal, normalised": Kind("a2c", VECTOR, WHEEL, {"memory": "gru", "normalize_obs": True}),
    "lstm, normal of a network": Kind("ppo", VECTOR, WHEEL, {"memory": "lstm", "std": "network"}),
    "lstm, squashed, of parts": Kind("ppo", TREE, ARM, {"memory": "lstm", "head": "squashed"}),
    "gru, beta": Kind("ppo", VECTOR, ARM, {"memory": "gru", "head": "beta"}),
    "gru, masks in the observation": Kind("ppo", MASKED, spaces.Discrete(4), {"memory": "gru"}),
    "gru, correlated": Kind("ppo", VECTOR, WHEEL, {"memory": "gru", "noise_autocorrelation": 0.9}),
    "gru of pictures": Kind("ppo", spaces.Box(0, 255, (16, 20, 3), np.uint8), WHEEL, {"memory": "gru"}, scale=0.05),
}


@pytest.mark.parametrize("name", REMEMBERING)
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_a_memory_is_an_input_and_an_output(name, format, tmp_path):
    kind = REMEMBERING[name]
    agent, path = replace(kind, keywords={"memory_size": 5} | kind.keywords).saved(tmp_path)
    width = agent.policy.core.width
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    made = pg.export(path, format)
    assert made.inputs["memory"] == f"float32 (n, {width})"
    if format == "onnx":
        run = partial(session(made.files[0]).run, ["action", "next_memory"])
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(made.files[0])
        run = lambda given: [x.numpy() for x in module(*(torch.from_numpy(given[name]) for name in made.inputs))]  # noqa: E731
    for size in BATCHES:  # episodes of seven steps side by side
        state, memory = None, np.zeros((size, width), np.float32)
        for step in range(7):
            obs = batch(observations(kind, size, seed=step)[0])
            given = {"memory": memory} | parts(kind, obs)
            act, memory = run(given)
            expected, state = agent.predict(obs, state, deterministic=True)
            agree(act, expected)
            np.testing.assert_allclose(memory, state["memory"], atol=1e-5)
        assert np.abs(memory).max() > 1e-3
    if kind.keywords.get("head") != "beta":
        assert "noise" in pg.export(path, format, sample=True).inputs


def test_a_memory_that_an_export_would_lose_is_noticed(tmp_path, monkeypatch):
    _, path = REMEMBERING["gru, choices"].saved(tmp_path)
    kept = graphs.Graph._remembered
    monkeypatch.setattr(graphs.Graph, "_remembered", lambda self, x, memory: kept(self, x, memory * 0.999))
    with pytest.raises(MismatchError, match="acts otherwise than predict"):
        pg.export(path, "torchscript")
    assert not (tmp_path / "policy.pt").exists()
    with pytest.raises(ExportError, match=r"for MLPs and tables of policygrad: use onnx or torchscript"):
        pg.export(path, "numpy")


def own(task: Any, *, num_steps: int = 8) -> Any:
    """A recipe with a head of one's own."""
    from policygrad.models.policy import make_policy

    policy = make_policy(task.observation_space, task.action_space, hidden=(4,), head=lambda masked: Head3())
    return pg.Plan(pg.Learner(policy, pg.RewardToGo(), pg.VanillaGradient(0.01)), num_steps=num_steps)


class Head3(pg.Head):
    """Always the middle one of three."""

    size = 3

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros((*shape, 1), np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.ones(len(out), np.int64)

    mode = sample  # pyright: ignore


def test_a_head_of_ones_own_is_refused(tmp_path):
    agent = pg.Agent(own, Kind("ppo", VECTOR, spaces.Discrete(3)).env(), num_envs=2)
    with pytest.raises(ExportError, match="a head of your own cannot be exported"):
        pg.export(agent.save_policy(tmp_path / "policy"), "onnx", recipe=own)


# ---- the comparison


class Forgetful(graphs.Graph):
    """A graph without the normaliser, as SB3's recipe for ONNX writes it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.normalizer = None


class Unclipped(graphs.Graph):
    """A graph that clips no actions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.least, self.most = torch.full_like(self.least, -1e9), torch.full_like(self.most, 1e9)


class Unmasked(graphs.Graph):
    """A graph that looks at no action mask."""

    def choose(self, out: torch.Tensor, mask: Any, noise: Any) -> torch.Tensor:
        return super().choose(out if mask is None else out - (mask - 1.0) * 1e8, None, noise)


class Barely(graphs.Graph):
    """A graph with actions that are wrong by 3e-5."""

    def steer(self, out: torch.Tensor, noise: Any) -> torch.Tensor:
        return super().steer(out, noise) * (1.0 + 3e-5)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (Forgetful, KINDS["normalised parts"]),
        (Unclipped, Kind("ppo", VECTOR, WHEEL)),
        (Unmasked, KINDS["masks in the observation"]),
        (Barely, KINDS["beta"]),
    ],
)
def test_what_acts_otherwise_is_not_written(wrong, kind, tmp_path, monkeypatch):
    _, path = kind.saved(tmp_path)
    (tmp_path / "policy.pt").write_bytes(b"before")
    monkeypatch.setattr("policygrad.serving.export.Graph", wrong)
    with pytest.raises(MismatchError, match=r"acts otherwise than predict.*nothing was written"):
        pg.export(path, "torchscript")
    assert (tmp_path / "policy.pt").read_bytes() == b"before"


def test_probes_reach_every_bound_every_choice_and_masks_of_one_and_of_all():
    encoding, head = pg.Encoding(MASKED, 4, "observation"), Categorical(4, masked=True)
    found = probes(encoding, head, 1000, np.random.default_rng(0))
    assert found.masks is not None
    assert set(found.masks.sum(-1).tolist()) == {1, 2, 3, 4}
    obs, masks = found.given(slice(0, 9))
    assert masks is None
    assert obs["action_mask"].shape == (9, 4)
    x = probes(pg.Encoding(VECTOR), head, 1000, np.random.default_rng(0)).given()[0]
    assert x.min(0).tolist() == [-2.0, -2.0, -2.0]
    assert x.max(0).tolist() == [2.0, 1e4, 0.5]
    assert (np.abs(x[(x != 0.0)]) < 1e-4).any()
    tree = probes(pg.Encoding(TREE), head, 1000, np.random.default_rng(0)).given()[0]
    assert set(tree["camera"].reshape(-1).tolist()) == set(range(256))
    assert set(tree["where"][0].tolist()) == {-1, 0, 1}


# ---- the command


def test_the_command_writes_the_file_and_says_what_it_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, path = KINDS["masks in info"].saved(tmp_path)
    assert main(["export", str(path), "--format", "torchscript", "--out", "mine.pt", "--sample"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine.pt\n")
    assert "input obs: float32 (n, 3)\n" in out
    assert "input action_mask: bool (n, 5)\n" in out
    assert "input noise: float32 (n, 5)\n" in out
    assert "1,000 observations: largest difference 0" in out
    assert Path("mine.pt").exists()
    assert main(["export", "pretrained:ppo-CartPole-v1", "--format", "numpy", "--out", "policy.npz"]) == 0
    assert Path(MODULE).exists()
    assert f"opset {OPSET}" in help_of(capsys, "export")


def help_of(capsys: pytest.CaptureFixture[str], command: str) -> str:
    capsys.readouterr()
    main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--format", "pickle"], "must be one of onnx, torchscript, numpy"),
        ([], "--format"),
        (["--format", "numpy", "--sample"], "--sample is for onnx and torchscript"),
        (["--format", "onnx", "--out", "x.pt"], "must end in .onnx"),
    ],
)
def test_mistakes_are_answered(words, text, tmp_path, capsys):
    _, path = KINDS["a table"].saved(tmp_path)
    assert main(["export", str(path), *words]) == 2
    assert text in capsys.readouterr().err


def test_a_run_with_a_recipe_or_a_network_of_ones_own_is_not_exported_by_guessing(tmp_path, capsys):
    agent = pg.Agent(own, Kind("ppo", VECTOR, spaces.Discrete(3)).env(), num_envs=2)
    path = agent.save_policy(tmp_path / "policy")
    assert main(["export", str(path), "--format", "onnx"]) == 2
    assert "--recipe" in capsys.readouterr().err
    _, path = Kind("ppo", VECTOR, WHEEL, {"body": body}).saved(tmp_path)
    assert main(["export", str(path), "--format", "onnx"]) == 2
    assert "custom network" in capsys.readouterr().err
