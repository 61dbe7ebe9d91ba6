"""What happens where the judged function lives: arrays of its library, one call, and what is seen of it.

This package needs nothing but Python and NumPy, and imports nothing but itself: so it also runs under an
interpreter that has no clipcore (`clipcore.verify.subject` starts it there).
"""

from .libraries import Library, library
from .observing import Call, NotOffered, Observation, observe
from .serving import found, keywords_of
from .wire import AtPath, Drawn, LastKey, Opaque, decode, encode, named_tuple

__all__ = [
    "AtPath",
    "Call",
    "Drawn",
    "LastKey",
    "Library",
    "NotOffered",
    "Observation",
    "Opaque",
    "decode",
    "encode",
    "found",
    "keywords_of",
    "library",
    "named_tuple",
    "observe",
]
