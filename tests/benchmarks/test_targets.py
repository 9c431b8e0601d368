"""The benchmark measures what it says: the servers answer, the load is sent, and the process's time is read."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.h2load import load
from benchmarks.process import free_port
from benchmarks.targets import (
    MESSAGE_BYTES,
    METHOD,
    check,
    message,
    our_full_router,
    our_router,
    our_runtime,
    stock_mlserver,
)
from tests.process import until

pytestmark = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: nghttp2-client has it")
REQUESTS = 320


def test_the_request_has_the_size_that_is_told():
    assert len(message()) == MESSAGE_BYTES


@pytest.mark.parametrize("start", [our_runtime, our_router, our_full_router, stock_mlserver])
def test_each_server_answers_under_load(start, tmp_path):
    with start(tmp_path) as target:
        check(target, message())
        before = target.process.cpu_seconds()
        seen = load(target.address, METHOD, message(), requests=REQUESTS)
        assert seen.requests == REQUESTS
        assert seen.seconds > 0
        assert seen.mean_seconds > 0
        until(lambda: target.process.cpu_seconds() > before)


def test_a_load_that_fails_is_no_figure():
    with pytest.raises(RuntimeError, match="not every request succeeded"):
        load(f"127.0.0.1:{free_port()}", METHOD, message(), requests=8)
