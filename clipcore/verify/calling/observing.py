"""One call of the judged function, and all that can be seen of it where it happens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .libraries import Library
from .wire import TOO_MANY, Drawn

__all__ = ["Call", "NotOffered", "Observation", "mapped", "observe"]

Array = Any


class NotOffered(Exception):  # noqa: N818  # no error: the case is passed over
    """Raised by an adapter where its framework's interface has no such argument."""


@dataclass(frozen=True)
class Call:
    """A function and what its arguments look like.

    Attributes
    ----------
    function : callable
        What is called.
    library : Library
        Whose arrays it takes and gives.
    in_place : bool
        Whether it writes its result into the first argument.
    prepare : callable or None
        Makes the first argument of a tree of the library's arrays, where it is something else.
    collect : callable or None
        Makes the result of `(first argument, returned)`.
    """

    function: Callable[..., Any]
    library: Library
    in_place: bool = False
    prepare: Callable[[Any], Any] | None = None
    collect: Callable[[Any, Any], Any] | None = None


@dataclass
class Observation:
    """What came of one call.

    Attributes
    ----------
    result : object
        The returned tree, its arrays as NumPy arrays.
    faults : list of str
        What breaks the form and can only be seen where the call happens.
    error, message : str
        Type and text of the exception raised, empty where none was.
    bases : tuple of str
        Names of the exception's base classes.
    out : object
        What `out` holds after the call, as NumPy arrays; `None` where there was none.
    """

    result: Any = None
    faults: list[str] = field(default_factory=list)
    error: str = ""
    message: str = ""
    bases: tuple[str, ...] = ()
    out: Any = None


def observe(
    call: Call, tree: Any, arguments: Sequence[Any] = (), keywords: dict[str, Any] | None = None
) -> Observation:
    """Call a function and say what came of it; nothing that it raises gets out but a keyboard interrupt.

    Parameters
    ----------
    call : Call
        The function.
    tree : object
        First argument, its arrays NumPy's.
    arguments, keywords : sequence, dict
        The others; `out="new"` stands for new arrays like the input, `out="input"` for the input itself.
    """
    taken: dict[int, Any] = {}
    pure = not call.in_place and not call.prepare

    def take(x: Array) -> Any:
        # an array that stands twice in a tree stays one array, unless it would be written twice
        if not pure or id(x) not in taken:
            taken[id(x)] = call.library.take(x)
        return taken[id(x)]

    options: dict[str, Any] = {}
    try:
        first = mapped(tree, take)
        others = [mapped(each, take) for each in arguments]
        options.update(_options(keywords or {}, tree, first, take))
        prepared = call.prepare(first) if call.prepare else first
        passed: Any = iter(prepared) if isinstance(tree, Drawn) else prepared
        before = _bytes_of(call, first)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            returned = call.function(passed, *others, **options)
            if call.collect:
                returned = call.collect(prepared, returned)
            elif call.in_place:
                returned = (first, returned) if returned is not first and _is_number(returned) else first
            seen = Observation(mapped(returned, call.library.give, call.library.is_array))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's code raises is about that code
        names = tuple(base.__name__ for base in type(error).__mro__)
        seen = Observation(error=names[0], message=_text(error), bases=names)
    else:
        if options.get("out") is not None:
            seen.faults = _out_faults(options["out"], returned)
        elif pure:
            seen.faults = _faults(call, first, before, returned)
    if options.get("out") is not None:
        seen.out = mapped(options["out"], call.library.give, call.library.is_array)
    return seen


def _text(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    try:
        return " ".join(str(error).split())[:TOO_MANY]
    except Exception:  # its own __str__ may raise
        return ""


def _options(keywords: dict[str, Any], tree: Any, first: Any, take: Callable[[Array], Any]) -> dict[str, Any]:
    """Return the keywords as the function receives them."""
    out = keywords.get("out")
    if isinstance(out, str):
        out = first if out == "input" else mapped(tree, lambda x: take(np.full_like(x, 77)))
    elif out is not None:
        out = mapped(out, take)
    return keywords if out is None else {**keywords, "out": out}


def _is_number(value: Any) -> bool:
    """Return whether a value is a number, or an array without axes."""
    try:
        float(value)
    except Exception:  # whatever a stranger's array raises
        return False
    return not getattr(value, "shape", ())


def _bytes_of(call: Call, tree: Any) -> list[bytes]:
    """Return the contents of the arrays of a tree that can be written."""
    if not call.library.writable:
        return []
    return [call.library.give(x).tobytes() for x in _arrays(tree, call.library.is_array)]


def _faults(call: Call, first: Any, before: list[bytes], returned: Any) -> list[str]:
    """Return what is wrong with the types and the memory of a result."""
    found = []
    if before != _bytes_of(call, first):
        found.append("the input was written; if it is meant to be, give Subject(..., in_place=True)")
    if isinstance(returned, tuple) and not isinstance(first, tuple) and len(returned) == 2:
        returned = returned[0]
    strangers = [x for x in _leaves(returned) if not call.library.is_array(x)]
    if strangers:
        kind = type(strangers[0])
        found.append(
            f"a leaf came back as {kind.__module__}.{kind.__qualname__}, not {call.library.name}'s array"
        )
    if call.library.writable:
        inputs = [call.library.give(x) for x in _arrays(first, call.library.is_array)]
        outputs = [call.library.give(x) for x in _arrays(returned, call.library.is_array)]
        if any(np.may_share_memory(x, y) for x in inputs for y in outputs):
            found.append("a result shares memory with its input")
    return found


def _out_faults(out: Any, returned: Any) -> list[str]:
    """Return what is wrong with a result that was to be written to `out`."""
    if isinstance(returned, tuple) and not isinstance(out, tuple) and len(returned) == 2:
        returned = returned[0]
    same = all(x is y for x, y in zip(_leaves(out), _leaves(returned), strict=False))
    return [] if same and len(_leaves(out)) == len(_leaves(returned)) else ["what is returned is not out"]


def mapped(tree: Any, change: Callable[[Any], Any], chosen: Callable[[Any], bool] | None = None) -> Any:
    """Return a tree with its arrays changed; everything else stays."""
    if isinstance(tree, Drawn):
        return [mapped(child, change, chosen) for child in tree]
    if isinstance(tree, dict):
        return {key: mapped(child, change, chosen) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [mapped(child, change, chosen) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    is_array = chosen(tree) if chosen else isinstance(tree, np.ndarray) and tree.dtype.kind != "O"
    return change(tree) if is_array else tree


def _leaves(tree: Any) -> list[Any]:
    """Return everything in a tree that is neither a container nor None."""
    if isinstance(tree, dict):
        return [leaf for child in tree.values() for leaf in _leaves(child)]
    if isinstance(tree, list | tuple):
        return [leaf for child in tree for leaf in _leaves(child)]
    return [] if tree is None else [tree]


def _arrays(tree: Any, is_array: Callable[[Any], bool]) -> list[Any]:
    """Return the arrays of a tree."""
    return [leaf for leaf in _leaves(tree) if is_array(leaf)]
