"""The router: deals each request to an arm, and learns from what it earned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.client import Answer, AsyncClient, Client, Earned, Trust

__all__ = ["Answer", "AsyncClient", "Client", "Earned", "Trust"]


def __getattr__(name: str) -> Any:
    # grpcio is a second's import; the server has no use for the client library.
    if name in __all__:
        import router.client

        return getattr(router.client, name)
    raise AttributeError(f"module 'router' has no attribute {name!r}")
