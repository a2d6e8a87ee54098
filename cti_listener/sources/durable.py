"""A durable subscription through one life: what is acknowledged when, and when all is in.

A life has one of these if its server keeps queues for us. What is known of them from before is in
`past`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from math import inf
from typing import Final

from cti_listener.clock import FOREVER, LONGEST, Clock
from cti_listener.log import log
from cti_listener.sources.base import Receiver
from cti_listener.sources.past import OUTLIVES, Past, held_by, name_of
from cti_listener.wire.stomp_queues import Ack, Queues

QUIET: Final = 1.0
"""A queue that brings nothing for so long, in seconds, and has all acknowledged, is empty."""

STAMPED: Final = 10.0
"""How often it is kept, in seconds, that the queues are empty."""

RENEWED: Final = 4.0
"""For so long, in seconds, it is kept ahead that the connection stands: it may be our last act."""

MISSED: Final = 3
"""After so many heart-beats that did not come, a broker takes a connection for dead.

RabbitMQ looks once in the time of one, and gives up when it finds nothing new twice in a row.
"""


class Durable:
    """Acknowledges what is committed, and judges whether a backlog is in and whole.

    Args:
        queues: The session's.
        past: What is known from before; brought up to date here.
        receiver: Commits, and hears of the backlog.
        clock: The one clock.
        place: The broker: the endpoint, without credentials, and the virtual host.
        feed: The name of the connection.
        flush: Sends what the codec has to send.
    """

    def __init__(  # noqa: PLR0917 - its one caller names them all
        self,
        queues: Queues,
        past: Past,
        receiver: Receiver,
        clock: Clock,
        place: str,
        feed: str,
        flush: Callable[[], None],
    ) -> None:
        """Wait until the subscriptions stand."""
        self.queues = queues
        self._past = past
        self._receiver = receiver
        self._clock = clock
        self._place = place
        self._feed = feed
        self._flush = flush
        self._acks: list[Ack] = []
        self._over = False
        # Whether what comes may overtake what a dead connection of ours holds.
        self._overtaking = past.unnoticed > clock.monotonic()
        queues.overtaken = past.overtaken
        self._owed: tuple[str, ...] = ()  # whose backlogs make up for the outage
        self._doubts: list[str] = []  # that these hold all
        self._shared: set[str] = set()  # told to be
        self._overflowed: set[str] = set()  # told to have, and not forgotten yet
        self._told = self._settled = False  # that they are in, and this is committed
        self._stood_at: datetime | None = None
        self._look_at = self._stamp_at = self._renew_at = inf
        self._patience = -inf  # the broker's, with a connection that is silent

    # Acknowledgements

    def take(self) -> None:
        """Have acknowledged what was handed over since the last call, once it is committed.

        What it shows of the queues is kept by the same commit.
        """
        self._keep_what_is_persistent()
        acks = self.queues.acks_due()
        if acks:
            self._receiver.when_committed(partial(self._acknowledge, acks))

    def _acknowledge(self, acks: list[Ack]) -> None:
        if self._over:
            return  # an ack is for the connection that the message came by
        if not self._acks:  # one commit brings many: send them together
            asyncio.get_running_loop().call_soon(self._send_acks)
        self._acks += acks

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, []
        if acks and not self._over:
            self.queues.acknowledge(acks)
            self._flush()

    async def leave(self, timeout: float) -> None:
        """Wait until all that was handed over is committed and acknowledged, but not too long."""
        committed = asyncio.get_running_loop().create_future()
        self._receiver.when_committed(partial(_complete, committed))
        await asyncio.wait([committed], timeout=timeout)
        self._send_acks()
        self._over = True

    # The connection

    def opened(self, heartbeat: float) -> None:
        """Note that there is a session: from now on messages may be given to this connection.

        Args:
            heartbeat: How often the broker expects a heart-beat of ours, in seconds: it learns by
                their absence that the connection is dead. 0, or longer than any time: it does not.
        """
        noticed = 0 < heartbeat <= LONGEST
        self._patience = MISSED * heartbeat + QUIET if noticed else inf
        self._renew_at = -inf
        self.renew()

    def renew(self) -> None:
        """Keep for later runs until when the broker waits for us; call it every second or so."""
        if self._over:
            return
        now = self._clock.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + RENEWED / 2  # whoever calls may be late
            self._keep_unnoticed(max(self._past.unnoticed, now + RENEWED + self._patience))

    def _keep_unnoticed(self, unnoticed: float) -> None:
        kept = self._past.to_keep(unnoticed, self._clock)
        self._receiver.queues_empty([held_by(self.queues.terms.name)], kept)

    # The backlog

    def stands(self) -> None:
        """Note that the subscriptions stand: from now on their backlogs come."""
        if self._over:
            return
        self._stood_at = self._clock.now()
        self._owed = tuple(self.queues.ids)
        self._doubts = self._doubts_of(self._owed)
        # Until it is known to be empty, no later run is to rely on it.
        self._receiver.queues_empty(self._names(self._owed), None)
        self._look_at = self._clock.monotonic() + QUIET
        self.queues.look(self._stood_at)

    def _doubts_of(self, subscriptions: Iterable[str]) -> list[str]:
        """Say why these may not hold all that was published since they were last empty."""
        past, now = self._past, self._clock.now()
        doubts = [] if self.queues.keeps else ["the server is not known to keep queues"]
        for name in self._names(subscriptions):
            emptied = past.emptied.get(name)
            if emptied is None:
                doubts.append(f"{name} is new, was deleted, or was not all in when it was left")
            elif name not in past.found:
                doubts.append(f"{name} was not looked for before it was asked for")
            elif (now - emptied).total_seconds() >= self.queues.terms.expires:
                doubts.append(f"{name} was left for longer than it is kept")
        if past.unnoticed == inf:
            doubts.append("the broker may still send to a connection that is dead")
        return doubts

    def tick(self, last_sign: datetime, *, reading: bool) -> str | None:
        """Judge whether backlogs are in; call it every second or so.

        Args:
            last_sign: When the last byte came.
            reading: Whether we read.

        Returns:
            Why the life must end: a queue has dropped what we were too slow to take.
        """
        queues, now = self.queues, self._clock.monotonic()
        if not reading:
            queues.look_away()
            self._doubt(self._full)
            self._look_at = now + QUIET
        if now < self._look_at or inf > self._past.unnoticed > now:
            return None
        self._look_at = now + QUIET
        queues.look(last_sign)
        if not self._told:
            if all(queues.covered(one) is not None for one in self._owed):
                self._catch_up()
            return None
        if self._full:
            return self._look_at_full(self._full)
        self._tell_shared()
        if self._settled and now >= self._stamp_at:
            self._stamp()
        return None

    def _catch_up(self) -> None:
        """Tell that the backlogs are in, and whether they were all there was."""
        past, most = self._past, self.queues.terms.max_length
        doubts = list(self._doubts)
        self._tell_shared()
        if self.queues.mute:
            doubts.append("the broker does not answer, so its silence says nothing")
        for one in self._owed:
            name = self._name_of(one)
            if not self.queues.is_confirmed(one):
                doubts.append(f"{name} was not confirmed")
            if self.queues.is_shared(one):
                doubts.append(f"{name} is shared with another listener")
            if past.taken[name] + self.queues.count(one) >= most:
                self._overflowed.add(one)
                doubts.append(
                    f"{name} held all it may, {most} messages, so it may have dropped some"
                )
            if not self._is_trusted(one):
                doubts.append(
                    f"{name} is not known to bring only what outlives the broker, which may have"
                    " been started anew"
                )
        log.info(
            "backlog_in",
            feed=self._feed,
            messages=sum(map(self.queues.count, self._owed)),
            recovered=not doubts,
            doubts=doubts,
        )
        self._told = True
        self._receiver.when_committed(partial(self._tell, recovered=not doubts))

    def _tell(self, *, recovered: bool) -> None:
        """Tell what was found, now that all that came in is committed."""
        if self._over:
            return  # a gap that is open by now is another one
        self._receiver.caught_up(self._feed, recovered=recovered, overflowed=bool(self._overflowed))
        self._receiver.when_committed(self._settle)

    def _is_trusted(self, subscription: str) -> bool:
        """Tell whether a queue is known to bring only messages that outlive the broker.

        What it brings in this life does not show that: it may be what is left of more. One that
        brought nothing before is taken to be like the others.
        """
        known = self._past.persistent
        asked = [known[name] for name in self._names(self.queues.ids) if name in known]
        before = known.get(self._name_of(subscription), bool(asked) and all(asked))
        return before and self.queues.is_persistent(subscription) is not False

    def _tell_shared(self) -> None:
        """Tell once which queues somebody else takes from, and rely on these no more."""
        queues = self.queues
        found = [one for one in queues.ids if queues.is_shared(one) and one not in self._shared]
        for one in found:
            log.error(
                "queue_shared",
                queue=self._name_of(one),
                advice="another listener takes from it; give each its own id (durable)",
            )
        self._shared.update(found)
        self._doubt(found)

    def _settle(self) -> None:
        """Begin anew, now that what was told is kept."""
        if self._over:
            return
        self._settled = True
        self._overflowed.clear()
        self._overtaking = self._past.overtaken = self.queues.overtaken = False
        if self._past.unnoticed == inf:
            self._past.unnoticed = -inf  # that was said
        for one in self._owed:
            self._past.taken.pop(self._name_of(one), None)
            self.queues.forget_count(one)
        self._stamp()

    def _stamp(self) -> None:
        """Keep that the queues are empty."""
        queues, covered = self.queues, self._covered
        self._stamp_at = self._clock.monotonic() + min(STAMPED, queues.terms.expires / 10)
        if queues.mute or covered is None:  # that they are is a guess
            return
        names = self._names(
            one
            for one in queues.ids
            if queues.is_empty(one) and queues.is_confirmed(one) and not queues.is_shared(one)
        )
        self._past.emptied.update(dict.fromkeys(names, covered))
        self._receiver.queues_empty(names, covered)

    def _look_at_full(self, full: list[str]) -> str | None:
        """Mind those for which the broker kept something back: it drops what is too much."""
        self._doubt(full)
        lost = [one for one in full if self.queues.overflowed(one) and one not in self._overflowed]
        if lost:
            most = self.queues.terms.max_length
            return f"we were slow, and {lost[0]} may have dropped what was above {most} messages"
        if not all(map(self.queues.is_empty, full)):
            return None
        for one in full:
            self.queues.forget_count(one)
        self._stamp_at = -inf
        return None

    def _doubt(self, subscriptions: Iterable[str]) -> None:
        """Rely on these no more."""
        names = [one for one in self._names(subscriptions) if one in self._past.emptied]
        if names:
            for name in names:
                del self._past.emptied[name]
            self._receiver.queues_empty(names, None)

    def covered(self, last_sign: datetime) -> datetime:
        """Return up to when nothing was missed, if the life ends now.

        Args:
            last_sign: When the last byte came.
        """
        if self._stood_at is None or (self._told and not self._full and not self._maybe_full):
            return last_sign
        # A queue that holds something back drops what is too much for it.
        return min(last_sign, self._covered or self._stood_at)

    def ended(self, *, noticed: bool) -> None:
        """Note that the life ended: nothing more is acknowledged.

        Args:
            noticed: Whether the broker knows.
        """
        past, queues = self._past, self.queues
        self._over = True
        self._keep_what_is_persistent()
        brought = [one for one in queues.ids if queues.is_persistent(one) is not None]
        past.persistent.update({self._name_of(one): self._outlives(one) for one in brought})
        past.overtaken = past.overtaken or (self._overtaking and queues.fresh)
        if not noticed:
            past.unnoticed = max(past.unnoticed, self._clock.monotonic() + self._patience)
        if self._renew_at < inf:
            self._keep_unnoticed(past.unnoticed)
        if not self._settled:
            past.taken.update({self._name_of(one): queues.count(one) for one in self._owed})
        else:
            past.taken.update({self._name_of(one): queues.lately(one) for one in self._maybe_full})
        self._doubt(self._full)

    def _keep_what_is_persistent(self) -> None:
        """Keep for later runs what was learnt of the queues since the last call."""
        for one in self.queues.learnt():
            name, known = self._name_of(one), self._outlives(one)
            self._receiver.queues_empty([f"{name}{OUTLIVES[known]}"], FOREVER)
            self._receiver.queues_empty([f"{name}{OUTLIVES[not known]}"], None)

    def _outlives(self, subscription: str) -> bool:
        """Tell whether all that a queue brought outlives the broker, in earlier lives too."""
        before = self._past.persistent.get(self._name_of(subscription), True)
        return before and self.queues.is_persistent(subscription) is not False

    @property
    def _full(self) -> list[str]:
        """Those for which the broker had to keep something back since they were empty."""
        return [one for one in self.queues.ids if self.queues.was_full(one)]

    @property
    def _maybe_full(self) -> list[str]:
        """Those for which it may have had to, unnoticed so far."""
        most = self.queues.terms.prefetch
        return [one for one in self.queues.ids if self.queues.lately(one) >= most]

    @property
    def _covered(self) -> datetime | None:
        """Up to when all that was published has come by each; None: that is not known."""
        asked = {*self._owed, *self._full, *self._maybe_full}
        found = [at for one in asked if (at := self.queues.covered(one)) is not None]
        return min(found, default=self._stood_at) if len(found) == len(asked) else None

    def _names(self, subscriptions: Iterable[str]) -> list[str]:
        return [self._name_of(one) for one in subscriptions]

    def _name_of(self, subscription: str) -> str:
        return name_of(subscription, self._place)


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
