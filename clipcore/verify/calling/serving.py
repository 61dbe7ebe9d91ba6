"""Calls served to another interpreter: a line of JSON each, until the input ends."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .libraries import library
from .observing import Call, mapped, observe
from .wire import decode, encode

__all__ = ["found", "keywords_of", "serve"]


def serve(function: str, arrays: str, style: str) -> None:
    """Answer calls: a line of JSON in, a line of JSON out, until the input ends.

    Parameters
    ----------
    function, arrays, style : str
        `module:function`, the library whose arrays it takes, and "pure" or "in place".
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the function prints must not be taken for an answer

    def answer(**held: Any) -> None:
        answers.write(json.dumps(held).encode() + b"\n")
        answers.flush()

    try:
        call = Call(found(function), library(arrays), style == "in place")
        answer(keywords=sorted(keywords_of(call.function)))
    except BaseException as error:  # the parent tells the user
        answer(error=f"{type(error).__name__}: {error}")
        return
    for line in requests:
        held = json.loads(line)
        seen = observe(call, decode(held["tree"]), decode(held["arguments"]), decode(held["keywords"]))
        answer(
            result=encode(mapped(seen.result, lambda x: np.array(x, order="C"))),
            faults=seen.faults,
            error=seen.error,
            message=seen.message,
            bases=seen.bases,
            out=encode(mapped(seen.out, lambda x: np.array(x, order="C"))),
        )


def found(function: str) -> Callable[..., Any]:
    """Return the function that a `module:function` names; modules of the working directory are found too."""
    module, _, name = function.partition(":")
    if not module or not name:
        raise ImportError(f"{function!r} is not of the form module:function")
    if "" not in sys.path:
        sys.path.insert(0, "")
    named = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    if not callable(named):
        raise TypeError(f"{function} is {type(named).__name__}, not a function")
    return named


def keywords_of(function: Callable[..., Any]) -> Iterator[str]:
    """Yield the names of the parameters that can be passed by keyword."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled functions may have none
        return
    yield from (
        each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    )
