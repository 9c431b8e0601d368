"""Pages of other sites change nothing here."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from protos.rest import rest_app
from router.dashboard.origin import own_pages
from tests.router.dashboard.fake import served


async def done(_request: Request) -> Response:
    return PlainTextResponse("done")


@pytest.fixture(scope="module")
def address():
    with served(own_pages(rest_app([Route("/it", done, methods=["GET", "POST"])], max_body=1000))) as address:
        yield address


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),  # no browser
        ("POST", {"sec-fetch-site": "same-origin", "origin": "http://behind.a.proxy"}, 200),
        ("POST", {"sec-fetch-site": "none"}, 200),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site", "origin": "OWN"}, 403),  # another port of this machine, say
        ("POST", {"origin": "OWN"}, 200),
        ("POST", {"origin": "http://elsewhere.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("GET", {"sec-fetch-site": "cross-site"}, 200),  # somebody follows a link
    ],
)
def test_who_may_post(address: str, method: str, headers: dict[str, str], status: int, http2: bool):
    sent = {name: f"http://{address}" if value == "OWN" else value for name, value in headers.items()}
    versions: Any = {"http1": not http2, "http2": http2, "verify": False}
    with httpx.Client(**versions) as client:
        answer = client.request(method, f"http://{address}/it", headers=sent)
    assert answer.status_code == status
    if status == 403:
        assert "another site" in answer.json()["error"]
