"""The style of pictures: every picture is made in it, the user's settings stay, and colours differ for the colour-blind."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from policygrad.reports import style_plots
from policygrad.reports.curves import Curve
from policygrad.reports.plots import curves_figure
from policygrad.reports.style_plots import COLORS, LINES, WIDTHS, Chart, chart, head, look, readable, say, tick_text

ROOT = Path(__file__).parents[2]
STYLE_FILE = ROOT / "src" / "policygrad" / "reports" / "style_plots.py"
FILES = [path for place in ("src", "benchmarks", "examples") for path in sorted((ROOT / place).rglob("*.py"))]
APART = 15.0  # ΔE*ab (CIE 1976) between any two colours; 2.3 is just noticeable side by side

# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as people without red (protan) or green (deutan) cones see it
SEEN = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
OLD = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#ca8a04", "#475569")  # until 0.4


def lab(color, seen="normal"):
    """L*, a*, b* (D65) of a colour as somebody sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(SEEN[seen] @ linear, 0, 1) / (XYZ @ np.ones(3))
    f = [np.cbrt(t) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colors, seen):
    return min(float(np.linalg.norm(lab(a, seen) - lab(b, seen))) for a, b in combinations(colors, 2))


def broken_rules(path: Path, text: str) -> list[str]:
    """What a file draws outside the style: figures of its own, pyplot, settings of its own, colours of its own."""
    wrong, tree = [], ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            wrong += ["makes a figure without chart()"] if name in ("Figure", "Chart") else []
            wrong += ["changes settings"] if name in ("rc_context", "rcdefaults", "rc") else []
        if isinstance(node, ast.Attribute) and node.attr == "rcParams":
            wrong.append("changes settings")
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            wrong += ["uses pyplot"] if any("pyplot" in name for name in names) else []
        if path.stem.endswith("plots") and isinstance(node, ast.Constant) and isinstance(node.value, str):
            hexes = node.value.startswith("#") and len(node.value) in (4, 7)
            wrong += ["has a colour of its own"] if hexes or node.value.startswith("tab:") else []
    return wrong


def test_every_picture_is_made_in_the_style():
    texts = {path: path.read_text("utf8") for path in FILES if path != STYLE_FILE}
    drawing = {path: text for path, text in texts.items() if "plots" in text or "matplotlib" in text}
    assert len([path for path in drawing if path.stem.endswith("plots")]) >= 7
    for path, text in drawing.items():
        assert broken_rules(path, text) == [], path


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("figure = Figure(figsize=(8, 5))", "makes a figure without chart()"),
        ("figure = Chart(dpi=92)", "makes a figure without chart()"),
        ("import matplotlib.pyplot as plt", "uses pyplot"),
        ("from matplotlib import pyplot", "uses pyplot"),
        ("matplotlib.rcParams['font.size'] = 3", "changes settings"),
        ("axis.plot(x, color='#ff0000')", "has a colour of its own"),
    ],
)
def test_a_picture_outside_the_style_is_found(text, rule):
    assert broken_rules(Path("some_plots.py"), text) == [rule]


@pytest.mark.parametrize("seen", SEEN)
def test_colours_differ_for_everybody(seen):
    assert nearest(COLORS, seen) >= APART


def test_the_colours_of_before_did_not():
    assert nearest(OLD, "deutan") < 3
    assert nearest(OLD, "protan") < 6


def test_neighbours_differ_without_colours():
    assert len({str(look(k)) for k in range(28)}) == 28
    assert all(look(k)["ls"] != look(k + 1)["ls"] for k in range(28))
    assert len(LINES) == 4


def test_letters_are_dark_enough_on_white():
    """Contrast of WCAG for large or bold letters, 3 : 1, which the colours of lines alone do not all have."""

    def contrast(color):
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return 1.05 / (float(XYZ[1] @ linear) + 0.05)

    assert min(contrast(readable(color)) for color in COLORS) >= 3.0
    assert min(contrast(color) for color in COLORS) < 3.0


def drawn() -> Chart:
    curve = (np.array([1.0, 2e5]), np.array([3.0, 4.0]))
    return curves_figure({"$x$": [Curve("ppo", {}, [k], [curve], [], None) for k in range(2)]})


def test_the_users_settings_are_neither_changed_nor_used():
    expected = drawn().png()
    before = dict(matplotlib.rcParams)
    theirs = {"font.size": 30.0, "lines.linewidth": 9.0, "axes.grid": False, "text.parse_math": True}
    theirs |= {"figure.facecolor": "black", "xtick.major.size": 20.0, "savefig.dpi": 37}
    with matplotlib.rc_context(theirs):
        inside = dict(matplotlib.rcParams)
        figure = drawn()
        assert figure.png() == expected
        assert dict(matplotlib.rcParams) == inside
    assert figure.png() == expected  # however late it is drawn
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(RuntimeError), chart("page", 1.0):
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before


def test_pictures_have_the_size_of_a_column_or_a_page():
    for width, inches in WIDTHS.items():
        with chart(width, 2.0) as figure:
            axis = figure.subplots()
        assert figure.get_size_inches().tolist() == [inches, 2.0]
        assert figure.get_dpi() >= 200
        assert not any(axis.spines[side].get_visible() for side in ("top", "right"))
    assert isinstance(figure, Figure)


def test_users_can_take_the_style():
    from matplotlib import style

    with style.context("policygrad.reports.paper"):
        assert matplotlib.rcParams["font.size"] == 7
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == [color.upper() for color in COLORS]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (500, "500"), (1000, "1k"), (1024, "1,024"), (100_000, "100k"), (2.5e6, "2.5M"), (-1500, "−1.5k"),
     (12_250, "12,250"), (0.005, "0.005"), (3e9, "3G")],
)  # fmt: skip
def test_ticks_are_short_and_exact(number, text):
    assert tick_text(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1e-6, "10⁻⁶"), (2e-5, "2·10⁻⁵"), (0.001, "0.001"), (1000, "1k"), (1e5, "10⁵"), (5e6, "5·10⁶")]
)
def test_logarithmic_ticks(number, text):
    assert style_plots.power_of_ten(number) == text


def test_heads_are_wrapped_to_their_panel():
    with chart("column", 3.0) as figure:
        axis = figure.add_axes((0.2, 0.2, 0.6, 0.4))
        head(axis, "A title that is far too long for such a small panel", "Words that go on. " * 12 + "\nA second line")
        say(axis, "label", (0.5, 0.5), (3, 3), COLORS[4])
    FigureCanvasAgg(figure).draw()
    box = axis.get_window_extent()
    for text in (axis.title, axis.texts[0]):
        assert text.get_window_extent().width <= 1.08 * box.width
    assert axis.title.get_window_extent().y0 >= axis.texts[0].get_window_extent().y1 - 1
    assert axis.texts[0].get_window_extent().y0 >= box.y1
