"""Durable subscriptions of a STOMP session: queues that RabbitMQ keeps while we are away.

The session (`wire.stomp`) asks here how to subscribe, and shows every message. What is known here
is what must be acknowledged, and whether what a queue held when we came, its backlog, is all in.

Nothing in STOMP tells how much a queue holds. A queue that has nothing to acknowledge and brings
nothing for a while is empty, if the broker answers meanwhile: it is asked to begin a transaction
and to abort it, and for a receipt. One that is never quiet gets a twin: a plain subscription to the
same destination, which shows one event that is published from then on. When the queue has brought
that one too, and then another, all that it held before is in, or was dropped: then it brought as
many as it may hold. One that is in and does not bring what its twin shows is shared: somebody else
takes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from cti_listener.values import identity, routing_key
from cti_listener.wire.stomp_frames import Frame, encode
from cti_listener.wire.stomp_terms import Terms

ACKS_A_MESSAGE: Final = 500
"""How many ACK frames go into one WebSocket message at most."""

TWIN_AFTER: Final = 2
"""A queue that was not quiet at so many looks is compared with its twin ..."""

TWIN_EVERY: Final = 10
"""... and again after so many more, should that have shown nothing."""

TWIN_HOLDS: Final = 300
"""For so many looks a twin's event is left unacknowledged. RabbitMQ allows half an hour."""

TWIN_AGAIN: Final = 180
"""After so many looks the busiest queue that is in is compared with its twin once more."""

TWIN_BESIDE: Final = 2
"""For so many looks the queue's own copy of what its twin shows may be on its way."""

TWIN_WAITS: Final = 5
"""For so many looks one that is in may be behind its twin."""

TWIN_MISSES: Final = 2
"""So many events in a row that only the twin had: of one, the queue's may have come before."""

QUESTION: Final = "look"
"""The transaction, and its receipt, by which a broker shows that it could have sent something."""

COPYING: Final = ("/topic/", "/exchange/")
"""Destinations that give each subscription its own copy; of others a twin would be a thief."""

MUTE: Final = 30
"""A broker that has not answered at so many looks does not answer at all."""

SLACK: Final = 2
"""What we acknowledged last may have come to the broker, and not to the queue. So a queue may have
to wait for us though what is on its way is less than it may be, but not for less than a half.
"""

RECENT: Final = 10_000
"""How many events are remembered to find the twin's among them."""


class Ack(NamedTuple):
    """What acknowledges one message.

    Attributes:
        subscription: The id of the subscription it came by.
        message: The message's `ack` header, or before STOMP 1.2 its `message-id`.
    """

    subscription: str
    message: str


class _Marked(NamedTuple):
    """A queue that waits has brought what its twin showed.

    All that was published before has come, or was dropped: of what it held when it dropped some,
    this may have been in the middle. What its twin shows next was published behind all of that.

    Attributes:
        asked_at: When the twin was asked.
        taken: What was taken by then.
    """

    asked_at: datetime | None
    taken: int


@dataclass(slots=True)
class _Queue:
    """One durable subscription."""

    destination: str
    confirmed: bool = False  # by its RECEIPT, or a message
    empty: bool = False  # all it held has come
    full: bool = False  # the broker had to wait until we acknowledge
    taken: int = 0
    unacknowledged: int = 0
    asked_with: int = 0  # how many it had to acknowledge when the question was asked
    since: int = 0  # how many it brought since then
    earlier: int = 0  # how many from the question before to that one, with what it had then
    before: int = 0  # and from the one before that
    covered: datetime | None = None  # up to when all that was published is known to have come
    fresh: bool = False  # it brought what it had brought to nobody before
    # All it brought outlives the broker, and stays until it is taken; None: it brought nothing.
    persistent: bool | None = None
    missed: int = 0  # events in a row that only its twin had
    shared: bool = False  # something that was in it came to somebody else
    looked: int = -1  # what was taken at the last look ...
    looked_at: datetime | None = None  # ... and when that was
    looks: int = 0
    held: int = 0  # how many messages it brought until it was empty
    twin: str | None = None  # its id, once there is one
    twin_ack: str | None = None  # acknowledges the event it shows; until then it shows no other
    twin_looks: int = 0  # for how long
    comparing: bool = False  # the twin is to show an event, and has not
    compared_at: datetime | None = None  # when it was asked to
    marked: _Marked | None = None  # since it waits: what its twin showed, the queue has brought
    mark: int | None = None  # that event, which the queue has yet to bring
    recent: set[int] = field(default_factory=set)  # what it brought while the twin showed nothing

    @property
    def lately(self) -> int:
        """How many it brought since the last but two questions, with what was on its way then.

        Since `covered`, if the last but one showed that nothing waited.
        """
        return self.since + self.earlier + self.before


class Queues:
    """The durable subscriptions of one session.

    Args:
        terms: What they are to be.
        post: Has a WebSocket message sent.

    Attributes:
        version: Of STOMP, once it is known.
        server: What the server calls itself.
        terms: As above.
        overtaken: Whether newer messages may have come by an earlier connection than such as a dead
            one holds, which the broker has yet to take back.
        mute: Whether it does not answer what `look` asks.
        late: Whether the message taken last comes behind newer ones: the broker took it back from
            another connection, which was dead. While `overtaken`, each that was taken back may.
    """

    def __init__(self, terms: Terms, post: Callable[[bytes], None]) -> None:
        """Begin with none."""
        self.terms = terms
        self.version = "1.0"
        self.server = ""
        self.overtaken = False
        self.late = False
        self.mute = False
        self._post = post
        self._queues: dict[str, _Queue] = {}
        self._twins: dict[str, _Queue] = {}
        self._due: list[Ack] = []
        self._learnt: list[str] = []
        self._looks = 0
        self._looked_at: datetime | None = None
        self._asked: int | None = None  # at how many looks a question of ours was not answered
        # When the last two questions were asked.
        self._asked_at: tuple[datetime | None, datetime | None] = None, None
        self._slow = False  # the answer took long, and no time has passed since

    def __repr__(self) -> str:
        return f"<Queues {self.terms.name}: {self._queues.keys()}>"

    def __contains__(self, subscription: str) -> bool:
        return subscription in self._queues

    @property
    def keeps(self) -> bool:
        """Whether the server is one that is known to keep a queue so asked for."""
        return self.server.startswith("RabbitMQ")

    def ask(self, destination: str) -> dict[str, str]:
        """Take a destination in; return the headers of its SUBSCRIBE, but for the receipt."""
        headers = self.terms.headers(destination)
        self._queues[headers["id"]] = _Queue(destination)
        return headers

    def confirm(self, subscription: str) -> None:
        """Note the RECEIPT of a subscription."""
        if subscription in self._queues:
            self._queues[subscription].confirmed = True

    def answered(self) -> None:
        """Note the RECEIPT of what `look` asked.

        What came before it was sent before it, and what we acknowledged before we asked is known to
        the broker. So if it is as much as may be on its way at once, less `SLACK`, a queue had to
        wait for us. Of an answer that took long, what we acknowledged may have taken as long: then
        it counts from the question before. What was judged while there was no answer counts for
        nothing. And a queue may have had to wait between two questions: it has brought since all
        that it kept.
        """
        deaf, self.mute = self.mute, False
        self._slow, self._asked = bool(self._asked), None
        for queue in self._queues.values():
            sent = queue.since + (queue.earlier if self._slow else queue.asked_with)
            if not queue.empty:
                continue
            on_its_way = SLACK * sent >= self.terms.prefetch
            if deaf or on_its_way or queue.lately >= self.terms.max_length:
                self._has_to_wait(queue)
                if deaf:
                    queue.taken, queue.covered = queue.taken + queue.held, None
            else:  # what we acknowledged last may have made room just before it answered
                self._cover(queue, self._asked_at[0])

    @property
    def ids(self) -> Sequence[str]:
        """The id of each."""
        return tuple(self._queues)

    # Messages

    def take(self, headers: Mapping[str, str], payload: dict[str, Any] | None) -> bool:
        """Take a MESSAGE; return False if it was only for us, and is to be shown to nobody.

        Args:
            headers: Its headers.
            payload: The event in it; None if it holds none.
        """
        subscription = headers.get("subscription", "")
        queue = self._queues.get(subscription)
        if queue is None:
            twin = self._twins.get(subscription)
            if twin is not None:
                self._twin_shows(twin, headers, payload)
            return twin is None
        queue.confirmed = True
        queue.taken += 1
        queue.since += 1
        again = headers.get("redelivered") == "true"
        self.late = again and (queue.fresh or self.overtaken)
        queue.fresh = queue.fresh or not again
        lasts = headers.get("persistent") == "true" and "expiration" not in headers
        if queue.persistent is None or (queue.persistent and not lasts):
            queue.persistent = lasts
            self._learnt.append(subscription)
        message = self._ack_of(headers)
        if message is not None:
            self._due.append(Ack(subscription, message))
            queue.unacknowledged += 1
            if queue.unacknowledged >= self.terms.prefetch:
                self._has_to_wait(queue)
        if payload is not None and (queue.comparing or queue.mark is not None):
            self._compare(queue, payload)
        return True

    def _has_to_wait(self, queue: _Queue) -> None:
        """Note that the broker sends nothing before we read or acknowledge, but keeps it.

        From here on what it brings is a backlog once more; so is what it brought lately, since it
        may have had to wait before we know.
        """
        if queue.empty:
            queue.empty, queue.full = False, True
            queue.taken, queue.looked, queue.looks = queue.lately, -1, TWIN_AFTER - 1
            queue.marked = None
            self._compared(queue)  # what it brings from now on may lack what is dropped

    # Acknowledgements

    def acks_due(self) -> list[Ack]:
        """Return what acknowledges the messages that came since the last call."""
        due, self._due = self._due, []
        return due

    def acknowledge(self, acks: Sequence[Ack]) -> None:
        """Have these acknowledged."""
        for at in range(0, len(acks), ACKS_A_MESSAGE):
            some = acks[at : at + ACKS_A_MESSAGE]
            self._post(b"".join(self._frame(ack) for ack in some))
        for ack in acks:
            self._queues[ack.subscription].unacknowledged -= 1

    def _frame(self, ack: Ack) -> bytes:
        """Write an ACK as the version has it; 1.0 and 1.1 name the message's own headers."""
        if self.version == "1.2":
            return encode(Frame("ACK", {"id": ack.message}), "1.2")
        headers = {"subscription": ack.subscription, "message-id": ack.message}
        return encode(Frame("ACK", headers), self.version)

    def _ack_of(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("ack" if self.version == "1.2" else "message-id")

    # Backlogs

    def look(self, now: datetime) -> None:
        """Judge which queues are empty; call it every second or so, while reading.

        Args:
            now: When the last byte came.
        """
        self._looked_at = now
        slow, self._slow = self._slow, False  # then one more second is waited for
        heard = self.mute or (self._asked is None and not slow)
        for subscription, queue in self._queues.items():
            if queue.twin_ack is not None:
                queue.twin_looks += 1
                if queue.twin_looks >= TWIN_HOLDS:
                    self._release_twin(queue)
            if queue.empty:
                self._look_at_mark(subscription, queue)
                continue
            quiet = not queue.unacknowledged and queue.taken == queue.looked
            due = queue.mark is not None and queue.twin_looks < TWIN_BESIDE
            if (quiet and heard and not due) or not self.keeps:  # what keeps nothing has no backlog
                queue.shared = queue.shared or queue.mark is not None
                self._emptied(queue, queue.looked_at or now)
                continue
            if not quiet:  # a look at which nothing was heard begins nothing
                queue.looked = queue.taken if heard and not queue.unacknowledged else -1
                queue.looked_at = now
            queue.looks += 1
            if queue.looks % TWIN_EVERY == TWIN_AFTER:
                self._ask_twin(subscription, queue)
        if self.keeps and not slow:
            self._ask()
        self._looks += 1
        if self._looks % TWIN_AGAIN == 0 and self.keeps:
            self._compare_busiest()

    def _ask(self) -> None:
        """Ask what changes nothing, to see by the answer that silence is no stall."""
        if self._asked is not None:
            self._asked += 1
            self.mute = self._asked >= MUTE
            return
        for queue in self._queues.values():
            queue.before, queue.earlier = queue.earlier, queue.asked_with + queue.since
            queue.asked_with, queue.since = queue.unacknowledged, 0
        self._asked_at = self._asked_at[1], self._looked_at
        headers = {"transaction": QUESTION}
        begin = encode(Frame("BEGIN", {**headers, "receipt": QUESTION}), self.version)
        self._asked = 0
        self._post(begin + encode(Frame("ABORT", headers), self.version))

    def _compare_busiest(self) -> None:
        """Compare one that is in with its twin; not all, for a twin is one queue more."""
        busy = [one for one, queue in self._queues.items() if queue.empty and queue.taken]
        if busy:
            busiest = max(busy, key=lambda one: self._queues[one].taken)
            self._ask_twin(busiest, self._queues[busiest])

    def _look_at_mark(self, subscription: str, queue: _Queue) -> None:
        """See whether one that is in has brought by now what its twin showed."""
        if queue.mark is None or queue.twin_looks < TWIN_WAITS:
            return
        queue.missed += 1
        if queue.missed < TWIN_MISSES:
            self._ask_twin(subscription, queue)
        else:
            queue.shared = True
            self._compared(queue)

    def look_away(self) -> None:
        """Note that nothing was read: the broker keeps what comes, and silence says nothing."""
        for queue in self._queues.values():
            self._has_to_wait(queue)
            queue.looked = -1

    def is_empty(self, subscription: str) -> bool:
        """Tell whether all that a queue held is in."""
        return self._queues[subscription].empty

    def covered(self, subscription: str) -> datetime | None:
        """Return up to when all that was published is known to have come; None: it is not."""
        return self._queues[subscription].covered

    def was_full(self, subscription: str) -> bool:
        """Tell whether the broker had to keep something back for us, since `forget_count`."""
        return self._queues[subscription].full

    def lately(self, subscription: str) -> int:
        """Return how many messages came since a queue was last known to hold nothing back.

        If they are as many as may be on their way at once, it may hold something back unnoticed.
        """
        return self._queues[subscription].lately

    def is_confirmed(self, subscription: str) -> bool:
        """Tell whether a queue is known to stand: by its RECEIPT, or by a message."""
        return self._queues[subscription].confirmed

    def is_shared(self, subscription: str) -> bool:
        """Tell whether a queue that was in has not brought what its twin did."""
        return self._queues[subscription].shared

    def count(self, subscription: str) -> int:
        """Return how many messages came until the queue was empty, or so far.

        They count from `forget_count`, or from when the broker had to keep some back; of two
        backlogs since `forget_count` the longer one counts.
        """
        queue = self._queues[subscription]
        return queue.held if queue.empty else max(queue.held, queue.taken)

    def overflowed(self, subscription: str) -> bool:
        """Tell whether one that had to wait has brought all that it may hold.

        One without a twin is judged when it is empty: else what comes live would count for ever.
        """
        queue = self._queues[subscription]
        judged = queue.empty or queue.destination.startswith(COPYING)
        return judged and self.count(subscription) >= self.terms.max_length

    def forget_count(self, subscription: str) -> None:
        """Begin to count anew."""
        queue = self._queues[subscription]
        queue.held = 0
        if queue.empty:
            queue.taken, queue.full = 0, False

    @property
    def fresh(self) -> bool:
        """Whether any brought what had come to nobody before."""
        return any(queue.fresh for queue in self._queues.values())

    def is_persistent(self, subscription: str) -> bool | None:
        """Tell whether all that a queue brought outlives the broker; None: it brought nothing."""
        return self._queues[subscription].persistent

    def learnt(self) -> list[str]:
        """Return those of which that has changed since the last call."""
        learnt, self._learnt = self._learnt, []
        return learnt

    # Twins

    def _ask_twin(self, subscription: str, queue: _Queue) -> None:
        """Have the twin show an event that is published from now on.

        It stays subscribed, and is shown one message at a time, while the broker drops all others:
        to unsubscribe in a busy stream draws an ERROR for each message that is on its way.
        """
        if not queue.destination.startswith(COPYING):
            return
        self._await_twin(queue)
        if queue.twin is not None:
            return
        queue.twin = f"{subscription}.twin"
        self._twins[queue.twin] = queue
        headers = {
            "id": queue.twin,
            "destination": queue.destination,
            "ack": "client-individual",
            "prefetch-count": "1",
            "x-max-length": "0",
        }
        self._post(encode(Frame("SUBSCRIBE", headers), self.version))

    def _await_twin(self, queue: _Queue) -> None:
        """Have the twin show what is published from now on, if there is one already."""
        queue.comparing, queue.mark, queue.recent = True, None, set()
        queue.compared_at = self._looked_at
        self._release_twin(queue)

    def _release_twin(self, queue: _Queue) -> None:
        """Have the twin show another event, if it shows one."""
        if queue.twin is not None and queue.twin_ack is not None:
            self._post(self._frame(Ack(queue.twin, queue.twin_ack)))
            queue.twin_ack = None

    def _twin_shows(
        self, queue: _Queue, headers: Mapping[str, str], payload: dict[str, Any] | None
    ) -> None:
        queue.twin_ack, queue.twin_looks = self._ack_of(headers), 0
        if not queue.comparing:
            return
        if payload is None:
            self._release_twin(queue)
            return
        queue.comparing = False
        queue.mark = _mark(payload)
        recent, queue.recent = queue.recent, set()
        if queue.mark in recent:
            self._came_in(queue)

    def _compare(self, queue: _Queue, payload: dict[str, Any]) -> None:
        mark = _mark(payload)
        if queue.mark == mark:
            self._came_in(queue)
        elif queue.comparing and len(queue.recent) < RECENT:
            queue.recent.add(mark)

    def _came_in(self, queue: _Queue) -> None:
        """Note that it brought what its twin showed."""
        first, this = queue.marked, _Marked(queue.compared_at, queue.taken)
        self._compared(queue)
        if queue.empty:
            return
        if first is None:
            queue.marked = this
            self._await_twin(queue)
        else:
            self._emptied(queue, first.asked_at, behind=queue.taken - first.taken)

    def _emptied(self, queue: _Queue, covered: datetime | None, *, behind: int = 0) -> None:
        """Note that all came that it held at a time, and so many messages behind that."""
        if not queue.empty:
            queue.empty, queue.held = True, max(queue.held, queue.taken)
            queue.before, queue.earlier = 0, max(0, behind - queue.since)
            queue.marked = None
            self._cover(queue, covered)
        self._compared(queue)

    def _cover(self, queue: _Queue, at: datetime | None) -> None:
        """Note up to when all has come, unless some may have been dropped and it is yet to be told.

        Of a backlog that is told when it is in.
        """
        if queue.covered is None or queue.held < self.terms.max_length:
            queue.covered = at or queue.covered

    def _compared(self, queue: _Queue) -> None:
        queue.comparing, queue.mark, queue.recent, queue.missed = False, None, set(), 0


def _mark(payload: dict[str, Any]) -> int:
    return hash(identity(payload, routing_key(payload)))
