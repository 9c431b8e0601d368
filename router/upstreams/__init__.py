"""Who answers for an arm: the engine in this process, or a remote server."""

from __future__ import annotations

from typing import Protocol

from protos.messages import ModelMetadataResponse
from router.call import Call, Reply


class Upstream(Protocol):
    """A Handler that can also say what it serves. Every method may raise a CallError."""

    async def __call__(self, call: Call) -> Reply:
        """Answers the call with this arm's model, whatever model name the call carries."""

    async def metadata(self) -> ModelMetadataResponse:
        """Inputs and outputs of the model."""

    async def ready(self) -> bool:
        """Whether the model can infer now; False, not an error, when nobody answers."""

    async def close(self) -> None:
        """Lets go of connections, once calls in flight are done."""
