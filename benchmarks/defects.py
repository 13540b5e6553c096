"""What defects of well-known code cost, by the audit: the table of docs/audit.md.

python benchmarks/defects.py          # a minute; writes benchmarks/defects.json and the table
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import policygrad as pg
from policygrad.data import Rollout, Values
from policygrad.lab.exact.mdp import chain
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.marks import markdown_table, with_tables

ROOT = Path(__file__).parents[1]
JSON, PAGE, SOURCE = ROOT / "benchmarks" / "defects.json", ROOT / "docs" / "audit.md", "benchmarks/defects.py"
PAGES = (PAGE,)
CHAIN = chain(3, horizon=6, gamma=0.9, slip=0.2)
LAMBDAS = (0, 0.5, 0.9, 1)


def ended(rollout: Rollout, values: Values) -> Tensor:
    """Reward-to-go (T, N) of code that reads `terminated` where `truncated` is meant."""
    over = replace(rollout, terminated=rollout.end, truncated=torch.zeros_like(rollout.end))
    return pg.RewardToGo(CHAIN.gamma)(over, values).ret


def other_policy() -> Any:
    """The policy of `--off-policy 0.5`: other logits, by N(0, 0.5²)."""
    policy = starting_policy("small", make_mdp("small"))
    noise = torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(1), dtype=policy.flat.dtype)
    policy.flat.add_(0.5 * noise)
    return policy


def audited(mdp: Any, estimators: Any, baseline: str, wrapper: str, **keywords: Any) -> list[dict[str, Any]]:
    """The bias of each row, in units of ‖g‖, and along g: exact, or a sample's, then with half of its 99 % interval."""
    found = pg.lab.audit(mdp, None, estimators, [baseline], [wrapper], **keywords).rows
    exact = [{"bias": row.bias_exact, "along": row.along_exact} for row in found]
    sampled = [
        {"bias": row.bias, "along": row.along, "half": (row.bias_interval[1] - row.bias_interval[0]) / 2}
        for row in found
    ]
    return [known if known["bias"] is not None else seen for known, seen in zip(exact, sampled, strict=True)]


def measured() -> dict[str, list[dict[str, Any]]]:
    """The rows of each defect. Where the bias is exact, two batches are enough."""
    lambdas = [f"gae:{lam}" for lam in LAMBDAS]
    return {
        "dropped": audited("small", ["to-go"], "value", "plain", repeats=2),
        "same mean": audited("bandit", ["to-go"], "same-mean", "plain", batch=4, repeats=2),
        "standardised": audited("small", ["to-go"], "value", "discount+standardize-episode", repeats=2),
        "steps": audited("small", ["to-go"], "value", "discount+step", repeats=4000),
        "wrong V": audited("small", lambdas, "value", "discount", critic="wrong", repeats=2),
        "truncated": audited(CHAIN, [ended], "value", "discount", limit=2, repeats=2),
        "clipped": audited("small", ["to-go"], "none", "discount+is:1.5", behavior=other_policy(), repeats=2),
    }


def percent(row: dict[str, Any], digits: int = 1) -> str:
    """The bias in percent."""
    half = f" ± {100 * row['half']:.{digits}f}" if "half" in row else ""
    return f"{100 * row['bias']:.{digits}f}{half}"


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """What each defect costs."""
    of = {name: rows[0] for name, rows in found.items()}
    by_lambda = (f"{lam}: {percent(row)}" for lam, row in zip(LAMBDAS, found["wrong V"], strict=True))
    rows = [
        (
            "γᵗ dropped",
            "`to-go` · `value`, small",
            f"{percent(of['dropped'])}, of which {along(of['dropped'])} along g",
        ),
        (
            "mean of the same batch",
            "`to-go` · `same-mean`, bandit, batches of 4",
            f"{percent(of['same mean'])}, along g: exactly 1/N",
        ),
        (
            "standardised per episode",
            "`to-go` · `value` · `discount+standardize-episode`, small",
            percent(of["standardised"]),
        ),
        (
            "divided by steps",
            "`to-go` · `value` · `discount+step`, small",
            f"{percent(of['steps'])}, by scale: at most 4 steps",
        ),
        (
            "bootstraps from a wrong V",
            "`gae:λ` · `value` · `discount`, small, `--critic wrong`",
            f"λ = {', '.join(by_lambda)}",
        ),
        ("`terminated` for `truncated`", "reward-to-go, a chain", percent(of["truncated"])),
        (
            "clipped importance weights",
            "`to-go` · `discount+is:1.5`, small, `--off-policy 0.5`",
            percent(of["clipped"], 2),
        ),
    ]
    return markdown_table(["defect", "estimator · baseline · wrapper, MDP", "bias, % of ‖g‖"], rows, "---")


def along(row: dict[str, Any]) -> str:
    """The part of the bias along g, in percent."""
    return f"{100 * abs(row['along']):.1f}"


def written(page: Path) -> str:
    """The page with the table as it was recorded."""
    return with_tables(page.read_text("utf8"), {"defects": table(json.loads(JSON.read_text("utf8")))}, SOURCE)


def main() -> None:
    """Measure, and write the record and the page."""
    JSON.write_text(json.dumps(measured(), indent=1) + "\n", "utf8")
    PAGE.write_text(written(PAGE), "utf8")


if __name__ == "__main__":
    main()
