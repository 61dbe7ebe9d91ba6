"""The atlas in a real browser: what its script does, and that it fits a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from atlas_samples import hostile_file, sample_files
from chromium import PROGRAMS, Browser

from clipcore.verify.atlas import merge, page

FILES: Final = sample_files()
ATLAS: Final = merge(FILES)
TORCH: Final = "#torch.nn.utils.clip_grad_norm_/clip_by_global_norm/direction"
BOUND: Final = list(ATLAS.laws).index("bound")
SHOWN: Final = "document.querySelectorAll('tbody tr:not([hidden]) th > code')"
NAMES: Final = f"[...{SHOWN}].map((node) => node.textContent)"
OPEN: Final = "document.getElementById('panel').open"
PANEL: Final = "document.getElementById('panel').innerText"
FOCUS: Final = "document.activeElement.ariaLabel"
# every text that is shown, with the ratio of its colour to the background that it is seen on
CONTRASTS: Final = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (...colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || !node.getClientRects().length) continue;
    const grounds = [];
    for (let each = node; each; each = each.parentElement) {
      grounds.unshift(getComputedStyle(each).backgroundColor);
    }
    const [one, other] = [luminance(...grounds, getComputedStyle(node).color), luminance(...grounds)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found[`${node.tagName} ${node.className} ${node.textContent.slice(0, 20)}`] = ratio;
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    reason = ""
    if os.name != "posix":
        reason = "the browser is driven through file descriptors, which only POSIX hands on"
    elif program is None:
        reason = f"no Chromium on the PATH ({', '.join(PROGRAMS)}): apt-get install chromium"
    if reason and request.config.getoption("--require-all", default=False):
        pytest.fail(reason)
    if reason or program is None:
        pytest.skip(reason)
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    path.write_text(page(FILES), encoding="utf-8")
    return path


def events(browser: Browser, method: str) -> list[Any]:
    """Return what the browser has reported under one name since the page was loaded."""
    browser.run("new Promise((done) => setTimeout(done, 50))")
    return [event["params"] for event in browser.events if event["method"] == method]


def cell(row: int, law: int) -> str:
    """Return the selector of a cell by its place."""
    return f"tbody tr:nth-child({row + 1}) td.law:nth-of-type({law + 4}) button"


def test_it_opens_without_an_error_and_asks_the_network_for_nothing(browser: Browser, atlas: Path) -> None:
    browser.show(atlas)
    assert browser.run("document.title") == "Clipping, law by law"
    assert browser.run(NAMES) == [row.report.subject for row in ATLAS.rows]
    assert browser.run("document.getElementById('shown').textContent") == "31 of 31 shown"
    assert not browser.run(OPEN)
    assert events(browser, "Runtime.exceptionThrown") == events(browser, "Log.entryAdded") == []
    asked = [each["request"]["url"] for each in events(browser, "Network.requestWillBeSent")]
    assert {url for url in asked if url != "about:blank"} == {atlas.as_uri()}


def test_every_column_sorts_by_mouse_and_the_third_click_restores(browser: Browser, atlas: Path) -> None:
    browser.show(atlas)
    before = browser.run(NAMES)
    head = "thead [data-key=bound]"
    state = f"document.querySelector('{head}').parentElement.ariaSort"
    wrong = {row.report.subject: row.cell("bound").wrong for row in ATLAS.rows}
    for order, reverse in ("descending", True), ("ascending", False):
        browser.click(head)
        assert browser.run(state) == order
        counts = [wrong[name] for name in browser.run(NAMES)]
        assert counts == sorted(counts, reverse=reverse)
    browser.click(head)
    assert browser.run(state) is None
    assert browser.run(NAMES) == before
    for key in ["subject", "operation", "version", "level", *ATLAS.laws]:
        browser.click(f"thead [data-key={key}]")
        assert browser.run("document.querySelector('[aria-sort] button').dataset.key") == key
        assert sorted(browser.run(NAMES)) == sorted(before)
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_column_sorts_by_key_and_what_was_not_tried_comes_last(
    browser: Browser, atlas: Path, key: str
) -> None:
    browser.show(atlas)
    browser.run("document.querySelector('thead [data-key=norm]').focus()")
    for _ in range(2):
        browser.press(key)
        marks = browser.run(
            "[...document.querySelectorAll('td button[data-law=norm]')].map((each) => each.className)"
        )
        tried = sum(row.cell("norm").state != "untried" for row in ATLAS.rows)
        assert set(marks[tried:]) == {"untried"}
        assert "untried" not in marks[:tried]


def test_filters_leave_what_was_asked_for(browser: Browser, atlas: Path) -> None:
    browser.show(atlas)
    browser.run("document.getElementById('find').focus()")
    browser.write("torch norm")
    torch = [name for name in (row.report.subject for row in ATLAS.rows) if "torch" in name]
    assert browser.run(NAMES) == [name for name in torch if "norm" in name and "value" not in name]
    browser.click("[type=reset]")
    browser.until(f"{NAMES}.length === {len(ATLAS.rows)}")
    pick = "(([id, value]) => { const node = document.getElementById(id); node.value = value;"
    pick += "node.dispatchEvent(new Event('input', { bubbles: true })); })"
    browser.run(f"{pick}(['library', 'optax'])")
    assert {name.split(".")[0] for name in browser.run(NAMES)} == {"optax"}
    browser.run(f"{pick}(['operation', 'clip_by_value'])")
    assert browser.run(NAMES) == ["optax.clip"]
    browser.click("#broken")
    assert browser.run(NAMES) == []
    assert browser.run("document.getElementById('nothing').checkVisibility()")
    assert browser.run("document.getElementById('shown').textContent") == "0 of 31 shown"
    browser.click("[type=reset]")
    browser.until(f"{NAMES}.length === {len(ATLAS.rows)}")
    browser.click("#broken")
    broken = [row for row in ATLAS.rows if any(row.cell(law).state == "breaks" for law in ATLAS.laws)]
    assert browser.run(NAMES) == [row.report.subject for row in broken]


def test_a_cell_opens_by_mouse_shows_every_finding_and_closes_by_escape(
    browser: Browser, atlas: Path
) -> None:
    browser.show(atlas)
    place = browser.call("Page.getNavigationHistory")["currentIndex"]
    index, row = next((i, row) for i, row in enumerate(ATLAS.rows) if len(row.cell("edges").findings) > 1)
    browser.click(cell(index, list(ATLAS.laws).index("edges")))
    assert browser.run(OPEN)
    text = browser.run(PANEL)
    for said in row.report.subject, row.report.operation, row.cell("edges").sentence:
        assert said in text
    for finding in row.cell("edges").findings:
        for said in finding.message, finding.got, f"{finding.cases} case":
            assert said in text
    shown = browser.run("[...document.querySelectorAll('#panel pre')].map((node) => node.textContent)")
    assert shown == [finding.example for finding in row.cell("edges").findings]
    assert browser.run("location.hash") == f"#{row.report.subject}/{row.report.operation}/edges"
    browser.press("Escape")
    browser.until(f"!{OPEN} && location.hash === ''")
    assert browser.run(FOCUS) == f"edges {row.cell('edges').sentence}"
    assert browser.call("Page.getNavigationHistory")["currentIndex"] == place


def test_arrows_move_enter_opens_and_the_focus_comes_back(browser: Browser, atlas: Path) -> None:
    browser.show(atlas)
    browser.run(f"document.querySelector({cell(0, 0)!r}).focus()")
    browser.press("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft")
    expected = f"bound {ATLAS.rows[1].cell('bound').sentence}"
    assert browser.run(FOCUS) == expected
    browser.press("Enter")
    assert browser.run(OPEN)
    browser.press("Escape")
    browser.until(f"!{OPEN}")
    assert browser.run(FOCUS) == expected
    assert browser.run("document.querySelectorAll('td.law button[tabindex=\"0\"]').length") == 1
    browser.press("End")
    assert browser.run(FOCUS).startswith(ATLAS.laws[-1])


def test_an_address_opens_its_cell_and_the_way_back_closes_it(browser: Browser, atlas: Path) -> None:
    browser.show(atlas, TORCH)
    assert browser.run(OPEN)
    assert "torch.nn.utils.clip_grad_norm_" in browser.run(PANEL)
    browser.click("#panel header button")
    browser.until(f"!{OPEN} && location.hash === ''")
    assert browser.run(FOCUS).startswith("direction breaks in ")
    browser.click(cell(0, BOUND))
    assert browser.run(OPEN)
    browser.run("history.back()")
    browser.until(f"!{OPEN} && location.hash === ''")


@pytest.mark.parametrize("anchor", ["#", "#nothing", "#a/b/c", "#%E0%A4%A/x/bound", "#environment-2"])
def test_an_address_of_nothing_opens_nothing(browser: Browser, atlas: Path, anchor: str) -> None:
    browser.show(atlas, anchor)
    assert not browser.run(OPEN)
    assert events(browser, "Runtime.exceptionThrown") == []


def test_an_example_is_copied(browser: Browser, atlas: Path) -> None:
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.show(atlas, TORCH)
    browser.click("#panel .code button")
    browser.until("document.querySelector('#panel .code button').textContent === 'Copied'")
    shown = browser.run("document.querySelector('#panel pre').textContent")
    assert browser.run("navigator.clipboard.readText()") == shown


@pytest.mark.parametrize("width", [320, 360, 820])
def test_only_the_table_scrolls_sideways_on_a_phone(browser: Browser, atlas: Path, width: int) -> None:
    browser.show(atlas, width=width, height=780)
    sideways = "[document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert max(browser.run(sideways)) <= width
    assert browser.run("innerWidth") == width
    frame = "document.querySelector('.frame')"
    assert browser.run(f"{frame}.scrollWidth - {frame}.clientWidth") > 50
    left = "document.querySelector('tbody th').getBoundingClientRect().left"
    before = browser.run(left)
    browser.run(f"{frame}.scrollTo(200, 200)")
    assert browser.run(f"{frame}.scrollLeft") == 200
    assert browser.run(left) == before
    browser.click(cell(5, 3))
    assert max(browser.run(sideways)) <= width
    assert browser.run("document.getElementById('panel').scrollWidth") <= width


def test_a_wide_window_needs_no_scrolling_sideways(browser: Browser, atlas: Path) -> None:
    browser.show(atlas)
    assert browser.run("document.documentElement.scrollWidth") <= 1280
    assert browser.run(
        "[...document.querySelectorAll('td.law button')].every((b) => b.scrollWidth <= b.clientWidth)"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_the_contrast_of_wcag_aa(browser: Browser, atlas: Path, dark: bool) -> None:
    browser.show(atlas, dark=dark)
    paper = browser.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) is dark
    poor = {text: ratio for text, ratio in browser.run(CONTRASTS).items() if ratio < 4.5}
    assert poor == {}
    browser.click("td button.differs")
    assert {text: ratio for text, ratio in browser.run(CONTRASTS).items() if ratio < 4.5} == {}


def test_hostile_texts_are_shown_and_nothing_of_them_runs(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    file = hostile_file()
    path.write_text(page([file]), encoding="utf-8")
    browser.show(path)
    browser.click("td button.breaks")
    assert file.reports[0].findings[0].message in browser.run("document.getElementById('panel').textContent")
    address = browser.run("location.hash")
    assert browser.run("[window.hit === undefined, document.querySelectorAll('img').length]") == [True, 0]
    browser.show(path, address)
    assert browser.run(OPEN)
    assert events(browser, "Runtime.exceptionThrown") == []


def test_without_a_script_the_table_is_there_and_no_filter(browser: Browser, atlas: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(atlas)
        assert browser.run(NAMES) == [row.report.subject for row in ATLAS.rows]
        assert browser.run("document.querySelector('noscript p').checkVisibility()")
        assert not browser.run("document.getElementById('filters').checkVisibility()")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
