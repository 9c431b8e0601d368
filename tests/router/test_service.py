from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from protos.errors import (
    CallError,
    Code,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
    UpstreamError,
)
from protos.grpc import Rpc, Stream
from protos.messages import (
    DecideRequest,
    Decision,
    DescribeRouteRequest,
    FeedbackBatchRequest,
    FeedbackBatchResponse,
    FeedbackOutcome,
    FeedbackRequest,
    FeedbackResponse,
    ListRoutesRequest,
    ListRoutesResponse,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RouteDescription,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from protos.v2 import SERVICE as V2
from router.call import REWARD, TRUTH
from router.edge.service import MOST_ITEMS, methods
from router.errors import AlreadyRewarded, BadReward, NotRecorded, UnknownDecision, UnknownRoute
from router.wire import SERVICE
from tests.router.fakes import FakeRouter, FlakyStore, infer_request, router, settled

pytestmark = pytest.mark.anyio

ROUTES = """
routes:
  credit:
    policy: {kind: epsilon_greedy, epsilon: 0}
    arms: {a: {model: forest}, b: {model: linear}}
    reward: {low: -1, high: 3}
    metrics: {pnl: {unit: GBP}}
    sticky: true
  momentum:
    arms: {slow: {model: linear}}
"""


M = TypeVar("M", bound=Message)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeRouter]:
    async with router(tmp_path, ROUTES, "forest", "linear") as fake:
        yield fake


async def ask(fake: FakeRouter, method: str, request: Message, kind: type[M], *, rpc: Rpc | None = None) -> M:
    """Calls a method by its path with what is on the wire."""
    handler = methods(fake.service)[method]
    assert not isinstance(handler, Stream)
    return kind.FromString(await handler(request.SerializeToString(), rpc or Rpc([])))


def decision_of(response: ModelInferResponse) -> str:
    return response.parameters["decision_id"].string_param


def arm_of(response: ModelInferResponse) -> str:
    return response.parameters["arm"].string_param


# -------------------------------------------------------------------------------------------------------------- V2


async def test_the_server_lives_and_is_ready_until_it_drains(fake: FakeRouter):
    assert (await ask(fake, V2 + "ServerLive", ServerLiveRequest(), ServerLiveResponse)).live
    assert (await ask(fake, V2 + "ServerReady", ServerReadyRequest(), ServerReadyResponse)).ready
    fake.service.draining = True
    assert not (await ask(fake, V2 + "ServerReady", ServerReadyRequest(), ServerReadyResponse)).ready
    assert (await ask(fake, V2 + "ServerLive", ServerLiveRequest(), ServerLiveResponse)).live
    await fake.infer("momentum")


async def test_before_there_are_routes_the_server_is_not_ready(tmp_path: Path):
    assert not await FakeRouter(tmp_path).service.ready()


async def test_the_server_says_who_it_is(fake: FakeRouter):
    told = await ask(fake, V2 + "ServerMetadata", ServerMetadataRequest(), ServerMetadataResponse)
    assert (told.name, told.version, list(told.extensions)) == ("croupier", "1.2.3", ["croupier.v1"])


async def test_a_route_is_described_as_a_model_by_its_arms(fake: FakeRouter):
    told = await ask(fake, V2 + "ModelMetadata", ModelMetadataRequest(name="credit"), ModelMetadataResponse)
    assert (told.name, told.platform) == ("credit", "croupier_route")
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("x", "FP64", [-1])]
    assert [each.name for each in told.outputs] == ["y"]


async def test_any_arm_that_answers_can_describe_the_route(fake: FakeRouter):
    fake.models.upstreams["forest"].away = Unavailable("nobody answers")
    told = await fake.service.model_metadata("credit", "")
    assert told.name == "credit"
    fake.models.upstreams["linear"].away = UpstreamError("nobody answers either", Code.INTERNAL)
    with pytest.raises(UpstreamError, match="nobody answers either"):
        await fake.service.model_metadata("credit", "")


async def test_a_route_is_ready_while_one_allowed_arm_is(fake: FakeRouter):
    async def ready() -> bool:
        return (await ask(fake, V2 + "ModelReady", ModelReadyRequest(name="credit"), ModelReadyResponse)).ready

    assert await ready()
    fake.models.upstreams["linear"].is_ready = False
    assert await ready()
    for _ in range(3):
        fake.routes.current["credit"].guard.failed(0, probe=False)
    fake.routes.guard_changed("credit")
    assert not await ready(), "the one that is ready is left out"


async def test_the_index_lists_routes_and_why_they_are_not_ready(fake: FakeRouter):
    async def index(*, ready: bool = False) -> list[tuple[str, str, str]]:
        request = RepositoryIndexRequest(ready=ready)
        told = await ask(fake, V2 + "RepositoryIndex", request, RepositoryIndexResponse)
        return [(each.name, each.state, each.reason) for each in told.models]

    assert await index() == [("credit", "READY", ""), ("momentum", "READY", "")]
    fake.models.upstreams["linear"].is_ready = False
    away = ("momentum", "UNAVAILABLE", "no allowed arm is ready")
    assert await index() == [("credit", "READY", ""), away]
    assert await index(ready=True) == [("credit", "READY", "")]


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_routes_are_not_loaded_but_configured(fake: FakeRouter, method: str):
    with pytest.raises(Unimplemented, match=r"routes come from the configuration.*'credit'"):
        await ask(fake, V2 + method, RepositoryModelLoadRequest(model_name="credit"), RepositoryModelLoadRequest)


async def test_an_inference_is_answered_and_its_decision_told_twice(fake: FakeRouter):
    rpc = Rpc([])
    response = await fake.infer("credit", x=[1.5], id="r1", rpc=rpc)
    assert (response.model_name, response.id) == ("credit", "r1")
    assert dict(rpc.trailing)[b"croupier-decision"].decode() == decision_of(response)
    assert dict(rpc.trailing)[b"croupier-arm"].decode() == arm_of(response)
    await settled(fake.learner)
    decision = fake.store.find([decision_of(response)])[decision_of(response)]
    assert (decision.route, decision.arm, decision.propensity) == ("credit", arm_of(response), 0.5)


async def test_deadline_and_metadata_reach_the_upstream(fake: FakeRouter):
    rpc = Rpc([(b"x-request-id", b"77")], deadline=asyncio.get_running_loop().time() + 60)
    await fake.infer("momentum", rpc=rpc)
    (call,) = fake.models.upstreams["linear"].calls
    assert (call.deadline, call.metadata["x-request-id"], call.route) == (rpc.deadline, "77", "momentum")
    assert ModelInferRequest.FromString(call.body) == infer_request("momentum")


async def test_requests_on_a_stream_are_answered_one_by_one(fake: FakeRouter):
    stream = methods(fake.service)[V2 + "ModelStreamInfer"]
    assert isinstance(stream, Stream)

    async def bodies() -> AsyncIterator[bytes]:
        for id in ("one", "two"):
            yield infer_request("momentum", id=id).SerializeToString()

    answers = [ModelInferResponse.FromString(each) async for each in stream.handler(bodies(), Rpc([]))]
    assert [answer.id for answer in answers] == ["one", "two"]
    assert len({decision_of(answer) for answer in answers}) == 2


@pytest.mark.parametrize("name", ["nope", "", "Credit", "x" * 10_000])
async def test_an_unknown_route_is_not_found_and_the_known_ones_are_named(fake: FakeRouter, name: str):
    for asked in (
        fake.infer(name),
        fake.service.model_metadata(name, ""),
        fake.service.model_ready(name, ""),
        fake.service.decide(DecideRequest(route=name)),
        fake.service.describe(name),
    ):
        with pytest.raises(UnknownRoute, match="there are: credit, momentum") as refused:
            await asked
        assert refused.value.code is Code.NOT_FOUND
        assert len(refused.value.message) < 200
    assert fake.metric("croupier_unknown_route_requests_total") == 1


async def test_of_many_routes_a_few_are_named(tmp_path: Path):
    many = "routes:\n" + "".join(f"  r{number:02}: {{arms: {{a: {{model: forest}}}}}}\n" for number in range(15))
    async with router(tmp_path, many, "forest") as fake:
        with pytest.raises(UnknownRoute, match=r"there are: r00, .*, r09 and 5 more$"):
            await fake.infer("nope")


async def test_a_route_has_no_versions(fake: FakeRouter):
    request = infer_request("credit")
    request.model_version = "1"
    for asked in (
        fake.service.infer(request.SerializeToString(), Rpc([])),
        fake.service.model_metadata("credit", "1"),
        fake.service.model_ready("credit", "1"),
    ):
        with pytest.raises(NotFound, match="route 'credit' has no versions"):
            await asked


@pytest.mark.parametrize("method", [V2 + "ModelInfer", SERVICE + "Feedback", SERVICE + "Decide"])
async def test_bytes_that_are_no_message_are_refused(fake: FakeRouter, method: str):
    handler = methods(fake.service)[method]
    assert not isinstance(handler, Stream)
    with pytest.raises(InvalidArgument, match="the request is not a"):
        await handler(b"\xff\xff\xff", Rpc([]))


async def test_what_an_arm_refuses_its_client_is_told(fake: FakeRouter):
    fake.models.upstreams["linear"].fail(InvalidArgument("input 'x' is missing"))
    with pytest.raises(InvalidArgument, match="input 'x' is missing"):
        await fake.infer("momentum")


# ------------------------------------------------------------------------------------------------------------ units


def with_unit(unit: Any) -> bytes:
    request = infer_request("credit")
    field = {str: "string_param", int: "int64_param", bool: "bool_param"}[type(unit)]
    setattr(request.parameters["unit"], field, unit)
    return request.SerializeToString()


async def units(fake: FakeRouter) -> set[str]:
    await settled(fake.learner)
    return {decision.unit for decision, _ in fake.store.log("credit")}


async def test_a_unit_comes_as_a_parameter(fake: FakeRouter):
    answers = [await fake.service.infer(with_unit("jane"), Rpc([])) for _ in range(10)]
    assert len({arm_of(ModelInferResponse.FromString(answer)) for answer in answers}) == 1
    assert await units(fake) == {"jane"}


async def test_a_unit_comes_in_the_metadata(fake: FakeRouter):
    rpc = Rpc([(b"croupier-unit", b"joe")])
    assert len({arm_of(await fake.infer("credit", rpc=rpc)) for _ in range(10)}) == 1
    assert await units(fake) == {"joe"}


async def test_a_unit_is_the_same_in_either_place(fake: FakeRouter):
    await fake.service.infer(with_unit("Zoë"), Rpc([]))
    await fake.infer("credit", rpc=Rpc([(b"croupier-unit", "Zoë".encode())]))
    assert await units(fake) == {"Zoë"}
    with pytest.raises(InvalidArgument, match="croupier-unit must be UTF-8"):
        await fake.infer("credit", rpc=Rpc([(b"croupier-unit", b"\xff")]))


async def test_the_parameter_counts_before_the_metadata(fake: FakeRouter):
    await fake.service.infer(with_unit("jane"), Rpc([(b"croupier-unit", b"joe")]))
    assert await units(fake) == {"jane"}


@pytest.mark.parametrize("unit", ["", "é", "a\0b", "u" * 1024])
async def test_any_text_of_bounded_length_is_a_unit(fake: FakeRouter, unit: str):
    await fake.service.infer(with_unit(unit), Rpc([]))
    assert await units(fake) == {unit}


async def test_a_unit_that_is_too_long_is_refused_and_not_repeated(fake: FakeRouter):
    long = "u" * 1025
    for asked in (
        fake.service.infer(with_unit(long), Rpc([])),
        fake.infer("credit", rpc=Rpc([(b"croupier-unit", long.encode())])),
        fake.service.decide(DecideRequest(route="credit", unit=long)),
    ):
        with pytest.raises(InvalidArgument, match="the unit has 1025 characters; at most 1024 are taken"):
            await asked


@pytest.mark.parametrize("unit", [7, True])
async def test_a_unit_that_is_no_text_is_refused(fake: FakeRouter, unit: Any):
    with pytest.raises(InvalidArgument, match="parameter 'unit' must be a string"):
        await fake.service.infer(with_unit(unit), Rpc([]))


# --------------------------------------------------------------------------------------------- decisions and rewards


async def decide(fake: FakeRouter, route: str = "credit", unit: str = "") -> Decision:
    return await ask(fake, SERVICE + "Decide", DecideRequest(route=route, unit=unit), Decision)


async def test_a_decision_says_what_to_call(tmp_path: Path):
    routes = 'routes: {r: {arms: {a: {model: m, target: "host:1"}}}}'
    async with router(tmp_path, routes) as fake:
        told = await decide(fake, "r")
        assert (told.route, told.arm, told.model, told.target, told.propensity) == ("r", "a", "m", "host:1", 1.0)
        await settled(fake.learner)
        assert fake.store.find([told.decision_id])[told.decision_id].arm == "a"
        await fake.connections.close()


async def test_a_unit_decides_as_it_infers(fake: FakeRouter):
    for unit in map(str, range(20)):
        told = await decide(fake, unit=unit)
        answer = ModelInferResponse.FromString(await fake.service.infer(with_unit(unit), Rpc([])))
        assert told.arm == arm_of(answer)


async def test_a_decision_without_a_request_is_told_its_context(tmp_path: Path):
    context = "context: {exposure: {parameter: e}, region: {parameter: r, levels: [eu, us], missing: zeros}}"
    async with router(tmp_path, ROUTES.replace("sticky: true", context), "forest", "linear") as fake:
        request = DecideRequest(route="credit", numbers={"exposure": 2.5}, texts={"region": "us"})
        decision = await fake.service.decide(request)
        await settled(fake.learner)
        assert fake.store.find([decision.decision_id])[decision.decision_id].context == (2.5, 0.0, 1.0)
        with pytest.raises(InvalidArgument, match="exposure"):
            await fake.service.decide(DecideRequest(route="credit"))


async def test_with_a_strict_log_a_decision_is_durable_before_it_is_told(tmp_path: Path):
    store = FlakyStore()
    routes = "routes: {r: {strict_log: true, arms: {a: {model: forest}}}}"
    async with router(tmp_path, routes, "forest", store=store) as fake:
        told = await decide(fake, "r")
        assert store.find([told.decision_id])
        answer = await fake.infer("r")
        assert store.find([decision_of(answer)])
        store.down = True
        with pytest.raises(NotRecorded):
            await decide(fake, "r")
        store.down = False


async def test_a_reward_is_counted_and_its_arm_told(fake: FakeRouter):
    told = await decide(fake)
    request = FeedbackRequest(decision_id=told.decision_id, reward=2.5, metrics={"pnl": 7.0}, truth=1.0)
    answer = await ask(fake, SERVICE + "Feedback", request, FeedbackResponse)
    assert (answer.route, answer.arm) == ("credit", told.arm)
    kept = fake.store.outcomes([told.decision_id])[told.decision_id]
    assert {name: outcome.value for name, outcome in kept.items()} == {"reward": 2.5, "pnl": 7.0, "truth": 1.0}
    assert {outcome.time for outcome in kept.values()} == {fake.clock()}


@pytest.mark.parametrize("said", [{REWARD: 0.0}, {TRUTH: 0.0}, {REWARD: 0.0, TRUTH: 0.0}])
async def test_what_was_not_told_is_not_0(fake: FakeRouter, said: dict[str, Any]):
    told = await decide(fake)
    request = FeedbackRequest(decision_id=told.decision_id, **said)
    answer = await ask(fake, SERVICE + "Feedback", request, FeedbackResponse)
    assert list(answer.counted) == list(said)
    kept = fake.store.outcomes([told.decision_id])[told.decision_id]
    assert {name: outcome.value for name, outcome in kept.items()} == said


async def test_a_reward_that_is_not_counted_is_an_error(fake: FakeRouter):
    told = await decide(fake)
    cases: list[tuple[FeedbackRequest, type[CallError]]] = [
        (FeedbackRequest(decision_id="nobody"), UnknownDecision),
        (FeedbackRequest(decision_id="x" * 10_000), UnknownDecision),
        (FeedbackRequest(decision_id=told.decision_id), BadReward),
        (FeedbackRequest(decision_id=told.decision_id, reward=4.0), BadReward),
        (FeedbackRequest(decision_id=told.decision_id, metrics={"loss": 1.0}), BadReward),
    ]
    for request, error in cases:
        with pytest.raises(error) as refused:
            await ask(fake, SERVICE + "Feedback", request, FeedbackResponse)
        assert len(str(refused.value)) < 300
    again = FeedbackRequest(decision_id=told.decision_id, reward=0.0)
    await ask(fake, SERVICE + "Feedback", again, FeedbackResponse)
    with pytest.raises(AlreadyRewarded, match="the first one stands"):
        await ask(fake, SERVICE + "Feedback", again, FeedbackResponse)


async def test_each_item_of_a_batch_has_its_outcome(fake: FakeRouter):
    one, two = await decide(fake), await decide(fake)
    items = [
        FeedbackRequest(decision_id=one.decision_id, reward=1.0),
        FeedbackRequest(decision_id="nobody"),
        FeedbackRequest(decision_id=one.decision_id, reward=2.0),
        FeedbackRequest(decision_id=two.decision_id, reward=float("nan")),
        FeedbackRequest(decision_id=two.decision_id, reward=-1.0),
    ]
    request = FeedbackBatchRequest(items=items)
    answer = await ask(fake, SERVICE + "FeedbackBatch", request, FeedbackBatchResponse)
    assert [Code(outcome.code) for outcome in answer.outcomes] == [
        Code.OK,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.INVALID_ARGUMENT,
        Code.OK,
    ]
    assert [outcome.arm for outcome in answer.outcomes] == [one.arm, "", "", "", two.arm]
    assert [outcome.route for outcome in answer.outcomes] == ["credit", "", "", "", "credit"]
    assert [bool(outcome.message) for outcome in answer.outcomes] == [False, True, True, True, False]


async def test_feedback_on_a_stream_is_answered_in_order_and_the_wrong_ones_end_nothing(fake: FakeRouter):
    one, two = await decide(fake), await decide(fake)
    items = [
        FeedbackRequest(decision_id=one.decision_id, reward=1.0),
        FeedbackRequest(decision_id="nobody", reward=1.0),
        FeedbackRequest(decision_id=two.decision_id, metrics={"pnl": 1.0}),
        FeedbackRequest(decision_id=one.decision_id, reward=2.0),
        FeedbackRequest(decision_id=two.decision_id, reward=1.0, metrics={"pnl": 5.0}),
    ]

    async def bodies() -> AsyncIterator[bytes]:
        yield b"\xff"
        for item in items:
            yield item.SerializeToString()

    stream = methods(fake.service)[SERVICE + "FeedbackStream"]
    assert isinstance(stream, Stream)
    outcomes = [FeedbackOutcome.FromString(each) async for each in stream.handler(bodies(), Rpc([]))]
    assert [(Code(each.code), list(each.counted)) for each in outcomes] == [
        (Code.INVALID_ARGUMENT, []),
        (Code.OK, ["reward"]),
        (Code.NOT_FOUND, []),
        (Code.OK, ["pnl"]),
        (Code.ALREADY_EXISTS, []),
        (Code.OK, ["reward"]),
    ]


async def test_while_the_store_is_away_a_stream_goes_on_and_says_so(tmp_path: Path):
    store = FlakyStore()
    async with router(tmp_path, ROUTES, "forest", "linear", store=store) as fake:
        told = await decide(fake)
        await settled(fake.learner)
        asked: asyncio.Queue[FeedbackRequest | None] = asyncio.Queue()

        async def bodies() -> AsyncIterator[bytes]:
            while (item := await asked.get()) is not None:
                yield item.SerializeToString()

        outcomes = fake.service.feedback_stream(bodies())
        item = FeedbackRequest(decision_id=told.decision_id, reward=1.0)
        store.down = True
        asked.put_nowait(item)
        assert (await anext(outcomes)).code == Code.UNAVAILABLE
        store.down = False
        asked.put_nowait(item)
        assert (await anext(outcomes)).arm == told.arm
        await outcomes.aclose()


async def test_a_batch_may_be_empty_and_must_not_be_endless(fake: FakeRouter):
    answer = await ask(fake, SERVICE + "FeedbackBatch", FeedbackBatchRequest(), FeedbackBatchResponse)
    assert not answer.outcomes
    endless = FeedbackBatchRequest(items=[FeedbackRequest(decision_id="x")] * (MOST_ITEMS + 1))
    with pytest.raises(InvalidArgument, match=f"items: at most {MOST_ITEMS} in a batch, got {MOST_ITEMS + 1}"):
        await ask(fake, SERVICE + "FeedbackBatch", endless, FeedbackBatchResponse)


# --------------------------------------------------------------------------------------------------------- describe


async def test_routes_are_listed(fake: FakeRouter):
    told = await ask(fake, SERVICE + "ListRoutes", ListRoutesRequest(), ListRoutesResponse)
    assert list(told.routes) == ["credit", "momentum"]


async def describe(fake: FakeRouter) -> RouteDescription:
    return await ask(fake, SERVICE + "DescribeRoute", DescribeRouteRequest(route="credit"), RouteDescription)


async def test_a_route_that_has_learnt_nothing_is_described(fake: FakeRouter):
    told = await describe(fake)
    assert (told.route, told.reward_low, told.reward_high) == ("credit", -1.0, 3.0)
    assert told.policy == "epsilon_greedy (epsilon 0)"
    assert told.policy_version == fake.routes.current["credit"].version
    assert [(arm.name, arm.model, arm.allowed, arm.probability, arm.decisions) for arm in told.arms] == [
        ("a", "forest", True, 0.5, 0.0),
        ("b", "linear", True, 0.5, 0.0),
    ]
    assert all(arm.reward.n == 0 and arm.metrics["pnl"].n == 0 for arm in told.arms)


async def test_what_all_have_learnt_is_described(fake: FakeRouter):
    decisions = [await decide(fake) for _ in range(20)]
    earned = {"a": 0.5, "b": 2.0}
    items = [
        FeedbackRequest(decision_id=each.decision_id, reward=earned[each.arm], metrics={"pnl": -3.0})
        for each in decisions
    ]
    await fake.service.feedback_batch(FeedbackBatchRequest(items=items))
    await settled(fake.learner)
    told = await describe(fake)
    for arm in told.arms:
        n = sum(each.arm == arm.name for each in decisions)
        assert arm.decisions == n
        assert (arm.reward.n, arm.reward.sum) == (n, n * earned[arm.name])
        assert arm.reward.sum_of_squares == n * earned[arm.name] ** 2
        assert (arm.metrics["pnl"].n, arm.metrics["pnl"].sum) == (n, -3.0 * n)
    assert [arm.probability for arm in told.arms] == [0.0, 1.0]


async def test_an_arm_that_is_left_out_is_described_so(fake: FakeRouter):
    linear = fake.models.upstreams["linear"]
    linear.fail(FailedPrecondition("it broke"), times=100)
    while fake.routes.current["credit"].allowed.all():
        try:
            await fake.infer("credit")
        except FailedPrecondition:
            continue
    told = await describe(fake)
    assert [(arm.allowed, arm.probability) for arm in told.arms] == [(True, 1.0), (False, 0.0)]
