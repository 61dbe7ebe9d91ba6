"""The fast engines of clipcore, one file a machine.

`backend_for` answers which engine serves arrays of a given type. An engine's array
library is never imported before an array of it arrives: a library that was not
imported cannot own the array.
"""

from clipcore_backends._numpy import NumpyEngine
from clipcore_backends._protocol import Engine

__all__ = ["Engine", "backend_for"]

_NUMPY = NumpyEngine()


def backend_for(library: str) -> Engine | None:
    """Return the engine made for an array library, or None where only the portable one serves.

    Parameters
    ----------
    library : str
        The name of the array library, as in ``"numpy"``.
    """
    return _NUMPY if library == "numpy" else None
