"""Paddle through its small namespace: the kernels that a CPU lacks, derivatives, static graphs."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from adapter_support import Array, answers, neighbours, opened, same

import clipcore as cc


@pytest.fixture
def paddle(request: pytest.FixtureRequest) -> Any:
    return opened(request, "paddle", crashes_after="tensorflow")


@pytest.fixture
def xp(paddle: Any) -> Any:  # noqa: ARG001  # it has to be there
    from clipcore import _paddle

    return _paddle


def put(paddle: Any, x: Array) -> Any:
    # Paddle takes uint16 for bfloat16
    return paddle.to_tensor(x.view(np.uint16) if x.dtype == ml_dtypes.bfloat16 else x)


def get(paddle: Any, x: Any) -> Array:
    if x.dtype == paddle.bfloat16:
        return np.array(x.view("uint16").numpy()).view(ml_dtypes.bfloat16)
    return np.array(x.numpy())


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_every_function_gives_the_bits_that_the_standard_asks_for(paddle: Any, xp: Any, name: str) -> None:
    with np.errstate(all="ignore"):
        for what, call, arrays in answers(name, {"float32": "complex64", "float64": "complex128"}[name]):
            got = get(paddle, call(xp, *(put(paddle, x) for x in arrays)))
            assert same(got, np.asarray(call(np, *arrays))), what


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_all_neighbours_of_all_numbers_of_16_bits_are_right(paddle: Any, xp: Any, name: str) -> None:
    numbers, below, above = neighbours(name)
    x = put(paddle, numbers)
    assert get(paddle, xp.nextafter(x, xp.full_like(x, math.inf))).tobytes() == above.tobytes()
    assert get(paddle, xp.nextafter(x, xp.full_like(x, -math.inf))).tobytes() == below.tobytes()
    assert get(paddle, xp.nextafter(x, x)).tobytes() == numbers.tobytes()
    assert bool(paddle.all(paddle.isnan(xp.nextafter(x, xp.full_like(x, math.nan)))))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int16", "uint8", "int8"])
def test_choosing_among_numbers_of_16_bits_and_fewer_keeps_all_bits(paddle: Any, xp: Any, name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    everything = np.arange(2**16).astype(np.uint16).view(dtype)
    x = put(paddle, everything)
    yes, no = paddle.to_tensor(True), paddle.to_tensor(False)
    assert get(paddle, xp.where(yes, x, xp.zeros_like(x))).tobytes() == everything.tobytes()
    assert get(paddle, xp.where(no, xp.zeros_like(x), x)).tobytes() == everything.tobytes()


def test_integers_of_64_bits_are_made_exactly(paddle: Any, xp: Any) -> None:
    like = paddle.zeros([2], "int64")
    for value in (2**63 - 1, -(2**63), 2**53 + 1):
        assert xp.full_like(like, value).tolist() == [value, value]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("x", "slope"),
    [
        ([3.0, 4.0], [0.32, -0.24]),  # C/N (w - x (w·x)/N²), C = 2.5, N = 5, w = (1, 0)
        ([0.25, 0.5], [1.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
    ],
)
def test_gradients_are_finite_and_right(paddle: Any, name: str, x: list[float], slope: list[float]) -> None:
    leaf = paddle.to_tensor(x, dtype=name)
    leaf.stop_gradient = False
    cc.clip_by_l2_norm(leaf, 2.5)[0].backward()
    roundoff = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    got = leaf.grad.astype("float64").tolist()
    assert all(abs(one - other) <= 8 * roundoff for one, other in zip(got, slope, strict=True))


@pytest.mark.parametrize("shape", [[], [3], [0, 2]], ids=str)
def test_out_is_written_in_place_parameters_too(paddle: Any, shape: list[int]) -> None:
    x = paddle.full(shape, 2.0)
    assert cc.clip_by_value(x, -1, 1, out=x) is x
    assert x.tolist() == paddle.full(shape, 1.0).tolist()
    x.stop_gradient = False
    assert cc.clip_weights([x], None, 0.5, out=[x])[0] is x
    assert x.is_leaf
    assert x.tolist() == paddle.full(shape, 0.5).tolist()


def test_tensors_without_values_are_refused_with_what_to_do(paddle: Any) -> None:
    paddle.enable_static()
    try:
        x = paddle.static.data("x", [2], "float32")
        with pytest.raises(
            TypeError, match=r"x is .*static graphs are not supported.*paddle\.jit\.to_static"
        ):
            cc.clip_by_l2_norm(x, 1.0)
    finally:
        paddle.disable_static()


def test_sparse_tensors_are_refused_with_what_to_call(paddle: Any) -> None:
    sparse = paddle.sparse.sparse_coo_tensor([[0, 2]], [1.0, 2.0], [3])
    with pytest.raises(TypeError, match=r"as its to_dense\(\) returns it"):
        cc.clip_by_global_norm([sparse], 1.0)
    embedding = paddle.nn.Embedding(3, 2, sparse=True)
    embedding(paddle.to_tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"tree\['emb'\] is .*sparse=False"):
        cc.clip_by_global_norm({"emb": embedding.weight.grad}, 1.0)
