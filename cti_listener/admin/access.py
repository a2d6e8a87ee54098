"""Who may ask: addresses, Host headers, the token, and the sessions that stand for it.

A page of somebody else's in the same browser can send requests here; the Host header tells names
that were made to lead here (DNS rebinding), and no answer carries a CORS header.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError

SHORTEST_TOKEN: Final = 16
"""So many characters a token has at least: nothing here slows down those who guess."""

SESSION_AGE: Final = 12 * 3600.0
"""For how long a session stands for the token, in seconds."""

MOST_SESSIONS: Final = 100
"""So many sessions there are at once; the oldest ends first."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LAST_PORT: Final = 65535


class Address(NamedTuple):
    """Where to listen; port 0 picks a free one."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[::1]:PORT` or `:PORT`, which is the loopback's.

        Raises:
            ConfigurationError: It is none of these.
        """
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        number = int(port) if port.isascii() and port.isdigit() else -1
        if not colon or not 0 <= number <= _LAST_PORT or (":" in bare and bare == host):
            problem = f"{text!r} is not like 127.0.0.1:9464, or [::1]:9464; port 0 picks a free one"
            raise ConfigurationError("admin", problem)
        return cls(bare or "127.0.0.1", number)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine comes this way."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def refuse_open(address: Address, token: str | None) -> None:
    """Refuse to be open to others without a token, or with one that can be guessed.

    Raises:
        ConfigurationError: It would be.
    """
    if token is None and not address.is_loopback:
        raise ConfigurationError(
            "admin",
            f"{address} is open to others, so it needs a token: give --admin-token-file FILE, or "
            "set CTI_ADMIN_TOKEN (openssl rand -hex 32 makes one); or listen on 127.0.0.1",
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(
            "admin_token",
            f"has fewer than {SHORTEST_TOKEN} characters; make one by: openssl rand -hex 32",
        )


class Hosts:
    """The names by which we may be asked: the loopback's, where we listen, and those allowed."""

    def __init__(self, bound: str, allowed: Iterable[str]) -> None:
        """Take these besides the loopback's."""
        self._names = {*_LOOPBACK, bound.lower(), *(name.lower() for name in allowed)}

    def __repr__(self) -> str:
        return f"<Hosts {', '.join(sorted(self._names))}>"

    def admit(self, header: str, here: str) -> bool:
        """Tell whether a Host header is for us.

        Args:
            header: As it came, with or without a port.
            here: The address of this machine at which the connection came in: one bound to all
                addresses is known by each of them, and an address is no name that can be bent.
        """
        name = _without_port(header).lower().removesuffix(".")
        return name in self._names or (bool(here) and name == here.lower())


def _without_port(header: str) -> str:
    if header.startswith("["):
        inside, closing, rest = header[1:].partition("]")
        return inside if closing and (not rest or rest.startswith(":")) else ""
    name, _, rest = header.partition(":")
    return "" if ":" in rest else name


class Access:
    """Knows the token, and the sessions that stand for it.

    Args:
        token: What has to be shown; None: nothing, whoever gets here may ask.
        clock: The one clock.
    """

    def __init__(self, token: str | None, clock: Clock) -> None:
        """Begin with no session."""
        self._token = None if token is None else _digest(token)
        self._clock = clock
        self._sessions: OrderedDict[bytes, float] = OrderedDict()  # digest -> until when

    def __repr__(self) -> str:
        return f"<Access {'open' if self._token is None else f'{len(self._sessions)} sessions'}>"

    @property
    def is_open(self) -> bool:
        """Whether nothing has to be shown."""
        return self._token is None

    def is_token(self, text: str) -> bool:
        """Tell whether this is the token, in a time that says nothing of it."""
        return self._token is not None and hmac.compare_digest(_digest(text), self._token)

    def admits(self, authorization: str | None, session: str | None) -> bool:
        """Tell whether a request may be answered.

        Args:
            authorization: The header, `Bearer TOKEN`.
            session: The cookie.
        """
        if self._token is None:
            return True
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return scheme.lower() == "bearer" and self.is_token(token.strip())
        return session is not None and self._is_session(session)

    def begin(self) -> str:
        """Return the name of a new session: chance, from which nothing of the token follows."""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock.monotonic() + SESSION_AGE
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def end(self, session: str) -> None:
        """End a session, if there is one of this name."""
        self._sessions.pop(_digest(session), None)

    def _is_session(self, session: str) -> bool:
        # Found by its digest, so that how long it takes says nothing of those there are.
        until = self._sessions.get(_digest(session))
        return until is not None and self._clock.monotonic() < until


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
