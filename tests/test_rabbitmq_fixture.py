"""The broker other tests run against does what they take for granted, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.rabbitmq import LOGIN, PASSCODE, Broker, processes, rabbitmq
from tests.servers import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    async with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running
    assert await asyncio.to_thread(processes, running.home) == []


def frame(command: str, body: str = "", **headers: str) -> str:
    lines = [command, *(f"{name.replace('_', '-')}:{value}" for name, value in headers.items())]
    return "\n".join([*lines, "", body]) + "\0"


async def received(client: ClientConnection) -> str:
    """The next frame, past heart-beats."""
    while not (message := str(await client.recv()).strip("\n")):
        pass
    return message


async def read_to_the_end(client: ClientConnection) -> None:
    while True:
        await client.recv()


@asynccontextmanager
async def session(broker: Broker) -> AsyncIterator[ClientConnection]:
    protocols = [Subprotocol("v12.stomp")]
    async with connect(broker.url, subprotocols=protocols, proxy=None) as client:
        await client.send(
            frame("CONNECT", accept_version="1.2", host="/", login=LOGIN, passcode=PASSCODE)
        )
        assert (await received(client)).startswith("CONNECTED\n")
        yield client


async def subscribe(client: ClientConnection) -> None:
    await client.send(
        frame("SUBSCRIBE", id="0", destination="/topic/event.agent.*.*", receipt="subscribed")
    )
    answer = await received(client)
    assert answer.startswith("RECEIPT\n")
    assert "receipt-id:subscribed" in answer


async def publish_and_receive(client: ClientConnection, body: str) -> None:
    await client.send(frame("SEND", body, destination="/topic/event.agent.csta.5002@zhen04_cc"))
    message = await received(client)
    assert message.startswith("MESSAGE\n")
    assert message.rstrip("\0").endswith(f"\n\n{body}")


async def test_what_is_sent_to_an_agents_topic_reaches_who_subscribed_to_everybody(
    broker: Broker,
) -> None:
    async with session(broker) as client:
        await subscribe(client)
        await publish_and_receive(client, '{"eventName":"delivered"}')


async def test_a_killed_broker_drops_its_clients_and_serves_again_on_the_same_address(
    broker: Broker,
) -> None:
    url = broker.url
    async with session(broker) as client:
        await subscribe(client)
        await broker.kill()
        with pytest.raises(ConnectionClosed):
            await read_to_the_end(client)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", urlsplit(url).port)

    await broker.start()

    assert broker.url == url
    async with session(broker) as client:
        await subscribe(client)
        await publish_and_receive(client, '{"eventName":"established"}')


async def test_a_stopped_broker_says_goodbye_and_can_be_started_again(broker: Broker) -> None:
    async with session(broker) as client:
        await broker.stop()
        with pytest.raises(ConnectionClosed):
            await read_to_the_end(client)

    await broker.start()

    async with session(broker):
        pass


async def test_a_test_cancelled_while_the_broker_starts_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), rabbitmq(tmp_path):
            pytest.fail("it cannot be up yet")
    assert await asyncio.to_thread(processes, tmp_path / "rabbitmq") == []


async def test_a_server_not_on_the_machine_skips_or_fails_where_servers_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.rabbitmq.SCRIPT", tmp_path / "absent")

    monkeypatch.delenv("CTI_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="rabbitmq-server is not on this machine"):
        async with rabbitmq(tmp_path):
            pytest.fail("there is no broker to run")

    monkeypatch.setenv("CTI_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="rabbitmq-server is not on this machine"):
        async with rabbitmq(tmp_path):
            pytest.skip("there is no broker to run")


def test_free_ports_are_distinct_and_out_of_the_reach_of_outgoing_connections() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert max(ports) < int(limits.split()[0])
