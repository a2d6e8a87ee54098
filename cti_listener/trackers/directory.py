"""The directory: which leg an event is about, and how the ids of calls change."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Final

from cti_listener.event_base import Event
from cti_listener.trackers import steps
from cti_listener.trackers.board import Board
from cti_listener.trackers.consults import Consultations
from cti_listener.trackers.facts import Fact, said_in
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.telling import Telling
from cti_listener.values import NO_CALL, NO_CALLS

RECORDS: Final = frozenset({steps.RECORD_STARTED, steps.RECORD_STOPPED})
"""What is told of recordings, whose end need not name the call."""

NAMERS: Final = frozenset({steps.TRANSFERRED, steps.CONFERENCED})
"""What gives a call another id."""


class Directory:
    """Finds the leg of an event, where its call is not one that goes on under that id.

    Args:
        board: All legs.
        consultations: Which call is about which.
        end: Ends a leg, and tells its record.
        revise: Tells a leg's record anew, if it has changed.
    """

    def __init__(
        self,
        board: Board,
        consultations: Consultations,
        *,
        end: Callable[[Leg, Telling], None],
        revise: Callable[[Leg, Telling], None],
    ) -> None:
        """Find nothing yet."""
        self._board = board
        self._consultations = consultations
        self._end = end
        self._revise = revise

    def leg_of_none(self, event: Event, device: str, fact: Fact, telling: Telling) -> Leg | None:
        """Find the leg of an event whose call is none that goes on, or is just over."""
        step, call = fact[2], event.call_id
        if step in RECORDS:
            leg = self._recorded_leg(fact, device, guess=call in NO_CALLS)
            if leg is not None or step == steps.RECORD_STOPPED:
                return leg
        if call is None or call in NO_CALLS:
            return None
        if step in NAMERS and (leg := self.follow(None, device, fact, telling)):
            return leg
        gone = self._board.is_gone(device, call, fact)
        if step == steps.CONNECTION_CLEARED and self._says_nothing_new(device, call, fact):
            return None
        leg = Leg(device, call, event.namespace and intern(event.namespace), self._board.epoch)
        if gone or step in RECORDS:  # it may come back, or begin, and this have come before
            self._board.lay_aside(leg, telling.now)
        elif step != steps.CONNECTION_CLEARED:  # else its beginning may come yet
            if step == steps.TRANSFERRED:
                leg.former = self._ids_before(leg, fact)
            self._board.enter(leg)
        return leg

    def _ids_before(self, leg: Leg, fact: Fact) -> tuple[str, ...]:
        """Return the id that a call had where it is handed to: its beginning may come yet."""
        said = said_in(fact, leg.namespace)
        before = said.get("secondary", NO_CALL)
        if said.get("to") != leg.device or before in NO_CALLS or before == leg.call:
            return ()
        return () if (leg.device, before) in self._board.known else (intern(before),)

    def _says_nothing_new(self, device: str, call: str, fact: Fact) -> bool:
        """Tell whether a hang-up is of a call that was over by then: another stay ends later."""
        gone = self._board.gone_at(device, call)
        return gone is not None and (gone.given_up or gone.is_behind(fact))

    def _recorded_leg(self, fact: Fact, device: str, *, guess: bool) -> Leg | None:
        """Find the leg whose recording begins or ends: its end need not name the call.

        Args:
            fact: What was told.
            device: Where.
            guess: Nothing says of which call it is.
        """
        board, record = self._board, fact[4][0]
        going_on, over = board.at(device), board.over_at(device)
        for leg in (*going_on, *over, *board.recording_at(device)):
            if any(one[2] in RECORDS and one[4][0] == record for one in leg.facts):
                return leg
        if not guess or board.was_recorded(device, record):
            return None
        # Its beginning was missed, or comes yet; with one call there is no doubt whose it is.
        known = going_on or over
        return known[0] if len(known) == 1 else None

    def follow(self, leg: Leg | None, device: str, fact: Fact, telling: Telling) -> Leg | None:
        """Follow a call into the one it becomes; return the leg that goes on.

        `transferred` changes the id only at the device handed to. `conferenced` merges the
        consulted call into the other, at each device that has it.
        """
        said = said_in(fact, device.partition("@")[2])
        secondary: str = said.get("secondary", NO_CALL)
        into: str = said.get("into", NO_CALL)
        into = fact[6] if into in NO_CALLS else into
        if secondary in NO_CALLS or into in NO_CALLS or secondary == into:
            return leg
        consulted = self._board.known.get((device, secondary))
        if leg is not None and said.get("by") == device and leg.call != secondary:
            self._consultations.told(leg, secondary, consulted, telling)
        if fact[2] == steps.TRANSFERRED:
            if said.get("to") != device or consulted is None:
                return leg
            return self._rename(consulted, into, fact, telling) or leg
        main = self._not_over(device, into, fact)
        held = self._not_over(device, said.get("primary"), fact)
        if held is not None and held is not main and (main is None or main.ended):
            main = self._rename(held, into, fact, telling)
        if consulted is None or consulted is main:
            return main or leg
        # A device that has both calls is done with one. Of one that has only the consulted call,
        # events may have come by the other's id before this.
        doubtful = main is not None and self._board.is_doubtful(main)
        if main is None or not main.begun or (said.get("by") != device and doubtful):
            # Who called them together had both: of one that is not known, all was missed.
            consulted.uncertain = consulted.uncertain or (main is None and said.get("by") == device)
            return self._rename(consulted, into, fact, telling) or main or leg
        if not consulted.ended:
            consulted.merged_into = into, fact[0]
            self._end(consulted, telling)
        elif consulted.merged_into is not None and fact[0] < consulted.merged_into[1]:
            consulted.merged_into = into, fact[0]  # it is told again as one joins
            self._revise(consulted, telling)
        return main

    def _not_over(self, device: str, call: str | None, fact: Fact) -> Leg | None:
        """Find a leg by an id, unless it was over before this: then the device comes back to it."""
        leg = self._board.known.get((device, call))
        return None if leg is not None and leg.told and leg.was_over_before(fact) else leg

    def _rename(self, leg: Leg, call: str, fact: Fact, telling: Telling) -> Leg | None:
        """Go on with a leg under another id, as a fact says; None: it is over, or the other is."""
        if leg.call == call:
            return leg
        if leg.told or self._board.ended_behind(leg.device, call, fact):
            return None
        self._board.rename(leg, call, fact)
        if leg.told:  # its end came before its id
            self._board.lay_aside(leg, telling.now)
        return leg
