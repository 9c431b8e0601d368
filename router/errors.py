"""What goes wrong in the router, in the words of its caller."""

from __future__ import annotations

from collections.abc import Iterable

from protos.errors import (
    AlreadyExists,
    CallError,
    Code,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

_SHOWN = 10


def listed(names: Iterable[str]) -> str:
    """Names for a sentence, bounded."""
    names = sorted(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


class UnknownRoute(NotFound):
    """A route that the configuration does not have."""

    def __init__(self, route: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown route {route[:100]!r}; there are: {listed(known)}")


class NoArmAllowed(FailedPrecondition):
    """Rules, switches and shares leave a request no arm."""

    def __init__(self, route: str, rule: str = "") -> None:
        which = f"those that rule {rule!r} allows" if rule else "all of its arms"
        why = f"{which} are switched off, or have no share of the calls"
        super().__init__(f"route {route!r} has no arm for this request: {why}")


class UnknownDecision(NotFound):
    """Feedback for a decision that nobody recorded."""

    def __init__(self, decision: str, *, recent: bool = False) -> None:
        """`recent`: its id is one of ours, from not long ago."""
        again = "; a replica that is cut off from the store may yet bring it: then send this again" if recent else ""
        super().__init__(f"unknown decision {decision[:100]!r}; send the decision_id that came with the answer{again}")


class NotServed(FailedPrecondition):
    """Feedback for a decision of a route that has left the configuration. Its log stays."""

    fault = Fault.CLIENT

    def __init__(self, route: str) -> None:
        super().__init__(
            f"route {route!r} of this decision is no longer served: nothing is counted for it until it is served again"
        )


class AlreadyRewarded(AlreadyExists):
    """Feedback of which everything is known. The first one stands, unless the route lets others replace it."""

    def __init__(self, decision: str, *, replaced: bool = False) -> None:
        """`replaced`: another value would have taken the place of the first one."""
        counts = "with these very values, which count once" if replaced else "the first one stands and was counted once"
        super().__init__(f"of decision {decision!r} all this is known; {counts}")


class TooLate(FailedPrecondition):
    """A reward after the window in which it had to come."""

    fault = Fault.CLIENT

    def __init__(self, decision: str, seconds: float) -> None:
        super().__init__(f"decision {decision!r} was {seconds:g} seconds ago and more; rewards are no longer taken")


class NotScored(FailedPrecondition):
    """A truth where no prediction is on record."""

    fault = Fault.CLIENT

    def __init__(self, decision: str) -> None:
        super().__init__(
            f"no prediction is on record of decision {decision!r}, so nothing follows from the truth: send the reward"
        )


class NotLearnt(FailedPrecondition):
    """Feedback whose rows cannot be added."""

    def __init__(self, decision: str) -> None:
        super().__init__(f"the route cannot learn from decision {decision!r}; the server's log says why")


class Contended(ResourceExhausted):
    """A correction that others were always faster than."""

    def __init__(self, decision: str) -> None:
        super().__init__(f"decision {decision!r} is being corrected by others too: send it again")


class BadReward(InvalidArgument):
    """A reward or metric that the route cannot take."""


class StoreAway(Unavailable):
    """The store did not answer. Why is in the log: it names files that are no business of a client's."""

    def __init__(self, meanwhile: str = "ask again later") -> None:
        super().__init__(f"{meanwhile}: the store does not answer; the server's log says why")


class Damaged(CallError):
    """Something in the store is not as it was written: no answer that counts it in can be trusted."""

    code = Code.DATA_LOSS


class NotRecorded(StoreAway):
    """The store did not take it: nothing was recorded, and the client should send it again."""

    def __init__(self) -> None:
        super().__init__("nothing was recorded, send it again")


class ConfigError(FailedPrecondition):
    """A configuration that cannot be served: the message names file and key, and says what would be right."""

    fault = Fault.SERVER
