"""What a ready-made subject is, whether it can run here, and what its adapters refuse to pass on.

An adapter converts the arguments, calls the framework and gives back what came.  It raises `NotOffered` for
an argument that the framework's interface does not have, so that nobody is accused of it; a value that the
framework accepts is passed on, whatever becomes of it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject

__all__ = [
    "FLOATING",
    "INTEGERS",
    "ReadyMade",
    "check_flat",
    "check_leaves",
    "check_number",
    "check_tree",
    "missing",
    "symmetric",
    "version_of",
]

FLOATING = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class ReadyMade:
    """A framework's function that the kit can judge without further ado.

    Attributes
    ----------
    name : str
        What it is called in tables, such as `torch.clip_grad_norm_`; unique together with the operation.
    operation : str
        The function of clipcore that it is judged as.
    definition : str
        Name of the formula that it follows.
    needs : tuple of str
        Modules that must be importable.
    distribution : str
        What is installed to have it; where it runs on top of another library, that one's name follows after a
        space.
    build : callable
        Imports the framework and makes the subject.
    note : str
        What is called and how, in one sentence.
    dtypes : tuple of str or None
        Names of the dtypes that the function takes at all; `None` for all that the kit knows.
    """

    name: str
    operation: str
    definition: str
    needs: tuple[str, ...]
    distribution: str
    build: Callable[[], Subject]
    note: str
    dtypes: tuple[str, ...] | None = None


def missing(subject: ReadyMade) -> str:
    """Return why a subject cannot run here, or an empty string where it can.

    Parameters
    ----------
    subject : ReadyMade
        One of `ready_made()`.
    """
    absent = [name for name in subject.needs if importlib.util.find_spec(name) is None]
    if not absent:
        without_gpu = "cupy" in subject.needs and not _has_gpu()
        return "needs an NVIDIA GPU that CuPy can use, and there is none" if without_gpu else ""
    return f"needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed"


def _has_gpu() -> bool:
    try:
        return bool(importlib.import_module("cupy").cuda.is_available())
    except ImportError:  # it is there, and what it needs is not
        return False


def version_of(subject: ReadyMade) -> str:
    """Return the installed version, as in `1.6.0 with torch 2.13.0`; an empty string where there is none.

    Parameters
    ----------
    subject : ReadyMade
        One of `ready_made()`.
    """
    own, *below = subject.distribution.split()
    if not (version := _version(own)):
        return ""
    return version + "".join(f" with {name} {_version(name)}".rstrip() for name in below)


def _version(name: str) -> str:
    """Return the version of a distribution, or of the one that brings the module of that name."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        [other, *_] = importlib.metadata.packages_distributions().get(name, [""])
        return importlib.metadata.version(other) if other else ""


# --- what an interface does not have -----------------------------------------------------------------------


def symmetric(lower: Any, upper: Any) -> Any:
    """Return v of the bounds −v and v.

    Raises
    ------
    NotOffered
        For all other bounds.
    """
    if not isinstance(lower, Real) or not isinstance(upper, Real):
        raise NotOffered("only numbers as bounds")
    if lower != -upper and (lower == lower or upper == upper):
        raise NotOffered("only symmetric bounds")
    return upper


def check_number(*values: Any) -> None:
    """Refuse an array where the interface says number; what else is no number is passed on and judged."""
    if any(hasattr(value, "shape") and not isinstance(value, np.generic) for value in values):
        raise NotOffered("only a number, no array")


def check_flat(tree: Any, *kinds: type) -> None:
    """Refuse everything but a container of these types that holds no other container."""
    if type(tree) not in kinds:
        raise NotOffered(f"only a {' or '.join(kind.__name__ for kind in kinds)} of arrays")
    if any(isinstance(leaf, dict | list | tuple) for leaf in tree):
        raise NotOffered("only a flat container")


def check_leaves(tree: Any) -> None:
    """Refuse `None` among the leaves."""
    if tree is None:
        raise NotOffered("no None among the arrays")
    if isinstance(tree, dict | list | tuple):
        for child in tree.values() if isinstance(tree, dict) else tree:
            check_leaves(child)


def check_tree(tree: Any) -> None:
    """Refuse a generator."""
    if isinstance(tree, Iterator):
        raise NotOffered("no generator")
