"""The dashboard of a real server, in a real browser."""

from __future__ import annotations

import httpx
import pytest

from router import Client
from tests import plain_http
from tests.e2e.calls import ROWS
from tests.e2e.conftest import ARMS
from tests.process import Router, until, write_config
from tests.router.dashboard.browser import browser

ROUTES = {
    "multiply": {"policy": {"kind": "thompson"}, "metrics": {"profit": {"unit": "euro"}}, "arms": ARMS},
    "other": {"arms": ARMS},
}
REQUESTS = 60


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    config = write_config(tmp_path_factory.mktemp("dashboard"), ROUTES, models=str(models))
    with Router(config) as router:
        if plain_http.get(f"http://{router.admin}/dashboard").status_code == httpx.codes.NOT_FOUND:
            pytest.skip("this server has no dashboard yet")
        yield router
        assert router.stop() == 0
        assert "Traceback" not in router.complained, router.complained


def test_what_clients_did_is_seen_and_an_arm_switched_off(server):
    """Decisions and rewards of real calls; the reason of one of them; then the kill switch, which calls obey."""
    with browser() as page, Client(server.address) as client:
        page.size(1280, 800)
        page.open(f"http://{server.admin}/#route=multiply")
        page.reads("multiply", "#summary h2")
        page.reads("thompson", "#summary")
        answers = [client.infer("multiply", {"x": ROWS}) for _ in range(REQUESTS)]
        for answer in answers:
            client.reward(answer.decision, 1.0 if answer.arm == "double" else 0.0, metrics={"profit": 2.0})
        shown = page.reads(f"{REQUESTS}", "#summary .tiles")
        assert "Rewards" in shown
        page.until(lambda: page.find_all("polygon.layer"))
        page.reads("profit", "#metrics")
        assert page.text("#notice") == ""

        page.find("#decision").send_keys(answers[0].decision)
        page.find("#explain button").click()
        told = page.reads("the choice is the same", "#explanation")
        assert f"{answers[0].arm} answered" in told

        page.find('#arms tr[data-key="double"] button').click()
        page.find("#who").send_keys("Ann")
        page.find("#why").send_keys("end of the quarter")
        page.find("#switch-confirm").click()
        page.reads("double off", "#summary .badges")
        page.reads("Ann: end of the quarter", "#events")
        until(lambda: {client.infer("multiply", {"x": ROWS}).arm for _ in range(20)} == {"triple"}, seconds=20)

        page.size(390, 844)
        assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.complaints() == []
        asked = {each["url"] for each in page.requests() if each["url"] != "about:blank"}
        assert {url for url in asked if not url.startswith(f"http://{server.admin}/")} == set()
