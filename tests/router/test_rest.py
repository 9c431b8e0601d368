"""The Croupier service in JSON, beside V2's; and the port of the operators."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.rest import rest_app, v2_routes
from router.edge.admin import admin_routes
from router.edge.rest import croupier_routes
from tests.router.fakes import FakeRouter, router, settled

pytestmark = pytest.mark.anyio

ROUTES = """
routes:
  credit:
    policy: {kind: split, weights: {champion: 3, challenger: 1}}
    arms: {champion: {model: forest}, challenger: {model: linear}}
    metrics: {pnl: {unit: GBP}}
"""
X = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2.5]}


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeRouter]:
    async with router(tmp_path, ROUTES, "forest", "linear") as fake:
        yield fake


async def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path, **more)


@pytest.fixture
def clients(fake: FakeRouter) -> Any:
    """What clients see."""
    return rest_app([*v2_routes(fake.service), *croupier_routes(fake.service)], max_body=100_000)


@pytest.fixture
def operators(fake: FakeRouter) -> Any:
    return rest_app(admin_routes(fake.scrape, fake.readiness, fake.reload), max_body=100_000)


async def test_an_inference_its_decision_and_its_reward(fake: FakeRouter, clients: Any):
    answer = await ask(
        clients, "POST", "/v2/models/credit/infer", json={"inputs": [X]}, headers={"croupier-unit": "jane"}
    )
    told = answer.json()
    assert (answer.status_code, told["model_name"], told["outputs"][0]["data"]) == (200, "credit", [2.0, 5.0])
    decision, arm = told["parameters"]["decision_id"], told["parameters"]["arm"]
    assert answer.headers["croupier-decision"] == decision
    assert answer.headers["croupier-arm"] == arm
    assert float(answer.headers["croupier-propensity"]) == told["parameters"]["propensity"]

    reward = {"decision_id": decision, "reward": 0.5, "metrics": {"pnl": -2}, "truth": 1}
    first = await ask(clients, "POST", "/v1/feedback", json=reward)
    assert (first.status_code, first.json()) == (
        200,
        {"route": "credit", "arm": arm, "counted": ["reward", "pnl", "truth"]},
    )
    second = await ask(clients, "POST", "/v1/feedback", json=reward)
    assert second.status_code == 409
    assert "the first one stands" in second.json()["error"]
    assert fake.store.find([decision])[decision].unit == "jane"


async def test_a_batch_of_rewards(clients: Any):
    decided = (await ask(clients, "POST", "/v1/routes/credit/decide", json={"unit": "jane"})).json()
    items = [{"decision_id": decided["decision_id"], "reward": 1}, {"decision_id": "nobody", "reward": 1}]
    answer = await ask(clients, "POST", "/v1/feedback/batch", json={"items": items})
    assert answer.status_code == 200
    counted, unknown = answer.json()["outcomes"]
    assert counted == {"code": 0, "message": "", "route": "credit", "arm": decided["arm"], "counted": ["reward"]}
    assert unknown["code"] == 5


async def test_a_decision_needs_no_body(clients: Any):
    answer = await ask(clients, "POST", "/v1/routes/credit/decide")
    told = answer.json()
    assert (answer.status_code, told["route"], told["target"]) == (200, "credit", "")
    assert told["propensity"] == {"champion": 0.75, "challenger": 0.25}[told["arm"]]
    assert told["model"] == {"champion": "forest", "challenger": "linear"}[told["arm"]]


async def test_routes_are_listed_and_described(clients: Any):
    assert (await ask(clients, "GET", "/v1/routes")).json() == {"routes": ["credit"]}
    told = (await ask(clients, "GET", "/v1/routes/credit")).json()
    assert (told["route"], told["reward_low"], told["reward_high"]) == ("credit", 0.0, 1.0)
    assert [arm["probability"] for arm in told["arms"]] == [0.75, 0.25]
    assert told["arms"][0]["metrics"] == {"pnl": {"n": 0.0, "sum": 0.0, "sum_of_squares": 0.0}}


async def test_a_route_is_a_model_to_v2(clients: Any):
    assert (await ask(clients, "GET", "/v2/models/credit")).json()["platform"] == "croupier_route"
    assert (await ask(clients, "GET", "/v2/models/credit/ready")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/v1/feedback", b"{", 422, "the body is not JSON"),
        ("/v1/feedback", b"\xff", 422, "the body is not JSON"),
        ("/v1/feedback", b"[" * 50_000, 422, "the body is not JSON"),
        ("/v1/feedback", b"[]", 422, "the body must be a JSON object"),
        ("/v1/feedback", b'{"decision": "x"}', 422, 'no field named "decision"'),
        ("/v1/feedback", b'{"decision": "x"}', 422, "the fields of the body are: decision_id, reward, metrics, truth"),
        ("/v1/feedback", b'{"reward": 1' + b"0" * 400 + b"}", 422, "reward: expected a finite number"),
        ("/v1/feedback", b'{"reward": NaN}', 422, "reward: expected a finite number"),
        ("/v1/feedback", b'{"decision_id": 7}', 422, "decision_id: expected a text"),
        ("/v1/feedback", b'{"metrics": [1]}', 422, "metrics: expected an object, each value of it a finite number"),
        ("/v1/feedback/batch", b'{"items": {}}', 422, "items: expected a list, each item of it an object"),
        ("/v1/feedback/batch", b'{"items": [7]}', 422, "items.0: expected an object"),
        ("/v1/feedback/batch", b'{"items": [{}, {"truth": "x"}]}', 422, "items.1.truth: expected a finite number"),
        (
            "/v1/feedback/batch",
            b'{"items": [{"x": 1}]}',
            422,
            'no field named "items.0.x"; those of items.0 are: decis',
        ),
        ("/v1/feedback", b"", 404, "unknown decision ''"),
        ("/v1/routes/nope/decide", b"", 404, "unknown route 'nope'; there are: credit"),
        ("/v1/routes/credit/decide", b'{"unit": 7}', 422, "unit"),
        ("/v1/nothing", b"", 404, "there is no /v1/nothing here"),
        ("/v2/models/nope/infer", b'{"inputs": []}', 404, "unknown route 'nope'"),
        ("/v2/repository/models/credit/load", b"", 501, "routes come from the configuration"),
    ],
)
async def test_what_is_wrong_is_answered_with_a_sentence(
    clients: Any, path: str, body: bytes, status: int, sentence: str
):
    answer = await ask(clients, "POST", path, content=body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    ['{"reward": "4321"x}', '{"reward": "v4321"}', '{"metrics": ["v4321"]}', '{"metrics": {"pnl": "v4321"}}'],
)
async def test_no_error_repeats_what_a_client_reported(clients: Any, body: str):
    answer = await ask(clients, "POST", "/v1/feedback", content=body)
    assert answer.status_code == 422
    assert "4321" not in answer.text


@pytest.mark.parametrize("reward", ["NaN", "Infinity", "2", "-1e-9", "1e999"])
async def test_a_reward_outside_its_range_is_refused(clients: Any, reward: str):
    decided = (await ask(clients, "POST", "/v1/routes/credit/decide")).json()["decision_id"]
    answer = await ask(clients, "POST", "/v1/feedback", content=f'{{"decision_id": "{decided}", "reward": {reward}}}')
    assert answer.status_code == 422


# ------------------------------------------------------------------------------------------------------- operators


async def test_metrics_are_prometheus(fake: FakeRouter, operators: Any):
    for _ in range(5):
        await fake.infer("credit")
    await settled(fake.learner)
    answer = await ask(operators, "GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"].startswith("text/plain")
    assert sum(sample.value for sample in families["croupier_decisions"].samples if sample.name.endswith("_total")) == 5
    assert families["croupier_arm_probability"].samples


async def test_health(fake: FakeRouter, operators: Any):
    assert (await ask(operators, "GET", "/live")).status_code == 200
    assert (await ask(operators, "GET", "/ready")).status_code == 200
    fake.service.draining = True
    assert (await ask(operators, "GET", "/live")).status_code == 200
    assert (await ask(operators, "GET", "/ready")).status_code == 503


async def test_reload_serves_the_file_of_now_or_says_why_not(fake: FakeRouter, operators: Any):
    fake.write("routes: {momentum: {arms: {a: {model: forest}}}}")
    answer = await ask(operators, "POST", "/reload")
    assert answer.status_code == 200
    assert {line.split(".")[1] for line in answer.json()["changed"]} == {"credit", "momentum"}
    fake.write("routes: {momentum: {}}")
    answer = await ask(operators, "POST", "/reload")
    assert answer.status_code == 422
    assert "routes.momentum: Object missing required field `arms`" in answer.json()["error"]
    assert list(fake.routes.current) == ["momentum"]
    assert (await ask(operators, "GET", "/reload")).status_code == 405


async def test_operators_and_clients_do_not_share_paths(clients: Any, operators: Any):
    for path in ("/metrics", "/reload", "/ready"):
        assert (await ask(clients, "GET", path)).status_code == 404
    assert (await ask(operators, "GET", "/v2")).status_code == 404


async def test_an_answer_is_json_that_everybody_reads(fake: FakeRouter, clients: Any):
    answer = await ask(clients, "GET", "/v1/routes/credit")
    assert answer.headers["content-type"] == "application/json"
    json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
