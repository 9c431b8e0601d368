"""What was measured while something slowed the machine is told apart, by a piece of work of known size."""

from __future__ import annotations

import os

import pytest

from benchmarks.overhead import Round, _figures
from benchmarks.pace import CALM, Pace, Sample, calm


def paced(*seconds: float) -> Pace:
    """A pace that has seen the known work take these times."""
    times = iter(seconds)
    pace = Pace(lambda: next(times))
    for _ in seconds:
        pace()
    return pace


def test_what_is_slowed_is_known_by_the_least_that_the_work_has_taken():
    pace = paced(2.0, 1.0, 1.9)
    assert pace.slowed(1.0) == 1.0
    assert pace.slowed(1.9) == 1.9
    samples = [Sample("slowed before the least was known", 2.0), Sample("calm", CALM), Sample("slowed", CALM + 0.01)]
    assert calm(samples, pace) == ["calm"]


def test_the_work_is_done_on_each_core_and_they_are_given_back():
    cores = os.sched_getaffinity(0)
    assert Pace()() > 0
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize(("only_calm", "cpu"), [(True, 50.0), (False, 60.0)])
def test_calm_rounds_count_where_there_are_enough_of_them(only_calm: bool, cpu: float):
    samples = [Sample(Round(cpu, 1e4, 1e-3), pace) for cpu, pace in [(40.0, 1.0), (60.0, 1.1), (90.0, 2.0)]]
    figures = _figures(samples, paced(1.0), only_calm=only_calm)
    assert (figures.cpu_us, figures.cpu_us_of_all, figures.cpu_us_least) == (cpu, 60.0, 40.0)
    assert (figures.calm, figures.rounds) == (2, 3)
