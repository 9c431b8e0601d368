from __future__ import annotations

import pytest

from router.stores.memory import MemoryStore
from tests.router.stores.contract import StoreContract
from tests.router.stores.words import Fresh


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def fresh(self) -> Fresh:
        return MemoryStore
