"""How a call that failed ended."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect

from protos.errors import CallError, Code
from protos.framing import Disconnected


def code_of(error: BaseException, deadline: float | None) -> Code:
    """What the caller is told, who may have left. `deadline` is on the clock of the running loop."""
    if isinstance(error, CallError):
        return error.code
    if isinstance(error, Exception) and not isinstance(error, ClientDisconnect | Disconnected):
        return Code.INTERNAL
    late = deadline is not None and deadline <= asyncio.get_running_loop().time()
    return Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
