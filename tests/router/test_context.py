from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from bandits import LinUCB
from protos.errors import InvalidArgument
from protos.messages import ModelInferRequest, ModelMetadataResponse
from protos.tensors import DATATYPES, add_inputs
from router.call import Call
from router.config.context import Feature, FeatureTable, check_lookups, schema_of
from router.config.policies import LinUCBPolicy
from router.context.encoder import Context, Encoder
from router.context.lookups import Table, bodies_of, kind_of, refreshed
from router.stores.memory import MemoryStore

NAN, INF = math.nan, math.inf


def call(
    arrays: dict[str, NDArray[Any]] | None = None, *, raw: bool = True, unit: str = "", **parameters: object
) -> Call:
    """As a client sends it: through bytes."""
    request = ModelInferRequest(model_name="r")
    add_inputs(request, arrays or {}, raw=raw)
    for name, value in parameters.items():
        choice = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], choice, value)
    body = request.SerializeToString()
    return Call("r", ModelInferRequest.FromString(body), body, unit, metadata={"x-desk": "fx", "x-limit": " 2.5 "})


def read(feature: Feature, asked: Call, **tables: Table) -> Any:
    (value,) = Encoder({"f": feature})(asked, tables).values
    return value


def refused(feature: Feature, asked: Call, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence) as error:
        read(feature, asked)
    assert error.value.message.startswith("context: f (")


X = Feature(tensor="x", column=1)


# -- tensors

NUMERIC = [name for name in DATATYPES if name not in {"BYTES", "FP16", "BF16"}]


@st.composite
def tensors(draw: st.DrawFn) -> NDArray[Any]:
    dtype = DATATYPES[draw(st.sampled_from(NUMERIC))]
    shape = (draw(st.integers(1, 4)), *draw(st.sampled_from([(), (1,), (2,), (3, 1)])), draw(st.integers(1, 6)))
    if dtype.kind == "f":
        elements = st.floats(width=32 if dtype.itemsize == 4 else 64) | st.sampled_from([NAN, INF, -INF, 0.0, 1.0])
    elif dtype.kind == "b":
        elements = st.booleans()
    else:
        elements = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    count = math.prod(shape)
    return np.array(draw(st.lists(elements, min_size=count, max_size=count)), dtype).reshape(shape)


@st.composite
def features(draw: st.DrawFn) -> Feature:
    low = draw(st.none() | st.floats(-100, 0))
    high = draw(st.none() | st.floats(1, 100))
    clips = (low, high) != (None, None) and draw(st.booleans())
    return Feature(
        tensor=draw(st.sampled_from("xyz")),
        column=draw(st.integers(0, 8)),
        rows=draw(st.sampled_from(["one", "first", "mean"])),
        low=low,
        high=high,
        outside="clip" if clips else "refuse",
        missing=0.5 if draw(st.booleans()) else "refuse",
    )


def oracle(feature: Feature, arrays: dict[str, NDArray[Any]]) -> float | None:
    """What a feature of a tensor is, by its definition; None: the request is refused."""
    array, at = arrays.get(feature.tensor), int(feature.column or 0)
    missing = None if feature.missing == "refuse" else float(feature.missing)
    number = NAN
    if array is not None:
        column = array.reshape(1 if array.ndim == 1 else len(array), -1)
        if column.shape[1] <= at or (len(column) > 1 and feature.rows == "one"):
            return None
        column = column[:, at].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            number = float(column[0] if feature.rows == "first" else column.mean())
    if math.isnan(number):
        return missing
    low, high = (-1e9 if feature.low is None else feature.low), (1e9 if feature.high is None else feature.high)
    if low <= number <= high:
        return number
    if math.isinf(number) or feature.outside == "refuse":
        return None
    return feature.low if number < low else feature.high


@settings(max_examples=200, deadline=None)
@given(
    arrays=st.dictionaries(st.sampled_from("xy"), tensors(), min_size=1),
    context=st.lists(features(), min_size=1, max_size=5),
    raw=st.booleans(),
    flat=st.booleans(),
)
def test_numbers_are_read_as_their_definition_says(
    arrays: dict[str, NDArray[Any]], context: list[Feature], raw: bool, flat: bool
):
    if flat:
        arrays = {name: array[0] for name, array in arrays.items()}
    encoder = Encoder({f"f{at}": feature for at, feature in enumerate(context)})
    expected = [oracle(feature, arrays) for feature in context]
    if None in expected:
        with pytest.raises(InvalidArgument, match=r"^context: f\d \("):
            encoder(call(arrays, raw=raw))
    else:
        made = encoder(call(arrays, raw=raw))
        assert made.values == made.numbers == tuple(expected)
        assert {type(number) for number in made.numbers} == {float}
        assert made.vector.tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    row=st.lists(st.floats(width=32) | st.floats(-2, 2, width=32), min_size=1, max_size=6),
    context=st.lists(features(), min_size=1, max_size=4),
    dtype=st.sampled_from(["<f4", "<f8"]),
    name=st.sampled_from("xxxy"),
)
def test_a_row_of_numbers_that_is_read_in_one_look_is_read_as_any_other(
    row: list[float], context: list[Feature], dtype: str, name: str
):
    at_once = [replace(each, tensor="x", rows="one", column=at) for at, each in enumerate(context)]
    encoder = Encoder({f"f{at}": feature for at, feature in enumerate(at_once)})
    assert encoder._in_one_look is not None
    arrays = {name: np.array([row], dtype)}
    expected = [oracle(feature, arrays) for feature in at_once]
    if None in expected:
        with pytest.raises(InvalidArgument, match=r"^context: f\d \("):
            encoder(call(arrays))
    else:
        assert encoder(call(arrays)).numbers == tuple(expected)


def test_two_features_may_read_one_column():
    encoder = Encoder({"plain": X, "clipped": Feature(tensor="x", column=1, high=2.0, outside="clip"), "again": X})
    assert encoder(call({"x": np.array([0.0, 5.0])})).values == (5.0, 2.0, 5.0)


def test_a_tensor_that_is_not_there_is_missing():
    refused(X, call({"y": np.ones(3)}), r"^context: f \(column 1 of input 'x'\) is missing$")
    assert read(Feature(tensor="x", column=1, missing=-1), call()) == -1.0


def test_a_nan_is_missing_and_an_infinite_number_is_refused_even_where_numbers_are_clipped():
    clipped = Feature(tensor="x", column=1, low=-1, high=1, outside="clip", missing=0.25)
    assert read(clipped, call({"x": np.array([0, NAN])})) == 0.25
    refused(clipped, call({"x": np.array([0, -INF])}), "is infinite")
    refused(X, call({"x": np.array([0, NAN])}), "is missing")


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.ones((2, 3)), 'is not one value: the input has 2 rows, and rows is not "first" or "mean"'),
        (np.ones((0, 3)), "is not there: the input has no rows"),
        (np.ones((1, 1)), r"is not there: the input has 1 column\(s\), counted from 0"),
        (np.ones((1, 1, 1)), r"is not there: the input has 1 column\(s\), counted from 0"),
        (np.ones(()), r"cannot be read: the shape has 0 dimensions; .* \[rows, ..., columns\] or \[columns\]"),
        (np.ones(3, np.float16), "cannot be read: the input is 'FP16'; right are BOOL, .*FP32, FP64"),
        (np.array([b"1", b"2"], object), "cannot be read: the input is 'BYTES'"),
    ],
)
def test_a_tensor_that_does_not_hold_the_column_is_refused(array: NDArray[Any], sentence: str):
    refused(X, call({"x": array}), sentence)


def test_numbers_that_policies_would_not_read_are_refused():
    narrow = Feature(tensor="x", column=0, mean=1.0, scale=1e-6)
    policy = LinUCBPolicy().build(["a"], schema_of({"f": narrow}))
    for number in 1001.0, -999.0:  # the farthest that are read
        encoded = Encoder({"f": narrow})(call({"x": np.array([number])}))
        assert policy.delta(1.0, encoded.vector, 1.0)[0] == 1.0
        refused(narrow, call({"x": np.array([number * 1.0001])}), "must lie between -999 and 1001")


def test_a_refusal_never_says_the_value():
    limits = Feature(tensor="x", column=1, low=0, high=1)
    for feature, asked in [
        (limits, call({"x": np.array([0, 123.456])})),
        (Feature(parameter="p"), call(p="123.456 or so")),
        (Feature(parameter="p", levels=("a",)), call(p="123.456")),
    ]:
        with pytest.raises(InvalidArgument) as error:
            read(feature, asked)
        assert "123" not in error.value.message


@pytest.mark.parametrize("raw", [True, False])
def test_malformed_inputs_are_refused_as_a_model_would(raw: bool):
    short = call({"x": np.ones(4)}, raw=raw)
    short.request.inputs[0].shape[0] = 5
    with pytest.raises(InvalidArgument, match=r"input 'x': .*5"):
        read(X, short)
    twice = call({"x": np.ones(4)}, raw=raw)
    twice.request.MergeFrom(twice.request)
    with pytest.raises(InvalidArgument, match="'x' is given twice"):
        read(X, twice)
    few = call({"x": np.ones(4), "y": np.ones(4)})
    del few.request.raw_input_contents[1]
    with pytest.raises(InvalidArgument, match="2 inputs and 1 raw buffers"):
        read(X, few)


# -- words


REGION = ("eu", "us", "7", "true")


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("array", "level"),
    [
        (np.array(["eu", "us"], object), "us"),
        (np.array([[0, 7]], np.int16), "7"),
        (np.array([[0, 7]], np.uint64), "7"),
        (np.array([False, True]), "true"),
    ],
)
def test_words_are_read_from_tensors(array: NDArray[Any], level: str, raw: bool):
    assert read(Feature(tensor="x", column=1, levels=REGION), call({"x": array}, raw=raw)) == level


def test_what_is_no_word_is_refused():
    word = Feature(tensor="x", column=1, levels=REGION)
    refused(word, call({"x": np.ones(2)}), "cannot be read: the input is 'FP64'; right are BYTES, BOOL")
    refused(word, call({"x": np.array([b"a", b"\xff"], object)}), "must be UTF-8")
    refused(word, call({"x": np.array([["a", "b"], ["a", "b"]], object)}), "has 2 rows")
    refused(Feature(parameter="p", levels=REGION), call(p=1.5), "must be a text or a whole number")


@pytest.mark.parametrize(("value", "level"), [("eu", "eu"), (7, "7"), (True, "true")])
def test_words_are_read_from_parameters(value: object, level: str):
    assert read(Feature(parameter="p", levels=REGION), call(p=value)) == level


def test_words_become_columns_of_zero_and_one_between_the_numbers():
    encoder = Encoder({"a": Feature(parameter="a"), "w": Feature(parameter="w", levels=("x", "y")), "b": X})
    made = encoder(call({"x": np.array([0.0, 3.0])}, a=1.5, w="y"))
    assert made == Context((1.5, "y", 3.0), (1.5, 0.0, 1.0, 3.0))
    assert encoder.schema.columns == ("a", "w=x", "w=y", "b")


@pytest.mark.parametrize(
    ("said", "word", "value", "numbers"),
    [
        ({"unknown": "zeros"}, "uk", None, (0.0, 0.0)),
        ({"unknown": "us"}, "uk", "us", (0.0, 1.0)),
        ({"unknown": "other"}, "uk", "other", (0.0, 0.0, 1.0)),
        ({"unknown": "other"}, "eu", "eu", (1.0, 0.0, 0.0)),
        ({"missing": "zeros"}, "", None, (0.0, 0.0)),
        ({"missing": "eu"}, None, "eu", (1.0, 0.0)),
        ({"unknown": "other", "missing": "other"}, None, "other", (0.0, 0.0, 1.0)),
    ],
)
def test_unknown_and_missing_words_are_what_the_configuration_says(
    said: dict[str, str], word: str | None, value: str | None, numbers: tuple[float, ...]
):
    encoder = Encoder({"region": Feature(parameter="p", levels=("eu", "us"), **said)})  # type: ignore[arg-type]
    assert encoder(call() if word is None else call(p=word)) == Context((value,), numbers)


def test_unknown_and_missing_words_are_refused_unless_the_configuration_says_otherwise():
    word = Feature(parameter="p", levels=("eu", "us"))
    refused(word, call(p="uk"), r"^context: f \(parameter 'p'\) must be one of eu, us$")
    refused(word, call(), "is missing")
    refused(word, call(p=""), "is missing")


# -- parameters, metadata and tables


@pytest.mark.parametrize(
    ("value", "number"), [(1.5, 1.5), (3, 3.0), (True, 1.0), (False, 0.0), ("2.5", 2.5), (" -1e3 ", -1000.0)]
)
def test_numbers_are_read_from_parameters(value: object, number: float):
    told = read(Feature(parameter="p"), call(p=value))
    assert (told, type(told)) == (number, float)


@pytest.mark.parametrize("text", ["", "nan", " NaN"])
def test_a_text_without_a_number_is_missing(text: str):
    refused(Feature(parameter="p"), call(p=text), "is missing")
    assert read(Feature(parameter="p", missing=9), call(p=text)) == 9.0


@pytest.mark.parametrize("text", ["much", "1_000", "0x10", "１", "1,5", "9" * 400 + "x"])
def test_a_text_that_spells_no_number_is_refused(text: str):
    refused(Feature(parameter="p", missing=9), call(p=text), "must be a number")


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999"])
def test_a_text_that_spells_an_infinite_number_is_refused(text: str):
    refused(Feature(parameter="p", missing=9), call(p=text), "is infinite")


def test_a_parameter_without_a_value_is_missing():
    empty = call()
    assert not empty.request.parameters["p"].WhichOneof("parameter_choice")
    refused(Feature(parameter="p"), empty, "is missing")
    refused(Feature(parameter="p", levels=("a",)), empty, "is missing")


def test_metadata_are_read_by_name_in_any_case():
    assert read(Feature(metadata="X-Desk", levels=("fx", "rates")), call()) == "fx"
    assert read(Feature(metadata="x-limit"), call()) == 2.5
    refused(Feature(metadata="x-other"), call(), r"\(metadata 'x-other'\) is missing")
    refused(Feature(metadata="x-desk"), call(), "must be a number")


def test_a_lookup_reads_the_row_of_the_unit(customers: Table):
    exposure = Feature(lookup="customers", column="exposure", missing=-1)
    tier = Feature(lookup="customers", column="tier", levels=("gold", "basic"), missing="zeros")
    encoder = Encoder({"exposure": exposure, "tier": tier})
    values = {unit: encoder(call(unit=unit), {"customers": customers}).values for unit in ("ann", "bob", "", "eve")}
    assert values == {"ann": (2.5, "gold"), "bob": (-1.0, "basic"), "": (-1.0, None), "eve": (-1.0, None)}
    assert encoder(call(unit="ann")).values == (-1.0, None)  # before the table is there


@pytest.fixture
def customers() -> Table:
    settings = FeatureTable(columns={"exposure": "number", "tier": "text"})
    store = MemoryStore()
    rows: list[tuple[str, dict[str, float | str]]] = [
        ("ann", {"exposure": 2.5, "tier": "gold"}),
        ("bob", {"tier": "basic"}),
    ]
    store.put(kind_of("customers"), bodies_of("customers", settings, rows))
    return refreshed({}, {"customers": settings}, store)["customers"]


def test_a_lookup_of_what_no_table_has_is_refused_when_it_is_configured():
    tables = {"customers": FeatureTable(columns={"exposure": "number", "tier": "text"})}
    check_lookups({"f": Feature(lookup="customers", column="exposure")}, tables)
    for feature, sentence in [
        (Feature(lookup="clients", column="x"), r"f.lookup: there is no feature table 'clients'; there are customers"),
        (Feature(lookup="customers", column="x"), r"f.column: table 'customers' has exposure, tier"),
        (Feature(lookup="customers", column="tier"), r"is a text, and a feature without levels needs a number"),
        (Feature(lookup="customers", column="exposure", levels=("1",)), r"with levels needs a text"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            check_lookups({"f": feature}, tables)


# -- values that are given by name


def test_given_values_are_taken_as_those_of_a_request():
    encoder = Encoder(
        {"n": Feature(tensor="x", column=0, high=2, outside="clip"), "w": Feature(parameter="w", levels=REGION)}
    )
    assert encoder.given({"n": 5, "w": True}) == Context((2.0, "true"), (2.0, 0.0, 0.0, 0.0, 1.0))
    wrong: list[tuple[dict[str, object], str]] = [
        ({"n": 1, "w": "uk"}, "w .* must be one of"),
        ({"w": "eu"}, "n .* is missing"),
        ({"n": [1], "w": "eu"}, "n .* must be a number"),
        ({"n": 10**400, "w": "eu"}, "n .* is infinite"),
        ({"n": 1, "w": "eu", "z": 1}, "no feature 'z'"),
    ]
    for values, sentence in wrong:
        with pytest.raises(InvalidArgument, match=sentence):
            encoder.given(values)


# -- what a context means


def test_the_digest_changes_with_what_a_number_means_and_with_nothing_else():
    plain = {"a": Feature(tensor="x", column=0), "w": Feature(parameter="w", levels=("p", "q"))}
    digest = schema_of(plain).digest
    same = {"a": Feature(tensor="x", column=0, low=0, high=9, outside="clip", missing=1), "w": plain["w"]}
    assert schema_of(same).digest == digest
    others = [
        {"w": plain["w"], "a": plain["a"]},
        {"b": plain["a"], "w": plain["w"]},
        {**plain, "a": Feature(tensor="x", column=1)},
        {**plain, "a": Feature(tensor="y", column=0)},
        {**plain, "a": Feature(tensor="x", column=0, rows="mean")},
        {**plain, "a": Feature(tensor="x", column=0, mean=1)},
        {**plain, "a": Feature(tensor="x", column=0, scale=2)},
        {**plain, "w": Feature(parameter="w", levels=("q", "p"))},
        {**plain, "w": Feature(parameter="w", levels=("p", "q"), unknown="other")},
        {**plain, "w": Feature(metadata="w", levels=("p", "q"))},
        {"a": plain["a"]},
    ]
    assert len({digest, *(schema_of(other).digest for other in others)}) == 1 + len(others)


def test_a_route_without_context_has_an_empty_one():
    encoder = Encoder({})
    assert encoder(call()) == Context()
    assert not encoder.schema.columns
    assert encoder.schema.digest == ""


def test_policies_are_handed_the_standardisation():
    schema = schema_of({"a": Feature(parameter="a", mean=2, scale=4), "w": Feature(parameter="w", levels=("p", "q"))})
    assert LinUCBPolicy(alpha=0.5).build(["x"], schema) == LinUCB(3, mean=(2, 0, 0), scale=(4, 1, 1), alpha=0.5)


# -- against what models declare


def declared(*tensors: tuple[str, str, list[int]]) -> list[ModelMetadataResponse.TensorMetadata]:
    message = ModelMetadataResponse()
    for name, datatype, shape in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return list(message.inputs)


@pytest.mark.parametrize(
    "tensor",
    [
        ("x", "FP32", [-1, 20]),
        ("x", "INT8", [2]),
        ("x", "FP64", [-1]),
        ("x", "BOOL", [-1, -1]),
        ("x", "FP32", [-1, 2, 1]),
    ],
)
def test_a_column_that_a_model_may_take_is_right(tensor: tuple[str, str, list[int]]):
    Encoder({"f": X, "other": Feature(parameter="p")}).check(declared(tensor))


def test_a_model_that_declares_nothing_takes_anything():
    Encoder({"f": X}).check([])


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (("y", "FP32", [-1, 20]), "f.tensor: there is no input 'x'; there are y"),
        (("x", "FP32", [-1, 1]), r"f.column: 'x' has 1 column\(s\), counted from 0"),
        (("x", "BYTES", [-1, 2]), "f.tensor: 'x' is BYTES; right are BOOL, "),
        (("x", "FP32", [-1, 1, 1]), r"f.column: 'x' has 1 column\(s\), counted from 0"),
        (("x", "FP32", []), r"f.tensor: 'x' has the shape \[\]; a context is read from"),
    ],
)
def test_a_column_that_no_model_takes_is_refused(tensor: tuple[str, str, list[int]], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Encoder({"f": X}).check(declared(tensor))
