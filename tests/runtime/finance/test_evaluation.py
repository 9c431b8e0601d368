from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.finance.evaluation import correct, decisions, paired, score, standard_error, wilson

RNG = np.random.default_rng(0)
DAY = np.datetime64("2020-01-01") + np.arange(4000)


def test_wilson_gives_the_published_interval_of_eight_in_ten():
    """Worked example: 0.80 of 10 lies in 0.490 to 0.943."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(right=st.integers(0, 50), wrong=st.integers(0, 50))
def test_wilson_brackets_the_share_and_stays_between_0_and_1(right, wrong):
    n = max(1, right + wrong)
    low, high = wilson(min(right, n) / n, n)
    assert 0 <= low <= min(right, n) / n + 1e-12
    assert min(right, n) / n - 1e-12 <= high <= 1


def test_independent_days_have_the_textbook_standard_error():
    values = RNG.standard_normal(4000)
    assert standard_error(values, DAY) == pytest.approx(1 / np.sqrt(4000), rel=0.25)


def test_a_day_seen_twice_counts_once():
    values = RNG.standard_normal(4000)
    assert standard_error(np.repeat(values, 2), np.repeat(DAY, 2)) == pytest.approx(standard_error(values, DAY))


def test_days_that_resemble_their_neighbours_are_less_certain():
    smooth = np.convolve(RNG.standard_normal(4004), np.ones(5), mode="valid")
    assert standard_error(smooth, DAY) > 1.7 * smooth.std() / np.sqrt(4000)


def test_the_order_of_rows_does_not_matter():
    values, order = RNG.standard_normal(4000), RNG.permutation(4000)
    assert standard_error(values[order], DAY[order]) == pytest.approx(standard_error(values, DAY))


def test_a_score_adds_up():
    label = np.array([True, True, True, False])
    probability = np.array([0.9, 0.8, 0.4, 0.3], np.float32)
    result = score(label, probability, DAY[:4])
    assert result.rows == 4
    assert result.accuracy == 0.75
    assert result.base_rate == 0.75
    assert result.low < 0.75 < result.high
    assert result.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.09) / 4, rel=1e-5)
    assert result.log_loss == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean(), rel=1e-5)


def test_the_base_rate_is_the_better_constant():
    label = np.array([False, False, False, True])
    assert score(label, np.ones(4, np.float32), DAY[:4]).base_rate == 0.75


def test_a_perfect_certain_model_has_a_finite_loss_and_an_honest_interval():
    label = np.arange(20) % 2 == 0
    result = score(label, label.astype(np.float32), DAY[:20])
    assert result.accuracy == result.high == 1.0
    assert result.low < 0.9
    assert result.log_loss < 1e-5


def test_rows_that_share_their_days_widen_the_interval():
    right = RNG.random(500) < 0.7
    label, probability = np.ones(1000, np.bool_), np.repeat(right, 2).astype(np.float32)
    together = score(label, probability, np.repeat(DAY[:500], 2))
    apart = score(label, probability[RNG.permutation(1000)], DAY[:1000])
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        score(np.zeros(0, np.bool_), np.zeros(0, np.float32), DAY[:0])


def test_an_even_chance_is_not_a_high_range():
    assert decisions(np.array([0.4, 0.5, 0.6], np.float32)).tolist() == [False, False, True]


def test_correct_marks_the_right_decisions():
    label = np.array([True, True, False, False])
    assert correct(label, np.array([0.9, 0.1, 0.9, 0.1], np.float32)).tolist() == [1, 0, 0, 1]


def test_pairing_finds_a_small_steady_gain_that_shared_noise_would_hide():
    noise = RNG.standard_normal(4000)
    better = paired(noise + 0.05 + 0.1 * RNG.standard_normal(4000), noise, DAY)
    assert better.mean == pytest.approx(0.05, abs=0.01)
    assert better.p < 1e-6
    assert paired(noise, RNG.permutation(noise), DAY).p > 0.05


def test_a_model_paired_with_itself_does_not_differ():
    values = RNG.random(100)
    assert paired(values, values, DAY[:100]).p == 1.0
    assert paired(values + 1, values, DAY[:100]).p < 1e-9
