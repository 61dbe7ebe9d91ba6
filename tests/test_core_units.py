"""Corners of the core that no row of the edge table reaches by itself."""

from __future__ import annotations

import math
import runpy
import sys
from fractions import Fraction
from typing import Any

import array_api_compat
import numpy as np
import pytest
from edge_support import MACHINES, STRICT, Machine, bits, error_of

import clipcore as cc

NORM_CLIPS = [cc.clip_by_l1_norm, cc.clip_by_l2_norm, cc.clip_by_global_norm]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_norm_beyond_float64_is_infinity_and_the_clip_is_none_the_worse(machine: Machine) -> None:
    x = np.full(4, 1.5e308)
    for function in (cc.l1_norm, cc.global_norm):
        norm = machine.run(function, x, **({"ord": 1} if function is cc.global_norm else {}))
        assert bits(norm) == bits(np.array(math.inf))
    assert machine.run(cc.l2_norm, x) == math.inf
    for clip, share in ((cc.clip_by_l1_norm, 0.25), (cc.clip_by_l2_norm, 0.5)):
        result = machine.run(clip, x, 2.0, nonfinite="raise")
        assert np.all((result <= 2 * share) & (result >= 2 * share * (1 - 2.0**-50)))


def test_unclipped_weights_written_to_themselves_keep_their_bits() -> None:
    weights = {"a": np.array([3.0, -0.0]), "b": np.array([5.0])}
    returned = cc.clip_weights(weights, -1, 1, where=lambda path, leaf: path == ("b",), out=weights)
    assert returned is weights
    assert bits(weights["a"]) == bits(np.array([3.0, -0.0]))
    assert bits(weights["b"]) == bits(np.array([1.0]))


@pytest.mark.parametrize("clip", NORM_CLIPS, ids=lambda clip: str(clip.__name__))
def test_raise_on_traced_or_lazy_arrays_is_refused_at_call_time(
    clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_api_compat, "is_lazy_array", lambda x: x.ndim == 1)
    for values in ([1.0], [math.nan]):
        assert error_of(lambda: clip(STRICT.put(np.array(values)), 1.0, nonfinite="raise")) == (  # noqa: B023
            ValueError,
            f"{clip.__name__}: nonfinite is 'raise', which must look at values, and the leaves are traced "
            "or lazy; choose 'propagate' or 'zero'",
        )
    assert error_of(lambda: clip(STRICT.put(np.array([1.0])), 1.0))[0] is None


def test_python_m_clipcore_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_module("clipcore", run_name="imported")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", ["clipcore", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("clipcore", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize(
    ("reduced", "shown"),
    [(lambda array: None, "None"), (lambda array: array[:2], r"array\(\[1\.18920712, 0\.\s+\]\)")],
)
def test_a_reduction_that_returns_another_shape_is_named(reduced: Any, shown: str) -> None:
    message = (
        rf"clip_by_global_norm: all_reduce returned {shown} for an array of shape \(3,\); "
        "return an array of that shape, reduced over all ranks"
    )
    with pytest.raises(TypeError, match=f"^{message}$"):
        cc.clip_by_global_norm(np.ones(2), 1.0, all_reduce=lambda array, op: reduced(array))


def test_where_that_answers_with_an_array_is_named() -> None:
    message = r"clip_weights: where returned array\(\[ True,  True\]\); return True or False"
    with pytest.raises(TypeError, match=f"^{message}$"):
        cc.clip_weights([np.ones(2)], 0, 1, where=lambda path, leaf: leaf > 0)


def test_the_divisor_is_rounded_up_past_a_correction_of_more_than_an_ulp() -> None:
    # C / norm is a hair below sqrt(1/2): the leaf is divided, by a number one float64 does not tell.
    limit = 1.4142135623734389
    clipped = cc.clip_by_l2_norm(np.full(2, 1.996340504100664), limit)
    square = sum(Fraction(float(element)) ** 2 for element in clipped)
    assert Fraction(limit) ** 2 * (1 - 4 * Fraction(1, 2**53)) ** 2 <= square <= Fraction(limit) ** 2
