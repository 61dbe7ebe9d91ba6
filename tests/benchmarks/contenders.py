"""What is timed against what: the trees, clipcore, what a user would call instead, and the floor.

Each contender is a function of the limit, made for a tree that it may overwrite. Those of the
floor do no clipping: they read all elements, or multiply all of them in place, in as many
threads as clipcore may use, which no clip can beat.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from clipcore_backends import _numpy_measure, _threads
from clipcore_backends._numpy_pieces import pieces
from clipcore_backends._threads import in_threads

import clipcore

Leaves = list[np.ndarray[Any, Any]]
Run = Callable[[float], Any]


def gpt2_shapes() -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2, the small one: 124 million numbers."""
    width = 768
    block: list[tuple[int, ...]] = [
        (width,),
        (width,),
        (width, 3 * width),
        (3 * width,),
        (width, width),
        (width,),
        (width,),
        (width,),
        (width, 4 * width),
        (4 * width,),
        (4 * width, width),
        (width,),
    ]
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


TREES: dict[str, list[tuple[int, ...]]] = {
    "MLP, 6 leaves": [(64, 32), (32,), (32, 32), (32,), (32, 10), (10,)],
    "2,000 leaves of 1,000": [(1000,)] * 2000,
    "GPT-2, 148 leaves": gpt2_shapes(),
}


def drawn(shapes: list[tuple[int, ...]]) -> Leaves:
    """Gradients in float32, drawn anew."""
    rng = np.random.default_rng(20261124)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


@contextmanager
def numpy_alone() -> Iterator[None]:
    """Leave Numba out, as where it is not installed."""
    compiled = _numpy_measure.compiled_sum
    _numpy_measure.compiled_sum = lambda *_: None  # type: ignore[assignment]
    try:
        yield
    finally:
        _numpy_measure.compiled_sum = compiled


def without_numba(run: Run) -> Run:
    """The same call, with NumPy alone."""

    def alone(limit: float) -> Any:
        with numpy_alone():
            return run(limit)

    return alone


def has(module: str) -> bool:
    """Tell whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def in_place(leaves: Leaves) -> Run:
    """clipcore, on the arrays themselves."""
    return lambda limit: clipcore.clip_by_global_norm(leaves, limit, out=leaves)


def pure(leaves: Leaves) -> Run:
    """clipcore, to new arrays."""
    return lambda limit: clipcore.clip_by_global_norm(leaves, limit)


def norm(leaves: Leaves) -> Run:
    """clipcore's norm alone."""
    return lambda _limit: clipcore.global_norm(leaves)


def by_hand(leaves: Leaves) -> Run:
    """The loop that people write, in place."""

    def run(limit: float) -> None:
        total = math.sqrt(sum(float(np.vdot(x, x)) for x in leaves))
        factor = np.float32(limit / (total + 1e-6))
        if factor < 1:
            for x in leaves:
                np.multiply(x, factor, out=x)

    return run


def one_read(leaves: Leaves) -> Run:
    """The floor of a norm: float32 dot products."""
    parts = [piece for leaf in leaves for piece, _ in pieces(leaf, leaf)]
    size = sum(leaf.size for leaf in leaves)
    return lambda _limit: in_threads(lambda x: float(np.vdot(x, x)), parts, size)


def read_and_multiply(leaves: Leaves) -> Run:
    """The floor of a clip in place: one read, and one pass that multiplies."""
    read = one_read(leaves)
    parts = [piece for leaf in leaves for piece, _ in pieces(leaf, leaf)]
    size = sum(leaf.size for leaf in leaves)

    def run(limit: float) -> None:
        read(limit)
        in_threads(lambda x: np.multiply(x, np.float32(1), out=x), parts, size)

    return run


def torch_in_place(leaves: Leaves) -> Run:
    """torch's own, in place."""
    torch = importlib.import_module("torch")
    parameters = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in leaves]
    for parameter, x in zip(parameters, leaves, strict=True):
        parameter.grad = torch.from_numpy(x.copy())
    return lambda limit: torch.nn.utils.clip_grad_norm_(parameters, limit)


def clipcore_on_torch(leaves: Leaves) -> Run:
    """clipcore on tensors, in place."""
    torch = importlib.import_module("torch")
    tensors = [torch.from_numpy(x.copy()) for x in leaves]
    return lambda limit: clipcore.clip_by_global_norm(tensors, limit, out=tensors)


def _jitted(leaves: Leaves, clip: Callable[[Any, Any], Any]) -> Run:
    jax = importlib.import_module("jax")
    arrays = [jax.numpy.asarray(x) for x in leaves]
    compiled = jax.jit(clip)
    return lambda limit: jax.block_until_ready(compiled(arrays, limit))


def optax_jit(leaves: Leaves) -> Run:
    """optax inside jax.jit."""
    optax = importlib.import_module("optax")

    def clip(tree: Any, limit: Any) -> Any:
        return optax.clip_by_global_norm(limit).update(tree, optax.EmptyState())[0]

    return _jitted(leaves, clip)


def clipcore_jit(leaves: Leaves) -> Run:
    """clipcore inside jax.jit."""
    return _jitted(leaves, lambda tree, limit: clipcore.clip_by_global_norm(tree, limit)[0])


def tensorflow_eager(leaves: Leaves) -> Run:
    """TensorFlow's own."""
    tensorflow = importlib.import_module("tensorflow")
    tensors = [tensorflow.constant(x) for x in leaves]
    return lambda limit: tensorflow.clip_by_global_norm(tensors, limit)


def one_thread(maker: Callable[[Leaves], Run]) -> Callable[[Leaves], Run]:
    """The same in one thread."""

    def make(leaves: Leaves) -> Run:
        run = maker(leaves)

        def single(limit: float) -> Any:
            cores = _threads.cores
            _threads.cores = lambda: 1
            try:
                return run(limit)
            finally:
                _threads.cores = cores

        return single

    return make


def value_clips() -> list[tuple[str, Callable[[Leaves], Run], Callable[[Leaves], Run]]]:
    """Value and weight clips with `out=`, each with ``np.clip(out=)``."""

    def pair(
        name: str, clip: Callable[..., Any], lower: float, upper: float
    ) -> tuple[str, Callable[[Leaves], Run], Callable[[Leaves], Run]]:
        def ours(leaves: Leaves) -> Run:
            out = np.empty_like(leaves[0])
            return lambda _limit: clip(leaves[0], lower, upper, out=out)

        def numpy(leaves: Leaves) -> Run:
            out = np.empty_like(leaves[0])
            return lambda _limit: np.clip(leaves[0], np.float32(lower), np.float32(upper), out=out)

        return name, ours, numpy

    return [
        pair("16 Mi float32: `clip_by_value(out=)`", clipcore.clip_by_value, -0.5, 0.5),
        pair("16 Mi float32: `clip_weights(out=)`", clipcore.clip_weights, -0.01, 0.01),
        pair("16 Mi float32: `clip_by_value(out=)`, a bound of zero", clipcore.clip_by_value, 0.0, 0.5),
    ]


def of_layout(clip: str, layout: str, dtype: str) -> tuple[Callable[[Leaves], Run], Callable[[Leaves], Run]]:
    """An L2 clip of one array of a dtype and layout, and the formula by hand."""
    axis = 1 if layout == "axis=1" else None

    def array(leaves: Leaves) -> np.ndarray[Any, Any]:
        wide = leaves[0].astype(dtype)
        return np.repeat(wide, 2, axis=1)[:, ::2] if layout == "every other element" else wide

    def share(limit: float, x: np.ndarray[Any, Any]) -> float:
        return limit / math.sqrt(len(x)) if axis == 1 else limit

    def ours(leaves: Leaves) -> Run:
        x = array(leaves)
        out = x if clip == "in place" else None
        return lambda limit: clipcore.clip_by_l2_norm(x, share(limit, x), axis=axis, out=out)

    def hand(leaves: Leaves) -> Run:
        x = array(leaves)
        out = x if clip == "in place" else None

        def run(limit: float) -> Any:
            norm = np.sqrt(
                np.sum(
                    np.square(x, dtype=np.float32 if dtype == "float16" else None), axis=axis, keepdims=True
                )
            )
            return np.multiply(x, np.minimum(1, share(limit, x) / (norm + 1e-6)).astype(dtype), out=out)

        return run

    return ours, hand
