"""MLX through its small namespace: what it has otherwise than the standard, lazily and while traced."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from adapter_support import Array, answers, neighbours, opened, same

import clipcore as cc
from clipcore.verify.exact import exact_norm


@pytest.fixture
def mx(request: pytest.FixtureRequest) -> Any:
    return opened(request, "mlx.core")


@pytest.fixture
def xp(mx: Any) -> Any:  # noqa: ARG001  # it has to be there
    from clipcore import _mlx

    return _mlx


def put(mx: Any, x: Array) -> Any:
    if x.dtype == ml_dtypes.bfloat16:
        return mx.array(x.view(np.uint16)).view(mx.bfloat16)
    return mx.array(x, dtype=mx.float64) if x.dtype == np.float64 else mx.array(x)


def get(mx: Any, x: Any) -> Array:
    if x.dtype == mx.bfloat16:
        return np.array(x.view(mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(x)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_every_function_gives_the_bits_that_the_standard_asks_for(mx: Any, xp: Any, name: str) -> None:
    with np.errstate(all="ignore"):
        for what, call, arrays in answers(name, "complex64" if name == "float32" else ""):
            got = get(mx, call(xp, *(put(mx, x) for x in arrays)))
            assert same(got, np.asarray(call(np, *arrays))), what


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_all_neighbours_of_all_numbers_of_16_bits_are_right(mx: Any, xp: Any, name: str) -> None:
    numbers, below, above = neighbours(name)
    x = put(mx, numbers)
    assert get(mx, xp.nextafter(x, xp.full_like(x, math.inf))).tobytes() == above.tobytes()
    assert get(mx, xp.nextafter(x, xp.full_like(x, -math.inf))).tobytes() == below.tobytes()
    assert get(mx, xp.nextafter(x, x)).tobytes() == numbers.tobytes()
    assert bool(mx.all(mx.isnan(xp.nextafter(x, xp.full_like(x, math.nan)))))


def test_integers_of_64_bits_are_made_exactly(mx: Any, xp: Any) -> None:
    for dtype, value in ((mx.uint64, 2**64 - 1), (mx.int64, -(2**63)), (mx.int64, 2**53 + 1)):
        assert xp.asarray(value, dtype=dtype).item() == value
        assert xp.full_like(mx.zeros((2,), dtype=dtype), value).tolist() == [value, value]


def test_groups_without_elements_have_norm_zero(mx: Any) -> None:
    for _ in range(20):  # whether MLX's own sum ends depends on what is in memory
        x = mx.zeros((0, 3))
        assert cc.l2_norm(x, axis=0).tolist() == [0.0, 0.0, 0.0]
        assert cc.clip_by_l1_norm(x, 1.0, axis=0).shape == (0, 3)


def test_inside_compile_and_vmap_no_value_is_looked_at(mx: Any) -> None:
    x = mx.array([[3.0, -4.0], [0.3, 0.4]])
    rows = [cc.clip_by_l2_norm(row, 2.5).tolist() for row in x]
    assert mx.vmap(lambda row: cc.clip_by_l2_norm(row, 2.5))(x).tolist() == rows
    assert mx.compile(lambda x: cc.clip_by_l2_norm(x, 2.5, axis=1))(x).tolist() == rows
    with pytest.raises(ValueError, match="traced or lazy"):
        mx.compile(lambda x: cc.clip_by_l2_norm(x, 2.5, nonfinite="raise"))(x)
    assert cc.clip_by_l2_norm(x + 0, 2.5, nonfinite="raise").tolist() == cc.clip_by_l2_norm(x, 2.5).tolist()
    with pytest.raises(FloatingPointError, match=r"NaN or infinity in x"):
        cc.clip_by_l2_norm(x / 0, 2.5, nonfinite="raise")


@pytest.mark.parametrize(
    ("x", "slope"),
    [
        ([3.0, 4.0], [0.32, -0.24]),  # C/N (w - x (w·x)/N²), C = 2.5, N = 5, w = (1, 0)
        ([0.3, 0.4], [1.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
    ],
)
def test_gradients_are_finite_and_right(mx: Any, x: list[float], slope: list[float]) -> None:
    got = mx.grad(lambda x: cc.clip_by_l2_norm(x, 2.5)[0])(mx.array(x))
    assert all(abs(one - other) < 2.0**-22 for one, other in zip(got.tolist(), slope, strict=True))


def test_gradients_of_complex_numbers_are_finite_and_right(mx: Any) -> None:
    def first(x: Any) -> Any:
        return mx.real(cc.clip_by_l2_norm(x.astype(mx.complex64), 2.5))[0]

    got = mx.grad(first)(mx.array([3.0, 4.0])).tolist()
    assert all(abs(one - other) < 2.0**-22 for one, other in zip(got, [0.32, -0.24], strict=True))


@pytest.mark.parametrize("shape", [(), (3,), (0, 2)], ids=str)
def test_out_is_written_in_place(mx: Any, shape: tuple[int, ...]) -> None:
    x = mx.full(shape, 2.0)
    held = x
    assert cc.clip_by_value(x, -1, 1, out=x) is held
    assert held.tolist() == mx.full(shape, 1.0).tolist()


def test_where_the_default_device_has_no_float64_norms_are_float32_to_four_ulp(mx: Any) -> None:
    gpu = mock.Mock(type=mx.gpu)
    x = np.random.default_rng(5).standard_normal(1000).astype(np.float32)
    low, high = exact_norm([x], 2).bounds()
    with mock.patch("clipcore._mlx.mx.default_device", return_value=gpu):
        clipped, norm = cc.clip_by_global_norm(mx.array(x), 1.0)
    assert norm.dtype == mx.float32
    assert low * (1 - 4 * 2.0**-23) <= norm.item() <= high * (1 + 4 * 2.0**-23)
    assert exact_norm([np.array(clipped)], 2).compare(1 + 4 * 2.0**-23) <= 0
