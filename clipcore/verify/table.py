"""The table of law by implementation, and the smallest example of every law that was broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table

from clipcore.verify.form import leaves
from clipcore.verify.judge import Case
from clipcore.verify.laws import Violation
from clipcore.verify.run import IMPLEMENTATIONS, LAWS, Part

__all__ = ["examples", "table"]

SPELLED_OUT = 6  # elements of an array that an example shows one by one
MANY_LEAVES = 4  # of a tree that an example lists


def table(part: Part) -> Table:
    """Return the counts of one part, cases that broke the law of cases tried, a row for each law."""
    drawn = Table()
    drawn.add_column("law")
    for name in IMPLEMENTATIONS:
        drawn.add_column(name, justify="right")
    for law, (title, _) in LAWS.items():
        tallies = [part.tallies[law, name] for name in IMPLEMENTATIONS]
        if any(tally.tried for tally in tallies):
            drawn.add_row(title, *(f"{tally.broken:,} / {tally.tried:,}" for tally in tallies))
    return drawn


def examples(part: Part) -> Iterator[tuple[str, str, str]]:
    """Yield the implementation, the call and what is wrong, for every law that an implementation broke."""
    for (law, name), tally in part.tallies.items():
        if tally.smallest:
            case, violation = tally.smallest
            yield f"{LAWS[law][0]}, {name}", _call(case), _fault(violation)


def _call(case: Case) -> str:
    """Return a case as a call, its arrays spelled out where they are small, else with its label."""
    small = sum(x.size for x in leaves(case.tree)) <= SPELLED_OUT
    shown = [_short(value, small) for value in (case.tree, *case.arguments)]
    keywords = [f"{key}={value!r}" for key, value in case.keywords.items()]
    return f"{case.operation}({', '.join(shown + keywords)})" + ("" if small else f"  # {case.label}")


def _short(value: Any, small: bool) -> str:
    """Return a tree or an argument in short form."""
    if isinstance(value, np.ndarray):
        if not small or value.ndim > 1:
            return f"{value.dtype}{list(value.shape)}"
        return f"{value.dtype} [{', '.join(map(str, value))}]" if value.ndim else f"{value.dtype} {value}"
    if isinstance(value, dict | list | tuple) and len(leaves(value)) > MANY_LEAVES:
        return f"{len(leaves(value))} leaves"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_short(item, small)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item, small) for item in value) + "]"
    return str(value)


def _fault(violation: Violation) -> str:
    """Return what is wrong, with the evidence."""
    fault = violation.message
    if violation.expected is not None:
        fault += f": expected {violation.expected}, got {violation.got}"
    if violation.ulps is not None:
        fault += f", {violation.ulps:.3g} ulp away"
    return fault
