"""Our HTTP/2 client against a server of somebody else's, h2, that is told how to behave; and against rude sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from math import inf
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.errors import Code
from protos.framing import frame
from router.upstreams.channel import Refused
from router.upstreams.http2 import frames, headers
from router.upstreams.http2.channel import Http2Channel, timeout_of
from router.upstreams.http2.connection import Connection
from router.upstreams.http2.stream import Lost, Stream
from tests.router.fakes import SOON
from tests.router.upstreams.servers import listening

pytestmark = pytest.mark.anyio

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OK = ((":status", "200"), ("content-type", "application/grpc"))
STATUS = h2.settings.SettingCodes


class Peer:
    """One connection of a server that answers each call with its own message, unless `on` does something else."""

    def __init__(self, writer: asyncio.StreamWriter, on: Callable[[Peer, Any], bool], settings: dict[Any, int]):
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.max_inbound_frame_size = settings.get(STATUS.MAX_FRAME_SIZE, 16_384)
        self.bodies: dict[int, bytes] = {}
        self.seen: list[Any] = []
        self.open = self.most_open = 0
        self._on = on
        self._settings = settings

    async def run(self, reader: asyncio.StreamReader) -> None:
        self.h2.initiate_connection()
        self.flush()
        while data := await reader.read(65536):
            for event in self.h2.receive_data(data):
                self.seen.append(event)
                if not self._on(self, event):
                    self.usual(event)
            self.flush()

    def usual(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.bodies[event.stream_id] = b""
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id)

    def answer(self, stream: int, **data: Any) -> None:
        self.open -= 1
        self.h2.send_headers(stream, OK)
        body = self.bodies[stream]
        for at in range(0, len(body), 16_000):
            self.h2.send_data(stream, body[at : at + 16_000], **data)
        self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())


def usual(_peer: Peer, _event: Any) -> bool:
    return False


@asynccontextmanager
async def served(
    on: Callable[[Peer, Any], bool] = usual, **settings: int
) -> AsyncIterator[tuple[Http2Channel, list[Peer]]]:
    """A channel to such a server, and the connections that it made there."""
    peers: list[Peer] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer, on, {getattr(STATUS, name): value for name, value in settings.items()})
        peers.append(peer)
        await peer.run(reader)

    async with listening(connected) as address:
        channel = Http2Channel(address)
        yield channel, peers
        await asyncio.wait_for(channel.close(1.0), SOON)


async def ask(channel: Http2Channel, message: bytes = b"hello", seconds: float = SOON, **metadata: str) -> bytes:
    deadline = asyncio.get_running_loop().time() + seconds
    answer, _ = await channel.call(METHOD, message, tuple(metadata.items()), deadline)
    return answer


async def refusal(asked: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        await asked
    return refused.value


async def test_a_message_there_and_back():
    async with served() as (channel, peers):
        assert await ask(channel, b"hello", authorization="token") == b"hello"
        request = next(event for event in peers[0].seen if isinstance(event, h2.events.RequestReceived))
        sent: dict[Any, Any] = dict(request.headers)
        assert sent.pop("grpc-timeout").endswith("m")
        assert sent.pop(":authority") == channel.target
        assert sent == {
            ":method": "POST",
            ":scheme": "http",
            ":path": METHOD,
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "croupier",
            "authorization": "token",
        }


async def test_headers_may_be_longer_than_a_frame():
    async with served() as (channel, peers):
        for token in ("a" * 16_300, "b" * 40_000):
            assert await ask(channel, authorization=token) == b"hello"
            request = [event for event in peers[0].seen if isinstance(event, h2.events.RequestReceived)][-1]
            sent: dict[Any, Any] = dict(request.headers)
            assert sent["authorization"] == token


async def test_empty_and_large_messages():
    async with served() as (channel, _):
        for size in (0, 1, 16_379, 16_380, 65_530, 65_536, 1_000_000):
            message = bytes(range(256)) * (size // 256) + bytes(size % 256)
            assert await ask(channel, message) == message


async def test_what_is_sent_keeps_to_windows_however_small():
    """h2 refuses what does not, so that the call would fail."""
    async with served(INITIAL_WINDOW_SIZE=100) as (channel, _):
        messages = [bytes([n]) * 5_000 for n in range(10)]
        assert await asyncio.gather(*(ask(channel, message) for message in messages)) == messages


async def test_windows_may_change_while_a_call_is_held_back():
    def grow(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.RequestReceived):
            peer.h2.update_settings({STATUS.INITIAL_WINDOW_SIZE: 50_000})
        return False

    async with served(grow, INITIAL_WINDOW_SIZE=0) as (channel, _):
        assert len(await ask(channel, bytes(40_000))) == 40_000


async def test_larger_frames_are_sent_where_they_are_allowed():
    async with served(MAX_FRAME_SIZE=1_000_000, INITIAL_WINDOW_SIZE=2**30) as (channel, peers):
        await ask(channel, bytes(60_000))
        assert sum(isinstance(event, h2.events.DataReceived) for event in peers[0].seen) == 1


async def test_calls_wait_for_a_free_stream():
    def late(peer: Peer, event: Any) -> bool:
        if not isinstance(event, h2.events.StreamEnded):
            return False

        def answer() -> None:
            peer.answer(event.stream_id)
            peer.flush()

        asyncio.get_running_loop().call_later(0.01, answer)
        return True

    async with served(late, MAX_CONCURRENT_STREAMS=2) as (channel, peers):
        messages = [str(n).encode() for n in range(10)]
        assert await asyncio.gather(*(ask(channel, message) for message in messages)) == messages
        assert peers[0].most_open == 2


async def test_a_call_that_waits_for_a_stream_may_leave_or_be_late():
    async with served(lambda _, event: isinstance(event, h2.events.StreamEnded), MAX_CONCURRENT_STREAMS=1) as (
        channel,
        peers,
    ):
        first = asyncio.create_task(ask(channel))
        while not (peers and peers[0].open):
            await asyncio.sleep(0.001)
        left = asyncio.create_task(ask(channel))
        await asyncio.sleep(0)
        left.cancel()
        late = await refusal(ask(channel, seconds=0.05))
        assert late.code is Code.DEADLINE_EXCEEDED
        peers[0].answer(1)
        peers[0].flush()
        assert await first == b"hello"


async def test_answers_may_be_padded_and_their_headers_split():
    def odd(peer: Peer, event: Any) -> bool:
        if not isinstance(event, h2.events.StreamEnded):
            return False
        stream, body = event.stream_id, peer.bodies[event.stream_id]
        block = headers.encode((*OK, ("x-long", "a" * 1000)))
        end = headers.encode((("grpc-status", "0"),))
        peer.writer.write(
            frames.frame(
                frames.HEADERS, frames.PADDED | frames.PRIORITISED, stream, b"\3" + bytes(5) + block[:10] + bytes(3)
            )
            + frames.frame(frames.CONTINUATION, 0, stream, block[10:500])
            + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream, block[500:])
            + frames.frame(frames.DATA, frames.PADDED, stream, b"\7" + body[:3] + bytes(7))
            + frames.frame(frames.DATA, 0, stream, b"")
            + frames.frame(0xEE, 0xFF, stream, b"of a kind that nobody knows")
            + frames.frame(frames.DATA, 0, stream, body[3:])
            + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, end)
        )
        return True

    async with served(odd) as (channel, _):
        assert await ask(channel, b"a message") == b"a message"


async def test_bytes_may_come_one_by_one():
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer, usual, {})

        async def drip() -> None:
            while True:
                for byte in peer.h2.data_to_send():
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001)

        peer.flush = lambda: None  # type: ignore[method-assign]
        dripping = asyncio.create_task(drip())
        try:
            await peer.run(reader)
        finally:
            dripping.cancel()

    async with listening(slow) as address:
        channel = Http2Channel(address)
        assert await ask(channel, b"hello") == b"hello"
        await channel.close(1.0)


async def test_pings_are_answered():
    def ping(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.RequestReceived):
            peer.h2.ping(b"12345678")
        return False

    async with served(ping) as (channel, peers):
        for _ in range(2):
            await ask(channel)
        assert any(isinstance(e, h2.events.PingAckReceived) and e.ping_data == b"12345678" for e in peers[0].seen)


async def test_a_call_that_was_refused_is_known_to_be_unseen():
    def refuse(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.RequestReceived):
            peer.h2.reset_stream(event.stream_id, 7)
        return isinstance(event, h2.events.RequestReceived | h2.events.DataReceived | h2.events.StreamEnded)

    async with served(refuse) as (channel, _):
        refused = await refusal(ask(channel))
        assert (refused.code, refused.unseen) == (Code.UNAVAILABLE, True)


@pytest.mark.parametrize(("code", "ours"), [(8, Code.CANCELLED), (11, Code.RESOURCE_EXHAUSTED), (2, Code.INTERNAL)])
async def test_a_call_that_was_reset_says_why(code: int, ours: Code):
    def reset(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded):
            peer.h2.reset_stream(event.stream_id, code)
            return True
        return False

    async with served(reset) as (channel, _):
        refused = await refusal(ask(channel))
        assert (refused.code, refused.unseen) == (ours, False)


async def test_a_server_that_leaves_ends_what_it_began_and_calls_go_to_a_new_connection():
    """As in a rolling restart: GOAWAY with the last stream that will be answered."""
    first = asyncio.Event()

    def leave(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded) and event.stream_id == 1 and not first.is_set():
            first.set()
            peer.h2.close_connection(last_stream_id=1)
            peer.flush()
            peer.writer.write(
                frames.frame(frames.HEADERS, frames.END_HEADERS, 1, headers.encode(OK))
                + frames.frame(frames.DATA, 0, 1, peer.bodies[1])
                + frames.frame(frames.HEADERS, 5, 1, headers.encode((("grpc-status", "0"),)))
            )
            return True
        return False

    async with served(leave) as (channel, peers):
        assert await ask(channel, b"begun") == b"begun"
        assert await ask(channel, b"next") == b"next"
        assert len(peers) == 2


async def test_calls_that_a_leaving_server_did_not_begin_are_known_to_be_unseen():
    def leave(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded) and len(peer.bodies) == 3:
            peer.h2.close_connection(last_stream_id=1)
            return True
        return isinstance(event, h2.events.StreamEnded)

    async with served(leave) as (channel, _):
        calls = [asyncio.create_task(ask(channel, seconds=0.5)) for _ in range(3)]
        refused = [await refusal(call) for call in calls]
        assert [each.unseen for each in refused] == [False, True, True]
        assert refused[0].code is Code.DEADLINE_EXCEEDED, "it was begun, and never answered"


async def test_what_a_server_said_before_it_closed_is_read_though_a_write_finds_it_closed_first():
    """It answers and leaves in a turn of the loop in which calls are sent, and in the next more of them are."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, connection = await loop.create_connection(
            lambda: Connection(lambda: None, largest=1000), *listener.getsockname()
        )
        server, _ = listener.accept()

    def leave() -> None:
        answer = frames.frame(frames.HEADERS, 5, begun.id, headers.encode((*OK, ("grpc-status", "0"))))
        goaway = frames.frame(frames.GOAWAY, 0, 0, frames.number(begun.id) + frames.number(0))
        server.sendall(frames.settings() + answer + goaway)
        server.close()

    begun = connection.calls.begin(b"", b"", inf)
    await asyncio.sleep(0)  # it is sent
    loop.call_soon(leave)
    unseen = [connection.calls.begin(b"", b"", inf)]
    loop.call_soon(lambda: unseen.append(connection.calls.begin(b"", b"", inf)))
    async with asyncio.timeout(SOON):
        await begun.done
        for stream in unseen:
            with pytest.raises(Lost) as lost:
                await stream.done
            assert lost.value.unseen
    assert len(unseen) == 2


async def test_calls_on_a_connection_that_is_cut_may_have_been_seen():
    def cut(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded):
            peer.writer.transport.abort()
        return isinstance(event, h2.events.StreamEnded)

    async with served(cut) as (channel, _):
        refused = await refusal(ask(channel))
        assert (refused.code, refused.unseen, refused.answered) == (Code.UNAVAILABLE, False, False)


async def test_who_leaves_or_is_late_resets_the_call_and_harms_no_other():
    held = asyncio.Event()

    def hold(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded) and peer.bodies[event.stream_id].endswith(b"hold"):
            held.set()
            return True
        return False

    async with served(hold) as (channel, peers):
        left = asyncio.create_task(ask(channel, b"hold"))
        await asyncio.wait_for(held.wait(), SOON)
        left.cancel()
        late = await refusal(ask(channel, b"hold", seconds=0.05))
        assert (late.code, late.unseen) == (Code.DEADLINE_EXCEEDED, False)
        assert await ask(channel) == b"hello"
        resets = [event for event in peers[0].seen if isinstance(event, h2.events.StreamReset)]
        assert [(reset.stream_id, reset.error_code) for reset in resets] == [(1, 8), (3, 8)]
        assert len(peers) == 1


async def test_an_answer_before_all_was_sent_is_taken():
    def at_once(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.RequestReceived):
            peer.h2.send_headers(event.stream_id, [*OK, ("grpc-status", "8"), ("grpc-message", "too%20large")], True)
        return isinstance(event, h2.events.RequestReceived | h2.events.DataReceived)

    async with served(at_once) as (channel, _):
        refused = await refusal(ask(channel, bytes(1_000_000)))
        assert (refused.code, refused.details, refused.answered) == (Code.RESOURCE_EXHAUSTED, "too large", True)


@pytest.mark.parametrize(
    ("answered", "code", "sentence"),
    [
        ([(":status", "404")], Code.UNIMPLEMENTED, "HTTP status 404"),
        ([(":status", "503")], Code.UNAVAILABLE, "HTTP status 503"),
        ([(":status", "418")], Code.UNKNOWN, "HTTP status 418"),
        (OK, Code.INTERNAL, "without a status"),
        ([*OK, ("grpc-status", "99")], Code.UNKNOWN, ""),
        ([*OK, ("grpc-status", "5"), ("grpc-message", "no%20model%20%C3%A9")], Code.NOT_FOUND, "no model é"),
        ([*OK, ("grpc-status", "0")], Code.INTERNAL, "not one message"),
    ],
)
async def test_an_answer_without_a_message_is_a_refusal(answered: Any, code: Code, sentence: str):
    def refuse(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded):
            peer.h2.send_headers(event.stream_id, answered, end_stream=True)
            return True
        return False

    async with served(refuse) as (channel, _):
        refused = await refusal(ask(channel))
        assert (refused.code, refused.answered) == (code, True)
        assert sentence in refused.details


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", frame(b"a") + frame(b"b"), b"\1\0\0\0\1a"])
async def test_an_answer_that_is_not_one_plain_message_is_refused(body: bytes):
    def odd(peer: Peer, event: Any) -> bool:
        if isinstance(event, h2.events.StreamEnded):
            peer.bodies[event.stream_id] = body
        return False

    async with served(odd) as (channel, _):
        assert (await refusal(ask(channel))).code is Code.INTERNAL
        assert channel.connected


async def test_a_server_that_gives_no_sign_of_life_is_left(monkeypatch: pytest.MonkeyPatch):
    """A process that hangs keeps its connection open; only calls without an answer tell."""
    monkeypatch.setattr("router.upstreams.http2.channel.SIGN_OF_LIFE_SECONDS", 0.05)
    connected = 0

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.write(frames.settings())
        await reader.read()

    async with listening(mute) as address:
        channel = Http2Channel(address)
        late = await refusal(ask(channel, seconds=0.5))
        assert (late.code, late.unseen) == (Code.DEADLINE_EXCEEDED, False)
        async with asyncio.timeout(SOON):
            while connected < 2:
                await asyncio.sleep(0.01)
        await channel.close(0)


async def test_a_server_that_is_alive_but_slow_keeps_its_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("router.upstreams.http2.channel.SIGN_OF_LIFE_SECONDS", 0.05)

    def slow(peer: Peer, event: Any) -> bool:
        return isinstance(event, h2.events.StreamEnded) and peer.bodies[event.stream_id].endswith(b"slow")

    async with served(slow) as (channel, peers):
        assert (await refusal(ask(channel, b"slow", seconds=0.5))).code is Code.DEADLINE_EXCEEDED
        await asyncio.sleep(0.1)
        assert await ask(channel) == b"hello"
        assert len(peers) == 1
        assert any(isinstance(event, h2.events.PingReceived) for event in peers[0].seen)


async def test_who_accepts_and_says_nothing_is_not_connected():
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as address:
        channel = Http2Channel(address)
        late = await refusal(ask(channel, seconds=0.05))
        assert (late.code, late.unseen) == (Code.DEADLINE_EXCEEDED, True)
        assert not channel.connected
        await channel.close(0)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.settings(MAX_FRAME_SIZE=1),
        frames.settings() + frames.frame(frames.DATA, 0, 1, bytes(70_000)),
        frames.settings() + frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)),
        frames.settings() + frames.frame(frames.CONTINUATION, 4, 1, b""),
        frames.settings() + frames.frame(frames.GOAWAY, 0, 0, b"123"),
        frames.settings() + frames.frame(frames.SETTINGS, 0, 0, b"12345"),
        b"",
    ],
)
async def test_who_does_not_speak_http2_is_told_so_and_nobody_hangs(said: bytes):
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(said)
        if not said:
            writer.close()
        await reader.read()

    async with listening(rude) as address:
        channel = Http2Channel(address)
        refused = await refusal(ask(channel, seconds=SOON))
        assert refused.code is Code.UNAVAILABLE
        await channel.close(0)


async def test_an_answer_larger_than_allowed_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("router.upstreams.http2.channel.MAX_MESSAGE", 70_000)

    def more(peer: Peer, event: Any) -> bool:
        if not isinstance(event, h2.events.StreamEnded):
            return False
        peer.writer.write(frames.frame(frames.HEADERS, 4, event.stream_id, headers.encode(OK)))
        for _ in range(6):  # past the window that it was given
            peer.writer.write(frames.frame(frames.DATA, 0, event.stream_id, bytes(16_000)))
        return True

    async with served(more) as (channel, _):
        refused = await refusal(ask(channel))
        assert "more than" in refused.details


ODD_ANSWER = b"".join(
    [
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, headers.encode(((":status", "103"), ("link", "a")))),
        frames.frame(frames.HEADERS, frames.PADDED, 1, b"\2" + headers.encode(OK)[:10] + bytes(2)),
        frames.frame(frames.CONTINUATION, 0, 1, headers.encode(OK)[10:20]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, headers.encode(OK)[20:]),
        frames.frame(frames.DATA, 0, 1, b"some"),
        frames.frame(frames.DATA, 0, 3, b"for a caller who has left"),
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\1 body" + bytes(1)),
        frames.frame(
            frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, headers.encode((("grpc-status", "0"),))
        ),
    ]
)


@given(st.sets(st.integers(1, len(ODD_ANSWER) - 1)))
def test_an_answer_is_the_same_however_it_is_cut(cuts: set[int]):
    async def answered() -> Stream:
        connection = Connection(lambda: None, largest=1000)
        connection.data_received(frames.settings())
        stream = connection.calls.begin(b"", b"asked", inf)
        for start, end in pairwise([0, *sorted(cuts), len(ODD_ANSWER)]):
            connection.data_received(ODD_ANSWER[start:end])
        await stream.done
        return stream

    stream = asyncio.run(answered())
    assert (stream.headers, stream.body, stream.trailers) == (dict(OK), b"some body", {"grpc-status": "0"})


@given(st.lists(st.tuples(st.text("abcdefghijklmnop-", min_size=1), st.text(st.characters(max_codepoint=255)))))
def test_headers_come_back_as_they_went(pairs: list[tuple[str, str]]):
    assert dict(headers.decode(headers.encode(tuple(pairs)))) == dict(pairs)


@given(st.binary(max_size=60))
def test_no_block_of_headers_does_more_than_be_refused(block: bytes):
    with suppress(ValueError):
        headers.decode(block)


def test_a_block_that_refers_to_what_was_sent_before_is_refused():
    with pytest.raises(ValueError, match="cannot be read"):
        headers.decode(b"\xbe")  # the first entry of a table that has none


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(1e-9, "1u"), (0.05, "50000u"), (0.1234, "124m"), (5.0, "5000m"), (4.9999, "5000m"), (1e9, "99999999m")],
)
def test_a_timeout_has_eight_digits_and_a_unit(seconds: float, told: str):
    assert timeout_of(seconds) == told
