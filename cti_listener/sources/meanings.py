"""What the errors of `websockets`, TLS and the system mean, in this package's words.

Nothing secret is in a word of it: of a URL only what is fit for a log.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from websockets.asyncio.client import Proxy  # type: ignore[attr-defined]  # it moved; here in all
from websockets.exceptions import (
    InvalidHandshake,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from cti_listener.discretion import Discretion
from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.log import log

REFUSALS = frozenset({401, 403, 404})
"""HTTP statuses of the handshake that say no, rather than not now."""

REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
"""HTTP statuses that point elsewhere, as what stands before a server does for a login."""

PROXY_WANTS_LOGIN: Final = 407

_PATH_PARAMETERS: Final = re.compile(r";[^/]*")
_HOST_NAME: Final = re.compile(r"[\w.:-]{1,253}", re.ASCII)


def without_secrets(url: str) -> str:
    """Return a URL without user, password, parameters and query, fit for a log."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != -1  # which raises if it is none
    except ValueError:
        whole = False
    if whole:
        host = parts.netloc.rpartition("@")[2]
        path = _PATH_PARAMETERS.sub("", parts.path)  # ;jsessionid=... is one
        return urlunsplit((parts.scheme, host, path, "", ""))
    # No telling where the password ends, nor the query begins: leave out all that may be either.
    scheme = re.match(r"(?:ws|http)s?://", url) if "@" in url else None
    rest = re.split(r"[?#&;]", url.rpartition("@")[2])[0]
    return f"{scheme.group() if scheme else ''}{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of a connection that could not be opened, beside the error.

    Attributes:
        printable: The error, if it may be printed.
    """

    printable: Exception | None = None


def meaning_of(error: Exception, url: str, seen: Seen) -> Exception:  # noqa: C901, PLR0911 - a table
    """Turn what `websockets`, TLS and the system raise into this package's errors."""
    match error:
        case ConfigurationError() | ConnectError():
            return error
        case InvalidURI():
            return ConfigurationError("url", f"{url!r} is no WebSocket URL: {error.msg}")
        case InvalidStatus():
            return _meaning_of_status(error, url)
        case ssl.SSLCertVerificationError():
            return RefusedError(
                url, f"its certificate is not trusted: {error.verify_message}; see ca_file"
            )
        case ssl.SSLError():
            return ConnectError(
                url, f"TLS failed: {error.reason or error}; does it speak TLS (wss)?"
            )
        case InvalidHandshake():
            return ConnectError(url, f"no WebSocket handshake: {error}; is the path right?")
        case TimeoutError():
            return ConnectError(url, "no answer in time (open_timeout)")
        case socket.gaierror():
            return ConnectError(url, f"the host name cannot be resolved: {error.strerror}")
        case OSError() if _nobody_listens(error):
            return ConnectError(url, "nothing listens on that port", no_listener=True)
        case ConnectionError():
            hint = "; does it speak TLS (wss)?" if url.startswith("wss:") else ""
            return ConnectError(url, f"the server hung up while the connection was opened{hint}")
        case OSError():
            return ConnectError(url, f"cannot connect: {error.strerror or error}")
        case _:
            log.debug("connecting_raised", url=url, exc_info=seen.printable)
            return ConnectError(url, f"cannot connect: {type(error).__name__}: {error}")


def meaning_at_proxy(  # noqa: PLR0911 - a table
    error: Exception, url: str, seen: Seen, through: Proxy
) -> Exception:
    """Do the same for what went wrong before the proxy had connected us: not the server's doing."""
    host = f"[{through.host}]" if ":" in through.host else through.host
    proxy = f"{host}:{through.port}"
    match error:
        case ImportError():
            return ConfigurationError("proxy", str(error))
        case InvalidProxyStatus():
            status = error.response.status_code
            hint = "; give user and password in its URL" if status == PROXY_WANTS_LOGIN else ""
            return ConnectError(url, f"the proxy {proxy} answered HTTP {status}{hint}")
        case ProxyError():
            return ConnectError(url, f"the proxy {proxy} failed: {error.__cause__ or error}")
        case ssl.SSLError():
            return ConnectError(url, f"TLS with the proxy {proxy} failed: {error.reason or error}")
        case TimeoutError():
            return ConnectError(url, f"the proxy {proxy} did not connect us in time (open_timeout)")
        case socket.gaierror() if through.scheme in {"socks4", "socks5"}:
            hint = "socks4a:// and socks5h:// leave that to the proxy"
            return ConnectError(url, f"the host name cannot be resolved: {error.strerror}; {hint}")
        case OSError() if _nobody_listens(error):
            return ConnectError(url, f"nothing listens at the proxy {proxy}")
        case OSError():
            return ConnectError(
                url, f"the proxy {proxy} cannot be reached: {error.strerror or error}"
            )
        case _:
            log.debug("proxy_raised", url=url, proxy=proxy, exc_info=seen.printable)
            return ConnectError(url, f"the proxy {proxy} failed: {type(error).__name__}: {error}")


def discreet(error: Exception, discretion: Discretion) -> Exception:
    """Take secrets out of what is to be raised: theirs were the words in it."""
    if isinstance(error, ConnectError | ConfigurationError):
        error.problem = discretion.words(error.problem)
        error.args = (error.args[0], error.problem)
    return error


def printable(error: Exception, discretion: Discretion) -> Exception | None:
    """Return an error if it may be printed: with a response, or with a secret in it, it may not."""
    if isinstance(error, InvalidStatus | InvalidProxyStatus) or discretion.is_broken_by(error):
        return None
    return error


def _nobody_listens(error: OSError) -> bool:
    """Tell a refused TCP connection, also where several addresses were tried."""
    return error.errno == errno.ECONNREFUSED or (
        error.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    )


def _meaning_of_status(error: InvalidStatus, url: str) -> ConnectError:
    status = error.response.status_code
    if status in REDIRECTS:
        target = _redirected_to(error, url)
        return RefusedError(url, f"HTTP {status}: redirected to {target}; has the session expired?")
    hints = {
        401: "who are you? Give credentials (token, cookie, login), or renew them",
        403: "these credentials may not",
        404: "no such path; STOMP is at /mvc/stomp/websocket",
    }
    if status in REFUSALS:
        return RefusedError(url, f"HTTP {status}: {hints[status]}")
    return ConnectError(url, f"HTTP {status} instead of a WebSocket handshake")


def _redirected_to(error: InvalidStatus, url: str) -> str:
    """Return the host alone: the rest may hold what lets its reader in."""
    locations = error.response.headers.get_all("Location")
    try:
        host = urlsplit(urljoin(url, locations[0])).hostname if locations else None
    except ValueError:
        host = None
    return host if host and _HOST_NAME.fullmatch(host) else "nowhere that can be read"
