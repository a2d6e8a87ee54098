"""The board: all legs, by their ids, by device and by call; and which devices are sure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from zlib import crc32

from cti_listener.records import State
from cti_listener.trackers.facts import Fact, Moment
from cti_listener.trackers.legs import Leg, begins_anew, set_back
from cti_listener.trackers.memory import read_time
from cti_listener.trackers.states import RANKS

LINGER: Final = timedelta(seconds=5)
"""For how long a leg that is over waits for what comes late."""

RECORDING: Final = timedelta(seconds=60)
"""For how much longer it waits for the end of a recording."""

NOT_DUE: Final = datetime.max.replace(tzinfo=UTC)
"""When nothing is to be forgotten."""

REMEMBERED: Final = 8
"""So many ids of calls that are over are known of each device, so that no straggler begins one of
them anew. So many recordings too whose end has yet to come: it is of no other call."""

MOST_LEFT: Final = 50
"""So many legs at most are kept of who has left a call that goes on: the latest."""


class Gone(NamedTuple):
    """A call that was over at a device.

    Attributes:
        digest: Tells it from others.
        ended: When the device hung up, or if that is not known, its latest step ...
        serial: ... and the serial of what said so (-1: none).
        given_up: Nobody said that it had ended.
        hung_up: The device hung up.
    """

    digest: int
    ended: datetime
    serial: int
    given_up: bool
    hung_up: bool

    @property
    def end(self) -> Moment:
        """When it was over."""
        return self.ended, self.serial

    def is_behind(self, fact: Fact) -> bool:
        """Tell whether it was over no earlier than this."""
        return fact[:2] <= self.end and not set_back(self.end, fact[:2])


class Board:
    """Where the legs are found.

    Attributes:
        epoch: How often events of all devices may have been missed.
        due: When the next leg is to be forgotten.
        known: The legs that go on or are just over, by device and by all ids each ever had.
    """

    def __init__(self) -> None:
        """Begin with no leg, and no device that is sure."""
        self.epoch = 0
        self.due = NOT_DUE
        self.known: dict[tuple[str, str | None], Leg] = {}
        self._at: dict[str, tuple[Leg, ...]] = {}  # by device, those that go on
        self._in: dict[str, tuple[Leg, ...]] = {}  # by call, likewise
        # By call: those that are just over, and while others go on in it, all that were in it.
        self._left: dict[str, tuple[Leg, ...]] = {}
        self._over: OrderedDict[Leg, datetime] = OrderedDict()  # and until when to keep each
        self._over_at: dict[str, tuple[Leg, ...]] = {}  # by device, likewise
        self._gone: dict[str, tuple[Gone, ...]] = {}  # by device
        # By device: forgotten, but for a recording of it that goes on; and when that is over.
        self._recording: dict[str, tuple[Leg, ...]] = {}
        self._recorded_until: deque[tuple[datetime, Leg]] = deque()
        self._recorded: dict[str, tuple[str, ...]] = {}  # by device: the ids of such recordings
        self._count = 0
        self._certain: dict[str, int] = {}  # in which epoch a device was sure
        self._followed: dict[str, int] = {}  # ... and had a call from its beginning to its end

    def __repr__(self) -> str:
        return f"<Board {len(self._in)} calls, {len(self.just_over)} just over>"

    # Finding

    @property
    def calls(self) -> tuple[str, ...]:
        """The ids of the calls that go on."""
        return tuple(self._in)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that are in calls, or were."""
        return tuple(dict.fromkeys((*self._at, *self._over_at, *self._gone)))

    def knows(self, device: str) -> bool:
        """Tell whether a device is in a call, or was."""
        return device in self._at or device in self._over_at or device in self._gone

    def __len__(self) -> int:
        return len(self._in)

    @property
    def legs(self) -> int:
        """How many legs go on."""
        return self._count

    def states(self) -> dict[State, int]:
        """Count the calls that go on by the furthest state of a device in them."""
        counts: dict[State, int] = dict.fromkeys(RANKS, 0)
        for legs in self._in.values():
            counts[max((_shown(leg) for leg in legs), key=RANKS.__getitem__)] += 1
        return counts

    def at(self, device: str) -> tuple[Leg, ...]:
        """Return the legs of a device that go on, the oldest first."""
        return self._at.get(device, ())

    def of(self, call: str) -> tuple[Leg, ...]:
        """Return the legs of a call that go on."""
        return self._in.get(call, ())

    def left(self, call: str) -> tuple[Leg, ...]:
        """Return the legs of a call that are over, while others of it go on; the oldest first."""
        left = self._left.get(call)
        return tuple([leg for leg in left if leg.begun]) if left else ()

    def over_at(self, device: str) -> tuple[Leg, ...]:
        """Return the legs of a device that are just over, the latest first."""
        return self._over_at.get(device, ())

    @property
    def just_over(self) -> list[Leg]:
        """The legs that wait for what comes late."""
        return [leg for leg in self._over if leg.ended]

    def is_gone(self, device: str, call: str, fact: Fact | None = None) -> bool:
        """Tell whether a call is one of the last that were over at a device, and forgotten.

        Args:
            device: Where.
            call: Its id.
            fact: What came of it; it is not gone if this has it go on behind its end.
        """
        gone = self.gone_at(device, call)
        if gone is None or fact is None:
            return gone is not None
        hung_up = gone.end if gone.hung_up else None
        if not begins_anew(fact, device, hung_up, given_up=gone.given_up):
            return True
        return gone.is_behind(fact)

    @property
    def recording(self) -> list[Leg]:
        """The legs that wait for the end of a recording, and for nothing else."""
        return [leg for _, leg in self._recorded_until]

    def recording_at(self, device: str) -> tuple[Leg, ...]:
        """Return the legs of a device that are over, and of which a recording goes on."""
        return self._recording.get(device, ())

    def was_recorded(self, device: str, record: str | None) -> bool:
        """Tell whether a recording is of a call that was over at a device, and is forgotten."""
        return record in self._recorded.get(device, ())

    def end_of(self, device: str, call: str) -> Moment | None:
        """Return when a call that is over was so at a device, if that is known."""
        leg = self.known.get((device, call))
        if leg is not None:
            return leg.end if leg.told else None
        gone = self.gone_at(device, call)
        return None if gone is None else gone.end

    def ended_behind(self, device: str, call: str, fact: Fact) -> bool:
        """Tell whether a call that is forgotten was over at a device behind this."""
        gone = self.gone_at(device, call)
        return gone is not None and gone.is_behind(fact)

    def gone_at(self, device: str, call: str) -> Gone | None:
        """Return how a call was over at a device that is forgotten, if it is one of the last."""
        known = self._gone.get(device)
        if not known:
            return None
        told = _digest(call)
        return next((one for one in reversed(known) if one.digest == told), None)

    def silent_since(self, limit: datetime) -> list[Leg]:
        """Return the legs that go on and have shown no sign since then."""
        return [leg for legs in self._at.values() for leg in legs if leg.sign < limit]

    # Changing

    def enter(self, leg: Leg) -> None:
        """Put a leg among those that go on, again if it was taken for one that is over."""
        if leg.ended:
            leg.ended = False
            _take_out(self._over_at, leg.device, leg)
            _take_out(self._left, leg.call, leg)
        device, call = leg.device, leg.call
        self.known[device, call] = leg
        for one in leg.former:
            self.known[device, one] = leg
        there = self._at.get(device)
        self._at[device] = (leg,) if there is None else (*there, leg)
        there = self._in.get(call)
        self._in[call] = (leg,) if there is None else (*there, leg)
        self._count += 1

    def lay_aside(self, leg: Leg, now: datetime) -> None:
        """Keep a leg that is over, or of which only the end is known, for a while."""
        leg.ended = True
        device, over = leg.device, self._over
        self._leave(leg)
        self.known[device, leg.call] = leg
        if over.pop(leg, None) is not None:  # it was taken for over before
            _take_out(self._over_at, device, leg)
            _take_out(self._left, leg.call, leg)
        over[leg] = now + LINGER
        there = self._over_at.get(device)
        self._over_at[device] = (leg,) if there is None else (leg, *there)
        self._keep_left(leg)
        self.due = min(self.due, over[leg])

    def rename(self, leg: Leg, call: str, fact: Fact) -> None:
        """Go on with a leg under another id.

        Args:
            leg: Which one.
            call: The other id. What is known under that is its own, unless it was over before.
            fact: What says so.
        """
        self._leave(leg)
        _take_out(self._left, leg.call, leg)
        other = self.known.get((leg.device, call))
        before = other is not None and other.told and other.was_over_before(fact)
        if other is not None and other is not leg and not before:
            self._leave(other)
            self._over.pop(other, None)
            _take_out(self._over_at, other.device, other)
            _take_out(self._left, other.call, other)
            leg.absorb(other)
        ids = dict.fromkeys((*leg.former, leg.call))
        leg.former, leg.call = tuple([one for one in ids if one != call]), call
        self.enter(leg)

    def forget(self, now: datetime) -> None:
        """Forget the legs that have waited long enough."""
        over, recorded = self._over, self._recorded_until
        while over and over[next(iter(over))] < now:
            leg, _ = over.popitem(last=False)
            _take_out(self._over_at, leg.device, leg)
            if leg.ended:
                self._forget(leg, now)
        while recorded and recorded[0][0] < now:
            _, leg = recorded.popleft()
            _take_out(self._recording, leg.device, leg)
        self.due = over[next(iter(over))] if over else NOT_DUE

    def _forget(self, leg: Leg, now: datetime) -> None:
        device, ids = leg.device, (leg.call, *leg.former)
        for one in ids:
            if self.known.get((device, one)) is leg:
                del self.known[device, one]
        if leg.call not in self._in:
            _take_out(self._left, leg.call, leg)
        if going_on := leg.recordings_going_on:
            self._keep_recording(leg, now + RECORDING)
            recorded = *self._recorded.get(device, ()), *going_on
            self._recorded[device] = recorded[-REMEMBERED:]
        if leg.told:
            ended, serial = leg.end or leg.facts[0][:2]
            given_up = leg.expired is not None
            hung_up = leg.hung_up is not None
            gone = [Gone(_digest(one), ended, serial, given_up, hung_up) for one in ids]
            self._gone[device] = (*self._gone.get(device, ()), *gone)[-REMEMBERED:]

    def _keep_recording(self, leg: Leg, until: datetime) -> None:
        self._recorded_until.append((until, leg))
        self._recording[leg.device] = (*self.recording_at(leg.device), leg)

    def _leave(self, leg: Leg) -> None:
        self._count -= _take_out(self._at, leg.device, leg)
        call = leg.call
        if _take_out(self._in, call, leg) and call in self._left and call not in self._in:
            for one in self._left[call]:  # nobody is in it any more
                if one not in self._over:
                    _take_out(self._left, call, one)

    def _keep_left(self, leg: Leg) -> None:
        there = self._left.get(leg.call)
        self._left[leg.call] = (leg,) if there is None else (*there, leg)[-MOST_LEFT:]

    # Certainty

    def doubt(self, devices: frozenset[str]) -> None:
        """Be sure no longer of these devices, of all if there are none."""
        if not devices:
            self.epoch += 1
            for leg in self:
                leg.holds = False
        for device in devices:
            self._certain.pop(device, None)
            self._followed.pop(device, None)
            for leg in self.at(device):
                leg.uncertain, leg.holds = True, False

    def confirm(self, device: str) -> None:
        """Be sure of a device: it is in no call but those that are known."""
        self._certain[device] = self.epoch

    def is_certain(self, device: str) -> bool:
        """Tell whether a device is known to be in no call but those that are known."""
        return self._certain.get(device) == self.epoch

    def note_followed(self, device: str) -> None:
        """Note that a call at a device is over of which nothing was missed."""
        self._followed[device] = self.epoch

    def is_followed(self, device: str) -> bool:
        """Tell whether a call that begins now at a device is seen from its beginning."""
        return self.is_certain(device) or self._followed.get(device) == self.epoch

    def is_doubtful(self, leg: Leg) -> bool:
        """Tell whether events of a leg may have been missed, or could not follow each other."""
        return leg.uncertain or leg.epoch < self.epoch

    # For later runs

    def remembered(self, number: Callable[[Leg], int]) -> dict[str, Any]:
        """Return what there is, as plain values; of legs the numbers."""
        return {
            "epoch": self.epoch,
            "at": [number(leg) for leg in self],
            "over": [(until, number(leg)) for leg, until in self._over.items() if leg.ended],
            "in": [[number(leg) for leg in legs] for legs in self._in.values()],
            "left": [[number(leg) for leg in legs] for legs in self._left.values()],
            "recording": [(until, number(leg)) for until, leg in self._recorded_until],
            "recorded": self._recorded,
            "gone": self._gone,
            "certain": self._certain,
            "followed": self._followed,
        }

    def remember(self, kept: dict[str, Any], legs: Sequence[Leg]) -> None:
        """Go on with what another board knew.

        Raises:
            KeyError, IndexError, ValueError, TypeError: It was no board's.
        """
        self.epoch = kept["epoch"]
        self._gone = {
            device: tuple([Gone(digest, read_time(at), *more) for digest, at, *more in ids])
            for device, ids in kept["gone"].items()
        }
        self._recorded = {device: tuple(ids) for device, ids in kept["recorded"].items()}
        self._certain = dict(kept["certain"])
        self._followed = dict(kept["followed"])
        for until, number in kept["recording"]:
            self._keep_recording(legs[number], read_time(until))
        for until, number in kept["over"]:
            leg = legs[number]
            self.lay_aside(leg, read_time(until) - LINGER)
            for call in leg.former:
                self.known[leg.device, call] = leg
        for number in kept["at"]:  # behind these: a call may have come back under its own id
            self.enter(legs[number])
        self._in, self._left = (
            {legs[numbers[0]].call: tuple([legs[one] for one in numbers]) for numbers in kept[name]}
            for name in ("in", "left")
        )

    def __iter__(self) -> Iterator[Leg]:
        for legs in tuple(self._at.values()):
            yield from legs


def _shown(leg: Leg) -> State:
    """Return the state of a leg that goes on; one that was only heard of has begun."""
    return "initiated" if leg.state is None or leg.state not in RANKS else leg.state


def _digest(call: str) -> int:
    """Return what tells a call from others, in every process: wrong once in 500 million calls."""
    return crc32(call.encode("utf-8", "surrogatepass"))


def _take_out(index: dict[str, tuple[Leg, ...]], name: str, leg: Leg) -> int:
    """Take a leg out of an index, and the name with the last one; return how often it was there."""
    there = index.get(name)
    if there is None:
        return 0
    if len(there) == 1:  # nearly always
        if there[0] is not leg:
            return 0
        del index[name]
        return 1
    rest = tuple([one for one in there if one is not leg])
    if rest:
        index[name] = rest
    else:
        del index[name]
    return len(there) - len(rest)
