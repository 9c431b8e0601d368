"""The answers over real gRPC, over REST and on the command line: one message, told in three ways."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.registry import Collector

from protos.errors import InvalidArgument, NotFound
from protos.grpc import GrpcApp
from protos.messages import (
    DecideRequest,
    EvaluateRequest,
    EventsRequest,
    ExplainRequest,
    FeedbackBatchRequest,
    ReportRequest,
    RouteReport,
)
from protos.rest import rest_app
from router.__main__ import main
from router.answers import candidate, commands
from router.answers.from_log import FromLog, from_log
from router.answers.reader import Reader
from router.answers.report import report
from router.answers.service import EVALUATED, FRESH_SECONDS, AnswerService, answer_methods
from router.answers.study import Study
from router.client import AsyncClient, Client, Earned
from router.edge.rest import answer_routes
from router.errors import StoreAway
from router.route import Route
from router.safety.events import event
from router.safety.switches import ROUTE, Switch, switch
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore
from tests.router.fakes import NOW, FakeRouter, FlakyStore, router, settled
from tests.router.serving import serving

pytestmark = pytest.mark.anyio

ROUTES = """
store: sqlite:store.db
routes:
  credit:
    policy: {kind: thompson}
    floor: 0.1
    arms: {champion: {model: forest}, challenger: {model: linear}}
    metrics: {pnl: {unit: GBP}}
    sticky: true
"""
WORTH = {"champion": 0.4, "challenger": 0.6}


class Answering:
    """A router whose questions are answered, and what it was asked before."""

    def __init__(self, fake: FakeRouter, reader: Reader) -> None:
        self.fake = fake
        self.service = AnswerService(fake.routes, reader, reader, self._scrape, fake.clock)
        self.decisions: list[str] = []

    async def _scrape(self) -> Collector:
        return self.fake.metrics.seconds

    async def live(self, n: int) -> None:
        """n requests of as many units, each rewarded by its number."""
        items = []
        for k in range(n):
            self.fake.clock.advance(0.01)
            decided = await self.fake.service.decide(DecideRequest(route="credit", unit=f"unit-{k}"))
            self.decisions.append(decided.decision_id)
            reward = float((k * 7919) % 1000 < 1000 * WORTH[decided.arm])
            items.append(Earned(decided.decision_id, reward, {"pnl": k / n}).message())
        await settled(self.fake.learner)
        await self.fake.service.feedback_batch(FeedbackBatchRequest(items=items))
        await settled(self.fake.learner)


@asynccontextmanager
async def answering(folder: Path, open_store: Callable[[], Store]) -> AsyncIterator[Answering]:
    async with router(folder, ROUTES, "forest", "linear", store=open_store()) as fake:
        reader = Reader(open_store)
        yield Answering(fake, reader)
        reader.close()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Answering]:
    async with answering(tmp_path, lambda: SQLiteStore(str(tmp_path / "store.db"))) as asked:
        await asked.live(400)
        yield asked


@pytest.fixture
async def address(asked: Answering) -> AsyncIterator[str]:
    async with serving(GrpcApp(answer_methods(asked.service))) as address:
        yield address


async def test_a_client_asks_all_questions(asked: Answering, address: str):
    decision = asked.decisions[7]

    def talk() -> None:
        with Client(address) as client:
            told = client.report("credit")
            assert [arm.name for arm in told.arms] == list(WORTH)
            assert sum(arm.decisions for arm in told.arms) == sum(arm.rewards for arm in told.arms) == 400
            assert told.log.decisions == 400
            assert told.alpha == 0.05
            assert client.report("credit", alpha=0.2).alpha == 0.2
            explained = client.explain(decision)
            assert explained.reproduced, list(explained.differences)
            assert (explained.unit, explained.sticky) == ("", True)
            assert client.explain(decision, show_unit=True).unit == "unit-7"
            assert {each.name for each in explained.outcomes} == {"reward", "pnl"}
            judged = client.evaluate("credit", "{kind: split}")
            assert judged.answerable
            assert judged.judged_on == 400
            assert client.evaluate("credit", "{kind: split}", most=100).log.decisions == 100
            assert list(client.events("credit").events) == []

    await asyncio.to_thread(talk)
    client = AsyncClient(address)
    assert (await client.report("credit")).route == "credit"
    assert (await client.explain(decision)).arm in WORTH
    assert (await client.evaluate("credit", "{kind: thompson}")).learnt_from == 200
    assert not (await client.events("credit")).events
    await client.close()


async def test_rest_answers_the_same_messages_as_json(asked: Answering):
    app = rest_app(answer_routes(asked.service), max_body=100_000)

    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **more)

    told = (await ask("GET", "/v1/routes/credit/report?alpha=0.1")).json()
    assert told["alpha"] == 0.1
    assert [arm["name"] for arm in told["arms"]] == list(WORTH)
    explained = (await ask("GET", f"/v1/decisions/{asked.decisions[3]}?show_unit=true")).json()
    assert (explained["reproduced"], explained["unit"]) == (True, "unit-3")
    judged = (await ask("POST", "/v1/routes/credit/evaluate", json={"policy": "{kind: split}"})).json()
    assert judged["answerable"]
    assert (await ask("GET", "/v1/routes/credit/events?most=5")).json() == {"route": "credit", "events": []}
    for path, status in (
        ("/v1/routes/nope/report", 404),
        ("/v1/decisions/nope", 404),
        ("/v1/routes/credit/report?alpha=2", 422),
        ("/v1/routes/credit/report?alpha=much", 422),
        ("/v1/routes/credit/report?colour=red", 422),
        ("/v1/routes/credit/events?most=-1", 422),
    ):
        answer = await ask("GET", path)
        assert answer.status_code == status, path
        assert answer.json()["error"]


async def test_events_come_in_order_and_in_pieces(asked: Answering):
    events = [event("credit", "ejected", arm="challenger", why=f"no. {k}", now=NOW + k) for k in range(5)]
    elsewhere = event("other", "ejected", why="elsewhere", now=NOW)
    asked.fake.store.put("said", {}, events=[*events, elsewhere])
    told = await asked.service.events(EventsRequest(route="credit"))
    assert [each.why for each in told.events] == [f"no. {k}" for k in range(5)]
    newest = await asked.service.events(EventsRequest(route="credit", most=2))
    assert [each.why for each in newest.events] == ["no. 3", "no. 4"]
    after = await asked.service.events(EventsRequest(route="credit", after=told.events[1].id, most=2))
    assert [each.why for each in after.events] == ["no. 2", "no. 3"]


async def test_a_switch_shows_in_the_report(asked: Answering):
    switch(asked.fake.store, "credit", "challenger", Switch("off", "ann", "it stinks", NOW))
    switch(asked.fake.store, "credit", ROUTE, Switch("frozen", "ann", "a holiday", NOW, "v"))
    told = await asked.service.report(ReportRequest(route="credit"))
    assert (told.arms[1].state, told.arms[1].why) == ("off", "ann: it stinks")
    assert told.frozen


async def test_what_comes_from_sums_is_told_at_once_and_the_log_is_read_again_after_a_while(asked: Answering):
    await asked.service.report(ReportRequest(route="credit"))
    await asked.live(50)
    told = await asked.service.report(ReportRequest(route="credit"))
    assert sum(arm.decisions for arm in told.arms) == 450
    assert told.log.decisions == 400
    asked.fake.clock.advance(FRESH_SECONDS)
    assert (await asked.service.report(ReportRequest(route="credit"))).log.decisions == 450


async def test_no_request_waits_while_a_report_is_worked_out(asked: Answering, monkeypatch: pytest.MonkeyPatch):
    threads = []

    def noted(*arguments: Any, **more: Any) -> RouteReport:
        threads.append(threading.current_thread())
        return report(*arguments, **more)

    monkeypatch.setattr("router.answers.service.report", noted)
    await asked.service.report(ReportRequest(route="credit"))
    assert threads
    assert threading.current_thread() not in threads


async def test_what_the_log_says_is_worked_out_once_for_each_reading(asked: Answering, monkeypatch: pytest.MonkeyPatch):
    worked_out = []

    def noted(route: Route, study: Study, *, alpha: float) -> FromLog:
        worked_out.append(alpha)
        return from_log(route, study, alpha=alpha)

    monkeypatch.setattr("router.answers.service.from_log", noted)
    first = await asked.service.report(ReportRequest(route="credit"))
    assert await asked.service.report(ReportRequest(route="credit")) == first
    await asked.service.report(ReportRequest(route="credit", alpha=0.1))
    assert worked_out == [0.05, 0.1]
    asked.fake.clock.advance(FRESH_SECONDS)
    await asked.service.report(ReportRequest(route="credit", alpha=0.1))
    assert worked_out == [0.05, 0.1, 0.1]


@pytest.mark.parametrize(
    ("question", "kind", "sentence"),
    [
        (ReportRequest(route="nope"), NotFound, "unknown route 'nope'; there are: credit"),
        (ReportRequest(route="credit", alpha=0.7), InvalidArgument, "alpha: must be above 0 and below 0.5"),
        (ReportRequest(route="credit", alpha=float("nan")), InvalidArgument, "alpha: must be above 0"),
        (ExplainRequest(decision_id="nope"), NotFound, "unknown decision 'nope'"),
        (EvaluateRequest(route="credit", policy="{kind: x}"), InvalidArgument, "Invalid value 'x'"),
        (EvaluateRequest(route="credit", policy=" " * 20_000), InvalidArgument, "policy: at most 10000 characters"),
        (EvaluateRequest(route="credit", most=EVALUATED + 1), InvalidArgument, "most: this server reads"),
        (EventsRequest(route="nope"), NotFound, "unknown route 'nope'"),
    ],
)
async def test_a_wrong_question_is_answered_with_a_sentence(tmp_path: Path, question: Any, kind: type, sentence: str):
    async with answering(tmp_path, MemoryStore) as asked:
        with pytest.raises(kind) as refused:
            await _answered(asked.service, question)
    assert sentence in str(refused.value)


async def _answered(service: AnswerService, question: Any) -> Any:
    if isinstance(question, ReportRequest):
        return await service.report(question)
    if isinstance(question, ExplainRequest):
        return await service.explain(question)
    if isinstance(question, EvaluateRequest):
        return await service.evaluate(question)
    return await service.events(question)


async def test_while_the_store_is_away_every_question_is_put_off(tmp_path: Path):
    store = FlakyStore()
    async with answering(tmp_path, lambda: store) as asked:
        store.down = True
        for question in (
            ReportRequest(route="credit"),
            ExplainRequest(decision_id="x"),
            EvaluateRequest(route="credit", policy="{kind: split}"),
            EventsRequest(route="credit"),
        ):
            with pytest.raises(StoreAway, match="the store does not answer"):
                await _answered(asked.service, question)
        store.down = False
        assert (await asked.service.report(ReportRequest(route="credit"))).route == "credit"


async def test_a_reader_that_cannot_open_its_store_tries_again():
    tried: list[Store | None] = [None, MemoryStore()]

    def open_store() -> Store:
        store = tried.pop(0)
        if store is None:
            raise StoreError("the disk is not there")
        return store

    reader = Reader(open_store)
    with pytest.raises(StoreError):
        await reader(lambda store: store.version())
    assert await reader(lambda store: store.version()) == 0
    assert await reader(lambda store: store.version()) == 0
    reader.close()


# --------------------------------------------------------------------------------------------------- the command line


async def command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = await asyncio.to_thread(main, list(argv))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


async def test_people_read_tables(asked: Answering, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked.fake.metrics.seconds.labels("credit", "champion").observe(0.0012)
    switch(asked.fake.store, "credit", "challenger", Switch("ejected", "errors", "too many of them.", NOW))
    (tmp_path / "policy.yaml").write_text("kind: thompson\n")
    explained = ["of the time arms took", "Lift is over champion", "Where its e-value is 20 or more", "95 % interval"]
    there = f"credit --server {address}"
    questions: dict[str, tuple[list[str], list[str]]] = {
        "report": (
            ["credit"],
            [
                "credit: thompson, floor 0.1",
                "champion ",
                "pnl",
                "GBP",
                "challenger is ejected: errors",
                "<1.5 ms",
                *explained,
            ],
        ),
        "explain": ([asked.decisions[0]], ["Reproduced", "the unit and the arm", f"next: croupier report {there}"]),
        "evaluate": (
            ["credit", "--policy", str(tmp_path / "policy.yaml")],
            ["had it been served by thompson, floor 0.1", "lift", "Judged on 200 rewarded decisions"],
        ),
        "events": (["credit"], ["challenger", "too many of them.", f"next: croupier report {there}"]),
    }
    for name, (arguments, expected) in questions.items():
        status, out, err = await command(capsys, name, *arguments, "--server", address)
        assert (status, err) == (0, ""), name
        for text in expected:
            assert text in out, f"{text!r} in\n{out}"
        assert max(map(len, out.splitlines())) <= 120, out
        assert "\x1b" not in out, "no colours where nobody looks"
        status, out, err = await command(capsys, name, *arguments, "--server", address, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)["route"] == "credit"


async def test_help_says_what_an_evaluation_is_of(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert candidate.EVALUATED in " ".join(capsys.readouterr().out.split())


async def test_the_store_is_read_where_no_server_is(
    asked: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = str(asked.fake.path)
    status, out, err = await command(capsys, "explain", asked.decisions[5], "--config", config, "--unit")
    assert (status, err) == (0, "")
    assert "Reproduced" in out
    assert "unit unit-5" in out
    assert out.endswith("next: croupier report credit --server HOST:PORT\n"), "which takes no --config"
    (tmp_path / "policy.yaml").write_text("{kind: split, weights: {champion: 1, challenger: 3}}\n")
    wanted = ["evaluate", "credit", "--policy", str(tmp_path / "policy.yaml"), "--config", config]
    status, out, err = await command(capsys, *wanted, "--json")
    assert (status, err) == (0, "")
    asked_of_the_server = await asked.service.evaluate(
        EvaluateRequest(route="credit", policy="{kind: split, weights: {champion: 1, challenger: 3}}")
    )
    assert json.loads(out)["value"]["value"] == asked_of_the_server.value.value
    status, _, err = await command(capsys, *wanted[:1], "nope", *wanted[2:])
    assert (status, err) == (1, "croupier: unknown route 'nope'; there are: credit\n")
    status, _, err = await command(capsys, "explain", "nope", "--config", config)
    assert (status, "unknown decision 'nope'" in err) == (1, True)
    asked.fake.path.write_text(asked.fake.path.read_text().replace("sqlite:store.db", '"memory:"'))
    status, _, err = await command(capsys, "explain", asked.decisions[5], "--config", config)
    assert (status, "ask it with --server" in err) == (1, True)


async def test_a_long_log_tells_how_far_it_was_read(
    asked: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commands, "_EACH", 100)
    (tmp_path / "policy.yaml").write_text("kind: split\n")
    status, _, err = await command(
        capsys, "evaluate", "credit", "--policy", str(tmp_path / "policy.yaml"), "--config", str(asked.fake.path)
    )
    assert status == 0
    assert err.splitlines() == [f"croupier: read {n} decisions" for n in (100, 200, 300)]


async def test_a_server_that_refuses_is_a_sentence(address: str, capsys: pytest.CaptureFixture[str]):
    status, _, err = await command(capsys, "report", "nope", "--server", address)
    assert (status, err) == (1, f"croupier: {address} answered: unknown route 'nope'; there are: credit\n")


async def test_a_key_is_sent_with_every_question(asked: Answering):
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]).get(b"authorization"))
        await GrpcApp(answer_methods(asked.service))(scope, receive, send)

    async with serving(app) as address:

        def talk() -> None:
            with Client(address, key="secret") as client:
                client.report("credit")

        await asyncio.to_thread(talk)
        client = AsyncClient(address)
        with pytest.raises(grpc.aio.AioRpcError):
            await client.report("nope")
        await client.close()
    assert seen == [b"Bearer secret", None]
