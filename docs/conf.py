"""How Sphinx builds the site: ``python -m sphinx -W --keep-going docs DIRECTORY``.

Needs the extra ``docs``, no framework and no network.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

DOCS = Path(__file__).parent
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "backends")]

project = "clipcore"
author = "The clipcore authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = importlib.import_module("clipcore").__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # the tests run the pages, notebooks/build.py the notebooks
nb_code_prompt_show = "Code"
nb_code_prompt_hide = "Code"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "site": "{{path}}"}  # site: is what _links writes
suppress_warnings = ["myst.header"]  # the atlas, which a command writes, leaves a level out
default_role = "py:obj"

# Nobody needs a framework to read about it.
autodoc_mock_imports = ["jax", "keras", "optax", "torch"]
importlib.import_module("clipcore.integrations._require").require = lambda name, *_, **__: (
    importlib.import_module(name)
)
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_title = f"clipcore {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["atlas/atlas.html"]  # beside the page that atlas/atlas.md becomes
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # pages on a disk cannot fetch each other
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "atlas/atlas": []},  # whose table needs the room
}
html_sidebars: dict[str, list[str]] = {
    name: [] for name in ("start", "all_of_clipcore", "contract", "atlas/atlas", "citations")
}


def _support() -> dict[str, str]:
    """Return the tables of libraries, which the tests print into the README, each with its own notes."""
    begin, end = "<!-- the table that tests/libraries.py prints -->\n", "\n<!-- end of the table -->"
    norms, values, notes = README.partition(begin)[2].partition(end)[0].split("\n\n")
    lines = [line.rstrip("\\") for line in notes.splitlines()]

    def with_notes(table: str) -> str:
        return table + "\n\n" + "\\\n".join(line for line in lines if line[0] in table)

    return {"norms": with_notes(norms), "values": with_notes(values)}


SUPPORT = _support()


def _tables(_app: Any, _docname: str, source: list[str]) -> None:
    """Put the tables of libraries where a page asks for them."""
    source[0] = re.sub(r"<!-- support of (\w+) -->", lambda found: SUPPORT[found[1]], source[0])


def _links(_app: Any, docname: str, source: list[str]) -> None:
    """Mend what is a link in the repository and cannot be one here.

    Pages outside of docs/ are named instead; the atlas with its script stands at the top of the site.
    Other files beside and outside of docs/ become downloads by themselves.
    """
    here = dirname(docname)

    def mended(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = normpath(f"{here}/{target}" if here else target)
        if path == "atlas/atlas.html":
            return f"[{text}](site:{relpath('atlas.html', here or '.')})"
        if path.startswith("../") and path.endswith(".md"):
            return f"{text} (`{path.removeprefix('../')}`)"
        return link.group()

    source[0] = re.sub(r"\[([^\]\n]*)\]\(([^)\s:#]+)\)", mended, source[0])


def _signature(
    _app: Any, _kind: str, _name: str, _obj: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Name a module that is a default, without the place where this machine has it."""
    return re.sub(r"<module '(\w+)' [^>]*>", r"\1", signature or "") or signature, returns


# Signs that notebooks show as they are, and docutils knows by their names alone.
SIGNS = {
    "…": r"\ldots ",
    "‖": r"\| ",
    "·": r"\cdot ",
    "×": r"\times ",
    "±": r"\pm ",
    "≤": r"\le ",
    "←": r"\leftarrow ",
    "′": "'",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
}


def _mathml(node: Any, **options: bool) -> str:
    """Return a formula as MathML."""
    return str(tex2mathml(node.astext().translate(str.maketrans(SIGNS)), **options))


def _inline_math(self: Any, node: Any) -> None:
    self.body.append(_mathml(node))
    raise nodes.SkipNode


def _block_math(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Have formulas written as MathML, which needs no script, and pages mended as they are read."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-signature", _signature)
    app.connect("source-read", _tables)
    app.connect("source-read", _links)
