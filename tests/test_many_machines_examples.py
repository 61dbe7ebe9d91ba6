"""Each example of docs/examples runs by the command that it states, and says what it has checked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ranks_run import mpirun, need, run

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
COMMANDS = {
    "torch_distributed.py": ("torch", "torchrun --standalone --nproc-per-node 2 {}"),
    "fsdp2.py": ("torch", "torchrun --standalone --nproc-per-node 2 {}"),
    "jax_shard_map.py": ("jax", "python {}"),
    "mpi.py": ("mpi4py", "mpirun -n 4 python {}"),
    "dask_distributed.py": ("distributed", "python {}"),
}


def started(command: str) -> list[str]:
    """A command as it starts with the interpreter of the tests."""
    program, *arguments = command.split()
    if program == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *arguments]
    if program == "mpirun":
        return mpirun(int(arguments[1]), *arguments[3:])
    return [sys.executable, *arguments]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_runs_and_prints_what_it_says(name: str, request: pytest.FixtureRequest) -> None:
    library, command = COMMANDS[name]
    need(request, library)
    path = EXAMPLES / name
    text = path.read_text()
    assert f"    {command.format(f'docs/examples/{name}')}\n" in text.split('"""')[1]
    assert 30 <= len(text.splitlines()) <= 60
    (printed,) = run(started(command.format(path)))
    assert re.search(r"^norm \d+\.\d+ on all \d ranks, as on one machine$", printed, re.MULTILINE), printed


def test_every_example_is_run() -> None:
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    for example in EXAMPLES.glob("*.py"):
        assert any(example.name in text for text in tests), example.name
