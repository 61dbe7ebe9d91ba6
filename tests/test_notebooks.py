"""The notebooks: they run from a clean kernel, and what readers see is what they print and draw today."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = {path.stem: path for path in sorted((ROOT / "notebooks").glob("[0-9]*.py"))}
BUILT: Final = ROOT / "docs" / "notebooks"
NEEDED: Final = ("ipykernel", "jupytext", "nbclient")
HIDDEN: Final = {"hide-input", "hide-cell"}
each_notebook: Final = pytest.mark.parametrize("name", SOURCES)


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Any:
    """The module that runs notebooks."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{', '.join(missing)} not installed: the extra notebooks brings what runs them"
        if request.config.getoption("--require-all"):
            pytest.fail(reason)
        pytest.skip(reason)
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells_of(name: str) -> list[Any]:
    """The cells that readers see."""
    cells: list[Any] = json.loads((BUILT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def pictures(cell: Any) -> int:
    """How many pictures a cell drew."""
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_seven_notebooks_are_numbered_built_and_listed_in_order() -> None:
    assert [name.partition("_")[0] for name in SOURCES] == list("1234567")
    assert sorted(path.stem for path in BUILT.glob("*.ipynb")) == list(SOURCES)
    for page in (BUILT / "index.md", ROOT / "README.md"):
        listed = re.findall(r"(\d_\w+)\.ipynb\)", page.read_text(encoding="utf-8"))
        assert listed == list(SOURCES), page


@each_notebook
def test_pictures_come_first_and_exercises_with_hidden_answers_last(name: str) -> None:
    cells = cells_of(name)
    assert cells[0]["source"].startswith(f"# {name[0]} · ")
    assert pictures(cells[1])
    assert cells[1]["metadata"]["tags"] == ["hide-input"]
    (first,) = [
        output["data"]["image/png"] for output in cells[1]["outputs"] if "image/png" in output["data"]
    ]
    assert base64.b64decode("".join(first)) == (BUILT / f"{name}.png").read_bytes()
    sections = [
        number for number, cell in enumerate(cells) if re.search("^## ", cell["source"], re.MULTILINE)
    ]
    assert cells[sections[-1]]["source"].rpartition("\n## ")[2].startswith("Exercises\n")
    questions, answers = cells[sections[-1] :: 2], cells[sections[-1] + 1 :: 2]
    assert 3 < len(questions) == len(answers)
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), 1):
        assert re.search(rf"^\*\*{number}\.\*\* ", question["source"], re.MULTILINE)
        assert answer["metadata"]["tags"] == ["hide-cell"]
        assert answer["outputs"]


@each_notebook
def test_readers_see_the_whole_run_and_nothing_of_the_machine(name: str) -> None:
    code = [cell for cell in cells_of(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [each for each in outputs if each["output_type"] == "error" or each.get("name") == "stderr"] == []
    for cell in code:
        assert set(cell["metadata"].get("tags", [])) <= HIDDEN
        if pictures(cell):
            assert cell["metadata"]["tags"] == ["hide-input"]  # the code of a picture would bury the story
    text = (BUILT / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not re.search(
        r"/(?:home|root|tmp|usr|work)/|site-packages", re.sub(r'"image/png": "[^"]*"', "", text)
    )
    assert len(text) < 600_000


@each_notebook
def test_what_readers_see_is_of_this_source(name: str, build: Any) -> None:
    source = build.read(SOURCES[name]).cells
    built = cells_of(name)
    assert [cell["source"] for cell in built] == [cell.source for cell in source]
    assert [cell["metadata"] for cell in built] == [cell.metadata for cell in source]


@each_notebook
def test_every_cell_runs_in_a_clean_kernel(name: str, build: Any) -> None:
    cells = build.run(SOURCES[name]).cells
    told = [
        output.text for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
    assert told == []
    assert [bool(pictures(cell)) for cell in cells] == [bool(pictures(cell)) for cell in cells_of(name)]


def test_a_notebook_with_a_false_claim_fails(build: Any, tmp_path: Path) -> None:
    source = tmp_path / "1_false.py"
    header = SOURCES["1_one_vector"].read_text(encoding="utf-8").partition("\n# %%")[0]
    source.write_text(f"{header}\n# %%\nassert 1 + 1 == 3\n", encoding="utf-8")
    with pytest.raises(Exception, match="AssertionError"):
        build.run(source)
