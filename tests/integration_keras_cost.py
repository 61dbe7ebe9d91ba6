"""What weight clipping adds to a train step of Keras, next to Keras's own clipping.

    KERAS_BACKEND=tensorflow python tests/integration_keras_cost.py

Every round fits the same model once in each way, in an order of its own; printed is the median
over the rounds of the ratio to the plain fit of the same round. Times of two runs do not compare.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROUNDS, STEPS = 9, 40
WAYS = ("plain", "WeightClipping", "WeightRange", "MaxNorm", "clipnorm")
SIZES = {"2 x 64": (2, 64), "4 x 512": (4, 512), "20 x 64": (20, 64)}


def ways(keras: Any, layers: int, width: int) -> dict[str, Any]:
    """Models of the same shape, each trained in one way, and the callbacks of its fit."""
    from clipcore.integrations.keras import WeightClipping, WeightRange

    def model(constraint: Any = None, **options: Any) -> Any:
        made = keras.Sequential(
            [keras.Input((width,))]
            + [keras.layers.Dense(width, "relu", kernel_constraint=constraint) for _ in range(layers)]
        )
        made.compile(keras.optimizers.SGD(1e-3, **options), "mse")
        return made

    return {
        "plain": (model(), []),
        "WeightClipping": (model(), [WeightClipping(-0.05, 0.05)]),
        "WeightRange": (model(WeightRange(-0.05, 0.05)), []),
        "MaxNorm": (model(keras.constraints.MaxNorm(1.0)), []),
        "clipnorm": (model(clipnorm=1.0), []),
    }


def main() -> None:
    """Measure, and print a table."""
    import keras
    import numpy as np

    order = random.Random(0)
    out = sys.stdout.write
    out(f"{keras.backend.backend()}, Keras {keras.__version__}\n| layers | plain, ms a step |")
    out(" | ".join(WAYS[1:]) + " |\n")
    for name, (layers, width) in SIZES.items():
        models = ways(keras, layers, width)
        x = np.random.default_rng(0).normal(size=(STEPS * 32, width)).astype("float32")
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(ROUNDS + 1):
            for way in order.sample(WAYS, len(WAYS)):
                trained, callbacks = models[way]
                start = time.perf_counter()
                trained.fit(x, x, batch_size=32, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
                if turn:  # the first one compiles
                    times[way].append((time.perf_counter() - start) / STEPS)
        ratios = [
            statistics.median(a / b for a, b in zip(times[way], times["plain"], strict=True))
            for way in WAYS[1:]
        ]
        out(f"| {name} | {statistics.median(times['plain']) * 1e3:.2f} | ")
        out(" | ".join(f"{each:.2f}" for each in ratios) + " |\n")


if __name__ == "__main__":
    main()
