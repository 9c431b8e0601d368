from __future__ import annotations

import asyncio
import logging

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from protos.errors import Code, UpstreamError
from protos.messages import ModelInferResponse
from protos.tensors import add_outputs
from router.call import Call, Decision, Reply
from router.config.safety import Shadow
from router.layers.shadow import WIDTH, Shadows, difference, shadow_layout
from router.metrics import Metrics
from tests.router.fakes import SOON, FakeUpstream, call_of

pytestmark = pytest.mark.anyio


def answered(**outputs: object) -> bytes:
    response = ModelInferResponse()
    add_outputs(response, {name: np.asarray(value) for name, value in outputs.items()}, raw=True)
    return response.SerializeToString()


class Shadowed:
    """A route whose arm "a" has answered "y" = [2, 4], and whose arm "s" is a shadow."""

    def __init__(self, **settings) -> None:
        self.registry = CollectorRegistry()
        self.upstream = FakeUpstream("s")
        self.settings = Shadow(**settings)
        upstreams = {"a": FakeUpstream("a"), "s": self.upstream}
        self.shadows = Shadows("credit", {"s": self.settings}, upstreams, Metrics(self.registry))

    def offer(
        self, y: tuple[float, ...] = (2.0, 4.0), *, id: str = "d", arm: str = "a", call: Call | None = None
    ) -> None:
        decision = Decision(id, "credit", arm, 1.0, 0.0, "v")
        self.shadows.offer(call or call_of("credit"), Reply(answered(y=np.array(y))), decision)

    async def done(self) -> None:
        while self.shadows._copies:
            await asyncio.wait(self.shadows._copies, timeout=SOON)
            await asyncio.sleep(0)  # for what is done when they have ended

    def count(self, outcome: str) -> float:
        labels = {"route": "credit", "arm": "s", "outcome": outcome}
        return self.registry.get_sample_value("croupier_shadow_requests_total", labels) or 0.0

    def row(self) -> list[float]:
        adds = self.shadows.drain()
        if not adds:
            return [0.0] * WIDTH
        (add,) = adds
        assert (add.route, add.layout, add.arm) == ("credit", shadow_layout(self.settings), "s")
        return list(add.row)


async def test_a_shadow_gets_a_copy_and_its_answer_is_compared():
    shadowed = Shadowed(tolerance=0.1)
    shadowed.offer()
    shadowed.offer((2.0, 4.05))
    shadowed.offer((2.0, 5.0))
    assert not shadowed.upstream.calls, "the caller's answer goes first"
    await shadowed.done()
    assert len(shadowed.upstream.calls) == 3
    assert (shadowed.count("same"), shadowed.count("different")) == (2, 1)
    compared, different, numbers, total, squares, failed, dropped = shadowed.row()
    assert (compared, different, numbers, failed, dropped) == (3, 1, 3, 0, 0)
    assert total == pytest.approx(0.025 + 0.5)
    assert squares == pytest.approx(0.025**2 + 0.5**2)
    labels = {"route": "credit", "arm": "s"}
    assert shadowed.registry.get_sample_value("croupier_shadow_difference_sum", labels) == pytest.approx(total)
    assert shadowed.registry.get_sample_value("croupier_shadow_seconds_count", labels) == 3
    assert shadowed.row() == [0.0] * WIDTH


async def test_a_shadow_has_a_request_and_a_deadline_of_its_own():
    """The request that was answered names a model by now, and its deadline may have passed."""
    shadowed = Shadowed()
    call = call_of("credit", id="mine")
    call.request.model_name = "the arm's model"
    call.deadline = 0.0
    shadowed.offer(call=call)
    await shadowed.done()
    (copy,) = shadowed.upstream.calls
    assert copy.request is not call.request
    assert (copy.request.model_name, copy.request.id) == ("credit", "mine")
    assert copy.deadline is not None
    assert copy.deadline > asyncio.get_running_loop().time()
    assert shadowed.count("same") == 1
    assert call.deadline == 0.0


async def test_copies_beyond_the_bound_are_dropped_and_counted():
    shadowed = Shadowed(max_in_flight=2)
    held = [shadowed.upstream.hold(), shadowed.upstream.hold()]
    for _ in range(5):
        shadowed.offer()
    await asyncio.wait_for(held[1].arrived.wait(), SOON)
    assert shadowed.count("dropped") == 3
    for each in held:
        each.release()
    await shadowed.done()
    shadowed.offer()
    await shadowed.done()
    assert shadowed.count("same") == 3
    assert shadowed.row()[-1] == 3


async def test_a_shadow_that_fails_or_takes_too_long_is_counted_and_nothing_else():
    shadowed = Shadowed(timeout_seconds=0.01)
    shadowed.upstream.fail(UpstreamError("away", Code.UNAVAILABLE))
    shadowed.offer()
    await shadowed.done()
    shadowed.upstream.hold()
    shadowed.offer()
    await shadowed.done()
    assert shadowed.count("failed") == 2
    assert shadowed.row() == [0, 0, 0, 0, 0, 2, 0]


async def test_what_nobody_foresaw_is_logged(caplog: pytest.LogCaptureFixture):
    shadowed = Shadowed()
    shadowed.upstream.fail(RuntimeError("a bug"))
    with caplog.at_level(logging.ERROR):
        shadowed.offer()
        await shadowed.done()
    assert "shadow s of route credit failed" in caplog.text
    assert shadowed.count("failed") == 1
    shadowed.offer()
    await shadowed.done()
    assert shadowed.count("same") == 1


async def test_an_output_that_is_not_there_is_a_failure():
    shadowed = Shadowed(output="z")
    shadowed.offer()
    await shadowed.done()
    assert shadowed.count("failed") == 1


async def test_who_is_copied_follows_from_the_decision_alone():
    ids = [f"{k:032x}" for k in range(2_000)]
    one, two = Shadowed(percent=10.0, max_in_flight=10_000), Shadowed(percent=20.0, max_in_flight=10_000)
    copied = []
    for shadowed in one, two, one:
        for id in ids:
            shadowed.offer(id=id, call=call_of("credit", id=id))
        await shadowed.done()
        copied.append({call.request.id for call in shadowed.upstream.calls})
        shadowed.upstream.calls.clear()
    assert copied[0] == copied[2]
    assert copied[0] < copied[1], "more of them, and the same ones"
    assert len(copied[0]) == pytest.approx(200, abs=60)


async def test_the_arm_that_answered_is_not_asked_again():
    shadowed = Shadowed()
    shadowed.offer(arm="s")
    await shadowed.done()
    assert not shadowed.upstream.calls


async def test_what_could_not_be_committed_is_put_back():
    shadowed = Shadowed()
    shadowed.offer()
    await shadowed.done()
    adds = shadowed.shadows.drain()
    shadowed.offer()
    await shadowed.done()
    shadowed.shadows.put_back(adds)
    assert shadowed.row()[0] == 2


async def test_closing_gives_up_what_is_on_the_way():
    shadowed = Shadowed()
    held = shadowed.upstream.hold()
    shadowed.offer()
    await asyncio.wait_for(held.arrived.wait(), SOON)
    await asyncio.wait_for(shadowed.shadows.close(), SOON)
    assert not shadowed.shadows._copies
    assert shadowed.count("failed") == 0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "different", "mean"),
    [
        ([1.0, NAN], [1.0, NAN], 0.0, False, 0.0),
        ([1.0, NAN], [1.5, 2.0], 1.0, True, 0.5),
        ([1.0, INF], [1.0, INF], 0.0, False, 0.0),
        ([1.0, INF], [1.0, -INF], 9.0, True, 0.0),
        ([NAN], [1.0], 9.0, True, None),
        ([1e308], [-1e308], 9.0, True, None),
        ([0.0], [1e200], 9.0, True, 1e100),
        ([1.0], [1.0, 1.0], 9.0, True, None),
        ([1, 2], [1, 3], 0.0, True, 0.5),
        ([1, 2], [1.0, 2.0], 0.0, False, 0.0),
        ([2**60], [2**60 + 1], 0.0, True, 0.0),
        (["yes", "no"], ["yes", "no"], 0.0, False, None),
        (["yes", "no"], ["yes", "yes"], 9.0, True, None),
        ([True], [False], 9.0, True, None),
        ([], [], 0.0, False, None),
    ],
)
def test_answers_are_compared_as_what_they_are(a: list, b: list, tolerance: float, different: bool, mean: float | None):
    told = difference(answered(y=a), answered(y=b), Shadow(tolerance=tolerance))
    assert told.different is different
    assert told.mean == (None if mean is None else pytest.approx(mean))


@given(st.lists(st.floats(width=32), max_size=5), st.floats(0.0, 10.0))
def test_an_answer_does_not_differ_from_itself(values: list[float], tolerance: float):
    body = answered(y=np.array(values, np.float32))
    assert not difference(body, body, Shadow(tolerance=tolerance)).different


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"percent": 0}, "percent: must be above 0"),
        ({"percent": 101}, "percent: must be above 0 and up to 100"),
        ({"tolerance": -1}, "tolerance: must not be below 0"),
        ({"timeout_seconds": 0}, "timeout_seconds: must be above 0"),
        ({"max_in_flight": 0}, "max_in_flight: must be above 0"),
    ],
)
def test_a_shadow_that_cannot_be_cast_is_refused(told: dict, sentence: str):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(told, Shadow)
