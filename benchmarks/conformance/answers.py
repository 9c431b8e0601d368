"""Sends a request to a server, and brings what comes back into a form that can be compared."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.conformance.language import Grpc, Request, Rest, Together
from benchmarks.conformance.models import BATCH_SECONDS
from benchmarks.conformance.servers import Target
from protos import messages
from protos.errors import InvalidArgument
from protos.messages import ModelInferResponse
from protos.tensors import outputs_of
from protos.v2 import SERVICE

SECONDS = 4.0  # for an answer: a call without one is as good as lost
WAITING = BATCH_SECONDS / 3  # until all calls of a batch are there
SENTENCE = "{error}"  # a refusal as it should be: with a sentence in it

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OF_THE_CONNECTION = {"connection", "content-length", "date", "server", "transfer-encoding"}
_OF_GRPC = {"accept-encoding", "content-type", "date", "server"}
_THEIR_METRICS = ("doubled", "model_infer", "rest_server", "grpc_server")  # the first is that of a model
_FINE = range(200, 300)


@dataclass(frozen=True)
class Answer:
    """A status, the headers that are the application's, and what JSON would make of the body."""

    status: str
    headers: dict[str, str]
    body: Any

    @property
    def good(self) -> bool:
        """Whether what was asked for came."""
        return self.status == "OK" or (self.status.isdigit() and int(self.status) in _FINE)


class Client:
    """Asks one server."""

    def __init__(self, target: Target, http: httpx.Client, channel: grpc.Channel) -> None:
        self._target = target
        self._http = http
        self._channel = channel

    def ask(self, request: Request) -> list[Answer]:
        """The answers to a request, of which there is one unless several calls go together."""
        match request:
            case Rest():
                return [self._rest(request)]
            case Grpc():
                return [_grpc(request, self._begun(request))]
            case Together():
                return self._together(request)

    def _rest(self, request: Rest) -> Answer:
        address = self._target.metrics if request.path == "/metrics" else self._target.rest
        method = request.method or ("GET" if request.body is None else "POST")
        headers = {"accept-encoding": "identity", **request.headers}
        try:
            url = f"http://{address}{request.path}"
            content = iter([request.body or b""]) if request.chunked else request.body
            response = self._http.request(method, url, content=content, headers=headers)
        except httpx.TransportError:
            return Answer("no answer", {}, None)
        # Of these headers case means nothing.
        kept = {name: value.lower() for name, value in response.headers.items() if name not in _OF_THE_CONNECTION}
        if response.status_code not in _FINE:
            return Answer(str(response.status_code), {}, _refusal(response))
        body = _metrics(response.text) if request.path == "/metrics" else _content(response)
        return Answer(str(response.status_code), kept, body)

    def _together(self, request: Together) -> list[Answer]:
        begun = [self._begun(each) for each in request.calls]
        if request.cancelled:
            time.sleep(WAITING)  # in the batch, which nothing tells
        for place in request.cancelled:
            begun[place].cancel()
        return [_grpc(each, call) for each, call in zip(request.calls, begun, strict=True)]

    def _begun(self, request: Grpc) -> Any:
        told: dict[str, Any] = {"timeout": SECONDS, "metadata": tuple(request.metadata.items())}
        if request.compressed:
            told["compression"] = grpc.Compression.Gzip
        path = request.method if request.method.startswith("/") else SERVICE + request.method
        if request.stream:
            return self._channel.stream_stream(path)(iter(request.bodies), **told)
        return self._channel.unary_unary(path).future(request.bodies[0], **told)


@contextmanager
def client(target: Target) -> Iterator[Client]:
    """A client with connections of its own."""
    unlimited = [(f"grpc.max_{what}_message_length", -1) for what in ("send", "receive")]
    # After some errors MLServer closes the connection without a word, so that each request gets one of its own.
    alone = httpx.Limits(max_keepalive_connections=0)
    with (
        httpx.Client(timeout=SECONDS, limits=alone) as http,
        grpc.insecure_channel(target.grpc, options=unlimited) as channel,
    ):
        grpc.channel_ready_future(channel).result(SECONDS)
        yield Client(target, http, channel)


def _grpc(request: Grpc, call: Any) -> Answer:
    got: list[bytes] = []
    with suppress(grpc.RpcError, grpc.FutureCancelledError):  # the call tells its status
        got.extend(call if request.stream else [call.result()])
    headers = _kept(call.initial_metadata()) | _kept(call.trailing_metadata())
    status = call.code().name
    if status != "OK":
        return Answer(status, headers, SENTENCE if call.details() else None)
    bodies = [_message(request.method, each) for each in got]
    return Answer(status, headers, bodies if request.stream else bodies[0])


def _kept(metadata: Iterable[tuple[str, str]] | None) -> dict[str, str]:
    return {name: value for name, value in metadata or () if name not in _OF_GRPC and not name.startswith("grpc-")}


def _message(method: str, body: bytes) -> Any:
    name = method.rpartition("/")[2]
    kind = "ModelInferResponse" if name == "ModelStreamInfer" else f"{name}Response"
    message = getattr(messages, kind).FromString(body)
    told = MessageToDict(message, preserving_proto_field_name=True)
    if "models" in told:
        told["models"] = _index(told["models"])
    if isinstance(message, ModelInferResponse) and message.raw_output_contents:
        told["raw"] = _raw(message)
        del told["raw_output_contents"]
    return told


def _raw(message: ModelInferResponse) -> Any:
    """The values of raw outputs, where they can be read as their tensors say."""
    try:
        return {name: [str(value) for value in array.ravel().tolist()] for name, array in outputs_of(message).items()}
    except InvalidArgument:
        return [each.hex() for each in message.raw_output_contents]


def _index(models: list[dict[str, Any]]) -> dict[str, Any]:
    """A repository's index, whose order means nothing, by names and versions."""
    return {f"{each['name']} {each.get('version', '')}".strip(): each for each in models}


def _content(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if not response.content:
        return None
    if kind == "application/json":
        return _plain(json.loads(response.content))
    if kind == "text/event-stream":
        return [_plain(json.loads(each.removeprefix("data: "))) for each in response.text.strip().split("\n\n")]
    if size := response.headers.get("inference-header-content-length"):
        return [json.loads(response.content[: int(size)]), response.content[int(size) :].hex()]
    return kind or "bytes"


def _plain(content: Any) -> Any:
    """JSON without what nobody could foresee: ids that were made up, and the order of an index."""
    if isinstance(content, list):
        return _index(content)
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("id"), str) and _UUID.fullmatch(content["id"]):
        return {**content, "id": "(made up)"}
    if "openapi" in content:
        return {"paths": dict.fromkeys(map(_path, content["paths"]), "there")}
    return content


def _path(path: str) -> str:
    return path.replace("{model_name}", "{model}").replace("{model_version}", "{version}")


def _refusal(response: httpx.Response) -> str | None:
    """What an error looks like; what it says is in everybody's own words."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind != "application/json" or not response.content:
        return kind or None
    content = json.loads(response.content)
    said = content.get("error") if isinstance(content, dict) else None
    return SENTENCE if said and isinstance(said, str) else f"{{{', '.join(content)}}}"


def _metrics(text: str) -> Any:
    """The families that are MLServer's, and their labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(_THEIR_METRICS):
            labels = {label for sample in family.samples for label in sample.labels} - {"le", "quantile"}
            found[family.name] = f"{family.type} {sorted(labels)}"
    return found
