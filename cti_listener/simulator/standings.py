"""How each agent stands, by what the server has told: what it answers to `client-state`.

One active call of each agent's device is told, as the server does: the one that is not on hold, or
else the one that came last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Response

from cti_listener.values import Payload, routing_key

CLIENT_STATE_PATH: Final = "/api/csta/agent/client-state"

_ON_HOLD: Final = "Hold"

_STEPS: Final[MappingProxyType[str, tuple[str, str]]] = MappingProxyType(
    {
        "serviceInitiated": ("initiatedDevice", "Initiate"),
        "originated": ("callingDevice", "Initiate"),
        "delivered": ("alertingDevice", "Alerting"),
        "established": ("answeringDevice", "Connect"),
        "held": ("holdingDevice", _ON_HOLD),
        "retrieved": ("retrievingDevice", "Connect"),
    }
)
"""Which field names whose step an event is, and how that device stands then."""


class Standings:
    """Notes what is told, one event at a time."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._agents: dict[str, tuple[str, dict[str, Any]]] = {}  # by session: where, and how
        self._calls: dict[str, dict[str, dict[str, Any]]] = {}  # by device, then by call

    def __repr__(self) -> str:
        return f"<Standings of {len(self._agents)} agents>"

    def note(self, event: Payload) -> None:
        """Take an event that is told for the first time."""
        device, call, name = routing_key(event), event.get("callId"), event.get("eventName")
        if device is None:
            return
        if event.get("eventType") == "agent":
            agent = {"agentId": event.get("agentId"), "agentMode": event.get("agentMode")}
            self._agents[str(agent["agentId"]).partition("@")[0]] = device, agent
        elif name in {"transferred", "conferenced"}:
            self._follow(device, event)
        elif name == "connectionCleared":
            if event.get("releasingDevice") == device:
                self._calls.get(device, {}).pop(str(call), None)
        elif name in _STEPS:
            self._step(device, str(call), event)

    def answer(self, connection: ServerConnection, shown: set[str]) -> Response:
        """Answer a request: with the agent whose session it shows.

        Args:
            connection: Whose request it is.
            shown: What it shows; the session of an agent is called as the agent, short.
        """
        for session in shown & self._agents.keys():
            return self._respond(connection, *self._agents[session])
        return connection.respond(HTTPStatus.UNAUTHORIZED, "Not logged in\n")

    def _respond(
        self, connection: ServerConnection, device: str, agent: Mapping[str, Any]
    ) -> Response:
        extension, _, namespace = device.partition("@")
        calls = list(self._calls.get(device, {}).values())
        talking = [one for one in calls if one["state"] != _ON_HOLD]
        there = talking or calls
        active = there[-1] if there else None
        told = {**agent, "extensionId": extension, "namespace": namespace, "activeCall": active}
        body = json.dumps({"agent": told, "extension": {"extensionId": extension}})
        response = connection.respond(HTTPStatus.OK, body)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    def _step(self, device: str, call: str, event: Payload) -> None:
        whose, state = _STEPS[str(event["eventName"])]
        calls = self._calls.setdefault(device, {})
        known = calls.get(call)
        own = event.get(whose) == device
        if known is None:
            if not own:
                return
            known = calls[call] = {"callId": call, "ringTime": None, "answerTime": None}
        if known["ringTime"] is None and state == "Alerting":
            known["ringTime"] = event.get("eventTime")
        if known["answerTime"] is None and state == "Connect":
            known["answerTime"] = event.get("eventTime")
        if own or (state == "Connect" and known["state"] == "Initiate"):
            known["state"] = state
        for field, name in (("ani", "callingDevice"), ("dnis", "calledDevice")):
            if event.get(name):
                known[field] = event[name]

    def _follow(self, device: str, event: Payload) -> None:
        """Have a consulted call go on as the other, at whom that is so."""
        calls = self._calls.get(device, {})
        secondary, into = str(event.get("secondaryOldCall")), event.get("newCall")
        if event.get("eventName") == "conferenced":
            into = event.get("callId")
        elif event.get("transferredToDevice") != device:
            return
        if secondary in calls and into and into != secondary:
            one = calls.pop(secondary)
            calls[str(into)] = {**one, "callId": into, "state": "Connect"}
