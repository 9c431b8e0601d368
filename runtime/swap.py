"""A reload in place: the new model is loaded when the old one is gone, and calls wait for it.

On a GPU, where memory for both may not be there. The model stays in service all the while: it pauses.
"""

from __future__ import annotations

import asyncio

from protos.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from protos.grpc import Rpc
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse, ModelMetadataResponse
from runtime.model import NOTHING, Arrays, Parameters, SharedModel
from runtime.options import FormatOptions, Options
from runtime.parts import check_fed
from runtime.served import Servable
from runtime.settings import ModelSettings
from runtime.tensor_service import TensorService
from runtime.words import shown


def in_place(old: Options, new: Options) -> bool:
    """Whether a model is loaded only when the one before it is gone: both lie on one GPU, and may not do so at once."""
    return isinstance(new, FormatOptions) and bool(new.gpu) and new.gpu == old.gpu and not new.overlap


def shared_model(servable: Servable, name: str) -> SharedModel:
    """What an ensemble has run as its part. Raises FailedPrecondition for a servable that is no such thing."""
    if not isinstance(servable, Held | TensorService):
        raise FailedPrecondition(f"{shown(name)} does not run on plain tensors, so nothing can be made of it")
    return servable


class Held:
    """Stands where a model stood: calls wait, in their order, until its successor answers them or there is none.

    To clients it is that model; to ensembles, too, it is a part as before. Belongs to one event loop.
    """

    memory = 0

    def __init__(self, replaced: Servable, settings: ModelSettings) -> None:
        self._name = settings.name
        self._most = settings.options.max_queue
        self._replaced = replaced
        self._waiting = 0
        self._over = asyncio.Event()  # which wakes them in their order
        self._successor: Servable | None = None
        self._reason = ""
        self._part = shared_model(replaced, self._name)
        self.inputs = self._part.inputs
        self.outputs = self._part.outputs
        self.reads_parameters = self._part.reads_parameters
        self.shares_runs = self._part.shares_runs

    def gives_way(self, successor: Servable) -> None:
        """Has another servable answer the calls."""
        self._successor = successor
        self._over.set()

    def fails(self, reason: str) -> None:
        """Answers the calls with Unavailable, for this reason."""
        self._reason = reason
        self._over.set()

    def admit(self) -> None:
        if self._waiting >= self._most:
            raise ResourceExhausted(
                f"{self._waiting} calls already wait while model {self._name!r} is loaded anew, as many as may; try "
                f"again later"
            )

    async def infer(self, request: InferRequest, deadline: float | None, rpc: Rpc | None = None) -> ModelInferResponse:
        return await (await self._awaited(deadline)).infer(request, deadline, rpc)

    async def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Arrays:
        """What the successor answers. Raises FailedPrecondition where its tensors are others than before."""
        model = shared_model(await self._awaited(deadline), self._name)
        now = f"{self._name!r} as it is loaded now"
        check_fed(model.inputs, {spec.name: spec for spec in self._part.inputs}, now)
        check_fed(self._part.outputs, {spec.name: spec for spec in model.outputs}, f"what is made of {now}")
        self.inputs, self.outputs = model.inputs, model.outputs  # for who runs it and looks at the answer
        return await model.run({spec.name: arrays[spec.name] for spec in model.inputs}, parameters, deadline)

    def metadata(self) -> ModelMetadataResponse:
        return self._replaced.metadata()

    async def close(self) -> None:
        """Nothing: the model before is closed already, and its successor is served."""

    async def _awaited(self, deadline: float | None) -> Servable:
        """The successor. Raises Unavailable when there is none, and what waiting does."""
        self.admit()
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._over.wait()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the model was loaded anew") from None
        finally:
            self._waiting -= 1
        if self._successor is None:
            raise Unavailable(f"model {self._name!r} is served no more, as it could not be loaded anew: {self._reason}")
        return self._successor
