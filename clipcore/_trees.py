"""Trees of arrays: flatten them, name their leaves, put them together again."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import optree
from clipcore_backends import DeviceEngine

from clipcore._dispatch import (
    advice_for,
    are_tensors,
    device_engine_of,
    has_known_shape,
    is_array,
    is_distributed,
    library_of,
)
from clipcore._messages import shown
from clipcore._typing import Array, Tree

__all__ = ["Flat", "flatten", "flatten_array", "leaf_name"]

Path = tuple[Any, ...]


class Flat:
    """The leaves of a tree, with what it takes to rebuild it and to name them."""

    def __init__(self, tree: Tree, root: str) -> None:
        self.root = root
        self.tree = tree
        self.leaves: list[Array]
        self.leaves, self.spec = optree.tree_flatten(self.tree)
        self._paths: list[Path] | None = None
        self.library = "numpy"
        """The one library of the leaves, as `flatten` finds it."""
        self.own = True
        """Whether the leaves are the tree's own, none of them an array in the place of a scalar."""
        self._seen: Any = None

    @property
    def paths(self) -> list[Path]:
        """The path of each leaf, a tuple of keys and indices."""
        if self._paths is None:
            self._paths = list(optree.tree_paths(self.tree))
        return self._paths

    def name(self, index: int) -> str:
        """Return how a user would write the leaf of that index."""
        return leaf_name(self.root, self.paths[index])

    @property
    def seen(self) -> Any:
        """What the device engine of the library has to know of the leaves."""
        if self._seen is None:
            engine = device_engine_of(self.library)
            self._seen = None if engine is None else engine.look(self.leaves)
        return self._seen

    @property
    def device_engine(self) -> DeviceEngine | None:
        """The engine that serves the leaves on their device; None without one, or on several devices."""
        engine = device_engine_of(self.library) if self.leaves else None
        return engine if engine is not None and self.seen.on_one_device else None

    def viewed(self, leaves: list[Array]) -> "Flat":
        """Return the same tree with other arrays for its leaves."""
        return self._with(leaves=leaves, _seen=None)

    def as_out(self) -> "Flat":
        """Return the tree as `out`, named so unless the caller has a word of its own, such as gradients."""
        return self._with(root="out") if self.root in ("tree", "x") else self

    def _with(self, **changed: Any) -> "Flat":
        other = object.__new__(Flat)
        other.__dict__ = {**self.__dict__, **changed}
        return other

    def rebuild(self, leaves: Iterable[Array]) -> Tree:
        """Return a tree of the same containers with other leaves."""
        return optree.tree_unflatten(self.spec, leaves)


def leaf_name(root: str, path: Path) -> str:
    """Return how a user would write a leaf, as in ``tree['layers'][0]``."""
    return root + "".join(f"[{key!r}]" for key in path)


def flatten(function: str, tree: Tree, root: str = "tree") -> Flat:
    """Flatten a tree whose leaves are arrays of one library.

    Raises
    ------
    TypeError
        If a leaf is not an array, or leaves are of different libraries.
    """
    # A generator can be read once only: from here on it is a list.
    flat = Flat(list(tree) if isinstance(tree, Iterator) else tree, root)
    kinds = set(map(type, flat.leaves))
    if kinds == {np.ndarray}:
        return flat
    if are_tensors(flat.leaves):
        flat.library = "torch"
        return flat
    if len(kinds) == 1 and is_array(flat.leaves[0]) and library_of(flat.leaves[0]) == "cupy":
        flat.library = "cupy"  # of which the type says all
        return flat
    libraries: dict[str, int] = {}
    types: set[type] = set()
    for index, leaf in enumerate(flat.leaves):
        if not is_array(leaf):
            raise TypeError(
                f"{function}: {flat.name(index)} is {_described(leaf)}, or None to leave the place empty"
            )
        if isinstance(leaf, (np.generic, np.memmap)):
            flat.own = False
            flat.leaves[index] = leaf.view(np.ndarray) if isinstance(leaf, np.memmap) else np.asarray(leaf)
        if type(leaf) not in types:
            types.add(type(leaf))
            libraries.setdefault(library_of(leaf), index)
    if len(libraries) > 1:
        (one, i), (other, j) = list(libraries.items())[:2]
        raise TypeError(
            f"{function}: {flat.name(i)} is an array of {one} and {flat.name(j)} one of {other}; "
            "convert all leaves to one library"
        )
    flat.library = next(iter(libraries), "numpy")
    for index, leaf in enumerate(flat.leaves if flat.library not in ("numpy", "torch") else ()):
        if not has_known_shape(leaf):
            raise ValueError(
                f"{function}: {flat.name(index)} has the shape {leaf.shape}, which is not known in full; "
                "make it known first, as tf.ensure_shape and dask's compute_chunk_sizes do"
            )
    if flat.library == "ndonnx":
        raise TypeError(
            f"{function}: {flat.name(0)} is an array of ndonnx, whose where() loses signs of zeros; "
            "clip arrays of NumPy, or write the formula into the graph by hand"
        )
    return flat


def flatten_array(function: str, x: Array) -> Flat:
    """Return one array as a tree that is a leaf.

    Raises
    ------
    TypeError
        If `x` is not an array.
    """
    if not is_array(x):
        raise TypeError(f"{function}: x is {_described(x)}")
    return flatten(function, x, "x")


def _described(value: object) -> str:
    kind = f"{shown(value)} of type {_type_name(value)}"
    if isinstance(value, np.ndarray):
        return f"{kind}, whose meaning would be lost; give its plain data, as numpy.asarray returns it"
    if is_distributed(value):
        return f"{kind}, which lies on many ranks; give this rank's part, to_local(), and all_reduce="
    return f"{kind}, not an array; {advice_for(value)}"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
