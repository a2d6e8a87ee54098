"""Who was asked for: devices, agents, or a whole namespace; and where the asked agents sit.

The listener asks `wants()` of every event before anything else; the source asks `expand()` how the
same wish is written on the wire. Filters are a union: an event passes if its device or its agent
was asked for, if it came by an asked agent's destination, or if its device is where an asked agent
last logged on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

from cti_listener.errors import ConfigurationError
from cti_listener.values import Payload, full_id, plain_text, read_time, seconds_between

FAR: Final = 86400.0
"""No event comes so many seconds late: what one is behind by more has an odd time."""

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_NAMES: Final = ("agent", "device", "namespace")


class Asked(NamedTuple):
    """Who was asked for at one moment, as full ids."""

    devices: frozenset[str]
    agents: frozenset[str]


class Seat(NamedTuple):
    """Where an asked agent sits.

    Attributes:
        device: At which one, as a full id.
        since: The `eventTime` of what told so.
    """

    device: str
    since: str


class Interest:
    """What is listened to.

    Args:
        namespace: Completes short ids; alone it means everybody in it. None: whatever comes.
        devices: Ids of devices, short (`8002`) or full (`8002@zhen04.cc`).
        agents: Ids of agents, likewise.

    Attributes:
        seated: Called with an asked agent and where it sits now; None: it is not known any more.

    Raises:
        ConfigurationError: A short id without a namespace to complete it, or no id at all.
    """

    def __init__(
        self, namespace: str | None, devices: Iterable[str] = (), agents: Iterable[str] = ()
    ) -> None:
        """Complete the ids; nobody's seat is known yet."""
        if namespace and not namespace.isprintable():
            problem = f"{namespace!r} has a character that no namespace has"
            raise ConfigurationError("namespace", problem)
        self.namespace = namespace
        self.devices = {self._complete("device", device) for device in devices}
        self.agents = {self._complete("agent", agent) for agent in agents}
        self.seated: Callable[[str, Seat | None], None] | None = None
        self._seats: dict[str, Seat] = {}  # by asked agent; told by the latest event of each
        self._sitting: dict[str, str] = {}  # device -> the asked agent there
        self._agent_destinations: dict[str, str] = {}  # destination -> the asked agent it is of

    def __repr__(self) -> str:
        whom = ", ".join(sorted(self.devices) + sorted(self.agents)) or "everybody"
        return f"<Interest {whom} in {self.namespace or 'any namespace'}>"

    @property
    def everybody(self) -> bool:
        """Whether nobody in particular was asked for."""
        return not self.devices and not self.agents

    @property
    def asked(self) -> Asked:
        """Who is asked for by now."""
        return Asked(frozenset(self.devices), frozenset(self.agents))

    def add(self, devices: Iterable[str], agents: Iterable[str]) -> None:
        """Ask for more.

        Raises:
            ConfigurationError: A short id without a namespace to complete it.
        """
        more_devices = {self._complete("device", device) for device in devices}
        self.agents |= {self._complete("agent", agent) for agent in agents}
        self.devices |= more_devices

    def remove(self, devices: Iterable[str], agents: Iterable[str]) -> None:
        """Ask for these no longer.

        Raises:
            ConfigurationError: One of them was not asked for, or nobody would be left: an empty
                wish means everybody, which is hardly meant.
        """
        less_devices = {self._complete("device", device) for device in devices}
        less_agents = {self._complete("agent", agent) for agent in agents}
        for unknown in (less_devices - self.devices) | (less_agents - self.agents):
            raise ConfigurationError("remove", f"{unknown} was not asked for")
        if less_devices == self.devices and less_agents == self.agents:
            raise ConfigurationError("remove", "nobody would be left; stop the listener instead")
        self.devices -= less_devices
        self.agents -= less_agents

    def free_seats(self) -> None:
        """Free the seats of agents who are not asked for any more, once that is sure."""
        for agent in self._seats.keys() - self.agents:
            self._stand_up(agent)

    def undo(self, before: Asked, after: Asked) -> None:
        """Take back a change from one to the other; what others changed since stays."""
        self.devices = (self.devices - (after.devices - before.devices)) | (
            before.devices - after.devices
        )
        self.agents = (self.agents - (after.agents - before.agents)) | (
            before.agents - after.agents
        )

    def resume(self, seats: Mapping[str, tuple[str, str]]) -> None:
        """Know where the agents sat when the run before ended; forget those who are not asked for.

        Args:
            seats: By agent, what `seated` was called with last.
        """
        for agent, seat in seats.items():
            if agent in self.agents:
                self._seats[agent] = found = Seat(*seat)
                self._sitting[found.device] = agent
            else:
                self._keep(agent, None)

    def includes_device(self, device: str) -> bool:
        """Tell whether the events of a device are wanted, as far as is known by now."""
        if not self.devices and not self.agents:
            return self.namespace in (None, "", device.partition("@")[2])
        return device in self.devices or device in self._sitting

    # On an event's way

    def wants(self, payload: Payload, device: str | None, destination: str | None) -> bool:
        """Tell whether this event was asked for, and learn from it where agents sit.

        Args:
            payload: The event as received.
            device: Its routing key.
            destination: The destination it came by, if the wire has one.
        """
        if not self.devices and not self.agents:
            namespace = payload.get("namespace")
            return namespace == self.namespace or not namespace or not self.namespace
        if self.agents:
            if payload.get("eventType") == "agent" and device is not None:
                agent = plain_text(payload.get("agentId"))
                if agent:
                    namespace = plain_text(payload.get("namespace")) or self.namespace
                    agent = full_id(agent, namespace)
                    self._follow(agent, device, payload)
                if agent in self.agents:
                    return True
            if destination is not None and destination in self._agent_destinations:
                if device is not None:
                    self._follow(self._agent_destinations[destination], device, payload)
                return True
            if device in self._sitting:
                return True
        return device in self.devices

    def wants_still(self, device: str | None) -> bool:
        """Tell by its device alone whether an event is wanted that was before; in doubt, no.

        With agents there always is doubt: each event may tell where one sits.
        """
        return not self.agents and (not self.devices or device in self.devices)

    def _follow(self, agent: str, device: str, payload: Payload) -> None:
        """Move an asked agent's seat; free a seat where somebody else sits now.

        Repeats and late events come this way too, so only a later event moves anybody; of the same
        second, or where the times cannot be compared, only a log-on does.
        """
        name = payload.get("eventName")
        if name == "agentLoggedOff":
            return  # the last hang-ups still come; the seat is free when someone sits down there
        time = plain_text(payload.get("eventTime")) or ""
        if read_time(time) is None:
            time = ""
        there = self._sitting.get(device)
        logs_on = name == "agentLoggedOn"
        if agent not in self.agents:
            if there is not None and _follows(time, self._seats[there].since, or_else=logs_on):
                del self._sitting[device]
                self._keep(there, None)
            return
        seat = self._seats.get(agent)
        again = seat is not None and time == seat.since != "" and logs_on
        if seat and not (again or _follows(time, seat.since, or_else=logs_on)):
            return
        self._seats[agent] = Seat(device, time)
        if there == agent:
            return
        if seat and self._sitting.get(seat.device) == agent:
            del self._sitting[seat.device]
        if there is not None:
            self._keep(there, None)
        self._sitting[device] = agent
        self._keep(agent, self._seats[agent])

    def _keep(self, agent: str, seat: Seat | None) -> None:
        if self.seated is not None:
            self.seated(agent, seat)

    def _stand_up(self, agent: str) -> None:
        """Free the seat of an agent, unless somebody else sits there now."""
        seat = self._seats.pop(agent, None)
        if seat and self._sitting.get(seat.device) == agent:
            del self._sitting[seat.device]
            self._keep(agent, None)

    def includes_namespace(self, namespace: str) -> bool:
        """Tell whether what befalls a namespace befalls anybody asked for."""
        if self.namespace in (None, namespace):
            return True
        return any(one.endswith(f"@{namespace}") for one in (*self.devices, *self.agents))

    # On the wire

    def destinations(self, templates: Sequence[str]) -> list[str]:
        """Write the wish as STOMP destinations, each once, in order.

        Raises:
            ConfigurationError: A template has a placeholder that is not known.
        """
        found: dict[str, None] = {}
        of_agents: dict[str, str] = {}
        for template in templates or self._default_topics():
            found.update(dict.fromkeys(self.expand(template)))
            if "{agent" in template:
                for agent in self.agents:
                    texts = self._expand(template, (agent,), self.devices)
                    of_agents.update(dict.fromkeys(texts, agent))
        if found:  # else it is no wish that anybody follows
            self._agent_destinations = of_agents
        return list(found)

    def devices_of(self, destination: str) -> frozenset[str]:
        """Return whose events a destination brings; empty: all, or it cannot be told.

        That of an agent brings those of any device, for the agent may sit down elsewhere.
        """
        if any(one in destination or one.replace(".", "_") in destination for one in self.agents):
            return frozenset()
        return frozenset(
            one
            for one in self.devices
            if one in destination or one.replace(".", "_") in destination
        )

    def _default_topics(self) -> Sequence[str]:
        """Ask by agent for agents, since nothing in a csta event tells whose it is.

        For all else ask for everybody, since nothing tells which agent sits at a device.
        """
        by_agent = ("/topic/event.agent.*.{agent_}",) if self.agents else ()
        if self.agents and not self.devices:
            return by_agent
        return (*by_agent, "/topic/event.agent.*.*")

    def expand(self, template: str, *, quoted: bool = False) -> list[str]:
        """Fill a template in, once for each agent or device it names.

        Args:
            template: Text with `{agent}`, `{device}`, `{namespace}`; a trailing `_` in a
                placeholder turns dots into underscores.
            quoted: Quote the values for a URL.

        Raises:
            ConfigurationError: A placeholder is not known, or there is no namespace to fill in.
        """
        named = set(_PLACEHOLDER.findall(template))
        for name in named:
            if name.removesuffix("_") not in _NAMES:
                known = ", ".join(f"{{{known}}}" for known in _NAMES)
                raise ConfigurationError(_shown(template), f"knows {known}, not {{{name}}}")
        if "namespace" in {name.removesuffix("_") for name in named} and self.namespace is None:
            raise ConfigurationError(_shown(template), "needs a namespace")
        return self._expand(template, self.agents, self.devices, quoted=quoted)

    def _expand(
        self, template: str, agents: Iterable[str], devices: Iterable[str], *, quoted: bool = False
    ) -> list[str]:
        named = set(_PLACEHOLDER.findall(template))
        texts = [template]
        for kind, ids in (("agent", agents), ("device", devices)):
            if {kind, f"{kind}_"} & named:
                texts = [_fill(text, kind, one, quoted) for text in texts for one in sorted(ids)]
        return [_fill(text, "namespace", self.namespace or "", quoted) for text in texts]

    def query(self, template: str) -> str:
        """Write the wish as the query of a JSON endpoint; a part that names nobody is left out.

        Raises:
            ConfigurationError: A template has a placeholder that is not known.
        """
        parts = (part for part in template.split("&") if part)
        if self.namespace is None:
            parts = (part for part in parts if "{namespace" not in part)
        return "&".join(text for part in parts for text in self.expand(part, quoted=True))

    def _complete(self, what: str, text: str) -> str:
        text = text.strip()
        if not text or ("@" not in text and not self.namespace):
            raise ConfigurationError(
                what,
                f"{text!r} is a short id; give it in full (8002@zhen04.cc) or give a namespace",
            )
        if not text.isprintable():  # nor could every wire carry it
            raise ConfigurationError(what, f"{text!r} has a character that no id has")
        return full_id(text, self.namespace)


def _follows(time: str, since: str, *, or_else: bool) -> bool:
    """Tell whether an event comes behind another by its time; empty: it has none.

    Where one has none: `or_else`. Where neither has, what arrives later comes behind, as it does
    where the other's lies so far ahead that it must be odd.
    """
    if time and since:
        behind = seconds_between(time, since) or 0.0  # they need not be written alike
        return behind < 0 or behind > FAR
    return or_else or not (time or since)


def _shown(template: str) -> str:
    """Name a template: a destination as it is; a query or a message may hold a token."""
    if not template.startswith("/"):
        pieces = _PLACEHOLDER.split(template)  # what is between, then a name, and so on
        names = (f"{{{name}}}" for name in pieces[1::2])
        template = f"...{'...'.join(names)}..."
    return f"template {template!r}"


def _fill(text: str, kind: str, value: str, quoted: bool) -> str:  # noqa: FBT001 - private, passed on
    if quoted:
        value = quote(value, safe="@")
    return text.replace(f"{{{kind}_}}", value.replace(".", "_")).replace(f"{{{kind}}}", value)
