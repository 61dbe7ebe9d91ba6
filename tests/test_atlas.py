"""The atlas: what several reports say together, as a page and as Markdown."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from atlas_samples import HOSTILE, hostile_file, sample_files
from markdown_it import MarkdownIt

from clipcore.verify.atlas import markdown, merge, page
from clipcore.verify.atlas_table import Cell, Row
from clipcore.verify.report import LAWS, Count, Finding, Report, ReportFile, Skipped

VOID = {"meta", "wbr", "input", "img", "link", "br", "source"}


def told(subject: str = "a.f", operation: str = "clip_by_value", **held: Any) -> Report:
    """Return a report that says just what is given."""
    return Report(subject, operation, "contract", "exact", 0, 5, **held)


def file(date: str, *reports: Report, skipped: dict[str, str] | None = None) -> ReportFile:
    """Return a file of some day."""
    left = [Skipped(subject, reason) for subject, reason in (skipped or {}).items()]
    return ReportFile(date, {"python": "3.13.5"}, list(reports), left)


def finding(law: str = "bound", **held: Any) -> Finding:
    """Return a failure."""
    return Finding(**{"law": law, "level": "exact", "verdict": "fail", "message": "too much", **held})


class Page(HTMLParser):
    """The tags, texts and addresses of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def inside(self, tag: str) -> str:
        """Return all text directly inside tags of one name."""
        return "".join(text for holder, text in self.texts if holder == tag)


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of every table of a Markdown document, as a parser of GitHub's tables sees them."""
    found: list[list[list[str]]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for token, following in itertools.pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append("".join(child.content for child in following.children or []))
    return found


def test_the_newest_date_wins_whatever_the_order_of_the_files() -> None:
    old, new = file("2026-11-19", told(version="1")), file("2026-11-20", told(version="2"))
    for files, number in ([old, new], 2), ([new, old], 1):
        (row,) = merge(files).rows
        assert (row.report.version, row.environment) == ("2", number)


def test_of_one_date_the_file_given_last_wins() -> None:
    one, other = file("2026-11-20", told(version="1")), file("2026-11-20", told(version="2"))
    assert merge([one, other]).rows == (Row(other.reports[0], 2),)
    assert merge([other, one]).rows == (Row(one.reports[0], 2),)


def test_one_subject_as_two_operations_is_two_rows() -> None:
    rows = merge([file("2026-11-20", told(operation="clip_weights"), told(operation="clip_by_value"))]).rows
    assert [row.report.operation for row in rows] == ["clip_by_value", "clip_weights"]


def test_the_reference_comes_first_then_libraries_in_order_of_the_alphabet() -> None:
    names = ["torch.clamp", "Jax.clip", "jax.numpy.clip", "clipcore.clip_weights", "array.f", "plain"]
    rows = merge([file("2026-11-20", *map(told, names))]).rows
    order = ["clipcore.clip_weights", "array.f", "Jax.clip", "jax.numpy.clip", "plain", "torch.clamp"]
    assert [row.report.subject for row in rows] == order
    assert [row.library for row in rows] == ["clipcore", "array", "Jax", "jax", "plain", "torch"]


def test_the_columns_are_the_laws_that_anybody_tried_in_their_order() -> None:
    counts = {"call": Count(3), "bound": Count(2, 1), "range": Count(0)}
    atlas = merge([file("2026-11-20", told(counts=counts), told("b.f", counts={"formula": Count(1)}))])
    assert atlas.laws == ("formula", "bound", "call")
    assert set(atlas.laws) < set(LAWS)


def test_skipped_are_only_those_that_no_file_ran() -> None:
    first = file("2026-11-20", told("a.f"), skipped={"b.f": "no b", "c.f": "old reason", "d.f": "no d"})
    second = file("2026-11-21", told("b.f"), skipped={"a.f": "no a", "c.f": "new reason"})
    assert merge([second, first]).skipped == (Skipped("c.f", "new reason"), Skipped("d.f", "no d"))


def test_environments_tell_date_versions_runs_and_rows() -> None:
    first = file("2026-11-20", told("a.f", version="1.2"), told("a.g", version="1.2"))
    atlas = merge([first, file("2026-11-21", told("a.g", version="1.3"))])
    assert [each.rows for each in atlas.environments] == [1, 1]
    assert atlas.environments[0].date == "2026-11-20"
    assert atlas.environments[0].versions == {"python": "3.13.5", "a": "1.2"}
    assert atlas.environments[0].runs == ("seed 0, 5 random examples a level",)


@pytest.mark.parametrize(
    ("count", "state", "mark", "sentence"),
    [
        (Count(1204), "holds", "✓", "holds in 1,204 cases"),
        (Count(1), "holds", "✓", "holds in 1 case"),
        (Count(1204, 1100), "breaks", "✗ 1,100", "breaks in 1,100 of 1,204 cases"),
        (Count(9, 5, 2), "breaks", "✗ 3", "breaks in 3 of 9 cases, and 2 differ by definition"),
        (Count(9, 5, 5), "differs", "≠ 5", "differs by definition in 5 of 9 cases"),
        (Count(), "untried", "—", "not tried"),
    ],
)
def test_a_cell_says_what_came_of_a_law(count: Count, state: str, mark: str, sentence: str) -> None:
    cell = Cell(count, ())
    assert (cell.state, cell.mark, cell.sentence) == (state, mark, sentence)
    text = page([file("2026-11-20", told(counts={"bound": count, "call": Count(1)}))])
    if state != "untried":
        assert f'aria-label="bound {sentence}"' in text
        assert f">{mark}</button>" in text


def test_a_failure_without_a_count_is_a_break_all_the_same() -> None:
    findings = (finding(cases=4), finding("scale", cases=2, difference="torch"))
    row = merge([file("2026-11-20", told(findings=findings))]).rows[0]
    assert row.cell("bound").mark == "✗ 4"
    assert row.cell("scale").mark == "≠ 2"


def test_what_is_wrong_comes_before_what_differs_and_what_was_not_tried() -> None:
    skip = finding(verdict="skip", message="takes no tree")
    differs, wrong = finding(difference="torch"), finding(message="wrong")
    row = merge([file("2026-11-20", told(findings=(skip, differs, wrong)))]).rows[0]
    assert row.cell("bound").findings == (wrong, differs, skip)


def test_the_level_is_the_one_reached() -> None:
    reports = [
        told("a.f"),
        told("b.f", findings=(finding(level="rounded"),)),
        told("c.f", findings=(finding(),)),
    ]
    assert [row.level for row in merge([file("2026-11-20", *reports)]).rows] == ["exact", "none", "robust"]


def test_a_level_that_nothing_above_was_asked_of_says_so() -> None:
    held = Report("a.f", "clip_by_value", "torch", "rounded", 0, 5)
    text = page([file("2026-11-20", held)])
    assert "no more was asked" in text
    assert "by the formula torch" in text


def test_the_page_is_one_well_formed_document_with_a_semantic_table() -> None:
    files = sample_files()
    seen, atlas = Page(page(files)), merge(files)
    names = [tag for tag, _ in seen.tags]
    assert names.count("table") == names.count("caption") == names.count("h1") == names.count("title") == 1
    scopes = [held.get("scope") for tag, held in seen.tags if tag == "th"]
    assert scopes.count("row") == len(atlas.rows)
    assert scopes.count("col") == 4 + len(atlas.laws)
    cells = [held for tag, held in seen.tags if tag == "button" and "aria-label" in held]
    assert len(cells) == len(atlas.rows) * len(atlas.laws)
    assert not re.search("@@[a-z]+@@", page(files))


def test_the_page_loads_nothing() -> None:
    text = page(sample_files())
    addresses = [
        value or ""
        for tag, held in Page(text).tags
        for name, value in held.items()
        if name in ("src", "href", "srcset", "data", "action") and (tag, name) != ("button", "data")
    ]
    assert addresses
    assert all(address.startswith("#environment-") for address in addresses)
    assert not re.search(r"@import|url\(|https?:|<link|fetch\(|XMLHttpRequest|innerHTML|eval\(", text)


def test_the_script_finds_every_finding_in_the_data() -> None:
    files = sample_files()
    held = json.loads(Page(page(files)).inside("script").split("\n", 1)[0])
    for row, shown in zip(merge(files).rows, held["rows"], strict=True):
        assert (shown["subject"], shown["operation"]) == (row.report.subject, row.report.operation)
        messages = [each["message"] for cell in shown["cells"].values() for each in cell["findings"]]
        assert sorted(messages) == sorted(
            each.message for each in row.report.findings if each.law in held["laws"]
        )


def test_hostile_texts_stay_texts() -> None:
    seen = Page(page([hostile_file()]))
    assert "img" not in [tag for tag, _ in seen.tags]
    assert not any(name.startswith("on") for _, held in seen.tags for name in held)
    data = seen.inside("script").split("\n", 1)[0]
    assert "<" not in data
    (row,) = json.loads(data)["rows"]
    (found,) = row["cells"]["bound"]["findings"]
    assert found["message"] == f"message {HOSTILE}"
    assert found["ulps"] == "inf"
    shown = "".join(text for _, text in seen.texts)
    for name in "evil/name.", "operation ", "1.0 ", "reason ", "skipped ", "2026-11-21 ":
        assert name + HOSTILE in shown


def test_the_page_and_the_markdown_can_be_written_as_utf_8() -> None:
    for text in page([hostile_file()]), markdown([hostile_file()]):
        assert text.encode()


def test_the_same_files_give_the_same_bytes() -> None:
    code = (
        "import hashlib\n"
        "from atlas_samples import sample_files\n"
        "from clipcore.verify.atlas import markdown, page\n"
        "print(hashlib.sha256((page(sample_files()) + markdown(sample_files())).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("render", [page, markdown])
def test_no_file_and_an_empty_file_are_still_an_atlas(render: Any) -> None:
    assert render([])
    assert render([file("2026-11-20", skipped={"a.f": "no a"})])


def test_the_markdown_is_a_table_with_a_cell_for_every_law() -> None:
    files = sample_files()
    atlas = merge(files)
    ((head, *rows),) = tables(markdown(files))
    assert head == ["implementation", "operation", "version", "level", *atlas.laws]
    assert {len(row) for row in rows} == {len(head)}
    for row, shown in zip(atlas.rows, rows, strict=True):
        assert shown[:2] == [row.report.subject, row.report.operation]
        assert shown[3:] == [row.level, *(row.cell(law).mark for law in atlas.laws)]


def test_the_markdown_shows_the_shortest_example_of_every_law_once() -> None:
    findings = (finding(example="fn(1, 2, 3)"), finding(example="fn(1)\n", message="less"), finding("scale"))
    text = markdown([file("2026-11-20", told(findings=findings))])
    assert text.count("```python") == 1
    assert "  ```python\n  fn(1)\n  ```\n" in text
    assert "- **bound** (exact): too much (1 case)" in text


def test_hostile_texts_stay_texts_in_markdown() -> None:
    text = markdown([hostile_file()])
    ((head, row),) = tables(text)
    assert len(head) == len(row) == 6
    assert row[0] == " ".join(f"evil/name.{HOSTILE}".split())
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert "html_block" not in [token.type for token in tokens]
    inline = [child for token in tokens for child in token.children or []]
    assert "html_inline" not in [child.type for child in inline]
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert fence.content.startswith("fn(")
    assert fence.content.endswith("\n```\n# **bold**\n")


def test_a_law_that_was_not_tried_says_why() -> None:
    skip = finding(verdict="skip", message="takes no tree")
    text = markdown([file("2026-11-20", told(findings=(skip,), counts={"bound": Count(1)}))])
    assert "- **bound** (exact): not tried: takes no tree\n" in text
