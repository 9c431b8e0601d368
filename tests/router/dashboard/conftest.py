"""One browser for all tests of the dashboard, and a made-up server for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.router.dashboard.browser import Browser, browser
from tests.router.dashboard.fake import FakeAnswers, served

DESK, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def fake() -> FakeAnswers:
    return FakeAnswers()


@pytest.fixture
def address(fake: FakeAnswers) -> Iterator[str]:
    with served(fake.app) as address:
        yield address


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Browser]:
    """The dashboard at a desk, with its numbers. In the end nobody else was asked, and the browser had no complaint."""
    chromium.size(*DESK)
    chromium.scheme("light")
    chromium.open(f"http://{address}/")
    chromium.reads("champion", "#arms")
    yield chromium
    asked = {request["url"] for request in chromium.requests()}
    assert {url for url in asked if not url.startswith((f"http://{address}/", "about:"))} == set()
    assert chromium.complaints() == []
    chromium.driver.get("about:blank")
