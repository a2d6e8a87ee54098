"""Who wants an event, and how few are looked at to find out."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from cti_listener.errors import HandlerError
from cti_listener.event_base import Event
from cti_listener.events import (
    AgentEvent,
    AgentReady,
    CallEvent,
    Delivered,
    Held,
    UnknownEvent,
    parse_event,
)
from cti_listener.notices import Connected, Gap, Notice
from cti_listener.router import Handler, Router, Wish, make_wish
from tests.examples import NAMESPACE, device_id, make, make_agent

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(eq=False)
class One:
    """Something to route to, that counts how often it was looked at."""

    wanted: Wish
    looked_at: int = 0
    seen: list[Any] = field(default_factory=list)

    @property
    def wish(self) -> Wish:
        self.looked_at += 1
        return self.wanted


def one(*kinds: Any, **filters: Any) -> One:
    return One(make_wish(kinds, namespace=NAMESPACE, **filters))


def routed(*ones: One) -> Router[One]:
    router: Router[One] = Router(Counter())
    for each in ones:
        router.add(each)
    return router


def matches(router: Router[One], raw: dict[str, Any]) -> list[One]:
    event = parse_event(raw)
    return list(router.match(event, event.device))


def gap(*devices: str) -> Gap:
    return Gap(
        at=NOW, id=1, since=NOW, until=NOW, reason="disconnected", devices=frozenset(devices)
    )


# What is asked for


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ((), {"held", "agentReady", "callEnd"}),
        ((Event,), {"held", "agentReady", "callEnd"}),
        ((Held,), {"held"}),
        (("held",), {"held"}),
        ((CallEvent,), {"held"}),
        ((AgentEvent, "held"), {"held", "agentReady"}),
        (("callEnd",), {"callEnd"}),
        ((UnknownEvent,), {"callEnd"}),
        ((UnknownEvent, "callEnd"), {"callEnd"}),
        ((Event, "callEnd", "held", Held), {"held", "agentReady", "callEnd"}),
        ((Delivered, "somethingElse"), set()),
        ((Notice,), set()),
    ],
)
@pytest.mark.parametrize("device", [None, "8002"])
def test_a_class_brings_all_below_it_and_a_name_itself_each_once(
    kinds: tuple[Any, ...], wanted: set[str], device: str | None
) -> None:
    router = routed(one(*kinds, device=device))
    events = {raw["eventName"]: raw for raw in (make("held"), make_agent(), make("callEnd"))}
    found = {name: len(matches(router, raw)) for name, raw in events.items()}
    assert found == {name: int(name in wanted) for name in events}


def test_filters_by_device_agent_attribute_and_predicate_all_hold() -> None:
    by_device = one(device="8002")
    by_agent = one(AgentReady, agent="5002")
    by_call = one(call_id="c1")
    own = one(own_device=True)
    other = one(Delivered, own_device=False)
    by_where = one(where=lambda event: event.serial == 7)
    router = routed(by_device, by_agent, by_call, own, other, by_where)

    def found(raw: dict[str, Any]) -> set[One]:
        return set(matches(router, raw))

    assert found(make(device=8002, alertingDevice=device_id(8002))) == {by_device, own}
    assert found(make(device=8003, alertingDevice=device_id(8002), callId="c1")) == {by_call, other}
    assert found(make_agent(agent=5002, device=8004)) == {by_agent, own}
    assert found(make_agent(agent=5003, device=8004, serial=7)) == {own, by_where}


def test_none_means_any() -> None:
    router = routed(one(call_id=None, own_device=None))
    assert len(matches(router, make())) == 1


def test_a_predicate_that_fails_says_no_and_is_logged() -> None:
    def failing(_: Event) -> bool:
        raise ZeroDivisionError

    good, bad = one(where=lambda _: 1), one(where=failing)
    with capture_logs() as logs:
        assert matches(routed(bad, good), make()) == [good]
    assert [entry["event"] for entry in logs] == ["filter_failed"]


@pytest.mark.parametrize(
    ("kinds", "filters", "words"),
    [
        ((int,), {}, "neither an event class nor an event name"),
        ((print,), {}, "a decorator needs its brackets"),
        ((Delivered,), {"colour": "red"}, "no attribute 'colour' in Delivered"),
        ((Connected,), {"own_device": True}, "no attribute 'own_device' in Connected"),
    ],
)
def test_what_can_never_match_is_refused(kinds: Any, filters: dict[str, Any], words: str) -> None:
    with pytest.raises(HandlerError, match=words):
        one(*kinds, **filters)


async def coroutine_function(_: object) -> bool:
    return False


class Asks:
    async def __call__(self, _: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (coroutine_function, "where: is a coroutine function, .* plain 'def'"),
        (functools.partial(coroutine_function), "where: is a coroutine function"),
        (Asks(), "where: is a coroutine function"),
        (7, "where: 7 cannot be called"),
    ],
)
def test_a_predicate_that_cannot_be_asked_is_refused(where: Any, words: str) -> None:
    with pytest.raises(HandlerError, match=words):
        one(where=where)


@pytest.mark.parametrize("half", ["8002@", "@zhen04.cc", "@", "", " "])
@pytest.mark.parametrize("what", ["device", "agent"])
def test_half_an_id_is_refused(what: str, half: str) -> None:
    with pytest.raises(HandlerError) as raised:
        one(AgentReady, **{what: half})
    assert raised.value.what == what


# Notices


def test_notices_reach_those_who_asked_and_whom_they_concern() -> None:
    every, here, there, deaf = one(Gap), one(Notice, device="8001"), one(Gap, device="8002"), one()
    router = routed(every, here, there, deaf)
    assert list(router.match_notice(gap())) == [every, here, there]
    assert list(router.match_notice(gap(device_id(8002)))) == [every, there]
    router.discard(there)
    assert list(router.match_notice(gap(device_id(8002)))) == [every]


def test_the_finer_filters_hold_for_notices_too() -> None:
    ours, theirs = one(Gap, reason="disconnected"), one(Gap, where=lambda gap: gap.id == 2)
    assert list(routed(ours, theirs).match_notice(gap())) == [ours]


# What it costs


def test_only_the_handlers_of_the_device_and_of_any_device_are_looked_at() -> None:
    elsewhere = [one(Delivered, device=str(number)) for number in range(10_000)]
    other_kinds = [one(Held) for _ in range(1000)]
    here, anywhere = one(Delivered, device="8002"), one(Delivered)
    router = routed(*elsewhere[:8000], *elsewhere[8003:], *other_kinds, here, anywhere)
    everybody = (*elsewhere, *other_kinds, here, anywhere)
    for each in everybody:
        each.looked_at = 0
    assert matches(router, make("delivered", 8002)) == [anywhere, here]
    assert {each for each in everybody if each.looked_at} == {anywhere, here}


def test_what_is_discarded_leaves_nothing_behind() -> None:
    ones = [one(device=str(number)) for number in range(100)] + [one(), one("callEnd")]
    router = routed(*ones)
    assert list(router) == ones
    for each in ones:
        router.discard(each)
        router.discard(each)  # not an error
    assert list(router) == []
    assert (router._anywhere, router._by_device) == ({}, {})  # noqa: SLF001 - is anything kept?


# Limits of a handler


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"timeout": 0}, "timeout"),
        ({"lane_size": 0}, "lane_size"),
        ({"order": "random"}, "order"),
        ({"overflow": "explode"}, "overflow"),
    ],
)
def test_limits_that_cannot_work_are_refused_by_name(limits: Any, what: str) -> None:
    async def run(_: object) -> None:
        pass

    with pytest.raises(HandlerError) as raised:
        Handler(name="h", wish=make_wish((), namespace=None), run=run, **limits)
    assert raised.value.what == what
