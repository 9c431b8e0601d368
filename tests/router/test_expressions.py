from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.expressions import DEEPEST, LONGEST, ExpressionError, Kind, Variable, expression

VARIABLES = {
    "a": Variable(0, Kind.NUMBER),
    "b": Variable(1, Kind.NUMBER),
    "c": Variable(2, Kind.NUMBER),
    "region": Variable(3, Kind.TEXT, ("eu", "us", "asia")),
    "unit": Variable(4, Kind.TEXT),
    "metadata": Variable(5, Kind.TEXTS),
}


def holds(
    text: str, a: float = 0.0, b: float = 0.0, region: str | None = "eu", unit: str = "", **metadata: str
) -> bool:
    return expression(text, VARIABLES).holds((a, b, 0.0, region, unit, metadata))


# -- the language is Python's, where it has it

NUMBERS = st.sampled_from(["a", "b", "c", "0.5", "2", "-3", "1e3"])


def arithmetic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/"]), inner)
        | st.builds("-{}".format, inner)
        | st.builds("abs({})".format, inner)
        | st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner)
    )


def conditions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("{} and {}".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("{} or {} and {}".format, inner, inner, inner)
        | st.builds("not {}".format, inner)
    )


NUMERIC = st.recursive(NUMBERS, arithmetic, max_leaves=4)
COMPARISON = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
COMPARED = (
    st.builds("{} {} {}".format, NUMERIC, COMPARISON, NUMERIC)
    | st.builds("{} {} {} {} {}".format, NUMERIC, COMPARISON, NUMERIC, COMPARISON, NUMERIC)
    | st.builds("{} {} [{}, {}]".format, NUMERIC, st.sampled_from(["in", "not in"]), st.just("-3"), st.just("0.5"))
    | st.builds("region {} {}".format, st.sampled_from(["==", "!="]), st.sampled_from(["'eu'", '"asia"', "unit"]))
    | st.builds("region {} ['us', 'asia']".format, st.sampled_from(["in", "not in"]))
    | st.builds("{} {} unit".format, st.sampled_from(["'eu'", "'x'", "''"]), st.sampled_from(["==", "!="]))
    | st.sampled_from(["True", "False"])
)
VALUES = st.sampled_from([0.0, -0.0, 0.5, 2.0, -3.0, 1e3, float("inf"), float("-inf"), float("nan"), 1e308])


@settings(max_examples=200, deadline=None)
@given(
    text=st.recursive(COMPARED, conditions, max_leaves=4),
    numbers=st.tuples(VALUES, VALUES, VALUES),
    region=st.sampled_from(["eu", "us", "asia", None]),
    unit=st.sampled_from(["", "eu", "x"]),
)
def test_a_condition_holds_where_python_says_so(text: str, numbers: Sequence[float], region: str | None, unit: str):
    try:
        told = expression(text, VARIABLES)
    except ExpressionError as error:
        assert "divides by 0" in str(error)  # noqa: PT017  # nothing else can be wrong with it
        return
    # NumPy's numbers divide by 0 as IEEE 754 has it, where Python's raise.
    names: dict[str, Any] = dict(zip("abc", map(np.float64, numbers), strict=True))
    names |= {"region": region, "unit": unit, "abs": abs, "min": min, "max": max}
    with np.errstate(all="ignore"):
        expected = bool(eval(text, {"__builtins__": {}}, names))
    assert told.holds((*numbers, region, unit, {})) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > 0.30", True),
        ("0.3 < a <= 0.5 and not region == 'us'", True),
        ("true", True),
        ("false or a > 1", False),
        ('metadata["desk"] == "fx"', True),
        ('metadata["DESK"] in ["rates", "fx"]', True),
        ('metadata["other"] == ""', True),
        ("a / b > 1e300", True),
        ("-a / b > 0", False),
        ("b / b == b / b", False),
        ("a\n  > 0.3\n", True),
    ],
)
def test_what_a_rule_may_say(text: str, expected: bool):
    assert holds(text, a=0.4, desk="fx") is expected


def test_a_text_that_is_no_level_equals_none():
    assert not holds("region == 'eu' or region in ['us', 'asia']", region=None)
    assert holds("region != 'eu' and region not in ['us', 'asia']", region=None)


def test_an_expression_knows_what_it_reads():
    assert expression("min(a, 1) > 0 and metadata['x'] != 'y'", VARIABLES).reads == {"a", "metadata"}


# -- what is wrong is said, and where

WRONG = {
    "nothing": ("", "column 1: this cannot be read"),
    "a name that is not there": ("a > 1 and volatilty > 1", "column 11: there is no 'volatilty'; there are a, b, c"),
    "a name after letters of two bytes": ("unit == 'é' and x > 1", "column 17: there is no 'x'"),
    "a number where a condition belongs": ("a + 1", "column 1: a rule needs a condition, and this is a number"),
    "a text where a condition belongs": ("unit", "column 1: a rule needs a condition, and this is a text"),
    "a mapping where a condition belongs": ("metadata", "a rule needs a condition, and this is a mapping of texts"),
    "a number among conditions": ("a > 1 and b", "column 11: and takes conditions, and this is a number"),
    "not a number": ("not a", "column 5: not takes conditions, and this is a number"),
    "a text in arithmetic": ("a + unit > 1", "column 5: arithmetic takes numbers, and this is a text"),
    "a text that is negated": ("-unit == 1", "column 2: - takes numbers, and this is a text"),
    "a text in a function": ("max(a, 'x') > 1", "column 8: max takes numbers, and this is a text"),
    "a number against a text": ("a > 'x'", "column 5: this is a text, and it is compared with a number"),
    "texts in order": ("unit < 'x'", "column 1: texts are compared with == != in, and not in"),
    "a condition that is compared": ("(a > 1) == true", "column 2: this is true or false; only numbers and texts"),
    "a level that is not declared": ("region == 'uk'", "column 11: region is never 'uk'; its levels are asia, eu, us"),
    "a level the other way round": ("'uk' != region", "column 1: region is never 'uk'"),
    "a level in a list": ("region in ['eu', 'uk']", "column 18: region is never 'uk'"),
    "a list of another kind": ("a in [1, 'x']", "column 10: this is a text, and it is compared with a number"),
    "a list with a name": ("a in [b]", "column 7: a list holds numbers or texts, and no names"),
    "a list without anything": ("a in []", 'column 6: in takes a list, such as ["a", "b"]'),
    "something in a text": ("'e' in unit", "column 8: in takes a list"),
    "metadata by number": ("metadata[1] == 'x'", "column 1: brackets stand behind metadata, around a text"),
    "metadata by name": ("metadata[unit] == 'x'", "brackets stand behind metadata, around a text"),
    "brackets behind a text": ("unit['x'] == 'x'", "brackets stand behind metadata, around a text"),
    "a division by nothing": ("a / (1 - 1) > 2", "column 6: this divides by 0"),
    "another function": ("round(a) > 1", "column 1: of functions there are abs, min, max only"),
    "a function of a function": ("abs(a)(b) > 1", "of functions there are"),
    "a method": ("unit.lower() == 'x'", "of functions there are"),
    "too few arguments": ("min(a) > 1", "column 1: min takes 2 to 10 numbers"),
    "too many arguments": ("abs(a, b) > 1", "column 1: abs takes one number"),
    "arguments by name": ("max(a, b, key=1) > 1", "max takes 2 to 10 numbers"),
    "arguments from a list": ("max(*[a, b]) > 1", "max takes 2 to 10 numbers"),
    "a power": ("a ** 9999 > 1", "column 1: of arithmetic there is + - * / only"),
    "another sign": ("~a > 1", "column 1: this sign is not part of the language"),
    "identity": ("a is 1", "of comparisons there are < <= > >= == != in, and not in"),
    "an attribute": ("unit.__class__ == 'x'", "column 1: this is not part of the language of rules"),
    "a lambda": ("(lambda: a)() > 1", "of functions there are"),
    "a comprehension": ("[x for x in [1]] == 1", "column 1: this is not part of the language of rules"),
    "a conditional": ("a > 1 if b > 1 else b > 2", "this is not part of the language of rules"),
    "a walrus": ("(z := 1) > 0", "column 2: this is not part of the language of rules"),
    "an f-string": ("unit == f'{a}'", "column 9: this is not part of the language of rules"),
    "nothing at all": ("unit == None", "column 9: this is neither a number nor a text"),
    "bytes": ("unit == b'x'", "column 9: this is neither a number nor a text"),
    "a complex number": ("a > 1j", "column 5: this is neither a number nor a text"),
    "too large a number": ("a > 1e999", "column 5: this number is too large"),
    "too many digits": (f"a > {'9' * 400}", "column 5: this number is too large"),
    "an assignment": ("a = 1", "column 3: this cannot be read: invalid syntax"),
    "two statements": ("a > 1; b > 1", "column 6: this cannot be read"),
    "an open bracket": ("(a > 1", "column 1: this cannot be read: '(' was never closed"),
    "a number that runs into a word": ("a > 1and b > 1", "this cannot be read"),
    "a backslash": (r"unit == '\x41'", "column 10: a backslash means nothing here"),
    "a NUL": ("a > 1\0", "this cannot be read"),
    "too long a text": ("a > 1" + " or a > 1" * 200, f"column {LONGEST}: at most {LONGEST} characters are taken"),
    "too deep a text": ("-" * DEEPEST + "a > 1", f"more than {DEEPEST} levels are inside one another"),
    "brackets without end": ("(" * 900 + "a", "this cannot be read"),
    "signs without end": ("-" * 990 + "a > 1", "this cannot be read|levels are inside one another"),
    "negations without end": ("not " * 240 + "true", "this cannot be read|levels are inside one another"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_condition_is_refused_with_its_column(text: str, sentence: str):
    with pytest.raises(ExpressionError) as error:
        expression(text, VARIABLES)
    assert any(right in str(error.value) for right in sentence.split("|"))  # which of the two depends on Python


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.text("ab1 ().,[]'\"<=>andortin_*/:{}%@\n\\", max_size=40))
def test_no_text_does_anything_but_be_refused_or_hold_or_not(text: str):
    try:
        told = expression(text, VARIABLES)
    except ExpressionError as error:
        assert 1 <= error.column <= max(len(text), 1) + 1  # noqa: PT017
    else:
        assert told.holds((1.0, 2.0, 3.0, "eu", "x", {})) in {True, False}
