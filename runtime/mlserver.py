"""Our formats under a stock MLServer: `"implementation": "runtime.TorchScriptModel"` for `mlserver start`.

Batching is ours, natural and with a queue limit. MLServer's own, where its settings ask for it, is in front of that and
keeps its faults; its worker processes work too.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
)
from numpy.typing import NDArray

from protos.errors import CallError, Code, FailedPrecondition, InvalidArgument
from protos.infer_json import choice_of, parameters_of
from protos.messages import ModelInferRequest
from protos.tensors import DATATYPES, add_inputs, outputs_of
from runtime import formats
from runtime.batched import Batched
from runtime.environment import as_file, told_by
from runtime.formats.mlserver_numbers import numbers_of
from runtime.metrics import ModelMetrics
from runtime.prepare import prepare
from runtime.settings import FILE, ModelSettings, read_settings
from runtime.tensor_service import TensorService


class FormatModel(MLModel):  # type: ignore[misc]  # MLServer ships no types
    """A model of one of our formats, as MLServer's runtimes are."""

    _service: TensorService | None = None  # MLServer also makes models that it does not load: workers do

    async def load(self) -> bool:
        try:
            settings, folder = self._told()
            model, times, explainer = await asyncio.to_thread(prepare, formats.load, settings, folder)
        except CallError as error:
            raise _refusal(error) from error
        metrics = ModelMetrics()
        batched = Batched(model, settings, metrics, times)
        self._service = TensorService(batched, settings, model.platform, metrics, explainer)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if self._service is None:
            raise MLServerError(f"model {self.name!r} is not loaded", Code.INTERNAL.http)
        request = ModelInferRequest(model_name=self.name)
        try:
            for tensor in payload.inputs:
                add_inputs(request, {tensor.name: _array(tensor)}, raw=True)
            for output in payload.outputs or []:
                request.outputs.add(name=output.name)
            _pass_on(payload.parameters, request)
            response = await self._service.infer(request, None)
        except CallError as error:
            raise _refusal(error) from error
        # Not by its NumpyCodec, which makes null of NaN, and then gRPC fails.
        outputs = [
            ResponseOutput(
                name=output.name,
                datatype=output.datatype,
                shape=output.shape[:],
                data=array.ravel().tolist(),
                parameters=Parameters(content_type="np"),
            )
            for output, array in zip(response.outputs, outputs_of(response).values(), strict=True)
        ]
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=outputs,
            parameters=Parameters(**parameters_of(response.parameters)) if response.parameters else None,
        )

    async def unload(self) -> bool:
        service, self._service = self._service, None
        if service is not None:
            await service.close()
        return True

    async def metadata(self) -> MetadataModelResponse:
        metadata = await super().metadata()
        if self._service is not None and not metadata.platform:
            metadata.platform = self._service.metadata().platform
        return metadata

    def _told(self) -> tuple[ModelSettings, Path]:
        """What the settings file says, and its folder; name and version as MLServer has them."""
        source = self.settings._source  # noqa: SLF001 - MLServer has no other way to the folder
        if not source:
            raise FailedPrecondition(f"model {self.name!r} comes without a {FILE}, which it is read from")
        path = Path(source)
        told = as_file(told_by(os.environ))
        settings = read_settings(path, name=self.name, version=self.version or "", told=told)
        for spec in (*settings.inputs, *settings.outputs):
            if spec.datatype == "BF16":
                raise FailedPrecondition(f"{path}: {spec.name!r} is BF16, which MLServer's types do not have")
        return replace(settings, name=self.name, version=self.version or ""), path.parent


def _pass_on(parameters: Parameters | None, request: ModelInferRequest) -> None:
    """Adds the client's parameters to a request, without those that MLServer has a name for."""
    for name, value in ((parameters.model_extra or {}) if parameters else {}).items():
        if choice := choice_of(value):
            setattr(request.parameters[name], choice, value)
        elif isinstance(value, int):
            raise InvalidArgument(f"parameter {name!r} is {value}, which 64 bits cannot hold")


def _array(tensor: RequestInput) -> NDArray[Any]:
    """The data of an input, flat or nested, as an array of its shape. A null, as MLServer writes NaN, is NaN."""
    datatype, shape = str(getattr(tensor.datatype, "value", tensor.datatype)), list(tensor.shape)
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise InvalidArgument(f"input {tensor.name!r}: unknown datatype {datatype!r}")
    data = getattr(tensor.data, "root", tensor.data)
    if dtype.kind == "O":
        values = np.array([each.encode() if isinstance(each, str) else each for each in data], np.object_)
    else:
        try:
            values = numbers_of(data, datatype, strict=True)
        except ValueError as error:
            raise InvalidArgument(f"input {tensor.name!r}: {error}") from None
    try:
        return values.reshape(shape)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"input {tensor.name!r}: shape {shape} does not hold {values.size} elements") from None


def _refusal(error: CallError) -> MLServerError:
    # MLServer's gRPC side knows 400, not 422, as INVALID_ARGUMENT.
    return MLServerError(error.message, 400 if error.code is Code.INVALID_ARGUMENT else error.code.http)
