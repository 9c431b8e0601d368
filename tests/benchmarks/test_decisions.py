"""The benchmark times what it says, and breaks where a promise does."""

from __future__ import annotations

import math

import pytest

from benchmarks import decisions
from benchmarks.decisions import (
    CONTEXT_FREE,
    LINEAR,
    OURS,
    PROMISED,
    PROMISED_FIT,
    Clock,
    Figures,
    Point,
    broken,
    grid,
    measure,
    ours,
    report,
    theirs,
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(decisions, "BATCH", 1e-5)


def test_the_grid_has_every_size_and_every_promise():
    points = grid((2, 5), (20,))
    assert set(PROMISED) | set(PROMISED_FIT) <= set(points)
    assert {Point("Thompson", 5, 0), Point("LinUCB", 2, 20)} < set(points)
    assert len(points) == len(set(points)) == 3 * 2 + 3 * 3


def test_the_clock_keeps_the_least_time_of_one_unit(monkeypatch):
    seen: list[str] = []
    clock = Clock(seen.extend, ["a", "b", "c"], units=2)
    batch = clock._batch
    assert len(batch) > 3
    assert batch[:6] == ["a", "b", "c"] * 2, "each event in its turn"
    assert seen[-len(batch) :] == batch
    for seconds in (3e-3, 1e-3, 2e-3):
        monkeypatch.setattr(clock, "_seconds", lambda seconds=seconds: seconds)
        clock.tick()
    assert clock.least == pytest.approx(1e3 / len(batch) / 2)


@pytest.mark.parametrize("kind", [*CONTEXT_FREE, *LINEAR])
def test_every_policy_of_ours_is_timed(kind):
    clocks = ours(Point(kind, 3, 4 if kind in LINEAR else 0))
    for clock in (clocks.decide[OURS], clocks.learn[OURS], clocks.fit):
        assert clock is not None
        clock.tick()
        assert 0 < clock.least < math.inf


def test_a_library_without_the_like_is_left_out():
    clocks = theirs(Point("Split", 2, 0), "river")
    assert (clocks.decide, clocks.learn, clocks.fit) == ({}, {}, None)


def test_the_figures_are_of_all_points():
    points = [Point("Split", 2, 0), Point("SquareCB", 2, 3)]
    figures = measure(points, [], 2)
    assert list(figures) == points
    for decide, learn, fit in figures.values():
        assert 0 < decide[OURS] < math.inf
        assert 0 < learn[OURS] < math.inf
        assert 0 < fit < math.inf


def test_broken_promises_are_told():
    kept = {point: Figures({OURS: bound}, {OURS: 1.0}, 1.0) for point, bound in PROMISED.items()}
    assert broken(kept) == []
    point = Point("LinUCB", 5, 20)
    assert broken(kept | {point: Figures({OURS: 2.1}, {OURS: 1.0}, 25.5)}) == [
        "LinUCB, 5 arms, 20 features: a decision took 2.10 us, promised 2.0",
        "LinUCB, 5 arms, 20 features: a fit took 25.5 us an arm, promised 25.0",
    ]


def test_the_report_has_the_ratios_and_the_promises(capsys):
    point = Point("LinUCB", 5, 20)
    figures = {point: Figures({OURS: 1.5, "river": 150.0}, {OURS: 2.0, "river": 10.0}, 9.0)}
    report(figures, ["mabwiser", "river"])
    decision, reward = (line for line in capsys.readouterr().out.splitlines() if line.startswith("LinUCB"))
    assert decision.split() == ["LinUCB", "5", "20", "1.50", "150.0", "100x", "<=", "2"]
    assert reward.split() == ["LinUCB", "5", "20", "2.00", "10.0", "5x", "9.0", "<=", "25"]
