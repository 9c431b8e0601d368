"""Who may do what: certificates, clients and their roles, and how much each may ask."""

from __future__ import annotations

import re
from typing import Literal, get_args

from router.config.struct import Struct, check_positive

Role = Literal["infer", "feedback", "read", "operate"]

ROLES: tuple[Role, ...] = get_args(Role)

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Tls(Struct, frozen=True):
    """The certificate of a port. Renewed files are noticed within ten seconds, and served to new connections.

    No reload is needed. Files that do not go together are not served, and the log says why.
    """

    certificate: str  # PEM file, the chain included
    key: str  # PEM file
    client_ca: str = ""  # PEM file; given: clients must show a certificate signed by one of these


class Client(Struct, frozen=True):
    """A client that is let in: known by its key or by the name in its certificate."""

    roles: frozenset[Role] = frozenset({"infer", "feedback"})  # what it may do; `operate` is all that no other covers
    key_sha256: str = ""  # of the key it sends as "authorization: Bearer KEY"; `croupier key` makes one
    certificate: str = ""  # the subject of its certificate, such as "CN=desk,O=Bank"
    requests_per_second: float | None = None  # in the long run, of all workers together; more is RESOURCE_EXHAUSTED
    burst: int = 100  # requests beyond that at once
    max_in_flight: int | None = None  # requests at once, in all workers together; none: any number

    def __post_init__(self) -> None:
        if bool(self.key_sha256) == bool(self.certificate):
            raise ValueError("key_sha256: a client is known by this or by certificate, by one of the two")
        if self.key_sha256 and not _DIGEST.fullmatch(self.key_sha256):
            raise ValueError("key_sha256: expected 64 lower-case hex digits, as `croupier key` prints them")
        if self.requests_per_second is not None:
            check_positive(requests_per_second=self.requests_per_second)
        if self.max_in_flight is not None:
            check_positive(max_in_flight=self.max_in_flight)
        check_positive(burst=self.burst)
