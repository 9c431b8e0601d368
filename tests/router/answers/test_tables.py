"""Tables of plain text."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from typing import Any

import pytest

from protos.messages import Estimate, LogPart
from router.__main__ import main
from router.answers.asking import add_server, again
from router.answers.tables import (
    NOTHING,
    Ink,
    chance,
    e_value,
    how_many,
    interval,
    log_part,
    middle,
    moment,
    next_steps,
    number,
    seconds,
    table,
)
from router.answers.terms import terms
from router.config import Arm, EpsilonGreedyPolicy, SplitPolicy, ThompsonPolicy
from router.config import Route as Settings
from router.config.learning import Budget

PLAIN = Ink(colours=False)
OTHERS = "taken when the route had other arms"


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
        (number(0.123456), "0.1235"),
        (number(999.94), "999.9"),
        (number(1000.0), "1,000"),
        (number(2482000.4), "2,482,000"),
        (number(-2482000.4, signed=True), "-2,482,000"),
        (number(2.5e9), "2.5e+09"),
        (number(0.0, signed=True), "+0"),
        (how_many(0, "decision"), "no decisions"),
        (how_many(1, "decision"), "1 decision"),
        (how_many(1234, "decision"), "1,234 decisions"),
        (interval(Estimate(value=0.0, low=-1234.0, high=1e6), signed=True), "-1,234 to +1,000,000"),
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


def test_commands_that_do_not_fit_on_a_line_stand_one_on_each():
    assert next_steps("report r") == ["next: croupier report r"]
    assert next_steps("report r", "explain D", where=" --server " + "h" * 50) == [
        "next:",
        "  croupier report r --server " + "h" * 50,
        "  croupier explain D --server " + "h" * 50,
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"decisions": 1, "whole": True}, "Of the log were read 1 decision, all that there are, WHEN."),
        ({"decisions": 900, "whole": False}, "Of the log were read 900 decisions, the newest, WHEN."),
        (
            {"decisions": 900, "whole": True, "gone": 1400},
            "Of the log were read 900 decisions, all that are kept, WHEN; 1,400 kept no more.",
        ),
        (
            {"decisions": 1, "whole": True, "other_arms": 75},
            f"Of the log were read 1 decision, all that are kept, WHEN; 75 left out, {OTHERS}.",
        ),
        ({"whole": True, "gone": 20}, "The log holds no decision that could be read; 20 kept no more."),
    ],
)
def test_the_part_of_a_log_is_told_with_what_is_not_in_it(part: dict[str, Any], expected: str):
    when = "1970-01-01 00:00:00 to 1970-01-01 00:00:02 UTC"
    assert log_part(LogPart(first=0.0, last=2.0, **part)) == expected.replace("WHEN", when)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "split"),
        ({"policy": SplitPolicy(weights={"a": 0.25, "b": 0.75})}, "split (weights a 0.25, b 0.75)"),
        ({"policy": ThompsonPolicy(), "floor": 0.02, "apprentice": True}, "thompson, floor 0.02, apprentice"),
        (
            {"policy": EpsilonGreedyPolicy(epsilon=0.3), "budget": Budget(share=0.1), "half_life_seconds": 3600.0},
            "epsilon_greedy (epsilon 0.3), budget 0.1, half-life 3600 s",
        ),
    ],
)
def test_a_policy_is_told_as_a_file_has_it(settings: dict[str, Any], expected: str):
    assert terms(Settings(arms={arm: Arm(model=arm) for arm in "ab"}, **settings)) == expected


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


def test_what_is_to_be_asked_next_is_asked_of_the_same_server_in_the_same_way():
    parser = ArgumentParser()
    add_server(parser, parser)
    assert again(parser.parse_args([])) == ""
    told = ["--server", "h:1", "--ca", "my ca.pem", "--server-name", "desk", "--certificate", "c.pem", "--key", "k.pem"]
    assert again(parser.parse_args(told)) == (
        " --server h:1 --ca 'my ca.pem' --server-name desk --certificate c.pem --key k.pem"
    )
