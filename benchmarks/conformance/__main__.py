"""Does it answer as MLServer does? The same requests to both, and every difference with its reason."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill, indent
from typing import Any, Protocol

from benchmarks.conformance.answers import Answer, client
from benchmarks.conformance.compare import Verdict, differences, judged
from benchmarks.conformance.known import EVERYWHERE
from benchmarks.conformance.language import Case, Known, Request
from benchmarks.conformance.servers import ours, stock
from benchmarks.conformance.table import TOPICS, Topics, part

QUICK = 8  # cases of a topic

Verdicts = dict[str, list[Verdict]]


class Asked(Protocol):
    """What answers requests."""

    def ask(self, request: Request) -> list[Answer]:
        """The answers to one request; several calls that go together have one each."""


def compared(topics: Topics, theirs: Asked, ours: Asked) -> Verdicts:
    """Asks two servers everything, both at the same time, and one request after the other."""

    def verdict(case: Case) -> Verdict:
        answer = beside.submit(theirs.ask, case.request)
        mine = ours.ask(case.request)
        return judged(case, differences(answer.result(), mine), EVERYWHERE)

    with ThreadPoolExecutor(1) as beside:
        return {topic: [verdict(case) for case in cases] for topic, cases in topics.items()}


def broken(verdicts: Verdicts, *, whole: bool) -> list[str]:
    """What should not be, in words: differences that nobody knew, and known ones that are there no more.

    Those of many answers are missed only in the whole table.
    """
    seen = {known for each in verdicts.values() for verdict in each for _, known in verdict.seen}
    said = [f"listed, and nowhere to be seen: {each.why}" for each in EVERYWHERE if whole and each not in seen]
    for topic, each in verdicts.items():
        for verdict in each:
            where = f"{topic}, {verdict.case.name}"
            said += [f"{where}: not listed: {line}" for line in verdict.unlisted]
            said += [f"{where}: listed, and not there: {known.why}" for known in verdict.gone]
    return said


def report(verdicts: Verdicts) -> str:
    """For each topic how many answers are the same, and each difference with its reason and where it is seen."""
    lines = []
    often: Counter[Known] = Counter()
    asked = same = 0
    for topic, each in verdicts.items():
        where: dict[tuple[str, str], list[str]] = {}
        for verdict in each:
            for seen, why in _own(verdict):
                where.setdefault((seen, why), []).append(verdict.case.name)
            often.update({known for _, known in verdict.seen if known})
        differ = len({name for names in where.values() for name in names})
        lines.append(f"{topic}: {len(each)} asked, {len(each) - differ} the same, {differ} differ")
        asked, same = asked + len(each), same + len(each) - differ
        for (seen, why), names in where.items():
            lines += [f"  {seen}  ({why})", indent(fill("; ".join(names), 112), "    ")]
    lines.append(f"{asked} asked, {same} the same but for what is seen in many answers")
    lines += [f"  {known.seen[0]}  ({known.why}): {often[known]}" for known in EVERYWHERE if often[known]]
    return "\n".join(lines)


def _own(verdict: Verdict) -> list[tuple[str, str]]:
    """The differences of one case, with their reasons; of several with one reason the first stands for all."""
    lines: dict[Known | None, list[str]] = {}
    for line, known in verdict.seen:
        if known not in EVERYWHERE:
            lines.setdefault(known, []).append(line)
    told = [(line, "NOT LISTED") for line in lines.pop(None, [])]
    for known, seen in lines.items():
        more = f", and {len(seen) - 1} more" if len(seen) > 1 else ""
        told.append((seen[0] + more, known.why if known else ""))
    return told


def main() -> int:
    """Prints the table; returns 1 when a difference is not listed, or a listed one is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} requests of each topic")
    parser.add_argument("--json", action="store_true", help="print the differences for a program")
    arguments = parser.parse_args()
    topics = part(TOPICS, QUICK) if arguments.quick else TOPICS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = [stack.enter_context(start(folder / start.__name__)) for start in (stock, ours)]
        theirs, mine = [stack.enter_context(client(target)) for target in targets]
        verdicts = compared(topics, theirs, mine)
    wrong = broken(verdicts, whole=not arguments.quick)
    if arguments.json:
        print(json.dumps({"answers": _told(verdicts), "broken": wrong}))
    else:
        print(report(verdicts))
        for each in wrong:
            print(f"not as it should be: {each}")
    return int(bool(wrong))


def _told(verdicts: Verdicts) -> list[dict[str, Any]]:
    return [
        {
            "topic": topic,
            "case": verdict.case.name,
            "differences": [{"seen": line, "why": known and known.why} for line, known in verdict.seen],
            "gone": [known.why for known in verdict.gone],
        }
        for topic, each in verdicts.items()
        for verdict in each
    ]


if __name__ == "__main__":
    sys.exit(main())
