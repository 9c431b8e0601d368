"""`python -m router.worker DESCRIPTOR` is one of several routers on the same ports; the supervisor starts it."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from pathlib import Path

from protos.ending import leave
from protos.errors import CallError
from protos.workers.crew import Crew
from router.server import serve_router
from router.stores import StoreError
from router.workers import Work

_log = logging.getLogger(__name__)


async def work(descriptor: int) -> None:
    """Serves what the supervisor says. Raises as `serve_router` does."""
    crew = await Crew.over(descriptor)
    told = Work.decode(crew.post.work)
    await serve_router(Path(told.path), told.config(), lambda *_addresses: crew.serves(b"%d" % _memory()), crew)
    crew.close()


def _memory() -> int:
    """The most memory that this process has had so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most >> (20 if sys.platform == "darwin" else 10)


def main(descriptor: int) -> int:
    """Returns the exit status: 1 after a sentence in the log when it cannot serve."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s", level=logging.INFO)
    try:
        asyncio.run(work(descriptor))
    except (CallError, StoreError, OSError, EOFError) as error:
        _log.error("cannot serve: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    leave(main(int(sys.argv[1])))
