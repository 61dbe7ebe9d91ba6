"""The CuPy engine keeps the laws by exact arithmetic: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
import pytest
from cuda_on_cpu_machine import machine_at, on_both
from edge_support import Array, bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import CLIPS, ORDERS, cases, flaws, norm_is_off, result_flaws

import clipcore as cc
from clipcore.verify.exact import exact_norm

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


@on_both
@given(case=cases())
@settings(max_examples=150)
def test_every_clip_keeps_the_laws(
    place: str, request: pytest.FixtureRequest, case: tuple[list[Array], float, float]
) -> None:
    assert list(flaws(machine_at(place, request), *case)) == []


@on_both
@given(case=cases(("float16", "bfloat16", "float32", "complex64")))
@settings(max_examples=150)
def test_every_clip_of_leaves_of_32_bits_or_less_keeps_the_laws(
    place: str, request: pytest.FixtureRequest, case: tuple[list[Array], float, float]
) -> None:
    assert list(flaws(machine_at(place, request), *case)) == []


@on_both
@given(case=cases(tuple(DTYPES)))
@settings(max_examples=150)
def test_every_clip_of_mixed_leaves_keeps_the_laws(
    place: str, request: pytest.FixtureRequest, case: tuple[list[Array], float, float]
) -> None:
    assert list(flaws(machine_at(place, request), *case)) == []


@on_both
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 257, 16385])
def test_leaves_of_one_chunk_and_of_several_keep_the_laws(
    place: str, request: pytest.FixtureRequest, dtype: str, size: int, order: float
) -> None:
    machine = machine_at(place, request)
    # Few different numbers: the exact norm of complex ones is a sum of as many roots.
    numbers = np.random.default_rng(size).integers(-20, 21, 2 * size) * math.pi
    x = (
        numbers.view("complex128").astype(dtype)
        if dtype.startswith("complex")
        else numbers[:size].astype(dtype)
    )
    low, _ = exact_norm([x], order).bounds()
    limit = float(low / 3) or 1.0
    results, norm = machine.run(cc.clip_by_global_norm, [x], limit, ord=order)
    assert norm_is_off(machine, norm, [x], order) is None
    again, _ = machine.run(cc.clip_by_global_norm, results, limit, ord=order)
    assert bits(again) == bits(results)
    assert list(result_flaws(machine, [x], results, limit, order)) == []


@on_both
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_either_side_of_the_limit_the_engine_decides_right(
    place: str, request: pytest.FixtureRequest, dtype: str, order: float
) -> None:
    machine = machine_at(place, request)
    x = np.random.default_rng(7).standard_normal(1200).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    low, high = exact_norm([x], order).bounds()
    near = Fraction(2) ** (-50 if dtype in ("float64", "complex128") else -43)
    above, below = np.nextafter(float(high * (1 + near)), np.inf), np.nextafter(float(low * (1 - near)), 0)
    assert bits(machine.run(cc.clip_by_global_norm, x, float(above), ord=order)[0]) == bits(x)
    clipped = machine.run(cc.clip_by_global_norm, x, float(below), ord=order)[0]
    assert bits(clipped) != bits(x)
    assert list(result_flaws(machine, [x], [clipped], float(below), order)) == []


@on_both
@pytest.mark.parametrize("order", CLIPS)
@pytest.mark.parametrize("axis", [0, -1, (0, 2), (2, 1), (0, 1, 2), ()], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_group_along_axes_keeps_the_laws_by_itself(
    place: str, request: pytest.FixtureRequest, order: int, axis: int | tuple[int, ...], dtype: str
) -> None:
    machine = machine_at(place, request)
    rng = np.random.default_rng(3)
    sizes = rng.integers(-6, 6, (3, 4, 10))
    sizes[1] = -9 if dtype == "float16" else -120
    x = np.ldexp(rng.standard_normal((3, 4, 10)), sizes).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    x[0, 0], x[:, 2, 1] = -0.0, 0.0
    clip, norm = CLIPS[order]
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = tuple(range(-len(axes), 0))
    got = np.moveaxis(machine.run(clip, x, 0.75, axis=axis), axes, last)
    norms = machine.run(norm, x, axis=axis)
    groups = np.moveaxis(x, axes, last)
    assert norms.shape == groups.shape[: 3 - len(axes)]
    for index in np.ndindex(norms.shape):
        assert norm_is_off(machine, np.asarray(norms[index]), [groups[index]], order) is None
        assert list(result_flaws(machine, [groups[index]], [got[index]], 0.75, order)) == []


@on_both
@given(
    numbers=st.lists(st.floats(2.0**-10, 2.0**10, width=32), min_size=1, max_size=8),
    limit=st.floats(2.0**-9, 2.0**12),
    power=st.sampled_from([-80, -40, -7, -1, 1, 2, 33, 70]),
    order=st.sampled_from(ORDERS),
)
@settings(max_examples=120)
def test_a_change_of_scale_changes_exponents_alone(
    place: str,
    request: pytest.FixtureRequest,
    numbers: list[float],
    limit: float,
    power: int,
    order: float,
) -> None:
    machine = machine_at(place, request)
    x = np.array(numbers, "float32")
    one, _ = machine.run(cc.clip_by_global_norm, x, limit, ord=order)
    other, _ = machine.run(cc.clip_by_global_norm, np.ldexp(x, power), math.ldexp(limit, power), ord=order)
    assert bits(other) == bits(np.ldexp(one, power))


@on_both
@pytest.mark.parametrize("order", ORDERS)
def test_however_leaves_are_cut_the_norm_is_the_same_to_its_error(
    place: str, request: pytest.FixtureRequest, order: float
) -> None:
    machine = machine_at(place, request)
    x = np.random.default_rng(1).standard_normal(30000).astype("float32")
    for parts in ([x], np.array_split(x, 7), np.array_split(x[::-1], 300), [x.reshape(3, 100, 100).T]):
        norm = machine.run(cc.global_norm, parts, ord=order)
        assert norm_is_off(machine, norm, [x], order) is None
