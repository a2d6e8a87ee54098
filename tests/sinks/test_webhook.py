"""Webhooks against a real receiver that fails in every way: nothing lost, in order, verified."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import ssl
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme

from cti_listener import ConfigurationError, Event, Gap, Listener
from cti_listener.errors import SinkAwayError, SinkError
from cti_listener.events import parse_event
from cti_listener.sinks.making import make_outlets
from cti_listener.sinks.patience import MOST
from cti_listener.sinks.running import attach, opened
from cti_listener.sinks.webhook import WebhookSink
from cti_listener.testing import FakeSource
from tests.examples import make
from tests.sinks.receiver import KEY, OTHER_KEY, Answer, Receiver, receiving, verifying
from tests.sinks.support import HastyClock, listening, options
from tests.turns import until

DEVICES = 5

TROUBLE = (
    Answer(status=500),
    Answer(status=502),
    Answer(status=503, headers={"Retry-After": "3"}),
    Answer(status=429, headers={"Retry-After": "2"}),
    Answer(status=408),
    Answer(cut="before"),
    Answer(cut="within"),
    Answer(stall=True),
    Answer(status=307, headers={"Location": "/elsewhere"}),
    Answer(status=404),
    Answer(status=401),
    Answer(status=101, headers={"Upgrade": "surprise", "Connection": "upgrade"}),
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    return file


async def opened_sink(receiver: Receiver, **given: Any) -> WebhookSink:
    made = partial(WebhookSink, receiver.url, name="hook", options=options(**given))
    sink = await asyncio.to_thread(made)
    await sink.open()
    return sink


def spread(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return events of several devices."""
    return [make(serial=n, device=8000 + n % DEVICES) for n in range(first, first + count)]


def in_order(receiver: Receiver) -> bool:
    """Tell whether the events of each device came in order, each once."""
    by_device = defaultdict(list)
    for one in receiver.accepted:
        if "serial" in one["data"]:
            by_device[one["subject"]].append(one["data"]["serial"])
    return all(a < b for serials in by_device.values() for a, b in pairwise(serials))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kept", [True, False])
async def test_whatever_the_receiver_does_nothing_is_lost_and_each_device_stays_in_order(
    seed: int, journal: Path, secret_file: Path, *, kept: bool
) -> None:
    chance = random.Random(seed)
    made_with = options(webhook_secret_file=secret_file, webhook_timeout=0.3)
    async with receiving(KEY) as receiver:
        receiver.answers.extend(
            chance.choice([*TROUBLE, Answer(), Answer(), Answer(status=200)]) for _ in range(80)
        )
        async with listening(
            receiver.url, made_with=made_with, journal=journal if kept else None
        ) as running:
            for one in spread(60):
                running.source.send(one)
                await asyncio.sleep(0)
            running.source.disconnect()
            running.source.connect()
            await until(lambda: len(receiver.serials) == 60 and not running.sink.waiting)
            assert running.sink.failed == 0
            assert receiver.elsewhere == 0
    assert sorted(receiver.serials) == list(range(60))
    assert in_order(receiver)
    assert [one["data"]["reason"] for one in receiver.accepted if one["type"].endswith("gap")] == [
        "disconnected"
    ]
    # A try that failed is told by the same id as the one that was taken.
    assert set(receiver.ids) == {one["id"] for one in receiver.accepted}
    assert len(receiver.ids) > len(receiver.accepted)


async def test_what_a_receiver_that_is_away_did_not_get_comes_once_it_is_back(
    journal: Path,
) -> None:
    async with receiving() as receiver:
        async with listening(receiver.url, made_with=options(), journal=journal) as running:
            running.source.send(make(serial=1))
            await until(lambda: receiver.serials == [1])
            await receiver.go_away()
            for one in spread(20, first=2):
                running.source.send(one)
            await until(lambda: running.outlets[0].counts["tried_again"] >= 10)
            await receiver.start()
            await until(lambda: len(receiver.serials) == 21)
        assert in_order(receiver)
        assert sorted(receiver.serials) == list(range(1, 22))
        assert receiver.repeats == 0


async def test_the_next_run_goes_on_where_a_run_ended_without_its_receiver(journal: Path) -> None:
    async with receiving() as receiver:
        receiver.answer = Answer(status=503)
        async with listening(receiver.url, made_with=options(), journal=journal) as running:
            for one in spread(30):
                running.source.send(one)
            await until(lambda: len(receiver.ids) >= DEVICES)
            assert await running.listener.stop(drain=0.0)
        assert receiver.accepted == []
        receiver.answer = Answer()
        async with listening(receiver.url, made_with=options(), journal=journal) as running:
            await until(lambda: len(receiver.serials) == 30)
        assert in_order(receiver)
        assert receiver.repeats == 0


async def test_once_it_is_gone_none_of_those_that_wait_for_their_turn_is_posted() -> None:
    async with receiving() as receiver:
        receiver.answer = Answer(status=410)
        made_with = options(webhook_connections=1)
        async with listening(receiver.url, made_with=made_with, kinds=(Event,)) as running:
            for serial in range(20):
                running.source.send(make(serial=serial, device=8000 + serial))
            await until(lambda: running.sink.withheld == 20)
            await running.listener.stop(drain=0.0)
    assert len(receiver.ids) == 1


# Holding up nobody


async def turns_to_be_handled(*urls: str, busy: Receiver | None = None) -> list[int]:
    """Return for each of some events how many turns of the loop pass until it is handled."""
    source = FakeSource()
    listener = Listener(source, namespace="zhen04.cc")
    handled: list[int | None] = []

    @listener.on()
    async def pop_up(event: Event) -> None:
        handled.append(event.serial)

    outlets = await asyncio.to_thread(make_outlets, urls, options())
    attach(listener, outlets, (Event,), kept=False)
    counts = []
    async with opened(outlets), listener:
        for one in spread(40):
            source.send(one)
        await until(lambda: len(handled) == 40)
        if busy is not None:  # every device has had its answer, or is without one
            await until(lambda: busy.stalling + outlets[0].counts["tried_again"] >= DEVICES)
        for one in spread(40, first=100):
            source.send(one)
            turns = 0
            while handled[-1] != one["serial"] and turns < 1000:
                await asyncio.sleep(0)
                turns += 1
            counts.append(turns)
        if busy is not None:  # none of them was given up meanwhile, which would cost nothing either
            assert (busy.accepted, listener.stats().handlers[outlets[0].name].failed) == ([], 0)
        await listener.stop(drain=0.0)
    return counts


@pytest.mark.parametrize(
    "answer",
    [
        Answer(stall=True),
        Answer(status=429, headers={"Retry-After": "2"}),
        Answer(status=500),
        Answer(cut="before"),
        Answer(cut="within"),
    ],
    ids=["stalls", "busy", "fails", "closes", "closes half-way"],
)
async def test_a_webhook_that_fails_delays_no_other_handler_by_a_turn(answer: Answer) -> None:
    async with receiving() as receiver:
        receiver.answer = answer
        alone = await turns_to_be_handled()
        beside = await turns_to_be_handled(receiver.url, busy=receiver)
    assert max(beside) <= max(alone)


async def test_a_webhook_that_stalls_pauses_nothing_and_leaves_the_rest_in_the_journal(
    journal: Path,
) -> None:
    handled = 0
    async with receiving() as receiver:
        receiver.answer = Answer(stall=True)
        async with listening(
            receiver.url, made_with=options(), journal=journal, lane_size=5, kinds=(Event,)
        ) as running:

            @running.listener.on(lane_size=2000)
            async def pop_up(_: Event) -> None:
                nonlocal handled
                handled += 1

            paused = False
            for one in spread(2000):
                running.source.send(one)
                await asyncio.sleep(0)
                paused = paused or running.source.paused
            await until(lambda: handled == 2000 and receiver.stalling >= DEVICES)
            assert not paused
            assert receiver.stalling == DEVICES  # one request a device, and no more
            # As much as lanes hold is in memory, the rest on disk.
            assert running.sink.waiting <= DEVICES * (5 + 1) + 10
            await running.listener.stop(drain=0.0)


async def test_no_more_requests_go_on_at_once_than_were_asked_for() -> None:
    async with receiving() as receiver:
        receiver.answer = Answer(stall=True)
        made_with = options(webhook_connections=3)
        async with listening(receiver.url, made_with=made_with) as running:
            for n in range(200):
                running.source.send(make(serial=n, device=8000 + n))
            await until(lambda: receiver.stalling == 3)
            receiver.answer = Answer()
            await receiver.go_away()
            await receiver.start()
            await until(lambda: len(receiver.serials) == 200)
    assert receiver.at_once == 3


# What an answer means


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_refusal_is_a_dead_letter_at_once_and_the_next_has_its_turn(
    status: int, journal: Path
) -> None:
    async with receiving() as receiver:
        receiver.answers.append(Answer(status=status))
        async with listening(
            receiver.url, made_with=options(), journal=journal, kinds=(Event,)
        ) as running:
            for serial in range(3):
                running.source.send(make(serial=serial))
            await until(lambda: receiver.serials == [1, 2])
            assert (running.sink.failed, running.outlets[0].counts["refused"]) == (1, 1)
            name = running.outlets[0].name
    assert len(receiver.ids) == 3
    with closing(sqlite3.connect(journal)) as db:
        (text,) = db.execute("SELECT error FROM dead").fetchone()
    assert text.splitlines()[-1].endswith(f"SinkError: {name}: answers with HTTP {status}")


@pytest.mark.parametrize("status", [101, 304, 401, 402, 403, 404, 405, 415, 451, 499, 501, 600])
async def test_what_tells_of_the_receiver_or_of_nothing_known_is_tried_again(status: int) -> None:
    upgrade = {"Upgrade": "surprise", "Connection": "upgrade"} if status == 101 else {}
    async with receiving() as receiver:
        receiver.answers.extend([Answer(status=status, headers=upgrade)] * 3)
        async with listening(receiver.url, made_with=options(), kinds=(Event,)) as running:
            for serial in range(3):
                running.source.send(make(serial=serial))
            await until(lambda: running.sink.handled == 3)
            counts = dict(running.outlets[0].counts)
    assert (receiver.serials, len(receiver.ids), running.sink.failed) == ([0, 1, 2], 6, 0)
    assert counts == {"tried_again": 3, "taken": 3}


async def test_gone_stops_the_sink_and_the_next_run_delivers_what_it_was_owed(
    journal: Path,
) -> None:
    async with receiving() as receiver:
        receiver.answers.extend([Answer(), Answer(status=410)])
        with structlog.testing.capture_logs() as logs:
            async with listening(
                receiver.url, made_with=options(), journal=journal, kinds=(Event,)
            ) as running:
                for serial in range(3):
                    running.source.send(make(serial=serial))
                await until(lambda: running.sink.halted)
                for one in spread(20, first=3):
                    running.source.send(one)
                await until(lambda: running.sink.waiting == 22)
                async with asyncio.timeout(5):  # nobody waits for it
                    await running.listener.stop(drain=60.0)
        assert (receiver.serials, len(receiver.ids)) == ([0], 2)
        (said,) = [one for one in logs if one["event"] == "sink_halted"]
        assert (said["log_level"], "410" in said["problem"]) == ("error", True)
        async with listening(
            receiver.url, made_with=options(), journal=journal, kinds=(Event,)
        ) as running:
            await until(lambda: len(receiver.serials) == 23)
    assert in_order(receiver)


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        ("30", 30.0, 31.0),
        ("99999999999999999999", MOST, MOST + 1),
        ("soon", 0.0, 1.0),
        ("date", 58.0, 61.0),
    ],
)
async def test_the_receiver_is_left_alone_for_as_long_as_it_asks(
    status: int, after: str, least: float, most: float
) -> None:
    if after == "date":
        after = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    made_with = options()
    clock = made_with.clock
    assert isinstance(clock, HastyClock)
    async with receiving() as receiver:
        receiver.answers.append(Answer(status=status, headers={"Retry-After": after}))
        async with listening(receiver.url, made_with=made_with, kinds=(Event,)) as running:
            running.source.send(make(serial=1))
            await until(lambda: receiver.serials == [1])
    assert least <= max(clock.slept) <= most


class Endless(HastyClock):
    """Sleeps for ever."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


@pytest.mark.parametrize(("status", "others"), [(500, 9), (429, 0), (503, 0)])
async def test_a_receiver_that_is_busy_holds_up_all_devices_and_a_failing_event_its_own(
    status: int, others: int
) -> None:
    clock = Endless()
    async with receiving() as receiver:
        receiver.answers.append(Answer(status=status))
        made_with = options(clock=clock)
        async with listening(receiver.url, made_with=made_with, kinds=(Event,)) as running:
            running.source.send(make(serial=0))
            await until(lambda: running.outlets[0].counts["tried_again"])
            for n in range(1, 10):
                running.source.send(make(serial=n, device=8100 + n))
            await until(lambda: len(receiver.serials) + len(clock.slept) >= 10)
            await running.listener.stop(drain=0.0)
        assert len(receiver.serials) == others


@pytest.mark.parametrize("status", [500, 429, 503])
async def test_a_receiver_that_does_not_accept_holds_up_no_other_webhook(status: int) -> None:
    async with receiving() as failing, receiving() as well:
        failing.answer = Answer(status=status)
        urls, made_with = (failing.url, well.url), options(clock=Endless())
        async with listening(*urls, made_with=made_with, kinds=(Event,)) as running:
            running.source.send(make(serial=0))
            await until(lambda: running.outlets[0].counts["tried_again"])
            for one in spread(20, first=1):
                running.source.send(one)
            await until(lambda: len(well.serials) == 21)
            await running.listener.stop(drain=0.0)
        assert failing.accepted == []


async def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    async with receiving() as receiver:
        receiver.answer = Answer(status=200, endless=True)
        async with listening(receiver.url, made_with=options(), kinds=(Event,)) as running:
            for n in range(3):
                running.source.send(make(serial=n))
            await until(lambda: running.sink.handled == 3)


# What is sent


async def test_keys_are_changed_without_a_moment_in_which_none_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    async with receiving() as receiver:
        sink = await opened_sink(receiver, webhook_secret_file=file)
        signed_by = []
        for keys in ([KEY], [OTHER_KEY, KEY], [OTHER_KEY]):
            file.write_text("\n".join([*keys, ""]))
            await sink.reopen()
            receiver.keys = tuple(keys)
            await sink.take(parse_event(make()))
            assert receiver.signed_by[-1] == keys  # each will do
            signed_by.append(receiver.headers[-1]["webhook-signature"].split(" "))
        receiver.keys = (KEY,)
        with pytest.raises(SinkAwayError):  # the receiver's own verification fails
            await sink.take(parse_event(make()))
        file.write_text("no key\n")
        with pytest.raises(ConfigurationError) as caught:
            await sink.reopen()
        receiver.keys = (OTHER_KEY,)
        await sink.take(parse_event(make()))  # the one before is still in force
        await sink.close()
    assert [len(one) for one in signed_by] == [1, 2, 1]
    assert "no key" not in str(caught.value)


async def test_a_body_that_was_changed_on_its_way_is_not_verified(secret_file: Path) -> None:
    async with receiving() as receiver:
        sink = await opened_sink(receiver, webhook_secret_file=secret_file)
        await sink.take(parse_event(make()))
        await sink.close()
    headers = receiver.headers[0]
    assert verifying((KEY,), "{}", headers) == []
    assert headers["User-Agent"].startswith("cti-listener/")
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert headers["webhook-id"] == receiver.accepted[0]["id"]


async def test_a_certificate_is_verified_by_the_authorities_that_are_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))

    async def post(receiver: Receiver, **given: Any) -> None:
        sink = await opened_sink(receiver, **given)
        try:
            await sink.take(parse_event(make(serial=7)))
        finally:
            await sink.close()

    async with receiving(context=context) as receiver:
        with pytest.raises(SinkAwayError, match="certificate"):
            await post(receiver)
        assert receiver.ids == []
        await post(receiver, ca_file=file)
        assert receiver.serials == [7]
        with pytest.raises(ConfigurationError, match="ca_file"):
            await post(receiver, ca_file=tmp_path / "none.pem")


async def test_nothing_secret_shows_in_what_is_said(secret_file: Path) -> None:
    async with receiving() as receiver:
        receiver.answer = Answer(status=400)
        url = receiver.url.replace("//", "//me:CANARY-PASSWORD@") + "?key=CANARY-TOKEN"
        made_with = options(webhook_secret_file=secret_file)
        with structlog.testing.capture_logs() as logs:
            async with listening(url, made_with=made_with, kinds=(Event,)) as running:
                running.source.send(make())
                await until(lambda: running.sink.failed == 1)
                receiver.answer = Answer(cut="before")
                running.source.send(make())
                await until(lambda: running.outlets[0].counts["tried_again"])
                await running.listener.stop(drain=0.0)
                shown = f"{running.outlets!r} {running.outlets[0].name}"
    assert receiver.headers[0]["Authorization"].startswith("Basic ")
    for one in logs:
        shown += (
            f"{one} {one.get('exc_info')!r} {vars(one['exc_info']) if 'exc_info' in one else ''}"
        )
    assert "handler_failed" in shown
    assert "CANARY" not in shown
    assert KEY.removeprefix("whsec_") not in shown


async def test_an_error_is_told_by_what_is_to_be_done() -> None:
    async with receiving() as receiver:
        sink = await opened_sink(receiver, webhook_timeout=0.2)
        for answer, kind, text in (
            (Answer(status=422), SinkError, "hook: answers with HTTP 422"),
            (Answer(status=404), SinkAwayError, "hook: answers with HTTP 404; is the URL the rig"),
            (Answer(status=401), SinkAwayError, "hook: answers with HTTP 401; does it know the k"),
            (Answer(status=301), SinkAwayError, "redirect, which is not followed"),
            (Answer(stall=True), SinkAwayError, "does not answer within 0.2 s"),
            (Answer(cut="within"), SinkAwayError, "breaks off"),
        ):
            receiver.answer = answer
            with pytest.raises(kind, match=text):
                await sink.take(parse_event(make()))
        await receiver.go_away()
        with pytest.raises(SinkAwayError, match="cannot be connected to: Connection refused"):
            await sink.take(parse_event(make()))
        await sink.close()


async def test_a_gap_is_told(journal: Path) -> None:
    made_with = options()
    async with (
        receiving() as receiver,
        listening(receiver.url, made_with=made_with, journal=journal, kinds=(Gap,)) as running,
    ):
        running.source.disconnect()
        running.source.connect()
        await until(lambda: receiver.accepted)
    (told,) = receiver.accepted
    assert told["type"] == "cti.listener.gap"
    assert told["data"]["eventName"] == "gap"
