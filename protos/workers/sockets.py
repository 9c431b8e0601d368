"""Listening sockets of one address, one a process, between which the kernel deals connections (SO_REUSEPORT)."""

from __future__ import annotations

import socket


def anchored(bind: str) -> socket.socket:
    """A socket that keeps "HOST:PORT" for those `beside` it, and takes no connections itself; port 0 is any free one.

    Raises OSError, with the address as its file name, when it cannot be bound; also where another server listens that
    would share its port.
    """
    host, _, port = bind.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    anchor = socket.socket(family, kind, protocol)
    try:
        with socket.socket(family, kind, protocol) as alone:  # another server might share its port with us unasked
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        anchor.bind(address)
    except OSError as error:
        anchor.close()
        raise OSError(error.errno, error.strerror, bind) from None
    return anchor


def beside(anchor: socket.socket) -> socket.socket:
    """Another socket of the same address, which takes connections as soon as it listens."""
    other = socket.socket(anchor.family, anchor.type, anchor.proto)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(anchor.getsockname())
    return other


def address_of(anchor: socket.socket) -> str:
    """HOST:PORT, for people and clients."""
    host, port, *_ = anchor.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
