"""The agents: who sits at a device, in which mode, since when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from cti_listener import events
from cti_listener.derived import AgentStateChanged, Derived, Inconsistency
from cti_listener.event_base import Event
from cti_listener.records import Agent
from cti_listener.snapshots import DeviceSnapshot
from cti_listener.trackers.facts import Moment
from cti_listener.trackers.kinds import NEVER
from cti_listener.trackers.legs import FAR, set_back
from cti_listener.trackers.memory import read_time as read_kept
from cti_listener.trackers.telling import Kinds, Telling
from cti_listener.trackers.wrap_ups import WrapUp
from cti_listener.values import full_id, read_time

LOGGED_OFF: Final = "Logout"
WORKING: Final = "WorkNotReady"
ALLOCATED: Final = "Allocated"
UNKNOWN: Final = "Unknown"
OTHER: Final = "Other"
_LISTED: Final = ("Ready", "NotReady", WORKING, ALLOCATED, LOGGED_OFF)

MODES: Final[MappingProxyType[type[Event], str]] = MappingProxyType(
    {
        events.AgentLoggedOff: LOGGED_OFF,
        events.AgentReady: "Ready",
        events.AgentNotReady: "NotReady",
        events.AgentWorkingAfterCall: WORKING,
        events.AgentAllocated: ALLOCATED,
    }
)
"""The mode after each event; after `agentLoggedOn` it is what `agentMode` says."""


AGENT_EVENTS: Final = frozenset({events.AgentLoggedOn, *MODES})
"""The classes that say something of an agent: asked for by class, since `isinstance` on a model
costs as much as all else that an event takes here."""


_LAST: Final = 2**63
"""No serial is behind this."""


class Seat:
    """A device and who sits there.

    Attributes:
        device: As a full id.
        agent: Who; None: nobody was ever named.
        mode: The mode.
        reason: Why not ready.
        since: Since when by the server's clock.
        timed: Whether it is known since when.
        latest: Time and serial (-1: none) of the latest event.
        back: Whether the server's clock went back before that.
        epoch: How often anything had been missed by then.
        worked: When the last work after a call began and ended; None: not yet.
    """

    __slots__ = (
        *("agent", "back", "device", "epoch", "latest"),
        *("mode", "reason", "since", "timed", "worked"),
    )

    def __init__(self, device: str) -> None:
        """Begin with nothing known."""
        self.device = device
        self.agent: str | None = None
        self.mode: str | None = None
        self.reason: str | None = None
        self.since: datetime
        self.timed = True
        self.back = False
        self.latest: tuple[datetime, int] | None = None
        self.epoch = -1
        self.worked: tuple[datetime | None, datetime | None] = None, None

    def moment_of(self, event: Event) -> tuple[Moment, bool]:
        """Return when an event happened, and whether the clock went back before it.

        It has if it was counted behind the latest and is of well before it, or of long before it.
        """
        delivery, fields = event.delivery, event.__dict__
        text, serial = fields["event_time_text"], fields["serial"]
        time = (read_time(text, delivery.zone) if text else None) or delivery.received_at or NEVER
        moment = time, -1 if serial is None else serial
        latest = self.latest
        if latest is None:
            return moment, False
        return moment, latest[0] - time > FAR or set_back(latest, moment)


_KEPT: Final = (
    *("device", "agent", "mode", "reason", "epoch"),
    *("since", "timed", "back", "latest", "worked"),
)


def _plain(seat: Seat) -> list[Any]:
    """Return what is known of a seat, as plain values."""
    return [getattr(seat, name) for name in _KEPT]


def _seat_of(kept: list[Any]) -> Seat:
    """Return the seat of which this was known.

    Raises:
        ValueError, TypeError: It was none's.
    """
    device, agent, mode, reason, epoch, since, timed, back, latest, worked = kept
    seat = Seat(device)
    seat.agent, seat.mode, seat.reason, seat.epoch = agent, mode, reason, epoch
    seat.since, seat.timed, seat.back = datetime.fromisoformat(since), timed, back
    seat.latest = latest and (datetime.fromisoformat(latest[0]), latest[1])
    began, ended = (one and read_kept(one) for one in worked)
    seat.worked = began, ended
    return seat


def _namespace(device: str) -> str:
    """Return in which namespace a device is: its agents' short ids are completed with it."""
    return device.partition("@")[2]


CallsAt = Callable[[str], tuple[str, ...]]
"""Tells the ids of the calls that a device is in, the oldest first."""


def _no_calls(_device: str) -> tuple[str, ...]:
    return ()


class AgentTracker:
    """Follows the agents of all devices; a `Tracker`.

    Args:
        wanted: The classes of notices that somebody wants; no others are made.

    Attributes:
        inconsistencies: How many steps could not follow.
        wrap_ups: What the last event said of work after calls.
    """

    def __init__(self, *, wanted: Kinds) -> None:
        """Begin with nobody."""
        self.inconsistencies = 0
        self.wrap_ups: list[WrapUp] = []
        self._wanted = wanted
        self._telling = Telling(wanted)
        self._epoch = 0
        self._seats: dict[str, Seat] = {}
        # By agent; of one whose seat another has taken, as it was then.
        self._where: dict[str, Seat] = {}

    def __repr__(self) -> str:
        return f"<AgentTracker {len(self._where)} agents at {len(self._seats)} devices>"

    # What is there

    @property
    def agents(self) -> tuple[str, ...]:
        """Everybody who was ever named."""
        return tuple(self._where)

    @property
    def devices(self) -> tuple[str, ...]:
        """Everywhere that anybody was heard of."""
        return tuple(self._seats)

    def modes(self) -> dict[str, int]:
        """Count the seats by mode; one that is not the catalogue's is `Other`."""
        counts = dict.fromkeys((*_LISTED, OTHER), 0)
        for seat in self._seats.values():
            if seat.mode is not None:
                counts[seat.mode if seat.mode in _LISTED else OTHER] += 1
        return counts

    def at(self, device: str) -> Seat | None:
        """Return who sits at a device, or sat there last."""
        return self._seats.get(device)

    def seat_of(self, agent: str) -> Seat | None:
        """Return where an agent sits, or sat last."""
        return self._where.get(agent)

    def is_taken(self, seat: Seat) -> bool:
        """Tell whether somebody else sits there by now."""
        return self._seats.get(seat.device) is not seat

    def is_doubted(self, seat: Seat) -> bool:
        """Tell whether events of it may have been missed since the last."""
        return seat.epoch < self._epoch

    def snapshot(self, seat: Seat, calls: tuple[str, ...] = ()) -> Agent:
        """Return what is known of who sits there, or sat there last.

        Args:
            seat: Where.
            calls: The calls of the device.
        """
        return Agent(
            id=seat.agent,
            device=seat.device,
            mode=seat.mode or UNKNOWN,
            since=seat.since,
            reason=seat.reason,
            calls=calls,
            allocated=seat.mode == ALLOCATED,
            uncertain=self.is_doubted(seat),
        )

    # What comes

    def apply(
        self, event: Event, key: tuple[Any, ...] | None = None, calls_at: CallsAt = _no_calls
    ) -> Sequence[Derived]:
        """Take an event; return what follows from it, in order.

        Args:
            event: The event; one that is not about an agent is passed over.
            key: What dedupe compared, where that is at hand.
            calls_at: Tells the calls of a device; asked only where a notice has them.
        """
        if self.wrap_ups:
            self.wrap_ups = []
        device, kind = event.device, type(event)
        if device is None or kind not in AGENT_EVENTS:
            return ()
        seat = self._seats.get(device)
        if seat is None:
            seat = self._seats[device] = Seat(device)
        fields = event.__dict__
        key = key or event.key
        mode = MODES.get(kind) or fields["agent_mode"] or UNKNOWN
        moment, back = seat.moment_of(event)
        time = moment[0]
        if not back and self._is_late(seat, moment, mode):
            return ()
        name, left = fields["agent_id"], seat.mode
        agent = full_id(name, fields["namespace"] or _namespace(device)) if name else seat.agent
        same, sure = agent == seat.agent, seat.epoch == self._epoch
        telling = self._telling.of(key, event.delivery.received_at or time)
        if sure and (not same or left == LOGGED_OFF):
            self._mind_order(seat, event, telling)
        reason = fields.get("reason") or None  # only `agentNotReady` has the field
        known = (sure or seat.back) and seat.timed and left is not None and not back
        if left == WORKING:
            began = seat.worked[0] or seat.since
            seat.worked = began, time
            self.wrap_ups.append((seat.agent, began, time, known))
        if mode == WORKING:  # again, if another call has ended meanwhile
            seat.worked = time, None
            self.wrap_ups.append((agent, time, None, True))
        seat.latest, seat.epoch, seat.back = moment, -1 if back else self._epoch, back
        if same and mode == left and reason == seat.reason:
            seat.timed = seat.timed and not back
            return telling.notices
        previous, since = (left, seat.since) if known and same else (None, None)
        self._make_way(seat, agent)
        seat.agent, seat.mode, seat.reason = agent, mode, reason
        seat.since, seat.timed = time, True
        if not same or left in (None, LOGGED_OFF):
            self._leave_one(seat, moment, telling)
        self._sit(seat)
        seconds = None if since is None else max(0.0, (time - since).total_seconds())
        self._tell(seat, telling, previous=previous, seconds=seconds, calls_at=calls_at)
        return telling.notices

    def _tell(
        self,
        seat: Seat,
        telling: Telling,
        *,
        previous: str | None = None,
        seconds: float | None = None,
        inferred: bool = False,
        calls_at: CallsAt = _no_calls,
    ) -> None:
        """Tell how somebody stands now, if anybody wants it."""
        if AgentStateChanged in self._wanted:
            telling.add(
                AgentStateChanged,
                seat.device,
                inferred=inferred,
                agent=self.snapshot(seat, calls_at(seat.device)),
                previous=previous,
                seconds=seconds,
                reason=seat.reason,
            )

    def adopt(
        self,
        device: str,
        snapshot: DeviceSnapshot,
        now: datetime,
        *,
        calls: tuple[str, ...] = (),
    ) -> Sequence[Derived]:
        """Take what somebody says of who sits there; return what differs.

        Args:
            device: Where.
            snapshot: What is said.
            now: When.
            calls: The calls of the device.
        """
        if not snapshot.mode:
            return ()
        seat = self._seats.get(device)
        if seat is None:
            seat = self._seats[device] = Seat(device)
        since = snapshot.since
        agent = full_id(snapshot.agent, _namespace(device)) if snapshot.agent else seat.agent
        reason, before = snapshot.reason, (seat.agent, seat.mode)
        if reason is None and (agent, snapshot.mode) == before:
            reason = seat.reason
        if since is not None:
            latest = seat.latest or (since, -1)
            if since < latest[0] and (agent, snapshot.mode) != before:
                return ()  # of before what is known
            seat.latest = max(latest, (since, -1))  # what happened before is known by this
        changed = (agent, snapshot.mode, reason) != (seat.agent, seat.mode, seat.reason)
        if not changed and seat.epoch == self._epoch:
            return ()
        self._make_way(seat, agent)
        # It may have changed and changed back, so what was known of when is not.
        seat.agent, seat.mode, seat.reason = agent, snapshot.mode, reason
        seat.since = since or (now if changed else seat.since)
        seat.timed = since is not None
        seat.worked = since if seat.mode == WORKING else None, None
        telling = self._telling.of(None, now)
        self._leave_one(seat, None if since is None else (since, _LAST), telling)
        self._sit(seat)
        if not changed:
            return telling.notices
        self._tell(seat, telling, inferred=True, calls_at=lambda _device: calls)
        return telling.notices

    def confirm(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Be sure of who sits there, if that was said."""
        seat = self._seats.get(device)
        if seat is not None and snapshot.mode:
            seat.epoch = self._epoch

    def _is_late(self, seat: Seat, moment: Moment, mode: str) -> bool:
        """Tell whether what is before the latest is late; a wrap-up still tells when it began."""
        if seat.latest is None or moment >= seat.latest:
            return False
        if seat.mode == WORKING:
            return True
        latest, time = seat.latest[0], moment[0]
        since, until = seat.worked
        if mode == WORKING:  # it began then, and ended with what came first
            if since is not None and until is not None and since < time < until:
                self.wrap_ups.append((seat.agent, since, time, True))
            since, until = time, seat.since if seat.since >= time else latest
        elif since is not None and until is not None and since <= time < until:
            until = time  # it ended before we heard
        else:
            return True
        if since <= until:
            seat.worked = since, until
            self.wrap_ups.append((seat.agent, since, until, True))
        return True

    def _mind_order(self, seat: Seat, event: Event, telling: Telling) -> None:
        """Say that an event is of somebody who is not logged on here, unless it logs them on."""
        if type(event) is events.AgentLoggedOn or (seat.agent is None and seat.mode != LOGGED_OFF):
            return
        self.inconsistencies += 1
        on = ("agentLoggedOn",)
        telling.add(
            Inconsistency,
            seat.device,
            call=None,
            expected=on if seat.mode == LOGGED_OFF else ("agentLoggedOff", *on),
            got=event.event_name,
        )

    def _make_way(self, seat: Seat, agent: str | None) -> None:
        """Keep how who sat there left, if this is another; uncertain where nobody said so."""
        before = seat.agent
        if before is not None and before != agent and self._where.get(before) is seat:
            self._where[before] = left = copy(seat)
            if left.mode != LOGGED_OFF:
                left.epoch = -1

    def _leave_one(self, seat: Seat, told: Moment | None, telling: Telling) -> None:
        """Have an agent who logs on gone from elsewhere: nobody sits in two places.

        If that was later, they are gone from here by now.

        Args:
            seat: Where they are said to sit.
            told: Of when that is said; None: of now.
            telling: What follows.
        """
        last = self._where.get(seat.agent or "")
        if last is None or last.device == seat.device or seat.mode == LOGGED_OFF:
            return
        if self.is_taken(last) or last.mode in (None, LOGGED_OFF):
            return
        there = last.latest
        late = there is not None and told is not None and told < there and not set_back(there, told)
        gone = seat if late else last
        previous, gone.mode, gone.reason = gone.mode, LOGGED_OFF, None
        gone.since, gone.timed, gone.epoch = max(seat.since, last.since), False, -1
        if gone is last:
            self._tell(last, telling, previous=previous, inferred=True)

    def _sit(self, seat: Seat) -> None:
        """Note where an agent sits: where it was seen last, but not where it has logged off."""
        if seat.agent is None:
            return
        last = self._where.get(seat.agent)
        if last is None or seat.mode != LOGGED_OFF or seat.device == last.device:
            self._where[seat.agent] = seat

    # For later runs

    def remembered(self) -> dict[str, Any]:
        """Return what it knows, as plain values."""
        where = self._where.items()
        return {
            "epoch": self._epoch,
            "seats": [_plain(seat) for seat in self._seats.values()],
            "where": {agent: seat.device for agent, seat in where if not self.is_taken(seat)},
            "left": [_plain(seat) for _, seat in where if self.is_taken(seat)],
        }

    def remember(self, kept: dict[str, Any]) -> None:
        """Go on with what another tracker knew.

        Raises:
            KeyError, ValueError, TypeError: It was no tracker's.
        """
        self._epoch = kept["epoch"]
        self._seats = {seat.device: seat for seat in map(_seat_of, kept["seats"])}
        self._where = {agent: self._seats[device] for agent, device in kept["where"].items()}
        for seat in map(_seat_of, kept["left"]):
            self._where[str(seat.agent)] = seat

    # What was missed

    def missed(self, devices: frozenset[str]) -> None:
        """Doubt what is known of these devices, of all if there are none."""
        if not devices:
            self._epoch += 1
        for device in devices:
            if device in self._seats:
                self._seats[device].epoch = -1

    def expire(self, now: datetime) -> Sequence[Derived]:  # noqa: ARG002 - agents never expire
        """Give up nobody: an agent stays as last heard of."""
        return ()
