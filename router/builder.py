"""From the settings of a route to the route: its arms warm, its policy fitted to what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

import numpy as np

from bandits import sampler
from protos.errors import CallError
from protos.messages import ModelMetadataResponse
from router.config import Route as Settings
from router.config.context import Features
from router.context.encoder import Encoder
from router.context.lookups import Lookups
from router.context.rules import Rules, check_rules
from router.errors import ConfigError
from router.layers.shadow import Shadows
from router.learning.learner import Learner
from router.metrics import ArmMetrics, Metrics
from router.route import Arm, Route, Routes, drawn_ever, permitted
from router.safety.guard import Guard
from router.safety.tally import Tally
from router.stamp import Stamp
from router.stores import StoreError
from router.upstreams.connections import Connections


class Builder:
    """Builds routes for the configuration file at `path`, which its refusals name."""

    def __init__(
        self,
        path: Path,
        routes: Routes,
        learner: Learner,
        connections: Connections,
        metrics: Metrics,
        lookups: Lookups,
        new_id: Callable[[], tuple[str, float]],
    ) -> None:
        self._path = path
        self._routes = routes
        self._learner = learner
        self._connections = connections
        self._metrics = metrics
        self._lookups = lookups
        self._new_id = new_id

    async def build(self, name: str, settings: Settings) -> Route:
        """The route, warm and with all that is known about it. Raises ConfigError."""
        names = list(settings.arms)
        if settings.rule_tests:
            failures = check_rules(settings.rules, settings.rule_tests, settings.context, names, settings.timezone)
            if failures:
                raise ConfigError(f"{self._path}: routes.{name}.{failures[0]}")
        arms = tuple([await self._arm(name, arm, settings) for arm in names])
        await self._check_inputs(name, arms, settings.context)
        policy = settings.build_policy()
        nothing = np.zeros((len(arms), policy.width))
        fitted = policy.fit(nothing)
        guard = self._guard(name, settings)
        switched_on, drawable = np.ones(len(arms), dtype=np.bool_), drawn_ever(policy, len(arms))
        rules = Rules(settings.rules, settings.context, names, settings.timezone) if settings.rules else None
        route = Route(
            name=name,
            settings=settings,
            in_force=settings,
            arms=arms,
            champion=names.index(settings.the_champion),
            encoder=Encoder(settings.context) if settings.context else None,
            rules=rules,
            lookups=self._lookups,
            policy=policy,
            reads_context=policy.features > 0,
            draw=sampler(settings.salt or name, names),
            guard=guard,
            log=self._learner.journal,
            new_id=self._new_id,
            changed=self._routes.guard_changed,
            fitted=fitted,
            version="",
            sums=nothing,
            switched_on=switched_on,
            drawable=drawable,
            allowed=permitted(switched_on, guard.allowed(), drawable),
            tally=self._tally(name, settings),
            shadows=self._shadows(name, settings, arms),
        )
        try:
            return await self._learner.fit(route)
        except StoreError as error:
            raise ConfigError(f"{self._path}: routes.{name}: {error}") from None

    def _guard(self, name: str, settings: Settings) -> Guard:
        """The guard of a route: the one it has, if the change is not about its arms, so that who is out stays out."""
        served = self._routes.current.get(name)
        if (
            served is not None
            and list(served.settings.arms.items()) == list(settings.arms.items())
            and served.settings.guard == settings.guard
        ):
            return served.guard
        return Guard(settings.guard, len(settings.arms), monotonic)

    def _tally(self, name: str, settings: Settings) -> Tally | None:
        """What counts for the guardrails of a route: the one it has, while the arms are the same."""
        if not settings.guardrails and settings.canary is None:
            return None
        served = self._routes.current.get(name)
        if served is not None and list(served.settings.arms) == list(settings.arms) and served.tally is not None:
            return served.tally
        return Tally(name, list(settings.arms))

    def _shadows(self, name: str, settings: Settings, arms: tuple[Arm, ...]) -> Shadows | None:
        """The shadows of a route: those it has, while they are told the same and ask the same."""
        if not settings.shadows:
            return None
        served = self._routes.current.get(name)
        if served is not None and served.shadows is not None and served.settings.shadows == settings.shadows:
            asked = {arm.name: arm.upstream for arm in served.arms}
            if all(asked.get(arm.name) is arm.upstream for arm in arms if arm.name in settings.shadows):
                return served.shadows
        return Shadows(name, settings.shadows, {arm.name: arm.upstream for arm in arms}, self._metrics)

    async def _arm(self, route: str, name: str, settings: Settings) -> Arm:
        try:
            upstream = await self._connections.upstream(settings.arms[name], settings.arms)
        except CallError as error:
            raise ConfigError(f"{self._path}: routes.{route}.arms.{name}: {error}") from None
        return Arm(name, upstream, Stamp(route, name), ArmMetrics(self._metrics, route, name))

    async def _check_inputs(self, route: str, arms: tuple[Arm, ...], context: Features) -> None:
        told = {}
        for arm in arms:
            with suppress(CallError):  # a remote that is away; the guard deals with it
                told[arm.name] = await arm.upstream.metadata()
        try:
            check_inputs(told, context)
        except ValueError as error:
            raise ConfigError(f"{self._path}: routes.{route}.{error}") from None


def check_inputs(told: Mapping[str, ModelMetadataResponse], context: Features) -> None:
    """Raises ValueError("key: sentence") unless the arms of a route, of which these have told theirs, go together.

    Any request may go to any of them, so they must take the same inputs; what the context is read from must be there.
    """
    arms = list(told)
    inputs = {arm: _signature(told[arm]) for arm in arms}
    if arms:
        try:
            Encoder(context).check(told[arms[0]].inputs)
        except ValueError as error:
            raise ValueError(f"context: {error}") from None
    for arm in arms:
        if inputs[arm] != inputs[arms[0]]:
            raise ValueError(
                f"arms: {arm} takes {inputs[arm]}, but {arms[0]} takes {inputs[arms[0]]};"
                " the arms of a route must take the same inputs"
            )


def _signature(metadata: ModelMetadataResponse) -> list[tuple[str, str, tuple[int, ...]]]:
    return sorted((tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.inputs)
