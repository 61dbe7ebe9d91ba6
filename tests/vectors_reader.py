"""A reader of the golden vectors, such as another language would have: it knows the text and the laws."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from clipcore.verify.exact import exact_norm
from clipcore.verify.vectors import write_vectors

Array = np.ndarray[Any, np.dtype[Any]]
Case = dict[str, Any]
Answer = tuple[list[Array], Any]  # the leaves, and the norm or None

ENDS = ("lowest", "highest")
NUMBER = re.compile(r"-?(nan|inf|0x[01](\.[0-9a-f]{1,13})?p[+-]\d+)")
NORM_CLIPS = ("clip_by_l1_norm", "clip_by_l2_norm", "clip_by_global_norm")
NORMS = ("l1_norm", "l2_norm", "global_norm")
OPERATIONS = (*NORM_CLIPS, *NORMS, "clip_by_value", "clip_weights")


@lru_cache
def text() -> str:
    return write_vectors()


@lru_cache
def document() -> Any:
    return json.loads(text())


def cases(*operations: str) -> Iterator[Case]:
    """The cases of these operations, each with the operation's name and its dtype."""
    for operation in operations:
        for dtype, listed in document()["operations"][operation].items():
            yield from ({**case, "operation": operation, "dtype": dtype} for case in listed)


def number(text: str) -> float | int:
    return float.fromhex(text) if NUMBER.fullmatch(text) else int(text)


def array(leaf: Case) -> Array:
    """A leaf as an array; hexadecimal floats are exact in the dtype, so the cast changes nothing."""
    name, values = leaf["dtype"], [number(text) for text in leaf["values"]]
    if name.startswith("complex"):
        return np.array(values, np.float64).view(np.complex128).astype(name).reshape(leaf["shape"])
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    wide = np.array(values, dtype if dtype.kind in "iu" else np.float64)
    return wide.astype(dtype).reshape(leaf["shape"])


def components(x: Array) -> list[Any]:
    """The components as Python numbers."""
    if x.dtype.kind in "iu":
        return list(x.reshape(-1).tolist())
    wide = x.reshape(-1).astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    return list(wide.view(np.float64).tolist())


def key(value: float) -> tuple[float, bool]:
    """Numbers in their order, −0 before +0."""
    return value, math.copysign(1, value) > 0


def faults(case: Case, outputs: list[Array], norm: Any = None) -> list[str]:
    """What a reader of the vectors finds wrong with an answer."""
    found = [
        f"leaf {place}: {fault}"
        for place, (leaf, want, x) in enumerate(
            zip(case["inputs"] if "outputs" in case else (), case.get("outputs", ()), outputs, strict=True)
        )
        for fault in leaf_faults(leaf, want, x)
    ]
    for place, group in enumerate(case.get("groups", ())):
        if group.get("clipped"):
            found += group_faults(case, group, outputs)
        if norm is not None and not norm_holds(group, float(np.asarray(norm).reshape(-1)[place])):
            found.append("norm")
    return found


def leaf_faults(leaf: Case, want: Case, x: Array) -> Iterator[str]:
    lowest, highest = ([number(text) for text in want[end if end in want else "values"]] for end in ENDS)
    got, parts = components(x), 2 if leaf["dtype"].startswith("complex") else 1
    if len(got) != len(lowest):
        yield "another number of components"
        return
    for place, (low, value, high) in enumerate(zip(lowest, got, highest, strict=True)):
        if low != low:
            first = place - place % parts
            if all(part == part for part in got[first : first + parts]):
                yield f"component {place}: {value}, not NaN"
        elif not key(low) <= key(value) <= key(high):
            yield f"component {place}: {value} is not within {low}, {high}"


def group_faults(case: Case, group: Case, outputs: list[Array]) -> Iterator[str]:
    arrays = [x.reshape(-1)[group["members"]] for x in outputs] if "members" in group else outputs
    limit, u = (Fraction(number(text)) for text in (case["arguments"]["max_norm"], group["u"]))
    if any(not math.isfinite(value) for x in arrays for value in components(x)):
        yield "a finite group is not finite"
    elif norm_beyond(case, arrays, limit) > 0:
        yield "bound"
    elif group["tight"] and norm_beyond(case, arrays, limit * (1 - 4 * u)) < 0:
        yield "tightness"


def norm_beyond(case: Case, arrays: list[Array], limit: Fraction) -> Fraction | int:
    """A number of the sign of norm − limit; squares are compared where the norm is a root."""
    order = order_of(case)
    sizes = [abs(Fraction(value)) for x in arrays for value in components(x)]
    if order == 2:
        return sum(size**2 for size in sizes) - limit**2
    if any(x.dtype.kind == "c" for x in arrays):
        return exact_norm(arrays, order).compare(limit)
    return (sum(sizes) if order == 1 else max(sizes, default=0)) - limit


def order_of(case: Case) -> float:
    return float(case["keywords"].get("ord", 1 if case["operation"].endswith("l1_norm") else 2))


def norm_holds(group: Case, got: float) -> bool:
    least, most = number(group["norm_least"]), number(group["norm_most"])
    return got != got if least != least else least <= got <= most


def call(functions: Any, case: Case, power: int = 0) -> Answer:
    """The answer of an implementation to a case, the numbers times 2**power."""
    operation, arguments = case["operation"], dict(case["arguments"])
    leaves = [scaled(array(leaf), power) for leaf in case["inputs"]]
    if power:
        arguments["max_norm"] = math.ldexp(float(number(arguments["max_norm"])), power).hex()
    single = operation != "clip_weights" and not operation.endswith("global_norm")
    keywords = {name: keyword(value) for name, value in case["keywords"].items()}
    returned = functions[operation](
        leaves[0] if single else leaves, *(argument(value) for value in arguments.values()), **keywords
    )
    if operation in NORMS:
        return [], returned
    if operation == "clip_by_global_norm":
        return list(returned[0]), returned[1]
    return ([returned] if single else list(returned)), None


def scaled(x: Array, power: int) -> Array:
    return (x * x.dtype.type(2.0**power)).astype(x.dtype) if power else x


def argument(value: Any) -> Any:
    if isinstance(value, dict):
        return array(value)
    return None if value is None else number(value)


def keyword(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return {"1": 1, "2": 2, "inf": math.inf}.get(value, value)
