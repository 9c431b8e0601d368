"""The server's own settings: MLServer's `settings.json` and MLSERVER_* variables.

The file counts before the environment, as it does for MLServer. Keys that MLServer does not know are ignored, as by
MLServer; one that it knows and we do not obey, or that is misspelt, is named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from protos.errors import FailedPrecondition
from protos.grpc import MAX_MESSAGE
from runtime.naming import parted
from runtime.settings import decoded
from runtime.unread import warn

FILE = "settings.json"
PREFIX = "MLSERVER_"

Protocol = Literal["http", "grpc", "metrics"]

PORTS: Mapping[Protocol, int] = {"http": 8080, "grpc": 8081, "metrics": 8082}  # MLServer's

_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Length = Annotated[int, msgspec.Meta(ge=-1)]

_UNLIMITED = 2**31 - 1  # bytes; what gRPC means by -1

_log = logging.getLogger(__name__)


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is told, under MLServer's names. While no protocol's port is named, all are spoken on `port`."""

    host: str = "127.0.0.1"
    port: _Port = 8080
    http_port: _Port | None = None
    grpc_port: _Port | None = None
    metrics_port: _Port | None = None
    metrics_endpoint: str | None = "/metrics"  # none: no metrics
    grpc_max_message_length: _Length | None = None  # bytes, of REST's bodies too
    parallel_workers: _Count = 1  # processes
    load_models_at_startup: bool = True
    model_repository_root: str = "."
    server_name: str = "croupier"
    root_path: str = ""  # where a proxy mounts the REST API; it need not strip it
    gzip_enabled: bool = True  # long REST answers, for clients that take them so
    tracing_server: str | None = None  # where an OTLP collector takes gRPC
    debug: bool = False

    @property
    def max_message(self) -> int:
        """The longest message or body, in bytes."""
        length = self.grpc_max_message_length
        if length is None:
            return MAX_MESSAGE
        return length if length >= 0 else _UNLIMITED

    def listeners(self) -> list[tuple[str, list[Protocol]]]:
        """What is spoken where: "HOST:PORT" and its protocols. Equal ports are one listener.

        As soon as one port is named, the others are MLServer's.
        """
        named: dict[Protocol, int | None] = {"http": self.http_port, "grpc": self.grpc_port}
        if self.metrics_endpoint:
            named["metrics"] = self.metrics_port
        if all(port is None for port in named.values()):
            return [(self._bind(self.port), list(named))]
        shared: dict[tuple[int, str], list[Protocol]] = {}
        for protocol, port in named.items():
            chosen = PORTS[protocol] if port is None else port
            # Port 0 is any free one: two of them are two.
            shared.setdefault((chosen, "" if chosen else protocol), []).append(protocol)
        return [(self._bind(port), protocols) for (port, _), protocols in shared.items()]

    def _bind(self, port: int) -> str:
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


_FLAGS = {field.name for field in msgspec.structs.fields(ServerSettings) if field.type is bool}
_WORDS = {  # that MLServer takes for true and false
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}

_ALWAYS: tuple[Any, ...] = ()
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {  # and the values by which nothing is asked for
    "cache_enabled": (False,),
    "cache_size": (100,),
    "cors_settings": (None,),
    "environments_dir": _ALWAYS,
    "extensions": ([],),
    "kafka_enabled": (False,),
    "kafka_servers": ("localhost:9092",),
    "kafka_topic_input": ("mlserver-input",),
    "kafka_topic_output": ("mlserver-output",),
    "logging_settings": (None,),
    "metrics_dir": _ALWAYS,
    "metrics_rest_server_prefix": ("rest_server",),
    "model_repository_implementation": (None, "mlserver.repository.repository.SchemalessModelRepository"),
    "model_repository_implementation_args": ({},),
    "parallel_workers_timeout": _ALWAYS,
    "server_version": _ALWAYS,
    "use_structured_logging": (False,),
}


def read_server_settings(folder: Path, environment: Mapping[str, str]) -> ServerSettings:
    """The settings for a folder of models: its settings.json, then the environment, then the defaults.

    Logs those that have no effect here. Raises FailedPrecondition with the file or variable, and what it should be.
    """
    variables = {
        name.upper().removeprefix(PREFIX).lower(): name for name in environment if name.upper().startswith(PREFIX)
    }
    path = folder / FILE
    file = _read(path)
    values = {**{key: environment[name] for key, name in variables.items()}, **file}

    def where(key: str) -> str:
        return variables[key] if key in variables and key not in file else f"{path}: {key}"

    warn(str(path), file, {*ServerSettings.__struct_fields__, *_UNSUPPORTED}, ())
    for key in sorted(values.keys() & _UNSUPPORTED.keys()):
        if _plain(values[key]) not in _UNSUPPORTED[key]:
            _log.warning("%s is not supported here, and has no effect", where(key))
    for key in sorted(variables.keys() & file.keys() & set(ServerSettings.__struct_fields__)):
        _log.warning("%s: %s counts, and not %s, as for MLServer", path, key, variables[key])
    try:
        flags = {key: _flag(values[key]) for key in values.keys() & _FLAGS}
        settings = msgspec.convert(values | flags, ServerSettings, strict=False)
    except msgspec.ValidationError as error:
        key, what = parted(error)
        hint = "; write true or false" if "Expected `bool`" in what else ""
        raise FailedPrecondition(f"{where(key)}: {what}{hint}") from None
    check_host(settings.host, where("host"))
    for key in ("metrics_endpoint", "root_path"):
        path_told = getattr(settings, key) or "/"
        if not path_told.startswith("/"):
            raise FailedPrecondition(f'{where(key)}: {path_told!r} is no path; write "/{path_told}"')
    if f"{settings.metrics_endpoint}/".startswith("/v2/"):
        told = f"{where('metrics_endpoint')}: {settings.metrics_endpoint!r}"
        raise FailedPrecondition(f"{told} is a path of the V2 protocol; write another, as /metrics")
    # The paths of requests are compared without a slash at their end.
    endpoint = settings.metrics_endpoint and (settings.metrics_endpoint.rstrip("/") or "/")
    return msgspec.structs.replace(settings, metrics_endpoint=endpoint, root_path=settings.root_path.rstrip("/"))


def check_host(host: str, where: str) -> None:
    """Raises FailedPrecondition, naming where it stands, unless a host may have this name."""
    try:
        asked = host.strip().encode("idna")  # as the system is asked for its address
    except UnicodeError:
        asked = b""
    if not asked:
        raise FailedPrecondition(f"{where}: {host!r} is no host; write an address of this machine, or 0.0.0.0 for all")


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            return {}
        return msgspec.convert(decoded(path.read_bytes(), str(path)), dict[str, Any])
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise FailedPrecondition(f"{path}: {error}") from None


def _flag(value: Any) -> Any:
    return _WORDS.get(value.lower(), value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """What a variable's text says: JSON, where it is."""
    value = _flag(value)
    try:
        return decoded(value, "") if isinstance(value, str) else value
    except FailedPrecondition:
        return value
