"""A comparison as users get it: numbers, words, a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.files import write_atomically
from policygrad.reports.comparison import ComparedRuns
from policygrad.reports.comparison_page import body, page, picture
from policygrad.reports.comparison_words import overall, text
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

    def figure(self) -> Chart:
        """The picture, as wide as a column of a paper."""
        from policygrad.reports.comparison_plots import figure

        return figure(self)

    def page(self) -> str:
        """A self-contained HTML page."""
        return page(self)

    def write(self, out: Path) -> Path:
        """Write compare.json, clocks.json, compare.png and compare.html into a directory, each whole or not at all.

        compare.json is written last: where it is, the others are. Raises RunError for a path that is no directory.
        """
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} exists and is not a directory: give another one for the comparison")
        write_json(out / "clocks.json", self.clocks())
        png = picture(self)
        write_atomically(out / "compare.png", png)
        write_atomically(out / "compare.html", page(self, png).encode())
        write_json(out / "compare.json", self.to_json())
        self.place = out
        return out
