"""The clips made for a GPU: their laws, judged exactly on the CPU, which has the same operations."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from integration_torch_support import gradients, torch_or_skip, with_gradients

from clipcore.verify.exact import norm_bounds
from clipcore.verify.laws import Group, bound, direction, finite_range, identity, norm_accuracy, tightness

EPSILON = Fraction(2) ** -44
ORDERS = (1, 2, math.inf)


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    return torch_or_skip(request)


@pytest.fixture
def lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which takes the CPU for a GPU."""
    torch_or_skip(request)
    lists = importlib.import_module("clipcore.integrations._torch_lists")
    monkeypatch.setattr(lists, "DEVICES", {"cpu"})
    return lists


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("lists")
    return importlib.import_module("clipcore.integrations.torch")


def trees(torch: Any) -> Iterator[list[Any]]:
    """Gradients of many sizes, of every magnitude that a clip can have to do with."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    torch.manual_seed(0)
    for kind in (torch.float32, torch.bfloat16):
        for power in (-100, -20, 0, 20, 100):
            leaves = [torch.randn(size) * 2.0**power for size in (1, 7, 1000)]
            yield [leaf.to(kind) for leaf in leaves]
        yield [torch.full((3, 100), 1.25, dtype=kind), torch.zeros(2, dtype=kind), torch.zeros(0, dtype=kind)]
        yield [torch.full((50,), 1 + 2**-7, dtype=kind)]
    yield [torch.randn(30).bfloat16(), torch.randn(30)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_laws_hold(torch: Any, ours: Any, order: float) -> None:
    for leaves in trees(torch):
        parameters = with_gradients(*leaves)
        before = gradients(parameters)
        low, high = norm_bounds(before, order)
        for limit in (
            0.0,
            float(low / 3),
            float(low) * (1 - 2**-20),
            float(low / 100),
            float(2 * high),
            math.inf,
        ):
            for parameter, leaf in zip(parameters, leaves, strict=True):
                parameter.grad = leaf.clone()
            norm = ours.clip_grad_norm_(parameters, limit, order)
            once = gradients(parameters)
            group = Group(tuple(before), tuple(once), limit, order, EPSILON)
            laws = [law(group) for law in (bound, identity, tightness, direction, finite_range)]
            assert [flaw for flaw in (*laws, norm_accuracy(before, order, norm.numpy(), 1)) if flaw] == []
            assert group.result_norm.compare(limit) <= 0 or limit >= float(high) * (1 - 2.0**-44)
            ours.clip_grad_norm_(parameters, limit, order)
            assert [x.tobytes() for x in gradients(parameters)] == [x.tobytes() for x in once]


def test_a_factor_below_the_normal_range_leaves_less_and_never_more(torch: Any, ours: Any) -> None:
    for power in (127, 130, 140, 150):
        (parameter,) = with_gradients(torch.full((4,), 2.0**100))
        limit = 2.0 ** (101 - power)
        ours.clip_grad_norm_(parameter, limit)
        low, high = norm_bounds(gradients([parameter]), 2)
        assert low >= Fraction(limit) * (1 - Fraction(2) ** max(power - 148, -20))
        assert high <= limit


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_makes_all_of_it_so(torch: Any, ours: Any, value: float) -> None:
    parameters = with_gradients(torch.ones(3), torch.tensor([1.0, value]))
    with pytest.raises(RuntimeError, match=r"gradients\[1\]; .*The total norm"):
        ours.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert parameters[0].grad.tolist() == [1, 1, 1]
    assert str(float(ours.clip_grad_norm_(parameters, 1.0))) == str(value)
    assert all(bool(parameter.grad.isnan().all()) for parameter in parameters)


def test_without_a_limit_what_is_not_finite_stays(torch: Any, ours: Any, lists: Any) -> None:
    parameters = with_gradients(torch.ones(3), torch.tensor([1.0, math.inf]))
    assert lists.serves([parameter.grad for parameter in parameters], math.inf, 2)
    assert float(ours.clip_grad_norm_(parameters, math.inf)) == math.inf
    assert [parameter.grad.tolist() for parameter in parameters] == [[1, 1, 1], [1, math.inf]]


def test_what_lists_cannot_do_exactly_is_left_to_others(torch: Any, lists: Any) -> None:
    ordinary = [torch.ones(2), torch.ones(2, dtype=torch.bfloat16)]
    assert lists.serves(ordinary, 1.0, 2)
    assert lists.serves(ordinary, 0.0, 1)
    assert not lists.serves([*ordinary, torch.ones(2, dtype=torch.float16)], 1.0, 2)
    assert not lists.serves([*ordinary, torch.ones(2, dtype=torch.float64)], 1.0, 2)
    assert not lists.serves([*ordinary, torch.ones(2, device="meta")], 1.0, 2)
    assert not lists.serves([torch.eye(2).to_sparse()], 1.0, 2)
    assert not lists.serves(ordinary, torch.tensor(1.0), 2)
    assert not lists.serves(ordinary, 2.0**-64, 2)
    assert not lists.serves([], 1.0, 2)


def test_without_lists_a_gradient_at_a_time_gives_the_same_norm(torch: Any, ours: Any) -> None:
    (mine,), (other,) = (with_gradients(torch.arange(100.0)) for _ in range(2))
    assert ours.clip_grad_norm_(mine, 1.0) == ours.clip_grad_norm_(other, 1.0, foreach=False)
    torch.testing.assert_close(mine.grad, other.grad, rtol=2**-22, atol=0)
