"""Who may do what: an ASGI application around those of a port, which lets in whom the configuration names.

Without clients in the configuration, everybody who reaches a port may do all that it offers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Mapping, MutableMapping
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, TypeAlias

from protos.errors import CallError, PermissionDenied, Unauthenticated
from protos.grpc import refuse as refuse_rpc
from protos.rest import refusal
from protos.serve import Asgi
from router.config import Client, Config, Role
from router.edge.limits import Limit, Limits

asking: ContextVar[str] = ContextVar("asking", default="")
"""The name of the client whose request is being answered; empty where nobody has to say who asks."""

Roles: TypeAlias = tuple[Role, ...]

_BEARER = b"bearer "  # a scheme is written in any case (RFC 9110, 11.1)

_OPEN = re.compile(
    r"/v2/health/(live|ready)|/inference\.GRPCInferenceService/Server(Live|Ready)|/(live|ready)|/(dashboard(/[\w.-]*)?)?"
)
"""What anybody may ask: whoever restarts processes has no key, and the dashboard's page holds no data."""

_ROLES: tuple[tuple[re.Pattern[str], Roles], ...] = (
    (re.compile(r"POST /v2/models/[^/]+(/versions/[^/]+)?/(infer|infer_stream)"), ("infer",)),
    (re.compile(r"POST /inference\.GRPCInferenceService/Model(Infer|StreamInfer)"), ("infer",)),
    (re.compile(r"POST (/v1/routes/[^/]+/decide|/croupier\.v1\.Croupier/Decide)"), ("infer",)),
    (re.compile(r"POST (/v1/feedback(/.*)?|/croupier\.v1\.Croupier/Feedback\w*)"), ("feedback",)),
    # What clients of V2 ask before they infer.
    (re.compile(r"GET /v2(/models/[^/]+(/versions/[^/]+)?(/ready)?)?/?"), ("infer", "read")),
    (re.compile(r"POST /inference\.GRPCInferenceService/(\w+Metadata|ModelReady)"), ("infer", "read")),
    (re.compile(r"GET /.*"), ("read",)),
    (re.compile(r"POST (/v2/repository/index|/inference\..*/RepositoryIndex)"), ("read",)),
    (re.compile(r"POST /croupier\.v1\.Croupier/(List|Describe|Report|Explain|Evaluate|Events|Get)\w*"), ("read",)),
    (re.compile(r"POST /v1/routes/[^/]+/evaluate"), ("read",)),
)


def roles_for(method: str, path: str) -> Roles | None:
    """The roles of which a request needs one: None where it is open, and `operate` for all that nobody thought of."""
    if _OPEN.fullmatch(path):
        return None
    asked = f"{method} {path}"
    return next((roles for pattern, roles in _ROLES if pattern.fullmatch(asked)), ("operate",))


class _Known:
    """A client, and what it has left to ask."""

    def __init__(self, name: str, settings: Client, limit: Limit) -> None:
        self.name = name
        self.settings = settings
        self.admitted = limit.admitted


class Access:
    """The clients of a configuration."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.use({})

    def use(self, clients: Mapping[str, Client]) -> None:
        """Knows these clients from now on. One whose limits stay keeps its count of requests."""
        limits = self._limits.of(clients)
        known = [_Known(name, told, limits[name]) for name, told in clients.items()]
        self.is_open = not known
        self._by_key = [(bytes.fromhex(each.settings.key_sha256), each) for each in known if each.settings.key_sha256]
        self._by_certificate = {each.settings.certificate: each for each in known if each.settings.certificate}

    def admit(self, scope: MutableMapping[str, Any], roles: Roles) -> _Known:
        """The client of a request. Raises Unauthenticated for a stranger, PermissionDenied without any of the roles."""
        client = self._client(scope)
        if client is None:
            raise Unauthenticated(
                'who asks? send the metadata or header "authorization: Bearer KEY" with a key that this server knows'
                + (", or show a certificate that it knows" if self._by_certificate else "")
            )
        if client.settings.roles.isdisjoint(roles):
            raise PermissionDenied(
                f"client {client.name!r} has no role {' or '.join(map(repr, roles))}, which this needs"
            )
        return client

    def _client(self, scope: MutableMapping[str, Any]) -> _Known | None:
        if self._by_key:
            for name, value in scope["headers"]:
                if name == b"authorization":
                    scheme, key = value[: len(_BEARER)], value[len(_BEARER) :]
                    return self._of_key(key) if scheme.lower() == _BEARER else None
        return self._by_certificate.get(scope.get("extensions", {}).get("tls", {}).get("client_cert_name"))

    def _of_key(self, key: bytes) -> _Known | None:
        digest = hashlib.sha256(key).digest()
        found = None
        for known, client in self._by_key:  # all of them, so that the time tells nothing about which
            if hmac.compare_digest(known, digest):
                found = client
        return found


def guarded(app: Asgi, access: Access) -> Asgi:
    """`app` for those who are let in; the others are told why not, in the protocol that they speak."""

    def guard(scope: MutableMapping[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if access.is_open or scope["type"] != "http" or (roles := roles_for(scope["method"], scope["path"])) is None:
            return app(scope, receive, send)
        return known(roles, scope, receive, send)

    async def known(roles: Roles, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        try:
            client = access.admit(scope, roles)
            with client.admitted():
                before = asking.set(client.name)
                try:
                    await app(scope, receive, send)
                finally:
                    asking.reset(before)
        except CallError as error:  # the application answers its own
            is_rpc = any(n == b"content-type" and v.startswith(b"application/grpc") for n, v in scope["headers"])
            await (refuse_rpc(error, send) if is_rpc else refusal(error)(scope, receive, send))

    return guard


def open_to_all(config: Config) -> list[str]:
    """The addresses at which whoever reaches them over a network may do everything."""
    ports = ((config.listen, config.tls), (config.admin, config.admin_tls))
    open_ports = [] if config.clients else [bind for bind, tls in ports if not (tls and tls.client_ca)]
    return [bind for bind in open_ports if not _is_loopback(bind.rpartition(":")[0])]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
