"""What fills the feature tables: PutFeatures, over gRPC and REST."""

from __future__ import annotations

import logging

from protos.errors import InvalidArgument
from protos.grpc import Methods, Rpc
from protos.messages import PutFeaturesRequest, PutFeaturesResponse, parse
from router.context.lookups import Lookups, kind_of
from router.errors import NotRecorded
from router.stores import InStore, StoreError
from router.wire import SERVICE

_log = logging.getLogger(__name__)


class FeatureService:
    """Writes rows into the store; each process reads them from there, soon after."""

    def __init__(self, lookups: Lookups, in_store: InStore) -> None:
        self._lookups = lookups
        self._in_store = in_store

    async def put(self, request: PutFeaturesRequest) -> PutFeaturesResponse:
        """Puts and deletes rows, all or none; returns when that is durable.

        Raises NotFound, InvalidArgument, and NotRecorded when the store does not answer.
        """
        rows: list[tuple[str, dict[str, float | str]]] = []
        for at, row in enumerate(request.rows):
            if twice := row.numbers.keys() & row.texts.keys():
                raise InvalidArgument(f"rows[{at}]: {min(twice)[:100]!r} is given as a number and as a text")
            rows.append((row.unit, {**row.numbers, **row.texts}))
        bodies = self._lookups.bodies(request.table, rows, request.forget)
        try:
            await self._in_store(lambda store: store.put(kind_of(request.table), bodies))
        except StoreError as error:
            _log.error("features of table %s cannot be put: %s", request.table, error)
            raise NotRecorded from None
        return PutFeaturesResponse(rows=len(bodies))


def feature_methods(service: FeatureService) -> Methods:
    """The gRPC methods, by path."""

    async def put_features(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.put(parse(PutFeaturesRequest, body))).SerializeToString()

    return {SERVICE + "PutFeatures": put_features}
