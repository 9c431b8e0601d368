"""What the versions of policies meant that decisions name, as far as the store remembers."""

from __future__ import annotations

from router.config import Route as Settings
from router.learning.settings_json import settings_of
from router.stores import Store


class Versions:
    """The settings of routes, by route and version. For one thread."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str], Settings] = {}
        self._texts: dict[str, Settings] = {}

    def __call__(self, store: Store, route: str, version: str) -> Settings | None:
        """The settings at a version; None when nobody knows them. Raises StoreError."""
        known = self._settings.get((route, version))
        if known is None:
            fit = store.fit(route, version)
            if fit is None:
                return None
            try:
                known = self._texts.get(fit.settings) or settings_of(fit.settings)
            except ValueError:  # of another Croupier
                return None
            self._texts[fit.settings] = self._settings[route, version] = known
        return known


def has_log(store: Store, route: str) -> bool:
    """Whether decisions of a route are written down, be it served still or not. Raises StoreError."""
    return next(store.newest(route), None) is not None


def last_settings(store: Store, route: str) -> Settings | None:
    """The settings that the newest decision of a route was taken with: for one that is served no more.

    None when there is no decision, or nobody knows its version. Raises StoreError.
    """
    for decision, _ in store.newest(route):
        return Versions()(store, route, decision.policy_version)
    return None
