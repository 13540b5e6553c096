"""Databases of trajectories: what is written is what was played, read back to the bit, once, and nothing that is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps, same_tree
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import policygrad as pg
from policygrad.cli import main
from policygrad.envs.adapters import action_adapter
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain, Target
from policygrad.models.action_spaces import make_head
from policygrad.models.policy import Policy, make_policy
from policygrad.stored.directory import RunDirectory
from policygrad.stored.minari import _to_head, from_minari
from policygrad.stored.replay import Replay, clone
from policygrad.stored.storage import load_state, save_state
from policygrad.stored.trajectories import (
    COLUMNS,
    Cutter,
    Trajectories,
    TrajectoryError,
    TrajectoryWriter,
    collect,
    describe,
    read_trajectories,
    shards,
)
from policygrad.training import train as training
from policygrad.tree import take


class Numbered(gym.Env):
    """Observations (episode, time); lengths 1 to 7; truncated where the length is even; the reward says who and when."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(3, start=1)
    made = 0

    def __init__(self):
        self.episode, self.time = 1000 * Numbered.made, 0
        Numbered.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        self.length = int(self.np_random.integers(1, 8))
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        rew, self.time = float(self.episode + 0.1 * self.time), self.time + 1
        last, even = self.time == self.length, self.length % 2 == 0
        return np.array([self.episode, self.time], np.float32), rew, last and not even, last and even, {}


class Masked(Chain):
    """Its second action is legal on even steps only."""

    def __init__(self):
        super().__init__((1.0, -2.0, 0.5, 3.0), terminate_after=3)

    def mask(self):
        return {"action_mask": np.array([1, self.time % 2 == 0], np.int8)}

    def reset(self, **keywords):
        return super().reset(**keywords)[0], self.mask()

    def step(self, action):
        return *super().step(action)[:-1], self.mask()


def policy_for(env, **keywords) -> Policy:
    made = env()
    policy = make_policy(made.observation_space, made.action_space, hidden=(8,), **keywords)
    policy.flat.mul_(3.0)
    return policy


def same(a: Trajectories, b: Trajectories) -> bool:
    return a.about == b.about and all(same_tree(getattr(a, n), getattr(b, n)) for n in COLUMNS)


def check_numbered(trajectories: Trajectories) -> None:
    """Every episode whole: its times, rewards and last observation are its own."""
    first, at = 0, 0
    seen = set()
    for length, terminated in zip(trajectories.length.tolist(), trajectories.terminated.tolist(), strict=True):
        obs, rew = trajectories.obs[at : at + length + 1], trajectories.rew[first : first + length]
        number = float(obs[0, 0])
        assert (obs[:, 0] == number).all()
        assert obs[:, 1].tolist() == list(range(length + 1))
        assert torch.allclose(rew, number + 0.1 * torch.arange(length))
        assert terminated == (length % 2 == 1)
        seen.add(number)
        first, at = first + length, at + length + 1
    assert len(seen) == len(trajectories)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_that_go_on_over_many_rollouts_are_put_together_in_every_autoreset_mode(mode):
    envs = SyncVectorEnv([Numbered] * 3, autoreset_mode=mode)
    policy, collector = policy_for(Numbered), Collector(envs, seed=1)
    cutter = Cutter(describe(policy, envs.single_observation_space, envs.single_action_space, "Numbered"))
    for _ in range(30):
        before = collector.steps_done
        cutter.add(roll_steps(collector, policy, 4), before)
    done = cutter.take()
    assert done is not None
    check_numbered(done)
    assert len(done) == collector.episodes_done > 40
    assert sorted(done.returns.tolist())[-100:] == pytest.approx(sorted(collector.returns)[-len(done) :], rel=1e-5)
    assert (done.policy[1:] - done.policy[:-1]).abs().max() > 0
    assert done.length.max() > 4  # longer than a rollout
    assert cutter.take() is None


def test_an_episode_that_was_not_seen_from_its_start_is_left_out_and_so_is_one_that_a_reset_breaks_off():
    policy, collector = policy_for(Numbered), Collector(make_envs(Numbered, 2), seed=0)
    cutter = Cutter({"env": "Numbered"})
    collector.steps(policy, 3)
    cutter.add(roll_steps(collector, policy, 3))
    cutter.add(roll_steps(collector, policy, 3))
    collector.forget()  # the next rollout begins with fresh episodes
    for _ in range(5):
        cutter.add(roll_steps(collector, policy, 3))
    done = cutter.take()
    assert done is not None
    check_numbered(done)


@pytest.mark.parametrize(
    ("env", "keywords"),
    [
        (Numbered, {"normalize_obs": True}),
        (Target, {}),
        (Target, {"head": "squashed"}),
        (Target, {"head": "beta"}),
        (Masked, {"mask_source": "info"}),
    ],
)
def test_what_is_read_back_is_what_was_played_and_its_policy_gives_the_stored_log_probabilities(
    env, keywords, tmp_path
):
    policy = policy_for(env, **keywords)
    Numbered.made = 0
    played = collect(policy, env, 10, seed=3, name="mine")
    assert len(played) == 10
    again = read_trajectories(played.save(tmp_path / "some.safetensors"))
    assert same(played, again)
    old = played.about | {"head": played.about["head"].replace("masked=", "legal=")}
    assert same(played, read_trajectories(replace(played, about=old).save(tmp_path / "of-version-0.4")))
    rollout = again.rollout(policy)
    assert rollout.whole_episodes
    assert rollout.trajectories == 10
    mask = rollout.mask
    torch.testing.assert_close(rollout.logp[mask], rollout.behavior[mask], rtol=1e-5, atol=1e-5)
    Numbered.made = 0
    other = roll_episodes(Collector(make_envs(env, 8), 3), policy, 10)
    assert torch.equal(other.mask, mask)
    for name in ("act", "rew", "terminated", "truncated"):
        assert torch.equal(getattr(rollout, name)[mask], getattr(other, name)[mask])
    assert torch.equal(rollout.behavior[mask], other.logp[mask])
    assert same_tree(*(take(take(r.obs, slice(-1)), mask) for r in (rollout, other)))
    assert same_tree(take(rollout.next_obs, rollout.end), take(other.next_obs, other.end))
    few = again.rollout(policy, [7, 2])
    assert torch.equal(few.rew[few.mask[:, 0], 0], rollout.rew[mask[:, 7], 7])
    assert torch.equal(few.behavior[few.mask[:, 1], 1], rollout.behavior[mask[:, 2], 2])


@pytest.mark.parametrize(("algo", "more"), [("ppo", {"num_steps": 16, "epochs": 1}), ("reinforce", {"episodes": 4})])
def test_training_keeps_every_episode_that_it_finished_and_learns_the_same(algo, more, tmp_path):
    def run(name: str, keep: bool) -> RunDirectory:
        Numbered.made = 0
        agent = pg.Agent(algo, Numbered, num_envs=3, hidden=(8,), **more)
        run = training.start(agent, tmp_path / name, steps=600)
        training.learn(agent, run, save_trajectories=keep)
        return run

    kept, plain = run("kept", True), run("plain", False)
    assert kept.policy_file.read_bytes() == plain.policy_file.read_bytes()
    assert not (plain.path / "trajectories").exists()
    trajectories = read_trajectories(kept.path)
    check_numbered(trajectories)
    assert sorted(trajectories.returns.tolist()) == pytest.approx(sorted(kept.returns()), rel=1e-5)
    assert len(shards(kept.path / "trajectories")) > 5  # one a checkpoint
    assert len(trajectories.policy.unique()) > 5
    assert int(trajectories.policy.max()) < 600


def watch(agent, writer):
    agent.learner.observers.append(lambda r: writer.add(r, agent.collector.steps_done - r.steps))


def test_going_on_from_a_checkpoint_writes_nothing_twice_and_leaves_no_half_file(tmp_path):
    """Killed after some shards that the last checkpoint knows nothing of, and in the middle of another one."""
    agent = pg.Agent("ppo", Numbered, num_envs=3, num_steps=16, epochs=1, hidden=(8,))
    run = training.start(agent, tmp_path / "run", steps=480)
    writer = training.make_writer(agent, run, 480)
    watch(agent, writer)
    agent.learn(240)
    writer.flush(agent.collector.steps_done)
    checkpoint, known = run.save_checkpoint(agent.save, agent.collector.steps_done), agent.collector.episodes_done
    for _ in range(3):
        agent.learn(48)
        writer.flush(agent.collector.steps_done)
    late = len(read_trajectories(run.path))
    assert late > known
    (writer.folder / ".000000000999.safetensors.1.tmp").write_bytes(b"half")

    loaded = pg.load(checkpoint, env=Numbered)
    writer = training.make_writer(loaded, run, 480)
    assert len(read_trajectories(run.path)) == known
    assert not list(writer.folder.glob(".*"))
    watch(loaded, writer)
    with pytest.warns(UserWarning, match="cannot be brought back"):  # a new environment counts its episodes from 0
        loaded.learn(240)
    writer.flush(loaded.collector.steps_done)
    trajectories = read_trajectories(run.path)
    assert len(trajectories) == loaded.collector.episodes_done
    steps = [int(path.stem) for path in shards(writer.folder)]
    assert steps == sorted(set(steps))


def test_shards_are_of_bounded_size_and_a_large_database_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr("policygrad.stored.trajectories.SHARD_BYTES", 2_000)
    policy, collector = policy_for(Numbered), Collector(make_envs(Numbered, 4), seed=0)
    about = describe(policy, Numbered.observation_space, Numbered.action_space, "Numbered")
    writer = TrajectoryWriter(tmp_path / "t", about, total=10**9)
    with pytest.warns(UserWarning, match=r"about 3\d\.\d GB in "):
        writer.add(roll_steps(collector, policy, 8), 0)
    for _ in range(40):
        before = collector.steps_done
        writer.add(roll_steps(collector, policy, 8), before)
    writer.flush(collector.steps_done)
    files = shards(tmp_path / "t")
    assert len(files) > 5
    assert max(path.stat().st_size for path in files) < 10_000
    assert len(read_trajectories(tmp_path / "t")) == collector.episodes_done


def test_command_line_collects_and_keeps_what_training_played(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "train reinforce CartPole-v1 --steps 300 --num-envs 2 --episodes 4 --eval-episodes 1 --run-dir mu -q"
    assert main([*words.split(), "--save-trajectories"]) == 0
    assert len(read_trajectories("mu")) == len(RunDirectory(Path("mu")).returns())
    assert main(["collect", "mu", "--episodes", "9"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mu/trajectories.safetensors  9 episodes, ")
    played = read_trajectories("mu/trajectories.safetensors")
    assert same(played, pg.load("mu/policy").collect(9))
    assert main(["collect", "mu", "--episodes", "9", "--seed", "4", "--out", "other.safetensors"]) == 0
    assert not same(played, read_trajectories("other.safetensors"))
    capsys.readouterr()
    for wrong, said in (
        ("collect mu --out x.npz", "must end in .safetensors"),
        ("train ppo CartPole-v1 --dataset mu", "no flag --dataset"),
        ("train off_policy_pg CartPole-v1 --dataset mu --save-trajectories", "none are played"),
        ("train off_policy_pg CartPole-v1 --dataset nowhere", "nowhere"),
        ("train off_policy_pg CartPole-v1 --dataset mu/policy.safetensors", "holds no trajectories"),
        ("train off_policy_pg Acrobot-v1 --dataset mu", "of CartPole-v1, with another observation_space"),
    ):
        assert main(wrong.split()) == 2
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) <= 3


@pytest.fixture
def played() -> Trajectories:
    return collect(policy_for(Numbered), Numbered, 5, name="Numbered")


def test_damaged_files_are_named_and_refused(played, tmp_path):
    path = played.save(tmp_path / "0.safetensors")
    good = path.read_bytes()
    path.write_bytes(good[:-7] + bytes([good[-7] ^ 1]) + good[-6:])
    with pytest.raises(TrajectoryError, match=r"0\.safetensors is damaged"):
        read_trajectories(path)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(TrajectoryError, match=r"0\.safetensors"):
        read_trajectories(path)
    path.write_bytes(good)
    state, meta = load_state(path)
    changes = {
        "length": torch.tensor([2**62, 2**62, 2**62, 2**62, played.steps]),
        "act": played.act[:-1],
        "rew": torch.full_like(played.rew, torch.nan),
        "logp": played.logp[:, None],  # pyright: ignore[reportOptionalSubscript]
        "terminated": played.terminated.long(),
        "policy": None,
    }
    for name, value in changes.items():
        save_state(path, state | {name: value}, meta)
        with pytest.raises(TrajectoryError, match=r"0\.safetensors"):
            read_trajectories(path)
    save_state(path, state, {"trajectories": {"env": "x"}})
    with pytest.raises(TrajectoryError, match="holds no trajectories"):
        read_trajectories(path)
    with pytest.raises(TrajectoryError, match="there are no trajectories in"):
        read_trajectories(tmp_path / "nothing")
    played.save(tmp_path / "two" / "1.safetensors")
    replace(played, about=played.about | {"head": "Categorical(9)"}).save(tmp_path / "two" / "2.safetensors")
    with pytest.raises(TrajectoryError, match="different tasks"):
        read_trajectories(tmp_path / "two")


def test_trajectories_of_another_task_are_refused(played):
    policy, own = policy_for(Numbered), (Numbered.observation_space, Numbered.action_space)
    played.check(policy, *own)
    with pytest.raises(TrajectoryError, match="another action_space"):
        played.check(policy_for(Numbered), own[0], spaces.Discrete(3))
    with pytest.raises(TrajectoryError, match="not in the action space"):
        replace(played, act=played.act + 1).check(policy, *own)
    with pytest.raises(TrajectoryError, match="not in the action space"):
        replace(played, act=played.act.double()).check(policy, *own)
    with pytest.raises(TrajectoryError, match="another shape"):
        replace(played, obs=played.obs[:, :1]).check(policy, *own)
    box = collect(policy_for(Target), Target, 3)
    made = Target()
    with pytest.raises(TrajectoryError, match=r"another head: Gaussian.* here it is Beta"):
        box.check(policy_for(Target, head="beta"), made.observation_space, made.action_space)
    with pytest.raises(TrajectoryError, match="noise_autocorrelation = 0"):
        box.check(policy_for(Target, noise_autocorrelation=0.5), made.observation_space, made.action_space)


def test_maximum_likelihood_on_a_table_finds_the_frequencies():
    env = gym.make("FrozenLake-v1")
    policy = make_policy(env.observation_space, env.action_space, hidden=())
    policy.flat.copy_(torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(0)))
    stored = collect(policy, "FrozenLake-v1", 400)
    fresh = make_policy(env.observation_space, env.action_space, hidden=())
    clone(fresh, stored, 60)
    state, table = stored.states.argmax(-1), fresh(torch.eye(16)).exp()
    for s in (0, 4):
        count = torch.bincount(stored.act[state == s], minlength=4)
        assert count.sum() > 300
        assert torch.allclose(table[s], count / count.sum(), atol=0.03)


def test_who_left_no_log_probabilities_is_estimated_and_the_clone_is_the_estimate(played):
    blind = replace(played, logp=None)
    policy = policy_for(Numbered, normalize_obs=True)
    with pytest.raises(TrajectoryError, match=r"have no log-probabilities"):
        blind.rollout(policy)
    with pytest.raises(TrajectoryError, match="clone_epochs = 0"):
        Replay(blind, policy, clone_epochs=0)
    replay = Replay(blind, policy, clone_epochs=3)
    replay.begin(policy)
    rollout = roll_episodes(replay, policy, 100)
    assert rollout.trajectories == 5
    torch.testing.assert_close(rollout.logp[rollout.mask], rollout.behavior[rollout.mask], rtol=0, atol=1e-5)
    assert torch.equal(blind.under(policy).logp, blind.under(policy).logp)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-2),
        spaces.MultiDiscrete([2, 3], start=[5, -1]),
        spaces.MultiBinary(4),
        spaces.Box(-1.0, 1.0, (2,)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_actions_of_an_environment_become_a_heads_and_back(space):
    space.seed(0)
    head, acts = make_head(space), np.stack([space.sample() for _ in range(20)])
    own = _to_head(space)(acts)
    assert np.array_equal(action_adapter(space, head)(own), acts)
    assert own.dtype == (np.float32 if isinstance(space, spaces.Box) else np.int64)


@pytest.fixture
def minari_data(tmp_path, monkeypatch):
    """A data set of 20 episodes that a lopsided random policy played on CartPole."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    from minari.data_collector import EpisodeBuffer

    env, rng, buffers = gym.make("CartPole-v1"), np.random.default_rng(0), []
    for seed in range(20):
        steps, over = [(env.reset(seed=seed)[0], None, None, None, None)], False
        while not over:
            act = int(rng.random() < 0.7)
            obs, rew, terminated, truncated, _ = env.step(act)
            steps.append((obs, act, rew, terminated, truncated))
            over = terminated or truncated
        observations, *columns = (np.array(column) for column in zip(*steps, strict=True))
        acts, rews, terminations, truncations = (column[1:] for column in columns)
        buffers.append(
            EpisodeBuffer(
                id=seed,
                observations=observations,
                actions=acts.astype(np.int64),
                rewards=list(rews.astype(float)),
                terminations=list(terminations.astype(bool)),
                truncations=list(truncations.astype(bool)),
            )
        )
    name = "cartpole/lopsided-v0"
    about = dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "x")
    minari.create_dataset_from_buffers(name, buffers, env=env, **about)
    return minari.load_dataset(name)


@pytest.mark.filterwarnings("ignore")
def test_a_minari_data_set_is_read_and_learned_from(minari_data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = minari_data.spec.dataset_id
    agent = pg.off_policy_pg("CartPole-v1", dataset=f"minari:{name}", hidden=(8,), clone_epochs=30, lr=1e-3)
    stored = agent.collector.trajectories  # pyright: ignore[reportAttributeAccessIssue]
    episodes = list(minari_data.iterate_episodes())
    assert stored.length.tolist() == [len(e.rewards) for e in episodes]
    assert np.array_equal(stored.act.numpy(), np.concatenate([e.actions for e in episodes]))
    assert np.allclose(stored.obs.numpy(), np.concatenate([e.observations for e in episodes]))
    assert stored.terminated.all()
    right = float((stored.act == 1).float().mean())
    rows = []
    agent.learn(1, lambda _, row: rows.append(row), log_every=1)
    assert rows[0]["ess"] == pytest.approx(20, abs=1e-3)  # it starts as the estimate of who acted
    assert abs(float(agent.policy.dist(stored.states).exp()[:, 1].mean()) - right) < 0.1
    words = f"train off_policy_pg CartPole-v1 --dataset minari:{name} --steps 1 --eval-episodes 1 --run-dir a -q"
    assert main(words.split()) == 0
    assert json.loads(Path("a/config.json").read_text())["dataset"] == f"minari:{name}"
    with pytest.raises(TrajectoryError, match=r"no Minari data set 'not/there-v0'"):
        from_minari("not/there-v0", agent.policy)
    with pytest.raises(TrajectoryError, match="mask_source = info"):
        from_minari(name, policy_for(lambda: gym.make("CartPole-v1"), mask_source="info"))
