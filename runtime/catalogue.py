"""Which models are in service, by name and version, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from protos.errors import CallError, NotFound, Unavailable
from runtime.endpoints import Endpoints
from runtime.repository import Found
from runtime.served import Served
from runtime.words import shown, some

REMEMBERED = 1000  # models that are not in service, of which it is known why; the oldest is forgotten

Key = tuple[str, str]  # name and version


class State(Enum):
    """What the index says, in the protocol's words."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the index. A model that serves on after a reload failed is READY, with a reason."""

    name: str
    version: str
    state: State
    reason: str = ""


class Catalogue:
    """The models of one engine. Without a version the newest is meant."""

    def __init__(self) -> None:
        self.endpoints = Endpoints()  # of the models in service
        self._served: dict[Key, Served] = {}
        self._routes: dict[Key, Served] = {}  # the same, and under an empty version the newest
        self._versions: dict[str, list[str]] = {}  # of what is served by name, the oldest first
        self._entries: dict[Key, Entry] = {}  # how the last load or unload ended, the last one last

    def get(self, name: str, version: str) -> Served | None:
        """The model in service that is meant."""
        return self._routes.get((name, version))

    def exactly(self, key: Key) -> Served | None:
        """The model in service under this very version."""
        return self._served.get(key)

    def all(self, name: str = "", version: str = "") -> dict[Key, Served]:
        """What is in service: everything, or of a name, or of a name and version; the oldest version first."""
        named = self._versions if not name else {name} & self._versions.keys()
        keys = [(each, other) for each in sorted(named) for other in self._versions[each] if version in {"", other}]
        return {key: self._served[key] for key in keys}

    def versions(self, name: str) -> list[str]:
        """Those of a name that are in service, the oldest first; none for a model without versions."""
        return [version for version in self._versions.get(name, ()) if version]

    def knows(self, name: str, version: str = "") -> bool:
        """Whether there was ever a load of it, as far as that is remembered."""
        return any(key[0] == name and version in {"", key[1]} for key in self._entries)

    def put(self, key: Key, served: Served) -> None:
        """Takes a model into service, in the place of the one before."""
        self._served[key] = served
        self._publish(key[0], {*self._versions.get(key[0], ()), key[1]})

    def take(self, key: Key) -> Served:
        """Takes a model out of service."""
        served = self._served.pop(key)
        del self._routes[key]
        self._publish(key[0], {*self._versions[key[0]]} - {key[1]})
        return served

    def note(self, key: Key, state: State, reason: str = "") -> None:
        """Writes down what happened to a model."""
        self._entries.pop(key, None)
        self._entries[key] = Entry(*key, state, reason)
        if state is State.UNAVAILABLE and len(self._entries) > len(self._served) + REMEMBERED:
            # Those that are loading stay: the others' names may be of models that will never come back.
            del self._entries[next(key for key, each in self._entries.items() if each.state is State.UNAVAILABLE)]

    def entries(self, keys: Iterable[Key]) -> list[Entry]:
        """What happened to some models last."""
        return [self._entries[key] for key in sorted(keys) if key in self._entries]

    def index(self, found: Iterable[Found]) -> list[Entry]:
        """What is on the disk, and what is served though it is there no more; the rest is forgotten."""
        on_disk = {(each.name, each.version): each for each in found}
        self._entries = {key: each for key, each in self._entries.items() if key in on_disk or key in self._served}
        unheard = {
            key: Entry(*key, State.UNAVAILABLE, each.reason or "not loaded")
            for key, each in on_disk.items()
            if key not in self._entries
        }
        hindered = {
            key: Entry(*key, State.UNAVAILABLE, why) for key, each in self._served.items() if (why := each.hindrance())
        }
        return [entry for _, entry in sorted({**self._entries, **unheard, **hindered}.items())]

    def unfinished(self) -> list[str]:
        """The names of models that are served, or to be so, or not yet let go. From any thread."""
        return sorted({each.name for each in [*self._entries.values()] if each.state is not State.UNAVAILABLE})

    def absent(self, name: str, version: str) -> CallError:
        """Why there is no such model to ask."""
        entries = [entry for key, entry in self._entries.items() if key[0] == name and version in {"", key[1]}]
        called = f"model {shown(name)}" + (f" version {shown(version)}" if version else "")
        if any(entry.state is State.LOADING for entry in entries):
            return Unavailable(f"{called} is being loaded; try again")
        if entries:
            return NotFound(f"{called} is not loaded: {entries[-1].reason or 'it is being unloaded'}")
        if name in self._versions and not self.versions(name):
            return NotFound(f"there is no {called}: it is served without versions")
        loaded = self.versions(name) or sorted(self._versions)
        return NotFound(f"there is no {called}; " + (f"loaded are {some(loaded)}" if loaded else "none is loaded"))

    def _publish(self, name: str, versions: set[str]) -> None:
        """Has what is served under a name be found; not a look at the others, of which there may be thousands."""
        served = {version: self._served[name, version] for version in sorted(versions, key=age)}
        if served:
            self._versions[name] = list(served)
            self._routes |= {(name, version): each for version, each in served.items()}
            self._routes[name, ""] = [*served.values()][-1]
        else:
            del self._versions[name]
            self._routes.pop((name, ""), None)
        self.endpoints.show(name, served.values())


def age(version: str) -> tuple[bool, bool, int, str]:
    """Sorts versions from the oldest: other words, then numbers, and last the one without a version."""
    return (not version, version.isdecimal(), int(version) if version.isdecimal() else 0, version)
