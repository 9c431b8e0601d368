"""The models that both servers hold: the same settings files, and the same classes written for each of the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from protos.tensors import DATATYPES
from tests.runtime.models import Mlp, save

# NumPy in MLServer's way, by its own codecs, as its documentation shows it.
_THEIRS = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse


class Model(MLModel):
    codec = NumpyCodec

    async def load(self):
        return True

    async def predict(self, payload):
        arrays = {each.name: self.decode(each, default_codec=self.codec) for each in payload.inputs}
        outputs = self.run(arrays)
        wanted = [each.name for each in payload.outputs or []] or list(outputs)
        for name in wanted:
            if name not in outputs:
                raise InferenceError(f"there is no output {name}")
        outputs = [self.codec.encode_output(name, outputs[name]) for name in wanted]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


class Echo(Model):
    def run(self, arrays):
        return {"y": arrays["x"]}


class Text(Echo):
    codec = StringCodec


class Sum(Model):
    def run(self, arrays):
        return {"sum": arrays["a"] + arrays["b"], "difference": arrays["a"] - arrays["b"]}


class Choosy(Model):
    def run(self, arrays):
        if (arrays["x"] > 1).any():
            raise ValueError("too large")
        return {"y": arrays["x"]}
"""

_OURS = """
class Echo:
    def predict(self, inputs):
        return {"y": inputs["x"]}


Text = Echo


class Sum:
    def predict(self, inputs):
        return {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}


class Choosy:
    def predict(self, inputs):
        if (inputs["x"] > 1).any():
            raise ValueError("too large")
        return {"y": inputs["x"]}
"""

# One class for both, as it was written for MLServer: it tells what its codecs made of the first input.
_HOSTED = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError, ModelParametersMissing
from mlserver.types import InferenceResponse, Parameters


class Tells(MLModel):
    async def predict(self, payload):
        first = payload.inputs[0]
        if first.name == "wrong":
            raise InferenceError("wrong input")
        if first.name == "worse":
            raise ModelParametersMissing(self.name)
        if first.name == "worst":
            raise KeyError("x")
        decoded = self.decode(first, default_codec=NumpyCodec)
        values = decoded.values.tolist() if hasattr(decoded, "values") else list(decoded)
        asked = payload.parameters.model_dump() if payload.parameters else {}
        told = [type(decoded).__name__, repr(values), repr({key: asked[key] for key in asked if key != "headers"})]
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[StringCodec.encode_output("told", told)],
            parameters=Parameters(flag=True, number=3, text="yes"),
        )


class Doubles(MLModel):
    async def predict(self, payload):
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", 2 * x)])
"""


class _Model(NamedTuple):
    implementation: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    more: dict[str, Any] = {}


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _echo(datatype: str, *shape: int, made_of: str = "plain.Echo", **more: Any) -> _Model:
    return _Model(made_of, [_tensor("x", datatype, *shape)], [_tensor("y", datatype, *shape)], more)


_PAIR = [_tensor("a", "FP32", -1, 3), _tensor("b", "FP32", -1, 3)]
_BATCHED = {"max_batch_size": 3, "max_batch_time": 0.2}

MODELS: dict[str, _Model] = {
    **{datatype.lower(): _echo(datatype, -1, -1) for datatype in DATATYPES if datatype not in {"BF16", "BYTES"}},
    "bytes": _echo("BYTES", -1, 1, made_of="plain.Text"),
    "vector": _echo("FP32", -1),
    "cube": _echo("FP32", -1, 2, 2),
    "choosy": _echo("FP32", -1, 1, made_of="plain.Choosy", platform="numpy"),
    "sum": _Model(
        "plain.Sum", _PAIR, [_tensor("sum", "FP32", -1, 3), _tensor("difference", "FP32", -1, 3)], {"platform": "numpy"}
    ),
    "batched": _echo("FP32", -1, -1, **_BATCHED),
    "net": _Model("runtime.TorchScriptModel", [_tensor("x", "FP32", -1, 4)], [_tensor("y", "FP32", -1, 1)]),
    "tells": _Model("hosted.Tells", [], [], {"platform": "told"}),
    "doubles": _echo("FP64", -1, 2, made_of="hosted.Doubles"),
    "versions/1": _echo("FP32", -1, 1, parameters={"version": "1"}),
    "versions/2": _echo("FP32", -1, 1, parameters={"version": "2"}),
    "versions/10": _echo("FP32", -1, 1, parameters={"version": "10"}),
}

# Not there when the servers start: MLServer does not start with a model that does not load.
LATER: dict[str, _Model] = {
    "late": _echo("FP32", -1, 1),
    "broken": _echo("FP32", -1, 1, made_of="plain.Missing"),
    "bf16": _echo("BF16", -1, -1),
}


def write(root: Path, models: dict[str, _Model], *, theirs: bool) -> None:
    """Writes the folders of `models` below `root`, for MLServer or for us."""
    for path, model in models.items():
        folder = root / path
        folder.mkdir(parents=True)
        settings = {"name": path.partition("/")[0], "implementation": model.implementation, **model.more}
        settings |= {"inputs": model.inputs, "outputs": model.outputs}
        if model.implementation == "runtime.TorchScriptModel":
            save(Mlp(), folder / "model.pt")
        else:
            (folder / "plain.py").write_text(_THEIRS if theirs else _OURS)
            (folder / "hosted.py").write_text(_HOSTED)
        (folder / "model-settings.json").write_text(json.dumps(settings))


