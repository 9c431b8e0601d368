"""Certificates: whom we trust on the other side of a connection, and who we are to it.

For upstreams and for clients of a router; what a port of ours shows is checked here too.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec

from protos.errors import FailedPrecondition
from protos.grpc import MAX_MESSAGE


class Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a connection to a remote server is secured. Renewed files of an arm take effect at a reload."""

    ca: str = ""  # PEM file of those who sign the server's certificate; empty: whom this machine trusts
    certificate: str = ""  # PEM file, the chain included, that we show to a server that asks who we are
    key: str = ""  # PEM file
    server_name: str = ""  # whom its certificate must be for; empty: the host that we connect to

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("key: a certificate and its key go together; give both or neither")


def tls_context(trust: Trust, protocol: str) -> ssl.SSLContext:
    """For connections over which `protocol` is spoken, in ALPN's words. Raises FailedPrecondition."""
    try:
        if trust.ca:
            check_certificates(ca=trust.ca)
        context = ssl.create_default_context(cafile=trust.ca or None)
        if trust.certificate:
            load_pair(context, trust.certificate, trust.key)
    except ValueError as error:
        raise FailedPrecondition(f"tls.{error}") from None
    context.set_alpn_protocols([protocol])
    return context


def grpc_channel(grpc: Any, target: str, trust: Trust | None, *options: tuple[str, Any]) -> Any:
    """A channel of `grpc`, which is that module or grpc.aio, to "HOST:PORT"; plain without `trust`.

    It carries messages as large as our servers take. Raises FailedPrecondition for files that cannot be used.
    """
    options += tuple((f"grpc.max_{way}_message_length", MAX_MESSAGE) for way in ("send", "receive"))
    if trust is None:
        return grpc.insecure_channel(target, options=options)
    if trust.server_name:
        options += (("grpc.ssl_target_name_override", trust.server_name),)
    return grpc.secure_channel(target, _grpc_credentials(trust), options=options)


def _grpc_credentials(trust: Trust) -> Any:
    import grpc  # here, because configurations are read without it

    tls_context(trust, "h2")  # says what is wrong with the files, which grpcio does not
    ca, key, certificate = (
        Path(path).read_bytes() if path else None for path in (trust.ca, trust.key, trust.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Has a context show a certificate. Raises ValueError("certificate: SENTENCE") or ("key: SENTENCE")."""
    check_certificates(certificate=certificate)
    try:
        context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks the terminal for one
    except ssl.SSLError as error:
        is_other = error.reason == "KEY_VALUES_MISMATCH"
        what = "is the key of another certificate" if is_other else "holds no key in PEM, or one with a password"
        raise ValueError(f"key: {key} {what}") from None
    except OSError as error:
        raise ValueError(f"key: {key} cannot be read: {error.strerror}") from None


def check_certificates(**files: str) -> None:
    """Raises ValueError naming the first file that holds no certificates."""
    for name, file in files.items():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            raise ValueError(f"{name}: {file} holds no certificate in PEM") from None
        except OSError as error:
            raise ValueError(f"{name}: {file} cannot be read: {error.strerror}") from None
