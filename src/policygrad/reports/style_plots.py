"""The style of every picture: colours, dashes, sizes and letters, and the one context in which figures are made.

`paper.mplstyle` has the style as matplotlib reads it. `chart` is the context: inside it matplotlib's defaults and this style
hold, whatever the user's own are, and afterwards the user's hold again. A figure is drawn and saved in the style, too.
There is no pyplot.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from policygrad.files import write_atomically

STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("paper.mplstyle"), use_default_template=False)
WIDTHS = {"column": 3.5, "page": 7.0}  # inches: of a column of a paper, and of its page
COLORS: tuple[str, ...] = tuple(map(to_hex, STYLE["axes.prop_cycle"].by_key()["color"]))
BLUE, ORANGE, GREEN, PINK, SKY, AMBER, BLACK = COLORS
INK, PALE, GRID = "#1e293b", "#64748b", "#e2e8f0"
LINES: tuple[Any, ...] = (
    "-",
    (0, (4, 2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (5, 1.5, 1, 1.5, 1, 1.5)),
)  # dotted means something else
MARKERS, SIGNS = ("o", "s", "D", "^"), ("●", "■", "◆", "▲")
DASHED, DOTTED = (0, (4, 3)), (0, (1, 1.2))  # of lines that help to read the others
HEAD, TEXT, SMALL = 10.0, 7.0, 6.5  # points: the title of a whole picture, its letters, and the smallest
LINE, THIN = 1.5, 0.8  # points
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def styled() -> AbstractContextManager[None]:
    """The style instead of the user's settings; theirs are back afterwards."""
    defaults = {name: x for name, x in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    ours: Any = defaults | dict(STYLE)
    return matplotlib.rc_context(ours)


class Chart(Figure):
    """A figure in this style, however late it is drawn. Notebooks show it without pyplot."""

    def draw(self, renderer: Any) -> None:
        with styled():
            super().draw(renderer)

    def savefig(self, fname: Any, **keywords: Any) -> None:
        with styled():
            super().savefig(fname, **keywords)

    def _repr_png_(self) -> bytes:
        return self.png(dpi=150)

    def png(self, **keywords: Any) -> bytes:
        """The bytes of a png file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", **keywords)
        return buffer.getvalue()

    def write(self, out: Path) -> Path:
        """Write it as png, pdf or svg, whole or not at all, in a directory that is made if it is not there."""
        buffer = io.BytesIO()
        self.savefig(buffer, format=out.suffix[1:] or None)
        write_atomically(out, buffer.getvalue())
        return out

    def written(self, path: str | Path | None) -> Chart:
        """This figure, which is also in the file if a path is given: png, pdf or svg."""
        if path is not None:
            self.write(Path(path))
        return self


@contextmanager
def chart(width: Literal["column", "page"], height: float) -> Iterator[Chart]:
    """A new figure, `column` (3.5) or `page` (7) inches wide and `height` inches high, which is drawn into in this style."""
    with styled():
        yield Chart(figsize=(WIDTHS[width], height), dpi=300 if width == "column" else None)


def look(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line: 28 of them differ, and neighbours differ without colours, too."""
    return {"color": COLORS[k % len(COLORS)], "ls": LINES[k % len(LINES)]}


def marker(k: int) -> str:
    """The marker of the k-th group of points."""
    return MARKERS[k % len(MARKERS)]


def readable(color: str) -> str:
    """A colour for letters: one that is pale on white is darkened."""
    red, green, blue = to_rgb(color)
    darker = 0.72 if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else 1.0
    return to_hex((darker * red, darker * green, darker * blue))


def tick_text(x: float, _: Any = None) -> str:
    """A number at a tick: 500, 100k, 2.5M, −1.5k; one with more digits than that stays whole, 1,024."""
    text = f"{x:,.10g}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size and f"{x / size:.3g}" == f"{x / size:.10g}":
            text = f"{x / size:.10g}{unit}"
            break
    return text.replace("-", "−")


def round_ticks(axis: Axis, most: int = 6) -> None:
    """At most so many ticks at round numbers, thousands as k."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(tick_text))


def power_of_ten(x: float, _: Any = None) -> str:
    """A number on a logarithmic axis as text: 0.01, 1, 10k, 10⁶, 2·10⁻⁵."""
    power = math.floor(math.log10(x) + 1e-9)
    if -3 <= power < 5:
        return tick_text(x)
    first = f"{x / 10.0**power:.3g}·".removeprefix("1·")
    return f"{first}10{str(power).translate(SUPERSCRIPTS)}"


def logarithmic(axis: Axis, most: int = 8, subs: tuple[float, ...] = (1.0,)) -> None:
    """Ticks of a logarithmic axis at powers of ten, times `subs`."""
    axis.set_major_locator(LogLocator(subs=subs, numticks=most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(power_of_ten))


def logarithmic_axes(axis: Axes) -> None:
    """Make both axes logarithmic, with ticks at powers of ten."""
    axis.set(xscale="log", yscale="log")
    logarithmic(axis.xaxis)
    logarithmic(axis.yaxis)


def title_of(figure: Figure, text: str, about: str = "") -> None:
    """The title at the top left, and a pale line about it."""
    inches = float(figure.get_figheight())
    figure.text(0.02, 1 - 0.12 / inches, text, fontsize=HEAD, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 1 - 0.32 / inches, about, fontsize=TEXT, color=PALE, va="top")


def head(axis: Axes, title: str, subtitle: str) -> None:
    """The title of a panel, and a pale text below it, both wrapped to the width of the axis."""
    assert axis.figure is not None
    points = 72 * axis.bbox.width / axis.figure.dpi
    lines = wrap(subtitle, int(points / (0.51 * SMALL)))
    above = 4 + 1.25 * SMALL * len(lines)
    axis.set_title("\n".join(wrap(title, int(points / (0.61 * STYLE["axes.titlesize"])))), pad=above + 3)
    axis.annotate("\n".join(lines), (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points",
                  fontsize=SMALL, color=PALE, va="top", linespacing=1.1)  # fmt: skip


def say(
    axis: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], color: str, **keywords: Any
) -> None:
    """A bold label beside a point, `offset` points away."""
    bold: dict[str, Any] = {
        "textcoords": "offset points",
        "fontweight": "bold",
        "color": readable(color),
        "va": "center",
    }
    axis.annotate(text, xy, offset, **bold | keywords)


def panels_figure(
    panels: Sequence[Callable[[Axes], None]], title: str, about: str = "", margin: float = 0.5, height: float = 3.1
) -> Chart:
    """A title over panels, two in a row on a page; one alone is as wide as a column.

    margin: inches to the left of a panel, for what its ticks are called. height: inches of a row, with its titles.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    above, below, head_room = 0.3 if not about else 0.5, 0.4, 0.72  # inches
    inches = above + rows * height
    with chart("page" if columns == 2 else "column", inches) as figure:
        across = float(figure.get_figwidth())
        wide = across / columns
        for k, panel in enumerate(panels):
            row, column = divmod(k, columns)
            bottom = inches - above - (row + 1) * height + below
            left, width, tall = column * wide + margin, wide - margin - 0.1, height - below - head_room
            panel(figure.add_axes((left / across, bottom / inches, width / across, tall / inches)))
        title_of(figure, title, about)
    return figure
