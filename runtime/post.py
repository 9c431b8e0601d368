"""`python -m runtime.post POST` is one of several processes that serve; the supervisor starts it."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import msgspec

from runtime.crew import Crew
from runtime.line import Line, Order
from runtime.process import Started, serve_models, set_up_log
from runtime.server_settings import ServerSettings


class Post(msgspec.Struct, frozen=True):
    """Where a worker stands: what it serves, on which inherited sockets, and what was ordered before it came."""

    models: str
    settings: ServerSettings
    sockets: list[int]
    line: int
    journal: list[Order] = []
    late: bool = False  # the others serve already


async def _work(post: Post) -> None:
    line = await Line.over(socket.socket(fileno=post.line))
    crew = Crew(line, post.journal, late=post.late)

    def started(what: Started) -> None:
        crew.up(what.served, what.failed)

    await serve_models(Path(post.models), post.settings, [f"fd://{fd}" for fd in post.sockets], started, crew)
    line.close()


if __name__ == "__main__":
    post = msgspec.json.decode(sys.argv[1], type=Post)
    set_up_log(debug=post.settings.debug)
    asyncio.run(_work(post))
