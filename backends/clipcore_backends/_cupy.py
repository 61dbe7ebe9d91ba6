"""The CuPy engine: few launches for any number of arrays, no look at a value, no wait for the device.

The kernels are in the folder `cupy_kernels`, the arithmetic of the laws among them. Here is
what they need from the host: a table of where the arrays are, made from shapes and strides
alone and sent in one asynchronous copy, on the current stream like everything else.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._formats import COMPONENT, FORMATS
from clipcore_backends._protocol import Array, Order, Sum

__all__ = ["OPTIONS", "SOURCE", "CupyEngine"]

_FOLDER = Path(__file__).parent / "cupy_kernels"
SOURCE = "".join(
    f'#line 1 "{name}.cu"\n{(_FOLDER / name).with_suffix(".cu").read_text(encoding="utf-8")}'
    for name in ("arrays", "measure", "decide", "scale", "share")
)

# No product and sum is rounded together unless it is written so. CuPy adds "-ftz=true" to these:
# that is why the kernels compute in double alone, whose quotients and roots are always IEEE's.
OPTIONS = ("--std=c++17", "--fmad=false")

# These are in the kernels too.
BLOCK = 256
CHUNK = 16384
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_KINDS = {name: kind for kind, name in enumerate((*COMPONENT, *_INTEGERS))}
_OPERANDS = 4

# See cupy_kernels/measure.cu.
WIDE_ERROR = 2.0**-46
NARROW_ERROR = 2.0**-60

Shape = tuple[int, ...]


class _Operand(NamedTuple):
    """Where the elements of an array are, in bytes."""

    pointer: int
    strides: Shape


class _Table(NamedTuple):
    """Where the arrays of a launch are, and how they are cut into chunks."""

    words: Array
    leaves: int
    chunks: int
    team: int


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

    def measure(self, leaves: list[Array], order: Order, axis: Shape | None) -> Sum:
        """Return the accurate sum of ``|x|**order`` over all leaves, or over `axis` of the one leaf."""
        with leaves[0].device:
            table = self._table([(leaf,) for leaf in leaves], axis)
            precise = any(_is_narrow(leaf) for leaf in leaves)
            parts = self._cupy.empty(3 * table.chunks, "float64")
            total = self._sum(_kept(leaves[0].shape, axis), NARROW_ERROR if precise else WIDE_ERROR)
            self._launch("measure", table.chunks, table.team, *table, _code(order), precise, parts)
            groups = total.hi.size
            each = table.chunks // max(groups, 1)
            team = _team(each)
            self._launch("finish", groups, team, parts, each, groups, team, _code(order), *total[:3])
        return total

    def given(self, norm: float | Array, like: Array) -> Sum:
        """Return a norm that the caller measured, as the maximum of one element would be."""
        with like.device:
            total = self._sum((), 2.0**-53)
            total.hi[...] = norm
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
        self,
        leaves: list[Array],
        outs: list[Array],
        total: Sum,
        limit: float | Array,
        slack: float,
        order: Order,
        axis: Shape | None,
        *,
        zero: bool,
    ) -> None:
        """Write the leaves to `outs`, scaled where the norm of their group is above the limit.

        Parameters
        ----------
        leaves, outs : lists of arrays
            A leaf may be its own `out`, and must not overlap another one.
        total : Sum
        limit : float or 0-d array
            An array that holds a negative number or NaN makes every element NaN.
        slack : float
            From this many of a leaf's smallest subnormals on the limit is ample.
        order : 1, 2 or inf
            Of `total`.
        axis : tuple of ints or None
        zero : bool
            Whether a group with NaN or infinity in it becomes zeros instead of NaN.
        """
        cupy = self._cupy
        with leaves[0].device:
            groups = total.hi.size
            decisions = cupy.empty(5 * groups, "float64")
            number, pointer = (limit, 0) if isinstance(limit, float) else (0.0, limit.astype("float64"))
            self._launch(
                "decide_all", groups, 1, *total[:3], groups, _code(order), pointer, number, zero, decisions
            )
            table = self._table(list(zip(leaves, outs, strict=True)), axis)
            error = 2 * total.error + 2.0**-100
            self._launch("scale", table.chunks, table.team, *table, decisions, axis is not None, error, slack)

    def clamp(
        self, leaves: list[Array], outs: list[Array], bounds: list[tuple[Array | None, Array | None]]
    ) -> None:
        """Write the leaves to `outs`, cut to bounds of their own dtype; NaN where an element or bound is NaN.

        A bound is None, an array on the device that broadcasts to its leaf, or a 0-d NumPy array.
        """
        cupy = self._cupy
        with leaves[0].device:
            numbers = {
                bound.tobytes().ljust(8, b"\0"): 0
                for pair in bounds
                for bound in pair
                if isinstance(bound, np.ndarray)
            }
            there = cupy.array(np.frombuffer(b"".join(numbers) or bytes(8), np.int64))
            for index, number in enumerate(numbers):
                numbers[number] = there.data.ptr + 8 * index
            operands = []
            for leaf, out, pair in zip(leaves, outs, bounds, strict=True):
                placed: list[Array] = [leaf, out]
                for bound in pair:
                    if bound is None:
                        placed.append(_Operand(0, (0,) * leaf.ndim))
                    elif isinstance(bound, np.ndarray):
                        number = bound.tobytes().ljust(8, b"\0")
                        placed.append(_Operand(numbers[number], (0,) * leaf.ndim))
                    else:
                        placed.append(cupy.broadcast_to(bound, leaf.shape))
                operands.append(tuple(placed))
            table = self._table(operands, None)
            self._launch("clamp", table.chunks, table.team, *table)

    def empty_like(self, leaf: Array) -> Array:
        """Return a new array of the leaf's dtype, shape and device."""
        with leaf.device:
            return self._cupy.empty_like(leaf)

    def copy(self, leaf: Array) -> Array:
        """Return a copy on the leaf's device."""
        with leaf.device:
            return leaf.copy()

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

    def _launch(self, name: str, tasks: int, team: int, *arguments: Any) -> None:
        """Run a kernel, a team of threads for each task, on the current stream."""
        if not tasks:
            return
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        blocks = -(-tasks // (BLOCK // team))
        words = tuple(np.int64(word) if isinstance(word, bool | int) else word for word in arguments)
        self._kernels[name]((blocks,), (BLOCK,), words)

    def _table(self, operands: list[tuple[Any, ...]], axis: Shape | None) -> _Table:
        """Describe arrays, each with those that go with it element by element."""
        leaves: list[int] = []
        dims: list[int] = []
        chunks = longest = 0
        for arrays in operands:
            leaf = arrays[0]
            if not leaf.size:
                continue
            strides = tuple(array.strides for array in arrays)
            rows = _dims(leaf.shape, strides, axis)
            length = leaf.size // math.prod(_kept(leaf.shape, axis))
            pointers = [array.pointer if isinstance(array, _Operand) else array.data.ptr for array in arrays]
            pointers += [0] * (_OPERANDS - len(pointers))
            leaves += [
                chunks,
                _KINDS[leaf.dtype.name],
                length,
                len(dims) // (1 + _OPERANDS),
                len(rows),
                *pointers,
            ]
            for size, *steps in rows:
                dims += [size, *steps, *[0] * (_OPERANDS - len(steps))]
            chunks += leaf.size // length * -(-length // CHUNK)
            longest = max(longest, length)
        words = self._cupy.array(np.array([*leaves, *dims] or [0], np.int64))
        return _Table(words, len(leaves) // (5 + _OPERANDS), chunks, _team(longest))


def _code(order: Order) -> int:
    return 0 if order == math.inf else int(order)


def _is_narrow(leaf: Array) -> bool:
    """Tell components of 64 bits, whose squares float64 does not hold, from smaller ones."""
    return FORMATS[COMPONENT[leaf.dtype.name]].precision == 53


def _kept(shape: Shape, axis: Shape | None) -> Shape:
    """Return the shape of the norms."""
    return () if axis is None else tuple(size for k, size in enumerate(shape) if k not in axis)


def _team(tasks: int) -> int:
    """Return how many threads, a power of two, share a group of so many elements."""
    return min(BLOCK, 1 << max(tasks - 1, 0).bit_length())


@lru_cache(4096)
def _dims(shape: Shape, strides: tuple[Shape, ...], axis: Shape | None) -> list[tuple[int, ...]]:
    """Return size and strides of the dimensions: those kept, then those reduced; as few as will do."""
    reduced = range(len(shape)) if axis is None else axis
    kept = [k for k in range(len(shape)) if k not in reduced]
    rows: list[tuple[int, ...]] = []
    for k in (*kept, *sorted(reduced, key=lambda k: -abs(strides[0][k]))):
        size, steps = shape[k], [each[k] for each in strides]
        if size == 1:
            continue
        if rows and rows[-1][1:] == tuple(step * size for step in steps):
            rows[-1] = (rows[-1][0] * size, *steps)
        else:
            rows.append((size, *steps))
    return rows or [(1, *(0 for _ in strides))]
