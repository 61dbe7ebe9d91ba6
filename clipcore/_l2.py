"""L2: the Euclidean length, and clipping by it."""

from typing import Any

from clipcore._checks import check_axis
from clipcore._norm_clip import Request, clip, measure
from clipcore._trees import flatten_array
from clipcore._typing import Array, Axis, Nonfinite

__all__ = ["clip_by_l2_norm", "l2_norm"]


def clip_by_l2_norm(
    x: Array,
    /,
    max_norm: Any,
    *,
    axis: Axis = None,
    nonfinite: Nonfinite = "propagate",
    out: Array | None = None,
) -> Array:
    r"""Scale an array down so that its L2 norm is at most `max_norm`, exactly.

    .. math:: y = x \cdot \min(1, C / \lVert x \rVert_2),
              \qquad \lVert x \rVert_2 = \sqrt{\sum_i |x_i|^2}

    Parameters
    ----------
    x : array
        Of any shape; float16, bfloat16, float32, float64, complex64 or complex128. Complex
        elements count with their modulus.
    max_norm : float or 0-d array
        The limit C, zero or positive, in the unit of `x`. Infinity switches clipping off.
    axis : int or tuple of ints, optional
        The axes that a norm sums over. Each slice along them is a group of its own and is
        clipped by itself. Default: all axes, one norm.
    nonfinite : {"propagate", "raise", "zero"}, optional
        What a group that holds NaN or infinity becomes: all NaN, an exception before
        anything is written, or all zeros.
    out : array, optional
        Where to write the result: an array of the shape and dtype of `x`, which may be `x`
        itself or overlap it.

    Returns
    -------
    array
        Of the library, shape, dtype and device of `x`, sharing no memory with it; `out`
        where that is given.

    Raises
    ------
    TypeError
        If `x` is no array or has another dtype, if `max_norm` is no real number, if `out`
        is of another library or of one whose arrays cannot be written.
    ValueError
        If `max_norm` is negative, NaN or an array with dimensions, if `axis` or `nonfinite`
        is none of the choices, if `out` does not fit.
    FloatingPointError
        If `x` holds NaN or infinity and `nonfinite` is "raise".

    See Also
    --------
    l2_norm : The norm alone.
    clip_by_l1_norm : The same with the sum of magnitudes.
    clip_by_global_norm : One norm for all arrays together.

    Notes
    -----
    On NumPy the exact norm of the result is at most C, and an array whose exact norm is at
    most C comes back bit for bit. A zero vector stays as it is, an empty one too. With
    C = 0 the result is zeros that keep their signs. With C infinite nothing changes, NaN
    and infinity included, unless `nonfinite` says otherwise.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
       neural networks", ICML 2013.
    .. [2] J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector",
       ACM TOMS 4(1), 1978: norms that neither over- nor underflow.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import clip_by_l2_norm
    >>> clip_by_l2_norm(np.array([3.0, -4.0]), 5.0)
    array([ 3., -4.])

    Each row by itself:

    >>> clip_by_l2_norm(np.array([[30.0, -40.0], [0.5, 0.5]], np.float32), 5.0, axis=1)
    array([[ 2.9999995, -3.9999995],
           [ 0.5      ,  0.5      ]], dtype=float32)
    """
    flat = flatten_array("clip_by_l2_norm", x)
    axes = check_axis("clip_by_l2_norm", axis, flat.leaves[0].ndim)
    request = Request("clip_by_l2_norm", 2, axes, nonfinite=nonfinite)
    (result,), _ = clip(flat, max_norm, request, out)
    return result


def l2_norm(x: Array, /, *, axis: Axis = None) -> Array:
    r"""Return the L2 norm of an array, accurate however many elements it has.

    .. math:: \lVert x \rVert_2 = \sqrt{\sum_i |x_i|^2}

    Parameters
    ----------
    x : array
        Of any shape; float16, bfloat16, float32, float64, complex64 or complex128. Complex
        elements count with their modulus.
    axis : int or tuple of ints, optional
        The axes to sum over. Default: all.

    Returns
    -------
    array
        Of float64 (float32 on devices without it), in the shape of `x` without `axis`; 0-d
        where all axes are summed. Within 1 ulp for float64 on NumPy, and within 2**-44 of
        itself for components of 32 bits or less.

    Raises
    ------
    TypeError
        If `x` is no array, has another dtype, or `axis` is no int.
    ValueError
        If `x` has no such axis.

    See Also
    --------
    clip_by_l2_norm : Clip by it.
    l1_norm : The sum of magnitudes.
    global_norm : One norm of all arrays together.

    Notes
    -----
    NaN where `x` holds NaN, else infinity where it holds that. Zero for an empty `x`. No
    finite `x` over- or underflows on the way; a norm beyond float64 is infinity.

    References
    ----------
    .. [1] J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector",
       ACM TOMS 4(1), 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import l2_norm
    >>> l2_norm(np.array([3.0, -4.0]))
    array(5.)
    >>> l2_norm(np.array([[3.0, -4.0], [1.0, 0.0]]), axis=1)
    array([5., 1.])
    """
    flat = flatten_array("l2_norm", x)
    axes = check_axis("l2_norm", axis, flat.leaves[0].ndim)
    return measure(flat, Request("l2_norm", 2, axes))
