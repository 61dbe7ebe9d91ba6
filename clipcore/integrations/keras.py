"""Weight clipping for Keras 3: a callback for ``fit``, and a constraint that is saved with its model."""

from __future__ import annotations

import warnings
from typing import Any

from clipcore._messages import shown
from clipcore.integrations._keras_training import is_training, training_of
from clipcore.integrations._keras_weights import (
    Range,
    Where,
    choose,
    has_averages,
    is_scale_of_normalisation,
    keras,
)

__all__ = ["WeightClipping", "WeightRange"]


class WeightClipping(keras.callbacks.Callback):
    r"""Keep the kernels of a model in the range from `lower` to `upper` while ``fit`` trains it.

    .. math:: w_i \leftarrow \min(\max(w_i, \mathrm{lower}), \mathrm{upper})

    after each update of the weights, inside the compiled train step.

    Parameters
    ----------
    lower, upper : float or None
        The bounds, in the unit of the weights; None for no bound on that side. Rounded to each
        variable's dtype so that they hold as given.
    where : callable, optional
        Called as ``where(path, variable)`` for each trainable variable, with the variable's
        path as Keras has it, such as ``"sequential/dense/kernel"``. The variables for which it
        is true are clipped, and no others. Default: those that a layer holds as ``kernel``,
        ``recurrent_kernel``, ``depthwise_kernel`` or ``pointwise_kernel``, or that bear such a
        name; no bias, no scale or offset of a normalisation, no embeddings.

    Raises
    ------
    TypeError
        If a bound is no number and not None, or `where` cannot be called. When ``fit`` begins:
        if a variable to be clipped is complex, bool or of another dtype without order; if
        `where` returns an array.
    ValueError
        If a bound is NaN, if both are None, if the lower one is above the upper one. When
        ``fit`` begins: if nothing is picked, if no value of a variable's dtype lies between
        the bounds.

    Warns
    -----
    UserWarning
        When ``fit`` begins, if `where` picks the scale of a normalisation layer.

    See Also
    --------
    WeightRange : The same for the weights of one layer, saved with the model, without ``fit``.
    clipcore.clip_weights : The same for arrays.

    Notes
    -----
    The initial weights are clipped when ``fit`` begins; every optimizer's update is clipped
    before anything else reads the weights, be it the next step of ``steps_per_execution``,
    another network of the same train step, a metric or a callback. A variable that a step
    updates without a Keras optimizer is clipped at the end of the step. With ``use_ema`` the
    weights are clipped around each epoch, before its validation and when ``fit`` ends, too,
    since a moving average may have come into their place.

    Variables that are not trainable are left alone. NaN stays NaN, infinity becomes the bound.
    A constraint that a variable has already is applied first.

    References
    ----------
    .. [1] M. Arjovsky, S. Chintala, L. Bottou, "Wasserstein GAN", ICML 2017, algorithm 1.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from clipcore.integrations.keras import WeightClipping
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> _ = model.fit(x, y, verbose=0, callbacks=[WeightClipping(-0.01, 0.01)])
    >>> bool(abs(model.layers[0].kernel.numpy()).max() <= 0.01)
    True
    """

    def __init__(self, lower: Any, upper: Any, where: Where | None = None) -> None:
        super().__init__()
        self.range = Range.of("WeightClipping", lower, upper)
        if where is not None and not callable(where):
            raise TypeError(
                f"WeightClipping: where is {shown(where)}; give a function called as where(path, variable)"
            )
        self.where = where
        self.variables: list[Any] = []

    def choose(self) -> None:
        """Find the variables to clip, as far as the model has been built."""
        model, known = self.model, {id(variable) for variable in self.variables}
        self.variables = choose(model, "WeightClipping", self.where)
        if not self.variables and (model.trainable_variables or model.built):
            raise ValueError(self._nothing(model))
        for variable in self.variables:
            self.range.check(variable)
            if id(variable) not in known and is_scale_of_normalisation(model, variable):
                warnings.warn(
                    f"WeightClipping: where picks {variable.path}, the scale of a normalisation layer, which "
                    "begins at 1 and is meant to be free; pick kernels alone unless that is what you want",
                    stacklevel=2,
                )

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        """Clip the initial weights, and have the train step clip."""
        self.variables = []
        self.choose()
        self._clip()
        training_of(self.model).join(self)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Begin again where the model has another train function, made since what is trainable changed."""
        if not is_training(self._model.train_function):
            self.choose()
            self._clip()
            training_of(self.model).join(self)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Clip what was swapped back for an average."""
        self._clip_averages()

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        """Clip an average that was swapped in for the validation."""
        self._clip_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Clip an average that was swapped in for the callbacks to come."""
        self._clip_averages()

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """Clip the average that ``fit`` leaves as the weights."""
        self._clip_averages()
        training_of(self.model).leave(self)
        self.variables = []

    def _clip_averages(self) -> None:
        if self.variables and has_averages(self.model.optimizer):
            self._clip()

    def _clip(self) -> None:
        for variable in self.variables:
            variable.assign(self.range.cut(variable))

    def _nothing(self, model: Any) -> str:
        paths = [variable.path for variable in model.trainable_variables]
        listed = ", ".join(paths[:6]) + (", ..." if len(paths) > 6 else "")
        have = f"the trainable variables are {listed}" if paths else "the model has no trainable variables"
        if self.where is None:
            return f"WeightClipping: the model has no trainable kernels, and {have}; pick by where="
        return f"WeightClipping: where picked nothing, and {have}; pick at least one of them"


@keras.saving.register_keras_serializable(package="clipcore")
class WeightRange(keras.constraints.Constraint):
    r"""Keep the weights of a layer in the range from `lower` to `upper`, as a Keras constraint.

    .. math:: w_i \leftarrow \min(\max(w_i, \mathrm{lower}), \mathrm{upper})

    after each update by a Keras optimizer, in ``fit``, ``train_on_batch`` and loops of your own.

    Parameters
    ----------
    lower, upper : float or None
        The bounds, in the unit of the weights; None for no bound on that side. Rounded to the
        variable's dtype so that they hold as given.

    Raises
    ------
    TypeError
        If a bound is no number and not None. When called: if the weights are complex, bool or
        of another dtype without order.
    ValueError
        If a bound is NaN, if both are None, if the lower one is above the upper one. When
        called: if no value of the weights' dtype lies between the bounds.

    See Also
    --------
    WeightClipping : The same for all kernels of a model, for as long as one ``fit`` lasts.

    Notes
    -----
    Keras applies a constraint after an update, not to the initial weights. NaN stays NaN,
    infinity becomes the bound, and what is inside keeps its bits.

    Examples
    --------
    >>> import keras
    >>> from clipcore.integrations.keras import WeightRange
    >>> layer = keras.layers.Dense(1, kernel_constraint=WeightRange(-0.01, 0.01))
    >>> layer.kernel_constraint.get_config()
    {'lower': -0.01, 'upper': 0.01}
    """

    def __init__(self, lower: Any, upper: Any) -> None:
        self.range = Range.of("WeightRange", lower, upper)

    def __call__(self, w: Any) -> Any:
        """Return the weights, a variable's or a tensor, cut to the range."""
        return self.range.cut(w)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` builds an equal constraint from."""
        return {"lower": self.range.lower, "upper": self.range.upper}
