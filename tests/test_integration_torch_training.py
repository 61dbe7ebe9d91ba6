"""Clips of torch in training: what they do to a step, compiled, scaled, under Lightning, in the examples."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from integration_torch_support import gradients, need_compiler, of_numpy, torch_or_skip, within
from ranks_run import need, run

from clipcore.verify.exact import norm_bounds

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def torch(request: pytest.FixtureRequest) -> Any:
    torch = torch_or_skip(request)
    torch.manual_seed(0)
    return torch


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Any:
    torch_or_skip(request)
    return importlib.import_module("clipcore.integrations.torch")


def network(torch: Any) -> Any:
    """A network with convolutions, an attention, a shared weight and an unused one."""

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv1d(3, 8, 3, padding=1)
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = torch.nn.LayerNorm(8)
            self.up = torch.nn.Linear(8, 8, bias=False)
            self.down = torch.nn.Linear(8, 8, bias=False)
            self.down.weight = self.up.weight
            self.unused = torch.nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            hidden = self.convolution(x).transpose(1, 2)
            hidden = self.norm(self.attention(hidden, hidden, hidden)[0])
            return self.down(torch.relu(self.up(hidden)))

    return Network()


def backward(torch: Any, model: Any, dtype: Any = None) -> None:
    model.zero_grad()
    (100 * model(torch.randn(4, 3, 6, dtype=dtype)).square().mean()).backward()


def test_with_a_limit_of_zero_nothing_moves(torch: Any, ours: Any) -> None:
    model = network(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = [of_numpy(parameter) for parameter in model.parameters()]
    for _ in range(3):
        backward(torch, model)
        ours.clip_grad_norm_(model.parameters(), 0.0)
        optimizer.step()
    after = [of_numpy(parameter) for parameter in model.parameters()]
    assert [x.tobytes() for x in after] == [x.tobytes() for x in before]


def test_with_a_tiny_limit_a_step_is_as_long_as_the_rate_times_the_limit(torch: Any, ours: Any) -> None:
    rate, limit = Fraction(1, 2), 2.0**-20
    model = network(torch).to(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(rate))
    for _ in range(3):
        backward(torch, model, torch.float64)
        ours.clip_grad_norm_(model.parameters(), limit)
        before = [of_numpy(parameter) for parameter in model.parameters()]
        optimizer.step()
        after = [of_numpy(parameter) for parameter in model.parameters()]
        # Half a gradient is exact, and so is the difference of two numbers within a factor of two of each
        # other: what is left is one rounding an element, of at most 2**-53 of the weight.
        steps = [new - old for new, old in zip(after, before, strict=True)]
        rounding = Fraction(2) ** -53 * norm_bounds(after, 2)[1]
        low, high = norm_bounds(steps, 2)
        wanted = rate * Fraction(limit)
        assert high <= wanted + 2 * rounding
        assert low >= wanted * (1 - 4 * Fraction(2) ** -53) - 2 * rounding
        assert rounding < wanted * Fraction(2) ** -24


def test_gradients_inside_the_limit_train_the_same_network(torch: Any, ours: Any) -> None:
    trained = []
    for limit in (None, 1e6):
        torch.manual_seed(1)
        model = network(torch)
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(5):
            backward(torch, model)
            if limit is not None:
                assert ours.clip_grad_norm_(model.parameters(), limit) < limit
            optimizer.step()
        trained.append([of_numpy(parameter).tobytes() for parameter in model.parameters()])
    assert trained[0] == trained[1]


def test_every_step_of_an_unknown_model_is_within_the_limit(torch: Any, ours: Any) -> None:
    model = network(torch)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(5):
        backward(torch, model)
        before = gradients(list(model.parameters()))
        norm = ours.clip_grad_norm_(model.parameters(), 0.5)
        low, high = norm_bounds(before, 2)
        assert low * (1 - Fraction(2) ** -44) <= Fraction(float(norm)) <= high * (1 + Fraction(2) ** -44)
        assert high > 0.5
        assert within(gradients(list(model.parameters())), 0.5)
        assert model.unused.weight.grad is None
        optimizer.step()


def test_scaled_gradients_are_clipped_after_they_are_unscaled(torch: Any, ours: Any) -> None:
    model = network(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(4, 3, 6)).float().square().mean()
        scaler.scale(100 * loss).backward()
        scaler.unscale_(optimizer)
        norm = ours.clip_grad_norm_(model.parameters(), 0.5)
        assert 0.5 < norm < 2**10
        assert within(gradients(list(model.parameters())), 0.5)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**10


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_clips_compile_without_a_break_in_the_graph(torch: Any, ours: Any) -> None:
    need_compiler(torch)
    model = network(torch)

    def clip() -> Any:
        norm = ours.clip_grad_norm_(model.parameters(), 0.5)
        ours.clip_grad_value_(model.parameters(), 0.0625)
        return norm

    backward(torch, model)
    eager = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    expected = torch.linalg.vector_norm(torch.cat([each.double().flatten() for each in eager]))
    norm = torch.compile(clip, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(norm, expected)
    clipped = gradients(list(model.parameters()))
    assert within(clipped, 0.5)
    assert max(float(abs(each).max()) for each in clipped) == 0.0625


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_a_limit_may_change_between_compiled_calls(torch: Any, ours: Any, kind: str) -> None:
    need_compiler(torch)
    model = network(torch)
    clip = torch.compile(ours.clip_grad_norm_, fullgraph=kind == "tensor", backend="aot_eager")
    backward(torch, model)
    parameters = list(model.parameters())
    for limit in (0.5, 0.375, 0.25):
        clip(parameters, torch.tensor(limit) if kind == "tensor" else limit)
        assert within(gradients(parameters), limit)
        assert not within(gradients(parameters), limit * (1 - 2.0**-21))


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_whole_step_compiles(torch: Any, ours: Any) -> None:
    need_compiler(torch)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ours.attach_weight_clipping(optimizer, -0.25, 0.25)

    @torch.compile(backend="aot_eager")  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        model(x).square().sum().mul(1e3).backward()
        norm = ours.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return norm

    for _ in range(2):
        assert step(torch.randn(5, 4)) > 0.5
        assert within(gradients(list(model.parameters())), 0.5)
        assert max(float(abs(of_numpy(weight)).max()) for weight in model.parameters()) <= 0.25


# The documents


def test_the_example_of_a_training_loop_runs(request: pytest.FixtureRequest) -> None:
    need(request, "torch")
    (printed,) = run([sys.executable, str(DOCS / "examples" / "torch_training.py")])
    assert re.search(r"^loss \d+\.\d+ to \d+\.\d+, \d+ of \d+ steps clipped$", printed, re.MULTILINE), printed
    assert re.search(
        r"^critic inside \[-0.01, 0.01\] at all \d+ steps of the generator$", printed, re.MULTILINE
    )


def test_the_example_of_lightning_runs(request: pytest.FixtureRequest) -> None:
    need(request, "torch", "lightning")
    (printed,) = run([sys.executable, str(DOCS / "examples" / "lightning_clipping.py")])
    assert re.search(r"^norm \d+\.\d+ to \d+\.\d+ over \d+ steps, limit 0\.5$", printed, re.MULTILINE), (
        printed
    )


def test_the_snippets_of_the_document_run(torch: Any) -> None:
    need_compiler(torch)  # for one of them
    text = (DOCS / "torch.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) >= 5
    for snippet in snippets:
        names: dict[str, Any] = {"torch": torch}
        exec("from clipcore.integrations.torch import *\n" + PRELUDE, names)
        exec(snippet, names)


PRELUDE = """
model = torch.nn.Linear(4, 1)
critic = torch.nn.Linear(4, 1)
generator = torch.nn.Linear(2, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
batches = [(inputs, targets)] * 2
loss = (model(inputs) - targets).square().mean()
loss.backward(retain_graph=True)
"""
