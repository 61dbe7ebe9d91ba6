"""`out`: what may be written to, what is refused with nothing written, and that overlap does not show."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import ml_dtypes
import numpy as np
import pytest
from edge_support import BOTH, NUMPY, PORTABLE, STRICT, Array, Machine, bits, both, error_of
from numpy.lib.stride_tricks import as_strided

import clipcore as cc

ARRAY_CLIPS = {
    "clip_by_l1_norm": lambda x, **more: cc.clip_by_l1_norm(x, 2.5, **more),
    "clip_by_l2_norm": lambda x, **more: cc.clip_by_l2_norm(x, 2.5, **more),
    "clip_by_value": lambda x, **more: cc.clip_by_value(x, -2, 2, **more),
}
TREE_CLIPS = {
    "clip_by_global_norm": lambda x, **more: cc.clip_by_global_norm(x, 2.5, **more)[0],
    "clip_weights": lambda x, **more: cc.clip_weights(x, -2, 2, **more),
}
CLIPS = ARRAY_CLIPS | TREE_CLIPS
X = np.array([3.0, -4.0, 0.5, -0.0])

each_name = pytest.mark.parametrize("name", CLIPS)
each_clip = pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
each_tree_clip = pytest.mark.parametrize("clip", TREE_CLIPS.values(), ids=TREE_CLIPS)
on_numpy = pytest.mark.parametrize("machine", [NUMPY, PORTABLE], ids=str)


@both
@each_clip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_out_is_written_and_returned(machine: Machine, clip: Any, dtype: str) -> None:
    x = X.astype(dtype)
    want = machine.run(clip, x)
    here, out = machine.put(x), machine.put(x * 7)
    assert clip(here, out=out) is out
    assert machine.bits([here, out]) == bits([x, want])


@both
@each_clip
def test_out_may_be_the_input_itself(machine: Machine, clip: Any) -> None:
    want = machine.run(clip, X)
    here = machine.put(X)
    assert clip(here, out=here) is here
    assert machine.bits(here) == bits(want)
    for leaf in (np.array(-3.0), np.zeros((0, 2))):
        here = machine.put(leaf)
        assert clip(here, out=here) is here
        assert machine.bits(here) == machine.bits(clip(machine.put(leaf)))


SPECIAL = {
    "clipped": (1.0, "propagate", 1.0),
    "unclipped": (100.0, "propagate", 1.0),
    "infinite": (math.inf, "propagate", math.nan),
    "nan": (1.0, "propagate", math.nan),
    "zero": (1.0, "zero", math.inf),
    "limit-0": (0, "propagate", 1.0),
}


@pytest.mark.parametrize("machine", [*BOTH, PORTABLE], ids=str)
@pytest.mark.parametrize("case", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("where", ["itself", "fresh"])
def test_every_way_out_of_a_norm_clip_writes_the_bits_of_the_pure_form(
    machine: Machine, case: Any, where: str
) -> None:
    limit, policy, last = case
    x = np.array([[3.0, -4.0, -0.0], [0.25, 0.5, last]])
    for clip, more in [
        (cc.clip_by_l1_norm, {"axis": 1}),
        (cc.clip_by_l2_norm, {}),
        (cc.clip_by_l2_norm, {"axis": 0}),
    ]:
        want = machine.run(clip, x, limit, nonfinite=policy, **more)
        here = machine.put(x)
        out = here if where == "itself" else machine.put(np.ones_like(x))
        with machine.serving():
            clip(here, limit, nonfinite=policy, out=out, **more)
        assert machine.bits(out) == bits(want)


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        pytest.param(machine, dtype, id=f"{machine}-{name}")
        for machine, names in ((NUMPY, ["f2", "bfloat16", "f4", "f8", ">f4"]), (PORTABLE, ["f2", "f4", "f8"]))
        for name in names
        for dtype in [np.dtype(getattr(ml_dtypes, name, name))]
    ],
)
@each_clip
@pytest.mark.parametrize("shift", [-3, -1, 1, 2])
def test_out_may_overlap_the_input_shifted(machine: Machine, clip: Any, dtype: Any, shift: int) -> None:
    start = max(0, -shift)
    for step in (1, 2, -1):
        buffer = np.resize([9, -8, 7, 0.5, -0.0, 1e-3], 60).astype(dtype)
        x = buffer[start : start + 40][::step]
        out = buffer[start + shift : start + shift + 40][::step]
        with machine.serving():
            want = bits(clip(x.copy()))
            clip(x, out=out)
        assert bits(out) == want


@on_numpy
@each_clip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_may_be_the_input_reversed_or_transposed(machine: Machine, clip: Any, dtype: Any) -> None:
    views: list[Callable[[Array], Array]] = [lambda x: x[::-1], lambda x: x.T, lambda x: x[:, ::-1]]
    for view in views:
        x = np.linspace(-9, 5, 36, dtype=dtype).reshape(6, 6)
        with machine.serving():
            want = bits(clip(x.copy()))
            clip(x, out=view(x))
        assert bits(view(x)) == want


@each_clip
def test_out_of_more_than_a_block_may_overlap_the_input(clip: Any) -> None:
    buffer = np.linspace(-9, 5, 100_001).astype(np.float32)
    x, out = buffer[:-1], buffer[1:]
    want = bits(clip(x.copy()))
    clip(x, out=out)
    assert bits(out) == want


@on_numpy
@each_tree_clip
def test_leaves_may_swap_their_buffers(machine: Machine, clip: Any) -> None:
    buffers = [np.linspace(-9, 5, 30), np.linspace(4, -7, 30), np.linspace(1, 2, 30)]
    with machine.serving():
        want = bits(clip([x.copy() for x in buffers]))
        clip(buffers, out=[buffers[1], buffers[2], buffers[0]])
    assert bits([buffers[1], buffers[2], buffers[0]]) == want


@both
@each_tree_clip
def test_leaves_of_any_library_may_swap_their_buffers(machine: Machine, clip: Any) -> None:
    one, other = machine.put(X), machine.put(X[::-1].copy())
    want = machine.bits(clip([machine.put(X), machine.put(X[::-1].copy())]))
    clip([one, other], out=[other, one])
    assert machine.bits([other, one]) == want


@on_numpy
@each_tree_clip
def test_views_that_interleave_without_sharing_a_byte_are_fine(machine: Machine, clip: Any) -> None:
    x = np.linspace(-9, 5, 24).reshape(4, 6)
    with machine.serving():
        want = bits(clip([x[::2].copy(), x[1::2].copy()]))
        columns, rows = np.zeros((2, 12)), np.zeros((4, 6))
        clip([x[::2], x[1::2]], out=[columns[:, ::2], columns[:, 1::2]])
        assert bits([columns[:, ::2], columns[:, 1::2]]) == want
        clip([x[::2], x[1::2]], out=[rows[::2], rows[1::2]])
        assert bits([rows[::2], rows[1::2]]) == want
        strided = as_strided(np.zeros(40), (2, 6), (8, 24))
        clip([x[::2], x[1::2]], out=[strided, np.zeros((2, 6))])
        assert bits(strided) == want[:1]
        clip([x[::2], x[1::2]], out=[x[::2], x[1::2]])
    assert bits([x[::2], x[1::2]]) == want


@each_clip
def test_out_keeps_its_own_memory_layout_and_complex_numbers_their_pairs(clip: Any) -> None:
    x = np.linspace(-9, 5, 24, dtype=np.float32).reshape(4, 6)
    want = bits(clip(x))
    for out in (np.zeros((4, 6), np.float32, "F"), np.zeros((8, 12), np.float32)[::2, ::-2]):
        clip(x, out=out)
        assert bits(out) == want


def test_complex_out_may_be_strided_and_overlap() -> None:
    x = (np.linspace(-9, 5, 24) + 1j * np.linspace(1, -2, 24)).astype(np.complex64)
    want = bits(cc.clip_by_l2_norm(x[:20], 3.0))
    out = np.zeros(40, np.complex64)[::2]
    cc.clip_by_l2_norm(x[:20], 3.0, out=out)
    assert bits(out) == want
    cc.clip_by_l2_norm(x[:20], 3.0, out=x[4:])
    assert bits(x[4:]) == want


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


FITS = "give one of that shape and dtype"
SHARES = "out has elements that share bytes; give memory of its own to each"
READ_ONLY = "out is read-only; give an array that can be written"
UNFIT = {
    "shape": (
        np.zeros(3),
        ValueError,
        f"out has shape (3,) and dtype float64, its input (4,) and float64; {FITS}",
    ),
    "0-d": (
        np.zeros(()),
        ValueError,
        f"out has shape () and dtype float64, its input (4,) and float64; {FITS}",
    ),
    "dtype": (
        np.zeros(4, np.float32),
        ValueError,
        f"out has shape (4,) and dtype float32, its input (4,) and float64; {FITS}",
    ),
    "str": ("out", TypeError, "out is 'out' of type str; give an array"),
    "number": (1.5, TypeError, "out is 1.5 of type float; give an array"),
    "numpy-scalar": (np.float64(1), TypeError, "out is np.float64(1.0) of type float64; give an array"),
}
UNFIT_NUMPY = {
    "byte-order": (
        np.zeros(4, np.dtype("f8").newbyteorder()),
        f"out has shape (4,) and dtype float64 in the other byte order, its input (4,) and float64; {FITS}",
    ),
    "read-only": (read_only(X), READ_ONLY),
    "broadcast": (np.broadcast_to(X[:1], 4), READ_ONLY),
    "one-element": (as_strided(np.zeros(4), (4,), (0,)), SHARES),
    "half-elements": (as_strided(np.zeros(8), (4,), (4,)), SHARES),
}


def refusal(machine: Machine, name: str, x: Any, out: Any) -> tuple[Any, str, bool]:
    """What a clip with this `out` raises, and whether input and `out` keep their bits."""
    watched = [x, [leaf for leaf in (out if isinstance(out, list) else [out]) if hasattr(leaf, "__dlpack__")]]
    before = [bits(np.array(np.from_dlpack(leaf) if machine is STRICT else leaf)) for leaf in flat(watched)]
    with machine.serving():
        error, message = error_of(lambda: CLIPS[name](x, out=out))
    after = [bits(np.array(np.from_dlpack(leaf) if machine is STRICT else leaf)) for leaf in flat(watched)]
    return error, message, before == after


def flat(x: Any) -> list[Any]:
    return [leaf for part in x for leaf in flat(part)] if isinstance(x, list) else [x]


@both
@each_name
@pytest.mark.parametrize("case", UNFIT.values(), ids=UNFIT)
def test_an_out_that_does_not_fit_is_refused(machine: Machine, name: str, case: Any) -> None:
    out, error, sentence = case
    there = machine.put(out) if isinstance(out, np.ndarray) else out
    assert refusal(machine, name, machine.put(X), there) == (error, f"{name}: {sentence}", True)


@on_numpy
@each_name
@pytest.mark.parametrize("case", UNFIT_NUMPY.values(), ids=UNFIT_NUMPY)
def test_a_numpy_out_that_does_not_fit_is_refused(machine: Machine, name: str, case: Any) -> None:
    out, sentence = case
    assert refusal(machine, name, X.copy(), out) == (ValueError, f"{name}: {sentence}", True)


@each_name
def test_a_masked_out_is_refused(name: str) -> None:
    error, message, untouched = refusal(NUMPY, name, X.copy(), np.ma.zeros(4))
    assert (error, untouched) == (TypeError, True)
    assert message.startswith(f"{name}: out is masked_array(data=[0., 0., 0., 0.]")
    assert message.endswith(" of type MaskedArray; give an array")


@each_name
def test_an_out_of_another_library_is_refused(name: str) -> None:
    for machine, other in (BOTH, BOTH[::-1]):
        there = other.put(0 * X)
        with machine.serving():
            found = error_of(lambda: CLIPS[name](machine.put(X), out=there))  # noqa: B023
        assert found == (
            TypeError,
            f"{name}: out is an array of {other.library} and the leaves are of {machine.library}; "
            "convert one of them",
        )
        assert other.bits(there) == bits(0 * X)


@each_name
def test_a_read_only_out_of_another_library_is_refused(name: str) -> None:
    out = strict.broadcast_to(strict.zeros(1), (4,))
    assert refusal(STRICT, name, STRICT.put(X), out) == (
        ValueError,
        f"{name}: out is read-only; give an array that can be written",
        True,
    )


@both
@pytest.mark.parametrize("name", TREE_CLIPS)
def test_nothing_is_written_when_the_last_leaf_of_out_does_not_fit(machine: Machine, name: str) -> None:
    x = [machine.put(X), machine.put(X)]
    bad = read_only(X) if machine is NUMPY else strict.broadcast_to(strict.zeros(1), (4,))
    assert refusal(machine, name, x, [machine.put(X), bad]) == (
        ValueError,
        f"{name}: out[1] is read-only; give an array that can be written",
        True,
    )


@both
@pytest.mark.parametrize("name", TREE_CLIPS)
def test_two_leaves_of_out_that_are_one_array_are_refused(machine: Machine, name: str) -> None:
    x = {"a": machine.put(X), "b": machine.put(X)}
    one = machine.put(0 * X)
    with machine.serving():
        found = error_of(lambda: CLIPS[name](x, out={"a": one, "b": one}))
    assert found == (
        ValueError,
        f"{name}: out['a'] and out['b'] share bytes; give memory of its own to each",
    )
    assert machine.bits([x["a"], x["b"], one]) == bits([X, X, 0 * X])


@pytest.mark.parametrize("name", TREE_CLIPS)
def test_two_leaves_of_out_that_overlap_are_refused_even_far_apart_in_the_tree(name: str) -> None:
    buffer = np.zeros(40)
    spread = buffer[0:36:5]
    outs = [buffer[1:5], np.zeros(4), spread[:4], buffer[5:9]]
    assert refusal(NUMPY, name, [X.copy() for _ in outs], outs) == (
        ValueError,
        f"{name}: out[2] and out[3] share bytes; give memory of its own to each",
        True,
    )


@both
@pytest.mark.parametrize("name", TREE_CLIPS)
def test_an_out_of_another_structure_is_refused(machine: Machine, name: str) -> None:
    a, b = machine.put(X), machine.put(0 * X)
    dicts = "PyTreeSpec({'w': *}), the input "
    cases: list[tuple[Any, Any, str]] = [
        ([a], (b,), "PyTreeSpec((*,)), the input PyTreeSpec([*])"),
        ([a], [b, None], "PyTreeSpec([*, None]), the input PyTreeSpec([*])"),
        ([a, None], [b, b], "PyTreeSpec([*, *]), the input PyTreeSpec([*, None])"),
        (a, [b], "PyTreeSpec([*]), the input PyTreeSpec(*)"),
        ({"v": a}, {"w": b}, dicts + "PyTreeSpec({'v': *})"),
        (OrderedDict(w=a), {"w": b}, dicts + "PyTreeSpec(OrderedDict({'w': *}))"),
        ([a], (leaf for leaf in [b]), "PyTreeSpec(*), the input PyTreeSpec([*])"),
    ]
    for tree, out, sentence in cases:
        with machine.serving():
            found = error_of(lambda: CLIPS[name](tree, out=out))  # noqa: B023
        want = f"{name}: out has the structure {sentence}; give arrays in the same containers"
        assert found == (ValueError, want)
        assert machine.bits([a, b]) == bits([X, 0 * X])


def test_an_immutable_array_library_is_told_to_leave_out_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("array_api_compat.is_writeable_array", lambda x: False)
    out = STRICT.put(0 * X)
    assert error_of(lambda: cc.clip_by_l2_norm(STRICT.put(X), 1.0, out=out)) == (
        TypeError,
        "clip_by_l2_norm: out cannot be written to in place; leave out= away",
    )
    assert STRICT.bits(out) == bits(0 * X)
