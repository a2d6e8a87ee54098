from __future__ import annotations

import asyncio
import itertools
import re
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cti_listener import CallStarted, Delivered, Event, Listener, parse_event
from cti_listener.admin import make_admin
from cti_listener.admin.ring import ROOM, SIZE, Ring
from cti_listener.admin.showing import Shown
from cti_listener.admin.stream import CHUNK, Filter, Place, Stream
from cti_listener.journal import reader as journal
from cti_listener.journal import visits
from cti_listener.notices import GapReason
from cti_listener.ops.masking import Masker
from cti_listener.testing import FakeSource
from tests.admin.support import PATIENCE, Message, Reader, Served, reading, served
from tests.examples import NAMESPACE, device_id, make
from tests.turns import until


async def first(reader: Reader) -> Message:
    """Return what the stream says of itself."""
    hello = await reader.next()
    assert hello.name == "hello"
    return hello


async def serials(reader: Reader, count: int) -> list[int]:
    """Return those of the next events; what is told besides is passed over."""
    found: list[int] = []
    while len(found) < count:
        if (serial := (await reader.of("message")).data.get("serial")) is not None:
            found.append(serial)
    return found


def send(it: Served, *numbers: int, **fields: Any) -> None:
    for number in numbers:
        it.source.send(make(serial=number, **fields))


async def send_around_a_gap(it: Served, reason: GapReason = "disconnected") -> None:
    """Have one event, a gap and another event handed over."""
    send(it, 1)
    await until(lambda: it.listener.given == 1)
    it.source.disconnect(reason)
    it.source.connect()
    send(it, 2)
    await until(lambda: it.listener.given == 2)


def forget(path: Path, *seqs: int) -> None:
    """Take events out of the journal, as retention and a purge do."""
    with visits.visit(path, write=True) as db:
        db.executemany("DELETE FROM event WHERE seq = ?", [(seq,) for seq in seqs])


def entered(
    it: Served,
    ring: Ring | None = None,
    after: Place | None = None,
    lock: asyncio.Lock | None = None,
) -> tuple[Ring, Stream]:
    """Return what one more reader of a ring is sent; of one of its own if none is given."""
    ring, shown = ring or Ring(it.listener, Shown(None)), Shown(None)
    ring.enter()
    wanted, lock = Filter(), lock or asyncio.Lock()
    return ring, Stream(ring, it.listener, shown, wanted=wanted, after=after, catching_up=lock)


# Without a journal


async def test_events_come_as_received_and_without_an_id() -> None:
    async with served() as it, reading(it.client) as reader:
        assert (await first(reader)).data == {"resumable": False, "masked": False}
        assert "no journal" in await reader.until_comment()
        event = make(userData={"名": "值\u2028\n", "half": "\ud800"})
        it.source.send(event)
        message = await reader.next()
        assert (message.name, message.id, message.data) == ("message", None, event)


async def test_what_a_reader_alone_takes_is_wanted_by_nobody() -> None:
    """Else an open page would hide that no handler takes an event."""
    async with served() as it, reading(it.client) as reader:
        await first(reader)
        send(it, 1, 2)
        assert await serials(reader, 2) == [1, 2]
        assert it.listener.stats().unrouted == 2
        async with it.listener.events():
            send(it, 3)
            assert it.listener.stats().unrouted == 2


async def test_notices_of_ours_come_in_between() -> None:
    async with served() as it, reading(it.client) as reader:
        await first(reader)
        send(it, 1)
        it.source.disconnect()
        it.source.connect()
        send(it, 2)
        names = [(await reader.next()).data["eventName"] for _ in range(5)]
        assert names == ["delivered", "disconnected", "connected", "gap", "delivered"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4]),
        ("?device=8002", [1, 3]),
        ("?device=8002@zhen04.cc", [1, 3]),
        ("?device=8002&device=8003", [1, 2, 3, 4]),
        ("?event=held", [3, 4]),
        ("?event=held&device=8002", [3]),
        ("?event=held&event=delivered&device=8003", [2, 4]),
    ],
)
async def test_filters_are_of_devices_and_of_names(query: str, expected: list[int]) -> None:
    async with served() as it, reading(it.client, query) as reader:
        await first(reader)
        send(it, 1, device=8002)
        send(it, 2, device=8003)
        send(it, 3, device=8002, name="held")
        send(it, 4, device=8003, name="held")
        send(it, 99, device=8002, name="held")
        send(it, 99, device=8003)
        assert await serials(reader, len(expected)) == expected


async def test_a_notice_of_all_devices_passes_the_filter_of_one() -> None:
    async with served() as it, reading(it.client, "?device=8002&event=gap") as reader:
        await first(reader)
        it.source.disconnect()
        it.source.connect()
        assert (await reader.next()).data["eventName"] == "gap"


async def test_outside_numbers_are_masked_and_ids_of_calls_are_not() -> None:
    async with served(admin={"masker": Masker()}) as it, reading(it.client) as reader:
        assert (await first(reader)).data["masked"] is True
        outside = "13812345678"
        sent = make(callId="1489732404", callingDevice=device_id(outside), ani=int(outside))
        it.source.send({**sent, "userData": {"data": {"originalANI": outside}}, "serial": 83433000})
        got = (await reader.next()).data
        assert outside not in str(got)
        assert got["callingDevice"] == "138****5678@zhen04.cc"
        assert (got["callId"], got["serial"], got["ani"]) == ("1489732404", 83433000, "138****5678")


async def test_a_quiet_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.stream.HEARTBEAT", 0.01)
    async with served() as it, reading(it.client) as reader:
        await first(reader)
        while await reader.until_comment() != "still here":
            pass


async def test_what_cannot_be_resumed_begins_now() -> None:
    async with served() as it, reading(it.client, after=7) as reader:
        assert (await first(reader)).data["resumable"] is False
        send(it, 1)
        assert await serials(reader, 1) == [1]


# With one


async def test_an_event_is_known_by_its_place_in_the_journal(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        send(it, 1, 2)
        await until(lambda: it.listener.given == 2)
        async with reading(it.client) as reader:
            hello = await first(reader)
            assert (hello.seq, hello.data["resumable"]) == (2, True)
            send(it, 3, 4)
            assert [(await reader.next()).seq for _ in range(2)] == [3, 4]


@pytest.mark.parametrize("seed", range(4))
async def test_one_who_comes_back_has_no_hole_and_no_repeat(tmp_path: Path, seed: int) -> None:
    """Events go on all the while, some of them with notices behind that take places as well."""
    count = 3000

    def register(listener: Listener) -> None:
        @listener.on(CallStarted, name="derived")
        async def take(_notice: object) -> None: ...

    async with served(journal=tmp_path / "j.db", register=register) as it:

        async def sending() -> None:
            for number in range(1, count + 1):
                send(it, number, callId=f"c{number}", alertingDevice=device_id(8002))
                if number % (seed + 2) == 0:
                    await asyncio.sleep(0)

        got: list[int] = []
        last: int | str | None = 0
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sending())
            while len(got) < count:
                async with reading(it.client, after=last) as reader:
                    await first(reader)
                    for _ in range(min(137 + 211 * seed, count - len(got))):
                        message = await reader.of("message")
                        got.append(message.data["serial"])
                        last = message.id
        assert got == list(range(1, count + 1))


async def test_one_who_comes_back_while_much_goes_by_has_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is handed over while it takes what was read from the file than the ring holds."""
    looks, kept_after = 0, journal.Reader.kept_after

    def counted(reader: journal.Reader, seq: int, limit: int) -> Any:
        nonlocal looks
        looks += 1
        assert looks < 2 * count / CHUNK, "it looks again and again for what the ring lacks"
        return kept_after(reader, seq, limit)

    monkeypatch.setattr(journal.Reader, "kept_after", counted)
    monkeypatch.setattr("cti_listener.admin.stream.HEARTBEAT", 0.01)
    count = 1000 + 2 * SIZE
    async with served(journal=tmp_path / "j.db") as it:
        send(it, *range(1, 1001))
        await until(lambda: it.listener.given == 1000)
        ring, stream = entered(it, after=Place(None, 0))
        text = b""
        async for chunk in stream.chunks():
            text += chunk
            if text.count(b"data: {") == 501 and it.listener.given == 1000:
                send(it, *range(1001, count + 1))
                await until(lambda: it.listener.given == count)
            if text.endswith(b": still here\n\n") and b"-%d\n" % count in text:
                break  # it waits for more at the ring, and looks into the file no longer
        assert b"lost" not in text
        assert [int(one) for one in re.findall(rb"id: \w+-(\d+)\n", text)] == [*range(1, count + 1)]
        ring.leave()


async def test_one_who_takes_long_over_what_it_missed_holds_up_nobody_else(tmp_path: Path) -> None:
    """They take turns at the file, and none has its turn while it sends what it found."""
    count = 3 * CHUNK
    async with served(journal=tmp_path / "j.db") as it:
        send(it, *range(1, count + 1))
        await until(lambda: it.listener.given == count)
        ring, lock = Ring(it.listener, Shown(None)), asyncio.Lock()
        slow, quick = (
            entered(it, ring, after=Place(None, 0), lock=lock)[1].chunks() for _ in range(2)
        )
        while b"id: " not in await anext(slow):
            pass
        async with asyncio.timeout(PATIENCE):
            while b"-%d\n" % count not in await anext(quick):
                pass
        ring.leave()


async def test_one_for_whom_little_is_found_is_shown_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes its time, and of what it brings nothing is wanted."""
    monkeypatch.setattr("cti_listener.admin.stream.HEARTBEAT", 0.01)
    go_on, kept_after = threading.Event(), journal.Reader.kept_after

    def slowly(reader: journal.Reader, seq: int, limit: int) -> Any:
        go_on.wait(PATIENCE)
        return kept_after(reader, seq, limit)

    async with served(journal=tmp_path / "j.db") as it:
        send(it, *range(1, 10), name="held")
        await until(lambda: it.listener.given == 9)
        monkeypatch.setattr(journal.Reader, "kept_after", slowly)
        async with reading(it.client, "?event=delivered", after=0) as reader:
            await first(reader)
            assert await reader.until_comment() == "still here"
            go_on.set()
            send(it, 10)
            assert await serials(reader, 1) == [10]


async def test_what_is_erased_is_named_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with served(journal=path) as it:
        send(it, *range(1, 11))
        await until(lambda: it.listener.given == 10)
        await asyncio.to_thread(forget, path, 1, 2, 3, 4, 7, 10)
        async with reading(it.client, after=2) as reader:
            await first(reader)
            said = [await reader.next() for _ in range(7)]
            gaps = [(one.data["from"], one.data["to"]) for one in said if one.name == "gap"]
            assert gaps == [(3, 4), (7, 7), (10, 10)]
            assert [one.seq for one in said] == [4, 5, 6, 7, 8, 9, 10]
            assert said[0].data == {"reason": "retention", "from": 3, "to": 4, "count": 2}
            send(it, 11)
            assert (await reader.next()).seq == 11


async def test_what_is_erased_while_one_comes_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than is held is handed over meanwhile, and is gone when the file is looked at again."""
    monkeypatch.setattr("cti_listener.admin.stream.HEARTBEAT", 0.05)
    path, count, kept_after = tmp_path / "j.db", ROOM + 100, journal.Reader.kept_after

    def late(reader: journal.Reader, seq: int, limit: int) -> Any:
        forget(path, *range(2, count + 1))
        found = kept_after(reader, seq, limit)
        gone.set()
        return found

    async with served(journal=path) as it:
        send(it, 1)
        await until(lambda: it.listener.given == 1)
        ring, stream = entered(it, after=Place(None, 0))
        text, behind, live, gone = b"", False, False, threading.Event()
        async for chunk in stream.chunks():
            text += chunk
            if not behind and b"-1\n" in chunk:
                behind = True
                send(it, *range(2, count + 1))
                await until(lambda: it.listener.given == count)
                monkeypatch.setattr(journal.Reader, "kept_after", late)
            if chunk.endswith(b": still here\n\n") and gone.is_set() and not live:
                live = True
                send(it, count + 1)  # it waits for more at the ring
            if b"-%d\n" % (count + 1) in chunk:
                break
        ring.leave()
        (gap,) = re.findall(rb'"from":(\d+),"to":(\d+)', text)
        assert (int(gap[0]), int(gap[1])) == (2, count)


async def test_an_id_that_was_never_given_is_said_so(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it, reading(it.client, after=1000) as reader:
        assert (await first(reader)).id is None
        gap = await reader.next()
        assert (gap.name, gap.data, gap.seq) == ("gap", {"reason": "unknown_id", "id": "1000"}, 0)
        send(it, 1)
        assert (await reader.next()).seq == 1


async def test_an_id_that_was_read_before_it_was_handed_over_is_known(tmp_path: Path) -> None:
    """What is on disk is read from there, though hundreds before it have yet to be handed over."""
    async with served(journal=tmp_path / "j.db") as it:
        send(it, 1, 2, 3)
        await until(lambda: it.listener.given == 3)
        it.listener._engine._commits.given = 2  # type: ignore[union-attr]  # noqa: SLF001 - as if 3 had yet to be
        async with reading(it.client, after=3) as reader:
            await first(reader)
            send(it, 4)
            message = await reader.next()
            assert (message.name, message.seq) == ("message", 4)


async def test_an_id_of_a_journal_that_was_replaced_is_said_so(tmp_path: Path) -> None:
    """However long the one in its place has grown: all of that is behind what was had."""
    async with served(journal=tmp_path / "old.db") as it, reading(it.client) as reader:
        await first(reader)
        send(it, 1, 2, 3)
        last = [await reader.next() for _ in range(3)][-1].id
    async with served(journal=tmp_path / "new.db") as it:
        send(it, 4, 5, 6, 7, 8)
        await until(lambda: it.listener.given == 5)
        async with reading(it.client, after=last) as reader:
            await first(reader)
            gap = await reader.next()
            assert (gap.name, gap.data) == ("gap", {"reason": "unknown_id", "id": last})
            assert await serials(reader, 5) == [4, 5, 6, 7, 8]
        async with reading(it.client, after=gap.id) as reader:  # it broke right behind the gap
            await first(reader)
            assert await serials(reader, 5) == [4, 5, 6, 7, 8]


async def test_who_comes_before_the_journal_is_open_is_sent_away(tmp_path: Path) -> None:
    """It may know an id, and of an id nothing can be said before."""
    listener = Listener(FakeSource(), namespace=NAMESPACE, journal=tmp_path / "j.db")
    async with make_admin(listener) as admin, aiohttp.ClientSession(admin.url) as client:
        async with client.get("/v1/events", headers={"Last-Event-ID": "1"}) as answer:
            assert (answer.status, "journal" in await answer.text()) == (503, True)
        async with listener, reading(client) as reader:
            assert (await first(reader)).seq == 0


async def test_filters_hold_for_what_comes_from_the_file(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        for number in range(10):
            send(it, number, device=8002 + number % 2, name="held" if number % 3 else "delivered")
        await until(lambda: it.listener.given == 10)
        async with reading(it.client, "?device=8003&event=held", after=0) as reader:
            await first(reader)
            assert await serials(reader, 3) == [1, 5, 7]


async def test_what_comes_from_the_file_is_masked_too(tmp_path: Path) -> None:
    options = {"masker": Masker()}
    async with served(journal=tmp_path / "j.db", admin=options) as it:
        send(it, 1, callingDevice="13812345678@zhen04.cc")
        await until(lambda: it.listener.given == 1)
        async with reading(it.client, after=0) as reader:
            await first(reader)
            assert (await reader.next()).data["callingDevice"] == "138****5678@zhen04.cc"


async def test_a_gap_is_told_to_one_who_comes_back_after_it(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        await send_around_a_gap(it)
        async with reading(it.client, after=1) as reader:
            await first(reader)
            gap, event = await reader.next(), await reader.next()
            assert (gap.data["eventName"], gap.data["reason"]) == ("gap", "disconnected")
            assert event.data["serial"] == 2


async def test_a_gap_is_told_to_one_who_took_its_time_meanwhile(tmp_path: Path) -> None:
    """It is told of one gap while another opens and closes, and then more comes than is held."""
    count = 2 + 2 * SIZE
    async with served(journal=tmp_path / "j.db") as it:
        await send_around_a_gap(it)
        text, slow = b"", True
        ring, stream = entered(it, after=Place(None, 1))
        async for chunk in stream.chunks():
            text += chunk
            if slow and b'"gap"' in chunk:
                slow = False
                it.source.disconnect("half_open")
                it.source.connect()
                send(it, *range(3, count + 1))
                await until(lambda: it.listener.given == count)
            if b"-%d\n" % count in chunk:
                break
        ring.leave()
        assert re.findall(rb'"gap".*"reason":"(\w+)"', text) == [b"disconnected", b"half_open"]


async def test_a_gap_of_an_earlier_run_is_told_to_one_who_comes_back(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        await send_around_a_gap(it, "half_open")
    async with served(journal=tmp_path / "j.db") as it:
        for after, expected in ((1, ["half_open", "listener_down"]), (2, ["listener_down"])):
            async with reading(it.client, after=after) as reader:
                await first(reader)
                send(it, 2 + after)
                reasons = []
                while (message := await reader.next()).data.get("serial") != 2 + after:
                    reasons += [message.data["reason"]] if "reason" in message.data else []
                assert reasons == expected


async def test_what_earlier_runs_had_can_be_resumed_from(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it:
        send(it, 1, 2, 3)
        await until(lambda: it.listener.given == 3)
    async with served(journal=tmp_path / "j.db") as it, reading(it.client, after=1) as reader:
        await first(reader)
        send(it, 4)
        assert await serials(reader, 3) == [2, 3, 4]


async def test_a_dead_letter_that_is_tried_again_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    def again() -> None:  # as `cti-listen journal retry` has it stand there
        copy = "digest, device, call, received_at, feed, wanted, late, payload"
        with visits.visit(path, write=True) as db:
            db.execute(
                f"INSERT INTO event ({copy}, redelivered) SELECT {copy}, 1 FROM event"  # noqa: S608 - our own words
                " WHERE seq = 1"
            )

    async with served(journal=path) as it:
        send(it, 1, 2)
        await until(lambda: it.listener.given == 2)
    await asyncio.to_thread(again)
    async with served(journal=path) as it:
        send(it, 3)
        await until(lambda: it.listener.given == 4)
        async with reading(it.client, after=0) as reader:
            await first(reader)
            assert await serials(reader, 3) == [1, 2, 3]


# Slow readers


async def test_one_that_is_too_slow_is_told_how_much_it_lost_and_where() -> None:
    async with served() as it, reading(it.client) as reader:
        await first(reader)
        send(it, *range(1, SIZE + 11))  # in one turn, so that nobody can take any of them
        assert await serials(reader, ROOM) == [*range(1, ROOM + 1)]
        assert (await reader.next()).data == {"lost": SIZE + 10 - ROOM}
        send(it, 9999)
        assert await serials(reader, 1) == [9999]


async def test_a_gap_is_told_even_to_one_that_is_too_slow() -> None:
    async with served() as it, reading(it.client) as reader:
        await first(reader)
        send(it, *range(1, SIZE + 11))
        it.source.disconnect()
        it.source.connect()
        while (message := await reader.of("message")).data["eventName"] != "gap":
            pass
        assert message.data["reason"] == "disconnected"


async def test_one_that_others_have_overtaken_is_told_so() -> None:
    async with served() as it:
        ring = Ring(it.listener, Shown(None))
        slow, quick = (entered(it, ring)[1].chunks() for _ in range(2))
        assert b"hello" in await anext(slow)
        for turn in range(SIZE // 100 + 2):
            send(it, *range(100 * turn, 100 * turn + 100))
            while b'data: {"eventName' not in await anext(quick):
                pass
        assert b"no journal" in await anext(slow)
        assert b"event: lost" in await anext(slow)
        ring.leave()


async def test_one_that_others_have_overtaken_is_told_of_what_passed_by_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What passed by before the others came stands in the ring as one mark, and is overwritten."""
    for room in ("ring", "stream"):
        monkeypatch.setattr(f"cti_listener.admin.{room}.TICK", 0.0)
    async with served() as it:
        count = ROOM + 1000
        ring, slow = entered(it)
        send(it, *range(1, count + 1))
        quick = entered(it, ring)[1].chunks()
        while ring.begin() <= ROOM + 1:
            send(it, *range(count + 1, count + 101))
            count += 100
            while b'"serial":%d,' % count not in await anext(quick):
                pass
        text, chunks = b"", slow.chunks()
        while b'"serial":%d,' % count not in text:
            text += await anext(chunks)
        lost = sum(int(one) for one in re.findall(rb'"lost":(\d+)', text))
        assert lost + len(re.findall(rb'"serial":', text)) == count
        ring.leave()
        ring.leave()


@pytest.mark.parametrize(("more", "lost"), [(SIZE + 90, 0), (2 * SIZE, 10)])
@pytest.mark.parametrize("notices", [0, 3])
async def test_one_that_others_overtake_when_it_has_all_from_the_file_lost_none_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, lost: int, notices: int
) -> None:
    """It is about to let go of the file, and stands in the ring before what it had from there."""
    for room in ("ring", "stream"):
        monkeypatch.setattr(f"cti_listener.admin.{room}.TICK", 0.0)
    count, loop = SIZE - 10, asyncio.get_running_loop()
    async with served(journal=tmp_path / "j.db") as it:
        ring, stream = entered(it, after=Place(None, 0))
        quick = entered(it, ring)[1].chunks()

        async def overtake(begin: int, end: int) -> None:
            for number in range(begin, end, CHUNK):
                last = min(number + CHUNK, end) - 1
                send(it, *range(number, last + 1))
                while b"-%d\n" % last not in await anext(quick):
                    pass

        def late(reader: journal.Reader) -> None:
            monkeypatch.setattr(journal.Reader, "close", close)  # others close theirs as ever
            overtaking = overtake(count + 1, more + 1)
            asyncio.run_coroutine_threadsafe(overtaking, loop).result(PATIENCE)
            close(reader)

        close = journal.Reader.close
        if notices:  # they stand before all that, and are in no file
            it.source.disconnect()
            it.source.connect()
        await overtake(1, count + 1)
        monkeypatch.setattr(journal.Reader, "close", late)
        text = b""
        async for chunk in stream.chunks():
            text += chunk
            if b"-%d\n" % more in chunk:
                break
        assert ring.begin() == more + notices - SIZE
        told = [int(one) for one in re.findall(rb'"lost":(\d+)', text)]
        assert told == [lost + notices] * bool(lost + notices)
        had = [*range(1, count + 1), *range(count + 1 + lost, more + 1)]
        assert [int(one) for one in re.findall(rb"id: \w+-(\d+)\n", text)] == had
        ring.leave()
        ring.leave()


async def test_with_a_journal_it_can_take_up_what_it_lost(tmp_path: Path) -> None:
    async with served(journal=tmp_path / "j.db") as it, reading(it.client) as reader:
        await first(reader)
        give = it.listener._handover.give  # noqa: SLF001 - at once, as no disk would let it
        for number in range(1, SIZE + 20):
            give(_model(number), None, (), number)
        lost = await reader.of("lost")
        assert lost.data == {
            "lost": SIZE + 19 - ROOM,
            "resumeFrom": f"{it.listener.journal_id}-{ROOM}",
        }


def _model(number: int) -> Event:
    return parse_event(make(serial=number))


async def test_ten_who_do_not_read_cost_nobody_anything() -> None:
    """One tap for all of them; nothing is written for who takes nothing, and all is handled."""
    async with served() as it:
        handled: list[int | None] = []

        @it.listener.on(order="all", overflow="block")
        async def take(event: Event) -> None:
            handled.append(event.serial)

        writers = [await _silent(it) for _ in range(10)]
        ring = it.admin._answers.ring  # noqa: SLF001 - who reads along shows there alone
        await until(lambda: ring.readers == 10)
        written = 0
        shown = ring._shown.body  # noqa: SLF001 - counts what is written
        taps = len(list(it.listener._handover.taps))  # noqa: SLF001 - what each event is offered to

        def counted(body: Any) -> Any:
            nonlocal written
            written += 1
            return shown(body)

        ring._shown.body = counted  # type: ignore[method-assign]  # noqa: SLF001 - as above
        count = 30_000
        for number in range(count):
            send(it, number, blob="x" * 1000)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(handled) == count)
        assert handled == list(range(count))
        assert taps == 2  # one for the events, one for notices of ours
        asked = [one.wish.classes for one in it.listener._handover.taps]  # noqa: SLF001 - as above
        assert not any(Delivered in classes for classes in asked)  # they pass by unseen
        # What the sockets hold, and no more: some hundreds of KiB for each of the ten.
        assert written < count / 3
        for writer in writers:
            writer.close()
        await until(lambda: ring.readers == 0)
        assert not list(it.listener._handover.taps)  # noqa: SLF001 - as above


async def _silent(it: Served) -> asyncio.StreamWriter:
    """Ask for events, and read none."""
    _, writer = await asyncio.open_connection("127.0.0.1", it.admin.port, limit=1)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return writer


async def test_one_that_takes_nothing_for_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cti_listener.admin.answers.STALLED", 0.05)
    async with served() as it:
        writer = await _silent(it)
        ring = it.admin._answers.ring  # noqa: SLF001 - who reads along shows there alone
        await until(lambda: ring.readers == 1)
        async with asyncio.timeout(30):
            for number in itertools.count(1):
                send(it, number, blob="x" * 100_000)
                await asyncio.sleep(0.001)
                if not ring.readers:
                    break
        writer.close()


async def test_a_reader_that_leaves_ends_its_stream() -> None:
    async with served() as it:
        ring = it.admin._answers.ring  # noqa: SLF001 - as above
        async with reading(it.client) as reader:
            await first(reader)
            assert ring.readers == 1
            await until(lambda: ring._waiting)  # noqa: SLF001 - where it waits for something to come
        await until(lambda: ring.readers == 0)
        assert not ring._waiting  # noqa: SLF001 - as above
        assert repr(ring) == "<Ring 0 put, 0 readers, 0 lost>"
