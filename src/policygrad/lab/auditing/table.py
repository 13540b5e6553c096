"""An audit as text: the table and an explanation of its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policygrad.html import grid_html, lines_html, table_html
from policygrad.lab.results import align

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit, Row

COLUMNS = ("verdict", "bias", "along", "variance", "MSE", "SNR", "cos", "episodes", "µs")
HEADER = ("estimator · baseline · wrapper", *COLUMNS)


def audit_table(audit: Audit) -> str:
    """The setting, one line per row, one line about each column, and the cells that were left out."""
    parts = [header(audit), align(HEADER, [cells_of(row) for row in audit.rows]), legend(audit), left_out(audit)]
    return "\n\n".join(filter(None, parts))


def audit_html(audit: Audit) -> str:
    """The same as tables of HTML."""
    found = grid_html("Gradient estimators, audited", HEADER, [cells_of(row) for row in audit.rows], numbers=True)
    columns = dict(line.split(maxsplit=1) for line in legend(audit).splitlines())
    missing = table_html("Left out", dict(reasons(audit))) if audit.left_out else ""
    return found + lines_html(header(audit).splitlines()) + table_html("Columns", columns) + missing


def header(audit: Audit) -> str:
    """The setting of the audit."""
    listed = "too many trajectories to list" if audit.listed is None else f"all {audit.listed:,} trajectories listed"
    lines = [
        audit.about,
        f"{audit.repeats:,} batches of {audit.batch} episodes, the same batches for all rows; {listed}; critic: {audit.critic}",
    ]
    if audit.limit is not None:
        terms = "g has only the terms of ∇J up to there"
        lines.append(
            f"episodes are truncated after {audit.limit} steps: {terms}, and differs from ∇J by {audit.truncated:.2g} ‖∇J‖"
        )
    return "\n".join(lines)


def legend(audit: Audit) -> str:
    """One line about each column."""
    unit, square = ("% of ‖g‖", "‖g‖²") if audit.norm > 0.0 else ("%, as g is 0", "1, as g is 0")
    g = "g: the exact gradient" if audit.limit is None else "g: see above"
    lines = {
        "verdict": f"= exact, from all trajectories; ~ by a test; false alarms in this table have probability {audit.alpha:g}",
        "bias": f"‖E ĝ − g‖ in {unit}; {g}. [low, high]: with probability {1.0 - audit.alpha:g} all hold the true "
        "values",
        "along": f"the component of the bias along g, in {unit}; −6.25 %: the mean estimate is 6.25 % too short",
        "variance": f"the trace of the covariance of one batch's ĝ, in units of {square}",
        "MSE": "E‖ĝ − g‖² = bias² + variance, in the same units",
        "SNR": "‖E ĝ‖² / variance, the signal-to-noise ratio of one batch, with ‖g‖² for ‖E ĝ‖² where no bias is seen",
        "cos": "the mean cosine of the angle between ĝ and g",
        "episodes": "number of episodes until signal equals noise (SNR 1): batch / SNR, whatever the scale of ĝ",
        "µs": "microseconds to compute the advantages of one batch",
    }
    return "\n".join(f"{name:<9} {what}" for name, what in lines.items())


def left_out(audit: Audit) -> str:
    """The cells that were left out, by the reason."""
    return "\n".join(["left out", *(f"  {cells}: {why}" for cells, why in reasons(audit))]) if audit.left_out else ""


def reasons(audit: Audit) -> list[tuple[str, str]]:
    """Some cells that were left out and the reasons, one pair per reason."""
    found: dict[str, list[str]] = {}
    for cell, reason in audit.left_out:
        found.setdefault(reason, []).append(cell)
    return [(few(cells), reason) for reason, cells in found.items()]


def cell_name(row: Row) -> str:
    """The name of a row: estimator · baseline · wrapper, without those that do nothing."""
    return " · ".join([row.estimator, *(x for x in (row.baseline, row.wrapper) if x not in ("none", "plain"))])


def cells_of(row: Row) -> list[str]:
    """A line of the table: exact numbers if there are any, otherwise those of the sample."""
    if row.bias_exact is None:
        low, high = (100.0 * x for x in row.bias_interval)
        bias = f"[{short(low)}, {short(high)}]"
    else:
        bias = short(100.0 * row.bias_exact if row.verdict == "biased" else 0.0)
    exactly = row.verdict == "unbiased" and row.proof == "exact"
    along = 0.0 if exactly else 100.0 * row.known("along")
    return [
        cell_name(row),
        VERDICTS[row.verdict, row.proof],
        bias,
        short(along),
        *(short(x) for x in (row.known("variance"), row.known("mse"), row.snr)),
        f"{row.cosine:.2f}" if math.isfinite(row.cosine) else "-",
        short(row.episodes),
        f"{row.microseconds:.0f}",
    ]


VERDICTS = {
    ("unbiased", "exact"): "= unbiased",
    ("unbiased", "test"): "~ none seen",
    ("biased", "exact"): "= biased",
    ("biased", "test"): "~ biased",
}


def short(x: float) -> str:
    """A number with three digits; a number below rounding is 0."""
    if not math.isfinite(x):
        return "∞" if x == math.inf else "-"
    if abs(x) < 1e-9:
        return "0"
    if 1000.0 <= abs(x) < 1e7:
        return f"{x:,.0f}"
    text = f"{x:.3g}"
    return f"{x:.1e}" if "e" in text else text


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
