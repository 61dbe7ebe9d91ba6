"""The page for those who come from another clip: its numbers are the atlas's, its lines run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "migration.md").read_text(encoding="utf-8")
ATLAS = (DOCS / "atlas" / "atlas.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
NEEDS = {
    "torch": "torch",
    "optax": "optax",
    "TensorFlow": "tensorflow",
    "Keras": "keras",
    "MLX": "mlx",
    "Paddle": "paddle",
    "Differential privacy: Opacus, JAX-Privacy": "numpy",
    "NumPy": "numpy",
}
# Doctest by itself, in a process of its own: frameworks do not share one.
RUN = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "migration", "migration.md", 0)
outcome = doctest.DocTestRunner().run(test)
sys.exit(not outcome.attempted or outcome.failed)
"""


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a page, each row by the names of its columns."""
    found = []
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for line in lines.splitlines()
        ]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def test_every_number_is_the_one_in_the_atlas() -> None:
    atlas = {(row["implementation"], row["operation"]): row for row in tables(ATLAS)[0]}
    quoted = [row for table in tables(PAGE) if "in the atlas" in table[0] for row in table]
    assert len(quoted) > 30
    for row in quoted:
        told = atlas[row["in the atlas"], row["judged as"]]
        laws = row.keys() - {"in the atlas", "judged as"}
        assert {law: row[law] for law in laws} == {law: told[law] for law in laws}, row
    # Counts stand in those tables and nowhere else.
    assert "✗" not in re.sub(r"(?:^\|.*\n)+", "", PAGE, flags=re.MULTILINE)


def test_every_own_call_of_the_atlas_has_its_line() -> None:
    quoted = {row["in the atlas"] for table in tables(PAGE) if "in the atlas" in table[0] for row in table}
    own = {row["implementation"] for row in tables(ATLAS)[0] if row["operation"].startswith("`clip_by")}
    left = {name for name in own - quoted if not name.startswith("`clipcore")}
    assert left == {
        "`jax.numpy.clip`",  # the array API's clip, as of NumPy
        "`keras[jax].MaxNorm`",
        "`keras[jax].MinMaxNorm`",
        "`keras[jax].NonNeg`",
        "`keras[jax].clipvalue`",
        "`keras[tensorflow].NonNeg`",
        "`keras[torch].MaxNorm`",
        "`keras[torch].MinMaxNorm`",
        "`keras[torch].NonNeg`",
        "`keras[torch].clipvalue`",
        "`torch.clip_grad_norm_[foreach=False]`",
    }


def test_every_section_that_has_lines_says_what_they_need() -> None:
    assert set(SECTIONS) == {*NEEDS, "DeepSpeed, Megatron"}


@pytest.mark.parametrize("section", NEEDS)
def test_every_line_of_a_table_is_in_the_code_below_it(section: str) -> None:
    text = SECTIONS[section]
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    cells = [row["clipcore"] for table in tables(text) if "clipcore" in table[0] for row in table]
    lines = [line for cell in cells for line in re.findall(r"`([^`]*\(.*?)`", cell)]
    assert lines
    assert [line for line in lines if line not in code] == []


@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(section: str, request: pytest.FixtureRequest) -> None:
    library = NEEDS[section]
    if importlib.util.find_spec(library) is None:
        if request.config.getoption("--require-all"):
            pytest.fail(f"{library} is not installed")
        pytest.skip(f"{library} is not installed, so its lines cannot run")
    code = "".join(re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=code, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
