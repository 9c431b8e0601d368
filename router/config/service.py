"""Everything `croupier serve` reads."""

from __future__ import annotations

from router.config.access import Client, Tls
from router.config.context import FeatureTable, check_lookups
from router.config.route import Route
from router.config.struct import Name, Struct, check_address, check_positive, check_share
from router.errors import listed

MOST_WORKERS = 256
LONGEST_LINGER = 600  # seconds

_ANY_HOST = {"0.0.0.0", "[::]"}  # noqa: S104  # nothing is bound here


class Tracing(Struct, frozen=True):
    """OpenTelemetry: where spans go, and of how many requests."""

    collector: str  # "HOST:PORT" of an OTLP collector that speaks gRPC, unencrypted
    share: float = 0.01  # of the requests whose client does not say whether it samples

    def __post_init__(self) -> None:
        check_address(collector=self.collector)
        check_share(share=self.share)


class Config(Struct, frozen=True):
    """Everything `croupier serve` reads. Relative paths start at the file's folder."""

    routes: dict[Name, Route]  # what clients ask for, as if each were a model
    listen: str = "127.0.0.1:8080"  # gRPC and REST
    admin: str = "127.0.0.1:8082"  # metrics and health
    tls: Tls | None = None  # of `listen`; none: plain
    admin_tls: Tls | None = None  # of `admin`
    clients: dict[Name, Client] = {}  # those who are let in; none: everybody, to do everything
    features: dict[Name, FeatureTable] = {}  # what is known about units, for the contexts of routes
    models: str = ""  # folder of models served in this process
    store: str = "sqlite:croupier.db"  # where everything is kept: sqlite:FILE, redis://HOST:PORT/DB, or memory:
    flush_seconds: float = 0.05  # decisions are committed at least this often
    refresh_seconds: float = 0.25  # what other replicas learnt is read at least this often
    linger_seconds: float = 5.0  # after SIGTERM it serves on and says that it is not ready, for load balancers to see
    workers: int = 1  # processes that share the ports and learn together; each loads the models for itself
    max_message_mebibytes: int = 64  # of a request and of an answer
    tracing: Tracing | None = None  # none: no spans
    request_log: bool = False  # one JSON line a request on standard output

    def __post_init__(self) -> None:
        if not self.routes:
            raise ValueError("routes: at least one route is needed")
        check_address(listen=self.listen, admin=self.admin)
        if _overlap(self.listen, self.admin):
            raise ValueError(f"admin: {self.admin} is taken by listen ({self.listen}); give it another port")
        for name, route in self.routes.items():
            if route.warm_start is not None and route.warm_start.route == name:
                raise ValueError(
                    f"routes.{name}.warm_start.route: a route knows its own rewards, and they would count twice; "
                    "name another route"
                )
            try:
                check_lookups(route.context, self.features)
            except ValueError as error:
                raise ValueError(f"routes.{name}.context.{error}") from None
        for name, client in self.clients.items():
            if client.certificate and not (self.tls and self.tls.client_ca):
                raise ValueError(f"clients: {name} is known by a certificate, so tls.client_ca must say who signs them")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise ValueError(f"workers: must lie between 1 and {MOST_WORKERS}, got {self.workers}")
        if self.workers > 1 and self.store.startswith("memory:"):
            raise ValueError("store: several workers need one that they share, sqlite: or redis:, and not memory:")
        check_positive(max_message_mebibytes=self.max_message_mebibytes)
        check_positive(flush_seconds=self.flush_seconds, refresh_seconds=self.refresh_seconds)
        if not 0 <= self.linger_seconds <= LONGEST_LINGER:
            raise ValueError(f"linger_seconds: must lie between 0 and {LONGEST_LINGER}, got {self.linger_seconds}")
        local = [f"{name}.{arm}" for name, route in self.routes.items() for arm, a in route.arms.items() if a.is_local]
        if local and not self.models:
            raise ValueError(f"models: a folder of models is needed, for the arms without a target: {listed(local)}")


def _overlap(one: str, other: str) -> bool:
    """Whether two addresses cannot both be bound."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    same = host == other_host or not {host, other_host}.isdisjoint(_ANY_HOST)
    return same and int(port) == int(other_port) != 0
