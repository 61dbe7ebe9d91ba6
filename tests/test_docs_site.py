"""The site: built without a warning, complete, and in need of nothing from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from chromium import Browser
from docs_support import DOCS, PAGES, ROOT, documented, exported, needs
from test_atlas_browser import browser

__all__ = ["browser"]  # the fixture

NOTEBOOKS: Final = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.ipynb"))]
NEEDED: Final = ("sphinx", "myst_nb", "numpydoc", "pydata_sphinx_theme")
# The texts and pictures that reach beyond the window, and cannot be scrolled to within a box of their own.
BEYOND: Final = """
(() => {
  const found = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
  const scrolls = (node) => {
    for (let each = node; each; each = each.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(each).overflowX) && each.clientWidth) return true;
      if (each.matches("main")) return false;
    }
    return false;
  };
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_ALL);
  while (walker.nextNode()) {
    const node = walker.currentNode, holder = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    if (node.nodeType !== Node.TEXT_NODE && node.tagName !== "IMG") continue;
    if (node.nodeType === Node.TEXT_NODE && !node.data.trim()) continue;
    const range = document.createRange();
    range.selectNode(node);
    const beyond = [...range.getClientRects()].some((box) => box.right > innerWidth + 1);
    if (beyond && holder.checkVisibility({ visibilityProperty: true }) && !scrolls(holder)) {
      found.push(node.data ?? node.getAttribute("src"));
    }
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built with every warning an error."""
    needs(request, *NEEDED)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "kept")]
    offline = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [*command, str(DOCS), str(out / "html")], capture_output=True, text=True, env=offline, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


def test_the_site_has_every_page_and_the_atlas_with_its_script(site: Path) -> None:
    assert [page for page in (*PAGES, *NOTEBOOKS) if not (site / page).with_suffix(".html").is_file()] == []
    assert (site / "atlas.html").read_bytes() == (DOCS / "atlas" / "atlas.html").read_bytes()
    assert 'href="atlas.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_outside(site: Path) -> None:
    tag = re.compile(
        r"<(?:script|link|img|iframe|source|video|audio|object|embed|use)\b[^>]*>", re.IGNORECASE
    )
    outside = re.compile(r"""(?:src|href|data|srcset|poster)\s*=\s*["']?\s*(?:https?:)?//""", re.IGNORECASE)
    style = re.compile(r"""(?:url\(\s*|@import\s+)["']?(?:https?:)?//""", re.IGNORECASE)
    pages, sheets = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > len(PAGES)
    assert sheets
    found = []
    for file in (*pages, *sheets):
        text = file.read_text(encoding="utf-8")
        found += [each for each in tag.findall(text) if outside.search(each)] + style.findall(text)
    assert found == []


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    lost = []
    for page in site.rglob("*.html"):
        if page == site / "atlas.html":
            continue  # it has a test of its own
        for target in re.findall(r'<a [^>]*href="([^"#?]+)[^"]*"', page.read_text(encoding="utf-8")):
            if not re.match(r"\w+:", target) and not (page.parent / target).exists():
                lost.append((page.name, target))
    assert lost == []


def test_the_tables_of_libraries_are_on_the_pages(site: Path) -> None:
    for name in exported("clipcore"):
        text = (site / "api" / f"{name}.html").read_text(encoding="utf-8")
        assert "array-api-strict" in text
        assert ("integers" in text.partition("Where it runs")[2]) == (
            name in ("clip_by_value", "clip_weights")
        )


def test_the_site_does_not_tell_where_it_was_built(site: Path) -> None:
    places = (str(ROOT), sys.prefix, str(Path.home()))
    texts = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert [page.name for page, text in texts.items() if any(place in text for place in places)] == []


def test_the_search_knows_every_public_name(site: Path) -> None:
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    known = {f"{module}.{entry[-1]}" for module, entries in index["objects"].items() for entry in entries}
    assert {each.name for each in documented()} <= known
    assert "clipcore.clip_by_global_norm" in known


def test_the_site_fits_a_phone_and_searches_without_a_server(site: Path, browser: Browser) -> None:
    wide, strange = [], []
    for number, page in enumerate([*sorted(PAGES), *NOTEBOOKS, "search", "genindex"]):
        browser.show((site / page).with_suffix(".html"), width=390, height=844, dark=bool(number % 2))
        wide += [(page, text) for text in browser.run(BEYOND)]
        for event in browser.events:
            url = event["params"].get("request", {}).get("url", "file:")
            if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                strange.append((page, event))
            elif not url.startswith(("file:", "data:")):
                strange.append((page, url))
    assert wide == []
    assert strange == []
    browser.show(site / "search.html", "?q=clip_by_global_norm")
    browser.until("document.querySelectorAll('#search-results li a').length > 5")
    first = browser.run("document.querySelector('#search-results li a').getAttribute('href')")
    assert first == "api/clip_by_global_norm.html"


def test_the_site_has_a_slider_that_moves_the_limit(site: Path, browser: Browser) -> None:
    browser.show(site / "notebooks" / "1_one_vector.html")
    shown = "document.querySelector('#limit-slider').innerText"
    before = browser.run(shown)
    browser.run(
        "(() => { const input = document.querySelector('#limit-slider input'); input.value = 31;"
        "input.dispatchEvent(new Event('input')); })()"
    )
    after = browser.run(shown)
    assert "limit 3.00" in " ".join(before.split())
    assert "limit 8.00" in " ".join(after.split())
    assert "by L2 norm (2.40, 1.80)" in " ".join(before.split())
    assert "by L2 norm (4.00, 3.00)" in " ".join(after.split())
