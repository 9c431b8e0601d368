"""Tests marked anyio are coroutines, run by asyncio."""

from __future__ import annotations

import pytest

from router import learner


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was away is asked again at once."""
    monkeypatch.setattr(learner, "RETRY_SECONDS", 0.01)
