"""One device in one call: its facts, its own state as they came, and what may follow.

The state here is for what cannot wait until all is known: notices, and suspicion. What is told of a
call is read from the facts (`accounts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from cti_listener.records import State
from cti_listener.trackers import steps
from cti_listener.trackers.facts import (
    INFERRED,
    SECOND,
    TOLD,
    Fact,
    Moment,
    ends_in,
    in_order,
    said_in,
)
from cti_listener.trackers.states import (
    AFTER,
    BEGINNINGS,
    ENDINGS,
    MAY_FOLLOW,
    OTHERS_MAY,
    OTHERS_MOVES,
    OWN_MOVES,
    RANKS,
    after_others,
)
from cti_listener.trackers.steps import Step
from cti_listener.values import NO_CALL, EventKey

_HOLDS: Final = frozenset({steps.HELD, steps.RETRIEVED})
_NO_HOLD: Final = frozenset({steps.RETRIEVED, steps.CONNECTION_CLEARED})

SETTLED: Final = 2**31
"""The epoch of a leg that is over: what is missed later is not of it."""

FAR: Final = timedelta(seconds=60)
"""What is so far behind the latest step is not late: the server's clock was set back."""

SOON: Final = timedelta(seconds=30)
"""An agent's work that begins within so long after a call is work after that call."""

NO_TIME: Final = timedelta()

EARLIEST: Final = timedelta(seconds=-2)
"""What begins so long before its end still counts as after it."""

_CALLING: Final = frozenset({steps.SERVICE_INITIATED, steps.ORIGINATED})
_GOING_ON: Final = frozenset({steps.ESTABLISHED, *_HOLDS})
"""What a device does in a call only if it is in it."""

_CALLED: Final = frozenset({steps.DELIVERED, steps.ESTABLISHED})
"""What makes of a device the one who calls, or is called, if it is its own step."""

_BROUGHT: Final = {steps.TRANSFERRED: "to", steps.CONFERENCED: "added"}
"""By what another device comes into a call, and which one that says."""

_QUEUE: Final = TOLD[steps.DELIVERED].index("queue")

Substance: TypeAlias = tuple[Any, ...]
"""What a record is told anew for, if it has changed: kept instead of the record, which is seven
times as large; the user data, last, as facts keep them."""

_NO_STEP: Final[frozenset[Step]] = frozenset()


def begins_anew(fact: Fact, device: str, hung_up: Moment | None, *, given_up: bool) -> bool:
    """Tell whether what came behind the end of a call has it go on at a device.

    Args:
        fact: What came.
        device: Where.
        hung_up: When that hung up; None: it was over otherwise.
        given_up: Nobody said that it had ended.
    """
    if given_up:
        return fact[2] not in ENDINGS
    if fact[2] == steps.TRANSFERRED:  # to it, after a consultation, of which it may have heard
        said = said_in(fact, device.partition("@")[2])
        return said.get("to") == device and said.get("secondary", fact[6]) not in (NO_CALL, fact[6])
    if fact[3] != device:
        return False
    # Its beginning was missed, unless it was overtaken: that is of before, or was counted before.
    if fact[2] in _GOING_ON and hung_up is not None:
        return fact[0] - hung_up[0] > SECOND and fact[1] > hung_up[1] >= 0
    return fact[2] in BEGINNINGS


def set_back(latest: Moment, moment: Moment, *, doubted: bool = False) -> bool:
    """Tell whether what was counted behind the latest is of well before it.

    Args:
        latest: When that was.
        moment: When this was.
        doubted: It has been so before, or may have: any difference will do.
    """
    if not moment[1] > latest[1] >= 0:
        return False
    return latest[0] - moment[0] > (NO_TIME if doubted else SECOND)


class Leg:
    """One device in one call.

    Attributes:
        device: Whose it is, as a full id.
        call: The call's id, as it is valid now.
        former: Ids it had before.
        namespace: As its events have it.
        facts: What its events said, as they came.
        state: The device's own state.
        latest: The latest step; what is older changes no state.
        sign: When its last event came, by our clock.
        epoch: How often anything had been missed when it began.
        uncertain: Something of it may have been missed, or cannot be.
        begun: It has been told that it began.
        calls: Whether the device calls (True) or is called; None: nothing told yet.
        answered: It has been told that it was answered.
        adopted: The state that a snapshot told it has, until an event of its own.
        holds: Whether the device put it on hold, and nothing was missed since.
        hung_up: When the device did so first.
        handed: By whom and to whom it has been told to be handed over.
        given: What the device that handed it over, or called this one in, knew of it, by name, if
            that is one of ours.
        ended: It is over.
        told: How often its record has been told.
        substance: What its record came to when it was told last, if anybody wants records.
        agent: Who sat there when it was answered, or ended.
        allocated: Since when the agent had been set aside for it, when it rang; None: for none.
        consults: Calls this device made to talk about it.
        original: The call that it is about.
        original_told: That was told, not guessed.
        merged_into: The conference into which it went, and when.
        expired: When it was given up: its last sign, by the server's clock.
        wrap_up: For how long the agent worked after it, in seconds, and the events that tell it.
    """

    __slots__ = (
        "adopted",
        "agent",
        "allocated",
        "answered",
        "begun",
        "call",
        "calls",
        "consults",
        "device",
        "ended",
        "epoch",
        "expired",
        "facts",
        "former",
        "given",
        "handed",
        "holds",
        "hung_up",
        "latest",
        "merged_into",
        "namespace",
        "original",
        "original_told",
        "sign",
        "state",
        "substance",
        "told",
        "uncertain",
        "wrap_up",
    )

    def __init__(self, device: str, call: str, namespace: str | None, epoch: int) -> None:
        """Begin with nothing known of it."""
        self.device = device
        self.call = call
        self.namespace = namespace
        self.epoch = epoch
        self.former: tuple[str, ...] = ()
        self.facts: list[Fact] = []
        self.state: State | None = None
        self.adopted: State | None = None
        self.latest: Fact | None = None
        self.sign: datetime
        self.uncertain = self.begun = self.answered = self.ended = False
        self.holds = False
        self.allocated: Moment | None = None
        self.calls: bool | None = None
        self.hung_up: Moment | None = None
        self.handed: tuple[str | None, str | None] | None = None
        self.given: dict[str, Any] | None = None
        self.told = 0
        self.substance: Substance | None = None
        self.agent: str | None = None
        self.consults: tuple[str, ...] = ()
        self.original: str | None = None
        self.original_told = False
        self.merged_into: tuple[str, datetime] | None = None
        self.expired: datetime | None = None
        self.wrap_up: tuple[float, tuple[EventKey, ...]] | None = None

    def __repr__(self) -> str:
        return f"<Leg {self.device} in {self.call} {self.state}, {len(self.facts)} facts>"

    def put_right(self, fact: Fact) -> Fact:
        """Return a fact that is of well before others; of then, if it was counted behind those.

        The server's clock was set back, or two count. By a second they may differ all the same.
        """
        if self.latest is None or fact[0] >= self.latest[0]:
            return fact
        doubted, moment = self.uncertain, fact[:2]
        before = [one[0] for one in self.facts if set_back(one[:2], moment, doubted=doubted)]
        if not before:
            return fact
        self.uncertain = True
        return max(before), *fact[1:]

    def is_late(self, fact: Fact) -> bool:
        """Tell whether a later step than this is known; one of long before it is none."""
        latest = self.latest
        if latest is None or fact[0] > latest[0]:
            return False
        if fact[0] == latest[0] and fact[1:3] >= latest[1:3]:
            return False
        if latest[0] - fact[0] <= FAR:
            return True
        self.uncertain = True  # the server's clock was set back
        return False

    def is_begun_anew_by(self, fact: Fact) -> bool:
        """Tell whether the device comes back into a call that it was out of."""
        if not self.was_over_before(fact):
            return False
        return begins_anew(fact, self.device, self.hung_up, given_up=self.expired is not None)

    def was_over_before(self, fact: Fact) -> bool:
        """Tell whether the device was out of it before this, as far as is known."""
        end = self.end
        return end is not None and fact[:2] > end

    def is_whose_sits_there_at(self, time: datetime) -> bool:
        """Tell whether it was answered then or later; if it was not answered, ended, of nobody."""
        answers = [fact[0] for fact in self.facts if fact[2] == steps.ESTABLISHED]
        if answers:
            return min(answers) >= time
        end = self.end
        return self.ended and self.agent is None and end is not None and end[0] >= time

    @property
    def end(self) -> Moment | None:
        """When the device hung up first, or if that is not known, its latest step."""
        if self.hung_up is not None or not self.facts:
            return self.hung_up
        return (self.latest or self.facts[-1])[:2]

    def _note_hang_up(self, fact: Fact) -> None:
        moment = fact[:2]
        if self.hung_up is None or moment < self.hung_up:
            self.hung_up = moment

    def came_back_at(self, fact: Fact) -> Moment | None:
        """Return when the device began it anew behind this hang-up, which so came late.

        Within a second nobody dials again, but it may ring again.
        """
        behind = [one for one in self.facts if one[3] == self.device and one[:2] > fact[:2]]
        again = (
            one[:2]
            for one in behind
            if one[2] == steps.DELIVERED or (one[2] in BEGINNINGS and one[0] > fact[0])
        )
        return min(again, default=None)

    def part_with(self, begun: Moment) -> list[Fact]:
        """Give away what is of another stay in the call, which has begun then, in order."""
        behind = [one for one in self.facts if one[:2] >= begun]
        if behind:
            self.facts = [one for one in self.facts if one[:2] < begun]
            self.latest = max(self.facts, key=in_order)
            if self.hung_up is not None and self.hung_up >= begun:
                self.hung_up = None
        return sorted(behind, key=in_order)

    def is_before(self, time: datetime) -> bool:
        """Tell whether the device was out of the call then, and not for long."""
        end = self.end
        return end is not None and EARLIEST <= time - end[0] <= SOON

    def refuses(self, fact: Fact) -> frozenset[Step]:
        """Return what could have followed if this step cannot; else nothing."""
        state, step = self.state, fact[2]
        if fact[3] == self.device:
            allowed = MAY_FOLLOW[state]
        elif state is None and not self._is_called_by(fact):
            return MAY_FOLLOW[None]
        else:
            allowed = OTHERS_MAY[state]
        return _NO_STEP if step in allowed else allowed

    def hears(self, fact: Fact, now: datetime) -> bool:
        """Take what is as it should be, if it is: the quick way of most events.

        So is a step that may follow in a call that goes on, and one that begins it at the device.
        """
        before, step = self.state, fact[2]
        # It has a state once it has begun: one without the other needs a closer look.
        if self.ended or self.adopted is not None or self.begun is (before is None):
            return False
        own = fact[3] == self.device
        state = (OWN_MOVES if own else OTHERS_MOVES)[before].get(step)
        latest = self.latest
        if state is None or (latest is not None and fact[:3] < latest[:3]):
            return False
        self.facts.append(fact)
        self.latest, self.sign, self.state = fact, now, state
        if own:
            if step == steps.CONNECTION_CLEARED:
                self._note_hang_up(fact)
            elif step == steps.HELD:
                self.holds = True
        if self.calls is None:
            self._note_who_calls(fact)
        return True

    def take(self, fact: Fact, *, late: bool) -> None:
        """Keep a fact, and move to the state it leads to unless a later step is known."""
        self.facts.append(fact)
        if self.calls is None:
            self._note_who_calls(fact)
        if fact[2] == steps.CONNECTION_CLEARED and fact[3] == self.device:
            self._note_hang_up(fact)
        if late:
            return
        self.latest = fact
        step = fact[2]
        if fact[3] == self.device:
            self.holds = self.holds or step == steps.HELD
            self.state = AFTER.get(step, self.state)
        else:
            rings = self.calls and step == steps.DELIVERED
            self.state = after_others(self.state, step) or ("initiated" if rings else "connected")

    def adopt(self, facts: Iterable[Fact], state: State, now: datetime) -> None:
        """Keep what a snapshot says; nothing is late because of it."""
        latest = self.latest
        for fact in facts:
            self.take(fact, late=False)
        self.latest, self.sign, self.uncertain = latest, now, True
        self.state = self.adopted = state

    def catches_up(self, fact: Fact, *, late: bool) -> bool:
        """Keep a fact if a snapshot has told as much already: its event waited, or came late."""
        step, adopted = fact[2], self.adopted
        if adopted is None or fact[3] != self.device:
            return False
        if step in _HOLDS:
            self._correct(fact)
        state = AFTER.get(step, adopted)
        if step in _HOLDS or step > steps.ESTABLISHED:
            known = step in _HOLDS and state == adopted
        else:
            known = RANKS[state] <= RANKS[adopted]
        if not known or state == adopted:
            self.adopted = None
        if known:
            self.facts.append(fact)
            self.latest = self.latest if late else fact
        return known

    def _correct(self, fact: Fact) -> None:
        """Let a hold's real time count instead of when we were told of it."""
        kept = []
        for one in self.facts:
            mine = one[1] == INFERRED and one[2] in _HOLDS
            if not mine or (one[2] != fact[2] and one[0] <= fact[0]):
                kept.append(one)
            elif one[2] != fact[2]:
                kept.append((fact[0], *one[1:]))
        self.facts = kept

    def _is_called_by(self, fact: Fact) -> bool:
        """Tell whether a fact says that the device is the one who calls."""
        return ends_in(fact, self.namespace)[0] == self.device

    def _note_who_calls(self, fact: Fact) -> None:
        step, own = fact[2], fact[3] == self.device
        if own and step in _CALLING:
            self.calls = True
            return
        calling, called = ends_in(fact, self.namespace)
        if calling == self.device:
            self.calls = True
        elif called == self.device or (own and step in _CALLED):
            self.calls = False

    def held_since(self, began: Moment) -> Moment | None:
        """Return since when the device had the call on hold at a moment; None: it had not.

        A hold of the same second counts: it is the server that puts one call on hold for another.
        """
        since = None
        for fact in sorted(self.facts, key=in_order):
            if fact[0] > began[0]:
                break
            if fact[3] != self.device:
                continue
            if fact[2] == steps.HELD:
                since = fact[:2]
            elif fact[2] in _NO_HOLD and fact[:2] <= began:
                since = None
        return since

    def is_told_more_by(self, fact: Fact) -> bool:
        """Tell whether a step of which it has one already says what that did not."""
        return any(fact[4]) and all(
            one[4] != fact[4] for one in self.facts if one[2] == fact[2] and one is not fact
        )

    @property
    def brought(self) -> list[tuple[str, Fact]]:
        """To which other devices its own handed the call, which it called in, and what says so."""
        told = (
            (said_in(fact, self.namespace).get(_BROUGHT[fact[2]]), fact)
            for fact in self.facts
            if fact[2] in _BROUGHT and fact[3] == self.device
        )
        return [(device, fact) for device, fact in told if device is not None]

    def is_here_at(self, time: datetime) -> bool:
        """Tell whether the device was in it then, or as good as: it may have come by that."""
        if not self.facts or min(fact[0] for fact in self.facts) - time > SECOND:
            return False
        return self.hung_up is None or time - self.hung_up[0] <= SECOND

    @property
    def is_in_conference(self) -> bool:
        """Whether anybody was called together in it."""
        return any(fact[2] == steps.CONFERENCED for fact in self.facts)

    @property
    def is_offered(self) -> bool:
        """Whether it rang for a queue, which offers no call to who is in another."""
        return any(
            fact[2] == steps.DELIVERED and fact[3] == self.device and fact[4][_QUEUE]
            for fact in self.facts
        )

    @property
    def recordings_going_on(self) -> list[str]:
        """The ids of its recordings whose end has not come."""
        started = [fact[4][0] for fact in self.facts if fact[2] == steps.RECORD_STARTED]
        if not started:  # as in most
            return started
        stopped = {fact[4][0] for fact in self.facts if fact[2] == steps.RECORD_STOPPED}
        return [one for one in started if one is not None and one not in stopped]

    def drop_consult(self, call: str) -> None:
        """Note that a call was not made to talk about this one after all."""
        self.consults = tuple([one for one in self.consults if one != call])

    def add_consult(self, call: str) -> None:
        """Note a call that the device made to talk about this one."""
        if call not in self.consults:
            self.consults = (*self.consults, call)

    def absorb(self, other: Leg) -> None:
        """Take over what is known of another leg that turns out to be this one."""
        self.facts += other.facts
        self.former += (*other.former, other.call)  # it is found by all of these
        self.uncertain = self.uncertain or other.uncertain
        self.epoch = min(self.epoch, other.epoch)
        self.consults += other.consults
        if other.hung_up is not None:
            self.hung_up = min(self.hung_up or other.hung_up, other.hung_up)
        self.begun = self.begun or other.begun
        if other.told > self.told:
            self.told, self.substance = other.told, other.substance
        if other.latest is not None and not self.is_late(other.latest):
            self.latest, self.state = other.latest, other.state
