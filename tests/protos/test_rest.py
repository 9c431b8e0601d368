"""The V2 protocol in JSON: what it answers, what it refuses and in which words."""

from __future__ import annotations

import asyncio
import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from starlette.routing import Route

from protos.errors import Code, InvalidArgument, ResourceExhausted, UpstreamError
from protos.messages import ModelInferRequest, ModelInferResponse, RepositoryIndexResponse
from protos.rest import rest_app, v2_routes
from protos.tensors import DATATYPES, add_outputs, inputs_of
from tests.protos.echo import Echo
from tests.protos.http import MAX_BODY, ask, ask_app, refusal, tensor


@pytest.fixture
def echo():
    return Echo()


def infer(service, *inputs, path="/v2/models/echo/infer", **body):
    content = json.dumps({"inputs": list(inputs), **body})
    return ask(service, "POST", path, content=content)


def test_who_has_no_time_says_so_before_the_body_is_read(echo):
    asked = []

    def admit(model, version):
        asked.append((model, version))
        raise ResourceExhausted("too much")

    app = rest_app(v2_routes(echo, admit=admit), max_body=MAX_BODY)
    assert refusal(ask_app(app, "POST", "/v2/models/echo/infer", content=b"nonsense"), 429) == "too much"
    assert refusal(ask_app(app, "POST", "/v2/models/echo/versions/3/infer", content=b"nonsense"), 429) == "too much"
    assert asked == [("echo", ""), ("echo", "3")]
    assert not echo.asked


def test_a_version_that_only_the_body_names_is_read_first(echo):
    """The newest may have no time where an older one has."""
    app = rest_app(v2_routes(echo, admit=lambda *asked: pytest.fail(f"asked about {asked}")), max_body=MAX_BODY)
    body = {"inputs": [tensor()], "model_version": "1"}
    assert ask_app(app, "POST", "/v2/models/echo/infer", json=body).status_code == 200
    assert echo.asked[0].model_version == "1"


# ------------------------------------------------------------------------------------- health, metadata, repository


def test_health(echo):
    assert ask(echo, "GET", "/v2/health/live").json() == {"live": True}
    ready = ask(echo, "GET", "/v2/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    model = ask(echo, "GET", "/v2/models/echo/ready")
    assert (model.status_code, model.json()) == (200, {"name": "echo", "ready": True})


def test_not_ready_is_503(echo):
    echo.is_ready = False
    assert ask(echo, "GET", "/v2/health/live").status_code == 200
    assert ask(echo, "GET", "/v2/health/ready").status_code == 503
    response = ask(echo, "GET", "/v2/models/echo/versions/1/ready")
    assert (response.status_code, response.json()) == (503, {"name": "echo", "ready": False})


def test_an_unknown_model_is_404(echo):
    for method, path in [
        ("GET", "/v2/models/nobody"),
        ("GET", "/v2/models/nobody/ready"),
        ("GET", "/v2/models/nobody/versions/1"),
        ("POST", "/v2/repository/models/nobody/load"),
    ]:
        assert refusal(ask(echo, method, path), 404) == "there is no model 'nobody'"
    assert refusal(infer(echo, tensor(), path="/v2/models/nobody/infer"), 404) == "there is no model 'nobody'"


def test_metadata(echo):
    assert ask(echo, "GET", "/v2").json() == {"name": "croupier", "version": "1", "extensions": ["a", "b"]}
    assert ask(echo, "GET", "/v2/models/echo/versions/1").json() == {
        "name": "echo",
        "versions": ["1"],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 20], "parameters": {"unit": "bp"}}],
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 20]}],
        "parameters": {},
    }


@pytest.mark.parametrize(("body", "ready"), [(b"", False), (b"{}", False), (b'{"ready": true}', True)])
def test_the_index_takes_an_empty_body_too(echo, body, ready):
    response = ask(echo, "POST", "/v2/repository/index", content=body)
    assert response.json() == [{"name": "echo", "version": "1", "state": "READY", "reason": ""}]
    assert echo.only_ready == [ready]


def test_a_model_without_a_version_has_none_in_the_index(echo, monkeypatch):
    async def index(*, ready):
        told = RepositoryIndexResponse()
        told.models.add(name="echo", state="READY")
        return told

    monkeypatch.setattr(echo, "index", index)
    response = ask(echo, "POST", "/v2/repository/index")
    assert response.json() == [{"name": "echo", "state": "READY", "reason": ""}]


def test_an_index_request_that_is_none_is_refused(echo):
    assert "got `int`" in refusal(ask(echo, "POST", "/v2/repository/index", content=b'{"ready": 1}'))
    assert "unknown field `raedy`" in refusal(ask(echo, "POST", "/v2/repository/index", content=b'{"raedy": true}'))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {}}'])
def test_models_are_loaded_and_unloaded(echo, body):
    assert ask(echo, "POST", "/v2/repository/models/echo/load", content=body).status_code == 200
    response = ask(echo, "POST", "/v2/repository/models/echo/unload", content=body)
    assert refusal(response) == "model 'echo' cannot be unloaded"


@pytest.mark.parametrize(
    ("what", "parameters", "status", "sentence"),
    [
        ("load", {"file:1/model.pt": "AAAA"}, 501, "a model's files do not come with a request"),
        ("load", {"confg": "{}"}, 422, "to load takes the parameter 'config', not 'confg'"),
        ("load", {"config": True}, 422, "parameter 'config' is a model configuration in JSON, as text"),
        ("load", {"config": "{}"}, 501, "parameter 'config' is not supported here"),
        ("unload", {"unload_dependents": True}, 501, "parameter 'unload_dependents' is not supported; unload each"),
        ("unload", {"force": True}, 422, "to unload takes the parameter 'unload_dependents', not 'force'"),
        ("unload", {"unload_dependents": False}, 422, "model 'echo' cannot be unloaded"),
    ],
)
def test_what_a_repository_does_not_do_is_refused(echo, what, parameters, status, sentence):
    response = ask(echo, "POST", f"/v2/repository/models/echo/{what}", json={"parameters": parameters})
    assert refusal(response, status).startswith(sentence)


def test_a_repository_request_that_is_none_is_refused(echo):
    response = ask(echo, "POST", "/v2/repository/models/echo/load", content=b'{"config": "{}"}')
    assert refusal(response).startswith("the body is not a load request: Object contains unknown field `config`")


@pytest.mark.parametrize("path", ["/v2/models/echo/stats", "/v2/models/echo/versions/1/config"])
def test_a_server_without_tritons_extensions_has_no_such_paths(echo, path):
    assert refusal(ask(echo, "GET", path), 404) == f"there is no {path} here"


def test_a_slash_at_the_end_changes_nothing(echo):
    assert ask(echo, "GET", "/v2/").json() == ask(echo, "GET", "/v2").json()


# ------------------------------------------------------------------------------------------------------- inference


def test_an_inference(echo):
    response = infer(
        echo,
        tensor(shape=[1, 2], data=[[1.5, -2]], parameters={"content_type": "np"}),
        id="7",
        parameters={"b": True, "i": -3, "u": 2**64 - 1, "f": 0.5, "s": "é"},
        outputs=[{"name": "x", "parameters": {"classification": 3}}],
    )
    assert response.status_code == 200
    assert response.headers["croupier-decision"] == "d-1"
    assert response.json() == {
        "model_name": "echo",
        "model_version": "1",
        "id": "7",
        "parameters": {"b": True, "i": -3, "u": 2**64 - 1, "f": 0.5, "s": "é"},
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]}],
    }
    (asked,) = echo.asked
    assert asked.model_version == ""
    assert asked.inputs[0].parameters["content_type"].string_param == "np"
    assert asked.outputs[0].parameters["classification"].int64_param == 3
    assert asked.parameters["b"].WhichOneof("parameter_choice") == "bool_param"
    assert asked.parameters["i"].WhichOneof("parameter_choice") == "int64_param"
    assert asked.parameters["u"].WhichOneof("parameter_choice") == "uint64_param"
    assert asked.parameters["f"].WhichOneof("parameter_choice") == "double_param"


@pytest.mark.parametrize("model", ["/v2/models/echo", "/v2/models/echo/versions/1"])
def test_what_mlserver_also_calls_generate_is_an_inference(echo, model):
    inferred = infer(echo, tensor(), path=f"{model}/infer")
    generated = infer(echo, tensor(), path=f"{model}/generate")
    assert (generated.status_code, generated.json()) == (200, inferred.json())
    streamed = infer(echo, tensor(), path=f"{model}/generate_stream")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text == infer(echo, tensor(), path=f"{model}/infer_stream").text


def events(service, *answers, **body):
    """What comes of a stream of these answers, some of which may be errors."""

    async def stream(bodies, rpc):
        rpc.trailing.append((b"croupier-decision", b"d-1"))
        async for each in bodies:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
                response = ModelInferResponse(model_name=ModelInferRequest.FromString(each).model_name)
                add_outputs(response, {"x": np.array([answer], np.float32)}, raw=True)
                yield response.SerializeToString()

    app = rest_app(v2_routes(service, stream=stream), max_body=MAX_BODY)
    return ask_app(app, "POST", "/v2/models/echo/infer_stream", json={"inputs": [tensor()], **body})


def test_each_answer_of_a_stream_is_an_event(echo):
    answered = events(echo, 1, 2)
    assert answered.headers["content-type"].startswith("text/event-stream")
    assert answered.headers["croupier-decision"] == "d-1"
    told = [json.loads(each.removeprefix("data: ")) for each in answered.text.strip().split("\n\n")]
    assert [each["outputs"][0]["data"] for each in told] == [[1], [2]]
    assert (events(echo).status_code, events(echo).text) == (200, "")


def test_a_stream_that_fails_says_so_by_its_status_while_it_can(echo):
    busy = ResourceExhausted("too much")
    assert refusal(events(echo, busy), 429) == "too much"
    answered = events(echo, 1, busy)
    assert answered.status_code == 200
    assert answered.text.endswith('data: {"error":"too much"}\n\n')


def test_the_headers_reach_the_service(echo):
    ask(
        echo,
        "POST",
        "/v2/models/echo/infer",
        content=json.dumps({"inputs": [tensor()]}),
        headers={"Croupier-Unit": "customer-1"},
    )
    assert echo.rpc.metadata["croupier-unit"] == "customer-1"
    assert echo.rpc.deadline is None


def test_the_version_in_the_url_is_the_models(echo):
    infer(echo, tensor(), path="/v2/models/echo/versions/1/infer")
    infer(echo, tensor(), model_name="echo", model_version="1")
    assert [request.model_version for request in echo.asked] == ["1", "1"]


@pytest.mark.parametrize(
    ("sent", "array"),
    [
        (tensor(datatype="BOOL", data=[True, False]), np.array([True, False])),
        (tensor(datatype="BYTES", data=["é", ""]), np.array(["é".encode(), b""], object)),
        (tensor(datatype="BYTES", shape=[1, 2], data=[["a", "b"]]), np.array([[b"a", b"b"]], object)),
        (tensor(data=[None, 0.1]), np.array([np.nan, 0.1], np.float32)),
        (tensor(datatype="FP64", data=[None, 1]), np.array([np.nan, 1.0])),
        (tensor(datatype="FP16", data=[0.1, None]), np.array([0.1, np.nan], np.float16)),
        (tensor(datatype="BF16", data=[0.1, None]), np.array([0.1, np.nan], ml_dtypes.bfloat16)),
        (tensor(datatype="UINT64", data=[0, 2**64 - 1]), np.array([0, 2**64 - 1], np.uint64)),
        (tensor(datatype="INT64", data=[-(2**63), 2**63 - 1]), np.array([-(2**63), 2**63 - 1])),
        (tensor(shape=[2, 2], data=[1, 2, 3, 4]), np.array([[1, 2], [3, 4]], np.float32)),
        (tensor(shape=[2, 2], data=[[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], np.float32)),
        (tensor(shape=[], data=[5]), np.array(5, np.float32)),
        (tensor(shape=[0], data=[]), np.empty(0, np.float32)),
        (tensor(shape=[2, 0, 3], data=[]), np.empty((2, 0, 3), np.float32)),
        (tensor(shape=[2, 0, 3], data=[[], []]), np.empty((2, 0, 3), np.float32)),
    ],
)
def test_tensors_are_read_as_they_were_meant(echo, sent, array):
    assert infer(echo, sent).status_code == 200
    got = inputs_of(echo.asked[0])["x"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    if array.dtype.hasobject:
        assert got.tolist() == array.tolist()
    else:
        assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_arrays_survive_json(datatype, data):
    """Flat and nested, there and back; what JSON cannot say comes back as NaN."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        array = data.draw(hnp.arrays(np.object_, shape, elements=st.text(max_size=5), fill=st.nothing()))
    elif datatype == "BF16":
        floats = st.floats(width=16, allow_nan=False, allow_infinity=False, allow_subnormal=False)
        array = data.draw(hnp.arrays(np.float32, shape, elements=floats)).astype(ml_dtypes.bfloat16)
    else:
        array = data.draw(hnp.arrays(DATATYPES[datatype], shape))
    plain = array.astype(np.float64) if datatype == "BF16" else array
    plain = np.where(np.isfinite(plain), plain, np.nan) if plain.dtype.kind == "f" else plain
    nested = array.ndim > 0 and data.draw(st.booleans())
    sent = json.dumps((plain if nested else plain.ravel()).tolist()).replace("NaN", "null")
    body = f'{{"inputs": [{{"name": "x", "datatype": "{datatype}", "shape": {list(shape)}, "data": {sent}}}]}}'
    (output,) = ask(Echo(), "POST", "/v2/models/echo/infer", content=body).json()["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(shape))
    assert output["data"] == json.loads(json.dumps(plain.ravel().tolist()).replace("NaN", "null"))


def test_an_answer_that_json_cannot_say_becomes_null(echo):
    async def infinite(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        add_outputs(response, {"y": np.array([np.nan, np.inf, -np.inf, 1], np.float32)}, raw=True)
        return response.SerializeToString()

    echo.infer = infinite
    assert infer(echo, tensor()).json()["outputs"][0]["data"] == [None, None, None, 1.0]


BASE64 = {"content_type": "base64"}


def test_texts_in_base64_are_what_they_spell(echo):
    """As MLServer's clients mark them."""
    given = tensor(datatype="BYTES", shape=[2, 1], data=["AP8=", ""], parameters=BASE64)
    response = infer(echo, given, outputs=[{"name": "x", "parameters": BASE64}])
    assert inputs_of(echo.asked[0])["x"].tolist() == [[b"\0\xff"], [b""]]
    assert response.json()["outputs"] == [
        {"name": "x", "datatype": "BYTES", "shape": [2, 1], "parameters": BASE64, "data": ["AP8=", ""]}
    ]


@pytest.mark.parametrize("text", ["A", "AA=", "A!==", "AA==\n", "é"])
def test_a_text_that_is_not_in_base64_is_refused(echo, text):
    response = infer(echo, tensor(datatype="BYTES", data=["AA==", text], parameters=BASE64))
    assert refusal(response).startswith("input 'x': its content_type is 'base64', and element [1] is not: ")


def test_an_answer_that_is_in_base64_already_stays_as_it_is(echo):
    async def coded(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        add_outputs(response, {"x": np.array([b"AP8="], object)}, raw=True)
        response.outputs[0].parameters["content_type"].string_param = "base64"
        return response.SerializeToString()

    echo.infer = coded
    (output,) = infer(echo, tensor(), outputs=[{"name": "x", "parameters": BASE64}]).json()["outputs"]
    assert (output["data"], output["parameters"]) == (["AP8="], BASE64)


def test_numbers_stay_numbers_whatever_their_content_type(echo):
    response = infer(echo, tensor(parameters=BASE64), outputs=[{"name": "x", "parameters": BASE64}])
    assert response.json()["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]


@pytest.mark.parametrize("word", ["NaN", "-Infinity"])
def test_who_writes_what_json_does_not_have_is_told_what_to_write(echo, word):
    body = json.dumps({"inputs": [tensor(data=[1, 2])]}).replace("2]}", f"{word}]}}")
    sentence = refusal(ask(echo, "POST", "/v2/models/echo/infer", content=body))
    assert sentence.endswith("; JSON has no NaN and no Infinity: write null")


def test_a_parameter_that_is_null_is_none(echo):
    """As pydantic writes those that nobody set."""
    nulls = {"content_type": None, "headers": None}
    assert infer(echo, tensor(parameters=nulls), parameters=nulls, id=None, outputs=None).status_code == 200
    assert not echo.asked[0].parameters
    assert not echo.asked[0].inputs[0].parameters


def test_typed_answers_are_read_too(echo):
    async def typed(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        add_outputs(response, {"y": np.array([-1], np.int8)}, raw=False)
        response.outputs[0].parameters["unit"].string_param = "bp"
        return response.SerializeToString()

    echo.infer = typed
    assert infer(echo, tensor()).json() == {
        "model_name": "echo",
        "outputs": [{"name": "y", "datatype": "INT8", "shape": [1], "parameters": {"unit": "bp"}, "data": [-1]}],
    }


# --------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (tensor(data=[1]), "input 'x': shape [2] takes 2 elements, data has 1"),
        (
            tensor(datatype="BYTES", shape=[5], data=["hello"]),
            "input 'x': shape [5] takes 5 elements, data has 1; for one text, however long, write shape [1]",
        ),
        (tensor(shape=[], data=[1, 2]), "input 'x': shape [] takes 1 elements, data has 2"),
        (tensor(shape=[2, 2], data=[[1, 2], [3]]), "input 'x': data is ragged"),
        (tensor(datatype="BYTES", shape=[2, 2], data=[["a", "b"], ["c"]]), "input 'x': data is ragged"),
        (tensor(shape=[2, 2], data=[[1, 2], 3]), "input 'x': Expected `array`, got `int` - at `data[1]`"),
        (tensor(shape=[2, 2], data=[[1, 2]]), "input 'x': data is nested as [1, 2], its shape is [2, 2]"),
        (tensor(shape=[2, 1], data=[[1, 2]]), "input 'x': data is nested as [1, 2], its shape is [2, 1]"),
        (tensor(data=[[1, 2]]), "input 'x': data is nested as [1, 2], its shape is [2]"),
        (tensor(data=["1", "2"]), "input 'x': Expected `float | null`, got `str` - at `data[0]`"),
        (tensor(data=[True, 2]), "input 'x': Expected `float | null`, got `bool` - at `data[0]`"),
        (tensor(data=5), "input 'x': Expected `array`, got `int`"),
        (tensor(data=None), "input 'x': Expected `array`, got `null`"),
        (tensor(data={"a": 1}), "input 'x': Expected `array`, got `object`"),
        (tensor(data="12"), "input 'x': Expected `array`, got `str`"),
        (tensor(data=[1, 1e39]), "input 'x': data holds 1e+39, which is beyond FP32"),
        (tensor(datatype="FP16", data=[1, -7e4]), "input 'x': data holds -70000.0, which is beyond FP16"),
        (tensor(datatype="BF16", data=[1, 1e39]), "input 'x': data holds 1e+39, which is beyond BF16"),
        (tensor(datatype="INT32", data=[1, 1.5]), "input 'x': Expected `int`, got `float` - at `data[1]`"),
        (tensor(datatype="INT32", data=[1, 2.0]), "input 'x': Expected `int`, got `float` - at `data[1]`"),
        (tensor(datatype="INT32", data=[True, 1]), "input 'x': Expected `int`, got `bool` - at `data[0]`"),
        (tensor(datatype="INT32", data=[None, 1]), "input 'x': Expected `int`, got `null` - at `data[0]`"),
        (tensor(datatype="INT8", data=[1, 128]), "input 'x': Expected `int` <= 127 - at `data[1]`"),
        (tensor(datatype="INT64", data=[1, 2**63]), "input 'x': Expected `int` <= 9223372036854775807"),
        (tensor(datatype="UINT8", data=[1, -1]), "input 'x': Expected `int` >= 0 - at `data[1]`"),
        (tensor(datatype="UINT64", data=[1, -1]), "input 'x': Expected `int` >= 0 - at `data[1]`"),
        (tensor(datatype="UINT64", data=[1, 2**64]), "input 'x': data holds integers beyond UINT64"),
        (tensor(datatype="BOOL", data=[1, 0]), "input 'x': Expected `bool`, got `int` - at `data[0]`"),
        (tensor(datatype="BYTES", data=[1, 2]), "input 'x': Expected `str`, got `int` - at `data[0]`"),
        (
            tensor(datatype="BYTES", data=["a", None]),
            "input 'x': Expected `str`, got `null` - at `data[1]`; BYTES have no null: send a text that stands for it,",
        ),
        (tensor(datatype="float"), "input 'x': unknown datatype 'float'; V2 has BOOL, UINT8,"),
        (tensor(shape=[-2]), "input 'x': shape [-2] has a negative dimension"),
        (tensor(shape=[0, 2**62, 2**62], data=[]), f"input 'x': shape [0, {2**62}, {2**62}] is too large"),
        (tensor(shape=[0, 2**64], data=[]), f"input 'x': shape [0, {2**64}] is too large"),
        (tensor(shape=[1] * 65), "input 'x': its shape has 65 dimensions; 64 are the most"),
        (tensor(shape=[2.0]), "the body is not a V2 inference request: Expected `int`, got `float` - at `$.inputs[0]"),
        (tensor(parameters={"a": 1, "b": []}), "parameter 'b' of input 'x' is a list; it may be a text, a number, "),
        (tensor(parameters={"a": {"b": 1}}), "parameter 'a' of input 'x' is an object; it may be a text, a number, "),
        (tensor(parameters={"a": 2**64}), f"parameter 'a' of input 'x' is {2**64}, which 64 bits cannot hold"),
        (tensor(daat=[1]), "the body is not a V2 inference request: Object contains unknown field `daat` - at `$.inp"),
        *(
            (
                {name: value for name, value in tensor().items() if name != missing},
                f"the body is not a V2 inference request: Object missing required field `{missing}` - at `$.inputs[0]`",
            )
            for missing in ("name", "datatype", "shape")
        ),
        ({"name": "x", "datatype": "FP32", "shape": [2]}, "input 'x': it has neither `data` nor binary_data_size"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_with_a_sentence(echo, sent, sentence):
    assert refusal(infer(echo, sent)).startswith(sentence)
    assert echo.asked == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is not a V2 inference request: Input data was truncated"),
        (b"{", "the body is not a V2 inference request: Input data was truncated"),
        (b"[]", "the body is not a V2 inference request: Expected `object`, got `array`"),
        (b"\xff", "the body is not a V2 inference request: JSON is malformed"),
        (b'{"inputs": [], "id": "\xff"}', "the body is not a V2 inference request: 'utf-8' codec can't decode"),
        (b"{}", "the body is not a V2 inference request: Object missing required field `inputs`"),
        (b'{"inputs": [], "id": 7}', "the body is not a V2 inference request: Expected `str | null`, got `int`"),
        (b'{"inputs": [], "model_name": "other"}', "the model's name is 'other' in the body and 'echo' in the URL"),
        (b'{"inputs": [], "model_version": "2"}', "the model's version is '2' in the body and '1' in the URL"),
        (b'{"inputs": [' + b"[" * 50_000, "the body is not a V2 inference request: Expected `object`, got `array`"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": '
            + b"[" * 30_000
            + b"]" * 30_000
            + b"}]}",
            "the body is not a V2 inference request: maximum recursion depth exceeded",
        ),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 65 + b"]" * 65 + b"}]}",
            "input 'x': data is nested 65 deep; 64 are the most an array can have",
        ),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1e999]}]}',
            "input 'x': Number out of range - at `data[0]`",
        ),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
            "the body is not a V2 inference request: JSON is malformed",
        ),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_a_sentence(echo, body, sentence):
    response = ask(echo, "POST", "/v2/models/echo/versions/1/infer", content=body)
    assert refusal(response).startswith(sentence)
    assert echo.asked == []


@settings(max_examples=200)
@given(
    body=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "data", "datatype", "parameters", "id"]), each
            )
        ),
        max_leaves=20,
    ).map(lambda tree: json.dumps(tree).encode())
)
def test_any_body_gets_an_answer_or_a_sentence(body):
    response = ask(Echo(), "POST", "/v2/models/echo/infer", content=body)
    assert response.status_code in {200, 422}
    assert response.status_code == 200 or refusal(response)


def test_bytes_that_are_not_text_are_refused_on_the_way_out(echo):
    async def binary(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        add_outputs(response, {"y": np.array([b"\xff"], object)}, raw=True)
        return response.SerializeToString()

    echo.infer = binary
    assert refusal(infer(echo, tensor())) == (
        "output 'y' is not UTF-8, which JSON needs; ask for it with content_type 'base64' or binary_data among its "
        "parameters"
    )


def test_an_inconsistent_answer_is_not_the_clients_fault(echo):
    async def broken(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        response.outputs.add(name="y", datatype="FP32", shape=[3])
        return response.SerializeToString()

    echo.infer = broken
    assert refusal(infer(echo, tensor()), 500).startswith("the model's answer is inconsistent: output 'y': shape [3]")


# -------------------------------------------------------------------------------------------------------- the edge


def test_what_is_not_there_is_said_in_json(echo):
    assert refusal(ask(echo, "GET", "/v3"), 404) == "there is no /v3 here"
    response = ask(echo, "GET", "/v2/models/echo/infer")
    assert refusal(response, 405) == "/v2/models/echo/infer does not take GET; it takes POST"
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/nowhere", 404), ("POST", "/v2/models/echo", 405)])
def test_a_refusal_is_sent_when_all_of_the_request_has_arrived(echo, method, path, status):
    """Over HTTP/2 an earlier answer looks like a broken stream to curl."""
    arrived = 0

    async def slowly():
        nonlocal arrived
        for _ in range(5):
            arrived += 1
            yield b"x"

    assert ask(echo, method, path, content=slowly()).status_code == status
    assert arrived == 5


def test_an_error_keeps_its_status_and_the_metadata_of_the_call(echo):
    async def overloaded(_body, rpc):
        rpc.trailing.append((b"croupier-arm", b"champion"))
        raise UpstreamError("the upstream is full", Code.RESOURCE_EXHAUSTED, retry=True)

    echo.infer = overloaded
    response = infer(echo, tensor())
    assert refusal(response, 429) == "the upstream is full"
    assert response.headers["croupier-arm"] == "champion"


def test_words_that_no_text_can_hold_are_told_as_far_as_they_can(echo):
    async def wrong(_body, _rpc):
        raise InvalidArgument("a \udc80 b")  # as os.fsdecode reads a name that is no UTF-8

    echo.infer = wrong
    assert refusal(infer(echo, tensor()), 422) == "a ? b"


def test_a_failure_of_ours_is_logged_and_not_shown(echo, caplog):
    async def broken(_body, _rpc):
        raise KeyError("the secret")

    echo.infer = broken
    response = infer(echo, tensor())
    assert refusal(response, 500) == "internal error; the server's log has the traceback"
    (record,) = caplog.records
    assert record.exc_info[0] is KeyError
    assert record.getMessage() == "POST /v2/models/echo/infer failed"


def test_a_body_over_the_limit_is_refused_before_it_is_read(echo):
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 10_000
            yield bytes(10_000)

    response = ask(echo, "POST", "/v2/models/echo/infer", content=endless())
    assert refusal(response, 413) == f"the body has more than {MAX_BODY} bytes; that is the limit"
    assert read <= MAX_BODY + 20_000


def test_a_body_of_just_the_limit_is_read(echo):
    body = json.dumps({"inputs": [tensor()]}).encode().ljust(MAX_BODY)
    assert ask(echo, "POST", "/v2/models/echo/infer", content=body).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure(echo, caplog):
    app = rest_app(v2_routes(echo), max_body=MAX_BODY)
    events = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    scope = {"type": "http", "method": "POST", "path": "/v2/models/echo/infer", "headers": [], "query_string": b""}

    async def receive():
        return next(events)

    async def send(_event):
        pass

    async def leave():
        await app(scope, receive, send)

    asyncio.run(leave())
    assert caplog.records == []
    assert echo.asked == []


def test_other_routes_share_the_edge():
    """The router adds its own endpoints to the same application."""

    async def length(request):
        raise UpstreamError(str(len(await request.body())), Code.ABORTED)

    app = rest_app([Route("/length", length, methods=["POST"])], max_body=10)
    assert refusal(ask_app(app, "POST", "/length", content=b"12345"), 409) == "5"
    assert "more than 10 bytes" in refusal(ask_app(app, "POST", "/length", content=b"12345678901"), 413)


def test_json_floats_are_the_nearest_of_their_datatype(echo):
    """No detour: 0.1 in FP32 is the float32 nearest to 0.1."""
    infer(echo, tensor(shape=[1], data=[0.1]))
    request = ModelInferRequest.FromString(echo.asked[0].SerializeToString())
    assert math.isclose(inputs_of(request)["x"][0], np.float32(0.1), rel_tol=0)
