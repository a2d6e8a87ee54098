from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from structlog.testing import capture_logs

from cti_listener import Listener
from cti_listener.admin import make_admin
from cti_listener.admin.connections import MOST, MOST_BODY, RESERVED
from cti_listener.admin.server import AdminServer
from cti_listener.errors import ConfigurationError
from cti_listener.ops.masking import Masker
from cti_listener.testing import FakeSource
from tests.admin.support import EVERYWHERE, PATIENCE, TOKEN, Served, reading, served
from tests.examples import NAMESPACE, make
from tests.servers import free_ports
from tests.turns import until

GUARDED = ["/metrics", "/v1/state", "/v1/events", "/nothing", "/favicon.ico"]
WITH_TOKEN = {"token": TOKEN}


async def raw(it: Served, request: str) -> str:
    """Send bytes as they are; return all that comes, up to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.admin.port)
    try:
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE):
            return (await reader.read()).decode()
    finally:
        writer.close()


def status_of(answer: str) -> int:
    return int(answer.split(" ", 2)[1]) if answer.startswith("HTTP/") else 0


def asking(path: str, *, method: str = "GET", host: str = "localhost", more: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"


# The token


@pytest.mark.parametrize("path", GUARDED)
async def test_without_the_token_nothing_is_told(path: str) -> None:
    async with served(admin=WITH_TOKEN) as it:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"cti_session={TOKEN}"}):
            async with it.client.get(path, headers=headers) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert "token" in (await answer.json())["error"]


async def test_with_the_token_all_is_told() -> None:
    async with served(admin=WITH_TOKEN) as it:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await it.get("/metrics", headers=headers))[0] == 200
        assert (await it.get("/v1/state", headers=headers))[0] == 200
        async with it.client.get("/v1/events", headers=headers) as answer:
            assert answer.status == 200


async def test_probes_need_no_token() -> None:
    async with served(admin=WITH_TOKEN) as it:
        assert [(await it.get(path))[0] for path in ("/livez", "/readyz")] == [200, 200]


async def test_the_page_trades_the_token_for_a_cookie_that_is_not_it() -> None:
    async with served(admin=WITH_TOKEN) as it:
        assert (await it.get("/"))[0] == 200
        assert await it.json("/session") == {"inside": False, "session": False}
        async with it.client.post("/session", data={"token": "wrong"}) as answer:
            assert (answer.status, answer.cookies) == (403, {})
        async with it.client.post("/session", data={"token": TOKEN}) as answer:
            assert answer.status == 204
            cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        session = {"Cookie": cookie.partition(";")[0]}
        assert (await it.get("/metrics", headers=session))[0] == 200
        _, told = await it.get("/session", headers=session)
        assert json.loads(told) == {"inside": True, "session": True}
        async with it.client.delete("/session", headers=session) as answer:
            assert answer.status == 204
        assert (await it.get("/metrics", headers=session))[0] == 401
        _, told = await it.get("/session", headers=session)
        assert json.loads(told) == {"inside": False, "session": False}


async def test_without_a_token_or_with_it_in_the_header_there_is_no_session_to_leave() -> None:
    async with served() as it:
        assert await it.json("/session") == {"inside": True, "session": False}
    async with served(admin=WITH_TOKEN) as it:
        _, told = await it.get("/session", headers={"Authorization": f"Bearer {TOKEN}"})
        assert json.loads(told) == {"inside": True, "session": False}


async def test_another_site_cannot_log_anybody_in() -> None:
    async with served(admin=WITH_TOKEN) as it:
        headers = {"Origin": "https://evil.example.com"}
        async with it.client.post("/session", data={"token": TOKEN}, headers=headers) as answer:
            assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


async def test_the_token_is_nowhere_in_the_log_or_a_repr() -> None:
    with capture_logs() as logs:
        async with served(admin=WITH_TOKEN) as it:
            for token in (TOKEN, f"{TOKEN}x"):
                async with it.client.post("/session", data={"token": token}):
                    pass
            assert TOKEN not in repr(it.admin)
    assert TOKEN not in json.dumps(logs, default=str)
    assert "admin_token_refused" in {line["event"] for line in logs}


async def test_who_asks_with_a_wrong_token_is_told_of_in_the_log() -> None:
    """As a Prometheus with the token of yesterday; who shows none at all has yet to log in."""
    with capture_logs() as logs:
        async with served(admin=WITH_TOKEN) as it:
            for headers in ({}, {"Cookie": "cti_session=x"}, {"Authorization": "Bearer secret-x"}):
                for path in ("/metrics", "/v1/state"):
                    assert (await it.get(path, headers=headers))[0] == 401
    said = [line for line in logs if line["event"] == "admin_token_refused"]
    assert [line["peer"] for line in said] == ["127.0.0.1"] * 2
    assert "secret-x" not in json.dumps(logs, default=str)


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_the_log_tells_whether_a_token_is_asked_for(token: str | None) -> None:
    with capture_logs() as logs:
        async with served(admin={"token": token}):
            pass
    (line,) = (line for line in logs if line["event"] == "admin_listening")
    assert Masker().fields(line)["guarded"] is (token is not None)


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
def test_no_others_are_let_in_without_a_token(host: str) -> None:
    with pytest.raises(ConfigurationError, match="open to others"):
        make_admin(Listener(FakeSource(), namespace=NAMESPACE), host=host)


# Hosts, paths, methods


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:9464", 200),
        ("cti-listener.example.com", 200),
        ("evil.example.com", 421),
        ("localhost.evil.example.com", 421),
        ("169.254.169.254", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/"])
async def test_only_names_of_ours_are_answered(host: str, status: int, path: str) -> None:
    async with served(admin={"hosts": ["cti-listener.example.com"]}) as it:
        assert status_of(await raw(it, asking(path, host=host))) == status


@pytest.mark.parametrize("more", ["Host: localhost\r\n", "Host: evil.example.com\r\n"])
async def test_a_request_of_two_hosts_is_refused(more: str) -> None:
    async with served() as it:
        assert status_of(await raw(it, asking("/metrics", more=more))) in {400, 421}


async def test_a_request_of_no_host_is_refused() -> None:
    async with served() as it:
        assert status_of(await raw(it, "GET /metrics HTTP/1.0\r\n\r\n")) == 421


@pytest.mark.parametrize(
    "path",
    [
        "//metrics",
        "/metrics/",
        "/./metrics",
        "/livez/../metrics",
        "/session/../metrics",
        "/%6detrics",
        "/metrics%00",
        "/livez%2f..%2fmetrics",
        "/livez;/metrics",
        "/livez/metrics",
        "/..//metrics",
        "\\metrics",
        "http://localhost/metrics",
        "/METRICS",
        "/page.html",
        "/../../../../etc/passwd",
        "/livez#/metrics",
    ],
)
async def test_no_way_leads_past_the_token(path: str) -> None:
    async with served(admin=WITH_TOKEN) as it:
        answer = await raw(it, asking(path))
        assert status_of(answer) in {400, 401, 404}
        assert "cti_listener_frames" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "LOCK"])
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/state", "/v1/events", "/"])
async def test_what_is_read_is_not_written(method: str, path: str) -> None:
    async with served() as it:
        answer = await raw(it, asking(path, method=method))
        assert status_of(answer) == 405
        assert "Allow: GET, HEAD" in answer


async def test_head_is_answered_without_a_body() -> None:
    async with served() as it:
        for path in ("/livez", "/metrics", "/v1/state", "/v1/events", "/"):
            head, _, body = (await raw(it, asking(path, method="HEAD"))).partition("\r\n\r\n")
            assert (status_of(head), body) == (200, "")


@pytest.mark.parametrize("query", ["?devices=8002", "?device=", "?event=@", "?device=1&x=1"])
async def test_a_filter_that_is_none_is_named(query: str) -> None:
    async with served() as it:
        status, body = await it.get(f"/v1/events{query}")
        assert (status, "filter" in body) == (400, True)


@pytest.mark.parametrize(
    "number", ["x", "-1", "1.5", "9" * 40, "١", "x-1", f"{'0' * 12}-", f"{'0' * 13}-1"]
)
async def test_an_id_that_is_none_of_ours_is_refused(number: str) -> None:
    async with served() as it:
        assert (await it.get("/v1/events", headers={"Last-Event-ID": number}))[0] == 400


# Headers


@pytest.mark.parametrize(
    "path", ["/livez", "/metrics", "/v1/state", "/v1/events", "/", "/nothing", "/session"]
)
async def test_every_answer_forbids_what_a_browser_might_do_with_it(path: str) -> None:
    async with served() as it:
        headers = {"Origin": "https://evil.example.com"}
        async with it.client.get(path, headers=headers) as answer:
            given = answer.headers
        policy = given["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "unsafe" not in policy
        assert given["X-Content-Type-Options"] == "nosniff"
        assert given["Cache-Control"] == "no-store"
        assert not [name for name in given if name.lower().startswith("access-control")]
        assert "aiohttp" not in given["Server"]


async def test_the_page_names_no_address_outside() -> None:
    async with served() as it:
        _, page = await it.get("/")
        assert "https://" not in page
        outside = page.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody fetches
        assert "http:" not in outside.replace("xmlns='http://www.w3.org/2000/svg'", "")


# Bounds


async def test_a_long_form_is_not_read() -> None:
    async with served(admin=WITH_TOKEN) as it:
        for data in (b"token=" + b"x" * MOST_BODY, chunks()):
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            async with it.client.post("/session", data=data, headers=headers) as answer:
                assert answer.status == 413


async def chunks() -> AsyncIterator[bytes]:
    """Yield a body whose length nobody tells beforehand."""
    yield b"token="
    for _ in range(100):
        yield b"x" * 1000


@pytest.mark.parametrize(
    "more", [f"X-Long: {'x' * 20_000}\r\n", "".join(f"X-{n}: 1\r\n" for n in range(500))]
)
async def test_long_heads_are_refused(more: str) -> None:
    async with served() as it:
        assert status_of(await raw(it, asking("/livez", more=more))) == 400


@pytest.mark.parametrize(
    "request_", ["BREW / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n", "GET / HTTP/9\r\n\r\n"]
)
async def test_what_is_no_http_is_told_nothing_about_us(request_: str) -> None:
    async with served() as it:
        answer = await raw(it, request_)
        assert status_of(answer) == 400
        assert "nosniff" in answer
        assert not [word for word in ("aiohttp", "Python", "BREW") if word in answer]


async def test_a_head_that_comes_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.connections.HEAD_TIMEOUT", 0.05)
    async with served() as it:
        for begun in ("", "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
            try:
                answer = await raw(it, begun)
            except ConnectionError:
                answer = ""
            assert answer == ""


async def test_a_form_that_comes_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.sessions.BODY_TIMEOUT", 0.05)
    async with served(admin=WITH_TOKEN) as it:
        more = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50\r\n"
        assert status_of(await raw(it, asking("/session", method="POST", more=more))) == 408


async def test_an_answer_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.connections.ANSWER_TIMEOUT", 0.05)
    async with served() as it:
        # Nothing is read beyond a byte, so the answers pile up until the server's side is full.
        _, writer = await asyncio.open_connection("127.0.0.1", it.admin.port, limit=1)
        door = it.admin._door  # noqa: SLF001 - whose side it is that ends it shows there
        await until(lambda: "Door 1 " in repr(door))
        async with asyncio.timeout(PATIENCE):
            while "Door 1 " in repr(door):
                writer.write(asking("/metrics").replace("close", "keep-alive").encode() * 100)
                await asyncio.sleep(0.01)
        writer.close()


@asynccontextmanager
async def crowd(
    it: Served, count: int, begun: str = "GET /livez HTTP/1.1\r\nHost: "
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Open so many connections, each of which sends the same and then keeps silent."""
    there = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.admin.port)
        writer.write(begun.encode())
        there.append((reader, writer))
    try:
        yield there
    finally:
        for _, writer in there:
            writer.close()


async def test_a_thousand_connections_are_bounded() -> None:
    with capture_logs() as logs:
        async with served() as it:
            door = it.admin._door  # noqa: SLF001 - who was cut off sees no more than a reset
            async with crowd(it, 1000):
                await until(lambda: door.refused == 1000 - MOST)
                assert repr(door) == f"<Door {MOST} connections, {1000 - MOST} refused>"
            await until(lambda: repr(door).startswith("<Door 0 connections"))
            assert (await it.get("/metrics"))[0] == 200
    said = [line for line in logs if line["event"] == "admin_crowded"]
    assert [(line["refused"], line["connections"]) for line in said] == [(1, MOST)]


@pytest.mark.parametrize("begun", ["", "GET /livez HTTP/1.1\r\nHost: "])
async def test_who_has_yet_to_ask_makes_room_for_who_asks(begun: str) -> None:
    """However many come meanwhile, and at whatever they stopped."""
    async with served() as it, crowd(it, MOST + RESERVED, begun) as there:
        for path in ("/livez", "/readyz", "/metrics", "/v1/state") * 5:
            assert status_of(await raw(it, asking(path))) == 200
        assert len(there) == MOST + RESERVED


async def test_who_asked_and_waits_to_ask_again_makes_room_too() -> None:
    asked = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served() as it, crowd(it, MOST + RESERVED, asked) as there:
        for reader, _ in there[-10:]:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert status_of(await raw(it, asking("/readyz"))) == 200
        assert status_of(await raw(it, asking("/metrics"))) == 200


async def test_who_has_yet_to_send_the_token_makes_room_too() -> None:
    """It has asked for something, but nobody can answer yet, and nobody knows who it is."""
    form = (
        "POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    )
    token = f"Authorization: Bearer {TOKEN}\r\n"
    async with (
        served(admin=WITH_TOKEN) as it,
        crowd(it, MOST + RESERVED, form),
        crowd(it, MOST, form),
    ):
        for path in ("/livez", "/readyz", "/metrics", "/v1/state") * 5:
            assert status_of(await raw(it, asking(path, more=token))) == 200


async def test_streams_are_not_cut_off_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.connections.MOST", 3)
    monkeypatch.setattr("cti_listener.admin.connections.RESERVED", 1)
    async with served() as it, reading(it.client) as stream, crowd(it, 20):
        assert (await stream.next()).name == "hello"
        assert status_of(await raw(it, asking("/livez"))) == 200
        event = make()
        it.source.send(event)
        assert (await stream.next()).data == event


async def test_how_many_found_no_room_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.connections.MOST", 1)
    monkeypatch.setattr("cti_listener.admin.connections.TELL", 0.05)
    with capture_logs() as logs:
        async with served() as it, crowd(it, 10):
            await until(lambda: sum(line.get("refused", 0) for line in logs) == 9)
    assert [line["refused"] for line in logs if line["event"] == "admin_crowded"] == [1, 8]


async def test_no_more_than_so_many_read_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.answers.MOST_READERS", 1)
    async with served() as it:
        async with it.client.get("/v1/events") as first:
            assert first.status == 200
            assert (await it.get("/v1/events"))[0] == 503
        await until(lambda: it.admin._answers.ring.readers == 0)  # noqa: SLF001 - it has left
        async with it.client.get("/v1/events") as again:
            assert again.status == 200


# Life


async def test_a_port_that_is_taken_is_said_so() -> None:
    listener = Listener(FakeSource(), namespace=NAMESPACE)
    (port,) = free_ports(1)
    async with make_admin(listener, port=port) as first:
        assert first.port == port
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            async with make_admin(listener, port=port):
                pass


async def test_a_reader_that_goes_at_once_is_no_bug() -> None:
    with capture_logs() as logs:
        async with served() as it:
            for turns in range(40):
                _, writer = await asyncio.open_connection("127.0.0.1", it.admin.port)
                writer.write(asking("/v1/events").encode())
                for _ in range(turns % 8):
                    await asyncio.sleep(0)
                writer.transport.abort()
            await until(lambda: repr(it.admin._door).startswith("<Door 0 connections"))  # noqa: SLF001 - as above
    assert [line for line in logs if line["event"] == "admin_failed"] == []


async def test_streams_end_with_the_listener() -> None:
    async with served() as it, it.client.get("/v1/events") as answer:
        await it.listener.stop()
        async with asyncio.timeout(PATIENCE):
            assert "event: bye" in (await answer.content.read()).decode()
        assert (await it.get("/v1/events"))[0] == 503
        assert (await it.get("/v1/state"))[0] == 200


async def test_it_closes_while_it_is_read() -> None:
    listener = Listener(FakeSource(), namespace=NAMESPACE)
    async with listener, aiohttp.ClientSession() as client:
        async with make_admin(listener) as admin:
            answer = await client.get(f"{admin.url}v1/events")
            assert answer.status == 200
        async with asyncio.timeout(PATIENCE):
            await answer.content.read()


async def test_its_repr_tells_how_it_stands() -> None:
    async with served() as it:
        assert isinstance(it.admin, AdminServer)
        assert (
            repr(it.admin)
            == "<AdminServer 127.0.0.1:0 <Door 0 connections, 0 refused> <Access open>>"
        )
