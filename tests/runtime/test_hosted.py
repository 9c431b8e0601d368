from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from textwrap import dedent

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
from protos.messages import ModelInferRequest
from protos.tensors import DATATYPES, add_inputs, outputs_of
from runtime.engine import Engine
from runtime.formats import load
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.settings import FILE
from tests.process import ROOT, until

pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")

ECHO = """
    from mlserver import MLModel
    from mlserver.types import InferenceResponse, ResponseOutput

    class Model(MLModel):
        async def predict(self, payload):
            outputs = [
                ResponseOutput(name=each.name, shape=each.shape, datatype=each.datatype, data=each.data)
                for each in payload.inputs
            ]
            return InferenceResponse(model_name=self.name, outputs=outputs)
"""

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


def written(root, code, name="m", implementation="models.Model", **settings):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"implementation": implementation, **settings}))
    (folder / "models.py").write_text(dedent(code))
    return folder


@asynccontextmanager
async def running(root):
    engine = Engine(Repository(root), Metrics(CollectorRegistry()))
    try:
        failed = await engine.load_all()
        assert not failed, failed[0].reason
        yield engine
    finally:
        await engine.close()


def request(raw=True, name="m", **arrays):
    asked = ModelInferRequest(model_name=name, id="7")
    add_inputs(asked, arrays or {"x": np.array([[1, 2]], np.float32)}, raw=raw)
    return asked


def asked(root, *requests):
    """The answers of a new engine."""

    async def scenario():
        async with running(root) as engine:
            return [await engine.infer(each) for each in requests]

    return asyncio.run(scenario())


def refusal(root, **settings):
    async def scenario():
        engine = Engine(Repository(root), Metrics(CollectorRegistry()))
        (failed,) = await engine.load_all()
        await engine.close()
        return failed.reason

    return asyncio.run(scenario())


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


def answers(data, datatype="FP32", shape=(2,)):
    return f"""
        import numpy as np
        from mlserver import MLModel
        from mlserver.types import InferenceResponse, ResponseOutput

        class Model(MLModel):
            async def predict(self, payload):
                output = ResponseOutput(name="y", shape={list(shape)}, datatype="{datatype}", data={data})
                return InferenceResponse(model_name=self.name, outputs=[output])
    """


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
        ("[2**63]", "UINT64", (1,), [2**63]),
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
        ("[1.5, 2]", "INT32", "it holds what int32 cannot"),
        ("[300, 2]", "UINT8", "it holds what uint8 cannot"),
        ("['a', 'b']", "FP32", "could not convert string to float"),
        ("[None, 1]", "INT32", "int()"),
    ],
)
def test_outputs_that_do_not_fit_what_they_say_are_the_models_fault(tmp_path, data, datatype, says):
    written(tmp_path, answers(data, datatype))
    with pytest.raises(Internal) as failed:
        asked(tmp_path, request())
    assert failed.value.message.startswith("output 'y' of the model: ")
    assert says in failed.value.message


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
        ("NotImplementedError()", Internal, "model 'm' failed: NotImplementedError: "),
        ("asyncio.CancelledError()", Internal, "model 'm' failed: CancelledError: "),
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


LOADS = """
    from pathlib import Path
    from mlserver import MLModel

    class Model(MLModel):
        async def load(self):
            {load}

        async def unload(self):
            (Path(__file__).parent / "unloaded").touch()
            return True
"""


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ("return False", "Model.load() does not return True: the model is not ready"),
        ("pass", "Model.load() does not return True: the model is not ready"),
        ("return 1 / 0", "models.py, line 7: ZeroDivisionError: division by zero"),
        ("raise __import__('mlserver').errors.InvalidModelURI('m')", "line 7: InvalidModelURI: Invalid URI specified"),
    ],
)
def test_a_model_that_is_not_ready_is_refused_and_unloaded(tmp_path, load, says):
    folder = written(tmp_path, LOADS.format(load=load))
    threads = threading.active_count()
    assert says in refusal(tmp_path)
    assert (folder / "unloaded").exists()
    until(lambda: threading.active_count() <= threads + 1)  # and its loop goes on no longer


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"parameters": {"environment_tarball": "./x.tar.gz"}}, "models share this server's environment"),
        ({"cache_enabled": "perhaps"}, "cache_enabled: Input should be a valid boolean"),
        ({"implementation": "mlserver_nobody.Model"}, "no module 'mlserver_nobody' is installed; MLServer and its"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tmp_path, settings, says):
    written(tmp_path, ECHO, **settings)
    assert says in refusal(tmp_path)


def test_a_model_of_theirs_does_not_run_on_arrays(tmp_path):
    written(tmp_path, ECHO)
    (found,) = Repository(tmp_path).scan()
    assert found.settings
    with pytest.raises(FailedPrecondition, match=r"'models\.Model' does not run on arrays"):
        load(found.settings, found.folder)


class Gate:
    """Holds a model up, and counts what entered; the models of these tests find it by importing this module."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.runs = 0


gate = Gate()

GATED = """
    from pathlib import Path
    from mlserver import MLModel
    from mlserver.types import InferenceResponse
    from tests.runtime import test_hosted

    class Model(MLModel):
        async def predict(self, payload):
            gate = test_hosted.gate
            gate.runs += 1
            gate.entered.release()
            assert gate.open.wait(60)
            return InferenceResponse(model_name=self.name, outputs=[])

        async def unload(self):
            (Path(__file__).parent / "unloaded").touch()
            return True
"""


@pytest.fixture
def blocked(tmp_path, monkeypatch):
    """Runs a scenario with an engine whose model is held up in its first call."""
    monkeypatch.setattr(sys.modules[__name__], "gate", Gate())

    def run(scenario, **options):
        folder = written(tmp_path, GATED, parameters={"extra": options})

        async def whole():
            async with running(tmp_path) as engine:
                first = asyncio.create_task(engine.infer(request()))
                await asyncio.to_thread(gate.entered.acquire)
                try:
                    await scenario(engine, first, folder)
                finally:
                    gate.open.set()

        asyncio.run(whole())

    return run


def test_a_model_that_blocks_holds_up_nobody_else(blocked):
    async def scenario(_engine, first, _folder):
        gate.open.set()  # by the event loop of the server, which has a turn though the model waits
        assert (await asyncio.wait_for(first, 60)).id == "7"

    blocked(scenario)


def test_unloading_waits_for_the_calls_that_are_there(blocked):
    async def scenario(engine, first, folder):
        second = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        unloading = asyncio.create_task(engine.unload("m"))
        await asyncio.sleep(0)
        assert not (folder / "unloaded").exists()
        gate.open.set()
        await asyncio.wait_for(unloading, 60)
        assert first.done()
        assert (await second).id == "7"
        assert (folder / "unloaded").exists()

    blocked(scenario)


def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(blocked):
    async def scenario(engine, first, _folder):
        late = asyncio.create_task(engine.infer(request(), deadline=asyncio.get_running_loop().time()))
        await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(DeadlineExceeded, match="the deadline passed while the call waited for its turn"):
            await late
        await first
        assert gate.runs == 1

    blocked(scenario)


def test_a_cancelled_call_is_not_run_and_harms_no_other(blocked):
    async def scenario(engine, first, _folder):
        calls = [asyncio.create_task(engine.infer(request())) for _ in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.wait([calls[1]])
        gate.open.set()
        assert [(await each).id for each in (first, calls[0], calls[2])] == ["7", "7", "7"]
        assert gate.runs == 3

    blocked(scenario)


def test_a_full_queue_refuses(blocked):
    async def scenario(engine, first, _folder):
        waiting = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted, match="1 calls already wait for model 'm', as many as may"):
            await engine.infer(request())
        gate.open.set()
        await asyncio.gather(first, waiting)

    blocked(scenario, max_queue=1)


def test_calls_whose_callers_left_stand_in_the_queue_until_their_turn(blocked):
    async def scenario(engine, first, _folder):
        for _ in range(3):
            left = asyncio.create_task(engine.infer(request()))
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.wait([left])
        with pytest.raises(ResourceExhausted, match="2 calls already wait for model 'm', as many as may"):
            await engine.infer(request())
        gate.open.set()
        await first
        assert (await engine.infer(request())).id == "7"

    blocked(scenario, max_queue=2)


def test_a_failure_is_logged_by_its_type_and_place(tmp_path, caplog):
    code = """
        from mlserver import MLModel

        class Model(MLModel):
            async def predict(self, payload):
                raise KeyError("account 4711")
    """

    async def scenario():
        written(tmp_path, code)
        async with running(tmp_path) as engine:
            with pytest.raises(Internal, match="model 'm' failed: KeyError: 'account 4711'"):
                await engine.infer(request())

    asyncio.run(scenario())
    said = [each.getMessage() for each in caplog.records if each.name == "runtime.failure"]
    assert len(said) == 1
    assert re.fullmatch(r"model 'm' failed: KeyError at .*models\.py:6", said[0])


def test_a_model_that_awaits_answers_calls_at_once(tmp_path):
    code = """
        import asyncio
        from mlserver import MLModel
        from mlserver.types import InferenceResponse

        class Model(MLModel):
            async def load(self):
                self.both = asyncio.Barrier(2)
                return True

            async def predict(self, payload):
                await self.both.wait()
                return InferenceResponse(model_name=self.name, outputs=[])
    """
    written(tmp_path, code)

    async def scenario():
        async with running(tmp_path) as engine:
            await asyncio.wait_for(asyncio.gather(engine.infer(request()), engine.infer(request())), 60)

    asyncio.run(scenario())


def test_a_reload_takes_the_new_code(tmp_path):
    written(tmp_path, answers("[1, 2]"))

    async def scenario():
        async with running(tmp_path) as engine:
            assert outputs_of(await engine.infer(request()))["y"].tolist() == [1, 2]
            written(tmp_path, answers("[3, 4]"))
            await engine.load("m")
            assert outputs_of(await engine.infer(request()))["y"].tolist() == [3, 4]

    asyncio.run(scenario())


def test_nobody_else_pays_for_mlserver(tmp_path):
    """It is imported when the first model of its kind is loaded."""
    code = """
        import sys
        from pathlib import Path
        import runtime.__main__
        from runtime.formats import load_any
        from runtime.repository import Repository

        assert "mlserver" not in sys.modules
        for each in Repository(Path(sys.argv[1])).scan():
            load_any(each.settings, each.folder)
            print(each.name, "mlserver" in sys.modules)
    """
    plain = "class Model:\n    def predict(self, inputs):\n        return inputs"
    x = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    written(tmp_path, plain, name="a-plain", inputs=x, outputs=x)
    written(tmp_path, ECHO, name="b-hosted")
    command = [sys.executable, "-c", dedent(code), str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert told.stdout.split() == ["a-plain", "False", "b-hosted", "True"], told.stderr


LEAVES = """
    import sys
    from asyncio import ensure_future, sleep
    from mlserver import MLModel
    from mlserver.types import InferenceResponse

    class Model(MLModel):
        async def load(self):
            self.leave("load")
            return True

        async def unload(self):
            self.leave("unload")
            return True

        async def predict(self, payload):
            self.leave(payload.id)
            if self.settings.parameters.extra["when"] == "task":
                ensure_future(self.later())
                await sleep(0)
            return InferenceResponse(model_name=self.name, outputs=[])

        async def predict_stream(self, payloads):
            async for payload in payloads:
                self.leave(payload.id)
                yield InferenceResponse(model_name=self.name, outputs=[])

        async def later(self):
            sys.exit(3)

        def leave(self, when):
            if when == self.settings.parameters.extra["when"]:
                sys.exit(3)
"""


@pytest.mark.parametrize("when", ["predict", "task", "unload"])
def test_a_model_that_would_end_the_process_ends_its_own_call(tmp_path, when):
    written(tmp_path, LEAVES, parameters={"extra": {"when": when}})
    leaves = request()
    leaves.id = "predict"

    async def scenario():
        async with asyncio.timeout(60), running(tmp_path) as engine:
            if when == "predict":
                with pytest.raises(Internal, match="model 'm' failed: SystemExit: 3"):
                    await engine.infer(leaves)
            else:
                await engine.infer(leaves)
            for _ in range(3):
                await engine.infer(request())

    asyncio.run(scenario())


def test_a_stream_whose_model_would_end_the_process_ends_alone(tmp_path):
    written(tmp_path, LEAVES, parameters={"extra": {"when": "7"}})

    async def none():
        return
        yield

    async def scenario():
        async with asyncio.timeout(60), running(tmp_path) as engine:
            with pytest.raises(Internal, match="model 'm' failed: SystemExit: 3"):
                async for _ in engine.served("m", "").servable.infer_stream(request(), none(), None):
                    pass
            other = request()
            other.id = "8"
            await engine.infer(other)

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["__init__", "load"])
def test_a_model_that_would_end_the_process_as_it_loads_is_refused(tmp_path, when):
    code = LEAVES.replace(
        "async def load", "def __init__(self, settings):\n            sys.exit(3)\n\n        async def load"
    )
    written(tmp_path, LEAVES if when == "load" else code, parameters={"extra": {"when": "load"}})

    async def scenario():
        async with asyncio.timeout(60):
            engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()))
            (failed,) = await engine.load_all()
            await engine.close()
            return failed.reason

    assert re.search(
        r"models\.py, line \d+: RuntimeError: it would end the process, by SystemExit: 3$", asyncio.run(scenario())
    )
