"""The judge of the levels rounded and robust: every element within 4 ulp of the formula.

It asks what any careful implementation can keep, in the dtype it works in: the formula to 4 ulp, what is
clearly inside left equal, the norm to 2^-20.  What is exact about clipping is judged by `judge`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.exact import exact_norm, ulp, ulps_away
from clipcore.verify.form import among_subnormals, leaves, walk
from clipcore.verify.formats import (
    Array,
    Format,
    Side,
    cast_bound,
    exact_component,
    exact_values,
    format_of,
    is_finite,
    patterns,
    power_of_two,
)
from clipcore.verify.formulas import FORMULAS, Extended, Formula, extended
from clipcore.verify.judge import (
    NO_NORM,
    NORMS,
    VALUE_CLIPS,
    Case,
    Terms,
    flushed,
    groups,
    order_of,
    outcome,
    split,
)
from clipcore.verify.laws import Group, Violation, approximate, has_subnormals
from clipcore.verify.subject import Callee

__all__ = ["differs", "follows", "leaves_alone", "tolerant"]

CLEARLY: Final = 1 - power_of_two(-10)  # ‖x‖ ≤ C · CLEARLY is clearly inside
NORM_ERROR: Final = power_of_two(-20)
ULPS: Final = 4
FEW: Final = 2000  # elements up to which finding equal ones costs more than it saves


def tolerant(
    callee: Callee,
    case: Case,
    formula: Formula = FORMULAS["contract"],
    terms: Terms = Terms(),  # noqa: B008
) -> list[Violation]:
    """Return the violations of one case at level rounded or robust.

    Parameters
    ----------
    callee : Callee
        The subject.
    case : Case
        A call whose groups are finite.
    formula : Formula
        What the subject is meant to compute.
    terms : Terms
        What is asked of its array library.

    Returns
    -------
    list of Violation
        Empty where nothing is wrong.
    """
    made = outcome(callee, case)
    found = list(made.violations)
    if not made.usable:
        return found
    if case.operation in NORMS:
        found += _of_norms(case, made.result, formula, terms)
    elif case.operation in VALUE_CLIPS:
        found += _of_value_clip(case, made.result, formula, terms)
    else:
        found += _of_norm_clip(case, made.result, formula, terms)
        if made.norm is not NO_NORM:
            found += _near(leaves(case.tree), order_of(case), made.norm, formula, terms)
    return found


def follows(case: Case, result: Any, formula: Formula) -> bool:
    """Return whether a norm clip's result is that of a formula, as level rounded asks."""
    found = groups(case, leaves(case.tree), leaves(result))
    return all(_fault_of(group, case.operation, formula) is None for group in found)


def differs(case: Case, result: Any) -> bool:
    """Return whether a result has other values than the input, signs of zeros and NaN aside."""
    pairs = zip(leaves(case.tree), leaves(result), strict=True)
    return any(bool(np.any((x != y) & ((x == x) | (y == y)))) for x, y in pairs)


def leaves_alone(case: Case, formula: Formula) -> bool:
    """Return whether a formula leaves every group of a norm clip alone."""
    found = groups(case, leaves(case.tree), leaves(case.tree))
    return all(formula.inside(_extended_norm(group), extended(group.limit)) for group in found)


# --- clips by norm -------------------------------------------------------------------------------------


def _of_norm_clip(case: Case, result: Any, formula: Formula, terms: Terms) -> Iterator[Violation]:
    """Yield what is wrong with the elements of a norm clip, one violation for each group."""
    for group in groups(case, leaves(case.tree), leaves(result), terms):
        if flushed(group, terms):
            continue
        if fault := _fault_of(group, case.operation, formula):
            yield fault


def _fault_of(group: Group, operation: str, formula: Formula) -> Violation | None:
    """Return the first element that is not what the formula says, or was changed clearly inside the limit."""
    return _first_fault(group, operation, formula) or _changed_inside(group, formula)


def _first_fault(group: Group, operation: str, formula: Formula) -> Violation | None:
    """Return the first element of a group that is not what the formula says."""
    values = _values(group) if formula.projects else []
    element = formula.element(operation, _extended_norm(group), extended(group.limit), values)
    factor = element(Fraction(1)) if group.finite and not formula.projects else math.nan
    quickly = _scaled(factor) if isinstance(factor, Fraction) and factor >= 0 else None
    for leaf, (x, y) in enumerate(zip(group.inputs, group.results, strict=True)):
        form = format_of(x.dtype)
        unsure = _unsure(x, y, factor, form)
        for before, after, index in _distinct(patterns(x), patterns(y), unsure):
            if quickly and _surely(before, after, form, *quickly):
                continue
            expected, got = element(_value(form, before)), _value(form, after)
            if not _fits(got, expected, form, group.slack):
                return _fault(f"leaf {leaf}, component {index}", got, expected, x.dtype)
    return None


def _unsure(x: Array, y: Array, factor: Extended, form: Format) -> Array:
    """Return the places of the components that float64 does not show to be right.

    Components of 32 bits or less times the factor are within 2^-51 of the product in float64, so what is
    within 3.99 ulp of it there is within 4 ulp of the exact one.
    """
    places = np.arange(x.size * (2 if x.dtype.kind == "c" else 1))
    if form.bits > 32 or not isinstance(factor, Fraction) or not 1e-250 < abs(factor) < 1e250:
        return places
    before, after = (_parts(z).astype(np.float64) for z in (x, y))
    with np.errstate(all="ignore"):
        ideal = before * float(factor)
        exponents = np.maximum(np.frexp(np.abs(ideal))[1], form.lowest + form.precision)
        right = np.abs(after - ideal) <= 3.99 * np.ldexp(1.0, exponents - form.precision)
    unsure: Array = places[~right]
    return unsure


def _distinct(before: Array, after: Array, places: Array) -> Iterator[tuple[int, int, int]]:
    """Yield every pair of patterns at these places once, with the place where it stands first."""
    before, after = before[places], after[places]
    if places.size > FEW:
        pairs = np.empty(before.size, [("before", before.dtype), ("after", after.dtype)])
        pairs["before"], pairs["after"] = before, after
        _, first = np.unique(pairs, return_index=True)
        before, after, places = before[first], after[first], places[first]
    yield from zip(before.tolist(), after.tolist(), places.tolist(), strict=True)


def _scaled(factor: Fraction) -> tuple[int, int]:
    """Return (integer, scale) such that integer / 2**scale is the factor, cut to 120 bits or more."""
    scale = 120 + max(0, factor.denominator.bit_length() - factor.numerator.bit_length())
    return (factor.numerator << scale) // factor.denominator, scale


def _surely(before: int, after: int, form: Format, factor: int, scale: int) -> bool:
    """Return whether a finite component is within 4 ulp of itself times the factor, in integers."""
    if after & form.infinity == form.infinity:  # NaN or infinite
        return False
    expected, got = form.integer(before) * factor, form.integer(after) << scale
    ulp_there = 1 << max(abs(expected).bit_length() - form.precision, scale)
    return abs(expected - got) <= ULPS * ulp_there


def _extended_norm(group: Group) -> Extended:
    """Return the norm to 120 bits; inf or NaN where the group holds one."""
    if group.finite:
        return group.norm.bounds()[0]
    parts = [value for x in group.inputs for value in exact_values(_parts(x))]
    return math.nan if any(value != value for value in parts) else math.inf


def _parts(x: Array) -> Array:
    """Return the components of an array, flat."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(flat.real.dtype) if x.dtype.kind == "c" else flat


def _values(group: Group) -> list[Fraction]:
    """Return all elements of a finite group."""
    return [Fraction(value) for x in group.inputs for value in exact_values(_parts(x))]


def _value(form: Format, pattern: int) -> Extended:
    """Return the value of a bit pattern."""
    sign = 1 << (form.bits - 1)
    magnitude = pattern & (sign - 1)
    if magnitude < form.infinity:
        return form.value(pattern)
    return math.nan if magnitude > form.infinity else -math.inf if pattern & sign else math.inf


def _fits(got: Extended, expected: Extended, form: Format, slack: Fraction = Fraction(0)) -> bool:
    """Return whether a component is within 4 ulp of what the formula gives, or ε of it where that is more."""
    if got != got or expected != expected:
        return got != got and expected != expected
    if not isinstance(expected, Fraction) or abs(expected) > form.largest:
        return got == (math.inf if expected > 0 else -math.inf) or _largest(got, expected, form)
    if not isinstance(got, Fraction):
        return False
    size = abs(expected)
    integer = (size.numerator << -form.lowest) // size.denominator
    spacing = (1 << max(0, integer.bit_length() - form.precision)) * form.smallest_subnormal
    return abs(got - expected) <= ULPS * spacing + slack * size


def _largest(got: Extended, expected: Extended, form: Format) -> bool:
    """Return whether a finite result stands for a formula's value beyond the range."""
    return isinstance(expected, Fraction) and isinstance(got, Fraction) and abs(got) == form.largest


def _fault(where: str, got: Extended, expected: Extended, dtype: np.dtype[Any]) -> Violation:
    """Return a violation of the formula, or of the range where something vanished or blew up."""
    numbers = isinstance(got, Fraction) and isinstance(expected, Fraction)
    away = approximate(ulps_away(got, expected, expected, dtype)) if numbers else None  # type: ignore[arg-type]
    shown = (_shown(expected), _shown(got))
    if isinstance(expected, Fraction) and (
        not numbers or (got == 0 and abs(expected) >= ulp(expected, dtype) * 8)
    ):
        return Violation("range", "an element overflowed or vanished on the way", where, *shown, away)
    return Violation("formula", "an element is more than 4 ulp from the formula", where, *shown, away)


def _shown(value: Extended) -> float:
    """Return a number for people to read."""
    return approximate(value) if isinstance(value, Fraction) else value


def _changed_inside(group: Group, formula: Formula) -> Violation | None:
    """Return a violation where a group that is clearly inside came back with other values."""
    if not group.finite or group.limit == math.inf:
        return None
    norm = group.norm.bounds()[1]
    clearly = Fraction(group.limit) * CLEARLY
    if norm > clearly or not formula.inside(norm, clearly):
        return None
    for leaf, (x, y) in enumerate(zip(group.inputs, group.results, strict=True)):
        differing = np.flatnonzero(np.asarray(_parts(x) != _parts(y)))
        if differing.size:
            index = int(differing[0])
            shown = (_shown(exact_component(z, index)) for z in (x, y))
            place = f"leaf {leaf}, component {index}"
            return Violation("formula", "what is clearly inside the limit was changed", place, *shown)
    return None


# --- norms ---------------------------------------------------------------------------------------------


def _of_norms(case: Case, result: Any, formula: Formula, terms: Terms) -> Iterator[Violation]:
    """Yield what is wrong with a norm function's result."""
    order = order_of(case)
    axis = case.keywords.get("axis")
    if axis is None:
        yield from _near(leaves(case.tree), order, result, formula, terms)
        return
    shape = np.zeros(case.tree.shape, dtype=bool).any(axis=axis).shape
    if not isinstance(result, np.ndarray) or result.shape != shape:
        yield Violation("form", f"the norms along axis {axis} have the shape {shape}", got=np.shape(result))
        return
    for part, norm in zip(split(case.tree, axis), result.reshape(-1), strict=True):
        yield from _near([part], order, norm, formula, terms)


def _near(
    arrays: Sequence[Array], order: float, norm: Any, formula: Formula, terms: Terms
) -> Iterator[Violation]:
    """Yield a violation where a norm is not the one before clipping, to 2^-20."""
    try:
        real = not isinstance(norm, str | bytes) and not np.iscomplexobj(norm)
        got = extended(float(norm)) if real else None
    except (Exception, SystemExit):  # whatever a stranger's number does
        got = None
    if got is None:
        yield Violation("norm", "the norm is not a number", got=type(norm).__name__)
        return
    if not is_finite(arrays) or (terms.flushes and any(has_subnormals(x) for x in arrays)):
        return
    exact = exact_norm(arrays, order).bounds()[0]
    error = _norm_error(norm, formula)
    if isinstance(got, Fraction) and abs(got - exact) <= error * exact + 4 * power_of_two(-1074):
        return
    if got == math.inf and exact * (1 + error) > _largest_norm(norm):
        return
    yield Violation("norm", "the norm is not that of the input to 2^-20", "", approximate(exact), _shown(got))


def _norm_error(norm: Any, formula: Formula) -> Fraction:
    """Return the relative error that a norm may have: under a framework's formula also its dtype's own."""
    dtype = getattr(norm, "dtype", np.dtype(np.float64))
    if formula.name == "contract" or dtype.kind != "f":
        return NORM_ERROR
    return max(NORM_ERROR, ULPS * format_of(dtype).roundoff)


def _largest_norm(norm: Any) -> Fraction:
    """Return the largest norm that its dtype can hold."""
    dtype = getattr(norm, "dtype", np.dtype(np.float64))
    return (
        format_of(dtype).largest
        if dtype.name in ("float32", "float64")
        else format_of(np.dtype(np.float64)).largest
    )


# --- clips by value ------------------------------------------------------------------------------------


def _of_value_clip(case: Case, result: Any, formula: Formula, terms: Terms) -> Iterator[Violation]:
    """Yield what is wrong with the elements of a value or weight clip, one violation for each leaf."""
    chosen: Callable[[Any, Any], bool] = case.keywords.get("where") or (lambda _path, _leaf: True)
    for (path, x), y in zip(walk(case.tree), leaves(result), strict=True):
        lower, upper = case.arguments if chosen(path, x) else (None, None)
        if terms.flushes and among_subnormals(x, lower, upper):
            continue
        fault = _first_outside(
            np.asarray(x), y, _bounds(lower, x, "lower"), _bounds(upper, x, "upper"), formula
        )
        if fault:
            yield fault


def _bounds(bound: Any, x: Any, side: Side) -> Sequence[Extended]:
    """Return a bound for every element: exactly, or for integer leaves the last integer that it allows."""
    x = np.asarray(x)
    if bound is None:
        bound = -math.inf if side == "lower" else math.inf
    if x.dtype.kind in "iu":
        return exact_values(np.broadcast_to(cast_bound(bound, x.dtype, side), x.shape))
    if isinstance(bound, np.ndarray):
        return exact_values(np.broadcast_to(bound, x.shape))
    return [Fraction(bound) if isinstance(bound, int) else extended(bound)] * x.size


def _first_outside(
    x: Array, y: Array, lower: Sequence[Extended], upper: Sequence[Extended], formula: Formula
) -> Violation | None:
    """Return the first element that is not min(max(x, lower), upper) to 4 ulp, or changed though inside."""
    values = zip(exact_values(x), exact_values(y), lower, upper, strict=True)
    form = format_of(x.dtype) if x.dtype.kind not in "iu" else None
    for index, (value, got, low, high) in enumerate(values):
        expected = max(min(value, high), low) if formula.lower_wins else min(max(value, low), high)
        if any(number != number for number in (value, low, high)):
            expected = math.nan
        same = got == expected or (got != got and expected != expected)
        if same or (form and low <= high and value != expected and _fits(got, expected, form)):
            continue
        if form and low > high and _fits(got, expected, form):
            continue
        inside = value == expected
        message = "what is inside its bounds was changed" if inside else "an element is not at its bound"
        return Violation("formula", message, f"element {index}", _shown(expected), _shown(got))
    return None
