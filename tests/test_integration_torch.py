"""Gradients of torch, clipped in place: what torch itself tests of its clips, and what differs on purpose."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from integration_torch_support import gradients, of_numpy, torch_or_skip, with_gradients, within
from ranks_run import run

from clipcore.verify import Subject, verify
from clipcore.verify.exact import norm_bounds

ORDERS = (1, 2, math.inf)


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    return torch_or_skip(request)


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Any:
    torch_or_skip(request)
    return importlib.import_module("clipcore.integrations.torch")


@pytest.fixture
def layer(torch: Any) -> Any:
    """A layer whose gradients are long: their norms are 5050, 581.7 and 100."""
    layer = torch.nn.Linear(10, 10)
    layer.weight.grad = torch.arange(1.0, 101).view(10, 10)
    layer.bias.grad = torch.ones(10).div(1000)
    return layer


def test_without_torch_the_import_says_what_to_install() -> None:
    missing = (
        "import sys, pytest; sys.modules['torch'] = None\n"
        "with pytest.raises(ImportError, match=r'clipcore.integrations.torch needs torch 2.8 or newer'):\n"
        "    import clipcore.integrations.torch"
    )
    run([sys.executable, "-c", missing])
    old = (
        "import sys, types, pytest; sys.modules['torch'] = torch = types.ModuleType('torch')\n"
        "torch.__version__ = '2.7.1'\n"
        "with pytest.raises(ImportError, match=r'needs torch 2.8 or newer.*this is 2.7.1'):\n"
        "    import clipcore.integrations.torch"
    )
    run([sys.executable, "-c", old])


# What torch tests of clip_grad_norm_ and clip_grad_value_


@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("norm_type", [1, 2, math.inf, "inf"])
def test_long_gradients_are_scaled_by_one_factor(
    torch: Any, ours: Any, layer: Any, norm_type: Any, foreach: bool | None
) -> None:
    before = [parameter.grad.clone() for parameter in layer.parameters()]
    expected = torch.nn.utils.get_total_norm(before, float(norm_type))
    norm = ours.clip_grad_norm_(layer.parameters(), 2, norm_type=norm_type, foreach=foreach)
    torch.testing.assert_close(norm, expected, check_dtype=False)
    after = torch.nn.utils.get_total_norm([each.grad for each in layer.parameters()], float(norm_type))
    torch.testing.assert_close(float(after), 2.0, rtol=1e-6, atol=0.0)
    assert within(gradients(list(layer.parameters())), 2.0, float(norm_type))
    factors = [each.grad / old for each, old in zip(layer.parameters(), before, strict=True)]
    assert float(torch.cat([factor.view(-1) for factor in factors]).std()) < 1e-7


@pytest.mark.parametrize("norm_type", ORDERS)
def test_short_gradients_stay_as_they_are(torch: Any, ours: Any, layer: Any, norm_type: float) -> None:
    layer.weight.grad = torch.rand(10, 10) / 10000
    layer.bias.grad = -torch.zeros(10)
    before = gradients(list(layer.parameters()))
    norm = ours.clip_grad_norm_(layer.parameters(), 2, norm_type)
    low, high = norm_bounds(before, norm_type)
    assert low * (1 - 2**-44) <= float(norm) <= high * (1 + 2**-44)
    assert [x.tobytes() for x in gradients(list(layer.parameters()))] == [x.tobytes() for x in before]


def test_a_single_tensor_is_taken_for_a_list_of_one(torch: Any, ours: Any) -> None:
    for clip, limit in ((ours.clip_grad_norm_, 2), (ours.clip_grad_value_, 2.5)):
        one, other = with_gradients(*(torch.arange(-50.0, 50) for _ in range(2)))
        clip(one, limit)
        clip([other], limit)
        assert torch.equal(one.grad, other.grad)
        assert not torch.equal(one.grad, torch.arange(-50.0, 50))


def test_an_exhausted_generator_is_warned_of(ours: Any, layer: Any) -> None:
    parameters = layer.parameters()
    assert len(list(parameters)) == 2
    with pytest.warns(
        UserWarning, match=r"^`parameters` is an empty generator, no gradient clipping"
    ) as seen:
        norm = ours.clip_grad_norm_(parameters, 2)
    assert norm == 0
    assert [Path(warning.filename) for warning in seen] == [Path(__file__)]
    assert ours.clip_grad_norm_([], 2) == 0
    assert ours.clip_grad_value_([], 2) is None


@pytest.mark.parametrize("foreach", [None, False, True])
def test_values_are_cut_and_none_is_passed_over(torch: Any, ours: Any, foreach: bool | None) -> None:
    values = torch.arange(-50.0, 50).div(5)
    parameters = with_gradients(values.clone(), None, torch.ones(10) * 2)
    assert ours.clip_grad_value_(iter(parameters), 2.5, foreach=foreach) is None
    assert torch.equal(parameters[0].grad, values.clamp(-2.5, 2.5))
    assert parameters[1].grad is None
    assert bool((parameters[2].grad == 2).all())


@pytest.mark.parametrize("norm_type", ORDERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error_if_asked_for(
    torch: Any, ours: Any, value: float, norm_type: float
) -> None:
    broken = torch.tensor([1.0, value])
    parameters = with_gradients(torch.ones(3), None, broken)
    before = [bits.tobytes() for bits in gradients(parameters)]
    expected = (
        rf"clip_grad_norm_: .*gradients\[2\].*\. The total norm of order {float(norm_type)} for gradients"
    )
    with pytest.raises(RuntimeError, match=expected):
        ours.clip_grad_norm_(parameters, 1.0, norm_type, error_if_nonfinite=True)
    assert [bits.tobytes() for bits in gradients(parameters)] == before
    norm = ours.clip_grad_norm_(parameters, 1.0, norm_type)
    assert str(float(norm)) == str(abs(value))
    assert all(bool(each.grad.isnan().all()) for each in (parameters[0], parameters[2]))


@pytest.mark.parametrize("largest", [1e38, 3e38])
def test_a_long_finite_gradient_is_no_error(torch: Any, ours: Any, largest: float) -> None:
    (parameter,) = with_gradients(torch.full((100,), largest))
    norm = ours.clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True)
    assert float(norm) == pytest.approx(10 * largest, rel=1e-6)  # beyond float32
    assert within(gradients([parameter]), 1.0)
    assert not within(gradients([parameter]), 1 - 2.0**-20)


def test_gradients_of_all_dtypes_share_one_norm(torch: Any, ours: Any) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
    parameters = with_gradients(*(torch.arange(-3.0, 4).to(kind) for kind in kinds))
    before = gradients(parameters)
    norm = ours.clip_grad_norm_(parameters, 2.5)
    assert norm.dtype == torch.float64
    low, high = norm_bounds(before, 2)
    assert low * (1 - 2**-44) <= float(norm) <= high * (1 + 2**-44)
    assert within(gradients(parameters), 2.5)
    assert not within(gradients(parameters), 2.5 * (1 - 2.0**-6))
    assert tuple(parameter.grad.dtype for parameter in parameters) == kinds


# The exact judge


@pytest.mark.slow
def test_the_laws_hold_exactly(ours: Any) -> None:
    subjects = importlib.import_module("clipcore.verify.subjects._torch")

    def clip(parameters: Any, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
        return ours.clip_grad_norm_(parameters, max_norm, ord)

    subject = Subject(clip, "torch", in_place=True, prepare=subjects._parameters, collect=subjects._with_norm)
    report = verify(subject, "clip_by_global_norm", level="exact")
    assert report.passed, report


@pytest.mark.slow
def test_value_clips_hold_exactly(ours: Any) -> None:
    subjects = importlib.import_module("clipcore.verify.subjects._torch")

    def clip(parameter: Any, lower: Any, upper: Any) -> None:
        ours.clip_grad_value_(parameter, subjects.symmetric(lower, upper))

    subject = Subject(clip, "torch", in_place=True, prepare=subjects._parameter, collect=subjects._gradient)
    report = verify(subject, "clip_by_value", level="exact")
    assert report.passed, report


# What differs on purpose


def test_the_bound_has_no_constant_added(torch: Any, ours: Any) -> None:
    for limit in (1e-6, 1e-3, 1.0):
        (mine,), (theirs,) = (with_gradients(torch.full((4,), limit)) for _ in range(2))
        ours.clip_grad_norm_(mine, limit)
        torch.nn.utils.clip_grad_norm_(theirs, limit)
        assert within(gradients([mine]), limit)
        assert not within(gradients([mine]), limit * (1 - 2.0**-22))
        assert within(gradients([theirs]), limit * (1 - 0.3e-6 / limit))  # torch leaves less


def test_a_parameter_given_twice_counts_once(torch: Any, ours: Any) -> None:
    (parameter,) = with_gradients(torch.tensor([3.0, 4.0]))
    norm = ours.clip_grad_norm_([parameter, parameter], 1.0)
    assert norm == 5
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_no_limit_measures_and_a_limit_of_zero_leaves_signed_zeros(torch: Any, ours: Any) -> None:
    broken = torch.tensor([1.0, math.inf])
    parameters = with_gradients(torch.tensor([3.0, -4.0]), broken)
    assert ours.clip_grad_norm_(parameters, math.inf) == math.inf
    assert broken.tolist() == [1.0, math.inf]
    assert ours.clip_grad_norm_(parameters[:1], torch.tensor(0.0)) == 5
    assert str(parameters[0].grad.tolist()) == "[0.0, -0.0]"


def test_the_limit_may_be_a_tensor(torch: Any, ours: Any) -> None:
    mine, other = (with_gradients(torch.tensor([3.0, -4.0])) for _ in range(2))
    ours.clip_grad_norm_(mine, torch.tensor(1.5))
    ours.clip_grad_norm_(other, 1.5)
    assert torch.equal(mine[0].grad, other[0].grad)
    ours.clip_grad_value_(mine, torch.tensor(0.5))
    assert mine[0].grad.tolist() == [0.5, -0.5]


def test_a_value_limit_is_rounded_down(torch: Any, ours: Any) -> None:
    (parameter,) = with_gradients(torch.tensor([3.0, -4.0, math.inf, math.nan], dtype=torch.bfloat16))
    ours.clip_grad_value_(parameter, 0.1)
    assert parameter.grad.tolist()[:3] == [0.099609375, -0.099609375, 0.099609375]  # not 0.10009765625
    assert math.isnan(parameter.grad.tolist()[3])


def test_what_is_wrong_is_said_before_anything_is_written(torch: Any, ours: Any) -> None:
    gradient = torch.tensor([3.0, -4.0])
    parameters = with_gradients(gradient)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda: ours.clip_grad_norm_(parameters, -1.0), ValueError, "max_norm is -1.0; give a number"),
        (lambda: ours.clip_grad_norm_(parameters, math.nan), ValueError, "max_norm is nan"),
        (lambda: ours.clip_grad_norm_(parameters, "1"), TypeError, "max_norm is '1' of type str"),
        (lambda: ours.clip_grad_norm_(parameters, None), TypeError, "max_norm is None"),
        (lambda: ours.clip_grad_norm_([], -1.0), ValueError, "max_norm is -1.0"),
        (
            lambda: ours.clip_grad_norm_(parameters, 1, 1.5),
            ValueError,
            "norm_type is 1.5; choose 1, 2 or inf",
        ),
        (lambda: ours.clip_grad_norm_(parameters, 1, "two"), ValueError, "norm_type is 'two'"),
        (lambda: ours.clip_grad_norm_(parameters, 1, foreach=1), TypeError, "foreach is 1"),
        (
            lambda: ours.clip_grad_norm_(torch.nn.Linear(1, 1), 1),
            TypeError,
            r"parameters is Linear.*model.par",
        ),
        (lambda: ours.clip_grad_norm_([*parameters, 3], 1), TypeError, r"parameters\[1\] is 3 of type int"),
        (lambda: ours.clip_grad_norm_({"a": 1}.items(), 1), TypeError, r"parameters\[0\] is \('a', 1\)"),
        (lambda: ours.clip_grad_value_(parameters, -1.0), ValueError, "clip_value is -1.0; give a number"),
        (lambda: ours.clip_grad_value_(parameters, math.nan), ValueError, "clip_value is nan"),
        (lambda: ours.clip_grad_value_(parameters, "1"), TypeError, "clip_value is '1'"),
        (lambda: ours.clip_grad_value_(parameters, 1, foreach="yes"), TypeError, "foreach is 'yes'"),
    ]
    for call, kind, words in wrong:
        with pytest.raises(kind, match=f"^clip_grad_(norm|value)_: .*{words}"):
            call()
    assert gradient.tolist() == [3.0, -4.0]


def test_gradients_that_cannot_be_clipped_are_named(torch: Any, ours: Any) -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    parameters = [*with_gradients(torch.ones(2)), *embedding.parameters()]
    for clip in (ours.clip_grad_norm_, ours.clip_grad_value_):
        with pytest.raises(
            TypeError, match=r"(?s)gradients\[1\] is .*give a dense tensor, as its to_dense\(\)"
        ):
            clip(parameters, 1.0)
    base = torch.ones(3)
    with pytest.raises(ValueError, match=r"gradients\[0\] and gradients\[1\] share bytes"):
        ours.clip_grad_norm_(with_gradients(base[:2], base[1:]), 1.0)
    complex_ones = with_gradients(torch.ones(2), torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"gradients\[1\] has dtype complex64"):
        ours.clip_grad_value_(complex_ones, 1.0)
    assert bool((parameters[0].grad == 1).all())


def test_gradients_of_every_layout_and_with_a_graph_of_their_own(torch: Any, ours: Any) -> None:
    convolution = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    convolution(torch.ones(1, 3, 5, 5)).square().sum().backward()
    ours.clip_grad_norm_(convolution.parameters(), 0.25)
    assert within(gradients(list(convolution.parameters())), 0.25)
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    (weight.grad,) = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)
    ours.clip_grad_norm_(weight, 1.0)
    assert within([of_numpy(weight.grad)], 1.0)


def test_autograd_knows_that_a_gradient_was_written(torch: Any, ours: Any) -> None:
    for clip in (ours.clip_grad_norm_, ours.clip_grad_value_):
        (parameter,) = with_gradients(torch.tensor([3.0, 4.0]))
        version = parameter.grad._version
        clip(parameter, 0.5)
        assert parameter.grad._version > version
