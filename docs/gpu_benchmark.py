"""Time a clip by the global norm on a GPU against torch's and against a copy: a table with its date.

    pip install "clipcore[cuda12]" torch
    python docs/gpu_benchmark.py

Each figure is the median of 30 runs, timed on the device by events, after 5 that do not count.
clipcore reads the gradients and writes the clipped ones to other arrays; torch clips in place,
whether that is needed or not; the copy copies every leaf. So all of them read every element, or
read it twice, and write it once.
"""

import datetime
import importlib
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

Shape = tuple[int, ...]

RUNS, WARM = 30, 5


class Row(NamedTuple):
    """What was timed, in milliseconds."""

    name: str
    leaves: int
    elements: int
    clipcore: float
    torch: float
    copy: float


def gpt2_shapes() -> list[Shape]:
    """Return the shapes of the weights of GPT-2, the small one."""
    width, layers = 768, 12
    block: list[Shape] = [
        (width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,),
        (width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,),
    ]  # fmt: skip
    return [(50257, width), (1024, width), *block * layers, (width,), (width,)]


TREES: dict[str, list[Shape]] = {
    "GPT-2, small": gpt2_shapes(),
    "2,000 small leaves": [(256,)] * 2000,
    "one leaf of 1 GiB": [(2**28,)],
}


def table(rows: list[Row], device: str, versions: dict[str, str], day: datetime.date) -> str:
    """Return the rows as a table in Markdown, with what they were seen on, and when."""
    seen = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{day.isoformat()}, {device}, {seen}; float32, medians of {RUNS} runs",
        "",
        "| tree | leaves | elements | clipcore ms | torch ms | copy ms | per torch | per copy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = f"{row.clipcore:.3f} | {row.torch:.3f} | {row.copy:.3f}"
        ratios = f"{row.clipcore / row.torch:.2f} | {row.clipcore / row.copy:.2f}"
        lines.append(f"| {row.name} | {row.leaves:,} | {row.elements:,} | {times} | {ratios} |")
    return "\n".join(lines)


def median_time(cupy: Any, run: Callable[[], object]) -> float:
    """Return the median time of a call on the device, in milliseconds."""
    times = []
    for _ in range(WARM + RUNS):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, stop))
    return statistics.median(times[WARM:])


def measured(cupy: Any, torch: Any, name: str, shapes: list[Shape]) -> Row:
    """Time the three on one tree."""
    from clipcore import clip_by_global_norm, global_norm

    random = cupy.random.default_rng(0)
    tree = [random.standard_normal(shape, dtype="float32") for shape in shapes]
    outs = [cupy.empty_like(leaf) for leaf in tree]
    limit = 0.5 * float(global_norm(tree))
    parameters = [torch.nn.Parameter(torch.from_dlpack(out)) for out in outs]
    for parameter, leaf in zip(parameters, tree, strict=True):
        parameter.grad = torch.from_dlpack(leaf.copy())

    def copy() -> None:
        for leaf, out in zip(tree, outs, strict=True):
            out.data.copy_from_device_async(leaf.data, leaf.nbytes)

    stream = torch.cuda.ExternalStream(cupy.cuda.get_current_stream().ptr)
    with torch.cuda.stream(stream):
        theirs = median_time(cupy, lambda: torch.nn.utils.clip_grad_norm_(parameters, limit))
    ours = median_time(cupy, lambda: clip_by_global_norm(tree, limit, out=outs))
    return Row(name, len(tree), sum(leaf.size for leaf in tree), ours, theirs, median_time(cupy, copy))


def main() -> int:
    """Print the table, or why there is none."""
    try:
        cupy, torch = (importlib.import_module(name) for name in ("cupy", "torch"))
    except ImportError as error:
        print(f"no table: {error.name} is not installed", file=sys.stderr)
        return 1
    if not (cupy.cuda.is_available() and torch.cuda.is_available()):
        print("no table: CuPy or torch finds no NVIDIA GPU", file=sys.stderr)
        return 1
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    versions = {name: importlib.import_module(name).__version__ for name in ("clipcore", "cupy", "torch")}
    with cupy.cuda.Stream(non_blocking=True):
        rows = [measured(cupy, torch, name, shapes) for name, shapes in TREES.items()]
    print(table(rows, properties["name"].decode(), versions, datetime.datetime.now(datetime.UTC).date()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
