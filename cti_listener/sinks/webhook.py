"""The sinks `https://HOST/PATH` and `http://HOST/PATH`: each event is posted to a webhook.

A CloudEvent in JSON, signed by Standard Webhooks; safe is what was answered with 2xx, and nothing
else. All other answers are failures that are tried again, but for 410 and the few that tell of one
event. What is away as a whole (no connection, 429, 503) is left alone by all devices; what may be
about one event (another status, a connection that broke, no answer in time) holds up its device
only.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cti_listener import __version__
from cti_listener.errors import ConfigurationError, HaltError, SinkAwayError, SinkError
from cti_listener.log import log
from cti_listener.ops.masking import mask_address
from cti_listener.router import Happening, Order
from cti_listener.sinks.base import SinkOptions
from cti_listener.sinks.cloud_events import CONTENT_TYPE, cloud_event
from cti_listener.sinks.patience import Gate, retry_after

try:
    import aiohttp

    from cti_listener.sinks.signing import Keys, read_keys
except ImportError as _error:
    _problem = f"a webhook needs pip install 'cti-listener[http]' ({_error.name} is missing)"
    raise ConfigurationError("to", _problem) from None

CONNECTING: Final = 5.0
"""How long the connection may take at most, TLS included, in seconds."""

MOST: Final = 64 * 1024
"""How much of an answer is read, so that its connection can be used again, in bytes."""

_OK: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_GONE: Final = 410
_LEFT_ALONE: Final = frozenset({429, 503})
_REFUSED: Final = frozenset({400, 409, 413, 422})
"""What tells of this event, and not of the URL, the keys or the receiver: it never wants it."""

_ADVICE: Final = {
    401: "does it know the key?",
    403: "does it know the key?",
    404: "is the URL the right one?",
    405: "is the URL the right one?",
}


class WebhookSink:
    """Posts each to a URL, the events of a device one after the other.

    Args:
        url: Where to.
        name: What it is called in errors.
        options: What all sinks are made with.
    """

    order: Order = "device"

    def __init__(self, url: str, *, name: str, options: SinkOptions) -> None:
        """Read the keys; nothing is opened yet.

        Raises:
            ConfigurationError: The keys cannot be read.
        """
        self._url = url
        self._name = name
        self._options = options
        self._clock = options.clock
        self._gate = Gate(options.clock)
        self._slots = asyncio.Semaphore(options.webhook_connections)
        self._session: Any = None
        self._gone: HaltError | None = None
        self._keys = self._read_keys()

    def __repr__(self) -> str:
        return f"<WebhookSink {self._name} {self._gate!r}>"

    async def open(self) -> None:
        """Make the session; nobody is called yet.

        Raises:
            ConfigurationError: The authorities to trust cannot be read.
        """
        context = await asyncio.to_thread(_trusting, self._options.ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._options.webhook_connections, ssl=context),
            timeout=aiohttp.ClientTimeout(
                total=self._options.webhook_timeout,
                sock_connect=min(CONNECTING, self._options.webhook_timeout),
            ),
            headers={"User-Agent": f"cti-listener/{__version__}", "Content-Type": CONTENT_TYPE},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody looks at what is answered
        )
        if self._options.webhook_secret_file is None:
            log.warning("webhook_unsigned", sink=self._name, advice="give --webhook-secret-file")

    async def take(self, happening: Happening) -> None:
        """Post it; return when it was accepted."""
        event = cloud_event(happening, namespace=self._options.namespace)
        async with self._slots:  # so that no time limit counts the waiting
            await self._gate.wait()
            if self._gone is not None:
                raise HaltError(self._gone.problem)
            status, after = await self._post(event.id, event.text)
        self._judge(status, after)

    async def reopen(self) -> None:
        """Read the keys again.

        Raises:
            ConfigurationError: That is not possible; the ones before stay in force.
        """
        self._keys = await asyncio.to_thread(self._read_keys)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # Private

    def _read_keys(self) -> Keys:
        path: Path | None = self._options.webhook_secret_file
        if path is None:
            return Keys()
        keys = read_keys(path)
        self._options.learn(keys)
        return Keys(keys)

    async def _post(self, message: str, text: str) -> tuple[int, float | None]:
        """Make one try; return the status, and for how long the receiver wants to be left alone."""
        headers = self._keys.headers(message, text, self._clock.now())
        with self._told_as_ours():
            async with self._session.post(
                self._url, data=text.encode(), headers=headers, allow_redirects=False
            ) as response:
                after = retry_after(response.headers.get("Retry-After"), self._clock.now())
                # The status has come and it counts, whatever becomes of the rest.
                with suppress(aiohttp.ClientError, OSError):
                    await response.content.read(MOST)
                    if not response.content.at_eof():
                        response.close()
                return response.status, after

    @contextmanager
    def _told_as_ours(self) -> Iterator[None]:
        """Turn aiohttp's errors, which hold the URL and the headers, into ours."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            self._gate.close()
            problem = f"cannot be connected to: {_why(error.os_error)}"
            raise SinkAwayError(self._name, problem) from None
        except aiohttp.ConnectionTimeoutError:
            self._gate.close()
            raise SinkAwayError(self._name, "cannot be connected to in time") from None
        except TimeoutError:
            problem = f"does not answer within {self._options.webhook_timeout:g} s"
            raise SinkAwayError(self._name, problem) from None
        except (aiohttp.ClientError, OSError) as error:
            problem = f"breaks off: {type(error).__name__}"
            raise SinkAwayError(self._name, problem) from None

    def _judge(self, status: int, after: float | None) -> None:
        """Return if it was accepted; else raise what is to be done about it."""
        if status in _OK:
            self._gate.open()
            return
        problem = f"answers with HTTP {status}"
        if status == _GONE:
            problem += ": it wants nothing any more; take it out"
            self._gone = HaltError(f"{self._name} {problem}")
            raise self._gone
        if status in _REFUSED:
            raise SinkError(self._name, problem)
        if status in _LEFT_ALONE:
            self._gate.close(after)
        if status in _REDIRECT:
            problem += ", a redirect, which is not followed; give the URL that it leads to"
        elif advice := _ADVICE.get(status):
            problem += f"; {advice}"
        raise SinkAwayError(self._name, problem, after=after)


def _why(error: OSError) -> str:
    """Say what went wrong, without the address that asyncio puts in the place of that."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError() | socket.gaierror():
            return error.strerror or str(error)
        case _:
            return os.strerror(error.errno) if error.errno else str(error)


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies: by what the system trusts, and by this file."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError("ca_file", f"cannot be read: {ca_file}: {error}") from None
    return context


def make(url: str, *, name: str, options: SinkOptions) -> WebhookSink:
    """Make one.

    Raises:
        ConfigurationError: It is no URL of HTTP, or the keys cannot be read.
    """
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as it will be, to be looked up
        readable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        readable = False
    if not readable or any(map(str.isspace, url)):
        shown = mask_address(name)  # it may be the address
        raise ConfigurationError("to", f"{shown} is no URL; write it as https://HOST[:PORT]/PATH")
    return WebhookSink(url, name=name, options=options)
