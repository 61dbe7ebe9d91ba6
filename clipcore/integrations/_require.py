"""The framework an integration is for, or a sentence that says which one is needed."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from typing import Any

__all__ = ["require"]


def require(name: str, floor: str, integration: str = "") -> Any:
    """Import a framework for an integration.

    Parameters
    ----------
    name : str
        The framework's name, which is that of its module and of its distribution.
    floor : str
        The oldest version the integration is tested with.
    integration : str, optional
        The integration's name. Default: that of the framework.

    Returns
    -------
    module
        The framework.

    Raises
    ------
    ImportError
        If it is not installed, cannot be imported, or is older than `floor`; a pre-release
        of `floor` is older.
    """
    advice = (
        f"clipcore.integrations.{integration or name} needs {name} {floor} or newer; "
        f'install it with: pip install "{name}>={floor}"'
    )
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ImportError(f"{advice} (it is not installed)", name=name) from error
        raise ImportError(f"{advice} (it cannot be imported: {error})", name=name) from error
    version = _version(name, module)
    if _order(version) < _order(floor):
        raise ImportError(f"{advice} (this is {version or 'a module without a version'})", name=name)
    return module


def _version(name: str, module: Any) -> str:
    try:
        return str(getattr(module, "__version__", "") or metadata.version(name))
    except metadata.PackageNotFoundError:  # a folder of that name, say
        return ""


def _order(version: str) -> tuple[list[int], bool]:
    """Return what versions are compared by: their numbers, a pre-release before its release.

    2.13 and 2.13.0+cpu are ([2, 13], True), 2.13.0rc1 and 2.13.0.dev5 are ([2, 13], False).
    """
    found = re.match(r"(\d+(?:\.\d+)*)[-_.]?(a|b|c|rc|dev|pre)?", version)
    if found is None:
        return [], False
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers, found[2] is None
