"""Calls that travel to another interpreter: everything arrives as it was sent."""

from __future__ import annotations

import json
import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kit_support import Array, all_cases, described, described_case

from clipcore.verify.calling import Drawn, LastKey, Opaque, decode, encode, library
from clipcore.verify.report import LEVELS, Level
from clipcore.verify.trials import OPERATIONS

Pair = namedtuple("Pair", ["left", "right"])  # a tree of arrays has no field types
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def sent(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_case_of_the_kit_arrives_as_it_was_sent(operation: str, level: Level) -> None:
    wrong = []
    for case in all_cases(operation, level, ("float32", "complex128", "int64"), 5):
        try:
            arrived = tuple(
                described(sent(each)) for each in (case.tree, list(case.arguments), case.keywords)
            )
        except TypeError as error:
            arrived = (error,)
        if arrived != described_case(case):
            wrong.append(case.label)
    assert wrong == []


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "plain": lambda x: x,
    "reversed": lambda x: x[..., ::-1],
    "both reversed": lambda x: x[::-1, ::-1],
    "every other column": lambda x: x[:, ::2],
    "a window": lambda x: x[1:3, 2:5],
    "every third, backwards": lambda x: x[:, ::-3],
    "transposed": lambda x: x.T,
    "Fortran": np.asfortranarray,
    "broadcast": lambda x: np.broadcast_to(x, (3, *x.shape)),
    "a column broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "one number broadcast": lambda x: np.broadcast_to(x[0, 0], (4, 2)),
    "0-d": lambda x: x[1, 1, ...],
    "no elements": lambda x: x[:0],
    "no columns": lambda x: x[:, :0].T,
    "one element": lambda x: x[2:, 5:],
    "four axes": lambda x: x.reshape(3, 1, 2, 3).transpose(2, 0, 3, 1),
}


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "bfloat16", ">c8", "<c16", ">i4", "u1", "?"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_array_keeps_its_numbers_layout_and_flags(layout: str, dtype: str, writable: bool) -> None:
    kind = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    x = LAYOUTS[layout](np.arange(18).reshape(3, 6).astype(kind))
    if not writable:
        x.flags.writeable = False
    y = sent(x)
    assert described(y) == described(x)
    assert not np.may_share_memory(x, y)
    if x.size > 1:
        kept = [index for index, length in enumerate(x.shape) if length > 1]
        assert [y.strides[index] for index in kept] == [x.strides[index] for index in kept]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_subject_in_this_process_gets_a_copy_of_the_same_layout(layout: str) -> None:
    x = LAYOUTS[layout](np.arange(18.0).reshape(3, 6))
    y = library("numpy").take(x)
    assert described(y) == described(x)
    assert not np.may_share_memory(x, y)


def test_special_numbers_keep_their_bits() -> None:
    patterns = [0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC00000, 0x7F7FFFFF]
    x = np.array(patterns, np.uint32).view(np.float32)
    assert sent(x).view(np.uint32).tolist() == patterns


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(10**400),
        2**63,
        0.1,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        "text, \N{SNOWMAN}",
        complex(-0.0, math.inf),
        np.float32(0.1),
        np.float64(-0.0),
        np.longdouble(1) / 3,
        BFLOAT16.type(0.1),
        np.bool_(True),
        np.int64(-5),
        np.complex64(1j),
        [],
        (),
        {},
        (1,),
        {"b": 1, "a": (2, [None]), 3: {}, None: 0},
        Pair([1.5], None),
        Drawn([1, np.float16(2)]),
        LastKey("kernel"),
        LastKey(0),
    ],
    ids=repr,
)
def test_a_value_of_any_kind_arrives(value: Any) -> None:
    arrived = sent(value)
    assert described(arrived) == described(value)
    assert type(arrived).__name__ == type(value).__name__


def test_nan_arrives() -> None:
    assert math.isnan(sent(math.nan))


def test_arrays_of_objects_and_texts_arrive() -> None:
    objects = np.array([1.0, None, "a"], object)
    assert sent(objects).dtype == object
    assert sent(objects).tolist() == [1.0, None, "a"]
    for x in (np.array(["a", "bc"]), np.array(["2020-01-01"], "M8[D]")):
        assert sent(x).dtype == x.dtype
        assert sent(x).tolist() == x.tolist()


def test_what_is_no_data_arrives_as_a_description() -> None:
    assert sent([object, 1]) == [Opaque("builtins.type", "<class 'object'>"), 1]
    assert isinstance(sent({1, 2}), Opaque)


def test_a_named_tuple_is_of_one_type_on_the_other_side() -> None:
    first, second = sent([Pair(1, 2), Pair(3, 4)])
    assert type(first) is type(second)
    assert (first.left, second.right) == (1, 4)
