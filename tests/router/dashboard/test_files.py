"""The dashboard's files, as they are served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from protos.rest import rest_app
from router import dashboard
from router.dashboard import dashboard_routes
from tests import plain_http
from tests.router.dashboard.fake import FakeAnswers, served

pytestmark = pytest.mark.anyio

FILES = sorted((Path(dashboard.__file__).parent / "page").iterdir())


async def get(path: str) -> httpx.Response:
    app: Any = rest_app(dashboard_routes(), max_body=1000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


async def test_the_page_is_found_from_everywhere():
    assert (await get("/")).headers["location"] == "dashboard"
    page = await get("/dashboard")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    missing = await get("/dashboard/nothing.js")
    assert (missing.status_code, missing.json()) == (404, {"error": "the dashboard has no file 'nothing.js'"})
    assert (await get("/dashboard/..%2f__init__.py")).status_code == 404


def test_a_slash_at_the_end_leads_to_the_page():
    """Its relative addresses would lead astray from there."""
    with served(FakeAnswers().app) as address:
        answer = plain_http.get(f"http://{address}/dashboard/", follow_redirects=True)
        assert str(answer.url) == f"http://{address}/dashboard"
        assert answer.status_code == 200


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_a_file_may_load_and_do_nothing_that_is_not_of_this_server(path: Path):
    answer = await get(f"/dashboard/{path.name}")
    assert answer.content == path.read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"https?:", policy) == []
    assert answer.headers["x-content-type-options"] == "nosniff"
    elsewhere = set(re.findall(r"""(?:https?:)?//[\w.]+\.\w+/\S*?(?=["'\s)])""", path.read_text("utf-8")))
    assert elsewhere <= {"http://www.w3.org/2000/svg"}  # the name of SVG, which nobody loads


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_a_script_makes_no_markup_of_strings(path: Path):
    script = path.read_text("utf-8")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []
