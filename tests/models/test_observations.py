"""Encodings against Gymnasium's own flattening, and there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st
from random_spaces import SUPPORTED, moderate
from torch import Tensor, nn

import policygrad as pg
from policygrad.data import Batch
from policygrad.models.observations import MAX_FEATURES, Encoding, flat_mask, leaves, width
from policygrad.tree import Tree, take, to_torch

BOX = spaces.Box(-1.0, 1.0, (2, 3))
NESTED = spaces.Dict(
    image=spaces.Box(0, 255, (2, 2, 1), np.uint8),
    inner=spaces.Tuple(
        [spaces.Discrete(3, start=-1), spaces.Dict(bits=spaces.MultiBinary((2, 2)), x=spaces.Box(-1.0, 1.0, ()))]
    ),
    many=spaces.MultiDiscrete([[2, 3], [4, 1]], start=[[0, -5], [2, 0]]),
)


def some(space: spaces.Space, n: int, seed: int = 0) -> tuple[Any, list[Any]]:
    """A batch of observations as a vector environment has it, and one by one."""
    rng = np.random.default_rng(seed)
    items = [moderate(space, rng) for _ in range(n)]
    return concatenate(space, items, create_empty_array(space, n)), items


def encoded(space: spaces.Space, obs: Any, n: int) -> Tree:
    encoding = Encoding(space)
    out = encoding.empty(n)
    encoding.encode(obs, {}, out)
    return out


def own_dtype(space: spaces.Space) -> np.dtype:
    """Of numbers: integers stay what they are, floats are float32, and so are choices, one-hot."""
    numbers = isinstance(space, spaces.Box | spaces.MultiBinary) and not np.issubdtype(space.dtype, np.floating)
    return np.dtype(space.dtype if numbers else np.float32)


def assert_equal_arrays(found: Tree, expected: Tree) -> None:
    """The same structure, names, numbers and types."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, part in expected.items():
            assert_equal_arrays(found[name], part)
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=100)
@given(space=SUPPORTED, seed=st.integers(0, 1000))
def test_an_encoding_is_what_gymnasium_flattens_to(space: spaces.Space, seed: int) -> None:
    """In NumPy and in torch, in one array or in parts, which have the type and the place of theirs."""
    obs, items = some(space, 4, seed)
    encoding, tree = Encoding(space), encoded(space, obs, 4)
    expected = np.stack([spaces.flatten(space, item) for item in items]).astype(np.float32)
    for ours in (encoding.features(tree), encoding.features(to_torch(tree), torch.float32).numpy()):
        np.testing.assert_array_equal(ours.reshape(4, -1), expected)
        assert ours.shape == (4, *(space.shape if isinstance(space, spaces.Box) else expected.shape[1:]))
        assert ours.dtype == np.float32
    assert encoding.width == expected.shape[1]
    assert encoding.features(to_torch(tree), torch.float64).dtype == torch.float64
    parts = tree if isinstance(space, spaces.Dict | spaces.Tuple) else {"obs": tree}
    assert list(parts) == ["/".join(map(str, path)) or "obs" for path, _ in leaves(space)]
    for x, (_, part), leaf in zip(parts.values(), leaves(space), encoding.leaves, strict=True):
        assert x.dtype == own_dtype(part)
        np.testing.assert_array_equal(x.reshape(4, -1), expected[:, leaf.start : leaf.start + leaf.width])
        assert x.shape[1:] == (part.shape if isinstance(part, spaces.Box) else (leaf.width,))


def assert_equal_trees(found: Any, expected: Any, space: spaces.Space) -> None:
    if isinstance(space, spaces.Dict):
        assert list(found) == list(space.spaces)
        for key, part in space.spaces.items():
            assert_equal_trees(found[key], expected[key], part)
    elif isinstance(space, spaces.Tuple):
        assert isinstance(found, tuple)
        for a, b, part in zip(found, expected, space.spaces, strict=True):
            assert_equal_trees(a, b, part)
    elif isinstance(space, spaces.Box | spaces.MultiBinary):
        np.testing.assert_array_equal(found.numpy(), np.asarray(expected, np.float32))
    else:  # one-hot: every entry's columns, decoded
        sizes, starts = np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))), np.atleast_1d(space.start)
        parts = found.split([int(n) for n in sizes.reshape(-1)], -1)
        assert all((part.sum(-1) == 1).all() for part in parts)
        values = np.stack([part.argmax(-1).numpy() for part in parts], -1) + starts.reshape(-1)
        np.testing.assert_array_equal(values, np.asarray(expected).reshape(len(found), -1))


@settings(max_examples=100)
@given(space=SUPPORTED.filter(lambda s: isinstance(s, spaces.Dict | spaces.Tuple)), seed=st.integers(0, 1000))
def test_the_tree_of_an_encoding_is_the_observation(space: spaces.Space, seed: int) -> None:
    obs, _ = some(space, 3, seed)
    encoding = Encoding(space)
    features = encoding.features(to_torch(encoded(space, obs, 3)), torch.float32)
    assert_equal_trees(encoding.tree(features), obs, space)


def test_one_hot_counts_from_the_start() -> None:
    assert encoded(spaces.Discrete(3, start=-1), np.array([-1, 0, 1]), 3).tolist() == np.eye(3).tolist()
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    assert encoded(space, np.array([[5, -1], [6, 1]]), 2).tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert encoded(spaces.Discrete(3, start=100), np.array([101]), 1).tolist() == [[0, 1, 0]]


def test_a_box_keeps_its_shape_and_a_box_of_no_dimensions_is_one_number() -> None:
    assert Encoding(BOX).empty(4).shape == (4, *Encoding(BOX).features_shape) == (4, 2, 3)
    number = spaces.Box(-1.0, 1.0, ())
    assert Encoding(number).features_shape == ()
    assert encoded(number, np.array([0.5, -0.5]), 2).tolist() == [0.5, -0.5]
    policy = pg.make_policy(number, spaces.Discrete(2), hidden=(3,))
    assert policy.outputs(np.array([0.5, -0.5], np.float32)).shape == (2, 2)


@pytest.mark.parametrize("space", [BOX, spaces.Dict(a=BOX), spaces.Discrete(3)], ids=str)
def test_a_mask_stands_beside_the_parts_and_does_not_reach_the_features(space: spaces.Space) -> None:
    encoding, plain = Encoding(space, context=2, mask_source="info"), Encoding(space)
    obs, _ = some(space, 4)
    out, expected = encoding.empty(4), encoded(space, obs, 4)
    assert out["action_mask"].all()  # everything is legal until somebody says otherwise
    mask = np.eye(4, 2, dtype=np.int8)
    encoding.encode(obs, {"action_mask": mask}, out)
    assert_equal_arrays(out.pop("action_mask"), mask.astype(bool))
    assert_equal_arrays(out if isinstance(expected, dict) else out["obs"], expected)
    assert (encoding.width, encoding.features_shape) == (plain.width, plain.features_shape)
    for told in (mask, 1 - mask):
        tree = out | {"action_mask": told.astype(bool)}
        assert_equal_arrays(encoding.features(tree), plain.features(expected))
        found = encoding.features(to_torch(tree), torch.float32)
        assert torch.equal(found, torch.from_numpy(plain.features(expected)))


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_networks_critics_and_normalisers_see_the_features_alone(normalize_obs: bool) -> None:
    space = spaces.Box(-1.0, 1.0, (3,))
    policy = pg.make_policy(
        space, spaces.Discrete(2), hidden=(4,), mask_source="info", normalize_obs=normalize_obs, kernel="autograd"
    )
    assert policy.encoding is not None
    x = to_torch(policy.encoding.empty(5))
    x["obs"][:] = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before, dist = policy.features(x), policy.dist(x)
    x["action_mask"][:] = torch.tensor([False, True])
    assert torch.equal(policy.features(x), before)
    assert torch.equal(policy.dist(x).exp(), torch.tensor([[0.0, 1.0]]).expand(5, -1))
    assert (dist.exp() > 0.0).all()
    assert before.shape == (5, 3)
    critic = pg.make_critic(space, hidden=(4,))
    assert critic.value(policy.features(x)).shape == (5,)
    if policy.normalizer is not None:
        assert policy.normalizer.mean.shape == (3,)


class Body(nn.Module):
    """For NESTED: says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        self.seen: list[Any] = []

    def forward(self, obs: dict[str, Any]) -> Tensor:
        number, inner = obs["inner"]
        self.seen.append(obs)
        return torch.cat([self.image(obs["image"]), number, inner["bits"].flatten(1), inner["x"].unsqueeze(-1)], -1)


def test_a_body_of_the_users_sees_a_dict_of_tensors_in_policy_and_critic() -> None:
    obs, _ = some(NESTED, 5)
    x = encoded(NESTED, obs, 5)
    tensors = to_torch(x)
    bodies = [Body(), Body()]
    policy = pg.make_policy(NESTED, spaces.Discrete(2), body=bodies[0])
    critic = pg.make_critic(NESTED, body=bodies[1])
    assert policy.outputs(x).shape == (5, 2)
    assert critic.value(policy.features(tensors)).shape == (5,)
    for body in bodies:
        assert_equal_trees(body.seen[-1], obs, NESTED)
        assert body.seen[-1]["image"].shape == (5, 2, 2, 1)
        assert body.seen[-1]["inner"][1]["x"].shape == (5,)
        assert body.seen[-1]["many"].shape == (5, 10)
    weight = torch.ones(5)
    act = torch.tensor([0, 1, 0, 1, 0])
    gain = policy.logp(tensors, act).sum()
    torch.testing.assert_close(
        policy.evaluate(Batch.of(tensors, act)).gradient(weight), policy.gradient(gain), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"another network already: pass copy\.deepcopy"):
        pg.make_critic(NESTED, body=bodies[0])


def test_a_body_does_not_see_the_legal_actions() -> None:
    space = spaces.Dict(action_mask=spaces.MultiBinary(2), x=spaces.Box(-1.0, 1.0, (3,)))
    seen = []

    class Look(nn.Module):
        def forward(self, obs: dict[str, Tensor]) -> Tensor:
            seen.append(list(obs))
            return obs["x"]

    pg.make_policy(space, spaces.Discrete(2), body=Look())
    pg.make_critic(space, body=Look())
    assert seen
    assert all(parts == ["x"] for parts in seen)
    assert Encoding(space).width == 3


@settings(max_examples=100)
@given(space=SUPPORTED, seed=st.integers(0, 100))
def test_single_observations_and_batches_are_told_apart(space: spaces.Space, seed: int) -> None:
    encoding = Encoding(space)
    obs, items = some(space, 3, seed)
    assert obs in batch_space(space, 3)
    batch, single = encoding.batch(obs)
    assert not single
    rows = encoding.empty(3)
    encoding.encode(batch, {}, rows)
    for i, item in enumerate(items):
        one, single = encoding.batch(item)
        assert single
        out = encoding.empty(1)
        encoding.encode(one, {}, out)
        assert_equal_arrays(out, take(rows, slice(i, i + 1)))


@pytest.mark.parametrize(
    ("space", "obs"),
    [
        (spaces.Box(-1.0, 1.0, (3,)), (0.5, -0.25, 0.75)),
        (spaces.Box(-1.0, 1.0, (2, 2)), ((0.5, -0.25), (0.75, 1.0))),
        (spaces.MultiDiscrete([2, 3]), (1, 2)),
        (spaces.Dict(a=spaces.Box(-1.0, 1.0, (3,)), b=spaces.Discrete(2)), {"a": (0.5, -0.25, 0.75), "b": 1}),
        (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(4))), [2, 3]),
    ],
)
def test_a_single_observation_in_tuples_and_lists_is_what_it_is_in_arrays(space: spaces.Space, obs: Any) -> None:
    encoding = Encoding(space)
    batch, single = encoding.batch(obs)
    assert single
    out = encoding.empty(len(encoding.leaves[0].of(batch)))
    encoding.encode(batch, {}, out)
    expected: Any = obs
    if isinstance(space, spaces.Dict):
        expected = {key: np.asarray(part) for key, part in obs.items()}
    elif not isinstance(space, spaces.Tuple):
        expected = np.asarray(obs)
    flattened = np.reshape(spaces.flatten(space, expected), encoding.features_shape)
    np.testing.assert_array_equal(encoding.features(out), [flattened])


@pytest.mark.parametrize(
    ("space", "obs"),
    [
        (BOX, np.zeros((3, 2))),
        (BOX, np.zeros((4, 3, 2))),
        (BOX, np.zeros(3)),
        (spaces.Discrete(3), np.zeros((2, 3))),
        (spaces.Dict(a=BOX), {"a": np.zeros((3, 2))}),
    ],
)
def test_observations_of_another_shape_are_refused(space: spaces.Space, obs: Any) -> None:
    shape = BOX.shape if space != spaces.Discrete(3) else ()
    with pytest.raises(ValueError, match="expected observations of shape") as error:
        Encoding(space).batch(obs)
    assert str(shape) in str(error.value)


PAIR = spaces.Dict(a=BOX, b=spaces.Box(-1.0, 1.0, (2,)), c=spaces.Discrete(2))


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros(1), "c": 0}, r"shape \(2,\) or \(n, 2\), got \(1,\)"),
        ({"a": np.zeros((4, 2, 3)), "b": np.zeros((1, 2)), "c": np.zeros(4)}, "n of every part of it"),
        ({"a": np.zeros((4, 2, 3)), "b": np.zeros(2), "c": np.zeros(4)}, "n of every part of it"),
        ({"a": np.zeros((2, 3)), "b": np.zeros(2)}, "expected an observation of Dict"),
    ],
)
def test_no_part_of_an_observation_is_stretched_to_fit(obs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoding(PAIR).batch(obs)
    whole = {"a": np.zeros((4, 2, 3)), "b": np.zeros((4, 2)), "c": np.zeros(4)}
    assert Encoding(PAIR).batch(whole) == (whole, False)


def test_a_mask_has_the_shape_of_its_space_and_is_of_0_and_1() -> None:
    space = spaces.Dict(action_mask=spaces.Box(0, 255, (3,), np.uint8), x=BOX)
    encoding = Encoding(space, 3, "observation")
    out = encoding.empty(1)
    encoding.encode({"action_mask": np.array([[1, 0, 1]], np.uint8), "x": np.zeros((1, 2, 3))}, {}, out)
    with pytest.raises(ValueError, match="expected 0 or 1 in an action mask, got 255"):
        encoding.encode({"action_mask": np.array([[255, 0, 1]], np.uint8), "x": np.zeros((1, 2, 3))}, {}, out)
    assert_equal_arrays(out, {"x": np.zeros((1, 2, 3), np.float32), "action_mask": np.array([[True, False, True]])})
    with pytest.raises(ValueError, match=r"shape \(3,\) or \(n, 3\), got \(1,\)"):
        encoding.batch({"action_mask": np.ones(1), "x": np.zeros((2, 3))})


@pytest.mark.parametrize("obs", [{"b": np.zeros((2, 3))}, np.zeros(3), None, 3])
def test_observations_of_another_structure_are_refused(obs: Any) -> None:
    with pytest.raises(ValueError, match=r"expected an observation of Dict\('a'"):
        Encoding(spaces.Dict(a=BOX)).batch(obs)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(BOX),
        spaces.Graph(BOX, None),
        spaces.OneOf([BOX, BOX]),
        spaces.Discrete(MAX_FEATURES + 1),
        spaces.MultiDiscrete([MAX_FEATURES, 1]),
        spaces.Dict({}),
        spaces.Tuple([]),
        spaces.Box(0.0, 1.0, (0,)),
    ],
    ids=str,
)
def test_other_spaces_are_refused_by_name(space: spaces.Space) -> None:
    for outer in (space, spaces.Dict(part=space)):
        with pytest.raises(TypeError, match="unsupported observation space") as error:
            Encoding(outer)
        assert str(space) in str(error.value)


def test_the_largest_space_is_supported() -> None:
    assert width(spaces.Discrete(MAX_FEATURES)) == MAX_FEATURES


def test_a_box_may_have_any_size() -> None:
    space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    encoding, picture = Encoding(space), np.random.default_rng(0).integers(0, 256, (2, 210, 160, 3), np.uint8)
    assert encoding.width == 100_800 > MAX_FEATURES
    out = encoding.empty(2)
    encoding.encode(picture, {}, out)
    assert_equal_arrays(out, picture)
    assert_equal_arrays(encoding.features(out), picture.astype(np.float32))
    inside, parts = Encoding(spaces.Dict(a=space, b=BOX)), {"a": picture, "b": np.zeros((2, 2, 3), np.float32)}
    inside.encode(parts, {}, out := inside.empty(2))
    assert_equal_arrays(out, parts)
    assert inside.features(out).shape == (2, 100_806)


@pytest.mark.parametrize(
    ("space", "right", "wrong"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), [1.0, 255.0], ([0.5, 1.0], [np.nan, 1.0], [256.0, 1.0], [-1.0, 0.0])),
        (spaces.Box(-9, 9, (2,), np.int16), [-9.0, 9.0], ([0.5, 1.0], [np.inf, 1.0], [1e5, 1.0])),
        (spaces.MultiBinary(2), [1.0, 0.0], ([0.5, 1.0], [np.nan, 1.0])),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_numbers_that_an_integer_cannot_be_are_refused(space: spaces.Space, right: list, wrong: tuple) -> None:
    """Environments may show floats where they promise integers, as long as these are integers."""
    encoding = Encoding(space)
    encoding.encode(np.array([right]), {}, out := encoding.empty(1))
    assert_equal_arrays(out, np.array([right], space.dtype))
    for row in wrong:
        with pytest.raises(ValueError, match=rf"observations of .*must be {space.dtype}, got float64"):
            encoding.encode(np.array([row]), {}, encoding.empty(1))


def test_floats_are_float32_whatever_the_space_has() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        space = spaces.Box(-1.0, 1.0, (2,), dtype)
        assert_equal_arrays(encoded(space, np.array([[0.5, -0.25]], dtype), 1), np.array([[0.5, -0.25]], np.float32))


def test_no_two_parts_share_a_name_however_their_keys_are_written() -> None:
    one = spaces.Discrete(2)
    space = spaces.Dict(
        {"a": spaces.Dict({"/b": one, "b": one}), "a/": spaces.Dict({"b": one}), "a/b": one, "a~1b": one, "a~": one}
    )
    names = {leaf.name for leaf in Encoding(space).leaves}
    assert len(names) == 6


def test_leaves_come_in_gymnasiums_order_with_their_paths() -> None:
    paths = [path for path, _ in leaves(NESTED)]
    assert paths == [("image",), ("inner", 0), ("inner", 1, "bits"), ("inner", 1, "x"), ("many",)]
    columns = [(leaf.start, leaf.width) for leaf in Encoding(NESTED).leaves]
    assert columns == [(0, 4), (4, 3), (7, 4), (11, 1), (12, 10)]


@pytest.mark.parametrize(
    "mask",
    [
        [1, 0, 1, 1, 0],
        np.array([1, 0, 1, 1, 0], np.int8),
        np.array([True, False, True, True, False]),
        (np.array([1, 0], np.int8), np.array([1, 1, 0], np.int8)),
        [[1, 0], [1, 1, 0]],
    ],
)
def test_legal_actions_come_flat_or_an_entry_at_a_time(mask: Any) -> None:
    assert flat_mask(mask).tolist() == [True, False, True, True, False]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(TypeError, match=r"need 'action_mask' with 3 entries, got 2"):
        pg.make_policy(spaces.Dict(action_mask=spaces.MultiBinary(2), x=BOX), spaces.Discrete(3))
    with pytest.raises(TypeError, match=r"need 'action_mask' with 3 entries, got None"):
        pg.make_policy(spaces.Dict(x=BOX), spaces.Discrete(3), mask_source="observation")
    encoding = Encoding(BOX, 3, "info")
    with pytest.raises(ValueError, match=r"action_mask must have 3 entries, one per action, got 2"):
        encoding.encode(np.zeros((1, 2, 3)), {"action_mask": np.ones((1, 2))}, encoding.empty(1))
    with pytest.raises(ValueError, match=r"info has no 'action_mask': it has nothing"):
        encoding.encode(np.zeros((1, 2, 3)), {}, encoding.empty(1))
