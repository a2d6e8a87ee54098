"""What is answered: probes, metrics, state, the stream of events, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from cti_listener.admin import probes
from cti_listener.admin.connections import ANSWER_TIMEOUT, Connection
from cti_listener.admin.metrics import ListenerCollector, SinkCounts, registry_of
from cti_listener.admin.pages import Page
from cti_listener.admin.replies import ALWAYS, refused, told
from cti_listener.admin.ring import Ring
from cti_listener.admin.showing import Shown
from cti_listener.admin.state import INTERVAL, Rate, State
from cti_listener.admin.stream import Filter, Place, Stream
from cti_listener.clock import Clock
from cti_listener.errors import NotRunningError
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.values import full_id

MOST_READERS: Final = 50
"""So many streams of events are read at once."""

STALLED: Final = 60.0
"""A reader that takes nothing for so long is cut off, in seconds; it may resume."""

MOST_FILTERS: Final = 100


class Answers:
    """Answers of one listener.

    Args:
        listener: Which one.
        clock: The one clock.
        shown: What may be shown.
        ready_max_age: How old the oldest unhandled event may be while we are ready, in seconds.
        sinks: Tells what became of the sinks' records.
        version: Ours.

    Attributes:
        ring: What all streams read.
        beat_at: When the supervisor gave a sign; None: it has yet to begin.
    """

    def __init__(
        self,
        listener: Listener,
        clock: Clock,
        *,
        shown: Shown,
        ready_max_age: float,
        sinks: Callable[[], SinkCounts],
        version: str,
    ) -> None:
        """Prepare to answer."""
        self.ring = Ring(listener, shown)
        self.beat_at: float | None = None
        self._listener = listener
        self._clock = clock
        self._shown = shown
        self._ready_max_age = ready_max_age
        self._rate = Rate()
        self._state = State(listener, clock, shown, self._rate, version)
        collector = ListenerCollector(
            listener, version=version, lost=lambda: self.ring.lost, sinks=sinks
        )
        self._registry = registry_of(collector)
        self._catching_up = asyncio.Lock()
        self._page: Page

    async def open(self) -> None:
        """Read the page."""
        self._page = await asyncio.to_thread(Page.read)

    async def sample(self) -> None:
        """Take the rate now and then, until cancelled."""
        while True:
            self._rate.note(self._listener.stats().distinct)
            await self._clock.sleep(INTERVAL)

    async def livez(self, _request: web.BaseRequest) -> web.Response:
        """Tell whether we live."""
        age = None if self.beat_at is None else self._clock.monotonic() - self.beat_at
        return told(*probes.answer(probes.liveness(age)))

    async def readyz(self, _request: web.BaseRequest) -> web.Response:
        """Tell whether events come and are handled."""
        stats, now = self._listener.stats(), self._clock.now()
        return told(*probes.answer(probes.readiness(stats, now, self._ready_max_age)))

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        """Tell Prometheus, in the form it asks for."""
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": kind})

    async def state(self, _request: web.BaseRequest) -> web.Response:
        """Tell how things stand."""
        return web.Response(body=await self._state.text(), content_type="application/json")

    async def page(self, _request: web.BaseRequest) -> web.Response:
        """Show the page; it holds nothing by itself, and asks for the token where it must."""
        return web.Response(
            body=self._page.body,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": self._page.policy},
        )

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send what is handed over, for as long as it is read."""
        wanted, after = self._wanted(request), _last_id(request)
        if self.ring.readers >= MOST_READERS:
            return refused(503, f"{MOST_READERS} streams are read already")
        if self._listener.journal is not None and self._listener.journal_id is None:
            return refused(503, "the journal has yet to be opened")
        response = web.StreamResponse(headers={**ALWAYS, "Content-Type": "text/event-stream"})
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that gathers would hold events back
        if request.method == "HEAD":
            return response
        try:
            self.ring.enter()
        except NotRunningError:
            return refused(503, "the listener is stopped")
        try:
            stream = Stream(
                self.ring,
                self._listener,
                self._shown,
                wanted=wanted,
                after=after,
                catching_up=self._catching_up,
            )
            await _send(request, response, stream)
        finally:
            self.ring.leave()
        return response

    def _wanted(self, request: web.BaseRequest) -> Filter:
        query = request.query
        unknown = sorted(set(query) - {"device", "event"})
        if unknown:
            raise web.HTTPBadRequest(text=f"no filter {unknown[0]!r}; there are device and event")
        if len(query) > MOST_FILTERS:
            raise web.HTTPBadRequest(text=f"more than {MOST_FILTERS} filters")
        given = (*query.getall("device", ()), *query.getall("event", ()))
        if not all(text.strip("@ ") for text in given):
            raise web.HTTPBadRequest(text="a filter is empty")
        namespace = self._listener.namespace
        return Filter(
            devices=frozenset(full_id(one, namespace) for one in query.getall("device", ())),
            names=frozenset(query.getall("event", ())),
        )


async def _send(request: web.BaseRequest, response: web.StreamResponse, stream: Stream) -> None:
    """Send a stream to its end; who takes nothing for long, or goes, ends it too."""
    response.force_close()
    try:
        await response.prepare(request)
        if isinstance(request.protocol, Connection):
            request.protocol.streams()
        async for chunk in stream.chunks():
            if not chunk:
                continue
            async with asyncio.timeout(STALLED):
                await response.write(chunk)
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await response.write_eof()
    except TimeoutError:
        log.info("admin_reader_stalled", peer=request.remote, seconds=STALLED)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # it went; it may come back and resume


def _last_id(request: web.BaseRequest) -> Place | None:
    """Read `Last-Event-ID`: a place in the journal."""
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return None
    place = Place.read(given)
    if place is None:
        raise web.HTTPBadRequest(text="Last-Event-ID is none of ours: give one as it was sent")
    return place
