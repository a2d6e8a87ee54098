"""Each scenario tells each device what the table "What happens in which order" says, and no other.

The expectations are the table's rows, written by hand as regular expressions over what one device
hears. S is the main agent of a call and T whom it talks to; where three take part B hands over or
calls together, C is the second agent, A the party that was there first, D one who joins later. The
party that an event is about stands behind a slash.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cti_listener.events import CATALOGUE, parse_event
from cti_listener.simulator.parties import Agent, Cast, Step, outside_number
from cti_listener.simulator.scenarios import FAILURES, FOLLOW_UPS, SCENARIOS, Scenario

NAMESPACE = "zhen04.cc"
ALL = {**SCENARIOS, **FOLLOW_UPS}
ABOUT = {
    "delivered": "alertingDevice",
    "established": "answeringDevice",
    "connectionCleared": "releasingDevice",
    "held": "holdingDevice",
    "retrieved": "retrievingDevice",
    "transferred": "transferredToDevice",
    "conferenced": "addedParty",
}
SHORT = {"serviceInitiated": "offhook", "connectionCleared": "cleared"}

# Two parties

OUT = "offhook originated( delivered/T)?"
OWN_AND_FAR = "(cleared/S cleared/T|cleared/T cleared/S)"
FAR_AND_OWN = "(cleared/T cleared/S|cleared/S cleared/T)"
S_TALKS = f"({OUT} established/T{{0}} {OWN_AND_FAR}|delivered/S established/S{{0}} cleared/S)"
T_TALKS = (
    "(delivered/T established/T{0} cleared/T"
    f"|offhook originated( delivered/S)? established/S{{0}} {FAR_AND_OWN})"
)
HOLDS = "( held/S retrieved/S| held/T retrieved/T){1,2}"
READY_OR_NOT = "(agentReady|agentNotReady)"

# Three parties

TWO_LEFT = "((cleared/A cleared/{0}|cleared/{0} cleared/A)|cleared/{1})"

JOINS = "delivered/C established/C conferenced/C"
D_CAME_AND_WENT = "( delivered/D established/D conferenced/D cleared/D)?"

B_TALKS = "(offhook originated( delivered/A)? established/A|delivered/B established/B)"
A_TALKS = "(offhook originated( delivered/B)? established/B|delivered/A established/A)"
B_CONSULTS = "held/B offhook originated( delivered/C)? established/C"
C_IS_CONSULTED = "delivered/C established/C"

EXPECTED: dict[str, dict[str, str]] = {
    # log on: agentLoggedOn, then agentReady or agentNotReady
    "log_on": {"S": f"agentLoggedOn {READY_OR_NOT}"},
    # log off: agentLoggedOff
    "log_off": {"S": "agentLoggedOff"},
    # after a call: agentWorkingAfterCall, then agentReady or agentNotReady
    "after_call": {"S": f"agentWorkingAfterCall {READY_OR_NOT}"},
    "come_back": {"S": "agentReady"},
    # S calls out by hand: serviceInitiated, originated, [delivered], [established],
    # connectionCleared twice (own and the far end's, either order)
    "call_out": {
        "S": f"{OUT} established/T {OWN_AND_FAR}",
        "T": "delivered/T established/T cleared/T",
    },
    "call_out_unanswered": {"S": f"{OUT} {OWN_AND_FAR}", "T": "delivered/T cleared/T"},
    # call recognition on, call fails: failed, between delivered and connectionCleared
    "call_failed": {"S": f"offhook originated delivered/T failed {OWN_AND_FAR}"},
    # S is called: delivered, [established], connectionCleared
    "call_in": {"S": "delivered/S established/S cleared/S"},
    "call_in_unanswered": {"S": "delivered/S cleared/S"},
    "call_in_rejected": {"S": "delivered/S cleared/S"},
    "call_in_abandoned": {"S": "delivered/S cleared/S"},
    # predictive dialling: agentAllocated; then delivered, established ... or agentReady again
    "predictive_won": {"S": "agentAllocated delivered/S established/S cleared/S"},
    "predictive_lost": {"S": "agentAllocated agentReady"},
    # hold, retrieve: held, retrieved, to every device in the call
    "hold": {"S": S_TALKS.format(HOLDS), "T": T_TALKS.format(HOLDS)},
    # recording: recordStarted, recordStopped
    "recording": {
        "S": f"{S_TALKS.format(' recordStarted')} recordStopped"
        f"|{S_TALKS.format(' recordStarted recordStopped')}"
    },
    # single-step transfer, B hands A to C
    "single_step_transfer": {
        "A": f"{A_TALKS} delivered/C transferred/C cleared/B established/C transferred/C"
        f"( transferred/C)? {TWO_LEFT.format('C', 'A')}",
        "B": f"{B_TALKS}( delivered/C)? transferred/C cleared/B",
        "C": "delivered/C transferred/C cleared/B established/C cleared/C",
    },
    # consult: B holds A on C1, calls C on C2, then transfers
    "consult_transfer": {
        "A": f"{A_TALKS} held/B transferred/C cleared/B {TWO_LEFT.format('C', 'A')}",
        "B": f"{B_TALKS} {B_CONSULTS} transferred/C cleared/B cleared/B",
        "C": f"{C_IS_CONSULTED} transferred/C cleared/B cleared/B cleared/C",
    },
    # consult, then cancel: B and C: connectionCleared (C2); B: retrieved (C1)
    "consult_cancel": {
        "A": f"{A_TALKS} held/B retrieved/B {TWO_LEFT.format('B', 'A')}",
        "B": f"{B_TALKS} held/B offhook originated( delivered/C)?( established/C)? cleared/B"
        " retrieved/B (cleared/B|cleared/A cleared/B|cleared/B cleared/A)",
        "C": "delivered/C( established/C)? cleared/C",
    },
    # conference, B leaves first: everyone is dropped, B gets one connectionCleared
    "conference_host_first": {
        "A": f"{A_TALKS} held/B conferenced/C{D_CAME_AND_WENT} cleared/B cleared/A",
        "B": f"{B_TALKS} {B_CONSULTS} conferenced/C{D_CAME_AND_WENT} cleared/B",
        "C": f"{C_IS_CONSULTED} conferenced/C{D_CAME_AND_WENT} cleared/B cleared/C",
        "D": "delivered/D established/D conferenced/D cleared/D",
    },
    # C leaves first: B gets C's, then its own
    "conference_guest_then_host": {
        "A": f"{A_TALKS} held/B conferenced/C{D_CAME_AND_WENT} cleared/C cleared/B cleared/A",
        "B": f"{B_TALKS} {B_CONSULTS} conferenced/C{D_CAME_AND_WENT} cleared/C cleared/B",
        "C": f"{C_IS_CONSULTED} conferenced/C{D_CAME_AND_WENT} cleared/C",
        "D": "delivered/D established/D conferenced/D cleared/D",
    },
    # C then A: B gets three, the last its own
    "conference_guest_then_other": {
        "A": f"{A_TALKS} held/B conferenced/C{D_CAME_AND_WENT} cleared/C cleared/A",
        "B": f"{B_TALKS} {B_CONSULTS} conferenced/C{D_CAME_AND_WENT} cleared/C cleared/A cleared/B",
        "C": f"{C_IS_CONSULTED} conferenced/C{D_CAME_AND_WENT} cleared/C",
        "D": "delivered/D established/D conferenced/D cleared/D",
    },
    # single-step conference: every device in it, the third included: delivered, established,
    # conferenced
    "single_step_conference": {
        "A": f"{A_TALKS} {JOINS}"
        " (cleared/B cleared/A|cleared/C cleared/B cleared/A|cleared/C cleared/A)",
        "B": f"{B_TALKS} {JOINS} (cleared/B|cleared/C cleared/B|cleared/C cleared/A cleared/B)",
        "C": f"{JOINS} (cleared/B cleared/C|cleared/C)",
    },
}

casts = st.tuples(st.integers(0, 2**32), st.integers(0, 3))
"""A seed, and how many more agents than the fewest take part."""


def play(scenario: Scenario, seed: int, more: int) -> tuple[Cast, list[Step]]:
    rng = random.Random(seed)
    size = min(scenario.fewest + more, scenario.most)
    agents = tuple(Agent(f"{5001 + n}@{NAMESPACE}", f"{8001 + n}@{NAMESPACE}") for n in range(size))
    cast = Cast(
        rng=rng,
        namespace=NAMESPACE,
        agents=agents,
        outside=outside_number(rng, NAMESPACE),
        queue=f"7000@{NAMESPACE}",
    )
    return cast, list(scenario.play(cast))


def roles(scenario: Scenario, cast: Cast) -> dict[str, str]:
    letters = "BCAD" if scenario.fewest > 1 else "ST"
    count = max(len(cast.agents), min(len(letters), 3))
    return {cast.device(index): letter for index, letter in enumerate(letters[:count])}


def heard(steps: list[Step], device: str, who: dict[str, str]) -> str:
    words = []
    for step in steps:
        if step.device == device:
            word = SHORT.get(step.name, step.name)
            field = ABOUT.get(step.name)
            words.append(f"{word}/{who[step.fields[field]]}" if field else word)
    return " ".join(words)


def happenings(steps: list[Step]) -> Iterator[list[Step]]:
    """Gather the copies of each happening."""
    copies: list[Step] = []
    for step in steps:
        if copies and step.fields is not copies[0].fields:
            yield copies
            copies = []
        copies.append(step)
    yield copies


def test_every_scenario_is_in_the_table() -> None:
    assert set(EXPECTED) == set(ALL)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(cast_of=casts)
def test_each_device_hears_what_the_table_says(name: str, cast_of: tuple[int, int]) -> None:
    cast, steps = play(ALL[name], *cast_of)
    who = roles(ALL[name], cast)
    for agent in cast.agents:
        expected = EXPECTED[name][who[agent.device]]
        assert re.fullmatch(expected, heard(steps, agent.device, who)), who[agent.device]


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(cast_of=casts)
def test_outside_parties_hear_nothing_and_every_agent_something(
    name: str, cast_of: tuple[int, int]
) -> None:
    cast, steps = play(ALL[name], *cast_of)
    assert {step.device for step in steps} == cast.devices


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(cast_of=casts)
def test_steps_are_events_of_the_catalogue_and_tell_whose_they_are(
    name: str, cast_of: tuple[int, int]
) -> None:
    _, steps = play(ALL[name], *cast_of)
    for step in steps:
        kind = "agent" if step.name.startswith("agent") else "csta"
        event = parse_event(
            {"eventName": step.name, "eventType": kind, "srcDeviceId": step.device, **step.fields}
        )
        assert type(event) is CATALOGUE[step.name]
        assert not set(event.model_extra or {}), "fields that the models do not know"
        about = step.fields.get(ABOUT.get(step.name, ""))
        if step.name in ("delivered", "established", "connectionCleared", "held", "retrieved"):
            assert event.own_device is (about == step.device)
        if "connectionId" in step.fields:
            fields = step.fields
            assert fields["connectionId"] == f"{fields['deviceId']}|{fields['callId']}"


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(cast_of=casts)
def test_copies_of_one_happening_come_together(name: str, cast_of: tuple[int, int]) -> None:
    _, steps = play(ALL[name], *cast_of)
    for copies in happenings(steps):
        assert len({copy.device for copy in copies}) == len(copies)
        assert [copy.delay for copy in copies[1:]] == [0.0] * (len(copies) - 1)


@pytest.mark.parametrize(
    ("name", "role", "variants"),
    [
        ("log_on", "S", ["agentReady", "agentNotReady"]),
        ("call_out", "S", ["originated established", "originated delivered/T"]),
        ("call_out", "S", ["cleared/S cleared/T", "cleared/T cleared/S"]),
        ("call_out_unanswered", "S", ["originated cleared", "delivered/T cleared"]),
        ("hold", "S", ["held/S", "held/T"]),
        ("recording", "S", ["cleared/S recordStopped", "recordStopped cleared"]),
        ("single_step_transfer", "A", ["transferred/C cleared/A", "transferred/C transferred/C"]),
        ("single_step_transfer", "B", ["delivered/C transferred", "established/A transferred"]),
        ("consult_cancel", "B", ["delivered/C cleared/B", "established/C cleared/B"]),
        ("consult_cancel", "C", ["delivered/C cleared", "established/C cleared"]),
        ("conference_host_first", "A", ["conferenced/D", "conferenced/C cleared"]),
        (
            "single_step_conference",
            "B",
            ["conferenced/C cleared/B", "cleared/C cleared/B", "cleared/C cleared/A cleared/B"],
        ),
    ],
)
def test_what_may_be_absent_or_the_other_way_round_is_at_times(
    name: str, role: str, variants: list[str]
) -> None:
    found = set()
    for seed in range(60):
        cast, steps = play(ALL[name], seed, seed % 3)
        who = roles(ALL[name], cast)
        device = next(device for device, letter in who.items() if letter == role)
        found.add(heard(steps, device, who))
    for variant in variants:
        assert any(variant in one for one in found), variant


# Ids


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_transfer_after_consultation_makes_the_held_call_the_new_one(
    cast_of: tuple[int, int],
) -> None:
    cast, steps = play(SCENARIOS["consult_transfer"], *cast_of)
    b, c = cast.device(0), cast.device(1)
    first = next(step for step in steps if step.name == "transferred")
    held, consulted = first.fields["callId"], first.fields["secondaryOldCall"]
    assert first.fields["primaryOldCall"] == first.fields["newCall"] == held != consulted
    assert first.fields["transferredToDevice"] == c
    at = steps.index(first)
    assert {s.fields["callId"] for s in steps[:at] if s.device == c} == {consulted}
    assert {s.fields["callId"] for s in steps[at:] if s.device == c} == {held}
    ends = [s.fields["callId"] for s in steps[at:] if s.device == b]
    assert ends == [held, held, consulted]


@settings(max_examples=40)
@given(cast_of=casts)
def test_the_held_party_sees_nothing_of_the_consultation(cast_of: tuple[int, int]) -> None:
    for name in ("consult_transfer", "consult_cancel", "conference_host_first"):
        cast, steps = play(SCENARIOS[name], *cast_of)
        calls = {step.fields["callId"] for step in steps if step.device == cast.device(2)}
        assert len(calls) <= 1


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_consultation_names_the_call_it_is_about(cast_of: tuple[int, int]) -> None:
    cast, steps = play(SCENARIOS["consult_cancel"], *cast_of)
    held = next(step for step in steps if step.name == "held").fields["callId"]
    ringing = next(s for s in steps if s.name == "delivered" and s.device == cast.device(1))
    assert ringing.fields["originalCallId"] == held != ringing.fields["callId"]
    assert ringing.fields["userData"]["data"]["originalCallId"] == held


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_conference_merges_the_consultation_into_the_held_call(cast_of: tuple[int, int]) -> None:
    _, steps = play(SCENARIOS["conference_guest_then_host"], *cast_of)
    held = next(step for step in steps if step.name == "held").fields["callId"]
    first = next(step for step in steps if step.name == "conferenced")
    merged = first.fields["secondaryOldCall"]
    assert (
        first.fields["callId"] == first.fields["newCall"] == first.fields["primaryOldCall"] == held
    )
    assert merged != held
    after = steps[steps.index(first) :]
    assert {step.fields["callId"] for step in after} == {held}


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_single_step_hand_over_has_one_call_and_none_held(cast_of: tuple[int, int]) -> None:
    for name in ("single_step_transfer", "single_step_conference"):
        _, steps = play(SCENARIOS[name], *cast_of)
        (call_id,) = {step.fields["callId"] for step in steps}
        for step in steps:
            if step.name in ("transferred", "conferenced"):
                assert step.fields["primaryOldCall"] == "0"
                assert step.fields["secondaryOldCall"] == step.fields["newCall"] == call_id


# What else they say


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_failure_says_what_was_heard(cast_of: tuple[int, int]) -> None:
    _, steps = play(SCENARIOS["call_failed"], *cast_of)
    failed = next(step.fields for step in steps if step.name == "failed")
    assert (failed["failedMsg"], failed["cause"]) == FAILURES[failed["failedCode"]]
    ends = [step.fields["cause"] for step in steps if step.name == "connectionCleared"]
    assert ends == [failed["cause"]] * 2


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("call_in", "NORMAL_CLEARING"),
        ("call_in_unanswered", "NO_ANSWER"),
        ("call_in_rejected", "CALL_REJECTED"),
        ("call_in_abandoned", "ORIGINATOR_CANCEL"),
    ],
)
def test_a_hang_up_says_why(name: str, cause: str) -> None:
    _, steps = play(SCENARIOS[name], 1, 0)
    assert steps[-1].fields["cause"] == cause


def test_who_hung_up_is_told_unless_the_switch_did() -> None:
    for name, by in (("call_in_rejected", "S"), ("call_in_abandoned", "T")):
        cast, steps = play(SCENARIOS[name], 1, 0)
        who = roles(SCENARIOS[name], cast)
        assert who[steps[-1].fields["hangupDevice"]] == by
    _, steps = play(SCENARIOS["call_in_unanswered"], 1, 0)
    assert "hangupDevice" not in steps[-1].fields


@settings(max_examples=40)
@given(cast_of=casts)
def test_a_recording_has_one_id_and_a_file_named_for_its_call(cast_of: tuple[int, int]) -> None:
    cast, steps = play(SCENARIOS["recording"], *cast_of)
    start = next(step.fields for step in steps if step.name == "recordStarted")
    stop = next(step.fields for step in steps if step.name == "recordStopped")
    assert start["recordId"] == stop["recordId"]
    assert stop == {"recordId": start["recordId"], "isSuccess": True}
    (call_id,) = {s.fields["callId"] for s in steps if "callId" in s.fields}
    device = cast.agent.device
    assert start["fileName"] == (
        f"/mnt/volumes/recordings//{NAMESPACE}/{{now:%Y/%m%d}}/{device}/{{now:%Y%m%d%H%M%S}}_{call_id}.wav"
    )


def test_an_inbound_call_carries_what_the_catalogue_shows() -> None:
    for seed in range(20):
        cast, steps = play(SCENARIOS["call_in"], seed, 0)
        fields = steps[0].fields
        if "split" in fields:
            break
    data = fields["userData"]["data"]
    assert fields["callType"] == "Inbound"
    assert fields["callingDevice"] == data["originalANI"] == cast.outside
    assert fields["calledDevice"] == data["originalDNIS"] == cast.agent.device
    assert data["originalCallId"] == fields["callId"]
    assert fields["origin_dnis"] == data["origin_dnis"]
    assert fields["split"] == cast.queue


def test_a_predictive_call_is_won_or_given_up_after_about_150_seconds() -> None:
    _, lost = play(SCENARIOS["predictive_lost"], 1, 0)
    assert sum(step.delay for step in lost) == pytest.approx(150, abs=2)


@given(st.integers(0, 2**32))
def test_outside_numbers_are_mobile_and_nobodys(seed: int) -> None:
    number = outside_number(random.Random(seed), NAMESPACE)
    assert re.fullmatch(r"1[3-9]\d(\*{4}|0000)\d{4}@zhen04\.cc", number)


@given(st.integers(0, 2**32))
def test_call_ids_are_random_uuids(seed: int) -> None:
    cast, _ = play(SCENARIOS["call_in"], seed, 0)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", cast.new_id()
    )
