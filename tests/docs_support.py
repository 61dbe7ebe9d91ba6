"""What the tests of the documentation share: its pages, what they document, and what building them needs."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
MODULES: Final = {
    "clipcore": ROOT / "clipcore" / "__init__.py",
    "clipcore.verify": ROOT / "clipcore" / "verify" / "__init__.py",
    "clipcore.integrations.keras": ROOT / "clipcore" / "integrations" / "keras.py",
    "clipcore.integrations.torch": ROOT / "clipcore" / "integrations" / "torch.py",
    "clipcore.integrations.optax": ROOT / "clipcore" / "integrations" / "optax.py",
    "clipcore_backends": ROOT / "backends" / "clipcore_backends" / "__init__.py",
}


def exported(module: str) -> list[str]:
    """The names in a module's `__all__`, without importing it."""
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no __all__")


class Directive(NamedTuple):
    """A name that a page documents, with the signature where the page gives one."""

    page: str
    name: str
    signature: str


def documented() -> list[Directive]:
    """What the pages of the reference document."""
    found = []
    for page, path in PAGES.items():
        current = ""
        for kind, name, signature in re.findall(
            r"^\.\. (currentmodule|auto\w+):: ?([\w.]*)(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            if kind == "currentmodule":
                current = f"{name}."
            elif kind != "autosummary":
                found.append(Directive(page, name if "." in name else current + name, signature))
    return found


def skip(request: pytest.FixtureRequest, reason: str) -> None:
    """Skip a test, or fail where nothing may be skipped."""
    if request.config.getoption("--require-all"):
        pytest.fail(reason)
    pytest.skip(reason)


def needs(request: pytest.FixtureRequest, *modules: str) -> None:
    """Skip where a module of the extra `docs` is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        skip(request, f"{', '.join(missing)} not installed: the extra docs brings what builds the site")
