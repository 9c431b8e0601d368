"""`serve_alone.py`, in a process of its own.

It stops servers by signals to its own process, and h2corn ends none of its servers once others of the same process have
run on other event loops.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from protos.serve import read_ahead
from tests.process import ROOT

ALONE = Path(__file__).parent / "serve_alone.py"


def test_ports_serve_tls_renew_it_and_drain():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ALONE)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_all_requests_of_a_turn_are_read_before_the_first_is_worked_on():
    """Taking a body wakes the server's thread, so it is done for all of them at once."""
    done = []

    async def app(_scope, receive, _send):
        done.append("work")
        done.extend([(await receive())["body"] for _ in range(3)])

    async def send(_event):
        raise AssertionError("nothing is sent")

    def request(*bodies):
        events = iter(bodies)

        async def event(body):
            return {"body": body}

        def receive():
            done.append("read")
            return event(next(events))

        return read_ahead(app)({"type": "http"}, receive, send)

    async def turn():
        await asyncio.gather(*[request(1, 2, 3) for _ in range(2)])

    asyncio.run(turn())
    assert done == ["read"] * 2 + ["work", "read", "read", 1, 2, 3] * 2


def test_what_is_no_request_is_handed_on_as_it_is():
    given: list[object] = []

    async def app(*asked):
        given.extend(asked)

    async def receive():
        raise AssertionError("nobody asked")

    async def send(_event):
        raise AssertionError("nothing is sent")

    asyncio.run(read_ahead(app)({"type": "lifespan"}, receive, send))  # type: ignore[arg-type]  # a coroutine it is
    assert given == [{"type": "lifespan"}, receive, send]
