from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet
import pytest

from protos.errors import FailedPrecondition
from router.__main__ import main
from router.call import REWARD, TRUTH, Batch, Credit, Decision, Fit, Outcome
from router.config import Arm, Metric
from router.config import Route as Settings
from router.config.context import Feature
from router.export import Kind, bound, export, metrics_of, whole_file
from router.ids import DecisionIds, first_id
from router.learning.settings_json import settings_json
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore

PLAIN = Decision("d1", "credit", "a", 0.75, 1.5, "v1")
RICH = Decision(
    "d2",
    "credit",
    "é",
    0.25,
    2.5,
    "v2",
    unit="u1",
    context=(0.1, -0.0),
    probabilities=(0.75, 0.25, 0.0),
    allowed=0b101,
    rule="calm",
    failed=("b",),
    proposed=(0.0, 1.0, 0.0),
    prediction=0.1 + 0.2,
)
NOTHING = dict.fromkeys(("probabilities", "allowed", "context", "proposed", "prediction", "reward", "truth", "others"))
NOTHING |= {"arms": None, "context_names": None}
ROWS = [
    {"decision": "d1", "time": 1.5, "unit": "", "arm": "a", "propensity": 0.75, "rule": "", "failed": []}
    | {"policy_version": "v1", "upstream": "", "metric_profit": None, "reported": None, **NOTHING},
    {"decision": "d2", "time": 2.5, "unit": "u1", "arm": "é", "propensity": 0.25, "probabilities": [0.75, 0.25, 0.0]}
    | {"allowed": [0, 2], "rule": "calm", "failed": ["b"], "policy_version": "v2", "context": [0.1, -0.0]}
    | {"arms": ["a", "b", "e"], "context_names": ["volatility", "age"]}
    | {"proposed": [0.0, 1.0, 0.0], "prediction": 0.1 + 0.2, "reward": 0.5, "truth": 1.0, "metric_profit": -7.5}
    | {"upstream": "", "others": '{"cost":3.0}', "reported": 9.0},
]


def fit(version: str, *arms: str) -> Fit:
    context = {name: Feature(parameter=name) for name in ("volatility", "age")}
    settings = Settings(
        arms={arm: Arm(model=arm) for arm in arms}, context=context, metrics={"pnl": Metric(unit="GBP")}
    )
    return Fit("credit", version, settings_json(settings), np.zeros((len(arms), 3)), 1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    outcomes = [(REWARD, 0.5, 3.0), (TRUTH, 1.0, 9.0), ("profit", -7.5, 4.0), ("cost", 3.0, 5.0)]
    credits = [Credit(Outcome("d2", *outcome)) for outcome in outcomes]
    with closing(SQLiteStore(str(tmp_path / "croupier.db"))) as store:
        decisions = [RICH, PLAIN, Decision("d3", "other", "a", 1.0, 3.5, "v3")]
        store.commit(Batch(decisions, credits, fits=[fit("v1", "a", "b"), fit("v2", "a", "b", "e")]))
        yield store


def read(kind: Kind, written: bytes) -> list[dict]:
    if kind == "jsonl":
        return [json.loads(line) for line in written.splitlines()]
    rows: list[dict] = pyarrow.parquet.read_table(io.BytesIO(written)).to_pylist()
    return rows


def exported(store: Store, kind: Kind, route: str = "credit", **bounds: str) -> list[dict]:
    out = io.BytesIO()
    count = export(store, route, kind, out, metrics=["profit"], **bounds)
    rows = read(kind, out.getvalue())
    assert count == len(rows)
    return rows


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
class TestEveryKind:
    def test_what_is_read_is_what_was_logged(self, store: Store, kind: Kind):
        rows = exported(store, kind)
        assert rows == ROWS
        assert list(rows[0]) == list(rows[1]), "columns are in one order"
        assert repr(rows[1]["context"]) == "[0.1, -0.0]"

    def test_bounds_are_ids_and_belong_to_neither_side(self, store: Store, kind: Kind):
        assert [row["decision"] for row in exported(store, kind, after="d1")] == ["d2"]
        assert [row["decision"] for row in exported(store, kind, before="d2")] == ["d1"]
        assert exported(store, kind, after="d1", before="d2") == []

    def test_a_route_without_decisions_has_no_rows(self, store: Store, kind: Kind):
        assert exported(store, kind, "nobody") == []

    def test_more_rows_than_are_held_at_a_time(self, kind: Kind):
        store = MemoryStore()
        ids = [f"{n:06}" for n in range(12_001)]
        store.commit(Batch([Decision(id, "credit", "a", 1.0, 0.0, "v") for id in ids]))
        assert [row["decision"] for row in exported(store, kind)] == ids

    def test_the_log_is_written_as_it_is_read(self, kind: Kind):
        """Whoever reads the log in pages holds a page, and not the log, in memory."""
        out = io.BytesIO()
        written = []

        class Watched(MemoryStore):
            def log(self, route, *, after=""):
                for n in range(30_000):
                    written.append(out.tell())
                    yield Decision(f"{n:06}", route, "a", 1.0, 0.0, "v"), {}

        export(Watched(), "credit", kind, out)
        assert 0 < written[10_000] < written[20_000] < written[29_999]


def test_what_json_lacks_is_null_in_its_lines_and_itself_in_parquet():
    store = MemoryStore()
    store.commit(Batch([Decision("d1", "credit", "a", 1.0, 0.0, "v", context=(np.nan, np.inf), prediction=-np.inf)]))
    (line,), (row,) = exported(store, "jsonl"), exported(store, "parquet")
    assert (line["context"], line["prediction"]) == ([None, None], None)
    assert (str(row["context"]), row["prediction"]) == ("[nan, inf]", -np.inf)


def test_more_arms_than_an_integer_has_bits_may_be_allowed():
    store = MemoryStore()
    store.commit(Batch([Decision("d1", "credit", "a", 1.0, 0.0, "v", allowed=1 << 100 | 2)]))
    assert [exported(store, kind)[0]["allowed"] for kind in ("jsonl", "parquet")] == [[1, 100], [1, 100]]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_have_the_names_of_then_also_after_arms_were_renamed(kind: Kind):
    store = MemoryStore()
    plain = msgspec.structs.replace(PLAIN, probabilities=(0.75, 0.25), context=(0.5, 30.0))
    known = [msgspec.structs.replace(plain, id=f"d{n}", policy_version=f"v{n}") for n in range(3)]
    store.commit(Batch(known, fits=[fit("v0", "a", "b"), fit("v1", "a", "c")]))
    rows = exported(store, kind)
    assert [row["arms"] for row in rows] == [["a", "b"], ["a", "c"], None], "v2 is forgotten"
    assert [row["context_names"] for row in rows] == [["volatility", "age"]] * 2 + [None]


def test_the_metrics_of_a_route_that_is_served_no_more_are_those_of_its_newest_decision(store: Store):
    assert metrics_of(store, "credit", None) == ["pnl"]
    served = Settings(arms={"a": Arm(model="a")}, metrics={"cost": Metric(unit="GBP")})
    assert metrics_of(store, "credit", served) == ["cost"]
    assert metrics_of(store, "other", None) == [], "what v3 was is not known"
    assert metrics_of(store, "nobody", None) is None
    assert metrics_of(store, "nobody", served) == ["cost"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-23", first_id(1795392000.0)),
        ("2026-11-23T14:30", first_id(1795444200.0)),
        ("2026-11-23T14:30:00+02:00", first_id(1795437000.0)),
        ("019" + "a" * 29, "019" + "a" * 29),
    ],
)
def test_a_bound_is_a_time_or_a_decision(text: str, meant: str):
    assert bound(text) == meant


@pytest.mark.parametrize("text", ["yesterday", "14:30", "2026-13-01", "d1"])
def test_nothing_else_is_a_bound(text: str):
    with pytest.raises(ValueError, match=r"isoformat|must be in"):
        bound(text)


def test_a_part_of_the_log_of_a_route_that_is_in_the_file_no_more_is_exported(
    store: Store, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    path = tmp_path / "routes.yaml"
    path.write_text("{routes: {new: {arms: {a: {target: host:1, model: m}}}}, store: 'sqlite:croupier.db'}")
    ids = [first_id(1795392000.0 + 60 * n) + "0" * 20 for n in range(3)]
    store.commit(Batch([msgspec.structs.replace(RICH, id=id) for id in ids]))

    def told(*bounds: str) -> list[str]:
        assert main(["export-log", str(path), "credit", *bounds]) == 0
        lines = capfdbinary.readouterr().out.splitlines()
        return [json.loads(line)["decision"] for line in lines]

    assert told() == [*ids, "d1", "d2"]
    assert told("--after", "2026-11-23T00:01", "--before", "2027-01-01") == ids[1:]
    assert told("--after", ids[0], "--before", ids[2]) == [ids[1]]
    assert main(["export-log", str(path), "credit", "--after", "noon"]) == 1
    assert b"--after: 'noon' is neither a time" in capfdbinary.readouterr().err


def test_without_the_package_it_is_said_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FailedPrecondition, match=r"package 'pyarrow': pip install 'croupier\[parquet\]'"):
        exported(store, "parquet")
    assert len(exported(store, "jsonl")) == 2


def test_a_file_has_its_name_once_it_is_whole(store: Store, tmp_path: Path):
    class Cut(MemoryStore):
        def log(self, route, *, after=""):
            yield PLAIN, {}
            raise StoreError("cut")

    folder = tmp_path / "exported"
    folder.mkdir()
    with pytest.raises(StoreError), whole_file(folder / "log.parquet") as out:
        export(Cut(), "credit", "parquet", out)
    assert list(folder.iterdir()) == []
    with whole_file(folder / "log.parquet") as out:
        export(store, "credit", "parquet", out)
    assert [path.name for path in folder.iterdir()] == ["log.parquet"]
    assert pyarrow.parquet.read_table(folder / "log.parquet").num_rows == 2


def test_a_time_is_a_bound_between_the_ids_before_and_after_it():
    now = 1_700_000_000.125
    clock = iter([now - 0.001, now, now + 0.001])
    ids = DecisionIds(lambda: next(clock), bytes(6))
    before, at, later = (ids()[0] for _ in range(3))
    assert before < first_id(now) < at < first_id(now + 0.001) < later
    assert first_id(-1.0) == "0" * 12
