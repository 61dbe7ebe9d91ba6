"""An integration without its framework, or with one too old, says so in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipcore.integrations._require import require

INTEGRATIONS = ("keras", "optax", "torch")
ADVICE = r'clipcore.integrations.somelib needs somelib 2.13.0 or newer; .*pip install "somelib>=2.13.0"'


@pytest.fixture
def somelib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of that name, to be filled."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somelib", raising=False)
    return tmp_path / "somelib.py"


@pytest.mark.parametrize(
    "version", ["2.13.0", "2.13", "2.13.0+cpu", "2.13.1rc1", "3.0.0rc1", "2.14.0.dev20260101", "10.0"]
)
def test_a_framework_that_is_new_enough_is_returned(somelib: Path, version: str) -> None:
    somelib.write_text(f"__version__ = {version!r}")
    assert require("somelib", "2.13.0").__version__ == version


@pytest.mark.parametrize("version", ["2.12.9", "2.9.13", "1.99", "2.13.0rc1", "2.13.0.dev5", "2.13.0a0+git1"])
def test_a_framework_that_is_too_old_is_named_with_its_version(somelib: Path, version: str) -> None:
    somelib.write_text(f"__version__ = {version!r}")
    with pytest.raises(ImportError, match=rf"{ADVICE} \(this is {version.replace('+', '.')}\)") as caught:
        require("somelib", "2.13.0")
    assert caught.value.name == "somelib"


@pytest.mark.usefixtures("somelib")
def test_a_framework_that_is_not_there_is_named() -> None:
    with pytest.raises(ImportError, match=rf"{ADVICE} \(it is not installed\)") as caught:
        require("somelib", "2.13.0")
    assert caught.value.name == "somelib"


@pytest.mark.parametrize(
    "error", ["import another_that_is_not_there", "raise ImportError('no libcudart.so')"]
)
def test_a_framework_that_cannot_be_imported_says_why(somelib: Path, error: str) -> None:
    somelib.write_text(error)
    with pytest.raises(ImportError, match=rf"{ADVICE} \(it cannot be imported: .*(another|libcudart)"):
        require("somelib", "2.13.0")


def test_a_folder_of_that_name_is_no_framework(somelib: Path) -> None:
    somelib.with_suffix("").mkdir()
    with pytest.raises(ImportError, match=rf"{ADVICE} \(this is a module without a version\)"):
        require("somelib", "2.13.0")


def test_what_an_integration_needs_besides_its_framework_is_said_in_its_name(somelib: Path) -> None:
    somelib.write_text("__version__ = '0.1'")
    with pytest.raises(ImportError, match=r"clipcore.integrations.other needs somelib 0.2 or newer"):
        require("somelib", "0.2", integration="other")


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_without_its_framework_says_what_it_needs(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; import clipcore.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: clipcore.integrations.{name} needs {name} "), done.stderr
    assert f'install it with: pip install "{name}>=' in last
    assert last.endswith("(it is not installed)")


def test_no_framework_is_imported_with_the_room_of_the_integrations() -> None:
    frameworks = {"jax", "keras", "optax", "torch"}
    code = f"import sys, clipcore.integrations; print(sorted({frameworks} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
