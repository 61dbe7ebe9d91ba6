"""The CuPy engine: few launches for any number of arrays, no look at a value, no wait for the device.

The kernels are in the folder `cupy_kernels`, the arithmetic of the laws among them. A table
tells them where the arrays are; it is sent in one asynchronous copy, on the current stream
like everything else.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._cupy_table import BLOCK, Seen, Shape, Table, kept, look, table_of, team_for
from clipcore_backends._formats import COMPONENT, FORMATS
from clipcore_backends._protocol import Array, Order, Sum

__all__ = ["OPTIONS", "SOURCE", "CupyEngine"]

_FOLDER = Path(__file__).parent / "cupy_kernels"
SOURCE = "".join(
    f'#line 1 "{name}.cu"\n{(_FOLDER / name).with_suffix(".cu").read_text(encoding="utf-8")}'
    for name in ("arrays", "decide", "measure", "scale", "share")
)

# No product and sum is rounded together unless it is written so. CuPy adds "-ftz=true" to these:
# that is why the kernels compute in double alone, whose quotients and roots are always IEEE's.
OPTIONS = ("--std=c++17", "--fmad=false")

# As the kernels number the formats.
_NUMBERS = {name: number for number, name in enumerate(FORMATS)}

# See cupy_kernels/measure.cu.
WIDE_ERROR = 2.0**-46
NARROW_ERROR = 2.0**-60


class Placed(NamedTuple):
    """Arrays as the device is told of them, to be measured and clipped."""

    table: Table
    like: Array
    shape: Shape
    """Of the norms."""
    grouped: int
    formats: tuple[int, int]
    """The number of the first of the leaves' formats, and how many to decide for from there on."""
    precise: bool
    """Whether a component has 64 bits, whose squares float64 does not hold."""


class CupyEngine:
    """Measure, clip and clamp CuPy arrays that are all on one device.

    Parameters
    ----------
    cupy : module
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._module = cupy.RawModule(code=SOURCE, options=OPTIONS)
        self._kernels: dict[str, Any] = {}

    def look(self, arrays: list[Array]) -> Seen:
        """Gather what there is to know of arrays but their elements."""
        return look(arrays)

    def place(self, leaves: Seen, outs: Seen, axis: Shape | None) -> Placed:
        """Tell the device where leaves are, and where their results go; `axis` is of the one leaf."""
        like = leaves.arrays[0]
        numbers = {_number_of(dtype) for dtype in set(leaves.dtypes)}
        return Placed(
            self._sent(table_of(leaves, outs, axis=axis), like),
            like,
            kept(like.shape, axis),
            int(axis is not None),
            (min(numbers), 1) if len(numbers) == 1 else (0, len(_NUMBERS)),
            _NUMBERS["float64"] in numbers,
        )

    def measure(self, placed: Placed, order: Order) -> tuple[Sum, Array]:
        """Return the accurate sum of ``|x|**order`` over all leaves or each group, and the norm it is of."""
        table = placed.table
        with placed.like.device:
            parts = self._cupy.empty(3 * table.chunks, "float64")
            total = self._sum(placed.shape, NARROW_ERROR if placed.precise else WIDE_ERROR)
            norm = self._cupy.empty(placed.shape, "float64")
            measure = "measure_precisely" if placed.precise else "measure"
            self._launch(measure, table.chunks, table.team, *table, _code(order), parts)
            groups = norm.size
            each = table.chunks // max(groups, 1)
            team = team_for(each)
            self._launch("finish", groups, team, parts, each, groups, team, _code(order), *total[:3], norm)
        return total, norm

    def given(self, norm: float | Array, like: Array) -> Sum:
        """Return a norm that the caller measured, as the maximum of one element would be."""
        with like.device:
            total = self._sum((), 2.0**-53)
            total.hi[...] = norm if isinstance(norm, float) else self._rounded(norm, np.float64)
            total.lo[...] = 0
            total.exponent[...] = 0
        return total

    def all_ranks(self, total: Sum, order: Order, all_reduce: Callable[..., Array]) -> Sum:
        """Return the sum over all ranks of one group's sum."""
        cupy, code = self._cupy, _code(order)
        with total.hi.device:
            sizes, parts = cupy.empty(3, "float64"), cupy.empty(1 if order == math.inf else 5, "float64")
            self._launch("share_size", 1, 1, *total[:3], code, sizes)
            sizes = cupy.ascontiguousarray(all_reduce(sizes, op="max"), "float64")
            self._launch("share_sum", 1, 1, *total[:3], sizes, code, parts)
            reduced = all_reduce(parts, op="max" if order == math.inf else "sum")
            parts = cupy.ascontiguousarray(reduced, "float64")
            result = self._sum((), total.error)
            self._launch("take_sum", 1, 1, sizes, parts, code, *result[:3])
        return result

    def norms(self, total: Sum, order: Order) -> Array:
        """Return norms in float64: infinity beyond it, NaN or infinity where an element is."""
        with total.hi.device:
            result = self._cupy.empty(total.hi.shape, "float64")
            self._launch("norms", result.size, 1, *total[:3], result.size, _code(order), result)
        return result

    def clip(
        self, placed: Placed, total: Sum, limit: float | Array, slack: float, order: Order, *, zero: bool
    ) -> None:
        """Write the leaves to their outs, scaled where the norm of their group is above the limit.

        Parameters
        ----------
        placed : Placed
            A leaf may be its own out, and must not overlap another one.
        total : Sum
        limit : float or 0-d array
            An array that holds a negative number or NaN makes every element NaN.
        slack : float
            From this many of a leaf's smallest subnormals on the limit is ample.
        order : 1, 2 or inf
            Of `total`.
        zero : bool
            Whether a group with NaN or infinity in it becomes zeros instead of NaN.
        """
        table, groups, error = placed.table, total.hi.size, 2 * total.error + 2.0**-100
        tasks = groups * placed.formats[1]
        with placed.like.device:
            decisions = self._cupy.empty(4 * tasks, "float64")
            plain = isinstance(limit, float)
            limits = (0, limit) if plain else (self._rounded(limit, np.float64), 0.0)
            told = (*limits, int(zero), error, slack, *placed.formats)
            self._launch("decide_all", tasks, 1, *total[:3], groups, _code(order), *told, decisions)
            told = (decisions, placed.grouped, *placed.formats)
            self._launch("scale", table.chunks, table.team, *table, *told)

    def clamp(
        self, leaves: list[Array], outs: list[Array], bounds: list[tuple[Array | None, Array | None]]
    ) -> None:
        """Write the leaves to `outs`, cut to bounds of their own dtype; NaN where an element or bound is NaN.

        A bound is None, an array on the device that broadcasts to its leaf, or a 0-d NumPy array.
        """
        numbers = {_padded(bound): 0 for pair in bounds for bound in pair if isinstance(bound, np.ndarray)}
        with leaves[0].device:
            there = self._cupy.array(np.frombuffer(b"".join(numbers) or bytes(8), np.int64))
            for index, number in enumerate(numbers):
                numbers[number] = there.data.ptr + 8 * index
            columns = [
                [self._operand(pair[side], leaf, numbers) for leaf, pair in zip(leaves, bounds, strict=True)]
                for side in (0, 1)
            ]
            table = self._sent(table_of(look(leaves), look(outs), columns), leaves[0])
            self._launch("clamp", table.chunks, table.team, *table)

    def empty_like(self, leaves: list[Array]) -> list[Array]:
        """Return new arrays of the dtypes, shapes and device of leaves."""
        if not leaves:
            return []
        with leaves[0].device:
            return [self._cupy.empty_like(leaf) for leaf in leaves]

    def copy(self, leaf: Array) -> Array:
        """Return a copy on the leaf's device."""
        with leaf.device:
            return leaf.copy()

    def round_array(self, bound: Array, leaf: Array, *, up: bool) -> Array:
        """Round real floating-point numbers to the leaf's dtype, up or down where it has not the same."""
        return self._rounded(bound, leaf.dtype, up=up)

    def number(self, value: float, leaf: Array) -> NDArray[Any]:
        """Return a bound as a 0-d NumPy array of the leaf's dtype."""
        return np.asarray(value).astype(leaf.dtype)

    def addresses(self, array: Array) -> NDArray[Any]:
        """Return a NumPy array with the addresses of a CuPy array; its elements are not to be read."""
        interface = {
            "data": (array.data.ptr, False),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"|V{array.itemsize}",
            "version": 3,
        }
        return np.asarray(SimpleNamespace(__array_interface__=interface))

    def _sum(self, shape: Shape, error: float) -> Sum:
        """Return room for the sums of groups."""
        empty = self._cupy.empty
        return Sum(empty(shape, "float64"), empty(shape, "float64"), empty(shape, "int64"), error)

    def _launch(self, name: str, tasks: int, team: int, *arguments: int | float | Array) -> None:
        """Run a kernel, a team of threads for each task, on the current stream."""
        if not tasks:
            return
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        blocks = -(-tasks // (BLOCK // team))
        self._kernels[name]((blocks,), (BLOCK,), arguments)

    def _rounded(self, numbers: Array, dtype: Any, *, up: bool = False) -> Array:
        """Cast real numbers; not as CuPy casts floating-point ones, which takes small ones for zero."""
        if numbers.dtype == dtype:
            return numbers
        if numbers.dtype.name not in FORMATS:
            return numbers.astype(dtype)
        with numbers.device:
            whole = numbers if numbers.flags.c_contiguous else numbers.copy()
            result = self._cupy.empty(numbers.shape, dtype)
            source = (_number_of(numbers.dtype), whole)
            target = (_number_of(result.dtype), result)
            self._launch("round_all", result.size, 1, result.size, int(up), *source, *target)
        return result

    def _sent(self, table: Table, like: Array) -> Table:
        """Return a table that is on the device of an array."""
        with like.device:
            return table._replace(words=self._cupy.array(table.words))

    def _operand(self, bound: Array | None, leaf: Array, numbers: dict[bytes, int]) -> Array | int:
        """Return a bound as the table takes it: an array of the leaf's shape, or an address."""
        if bound is None:
            return 0
        if isinstance(bound, np.ndarray):
            return numbers[_padded(bound)]
        return self._cupy.broadcast_to(bound, leaf.shape)


@cache
def _number_of(dtype: Any) -> int:
    return _NUMBERS[COMPONENT[dtype.name]]


def _padded(number: NDArray[Any]) -> bytes:
    """Return the bytes of a number, eight of them."""
    return number.tobytes().ljust(8, b"\0")


def _code(order: Order) -> int:
    return 0 if order == math.inf else int(order)
