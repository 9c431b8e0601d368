from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from protos.errors import InvalidArgument, ResourceExhausted
from router.call import Call, Reply
from router.layers.limit import limited
from router.layers.log import logged
from tests.router.fakes import NOW, FakeClock, FakeUpstream, call_of

pytestmark = pytest.mark.anyio

# ----------------------------------------------------------------------------------------------------------- limit


async def test_one_too_many_is_refused_at_once_and_the_others_are_answered():
    upstream = FakeUpstream()
    handler = limited(2)(upstream)
    held = [upstream.hold(), upstream.hold()]
    inside = [asyncio.ensure_future(handler(call_of("credit"))) for _ in held]
    for each in held:
        await each.arrived.wait()
    with pytest.raises(ResourceExhausted, match="'credit' has 2 requests in flight already, its limit") as refused:
        await handler(call_of("credit"))
    assert refused.value.retry
    assert len(upstream.calls) == 2, "the upstream never saw the third"
    for each in held:
        each.release()
    replies = await asyncio.gather(*inside)
    assert all(reply.body for reply in replies)


async def test_whoever_leaves_makes_room_however_they_leave():
    upstream = FakeUpstream()
    handler = limited(1)(upstream)
    upstream.fail(RuntimeError("broken"))
    with pytest.raises(RuntimeError):
        await handler(call_of("credit"))
    held = upstream.hold()
    left = asyncio.ensure_future(handler(call_of("credit")))
    await held.arrived.wait()
    left.cancel()
    await asyncio.wait([left])
    await handler(call_of("credit"))


async def test_each_handler_has_a_limit_of_its_own():
    layer = limited(1)
    one, other = FakeUpstream(), FakeUpstream()
    held = one.hold()
    inside = asyncio.ensure_future(layer(one)(call_of("credit")))
    await held.arrived.wait()
    await layer(other)(call_of("credit"))
    held.release()
    await inside


# ------------------------------------------------------------------------------------------------------------- log


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def stamped(_call: Call) -> Reply:
    said = [(b"croupier-decision", b"d1"), (b"croupier-arm", b"champion"), (b"croupier-propensity", b"0.25")]
    return Reply(b"", said)


async def test_a_line_says_where_a_request_went_and_how_it_ended():
    stream = io.StringIO()
    await logged(stream, FakeClock())(stamped)(call_of("credit"))
    (line,) = lines(stream)
    assert isinstance(line.pop("milliseconds"), float)
    assert line == {
        "time": NOW,
        "route": "credit",
        "code": "OK",
        "decision": "d1",
        "arm": "champion",
        "propensity": 0.25,
    }


async def test_whoever_follows_the_log_sees_a_line_at_once(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("w") as stream:
        await logged(stream, FakeClock())(stamped)(call_of("credit"))
        assert json.loads(path.read_text())["arm"] == "champion"


async def test_a_request_that_failed_has_its_line_too():
    stream, upstream = io.StringIO(), FakeUpstream()
    handler = logged(stream, FakeClock())(upstream)
    for error in (InvalidArgument("bad"), RuntimeError("broken")):
        upstream.fail(error)
        with pytest.raises(type(error)):
            await handler(call_of("credit"))
    held = upstream.hold()
    left = asyncio.ensure_future(handler(call_of("credit")))
    await held.arrived.wait()
    left.cancel()
    await asyncio.wait([left])
    assert [line["code"] for line in lines(stream)] == ["INVALID_ARGUMENT", "INTERNAL", "CANCELLED"]


async def test_a_line_holds_nothing_of_what_the_request_carried():
    stream, upstream = io.StringIO(), FakeUpstream()
    handler = logged(stream, FakeClock())(upstream)
    call = call_of("credit", unit="jane@example.com", id="secret-id", x=[4321.5])
    call.metadata = {"authorization": "secret-token"}
    await handler(call)
    upstream.fail(InvalidArgument("the income 4321.5 of jane@example.com"))
    with pytest.raises(InvalidArgument):
        await handler(call)
    assert not [word for word in ("jane", "secret", "4321") if word in stream.getvalue()]
