"""The calls: what follows from each step, until a call is over, and behind that.

Each device in a call is a leg of its own (`legs`), found in the `directory`. What is told of legs
is read from their facts (`accounts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cti_listener.derived import (
    CallAnswered,
    CallEnded,
    CallHeld,
    CallRetrieved,
    CallRevised,
    CallStarted,
    CallTransferred,
    Derived,
    Inconsistency,
    OfCall,
)
from cti_listener.event_base import Event
from cti_listener.records import Call, CallRecord
from cti_listener.snapshots import DeviceSnapshot
from cti_listener.trackers import steps
from cti_listener.trackers.accounts import (
    DIRECTIONS,
    IsInternal,
    call_of,
    differ,
    given_by,
    record_of,
)
from cti_listener.trackers.allocations import Allocations, type_in
from cti_listener.trackers.answers import Answers
from cti_listener.trackers.board import Board
from cti_listener.trackers.consults import Consultations
from cti_listener.trackers.directory import NAMERS, RECORDS, Directory
from cti_listener.trackers.facts import Fact, Moment, ends_in, said_in
from cti_listener.trackers.kinds import KINDS, NEVER, fact_in
from cti_listener.trackers.legs import SETTLED, Leg, Substance
from cti_listener.trackers.memory import Numbers, leg_of
from cti_listener.trackers.states import BEGINNINGS, ENDINGS
from cti_listener.trackers.steps import Step
from cti_listener.trackers.telling import Kinds, Telling
from cti_listener.trackers.wrap_ups import WrapUp, WrapUps
from cti_listener.values import EventKey

TIMEOUT: Final = 4 * 3600.0
"""A device in a call that gave no sign for so long is given up, in seconds; the default."""

_SILENT: Final = frozenset({steps.DELIVERED, steps.ORIGINATED, steps.FAILED, *RECORDS})
"""What tells nothing new of a leg that has begun."""

_TOLD: Final = frozenset({steps.HELD, steps.RETRIEVED, steps.TRANSFERRED})
"""What each device in the call is told."""


class CallTracker:
    """Follows the calls of all devices; a `Tracker`.

    Args:
        is_internal: Tells whether a party, as a full id, is one of ours.
        sits_at: Tells who sits at a device.
        doubts_agent: Tells whether events of who sits there may have been missed since.
        timeout: A device in a call that gave no sign for so long is given up, in seconds.
        wanted: The classes of notices that somebody wants; no others are made.

    Attributes:
        board: All legs.
        inconsistencies: How many steps could not follow.
    """

    def __init__(
        self,
        *,
        is_internal: IsInternal,
        sits_at: Callable[[str], str | None],
        doubts_agent: Callable[[str], bool],
        wanted: Kinds,
        timeout: float = TIMEOUT,
    ) -> None:
        """Begin with no call, and every device uncertain."""
        self.board = Board()
        self._is_internal = is_internal
        self._sits_at = sits_at
        self._doubts_agent = doubts_agent
        self._timeout = timedelta(seconds=timeout)
        self._wanted = wanted
        self._telling = Telling(wanted)
        self._wrap_ups = WrapUps()
        self._allocations = Allocations()
        self._consultations = Consultations(self.board, self._revise)
        self._directory = Directory(
            self.board, self._consultations, end=self._end, revise=self._revise
        )
        self._answers = Answers(self.board, self._add)
        self.inconsistencies = 0

    def __repr__(self) -> str:
        return f"<CallTracker {self.board!r}>"

    # What is there

    def call(self, call: str) -> Call | None:
        """Return a call that goes on, as it stands; None: there is none of this id."""
        legs = self.board.of(call)
        return self._call(*self.board.left(call), *legs) if legs else None

    def calls_at(self, device: str) -> tuple[str, ...]:
        """Return the ids of the calls that a device is in, the oldest first."""
        return tuple([leg.call for leg in self.board.at(device)])

    # What comes

    def apply(self, event: Event, key: tuple[Any, ...] | None = None) -> Sequence[Derived]:
        """Take an event; return what follows from it, in order.

        Args:
            event: The event; one that is not about a call is passed over.
            key: What dedupe compared, where that is at hand.
        """
        device, kind = event.device, KINDS.get(type(event))
        now = event.delivery.received_at or NEVER
        if device is None or kind is None:
            self._note_sign(event, device, now)
            return ()
        board = self.board
        if now > board.due:
            self._forget(now)
        key = key or event.key
        telling = self._telling.of(key, now)
        leg = known = board.known.get((device, event.call_id))
        if known is None:
            fact = fact_in(event, kind, device, key, None)
            leg = self._directory.leg_of_none(event, device, fact, telling)
        else:
            device = known.device  # the same text, kept once
            fact = fact_in(event, kind, device, key, known.facts[-1])
            if known.told and known.is_begun_anew_by(fact := known.put_right(fact)):
                self._begin_anew(known, event, fact, telling)
                return telling.notices
            if fact[2] in NAMERS:
                leg = self._directory.follow(known, device, fact, telling)
        if leg is None:
            return telling.notices
        if not leg.hears(fact, now):
            self._take(leg, fact, telling)
        elif fact[2] not in _SILENT or leg is not known:
            if leg.agent is None:
                self._note_seat(leg, fact, telling)
            self._tell(leg, fact, telling)
        return telling.notices

    def _begin_anew(self, over: Leg, event: Event, fact: Fact, telling: Telling) -> None:
        """Have a device come back into a call, with what has come already of its new stay there."""
        leg = self._directory.leg_of_none(event, over.device, fact, telling)
        if leg is None:
            return
        if behind := over.part_with(fact[:2]):
            self._allocations.take_back(over)
            self._revise(over, telling)
        for one in (fact, *behind):
            self._take(leg, one, telling)

    def adopt(self, device: str, snapshot: DeviceSnapshot, now: datetime) -> Sequence[Derived]:
        """Take what somebody says of a device's calls; return what differs, in order.

        Args:
            device: Whose.
            snapshot: What is said.
            now: When.
        """
        telling = self._telling.of(None, now)
        self._answers.adopt(device, snapshot, telling)
        return telling.notices

    def confirm(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Be sure of a device if all its calls were named, and those that came since were seen."""
        self._answers.confirm(device, snapshot)

    def _note_sign(self, event: Event, device: str | None, now: datetime) -> None:
        """Take an event of a name that is not listed for a sign of life of its call."""
        leg = None if device is None else self.board.known.get((device, event.call_id))
        if leg is not None:
            leg.sign = now

    def _note_seat(self, leg: Leg, fact: Fact, telling: Telling) -> None:
        """Note who sits there, and whether set aside for the call that rings."""
        if leg.agent is None and not leg.told:
            leg.agent = self._sits_at(leg.device)
        if fact[2] == steps.DELIVERED and fact[3] == leg.device:
            other = self._allocations.rings(leg, fact)
            if other is not None and other.told:
                self._revise(other, telling)
            if self._allocations.used and self._doubts_agent(leg.device):
                leg.uncertain = leg.uncertain or not self._is_told_who_dialled(leg, fact)

    def _is_told_who_dialled(self, leg: Leg, fact: Fact) -> bool:
        """Tell whether a ringing says who made the call, whatever an agent was set aside for."""
        calling, _ = ends_in(fact, leg.namespace)
        return type_in(fact) in DIRECTIONS or (calling is not None and self._is_internal(calling))

    def _take(self, leg: Leg, fact: Fact, telling: Telling) -> None:
        """Give a leg a fact that needs a closer look, and tell what follows."""
        fact = leg.put_right(fact)
        step, late = fact[2], leg.is_late(fact)
        if late and not leg.told and self._is_of_another_stay(leg, fact, telling):
            return
        self._note_seat(leg, fact, telling)
        leg.sign = telling.now
        if leg.catches_up(fact, late=late):
            return
        unseen = leg.ended and not leg.begun and self.board.is_gone(leg.device, leg.call, fact)
        waits = unseen and step == steps.CONNECTION_CLEARED  # its beginning may come yet
        if not late and not waits and (expected := leg.refuses(fact)):
            self._suspect(leg, step, expected, telling)
        elif not leg.facts and not self.board.is_followed(leg.device):
            leg.uncertain = leg.uncertain or fact[3] != leg.device or step not in BEGINNINGS
        leg.take(fact, late=late)
        if leg.told:
            self._take_late(leg, fact, telling, late=late)
        elif not unseen:  # else it is of a call that is over, unless the device comes back to it
            self._tell_if_begun(leg, fact, telling)

    def _tell_if_begun(self, leg: Leg, fact: Fact, telling: Telling) -> None:
        """Tell what a step means, unless all that is known of the call are ends."""
        step = fact[2]
        if leg.begun and step in _SILENT:
            pass
        elif leg.begun or step not in ENDINGS:
            self._tell(leg, fact, telling)
        elif step in RECORDS:
            pass  # of a call of which only a hang-up is known
        elif fact[3] == leg.device and not self.board.is_certain(leg.device):
            leg.begun = True  # it was in progress when we came
            self._end(leg, telling)
        elif not leg.ended:
            self.board.lay_aside(leg, telling.now)  # its beginning may come yet

    def _is_of_another_stay(self, leg: Leg, fact: Fact, telling: Telling) -> bool:
        """Have a late fact taken by another stay of the device in this call, if it is of one.

        Of a stay that is forgotten, it is dropped.
        """
        own, step = fact[3] == leg.device, fact[2]
        if fact[:2] >= min(one[:2] for one in leg.facts):
            overtaken = own and step == steps.CONNECTION_CLEARED and leg.begun
            again = leg.came_back_at(fact) if overtaken else None
            if again is not None:
                self._split(leg, fact, again, telling)
            return again is not None
        if own and step in BEGINNINGS:
            return False
        over = self.board.over_at(leg.device)
        earlier = next((one for one in over if one.told and one.call == leg.call), None)
        if earlier is not None:
            self._take(earlier, fact, telling)
        return earlier is not None or self.board.gone_at(leg.device, leg.call) is not None

    def _split(self, leg: Leg, fact: Fact, begun: Moment, telling: Telling) -> None:
        """End a leg with its hang-up, which the device's next stay in the call has overtaken."""
        behind = leg.part_with(begun)
        self._allocations.take_back(leg)
        leg.answered = any(one[2] == steps.ESTABLISHED for one in leg.facts)
        leg.take(fact, late=False)
        self._end(leg, telling)
        again = Leg(leg.device, leg.call, leg.namespace, self.board.epoch)
        self.board.enter(again)
        for one in behind:
            self._take(again, one, telling)

    def _take_late(self, leg: Leg, fact: Fact, telling: Telling, *, late: bool) -> None:
        """See whether what came after the end changes the record."""
        own = fact[3] == leg.device
        if fact[2] in NAMERS:
            self._note_given(leg)
            if own:
                self._give_late(leg, telling)
        # A second hang-up in its order changes nothing unless it says more; each call out has one.
        second = not own and not late and fact[1] >= 0 and fact[2] == steps.CONNECTION_CLEARED
        if not second or not leg.answered or not leg.calls or leg.is_told_more_by(fact):
            self._revise(leg, telling)

    def _suspect(self, leg: Leg, step: Step, expected: frozenset[Step], telling: Telling) -> None:
        """Say that a step cannot follow, unless what came before it may have been missed."""
        unseen = not leg.facts and not self.board.is_certain(leg.device)
        if not unseen and not self.board.is_doubtful(leg):
            self.inconsistencies += 1
            telling.add(
                Inconsistency,
                leg.device,
                call=leg.call,
                expected=tuple([steps.WIRE_NAMES[one] for one in sorted(expected)]),
                got=steps.WIRE_NAMES[step],
            )
        leg.uncertain = True

    def _tell(self, leg: Leg, fact: Fact, telling: Telling) -> None:
        """Tell what a step means for a leg that goes on."""
        step, party = fact[2], fact[3]
        if leg.ended:  # its end came before its beginning
            self.board.enter(leg)
        if not leg.begun:
            leg.begun = True
            if len(self.board.at(leg.device)) > 1:
                self._consultations.guess(leg, telling)
            self._add(CallStarted, leg, telling)
        if step == steps.ESTABLISHED:
            if not leg.answered and (party == leg.device or leg.calls is not False):
                leg.answered = True
                leg.agent = self._sits_at(leg.device) or leg.agent
                self._add(CallAnswered, leg, telling)
        elif step in _TOLD:
            self._tell_of(leg, fact, telling)
        elif step == steps.CONFERENCED and party == leg.device:
            self._give_late(leg, telling)
        if leg.state == "cleared" or (step == steps.CONNECTION_CLEARED and party == leg.device):
            self._end(leg, telling)

    def _tell_of(self, leg: Leg, fact: Fact, telling: Telling) -> None:
        """Tell of a step what each device in the call is told."""
        step, party = fact[2], fact[3]
        if step == steps.HELD:
            if party == leg.device:
                self._consultations.guess_others(leg, telling)
            self._add(CallHeld, leg, telling, by=party)
        elif step == steps.RETRIEVED:
            self._add(CallRetrieved, leg, telling, by=party)
        else:
            said = said_in(fact, leg.namespace)
            by, to = said.get("by"), said.get("to")
            if leg.handed != (by, to):
                leg.handed = by, to
                self._add(CallTransferred, leg, telling, by=by, to=to)
                if by == leg.device:
                    self._give_late(leg, telling)

    def _add(
        self,
        kind: Callable[..., OfCall],
        leg: Leg,
        telling: Telling,
        *,
        inferred: bool = False,
        **fields: object,
    ) -> None:
        """Tell this of a leg's call as it stands, if somebody wants it."""
        if kind in self._wanted:  # to put the call together costs more than all else
            telling.add(kind, leg.device, inferred=inferred, call=self._call(leg), **fields)

    # Ends

    def _end(self, leg: Leg, telling: Telling, *, inferred: bool = False) -> None:
        """Be done with a leg, but for what may come late; tell its record."""
        board = self.board
        if not leg.answered:
            leg.agent = self._sits_at(leg.device) or leg.agent
        leg.uncertain, leg.epoch, leg.state = board.is_doubtful(leg), SETTLED, "cleared"
        if leg.handed is not None or leg.is_in_conference:
            self._note_given(leg)
        board.lay_aside(leg, telling.now)
        if not leg.uncertain:
            board.note_followed(leg.device)
            if leg.is_offered:
                self.note_idle(leg.device)
        self._consultations.guess(leg, telling)
        self._consultations.guess_others(leg, telling)
        if self._wrap_ups.is_worked_behind(leg):
            self._doubt_held(leg.device, leg.facts[-1][0], telling)
        if CallEnded in self._wanted or CallRevised in self._wanted:
            record, leg.substance = self._record(leg)
            telling.add(CallEnded, leg.device, call=record, inferred=inferred)
        leg.told = 1
        self._note_work_to_come(leg, telling.now)

    def _note_given(self, leg: Leg) -> None:
        """Note what the device knew of it that brought this into it, if one did, before it is gone.

        And what that one was given before.
        """
        brought: dict[str, list[tuple[Leg, Fact]]] = {}
        for one in (*self.board.left(leg.call), *self.board.of(leg.call)):
            for device, by in one.brought:
                brought.setdefault(device, []).append((one, by))
        chain: list[tuple[Leg, Leg, Fact]] = []
        while leg.given is None:
            here = [
                (giver, by)
                for giver, by in brought.get(leg.device, ())
                if giver is not leg and leg.is_here_at(by[0])
            ]
            if not here:
                break
            giver, by = max(here, key=lambda one: one[1][:2])
            leg.given = {}  # lest two that handed it to each other go round for ever
            chain.append((leg, giver, by))
            leg = giver
        for one, giver, by in reversed(chain):
            one.given = given_by(giver, by)

    def _give_late(self, leg: Leg, telling: Telling) -> None:
        """Tell records anew that were over before who brought their devices in said so.

        And those of whom these brought in.
        """
        givers, given = [leg], {leg}
        for giver in givers:
            for device, by in giver.brought:
                for one in self.board.over_at(device):
                    here = one.told and one.call == leg.call and one.is_here_at(by[0])
                    if here and one not in given:
                        given.add(one)
                        givers.append(one)
                        before, one.given = one.given, None
                        self._note_given(one)
                        if one.given is None:  # its giver is no longer known
                            one.given = before
                        self._revise(one, telling)

    def _note_work_to_come(self, leg: Leg, now: datetime, *, works: bool = False) -> None:
        """Note that a leg is over, after which its agent may work.

        Nobody works after a consultation alone, unless the call it was about was long over.

        Args:
            leg: The leg.
            now: When that was known.
            works: The agent does.
        """
        counts = leg.agent is not None and (works or self._consultations.is_last(leg))
        self._wrap_ups.ended(leg, now, counts=counts)
        for one in self.board.over_at(leg.device):  # the hang-up may have come behind its own
            if (
                one.original == leg.call
                and one.agent is not None
                and self._consultations.is_last(one)
            ):
                self._wrap_ups.ended(one, now, counts=True)

    def _give_up(self, leg: Leg, telling: Telling) -> None:
        """End a leg that nobody said to have ended."""
        leg.expired = max(fact[0] for fact in leg.facts)
        leg.uncertain = True
        self._end(leg, telling, inferred=True)

    def _revise(self, leg: Leg, telling: Telling) -> None:
        """Tell a record anew if more than the list of its events has changed."""
        before = leg.substance
        if before is None or CallRevised not in self._wanted:
            return
        record, substance = self._record(leg)
        if differ(substance, before):
            leg.told, leg.substance = record.revision, substance
            telling.add(CallRevised, leg.device, call=record)

    # Wrap-up

    def worked_after(
        self, device: str, work: WrapUp, now: datetime, key: tuple[Any, ...] | None
    ) -> Sequence[Derived]:
        """Note that a device's agent works, or worked, after the call that ended last there.

        Args:
            device: Where.
            work: What was said of it.
            now: When that came.
            key: What its event is known by.
        """
        _, since, until, known = work
        telling = self._telling.of(key, now)
        self._doubt_held(device, since, telling)
        told = None if key is None else EventKey(*key)
        worked = self._wrap_ups.worked(device, work, self.board.at(device), now, told)
        if worked is not None and until is not None and known:
            leg, keys = worked
            leg.wrap_up = (until - since).total_seconds(), keys
            self._revise(leg, telling)
        return telling.notices

    def _doubt_held(self, device: str, since: datetime, telling: Telling) -> None:
        """Doubt what is on hold as an agent is done with calls: its hang-up never arrived.

        Args:
            device: Where.
            since: Since when.
            telling: What follows.
        """
        there, then = self.board.at(device), (since, 0)
        if not there or any(leg.state != "held" or not leg.held_since(then) for leg in there):
            return
        for leg in there:
            leg.uncertain, leg.holds = True, False
        for one in self.board.over_at(device):
            if one.told and any(one.original == leg.call for leg in there):
                one.uncertain = True  # it may have been about that, or begun when that was over
                self._revise(one, telling)
                self._note_work_to_come(one, telling.now, works=True)

    # Agents

    def note_idle(self, device: str) -> None:
        """Note that a device is in no call, or was in none: if none is known, it is sure of that.

        A call seen whole is no proof: another may be on hold meanwhile.
        """
        if not self.board.at(device):
            self.board.confirm(device)

    def allocated(self, device: str, since: Moment, until: Moment | None) -> None:
        """Note that a device's agent was set aside then: for the call that rang next.

        Args:
            device: Where.
            since: Since when.
            until: When the agent's next event was, if that has come already.
        """
        self._allocations.begin(device, since, until, self.board.at(device))

    def minds_agent(self, device: str) -> bool:
        """Tell whether another event of a device's agent says something of its calls."""
        return device in self._allocations

    def freed(
        self,
        device: str,
        time: Moment,
        now: datetime,
        key: tuple[Any, ...] | None,
        *,
        works: bool = False,
    ) -> Sequence[Derived]:
        """Note another event of a device's agent: what rang no earlier was no such call.

        Args:
            device: Where.
            time: When it happened.
            now: When it came.
            key: What it is known by.
            works: The agent works after a call, which so rang before.
        """
        leg = self._allocations.end(device, time, works=works)
        return () if leg is None else self._revise_all([leg], now, key)

    def seated(
        self, device: str, agent: str, time: datetime, now: datetime, key: tuple[Any, ...] | None
    ) -> Sequence[Derived]:
        """Note that an agent logged on; as `freed`, of the calls that are the agent's, then."""
        changed = []
        for leg in (*self.board.at(device), *self.board.over_at(device)):
            if leg.agent != agent and leg.is_whose_sits_there_at(time):
                leg.agent = agent
                changed.append(leg)
        return self._revise_all(changed, now, key)

    def _revise_all(
        self, legs: Sequence[Leg], now: datetime, key: tuple[Any, ...] | None
    ) -> Sequence[Derived]:
        if not any(leg.told for leg in legs):
            return ()
        telling = self._telling.of(key, now)
        for leg in legs:
            self._revise(leg, telling)
        return telling.notices

    # What was missed

    def missed(self, devices: frozenset[str]) -> None:
        """Doubt what is known of these devices, of all if there are none."""
        self.board.doubt(devices)

    def expire(self, now: datetime) -> Sequence[Derived]:
        """Give up what has shown no sign for too long; return what follows from that."""
        self._forget(now)
        telling = self._telling.of(None, now)
        for leg in self.board.silent_since(now - self._timeout):
            self._give_up(leg, telling)
        return telling.notices

    # For later runs

    def remembered(self) -> dict[str, Any]:
        """Return what it knows, as plain values."""
        number = Numbers()
        board, wrap_ups = self.board.remembered(number), self._wrap_ups.remembered(number)
        allocated = self._allocations.remembered(number)
        return {
            "board": board,
            "wrap_ups": wrap_ups,
            "allocated": allocated,
            "legs": number.legs,
        }

    def remember(self, kept: dict[str, Any]) -> None:
        """Go on with what another tracker knew.

        Raises:
            KeyError, IndexError, ValueError, TypeError: It was no tracker's.
        """
        legs = [leg_of(one) for one in kept["legs"]]
        self.board.remember(kept["board"], legs)
        self._wrap_ups.remember(kept["wrap_ups"], legs)
        self._allocations.remember(kept["allocated"], legs)
        if CallEnded in self._wanted or CallRevised in self._wanted:
            for leg in legs:
                if leg.told:
                    _, leg.substance = self._record(leg)

    # Private

    def _forget(self, now: datetime) -> None:
        self.board.forget(now)
        self._wrap_ups.forget(now)

    def _call(self, *legs: Leg) -> Call:
        return call_of(legs, self._is_internal, epoch=self.board.epoch)

    def _record(self, leg: Leg) -> tuple[CallRecord, Substance]:
        return record_of(leg, self._is_internal, epoch=self.board.epoch)
