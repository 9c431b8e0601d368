"""What goes wrong in the router, in the words of its caller."""

from __future__ import annotations

from collections.abc import Iterable

from protos.errors import AlreadyExists, FailedPrecondition, Fault, InvalidArgument, NotFound, Unavailable

_SHOWN = 10


def listed(names: Iterable[str]) -> str:
    """Names for a sentence, bounded."""
    names = sorted(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


class UnknownRoute(NotFound):
    """A route that the configuration does not have."""

    def __init__(self, route: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown route {route[:100]!r}; there are: {listed(known)}")


class UnknownDecision(NotFound):
    """Feedback for a decision that nobody recorded."""

    def __init__(self, decision: str) -> None:
        super().__init__(f"unknown decision {decision[:100]!r}; send the decision_id that came with the answer")


class AlreadyRewarded(AlreadyExists):
    """A second reward for one decision. The first one stands."""

    def __init__(self, decision: str) -> None:
        super().__init__(f"decision {decision!r} has its reward already; the first one stands and was counted once")


class BadReward(InvalidArgument):
    """A reward or metric that the route cannot take."""


class StoreAway(Unavailable):
    """The store did not answer. Why is in the log: it names files that are no business of a client's."""

    def __init__(self, meanwhile: str = "ask again later") -> None:
        super().__init__(f"{meanwhile}: the store does not answer; the server's log says why")


class NotRecorded(StoreAway):
    """The store did not take it: nothing was recorded, and the client should send it again."""

    def __init__(self) -> None:
        super().__init__("nothing was recorded, send it again")


class ConfigError(FailedPrecondition):
    """A configuration that cannot be served: the message names file and key, and says what would be right."""

    fault = Fault.SERVER
