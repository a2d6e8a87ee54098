"""Every setting of the command line and the daemon, with its type and default.

One name serves everywhere: the setting `passcode_file` is `--passcode-file`,
`CTI_PASSCODE_FILE` and the TOML key `passcode_file`. `loading` fills it from these; `app` and `cli`
read the result.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cti_listener.clock import LONGEST
from cti_listener.discretion import MASK, in_message, in_query, in_url
from cti_listener.errors import ConfigurationError
from cti_listener.ops.masking import mask_path
from cti_listener.settings.readings import (
    At,
    Destinations,
    Endpoints,
    Headers,
    HttpHeaders,
    HttpSecret,
    HttpText,
    Line,
    Messages,
    Names,
    Period,
    Proxy,
    Query,
    Seconds,
    SecretLine,
    Templates,
    Zone,
    in_http,
    line,
    refuse_uncarried,
    sink_url,
)
from cti_listener.sources.options import (
    ConnectionKeywords,
    ConnectionOptions,
    Credentials,
    secrets_of_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIASES: Final = {"ns": "namespace"}
"""Other names a setting goes by, in every source."""

_SETTING_OF_OPTION: Final = {
    "topics": "topic",
    "headers": "header",
    "connect_headers": "connect_header",
}
"""A list is named in the plural in Python, and after its flag in the settings."""


class Settings(BaseSettings):
    """What a run is told. Times are in seconds, sizes in bytes; 0 means none, never or no limit."""

    model_config = SettingsConfigDict(
        env_prefix="CTI_",
        env_ignore_empty=True,  # compose files hand on what is not set as an empty text
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given and nothing else: `loading` reads each source, to tell them apart."""
        return (init_settings,)

    @field_validator("*")
    @classmethod
    def _carried(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse texts that nothing can carry; a path may be of any bytes."""
        refuse_uncarried(value, any_bytes=info.field_name == "to")
        return value

    config: Path | None = None

    # What to listen to
    url: Endpoints = ()
    demo: bool = False
    namespace: str | None = None
    device: Names = ()
    agent: Names = ()
    event: Names = ()
    wire: Literal["auto", "stomp", "json"] = "auto"
    redundancy: Annotated[int, Field(ge=1, le=26)] = 1
    topic: Templates = ()
    zone: Zone = "Asia/Shanghai"

    # Who we are
    login: Line | None = None
    passcode: SecretLine | None = None
    passcode_file: Path | None = None
    token: HttpSecret | None = None
    token_file: Path | None = None
    cookie: HttpSecret | None = None
    cookie_file: Path | None = None
    header: HttpHeaders = {}
    connect_header: Headers = {}

    # What is printed, and for how long
    format: Literal["auto", "pretty", "json"] = "auto"
    calls: bool = False
    internal: str = r"\d{1,6}"
    call_timeout: Annotated[float, Field(gt=0, le=LONGEST)] = 4 * 3600.0
    count: Annotated[int, Field(ge=0)] = 0
    duration: Seconds = 0.0

    # Where it goes besides
    to: Destinations = ()
    to_records: Literal["events", "records", "both"] = "events"
    webhook_secret_file: Path | None = None
    webhook_timeout: Annotated[float, Field(gt=0)] = 15.0
    webhook_connections: Annotated[int, Field(ge=1, le=1000)] = 16
    jsonl_max_size: Annotated[int, Field(ge=0)] = 0
    jsonl_every: Period = 0.0
    jsonl_sync: bool = False

    # How to connect (the ranges are `ConnectionOptions`' to judge)
    vhost: Line = "/"
    query: Query = "namespace={namespace}&device={device}&agent={agent}"
    subscribe: Messages = ()
    origin: HttpText | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    proxy: Proxy = "auto"
    compression: bool = True
    max_attempts: Annotated[int, Field(ge=0)] = 0
    max_wait: float = 60.0
    stable_after: float = 30.0
    refused_retry: float = 300.0
    open_timeout: float = 10.0
    close_timeout: float = 2.0
    receipt_timeout: float = 3.0
    grace: float = 0.1
    heartbeat_send: float = 10.0
    heartbeat_receive: float = 10.0
    ping_interval: float = 5.0
    silence_limit: float = 12.0
    durable: str | None = None
    durable_expires: float | None = None
    durable_max_length: int | None = None
    prefetch: int = 1000
    silent_after: float = 300.0
    max_size: int = 4 * 2**20
    soft_size: int = 2**20

    # What is kept on disk
    journal: Path | None = None
    journal_synchronous: Literal["full", "normal"] = "full"
    journal_retention: Annotated[float, Field(gt=0, le=LONGEST)] = 86400.0
    journal_max_size: Annotated[int, Field(ge=2**20)] = 4 * 2**30

    # How events are handled
    splice_hold: Annotated[float, Field(gt=0)] = 1.0
    lane_size: Annotated[int, Field(ge=1)] = 1000
    dedupe_window: Annotated[int, Field(ge=1)] = 100_000
    dedupe_age: Annotated[float, Field(gt=0, le=LONGEST)] = 3600.0
    drain: Seconds = 8.0
    block_limit: Seconds = 1.0

    # What it tells over HTTP
    admin: At = None
    admin_host: Names = ()
    admin_token: SecretStr | None = None
    admin_token_file: Path | None = None
    ready_max_age: Seconds = 60.0

    # What is logged, and how the daemon shows that it lives
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    mask_numbers: bool = True
    health_file: Path | None = None

    def connection(self) -> ConnectionKeywords:
        """Return what `Listener` takes about the connection."""
        return {
            "topics": self.topic,
            "vhost": self.vhost,
            "heartbeat_send": self.heartbeat_send,
            "heartbeat_receive": self.heartbeat_receive,
            "receipt_timeout": self.receipt_timeout,
            "durable": self.durable,
            "durable_expires": self.durable_expires,
            "durable_max_length": self.durable_max_length,
            "prefetch": self.prefetch,
            "silent_after": self.silent_after,
            "query": self.query,
            "subscribe": self.subscribe,
            "grace": self.grace,
            "origin": self.origin,
            "ca_file": self.ca_file,
            "cert_file": self.cert_file,
            "key_file": self.key_file,
            "proxy": {"auto": True, "none": None}.get(self.proxy, self.proxy),
            "compression": self.compression,
            "open_timeout": self.open_timeout,
            "close_timeout": self.close_timeout,
            "max_size": self.max_size,
            "soft_size": self.soft_size,
            "ping_interval": self.ping_interval,
            "silence_limit": self.silence_limit,
            "max_attempts": self.max_attempts or None,
            "max_wait": self.max_wait,
            "stable_after": self.stable_after,
            "refused_retry": self.refused_retry,
        }

    @property
    def has_credentials(self) -> bool:
        """Whether anything is set that proves who we are."""
        given = (self.login, self.passcode, self.token, self.cookie)
        files = (self.passcode_file, self.token_file, self.cookie_file)
        return any((*given, *files, self.header, self.connect_header))

    def credentials(self) -> Credentials:
        """Return what proves who we are, reading the files afresh: sessions and tokens expire.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is empty or not text.
        """
        return replace(
            self._given_credentials(),
            passcode=_secret(self.passcode, self.passcode_file),
            token=_secret(self.token, self.token_file),
            cookie=_secret(self.cookie, self.cookie_file),
        )

    def _given_credentials(self) -> Credentials:
        """Return those that stand in no file."""
        return Credentials(
            login=self.login,
            passcode=_secret(self.passcode, None),
            token=_secret(self.token, None),
            cookie=_secret(self.cookie, None),
            headers=_revealed(self.header),
            connect_headers=_revealed(self.connect_header),
        )

    def admin_secret(self) -> str | None:
        """Return the token of the admin endpoint, read from its file where one is named.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is empty or not text.
        """
        return _secret(self.admin_token, self.admin_token_file)

    def secrets(self) -> set[str]:
        """Return every text in them that must never be seen; what files hold is read later."""
        sinks = [sink_url(one) for one in self.to]
        return {
            *secrets_of_credentials(self._given_credentials()),
            *(text for url in (*self.url, self.proxy, *sinks) for text in in_url(url)),
            *in_query(self.query),
            *(text for message in self.subscribe for text in in_message(message)),
            *([self.admin_token.get_secret_value()] if self.admin_token else ()),
        }

    def own(self) -> tuple[str, ...]:
        """Return what is of the installation itself, and no outside number: ids, and hosts."""
        hosts = (urlsplit(url).hostname or "" for url in self.url)
        return (*self.device, *self.agent, *hosts)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what no value alone shows: the setting at fault, and what to do about it."""
        if not self.url and not self.demo:
            yield (
                "url",
                (
                    "no server is configured; give --url wss://HOST/mvc/stomp/websocket, "
                    "or set CTI_URL, or try --demo"
                ),
            )
        try:
            re.compile(self.internal)
        except (re.error, OverflowError, RecursionError) as error:
            yield "internal", f"is no regular expression: {error}"
        if self.calls and self.event:
            yield "event", "picks events, and --calls prints records; give one of the two"
        if self.journal is not None and not self.journal.name:
            yield "journal", f"{str(self.journal)!r} is no file; name one"
        if not self.namespace and not self.demo:
            for name, ids in (("device", self.device), ("agent", self.agent)):
                short = next((text for text in ids if "@" not in text), None)
                if short is not None:
                    text = f"{short} needs its namespace; give --ns NAMESPACE, or {short}@NAMESPACE"
                    yield name, text
        yield from self._unreadable()
        yield from self._unconnectable()

    def _unreadable(self) -> Iterator[tuple[str, str]]:
        """Try the files now, so that a wrong path is told before anything is connected."""
        for name in ("passcode_file", "token_file", "cookie_file", "admin_token_file"):
            if (path := getattr(self, name)) is not None:
                try:
                    secret = read_secret(path)
                    if name in {"token_file", "cookie_file"}:
                        in_http(secret)
                except OSError as error:
                    yield name, _missing(path, name.removesuffix("_file"), error)
                except ValueError as error:
                    yield name, f"{mask_path(path)} {error}"
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                yield name, f"cannot read {path}"

    def _unconnectable(self) -> Iterator[tuple[str, str]]:
        """Ask `ConnectionOptions`, which tells one problem at a time, until it has no more."""
        keywords: dict[str, Any] = {**self.connection()}
        while True:
            try:
                ConnectionOptions(**keywords)
            except ConfigurationError as error:
                yield _SETTING_OF_OPTION.get(error.what, error.what), error.problem
                if keywords.pop(error.what, None) is None:
                    return
            else:
                return


def _missing(path: Path, secret: str, error: OSError) -> str:
    if (text := mask_path(path)) == MASK:
        return f"names no file ({error.strerror}); the secret itself is given as {secret}"
    return f"cannot read {text}: {error.strerror}"


def read_secret(path: Path) -> str:
    """Read one secret from its file, without the byte order mark and line break editors add.

    Raises:
        OSError: It cannot be read.
        ValueError: It is empty, not text, or more than one line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        msg = "is not UTF-8 text"
        raise ValueError(msg) from None
    if not text or "\n" in text:
        raise ValueError("is empty" if not text else "holds more than one line")
    return line(text)


def _secret(given: SecretStr | None, path: Path | None) -> str | None:
    if given is not None:
        return given.get_secret_value()
    if path is None:
        return None
    try:
        return read_secret(path)
    except ValueError as error:
        raise ValueError(f"{mask_path(path)} {error}") from None


def _revealed(headers: dict[str, SecretStr]) -> dict[str, str]:
    return {name: text.get_secret_value() for name, text in headers.items()}
