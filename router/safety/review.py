"""One look at a route: what its guardrails and its canary come to, agreed between the replicas.

Any replica may look at any time. What it finds it writes as a document, by compare-and-set: the one that was first has
done it, and the event that says so is written with the document; the others find it done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.call import Event
from router.config.reward import Range
from router.config.safety import AnyGuardrail, Canary
from router.safety import canary as canaries
from router.safety import switches
from router.safety.events import event
from router.safety.guardrails import Finding, Sums, Watch, judge, standing
from router.safety.switches import ROUTE, Switch
from router.stores import Store

_TOLD = "told:{}"  # kind of the documents that say of which broken guardrails people were told


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a route is looked at."""

    name: str
    arms: tuple[str, ...]
    champion: str
    reward: Range
    guardrails: Mapping[str, AnyGuardrail]
    canary: Canary | None = None
    served: str = ""  # digest of what answers for the arms: a canary begins anew when that is another

    @property
    def run(self) -> str:
        """Digest of what the canary runs by; empty without one."""
        return "" if self.canary is None else canaries.digest(self.canary, self.guardrails, self.served)


@dataclass(frozen=True, slots=True)
class Standing:
    """What replicas have agreed on about a route."""

    switches: Mapping[str, Switch]
    canary: canaries.State | None
    watches: tuple[Watch, ...]  # to be counted for from now on


def review(store: Store, subject: Subject, sums: Sums, *, version: str, now: float) -> Standing:
    """Judges a route by its sums, writes down what follows, with the events that say so, and returns how it stands.

    `version` is that of the policy now, with which the route stays if it is frozen. Raises StoreError.
    """
    looked = _Look(store, subject, version, now)
    for watch in watches_of(subject, looked.switches, looked.state):
        for finding in judge(watch, sums, subject.arms):
            if finding.broken:
                looked.act(watch, finding)
    looked.advance(sums)
    return Standing(looked.switches, looked.state, watches_of(subject, looked.switches, looked.state))


def agreed(store: Store, subject: Subject) -> tuple[canaries.State | None, int]:
    """How far the canary has come, and the stamp of the document that says so: None and 0 where it is yet to begin.

    Raises StoreError, and ValueError for what cannot be read.
    """
    documents = {} if subject.canary is None else store.documents(canaries.kind(subject.name))
    document = documents.get(subject.run)
    return (None, 0) if document is None else (canaries.decode(document.body), document.stamp)


def watches_of(subject: Subject, decided: Mapping[str, Switch], state: canaries.State | None) -> tuple[Watch, ...]:
    """What is to be counted for a route by what was agreed on; a canary that has not begun is none."""
    since = switches.watched_since(decided)
    watches = standing(subject.guardrails, subject.arms, subject.champion, subject.reward, since)
    canary = _canary_watch(subject, state)
    return tuple(watches if canary is None else [*watches, canary])


def _canary_watch(subject: Subject, state: canaries.State | None) -> Watch | None:
    if subject.canary is None or state is None or state.ended:
        return None
    return canaries.watch(subject.canary, subject.guardrails, subject.champion, subject.reward, state.since)


class _Look:
    """The documents of a route while they are looked at."""

    def __init__(self, store: Store, subject: Subject, version: str, now: float) -> None:
        self._store = store
        self._subject = subject
        self._version = version
        self._now = now
        self._stamps: dict[str, int] = {}
        self._read_switches()
        self.state: canaries.State | None = None
        self._canary_stamp = 0
        if subject.canary is not None:
            self._begin(subject.canary)

    def act(self, watch: Watch, finding: Finding) -> None:
        """Does what a broken guardrail says."""
        others = [arm for arm in self._subject.arms if arm != finding.arm]
        if finding.action == "eject" and switches.switched_on(self.switches, others).any():
            if self._is_on(finding.arm):
                self._switch(finding.arm, "ejected", finding)
        elif finding.action == "freeze":
            if self._is_on(ROUTE):
                self._switch(ROUTE, "frozen", finding)
        elif finding.action != "roll_back":  # also of an arm that has nobody to stand in for it
            key = f"{finding.arm}:{finding.name}:{watch.since!r}"
            said = self._said("alert", finding)
            self._store.put(_TOLD.format(self._subject.name), {key: b"1"}, expected=0, events=[said])

    def advance(self, sums: Sums) -> None:
        """Moves the canary."""
        subject = self._subject
        watch, canary = _canary_watch(subject, self.state), subject.canary
        if canary is None or watch is None or self.state is None:
            return
        state, said = canaries.advance(
            canary, watch, self.state, sums, route=subject.name, arms=subject.arms, reward=subject.reward, now=self._now
        )
        if said is not None:
            self._write(state, said)

    def _begin(self, canary: Canary) -> None:
        subject = self._subject
        self.state, self._canary_stamp = agreed(self._store, subject)
        if self.state is None:
            state = canaries.begin(self._now)
            share = canaries.share(canary, state)
            why = f"Step 1 of {len(canary.steps)}, with a share of {share:.4g}."
            numbers = {"share": share}
            said = event(subject.name, "canary_began", arm=canary.arm, why=why, now=self._now, numbers=numbers)
            self._write(state, said)

    def _write(self, state: canaries.State, said: Event) -> None:
        """Writes the canary's state unless another replica was faster; then takes that one's."""
        kind, bodies = canaries.kind(self._subject.name), {self._subject.run: canaries.encode(state)}
        self._store.put(kind, bodies, expected=self._canary_stamp, events=[said])
        self.state, self._canary_stamp = agreed(self._store, self._subject)

    def _is_on(self, key: str) -> bool:
        return key not in self.switches or self.switches[key].state == "on"

    def _switch(self, key: str, state: switches.Position, finding: Finding) -> None:
        version = self._version if state == "frozen" else ""
        switch = Switch(state, finding.name, f"{finding.guardrail}.", self._now, version)
        kind, stamp = switches.kind(self._subject.name), self._stamps.get(key, 0)
        self._store.put(kind, {key: switches.encode(switch)}, expected=stamp, events=[self._said(state, finding)])
        self._read_switches()

    def _read_switches(self) -> None:
        documents = self._store.documents(switches.kind(self._subject.name))
        self.switches = switches.decode(documents)
        self._stamps = {key: document.stamp for key, document in documents.items()}

    def _said(self, kind: str, finding: Finding) -> Event:
        why = f"The guardrail {finding.name} is broken. {finding.guardrail}."
        return event(self._subject.name, kind, arm=finding.arm, why=why, now=self._now, numbers=finding.numbers)
