from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from runtime.finance.data import check, load
from tests.runtime.finance.markets import made_up


def test_both_series_cover_the_same_twenty_years(market):
    for series in (market.sp500, market.nasdaq):
        assert len(series) == 5031
        assert str(series.day[0]) == "1999-01-04"
        assert str(series.day[-1]) == "2018-12-31"


def test_known_prices_come_out_in_the_right_columns(market):
    assert market.sp500.close[0] == pytest.approx(1228.10, abs=0.01)
    assert market.sp500.high[0] == pytest.approx(1248.81, abs=0.01)
    assert market.nasdaq.low[0] == pytest.approx(2192.68, abs=60)
    assert market.nasdaq.close[-1] == pytest.approx(6635.28, abs=0.01)


def test_a_day_without_a_volume_keeps_the_last_one(market):
    missing = np.flatnonzero(market.nasdaq.day == np.datetime64("2015-05-12"))[0]
    assert market.nasdaq.volume[missing] == market.nasdaq.volume[missing - 1] > 0


def test_each_index_is_paired_with_the_other(market):
    assert [(own.name, other.name) for own, other in market.pairs] == [("sp500", "nasdaq"), ("nasdaq", "sp500")]


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("high", np.nan, "finite and above 0"),
        ("low", -1.0, "finite and above 0"),
        ("volume", 0.0, "finite and above 0"),
        ("high", 1e-3, "the high must be above the low"),
        ("close", 1e9, "the close must lie between low and high"),
        ("day", np.datetime64("1990-01-01"), "later than the one before"),
    ],
)
def test_an_impossible_day_is_refused_by_name_and_date(column, value, sentence):
    series = made_up(30).sp500
    broken = getattr(series, column).copy()
    broken[7] = value
    with pytest.raises(ValueError, match=sentence) as error:
        check(replace(series, **{column: broken}))
    assert "sp500" in str(error.value)
    assert str(broken[7] if column == "day" else series.day[7]) in str(error.value)


def test_without_arch_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch.data.sp500", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'croupier\[demo\]'"):
        load()
