"""The types that clipcore's signatures name."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

__all__ = ["AllReduce", "Array", "Axis", "Bound", "Nonfinite", "Tree"]

Array: TypeAlias = Any
"""An array of any library."""

Tree: TypeAlias = Any
"""An array, or nested dicts, lists, tuples and named tuples of arrays and None."""

Axis: TypeAlias = int | tuple[int, ...] | None
"""The axes that a norm reduces over, as in NumPy."""

Bound: TypeAlias = Any
"""A number, an array, or None for no bound."""

Nonfinite: TypeAlias = Literal["propagate", "raise", "zero"]
"""What a group with NaN or infinity in it becomes."""

AllReduce: TypeAlias = Callable[..., Array]
"""Called as ``all_reduce(array, op="sum" | "max")``, returns the reduction over all ranks."""
