"""The snippets of the findings: run, they make exactly the call that failed."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kit_support import all_cases, called, described, described_case

from clipcore.verify.calling import Drawn, LastKey
from clipcore.verify.judge import Case
from clipcore.verify.report import LEVELS, Level
from clipcore.verify.snippets import snippet
from clipcore.verify.trials import OPERATIONS

DTYPES = ("float64", "bfloat16", "complex64", "uint8", "int64")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Pair = namedtuple("Pair", ["left", "right"])  # a tree of arrays has no field types


def rebuilt(tree: Any, *arguments: Any, **keywords: Any) -> tuple[Any, Any]:
    """The description of a call, and that of what its snippet passes."""
    case = Case("clip_by_l2_norm", "", tree, arguments, keywords)
    again, others, options = called(snippet(case))
    return described_case(case), (described(again), described(list(others)), described(options))


def same(tree: Any, *arguments: Any, **keywords: Any) -> bool:
    given, made = rebuilt(tree, *arguments, **keywords)
    return bool(given == made)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_case_of_the_kit_is_rebuilt_to_the_bit(operation: str, level: Level) -> None:
    wrong: dict[str, str] = {}
    count = 0
    for case in all_cases(operation, level, DTYPES, 5):
        count += 1
        try:
            tree, arguments, keywords = called(snippet(case))
            made: Any = (described(tree), described(list(arguments)), described(keywords))
        except (SyntaxError, AttributeError, NameError, TypeError, ValueError) as error:
            made = error
        if made != described_case(case):
            wrong.setdefault(case.label, repr(made) if isinstance(made, Exception) else snippet(case)[:300])
    assert count > 50
    assert not wrong, f"{len(wrong)} of {count}: {dict(list(wrong.items())[:5])}"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_numbers_come_back_to_the_bit(dtype: str) -> None:
    made = np.dtype(BFLOAT16 if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, 40 * made.itemsize, dtype=np.uint8)
    x = raw.view(made)
    with np.errstate(invalid="ignore"):
        x = x[~np.isnan(x)]
    assert x.size > 20
    assert same(x)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code", ["f2", "f4", "f8", "c8", "c16", "i2", "i4", "i8", "u4"])
def test_the_byte_order_comes_back(code: str, order: str) -> None:
    assert same(np.array([1, 2, 3], order + code))
    assert same(np.array(7, order + code))


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "reversed": lambda x: x[..., ::-1],
    "rows reversed": lambda x: x[::-1],
    "both reversed": lambda x: x[::-1, ::-1],
    "every other column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "transposed": lambda x: x.T,
    "transposed and reversed": lambda x: x.T[::-1],
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "a column broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "one number broadcast": lambda x: np.broadcast_to(x[0, 0], (3, 2)),
    "Fortran": np.asfortranarray,
    "no elements": lambda x: x[:0],
    "0-d": lambda x: x[0, 0, ...],
    "one element": lambda x: x[:1, :1],
}


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<c8", "<i4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_comes_back(layout: str, dtype: str) -> None:
    given, made = rebuilt(LAYOUTS[layout](np.arange(1, 7).reshape(2, 3).astype(dtype)))
    assert made == given


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1,), ()])
def test_what_cannot_be_written_comes_back_like_that(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    x.flags.writeable = False
    assert same(x)


@pytest.mark.parametrize("shape", [(30,), (5, 6), (2, 3, 5), (1, 30), (30, 1)])
def test_long_runs_of_equal_numbers_come_back(shape: tuple[int, ...]) -> None:
    equal = np.full(shape, 0.1, np.float32)
    runs = np.repeat(np.array([0.1, -0.0, 0.0], np.float32), [11, 9, 10]).reshape(shape)
    for x in (equal, runs, runs.T, runs.astype(">f4"), runs.astype(BFLOAT16), runs.astype(np.complex64)):
        assert same(x)
    assert len(snippet(Case("clip_by_l2_norm", "", np.full(100_000, 0.1)))) < 100


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        1 / 3,
        math.inf,
        -math.inf,
        3,
        10**400,
        -(2**63) - 1,
        None,
        True,
        "1",
        1j,
        complex(-0.0, 0.1),
        np.float16(0.1),
        np.float32(0.1),
        np.float64(0.1),
        np.longdouble(1) / 3,
        np.int64(-8),
        np.uint8(255),
        np.bool_(True),
        np.complex64(1 + 0.1j),
        np.array(8.0),
        np.array([0.1, 0.2]),
        BFLOAT16.type(0.1),
    ],
    ids=repr,
)
def test_a_limit_of_any_kind_comes_back(value: Any) -> None:
    assert same(np.array([3.0, 4.0]), value)


@pytest.mark.parametrize(
    "tree",
    [
        [np.float32(0.1), None],
        {"b": np.ones(2), "a": [None, (np.zeros(1),)], 3: ()},
        Drawn([np.ones(2, np.float16), np.ones(1)]),
        [],
        (),
        {},
        Pair(np.ones(2), [np.zeros(1), None]),
        BFLOAT16.type(0.1),
        [np.array([1.0, None], object), np.array(["a"]), np.array(["2020-01-01"], "M8[D]")],
        np.array([True, False]),
    ],
    ids=lambda tree: type(tree).__name__,
)
def test_a_tree_of_any_kind_comes_back(tree: Any) -> None:
    given, made = rebuilt(tree, 1.0)
    assert made == given


def test_a_leaf_that_stands_twice_is_two_equal_leaves() -> None:
    x = np.array([3.0, -4.0])
    assert same([x, x], 1.0)


def test_nan_comes_back_as_nan_of_the_same_sign() -> None:
    assert same(np.array([np.nan, -np.nan, 1.0], np.float32))


def test_keywords_come_back() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert same(x, 1.0, axis=(0, -1), nonfinite="zero", out="new", ord=math.inf)
    assert same(x, 1.0, out=[np.full(2, 7.0, np.float32)])
    assert same({"kernel": x, "bias": x}, -1.0, 1.0, where=LastKey("kernel"))
    assert same([x, x], -1.0, 1.0, where=LastKey(1))


def test_decimals_are_written_only_where_they_are_the_number() -> None:
    code = snippet(Case("clip_by_l2_norm", "", np.array([0.5, 0.1])))
    assert "0.5" in code
    assert "0.1]" not in code
    assert float.fromhex("0x1.999999999999ap-4") == 0.1
    assert "0x1.999999999999ap-4" in code
