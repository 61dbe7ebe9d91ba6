"""What the tests of the verification kit share: an exact description of a call, and all the kit's cases."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipcore.verify import Report, verify
from clipcore.verify.calling import Drawn
from clipcore.verify.form import walk
from clipcore.verify.formulas import FORMULAS
from clipcore.verify.judge import Case
from clipcore.verify.report import Level
from clipcore.verify.trials import Plan

Array = np.ndarray[Any, np.dtype[Any]]
L2 = "clip_by_l2_norm"
KEYWORDS = frozenset({"axis", "ord", "nonfinite", "out", "where"})
PATHS: list[tuple[tuple[Any, ...], float]] = [
    (("kernel",), 1.0),
    (("layer", "kernel"), 1.0),
    (("layer", "bias"), 1.0),
    (("rest", 0), 1.0),
    (("rest", 1), 1.0),
]


@dataclass(frozen=True)
class Written:
    """Everything about an array that a function can see, its numbers by their bits."""

    dtype: str
    shape: tuple[int, ...]
    content: Any
    steps: tuple[int, ...]
    writable: bool
    order: tuple[bool, bool]


def named(dtype: np.dtype[Any]) -> str:
    """The dtype with its byte order; that of bfloat16 has no name of its own in `str`."""
    return dtype.str if dtype.kind != "V" else dtype.name


def content(x: Array) -> Any:
    """The numbers by their bits; of a long double not the padding; of a NaN only that it is one."""
    if x.dtype.kind == "O" or x.dtype == np.longdouble != np.float64:
        return [repr(value) for value in x.reshape(-1).tolist()]
    return x.tobytes()


def described(value: Any) -> Any:
    """A description that is equal for two values exactly where no function can tell them apart."""
    if isinstance(value, np.ndarray):
        steps = [0 if n < 2 else int(np.sign(s)) for s, n in zip(value.strides, value.shape, strict=True)]
        order = (value.flags.c_contiguous, value.flags.f_contiguous)
        shown = tuple(steps) if value.size > 1 else ()
        return Written(named(value.dtype), value.shape, content(value), shown, value.flags.writeable, order)
    if isinstance(value, np.generic):
        return "scalar", named(value.dtype), content(np.asarray(value))
    if isinstance(value, Drawn):
        return "drawn", [described(item) for item in value]
    if isinstance(value, dict):
        return "dict", [(key, described(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        fields = getattr(value, "_fields", ())
        return "tuple" if isinstance(value, tuple) else "list", fields, [described(item) for item in value]
    if callable(value):
        return "where", [value(path, leaf) for path, leaf in PATHS]
    return type(value).__name__, value.hex() if isinstance(value, float) else value


def called(code: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a snippet passes to `fn`: its first argument, a generator's items as `Drawn`, and the others."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def fn(tree: Any, *arguments: Any, **keywords: Any) -> None:
        calls.append((Drawn(tree) if isinstance(tree, Iterator) else tree, arguments, keywords))

    exec(code, {"fn": fn})
    [call] = calls
    return call


def all_cases(operation: str, level: Level, dtypes: tuple[str, ...], examples: int = 0) -> Iterator[Case]:
    """All cases of a level for a function that takes every keyword, those of too many elements left out."""
    plan = Plan(operation, FORMULAS["contract"], "numpy", KEYWORDS, dtypes, 0, examples, {})
    for trial in plan.trials(level):
        if all(np.size(leaf) <= 5000 for _, leaf in walk(trial.case.tree)):
            yield trial.case


def described_case(case: Case) -> Any:
    return described(case.tree), described(list(case.arguments)), described(case.keywords)


def wrapping(operation: str, change: Callable[[Any], Any]) -> Callable[..., Any]:
    """clipcore's own function, its result changed."""
    fn = getattr(importlib.import_module("clipcore"), operation)
    return lambda *arguments: change(fn(*arguments))


def quick(fn: Any, operation: str = L2, **options: Any) -> Report:
    """A verification of float32 at level rounded, without random cases, unless told otherwise."""
    return verify(fn, operation, **{"level": "rounded", "dtypes": ["float32"], "max_examples": 0, **options})


def failed(report: Report) -> set[tuple[str, str]]:
    return {(each.law, each.level) for each in report.findings if each.verdict == "fail"}


def by_torch(x: Array, limit: float) -> Array:
    wide = x.astype(np.float64)
    return (wide * min(1.0, limit / (float(np.sqrt((wide * wide).sum())) + 1e-6))).astype(x.dtype)
