"""Several router processes on the same ports, which learn together through the store that they share.

Each is a whole router, with its own routes, policies, connections and models: two workers need twice the memory for the
models of this process. The limits of clients are those of all workers together, `max_in_flight` of a route is each
worker's own. See protos/workers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from protos.errors import Internal
from protos.workers.crew import Crew
from protos.workers.line import Outcome
from protos.workers.supervisor import Supervisor
from router.config import Change, Config
from router.config.reader import file_text, read_text
from router.edge.limits import shared_memory
from router.edge.readiness import WorkersState
from router.errors import ConfigError
from router.stores import StoreError
from router.upstreams.local import GREATEST as MODELS_GREATEST

RELOAD = "reload"
LOOK = "look"

LOOK_SECONDS = 2.0
"""Who has not looked at the store by then is starting, say, and looks as it does."""

GREATEST = MODELS_GREATEST | {
    "croupier_arm_probability",
    "croupier_learner_lag_seconds",
    "croupier_mean_reward",
    "croupier_metric_known",
    "croupier_metric_mean",
    "croupier_metric_sum",
    "croupier_store_away_seconds",
}
"""Of these gauges every worker says the same once it has read the store, or the worst counts; others are added up."""

_log = logging.getLogger(__name__)


class Work(msgspec.Struct, frozen=True):
    """What a worker serves: the text of a configuration file as it was read once, for all, and where that is."""

    path: str
    text: str

    @classmethod
    def of(cls, path: Path) -> Work:
        """What stands in a file now. Raises ConfigError."""
        return cls(str(path), file_text(path))

    @classmethod
    def decode(cls, word: str) -> Work:
        return msgspec.json.decode(word, type=cls)

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        return read_text(self.text, Path(self.path))


class Worker(Protocol):
    """A router that can be told what all of them are to do: to take another configuration, in two steps, say."""

    async def prepare(self, config: Config) -> None:
        """Builds and warms all of it, and serves none of it yet. Raises ConfigError, and then nothing has changed."""

    async def switch(self) -> list[Change]:
        """Serves what was prepared; returns what that changed."""

    async def drop(self) -> None:
        """Lets go of what was prepared, if anything was."""

    async def look(self) -> None:
        """Puts in force what replicas have agreed on about routes. Raises StoreError."""


async def supervise(work: Work, started: Callable[[str, str], None]) -> bool:
    """Keeps as many routers at work as its configuration says until SIGTERM or SIGINT; then drains them.

    SIGHUP reloads them all, or none. `started` gets the addresses of clients and of operators once all of them accept.
    False when they could not even start: they have said why. Raises ConfigError, and OSError with the address as its
    file name when one cannot be bound.
    """
    config = work.config()

    def up(addresses: list[str], memory: bytes) -> None:
        _log.info("%d workers serve, with models of their own: %d MiB each", config.workers, int(memory))
        started(*addresses)

    supervisor = Supervisor(
        "router.worker",
        work.encode(),
        [config.listen, config.admin],
        config.workers,
        up,
        replacing=RELOAD,
        greatest=GREATEST,
    )
    supervisor.shared = [shared_memory(config.workers)]
    supervisor.stop_seconds += config.linger_seconds
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.signal_one, signal.SIGHUP)
    return await supervisor.run()


class Workers:
    """A router as one of several: what concerns all of them is done by all."""

    def __init__(self, crew: Crew, path: Path, router: Worker) -> None:
        self._crew = crew
        self._path = path
        self._router = router
        self._prepared = ""

    @property
    def state(self) -> WorkersState:
        """How many there are."""
        return WorkersState(self._crew.up, self._crew.of)

    async def reload(self) -> list[Change]:
        """Has all serve the file as it is now; returns what that changed.

        Raises ConfigError, with what each of them says, when one cannot; then nothing has changed.
        """
        return judged(await self._crew.outcomes(RELOAD, Work.of(self._path).encode()))

    async def look(self) -> None:
        """Has all put in force what replicas have agreed on about routes. Raises StoreError when this one cannot."""
        await self._router.look()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._crew.outcomes(LOOK), LOOK_SECONDS)

    async def do(self, what: str, *words: str) -> bytes:
        """Does here what was asked of all."""
        match what, words:
            case "try_reload", [word]:
                await self._router.prepare(Work.decode(word).config())
                self._prepared = word
            case "drop_reload", [word]:
                if word == self._prepared:
                    self._prepared = ""
                    await self._router.drop()
            case "reload", [word]:
                return await self._switch(word)
            case "look", []:
                with suppress(StoreError):  # the learner looks again
                    await self._router.look()
            case _:
                raise Internal(f"no worker knows how to {what}")
        return b""

    async def _switch(self, word: str) -> bytes:
        try:
            if word != self._prepared:  # it was not there yet when the others were asked whether they could
                await self._router.prepare(Work.decode(word).config())
            self._prepared = ""
            return msgspec.json.encode(await self._router.switch())
        except ConfigError as error:
            # The others serve it by now. Whoever takes this one's place tries again.
            _log.error("this worker ends, as it cannot serve what the others do: %s", error)
            signal.raise_signal(signal.SIGINT)  # at once
            raise


def judged(outcomes: Sequence[Outcome]) -> list[Change]:
    """What a reload changed, from how each worker did. Raises ConfigError for one that was refused."""
    refusals = [outcome.message for outcome in outcomes if outcome.code]
    served = [outcome.value for outcome in outcomes if outcome.value]
    if not outcomes:
        raise ConfigError("no worker is there to serve it; send it again in a moment")
    if not refusals:
        return msgspec.json.decode(served[0], type=list[Change])
    if served:
        raise ConfigError(
            f"{len(refusals)} of {len(outcomes)} workers cannot serve what the others now do, and are replaced: "
            + "; ".join(refusals)
        )
    if len(set(refusals)) == 1 and len(refusals) == len(outcomes):
        raise ConfigError(refusals[0])
    raise ConfigError(f"{len(refusals)} of {len(outcomes)} workers refuse: " + "; ".join(refusals))
