"""The listener against RabbitMQ with Web-STOMP, which is what production's relay stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cti_listener.errors import RefusedError
from cti_listener.event_base import Event
from cti_listener.events import Delivered
from cti_listener.listener import Listener
from cti_listener.notices import Connected, Gap, SubscriptionRefused
from cti_listener.sources.options import Credentials
from tests.examples import EXAMPLES, NAMESPACE, make, make_agent
from tests.publisher import publisher
from tests.rabbitmq import LOGIN, PASSCODE, Broker, rabbitmq

pytestmark = pytest.mark.server

PATIENCE = 30.0
EVERYBODY = "/topic/event.agent.*.*"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    async with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


def listening_to(broker: Broker, **options: Any) -> Listener:
    return Listener(
        broker.url,
        namespace=NAMESPACE,
        auth=Credentials(login=LOGIN, passcode=PASSCODE),
        proxy=None,
        **options,
    )


async def test_the_default_topic_of_everybody_brings_typed_events(broker: Broker) -> None:
    listener = listening_to(broker)
    async with listener, publisher(broker) as server, listener.events(Event) as events:
        for name in ("agentLoggedOn", "established", "connectionCleared"):
            await server.publish(EXAMPLES[name])
            async with asyncio.timeout(PATIENCE):
                event = await anext(aiter(events))
            assert type(event).__name__ == name[0].upper() + name[1:]
            assert event.as_received() == EXAMPLES[name]
        assert listener.stats().gaps == ()


async def test_an_agents_default_topic_brings_that_agents_events_alone(broker: Broker) -> None:
    listener = listening_to(broker, agents=["5002"])
    connected: list[Connected] = []

    @listener.on(Connected)
    async def keep(notice: Connected) -> None:
        connected.append(notice)

    async with listener, publisher(broker) as server, listener.events(Event) as events:
        mine = [
            make_agent("agentLoggedOn", 5002, 8002),
            make("delivered", 8002),
            make("held", 8002),
        ]
        for event in mine:
            await server.publish(make("held", 8003), agent="5003")
            await server.publish(event, agent="5002")
        async with asyncio.timeout(PATIENCE):
            received = [(await anext(aiter(events))).as_received() for _ in mine]
        assert received == mine
        stats = listener.stats()
        assert (stats.received, stats.not_asked_for) == (3, 0)
    assert [notice.confirmed for notice in connected] == [True]


async def test_a_broker_killed_and_started_again_is_heard_again_with_one_gap_between(
    broker: Broker,
) -> None:
    listener = listening_to(broker)
    told: list[object] = []

    @listener.on(Delivered, Gap, device="8002")
    async def keep(happening: Delivered | Gap) -> None:
        told.append(happening.serial if isinstance(happening, Delivered) else happening.reason)

    before, after = make("delivered", 8002), make("delivered", 8002)
    async with listener:
        async with publisher(broker) as server, listener.expect(Delivered, timeout=PATIENCE):
            await server.publish(before)
        async with listener.expect(Connected, timeout=PATIENCE):
            await broker.kill()
            await broker.start()
        async with publisher(broker) as server, listener.expect(Delivered, timeout=PATIENCE):
            await server.publish(after)
        assert await listener.stop() == []

    assert told == [before["serial"], "disconnected", after["serial"]]
    (gap,) = listener.stats().gaps
    assert gap.until is not None
    assert gap.since < gap.until
    assert gap.last_before is not None
    assert gap.first_after is not None
    assert (gap.last_before.serial, gap.first_after.serial) == (before["serial"], after["serial"])


@pytest.mark.parametrize("bad_first", [True, False])
async def test_an_invalid_destination_is_refused_by_name_and_the_other_lives(
    broker: Broker, *, bad_first: bool
) -> None:
    topics = ["/nowhere/at.all", EVERYBODY]
    listener = listening_to(broker, topics=topics if bad_first else topics[::-1])
    async with listener.expect(SubscriptionRefused, timeout=PATIENCE) as refused, listener:
        async with publisher(broker) as server, listener.expect(Delivered, timeout=PATIENCE):
            await server.publish(make("delivered"))
        await refused.seen()
        (gap,) = listener.stats().gaps
        assert (gap.reason, gap.destination, gap.until) == ("refused", "/nowhere/at.all", None)
        assert listener.stats().connected
    assert refused.event.destination == "/nowhere/at.all"
    assert refused.event.detail


async def test_a_wrong_passcode_ends_the_run_with_the_brokers_reason(broker: Broker) -> None:
    listener = Listener(
        broker.url,
        namespace=NAMESPACE,
        auth=Credentials(login=LOGIN, passcode="wrong"),
        proxy=None,
    )
    with pytest.raises(RefusedError, match=r"Bad CONNECT|Access refused|denied") as raised:
        await asyncio.wait_for(listener.run(), PATIENCE)
    assert "wrong" not in str(raised.value)
