"""Where to connect and what to say there: the plan for one life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from cti_listener.discretion import Discretion, in_url
from cti_listener.errors import ConfigurationError, ConnectError
from cti_listener.interest import Interest
from cti_listener.log import log
from cti_listener.sources.meanings import without_secrets
from cti_listener.sources.options import (
    Auth,
    ConnectionOptions,
    Credentials,
    WireChoice,
    secrets_of_credentials,
    secrets_of_options,
)
from cti_listener.sources.patience import turning
from cti_listener.sources.transport import Ears, Transport, open_transport
from cti_listener.wire.base import Codec
from cti_listener.wire.json_frames import JsonCodec
from cti_listener.wire.stomp import StompCodec
from cti_listener.wire.stomp_terms import Terms

NOBODY = "name only {agent} or {device}, and none such is listened to"  # templates of a wish


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePlan:
    """What a life is to do.

    Attributes:
        url: Where to connect, query included.
        stomp: Whether to offer STOMP.
        make_codec: Makes the codec once the sub-protocol is chosen.
        credentials: Read for this attempt.
        options: How to connect.
        place: The broker, see `Endpoints.place`.
        feed: The name of the connection.
        zone: Where the server's clock hangs.
        discretion: What of all this must not be shown.
    """

    url: str = field(repr=False)
    stomp: bool
    make_codec: Callable[[str | None], Codec]
    credentials: Credentials
    options: ConnectionOptions
    place: str
    feed: str
    zone: tzinfo
    discretion: Discretion

    async def connect(self, ears: Ears) -> Transport:
        """Connect and shake hands, as `open_transport` says."""
        return await open_transport(
            self.url,
            ears=ears,
            options=self.options,
            credentials=self.credentials,
            stomp=self.stomp,
            discretion=self.discretion,
        )


class Endpoints:
    """The endpoints of a source.

    Args:
        urls: `ws://` or `wss://`, at least one.
        wire: `stomp`, `json`, or `auto`: what the server chooses, else what the path says.
        auth: Credentials, or a coroutine function asked for them before every attempt.
        options: All else about the connection.
        feed: The name of the connection.
        zone: Where the server's clock hangs.

    Attributes:
        terms: What durable subscriptions are to be; None: there are none.

    Raises:
        ConfigurationError: No URL, or one that is none.
    """

    def __init__(  # noqa: PLR0917 - its one caller names them all
        self,
        urls: Sequence[str],
        wire: WireChoice,
        auth: Auth | None,
        options: ConnectionOptions,
        feed: str,
        zone: tzinfo,
    ) -> None:
        """Check the URLs."""
        if not urls:
            raise ConfigurationError("url", "give at least one")
        if wire not in ("auto", "stomp", "json"):
            raise ConfigurationError("wire", f"is auto, stomp or json, not {wire!r}")
        if wire == "json" and options.durable is not None:
            raise ConfigurationError("durable", "needs STOMP; leave it out for wire=json")
        self._urls = [_checked(url) for url in urls]
        self._wire = wire
        self._auth = auth
        self._options = options
        self._feed = feed
        self._zone = zone
        self._json_spoken: set[str] = set()  # by these, whatever could be spoken there
        self.terms = _terms(options, feed)

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def shown(self) -> Sequence[str]:
        """The URLs, without credentials."""
        return [without_secrets(url) for url in self._urls]

    async def plan(
        self,
        index: int,
        interest: Interest,
        destinations: Sequence[str],
        *,
        look_only: bool = False,
    ) -> LifePlan:
        """Plan a life at the endpoint of this index, with credentials asked for afresh.

        Args:
            index: Which endpoint.
            interest: Who was asked for.
            destinations: What to subscribe to.
            look_only: Only to see whether these can be; whatever they hold stays there.

        Raises:
            ConnectError: `auth=` failed; it is asked again for the next attempt.
            ConfigurationError: A template cannot be filled in.
        """
        credentials = await self._credentials()
        return LifePlan(
            url=self.url(index, interest),
            stomp=self._speaks_stomp(self._urls[index]) or self._wire == "auto",
            make_codec=self._codec_maker(
                index, interest, destinations, credentials, look_only=look_only
            ),
            credentials=credentials,
            options=self._options,
            place=self.place(index, interest),
            feed=self._feed,
            zone=self._zone,
            discretion=Discretion(
                {
                    *in_url(self._urls[index]),
                    *secrets_of_options(self._options),
                    *secrets_of_credentials(credentials),
                }
            ),
        )

    async def _credentials(self) -> Credentials:
        """Ask for credentials afresh: sessions and tokens expire while a daemon runs.

        Raises:
            ConnectError: `auth=` failed; it is asked again for the next attempt.
        """
        if self._auth is None:
            return Credentials()
        if isinstance(self._auth, Credentials):
            return self._auth
        try:
            async with turning(self._options.open_timeout):
                return await self._auth()
        except ConfigurationError:
            raise
        except Exception as error:
            log.exception("auth_failed")
            raise ConnectError("auth", f"{type(error).__name__}: {error}") from error

    def _codec_maker(
        self,
        index: int,
        interest: Interest,
        destinations: Sequence[str],
        credentials: Credentials,
        *,
        look_only: bool,
    ) -> Callable[[str | None], Codec]:
        """Return what makes the codec, once the server has chosen the sub-protocol or none."""
        url, options = self._urls[index], self._options

        def make(subprotocol: str | None) -> Codec:
            if not (self._wire != "json" and (subprotocol or self._speaks_stomp(url))):
                if self.terms is not None:
                    shown = without_secrets(url)
                    raise ConfigurationError(
                        "durable", f"needs STOMP, which {shown} does not speak"
                    )
                self._json_spoken.add(url)
                self.check(index, interest)
                return JsonCodec(self.messages(interest), max_size=options.soft_size)
            return StompCodec(
                destinations,
                vhost=options.vhost,
                login=credentials.login,
                passcode=credentials.passcode,
                connect_headers={**options.connect_headers, **credentials.connect_headers},
                heartbeat=(options.heartbeat_send, options.heartbeat_receive),
                max_size=options.soft_size,
                terms=None if look_only else self.terms,
                look_only=look_only,
            )

        return make

    def place(self, index: int, interest: Interest) -> str:
        """Name the broker that keeps queues for us at an endpoint; it shows no credentials."""
        return f"{without_secrets(self.url(index, interest))}, {self._options.vhost}"

    def messages(self, interest: Interest) -> list[str]:
        """Return what to send to a JSON endpoint to subscribe."""
        return [text for one in self._options.subscribe for text in interest.expand(one)]

    def check(self, index: int, interest: Interest) -> None:
        """See whether an endpoint that speaks JSON is told anything by templates that are for that.

        Where either may be spoken it is not known before a connection was made.

        Raises:
            ConfigurationError: They name only `{agent}` or `{device}`, and none such is asked for.
        """
        url, options = self._urls[index], self._options
        if self._wire != "json" and url not in self._json_spoken:
            return
        if self.messages(interest) or self.url(index, interest) != url:
            return
        if options.subscribe:
            raise ConfigurationError("subscribe", NOBODY)
        named = "{agent" in options.query or "{device" in options.query
        if named and not urlsplit(url).query and (interest.agents or interest.devices):
            raise ConfigurationError("query", NOBODY)

    def _speaks_stomp(self, url: str) -> bool:
        return self._wire == "stomp" or (
            self._wire == "auto" and "stomp" in urlsplit(url).path.lower()
        )

    def url(self, index: int, interest: Interest) -> str:
        """Return an endpoint with the wish in its query, unless it has one of its own."""
        url = self._urls[index]
        if self._speaks_stomp(url) or urlsplit(url).query:
            return url
        query = interest.query(self._options.query)
        return f"{url}?{query}" if query else url


def _terms(options: ConnectionOptions, feed: str) -> Terms | None:
    """Return what a feed's durable subscriptions are to be, if they are."""
    expires, length = options.durable_expires, options.durable_max_length
    if options.durable is None or expires is None or length is None:
        return None
    return Terms(
        name=f"{options.durable}.{feed}",
        expires=expires,
        max_length=length,
        prefetch=options.prefetch,
    )


def _checked(url: str) -> str:
    """Return a URL, its scheme in small letters; refuse what can never be connected to.

    Raises:
        ConfigurationError: Not a WebSocket URL.
    """
    why = ""
    try:
        parse_uri(url).host.encode("idna")  # as it will be, to be looked up
    except InvalidURI as error:
        why = f": {error.msg}"
    except ValueError:
        why = ": it cannot be read"
    if why:
        raise ConfigurationError(
            "url",
            f"{without_secrets(url)!r} is no WebSocket URL{why}; "
            "it looks like wss://HOST/mvc/stomp/websocket",
        )
    scheme, colon, rest = url.partition(":")
    return f"{scheme.lower()}{colon}{rest}"
