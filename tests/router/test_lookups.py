from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest

from protos.errors import InvalidArgument, NotFound
from protos.grpc import Rpc
from protos.messages import PutFeaturesRequest, PutFeaturesResponse
from protos.rest import rest_app
from router.config.context import FeatureTable
from router.context.lookups import MOST_ROWS, Lookups, bodies_of, kind_of, refreshed
from router.edge.feature_service import FeatureService, feature_methods
from router.edge.rest import feature_routes
from router.errors import NotRecorded
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from router.wire import SERVICE

T = TypeVar("T")

CUSTOMERS = FeatureTable(columns={"exposure": "number", "tier": "text"})


class CountingStore(MemoryStore):
    """Counts the documents that were read, and does not answer while it is `away`."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.away = False

    def put(self, kind: str, bodies: Mapping[str, bytes], **more: Any) -> bool:
        if self.away:
            raise StoreError("the disk is full")
        return super().put(kind, bodies, **more)

    def documents(self, kind: str, *, after: int = 0):
        if self.away:
            raise StoreError("the disk is full")
        told = super().documents(kind, after=after)
        self.read += len(told)
        return told


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def lookups() -> Lookups:
    lookups = Lookups()
    lookups.settings = {"customers": CUSTOMERS}
    return lookups


def put(store: MemoryStore, rows: Mapping[str, Mapping[str, float | str]], *forget: str) -> None:
    store.put(kind_of("customers"), bodies_of("customers", CUSTOMERS, list(rows.items()), forget))


def known(lookups: Lookups) -> dict[str, tuple[float | None, str | None]]:
    rows = lookups.current["customers"].rows
    return {unit: (row.exposure, row.tier) for unit, row in rows.items()}  # type: ignore[attr-defined]  # as declared


def test_what_is_put_is_known_after_the_next_refresh(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 2, "tier": "gold"}, "bob": {"tier": "basic"}})
    lookups.refresh(store)
    assert known(lookups) == {"ann": (2.0, "gold"), "bob": (None, "basic")}


def test_a_row_takes_the_place_of_the_whole_row_before(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 2, "tier": "gold"}})
    put(store, {"ann": {"exposure": 3}})
    lookups.refresh(store)
    assert known(lookups) == {"ann": (3.0, None)}


def test_only_what_is_new_is_read(store: CountingStore, lookups: Lookups):
    put(store, {f"u{n}": {"exposure": n} for n in range(100)})
    lookups.refresh(store)
    assert store.read == 100
    put(store, {"u7": {"exposure": -1}, "new": {}}, "u8")
    before = lookups.current
    lookups.refresh(store)
    assert store.read == 103
    after = known(lookups)
    assert (len(after), after["u7"], after["new"], after.get("u8")) == (100, (-1.0, None), (None, None), None)
    older = before["customers"].rows  # whoever reads it goes on to do so
    assert ("u8" in older, "new" in older) == (True, False)
    lookups.refresh(store)
    assert store.read == 103


def test_two_processes_know_the_same(store: CountingStore, lookups: Lookups):
    late = Lookups()
    late.settings = lookups.settings
    put(store, {"ann": {"exposure": 1}})
    lookups.refresh(store)
    put(store, {"bob": {"exposure": 2}}, "ann")
    lookups.refresh(store)
    late.refresh(store)
    assert known(late) == known(lookups) == {"bob": (2.0, None)}


def test_a_unit_that_is_forgotten_may_come_back(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 1}})
    lookups.refresh(store)
    put(store, {}, "ann", "nobody")
    lookups.refresh(store)
    assert known(lookups) == {}
    put(store, {"ann": {"exposure": 3}})
    lookups.refresh(store)
    assert known(lookups) == {"ann": (3.0, None)}


def use(lookups: Lookups, settings: dict[str, FeatureTable], store: CountingStore) -> None:
    """Serves another configuration."""
    lookups.publish(settings, lookups.read(settings, store))


def test_a_table_whose_columns_change_is_read_anew(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 1, "tier": "gold"}, "bob": {"tier": "basic"}})
    lookups.refresh(store)
    use(lookups, {"customers": FeatureTable(columns={"tier": "text", "age": "number"})}, store)
    rows = lookups.current["customers"].rows
    assert {unit: msgspec.structs.asdict(row) for unit, row in rows.items()} == {
        "ann": {"tier": "gold", "age": None},
        "bob": {"tier": "basic", "age": None},
    }


def test_rows_that_do_not_fit_their_columns_are_left_out_and_counted(
    store: CountingStore, lookups: Lookups, caplog: pytest.LogCaptureFixture
):
    put(store, {"ann": {"exposure": 1}, "bob": {"tier": "secret"}})
    store.put(kind_of("customers"), {"eve": b"no message"})
    with caplog.at_level(logging.WARNING):
        use(lookups, {"customers": FeatureTable(columns={"exposure": "number", "tier": "number"})}, store)
        lookups.refresh(store)  # and said once
    assert list(lookups.current["customers"].rows) == ["ann"]
    assert [record.message for record in caplog.records] == [
        "feature table customers: 2 rows do not fit its columns and are left out"
    ]


def test_a_table_that_is_no_longer_declared_is_dropped_once_its_routes_are(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 1}})
    lookups.refresh(store)
    use(lookups, {}, store)
    assert known(lookups) == {"ann": (1.0, None)}
    lookups.refresh(store)
    assert lookups.current == {}


def test_nothing_changes_when_the_store_does_not_answer(store: CountingStore, lookups: Lookups):
    put(store, {"ann": {"exposure": 1}})
    lookups.refresh(store)
    store.away = True
    with pytest.raises(StoreError):
        use(lookups, {"others": CUSTOMERS}, store)
    with pytest.raises(StoreError):
        lookups.refresh(store)
    assert (lookups.settings, known(lookups)) == ({"customers": CUSTOMERS}, {"ann": (1.0, None)})


def test_nothing_is_published_when_nothing_has_changed(store: CountingStore):
    tables = refreshed({}, {"customers": CUSTOMERS}, store)
    assert refreshed(tables, {"customers": FeatureTable(columns=dict(CUSTOMERS.columns))}, store) is tables


# -- the service


@pytest.fixture
def service(store: CountingStore, lookups: Lookups) -> FeatureService:
    async def in_store(work: Callable[[Store], T]) -> T:
        return work(store)

    return FeatureService(lookups, in_store)


@pytest.mark.anyio
async def test_features_are_put_over_grpc(store: CountingStore, lookups: Lookups, service: FeatureService):
    request = PutFeaturesRequest(table="customers", forget=["bob"])
    request.rows.add(unit="ann", numbers={"exposure": 2.5}, texts={"tier": "gold"})
    method = feature_methods(service)[SERVICE + "PutFeatures"]
    answer = await method(request.SerializeToString(), Rpc([]))  # type: ignore[operator]  # a unary one
    assert PutFeaturesResponse.FromString(answer).rows == 2
    lookups.refresh(store)
    assert known(lookups) == {"ann": (2.5, "gold")}


def test_features_are_put_over_rest(store: CountingStore, lookups: Lookups, service: FeatureService):
    from starlette.testclient import TestClient

    client = TestClient(rest_app(feature_routes(service), max_body=100_000))
    rows = [{"unit": "ann", "numbers": {"exposure": 2.5}}, {"unit": "bob", "texts": {"tier": "basic"}}]
    answer = client.post("/v1/features/customers", json={"rows": rows})
    assert (answer.status_code, answer.json()) == (200, {"rows": 2})
    lookups.refresh(store)
    assert known(lookups) == {"ann": (2.5, None), "bob": (None, "basic")}
    assert client.post("/v1/features/nobody", json={}).status_code == 404
    refused = client.post("/v1/features/customers", json={"rows": [{"unit": ""}]})
    assert (refused.status_code, refused.json()) == (
        422,
        {"error": "rows[0].unit: must have 1 to 1024 characters, has 0"},
    )


WRONG: dict[str, tuple[list[tuple[str, dict[str, float | str]]], list[str], str]] = {
    "no unit": ([("ann", {}), ("", {})], [], r"rows\[1\].unit: must have 1 to 1024 characters, has 0"),
    "a unit that is too long": ([("a" * 1025, {})], [], r"rows\[0\].unit: must have 1 to 1024 characters, has 1025"),
    "no unit to forget": ([], ["ann", ""], r"forget\[1\]: must have 1 to 1024 characters"),
    "a unit twice": ([("ann", {}), ("ann", {})], [], r"rows\[1\].unit: the unit is named twice"),
    "a unit put and forgotten": ([("ann", {})], ["ann"], r"forget\[0\]: the unit is named twice"),
    "no such column": (
        [("ann", {"x": 1})],
        [],
        r"rows\[0\]: table 'customers' has the columns exposure, tier, not 'x'",
    ),
    "a text for a number": ([("ann", {"exposure": "1"})], [], r"rows\[0\]: exposure must be a number"),
    "a number for a text": ([("ann", {"tier": 1})], [], r"rows\[0\]: tier must be a text"),
    "not a number": ([("ann", {"exposure": float("nan")})], [], r"rows\[0\]: exposure must be finite"),
    "infinite": ([("ann", {"exposure": float("-inf")})], [], r"rows\[0\]: exposure must be finite"),
    "too long a text": ([("ann", {"tier": "x" * 1025})], [], r"rows\[0\]: tier must have at most 1024 characters"),
    "too many": ([(str(n), {}) for n in range(MOST_ROWS)], ["x"], r"rows: at most 1000 in a call, got 1001"),
}


@pytest.mark.parametrize(("rows", "forget", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_a_table_cannot_hold_is_refused(
    lookups: Lookups, rows: list[tuple[str, dict[str, float | str]]], forget: list[str], sentence: str
):
    with pytest.raises(InvalidArgument, match=f"^{sentence}"):
        lookups.bodies("customers", rows, forget)


@pytest.mark.anyio
async def test_nothing_of_a_call_that_is_refused_is_put(store: CountingStore, service: FeatureService):
    request = PutFeaturesRequest(table="customers")
    request.rows.add(unit="ann", numbers={"exposure": 1})
    request.rows.add(unit="bob", numbers={"tier": 1})
    with pytest.raises(InvalidArgument, match=r"rows\[1\]: tier must be a text"):
        await service.put(request)
    request.rows[1].texts["tier"] = "gold"
    with pytest.raises(InvalidArgument, match=r"rows\[1\]: 'tier' is given as a number and as a text"):
        await service.put(request)
    assert not store.documents(kind_of("customers"))


@pytest.mark.anyio
async def test_a_store_that_is_away_is_said_to_be(store: CountingStore, service: FeatureService):
    store.away = True
    with pytest.raises(NotRecorded):
        await service.put(PutFeaturesRequest(table="customers", forget=["ann"]))


@pytest.mark.anyio
async def test_an_unknown_table_is_named_with_those_that_there_are(service: FeatureService):
    with pytest.raises(NotFound, match="there is no feature table 'clients'; there are: customers"):
        await service.put(PutFeaturesRequest(table="clients"))
