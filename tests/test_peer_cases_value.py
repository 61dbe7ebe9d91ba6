"""Clipping by value: the cases of TensorFlow, PyTorch, NumPy, JAX, Paddle, MLX, Optax and Keras."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy import inf, nan
from peer_expectations import Array, array, at_least, at_most, same_bits, same_values

from clipcore import clip_by_value, clip_weights

Bound = float | Array | None
NUMERIC = ["float16", ml_dtypes.bfloat16, "float32", "float64", "int16", "int32", "int64", "uint8"]
RAMP = [[1, 2, 3], [4, 5, 6]]
SPARSE_ROWS = [[[-3.0, 0, 0], [4, 0, 0]], [[0, 2, 0], [0, 0, -1]]]


def ramp(*shape: int, dtype: Any = np.float32) -> Array:
    """Return evenly spaced values in [0, 1), where the peers draw random ones."""
    return np.linspace(0, 1, int(np.prod(shape)), endpoint=False).astype(dtype).reshape(shape)


def clamped(x: Array, lower: Array | None, upper: Array | None) -> Array:
    """Pick x or a bound of its dtype, element by element."""
    low = x if lower is None else np.where(x < lower, lower, x)
    return np.asarray(low if upper is None else np.where(low > upper, upper, low)).astype(x.dtype)


@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        pytest.param(2, 4, [[2, 2, 3], [4, 4, 4]], id="tf-testClipByValue0Type-scalar-scalar"),
        pytest.param(
            [[2, 2, 2], [3, 3, 3]], 4, [[2, 2, 3], [4, 4, 4]], id="tf-testClipByValue1Type-array-scalar"
        ),
        pytest.param(4, [[6] * 3] * 2, [[4, 4, 4], [4, 5, 6]], id="tf-testClipByValue2Type-scalar-array"),
        pytest.param(
            [[2] * 3, [5] * 3],
            [[5] * 3, [7] * 3],
            [[2, 2, 3], [5, 5, 6]],
            id="tf-testClipByValue3Type-array-array",
        ),
    ],
)
def test_scalar_and_array_bounds_of_every_dtype(dtype: Any, lower: Any, upper: Any, expected: Any) -> None:
    bounds = [array(bound, dtype) if isinstance(bound, list) else bound for bound in (lower, upper)]

    assert same_bits(clip_by_value(array(RAMP, dtype), *bounds), array(expected, dtype))


CASES: Mapping[str, tuple[Array, Bound, Bound, Array]] = {
    "tf-testClipByValueNonFinite": (array([nan, inf, -inf]), -4.0, 4.0, array([nan, 4, -4])),
    "tf-IndexedSlices-both-sides": (
        array(SPARSE_ROWS),
        -2.0,
        2.0,
        array([[[-2, 0, 0], [2, 0, 0]], [[0, 2, 0], [0, 0, -1]]]),
    ),
    "tf-IndexedSlices-zeros-lifted": (
        array(SPARSE_ROWS),
        1.0,
        2.0,
        array([[[1, 1, 1], [2, 1, 1]], [[1, 2, 1], [1, 1, 1]]]),
    ),
    "tf-IndexedSlices-zeros-lowered": (
        array(SPARSE_ROWS),
        -2.0,
        -1.0,
        array([[[-2, -1, -1], [-1, -1, -1]], [[-1, -1, -1], [-1, -1, -1]]]),
    ),
    "tf-testClipByValueEmptyTensor-arrays": (
        np.zeros((7, 0)),
        np.zeros((7, 0)),
        np.zeros((7, 0)),
        np.zeros((7, 0)),
    ),
    "tf-testClipByValueEmptyTensor-scalars": (np.zeros((7, 0)), 1.0, 1.0, np.zeros((7, 0))),
    "torch-clamp-inf-nan-kept-and-cut": (
        array([-inf, nan, -3, 3, inf]),
        -1.0,
        1.0,
        array([-1, nan, -1, 1, 1]),
    ),
    "torch-clamp-min-only": (array([-inf, -3, 3, inf]), -1.0, None, array([-1, -1, 3, inf])),
    "torch-clamp-max-only": (array([-inf, -3, 3, inf]), None, 1.0, array([-inf, -3, 1, 1])),
    "torch-clamp-tensor-bounds-broadcast": (
        array([[-2.0, 5], [0.5, 9]]),
        array([-1.0, 6]),
        array([[3.0], [7]]),
        array([[-1.0, 3], [0.5, 7]]),
    ),
    # PyTorch refuses a call without bounds; here it is a copy
    "torch-clamp-no-bounds-is-a-copy-not-an-error": (array([-0.0, nan]), None, None, array([-0.0, nan])),
    "numpy-TestClip-test_nan": (
        np.array([-2, nan, 0.5, 3, 0.25, nan]),
        -1,
        1,
        np.array([-1, nan, 0.5, 1, 0.25, nan]),
    ),
    "numpy-TestClip-max_or_min-lower": (np.arange(8), 3, None, np.array([3, 3, 3, 3, 4, 5, 6, 7])),
    "numpy-TestClip-max_or_min-upper": (np.arange(8), None, 4, np.array([0, 1, 2, 3, 4, 4, 4, 4])),
    "numpy-test_simple_int": (np.arange(10), -2, 4, np.array([0, 1, 2, 3, 4, 4, 4, 4, 4, 4])),
    "numpy-test_type_cast_03-float64-scalars-keep-int32": (
        np.arange(6, dtype=np.int32),
        np.float64(-2),
        np.float64(4),
        np.array([0, 1, 2, 3, 4, 4], np.int32),
    ),
    "numpy-min_max_flip-scalar-and-array": (np.arange(10), 1, np.zeros(10, int), np.zeros(10, int)),
    "numpy-min_max_flip-two-arrays": (np.arange(10), np.ones(10, int), np.zeros(10, int), np.zeros(10, int)),
    "jax-testClipNone": (array([-2.0, 0, 2]), None, None, array([-2.0, 0, 2])),
    "jax-testClipStaticBounds-array-lower": (array([-2.0, 0, 2]), -np.ones(1), None, array([-1.0, 0, 2])),
    "jax-testClipStaticBounds-array-upper": (array([-2.0, 0, 2]), None, np.ones(1), array([-2.0, 0, 1])),
    # the float64 bound is cast inwards: the float32 nearest to -0.9 is inside, so it is the one
    "jax-testClipStaticBounds-float64-arrays": (
        array([-2.0, 0, 2]),
        np.full(1, -0.9),
        np.ones(1),
        np.concatenate([[at_least(-0.9, "f4")], array([0, 1])]),
    ),
    "jax-testClipStaticBounds-0-d": (array(2.0), -1, 1, array(1.0)),
    "mlx-test_clip-scalars": (array([1, 4, 3, 8, 5], "i4"), 2, 6, array([2, 4, 3, 6, 5], "i4")),
    "mlx-test_clip-lower": (array([-1, 1, 0, 5], "i4"), 0, None, array([0, 1, 0, 5], "i4")),
    "mlx-test_clip-upper": (array([2, 3, 4, 5], "i4"), None, 4, array([2, 3, 4, 4], "i4")),
    "mlx-test_clip-array-lower": (
        array([2, 3, 4, 5], "i4"),
        np.array([3, 1, 5, 5]),
        4,
        array([3, 3, 4, 4], "i4"),
    ),
    "mlx-test_clip-arrays-that-cross": (
        array([2, 3, 4, 5], "i4"),
        np.array([3, 1, 5, 5]),
        np.array([5, -1, 2, 9]),
        array([3, -1, 2, 5], "i4"),
    ),
    # MLX promotes both of these to float32
    "mlx-test_clip-float-scalar-keeps-int16": (array([1, 2, 3], "i2"), 0.0, 5, array([1, 2, 3], "i2")),
    "mlx-test_clip-0-d-float32-keeps-float16": (
        array([1, 2, 3], "f2"),
        0.0,
        array(1.0),
        array([1, 1, 1], "f2"),
    ),
    "mlx-test_double-clip": (np.array([0.2]), None, 0.1, np.array([0.1])),
    "paddle-test_clip_dygraph_default_max": (array([1, 2, 3], "i8"), 1, None, array([1, 2, 3], "i8")),
    "paddle-TestClipAPI-upper-below-all": (
        ramp(1, 9, 9, 4),
        None,
        -1.0,
        np.full((1, 9, 9, 4), -1, np.float32),
    ),
    "paddle-TestCase_ZeroSize": (ramp(4, 0, 16), 0.5, 0.5, ramp(4, 0, 16)),
    "paddle-TestClipOp_FP64-whole-range": (
        ramp(8, 16, 8, dtype="f8"),
        -np.finfo("f8").max,
        np.finfo("f8").max,
        ramp(8, 16, 8, dtype="f8"),
    ),
    # Paddle and NumPy answer in floats (2.2, 8.8); here an integer stays one and the bounds move inwards
    "paddle-TestClipAPI_Int-float-bounds-move-inwards": (np.arange(12), 2.2, 8.8, np.arange(12).clip(3, 8)),
    "keras-test_clip_value": (array([100.0, 100]), -1, 1, array([1.0, 1])),
    # Keras takes clipvalue=0 for "off"
    "keras-clipvalue-zero-is-zero-not-off": (array([3.0, 4]), 0, 0, array([0.0, 0])),
    "keras-NonNeg-zeroes-negatives": (np.full((5, 5), -3.0), 0, None, np.zeros((5, 5))),
    "keras-NonNeg-preserves-positives": (np.full((5, 5), 3.0), 0, None, np.full((5, 5), 3.0)),
}


@pytest.mark.parametrize(("x", "lower", "upper", "expected"), CASES.values(), ids=CASES)
def test_result_is_that_of_the_peer_or_the_contract(
    x: Array, lower: Bound, upper: Bound, expected: Array
) -> None:
    given = x.copy()

    result = clip_by_value(x, lower, upper)

    assert same_values(result, expected)
    assert same_bits(x, given)
    assert not np.may_share_memory(result, x)


ROUNDED = {
    # TensorFlow rounds 4.4 to the nearest float32, which is above it
    "tf-testClipByValue": (array([[-5.0, 2, 3], [4, 5, 6]]), -4.4, 4.4),
    "numpy-test_simple_double": (np.linspace(-1, 1, 15), 0.1, 0.6),
    "numpy-test_basic-float16": (np.linspace(0, 1024, 1000).astype("f2"), -12.8, 100.2),
    "numpy-test_basic-big-endian": (np.linspace(0, 1024, 1000).astype(">f4"), -12.8, 100.2),
    "numpy-test_basic-to-nothing-but-zero": (np.linspace(0, 1024, 1000).astype("f4"), 0, 0),
    "numpy-test_record_array-field": (
        np.array([(-5.0, 2), (5, 4)], [("x", "<f8"), ("y", "<f8")])["x"],
        -0.3,
        0.5,
    ),
    "numpy-test_clip_non_contig": (np.linspace(-3, 3, 90).reshape(10, 9)[::2, ::3], -1.6, 1.7),
    "numpy-test_simple_nonnative": (np.linspace(-1, 1, 15).astype(">f8"), -0.5, 0.6),
    "array_api_tests-int-scalars-on-floats": (np.linspace(-3, 3, 7).astype("f4"), -1, 2),
    "paddle-TestClipOp": (ramp(4, 10, 10), 0.1, 0.8),
    "paddle-TestCase1": (ramp(8, 16, 8), 0.0, 0.7),
    "paddle-TestCase3": (ramp(4, 8, 16), 0.2, 0.7),
    "paddle-TestFP16Case3": (ramp(4, 8, 16, dtype="f2"), 0.2, 0.7),
    "paddle-TestBF16Case2": (ramp(8, 16, dtype=ml_dtypes.bfloat16), 0.0, 1.0),
    "paddle-TestBF16Case3": (ramp(4, 8, 16, dtype=ml_dtypes.bfloat16), 0.2, 0.7),
    "paddle-TestCase5-equal-bounds": (ramp(4, 8, 16), 0.5, 0.5),
    "paddle-TestCase6-values-at-the-bounds": (array([0.5, 1.0, 1.0, 0.5]), 0.5, 1.0),
    "paddle-ClipGradByValue": (np.linspace(-1, 1, 784).astype("f4"), 0.1, 0.2),
}


@pytest.mark.parametrize("bounds_are", ["scalars", "float64-arrays"])
@pytest.mark.parametrize(("x", "lower", "upper"), ROUNDED.values(), ids=ROUNDED)
def test_bounds_hold_as_given_after_the_cast(x: Array, lower: float, upper: float, bounds_are: str) -> None:
    given = (lower, upper) if bounds_are == "scalars" else (np.array([lower], "f8"), np.array([upper], "f8"))
    inside = at_least(lower, x.dtype.newbyteorder("=")), at_most(upper, x.dtype.newbyteorder("="))

    assert same_bits(clip_by_value(x, *given), clamped(x, *inside))


@pytest.mark.parametrize(
    ("dtype", "lower", "upper"),
    [
        ("int32", -(2**32) - 1, 2**32),
        ("int32", -(2**320), None),
        ("int32", None, 2**300),
        ("int32", -1000, 2**32),
        ("int32", -(2**32) - 1, 1000),
        ("uint8", -1, 129),
        ("uint8", -1, 300),
        ("uint8", -1, 50),
        ("uint8", 100, 1000),
    ],
    ids=lambda value: f"numpy-test_out_of_bound_pyints-{value}" if isinstance(value, str) else None,
)
def test_python_integers_beyond_the_dtype_are_no_bound(
    dtype: str, lower: int | None, upper: int | None
) -> None:
    x = np.arange(10000).astype(dtype)
    low, high = max(lower or 0, 0), 9999 if upper is None else upper

    result = clip_by_value(x, lower, upper)

    assert same_bits(result, np.array([min(max(int(value), low), high) for value in x], dtype))


REFUSED = {
    "numpy-test_ones_pathological-float": (ValueError, np.ones(10, "f4"), 1, 0),
    "numpy-test_ones_pathological-int": (ValueError, np.ones(10, "i8"), 1, 0),
    "numpy-test_ones_pathological-bool": (TypeError, np.ones(10, "?"), 0, 1),
    "numpy-test_clip_value_min_max_flip-scalars": (ValueError, np.arange(10), 1, 0),
    "torch-clamp-min-above-max-is-not-max": (ValueError, array([1.0]), 2.0, 1.0),
    "tf-clip_by_value-min-above-max-is-not-min": (ValueError, array([1.0]), 2.0, 1.0),
    "torch-clip_grad_value_-negative": (ValueError, array([1.0]), 1.0, -1.0),
    "tf-testClipByValueBadShape-arrays": (
        ValueError,
        np.ones((2, 3, 1), "f4"),
        -array([1, 2]),
        array([1, 2]),
    ),
    "tf-testClipByValueBadShape-upper": (ValueError, np.ones((2, 3, 1), "f4"), 1.0, array([1, 2])),
    # the standard answers in the shape that all three broadcast to
    "array_api_tests-bound-of-larger-shape": (ValueError, np.ones(3, "f4"), np.zeros((2, 3), "f4"), None),
    # NumPy answers NaN everywhere
    "numpy-test_clip_nan-lower": (ValueError, np.arange(7.0), nan, None),
    "numpy-test_clip_nan-upper": (ValueError, np.arange(7.0), -2, nan),
    "numpy-test_clip_scalar_nan_propagation": (
        TypeError,
        np.zeros(10, "i8"),
        np.array(nan),
        np.zeros(10, "i4"),
    ),
    "numpy-test_type_cast_05-float-array-on-int": (TypeError, np.arange(3, dtype="i4"), np.zeros(3), 1),
    "numpy-test_object_clip": (TypeError, np.arange(10, dtype=object), 1, 5),
    "numpy-test_clip_all_none-object": (TypeError, np.arange(10, dtype=object), None, None),
    "numpy-test_clip_problem_cases-timedelta": (TypeError, np.zeros(10, "m8[s]"), 0, 0),
    "numpy-test_simple_complex": (TypeError, np.ones(3, complex), -0.5, 1.0),
    "numpy-test_clip_complex-one-sided": (TypeError, np.ones(3, complex), None, 1.0),
    "jax-testClipComplexInputError": (TypeError, np.ones(5, np.complex64), -1, 1),
    # Paddle has no int8 kernel; here the dtype is fine, but holds no value between the two
    "paddle-TestClipAPI-no-int8-between": (ValueError, np.zeros(1, "i1"), 0.2, 0.8),
    "paddle-TestClipAPI_Int-float-array-bounds": (
        TypeError,
        np.arange(3, dtype="i4"),
        array([2.2]),
        array([8.8]),
    ),
}


@pytest.mark.parametrize(("error", "x", "lower", "upper"), REFUSED.values(), ids=REFUSED)
def test_refusal_where_peers_guess(error: type[Exception], x: Array, lower: Bound, upper: Bound) -> None:
    with pytest.raises(error, match="clip_by_value"):
        clip_by_value(x, lower, upper)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        pytest.param(
            array([nan, 0, 0]), array([9, nan, 1]), array([nan, nan, 1]), id="torch-clamp-nan-in-bounds"
        ),
        pytest.param(array(nan), None, array([nan] * 3), id="array_api_tests-nan-0-d-bound"),
        pytest.param(-5, array([nan, 9, 9]), array([nan, 5, 5]), id="array_api_tests-nan-one-sided"),
    ],
)
def test_nan_in_an_array_bound_propagates(lower: Bound, upper: Bound, expected: Array) -> None:
    np.testing.assert_array_equal(clip_by_value(array([5.0, 5, 5]), lower, upper), expected)


@pytest.mark.parametrize(
    "out_of",
    [
        pytest.param(lambda x: np.zeros(x.shape), id="numpy-test_simple_out"),
        pytest.param(lambda x: x, id="numpy-test_simple_inplace_02"),
        pytest.param(lambda x: np.zeros(x.shape[::-1]).T, id="numpy-test_clip_with_out_transposed"),
        pytest.param(lambda _: np.zeros((6, 12))[::2, ::3], id="numpy-test_noncontig_inplace"),
    ],
)
def test_out_is_filled_and_returned(out_of: Any) -> None:
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    expected = clamped(x, np.array(-0.5), np.array(0.6))
    out = out_of(x)

    assert clip_by_value(x, -0.5, 0.6, out=out) is out
    assert np.array_equal(out, expected)


def test_numpy_test_clip_with_out_memory_overlap() -> None:
    x = np.arange(16).reshape(4, 4)
    expected = np.array([[4] * 4, [4, 5, 6, 7], [8, 9, 10, 10]])

    clip_by_value(x[:-1], 4, 10, out=x[1:])

    assert np.array_equal(x[1:], expected)


@pytest.mark.parametrize(
    "out",
    [
        pytest.param(np.zeros(3, "i8"), id="numpy-test_simple_int64_out-other-dtype"),
        pytest.param(np.zeros((1, 3), "i4"), id="numpy-out-of-a-broadcast-shape"),
    ],
)
def test_out_of_another_form_is_refused_where_numpy_casts(out: Array) -> None:
    with pytest.raises(ValueError, match="out"):
        clip_by_value(np.arange(3, dtype="i4"), -1, 1, out=out)
    assert not out.any()


@pytest.mark.parametrize(
    "bias",
    [
        pytest.param(np.full(10, 2, "f4"), id="torch-test_clip_grad_value"),
        pytest.param(None, id="torch-None-grad"),
    ],
)
def test_gradients_by_value(bias: Array | None) -> None:
    weight = array(np.arange(-50, 50).reshape(10, 10)) / np.float32(5)
    expected = clamped(weight, array(-2.5), array(2.5))

    clipped, kept = clip_weights([weight, bias], -2.5, 2.5)

    assert same_bits(clipped, expected)
    assert kept is None if bias is None else same_bits(kept, bias)
    assert same_bits(clip_by_value(weight, -2.5, 2.5), expected)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(1e6, ([500.0, 5.0], [300.0, 3.0]), id="optax-test_clip-large-delta-changes-nothing"),
        pytest.param(1.0, ([1.0, 1.0], [1.0, 1.0]), id="optax-test_clip-delta-one"),
    ],
)
def test_updates_by_value(limit: float, expected: tuple[list[float], list[float]]) -> None:
    updates = (array([500, 5]), array([300, 3]))

    result = clip_weights(updates, -limit, limit)

    assert isinstance(result, tuple)
    assert all(same_bits(leaf, array(values)) for leaf, values in zip(result, expected, strict=True))


@pytest.mark.parametrize(
    "tree", [[], {}, (), [None, None]], ids=lambda tree: f"torch-clip_grad_value_-{tree}"
)
def test_a_tree_without_leaves_is_returned_where_torch_raises(tree: Any) -> None:
    assert clip_weights(tree, -1.0, 1.0) == tree
