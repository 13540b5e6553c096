"""Build the documentation as a site: every page, the examples, and one page per public name, with search.

    pip install -c constraints.txt ".[docs]"
    python site/build.py                       # → build/site/index.html; a warning is an error
    python site/build.py --out public

The pages stay what they are in the repository, with the same links between them. They are copied to a directory of their own
together with what is generated: the reference of the API (api.py), a page per example, and the course's notebooks as pages.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import api

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples", "benchmarks/README.md")
EXAMPLE = re.compile(r"\]\(([^)\s]*?examples/|)([a-z_]+)\.py\)")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)\)")  # to a place in the repository


def stage(place: Path) -> None:
    """Copy the pages as they lie in the repository, and add those that are generated."""
    for name in PAGES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "solutions"))
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place / name)
    (place / "static").mkdir()
    shutil.copy(HERE / "custom.css", place / "static" / "custom.css")
    for name in ("conf.py", "index.md"):
        shutil.copy(HERE / name, place / name)
    for notebook in place.rglob("*.ipynb"):
        notebook.with_suffix(".md").write_text(as_page(json.loads(notebook.read_text("utf8"))), "utf8")
        notebook.unlink()
    scripts = sorted((place / "examples").rglob("*.py"))
    for script in scripts:
        script.with_suffix(".md").write_text(example_page(script), "utf8")
    with (place / "examples" / "README.md").open("a", encoding="utf8") as listing:
        listing.write(
            "\n".join(
                [
                    "\n```{toctree}\n:hidden:\n",
                    *(str(script.relative_to(place / "examples").with_suffix("")) for script in scripts),
                    "```\n",
                ]
            )
        )
    for page in place.rglob("*.md"):
        text = page.read_text("utf8")
        shown = EXAMPLE.sub(partial(link_to_example, page=page, place=place), text)
        text = LINK.sub(partial(without_link, page=page, place=place), shown.replace(".ipynb)", ".md)"))
        page.write_text(text, "utf8")
    for name, text in api.pages().items():
        (place / "api").mkdir(exist_ok=True)
        (place / "api" / name).write_text(text, "utf8")


def link_to_example(found: re.Match[str], page: Path, place: Path) -> str:
    """A link to an example's page, where there is one; else the link as it was."""
    target = (page.parent / found[1] / f"{found[2]}.md").resolve()
    return f"]({found[1]}{found[2]}.md)" if target.is_relative_to(place.resolve()) and target.exists() else found[0]


def without_link(found: re.Match[str], page: Path, place: Path) -> str:
    """The words alone where they link to what is in the repository and not on the site, such as a source file."""
    on_site = page.parent / found[2]
    in_repository = REPOSITORY / page.relative_to(place).parent / found[2]
    return found[1] if in_repository.exists() and (on_site.is_dir() or not on_site.exists()) else found[0]


def example_page(script: Path) -> str:
    """A page with the text of a script."""
    return f"# {script.stem.replace('_', ' ').capitalize()}\n\n```{{literalinclude}} {script.name}\n:language: python\n```\n"


def as_page(notebook: dict) -> str:
    """The cells of a notebook as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"]).rstrip()
        if text:
            parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Stage and build. The exit code is 1 if there was a warning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "site", help="[build/site]")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", folder, str(out)]
        code = subprocess.run(command, check=False).returncode
    print(f"{out}/index.html" if code == 0 else "there were warnings, which are errors")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
