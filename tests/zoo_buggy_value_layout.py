"""Value and weight clips that fail for types, layouts, out= and trees of level robust."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import Array, Bug, Fn, flatten, kept_tree, native, rebuild
from zoo_buggy_value_edges import bound_when, changed, foreign, is_whole, isnan, no_check, upper_of, wrapped
from zoo_values import VALUE, Value, cut, value_leaf

ONE, ALL = "clip_by_value", "clip_weights"
Limits = Array | None

# --- leaves ------------------------------------------------------------------------------------


def accepting(kinds: str, change: Callable[[Array], Array]) -> Value:
    def leaf(x: Any) -> Array:
        array = np.asarray(x)
        return value_leaf(change(array)) if array.dtype.kind in kinds else value_leaf(x)

    return Value(leaf=leaf)


def only_floats(x: Any) -> Array:
    array = value_leaf(x)
    if is_whole(array.dtype):
        raise TypeError("integers are not clipped")
    return array


def machine_order(x: Any) -> Array:
    array = value_leaf(x)
    return array if array.dtype.isnative else array.astype(native(array.dtype))


def by_float64(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    return (
        made.astype(float).astype(x.dtype) if x.dtype.itemsize < 8 or x.dtype.kind == "f" else _through(made)
    )


def _through(x: Array) -> Array:
    """2**53 + 1 is lost."""
    with np.errstate(all="ignore"):
        return (
            np.array([int(float(v)) if abs(float(v)) < 2**62 else v for v in x.ravel().tolist()])
            .astype(x.dtype)
            .reshape(x.shape)
        )


def memory_order(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    return made.ravel(order="K").reshape(x.shape) if not x.flags.c_contiguous else made


def restored(x: Array, low: Limits, high: Limits) -> Array:
    old, x[...] = x.copy(), cut(x, low, high)
    made = x.copy()
    x[...] = old
    return made


def fails_empty(x: Array, low: Limits, high: Limits) -> Array:
    np.max(x)
    return cut(x, low, high)


def first_65536(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    if x.size > 65536:
        made.reshape(-1)[65536:] = x.reshape(-1)[65536:]
    return made


def alias_without_bounds(x: Any, lower: Any, upper: Any) -> Any:
    return value_leaf(x) if lower is None and upper is None else VALUE.clip(x, lower, upper)


def refuses_no_bounds(x: Any, lower: Any, upper: Any) -> Any:
    if lower is None and upper is None:
        raise ValueError("one bound is needed")
    return VALUE.clip(x, lower, upper)


LEAVES: list[tuple[str, Fn, str]] = [
    ("bool accepted", accepting("b", lambda a: a.astype(np.int8)).clip, "common mistake"),
    ("objects accepted", accepting("O", lambda a: a.astype(float)).clip, "common mistake"),
    ("complex accepted by real part", accepting("c", lambda a: a.real).clip, "numpy complex clip"),
    ("integers become float64", accepting("iu", lambda a: a.astype(float)).clip, "Keras int → float32"),
    ("integers refused", Value(leaf=only_floats).clip, "array-api#482"),
    ("int64 by way of float64", Value(cut=by_float64).clip, "numpy#24976"),
    ("byte order lost", Value(leaf=machine_order).clip, "byte order"),
    ("memory order", Value(cut=memory_order).clip, "numpy#11331"),
    ("input written and restored", Value(cut=restored).clip, "read-only inputs"),
    ("empty array fails", Value(cut=fails_empty).clip, "torchrec#3891"),
    ("first 65536 elements only", Value(cut=first_65536).clip, "common mistake"),
    ("0-d becomes a scalar", Value(cut=lambda x, a, b: cut(x, a, b)[()]).clip, "pytorch PR#32159"),
    ("0-d becomes 1-D", Value(cut=lambda x, a, b: np.atleast_1d(cut(x, a, b))).clip, "Opacus D23"),
    ("no bounds: the input", alias_without_bounds, "array-api-compat PR#382"),
    ("no bounds: an error", refuses_no_bounds, "dpctl#1489"),
]

# --- out= --------------------------------------------------------------------------------------


def out_ignored(x: Any, lower: Any, upper: Any, *, out: Any = None) -> Any:  # noqa: ARG001
    return VALUE.clip(x, lower, upper)


def out_half(x: Any, lower: Any, upper: Any, *, out: Any = None) -> Any:
    """In chunks, front to back: wrong where out overlaps x further on."""
    made = VALUE.clip(x, lower, upper)
    if out is None or out.ndim != 1:
        return made if out is None else _filled(out, made)
    for i in range(x.size):
        out[i] = (
            VALUE.clip(x[i : i + 1], lower, upper)[0] if np.ndim(lower) == np.ndim(upper) == 0 else made[i]
        )
    return out


def _filled(out: Any, made: Array) -> Any:
    if out.shape != made.shape or out.dtype != made.dtype or not out.flags.writeable:
        raise ValueError("out does not fit")
    out[...] = made
    return out


def out_before_checks(x: Any, lower: Any, upper: Any, *, out: Any = None) -> Any:
    if (
        out is not None
        and out.shape == np.shape(x)
        and out.dtype == x.dtype
        and not np.may_share_memory(out, x)
    ):
        out[...] = x
    made = VALUE.clip(x, lower, upper)
    return made if out is None else _filled(out, made)


def out_cast(x: Any, lower: Any, upper: Any, *, out: Any = None) -> Any:
    made = VALUE.clip(x, lower, upper)
    if out is None:
        return made
    np.copyto(out, made, casting="unsafe")
    return out


def out_not_returned(x: Any, lower: Any, upper: Any, *, out: Any = None) -> Any:
    made = VALUE.clip(x, lower, upper)
    if out is None:
        return made
    _filled(out, made)
    return made


OUTS: list[tuple[str, Fn, str]] = [
    ("out ignored", out_ignored, "out="),
    ("out overlapping, front to back", out_half, "out="),
    ("out written before the checks", out_before_checks, "out="),
    ("out cast and broadcast", out_cast, "out="),
    ("out written, another array returned", out_not_returned, "out="),
]

# --- weights -----------------------------------------------------------------------------------


def tree_with(change: Callable[[Any], Any]) -> Fn:
    return lambda tree, lower, upper: VALUE.tree(change(kept_tree(tree)), lower, upper)


def without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: without_none(v) for k, v in tree.items() if v is not None}
    if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
        return type(tree)([without_none(v) for v in tree if v is not None])
    return tree


def plain_tuples(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: plain_tuples(part) for key, part in tree.items()}
    parts = [plain_tuples(part) for part in tree] if isinstance(tree, (list, tuple)) else tree
    return tuple(parts) if isinstance(tree, tuple) else parts


def not_empty(tree: Any) -> Any:
    return flatten(tree)[0] and tree


def sure_of_leaves(tree: Any, lower: Any, upper: Any, *, where: Any = None) -> Any:
    """Leaves that are not wanted are not checked."""
    made = []
    for path, x in flatten(kept_tree(tree)):
        chosen = where is None or where(path, x)
        made.append(VALUE.clip(x, lower, upper) if chosen else np.array(x))
    return rebuild(kept_tree(tree), iter(made))


def lenient(x: Any) -> Array:
    return value_leaf(np.asarray(x)) if isinstance(x, (int, float)) else value_leaf(x)


WEIGHTS: list[tuple[str, Fn, str]] = [
    ("None dropped", tree_with(without_none), "optree none_is_leaf"),
    ("None fails", lambda t, a, b: VALUE.tree(rebuild_none(t), a, b), "udacity/deep-learning#43"),
    ("named tuples become tuples", tree_with(plain_tuples), "alf#448"),
    ("empty tree fails", tree_with(not_empty), "torch D28"),
    ("unwanted leaves not checked", sure_of_leaves, "contract: their type is still checked"),
    ("Python numbers accepted", Value(leaf=lenient).tree, "common mistake"),
    ("NaN becomes the upper bound", Value(cut=changed(isnan, upper_of)).tree, "tensorflow#43433"),
    ("crossing scalars", Value(check=no_check).tree, "numpy#18782"),
    ("uint8 bound wraps", Value(bound_when(foreign, wrapped), check=no_check).tree, "numpy#26759"),
    ("0-d becomes a scalar", Value(cut=lambda x, a, b: cut(x, a, b)[()]).tree, "pytorch PR#32159"),
]


def rebuild_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: rebuild_none(part) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
        return type(tree)([rebuild_none(part) for part in tree])
    if tree is None:
        raise AttributeError("NoneType has no attribute 'shape'")
    return tree


BUGS = [
    *(Bug(name, ONE, "robust", fn, thread) for name, fn, thread in LEAVES + OUTS),
    *(Bug(name, ALL, "robust", fn, thread) for name, fn, thread in WEIGHTS),
]
