"""The engines are twins: the NumPy engine, the portable one on NumPy's arrays and on array-api-strict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from edge_support import MACHINES, NO_FLOAT64, NUMPY, PORTABLE, Array, Machine, bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clipcore as cc
from clipcore.verify.exact import Norm, exact_norm, factor_bounds, ulps_away
from clipcore.verify.formats import exact_values, format_of

ORDERS: list[float] = [1, 2, math.inf]
DTYPES = ["float32", "float64", "complex64", "complex128"]
few = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


def norm_error(machine: Machine, leaves: list[Array]) -> Fraction:
    """The contract's ε."""
    if not machine.has_float64:
        return 4 * Fraction(2) ** -23
    if any(format_of(x.dtype).bits == 64 for x in leaves):
        return Fraction(2) ** -50 if machine.portable else Fraction(2) ** -52
    return Fraction(2) ** -44


def norm_is_off(machine: Machine, norm: Array, leaves: list[Array], order: float) -> str | None:
    """Say how a norm misses the exact one by more than ε."""
    low, high = exact_norm(leaves, order).bounds()
    form = format_of(norm.dtype)
    if norm.dtype.name != ("float64" if machine.has_float64 else "float32") or norm.shape != ():
        return f"a norm of dtype {norm.dtype} and shape {norm.shape}"
    if not np.isfinite(norm):
        return None if norm > 0 and high > form.largest else f"norm {norm} of a finite tree"
    got = Fraction(float(norm))
    error = max(norm_error(machine, leaves) * high, 4 * form.smallest_subnormal)
    return None if low - error <= got <= high + error else f"norm {norm} is not {float(low)!r}"


def flaws(machine: Machine, leaves: list[Array], limit: float, order: float) -> Iterator[str]:
    """Clip on a machine and say what the contract does not allow, judged by exact arithmetic."""
    results, norm = machine.run(cc.clip_by_global_norm, leaves, limit, ord=order)
    yield from filter(None, [norm_is_off(machine, norm, leaves, order)])
    again, _ = machine.run(cc.clip_by_global_norm, results, limit, ord=order)
    if bits(again) != bits(results):
        yield f"clipping again changes {results} to {again}"
    yield from result_flaws(machine, leaves, results, limit, order)


def result_flaws(
    machine: Machine, leaves: list[Array], results: list[Array], limit: float, order: float
) -> Iterator[str]:
    """Say what the contract does not allow in the result of a clip of one group."""
    exact = exact_norm(leaves, order)
    slack = norm_error(machine, leaves) if machine.portable else Fraction(0)
    # The contract's least error of a norm, where the norm's own dtype is as coarse as the leaves'.
    floor = Fraction(0) if machine.has_float64 else 4 * Fraction(2) ** -149
    if any(got.dtype != x.dtype or got.shape != x.shape for got, x in zip(results, leaves, strict=True)):
        yield f"another form: {results}"
    elif exact.compare(limit * (1 - slack) - floor) <= 0 or limit >= machine.infinite:
        if bits(results) != bits(leaves):
            yield f"changed without need: {results}"
    elif bits(results) != bits(leaves) or exact.compare(limit * (1 + slack) + floor) > 0:
        yield from scaled_flaws(leaves, results, limit, order, exact, slack, floor)


def scaled_flaws(
    leaves: list[Array],
    results: list[Array],
    limit: float,
    order: float,
    exact: Norm,
    slack: Fraction,
    floor: Fraction,
) -> Iterator[str]:
    """Say what laws 1, 3 and 4 do not allow in a clipped result."""
    after = exact_norm(results, order)
    if after.compare(limit * (1 + slack) + floor) > 0:
        yield f"a norm above the limit: {results}"
    factor = factor_bounds(limit, exact)
    roundoff = max(format_of(x.dtype).roundoff for x in leaves)
    normal = True
    for x, got in zip(leaves, results, strict=True):
        form = format_of(x.dtype)
        pairs: Any = zip(exact_values(x), exact_values(got), strict=True)
        for (value, new), sign, new_sign in zip(pairs, signs(x), signs(got), strict=True):
            low, high = factor.ideal(Fraction(value))
            normal &= value == 0 or min(abs(low), abs(high)) >= form.smallest_normal
            if (
                not math.isfinite(new)
                or sign != new_sign
                or (value == 0) > (new == 0)
                or abs(new) > abs(value)
            ):
                yield f"{float(value)!r} became {float(new)!r}"
            else:
                room = slack * max(abs(low), abs(high))
                if ulps_away(Fraction(new), low - room, high + room, x.dtype) > 4:
                    yield f"{float(value)!r} became {float(new)!r}, ideally {float(low)!r}"
    if normal and after.compare(limit * (1 - 4 * roundoff - slack) - floor) < 0:
        yield f"a norm too far below the limit: {results}"


def signs(x: Array) -> list[bool]:
    """The sign bits of all components."""
    parts = np.stack([x.real, x.imag], -1) if x.dtype.kind == "c" else x
    return [bool(sign) for sign in np.signbit(parts).reshape(-1)]


@st.composite
def trees(draw: Callable[..., Any], dtypes: tuple[str, ...] = tuple(DTYPES)) -> list[Array]:
    """One to three leaves of any finite bits, of like magnitude or not."""
    leaves = []
    spread = draw(st.sampled_from([0, 3, 30, 2000]))
    centre = draw(st.integers(-1070, 1023))
    for dtype in draw(st.lists(st.sampled_from(dtypes), min_size=1, max_size=3)):
        kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
        form = format_of(kind)
        size = draw(st.integers(0, 5)) * (2 if kind.kind == "c" else 1)
        bottom, top = form.lowest, int(form.largest).bit_length() - 1
        middle = min(max(centre, bottom), top)
        numbers = []
        for _ in range(size):
            mantissa = draw(
                st.sampled_from([0.0, 1.0, -1.0, 1 + 2.0**-52]) | st.floats(-1.9999999, 1.9999999)
            )
            exponent = draw(st.integers(max(bottom, middle - spread), min(top, middle + spread)))
            numbers.append(math.ldexp(mantissa, exponent))
        largest = float(form.largest)
        x = np.clip(np.array(numbers, "float64"), -largest, largest)
        leaves.append(x.astype(kind.char.lower() if kind.kind == "c" else kind).view(kind))
    return leaves


@st.composite
def cases(
    draw: Callable[..., Any], dtypes: tuple[str, ...] = tuple(DTYPES)
) -> tuple[list[Array], float, float]:
    """Leaves, a limit, often near their norm, and an order."""
    leaves, order = draw(trees(dtypes)), draw(st.sampled_from(ORDERS))
    _, high = exact_norm(leaves, order).bounds()
    ratio = draw(
        st.sampled_from([Fraction(1), 1 + Fraction(2) ** -52, 1 - Fraction(2) ** -52])
        | st.floats(2.0**-10, 2).map(Fraction)
        | st.integers(-1200, 60).map(lambda k: Fraction(2) ** k)
    )
    return leaves, limit_near(high * ratio), order


def limit_near(value: Fraction) -> float:
    return float(min(value, Fraction(np.finfo(np.float64).max)))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@given(case=cases())
@few
def test_each_engine_keeps_the_laws_by_exact_arithmetic(
    machine: Machine, case: tuple[list[Array], float, float]
) -> None:
    assert list(flaws(machine, *case)) == []


@given(case=cases(("float32", "complex64")))
@few
def test_the_portable_engine_keeps_the_laws_on_a_device_without_float64(
    case: tuple[list[Array], float, float],
) -> None:
    assert list(flaws(NO_FLOAT64, *case)) == []


@given(case=cases(("float16", "bfloat16", "float32", "float64")))
@few
def test_the_numpy_engine_keeps_the_laws_with_16_bit_leaves(case: tuple[list[Array], float, float]) -> None:
    assert list(flaws(NUMPY, *case)) == []


@given(case=cases(("float16", "float32", "complex128")))
@few
def test_the_portable_engine_keeps_the_laws_with_float16_leaves(
    case: tuple[list[Array], float, float],
) -> None:
    assert list(flaws(PORTABLE, *case)) == []


@pytest.mark.parametrize("machine", [*MACHINES, NO_FLOAT64], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("parts", [1, 8])
def test_on_either_side_of_the_limit_all_engines_decide_alike(
    machine: Machine, order: float, dtype: str, parts: int
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(512 * (2 if dtype == "complex64" else 1)).astype("float32").view(dtype)
    leaves = np.split(x, parts)
    low, high = exact_norm(leaves, order).bounds()
    near = Fraction(2) ** (-40 if machine.has_float64 else -20)
    above, below = float(high * (1 + near)), float(low * (1 - near))
    assert bits(machine.run(cc.clip_by_global_norm, leaves, above, ord=order)[0]) == bits(leaves)
    clipped = machine.run(cc.clip_by_global_norm, leaves, below, ord=order)[0]
    assert bits(clipped) != bits(leaves)
    assert list(result_flaws(machine, leaves, clipped, below, order)) == []


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_on_either_side_of_the_limit_all_engines_decide_float64_alike(
    machine: Machine, order: float, dtype: str
) -> None:
    x = np.random.default_rng(7).standard_normal(600).view(dtype)
    low, high = exact_norm([x], order).bounds()
    above, below = float(high * (1 + Fraction(2) ** -50)), float(low * (1 - Fraction(2) ** -50))
    assert bits(machine.run(cc.clip_by_global_norm, x, np.nextafter(above, np.inf), ord=order)[0]) == bits(x)
    limit = float(np.nextafter(below, 0))
    clipped = machine.run(cc.clip_by_global_norm, x, limit, ord=order)[0]
    assert bits(clipped) != bits(x)
    assert list(result_flaws(machine, [x], [clipped], limit, order)) == []


CLIPS = {1: (cc.clip_by_l1_norm, cc.l1_norm), 2: (cc.clip_by_l2_norm, cc.l2_norm)}


@pytest.mark.parametrize("machine", [*MACHINES, NO_FLOAT64], ids=str)
@pytest.mark.parametrize("order", CLIPS)
@pytest.mark.parametrize("axis", [0, -1, (0, 2), (2, 1), (0, 1, 2), ()], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_group_along_axes_keeps_the_laws_by_itself(
    machine: Machine, order: int, axis: int | tuple[int, ...], dtype: str
) -> None:
    if not machine.has_float64 and dtype in ("float64", "complex128"):
        dtype = {"float64": "float32", "complex128": "complex64"}[dtype]
    rng = np.random.default_rng(3)
    parts = 2 if dtype.startswith("complex") else 1
    sizes = rng.integers(-30, 30, (3, 4, 5))
    sizes[1] = -120
    x = np.ldexp(rng.standard_normal((3, 4, 5 * parts)), np.repeat(sizes, parts, 2))
    x = x.astype("float32" if dtype in ("float32", "complex64") else "float64").view(dtype)
    x[0, 0], x[:, 2, 1] = -0.0, 0.0
    clip, norm = CLIPS[order]
    limit = 0.75
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = tuple(range(-len(axes), 0))
    got = np.moveaxis(machine.run(clip, x, limit, axis=axis), axes, last)
    norms = machine.run(norm, x, axis=axis)
    groups = np.moveaxis(x, axes, last)
    assert norms.shape == groups.shape[: 3 - len(axes)]
    for index in np.ndindex(norms.shape):
        assert norm_is_off(machine, np.asarray(norms[index]), [groups[index]], order) is None
        assert list(result_flaws(machine, [groups[index]], [got[index]], limit, order)) == []


@pytest.mark.parametrize("machine", [*MACHINES, NO_FLOAT64], ids=str)
@given(
    numbers=st.lists(st.floats(2.0**-10, 2.0**10, width=32), min_size=1, max_size=8),
    signs_of=st.integers(0, 255),
    limit=st.floats(2.0**-9, 2.0**12),
    power=st.sampled_from([-80, -40, -7, -1, 1, 2, 33, 70]),
    order=st.sampled_from(ORDERS),
)
@few
def test_a_change_of_scale_changes_exponents_alone(
    machine: Machine, numbers: list[float], signs_of: int, limit: float, power: int, order: float
) -> None:
    x = np.array([n if signs_of >> k & 1 else -n for k, n in enumerate(numbers)], "float32")
    one, _ = machine.run(cc.clip_by_global_norm, x, limit, ord=order)
    with np.errstate(all="raise"):
        scaled = np.ldexp(x, power)
        other, _ = machine.run(cc.clip_by_global_norm, scaled, math.ldexp(limit, power), ord=order)
        assert bits(other) == bits(np.ldexp(one, power))
