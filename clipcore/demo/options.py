"""What a run is asked for, and what it does where nothing was said."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final

from clipcore.demo.clipping import CLIPS, NORMS, RANGES, Clipping
from clipcore.demo.optimizers import OPTIMIZERS

__all__ = ["DEFAULTS", "MODELS", "NORMALIZATIONS", "OptionError", "Options"]

MODELS: Final = ("mlp", "rnn", "wgan")
NORMALIZATIONS: Final = ("none", "batch", "layer")


class OptionError(ValueError):
    """Options that do not fit together; the message says which, and what to give."""


@dataclass(frozen=True)
class Options:
    """All that decides a run: two runs of equal options are equal bit for bit.

    Attributes
    ----------
    model : str
        One of `MODELS`.
    clip : str
        One of `CLIPS`.
    max_norm, range : float or None
        The limit of the clips by norm, and of those into a range, which ends at ±range.
    where : str
        Which weights are clipped: ``kernels`` or ``all``.
    optimizer, learning_rate, epochs, seed
        How the network is trained; an epoch is one pass over the training data.
    normalization : str
        One of `NORMALIZATIONS`, between the layers of the MLP or of the WGAN's critic.
    activation : str
        ``relu`` or ``tanh``, of the MLP and of both networks of the WGAN.
    data : str
        The user's own file; empty for the data that the model comes with.
    """

    model: str
    clip: str
    max_norm: float | None
    range: float | None
    where: str
    optimizer: str
    learning_rate: float
    epochs: int
    seed: int
    normalization: str
    activation: str
    data: str

    @classmethod
    def of(cls, model: str, **asked: Any) -> Options:
        """Return the model's defaults with what was asked in their place (None: nothing asked).

        Raises
        ------
        OptionError
            If a name is unknown, a number out of its range, or a limit belongs to another clip.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(asked) - known):
            raise OptionError(f"{unknown[0]}: no such option; there are {', '.join(sorted(known))}")
        if model not in MODELS:
            raise OptionError(f"model: {model!r} is not one of {', '.join(MODELS)}")
        given = {name: value for name, value in asked.items() if value is not None}
        clip = given.get("clip", DEFAULTS[model]["clip"])
        limit = {"max_norm": None, "range": None}
        if clip in NORMS:
            limit["max_norm"] = DEFAULTS[model]["max_norm"]
        elif clip in RANGES:
            limit["range"] = DEFAULTS[model]["range"]
        options = cls(**(_COMMON | DEFAULTS[model] | limit | given), model=model)
        options._check()
        return options

    @property
    def clipping(self) -> Clipping:
        """The clip and its limit."""
        limit = self.max_norm if self.clip in NORMS else self.range
        return Clipping(self.clip, math.inf if limit is None else limit, self.where)

    def _check(self) -> None:
        """Refuse what cannot be run."""
        choices = {
            "clip": CLIPS,
            "where": ("kernels", "all"),
            "optimizer": tuple(OPTIMIZERS),
            "normalization": NORMALIZATIONS,
            "activation": ("relu", "tanh"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise OptionError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.max_norm is not None and self.clip not in NORMS:
            raise OptionError(f"max_norm: it limits the clips {', '.join(NORMS)}; this one is {self.clip}")
        if self.range is not None and self.clip not in RANGES:
            raise OptionError(f"range: it limits the clips {', '.join(RANGES)}; this one is {self.clip}")
        for name in ("max_norm", "range"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit < math.inf:
                raise OptionError(f"{name}: {limit} is no finite number of 0 or more; none is: --clip none")
        if self.where != "kernels" and self.clip != "weights":
            raise OptionError(f"where: it chooses weights to clip; this clip is {self.clip}")
        if not 0 < self.learning_rate < math.inf:
            raise OptionError(f"learning_rate: {self.learning_rate} is no positive number")
        if self.epochs < 1:
            raise OptionError(f"epochs: {self.epochs} is less than 1")
        if self.seed < 0:
            raise OptionError(f"seed: {self.seed} is less than 0")
        for name in ("normalization", "activation"):
            if self.model == "rnn" and getattr(self, name) != _COMMON[name]:
                raise OptionError(f"{name}: the mlp and the wgan have a choice; this is the rnn")


_COMMON: Final[dict[str, Any]] = {
    "where": "kernels",
    "seed": 0,
    "normalization": "none",
    "activation": "relu",
    "data": "",
}
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "mlp": {
        "clip": "global",
        "max_norm": 1.0,
        "range": 0.3,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "epochs": 20,
    },
    "rnn": {
        "clip": "global",
        "max_norm": 1.0,
        "range": 1.0,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "epochs": 8,
    },
    "wgan": {
        "clip": "weights",
        "max_norm": 1.0,
        "range": 0.2,
        "optimizer": "sgd",
        "learning_rate": 0.03,
        "epochs": 40,
    },
}
"""The options of each model where nothing was asked; a limit counts where the clip has it."""
