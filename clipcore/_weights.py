"""Weights: every leaf of a tree into a range."""

from collections.abc import Callable
from typing import Any

from clipcore._clamp import clamp
from clipcore._dispatch import is_array, is_traced
from clipcore._messages import shown
from clipcore._trees import flatten
from clipcore._typing import Array, Bound, Tree

__all__ = ["clip_weights"]


def clip_weights(
    tree: Tree,
    /,
    lower: Bound,
    upper: Bound,
    *,
    where: Callable[[tuple[Any, ...], Array], bool] | None = None,
    out: Tree | None = None,
) -> Tree:
    r"""Cut every weight of a model into the range from `lower` to `upper`.

    .. math:: w_i \leftarrow \min(\max(w_i, \mathrm{lower}), \mathrm{upper})

    Parameters
    ----------
    tree : tree of arrays
        An array, or nested dicts, lists, tuples and named tuples of arrays of one library,
        of any shapes; integers, float16, bfloat16, float32 or float64, mixed as you like.
        None stays in its place. A generator is read once and comes back as a list.
    lower, upper : number, array or None
        The bounds, in the unit of the weights. A number, or an array that broadcasts to the
        shape of every leaf; None for no bound. Rounded to each leaf's dtype so that they
        hold as given.
    where : callable, optional
        Called as ``where(path, leaf)``, with the leaf's path as a tuple of keys and
        indices. Leaves for which it is false are copied unchanged. Default: clip all.
    out : tree of arrays, optional
        Where to write the result: arrays of the same structure, shapes and dtypes. It may
        be `tree` itself or overlap it.

    Returns
    -------
    tree of arrays
        Of the same structure, library, shapes, dtypes and devices, sharing no memory with
        the input; `out` where that is given.

    Raises
    ------
    TypeError
        If a leaf is no array or complex, bool or of another dtype without order, whether
        `where` picks it or not; if libraries are mixed; if `where` cannot be called; if a
        bound is no number, array or None.
    ValueError
        If a bound is NaN or out of a leaf's range on its far side, if no value of a leaf's
        dtype lies between them, if an array bound does not broadcast to a leaf, if `out`
        does not fit.

    See Also
    --------
    clip_by_value : The same for one array, and what happens at the edges.

    Notes
    -----
    This is the weight clipping of the Wasserstein GAN, done after an optimiser's step; it
    is not gradient clipping. NaN stays NaN, infinity becomes the bound. An empty tree comes
    back as it is.

    References
    ----------
    .. [1] M. Arjovsky, S. Chintala, L. Bottou, "Wasserstein GAN", ICML 2017, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore import clip_weights
    >>> weights = {"dense": np.array([0.5, -2.0]), "scale": np.array([3.0])}
    >>> clip_weights(weights, -1, 1, where=lambda path, leaf: path[0] != "scale")
    {'dense': array([ 0.5, -1. ]), 'scale': array([3.])}
    """
    flat = flatten("clip_weights", tree)
    if where is None:
        chosen = None
    elif callable(where):
        chosen = [_picked(where(path, leaf)) for path, leaf in zip(flat.paths, flat.leaves, strict=True)]
    else:
        raise TypeError(f"clip_weights: where is {shown(where)}; give a function called as where(path, leaf)")
    results = clamp("clip_weights", flat, lower, upper, chosen, out)
    return flat.rebuild(results) if out is None else out


def _picked(answer: Any) -> bool:
    try:
        if not is_array(answer) or not is_traced(answer):
            return bool(answer)
    except (RuntimeError, TypeError, ValueError):  # an array of several elements
        pass
    raise TypeError(f"clip_weights: where returned {shown(answer)}; return True or False")
