"""Models on NumPy as MLServer's documentation has them, by its codecs."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

Arrays = dict[str, Any]


class _Plain(MLModel):  # type: ignore[misc]  # MLServer ships no types
    codec: Any = NumpyCodec

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self.run({each.name: self.decode(each, default_codec=self.codec) for each in payload.inputs})
        outputs = []
        for name in [each.name for each in payload.outputs or []] or answers:
            if name not in answers:
                raise InferenceError(f"there is no output {name}")
            outputs.append(self.codec.encode_output(name, answers[name]))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    def run(self, arrays: Arrays) -> Arrays:
        raise NotImplementedError


class Echo(_Plain):
    """y = x."""

    def run(self, arrays: Arrays) -> Arrays:
        return {"y": arrays["x"]}


class Text(Echo):
    """y = x, for texts."""

    codec = StringCodec


class Sum(_Plain):
    """Two inputs, two outputs."""

    def run(self, arrays: Arrays) -> Arrays:
        return {"sum": arrays["a"] + arrays["b"], "difference": arrays["a"] - arrays["b"]}


class Choosy(Echo):
    """y = x, and an error for more than 1."""

    def run(self, arrays: Arrays) -> Arrays:
        if (arrays["x"] > 1).any():
            raise ValueError("too large")
        return super().run(arrays)
