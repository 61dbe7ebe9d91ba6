"""Many verifications at once, each in a process of its own."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

import clipcore
from clipcore.verify.report import Finding, Level, Report, Skipped, report_of
from clipcore.verify.subject import drain, ended

__all__ = ["Job", "environment", "run", "today"]

STALLED: Final = 240.0  # seconds without news after which a process is ended


@dataclass(frozen=True)
class Job:
    """One verification to run; the request that a worker reads.

    Attributes
    ----------
    name, operation : str
        A ready-made subject's name or `module:function`, and what it is judged as.
    level, formula, dtypes, seed, examples
        As in `clipcore.verify.verify`.
    input : str
        A file of arrays to add to the cases, or an empty string.
    arrays, in_place, interpreter, timeout
        As in `clipcore.verify.Subject`, for a `module:function`.
    """

    name: str
    operation: str
    level: Level = "exact"
    formula: str = "contract"
    dtypes: tuple[str, ...] | None = None
    seed: int = 0
    examples: int = 200
    input: str = ""
    arrays: str = "numpy"
    in_place: bool = False
    interpreter: str = ""
    timeout: float = 10.0


def run(
    jobs: Sequence[Job],
    news: Callable[[int, int, int], None] = lambda *_: None,
    finished: Callable[[int], None] = lambda _: None,
) -> list[Report | Skipped]:
    """Run jobs side by side and return what came of each, in the order given.

    Parameters
    ----------
    jobs : sequence of Job
        What to run.
    news : callable
        Called with (index of a job, steps done, steps known) from several threads.
    finished : callable
        Called with the index of every job that has ended.

    Returns
    -------
    list of Report or Skipped
        After a keyboard interrupt those that were finished, the others skipped with that reason.
    """
    running: set[subprocess.Popen[str]] = set()
    stop = threading.Event()
    made: dict[int, Report | Skipped] = {}

    def work(index: int) -> None:
        if not stop.is_set():
            made[index] = _run_one(jobs[index], lambda done, known: news(index, done, known), running, stop)
            finished(index)

    with ThreadPoolExecutor(_processors()) as pool:
        try:
            for future in [pool.submit(work, index) for index in range(len(jobs))]:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            for process in list(running):
                _end(process)
    return [made.get(index, Skipped(job.name, "interrupted")) for index, job in enumerate(jobs)]


def _processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_one(
    job: Job, news: Callable[[int, int], None], running: set[subprocess.Popen[str]], stop: threading.Event
) -> Report | Skipped:
    """Run one job in a process, and return its report, or why there is none."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clipcore.verify.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # so that what it has started ends with it
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    running.add(process)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=drain, args=(process.stdout, lines), daemon=True).start()
    done, answer = 0, {}
    try:
        with process.stdin as requests:  # type: ignore[union-attr]
            requests.write(json.dumps(asdict(job)) + "\n")
        while line := lines.get(timeout=STALLED):
            answer = json.loads(line)
            if "done" not in answer:
                break
            done = answer["done"]
            news(done, answer["known"])
        how = "" if "done" not in answer and answer else ended(process.wait())
    except queue.Empty:
        how = f"no answer in {STALLED:g} s"
    except BrokenPipeError:
        how = ended(process.wait())
    finally:
        _end(process)
        process.wait()
        running.discard(process)
    if stop.is_set() and how:
        return Skipped(job.name, "interrupted")
    if how:
        return _lost(job, f"{how}, at case {done + 1} of seed {job.seed}")
    return report_of(answer["report"]) if "report" in answer else Skipped(job.name, answer["error"])


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _lost(job: Job, message: str) -> Report:
    """Return the report of a subject that took its process with it."""
    finding = Finding("call", "rounded", "fail", message)
    return Report(job.name, job.operation, job.formula, job.level, job.seed, job.examples, (finding,))


def environment() -> dict[str, str]:
    """Return the versions that a report is about."""
    return {
        "clipcore": clipcore.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def today() -> str:
    """Return the day, `YYYY-MM-DD`, in universal time."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
