"""A V2 model behind gRPC: a server of models, or a mesh of them. The request's bytes are passed on as they came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protos.errors import (
    CallError,
    Code,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    UpstreamError,
)
from protos.messages import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    parse,
)
from protos.v2 import SERVICE
from router.call import Call, Reply
from router.upstreams.channel import Refused
from router.upstreams.hops import passed_on
from router.upstreams.pool import Pool

READY_SECONDS = 2.0
DRAIN_SECONDS = 30.0

SELDON_MODEL = "seldon-model"
"""What a Seldon mesh chooses a model by, and which versions it says it has asked."""

_INFER = SERVICE + "ModelInfer"


class Remote:
    """Serves an arm from V2 gRPC servers. After `timeout_seconds` they have failed."""

    def __init__(
        self,
        pool: Pool,
        model: str,
        version: str = "",
        *,
        timeout_seconds: float = 5.0,
        headers: Sequence[tuple[str, str]] = (),
        told: Sequence[str] = (),
    ) -> None:
        """`headers` go with every call; what the answers' headers say of the names in `told` goes into the Reply."""
        self._pool = pool
        self._model = model
        self._version = version
        self._timeout = timeout_seconds
        self._headers = tuple(headers)
        self._now = asyncio.get_running_loop().time  # to ask for the loop each time is a system call
        self._told = told
        # Appended to a request, this overrides the name it carries: of equal fields, the last one counts.
        self._name = ModelInferRequest(model_name=model, model_version=version).SerializeToString()

    async def __call__(self, call: Call) -> Reply:
        headers = passed_on(call.metadata) + self._headers
        deadline = latest = self._now() + self._timeout
        if call.deadline is not None and call.deadline < latest:
            deadline = call.deadline
        try:
            message, about = await self._pool.call(_INFER, call.body + self._name, headers, deadline)
        except Refused as error:
            if error.code is Code.DEADLINE_EXCEEDED and deadline == latest:
                late = f"the upstream at {self._pool.targets} did not answer within {self._timeout:g} s"
                raise UpstreamError(late, Code.DEADLINE_EXCEEDED, retry=True) from None
            raise self._translated(error) from None
        if not self._told:
            return Reply(message)
        return Reply(message, [(name.encode(), value.encode()) for name in self._told if (value := about.get(name))])

    async def metadata(self) -> ModelMetadataResponse:
        request = ModelMetadataRequest(name=self._model, version=self._version)
        try:
            return parse(ModelMetadataResponse, await self._ask("ModelMetadata", request.SerializeToString()))
        except Refused as error:
            raise self._translated(error) from None
        except InvalidArgument as error:
            message = f"the upstream at {self._pool.targets} says what is no metadata: {error.message}"
            raise UpstreamError(message, Code.INTERNAL) from None

    async def ready(self) -> bool:
        request = ModelReadyRequest(name=self._model, version=self._version)
        try:
            return parse(ModelReadyResponse, await self._ask("ModelReady", request.SerializeToString())).ready
        except (Refused, InvalidArgument):
            return False

    async def close(self) -> None:
        await self._pool.close(DRAIN_SECONDS)

    async def _ask(self, method: str, message: bytes) -> bytes:
        deadline = self._now() + READY_SECONDS
        message, _ = await self._pool.call(SERVICE + method, message, self._headers, deadline)
        return message

    def _translated(self, error: Refused) -> CallError:
        """The error in our words: what the client did wrong stays its fault; a model missing there is the arm's."""
        code = error.code
        if code is Code.INVALID_ARGUMENT:
            return InvalidArgument(error.details)
        if code is Code.RESOURCE_EXHAUSTED:
            return ResourceExhausted(error.details)
        if code is Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the deadline passed before the upstream answered")
        message = (
            f"the upstream at {self._pool.targets} answered {code.name} for model {self._model!r}: {error.details}"
        )
        return UpstreamError(
            message, code if code is Code.UNAVAILABLE else Code.INTERNAL, retry=code is Code.UNAVAILABLE
        )
