"""Questions asked months later: of a store in which somebody else has written, of a route that is served no more."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from protos.errors import CallError, Code
from protos.messages import (
    DecideRequest,
    EvaluateRequest,
    EventsRequest,
    ExplainRequest,
    FeedbackBatchRequest,
    FeedbackRequest,
    ReportRequest,
)
from router.__main__ import main
from router.errors import NotServed, UnknownRoute
from router.safety.events import event
from router.stores import Malformed
from router.stores.sqlite import SQLiteStore
from tests.router.answers.test_service import Answering, answering
from tests.router.bench import until
from tests.router.fakes import NOW, settled

pytestmark = pytest.mark.anyio

SPLIT = "{kind: split}"


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Answering]:
    async with answering(tmp_path, lambda: SQLiteStore(str(tmp_path / "store.db"))) as asked:
        await asked.live(60)
        yield asked


def write(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "store.db")) as db, db:
        assert db.execute(statement, values).rowcount == 1


CHANGES = {
    "UPDATE decisions SET probabilities = x'00' WHERE id = ?": "probabilities: it has 1 bytes, and numbers have 8 each",
    "UPDATE decisions SET failed = 'both' WHERE id = ?": "failed: it is no JSON of names",
    "UPDATE decisions SET time = 'noon' WHERE id = ?": "time: it cannot be of type str",
    "UPDATE outcomes SET value = 'a lot' WHERE name = 'reward' AND decision = ?": "its value or its time is no number",
}


@pytest.mark.parametrize(("statement", "said"), CHANGES.items(), ids=CHANGES.values())
async def test_a_row_that_cannot_be_read_is_named_wherever_it_counts(
    asked: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, said: str
):
    id = asked.decisions[7]
    write(tmp_path, statement, id)
    questions: list[Callable[[], object]] = [
        lambda: asked.service.report(ReportRequest(route="credit")),
        lambda: asked.service.evaluate(EvaluateRequest(route="credit", policy=SPLIT)),
        lambda: asked.service.explain(ExplainRequest(decision_id=id)),
    ]
    for question in questions:
        with pytest.raises(CallError, match=f"decision '{id}' is malformed: {said}") as refused:
            await question()  # type: ignore[misc]
        assert refused.value.code == Code.DATA_LOSS
    for command in (["explain", id, "--config", str(asked.fake.path)], ["export-log", str(asked.fake.path), "credit"]):
        assert main(command) == 1
        assert f"decision '{id}' is malformed: {said}" in capsys.readouterr().err
    assert (await asked.service.explain(ExplainRequest(decision_id=asked.decisions[8]))).reproduced


async def test_an_arm_that_the_route_never_had_is_named(asked: Answering, tmp_path: Path):
    write(tmp_path, "UPDATE decisions SET arm = 'nobody' WHERE id = ?", asked.decisions[3])
    with pytest.raises(
        CallError, match=f"decision '{asked.decisions[3]}' is malformed: arm or failed: the route had no"
    ):
        await asked.service.report(ReportRequest(route="credit"))


REWARDED = "SELECT decision FROM outcomes WHERE name = 'reward' AND value = 1"
FORGERIES = {
    f"UPDATE outcomes SET value = 0.5 WHERE name = 'reward' AND decision = ({REWARDED} LIMIT 1)": 1,
    f"DELETE FROM outcomes WHERE name = 'reward' AND decision = ({REWARDED} LIMIT 1)": 1,
    "UPDATE decisions SET arm = 'champion' WHERE id = (SELECT id FROM decisions WHERE arm = 'challenger' LIMIT 1)": 2,
}


@pytest.mark.parametrize(("statement", "arms"), FORGERIES.items(), ids=["changed", "deleted", "of another arm"])
async def test_a_log_that_does_not_add_up_to_what_was_learnt_is_told(
    asked: Answering, tmp_path: Path, statement: str, arms: int
):
    async def warnings() -> list[str]:
        asked.fake.clock.advance(60.0)
        told = list((await asked.service.report(ReportRequest(route="credit"))).warnings)
        judged = await asked.service.evaluate(EvaluateRequest(route="credit", policy=SPLIT))
        found = [each for each in told if "was changed" in each]
        assert found == [each for each in judged.warnings if "was changed" in each]
        return found

    assert await warnings() == []
    write(tmp_path, statement)
    assert len(await warnings()) == arms


async def test_a_reward_for_a_decision_that_cannot_be_read_fails_alone(asked: Answering, tmp_path: Path):
    decisions = [await asked.fake.service.decide(DecideRequest(route="credit")) for _ in range(2)]
    ids = [each.decision_id for each in decisions]
    await settled(asked.fake.learner)
    write(tmp_path, "UPDATE decisions SET failed = 'both' WHERE id = ?", ids[0])
    items = [FeedbackRequest(decision_id=id, reward=1.0) for id in ids]
    told = (await asked.fake.service.feedback_batch(FeedbackBatchRequest(items=items))).outcomes
    assert [each.code for each in told] == [Code.DATA_LOSS, Code.OK]
    assert f"decision '{ids[0]}' is malformed" in told[0].message


async def test_what_cannot_be_read_is_no_store_that_is_away(
    asked: Answering, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def version() -> int:
        raise Malformed("something", "it is")

    with caplog.at_level(logging.ERROR):
        monkeypatch.setattr(asked.fake.store, "version", version)
        await until(lambda: "a cycle failed" in caplog.text)
    assert asked.fake.learner.outage.seconds == 0.0
    assert "something is malformed" in caplog.text


async def test_what_was_done_to_a_route_that_is_served_no_more_is_told_and_its_log_judged(asked: Answering):
    done = event("credit", "ejected", arm="challenger", why="It failed.", now=NOW)
    asked.fake.store.put("said", {}, events=[done])
    judged = await asked.service.evaluate(EvaluateRequest(route="credit", policy=SPLIT))
    asked.fake.routes.current = {}
    assert [each.id for each in (await asked.service.events(EventsRequest(route="credit"))).events] == [done.id]
    assert (await asked.service.evaluate(EvaluateRequest(route="credit", policy=SPLIT))) == judged
    for question in asked.service.events(EventsRequest(route="x")), asked.service.evaluate(EvaluateRequest(route="x")):
        with pytest.raises(UnknownRoute):
            await question
    assert (await asked.service.events(EventsRequest(route="credit", after=done.id))).route == "credit"
    with pytest.raises(NotServed, match="route 'credit' of this decision is no longer served"):
        await asked.fake.service.feedback(FeedbackRequest(decision_id=asked.decisions[0], reward=1.0))


async def test_the_log_of_a_route_that_is_in_the_file_no_more_is_judged_by_the_command(
    asked: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, policy = tmp_path / "later.yaml", tmp_path / "policy.yaml"
    path.write_text("{routes: {new: {arms: {a: {target: host:1, model: m}}}}, store: 'sqlite:store.db'}")
    policy.write_text(SPLIT)
    assert main(["evaluate", "credit", "--policy", str(policy), "--config", str(path)]) == 0
    assert "challenger" in capsys.readouterr().out
    assert main(["evaluate", "nobody", "--policy", str(policy), "--config", str(path)]) == 1
    assert "unknown route 'nobody'; there are: new" in capsys.readouterr().err
