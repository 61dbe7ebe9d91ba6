"""What goes over the wire: how many numbers, and why ten thousand ranks get the same bits from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipcore_backends._protocol import Sum
from edge_support import NO_FLOAT64, NUMPY, STRICT, Machine, bits, on_ranks
from ranks_cases import ORDERS, Array, Case, answer, cases, drawn
from ranks_judge import flaws

import clipcore as cc
from clipcore._reduce import BITS, PIECES, all_ranks
from clipcore.verify.exact import exact_norm

PAGE = (Path(__file__).parents[1] / "docs" / "many_machines.md").read_text()
RNG = np.random.default_rng(20261127)

each_order = pytest.mark.parametrize("order", ORDERS)


def in_order(arrays: Sequence[Array]) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def backwards(arrays: Sequence[Array]) -> Array:
    return in_order(arrays[::-1])


def shuffled(arrays: Sequence[Array]) -> Array:
    return in_order([arrays[k] for k in RNG.permutation(len(arrays))])


def by_halves(arrays: Sequence[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    half = len(arrays) // 2
    return by_halves(arrays[:half]) + by_halves(arrays[half:])


WAYS = (in_order, backwards, shuffled, by_halves)
"""Orders in which an engine may add what the ranks send."""


class Waiting(Exception):  # noqa: N818  # nothing went wrong
    """What a rank sends, where it then waits for the others."""


def sent_by(rank: Callable[..., Any], *replies: Array) -> Array:
    """The next array that a rank sends after these replies."""
    waiting = list(replies)

    def all_reduce(array: Any, op: str) -> Any:  # noqa: ARG001
        if waiting:
            return waiting.pop(0)
        raise Waiting(array)

    with pytest.raises(Waiting) as caught:
        rank(all_reduce)
    array: Array = caught.value.args[0]
    return array


def exchanged(ranks: Sequence[Callable[..., Any]]) -> tuple[Array, list[Array]]:
    """The reply to the first call, and what each rank sends in the second."""
    sizes = np.max([sent_by(rank) for rank in ranks], 0)
    return sizes, [sent_by(rank, sizes) for rank in ranks]


def measuring(leaves: list[Array], order: float) -> Callable[..., Any]:
    return lambda all_reduce: cc.global_norm(leaves, ord=order, all_reduce=all_reduce)


@each_order
@pytest.mark.parametrize(("machine", "width"), [(NUMPY, 8), (STRICT, 8), (NO_FLOAT64, 4)], ids=str)
def test_two_calls_carry_eight_numbers_however_many_leaves(
    machine: Machine, width: int, order: float
) -> None:
    for leaves in (1, 1000):
        calls: list[tuple[str, int, int]] = []

        def alone(array: Any, op: str, calls: list[Any] = calls) -> Any:
            plain = array if isinstance(array, np.ndarray) else np.from_dlpack(array)
            calls.append((op, plain.size, plain.nbytes))
            return array

        tree = machine.put([np.ones(3, np.float32)] * leaves)
        cc.clip_by_global_norm(tree, 1.0, ord=order, all_reduce=alone)
        second = ("max", 1, width) if order == math.inf else ("sum", PIECES, PIECES * width)
        assert calls == [("max", 3, 3 * width), second]
    assert 3 + PIECES == 8
    assert "3 + 5 = 8 numbers, 64 bytes" in PAGE


@pytest.mark.parametrize("count", [2, 10_000, 2**17])
@pytest.mark.parametrize("order", [1, 2])
def test_what_the_most_equal_and_largest_sums_send_adds_up_exactly_in_any_order(
    order: int, count: int
) -> None:
    # just below the unit, where every piece is as large as it can be
    total = Sum(1 - 2.0**-53, 2.0**-54, 0, 2.0**-54)
    _, (pieces,) = exchanged([lambda all_reduce: all_ranks(total, order, all_reduce)])
    assert (pieces[0], PIECES) == (1 - 2.0 ** -BITS["float64"], len(pieces))
    for way in WAYS:
        summed = way([pieces] * count)
        assert [Fraction(x) for x in summed.tolist()] == [count * Fraction(x) for x in pieces.tolist()]


def test_a_piece_is_so_short_that_ranks_without_end_cannot_round_their_sum() -> None:
    most = {name: 2 ** (precision - BITS[name]) for name, precision in (("float64", 53), ("float32", 24))}
    assert most == {"float64": 2**31, "float32": 2**14}
    assert "2³¹ ranks that exchange float64, 2¹⁴ that exchange float32" in PAGE
    for pieces, lost in ((110, 92), (50, 32)):
        assert 16 * 10**4 * Fraction(2) ** -pieces < Fraction(2) ** -lost
        assert pieces in {bits * PIECES for bits in BITS.values()}
    for name, ranks in most.items():
        largest, kind = Fraction(2) ** BITS[name], np.dtype(name).type
        assert Fraction(float(kind(ranks * largest))) == ranks * largest
        assert Fraction(float(kind(ranks * largest - 1))) == ranks * largest - 1
        # the sum of all is at least 1/16 of the unit: what is dropped is small beside the norm's own error
        dropped = 16 * ranks * Fraction(2) ** (-BITS[name] * PIECES)
        assert dropped <= Fraction(2) ** (-75 if name == "float64" else -32)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("exponent", [-60, -1, 0, 60])
def test_float32_pieces_of_16384_ranks_add_up_exactly_in_any_order(exponent: int, order: float) -> None:
    x = drawn(RNG, 5, "float32", exponent)
    leaf = NO_FLOAT64.put(x)
    sent: list[Array] = []

    def alone(array: Any, op: str) -> Any:  # noqa: ARG001
        sent.append(np.from_dlpack(array))
        return array

    cc.global_norm([leaf], ord=order, all_reduce=alone)
    pieces = sent[1]
    assert pieces.dtype == np.float32
    for k, piece in enumerate(pieces.tolist(), 1):
        steps = piece * 2.0 ** (BITS["float32"] * k)
        assert steps == int(steps)
        assert abs(steps) <= 2 ** BITS["float32"]
    for way in WAYS:
        summed = way([pieces] * 2**14)
        assert [Fraction(x) for x in summed.tolist()] == [2**14 * Fraction(x) for x in pieces.tolist()]


@pytest.mark.parametrize("spread", [20, 300])
@pytest.mark.parametrize("order", [1, 2])
def test_thousands_of_ranks_get_one_norm_whatever_the_order_of_adding(order: float, spread: int) -> None:
    shards = [drawn(RNG, 2, "float64", -int(k)) for k in RNG.integers(0, spread + 1, 3_000)]
    ranks = [measuring([shard], order) for shard in shards]
    sizes, pieces = exchanged(ranks)
    norms = set()
    for way in WAYS:
        replies = [sizes, way(pieces)]
        norms.add(float(ranks[0](lambda array, op, waiting=replies: waiting.pop(0))))
    (norm,) = norms
    low, high = exact_norm(shards, order).bounds()
    assert low * (1 - Fraction(2) ** -52) <= Fraction(norm) <= high * (1 + Fraction(2) ** -52)


def test_a_norm_given_clips_a_copy_to_the_same_bits_beside_any_other_leaves() -> None:
    copy = np.ldexp(RNG.standard_normal(1000), -20).astype(np.float16)
    others: list[list[Array]] = [[], [np.ones(10**5, np.float16)], [np.ones(3)], [np.ones(10**6, np.float32)]]
    for limit in (2.0**-10, 2.0**-3, 1.0, 8.0):
        clipped = [cc.clip_by_global_norm([copy, *other], limit, norm=20.0)[0][0] for other in others]
        assert len({each.tobytes() for each in clipped}) == 1


@pytest.mark.parametrize(("order", "limit"), [(1, 0.52), (1, 0.55), (2, 0.52)])
def test_a_thousand_ranks_keep_the_bound_where_elements_are_subnormal(order: float, limit: float) -> None:
    # each rounding up moves the norm; a rank cannot know how many the others make
    count = 1024
    x = np.array([3 * 2.0**-24] * 1000 + [0.0303], np.float16)

    def alike(array: Any, op: str) -> Any:
        return array * count if op == "sum" else array

    limit *= float(cc.global_norm([x], ord=order, all_reduce=alike))
    clipped, _ = cc.clip_by_global_norm([x], limit, ord=order, all_reduce=alike)
    assert exact_norm(clipped * count, order).compare(limit * (1 + Fraction(2) ** -44)) <= 0


def test_a_norm_given_of_any_order_keeps_the_bound_where_elements_are_subnormal() -> None:
    x = np.array([3 * 2.0**-24] * 1000 + [0.0303], np.float16)
    tree = [x] * 1024
    norm = cc.global_norm(tree, ord=1)
    clipped, _ = cc.clip_by_global_norm([x], 0.52 * float(norm), norm=norm)
    assert exact_norm(clipped * 1024, 1).compare(0.52 * float(norm)) <= 0


def test_leaves_tied_are_listed_once_and_refused_twice_in_place() -> None:
    weight = np.array([3.0, 4.0])
    assert float(cc.global_norm([weight])) == 5.0
    assert float(cc.global_norm([weight, weight])) == math.sqrt(50)
    with pytest.raises(ValueError, match="share bytes"):
        cc.clip_by_global_norm([weight, weight], 1.0, out=[weight, weight])


def test_norms_of_shards_are_leaves_of_the_norm_of_all() -> None:
    for case in cases(4):
        if not case.copies and "scale" not in case.name and case.nonfinite == "propagate":
            locals_ = np.array([float(cc.global_norm(own, ord=case.order)) for own in case.own])
            norm = float(cc.global_norm(locals_, ord=case.order))
            finite = all(np.isfinite(x).all() for x in case.whole)
            if finite:
                low, high = exact_norm(case.whole, case.order).bounds()
                error = Fraction(2) ** -44
                assert low * (1 - error) <= Fraction(norm) <= high * (1 + error)
            else:
                assert math.isnan(norm) == any(np.isnan(x).any() for x in case.whole)
                assert not math.isfinite(norm)


def rows_of_the_page() -> list[list[int]]:
    """The figures of the page's table of ranks."""
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    return [[int(figure.replace(",", "")) for figure in row] for row in rows]


def test_the_costs_on_the_page_are_what_the_formulas_give() -> None:
    rows = rows_of_the_page()
    assert [row[0] for row in rows] == [2, 8, 64, 1024, 10_000]
    for ranks, steps, sent, microseconds, slow in rows:
        per_call = math.ceil(math.log2(ranks))
        assert steps == 2 * per_call
        assert sent == per_call * (3 + PIECES) * 8
        assert microseconds == steps * 5
        assert slow == steps * 50


WRONG = {
    "each rank takes its own norm": lambda reduce: lambda array, op: array,
    "maxima are taken for sums": lambda reduce: lambda array, op: reduce(array, "max"),
    "sums are taken for maxima": lambda reduce: lambda array, op: reduce(array, "sum"),
    "numbers go as float32": lambda reduce: lambda array, op: reduce(np.float64(np.float32(array)), op),
}


@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_the_judge_of_ranks_finds_what_is_wrong(wrong: str | None) -> None:
    found: list[Any] = []
    for case in (each for each in cases(2) if each.nonfinite != "raise"):

        def rank(index: int, reduce: Callable[..., Any], case: Case = case) -> Any:
            return answer(case, index, WRONG[wrong](reduce) if wrong else reduce)

        answers = on_ranks(2, rank)
        stopped = [each for each in answers if isinstance(each, Exception)]
        found += stopped or flaws(case, answers, 1)
    assert bool(found) == bool(wrong), found


def test_the_judge_of_ranks_finds_copies_that_count_twice() -> None:
    (case,) = (each for each in cases(2) if each.name == "replicated" and each.order == 2)
    twice = Case("twice", [case.held(0), case.held(1)], case.limit)
    answers = on_ranks(2, lambda index, reduce: answer(twice, index, reduce))
    assert any("norm" in flaw for flaw in flaws(case, answers, 1))
    assert bits(twice.whole) != bits(case.whole)
