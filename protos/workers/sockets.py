"""Listening sockets of one address, one a process, between which the kernel deals connections (SO_REUSEPORT)."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def anchored(bind: str) -> socket.socket:
    """A socket that keeps "HOST:PORT" for those `beside` it, and takes no connections itself; port 0 is any free one.

    Raises OSError, with the address as its file name, when it cannot be bound; also where another server listens that
    would share its port.
    """
    host, _, port = bind.rpartition(":")
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as alone:  # another server might share its port with us unasked
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
                alone.listen()  # before which some kernels overlook those who are bound and do not listen yet
            anchor = opened.enter_context(socket.socket(family, kind, protocol))
            # What a server before has left behind, in TIME_WAIT, is nobody.
            anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            anchor.bind(address)
            anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else another server would take us for such
        except OSError as error:
            raise OSError(error.errno, error.strerror, bind) from None
        opened.pop_all()
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
