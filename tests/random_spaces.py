"""Gymnasium spaces for hypothesis: whatever may be observed or done, the unsupported kinds among it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.uint8, np.int8, np.int32, np.int64)
SHAPES = ((), (1,), (3,), (2, 2), (1, 2, 1))
KINDS = ("finite", "unbounded", "half", "extreme", "narrow", "uneven")


def box(shape: tuple[int, ...], dtype: Any, kind: str) -> spaces.Box:
    """A Box whose bounds are of the kind."""
    dtype = np.dtype(dtype)
    floating = np.issubdtype(dtype, np.floating)
    limits = np.finfo(dtype) if floating else np.iinfo(dtype)
    low, high = np.full(shape, 0, dtype), np.full(shape, 5, dtype)
    if kind == "extreme":  # float64's own cannot even be sampled
        most = 1e300 if dtype == np.float64 else limits.max
        low, high = np.full(shape, -most if floating else limits.min, dtype), np.full(shape, most, dtype)
    elif floating and kind in ("unbounded", "half"):
        high = np.full(shape, np.inf, dtype)
        low = -high if kind == "unbounded" else low
    elif kind == "narrow":
        high = low + np.asarray(1e-3 if floating else 1, dtype)
    elif kind == "uneven":
        high = low + np.arange(1, 1 + high.size, dtype=dtype).reshape(shape)
    return spaces.Box(low, high, shape, dtype.type)


def boxes(dtypes: tuple = FLOATS + INTEGERS, shapes: tuple = SHAPES) -> st.SearchStrategy[spaces.Space]:
    """Boxes of any kind."""
    return st.builds(box, st.sampled_from(shapes), st.sampled_from(dtypes), st.sampled_from(KINDS))


STARTS = st.sampled_from((0, 0, -3, 1, 100))


def discretes() -> st.SearchStrategy[spaces.Space]:
    """Discrete, with any start."""
    return st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), STARTS)


@st.composite
def multi_discretes(draw: Any) -> spaces.Space:
    """MultiDiscrete, one- or two-dimensional, with any starts."""
    shape = draw(st.sampled_from(((1,), (2,), (3,), (2, 2))))
    size = int(np.prod(shape))
    nvec = np.array(draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))).reshape(shape)
    start = np.array(draw(st.lists(STARTS, min_size=size, max_size=size))).reshape(shape)
    return spaces.MultiDiscrete(nvec, start=start)


def multi_binaries() -> st.SearchStrategy[spaces.Space]:
    """MultiBinary of any shape."""
    return st.sampled_from((1, 3, (2, 2))).map(spaces.MultiBinary)


def nested(parts: st.SearchStrategy[spaces.Space]) -> st.SearchStrategy[spaces.Space]:
    """The parts themselves, and Dicts and Tuples of them up to three deep."""
    keys = st.sampled_from(("a", "b", "goal", "0"))

    def deeper(inner: st.SearchStrategy[spaces.Space]) -> st.SearchStrategy[spaces.Space]:
        dicts = st.dictionaries(keys, inner, min_size=1, max_size=3).map(spaces.Dict)
        return dicts | st.lists(inner, min_size=1, max_size=3).map(lambda found: spaces.Tuple(tuple(found)))

    return parts | deeper(parts) | deeper(parts | deeper(parts))


SUPPORTED = nested(boxes() | discretes() | multi_discretes() | multi_binaries())
STRANGE = st.sampled_from(
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Box(0.0, 1.0, (0,)),
        spaces.Box(0.0, 1.0, (2, 0)),
        spaces.Dict({}),
        spaces.Tuple([]),
        spaces.Discrete(10**9),
    ]
)
ODD = nested(boxes() | STRANGE)
DOABLE = st.one_of(boxes(FLOATS), boxes(FLOATS), discretes(), multi_discretes(), multi_binaries())
# without Discrete(10⁹): that many outputs do not fit into memory
UNDOABLE = nested(boxes() | STRANGE.filter(lambda space: not isinstance(space, spaces.Discrete)))
ONE_IN_TEN = st.integers(0, 9).map(lambda k: k == 7)
OBSERVATIONS = ONE_IN_TEN.flatmap(lambda odd: ODD if odd else SUPPORTED)
ACTIONS = ONE_IN_TEN.flatmap(lambda odd: UNDOABLE if odd else DOABLE)


def moderate(space: spaces.Space, rng: np.random.Generator) -> Any:
    """An element as environments show them: within ±100 wherever the bounds allow it."""
    if isinstance(space, spaces.Dict):
        return {key: moderate(part, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(moderate(part, rng) for part in space.spaces)
    if isinstance(space, spaces.Box):
        low, high = (np.clip(x.astype(np.float64), -100.0, 100.0) for x in (space.low, space.high))
        x = np.clip(np.asarray(rng.uniform(low, high)).astype(space.dtype), space.low, space.high)
        return np.asarray(x, space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(2, size=space.shape, dtype=np.int8)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return space.start + rng.integers(sizes)
