"""The train function of a Keras model, which clips inside each step while a fit asks it to.

Keras compiles a train step once, then runs it without looking at Python. So the clip is put
where the step is traced: as the constraint of each variable, which every Keras optimizer
applies right after it has updated the variable. It is there only while the step is traced or
runs eagerly. What a step updates by another road is cut at the step's end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from clipcore.integrations._keras_weights import Range, keras

__all__ = ["Training", "is_training", "training_of"]


class Clipping(Protocol):
    """What a fit asks for: variables, and the range for them."""

    variables: list[Any]
    range: Range

    def choose(self) -> None:
        """Find the variables of the model, as far as it has any yet."""


class _Clip(keras.constraints.Constraint):
    """The constraint of one variable during a step: its own, then the ranges."""

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.own: Any = None
        self.ranges: tuple[Range, ...] = ()
        self.seen = False

    def __call__(self, value: Any) -> Any:
        self.seen = True
        return self.cut(value if self.own is None else self.own(value))

    def cut(self, value: Any) -> Any:
        for each in self.ranges:
            value = each.cut(value)
        return value


def _clips(clippings: list[Clipping]) -> list[_Clip]:
    clips: dict[int, _Clip] = {}
    for clipping in clippings:
        for variable in clipping.variables:
            clip = clips.setdefault(id(variable), _Clip(variable))
            clip.ranges += (clipping.range,)
    return list(clips.values())


def _key(clips: list[_Clip]) -> list[tuple[int, tuple[Range, ...]]]:
    return [(id(clip.variable), clip.ranges) for clip in clips]


class _Step:
    """A train step that leaves the chosen variables inside their ranges."""

    def __init__(self, model: Any, clippings: list[Clipping]) -> None:
        self.model = model
        self.clippings = clippings
        self.function: Callable[..., Any]
        self.clips = _clips(clippings)
        self.known = len(model.trainable_variables)
        self.settled = self.fresh = self.ran = False
        self.depth = 0

    def __call__(self, *args: Any) -> Any:
        self.ran = True
        if self.fresh:
            with _outside():
                for clip in self.clips:
                    clip.variable.assign(clip.cut(clip.variable))
            self.fresh = False
        with self._hooked():
            outputs = self.function(*args)
        if not self.settled:
            self._settle()
        return self._cut_rest(outputs)

    def _settle(self) -> None:
        """Choose again if the step has built what was not built: TensorFlow then traces it once more."""
        known, self.known = self.known, len(self.model.trainable_variables)
        self.settled = self.known == known
        if not self.settled:
            for clipping in self.clippings:
                clipping.choose()
            self.clips = _clips(self.clippings)
            self.fresh = True

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[None]:
        """Put the clips in the constraints' place; replicas of a TensorFlow strategy overlap here."""
        if not self.depth:
            for clip in self.clips:
                clip.seen, clip.own, clip.variable.constraint = False, clip.variable.constraint, clip
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if not self.depth:
                for clip in self.clips:
                    clip.variable.constraint = clip.own

    def _cut_rest(self, outputs: Any) -> Any:
        """Cut what no Keras optimizer has updated in this step, or the model's own step may have changed."""
        own = not type(self.model).train_step.__module__.startswith("keras.")
        rest = [clip for clip in self.clips if own or not clip.seen]
        if rest and keras.backend.backend() == "jax":
            logs, (trainable, *others) = outputs
            values = list(trainable)
            places = {id(variable): place for place, variable in enumerate(self.model.trainable_variables)}
            for clip in rest:
                place = places[id(clip.variable)]
                values[place] = clip.cut(values[place])
            return logs, (values, *others)
        for clip in rest:
            clip.variable.assign(clip.cut(clip.variable))
        return outputs


class Training:
    """Stands as ``model.train_function``: the model's own one, or one that clips while a fit asks for it.

    It stays there after the fit, so that the next one that asks for the same finds it compiled.
    ``model.compile`` drops it, as it drops every train function.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.plain = model.train_function
        self.fit: Any = None
        self.clippings: list[Clipping] = []
        self.current: Callable[..., Any] | None = None
        self.compiled: list[tuple[_Step, Callable[..., Any]]] = []

    def __call__(self, *args: Any) -> Any:
        if not self.clippings or self._fit() is not self.fit:
            return self.plain(*args)
        if self.current is None:
            self.current = self._compile()
        return self.current(*args)

    def join(self, clipping: Clipping) -> None:
        """Clip from now on, to the end of this fit."""
        if self._fit() is not self.fit:  # the last one was interrupted, and nobody has left it
            self.fit, self.clippings = self._fit(), []
        self.clippings.append(clipping)
        self.current = None

    def leave(self, clipping: Clipping) -> None:
        """End what `join` began."""
        self.clippings = [each for each in self.clippings if each is not clipping]
        self.current = None

    def _fit(self) -> Any:
        """Return what tells one fit from another: each makes its own History."""
        return getattr(self.model, "history", None)

    def _compile(self) -> Callable[..., Any]:
        wanted = _key(_clips(self.clippings))
        for step, function in self.compiled:
            if _key(step.clips) == wanted:
                return function
        step = _Step(self.model, list(self.clippings))
        function = self._around(step) if _looks_step_up_late() else self._inside(step)
        self.compiled.append((step, function))
        return function

    def _around(self, step: _Step) -> Callable[..., Any]:
        step.function = self._made()
        return step

    def _inside(self, step: _Step) -> Callable[..., Any]:
        step.function = self.model.train_step
        with self._stepping_by(step):
            function = self._made()

        def train(*args: Any) -> Any:
            with self._stepping_by(step):  # some versions of Keras look the step up when they trace it
                outputs = function(*args)
            if not step.ran:
                raise RuntimeError(
                    "WeightClipping: the train function of this model does not call its train_step, so that "
                    "nothing was clipped; give the layers WeightRange as a constraint instead"
                )
            return outputs

        return train

    @contextlib.contextmanager
    def _stepping_by(self, step: _Step) -> Iterator[None]:
        attributes = vars(self.model)
        own = attributes.get("train_step")
        attributes["train_step"] = lambda *args: step(*args)
        try:
            yield
        finally:
            if own is None:
                del attributes["train_step"]
            else:
                attributes["train_step"] = own

    def _made(self) -> Callable[..., Any]:
        """Return a train function as the model makes it, traced by nobody yet."""
        self.model.train_function = None
        try:
            self.model.make_train_function()
            return self.model.train_function  # type: ignore[no-any-return]
        finally:
            self.model.train_function = self


def is_training(function: Any) -> bool:
    """Tell whether a model's train function is one that can clip."""
    return isinstance(function, Training)


def training_of(model: Any) -> Training:
    """Return the model's train function as one that can clip."""
    if not is_training(model.train_function):
        model.make_train_function()
        model.train_function = Training(model)
    training: Training = model.train_function
    return training


def _looks_step_up_late() -> bool:
    """Tell whether a train function asks the model's class for the step, or asks at each call."""
    nnx = getattr(keras.config, "is_nnx_enabled", bool)
    return keras.backend.backend() == "torch" or bool(nnx())


def _outside() -> Any:
    """Return the context in which TensorFlow runs at once although a step is being traced."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()
