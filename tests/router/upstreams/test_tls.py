"""Connections to servers that show who they are, and ask who we are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from h2corn import Config, Server

from protos.errors import Code, FailedPrecondition, UpstreamError
from router.trust import Trust
from router.upstreams import Upstream
from tests.certificates import Authority
from tests.router.fakes import FakeUpstream, call_of
from tests.router.upstreams.servers import MODEL, answer, both, listening, upstream_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("others"))


@asynccontextmanager
async def secured(certificate: Path, key: Path, **settings: Any) -> AsyncIterator[str]:
    """A server of "double" over TLS; yields "HOST:PORT"."""
    _, app = both(FakeUpstream())
    options: dict[str, Any] = {"grpc": True, "access_log": False, "lifespan": "off", "timeout_graceful_shutdown": 0.1}
    config = Config(bind=("127.0.0.1:0",), certfile=certificate, keyfile=key, **options, **settings)
    server = Server(app, config)
    running = asyncio.create_task(server.serve())
    await server.wait_started()
    try:
        yield server.addresses[0]
    finally:
        server.shutdown()
        await running


KINDS = ["http2", "grpc", "rest"]


def settings_of(kind: str, address: str, trust: Trust) -> dict[str, Any]:
    where = {"url": f"https://{address}"} if kind == "rest" else {"target": address, "client": kind}
    return {"model": MODEL, "tls": trust, "timeout_seconds": 3.0, **where}


async def asked(upstream: Upstream) -> str:
    return answer(await upstream(call_of("credit", id="r1"))).id


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_we_trust_is_asked(kind: str, authority: Authority):
    trust = Trust(ca=str(authority.certificate))
    async with (
        secured(*authority.sign("server")) as address,
        upstream_of(**settings_of(kind, address, trust)) as upstream,
    ):
        assert await asked(upstream) == "r1"
        assert await upstream.ready()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_we_do_not_trust_is_not(kind: str, authority: Authority, stranger: Authority):
    async with secured(*authority.sign("server")) as address:
        for trust in (Trust(ca=str(stranger.certificate)), Trust()):
            async with upstream_of(**settings_of(kind, address, trust)) as upstream:
                with pytest.raises(UpstreamError) as failed:
                    await asked(upstream)
                assert failed.value.code is Code.UNAVAILABLE
                assert not await upstream.ready()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_certificate_for_another_name_is_refused_unless_that_is_the_name(kind: str, authority: Authority):
    ca = str(authority.certificate)
    async with secured(*authority.sign("server")) as address:
        async with upstream_of(**settings_of(kind, address, Trust(ca=ca, server_name="localhost"))) as upstream:
            assert await asked(upstream) == "r1"
        async with upstream_of(**settings_of(kind, address, Trust(ca=ca, server_name="elsewhere"))) as upstream:
            with pytest.raises(UpstreamError):
                await asked(upstream)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_asks_who_we_are_is_told(kind: str, authority: Authority, stranger: Authority):
    ca = str(authority.certificate)
    client, others = authority.sign("client"), stranger.sign("client")
    async with secured(*authority.sign("server"), ca_certs=authority.certificate, cert_reqs="required") as address:
        trust = Trust(ca=ca, certificate=str(client[0]), key=str(client[1]))
        async with upstream_of(**settings_of(kind, address, trust)) as upstream:
            assert await asked(upstream) == "r1"
        for unknown in (Trust(ca=ca), Trust(ca=ca, certificate=str(others[0]), key=str(others[1]))):
            async with upstream_of(**settings_of(kind, address, unknown)) as upstream:
                with pytest.raises(UpstreamError) as failed:
                    await asked(upstream)
                assert failed.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("kind", KINDS)
async def test_files_that_cannot_be_used_are_refused_when_the_upstream_is_opened(kind: str, authority: Authority):
    certificate, _ = map(str, authority.sign("client"))
    _, key = map(str, authority.sign("other"))
    for trust, said in (
        (Trust(ca="/nowhere"), "tls.ca: /nowhere cannot be read: No such file or directory"),
        (Trust(ca=key), f"tls.ca: {key} holds no certificate in PEM"),
        (Trust(certificate=key, key=key), f"tls.certificate: {key} holds no certificate in PEM"),
        (Trust(certificate=certificate, key=certificate), f"tls.key: {certificate} holds no key in PEM"),
        (Trust(certificate=certificate, key=key), f"tls.key: {key} is the key of another certificate"),
    ):
        with pytest.raises(FailedPrecondition, match=f"^{said}"):
            async with upstream_of(**settings_of(kind, "127.0.0.1:1", trust)):
                pass


async def test_a_server_that_speaks_no_http2_over_tls_is_not_asked(authority: Authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("server"))

    async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()

    async with listening(never, context) as address:
        trust = Trust(ca=str(authority.certificate))
        async with upstream_of(**settings_of("http2", address, trust)) as upstream:
            with pytest.raises(UpstreamError, match="does not speak HTTP/2 over TLS"):
                await asked(upstream)
