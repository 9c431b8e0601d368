"""`python -m tests.stops_soon MODELS ...` is the runtime, which is given but a second to stop."""

from __future__ import annotations

from runtime import process
from runtime.__main__ import main

if __name__ == "__main__":
    process.STOP_SECONDS, process.CLOSE_SECONDS = 1.0, 0.5
    process.leave(main())
