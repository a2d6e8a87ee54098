"""`cti-listen journal`: what it tells and does, beside a listener that runs."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cti_listener.errors import ConfigurationError
from cti_listener.journal import visits
from cti_listener.journal.cli import journal_app
from cti_listener.journal.lock import lock_path
from cti_listener.journal.purge import names, quotes
from cti_listener.journal.purge import purge as purge_number
from cti_listener.notices import Gap
from cti_listener.testing import START
from cti_listener.values import EventKey
from tests.journal.support import A_GAP, Held, entry, journal
from tests.unprivileged import locked, unprivileged

NUMBER = "13800138000"
OF_REPEATS = (
    "if the server repeats an erased event after a restart of the listener, it is taken for new,"
    " and kept again\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


class Told:
    """What a command said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *tokens: object, code: int = 0) -> str:
        assert journal_app([str(one) for one in tokens]) == code
        out, err = self._capsys.readouterr()
        assert "Traceback (most" not in err
        return err if code else out

    def json(self, *tokens: object) -> list[Any]:
        return [json.loads(line) for line in self(*tokens, "--json").splitlines()]

    async def beside(self, *tokens: object, code: int = 0) -> str:
        """Run it in a thread, while the loop and the journal go on."""
        return await asyncio.to_thread(self, *tokens, code=code)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


async def fill(store: Held) -> None:
    for number in range(6):
        store.add(entry(number, device=f"d{number % 2}", call=f"call-{number % 2}"))
    await store.settle()
    store.done("work", "d0", 3)
    store.dead("work", 2, "Traceback (most recent call last):\n  ...\nValueError: boom\n")
    store.gap(A_GAP)
    await store.settle()


def made(path: Path) -> Path:
    async def make() -> None:
        async with journal(path) as store:
            await fill(store)

    asyncio.run(make())
    return path


@pytest.fixture
def filled(path: Path) -> Path:
    return made(path)


def test_stats_tell_how_it_stands(filled: Path, told: Told) -> None:
    (facts,) = told.json("stats", filled)
    assert (facts["events"], facts["lastSeq"], facts["inUse"]) == (6, 6, False)
    assert (facts["gaps"], facts["openGaps"]) == (1, 0)
    assert facts["handlers"] == [
        {
            "name": "work",
            "registered": True,
            "unfinished": 3,
            "oldestUnfinished": "2026-01-05T08:00:00.000+00:00",
            "dead": 1,
        }
    ]
    lines = told("stats", filled).splitlines()
    assert lines[0].startswith(f"{filled}: not in use, 0.")
    assert lines[-1] == "handler work: 3 unfinished since 2026-01-05T08:00:00.000+00:00, 1 dead"


def test_commands_answer_who_may_not_read_the_lock(told: Told) -> None:
    with unprivileged() as folder:
        path = folder / "journal.db"
        made(path)
        lock_path(path).chmod(0)
        assert told("stats", path).startswith(f"{path}: not in use")
        assert told("retry", path, "--all").endswith("at the next start\n")
        assert told("forget", path, "work").startswith("forgot work")


def test_a_journal_can_be_read_in_a_folder_that_cannot_be_written_to(told: Told) -> None:
    with unprivileged() as folder:
        path = made(folder / "journal.db")
        with locked(folder):
            assert told("stats", path).splitlines()[1].startswith("6 events")
            assert [one["reason"] for one in told.json("gaps", path)] == ["half_open"]
            assert "cannot be written" in told("retry", path, "--all", code=74)


def test_list_tells_who_is_done_with_what(filled: Path, told: Told) -> None:
    states = {one["seq"]: one["handlers"]["work"] for one in told.json("list", filled)}
    done, dead, undone = "done", "dead", "unfinished"
    assert states == {1: done, 2: dead, 3: done, 4: undone, 5: undone, 6: undone}
    lines = told("list", filled).splitlines()
    assert lines[0].split() == ["SEQ", "RECEIVED", "DEVICE", "EVENT", "CALL", "HANDLERS"]
    assert lines[2].split() == [
        *("2", "2026-01-05T08:00:00.000+00:00", "d1", "delivered", "call-1", "work:dead")
    ]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--limit", "2"], [5, 6]),
        (["--limit", "0"], [1, 2, 3, 4, 5, 6]),
        (["--undone"], [4, 5, 6]),
        (["--undone", "--handler", "work", "--device", "d1"], [4, 6]),
        (["--handler", "work", "--call", "call-0"], [1, 3, 5]),
        (["--device", "nobody"], []),
    ],
)
def test_list_filters(filled: Path, told: Told, filters: list[str], found: list[int]) -> None:
    assert [one["seq"] for one in told.json("list", filled, *filters)] == found
    assert ("none" in told("list", filled, *filters)) == (not found)


@pytest.mark.parametrize("limit", [-3, 1 << 63, 10**29])
def test_a_limit_that_is_none_is_refused(filled: Path, told: Told, limit: int) -> None:
    err = told("list", filled, "--limit", limit, code=2)
    assert err == "cti-listen: --limit: name how many, up to 9223372036854775807, or 0 for all\n"


def test_a_number_that_no_event_can_have_is_not_there(filled: Path, told: Told) -> None:
    assert len(told.json("list", filled, "--limit", (1 << 63) - 1)) == 6
    for seq in (1 << 63, -(10**29)):
        assert f"there is no event {seq}" in told("show", filled, seq, code=1)


def test_show_gives_the_event_as_received(filled: Path, told: Told) -> None:
    (facts,) = told.json("show", filled, 4)
    assert facts["event"] == entry(3, device="d1", call="call-1").payload
    assert '  "serial": 3,' in told("show", filled, 4)
    assert "there is no event 99" in told("show", filled, 99, code=1)


def test_gaps_are_told_as_the_listener_printed_them(filled: Path, told: Told) -> None:
    (gap,) = told.json("gaps", filled)
    assert (gap["eventName"], gap["reason"], gap["id"]) == ("gap", "half_open", 1)
    assert told("gaps", filled).splitlines()[1].split()[-3:] == ["half_open", "no", "all"]


def test_dead_letters_tell_the_error_and_on_demand_all_of_it(filled: Path, told: Told) -> None:
    assert told("dead", filled).splitlines()[1].endswith("delivered  ValueError: boom")
    assert "Traceback (most recent call last):" in told("dead", filled, 1)
    assert "there is no dead letter 7" in told("dead", filled, 7, code=1)


async def test_a_retried_letter_is_picked_up_while_running(path: Path, told: Told) -> None:
    async with journal(path) as store:
        await fill(store)
        answer = await told.beside("retry", path, 1)
        assert answer == "1 dead letter to be tried once more, by the listener that runs\n"
        store.poll_retries()
        store.add(entry(50, device="d1"))
        await store.settle()
        ((name, again),) = store.retries
        assert (name, again.seq, again.redelivered) == ("work", 7, True)
        assert again.payload == entry(1, device="d1", call="call-1").payload
        assert store.entries[-1].seq == 8
        assert await store.undone(device="d1") == [4, 6, 7, 8]  # at its lane's tail
        assert await told.beside("dead", path) == "none\n"


async def test_a_poll_picks_a_retried_letter_up(path: Path, told: Told) -> None:
    async with journal(path) as store:
        await fill(store)
        await told.beside("retry", path, "--all")
        store.poll_retries()
        await store.settle()
        assert [one.redelivered for _, one in store.retries] == [True]
        commits = store.stats().committed
        store.poll_retries()
        await store.settle()
        assert store.stats().committed == commits


def test_a_retried_letter_waits_for_the_next_start(filled: Path, told: Told) -> None:
    assert told.json("retry", filled, "--handler", "work") == [{"retried": 1, "inUse": False}]
    assert "(to be retried) ValueError: boom" in told("dead", filled)

    async def start(name: str) -> tuple[int, list[int]]:
        async with journal(filled, [name]) as store:
            return store.owed, await store.undone()

    assert asyncio.run(start("another")) == (0, [4, 5, 6])  # its handler is not here
    assert asyncio.run(start("work")) == (4, [4, 5, 6, 7])


def test_retry_wants_to_know_which(filled: Path, told: Told) -> None:
    assert "or --all" in told("retry", filled, code=2)
    assert "5: is no dead letter" in told("retry", filled, 1, 5, code=2)
    assert "there are: work" in told("retry", filled, "--handler", "x", code=2)
    assert not told.json("dead", filled)[0]["toBeRetried"]


def test_a_handler_that_is_none_is_quoted(filled: Path, told: Told) -> None:
    why = "is no handler of this journal; there are: work\n"
    assert told("forget", filled, "", code=2) == f"cti-listen: '': {why}"
    assert told("list", filled, "--handler", "x", code=2) == f"cti-listen: 'x': {why}"


async def test_forget_drops_what_does_not_run(path: Path, told: Told) -> None:
    async with journal(path, ["work", "old"]) as store:
        await fill(store)
    async with journal(path, ["old"]) as store:
        assert "is in use" in await told.beside("forget", path, "old", code=2)
        answer = await told.beside("forget", path, "work")
        assert answer == "forgot work: 3 unfinished events, 1 dead letter\n"
        store.add(entry(9, owed=("old",)))
        await store.settle()
    async with journal(path, ["work"]) as store:
        assert store.owed == 0  # the name is new again
        assert store.opened.absent == {"old": 1}


async def test_forget_leaves_what_began_to_run_while_it_counted(path: Path) -> None:
    async with journal(path) as store:
        await fill(store)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as running:

        async def start() -> None:
            await running.enter_async_context(journal(path))

        def forget() -> None:
            def before(statement: str) -> None:
                if statement.startswith("BEGIN"):
                    asyncio.run_coroutine_threadsafe(start(), loop).result()

            with visits.visit(path, write=True) as db:
                db.set_trace_callback(before)
                visits.forget(db, path, "work")

        with pytest.raises(ConfigurationError, match="is in use"):
            await asyncio.to_thread(forget)
    async with journal(path) as store:
        assert store.owed == 3


def traces(path: Path, number: str) -> list[str]:
    """Search the files by another process: closing them in this one would drop SQLite's locks."""
    files = sorted(path.parent.glob(f"{path.name}*"))
    found = subprocess.run(["grep", "-la", number, *files], stdout=subprocess.PIPE, check=False)
    return found.stdout.decode().split()


async def test_purge_erases_a_person_while_running(path: Path, told: Told) -> None:
    async with journal(path) as store:
        for number in range(300):
            call = f"call-{number // 10}"
            caller = NUMBER if number % 30 == 0 else f"1390000{number:04}"
            payload = {"callingDevice": f"{caller}@zhen04.cc"} if number % 10 == 0 else {}
            store.add(entry(number, call=call, payload=payload))
        await store.settle()
        store.dead("work", 1, f"ValueError: {NUMBER}")
        store.seated("5001@zhen04.cc", (f"{NUMBER}@zhen04.cc", ""))
        lost = EventKey("zhen04.cc", "csta", "d", 1, "delivered", None, "call-3")
        store.gap(
            Gap(at=START, id=1, since=START, until=None, reason="half_open", last_before=lost)
        )
        await store.settle()
        assert traces(path, NUMBER)
        what = "100 events of 10 calls, 1 dead letter, 1 gap named them\n"
        answer = await told.beside("purge", path, "--number", NUMBER, "--dry-run")
        assert answer == f"{NUMBER}: would erase {what}"
        answer = await told.beside("purge", path, "--number", NUMBER)
        assert answer == f"{NUMBER}: erased {what}{OF_REPEATS}"
        assert OF_REPEATS not in await told.beside("purge", path, "--number", NUMBER)
        assert traces(path, NUMBER) == []
        assert traces(path, "13900000010")
        left = await store.undone()
        assert len(left) == 200
        store.add(entry(400))
        await store.settle()
        assert not store.failures
        assert len(await store.undone()) == 201


async def test_purge_erases_how_far_a_number_was_as_a_device(path: Path, told: Told) -> None:
    device = f"{NUMBER}@zhen04.cc"
    async with journal(path) as store:
        for number in range(6):
            store.add(entry(number, device=device if number % 2 else "d"))
        await store.settle()
        store.done("work", device, 4)
        store.done("work", "d", 3)
        await store.settle()
        await told.beside("purge", path, "--number", NUMBER)
        assert traces(path, NUMBER) == []
        assert await store.undone() == [5]
        store.done("work", device, 6)  # a handler was at it
        await store.settle()
        assert traces(path, NUMBER) == []
        store.add(entry(7, device=device))
        await store.settle()
        assert await store.undone(device=device) == [7]
        store.done("work", device, 7)
        await store.settle()
        assert await store.undone() == [5]


async def test_a_lane_of_which_purge_erased_a_call_does_nothing_twice(
    path: Path, told: Told
) -> None:
    async with journal(path) as store:
        for number in range(3):
            payload = {"callingDevice": NUMBER} if number else {}
            store.add(entry(number, device="d", call=f"c{number}", payload=payload))
        await store.settle()
        await told.beside("purge", path, "--number", NUMBER)
        store.done("work", "d", 3)
        await store.settle()
        assert await store.undone() == []


async def test_purge_leaves_the_mark_of_what_came_while_it_looked(path: Path) -> None:
    device = f"{NUMBER}@zhen04.cc"
    loop = asyncio.get_running_loop()
    async with journal(path) as store:
        store.add(entry(1, device=device))
        await store.settle()

        async def more() -> None:
            store.add(entry(2, device=device))
            await store.settle()
            store.done("work", device, 2)
            await store.settle()

        def purge() -> None:
            def before(statement: str) -> None:
                if statement.startswith("DELETE FROM event"):
                    db.set_trace_callback(None)
                    asyncio.run_coroutine_threadsafe(more(), loop).result()

            with visits.visit(path, write=True) as db:
                db.set_trace_callback(before)
                purge_number(db, path, NUMBER)

        await asyncio.to_thread(purge)
        assert await store.undone() == []


async def test_what_purge_erased_of_a_gap_does_not_come_back_with_its_end(
    path: Path, told: Told
) -> None:
    lost = EventKey("zhen04.cc", "csta", f"{NUMBER}@zhen04.cc", 1, "delivered", None, "c")
    after = EventKey("zhen04.cc", "csta", "d", 2, "held", None, "c2")
    gap = Gap(at=START, id=1, since=START, until=None, reason="half_open", last_before=lost)
    async with journal(path) as store:
        store.gap(gap)
        await store.settle()
        await told.beside("purge", path, "--number", NUMBER)
        for became in (replace(gap, until=START), replace(gap, until=START, first_after=after)):
            store.gap(became)
            await store.settle()
            assert traces(path, NUMBER) == []
    kept = json.loads(await told.beside("gaps", path, "--json"))
    assert (kept["lastBefore"], kept["firstAfter"]["serial"]) == (None, 2)


@pytest.mark.parametrize(
    "text",
    [
        b'{"callingDevice":"13800138000","callingDevice":"8001@x.cc"}',
        b'{"x":{"n":"13800138000"},"x":1}',
        b'{"x":[{"called":13800138000,"called":"8001"}]}',
        b'{"callingDevice":"\\u0031\\u0033800138000"}',
    ],
)
def test_purge_finds_a_number_in_a_text_as_it_came(path: Path, told: Told, text: bytes) -> None:
    async def write() -> None:
        async with journal(path) as store:
            store.add(entry(1), text)
            await store.settle()

    asyncio.run(write())
    told("purge", path, "--number", "13800138000")
    assert traces(path, "13800138000") == []
    assert told("list", path) == "none\n"


def test_purge_after_purge_leaves_no_trace_of_anyone(path: Path, told: Told) -> None:
    chance = random.Random(3)
    people = [f"139{number:08}" for number in range(40)]

    async def write() -> None:
        async with journal(path) as store:
            for number in range(2000):
                caller = chance.choice(people)
                pad = "x" * chance.randint(0, 1500)
                payload = {"callingDevice": f"{caller}@zhen04.cc", "pad": pad}
                device = f"{caller}@zhen04.cc" if number % 2 else "d"
                store.add(entry(number, device=device, call=f"c{number}", payload=payload))
                if number % 50 == 0:
                    await store.settle()

    asyncio.run(write())
    chance.shuffle(people)
    for number in people:
        told("purge", path, "--number", number)
        assert traces(path, number) == []
    assert told("list", path) == "none\n"


@pytest.mark.parametrize(
    ("text", "number", "quoted"),
    [
        ("KeyError: '8002@zhen04.cc'", "8002", True),
        ("ValueError: tel:+8613800138000x", "13800138000", True),
        ("ValueError: tel:8613800138000x", "+8613800138000", True),
        ("ValueError: 13800138000", "138-0013-8000", True),
        ("ValueError: 138-0013-8000", "138-0013-8000", True),
        ("<Lane at 0x7f80024c>, line 18002", "8002", False),
    ],
)
def test_a_dead_letter_goes_where_its_traceback_quotes_the_number(
    text: str, number: str, *, quoted: bool
) -> None:
    assert quotes(text, number) is quoted


def test_purge_tells_of_copies_it_leaves(filled: Path, told: Told) -> None:
    copy = filled.with_name("journal.db.v1")
    copy.touch()
    assert f"the copy {copy} is not touched: delete it" in told("purge", filled, "--number", NUMBER)


@pytest.mark.parametrize(
    "nobody",
    [
        *("", " ", "+", "@", "@zhen04.cc", " @zhen04.cc", "+@zhen04.cc", "8002@", "8002@@"),
        *("csta", "**", "zhen04.cc", "call-1", "80-02", "138.0013.8000", "8001,8002"),
    ],
)
def test_purge_refuses_what_is_no_number(filled: Path, told: Told, nobody: str) -> None:
    err = told("purge", filled, f"--number={nobody}", code=2)
    assert err == (
        f"cti-listen: --number: {nobody!r} is no number; write one as 13800138000 or"
        " +8613800138000, or an id whole, as 8002@zhen04.cc\n"
    )
    assert told("stats", filled).splitlines()[1].startswith("6 events")


@pytest.mark.parametrize(
    ("given", "looked_for"),
    [
        ("+86 138 0013 8000", "+8613800138000"),
        ("138-0013-8000", NUMBER),
        ("(0138) 0013\u20118000@zhen04.cc", "013800138000@zhen04.cc"),
        ("\uff11\uff13\uff18\uff10\uff10\uff11\uff13\uff18\uff10\uff10\uff10", NUMBER),
        ("80 02", "8002"),
        (" 8002 @zhen04.cc", "8002@zhen04.cc"),
        ("8002-1@zhen04.cc", "8002-1@zhen04.cc"),
        ("ivr-1@zhen04.cc", "ivr-1@zhen04.cc"),
        ("manager@zhen04.cc", "manager@zhen04.cc"),
    ],
)
def test_purge_tells_which_number_it_looked_for(
    filled: Path, told: Told, given: str, looked_for: str
) -> None:
    number = f"--number={given}"
    answer = told("purge", filled, number, "--dry-run")
    assert answer.startswith(f"{looked_for}: would erase 0 events")
    assert told.json("purge", filled, number)[0]["number"] == looked_for


@pytest.mark.parametrize(
    ("value", "number", "named"),
    [
        (f"{NUMBER}@zhen04.cc", NUMBER, True),
        (f"{NUMBER}@zhen04.cc@zhen04.cc", f"{NUMBER}@zhen04.cc", True),
        (NUMBER, f"{NUMBER}@zhen04.cc", True),
        (f"{NUMBER}@zhen04.cc", f"{NUMBER}@other.cc", False),
        (f"{NUMBER}1", NUMBER, False),
        ({"connectionId": f"{NUMBER}@zhen04.cc|call"}, NUMBER, True),
        ({"devices": {NUMBER: [1]}}, NUMBER, True),
        ({"callingDevice": int(NUMBER)}, NUMBER, True),
        ({"serial": int(NUMBER)}, NUMBER, False),
        ({"serial": NUMBER}, NUMBER, False),
        ({"userData": {"mobile": int(NUMBER)}}, NUMBER, True),
        ({"userData": f'{{"mobile": "{NUMBER}"}}'}, NUMBER, True),
        (f"tel:+86{NUMBER}", NUMBER, True),
        (f"9{NUMBER}", NUMBER, True),
        (f"20170318141324-8002-{NUMBER}.wav", NUMBER, True),
        (f"20170{NUMBER}", NUMBER, False),
        (f"tel:{NUMBER}", f"{NUMBER}@zhen04.cc", False),
        (f"tel:+86{NUMBER}", f"+86{NUMBER}", True),
        (f"sip:+86{NUMBER}@gw", f"+86{NUMBER}", True),
        (f"86{NUMBER}", f"+86{NUMBER}", True),
        (NUMBER, f"+86{NUMBER}", False),
        (f"{NUMBER}@zhen04.cc", "138-0013-8000", True),
        (f"tel:+86{NUMBER}", "+86 138 0013 8000", True),
        ("138-0013-8000", "138-0013-8000", True),
        ("8002", "80 02", True),
        ("80021@zhen04.cc", "8002-1@zhen04.cc", False),
        ("record-8002.wav", "8002", False),
        (8002, "8002", False),
        (None, NUMBER, False),
    ],
)
def test_a_number_is_found_wherever_it_names_a_device(
    value: object, number: str, named: object
) -> None:
    assert names(value, number) is named


@pytest.mark.parametrize("command", ["stats", "list", "gaps", "dead"])
def test_what_is_no_journal_is_said_in_a_line(path: Path, told: Told, command: str) -> None:
    assert "does not exist" in told(command, path, code=74)
    assert not path.exists()
    path.touch()
    assert "no listener has opened it yet" in told(command, path, code=74)
    path.write_text("something else " * 200)
    assert "is not a journal" in told(command, path, code=74)
    assert "is no file" in told(command, path.parent, code=74)


async def test_what_came_from_a_server_cannot_steer_the_terminal(path: Path, told: Told) -> None:
    async with journal(path) as store:
        store.add(entry(1, device="\x1b[2J\x9b31m", payload={"x": "\x1b]0;owned\x07王"}))
        await store.settle()
        for command in (["list", path], ["show", path, 1]):
            text = await told.beside(*command)
            assert not {"\x1b", "\x9b", "\x07"} & set(text)
