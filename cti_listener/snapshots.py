"""What somebody who can ask the server says of one device: what `Listener(snapshot=)` returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cti_listener.errors import ConfigurationError

CallState = Literal["initiated", "alerting", "connected", "held"]
"""The device's own state in a call, as CSTA names connection states."""

_STATES = frozenset({"initiated", "alerting", "connected", "held"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSnapshot:
    """One call of a device.

    Attributes:
        id: The call's id, as events have it.
        state: The device's own state in it.
        calling: Who calls; a full id, or a short one of the device's namespace.
        called: Who is called, likewise.
        alerted: Since when it rings, or rang, by the server's clock, aware; None: not known.
        answered: When it was answered, likewise.

    Raises:
        ConfigurationError: There is no id, the state is none of these, a time is not aware, or
            something is of another type.
    """

    id: str
    state: CallState
    calling: str | None = None
    called: str | None = None
    alerted: datetime | None = None
    answered: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be used, where whoever wrote it sees it."""
        _refuse_others(str, id=self.id)
        _refuse_others(str | None, calling=self.calling, called=self.called)
        _refuse_others(datetime | None, alerted=self.alerted, answered=self.answered)
        if not self.id or self.id == "0":
            raise ConfigurationError("id", f"{self.id!r} names no call; leave such a call out")
        if self.state not in _STATES:
            states = ", ".join(sorted(_STATES))
            raise ConfigurationError("state", f"{self.state!r} is none of {states}")
        _refuse_naive(alerted=self.alerted, answered=self.answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSnapshot:
    """One device, and who sits there. What is None is not known, and stays as it is.

    Attributes:
        agent: The agent, a full id or a short one of the device's namespace.
        mode: As `agentMode` has it: `Ready`, `NotReady`, `WorkNotReady`, `Allocated`, `Logout`.
        reason: Why not ready.
        since: Since when in that mode, by the server's clock, aware.
        calls: Its calls. One that is not among them is not ended by that.
        complete: There are no others, so that from now on a step that cannot follow is told as an
            `Inconsistency`.

    Raises:
        ConfigurationError: A time is not aware, there is an agent without a mode, or something is
            of another type.
    """

    agent: str | None = None
    mode: str | None = None
    reason: str | None = None
    since: datetime | None = None
    calls: tuple[CallSnapshot, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be used, where whoever wrote it sees it."""
        _refuse_others(str | None, agent=self.agent, mode=self.mode, reason=self.reason)
        _refuse_others(datetime | None, since=self.since)
        _refuse_others(tuple, calls=self.calls)
        for one in self.calls:
            _refuse_others(CallSnapshot, calls=one)
        if self.agent and not self.mode:
            raise ConfigurationError("mode", "is needed where an agent is given")
        _refuse_naive(since=self.since)


SnapshotHook = Callable[[str], Awaitable[DeviceSnapshot | None]]
"""Given a device as a full id, returns how it stands; None: that cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStats:
    """How the questions fared.

    Attributes:
        asked: How often a device was asked about.
        answered: How often with an answer.
        failed: How often the question raised, took too long, or held up too many events.
        waiting: Events that wait for an answer now.
    """

    asked: int
    answered: int
    failed: int
    waiting: int


def _refuse_others(kind: Any, **values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", str(kind))
            raise ConfigurationError(name, f"{value!r:.100} is no {wanted}")


def _refuse_naive(**times: datetime | None) -> None:
    for name, time in times.items():
        if time is not None and time.tzinfo is None:
            raise ConfigurationError(name, "must say in which time zone it is (tzinfo)")
