"""The tiny language of examples/language: every named estimator against closed forms, and against all groups one by one."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import policygrad as pg
from policygrad.lab.exact import tabular

FOLDER = Path(__file__).parents[2] / "examples" / "language"
EXACT = 1e-12
UNBIASED = ("REINFORCE", "ReMax", "RLOO")


class Modules:
    """The files of the example, imported as it imports them."""

    def __init__(self) -> None:
        self.exact, self.names, self.kl, self.ratios, self.tiny, self.group = (
            importlib.import_module(name)
            for name in ("exact", "exact_names", "exact_kl", "exact_ratios", "tiny_language", "group_estimators")
        )


@pytest.fixture
def x(monkeypatch) -> Modules:
    monkeypatch.syspath_prepend(FOLDER)
    return Modules()


def policies(x: Modules, language: Any) -> tuple[pg.Policy, pg.Policy, pg.Policy]:
    """A reference, a policy that has learned something, and one that has learned more."""
    reference = x.tiny.random_policy(language)
    policy = x.tiny.ascended(language, reference, 0.5)
    return reference, policy, x.tiny.ascended(language, policy, 0.7)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).norm() <= EXACT * b.norm())


def test_the_language_has_forty_answers_and_its_gradient_is_that_of_the_tables(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    answers = x.tiny.Answers.of(language, policy)
    assert len(answers.p) == 1 + 3 + 9 + 27
    assert int(answers.reward.sum()) == 7  # a, b, c, ab, ac, bc, abc
    assert answers.length.unique().tolist() == [1.0, 2.0, 3.0]
    assert close(answers.gradient, tabular.exact_gradient(language.mdp, policy))
    torch.testing.assert_close(
        answers.gradient, tabular.gradient_by_differences(language.mdp, policy), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("group", [2, 3])
def test_moments_by_classes_are_those_of_all_groups_one_by_one(x, group):
    """Every group of 7 answers (two letters, at most two) as a batch of its own, by the policy's own gradients."""
    language = x.tiny.Language("ab", 2)
    policy = x.tiny.random_policy(language, scale=1.0)
    rows = {row.named.name: row for row in x.names.audit(language, policy, group)}
    answers = x.tiny.Answers.of(language, policy)
    g = answers.gradient
    assert len(answers.p) == 7
    for name, row in rows.items():
        p, each = [], []
        for index in itertools.product(range(7), repeat=group):
            rollout = answers.rollout.columns(index)
            batch = rollout.flatten(row.named.adv(rollout), row.named.reduction)
            each.append(policy.evaluate(batch).gradient(batch.weight * batch.adv).clone())
            p.append(answers.p[list(index)].prod())
        p, each = torch.stack(p), torch.stack(each)
        mean = p @ each
        variance = p @ (each - mean).square().sum(1) / g.square().sum()
        assert (mean - row.mean).norm() <= EXACT * g.norm(), name
        assert row.variance == pytest.approx(float(variance), rel=1e-11), name
        assert row.bias2 == pytest.approx(float((mean - g).square().sum() / g.square().sum()), rel=1e-10, abs=1e-24)
        assert row.cosine == pytest.approx(float(mean @ g / mean.norm() / g.norm()), rel=1e-12)
        assert (row.bias2 <= 1e-24) is (name in UNBIASED)


def test_all_40_to_the_power_of_2_groups_give_the_table_of_the_language(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    rows, answers = x.names.audit(language, policy, 2), x.tiny.Answers.of(language, policy)
    for row in rows:
        mean = torch.zeros_like(policy.flat)
        table = {}  # what two answers get depends on their rewards and lengths alone
        kind = list(zip(answers.reward.tolist(), answers.length.tolist(), strict=True))
        for i, j in itertools.product(range(40), repeat=2):
            if (kind[i], kind[j]) not in table:
                table[kind[i], kind[j]] = row.named.coefficients(answers.rollout.columns([i, j]))
            a, b = table[kind[i], kind[j]]
            mean += answers.p[i] * answers.p[j] * (a * answers.score[i] + b * answers.score[j])
        assert (mean - row.mean).norm() <= EXACT * answers.gradient.norm(), row.named.name


def test_the_lab_finds_the_same_where_it_has_the_same_cell(x):
    language = x.tiny.Language("ab", 2)
    policy = x.tiny.random_policy(language, scale=1.0)
    rows = {row.named.name: row for row in x.names.audit(language, policy, 2)}
    found = pg.lab.audit(
        language.mdp, policy, ["total"], ["none", "loo"], ["plain", "standardize+step"], batch=2, repeats=2
    )
    for name, cell in (
        ("REINFORCE", ("total", "none", "plain")),
        ("RLOO", ("total", "loo", "plain")),
        ("REINFORCE++", ("total", "none", "standardize+step")),
    ):
        assert found[cell].bias_exact == pytest.approx(math.sqrt(rows[name].bias2), abs=1e-12)
        assert found[cell].variance_exact == pytest.approx(rows[name].variance, rel=1e-10)


def test_check_values_three_of_eight_right(x):
    reward = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0], dtype=torch.float64)
    rollout = x.names._one_token(reward, torch.zeros(8).long())
    names = {each.name: each for each in x.names.named(x.tiny.Language(), 0.0)}
    for name, right, wrong in (("GRPO", 1.2076, -0.7246), ("Dr. GRPO", 0.625, -0.375), ("RLOO", 0.7143, -0.4286)):
        adv = names[name].adv(rollout)[0]
        assert adv.tolist() == pytest.approx([right] * 3 + [wrong] * 5, abs=5e-5)


def test_dr_grpo_is_the_gradient_times_a_number_and_rloo_is_it(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    for group in (2, 4):
        rows = {row.named.name: row for row in x.names.audit(language, policy, group)}
        g = x.tiny.Answers.of(language, policy).gradient
        assert close(rows["RLOO"].mean, g)
        assert close(rows["Dr. GRPO"].mean, (group - 1) / group / language.longest * g)
        assert rows["GRPO without σ"].cosine < 0.99


def test_the_first_bias_of_grpo_turns_each_prompts_p_into_2_arcsin_of_its_root(x):
    """E ĝ = c_G(p) ∇p; c_G → 1/√(p (1 − p)), the derivative of 2 arcsin √p, so that J becomes Σ 2 arcsin √p over prompts."""
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    answers = x.tiny.Answers.of(language, policy)
    names = {each.name: each for each in x.names.named(language, 0.0)}
    grpo, p = names["GRPO without length"], (answers.p @ answers.reward).view(1)
    for group in (3, 5):
        row = next(row for row in x.names.audit(language, policy, group) if row.named.name == grpo.name)
        assert close(row.mean, x.names.difficulty_weight(p, group, grpo) * answers.gradient)
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    limit = 1.0 / (p * (1.0 - p)).sqrt()
    p.requires_grad_(True)
    (slope,) = torch.autograd.grad((2.0 * p.sqrt().arcsin()).sum(), p)
    torch.testing.assert_close(slope, limit)
    errors = [(x.names.difficulty_weight(p.detach(), group, grpo) / limit - 1.0).abs().max() for group in (50, 200)]
    assert errors[1] < errors[0] / 3 < 0.05  # O(1/G)
    for other in ("RLOO", "REINFORCE"):
        torch.testing.assert_close(x.names.difficulty_weight(p.detach(), 5, names[other]), torch.ones_like(limit))


def test_the_second_bias_of_grpo_is_the_gradient_with_every_reward_divided_by_the_length(x):
    """Without σ, E ĝ = (G − 1)/G · (∇E[R/|o|] − J ∇E[1/|o|]): a wrong answer twice as long is pushed down half as much."""
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    answers, group = x.tiny.Answers.of(language, policy), 3
    rows = {row.named.name: row for row in x.names.audit(language, policy, group)}
    J = answers.p @ answers.reward
    closed = answers.slope(answers.reward / answers.length) - J * answers.slope(1.0 / answers.length)
    assert close(rows["GRPO without σ"].mean, (group - 1) / group * closed)
    coefficients = rows["GRPO without σ"].named.coefficients
    kind = {(float(r), float(n)): i for i, (r, n) in enumerate(zip(answers.reward, answers.length, strict=True))}
    of = [kind[1.0, 2.0], kind[0.0, 1.0], kind[0.0, 3.0]]  # right; wrong and short; wrong and long
    _, short, long = coefficients(answers.rollout.columns(of)).tolist()
    assert short == pytest.approx(3 * long)
    assert short < 0
    assert rows["GRPO"].wrong_longer > rows["RLOO"].wrong_longer > 0
    fair = rows["RLOO"].named.coefficients(answers.rollout.columns(of)).tolist()
    assert fair[1] == fair[2] < 0


def test_kl_estimators_have_the_gradients_that_they_have(x):
    language = x.tiny.Language()
    reference, policy, _ = policies(x, language)
    truth = x.kl.Truth.of(language, policy, reference)
    rows = {(row.kind, row.placed): row.mean for row in x.kl.kl_rows(language, policy, reference)}
    assert close(rows["k1", "in the reward"], truth.reverse)
    assert rows["k1", "loss of answers"].norm() <= EXACT
    assert rows["k1", "loss of tokens"].norm() <= EXACT
    assert close(rows["k2", "loss of answers"], truth.reverse)
    assert close(rows["k2", "loss of tokens"], truth.reverse_tokens)
    assert close(rows["k3", "loss of answers"], truth.forward)
    assert close(rows["k3", "loss of tokens"], truth.forward_tokens)
    assert close(rows["k3", "in the reward"], truth.reverse) is False
    assert not close(truth.forward, truth.reverse)
    assert not close(truth.reverse_tokens, truth.reverse)  # the tokens' loss forgets that prefixes move, too
    values = x.kl.kl_values(language, policy, reference)
    for kind, unbiased in (("k1", True), ("k2", False), ("k3", True)):
        assert (abs(values[kind][0] - values["exact"][0]) <= EXACT) is unbiased
    assert values["k3"][1] < values["k1"][1]


def test_ratios_are_one_at_first_and_the_sequence_ratio_alone_is_unbiased_later(x):
    language = x.tiny.Language()
    _, policy, further = policies(x, language)
    first = x.ratios.ratio_rows(language, policy, policy)
    assert all(row.bias2 <= EXACT**2 for row in first)
    later = {row.name: row.bias2 for row in x.ratios.ratio_rows(language, policy, further)}
    assert later.pop("sequence ratio") <= EXACT**2
    assert min(later.values()) > 1e-4


def test_the_first_ratio_is_one_at_any_temperature_if_training_divides_the_logits_by_it_too(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    for temperature in (0.5, 1.0, 2.0):
        rows = x.ratios.temperature_rows(language, policy, temperature)
        forgotten, weighted, divided = rows
        assert divided.ratio == 0.0
        assert divided.bias2 <= EXACT**2
        assert weighted.bias2 <= EXACT**2
        if temperature == 1.0:
            assert forgotten.ratio <= 1e-15
        else:
            assert forgotten.ratio > 0.1
            assert forgotten.bias2 > 1e-3


def test_micro_batches_give_the_same_gradient_if_the_batch_decides_the_weights_first(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    answers = x.tiny.Answers.of(language, policy)
    index = torch.multinomial(answers.p, 8, replacement=True, generator=torch.Generator().manual_seed(0))
    rollout = answers.rollout.columns(index)
    assert len(rollout.mask.sum(0).unique()) > 1
    rows = x.ratios.micro_rows(policy, rollout, x.names.named(language, 1.0), 4)
    assert all(row.rows <= 1e-6 for row in rows)
    assert [row.name for row in rows if row.mean > 1e-6] == ["DAPO", "REINFORCE++"]
    assert [row.name for row in rows if row.all <= 1e-6] == ["REINFORCE", "ReMax"]


def test_a_learner_moves_along_the_audited_estimate(x):
    language = x.tiny.Language()
    policy = policies(x, language)[1]
    answers, before = x.tiny.Answers.of(language, policy), policy.flat.clone()
    rollout = answers.rollout.columns([3, 9, 20])
    for each in x.names.named(language, 1.0):
        rollout.extra["group"] = torch.zeros_like(rollout.time)
        rule = pg.VanillaGradient(0.1, optimizer="sgd", max_grad_norm=None)
        learner = pg.Learner(policy, each.estimator, rule, baseline=each.baseline, reduction=each.reduction)
        learner.step(rollout)
        expected = each.coefficients(rollout) @ answers.score[[3, 9, 20]]
        torch.testing.assert_close((policy.flat - before) / 0.1, expected, rtol=0, atol=1e-12)
        policy.flat.copy_(before)


def test_the_script_writes_its_tables_and_its_picture(x, tmp_path, monkeypatch, capsys):
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    names = ("estimators", "kl", "kl values", "ratios", "temperatures", "micro-batches")
    page.write_text("".join(f"<!-- {n}: from examples/language/exact.py -->\n<!-- end of {n} -->\n" for n in names))
    given = [
        "--letters",
        "ab",
        "--longest",
        "2",
        "--group",
        "2",
        "--steps",
        "3",
        "--page",
        str(page),
        "--out",
        str(picture),
    ]
    monkeypatch.setattr(sys, "argv", ["exact.py", *given])
    x.exact.main()
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf8")
    assert all(text.count(f"| {n} |") == 2 for n in ("RLOO", "GRPO", "DAPO"))
    assert "| k3 loss of tokens |" in text
    with pytest.raises(ValueError, match="no place for the table"):
        x.exact.with_tables(text, {"another": ""}, "examples/language/exact.py")


def test_the_page_has_what_the_script_computes(x):
    """All tables but that of the estimators, which takes seconds: it has a slow test of its own."""
    page = (FOLDER.parents[1] / "docs" / "language.md").read_text("utf8")
    made = x.exact.tables(x.tiny.Language(), 2)
    assert made.pop("estimators") not in page
    assert x.exact.with_tables(page, made, "examples/language/exact.py") == page


@pytest.mark.slow
def test_the_page_has_the_table_of_estimators(x):
    page = (FOLDER.parents[1] / "docs" / "language.md").read_text("utf8")
    assert x.exact.with_tables(page, x.exact.tables(x.tiny.Language(), 8), "examples/language/exact.py") == page
