"""The transformer of examples/language that adds: its passes, its episodes, and every side's gradient against plain PyTorch."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import policygrad as pg

FOLDER = Path(__file__).parents[2] / "examples" / "language"
PROBLEMS, WRONG, LATE = 4, 1, 5  # prompts; an answer that is made wrong; one that does not end


class Modules:
    """The files of the example, imported as it imports them."""

    def __init__(self) -> None:
        self.run, self.model = importlib.import_module("arithmetic"), importlib.import_module("arithmetic_model")


@pytest.fixture
def x(monkeypatch) -> Modules:
    monkeypatch.syspath_prepend(FOLDER)
    return Modules()


@pytest.fixture(autouse=True)
def threads():
    before, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(before)
    torch.set_rng_state(state)


def transformer(x: Modules, outputs: int = 11, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return x.model.Transformer(outputs, width=8, heads=2)


def episodes(x: Modules, policy: Any) -> tuple[pg.Rollout, torch.Tensor, torch.Tensor]:
    """Two answers to each of four prompts, most of them right, one wrong, one without an end; prompts, answers."""
    problems = x.model.Problems.all().take(torch.tensor([7, 7, 1234, 1234, 9999, 9999, 5050, 5050]))
    answers = problems.answers.clone()
    answers[WRONG] = torch.tensor([*x.model.encoded("123."), x.model.PAD])
    answers[LATE] = torch.tensor(x.model.encoded("19888"))
    right, group = problems.right(answers).float(), torch.arange(4).repeat_interleave(2)
    return x.model.rollout_of(problems.prompts, answers, right, group, policy), problems.prompts, answers


def test_a_problem_and_its_answer_are_characters(x):
    problems = x.model.Problems.all()
    text = [
        "".join((x.model.LETTERS + "_")[i] for i in row) for row in torch.cat([problems.prompts, problems.answers], 1)
    ]
    assert text[1207] == "12+07=19.__"
    assert text[9999] == "99+99=198._"
    assert len(text) == 10_000
    train, held_out = x.run.split()
    assert {tuple(row) for row in train.prompts.tolist()}.isdisjoint(map(tuple, held_out.prompts.tolist()))
    assert (len(train), len(held_out)) == (9000, 1000)
    assert sum(p.numel() for p in x.model.Transformer().parameters()) == 102_347


def test_no_position_sees_a_later_one(x):
    net = transformer(x)
    tokens = torch.randint(0, 13, (3, 10), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 7:] = 5
    assert torch.equal(net(tokens)[:, :7], net(changed)[:, :7])
    assert not torch.equal(net(tokens)[:, 7:], net(changed)[:, 7:])


def test_decoding_many_answers_is_decoding_each_character_by_character(x):
    net = transformer(x)
    with torch.no_grad():
        net.out.bias[x.model.END] += 0.6  # some end early, some do not
    prompts = x.model.Problems.all().prompts[::700]
    found, ends = x.model.decode(net, prompts, None), set()
    for prompt, answer in zip(prompts, found, strict=True):
        letters: list[int] = []
        while len(letters) < x.model.LONGEST and x.model.END not in letters:
            seen = torch.cat([prompt, torch.tensor(letters, dtype=torch.long)])
            letters.append(int(net(seen.unsqueeze(0))[0, -1].argmax()))
        ends.add(len(letters))
        assert answer.tolist() == letters + [x.model.PAD] * (x.model.LONGEST - len(letters))
    sampled = x.model.decode(net, prompts[:1].expand(4000, -1), torch.Generator().manual_seed(0))[:, 0]
    share = torch.bincount(sampled, minlength=11)[:11] / 4000
    torch.testing.assert_close(share, net(prompts[:1])[0, -1].softmax(-1).detach(), rtol=0, atol=0.04)
    assert not torch.isin(sampled, torch.tensor([11, 12, 13])).any()


def test_one_pass_over_an_answer_gives_what_a_pass_per_character_gives(x):
    net = transformer(x)
    policy = x.model.answer_policy(net)
    rollout, prompts, answers = episodes(x, policy)
    logp, _ = by_character(net, prompts, answers)
    torch.testing.assert_close(rollout.logp[rollout.mask], logp.detach()[rollout.mask], rtol=0, atol=1e-5)
    batch = rollout.flatten(rollout.rew, "trajectory", segment=x.model.LONGEST)
    ratio = (policy.evaluate(batch).logp - batch.logp).exp()
    assert ratio.tolist() == pytest.approx([1.0] * len(ratio), abs=1e-6)
    assert rollout.mask.sum(0).tolist() == (answers != x.model.PAD).sum(1).tolist()
    assert rollout.truncated.any(0).tolist() == [n == LATE for n in range(8)]
    assert rollout.rew.sum(0).tolist() == [float(n not in (WRONG, LATE)) for n in range(8)]


def by_character(net: Any, prompts: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log π of every character (T, N), with its graph, and the last output there: of each prefix by itself."""
    logp, last = torch.zeros(answers.shape[1], len(answers)), torch.zeros(answers.shape[1], len(answers))
    for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        for t, letter in enumerate(answer.tolist()):
            if letter < 11:
                out = net(torch.cat([prompt, answer[:t]]).unsqueeze(0))[0, -1]
                logp[t, n], last[t, n] = out[:11].log_softmax(-1)[letter], out[-1]
    return logp, last


def first_gradient(side: Any, rollout: pg.Rollout) -> torch.Tensor:
    """The direction of a learner's first step on a batch, in one piece, before any clipping of norms: (P,)."""
    learner = side.learner
    iteration = learner.prepare(rollout)
    terms = [learner.update.objective(0.0), *learner.update.terms]
    evaluation = learner.policy.evaluate(iteration.batch)
    return evaluation.pull_back(sum(term(evaluation, iteration.batch) for term in terms)).clone()


@pytest.mark.parametrize("name", ["RLOO", "GRPO", "PPO"])
def test_every_sides_gradient_is_that_of_a_loss_in_plain_pytorch(x, name):
    """The same loss written with one pass per character, differentiated by autograd; the truncated answer is masked."""
    reference, later = transformer(x), transformer(x, seed=1)
    side = x.run.SIDES[name](later, 0, 1e-3)
    if name == "PPO":
        with torch.no_grad():
            side.transformer.out.weight[-1] = torch.linspace(-0.5, 0.7, 8)  # V is 0 everywhere at first
    frozen = x.model.answer_policy(reference)
    plain, prompts, answers = episodes(x, side.learner.policy)
    rollout = x.run.with_reference(plain, frozen, side.in_reward)
    own = copy.deepcopy(side.transformer)
    logp, value = by_character(own, prompts, answers)
    log_ref, mask = by_character(reference, prompts, answers)[0].detach(), plain.mask
    kept = mask & (torch.arange(8) != LATE)
    length, k1 = mask.sum(0), torch.where(mask, logp.detach() - log_ref, 0.0)
    R = plain.rew.sum(0) - (x.run.BETA * k1.sum(0) if name != "GRPO" else 0.0)
    if name == "RLOO":
        other = R[[1, 0, 3, 2, 5, 4, 7, 6]]
        gain = ((R - other) * torch.where(kept, logp, 0.0).sum(0)).sum() / 8
    elif name == "GRPO":
        pair = R.view(4, 2)
        sigma = pair.std(1, keepdim=True)
        adv = torch.where(sigma > 0, (pair - pair.mean(1, keepdim=True)) / sigma, 0.0).view(8)
        k3 = (log_ref - logp).exp() - 1.0 - (log_ref - logp)
        gain = (torch.where(kept, adv * logp - x.run.BETA * k3, 0.0).sum(0) / length).sum() / 8
    else:
        rew = plain.rew - x.run.BETA * k1
        V, adv = value.detach(), torch.zeros_like(rew)
        for n, steps in enumerate(length.tolist()):
            following = 0.0
            for t in reversed(range(steps)):
                after = V[t + 1, n] if t + 1 < steps else 0.0
                following = rew[t, n] + after - V[t, n] + 0.95 * following
                adv[t, n] = following
        target = adv + V
        adv = (adv - adv[mask].mean()) / (adv[mask].std(correction=0) + 1e-8)
        gain = torch.where(kept, adv * logp - 0.5 * 0.5 * (value - target).square(), 0.0).sum() / mask.sum()
    gain.backward()
    expected = torch.cat([p.grad.flatten() for p in own.parameters()])
    found = first_gradient(side, rollout)
    assert (found - expected).norm() <= 1e-4 * expected.norm()
    as_if_cut = replace(rollout, truncated=torch.zeros_like(mask), cut=rollout.truncated)
    if name != "PPO":  # whose GAE would take the cut for one in the middle of an answer
        as_if_cut = replace(rollout, truncated=torch.zeros_like(mask), terminated=rollout.end)
    unmasked = first_gradient(side, as_if_cut)
    assert (unmasked - expected).norm() > 1e-2 * expected.norm()


def test_training_moves_the_transformer_that_decodes_and_what_is_measured_is_exact(x):
    reference = transformer(x)
    problems = x.model.Problems.all().take(torch.arange(0, 10_000, 400))
    for name, make in x.run.SIDES.items():
        side = make(reference, 0, 1e-2)
        before = x.run.measured(side.transformer, reference, problems)
        assert before["kl"] == pytest.approx(0.0, abs=1e-12), name
        x.run.update(side, x.model.answer_policy(transformer(x, seed=1)), problems, torch.Generator().manual_seed(0))
        assert x.run.measured(side.transformer, reference, problems)["kl"] > 0.0, name
    with torch.no_grad():
        reference.out.bias[x.model.END] += 50.0  # every answer ends at once
    found = x.run.measured(reference, reference, problems)
    assert (found["length"], found["truncated"], found["greedy"]) == (1.0, 0.0, 0.0)


def test_the_script_trains_every_side_and_writes_what_it_measured(x, tmp_path, monkeypatch, capsys):
    out, page = tmp_path / "runs.json", tmp_path / "page.md"
    page.write_text("<!-- arithmetic: from examples/language/arithmetic.py -->\n<!-- end of arithmetic -->\n")
    given = [
        "--seeds",
        "1",
        "--updates",
        "1",
        "--prompts",
        "2",
        "--enough",
        "0",
        "--out",
        str(out),
        "--page",
        str(page),
    ]
    monkeypatch.setattr(sys, "argv", ["arithmetic.py", *given])
    train, held_out = x.run.split()
    monkeypatch.setattr(x.run, "split", lambda: (train, held_out.take(torch.arange(50))))
    monkeypatch.setattr(x.run, "supervised", partial(x.run.supervised, rows=16))
    x.run.main()
    runs = json.loads(out.read_text())
    assert [run["name"] for run in runs] == ["RLOO", "GRPO", "PPO"]
    assert [point["updates"] for point in runs[0]["curve"]] == [0, 1]
    assert "| reference |" in page.read_text()
    assert "| PPO |" in page.read_text()


def test_the_seed_of_an_update_decides_it(x):
    problems, frozen = x.model.Problems.all().take(torch.arange(0, 10_000, 2000)), x.model.answer_policy(transformer(x))

    def moved(seed: int) -> torch.Tensor:
        side = x.run.rloo(transformer(x, seed=1), 0, 1e-2)
        x.run.update(side, frozen, problems, torch.Generator().manual_seed(seed))
        return side.learner.policy.flat

    assert torch.equal(moved(3), moved(3))
    assert not torch.equal(moved(3), moved(4))


def test_the_page_has_the_runs_that_were_measured(x):
    page = (FOLDER.parents[1] / "docs" / "language.md").read_text("utf8")
    runs = json.loads((FOLDER / "arithmetic.json").read_text("utf8"))
    seeds = {name: [run["seed"] for run in runs if run["name"] == name] for name in x.run.SIDES}
    assert len({tuple(s) for s in seeds.values()}) == 1  # the same for every side
    assert all(run["curve"][-1]["updates"] == 200 for run in runs)
    assert x.run.with_tables(page, {"arithmetic": x.run.table(runs)}, "examples/language/arithmetic.py") == page
