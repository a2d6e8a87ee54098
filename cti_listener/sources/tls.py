"""TLS: the context a connection is opened with, and what its failures mean.

Called by `transport`, and by `meanings` for its errors. They name what is at stake: the host, the
names in the certificate, the dates, the authority.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from cti_listener.errors import CertificateError, ConfigurationError, ConnectError
from cti_listener.sources.options import ConnectionOptions

ALERT: Final = b"\x15\x03"
"""How the answer begins of a server that speaks TLS and was spoken to without (RFC 8446, 5.1)."""

# OpenSSL's X509_V_ERR_...
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = 18
_NO_ISSUER: Final = frozenset({2, 19, 20, 21})
_OTHER_HOST: Final = frozenset({62, 64})

_ABOUT_OURS: Final = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "DECRYPT_ERROR",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
"""Alerts by which a server says what is wrong with a client's certificate (RFC 8446, 6.2)."""

_TOO_OLD: Final = frozenset({"PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})

_MOST_NAMES: Final = 5
_RENEW: Final = 14
"""A certificate that holds for fewer days is told to be renewed."""
_LONGEST_NAME: Final = 100
_ENCRYPTED: Final = "the key is encrypted; give it decrypted, or an ssl_context of your own"

_Certificate = dict[str, Any]
"""A certificate as `ssl.SSLSocket.getpeercert()` describes it."""


def context_for(options: ConnectionOptions) -> ssl.SSLContext:
    """Build a context that verifies, always; certificates are read afresh for each attempt.

    Raises:
        ConfigurationError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "ca_file", f"cannot be read: {options.ca_file}: {error}"
        ) from error
    context.sslobject_class = _TellingObject
    if options.cert_file:
        try:
            context.load_cert_chain(options.cert_file, options.key_file, _ask_nobody)
        except (OSError, ssl.SSLError) as error:
            files = " with ".join(str(one) for one in (options.cert_file, options.key_file) if one)
            raise ConfigurationError(
                "cert_file", f"cannot be used: {files}: {_why_unusable(error, options)}"
            ) from error
    return context


def _why_unusable(error: OSError, options: ConnectionOptions) -> str:
    """Say what is wrong with our certificate or its key, of which OpenSSL says next to nothing."""
    if not isinstance(error, ssl.SSLError):
        return str(error)
    if error.strerror == _ENCRYPTED:
        return _ENCRYPTED
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    if options.key_file is None:
        return "it holds no certificate, or not its key, in PEM; give the key as key_file"
    return "the one holds no certificate in PEM, or the other no key"


def _ask_nobody() -> str:
    """Refuse an encrypted key: OpenSSL would ask at the terminal, and the event loop would wait."""
    raise ssl.SSLError(0, _ENCRYPTED)


class _TellingObject(ssl.SSLObject):
    """Keeps a certificate that is not trusted: the error alone says little of it."""

    def do_handshake(self) -> None:
        """Shake hands; an error of verification carries the chain that was shown."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            # There is no other way to it before 3.13; without it, less is told.
            with contextlib.suppress(AttributeError, ssl.SSLError, ValueError):
                chain = self._sslobj.get_unverified_chain() or ()  # type: ignore[attr-defined]
                vars(error)["chain"] = [one.get_info() for one in chain]
            raise


# Their certificate


def meaning_of_certificate(error: ssl.SSLCertVerificationError, url: str) -> CertificateError:
    """Say what is wrong with a server's certificate, and what to do about it."""
    chain: list[_Certificate] = vars(error).get("chain", [])
    host = urlsplit(url).hostname
    match error.verify_code:
        case code if code in _OTHER_HOST:
            problem = (
                f"its certificate is for {_names(chain)}, not for {host}; "
                f"connect by a name that stands in it, or have one issued for {host}"
            )
        case code if code == _EXPIRED:
            problem = _expired(chain)
        case code if code == _NOT_YET_VALID:
            problem = _not_yet_valid(chain)
        case code if code == _SELF_SIGNED:
            problem = (
                "its certificate is self-signed, so nobody vouches for it; "
                "if you know it to be the right one, give it as ca_file"
            )
        case code if code in _NO_ISSUER:
            problem = (
                f"its certificate is by an authority that is not trusted here{_issuer(chain)}; "
                "give that authority's certificate as ca_file, or have the server send those that "
                "lead to a trusted one"
            )
        case _:
            problem = f"its certificate is not trusted: {error.verify_message}; see ca_file"
    return CertificateError(url, problem)


def certificate_in_words(certificate: _Certificate) -> str:
    """Say for whom a certificate is that is trusted, who signed it, and for how long it holds."""
    if not certificate:
        return "a certificate that nothing is told of"
    since, until = _date(certificate, "notBefore"), _date(certificate, "notAfter")
    dates = ""
    if since is not None and until is not None:
        days = (until - datetime.now(UTC)).days
        dates = f", from {since:%Y-%m-%d} to {until:%Y-%m-%d}, for {days} days more"
        if days < _RENEW:
            dates += "; have it renewed"
    subject = _named(certificate, "subject")
    whose = f" ({subject})" if subject else ""
    return f"for {_names([certificate])}{whose}, by {_named(certificate, 'issuer')}{dates}"


def _expired(chain: list[_Certificate]) -> str:
    now = datetime.now(UTC)
    for place, one in enumerate(chain):
        until = _date(one, "notAfter")
        if until is not None and until < now:
            return f"{_whose(place, one)} expired on {until:%Y-%m-%d %H:%M} UTC; have it renewed"
    return "a certificate that vouches for its own has expired; renew it, or what ca_file holds"


def _not_yet_valid(chain: list[_Certificate]) -> str:
    now = datetime.now(UTC)
    for place, one in enumerate(chain):
        since = _date(one, "notBefore")
        if since is not None and since > now:
            return (
                f"{_whose(place, one)} is valid only from {since:%Y-%m-%d %H:%M} UTC on; "
                f"does the clock here go right? It says {now:%Y-%m-%d %H:%M} UTC"
            )
    return "a certificate that vouches for its own is not valid yet; does the clock here go right?"


def _whose(place: int, certificate: _Certificate) -> str:
    if place == 0:
        return "its certificate"
    return f"the certificate of {_named(certificate, 'subject')}, which vouches for its own,"


def _date(certificate: _Certificate, name: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[name]), UTC)
    except (KeyError, ValueError, OverflowError):
        return None


def _names(chain: list[_Certificate]) -> str:
    """Return the hosts that a certificate is for."""
    if not chain:
        return "another host"
    names = [_plain(name) for _, name in chain[0].get("subjectAltName", ())]
    if not names:
        return "no host that it names"
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _issuer(chain: list[_Certificate]) -> str:
    name = _named(chain[-1], "issuer") if chain else ""
    return f" ({name})" if name else ""


def _named(certificate: _Certificate, who: str) -> str:
    """Return the parts of a name, as an organisation and what it calls its authority."""
    parts: Iterable[Any] = certificate.get(who, ())
    return ", ".join(_plain(value) for part in parts for _, value in part)


def _plain(text: object) -> str:
    """Take out of a stranger's text what would not be read as text."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:_LONGEST_NAME])


# Our certificate, and all else


def meaning_of_tls(error: ssl.SSLError, url: str, *, certificate: bool) -> ConnectError:
    """Say what a failure of TLS means.

    Args:
        error: The failure.
        url: The endpoint, without credentials.
        certificate: Whether we had one to show.
    """
    reason = error.reason or str(error)
    alert = reason.partition("_ALERT_")[2] or reason.removeprefix("TLSV1_")
    words = alert.replace("_", " ").lower()
    if alert in _ABOUT_OURS:
        if certificate and alert != "CERTIFICATE_REQUIRED":
            problem = f"the server does not take our client certificate: {words}; see cert_file"
        else:
            problem = "the server asks for a client certificate; give cert_file and key_file"
        return CertificateError(url, problem)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return hung_up_on_tls(url)
    if alert == "HANDSHAKE_FAILURE":
        problem = (
            "TLS failed: the server takes nothing of what we offer; does it ask for a client "
            "certificate (cert_file), or know no cipher of today?"
        )
    elif alert in _TOO_OLD:
        problem = (
            "TLS failed: the server knows no version that is taken here, from TLS 1.2 on; "
            "have it updated, or give an ssl_context that takes older ones"
        )
    elif alert in _NO_TLS:
        problem = "TLS failed: what answers there is no TLS; is it ws://, or another port?"
    elif alert == "UNRECOGNIZED_NAME":
        host = urlsplit(url).hostname
        problem = f"TLS failed: the server knows no host {host}; is the name right?"
    else:
        problem = f"TLS failed: {words}; does it speak TLS (wss) on that port?"
    return ConnectError(url, problem)


def hung_up_on_tls(url: str) -> ConnectError:
    """Say what it may mean that the server ended the connection without a word of TLS."""
    return ConnectError(
        url,
        "the server hung up during the TLS handshake; does it speak TLS 1.2 or later on that port "
        "(if none: ws://), or ask for a client certificate (cert_file)?",
    )
