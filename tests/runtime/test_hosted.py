"""What models written for MLServer are given, and what is made of their answers and errors."""

from __future__ import annotations

import asyncio
import json
import os

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import (
    AlreadyExists,
    CallError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from protos.infer_json import parameters_of
from protos.tensors import DATATYPES, outputs_of
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.settings import FILE
from tests.runtime.hosted import ECHO, answers, asked, request, running, written

pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")


DECODES = """
    import numpy as np
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse

    class Model(MLModel):
        async def load(self):
            self.factor = self.settings.parameters.extra["factor"]
            return True

        async def predict(self, payload):
            x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
            return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", x * self.factor)])
"""


def test_a_model_of_theirs_answers_by_its_codecs(tmp_path):
    written(tmp_path, DECODES, parameters={"version": "3", "extra": {"factor": 2}})
    (response,) = asked(tmp_path, request())
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "7")
    assert outputs_of(response)["y"].tolist() == [[2, 4]]
    assert parameters_of(response.outputs[0].parameters) == {"content_type": "np"}


@pytest.mark.parametrize("raw", [True, False])
def test_what_is_not_a_number_stays_so(tmp_path, raw):
    """Their own server fails on it by gRPC."""
    written(tmp_path, DECODES, parameters={"extra": {"factor": 2}})
    (response,) = asked(tmp_path, request(raw, x=np.array([[1, np.nan, np.inf]], np.float32)))
    assert bool(response.raw_output_contents) == raw
    np.testing.assert_array_equal(outputs_of(response)["y"], np.array([[2, np.nan, np.inf]], np.float32))


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BF16"}))
@pytest.mark.parametrize("raw", [True, False])
def test_every_datatype_but_bfloat16_comes_back(tmp_path, datatype, raw):
    if datatype == "FP16" and not raw:
        return  # which the protocol does not have
    written(tmp_path, ECHO)
    x = np.array([b"a", "é".encode(), b"\xff"] if datatype == "BYTES" else [0, 1, 1], DATATYPES[datatype])
    (response,) = asked(tmp_path, request(raw, x=x, empty=x[:0].reshape(0, 2)))
    outputs = outputs_of(response)
    assert outputs["x"].dtype == x.dtype
    assert outputs["x"].tolist() == x.tolist()
    assert outputs["empty"].shape == (0, 2)


def test_bfloat16_which_they_do_not_have_is_refused_by_name(tmp_path):
    written(tmp_path, ECHO)
    with pytest.raises(InvalidArgument, match="input 'x': datatype: Input should be 'BOOL', "):
        asked(tmp_path, request(x=np.ones(1, DATATYPES["BF16"])))


def test_content_types_and_parameters_reach_the_model(tmp_path, caplog):
    code = """
        import json
        from mlserver import MLModel
        from mlserver.types import InferenceResponse, Parameters, RequestOutput

        class Model(MLModel):
            async def predict(self, payload):
                told = {
                    "id": payload.id,
                    "request": payload.parameters.model_dump(),
                    "inputs": {each.name: self.decode(each) for each in payload.inputs},
                    "outputs": {each.name: each.parameters.model_dump() for each in payload.outputs},
                }
                output = self.encode([json.dumps(told, sort_keys=True)], RequestOutput(name="told"))
                output.parameters = Parameters(content_type="str", unsayable=[1])
                parameters = Parameters(text="t", count=2, part=0.5, yes=True, headers={"x-a": "b"})
                return InferenceResponse(model_name=self.name, outputs=[output], parameters=parameters)
    """
    written(tmp_path, code)
    sent = request(text=np.array([b"a", "é".encode()], np.object_))
    sent.parameters["tenant"].string_param = "a"
    sent.parameters["limit"].int64_param = 3
    sent.parameters["share"].double_param = 0.5
    sent.parameters["dry"].bool_param = True
    sent.inputs[0].parameters["content_type"].string_param = "str"
    sent.outputs.add(name="told").parameters["content_type"].string_param = "str"
    response, _ = asked(tmp_path, sent, sent)
    (told,) = outputs_of(response)["told"].ravel()
    assert json.loads(told) == {
        "id": "7",
        "request": {"tenant": "a", "limit": 3, "share": 0.5, "dry": True},
        "inputs": {"text": ["a", "é"]},
        "outputs": {"told": {"content_type": "str"}},
    }
    assert parameters_of(response.parameters) == {"text": "t", "count": 2, "part": 0.5, "yes": True}
    assert parameters_of(response.outputs[0].parameters) == {"content_type": "str"}
    left_out = "parameter 'unsayable' of a model's answer is no text, number or truth, and is left out"
    assert [each.getMessage() for each in caplog.records] == [left_out]


def test_base64_is_decoded_once(tmp_path):
    """ "TWFu" in base64 spells b"Man"; what that spells decoded again would be other bytes."""
    code = """
        from mlserver import MLModel
        from mlserver.codecs import Base64Codec
        from mlserver.types import InferenceResponse, ResponseOutput

        class Model(MLModel):
            async def predict(self, payload):
                (plain,) = self.decode(payload.inputs[0], default_codec=Base64Codec)
                output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[plain])
                return InferenceResponse(model_name=self.name, outputs=[output])
    """
    written(tmp_path, code)
    sent = request(x=np.array([b"VFdGdQ=="], np.object_))
    sent.inputs[0].parameters["content_type"].string_param = "base64"
    (response,) = asked(tmp_path, sent)
    assert outputs_of(response)["y"].tolist() == [b"TWFu"]


def test_the_settings_of_the_very_file_reach_the_model(tmp_path):
    code = """
        import json
        from mlserver import MLModel
        from mlserver.codecs import StringCodec
        from mlserver.types import InferenceResponse

        class Model(MLModel):
            async def predict(self, payload):
                settings = self.settings
                told = [settings.name, self.version, settings.parameters.uri, settings.parameters.extra["a"]]
                told += [settings.parameters.own, settings.versions, self.inputs[0].parameters.content_type]
                return InferenceResponse(model_name="", outputs=[StringCodec.encode_output("told", [json.dumps(told)])])
    """
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1], "parameters": {"content_type": "np"}}]
    folder = written(tmp_path, code, parameters={"extra": {"a": 1}, "own": "b"}, versions=["c"], inputs=inputs)
    (response,) = asked(tmp_path, request())
    assert json.loads(outputs_of(response)["told"][0, 0]) == ["m", None, str(folder), 1, "b", ["c"], "np"]


def test_the_environment_is_a_settings_file_where_there_is_none(tmp_path, monkeypatch):
    (written(tmp_path.parent, DECODES, name=tmp_path.name) / FILE).unlink()
    for name, value in {"IMPLEMENTATION": "models.Model", "NAME": "m", "EXTRA": '{"factor": 3}'}.items():
        monkeypatch.setenv(f"MLSERVER_MODEL_{name}", value)

    async def scenario():
        engine = Engine(Repository(tmp_path, os.environ), Metrics(CollectorRegistry()))
        assert await engine.load_all() == []
        response = await engine.infer(request())
        await engine.close()
        return response

    assert outputs_of(asyncio.run(scenario()))["y"].tolist() == [[3, 6]]


def test_metadata_is_what_the_model_says_once_it_is_loaded(tmp_path):
    code = """
        from mlserver import MLModel
        from mlserver.types import MetadataTensor

        class Model(MLModel):
            async def load(self):
                self.inputs = [MetadataTensor(name="x", datatype="BYTES", shape=[-1])]
                self.outputs = [MetadataTensor(name="y", datatype="FP32", shape=[-1, 2])]
                return True
    """
    written(tmp_path, code, platform="sklearn", parameters={"version": "2"})

    async def scenario():
        async with running(tmp_path) as engine:
            return engine.metadata("m", "")

    metadata = asyncio.run(scenario())
    assert (metadata.name, metadata.platform, metadata.versions) == ("m", "sklearn", ["2"])
    assert [(each.name, each.datatype, each.shape) for each in metadata.inputs] == [("x", "BYTES", [-1])]
    assert [(each.name, each.datatype, each.shape) for each in metadata.outputs] == [("y", "FP32", [-1, 2])]


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "expected"),
    [
        ("[1, 2]", "FP32", (2,), [1, 2]),
        ("[[1, 2], [3, 4]]", "INT8", (2, 2), [[1, 2], [3, 4]]),
        ("np.array([1, 2], 'f8')", "FP32", (2,), [1, 2]),
        ("[True, False]", "BOOL", (2,), [True, False]),
        ("['a', b'b']", "BYTES", (2, 1), [[b"a"], [b"b"]]),
        ("['{\"a\": 1}']", "BYTES", (8,), [b'{"a": 1}']),
        ("np.array(b'abcd')", "BYTES", (2, 2), [b"abcd"]),
        ("[1, 2**63 + 1]", "UINT64", (2,), [1, 2**63 + 1]),
        ("[1.0, True]", "INT64", (2,), [1, 1]),
        ("[0, 1]", "BOOL", (2,), [False, True]),
    ],
)
def test_data_may_be_any_list_or_an_array(tmp_path, data, datatype, shape, expected):
    written(tmp_path, answers(data, datatype, shape))
    (response,) = asked(tmp_path, request())
    found = outputs_of(response)["y"]
    assert found.dtype == DATATYPES[datatype]
    assert found.tolist() == expected


def test_bytes_that_their_numpy_codec_joined_are_taken_apart(tmp_path):
    code = """
        import numpy as np
        from mlserver import MLModel
        from mlserver.codecs import NumpyCodec
        from mlserver.types import InferenceResponse

        class Model(MLModel):
            async def predict(self, payload):
                output = NumpyCodec.encode_output("y", np.array([b"ab", b"cd"]))
                assert output.data.root == [b"abcd"]
                return InferenceResponse(model_name=self.name, outputs=[output])
    """
    written(tmp_path, code)
    (response,) = asked(tmp_path, request())
    assert outputs_of(response)["y"].tolist() == [[b"ab"], [b"cd"]]


@pytest.mark.parametrize(
    ("data", "datatype", "says"),
    [
        ("[1, 2, 3]", "FP32", "cannot reshape array of size 3 into shape (2,)"),
        ("[1.5, 2]", "INT32", "its data are not the values of one INT32 tensor, which are the integers from "),
        ("[300, 2]", "UINT8", "its data are not the values of one UINT8 tensor, which are the integers from 0 to 255"),
        ("['1.5', 2]", "FP32", "its data are not the values of one FP32 tensor"),
        ("[1e300, 2]", "FP32", "its data are not the values of one FP32 tensor"),
        ("[None, 1]", "INT32", "its data are not the values of one INT32 tensor"),
    ],
)
def test_outputs_that_do_not_fit_what_they_say_are_the_models_fault(tmp_path, data, datatype, says):
    written(tmp_path, answers(data, datatype))
    with pytest.raises(Internal) as failed:
        asked(tmp_path, request())
    assert failed.value.message.startswith("output 'y' of the model: ")
    assert says in failed.value.message


def test_two_outputs_of_one_name_are_the_models_fault(tmp_path):
    written(tmp_path, answers("[1, 2]").replace("[output]", "[output, output]"))
    with pytest.raises(Internal, match="model 'm' returned two outputs 'y'; each needs its own name"):
        asked(tmp_path, request())


@pytest.mark.parametrize(
    ("raised", "expected", "says"),
    [
        ("errors.InferenceError('wrong columns')", InvalidArgument, "wrong columns"),
        ("errors.MLServerError('no such thing', 404)", NotFound, "no such thing"),
        ("errors.MLServerError('out of range', 422)", InvalidArgument, "out of range"),
        ("errors.MLServerError('too much', 429)", ResourceExhausted, "too much"),
        ("errors.MLServerError('broken', 500)", Internal, "broken"),
        ("errors.ModelNotReady('m')", Unavailable, "Model m is not ready yet."),
        ("errors.InvalidModelURI('m', 'x')", FailedPrecondition, r"Invalid URI specified for model m \(x\)"),
        ("errors.ModelParametersMissing('m')", FailedPrecondition, "Parameters missing for model m"),
        ("codecs.errors.CodecError('odd')", InvalidArgument, "There was an error encoding / decoding the payload: odd"),
        ("KeyError('x')", Internal, "model 'm' failed: KeyError: 'x'"),
        ("NotImplementedError()", Internal, "model 'm' failed: NotImplementedError$"),
        ("asyncio.CancelledError()", Internal, "model 'm' failed: CancelledError$"),
    ],
)
def test_their_errors_become_ours(tmp_path, raised, expected, says):
    code = f"""
        import asyncio
        from mlserver import MLModel, codecs, errors
        import mlserver.codecs.errors

        class Model(MLModel):
            async def predict(self, payload):
                raise {raised}
    """
    written(tmp_path, code)
    with pytest.raises(expected, match=says) as failed:
        asked(tmp_path, request())
    assert type(failed.value) is expected


@pytest.mark.parametrize("kind", ["MLServerError('no', {})", "HTTPException({}, 'no')"])
@pytest.mark.parametrize(
    ("status", "expected", "http"),
    [
        (400, InvalidArgument, 422),  # a 400 would have Seldon's agent reload the model and ask again
        (401, Unauthenticated, 401),
        (403, PermissionDenied, 403),
        (409, AlreadyExists, 409),
        (418, InvalidArgument, 418),
        ("HTTPStatus.LOCKED", InvalidArgument, 423),
        (501, Unimplemented, 501),
        (502, Internal, 502),
        (504, DeadlineExceeded, 504),
        (200, Internal, 500),
        (302, Internal, 500),
    ],
)
def test_a_status_that_a_model_raises_is_that_of_its_answer(tmp_path, kind, status, expected, http):
    code = f"""
        from http import HTTPStatus
        from fastapi import HTTPException
        from mlserver import MLModel
        from mlserver.errors import MLServerError

        class Model(MLModel):
            async def predict(self, payload):
                raise {kind.format(status)}
    """
    written(tmp_path, code)
    with pytest.raises(CallError, match=r"^no$") as failed:
        asked(tmp_path, request())
    assert (failed.value.code, failed.value.fault, failed.value.http) == (expected.code, expected.fault, http)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("None", "model 'm' returned NoneType, not an InferenceResponse"),
        ("{}", "model 'm' returned dict, not an InferenceResponse"),
        ("missing", "the model's output 'y': element 1 of a BYTES tensor is NoneType; it must be bytes or str"),
    ],
)
def test_what_is_no_answer_of_v2_is_the_models_fault(tmp_path, returned, says):
    code = f"""
        from mlserver import MLModel
        from mlserver.types import InferenceResponse, ResponseOutput

        output = ResponseOutput(name="y", shape=[2], datatype="BYTES", data=["a", None])
        missing = InferenceResponse(model_name="m", outputs=[output])

        class Model(MLModel):
            async def predict(self, payload):
                return {returned}
    """
    written(tmp_path, code)
    with pytest.raises(Internal) as failed:
        asked(tmp_path, request())
    assert failed.value.message == says


def test_a_pandas_model_knows_a_missing_text_in_json_of_its_own(tmp_path):
    """BYTES have no null; MLServer's own clients, asking with a frame, write it like this."""
    code = """
        import pandas as pd
        from mlserver import MLModel
        from mlserver.codecs import PandasCodec

        class Model(MLModel):
            async def predict(self, payload):
                frame = self.decode_request(payload, default_codec=PandasCodec)
                return PandasCodec.encode_response(self.name, pd.DataFrame({"missing": frame["x"].isna().tolist()}))
    """
    written(tmp_path, code)
    sent = request(x=np.array([b'"a"', b"null", b'""'], np.object_))
    sent.inputs[0].parameters["content_type"].string_param = "pd_json"
    (response,) = asked(tmp_path, sent)
    assert outputs_of(response)["missing"].ravel().tolist() == [False, True, False]
