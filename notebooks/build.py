"""Run the notebooks and keep what they print and draw: ``python notebooks/build.py [--only N ...]``.

Each ``notebooks/N_name.py`` becomes ``docs/notebooks/N_name.ipynb`` for readers, with the outputs of a clean
kernel, and ``N_name.png`` its first picture. Needs the extra ``notebooks``, and for the fifth the libraries
that it shows.
"""

from __future__ import annotations

import argparse
import base64
import re
import time
from pathlib import Path
from typing import Any, Final

import jupytext
import nbformat
from nbclient import NotebookClient

HERE: Final = Path(__file__).parent
BUILT: Final = HERE.parent / "docs" / "notebooks"
SOURCES: Final = {int(path.name.partition("_")[0]): path for path in sorted(HERE.glob("[0-9]*_*.py"))}
SECONDS: Final = 120  # that a cell may take


def read(source: Path) -> Any:
    """Return a notebook without outputs, its links as they are from the folder of the built ones."""
    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not by chance: what did not change stays the same file
        if cell.cell_type == "markdown":
            links = cell.source.replace("](../docs/", "](../")
            cell.source = re.sub(r"\]\((\d_\w+)\.py\)", r"](\1.ipynb)", links)
        elif "hide-cell" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
        elif "hide-input" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}
    return notebook


def run(source: Path) -> Any:
    """Return a notebook with the outputs of a clean kernel beside its source; raise where a cell does."""
    notebook = read(source)
    NotebookClient(
        notebook,
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    notebook.metadata.language_info = {"name": "python"}  # without the version of this machine
    return notebook


def first_picture(notebook: Any) -> bytes:
    """Return the picture that a notebook with outputs opens with."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return base64.b64decode(next(o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})))


def main() -> None:
    """Build the notebooks whose numbers are given, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0].partition(": ``")[0])
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        choices=SOURCES,
        default=[*SOURCES],
        help="their numbers; all by default",
    )
    BUILT.mkdir(exist_ok=True)
    for number in parser.parse_args().only:
        source, begin = SOURCES[number], time.monotonic()
        built = BUILT / f"{source.stem}.ipynb"
        notebook = run(source)
        nbformat.write(notebook, built)
        built.with_suffix(".png").write_bytes(first_picture(notebook))
        size = built.stat().st_size / 1024
        print(f"{built.relative_to(HERE.parent)}: {time.monotonic() - begin:.1f} s, {size:.0f} KiB")


if __name__ == "__main__":
    main()
