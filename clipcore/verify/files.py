"""The user's own arrays: reading an .npz file that may hold anything, and trusting none of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipcore.verify.formats import format_of, is_finite

__all__ = ["InputFile", "InputFileError", "load", "members"]


class InputFileError(Exception):
    """A file that cannot be used; the message is one line for the user."""


@dataclass(frozen=True)
class InputFile:
    """What a file held.

    Attributes
    ----------
    arrays : dict
        The arrays that a norm can be taken of, by name.
    skipped : dict
        Why each of the others is not among them, by name.
    """

    arrays: dict[str, np.ndarray[Any, Any]]
    skipped: dict[str, str]


def load(path: str) -> InputFile:
    """Read every array of an .npz file; no pickle is ever loaded.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    InputFile
        Its arrays and what was left out.

    Raises
    ------
    InputFileError
        Where the file is missing, broken, no .npz, holds a pickle or no usable array.
    """
    held = members(path)
    skipped = {name: reason for name, member in held.items() if (reason := _unusable(member))}
    arrays = {name: member for name, member in held.items() if name not in skipped}
    if not arrays:
        reasons = "; ".join(f"{name} is {reason}" for name, reason in skipped.items()) or "it is empty"
        raise InputFileError(f"{path}: no floating-point array in it ({reasons})")
    return InputFile(arrays, skipped)


def members(path: str) -> dict[str, Any]:
    """Return what an .npz file holds, by name: arrays, or bytes for a member that is none.

    Raises
    ------
    InputFileError
        Where the file is missing, broken, no .npz or holds a pickle.
    """
    if not Path(path).is_file():
        raise InputFileError(f"{path}: no such file")
    try:
        with Path(path).open("rb") as stream:  # np.load leaves a broken file of its own open
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputFileError(f"{path}: not an .npz file; numpy.savez writes one")
            with archive:
                return {name: archive[name] for name in archive.files}
    except InputFileError:
        raise
    except Exception as error:  # whatever zipfile, zlib and NumPy's header parser make of a stranger's bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputFileError(f"{path}: cannot be read as an .npz file: {reason}") from error


def _unusable(member: Any) -> str:
    """Return why a member cannot be clipped by norm, or an empty string."""
    if not isinstance(member, np.ndarray):
        return "not an array"
    try:
        format_of(member.dtype)
    except TypeError:
        return f"of dtype {member.dtype}"
    return "" if is_finite([member]) else "not finite"
