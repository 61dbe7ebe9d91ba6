"""Rebuild the atlas, environment by environment.

Call it as `python docs/atlas/rebuild.py [ENVIRONMENT …]`, from where clipcore is installed. Every environment
is made anew in a folder of its own, and its report is written beside this file; at last all reports that are
there are merged into atlas.html and atlas.md. Each takes some minutes and up to 2 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

# What to install besides clipcore, what to judge there, and the backend of Keras.
ENVIRONMENTS: dict[str, tuple[list[str], list[str], str]] = {
    "numpy": (["array-api-strict"], ["clipcore", "by-hand", "clipcore.array-api-strict"], ""),
    "clipcore": (["torch", "jax"], ["clipcore.torch", "clipcore.jax"], ""),
    "torch": (["torch", "opacus", "keras"], ["torch", "opacus", "keras"], "torch"),
    "jax": (["jax", "optax", "jax-privacy", "keras"], ["jax", "optax", "jax_privacy", "keras"], "jax"),
    "tensorflow": (["tensorflow-cpu", "keras"], ["tf", "keras"], "tensorflow"),
    "mlx": (["mlx[cpu]"], ["mlx"], ""),
    "paddle": (["paddlepaddle"], ["paddle"], ""),
}


def rebuild(name: str) -> None:
    """Make one environment, and write its report."""
    packages, targets, keras = ENVIRONMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        print(f"{name}: installing {', '.join(packages)}", flush=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", *packages, "ml_dtypes", f"{CHECKOUT}[verify]"], check=True
        )
        report = HERE / f"{name}.json"
        command = [python, "-m", "clipcore", "verify", *targets, "--examples", "50", "--json", report]
        environment = {**os.environ, **({"KERAS_BACKEND": keras} if keras else {})}
        # 1 says that some law was broken, which is what the atlas shows
        if subprocess.run(command, env=environment, cwd=folder, check=False).returncode > 1:
            raise SystemExit(f"{name}: clipcore verify failed")


def merge() -> None:
    """Write the page and the Markdown of all reports."""
    reports = [HERE / f"{name}.json" for name in ENVIRONMENTS if (HERE / f"{name}.json").exists()]
    targets = ["--html", HERE / "atlas.html", "--markdown", HERE / "atlas.md"]
    subprocess.run([sys.executable, "-m", "clipcore", "atlas", *reports, *targets], check=True)


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(ENVIRONMENTS)
    if unknown:
        raise SystemExit(f"no such environment: {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    for chosen in sys.argv[1:] or ENVIRONMENTS:
        rebuild(chosen)
    merge()
