"""The admin endpoint's server: routes, who may ask, and how each is answered.

docs/architecture.md, "The admin endpoint", says what it guards against and why so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from cti_listener.admin import probes
from cti_listener.admin.access import SESSION_AGE, Access, Address, Hosts, refuse_open
from cti_listener.admin.connections import ANSWER_TIMEOUT, MOST_BODY, Connection, Door
from cti_listener.admin.metrics import ListenerCollector, SinkCounts, registry_of
from cti_listener.admin.showing import Shown, to_json
from cti_listener.admin.state import INTERVAL, Rate, State
from cti_listener.admin.stream import Filter, Ring, Stream
from cti_listener.clock import Clock, SystemClock
from cti_listener.errors import ConfigurationError, NotRunningError
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.ops.masking import Masker
from cti_listener.values import full_id

COOKIE: Final = "cti_session"

MOST_READERS: Final = 50
"""So many streams of events are read at once."""

STALLED: Final = 60.0
"""A reader that takes nothing for so long is cut off, in seconds; it may resume."""

BODY_TIMEOUT: Final = 5.0
MOST_FILTERS: Final = 100

_ALWAYS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cti_listener",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class AdminServer:
    """Answers over HTTP how a listener fares; for `async with`.

    Args:
        listener: What it tells of; from now on it tracks calls and agents.
        host: Where to listen; the loopback by default.
        port: 0 picks a free one.
        token: What all but probes must show; None: nothing, which the loopback alone allows.
        hosts: Names by which it may be asked besides the loopback's and `host`.
        masker: What masks numbers in what is shown; None: they are shown as received.
        ready_max_age: How old the oldest unhandled event may be while we are ready, in seconds; 0:
            any age.
        sinks: Tells what became of the sinks' records, by sink and outcome.
        clock: The one clock.

    Attributes:
        port: The port, once it is open.
        url: Where it is, once it is open.

    Raises:
        ConfigurationError: It is not the loopback and there is no token, or a token too short; or,
            on entering, the address cannot be had.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        hosts: Sequence[str] = (),
        masker: Masker | None = None,
        ready_max_age: float = 60.0,
        sinks: Callable[[], SinkCounts] = dict,
        clock: Clock | None = None,
    ) -> None:
        """Open nothing yet."""
        from cti_listener import __version__  # noqa: PLC0415 - the package is whole by then

        self._address = Address(host, port)
        refuse_open(self._address, token)
        self.port = port
        self._clock = clock or SystemClock()
        self._access = Access(token, self._clock)
        self._hosts = Hosts(host, hosts)
        self._listener = listener
        listener.agents  # noqa: B018 - asking begins to track
        shown = Shown(masker)
        self._shown = shown
        self._ring = Ring(listener, shown)
        self._rate = Rate()
        self._state = State(listener, self._clock, shown, self._rate, __version__)
        self._registry = registry_of(
            ListenerCollector(
                listener, version=__version__, lost=lambda: self._ring.lost, sinks=sinks
            )
        )
        self._ready_max_age = ready_max_age
        self._beat_at: float | None = None
        self._catching_up = asyncio.Lock()
        self._page = files("cti_listener.admin").joinpath("page.html").read_bytes()
        self._door: Door | None = None
        self._runner: web.ServerRunner | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._sampler: asyncio.Task[None] | None = None
        self._answers = self._routes()

    def __repr__(self) -> str:
        return f"<AdminServer {self._address} {self._door!r} {self._access!r}>"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{Address(self._address.host, self.port)}/"

    def beat(self) -> None:
        """Note that whoever supervises the run does; liveness fails when that ends."""
        self._beat_at = self._clock.monotonic()

    # Life

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            ConfigurationError: The address cannot be had.
        """
        self._door = Door(self._answer)
        self._runner = web.ServerRunner(self._door, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address.host, self._address.port, backlog=256)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            why = error.strerror or str(error)
            raise ConfigurationError("admin", f"cannot listen on {self._address}: {why}") from None
        self.port = self._runner.addresses[0][1]
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._sampler = self._tasks.create_task(self._sample(), name="cti-admin-rate")
        log.info("admin_listening", url=self.url, token=not self._access.is_open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; streams end, and nobody is waited for long."""
        self._ring.close()
        if self._sampler is not None:
            self._sampler.cancel()
        if self._tasks is not None:
            await self._tasks.__aexit__(None, None, None)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _sample(self) -> None:
        while True:
            self._rate.note(self._listener.stats().distinct)
            await self._clock.sleep(INTERVAL)

    # Who may ask, and what

    def _routes(self) -> dict[str, dict[str, Answer]]:
        """Return what answers each path and method; HEAD is answered as GET."""
        return {
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/v1/state": {"GET": self._v1_state},
            "/v1/events": {"GET": self._v1_events},
            "/session": {"POST": self._log_in, "DELETE": self._log_out},
            "/": {"GET": self._show_page},
        }

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is, with the headers that all answers have."""
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101 - for the type checker
        connection.asked()
        try:
            response = await self._judge(request, connection)
        except web.HTTPException as refusal:
            response = _refused(refusal.status, refusal.text or refusal.reason)
        except Exception:  # noqa: BLE001 - a bug of ours on one; it is told, and the next goes on
            log.exception("admin_failed", path=request.path)
            response = _refused(500, "this is a bug; the log has it")
        if not response.prepared:
            response.headers.update(_ALWAYS)
            if connection.reserved:
                response.force_close()
        return response

    async def _judge(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        """Answer who may ask; refuse all others."""
        here = connection.sockname
        at = str(here[0]) if isinstance(here, tuple) else ""
        if len(request.headers.getall("Host", ())) != 1 or not self._hosts.admit(request.host, at):
            return _refused(
                421, "not for this Host; allow its name by --admin-host, if it is this server's"
            )
        # The path as it came: what is written otherwise leads nowhere.
        path = request.raw_path.partition("?")[0]
        probe = path in {"/livez", "/readyz"}
        if connection.reserved and not probe:
            return _refused(503, "too many connections; these places are for probes")
        public = probe or path in {"/", "/session"}
        if not public and not self._access.admits(
            request.headers.get("Authorization"), request.cookies.get(COOKIE)
        ):
            response = _refused(401, "needs a token: Authorization: Bearer TOKEN, or log in at /")
            response.headers["WWW-Authenticate"] = 'Bearer realm="cti_listener"'
            return response
        methods = self._answers.get(path)
        if methods is None:
            return _refused(404, "there is nothing here")
        answer = methods.get("GET" if request.method == "HEAD" else request.method)
        if answer is None:
            response = _refused(405, "not by this method")
            response.headers["Allow"] = ", ".join([*methods, *(["HEAD"] * ("GET" in methods))])
            return response
        return await answer(request)

    # Answers

    async def _livez(self, _request: web.BaseRequest) -> web.Response:
        age = None if self._beat_at is None else self._clock.monotonic() - self._beat_at
        return _told(*probes.answer(probes.liveness(age)))

    async def _readyz(self, _request: web.BaseRequest) -> web.Response:
        stats, now = self._listener.stats(), self._clock.now()
        return _told(*probes.answer(probes.readiness(stats, now, self._ready_max_age)))

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": kind})

    async def _v1_state(self, _request: web.BaseRequest) -> web.Response:
        return web.Response(body=await self._state.text(), content_type="application/json")

    async def _show_page(self, request: web.BaseRequest) -> web.Response:
        """Show the page; it holds nothing by itself, and asks for the token where it must."""
        inside = self._access.admits(None, request.cookies.get(COOKIE))
        return web.Response(
            body=self._page,
            status=200 if inside else 401,
            content_type="text/html",
            charset="utf-8",
        )

    async def _log_in(self, request: web.BaseRequest) -> web.Response:
        """Trade the token for a cookie, which `EventSource` can send."""
        token = await _form_token(request)
        if not self._access.is_token(token):
            log.warning("admin_token_refused", peer=request.remote)
            return _refused(403, "this is not the token")
        response = web.Response(status=204)
        response.set_cookie(
            COOKIE,
            self._access.begin(),
            max_age=int(SESSION_AGE),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def _log_out(self, request: web.BaseRequest) -> web.Response:
        self._access.end(request.cookies.get(COOKIE, ""))
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response

    async def _v1_events(self, request: web.BaseRequest) -> web.StreamResponse:
        wanted = self._wanted(request)
        after = _last_id(request)
        if self._ring.readers >= MOST_READERS:
            return _refused(503, f"{MOST_READERS} streams are read already")
        response = web.StreamResponse(headers={**_ALWAYS, "Content-Type": "text/event-stream"})
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that gathers would hold events back
        if request.method == "HEAD":
            return response
        try:
            self._ring.enter()
        except NotRunningError:
            return _refused(503, "the listener is stopped")
        stream = Stream(
            self._ring,
            self._listener,
            self._shown,
            wanted=wanted,
            after=after,
            catching_up=self._catching_up,
        )
        try:
            await self._send(request, response, stream)
        finally:
            self._ring.leave()
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, stream: Stream
    ) -> None:
        """Send a stream to its end; who takes nothing for long, or goes, ends it too."""
        assert isinstance(request.protocol, Connection)  # noqa: S101 - for the type checker
        response.force_close()
        await response.prepare(request)
        request.protocol.unlimited()
        try:
            async for chunk in stream.chunks():
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

    def _wanted(self, request: web.BaseRequest) -> Filter:
        query = request.query
        unknown = sorted(set(query) - {"device", "event"})
        if unknown:
            raise web.HTTPBadRequest(
                text=f"there is no {unknown[0]}=; filter by device= and event="
            )
        if len(query) > MOST_FILTERS:
            raise web.HTTPBadRequest(text=f"more than {MOST_FILTERS} filters")
        devices = [one for one in query.getall("device", ()) if one.strip("@ ")]
        return Filter(
            devices=frozenset(full_id(one, self._listener.namespace) for one in devices),
            names=frozenset(query.getall("event", ())),
        )


def _last_id(request: web.BaseRequest) -> int | None:
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return None
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else math.inf  # noqa: PLR2004 - 64 bits
    if number >= 2**63:
        raise web.HTTPBadRequest(text="Last-Event-ID is none of ours: it is a number")
    return int(number)


async def _form_token(request: web.BaseRequest) -> str:
    """Read the token out of a form.

    Raises:
        HTTPException: Another site sent it, or it is no form, too long or too slow.
    """
    origin = request.headers.get("Origin")
    if origin not in (None, f"http://{request.host}", f"https://{request.host}"):
        raise web.HTTPForbidden(text="sent by another site")
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="send a form with the field token")
    if (request.content_length or 0) > MOST_BODY:
        raise web.HTTPRequestEntityTooLarge(MOST_BODY, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            form = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form did not come in time") from None
    except ValueError:
        raise web.HTTPBadRequest(text="the form cannot be read") from None
    return str(form.get("token", ""))


def _refused(status: int, text: str) -> web.Response:
    return _told(status, {"error": text})


def _told(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=to_json(body) + b"\n", content_type="application/json")
