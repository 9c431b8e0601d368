"""What went wrong, whose fault it is, and whether to try again.

Everything inside raises these; only an edge (grpc.py, rest.py) turns one into a wire status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum
from typing import ClassVar


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http(self) -> int:
        """The HTTP status a REST client gets."""
        return _HTTP[self]


# 422, not 400: Seldon's agent answers a 400 by reloading the model and asking again.
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 422,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 422,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 422,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class Fault(Enum):
    """Who has to change something before the call can succeed."""

    CLIENT = "client"
    SERVER = "server"
    UPSTREAM = "upstream"


class CallError(Exception):
    """A call that failed with a known status. The message is for the caller: what, where, what would be right."""

    code: ClassVar[Code] = Code.INTERNAL
    fault: ClassVar[Fault] = Fault.SERVER
    retry: ClassVar[bool] = False
    headers: Sequence[tuple[bytes, bytes]] = ()  # of the answer over HTTP, their names in lower case

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """`retry_after`: in how many seconds the same may succeed, where that is known."""
        self.message = message.encode(errors="replace").decode()  # a lone surrogate could not be sent
        super().__init__(self.message)
        self.retry_after = retry_after

    @property
    def http(self) -> int:
        """The HTTP status a REST client gets: the code's, where HTTP has none that says more."""
        return self.code.http


class InvalidArgument(CallError):
    """The request itself is wrong; the message names the field or tensor."""

    code = Code.INVALID_ARGUMENT
    fault = Fault.CLIENT


class NotFound(CallError):
    """No such model, version, route or decision."""

    code = Code.NOT_FOUND
    fault = Fault.CLIENT


class AlreadyExists(CallError):
    """It was done before, and counts once."""

    code = Code.ALREADY_EXISTS
    fault = Fault.CLIENT


class PermissionDenied(CallError):
    """Known, but not allowed to do this."""

    code = Code.PERMISSION_DENIED
    fault = Fault.CLIENT


class Unauthenticated(CallError):
    """Nobody knows who asks."""

    code = Code.UNAUTHENTICATED
    fault = Fault.CLIENT


class FailedPrecondition(CallError):
    """Nothing is wrong with the request, but what it needs is broken: a model that does not load."""

    code = Code.FAILED_PRECONDITION


class ResourceExhausted(CallError):
    """Too much at once: a full queue, a message over the limit."""

    code = Code.RESOURCE_EXHAUSTED
    retry = True


class DeadlineExceeded(CallError):
    """The caller's deadline passed before there was an answer."""

    code = Code.DEADLINE_EXCEEDED
    fault = Fault.CLIENT


class Unavailable(CallError):
    """Not ready. Nothing else is UNAVAILABLE: Seldon's agent reloads models and retries on it."""

    code = Code.UNAVAILABLE
    retry = True


class Unimplemented(CallError):
    """The method, encoding or feature does not exist here."""

    code = Code.UNIMPLEMENTED
    fault = Fault.CLIENT


class Internal(CallError):
    """Our own failure."""


KINDS: Mapping[int, type[CallError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        FailedPrecondition,
        ResourceExhausted,
        DeadlineExceeded,
        Unavailable,
        Unimplemented,
        Internal,
    )
}
"""By their codes, for an error that comes from elsewhere."""


class UpstreamError(CallError):
    """A model server behind us failed, with the status it gave."""

    fault = Fault.UPSTREAM

    def __init__(self, message: str, code: Code, *, retry: bool = False) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the peer decides it
        self.retry = retry  # type: ignore[misc]
