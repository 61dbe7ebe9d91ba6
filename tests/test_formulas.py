"""The formulas without rounding against the same formulas in IEEE arithmetic, written down a second time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from clipcore.verify.formulas import FORMULAS, extended, formula_named
from clipcore.verify.judge import NORM_CLIPS

Direct = Callable[[np.float64, np.float64, np.float64], Any]  # of x, ‖x‖ and C
ROUNDINGS = 2.0**-49  # eight roundings of a double, more than any formula has
ONE = np.float64(1)


def contract(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    if limit == math.inf or norm <= limit:
        return x
    return x * (limit / norm) if np.isfinite(norm) else math.nan


def added(epsilon: float) -> Direct:
    return lambda x, norm, limit: x * np.minimum(ONE, limit / (norm + epsilon))


def optax(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x if norm < limit else x / norm * limit


def adaptive(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x if norm < limit else x * (limit / np.maximum(norm, 1e-6))


def tensorflow(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x * limit / np.maximum(norm, limit)


def tensorflow_global(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x * (limit * np.minimum(ONE / norm, ONE / limit) + (norm - norm))


def off(rule: Direct) -> Direct:
    return lambda x, norm, limit: rule(x, norm, limit) if limit > 0 else x


def max_norm(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x * (np.clip(norm, 0, limit) / (1e-7 + norm))


def paddle(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x if norm <= limit else x * (limit / (norm + (1e-6 if norm <= 1e-30 else 0)))


def paddle_global(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    return x * (limit / np.maximum(norm, limit))


def privacy(x: np.float64, norm: np.float64, limit: np.float64) -> Any:
    factor = np.minimum(ONE, limit / norm)
    return x * (0 if np.isnan(factor) else factor)


DIRECT: dict[str, tuple[Direct, Direct]] = {
    "contract": (contract, contract),
    "torch": (added(1e-6), added(1e-6)),
    "mxnet": (added(1e-8), added(1e-8)),
    "optax": (optax, optax),
    "optax-agc": (adaptive, adaptive),
    "l1-projection": (contract, contract),
    "tensorflow": (tensorflow, tensorflow_global),
    "keras": (off(tensorflow), off(tensorflow_global)),
    "keras-max-norm": (max_norm, max_norm),
    "paddle": (paddle, paddle_global),
    "jax-privacy": (privacy, privacy),
}
SCALING = [
    pair for pair in itertools.product(FORMULAS, NORM_CLIPS) if pair != ("l1-projection", "clip_by_l1_norm")
]
ORDINARY = (0.001, 0.75, 1.0, 3.0, 3.000001, 1000.0)
SMALL = (1e-7, 3e-8, 2e-30, 5e-31, 1e-100)
SPECIAL = (0.0, math.inf, math.nan)


def test_every_formula_is_written_down_here() -> None:
    assert DIRECT.keys() == FORMULAS.keys()
    assert all(FORMULAS[name].name == name for name in FORMULAS)


@pytest.mark.parametrize(("name", "operation"), SCALING)
def test_a_formula_is_its_ieee_evaluation(name: str, operation: str) -> None:
    direct = DIRECT[name][operation == "clip_by_global_norm"]
    norms, limits = (*ORDINARY, *SMALL, *SPECIAL), (*ORDINARY, *SMALL, 0.0, math.inf)
    numbers = (0.0, 1.5, -2.0, 1e-9, -700.0)
    for norm, limit in itertools.product(norms, limits):
        element = FORMULAS[name].element(operation, extended(norm), extended(limit), [])
        bad = (math.inf, -math.inf, math.nan) if not math.isfinite(norm) else ()
        for x in (*numbers, *bad):
            with np.errstate(all="ignore"):
                expected = float(direct(np.float64(x), np.float64(norm), np.float64(limit)))
            got = element(extended(x))
            where = f"x = {x}, ‖x‖ = {norm}, C = {limit}: {got} instead of {expected}"
            if not math.isfinite(expected):
                assert isinstance(got, float), where
                assert got == expected or (math.isnan(got) and math.isnan(expected)), where
            else:
                assert isinstance(got, Fraction), where
                assert abs(got - Fraction(expected)) <= abs(Fraction(expected)) * Fraction(ROUNDINGS), where


@pytest.mark.parametrize("limit", [-1.0, math.nan, -math.inf])
def test_keras_is_off_for_limits_that_are_not_positive(limit: float) -> None:
    for operation in NORM_CLIPS:
        element = FORMULAS["keras"].element(operation, Fraction(5), extended(limit), [])
        assert element(Fraction(3)) == 3


@pytest.mark.parametrize("name", FORMULAS)
def test_what_a_formula_calls_inside_it_leaves_alone(name: str) -> None:
    formula = FORMULAS[name]
    tried = 0
    for norm, limit in itertools.product(map(Fraction, ORDINARY), map(Fraction, (*ORDINARY, 2.5))):
        if formula.inside(norm, limit):
            tried += 1
            for operation in NORM_CLIPS:
                assert formula.element(operation, norm, limit, [norm])(norm) == norm
    assert (tried > 0) == (name != "keras-max-norm")


@pytest.mark.parametrize("name", FORMULAS)
def test_inside_a_formula_is_where_it_leaves_alone(name: str) -> None:
    formula = FORMULAS[name]
    for norm, limit in itertools.product(map(Fraction, ORDINARY), repeat=2):
        kept = [formula.element(each, norm, limit, [norm])(norm) == norm for each in NORM_CLIPS]
        if norm != limit:  # there x/‖x‖·C is x too, by another branch
            assert all(kept) == any(kept) == formula.inside(norm, limit)


VECTORS: list[tuple[list[float], float]] = [
    ([3.0, -4.0], 3.5),
    ([3.0, -4.0, 0.5], 1.0),
    ([1.0, 1.0, 1.0, -1.0], 2.0),
    ([10.0, 0.0, -0.0, 1e-3], 9.9),
    ([5.0], 2.0),
    ([-5.0, 5.0], 1e-3),
    ([2.0, -1.0], 3.0),
    ([2.0, -1.0], 100.0),
    ([0.0, 0.0], 1.0),
]


@pytest.mark.parametrize(("values", "limit"), VECTORS)
def test_the_projection_is_the_nearest_point_of_the_l1_ball(values: list[float], limit: float) -> None:
    """Its optimality conditions: one threshold for all sizes, and the limit reached where it was exceeded."""
    x, most = [Fraction(value) for value in values], Fraction(limit)
    norm = sum(map(abs, x), Fraction(0))
    element = FORMULAS["l1-projection"].element("clip_by_l1_norm", norm, most, x)
    y = [Fraction(element(value)) for value in x]
    if norm <= most:
        assert y == x
        return
    assert sum(map(abs, y)) == most
    cuts = {abs(before) - abs(after) for before, after in zip(x, y, strict=True) if after}
    [threshold] = cuts
    assert all(abs(before) <= threshold for before, after in zip(x, y, strict=True) if not after)
    assert all(before * after >= 0 for before, after in zip(x, y, strict=True))


def test_the_projection_has_an_answer_for_c_0() -> None:
    x = [Fraction(3), Fraction(-4)]
    element = FORMULAS["l1-projection"].element("clip_by_l1_norm", Fraction(7), Fraction(0), x)
    assert [element(value) for value in x] == [0, 0]


def test_an_unknown_formula_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'pytorch' is not known; known are contract, torch, mxnet, optax"):
        formula_named("pytorch")


def test_numbers_become_exact() -> None:
    assert extended(0.1) == Fraction(3602879701896397, 1 << 55)
    assert extended(np.float32(0.1)) == Fraction(13421773, 1 << 27)
    assert extended(Fraction(1, 3)) == Fraction(1, 3)
    assert extended(-math.inf) == -math.inf
    assert isinstance(extended(math.nan), float)


def test_only_tensorflow_lets_the_lower_of_crossing_bounds_win() -> None:
    assert [name for name, formula in FORMULAS.items() if formula.lower_wins] == ["tensorflow"]
