"""The HTTP endpoints that models bring with them, behind the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

from starlette.routing import Route

from protos.errors import FailedPrecondition
from runtime.served import Routed, Servable, Served

Counted = Callable[[Iterable[Route]], list[Route]]


class Endpoints:
    """Keeps the routes of a server up to date: first its own, then those of the models in service.

    Of the versions of a model the newest is asked, as everywhere.
    """

    def __init__(self) -> None:
        self._server: list[Route] = []
        self._live: list[Route] = []
        self._counted: Counted = list
        self._models: dict[str, list[Route]] = {}

    def behind(self, server: Sequence[Route], counted: Counted = list) -> list[Route]:
        """The routes of a server, and behind them, from now on, those of the models, as `counted` makes them."""
        self._server, self._counted = [*server], counted
        self._live = []
        self._publish()
        return self._live

    def check(self, model: str, servable: Servable) -> None:
        """Raises FailedPrecondition naming an endpoint of a model that the server or another model has already."""
        if not isinstance(servable, Routed):
            return
        others = {f"model {name!r}": taken for name, taken in self._models.items() if name != model}
        for owner, taken in {"the server": self._server, **others}.items():
            for route in servable.routes:
                if other := next((each for each in taken if _meet(route, each)), None):
                    raise FailedPrecondition(
                        f"endpoint {_told(route)}: {owner} has {_told(other)}; give it another rest_path"
                    )

    def show(self, model: str, served: Iterable[Served]) -> None:
        """What is in service of a model from now on, the oldest version first."""
        routes: list[Route] = []
        for each in served:
            if isinstance(each.servable, Routed):
                routes = [*each.servable.routes, *routes]
        if routes != self._models.get(model, []):
            self._models.pop(model, None)
            if routes:
                self._models[model] = routes
            self._publish()

    def _publish(self) -> None:
        routes = [route for each in self._models.values() for route in each]
        self._live[:] = [*self._server, *self._counted(routes)]


def _meet(one: Route, other: Route) -> bool:
    """Whether a request could be meant for both. What stands in braces may be anything."""
    if not (one.methods or set()) & (other.methods or set()):
        return False
    for a, b in zip_longest(one.path.split("/"), other.path.split("/"), fillvalue=""):
        if ":path}" in a + b:
            return True
        if a != b and not (a and b and "{" in a + b):
            return False
    return True


def _told(route: Route) -> str:
    return f"{' or '.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}"
