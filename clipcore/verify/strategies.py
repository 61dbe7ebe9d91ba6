"""Hypothesis strategies aimed at the same troubles as the listed cases, and shrinkable.

Components are drawn as bit patterns, so that every number of every dtype can be met: zeros of both signs,
subnormals, the ends of the range, and numbers near 1.  Limits are drawn relative to the exact norm.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from clipcore.verify.cases import LAYOUTS, limits
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, format_of, from_patterns, is_complex
from clipcore.verify.judge import NORM_CLIPS, NORMS, Case, split

__all__ = [
    "SAME_SHAPE",
    "arrays",
    "components",
    "limit_for",
    "nonfinite_cases",
    "norm_cases",
    "value_cases",
]

SAME_SHAPE: Final = [name for name in LAYOUTS if name not in ("transposed", "broadcast")]


def components(dtype: np.dtype[Any], *, nonfinite: bool = False) -> st.SearchStrategy[int]:
    """Return bit patterns of one component.

    Parameters
    ----------
    dtype : numpy.dtype
        Floating or complex dtype.
    nonfinite : bool
        Whether to draw NaN and infinities too.
    """
    form = format_of(dtype)
    hidden, sign = 1 << (form.precision - 1), 1 << (form.bits - 1)
    one = (form.exponent_fields // 2 - 1) * hidden
    edges = [0, one, 1, hidden, hidden - 1, form.infinity - 1, one + 1, one - 1]
    if nonfinite:
        edges += [form.infinity, form.infinity + 1, form.infinity + hidden // 2]
    magnitude = st.one_of(
        st.sampled_from(edges),
        st.integers(one - 10 * hidden, one + 10 * hidden),
        st.integers(0, form.infinity - 1),
    )
    return st.builds(lambda size, negative: size | sign * negative, magnitude, st.booleans())


@st.composite
def arrays(
    draw: st.DrawFn,
    dtype: np.dtype[Any],
    shape: tuple[int, ...] | None = None,
    *,
    nonfinite: bool = False,
) -> Array:
    """Draw an array of any layout; without a shape, of at most one dimension before it is laid out.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    dtype : numpy.dtype
        Floating, complex or integer dtype.
    shape : tuple of int, optional
        Its shape; then only layouts that keep it are drawn.
    nonfinite : bool
        Whether to draw NaN and infinities too.

    Returns
    -------
    numpy.ndarray
        The array.
    """
    size = draw(st.integers(0, 8)) if shape is None else math.prod(shape)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        flat = np.array(draw(_exactly(st.integers(int(info.min), int(info.max)), size)), dtype=dtype)
    else:
        parts = size * (2 if is_complex(dtype) else 1)
        flat = from_patterns(draw(_exactly(components(dtype, nonfinite=nonfinite), parts)), dtype)
    if shape is not None:
        x = flat.reshape(shape)
        return LAYOUTS[draw(st.sampled_from(SAME_SHAPE))](x) if shape else x
    if size == 1 and draw(st.booleans()):
        return flat.reshape(())
    return LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](flat)


def _exactly(elements: st.SearchStrategy[int], size: int) -> st.SearchStrategy[list[int]]:
    """Return lists of one size."""
    return st.lists(elements, min_size=size, max_size=size)


@st.composite
def limit_for(draw: st.DrawFn, group: list[Array], order: float) -> float:
    """Draw a limit for finite leaves: at their exact norm, a hair off, near, or at the ends."""
    if draw(st.booleans()):
        return float(draw(st.sampled_from(limits(group, order)))[1])
    low, _ = exact_norm(group, order).bounds()
    largest = format_of(np.dtype(np.float64)).largest
    return float(min(low * Fraction(draw(st.floats(0.01, 100))), largest))


@st.composite
def norm_cases(draw: st.DrawFn, operation: str, dtype: np.dtype[Any]) -> Case:
    """Draw a case of a norm or a norm clip, finite or not, with an axis, an order or several leaves.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    operation : str
        Name of the public function.
    dtype : numpy.dtype
        Floating or complex dtype of the leaves.

    Returns
    -------
    Case
        What to call the function with.
    """
    keywords: dict[str, Any] = {}
    tree: Any
    order: float = {**NORM_CLIPS, **NORMS}[operation]
    if operation.endswith("global_norm"):
        tree = draw(st.lists(arrays(dtype), max_size=3))
        order = draw(st.sampled_from([2, 1, math.inf]))
        keywords = {} if order == 2 else {"ord": order}
    elif draw(st.booleans()):
        shape = draw(st.tuples(*[st.integers(1, 3)] * 3))
        axis = draw(st.sampled_from([0, -1, 1, (0, 2), (1, 0), (0, 1, 2)]))
        tree, keywords = draw(arrays(dtype, shape)), {"axis": axis}
    else:
        tree = draw(arrays(dtype))
    if operation in NORMS:
        return Case(operation, "drawn", tree, (), keywords)
    group = leaves(tree) if "axis" not in keywords else split(tree, keywords["axis"])[:1]
    return Case(operation, "drawn", tree, (draw(limit_for(group, order)),), keywords)


@st.composite
def nonfinite_cases(draw: st.DrawFn, operation: str, dtype: np.dtype[Any]) -> Case:
    """Draw a case of a norm or a norm clip whose leaf may hold NaN and infinities."""
    x = draw(arrays(dtype, nonfinite=True))
    arguments = () if operation in NORMS else (draw(st.sampled_from([1.0, 0.0, 1e300, math.inf])),)
    return Case(operation, "drawn", [x] if operation.endswith("global_norm") else x, arguments)


@st.composite
def value_cases(draw: st.DrawFn, operation: str, dtype: np.dtype[Any]) -> Case:
    """Draw a case of a value or weight clip: scalar or array bounds of the dtype itself or of float64.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    operation : str
        Name of the public function.
    dtype : numpy.dtype
        Floating or integer dtype of the leaves.

    Returns
    -------
    Case
        What to call the function with.
    """
    x = draw(arrays(dtype, nonfinite=True))
    if operation == "clip_by_value" and draw(st.booleans()):
        kind = dtype if dtype.kind in "iu" or draw(st.booleans()) else np.dtype(np.float64)
        bounds = [draw(st.none() | arrays(kind, x.shape, nonfinite=True)) for _ in range(2)]
        return Case(operation, "drawn", x, tuple(bounds))
    # 10 always lies between them, and every dtype has a 10
    scalar = st.integers(-10, 10) | st.floats(-10, 10)
    lower = draw(st.none() | scalar)
    upper = draw(st.none() | scalar.map(lambda value: value + 20))
    tree: Any = x if operation == "clip_by_value" else {"b": [x, None], "a": (draw(arrays(dtype)), {})}
    return Case(operation, "drawn", tree, (lower, upper))
