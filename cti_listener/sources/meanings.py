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
    InvalidMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from cti_listener.discretion import Discretion
from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.log import log
from cti_listener.sources.tls import ALERT, hung_up_on_tls, meaning_of_certificate, meaning_of_tls

REFUSALS = frozenset({401, 403, 404})
"""HTTP statuses of the handshake that say no, rather than not now."""

REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
"""HTTP statuses that point elsewhere, as what stands before a server does for a login."""

BAD_REQUEST: Final = 400
PROXY_WANTS_LOGIN: Final = 407
SERVER_ERROR: Final = 500

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
        beginning: Of what came, its first bytes.
        broken_by: What ended the TCP connection, if anything did.
        certificate: Whether we had one to show.
        printable: The error, if it may be printed.
    """

    beginning: bytes = b""
    broken_by: Exception | None = None
    certificate: bool = False
    printable: Exception | None = None


def meaning_of(error: Exception, url: str, seen: Seen) -> Exception:  # noqa: C901, PLR0911, PLR0912 - a table
    """Turn what `websockets`, TLS and the system raise into this package's errors."""
    match error:
        case ConfigurationError() | ConnectError():
            return error
        case InvalidURI():
            return ConfigurationError("url", f"{url!r} is no WebSocket URL: {error.msg}")
        case InvalidStatus():
            return _meaning_of_status(error, url)
        case ssl.SSLCertVerificationError():
            return meaning_of_certificate(error, url)
        case ssl.SSLError():
            return meaning_of_tls(error, url, certificate=seen.certificate)
        case InvalidMessage() if seen.beginning.startswith(ALERT):
            return ConnectError(url, "what answers there speaks TLS; write wss://")
        case InvalidMessage() if not seen.beginning:
            return _meaning_of_silence(url, seen)
        case InvalidHandshake():
            return ConnectError(url, f"no WebSocket handshake: {error}; is the path right?")
        case TimeoutError():
            hint = "is the host right, and does a firewall let us through?"
            return ConnectError(url, f"no answer in time (open_timeout); {hint}")
        case socket.gaierror():
            return ConnectError(url, _unresolved(error, url))
        case OSError() if _nobody_listens(error):
            text = "nothing listens on that port; is the server up, and the port right?"
            return ConnectError(url, text, no_listener=True)
        case ConnectionError() if url.startswith("wss:"):
            return hung_up_on_tls(url)
        case ConnectionError():
            text = "the server hung up while the connection was opened; is it up?"
            return ConnectError(url, text)
        case OSError():
            hint = "is there a way from here to that host?"
            return ConnectError(url, f"cannot connect: {error.strerror or error}; {hint}")
        case _:
            log.debug("connecting_raised", url=url, exc_info=seen.printable)
            return ConnectError(url, f"cannot connect: {type(error).__name__}: {error}")


def _meaning_of_silence(url: str, seen: Seen) -> ConnectError:
    """Say what it may mean that the server took our handshake, and ended the connection."""
    if isinstance(seen.broken_by, ssl.SSLError):
        return meaning_of_tls(seen.broken_by, url, certificate=seen.certificate)
    if url.startswith("wss:"):
        # With TLS 1.3 a client's certificate is judged after the client took TLS for set up.
        hint = "does it ask for a client certificate (cert_file), or for another one?"
    else:
        hint = "does it speak TLS (wss://)?"
    return ConnectError(url, f"the server hung up without an answer; {hint}")


def _unresolved(error: socket.gaierror, url: str) -> str:
    return (
        f"the host name {urlsplit(url).hostname} cannot be resolved: {error.strerror or error}; "
        "is it written right, and does DNS work here?"
    )


def meaning_at_proxy(  # noqa: C901, PLR0911 - a table
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
            if status == PROXY_WANTS_LOGIN:
                hint = "give user and password in its URL"
            else:
                hint = f"may it connect us to {urlsplit(url).netloc}, and does it know that host?"
            return ConnectError(url, f"the proxy {proxy} answered HTTP {status}; {hint}")
        case ProxyError():
            hint = f"does it know {urlsplit(url).netloc}, and is it a {through.scheme} proxy?"
            return ConnectError(
                url, f"the proxy {proxy} failed: {error.__cause__ or error}; {hint}"
            )
        case ssl.SSLCertVerificationError():
            why = f"the certificate of the proxy {proxy} is not trusted: {error.verify_message}"
            return ConnectError(url, f"{why}; the system has to know its authority (not ca_file)")
        case ssl.SSLError():
            why = f"TLS with the proxy {proxy} failed: {error.reason or error}"
            return ConnectError(url, f"{why}; does it speak TLS (https://)?")
        case TimeoutError():
            why = f"the proxy {proxy} did not connect us in time (open_timeout)"
            return ConnectError(url, f"{why}; does it know {urlsplit(url).netloc}?")
        case socket.gaierror() if through.scheme in {"socks4", "socks5"}:
            hint = "socks4a:// and socks5h:// leave that to the proxy"
            return ConnectError(url, f"{_unresolved(error, url)} {hint}")
        case OSError() if _nobody_listens(error):
            hint = "is it up, and the proxy's URL right?"
            return ConnectError(url, f"nothing listens at the proxy {proxy}; {hint}")
        case OSError():
            why = f"the proxy {proxy} cannot be reached: {error.strerror or error}"
            return ConnectError(url, f"{why}; is its URL right?")
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
    hint = ""
    if status == BAD_REQUEST and url.startswith("ws:"):
        hint = "; does it speak TLS (wss://)?"
    elif status >= SERVER_ERROR:
        hint = "; is the server behind it up?"
    return ConnectError(url, f"HTTP {status} instead of a WebSocket handshake{hint}")


def _redirected_to(error: InvalidStatus, url: str) -> str:
    """Return the host alone: the rest may hold what lets its reader in."""
    locations = error.response.headers.get_all("Location")
    try:
        host = urlsplit(urljoin(url, locations[0])).hostname if locations else None
    except ValueError:
        host = None
    return host if host and _HOST_NAME.fullmatch(host) else "nowhere that can be read"
