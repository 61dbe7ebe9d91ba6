"""Print the first table of the README, what clips do to 300 random vectors: python docs/first_look.py.

A line for each clip that is installed, counted by exact arithmetic. With `--large` it measures norms of 2^27
standard normals instead, which takes 2 GiB.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.subjects import ready_made, version_of

CLIPS: Final = (
    "by-hand",
    "torch.clip_grad_norm_",
    "optax.clip_by_global_norm",
    "tf.clip_by_global_norm",
    "keras[tensorflow].global_clipnorm",
    "mlx.clip_grad_norm",
    "paddle.clip_grad_norm_",
    "clipcore",
)
VECTORS: Final = (10 * np.random.default_rng(2).standard_normal((300, 10))).astype(np.float32)
HEAD: Final = (
    "| clip by the global norm, to 1 | longer than the limit | other bits when clipped twice "
    "| float32 `[1e30, 1e30]` | float16 `[300] * 4` |\n| --- | ---: | ---: | --- | --- |"
)


def exact_square(x: Any) -> Fraction:
    """Return the square of the norm, without any rounding."""
    return sum((Fraction(float(number)) ** 2 for number in x), Fraction(0))


def became(x: Any) -> str:
    """Say what a vector of finite numbers became that should have norm 1."""
    if x is None:
        return "refused"
    if np.isnan(x).any():
        return "NaN"
    if not x.any():
        return "zeros"
    length = float(exact_square(x)) ** 0.5
    return "clipped" if abs(length - 1) < 0.01 else f"norm {length:.3g}"


def line(name: str, clip: Callable[[Any], Any]) -> str:
    """Return the row of one clip to 1."""
    once = [clip(x) for x in VECTORS]
    longer = sum(exact_square(x) > 1 for x in once)
    other = sum(clip(x).tobytes() != x.tobytes() for x in once)
    large, half = clip(np.array([1e30, 1e30], np.float32)), clip(np.array([300.0] * 4, np.float16))
    return f"| {name} | {longer} of 300 | {other} of 300 | {became(large)} | {became(half)} |"


def first_leaf(result: Any) -> Any:
    """Return the vector of a result, which is a tree, or a tree and its norm; None where there is none."""
    while result is not None and not isinstance(result, np.ndarray):
        result = result[0]
    return result


def show(name: str) -> None:
    """Print the row of one clip, if it is installed."""
    (subject,) = [s for s in ready_made() if (s.name, s.operation) == (name, "clip_by_global_norm")]
    if any(importlib.util.find_spec(each) is None for each in subject.needs):
        return
    with subject.build().opened() as callee, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = f" {version_of(subject)}" if name != "by-hand" else ", the usual loop"
        print(line(name + version, lambda x: first_leaf(callee.observe([x], (1.0,)).result)))


def exact_norm(x: Any, order: int) -> float:
    """Return the norm of float32 numbers: their squares are float64, and `math.fsum` rounds a sum once."""
    pieces = (abs(piece.astype(np.float64)) ** order for piece in np.split(x, len(x) >> 20))
    return math.fsum(math.fsum(piece.tolist()) for piece in pieces) ** (1 / order)


def show_large() -> None:
    """Print how far off norms of 2^27 standard normals are."""
    x = np.random.default_rng(0).standard_normal(2**27, dtype=np.float32)
    torch = importlib.import_module("torch")
    for order in (1, 2):
        off = abs(float(torch.linalg.vector_norm(torch.from_numpy(x), order)) / exact_norm(x, order) - 1)
        print(f"torch {torch.__version__}, L{order} norm of 2^27 standard normals: {off:.1%} off")


if __name__ == "__main__":
    if sys.argv[1:] == ["--large"]:
        show_large()
    elif sys.argv[1:]:
        show(sys.argv[1])
    else:
        print(HEAD, flush=True)
        for clip in CLIPS:  # each in a process of its own: two frameworks in one may crash
            subprocess.run([sys.executable, __file__, clip], check=True, stderr=subprocess.DEVNULL)
