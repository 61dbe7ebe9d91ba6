"""Leaves on several devices of one library: one norm, each result where its leaf is."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import clipcore as cc

CPU, OTHER, NARROW = (strict.Device(name) for name in ("CPU_DEVICE", "device1", "no_float64"))


def tree() -> dict[str, Any]:
    return {
        "a": strict.asarray([3.0, 0.0], dtype=strict.float32, device=CPU),
        "b": strict.asarray([[-4.0]], dtype=strict.float32, device=OTHER),
    }


@pytest.mark.parametrize("order", [1, 2, np.inf])
def test_one_norm_clips_leaves_where_they_are(order: float) -> None:
    clipped, norm = cc.clip_by_global_norm(tree(), 1.0, ord=order)
    alone, wanted = cc.clip_by_global_norm(
        [np.array([3.0, 0.0], np.float32), np.array([[-4.0]], np.float32)], 1.0, ord=order
    )
    assert (clipped["a"].device, clipped["b"].device, norm.device) == (CPU, OTHER, CPU)
    assert float(norm) == float(wanted)
    for x, y in zip((clipped["a"], clipped["b"]), alone, strict=True):
        assert abs(np.asarray(np.from_dlpack(x)) - y).max() <= 2.0**-23


def test_a_device_without_float64_sets_the_norm_s_dtype_wherever_it_stands() -> None:
    narrow = strict.asarray([4.0], dtype=strict.float32, device=NARROW)
    wide = strict.asarray([3.0], dtype=strict.float32, device=CPU)
    for leaves in ([narrow, wide], [wide, narrow]):
        clipped, norm = cc.clip_by_global_norm(leaves, 1.0)
        assert norm.dtype == strict.float32
        assert float(norm) == 5.0
        assert [x.device for x in clipped] == [x.device for x in leaves]


def test_a_limit_and_a_bound_may_be_on_another_device() -> None:
    limit = strict.asarray(1.0, device=OTHER)
    assert cc.clip_by_l2_norm(tree()["a"], limit).device == CPU
    upper = strict.asarray(0.5, dtype=strict.float32, device=CPU)
    ranged = cc.clip_weights(tree(), None, upper)
    assert [x.device for x in ranged.values()] == [CPU, OTHER]
    assert float(ranged["a"][0]) == 0.5


def test_an_out_on_another_device_is_refused_unwritten() -> None:
    given = tree()
    out = {"a": strict.zeros_like(given["a"]), "b": strict.zeros((1, 1), dtype=strict.float32, device=CPU)}
    with pytest.raises(ValueError, match=r"out\['b'\] is on the device"):
        cc.clip_by_global_norm(given, 1.0, out=out)
    assert [float(x) for x in out["a"]] == [0.0, 0.0]


def test_arrays_of_out_that_share_bytes_are_seen() -> None:
    x, base = strict.ones(2), strict.zeros(4)
    with pytest.raises(ValueError, match="share bytes"):
        cc.clip_by_global_norm([x, x], 1.0, out=[base[:2], base[1:3]])
