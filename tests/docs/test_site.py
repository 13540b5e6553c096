"""The site: a page per public name, every page in it, and a warning where a link leads nowhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import policygrad as pg

SITE = Path(__file__).parents[2] / "site"


@pytest.fixture(scope="module")
def reference():
    """The module that writes the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SITE))
        import api  # pyright: ignore[reportMissingImports]

        yield api


def test_every_public_name_has_a_page_with_its_signature_and_its_docstring(reference):
    pages = reference.pages()
    names = set(pg.__all__) - {"__version__"}
    assert {name.removesuffix(".md") for name in pages} == names | {"index"}
    for name in names:
        text = pages[f"{name}.md"]
        assert text.startswith(f"# {name}\n")
        assert len(text) > 100, name
        assert f"[`{name}`]({name}.md)" in pages["index.md"]
    assert "lam: float = 0.95" in pages["GAE.md"]
    assert "backend: str = 'auto'" in pages["ppo.md"]
    assert "- `clip`: ε of the clipped surrogate" in pages["ppo.md"]
    assert "[`StateDiscounted`](StateDiscounted.md)" in pages["GAE.md"]


def test_all_pages_are_in_the_contents():
    """A page that is missing there is a warning of the build; this says so without it."""
    contents = (SITE / "index.md").read_text("utf8")
    listed = set(re.findall(r"^[\w/-]+$", contents, re.MULTILINE))
    docs = SITE.parent / "docs"
    found = [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]
    pages = {str(page.relative_to(SITE.parent).with_suffix("")) for page in found if "solutions" not in page.parts}
    assert pages <= listed, pages - listed


def test_a_paragraph_about_parameters_becomes_a_list_and_others_stay(reference):
    text = "x: a number,\nabove 0. y, z (N,): others: two. Raises ValueError for none."
    assert reference.as_list(text, {"x", "y", "z"}) == (
        "- `x`: a number, above 0.\n- `y, z` (N,): others: two.\n\nRaises ValueError for none."
    )
    assert reference.as_list("Note: x is a number.", {"x"}) == "Note: x is a number."


@pytest.mark.slow
@pytest.mark.timeout(900)  # two builds
def test_the_site_is_built_without_a_warning_its_search_knows_the_words_and_a_dead_link_is_an_error(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    good = subprocess.run(
        [sys.executable, SITE / "build.py", "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert good.returncode == 0, good.stderr
    index = (tmp_path / "out" / "searchindex.js").read_text("utf8")
    found = json.loads(index.removeprefix("Search.setIndex(").rstrip(")\n;"))
    for word in ("gae", "snr", "resum"):  # stems
        assert word in found["terms"] or word in found["titleterms"], word
    script = f"import sys; sys.path.insert(0, {str(SITE)!r}); import api, build; old = api.pages; "
    script += "api.pages = lambda: old() | {'GAE.md': '# GAE\\n\\n[no](nowhere.md)\\n'}; build.main()"
    bad = subprocess.run(
        [sys.executable, "-c", script, "--out", str(tmp_path / "bad")], capture_output=True, text=True, check=False
    )
    assert bad.returncode == 1
    assert "nowhere.md" in bad.stderr
