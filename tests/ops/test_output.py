from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import pty
import struct
import termios
import tty
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.errors import HaltError
from cti_listener.events import parse_event
from cti_listener.notices import Connected
from cti_listener.ops.descriptor import Descriptor
from cti_listener.ops.output import Output, json_line
from cti_listener.values import china
from tests.disks import full_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockbuster import BlockBuster

    from cti_listener.event_base import Event
    from cti_listener.notices import Notice

EXAMPLES = sorted((Path(__file__).parent.parent / "events").glob("*.json"))
EVENT = parse_event({"eventName": "held", "callId": "1", "callingDevice": "张三"})
NOTICE = Connected(
    at=datetime(2017, 3, 18, 14, 13, 24, tzinfo=china()), feed="a", url="ws://x/", confirmed=True
)


@pytest.fixture(autouse=True)
def writes_that_cannot_block(unblocked: BlockBuster) -> None:
    """Let a descriptor that says it is ready be written to, which no tool can know."""
    unblocked.functions["os.write"].can_block_in("cti_listener/ops/descriptor.py", "write_some")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):  # the test may have closed it
            os.close(fd)


def fill(writer: int) -> int:
    """Fill a pipe to the brim; return how much that took."""
    os.set_blocking(writer, False)
    taken = 0
    try:
        while True:
            taken += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
        return taken


async def drained(fd: int, task: asyncio.Task[None]) -> bytes:
    """Read while a task writes; return all it wrote."""
    os.set_blocking(fd, False)
    received = b""
    while True:
        done = task.done()
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(fd, 65_536):
                received += chunk
        if done:
            await task
            return received


async def is_not_taken(output: Output, happening: Event | Notice) -> None:
    """Hold it to not being done with what it has not written."""
    with pytest.raises(HaltError):
        await output.take(happening)


class TestJsonLine:
    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
    def test_is_the_object_as_received_compact_and_readable(self, example: Path) -> None:
        received = json.loads(example.read_text(encoding="utf-8"))
        line = json_line(parse_event(received))
        assert json.loads(line) == received
        assert b"\n" not in line
        assert b'": ' not in line

    def test_keeps_chinese_as_it_is(self) -> None:
        assert "张三" in json_line(EVENT).decode()

    def test_writes_a_notice_as_the_design_has_it(self) -> None:
        assert json.loads(json_line(NOTICE))["eventName"] == "connected"
        assert json.loads(json_line(NOTICE))["at"] == "2017-03-18T14:13:24.000+08:00"

    @given(st.dictionaries(st.text(), st.text(st.characters()) | st.integers() | st.none()))
    def test_any_text_survives_lone_surrogates_included(self, fields: dict[str, Any]) -> None:
        assert json.loads(json_line(parse_event(fields))) == fields

    def test_an_escaped_lone_surrogate_does_not_stop_the_output(self) -> None:
        line = json_line(parse_event(b'{"eventName":"held","reason":"\\ud83d"}'))
        assert json.loads(line) == {"eventName": "held", "reason": "\ud83d"}

    @pytest.mark.parametrize("other", ["", "\ud800", "张"])
    @pytest.mark.parametrize(
        "steering", [*map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202a\u202e\u2066\u2069"]
    )
    def test_what_steers_a_terminal_is_escaped_and_the_object_equal(
        self, steering: str, other: str
    ) -> None:
        fields = {"eventName": f"a\\{steering}{other}", f"{steering}": {"x": [steering]}}
        line = json_line(parse_event(fields))
        assert steering not in line.decode()
        assert json.loads(line) == fields


class TestOutput:
    async def test_a_line_is_written_when_the_handler_returns(self, pipe: tuple[int, int]) -> None:
        reader, writer = pipe
        output = Output(Descriptor(writer), json_line)
        await output.take(EVENT)
        assert os.read(reader, 4096) == json_line(EVENT) + b"\n"

    async def test_an_event_whose_form_fails_is_written_as_plain_json_and_told(
        self, pipe: tuple[int, int]
    ) -> None:
        def form(_: object) -> bytes:
            raise OverflowError

        reader, writer = pipe
        output = Output(Descriptor(writer), form)
        with structlog.testing.capture_logs() as logs:
            await output.take(EVENT)
        assert os.read(reader, 4096) == json_line(EVENT) + b"\n"
        assert [(one["event"], one["event_name"]) for one in logs] == [("form_failed", "held")]
        assert (output.events, output.error) == (1, None)

    async def test_ends_after_so_many_events_and_notices_do_not_count(
        self, pipe: tuple[int, int]
    ) -> None:
        reader, writer = pipe
        ends: list[int] = []
        output = Output(
            Descriptor(writer), lambda _: b"x", count=2, on_end=lambda: ends.append(output.events)
        )
        for one in (NOTICE, EVENT, NOTICE, EVENT):
            await output.take(one)
        for one in (EVENT, NOTICE):
            await is_not_taken(output, one)
        assert os.read(reader, 100) == b"x\n" * 4
        assert ends == [2]

    async def test_a_full_pipe_makes_the_handler_wait_and_not_the_loop(
        self, pipe: tuple[int, int]
    ) -> None:
        reader, writer = pipe
        filling = fill(writer)
        output = Output(Descriptor(writer), lambda _: b"y" * 20_000)
        task = asyncio.get_running_loop().create_task(output.take(EVENT))
        for _ in range(5):
            await asyncio.sleep(0)  # the loop turns
        assert not task.done()
        received = await drained(reader, task)
        assert received[filling:] == b"y" * 20_000 + b"\n"

    async def test_leaves_the_descriptor_blocking_for_those_who_share_it(
        self, pipe: tuple[int, int]
    ) -> None:
        _, writer = pipe
        await Output(Descriptor(writer), json_line).take(EVENT)
        assert os.get_blocking(writer)

    async def test_a_reader_that_has_left_is_a_quiet_end(self, pipe: tuple[int, int]) -> None:
        reader, writer = pipe
        ends: list[None] = []
        output = Output(Descriptor(writer), json_line, on_end=lambda: ends.append(None))
        os.close(reader)
        await is_not_taken(output, EVENT)
        await is_not_taken(output, EVENT)
        assert (output.abandoned, output.error, len(ends)) == (True, None, 1)

    async def test_a_reader_that_leaves_while_the_pipe_is_full_is_noticed(
        self, pipe: tuple[int, int]
    ) -> None:
        reader, writer = pipe
        fill(writer)
        output = Output(Descriptor(writer), json_line)
        task = asyncio.get_running_loop().create_task(output.take(EVENT))
        await asyncio.sleep(0)
        os.close(reader)
        async with asyncio.timeout(10):
            while not output.ended:  # noqa: ASYNC110 - the kernel wakes the loop, nobody tells us
                await asyncio.sleep(0)
        assert output.abandoned
        with pytest.raises(HaltError):
            await task

    async def test_a_reader_that_left_is_noticed_without_an_event(
        self, pipe: tuple[int, int]
    ) -> None:
        reader, writer = pipe
        output = Output(Descriptor(writer), json_line)
        output.look()
        assert not output.abandoned
        os.close(reader)
        output.look()
        assert output.abandoned

    async def test_a_full_disk_ends_it_with_the_error(self) -> None:
        fd = os.open("/dev/full", os.O_WRONLY)
        output = Output(Descriptor(fd), json_line)
        await is_not_taken(output, EVENT)
        os.close(fd)
        assert output.error is not None
        assert output.error.strerror == "No space left on device"

    async def test_a_file_is_written_without_waiting(self, tmp_path: Path) -> None:
        path = tmp_path / "events"
        with path.open("wb") as file:
            output = Output(Descriptor(file.fileno()), json_line)
            await output.take(EVENT)
            await output.take(NOTICE)
        assert path.read_bytes() == json_line(EVENT) + b"\n" + json_line(NOTICE) + b"\n"

    async def test_a_disk_that_fills_in_the_middle_of_a_line_ends_it_with_the_error(
        self, tmp_path: Path
    ) -> None:
        with (tmp_path / "events").open("wb") as file:
            output = Output(Descriptor(file.fileno()), json_line)
            with full_at(10):
                await is_not_taken(output, EVENT)
        assert output.error is not None
        assert output.error.strerror == "File too large"

    async def test_behind_a_line_that_was_written_in_part_comes_a_line_of_its_own(
        self, tmp_path: Path
    ) -> None:
        path, line = tmp_path / "events", json_line(EVENT) + b"\n"
        with path.open("wb") as file:
            descriptor = Descriptor(file.fileno())
            await descriptor.write(line)
            with full_at(len(line) + 10), pytest.raises(OSError, match="File too large"):
                await descriptor.write(line)
            await descriptor.write(line)
            await descriptor.write(line)
        assert path.read_bytes() == line + line[:10] + b"\n" + line + line

    @pytest.mark.parametrize("mode", ["ab", "r+b"])
    async def test_a_half_line_that_a_run_before_left_is_ended(
        self, tmp_path: Path, mode: str
    ) -> None:
        path = tmp_path / "events"
        path.write_bytes(b'{"half')
        with path.open(mode) as file:
            file.seek(0, os.SEEK_END)
            output = Output(Descriptor(file.fileno()), json_line)
            await output.take(EVENT)
        assert path.read_bytes() == b'{"half\n' + json_line(EVENT) + b"\n"

    async def test_a_half_line_in_a_file_that_nobody_may_read_is_ended_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        path = tmp_path / "events"
        path.write_bytes(b'{"half')
        with path.open("ab") as file:
            monkeypatch.setattr(os, "open", refuse)  # root may always
            descriptor = Descriptor(file.fileno())
            monkeypatch.undo()
            await descriptor.write(b"{}\n")
        assert path.read_bytes() == b'{"half\n{}\n'

    @pytest.mark.parametrize("before", [b"", b"{}\n"])
    async def test_a_file_of_whole_lines_gets_no_empty_one(
        self, tmp_path: Path, before: bytes
    ) -> None:
        path = tmp_path / "events"
        path.write_bytes(before)
        with path.open("ab") as file:
            await Descriptor(file.fileno()).write(b"{}\n")
        assert path.read_bytes() == before + b"{}\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, slave
    os.close(slave)
    os.close(master)


class TestTerminal:
    async def test_a_stopped_terminal_makes_the_handler_wait_and_not_the_loop(
        self, terminal: tuple[int, int]
    ) -> None:
        master, slave = terminal
        descriptor = Descriptor(slave)
        output = Output(descriptor, lambda _: b"z" * 3000)

        async def write_much() -> None:
            for _ in range(100):
                await output.take(EVENT)

        task = asyncio.get_running_loop().create_task(write_much())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the loop turns, though nobody reads the terminal
        assert not task.done()
        received = await drained(master, task)
        descriptor.close()
        assert (len(received), output.events) == (100 * 3001, 100)
        assert os.get_blocking(slave)

    def test_tells_how_wide_it_is(self, terminal: tuple[int, int]) -> None:
        _, slave = terminal
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
        descriptor = Descriptor(slave)
        assert (descriptor.terminal, descriptor.columns()) == (True, 77)
        descriptor.close()
