"""`policygrad lab audit`: its table, JSON, picture, page and curve; its mistakes."""

from __future__ import annotations

import json
import re

import pytest

from policygrad.cli import lab_audit, main
from policygrad.cli.lab_audit import default_repeats, parser
from policygrad.lab.auditing import audit
from policygrad.lab.auditing.bench import CRITICS
from policygrad.lab.auditing.cells import BASELINES, BEST, ESTIMATORS, WRAPPERS
from policygrad.lab.exact.worlds import make_mdp

QUICK = ["lab", "audit", "--repeats", "30"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_table_has_a_row_for_every_combination_and_says_what_was_left_out(capsys):
    assert main([*QUICK, "--estimators", "total,to-go,gae:0.9", "--baselines", "none,value"]) == 0
    text = capsys.readouterr().out
    rows = re.findall(r"^((?:total|to-go|gae:0.9)\S*(?: · \S+)*) += (unbiased|biased) ", text, re.MULTILINE)
    verdicts = dict(rows)
    assert len(verdicts) == 10
    assert verdicts["to-go"] == "biased"  # γ = 0.9, and γᵗ is dropped
    assert verdicts["to-go · value · discount"] == verdicts["total"] == "unbiased"
    assert text.startswith("small: 3 states, 2 actions, horizon 4, γ = 0.9")
    assert "30 batches of 16 episodes" in text
    assert "total · discount" in text.partition("left out")[2]
    assert max(map(len, text.splitlines())) <= 120


def test_json_picture_page_and_curve(capsys, tmp_path):
    words = [*QUICK, "--mdp", "bandit", "--estimators", "to-go", "--wrappers", "plain", "--json", "--curve"]
    assert main([*words, "--out", "a.png", "--html", "b/a.html", "--batch", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mdp"] == "bandit"
    assert found["batch"] == 4
    assert [row["baseline"] for row in found["rows"]] == ["none", "value"]
    assert found["curve"]["least"] <= found["curve"]["without"]
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert "Variance over a constant baseline" in (tmp_path / "b" / "a.html").read_text("utf-8")


def test_the_curve_is_printed_and_written_files_are_named(capsys):
    assert main([*QUICK, "--estimators", "to-go", "--curve", "--html", "a.html"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^b\* +\S+ +\S+ +1×$", text, re.MULTILINE)
    assert text.rstrip().endswith("a.html")


def test_horizon_gamma_limit_critic_and_another_policys_episodes_are_used(capsys):
    words = ["--horizon", "inf", "--gamma", "0.5", "--limit", "3", "--critic", "wrong", "--estimators", "td"]
    assert main([*QUICK, *words, "--wrappers", "discount"]) == 0
    text = capsys.readouterr().out
    assert "no horizon, γ = 0.5" in text
    assert "truncated after 3 steps" in text
    assert "critic: wrong" in text
    assert "= biased" in text
    words = ["--off-policy", "0.5", "--estimators", "to-go", "--baselines", "none", "--gamma", "1"]
    assert main([*QUICK, *words, "--wrappers", "plain,is,per-decision"]) == 0
    text = capsys.readouterr().out
    assert "episodes of another policy" in text
    assert re.findall(r"= (unbiased|biased)", text) == ["biased", "unbiased", "unbiased"]


def test_other_seeds_are_other_policies_and_scale_0_is_uniform(capsys):
    def reference(*words: str) -> list[float]:
        assert main([*QUICK, "--json", "--estimators", "to-go", *words]) == 0
        return json.loads(capsys.readouterr().out)["reference"]

    assert reference() == reference("--seed", "0") != reference("--seed", "1")
    assert reference("--scale", "0") != reference()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mdp", "smal"], "did you mean 'small'"),
        (["--mdp", "corridor"], "give a limit"),
        (["--estimators", "gea:0.9"], "did you mean 'gae'"),
        (["--estimators", "gae:2"], "lam must be in"),
        (["--baselines", " , "], "--baselines = ' , ' names nothing"),
        (["--wrappers", "discount+zip"], "there is no wrapper 'zip'"),
        (["--critic", "best"], "--critic"),
        (["--batch", "0"], "--batch = 0 must be at least 1"),
        (["--repeats", "1"], "--repeats = 1 must be at least 2"),
        (["--limit", "x"], "--limit = 'x' must be a whole number"),
        (["--horizon", "0"], "--horizon = 0 must be at least 1"),
        (["--gamma", "1.1"], "gamma must be in"),
        (["--alpha", "1"], "--alpha = 1 must be below 1"),
        (["--scale", "-1"], "--scale = -1 must be at least 0"),
        (["--off-policy", "0"], "--off-policy = 0 must be above 0"),
        (["--out", "a.bmp"], "must end in one of"),
        (["--html", "a.pdf"], "must end in .html"),
        (["--estimators", "td", "--critic", "none"], "nothing is left to audit"),
        (["--wrapers", "plain"], "Did you mean --wrappers"),
        (["small"], "unexpected argument 'small'"),
    ],
)
def test_mistakes_are_answered_with_what_is_allowed(words, says, capsys):
    assert main(["lab", "audit", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) <= 3


def test_help_names_everything_there_is_with_its_default():
    text = re.sub(r"-\s+", "-", parser().format_help())  # names that are broken at a hyphen
    for name in (*ESTIMATORS, *BASELINES, *BEST, *WRAPPERS):
        assert re.search(rf"\b{name}\b", text), name
    assert lab_audit.CRITICS == CRITICS
    for kind in ("estimators", "baselines", "wrappers"):
        default = ",".join(getattr(audit, kind.upper()))
        assert f"[{default}]" in re.sub(r"\s+", "", parser().format_help()), kind


def test_a_large_table_gets_fewer_batches_by_default():
    assert default_repeats(make_mdp("small"), 16, None) == 1000
    assert default_repeats(make_mdp("Taxi-v4"), 16, None) == 250
    assert default_repeats(make_mdp("Taxi-v4"), 16, 20) == 1000
