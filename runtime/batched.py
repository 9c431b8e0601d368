"""A model behind its batcher: checks a request, has the model run, and puts the response together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from protos.errors import InvalidArgument
from protos.infer_json import parameters_of
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from protos.tensors import DATATYPES, add_outputs, datatype_of, inputs_of
from runtime.batcher import Batcher
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, Arrays, Model, TensorSpec, batched
from runtime.settings import ModelSettings

QUICK = 200e-6  # seconds; a fullest batch that takes less is run in the event loop: a thread would cost more


class Batched:
    """The servable of a model that runs on arrays. `seconds` is what its fullest batch took at warm-up."""

    def __init__(self, model: Model, settings: ModelSettings, metrics: ModelMetrics, seconds: float) -> None:
        self._model = model
        self._inputs = {spec.name: _Input(spec) for spec in model.inputs}
        self._outputs = [spec.name for spec in model.outputs]
        self._batched = batched(model) and settings.max_batch_size > 1
        # Rows that differ in other dimensions cannot lie in one array.
        self._free = [spec.name for spec in model.inputs if -1 in spec.shape[1:]] if self._batched else []
        self._batcher = Batcher(
            model,
            metrics,
            max_rows=settings.max_batch_size if self._batched else 1,
            max_wait=settings.max_batch_time if self._batched else 0.0,
            max_queue=settings.options.max_queue,
            quick=seconds < QUICK,
        )

    async def infer(self, request: ModelInferRequest, deadline: float | None) -> ModelInferResponse:
        wanted = self._wanted(request) if request.outputs else None
        arrays = inputs_of(request)
        rows = self._check(arrays)
        key: Hashable = tuple([arrays[name].shape[1:] for name in self._free]) if self._free else None
        parameters = NOTHING
        if request.parameters and self._model.reads_parameters:
            parameters = parameters_of(request.parameters)
            key = (key, tuple(sorted(parameters.items())))
        outputs = await self._batcher.submit(arrays, rows, key, deadline, parameters)
        response = ModelInferResponse(model_name=self._model.name, model_version=self._model.version, id=request.id)
        if wanted:
            outputs = {name: outputs[name] for name in wanted}
        add_outputs(response, outputs, raw=bool(request.raw_input_contents))
        return response

    def metadata(self) -> ModelMetadataResponse:
        """Inputs and outputs as declared; `versions` is left to whoever knows the others."""
        model = self._model
        metadata = ModelMetadataResponse(name=model.name, platform=model.platform)
        for tensors, specs in ((metadata.inputs, model.inputs), (metadata.outputs, model.outputs)):
            for spec in specs:
                tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return metadata

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of the model."""
        await self._batcher.close()
        self._model.close()

    def _wanted(self, request: ModelInferRequest) -> list[str]:
        wanted: list[str] = []
        for output in request.outputs:
            if output.name not in self._outputs:
                raise InvalidArgument(f"output {output.name!r} is not one of the model's: {_quoted(self._outputs)}")
            if output.name in wanted:
                raise InvalidArgument(f"output {output.name!r} is asked for twice")
            wanted.append(output.name)
        return wanted

    def _check(self, arrays: Arrays) -> int:
        """The rows of a request. Raises InvalidArgument when it is not what the model declares."""
        if arrays.keys() != self._inputs.keys():
            raise InvalidArgument(self._wrong_names(arrays))
        rows = -1
        for name, array in arrays.items():
            self._inputs[name].check(array)
            if self._batched:
                if rows not in (-1, len(array)):
                    counts = ", ".join(f"{name!r} {len(array)}" for name, array in arrays.items())
                    raise InvalidArgument(f"the inputs differ in their number of rows: {counts}")
                rows = len(array)
        return rows if self._batched else 1

    def _wrong_names(self, arrays: Arrays) -> str:
        missing = [name for name in self._inputs if name not in arrays]
        unexpected = [name for name in arrays if name not in self._inputs]
        said = [f"input {name!r} is missing" for name in missing]
        said += [f"input {name!r} is unexpected" for name in unexpected]
        return f"{'; '.join(said)}; the model takes {_quoted(self._inputs)}"


class _Input:
    """The check of one input, prepared."""

    __slots__ = ("_dtype", "_fixed", "_rank", "_spec")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = DATATYPES[spec.datatype]
        self._rank = len(spec.shape)
        self._fixed = [(axis, size) for axis, size in enumerate(spec.shape) if size >= 0]

    def check(self, array: np.ndarray[Any, Any]) -> None:
        """Raises InvalidArgument unless datatype, rank and fixed dimensions are the declared ones."""
        shape = array.shape
        good = array.dtype == self._dtype and len(shape) == self._rank
        if good:
            for axis, size in self._fixed:
                good = good and shape[axis] == size
        if not good:
            raise InvalidArgument(
                f"input {self._spec.name!r} is declared {self._spec}; "
                f"the request has {datatype_of(array.dtype)} {list(shape)}"
            )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
