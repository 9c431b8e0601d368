"""A Redis for the tests of this folder, which give each store a prefix of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import PROGRAM, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if PROGRAM is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
