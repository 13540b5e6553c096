"""What is given as a body: every mistake that users made is one error that says what to do, and good bodies stay silent."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.errors import AdviceWarning
from policygrad.models.body_trial import BodyError, module_of, try_body
from policygrad.models.networks import FourierFeatures

OBS, ACT = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)


class Own(nn.Module):
    """A layer, and what a test does to its outputs."""

    def __init__(
        self, after: Callable[[Tensor], Any] = torch.tanh, before: Callable[[Tensor], Any] = lambda x: x
    ) -> None:
        super().__init__()
        self.layer, self.after, self.before = nn.Linear(4, 8), after, before

    def forward(self, obs: Tensor) -> Any:
        return self.after(self.layer(self.before(obs)))


class Wide(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)


class NoSuper(nn.Module):
    def __init__(self) -> None:
        pass


class OfCleanRL(nn.Module):
    def __init__(self, envs: Any) -> None:
        super().__init__()
        self.actor = nn.Linear(int(np.prod(envs.single_observation_space.shape)), 2)

    def get_action_and_value(self, obs: Tensor) -> None: ...


class Counts(nn.Module):
    """Remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.calls += 1
        return obs + self.calls


class Envs:
    single_observation_space = OBS


def noisy(x: Tensor) -> Tensor:
    return nn.functional.dropout(x, 0.5)


def cut(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy())


REFUSED: list[tuple[Any, str]] = [
    ("mlp", r"body must be a module, .* got 'mlp'"),
    (Wide, r"body is the class Wide, which is called with the observation space, and Wide\(space\) raised TypeError"),
    (OfCleanRL, r"class OfCleanRL, .* raised AttributeError: .*single_observation_space"),
    (OfCleanRL(Envs), "looks like an agent of CleanRL"),
    (nn.Linear, r"body is the class Linear, .* body=lambda space: Linear\(…\)"),
    (lambda space: 3, "made 3. A body is a torch.nn.Module"),
    (NoSuper(), r"did not call super\(\).__init__\(\)"),
    (nn.Module(), r"Give it a method forward"),
    (nn.LSTM(4, 8), 'a memory over the steps of an episode is memory="lstm"'),
    (nn.GRU(4, 8), 'memory="gru"'),
    (
        Own(lambda x: torch.distributions.Categorical(logits=x)),
        "an object of the class Categorical.*after a linear layer",
    ),
    (nn.Linear(3, 32), r"observations \(2, 4\) of float32: mat1 and mat2 shapes"),
    (Own().double(), r"parameters are float64, .* call body\.float\(\)"),
    (Own(lambda x: x.double()), r"made \(2, 8\) of float64 .* end it with \.float\(\)"),
    (Own(lambda x: x.mean(0)), "do not squeeze, sum or average over the batch"),
    (
        Own(lambda x: x.mean(0, keepdim=True).expand(len(x), -1)),
        "an observation had other features in a batch of its own",
    ),
    (Own(lambda x: x.unsqueeze(0)), r"the batch must stay the first axis.*unsqueeze\(0\)"),
    (Own(lambda x: x.unsqueeze(-1)), r"end it with nn\.Flatten\(\)"),
    (Own(lambda x: x.sum(-1)), r"end it with unsqueeze\(-1\)"),
    (Own(before=torch.squeeze), r"made \(8,\) of float32 of observations \(1, 4\)"),
    (
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False)),
        r"\(1, 4\) of float32: Expected more",
    ),
    (Own(lambda x: x.detach()), "no gradient of its features reaches them"),
    (Own(cut), "no gradient of its features reaches them"),
    (Own(noisy), "the same observations had other features the second time"),
    (Own(before=noisy), "the same observations had other features the second time"),
    (Counts(), "the same observations had other features the second time"),
    (nn.TransformerEncoderLayer(4, 2), "in a batch of its own"),  # to which the batch is a sequence
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_what_is_no_body_is_refused_with_a_reason(body: Any, message: str) -> None:
    with pytest.raises(BodyError, match=f"(?is){message}"):
        pg.make_policy(OBS, ACT, body=body)


def test_dropout_on_a_few_numbers_is_noticed_whatever_the_seed() -> None:
    for seed in range(150):  # two masks on four numbers are often equal
        torch.manual_seed(seed)
        with pytest.raises(BodyError, match="other features the second time"):
            pg.make_policy(OBS, ACT, body=Own(before=noisy))


GOOD: dict[str, Callable[[], Any]] = {
    "a module": Own,
    "a function": lambda: lambda space: nn.Linear(space.shape[0], 3),
    "no parameters": nn.Identity,
    "frozen": lambda: Own().requires_grad_(False),
    "frozen and cut": lambda: Own(cut).requires_grad_(False),
    "half frozen": lambda: nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 2)),
    "a class of the space": lambda: type(
        "Space", (nn.Linear,), {"__init__": lambda s, space: nn.Linear.__init__(s, 4, 2)}
    ),
    "lazy": lambda: nn.LazyLinear(3),
    "normalised": lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh()),
    "dropout of nothing": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0)),
    "features": lambda: lambda space: FourierFeatures(space, 1),
    "indices": lambda: nn.Sequential(Indices(), nn.Embedding(1, 3), nn.Flatten()),
}


class Indices(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs.long()


@pytest.mark.parametrize("name", GOOD)
def test_good_bodies_are_silent_and_the_trial_draws_nothing(name: str) -> None:
    """The negative control. Nothing is left of the trial: neither in the generator nor in the mode of gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = pg.make_policy(OBS, ACT, body=GOOD[name]())
    assert policy.outputs(np.zeros((3, 4), np.float32)).shape == (3, 2)
    assert all(p.grad is None for p in policy.parameters())
    body = module_of(GOOD[name](), OBS)
    body(torch.zeros(1, 4))  # where a lazy one makes its weights
    before = torch.get_rng_state()
    try_body(body, body, torch.zeros(2, 4))
    assert torch.equal(before, torch.get_rng_state())


def test_an_error_in_a_function_stays_what_it_is_and_is_explained() -> None:
    with pytest.raises(AttributeError, match="no attribute 'n'") as error:
        pg.make_policy(OBS, ACT, body=lambda space: nn.Linear(space.n, 3))
    assert "is called with the observation space. A body is" in error.value.__notes__[0]
    with pytest.raises(TypeError, match="FourierFeatures need a Box"):
        pg.make_policy(spaces.Discrete(3), ACT, body=lambda space: FourierFeatures(space, 1))


def test_bodies_of_dicts_are_told_what_they_were_given() -> None:
    space = spaces.Dict(a=OBS, b=spaces.Tuple([spaces.Discrete(3), OBS]))
    with pytest.raises(BodyError, match=r"\{'a': \(2, 4\) of float32, 'b': a tuple of 2: \(2, 3\) of float32"):
        pg.make_policy(space, ACT, body=Own())


ADVICE: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5)), "Dropout drops nothing in the body Sequential"),
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), "BatchNorm1d in the body Sequential keeps its mean 0"),
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1)), "are those of a Softmax"),
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.LogSoftmax(-1)), "are those of a LogSoftmax"),
    (lambda: Own(lambda x: torch.softmax(x, -1)), "body Own are those of a Softmax"),
]


@pytest.mark.parametrize(
    ("make", "message"), ADVICE, ids=[text.split()[-1] + str(i) for i, (_, text) in enumerate(ADVICE)]
)
def test_layers_that_do_nothing_or_harm_are_warned_of_where_the_user_stands(
    make: Callable[[], nn.Module], message: str
) -> None:
    for build in (pg.make_policy, lambda *a, **k: pg.make_critic(a[0], **k)):
        with pytest.warns(AdviceWarning, match=message) as caught:
            build(OBS, ACT, body=make())
        assert [w.filename for w in caught] == [__file__]


def test_what_dropout_and_batch_norm_do_is_what_the_warning_says() -> None:
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    with pytest.warns(AdviceWarning):
        policy = pg.make_policy(OBS, ACT, body=body)
    policy.train()  # which PyTorch's users do
    obs = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    layer, output = policy.network.body[0], policy.network.output
    expected = output(layer(obs) / np.sqrt(1.0 + 1e-5)).detach()
    policy.network.eval()
    torch.testing.assert_close(policy.network(obs).detach(), expected)


def test_trained_statistics_and_tabular_features_are_no_reason_to_warn() -> None:
    encoder = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    encoder(torch.randn(32, 4, generator=torch.Generator().manual_seed(1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.make_policy(OBS, ACT, body=encoder)
        pg.make_policy(spaces.Discrete(2), ACT, body=nn.Identity())  # one-hot rows sum to 1, too


def test_a_body_that_a_file_does_not_fit_is_named(tmp_path) -> None:
    small: dict[str, Any] = {"num_envs": 1, "num_steps": 8, "minibatches": 1}
    path = pg.ppo("CartPole-v1", body=nn.Linear(4, 3), **small).save(tmp_path / "own")
    for load in (pg.load, pg.load_policy):
        with pytest.raises(pg.PolicygradError, match=r"the body given does not fit .*float32 \(5\), got .*\(3,\)"):
            load(path, body=nn.Linear(4, 5))
        with pytest.raises(BodyError, match="mat1 and mat2"):
            load(path, body=nn.Linear(3, 5))
        with pytest.raises(AttributeError, match="no attribute 'n'"):
            load(path, body=lambda space: nn.Linear(space.n, 3))
        load(path, body=nn.Linear(4, 3))
