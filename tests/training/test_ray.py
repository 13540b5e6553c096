"""Runs on a Ray cluster: the same files as on one machine, whatever dies; nothing listens beyond loopback, nobody gets in
without the token.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from interrupted import files

from policygrad.stored.directory import RunDirectory, runs
from policygrad.training.ray_engine import RayError, connected

WORDS = ["-m", "policygrad", "train", "a2c", "CartPole-v1", "--eval-episodes", "2"]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra")
LIMIT = 400.0  # seconds for a cluster of three nodes on a busy machine
CLUSTER = """
import os, sys, time
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""


def test_a_cluster_without_a_token_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(RayError, match=r"must want a token.*RAY_AUTH_MODE=token"), connected():
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(RayError, match=r"policygrad\[ray\]"), connected():
        pass


def listeners(group: int) -> list[str]:
    """The addresses, in hexadecimal, at which the processes of a session listen."""
    inodes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == group:
                inodes |= {os.readlink(fd) for fd in process.glob("fd/*")}
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                found.append(parts[1].partition(":")[0])
    return found


def is_loopback(address: str) -> bool:
    return address in ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def whole(tmp_path: Path, seeds: str, steps: str) -> dict[int, RunDirectory]:
    """The same runs on one machine, undisturbed."""
    words = [
        sys.executable,
        *WORDS,
        "--seed",
        seeds,
        "--steps",
        steps,
        "--runs-root",
        str(tmp_path / "whole"),
        "--quiet",
    ]
    subprocess.run(words, check=True)
    return {run.config()["seed"]: run for run in map(RunDirectory, runs(tmp_path / "whole"))}


def check_equal(root: Path, alone: dict[int, RunDirectory]) -> None:
    """Every run has ended once, with the same files."""
    ended = [run for run in map(RunDirectory, runs(root)) if run.evaluation() is not None]
    assert Counter(run.config()["seed"] for run in ended) == Counter(alone.keys())
    for run in ended:
        assert files(run) == files(alone[run.config()["seed"]])


@pytest.mark.slow
@needs_ray
def test_runs_on_this_machine_listen_on_loopback_alone_and_ctrl_c_saves_them(tmp_path):
    alone = whole(tmp_path, "0-1", "60000")
    words = [sys.executable, *WORDS, "--seed", "0-1", "--steps", "60000", "--runs-root", str(tmp_path / "on_ray")]
    words += ["--engine", "ray"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    heard: set[str] = set()
    for line in process.stdout:
        heard |= set(listeners(process.pid))
        if "steps/s" in line or len(list(tmp_path.glob("on_ray/*/*/*/metrics.jsonl"))) == 2:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 128 + signal.SIGINT, rest
    assert len(heard) >= 1
    assert all(map(is_loopback, heard)), heard
    assert {RunDirectory(run).state()["status"] for run in runs(tmp_path / "on_ray")} == {"stopped"}
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    check_equal(tmp_path / "on_ray", alone)


@pytest.mark.slow
@needs_ray
def test_a_node_that_dies_costs_no_run(tmp_path):
    """Three nodes, twelve runs, one node killed: all end with the files of undisturbed ones."""
    alone = whole(tmp_path, "0-11", "20000")
    safe = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    safe |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=os.environ | safe, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        address = next(line.split()[1] for line in cluster.stdout if line.startswith("address"))
        words = [sys.executable, *WORDS, "--seed", "0-11", "--steps", "20000", "--runs-root", str(tmp_path / "on_ray")]
        words += ["--engine", "ray", "--quiet"]
        stranger = subprocess.run(
            words, env=os.environ | safe | {"RAY_ADDRESS": address, "RAY_AUTH_TOKEN": secrets.token_hex(32)},
            capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert stranger.returncode != 0  # with another token
        assert not list(runs(tmp_path / "on_ray"))
        process = subprocess.Popen(words, env=os.environ | safe | {"RAY_ADDRESS": address})
        until = time.monotonic() + LIMIT
        while len(list(tmp_path.glob("on_ray/*/*/*/metrics.jsonl"))) < 4:
            assert time.monotonic() < until
            time.sleep(0.1)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert next(line for line in cluster.stdout if line == "killed\n")
        assert process.wait(LIMIT) == 0
    finally:
        cluster.stdin.close()
        cluster.wait(60)
        cluster.stdout.close()
    check_equal(tmp_path / "on_ray", alone)
