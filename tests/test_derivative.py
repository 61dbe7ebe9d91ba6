"""Law 11: gradients are finite and right at zero, inside, at the boundary and where clipped."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from libraries import Library, fitting

import clipcore
from clipcore.verify.exact import exact_norm

pytestmark = pytest.mark.filterwarnings("ignore")  # what a library warns of is its own affair

Array = np.ndarray[Any, np.dtype[Any]]
LIBRARIES = (Library.TORCH, Library.JAX, Library.JAX_JIT, Library.JAX_X64, Library.JAX_X64_JIT)
ORDERS: dict[float, Callable[..., Any]] = {
    1: clipcore.clip_by_l1_norm,
    2: clipcore.clip_by_l2_norm,
    math.inf: lambda x, c: clipcore.clip_by_global_norm([x], c, ord=math.inf)[0][0],
}
NORMS: dict[float, Callable[..., Any]] = {
    order: lambda x, order=order: clipcore.global_norm([x], ord=order) for order in ORDERS
}
POINTS = {
    "ordinary": [3.0, -4.0, 0.5, 0.0, 12.0],
    "one element": [0.0, 0.0, -7.0, 0.0, 0.0],
    "large": [3e30, -4e30, 1e29],
    "small": [3e-30, -4e-30, 1e-31],
}
COTANGENT = [0.75, -1.5, 2.0, 1.0, -0.5]


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Library:
    return fitting(request)


each_library = pytest.mark.parametrize(
    "library", [pytest.param(one, id=one.name.lower().replace("_", "-")) for one in LIBRARIES], indirect=True
)
each_order = pytest.mark.parametrize("order", ORDERS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def gradient(library: Library, function: Callable[..., Any], x: Array, cotangent: Array | float) -> Array:
    """The derivative of ``sum(cotangent * function(x))`` by the library's own differentiation."""
    if library is Library.TORCH:
        torch = importlib.import_module("torch")
        leaf = torch.tensor(x, requires_grad=True)
        function(leaf).backward(torch.tensor(cotangent, dtype=function(leaf).dtype))
        assert leaf.grad is not None
        return np.asarray(leaf.grad.numpy())
    jax = importlib.import_module("jax")
    run = jax.jit(function) if library.value.compiled else function
    value, pull = jax.vjp(run, jax.numpy.asarray(x))
    return np.asarray(pull(jax.numpy.asarray(cotangent, dtype=value.dtype))[0])


def slope(x: Array, order: float) -> list[Fraction]:
    """The exact derivative of a norm that is not zero; its root to 120 bits."""
    values = [Fraction(float(value)) for value in x]
    norm = exact_norm([x], order).bounds()[0]
    if order == 2:
        return [value / norm for value in values]
    signs = [Fraction(bool(value > 0) - bool(value < 0)) for value in values]
    if order == 1:
        return signs
    return [sign if abs(value) == norm else Fraction(0) for value, sign in zip(values, signs, strict=True)]


def ideal(x: Array, cotangent: Array, limit: float, order: float) -> list[Fraction]:
    """The exact derivative of x · C / ‖x‖, applied to a cotangent."""
    norm = exact_norm([x], order).bounds()[0]
    weights = [Fraction(float(value)) for value in cotangent]
    along = sum((w * Fraction(float(value)) for w, value in zip(weights, x, strict=True)), Fraction(0))
    return [
        Fraction(limit) / norm * (w - along / norm * part)
        for w, part in zip(weights, slope(x, order), strict=True)
    ]


def near(found: Array, wanted: list[Fraction], scale: Fraction, roundings: int) -> bool:
    """Tell whether gradients are finite, and within some roundings of the exact ones."""
    room = roundings * Fraction(float(np.finfo(found.dtype).eps)) * scale
    return bool(np.isfinite(found).all()) and all(
        abs(Fraction(float(value)) - want) <= room for value, want in zip(found, wanted, strict=True)
    )


def few(library: Library, *numbers: float) -> tuple[float, ...]:
    """The numbers, or where each is compiled anew the first of them."""
    return numbers[:1] if library.value.compiled else numbers


def case(point: str, dtype: str, library: Library) -> tuple[Array, Array]:
    if library.gap("l2_norm", dtype):
        pytest.skip(library.gap("l2_norm", dtype))
    x = np.array(POINTS[point], dtype)
    return x, np.array(COTANGENT[: x.size], dtype)


@each_library
@each_order
@each_dtype
@pytest.mark.parametrize("point", POINTS)
def test_clipped_gradients_are_those_of_the_formula(
    library: Library, order: float, dtype: str, point: str
) -> None:
    x, cotangent = case(point, dtype, library)
    norm = exact_norm([x], order).bounds()[0]
    for share in few(library, 0.5, 0.9, 0.01):
        limit = float(np.dtype(dtype).type(float(norm) * share))
        found = gradient(library, lambda x, limit=limit: ORDERS[order](x, limit), x, cotangent)
        scale = Fraction(limit) / norm * 8
        assert near(found, ideal(x, cotangent, limit, order), scale, 16), (share, found)


@each_library
@each_order
@each_dtype
@pytest.mark.parametrize("point", POINTS)
def test_inside_the_limit_the_gradient_is_the_cotangent(
    library: Library, order: float, dtype: str, point: str
) -> None:
    x, cotangent = case(point, dtype, library)
    limit = 2 * float(exact_norm([x], order).bounds()[0])
    for number in few(library, limit, 1e3 * limit):
        found = gradient(library, lambda x, number=number: ORDERS[order](x, number), x, cotangent)
        assert found.tolist() == cotangent.tolist()


@each_library
@each_order
@each_dtype
def test_at_zero_the_gradient_is_the_cotangent(library: Library, order: float, dtype: str) -> None:
    _, cotangent = case("ordinary", dtype, library)
    for zero in (np.zeros(5, dtype), -np.zeros(5, dtype)):
        for limit in few(library, 0.0, 1.0):
            found = gradient(library, lambda x, limit=limit: ORDERS[order](x, limit), zero, cotangent)
            assert found.tolist() == cotangent.tolist()
        assert gradient(library, NORMS[order], zero, 1.0).tolist() == [0.0] * 5


@each_library
@each_order
@each_dtype
def test_at_the_boundary_the_gradient_is_that_of_either_side(
    library: Library, order: float, dtype: str
) -> None:
    case("ordinary", dtype, library)
    x, cotangent = np.array([3.0, -4.0, 0.0], dtype), np.array([0.75, -1.5, 2.0], dtype)
    limit = float({1: 7.0, 2: 5.0, math.inf: 4.0}[order])
    for number in (limit, float(np.nextafter(x.dtype.type(limit), x.dtype.type(0)))):
        found = gradient(library, lambda x, number=number: ORDERS[order](x, number), x, cotangent)
        inside = [Fraction(float(value)) for value in cotangent]
        sides = (inside, ideal(x, cotangent, number, order))
        assert any(near(found, side, Fraction(8), 16) for side in sides), found


@each_library
@each_order
@each_dtype
@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_of_a_norm_is_its_slope(library: Library, order: float, dtype: str, point: str) -> None:
    x, _ = case(point, dtype, library)
    assert near(gradient(library, NORMS[order], x, 1.0), slope(x, order), Fraction(1), 8)


@each_library
@each_dtype
def test_a_value_that_is_cut_has_no_gradient_and_one_at_its_bound_has(library: Library, dtype: str) -> None:
    case("ordinary", dtype, library)
    x, ones = np.array([-3.0, -1.0, 0.0, 1.0, 2.0, 0.25], dtype), np.ones(6, dtype)
    found = gradient(library, lambda x: clipcore.clip_by_value(x, -1, 1), x, ones)
    assert found.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    weights = gradient(library, lambda x: clipcore.clip_weights({"w": [x]}, -1, 1)["w"][0], x, ones)
    assert weights.tolist() == found.tolist()


@each_library
@each_order
def test_gradients_of_complex_numbers_are_finite(library: Library, order: float) -> None:
    for x in (np.array([3 - 4j, 0, 1j], "complex64"), np.zeros(3, "complex64")):
        for limit in few(library, 1.0, 0.0, 100.0):
            found = gradient(
                library, lambda x, limit=limit: ORDERS[order](x, limit), x, np.ones(3, "complex64")
            )
            assert np.isfinite(found).all()
