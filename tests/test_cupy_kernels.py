"""The CUDA source compiles for every architecture, and its arithmetic is that of the host."""

from __future__ import annotations

import importlib
import itertools
import math
import re
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from clipcore_backends import _cupy, _cupy_table
from clipcore_backends._formats import FORMATS
from clipcore_backends._protocol import Sum
from cuda_on_cpu import KERNEL, PROBES
from cuda_on_cpu_machine import machine_at, on_both, probe

from clipcore._decide import decide, multiplier, norm_of, to_float
from clipcore._reduce import all_ranks

ARCHITECTURES = [f"{kind}_{number}" for kind in ("compute", "sm") for number in (70, 75, 80, 90)]
ADDED = "-ftz=true"  # what CuPy adds to everyone's options
RNG = np.random.default_rng(20261124)
INTERESTING = [0.5, math.nextafter(0.5, 1), math.sqrt(0.5), math.nextafter(math.sqrt(0.5), 0), 0.75, 1.0]


@pytest.fixture
def nvrtc(request: pytest.FixtureRequest) -> Any:
    try:
        return importlib.import_module("cuda.bindings.nvrtc")
    except ImportError:
        reason = (
            "cuda-bindings and nvidia-cuda-nvrtc-cu12 are not installed, which compile CUDA without a GPU"
        )
        if request.config.getoption("--require-all", default=False):
            pytest.fail(reason)
        pytest.skip(reason)


def compile_with(nvrtc: Any, source: str, options: list[str]) -> tuple[bool, str, str]:
    """Whether NVRTC compiles the source, what it has to say, and the assembly where it makes some."""
    error, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    texts = []
    for size_of, get in (
        (nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog),
        (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX),
    ):
        _, size = size_of(program)
        text = bytearray(size)
        get(program, text)
        texts.append(text.rstrip(b"\0").decode())
    nvrtc.nvrtcDestroyProgram(program)
    return status == nvrtc.nvrtcResult.NVRTC_SUCCESS, texts[0], texts[1]


def lines_of(log: str) -> list[str]:
    """What the log says but that 7.0 may be removed one day, which NVRTC says whatever is compiled."""
    return [line for line in log.splitlines() if line and "Architectures prior to" not in line]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_source_compiles_without_a_warning(nvrtc: Any, architecture: str) -> None:
    options = [*_cupy.OPTIONS, ADDED, f"--gpu-architecture={architecture}"]
    compiled, log, assembly = compile_with(nvrtc, PROBES, options)
    assert compiled, log
    assert lines_of(log) == []
    if architecture.startswith("compute"):
        assert f".target sm_{architecture[-2:]}" in assembly
        assert "fma.rn.f64" in assembly
        # No arithmetic in float, which would be flushed: nothing but moves, and conversions as written.
        floats = {word for word in re.findall(r"[\w.]+", assembly) if ".f32" in word}
        moves = {word for word in floats if word.partition(".")[0] in ("", "ld", "st", "mov", "selp")}
        assert floats - moves == {"cvt.f64.f32", "cvt.rn.f32.f64", "cvt.rz.f32.f64"}
        assert ".ftz" not in assembly


def test_an_fma_stands_only_where_it_is_written(nvrtc: Any) -> None:
    source = 'extern "C" __global__ void kernel(double* x, double y, double z) { *x = y * z + y; }'
    for options, count in (((), 1), (_cupy.OPTIONS, 0)):
        _, _, assembly = compile_with(nvrtc, source, [*options, "--gpu-architecture=compute_80"])
        assert assembly.count("fma.rn.f64") == count


def test_a_float_would_be_flushed_and_seen(nvrtc: Any) -> None:
    source = 'extern "C" __global__ void kernel(float* x) { *x = *x * 0.5f; }'
    options = [*_cupy.OPTIONS, ADDED, "--gpu-architecture=compute_80"]
    assert "mul.ftz.f32" in compile_with(nvrtc, source, options)[2].replace(".rn", "")


def test_a_warning_of_the_compiler_would_be_seen(nvrtc: Any) -> None:
    source = 'extern "C" __global__ void kernel(double* x) { int unused; *x = 1; }'
    compiled, log, _ = compile_with(nvrtc, source, [*_cupy.OPTIONS, "--gpu-architecture=compute_70"])
    assert compiled
    assert any("unused" in line for line in lines_of(log))


def test_what_host_and_kernels_both_say_is_the_same() -> None:
    assert f"constexpr int BLOCK = {_cupy_table.BLOCK};" in _cupy.SOURCE
    assert f"constexpr Int CHUNK = {_cupy_table.CHUNK};" in _cupy.SOURCE
    for number, (name, facts) in enumerate(FORMATS.items()):
        struct = {"float16": "Half", "bfloat16": "Bfloat", "float32": "Single", "float64": "double"}[name]
        said = f"number = {number}, precision = {facts.precision}, smallest = {facts.smallest};"
        assert f"Format<{struct}> {{\n    static constexpr int {said}" in _cupy.SOURCE
    kernels = {
        "measure",
        "measure_precisely",
        "finish",
        "norms",
        "decide_all",
        "scale",
        "clamp",
        "round_all",
        "share_size",
        "share_sum",
        "take_sum",
    }
    assert set(KERNEL.findall(_cupy.SOURCE)) == kernels


def test_no_thread_of_a_block_does_the_work_of_another() -> None:
    # A block has as many threads whatever there is to do: those without a task must leave, or they race.
    guard = re.compile(r"if \((threadIdx\.x\)|\w+(\.chunk)? (>=|<) (groups|chunks|count)\))")
    functions = re.split(r'(?=extern "C" __global__|template <bool PRECISE>\n__device__)', _cupy.SOURCE)
    bodies = [text for text in functions if "__global__" in text or "measure_chunk(" in text]
    unguarded = [
        text.splitlines()[0] for text in bodies if not guard.search(text) and "measure_chunk<" not in text
    ]
    assert len(bodies) == len(KERNEL.findall(_cupy.SOURCE)) + 1
    assert unguarded == []


def sums() -> list[tuple[float, float, int]]:
    """Sums in two parts of every size, and some with no second part."""
    found = []
    for exponent in (-2148, -1201, -600, -3, -2, -1, 0, 1, 2, 599, 1200, 2047):
        for hi in (*INTERESTING, *RNG.uniform(0.5, 2, 8).tolist()):
            found += [
                (hi, hi * lo, exponent) for lo in (0.0, *RNG.uniform(-(2.0**-54), 2.0**-54, 2).tolist())
            ]
    return [*found, (0.0, 0.0, 0)]


def limits_for(norm: float, exponent: int) -> list[float]:
    """Limits around a norm and far from it, in range."""
    shares = [1.0, 1 - 2.0**-52, 1 + 2.0**-52, 0.3, float(RNG.uniform(0.01, 2)), 2.0**-30, 2.0**40]
    mantissa, own = math.frexp(norm)
    places = [(mantissa * share, own + exponent) for share in shares]
    return [0.0, *(math.ldexp(m, e) for m, e in places if -1100 < e < 980)]


@on_both
def test_what_is_decided_is_decided_bit_for_bit_as_on_the_cpu(
    place: str, request: pytest.FixtureRequest
) -> None:
    machine = machine_at(place, request)
    rows, wanted = [], []
    formats = itertools.cycle(FORMATS.values())
    for (hi, lo, exponent), order in itertools.product(sums(), (2.0, math.inf)):
        norm = norm_of(Sum(hi, lo, exponent, 2.0**-46), order)
        for limit in limits_for(norm.hi, int(norm.exponent)):
            facts, slack = next(formats), float(RNG.choice([0.0, 2.0**30, 2.0**1000]))
            decision = decide(norm, limit)
            number = multiplier(decision, limit, slack, facts)
            rows.append(
                [
                    hi,
                    lo,
                    exponent,
                    2 if order == 2 else 0,
                    limit,
                    decision.factor.error,
                    slack,
                    facts.precision,
                ]
            )
            factor = decision.factor
            with np.errstate(over="ignore"):
                decided = [*norm[:3], to_float(norm), decision.excess, *factor[:3]]
            wanted.append([*decided, number.value, number.exponent, number.divide, number.ample])
    there, results = machine.cupy.array(np.array(rows)), machine.cupy.array(np.zeros((len(rows), 12)))
    probe(machine, "probe_decide", -(-len(rows) // _cupy_table.BLOCK), there, len(rows), results)
    got = results.get()
    assert len(rows) > 5000
    different = [(row, list(a), b) for row, a, b in zip(rows, got, wanted, strict=True) if list(a) != b]
    assert different == []


@on_both
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_every_number_of_16_bits_is_read_as_it_is(
    place: str, request: pytest.FixtureRequest, dtype: Any
) -> None:
    machine = machine_at(place, request)
    bits = np.arange(1 << 16, dtype=np.uint16)
    results = machine.cupy.array(np.zeros(bits.size))
    probe(machine, "probe_widen", 256, machine.cupy.array(bits), bits.size, int(dtype != np.float16), results)
    with np.errstate(invalid="ignore"):
        got, wanted = results.get(), bits.view(dtype).astype(np.float64)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert (got.view(np.uint64) == wanted.view(np.uint64))[~np.isnan(wanted)].all()


@on_both
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_numbers_are_rounded_to_16_bits_as_numpy_rounds_them(
    place: str, request: pytest.FixtureRequest, dtype: Any
) -> None:
    machine = machine_at(place, request)
    with np.errstate(invalid="ignore"):
        exact = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float64)
    exact = np.sort(exact[np.isfinite(exact)])
    largest = exact[-1]
    middles = (exact[1:] + exact[:-1]) / 2  # ties
    singles = np.concatenate([exact, middles]).astype(np.float32)
    around = [np.nextafter(singles, np.float32(side)) for side in (-np.inf, np.inf)]
    numbers = np.concatenate([singles, *around]).astype(np.float64)
    numbers = numbers[np.abs(numbers) <= largest]
    results = machine.cupy.array(np.zeros(numbers.size, np.uint16))
    blocks = -(-numbers.size // _cupy_table.BLOCK)
    probe(
        machine,
        "probe_narrow",
        blocks,
        machine.cupy.array(numbers),
        numbers.size,
        int(dtype != np.float16),
        results,
    )
    assert (results.get() == numbers.astype(np.float32).astype(dtype).view(np.uint16)).all()


@on_both
def test_numbers_of_32_bits_are_read_and_written_as_they_are(
    place: str, request: pytest.FixtureRequest
) -> None:
    machine = machine_at(place, request)
    patterns = np.concatenate(
        [np.arange(512, dtype=np.uint32) << 23, RNG.integers(0, 2**32, 20000, np.uint32)]
    )
    patterns = np.concatenate([patterns + np.uint32(step) for step in (0, 1, 2**23 - 1)])
    patterns = patterns[~np.isnan(patterns.view(np.float32))]
    wide, back = (machine.cupy.array(np.zeros(patterns.size, kind)) for kind in ("float64", "uint32"))
    blocks = -(-patterns.size // _cupy_table.BLOCK)
    probe(machine, "probe_single", blocks, machine.cupy.array(patterns), patterns.size, wide, back)
    wanted = patterns.view(np.float32).astype(np.float64)
    assert (wide.get().view(np.uint64) == wanted.view(np.uint64)).all()
    finite = np.isfinite(wanted)
    assert (back.get() == patterns)[finite].all()
    # Middles between neighbours, and what is a hair off them.
    middles = (
        wanted[finite] + np.nextafter(patterns.view(np.float32)[finite], np.float32(0)).astype(np.float64)
    ) / 2
    numbers = np.concatenate([middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    rounded = machine.cupy.array(np.zeros(numbers.size, np.uint32))
    blocks = -(-numbers.size // _cupy_table.BLOCK)
    probe(machine, "probe_to_single", blocks, machine.cupy.array(numbers), numbers.size, rounded)
    with np.errstate(under="ignore"):
        assert (rounded.get() == numbers.astype(np.float32).view(np.uint32)).all()


@on_both
def test_floats_are_divided_as_numpy_divides_them(place: str, request: pytest.FixtureRequest) -> None:
    machine = machine_at(place, request)
    divisors = np.concatenate([RNG.integers(2**23, 2**24, 4000), [2**23, 2**23 + 1, 3 * 2**22, 2**24 - 1]])
    x = RNG.integers(0, 0x7F800000, divisors.size, np.uint32).view(np.float32)
    exact = (np.arange(divisors.size) * divisors).astype(np.float32)  # quotients that are integers, or near
    tiny = np.ldexp(x, -np.frexp(x)[1] - RNG.integers(120, 150, x.size)).astype(np.float32)
    ties = np.ldexp((2 * RNG.integers(0, 99, x.size) + 1) * (divisors % 999), -150).astype(np.float32)
    numbers = np.concatenate([x, -x, exact, tiny, -tiny, ties, [0.0, -0.0]]).astype(np.float32)
    sizes = np.concatenate([*[divisors / 2**23] * 5, np.maximum(divisors % 999, 1), [1.5, 1.5]])
    bits = machine.cupy.array(numbers.view(np.uint32))
    results = machine.cupy.array(np.zeros(numbers.size, np.uint32))
    blocks = -(-numbers.size // _cupy_table.BLOCK)
    probe(machine, "probe_quotient", blocks, bits, machine.cupy.array(sizes), numbers.size, results)
    with np.errstate(under="ignore"):
        wanted = numbers / sizes.astype(np.float32)
    assert (sizes.astype(np.float32) == sizes).all()
    assert (results.get() == wanted.view(np.uint32)).all()


@on_both
def test_pieces_of_many_ranks_are_added_as_on_the_host(place: str, request: pytest.FixtureRequest) -> None:
    machine = machine_at(place, request)
    sums = [RNG.integers(0, 2**34, 3000) * 2.0 ** (-22 * k) for k in range(1, 6)]
    rows = np.concatenate([np.stack(sums, 1), np.zeros((1, 5))])
    results = machine.cupy.array(np.zeros((len(rows), 2)))
    probe(machine, "probe_sum_of_pieces", -(-len(rows) // 256), machine.cupy.array(rows), len(rows), results)
    for row, (hi, lo) in zip(rows.tolist(), results.get().tolist(), strict=True):
        came = {"max": np.array([1.0, 0.0, 0.0]), "sum": np.array(row)}
        total = all_ranks(Sum(1.0, 0.0, 0, 0.0), 1, lambda _, op, came=came: came[op])
        assert (hi, lo) == (total.hi, total.lo)
        rest = sum(map(Fraction, row), Fraction(0)) - Fraction(hi) - Fraction(lo)
        assert abs(rest) <= Fraction(2) ** -104 * abs(Fraction(hi))


@on_both
def test_addresses_are_of_64_bits(place: str, request: pytest.FixtureRequest) -> None:
    machine = machine_at(place, request)
    chunk, many = _cupy_table.CHUNK, 3 * 2**33
    # Two leaves: one of 24 Gi elements in two strided dimensions, one short after it.
    first = [0, 2, many, 0, 2, 1 << 40, 1 << 50, 0, 0]
    second = [many // chunk, 2, 5, 2, 1, 7, 9, 0, 0]
    dims = [3, 1 << 36, 1 << 38, 0, 0, 2**33, -4, 8, 0, 0, 5, 4, 4, 0, 0]
    table = machine.cupy.array(np.array([*first, *second, *dims], np.int64))
    for index in (0, 5, chunk, 2**31, 2**31 + 1, 2**33 - 1, 2**33, 2**34 + 2**32 + 12345, many - 1):
        results = machine.cupy.array(np.zeros(7, np.int64))
        probe(machine, "probe_place", 1, table, 2, index // chunk, index % chunk, results)
        row, column = divmod(index, 2**33)
        start = index - index % chunk
        places = [(1 << 40) + row * (1 << 36) - 4 * column, (1 << 50) + row * (1 << 38) + 8 * column, 0, 0]
        assert results.get().tolist() == [0, start, start + chunk, *places]
    results = machine.cupy.array(np.zeros(7, np.int64))
    probe(machine, "probe_place", 1, table, 2, many // chunk, 4, results)
    assert results.get().tolist() == [0, 0, 5, 7 + 16, 9 + 16, 0, 0]
