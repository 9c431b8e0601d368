"""What a client may ask holds for all workers together. Every request has a new connection, so it may meet any."""

from __future__ import annotations

import hashlib
from collections import Counter

from tests import plain_http
from tests.process import Router, write_config

WORKERS = 2
BURST = 10
ROUTES = {"r": {"arms": {"a": {"model": "m", "target": "127.0.0.1:9"}, "b": {"model": "n", "target": "127.0.0.1:9"}}}}


def test_a_client_asks_no_more_of_two_workers_than_of_one(tmp_path):
    desk = {
        "roles": ["read"],
        "key_sha256": hashlib.sha256(b"secret").hexdigest(),
        "requests_per_second": 1e-6,
        "burst": BURST,
    }
    with Router(write_config(tmp_path, ROUTES, workers=WORKERS, clients={"desk": desk})) as router:

        def ask() -> int:
            url, headers = f"http://{router.address}/v1/routes", {"authorization": "Bearer secret"}
            return plain_http.get(url, headers=headers, timeout=60).status_code

        assert Counter(ask() for _ in range(3 * BURST)) == {200: BURST, 429: 2 * BURST}
        assert router.stop() == 0
