"""Running the laws over several implementations, and counting what breaks."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

import clipcore
from clipcore.verify.cases import cases
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, is_complex
from clipcore.verify.handwritten import HANDWRITTEN
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, judge
from clipcore.verify.laws import Violation, approximate

__all__ = ["IMPLEMENTATIONS", "LAWS", "REFERENCE", "Part", "Tally", "aimed", "own"]

Implementation = dict[str, Callable[..., Any]]

REFERENCE: Final = "clipcore"
OPERATIONS: Final = (*VALUE_CLIPS, *NORM_CLIPS, *NORMS)
IMPLEMENTATIONS: Final[dict[str, Implementation]] = {
    REFERENCE: {name: getattr(clipcore, name) for name in OPERATIONS},
    "by hand": HANDWRITTEN,
}
"""What is judged, a column of the table each: the functions by operation."""

CLIPS: Final = (*VALUE_CLIPS, *NORM_CLIPS)
LAWS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "bound": ("1 bound", CLIPS),
    "identity": ("2 identity", CLIPS),
    "tightness": ("3 tightness", CLIPS),
    "direction": ("4 direction", tuple(NORM_CLIPS)),
    "idempotence": ("5 idempotence", CLIPS),
    "scale": ("6 scale", tuple(NORM_CLIPS)),
    "norm": ("7 norm", ("clip_by_global_norm", *NORMS)),
    "range": ("8 range", CLIPS),
    "form": ("9 form", OPERATIONS),
    "nonfinite": ("NaN and inf", CLIPS),
    "call": ("no exception", OPERATIONS),
}
"""Title of every law, and the operations that it judges."""

FLOATING: Final = ("float16", "float32", "float64")
DTYPES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(VALUE_CLIPS, (*FLOATING, "int32")),
    **dict.fromkeys((*NORM_CLIPS, *NORMS), (*FLOATING, "complex64", "complex128")),
}
LARGEST: Final = 10_000  # elements of an aimed case; larger ones would take most of the time
AROUND: Final = 5  # limits around a norm


@dataclass
class Tally:
    """What is known of one law and one implementation.

    Attributes
    ----------
    tried, broken : int
        Number of cases, and of those that broke the law.
    smallest : tuple of (Case, Violation) or None
        The case with the fewest elements among those that broke it.
    """

    tried: int = 0
    broken: int = 0
    smallest: tuple[Case, Violation] | None = None


@dataclass
class Part:
    """Some cases, and what came of those judged so far.

    Attributes
    ----------
    title : str
        What the cases have in common.
    cases : iterable of Case
        The cases, to be taken once.
    count : int
        How many they are.
    tallies : dict
        The counts for every law and implementation.
    """

    title: str
    cases: Iterable[Case]
    count: int
    tallies: dict[tuple[str, str], Tally] = field(
        default_factory=lambda: {pair: Tally() for pair in itertools.product(LAWS, IMPLEMENTATIONS)}
    )

    def judge(self, case: Case) -> None:
        """Judge every implementation by one case; one that lacks the function or a keyword is passed over."""
        for name, functions in IMPLEMENTATIONS.items():
            fn = functions.get(case.operation)
            if fn is None or not case.keywords.keys() <= inspect.signature(fn).parameters.keys():
                continue
            with np.errstate(all="ignore"):
                found = {violation.law: violation for violation in reversed(judge(fn, case))}
            tried = {law for law, (_, operations) in LAWS.items() if case.operation in operations}
            for law in tried | found.keys():
                self._count(self.tallies[law, name], case, found.get(law))

    @staticmethod
    def _count(tally: Tally, case: Case, violation: Violation | None) -> None:
        """Add one case to a tally."""
        tally.tried += 1
        if violation:
            tally.broken += 1
            if tally.smallest is None or _size(case) < _size(tally.smallest[0]):
                tally.smallest = case, violation

    @property
    def holds(self) -> bool:
        """Whether clipcore broke no law."""
        return not any(tally.broken for (_, name), tally in self.tallies.items() if name == REFERENCE)


def _elements(case: Case) -> int:
    """Return how many elements a case has."""
    return sum(x.size for x in leaves(case.tree))


def _size(case: Case) -> tuple[bool, int, int]:
    """Return what makes a case small to a reader: real numbers, few elements, few words."""
    return any(is_complex(x.dtype) for x in leaves(case.tree)), _elements(case), len(str(case))


def aimed(seed: int, examples: int) -> Part:
    """Return the cases that aim at trouble.

    Parameters
    ----------
    seed : int
        Where their random parts come from.
    examples : int
        How many cases for every operation and dtype.

    Returns
    -------
    Part
        The same cases for the same seed.
    """
    count = examples * sum(map(len, DTYPES.values()))
    return Part(f"aimed cases, seed {seed}", _aimed_cases(seed, examples), count)


def own(path: str, arrays: dict[str, Array]) -> Part:
    """Return cases made of someone's own finite arrays, with limits around their norms.

    Parameters
    ----------
    path : str
        Where they come from.
    arrays : dict
        Floating or complex arrays by name; for the global norm all of them are one tree.

    Returns
    -------
    Part
        Every array under every function that takes it, the tree under the functions of trees.
    """
    real = sum(not is_complex(x.dtype) for x in arrays.values())
    count = (len(arrays) * 2 + 1) * (AROUND + 1) + real
    noun = "array" if len(arrays) == 1 else "arrays"
    return Part(f"{len(arrays)} {noun} of {path}", _own_cases(arrays), count)


def _aimed_cases(seed: int, examples: int) -> Iterator[Case]:
    """Yield the cases that aim at trouble, `examples` for every operation and dtype."""
    for operation, dtypes in DTYPES.items():
        for dtype in dtypes:
            made = cases(operation, np.dtype(dtype), seed, 2 * examples)
            small = (case for case in made if _elements(case) <= LARGEST)
            yield from itertools.islice(small, examples)


def _own_cases(arrays: dict[str, Array]) -> Iterator[Case]:
    """Yield every array under every function that takes it, all of them under the functions of trees."""
    for name, x in arrays.items():
        for operation, order in (("clip_by_l1_norm", 1), ("clip_by_l2_norm", 2)):
            yield from _around(operation, name, x, order)
            yield Case(operation.removeprefix("clip_by_"), name, x)
        if not is_complex(x.dtype):
            half = float(np.max(np.abs(x), initial=0)) / 2
            yield Case("clip_by_value", name, x, (-half, half))
    yield from _around("clip_by_global_norm", "all arrays", arrays, 2)
    yield Case("global_norm", "all arrays", arrays)


def _around(operation: str, label: str, tree: Any, order: float) -> Iterator[Case]:
    """Yield a norm clip with limits at the norm, just below and above it, half and twice it."""
    norm = approximate(exact_norm(leaves(tree), order).bounds()[0])
    for limit in (norm / 2, math.nextafter(norm, 0), norm, math.nextafter(norm, math.inf), 2 * norm):
        yield Case(operation, label, tree, (limit,))
