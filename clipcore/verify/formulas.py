"""What the frameworks mean by clipping: their formulas, evaluated without rounding.

Numbers here are extended reals: fractions, and floats for infinities and NaN, which combine as IEEE 754 says.
A framework that follows another formula than the contract's differs by definition; it has no bug for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

__all__ = ["FORMULAS", "Extended", "Formula", "extended", "formula_named"]

Extended: TypeAlias = Fraction | float
Element: TypeAlias = Callable[[Extended], Extended]
Rule: TypeAlias = Callable[[Extended, Extended], Element]

ONE: Final = Fraction(1)


def extended(value: Any) -> Extended:
    """Return a number exactly; an infinity or a NaN as a float."""
    number = float(value) if not isinstance(value, Fraction) else value
    return Fraction(number) if math.isfinite(number) else number


def _times(a: Extended, b: Extended) -> Extended:
    """Return a · b; zero times infinity is NaN."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _sign(a) * _sign(b) * math.inf


def _sign(a: Extended) -> float:
    """Return 1, 0 or −1; NaN of a NaN."""
    return math.nan if a != a else float((a > 0) - (a < 0))


def _over(a: Extended, b: Extended) -> Extended:
    """Return a / b; by +0 where b is zero."""
    if isinstance(b, float):
        return math.nan if isinstance(a, float) or b != b else Fraction(0)
    if b == 0:
        return math.nan if a == 0 else _sign(a) * math.inf
    return a / b if isinstance(a, Fraction) else _times(a, b)


def _plus(a: Extended, b: Extended) -> Extended:
    """Return a + b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    return (
        math.nan
        if a != a or b != b or (isinstance(a, float) and a == -b)
        else a
        if isinstance(a, float)
        else b
    )


def _least(a: Extended, b: Extended) -> Extended:
    """Return the smaller of two; NaN where one is."""
    return math.nan if a != a or b != b else min(a, b)


def _most(a: Extended, b: Extended) -> Extended:
    """Return the larger of two; NaN where one is."""
    return math.nan if a != a or b != b else max(a, b)


def _scaling(factor: Callable[[Extended, Extended], Extended]) -> Rule:
    """Return the rule x · factor(‖x‖, C)."""

    def rule(norm: Extended, limit: Extended) -> Element:
        scale = factor(norm, limit)
        return lambda x: _times(x, scale)

    return rule


def _contract(norm: Extended, limit: Extended) -> Element:
    """Return x · min(1, C/‖x‖), NaN where the norm is not finite, x where C is infinite."""
    if limit == math.inf or norm <= limit:
        return lambda x: x
    return lambda x: math.nan if isinstance(norm, float) else _over(_times(x, limit), norm)


def _with_epsilon(epsilon: Fraction) -> Rule:
    """Return the rule x · min(1, C/(‖x‖ + epsilon))."""
    return _scaling(lambda norm, limit: _least(ONE, _over(limit, _plus(norm, epsilon))))


def _strictly_below(norm: Extended, limit: Extended) -> Element:
    """Return x where ‖x‖ < C, else x/‖x‖·C."""
    return (lambda x: x) if norm < limit else lambda x: _times(_over(x, norm), limit)


def _over_larger(norm: Extended, limit: Extended) -> Element:
    """Return x·C / max(‖x‖, C)."""
    larger = _most(norm, limit)
    return lambda x: _over(_times(x, limit), larger)


def _smaller_reciprocal(norm: Extended, limit: Extended) -> Extended:
    """Return C·min(1/‖x‖, 1/C) + (‖x‖ − ‖x‖), the factor that makes NaN of every non-finite norm."""
    factor = _times(limit, _least(_over(ONE, norm), _over(ONE, limit)))
    return _plus(factor, Fraction(0) if isinstance(norm, Fraction) else math.nan)


def _unless_off(rule: Rule) -> Rule:
    """Return a rule that leaves everything alone where C is not positive, NaN included."""
    return lambda norm, limit: rule(norm, limit) if limit > 0 else lambda x: x


def _paddle_by_norm(norm: Extended, limit: Extended) -> Element:
    """Return x where ‖x‖ ≤ C, else x·C/(‖x‖ + 1e-6 if ‖x‖ ≤ 1e-30)."""
    if norm <= limit:
        return lambda x: x
    divisor = _plus(norm, Fraction(1, 10**6) if norm <= Fraction(1, 10**30) else Fraction(0))
    return lambda x: _times(x, _over(limit, divisor))


def _zero_for_nan(norm: Extended, limit: Extended) -> Extended:
    """Return min(1, C/‖x‖), 0 where that is NaN."""
    factor = _least(ONE, _over(limit, norm))
    return Fraction(0) if factor != factor else factor


def _adaptive(norm: Extended, limit: Extended) -> Element:
    """Return x where ‖x‖ < C, else x·C/max(‖x‖, 1e-6)."""
    if norm < limit:
        return lambda x: x
    return lambda x: _times(x, _over(limit, _most(norm, Fraction(1, 10**6))))


def _keras_max_norm(norm: Extended, limit: Extended) -> Extended:
    """Return clip(‖x‖, 0, C) / (1e-7 + ‖x‖)."""
    return _over(_least(norm, limit), _plus(norm, Fraction(1, 10**7)))


@dataclass(frozen=True)
class Formula:
    """A definition of clipping by norm, and which of two crossing bounds wins by value.

    Attributes
    ----------
    name : str
        What it is called in `verify(..., formula=name)`.
    text : str
        The formula, for people.
    rule : callable
        Makes of (‖x‖, C) the function of an element, in extended reals.
    tree_rule : callable or None
        The same for the global norm, where the framework has another there.
    inside : callable
        Whether (‖x‖, C) leaves the input alone by this definition.
    lower_wins : bool
        Whether the lower of crossing bounds wins.
    projects : bool
        Whether the L1 clip is the nearest point of the ball, for which `rule` is not used.
    """

    name: str
    text: str
    rule: Rule
    tree_rule: Rule | None = None
    inside: Callable[[Extended, Extended], bool] = lambda norm, limit: norm <= limit
    lower_wins: bool = False
    projects: bool = False

    def element(self, operation: str, norm: Extended, limit: Extended, values: Sequence[Fraction]) -> Element:
        """Return what becomes of one element.

        Parameters
        ----------
        operation : str
            Name of the norm clip.
        norm, limit : Fraction or float
            ‖x‖ and C.
        values : sequence of Fraction
            The elements of the group, which only a projection looks at.
        """
        if self.projects and operation == "clip_by_l1_norm":
            return _projection(norm, limit, values)
        return (self.tree_rule if operation == "clip_by_global_norm" and self.tree_rule else self.rule)(
            norm, limit
        )


def _projection(norm: Extended, limit: Extended, values: Sequence[Fraction]) -> Element:
    """Return the nearest point of the L1 ball: every size less the same threshold, at least zero."""
    if norm <= limit:
        return lambda x: x
    sizes = sorted((abs(value) for value in values), reverse=True)
    total, threshold = Fraction(0), Fraction(0)
    for count, size in enumerate(sizes, 1):
        total += size
        if size * count < total - Fraction(limit):
            break
        threshold = (total - Fraction(limit)) / count

    def element(x: Extended) -> Extended:
        size = max(abs(Fraction(x)) - threshold, Fraction(0))
        return size if x > 0 else -size

    return element


_ADDED = _with_epsilon(Fraction(1, 10**6))

FORMULAS: Final[dict[str, Formula]] = {
    formula.name: formula
    for formula in (
        Formula("contract", "x · min(1, C/‖x‖)", _contract),
        Formula(
            "torch",
            "x · min(1, C/(‖x‖ + 1e-6)); also MLX, Opacus, DeepSpeed, Megatron",
            _ADDED,
            inside=lambda norm, limit: _plus(norm, Fraction(1, 10**6)) <= limit,
        ),
        Formula(
            "mxnet",
            "x · min(1, C/(‖x‖ + 1e-8))",
            _with_epsilon(Fraction(1, 10**8)),
            inside=lambda norm, limit: _plus(norm, Fraction(1, 10**8)) <= limit,
        ),
        Formula(
            "optax",
            "x where ‖x‖ < C, else x/‖x‖ · C",
            _strictly_below,
            inside=lambda norm, limit: norm < limit,
        ),
        Formula(
            "optax-agc",
            "x where ‖x‖ < C, else x · C/max(‖x‖, 1e-6)",
            _adaptive,
            inside=lambda norm, limit: norm < limit,
        ),
        Formula("l1-projection", "the point of the L1 ball nearest to x", _contract, projects=True),
        Formula(
            "tensorflow",
            "x·C / max(‖x‖, C); all leaves: x · (C·min(1/‖x‖, 1/C) + (‖x‖ − ‖x‖)); max(min(x, upper), lower)",
            _over_larger,
            _scaling(_smaller_reciprocal),
            lower_wins=True,
        ),
        Formula(
            "keras",
            "TensorFlow's, and off where C ≤ 0",
            _unless_off(_over_larger),
            _unless_off(_scaling(_smaller_reciprocal)),
        ),
        Formula(
            "keras-max-norm",
            "x · min(‖x‖, C)/(‖x‖ + 1e-7)",
            _scaling(_keras_max_norm),
            inside=lambda *_: False,
        ),
        Formula(
            "paddle",
            "x · C/max(‖x‖, C) for all leaves; x where ‖x‖ ≤ C, else x · C/‖x‖",
            _paddle_by_norm,
            _scaling(lambda norm, limit: _over(limit, _most(norm, limit))),
        ),
        Formula("jax-privacy", "x · min(1, C/‖x‖), 0 for a factor of NaN", _scaling(_zero_for_nan)),
    )
}
"""Every known formula by its name."""


def formula_named(name: str) -> Formula:
    """Return a formula; `ValueError` that lists the known ones for any other name."""
    try:
        return FORMULAS[name]
    except KeyError:
        raise ValueError(f"verify: formula={name!r} is not known; known are {', '.join(FORMULAS)}") from None
