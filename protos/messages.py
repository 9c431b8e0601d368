"""The protobuf messages, from a private descriptor pool.

MLServer, Triton's client and KServe each register `inference.*` in protobuf's default pool, where any two of them
clash. Ours lives in its own pool, so that it can be imported beside any of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from protos.errors import InvalidArgument

if TYPE_CHECKING:
    from protos.croupier_pb2 import (
        DecideRequest,
        Decision,
        DescribeRouteRequest,
        FeedbackBatchRequest,
        FeedbackBatchResponse,
        FeedbackRequest,
        FeedbackResponse,
        ListRoutesRequest,
        ListRoutesResponse,
        RouteDescription,
    )
    from protos.inference_pb2 import (
        InferParameter,
        InferTensorContents,
        ModelInferRequest,
        ModelInferResponse,
        ModelMetadataRequest,
        ModelMetadataResponse,
        ModelReadyRequest,
        ModelReadyResponse,
        RepositoryIndexRequest,
        RepositoryIndexResponse,
        RepositoryModelLoadRequest,
        RepositoryModelLoadResponse,
        RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse,
        ServerLiveRequest,
        ServerLiveResponse,
        ServerMetadataRequest,
        ServerMetadataResponse,
        ServerReadyRequest,
        ServerReadyResponse,
    )

__all__ = [
    "DecideRequest",
    "Decision",
    "DescribeRouteRequest",
    "FeedbackBatchRequest",
    "FeedbackBatchResponse",
    "FeedbackRequest",
    "FeedbackResponse",
    "InferParameter",
    "InferTensorContents",
    "ListRoutesRequest",
    "ListRoutesResponse",
    "ModelInferRequest",
    "ModelInferResponse",
    "ModelMetadataRequest",
    "ModelMetadataResponse",
    "ModelReadyRequest",
    "ModelReadyResponse",
    "RepositoryIndexRequest",
    "RepositoryIndexResponse",
    "RepositoryModelLoadRequest",
    "RepositoryModelLoadResponse",
    "RepositoryModelUnloadRequest",
    "RepositoryModelUnloadResponse",
    "RouteDescription",
    "ServerLiveRequest",
    "ServerLiveResponse",
    "ServerMetadataRequest",
    "ServerMetadataResponse",
    "ServerReadyRequest",
    "ServerReadyResponse",
    "parse",
]

_M = TypeVar("_M", bound=Message)


def parse(message: type[_M], body: bytes) -> _M:
    """The message that `body` encodes. Raises InvalidArgument when it is not one."""
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise InvalidArgument(f"the request is not a {message.DESCRIPTOR.full_name}: {error}") from None


def _classes() -> dict[str, Any]:
    pool: Any = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString((Path(__file__).parent / "descriptors.binpb").read_bytes())
    classes = {}
    for file in files.file:
        pool.Add(file)
        for name in pool.FindFileByName(file.name).message_types_by_name.values():
            classes[name.name] = message_factory.GetMessageClass(name)
    return classes


globals().update(_classes())
