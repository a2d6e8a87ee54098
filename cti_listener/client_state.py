"""Asks a CTI server over HTTP how one agent stands: a ready-made `snapshot` for `Listener`."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.keywords import zone_of
from cti_listener.snapshots import CallSnapshot, CallState, DeviceSnapshot
from cti_listener.sources.options import Auth, Credentials
from cti_listener.values import full_id, read_time

try:
    import aiohttp
except ImportError:  # the extra is not installed: said by whoever makes a `ClientState`
    aiohttp = None  # type: ignore[assignment]  # asked for before it is used

PATH: Final = "/api/csta/agent/client-state"

MOST: Final = 1024 * 1024
"""How much of an answer is read, in bytes."""

_STATES: Final[MappingProxyType[str, CallState]] = MappingProxyType(
    {
        "Initiate": "initiated",
        "Alerting": "alerting",
        "Connect": "connected",
        "Hold": "held",
    }
)
"""What `state` of the active call means; the others (None, Fail, Idle, Idle2) are no call."""

_NOT_ALLOWED: Final = frozenset({401, 403})
_OK: Final = 200

_SECONDS: Final = 1e11
"""A number below is seconds since 1970, one above is milliseconds, which makes it 1973 or later."""


class ClientState:
    """Asks `/api/csta/agent/client-state`, which tells of the agent whose session asks.

    The answer names the active call only, and nothing that is on hold beside it: so it is never
    `complete`. Give an instance to `Listener(snapshot=)`; for several agents, one each, and a
    coroutine function of your own that picks one.

    Args:
        url: The server, `https://cti.example.com`; what else the URL has is put before the path.
        device: Where the agent sits, a full id; about others nothing is asked or known.
        auth: The agent's session: `Credentials` (`cookie`, `token`, `headers`), or a coroutine
            function that returns them, asked every time.
        zone: Where the server's clock hangs.
        timeout: How long the server may take in all, in seconds.
        ssl_context: Whom to trust; by default what the system trusts.
        proxy: The URL of an HTTP proxy; None: none.

    Raises:
        ConfigurationError: The URL is none of HTTP, the device no full id, the zone unknown, the
            timeout not more than 0, or the extra `http` is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        device: str,
        auth: Auth,
        zone: str | tzinfo = "Asia/Shanghai",
        timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        """Ask nothing yet."""
        if aiohttp is None:
            raise ConfigurationError("client_state", "needs pip install 'cti-listener[http]'")
        _refuse_url(url)
        if device.count("@") != 1 or not all(device.split("@")):
            raise ConfigurationError(
                "device", f"{device!r} is no full id; write it as 8002@zhen04.cc"
            )
        if timeout <= 0:
            raise ConfigurationError("timeout", "must be more than 0")
        self._url = url.rstrip("/") + PATH
        self._device = device
        self._auth = auth
        self._zone = zone_of(zone)
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._proxy = proxy

    def __repr__(self) -> str:
        return f"<ClientState of {self._device} at {self._url}>"

    async def __call__(self, device: str) -> DeviceSnapshot | None:
        """Return how the agent's device stands; None for any other device.

        Raises:
            RefusedError: The session is not taken, any more.
            ConnectError: The server does not answer, or what it answers cannot be read.
        """
        if device != self._device:
            return None
        credentials = self._auth if isinstance(self._auth, Credentials) else await self._auth()
        text = await self._get(credentials.http_headers)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("agent"), dict):
            raise ConnectError(self._url, "the answer is no JSON object with an agent")
        return self._snapshot(answer["agent"])

    async def _get(self, headers: Mapping[str, str]) -> bytes:
        if any(set(text) & {"\r", "\n"} for text in headers.values()):
            raise RefusedError(self._url, "the session holds a line break, which no header can")
        try:
            async with (
                asyncio.timeout(self._timeout),
                # Of its own, so that nothing is left open between two questions.
                aiohttp.ClientSession(headers={"Accept": "application/json", **headers}) as session,
                session.get(
                    self._url,
                    ssl=self._ssl_context or True,
                    proxy=self._proxy,
                    allow_redirects=False,  # the session is for nobody else
                ) as response,
            ):
                if response.status != _OK:
                    refused = response.status in _NOT_ALLOWED
                    kind = RefusedError if refused else ConnectError
                    raise kind(self._url, f"answers with HTTP {response.status}")
                text = b""
                async for some in response.content.iter_any():
                    text += some
                    if len(text) > MOST:
                        raise ConnectError(self._url, f"answers with more than {MOST} bytes")
                return text
        except TimeoutError:
            raise ConnectError(self._url, f"no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectError(self._url, f"{error}" or type(error).__name__) from None

    def _snapshot(self, agent: Mapping[str, Any]) -> DeviceSnapshot | None:
        """Read what is said of the agent; None if it sits elsewhere."""
        namespace = _text(agent.get("namespace")) or self._device.partition("@")[2]
        extension = _text(agent.get("extensionId"))
        if extension is not None and full_id(extension, namespace) != self._device:
            return None
        active = agent.get("activeCall")
        call = self._call(active, namespace) if isinstance(active, dict) else None
        name = _text(agent.get("agentId"))
        return DeviceSnapshot(
            agent=None if name is None else full_id(name, namespace),
            mode=_text(agent.get("agentMode")),
            calls=() if call is None else (call,),
        )

    def _call(self, active: Mapping[str, Any], namespace: str) -> CallSnapshot | None:
        state, name = _STATES.get(str(active.get("state"))), _text(active.get("callId"))
        if state is None or name is None or name == "0":
            return None
        calling, called = _text(active.get("ani")), _text(active.get("dnis"))
        return CallSnapshot(
            id=name,
            state=state,
            calling=None if calling is None else full_id(calling, namespace),
            called=None if called is None else full_id(called, namespace),
            alerted=self._time(active.get("ringTime")),
            answered=self._time(active.get("answerTime")),
        )

    def _time(self, value: object) -> datetime | None:
        """Read a time: as events write theirs, or in seconds or milliseconds since 1970."""
        if isinstance(value, str):
            return read_time(value, self._zone)
        if isinstance(value, int | float) and value > 0:
            try:
                return datetime.fromtimestamp(value if value < _SECONDS else value / 1000, UTC)
            except (ValueError, OverflowError, OSError):
                return None
        return None


def _refuse_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        plain = None
    if not plain:
        raise ConfigurationError("url", "is no URL of HTTP; write it as https://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("url", "holds more than a server and a path; use auth")


def _text(value: object) -> str | None:
    """Return a text, a number as one; None for all else, and for an empty one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
