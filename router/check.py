"""What `croupier check --connect` looks at: whether what a configuration names is there."""

from __future__ import annotations

import asyncio

from protos.errors import CallError
from protos.messages import ModelMetadataResponse
from router.builder import check_inputs
from router.config import Config, Route
from router.stores import StoreError, try_store
from router.upstreams.connections import Connections

PATIENCE_SECONDS = 5.0
"""For what a remote arm says of itself."""


def away(config: Config) -> list[str]:
    """What a router with this configuration would miss if it were started here and now, each after its key.

    Opens the store, which is not made where it is a file that is not there, and asks remote arms for their inputs.
    Models of this process are not loaded.
    """
    faults = []
    try:
        try_store(config.store)
    except (StoreError, ValueError) as error:
        faults.append(f"store: {error}")
    return faults + asyncio.run(_remote_faults(config))


async def _remote_faults(config: Config) -> list[str]:
    connections = Connections(None)
    try:
        faults = [await _faults(connections, route) for route in config.routes.values()]
    finally:
        await connections.close()
    return [f"routes.{name}.{fault}" for name, of in zip(config.routes, faults, strict=True) for fault in of]


async def _faults(connections: Connections, route: Route) -> list[str]:
    """What is wrong with the remote arms of a route."""
    told: dict[str, ModelMetadataResponse] = {}
    faults = []
    for name, arm in route.arms.items():
        parts = {**route.arms, **arm.inline}
        if any(parts[part].is_local for part in (arm.ensemble.members if arm.ensemble else [name])):
            continue
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                upstream = await connections.upstream(arm, route.arms)
                told[name] = await upstream.metadata()
        except CallError as error:
            faults.append(f"arms.{name}: {error}")
        except TimeoutError:
            faults.append(f"arms.{name}: it has not said within {PATIENCE_SECONDS:g} seconds what it takes")
    try:
        check_inputs(told, route.context)
    except ValueError as error:
        faults.append(str(error))
    return faults
