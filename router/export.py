"""The decision log of a route as JSON lines or as a Parquet file, for whoever asks it questions elsewhere.

One row a decision, in the order of their ids, with what is known of it at that moment. The columns, which in JSON lines
are the keys:

| column | holds |
|---|---|
| decision | its id; ids sort by time |
| time | when it was taken, in seconds since the epoch |
| unit | who it was about; empty: nobody in particular |
| arm | what was chosen |
| propensity | the probability with which that arm was drawn |
| arms | the names of all arms that the route had then |
| probabilities | of each of these arms |
| allowed | places, from 0 on, of those of them that rules and guard allowed; null: all |
| rule | that restricted the choice; empty: none |
| failed | arms that were drawn before this one and did not answer |
| policy_version | what the policy knew then |
| context | the numbers that it read |
| context_names | what each of them is, such as `volatility` or `region=eu` |
| proposed | what the policy would have drawn from, where it only looks on |
| prediction | what the arm answered, where a scoring rule needs it |
| upstream | where a mesh says that it sent the request |
| reward, truth | what became of it; null: nothing is known yet, or nothing counts before its window is over |
| metric_NAME | the metric of that name, one column for each that is asked for |
| others | all other outcomes, as the text of a JSON object; null: there are none |
| reported | when the last of its outcomes was reported, in seconds since the epoch |

A version of a policy that is forgotten has taken the names with it: then they are null, as are those of other versions
of Croupier. JSON has no NaN and no infinity: there, such numbers are null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from protos.errors import FailedPrecondition
from router.call import HELD, REWARD, TRUTH, Decision, Outcome
from router.config import Route as Settings
from router.ids import first_id, time_of
from router.learning.versions import Versions, has_log, last_settings
from router.stores import Store

Kind: TypeAlias = Literal["jsonl", "parquet"]

_ROWS = 5000  # in memory at a time, and in a row group of a Parquet file

Row: TypeAlias = dict[str, Any]


def export(
    store: Store,
    route: str,
    kind: Kind,
    out: IO[bytes],
    *,
    after: str = "",
    before: str = "",
    metrics: Sequence[str] = (),
) -> int:
    """Writes the decisions of a route to `out`, those with ids above `after` and below `before`; returns how many.

    An empty `before` is no bound; `bound` makes one of a time. `metrics` are the names of outcomes that get a
    column. Only some thousand rows are in memory at a time. Raises StoreError, FailedPrecondition when the package for
    Parquet is missing, and OSError.
    """
    versions = Versions()
    log = takewhile(lambda pair: not before or pair[0].id < before, store.log(route, after=after))
    rows = (
        _row(decision, outcomes, metrics, versions(store, route, decision.policy_version)) for decision, outcomes in log
    )
    return _write_parquet(rows, out, metrics) if kind == "parquet" else _write_lines(rows, out)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that has its name only once it is whole: a Parquet file that was cut off looks like one."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def bound(text: str) -> str:
    """What `export` takes for a bound, of a time such as 2026-11-23 or 2026-11-23T14:30, in UTC, or of a decision's id.

    Raises ValueError for another text.
    """
    if time_of(text) is not None:
        return text
    moment = datetime.fromisoformat(text)
    return first_id((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def metrics_of(store: Store, route: str, served: Settings | None) -> list[str] | None:
    """The names of the metrics of a route as it is `served`, or was when its newest decision was taken.

    None when no such route is served and none has a log. Raises StoreError.
    """
    if served is None and not has_log(store, route):
        return None
    settings = served or last_settings(store, route)
    return [] if settings is None else list(settings.metrics)


def _row(decision: Decision, outcomes: Mapping[str, Outcome], metrics: Sequence[str], settings: Settings | None) -> Row:
    outcomes = {name: outcome for name, outcome in outcomes.items() if name != HELD}
    values = {name: outcome.value for name, outcome in outcomes.items()}
    allowed = decision.allowed
    arms, columns = ((), ()) if settings is None else (tuple(settings.arms), settings.schema.columns)
    row: Row = {
        "decision": decision.id,
        "time": decision.time,
        "unit": decision.unit,
        "arm": decision.arm,
        "propensity": decision.propensity,
        "arms": _names(arms, decision.probabilities),
        "probabilities": decision.probabilities,
        "allowed": None if allowed < 0 else [k for k in range(allowed.bit_length()) if allowed >> k & 1],
        "rule": decision.rule,
        "upstream": decision.upstream,
        "failed": decision.failed,
        "policy_version": decision.policy_version,
        "context": decision.context,
        "context_names": _names(columns, decision.context),
        "proposed": decision.proposed,
        "prediction": decision.prediction,
        "reward": values.pop(REWARD, None),
        "truth": values.pop(TRUTH, None),
    }
    row |= {f"metric_{name}": values.pop(name, None) for name in metrics}
    row["others"] = msgspec.json.encode(values).decode() if values else None
    row["reported"] = max((outcome.time for outcome in outcomes.values()), default=None)
    return row


def _names(names: tuple[str, ...], numbers: Sequence[float] | None) -> tuple[str, ...] | None:
    return names if numbers is not None and len(numbers) == len(names) else None


def _write_lines(rows: Iterator[Row], out: IO[bytes]) -> int:
    count = 0
    encoder = msgspec.json.Encoder()
    while page := list(islice(rows, _ROWS)):
        out.write(encoder.encode_lines(page))
        count += len(page)
    out.flush()
    return count


def _write_parquet(rows: Iterator[Row], out: IO[bytes], metrics: Sequence[str]) -> int:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"Parquet needs the package {error.name!r}: pip install 'croupier[parquet]'; JSON lines need nothing"
        ) from error

    number, text, numbers = pa.float64(), pa.string(), pa.list_(pa.float64())
    schema = pa.schema(
        {
            "decision": text,
            "time": number,
            "unit": text,
            "arm": text,
            "propensity": number,
            "arms": pa.list_(text),
            "probabilities": numbers,
            "allowed": pa.list_(pa.int32()),
            "rule": text,
            "upstream": text,
            "failed": pa.list_(text),
            "policy_version": text,
            "context": numbers,
            "context_names": pa.list_(text),
            "proposed": numbers,
            "prediction": number,
            "reward": number,
            "truth": number,
            **{f"metric_{name}": number for name in metrics},
            "others": text,
            "reported": number,
        }
    )
    count = 0
    with closing(ParquetWriter(out, schema, compression="zstd")) as writer:
        while page := list(islice(rows, _ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(page, schema))
            count += len(page)
    return count
