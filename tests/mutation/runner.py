"""Run the tests against mutants: runner.py MUTANTS [PATTERN ...], each mutant in a fork of one process.

MUTANTS is the folder that mutmut wrote, PATTERN the start of mutants' names. The tests are collected
once, and run once to learn how long each takes and which functions it calls. A mutant of a function then
meets the tests that call it, quick ones first, until one fails, or dies, or does not end; its line goes to
results.tsv beside MUTANTS.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis.internal.conjecture import engine

# What mutmut puts before every mutated function.
trampoline: Any = importlib.import_module("mutmut.mutation.trampoline")

TESTS = Path(__file__).resolve().parent.parent
# They run the command in a process of its own, or judge implementations that are wrong on purpose.
LEFT_OUT = ("test_cli.py", "test_mutants.py", "test_packaging.py")
SECONDS = float(os.environ.get("SECONDS_A_MUTANT", "20"))

Items = list[pytest.Item]


class Runner:
    """A pytest plugin that runs the collected tests once for each mutant."""

    def __init__(self, mutants: list[str], results: Path) -> None:
        self.mutants, self.results = mutants, results

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        called, seconds = learn(items)
        order: dict[str, list[int]] = {}
        with self.results.open("a", buffering=1) as lines:
            for mutant in self.mutants:
                function = mutant.rpartition("__mutmut_")[0]
                if function not in order:
                    callers = [test for test, names in enumerate(called) if function in names]
                    order[function] = by_file(callers, items, seconds)
                tests = order[function]
                status, last = attempt(mutant, items, seconds, tests)
                if status == "killed":
                    tests.insert(0, tests.pop(tests.index(last)))
                lines.write(f"{mutant}\t{status}\t{items[last].nodeid if tests else ''}\n")
        return True


def by_file(tests: list[int], items: Items, seconds: list[float]) -> list[int]:
    """Put quick tests first, all files advancing alike."""
    spent: dict[str, float] = {}
    places = {}
    for test in sorted(tests, key=seconds.__getitem__):
        file = items[test].nodeid.partition("::")[0]
        spent[file] = places[test] = spent.get(file, 0) + seconds[test]
    return sorted(tests, key=places.__getitem__)


def quietly() -> None:
    """Let nothing that a fork prints be seen."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return not item.session.testsfailed


def learn(items: Items) -> tuple[list[set[str]], list[float]]:
    """Run all tests without a mutant, and return which functions each calls and how long it takes."""
    read, write = os.pipe()
    if not os.fork():
        quietly()
        now: set[str] = set()
        trampoline.get_mutant_under_test = lambda: "stats"
        trampoline.record_trampoline_hit = lambda name, caller=None: now.add(name)
        called, seconds = [], []
        for item, following in zip(items, [*items[1:], None], strict=True):
            start = time.perf_counter()
            if not passes(item, following):
                os.write(write, pickle.dumps(item.nodeid))
                os._exit(1)
            seconds.append(time.perf_counter() - start)
            called.append(set(now))
            now.clear()
        with os.fdopen(write, "wb") as answer:
            pickle.dump((called, seconds), answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        learnt: Any = pickle.loads(answer.read())
    os.wait()
    if isinstance(learnt, str):
        pytest.exit(f"{learnt} fails without a mutant", 1)
    found: tuple[list[set[str]], list[float]] = learnt
    return found


def attempt(mutant: str, items: Items, seconds: list[float], tests: list[int]) -> tuple[str, int]:
    """Run tests against a mutant until one fails; return what became of it and the last test."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        quietly()
        os.environ["MUTANT_UNDER_TEST"] = mutant
        trampoline.get_mutant_under_test = lambda: mutant
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        end = time.perf_counter() + SECONDS
        for test, following in zip(tests, [*tests[1:], None], strict=True):
            os.write(write, test.to_bytes(4, "little"))
            # A mutant may never end.
            signal.setitimer(signal.ITIMER_REAL, 8 + 8 * seconds[test])
            if not passes(items[test], None if following is None else items[following]):
                os._exit(1)
            if time.perf_counter() > end:
                os._exit(2)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as begun:
        last = int.from_bytes(begun.read()[-4:], "little")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed", last
    return ("survived", "killed", "out of time")[os.WEXITSTATUS(status)], last


def main(folder: Path, patterns: tuple[str, ...]) -> None:
    sys.path.insert(0, str(folder))
    engine.MAX_SHRINKS = 0  # that a test fails is enough
    names = [
        name for meta in folder.rglob("*.meta") for name in json.loads(meta.read_text())["exit_code_by_key"]
    ]
    chosen = [name for name in sorted(names) if name.startswith(patterns or "")]
    files = [str(file) for file in sorted(TESTS.glob("test_*.py")) if file.name not in LEFT_OUT]
    results = folder.parent / "results.tsv"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "--assert=plain"]
    if code := pytest.main([*options, *files], plugins=[Runner(chosen, results)]):
        sys.exit(code)
    statuses = dict(line.split("\t")[:2] for line in results.read_text().splitlines())
    sys.stdout.writelines(f"{name}\t{status}\n" for name, status in statuses.items() if status != "killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), tuple(sys.argv[2:]))
