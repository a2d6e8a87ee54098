"""Who gets an event: seats, routing keys, topic patterns, filters."""

from __future__ import annotations

from typing import Any

import pytest

from cti_listener.simulator.topics import JsonFilter, Route, Seating, destination, topic_matches

NS = "zhen04.cc"


def agent_event(name: str, agent: int, device: int) -> dict[str, Any]:
    return {
        "eventName": name,
        "eventType": "agent",
        "namespace": NS,
        "srcDeviceId": f"{device}@{NS}",
        "agentId": f"{agent}@{NS}",
    }


def call_event(device: int) -> dict[str, Any]:
    return {
        "eventName": "held",
        "eventType": "csta",
        "namespace": NS,
        "srcDeviceId": f"{device}@{NS}",
    }


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("event.agent.*.*", True),
        ("event.agent.csta.5002@zhen04_cc", True),
        ("event.agent.*.5002@zhen04_cc", True),
        ("event.#", True),
        ("#", True),
        ("#.5002@zhen04_cc", True),
        ("event.#.csta.#", True),
        ("event.agent.csta.#.5002@zhen04_cc", True),
        ("event.agent.*.5003@zhen04_cc", False),
        ("event.agent.*", False),
        ("event.agent.*.*.*", False),
        ("event.agent.agent.*", False),
        ("", False),
        ("*", False),
    ],
)
def test_patterns_match_as_a_broker_does(pattern: str, matches: bool) -> None:  # noqa: FBT001
    words = ["event", "agent", "csta", "5002@zhen04_cc"]
    assert topic_matches(pattern.split("."), words) is matches


def test_events_go_to_the_agent_who_sits_at_their_device() -> None:
    seating = Seating()
    assert seating.route(call_event(8002)).key == "event.agent.csta.8002@zhen04_cc"
    on = seating.route(agent_event("agentLoggedOn", 5002, 8002))
    assert on.key == "event.agent.agent.5002@zhen04_cc"
    assert seating.route(call_event(8002)).key == "event.agent.csta.5002@zhen04_cc"


def test_an_agent_who_moves_takes_the_events_along() -> None:
    seating = Seating()
    seating.route(agent_event("agentLoggedOn", 5002, 8002))
    seating.route(agent_event("agentLoggedOn", 5002, 8003))
    assert seating.route(call_event(8002)).last_agent is None
    assert seating.route(call_event(8003)).agent == "5002@zhen04.cc"


def test_a_seat_that_is_left_is_the_devices_own_until_somebody_sits_down() -> None:
    seating = Seating()
    seating.route(agent_event("agentLoggedOn", 5002, 8002))
    seating.route(agent_event("agentLoggedOff", 5002, 8002))
    assert seating.route(call_event(8002)) == Route(
        NS, "csta", "8002@zhen04.cc", None, "5002@zhen04.cc"
    )
    seating.route(agent_event("agentLoggedOn", 5003, 8002))
    assert seating.route(call_event(8002)).agent == "5003@zhen04.cc"
    seating.route(agent_event("agentLoggedOff", 5002, 8002))  # late
    assert seating.route(call_event(8002)).agent == "5003@zhen04.cc"


def test_events_that_say_little_have_a_route_all_the_same() -> None:
    assert Seating().route({}) == Route("", "csta", "", None, None)
    assert Seating().route({"eventType": "agent"}).key == "event.agent.agent."


@pytest.mark.parametrize("text", ["/queue/a", "/topic/", "", "/exchange/a/b", "event.agent.*.*"])
def test_other_kinds_of_destination_are_none(text: str) -> None:
    assert destination(text) is None


def test_the_older_destination_takes_the_id_as_it_is() -> None:
    wanted = destination("/topic/csta/agent/5002@zhen04.cc")
    assert wanted is not None
    seated = Route(NS, "csta", "8002@zhen04.cc", "5002@zhen04.cc", "5002@zhen04.cc")
    assert wanted(seated)
    assert not wanted(seated._replace(agent="5003@zhen04.cc"))


@pytest.mark.parametrize(
    ("query", "wants"),
    [
        ("", True),
        ("namespace=zhen04.cc", True),
        ("namespace=other.cc", False),
        ("namespace=other.cc&namespace=zhen04.cc", True),
        ("device=8002@zhen04.cc", True),
        ("namespace=zhen04.cc&device=8002", True),
        ("device=8001@zhen04.cc", False),
        ("device=8001@zhen04.cc&device=8002@zhen04.cc", True),
        ("agent=5002@zhen04.cc", True),
        ("device=8001@zhen04.cc&agent=5002@zhen04.cc", True),
        ("agent=5001@zhen04.cc", False),
        ("namespace=other.cc&device=8002@zhen04.cc", False),
        ("unknown=1", True),
    ],
)
def test_a_url_asks_for_a_union_within_its_namespaces(
    query: str,
    wants: bool,  # noqa: FBT001 - a table of cases
) -> None:
    route = Route(NS, "csta", "8002@zhen04.cc", None, "5002@zhen04.cc")
    assert JsonFilter.read(f"/events?{query}").wants(route) is wants
