"""`python -m runtime.post DESCRIPTOR` is one of several processes that serve; the supervisor starts it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from protos.ending import leave
from protos.workers.crew import Crew
from runtime.process import Started, serve_models, set_up_log
from runtime.server_settings import ServerSettings


class Work(msgspec.Struct, frozen=True):
    """What a worker serves."""

    models: str
    settings: ServerSettings


async def _work(descriptor: int) -> None:
    crew = await Crew.over(descriptor)
    work = msgspec.json.decode(crew.post.work, type=Work)
    set_up_log(debug=work.settings.debug)

    def started(what: Started) -> None:
        crew.serves(msgspec.json.encode(what))

    await serve_models(Path(work.models), work.settings, crew.binds, started, crew)
    crew.close()


if __name__ == "__main__":
    asyncio.run(_work(int(sys.argv[1])))
    leave(0)
