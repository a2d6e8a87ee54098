"""What the server says to a handshake: which paths there are, who may in, which sub-protocol."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cti_listener.simulator.stomp_door import VERSIONS

STOMP_PATH: Final = "/mvc/stomp/websocket"
JSON_PATH: Final = "/events"

_SUBPROTOCOLS: Final = [f"v{version.replace('.', '')}.stomp" for version in VERSIONS]


def target(connection: ServerConnection) -> str:
    """Return the path and query that the client asked for."""
    return connection.request.path if connection.request is not None else ""


def path(request: Request) -> str:
    """Return the path that a request is for."""
    return urlsplit(request.path).path


def headers(connection: ServerConnection) -> dict[str, str]:
    """Return the HTTP headers that the client sent, by lower-case name."""
    items = connection.request.headers.raw_items() if connection.request is not None else ()
    return {name.lower(): value for name, value in items}


def speaks_stomp(connection: ServerConnection) -> bool:
    """Tell whether the client came to the STOMP door."""
    return urlsplit(target(connection)).path == STOMP_PATH


def refuse(
    connection: ServerConnection, request: Request, token: str | None, expired: set[str] | None
) -> Response | None:
    """Answer a handshake for a path that does not exist, or without a valid token; None: go on.

    Args:
        connection: Whose handshake it is.
        request: What it says.
        token: What is asked for; None: whatever comes.
        expired: What is no longer taken, nor is having nothing else to show; None: all is taken.
    """
    if path(request) not in (STOMP_PATH, JSON_PATH):
        return connection.respond(HTTPStatus.NOT_FOUND, "No such endpoint\n")
    shown = proofs(request)
    if (token is not None and token not in shown) or (expired is not None and shown <= expired):
        return connection.respond(HTTPStatus.UNAUTHORIZED, "Not logged in\n")
    return None


def choose_subprotocol(
    connection: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Pick the best STOMP of those offered; none where JSON is spoken."""
    if not speaks_stomp(connection):
        return None
    return next((Subprotocol(one) for one in _SUBPROTOCOLS if one in offered), None)


def proofs(request: Request) -> set[str]:
    """Return whatever in a handshake may be the token."""
    sent = request.headers
    found = {value.removeprefix("Bearer ") for value in sent.get_all("Authorization")}
    found.update(sent.get_all("sessionId"))
    for cookies in sent.get_all("Cookie"):
        found.update(cookie.partition("=")[2].strip() for cookie in cookies.split(";"))
    return found
