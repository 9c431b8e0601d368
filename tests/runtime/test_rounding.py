from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protos.tensors import DATATYPES, FLOATS
from runtime.rounding import alike

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("datatype", sorted(FLOATS))
def test_floats_may_be_off_by_a_part_of_the_largest(datatype: str) -> None:
    expected = np.array([1000, 1], DATATYPES[datatype])
    assert alike(expected, np.array([1008.0, -7.0]), 0.01)
    assert not alike(expected, np.array([1016.0, 1.0]), 0.01)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ([NAN, 1.0], [NAN, 1.001], True),
        ([NAN, 1.0], [NAN, 2.0], False),
        ([NAN, 1.0], [1.0, NAN], False),
        ([INF, 1.0], [INF, 1.001], True),
        ([INF, 1.0], [INF, 2.0], False),
        ([INF, 1.0], [-INF, 1.0], False),
        ([0.0], [1e-10], True),
        ([], [], True),
    ],
)
def test_what_is_not_finite_makes_room_for_nothing(expected: list[float], found: list[float], *, same: bool) -> None:
    assert alike(np.array(expected), np.array(found), 0.01) is same


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (np.array([100]), np.array([101]), False),
        (np.array([True]), np.array([True]), True),
        (np.array([b"a"], np.object_), np.array([b"b"], np.object_), False),
        (np.zeros((2, 1)), np.zeros((1, 2)), False),
    ],
)
def test_what_is_no_float_is_the_same_or_not(expected: NDArray[Any], found: NDArray[Any], *, same: bool) -> None:
    assert alike(expected, found, 0.5) is same
