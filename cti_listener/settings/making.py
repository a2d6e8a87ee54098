"""What the settings make: the listener, and the mistakes that only its parts know of.

Called by `app` and `cli`. The package's `__init__` leaves it out: it imports all that listening
takes.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Final

from cti_listener.errors import ConfigurationError
from cti_listener.events import CATALOGUE
from cti_listener.interest import Interest
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.settings.wording import masked_message, masked_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cti_listener.settings.model import Settings
    from cti_listener.sources.options import Auth


DEMO_NAMESPACE: Final = "zhen04.cc"


def completed(settings: Settings) -> Settings:
    """Put the demo into its namespace, unless another was asked for."""
    if settings.demo and settings.namespace is None:
        return settings.model_copy(update={"namespace": DEMO_NAMESPACE})
    return settings


def make_listener(settings: Settings, urls: Sequence[str], auth: Auth | None = None) -> Listener:
    """Return the listener that the settings ask for; nothing is opened yet.

    Raises:
        ConfigurationError: It cannot be done as asked.
    """
    return Listener(
        urls,
        namespace=settings.namespace,
        devices=settings.device,
        agents=settings.agent,
        wire=settings.wire,
        redundancy=settings.redundancy,
        splice_hold=settings.splice_hold,
        journal=settings.journal,
        journal_synchronous=settings.journal_synchronous,
        journal_retention=settings.journal_retention,
        journal_max_size=settings.journal_max_size,
        auth=auth,
        zone=settings.zone,
        lane_size=settings.lane_size,
        dedupe_window=settings.dedupe_window,
        dedupe_age=settings.dedupe_age,
        internal=settings.internal,
        call_timeout=settings.call_timeout,
        block_limit=settings.block_limit,
        **settings.connection(),
    )


def ailments(settings: Settings) -> list[str]:
    """Return what only the listener's parts know to be wrong with the settings."""
    settings = completed(settings)
    tries: list[Callable[[], object]] = [
        lambda: make_listener(settings, settings.url or ("ws://localhost/",)),
        lambda: _interest(settings).destinations(settings.topic),
        # A complaint quotes its template, which may hold a token: it is about the placeholders.
        partial(_interest(settings).query, masked_query(settings.query)),
        *(partial(_interest(settings).expand, masked_message(one)) for one in settings.subscribe),
    ]
    found = []
    for attempt in tries:
        try:
            attempt()
        except ConfigurationError as error:
            found.append(str(error))
    return found


def _interest(settings: Settings) -> Interest:
    return Interest(settings.namespace, settings.device, settings.agent)


def wire_name(name: str) -> str:
    """Return an event's name as the wire has it; warn of one that is not in the catalogue."""
    known = {wire.lower(): wire for wire in CATALOGUE}
    if name.lower() in known:
        return known[name.lower()]
    near = get_close_matches(name, CATALOGUE, 1)
    log.warning("event_unlisted", name=name, **({"did_you_mean": near[0]} if near else {}))
    return name
