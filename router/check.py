"""What keeps a configuration from being served here: told by `croupier check`, and by `serve` before it begins."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from protos.errors import CallError
from protos.messages import ModelMetadataResponse
from router.builder import check_inputs
from router.config import Arm, Config, Route, Tls
from router.context.rules import check_rules
from router.stores import StoreError, check_url, open_store, try_store
from router.trust import check_certificates, load_pair, tls_context
from router.upstreams.connections import Connections
from router.upstreams.local import check_model
from router.upstreams.secure import header_values

PATIENCE_SECONDS = 5.0
"""For what a remote arm says of itself."""


def here(config: Config) -> list[str]:
    """What is wrong with what a configuration names on this machine, each after its key.

    Certificates are read and models looked for, but not loaded; rules are tested. Asks nobody, opens no store.
    """
    faults = []
    for name, route in config.routes.items():
        rules = check_rules(route.rules, route.rule_tests, route.context, list(route.arms), route.timezone)
        faults += [f"routes.{name}.{fault}" for fault in (*rules, *_of_arms(route.arms, config))]
    for key, tls in (("tls", config.tls), ("admin_tls", config.admin_tls)):
        if tls is not None and (fault := _of_certificate(tls)):
            faults.append(f"{key}.{fault}")
    try:
        check_url(config.store)
    except ValueError as error:
        faults.append(f"store: {error}")
    return faults


def away(config: Config) -> list[str]:
    """What a router with this configuration would miss if it were started here and now, each after its key.

    Opens the store, which is not made where it is a file that is not there, looks for the logs that routes begin with,
    and asks remote arms for their inputs. Models of this process are not loaded.
    """
    faults = []
    try:
        try_store(config.store)
        faults += _of_logs(config)
    except (StoreError, ValueError) as error:
        faults.append(f"store: {error}")
    return faults + asyncio.run(_remote_faults(config))


def _of_arms(arms: dict[str, Arm], config: Config) -> Iterator[str]:
    """What is wrong with the files and models of some arms, and of those inside them."""
    for name, arm in arms.items():
        try:
            if arm.the_kind == "local":
                check_model(Path(config.models), arm.model, arm.version)
            if arm.tls is not None:
                tls_context(arm.tls, "h2")
            header_values(arm.headers)
        except CallError as error:
            yield f"arms.{name}: {error}"
        yield from (f"arms.{name}.ensemble.{fault}" for fault in _of_arms(dict(arm.inline), config))


def _of_certificate(tls: Tls) -> str:
    """What is wrong with the certificate of a port; empty: nothing."""
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.certificate, tls.key)
        if tls.client_ca:
            check_certificates(client_ca=tls.client_ca)
    except ValueError as error:
        return str(error)
    return ""


def _of_logs(config: Config) -> list[str]:
    """Logs to begin with in which there is nothing. Raises StoreError."""
    wanted = {name: route.warm_start.route for name, route in config.routes.items() if route.warm_start}
    scheme, _, path = config.store.partition(":")
    if wanted and (scheme != "sqlite" or Path(path).exists()):
        with closing(open_store(config.store)) as store:
            wanted = {name: log for name, log in wanted.items() if next(store.log(log), None) is None}
    return [f"routes.{name}.warm_start.route: the store has no decision of {log!r}" for name, log in wanted.items()]


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
