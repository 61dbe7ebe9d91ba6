"""What the kit is called by: `verify` for a report, `assert_conforms` for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

from clipcore.verify.report import Report
from clipcore.verify.subject import Subject
from clipcore.verify.verification import Verification

__all__ = ["assert_conforms", "verify"]


def verify(
    fn: Callable[..., Any] | Subject,
    operation: str,
    *,
    level: str = "exact",
    formula: str = "contract",
    arrays: ModuleType | str = np,
    dtypes: Iterable[Any] | None = None,
    seed: int = 0,
    max_examples: int = 200,
) -> Report:
    """Judge an implementation of a clip or a norm against exact rational arithmetic.

    Every element of the result is compared with the formula, without rounding; the edge table and the laws of
    the contract follow where the level asks for them.

    Parameters
    ----------
    fn : callable or Subject
        The implementation, called as the public function of that name is, positionally. A list of arrays and
        a limit for `clip_by_global_norm`, which may return the list or `(list, norm)`. Keywords (`axis`,
        `ord`, `nonfinite`, `out`, `where`) are tried only where its signature names them.
    operation : str
        Name of the public function: `clip_by_value`, `clip_weights`, `clip_by_l1_norm`, `clip_by_l2_norm`,
        `clip_by_global_norm`, `l1_norm`, `l2_norm` or `global_norm`.
    level : {"exact", "robust", "rounded"}
        What to ask: ordinary numbers to 4 ulp; the dtype's whole range and the edge table; the laws. Each
        level contains those before it.
    formula : str
        The definition to judge by. Any other than "contract" is that of a framework, and judged at level
        "rounded" only.
    arrays : module or str
        Library whose arrays `fn` takes.
    dtypes : iterable of dtype or str, optional
        What the leaves may be; by default every dtype that the level speaks of.
    seed : int
        Where random cases come from; the same seed gives the same report.
    max_examples : int
        Number of random cases for each level, besides the aimed ones, which are always tried.

    Returns
    -------
    Report
        The findings, each with the smallest call found that shows it.

    Raises
    ------
    ValueError
        For an unknown operation, level, formula or dtype, or a negative number.
    TypeError
        Where `fn` cannot be called.
    SubjectError
        Where the subject's module, library or interpreter is not there.

    See Also
    --------
    assert_conforms : The same as an assertion.
    Subject : For functions that are called otherwise.

    Notes
    -----
    Nothing that `fn` raises gets out: an exception, a warning made an error, a hang (in the main thread) and
    an exit are findings.

    Examples
    --------
    >>> import numpy as np
    >>> from clipcore.verify import verify
    >>> def clip(x, max_norm):
    ...     return x * min(1, max_norm / (np.linalg.norm(x) + 1e-6))
    >>> report = verify(clip, "clip_by_l2_norm", dtypes=["float32"], max_examples=20)
    >>> report.passed, report.level
    (False, None)
    >>> report.findings[0].law
    'formula'
    """
    subject = fn if isinstance(fn, Subject) else Subject(fn, arrays=arrays)
    run = Verification(
        subject, operation, level=level, formula=formula, dtypes=dtypes, seed=seed, max_examples=max_examples
    )
    for _ in run.steps():
        pass
    return run.report()


def assert_conforms(fn: Callable[..., Any] | Subject, operation: str, **options: Any) -> Report:
    """Verify an implementation, and raise `AssertionError` with the findings where it does not pass.

    Parameters
    ----------
    fn : callable or Subject
        The implementation.
    operation : str
        Name of the public function.
    **options
        The keywords of `verify`.

    Returns
    -------
    Report
        The report, where it passed.

    Raises
    ------
    AssertionError
        Where a law is broken; its text is the report.
    ValueError, TypeError, SubjectError
        As `verify` does, where the arguments do not fit.

    See Also
    --------
    verify : The same without the exception, and what the arguments mean.

    Examples
    --------
    >>> import clipcore
    >>> from clipcore.verify import assert_conforms
    >>> def test_my_clip():
    ...     assert_conforms(clipcore.clip_by_value, "clip_by_value", dtypes=["float32"], max_examples=10)
    >>> test_my_clip()
    """
    report = verify(fn, operation, **options)
    if not report.passed:
        raise AssertionError(str(report))
    return report
