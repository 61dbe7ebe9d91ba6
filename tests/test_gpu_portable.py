"""torch's and JAX's arrays on a GPU through the portable engine, each library in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MISSING = "is missing: "
TESTS = Path(__file__).parent


@pytest.mark.parametrize("place", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_the_laws_hold_on_the_device(library: str, place: str, request: pytest.FixtureRequest) -> None:
    if importlib.util.find_spec(library) is None:
        if place == "cpu" and request.config.getoption("--require-all", default=False):
            pytest.fail(f"{library} is not installed")
        pytest.skip(f"{library} is not installed")
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, __file__, library, place]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if MISSING in done.stdout:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("96 clips kept the laws")


def main(library: str, place: str) -> None:
    """Clip on the device, without a copy to the host, and judge by exact arithmetic."""
    import numpy as np
    from edge_support import Machine
    from test_engines import ORDERS, flaws

    from clipcore.verify.exact import exact_norm

    there = on_torch(Machine, place) if library == "torch" else on_jax(Machine, place)
    clips = 0
    for seed, dtype in enumerate(("float16", "float32", "float64", "complex64")):
        rng = np.random.default_rng(seed)
        for size in (1, 300):
            x = rng.standard_normal(2 * size).view("complex128")
            x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
            leaves = [x, np.zeros((2, 0), dtype), x[: size // 2]]
            for order in ORDERS:
                low, high = exact_norm(leaves, order).bounds()
                for limit in (
                    float(low) * 0.3,
                    float(low) * (1 - 1e-9),
                    float(high) * (1 + 1e-9),
                    float(high) * 2,
                ):
                    found = list(flaws(there, leaves, limit, order))
                    if found:
                        raise SystemExit(f"{dtype}, {size} elements, order {order}, limit {limit!r}: {found}")
                    clips += 1
    print(f"{clips} clips kept the laws")  # noqa: T201


def on_torch(machine: type[Any], place: str) -> Any:
    torch: Any = importlib.import_module("torch")
    if place == "gpu" and not torch.cuda.is_available():
        print(f"torch's GPU {MISSING}torch.cuda.is_available() is False")  # noqa: T201
        raise SystemExit
    device = "cuda" if place == "gpu" else "cpu"

    class Torch(machine):  # type: ignore[misc]
        def put(self, x: Any) -> Any:
            return [torch.from_numpy(leaf.copy()).to(device) for leaf in x]

        def get(self, x: Any) -> Any:
            if isinstance(x, list | tuple):
                return type(x)(map(self.get, x))
            return x.cpu().numpy()

        def run(self, function: Any, x: Any, *arguments: Any, **keywords: Any) -> Any:
            here = self.put(x)
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            try:
                result = function(here, *arguments, **keywords)
            finally:
                if device == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
            return self.get(result)

    return Torch(f"torch-{place}", "torch")


def on_jax(machine: type[Any], place: str) -> Any:
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    if place == "gpu" and jax.default_backend() != "gpu":
        print(f"JAX's GPU {MISSING}jax.default_backend() is {jax.default_backend()!r}")  # noqa: T201
        raise SystemExit
    device = jax.devices("gpu" if place == "gpu" else "cpu")[0]

    class Jax(machine):  # type: ignore[misc]
        def put(self, x: Any) -> Any:
            return [jax.device_put(leaf, device) for leaf in x]

        def get(self, x: Any) -> Any:
            if isinstance(x, list | tuple):
                return type(x)(map(self.get, x))
            import numpy as np

            return np.array(x)

        def run(self, function: Any, x: Any, *arguments: Any, **keywords: Any) -> Any:
            here = self.put(x)
            with jax.transfer_guard_device_to_host("disallow"):
                result = function(here, *arguments, **keywords)
            return self.get(result)

    return Jax(f"jax-{place}", "jax")


if __name__ == "__main__":
    main(*sys.argv[1:])
