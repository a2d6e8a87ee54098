"""Through a proxy, and what is blamed on it."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from cti_listener.errors import ConfigurationError, ConnectError, RefusedError
from cti_listener.simulator import SimulatorServer
from tests.examples import make
from tests.servers import free_ports
from tests.sources.receiver import running, source_of, tcp_server
from tests.sources.test_transport import failure, server_context

needs_socks = pytest.mark.skipif(
    importlib.util.find_spec("python_socks") is None, reason="python-socks is not installed"
)


@dataclass
class Proxy:
    """A proxy, and what was asked of it."""

    host: str
    port: int
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, answer: bytes
) -> None:
    """Connect to what was asked for, say so, and pass bytes both ways until one side ends."""

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()

    far_reader, far_writer = await asyncio.open_connection(host, port)
    try:
        writer.write(answer)
        async with asyncio.TaskGroup() as tasks:
            back = tasks.create_task(pump(far_reader, writer))
            await pump(reader, far_writer)
            back.cancel()
    finally:
        far_writer.transport.abort()


async def talk_http(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Take a CONNECT (RFC 9110, 9.3.6)."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = lines[0].split()
    assert method == "CONNECT"
    proxy.asked.append(target)
    proxy.headers += lines[1:]
    host, _, port = target.rpartition(":")
    await relay(reader, writer, host, int(port), b"HTTP/1.1 200 Connected\r\n\r\n")


async def talk_socks(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Take a SOCKS5 CONNECT by name or address (RFC 1928); all names are this machine."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    else:
        host = socket.inet_ntoa(await reader.readexactly(4))
    port = int.from_bytes(await reader.readexactly(2), "big")
    proxy.asked.append(f"{host}:{port}")
    answer = b"\x05\x00\x00\x01" + bytes(6)
    await relay(reader, writer, "127.0.0.1", port, answer)


Talk = Callable[[Proxy, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def proxy_server(talk: Talk) -> AsyncIterator[Proxy]:
    found: list[Proxy] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(found[0], reader, writer)

    async with tcp_server(serve) as url:
        found.append(Proxy("127.0.0.1", int(url.split(":")[2].split("/")[0])))
        yield found[0]


# Through it


async def test_events_come_through_an_http_proxy(cti_server: SimulatorServer) -> None:
    async with proxy_server(talk_http) as proxy:
        source = source_of(cti_server.stomp_url, proxy=f"http://user:s3cret@{proxy.address}")
        async with running(source) as kept:
            await cti_server.wait_for_subscribers()
            event = make()
            await cti_server.send(event)
            await kept.until(lambda: kept.events)
            assert kept.serials == [event["serial"]]
            assert kept.failed == []
    assert proxy.asked == [f"127.0.0.1:{cti_server.port}"]
    login = base64.b64encode(b"user:s3cret").decode()
    assert f"Proxy-Authorization: Basic {login}" in proxy.headers


async def test_tls_goes_through_an_http_proxy_to_the_server(tmp_path: Any) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with (
        SimulatorServer(ssl_context=server_context(authority, "127.0.0.1")) as server,
        proxy_server(talk_http) as proxy,
        running(
            source_of(server.json_url, ca_file=ca_file, proxy=f"http://{proxy.address}")
        ) as kept,
    ):
        await kept.until(lambda: kept.connected)
        assert kept.failed == []
        assert proxy.asked == [f"127.0.0.1:{server.port}"]


async def test_the_proxy_of_the_environment_is_used(
    cti_server: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with proxy_server(talk_http) as proxy:
        monkeypatch.setenv("ws_proxy", f"http://{proxy.address}")
        async with running(source_of(cti_server.stomp_url, proxy=True)) as kept:
            await kept.until(lambda: kept.connected)
    assert len(proxy.asked) == 1


@needs_socks
async def test_a_socks_proxy_resolves_the_name(cti_server: SimulatorServer) -> None:
    url = cti_server.stomp_url.replace("127.0.0.1", "cti.invalid")
    async with proxy_server(talk_socks) as proxy:
        source = source_of(url, proxy=f"socks5h://{proxy.address}")
        async with running(source) as kept:
            await kept.until(lambda: kept.connected)
            assert kept.failed == []
    assert proxy.asked == [f"cti.invalid:{cti_server.port}"]


# What is blamed on it


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https", pytest.param("socks5h", marks=needs_socks)])
async def test_a_dead_proxy_is_blamed_by_name_and_not_the_server(
    cti_server: SimulatorServer, scheme: str, host: str
) -> None:
    (port,) = free_ports(1)
    error = await failure(cti_server.stomp_url, proxy=f"{scheme}://user:s3cret@{host}:{port}")
    assert type(error) is ConnectError
    assert error.problem.startswith(f"nothing listens at the proxy {host}:{port}; ")
    assert not error.no_listener


@pytest.mark.parametrize("scheme", ["http", pytest.param("socks5h", marks=needs_socks)])
async def test_a_proxy_that_is_mute_or_no_proxy_is_blamed_by_name(
    cti_server: SimulatorServer, scheme: str
) -> None:
    async def say_nothing(
        proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        del proxy, writer
        await reader.read()

    async def hang_up(
        proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        del proxy
        await reader.read(1000)
        writer.close()

    async with proxy_server(say_nothing) as proxy:
        url = f"{scheme}://u:s3cret@{proxy.address}"
        mute = await failure(cti_server.stomp_url, proxy=url, open_timeout=0.2)
        assert f"the proxy {proxy.address} did not connect us in time" in str(mute)
    async with proxy_server(hang_up) as proxy:
        gone = await failure(cti_server.stomp_url, proxy=f"{scheme}://u:s3cret@{proxy.address}")
        assert f"the proxy {proxy.address} " in str(gone)
    for error in (mute, gone):
        assert type(error) is ConnectError
        assert "s3cret" not in str(error)


@pytest.mark.parametrize("status", [407, 502])
async def test_the_status_of_a_proxy_is_its_own(cti_server: SimulatorServer, status: int) -> None:
    async def refuse(
        proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        del proxy
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())

    async with proxy_server(refuse) as proxy:
        error = await failure(cti_server.stomp_url, proxy=f"http://{proxy.address}")
    assert isinstance(error, ConnectError)
    assert not isinstance(error, RefusedError)
    assert f"the proxy {proxy.address} answered HTTP {status}" in error.problem
    assert ("user and password" in error.problem) is (status == 407)


@needs_socks
async def test_a_name_that_we_have_to_resolve_ourselves_is_not_blamed_on_the_proxy() -> None:
    async with proxy_server(talk_socks) as proxy:
        error = await failure("ws://cti.invalid/x", proxy=f"socks5://{proxy.address}")
    assert "the host name cti.invalid cannot be resolved" in str(error)
    assert "socks5h" in str(error)


async def test_what_the_server_says_through_a_proxy_is_the_servers() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    async with tcp_server(hang_up) as url, proxy_server(talk_http) as proxy:
        error = await failure(url, proxy=f"http://{proxy.address}")
    assert isinstance(error, RefusedError)
    assert "proxy" not in error.problem


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret/x@proxy.test",
        "http://s3cret@proxy.test",
        "ftp://u:s3cret@proxy.test",
        "http://[::1",
        "http://u:s3cret@proxy.test:99999",
    ],
)
async def test_a_proxys_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    error = await failure("ws://127.0.0.1:1/events", proxy=url)
    assert isinstance(error, ConfigurationError)
    assert error.what == "proxy"
    assert "s3cret" not in str(error)
