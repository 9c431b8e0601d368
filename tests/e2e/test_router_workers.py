"""Several router processes on one port: whoever is asked, they are one router. Every request here has a new connection,
so that it may meet any of them."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest

from bandits import Thompson
from router.wire import ARM, DECISION
from tests.e2e.conftest import ARMS
from tests.process import Router, until, write_config

WORKERS = 2
CLIENTS = 3  # that ask at a time
ROUTE = "shared"
ROUTES = {ROUTE: {"policy": {"kind": "thompson"}, "arms": ARMS}}
CONNECTIONS = 24  # so many never all end in one process: once in 2^23 runs
EARNS = {"double": 0.4375, "triple": 0.5625}  # sums of these are exact
INPUT = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}

# A new connection for each request, without the certificates that httpx would read for each.
ask = partial(httpx.request, verify=False, trust_env=False, timeout=60)


class Shared:
    """The router under test, and all the decisions whose reward it has acknowledged."""

    def __init__(self, router, folder, models):
        self.router = router
        self.earned = {}  # arm by decision
        self._folder = folder
        self._models = models

    def write(self, routes=ROUTES):
        write_config(self._folder, routes, models=str(self._models), workers=WORKERS)

    def get(self, path):
        return ask("GET", f"http://{self.router.address}{path}").raise_for_status().json()

    def ready(self):
        answer = ask("GET", f"http://{self.router.admin}/ready")
        assert answer.status_code == 200
        return answer.json()

    def reload(self):
        return ask("POST", f"http://{self.router.admin}/reload")

    def decide(self):
        """A decision, its arm, and the process that made it."""
        answer = ask("POST", f"http://{self.router.address}/v2/models/{ROUTE}/infer", json=INPUT).raise_for_status()
        told = answer.json()["parameters"]
        decision = told[DECISION]
        return decision, told[ARM], decision[12:24]

    def reward(self, decision, arm):
        told = {"decision_id": decision, "reward": EARNS[arm]}
        return ask("POST", f"http://{self.router.address}/v1/feedback", json=told)

    def earn(self):
        """The process that made a decision, whose reward is acknowledged."""
        decision, arm, process = self.decide()
        assert self.reward(decision, arm).raise_for_status().json()["arm"] == arm
        self.earned[decision] = arm
        return process

    def described(self):
        """What many say of the route, once all of them draw by all that was acknowledged."""

        def told():
            each = [self.get(f"/v1/routes/{ROUTE}") for _ in range(CONNECTIONS)]
            return each if all(probabilities(one) == self.best() for one in each) else None

        return until(told)

    def best(self):
        """What the policy makes of the rewards."""
        counts = Counter(self.earned.values())
        sums = [[counts[arm], counts[arm] * EARNS[arm], counts[arm] * EARNS[arm] ** 2] for arm in ARMS]
        return dict(zip(ARMS, Thompson().fit(np.array(sums))(None, np.ones(len(ARMS), bool)).tolist(), strict=True))


def probabilities(described):
    return {arm["name"]: arm["probability"] for arm in described["arms"]}


@pytest.fixture(scope="module")
def shared(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    path = write_config(folder, ROUTES, models=str(models), workers=WORKERS)
    with Router(path) as router:
        assert router.address
        yield Shared(router, folder, models)
        workers = router.children()
        assert len(workers) == WORKERS
        assert router.stop() == 0
        assert "Traceback" not in router.complained, router.complained
        assert router.children() == []


def test_rewards_through_any_of_them_teach_all_of_them(shared):
    met = Counter(shared.earn() for _ in range(CONNECTIONS))
    assert len(met) == WORKERS
    described = shared.described()
    assert len({each["policy_version"] for each in described}) == 1
    counts = Counter(shared.earned.values())
    for arm in described[0]["arms"]:
        assert arm["reward"]["n"] == counts[arm["name"]]
        assert arm["reward"]["sum"] == counts[arm["name"]] * EARNS[arm["name"]]


def test_metrics_are_those_of_all(shared):
    asked, rewarded = (shared.router.metric(name) for name in ("croupier_requests_total", "croupier_rewards_total"))
    for _ in range(CONNECTIONS):
        shared.earn()
    assert shared.router.metric("croupier_requests_total", code="OK") == asked + CONNECTIONS
    assert shared.router.metric("croupier_rewards_total", route=ROUTE) == rewarded + CONNECTIONS
    shared.described()
    until(lambda: shared.router.metric("croupier_arm_probability", route=ROUTE) == pytest.approx(1.0))


def test_a_report_tells_how_long_arms_took_in_all_of_them(shared):
    for _ in range(CONNECTIONS):
        shared.earn()
    counts: dict[str, dict[float, float]] = {arm: {} for arm in ARMS}
    for line in shared.router.metrics_text().splitlines():
        if found := re.match(r'croupier_request_seconds_bucket\{arm="(.+)",le="(.+)",route="shared"\} (.+)', line):
            counts[found[1]][float(found[2])] = float(found[3])
    assert sum(counts[arm][math.inf] for arm in ARMS) >= CONNECTIONS
    at_most = {
        arm: [next(edge for edge, count in known.items() if count >= q * n) for q in (0.5, 0.95, 0.99) if n]
        for arm, known in counts.items()
        for n in [known[math.inf]]
    }
    for _ in range(CONNECTIONS):
        told = shared.get(f"/v1/routes/{ROUTE}/report")["arms"]
        assert {arm["name"]: [each.get("at_most") for each in arm["latency"]] for arm in told} == at_most


def test_readiness_says_how_many_there_are(shared):
    said = shared.ready()
    assert said["ready"]
    assert said["workers"] == {"up": WORKERS, "of": WORKERS}
    assert said["routes"][ROUTE]["ready"]


def test_all_are_reloaded_or_none(shared):
    def routes():
        return [shared.get("/v1/routes")["routes"] for _ in range(CONNECTIONS)]

    shared.write({**ROUTES, "second": {"arms": ARMS}})
    assert routes() == [[ROUTE]] * CONNECTIONS  # not before they are asked to
    answer = shared.reload().raise_for_status().json()
    assert routes() == [[ROUTE, "second"]] * CONNECTIONS
    assert any(line.startswith("routes.second.arms.double") for line in answer["changed"])
    (said,) = shared.get("/v1/routes/second/events")["events"]
    assert (said["kind"], said["why"]) == ("reloaded", "; ".join(answer["changed"]))

    shared.write({**ROUTES, "third": {"arms": {"absent": {"model": "absent"}}}})
    refused = shared.reload()
    assert refused.status_code == 422
    assert "routes.third.arms.absent: " in refused.json()["error"]
    assert routes() == [[ROUTE, "second"]] * CONNECTIONS

    shared.write({**ROUTES, "second": {"arms": ARMS}, "fourth": {"arms": ARMS}})
    shared.router.signal(signal.SIGHUP)
    until(lambda: routes() == [[ROUTE, "second", "fourth"]] * CONNECTIONS)
    assert shared.router.metric("croupier_reloads_total", outcome="served") == 2
    assert shared.router.metric("croupier_reloads_total", outcome="refused") == 1


def test_a_switch_holds_in_all_of_them_once_it_is_acknowledged(shared):
    def switch(*, on):
        told = {"arm": "double", "on": on, "why": "a test"}
        ask("POST", f"http://{shared.router.address}/v1/routes/{ROUTE}/switch", json=told).raise_for_status()
        described = [shared.get(f"/v1/routes/{ROUTE}") for _ in range(CONNECTIONS)]
        return {arm["allowed"] for each in described for arm in each["arms"] if arm["name"] == "double"}

    assert switch(on=False) == {False}
    assert switch(on=True) == {True}


def test_one_that_is_killed_is_replaced_and_nothing_that_it_acknowledged_is_lost(shared):
    """Its successor serves what the others do, whatever stands in the file by now."""
    before = [shared.get("/v1/routes")["routes"] for _ in range(CONNECTIONS)]
    shared.write({"never": {"arms": ARMS}})
    stop = threading.Event()
    lost: list[httpx.HTTPError] = []

    def earn():
        while not stop.wait(0.02):
            try:
                shared.earn()
            except httpx.TransportError as error:
                lost.append(error)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.NOT_FOUND:
                    raise
                lost.append(error)  # a decision of the last moment, which was not written down yet

    victim, survivor = shared.router.children()
    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(earn) for _ in range(CLIENTS)]
        until(partial(earned, shared, len(shared.earned) + 20))
        os.kill(victim, signal.SIGKILL)
        until(partial(earned, shared, len(shared.earned) + 20))  # the other answers
        until(partial(replaced, shared, victim))
        stop.set()
        assert [each.result() for each in working] == [None] * CLIENTS
    assert len(lost) <= CLIENTS  # what was in flight on the one that was killed, or not yet in the log
    assert survivor in shared.router.children()
    assert len({shared.decide()[2] for _ in range(CONNECTIONS)}) == WORKERS
    assert [shared.get("/v1/routes")["routes"] for _ in range(CONNECTIONS)] == before
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda item: shared.reward(*item), shared.earned.items())
        assert Counter(answer.status_code for answer in answers) == {409: len(shared.earned)}  # they are known, all
    counted = sum(arm["reward"]["n"] for arm in shared.get(f"/v1/routes/{ROUTE}")["arms"])
    assert len(shared.earned) <= counted <= len(shared.earned) + len(lost)
    assert "another takes its place" in shared.router.complained


def earned(shared, many):
    return len(shared.earned) >= many


def replaced(shared, victim):
    return victim not in shared.router.children() and shared.ready()["workers"] == {"up": WORKERS, "of": WORKERS}
