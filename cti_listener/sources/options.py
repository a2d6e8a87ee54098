"""How to connect: every keyword of `Listener` that is about the connection, with its default.

`ConnectionOptions` holds the values; `ConnectionKeywords` gives their types to `Listener(**...)`. A
test holds the two to each other.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, Self, TypedDict

from cti_listener.discretion import in_message, in_query, in_value, in_values
from cti_listener.errors import ConfigurationError

WireChoice = Literal["auto", "stomp", "json"]

MOST_PREFETCH: Final = 65_535
LONGEST_EXPIRY: Final = 4_294_967
"""In seconds; RabbitMQ counts milliseconds in 32 bits."""

LONGEST_HEARTBEAT: Final = 86_400.0
"""In seconds; what beats once a day tells nothing of a connection any more."""

_DURABLE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What proves who we are; every part is optional. Never shown in a repr.

    Attributes:
        login: STOMP `login` header.
        passcode: STOMP `passcode` header.
        token: Sent as `Authorization: Bearer ...` in the handshake.
        cookie: Sent as `Cookie` in the handshake.
        headers: Further secret HTTP headers of the handshake, as `sessionId`.
        connect_headers: Further secret headers of the STOMP CONNECT frame.
    """

    login: str | None = None
    passcode: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def http_headers(self) -> dict[str, str]:
        """The headers of an HTTP request that show them."""
        headers = dict(self.headers)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.cookie:
            headers["Cookie"] = self.cookie
        return headers


def secrets_of_credentials(credentials: Credentials) -> set[str]:
    """Return every text of them that must never be seen."""
    secrets = [credentials.passcode, credentials.token, credentials.cookie]
    secrets += [*credentials.headers.values(), *credentials.connect_headers.values()]
    if credentials.login and credentials.passcode:
        secrets.append(f"{credentials.login}:{credentials.passcode}")  # in base64, a header
    return {text for one in secrets if one for text in in_value(one)}


Auth = Credentials | Callable[[], Awaitable[Credentials]]
"""Credentials, or a coroutine function asked for them before every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How to connect. Times are in seconds, sizes in bytes. What may be secret is in no repr.

    Attributes:
        topics: STOMP destinations, or templates of them with `{agent}`, `{agent_}`, `{device}`,
            `{device_}`, `{namespace}`, `{namespace_}` (a trailing `_`: dots as underscores). Empty:
            `/topic/event.agent.*.{agent_}` for agents, `/topic/event.agent.*.*` for all else.
        vhost: STOMP `host` header: the broker's virtual host, never the host name.
        connect_headers: Further headers of the STOMP CONNECT frame.
        heartbeat_send: How often we offer to send a STOMP heart-beat, once a day at least; 0:
            never.
        heartbeat_receive: How often we ask the server for one, likewise; 0: never.
        receipt_timeout: How long to wait for RECEIPTs before the subscription counts as
            unconfirmed.
        durable: The id of this replica's durable subscription: RabbitMQ then keeps what is
            published while we are away, and a message until the journal has it. Unique among all
            that listen, and the same in every run. None: it keeps nothing. Needs STOMP, a journal,
            and the next two.
        durable_expires: How long the broker keeps the subscription without us; then what it held is
            gone (x-expires).
        durable_max_length: How many messages it holds for us; with more, the oldest are gone
            (x-max-length).
        prefetch: How many messages are on their way to us at once, unacknowledged, for each
            destination of a durable subscription.
        silent_after: A destination silent this long draws one warning that names `topics`; 0:
            never.
        query: Template of the query added to a JSON endpoint's URL: a part that names `{device}` or
            `{agent}` is repeated for each. Empty: none.
        subscribe: Templates of messages sent to a JSON endpoint after connecting, repeated
            likewise. Where there are any, or a `query`, they must tell the server something.
        grace: How long after a JSON handshake the subscription counts as standing, unconfirmed.
        headers: Further HTTP headers of the handshake.
        origin: `Origin` of the handshake.
        ca_file: PEM file of the authorities to trust instead of the system's.
        cert_file: PEM file of a client certificate.
        key_file: PEM file of its key, when not in `cert_file`.
        ssl_context: A context of your own; the three above are then refused, and errors tell less
            of a certificate.
        proxy: `True`: as the environment says; a URL (`http://`, `socks5h://`); None: none.
        compression: Offer permessage-deflate (RFC 7692).
        open_timeout: For TCP, TLS, proxy and the handshake together.
        close_timeout: For the closing handshake.
        max_size: A larger message ends the connection (WebSocket 1009): a `Gap` (`oversized`).
        soft_size: A larger message (JSON) or frame (STOMP) is left out, and the connection lives: a
            `Gap` (`oversized`). So is what a smaller one holds beyond what events of its length
            could: above some thousand, events of less than 130 bytes on average.
        ping_interval: A WebSocket ping is sent after this long without a byte; 0: never.
        silence_limit: After this long without a byte the peer is dead; any byte counts as life. 0:
            never.
        max_attempts: Attempts in a row before giving up; None: never.
        max_wait: The longest wait between two attempts.
        stable_after: A connection that stood this long resets the backoff; one that brought events
            does after a second.
        refused_retry: How often a refused destination is tried again.
    """

    topics: Sequence[str] = ()
    vhost: str = "/"
    connect_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    heartbeat_send: float = 10.0
    heartbeat_receive: float = 10.0
    receipt_timeout: float = 3.0
    durable: str | None = None
    durable_expires: float | None = None
    durable_max_length: int | None = None
    prefetch: int = 1000
    silent_after: float = 300.0
    query: str = field(default="namespace={namespace}&device={device}&agent={agent}", repr=False)
    subscribe: Sequence[str] = field(default=(), repr=False)
    grace: float = 0.1
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    origin: str | None = None
    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    ssl_context: ssl.SSLContext | None = None
    proxy: str | Literal[True] | None = field(default=True, repr=False)
    compression: bool = True
    open_timeout: float = 10.0
    close_timeout: float = 2.0
    max_size: int = 4 * 2**20
    soft_size: int = 2**20
    ping_interval: float = 5.0
    silence_limit: float = 12.0
    max_attempts: int | None = None
    max_wait: float = 60.0
    stable_after: float = 30.0
    refused_retry: float = 300.0

    @classmethod
    def from_keywords(cls, keywords: ConnectionKeywords) -> Self:
        """Hold the keywords to what there is.

        Raises:
            ConfigurationError: One is unknown, or cannot work.
        """
        known = {one.name for one in fields(cls)}
        for name in keywords:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else "; see ConnectionOptions"
                raise ConfigurationError(name, f"is no setting of Listener{hint}")
        return cls(**keywords)

    def __post_init__(self) -> None:
        """Refuse what cannot work, by name.

        Raises:
            ConfigurationError: A value is out of its range, or two contradict each other.
        """
        self._check_ranges()
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ConfigurationError("max_attempts", "must be 1 or more, or None to try for ever")
        if 0 < self.silence_limit <= self.ping_interval:
            raise ConfigurationError(
                "silence_limit",
                "must be longer than ping_interval, or a quiet server passes for dead",
            )
        if self.soft_size > self.max_size:
            raise ConfigurationError("soft_size", "must not be above max_size")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError("key_file", "needs cert_file, the certificate it belongs to")
        if self.ssl_context is not None and (self.ca_file or self.cert_file):
            raise ConfigurationError(
                "ssl_context",
                "load the files into it yourself, and leave ca_file and cert_file out",
            )
        self._check_durable()

    def _check_ranges(self) -> None:
        """Refuse a number that is out of its range; as `__post_init__`."""
        for name in (
            "open_timeout",
            "close_timeout",
            "receipt_timeout",
            "max_wait",
            "stable_after",
            "max_size",
            "soft_size",
            "refused_retry",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(name, "must be more than 0")
        for name in ("silent_after", "grace", "ping_interval", "silence_limit"):
            if getattr(self, name) < 0:
                raise ConfigurationError(name, "must be 0 or more")
        for name in ("heartbeat_send", "heartbeat_receive"):
            if not 0 <= getattr(self, name) <= LONGEST_HEARTBEAT:
                raise ConfigurationError(name, f"must be from 0 to {LONGEST_HEARTBEAT:.0f} seconds")

    def _check_durable(self) -> None:
        """Refuse a durable subscription that cannot work; as `__post_init__`."""
        if not 1 <= self.prefetch <= MOST_PREFETCH:
            raise ConfigurationError("prefetch", f"must be from 1 to {MOST_PREFETCH}")
        expires, length = self.durable_expires, self.durable_max_length
        if expires is not None and not 1 <= expires <= LONGEST_EXPIRY:
            raise ConfigurationError(
                "durable_expires", f"must be from 1 to {LONGEST_EXPIRY} seconds"
            )
        if length is not None and length < 1:
            raise ConfigurationError("durable_max_length", "must be 1 or more")
        if self.durable is None:
            given = {"durable_expires": expires, "durable_max_length": length}
            for name, value in given.items():
                if value is not None:
                    raise ConfigurationError(name, "is for a durable subscription; give durable")
            return
        if not self.heartbeat_send:
            raise ConfigurationError(
                "heartbeat_send",
                "must be more than 0 with durable: by it a broker learns that a connection is dead,"
                " and takes back what it has sent there",
            )
        if not _DURABLE_ID.fullmatch(self.durable):
            raise ConfigurationError(
                "durable",
                f"{self.durable!r} cannot be an id; give 1 to 100 letters, digits, '.', '_', '-'",
            )
        if expires is None or length is None:
            raise ConfigurationError(
                "durable",
                "needs durable_expires (seconds) and durable_max_length (messages): what the broker"
                " keeps for a listener that never comes back must have an end",
            )


def secrets_of_options(options: ConnectionOptions) -> set[str]:
    """Return what of them may be secret, but for the proxy's URL: it may be the environment's."""
    return {
        *in_values(options.headers),
        *in_values(options.connect_headers),
        *in_query(options.query),
        *(text for one in options.subscribe for text in in_message(one)),
    }


class ConnectionKeywords(TypedDict, total=False):
    """The types of `ConnectionOptions`, as keyword arguments."""

    topics: Sequence[str]
    vhost: str
    connect_headers: Mapping[str, str]
    heartbeat_send: float
    heartbeat_receive: float
    receipt_timeout: float
    durable: str | None
    durable_expires: float | None
    durable_max_length: int | None
    prefetch: int
    silent_after: float
    query: str
    subscribe: Sequence[str]
    grace: float
    headers: Mapping[str, str]
    origin: str | None
    ca_file: Path | str | None
    cert_file: Path | str | None
    key_file: Path | str | None
    ssl_context: ssl.SSLContext | None
    proxy: str | Literal[True] | None
    compression: bool
    open_timeout: float
    close_timeout: float
    max_size: int
    soft_size: int
    ping_interval: float
    silence_limit: float
    max_attempts: int | None
    max_wait: float
    stable_after: float
    refused_retry: float
