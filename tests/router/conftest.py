"""Tests marked anyio are coroutines, run by asyncio."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.learning import outage
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore
from tests.router.bench import Open


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was away is asked again at once."""
    monkeypatch.setattr(outage, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(outage, "LAST_RETRY_SECONDS", 0.01)


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the one store of a test, as each replica does."""
    if request.param == "sqlite":
        return lambda: SQLiteStore(str(tmp_path / "store.db"))
    store = MemoryStore()
    return lambda: store
