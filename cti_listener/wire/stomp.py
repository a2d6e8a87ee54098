"""A STOMP session, 1.0 to 1.2: CONNECT, SUBSCRIBE with a receipt each, events, ERROR, DISCONNECT.

`stomp_frames` reads and writes the frames; this room knows what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar, Final

from pydantic_core import from_json

from cti_listener.errors import BadMessageError, BadReason
from cti_listener.events import load_object
from cti_listener.wire.base import (
    EventReceived,
    LateEvent,
    LoneEvent,
    MessageBad,
    Recall,
    SessionDenied,
    SessionEnded,
    SessionOpened,
    SubscriptionConfirmed,
    SubscriptionDenied,
    WireEvent,
    WireName,
)
from cti_listener.wire.price import BAD, CHEAP, price_of_json, why_too_dear
from cti_listener.wire.stomp_frames import BadFrame, Frame, FrameDecoder, Received, encode
from cti_listener.wire.stomp_queues import QUESTION, Queues
from cti_listener.wire.stomp_terms import Terms

SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")
MOST_WORDS: Final = 300
"""How much of an ERROR is told, in characters."""

VERSIONS: Final = ("1.2", "1.1", "1.0")
_STRICT: Final = ("1.2", "1.1")
"""Where spaces around a header are part of it."""

_FRAME_ENDS: Final = (b"\0", b"\0\n")
_VALUE: Final = r"[ -\[\]-~]*+"
_LINE: Final = rf"[ -9;-\[\]-~]++:{_VALUE}\n"
_PLAIN_HEAD: Final = re.compile(
    (
        rf"MESSAGE\n(?:(?!subscription:|content-length:){_LINE})*+"
        rf"subscription:({_VALUE})\n(?:(?!content-length:){_LINE})*+"
        rf"(?:content-length:(\d{{1,5}}+)\n(?:{_LINE})*+)?+\n(?=\{{)"
    ).encode()
)
"""Command and headers that mean what they spell, printable ASCII and no escape, ahead of an object.

Its groups are the first `subscription` and, if there is one, the first `content-length` behind it.
"""

_MOST_BYTES: Final = 4 * MOST_WORDS  # no character of UTF-8 has more than four

_TOO_MUCH: Final = "more than a message of its length may hold"

_RECEIPT: Final = "subscribe-"
"""Begins the receipts we ask for; the subscription's id follows."""

_LOOK: Final = {"ack": "client-individual", "prefetch-count": "1"}
"""So a message that comes goes back when we leave."""


class StompCodec:
    """A `Codec` for STOMP.

    Args:
        destinations: What to subscribe to once connected, in this order.
        vhost: The `host` header.
        login: The `login` header; left out when None, as the vendor's browser client does.
        passcode: The `passcode` header.
        connect_headers: Further headers of CONNECT.
        heartbeat: How often we offer to send, and ask to receive, a heart-beat, in seconds; 0:
            never.
        max_size: The longest frame taken, in bytes; a longer one is left out.
        terms: What the subscriptions are to be that outlive the connection; None: none does.
        look_only: Subscribe only to see whether a queue is there: nothing is taken out of it.

    Attributes:
        queues: What the broker keeps for us; None: nothing.
    """

    wire: ClassVar[WireName] = "stomp"
    """What it speaks."""

    confirms = True
    """Whether the server says that a subscription stands."""

    def __init__(
        self,
        destinations: Sequence[str],
        *,
        vhost: str = "/",
        login: str | None = None,
        passcode: str | None = None,
        connect_headers: Mapping[str, str] | None = None,
        heartbeat: tuple[float, float] = (0.0, 0.0),
        max_size: int = 4 * 2**20,
        terms: Terms | None = None,
        look_only: bool = False,
    ) -> None:
        """Prepare the CONNECT frame; nothing is sent before `open()`."""
        self.queues = None if terms is None else Queues(terms, self._post)
        self._look_only = look_only
        self._plain = terms is None and not look_only
        self._heartbeat = heartbeat
        self._connect = {
            "accept-version": ",".join(reversed(VERSIONS)),
            "host": vhost,
            "heart-beat": ",".join(str(round(seconds * 1000)) for seconds in heartbeat),
            **({} if login is None else {"login": login}),
            **({} if passcode is None else {"passcode": passcode}),
            **(connect_headers or {}),
        }
        self._decoder = FrameDecoder(max_size=max_size)
        self._short = min(CHEAP, max_size)  # up to there a message can pay for what it holds
        self._version: str | None = None  # None until CONNECTED
        self._quick = False  # whether the next message may be read in one go
        self._wanted = list(destinations)
        self._ids = count()
        self._destinations: dict[str, str] = {}  # subscription id -> destination
        self._receipts: dict[str, str] = {}  # receipt id -> destination, oldest first
        self._late: dict[str, str] = {}  # the same, no longer waited for
        self._closing = False
        self._events: list[WireEvent] = []
        self._bad: dict[BadReason, MessageBad] = {}
        self._to_send: list[bytes] = []
        self._left = 0  # what the message at hand may still hold, see `price`
        self._unpriced = 0  # how many bytes of it are taken without a look at what they hold

    @property
    def destinations(self) -> Sequence[str]:
        """What is asked for, confirmed or not."""
        return (*self._destinations.values(), *self._wanted)

    def wait_no_longer(self) -> None:
        """Take what is unconfirmed for standing: some brokers send no RECEIPT.

        A later ERROR is then the refusal of one of these only if it names its receipt.
        """
        self._late |= self._receipts
        self._receipts = {}

    def prove(self, destination: str | None) -> None:
        """Take an event that came by a destination for its confirmation."""
        for receipt, waiting in self._receipts.items():
            if waiting == destination:
                del self._receipts[receipt]
                return

    @property
    def unconfirmed(self) -> Sequence[str]:
        """Destinations asked for whose RECEIPT has not come."""
        return tuple(self._receipts.values()) if self._version else tuple(self._wanted)

    # Receiving

    def lone_event(self, data: bytes, recall: Recall | None = None) -> LoneEvent | None:
        """Read a message that is one short MESSAGE frame; None: `receive_data` has to look at it.

        So it has to at whatever is not plain: escapes, STOMP 1.0, a body that is no event, a
        subscription that we do not know, or one that stands behind the length.
        """
        if not self._quick or len(data) > self._short:
            return None
        head = _PLAIN_HEAD.match(data)
        if head is None:
            return None
        number, length = head.groups()
        destination = self._destinations.get(number.decode())
        if destination is None:
            return None
        begin = head.end()
        # Within its length a body may hold a NUL, but is no JSON then.
        end = data.find(b"\0", begin) if length is None else begin + int(length)
        if data[end:] not in _FRAME_ENDS:
            return None
        text = data[begin:end]
        recalled = recall is not None and recall(text)
        try:
            payload = None if recalled else from_json(text, cache_strings="keys")
        except ValueError:
            return None
        return payload, destination, text

    def receive_data(self, data: bytes) -> None:
        """Take a whole WebSocket message: part of a frame, one, or several.

        What is in it behind more than its length pays for (`wire.price`) is `too_large`.
        """
        decoder = self._decoder
        decoder.receive_data(data)
        self._left, self._unpriced = decoder.left, CHEAP
        frames = iter(decoder.frames_received())
        for frame in frames:
            if type(frame) is BadFrame:
                if frame.command != "MESSAGE" or self._is_for_others(frame.headers, None):
                    self._note_bad(frame.reason, frame.detail, frame.sample)
            elif frame.command == "MESSAGE":
                self._message(frame)  # type: ignore[arg-type]
            else:
                self._command(frame)  # type: ignore[arg-type]
            if self._left < 0:
                self._note_bad("too_large", _TOO_MUCH, data)
                self._leave_out(frames)
                break
        if self._bad:
            self._events += self._bad.values()
            self._bad = {}
        self._quick = self._plain and self._version in _STRICT and decoder.between_frames

    @property
    def unfinished(self) -> bool:
        """Whether a frame has come in part."""
        return not self._decoder.between_frames

    def events_received(self) -> list[WireEvent]:
        """Return what the messages since the last call said, in order."""
        events, self._events = self._events, []
        return events

    def _message(self, frame: Frame) -> None:
        headers, body = frame.headers, frame.body
        subscription = headers.get("subscription", "")
        destination = self._destinations.get(subscription) or headers.get("destination")
        self._unpriced -= len(body)
        if self._unpriced < 0:
            price = price_of_json(body)
            if price > self._left:
                self._left -= BAD
                if self._is_for_others(headers, None):
                    self._note_bad(*why_too_dear(body), body)
                return
            self._left -= price
        try:
            payload = load_object(body)
        except BadMessageError as error:
            self._left -= BAD
            if self._is_for_others(headers, None):
                self._note_bad(error.reason, error.detail, body)
            return
        if self._plain:
            self._events.append(EventReceived(payload, destination))
        elif self._is_for_others(headers, payload):
            late = self.queues is not None and self.queues.late
            self._events.append((LateEvent if late else EventReceived)(payload, destination))

    def _is_for_others(self, headers: Mapping[str, str], payload: dict[str, Any] | None) -> bool:
        """Have a message acknowledged one day; tell whether anybody is to hear of it."""
        if self.queues is None:
            return not self._look_only
        return self.queues.take(headers, payload)

    def _leave_out(self, frames: Iterator[Received]) -> None:
        """Have acknowledged what is not looked at any more."""
        for frame in frames:
            if frame.command == "MESSAGE":
                self._is_for_others(frame.headers, None)

    def _note_bad(self, reason: BadReason, detail: str, sample: bytes = b"") -> None:
        """Tell one of each reason a message, with how many there were."""
        before = self._bad.get(reason)
        self._bad[reason] = (
            MessageBad(reason, detail, sample[:200])
            if before is None
            else replace(before, count=before.count + 1)
        )

    def _command(self, frame: Frame) -> None:
        if frame.command == "RECEIPT":
            receipt = frame.headers.get("receipt-id", "")
            if self.queues is not None:
                self.queues.confirm(receipt.removeprefix(_RECEIPT))
                if receipt == QUESTION:
                    self.queues.answered()
            if destination := self._receipts.pop(receipt, None):
                self._events.append(SubscriptionConfirmed(destination))
            return
        self._left -= BAD
        match frame.command:
            case "CONNECTED" if self._version is None:
                self._connected(frame)
            case "ERROR":
                self._error(frame)
            case other:
                self._note_bad("not_a_frame", f"no frame that a server sends now: {other[:40]!r}")

    def _connected(self, frame: Frame) -> None:
        version = frame.headers.get("version", "1.0")
        if version not in VERSIONS:
            self._events.append(
                SessionDenied(f"the server speaks STOMP {version!r}, not {VERSIONS}")
            )
            return
        self._version = self._decoder.version = version
        server = frame.headers.get("server", "")
        if self.queues is not None:
            self.queues.version, self.queues.server = version, server
        send, receive = self._agree(frame.headers.get("heart-beat", "0,0"))
        self._events.append(SessionOpened(send, receive, server))
        wanted, self._wanted = self._wanted, []
        self.subscribe(wanted)

    def _agree(self, offer: str) -> tuple[float, float]:
        """Agree on heart-beats: the slower of what each wants, none if either wants none."""
        try:
            can_send, wants = (int(part) / 1000 for part in offer.split(","))
        except (ValueError, OverflowError):
            return 0.0, 0.0
        we_send, we_want = self._heartbeat
        send = max(we_send, wants) if we_send and wants > 0 else 0.0
        receive = max(we_want, can_send) if we_want and can_send > 0 else 0.0
        return send, receive

    def _error(self, frame: Frame) -> None:
        """Say what an ERROR ended: the session's beginning, one subscription, or the session.

        Brokers answer frames in order, so an ERROR without `receipt-id` that comes while RECEIPTs
        are due is about the oldest of them.
        """
        detail = _words(frame)
        receipt = frame.headers.get("receipt-id")
        if self._version is None:
            self._events.append(SessionDenied(detail))
        elif receipt is not None and receipt in self._late:
            self._events.append(SubscriptionDenied(self._late[receipt], detail))
        elif self._receipts and (receipt is None or receipt in self._receipts):
            destination = self._receipts[receipt or next(iter(self._receipts))]
            self._events.append(SubscriptionDenied(destination, detail))
        else:
            self._events.append(SessionEnded(detail))

    # Sending

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send, in order."""
        data, self._to_send = self._to_send, []
        return data

    def open(self) -> None:
        """Begin with CONNECT; the subscriptions follow CONNECTED."""
        self._send("CONNECT", self._connect)

    def subscribe(self, destinations: Sequence[str]) -> None:
        """Send SUBSCRIBE for each, with an id of its own and a receipt."""
        if self._version is None:
            self._wanted += destinations
            return
        for destination in destinations:
            if self.queues is not None:
                number = self.queues.terms.id_for(destination)
                if number in self.queues:  # it never ended, see `unsubscribe`
                    self._destinations[number] = destination
                    continue
                headers = self.queues.ask(destination)
            else:
                number = str(next(self._ids))
                how = _LOOK if self._look_only else {"ack": "auto"}
                headers = {"id": number, "destination": destination, **how}
            receipt = f"{_RECEIPT}{number}"
            self._send("SUBSCRIBE", {**headers, "receipt": receipt})
            self._destinations[number] = destination
            self._receipts[receipt] = destination

    def unsubscribe(self, destinations: Sequence[str]) -> None:
        """Send UNSUBSCRIBE for each that is subscribed to.

        Not for durable ones, lest their queues be deleted: what these bring is acknowledged, and
        left to the listener to filter, as long as the connection lasts.
        """
        self._wanted = [wanted for wanted in self._wanted if wanted not in destinations]
        for number, destination in list(self._destinations.items()):
            if destination in destinations:
                del self._destinations[number]
                self._receipts.pop(f"{_RECEIPT}{number}", None)
                if self.queues is None:
                    self._send("UNSUBSCRIBE", {"id": number, "destination": destination})

    def heartbeat(self) -> None:
        """Send an end of line (STOMP 1.2, "Heart-beating")."""
        if self._version is not None:
            self._to_send.append(b"\n")

    def close(self) -> None:
        """Send DISCONNECT, once; never UNSUBSCRIBE, which would delete a durable queue."""
        if self._version is not None and not self._closing:
            self._closing = True
            self._send("DISCONNECT", {})

    def _send(self, command: str, headers: Mapping[str, str]) -> None:
        self._post(encode(Frame(command, headers), self._version or "1.0"))

    def _post(self, data: bytes) -> None:
        self._to_send.append(data)


def _words(frame: Frame) -> str:
    """Return what an ERROR says, for a person: its message and the beginning of its body."""
    body = frame.body.lstrip()[:_MOST_BYTES].decode(errors="replace").strip().splitlines()
    message = frame.headers.get("message", "").strip()
    # Cut at its end alone: a secret cut in the middle of a text would not be known again.
    words = ": ".join(part for part in (message, body[0] if body else "") if part)
    return words[:MOST_WORDS] or "ERROR"
