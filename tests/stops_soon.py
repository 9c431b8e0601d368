"""`python -m tests.stops_soon runtime MODELS ...` or `... router serve CONFIG`, which is given but a second to stop."""

from __future__ import annotations

import sys

from protos.ending import leave
from router import __main__ as router
from router import server
from runtime import __main__ as runtime
from runtime import process

if __name__ == "__main__":
    process.STOP_SECONDS, process.CLOSE_SECONDS = 1.0, 0.5
    server.DRAIN_SECONDS = server.CLOSE_SECONDS = 0.5  # type: ignore[attr-defined]  # the first comes from elsewhere
    leave({"router": router, "runtime": runtime}[sys.argv[1]].main(sys.argv[2:]))
