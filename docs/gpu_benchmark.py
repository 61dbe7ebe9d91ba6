"""Time clips on a GPU against torch's, CuPy's own and a copy: a table with its date.

    pip install "clipcore[cuda12]" torch
    python docs/gpu_benchmark.py

All contenders take turns in one run, each with gradients of its own; the figures are medians of 30
rounds, after 5 that do not count. A call is timed from an idle device to its end, the host's work
included; the device by itself, with the call's work queued behind a kernel that holds the stream.
Every round's limit is below the one before, so that every round clips; torch multiplies whether
that is needed or not. What was clipped is judged in the same run: copied to the host and measured.
"""

import datetime
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from clipcore import clip_by_global_norm, clip_by_value, global_norm

Shape = tuple[int, ...]

ROUNDS, WARM = 30, 5
SHRINK = 0.97


def gpt2_shapes() -> list[Shape]:
    """Return the shapes of the weights of GPT-2, the small one."""
    width, layers = 768, 12
    block: list[Shape] = [
        (width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,),
        (width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,),
    ]  # fmt: skip
    return [(50257, width), (1024, width), *block * layers, (width,), (width,)]


TREES: dict[str, list[Shape]] = {
    "six leaves of an MLP": [(64, 32), (32,), (32, 32), (32,), (32, 10), (10,)],
    "10,000 leaves of 1,000": [(1000,)] * 10_000,
    "GPT-2, small": gpt2_shapes(),
    "one leaf of 1 GiB": [(2**28,)],
}


HOLD = r"""
extern "C" __global__ void hold(long long cycles)
{
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


class Times(NamedTuple):
    """Milliseconds of each round, by contender."""

    calls: dict[str, list[float]]
    device: dict[str, list[float]]


class Row(NamedTuple):
    """What was timed: a case, how often its bytes cross the memory, and the times."""

    case: str
    leaves: int
    elements: int
    passes: int
    times: Times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median of the ratios of two contenders, round by round."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def table(rows: list[Row], device: str, versions: dict[str, str], day: datetime.date) -> str:
    """Return the rows as a table in Markdown, with what they were seen on, and when."""
    seen = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{day.isoformat()}, {device}, {seen}; float32, in place, medians of {ROUNDS} rounds",
        "",
        "| case | leaves | elements | a call, ms | per torch's | per CuPy's "
        "| on the device, ms | per torch's | per CuPy's | of the copy's bandwidth |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row.case, f"{row.leaves:,}", f"{row.elements:,}"]
        for times in row.times:
            cells.append(f"{statistics.median(times['clipcore']):.3f}")
            for other in ("torch", "cupy"):
                cells.append(f"{ratio(times, 'clipcore', other):.2f}" if other in times else "")
        # A copy, of as many bytes in one piece, reads and writes each once.
        cells.append(f"{row.passes / 2 * ratio(row.times.device, 'copy', 'clipcore'):.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(cupy: Any, contenders: dict[str, Callable[[int], object]]) -> Times:
    """Return the times of functions that are told the round."""
    hold = cupy.RawKernel(HOLD, "hold")
    times = Times({name: [] for name in contenders}, {name: [] for name in contenders})
    held = dict.fromkeys(contenders, 0.0)
    for turn in range(2 * (WARM + ROUNDS)):
        behind = turn % 2 == 1
        for name, run in contenders.items():
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            cupy.cuda.get_current_stream().synchronize()
            if behind:  # for longer than the host took to queue the call before
                hold((1,), (1,), (int(4e6 * (held[name] + 0.2)),))
            start.record()
            before = time.perf_counter()
            run(turn)
            held[name] = 1e3 * (time.perf_counter() - before)
            stop.record()
            stop.synchronize()
            if turn >= 2 * WARM:
                times[behind][name].append(cupy.cuda.get_elapsed_time(start, stop))
    return times


def gradients(cupy: Any, shapes: list[Shape]) -> list[Any]:
    """Return standard normal gradients."""
    random = cupy.random.default_rng(0)
    return [random.standard_normal(shape, dtype="float32") for shape in shapes]


def global_row(cupy: Any, torch: Any, name: str, shapes: list[Shape], *, clipped: bool) -> Row:
    """Time the clip by the global norm on one tree, and judge it."""
    tree, theirs = gradients(cupy, shapes), gradients(cupy, shapes)
    parameters = []
    for leaf in theirs:
        parameters.append(torch.nn.Parameter(torch.from_dlpack(leaf)))
        parameters[-1].grad = torch.from_dlpack(leaf)
    norm, size = float(global_norm(tree)), sum(leaf.size for leaf in tree)
    (source,), (target,) = gradients(cupy, [(size,)]), gradients(cupy, [(size,)])

    def limit(turn: int) -> float:
        return norm * (SHRINK ** (turn + 1) if clipped else 2)

    contenders: dict[str, Callable[[int], object]] = {
        "clipcore": lambda turn: clip_by_global_norm(tree, limit(turn), out=tree),
        "torch": lambda turn: torch.nn.utils.clip_grad_norm_(parameters, limit(turn), foreach=True),
        "copy": lambda _: target.data.copy_from_device_async(source.data, source.nbytes),
    }
    times = measured(cupy, contenders)
    last = limit(2 * (WARM + ROUNDS) - 1) if clipped else norm
    judge([leaf.get() for leaf in tree], float(global_norm(tree)), last)
    case = f"{name}, {'clipped' if clipped else 'not clipped'}"
    return Row(case, len(tree), size, 3 if clipped else 1, times)


def judge(results: list[Any], norm: float, limit: float) -> None:
    """Raise where a norm is off, or results are beyond their limit or far from it, measured on the host."""
    exact = float(global_norm(results))
    if abs(norm - exact) > 2.0**-44 * exact or not 1 - 2.0**-21 <= exact / limit <= 1 + 2.0**-44:
        raise ArithmeticError(f"norm {norm!r} on the device, {exact!r} on the host, limit {limit!r}")


def value_row(cupy: Any, torch: Any) -> Row:
    """Time the clip by value on 1 GiB, and judge it."""
    (x,), (own,), (target,) = (gradients(cupy, [(2**28,)]) for _ in range(3))
    tensor = torch.from_dlpack(own)
    contenders: dict[str, Callable[[int], object]] = {
        "clipcore": lambda _: clip_by_value(x, -1.0, 1.0, out=x),
        "torch": lambda _: tensor.clamp_(-1.0, 1.0),
        "cupy": lambda _: cupy.clip(own, -1.0, 1.0, out=own),
        "copy": lambda _: target.data.copy_from_device_async(own.data, own.nbytes),
    }
    times = measured(cupy, contenders)
    if not np.array_equal(x.get(), own.get()):
        raise ArithmeticError("clip_by_value and cupy.clip differ")
    return Row("clip_by_value, 1 GiB", 1, x.size, 2, times)


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
    rows = []
    for clipped in (True, False):
        for name, shapes in TREES.items():
            print(f"{name} ...", file=sys.stderr)
            rows.append(global_row(cupy, torch, name, shapes, clipped=clipped))
    rows.append(value_row(cupy, torch))
    device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    versions = {name: importlib.import_module(name).__version__ for name in ("clipcore", "cupy", "torch")}
    print(table(rows, device, versions, datetime.datetime.now(datetime.UTC).date()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
