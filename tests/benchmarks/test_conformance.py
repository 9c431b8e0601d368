"""A part of the table against both servers, and proof that a difference would be found."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from benchmarks.conformance import rest, rpc
from benchmarks.conformance.__main__ import broken, compared, report
from benchmarks.conformance.answers import SENTENCE, Answer, client
from benchmarks.conformance.compare import differences, judged
from benchmarks.conformance.known import EVERYWHERE, NAN, RELOADED
from benchmarks.conformance.language import Known, case, get
from benchmarks.conformance.servers import ours, stock
from benchmarks.conformance.table import TOPICS, part

FINE = Answer("200", {"content-type": "application/json"}, {"name": "m", "outputs": [{"data": [1, 2]}]})
REFUSED = Answer("422", {}, SENTENCE)


class Mutated:
    """Asks, and changes the answers."""

    def __init__(self, asked, change):
        self.asked = asked
        self.change = change

    def ask(self, request):
        return [self.change(each) for each in self.asked.ask(request)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")
    with ExitStack() as stack:
        targets = [stack.enter_context(start(tmp_path_factory.mktemp(start.__name__))) for start in (stock, ours)]
        yield [stack.enter_context(client(target)) for target in targets]


def test_a_part_of_the_table_holds(servers):
    verdicts = compared(part({name: TOPICS[name] for name in TOPICS if name != "gRPC: batches"}, 3), *servers)
    assert broken(verdicts, whole=False) == []
    assert "health: 3 asked" in report(verdicts)


def test_a_status_that_changes_is_found_out(servers):
    theirs, mine = servers
    wrong = Mutated(mine, lambda answer: replace(answer, status="201"))
    (said,) = broken(compared({"names": rest.NAMES[:1]}, theirs, wrong), whole=False)
    assert said == "names, two inputs, all outputs: not listed: status: 200 -> 201"


def test_a_value_that_changes_is_found_out(servers):
    theirs, mine = servers

    def twice(answer):
        (output,) = answer.body["outputs"]
        doubled = {**output, "data": [2 * value for value in output["data"]]}
        return replace(answer, body={**answer.body, "outputs": [doubled]})

    unsigned = [each for each in rest.DATATYPES if each.name == "UINT8 at its edges"]
    (said,) = broken(compared({"datatypes": unsigned}, theirs, Mutated(mine, twice)), whole=False)
    assert said == "datatypes, UINT8 at its edges: not listed: outputs[0].data: [0, 255] -> [0, 510]"


def test_a_fault_of_theirs_that_is_mended_is_found_out(servers):
    theirs, mine = servers
    nan = [each for each in rpc.DATATYPES if NAN in each.differs]
    assert broken(compared({"datatypes": nan}, theirs, mine), whole=False) == []
    said = broken(compared({"datatypes": nan}, mine, mine), whole=False)
    assert said == [f"datatypes, {each.name}: listed, and not there: {NAN.why}" for each in nan]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"status": "201"}, "status: 200 -> 201"),
        ({"headers": {}}, "header content-type: application/json -> nothing"),
        ({"headers": FINE.headers | {"retry-after": "1"}}, "header retry-after: nothing -> 1"),
        ({"body": None}, "body: {'name': 'm', 'outputs': [{'data': [1, 2]}]} -> None"),
        ({"body": FINE.body | {"id": "7"}}, "id: nothing -> 7"),
        ({"body": {"name": "m", "outputs": []}}, "outputs: 1 -> 0 of them"),
        ({"body": {"name": "m", "outputs": [{"data": [1, 2.0]}]}}, "outputs[0].data: [1, 2] -> [1, 2.0]"),
        ({"body": {"name": "m", "outputs": [{"data": [True, 2]}]}}, "outputs[0].data: [1, 2] -> [True, 2]"),
    ],
)
def test_a_difference_says_where_it_is(changed, said):
    assert differences([FINE], [FINE]) == []
    assert differences([FINE], [replace(FINE, **changed)]) == [said]


def test_a_refusal_of_ours_needs_a_sentence():
    wordless = replace(REFUSED, body="text/plain")
    assert differences([FINE], [REFUSED]) == ["status: 200 -> 422"]
    assert differences([FINE], [wordless]) == ["status: 200 -> 422", "refusal: {error} -> text/plain"]
    assert differences([REFUSED], [wordless]) == ["refusal: {error} -> text/plain"]


def test_calls_that_go_together_are_told_apart():
    assert differences([FINE, FINE], [FINE, REFUSED]) == ["call 1 status: 200 -> 422"]


def test_a_difference_is_known_unlisted_or_gone():
    asked = case("a case", get("/"), RELOADED)
    verdict = judged(asked, ["status: 400 -> 422", "id: 7 -> 8"], [])
    assert verdict.unlisted == ["id: 7 -> 8"]
    assert verdict.gone == []
    assert judged(asked, [], []).gone == [RELOADED]
    anywhere = Known("why", ("outputs[0].*: * -> *",))
    assert judged(asked, ["outputs[0].id: 7 -> 8", "outputs[1].id: 7 -> 8"], [anywhere]).unlisted == [
        "outputs[1].id: 7 -> 8"
    ]


def test_a_difference_of_many_answers_is_missed_in_the_whole_table_alone():
    verdicts = {"topic": [judged(case("a case", get("/")), ["id: (made up) -> nothing"], EVERYWHERE)]}
    assert broken(verdicts, whole=False) == []
    assert len(broken(verdicts, whole=True)) == len(EVERYWHERE) - 1


def test_no_two_cases_of_a_topic_have_one_name():
    for topic, cases in TOPICS.items():
        assert len({each.name for each in cases}) == len(cases), topic
