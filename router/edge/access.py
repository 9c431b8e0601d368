"""Who may do what: an ASGI application around those of a port, which lets in whom the configuration names.

Without clients in the configuration, everybody who reaches a port may do all that it offers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Mapping, MutableMapping
from typing import Any

from protos.errors import CallError, PermissionDenied, Unauthenticated
from protos.grpc import refuse as refuse_rpc
from protos.rest import refusal
from protos.serve import Asgi
from router.config import Client, Role
from router.edge.limits import Limit, Limits

_BEARER = b"Bearer "

_OPEN = re.compile(
    r"/v2/health/(live|ready)|/inference\.GRPCInferenceService/Server(Live|Ready)|/(live|ready)|/(dashboard(/[\w.-]*)?)?"
)
"""What anybody may ask: whoever restarts processes has no key, and the dashboard's page holds no data."""

_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"POST /v2/models/[^/]+(/versions/[^/]+)?/(infer|infer_stream)"), "infer"),
    (re.compile(r"POST /inference\.GRPCInferenceService/Model(Infer|StreamInfer)"), "infer"),
    (re.compile(r"POST (/v1/routes/[^/]+/decide|/croupier\.v1\.Croupier/Decide)"), "infer"),
    (re.compile(r"POST (/v1/feedback(/.*)?|/croupier\.v1\.Croupier/Feedback\w*)"), "feedback"),
    (re.compile(r"GET /.*"), "read"),
    (re.compile(r"POST /v2/repository/index|POST /inference\..*/(\w+Metadata|ModelReady|RepositoryIndex)"), "read"),
    (re.compile(r"POST /croupier\.v1\.Croupier/(List|Describe|Report|Explain|Evaluate|Events|Get)\w*"), "read"),
    (re.compile(r"POST /v1/routes/[^/]+/evaluate"), "read"),
)


def role_for(method: str, path: str) -> Role | None:
    """The role that a request needs: None for those that are open, and `operate` for all that nobody thought of."""
    if _OPEN.fullmatch(path):
        return None
    asked = f"{method} {path}"
    return next((role for pattern, role in _ROLES if pattern.fullmatch(asked)), "operate")


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

    def admit(self, scope: MutableMapping[str, Any], role: Role) -> _Known:
        """The client of a request. Raises Unauthenticated for a stranger, PermissionDenied without the role."""
        client = self._client(scope)
        if client is None:
            raise Unauthenticated(
                'who asks? send the metadata or header "authorization: Bearer KEY" with a key that this server knows'
                + (", or show a certificate that it knows" if self._by_certificate else "")
            )
        if role not in client.settings.roles:
            raise PermissionDenied(f"client {client.name!r} has no role {role!r}, which this needs")
        return client

    def _client(self, scope: MutableMapping[str, Any]) -> _Known | None:
        if self._by_key:
            for name, value in scope["headers"]:
                if name == b"authorization":
                    return self._of_key(value.removeprefix(_BEARER)) if value.startswith(_BEARER) else None
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
        if access.is_open or scope["type"] != "http" or (role := role_for(scope["method"], scope["path"])) is None:
            return app(scope, receive, send)
        return known(role, scope, receive, send)

    async def known(role: Role, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        try:
            with access.admit(scope, role).admitted():
                await app(scope, receive, send)
        except CallError as error:  # the application answers its own
            is_rpc = any(n == b"content-type" and v.startswith(b"application/grpc") for n, v in scope["headers"])
            await (refuse_rpc(error, send) if is_rpc else refusal(error)(scope, receive, send))

    return guard
