"""What the package promises: its names, that they come when asked for, and its typed keywords."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import cti_listener
from cti_listener.sources.options import ConnectionKeywords, ConnectionOptions

NAMES = [
    "Agent",
    "AgentAllocated",
    "AgentEvent",
    "AgentLoggedOff",
    "AgentLoggedOn",
    "AgentMode",
    "AgentNotReady",
    "AgentReady",
    "AgentStateChanged",
    "AgentWorkingAfterCall",
    "Agents",
    "BadMessageError",
    "Call",
    "CallAnswered",
    "CallEnded",
    "CallEvent",
    "CallHeld",
    "CallRecord",
    "CallRetrieved",
    "CallRevised",
    "CallSnapshot",
    "CallStarted",
    "CallTransferred",
    "Calls",
    "CertificateError",
    "ClientState",
    "Conferenced",
    "ConfigurationError",
    "ConnectError",
    "Connected",
    "ConnectionCleared",
    "ConnectionOptions",
    "Credentials",
    "CtiError",
    "Delivered",
    "Delivery",
    "Derived",
    "DeviceSnapshot",
    "Disconnected",
    "Established",
    "Event",
    "EventKey",
    "EventStream",
    "Expectation",
    "Failed",
    "FeedStats",
    "FeedsApart",
    "Gap",
    "HaltError",
    "HandlerError",
    "HandlerStats",
    "Held",
    "Hold",
    "Inconsistency",
    "JournalError",
    "JournalStats",
    "Listener",
    "LocalState",
    "NotRunningError",
    "Notice",
    "Originated",
    "Overflow",
    "Party",
    "RecordEvent",
    "RecordStarted",
    "RecordStopped",
    "Recording",
    "RefusedError",
    "Retrieved",
    "ServiceInitiated",
    "SessionError",
    "SinkAwayError",
    "SinkError",
    "SnapshotStats",
    "Stats",
    "SubscriptionRefused",
    "Transfer",
    "Transferred",
    "Unhandled",
    "UnknownEvent",
    "UnreachableError",
    "WaitTimeoutError",
    "__version__",
    "parse_event",
]


def run(code: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cti_listener.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_these_are_the_public_names() -> None:
    assert sorted(cti_listener.__all__) == sorted(NAMES)
    assert len(set(cti_listener.__all__)) == len(cti_listener.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(cti_listener, name)
    assert name in dir(cti_listener)
    assert isinstance(value, str) or value.__doc__


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cti_listener.Nothing


def test_type_checkers_are_told_of_the_same_names_from_the_same_rooms() -> None:
    tree = ast.parse(Path(cti_listener.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cti_listener.")
        for alias in node.names
    }
    assert {*told, "__version__"} == set(NAMES)
    for name, home in told.items():
        assert getattr(sys.modules[getattr(cti_listener, name).__module__], name, None)
        assert cti_listener._HOME_OF[name] == home  # noqa: SLF001 - the other of the two lists


def test_the_names_are_written_out_as_type_checkers_read_no_other() -> None:
    tree = ast.parse(Path(cti_listener.__file__).read_text(encoding="utf-8"))
    (written,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert sorted(written) == sorted(["__version__", *cti_listener._HOME_OF])  # noqa: SLF001 - the other of the two lists


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run("import sys, cti_listener; print(*sorted(sys.modules))").split()
    heavy = {"pydantic", "websockets", "asyncio", "structlog", "tenacity", "cyclopts"}
    assert heavy.isdisjoint(loaded)
    assert [name for name in loaded if name.startswith("cti_listener.")] == []


def test_the_events_load_without_a_socket_or_a_loop_of_ours() -> None:
    code = "import sys, cti_listener; cti_listener.parse_event('{}'); print(*sys.modules)"
    loaded = set(run(code).split())
    assert "pydantic" in loaded
    assert loaded.isdisjoint({"websockets", "structlog", "tenacity", "cyclopts"})


def test_a_star_import_brings_every_name() -> None:
    there = run("from cti_listener import *; print(*dir())").split()
    assert set(NAMES) <= set(there)


def test_the_typed_keywords_are_the_options_with_their_types() -> None:
    options = get_type_hints(ConnectionOptions)
    assert get_type_hints(ConnectionKeywords) == options
    assert [field.name for field in dataclasses.fields(ConnectionOptions)] == list(options)
    assert ConnectionKeywords.__optional_keys__ == set(options)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(cti_listener.__file__).parent / "py.typed").exists()
