"""A run's replay buffer in blocks: exact where the run dies at any point, and named where a block is gone or wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explicit import same_state
from interrupted import blocks, files, killed, last

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.replay_learner import ReplayLearner
from policygrad.algorithms.task import Plan, Task
from policygrad.envs.collector import Collector
from policygrad.models.exploring import ActionValues
from policygrad.replay import ReplayError
from policygrad.stored.blocks import ReplayBlocks, fill
from policygrad.stored.directory import RunDirectory
from policygrad.stored.storage import ModelFileError, load_state, save_state
from policygrad.training import sizes
from policygrad.training.callbacks import Every, History
from policygrad.training.resume import resume
from policygrad.training.train import train
from policygrad.tree import to_torch
from policygrad.updates.q_learning import QLearning

SMALL: dict[str, Any] = {"hidden": (8,), "warmup": 40, "buffer_size": 60, "batch_size": 8}
# a copy now and then, several environments, several steps; a delayed policy; a temperature, rows that are resets
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dqn": ("dqn", "CartPole-v1", {"n_step": 3, "num_envs": 2, "num_steps": 2, "target_every": 50}),
    "td3": ("td3", "Pendulum-v1", {"n_step": 2, "noise_autocorrelation": 0.5}),
    "sac": ("sac", "Pendulum-v1", {"n_step": 2, "num_envs": 3, "gradient_steps": 1, "normalize_obs": True}),
}
STEPS = 280  # the buffers wrap around four times


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policygrad.stored.blocks.BLOCK", 400)
    monkeypatch.setattr("policygrad.training.recorder.CHECKPOINT_SHARE", np.inf)
    monkeypatch.setattr("policygrad.reports.plots.plot_runs", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)  # which is for a loss of power


def make(name: str) -> pg.Agent:
    algo, env, keywords = RUNS[name]
    return pg.Agent(algo, env, seed=2, **SMALL | keywords)


def small(keywords: dict[str, Any]) -> pg.Agent:
    return pg.Agent("dqn", "CartPole-v1", seed=1, **SMALL | keywords)


def begun(name: str, path: Path) -> Callable[[], RunDirectory]:
    return of(lambda: make(name), path)


def of(make: Callable[[], pg.Agent], path: Path) -> Callable[[], RunDirectory]:
    return lambda: train(make(), path, steps=STEPS, episodes=1, callback=Every(10**9, print))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    """Runs that nobody disturbed, by their names; nobody may change them."""
    return cache(lambda name: begun(name, tmp_path_factory.mktemp(name) / "run")())


def gone_on(path: Path) -> RunDirectory:
    return resume(path, callback=Every(10**9, print))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_twice_is_the_run_that_was_not(
    name: str, undisturbed: Callable[[str], RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path / "run", 103, monkeypatch, begun(name, tmp_path / "run"))
    killed(tmp_path / "run", 221, monkeypatch, lambda: gone_on(tmp_path / "run"))
    run = gone_on(tmp_path / "run")
    assert files(run) == files(undisturbed(name))
    assert same_state(last(run), last(undisturbed(name)))
    assert len(blocks(run.path)) > 3
    assert min(blocks(run.path)) > 0  # what nobody needs any more is deleted


@pytest.mark.parametrize("before", ["checkpoint", "deletion"])
def test_a_death_between_a_block_and_its_checkpoint_changes_nothing(
    before: str, undisturbed: Callable[[str], RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = tmp_path / "run", [0]

    def die(*_: Any) -> Any:
        count[0] += 1
        if count[0] == 7:
            raise SystemExit

    with monkeypatch.context() as patch:
        what = (RunDirectory, "save_checkpoint") if before == "checkpoint" else (ReplayBlocks, "forget")
        original = getattr(*what)
        patch.setattr(*what, lambda *given: (die(), original(*given))[1])
        patch.setattr("policygrad.training.train.keep", lambda *_: None)
        with pytest.raises(SystemExit):
            begun("dqn", path)()
    run = gone_on(path)
    assert files(run) == files(undisturbed("dqn"))
    assert same_state(last(run), last(undisturbed("dqn")))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("steps", [70, 73])
def test_an_agent_that_is_loaded_goes_on_with_the_same_rows_of_metrics(steps: int, name: str, tmp_path: Path) -> None:
    whole, history = make(name), History()
    half: list[Path] = []

    def keep(agent: pg.Agent, row: Any) -> None:
        if agent.collector.steps_done >= steps and not half:
            half.append(agent.save(tmp_path / "half"))

    whole.learn(100, [history, keep], 1)
    again = History()
    loaded = pg.load(half[0]).go_on(again, 1)
    assert same_state(loaded.state_dict(), whole.state_dict())
    assert [words(row) for row in again.rows] == [words(row) for row in history.rows[-len(again.rows) :]]
    assert len(again.rows) > 5


def words(row: Any) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")}


def test_checkpoints_hold_the_rows_since_the_last_block_and_agents_files_hold_all(
    undisturbed: Callable[[str], RunDirectory], tmp_path: Path
) -> None:
    path = undisturbed("dqn").checkpoints()[-1]
    state = load_state(path)[0]
    rows, replay = len(state["learner"]["replay"]["rows"]["rew"]), state["learner"]["replay"]
    loaded = pg.load(path)
    held = loaded.learner.replay.size
    assert 0 < rows < held == rows + replay["apart"]
    saved = load_state(loaded.save(tmp_path / "agent"))[0]["learner"]["replay"]
    assert len(saved["rows"]["rew"]) == held
    assert saved["apart"] == 0
    assert "replay" not in load_state(loaded.save_policy(tmp_path / "policy"))[0]["learner"]
    alone = pg.load(path)
    alone.load_state_dict(state)
    with pytest.raises(ReplayError, match="in files of its run"):
        alone.learn(1)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def of_another_run(path: Path) -> None:
    state, meta = load_state(path)
    save_state(path, state | {"columns": state["columns"] | {"rew": state["columns"]["rew"] + 1}}, meta)


DAMAGES = {"is gone": Path.unlink, "has": cut_off, "checksum": changed, "but another one": of_another_run}


def test_without_a_block_the_checkpoint_before_is_gone_on_from_and_the_block_is_named(
    undisturbed: Callable[[str], RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path / "killed", 200, monkeypatch, begun("dqn", tmp_path / "killed"))
    before, after = (load_state(path)[0]["run"]["replay"] for path in RunDirectory(tmp_path / "killed").checkpoints())
    newest = f"rows-{next(block for block in after if block not in before)['first']}.safetensors"
    path = tmp_path
    for said, damage in DAMAGES.items():
        path = Path(shutil.copytree(tmp_path / "killed", tmp_path / said))
        damage(path / "replay" / newest)
        for given in (RunDirectory(path).checkpoints()[1], path):
            with pytest.raises(ModelFileError, match=rf"{newest} .*{said}"):
                pg.load(given)
    with pytest.warns(UserWarning, match=rf"{newest} .*: resuming from the checkpoint before it"):
        run = gone_on(path)
    assert files(run) == files(undisturbed("dqn"))
    shutil.rmtree(path / "replay")
    with pytest.warns(UserWarning, match="the policy alone is loaded, without its critic"):
        acts = pg.load(path)
    assert list(acts.evaluate(1).returns) == (run.evaluation() or {})["greedy"]["returns"]  # acting needs no buffer


def test_a_run_whose_checkpoints_both_lack_a_block_is_refused_by_its_name(
    undisturbed: Callable[[str], RunDirectory], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(undisturbed("sac").path, tmp_path / "run"))
    shutil.rmtree(path / "replay")
    with (
        pytest.warns(UserWarning, match="before it"),
        pytest.raises(ModelFileError, match=r"rows-\d+\.safetensors is gone"),
    ):
        resume(path, steps=STEPS + 50, callback=Every(10**9, print))


def test_a_run_that_takes_more_steps_is_the_longer_one(
    undisturbed: Callable[[str], RunDirectory], tmp_path: Path
) -> None:
    """Sac has no schedule."""
    run = train(make("sac"), tmp_path / "run", steps=STEPS // 2, episodes=1)
    with pytest.warns(UserWarning, match="schedules run over"):
        resume(run, steps=STEPS)
    assert same_state(last(run)["learner"], last(undisturbed("sac"))["learner"])


@pytest.mark.parametrize("keywords", [{"num_steps": 83, "buffer_size": 60}, {"num_steps": 40, "buffer_size": 60}])
def test_records_as_long_as_the_buffer_leave_a_gap_between_blocks(
    keywords: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an iteration added and took away again is in no block."""

    def made() -> pg.Agent:
        return small({"gradient_steps": 3, "n_step": 3} | keywords)

    whole = of(made, tmp_path / "whole")()
    killed(tmp_path / "run", 170, monkeypatch, of(made, tmp_path / "run"))
    assert pg.load(RunDirectory(tmp_path / "run").checkpoints()[-1]).learner.replay.size == 60
    run = gone_on(tmp_path / "run")
    assert files(run) == files(whole)
    assert same_state(last(run), last(whole))


class Own(ReplayLearner):
    """A learner whose state calls the buffer by another name, and says no form of it."""

    def state_dict(self) -> dict[str, Any]:
        return {"policy": dict(self.policy.state_dict()), "own": self.replay.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.replay.load_state_dict(state["own"])
        self.steps = state["steps"]


def own(task: Task, *, num_envs: int = 1, lr: float = 1e-3) -> Plan:
    policy = task.exploring_policy(lambda masked: ActionValues(2, masked))
    rule = QLearning(policy, lr=lr, target_every=None, optimizer="sgd")
    keywords: dict[str, Any] = {"num_envs": num_envs, "buffer_size": 100, "batch_size": 8, "warmup": 20}
    return Plan(Own(policy, rule, **keywords), num_steps=2)


def test_a_learner_of_ones_own_that_has_a_replay_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> pg.Agent:
        return pg.Agent(own, "CartPole-v1", seed=1)

    whole = of(made, tmp_path / "whole")()
    killed(tmp_path / "run", 150, monkeypatch, of(made, tmp_path / "run"))
    run = resume(tmp_path / "run", recipe=own, callback=Every(10**9, print))
    assert files(run) == files(whole)
    assert same_state(last(run), last(whole))
    assert blocks(run.path)


def test_a_forged_list_of_blocks_is_refused(undisturbed: Callable[[str], RunDirectory], tmp_path: Path) -> None:
    path = RunDirectory(Path(shutil.copytree(undisturbed("dqn").path, tmp_path / "run"))).checkpoints()[-1]
    state, meta = load_state(path)
    listed = state["run"]["replay"]
    other = {"stop": 0}, {"stop": 10**9}, {"first": "../../x"}, {"x": 1}
    forged: list[Any] = [None, [], listed[1:], listed[:-1], *([listed[0] | more, *listed[1:]] for more in other)]
    for value in forged:
        save_state(path, state | {"run": state["run"] | {"replay": value}}, meta)
        with pytest.raises(ModelFileError, match=r"replay|blocks"):
            pg.load(path)
    for apart in (-1, 10**9):
        replay = state["learner"]["replay"] | {"apart": apart}
        save_state(path, state | {"learner": state["learner"] | {"replay": replay}}, meta)
        with pytest.raises(ModelFileError, match="learner/replay"):
            pg.load(path)


def test_a_buffer_that_was_moved_is_the_same_as_one_that_was_loaded_meanwhile() -> None:
    """Where environments were reset in between, what an older row left behind is in no state."""
    agent = small({"num_steps": 7, "buffer_size": 20})
    agent.learn(60)
    buffer, other = agent.learner.replay, small({"buffer_size": 20}).learner.replay
    other.load_state_dict(buffer.state_dict())
    assert isinstance(agent.collector, Collector)
    agent.collector.forget()
    agent.collector.observers.append(other.add)
    agent.learn(7)
    assert buffer.added == 7 * 9 + 1 + 7
    other.rng.bit_generator.state = buffer.rng.bit_generator.state
    assert same_state(other.state_dict(), buffer.state_dict())


@pytest.mark.parametrize("size", [15, 40, 59, 61, 100])
def test_a_checkpoint_and_its_blocks_fill_a_buffer_of_another_size(
    size: int, undisturbed: Callable[[str], RunDirectory]
) -> None:
    path = undisturbed("td3").checkpoints()[-1]
    buffer, whole = (pg.load(path, **more).learner.replay for more in ({"buffer_size": size}, {}))
    assert (buffer.apart, buffer.added, buffer.size) == (0, whole.added, min(size, 60))
    first = buffer.added - buffer.size
    assert same_state(to_torch(buffer.columns(first, buffer.added)), to_torch(whole.columns(first, buffer.added)))


def test_a_run_whose_buffer_grows_on_the_way_goes_on_with_its_blocks(tmp_path: Path) -> None:
    """Rows keep their numbers."""

    def grow(agent: pg.Agent, row: Any) -> None:
        if agent.collector.steps_done == 110:
            agent.change(buffer_size=90)

    run = train(small({"num_steps": 1}), tmp_path / "run", steps=180, episodes=1, callback=grow)
    buffer = pg.load(run.checkpoints()[-1], buffer_size=90).learner.replay
    assert buffer.size == 90
    assert buffer.apart == 0
    assert len(blocks(run.path)) > 5


@pytest.mark.filterwarnings("ignore:warmup = .* are played before anything is learned")
def test_a_block_is_written_when_its_last_row_cannot_change_any_more(tmp_path: Path) -> None:
    """Where environments are moved, what was the last row becomes an end."""
    agent = small({"num_steps": 1, "buffer_size": 60})
    assert isinstance(agent.collector, Collector)
    written, buffer = ReplayBlocks(tmp_path), agent.learner.replay
    for moved in np.random.default_rng(0).integers(2, size=80):
        agent.learn(1)
        written.write(buffer)
        if moved:
            agent.collector.forget()
    other = small({"num_steps": 1, "buffer_size": 60}).learner.replay
    with written.apart(buffer):
        other.load_state_dict(buffer.state_dict())
    assert other.apart > 10
    fill(other, written.blocks, tmp_path / "checkpoints" / "step-50.safetensors")
    assert same_state(other.state_dict(), buffer.state_dict())


def test_a_buffer_that_is_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch) -> None:
    monkeypatch.setattr(sizes, "machine_memory", lambda: 2.0**30)
    with pytest.raises(ConfigError, match=r"buffer_size = 1,000,000,000 .* GiB.*lower buffer_size"):
        pg.sac("Pendulum-v1", buffer_size=10**9)


@pytest.mark.parametrize(
    ("change", "token"),
    [
        (("act", 2), r"act must have finite numbers in \[0, 1\], it has .* to 2"),
        (("act", -1), "act must have .* it has -1"),
        (("rew", np.nan), "rew must have finite numbers"),
        (("obs", np.inf), "obs must have finite numbers"),
    ],
)
@pytest.mark.parametrize("where", ["block", "checkpoint"])
def test_what_no_step_can_be_is_refused_where_it_is_stored(
    where: str, change: tuple[str, float], token: str, undisturbed: Callable[[str], RunDirectory], tmp_path: Path
) -> None:
    """In a block with a checksum that fits, and among the rows of a checkpoint."""
    run = RunDirectory(Path(shutil.copytree(undisturbed("dqn").path, tmp_path / "run")))
    path = run.checkpoints()[-1]
    state, meta = load_state(path)
    if where == "checkpoint":
        state["learner"]["replay"]["rows"][change[0]][-1, 1] = change[1]
        place = f"{path.name}.*replay/rows/"
    else:
        listed = state["run"]["replay"][-1]
        block = run.path / "replay" / f"rows-{listed['first']}.safetensors"
        held, about = load_state(block)
        held["columns"][change[0]][-1, 1] = change[1]
        listed["sha256"] = save_state(block, held, about)
        place = f"{block.name}.*columns/"
    save_state(path, state, meta)
    with pytest.raises(ModelFileError, match=place + token):
        pg.load(path)


def test_a_run_is_loaded_with_other_environments_but_not_resumed_with_them(
    undisturbed: Callable[[str], RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = undisturbed("dqn").checkpoints()[-1]
    with pytest.warns(UserWarning, match="begins empty.* of 2 environments, and this one of 3"):
        agent = pg.load(path, num_envs=3)
    buffer = agent.learner.replay
    assert (buffer.size, buffer.added, buffer.apart) == (0, 0, 0)
    run = train(agent, tmp_path / "other", steps=200, episodes=1)  # with blocks of its own
    assert pg.load(run.checkpoints()[-1]).learner.replay.size == buffer.size > 15
    assert len(blocks(run.path)) > 1

    killed(tmp_path / "run", 170, monkeypatch, begun("dqn", tmp_path / "run"))
    with (
        pytest.warns(UserWarning, match="begins empty"),
        pytest.raises(ConfigError, match=r"run has 2 environments, and this is one of 3"),
    ):
        resume(tmp_path / "run", env=pg.make_envs("CartPole-v1", num_envs=3), eval_env="CartPole-v1")
    assert files(gone_on(tmp_path / "run")) == files(undisturbed("dqn"))
