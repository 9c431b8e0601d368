"""`python -m runtime.post DESCRIPTOR` is one of several processes that serve; the supervisor starts it."""

from __future__ import annotations

import asyncio
import sys
import traceback
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


def main(descriptor: int) -> int:
    """Returns the exit status: 1 after a traceback."""
    try:
        asyncio.run(_work(descriptor))
    except Exception:  # noqa: BLE001 - Python itself would then wait for what a model's code still does
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    leave(main(int(sys.argv[1])))
