"""One verification in a process of its own: `python -m clipcore.verify.worker`, a request in, news out.

A framework that crashes or hangs ends this process only.  The request is one line of JSON; the answers are a
line each: `{"done": n, "known": n}` while it works, at last `{"report": …}` or `{"error": …}`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from clipcore.verify.files import load
from clipcore.verify.judge import Case
from clipcore.verify.own import own_cases
from clipcore.verify.subject import Subject, SubjectError
from clipcore.verify.subjects import ready_made, version_of
from clipcore.verify.trials import DTYPES
from clipcore.verify.verification import Verification

__all__ = ["main"]


def main() -> None:
    """Read the request, verify, and tell what comes of it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a framework prints must not be taken for an answer

    def answer(**held: Any) -> None:
        answers.write(json.dumps(held) + "\n")
        answers.flush()

    asked = json.loads(sys.stdin.readline())
    try:
        subject, name, version, definition, dtypes = _subject(asked)
        cases = list(own_cases(asked["operation"], load(asked["input"]).arrays)) if asked["input"] else []
        run = _verification(asked, subject, dtypes, asked["formula"], definition, cases)
        for done, known in run.steps():
            answer(done=done, known=known)
        report = run.report(name, version)
        if not report.counts:
            raise SubjectError("offers nothing that is asked for")
        if definition not in ("", "contract") and asked["formula"] == "contract":
            run = _verification(asked, subject, dtypes, definition, definition, ())
            for _ in run.steps():
                answer(done=done, known=done)
            report.own_formula = "holds" if run.report().passed else "broken"
        answer(report=dataclasses.asdict(report))
    except (SubjectError, ValueError) as error:
        answer(error=str(error))
    except Exception as error:  # a fault of the kit must not accuse the subject
        answer(error=f"the kit failed: {type(error).__name__}: {error}")


def _subject(asked: dict[str, Any]) -> tuple[Subject, str, str, str, tuple[str, ...] | None]:
    """Return the subject that a request names, its name, version and definition, and the dtypes to try."""
    name, wanted = asked["name"], asked["dtypes"]
    if ":" in name:
        subject = Subject(
            name,
            arrays=asked["arrays"],
            in_place=asked["in_place"],
            interpreter=asked["interpreter"] or sys.executable,
            timeout=asked["timeout"],
        )
        return subject, name, "", "", wanted
    found = next(each for each in ready_made() if (each.name, each.operation) == (name, asked["operation"]))
    offered = DTYPES if found.dtypes is None else tuple(each for each in DTYPES if each in found.dtypes)
    dtypes = tuple(each for each in offered if wanted is None or each in wanted)
    if not dtypes:
        raise SubjectError(f"it takes none of the dtypes asked for, only {', '.join(offered)}")
    return found.build(), name, version_of(found), found.definition, dtypes


def _verification(
    asked: dict[str, Any],
    subject: Subject,
    dtypes: tuple[str, ...] | None,
    formula: str,
    definition: str,
    cases: Sequence[Case],
) -> Verification:
    """Return the verification of a request by one formula."""
    return Verification(
        subject,
        asked["operation"],
        level=asked["level"],
        formula=formula,
        dtypes=dtypes,
        seed=asked["seed"],
        max_examples=asked["examples"],
        definition=definition,
        own=cases,
    )


if __name__ == "__main__":
    main()
