"""A subject: what is judged, how it is called, and where it lives."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import IO, Any, Final, Protocol, runtime_checkable

import numpy as np

from clipcore.verify import calling
from clipcore.verify.calling import (
    Call,
    Library,
    NotOffered,
    Observation,
    decode,
    encode,
    found,
    keywords_of,
    library,
    observe,
)

__all__ = ["LOSSES", "Callee", "Here", "Lost", "Subject", "SubjectError", "drain", "ended"]

_SCRIPT: Final = """
import sys, types
judged = sys.modules["judged"] = types.ModuleType("judged")
judged.__path__ = [sys.argv.pop(1)]
from judged.serving import serve
serve(*sys.argv[1:])
"""
_PATIENCE: Final = 120.0  # seconds in which another interpreter must import what it serves
_PATIENT: Final = 3  # hangs and crashes after which a subject is not called any more
HANG, CRASH = LOSSES = ("a hang", "a crash")
"""What `Observation.error` says where a call did not end by itself: no name of an exception."""


class Lost(Exception):  # noqa: N818  # no error: the run ends with what it has found
    """The subject hung or crashed so often that it is not called any more."""


class SubjectError(Exception):
    """The subject cannot be called at all: there is no such module, function, library or interpreter."""


@runtime_checkable
class Callee(Protocol):
    """A subject that is ready to be called."""

    keywords: frozenset[str]

    def observe(self, tree: Any, arguments: Sequence[Any] = (), keywords: Any = None) -> Observation:
        """Call it once; see `clipcore.verify.calling.observe`."""


@dataclass(frozen=True)
class Subject:
    """A function to judge, with all that is needed to call it.

    Attributes
    ----------
    function : callable or str
        The function, or `module:function`, which is imported where it is called.
    arrays : module or str
        Library whose arrays it takes: `numpy`, `torch`, `jax.numpy`, `tensorflow`, …
    in_place : bool
        Whether it writes its result into its first argument instead of returning it.
    prepare : callable, optional
        Makes its first argument of a tree of arrays, where that is something else: parameters with gradients.
    collect : callable, optional
        Makes the result, or `(result, norm)`, of `(first argument, what was returned)`.
    interpreter : str, optional
        Path of the Python that calls it, in a process of its own; it needs NumPy and the function, no
        clipcore.  The function must then be a `module:function`, and `prepare` and `collect` cannot be given.
    timeout : float
        Seconds that one call may take; a longer one is a finding.  In this process only Python code can be
        interrupted, and only in the main thread; a process of its own can always be.

    See Also
    --------
    verify : Judges it.

    Examples
    --------
    >>> from clipcore.verify import Subject, verify
    >>> def clip_(x, max_norm):
    ...     x *= min(1, max_norm / (float((x * x).sum()) ** 0.5 + 1e-6))
    >>> subject = Subject(clip_, in_place=True)
    >>> verify(subject, "clip_by_l2_norm", level="rounded", dtypes=["float32"]).passed
    False
    """

    function: Callable[..., Any] | str
    arrays: ModuleType | str = np
    in_place: bool = False
    prepare: Callable[[Any], Any] | None = None
    collect: Callable[[Any, Any], Any] | None = None
    interpreter: str | None = None
    timeout: float = 10.0

    @property
    def library_name(self) -> str:
        """Name of the library whose arrays the function takes."""
        return self.arrays if isinstance(self.arrays, str) else self.arrays.__name__

    @contextlib.contextmanager
    def opened(self) -> Iterator[Callee]:
        """Yield the subject ready to be called; a process of its own ends with the context.

        Raises
        ------
        SubjectError
            Where there is nothing to call.
        """
        if self.interpreter is None:
            yield Here(self)
            return
        if not isinstance(self.function, str) or self.prepare or self.collect:
            raise SubjectError(
                f"with interpreter={self.interpreter!r} the function must be given as 'module:function', "
                f"without prepare and collect; write a function in that module that does their work"
            )
        elsewhere = _Elsewhere(self)
        try:
            yield elsewhere
        finally:
            elsewhere.close()


class _Late(BaseException):
    """The alarm of a call that takes too long."""


class Here:
    """A subject in this process."""

    def __init__(self, subject: Subject) -> None:
        self._timeout, self._losses = subject.timeout, 0
        self._call = Call(
            _imported(subject.function), _library(subject), subject.in_place, subject.prepare, subject.collect
        )
        self.keywords = frozenset(keywords_of(self._call.function))

    def observe(self, tree: Any, arguments: Sequence[Any] = (), keywords: Any = None) -> Observation:
        """Call it once, under an alarm where there can be one."""
        if self._losses >= _PATIENT:
            raise Lost(f"not called any more after {_PATIENT} hangs")
        begun = time.monotonic()
        with _alarm(self._timeout):
            seen = observe(self._call, tree, arguments, keywords)
        if time.monotonic() - begun <= self._timeout:
            return seen
        self._losses += 1
        return Observation(error=HANG, message=f"no answer in {self._timeout:g} s")


def _imported(function: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return the function that a `module:function` names."""
    if not isinstance(function, str):
        return function
    try:
        return found(function)
    except Exception as error:  # whatever a stranger's module raises when it is imported
        raise SubjectError(f"{function}: {type(error).__name__}: {error}") from error


def _library(subject: Subject) -> Library:
    """Return the subject's array library."""
    try:
        return library(subject.library_name)
    except (ImportError, AttributeError) as error:
        raise SubjectError(f"arrays={subject.library_name}: {error}") from error


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `_Late` in the code below when it takes longer; only the main thread can be interrupted."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _Late

    previous = signal.signal(signal.SIGALRM, ring)
    # again every second: the code may swallow the first
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class _Elsewhere:
    """A subject in a process of its own, started again after a hang or a crash."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._losses = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.keywords = frozenset(self._started()["keywords"])

    def observe(self, tree: Any, arguments: Sequence[Any] = (), keywords: Any = None) -> Observation:
        """Call it once; the end of its process is an observation."""
        if self._losses >= _PATIENT:
            raise Lost(f"not called any more after {_PATIENT} hangs or crashes")
        if self._process is None:
            self._started()
        out = _arrays_of((keywords or {}).get("out"))
        if len(set(map(id, out))) < len(out):
            return Observation(error="NotOffered", message="one array twice", bases=(NotOffered.__name__,))
        asked = {
            "tree": encode(tree),
            "arguments": encode(list(arguments)),
            "keywords": encode(keywords or {}),
        }
        answer = self._asked(asked, self._subject.timeout)
        if isinstance(answer, Observation):
            return answer
        answer["result"], answer["out"] = decode(answer["result"]), decode(answer["out"])
        return Observation(**{**answer, "bases": tuple(answer["bases"])})

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process and process.stdin:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _started(self) -> dict[str, Any]:
        """Start the process and return its first answer."""
        subject = self._subject
        style = "in place" if subject.in_place else "pure"
        command = [str(subject.interpreter), "-c", _SCRIPT, str(Path(calling.__file__).parent)]
        try:
            self._process = subprocess.Popen(
                [*command, str(subject.function), subject.library_name, style],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise SubjectError(f"interpreter {subject.interpreter}: {error}") from error
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=drain, args=(self._process.stdout, self._answers), daemon=True).start()
        answer = self._asked(None, _PATIENCE)
        if isinstance(answer, Observation):
            raise SubjectError(f"{subject.function}: {answer.error} while it was imported: {answer.message}")
        if "keywords" not in answer:
            self.close()
            raise SubjectError(f"{subject.function}: {answer['error']}")
        return answer

    def _asked(self, request: dict[str, Any] | None, seconds: float) -> dict[str, Any] | Observation:
        """Send a request and return the answer, or what became of the process."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            if request is not None:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            line = None
        except BrokenPipeError:
            line = b""
        with contextlib.suppress(ValueError):
            if line and isinstance(answer := json.loads(line), dict):
                return answer
        self._losses += 1
        status = process.wait() if line == b"" else None
        self.close()
        if line:
            raise SubjectError(f"{self._subject.interpreter} gives no answer but {line[:80]!r}")
        if status is None:
            return Observation(error=HANG, message=f"no answer in {seconds:g} s")
        return Observation(error=CRASH, message=ended(status))


def _arrays_of(tree: Any) -> list[Any]:
    """Return the arrays of a tree: of one that stands there twice, the copies sent would share nothing."""
    if isinstance(tree, dict | list | tuple):
        children = tree.values() if isinstance(tree, dict) else tree
        return [leaf for child in children for leaf in _arrays_of(child)]
    return [tree] if isinstance(tree, np.ndarray) else []


def drain(stream: IO[Any] | None, lines: queue.Queue[Any]) -> None:
    """Pass on the lines of a process's output, at last an empty one."""
    assert stream is not None
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def ended(status: int) -> str:
    """Return how a process ended, in words."""
    if status < 0:
        return f"the interpreter was ended by {signal.Signals(-status).name}"
    return f"the interpreter ended with exit status {status}"
