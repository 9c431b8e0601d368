"""A short form of the benchmark: the textbook is fooled, ours are not, and what is left out of sight is not missed."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from bandits.anytime.differences import FEWEST
from benchmarks import peeking
from benchmarks.peeking import ALPHA, ASYMPTOTIC, BERNSTEIN, RATES, STEPS, TEXTBOOK, WAYS, Row, Watched

RUNS = 100


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, Row]]:
    return {way: peeking.watch(way, RUNS) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_the_textbook_is_fooled_and_ours_are_not(figures, way: str) -> None:
    rows = figures[way]
    assert set(rows) == {TEXTBOOK, ASYMPTOTIC, BERNSTEIN, RATES}
    assert rows[TEXTBOOK].alarms > 0.3
    assert not rows[TEXTBOOK].holds
    for method in ASYMPTOTIC, BERNSTEIN, RATES:
        assert rows[method].alarms <= ALPHA + 3 * rows[method].error
        assert rows[method].holds
        assert rows[TEXTBOOK].radius < rows[method].radius < 5 * rows[TEXTBOOK].radius


def test_the_reference_simulation_is_reproduced(figures) -> None:
    """Section 6.3: 45.5 % and radii of .0118, .0189 and .0232 after 5000 steps."""
    rows = figures["in pairs"]
    assert rows[TEXTBOOK].alarms == pytest.approx(0.455, abs=4 * rows[TEXTBOOK].error)
    assert rows[TEXTBOOK].radius == pytest.approx(0.0118, abs=1e-4)
    assert rows[ASYMPTOTIC].radius == pytest.approx(0.0189, abs=1e-4)
    assert rows[BERNSTEIN].radius == pytest.approx(0.0232, abs=3e-4)


def test_alarms_are_counted_at_the_first_step_of_each_run() -> None:
    row = peeking.summary([Watched(200, 0.1), Watched(0, 0.2), Watched(STEPS, 0.3), Watched(200, 0.4)])
    assert row.alarms == 0.75
    assert row.radius == pytest.approx(0.25)
    assert row.by_step[198] == 0
    assert row.by_step[199] == row.by_step[STEPS - 2] == 0.5
    assert len(row.by_step) == STEPS
    early = np.arange(STEPS) == FEWEST - 2
    assert peeking.first(early) == 0, "nobody looked yet"
    assert peeking.first(np.roll(early, 1)) == FEWEST


def test_the_steps_that_rates_are_not_looked_at_have_no_alarm() -> None:
    """Arms that differ, so that there are alarms to miss."""
    rng = np.random.default_rng(8)
    n = np.arange(1.0, STEPS + 1.0)
    rewards = rng.random((STEPS, 2)) < np.array([0.1, 0.16])
    successes = rewards.cumsum(axis=0).astype(float)
    watched = peeking.rates_apart(np.stack([n, n], axis=1), successes)
    apart = []
    for step in range(FEWEST - 1, STEPS):
        (low, _), (_, high) = (peeking.interval(successes[step, arm], n[step]) for arm in (1, 0))
        apart.append(low > high)
    assert watched.alarm == FEWEST + apart.index(True)


def test_propensities_are_those_of_the_arms_that_were_played() -> None:
    rng = np.random.default_rng(9)
    arms, propensities = np.empty(STEPS, np.int64), np.empty(STEPS)
    peeking.thompson(rng.random(STEPS), (rng.random(STEPS) < 0.1).astype(float), arms, propensities)
    assert propensities.min() >= peeking.FLOOR
    assert propensities.max() <= 1 - peeking.FLOOR
    p = np.where(arms == 1, propensities, 1 - propensities)
    z = ((arms == 1) - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(z) < 4
    assert p.std() > 0.05, "it does learn"


def test_a_broken_promise_fails_the_benchmark(figures, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["peeking", "--json"])
    monkeypatch.setattr(peeking, "measure", lambda _: figures)
    assert peeking.main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["in pairs"][TEXTBOOK]["alarms"] == figures["in pairs"][TEXTBOOK].alarms
    fooled = {way: rows | {RATES: rows[TEXTBOOK]} for way, rows in figures.items()}
    monkeypatch.setattr(peeking, "measure", lambda _: fooled)
    monkeypatch.setattr(peeking, "PICTURE", tmp_path / "build" / "peeking.png")
    monkeypatch.setattr(sys, "argv", ["peeking", "--quick"])
    assert peeking.main() == 1
    assert "broken" in capsys.readouterr().out
    assert peeking.PICTURE.stat().st_size > 10_000
