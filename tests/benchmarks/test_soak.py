"""The soak sees what it looks for: a server that answers, and one that grows."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import soak
from benchmarks.soak import Sample, chart, growth, models, requests


def samples(*memory):
    return [Sample(float(number), number, each, 10, 4) for number, each in enumerate(memory)]


def held(each):
    return each.memory


def test_growth_is_what_is_held_late_beyond_what_was_held_early():
    assert growth(samples(1, 50, 90, 100, 101, 99, 100, 101, 100, 101), held) == 0
    assert growth(samples(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), held) == 4
    assert growth(samples(9, 9, 9, 9, 9, 9, 8, 8, 8, 8), held) == -1


def test_the_chart_has_a_line_for_each_sample():
    assert len(chart(samples(1, 2, 3)).splitlines()) == 4


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: nghttp2-client has it")
def test_a_server_under_load_is_sampled_and_does_not_grow():
    seen = requests(8_000)
    assert [each.done for each in seen] == [400 * number for number in range(soak.SAMPLES + 1)]
    assert growth(seen, held) <= soak.GROWTH
    assert growth(seen, lambda each: each.files) <= 0


def test_models_that_come_and_go_are_answered_and_leave_nothing():
    seen = models(30, 3.0)
    assert seen[-1].done > 30
    assert growth(seen, held) <= soak.MODELS_GROWTH
    assert growth(seen, lambda each: each.threads) <= 8
