"""How a connection is opened, what the server is shown, and what its errors mean."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from cti_listener.errors import CertificateError, ConfigurationError, ConnectError, RefusedError
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.meanings import without_secrets
from cti_listener.sources.options import ConnectionOptions, Credentials
from cti_listener.sources.transport import Ears, Transport, open_transport
from tests.examples import make
from tests.servers import free_ports
from tests.sources.receiver import running, shake_hands, source_of, tcp_server, url_of


class Deaf:
    """Ears that hear nothing."""

    def about_to_read(self) -> None:
        pass

    def bytes_received(self, *, more: bool) -> None:
        pass

    def handshake_done(self, subprotocol: str | None) -> None:
        pass

    def message_received(self, data: bytes) -> None:
        pass

    def bytes_taken(self, *, whole: bool) -> None:
        pass

    def stream_broken(self, *, oversized: bool) -> None:
        pass

    def connection_lost(self) -> None:
        pass


async def opened(url: str, **options: Any) -> Transport:
    """Open a connection, without a proxy unless one is given."""
    ears: Ears = Deaf()
    return await open_transport(
        url,
        ears=ears,
        options=ConnectionOptions(**{"proxy": None, **options}),
        credentials=Credentials(token="t0ken", cookie="JSESSIONID=abc"),
        stomp=True,
    )


async def failure(url: str, **options: Any) -> Exception:
    """Return what opening a connection fails with."""
    with pytest.raises((ConnectError, ConfigurationError)) as raised:
        await opened(url, **options)
    return raised.value


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.parametrize("wire", ["stomp", "json"])
async def test_a_certificate_of_the_given_authority_is_trusted(
    authority: trustme.CA, ca_file: Path, wire: str
) -> None:
    async with SimulatorServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        url = server.stomp_url if wire == "stomp" else server.json_url
        assert url.startswith("wss://")
        async with running(source_of(url, ca_file=ca_file)) as kept:
            await server.wait_for_subscribers()
            await kept.until(lambda: kept.connected)
            events = [make(callId="x" * 1000) for _ in range(200)]
            for event in events:
                await server.send(event)
            await kept.until(lambda: len(kept.events) == 200)
            assert kept.serials == [event["serial"] for event in events]


async def test_a_scheme_in_capitals_is_trusted_no_less(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with SimulatorServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        url = server.stomp_url.replace("wss://", "WSS://")
        async with running(source_of(url, ca_file=ca_file)) as kept:
            await kept.until(lambda: kept.connected)


async def test_a_certificate_of_another_host_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with SimulatorServer(ssl_context=server_context(authority, "elsewhere.test")) as server:
        error = await failure(server.stomp_url, ca_file=ca_file)
    assert isinstance(error, CertificateError)
    assert "its certificate is for elsewhere.test, not for 127.0.0.1" in error.problem


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    async with SimulatorServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        error = await failure(server.stomp_url)
    assert isinstance(error, CertificateError)
    assert "ca_file" in error.problem


async def test_a_client_certificate_is_shown_to_who_asks(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    context = server_context(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    ours = authority.issue_cert("listener@zhen04.cc")
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    ours.cert_chain_pems[0].write_to_path(cert_file)
    ours.private_key_pem.write_to_path(key_file)
    async with SimulatorServer(ssl_context=context) as server:
        without = await failure(server.stomp_url, ca_file=ca_file)
        assert isinstance(without, ConnectError)
        assert "127.0.0.1" in str(without)
        source = source_of(
            server.stomp_url, ca_file=ca_file, cert_file=cert_file, key_file=key_file
        )
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            assert kept.failed == []


async def test_a_context_of_ones_own_is_used(authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        SimulatorServer(ssl_context=server_context(authority, "127.0.0.1")) as server,
        running(source_of(server.json_url, ssl_context=context)) as kept,
    ):
        await kept.until(lambda: kept.connected)
        assert kept.failed == []


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
async def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    error = await failure("wss://127.0.0.1:1/events", **{name: absent})
    assert isinstance(error, ConfigurationError)
    assert error.what == name
    assert str(absent) in error.problem


async def test_tls_to_a_plain_port_says_so(cti_server: SimulatorServer) -> None:
    error = await failure(cti_server.stomp_url.replace("ws:", "wss:"))
    assert isinstance(error, ConnectError)
    assert not isinstance(error, RefusedError)
    assert "TLS" in error.problem


# What the server is shown


async def test_the_handshake_carries_token_cookie_headers_and_origin(
    cti_server: SimulatorServer,
) -> None:
    credentials = Credentials(
        token="t0ken", cookie="JSESSIONID=abc", headers={"sessionId": "s3ssion"}
    )
    source = source_of(
        cti_server.stomp_url,
        auth=credentials,
        headers={"X-Tenant": "7"},
        origin="https://cti.example.com",
    )
    async with running(source) as kept:
        await kept.until(lambda: kept.connected)
        headers = cti_server.sessions[0].headers
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["cookie"] == "JSESSIONID=abc"
    assert headers["sessionid"] == "s3ssion"
    assert headers["x-tenant"] == "7"
    assert headers["origin"] == "https://cti.example.com"


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("offered", [True, False])
async def test_messages_arrive_compressed_or_not(*, compression: bool, offered: bool) -> None:
    async with (
        SimulatorServer(compression=compression) as server,
        running(source_of(server.json_url, compression=offered)) as kept,
    ):
        await kept.until(lambda: kept.connected)
        headers = server.sessions[0].headers
        event = make(callId="x" * 5000)
        for _ in range(3):
            await server.send(event)
        await kept.until(lambda: len(kept.events) == 3)
    assert ("permessage-deflate" in headers.get("sec-websocket-extensions", "")) is offered
    assert kept.events == [event] * 3


# What arrives


async def test_what_comes_with_the_handshake_is_not_lost() -> None:
    event = make()
    frame = Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=False)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer, then=frame)
        await reader.read()

    async with tcp_server(greet) as url, running(source_of(url)) as kept:
        await kept.until(lambda: kept.connected and kept.events)
    assert kept.events == [event]


async def test_fragments_and_what_stands_between_them_are_put_together() -> None:
    first, second = make(callId="甲" * 100), make()

    async def talk(connection: ServerConnection) -> None:
        whole = json.dumps(first, ensure_ascii=False).encode()
        pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]

        async def slowly() -> Any:
            for number, piece in enumerate(pieces):
                if number == 3:
                    await (await connection.ping())
                yield piece

        await connection.send(slowly(), text=True)
        await connection.send(json.dumps(second))
        await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0) as server, running(source_of(url_of(server))) as kept:
        await kept.until(lambda: len(kept.events) == 2)
    assert kept.events == [first, second]
    assert kept.messages == 2


async def test_fragments_above_max_size_together_are_oversized() -> None:
    async def talk(connection: ServerConnection) -> None:
        await asyncio.sleep(0)
        await connection.send(["x" * 900, "y" * 900])
        await connection.wait_closed()

    source = source_of("ws://unused", max_size=1000, soft_size=1000)
    async with serve(talk, "127.0.0.1", 0) as server:
        source = source_of(url_of(server), max_size=1000, soft_size=1000, grace=0.0)
        async with running(source) as kept:
            await kept.until(lambda: kept.lost_ or kept.failed)
    assert [error.problem for error in kept.failed][:1] == ["a message above max_size (1000 bytes)"]


# What errors mean


async def test_a_refused_port_says_that_nothing_listens() -> None:
    (port,) = free_ports(1)
    error = await failure(f"ws://127.0.0.1:{port}/events")
    problem = "nothing listens on that port; is the server up, and the port right?"
    assert str(error) == f"ws://127.0.0.1:{port}/events: {problem}"
    assert isinstance(error, ConnectError)
    assert error.no_listener


async def test_a_name_of_several_addresses_on_which_nobody_listens_says_the_same() -> None:
    (port,) = free_ports(1)
    error = await failure(f"ws://localhost:{port}/events")
    assert isinstance(error, ConnectError)
    assert error.no_listener


async def test_a_name_that_does_not_exist_says_so() -> None:
    error = await failure("ws://no-such-host.invalid/events")
    assert isinstance(error, ConnectError)
    assert "the host name no-such-host.invalid cannot be resolved" in error.problem


async def test_a_server_that_never_answers_runs_into_the_open_timeout() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read()

    async with tcp_server(say_nothing) as url:
        error = await failure(url, open_timeout=0.1)
    assert "open_timeout" in str(error)


async def test_a_server_that_is_no_websocket_server_says_so() -> None:
    async def talk_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with tcp_server(talk_http) as url:
        error = await failure(url, open_timeout=2)
    assert isinstance(error, ConnectError)
    assert "no WebSocket handshake" in error.problem


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, RefusedError), (403, RefusedError), (404, RefusedError), (502, ConnectError)],
)
async def test_a_status_is_named_and_three_of_them_are_refusals(
    status: int, kind: type[Exception]
) -> None:
    def judge(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus(status), "no\n")

    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=judge) as server:
        error = await failure(url_of(server))
    assert type(error) is kind
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("locations", "shown"),
    [
        (["https://u:s3cret@sso.test:8443/login?ticket=s3cret#s3cret"], "sso.test;"),
        (["/login?ticket=s3cret"], "127.0.0.1;"),
        (["ws://" + "a" * 70], "a" * 70 + ";"),
        (["ws://[::1/s3cret"], "nowhere that can be read;"),
        (["ws://sso.test:99999/s3cret"], "sso.test;"),
        (["ws://sso.test/s3cret", "ws://elsewhere.test/"], "sso.test;"),
        (["ws://s\x9bso.test/"], "nowhere that can be read;"),
        ([], "nowhere that can be read;"),
    ],
)
async def test_a_redirect_is_a_refusal_that_names_the_host_alone(
    status: int, locations: list[str], shown: str
) -> None:
    lines = "".join(f"Location: {one}\r\n" for one in locations)

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} Found\r\n{lines}Content-Length: 0\r\n\r\n"
        writer.write(head.encode("latin-1"))

    async with tcp_server(redirect) as url:
        error = await failure(url)
    assert isinstance(error, RefusedError)
    assert error.problem == f"HTTP {status}: redirected to {shown} has the session expired?"


async def test_a_redirect_to_a_server_that_would_take_us_is_not_followed(
    cti_server: SimulatorServer,
) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 302 Found\r\nLocation: {cti_server.stomp_url}\r\n"
        writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())

    async with tcp_server(redirect) as url:
        assert isinstance(await failure(url), RefusedError)
    assert not cti_server.sessions


async def test_what_nobody_foresaw_is_an_error_of_this_attempt_with_its_type() -> None:
    with capture_logs() as logs:
        error = await failure(f"ws://{'a' * 70}.test/events")
    assert type(error) is ConnectError
    assert "UnicodeError" in error.problem
    assert [(one["log_level"], type(one["exc_info"])) for one in logs] == [("debug", UnicodeError)]


def test_urls_are_shown_without_secrets() -> None:
    shown = without_secrets("wss://user:secret@cti.test:8443/events;s=secret?token=secret#secret")
    assert shown == "wss://cti.test:8443/events"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://[::1/x", "ws://[::1/x"),
        ("ws://[::1/x?token=s3cret", "ws://[::1/x"),
        ("ws://u:s3cret@[::1/x", "ws://[::1/x"),
        ("wss//u:s3cret@h/x", "h/x"),
        ("wss:/u:s3cret@h/x", "h/x"),
        ("u:s3cret@h/x?token=s3cret", "h/x"),
        ("wss://u:s3/cret@h/x", "wss://h/x"),
        ("wss://u:s3?cret@h/x", "wss://h/x"),
        ("wss//h/x?user=a@b&token=s3cret", "b"),
        ("wss://h:99999/x", "wss://h:99999/x"),
        (f"ws://{'a' * 70}/x", f"ws://{'a' * 70}/x"),
        ("localhost:8080", "localhost:8080"),
        ("wss://s3cret@h/x", "wss://h/x"),
        ("wss://u:s3cret%ff@h/x", "wss://h/x"),
        ("wss://h/x#s3cret", "wss://h/x"),
    ],
)
def test_what_is_no_url_is_refused_without_what_may_be_a_secret(url: str, shown: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        source_of(url)
    assert f"{shown!r} is no WebSocket URL" in raised.value.problem
    assert "s3" not in str(raised.value)
    assert "cret" not in str(raised.value)


async def test_no_secret_is_logged_at_debug(
    cti_server: SimulatorServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in list(logging.root.manager.loggerDict):
        server = name.startswith("websockets.server")  # the simulator's own
        caplog.set_level(logging.INFO if server else logging.DEBUG, name)
    caplog.set_level(logging.INFO, "websockets.server")
    caplog.set_level(logging.DEBUG)
    connection = await opened(cti_server.json_url + "?token=s3cret")
    await connection.close()
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "t0ken" not in said
    assert "JSESSIONID" not in said
    assert "s3cret" not in said


# A peer that does not read


@asynccontextmanager
async def pinging_server(pings: int) -> AsyncIterator[tuple[str, asyncio.Event, list[int]]]:
    """Send pings without end, read nothing until told to; tell how much came back then."""
    read_on, pongs = asyncio.Event(), [0]

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        frames = Frame(Opcode.PING, b"x" * 125).serialize(mask=False) * 256
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001

        async def read() -> None:
            await read_on.wait()
            reader._transport.resume_reading()  # type: ignore[attr-defined]  # noqa: SLF001
            while data := await reader.read(65536):
                pongs[0] += len(data)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            for _ in range(pings // 256):
                writer.write(frames)
                await writer.drain()

    async with tcp_server(flood) as url:
        yield url, read_on, pongs


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - sockets tell nobody
            await asyncio.sleep(0.01)


def is_reading(connection: Transport) -> bool:
    assert isinstance(connection.transport, asyncio.ReadTransport)
    return connection.transport.is_reading()


async def test_pings_of_a_peer_that_does_not_read_are_left_unread() -> None:
    pings = 256 * 512  # 16 MB of them, and more of pongs
    async with pinging_server(pings) as (url, read_on, pongs):
        connection = await opened(url)
        await eventually(lambda: not is_reading(connection))
        await asyncio.sleep(0.1)
        assert connection.transport.get_write_buffer_size() < 200_000
        read_on.set()
        await eventually(lambda: pongs[0] == pings * 131)
        assert is_reading(connection)
        connection.abort()


async def test_reading_goes_on_once_neither_the_owner_nor_the_peer_holds_it() -> None:
    async with pinging_server(0) as (url, read_on, _):
        connection = await opened(url)
        read_on.set()
        connection.pause()
        connection.pause_writing()
        assert not is_reading(connection)
        connection.resume()
        assert not is_reading(connection)
        connection.pause()
        connection.resume_writing()
        assert not is_reading(connection)
        connection.resume()
        assert is_reading(connection)
        connection.abort()
        connection.pause()
        connection.resume()
