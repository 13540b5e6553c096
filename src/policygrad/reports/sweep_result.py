"""A sweep as users get it: numbers, words, a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policygrad.files import write_atomically
from policygrad.reports.sweep_page import body, page, picture
from policygrad.reports.sweep_words import text, verdict
from policygrad.reports.sweeps import SweptSettings
from policygrad.stored.directory import write_json

if TYPE_CHECKING:
    from policygrad.reports.plots import Chart


class SweepResult(SweptSettings):
    """What `sweep` returns. `print(result)` says what the scores depend on; a notebook shows the page.

    to_json(): every number; settings, order: the settings with their runs, and their places from best to worst; effects,
    widths: the sensitivity of each hyperparameter; shrinkage: what the best scores lost on fresh seeds; difference: the best
    setting minus the preset's own, on fresh seeds; place: the directory that it was written into.
    """

    place: Path | None = None

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return body(self)

    @property
    def verdict(self) -> str:
        """One sentence: whether the best setting is better than the preset's own, by the fresh seeds alone."""
        return verdict(self)

    def figure(self) -> Chart:
        """The picture, as wide as a column of a paper."""
        from policygrad.reports.sweep_plots import figure

        return figure(self)

    def page(self) -> str:
        """A self-contained HTML page."""
        return page(self)

    def write(self, out: Path) -> Path:
        """Write sweep.json, clocks.json, sweep.png and sweep.html into a directory, each whole or not at all.

        sweep.json is written last: where it is, the others are.
        """
        write_json(out / "clocks.json", self.clocks())
        png = picture(self)
        write_atomically(out / "sweep.png", png)
        write_atomically(out / "sweep.html", page(self, png).encode())
        write_json(out / "sweep.json", self.to_json())
        self.place = out
        return out
