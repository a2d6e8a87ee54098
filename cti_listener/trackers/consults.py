"""Consultations: calls that a device makes to talk about another, which it has on hold meanwhile.

What ends one says so, a hand-over or a merger. Until then it is guessed by what is on hold as it
begins; what comes late is held against the guess anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cti_listener.trackers import steps
from cti_listener.trackers.board import LINGER, Board
from cti_listener.trackers.legs import Leg
from cti_listener.trackers.telling import Telling

MOST_CALLS: Final = 8
"""A device that is in more calls than this is no phone: of its calls nothing more is guessed."""


class Consultations:
    """Links calls with the consultations about them.

    Args:
        board: All legs.
        revise: Tells a leg's record anew, if it has changed.
    """

    def __init__(self, board: Board, revise: Callable[[Leg, Telling], None]) -> None:
        """Link nothing yet."""
        self._board = board
        self._revise = revise

    def told(self, about: Leg, call: str, leg: Leg | None, telling: Telling) -> None:
        """Note a consultation that ends as its call is handed over, or merged.

        Args:
            about: What it was about.
            call: Its id.
            leg: Its leg, if there is one.
            telling: What follows.
        """
        if leg is about:  # told once more, when it has that id already
            return
        if leg is None:
            about.add_consult(call)
            return
        self._part(leg, about, telling)
        leg.original_told = True
        self._join(leg, about, telling)
        if leg.told:
            self._revise(leg, telling)

    def guess(self, leg: Leg, telling: Telling) -> None:
        """Note what a leg is about, by what is known now: as it begins, as it ends, and late."""
        about = self._board.known.get((leg.device, leg.original))
        if leg.original_told:
            if about is not None and leg.call in about.consults:
                leg.original = about.call  # by the id that it has now
        elif len(self._board.at(leg.device)) <= MOST_CALLS:
            about = self._about(leg)
            self._part(leg, about, telling)
            if about is not None:
                self._join(leg, about, telling)

    def guess_others(self, leg: Leg, telling: Telling) -> None:
        """Guess anew what a device's other calls are about: it had this on hold, or no longer."""
        there = self._board.at(leg.device)
        if len(there) <= MOST_CALLS:
            for one in there:
                if one is not leg and one.calls:
                    self.guess(one, telling)

    def is_last(self, leg: Leg) -> bool:
        """Tell whether a call that is over was about none, or one that was over long before."""
        if leg.original in (None, leg.call, *leg.former):
            return True
        end, before = leg.end, self._board.end_of(leg.device, leg.original or "")
        return end is not None and before is not None and end[0] - before[0] > LINGER

    def _about(self, leg: Leg) -> Leg | None:
        """Find the call that a leg was made to talk about: named, or on hold last as it began."""
        at, over = self._board.at(leg.device), self._board.over_at(leg.device)
        if not at and len(over) == 1:  # nearly always: this one, which was laid aside just now
            return None
        told = next((one[4][-1] for one in leg.facts if one[2] == steps.DELIVERED), None)
        if not told and not leg.calls:
            return None
        others = [one for one in (*at, *over) if one is not leg]
        if told:
            return next((one for one in others if told in (one.call, *one.former)), None)
        began = min(fact[:2] for fact in leg.facts)
        held = [(since, one) for one in others if one.holds and (since := one.held_since(began))]
        return max(held, key=lambda one: one[0])[1] if held else None

    def _join(self, leg: Leg, about: Leg, telling: Telling) -> None:
        leg.original = about.call
        made = leg.calls is not False or leg.original_told  # who is called knows what it is about
        if made and leg.call not in about.consults:
            about.add_consult(leg.call)
            if about.told:
                self._revise(about, telling)

    def _part(self, leg: Leg, about: Leg | None, telling: Telling) -> None:
        """Take back that a leg is about another than this."""
        before = self._board.known.get((leg.device, leg.original))
        if before is not None and before is not about and leg.call in before.consults:
            before.drop_consult(leg.call)
            leg.original = None
            if before.told:
                self._revise(before, telling)
