"""`check --connect`: the way to a server, step by step, to real servers and none."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from cti_listener.interest import Interest
from cti_listener.ops.connecting import Connecting
from cti_listener.ops.exits import ExitCode
from cti_listener.simulator import Faults, SimulatorServer
from cti_listener.sources.endpoints import Endpoints
from cti_listener.sources.options import ConnectionOptions, Credentials
from cti_listener.values import china
from cti_listener.wire.stomp_frames import Frame, encode
from tests.examples import make
from tests.program import run
from tests.servers import free_ports
from tests.sources.receiver import tcp_server, url_of
from tests.sources.test_proxy import proxy_server, talk_http

EVERYBODY = "/topic/event.agent.*.*"
SHORT: Final[dict[str, Any]] = {"open_timeout": 0.3, "receipt_timeout": 0.2, "close_timeout": 0.2}


class Way:
    """What was said of the ways gone."""

    def __init__(self, code: ExitCode, lines: list[str]) -> None:
        self.code = code
        self.lines = lines
        # Without the times, which differ.
        self.steps = [re.sub(r"^  (\S+) +(?:\d+ ms)? +", r"\1: ", line) for line in lines]

    @property
    def names(self) -> list[str]:
        return [step.partition(":")[0] for step in self.steps[1:]]


async def go(
    *urls: str,
    seconds: float = 0.2,
    interest: Interest | None = None,
    wire: Any = "auto",
    auth: Credentials | None = None,
    **options: Any,
) -> Way:
    lines: list[str] = []
    made = ConnectionOptions(**{"proxy": None, **options})
    connecting = Connecting(
        Endpoints(urls, wire, auth, made, "a", china()),
        made,
        interest or Interest("zhen04.cc"),
        seconds=seconds,
        say=lines.append,
    )
    code = await connecting.check()
    return Way(code, lines)


@asynccontextmanager
async def stomp_server(
    talk: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[str]:
    async with serve(talk, "127.0.0.1", 0, subprotocols=[Subprotocol("v12.stomp")]) as server:
        yield url_of(server, "/stomp")


class TestSound:
    async def test_each_step_over_stomp_has_its_line_and_its_time(self) -> None:
        events = [(0.0, make("held", 8002, serial=n)) for n in range(1, 8)]
        async with SimulatorServer(centre=events, speed=0, await_subscriber=True) as server:
            way = await go(server.stomp_url)
            port = server.port
        assert way.code is ExitCode.OK
        assert way.steps == [
            f"ws://127.0.0.1:{port}/mvc/stomp/websocket",
            "DNS: 127.0.0.1: 127.0.0.1",
            f"TCP: 127.0.0.1 port {port}",
            "handshake: STOMP, v12.stomp",
            "CONNECT: cti-simulator; heart-beats every 10 s, wanted every 10 s",
            f"SUBSCRIBE: {EVERYBODY}: confirmed by a RECEIPT",
            f"events: 7 by {EVERYBODY}, 7 of them asked for",
        ]
        assert all(re.match(r"  \S+ +\d+ ms  ", line) for line in way.lines[1:-1])

    async def test_each_step_over_json(self) -> None:
        events = [(0.0, make("held", 8002, serial=1))]
        async with SimulatorServer(centre=events, speed=0, await_subscriber=True) as server:
            way = await go(server.json_url)
        assert way.code is ExitCode.OK
        assert way.steps[-2:] == [
            "handshake: JSON, no sub-protocol",
            "events: 1 by this connection, 1 of them asked for",
        ]

    async def test_what_subscribes_over_json_is_sent_and_never_shown(self) -> None:
        heard: list[str | bytes] = []

        async def talk(session: ServerConnection) -> None:
            heard.append(await session.recv())
            await session.wait_closed()

        async with serve(talk, "127.0.0.1", 0) as server:
            way = await go(url_of(server), subscribe=['{"token":"CANARY"}'])
        assert heard == ['{"token":"CANARY"}']
        assert "SUBSCRIBE: asked for; over JSON nothing confirms it" in way.steps
        assert "CANARY" not in str(way.lines)

    async def test_what_came_for_others_only_is_told_apart(self) -> None:
        events = [(0.0, make("held", 8002, serial=1))]
        async with SimulatorServer(centre=events, speed=0, await_subscriber=True) as server:
            way = await go(server.stomp_url, interest=Interest("zhen04.cc", ["8009"]))
        assert way.code is ExitCode.OK
        assert way.steps[-1] == (
            f"events: 1 by {EVERYBODY}, none of them asked for; are --ns, --device, --agent right?"
        )

    async def test_a_server_without_receipts_and_events_is_sound_and_told(self) -> None:
        async with SimulatorServer(faults=Faults(no_receipts=True)) as server:
            way = await go(server.stomp_url, **SHORT)
        assert way.code is ExitCode.OK
        assert way.steps[-2:] == [
            f"SUBSCRIBE: {EVERYBODY}: no RECEIPT in time (receipt_timeout), so not confirmed",
            f"events: none by {EVERYBODY} in 0.2 s; quiet, or not the right one? See --topic",
        ]

    async def test_messages_that_are_none_are_counted(self) -> None:
        async def talk(session: ServerConnection) -> None:
            await session.send("nonsense")
            await session.send(json.dumps(make("held", 8002, serial=1)))
            await session.wait_closed()

        async with serve(talk, "127.0.0.1", 0) as server:
            way = await go(url_of(server))
        assert way.steps[-1] == "events: 1 messages were no events: not_json"

    async def test_heart_beats_are_sent_for_as_long_as_is_listened(self) -> None:
        async with SimulatorServer(heartbeat=(250, 250)) as server:
            way = await go(server.stomp_url, seconds=1.5, heartbeat_send=0.25)
        assert way.code is ExitCode.OK

    async def test_the_certificate_is_told(self) -> None:
        authority = trustme.CA(organization_name="Ours")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        with authority.cert_pem.tempfile() as ca_file:
            async with SimulatorServer(ssl_context=context) as server:
                way = await go(server.stomp_url, ca_file=ca_file)
        assert way.code is ExitCode.OK
        (told,) = (step for step in way.steps if step.startswith("TLS: "))
        assert re.fullmatch(
            r"TLS: TLSv1\.3; for localhost, 127\.0\.0\.1 \(.*\), by Ours, .*,"
            r" from \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d, for \d+ days more",
            told,
        )

    async def test_a_proxy_is_named_without_its_password(self) -> None:
        async with SimulatorServer() as server, proxy_server(talk_http) as proxy:
            way = await go(server.stomp_url, proxy=f"http://me:CANARY@{proxy.address}")
        assert way.code is ExitCode.OK
        assert way.lines[1].split() == ["proxy", f"http://{proxy.address}"]
        assert way.names[1] == "handshake"
        assert "CANARY" not in str(way.lines)


class TestFailing:
    async def test_a_port_where_nothing_listens(self) -> None:
        (port,) = free_ports(1)
        way = await go(f"ws://127.0.0.1:{port}/x")
        assert way.code is ExitCode.UNREACHABLE
        assert way.names == ["DNS", "TCP"]
        assert way.steps[-1] == (
            "TCP: FAILED: nothing listens on that port; is the server up, and the port right?"
        )

    async def test_a_name_that_is_none(self) -> None:
        way = await go("ws://cti.invalid/x")
        assert way.code is ExitCode.UNREACHABLE
        assert way.steps[-1].startswith(
            "DNS: FAILED: the host name cti.invalid cannot be resolved: "
        )
        assert way.steps[-1].endswith("is it written right, and does DNS work here?")

    async def test_a_certificate_that_nobody_vouches_for(self) -> None:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        both = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
        with trustme.Blob(both).tempfile() as path:
            context.load_cert_chain(path)
        async with SimulatorServer(ssl_context=context) as server:
            way = await go(server.stomp_url)
        assert way.code is ExitCode.REFUSED
        assert way.names == ["DNS", "TCP", "TLS"]
        assert way.steps[-1].startswith("TLS: FAILED: its certificate is self-signed")

    async def test_a_login_that_is_refused(self) -> None:
        async with SimulatorServer(credentials=("me", "right")) as server:
            auth = Credentials(login="me", passcode="CANARY")
            way = await go(server.stomp_url, auth=auth)
        assert way.code is ExitCode.REFUSED
        assert way.names[-2:] == ["handshake", "CONNECT"]
        assert re.search(r"FAILED: .*Access refused.*; are login and passcode right", way.steps[-1])
        assert "CANARY" not in str(way.lines)

    async def test_a_session_that_is_refused_in_the_handshake(self) -> None:
        async with SimulatorServer(token="right") as server:
            way = await go(server.json_url, auth=Credentials(token="CANARY"))
        assert way.code is ExitCode.REFUSED
        assert way.steps[-1].startswith("handshake: FAILED: HTTP 401: who are you?")

    async def test_a_destination_that_is_refused_ends_the_way_with_its_name(self) -> None:
        topics = ["/topic/event.agent.*.*", "/topic/no"]
        async with SimulatorServer(refuse=["/topic/no"]) as server:
            way = await go(server.stomp_url, topics=topics)
        assert way.code is ExitCode.REFUSED
        assert way.steps[-1].startswith("SUBSCRIBE: FAILED: /topic/no is refused: ")
        assert way.steps[-1].endswith("is it the right one? See --topic")

    async def test_a_server_that_takes_the_connection_and_never_answers(self) -> None:
        async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with tcp_server(mute) as url:
            way = await go(url, **SHORT)
        assert way.code is ExitCode.UNREACHABLE
        assert way.names == ["DNS", "TCP", "handshake"]
        assert "FAILED: no answer in time (open_timeout)" in way.steps[-1]

    async def test_a_server_that_never_answers_tls(self) -> None:
        async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with tcp_server(mute) as url:
            way = await go(url.replace("ws:", "wss:"), **SHORT)
        assert (way.code, way.names[-1]) == (ExitCode.UNREACHABLE, "TLS")

    async def test_a_server_that_never_answers_connect(self) -> None:
        async with stomp_server(ServerConnection.wait_closed) as url:
            way = await go(url, **SHORT)
        assert (way.code, way.names[-1]) == (ExitCode.UNREACHABLE, "CONNECT")
        assert "the server took CONNECT and did not answer in time" in way.steps[-1]

    async def test_a_connection_that_is_cut_while_events_are_counted(self) -> None:
        async def talk(session: ServerConnection) -> None:
            await session.recv()
            await session.send(encode(Frame("CONNECTED", {"version": "1.2"})), text=True)
            receipt = re.search(r"receipt:(\S+)", await session.recv(decode=True))
            assert receipt
            await session.send(encode(Frame("RECEIPT", {"receipt-id": receipt[1]})), text=True)
            await session.close(1001)

        async with stomp_server(talk) as url:
            way = await go(url, seconds=30)
        assert way.code is ExitCode.UNREACHABLE
        assert way.steps[-1] == (
            "events: FAILED: the connection was closed by the server, with code 1001"
        )

    async def test_every_way_is_gone_and_the_first_that_fails_decides(self) -> None:
        (port,) = free_ports(1)
        async with SimulatorServer(token="right") as server:
            urls = [f"ws://127.0.0.1:{port}/x", server.json_url, "ws://cti.invalid/x"]
            way = await go(*urls)
        assert way.code is ExitCode.UNREACHABLE
        assert [line for line in way.lines if not line.startswith(" ")] == urls
        assert sum("FAILED" in line for line in way.lines) == 3

    async def test_a_file_that_cannot_be_used(self) -> None:
        async with SimulatorServer() as server:
            url = server.stomp_url.replace("ws:", "wss:")
            way = await go(url, ca_file="/nowhere.pem")
        assert way.code is ExitCode.CONFIGURATION
        assert way.steps[-1].startswith("TLS: FAILED: ca_file: cannot be read: /nowhere.pem")


class TestProgram:
    def test_goes_the_way_to_the_demo(self) -> None:
        done = run("check", "--connect", "--demo", "--duration", "0.5")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"(?m)^  SUBSCRIBE +\d+ ms  /topic/\S+: confirmed", done.stdout)
        assert re.search(r"(?m)^  events .* of them asked for$", done.stdout)

    def test_secrets_are_masked_and_the_code_is_that_of_the_failure(self) -> None:
        done = run(
            "check",
            *("--connect", "--ns", "zhen04.cc"),
            CTI_URL="ws://me:CANARY-1@127.0.0.1:9/x?token=CANARY-2",
            CTI_TOKEN="CANARY-3",
        )
        assert (done.returncode, done.stderr) == (69, "")
        assert done.stdout.startswith("ws://127.0.0.1:9/x\n")
        assert "CANARY" not in done.stdout

    def test_wrong_settings_are_told_and_nothing_is_tried(self) -> None:
        done = run("check", "--connect", CTI_WIRE="stmp")
        assert (done.returncode, done.stdout) == (78, "")
        assert "CTI_WIRE" in done.stderr
