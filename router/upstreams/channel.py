"""A connection to one server that answers gRPC calls of one message each way, whichever library carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from protos.errors import Code

Metadata: TypeAlias = tuple[tuple[str, str], ...]

Answer: TypeAlias = tuple[bytes, Mapping[str, str]]
"""A serialized message, and the metadata that came in front of it."""


class Refused(Exception):
    """A call that was not answered with a message.

    `unseen`: for certain no server has looked at it. `answered`: the status is the server's own word; otherwise it is
    what the failure of a connection amounts to.
    """

    def __init__(self, code: Code, details: str, *, unseen: bool = False, answered: bool = False) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.unseen = unseen
        self.answered = answered


class Channel(Protocol):
    """A connection that is kept: lost, it is made again, until it is closed."""

    target: str

    @property
    def connected(self) -> bool:
        """Whether a call could be sent at once."""

    async def call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Answer:
        """Asks `method`, "/package.Service/Method", until `deadline` on the event loop's clock.

        Waits while a connection is being made, and fails at once where none can be. Raises Refused; its code is
        DEADLINE_EXCEEDED when there was no answer in time.
        """

    async def close(self, seconds: float) -> None:
        """Ends the connection when calls in flight are done, or after so many seconds."""
