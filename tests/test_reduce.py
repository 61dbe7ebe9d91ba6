"""What the ranks exchange: sizes, and pieces of sums that add up exactly in any order."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._protocol import Sum

from clipcore._reduce import PIECES, _root_of_norm, all_ranks

RNG = np.random.default_rng(20261125)
ERROR = 2.0**-54.8


def fraction(total: Sum) -> Fraction:
    return (Fraction(float(total.hi)) + Fraction(float(total.lo))) * Fraction(2) ** int(total.exponent)


def drawn(exponent: int) -> Sum:
    hi = float(RNG.uniform(0.5, 2))
    return Sum(hi, hi * float(RNG.uniform(-(2.0**-53), 2.0**-53)), exponent, ERROR)


@pytest.mark.parametrize("exponent", [-2140, -601, -2, -1, 0, 1, 2, 3, 4, 5, 1200, 2040])
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_the_size_that_ranks_exchange_is_the_root_of_the_norm(order: float, exponent: int) -> None:
    total = drawn(exponent if order == 2 else exponent // 2)
    fourth = Fraction(_root_of_norm(total, order)) ** (4 if order == 2 else 2)
    assert abs(fourth / fraction(total) - 1) < Fraction(1, 2**48)


@pytest.mark.parametrize("exponent", [-2000, -1, 0, 3, 1900])
@pytest.mark.parametrize("order", [1, 2])
def test_a_rank_alone_gets_its_own_sum_back(order: float, exponent: int) -> None:
    for total in (drawn(exponent if order == 2 else exponent // 2) for _ in range(50)):
        found = all_ranks(total, order, lambda array, op: array)
        assert abs(fraction(found) / fraction(total) - 1) <= Fraction(1, 2**85)
        assert found.error == ERROR


def test_a_maximum_is_exchanged_as_the_nearest_float() -> None:
    for share in (-0.9, -0.75, 0.75, 0.9):
        total = Sum(1.5, share * 2.0**-52, 7, ERROR)
        found = all_ranks(total, math.inf, lambda array, op: array)
        assert abs(fraction(found) - fraction(total)) <= Fraction(2**7, 2**53)


def exchanged(totals: list[Sum], order: float) -> np.ndarray[Any, Any]:
    """The pieces that each rank sends for the sum."""
    size = max(_root_of_norm(total, order) for total in totals)
    pieces = []

    def all_reduce(array: Any, op: str) -> Any:
        if op == "max":
            return np.array([size, 0.0, 0.0])
        pieces.append(array)
        return array

    for total in totals:
        all_ranks(total, order, all_reduce)
    return np.array(pieces)


@pytest.mark.parametrize("spread", [0, 30, 200])
@pytest.mark.parametrize("order", [1, 2])
def test_the_pieces_of_4096_ranks_add_up_exactly_in_any_order(order: float, spread: int) -> None:
    pieces = exchanged([drawn(-int(k)) for k in RNG.integers(0, spread + 1, 4096)], order)
    assert pieces.shape == (4096, PIECES)
    for rows in (pieces, RNG.permutation(pieces)):
        assert np.cumsum(rows, axis=0)[-1].tolist() == [math.fsum(column) for column in rows.T]


@pytest.mark.parametrize("spread", [0, 30, 200])
@pytest.mark.parametrize("order", [1, 2])
def test_the_pieces_of_a_rank_are_its_sum_in_the_unit_of_all(order: float, spread: int) -> None:
    totals = [drawn(-int(k)) for k in RNG.integers(0, spread + 1, 20)]
    wanted = sum(map(fraction, totals), Fraction(0))
    pieces = exchanged(totals, order)
    found = sum((Fraction(piece) for piece in pieces.ravel().tolist()), Fraction(0))
    unit = Fraction(2) ** round(math.log2(wanted / found))
    assert abs(found * unit / wanted - 1) <= Fraction(1, 2**80)
