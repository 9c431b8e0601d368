"""What was acknowledged is kept: the server is killed in the middle of its work and started again on the same file."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing

import grpc
import pytest

from protos.errors import Code
from router import Client
from router.call import REWARD
from router.client import Earned
from router.stores import DECISIONS, open_store
from tests.e2e.calls import ROWS
from tests.e2e.conftest import ARMS
from tests.process import Router, until, write_config

LEARNING, STRICT = "learning", "strict"
ROUTES = {
    LEARNING: {"policy": {"kind": "thompson"}, "arms": ARMS},
    STRICT: {"policy": {"kind": "thompson"}, "arms": ARMS, "strict_log": True},
}
CUSTOMERS = 4
ENOUGH = 200  # acknowledged rewards, then the server is killed
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # their sums are exact


class Customer(threading.Thread):
    """Asks and reports until nobody answers, and writes down what it was told."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self.answers = {}  # by decision; what the client was told
        self.sent = {}  # the rewards it tried to report, by decision
        self.acknowledged = set()
        self.kept = []  # decisions without a reward that are committed, for one made later has its reward
        self.strict = []  # decisions of the strict route, without a reward: committed before they were answered

    def run(self):
        with Client(self.address) as client:
            try:
                while True:
                    self.work(client)
            except grpc.RpcError:
                return  # the server is gone

    def work(self, client):
        unrewarded = client.infer(LEARNING, {"x": ROWS})
        self.answers[unrewarded.decision] = unrewarded
        strict = client.infer(STRICT, {"x": ROWS})
        self.answers[strict.decision] = strict
        self.strict.append(strict.decision)
        answer = client.infer(LEARNING, {"x": ROWS})
        self.answers[answer.decision] = answer
        self.sent[answer.decision] = FRACTIONS[len(self.sent) % len(FRACTIONS)]
        client.reward(answer.decision, self.sent[answer.decision])
        self.acknowledged.add(answer.decision)
        self.kept.append(unrewarded.decision)


@pytest.fixture(scope="module")
def config(models, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("killed"), ROUTES, models=str(models))


@pytest.fixture(scope="module")
def customers(config):
    """Those whose server was killed."""
    with Router(config, config.parent / "first") as router:
        customers = [Customer(router.address) for _ in range(CUSTOMERS)]
        for customer in customers:
            customer.start()
        until(lambda: sum(len(customer.acknowledged) for customer in customers) >= ENOUGH)
        router.kill()
        for customer in customers:
            customer.join()
    return customers


@pytest.fixture(scope="module")
def left(config, customers):
    """Log and sums of both routes, as the killed server left them."""
    return {route: read(config, route) for route in ROUTES}


@pytest.fixture(scope="module")
def restarted(config, left):
    with Router(config, config.parent / "second") as router, Client(router.address) as client:
        yield client
        client.close()
        assert router.stop() == 0


def read(config, route):
    """A route's log by decision, and its sums as lists."""
    with closing(open_store(f"sqlite:{config.parent / 'croupier.db'}")) as store:
        log = {decision.id: (decision, reward) for decision, reward in store.log(route)}
        return log, {key: row.tolist() for key, row in store.sums(route).items()}


def together(customers, field):
    """All that the customers have under a name, as one dict or one list."""
    if isinstance(getattr(customers[0], field), dict):
        return {key: value for customer in customers for key, value in getattr(customer, field).items()}
    return [each for customer in customers for each in getattr(customer, field)]


def check_sums(log, sums):
    """Every decision and every reward of the log is in the sums, once."""
    decisions = Counter(decision.arm for decision, _ in log.values())
    for arm in ARMS:
        values = [of[REWARD].value for decision, of in log.values() if REWARD in of and decision.arm == arm]
        assert sums[DECISIONS, arm] == [decisions[arm]]
        tally = [len(values), sum(values), sum(value * value for value in values)]
        layouts = [layout for layout, _ in sums if layout == REWARD or layout.startswith("policy:")]
        assert len(set(layouts)) == 2
        for layout in layouts:
            assert sums.get((layout, arm), [0, 0, 0]) == tally


def test_every_acknowledged_reward_is_there_once(customers, left):
    """And beside them at most those whose acknowledgement was on its way."""
    log, sums = left[LEARNING]
    sent, acknowledged = together(customers, "sent"), together(customers, "acknowledged")
    rewarded = {id: of[REWARD].value for id, (_, of) in log.items() if REWARD in of}
    assert len(acknowledged) >= ENOUGH
    assert rewarded.keys() >= set(acknowledged)
    assert len(rewarded) - len(acknowledged) <= CUSTOMERS
    assert rewarded == {id: sent[id] for id in rewarded}
    check_sums(log, sums)


def test_the_log_says_what_the_clients_were_told(customers, left):
    for answer in together(customers, "answers").values():
        for log, _ in left.values():
            if answer.decision in log:
                decision, _ = log[answer.decision]
                assert (decision.arm, decision.propensity) == (answer.arm, answer.propensity)


def test_a_decision_of_a_strict_route_was_kept_before_it_was_answered(customers, left):
    log, _ = left[STRICT]
    assert log.keys() >= set(together(customers, "strict"))


def test_a_decision_from_before_takes_its_reward_afterwards(config, customers, restarted):
    log, _ = read(config, LEARNING)
    kept = together(customers, "kept")
    assert log.keys() >= set(kept)
    decisions = kept + together(customers, "strict")
    outcomes = restarted.rewards([Earned(decision, 1.0) for decision in decisions]).outcomes
    answers = together(customers, "answers")
    assert [(outcome.code, outcome.arm) for outcome in outcomes] == [(0, answers[id].arm) for id in decisions]
    for route in ROUTES:
        check_sums(*read(config, route))


def test_all_rewards_sent_again_change_nothing(config, customers, restarted):
    """Also with other values: the first one stands."""
    acknowledged = together(customers, "acknowledged")
    before = read(config, LEARNING)
    outcomes = restarted.rewards([Earned(decision, 0.125) for decision in acknowledged]).outcomes
    assert {Code(outcome.code) for outcome in outcomes} == {Code.ALREADY_EXISTS}
    with pytest.raises(grpc.RpcError) as refused:
        restarted.reward(acknowledged[0], 0.125)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert read(config, LEARNING) == before


def test_what_was_learnt_is_known_again(config, restarted):
    """The restarted server draws by the rewards of both lives, and learns on."""
    with closing(open_store(f"sqlite:{config.parent / 'croupier.db'}")) as store:
        sums = store.sums(LEARNING)
    described = restarted.describe(LEARNING)
    for arm in described.arms:
        assert (arm.reward.n, arm.reward.sum) == tuple(sums[REWARD, arm.name][:2])
    answer = restarted.infer(LEARNING, {"x": ROWS})
    assert answer.propensity != 0.5
    restarted.reward(answer.decision, 1.0)
    until(lambda: restarted.describe(LEARNING).policy_version != described.policy_version)
