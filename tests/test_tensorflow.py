"""TensorFlow through its small namespace: eager, in tf.function, variables, and what is no dense tensor."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
from adapter_support import Array, answers, neighbours, opened, same

import clipcore as cc

# asked of TensorFlow before it is imported: not to log what it finds on the machine
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def tf(request: pytest.FixtureRequest) -> Any:
    return opened(request, "tensorflow")


@pytest.fixture
def xp(tf: Any) -> Any:  # noqa: ARG001  # it has to be there
    from clipcore import _tensorflow

    return _tensorflow


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_a_negative_zero_is_not_taken_for_the_positive_one_of_a_call_before(
    tf: Any, xp: Any, name: str
) -> None:
    x = tf.zeros(2, name)
    for _ in range(2):
        for zero in (0.0, -0.0):
            assert same(np.asarray(xp.full_like(x, zero)), np.full(2, zero, name))
            assert same(np.asarray(xp.asarray(zero, dtype=x.dtype)), np.asarray(zero, name))


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_every_function_gives_the_bits_that_the_standard_asks_for(tf: Any, xp: Any, name: str) -> None:
    complexes = {"float32": "complex64", "float64": "complex128"}
    with np.errstate(all="ignore"):
        for what, call, arrays in answers(name, complexes.get(name, "")):
            here = [tf.constant(x) for x in arrays]
            want = np.asarray(call(np, *arrays))
            assert same(np.asarray(call(xp, *here)), want), what
            traced = tf.function(call, autograph=False)
            assert same(np.asarray(traced(xp, *here)), want), f"{what} in tf.function"


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_nan_is_the_largest_wherever_it_stands(tf: Any, xp: Any, name: str) -> None:
    for length in (1, 2, 7, 8, 33, 1000):
        for place in {0, length // 2, length - 1}:
            x = np.zeros((2, length))
            x[1, place] = math.nan
            rows = tf.cast(tf.constant(x), name)
            assert np.isnan(np.asarray(xp.max(rows, axis=1), np.float64)).tolist() == [False, True]
            assert np.isnan(np.asarray(xp.minimum(rows, xp.zeros_like(rows)), np.float64))[1, place]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_all_neighbours_of_all_numbers_of_16_bits_are_right(tf: Any, xp: Any, name: str) -> None:
    numbers, below, above = neighbours(name)
    x = tf.constant(numbers)
    assert xp.nextafter(x, xp.full_like(x, math.inf)).numpy().tobytes() == above.tobytes()
    assert xp.nextafter(x, xp.full_like(x, -math.inf)).numpy().tobytes() == below.tobytes()
    assert xp.nextafter(x, x).numpy().tobytes() == numbers.tobytes()
    assert bool(xp.all(xp.isnan(xp.nextafter(x, xp.full_like(x, math.nan)))))


def test_a_variable_gives_a_tensor_and_takes_values_as_out(tf: Any) -> None:
    variable = tf.Variable([3.0, -4.0])
    clipped, norm = cc.clip_by_global_norm({"w": variable}, 100.0)
    assert isinstance(clipped["w"], tf.Tensor)
    assert (clipped["w"].numpy().tolist(), float(norm)) == ([3.0, -4.0], 5.0)
    variable.assign([1.0, 1.0])
    assert clipped["w"].numpy().tolist() == [3.0, -4.0]
    assert cc.clip_by_value(variable, -0.5, 0.5, out=variable) is variable
    assert variable.numpy().tolist() == [0.5, 0.5]
    tf.function(lambda: cc.clip_weights([variable], 0.25, None, out=[variable]) and None)()
    tf.function(lambda: cc.clip_weights([variable], None, 0.25, out=[variable]) and None)()
    assert variable.numpy().tolist() == [0.25, 0.25]


def test_a_tensor_as_out_is_refused(tf: Any) -> None:
    x = tf.constant([2.0])
    with pytest.raises(TypeError, match=r"out cannot be written to in place; leave out= away"):
        cc.clip_by_value(x, -1, 1, out=x)


def test_sparse_and_ragged_gradients_are_refused_with_what_to_call(tf: Any) -> None:
    slices = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([3, 2]))
    with pytest.raises(TypeError, match=r"tree\['emb'\] is .*as tf\.convert_to_tensor returns it"):
        cc.clip_by_global_norm({"emb": slices}, 1.0)
    assert float(cc.global_norm([tf.convert_to_tensor(slices)])) == float(np.sqrt(2.0))
    with pytest.raises(TypeError, match=r"as tf\.sparse\.to_dense returns it"):
        cc.l2_norm(tf.sparse.from_dense([1.0, 0.0]))
    with pytest.raises(TypeError, match=r"as its to_tensor\(\) returns it"):
        cc.clip_by_value(tf.ragged.constant([[1.0], [2.0, 3.0]]), 0, 1)


def test_a_function_of_tensors_gives_the_bits_of_the_eager_call(tf: Any) -> None:
    tree = [tf.constant([[3e30, -4e30], [1.0, 0.0]]), tf.constant([1e-3], tf.float64)]
    eager, norm = cc.clip_by_global_norm(tree, 1.0)
    traced, traced_norm = tf.function(lambda tree: cc.clip_by_global_norm(tree, 1.0))(tree)
    assert [x.numpy().tobytes() for x in (*traced, traced_norm)] == [
        x.numpy().tobytes() for x in (*eager, norm)
    ]
    with pytest.raises(ValueError, match="traced or lazy"):
        tf.function(lambda x: cc.clip_by_l2_norm(x, 1.0, nonfinite="raise"))(tree[0])


@pytest.mark.parametrize("shape", [[None, 2], None], ids=str)
def test_a_shape_that_is_not_known_while_tracing_is_named(tf: Any, shape: list[int | None] | None) -> None:
    clip = tf.function(
        lambda x: cc.clip_by_global_norm({"x": x}, 1.0)[0]["x"],
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    with pytest.raises(ValueError, match=r"tree\['x'\] has the shape .*tf\.ensure_shape"):
        clip(tf.ones((1, 2)))


def slope_of(tf: Any, x: Array, dtype: str) -> list[float]:
    leaf = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        first = cc.clip_by_l2_norm(leaf, 2.5)[0]
    return [float(each) for each in tape.gradient(first, leaf)]


@pytest.mark.parametrize(
    ("x", "slope"),
    [
        ([3.0, 4.0], [0.32, -0.24]),  # C/N (w - x (w·x)/N²), C = 2.5, N = 5, w = (1, 0)
        ([0.3, 0.4], [1.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([1.5, 2.0], [1.0, 0.0]),  # at the limit, where the clip is the identity
    ],
)
@pytest.mark.parametrize(("dtype", "roundoff"), [("float32", 2.0**-24), ("float64", 2.0**-53)])
def test_gradients_are_finite_and_right(
    tf: Any, x: list[float], slope: list[float], dtype: str, roundoff: float
) -> None:
    got = slope_of(tf, np.array(x), dtype)
    assert all(abs(one - other) <= 8 * roundoff for one, other in zip(got, slope, strict=True))
