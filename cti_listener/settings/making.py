"""What the settings make: the listener, and the mistakes that only its parts know of.

Called by `app` and `cli`. The package's `__init__` leaves it out: it imports all that listening
takes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cti_listener.admin import make_admin
from cti_listener.admin.access import Address, refuse_open
from cti_listener.derived import CallEnded, CallRevised
from cti_listener.errors import ConfigurationError, ConnectError
from cti_listener.event_base import Event
from cti_listener.events import CATALOGUE
from cti_listener.interest import Interest
from cti_listener.keywords import zone_of
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.ops import health
from cti_listener.settings.readings import sink_url
from cti_listener.settings.wording import masked_message, masked_query
from cti_listener.sinks import SinkOptions
from cti_listener.sinks.making import make_outlets, problems
from cti_listener.sources.endpoints import Endpoints
from cti_listener.sources.options import ConnectionOptions
from cti_listener.sources.tls import context_for
from cti_listener.sources.transport import proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cti_listener.admin.server import AdminServer
    from cti_listener.ops.descriptor import Descriptor
    from cti_listener.ops.masking import Masker
    from cti_listener.router import Kind
    from cti_listener.settings.model import Settings
    from cti_listener.sinks.outlet import Outlet
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


def make_sinks(
    settings: Settings,
    *,
    stdout: Descriptor | None = None,
    learn: Callable[[Iterable[str]], None] = lambda _: None,
) -> list[Outlet]:
    """Return the sinks that the settings ask for; nothing is opened yet.

    Args:
        settings: The settings.
        stdout: What stands for standard output.
        learn: Told of secrets that no log may show.

    Raises:
        ConfigurationError: One cannot be made as asked.
    """
    return make_outlets(settings.to, _sink_options(settings, stdout=stdout, learn=learn))


def _sink_options(settings: Settings, **given: Any) -> SinkOptions:
    return SinkOptions(
        namespace=settings.namespace,
        zone=zone_of(settings.zone),
        ca_file=settings.ca_file,
        webhook_secret_file=settings.webhook_secret_file,
        webhook_timeout=settings.webhook_timeout,
        webhook_connections=settings.webhook_connections,
        jsonl_max_size=settings.jsonl_max_size,
        jsonl_every=settings.jsonl_every,
        jsonl_sync=settings.jsonl_sync,
        **given,
    )


def make_admin_server(
    settings: Settings,
    listener: Listener,
    *,
    masker: Masker,
    sinks: Callable[[], Mapping[tuple[str, str], int]],
) -> AdminServer:
    """Return what tells over HTTP how the listener fares; nothing is opened yet.

    Args:
        settings: What is asked for; that it is asked for.
        listener: What it tells of.
        masker: What masks numbers in what is shown; it learns the token.
        sinks: Tells what became of the sinks' records.

    Raises:
        ConfigurationError: It cannot be done as asked.
    """
    try:
        token = settings.admin_secret()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError("admin_token_file", f"cannot read it: {problem}") from None
    masker.learn([token] if token else [])
    address = Address.read(settings.admin or "")
    return make_admin(
        listener,
        host=address.host,
        port=address.port,
        token=token,
        hosts=settings.admin_host,
        masker=masker,
        ready_max_age=settings.ready_max_age,
        sinks=sinks,
    )


def ailments(settings: Settings) -> list[str]:
    """Return what only the listener's parts know to be wrong with the settings."""
    settings = completed(settings)
    tries: list[Callable[[], object]] = [
        lambda: make_listener(settings, settings.url or ("ws://localhost/",)),
        lambda: _interest(settings).destinations(settings.topic),
        # A complaint quotes its template, which may hold a token: it is about the placeholders.
        partial(_refuse_open_admin, settings),
        lambda: _interest(settings).query(masked_query(settings.query)),
        *(partial(_expand, settings, one) for one in settings.subscribe),
        partial(_refuse_untold, settings),
        partial(_refuse_unusable, settings),
        partial(_refuse_shared_files, settings),
        partial(_refuse_health_file, settings),
    ]
    found: dict[str, None] = {}  # what two of them find is said once
    for attempt in tries:
        try:
            attempt()
        except ConfigurationError as error:
            found[str(error)] = None
    return [*found, *problems(settings.to, _sink_options(settings))]


def _refuse_untold(settings: Settings) -> None:
    """Refuse templates that tell a server which speaks JSON nothing, where it surely does."""
    shown = settings.model_copy(
        update={
            "query": masked_query(settings.query),
            "subscribe": [masked_message(one) for one in settings.subscribe],
        }
    )
    options = ConnectionOptions.from_keywords(shown.connection())
    urls, zone = settings.url or ("ws://localhost/",), zone_of(settings.zone)
    endpoints = Endpoints(urls, settings.wire, None, options, "a", zone)
    for index in range(len(endpoints)):
        endpoints.check(index, _interest(settings))


def _refuse_unusable(settings: Settings) -> None:
    """Refuse certificates and proxies that no connection could be made with."""
    options = ConnectionOptions.from_keywords(settings.connection())
    for url in settings.url or ("ws://127.0.0.1/",):
        if url.lower().startswith("wss:") and (options.ca_file or options.cert_file):
            context_for(options)
        with suppress(ConnectError, ValueError):  # of the URL, which the listener tells of
            proxy_for(url, options)


def _refuse_open_admin(settings: Settings) -> None:
    if settings.admin is not None:
        refuse_open(Address.read(settings.admin), settings.admin_secret())


def _refuse_shared_files(settings: Settings) -> None:
    """Refuse to write to a file that another setting names."""
    files: dict[str, str] = {}
    for name, path in _read(settings):
        files.setdefault(os.path.realpath(path), name)
    for name, path in _written(settings):
        other = files.setdefault(place := os.path.realpath(path), "")
        if other:
            other = "another sink" if other == name else other
            problem = f"names the file of {other} as well, {path}; give each a file of its own"
            raise ConfigurationError(name, problem)
        files[place] = name


def _read(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.config is not None:
        yield "config", Path(os.path.expanduser(settings.config))  # noqa: PTH111 - as `loading`
    for name in type(settings).model_fields:
        path = getattr(settings, name)
        if name.endswith("_file") and name != "health_file" and path is not None:
            yield name, path


def _written(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.journal is not None:
        for ending in ("", "-wal", "-shm", ".cti-lock"):  # as are kept beside it
            yield "journal", Path(f"{os.path.realpath(settings.journal)}{ending}")
    if settings.health_file is not None:
        yield "health_file", settings.health_file
    for scheme, _, path in (sink_url(one).partition(":") for one in settings.to):
        if scheme.lower() == "jsonl":
            yield "to", Path(path)


def _refuse_health_file(settings: Settings) -> None:
    """Refuse to write our sign of life over what is none."""
    path = settings.health_file
    if path is not None and (problem := health.unfit(path)) is not None:
        raise ConfigurationError("health_file", problem)


def _expand(settings: Settings, message: str) -> None:
    _interest(settings).expand(masked_message(message))


def _interest(settings: Settings) -> Interest:
    return Interest(settings.namespace, settings.device, settings.agent)


def wanted(settings: Settings) -> tuple[Sequence[Kind], Sequence[Kind]]:
    """Return what is printed, and what the sinks get, notices aside."""
    events: Sequence[Kind] = [wire_name(one) for one in settings.event] or [Event]
    records: Sequence[Kind] = [CallEnded, CallRevised]
    both = {"events": events, "records": records, "both": [*events, *records]}
    return records if settings.calls else events, both[settings.to_records]


def wire_name(name: str) -> str:
    """Return an event's name as the wire has it; warn of one that is not in the catalogue."""
    known = {wire.lower(): wire for wire in CATALOGUE}
    if name.lower() in known:
        return known[name.lower()]
    near = get_close_matches(name, CATALOGUE, 1)
    log.warning("event_unlisted", name=name, **({"did_you_mean": near[0]} if near else {}))
    return name
