from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from protos.errors import Code, InvalidArgument, ResourceExhausted
from router.call import Call, Reply
from router.layers.limit import limited
from router.layers.log import logged
from router.layers.metrics import measured
from router.metrics import Metrics
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


# --------------------------------------------------------------------------------------------------------- metrics


class Observed:
    """An arm under its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.upstream = FakeUpstream()
        self.handler = measured(Metrics(self.registry), "credit", "champion")(self.upstream)

    def count(self, code: Code) -> float:
        labels = {"route": "credit", "arm": "champion", "code": code.name}
        return self.registry.get_sample_value("croupier_requests_total", labels) or 0.0

    @property
    def timed(self) -> float | None:
        labels = {"route": "credit", "arm": "champion"}
        return self.registry.get_sample_value("croupier_request_seconds_count", labels)


async def test_every_answer_is_counted_under_its_status_and_timed():
    observed = Observed()
    await observed.handler(call_of("credit"))
    for error, code in [
        (InvalidArgument("bad"), Code.INVALID_ARGUMENT),
        (ResourceExhausted("full"), Code.RESOURCE_EXHAUSTED),
        (RuntimeError("broken"), Code.INTERNAL),
    ]:
        observed.upstream.fail(error)
        with pytest.raises(type(error)):
            await observed.handler(call_of("credit"))
        assert observed.count(code) == 1
    assert observed.count(Code.OK) == 1
    assert observed.timed == 4


async def test_a_caller_who_left_is_counted_as_cancelled():
    observed = Observed()
    held = observed.upstream.hold()
    left = asyncio.ensure_future(observed.handler(call_of("credit")))
    await held.arrived.wait()
    assert observed.timed == 0
    left.cancel()
    await asyncio.wait([left])
    assert (observed.count(Code.CANCELLED), observed.timed) == (1, 1)


async def test_nothing_that_a_client_sends_becomes_a_label():
    observed = Observed()
    call = call_of("credit", unit="jane@example.com", id="secret-id")
    call.metadata = {"authorization": "secret-token"}
    await observed.handler(call)
    samples = [sample for family in observed.registry.collect() for sample in family.samples]
    values = {value for sample in samples for value in sample.labels.values()}
    assert not {value for value in values if "secret" in value or "jane" in value}


# ------------------------------------------------------------------------------------------------------------- log


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def stamped(_call: Call) -> Reply:
    return Reply(b"", [("croupier-decision", "d1"), ("croupier-arm", "champion"), ("croupier-propensity", "0.25")])


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
        "propensity": "0.25",
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
