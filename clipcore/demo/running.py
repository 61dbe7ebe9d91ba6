"""One run: data, training, and all that was seen of it, also where it diverges or is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from clipcore.demo.data import Data
from clipcore.demo.options import Options
from clipcore.demo.training import DivergedError, Step, Supervised, Trainer
from clipcore.demo.wgan import WGAN

__all__ = ["Run", "train"]


@dataclass
class Run:
    """What came of a training.

    Attributes
    ----------
    options, data, trainer
        What was asked for, what was learnt, and what has learnt it.
    history : list of Step
        One record a step that was taken.
    epochs : list of dict
        The scores on the test examples after every epoch.
    diverged : str
        Why training stopped; empty where it did not diverge.
    interrupted : bool
        Whether it was stopped from outside.
    """

    options: Options
    data: Data
    trainer: Trainer
    history: list[Step] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    diverged: str = ""
    interrupted: bool = False

    @property
    def share_clipped(self) -> float:
        """The share of the steps in which clipping did something."""
        return sum(step.clipped for step in self.history) / max(1, len(self.history))

    def scores(self) -> dict[str, float]:
        """Return the scores on the test examples with the network as it is."""
        with np.errstate(all="ignore"):
            return self.trainer.scores()


def train(options: Options, data: Data, seen: Callable[[Run], None] | None = None) -> Run:
    """Train as asked, in one thread, and return all that was seen; an interruption ends it early.

    Parameters
    ----------
    options : Options
        All that decides the run, with the data.
    data : Data
        What `load_data` returns for these options.
    seen : callable, optional
        Called with the run after every step.

    Returns
    -------
    Run
        Its history, and the network as it was left; where it diverged, the one that gave the
        loss or the gradients that ended it.
    """
    trainer: Trainer = (WGAN if options.model == "wgan" else Supervised)(options, data)
    run = Run(options, data, trainer)
    # One thread: sums do not depend on the number of cores, and matrices this small need no more.
    with threadpool_limits(1), np.errstate(all="ignore"):  # what overflows is what is shown here
        try:
            for step in trainer.steps():
                run.history.append(step)
                if step.step % (trainer.steps_planned // options.epochs) == 0:
                    run.epochs.append(trainer.scores())
                if seen is not None:
                    seen(run)
        except DivergedError as reason:
            run.diverged = str(reason)
        except KeyboardInterrupt:
            run.interrupted = True
    return run
