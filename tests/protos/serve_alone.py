from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Self

import httpx
import pytest

from protos import threads
from protos.serve import Certificate, Listener, serve
from tests.certificates import Authority

pytestmark = pytest.mark.anyio

SOON = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Serving:
    """A port that speaks TLS, served in this process until the test's end."""

    def __init__(self, authority: Authority, bind: str = "127.0.0.1:0", *, mutual: bool = False) -> None:
        certificate, key = authority.sign("server")
        tls = Certificate(str(certificate), str(key), str(authority.certificate) if mutual else "")
        self.authority = authority
        self.port = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            serve(
                Listener(hello, bind, tls=tls),
                started=lambda addresses: self.port.set_result(int(addresses[0].rpartition(":")[2])),
                drain_seconds=SOON,
                renew_seconds=0.01,
            )
        )

    async def __aenter__(self) -> Self:
        await asyncio.wait([self.port, self._task], return_when=asyncio.FIRST_COMPLETED)
        return self

    async def __aexit__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(self._task, SOON)

    async def get(self, *, show: tuple[Path, Path] | None = None) -> str:
        """What a client is told that trusts the authority, and shows a certificate of its own or none."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        if show is not None:
            context.load_cert_chain(*show)
        async with httpx.AsyncClient(verify=context) as client:
            return (await client.get(f"https://127.0.0.1:{await self.port}")).text

    async def serial(self) -> int:
        """Of the certificate that is shown to a new connection."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        _, writer = await asyncio.open_connection("127.0.0.1", await self.port, ssl=context)
        shown = writer.get_extra_info("peercert")
        writer.close()
        return int(shown["serialNumber"], 16)


async def test_a_port_speaks_tls(tmp_path: Path):
    async with Serving(Authority(tmp_path)) as port:
        assert await port.get() == "hello"
        async with httpx.AsyncClient() as stranger:
            with pytest.raises(httpx.TransportError):
                await stranger.get(f"http://127.0.0.1:{await port.port}")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux schedules so")
async def test_threads_of_the_http_server_interrupt_those_that_compute_and_not_those_that_are_soon_done(tmp_path: Path):
    def policies() -> set[int]:
        names = {int(each.name): (each / "comm").read_text() for each in Path("/proc/self/task").iterdir()}
        return {os.sched_getscheduler(thread) for thread, name in names.items() if name.startswith("tokio")}

    def compute() -> None:
        threads.computes(5)
        begun.set()
        over.wait()
        threads.ends()

    begun, over = Event(), Event()
    async with Serving(Authority(tmp_path)) as port:
        assert await port.get() == "hello"
        assert policies() == {os.SCHED_BATCH}
        computing = Thread(target=compute)
        computing.start()
        await asyncio.to_thread(begun.wait)
        assert policies() == {os.SCHED_OTHER}
        threads.order_http_threads()  # as a new port does
        assert policies() == {os.SCHED_OTHER}
        over.set()
        await asyncio.to_thread(computing.join)
        assert policies() == {os.SCHED_BATCH}
        assert os.sched_getscheduler(os.getpid()) == os.SCHED_OTHER


async def test_a_port_speaks_tls_on_a_socket_that_was_inherited_also_when_its_certificate_is_renewed(tmp_path: Path):
    authority = Authority(tmp_path)
    inherited = socket.create_server(("127.0.0.1", 0))
    port = inherited.getsockname()[1]
    async with Serving(authority, f"fd://{inherited.detach()}") as serving:
        assert await serving.port == port
        assert await serving.get() == "hello"
        before = await serving.serial()
        authority.sign("server")
        async with asyncio.timeout(SOON):
            while await serving.serial() == before:
                await asyncio.sleep(0.01)
        assert await serving.get() == "hello"


async def test_who_comes_while_a_port_drains_is_refused_at_once_also_where_its_socket_was_inherited(tmp_path: Path):
    """Otherwise the kernel would go on dealing connections to a process that takes none."""
    answer = asyncio.Event()

    async def slow(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await answer.wait()
        await send({"type": "http.response.body", "body": b"done"})

    inherited = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{inherited.getsockname()[1]}"
    listening = asyncio.Event()
    serving = asyncio.create_task(
        serve(Listener(slow, f"fd://{inherited.detach()}"), started=lambda _addresses: listening.set())
    )
    await listening.wait()
    async with httpx.AsyncClient() as early, early.stream("GET", url) as response:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(SOON):
            while True:
                try:
                    async with httpx.AsyncClient(timeout=1.0) as late:
                        await late.get(url)
                except httpx.ConnectError:
                    break
                except httpx.TransportError:  # it was a moment too early
                    await asyncio.sleep(0.01)
        assert not serving.done()
        answer.set()
        assert await response.aread() == b"done"
    await asyncio.wait_for(serving, SOON)


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT])
async def test_after_the_first_sigterm_it_serves_on_for_load_balancers_to_notice_until_another_signal(last):
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    told = asyncio.Event()
    serving = asyncio.create_task(
        serve(
            Listener(hello, "127.0.0.1:0"),
            started=lambda addresses: listening.set_result(addresses[0]),
            stopping=told.set,
            linger_seconds=1000.0,
        )
    )
    url = f"http://{await listening}"
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(SOON), httpx.AsyncClient() as late:
        await told.wait()
        assert (await late.get(url)).text == "hello"
        assert not serving.done()
        os.kill(os.getpid(), last)
        await serving


async def test_after_sigint_nobody_is_waited_for():
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            Listener(hello, "127.0.0.1:0"),
            started=lambda addresses: listening.set_result(addresses[0]),
            linger_seconds=1000.0,
        )
    )
    await listening
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(serving, SOON)


@pytest.mark.parametrize("ignored", [False, True])
async def test_sighup_ends_it_as_sigterm_does_unless_nohup_has_it_ignored(ignored):
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(Listener(hello, "127.0.0.1:0"), started=lambda addresses: listening.set_result(addresses[0]))
    )
    url = f"http://{await listening}"
    os.kill(os.getpid(), signal.SIGHUP)
    if ignored:
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).text == "hello"
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, SOON)


async def test_only_who_shows_a_certificate_is_heard_where_that_is_asked_for(tmp_path: Path):
    authority = Authority(tmp_path)
    async with Serving(authority, mutual=True) as port:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await port.get()
        assert await port.get(show=authority.sign("desk")) == "hello"


async def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    authority = Authority(tmp_path)
    async with Serving(authority) as port:
        before = await port.serial()
        good = (tmp_path / "server.pem").read_bytes()
        (tmp_path / "server.pem").write_text("not a certificate")
        while "the old one stays" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await port.serial() == before
        (tmp_path / "server.pem").write_bytes(good)
        authority.sign("server")
        async with asyncio.timeout(SOON):
            while await port.serial() == before:
                await asyncio.sleep(0.01)
        assert await port.get() == "hello"


async def test_what_breaks_beside_the_calls_ends_it_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = Authority(tmp_path).sign("server")
    tls = Certificate(str(certificate), str(key))

    def stamps(_self: Certificate) -> None:
        raise TypeError("no stamps")

    def started(_addresses: list[str]) -> None:
        monkeypatch.setattr(Certificate, "stamps", stamps)

    with pytest.raises(TypeError, match="no stamps"):
        await serve(Listener(hello, "127.0.0.1:0", tls=tls), started=started, renew_seconds=0.0)


async def test_readiness_goes_off_also_where_a_port_cannot_be_served():
    taken = socket.create_server(("127.0.0.1", 0))
    told: list[str] = []
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with taken, pytest.raises(OSError, match="in use"):
        await serve(Listener(hello, address), stopping=lambda: told.append("stopping"))
    assert told == ["stopping"]


async def test_a_certificate_that_is_none_is_refused_at_the_start(tmp_path: Path):
    (tmp_path / "x.pem").write_text("nothing")
    tls = Certificate(str(tmp_path / "x.pem"), str(tmp_path / "x.pem"))
    with pytest.raises((OSError, ValueError)):
        await serve(Listener(hello, "127.0.0.1:0", tls=tls))
