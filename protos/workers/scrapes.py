"""What several processes have counted, as if one had.

Counters, histograms and summaries are added up. So are gauges, most of which count something too, but for those of
which the program says that the greatest counts: where every process says the same, or there is no sense in a sum.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from protos.metrics import leave_out

PROCESS = frozenset({"process_max_fds", "process_start_time_seconds", "python_info"})
"""The gauges of every Python process of which the greatest counts."""

_COUNTED = {"counter", "histogram", "summary"}

_Series = tuple[str, tuple[tuple[str, str], ...]]


class Scraped(Collector):
    """Metrics in Prometheus' text format, added up; of the gauges named `greatest` and of PROCESS, the greatest."""

    def __init__(self, greatest: Collection[str] = ()) -> None:
        self._greatest = PROCESS.union(greatest)
        self._families: dict[str, Metric] = {}
        self._values: dict[str, dict[_Series, float]] = {}

    @classmethod
    def of(cls, *texts: bytes, greatest: Collection[str] = ()) -> Scraped:
        """What these texts say together."""
        scraped = cls(greatest)
        for text in texts:
            scraped.add(text)
        return scraped

    def add(self, text: bytes) -> None:
        """Adds what one process says, but metrics that cannot be read."""
        for family in _families(text.decode()):
            self._families.setdefault(family.name, family)
            values = self._values.setdefault(family.name, {})
            together = self._rule(family.name)
            for sample in family.samples:
                series = (sample.name, tuple(sample.labels.items()))
                values[series] = together(values[series], sample.value) if series in values else sample.value

    def add_counts(self, gone: Scraped) -> None:
        """Adds what processes that are gone had counted, in series that are still there: counters never fall."""
        for name, values in self._values.items():
            if self._families[name].type in _COUNTED:
                before = gone.values_of(name)
                for series in values:
                    values[series] += before.get(series, 0.0)

    def values_of(self, name: str) -> Mapping[_Series, float]:
        """The series of a family, by their sample's name and labels."""
        return self._values.get(name, {})

    def text(self) -> bytes:
        """The sum in the text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            total = Metric(name, family.documentation, family.type)
            for (sample, labels), value in self._values[name].items():
                total.add_sample(sample, dict(labels), value)
            yield total

    def _rule(self, name: str) -> Callable[[float, float], float]:
        if name.endswith("_created"):  # when counting began
            return min
        return max if name in self._greatest else operator.add


def _families(text: str) -> list[Metric]:
    """What can be read of a text that `generate_latest` wrote."""
    try:
        return list(text_string_to_metric_families(text))
    except ValueError as error:
        _, first, *others = re.split(r"^(?=# HELP )", text, flags=re.MULTILINE)
        if others:
            return [family for each in (first, *others) for family in _families(each)]
        leave_out(text.split(maxsplit=3)[2], error)
        return []
