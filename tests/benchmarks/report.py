"""Every case of the benchmark as ratios, from a single run: ``python tests/benchmarks/report.py``.

In each round every contender of a case runs once, one after the other; a ratio is the median
over the rounds of the ratios within a round. So what else the machine does hits all alike,
and no bare time is compared with one of another day. ``--write`` writes docs/speed.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import contenders
import numpy as np
from clipcore_backends import _threads
from contenders import Leaves, Run, drawn, has, without_numba

import clipcore
from clipcore.verify.exact import compare_norm

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
LIBRARIES = ("numpy", "numba", "torch", "optax", "jax", "tensorflow-cpu")

Maker = Callable[[Leaves], Run]


class Against(NamedTuple):
    """A contender that clipcore is measured against, and the ratio that is aimed at."""

    name: str
    maker: Maker
    most: float | None = None


class Case(NamedTuple):
    """What is measured: contenders named as in the table, and what each is measured against."""

    name: str
    shapes: list[tuple[int, ...]]
    ours: dict[str, tuple[Maker, list[Against]]]
    clipped: bool = True


def alone(maker: Maker) -> Maker:
    """The same with NumPy alone."""
    return lambda leaves: without_numba(maker(leaves))


def cases() -> Iterator[Case]:
    """All cases of the trees whose contenders are installed."""
    torch = [("torch", contenders.torch_in_place)] if has("torch") else []
    optax = [("optax in jax.jit", contenders.optax_jit)] if has("optax") else []
    flow = [("TensorFlow", contenders.tensorflow_eager)] if has("tensorflow") else []

    def against(maker: tuple[str, Maker], most: float | None = None) -> Against:
        return Against(*maker, most)

    hand, floor = ("by hand", contenders.by_hand), ("floor", contenders.read_and_multiply)
    read = ("one read", contenders.one_read)
    mlp, many, gpt2 = contenders.TREES.items()
    for name, shapes in (mlp, many):
        aims = [against(hand, 2.0 if name == mlp[0] else 1.3), *(against(each, 0.5) for each in torch)]
        others = [against(each) for each in (*optax, *flow)]
        yield Case(f"{name}: in place, clipped", shapes, {"NumPy alone": (contenders.in_place, aims)})
        aims = [against(hand), *(against(each, 0.5) for each in torch)]
        yield Case(
            f"{name}: in place, not clipped",
            shapes,
            {"NumPy alone": (contenders.in_place, aims)},
            False,
        )
        yield Case(f"{name}: pure", shapes, {"NumPy alone": (contenders.pure, [against(hand), *others])})
    name, shapes = gpt2
    numba = has("numba")

    def both(maker: Maker, plain: list[Against], fast: list[Against]) -> dict[str, Any]:
        return {"NumPy alone": (alone(maker), plain)} | ({"fast": (maker, fast)} if numba else {})

    yield Case(
        f"{name}: in place, clipped",
        shapes,
        both(
            contenders.in_place,
            [against(floor), *(against(each, 1.3) for each in torch), against(hand)],
            [against(floor, 1.25), *(against(each, 0.8) for each in torch), against(hand)],
        ),
    )
    yield Case(
        f"{name}: in place, not clipped",
        shapes,
        both(
            contenders.in_place,
            [against(read), *(against(each, 0.8) for each in torch)],
            [against(read), *(against(each, 0.5) for each in torch)],
        ),
        False,
    )
    pure = [*(against(each, 1.0) for each in optax), *(against(each) for each in flow)]
    yield Case(f"{name}: pure", shapes, both(contenders.pure, pure, pure))
    yield Case(
        f"{name}: `global_norm`", shapes, both(contenders.norm, [against(read, 2.5)], [against(read, 1.25)])
    )
    for name, shapes in contenders.TREES.items():
        if torch:
            aims = [against(torch[0], 1.2)]
            yield Case(
                f"{name}: tensors of torch, in place",
                shapes,
                {"clipcore": (contenders.clipcore_on_torch, aims)},
            )
        if optax:
            aims = [against(optax[0], 1.25)]
            yield Case(f"{name}: inside jax.jit", shapes, {"clipcore": (contenders.clipcore_jit, aims)})
    for dtype in ("float16", "float32", "float64"):
        for clip, layout in itertools.product(
            ("in place", "pure"), ("contiguous", "every other element", "axis=1")
        ):
            ours, by_hand = contenders.of_layout(clip, layout, dtype)
            yield Case(
                f"4 Mi {dtype}, {layout}, {clip}",
                [(2048, 2048)],
                {"clipcore": (ours, [Against("by hand", by_hand)])},
            )
    for name, maker, peer in contenders.value_clips():
        yield Case(
            name,
            [(2**24,)],
            {
                "1 thread": (contenders.one_thread(maker), [Against("np.clip", peer, 1.05)]),
                "threads": (maker, [Against("np.clip", peer, 1.0)]),
            },
        )


def times_of(case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender of a case, round by round."""
    makers: dict[str, Maker] = {name: maker for name, (maker, _) in case.ours.items()}
    for _, others in case.ours.values():
        makers |= {other.name: other.maker for other in others}
    leaves = drawn(case.shapes)
    start = float(clipcore.global_norm(leaves))
    runs = {name: maker([leaf.copy() for leaf in leaves]) for name, maker in makers.items()}
    size = sum(leaf.size for leaf in leaves)
    del leaves
    repeats = max(1, 200_000 // (size + 500 * len(case.shapes)))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    # A clip in place is clipped again only where the limit has become smaller.
    limits = {name: iter(start * 0.9995 ** (k + 1) for k in itertools.count()) for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            begun = time.perf_counter()
            for _ in range(repeats):
                run(next(limits[name]) if case.clipped else 2 * start)
            if number >= 2:
                seconds[name].append((time.perf_counter() - begun) / repeats)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def rows(rounds: int) -> Iterator[tuple[str, ...]]:
    """The table of all cases, a row a ratio."""
    for case in cases():
        few = rounds if sum(map(np.prod, case.shapes)) < 10**7 else max(5, rounds // 3)
        seconds = times_of(case, few)
        print(case.name, file=sys.stderr, flush=True)
        for name, (_, others) in case.ours.items():
            for other in others:
                found = ratio(seconds[name], seconds[other.name])
                aim = "" if other.most is None else f"≤ {other.most:g}"
                met = "" if other.most is None else "yes" if found <= other.most else "**no**"
                yield case.name, name, other.name, f"{found:.2f}", aim, met


def growth() -> Iterator[tuple[str, ...]]:
    """The norm of one float32 leaf, from 6 elements to 2**27: to one read of it, and from size to size."""
    before: tuple[int, float] | None = None
    for size in (6, *(2**k for k in range(6, 28, 3))):
        case = Case("", [(size,)], {"norm": (contenders.norm, [Against("read", contenders.one_read)])})
        seconds = times_of(case, 15 if size < 10**7 else 5)
        each = statistics.median(seconds["norm"]) / size
        grown = "" if before is None else f"{each / before[1]:.2f}"
        before = size, each
        yield f"{size:,}", f"{ratio(seconds['norm'], seconds['read']):.2f}", grown


def accuracy() -> str:
    """Judge, in exact arithmetic, what the same build returns for the largest tree."""
    leaves = drawn(contenders.gpt2_shapes())
    verdicts = []
    ways: dict[str, Callable[[Run], Run]] = {"NumPy alone": without_numba}
    if has("numba"):
        ways["fast"] = lambda run: run
    for name, run in ways.items():
        norm = float(run(contenders.norm(leaves))(0.0))
        clipped, _ = run(contenders.pure(leaves))(1.0)
        slack = Fraction(1, 2**44)
        low, high = (Fraction(norm) * (1 + sign * slack) for sign in (-1, 1))
        close = compare_norm(leaves, low, 2) >= 0 >= compare_norm(leaves, high, 2)
        bound = compare_norm(clipped, Fraction(1), 2) <= 0
        tight = compare_norm(clipped, 1 - Fraction(4, 2**24), 2) >= 0
        said = ["broken", "kept"]
        verdicts.append(
            f"{name}: norm within 2⁻⁴⁴ {said[close]}, bound {said[bound]}, tightness {said[tight]}"
        )
    return "; ".join(verdicts)


def memory() -> str:
    """The most that was held beyond the results, as tracemalloc counts it."""
    leaves = drawn(contenders.gpt2_shapes())
    peaks = []
    for name, call in (
        ("in place", lambda: clipcore.clip_by_global_norm(leaves, 1.0, out=leaves)),
        ("norm", lambda: clipcore.global_norm(leaves)),
        ("values in place", lambda: clipcore.clip_weights(leaves, -1e-3, 1e-3, out=leaves)),
    ):
        with contenders.numpy_alone():
            tracemalloc.start()
            call()
            peaks.append(f"{name} {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB")
            tracemalloc.stop()
    return ", ".join(peaks)


def import_time() -> str:
    """What ``import clipcore`` takes beyond ``import numpy``, in fresh processes."""

    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )

    beyond = [seconds("clipcore") - seconds("numpy") for _ in range(11)]
    return f"{statistics.median(beyond):.3f} s"


def table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *lines))


def page(rounds: int) -> str:
    """The page: machine, versions, tables."""
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    head = f"""# Speed

Ratios of times, each the median of {rounds} rounds (a third from 10 million elements on) of one run of
`python tests/benchmarks/report.py --write`: below 1, clipcore is faster. {datetime.date.today().isoformat()},
{platform.machine()}, {_threads.cores()} threads, Python {platform.python_version()}, {", ".join(versions)}.

The floor is one read of all elements, and one pass that multiplies them in place, in as many
threads. "By hand" is the loop that people write, in NumPy, without checks and with the errors
that this library is about; "fast" is clipcore with the extra of that name, which is Numba.
On a GPU: see [docs/gpu.md](gpu.md); `docs/gpu_benchmark.py` is the command.
"""
    sizes = """## From 6 elements to 2²⁷

The norm of one float32 array with the extra `fast`: against one read of it, and the time an
element against that of the size before. Medians of 15 rounds, from 10 million elements on of 5.
"""
    facts = f"""## Of the same build

Accuracy of the clipped GPT-2 tree, in exact arithmetic: {accuracy()}.

Memory beyond the results, NumPy alone, GPT-2: {memory()} (aim: 16 MiB).

`import clipcore` beyond `import numpy`: {import_time()} (aim: 0.12 s).
"""
    cases_table = table(("case", "clipcore with", "against", "ratio", "aim", "met"), rows(rounds))
    sizes_table = table(("elements", "to one read", "growth an element"), growth())
    return "\n".join((head, cases_table, "", sizes, sizes_table, "", facts))


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    text = page(arguments.rounds)
    print(text)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
