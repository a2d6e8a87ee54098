"""The broker's side of a STOMP session, 1.0 to 1.2, for one client.

Commands this door knows are those of a client that listens. SEND is taken and goes nowhere, for
nothing but the server itself speaks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import isinf
from typing import Final

from cti_listener.simulator.doors import Outgoing, Replies, Subscription, compact
from cti_listener.simulator.topics import Route, Wanted, destination
from cti_listener.values import Payload
from cti_listener.wire.stomp_frames import BadFrame, Frame, FrameDecoder, encode

VERSIONS: Final = ("1.2", "1.1", "1.0")
"""What is spoken, the best first."""

_ROUTES_KEPT: Final = 100_000


@dataclass(slots=True)
class StompRules:
    """How the broker behaves; changes hold for what comes afterwards.

    Attributes:
        credentials: The login and passcode asked for; None: whatever comes.
        heartbeat: How often the server can send, and wants to receive, a heart-beat, in ms; 0:
            never.
        refuse: Destinations that it refuses with an ERROR.
        receipts: Whether it sends RECEIPTs. Some brokers do not.
        refuse_all: Whether it refuses every destination.
        lateness: How many times as long as it has promised it takes between heart-beats; infinite:
            it sends none.
    """

    credentials: tuple[str, str] | None = field(default=None, repr=False)
    heartbeat: tuple[int, int] = (10_000, 10_000)
    refuse: frozenset[str] = frozenset()
    receipts: bool = True
    refuse_all: bool = False
    lateness: float = 1.0


class _RefusedError(Exception):
    """What the client is told in an ERROR frame; never leaves this module."""

    def __init__(self, message: str, detail: str = "", **headers: str) -> None:
        super().__init__(message)
        self.frame = Frame(
            "ERROR", {"message": message, "content-type": "text/plain", **headers}, detail.encode()
        )


class StompDoor:
    """One client's STOMP session.

    Args:
        rules: How the broker behaves.
        session: What the session is called.
    """

    wire = "stomp"

    def __init__(self, rules: StompRules, session: str) -> None:
        """Wait for CONNECT."""
        self._rules = rules
        self._session = session
        self._version: str | None = None  # None until connected
        self._heartbeat = (0.0, 0.0)
        self._decoder = FrameDecoder()
        self._subscriptions: dict[str, tuple[Subscription, Wanted]] = {}
        self._routed: dict[Route, list[Subscription]] = {}  # what was found before
        self._message_ids = count(1)

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """What the client is subscribed to now."""
        return [subscription for subscription, _ in self._subscriptions.values()]

    @property
    def heartbeat(self) -> tuple[float, float]:
        """How often to send something, and to expect something, in seconds; 0: never."""
        return self._heartbeat

    # Receiving

    def receive(self, data: bytes) -> Replies:
        """Take a WebSocket message: frames, parts of frames, heart-beats."""
        self._decoder.receive_data(data)
        replies = Replies()
        for frame in self._decoder.frames_received():
            try:
                if isinstance(frame, BadFrame):
                    raise _RefusedError("Invalid frame", frame.detail)  # noqa: TRY301 - one way out
                self._take(frame, replies)
            except _RefusedError as refused:
                replies.data.append(self._encode(refused.frame))
                replies.close = True
            if replies.close:
                break  # an ERROR or a DISCONNECT ends the session, whatever stands behind it
        return replies

    def _take(self, frame: Frame, replies: Replies) -> None:
        if self._version is None:
            if frame.command not in ("CONNECT", "STOMP"):
                raise _RefusedError("Not connected", f"{frame.command} before CONNECT")
            replies.data.append(self._connect(frame.headers))
            return
        match frame.command:
            case "SUBSCRIBE":
                self._subscribe(frame.headers)
            case "UNSUBSCRIBE":
                self._unsubscribe(frame.headers)
            case "DISCONNECT":
                replies.close = True
            case "SEND" | "ACK" | "NACK" | "BEGIN" | "COMMIT" | "ABORT":
                pass
            case _:
                raise _RefusedError("Unknown command", frame.command, **_receipt_of(frame.headers))
        if self._rules.receipts and (receipt := _receipt_of(frame.headers)):
            replies.data.append(self._encode(Frame("RECEIPT", receipt)))

    def _connect(self, headers: Mapping[str, str]) -> bytes:
        offered = headers.get("accept-version", "1.0").split(",")
        version = next((one for one in VERSIONS if one in offered), None)
        if version is None:
            supported = ",".join(reversed(VERSIONS))
            raise _RefusedError(
                "Version mismatch", f"Supported versions are {supported}", version=supported
            )
        given = (headers.get("login"), headers.get("passcode"))
        if self._rules.credentials is not None and given != self._rules.credentials:
            raise _RefusedError("Bad CONNECT", f"Access refused for user '{given[0] or ''}'")
        self._version = self._decoder.version = version
        self._heartbeat = self._negotiate(headers.get("heart-beat", "0,0"))
        connected = {
            "version": version,
            "server": "cti-simulator",
            "session": self._session,
            "heart-beat": ",".join(map(str, self._rules.heartbeat)),
        }
        return self._encode(Frame("CONNECTED", connected))

    def _negotiate(self, offer: str) -> tuple[float, float]:
        """Agree on the longer of each pair (STOMP 1.2, "Heart-beating")."""
        try:
            can, wants = (int(part) for part in offer.split(","))
        except ValueError:
            raise _RefusedError("Bad CONNECT", f"heart-beat:{offer}") from None
        sends, expects = self._rules.heartbeat
        late = self._rules.lateness
        return (
            late * max(sends, wants) / 1000 if sends and wants and not isinf(late) else 0.0,
            max(expects, can) / 1000 if expects and can else 0.0,
        )

    def _subscribe(self, headers: Mapping[str, str]) -> None:
        text = headers.get("destination", "")
        subscription_id = headers.get("id", text if self._version == "1.0" else "")
        if not text or not subscription_id:
            raise _RefusedError("Missing header", "SUBSCRIBE needs an id and a destination")
        wanted = destination(text)
        refused = self._rules.refuse_all or text in self._rules.refuse
        if wanted is None or refused:
            raise _RefusedError("Invalid destination", f"'{text}'", **_receipt_of(headers))
        subscription = Subscription(subscription_id, text, headers.get("ack", "auto"))
        self._subscriptions[subscription_id] = (subscription, wanted)
        self._routed.clear()

    def _unsubscribe(self, headers: Mapping[str, str]) -> None:
        subscription_id = headers.get("id", headers.get("destination", ""))
        if self._subscriptions.pop(subscription_id, None) is None:
            raise _RefusedError("Subscription not found", f"'{subscription_id}'")
        self._routed.clear()

    def error(self, why: str) -> list[bytes]:
        """Write an ERROR that nothing the client did has called for."""
        return [self._encode(_RefusedError(why).frame)]

    # Sending

    def wants(self, route: Route) -> bool:
        """Tell whether anything sent this way would reach the client."""
        return bool(self._matching(route))

    def messages(self, outgoing: Outgoing) -> list[bytes]:
        """Write a message for the client, once for each subscription that wants it."""
        return [self._message(outgoing, one) for one in self._matching(outgoing.route)]

    def _matching(self, route: Route) -> list[Subscription]:
        found = self._routed.get(route)
        if found is None:
            found = [one for one, wanted in self._subscriptions.values() if wanted(route)]
            if len(self._routed) < _ROUTES_KEPT:
                self._routed[route] = found
        return found

    def _message(self, outgoing: Outgoing, subscription: Subscription) -> bytes:
        body = outgoing.message.body
        if body is None:
            body = compact(_relayed(outgoing.message.event, outgoing.route, subscription))
        message_id = f"{self._session}@@{next(self._message_ids)}"
        headers = {
            "subscription": subscription.id,
            "message-id": message_id,
            "destination": _came_by(subscription, outgoing.route),
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        if subscription.ack != "auto" and self._version == "1.2":
            headers["ack"] = message_id
        return self._encode(Frame("MESSAGE", headers, body))

    def _encode(self, frame: Frame) -> bytes:
        return encode(frame, self._version or "1.2")


def _came_by(subscription: Subscription, route: Route) -> str:
    """Name where a message was published, which a pattern only matches."""
    is_pattern = any(word in subscription.destination for word in ("*", "#"))
    return f"/topic/{route.key}" if is_pattern else subscription.destination


def _receipt_of(headers: Mapping[str, str]) -> dict[str, str]:
    receipt = headers.get("receipt")
    return {} if receipt is None else {"receipt-id": receipt}


def _relayed(event: Payload, route: Route, subscription: Subscription) -> dict[str, object]:
    """Add what the relay adds; what the event brings along of it stands."""
    name = str(event.get("eventName", ""))
    topics = [name, f"device:{route.device}", "csta", "router-1"]
    if route.agent is not None:
        topics.insert(1, f"agent:{route.agent}")
    added = {
        "params": {
            "_amqpTopic": f"event.{route.event_type}.{route.namespace}",
            "agent": route.agent,
            "subscriptionId": subscription.id,
        },
        "_type": f"component.cti.event.{name[:1].upper()}{name[1:]}Event",
        "topics": topics,
    }
    return {**event, **{key: value for key, value in added.items() if key not in event}}
