"""Value: each element into a range."""

from clipcore._clamp import clamp
from clipcore._trees import flatten_array
from clipcore._typing import Array, Bound

__all__ = ["clip_by_value"]


def clip_by_value(x: Array, /, lower: Bound, upper: Bound, *, out: Array | None = None) -> Array:
    r"""Cut every element of an array into the range from `lower` to `upper`.

    .. math:: y_i = \min(\max(x_i, \mathrm{lower}_i), \mathrm{upper}_i)

    Parameters
    ----------
    x : array
        Of any shape; integers, float16, bfloat16, float32 or float64.
    lower, upper : number, array or None
        The bounds, in the unit of `x`. A number, or an array that broadcasts to the shape
        of `x`; None for no bound. A 0-d array counts as an array. Bounds of another dtype
        are rounded so that they hold as given: `upper` down, `lower` up.
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
        If `x` is no array or complex, bool or of another dtype without order, if a bound is
        no number, array or None, if integers get a bound of floating-point numbers.
    ValueError
        If a bound is NaN or out of range on its far side (uint8 with an upper bound of -1),
        if no value of the dtype of `x` lies between them, if an array bound does not
        broadcast to `x`, if `out` does not fit.

    See Also
    --------
    clip_weights : The same for all leaves of a tree.
    clip_by_l2_norm : Keeps the direction, which this does not.

    Notes
    -----
    NaN stays NaN, infinity becomes the bound. A value within the bounds comes back bit for
    bit; -0.0 is within [0, 1]. An infinite bound on its own side is no bound. A finite one
    beyond the range of a floating-point dtype is its largest finite value. Only numbers are
    checked against each other; where array bounds cross, the upper one holds, and where one
    is NaN so is the result. An empty array comes back empty.

    References
    ----------
    .. [1] T. Mikolov, "Statistical Language Models Based on Neural Networks", PhD thesis,
       Brno University of Technology, 2012: gradients cut by value.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import clip_by_value
    >>> clip_by_value(np.array([-3.0, 0.5, 7.0]), -1, 1)
    array([-1. ,  0.5,  1. ])
    >>> clip_by_value(np.array([1, 2, 3], np.uint8), None, 2.5)
    array([1, 2, 2], dtype=uint8)
    """
    (result,) = clamp("clip_by_value", flatten_array("clip_by_value", x), lower, upper, None, out)
    return result
