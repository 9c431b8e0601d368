"""Tables of plain text."""

from __future__ import annotations

import math

import pytest

from protos.messages import Estimate
from router.__main__ import main
from router.answers.tables import NOTHING, Ink, chance, e_value, interval, middle, moment, seconds, table

PLAIN = Ink(colours=False)


def test_texts_begin_at_their_left_and_numbers_end_at_their_right():
    lines = table(PLAIN, ["arm", "n", "state"], [["a", "7", "off"], ["longer", "1,234", ""]], texts=(0, 2))
    assert lines == ["arm         n  state", "a           7  off", "longer  1,234"]


def test_a_table_without_rows_is_its_headings():
    assert table(PLAIN, ["arm", "n"], []) == ["arm  n"]


def test_colours_stand_around_the_text_and_move_no_column():
    inked = table(Ink(colours=True), ["arm"], [["a"]])
    assert inked == ["\x1b[1marm\x1b[0m", "a"]
    assert PLAIN.alarm("wrong") == "wrong"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (e_value(0.0), "1"),
        (e_value(math.log(123.4)), "123"),
        (e_value(100.0), "10^43"),
        (e_value(math.inf), "infinite"),
        (chance(0.5), "50.0%"),
        (chance(1.0), ">99.9%"),
        (chance(0.0), "<0.1%"),
        (seconds(0.00123), "1.23 ms"),
        (seconds(2.0), "2 s"),
        (moment(0.0), "1970-01-01 00:00:00"),
        (interval(Estimate(value=1.0)), NOTHING),
        (interval(Estimate(value=1.0, low=-0.5, high=2.0), signed=True), "-0.5 to +2"),
        (middle(Estimate()), NOTHING),
        (middle(Estimate(value=0.25), signed=True), "+0.25"),
    ],
)
def test_numbers_are_shown_as_people_read_them(told: str, expected: str):
    assert told == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["explain"],
        ["evaluate", "r"],
        ["events"],
        ["report", "r", "--alpha", "much"],
        ["report", "r", "--config", "c.yaml"],
        ["explain", "d", "--server", "h:1", "--config", "c.yaml"],
    ],
)
def test_a_wrong_question_shows_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: croupier" in capsys.readouterr().err


def test_a_policy_file_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "r", "--policy", "/nowhere/policy.yaml", "--server", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("croupier: [Errno 2] No such file or directory")
