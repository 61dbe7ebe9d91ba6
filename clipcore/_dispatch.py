"""The library that arrays come from, and the engine that serves it."""

from typing import Any

import array_api_compat
import numpy as np
from clipcore_backends import Engine, backend_for

from clipcore._typing import Array

__all__ = ["engine_for", "is_array", "library_of", "namespace_of"]


def is_array(value: Any) -> bool:
    """Tell whether `value` is an array that clipcore takes: of any library, but no NumPy subclass.

    A subclass of ``numpy.ndarray`` (masked, with units) has a meaning that would be lost;
    ``numpy.memmap`` has none besides its data.
    """
    if isinstance(value, np.ndarray | np.generic):
        return type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic)
    return bool(array_api_compat.is_array_api_obj(value))


def library_of(array: Array) -> str:
    """Return the name of an array's library, as in ``"numpy"``."""
    if isinstance(array, np.ndarray | np.generic):
        return "numpy"
    return str(namespace_of(array).__name__).removeprefix("array_api_compat.").partition(".")[0]


def namespace_of(array: Array) -> Any:
    """Return the array-API namespace of an array."""
    return array_api_compat.array_namespace(array)


def engine_for(leaves: list[Array]) -> Engine | None:
    """Return the fast engine for arrays of one library, None where the portable one serves."""
    return backend_for(library_of(leaves[0]) if leaves else "numpy")
