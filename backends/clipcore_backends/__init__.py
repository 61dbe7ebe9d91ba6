"""The fast engines of clipcore, one file a machine.

`backend_for` answers which engine serves arrays of a given type. An engine's array
library is never imported before an array of it arrives: a library that was not
imported cannot own the array.
"""

import importlib
from functools import cache

from clipcore_backends._numpy import NumpyEngine
from clipcore_backends._protocol import DeviceEngine, Engine

__all__ = ["NUMPY", "DeviceEngine", "Engine", "backend_for", "device_backend_for"]

NUMPY: Engine = NumpyEngine()
"""The engine of NumPy's arrays, and of those that NumPy can view."""


def backend_for(library: str) -> Engine | None:
    """Return the engine made for an array library, or None where only the portable one serves.

    Parameters
    ----------
    library : str
        The name of the array library, as in ``"numpy"``.

    Returns
    -------
    Engine or None
        The engine, which may look at values.

    See Also
    --------
    device_backend_for : The engine that decides on the arrays' device.

    Examples
    --------
    >>> from clipcore_backends import NUMPY, backend_for
    >>> backend_for("numpy") is NUMPY, backend_for("jax")
    (True, None)
    """
    return NUMPY if library == "numpy" else None


def device_backend_for(library: str) -> DeviceEngine | None:
    """Return the engine that serves an array library's arrays on their device, None where there is none.

    Parameters
    ----------
    library : str
        The name of the array library, as in ``"cupy"``.

    Returns
    -------
    DeviceEngine or None
        The engine, which looks at no value.

    Raises
    ------
    ImportError
        If the library is not installed.

    See Also
    --------
    backend_for : The engine that may look at values.

    Examples
    --------
    >>> from clipcore_backends import device_backend_for
    >>> print(device_backend_for("numpy"))
    None
    """
    return _cupy_engine() if library == "cupy" else None


@cache
def _cupy_engine() -> DeviceEngine:
    from clipcore_backends._cupy import CupyEngine

    return CupyEngine(importlib.import_module("cupy"))
