"""One array: what people reported of clipping elsewhere, each test named by the thread that tells it."""

from fractions import Fraction
from itertools import pairwise
from math import inf, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer_expectations import (
    FLOATS,
    NORM_SLACK,
    Array,
    all_nan,
    array,
    broken_laws,
    components,
    exact_norm,
    relative_error,
    same_bits,
    same_values,
    ulps_off,
)

from clipcore import (
    clip_by_global_norm,
    clip_by_l1_norm,
    clip_by_l2_norm,
    clip_by_value,
    clip_weights,
    l1_norm,
    l2_norm,
)

NORM_CLIPS = [clip_by_l1_norm, clip_by_l2_norm]


def order_of(clip: Any) -> int:
    return 1 if clip is clip_by_l1_norm else 2


# a norm no square can spoil


@pytest.mark.parametrize(
    ("x", "limit", "expected"),
    [
        pytest.param(array([300], "f2"), 1.0, [1], id="burn#5699"),
        pytest.param(array([600, 800], "f2"), 1.0, [0.6, 0.8], id="numpy#8775-float16"),
        pytest.param(np.array([3e200, 4e200]), 1.0, [0.6, 0.8], id="numpy#8775-float64-large"),
        pytest.param(
            np.array([3, 4]) * 2.0**-700,
            2.0**-700,
            [Fraction(c, 5 << 700) for c in (3, 4)],
            id="numpy#8775-tiny",
        ),
        pytest.param(array([1e20] * 4), 1.0, [0.5] * 4, id="pytorch#46849-finite-1e20"),
        pytest.param(array([3e38] * 4), 1.0, [0.5] * 4, id="keras#14075-norm-beyond-float32"),
        pytest.param(np.full(4, 1.5e308), 1.0, [0.5] * 4, id="numpy#8775-norm-beyond-float64"),
        pytest.param(array([2e11, 0]), 1.0, [1, 0], id="megatron#5395-huge-but-finite"),
    ],
)
def test_finite_input_is_scaled_not_lost(x: Array, limit: float, expected: list[Any]) -> None:
    result = clip_by_l2_norm(x, limit)

    assert broken_laws([x], [result], limit) == []
    # the decimal inputs are rounded themselves, by half an ulp
    assert ulps_off(result, expected) <= 5


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.full(1000, 1e-4, "f2"), id="jax_privacy#309-float16-square-underflows"),
        pytest.param(np.array([1e200, 1e-200]), id="numpy#8775-mixed-magnitudes"),
        pytest.param(np.full(4, 1e-200), id="numpy#8775-1e-200"),
        pytest.param(np.full(4, 5e-324), id="numpy#8775-subnormal"),
        pytest.param(np.full((3, 5), 2.0**-149, "f4"), id="scipy#20136-float32-subnormal"),
        pytest.param(np.full(70, 1000, "f2"), id="espnet#2399-float16-l1-sum-overflows"),
        pytest.param(np.full(9, 60000, "f2"), id="jax#39899-root-before-narrowing"),
        pytest.param(array([3 + 4j, -1j], "c8"), id="pytorch#137484-complex"),
        pytest.param(np.array([3e200 + 4e200j]), id="numpy#31927-complex-large"),
        pytest.param(np.zeros(0, "f4"), id="torchrec#3891-empty"),
        pytest.param(np.zeros((3, 0), "f8"), id="torchrec#3891-empty-2-d"),
        pytest.param(array([-3, 4, -5]), id="lightning#1523-negative-entries-odd-order"),
    ],
)
def test_norms_are_accurate(x: Array) -> None:
    for norm, order in ((l1_norm(x), 1), (l2_norm(x), 2)):
        expected = exact_norm([x], order)
        spacing = Fraction(np.spacing(float(norm)))
        slack = spacing if x.dtype in ("f8", "c16") else max(NORM_SLACK * expected, spacing)

        assert isinstance(norm, np.ndarray)
        assert (norm.dtype, norm.shape) == (np.float64, ())
        assert abs(Fraction(float(norm)) - expected) <= slack


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0**-10])
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_jax_privacy_309_underflowing_squares_are_still_clipped(clip: Any, factor: float) -> None:
    x = np.full(1000, 1e-4, "f2")
    limit = 1e-3 * factor

    assert broken_laws([x], [clip(x, limit)], limit, order_of(clip)) == []


@pytest.mark.parametrize("axis", [0, 1, (0, 1), -1])
def test_scipy_20136_the_safe_norm_does_not_vanish_with_axis(axis: Any) -> None:
    x = np.array([[3e200, 3e-200, 600], [4e200, 4e-200, 800]])
    groups = {0: list(x.T), 1: list(x), -1: list(x)}.get(axis, [x])

    norms = l2_norm(x, axis=axis).ravel()

    pairs = zip(norms, groups, strict=True)
    assert all(relative_error(norm, exact_norm([group])) <= Fraction(1, 2**52) for norm, group in pairs)


@pytest.mark.parametrize("layout", ["contiguous", "strided", "transposed", "broadcast"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_numpy_9852_float32_sums_do_not_stagnate(layout: str, axis: int | None) -> None:
    shape = (2**10, 2**11)
    x = {
        "contiguous": np.full(shape, 1.1, "f4"),
        "strided": np.full((2**11, 2**12), 1.1, "f4")[::2, ::2],
        "transposed": np.full(shape[::-1], 1.1, "f4").T,
        "broadcast": np.broadcast_to(np.float32(1.1), shape),
    }[layout]
    count = x.size if axis is None else shape[axis]
    element = Fraction(float(np.float32(1.1)))

    l1, l2 = l1_norm(x, axis=axis).ravel()[0], l2_norm(x, axis=axis).ravel()[0]

    assert relative_error(l1, element * count) <= NORM_SLACK
    assert abs(Fraction(float(l2)) ** 2 / (element**2 * count) - 1) <= 2 * NORM_SLACK


@pytest.mark.slow
def test_numpy_9852_norm_of_more_than_two_to_the_28_ones() -> None:
    x = np.ones(2**28 + 3, "f4")

    assert l1_norm(x) == 2**28 + 3
    assert abs(Fraction(float(l2_norm(x))) ** 2 / (2**28 + 3) - 1) <= 2 * NORM_SLACK


@pytest.mark.parametrize("dtype", ["i1", "i2", "u8", "?"], ids=lambda dtype: f"numpy#7413-{dtype}")
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_integers_have_no_norm_to_wrap(clip: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match=clip.__name__):
        clip(np.array([1, 0, 1], dtype), 1.0)


# no epsilon, and exactly the limit


@pytest.mark.parametrize("limit", [1.0, 1e-2, 1e-4, 1e-6], ids=lambda limit: f"goodfire-spd#643-{limit}")
def test_the_limit_is_reached_however_small(limit: float) -> None:
    x = np.array([0.6, 0.8]) * limit * 1.0001

    assert broken_laws([x], [clip_by_l2_norm(x, limit)], limit) == []


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: f"differential-privacy#126-{dtype.name}")
@pytest.mark.parametrize("limit", [0.3, 1.0])
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_exact_norm_of_the_result_never_exceeds_the_limit(clip: Any, limit: float, dtype: Any) -> None:
    draws = np.random.default_rng(126).normal(0, 5, (40, 64)).astype(dtype)

    broken = [broken_laws([x], [clip(x, limit)], limit, order_of(clip)) for x in draws]

    assert broken == [[]] * 40


@pytest.mark.parametrize(
    ("x", "limit"),
    [
        pytest.param(array([0, 0]), 0.0, id="optax#1752-zero-over-zero"),
        pytest.param(array([0, -0.0]), 1.0, id="optax#594-zero-vector"),
        pytest.param(array([1e-45, -0.0, 3e-40]), 1.0, id="transformers#41431-subnormals-below-the-limit"),
        pytest.param(array([0.01, 0.02]), 1.0, id="nnabla#572-small-norm-is-not-amplified"),
        pytest.param(array([3, 4]), inf, id="tensorflow#109146-inf"),
        pytest.param(array([3, 4]), 1e300, id="tensorflow#109146-1e300-on-float32"),
        pytest.param(array([3, 4], "f2"), 70000, id="tensorflow#109146-70000-on-float16"),
        pytest.param(array([1, inf, nan, -0.0]), inf, id="feral#16-inf-only-measures"),
    ],
)
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_left_as_it_is(clip: Any, x: Array, limit: float) -> None:
    result = clip(x, limit)

    assert same_bits(result, x)
    assert not np.may_share_memory(result, x)


@pytest.mark.parametrize(("clip", "limit"), [(clip_by_l1_norm, 7.0), (clip_by_l2_norm, 5.0)])
def test_optax_1752_equality_is_not_clipped(clip: Any, limit: float) -> None:
    for dtype in FLOATS:
        assert same_bits(clip(array([3, -4], dtype), limit), array([3, -4], dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: f"optax#594-{dtype.name}")
@pytest.mark.parametrize("limit", [0.0, 1.0, inf])
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_zeros_in_zeros_out(clip: Any, limit: float, dtype: Any) -> None:
    x = array([0.0, -0.0, 0.0], dtype)

    assert same_bits(clip(x, limit), x)


def test_heavyball_72_one_factor_and_never_amplified() -> None:
    x = 2.0 ** np.arange(-20, 20)

    result = clip_by_l2_norm(x, 1.0)

    ratios = [a / b for a, b in zip(components(result), components(x), strict=True)]
    assert max(ratios) <= 1
    assert all(abs(a / b - 1) <= Fraction(8, 2**52) for a, b in pairwise(ratios))


def test_optax_1100_rescaling_to_the_l1_ball_is_not_projecting() -> None:
    x = np.array([1e8, 1e8 + 8])

    result = clip_by_l1_norm(x, 1.0)

    assert broken_laws([x], [result], 1.0, 1) == []
    assert np.allclose(result, 0.5)


@pytest.mark.parametrize("clip", [*NORM_CLIPS, clip_by_global_norm])
@pytest.mark.parametrize(
    ("limit", "error"),
    [
        pytest.param(-1.0, ValueError, id="pytorch#31367-negative"),
        pytest.param(-1e-300, ValueError, id="tensorflow#61242-barely-negative"),
        pytest.param(np.float32(-1), ValueError, id="mlx#4058-numpy-scalar"),
        pytest.param(np.array(-1.0), ValueError, id="tensorflow#61242-0-d-array"),
        pytest.param(nan, ValueError, id="jax_privacy#269-nan"),
        pytest.param(10**400, ValueError, id="pytorch#31367-beyond-float"),
        pytest.param(None, TypeError, id="openNMT#1140-None"),
        pytest.param(1j, TypeError, id="pytorch#137484-complex-limit"),
    ],
)
def test_limits_that_would_reverse_or_spoil_a_gradient(clip: Any, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_norm") as caught:
        clip(array([3, 4]), limit)
    assert clip.__name__ in str(caught.value)


@pytest.mark.parametrize(
    "limit",
    [1, np.float64(1), np.float32(1), np.array(1.0, "f4"), np.int8(1)],
    ids=lambda limit: f"numpy#24976-{type(limit).__name__}",
)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_type_of_the_limit_does_not_matter(dtype: Any, limit: Any) -> None:
    x = array([3, -4], dtype)

    assert same_bits(clip_by_l2_norm(x, limit), clip_by_l2_norm(x, 1.0))
    assert same_bits(clip_by_value(x, -1, limit), array([1, -1], dtype))


@pytest.mark.parametrize("power", [-30, -1, 10, 40], ids=lambda power: f"apex#1727-2^{power}")
def test_loss_scale_by_a_power_of_two_changes_no_bit(power: int) -> None:
    x = np.random.default_rng(1727).normal(size=100).astype("f4")
    scale = np.float32(2.0**power)

    assert same_bits(clip_by_l2_norm(x * scale, 0.7 * 2.0**power), clip_by_l2_norm(x, 0.7) * scale)


# not finite


@pytest.mark.parametrize("place", [0, 3, 6], ids=["first", "middle", "last"])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("clip", NORM_CLIPS)
def test_deepmd_5519_nonfinite_anywhere_under_every_policy(clip: Any, bad: float, place: int) -> None:
    x = np.linspace(-1, 1, 7, dtype="f4")
    x[place] = bad
    given = x.copy()

    assert all_nan(clip(x, 1.0))
    assert same_bits(np.abs(clip(x, 1.0, nonfinite="zero")), np.zeros(7, "f4"))
    with pytest.raises(FloatingPointError, match=clip.__name__):
        clip(x, 1.0, nonfinite="raise", out=x)
    assert same_bits(x, given)


def test_tensorflow_21363_infinity_does_not_become_nan_beside_zero() -> None:
    assert all_nan(clip_by_l2_norm(array([inf, 1]), 1.0))


@pytest.mark.parametrize("rows", [0, 1, 5], ids=lambda rows: f"opacus-batch-{rows}")
def test_per_example_clip_of_any_batch(rows: int) -> None:
    x = np.random.default_rng(rows).normal(0, 3, (rows, 4)).astype("f4")
    x[-1:] = 0
    x[1:2, 2] = nan

    result = clip_by_l2_norm(x, 1.0, axis=1)

    assert result.shape == x.shape
    assert all_nan(result[1:2])
    finite = [row for row in range(rows) if np.isfinite(x[row]).all()]
    assert not any(broken_laws([x[row]], [result[row]], 1.0) for row in finite)


# by value


VALUES = {
    "tensorflow#43433-nan-passes": (array([nan, 1, -9]), -2, 0.5, array([nan, 0.5, -2])),
    "numpy#26280-minus-zero-is-inside": (array([-0.0, -1, 2]), 0, 1, array([-0.0, 0, 1])),
    "numpy#26759-uint8-upper-4550": (np.arange(256, dtype="u1"), 0, 4550, np.arange(256, dtype="u1")),
    "numpy#26759-uint8-lower-minus-one": (np.arange(256, dtype="u1"), -1, None, np.arange(256, dtype="u1")),
    "numpy#14334-float16-upper-70000": (array([1, inf], "f2"), None, 7e4, array([1, 65504], "f2")),
    "numpy#14334-uint64-keeps-its-dtype": (array([1, 2**63], "u8"), 0, 5, array([1, 5], "u8")),
    "array-api#925-int-bounds-on-floats": (array([-1, 0.5, 2]), 0, 1, array([0, 0.5, 1])),
    "dpctl#1489-no-bounds": (array([1, -0.0, inf]), None, None, array([1, -0.0, inf])),
    "numpy#18782-array-bounds-cross": (array([0, 5]), array([3, 3]), array([1, 1]), array([1, 1])),
    "pytorch#172067-nan-in-array-bound": (array([0, 5]), array([nan, 1]), 9, array([nan, 5])),
    "numpy#24253-float32-with-float64-scalar": (array([2]), np.float64(0), np.float64(1), array([1])),
    "deepmd-kit#3601-bfloat16": (
        array([3, -3], ml_dtypes.bfloat16),
        -1,
        1.5,
        array([1.5, -1], ml_dtypes.bfloat16),
    ),
}


@pytest.mark.parametrize(("x", "lower", "upper", "expected"), VALUES.values(), ids=VALUES)
def test_clip_by_value(x: Array, lower: Any, upper: Any, expected: Array) -> None:
    result = clip_by_value(x, lower, upper)

    assert same_values(result, expected)
    assert same_values(clip_by_value(result, lower, upper), expected)
    assert not np.may_share_memory(result, x)


@pytest.mark.parametrize(
    ("error", "x", "lower", "upper"),
    [
        pytest.param(ValueError, array([1]), nan, 1, id="pytorch#76795-nan-bound"),
        pytest.param(ValueError, array([1]), None, nan, id="xarray#5205-nan-is-not-no-bound"),
        pytest.param(ValueError, array([1]), 2, 1, id="numpy#18782-min-above-max"),
        pytest.param(ValueError, array([1], "u1"), None, -1, id="numpy#26759-uint8-upper-minus-one"),
        pytest.param(ValueError, array([1], "f2"), None, -1e6, id="numpy#14334-float16-upper-minus-1e6"),
        pytest.param(ValueError, array([1]), 0.1, 0.1, id="array-api#814-no-float32-is-0.1"),
        pytest.param(TypeError, array([1j], "c8"), -1, 1, id="pytorch#137484-complex-has-no-order"),
    ],
)
@pytest.mark.parametrize("clip", [clip_by_value, clip_weights])
def test_bounds_refused(clip: Any, error: type[Exception], x: Array, lower: Any, upper: Any) -> None:
    with pytest.raises(error, match=clip.__name__):
        clip(x, lower, upper)
