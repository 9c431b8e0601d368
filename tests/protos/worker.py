"""`python -m tests.protos.worker DESCRIPTOR`: one of several processes that serve nothing but what they know."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from protos.errors import InvalidArgument
from protos.serve import Listener, serve
from protos.workers.crew import Crew


class Worker:
    """Its work is a text. It tries one at a time, and refuses the work "not for PID" if it is that process."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.work = crew.post.work
        self.tried: list[str] = []
        self.known: dict[str, str] = {}
        self.released = asyncio.Event()
        self.registry = CollectorRegistry()
        self.asked = Counter("asked", "Requests.", registry=self.registry)

    async def do(self, what: str, *words: str) -> bytes:
        match what, words:
            case "tell", []:
                known = ",".join(f"{key}={value}" for key, value in sorted(self.known.items()))
                tried = ",".join(self.tried)
                return f"{os.getpid()} {self.work} [{known}] [{tried}] {self.crew.up}/{self.crew.of}".encode()
            case "know", [key, value]:
                if value == "nonsense":
                    raise InvalidArgument(f"{value} is not to be known")
                if value == "late":
                    await self.released.wait()
                self.known[key] = value
            case "release", []:
                self.released.set()
            case "missed", []:
                return ",".join("=".join(order.words) for order in self.crew.post.journal).encode()
            case "spoil", []:
                Gauge("spoilt", "It cannot be counted.", registry=self.registry).set_function(lambda: 1 / 0)
            case "try_work", [work]:
                if work == f"not for {os.getpid()}" or self.tried:
                    raise InvalidArgument(work)
                self.tried.append(work)
            case "drop_work", [work]:
                self.tried.remove(work) if work in self.tried else None
            case "work", [work]:
                self.tried.remove(work)
                self.work = work
            case "stall", [process] if process == str(os.getpid()):
                time.sleep(60)  # the whole process
        return b""

    async def app(self, scope, receive, send) -> None:
        """GET /metrics, or what this process says to be its work."""
        self.asked.inc()
        body = generate_latest(await self.crew.scrape()) if scope["path"] == "/metrics" else await self.do("tell")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


async def main(descriptor: int) -> None:
    crew = await Crew.over(descriptor)
    worker = Worker(crew)
    if worker.work == "impossible":
        sys.exit(3)
    await crew.join(worker.do, worker.registry)
    (bind,) = crew.binds
    await serve(Listener(worker.app, bind), started=lambda _addresses: crew.serves(b"up"))
    crew.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
