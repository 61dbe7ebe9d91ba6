"""The global norm: one norm over all leaves of a tree, and clipping by it."""

import math
from typing import Any

from clipcore._checks import as_number, check_choice, check_library
from clipcore._messages import shown
from clipcore._norm_clip import Request, clip, measure
from clipcore._trees import Flat, flatten
from clipcore._typing import AllReduce, Array, Nonfinite, Tree

__all__ = ["clip_by_global_norm", "global_norm"]

_ORDERS = (1, 2, math.inf)


def clip_by_global_norm(
    tree: Tree,
    /,
    max_norm: Any,
    *,
    ord: float = 2,  # noqa: A002 - the name of the array-API standard
    norm: Any = None,
    all_reduce: AllReduce | None = None,
    nonfinite: Nonfinite = "propagate",
    out: Tree | None = None,
) -> tuple[Tree, Array]:
    r"""Scale all leaves of a tree by one factor so that their common norm is at most `max_norm`, exactly.

    .. math:: y = x \cdot \min(1, C / \lVert x \rVert),
              \qquad x \text{ the elements of all leaves together}

    Parameters
    ----------
    tree : tree of arrays
        An array, or nested dicts, lists, tuples and named tuples of arrays of one library,
        of any shapes; float16, bfloat16, float32, float64, complex64 or complex128, mixed
        as you like. None stays in its place. A generator is read once and comes back as a
        list.
    max_norm : float or 0-d array
        The limit C, zero or positive, in the unit of the leaves. Infinity switches clipping
        off and measures all the same.
    ord : {1, 2, inf}, optional
        The norm: the sum of magnitudes, the Euclidean length, the largest magnitude.
    norm : float or 0-d array, optional
        A norm already computed, taken as it is instead of measuring; the leaves are then
        not inspected. Not together with `all_reduce`.
    all_reduce : callable, optional
        Called as ``all_reduce(array, op="sum" | "max")`` with a small 1-D array, returns
        its reduction over all ranks. Every rank calls this function, one without leaves
        too, and every rank takes the same decision.
    nonfinite : {"propagate", "raise", "zero"}, optional
        What the tree becomes if a leaf holds NaN or infinity: all NaN, an exception before
        anything is written, or all zeros.
    out : tree of arrays, optional
        Where to write the result: arrays of the same structure, shapes and dtypes. It may
        be `tree` itself or overlap it.

    Returns
    -------
    tree : tree of arrays
        Of the same structure, libraries, shapes, dtypes and devices, sharing no memory with
        the input; `out` where that is given.
    norm : 0-d array
        The norm before clipping; float64 (float32 on devices without it).

    Raises
    ------
    TypeError
        If a leaf is no array or has another dtype, if libraries are mixed, if `max_norm` or
        `norm` is no real number, if `out` cannot be written.
    ValueError
        If `max_norm` is negative, NaN or an array with dimensions, if `norm` is negative or
        given together with `all_reduce`, if `ord` or `nonfinite` is none of the choices, if
        `out` does not fit.
    FloatingPointError
        If a leaf holds NaN or infinity and `nonfinite` is "raise"; the leaves are named.

    See Also
    --------
    global_norm : The norm alone.
    clip_by_l2_norm : One norm for each array, or for each slice of it.

    Notes
    -----
    On NumPy the exact norm of the result is at most C, and a tree whose exact norm is at
    most C comes back bit for bit; with `norm` or `all_reduce` within the accuracy of that
    norm. An empty tree comes back as it is, with norm 0. With C = 0 the result is zeros
    that keep their signs.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
       neural networks", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import clip_by_global_norm
    >>> gradients = {"weight": np.array([[3.0], [0.0]]), "bias": np.array([4.0])}
    >>> clipped, norm = clip_by_global_norm(gradients, 1.0)
    >>> norm
    array(5.)
    >>> clipped["bias"]
    array([0.8])
    """
    function = "clip_by_global_norm"
    check_choice(function, "ord", ord, _ORDERS)
    reduce = _checked(function, all_reduce)
    flat = flatten(function, tree)
    given = None if norm is None else _check_norm(function, norm, flat)
    if given is not None and all_reduce is not None:
        raise ValueError(
            f"{function}: norm is {shown(norm)} and all_reduce is given too; a norm already computed "
            "is not reduced again: leave one of the two away"
        )
    request = Request(function, ord, None, given, reduce, nonfinite)
    results, measured = clip(flat, max_norm, request, out)
    return (flat.rebuild(results) if out is None else out), measured


def global_norm(
    tree: Tree,
    /,
    *,
    ord: float = 2,  # noqa: A002 - the name of the array-API standard
    all_reduce: AllReduce | None = None,
) -> Array:
    r"""Return the norm of all leaves of a tree together, accurate however many elements they have.

    .. math:: \lVert x \rVert = \left(\sum_i |x_i|^{p}\right)^{1/p},
              \qquad x \text{ the elements of all leaves together}

    Parameters
    ----------
    tree : tree of arrays
        An array, or nested dicts, lists, tuples and named tuples of arrays of one library,
        of any shapes; float16, bfloat16, float32, float64, complex64 or complex128, mixed
        as you like. None is passed over.
    ord : {1, 2, inf}, optional
        The norm: the sum of magnitudes, the Euclidean length, the largest magnitude.
    all_reduce : callable, optional
        Called as ``all_reduce(array, op="sum" | "max")`` with a small 1-D array, returns
        its reduction over all ranks; see `clip_by_global_norm`.

    Returns
    -------
    0-d array
        Of float64 (float32 on devices without it). Within 1 ulp where all leaves are float64
        on NumPy, within 2**-44 of itself for components of 32 bits or less.

    Raises
    ------
    TypeError
        If a leaf is no array or has another dtype, or libraries are mixed.
    ValueError
        If `ord` is none of the choices.

    See Also
    --------
    clip_by_global_norm : Clip by it.
    l1_norm, l2_norm : Of one array, or of each slice of it.

    Notes
    -----
    NaN if any element is, else infinity if any element is. Zero for an empty tree. No
    finite tree over- or underflows on the way; a norm beyond float64 is infinity.

    References
    ----------
    .. [1] J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector",
       ACM TOMS 4(1), 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import global_norm
    >>> global_norm([np.array([3.0, 0.0]), None, np.array([[4.0]])])
    array(5.)
    >>> global_norm([np.array([3.0, 0.0]), np.array([[4.0]])], ord=1)
    array(7.)
    """
    function = "global_norm"
    check_choice(function, "ord", ord, _ORDERS)
    request = Request(function, ord, all_reduce=_checked(function, all_reduce))
    return measure(flatten(function, tree), request)


def _checked(function: str, all_reduce: AllReduce | None) -> AllReduce | None:
    """Return the caller's reduction, with what it returns checked at each call."""
    if all_reduce is None:
        return None
    if not callable(all_reduce):
        raise TypeError(
            f"{function}: all_reduce is {shown(all_reduce)}; "
            'give a function called as all_reduce(array, op="sum" | "max")'
        )

    def reduce(array: Array, op: str) -> Array:
        reduced = all_reduce(array, op=op)
        if getattr(reduced, "shape", None) != array.shape:
            raise TypeError(
                f"{function}: all_reduce returned {shown(reduced)} for an array of shape {array.shape}; "
                "return an array of that shape, reduced over all ranks"
            )
        return reduced

    return reduce


def _check_norm(function: str, norm: Any, flat: Flat) -> float | Array:
    given = as_number(function, "norm", norm)
    if given is None:
        check_library(function, "norm", norm, flat.leaves)
        return norm
    if given < 0:
        raise ValueError(f"{function}: norm is {shown(norm)}; give a norm, zero or positive")
    return given
