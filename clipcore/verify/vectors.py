"""Golden vectors: inputs and exact results as a text that any language can read.

A clip written elsewhere cannot be called by the judge, so the judge's knowledge is written down instead: for
each case the exact norm, the ideal components and the results that the laws allow, numbers as hexadecimal
floats.  All of it comes from the oracle; no function under test has a part in it.  `docs/vectors.md` says
what each field means.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np

from clipcore.verify.exact import Factor, factor_bounds, ulp
from clipcore.verify.formats import (
    Format,
    Side,
    cast_bound,
    nan_components,
    power_of_two,
)
from clipcore.verify.judge import NORM_CLIPS, NORMS, POWERS, VALUE_CLIPS
from clipcore.verify.laws import EPSILON, Group, keeps_normal, scales
from clipcore.verify.vectors_calls import BINARY64, DOUBLE, FORMATS, INTEGERS, Call, Leaf, calls, hexadecimal

__all__ = ["SCHEMA", "vectors", "write_vectors"]

SCHEMA: Final = "clipcore-vectors-1"
BITS: Final = 4400  # (2^-1074)² beside (2^1024)²: enough to say on which side of a power of two an ideal lies
Ends: TypeAlias = tuple[int, int]  # the patterns of the least and the greatest number allowed
Component: TypeAlias = tuple[int, int, Fraction]  # the same, and the size of the ideal


def vectors(seed: int = 0) -> dict[str, Any]:
    """Return the golden vectors as plain lists and dicts.

    Parameters
    ----------
    seed : int
        Where the random numbers come from; the same seed gives the same vectors everywhere.

    Returns
    -------
    dict
        As `docs/vectors.md` describes it.
    """
    formats = {
        name: {"bits": form.bits, "precision": form.precision, "u": hexadecimal(float(form.roundoff))}
        for name, form in FORMATS.items()
    }
    operations: dict[str, Any] = {}
    for operation in (*NORM_CLIPS, *NORMS, *VALUE_CLIPS):
        operations[operation] = {
            dtype: [
                {"id": f"{operation}/{dtype}/{number}", **_described(call)}
                for number, call in enumerate(calls(operation, dtype, seed))
            ]
            for dtype in _dtypes(operation)
        }
    return {"schema": SCHEMA, "seed": seed, "formats": formats, "operations": operations}


def write_vectors() -> str:
    """Return the golden vectors as JSON, one case to a line."""
    document = vectors()
    operations = document.pop("operations")
    lists = {
        operation: ",\n".join(
            f'"{dtype}": [\n' + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]"
            for dtype, cases in by_dtype.items()
        )
        for operation, by_dtype in operations.items()
    }
    body = ",\n".join(f'"{operation}": {{\n{text}\n}}' for operation, text in lists.items())
    return f'{json.dumps(document)[:-1]}, "operations": {{\n{body}\n}}}}\n'


def _dtypes(operation: str) -> tuple[str, ...]:
    """Return the dtypes that an operation is given."""
    real = tuple(name for name in FORMATS if not name.startswith("complex"))
    return (*real, *INTEGERS) if operation in VALUE_CLIPS else tuple(FORMATS)


# --- what must come out ----------------------------------------------------------------------------------


def _described(call: Call) -> dict[str, Any]:
    """Return a call and its answer as they stand in the text."""
    found: dict[str, Any] = {
        "label": call.label,
        "inputs": [leaf.described() for leaf in call.inputs],
        "arguments": {name: _argument(value) for name, value in call.arguments.items()},
        "keywords": {name: _keyword(value) for name, value in call.keywords.items()},
    }
    if call.raises:
        return {**found, "error": call.raises}
    if call.operation in VALUE_CLIPS:
        return {**found, "outputs": [_ends(leaf, _cut(leaf, call.arguments)) for leaf in call.inputs]}
    groups = _groups(call)
    found["groups"] = [_group(call, group, members) for group, members in groups]
    if call.operation in NORMS:
        return found
    found["scales"] = [
        power for power in POWERS if groups and all(scales(group, power) for group, _ in groups)
    ]
    return {**found, "outputs": _clipped(call, groups)}


def _argument(value: Any) -> Any:
    """Return an argument as it stands in the text."""
    return value.described() if isinstance(value, Leaf) else None if value is None else hexadecimal(value)


def _keyword(value: Any) -> Any:
    """Return a keyword as it stands in the text: a list of axes, an order or a policy as a string."""
    return list(value) if isinstance(value, tuple) else str(value)


def _ends(leaf: Leaf, ends: list[Ends]) -> dict[str, list[str]]:
    """Return what a leaf may become: its values where they are unique, else both ends."""
    lowest, highest = ([leaf.text(pair[side]) for pair in ends] for side in (0, 1))
    return {"values": lowest} if lowest == highest else {"lowest": lowest, "highest": highest}


def _with_ideals(leaf: Leaf, components: list[Component]) -> dict[str, list[str]]:
    """Return what a leaf may become, with the ideals where that is not unique."""
    found = _ends(leaf, [(low, high) for low, high, _ in components])
    if "lowest" in found:
        signs = [-1.0 if text.startswith("-") else 1.0 for text in found["lowest"]]
        pairs = [_double_double(size, sign) for (*_, size), sign in zip(components, signs, strict=True)]
        found["ideal_hi"], found["ideal_lo"] = [high for high, _ in pairs], [low for _, low in pairs]
    return found


def _double_double(size: Fraction, sign: float) -> tuple[str, str]:
    """Return a number as two doubles, each rounded towards zero, the second to 26 bits."""
    high = BINARY64.value(BINARY64.truncate(size)[0])
    low = BINARY64.value(BINARY64.truncate(size - high)[0] >> 27 << 27)
    return hexadecimal(sign * float(high)), hexadecimal(sign * float(low))


# --- norms ---------------------------------------------------------------------------------------------


def _groups(call: Call) -> list[tuple[Group, list[int]]]:
    """Return the groups as the laws take them, the inputs in place of results, and their elements."""
    limit = float(call.arguments.get("max_norm", math.inf))
    return [(Group(arrays, arrays, limit, call.order), members) for arrays, members in call.groups()]


def _group(call: Call, group: Group, members: list[int]) -> dict[str, Any]:
    """Return a group's norm, and for a clip what becomes of it."""
    found = dict(zip(("norm_low", "norm_high", "norm_least", "norm_most"), _norm(call, group), strict=True))
    described: dict[str, Any] = {name: hexadecimal(value) for name, value in found.items()}
    if "axis" in call.keywords:
        described["members"] = members
    if call.operation in NORMS:
        return described
    clipped = group.finite and group.clipped
    described["inside"] = not clipped if group.finite else _passes(call)
    described["clipped"] = clipped
    described["tight"] = clipped and keeps_normal(group)
    described["u"] = hexadecimal(float(call.roundoff))
    return described


def _passes(call: Call) -> bool:
    """Return whether even NaN and infinities come back as they are."""
    return bool(call.arguments["max_norm"] == math.inf) and "nonfinite" not in call.keywords


def _norm(call: Call, group: Group) -> tuple[float, float, float, float]:
    """Return doubles that enclose the exact norm, and the least and greatest that may be returned for it."""
    if not group.finite:
        value = math.nan if any(nan_components(x).any() for x in group.inputs) else math.inf
        return value, value, value, value
    low, high = group.norm.bounds()
    double = all(FORMATS[leaf.dtype].bits == 64 for leaf in call.inputs)
    slack = max(4 * BINARY64.smallest_subnormal, ulp(high, DOUBLE) if double else EPSILON * high)
    slack = slack if high else high
    around = float(cast_bound(low, DOUBLE, "upper")), float(cast_bound(high, DOUBLE, "lower"))
    if low >= power_of_two(1024):
        return *around, math.inf, math.inf
    least = float(cast_bound(max(low - slack, Fraction(0)), DOUBLE, "lower"))
    most = (
        math.inf if high + slack >= power_of_two(1024) else float(cast_bound(high + slack, DOUBLE, "upper"))
    )
    return *around, least, most


# --- clips by norm -------------------------------------------------------------------------------------


def _clipped(call: Call, groups: list[tuple[Group, list[int]]]) -> list[dict[str, list[str]]]:
    """Return what the leaves of a norm clip may become."""
    made: list[list[Component]] = [[(0, 0, Fraction(0))] * len(leaf.patterns) for leaf in call.inputs]
    for group, members in groups:
        factor = _factor(call, group)
        for leaf, components in zip(call.inputs, made, strict=True):
            chosen = members if "axis" in call.keywords else range(len(leaf.patterns) // leaf.parts)
            for place in (leaf.parts * element + part for element in chosen for part in range(leaf.parts)):
                components[place] = _component(leaf.patterns[place], FORMATS[leaf.dtype], factor)
    return [_with_ideals(leaf, components) for leaf, components in zip(call.inputs, made, strict=True)]


def _factor(call: Call, group: Group) -> Factor | float:
    """Return min(1, C/‖x‖); NaN for what becomes NaN, 0.0 for what becomes zeros of any sign."""
    if not group.finite:
        zero = call.keywords.get("nonfinite") == "zero"
        return Factor(1, 1, 0) if _passes(call) else 0.0 if zero else math.nan
    return factor_bounds(group.limit, group.norm, BITS)


def _component(pattern: int, form: Format, factor: Factor | float) -> Component:
    """Return what a component may become: what is within 4 ulp of the ideal, of its sign, and no larger."""
    sign = pattern & 1 << (form.bits - 1)
    if isinstance(factor, float):
        nan = form.infinity + 1
        return (nan, nan, Fraction(0)) if math.isnan(factor) else (1 << (form.bits - 1), 0, Fraction(0))
    if factor.scale == 0:
        return pattern, pattern, Fraction(0) if pattern ^ sign >= form.infinity else abs(form.value(pattern))
    size, unit = abs(form.integer(pattern)), power_of_two(form.lowest - factor.scale)
    low, high = size * factor.low, size * factor.high
    reach = 4 << max(high.bit_length() - form.precision, factor.scale)
    least, exact = form.truncate(max(low - reach, 0) * unit)
    most, _ = form.truncate(min(high + reach, size << factor.scale) * unit if high else Fraction(0))
    least += not exact
    return (sign | most, sign | least, low * unit) if sign else (least, most, low * unit)


# --- clips by value --------------------------------------------------------------------------------------


def _cut(leaf: Leaf, bounds: dict[str, Any]) -> list[Ends]:
    """Return what the elements of a leaf become: of crossing bounds the upper wins."""
    lower, upper = (_bound(bounds[side], leaf, side) for side in ("lower", "upper"))
    if bounds["lower"] is None and bounds["upper"] is None:
        return [(pattern, pattern) for pattern in leaf.patterns]
    return [_cut_one(*each, leaf) for each in zip(leaf.patterns, lower, upper, strict=True)]


def _cut_one(pattern: int, lower: int, upper: int, leaf: Leaf) -> Ends:
    """Return the ends of what one element becomes; they differ only where it becomes a zero of any sign."""
    if leaf.dtype in INTEGERS:
        value = min(max(pattern, lower), upper)
        return value, value
    form = FORMATS[leaf.dtype]
    sign = 1 << (form.bits - 1)
    for each in (pattern, lower, upper):
        if each & (sign - 1) > form.infinity:
            return each, each
    key, least, most = (-(each ^ sign) if each & sign else each for each in (pattern, lower, upper))
    cut = min(max(key, least), most)
    if cut == key:
        return pattern, pattern
    if cut == 0:
        return sign, 0
    end = sign | -cut if cut < 0 else cut
    return end, end


def _bound(bound: float | Leaf | None, leaf: Leaf, side: Side) -> list[int]:
    """Return the patterns of a bound that is cast so that it still holds, one for each element."""
    if bound is None:
        bound = -math.inf if side == "lower" else math.inf
    x = leaf.array()
    cast = cast_bound(bound.array() if isinstance(bound, Leaf) else bound, x.dtype, side)
    spread = Leaf.of(np.broadcast_to(cast, x.shape)).patterns
    return [_narrow(p, side) for p in spread] if leaf.dtype == "bfloat16" else list(spread)


def _narrow(pattern: int, side: Side) -> int:
    """Return the bfloat16 pattern of a float32 bound that still holds."""
    negative = pattern >> 31 == 1
    away = (side == "upper") == negative and pattern & 0x7FFFFFFF <= 0x7F800000
    return (pattern + (0xFFFF if away else 0)) >> 16
