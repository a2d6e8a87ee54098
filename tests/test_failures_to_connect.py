"""A connection that cannot be made says why, and what to do: certificates, host names, ports.

Each failure is met by `Listener.run()` and by the program, with servers that speak real TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from cti_listener import CertificateError, ConnectError, CtiError, Listener, UnreachableError
from cti_listener.simulator import SimulatorServer
from tests.program import LIMIT, PROGRAM, environment
from tests.servers import free_ports
from tests.sources.receiver import tcp_server
from tests.sources.test_proxy import Proxy, proxy_server, relay

OURS, THEIRS = trustme.CA(organization_name="Ours"), trustme.CA(organization_name="Theirs")
"""Whom the listener trusts, and whom it does not."""

NOW = datetime.now(UTC)
THEN = NOW - timedelta(days=400), NOW - timedelta(days=20)
SOON = NOW + timedelta(days=20), NOW + timedelta(days=400)
LOCAL = "127.0.0.1"


@dataclass(kw_only=True)
class Met:
    """Where a failure is met.

    Attributes:
        url: The endpoint.
        settings: What the listener is told besides.
    """

    url: str
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Failure:
    """A failure, as it should be told.

    Attributes:
        at: Opens what fails.
        says: What is wrong, and what to do; patterns.
        code: How the program ends: 77 where we are refused or refuse, else 69.
        rare: Another way to the same; the program, which takes long to start, is not tried.
    """

    at: Callable[[], contextlib.AbstractAsyncContextManager[Met]]
    says: tuple[str, ...]
    code: int = 69
    rare: bool = False


# Servers


def context_of(certificate: trustme.LeafCert, *versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the versions that are too old
        for version in versions:
            context.minimum_version = context.maximum_version = version
    return context


def asking(context: ssl.SSLContext) -> ssl.SSLContext:
    """Ask for a client's certificate."""
    context.verify_mode = ssl.CERT_REQUIRED
    OURS.configure_trust(context)
    return context


def too_old() -> ssl.SSLContext:
    context = context_of(OURS.issue_cert(LOCAL), ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def self_signed() -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody but itself has signed."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    both = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
    with trustme.Blob(both).tempfile() as path:
        context.load_cert_chain(path)
    return context


@asynccontextmanager
async def simulator(
    context: Callable[[], ssl.SSLContext] | None, host: str = LOCAL, scheme: str = ""
) -> AsyncIterator[Met]:
    """Serve a simulated centre, which is met by this name and in this way."""
    async with SimulatorServer(ssl_context=context() if context else None) as server:
        url = server.stomp_url.replace(LOCAL, host)
        yield Met(url=re.sub("^wss?", scheme, url) if scheme else url)


@asynccontextmanager
async def openssl(
    context: Callable[[], ssl.SSLContext], *, shown: trustme.LeafCert | None = None
) -> AsyncIterator[Met]:
    """Shake hands as OpenSSL does, with an alert where it fails; asyncio's servers send none."""
    listening = socket.create_server((LOCAL, 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                alert_or_serve(context(), listening.accept()[0])

    thread = threading.Thread(target=serve)
    thread.start()
    with contextlib.ExitStack() as stack:
        settings = {}
        if shown is not None:
            pem = stack.enter_context(shown.private_key_and_cert_chain_pem.tempfile())
            settings["cert_file"] = pem
        try:
            yield Met(url=f"wss://{LOCAL}:{listening.getsockname()[1]}/x", settings=settings)
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # which ends the wait for the next one
            listening.close()
            await asyncio.to_thread(thread.join)


def alert_or_serve(context: ssl.SSLContext, client: socket.socket) -> None:
    """Shake hands; then read on, so that what was said last is not lost with the connection."""
    client.settimeout(LIMIT)
    with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as tls:
        with contextlib.suppress(ssl.SSLError):
            tls.do_handshake()
        tls.setblocking(True)
        while os.read(tls.fileno(), 65_536):
            pass


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(data: bytes, scheme: str) -> AsyncIterator[Met]:
    """Answer whatever comes with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with tcp_server(talk) as url:
        yield Met(url=url.replace("ws:", f"{scheme}:"))


@asynccontextmanager
async def elsewhere(url: str) -> AsyncIterator[Met]:
    yield Met(url=url)


@asynccontextmanager
async def no_port() -> AsyncIterator[Met]:
    (port,) = free_ports(1)
    yield Met(url=f"wss://{LOCAL}:{port}/x")


# Through a proxy


async def connect_here(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Take every host for this one."""
    target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    proxy.asked.append(target)
    port = int(target.rpartition(":")[2])
    await relay(reader, writer, LOCAL, port, b"HTTP/1.1 200 Connected\r\n\r\n")


async def know_nobody(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    del proxy
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def through_proxy() -> AsyncIterator[Met]:
    issued = functools.partial(context_of, OURS.issue_cert("elsewhere.test"))
    async with simulator(issued, "cti.invalid") as met, proxy_server(connect_here) as proxy:
        yield Met(url=met.url, settings={"proxy": f"http://{proxy.address}"})


@asynccontextmanager
async def through_lost_proxy() -> AsyncIterator[Met]:
    async with proxy_server(know_nobody) as proxy:
        yield Met(url="wss://cti.invalid:8443/x", settings={"proxy": f"http://{proxy.address}"})


# What each says


def issued(
    *names: str, by: trustme.CA = OURS, dates: tuple[datetime, datetime] | None = None
) -> Callable[[], ssl.SSLContext]:
    """Return what makes a server's context with such a certificate."""
    since, until = dates or (None, None)

    def make() -> ssl.SSLContext:
        return context_of(by.issue_cert(*names, not_before=since, not_after=until))

    return make


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HUNG_UP_ON_TLS = ("the server hung up during the TLS handshake", "TLS 1.2", "ws://", "cert_file")
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x16"

FAILURES = {
    "an unknown authority": Failure(
        at=lambda: simulator(issued(LOCAL, by=THEIRS)),
        says=(r"by an authority that is not trusted here \(Theirs, .*\)", "give .* as ca_file"),
        code=77,
    ),
    "self-signed": Failure(
        at=lambda: simulator(self_signed), says=("self-signed", "give it as ca_file"), code=77
    ),
    "expired": Failure(
        at=lambda: simulator(issued(LOCAL, dates=THEN)),
        says=(f"its certificate expired on {THEN[1]:%Y-%m-%d %H:%M} UTC; have it renewed",),
        code=77,
    ),
    "not yet valid": Failure(
        at=lambda: simulator(issued(LOCAL, dates=SOON)),
        says=(
            f"its certificate is valid only from {SOON[0]:%Y-%m-%d %H:%M} UTC on",
            rf"does the clock here go right\? It says {NOW:%Y}-",
        ),
        code=77,
    ),
    "another address": Failure(
        at=lambda: simulator(issued("elsewhere.test", "10.1.2.3")),
        says=(
            rf"its certificate is for elsewhere\.test, 10\.1\.2\.3, not for {LOCAL}",
            f"connect by a name that stands in it, or have one issued for {LOCAL}",
        ),
        code=77,
        rare=True,
    ),
    "another name": Failure(
        at=lambda: simulator(issued("*.elsewhere.test"), "localhost"),
        says=(r"its certificate is for \*\.elsewhere\.test, not for localhost; connect by",),
        code=77,
    ),
    "another name, through a proxy": Failure(
        at=through_proxy,
        says=(r"its certificate is for elsewhere\.test, not for cti\.invalid; connect by",),
        code=77,
    ),
    "a client certificate is missing": Failure(
        at=lambda: openssl(lambda: asking(context_of(OURS.issue_cert(LOCAL), V13))),
        says=("the server asks for a client certificate; give cert_file and key_file",),
        code=77,
    ),
    "a client certificate is missing, with TLS 1.2": Failure(
        at=lambda: openssl(lambda: asking(context_of(OURS.issue_cert(LOCAL), V12))),
        says=("takes nothing of what we offer", r"a client certificate \(cert_file\)"),
        rare=True,
    ),
    "a client certificate is missing, and nobody says so": Failure(
        at=lambda: simulator(lambda: asking(context_of(OURS.issue_cert(LOCAL), V13))),
        says=("the server hung up without an answer", r"a client certificate \(cert_file\)"),
        rare=True,
    ),
    "our certificate is another's": Failure(
        at=lambda: openssl(
            lambda: asking(context_of(OURS.issue_cert(LOCAL), V12)),
            shown=THEIRS.issue_cert("me@zhen04.cc"),
        ),
        says=("the server does not take our client certificate: unknown ca; see cert_file",),
        code=77,
        rare=True,
    ),
    "our certificate has expired": Failure(
        at=lambda: openssl(
            lambda: asking(context_of(OURS.issue_cert(LOCAL), V13)),
            shown=OURS.issue_cert("me@zhen04.cc", not_before=THEN[0], not_after=THEN[1]),
        ),
        says=("the server does not take our client certificate: certificate expired;",),
        code=77,
        rare=True,
    ),
    "TLS to a server without": Failure(
        at=lambda: simulator(None, scheme="wss"), says=HUNG_UP_ON_TLS
    ),
    "TLS to a server that answers without": Failure(
        at=lambda: answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", "wss"),
        says=("TLS failed: what answers there is no TLS", "is it ws://, or another port"),
        rare=True,
    ),
    "no TLS to a server with": Failure(
        at=lambda: simulator(issued(LOCAL), scheme="ws"),
        says=("the server hung up without an answer", "does it speak TLS (wss://)"),
    ),
    "no TLS to a server that says so by an alert": Failure(
        at=lambda: answering(TLS_ALERT, "ws"),
        says=("what answers there speaks TLS; write wss://",),
        rare=True,
    ),
    "no TLS to a server that says so by a status": Failure(
        at=lambda: answering(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", "ws"),
        says=("HTTP 400", "does it speak TLS (wss://)"),
        rare=True,
    ),
    "TLS that is too old": Failure(
        at=lambda: openssl(too_old),
        says=("no version that is taken here, from TLS 1.2 on", "have it updated"),
    ),
    "TLS that is too old, and nobody says so": Failure(
        at=lambda: simulator(too_old),
        says=HUNG_UP_ON_TLS,
        rare=True,
    ),
    "a host that does not exist": Failure(
        at=lambda: elsewhere("wss://cti.invalid/x"),
        says=("the host name cti.invalid cannot be resolved: ", "is it written right"),
    ),
    "a host that does not exist, through a proxy": Failure(
        at=through_lost_proxy,
        says=(rf"the proxy {LOCAL}:\d+ answered HTTP 502; .*cti\.invalid:8443.* that host\?",),
        rare=True,
    ),
    "a port where nothing listens": Failure(
        at=no_port, says=("nothing listens on that port; is the server up, and the port right",)
    ),
}


@pytest.fixture(scope="module")
def ca_file() -> Iterator[str]:
    with OURS.cert_pem.tempfile() as path:
        yield path


def settings_of(met: Met, ca_file: str) -> dict[str, str | None]:
    return {"ca_file": ca_file, "proxy": None, **met.settings}


def says(failure: Failure, text: str) -> list[str]:
    """Return what is not said of what should be."""
    patterns = (one.replace("(wss://)", r"\(wss://\)") for one in failure.says)
    return [one for one in patterns if not re.search(one, text)]


@pytest.mark.parametrize("name", FAILURES)
async def test_the_listener_raises_what_says_why_and_what_to_do(name: str, ca_file: str) -> None:
    failure = FAILURES[name]
    async with failure.at() as met:
        settings = settings_of(met, ca_file)
        listener = Listener(met.url, namespace="zhen04.cc", max_attempts=1, **settings)  # type: ignore[arg-type]
        with pytest.raises(CtiError) as raised:
            await asyncio.wait_for(listener.run(), LIMIT)
    assert says(failure, str(raised.value)) == []
    assert met.url in str(raised.value)
    error = raised.value.last if isinstance(raised.value, UnreachableError) else raised.value
    assert isinstance(error, ConnectError)
    assert isinstance(error, CertificateError) is (failure.code == 77)


# By the program: a process for each, some at a time


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    errors: str


async def run_program(failure: Failure, ca_file: str, turn: asyncio.Semaphore) -> Ended:
    async with turn, failure.at() as met:
        settings = {**settings_of(met, ca_file), "max_attempts": "1", "log_level": "error"}
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "--url", met.url, "--ns", "zhen04.cc", "--log-format", "console"),
            env=environment(
                **{f"CTI_{name.upper()}": text or "none" for name, text in settings.items()}
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT):
            out, errors = await process.communicate()
    assert process.returncode is not None
    return Ended(code=process.returncode, out=out.decode(), errors=errors.decode())


@functools.cache
def ended() -> dict[str, Ended]:
    """Run the program at every failure."""

    async def run_all() -> dict[str, Ended]:
        turn = asyncio.Semaphore(4)
        with OURS.cert_pem.tempfile() as path:
            async with asyncio.TaskGroup() as tasks:
                runs = {
                    name: tasks.create_task(run_program(failure, path, turn))
                    for name, failure in FAILURES.items()
                    if not failure.rare
                }
        return {name: run.result() for name, run in runs.items()}

    return asyncio.run(run_all())


@pytest.mark.parametrize("name", [name for name, one in FAILURES.items() if not one.rare])
def test_the_program_says_it_in_one_line(name: str) -> None:
    failure, end = FAILURES[name], ended()[name]
    assert (end.code, end.out) == (failure.code, "")
    assert re.fullmatch(r"cti-listen: [^\n]+\n", end.errors), end.errors
    assert says(failure, end.errors) == []
