"""Models written for MLServer, and an engine that hosts them, for tests."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from textwrap import dedent

import numpy as np
from prometheus_client import CollectorRegistry

from protos.messages import ModelInferRequest
from protos.tensors import add_inputs
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.settings import FILE

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
