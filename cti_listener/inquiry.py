"""Asks who knows how devices stand; the events of a device wait at its gate meanwhile.

The pipeline says whom to ask about, and what comes of a device whose gate is closed. What to do
with an answer, and with what waited, is given by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cti_listener.log import log
from cti_listener.snapshots import DeviceSnapshot, SnapshotHook, SnapshotStats

MOST_WAITING: Final = 100
"""When so many events wait at one gate, its question is given up: once it opens, they all reach the
lanes together, and must fit."""

Call = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Gate:
    """What waits for one answer.

    Attributes:
        events: What to call for each event, in order.
        since: When the first of them came.
        behind: What else waits until they have passed.
    """

    events: list[Call] = field(default_factory=list)
    since: datetime | None = None
    behind: list[Call] = field(default_factory=list)


class Inquiry:
    """Asks about devices, a few at once.

    Args:
        ask: Whom to ask.
        spawn: Runs something beside the source.
        wanted: Tells whether a device is listened to.
        adopt: Takes an answer: the device, and what was said of it.
        passed: Takes it again once the events that waited for it have gone on.
        settled: Called when nothing is left to ask.
        timeout: How long one answer may take, in seconds.
        at_once: How many questions are open at once.
    """

    def __init__(
        self,
        ask: SnapshotHook,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wanted: Callable[[str], bool],
        adopt: Callable[[str, DeviceSnapshot], None],
        passed: Callable[[str, DeviceSnapshot], None],
        settled: Call,
        timeout: float,
        at_once: int,
    ) -> None:
        """Ask nothing yet."""
        self._ask = ask
        self._spawn = spawn
        self._is_wanted = wanted
        self._adopt = adopt
        self._passed = passed
        self._settled = settled
        self._timeout = timeout
        self._at_once = at_once
        self._wanted: dict[str, None] = {}  # to be asked about, in turn
        self._gates: dict[str, _Gate] = {}  # of those that are being asked about
        self._questions: set[asyncio.Future[Any]] = set()  # also those nobody waits for any more
        self._workers = 0
        self._left = False
        self._asked = self._answered = self._failed = 0

    def __repr__(self) -> str:
        return f"<Inquiry {len(self._gates)} open, {len(self._wanted)} to come>"

    def want(self, devices: Iterable[str]) -> None:
        """Ask about these in turn."""
        if self._left:
            return
        self._wanted.update(dict.fromkeys(devices))
        while self._workers < min(self._at_once, len(self._wanted) + len(self._gates)):
            self._workers += 1
            self._spawn(self._work())

    def doubt(self, devices: Iterable[str] = ()) -> None:
        """Wait no more for answers about these devices, or any: something of them was missed since.

        What waits goes on, ahead of whatever tells that; they are asked about anew when wanted.
        """
        for device in tuple(devices) or tuple(self._gates):
            if (gate := self._gates.get(device)) is not None:
                self._open(device, gate)

    # The gates

    def is_closed(self, device: str) -> bool:
        """Tell whether the events of a device have to wait."""
        return device in self._gates

    def hold(self, device: str, event: Call, at: datetime | None) -> None:
        """Have an event wait for the answer; the gate is closed.

        Args:
            device: Whose it is.
            event: Lets it go on.
            at: When it came.
        """
        gate = self._gates[device]
        gate.events.append(event)
        gate.since = gate.since or at
        if len(gate.events) >= MOST_WAITING:
            self._give_up(device, gate, f"{MOST_WAITING} of its events waited for the answer")

    @property
    def holding(self) -> bool:
        """Whether any event waits."""
        return any(gate.events for gate in self._gates.values())

    @property
    def holding_since(self) -> datetime | None:
        """When the first event came that waits; None: none does."""
        return min((one.since for one in self._gates.values() if one.since), default=None)

    def behind(self, call: Call) -> None:
        """Call once all events that wait now have gone on; at least one does."""
        gates = [gate for gate in self._gates.values() if gate.events]
        left = len(gates)

        def passed() -> None:
            nonlocal left
            left -= 1
            if not left:
                call()

        for gate in gates:
            gate.behind.append(passed)

    def leave(self) -> None:
        """Ask no more, and let everything go on."""
        self._left = True
        self._wanted.clear()
        self.doubt()

    def stats(self) -> SnapshotStats:
        """Return a frozen snapshot."""
        return SnapshotStats(
            asked=self._asked,
            answered=self._answered,
            failed=self._failed,
            waiting=sum(len(gate.events) for gate in self._gates.values()),
        )

    # Asking

    async def _work(self) -> None:
        """Ask about one device after another, until there is none left."""
        try:
            while self._wanted:
                device = next(iter(self._wanted))
                del self._wanted[device]
                if self._is_wanted(device) and device not in self._gates:
                    await self._ask_about(device)
        finally:
            self._workers -= 1
        if not self._gates and not self._wanted and not self._left:
            self._settled()

    async def _ask_about(self, device: str) -> None:
        gate = self._gates[device] = _Gate()
        self._asked += 1
        # A task of its own: what it swallows, or raises, is not ours; and it may outlast its time.
        question = asyncio.get_running_loop().create_task(self._put(device), name="cti-snapshot")
        self._questions.add(question)
        question.add_done_callback(self._note_end)
        try:
            await asyncio.wait([question], timeout=self._timeout)
        finally:
            question.cancel()
            if question.done():
                self._conclude(device, gate, question)
            else:
                self._give_up(device, gate, f"no answer within {self._timeout:g} s")

    def _note_end(self, question: asyncio.Future[object]) -> None:
        self._questions.discard(question)
        if not question.cancelled():
            question.exception()  # looked at, so that nobody complains of one that comes too late

    async def _put(self, device: str) -> object:
        return await self._ask(device)

    def _conclude(self, device: str, gate: _Gate, question: asyncio.Future[object]) -> None:
        """Take what came of a question."""
        if question.cancelled():
            self._give_up(device, gate, "the coroutine was cancelled")
        elif (error := question.exception()) is not None:
            self._give_up(device, gate, _words(error))
        elif self._gates.get(device) is not gate:
            pass  # it comes too late
        elif not isinstance(answer := question.result(), DeviceSnapshot | None):
            self._give_up(device, gate, f"{type(answer).__name__} returned, no DeviceSnapshot")
        elif answer is None or not self._is_wanted(device):
            self._open(device, gate)
        else:
            self._answered += 1
            self._adopt(device, answer)
            self._open(device, gate)
            self._passed(device, answer)

    def _give_up(self, device: str, gate: _Gate, problem: str) -> None:
        if self._gates.get(device) is gate:
            self._failed += 1
            log.warning("snapshot_failed", device=device, problem=problem)
            self._open(device, gate)

    def _open(self, device: str, gate: _Gate) -> None:
        """Let go on what waits at a gate that is closed."""
        del self._gates[device]
        for call in (*gate.events, *gate.behind):
            call()


def _words(error: BaseException) -> str:
    """Return an error in words, whatever it makes of itself."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the user's own class
        return type(error).__name__
