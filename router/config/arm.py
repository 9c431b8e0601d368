"""The arms of a route: what they are called and who answers for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from router.config.struct import GREATEST, Name, Struct, check_address, check_positive
from router.errors import listed
from router.trust import Trust

Kind = Literal["local", "grpc", "seldon", "rest", "ensemble"]

_MOST_RETRIES = 10
_MOST_CONNECTIONS = 100
_PATHS = "ca", "certificate", "key"
_HEADER = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OURS = re.compile(r"grpc-.*|croupier-.*|seldon-.*|x-seldon-route|te|host|content-type|content-length|traceparent")


class File(Struct, frozen=True):
    """A value that must not stand in a configuration, such as a token."""

    file: str  # all of it, without the white space around it


class Ensemble(Struct, frozen=True):
    """Several arms that answer together."""

    members: dict[Name, float]  # how much each counts
    arms: dict[Name, Arm] = {}  # those members that are no arms of the route
    combine: Literal["mean", "vote"] = "mean"  # of numbers, or of the classes that most agree on

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members: at least one member is needed")
        for name, weight in self.members.items():
            check_positive(**{f"members.{name}": weight})
        if idle := self.arms.keys() - self.members:
            raise ValueError(f"arms: {listed(idle)} counts for nothing; give it a weight in members")
        if any(arm.ensemble for arm in self.arms.values()):
            raise ValueError("arms: an ensemble has no ensembles among its members")


class Arm(Struct, frozen=True):
    """An alternative of a route, of one kind.

    - in this process: `model`, and perhaps `version`;
    - a V2 gRPC server: `model` and `target`, one address or several that serve the same;
    - a Seldon mesh: the same with `kind: seldon`; `model` may be NAME.pipeline or NAME.experiment;
    - a V2 REST server: `model` and `url`;
    - several arms that answer together: `ensemble`.
    """

    model: str = ""  # its name where it is served; for this process, a folder of `models`
    version: str = ""  # empty: the server's choice
    kind: Kind | None = None  # none: as the other keys say
    target: str | tuple[str, ...] = ""  # "HOST:PORT" of remote servers; one far worse than the others is left out
    url: str = ""  # "http://HOST:PORT" of a REST server; what it has before /v2 belongs to it
    ensemble: Ensemble | None = None  # who answers together
    tls: Trust | None = None  # none: a plain connection, or for https whom this machine trusts
    headers: dict[str, str | File] = {}  # sent with every call, such as an authorization; a secret stands in a file
    client: Literal["http2", "grpc"] = "http2"  # grpc: grpcio; costs several times more, and restarts may fail calls
    connections: int = 1  # to each target
    cost: float | None = None  # of a decision for it, in the unit of the reward: policies learn the reward less this
    timeout_seconds: float = 5.0  # a remote server that takes longer has failed
    retries: int = 1  # of calls that no server has begun, on another connection
    files_digest: str = ""  # of the files that it names, by who reads the configuration: renewed, it connects anew

    def __post_init__(self) -> None:
        if self.target != "":
            _check_targets(self.targets)
        kind = self.the_kind
        if self.kind not in {None, kind} and (self.kind, kind) != ("seldon", "grpc"):
            raise ValueError(f"kind: {self.kind} {_WANTS[self.kind or kind]}")
        given = {name for name in self.__struct_fields__ if getattr(self, name) != _DEFAULTS[name]}
        if wrong := given - _TAKES[kind] - {"kind", "cost", "files_digest"}:
            raise ValueError(f"{min(wrong)}: {_ABOUT[kind]} has none; it takes {listed(_TAKES[kind])}")
        if not (self.model or self.ensemble):
            raise ValueError("model: must not be empty")
        if self.url:
            _check_url(self.url, self.tls)
        for name in self.headers:
            if not _HEADER.fullmatch(name) or _OURS.fullmatch(name):
                raise ValueError(f"headers: {name[:100]!r} cannot be set: names are lower-case, and some are ours")
        if self.cost is not None and not abs(self.cost) <= GREATEST:
            raise ValueError(f"cost: must be a number from {-GREATEST} to {GREATEST}, got {self.cost}")
        check_positive(timeout_seconds=self.timeout_seconds)
        _check_count(connections=self.connections, low=1, high=_MOST_CONNECTIONS)
        _check_count(retries=self.retries, low=0, high=_MOST_RETRIES)

    @property
    def the_kind(self) -> Kind:
        """Which kind of arm it is."""
        if self.ensemble is not None:
            return "ensemble"
        if self.url:
            return "rest"
        if self.target:
            return "seldon" if self.kind == "seldon" else "grpc"
        return "local"

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses of its remote servers."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def where(self) -> str:
        """Where its model is, for people; empty: in this process."""
        return self.url or ", ".join(self.targets)

    @property
    def inline(self) -> Mapping[str, Arm]:
        """The arms inside it."""
        return self.ensemble.arms if self.ensemble else {}

    @property
    def is_local(self) -> bool:
        """Whether a model of this process has a part in it."""
        return self.the_kind == "local" or any(arm.is_local for arm in self.inline.values())

    def files(self) -> Iterator[tuple[str, str]]:
        """The files that it is read with: the key that names each, and its path."""
        if self.tls is not None:
            for key in _PATHS:
                if path := getattr(self.tls, key):
                    yield f"tls.{key}", path
        for name, value in self.headers.items():
            if isinstance(value, File):
                yield f"headers.{name}.file", value.file
        for name, arm in self.inline.items():
            yield from ((f"ensemble.arms.{name}.{key}", path) for key, path in arm.files())

    def at(self, folder: Path) -> Arm:
        """The same with paths that start at a folder, and the digest of what stands in these files now."""
        change = msgspec.structs.replace
        tls = self.tls and change(
            self.tls, **{key: str(folder / path) for key in _PATHS if (path := getattr(self.tls, key))}
        )
        headers = {
            name: File(file=str(folder / value.file)) if isinstance(value, File) else value
            for name, value in self.headers.items()
        }
        inside = {name: arm.at(folder) for name, arm in self.inline.items()}
        placed = change(self, tls=tls, headers=headers, ensemble=self.ensemble and change(self.ensemble, arms=inside))
        return change(placed, files_digest=_digest([Path(path) for _, path in placed.files()]))


_REMOTE = {"model", "target", "tls", "headers", "client", "connections", "timeout_seconds", "retries"}
_TAKES: dict[Kind, set[str]] = {
    "local": {"model", "version"},
    "grpc": _REMOTE | {"version"},
    "seldon": _REMOTE,
    "rest": {"model", "version", "url", "tls", "headers", "connections", "timeout_seconds", "retries"},
    "ensemble": {"ensemble"},
}
_ABOUT: dict[Kind, str] = {
    "local": "an arm in this process",
    "grpc": "an arm behind a target",
    "seldon": "an arm in a Seldon mesh",
    "rest": "an arm behind a url",
    "ensemble": "an ensemble",
}
_WANTS: dict[Kind, str] = {
    "local": "is a model in this process, without target, url or ensemble",
    "grpc": "needs a target, HOST:PORT, and no url or ensemble",
    "seldon": "needs the mesh for a target, HOST:PORT, and no url or ensemble",
    "rest": "needs a url, such as http://HOST:PORT, and no ensemble",
    "ensemble": "needs an ensemble, with its members",
}
_DEFAULTS = dict(zip(Arm.__struct_fields__, Arm.__struct_defaults__, strict=True)) | {"headers": {}}


def check_ensembles(arms: Mapping[str, Arm]) -> None:
    """Raises ValueError unless each member of each ensemble among the arms of a route is there."""
    for name, arm in arms.items():
        if arm.ensemble is None:
            continue
        simple = {other for other, about in arms.items() if about.ensemble is None}
        if both := simple & arm.inline.keys():
            raise ValueError(f"{name}: {listed(both)} is an arm of the route; an inline one needs another name")
        if unknown := arm.ensemble.members.keys() - simple - arm.inline.keys():
            raise ValueError(
                f"{name}: {listed(unknown)} cannot be a member; members are arms of the route that are no"
                f" ensembles ({listed(simple)}), or stand in ensemble.arms"
            )


def _digest(files: list[Path]) -> str:
    read = hashlib.sha256()
    for file in files:
        read.update(hashlib.sha256(_content(file)).digest())
    return read.hexdigest() if files else ""


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # whoever needs it says so
        return b""


def _check_targets(targets: tuple[str, ...]) -> None:
    if not targets:
        raise ValueError("target: at least one HOST:PORT is needed")
    for target in targets:
        check_address(target=target)
    if len(set(targets)) < len(targets):
        raise ValueError("target: an address is given twice; for several connections to it set connections")


def _check_url(url: str, tls: Trust | None) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = urlsplit(""), False
    if not good or parts.query or parts.fragment or parts.username:
        raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, perhaps with a path, got {url!r}")
    if tls is not None and parts.scheme == "http":
        raise ValueError("tls: the url says http; write https")


def _check_count(*, low: int, high: int, **values: int) -> None:
    for key, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{key}: must lie between {low} and {high}, got {value}")
