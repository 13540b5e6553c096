"""A comparison as users get it: numbers, words, a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from policygrad.files import write_atomically
from policygrad.reports.comparison import ComparedRuns
from policygrad.reports.comparison_page import body, page, picture
from policygrad.reports.comparison_words import caption, overall, text
from policygrad.stored.directory import RunError, write_json

if TYPE_CHECKING:
    from policygrad.reports.plots import Chart


class RunComparison(ComparedRuns):
    """What `compare` returns. `print(comparison)` says which side is better; a notebook shows the page.

    to_json(): every number; differences: per environment and pair of sides, the difference, its interval and the verdict;
    scores(side, env): (runs,) final mean returns; place: the directory that it was written into.
    """

    place: Path | None = None

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return body(self)

    @property
    def verdict(self) -> str:
        """One sentence about everything."""
        return overall(self)

    def to_json(self) -> dict[str, Any]:
        """The caption of the picture, and every number; the same runs give the same bytes."""
        return {"caption": self.caption} | super().to_json()

    def figure(self) -> Chart:
        """The picture, as wide as a column of a paper."""
        from policygrad.reports.comparison_plots import figure

        return figure(self)

    def clocks_figure(self) -> Chart | None:
        """How soon runs reached the threshold, in steps and in seconds; None if no environment has a threshold."""
        from policygrad.reports.comparison_plots import clocks_figure

        return clocks_figure(self)

    @property
    def caption(self) -> str:
        """The caption of the picture, to be pasted into a paper."""
        return caption(self)

    def page(self) -> str:
        """A self-contained HTML page."""
        return page(self)

    def write(self, out: Path) -> Path:
        """Write compare.json, clocks.json, compare.png and compare.html into a directory, each whole or not at all.

        clocks.png is there, too, if an environment has a threshold: like clocks.json it has seconds, which differ between
        machines. compare.json is written last: where it is, the others are. Raises RunError for a path that is no directory.
        """
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} exists and is not a directory: give another one for the comparison")
        write_json(out / "clocks.json", self.clocks())
        if (clocks := self.clocks_figure()) is not None:
            clocks.write(out / "clocks.png")
        else:
            (out / "clocks.png").unlink(missing_ok=True)
        png = picture(self)
        write_atomically(out / "compare.png", png)
        write_atomically(out / "compare.html", page(self, png).encode())
        write_json(out / "compare.json", self.to_json())
        self.place = out
        return out
