"""What the tests drawn from other projects expect: rational arithmetic and bits, nothing of clipcore."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import inf, isqrt
from threading import Barrier
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
AllReduce: TypeAlias = Callable[[Array, str], Array]

FLOATS = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.float64)]
NORM_SLACK = Fraction(1, 2**44)
# stored bits of the significand, exponent of the smallest normal
FORMATS = {
    "float16": (10, -14),
    "bfloat16": (7, -126),
    "float32": (23, -126),
    "float64": (52, -1022),
    "complex64": (23, -126),
    "complex128": (52, -1022),
}


def array(values: object, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return the values as an array, float32 unless told otherwise."""
    return np.array(values, dtype=dtype)


def components(leaf: Array) -> list[Fraction]:
    """Return every element exactly; of a complex leaf all real parts, then all imaginary ones."""
    flat = leaf.ravel()
    parts = [flat.real, flat.imag] if flat.dtype.kind == "c" else [flat]
    return [Fraction(float(value)) for part in parts for value in part]


def root(square: Fraction) -> Fraction:
    """Return the square root, to 2^-250 relative."""
    if not square:
        return Fraction(0)
    shift = max(0, 260 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    return Fraction(isqrt((square.numerator << 2 * shift) // square.denominator), 2**shift)


def moduli(leaf: Array) -> list[Fraction]:
    """Return the modulus of every element."""
    parts = components(leaf)
    if leaf.dtype.kind != "c":
        return [abs(part) for part in parts]
    return [root(re * re + im * im) for re, im in zip(parts[: leaf.size], parts[leaf.size :], strict=True)]


def exact_norm(leaves: Iterable[Array], order: float = 2) -> Fraction:
    """Return the norm of all leaves seen as one vector."""
    leaves = list(leaves)
    if order == 2:
        return root(sum((c * c for leaf in leaves for c in components(leaf)), Fraction(0)))
    sizes = [size for leaf in leaves for size in moduli(leaf)]
    return max(sizes, default=Fraction(0)) if order == inf else sum(sizes, Fraction(0))


def ulp(value: Fraction, dtype: np.dtype[Any]) -> Fraction:
    """Return the spacing of the dtype (of its component) at the value, at least the smallest subnormal."""
    stored, smallest = FORMATS[dtype.name]
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    return Fraction(2) ** (max(exponent if value else smallest, smallest) - stored)


def ulps_off(actual: Array, expected: Sequence[Fraction | float | str]) -> float:
    """Return the largest distance from the expected components in ulp; floats are taken as written."""
    wanted = [e if isinstance(e, Fraction) else Fraction(str(e)) for e in expected]
    pairs = zip(components(actual), wanted, strict=True)
    return max((float(abs(a - w) / ulp(w, actual.dtype)) for a, w in pairs), default=0.0)


def relative_error(norm: Array, expected: Fraction) -> Fraction:
    """Return how far a returned norm is from the exact one, relative to it."""
    return abs(Fraction(float(norm)) - expected) / (expected or 1)


def same_bits(actual: Array, expected: Array) -> bool:
    """Return whether type, dtype, shape and every bit agree."""
    forms = [(type(leaf), leaf.dtype, leaf.shape) for leaf in (actual, expected)]
    return forms[0] == forms[1] and actual.tobytes() == expected.tobytes()


def same_values(actual: Array, expected: Array) -> bool:
    """Return whether all agrees like same_bits, with any NaN as good as any other."""
    if actual.shape != expected.shape or (np.isnan(actual) != np.isnan(expected)).any():
        return False
    known = ~np.isnan(expected)
    return type(actual) is type(expected) and same_bits(actual[known], expected[known])


def all_nan(leaf: Array) -> bool:
    """Return whether every element is NaN."""
    return bool(np.isnan(leaf).all())


def at_most(bound: float, dtype: npt.DTypeLike) -> Array:
    """Return the largest value of the dtype that is no larger than the bound."""
    near = np.asarray(bound).astype(dtype)
    fits = Fraction(float(near)) <= Fraction(bound)
    return near if fits else np.asarray(np.nextafter(near, np.asarray(-inf, dtype)))


def at_least(bound: float, dtype: npt.DTypeLike) -> Array:
    """Return the smallest value of the dtype that is no smaller than the bound."""
    return np.asarray(-at_most(-float(bound), dtype))


def broken_laws(before: Sequence[Array], after: Sequence[Array], limit: float, order: float = 2) -> list[str]:
    """Name what a clip of one group to a finite limit got wrong, judged in rational arithmetic."""
    forms = [[(type(leaf), leaf.dtype, leaf.shape) for leaf in leaves] for leaves in (before, after)]
    if forms[0] != forms[1]:
        return ["form"]
    norm, bound = exact_norm(before, order), Fraction(limit)
    if norm <= bound:
        return [] if all(map(same_bits, after, before)) else ["identity"]
    found = exact_norm(after, order)
    ideal = [[c * bound / norm for c in components(leaf)] for leaf in before]
    formats = [FORMATS[leaf.dtype.name] for leaf in before]
    roundoff = max(Fraction(1, 2 ** (stored + 1)) for stored, _ in formats)
    normal = all(
        not c or abs(c) >= Fraction(2) ** smallest
        for parts, (_, smallest) in zip(ideal, formats, strict=True)
        for c in parts
    )
    pairs = list(zip(before, after, strict=True))
    laws = {
        "bound": found <= bound,
        "tightness": not normal or found >= bound * (1 - 4 * roundoff),
        "direction": all(ulps_off(leaf, parts) <= 4 for leaf, parts in zip(after, ideal, strict=True)),
        "sign": all(_signs(b) == _signs(a) for b, a in pairs),
        "growth": all(_shrinks(b, a) for b, a in pairs),
    }
    return [law for law, kept in laws.items() if not kept]


def _shrinks(before: Array, after: Array) -> bool:
    return all(abs(a) <= abs(b) for b, a in zip(components(before), components(after), strict=True))


def _signs(leaf: Array) -> list[bool]:
    parts = [leaf.real, leaf.imag] if leaf.dtype.kind == "c" else [leaf]
    return [bool(sign) for part in parts for sign in np.signbit(part).ravel()]


def on_ranks(calls: Sequence[Callable[[AllReduce], Any]]) -> list[Any]:
    """Run one call per rank, each with an all_reduce that joins them; return results, or what they raised."""
    barrier = Barrier(len(calls), timeout=5)
    posted: list[Array] = [np.empty(0)] * len(calls)

    def run(rank: int) -> Any:
        def all_reduce(mine: Array, op: str) -> Array:
            posted[rank] = mine
            barrier.wait()
            ranks = np.stack(posted)
            barrier.wait()
            return np.asarray(ranks.sum(axis=0) if op == "sum" else ranks.max(axis=0))

        try:
            return calls[rank](all_reduce)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, range(len(calls))))
