"""Where a store in Redis is, and what may be said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_PORT = 6379
_TLS = {"ca": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}
_KNOWN = ("prefix", "timeout", "persistence", "password_file", *_TLS)


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is and how it is spoken to. As text it bears no secret."""

    host: str
    port: int = _PORT
    db: int = 0
    prefix: str = "croupier"  # of all keys
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 2.0  # seconds to connect, and to answer
    must_persist: bool = True  # refuse a Redis that keeps nothing over a restart
    tls: dict[str, Any] = field(default_factory=dict)  # what redis-py calls these settings

    def __str__(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.db}?prefix={self.prefix}"


def read_address(url: str, *, with_password: bool = True) -> Address:
    """The address in a URL: redis://[USER:PASSWORD@]HOST[:PORT][/DB][?SETTING=VALUE&...], with TLS rediss://.

    The settings are `prefix` of all keys ("croupier"), `timeout` in seconds (2), `persistence` ("required", or "any"
    for a Redis that may lose all in a restart), `password_file`, and with TLS the files `ca`, `certificate` and `key`.
    Its file is read only `with_password`. Raises ValueError, and nothing of the URL that may be secret is in the
    message.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORT
    except ValueError:
        # What is taken for a port may be a part of a password.
        raise ValueError(
            "it is no URL: give redis://HOST:PORT/DB, and in a password %2F, %3A, %40, %3F, %23 for /, :, @, ?, #"
        ) from None
    if not parts.hostname:
        raise ValueError("the host is missing: give redis://HOST:PORT/DB")
    db = parts.path.strip("/") or "0"
    if not db.isdecimal():
        raise ValueError("the database behind the last / must be a number")
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := settings.keys() - set(_KNOWN):
        raise ValueError(f"unknown setting {min(unknown)!r}; right are {', '.join(_KNOWN)}")
    tls = {_TLS[name]: settings[name] for name in _TLS if name in settings}
    if tls and parts.scheme != "rediss":
        raise ValueError("ca, certificate and key are for TLS: write rediss:// in front")
    prefix = settings.get("prefix", "croupier")
    if not prefix or not prefix.isascii() or not prefix.isprintable() or set(prefix) & set("{} "):
        raise ValueError("prefix: give some letters without spaces and braces")
    persistence = settings.get("persistence", "required")
    if persistence not in {"required", "any"}:
        raise ValueError('persistence: right are "required" and "any"')
    return Address(
        host=parts.hostname,
        port=port,
        db=int(db),
        prefix=prefix,
        username=unquote(parts.username) if parts.username else None,
        password=_password(parts.password, settings.get("password_file"), read=with_password),
        timeout=_timeout(settings.get("timeout", "2")),
        must_persist=persistence == "required",
        tls={"ssl": True, **tls} if parts.scheme == "rediss" else {},
    )


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:  # noqa: PLR2004  # the learner's thread waits for it
        raise ValueError("timeout: give seconds, above 0 and at most 60")
    return seconds


def _password(given: str | None, file: str | None, *, read: bool) -> str | None:
    if file is None:
        return unquote(given) if given else None
    if given:
        raise ValueError("password_file: there is a password in front of the host already")
    if not read:
        return None
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"password_file: {file} cannot be read") from None
