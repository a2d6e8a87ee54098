"""Who gets an event: where agents sit, the route of an event, and which destinations match it.

Over STOMP an event goes to the routing key `event.agent.<eventType>.<id>`: `agent` or `csta`, then
the id of the agent it is about, or who sits at its device, dots as underscores
(`event.agent.csta.5002@zhen04_cc`). The event of a device where nobody sits has the device's own
id there. So `/topic/event.agent.*.5002@zhen04_cc` is one agent, `/topic/event.agent.*.*` everybody.
The older `/topic/csta/agent/<id>` takes the same id as it is. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from cti_listener.values import Payload, full_id, plain_text, routing_key

_TOPIC: Final = "/topic/"
_OLDER: Final = "/topic/csta/agent/"


class Route(NamedTuple):
    """What decides who gets an event.

    Attributes:
        namespace: Its namespace.
        event_type: `agent` or `csta`.
        device: Whose copy it is.
        agent: Whom it is about, or who is logged on at the device.
        last_agent: Who last logged on there, even if they have logged off since.
    """

    namespace: str
    event_type: str
    device: str
    agent: str | None
    last_agent: str | None

    @property
    def key(self) -> str:
        """The routing key, in the broker's topic syntax."""
        return f"event.agent.{self.event_type}.{(self.agent or self.device).replace('.', '_')}"


class Seating:
    """Which agent sits at which device, as the agents' own events tell."""

    def __init__(self) -> None:
        """Know nobody's seat."""
        self._seats: dict[str, str] = {}  # agent -> device, where they last logged on
        self._last: dict[str, str] = {}  # device -> agent, the last who logged on there
        self._gone: set[str] = set()  # devices whose last agent has logged off

    def route(self, event: Payload) -> Route:
        """Find the route of an event, and learn from it where its agent sits."""
        namespace = plain_text(event.get("namespace")) or ""
        device = routing_key(event) or ""
        agent = plain_text(event.get("agentId"))
        if event.get("eventType") == "agent":
            if agent and device:
                agent = full_id(agent, namespace)
                self._note(agent, device, gone=event.get("eventName") == "agentLoggedOff")
            return Route(namespace, "agent", device, agent, agent)
        last = self._last.get(device)
        return Route(namespace, "csta", device, None if device in self._gone else last, last)

    def _note(self, agent: str, device: str, *, gone: bool) -> None:
        if gone:
            if self._last.get(device) == agent:
                self._gone.add(device)
            return
        before = self._seats.get(agent)
        if before is not None and before != device and self._last.get(before) == agent:
            del self._last[before]
        self._seats[agent] = device
        self._last[device] = agent
        self._gone.discard(device)


Wanted = Callable[[Route], bool]
"""Whether a subscription wants what goes this way."""


def destination(text: str) -> Wanted | None:
    """Read a STOMP destination; None if there is no such kind here."""
    if text.startswith(_OLDER):
        agent = text.removeprefix(_OLDER)
        return lambda route: agent == (route.agent or route.device)
    if text.startswith(_TOPIC) and len(text) > len(_TOPIC):
        pattern = text.removeprefix(_TOPIC).split(".")
        return lambda route: topic_matches(pattern, route.key.split("."))
    return None


def topic_matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Match words as RabbitMQ does: `*` is exactly one, `#` is none or more."""
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(topic_matches(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and topic_matches(rest, words[1:])


@dataclass(frozen=True, slots=True)
class JsonFilter:
    """What a JSON connection asked for in its URL; empty means all.

    Attributes:
        namespaces: Only these namespaces.
        devices: These devices.
        agents: These agents: their own events, and those of the device where they last logged
            on.
    """

    namespaces: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()

    def wants(self, route: Route) -> bool:
        """Tell whether an event was asked for: by device or agent, within the namespaces."""
        if self.namespaces and route.namespace not in self.namespaces:
            return False
        if not self.devices and not self.agents:
            return True
        return route.device in self.devices or route.last_agent in self.agents

    @classmethod
    def read(cls, target: str) -> JsonFilter:
        """Read `/events?namespace=zhen04.cc&device=8002`; keys repeat, others are passed over."""
        return cls().with_more(parse_qs(urlsplit(target).query))

    def with_more(self, asked: Mapping[str, object]) -> JsonFilter:
        """Add what is asked for besides, by the same keys: texts, or lists of texts."""
        namespaces = self.namespaces.union(_texts(asked.get("namespace")))
        only = next(iter(namespaces)) if len(namespaces) == 1 else None
        devices, agents = (
            already.union(full_id(text, only) for text in _texts(asked.get(key)))
            for key, already in (("device", self.devices), ("agent", self.agents))
        )
        return JsonFilter(namespaces, devices, agents)


def _texts(value: object) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one
