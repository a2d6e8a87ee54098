from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from cti_listener.ops import logs, repeats
from cti_listener.ops.descriptor import Descriptor
from cti_listener.ops.masking import Masker
from tests.disks import full_at
from tests.program import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Configure = Callable[..., logs.Logs]


class Pipe:
    """A stderr that is read at the end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def text(self) -> str:
        received = b""
        try:
            while chunk := os.read(self.reader, 65_536):
                received += chunk
        except BlockingIOError:
            pass
        return received.decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def configure(pipe: Pipe) -> Iterator[Configure]:
    """Configure the logs to go to the pipe; afterwards all is as it was."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)

    def configure(masker: Masker | None = None, **options: Any) -> logs.Logs:
        sink = logs.LogSink(Descriptor(pipe.writer))
        return logs.configure(
            sink, masker or Masker(), **{"level": "info", "as_json": True, **options}
        )

    yield configure
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def log() -> Any:
    return structlog.get_logger("cti_listener")


def test_a_line_is_a_json_object_what_matters_first(configure: Configure, pipe: Pipe) -> None:
    configure()
    log().info("connected", url="ws://h/x", name="张三")
    text = pipe.text()
    line = json.loads(text)
    assert list(line) == ["time", "level", "event", "url", "name"]
    assert (line["level"], line["event"], line["url"]) == ("info", "connected", "ws://h/x")
    assert "张三" in text


@pytest.mark.parametrize("as_json", [True, False])
def test_which_connection_it_is_about_stands_ahead_of_what_is_said(
    configure: Configure, pipe: Pipe, as_json: object
) -> None:
    configure(as_json=bool(as_json))
    with structlog.contextvars.bound_contextvars(feed="b", connection=3):
        log().info("connected", url="ws://h/x")
    text = pipe.text()
    if as_json:
        assert list(json.loads(text)) == ["time", "level", "event", "feed", "connection", "url"]
    else:
        assert text.endswith("feed=b connection=3 url=ws://h/x\n")


def test_lines_below_the_level_are_not_logged(configure: Configure, pipe: Pipe) -> None:
    configure(level="warning")
    log().info("connected")
    log().debug("session_opened")
    log().warning("gap")
    assert [line["event"] for line in pipe.lines()] == ["gap"]


def test_the_form_for_people_aligns_names_and_shows_what_would_steer(
    configure: Configure, pipe: Pipe
) -> None:
    configure(as_json=False)
    log().info("connected", url="ws://h/x", why="no answer", key=["a", 1], empty="")
    log().warning("message_bad", sample="\x1b[2J\n", size=3)
    first, second = pipe.text().splitlines()
    assert first[9:] == (
        'info    connected              url=ws://h/x why="no answer" key=["a", 1] empty=""'
    )
    assert second[9:] == r"warning message_bad            sample=\x1b[2J\n size=3"


def test_colour_is_only_there_when_asked_for(configure: Configure, pipe: Pipe) -> None:
    configure(as_json=False, colour=True)
    log().error("handler_failed")
    assert "\x1b[31merror" in pipe.text()


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_and_numbers_are_masked_in_whatever_is_logged(
    configure: Configure, pipe: Pipe, as_json: object
) -> None:
    masker = Masker()
    masker.learn(["CANARY-1"])
    configure(masker, as_json=bool(as_json))
    try:
        raise ValueError("CANARY-1 and 13812345678")  # noqa: TRY301
    except ValueError:
        log().exception("handler_failed", detail="CANARY-1", token="CANARY-2", who=["13812345678"])
    text = pipe.text()
    assert "CANARY" not in text
    assert "13812345678" not in text
    assert "ValueError: ******** and 138****5678" in text


def test_what_was_held_back_is_told_at_the_end(configure: Configure, pipe: Pipe) -> None:
    configured = configure()
    for _ in range(repeats.AT_ONCE + 2):
        log().warning("gap")
    configured.flush()
    assert [line["event"] for line in pipe.lines()] == ["gap"] * repeats.AT_ONCE
    configured.flush(at_the_end=True)
    (rest,) = pipe.lines()
    assert (rest["event"], rest["of"], rest["left_out"]) == ("lines_left_out", "gap", 2)


def test_a_full_stderr_stops_nobody_and_what_it_missed_comes_later(
    configure: Configure, pipe: Pipe
) -> None:
    configured = configure()
    for number in range(3000):
        log().info(f"line_{number}", filling="x" * 100)
    received = ""
    while chunk := pipe.text():  # now there is room again, and again
        received += chunk
        configured.flush()
    names = [json.loads(line)["event"] for line in received.splitlines()]
    first = names.index("line_2999") - 998
    assert names[first:] == [f"line_{number}" for number in range(2001, 3000)]
    assert names[:first] == [f"line_{number}" for number in range(first)]


def test_a_stderr_nobody_reads_stops_nobody(configure: Configure, pipe: Pipe) -> None:
    configured = configure()
    os.close(pipe.reader)
    log().info("connected")
    log().info("disconnected")
    configured.flush()
    pipe.reader = os.dup(pipe.writer)  # for the fixture to close


def test_a_full_disk_under_stderr_loses_no_line_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"half a line")
    with path.open("ab") as file:
        sink = logs.LogSink(Descriptor(file.fileno()))
        with full_at(20):
            sink.write("connected")
            sink.write("disconnected")
        assert path.read_bytes() == b"half a line\nconnecte"
        sink.write("stopped")
    assert path.read_bytes() == b"half a line\nconnected\ndisconnected\nstopped\n"


def test_lines_said_elsewhere_are_left_out(configure: Configure, pipe: Pipe) -> None:
    configure(leave_out=frozenset({"connected"}))
    log().info("connected")
    log().info("stopping")
    assert [line["event"] for line in pipe.lines()] == ["stopping"]


def test_why_the_program_ends_is_said_at_any_level(configure: Configure, pipe: Pipe) -> None:
    configure(level="error").fail("refused: no\x1b", 77)
    line = pipe.lines()[0]
    assert (line["event"], line["problem"], line["exit_code"]) == ("failed", "refused: no\x1b", 77)
    configure(as_json=False).fail("refused: no\x1b", 77)
    assert pipe.text() == "cti-listen: refused: no\\x1b\n"


def test_a_stack_stands_below_its_line_in_the_form_for_people(
    configure: Configure, pipe: Pipe
) -> None:
    stack = 'File "a.py", line 1, in f\n  g()\x1b'
    configure(as_json=False)
    log().warning("loop_blocked", seconds=1.5, stack=stack)
    line, *below = pipe.text().splitlines()
    assert line.endswith("loop_blocked           seconds=1.5")
    assert below == ['    File "a.py", line 1, in f', "      g()\\x1b"]
    configure()
    log().warning("loop_blocked", stack=stack)
    assert pipe.lines()[0]["stack"] == stack


def test_lines_of_several_threads_arrive_whole_and_once(configure: Configure, pipe: Pipe) -> None:
    configured = configure()
    each = 100

    def write(thread: int) -> None:
        for number in range(each):
            log().info(f"line-{thread}-{number}")
            configured.flush()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
    finally:
        sys.setswitchinterval(before)
    arrived = Counter(line["event"] for line in pipe.lines())
    assert arrived == Counter(f"line-{i}-{number}" for i in range(4) for number in range(each))


class TestStandardLibrary:
    def test_other_libraries_lines_come_under_their_loggers_name(
        self, configure: Configure, pipe: Pipe
    ) -> None:
        configure()
        logging.getLogger("websockets.client").warning("odd %s", "thing")
        logging.getLogger("websockets.client").info("chatter")
        [line] = pipe.lines()
        assert line["event"] == "websockets.client"
        assert (line["level"], line["message"]) == ("warning", "odd thing")

    @pytest.mark.parametrize(("level", "with_trace"), [("info", False), ("debug", True)])
    def test_their_traces_are_for_those_who_debug(
        self, configure: Configure, pipe: Pipe, level: str, with_trace: object
    ) -> None:
        configure(level=level)
        try:
            raise ConnectionResetError("gone")  # noqa: TRY301
        except ConnectionResetError:
            logging.getLogger("websockets.client").exception("failed")
        [line] = pipe.lines()
        assert ("exception" in line) is with_trace
        assert line.get("error", "ConnectionResetError: gone") == "ConnectionResetError: gone"

    def test_warnings_are_logged(self, configure: Configure, pipe: Pipe) -> None:
        configure()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert pipe.lines()[0]["event"] == "py.warnings"


def test_importing_and_embedding_the_library_configures_nothing() -> None:
    script = (
        "import structlog, logging\n"
        "from cti_listener import Listener\n"
        "Listener('ws://127.0.0.1:9/', namespace='zhen04.cc')\n"
        "assert not structlog.is_configured()\n"
        "assert not logging.getLogger().handlers\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=30)
