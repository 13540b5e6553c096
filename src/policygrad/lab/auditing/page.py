"""An audit as one self-contained HTML page, with its style and plots, for light and dark and for wide and narrow screens.

Written without templates: Jinja2 is imported in 57 ms, and most of these strings would be left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from policygrad.lab.auditing.optimal_baselines import BaselineCurve
from policygrad.lab.auditing.table import HEADER, cell_name, cells_of, header, legend, reasons, short

if TYPE_CHECKING:
    from policygrad.lab.auditing.audit import Audit, Row

FORMULAS = {  # by name, without what follows a colon: formula, what it is
    "total": ("ret = R(τ) = Σ γᵏ r_k", "The whole trajectory's return on every step: the likelihood-ratio gradient itself."),
    "to-go": ("ret = G_t = Σ_{k≥t} γ^{k−t} r_k", "Reward-to-go: an action is credited with what follows it."),
    "td": ("ret = r_t + γ V(s_{t+1})", "One reward, then the critic's value. With V as the baseline this is the TD error δ_t."),
    "n-step": ("ret = r_t + … + γⁿ⁻¹ r_{t+n−1} + γⁿ V(s_{t+n})", "n rewards, then the critic's value."),
    "gae": ("ret = V(s_t) + Σ_k (γλ)ᵏ δ_{t+k}",
                  "The λ-return. With V as the baseline this is generalised advantage estimation."),
    "q": ("ret = q(s_t, a_t)", "The critic's value alone, without any reward sampled after the action."),
    "none": ("b = 0", "No baseline."),
    "const": ("b = a number", "One constant for every step. It does not change the mean, and the variance is a parabola in b."),
    "value": ("b = V(s_t)", "The critic's value of the state."),
    "mean": ("b = mean return of an earlier batch",
                  "The mean return of an earlier batch, independent of the batch it is subtracted from."),
    "time": ("b_t = mean of ret_t in an earlier batch", "One number per time step."),
    "linear": ("b = wᵀφ(s, t)", "Least squares on features, fitted to an earlier batch."),
    "loo": ("b_t = mean of ret_t over the other episodes",
                  "Leave-one-out: the mean over the batch without the episode itself."),
    "crossfit": ("b fitted to the other folds", "Fitted to the batch without the fold that contains the episode."),
    "same-mean": ("b_t = mean of ret_t over all episodes of the batch",
                  "Biased on purpose: every return is in its own "
                  "baseline, and ĝ shrinks to (1 − 1/N) g where finished episodes count 0."),
    "same-time": ("b_t = mean of ret_t over the batch's running episodes",
                  "Biased on purpose in the same way, from the episodes that still run."),
    "best": ("b* = E[x·y] / E‖y‖²",
                  "The constant with the smallest variance. x is ĝ without a baseline, y is its sum of scores."),
    "best-state": ("b*(s) = E[x·y(s)] / E‖y(s)‖²", "The function of the state with the smallest variance. It differs from V."),
    "best-time-state": ("b*(t, s)", "The function of time and state with the smallest variance."),
    "best-parameter": ("b*_p = E[x_p y_p] / E[y_p²]", "One constant per parameter, each with the smallest variance."),
    "plain": ("adv = ret − b", "The advantage is not changed."),
    "discount": ("adv = γᵗ (ret − b)",
                  "The discount γᵗ of the discounted objective's gradient. Without it, γ < 1 makes ĝ biased."),
    "standardize": ("adv = (x − mean) / std over the batch",
                  "It changes the scale and adds a bias of O(1/steps), because episodes are coupled."),
    "standardize-running": ("adv = x − mean of an earlier batch",
                  "It also divides by that batch's std. This is no bias but a scale, which is undone here."),
    "standardize-episode": ("adv = (x − mean) / std within each episode",
                  "It removes the difference between good and bad episodes."),
    "step": ("ĝ = Σ adv ∇log π / steps",
                  "The mean over steps instead of episodes: a ratio estimator if episode lengths differ."),
    "is": ("adv = W (ret − b), W = Π π/μ",
                  "Importance weights for episodes of another policy μ. is:C clips them at C, which adds a bias."),
    "is-normalized": ("adv = W / mean(W) · (ret − b)", "Weights scaled to mean 1, which adds a bias of O(1/N)."),
    "per-decision": ("ret = Σ γ^{k−t} r_k W_k / W_t", "Each reward is weighted by the ratios up to it."),
}  # fmt: skip

STYLE = """
:root { color-scheme: light dark; --ink: #1e293b; --pale: #5b6b80; --line: #e2e8f0; --back: #fff; --card: #f8fafc;
  --blue: #2563eb; --orange: #c2410c; --green: #047857; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --pale: #94a3b8; --line: #334155; --back: #0f172a;
  --card: #1e293b; --blue: #60a5fa; --orange: #fb923c; --green: #34d399; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1.25rem 4rem; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
h1 { font-size: 1.6rem; margin: 0.2rem 0 0.4rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.5rem }
p { margin: 0.4rem 0; max-width: 56rem } .wide { margin: 0.8rem 0 } .pale { color: var(--pale) }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: 0.34rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
tr:last-child td { border-bottom: 0 } th { color: var(--pale); font-weight: 600; background: var(--card) }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
th:first-child { background: var(--card) } tbody tr:hover td { background: var(--card) }
.biased { color: var(--orange); font-weight: 600 } .unbiased { color: var(--green); font-weight: 600 }
.tested { font-weight: 400 }
svg { display: block } svg text { fill: var(--pale); font-size: 11px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1rem; margin: 0.6rem 0 }
dt { font-weight: 600 } dd { margin: 0 } code { font: 13.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
dd code { display: block; color: var(--blue) }
.key { display: inline-block; width: 0.7rem; height: 0.7rem; margin: 0 0.25rem 0 0.7rem }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 7.5rem; max-width: 9rem }
  dl { grid-template-columns: 1fr } dd { margin-bottom: 0.5rem } body { padding: 1rem 0.8rem } }
"""
BAR, PAD = 220, 8  # pixels: the width of a row's picture, and of its margin


def page(audit: Audit, curve: BaselineCurve | None = None) -> str:
    """The page as text. curve: a U-curve to show below the table."""
    names = [[getattr(row, part) for row in audit.rows] for part in ("estimator", "baseline", "wrapper")]
    sections = [
        f"<h1>Gradient estimators, audited</h1>{paragraphs(header(audit))}",
        summary_text(audit),
        f"<div class=wide>{rows_table(audit)}</div>",
        "<p class=pale><span class=key style='background:var(--blue);border-radius:50%'></span>variance"
        "<span class=key style='background:var(--orange);rotate:45deg;scale:.85'></span>bias², where there is one or one was "
        "found, with its interval. Both are parts of the mean squared error of one batch, on a logarithmic scale.</p>",
        "" if curve is None else curve_section(curve),
        f"<h2>What the columns are</h2>{definitions(line.split(maxsplit=1) for line in legend(audit).splitlines())}",
        *(
            f"<h2>{title}</h2>{formulas(used)}"
            for title, used in zip(("Estimators", "Baselines", "Wrappers"), names, strict=True)
        ),
        how_to_read(audit),
        left_out_text(audit),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = "<title>Gradient estimators, audited</title>"
    body = "\n".join(filter(None, sections))
    head += f"{title}<style>{STYLE}</style>"
    return f"<!doctype html>\n<html lang=en>\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n"


def paragraphs(text: str) -> str:
    """Lines as paragraphs."""
    return "".join(f"<p class=pale>{escape(line)}</p>" for line in text.splitlines())


def summary_text(audit: Audit) -> str:
    """A sentence or two about the result."""
    if not audit.rows:
        return "<p>No combination of estimator, baseline and wrapper is left to audit.</p>"
    unbiased = [row for row in audit.rows if row.verdict == "unbiased"]
    proven = [row for row in unbiased if row.proof == "exact"]
    text = bias_text(len(audit.rows), len(proven), len(unbiased) - len(proven))
    if unbiased:
        best = min(unbiased, key=lambda row: row.episodes)
        most = max(unbiased, key=lambda row: row.episodes)
        text += (
            f" Of the rows without a known bias, {cell_name(best)} needs {about(best.episodes)} episodes until signal "
        )
        text += f"equals noise, the fewest, and {cell_name(most)} {about(most.episodes)}, the most."
    return f"<p>{escape(text)}</p>"


def bias_text(rows: int, proven: int, passed: int) -> str:
    """How many of the rows are proved unbiased, in how many tests found no bias, and how many are biased."""
    text = f"{proven} of {rows} rows are proved unbiased" if proven else "No row is proved unbiased"
    if passed:
        where = f"another {passed}" if proven else f"any of the {passed}" if passed == rows else f"{passed} of {rows}"
        text += f"; tests found no bias in {where}"
    biased = rows - proven - passed
    return text + (f"; a bias is shown in {biased}." if biased else ".")


def about(episodes: float) -> str:
    """A number of episodes as a reader needs it: whole."""
    return f"about {math.ceil(episodes):,}" if math.isfinite(episodes) else short(episodes)


def rows_table(audit: Audit) -> str:
    """The table, each row with a picture of its error."""
    seen = [x for row in audit.rows for x in parts_of(row) if x is not None and x > 0.0] or [1.0]
    low, high = math.log10(min(seen)) - 0.1, math.log10(max(seen)) + 0.1
    unit = "in ‖g‖²" if audit.norm > 0.0 else "g being 0"
    heads = [*HEADER[:2], f"error, {unit}", *HEADER[2:]]
    lines = ["<table><thead><tr>" + "".join(f"<th>{escape(h)}</th>" for h in heads) + "</tr></thead><tbody>"]
    for row in audit.rows:
        first, verdict, *rest = (escape(cell) for cell in cells_of(row))
        kind = row.verdict + (" tested" if row.proof == "test" else "")
        cells = [first, f"<span class='{kind}'>{verdict}</span>", bar(row, low, high), *rest]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join([*lines, "</tbody></table>"])


def parts_of(row: Row) -> tuple[float, float | None]:
    """The variance, and bias² if there is one or one was detected."""
    return row.known("variance"), None if row.seen_bias is None else row.seen_bias**2


def bar(row: Row, low: float, high: float) -> str:
    """Variance and bias² as marks on a line from 10^low to 10^high; a tick at 1."""

    def x(value: float) -> float:
        at = (math.log10(value) - low) / (high - low) if value > 0.0 else 0.0
        return PAD + (BAR - 2 * PAD) * min(1.0, max(0.0, at))

    variance, bias = parts_of(row)
    marks = [level_line(PAD, BAR - PAD, "var(--line)", 1)]
    if low <= 0.0 <= high:
        marks.append(f"<path d='M{x(1.0):.1f} 2V16' stroke='var(--pale)' stroke-dasharray='2 2'/>")
    text = f"variance {short(variance)}"
    if bias is not None:
        text += f", bias² {short(bias)}"
        marks.append(level_line(x(bias), x(variance), "var(--line)", 4))
        if row.bias_exact is None:
            least, most = row.bias_interval
            marks.append(level_line(x(least**2), x(most**2), "var(--orange)", 2))
        place = f"translate({x(bias):.1f} 9) rotate(45)"
        marks.append(f"<rect x='-4' y='-4' width='8' height='8' fill='var(--orange)' transform='{place}'/>")
    if variance > 0.0:
        marks.append(f"<circle cx='{x(variance):.1f}' cy='9' r='4.5' fill='var(--blue)'/>")
    named = f"role='img' aria-label='{escape(text)}'><title>{escape(text)}</title>"
    return f"<svg width='{BAR}' height='18' {named}{''.join(marks)}</svg>"


def level_line(start: float, end: float, color: str, width: int) -> str:
    """A level line in the middle of a row's picture."""
    return f"<path d='M{start:.1f} 9H{end:.1f}' stroke='{color}' stroke-width='{width}' stroke-linecap='round'/>"


def formulas(used: Sequence[str]) -> str:
    """The name, the formula and a description; for a user's object only the name."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(used):
        made = []
        for part in name.split("+"):
            formula, what = FORMULAS.get(part.partition(":")[0], ("", "An object given to the audit."))
            made.append((f"<code>{escape(formula)}</code>" if formula else "") + escape(what))
        found[escape(name)] = "".join(made)
    return "<dl>" + "".join(f"<dt><code>{name}</code></dt><dd>{what}</dd>" for name, what in found.items()) + "</dl>"


def definitions(pairs: Iterable[Sequence[str]]) -> str:
    """Words and what they mean."""
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs) + "</dl>"


def how_to_read(audit: Audit) -> str:
    """The explanation of how to read the page."""
    texts = [
        "ĝ is the gradient estimate of one batch, Σ adv ∇log π / episodes; g the exact gradient, computed from the MDP's "
        "tables. All estimators are the ones that training uses.",
        "More data reduce the variance but not the bias: the mean of N batches has the same bias and 1/N of the variance. "
        "A good estimator has a bias that is small compared with the remaining noise.",
        "A bias along g only changes the effective learning rate, as ĝ still points along g on average. Any other bias changes "
        "the direction.",
        "“= unbiased” is a proof for this MDP and policy: all trajectories were added up. “~ none seen” is "
        "not a proof: it means that a bias above the upper end of the interval is unlikely.",
    ]
    if audit.limit is not None:
        texts.append("Episodes are truncated, so later rewards enter only through the critic, or not at all.")
    return "<h2>How to read it</h2>" + "".join(f"<p>{escape(text)}</p>" for text in texts)


def left_out_text(audit: Audit) -> str:
    """The text about cells that were not audited, with the reasons."""
    return "<h2>Left out</h2>" + definitions(reasons(audit)) if audit.left_out else ""


def curve_section(curve: BaselineCurve) -> str:
    """The U-curve as a drawing, and its table."""
    width, height, pad = 560, 260, 34
    low, high = curve.constants[0], curve.constants[-1]
    top = max(curve.variances) or 1.0

    def x(b: float) -> float:
        return pad + (width - 2 * pad) * (b - low) / ((high - low) or 1.0)

    def y(v: float) -> float:
        return height - pad - (height - 2 * pad) * v / top

    path = "M" + "L".join(f"{x(b):.1f} {y(v):.1f}" for b, v in zip(curve.constants, curve.variances, strict=True))
    marks = "".join(
        f"<path d='M{x(b):.1f} {18 + 16 * n}V{y(v):.1f}' stroke='var(--line)'/>"
        f"<circle cx='{x(b):.1f}' cy='{y(v):.1f}' r='5' fill='var(--{'orange' if name == 'b*' else 'pale'})'/>"
        f"<text x='{x(b):.1f}' y='{14 + 16 * n}' text-anchor='middle'>{escape(name)}</text>"
        for n, (name, b, v) in enumerate(curve.marks)
        if low <= b <= high
    )
    axis = f"<path d='M{pad} {height - pad}H{width - pad}' stroke='var(--line)'/>"
    ends = "".join(
        f"<text x='{x(b):.1f}' y='{height - pad + 16}' text-anchor='middle'>{short(b)}</text>"
        for b in (low, curve.best, high)
    )
    how = "from all trajectories" if curve.exact else "from a sample"
    size = f"viewBox='0 0 {width} {height}' width='100%' style='max-width:{width}px'"
    drawing = f"<svg {size} role='img' aria-label='U-curve'>"
    drawing += f"{axis}<path d='{path}' fill='none' stroke='var(--blue)' stroke-width='2.5'/>{marks}{ends}</svg>"
    text = f"The variance of one trajectory's estimate as a function of a constant baseline, {how}. No constant adds a bias."
    cells = [(escape(name), short(b), short(v)) for name, b, v in curve.marks]
    rows = "".join(f"<tr><td>{name}</td><td>{b}</td><td>{v}</td></tr>" for name, b, v in cells)
    heads = "<thead><tr><th></th><th>b</th><th>variance</th></tr></thead>"
    table = f"<table style='width:auto'>{heads}<tbody>{rows}</tbody></table>"
    table = f"<div class=wide style='width:fit-content'>{table}</div>"
    return f"<h2>Variance over a constant baseline</h2><p>{escape(text)}</p>{drawing}{table}"
