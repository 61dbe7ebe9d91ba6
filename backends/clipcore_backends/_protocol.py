"""What an engine is: the verbs measure, scale and clamp over the arrays of one library."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

__all__ = ["Array", "DeviceEngine", "Engine", "Multiplier", "Order", "Sum"]

Array = Any
"""An array of any library, or where one group is meant, a float."""

Order = float
"""Of a norm: 1, 2 or inf."""


class Sum(NamedTuple):
    """The sum of ``|x|**order`` over a group, ``(hi + lo) * 2**exponent``; of order inf the maximum.

    Each of the first three fields is a number, or an array with one entry a group. `hi` is
    NaN for a group that holds NaN, infinity for one that holds infinity and no NaN.
    """

    hi: Array
    lo: Array
    exponent: Array
    error: float
    """A bound on the relative error of the sum."""


class Multiplier(NamedTuple):
    """The one number by which every element of a group is multiplied or divided, and then rounded once.

    The number is ``value * 2**exponent``; `value` has so few bits that no engine rounds the
    product twice. Each field is one number, or an array that broadcasts against the leaf.
    """

    value: Array
    exponent: Array
    divide: Array
    """Whether to divide by the number instead."""
    clipped: Array
    """False where the group stays as it is."""
    ample: Array
    """Whether the limit is so large that rounding up subnormal elements cannot reach it."""


class Engine(Protocol):
    """Measure, scale and clamp for the arrays of one library; values may be looked at."""

    def measure(self, leaves: list[Array], order: Order, axis: tuple[int, ...] | None) -> Sum:
        """Return the accurate sum of ``|x|**order`` over all leaves, or over `axis` of the one leaf."""

    def exceeds(self, leaves: list[Array], order: Order, limit: float) -> bool:
        """Decide without rounding whether the norm of all leaves together is above `limit`."""

    def empty_like(self, leaf: Array) -> Array:
        """Return a new array of the leaf's dtype and shape."""

    def copy(self, leaves: list[Array], outs: list[Array]) -> None:
        """Write leaves to other memory."""

    def scale(self, leaves: list[Array], outs: list[Array], multipliers: dict[Any, Multiplier]) -> None:
        """Write leaves times the multipliers of their dtypes to `outs`.

        Nothing below the normal range is rounded up.
        """

    def clamp(
        self, leaves: list[Array], outs: list[Array], bounds: list[tuple[Array | None, Array | None]]
    ) -> None:
        """Write the leaves to `outs`, cut to bounds; NaN where an element or bound is NaN."""

    def number(self, value: float, leaf: Array) -> Array:
        """Return a number as a 0-d array of the leaf's dtype."""

    def round_array(self, bound: Array, leaf: Array, *, up: bool) -> Array:
        """Cast an array bound to the leaf's dtype in the direction that keeps it."""


class DeviceEngine(Protocol):
    """Measure, clip and clamp where the arrays of one library are; no value is looked at.

    Sums are arrays on the device, of one entry a group.
    """

    def look(self, arrays: list[Array]) -> Any:
        """Gather what there is to know of arrays but their elements; `apart` and `on_one_device` among it."""

    def place(self, leaves: Any, outs: Any, axis: tuple[int, ...] | None) -> Any:
        """Tell the device where leaves are, and where their results go; `axis` is of the one leaf."""

    def measure(self, placed: Any, order: Order) -> tuple[Sum, Array]:
        """Return the accurate sum of ``|x|**order`` over all leaves or each group, and the norm it is of."""

    def given(self, norm: float | Array, like: Array) -> Sum:
        """Return a norm that the caller measured, as the maximum of one element would be."""

    def all_ranks(self, total: Sum, order: Order, all_reduce: Callable[..., Array]) -> Sum:
        """Return the sum over all ranks of one group's sum."""

    def norms(self, total: Sum, order: Order) -> Array:
        """Return norms in float64: infinity beyond it, NaN or infinity where an element is."""

    def clip(
        self, placed: Any, total: Sum, limit: float | Array, slack: float, order: Order, *, zero: bool
    ) -> None:
        """Write the leaves to their outs, scaled where the norm of their group is above the limit."""

    def clamp(
        self, leaves: list[Array], outs: list[Array], bounds: list[tuple[Array | None, Array | None]]
    ) -> None:
        """Write the leaves to `outs`, cut to bounds; NaN where an element or bound is NaN."""

    def empty_like(self, leaves: list[Array]) -> list[Array]:
        """Return new arrays of the dtypes, shapes and device of leaves."""

    def copy(self, leaf: Array) -> Array:
        """Return a copy on the leaf's device."""

    def number(self, value: float, leaf: Array) -> Array:
        """Return a number as a bound for `clamp`, of the leaf's dtype."""

    def round_array(self, bound: Array, leaf: Array, *, up: bool) -> Array:
        """Round real floating-point numbers to the leaf's dtype, up or down where it has not the same."""

    def addresses(self, array: Array) -> Array:
        """Return a NumPy array with the addresses of an array; its elements are not to be read."""
