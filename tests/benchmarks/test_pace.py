"""What was measured while something slowed the machine is told apart, by a piece of work of known size."""

from __future__ import annotations

import os

from benchmarks.overhead import Round, _figures
from benchmarks.pace import CALM, Pace, Rounds, interleaved


def paced(*seconds: float) -> Pace:
    """A pace that has seen the known work take these times."""
    times = iter(seconds)
    pace = Pace(lambda: next(times))
    for _ in seconds:
        pace()
    return pace


def measured(*seconds: float, enough: int, patience: float = 60.0) -> dict[str, Rounds[str]]:
    """Two targets, measured beside known work that takes these times; each measurement is told by what comes after."""
    times = iter(seconds)
    last = [next(times)]

    def work() -> float:
        last.append(next(times, 1.0))
        return last[-2]

    measures = {name: lambda name=name: f"{name} until {last[-1]}" for name in ("a", "b")}
    return interleaved(measures, Pace(work), enough=enough, patience=patience)


def test_what_is_slowed_is_known_by_the_least_that_the_work_has_taken():
    pace = paced(2.0, 1.0, 1.9)
    assert pace.slowed(1.0) == 1.0
    assert pace.slowed(1.9) == 1.9


def test_the_work_is_done_on_each_core_and_they_are_given_back():
    cores = os.sched_getaffinity(0)
    assert Pace()() > 0
    assert os.sched_getaffinity(0) == cores


def test_a_round_is_calm_where_nothing_slowed_the_machine_before_nor_after():
    # What stands between two of these times is measured between them: a, b, a, b, ...
    rounds = measured(1.0, 1.0, 1.0, 1.9, CALM, CALM + 0.01, 1.0, 1.0, 1.0, enough=2)
    assert rounds["a"].all == ["a until 1.0", "a until 1.9", f"a until {CALM + 0.01}", "a until 1.0"]
    assert rounds["a"].calm == rounds["a"].counted == ["a until 1.0", "a until 1.0"]
    assert rounds["b"].calm == ["b until 1.0", "b until 1.0"]


def test_what_was_measured_before_the_least_was_known_is_judged_by_it():
    rounds = measured(2.0, 2.0, 2.0, 1.0, 1.0, enough=2)
    assert "a until 2.0" in rounds["a"].all
    assert "a until 2.0" not in rounds["a"].calm


def test_all_rounds_count_where_patience_ends_before_there_are_enough_calm_ones():
    rounds = measured(1.0, 1.9, 1.0, enough=1, patience=0.0)
    assert rounds["a"].calm == rounds["b"].calm == []
    assert rounds["a"].counted == rounds["a"].all == ["a until 1.9"]


def test_calm_rounds_of_one_target_do_not_count_beside_the_slowed_ones_of_another():
    rounds = measured(1.0, 1.0, 1.9, enough=1, patience=0.0)
    assert rounds["a"].calm == ["a until 1.0"]
    assert rounds["b"].calm == []
    assert rounds["a"].counted == rounds["a"].all


def test_a_figure_is_the_median_of_the_rounds_that_count():
    every = [Round(cpu, 1e4, 1e-3) for cpu in (40.0, 60.0, 90.0)]
    figures = _figures(Rounds(every, every[:1], every[:1]))
    assert (figures.cpu_us, figures.cpu_us_of_all, figures.cpu_us_least) == (40.0, 60.0, 40.0)
    assert (figures.calm, figures.rounds) == (1, 3)
