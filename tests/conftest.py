"""Every run sees the same examples, and takes the time it needs.

With CROUPIER_NO_SKIPS=1 a skipped test fails, so that a green CI means that all ran; those marked gpu may skip.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("croupier", derandomize=True, deadline=None)
settings.load_profile("croupier")

# Whoever runs the tests may have set it. Then each process would compile anew all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

NO_SKIPS = os.environ.get("CROUPIER_NO_SKIPS") == "1"
COMPUTES = Path(__file__).parent / "bandits"  # files that are done in seconds and wait for nobody


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Half a million objects that stay to the end: the garbage collector need not search them, now or ever again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """What only computes comes last: files are dealt to several processes, which so end together."""
    items.sort(key=lambda item: item.path.is_relative_to(COMPUTES))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail") and not item.get_closest_marker("gpu"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    if NO_SKIPS and report.skipped:
        _fail(report)
    return report


def _fail(report):
    _, _, reason = report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}\nCROUPIER_NO_SKIPS=1: nothing may be skipped here"
