"""The models of this process: no hop, no copy of the tensors."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from protos.errors import Code, FailedPrecondition, NotFound, UpstreamError
from protos.messages import ModelMetadataResponse
from router.call import Call, Reply
from router.errors import listed
from runtime import scrapes
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository

GREATEST = scrapes.GREATEST
"""What of the models' metrics is not added up where several processes count."""


def check_model(folder: Path, model: str, version: str) -> None:
    """Raises a CallError unless a folder of models has this one, in this version if one is given. Loads nothing."""
    try:
        found = Repository(folder).find(model)
    except OSError as error:
        raise FailedPrecondition(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise NotFound(f"there is no model {model!r} in {folder}")
    if broken := [each.reason for each in found if each.settings is None]:
        raise FailedPrecondition("; ".join(broken))
    versions = {each.version for each in found}
    if version and version not in versions:
        there = listed(map(repr, versions - {""})) or "none"
        raise NotFound(f"there is no version {version!r} of model {model!r} in {folder}; there are {there}")


class Models:
    """A folder of models, served by an engine in this process."""

    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self._folder = folder
        self._engine = Engine(Repository(folder), Metrics(registry))
        self.unfinished = self._engine.unfinished

    async def upstream(self, model: str, version: str) -> Local:
        """The upstream for a model, loaded and warm. Raises a CallError when it cannot be loaded."""
        await asyncio.to_thread(check_model, self._folder, model, version)
        await self._engine.load(model)
        return Local(self._engine, model, version)

    async def close(self) -> None:
        """Answers the calls that they have, then lets go of them."""
        await self._engine.close()


class Local:
    """Serves an arm from a model of this process."""

    def __init__(self, engine: Engine, model: str, version: str = "") -> None:
        self._engine = engine
        self._model = model
        self._version = version

    async def __call__(self, call: Call) -> Reply:
        request = call.request
        request.model_name = self._model
        request.model_version = self._version
        try:
            response = await self._engine.infer(request, deadline=call.deadline)
        except NotFound as error:  # a model that is gone is the arm's failure: the client asked for the route
            raise UpstreamError(error.message, Code.INTERNAL) from None
        return Reply(response.SerializeToString())

    async def metadata(self) -> ModelMetadataResponse:
        return self._engine.metadata(self._model, self._version)

    async def ready(self) -> bool:
        try:
            return self._engine.is_ready(self._model, self._version)
        except NotFound:
            return False

    async def close(self) -> None:
        """Nothing: the models outlive their routes."""
