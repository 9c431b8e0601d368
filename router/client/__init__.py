"""The client library: ask a route, report what it earned. On grpcio, sync and async."""

from __future__ import annotations

from router.client.asynchronous import AsyncClient
from router.client.blocking import Client
from router.client.messages import Answer, Earned, Parameter
from router.trust import Trust

__all__ = ["Answer", "AsyncClient", "Client", "Earned", "Parameter", "Trust"]
