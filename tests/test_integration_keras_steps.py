"""Keras: the constraint, train steps of one's own, the examples of the page, the framework's absence."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration_keras_support import data, dense, is_inside, kernels, need_mode, numbers, opened_keras

# what Keras and its backends warn of is their own affair
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
BELOW = float(np.nextafter(np.float32(0.05), np.float32(0)))  # the largest float32 that is not above 0.05


@pytest.fixture
def keras(request: pytest.FixtureRequest) -> Any:
    return opened_keras(request)


@pytest.fixture
def ours(keras: Any) -> Any:  # noqa: ARG001  # it has to be there
    return importlib.import_module("clipcore.integrations.keras")


@pytest.mark.parametrize("mode", ["eager", "compiled", "three steps at once"])
def test_the_critic_is_inside_whenever_the_generator_sees_it(keras: Any, ours: Any, mode: str) -> None:
    example = runpy.run_path(str(EXAMPLES / "keras_wgan.py"))

    class Watched(example["Trained"]):  # type: ignore[misc, name-defined, valid-type]
        def generator_loss(self, real: Any) -> Any:
            weights = [keras.ops.max(keras.ops.abs(v)) for v in self.critic.trainable_variables]
            outside = keras.ops.max(keras.ops.stack(weights)) > BELOW
            return super().generator_loss(real) + keras.ops.where(outside, 1e6, 0.0)

    def largest_loss(*callbacks: Any) -> float:
        arguments = {"kind": Watched, "epochs": 2, "callbacks": callbacks}
        _, history = example["train"](**arguments, **need_mode(keras, mode))
        return float(max(history.history["generator"]))

    of_critic = ours.WeightClipping(-0.05, 0.05, where=lambda path, _: path.startswith("critic/"))
    assert largest_loss(of_critic) < 1e3
    assert largest_loss() > 1e5  # what this test would see


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_a_step_that_updates_without_an_optimizer_is_clipped_at_its_end(
    keras: Any, ours: Any, mode: str
) -> None:
    class ByHand(keras.Sequential):  # type: ignore[misc]
        def train_step(self, *args: Any) -> Any:
            if keras.backend.backend() != "jax":
                for variable in self.trainable_variables:
                    variable.assign(keras.ops.convert_to_tensor(variable) + 0.04)
                return {"loss": 0.0}
            (trainable, *others), _ = args
            return {"loss": 0.0}, ([value + 0.04 for value in trainable], *others)

    model = ByHand([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", **need_mode(keras, mode))
    x, y = data(outputs=3)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[ours.WeightClipping(-0.1, 0.1)])
    assert min(numbers(keras, model.layers[0].kernel)) > 0.09
    assert is_inside(keras, kernels(model), -0.1, 0.1)
    assert min(numbers(keras, model.layers[0].bias)) > 0.5


def test_a_train_function_that_calls_no_train_step_is_refused(keras: Any, ours: Any) -> None:
    if keras.backend.backend() == "torch":
        pytest.skip("on torch the clip is around the whole train function, so that none is missed")

    class Stranger(keras.Sequential):  # type: ignore[misc]
        def make_train_function(self, force: bool = False) -> None:  # noqa: ARG002
            self.train_function: Any = lambda *args: ({}, args[0]) if len(args) > 1 else {}

    model = Stranger([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="does not call its train_step"):
        model.fit(*data(), verbose=0, callbacks=[ours.WeightClipping(-1, 1)])


def test_the_constraint_holds_after_every_update_outside_of_fit_too(keras: Any, ours: Any) -> None:
    model = dense(keras, kernel_constraint=ours.WeightRange(-0.1, 0.1))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = data()
    for _ in range(3):
        model.train_on_batch(x, y)
        assert is_inside(keras, kernels(model), -0.1, 0.1)
    assert min(numbers(keras, model.layers[0].bias)) > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_nan_stays_infinity_becomes_the_bound_and_what_is_inside_keeps_its_bits(
    keras: Any, ours: Any, dtype: str
) -> None:
    x = keras.ops.convert_to_tensor([math.nan, math.inf, -math.inf, 0.25, -0.0, -9.0, 1e-3], dtype=dtype)

    def clipped(lower: float | None, upper: float | None) -> list[float]:
        result = ours.WeightRange(lower, upper)(x)
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        return [float(each) for each in keras.ops.convert_to_numpy(result)]

    both, below = clipped(-0.5, 0.5), clipped(None, 0.125)
    assert math.isnan(both[0])
    assert both[1:6] == [0.5, -0.5, 0.25, 0.0, -0.5]
    assert math.copysign(1, both[4]) == -1
    assert both[6] == float(keras.ops.convert_to_numpy(x)[6])
    assert below[1:4] == [0.125, -math.inf, 0.125]


def test_integers_are_refused(keras: Any, ours: Any) -> None:
    with pytest.raises(TypeError, match="WeightRange: w has dtype int32; weights are clipped in float16"):
        ours.WeightRange(0, 1)(keras.ops.convert_to_tensor([2], dtype="int32"))
    with pytest.raises(ValueError, match="no float16 lies between"):
        ours.WeightRange(0.1, 0.1)(keras.ops.convert_to_tensor([2], dtype="float16"))


def test_the_clip_needs_no_value_on_the_host(keras: Any, ours: Any) -> None:
    limit, backend = ours.WeightRange(-1, 1), importlib.import_module(keras.backend.backend())
    if keras.backend.backend() == "torch":
        assert limit(backend.empty(3, device="meta")).device.type == "meta"
    elif keras.backend.backend() == "jax":
        assert backend.eval_shape(limit, backend.ShapeDtypeStruct((3,), "float32")).shape == (3,)
    else:
        traced = backend.function(limit).get_concrete_function(backend.TensorSpec((3,), "float32"))
        assert traced.outputs[0].shape == (3,)


def test_a_model_is_saved_and_loaded_with_its_constraint(keras: Any, ours: Any, tmp_path: Path) -> None:
    model = dense(keras, kernel_constraint=ours.WeightRange(None, np.float32(0.1)))
    path = tmp_path / "model.keras"
    model.save(path)
    for other in (keras.models.load_model(path), keras.models.model_from_json(model.to_json())):
        constraint = other.layers[0].kernel_constraint
        assert isinstance(constraint, ours.WeightRange)
        assert constraint.get_config() == {"lower": None, "upper": float(np.float32(0.1))}
    again = keras.constraints.deserialize(keras.constraints.serialize(ours.WeightRange(-1, 2)))
    assert again.get_config() == {"lower": -1.0, "upper": 2.0}
    loads = (
        "import keras, clipcore.integrations.keras; "
        f"print(type(keras.models.load_model({str(path)!r}).layers[0].kernel_constraint).__name__)"
    )
    assert started(loads).stdout.split()[-1] == "WeightRange"


@pytest.mark.parametrize("name", ["keras_weight_clipping.py", "keras_wgan.py"])
def test_an_example_runs_by_its_command(keras: Any, name: str) -> None:
    path = EXAMPLES / name
    assert f"    KERAS_BACKEND=tensorflow python docs/examples/{name}\n" in path.read_text()
    backend = keras.backend.backend()
    assert started(str(path)).stdout.split()[-2:] == ["on", backend]


def test_the_examples_of_the_docstrings_run(ours: Any) -> None:
    assert doctest.testmod(ours).attempted > 8
    assert doctest.testmod(ours).failed == 0


def test_the_page_shows_the_example_and_answers_the_question() -> None:
    page = (ROOT / "docs" / "keras.md").read_text()
    assert "Keras: how to clip weights after gradient updates, TensorFlow backend?" in page
    code = (EXAMPLES / "keras_weight_clipping.py").read_text().split('"""\n', 2)[-1].strip()
    assert f"```python\n{code}\n```" in page


def test_keras_is_named_where_it_is_missing_or_too_old() -> None:
    importing = "import clipcore.integrations.keras"
    missing = started(f"import sys; sys.modules['keras'] = None; {importing}", fails=True).stderr
    assert "ImportError: clipcore.integrations.keras needs keras" in missing
    assert "it is not installed" in missing
    old = "import sys, types; keras = types.ModuleType('keras'); keras.__version__ = '2.15.0'; "
    message = started(f"{old} sys.modules['keras'] = keras; {importing}", fails=True).stderr
    assert "(this is 2.15.0)" in message
    if importlib.util.find_spec("keras") is None:
        assert "it is not installed" in started(importing, fails=True).stderr


def started(code: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a file, or a line of code, in a process of its own."""
    ending = [code] if code.endswith(".py") else ["-c", code]
    done = subprocess.run(
        [sys.executable, *ending],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert bool(done.returncode) == fails, done.stderr
    return done
