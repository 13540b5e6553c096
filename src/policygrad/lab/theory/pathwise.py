"""Two ways to estimate ∇J of one continuous action: by the score function, and along the path of the action.

    score function   E[ (q(x) − b) ∇log π(x) ]      needs values of q only, for any q
    pathwise         E[ q'(x) ∇x ],  x = tanh(μ + σ ε)    needs the slope of q, and that q does not jump

(Mohamed, Rosca, Figurnov & Mnih 2020, arXiv 1906.10652, call them score-function and pathwise estimators.) REINFORCE, PPO and
the rest of the grid use the first; DDPG, TD3 and SAC the second, with a learned q. Here q is known. The policy is SAC's, so the
estimates of every sample are those of the package's own head; their means and variances are exact, by quadrature over ε, and
compared with simulated ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policygrad.lab.results import Result, align
from policygrad.models.exploring import Squashed

WIDTHS = (1.0, 0.5, 0.2, 0.1, 0.05)
FREQUENCIES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
REACH, PANELS, NODES = 9.0, 360, 8  # of the quadrature over ε: Gauss-Legendre on panels, with an edge at every jump
NAMES = ("score function", "score function, q − E q", "pathwise")
ONE = np.ones(1)

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Landscape:
    """q of one action x in (−1, 1), its slope where it has one, and where it jumps."""

    value: Function
    slope: Function
    jumps: tuple[float, ...] = ()


def hill(center: float, ripple: float = 0.0, frequency: float = 1.0, jump: float = 0.0) -> Landscape:
    """q(x) = −2 (x − c)² + ripple · sin(ω (x − c)), and `jump` more for x > c."""

    def value(x: np.ndarray) -> np.ndarray:
        away = x - center
        return -2.0 * away**2 + ripple * np.sin(frequency * away) + jump * (away > 0.0)

    def slope(x: np.ndarray) -> np.ndarray:
        away = x - center
        return -4.0 * away + ripple * frequency * np.cos(frequency * away)

    return Landscape(value, slope, (center,) if jump else ())


@dataclass(frozen=True)
class OneSample:
    """An estimate of ∇J by (μ, log σ) from one sample: exact moments, and the mean of simulated samples."""

    name: str
    mean: tuple[float, float]
    bias: float  # ‖E ĝ − ∇J‖
    variance: float  # tr Cov ĝ
    simulated: tuple[float, float]
    errors: tuple[float, float]  # standard errors of these

    @property
    def off(self) -> float:
        """How many standard errors the simulated mean lies from the exact one, at most."""
        each = zip(self.mean, self.simulated, self.errors, strict=True)
        return max(abs(a - b) / error if error > 0.0 else 0.0 for a, b, error in each)


@dataclass(frozen=True)
class Compared:
    """The estimates for one q and one policy."""

    what: str
    width: float  # σ
    gradient: tuple[float, float]  # ∇J by (μ, log σ)
    estimates: tuple[OneSample, ...]

    def __getitem__(self, name: str) -> OneSample:
        return {x.name: x for x in self.estimates}[name]

    @property
    def ratio(self) -> float:
        """The variance of the pathwise estimate, divided by that of the score function with a baseline."""
        return self["pathwise"].variance / self["score function, q − E q"].variance


@dataclass(frozen=True)
class ScoreOrPath(Result):
    """The estimates on a smooth hill by the policy's width σ, on a hill with ripples by their frequency ω, and on a cliff."""

    widths: tuple[Compared, ...]
    ripples: tuple[Compared, ...]
    frequencies: tuple[float, ...]
    cliff: Compared
    samples: int

    @property
    def crossover(self) -> float:
        """ω from which on the pathwise estimate has the larger variance, between two that were tried; NaN: none of them."""
        points = list(zip(self.frequencies, (math.log(row.ratio) for row in self.ripples), strict=True))
        for (a, low), (b, high) in itertools.pairwise(points):
            if low < 0.0 <= high:
                return math.exp(math.log(a) - low * math.log(b / a) / (high - low))
        return math.nan

    def table(self) -> str:
        """One row per q and policy."""
        rows = []
        for row in (*self.widths, *self.ripples, self.cliff):
            variances = [f"{x.variance:.3g}" for x in row.estimates]
            bias = row["pathwise"].bias
            shown = "0" if bias < 1e-9 else f"{bias:.3g}"
            off = max(x.off for x in row.estimates)
            rows.append(
                [row.what, f"{math.hypot(*row.gradient):.3g}", *variances, f"{row.ratio:.3g}", shown, f"{off:.1f}"]
            )
        header = ("q and policy", "‖∇J‖", "var, score", "with baseline", "pathwise", "ratio", "bias, pathwise", "off")
        note = (
            "variance: tr Cov of ĝ from one sample, exact; ratio: pathwise / score function with baseline.\n"
            "The score function has no bias in any row. "
            f"off: standard errors between exact means and those of {self.samples:,} samples."
        )
        return f"{align(header, rows)}\n{note}"


def pathwise(
    *,
    center: float = 0.5,
    mean: float = 0.0,
    widths: Sequence[float] = WIDTHS,
    width: float = 0.5,
    ripple: float = 0.3,
    frequencies: Sequence[float] = FREQUENCIES,
    jump: float = 0.5,
    samples: int = 20_000,
    seed: int = 0,
) -> ScoreOrPath:
    """Compare both estimates of ∇J for x = tanh(μ + σ ε) on three q: see `hill`.

    center: c, the maximum. mean: μ. widths: σ of the policies on the smooth hill; width: σ on the others. frequencies: ω of the
    ripples. Raises ValueError for σ and ω that are not above 0, c beyond (−1, 1), and fewer than 2 samples.
    """
    if not (min(*widths, width) > 0.0 and min(frequencies) > 0.0 and -1.0 < center < 1.0 and samples >= 2):
        raise ValueError(
            "expected widths and frequencies above 0, a center between -1 and 1 and at least 2 samples, got "
            f"widths {tuple(widths)} and {width}, frequencies {tuple(frequencies)}, center {center}, {samples} samples"
        )
    rng = np.random.default_rng(seed)

    def compare(what: str, q: Landscape, sigma: float) -> Compared:
        return _compared(what, q, mean, sigma, rng.standard_normal(samples))

    smooth = tuple(compare(f"hill, σ = {sigma:g}", hill(center), sigma) for sigma in widths)
    rough = tuple(compare(f"ripples, ω = {w:g}", hill(center, ripple, w), width) for w in frequencies)
    cliff = compare(f"cliff of {jump:g}", hill(center, jump=jump), width)
    return ScoreOrPath(smooth, rough, tuple(frequencies), cliff, samples)


def each_sample(q: Landscape, mean: float, width: float, noise: np.ndarray, baseline: float) -> list[Tensor]:
    """The three estimates of every sample, each (B, 2), by (μ, log σ), for noise ε (B,); the order is that of `NAMES`."""
    head = Squashed((1,), -ONE, ONE)
    out = torch.tensor([[mean, math.log(width)]], dtype=torch.float64).expand(len(noise), -1)
    path = head.walk(out, torch.from_numpy(noise).unsqueeze(1))
    x, u = path.x.numpy()[:, 0], mean + width * torch.from_numpy(noise).unsqueeze(1)
    value = torch.from_numpy(q.value(x))
    scores = [head.gradient(out, u, value - b) for b in (0.0, baseline)]
    return [*scores, path.pull_back(torch.from_numpy(q.slope(x)).unsqueeze(1), 0.0)]


def quadrature(breaks: Sequence[float] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Nodes ε and weights of expectations under N(0, 1); breaks: where the function may jump."""
    edges = np.unique([*np.linspace(-REACH, REACH, PANELS + 1), *breaks])
    at, share = np.polynomial.legendre.leggauss(NODES)
    half, middle = 0.5 * np.diff(edges)[:, None], 0.5 * (edges[1:] + edges[:-1])[:, None]
    nodes = (middle + half * at).reshape(-1)
    density = np.exp(-0.5 * nodes**2) / math.sqrt(2.0 * math.pi)
    return nodes, (half * share).reshape(-1) * density


def _compared(what: str, q: Landscape, mean: float, width: float, noise: np.ndarray) -> Compared:
    nodes, weights = quadrature([(math.atanh(x) - mean) / width for x in q.jumps])
    baseline = float(weights @ q.value(np.tanh(mean + width * nodes)))
    p, n = torch.from_numpy(weights), len(noise)
    exact, sampled = (each_sample(q, mean, width, eps, baseline) for eps in (nodes, noise))
    gradient = p @ exact[0]  # ∇J, for any q
    found = []
    for name, g, drawn in zip(NAMES, exact, sampled, strict=True):
        m = p @ g
        variance = float(p @ (g - m).square().sum(-1))
        errors = drawn.std(0) / math.sqrt(n)
        pairs = [(float(a), float(b)) for a, b in (m, drawn.mean(0), errors)]
        found.append(OneSample(name, pairs[0], float((m - gradient).norm()), variance, pairs[1], pairs[2]))
    return Compared(what, width, (float(gradient[0]), float(gradient[1])), tuple(found))
