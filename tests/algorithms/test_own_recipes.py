"""Any composition is an agent: from Python and from the command line, trained, evaluated, drawn, loaded, continued."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import policygrad as pg
from policygrad.algorithms.config import ConfigError, find_recipe, parameters, resolve
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import main
from policygrad.cli.arguments import own_recipes, split_words
from policygrad.locate import LocateError, locate
from policygrad.stored.directory import RunError

HERE = Path(__file__).parent
FILE = str(HERE / "own_recipe.py")
RECIPE, ENV = f"{FILE}:mine", f"{FILE}:Match"
own = locate(f"{FILE}:mine").__globals__


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_recipe_of_ones_own_goes_the_whole_way_on_the_command_line(tmp_path, capsys):
    root = str(tmp_path / "runs")
    words = (RECIPE, ENV, "--steps", "600", "--lr", "0.01", "--seed", "0", "1", "--eval-episodes", "4")
    code, out = run(capsys, "train", *words, "--runs-root", root, "--flavour", "spicy")
    assert code == 0, out
    runs = sorted((tmp_path / "runs").rglob("config.json"))
    assert len(runs) == 2
    config = json.loads(runs[0].read_text())
    assert config["algo"] == RECIPE
    assert config["config"]["flavour"] == "spicy"
    assert runs[0].parent.parent.name == "mine"

    where = str(runs[0].parent)
    code, out = run(capsys, "eval", where, "--episodes", "3")
    assert code == 2
    assert "--recipe" in out
    assert RECIPE in out
    code, out = run(capsys, "eval", where, "--recipe", RECIPE, "--env", ENV, "--episodes", "3")
    assert code == 0, out
    assert run(capsys, "plot", where)[0] == 0
    code, out = run(capsys, "report", where)
    assert code == 0, out
    assert "mine on" in out

    model = runs[0].parent / "checkpoints"
    path = sorted(model.glob("*.safetensors"))[-1]
    with pytest.raises(ValueError, match="pass recipe="):
        pg.load(path, env=own["Match"])
    agent = pg.load(path, env=own["Match"], recipe=own["mine"])
    assert isinstance(agent.learner.update, own["HalfClipped"])
    assert isinstance(agent.learner.critic, own["MeanCritic"])
    before = agent.collector.steps_done
    agent.learn(512)
    assert agent.collector.steps_done > before
    assert agent.learner.critic.seen == agent.collector.steps_done


def test_a_function_and_its_name_train_the_same_bits():
    one = pg.Agent(own["mine"], own["Match"], lr=0.01).learn(600)
    two = pg.Agent(RECIPE, ENV, lr=0.01).learn(600)
    three = pg.Agent(RECIPE, ENV, lr=0.02).learn(600)
    assert torch.equal(one.policy.flat, two.policy.flat)
    assert not torch.equal(one.policy.flat, three.policy.flat)


def test_flags_help_bounds_and_nearest_match(capsys):
    code, out = run(capsys, "train", RECIPE, "--help")
    assert code == 0
    assert all(word in out for word in ("Half-clipped policy gradient.", "--clip", "--hidden", "--flavour", "0.003"))
    assert "second paragraph" not in out
    code, out = run(capsys, "train", RECIPE, ENV, "--epoch", "3")
    assert code == 2
    assert "--epochs" in out
    code, out = run(capsys, "train", RECIPE, ENV, "--clip", "-1")
    assert code == 2
    assert "above 0" in out
    assert "how hot it is [3]" in run(capsys, "train", RECIPE, "--help")[1]
    code, out = run(capsys, "train", RECIPE, ENV, "--heat", "6")
    assert code == 2
    assert "--heat = 6 must be in [1, 5]" in out
    code, out = run(capsys, "train", f"{FILE}:nothing", ENV)
    assert code == 2
    assert "'nothing'" in out
    assert "mine" in out
    code, out = run(capsys, "train", "no_such_module:mine", ENV)
    assert code == 2
    assert "no_such_module" in out


def test_a_preset_file_is_under_what_the_user_says(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.5\nclip = 0.3\n")
    config, tuned = resolve(own["mine"], "Match", {"clip": 0.1}, file)
    assert tuned
    assert (config["lr"], config["clip"]) == (0.5, 0.1)
    file.write_text('["Other-v0"]\nlr = 0.5\n["Match"]\nlr = 0.25\n')
    assert resolve(own["mine"], "Match", {}, file)[0]["lr"] == 0.25
    with pytest.raises(ConfigError, match="Other-v0"):
        resolve(own["mine"], "Third-v0", {}, file)
    file.write_text("lrr = 0.5\n")
    with pytest.raises(ConfigError, match="'lr'"):
        resolve(own["mine"], "Match", {}, file)
    with pytest.raises(ConfigError, match="CartPole-v1"):
        resolve("ppo", "Match", {}, "CartPole-v2")
    assert resolve("ppo", "Wrapped", {}, "CartPole-v1") == resolve("ppo", "CartPole-v1", {})
    assert resolve("ppo", "Wrapped", {})[0]["lr"] != resolve("ppo", "CartPole-v1", {})[0]["lr"]


def positional(task, lr=0.1): ...
def without_default(task, *, lr: float): ...
def of_objects(task, *, network: list = []): ...  # noqa: B006
def no_plan(task, *, lr: float = 0.1): ...


def test_what_is_no_recipe_is_refused():
    with pytest.raises(ConfigError, match="task, \\*, keywords"):
        find_recipe(positional)
    with pytest.raises(ConfigError, match="lr has no default"):
        find_recipe(without_default)
    with pytest.raises(ConfigError, match="network must be an int"):
        parameters(of_objects)
    with pytest.raises(TypeError, match="must return a Plan, got NoneType"):
        pg.Agent(no_plan, "CartPole-v1")
    with pytest.raises(ConfigError, match=r"Did you mean 'ppo'.*module:name"):
        find_recipe("ppoo")


def test_a_module_is_found_by_name_and_a_file_once(tmp_path, monkeypatch):
    (tmp_path / "some_recipes.py").write_text("def f(task, *, lr: float = 0.1): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert locate("some_recipes:f").__name__ == "f"
    assert locate("some_recipes.py:f") is locate("./some_recipes.py:f")
    for text in ("f", ":f", "some_recipes:", "nowhere.py:f"):
        with pytest.raises(LocateError):
            locate(text)


def test_every_packaged_recipe_has_its_cell_and_its_spec_survives_json():
    for name, recipe in RECIPES.items():
        spec = recipe.spec
        assert recipe.name == name
        assert spec.estimator
        assert spec.update in pg.__all__
        assert type(spec).from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_names_hyperparameters_that_are_there():
    def f(task, *, minibatches: int = 2): ...

    for wrong, name in (({"kl_limit": "max_kl"}, "max_kl"), ({"batch_size": "minibatches"}, "num_steps")):
        with pytest.raises(TypeError, match=f"names '{name}'"):
            pg.recipe(pg.RecipeSpec(**wrong))(f)
    with pytest.raises(TypeError, match="names 'rate'"):
        pg.recipe(pg.RecipeSpec(aliases={"learning_rate": "rate"}))(f)
    assert pg.recipe(pg.RecipeSpec(kl_limit="minibatches"))(f).spec.kl_limit == "minibatches"


def test_looking_a_recipe_up_renames_none():
    assert find_recipe("policygrad.algorithms.on_policy:ppo") is RECIPES["ppo"]
    assert RECIPES["ppo"].name == "ppo"
    by_function, by_file = find_recipe(own["mine"]), find_recipe(RECIPE)
    assert by_file.name == RECIPE
    assert by_function.name == f"{own['mine'].__module__}:mine"
    assert find_recipe(RECIPE) is by_file


def test_the_module_of_a_file_has_the_same_name_in_every_process(tmp_path):
    (tmp_path / "light.py").write_text("def f(): ...\n")
    here = f"{tmp_path / 'light.py'}:f"
    code = f"from policygrad.locate import locate; print(locate({here!r}).__module__)"
    names = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True
        ).stdout
        for s in ("1", "2")
    }
    assert names == {f"{locate(here).__module__}\n".encode()}


def other(task, *, num_steps: int = 32): ...


def test_a_file_is_not_loaded_with_another_recipe(tmp_path):
    mine = pg.Agent(own["mine"], own["Match"]).save(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"trained by the recipe .*mine, not by .*other"):
        pg.load(mine, env=own["Match"], recipe=other)
    with pytest.raises(ValueError, match="not by ppo"):
        pg.load(mine, env=own["Match"], recipe="ppo")
    ppo = pg.ppo("CartPole-v1").save(tmp_path / "ppo")
    with pytest.raises(ValueError, match=r"trained by the recipe ppo, not by .*mine"):
        pg.load(ppo, recipe=own["mine"])
    assert pg.load(ppo, recipe="ppo").algo == "ppo"
    assert pg.load(mine, env=own["Match"], recipe=RECIPE).algo == RECIPE  # the same function, elsewhere


def test_what_a_file_names_is_said_once_for_environment_and_recipe(tmp_path, capsys):
    path = str(pg.Agent(RECIPE, ENV).save(tmp_path / "m"))
    code, out = run(capsys, "eval", path)
    assert code == 2
    assert f"--env {ENV} --recipe {RECIPE}" in out


def test_only_the_word_in_the_place_of_the_algorithm_is_imported_to_see_whether_it_is_a_recipe(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('imported').touch()\nraise RuntimeError\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    free, _ = split_words(["off_policy_pg", "CartPole-v1", "--dataset", "trap:x"])
    assert free == ["off_policy_pg", "CartPole-v1"]
    assert own_recipes(free, ["--dataset", "trap:x"]) == ()
    assert (
        own_recipes(["CartPole-v1"], ["--algo", RECIPE])
        == own_recipes(["CartPole-v1"], [f"--algo={RECIPE}"])
        == (RECIPE,)
    )
    assert not Path("imported").exists()
    assert own_recipes(["trap:x"], []) == ()  # negative control
    assert Path("imported").exists()


def test_keys_at_the_top_of_a_preset_file_hold_for_every_environment(tmp_path):
    file = tmp_path / "both.toml"
    file.write_text('lr = 0.5\nclip = 0.3\n["Match"]\nclip = 0.1\n')
    config, _ = resolve(own["mine"], "Match", {}, file)
    assert (config["lr"], config["clip"]) == (0.5, 0.1)


def test_a_damaged_spec_in_a_run_is_named(tmp_path):
    for wrong in ("text", {"num_steps": "many"}, {"steers_kl": 1}, {"shorter": 3}):
        (tmp_path / "config.json").write_text(
            json.dumps({"algo": "m:f", "env": "E", "seed": 0, "config": {}, "recipe": wrong})
        )
        (tmp_path / "metrics.jsonl").write_text('{"steps": 1, "kl": 0.1}\n')
        with pytest.raises(RunError, match="recipe"):
            pg.report(tmp_path)


def test_training_and_help_with_a_preset_file(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text('learning_rate = 0.0125\nbatch_size = 64\nsteps = 300\n["CartPole-v1"]\nhidden = [5]\n')
    code, out = run(capsys, "train", "ppo", "CartPole-v1", "--preset", str(file), "--help")
    assert code == 0, out
    flat = " ".join(out.split())
    assert f"* marks values from {file}" in flat.replace("- ", "-")
    assert re.search(r"learning rate of the policy; [^\[]*\[0\.0125\*\]", flat)
    assert re.search(r"number of minibatches per pass [^\[]*\[32\*\]", flat)  # 8 × 256 steps in pieces of 64
    assert re.search(r"a table for Discrete states \[5\*\]", flat)
    assert re.search(r"discount γ; [^\[]*\[0\.99\]", flat)  # not what is tuned for the environment
    assert run(capsys, "train", "ppo", f"--preset={file}", "--help")[0] == 2  # which of its tables?
    words = ("--preset", str(file), "--num-steps", "32", "--eval-episodes", "2", "--run-dir", str(tmp_path / "run"))
    code, out = run(capsys, "train", "ppo", "CartPole-v1", *words)
    assert code == 0, out
    assert str(file) in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["lr"], config["hidden"], config["steps"], config["num_steps"]) == (0.0125, [5], 300, 32)
    code, out = run(capsys, "train", "ppo", "CartPole-v1", "--preset", str(tmp_path / "none.toml"), "--help")
    assert code == 2
    assert "none.toml" in out
