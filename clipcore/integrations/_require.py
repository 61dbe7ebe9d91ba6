"""The framework an integration is for, or a sentence that says which one is needed."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from typing import Any

__all__ = ["require"]


def require(name: str, floor: str) -> Any:
    """Import a framework for the integration of its name.

    Parameters
    ----------
    name : str
        The framework's name, which is that of its module and of its distribution.
    floor : str
        The oldest version the integration is tested with.

    Returns
    -------
    module
        The framework.

    Raises
    ------
    ImportError
        If it is not installed, cannot be imported, or is older than `floor`.
    """
    advice = f'clipcore.integrations.{name} needs {name} {floor} or newer; install it with: pip install "{name}>={floor}"'
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and lacks something of its own
            raise
        raise ImportError(f"{advice} (it is not installed)", name=name) from error
    version = str(getattr(module, "__version__", None) or metadata.version(name))
    if _numbers(version) < _numbers(floor):
        raise ImportError(f"{advice} (this is {version})", name=name)
    return module


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) of 2.13.0+cpu."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()
