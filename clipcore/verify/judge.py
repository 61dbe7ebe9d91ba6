"""One implementation, one case, all the laws.

The implementation is always an argument: ours, a reference in a test, a mutant or a stranger's.  It is called
as the public function of that name is, and whatever it does becomes a violation or none; an exception too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from clipcore.verify.form import form, leaves, rebuild, unwritten, value_laws, walk
from clipcore.verify.formats import Array
from clipcore.verify.laws import (
    GROUP_LAWS,
    Group,
    Violation,
    idempotence,
    norm_accuracy,
    scale,
    scaled_by,
    scales,
)

__all__ = ["NORMS", "NORM_CLIPS", "POWERS", "VALUE_CLIPS", "Case", "judge", "split"]

NORM_CLIPS: Final = {"clip_by_l1_norm": 1, "clip_by_l2_norm": 2, "clip_by_global_norm": 2}
VALUE_CLIPS: Final = ("clip_by_value", "clip_weights")
NORMS: Final = {"l1_norm": 1, "l2_norm": 2, "global_norm": 2}
POWERS: Final = (
    -7,
    1,
    60,
)  # the powers of two that law 6 is tried with, where nothing leaves the normal range


@dataclass(frozen=True)
class Case:
    """One call to judge: what to pass to which function.

    Attributes
    ----------
    operation : str
        Name of the public function.
    label : str
        What is special about it, for people to read.
    tree : object
        First argument: an array, or for the functions of trees a nested container of them.
    arguments : tuple
        The other positional arguments: `(max_norm,)`, `(lower, upper)` or none.
    keywords : dict
        `axis`, `ord` or `where`, where they are not the default.
    """

    operation: str
    label: str
    tree: Any
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    def call(self, fn: Callable[..., Any]) -> Any:
        """Call an implementation with this case."""
        return fn(self.tree, *self.arguments, **self.keywords)

    def __str__(self) -> str:
        arrays = ", ".join(f"{x.dtype.name}{list(x.shape)}" for x in leaves(self.tree))
        return f"{self.operation}({arrays}; {self.arguments}, {self.keywords}): {self.label}"


def judge(fn: Callable[..., Any], case: Case) -> list[Violation]:
    """Return every violation of the contract by one call, and by the further calls that its laws need.

    Parameters
    ----------
    fn : callable
        Implementation of `case.operation`, called as the public function is.
    case : Case
        What to call it with; arrays that `fn` writes to are restored.

    Returns
    -------
    list of Violation
        Empty where every law holds.
    """

    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return fn(*arguments, **keywords)
        except Exception as error:  # whatever a stranger's code raises is about that code
            raise _CallError from error

    passed = [case.tree, *case.arguments]
    before = [np.array(x) for x in leaves(passed)]
    found: list[Violation] = []
    try:
        found.extend(_violations(guarded, case))
    except _CallError as raised:
        error = raised.__cause__
        found.append(Violation("call", f"raised {type(error).__name__}: {error}", got=error))
    written = unwritten(before, passed)
    if written:
        found.append(written)
        for x, copy in zip(leaves(passed), before, strict=True):
            if x.flags.writeable:
                x[...] = copy
    return found


class _CallError(Exception):
    """The judged function raised; its cause says what."""


def _violations(fn: Callable[..., Any], case: Case) -> Iterator[Violation]:
    """Yield the violations of one case, by kind of function."""
    untouched = rebuild(case.tree, iter([np.array(x) for x in leaves(case.tree)]))
    result = case.call(fn)
    if case.operation in NORMS:
        yield from _of_norm(fn, replace(case, tree=untouched), result)
        return
    norm = None
    if case.operation == "clip_by_global_norm" and isinstance(result, tuple):
        result, norm = result
        yield from _of_scalar_norm(leaves(untouched), _order(case), norm)
    misshapen = form(case.tree, result)
    case = replace(case, tree=untouched)
    if misshapen:
        yield misshapen
        return
    if case.operation in VALUE_CLIPS:
        yield from _of_value_clip(case, result)
    else:
        yield from _of_norm_clip(fn, case, result)
    twice = _clipped(fn, replace(case, tree=result))
    yield from _present([form(result, twice) or idempotence(leaves(result), leaves(twice))])


def _of_value_clip(case: Case, result: Any) -> Iterator[Violation]:
    """Yield the violations of a value or weight clip that came back in the right form."""
    for (path, x), y in zip(walk(case.tree), leaves(result), strict=True):
        chosen = case.keywords.get("where", lambda _path, _leaf: True)(path, x)
        lower, upper = case.arguments if chosen else (None, None)
        yield from _present([value_laws(x, lower, upper, y)])


def _of_norm_clip(fn: Callable[..., Any], case: Case, result: Any) -> Iterator[Violation]:
    """Yield the violations of a norm clip that came back in the right form."""
    before, after = leaves(case.tree), leaves(result)
    groups = list(_groups(case, before, after))
    for group in groups:
        yield from _present([law(group) for law in GROUP_LAWS])
    for power in POWERS:
        if not all(scales(group, power) for group in groups):
            continue
        tree = rebuild(case.tree, (scaled_by(x, power) for x in before))
        limit = math.ldexp(case.arguments[0], power)
        scaled = _clipped(fn, replace(case, tree=tree, arguments=(limit,)))
        misshapen = form(tree, scaled)
        if misshapen:
            yield misshapen
        else:
            pairs = zip(groups, _groups(case, before, leaves(scaled)), strict=True)
            yield from _present([scale(group, power, other.results) for group, other in pairs])


def _of_norm(fn: Callable[..., Any], case: Case, result: Any) -> Iterator[Violation]:
    """Yield the violations of a norm function: accuracy, whatever the order of the elements."""
    order = _order(case)
    if case.operation == "global_norm" or case.keywords.get("axis") is None:
        yield from _of_scalar_norm(leaves(case.tree), order, result)
        backwards = rebuild(case.tree, (x.reshape(-1)[::-1] for x in leaves(case.tree)))
        again = replace(case, tree=backwards).call(fn)
        yield from _of_scalar_norm(leaves(case.tree), order, again)
        return
    slices = split(case.tree, case.keywords["axis"])
    shape = np.zeros(case.tree.shape, dtype=bool).any(axis=case.keywords["axis"]).shape
    if not isinstance(result, np.ndarray) or result.shape != shape or result.dtype != np.float64:
        yield Violation("form", f"norms are a float64 ndarray of shape {shape}", got=type(result))
        return
    for part, norm in zip(slices, result.reshape(-1, 1), strict=True):
        yield from _present([norm_accuracy([part], order, norm)])


def _of_scalar_norm(arrays: Sequence[Array], order: float, norm: Any) -> Iterator[Violation]:
    """Yield the violations of one norm: its form and its accuracy."""
    if not isinstance(norm, np.ndarray) or norm.shape != () or norm.dtype != np.float64:
        yield Violation("form", "a norm is a 0-d float64 ndarray", got=type(norm))
    else:
        yield from _present([norm_accuracy(arrays, order, norm)])


def _clipped(fn: Callable[..., Any], case: Case) -> Any:
    """Return what a clip gives, without the norm."""
    result = case.call(fn)
    return result[0] if case.operation == "clip_by_global_norm" and isinstance(result, tuple) else result


def _order(case: Case) -> float:
    """Return the order of the norm that a case is about."""
    default = {**NORM_CLIPS, **NORMS}[case.operation]
    return float(case.keywords.get("ord", default))


def _groups(case: Case, before: Sequence[Array], after: Sequence[Array]) -> Iterator[Group]:
    """Yield the norm groups of a case: the whole tree, or the slices of its one array."""
    limit, order = float(case.arguments[0]), _order(case)
    axis = case.keywords.get("axis")
    if axis is None:
        yield Group(tuple(before), tuple(after), limit, order)
        return
    for x, y in zip(split(before[0], axis), split(after[0], axis), strict=True):
        yield Group((x,), (y,), limit, order)


def split(x: Array, axis: int | tuple[int, ...]) -> list[Array]:
    """Return the slices of an array that share a norm when `axis` is reduced over, in C order."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    kept = moved.shape[: x.ndim - len(axes)]
    return [moved[index].reshape(-1) for index in np.ndindex(kept)]


def _present(found: Sequence[Violation | None]) -> list[Violation]:
    """Return the violations among the verdicts."""
    return [violation for violation in found if violation]
