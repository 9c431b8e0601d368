"""Whom we trust on the other side of a connection, and who we are to it. Files are read when this is called."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc

from protos.errors import FailedPrecondition
from router.config.arm import File, Trust


def tls_context(trust: Trust, protocol: str) -> ssl.SSLContext:
    """For connections over which `protocol` is spoken, in ALPN's words. Raises FailedPrecondition."""
    try:
        context = ssl.create_default_context(cafile=trust.ca or None)
        if trust.certificate:
            context.load_cert_chain(trust.certificate, trust.key)
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(f"tls: its files cannot be used: {error}") from None
    context.set_alpn_protocols([protocol])
    return context


def grpc_credentials(trust: Trust) -> Any:
    """The same for grpcio. Raises FailedPrecondition."""
    tls_context(trust, "h2")  # says what is wrong with the files, which grpcio does not
    ca, key, certificate = (
        Path(path).read_bytes() if path else None for path in (trust.ca, trust.key, trust.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def header_values(headers: dict[str, str | File]) -> list[tuple[str, str]]:
    """Headers with the values that stand in files. Raises FailedPrecondition."""
    return [(name, _value(name, value)) for name, value in headers.items()]


def _value(name: str, value: str | File) -> str:
    if isinstance(value, File):
        try:
            value = Path(value.file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FailedPrecondition(f"headers: {name} cannot be read: {error}") from None
    if not (value.isascii() and value.isprintable()):
        raise FailedPrecondition(f"headers: the value of {name} is not plain text that a header can carry")
    return value
