"""The arms of a route: what they are called and who answers for them."""

from __future__ import annotations

from router.config.struct import Struct, check_address, check_positive


class Arm(Struct, frozen=True):
    """An alternative of a route: a model in this process, or one behind a remote V2 gRPC server."""

    model: str
    version: str = ""  # empty: the server's choice
    target: str = ""  # "HOST:PORT" of a remote server; empty: in this process
    timeout_seconds: float = 5.0  # for a remote server; one that takes longer has failed

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model: must not be empty")
        if self.target:
            check_address(target=self.target)
        check_positive(timeout_seconds=self.timeout_seconds)
