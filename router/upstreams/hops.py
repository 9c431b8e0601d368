"""What of a call's metadata goes on to a remote server: its trace, its id, and how many routers it has passed."""

from __future__ import annotations

from collections.abc import Mapping

from protos.errors import FailedPrecondition, InvalidArgument
from protos.grpc import Metadata
from router.wire import HOPS_HEADER

MOST_HOPS = 4

_PASSED_ON = "traceparent", "tracestate", "x-request-id"
_READ = frozenset(name.encode() for name in (*_PASSED_ON, HOPS_HEADER))
_FIRST = ((HOPS_HEADER, "1"),)
_LONGEST = 1024


def passed_on(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers of a call to a remote server.

    Raises FailedPrecondition for a call that has passed so many routers that it must go round in a circle, and
    InvalidArgument for a count that is none.
    """
    if isinstance(metadata, Metadata) and _READ.isdisjoint(metadata.raw):
        return _FIRST  # as for most calls, without a look at each name
    told = metadata.get(HOPS_HEADER)
    hops = _hops(told) if told is not None else 0
    sent = tuple((name, value) for name in _PASSED_ON if (value := metadata.get(name)) and _is_sent(value))
    return (*sent, (HOPS_HEADER, str(hops + 1)))


def _hops(told: str) -> int:
    if not (told.isascii() and told.isdecimal() and len(told) < 4):  # noqa: PLR2004  # digits
        raise InvalidArgument(f"{HOPS_HEADER}: expected the number of routers that the call has passed")
    hops = int(told)
    if hops >= MOST_HOPS:
        raise FailedPrecondition(
            f"the call has passed {hops} routers before this one: it goes round in a loop; look for a target that is"
            " a router in front of this one"
        )
    return hops


def _is_sent(value: str) -> bool:
    """Whether gRPC takes a value as metadata: HTTP allows more, and the call must not fail for it."""
    return value.isascii() and value.isprintable() and len(value) <= _LONGEST
