"""Arms that answer together."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from protos.errors import CallError, Code, FailedPrecondition, UpstreamError
from protos.messages import ModelInferResponse, ModelMetadataResponse
from protos.tensors import add_outputs, outputs_of
from router.call import Call, Reply
from router.config import Arm
from router.config.arm import Ensemble as Settings
from router.upstreams.connections import Connections
from router.upstreams.ensemble import Ensemble
from tests.router.fakes import SOON, FakeModels, FakeUpstream, call_of

pytestmark = pytest.mark.anyio


class Says(FakeUpstream):
    """A model that always answers the same."""

    def __init__(self, **outputs: Any) -> None:
        super().__init__()
        self.says = {name: np.asarray(value) for name, value in outputs.items()}

    async def __call__(self, call: Call) -> Reply:
        await super().__call__(call)
        response = ModelInferResponse(model_name="m")
        add_outputs(response, self.says, raw=True)
        return Reply(response.SerializeToString())

    async def metadata(self) -> ModelMetadataResponse:
        told = await super().metadata()
        del told.outputs[:]
        response = ModelInferResponse()
        add_outputs(response, self.says, raw=True)
        for output in response.outputs:
            told.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape[:])
        return told


def ensemble(combine: str, *members: FakeUpstream, weights: list[float] | None = None) -> Ensemble:
    names = [f"m{n}" for n in range(len(members))]
    return Ensemble(
        dict(zip(names, members, strict=True)), dict(zip(names, weights or [1.0] * len(names), strict=True)), combine
    )


async def combined(ensemble: Ensemble) -> dict[str, Any]:
    return outputs_of(ModelInferResponse.FromString((await ensemble(call_of("credit"))).body))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
async def test_the_mean_is_by_weight_and_of_the_same_type(dtype: str):
    one, two = Says(y=np.array([[1, 2]], dtype)), Says(y=np.array([[4, 8]], dtype))
    y = (await combined(ensemble("mean", one, two, weights=[2.0, 1.0])))["y"]
    np.testing.assert_array_equal(y, np.array([[2, 4]], dtype))
    assert y.dtype == np.dtype(dtype)


async def test_each_output_has_its_own_mean():
    outputs = await combined(ensemble("mean", Says(a=[1.0], b=[[2.0]]), Says(b=[[4.0]], a=[3.0])))
    assert (outputs["a"].tolist(), outputs["b"].tolist()) == ([2.0], [[3.0]])


@pytest.mark.parametrize(
    ("votes", "weights", "winner"),
    [
        ([1, 2, 2], [1.0, 1.0, 1.0], 2),
        ([1, 2, 2], [3.0, 1.0, 1.0], 1),
        ([1, 2, 3], [1.0, 1.0, 1.0], 1),
        ([3, 2, 2], [2.0, 1.0, 1.0], 3),
    ],
)
async def test_the_vote_goes_by_weight_and_a_tie_to_who_is_named_first(votes, weights, winner):
    assert (await combined(ensemble("vote", *(Says(y=[v]) for v in votes), weights=weights)))["y"].tolist() == [winner]


async def test_each_place_is_voted_on_by_itself_and_texts_are_classes_too():
    members = [Says(y=np.array(votes, np.object_)) for votes in ([b"up", b"up"], [b"up", b"down"], [b"down", b"down"])]
    assert (await combined(ensemble("vote", *members)))["y"].tolist() == [b"up", b"down"]


async def test_members_are_asked_at_the_same_time_and_with_calls_of_their_own():
    class Renames(FakeUpstream):
        """As an upstream in this process does."""

        async def __call__(self, call: Call) -> Reply:
            call.request.model_name = self.model
            reply = await super().__call__(call)
            assert call.request.model_name == self.model
            return reply

    members = [Renames("one"), Renames("two")]
    held = [member.hold() for member in members]
    call = call_of("credit")
    asked = asyncio.create_task(ensemble("mean", *members)(call))
    for each in held:
        await asyncio.wait_for(each.arrived.wait(), SOON)
    for each in held:
        each.release()
    await asked
    assert call.request.model_name == "credit"


async def test_it_fails_as_its_first_member_does_and_the_others_are_let_go():
    good, bad = FakeUpstream(), FakeUpstream()
    held = good.hold()
    bad.fail(UpstreamError("away", Code.UNAVAILABLE, retry=True))
    with pytest.raises(UpstreamError, match="away") as failed:
        await ensemble("mean", good, bad)(call_of("credit"))
    assert failed.value.retry
    assert not held._released.is_set()


async def test_who_leaves_lets_all_members_go():
    members = [FakeUpstream(), FakeUpstream()]
    held = [member.hold() for member in members]
    asked = asyncio.create_task(ensemble("mean", *members)(call_of("credit")))
    for each in held:
        await asyncio.wait_for(each.arrived.wait(), SOON)
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()


async def test_members_that_answer_differently_are_the_arms_failure():
    for other in (Says(y=[1.0, 2.0]), Says(z=[1.0]), Says(y=np.array([1.0], np.float32))):
        with pytest.raises(UpstreamError, match="do not agree: m0 answers"):
            await combined(ensemble("mean", Says(y=[1.0]), other))


@pytest.mark.parametrize(("combine", "y", "meant"), [("mean", [1], "vote"), ("vote", [1.0], "mean")])
async def test_what_cannot_be_combined_so_is_refused(combine: str, y: list[Any], meant: str):
    both = ensemble(combine, Says(y=y), Says(y=y))
    for asked in (both(call_of("credit")), both.metadata()):
        with pytest.raises(FailedPrecondition, match=f"combine should be {meant}, for output 'y'"):
            await asked


async def test_it_is_ready_when_all_are():
    one, two = FakeUpstream(), FakeUpstream()
    both = ensemble("mean", one, two)
    assert await both.ready()
    two.is_ready = False
    assert not await both.ready()


# ----------------------------------------------------------------------------------------------- as it is configured


def connections(**models: FakeUpstream) -> Connections:
    fakes = FakeModels()
    fakes.upstreams = dict(models)
    return Connections(fakes)  # type: ignore[arg-type]  # a fake


async def test_its_members_are_the_arms_of_the_route_and_their_connections_are_shared():
    models = {"one": FakeUpstream("one"), "two": FakeUpstream("two"), "three": FakeUpstream("three")}
    shared = connections(**models)
    inline = Settings(members={"a": 1.0, "c": 1.0}, arms={"c": Arm(model="three")})
    arms = {"a": Arm(model="one"), "b": Arm(model="two"), "both": Arm(ensemble=inline)}
    together = await shared.upstream(arms["both"], arms)
    await together(call_of("credit"))
    assert [len(model.calls) for model in models.values()] == [1, 0, 1]
    await shared.keep_only([arms["both"], arms["a"]])
    assert [model.is_closed for model in models.values()] == [False, False, False]
    await shared.keep_only([])
    assert [model.is_closed for model in models.values()] == [True, False, True]


async def test_members_that_do_not_go_together_are_refused_when_it_is_opened():
    shared = connections(one=FakeUpstream("one"), two=FakeUpstream("two", inputs=[("z", "FP32", [1])]))
    arms = {"a": Arm(model="one"), "b": Arm(model="two")}
    with pytest.raises(FailedPrecondition, match=r"a takes .*'x'.* but b takes .*'z'"):
        await shared.upstream(Arm(ensemble=Settings(members={"a": 1.0, "b": 1.0})), arms)


async def test_a_member_that_is_away_does_not_keep_it_from_being_opened():
    away = FakeUpstream("two")
    away.away = UpstreamError("away", Code.UNAVAILABLE)
    shared = connections(one=FakeUpstream("one"), two=away)
    arms = {"a": Arm(model="one"), "b": Arm(model="two")}
    together = await shared.upstream(Arm(ensemble=Settings(members={"a": 1.0, "b": 1.0})), arms)
    with pytest.raises(CallError):
        await together.metadata()
