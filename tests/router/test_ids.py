from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ids import DecisionIds, time_of
from tests.router.fakes import NOW, FakeClock


def test_an_id_is_its_time_its_process_and_its_number():
    ids = DecisionIds(FakeClock(1.5), bytes.fromhex("0a0b0c0d0e0f"))
    assert ids() == ("0000000005dc" + "0a0b0c0d0e0f" + "00000001", 1.5)
    assert ids()[0].endswith("00000002")


def test_ids_sort_by_time_and_then_by_number():
    clock = FakeClock()
    ids = DecisionIds(clock, bytes(6))
    given = []
    for _ in range(300):
        given.append(ids()[0])
        clock.advance(0.0007)
    assert given == sorted(given)


def test_two_processes_never_give_the_same_id():
    clock = FakeClock()
    one, other = DecisionIds(clock, b"abcdef"), DecisionIds(clock, b"abcdeg")
    assert len({ids()[0] for _ in range(100) for ids in (one, other)}) == 200


def test_numbers_start_again_after_the_last():
    ids = DecisionIds(FakeClock(), bytes(6))
    ids._count = (1 << 32) - 1
    assert ids()[0].endswith("00000000")
    assert len(ids()[0]) == 32


@given(st.floats(0, 1e11))
def test_the_time_is_read_back_to_the_millisecond(now):
    decision, given_at = DecisionIds(FakeClock(now), b"\xff" * 6)()
    read = time_of(decision)
    assert given_at == now
    assert read is not None
    assert abs(read - now) <= 0.001 + 1e-15 * now


@given(st.text(max_size=40) | st.text("0123456789abcdefx_+- ", min_size=32, max_size=32))
def test_whatever_a_client_sends_has_a_time_or_none(text):
    time = time_of(text)
    assert time is None or isinstance(time, float | int)


@pytest.mark.parametrize("text", ["", "abc", "x" * 32, "0" * 31, "0" * 33, f"{int(NOW * 1000):012x}" + "g" * 20])
def test_what_is_no_id_of_ours_has_no_time(text):
    assert time_of(text) is None


@pytest.mark.parametrize("entropy", [b"", b"12345", b"1234567"])
def test_entropy_of_another_length_is_refused(entropy):
    with pytest.raises(ValueError, match="expected 6 bytes"):
        DecisionIds(FakeClock(), entropy)
