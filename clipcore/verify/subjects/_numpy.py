"""The formulas most people write by hand, on NumPy."""

from __future__ import annotations

from clipcore.verify.handwritten import HANDWRITTEN
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import ReadyMade

__all__ = ["SUBJECTS"]


def _by_hand(operation: str) -> ReadyMade:
    """Return the subject of one operation."""
    by_norm = operation.endswith("_norm")
    return ReadyMade(
        name="by-hand",
        operation=operation,
        definition="torch" if by_norm else "contract",
        needs=("numpy",),
        distribution="numpy",
        build=lambda: Subject(HANDWRITTEN[operation]),
        note="The formula most people write with NumPy"
        + (", with 1e-6 added to the norm." if by_norm else ": `numpy.clip`."),
    )


SUBJECTS = tuple(map(_by_hand, HANDWRITTEN))
