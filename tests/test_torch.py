"""What torch has beyond arrays: parameters, batches, compiled modules, views, layouts."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

import clipcore as cc


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    if request.config.getoption("--require-all"):
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="torch is not installed")


def test_a_batch_is_clipped_row_by_row(torch: Any) -> None:
    rows = torch.tensor([[3.0, -4.0, 0.0], [0.1, 0.2, -0.0], [1e-30, 1e30, 5.0]])
    for clip in (cc.clip_by_l1_norm, cc.clip_by_l2_norm):
        batch = torch.func.vmap(lambda x, clip=clip: clip(x, 1.0))(rows)
        with torch.autograd.forward_ad.dual_level():  # where the portable engine serves too
            assert torch.equal(batch, torch.stack([clip(row, 1.0) for row in rows]))
        with pytest.raises(ValueError, match="traced"):
            torch.func.vmap(lambda x, clip=clip: clip(x, 1.0, nonfinite="raise"))(rows)


def test_a_parameter_is_an_array_like_any_other(torch: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    with torch.no_grad():
        copy = cc.clip_by_value(weight, None, None)
        assert not copy.requires_grad
        assert copy.data_ptr() != weight.data_ptr()
        assert cc.clip_weights({"w": weight}, -1, 1, out={"w": weight})["w"] is weight
    assert weight.tolist() == [1.0, -1.0]


def test_arrays_of_out_that_share_bytes_are_refused_unwritten(torch: Any) -> None:
    x, base = torch.ones(2), torch.zeros(4)
    for out in (
        [base[:2], base[1:3]],
        [base[:2], base[:2]],
        [base[:2], torch.zeros(1).expand(2)],
        [base[:2], base[2:].view(torch.int32).view(torch.float32)[:1].expand(2)],
    ):
        with pytest.raises(ValueError, match="share bytes"):
            cc.clip_by_global_norm([x, x], 1.0, out=out)
        assert base.tolist() == [0.0] * 4
    cc.clip_by_global_norm([x, x], 1.0, out=[base[::2], base[1::2]])
    assert bool((base > 0).all())
    empty = torch.zeros(0)
    cc.clip_by_global_norm([empty, empty], 1.0, out=[empty, empty])


def test_other_layouts_are_refused_with_advice(torch: Any) -> None:
    with pytest.raises(TypeError, match=r"to_dense\(\)"):
        cc.clip_by_l2_norm(torch.eye(3).to_sparse(), 1.0)
    for other in (torch.nn.Linear(2, 1), torch.float32, torch):
        with pytest.raises(TypeError, match=r"tree\['x'\] is .*not an array; give an array"):
            cc.clip_by_global_norm({"x": other}, 1.0)


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize(
    "call",
    [
        "clip_by_global_norm([x], 1.0)",
        "clip_by_l2_norm(x, 1.0)",
        "clip_by_value(x, -1, 1)",
        "clip_weights({'w': x}, -1, 1)",
        "global_norm([x])",
    ],
)
def test_the_first_call_of_a_process_may_be_a_compiled_one(torch: Any, call: str) -> None:
    code = f"""
import torch, clipcore
compiled = torch.compile(lambda x: clipcore.{call}, fullgraph=True, backend="eager")
compiled(torch.ones(4))
"""
    assert torch.__version__
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_calls_on_parameters_compile_without_a_break_in_the_graph(torch: Any) -> None:
    layer = torch.nn.Linear(3, 2)
    limit = torch.tensor(0.5)

    def clipped() -> Any:
        weights = list(layer.parameters())
        ranged = cc.clip_weights(weights, -0.1, 0.1, where=lambda _, leaf: leaf.ndim > 1)
        return ranged, cc.clip_by_global_norm(weights, limit)

    with torch.no_grad():
        ranged, (tree, norm) = torch.compile(clipped, fullgraph=True, backend="aot_eager")()
        with torch.autograd.forward_ad.dual_level():  # where the portable engine serves too
            wanted, wanted_norm = cc.clip_by_global_norm(list(layer.parameters()), limit)
    assert [x.tolist() for x in tree] == [x.tolist() for x in wanted]
    assert norm.item() == wanted_norm.item()
    assert float(ranged[0].abs().max()) <= 0.1
    assert torch.equal(ranged[1], layer.bias)


def test_what_where_answers_must_be_one_truth(torch: Any) -> None:
    with pytest.raises(TypeError, match="where returned"):
        cc.clip_weights([torch.ones(2)], 0, 1, where=lambda _, leaf: leaf > 1)


def test_tensors_in_memory_are_served_by_numpy_and_followed_ones_are_not(torch: Any) -> None:
    from clipcore import _torch

    x = torch.arange(6.0).reshape(2, 3)
    found = _torch.views([x, x.to(torch.bfloat16)])
    assert found is not None
    view, bits = found
    view[0, 0] = 7
    assert x[0, 0] == 7
    assert bits.dtype.name == "bfloat16"
    assert bits[1].tolist() == x[1].tolist()
    derived = torch.ones(2, requires_grad=True)
    assert _torch.views([x, derived]) is None
    assert _torch.views([torch.ones(2, device="meta")]) is None
    assert _torch.views([torch.ones(2, dtype=torch.complex64).conj()]) is None
    assert _torch.views([torch._efficientzerotensor(2)]) is None
    with torch.no_grad():
        assert _torch.views([x, derived]) is not None
    with torch.autograd.forward_ad.dual_level():
        assert _torch.views([x]) is None
    seen: list[Any] = []

    def look(y: Any) -> Any:
        seen.append(_torch.views([y]))
        return y * 2

    torch.func.vmap(look)(x)
    with torch.utils._python_dispatch.TorchDispatchMode():
        seen.append(_torch.views([x]))
    assert seen == [None, None]


def test_writing_through_a_view_is_known_to_autograd(torch: Any) -> None:
    weight, gradient = torch.ones(2, requires_grad=True), torch.tensor([3.0, 4.0])
    loss = (weight * gradient).sum()
    cc.clip_by_global_norm([gradient], 1.0, out=[gradient])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = (weight * gradient).sum()
    cc.clip_by_value(gradient, -0.5, 0.5, out=gradient)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_limits_norms_and_reductions_are_tensors_there_too(torch: Any) -> None:
    x = torch.tensor([3.0, 4.0])
    seen: list[Any] = []

    def all_reduce(array: Any, op: str) -> Any:
        seen.append((type(array), array.dtype, op))
        return array

    clipped, norm = cc.clip_by_global_norm([x], torch.tensor(1.0), all_reduce=all_reduce)
    assert {kind for kind, _, _ in seen} == {torch.Tensor}
    assert norm.dtype == torch.float64
    assert norm == 5
    assert torch.equal(clipped[0], cc.clip_by_global_norm([x], 1.0, norm=torch.tensor(5.0))[0][0])
    assert cc.clip_by_global_norm([x], torch.tensor(-1.0))[0][0].isnan().all()  # not looked at on any device
    assert cc.clip_by_value(x, torch.tensor([3.5, 0.0]), None).tolist() == [3.5, 4.0]


def test_a_group_within_its_limit_keeps_its_bits_where_subnormals_are_flushed(torch: Any) -> None:
    x = torch.tensor([[1e-40, -1e-40], [3.0, 4.0]])
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor flushes nothing")
    try:
        clipped = cc.clip_by_l2_norm(x, 1.0, axis=1)
        cc.clip_by_l2_norm(x, 1.0, axis=1, out=x)
    finally:
        torch.set_flush_denormal(False)
    for each in (clipped, x):
        assert each[0].view(torch.int32).tolist() == [71362, 71362 - 2**31]
        assert each[1].norm() <= 1


def test_outs_that_share_memory_are_refused_through_views(torch: Any) -> None:
    base = torch.arange(8.0)
    with pytest.raises(ValueError, match=r"out\[0\] and out\[1\] share bytes"):
        cc.clip_by_global_norm([base[:4], base[4:]], 1.0, out=[base[:4], base[2:6]])
    assert base.tolist() == list(range(8))
    shifted, _ = cc.clip_by_global_norm([base[:4].clone()], 1.0)
    cc.clip_by_global_norm([base[:4]], 1.0, out=[base[2:6]])
    assert torch.equal(base[2:6], shifted[0])
