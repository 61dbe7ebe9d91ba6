"""What dask has beyond arrays: chunks of any size, unknown ones, empty ones, byte order."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import clipcore as cc


@pytest.fixture
def da(request: pytest.FixtureRequest) -> Any:
    if request.config.getoption("--require-all"):
        return importlib.import_module("dask.array")
    return pytest.importorskip("dask.array", reason="dask is not installed")


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2), (3, 0, 2)], ids=str)
def test_empty_arrays_of_several_chunks_come_back(da: Any, shape: tuple[int, ...]) -> None:
    for axis in (None, 0, -1):
        x = da.zeros(shape, chunks=1)
        assert cc.clip_by_l2_norm(x, 1.0, axis=axis).compute().shape == shape
        assert not cc.l1_norm(x, axis=axis).compute().any()
    out = da.zeros(shape, chunks=1)
    assert cc.clip_by_value(da.zeros(shape), 0, 1, out=out) is out


@pytest.mark.parametrize("dtype", [">f4", ">c8", ">i4"])
def test_the_order_of_bytes_stays(da: Any, dtype: str) -> None:
    x = da.from_array(np.array([3, -4], dtype), chunks=1)
    if dtype != ">c8":
        assert cc.clip_by_value(x, 0, 1).compute().dtype.str == dtype
    if dtype != ">i4":
        assert cc.clip_by_l2_norm(x, 1.0).compute().dtype.str == dtype


def test_unknown_chunk_sizes_are_named_with_what_makes_them_known(da: Any) -> None:
    x = da.from_array(np.arange(4.0), chunks=2)
    with pytest.raises(ValueError, match=r"tree\['w'\] has the shape \(nan,\).*compute_chunk_sizes"):
        cc.clip_by_global_norm({"w": x[x > 1]}, 1.0)


@pytest.mark.parametrize("chunks", [1, 3, 7, (2, 5), ((1, 6, 3), (4, 1))], ids=str)
def test_the_norm_is_the_same_for_any_chunks(da: Any, chunks: Any) -> None:
    x = np.random.default_rng(5).standard_normal((10, 5)).astype(np.float32)
    found = float(cc.l2_norm(da.from_array(x, chunks=chunks)))
    assert abs(found - float(cc.l2_norm(x))) <= 2.0**-43 * found
