"""Clipping one array by its norm: the cases of TensorFlow, Keras, Optax, Paddle and others."""

from fractions import Fraction
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pytest
from peer_expectations import (
    FLOATS,
    NORM_SLACK,
    Array,
    all_nan,
    array,
    broken_laws,
    exact_norm,
    relative_error,
    root,
    same_bits,
    ulps_off,
)

from clipcore import clip_by_l1_norm, clip_by_l2_norm, l1_norm, l2_norm

THREE_FOUR = array([[-3, 0, 0], [4, 0, 0]])
WITH_THREE = array([[-3, 0, 0], [4, 0, 3]])
TINY = np.array([3.0, 4]) / 2**20
ROOT_50, ROOT_70 = root(Fraction(50)), root(Fraction(70))
RANGE_96 = array(np.arange(96).reshape(2, 2, 2, 3, 4))


@pytest.mark.parametrize(
    ("x", "limit", "axis", "expected"),
    [
        pytest.param(THREE_FOUR, 4.0, None, [-2.4, 0, 0, 3.2, 0, 0], id="tf-testClipByNormClipped"),
        pytest.param(WITH_THREE, 4.0, 0, [-2.4, 0, 0, 3.2, 0, 3], id="tf-testClipByNormClippedWithDim0"),
        pytest.param(WITH_THREE, 4.0, (1,), [-3, 0, 0, 3.2, 0, 2.4], id="tf-testClipByNormClippedWithDim1"),
        # an average norm of 0.8 over six elements is a norm of 4.8
        pytest.param(THREE_FOUR, 4.8, None, [-2.88, 0, 0, 3.84, 0, 0], id="tf-testClipByAverageNormClipped"),
        pytest.param(array([100, 100]), 1, None, [root(Fraction(1, 2))] * 2, id="keras-test_clip_norm"),
        pytest.param(
            array([[0, 1, 3, 3], [0, 0, 0, 3], [0, 0, 0, 3]]),
            2.0,
            0,
            [0, 1, 2, root(Fraction(4, 3)), 0, 0, 0, root(Fraction(4, 3)), 0, 0, 0, root(Fraction(4, 3))],
            id="keras-test_max_norm",
        ),
        pytest.param(
            array([[0, -0.5, 0], [3, 4, 5], [5, 6, -3], [0, 0, 0]]),
            1.0,
            1,
            [
                0,
                -0.5,
                0,
                3 / ROOT_50,
                4 / ROOT_50,
                5 / ROOT_50,
                5 / ROOT_70,
                6 / ROOT_70,
                -3 / ROOT_70,
                0,
                0,
                0,
            ],
            id="optax-test_per_example_global_norm_clip",
        ),
        pytest.param(
            array([[0.5], [1.5], [-2], [3]]),
            1.0,
            1,
            [0.5, 1, -1, 1],
            id="optax-test_per_example_layer_norm-0",
        ),
        pytest.param(
            np.ones((4, 3, 3, 2), "f4"),
            1.0,
            (1, 2, 3),
            [1 / root(Fraction(18))] * 72,
            id="optax-test_per_example_layer_norm-1",
        ),
        pytest.param(
            np.full((2, 2, 2, 3, 4), 2, "f4"),
            sqrt(2),
            (0, 1, 2),
            [0.5] * 96,
            id="optax-test_adaptive_grad_clip_with_axis-conv3d",
        ),
        pytest.param(array([3 + 4j], "c8"), 1.0, None, [0.6, 0.8], id="torch-complex-modulus"),
    ],
)
def test_clipped_values(x: Array, limit: float, axis: Any, expected: list[Any]) -> None:
    assert ulps_off(clip_by_l2_norm(x, limit, axis=axis), expected) <= 4


UNCHANGED = {
    "tf-testClipByNormNotClipped": (THREE_FOUR, 6.0, None),
    "tf-testClipByNormZero": (np.zeros((2, 3), "f4"), 6.0, None),
    "tf-testClipByNormNotClippedWithAxes": (WITH_THREE, 6.0, 1),
    "tf-testClipByAverageNormNotClipped": (THREE_FOUR, 5.4, None),
    # TensorFlow multiplies by the limit first: NaN, inf and inf in these three
    "tf-clip_by_norm-float16-product-overflows": (np.full(4, 200, "f2"), 500.0, None),
    "tf-clip_by_norm-float16-limit-1000": (np.full(1, 100, "f2"), 1000.0, None),
    "tf-clip_by_norm-float32-limit-1e38": (array([30.0, 40]), 1e38, None),
    # NaN in TensorFlow, Keras and Paddle
    "tf-clip_by_norm-infinite-limit": (array([3.0, 4]), inf, None),
    "paddle-TestClipByNormOp-limit-1e20": (np.linspace(0.5, 1, 100, dtype="f4"), 1e20, None),
    "paddle-TestClipByNormOpFp16Case1-limit-1e20": (np.linspace(0.5, 1, 100, dtype="f2"), 1e20, None),
    # Optax and PyTorch send equality to the branch that scales
    "optax-clip-norm-equal-to-limit": (array([3.0, 4]), 5.0, None),
    "torch-clip_grad_norm_-within-1e-6-of-the-limit": (array([0.375, 0.5]), 0.625 + 2**-24, None),
    # Keras MaxNorm shrinks what is inside by n/(n + 1e-7)
    "keras-MaxNorm-inside-the-ball": (np.full((3, 2), 1e-8, "f4"), 2.0, 0),
    # the bound per layer is sqrt(18), and the norm as well
    "optax-test_per_example_layer_norm_clip-scaled": (np.ones((4, 18), "f4"), np.nextafter(sqrt(18), 5), 1),
    "optax-zero-vector-zero-limit-is-not-nan": (array([0.0, -0.0]), 0.0, None),
}


@pytest.mark.parametrize(("x", "limit", "axis"), UNCHANGED.values(), ids=UNCHANGED)
def test_unchanged_bit_for_bit(x: Array, limit: float, axis: int | None) -> None:
    result = clip_by_l2_norm(x, limit, axis=axis)

    assert same_bits(result, x)
    assert not np.may_share_memory(result, x)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        pytest.param((100,), 1.0, id="paddle-TestClipByNormOp"),
        pytest.param((16, 16), 0.1, id="paddle-TestClipByNormOp-Case2"),
        pytest.param((4, 8, 16), 1.0, id="paddle-TestClipByNormOp-Case3"),
        pytest.param((4, 8, 16), 1e20, id="paddle-TestClipByNormOp-Case1"),
    ],
)
def test_laws_on_uniform_values(dtype: Any, shape: tuple[int, ...], limit: float) -> None:
    x = np.random.default_rng(0).random(shape).astype(dtype)

    assert broken_laws([x], [clip_by_l2_norm(x, limit)], limit) == []
    assert broken_laws([x], [clip_by_l1_norm(x, limit)], limit, 1) == []


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(0.5, id="keras-test_min_max_norm-upper-without-1e-6"),
        pytest.param(1.0, id="keras-test_unit_norm"),
        pytest.param(3.0, id="keras-test_max_norm_from_config_roundtrip"),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_every_column_is_inside_the_ball(limit: float, axis: int) -> None:
    weights = np.random.default_rng(3537).random((40, 40)) * 100 - 50
    weights[0, 0] = 0.0

    result = clip_by_l2_norm(weights, limit, axis=axis)

    columns = zip(np.moveaxis(weights, axis, 1), np.moveaxis(result, axis, 1), strict=True)
    assert not any(broken_laws([before], [after], limit) for before, after in columns)


@pytest.mark.parametrize(
    ("x", "axis", "squares"),
    [
        pytest.param(THREE_FOUR, None, [25], id="tf-global_norm-of-one"),
        pytest.param(array([[1, 2], [3, 4]]), 0, [10, 20], id="optax-test_unitwise_norm-2-d"),
        pytest.param(
            RANGE_96,
            (0, 1, 2),
            [sum((12 * k + unit) ** 2 for k in range(8)) for unit in range(12)],
            id="optax-test_unitwise_norm_with_axis-spatial",
        ),
        pytest.param(
            RANGE_96,
            (3, 4),
            [sum((12 * k + unit) ** 2 for unit in range(12)) for k in range(8)],
            id="optax-test_unitwise_norm_with_axis-channels",
        ),
        pytest.param(
            RANGE_96,
            -1,
            [sum((4 * k + unit) ** 2 for unit in range(4)) for k in range(24)],
            id="optax-test_unitwise_norm_with_axis-last",
        ),
        pytest.param(np.ones((2,) * 6, "f4"), (0, 1, 2), [8] * 8, id="optax-test_unitwise_norm-6-d"),
    ],
)
def test_norms_per_axis(x: Array, axis: Any, squares: list[int]) -> None:
    norms = l2_norm(x, axis=axis)

    assert norms.dtype == np.float64
    assert norms.shape == np.sum(x, axis=axis).shape
    pairs = zip(norms.ravel(), squares, strict=True)
    assert all(relative_error(norm, root(Fraction(square))) <= NORM_SLACK for norm, square in pairs)


@pytest.mark.parametrize(
    ("x", "limit", "expected"),
    [
        pytest.param(array([3, -4, 1]), 4.0, [1.5, -2, 0.5], id="torch-norm_type-1"),
        pytest.param(array([1, 1, 1, 1]), 1.0, [0.25] * 4, id="paddle-norm_type-1"),
        # Optax projects onto the L1 ball, which gives [0, 1]; a rescaled vector keeps its direction
        pytest.param(array([1, 3]), 1.0, [0.25, 0.75], id="optax-projection_l1_ball-is-another-operation"),
    ],
)
def test_l1_rescales(x: Array, limit: float, expected: list[float]) -> None:
    result = clip_by_l1_norm(x, limit)

    assert ulps_off(result, expected) <= 4
    assert broken_laws([x], [result], limit, 1) == []
    assert relative_error(l1_norm(x), exact_norm([x], 1)) <= NORM_SLACK


@pytest.mark.parametrize("clip", [clip_by_l1_norm, clip_by_l2_norm])
@pytest.mark.parametrize(
    ("limit", "error"),
    [
        # TensorFlow reads it as 0, Keras as "off", PyTorch and Optax flip the sign of the gradient
        pytest.param(-1.0, ValueError, id="tf-clip_by_norm-negative"),
        pytest.param(nan, ValueError, id="paddle-clip_by_norm-nan"),
        pytest.param(array([1, 2]), ValueError, id="tf-testClipByNormBadShape"),
        pytest.param("1", TypeError, id="paddle-test_tpyeError"),
        pytest.param(None, TypeError, id="keras-clipnorm-None-is-off"),
        pytest.param(True, TypeError, id="keras-clipnorm-bool"),
    ],
)
def test_limits_refused(clip: Any, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_norm"):
        clip(array([3.0, 4]), limit)


@pytest.mark.parametrize("clip", [clip_by_l1_norm, clip_by_l2_norm])
@pytest.mark.parametrize(
    "x",
    [
        pytest.param(array([3.0, -4, -0.0]), id="keras-clipnorm-zero-is-not-off"),
        pytest.param(np.array([3.0, -4, 0]), id="paddle-ClipGradByNorm-zero-is-no-error"),
    ],
)
def test_limit_zero_gives_zeros_with_their_signs(clip: Any, x: Array) -> None:
    assert same_bits(clip(x, 0), np.copysign(np.zeros_like(x), x))


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("clip", [clip_by_l1_norm, clip_by_l2_norm])
def test_nonfinite_spoils_its_own_row_only(clip: Any, bad: float) -> None:
    # timm and Keras give NaN at an infinity and zeros beside it
    x = array([[3, 4], [bad, 1], [0.25, 0.5]])

    result = clip(x, 1.0, axis=1)

    assert all_nan(result[1])
    assert same_bits(result[2], x[2])
    assert broken_laws([x[0]], [result[0]], 1.0, 1 if clip is clip_by_l1_norm else 2) == []


@pytest.mark.parametrize(
    ("x", "limit", "expected"),
    [
        pytest.param(array([1e30, 1e30]), 1.0, [root(Fraction(1, 2))] * 2, id="tf-overflow-gives-zeros"),
        pytest.param(array([300] * 4, "f2"), 1.0, [0.5] * 4, id="optax-float16-norm-600-silent-zeros"),
        pytest.param(array([40000] * 4, "f2"), 1.0, [0.5] * 4, id="torch-float16-norm-80000-silent-zeros"),
        pytest.param(array([1e200, 0], "f8"), 1.0, [1, 0], id="keras-float64-square-overflows"),
        # Optax, Paddle and JAX-Privacy return this one unclipped, TensorFlow zeros
        pytest.param(array([1e-30, 0]), 1e-31, ["1e-31", 0], id="optax-norm-underflows-unclipped"),
        # PyTorch adds 1e-6 to the norm: a third too short
        pytest.param(
            TINY, 2**-20, [Fraction(3, 5 << 20), Fraction(4, 5 << 20)], id="torch-1e-6-in-denominator"
        ),
    ],
)
def test_where_peers_lose_the_gradient(x: Array, limit: float, expected: list[Any]) -> None:
    result = clip_by_l2_norm(x, limit)

    assert ulps_off(result, expected) <= 4
    assert broken_laws([x], [result], limit) == []


@pytest.mark.parametrize("dtype", ["i4", "u1", "?"], ids=lambda dtype: f"mlx-no-norm-of-{dtype}")
def test_norms_of_integers_are_refused_where_mlx_overflows(dtype: str) -> None:
    for function in (l1_norm, l2_norm):
        with pytest.raises(TypeError, match=function.__name__):
            function(np.ones(3, dtype))
