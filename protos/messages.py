"""The protobuf messages, from a private descriptor pool.

MLServer, Triton's client and KServe each register `inference.*` in protobuf's default pool, where any two of them
clash. Ours lives in its own pool, so that it can be imported beside any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        Estimate,
        EvaluateRequest,
        Evaluation,
        EventsRequest,
        ExplainRequest,
        Explanation,
        FeedbackBatchRequest,
        FeedbackBatchResponse,
        FeedbackOutcome,
        FeedbackRequest,
        FeedbackResponse,
        ListRoutesRequest,
        ListRoutesResponse,
        LogPart,
        PutFeaturesRequest,
        PutFeaturesResponse,
        ReportRequest,
        RouteDescription,
        RouteEvents,
        RouteReport,
        SwitchArmRequest,
        SwitchArmResponse,
    )
    from protos.inference_pb2 import (
        InferParameter,
        InferTensorContents,
        ModelConfig,
        ModelConfigRequest,
        ModelConfigResponse,
        ModelInferRequest,
        ModelInferResponse,
        ModelMetadataRequest,
        ModelMetadataResponse,
        ModelReadyRequest,
        ModelReadyResponse,
        ModelRepositoryParameter,
        ModelStatistics,
        ModelStatisticsRequest,
        ModelStatisticsResponse,
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
    "Estimate",
    "EvaluateRequest",
    "Evaluation",
    "EventsRequest",
    "ExplainRequest",
    "Explanation",
    "FeedbackBatchRequest",
    "FeedbackBatchResponse",
    "FeedbackOutcome",
    "FeedbackRequest",
    "FeedbackResponse",
    "InferParameter",
    "InferTensorContents",
    "ListRoutesRequest",
    "ListRoutesResponse",
    "LogPart",
    "ModelConfig",
    "ModelConfigRequest",
    "ModelConfigResponse",
    "ModelInferRequest",
    "ModelInferResponse",
    "ModelMetadataRequest",
    "ModelMetadataResponse",
    "ModelReadyRequest",
    "ModelReadyResponse",
    "ModelRepositoryParameter",
    "ModelStatistics",
    "ModelStatisticsRequest",
    "ModelStatisticsResponse",
    "PutFeaturesRequest",
    "PutFeaturesResponse",
    "ReportRequest",
    "RepositoryIndexRequest",
    "RepositoryIndexResponse",
    "RepositoryModelLoadRequest",
    "RepositoryModelLoadResponse",
    "RepositoryModelUnloadRequest",
    "RepositoryModelUnloadResponse",
    "RouteDescription",
    "RouteEvents",
    "RouteReport",
    "ServerLiveRequest",
    "ServerLiveResponse",
    "ServerMetadataRequest",
    "ServerMetadataResponse",
    "ServerReadyRequest",
    "ServerReadyResponse",
    "SwitchArmRequest",
    "SwitchArmResponse",
    "as_dict",
    "parse",
    "varint",
    "with_buffers",
]

_M = TypeVar("_M", bound=Message)

_LENGTH_DELIMITED = 2


def parse(message: type[_M], body: bytes) -> _M:
    """The message that `body` encodes. Raises InvalidArgument when it is not one."""
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise InvalidArgument(f"the request is not a {message.DESCRIPTOR.full_name}: {error}") from None


def with_buffers(message: Message, field: int, buffers: Iterable[bytes | memoryview]) -> bytes:
    """A message serialized, with buffers added to its repeated bytes field of this number: copied once, not thrice."""
    parts: list[bytes | memoryview] = [message.SerializeToString()]
    for buffer in buffers:
        parts += (varint(field << 3 | _LENGTH_DELIMITED) + varint(len(buffer)), buffer)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """A count as protobuf writes it."""
    digits = bytearray()
    while value >> 7:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def as_dict(message: Message) -> dict[str, Any]:
    """A message in JSON's terms under the names of its fields, integers as numbers; of messages, those that are set."""
    told: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type
        if field.is_repeated:
            if kind is not None and kind.GetOptions().map_entry:
                told[field.name] = {key: _plain(each, field.enum_type) for key, each in value.items()}
            else:
                told[field.name] = [_plain(each, field.enum_type) for each in value]
        elif kind is None or message.HasField(field.name):
            told[field.name] = _plain(value, field.enum_type)
    return told


def _plain(value: Any, enum: Any) -> Any:
    if isinstance(value, Message):
        return as_dict(value)
    return enum.values_by_number[value].name if enum else value


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
