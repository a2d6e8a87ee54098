"""What `Listener` makes of its keywords about what to listen to: a source, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cti_listener.clock import LONGEST, Clock
from cti_listener.errors import ConfigurationError
from cti_listener.router import is_half_an_id
from cti_listener.sources.base import Source
from cti_listener.sources.merged import MergedSource
from cti_listener.sources.options import Auth, ConnectionOptions, WireChoice
from cti_listener.sources.websocket import WebSocketSource


def make_source(
    urls: Sequence[str],
    *,
    feeds: Sequence[str],
    wire: WireChoice,
    auth: Auth | None,
    options: ConnectionOptions,
    zone: tzinfo,
    clock: Clock,
) -> Source:
    """Make a source of WebSocket connections, one for each feed.

    Raises:
        ConfigurationError: A URL that is none.
    """
    # A feed that is made anew knows what it was refused before, to tell of it when it is taken.
    refused: dict[str, dict[str, datetime]] = {feed: {} for feed in feeds}

    def make(feed: str) -> WebSocketSource:
        first = feeds.index(feed) % max(1, len(urls))  # each a URL of its own, if there are as many
        return WebSocketSource(
            [*urls[first:], *urls[:first]],
            wire=wire,
            auth=auth,
            options=options,
            zone=zone,
            clock=clock,
            feed=feed,
            refused=refused[feed],
        )

    return make(feeds[0]) if len(feeds) == 1 else MergedSource(make, feeds, clock=clock)


def refuse_long(**seconds: float) -> None:
    """Refuse a time that leaves the calendar; that is meant to be for ever.

    Args:
        seconds: Each by its name.
    """
    for name, given in seconds.items():
        if not given <= LONGEST:
            raise ConfigurationError(name, f"must not be more than {LONGEST:.0f} s, ten years")


def refuse_short_retention(journal_retention: float, dedupe_age: float) -> None:
    """Refuse a journal that forgets an event while a repeat of it may come: it tells the next run.

    Args:
        journal_retention: For how long events are remembered from one process to the next.
        dedupe_age: For how long in one.
    """
    if journal_retention < dedupe_age:
        raise ConfigurationError(
            "journal_retention",
            f"must not be below dedupe_age ({dedupe_age:g} s), or what comes again after a restart"
            " is taken for new; raise it, or lower dedupe_age",
        )


def refuse_forgetful(
    options: ConnectionOptions, *, window: int | None, dedupe_age: float, journal: bool
) -> None:
    """Refuse a durable subscription whose events would be lost, or be taken for new once more.

    Args:
        options: Says whether there is one.
        window: How many events are remembered, where several queues bring the same; else None.
        dedupe_age: For how long; the journal keeps them no shorter.
        journal: Whether there is one.
    """
    expires, length = options.durable_expires, options.durable_max_length
    if options.durable is None or expires is None or length is None:
        return
    if not journal:
        raise ConfigurationError(
            "durable", "needs a journal: what was acknowledged would be lost with the process"
        )
    if expires > dedupe_age:
        raise ConfigurationError(
            "durable_expires",
            f"must not be above dedupe_age ({dedupe_age:g} s), or what the broker brings again"
            " after so long is taken for new; raise dedupe_age",
        )
    if window is not None and length > window:
        raise ConfigurationError(
            "durable_max_length",
            f"must not be above dedupe_window ({window}) where several queues bring the same"
            " events, or what one of them brings late is taken for new; raise dedupe_window",
        )


def refuse_ids(devices: Sequence[str], agents: Sequence[str]) -> None:
    """Refuse what would be taken apart into letters, and ids that nobody can have."""
    for name, ids in (("devices", devices), ("agents", agents)):
        if isinstance(ids, str):
            raise ConfigurationError(name, f"is a list of ids: {name}=[{ids!r}]")
        for one in ids:
            if "@" in one and is_half_an_id(one):
                problem = f"{one!r} is half an id; write 8002, or 8002@zhen04.cc"
                raise ConfigurationError(name.removesuffix("s"), problem)


def zone_of(zone: str | tzinfo) -> tzinfo:
    """Look a time zone up by its name."""
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(
            "zone", f"{zone!r} is no time zone; write it as Asia/Shanghai"
        ) from None
