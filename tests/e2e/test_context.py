"""What is known about a request, before it and after it: contexts, rules, feature tables, and rewards of every kind."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial

import grpc
import numpy as np
import pytest

from protos.errors import Code
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs
from protos.v2 import SERVICE as V2
from router import Client
from router.client import Earned
from router.learning.credit import GRACE_SECONDS
from router.wire import ARM, DECISION
from tests import plain_http
from tests.e2e.calls import GRPC_OPTIONS, refusal
from tests.e2e.conftest import ARMS
from tests.process import Router, until, write_config

SOON = 30.0  # seconds: many times what a replica may take to read what others have written
WINDOW = 1.0  # seconds in which a reward has to come
X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}

ROUTES = {
    "ruled": {
        "arms": ARMS,
        "context": {
            "heat": {"tensor": "x", "column": 0},
            "region": {"metadata": "x-region", "levels": ["eu", "us"], "unknown": "other", "missing": "other"},
        },
        "rules": [
            {"name": "hot", "when": "heat > 0.5", "use": "triple"},
            {"name": "home", "when": 'region == "eu"', "never": ["triple"]},
        ],
        "rule_tests": [{"given": {"heat": 0.5, "region": "eu"}, "allowed": ["double"], "rule": "home"}],
    },
    "known": {
        "arms": ARMS,
        "context": {
            "segment": {
                "lookup": "customers",
                "column": "segment",
                "levels": ["desk", "private"],
                "missing": "private",
            },
            "orders": {"lookup": "customers", "column": "orders", "missing": 0},
        },
        "rules": [
            {"name": "desks", "when": 'segment == "desk" and orders >= 3', "use": "triple"},
            {"name": "others", "when": "orders >= 0", "use": "double"},
        ],
    },
    "contextual": {
        "arms": ARMS,
        "context": {"heat": {"tensor": "x", "column": 0, "low": -10, "high": 10}},
        "policy": {"kind": "linucb"},
        "floor": 0.05,
    },
    "scored": {"arms": ARMS, "reward": {"score": {"kind": "brier", "output": "y", "column": 0}}},
    "late": {"arms": ARMS, "reward": {"low": -1, "window_seconds": WINDOW, "default": -0.5}},
    "metered": {
        "arms": {"double": {"model": "double"}, "triple": {"model": "triple", "cost": 0.25}},
        "metrics": {"profit": {"unit": "GBP"}, "delay": {"unit": "ms", "better": "lower"}},
        "reward": {"corrections": "replace"},
    },
}


@pytest.fixture(scope="module")
def router(models, tmp_path_factory):
    """One server with a route for each of these tests."""
    features = {"customers": {"columns": {"segment": "text", "orders": "number"}}}
    config = write_config(
        tmp_path_factory.mktemp("context"),
        ROUTES,
        models=str(models),
        features=features,
        flush_seconds=0.02,
        refresh_seconds=0.05,
    )
    with Router(config) as router:
        assert router.address
        yield router
        assert router.stop() == 0
        assert "Traceback (most recent call last)" not in router.complained, router.complained


@pytest.fixture(scope="module", autouse=True)
def late(router):
    """Two early decisions, of which one is rewarded in time: defaults come when these tests have nearly ended."""
    with Client(router.address) as client:
        prompt, silent = (client.infer("late", rows(1.0, 1.0)).decision for _ in range(2))
        client.reward(prompt, 1.0)
    return prompt, silent


@pytest.fixture
def client(router):
    with Client(router.address) as client:
        yield client


def rows(*values):
    return {"x": np.array([values], np.float32)}


def code_of(ask):
    """The status that a question is answered with, and the sentence."""
    try:
        ask()
    except grpc.RpcError as error:
        return refusal(error)
    return Code.OK, ""


def explained(client, decision):
    """Why, as soon as the decision is committed."""
    until(lambda: code_of(lambda: client.explain(decision))[0] is Code.OK, SOON)
    return client.explain(decision)


def rest(router, route, *values, **headers):
    """The arm and the decision of a request over REST."""
    url = f"http://{router.address}/v2/models/{route}/infer"
    answer = plain_http.post(url, json={"inputs": [{**X, "data": values}]}, headers=headers).raise_for_status()
    told = answer.json()["parameters"]
    return told[ARM], told[DECISION]


# ------------------------------------------------------------------------------------------------ context and rules


def test_a_rule_sends_a_request_to_its_arm_and_explain_says_so(client):
    answers = [client.infer("ruled", rows(0.75, 0.0)) for _ in range(20)]
    assert {(answer.arm, answer.propensity) for answer in answers} == {("triple", 1.0)}
    told = explained(client, answers[0].decision)
    assert (told.rule, told.arm, told.reproduced) == ("hot", "triple", True), told.differences
    assert {feature.column: feature.value for feature in told.context} == {
        "heat": 0.75,
        "region=eu": 0.0,
        "region=us": 0.0,
        "region=other": 1.0,
    }
    assert {arm.name: arm.allowed for arm in told.arms} == {"double": False, "triple": True}


def test_what_no_rule_speaks_of_is_left_to_the_policy(client):
    answers = [client.infer("ruled", rows(0.25, 0.0)) for _ in range(50)]
    assert Counter(answer.arm for answer in answers).keys() == {"double", "triple"}
    assert explained(client, answers[0].decision).rule == ""


def test_a_rule_reads_the_headers_of_a_request_over_rest_and_over_grpc(router, client):
    arm, decision = rest(router, "ruled", 0.25, 0.0, **{"X-Region": "eu"})
    assert arm == "double"
    assert explained(client, decision).rule == "home"

    request = ModelInferRequest(model_name="ruled")
    add_inputs(request, rows(0.25, 0.0), raw=True)
    with grpc.insecure_channel(router.address, options=GRPC_OPTIONS) as channel:
        ask = channel.unary_unary(V2 + "ModelInfer")
        bodies = [ask(request.SerializeToString(), metadata=[("x-region", "eu")], timeout=10) for _ in range(20)]
    assert {ModelInferResponse.FromString(body).parameters[ARM].string_param for body in bodies} == {"double"}


def test_who_only_wants_to_know_which_arm_says_what_is_known(router):
    url = f"http://{router.address}/v1/routes/ruled/decide"
    told = plain_http.post(url, json={"numbers": {"heat": 0.75}, "texts": {"region": "us"}}).json()
    assert (told["arm"], told["propensity"]) == ("triple", 1.0)
    refused = plain_http.post(url, json={"numbers": {"region": 1}})
    assert refused.status_code == 422
    assert "heat" in refused.json()["error"]


def test_a_context_that_cannot_be_read_is_refused_and_names_the_feature(client):
    code, sentence = code_of(lambda: client.infer("ruled", rows(float("nan"), 0.0)))
    assert code is Code.INVALID_ARGUMENT
    assert "heat" in sentence
    code, sentence = code_of(lambda: client.infer("contextual", rows(31415.75, 0.0)))
    assert code is Code.INVALID_ARGUMENT
    assert "heat" in sentence
    assert "31415" not in sentence, "what was sent is nobody's business"


def test_a_contextual_policy_learns_which_arm_is_right_when(client):
    values = itertools.cycle((-1.0, 1.0))
    right = {-1.0: "double", 1.0: "triple"}
    for _ in range(4):
        told = []
        for value in itertools.islice(values, 50):
            answer = client.infer("contextual", rows(value, 0.0))
            told.append(Earned(answer.decision, float(answer.arm == right[value])))
        assert all(outcome.code == 0 for outcome in client.rewards(told).outcomes)

    def p(value):
        answer = client.infer("contextual", rows(value, 0.0))
        told = explained(client, answer.decision)
        assert told.reproduced, told.differences
        return {arm.name: arm.probability for arm in told.arms}

    def learnt(value, arm):
        return p(value)[arm] == pytest.approx(0.95)

    for value, arm in right.items():
        until(partial(learnt, value, arm), SOON)


# --------------------------------------------------------------------------------------------------- feature tables


def test_what_was_put_about_a_unit_decides_where_its_requests_go(router, client):
    def arm(unit):
        return client.infer("known", rows(1.0, 1.0), unit=unit).arm

    assert (arm("ada"), arm("bob"), arm("")) == ("double",) * 3
    table = {"ada": {"segment": "desk", "orders": 3.0}, "bob": {"segment": "desk", "orders": 2.0}}
    assert client.put_features("customers", table) == 2
    until(lambda: arm("ada") == "triple", SOON)
    assert arm("bob") == "double"

    answer = client.infer("known", rows(1.0, 1.0), unit="ada")
    told = explained(client, answer.decision)
    assert told.rule == "desks"
    assert {feature.column: feature.value for feature in told.context}["orders"] == 3.0

    url = f"http://{router.address}/v1/features/customers"
    row = {"unit": "bob", "numbers": {"orders": 4}, "texts": {"segment": "desk"}}
    assert plain_http.post(url, json={"rows": [row], "forget": ["ada"]}).json() == {"rows": 2}
    until(lambda: (arm("ada"), arm("bob")) == ("double", "triple"), SOON)


@pytest.mark.parametrize(
    ("table", "row", "code", "named"),
    [
        ("strangers", {"orders": 1.0}, Code.NOT_FOUND, "strangers"),
        ("customers", {"ordrs": 1.0}, Code.INVALID_ARGUMENT, "ordrs"),
        ("customers", {"orders": "many"}, Code.INVALID_ARGUMENT, "orders"),
    ],
)
def test_features_that_are_not_declared_are_refused(client, table, row, code, named):
    told, sentence = code_of(lambda: client.put_features(table, {"ada": row}))
    assert told is code
    assert named in sentence


# --------------------------------------------------------------------------------------------------------- rewards


def test_a_reward_is_worked_out_from_what_happened(client):
    answers = [client.infer("scored", rows(0.25, 9.0)) for _ in range(20)]
    for answer in answers:
        assert list(client.reward(answer.decision, truth=1.0).counted) == ["reward", "truth"]
    earned = {"double": 1 - 0.5**2, "triple": 1 - 0.25**2}  # predictions are 0.5 and 0.75
    for arm in client.describe("scored").arms:
        assert arm.reward.sum == pytest.approx(arm.reward.n * earned[arm.name])
    assert sum(arm.reward.n for arm in client.describe("scored").arms) == 20
    told = explained(client, answers[0].decision)
    assert told.prediction == {"double": 0.5, "triple": 0.75}[answers[0].arm]
    assert {outcome.name: outcome.value for outcome in told.outcomes} == {
        "truth": 1.0,
        "reward": pytest.approx(earned[answers[0].arm]),
    }
    code, sentence = code_of(lambda: client.reward(answers[0].decision, truth=0.5))
    assert code in {Code.ALREADY_EXISTS, Code.INVALID_ARGUMENT}, sentence


def test_rewards_over_one_stream_are_answered_one_by_one(client):
    answers = [client.infer("metered", rows(1.0, 1.0)) for _ in range(30)]
    sent = []

    def items():
        for answer in answers:
            sent.append(answer.decision)
            yield Earned(answer.decision, 0.5, metrics={"profit": 2.0})
        yield Earned("0" * 32, 1.0)
        yield Earned(answers[0].decision, 7.0)
        yield Earned(answers[0].decision, metrics={"delay": 3.0})

    outcomes = list(client.reward_stream(items()))
    assert [outcome.arm for outcome in outcomes[:30]] == [answer.arm for answer in answers]
    assert all(sorted(outcome.counted) == ["profit", "reward"] for outcome in outcomes[:30])
    assert [outcome.code for outcome in outcomes[30:]] == [Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.OK]
    assert sent == [answer.decision for answer in answers]
    assert sum(arm.reward.n for arm in client.describe("metered").arms) == 30


def test_a_correction_takes_the_place_of_what_was_told_before(router, client):
    before = client.describe("metered")
    answer = client.infer("metered", rows(1.0, 1.0))
    client.reward(answer.decision, 0.25, metrics={"profit": 10.0})
    assert list(client.reward(answer.decision, 0.75).counted) == ["reward"]
    after = client.describe("metered")

    def total(description, of):
        return sum(of(arm) for arm in description.arms)

    assert total(after, lambda arm: arm.reward.n) - total(before, lambda arm: arm.reward.n) == 1
    assert total(after, lambda arm: arm.reward.sum) - total(before, lambda arm: arm.reward.sum) == pytest.approx(0.75)
    labels = {"route": "metered", "metric": "profit", "unit": "GBP"}
    expected = total(after, lambda arm: arm.metrics["profit"].sum)
    until(lambda: router.metric("croupier_metric_sum", **labels) == pytest.approx(expected), SOON)


def test_the_report_knows_units_directions_and_costs(client):
    for _ in range(4):
        answer = client.infer("metered", rows(1.0, 1.0))
        client.reward(answer.decision, 0.5, metrics={"delay": 2.0})
    report = client.report("metered")
    assert {arm.name: arm.cost for arm in report.arms} == {"double": 0.0, "triple": 0.25}
    metrics = {metric.name: (metric.unit, metric.better) for arm in report.arms for metric in arm.metrics}
    assert metrics == {"profit": ("GBP", "higher"), "delay": ("ms", "lower")}
    assert 0.0 < report.cost_per_decision < 0.25


def test_silence_means_the_default_when_the_window_is_over(router, client, late):
    """The last of all, for it takes as long as the grace that replicas give each other's clocks."""
    prompt, silent = late

    def outcomes(decision):
        return {outcome.name: outcome.value for outcome in client.explain(decision).outcomes}

    until(lambda: outcomes(silent), WINDOW + GRACE_SECONDS + SOON)
    assert (outcomes(prompt), outcomes(silent)) == ({"reward": 1.0}, {"reward": -0.5})
    until(lambda: router.metric("croupier_default_rewards_total") == 1, SOON)
    code, _ = code_of(lambda: client.reward(silent, 1.0))
    assert code is Code.ALREADY_EXISTS, "the default stands"
    assert sum(arm.reward.sum for arm in client.describe("late").arms) == 0.5
