"""How Seldon's agent repeats a call: five tries on two statuses, with waits that double."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc

TRIES = 5
FIRST_WAIT = 0.1  # seconds
RETRIED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)

T = TypeVar("T")


def retried(call: Callable[[], T]) -> T:
    """What `call` returns, in the end; the agent's gRPC client wraps all of its calls so."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in RETRIED:
                raise
            time.sleep(FIRST_WAIT * 2**attempt)
    return call()
