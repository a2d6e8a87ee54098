"""The admin endpoint's server: where it listens, and who may ask for what.

docs/architecture.md, "The admin endpoint", says what it guards against and why so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from cti_listener.admin.access import Access, Address, Hosts, refuse_open
from cti_listener.admin.answers import Answers
from cti_listener.admin.connections import AT_ONCE, QUEUE, Connection, Door
from cti_listener.admin.metrics import SinkCounts
from cti_listener.admin.replies import ALWAYS, refused
from cti_listener.admin.sessions import COOKIE, Sessions
from cti_listener.admin.showing import Shown
from cti_listener.clock import Clock, SystemClock
from cti_listener.errors import ConfigurationError
from cti_listener.listener import Listener
from cti_listener.log import log
from cti_listener.ops.masking import Masker

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

PROBES: Final = frozenset({"/livez", "/readyz"})
"""What whoever gets here may ask."""

UNGUARDED: Final = PROBES | {"/", "/session"}
"""The page as well: it holds nothing by itself, and is where the token is given."""


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

    Raises:
        ConfigurationError: It is not the loopback and there is no token, or a token too short.
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

        self.port = port
        self._address = Address(host, port)
        refuse_open(self._address, token)
        self._clock = clock or SystemClock()
        self._access = Access(token, self._clock)
        self._hosts = Hosts(host, hosts)
        listener.agents  # noqa: B018 - asking begins to track
        self._answers = Answers(
            listener,
            self._clock,
            shown=Shown(masker),
            ready_max_age=ready_max_age,
            sinks=sinks,
            version=__version__,
        )
        self._routes = _routes(self._answers, Sessions(self._access))
        self._door = Door(self._answer)
        self._listening: asyncio.Server | None = None
        self._sampler: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<AdminServer {self._address} {self._door!r} {self._access!r}>"

    @property
    def url(self) -> str:
        """Where it is, once it is open."""
        return f"http://{Address(self._address.host, self.port)}/"

    def beat(self) -> None:
        """Note that whoever supervises the run does; liveness fails when that ends."""
        self._answers.beat_at = self._clock.monotonic()

    # Life

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            ConfigurationError: The address cannot be had.
        """
        await self._answers.open()
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                self._door, self._address.host, self._address.port, backlog=AT_ONCE
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigurationError("admin", f"cannot listen on {self._address}: {why}") from None
        for one in self._listening.sockets:
            with one.dup() as same:
                same.listen(QUEUE)  # what asyncio takes in a turn is another thing
        self.port = self._listening.sockets[0].getsockname()[1]
        self._sampler = loop.create_task(self._answers.sample(), name="cti-admin-rate")
        log.info("admin_listening", url=self.url, guarded=not self._access.is_open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; streams end, and nobody is waited for long."""
        self._answers.ring.close()
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.wait((self._sampler,))
        if self._listening is not None:
            self._listening.close()
            await self._door.shutdown(1.0)

    # Who may ask, and what

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is, with the headers that all answers have."""
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101 - for the type checker
        if request.content.is_eof():  # else it has yet to ask: what it sends is not there
            connection.asked()
        try:
            response = await self._judged(request, connection)
        except web.HTTPException as refusal:
            response = refused(refusal.status, refusal.text or refusal.reason)
        except Exception:  # noqa: BLE001 - a bug of ours on one; it is told, and the next goes on
            log.exception("admin_failed", path=request.path)
            response = refused(500, "this is a bug; the log has it")
        if not response.prepared:
            for name, text in ALWAYS.items():
                response.headers.setdefault(name, text)
            if connection.reserved:
                response.force_close()
        return response

    async def _judged(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        """Have those answered who may ask; refuse all others."""
        here = connection.sockname
        at = str(here[0]) if isinstance(here, tuple) else ""
        if len(request.headers.getall("Host", ())) != 1 or not self._hosts.admit(request.host, at):
            return refused(
                421, "not for this Host; if it is a name of ours, give it to --admin-host"
            )
        # As it came: what is a path of ours when it is decoded, or tidied up, leads nowhere.
        path = request.raw_path.partition("?")[0]
        if connection.reserved and path not in PROBES:
            self._door.turn_away()
            return refused(503, "too many connections; what is left is for probes")
        given = request.headers.get("Authorization")
        if path not in UNGUARDED and not self._access.admits(given, request.cookies.get(COOKIE)):
            if given is not None:
                log.warning("admin_token_refused", peer=request.remote)
            response = refused(401, "needs a token: Authorization: Bearer TOKEN, or log in at /")
            response.headers["WWW-Authenticate"] = 'Bearer realm="cti_listener"'
            return response
        methods = self._routes.get(path)
        if methods is None:
            return refused(404, "there is nothing here")
        answer = methods.get(request.method)
        if answer is None:
            response = refused(405, f"not by this method, but by {' or '.join(methods)}")
            response.headers["Allow"] = ", ".join(methods)
            return response
        return await answer(request)


def _routes(answers: Answers, sessions: Sessions) -> Mapping[str, Mapping[str, Answer]]:
    """Return what answers each path and method."""
    asked: dict[str, Answer] = {
        "/livez": answers.livez,
        "/readyz": answers.readyz,
        "/metrics": answers.metrics,
        "/v1/state": answers.state,
        "/v1/events": answers.events,
        "/": answers.page,
    }
    routes: dict[str, dict[str, Answer]] = {
        path: {"GET": answer, "HEAD": answer} for path, answer in asked.items()
    }
    routes["/session"] = {
        "GET": sessions.standing,
        "POST": sessions.log_in,
        "DELETE": sessions.log_out,
    }
    return routes
