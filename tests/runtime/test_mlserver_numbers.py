"""Numbers in lists become arrays of their datatype as they are, or are refused with what the datatype can hold."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.tensors import DATATYPES
from runtime.formats.mlserver_numbers import numbers_of

FLOATS = ["FP16", "FP32", "FP64"]
INTEGERS = [name for name, dtype in DATATYPES.items() if dtype.kind in "iu"]
NUMERIC = ["BOOL", *INTEGERS, *FLOATS]  # MLServer has no BF16

LIMITS = {
    "BOOL": "true and false",
    "INT8": "the integers from -128 to 127",
    "UINT64": "the integers from 0 to 18446744073709551615",
    "FP16": "the numbers from -65504.0 to 65504.0",
    "FP32": "the numbers from -3.4028234663852886e+38 to 3.4028234663852886e+38",
}


def limits(datatype: str) -> tuple[float, float]:
    if datatype == "BOOL":
        return 0, 1
    dtype = DATATYPES[datatype]
    told = np.finfo(dtype) if datatype in FLOATS else np.iinfo(dtype)
    convert = float if datatype in FLOATS else int
    return convert(told.min), convert(told.max)


def fits(value: Any, datatype: str) -> bool:
    """Whether a datatype holds a value: exactly, or rounded where it has floats."""
    if isinstance(value, str | bytes):
        return False
    least, most = limits(datatype)
    if datatype not in FLOATS:
        return value is not None and least <= value <= most and value == int(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return True
    before = float(np.nextafter(DATATYPES[datatype].type(most), DATATYPES[datatype].type(0)))
    return abs(Fraction(value)) < Fraction(most) + (Fraction(most) - Fraction(before)) / 2


def edges(datatype: str) -> st.SearchStrategy[Any]:
    least, most = limits(datatype)
    return st.sampled_from([each + change for each in (int(least), int(most)) for change in (-1, 0, 1)])


def anything(datatype: str) -> st.SearchStrategy[Any]:
    values = [edges(datatype), st.booleans(), st.integers(), st.integers(-5, 5).map(float), st.floats(), st.none()]
    return st.one_of(*values, st.sampled_from(["1", "1.5", "", b"1", "nan", "true"]))


def fitting(datatype: str) -> st.SearchStrategy[Any]:
    few = st.sampled_from([True, False, 0, 1, 1.0])
    if datatype == "BOOL":
        return few
    if datatype in FLOATS:
        return few | st.none() | st.floats(width=16)
    return few | st.integers(*map(int, limits(datatype)))


@pytest.mark.parametrize("datatype", NUMERIC)
@settings(max_examples=60)
@given(data=st.data())
def test_what_fits_comes_as_it_is_and_all_else_is_refused(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(anything(datatype) | fitting(datatype), max_size=4))
    if not all(fits(each, datatype) for each in values):
        with pytest.raises(ValueError, match=f"its data are not the values of one {datatype} tensor, which are "):
            numbers_of(values, datatype)
        return
    numbers = numbers_of(values, datatype)
    assert numbers.dtype == DATATYPES[datatype]
    if datatype in FLOATS:
        wide = np.array([math.nan if each is None else float(each) for each in values])
        np.testing.assert_array_equal(numbers, wide.astype(DATATYPES[datatype]))
    else:
        assert numbers.tolist() == values


@pytest.mark.parametrize("datatype", NUMERIC)
@settings(max_examples=30)
@given(data=st.data())
def test_what_is_nested_or_an_array_is_read_as_the_list_is(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(fitting(datatype), min_size=1, max_size=4))
    expected = numbers_of(values, datatype)
    for same in ([values], [[each] for each in values], [np.array(values, np.object_)], expected):
        np.testing.assert_array_equal(numbers_of(same, datatype), expected)


@pytest.mark.parametrize("datatype", NUMERIC)
@pytest.mark.parametrize("value", [True, 1, 1.0, None])
def test_a_request_has_the_types_that_json_has_for_them(datatype: str, value: Any) -> None:
    right = {"BOOL": [bool]}.get(datatype, [int, float, type(None)] if datatype in FLOATS else [int])
    for data in ([value], [[value]]):
        if type(value) in right:
            assert len(numbers_of(data, datatype, strict=True)) == 1
        else:
            with pytest.raises(ValueError, match=f"one {datatype} tensor"):
                numbers_of(data, datatype, strict=True)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("datatype", NUMERIC)
@pytest.mark.parametrize(
    "data", [["1.5"], [["1"]], [b"1"], b"\1\1", "1", [[1], [1, 2]], [1, [2]], [[1], 2], [{}], {}, [1j]]
)
def test_text_and_ragged_lists_are_refused(datatype: str, data: Any, strict: bool) -> None:
    with pytest.raises(ValueError, match=f"its data are not the values of one {datatype} tensor, which are "):
        numbers_of(data, datatype, strict=strict)


@pytest.mark.parametrize(("datatype", "says"), LIMITS.items())
def test_a_refusal_names_what_the_datatype_holds(datatype: str, says: str) -> None:
    whole = f"its data are not the values of one {datatype} tensor, which are {says}"
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        numbers_of([10**400], datatype)


@pytest.mark.parametrize(
    ("array", "datatype", "expected"),
    [
        (np.array([2.0**63]), "INT64", None),  # which some processors make 2**63 - 1
        (np.array([2**64 - 1], "u8"), "INT64", None),
        (np.array([-1]), "UINT64", None),
        (np.array([2.0, 3.0]), "INT64", [2, 3]),
        (np.array([[1.0, math.nan]]), "FP32", [1, math.nan]),
        (np.array([1e300]), "FP32", None),
        (np.array([math.inf]), "FP16", [math.inf]),
        (np.array([[2], [0]], np.int8), "BOOL", None),
        (np.array([[1], [0]], np.int8), "BOOL", [True, False]),
        (np.array(["1"]), "FP64", None),
        (np.array([1j]), "FP64", None),
    ],
)
def test_arrays_are_held_to_the_same(array: Any, datatype: str, expected: list[Any] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=f"one {datatype} tensor"):
            numbers_of(array, datatype)
    else:
        np.testing.assert_array_equal(numbers_of(array, datatype), np.array(expected, DATATYPES[datatype]))
