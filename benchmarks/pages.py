"""Write the tables of examples/README.md and of pages of docs/ that the code knows.

python benchmarks/pages.py
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from policygrad.algorithms import recipes
from policygrad.algorithms.config import aliases, parameters, pieces
from policygrad.algorithms.foreign import ANSWERS
from policygrad.algorithms.recipes import RECIPES
from policygrad.envs.make import STEPPED
from policygrad.gradient import importance
from policygrad.interop.metrics import NOTATION, TABLES, Metric
from policygrad.lab.auditing import cells
from policygrad.lab.exact import worlds
from policygrad.marks import markdown_table, with_tables
from policygrad.reports import comparison_words, sweep_words
from policygrad.reports.findings import CHECKS
from policygrad.reports.tracking import tracking
from policygrad.reports.value_findings import CHECKS as VALUE_CHECKS
from policygrad.stored.standing import DESCRIBED, STATES
from policygrad.training.tune import FILES

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS.parent / "examples"
SOURCE = "benchmarks/pages.py"
FIRST = ["reinforce_from_scratch", "dqn_from_scratch", "off_policy", "baseline_ladder", "live_variance"]
FIRST += ["mountain_car_continuous"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    return markdown_table(head, [[cell.replace("|", "\\|") for cell in row] for row in rows], "---")


def numbers(metrics: Sequence[Metric]) -> str:
    """Logged numbers, with a column of healthy values where any has one."""
    healthy = any(metric.healthy for metric in metrics)
    rows = [
        [f"`{metric.name}`", f"`{metric.written}`" if metric.written else metric.tag, metric.text, metric.healthy]
        for metric in metrics
    ]
    head = ["`metrics.jsonl`", "TensorBoard", "what it is", "healthy"]
    return markdown(head[: 3 + healthy], [row[: 3 + healthy] for row in rows])


def understood() -> str:
    """Other libraries' names of our keywords, and of which recipes, where some that have the keyword do not know the name."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for algo in RECIPES:
        counted = {"batch_size": name} if (name := pieces(algo)) else {}
        for theirs, ours in (aliases(algo) | counted).items():
            pairs.setdefault((ours, theirs), []).append(algo)
    rows: dict[tuple[str, str], list[str]] = {}
    for (ours, theirs), algos in pairs.items():
        some = "" if algos == [algo for algo in RECIPES if ours in parameters(algo)] else ", ".join(algos)
        rows.setdefault((ours, some), []).append(f"`{theirs}`")
    return markdown(
        ["theirs", "here", "of"], [[", ".join(theirs), f"`{ours}`", some] for (ours, some), theirs in rows.items()]
    )


def answered() -> str:
    """What to write in place of other libraries' names that are no keywords here."""
    rows: dict[str, list[str]] = {}
    for theirs, here in ANSWERS.items():
        rows.setdefault(here if isinstance(here, str) else here[0], []).append(f"`{theirs}`")
    return markdown(["theirs", "here"], [[", ".join(theirs), here] for here, theirs in rows.items()])


def findings(checks: Sequence[Callable[..., object]]) -> str:
    """What the report's findings compare, by their functions' docstrings."""
    rows = []
    for check in checks:
        compared, _, when = (inspect.getdoc(check) or "").partition("`!`: ")
        name = {"tracking": "surrogate and return"}.get(check.__name__, check.__name__.replace("_", " "))
        name = name.replace("kl", "KL").replace("td", "TD").replace("fisher", "Fisher")
        compared = compared.strip().removesuffix(".")
        compared = (
            compared if compared[1:2].isupper() else compared[:1].lower() + compared[1:]
        )  # but for TRPO, PPO, SAC
        rows.append([name, compared, when.partition("\n\n")[0].removesuffix(".").replace("\n", " ")])
    return markdown(["finding", "what is compared", "`!` where"], rows)


def examples() -> str:
    """The examples, by their docstrings: those that say how they are run, the ones to begin with first, folders last."""
    rows = []
    places = sorted(EXAMPLES.rglob("*.py"), key=lambda place: (place.parent != EXAMPLES, rank(place.stem), place))
    for place in places:
        text = ast.get_docstring(ast.parse(place.read_text("utf8"))) or ""
        if place.name in text:
            name, page = place.relative_to(EXAMPLES).as_posix(), re.search(r"docs/([\w-]+)\.md", text)
            shows = text.partition("\n\n")[0].partition(". `")[0].removesuffix(".")
            rows.append([f"[`{name}`]({name})", shows, f"[{page[1]}](../{page[0]})" if page else ""])
    return markdown(["file", "what it shows", "page"], rows)


def rank(name: str) -> int:
    """The place of an example among those to begin with, or behind them."""
    return FIRST.index(name) if name in FIRST else len(FIRST)


def plain(head: str, texts: Mapping[Any, str]) -> str:
    """A row for each name and its text."""
    return markdown(head.split(" | "), list(texts.items()))


def described(head: str, texts: Mapping[Any, str], names: Iterable[str], mark: str = "`") -> str:
    """A row for each text, with the names that it is of; what a name takes may stand behind a colon. Raises ValueError unless
    exactly these names have a text.
    """
    named = {name.partition(":")[0] for of in texts for name in of.split(", ")}
    if named != set(names):
        raise ValueError(f"described, or to be described: {sorted(named ^ set(names))}")
    rows = [[", ".join(f"{mark}{name}{mark}" for name in of.split(", ")), text] for of, text in texts.items()]
    return markdown(head.split(" | "), rows)


def quoted(module: ModuleType) -> str:
    """The table in a module's docstring."""
    lines = (module.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def summary() -> str:
    """What each recipe multiplies the score by. Raises ValueError unless exactly the recipes have a row."""
    table = quoted(recipes)
    if (named := set(re.findall(r"(\w+)\(env", table))) != set(RECIPES):
        raise ValueError(f"in the table, or a recipe: {sorted(named ^ set(RECIPES))}")
    return table


def atari() -> str:
    """The keywords of Atari games with their defaults, as a docstring describes them, `name, name: text.`; a dash for those
    that are handed on.
    """
    tree = ast.parse((DOCS.parent / "src" / "policygrad" / "envs" / "atari.py").read_text("utf8"))  # which needs ale-py
    made = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "make_atari")
    defaults = {
        arg.arg: ast.unparse(value)
        for arg, value in zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
        if value
    }
    text = (ast.get_docstring(made) or "").split("\n\n")[1].replace("\n", " ")
    parts = re.split(r"(?:^|(?<=[.]) )(\w+(?:, \w+)*): ", text)[1:]
    rows = []
    for names, said in zip(parts[::2], parts[1::2], strict=True):
        listed = [name for name in names.split(", ") if name != "kwargs"]
        values = ", ".join(defaults.get(name, "–") for name in listed)
        rows += [[", ".join(f"`{name}`" for name in listed), values, said.removesuffix(".")]] * bool(listed)
    return markdown(["`env_kwargs`", "default", "what it is"], rows)


def estimates() -> str:
    """What the recommender's estimates of a value are, by the docstrings of the functions that have a bias and a source."""
    tree, rows = ast.parse((EXAMPLES / "recommender" / "estimates.py").read_text("utf8")), []
    for node in tree.body:
        text = (ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else ""
        said = re.match(r"(.*?): (?:the mean of )?(.*?)[.] Bias: (.*?)[.]\sSource: (.*?)[.](?:\n\n|$)", text, re.DOTALL)
        rows += [[said[1], said[2], said[3], said[4].replace("(\n", "(")]] if said else []
    return markdown(["estimate", "average of", "bias", "source"], rows)


def pages() -> dict[Path, dict[str, str]]:
    """The tables of each page."""
    compared = [*comparison_words.HEADER[2:], "P(improvement)"]
    tables = {name: numbers(metrics) for name, metrics in TABLES.items()}
    return {
        EXAMPLES / "README.md": {"examples": examples()},
        DOCS / "audit.md": {
            "baselines": described("baseline | what it is", cells.OF_BASELINES, [*cells.BASELINES, *cells.BEST]),
            "wrappers": described("wrapper | what it does", cells.OF_WRAPPERS, cells.WRAPPERS),
        },
        DOCS / "compare.md": {"numbers": described("number | what it is", comparison_words.DESCRIBED, compared, "")},
        DOCS / "environments.md": {
            "Atari": atari(),
            "backends": markdown(
                ["`backend=`", "environments are stepped", "for"],
                [[f"`{name}`", *how] for name, how in STEPPED.items()],
            ),
        },
        DOCS / "guide.md": {"recipes": summary()},
        DOCS / "importance.md": {"weights": quoted(importance)},
        DOCS / "mdps.md": {"MDPs": described("name | what it is for", worlds.DESCRIBED, worlds.WORLDS)},
        DOCS / "metrics.md": tables | {"notation": NOTATION},
        DOCS / "migrating.md": {"names that are understood": understood(), "names that are answered": answered()},
        DOCS / "recommender.md": {"estimates": estimates()},
        DOCS / "report.md": {
            "findings": findings([*CHECKS.values(), tracking]),
            "findings off-policy": findings(list(VALUE_CHECKS.values())),
        },
        DOCS / "sweep.md": {"numbers": plain("number | what it is", sweep_words.DESCRIBED)},
        DOCS / "tune.md": {"files": described("file | what it is", FILES, FILES)},
        DOCS / "runs.md": {
            "states": plain("state | what it means", STATES),
            "keys": described("key | what it is", DESCRIBED, DESCRIBED),
        },
    }


def written(page: Path) -> str:
    """The page with its tables as they are now."""
    return with_tables(page.read_text("utf8"), pages()[page], SOURCE)


if __name__ == "__main__":
    for each in pages():
        each.write_text(written(each), "utf8")
