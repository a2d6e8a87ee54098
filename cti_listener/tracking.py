"""Calls and agents, tracked together: each event folded once, and what follows from it.

The pipeline gives each event here, behind dedupe, before it goes on; the listener shows the views.
Nothing is tracked before somebody asks (`begin`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from cti_listener.derived import Derived
from cti_listener.errors import ConfigurationError
from cti_listener.event_base import Event
from cti_listener.events import (
    AgentAllocated,
    AgentLoggedOn,
    AgentReady,
    AgentWorkingAfterCall,
    load_object,
)
from cti_listener.notices import Gap
from cti_listener.records import Agent, Call, State
from cti_listener.snapshots import DeviceSnapshot
from cti_listener.trackers.agents import AGENT_EVENTS, ALLOCATED, LOGGED_OFF, AgentTracker
from cti_listener.trackers.base import Tracker
from cti_listener.trackers.calls import TIMEOUT, CallTracker
from cti_listener.trackers.facts import INFERRED
from cti_listener.trackers.kinds import NEVER
from cti_listener.values import full_id

INTERNAL = r"\d{1,6}"
"""Which user parts are ours by default: numbers too short for an outside line."""


_OF_CALLS = frozenset({AgentAllocated, AgentLoggedOn})
"""What is said of an agent and always says something of calls."""

_OF_IDLE = frozenset({AgentLoggedOn, AgentReady, AgentWorkingAfterCall, AgentAllocated})
"""What is said of an agent who is in no call."""


class Tracking:
    """Folds events into calls and agents.

    Args:
        wanted: What somebody wants; no other derived notices are made.
        namespace: Completes short ids when the views are asked.
        internal: A pattern for the whole user part of ids that are ours.
        timeout: Who gave no sign in a call for so long is given up, in seconds.

    Attributes:
        calls: The calls, a live view.
        agents: The agents, likewise.
        call_tracker: What follows the calls.
        agent_tracker: What follows the agents.

    Raises:
        ConfigurationError: The pattern is none, or the time is.
    """

    def __init__(
        self,
        *,
        wanted: Container[object],
        namespace: str | None = None,
        internal: str = INTERNAL,
        timeout: float = TIMEOUT,
    ) -> None:
        """Begin with nothing known."""
        try:
            self._internal = re.compile(internal)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigurationError("internal", f"is no regular expression: {error}") from None
        if timeout <= 0:
            raise ConfigurationError("call_timeout", "must be more than 0")
        self._namespace = namespace
        self._wanted = wanted
        self._timeout = timeout
        self.forget()
        self.calls = Calls(self)
        self.agents = Agents(self, namespace)

    def forget(self) -> None:
        """Begin anew with nothing known; the views look at that."""
        self.agent_tracker = AgentTracker(wanted=self._wanted)
        self.call_tracker = CallTracker(
            is_internal=self.is_internal,
            sits_at=self._sits_at,
            doubts_agent=self._doubts_agent,
            wanted=self._wanted,
            timeout=self._timeout,
        )
        self._both: tuple[Tracker, ...] = self.agent_tracker, self.call_tracker

    def __repr__(self) -> str:
        return f"<Tracking {len(self.calls)} calls, {len(self.agents)} agents>"

    def is_internal(self, party: str) -> bool:
        """Tell whether a party is one of ours: by the pattern, or since its events come to us."""
        if self._internal.fullmatch(party.partition("@")[0]):
            return True
        return self.agent_tracker.at(party) is not None or self.call_tracker.board.knows(party)

    def _sits_at(self, device: str) -> str | None:
        """Tell who sits at a device."""
        seat = self.agent_tracker.at(device)
        return None if seat is None or seat.mode == LOGGED_OFF else seat.agent

    def _doubts_agent(self, device: str) -> bool:
        """Tell whether events of who sits at a device may have been missed since the last."""
        seat = self.agent_tracker.at(device)
        if seat is None or seat.mode == LOGGED_OFF:
            return False
        return self.agent_tracker.is_doubted(seat)

    def apply(self, event: Event, key: tuple[Any, ...] | None = None) -> Sequence[Derived]:
        """Take an event; return what follows from it, in order."""
        if type(event) in AGENT_EVENTS:
            return self._apply_to_agent(event, key)
        return self.call_tracker.apply(event, key)

    def _apply_to_agent(self, event: Event, key: tuple[Any, ...] | None) -> Sequence[Derived]:
        device = event.device
        if device is None:
            return ()
        agents, calls = self.agent_tracker, self.call_tracker
        key = key or event.key
        notices = agents.apply(event, key, calls.calls_at)
        if type(event) in _OF_IDLE:
            calls.note_idle(device)
        now = event.delivery.received_at or event.event_time or NEVER
        follow: list[Derived] = []
        told = type(event) in _OF_CALLS or calls.minds_agent(device)
        if told and (happened := event.event_time) is not None:
            follow += self._tell_calls(event, device, happened, now, key)
        for work in agents.wrap_ups:
            follow += calls.worked_after(device, work, now, key)
        return [*notices, *follow] if follow else notices

    def _tell_calls(
        self,
        event: Event,
        device: str,
        happened: datetime,
        now: datetime,
        key: tuple[Any, ...] | None,
    ) -> Sequence[Derived]:
        """Have the calls know what an agent's event says of them."""
        calls, seat = self.call_tracker, self.agent_tracker.at(device)
        moment = happened, event.serial if type(event.serial) is int else -1
        latest = None if seat is None else seat.latest
        late = latest is not None and latest > moment
        if type(event) is AgentAllocated:
            calls.allocated(device, moment, latest if late else None)
            return ()
        if late or seat is None:
            return ()  # what came first says how it stands
        works = type(event) is AgentWorkingAfterCall
        freed = calls.freed(device, moment, now, key, works=works)
        if type(event) is AgentLoggedOn and seat.agent is not None and seat.mode != LOGGED_OFF:
            return (*freed, *calls.seated(device, seat.agent, happened, now, key))
        return freed

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that were heard of."""
        return (*self.agent_tracker.devices, *self.call_tracker.board.devices)

    def adopt(self, device: str, snapshot: DeviceSnapshot, now: datetime) -> Sequence[Derived]:
        """Take what somebody says of a device; return what differs, in order."""
        calls = self.call_tracker.adopt(device, snapshot, now)
        there = self.call_tracker.calls_at(device)
        before = self.is_allocated(device)
        agents = self.agent_tracker.adopt(device, snapshot, now, calls=there)
        if self.is_allocated(device) and not before:
            self.call_tracker.allocated(device, (snapshot.since or now, INFERRED), None)
        return [*agents, *calls]

    def is_allocated(self, device: str) -> bool:
        """Tell whether an agent is set aside there for a call that the server dials."""
        seat = self.agent_tracker.at(device)
        return seat is not None and seat.mode == ALLOCATED

    def confirm(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Be sure of a device as far as was said, now that the events are folded that waited."""
        self.call_tracker.confirm(device, snapshot)
        self.agent_tracker.confirm(device, snapshot)

    def missed(self, gap: Gap) -> None:
        """Doubt what is known of whomever a gap concerns, unless the broker made up for it."""
        if not gap.recovered:
            for tracker in self._both:
                tracker.missed(gap.devices)

    def expire(self, now: datetime) -> Sequence[Derived]:
        """Give up what has shown no sign for too long; return what follows from that."""
        return [notice for tracker in self._both for notice in tracker.expire(now)]

    # For later runs

    def remembered(self) -> bytes:
        """Return what it knows as JSON, for `remember`."""
        kept = {"agents": self.agent_tracker.remembered(), "calls": self.call_tracker.remembered()}
        try:
            return to_json(kept, inf_nan_mode="constants")
        except ValueError:  # a lone surrogate, which has no UTF-8
            return json.dumps(kept, default=datetime.isoformat).encode()

    def remember(self, kept: bytes) -> None:
        """Go on with what another tracking knew; before anything is applied.

        Raises:
            KeyError, ValueError, TypeError: It was none's.
        """
        told = load_object(kept)
        self.agent_tracker.remember(told["agents"])
        self.call_tracker.remember(told["calls"])

    @property
    def legs(self) -> int:
        """How many devices are in calls, each call counted."""
        return self.call_tracker.board.legs

    @property
    def inconsistencies(self) -> int:
        """How many steps could not follow what was known."""
        return self.call_tracker.inconsistencies + self.agent_tracker.inconsistencies


class Calls(Mapping[str, Call]):
    """The calls that go on, by id: a live view, whose values are snapshots."""

    def __init__(self, tracking: Tracking) -> None:
        """Look at this tracking."""
        self._tracking = tracking

    def __repr__(self) -> str:
        return f"<Calls {', '.join(self) or 'none'}>"

    def __getitem__(self, call: str) -> Call:
        found = self._tracking.call_tracker.call(call)
        if found is None:
            raise KeyError(call)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._tracking.call_tracker.board.calls)

    def __len__(self) -> int:
        return len(self._tracking.call_tracker.board)

    def states(self) -> dict[State, int]:
        """Count the calls by the furthest state of a device of ours in them."""
        return self._tracking.call_tracker.board.states()


class Agents(Mapping[str, Agent]):
    """The agents that were heard of, by id: a live view, whose values are snapshots.

    It may be asked by device as well, and by short ids.
    """

    def __init__(self, tracking: Tracking, namespace: str | None) -> None:
        """Look at this tracking."""
        self._tracking = tracking
        self._namespace = namespace

    def __repr__(self) -> str:
        return f"<Agents {', '.join(self) or 'none'}>"

    def __getitem__(self, name: str) -> Agent:
        tracker, full = self._tracking.agent_tracker, full_id(name, self._namespace)
        seat = tracker.seat_of(name) or tracker.seat_of(full) or tracker.at(full)
        if seat is None or seat.mode is None:
            raise KeyError(name)
        if tracker.is_taken(seat):  # the device's calls are another's
            return tracker.snapshot(seat)
        return tracker.snapshot(seat, self._tracking.call_tracker.calls_at(seat.device))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tracking.agent_tracker.agents)

    def __len__(self) -> int:
        return len(self._tracking.agent_tracker.agents)

    def modes(self) -> dict[str, int]:
        """Count the devices somebody sits at by mode; a mode of the server's own is `Other`."""
        return self._tracking.agent_tracker.modes()
