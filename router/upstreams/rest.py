"""A V2 model behind REST, for servers that have nothing else. Tensors travel as JSON: gRPC is cheaper by far."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import quote

import httpx

from protos.errors import (
    CallError,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    UpstreamError,
)
from protos.messages import ModelMetadataResponse
from router.call import Call, Reply
from router.config.arm import Arm
from router.trust import tls_context
from router.upstreams.hops import passed_on
from router.upstreams.remote import DRAIN_SECONDS, READY_SECONDS
from router.upstreams.secure import header_values
from router.upstreams.v2_json import body_of, error_of, metadata_of, response_of

_UNUSED_SECONDS = 4.0  # that a connection is kept: most servers close theirs after five
_OK = 200
_CLIENTS_FAULT = {400, 413, 422}
_BUSY, _NOT_READY, _TOO_LATE = 429, 503, 504


class Rest:
    """Serves an arm from a V2 REST server."""

    def __init__(self, arm: Arm) -> None:
        """Raises FailedPrecondition for files of its settings that cannot be used."""
        self._url = arm.url.rstrip("/")
        self._model = arm.model
        self._path = f"{self._url}/v2/models/{quote(arm.model, safe='')}"
        if arm.version:
            self._path += f"/versions/{quote(arm.version, safe='')}"
        self._timeout = arm.timeout_seconds
        self._retries = arm.retries
        self._headers = header_values(arm.headers)
        self._extensions = {"sni_hostname": arm.tls.server_name} if arm.tls and arm.tls.server_name else {}
        self._client = httpx.AsyncClient(
            verify=tls_context(arm.tls, "http/1.1") if arm.tls else ssl.create_default_context(),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_UNUSED_SECONDS),
            timeout=None,  # noqa: S113  # every call has its deadline
            trust_env=False,
        )
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, call: Call) -> Reply:
        headers = [*passed_on(call.metadata), *self._headers, ("content-type", "application/json")]
        try:
            body = body_of(call.request)
        except FailedPrecondition as error:
            raise InvalidArgument(f"the upstream takes JSON: {error.message}") from None
        latest = asyncio.get_running_loop().time() + self._timeout
        hurried = call.deadline is not None and call.deadline < latest
        deadline = call.deadline if call.deadline is not None and hurried else latest
        try:
            answer = await self._ask("POST", "/infer", deadline, body, headers)
        except TimeoutError:
            if hurried:
                raise DeadlineExceeded("the deadline passed before the upstream answered") from None
            message = f"the upstream at {self._url} did not answer within {self._timeout:g} s"
            raise UpstreamError(message, Code.DEADLINE_EXCEEDED, retry=True) from None
        try:
            return Reply(response_of(answer).SerializeToString())
        except ValueError as error:
            raise self._failed(str(error)) from None

    async def metadata(self) -> ModelMetadataResponse:
        try:
            return metadata_of(await self._ask("GET", "", self._soon(), headers=self._headers))
        except ValueError as error:
            raise self._failed(str(error)) from None
        except TimeoutError:
            raise self._failed("no answer in time", Code.UNAVAILABLE) from None

    async def ready(self) -> bool:
        try:
            await self._ask("GET", "/ready", self._soon(), headers=self._headers)
        except (CallError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            pass
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        deadline: float,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> bytes:
        """The body of a good answer. Raises CallError, and TimeoutError after `deadline`."""
        self._in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send(method, self._path + path, body, headers)
        except (httpx.TransportError, ssl.SSLError) as error:  # some of TLS come through httpx as they are
            raise self._failed(f"no answer: {str(error) or type(error).__name__}", Code.UNAVAILABLE) from None
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        if response.status_code != _OK:
            raise self._translated(response)
        return response.content

    async def _send(
        self, method: str, url: str, body: bytes | None, headers: Sequence[tuple[str, str]]
    ) -> httpx.Response:
        for _ in range(self._retries):
            try:
                return await self._client.request(
                    method, url, content=body, headers=list(headers), extensions=self._extensions
                )
            except httpx.ConnectError:  # nobody has seen it
                pass
        return await self._client.request(method, url, content=body, headers=list(headers), extensions=self._extensions)

    def _translated(self, response: httpx.Response) -> CallError:
        """The refusal in our words: what the client did wrong stays its fault; a model missing there is the arm's."""
        status, sentence = response.status_code, error_of(response.content)
        if status in _CLIENTS_FAULT:
            return InvalidArgument(sentence)
        if status == _BUSY:
            return ResourceExhausted(sentence)
        if status == _TOO_LATE:
            return UpstreamError(
                f"the upstream at {self._url} was too late: {sentence}", Code.DEADLINE_EXCEEDED, retry=True
            )
        return self._failed(
            f"HTTP status {status} for model {self._model!r}: {sentence}",
            Code.UNAVAILABLE if status == _NOT_READY else Code.INTERNAL,
        )

    def _failed(self, why: str, code: Code = Code.INTERNAL) -> UpstreamError:
        return UpstreamError(f"the upstream at {self._url} answered {why}", code, retry=code is Code.UNAVAILABLE)

    @staticmethod
    def _soon() -> float:
        return asyncio.get_running_loop().time() + READY_SECONDS
