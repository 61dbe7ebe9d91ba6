"""Clipping as gradient transformations of optax, and weights that stay in a range while they are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from clipcore_backends._protocol import Order

import clipcore
from clipcore._bounds import check_bounds
from clipcore._checks import check_axis, check_floating, check_limit
from clipcore._messages import shown
from clipcore._norm_clip import Request, clip
from clipcore._trees import flatten
from clipcore._typing import AllReduce, Array, Axis, Bound, Tree
from clipcore.integrations._optax import (
    clamp_leaf,
    clip_on_device,
    is_picked,
    jax,
    keep_leaf,
    named_leaves,
    norm_dtype,
    optax,
)

__all__ = [
    "NormState",
    "clip_by_global_norm",
    "clip_by_l1_norm",
    "clip_by_l2_norm",
    "clip_by_value",
    "keep_weights_in_range",
]

jnp = jax.numpy


class NormState(NamedTuple):
    """What the clips by norm remember: the norm before clipping, zero before the first update."""

    norm: Any
    """An array, or a tree of them; float64 under ``jax_enable_x64``, else float32."""


def clip_by_global_norm(max_norm: Any, *, all_reduce: AllReduce | None = None) -> Any:
    r"""Scale the updates of all leaves by one factor so that their common norm is at most `max_norm`.

    .. math:: y = x \cdot \min(1, C / \lVert x \rVert_2),
              \qquad x \text{ the elements of all leaves together}

    Parameters
    ----------
    max_norm : float or 0-d array
        The limit C, zero or positive, in the unit of the updates. Infinity switches clipping
        off and measures all the same. An array is not looked at: it may be traced, as
        ``optax.inject_hyperparams`` makes it, and where it is negative or NaN, the updates
        are NaN.
    all_reduce : callable, optional
        For updates that are cut over ranks inside ``jax.shard_map``: called as
        ``all_reduce(array, op="sum" | "max")``, returns the reduction over all ranks; see
        `clipcore.clip_by_global_norm`. Outside of ``shard_map`` there is no need of it.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `NormState`, whose ``norm`` is that of the last updates before clipping.
        For updates of float16 to float64, complex64, complex128, mixed as you like.

    Raises
    ------
    TypeError
        If `max_norm` is no real number, `all_reduce` cannot be called, or an update has
        another dtype.
    ValueError
        If `max_norm` is a number below zero, NaN or an array with dimensions.

    See Also
    --------
    clipcore.clip_by_global_norm : The same for any tree of arrays, and what it promises.

    Notes
    -----
    NaN or infinity in one update makes all of them NaN. An empty tree has norm zero.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
       neural networks", ICML 2013.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from clipcore.integrations.optax import clip_by_global_norm
    >>> clip = clip_by_global_norm(1.0)
    >>> gradients = {"weight": jnp.array([[3.0, 0.0]]), "bias": jnp.array([4.0])}
    >>> updates, state = clip.update(gradients, clip.init(gradients))
    >>> float(state.norm)
    5.0
    >>> round(float(updates["bias"][0]), 6)
    0.8
    """
    function = "clip_by_global_norm"
    check_limit(function, max_norm, [])
    if not (all_reduce is None or callable(all_reduce)):
        raise TypeError(
            f"{function}: all_reduce is {shown(all_reduce)}; "
            'give a function called as all_reduce(array, op="sum" | "max")'
        )

    def clipped(leaves: list[Array]) -> tuple[list[Array], Array]:
        return clipcore.clip_by_global_norm(leaves, max_norm, all_reduce=all_reduce)

    def init(params: Tree) -> NormState:
        del params
        return NormState(jnp.zeros((), norm_dtype()))

    def update(updates: Tree, state: NormState, params: Tree | None = None) -> tuple[Tree, NormState]:
        del state, params
        names, leaves, rebuild = named_leaves(updates)
        for name, leaf in zip(names, leaves, strict=True):
            check_floating(function, flatten(function, leaf, name))
        results, norm = clip_on_device(clipped, leaves)
        return rebuild(results), NormState(norm)

    return optax.GradientTransformation(init, update)


def clip_by_l1_norm(max_norm: Any, axis: Axis = None) -> Any:
    r"""Scale the update of each leaf by itself so that its L1 norm is at most `max_norm`.

    .. math:: y = x \cdot \min(1, C / \lVert x \rVert_1), \qquad \lVert x \rVert_1 = \sum_i |x_i|

    Parameters
    ----------
    max_norm : float or 0-d array
        The limit C of every leaf, zero or positive; more on it at `clip_by_global_norm`.
    axis : int or tuple of ints, optional
        The axes that a norm sums over, which every leaf must have; each slice along them is
        clipped by itself. Default: all axes. ``optax.masked`` chooses leaves.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `NormState`, whose ``norm`` is a tree like that of the updates, with
        the norms before clipping of each leaf, of its shape without `axis`.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_global_norm` does; if `axis` is no int, or a leaf lacks it.

    See Also
    --------
    clipcore.clip_by_l1_norm : The same for one array, and what it promises.

    Notes
    -----
    NaN or infinity makes its own group NaN, no other one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from clipcore.integrations.optax import clip_by_l1_norm
    >>> clip = clip_by_l1_norm(8.0)
    >>> gradients = [jnp.array([3.0, -4.0]), jnp.array([16.0])]
    >>> updates, state = clip.update(gradients, clip.init(gradients))
    >>> [float(norm) for norm in state.norm]
    [7.0, 16.0]
    >>> updates[0].tolist()
    [3.0, -4.0]
    """
    return _clip_each("clip_by_l1_norm", 1, max_norm, axis)


def clip_by_l2_norm(max_norm: Any, axis: Axis = None) -> Any:
    r"""Scale the update of each leaf by itself so that its L2 norm is at most `max_norm`.

    .. math:: y = x \cdot \min(1, C / \lVert x \rVert_2), \qquad \lVert x \rVert_2 = \sqrt{\sum_i |x_i|^2}

    Parameters
    ----------
    max_norm : float or 0-d array
        The limit C of every leaf, zero or positive; more on it at `clip_by_global_norm`.
    axis : int or tuple of ints, optional
        The axes that a norm sums over, which every leaf must have; each slice along them is
        clipped by itself. Default: all axes. ``optax.masked`` chooses leaves.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `NormState`, whose ``norm`` is a tree like that of the updates, with
        the norms before clipping of each leaf, of its shape without `axis`.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_global_norm` does; if `axis` is no int, or a leaf lacks it.

    See Also
    --------
    clipcore.clip_by_l2_norm : The same for one array, and what it promises.

    Notes
    -----
    NaN or infinity makes its own group NaN, no other one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from clipcore.integrations.optax import clip_by_l2_norm
    >>> clip = clip_by_l2_norm(5.0, axis=-1)
    >>> gradients = {"rows": jnp.array([[3.0, -4.0], [6.0, 8.0]])}
    >>> updates, state = clip.update(gradients, clip.init(gradients))
    >>> state.norm["rows"].tolist()
    [5.0, 10.0]
    >>> updates["rows"][0].tolist()
    [3.0, -4.0]
    """
    return _clip_each("clip_by_l2_norm", 2, max_norm, axis)


def clip_by_value(lower: Bound, upper: Bound) -> Any:
    r"""Cut every element of the updates into the range from `lower` to `upper`.

    .. math:: y_i = \min(\max(x_i, \mathrm{lower}), \mathrm{upper})

    Parameters
    ----------
    lower, upper : number, array or None
        The bounds, in the unit of the updates. A number, or an array of JAX, traced or not,
        that broadcasts to every leaf; None for no bound. They are rounded to each leaf's
        dtype so that they hold as given.

    Returns
    -------
    optax.GradientTransformation
        Without state, for integers, float16, bfloat16, float32 or float64.

    Raises
    ------
    TypeError
        If a bound is no number, array or None, or an update is complex or bool.
    ValueError
        If a number is NaN, the lower one above the upper one, or no value of a leaf's dtype
        between them.

    See Also
    --------
    clipcore.clip_by_value : The same for one array, and what happens at the edges.

    Notes
    -----
    NaN stays NaN, infinity becomes the bound.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from clipcore.integrations.optax import clip_by_value
    >>> clip = clip_by_value(-1, 0.5)
    >>> gradients = [jnp.array([-3.0, 0.25, 7.0])]
    >>> clip.update(gradients, clip.init(gradients))[0][0].tolist()
    [-1.0, 0.25, 0.5]
    """
    function = "clip_by_value"
    check_bounds(function, lower, upper)

    def init(params: Tree) -> Any:
        del params
        return optax.EmptyState()

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        del params
        names, leaves, rebuild = named_leaves(updates)
        results = [
            clamp_leaf(function, name, leaf, lower, upper) for name, leaf in zip(names, leaves, strict=True)
        ]
        return rebuild(results), state

    return optax.GradientTransformation(init, update)


def keep_weights_in_range(
    lower: Bound, upper: Bound, where: Callable[[tuple[Any, ...], Array], bool] | None = None
) -> Any:
    r"""Change the updates so that the weights, once updated, are in the range from `lower` to `upper`.

    .. math:: w \oplus u' \in [\mathrm{lower}, \mathrm{upper}],
              \qquad \oplus \text{ the rounded sum of optax.apply\_updates}

    It is the last of a chain, since it must see the updates as they are applied.

    Parameters
    ----------
    lower, upper : number, array or None
        The bounds, in the unit of the weights. A number, or an array of JAX, traced or not,
        that broadcasts to every leaf; None for no bound. They are rounded to each leaf's
        dtype so that they hold as given.
    where : callable, optional
        Called as ``where(path, leaf)`` with the path of a weight, a tuple of keys, indices
        and attribute names, and the weight, which may be traced. Updates of leaves for
        which it is false are not looked at. Default: all leaves.

    Returns
    -------
    optax.GradientTransformation
        Without state; ``update(updates, state, params)`` needs the weights.

    Raises
    ------
    TypeError
        If a bound is no number, array or None, `where` cannot be called or returns no bool,
        or a leaf is no real floating-point array.
    ValueError
        If ``update`` is called without `params`; if a number is NaN, the lower one above
        the upper one, or no value of a leaf's dtype between them.

    See Also
    --------
    clipcore.clip_weights : It brings weights into the range before training.

    Notes
    -----
    An update that leaves its weight within the range comes back bit for bit; any other weight
    lands on a bound, or beside it where no update reaches it. A weight within the range stays
    within it, always. One that starts out of it is brought back by the first update, if any
    number of the update's dtype can do that; if none can (``1e10`` into ``[0.1, 0.2]`` in
    float32), it becomes zero, and the next update brings it back. An update of NaN stays NaN;
    an infinite weight stays infinite. docs/optax.md has the proof.

    References
    ----------
    .. [1] M. Arjovsky, S. Chintala, L. Bottou, "Wasserstein GAN", ICML 2017, algorithm 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from clipcore.integrations.optax import keep_weights_in_range
    >>> optimizer = optax.chain(optax.sgd(1.0), keep_weights_in_range(-0.25, 0.25))
    >>> weights = {"kernel": jnp.array([0.125, -0.125])}
    >>> gradients = {"kernel": jnp.array([-7.0, 0.0625])}
    >>> updates, state = optimizer.update(gradients, optimizer.init(weights), weights)
    >>> optax.apply_updates(weights, updates)["kernel"].tolist()
    [0.25, -0.1875]
    """
    function = "keep_weights_in_range"
    check_bounds(function, lower, upper)
    if not (where is None or callable(where)):
        raise TypeError(f"{function}: where is {shown(where)}; give a function called as where(path, leaf)")

    def init(params: Tree) -> Any:
        del params
        return optax.EmptyState()

    def kept(path: tuple[Any, ...], update: Array | None, weight: Array | None) -> Array | None:
        if update is None or weight is None:
            return update
        if where is None or is_picked(function, where, path, weight):
            return keep_leaf(function, path, update, weight, lower, upper)
        return update

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        if params is None:
            raise ValueError(f"{function}: params is None; call update(updates, state, params)")
        return jax.tree_util.tree_map_with_path(
            kept, updates, params, is_leaf=lambda leaf: leaf is None
        ), state

    return optax.GradientTransformation(init, update)


def _clip_each(function: str, order: Order, max_norm: Any, axis: Axis) -> Any:
    """Return the transformation that clips each leaf by its own norm."""
    check_limit(function, max_norm, [])

    def clip_one(name: str, leaf: Array) -> tuple[Array, Array]:
        request = Request(function, order, check_axis(function, axis, leaf.ndim))
        (result,), norm = clip(flatten(function, leaf, name), max_norm, request, None)
        return result, norm

    def init(params: Tree) -> NormState:
        def zeros(leaf: Array) -> Array:
            shape = jnp.shape(leaf)
            axes = check_axis(function, axis, len(shape))
            kept = () if axes is None else tuple(n for k, n in enumerate(shape) if k not in axes)
            return jnp.zeros(kept, norm_dtype())

        return NormState(jax.tree_util.tree_map(zeros, params))

    def update(updates: Tree, state: NormState, params: Tree | None = None) -> tuple[Tree, NormState]:
        del state, params
        names, leaves, rebuild = named_leaves(updates)

        def clipped(leaves: list[Array]) -> tuple[list[Array], list[Array]]:
            pairs = [clip_one(*each) for each in zip(names, leaves, strict=True)]
            return [result for result, _ in pairs], [norm for _, norm in pairs]

        results, norms = clip_on_device(clipped, leaves)
        return rebuild(results), NormState(rebuild(norms))

    return optax.GradientTransformation(init, update)
