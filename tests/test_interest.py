"""Who was asked for: ids, seats, and how the same wish is written on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.errors import ConfigurationError
from cti_listener.interest import Interest, Seat
from cti_listener.values import routing_key

NS = "zhen04.cc"


def agent(name: str, agent_id: Any, device: str, second: int = 0) -> dict[str, Any]:
    return {
        "eventName": name,
        "eventType": "agent",
        "namespace": NS,
        "agentId": agent_id,
        "srcDeviceId": f"{device}@{NS}",
        "eventTime": f"2024.05.01 12:00:{second:02}",
    }


def call(device: str, namespace: str = NS) -> dict[str, Any]:
    return {
        "eventName": "held",
        "eventType": "csta",
        "namespace": namespace,
        "srcDeviceId": f"{device}@{namespace}",
    }


def wants(interest: Interest, payload: dict[str, Any], destination: str | None = None) -> bool:
    return interest.wants(payload, routing_key(payload), destination)


def log_on(interest: Interest, agent_id: str, device: str, second: int = 0) -> bool:
    return wants(interest, agent("agentLoggedOn", f"{agent_id}@{NS}", device, second))


# What was asked for


def test_a_short_id_is_completed_and_a_doubled_domain_collapses() -> None:
    interest = Interest(NS, ["8002", " 8003 ", "8004@x.cc", f"8005@{NS}@{NS}"], ["5002"])
    assert interest.devices == {f"8002@{NS}", f"8003@{NS}", "8004@x.cc", f"8005@{NS}"}
    assert interest.agents == {f"5002@{NS}"}


@pytest.mark.parametrize("ids", [["8002"], [""], [" "]])
def test_a_short_id_without_a_namespace_is_refused(ids: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"device: .*short id"):
        Interest(None, ids)
    with pytest.raises(ConfigurationError, match=r"agent: .*short id"):
        Interest(None, [], ids)


@pytest.mark.parametrize("odd", ["80\x0002", "80\n02", "80\ud83d02@a.cc"])
def test_an_id_that_no_wire_could_carry_is_refused(odd: str) -> None:
    interest = Interest(NS, ["8002"])
    for devices, agents in (([odd], []), ([], [odd])):
        with pytest.raises(ConfigurationError, match="that no id has"):
            Interest(NS, devices, agents)
        with pytest.raises(ConfigurationError, match="that no id has"):
            interest.add(devices, agents)
    assert interest.asked.devices == {f"8002@{NS}"}
    assert not interest.asked.agents


def test_nobody_in_particular_means_the_whole_namespace() -> None:
    interest = Interest(NS)
    assert interest.everybody
    assert wants(interest, call("1"))
    assert wants(interest, {"eventName": "x"})
    assert not wants(interest, call("1", "other.cc"))
    assert wants(Interest(None), call("1", "other.cc"))


def test_a_device_is_wanted_by_its_routing_key_alone() -> None:
    interest = Interest(NS, ["8002"])
    assert wants(interest, call("8002"))
    assert not wants(interest, {**call("8003"), "deviceId": f"8002@{NS}"})
    assert not wants(interest, call("8002", "other.cc"))
    assert wants(interest, agent("agentReady", f"5009@{NS}", "8002"))
    assert not wants(interest, {"eventName": "x"})


@given(
    st.sets(st.sampled_from("1234"), max_size=3),
    st.lists(st.sampled_from("123456"), max_size=20),
)
def test_exactly_the_devices_asked_for_pass(asked: set[str], coming: list[str]) -> None:
    interest = Interest(NS, asked)
    passed = [one for one in coming if wants(interest, call(one))]
    assert passed == [one for one in coming if one in asked or not asked]


# Agents


def test_an_agent_brings_the_calls_of_the_device_it_sits_at() -> None:
    interest = Interest(NS, agents=["5002"])
    assert not wants(interest, call("8002"))
    assert log_on(interest, "5002", "8002")
    assert wants(interest, call("8002"))
    assert not wants(interest, call("8003"))
    assert not log_on(interest, "5003", "8003")


def test_any_event_of_an_agent_tells_where_it_sits() -> None:
    interest = Interest(NS, agents=["5002"])
    assert wants(interest, agent("agentReady", f"5002@{NS}", "8002"))
    assert wants(interest, call("8002"))


def test_an_agent_that_moves_takes_its_wish_along() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    log_on(interest, "5002", "8005", 9)
    assert wants(interest, call("8005"))
    assert not wants(interest, call("8002"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2026.05.01 9:59:59", "2026.05.01 10:00:01"),
        ("2026.9.30 12:00:00", "2026.10.01 12:00:00"),
        ("2026.05.01 09:59:59", "2026-05-01 10:00:01"),
    ],
)
def test_times_that_are_written_otherwise_are_compared_as_times(before: str, after: str) -> None:
    interest = Interest(NS, agents=["5002"])
    for device, time in (("8002", before), ("8005", after), ("8002", before)):
        wants(interest, agent("agentReady", f"5002@{NS}", device) | {"eventTime": time})
    assert wants(interest, call("8005"))
    assert not wants(interest, call("8002"))


def test_a_late_or_repeated_log_on_moves_nobody_back() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    log_on(interest, "5002", "8005", 9)
    assert log_on(interest, "5002", "8002", 1)
    assert wants(interest, agent("agentReady", f"5002@{NS}", "8002", 2))
    assert wants(interest, call("8005"))
    assert not wants(interest, call("8002"))


def test_within_one_second_only_a_log_on_moves_anybody() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    wants(interest, agent("agentReady", f"5002@{NS}", "8005", 1))
    assert not wants(interest, call("8005"))
    log_on(interest, "5002", "8005", 1)
    assert wants(interest, call("8005"))
    assert not wants(interest, call("8002"))


def test_the_last_hang_ups_after_a_log_off_still_come() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    assert wants(interest, agent("agentLoggedOff", f"5002@{NS}", "8002", 5))
    assert wants(interest, call("8002"))


def test_a_seat_taken_by_another_is_no_longer_the_agents() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    wants(interest, agent("agentLoggedOff", f"5002@{NS}", "8002", 5))
    assert not log_on(interest, "5009", "8002", 6)
    assert not wants(interest, call("8002"))
    log_on(interest, "5002", "8002", 9)
    assert wants(interest, call("8002"))


def test_a_late_event_of_the_one_who_sat_there_before_frees_no_seat() -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 5)
    assert wants(interest, agent("agentReady", f"5009@{NS}", "8002", 3))
    assert wants(interest, agent("agentLoggedOff", f"5009@{NS}", "8002", 6))
    assert wants(interest, call("8002"))


@pytest.mark.parametrize("nobody", [None, "", [], {}])
def test_an_agent_event_that_names_no_agent_frees_no_seat(nobody: object) -> None:
    interest = Interest(NS, agents=["5002"])
    log_on(interest, "5002", "8002", 1)
    assert not wants(interest, agent("agentReady", nobody, "8003", 5))
    wants(interest, agent("agentReady", nobody, "8002", 5))
    assert wants(interest, call("8002"))


def test_who_is_asked_for_no_longer_leaves_the_seat_to_the_one_who_sits_there_now() -> None:
    interest = Interest(NS, agents=["5002", "5003"])
    log_on(interest, "5002", "8002", 1)
    wants(interest, agent("agentLoggedOff", f"5002@{NS}", "8002", 5))
    log_on(interest, "5003", "8002", 6)
    interest.remove([], ["5002"])
    assert wants(interest, call("8002"))


def test_two_asked_agents_may_share_a_seat_in_turn() -> None:
    interest = Interest(NS, agents=["5002", "5003"])
    log_on(interest, "5002", "8002", 1)
    log_on(interest, "5003", "8002", 5)
    assert wants(interest, call("8002"))
    log_on(interest, "5002", "8004", 6)
    assert wants(interest, call("8002"))
    assert wants(interest, call("8004"))
    log_on(interest, "5003", "8005", 7)
    assert not wants(interest, call("8002"))


def test_a_short_agent_id_on_the_wire_is_completed_with_its_own_namespace() -> None:
    interest = Interest(None, agents=[f"5002@{NS}"])
    assert wants(interest, agent("agentLoggedOn", "5002", "8002"))
    assert wants(interest, agent("agentReady", 5002, "8002", 1))
    assert wants(interest, call("8002"))
    assert not Interest("other.cc", agents=["5002"]).wants(
        agent("agentLoggedOn", "5002", "8002"), f"8002@{NS}", None
    )


def test_what_comes_by_an_asked_agents_destination_passes() -> None:
    interest = Interest(NS, agents=["5002"])
    (destination,) = interest.destinations(())
    assert not wants(interest, call("8009"), "/topic/event.agent.*.*")
    assert wants(interest, call("8009"), destination)
    assert wants(interest, call("8009"), "/topic/event.agent.*.*"), "it tells where the agent sits"


def test_a_union_of_devices_and_agents_passes_either() -> None:
    interest = Interest(NS, ["8001"], ["5002"])
    log_on(interest, "5002", "8002")
    assert [wants(interest, call(one)) for one in ("8001", "8002", "8003")] == [True, True, False]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123"), st.integers(0, 59))))
def test_the_seat_is_where_the_latest_log_on_was_in_whatever_order_they_come(
    moves: list[tuple[str, str, int]],
) -> None:
    interest = Interest(NS, agents=["a"])
    mine = sorted({(second, device) for who, device, second in moves if who == "a"})
    if len({second for second, _ in mine}) < len(mine):
        mine = []
    for _, device, second in [one for one in moves if one[0] == "a"] if mine else []:
        log_on(interest, "a", device, second)
    for device in "123":
        assert wants(interest, call(device)) == bool(mine and mine[-1][1] == device)


# Adding and removing


def test_what_is_added_passes_and_what_is_removed_does_not() -> None:
    interest = Interest(NS, ["8001"])
    interest.add(["8002"], ["5002"])
    log_on(interest, "5002", "8007")
    assert wants(interest, call("8002"))
    assert wants(interest, call("8007"))
    interest.remove(["8001"], ["5002"])
    assert not wants(interest, call("8001"))
    assert not wants(interest, call("8007"))


def test_what_was_wanted_is_still_if_its_device_is_and_no_agent_was_asked_for() -> None:
    interest = Interest(NS)
    assert interest.wants_still(f"8002@{NS}")
    assert interest.wants_still(None)
    interest.add(["8002"], [])
    assert interest.wants_still(f"8002@{NS}")
    assert not interest.wants_still(f"8003@{NS}")
    assert not interest.wants_still(None)
    interest.add([], ["5002"])
    assert not interest.wants_still(f"8002@{NS}")
    interest.remove([], ["5002"])
    assert interest.wants_still(f"8002@{NS}")


def test_removing_what_was_not_asked_for_or_everything_is_refused() -> None:
    interest = Interest(NS, ["8001"])
    with pytest.raises(ConfigurationError, match=r"8002@zhen04\.cc was not asked for"):
        interest.remove(["8002"], [])
    with pytest.raises(ConfigurationError, match="nobody would be left"):
        interest.remove(["8001"], [])
    assert interest.devices == {f"8001@{NS}"}


def test_taking_a_change_back_leaves_what_others_changed_since() -> None:
    interest = Interest(NS, ["8001", "8002"], ["5001"])
    before = interest.asked
    interest.add(["8003"], ["5002"])
    interest.remove(["8001"], [])
    after = interest.asked
    interest.add(["8004"], [])
    interest.remove([], ["5001"])
    interest.undo(before, after)
    assert interest.devices == {f"{one}@{NS}" for one in ("8001", "8002", "8004")}
    assert interest.agents == set()


def test_adding_a_bad_id_adds_nothing() -> None:
    interest = Interest(None, ["1@a.cc"])
    with pytest.raises(ConfigurationError):
        interest.add(["2@a.cc"], ["5"])
    assert (interest.devices, interest.agents) == ({"1@a.cc"}, set())


@pytest.mark.parametrize(
    ("interest", "included"),
    [
        (Interest(NS), True),
        (Interest(None), True),
        (Interest("other.cc"), False),
        (Interest("other.cc", [f"1@{NS}"]), True),
        (Interest("other.cc", [], [f"1@{NS}"]), True),
        (Interest("other.cc", ["1"]), False),
    ],
)
def test_what_befalls_a_namespace_befalls_whoever_is_in_it(
    interest: Interest,
    included: bool,  # noqa: FBT001
) -> None:
    assert interest.includes_namespace(NS) is included


def untimed(name: str, agent_id: str, device: str) -> dict[str, Any]:
    return {**agent(name, f"{agent_id}@{NS}", device), "eventTime": "2017/03/18"}


def test_where_a_time_is_none_only_a_log_on_moves_anybody() -> None:
    interest = Interest(NS, agents=["5002"])
    wants(interest, untimed("agentLoggedOn", "5002", "8001"))
    log_on(interest, "5002", "8002", 5)
    for other in ("5002", "5009"):
        wants(interest, untimed("agentReady", other, "8001" if other == "5002" else "8002"))
    assert (wants(interest, call("8001")), wants(interest, call("8002"))) == (False, True)
    wants(interest, untimed("agentLoggedOn", "5002", "8003"))
    assert (wants(interest, call("8002")), wants(interest, call("8003"))) == (False, True)
    wants(interest, untimed("agentLoggedOn", "5009", "8003"))
    assert not wants(interest, call("8003"))


def test_a_time_days_ahead_pins_nobody() -> None:
    interest = Interest(NS, agents=["5002"])
    ahead = {"eventTime": "2999.01.01 00:00:00"}
    wants(interest, {**agent("agentLoggedOn", f"5002@{NS}", "8001"), **ahead})
    assert wants(interest, call("8001"))
    wants(interest, agent("agentReady", f"5002@{NS}", "8002"))
    assert (wants(interest, call("8001")), wants(interest, call("8002"))) == (False, True)


def test_where_no_time_is_one_the_latest_to_arrive_counts() -> None:
    interest = Interest(NS, agents=["5002"])
    wants(interest, untimed("agentLoggedOn", "5002", "8001"))
    wants(interest, untimed("agentReady", "5002", "8002"))
    assert (wants(interest, call("8001")), wants(interest, call("8002"))) == (False, True)
    wants(interest, untimed("agentReady", "5009", "8002"))
    assert not wants(interest, call("8002"))


PLACES = st.tuples(
    st.sampled_from(["5001", "5002", "5003"]),
    st.sampled_from(["8001", "8002", "8003"]),
    st.sampled_from(["agentLoggedOn", "agentReady", "agentLoggedOff"]),
)


@given(st.lists(PLACES, max_size=12), st.lists(PLACES, max_size=12))
def test_seats_that_are_kept_are_those_that_were_known(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]]
) -> None:
    kept: dict[str, Seat] = {}

    def seated(who: str, seat: Seat | None) -> None:
        kept.pop(who, None)
        if seat is not None:
            kept[who] = seat

    went_on = Interest(NS, agents=["5001", "5002"])
    went_on.seated = seated
    for second, (who, device, name) in enumerate(before):
        wants(went_on, agent(name, f"{who}@{NS}", device, second))
    resumed = Interest(NS, agents=["5001", "5002"])
    resumed.resume(kept)
    for second, (who, device, name) in enumerate(after, len(before)):
        for other in ("8001", "8002", "8003"):
            assert wants(resumed, call(other)) == wants(went_on, call(other))
        event = agent(name, f"{who}@{NS}", device, second)
        assert wants(resumed, event) == wants(went_on, event)


def test_a_seat_of_an_agent_who_is_not_asked_for_any_more_is_forgotten() -> None:
    told: list[tuple[str, Seat | None]] = []
    interest = Interest(NS, agents=["5002"])
    interest.seated = lambda who, seat: told.append((who, seat))
    interest.resume({f"5001@{NS}": (f"8001@{NS}", ""), f"5002@{NS}": (f"8002@{NS}", "")})
    assert told == [(f"5001@{NS}", None)]
    assert not wants(interest, call("8001"))
    assert wants(interest, call("8002"))
    interest.add([], ["5003"])
    interest.remove([], ["5002"])
    assert told[1:] == []
    interest.free_seats()
    assert told[1:] == [(f"5002@{NS}", None)]
    assert not wants(interest, call("8002"))


# On the wire


def test_the_default_destinations_are_the_documented_ones() -> None:
    assert Interest(NS, agents=["5002", "5003"]).destinations(()) == [
        "/topic/event.agent.*.5002@zhen04_cc",
        "/topic/event.agent.*.5003@zhen04_cc",
    ]
    everybody = ["/topic/event.agent.*.*"]
    assert Interest(NS).destinations(()) == everybody
    assert Interest(NS, ["8002"]).destinations(()) == everybody
    assert Interest(NS, ["8002"], ["5002"]).destinations(()) == [
        "/topic/event.agent.*.5002@zhen04_cc",
        *everybody,
    ]


def test_templates_are_filled_in_for_each_id_and_each_destination_comes_once() -> None:
    interest = Interest(NS, ["8002", "8001"], ["5002"])
    assert interest.destinations(
        [
            "/topic/csta/agent/{agent}",
            "/topic/{device_}.{namespace_}",
            "/topic/{namespace}",
            "/topic/{namespace}",
            "/topic/all",
        ]
    ) == [
        "/topic/csta/agent/5002@zhen04.cc",
        "/topic/8001@zhen04_cc.zhen04_cc",
        "/topic/8002@zhen04_cc.zhen04_cc",
        "/topic/zhen04.cc",
        "/topic/all",
    ]
    assert interest.expand("{agent}:{device}") == [
        f"5002@{NS}:8001@{NS}",
        f"5002@{NS}:8002@{NS}",
    ]


def test_a_template_that_names_nobody_asked_for_gives_nothing() -> None:
    assert Interest(NS).destinations(["/topic/{agent}", "/topic/x"]) == ["/topic/x"]


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("/topic/{agnet}.*", "template '/topic/{agnet}.*': "),
        ("token=s3cret&d={device}&a={agnet}", "template '...{device}...{agnet}...': "),
        ('{"token": "s3cret", "to": "{agnet}"}', "template '...{agnet}...': "),
    ],
)
def test_a_wrong_template_is_shown_but_for_what_may_be_secret(template: str, shown: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Interest(NS, ["1"], ["2"]).expand(template)
    assert str(raised.value).startswith(shown)


@pytest.mark.parametrize("template", ["/topic/{agnet}", "{device__}", "{Agent}", "{_}"])
def test_a_placeholder_nobody_knows_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match=r"knows \{agent\}, \{device\}, \{namespace\}"):
        Interest(NS, ["1"], ["2"]).expand(template)


def test_a_namespace_that_is_not_known_cannot_be_filled_in() -> None:
    with pytest.raises(ConfigurationError, match="needs a namespace"):
        Interest(None).expand("/topic/{namespace_}")


def test_a_json_message_may_hold_braces_of_its_own() -> None:
    template = '{"subscribe": {}, "to": {"device": "{device}"}}'
    assert Interest(NS, ["8002"]).expand(template) == [
        '{"subscribe": {}, "to": {"device": "8002@zhen04.cc"}}'
    ]


def test_the_query_repeats_keys_and_leaves_out_whom_nobody_asked_for() -> None:
    template = "namespace={namespace}&device={device}&agent={agent}&v=2"
    assert Interest(NS, ["8002", "8001"]).query(template) == (
        "namespace=zhen04.cc&device=8001@zhen04.cc&device=8002@zhen04.cc&v=2"
    )
    assert Interest(NS).query(template) == "namespace=zhen04.cc&v=2"
    assert Interest(None, [], ["5 &=@a.cc"]).query(template) == "agent=5%20%26%3D@a.cc&v=2"
    assert Interest(NS).query("") == ""
    with pytest.raises(ConfigurationError):
        Interest(NS).query("x={y}")


def test_whose_events_a_destination_brings_is_told_where_that_cannot_change() -> None:
    interest = Interest(NS, ["8001"], ["5002"])
    log_on(interest, "5002", "8002")
    by_agent = "/topic/event.agent.*.5002@zhen04_cc"
    assert interest.devices_of(by_agent) == frozenset()  # who knows where the agent sits down next
    assert interest.devices_of("/topic/8001@zhen04.cc") == {f"8001@{NS}"}
    assert interest.devices_of("/topic/event.agent.*.*") == frozenset()


def test_it_tells_whom_it_is_about() -> None:
    assert repr(Interest(NS, ["8002"], ["5002"])) == (
        "<Interest 8002@zhen04.cc, 5002@zhen04.cc in zhen04.cc>"
    )
    assert repr(Interest(None)) == "<Interest everybody in any namespace>"
