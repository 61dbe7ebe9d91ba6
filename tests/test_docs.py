"""The documentation: complete, true, and its links good."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from docs_support import MODULES, PAGES, ROOT, documented, exported, needs, skip

from clipcore.verify.report import LAWS

PAPERS: Final = {
    **{f"docs/{name}": path for name, path in PAGES.items()},
    **{
        name: ROOT / name
        for name in (
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "backends/README.md",
            "notebooks/README.md",
        )
    },
}
# Whose code runs in a test of its own.
ELSEWHERE: Final = {
    "keras.md": "test_integration_keras_steps.py",
    "many_machines.md": "test_many_machines_wire.py",
    "migration.md": "test_migration.py",
    "optax.md": "test_integration_optax_chains.py",
    "torch.md": "test_integration_torch_training.py",
    "vectors.md": "test_vectors.py",
    "verify.md": "test_packaging.py",
}
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Doctest by itself, in a process and a folder of its own.
RUN: Final = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "page", "page", 0)
outcome = doctest.DocTestRunner().run(test)
sys.exit(not outcome.attempted or outcome.failed)
"""
# An exception, protocols and a named tuple are not called: no example, nothing to compare them with.
NOT_CALLED: Final = {"SubjectError", "Engine", "DeviceEngine", "NormState"}


class Definition(NamedTuple):
    """Where a public function or class is written."""

    module: str
    file: Path
    node: ast.FunctionDef | ast.ClassDef

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters."""
        node: Any = self.node
        if isinstance(node, ast.ClassDef):
            (node,) = [part for part in node.body if getattr(part, "name", "") == "__init__"]
        given = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        return [name for name in given if name != "self"]


def definitions() -> Iterator[Definition]:
    """Every exported function and class; what is neither is an object that autodoc describes."""
    for module, file in MODULES.items():
        names = set(exported(module))
        body = ast.parse(file.read_text(encoding="utf-8")).body
        rooms = {file: names}
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module:
                room = ROOT / f"{node.module.replace('.', '/')}.py"
                room = room if room.exists() else ROOT / "backends" / f"{node.module.replace('.', '/')}.py"
                rooms[room] = {each.name for each in node.names} & names
        for room, wanted in rooms.items():
            for node in ast.parse(room.read_text(encoding="utf-8")).body if wanted else ():
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in wanted:
                    yield Definition(module, room, node)


DEFINITIONS: Final = {f"{each.module}.{each.node.name}": each for each in definitions()}


def test_every_exported_name_is_documented_once_and_nothing_else_is() -> None:
    public = [f"{module}.{name}" for module in MODULES for name in exported(module)]
    assert Counter(each.name for each in documented()) == Counter(public)
    assert all(each.page.startswith("api/") for each in documented())
    assert set(public) - set(DEFINITIONS) == {"clipcore_backends.NUMPY"}


def test_the_summary_lists_every_exported_name() -> None:
    listed, current = [], ""
    for module, name in re.findall(
        r"^(?:\.\. currentmodule:: (\S+)|   ([\w.]+))$",
        PAGES["api/index.md"].read_text(encoding="utf-8"),
        re.MULTILINE,
    ):
        current = module or current
        if name:
            listed.append(f"{current}.{name}")
    assert sorted(listed) == sorted(each.name for each in documented())


def test_a_signature_that_a_page_gives_is_that_of_the_source() -> None:
    given = {each.name: each.signature for each in documented() if each.signature}
    assert set(given) == {f"clipcore.integrations.keras.{name}" for name in ("WeightClipping", "WeightRange")}
    for name, signature in given.items():
        names = [part.partition("=")[0].strip() for part in signature.strip("()").split(",")]
        assert names == DEFINITIONS[name].parameters


def test_every_function_of_the_core_has_its_table_of_libraries() -> None:
    for name in exported("clipcore"):
        kind = "values" if name in ("clip_by_value", "clip_weights") else "norms"
        assert f"<!-- support of {kind} -->" in PAGES[f"api/{name}.md"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_public_docstring_has_its_sections(name: str) -> None:
    module, _, node = definition = DEFINITIONS[name]
    docstring = ast.get_docstring(node) or ""
    sections = set(re.findall(r"^([A-Z][A-Za-z ]+)\n-+$", docstring, re.MULTILINE))
    wanted: set[str] = set()
    if node.name not in NOT_CALLED:
        wanted = {"Examples", "See Also"}
        assert "\n>>> " in docstring[docstring.index("\nExamples\n") :]
    if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) != "None":
        wanted |= {"Returns"}
    if module == "clipcore":
        wanted |= {"Notes", "References", "Raises"}
    if module.startswith("clipcore.integrations") and node.name not in NOT_CALLED:
        wanted |= {"Notes", "Raises"}
    if module == "clipcore" or node.name.startswith(("clip_", "Weight")):
        assert ".. math:: " in docstring
    if isinstance(node, ast.FunctionDef) and definition.parameters:
        wanted |= {"Parameters"}
    assert wanted - sections == set()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_public_docstring_is_in_numpydoc_form(name: str, request: pytest.FixtureRequest) -> None:
    needs(request, "numpydoc")
    process_file = importlib.import_module("numpydoc.hooks.validate_docstrings").process_file
    every = importlib.import_module("numpydoc.validate").ERROR_MSGS
    checks = set(every) - {"ES01"}  # a summary and notes say enough
    if DEFINITIONS[name].node.name in NOT_CALLED:
        checks -= {"EX01", "SA01"}
    config: dict[str, Any] = {"checks": checks, "exclude": None, "overrides": {}, "exclude_files": None}
    file, node = DEFINITIONS[name].file, DEFINITIONS[name].node
    found = process_file(str(file), config)
    assert [each for each in found if each[1] == f"{file.stem}.{node.name}"] == []


def code_of(page: str, language: str) -> list[str]:
    """The blocks of a page in one language."""
    text = PAGES[page].read_text(encoding="utf-8")
    return [textwrap.dedent(code) for _, kind, code in FENCE.findall(text) if kind == language]


def examples_of(page: str) -> str:
    """The sessions of a page."""
    return "".join(code for code in code_of(page, "python") if ">>> " in code)


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page, "python")])
def test_every_block_of_python_can_be_read(page: str) -> None:
    for code in code_of(page, "python"):
        if ">>> " not in code:
            ast.parse(code)


def test_every_law_of_a_finding_is_explained() -> None:
    page = PAGES["verify.md"].read_text(encoding="utf-8")
    assert re.findall(r"^\| \*(\w+)\* \|", page, re.MULTILINE) == list(LAWS)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_code_that_runs_elsewhere_does(page: str) -> None:
    test = (ROOT / "tests" / ELSEWHERE[page]).read_text(encoding="utf-8")
    assert f'"{page}"' in test


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE and examples_of(page)])
def test_the_examples_of_a_page_are_true(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    commands = [
        line for code in code_of(page, "bash") for line in code.splitlines() if line.startswith("cc ")
    ]
    if commands:
        if shutil.which("cc") is None:
            skip(request, "no C compiler named cc on the PATH")
        (source,) = code_of(page, "c")
        (tmp_path / "clip.c").write_text(source, encoding="utf-8")
        for command in commands:
            subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=examples_of(page),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as both GitHub and the site make them."""
    text = re.sub(r"^( *)```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


@pytest.mark.parametrize("paper", PAPERS)
def test_every_link_leads_somewhere(paper: str) -> None:
    path = PAPERS[paper]
    text = re.sub(r"^( *)```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []
