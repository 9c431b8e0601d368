"""What of a call's metadata goes on to a remote server: its trace, its id, and how many routers it has passed."""

from __future__ import annotations

from collections.abc import Mapping

from protos.errors import FailedPrecondition, InvalidArgument
from router.wire import HOPS_HEADER

MOST_HOPS = 4

_PASSED_ON = frozenset(("traceparent", "tracestate", "x-request-id"))
_READ = _PASSED_ON | {HOPS_HEADER}
_LONGEST = 1024


def passed_on(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of a call to a remote server.

    Raises FailedPrecondition for a call that has passed so many routers that it must go round in a circle, and
    InvalidArgument for a count that is none.
    """
    hops = 0
    headers = []
    for name in metadata:
        if name in _READ:
            value = metadata[name]
            if name == HOPS_HEADER:
                hops = _hops(value)
            elif _is_sent(value):
                headers.append((name, value))
    headers.append((HOPS_HEADER, str(hops + 1)))
    return headers


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
    return value.isascii() and value.isprintable() and 0 < len(value) <= _LONGEST
