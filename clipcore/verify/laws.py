"""The laws of the contract that one call of a norm clip or a norm can be judged by.

A norm clip is judged group by group: a `Group` is what went in, the limit, and what came out.  Every law is a
function that returns `None`, or the `Violation` it found.  A law looks only at what it is about, so that each
can be shown to catch what the others do not; whatever it cannot judge it leaves to the law that can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from clipcore.verify.exact import Factor, Norm, exact_norm, factor_bounds, ulps_away
from clipcore.verify.formats import (
    Array,
    Format,
    exact_component,
    exact_values,
    format_of,
    from_patterns,
    is_complex,
    is_finite,
    magnitudes,
    nan_components,
    patterns,
    power_of_two,
)

__all__ = [
    "EPSILON",
    "FLUSHED_LAWS",
    "GROUP_LAWS",
    "Group",
    "Violation",
    "approximate",
    "bound",
    "direction",
    "finite_range",
    "has_subnormals",
    "idempotence",
    "identity",
    "keeps_normal",
    "nonfinite",
    "norm_accuracy",
    "same_bits",
    "scale",
    "scaled_by",
    "scales",
    "tightness",
    "without_subnormals",
]

EPSILON = power_of_two(-44)  # the norm's relative error for components of 32 bits or less


@dataclass(frozen=True)
class Violation:
    """One law broken in one place.

    Attributes
    ----------
    law : str
        Name of the law.
    message : str
        What is wrong, in a sentence.
    where : str
        Which leaf, element or group; empty for the whole.
    expected, got : object
        What the law asks for, and what there is.
    ulps : float or None
        How far apart the two are in ulp, where that makes sense.
    last : bool
        Whether nothing else could be judged after it: nothing came back, or not what could be compared.
    """

    law: str
    message: str
    where: str = ""
    expected: object = None
    got: object = None
    ulps: float | None = None
    last: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Group:
    """One norm group: the elements that share a norm, before and after.

    Attributes
    ----------
    inputs, results : tuple of numpy.ndarray
        The group's leaves, pairwise of one dtype and shape.
    limit : float
        C.
    order : float
        Order of the norm: 1, 2 or inf.
    slack : Fraction
        The ε by which laws 1 to 4 and 6 may miss the boundary: 0 on NumPy.
    """

    inputs: tuple[Array, ...]
    results: tuple[Array, ...]
    limit: float
    order: float = 2
    slack: Fraction = Fraction(0)

    @cached_property
    def finite(self) -> bool:
        """Whether all inputs are finite."""
        return is_finite(self.inputs)

    @cached_property
    def judgeable(self) -> bool:
        """Whether inputs and results all are finite."""
        return self.finite and is_finite(self.results)

    @cached_property
    def norm(self) -> Norm:
        """The exact norm before clipping."""
        return exact_norm(self.inputs, self.order)

    @property
    def at_boundary(self) -> bool:
        """Whether the norm is so near C that the slack leaves open whether to clip."""
        if not self.slack or not self.finite or self.limit == math.inf:
            return False
        (low, high), limit = self.norm.bounds(), Fraction(self.limit)
        return low <= limit * (1 + self.slack) and high >= limit * (1 - self.slack)

    @cached_property
    def result_norm(self) -> Norm:
        """The exact norm after clipping."""
        return exact_norm(self.results, self.order)

    @cached_property
    def clipped(self) -> bool:
        """Whether the finite group must be clipped, exactly decided."""
        return self.norm.compare(self.limit) > 0


def bound(group: Group) -> Violation | None:
    """Law 1: the exact norm of the result is at most C."""
    if not group.judgeable or group.limit == math.inf:
        return None
    if group.result_norm.compare(Fraction(group.limit) * (1 + group.slack)) <= 0:
        return None
    got = approximate(group.result_norm.bounds()[0])
    return Violation("bound", "the norm of the result exceeds the limit", expected=group.limit, got=got)


def identity(group: Group) -> Violation | None:
    """Law 2: a group whose exact norm is at most C is returned bit for bit."""
    inside = group.limit == math.inf
    if not inside and group.finite:
        inside = group.norm.compare(Fraction(group.limit) * (1 - group.slack)) <= 0
    if not inside:
        return None
    return same_bits("identity", "a group within the limit was changed", group.inputs, group.results)


def tightness(group: Group) -> Violation | None:
    """Law 3: what is clipped keeps a norm of at least C(1 − 4u), unless subnormals are involved."""
    if not group.judgeable or not group.clipped or not keeps_normal(group):
        return None
    u = max(format_of(x.dtype).roundoff for x in group.inputs)
    least = Fraction(group.limit) * (1 - 4 * u - group.slack)
    if group.result_norm.compare(least) >= 0:
        return None
    got = approximate(group.result_norm.bounds()[1])
    return Violation("tightness", "the result was clipped too far", expected=approximate(least), got=got)


def direction(group: Group) -> Violation | None:
    """Law 4: each component is within 4 ulp of x·C/‖x‖, keeps its sign and does not grow."""
    if not group.judgeable:
        return None
    factor = factor_bounds(group.limit, group.norm)
    for leaf, (x, y) in enumerate(zip(group.inputs, group.results, strict=True)):
        form = format_of(x.dtype)
        judged: set[tuple[int, int]] = set()
        for index, pair in enumerate(zip(patterns(x).tolist(), patterns(y).tolist(), strict=True)):
            if pair in judged:
                continue
            judged.add(pair)
            fault = _misdirected(*pair, form, factor, group.slack)
            if fault:
                low, high = factor.ideal(form.value(pair[0]))
                got = form.value(pair[1])
                return Violation(
                    "direction",
                    fault,
                    _place(leaf, index),
                    approximate(low),
                    approximate(got),
                    approximate(ulps_away(got, low, high, x.dtype)),
                )
    return None


def _misdirected(before: int, after: int, form: Format, factor: Factor, slack: Fraction) -> str | None:
    """Return what is wrong with one component, given both bit patterns."""
    if (before ^ after) >> (form.bits - 1):
        return "a component changed its sign"
    x, y = abs(form.integer(before)), abs(form.integer(after))
    if y > x:
        return "a component grew"
    low, high, got = x * factor.low, x * factor.high, y << factor.scale
    ulp = 1 << max(high.bit_length() - form.precision, factor.scale)
    if max(low - got, got - high) > 4 * ulp + slack * high:
        return "a component is more than 4 ulp from x·C/‖x‖"
    return None


def finite_range(group: Group) -> Violation | None:
    """Law 8: a finite input gives a finite result, and nothing normal vanishes on the way."""
    if not group.finite:
        return None
    if not is_finite(group.results):
        return Violation("range", "a finite input gave NaN or inf")
    if group.limit > 0 and group.clipped and keeps_normal(group):
        for leaf, (x, y) in enumerate(zip(group.inputs, group.results, strict=True)):
            lost = (magnitudes(x) != 0) & (magnitudes(y) == 0)
            if lost.any():
                return Violation("range", "a normal element became zero", _place(leaf, int(np.argmax(lost))))
    return None


def nonfinite(group: Group, mode: str = "propagate") -> Violation | None:
    """Edge row: a group holding NaN or inf becomes NaN under "propagate", zero under "zero"."""
    if group.finite or (group.limit == math.inf and mode == "propagate"):
        return None
    for leaf, y in enumerate(group.results):
        nans = nan_components(y).reshape(-1, 2 if is_complex(y.dtype) else 1).any(axis=1)
        wrong = magnitudes(y) != 0 if mode == "zero" else ~nans
        if wrong.any():
            place = _place(leaf, int(np.argmax(wrong)))
            return Violation("edges", f'a non-finite group is not answered as under "{mode}"', place)
    return None


GROUP_LAWS = (finite_range, nonfinite, bound, identity, tightness, direction)


def flushed_bound(group: Group) -> Violation | None:
    """Law 1 where subnormals are taken for zero."""
    if not group.judgeable:
        return None
    return bound(replace(group, results=tuple(without_subnormals(y) for y in group.results)))


FLUSHED_LAWS = (nonfinite, flushed_bound, identity)  # where subnormals are taken for zero


def idempotence(once: Sequence[Array], twice: Sequence[Array]) -> Violation | None:
    """Law 5: clipping the result again changes no bit."""
    return same_bits("idempotence", "clipping twice differs from clipping once", once, twice)


def scale(group: Group, power: int, scaled: Sequence[Array]) -> Violation | None:
    """Law 6: inputs and limit times 2**power give the result times 2**power.

    Parameters
    ----------
    group : Group
        The unscaled inputs, limit and results.
    power : int
        Exponent of the factor, such that `scales(group, power)` holds.
    scaled : sequence of numpy.ndarray
        Results for the scaled inputs and limit.
    """
    expected = [scaled_by(y, power) for y in group.results]
    if all(format_of(y.dtype).bits <= 32 for y in group.results):
        return same_bits("scale", "the result did not scale bit for bit", expected, scaled)
    for leaf, (want, got) in enumerate(zip(expected, scaled, strict=True)):
        for index in np.flatnonzero(patterns(want) != patterns(got)).tolist():
            exact, found = (Fraction(exact_component(y, index)) for y in (want, got))
            away = ulps_away(found, exact, exact, want.dtype)
            if away > 1:
                shown = approximate(exact), approximate(found), approximate(away)
                return Violation("scale", "the result did not scale to 1 ulp", _place(leaf, index), *shown)
    return None


def scales(group: Group, power: int) -> bool:
    """Return whether nothing becomes subnormal or overflows when the group is multiplied by 2**power."""
    if not group.judgeable or group.limit == math.inf or not group.norm.compare(0):
        return False
    binary64 = format_of(np.dtype(np.float64))
    for shift in (0, power):
        factor = power_of_two(shift)
        if not binary64.smallest_normal <= Fraction(group.limit) * factor <= binary64.largest:
            return False
        if group.norm.compare(binary64.smallest_normal / factor) < 0:
            return False
        if group.norm.compare(binary64.largest / factor) > 0 or not keeps_normal(group, shift):
            return False
    return True


def keeps_normal(group: Group, power: int = 0) -> bool:
    """Return whether inputs and ideal results, times 2**power, are zero or within the normal range."""
    for x in group.inputs:
        form, sizes = format_of(x.dtype), magnitudes(x)
        sizes = sizes[sizes != 0]
        if not sizes.size:
            continue
        factor = power_of_two(power)
        least, most = (form.value(int(size)) * factor for size in (sizes.min(), sizes.max()))
        if least < form.smallest_normal or most > form.largest:
            return False
        # least·C/‖x‖ ≥ smallest normal, without dividing by a root; C = 0 gives zeros, which lose nothing
        smallest_kept = least * Fraction(group.limit) / form.smallest_normal if group.clipped else None
        if smallest_kept and group.norm.compare(smallest_kept) > 0:
            return False
    return True


def has_subnormals(x: Array) -> bool:
    """Return whether a component is subnormal."""
    form, sizes = format_of(x.dtype), magnitudes(x)
    return bool(np.any((sizes != 0) & (sizes < 1 << (form.precision - 1))))


def without_subnormals(x: Array) -> Array:
    """Return x, flat, with its subnormal components replaced by zero."""
    form, sizes = format_of(x.dtype), magnitudes(x)
    return from_patterns(np.where(sizes < 1 << (form.precision - 1), 0, patterns(x)), x.dtype)


def scaled_by(x: Array, power: int) -> Array:
    """Return x · 2**power exactly, for components that are zero or stay normal."""
    form, pattern = format_of(x.dtype), patterns(x)
    step = np.array(power << (form.precision - 1), dtype=np.int64).astype(pattern.dtype)  # modulo 2**bits
    return from_patterns(np.where(magnitudes(x), pattern + step, pattern), x.dtype).reshape(x.shape)


def norm_accuracy(leaves: Sequence[Array], order: float, norm: Array, ulps: int = 1) -> Violation | None:
    """Law 7: the norm of these leaves is within ε of the exact one, however they are cut.

    Within `ulps` ulp where all leaves are float64 or the norm is float32, else within 2^-44, or within 4
    smallest subnormals where that is more.  Beyond the range it is inf; of non-finite leaves NaN if any is
    NaN, else inf.
    """
    got = exact_values(norm)[0]
    if not is_finite(leaves):
        expected = math.nan if any(nan_components(x).any() for x in leaves) else math.inf
        if isinstance(got, float) and (math.isnan(got) if math.isnan(expected) else got == expected):
            return None
        return Violation("norm", "the norm of a non-finite group is wrong", "", expected, _shown(got))
    low, high = exact_norm(leaves, order).bounds()
    form = format_of(norm.dtype)
    beyond = 2 * power_of_two(form.exponent_fields // 2 - 1)  # what inf stands for when rounding
    if low >= beyond:
        if got == math.inf:
            return None
        return Violation("norm", "a norm beyond the range is not inf", "", math.inf, _shown(got))
    got = beyond if got == math.inf else got
    if isinstance(got, Fraction) and _near(got, low, high, leaves, norm.dtype, ulps):
        return None
    away = approximate(ulps_away(got, low, high, norm.dtype)) if isinstance(got, Fraction) else None
    return Violation(
        "norm", "the norm is not within ε of the exact one", "", approximate(low), _shown(got), away
    )


def _near(
    got: Fraction, low: Fraction, high: Fraction, leaves: Sequence[Array], dtype: np.dtype[Any], ulps: int
) -> bool:
    """Return whether a norm is as near to its exact value as the contract asks."""
    if not high:
        return not got
    if max(low - got, got - high) <= 4 * format_of(dtype).smallest_subnormal:
        return True
    if format_of(dtype).bits == 32 or all(format_of(x.dtype).bits == 64 for x in leaves):
        return ulps_away(got, low, high, dtype) <= ulps
    return max(low - got, got - high) <= EPSILON * high


def same_bits(law: str, message: str, expected: Sequence[Array], got: Sequence[Array]) -> Violation | None:
    """Return a violation at the first component whose bits differ."""
    for leaf, (want, have) in enumerate(zip(expected, got, strict=True)):
        differing = np.flatnonzero(patterns(want) != patterns(have))
        if differing.size:
            index = int(differing[0])
            values = [_shown(exact_component(array, index)) for array in (want, have)]
            return Violation(law, message, _place(leaf, index), *values)
    return None


def approximate(value: Fraction) -> float:
    """Return a float for people to read; nothing is decided by it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shown(value: Fraction | float) -> float:
    """Return an exact or non-finite value as a float for people to read."""
    return approximate(value) if isinstance(value, Fraction) else value


def _place(leaf: int, component: int) -> str:
    """Return where a component is, for people to read."""
    return f"leaf {leaf}, component {component}"
