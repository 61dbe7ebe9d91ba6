"""The Hypothesis profile of all tests, and what a plain run leaves out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every run and machine: a test that fails has failed before it is merged.
settings.register_profile(
    "clipcore",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("clipcore")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-all",
        action="store_true",
        help="let a test fail that would be skipped because a library or a browser is not installed",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {"slow": "takes minutes or gigabytes", "speed": "measures times"}
    for name, reason in left_out.items():
        if name in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{reason}: run with -m {name}"))
