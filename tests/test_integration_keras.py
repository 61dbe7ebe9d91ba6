"""Keras: the callback inside fit, on the backend that KERAS_BACKEND names; every bound is judged exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from integration_keras_support import (
    MODES,
    at_every_batch,
    data,
    dense,
    is_inside,
    kernels,
    need_mode,
    numbers,
    opened_keras,
    two_headed,
)

# what Keras and its backends warn of is their own affair; ours are asked for by pytest.warns
# the largest float32 that is not above 0.05
FLOAT32_BELOW = Fraction(13421772, 2**28)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def keras(request: pytest.FixtureRequest) -> Any:
    return opened_keras(request)


@pytest.fixture
def clipping(keras: Any) -> Any:  # noqa: ARG001  # it has to be there
    from clipcore.integrations.keras import WeightClipping

    return WeightClipping


def fit(keras: Any, model: Any, *callbacks: Any, optimizer: Any = None, **compile_with: Any) -> Any:
    """Compile, unless it is compiled, and fit for two epochs of five batches."""
    if not model.compiled:
        model.compile(optimizer or keras.optimizers.SGD(0.2), "mse", **compile_with)
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks))
    return model


def watched(keras: Any, lower: float, upper: float, seen: list[bool]) -> Any:
    return at_every_batch(keras, lambda model: seen.append(is_inside(keras, kernels(model), lower, upper)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bounds", [(-0.1, 0.1), (0.0, 0.0)], ids=str)
def test_kernels_are_inside_before_and_after_every_batch_and_nothing_else_is(
    keras: Any, clipping: Any, mode: str, bounds: tuple[float, float]
) -> None:
    lower, upper = bounds
    model = dense(keras)
    seen: list[bool] = []
    watch = watched(keras, lower, upper, seen)
    fit(keras, model, watch, clipping(lower, upper), **need_mode(keras, mode))
    assert len(seen) >= 5
    assert all(seen)
    bias, normalisation = model.layers[0].bias, model.layers[1]
    assert min(numbers(keras, bias)) > Fraction(upper)
    assert min(numbers(keras, normalisation.gamma)) > Fraction(upper)
    if lower == upper:
        assert {float(x) for v in kernels(model) for x in numbers(keras, v)} == {0.0}


@pytest.mark.parametrize("mode", MODES)
def test_a_fit_is_a_loop_of_updates_and_clips_bit_for_bit(keras: Any, clipping: Any, mode: str) -> None:
    arguments = need_mode(keras, mode)
    model = dense(keras)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    fit(keras, model, clipping(-0.1, 0.05), **arguments)

    from clipcore.integrations.keras import WeightRange

    limit, (x, y) = WeightRange(-0.1, 0.05), data()
    twin.compile(keras.optimizers.SGD(0.2), "mse", **{**arguments, "steps_per_execution": 1})
    for variable in kernels(twin):
        variable.assign(limit(variable))
    for start in [*range(0, 40, 8)] * 2:
        twin.train_on_batch(x[start : start + 8], y[start : start + 8])
        for variable in kernels(twin):
            variable.assign(limit(variable))
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert max(each for v in kernels(model) for each in numbers(keras, v)) == FLOAT32_BELOW


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_is_not_built_is_clipped_from_its_first_step_on(
    keras: Any, clipping: Any, mode: str
) -> None:
    seen: list[bool] = []

    def see(model: Any) -> None:
        if model.trainable_variables:
            seen.append(is_inside(keras, kernels(model), -0.1, 0.1))

    watch = at_every_batch(keras, see)
    fit(keras, dense(keras, built=False), clipping(-0.1, 0.1), watch, **need_mode(keras, mode))
    assert len(seen) >= 5
    assert all(seen)


def test_models_of_two_outputs_nested_and_shared_layers_are_clipped_whole(keras: Any, clipping: Any) -> None:
    model = two_headed(keras)
    seen: list[bool] = []
    asked: list[int] = []
    model.compile(keras.optimizers.SGD(0.5), "mse")

    def where(path: str, variable: Any) -> bool:
        asked.append(id(variable))
        return path.endswith("kernel")

    x, y = data(shape=(8, 8, 1))
    callbacks = [watched(keras, -0.05, 0.1, seen), clipping(-0.05, 0.1, where)]
    model.fit(x, dict.fromkeys(model.output, y), batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    assert sorted(asked) == sorted({id(variable) for variable in model.trainable_variables})
    assert len(asked) == len(set(asked))
    assert len(seen) == 11
    assert all(seen)
    by_default = clipping(-0.05, 0.1)
    by_default.set_model(model)
    by_default.choose()
    assert [v.path for v in by_default.variables] == [v.path for v in kernels(model)]


def test_a_kernel_is_what_a_layer_has_as_one(keras: Any, clipping: Any) -> None:
    layers = keras.layers

    class Own(layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, _shape: Any) -> None:
            self.kernel = self.add_weight(shape=(2,), initializer="ones", name="unusual")
            self.other = self.add_weight(shape=(2,), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.kernel + self.other

    token = keras.Input((3,), dtype="int32")
    x = layers.Embedding(5, 2, embeddings_initializer="ones")(token)
    x = layers.MultiHeadAttention(1, 2)(x, x)
    x = layers.GroupNormalization(1)(Own()(layers.PReLU()(x)))
    x = layers.GRU(2, return_sequences=True)(layers.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d")(x))
    frozen = layers.Dense(2, trainable=False)
    model = keras.Model(token, frozen(layers.Conv1DTranspose(2, 1)(x)))
    callback = clipping(-0.1, 0.1)
    callback.set_model(model)
    callback.choose()
    picked = [v.path for v in callback.variables]
    assert len(picked) == 4 + 1 + 1 + 2 + 1, picked
    assert all(path.endswith(("kernel", "unusual")) for path in picked)
    assert not any(variable is frozen.kernel for variable in callback.variables)


def test_where_chooses_and_is_warned_of_a_scale(keras: Any, clipping: Any) -> None:
    model = dense(keras)
    fit(keras, model, clipping(None, 0.5, lambda path, _: path.endswith("bias")))
    assert max(numbers(keras, model.layers[0].bias)) <= Fraction(1, 2)
    assert max(abs(each) for each in numbers(keras, model.layers[0].kernel)) > Fraction(1, 2)
    with pytest.warns(UserWarning, match=r"where picks .*/gamma, the scale of a normalisation layer") as told:
        fit(keras, model, clipping(-0.5, 0.5, lambda path, variable: "gamma" in path or variable.ndim > 1))
    assert len([each for each in told if "WeightClipping" in str(each.message)]) == 1
    assert max(numbers(keras, model.layers[1].gamma)) <= Fraction(1, 2)


def test_where_that_picks_nothing_or_answers_no_truth_is_refused(keras: Any, clipping: Any) -> None:
    model = dense(keras)
    with pytest.raises(ValueError, match=r"where picked nothing, and the trainable variables are .*kernel"):
        fit(keras, model, clipping(-1, 1, lambda *_: False))
    with pytest.raises(TypeError, match=r"where returned (?s:.*) for .*kernel; return True or False"):
        fit(keras, model, clipping(-1, 1, lambda _, variable: keras.ops.convert_to_tensor(variable) > 0))
    with pytest.raises(TypeError, match="where is 'kernel'; give a function"):
        clipping(-1, 1, "kernel")
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable kernels, and the model has no trainable variables"):
        fit(keras, model, clipping(-1, 1))
    with pytest.raises(ValueError, match="where picked nothing"):
        fit(keras, dense(keras, built=False), clipping(-1, 1, lambda *_: False))


def test_bounds_are_checked_where_they_are_given(keras: Any, clipping: Any) -> None:
    from clipcore.integrations.keras import WeightRange

    for make, name in ((clipping, "WeightClipping"), (WeightRange, "WeightRange")):
        for lower, upper, error, message in (
            (math.nan, 1, ValueError, f"{name}: lower is nan; give a number"),
            (0, "1", TypeError, f"{name}: upper is '1' of type str; give a real number"),
            (True, 1, TypeError, f"{name}: lower is True of type bool"),
            (2, 1, ValueError, f"{name}: lower is 2 and upper is 1; give a lower bound"),
            (
                None,
                None,
                ValueError,
                f"{name}: lower is None and upper is None, which bound nothing; give a bound",
            ),
            (-math.inf, None, ValueError, f"{name}: lower is -inf and upper is None, which bound nothing"),
            (np.zeros(3), 1, TypeError, f"{name}: lower is .*, an array; give a number"),
            (math.inf, None, ValueError, f"{name}: lower is inf, above every finite float64"),
        ):
            with pytest.raises(error, match=message):
                make(lower, upper)
    model = dense(keras)
    with pytest.raises(ValueError, match=r"WeightClipping: lower is 0\.1 and upper is 0\.1, and no float32"):
        fit(keras, model, clipping(0.1, 0.1))
    fit(keras, model, clipping(np.float32(0.1), np.float32(0.1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_every_dtype_holds_the_bounds_as_given(keras: Any, clipping: Any, dtype: str, mode: str) -> None:
    model = dense(keras, dtype=dtype)
    seen: list[bool] = []
    fit(keras, model, watched(keras, -0.1, 0.1, seen), clipping(-0.1, 0.1), **MODES[mode])
    assert all(seen)
    assert {v.dtype for v in kernels(model)} == {"float32" if "mixed" in dtype else dtype}


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "AdamW": lambda o: o.AdamW(0.1, weight_decay=0.1),
    "accumulating": lambda o: o.SGD(0.2, momentum=0.9, gradient_accumulation_steps=3),
    "loss scale": lambda o: o.LossScaleOptimizer(o.Adam(0.1), initial_scale=2.0**20),
    "average": lambda o: o.SGD(0.3, use_ema=True, ema_momentum=0.9),
    "average written back": lambda o: o.Adam(0.3, use_ema=True, ema_overwrite_frequency=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_whatever_an_optimizer_does_the_kernels_are_inside(
    keras: Any, clipping: Any, name: str, mode: str
) -> None:
    model = dense(keras)
    seen: list[bool] = []
    optimizer = OPTIMIZERS[name](keras.optimizers)
    callbacks = [clipping(-0.1, 0.1), watched(keras, -0.1, 0.1, seen)]
    fit(keras, model, *callbacks, optimizer=optimizer, **MODES[mode])
    assert all(seen)
    assert is_inside(keras, kernels(model), -0.1, 0.1)  # when fit has ended, too


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_averages_that_a_callback_swaps_in_are_inside_too(
    keras: Any, clipping: Any, swap_on_epoch: bool
) -> None:
    model, (x, y) = dense(keras), data()
    seen: list[bool] = []
    model.compile(keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9), "mse")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch)
    callbacks = [swap, clipping(-0.1, 0.1), watched(keras, -0.1, 0.1, seen)]
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, validation_data=(x, y), callbacks=callbacks)
    assert len(seen) > 31
    assert all(seen)


def test_a_checkpoint_in_the_middle_of_an_epoch_holds_clipped_weights(
    keras: Any, clipping: Any, tmp_path: Any
) -> None:
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=1)
    model = fit(keras, dense(keras), checkpoint, clipping(-0.1, 0.1))
    files = sorted(tmp_path.glob("*.keras"))
    assert len(files) == 10
    for file in files:
        assert is_inside(keras, kernels(keras.models.load_model(file)), -0.1, 0.1)
    assert not any(variable.constraint for variable in model.variables)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_a_fit_without_the_callback_is_free_again_even_after_one_that_was_interrupted(
    keras: Any, clipping: Any, mode: str
) -> None:
    model = fit(keras, dense(keras), clipping(-0.01, 0.01), **MODES[mode])
    assert is_inside(keras, kernels(model), -0.01, 0.01)
    fit(keras, model)
    assert not is_inside(keras, kernels(model), -0.01, 0.01)
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_args, **_names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(keras, model, clipping(-0.01, 0.01), stop)
    fit(keras, model)
    assert not is_inside(keras, kernels(model), -0.01, 0.01)
    with pytest.raises(ZeroDivisionError):
        fit(keras, model, clipping(-0.01, 0.01), stop)
    fit(keras, model, clipping(-0.02, 0.02))
    assert is_inside(keras, kernels(model), -0.02, 0.02)
    assert not is_inside(keras, kernels(model), -0.01, 0.01)
    assert not any(variable.constraint for variable in model.variables)
    assert "train_step" not in vars(model)


def test_the_next_fit_that_asks_for_the_same_finds_it_compiled(keras: Any, clipping: Any) -> None:
    model = fit(keras, dense(keras), clipping(-0.1, 0.1))
    traced: list[str] = []
    layer = model.layers[0]
    call = layer.call

    def noted(*args: Any, **kwargs: Any) -> Any:
        traced.append("here")
        return call(*args, **kwargs)

    layer.call = noted
    fit(keras, model, clipping(-0.1, 0.1))
    assert len(traced) == (10 if keras.backend.backend() == "torch" else 0)
    fit(keras, model, clipping(-0.2, 0.2))
    assert traced
    assert not is_inside(keras, kernels(model), -0.1, 0.1)
    assert is_inside(keras, kernels(model), -0.2, 0.2)


def test_two_callbacks_give_two_ranges(keras: Any, clipping: Any) -> None:
    model = dense(keras)
    first, last = kernels(model)
    fit(
        keras,
        model,
        clipping(-0.1, 0.1, lambda _, variable: variable is first),
        clipping(0.2, 0.3, lambda _, variable: variable is last),
    )
    assert is_inside(keras, [first], -0.1, 0.1)
    assert is_inside(keras, [last], 0.2, 0.3)
    fit(keras, model, clipping(-0.1, 0.1), clipping(None, 0.05))
    assert is_inside(keras, [first, last], -0.1, 0.05)


def test_a_constraint_that_a_layer_has_is_applied_first(keras: Any, clipping: Any) -> None:
    model = dense(keras, kernel_constraint=keras.constraints.NonNeg())
    fit(keras, model, clipping(-0.1, 0.1))
    assert is_inside(keras, kernels(model), 0.0, 0.1)
    assert all(isinstance(v.constraint, keras.constraints.NonNeg) for v in kernels(model))


def test_a_frozen_layer_is_left_alone(keras: Any, clipping: Any) -> None:
    model = dense(keras)
    model.layers[0].trainable = False
    before = keras.ops.convert_to_numpy(model.layers[0].kernel).tobytes()
    fit(keras, model, clipping(-0.01, 0.01))
    assert keras.ops.convert_to_numpy(model.layers[0].kernel).tobytes() == before
    assert is_inside(keras, [model.layers[2].kernel], -0.01, 0.01)


def test_another_train_function_in_the_middle_of_a_fit_clips_too(keras: Any, clipping: Any) -> None:
    model, seen = dense(keras), list[bool]()
    again = keras.callbacks.Callback()
    again.on_epoch_begin = lambda *_args, **_names: again.model.make_train_function(force=True)
    fit(keras, model, again, clipping(-0.01, 0.01), watched(keras, -0.01, 0.01, seen))
    assert len(seen) > 10
    assert all(seen)


def test_a_callback_driven_by_hand_leaves_a_model_that_can_be_fitted(keras: Any, clipping: Any) -> None:
    model = dense(keras)
    model.compile(keras.optimizers.SGD(0.2), "mse")
    x, y = data()
    hand = keras.callbacks.CallbackList([clipping(-0.01, 0.01)], model=model)
    hand.on_train_begin()
    model.train_on_batch(x, y)
    assert is_inside(keras, kernels(model), -0.01, 0.01)
    hand.on_train_end()
    fit(keras, model)
    assert not is_inside(keras, kernels(model), -0.01, 0.01)
