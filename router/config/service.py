"""Everything `croupier serve` reads."""

from __future__ import annotations

from router.config.route import Route
from router.config.struct import Name, Struct, check_address, check_positive
from router.errors import listed


class Config(Struct, frozen=True):
    """Everything `croupier serve` reads. Relative paths start at the file's folder."""

    routes: dict[Name, Route]
    listen: str = "127.0.0.1:8080"  # gRPC and REST
    admin: str = "127.0.0.1:8082"  # metrics and health
    models: str = ""  # folder of models served in this process
    store: str = "sqlite:croupier.db"
    flush_seconds: float = 0.05  # decisions are committed at least this often
    refresh_seconds: float = 0.25  # what other replicas learnt is read at least this often
    request_log: bool = False  # one JSON line a request on standard output

    def __post_init__(self) -> None:
        if not self.routes:
            raise ValueError("routes: at least one route is needed")
        check_address(listen=self.listen, admin=self.admin)
        check_positive(flush_seconds=self.flush_seconds, refresh_seconds=self.refresh_seconds)
        local = [
            f"{name}.{arm}" for name, route in self.routes.items() for arm, a in route.arms.items() if not a.target
        ]
        if local and not self.models:
            raise ValueError(f"models: a folder of models is needed, for the arms without a target: {listed(local)}")
