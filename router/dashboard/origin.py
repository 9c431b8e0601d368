"""What other sites' pages may ask: nothing that changes anything.

Whoever operates a server also reads mail, in the same browser; a page on another site can have that browser post to
the admin port, which on loopback trusts everybody. Browsers say where a request comes from; other clients do not.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from protos.errors import PermissionDenied
from protos.rest import refusal
from protos.serve import Asgi

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({b"same-origin", b"none"})


def own_pages(app: Asgi) -> Asgi:
    """`app`, for its own pages and for all that are no browsers."""

    async def guard(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] not in _HARMLESS and _is_foreign(dict(scope["headers"])):
            error = PermissionDenied("this comes from a page of another site, which may not change anything here")
            await refusal(error)(scope, receive, send)
            return
        await app(scope, receive, send)

    return guard


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    """By Fetch Metadata, which proxies leave alone; where that is missing, as over plain HTTP, by Origin and Host."""
    if (site := headers.get(b"sec-fetch-site")) is not None:
        return site not in _OWN
    origin = headers.get(b"origin")
    return origin is not None and urlsplit(origin).netloc != headers.get(b"host", b"")
