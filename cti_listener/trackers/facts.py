"""Facts: what one event says of one call, and what a pile of them comes to.

A leg (`legs`) keeps facts, not steps. They are read in the order in which they happened, not in
that in which they came: by the server's time, then by serial, then by what can follow what. So two
events of a device that came the wrong way round come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from cti_listener.records import State
from cti_listener.trackers import steps
from cti_listener.trackers.steps import Step
from cti_listener.values import NO_CALL, EventKey, full_id

Fact: TypeAlias = tuple[
    datetime, int, Step, str | None, tuple[Any, ...], "str | EventKey | None", str
]
"""When, the serial (-1: none), what, whose step it is, what else was said (see `TOLD`), and what
its event is known by: the time as received, or the whole key where that cannot be put together from
the rest; last, the call's id in that event. A plain tuple: a live call is mostly these."""

Moment: TypeAlias = tuple[datetime, int]
"""When something happened by the server's clock, and the serial of what said so (-1: none)."""

_ENDS: Final = ("calling", "called")
LINE: Final = ("queue", "trunk_group", "trunk_member", "user_data")
"""By which way a call came, and what came with it."""

_RECORD: Final = ("record", "file", "success")

TOLD: Final[tuple[tuple[str, ...], ...]] = (
    (),  # serviceInitiated
    (*_ENDS, "type"),  # originated
    (*_ENDS, *LINE, "type", "original"),  # delivered
    (*_ENDS, *LINE, "type"),  # established
    (),  # held
    (),  # retrieved
    ("by", "to", "secondary", "into"),  # transferred
    ("by", "added", "primary", "secondary", "into"),  # conferenced
    _RECORD,
    _RECORD,
    ("failed_code", "failed_message", "cause", "type"),  # failed
    ("cause", "hangup", "type"),  # connectionCleared
)
"""What else each step says, in the order in which its facts hold it, if more behind it."""

_PARTIES: Final = tuple(
    tuple(name for name in names if name in {*_ENDS, "by", "to", "added", "hangup"})
    for names in TOLD
)
"""What of it names a party."""

TOGETHER: Final = timedelta(seconds=2)
"""Hang-ups no farther apart are of one end."""

SECOND: Final = timedelta(seconds=1)
"""The server's clock tells no less: what is no farther apart came in either order."""

Handing: TypeAlias = tuple[str | None, str | None, datetime, str | None]
"""By whom a call was handed on, to whom, when, and the call in which they had talked it over."""

INFERRED: Final = -2
"""The serial of facts that no event said, but a snapshot."""

in_order = itemgetter(0, 1, 2)

Said: TypeAlias = Mapping[str, Any]
"""What else a fact says, by name."""

NOTHING: Final[Said] = MappingProxyType({})


def said_in(fact: Fact, namespace: str | None) -> dict[str, Any]:
    """Return what else a fact says, by name; parties as full ids."""
    step, told = fact[2], fact[4]
    said: dict[str, Any] = {}
    # A comprehension and `strict=` take as long again: `noqa` for both.
    for name, one in zip(TOLD[step], told):  # noqa: B905
        if one or (one is not None and one != ""):  # False and 0 say something
            said[name] = one  # noqa: PERF403
    for name in _PARTIES[step]:
        party = said.get(name)
        if party is not None and party.count("@") != 1:
            said[name] = full_id(party, namespace)
    return said


def ends_in(fact: Fact, namespace: str | None) -> tuple[str | None, str | None]:
    """Return who calls and who is called, as full ids; None: it does not say."""
    if not steps.ORIGINATED <= fact[2] <= steps.ESTABLISHED:
        return None, None
    calling, called = fact[4][:2]
    return calling and full_id(calling, namespace), called and full_id(called, namespace)


def is_known(known: Iterable[Handing], by: str | None, to: str | None, at: datetime) -> bool:
    """Tell whether that a call was handed on then is among these: each device hears of it."""
    return any(one[:2] == (by, to) and abs(at - one[2]) <= TOGETHER for one in known)


def packed(data: Any) -> Any:
    """Return user data as JSON text, as facts keep them: a dict takes four times as much memory."""
    try:
        return to_json(data, inf_nan_mode="constants").decode()
    except ValueError:  # half a character, which has no UTF-8
        return data


def unpacked(kept: Any) -> Any:
    """Return user data as received."""
    return from_json(kept, cache_strings="keys") if isinstance(kept, str) else kept


class Reading:
    """What facts come to, as one device sees them.

    Attributes:
        device: Who sees them.
        calling: Who calls, by the first fact that says so.
        called: Who is called, likewise, or by the answer.
        dialled: Who is called, by the first fact that says so.
        calls: Whether the device calls (True) or is called; None: nothing tells.
        facts: The facts, in order.
        started: The first one's time.
        alerted: When it first rang, at the device or at whom it calls, before it was answered.
        answered: When the device answered, or whom it calls did.
        talked: Whether it was in conversation, though the answer may have been missed.
        ended: When the device hung up.
        odd: Whether the device took back what it never had on hold, as far as is known.
        said: What else was said, the latest of each; of the call's type, the first.
        parties: Who is in which state since when.
        holds: Who put it on hold, from when, until when.
        transfers: By whom, to whom, when, and the call in which they had talked it over.
        members: Who was called together.
        recordings: By id: file, beginning, end, success.
        causes: Of the device's own hang-up, and of others'.
        hang_ups: Time, serial, who, and who is said to have hung up.
    """

    __slots__ = (
        "alerted",
        "answered",
        "called",
        "calling",
        "calls",
        "causes",
        "device",
        "dialled",
        "ended",
        "facts",
        "hang_ups",
        "holds",
        "members",
        "odd",
        "parties",
        "recordings",
        "said",
        "started",
        "talked",
        "transfers",
    )

    def __init__(self, device: str, facts: Iterable[Fact], namespace: str | None) -> None:
        """Read facts, in whatever order they came; short ids are completed with the namespace."""
        self.device = device
        self.calling: str | None = None
        self.called: str | None = None
        self.dialled: str | None = None
        self.calls: bool | None = None
        self.alerted: datetime | None = None
        self.answered: datetime | None = None
        self.talked = False
        self.ended: datetime | None = None
        self.odd = False
        self.said: dict[str, Any] = {}
        self.parties: dict[str, tuple[State, datetime]] = {}
        self.holds: list[tuple[str, datetime, datetime | None]] = []
        self.transfers: list[Handing] = []
        self.members: dict[str, None] = {}
        self.recordings: dict[str | None, list[Any]] = {}
        self.causes: list[str | None] = [None, None]
        self.hang_ups: list[tuple[datetime, int, str | None, str | None]] = []
        self.facts = sorted(facts, key=in_order)
        self.started = self.facts[0][0]
        line: tuple[Any, ...] = ()
        rang: Said = NOTHING
        for fact in self.facts:
            time, serial, step, party, told = fact[:5]
            said: Said = NOTHING
            if told:
                if told == line:  # what was said when it rang is said again in the answer
                    said = rang
                else:
                    said = said_in(fact, namespace)
                    kind = self.said.get("type")
                    self.said.update(said)
                    if kind is not None:  # a call that is handed on, or joined, has another's
                        self.said["type"] = kind
                    if step == steps.DELIVERED:
                        line, rang = told, said
                if step <= steps.ESTABLISHED:
                    self._note_ends(said, answered=step == steps.ESTABLISHED)
            if self.calls is None and party == device and step <= steps.ESTABLISHED:
                self.calls = step <= steps.ORIGINATED
            _TAKES[step](self, time, serial, party, said)

    def add(self, party: str | None, *, member: bool = False) -> None:
        """Take somebody for there all the time, of whom the facts say nothing.

        Args:
            party: Who.
            member: They were called together with others, whatever they did since.
        """
        if party is None or party == self.device:
            return
        known = party in self.parties
        if not known:
            self.parties = {party: ("connected", self.started), **self.parties}
        if self.members and party not in self.members and (member or not known):
            self.members = {party: None, **self.members}

    def _note_ends(self, said: Mapping[str, Any], *, answered: bool) -> None:
        """Note who calls whom, as the first says it; and whom, as the answer does."""
        calling, called = said.get("calling"), said.get("called")
        if calling is None and called is None:
            return
        self.dialled = self.dialled or called
        if self.calling is None and self.called is None:
            self.calling, self.called = calling, called
        elif answered and calling == self.calling:  # it may have rung at another before
            self.called = called or self.called
        if self.calls is None and self.device in (calling, called):
            self.calls = calling == self.device

    # What each step does; they are called by their number, with the same arguments

    def _initiated(self, time: datetime, _serial: int, party: str | None, _said: Said) -> None:
        self._put(party, "initiated", time)

    def _delivered(self, time: datetime, _serial: int, party: str | None, _said: Said) -> None:
        if self.alerted is None and not self.talked:
            self.alerted = time
        self._put(party, "alerting", time)

    def _held(self, time: datetime, _serial: int, party: str | None, _said: Said) -> None:
        self.talked = True
        self._hold(time, party, begin=True)

    def _retrieved(self, time: datetime, _serial: int, party: str | None, _said: Said) -> None:
        self.talked = True
        self.odd = self.odd or (party == self.device and not self._is_held_by(party))
        self._hold(time, party, begin=False)

    def _is_held_by(self, party: str | None) -> bool:
        return any(one[0] == party and one[2] is None for one in self.holds)

    def _failed(self, time: datetime, _serial: int, party: str | None, said: Said) -> None:
        self.causes[1] = said.get("cause") or self.causes[1]
        self._put(party, "failed", time)

    def _put(self, party: str | None, state: State, time: datetime) -> None:
        if party is not None:
            known = self.parties.get(party)
            # Who has hung up is not brought back by what others tell of it in the same second.
            if known is None or known[0] != "cleared" or time > known[1]:
                self.parties[party] = state, time

    def _established(self, time: datetime, _serial: int, party: str | None, _said: Said) -> None:
        if self.answered is None and (party == self.device or self.calls is not False):
            self.answered = time
            # Nobody answers behind their own hang-up, unless the clock or the counters say so.
            self.odd = self.odd or (self.ended is not None and time - self.ended > SECOND)
        self.talked = self.talked or self.answered is not None
        self._put(party, "connected", time)
        other = self.calling if party != self.calling else self.device
        for one in (other, self.device if self.answered else None):
            state = self.parties.get(one or "", ("initiated", time))[0]
            if one is not None and state == "initiated":
                self._put(one, "connected", time)

    def _hold(self, time: datetime, party: str | None, *, begin: bool) -> None:
        if party is None:
            return
        self._put(party, "held" if begin else "connected", time)
        open_one = next(
            (i for i, one in enumerate(self.holds) if one[0] == party and one[2] is None), None
        )
        if begin and open_one is None:
            self.holds.append((party, time, None))
        elif not begin and open_one is not None:
            self.holds[open_one] = (*self.holds[open_one][:2], time)

    def _transferred(self, time: datetime, _serial: int, _party: str | None, said: Said) -> None:
        by, to, consulted = said.get("by"), said.get("to"), said.get("secondary")
        self.talked = self.talked or by == self.device
        if consulted in (NO_CALL, said.get("into"), None):
            consulted = None
        if not is_known(self.transfers, by, to, time):
            self.transfers.append((by, to, time, consulted))
        if to is not None and self.parties.get(to, ("cleared",))[0] == "cleared":
            self._put(to, "connected" if consulted else "alerting", time)
        if by is not None and by != self.device:
            self._hold(time, by, begin=False)
            self._put(by, "cleared", time)

    def _conferenced(self, time: datetime, _serial: int, _party: str | None, said: Said) -> None:
        self.talked = True
        by, added = said.get("by"), said.get("added")
        for party in (by, self.device, added):
            # Who has the conference on hold keeps it so as somebody else calls another in.
            if party == by or (party is not None and not self._is_held_by(party)):
                self._hold(time, party, begin=False)
        present = [one for one, (state, _) in self.parties.items() if state != "cleared"]
        self.members.update(dict.fromkeys(present))

    def _cleared(self, time: datetime, serial: int, party: str | None, said: Said) -> None:
        own = party == self.device
        if own and self.ended is None:
            self.ended = time
        if party is not None:
            if self.holds:
                self._hold(time, party, begin=False)
            self.parties[party] = "cleared", time
            if self.members:
                self.members[party] = None
        kind = 0 if own else 1
        self.causes[kind] = said.get("cause") or self.causes[kind]
        self.hang_ups.append((time, serial, party, said.get("hangup")))

    def _record_started(self, time: datetime, _serial: int, _party: str | None, said: Said) -> None:
        one = self._recording(said)
        one[1] = one[1] or time

    def _record_stopped(self, time: datetime, _serial: int, _party: str | None, said: Said) -> None:
        one = self._recording(said)
        one[2] = one[2] or time

    def _recording(self, said: Said) -> list[Any]:
        one = self.recordings.setdefault(said.get("record"), [None, None, None, None])
        one[0] = said.get("file") or one[0]
        one[3] = one[3] if said.get("success") is None else said.get("success")
        return one

    @property
    def hung_up_by(self) -> str | None:
        """Who hung up: as the server says, else who left the device alone; None: nothing tells.

        Of the device's own hang-up first, then of another's of the same end, unless that is of one
        who had handed the call on. Two of one second come in either order, so that says nothing.
        """
        ended = self.ended
        if ended is None:
            return None
        told = [
            (party != self.device, said)
            for time, _, party, said in self.hang_ups
            if said is not None
            and abs(time - ended) <= TOGETHER
            and (party == self.device or not self._has_handed_on(said, time))
        ]
        if told:
            return min(told, key=itemgetter(0))[1]
        others = [state for one, state in self.parties.items() if one != self.device]
        alone = all(state == "cleared" and ended - at > SECOND for state, at in others)
        if not self.talked or not alone:
            return None
        left = (
            party
            for time, _, party, _ in reversed(self.hang_ups)
            if party != self.device and not self._has_handed_on(party, time)
        )
        return next(left, None)

    def _has_handed_on(self, party: str | None, time: datetime) -> bool:
        """Tell whether a party hung up then because it had handed the call on."""
        return any(by == party and abs(time - at) <= TOGETHER for by, _, at, _ in self.transfers)


_TAKES: Final = (
    Reading._initiated,  # noqa: SLF001 - its own
    Reading._initiated,  # noqa: SLF001
    Reading._delivered,  # noqa: SLF001
    Reading._established,  # noqa: SLF001
    Reading._held,  # noqa: SLF001
    Reading._retrieved,  # noqa: SLF001
    Reading._transferred,  # noqa: SLF001
    Reading._conferenced,  # noqa: SLF001
    Reading._record_started,  # noqa: SLF001
    Reading._record_stopped,  # noqa: SLF001
    Reading._failed,  # noqa: SLF001
    Reading._cleared,  # noqa: SLF001
)
"""What takes each step."""
