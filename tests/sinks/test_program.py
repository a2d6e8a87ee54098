"""The program with `--to`: killed, reopened, stopped; what it writes and what it refuses."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from cti_listener.simulator import Centre, SimulatorServer
from tests.examples import make
from tests.journal.support import undone_in
from tests.program import listening, read_line, read_until, rest, run
from tests.sinks.receiver import KEY, OTHER_KEY, Answer, receiving
from tests.turns import until


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    return file


def arguments(server: SimulatorServer, *more: object) -> tuple[str, ...]:
    given = ("--url", server.stomp_url, "--ns", "zhen04.cc", "--format", "json")
    return (*given, *map(str, more))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def serials_of(path: Path) -> list[int]:
    return [line["serial"] for line in lines_of(path) if "serial" in line]


async def committed(journal: Path, count: int) -> None:
    """Wait until so many events are on disk: nobody tells us."""

    def on_disk() -> int:
        with closing(sqlite3.connect(journal)) as db:
            (found,) = db.execute("SELECT count(*) FROM event").fetchone()
            return int(found)

    async with asyncio.timeout(20):
        while await asyncio.to_thread(on_disk) < count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


async def done_with(journal: Path, handler: str) -> None:
    """Wait until the journal knows that nothing is owed to a handler."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(undone_in, journal, handler):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["away", "stalls", "fails"])
async def test_killed_while_the_receiver_is_down_the_next_run_delivers_the_rest_once_in_order(
    how: str, journal: Path, secret_file: Path
) -> None:
    async with SimulatorServer() as server, receiving(KEY) as receiver:
        given = arguments(
            server, "--journal", journal, "--to", f"crm={receiver.url}", "--webhook-secret-file",
            secret_file,
        )  # fmt: skip
        async with listening(*given) as process:
            await server.wait_for_subscribers()
            for serial in range(20):
                await server.send(make(serial=serial, device=8000 + serial % 4))
            await until(lambda: len(receiver.serials) == 20)
            await done_with(journal, "crm")
            if how == "away":
                await receiver.go_away()
            else:
                receiver.answer = Answer(stall=True) if how == "stalls" else Answer(status=500)
            for serial in range(20, 60):
                await server.send(make(serial=serial, device=8000 + serial % 4))
            await committed(journal, 60)
            if how != "away":
                await until(lambda: len(receiver.ids) >= 24)
            process.kill()
            await process.wait()
        before = len(receiver.accepted)
        receiver.answer = Answer()
        if how == "away":
            await receiver.start()
        async with listening(*given) as process:
            await until(lambda: len(receiver.serials) >= 60)
            process.send_signal(signal.SIGTERM)
            _, errors = await rest(process)
            assert process.returncode == 0, errors
    assert receiver.repeats == 0
    assert sorted(receiver.serials) == list(range(60))
    for device in range(4):
        mine = [n for n in receiver.serials if n % 4 == device]
        assert mine == sorted(mine)
    later = [one["data"] for one in receiver.accepted[before:]]
    assert [one["reason"] for one in later if one["eventName"] == "gap"] == ["listener_down"]


async def test_a_file_holds_what_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    async with (
        SimulatorServer() as server,
        listening(*arguments(server, "--to", f"jsonl:{file}")) as process,
    ):
        await server.wait_for_subscribers()
        for serial in range(10):
            await server.send(make(serial=serial, device=8000 + serial % 3))
        printed: list[dict[str, Any]] = []
        while not printed or printed[-1].get("serial") != 9:
            printed.append(await read_line(process.stdout))
        process.send_signal(signal.SIGTERM)
        _, errors = await rest(process)
        assert process.returncode == 0, errors
    assert serials_of(file) == list(range(10))
    assert lines_of(file)[: len(printed)] == printed
    assert file.stat().st_mode & 0o777 == 0o600


async def test_after_the_count_the_sinks_still_get_what_has_come(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    async with SimulatorServer() as server, receiving() as receiver:
        to = ("--to", f"jsonl:{file}", "--to", receiver.url)
        async with listening(*arguments(server, "--count", "2", *to)) as process:
            await server.wait_for_subscribers()
            for serial in range(2):
                await server.send(make(serial=serial))
            printed, errors = await rest(process)
        assert process.returncode == 0, errors
    assert [line["serial"] for line in printed if "serial" in line] == [0, 1]
    assert serials_of(file) == [0, 1]
    assert receiver.serials == [0, 1]


async def test_lines_on_stdout_stay_whole_beside_the_output() -> None:
    async with (
        SimulatorServer() as server,
        listening(*arguments(server, "--to", "stdout:")) as process,
    ):
        await server.wait_for_subscribers()
        for serial in range(300):  # more than a pipe holds, and nobody reads yet
            await server.send(make(serial=serial))
        for _ in range(2):
            while (await read_until(process.stdout, "delivered"))["serial"] != 299:
                pass
        process.send_signal(signal.SIGTERM)
        _, errors = await rest(process)
        assert process.returncode == 0, errors


async def test_hangup_opens_the_file_anew(tmp_path: Path) -> None:
    file, aside = tmp_path / "events.jsonl", tmp_path / "events.1"
    async with (
        SimulatorServer() as server,
        listening(*arguments(server, "--to", f"jsonl:{file}")) as process,
    ):
        await server.wait_for_subscribers()
        await read_until(process.stderr, "connected")
        await server.send(make(serial=1))
        async with asyncio.timeout(10):
            while 1 not in await asyncio.to_thread(serials_of, file):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        file.rename(aside)
        process.send_signal(signal.SIGHUP)
        await read_until(process.stderr, "sink_reopened")
        assert file.read_bytes() == b""
        await server.send(make(serial=2))
        while (await read_until(process.stdout, "delivered"))["serial"] != 2:
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = await rest(process)
        assert process.returncode == 0, errors
    assert (serials_of(aside), serials_of(file)) == ([1], [2])


async def test_hangup_has_new_keys_sign_and_until_they_are_read_the_old_ones(
    secret_file: Path,
) -> None:
    """The new file is a pipe, and so is not read to its end before the test has it so."""
    async with SimulatorServer() as server, receiving(KEY, OTHER_KEY) as receiver:
        serials = itertools.count()

        async def send() -> list[int]:
            sent = list(itertools.islice(serials, 20))
            for serial in sent:
                await server.send(make(serial=serial, device=8000 + serial % 4))
            return sent

        async def signed_by(keys: list[str]) -> None:
            """Send some; each must be signed by these keys, and by no other."""
            sent = await send()
            await until(lambda: set(sent) <= set(receiver.serials) or [] in receiver.signed_by)
            assert [] not in receiver.signed_by
            taken = zip(receiver.accepted, receiver.signed_by, strict=True)
            of = {one["data"].get("serial"): sorted(signers) for one, signers in taken}
            assert [of[serial] for serial in sent] == [sorted(keys)] * len(sent)

        to = ("--to", f"crm={receiver.url}", "--webhook-secret-file", secret_file)
        async with listening(*arguments(server, *to), stdout=subprocess.DEVNULL) as process:
            await server.wait_for_subscribers()
            old = [KEY]
            await signed_by(old)
            for new in ([OTHER_KEY, KEY], [OTHER_KEY], [KEY]):
                pipe = secret_file.with_name("new")
                os.mkfifo(pipe)
                pipe.replace(secret_file)
                process.send_signal(signal.SIGHUP)
                writer = await opened_by_its_reader(secret_file)
                await signed_by(old)
                await send()  # on their way while the keys change
                os.write(writer, "\n".join([*new, ""]).encode())
                os.close(writer)
                await read_until(process.stderr, "sink_reopened")
                await signed_by(new)
                old = new
            process.send_signal(signal.SIGTERM)
            _, errors = await rest(process)
            assert process.returncode == 0, errors
    assert sorted(receiver.serials) == list(range(next(serials)))
    assert len(receiver.headers) == len(receiver.accepted)  # all verified, and at the first try


async def opened_by_its_reader(pipe: Path) -> int:
    """Wait until somebody reads a pipe; return it open for writing."""
    opened: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody reads it yet
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    await until(is_read)
    return opened[0]


async def test_records_go_to_sinks_when_asked_for(tmp_path: Path) -> None:
    for what, kinds in (("records", {False}), ("both", {True, False})):
        file = tmp_path / f"{what}.jsonl"
        centre = Centre(1, agents=8, rate=50.0)
        async with SimulatorServer(centre=centre, speed=5.0, await_subscriber=True) as server:
            given = arguments(server, "--count", 120, "--to", f"jsonl:{file}", "--to-records", what)
            done = await asyncio.to_thread(run, *given)
        assert done.returncode == 0, done.stderr
        lines = lines_of(file)
        names = {line["eventName"] for line in lines if line["eventType"] == "listener"}
        assert "callEnded" in names
        assert {line["eventType"] != "listener" for line in lines} == kinds


async def test_hangup_without_a_sink_ends_nothing() -> None:
    async with SimulatorServer() as server, listening(*arguments(server)) as process:
        await server.wait_for_subscribers()
        await read_until(process.stdout, "connected")
        process.send_signal(signal.SIGHUP)
        for serial in range(2):
            await server.send(make(serial=serial))
            await read_until(process.stdout, "delivered")
        process.send_signal(signal.SIGTERM)
        _, errors = await rest(process)
    assert process.returncode == 0, errors


# Mistakes


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("ftp://host/x", "ftp: is no sink there is; there are jsonl:PATH, stdout:, https://HOST"),
        ("/var/log/x", "'/var/log/x' has no scheme; there are jsonl:PATH"),
        ("jsonl:", "jsonl: needs a file; write jsonl:PATH"),
        ("jsonl:/no/such/directory/x", "there is no directory /no/such/directory; make it first"),
        ("https:///hook", "write it as https://HOST[:PORT]/PATH"),
        ("https://host:port/hook", "is followed by what is no address"),
        ("stdout:x", "write stdout:"),
        ("output=stdout:", "give this one a name of its own: NAME=URL"),
        ("stdout:,stdout:", "there is a stdout: already"),
    ],
)
def test_a_mistake_is_named(to: str, said: str) -> None:
    done = run("check", "--demo", CTI_TO=to)
    assert done.returncode == 78
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_ends_the_run_before_anything_is_connected() -> None:
    done = run("--demo", "--to", "ftp://host/x")
    assert (done.returncode, done.stdout) == (78, "")
    assert "ftp: is no sink there is" in done.stderr


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for text, said in (
        (None, "cannot read"),
        ("", "holds no key"),
        ("whsec_CANARY!", "key 1 in"),
        ("whsec_Q0FOQVJZ", "has 6 bytes; write whsec_ and 24 to 64 random bytes in base64"),
    ):
        if text is not None:
            file.write_text(text)
        done = run("check", "--demo", "--to", "https://h/x", "--webhook-secret-file", str(file))
        assert done.returncode == 78
        assert said in done.stderr
        assert "CANARY" not in done.stderr + done.stdout


def test_secrets_in_a_url_are_refused_as_flags_and_never_shown(tmp_path: Path) -> None:
    for url in ("https://me:CANARY@host/x", "crm=https://host/x?token=CANARY"):
        done = run("check", "--demo", "--to", url)
        assert (done.returncode, "CTI_TO" in done.stderr) == (78, True)
        assert "CANARY" not in done.stderr + done.stdout
        assert run("check", "--demo", CTI_TO=url).returncode == 0
        assert "CANARY" not in run("check", "--demo", CTI_TO=url).stdout


async def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    async with SimulatorServer() as server:
        given = arguments(server, "--to", f"jsonl:{file}")
        async with listening(*given) as process:
            await read_until(process.stdout, "connected")
            done = await asyncio.to_thread(run, *given)
    assert done.returncode == 78
    assert "another process writes to" in done.stderr


def test_what_is_wrong_beside_a_sink_is_told_as_ever(tmp_path: Path) -> None:
    to = ("--to", f"jsonl:{tmp_path / 'x'}", "--to", "stdout:")
    done = run("--url", "ws://127.0.0.1:9/", "--max-attempts", "1", *to)
    assert done.returncode == 69


async def test_without_a_journal_what_was_not_passed_on_is_told_by_the_exit_code() -> None:
    for answer, said in ((503, "were not passed on within the drain time"), (410, "took no more")):
        async with SimulatorServer() as server, receiving() as receiver:
            receiver.answer = Answer(status=answer)
            given = arguments(server, "--to", f"crm={receiver.url}", "--drain", "0.1")
            async with listening(*given) as process:
                await server.wait_for_subscribers()
                await server.send(make())
                await read_until(process.stderr, "sink_failing" if answer == 503 else "sink_halted")
                process.send_signal(signal.SIGTERM)
                _, errors = await rest(process)
                assert (process.returncode, said in errors) == (75, True)


async def test_without_a_journal_what_is_refused_is_lost_and_told_by_the_exit_code(
    journal: Path,
) -> None:
    async with SimulatorServer() as server, receiving() as receiver:
        for kept in (False, True):
            receiver.answers.extend([Answer(), Answer(status=422), Answer(status=422)])
            to = ("--to", f"crm={receiver.url}", *(("--journal", journal) if kept else ()))
            async with listening(*arguments(server, *to)) as process:
                await server.wait_for_subscribers()
                await until(lambda: len(receiver.answers) < 3)  # what was told of the connection
                for serial in range(3):
                    await server.send(make(serial=serial))
                await until(lambda: receiver.serials[-1:] == [2])
                process.send_signal(signal.SIGTERM)
                _, errors = await rest(process)
            lines = [json.loads(line) for line in errors.splitlines()]
            warned = [one["level"] for one in lines if one["event"] == "sink_refused"]
            if kept:
                assert (process.returncode, warned) == (0, [])
            else:
                assert (process.returncode, warned) == (75, ["warning"])
                assert "2 events were refused by crm, and are lost; with --journal" in errors
            receiver.accepted.clear()
