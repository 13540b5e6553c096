"""A head and a network of one's own, in a recipe from outside the package: trained, saved, loaded, filmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import policygrad as pg
from policygrad.algorithms.keywords import Advantage, Ascent, Bonus, Budget, CriticFit, Fisher, Rates, natural
from policygrad.cli import main
from policygrad.models.observations import Encoding


class Softmax(pg.Head):
    """A softmax at a temperature, with nothing but what a head must have: every gradient is by autograd."""

    def __init__(self, actions: int, temperature: float) -> None:
        self.size, self.temperature = actions, temperature

    def canonical(self, out: Tensor) -> Tensor:
        return torch.log_softmax(out / self.temperature, -1)

    def logp(self, dist: Tensor, act: Tensor) -> Tensor:
        return dist.gather(-1, act.unsqueeze(-1)).squeeze(-1)

    def entropy(self, dist: Tensor) -> Tensor:
        return -(dist.exp() * dist).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (old.exp() * (old - new)).sum(-1)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.gumbel(size=(*shape, self.size)).astype(np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return (out / self.temperature + noise).argmax(-1)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return out.argmax(-1)


class Gated(nn.Module):
    """A network of one's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate, self.value, self.last = nn.Linear(inputs, 8), nn.Linear(inputs, 8), nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.sigmoid(self.gate(x)) * self.value(x))


def policy_of(task: pg.Task, temperature: float) -> pg.Policy:
    encoding = Encoding(task.observation_space)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(task.seed)
        network = Gated(encoding.width, int(task.action_space.n))  # type: ignore
    return pg.Policy(network, Softmax(network.last.out_features, temperature), encoding=encoding)


def warm(
    task: pg.Task,
    *,
    num_steps: int = 32,
    temperature: float = 2.0,
    advantage: Advantage = Advantage(),  # noqa: B008
    ascent: Ascent = Ascent(lr=1e-2),  # noqa: B008
    fit: CriticFit = CriticFit(),  # noqa: B008
) -> pg.Plan:
    """Advantage actor-critic with a softmax at a temperature."""
    critic, update = task.critic(**fit.values(ascent)), pg.VanillaGradient(**ascent.values(task.seed))
    learner = pg.Learner(policy_of(task, temperature), advantage.estimator(), update, critic=critic)
    return pg.Plan(learner, num_steps=num_steps)


def warm_natural(
    task: pg.Task,
    *,
    num_steps: int = 32,
    budget: Budget = Budget(),  # noqa: B008
    fisher: Fisher = Fisher(),  # noqa: B008
    bonus: Bonus = Bonus(ent_coef=0.01),  # noqa: B008
    fit: CriticFit = CriticFit(critic_lr=1e-3),  # noqa: B008
) -> pg.Plan:
    """The same by trust regions: the head's Fisher matrix is by autograd, too."""
    policy, critic = policy_of(task, 2.0), task.critic(**fit.values(Rates(None, "constant", None)))
    update = pg.TrustRegion(**natural(policy, budget, fisher, bonus))
    return pg.Plan(pg.Learner(policy, pg.GAE(), update, critic=critic), num_steps=num_steps)


@pytest.mark.parametrize("recipe", [warm, warm_natural])
def test_a_head_and_a_network_of_ones_own_learn_and_come_back(recipe, tmp_path: Path) -> None:
    agent = pg.Agent(recipe, "CartPole-v1", seed=1)
    start = agent.policy.flat.clone()
    rows = []
    agent.learn(600, callback=lambda agent, row: rows.append(row))
    assert not torch.equal(agent.policy.flat, start)
    assert all(row["kl"] >= 0.0 for row in rows if row)
    back = pg.load(agent.save(tmp_path / "warm"), recipe=recipe)
    assert isinstance(back.policy.head, Softmax)
    assert isinstance(back.policy.network, Gated)
    assert torch.equal(back.policy.flat, agent.policy.flat)
    assert back.evaluate(3).returns == agent.evaluate(3).returns
    assert not torch.equal(back.learn(200).policy.flat, agent.policy.flat)


def test_such_an_agent_is_trained_and_filmed_on_the_command_line(tmp_path, capsys) -> None:
    pytest.importorskip("imageio_ffmpeg")
    recipe, run = f"{__file__}:warm", str(tmp_path / "run")
    words = ["--steps", "300", "--temperature", "3", "--eval-episodes", "2", "--run-dir", run, "-q"]
    assert main(["train", recipe, "CartPole-v1", *words]) == 0
    assert main(["video", run]) == 2
    assert f"policygrad video {run} --recipe" in capsys.readouterr().err
    assert main(["video", run, "--recipe", recipe, "--out", str(tmp_path / "film.mp4")]) == 0
    assert "return" in capsys.readouterr().out
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert main(["video", run, "--recipe", f"{__file__}:warm_natural"]) == 2
    assert "not by" in capsys.readouterr().err
