"""Which weights of a Keras model are clipped, and into which range."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from clipcore_backends._formats import FORMATS

from clipcore._bounds import check_bounds, is_array_bound, round_bounds
from clipcore._messages import shown
from clipcore._typing import Bound
from clipcore.integrations._require import require

__all__ = ["Range", "Where", "choose", "has_averages", "is_scale_of_normalisation", "keras"]

keras: Any = require("keras", "3.10")

Where = Callable[[str, Any], bool]

_KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
_SCALES = ("gamma", "scale")


class Range(NamedTuple):
    """Checked bounds, and the name of what they were given to."""

    function: str
    lower: float | None
    upper: float | None

    @classmethod
    def of(cls, function: str, lower: Bound, upper: Bound) -> Range:
        """Check bounds, as far as no weight is needed, and keep them as floats that hold as given."""
        for argument, bound in (("lower", lower), ("upper", upper)):
            if bound is not None and is_array_bound(bound):
                raise TypeError(
                    f"{function}: {argument} is {shown(bound)}, an array; give a number, or None for no bound"
                )
        check_bounds(function, lower, upper)
        # Rounding inward to float64 first changes nothing: every smaller format is part of it.
        rounded = round_bounds(function, lower, upper, "float64")
        if rounded == (None, None):
            raise ValueError(
                f"{function}: lower is {shown(lower)} and upper is {shown(upper)}, which bound nothing; "
                f"give a bound, or leave {function} out to switch clipping off"
            )
        return cls(function, *rounded)

    def check(self, variable: Any) -> None:
        """Raise what cutting the variable would raise, with its path."""
        _rounded(self, keras.backend.standardize_dtype(variable.value.dtype), variable.path)

    def cut(self, value: Any) -> Any:
        """Return a variable's value, or a tensor, cut to the range, on its device."""
        tensor = value.value if isinstance(value, keras.Variable) else value
        if not keras.ops.is_tensor(tensor):  # which conversion would move to the device of Keras
            tensor = keras.ops.convert_to_tensor(tensor)
        lower, upper = _rounded(self, keras.backend.standardize_dtype(tensor.dtype))
        if keras.backend.backend() == "torch":  # of whose bounds Keras would make tensors first
            return tensor.clamp(lower, upper)
        return keras.ops.clip(tensor, lower, upper)


@functools.cache
def _rounded(bounds: Range, dtype: str, name: str = "w") -> tuple[float, float]:
    """Return bounds as numbers of a dtype, infinite where there is none."""
    if dtype not in FORMATS:
        raise TypeError(
            f"{bounds.function}: {name} has dtype {dtype}; weights are clipped in {', '.join(FORMATS)}: "
            "leave it out"
        )
    lower, upper = round_bounds(bounds.function, bounds.lower, bounds.upper, dtype)
    return -math.inf if lower is None else lower, math.inf if upper is None else upper


def choose(model: Any, function: str, where: Where | None) -> list[Any]:
    """Return the trainable variables to clip, each once: the kernels of a model, or what `where` picks."""
    variables = model.trainable_variables
    if where is not None:
        return [variable for variable in variables if _picked(function, where, variable)]
    held = {id(variable) for _, variable in _held(model, _KERNELS)}
    return [variable for variable in variables if id(variable) in held or variable.name in _KERNELS]


def is_scale_of_normalisation(model: Any, variable: Any) -> bool:
    """Tell whether a variable is the scale of a layer that normalises, of Keras or another's."""
    return any(
        variable is scale and any("norm" in kind.__name__.lower() for kind in type(layer).__mro__)
        for layer, scale in _held(model, _SCALES)
    )


def has_averages(optimizer: Any) -> bool:
    """Tell whether an optimizer, or one that it wraps, keeps moving averages of the weights."""
    wrapped = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return any(getattr(each, "use_ema", False) for each in (optimizer, *wrapped))


def _held(model: Any, names: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Yield layers, nested ones too, with what they hold under these names."""
    for layer in model._flatten_layers():
        for name in names:
            yield layer, getattr(layer, name, None)


def _picked(function: str, where: Where, variable: Any) -> bool:
    answer = where(variable.path, variable)
    try:
        return bool(answer)
    except (RuntimeError, TypeError, ValueError):  # an array of several elements, or one that is traced
        raise TypeError(
            f"{function}: where returned {shown(answer)} for {variable.path}; return True or False"
        ) from None
