"""The benchmark offers more than can be served, and tells the answers from the refusals."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest

from benchmarks.overload import GOODPUT, PRODUCTS, Outcome, overload, report, typical

FINE = Outcome(
    model_seconds=5e-3,
    before=200.0,
    offered=600.0,
    goodput=195.0,
    before_cpu=4.9e-3,
    goodput_cpu=5e-3,
    answered_p99=0.18,
    bound=0.2,
    refused_p50=1e-3,
    refused_p99=2e-3,
    grpc_refused_p50=1e-3,
    grpc_refused_p99=2e-3,
    after=201.0,
    memory_before=1 << 28,
    memory_after=1 << 28,
    left=0,
)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("goodput", GOODPUT * FINE.peak - 1),
        ("before", 300.0),
        ("answered_p99", 0.21),
        ("refused_p99", 6e-3),
        ("grpc_refused_p99", math.inf),
        ("after", 100.0),
        ("left", 1),
    ],
)
def test_each_promise_that_is_broken_is_found_out(field, bad):
    assert FINE.kept
    assert not replace(FINE, **{field: bad}).kept


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: nghttp2-client has it")
def test_under_overload_calls_are_answered_and_refused_and_nothing_else():
    outcome = overload(PRODUCTS[-1], 1.0)
    assert outcome.goodput > 0
    assert outcome.offered > outcome.goodput
    assert outcome.refused_p50 > 0
    assert outcome.grpc_refused_p50 > 0
    assert outcome.left <= 0
    assert "of the peak" in report([outcome])


def test_of_several_rounds_the_median_of_each_figure_counts():
    rounds = [replace(FINE, goodput=100.0), replace(FINE, refused_p99=1.0), FINE]
    assert typical(rounds) == FINE
    assert "97% of the peak, 50% to 97%" in report(rounds)
