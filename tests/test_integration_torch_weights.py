"""Weights of torch kept in a range: at once, and after each step of an optimiser."""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import pytest
from integration_torch_support import need_compiler, of_numpy, torch_or_skip


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    return torch_or_skip(request)


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Any:
    torch_or_skip(request)
    return importlib.import_module("clipcore.integrations.torch")


@pytest.fixture
def critic(torch: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def largest(parameters: Any) -> float:
    """The largest magnitude of any weight, as a float that holds it exactly."""
    return max(float(abs(of_numpy(parameter).astype("float64")).max()) for parameter in parameters)


def train(torch: Any, model: Any, optimizer: Any) -> None:
    """One step that moves every weight far."""
    optimizer.zero_grad()
    (-1e3 * model(torch.ones(2, 4)).sum()).backward()
    optimizer.step()


def test_a_module_is_clipped_whole_and_in_place(ours: Any, critic: Any) -> None:
    before = [(weight, weight.data_ptr()) for weight in critic.parameters()]
    assert ours.clip_weights_(critic, -0.1, 0.1) is None
    assert 0.09 < largest(critic.parameters()) <= 0.1  # float32 has no 0.1, but a number above it
    assert [(weight, weight.data_ptr()) for weight in critic.parameters()] == before
    assert all(weight.requires_grad and weight.grad_fn is None for weight in critic.parameters())


def test_where_is_asked_by_name_and_once_for_a_shared_weight(torch: Any, ours: Any) -> None:
    model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5)})
    model["head"].weight = model["embedding"].weight
    bias = model["head"].bias.detach().clone()
    asked: list[str] = []

    def where(name: str, parameter: Any) -> bool:
        asked.append(name)
        return bool(parameter.ndim > 1)

    ours.clip_weights_(model, -0.125, 0.125, where)
    assert asked == ["embedding.weight", "head.bias"]
    assert largest([model["head"].weight]) == 0.125
    assert torch.equal(model["head"].bias, bias)
    asked.clear()
    ours.clip_weights_([*model.parameters(), *model.parameters()], -1, 1, where)
    assert asked == ["0", "1"]
    asked.clear()
    ours.clip_weights_(model.named_parameters(), -1, 1, where=where)
    assert asked == ["embedding.weight", "head.bias"]
    ours.clip_weights_(model["head"].weight, -0.0625, 0.0625)
    assert largest([model["head"].weight]) == 0.0625


def test_bounds_may_be_one_sided_zero_or_tensors(torch: Any, ours: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0, -0.0], [3.0, math.inf, math.nan]]))
    ours.clip_weights_(weight, None, 2)
    assert str(weight.tolist()) == "[[1.0, -2.0, -0.0], [2.0, 2.0, nan]]"
    ours.clip_weights_(weight, torch.tensor([[0.5], [1.0]]), torch.tensor(1.5))
    assert str(weight.tolist()) == "[[1.0, 0.5, 0.5], [1.5, 1.5, nan]]"
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, -0.0]))
    ours.clip_weights_(weight, 0, None)
    assert str(weight.tolist()) == "[1.0, 0.0, -0.0]"


def test_autograd_refuses_a_graph_that_saved_a_weight(torch: Any, ours: Any, critic: Any) -> None:
    loss = critic(torch.ones(2, 4, requires_grad=True)).sum()
    ours.clip_weights_(critic, -0.1, 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_normalisation_layer_is_known_by_its_class(torch: Any, ours: Any) -> None:
    scale = type("Scale", (torch.nn.LayerNorm,), {})((2, 3))
    head = type("NormalHead", (torch.nn.Linear,), {})(2, 2)
    with pytest.warns(UserWarning, match="is the scale"):
        ours.clip_weights_(torch.nn.Sequential(scale), -1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.clip_weights_(torch.nn.Sequential(head), -1, 1)


def test_the_scale_of_a_normalisation_layer_is_warned_of(torch: Any, ours: Any) -> None:
    layers = (
        torch.nn.Linear(4, 4),
        torch.nn.BatchNorm1d(4),
        torch.nn.LayerNorm(4),
        torch.nn.LayerNorm(4, bias=False),
    )
    model = torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(4, affine=False))
    with pytest.warns(UserWarning, match=r"clip_weights_: the weight of \d is the scale") as seen:
        ours.clip_weights_(model, -0.01, 0.01)
    assert [str(each.message).split()[4] for each in seen] == ["1", "2", "3"]
    assert {each.filename for each in seen} == {__file__}
    assert largest(model.parameters()) <= 0.01
    running = model[1].running_var.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.clip_weights_(model, -0.001, 0.001, where=lambda name, parameter: parameter.ndim > 1)
    assert largest([model[0].weight]) <= 0.001 < largest([model[1].weight])
    assert torch.equal(model[1].running_var, running)


def test_what_is_wrong_is_said_before_anything_is_written(torch: Any, ours: Any, critic: Any) -> None:
    before = largest(critic.parameters())
    wrong: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((critic, 1, -1), ValueError, "lower is 1 and upper is -1"),
        ((critic, math.nan, 1), ValueError, "lower is nan"),
        ((critic, "0", 1), TypeError, "lower is '0'"),
        ((critic, 0.1, 0.1), ValueError, "float32"),
        ((critic, -1, 1, "weights"), TypeError, "where is 'weights'; give a function"),
        ((critic, -1, 1, lambda name, parameter: parameter > 0), TypeError, "where returned"),
        ((3, -1, 1), TypeError, "module_or_parameters is 3; give a module"),
        (([3], -1, 1), TypeError, "parameter 0 is 3 of type int"),
        ((torch.ones(2, dtype=torch.complex64), -1, 1), TypeError, "dtype complex64"),
        ((torch.nn.LazyLinear(2), -1, 1), ValueError, "weight has no values yet"),
    ]
    for arguments, kind, words in wrong:
        with pytest.raises(kind, match=f"^clip_weights_: .*{words}"):
            ours.clip_weights_(*arguments)
    sgd = torch.optim.SGD(critic.parameters(), lr=1)
    for arguments, kind, words in [
        ((critic, -1, 1), TypeError, "optimizer is (?s:.*)give an optimiser"),
        ((sgd, 1, -1), ValueError, "lower is 1 and upper is -1"),
        ((sgd, 0.1, 0.1), ValueError, "float32"),
        ((sgd, -1, 1, "weights"), TypeError, "where is 'weights'"),
    ]:
        with pytest.raises(kind, match=f"^attach_weight_clipping: .*{words}"):
            ours.attach_weight_clipping(*arguments)
    assert largest(critic.parameters()) == before


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_weights_are_in_their_range_after_every_step(torch: Any, ours: Any, critic: Any, kind: str) -> None:
    optimizer = getattr(torch.optim, kind)(critic.parameters(), lr=0.1)
    handle = ours.attach_weight_clipping(optimizer, -0.01, 0.01)
    for _ in range(3):
        train(torch, critic, optimizer)
        assert largest(critic.parameters()) <= 0.01
    handle.remove()
    train(torch, critic, optimizer)
    assert largest(critic.parameters()) > 0.01


def test_only_the_optimisers_own_parameters_are_clipped(torch: Any, ours: Any, critic: Any) -> None:
    optimizer = torch.optim.SGD(critic[0].parameters(), lr=0.1)
    ours.attach_weight_clipping(optimizer, -0.01, 0.01)
    rest = [parameter.detach().clone() for parameter in critic[2].parameters()]
    train(torch, critic, optimizer)
    assert largest(critic[0].parameters()) <= 0.01
    assert all(torch.equal(new, old) for new, old in zip(critic[2].parameters(), rest, strict=True))
    optimizer.add_param_group({"params": list(critic[2].parameters())})
    train(torch, critic, optimizer)
    assert largest(critic.parameters()) <= 0.01


def test_where_is_asked_with_the_names_that_the_optimiser_knows(torch: Any, ours: Any, critic: Any) -> None:
    asked: list[str] = []

    def where(name: str, parameter: Any) -> bool:
        asked.append(name)
        return bool(parameter.ndim > 1)

    named = torch.optim.SGD(critic.named_parameters(), lr=0.1)
    ours.attach_weight_clipping(named, -0.01, 0.01, where)
    assert asked == ["0.weight", "0.bias", "2.weight", "2.bias"]
    train(torch, critic, named)
    assert largest([critic[0].weight, critic[2].weight]) <= 0.01 < largest([critic[0].bias])
    asked.clear()
    groups = [{"params": list(layer.parameters())} for layer in (critic[0], critic[2])]
    ours.attach_weight_clipping(torch.optim.SGD(groups, lr=0.1), -0.01, 0.01, where)
    assert asked == ["0.0", "0.1", "1.0", "1.1"]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # of LBFGS in torch 2.8
def test_closures_see_weights_that_are_clipped_when_the_step_ends(torch: Any, ours: Any, critic: Any) -> None:
    optimizer = torch.optim.LBFGS(critic.parameters(), lr=1, max_iter=5)
    ours.attach_weight_clipping(optimizer, -0.05, 0.05)
    inputs, targets = torch.randn(16, 4), 10 + torch.randn(16, 1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (critic(inputs) - targets).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert largest(critic.parameters()) <= 0.05


def test_a_step_that_the_scaler_leaves_out_changes_nothing(torch: Any, ours: Any, critic: Any) -> None:
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    ours.attach_weight_clipping(optimizer, -0.01, 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    for factor, clipped in ((math.inf, False), (1.0, True)):
        optimizer.zero_grad()
        scaler.scale(factor * critic(torch.ones(2, 4)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        same = all(torch.equal(new, old) for new, old in zip(critic.parameters(), before, strict=True))
        assert same is not clipped
    assert largest(critic.parameters()) <= 0.01


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_step_clips_too(torch: Any, ours: Any, critic: Any) -> None:
    need_compiler(torch)
    for limit in (0.01, 0.009, 0.008):  # a number that changes is no constant to the compiler
        optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
        ours.attach_weight_clipping(optimizer, -limit, limit)
        step = torch.compile(optimizer.step, backend="aot_eager")
        critic(torch.ones(2, 4)).sum().backward()
        step()
        assert largest(critic.parameters()) <= limit
    clip = torch.compile(
        lambda: ours.clip_weights_(critic, -0.001, 0.001), fullgraph=True, backend="aot_eager"
    )
    clip()
    assert largest(critic.parameters()) <= 0.001
