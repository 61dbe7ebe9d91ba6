"""How libraries, dtypes and values are named in messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edge_support import STRICT, error_of

import clipcore as cc
from clipcore._checks import dtype_name
from clipcore._dispatch import library_of
from clipcore._messages import shown


class Foreign:
    """An array of a library that is not installed."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return SimpleNamespace(__name__=self.namespace)


@pytest.mark.parametrize(
    ("namespace", "library"),
    [
        ("array_api_compat.torch", "torch"),
        ("array_api_compat.dask.array", "dask"),
        ("jax.numpy", "jax"),
        ("array_api_strict", "array_api_strict"),
    ],
)
def test_a_library_is_named_as_it_is_imported(namespace: str, library: str) -> None:
    assert library_of(Foreign(namespace)) == library


def test_of_three_libraries_in_a_tree_the_first_two_are_named() -> None:
    tree = [np.ones(1), Foreign("jax.numpy"), np.ones(2), STRICT.put(np.ones(1))]
    assert error_of(lambda: cc.clip_weights(tree, 0, 1)) == (
        TypeError,
        "clip_weights: tree[0] is an array of numpy and tree[1] one of jax; "
        "convert all leaves to one library",
    )


@pytest.mark.parametrize("text", ["float32", "torch.float32", "ml.kinds.float32"])
def test_a_dtype_is_named_by_its_last_word(text: str) -> None:
    class Kind:
        def __str__(self) -> str:
            return text

    assert dtype_name(Kind()) == "float32"


@pytest.mark.parametrize("length", [59, 60, 61, 62])
def test_a_value_is_shown_in_sixty_characters(length: int) -> None:
    value = 10 ** (length - 1)
    digits = "1" + "0" * (length - 1)
    assert shown(value) == (digits if length <= 60 else digits[:57] + "...")
