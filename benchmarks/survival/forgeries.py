"""Model files and trajectories made by hand: each is wrong in one thing, and right, the checksum included, in all others."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from policygrad.stored.storage import KEY, _strip, load_state

Maker = Callable[[Path], object]
NAN, INF = float("nan"), float("inf")


def written(path: Path, state: Any, meta: Any, hidden: Mapping[str, torch.Tensor] = {}) -> None:
    """A file with its checksum; unlike `save_state` it writes whatever it is given. hidden: tensors that nothing refers to."""
    tensors: dict[str, torch.Tensor] = {}
    body = {"format": 1, "meta": meta, "tree": _strip(state, "", tensors)}
    text = json.dumps(body, sort_keys=True)
    tensors |= hidden
    tensors = {k: x.contiguous() for k, x in tensors.items()}
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    whole = json.dumps(body | {"sha256": digest.hexdigest()}, sort_keys=True)
    path.write_bytes(save(tensors, {KEY: whole}))


def changed(of: Path, place: str, value: Any) -> Maker:
    """The file with another value at a place of its state or meta: a value, a function of the old one, or ... to remove it."""

    def make(path: Path) -> None:
        state, meta = load_state(of)
        whole: dict[str, Any] = deepcopy({"state": state, "meta": meta})
        node: Any = whole
        *keys, last = place.split("/")
        for key in keys:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value(node[last]) if callable(value) else value
        written(path, whole["state"], whole["meta"])

    return make


def header_of(of: Path, change: Callable[[dict, bytes], tuple[bytes, bytes]]) -> Maker:
    """The file with another safetensors header and body, which `change` makes from the parsed header and the body."""

    def make(path: Path) -> None:
        data = of.read_bytes()
        size = int.from_bytes(data[:8], "little")
        head, body = change(json.loads(data[8 : 8 + size]), data[8 + size :])
        path.write_bytes(len(head).to_bytes(8, "little") + head + body)

    return make


def dumped(header: dict) -> bytes:
    """A header as safetensors writes it."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The tensor with a value in its first place."""

    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x.view(-1)[0] = value
        return x

    return change


def adam(checkpoint: Path) -> dict[str, Maker]:
    """States of Adam, the policy's and the critic's."""
    changes: dict[str, tuple[str, Any]] = {
        "m of three numbers": ("m", torch.zeros(3)),
        "v of three numbers": ("v", torch.zeros(3)),
        "m longer": ("m", lambda m: torch.zeros(2 * len(m))),
        "m empty": ("m", torch.zeros(0)),
        "m of two axes": ("m", lambda m: m[None]),
        "m int64": ("m", lambda m: m.long()),
        "v float64": ("v", lambda v: v.double()),
        "m NaN": ("m", filled(NAN)),
        "m infinite": ("m", filled(INF)),
        "m 1e38": ("m", filled(1e38)),
        "v below 0": ("v", filled(-1.0)),
        "v NaN": ("v", filled(NAN)),
        "m a list": ("m", lambda m: m.tolist()),
        "m missing": ("m", ...),
        "v missing": ("v", ...),
        "t 0": ("t", 0),
        "t below 0": ("t", -3),
        "t 1.5": ("t", 1.5),
        "t true": ("t", True),
        "t 1e30": ("t", 1e30),
        "t of 100 bits": ("t", 2**100),
        "t a text": ("t", "1"),
        "t missing": ("t", ...),
        "another entry": ("w", torch.zeros(4)),
    }
    places = {
        "policy's Adam": "state/learner/update/optimizer",
        "critic's": "state/learner/critic/_extra_state/optimizer",
    }
    return {
        f"checkpoint: {whose}, {case}": changed(checkpoint, f"{place}/{key}", value)
        for whose, place in places.items()
        for case, (key, value) in changes.items()
    }


def generator(left: int, following: int, seeded: int = 1) -> Callable[[torch.Tensor], torch.Tensor]:
    """A generator's state that goes on at another place, perhaps outside its memory."""

    def change(x: torch.Tensor) -> torch.Tensor:
        data = x.numpy().copy()
        data[8:12] = np.array([left], "<i4").view(np.uint8)
        data[12:16] = np.array([seeded], "<i4").view(np.uint8)
        data[16:24] = np.array([following], "<u8").view(np.uint8)
        return torch.from_numpy(data)

    return change


def parts(checkpoint: Path) -> dict[str, Maker]:
    """Critic, generators, normaliser, counters: whatever else a checkpoint keeps."""
    critic, policy, source = "state/learner/critic", "state/learner/policy", "state/collector"
    changes: dict[str, tuple[str, Any]] = {
        "scale 0": (f"{critic}/_extra_state/scale", [0.0, 0.0, 0.0]),
        "scale below 0": (f"{critic}/_extra_state/scale", [0.0, -1.0, 1.0]),
        "scale NaN": (f"{critic}/_extra_state/scale", [NAN, 1.0, 1.0]),
        "scale of two": (f"{critic}/_extra_state/scale", [0.0, 1.0]),
        "seen -1": (f"{critic}/_extra_state/seen", -1),
        "seen 1e30": (f"{critic}/_extra_state/seen", 1e30),
        "generator short": (f"{critic}/_extra_state/generator", lambda x: x[:100].clone()),
        "generator of zeros": (f"{critic}/_extra_state/generator", torch.zeros_like),
        "generator beyond its memory": (f"{critic}/_extra_state/generator", generator(600, 600)),
        "generator far beyond": ("state/learner/update/generator", generator(1, 2**40)),
        "generator unseeded": ("state/learner/update/generator", generator(1, 0, seeded=0)),
        "generator of int64": ("state/learner/update/generator", lambda x: x.long()),
        "critic's weights NaN": (f"{critic}/network.layers.0.weight", filled(NAN)),
        "critic's weight missing": (f"{critic}/network.layers.0.weight", ...),
        "variance below 0": (f"{policy}/normalizer.var", filled(-1.0)),
        "variance NaN": (f"{policy}/normalizer.var", filled(NAN)),
        "mean infinite": (f"{policy}/normalizer.mean", filled(INF)),
        "count below 0": (f"{policy}/normalizer.count", lambda x: -x),
        "another algorithm": (f"{source}/rng/bit_generator", "MT19937"),
        "algorithm eval": (f"{source}/rng/bit_generator", "eval"),
        "generator's state below 0": (f"{source}/rng/state/state", -1),
        "generator's state of 129 bits": (f"{source}/rng/state/state", 2**128),
        "generator's state a text": (f"{source}/rng/state/inc", "1"),
        "has_uint32 7": (f"{source}/rng/has_uint32", 7),
        "uinteger 2^40": ("state/rng/uinteger", 2**40),
        "steps -1": (f"{source}/steps_done", -1),
        "steps 1e30": (f"{source}/steps_done", 1e30),
        "steps 1.5": (f"{source}/steps_done", 1.5),
        "more episodes than steps": (f"{source}/episodes_done", 10**6),
        "a million returns": (f"{source}/returns", [1.0] * 10**6),
        "returns of text": (f"{source}/returns", ["1"]),
        "a return that is infinite": (f"{source}/returns", [INF]),
        "a length below 0": (f"{source}/lengths", [-1]),
        "one return too many": (f"{source}/returns", lambda x: [*x, 1.0][-100:] if len(x) < 100 else x[1:]),
        "a hidden tensor in the source": (f"{source}/hidden", torch.zeros(9)),
        "a hidden part": ("state/hidden", {"x": torch.zeros(9)}),
        "a baseline's state": ("state/learner/baseline", {"mean": 3.0}),
        "no collector's rng": (f"{source}/rng", ...),
        "trainer's rows -1": ("state/trainer/rows", -1),
        "trainer's total a list": ("state/trainer/total", [1]),
        "a learner that is a number": ("state/learner", 1),
        "an update that is a list": ("state/learner/update", []),
    }
    return {f"checkpoint: {case}": changed(checkpoint, place, value) for case, (place, value) in changes.items()}


def policies(policy: Path) -> dict[str, Maker]:
    """Weights and descriptions of a policy."""
    weight, config = "state/learner/policy/network.layers.0.weight", "meta/config"
    changes: dict[str, tuple[str, Any]] = {
        "weights NaN": (weight, filled(NAN)),
        "weights infinite": (weight, filled(-INF)),
        "weights 1e38": (weight, filled(1e38)),
        "weights int64": (weight, lambda x: x.long()),
        "weights float16": (weight, lambda x: x.half()),
        "weights float64": (weight, lambda x: x.double()),
        "weights transposed": ("state/learner/policy/network.layers.1.weight", lambda x: x.T),
        "weights a number": (weight, 1.0),
        "a weight missing": (weight, ...),
        "an unknown tensor": ("state/learner/policy/backdoor", torch.zeros(3)),
        "an unknown part": ("state/learner/other", {"x": torch.zeros(3)}),
        "no learner": ("state", {}),
        "num_steps 1e9": (f"{config}/num_steps", 10**9),
        "num_envs 1e6": (f"{config}/num_envs", 10**6),
        "num_envs a text": (f"{config}/num_envs", "8"),
        "hidden of four billion weights": (f"{config}/hidden", [65536, 65536]),
        "hidden of one huge layer": (f"{config}/hidden", [65536]),
        "hidden of another width": (f"{config}/hidden", [5]),
        "hidden a text": (f"{config}/hidden", "4"),
        "hidden nested": (f"{config}/hidden", [[4]]),
        "an unknown setting": (f"{config}/evil", 1),
        "a setting that is a table": (f"{config}/lr", {"a": 1}),
        "a setting that is NaN": (f"{config}/lr", NAN),
        "a seed below 0": ("meta/seed", -1),
        "a seed that is text": ("meta/seed", "0"),
        "a seed of 400 digits": ("meta/seed", 10**400),
        "an algorithm of a module": ("meta/algo", "os:system"),
        "an algorithm that is not there": ("meta/algo", "nope"),
        "an algorithm that is a number": ("meta/algo", 3),
        "an environment of a module": ("meta/env", "os:CartPole-v1"),
        "an environment that obeys": ("meta/env", "\x1b]0;x\x07\x1b[2J"),
        "an environment of 200,000 letters": ("meta/env", "x" * 200_000),
        "an environment that is null": ("meta/env", None),
        "an environment of other spaces": ("meta/env", "Acrobot-v1"),
        "custom a text": ("meta/custom", "no"),
        "an unknown kernel": ("meta/kernel", "eval"),
        "an unknown backend": ("meta/backend", "eval"),
        "an unknown entry": ("meta/evil", 1),
        "a range of three returns": ("meta/return_range", [0, 1, 2]),
        "a range of texts": ("meta/return_range", ["0", "1"]),
        "a range without an end": ("meta/return_range", [0.0, 1e300]),
        "another space": ("meta/observation_space/shape", [5]),
        "a space that is text": ("meta/action_space", "Discrete(2)"),
        "no configuration": ("meta/config", ...),
    }
    made = {f"policy: {case}": changed(policy, place, value) for case, (place, value) in changes.items()}
    return made | {"policy: a hidden tensor": lambda path: written(path, *load_state(policy), {"x": torch.zeros(9)})}


def stored(trajectories: Path) -> dict[str, Maker]:
    """Columns and descriptions of trajectories."""
    about = "meta/trajectories"
    changes: dict[str, tuple[str, Any]] = {
        "obs NaN": ("state/obs", filled(NAN)),
        "obs 1e38": ("state/obs", filled(1e38)),
        "obs int64": ("state/obs", lambda x: x.long()),
        "obs half": ("state/obs", lambda x: x.half()),
        "obs of another width": ("state/obs", lambda x: x[:, :2].clone()),
        "obs a tree": ("state/obs", lambda x: {"a": x}),
        "rew bool": ("state/rew", lambda x: x.bool()),
        "rew infinite": ("state/rew", filled(INF)),
        "logp of two axes": ("state/logp", lambda x: x[:, None]),
        "logp NaN": ("state/logp", filled(NAN)),
        "act floats": ("state/act", lambda x: x.float()),
        "act outside": ("state/act", lambda x: x + 2),
        "act below 0": ("state/act", lambda x: x - 5),
        "length huge": ("state/length", lambda x: x * 0 + 2**62),
        "length 0": ("state/length", lambda x: x * 0),
        "length one more": ("state/length", lambda x: x + 1),
        "policy below 0": ("state/policy", lambda x: x - 1),
        "terminated ints": ("state/terminated", lambda x: x.long()),
        "terminated missing": ("state/terminated", ...),
        "an unknown column": ("state/evil", torch.zeros(3)),
        "an environment that obeys": (f"{about}/env", "\x1b[2J"),
        "an environment of 200,000 letters": (f"{about}/env", "x" * 200_000),
        "a space of 10^12 numbers": (f"{about}/observation_space/shape", [10**6, 10**6]),
        "a space of objects": (f"{about}/observation_space/dtype", "object"),
        "a space of another kind": (f"{about}/action_space/type", "Graph"),
        "10^9 actions": (f"{about}/action_space/n", 10**9),
        "no actions": (f"{about}/action_space/n", 0),
        "masks from nowhere": (f"{about}/legal", "eval"),
        "masks that are not there": (f"{about}/legal", "observation"),
        "a head of 10,000 letters": (f"{about}/head", "x" * 10_000),
        "an unknown entry": (f"{about}/evil", 1),
        "no description": ("meta/trajectories", ...),
    }
    return {f"trajectories: {case}": changed(trajectories, place, value) for case, (place, value) in changes.items()}


def headers(policy: Path) -> dict[str, Maker]:
    """Headers that lie, and files that are none."""
    first = "learner/policy/network.layers.0.bias"

    def entry(**change: Any) -> Callable[[dict, bytes], tuple[bytes, bytes]]:
        return lambda head, body: (dumped(head | {first: head[first] | change}), body)

    def metadata(text: Callable[[str], str]) -> Callable[[dict, bytes], tuple[bytes, bytes]]:
        return lambda head, body: (dumped(head | {"__metadata__": {KEY: text(head["__metadata__"][KEY])}}), body)

    changes: dict[str, Callable[[dict, bytes], tuple[bytes, bytes]]] = {
        "a shape below 0": entry(shape=[-1]),
        "a shape that overflows": entry(shape=[2**62, 4]),
        "a shape of text": entry(shape=["4"]),
        "a tensor of 10 GB": entry(shape=[2_500_000_000], data_offsets=[0, 10_000_000_000]),
        "offsets that overlap": entry(data_offsets=[4, 20]),
        "offsets below 0": entry(data_offsets=[-16, 0]),
        "one offset": entry(data_offsets=[0]),
        "an unknown type": entry(dtype="F128"),
        "another entry": entry(evil=1),
        "no entry": lambda head, body: (dumped({k: v for k, v in head.items() if k != first}), body),
        "a tensor that nothing refers to": lambda head, body: (
            dumped(head | {"x": {"dtype": "U8", "shape": [8], "data_offsets": [len(body), len(body) + 8]}}),
            body + bytes(8),
        ),
        "bytes after the tensors": lambda head, body: (dumped(head), body + bytes(8)),
        "bytes missing": lambda head, body: (dumped(head), body[:-8]),
        "another key in the metadata": lambda head, body: (
            dumped(head | {"__metadata__": head["__metadata__"] | {"x": "y"}}),
            body,
        ),
        "no metadata": lambda head, body: (dumped({k: v for k, v in head.items() if k != "__metadata__"}), body),
        "spaces in the JSON": lambda head, body: (json.dumps(head).encode(), body),
        "padding of tabs": lambda head, body: (dumped(head).rstrip(b" ") + b"\t" * 8, body),
        "JSON 200,000 deep": lambda head, body: (b"[" * 200_000 + b"]" * 200_000, body),
        "inner JSON 200,000 deep": metadata(lambda text: "[" * 200_000 + "]" * 200_000),
        "inner JSON 900 deep": metadata(
            lambda text: '{"format": 1, "meta": ' + "[" * 900 + "]" * 900 + ', "sha256": "", "tree": {}}'
        ),
        "a million tables": metadata(lambda text: "[" + "{}," * 10**6 + "{}]"),
        "metadata of 80 MB": metadata(lambda text: "x" * 80_000_000),
        "metadata of 6 MB": metadata(lambda text: '{"format": 1, "meta": "' + "x" * 6_000_000 + '"}'),
        "metadata of 400,000 numbers": metadata(
            lambda text: json.dumps({"format": 1, "meta": [0.123456789] * 400_000})
        ),
        "a space of 6 MB": metadata(lambda text: text.replace("4.800000190734863", "4" * 6_000_000, 1)),
        "other spaces in the metadata": metadata(lambda text: json.dumps(json.loads(text), separators=(",", ":"))),
        "a key twice": metadata(lambda text: text[:-1] + ', "format": 1}'),
        "a number of 400 digits": metadata(lambda text: '{"format": ' + "9" * 400 + "}"),
        "a number of 5,000 digits": metadata(lambda text: '{"format": ' + "9" * 5_000 + "}"),
        "a number that is infinite": metadata(lambda text: '{"format": 1e999}'),
        "NaN": metadata(lambda text: '{"format": NaN}'),
        "format 999": metadata(lambda text: text.replace('"format": 1', '"format": 999', 1)),
        "no format": metadata(lambda text: "{}"),
        "metadata that is a list": metadata(lambda text: "[]"),
        "a tensor in two places": metadata(lambda text: text.replace('layers.1.bias"}', 'layers.0.bias"}')),
        "a header of nothing": lambda head, body: (b"", body),
    }
    sizes = {"an unknown tensor of 400 MB": 400_000_000, "an unknown tensor of 20 GB": 20_000_000_000}
    made = {f"policy: {case}": header_of(policy, change) for case, change in changes.items()}
    return made | {f"policy: {case}": larger(policy, size) for case, size in sizes.items()} | raw()


def larger(policy: Path, size: int) -> Maker:
    """The policy with another tensor of so many zeros, which take no room on the disk."""

    def make(path: Path) -> None:
        def change(head: dict, body: bytes) -> tuple[bytes, bytes]:
            inner = json.loads(head["__metadata__"][KEY])
            inner["tree"]["learner"]["policy"]["x"] = {"$tensor": "learner/policy/x"}
            text = json.dumps(inner, sort_keys=True)
            entry = {"dtype": "U8", "shape": [size], "data_offsets": [len(body), len(body) + size]}
            return dumped(head | {"__metadata__": {KEY: text}, "learner/policy/x": entry}), body

        header_of(policy, change)(path)
        os.truncate(path, path.stat().st_size + size)

    return make


def raw() -> dict[str, Maker]:
    """What is no model file at all."""
    return {
        "policy: a header of 2^63 bytes": lambda path: path.write_bytes((2**63).to_bytes(8, "little") + b"{}"),
        "policy: a header longer than the file": lambda path: path.write_bytes((100).to_bytes(8, "little") + b"{}"),
        "policy: empty": lambda path: path.write_bytes(b""),
        "policy: five bytes": lambda path: path.write_bytes(b"12345"),
        "policy: a pickle": lambda path: path.write_bytes(pickle.dumps({"learner": 1})),
        "policy: of torch.save": lambda path: torch.save({"x": 1}, path),
        "policy: a pipe": os.mkfifo,
        "policy: a directory": os.mkdir,
        "policy: a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "policy: a link to itself": lambda path: path.symlink_to(path),
        "trajectories: a pipe": os.mkfifo,
    }


def cases(policy: Path, checkpoint: Path, trajectories: Path) -> dict[str, Maker]:
    """All forgeries by name, each a function that writes it to a path; the first word says what it is to be read as."""
    made = adam(checkpoint) | parts(checkpoint) | policies(policy) | stored(trajectories) | headers(policy)
    assert all(case.partition(":")[0] in ("policy", "checkpoint", "trajectories") for case in made)
    return made
