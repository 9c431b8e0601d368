"""What a model on arrays tells of itself, and that what is asked of an output and is not done is refused."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import Unimplemented
from protos.infer_json import parameters_of
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs, outputs_of
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.settings import FILE
from tests.runtime.models import Fake, put


def asked(root, parameter, **value):
    """The outputs of a model, of which one is asked for with a parameter."""
    put(root, "m")
    request = ModelInferRequest(model_name="m", outputs=[{"name": "y", "parameters": {parameter: value}}])
    add_inputs(request, {"x": np.ones((1, 4))}, raw=True)

    async def scenario():
        engine = Engine(Repository(root), Metrics(CollectorRegistry()), load=lambda settings, _: Fake(settings.name))
        await engine.load_all()
        try:
            return outputs_of(await engine.infer(request))
        finally:
            await engine.close()

    return asyncio.run(scenario())


def test_classes_in_place_of_an_output_are_refused(tmp_path):
    with pytest.raises(Unimplemented, match="output 'y': parameter 'classification' is not supported; ask for the"):
        asked(tmp_path, "classification", int64_param=3)


def test_an_output_into_shared_memory_is_refused(tmp_path):
    with pytest.raises(Unimplemented, match="'shared_memory_region' is not supported; ask for binary_data, or over"):
        asked(tmp_path, "shared_memory_region", string_param="region")


def test_other_parameters_of_an_output_mean_nothing(tmp_path):
    assert asked(tmp_path, "content_type", string_param="np")["y"].tolist() == [[3.0] * 4]


def test_the_metadata_tells_what_is_declared(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "models.py").write_text("class Model:\n    def predict(self, inputs):\n        return inputs\n")
    said = {"content_type": "np", "mask": 2**63, "nothing": None, "huge": 2**64, "list": []}
    x = {"name": "x", "datatype": "FP32", "shape": [-1], "parameters": said}
    settings = {"implementation": "models.Model", "inputs": [x], "outputs": [{**x, "parameters": None}]}
    (tmp_path / "m" / FILE).write_text(json.dumps({**settings, "parameters": {"content_type": "pd"}}))

    async def scenario():
        engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()))
        assert await engine.load_all() == []
        try:
            return engine.metadata("m", "")
        finally:
            await engine.close()

    told = asyncio.run(scenario())
    assert parameters_of(told.inputs[0].parameters) == {"content_type": "np", "mask": 2**63}
    assert parameters_of(told.outputs[0].parameters) == {}
    assert parameters_of(told.parameters) == {"content_type": "pd"}
