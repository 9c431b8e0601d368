"""How a call that failed ended."""

from __future__ import annotations

import asyncio

from protos.errors import CallError, Code


def code_of(error: BaseException, deadline: float | None) -> Code:
    """What the caller is told, who may have left. `deadline` is on the clock of the running loop."""
    if isinstance(error, CallError):
        return error.code
    if isinstance(error, Exception):
        return Code.INTERNAL
    late = deadline is not None and deadline <= asyncio.get_running_loop().time()
    return Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
