"""The data sets are what they say, and become bandits without a look at what cannot be known."""

from __future__ import annotations

import io
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import datasets
from benchmarks.datasets import DATASETS, encoded, load, one_hot, standardised

GERMAN = """\
duration_in_month,purpose,telephone,creditability
6,radio/television,"yes, registered",good
48,education,none,bad
12,education,none,good
"""
CARDS = "EDUCATION,LIMIT_BAL,default\n1,100.0,0\n2,200.0,1\n1,300.0,0\n3,400.0,1\n2,500.0,0\n"


@pytest.mark.parametrize(
    ("name", "rows", "features", "counts"),
    [
        ("iris", 150, 4, [50, 50, 50]),
        ("wine", 178, 13, [59, 71, 48]),
        ("breast_cancer", 569, 30, [212, 357]),
        ("digits", 1797, 64, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    ],
)
def test_the_sets_of_scikit_learn_are_whole(name, rows, features, counts):
    data = load(name)
    assert (data.name, data.rows, data.features, data.arms) == (name, rows, features, len(counts))
    assert data.contexts.shape == (rows, features)
    assert data.contexts.dtype == np.float64
    assert data.contexts.flags.c_contiguous
    assert data.rewards.sum(axis=0).tolist() == counts
    assert (data.rewards.sum(axis=1) == 1).all(), "one arm is right in every row"
    assert data.contexts.mean(axis=0) == pytest.approx(np.zeros(features), abs=1e-9)
    deviation = data.contexts.std(axis=0)
    assert (np.isclose(deviation, 1) | (deviation == 0)).all()


def test_a_row_keeps_its_label():
    data = load("iris")
    setosa = data.rewards[:, 0]
    assert data.contexts[setosa, 2].max() < data.contexts[~setosa, 2].min(), "by the length of the petal, known to all"


def test_a_set_is_read_once():
    assert load("wine") is load("wine")


def test_at_least_eight_sets_are_compared_on():
    assert len(DATASETS) >= 8


def test_a_column_that_never_changes_becomes_zero():
    scaled = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))
    assert scaled.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_labels_become_columns_in_sorted_order():
    assert one_hot(["b", "a", "b"]).tolist() == [[False, True], [True, False], [False, True]]


def test_text_becomes_one_column_for_each_value_and_numbers_stay():
    table = [{"age": "30", "job": "clerk", "rank": 2}, {"age": "40", "job": "nurse", "rank": 1}]
    assert encoded(table).tolist() == [[30, 1, 0, 2], [40, 0, 1, 1]]
    assert encoded(table, categories=["rank"]).tolist() == [[30, 1, 0, 0, 1], [40, 0, 1, 1, 0]]


def test_german_credit_has_good_and_bad_for_arms(monkeypatch):
    monkeypatch.setattr(datasets, "read", lambda *_: GERMAN.encode())
    data = datasets.german_credit()
    assert data.rewards.tolist() == [[False, True], [True, False], [False, True]], "bad, good"
    assert data.features == 1 + 2 + 2, "the target is no feature"


def test_the_credit_cards_are_every_third_row_with_codes_as_categories(monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("UCI_Credit_Card.csv", CARDS)
    monkeypatch.setattr(datasets, "read", lambda *_: archive.getvalue())
    monkeypatch.setattr(datasets, "encoded", lambda table, categories: encoded(table, categories=categories[:1]))
    data = datasets.credit_card(every=2)
    assert data.rows == 3
    assert data.features == 2 + 1, "EDUCATION is 1 or 2 in the rows that are taken"
    assert data.rewards.shape == (3, 1), "nobody defaults there"


def stand_in(monkeypatch, rows):
    """A river that has one data set, named Some."""
    monkeypatch.setitem(sys.modules, "river", SimpleNamespace(datasets=SimpleNamespace(Some=lambda: iter(rows))))


def test_of_several_true_labels_each_is_right(monkeypatch):
    stand_in(monkeypatch, [({"x": 0.5 * i}, {"a": i % 2, "b": 1}) for i in range(4)])
    data = datasets.river("Some")
    assert data.rewards.tolist() == [[False, True], [True, True]] * 2
    assert data.name == "some"


def test_a_sample_is_stated_in_the_source(monkeypatch):
    stand_in(monkeypatch, [({"x": float(i), "y": 1.0}, i % 3 == 0) for i in range(12)])
    data = datasets.river("Some", every=2)
    assert data.contexts[:, 0] == pytest.approx(standardised(np.arange(0.0, 12, 2)[:, None])[:, 0])
    assert data.rewards[:, 1].tolist() == [True, False, False, True, False, False]
    assert data.source == "river, river.datasets.Some, one row in 2"
