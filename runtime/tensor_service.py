"""A model that runs on arrays as a servable: checks a request's tensors and puts the response together."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from numpy.typing import NDArray

from protos.errors import InvalidArgument, Unimplemented
from protos.grpc import Rpc
from protos.infer_json import parameters_of, tell
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse, ModelMetadataResponse
from protos.tensors import DATATYPES, add_outputs, inputs_of
from runtime.explain import EXPLAIN, Explainer, Question
from runtime.explained import Explained
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, Arrays, Parameters, SharedModel, TensorSpec, told
from runtime.settings import ModelSettings
from runtime.words import quoted

_NOT_HERE = {  # of Triton's extensions, those that change what an output is
    "classification": "ask for the output itself, and take its largest values",
    "shared_memory_region": "ask for binary_data, or over gRPC with raw buffers",
}


class TensorService:
    """Answers V2 requests from a model that runs on arrays, under the name and version of its settings.

    To what is made of it, it is that model, whose tensors are checked: a SharedModel.
    """

    def __init__(
        self,
        model: SharedModel,
        settings: ModelSettings,
        platform: str,
        metrics: ModelMetrics,
        explainer: Explainer | None = None,
    ) -> None:
        self.model = model
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.memory = model.memory
        self.shares_runs = model.shares_runs
        self._explained = Explained(model, explainer, settings, metrics)
        self._name = settings.name
        self._version = settings.version
        self._platform = platform
        self._content_type = settings.content_type
        self._inputs = {spec.name: _Input(spec) for spec in model.inputs}
        self._outputs = [spec.name for spec in model.outputs]

    @property
    def reads_parameters(self) -> bool:
        return self.model.reads_parameters

    def admit(self) -> None:
        self.model.admit()

    async def infer(self, request: InferRequest, deadline: float | None, rpc: Rpc | None = None) -> ModelInferResponse:
        wanted = self._wanted(request) if request.outputs else None
        arrays = inputs_of(request)
        self._check(arrays)
        parameters, question = self._told(request) if request.parameters else (NOTHING, None)
        explanation: Arrays = {}
        if question is None:
            outputs = await self.model.run(arrays, parameters, deadline)
        else:
            outputs, explanation = await self._explained.run(arrays, question, deadline)
        response = ModelInferResponse(model_name=self._name, model_version=self._version, id=request.id)
        if wanted:
            outputs = {name: outputs[name] for name in wanted}
        if question is not None:
            outputs = {**outputs, **explanation}
            question.tell(response)
        add_outputs(response, outputs, raw=bool(request.raw_input_contents))
        return response

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Awaitable[Arrays]:
        """What the model answers as a part of another. Raises InvalidArgument for other tensors than it declares."""
        for name, array in arrays.items():
            if not self._inputs[name].fits(array):
                raise InvalidArgument(f"part {self._name!r}: {self._inputs[name]}; it is given {told(array)}")
        if parameters and not self.model.reads_parameters:
            parameters = NOTHING  # so that calls of others share its runs
        return self.model.run(arrays, parameters, deadline)

    def metadata(self) -> ModelMetadataResponse:
        metadata = ModelMetadataResponse(name=self._name, platform=self._platform)
        for tensors, specs in ((metadata.inputs, self.model.inputs), (metadata.outputs, self.model.outputs)):
            for spec in specs:
                tensor = tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
                tell(tensor.parameters, spec.parameters)
        if self._content_type:
            tell(metadata.parameters, {"content_type": self._content_type})
        return metadata

    async def close(self) -> None:
        await self._explained.close()
        await self.model.close()

    def _told(self, request: InferRequest) -> tuple[Parameters, Question | None]:
        """The parameters of a request that the model reads; if it reads none, what they ask to have explained."""
        if self.model.reads_parameters:
            return parameters_of(request.parameters), None
        if EXPLAIN in request.parameters:
            return NOTHING, self._explained.question(parameters_of(request.parameters))
        return NOTHING, None

    def _wanted(self, request: InferRequest) -> list[str]:
        wanted: list[str] = []
        for output in request.outputs:
            if output.name not in self._outputs:
                raise InvalidArgument(f"output {output.name!r} is not one of the model's: {quoted(self._outputs)}")
            if output.name in wanted:
                raise InvalidArgument(f"output {output.name!r} is asked for twice")
            for parameter in output.parameters:
                if parameter in _NOT_HERE:
                    raise Unimplemented(
                        f"output {output.name!r}: parameter {parameter!r} is not supported; {_NOT_HERE[parameter]}"
                    )
            wanted.append(output.name)
        return wanted

    def _check(self, arrays: Arrays) -> None:
        """Raises InvalidArgument unless the names, datatypes and shapes are those that the model declares."""
        if arrays.keys() != self._inputs.keys():
            raise InvalidArgument(self._wrong_names(arrays))
        for name, array in arrays.items():
            if not self._inputs[name].fits(array):
                raise InvalidArgument(f"{self._inputs[name]}; the request has {told(array)}")

    def _wrong_names(self, arrays: Arrays) -> str:
        missing = [name for name in self._inputs if name not in arrays]
        unexpected = [name for name in arrays if name not in self._inputs]
        said = [f"input {name!r} is missing" for name in missing]
        said += [f"input {name!r} is unexpected" for name in unexpected]
        return f"{'; '.join(said)}; the model takes {quoted(self._inputs)}"


class _Input:
    """The check of one input, prepared."""

    __slots__ = ("_dtype", "_fixed", "_rank", "_spec")

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = DATATYPES[spec.datatype]
        self._rank = len(spec.shape)
        self._fixed = [(axis, size) for axis, size in enumerate(spec.shape) if size >= 0]

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether datatype, rank and fixed dimensions are the declared ones."""
        shape = array.shape
        if array.dtype != self._dtype or len(shape) != self._rank:
            return False
        for axis, size in self._fixed:  # noqa: SIM110 - a generator takes three times as long
            if shape[axis] != size:
                return False
        return True

    def __str__(self) -> str:
        return f"input {self._spec.name!r} is declared {self._spec}"
