"""What the transformations of optax are made of: named leaves, any mesh, and sums that stay in a range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clipcore._clamp import clamp
from clipcore._messages import shown
from clipcore._trees import flatten
from clipcore._typing import Array, Bound, Tree
from clipcore.integrations._require import require

__all__ = [
    "clamp_leaf",
    "clip_on_device",
    "is_picked",
    "jax",
    "keep_leaf",
    "named_leaves",
    "norm_dtype",
    "optax",
]

optax = require("optax", "0.2.5")
jax = require("jax", "0.8.0", integration="optax")
jnp = jax.numpy


def clip_on_device(clipped: Callable[[list[Array]], Any], leaves: list[Array]) -> tuple[list[Array], Any]:
    """Return the results of a clip and the norms before, summed in float64 where the machine has that.

    Without ``jax_enable_x64`` sums would be of float32, slow where they are accurate. So it is
    switched on for them; what goes in and comes out has the types that the caller's mode has.
    """
    dtype = norm_dtype()
    with jax.enable_x64(jax.config.jax_enable_x64 or jax.default_backend() in ("cpu", "gpu")):
        results, norms = _on_mesh(clipped, leaves)
        return results, jax.tree_util.tree_map(lambda norm: jnp.asarray(norm).astype(dtype), norms)


def norm_dtype() -> Any:
    """Return the dtype that norms have: float64 under ``jax_enable_x64``, else float32."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def _on_mesh(clipped: Callable[[list[Array]], Any], leaves: list[Array]) -> Any:
    """Clip; on a mesh of explicit axes the compiler lays out what is between leaves and results."""
    places = [jax.typeof(leaf).sharding for leaf in leaves]
    explicit = jax.sharding.AxisType.Explicit
    mesh = next((place.mesh for place in places if explicit in place.mesh.axis_types), None)
    if mesh is None:
        return clipped(leaves)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    results = [everywhere if place.mesh.empty else place for place in places]
    return jax.sharding.auto_axes(clipped, out_sharding=(results, everywhere))(leaves)


def named_leaves(updates: Tree) -> tuple[list[str], list[Array], Callable[[list[Array]], Tree]]:
    """Return how a user would write each leaf, the leaves as arrays of JAX, and how to rebuild the tree."""
    found, spec = jax.tree_util.tree_flatten_with_path(updates)
    names = [_name_of("updates", path) for path, _ in found]
    return names, [jnp.asarray(leaf) for _, leaf in found], spec.unflatten


def _name_of(root: str, path: tuple[Any, ...]) -> str:
    return root + str(jax.tree_util.keystr(path))


def clamp_leaf(function: str, name: str, leaf: Array, lower: Bound, upper: Bound) -> Array:
    (result,) = clamp(function, flatten(function, leaf, name), lower, upper, None, None)
    return result


def is_picked(function: str, where: Callable[..., Any], path: tuple[Any, ...], leaf: Array) -> bool:
    """Ask whether a leaf is chosen, by its path of keys, indices and names of attributes."""
    kinds = ("key", "idx", "name")
    steps = [next(getattr(entry, kind) for kind in kinds if hasattr(entry, kind)) for entry in path]
    answer = where(tuple(steps), leaf)
    if isinstance(answer, (bool, np.bool_)):
        return bool(answer)
    raise TypeError(f"{function}: where returned {shown(answer)}; return True or False")


def keep_leaf(
    function: str, path: tuple[Any, ...], update: Array, weight: Array, lower: Bound, upper: Bound
) -> Array:
    """Return the update of a leaf that keeps its weight in the range."""
    weight, update, name = jnp.asarray(weight), jnp.asarray(update), _name_of("params", path)
    for each, what in ((weight, name), (update, _name_of("updates", path))):
        if not jnp.issubdtype(each.dtype, jnp.floating):
            raise TypeError(
                f"{function}: {what} has dtype {each.dtype}; a range is kept for real floating-point "
                "numbers: leave such a leaf out by where="
            )
    return _keep_in_range(weight, update, lambda x: clamp_leaf(function, name, x, lower, upper))


def _keep_in_range(weight: Array, update: Array, clamped: Callable[[Array], Array]) -> Array:
    """Return the update where it keeps its weight in the range, else one that does: see docs/optax.md."""
    largest = float(jnp.finfo(update.dtype).max)
    wide = jnp.promote_types(weight.dtype, update.dtype)

    def moved(by: Array) -> Array:
        return _settled(optax.apply_updates(weight, by))

    def as_update(x: Array) -> Array:
        return _settled(jnp.clip(x, -largest, largest).astype(update.dtype))

    def is_within(x: Array) -> Array:
        return (clamped(x) == x) | jnp.isnan(x)

    update = _settled(update)
    wish = moved(update)
    bound = clamped(wish)
    # Of the two updates that are nearest to the distance one does, if any does.
    nearest = as_update(bound.astype(wide) - weight.astype(wide))
    landed = moved(nearest)
    other = _next_after(nearest, jnp.where(landed > bound, -largest, largest).astype(update.dtype))
    update_to_bound = jnp.where(is_within(landed), nearest, other)
    update_to_zero = as_update(-weight.astype(wide))
    changed = jnp.where(is_within(moved(update_to_bound)), update_to_bound, update_to_zero)
    return jnp.where((bound == wish) | jnp.isnan(wish), update, changed)


def _round_now(x: Array) -> Array:
    """Return the number in its own format, whatever a compiler makes of the operations around.

    XLA may keep more bits of a 16-bit number than it has, and fuse a product and the addition
    that follows, so that a sum taken twice is two numbers. It does not through a choice of bits.
    """
    unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    bits, nan = (jax.lax.bitcast_convert_type(each, unsigned) for each in (x, jnp.full_like(x, jnp.nan)))
    return jax.lax.bitcast_convert_type(jnp.where(x == x, bits, nan), x.dtype)


# Numbers have derivatives, their bits have none: those of the identity.
_settled = jax.custom_jvp(_round_now)
_settled.defjvp(lambda x, x_dot: (_settled(*x), *x_dot))
_next_after = jax.custom_jvp(jnp.nextafter)
_next_after.defjvp(lambda x, x_dot: (_next_after(*x), x_dot[0]))
