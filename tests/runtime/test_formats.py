from __future__ import annotations

import json
import os
import re
from textwrap import dedent

import httpx
import pytest
import torch

from protos.errors import FailedPrecondition
from runtime.export import export
from runtime.formats import FORMATS
from tests.process import Runtime
from tests.runtime.models import Times, load_from, put, tensor
from tests.runtime.test_onnx import graph

TENSORS = {"inputs": [tensor("x", "FP32", -1, 2)], "outputs": [tensor("output", "FP32", -1, 2)]}

HOSTED = """
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse

    class Twice(MLModel):
        async def predict(self, payload):
            x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
            return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", 2 * x)])
"""

PLAIN = """
    class Twice:
        def predict(self, inputs):
            return {"output": 2 * inputs["x"]}
"""


def test_one_server_has_models_of_every_format(tmp_path):
    pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")
    models = tmp_path / "models"
    example = [torch.ones(2, 2)]
    export(Times(2.0), example, models / "scripted", formats=["pt"])
    export(Times(2.0), example, models / "exported", formats=["pt2"])
    folder = put(models, "onnx", implementation="runtime.OnnxModel", inputs=None, outputs=None)
    same = ("FP32", "n", 2)
    (folder / "model.onnx").write_bytes(graph([("Add", ["x", "x"], ["output"])], {"x": same}, {"output": same}))
    for name, code in (("plain", PLAIN), ("hosted", HOSTED)):
        folder = put(models, name, implementation="models.Twice", platform=f"{name}_python", **TENSORS)  # type: ignore[arg-type]
        (folder / "models.py").write_text(dedent(code))
    platforms = {
        "scripted": "pytorch_torchscript",
        "exported": "pytorch_exported",
        "onnx": "onnxruntime_onnx",
        "plain": "plain_python",
        "hosted": "hosted_python",
    }
    asked = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    with Runtime(models, tmp_path / "server") as server, httpx.Client(base_url=f"http://{server.address}/v2") as client:
        for name, platform in platforms.items():
            assert client.get(f"/models/{name}").raise_for_status().json()["platform"] == platform
            answer = client.post(f"/models/{name}/infer", content=json.dumps(asked)).raise_for_status().json()
            (output,) = answer["outputs"]
            assert (output["name"], output["shape"], output["data"]) == ("output", [2, 2], [2, 4, 6, 8]), name
        assert server.stop() == 0


@pytest.mark.parametrize("implementation", FORMATS)
def test_more_threads_than_cores_are_refused_before_a_file_is_looked_for(tmp_path, implementation):
    cores = os.cpu_count() or 1
    put(tmp_path, "m", implementation=implementation, parameters={"extra": {"threads": str(cores + 1)}})
    says = f"{tmp_path}/m/model-settings.json: parameters.extra.threads: {cores + 1}; this machine has {cores} cores"
    with pytest.raises(FailedPrecondition, match=re.escape(says)):
        load_from(tmp_path)
