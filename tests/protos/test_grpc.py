"""gRPC over ASGI, driven without a server: framing, deadlines, compression, status, metadata."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from itertools import pairwise
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.errors import Code, ResourceExhausted, UpstreamError
from protos.grpc import GrpcApp, Stream, encode_message, parse_timeout

MAX = 1000


def frame(message, flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


class Answer:
    """What an application sent, checked against what ASGI and gRPC ask of every response."""

    def __init__(self, events):
        kinds = [event["type"].removeprefix("http.response.") for event in events]
        assert kinds[0] == "start"
        assert kinds[-1] == "trailers"
        assert set(kinds[1:-1]) == {"body"}
        assert events[0]["status"] == 200
        assert events[0]["trailers"]
        assert (b"content-type", b"application/grpc") in events[0]["headers"]
        more = [event.get("more_body", False) for event in events[1:-1]]
        assert more == [True] * (len(more) - 1) + [False]
        self.trailers = [(name.decode(), value.decode()) for name, value in events[-1]["headers"]]
        self.code = Code(int(dict(self.trailers)["grpc-status"]))
        self.message = unquote(dict(self.trailers).get("grpc-message", ""))
        body = b"".join(event["body"] for event in events[1:-1])
        self.messages = []
        while body:
            end = 5 + int.from_bytes(body[1:5], "big")
            assert body[0] == 0
            self.messages.append(body[5:end])
            body = body[end:]


class Peer:
    """The server's side of ASGI: hands out a request in chunks, then waits for ever, and keeps what is sent."""

    def __init__(self, *chunks, headers=(), path="/test.Service/Method", gone=False):
        self.scope = {"path": path, "headers": list(headers), "extensions": {"http.response.trailers": {}}}
        self.sent = []
        self.incoming = [
            {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1 or gone}
            for i, chunk in enumerate(chunks)
        ]
        if gone:
            self.incoming.append({"type": "http.disconnect"})

    async def receive(self):
        if self.incoming:
            return self.incoming.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(self, event):
        self.sent.append(event)

    async def run(self, handler, *, max_message=MAX):
        await GrpcApp({"/test.Service/Method": handler}, max_message=max_message)(self.scope, self.receive, self.send)
        return Answer(self.sent)


def call(handler, *chunks, **about):
    return asyncio.run(Peer(*chunks, **about).run(handler))


async def echo(message, _rpc):
    return message


@Stream
async def echoes(messages, _rpc):
    async for message in messages:
        yield message


def split(body, cuts):
    edges = [0, *sorted(cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


# --------------------------------------------------------------------------------------------------------- framing


@settings(max_examples=200)
@given(message=st.binary(max_size=30), data=st.data())
def test_however_a_unary_body_is_cut_the_message_is_the_same(message, data):
    body = frame(message)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    answer = call(echo, *split(body, cuts))
    assert (answer.code, answer.messages, answer.trailers) == (Code.OK, [message], [("grpc-status", "0")])


@settings(max_examples=200)
@given(messages=st.lists(st.binary(max_size=12), max_size=5), data=st.data())
def test_however_a_streaming_body_is_cut_the_messages_are_the_same(messages, data):
    body = b"".join(frame(message) for message in messages)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    answer = call(echoes, *split(body, cuts))
    assert (answer.code, answer.messages) == (Code.OK, messages)


def test_a_streamed_message_is_answered_before_the_next_one_arrives():
    async def conversation():
        peer = Peer(frame(b"one"))
        peer.incoming[0]["more_body"] = True
        answered = asyncio.Event()

        async def send(event):
            await peer.send(event)
            if event.get("body"):
                answered.set()

        app = GrpcApp({"/test.Service/Method": echoes})
        task = asyncio.create_task(app(peer.scope, peer.receive, send))
        await answered.wait()
        task.cancel()
        return peer.sent

    start, first = asyncio.run(conversation())
    assert (start["type"], first["body"], first["more_body"]) == ("http.response.start", frame(b"one"), True)


@pytest.mark.parametrize("handler", [echo, echoes])
def test_a_body_that_ends_inside_a_message_is_refused(handler):
    for body in (frame(b"abc")[:-1], frame(b"abc")[:3]):
        answer = call(handler, body)
        assert answer.code == Code.INVALID_ARGUMENT
        assert answer.message == f"the request ends {len(body)} bytes into a message"


def test_a_unary_call_carries_exactly_one_message():
    assert call(echo, b"").message == "a unary call carries exactly one message; this one carried none"
    answer = call(echo, frame(b"a") + frame(b"b"))
    assert answer.message == "a unary call carries exactly one message; this one carried more"


@pytest.mark.parametrize("handler", [echo, echoes])
def test_a_message_over_the_limit_is_refused_before_it_arrives(handler):
    answer = call(handler, frame(bytes(MAX + 1))[:9], headers=[])
    assert answer.code == Code.RESOURCE_EXHAUSTED
    assert answer.message == f"the message has {MAX + 1} bytes; the limit is {MAX}"


@pytest.mark.parametrize("handler", [echo, echoes])
def test_a_message_of_just_the_limit_is_taken(handler):
    assert call(handler, frame(bytes(MAX))).messages == [bytes(MAX)]


def test_an_unknown_method_is_unimplemented():
    answer = call(echo, frame(b""), path="/test.Service/Other")
    assert (answer.code, answer.message) == (Code.UNIMPLEMENTED, "unknown method /test.Service/Other")


# ----------------------------------------------------------------------------------------------------- compression

GZIP = [(b"grpc-encoding", b"gzip")]


@pytest.mark.parametrize("handler", [echo, echoes])
@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"identity", None)]
)
def test_compressed_messages_are_read_and_plain_ones_beside_them(handler, encoding, compress):
    body = frame(compress(b"hello"), 1) if compress else frame(b"hello")
    assert call(handler, body, headers=[(b"grpc-encoding", encoding)]).messages == [b"hello"]
    assert call(handler, frame(b"hello"), headers=[(b"grpc-encoding", encoding)]).messages == [b"hello"]


@pytest.mark.parametrize(
    ("body", "headers", "code", "sentence"),
    [
        (frame(gzip.compress(bytes(MAX), mtime=0), 1), GZIP, Code.OK, ""),
        (
            frame(gzip.compress(bytes(MAX + 1), mtime=0), 1),
            GZIP,
            Code.RESOURCE_EXHAUSTED,
            f"the message has more than {MAX} bytes when decompressed; that is the limit",
        ),
        (
            frame(gzip.compress(bytes(500_000), mtime=0), 1),
            GZIP,
            Code.RESOURCE_EXHAUSTED,
            f"the message has more than {MAX} bytes when decompressed; that is the limit",
        ),
        (
            frame(gzip.compress(b"a", mtime=0)[:-1], 1),
            GZIP,
            Code.INVALID_ARGUMENT,
            "the compressed message is cut short",
        ),
        (frame(b"", 1), GZIP, Code.INVALID_ARGUMENT, "the compressed message is cut short"),
        (frame(b"abc", 1), GZIP, Code.INVALID_ARGUMENT, "the compressed message cannot be read: "),
        (
            frame(gzip.compress(b"a", mtime=0) + b"xy", 1),
            GZIP,
            Code.INVALID_ARGUMENT,
            "2 bytes follow the compressed message",
        ),
        (
            frame(b"abc", 1),
            [(b"grpc-encoding", b"br")],
            Code.UNIMPLEMENTED,
            "compression 'br' is not supported; send identity, gzip or deflate",
        ),
        (frame(b"abc", 1), [], Code.INVALID_ARGUMENT, "the message is compressed, and no grpc-encoding says how"),
        (frame(gzip.compress(b"a", mtime=0), 2), GZIP, Code.UNIMPLEMENTED, "the flags of the message are 2"),
    ],
)
def test_what_compression_can_do_wrong(body, headers, code, sentence):
    answer = call(echo, body, headers=headers)
    assert answer.code == code
    assert answer.message.startswith(sentence)


# ------------------------------------------------------------------------------------------------ status, metadata


@settings(max_examples=200)
@given(text=st.text(max_size=100) | st.text(" a%é", max_size=600))
def test_a_status_message_is_printable_ascii_without_spaces_around_and_reads_back(text):
    encoded = encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert encoded == encoded.strip()
    short = text if len(text) <= 500 else text[:500] + "..."
    assert unquote(encoded.decode()) == short.encode(errors="replace").decode()


def test_a_plain_status_message_stays_readable():
    assert encode_message("input 'x': 100% wrong, [1, 20]") == b"input 'x': 100%25 wrong, [1, 20]"
    assert encode_message("  model 'm' failed: ") == b"%20 model 'm' failed:%20"


def test_a_status_message_that_is_no_unicode_does_not_break_the_answer():
    assert encode_message("file \udcff") == b"file ?"


def test_a_very_long_status_message_still_fits_into_trailers():
    encoded = encode_message("𝄞" * 100_000)
    assert len(encoded) < 8000
    assert unquote(encoded.decode()).endswith("𝄞...")


def test_metadata_goes_in_and_out():
    async def handler(message, rpc):
        assert rpc.metadata["unit"] == "customer-1"
        assert rpc.metadata["trace-bin"] == "AAE"
        assert rpc.deadline is None
        rpc.trailing.append((b"decision", b"d-1"))
        return message

    headers = [(b"unit", b"first"), (b"unit", b"customer-1"), (b"trace-bin", b"AAE")]
    answer = call(handler, frame(b"a"), headers=headers)
    assert answer.trailers == [("grpc-status", "0"), ("decision", "d-1")]


def failing(error):
    async def unary(_message, rpc):
        rpc.trailing.append((b"decision", b"d-1"))
        raise error

    async def before(_messages, rpc):
        rpc.trailing.append((b"decision", b"d-1"))
        raise error
        yield b""

    async def after(messages, rpc):
        rpc.trailing.append((b"decision", b"d-1"))
        async for message in messages:
            yield message
        raise error

    return [unary, Stream(before), Stream(after)]


@pytest.mark.parametrize("handler", failing(UpstreamError("größer als 100% – zu groß", Code.ABORTED)))
def test_an_error_keeps_its_code_its_words_and_the_metadata(handler):
    answer = call(handler, frame(b"a"))
    assert (answer.code, answer.message) == (Code.ABORTED, "größer als 100% – zu groß")
    assert ("decision", "d-1") in answer.trailers


@pytest.mark.parametrize("handler", failing(KeyError("the secret")))
def test_a_failure_of_ours_is_logged_and_not_shown(handler, caplog):
    answer = call(handler, frame(b"a"))
    assert (answer.code, answer.message) == (Code.INTERNAL, "internal error; the server's log has the traceback")
    assert "secret" not in str(answer.trailers)
    (record,) = caplog.records
    assert record.exc_info[0] is KeyError
    assert record.getMessage() == "/test.Service/Method failed"


def test_what_was_streamed_before_an_error_arrives():
    answer = call(failing(ResourceExhausted("full"))[-1], frame(b"a") + frame(b"b"))
    assert (answer.messages, answer.code) == ([b"a", b"b"], Code.RESOURCE_EXHAUSTED)


# ------------------------------------------------------------------------------------- deadlines, leaving, breaking


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"0n", 0),
        (b"99999999H", 99999999 * 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"250m", 0.25),
        (b"7u", 7e-6),
        (b"8n", 8e-9),
    ],
)
def test_a_timeout_is_read(header, seconds):
    assert parse_timeout(header) == pytest.approx(seconds, abs=0)


@pytest.mark.parametrize("header", [b"", b"S", b"5", b"5s", b"123456789S", b"-1S", b"1.5S", b" 1S", b"\xb2S", b"1_0S"])
def test_a_timeout_that_is_none_is_refused(header):
    answer = call(echo, frame(b"a"), headers=[(b"grpc-timeout", header)])
    assert answer.code == Code.INVALID_ARGUMENT
    assert answer.message.startswith("grpc-timeout ")


async def forever(*_):
    await asyncio.get_running_loop().create_future()


@Stream
async def forever_after_one(_messages, _rpc):
    yield b"one"
    await forever()


@Stream
async def forever_before_one(_messages, _rpc):
    await forever()
    yield b"one"


@pytest.mark.parametrize(
    ("handler", "messages"), [(forever, []), (forever_before_one, []), (forever_after_one, [b"one"])]
)
def test_the_deadline_ends_a_call_wherever_it_is(handler, messages):
    answer = call(handler, frame(b"a"), headers=[(b"grpc-timeout", b"10m")])
    assert answer.code == Code.DEADLINE_EXCEEDED
    assert answer.message == "the deadline passed before there was an answer"
    assert answer.messages == messages


def test_the_deadline_ends_a_call_whose_message_never_arrives():
    peer = Peer(frame(b"abc")[:4], headers=[(b"grpc-timeout", b"10m")])
    peer.incoming[0]["more_body"] = True
    assert asyncio.run(peer.run(echo)).code == Code.DEADLINE_EXCEEDED


def test_a_handler_sees_the_deadline():
    async def handler(message, rpc):
        left = rpc.deadline - asyncio.get_running_loop().time()
        assert 3000 < left <= 3600
        return message

    assert call(handler, frame(b"a"), headers=[(b"grpc-timeout", b"1H")]).code == Code.OK


def test_a_timeout_inside_the_handler_is_not_the_callers_deadline(caplog):
    async def handler(_message, _rpc):
        raise TimeoutError("a lock of ours")

    answer = call(handler, frame(b"a"), headers=[(b"grpc-timeout", b"1H")])
    assert answer.code == Code.INTERNAL
    assert len(caplog.records) == 1


@pytest.mark.parametrize("handler", [echo, forever, echoes])
def test_a_caller_who_leaves_before_the_end_of_the_request_gets_no_answer(handler, caplog):
    peer = Peer(b"\0\0", gone=True)
    app = GrpcApp({"/test.Service/Method": handler})
    asyncio.run(app(peer.scope, peer.receive, peer.send))
    assert [event["type"] for event in peer.sent] == (["http.response.start"] if handler is echoes else [])
    assert caplog.records == []


@pytest.mark.parametrize("broken", ["http.response.start", "http.response.body", "http.response.trailers"])
@pytest.mark.parametrize("handler", [echo, echoes])
def test_a_response_that_breaks_is_never_started_twice(handler, broken):
    """A server's send fails; whatever is said after that must still be one response."""
    peer = Peer(frame(b"a"))
    kinds = []

    async def send(event):
        kinds.append(event["type"].removeprefix("http.response."))
        if event["type"] == broken and kinds.count(kinds[-1]) == 1:
            raise RuntimeError("the transport failed")

    app = GrpcApp({"/test.Service/Method": handler})
    asyncio.run(app(peer.scope, peer.receive, send))
    assert kinds.count("start") == 1
    assert kinds.count("trailers") <= 1
    assert kinds == sorted(kinds, key=["start", "body", "trailers"].index)


@pytest.mark.parametrize("gone_at", ["http.response.start", "http.response.body", "http.response.trailers"])
@pytest.mark.parametrize("handler", [echo, echoes, forever])
def test_a_caller_who_leaves_before_the_answer_is_nobodys_failure(handler, gone_at, caplog):
    """ASGI has a server raise OSError then: of the answer, or of the status after a deadline that both sides saw."""
    peer = Peer(frame(b"a"), headers=[(b"grpc-timeout", b"20m")] if handler is forever else [])

    async def send(event):
        if event["type"] == gone_at:
            raise OSError("the stream is closed")

    asyncio.run(GrpcApp({"/test.Service/Method": handler})(peer.scope, peer.receive, send))
    assert caplog.records == []


@pytest.mark.parametrize("how", ["deadline", "cancelled", "send"])
def test_a_streaming_handler_is_closed_when_its_call_ends(how):
    """Not when the garbage collector gets to it: it may hold a slot or a connection."""
    closed = []

    @Stream
    async def handler(_messages, _rpc):
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def drive():
        peer = Peer(frame(b"a"), headers=[(b"grpc-timeout", b"20m")] if how == "deadline" else [])
        bodies = asyncio.Event()

        async def send(event):
            if event.get("body"):
                bodies.set()
                if how == "send":
                    raise RuntimeError("the transport failed")

        app = GrpcApp({"/test.Service/Method": handler})
        task = asyncio.create_task(app(peer.scope, peer.receive, send))
        await bodies.wait()
        if how == "cancelled":
            task.cancel()
        await asyncio.wait([task])
        assert closed == [True]

    asyncio.run(drive())
