"""The errors: one base, the tree in the docstring, fields that survive a journey."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

from cti_listener import errors
from cti_listener.errors import (
    BadMessageError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    CtiError,
    HaltError,
    HandlerError,
    JournalError,
    NotRunningError,
    RefusedError,
    SessionError,
    SinkAwayError,
    SinkError,
    UnreachableError,
    WaitTimeoutError,
)

EVERY: list[CtiError] = [
    CtiError("x"),
    ConfigurationError("url", "is missing"),
    HandlerError("handler", "is a plain function"),
    BadMessageError("not_json", "at 1"),
    ConnectError("ws://x", "closed", no_listener=True),
    RefusedError("ws://x", "401"),
    CertificateError("wss://x", "expired"),
    SessionError("ws://x", "gone"),
    UnreachableError(3, ConnectError("ws://x", "closed")),
    JournalError(Path("journal.db"), "is full"),
    WaitTimeoutError("Established", 30.0),
    HaltError("gone"),
    SinkError("https://x/hook", "answers 400"),
    SinkAwayError("https://x/hook", "answers 503", after=5.0),
    NotRunningError("stopped"),
]


def tree_of_docstring() -> dict[str, str]:
    """Read the drawn tree: class name -> its parent's name."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            del path[depth:]
            if path:
                parents[found[2]] = path[-1]
            path.append(found[2])
    return parents


def tree_of_classes() -> dict[str, str]:
    return {
        name: kind.__mro__[1].__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, CtiError) and kind is not CtiError
    }


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert len(tree_of_classes()) == 14
    assert tree_of_docstring() == tree_of_classes()


def test_every_error_is_among_those_tried_here() -> None:
    assert {type(error).__name__ for error in EVERY} == {*tree_of_classes(), "CtiError"}


@pytest.mark.parametrize(
    ("error", "text"),
    list(
        zip(
            EVERY,
            [
                "x",
                "url: is missing",
                "handler: is a plain function",
                "not_json: at 1",
                "ws://x: closed",
                "ws://x: 401",
                "wss://x: expired",
                "ws://x: gone",
                "gave up after 3 attempts: ws://x: closed",
                "journal journal.db: is full",
                "no Established within 30 s",
                "gone",
                "https://x/hook: answers 400",
                "https://x/hook: answers 503",
                "stopped",
            ],
            strict=True,
        )
    ),
    ids=lambda one: type(one).__name__,
)
def test_an_error_builds_its_text_from_its_fields(error: CtiError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", EVERY, ids=lambda one: type(one).__name__)
def test_an_error_survives_pickling_with_its_fields(error: CtiError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert {n: str(v) for n, v in vars(again).items()} == {
        n: str(v) for n, v in vars(error).items()
    }


def test_a_wait_that_timed_out_is_a_timeout_error_too() -> None:
    with pytest.raises(TimeoutError):
        raise WaitTimeoutError("Established", 0.5)


def test_only_a_refused_port_says_that_nobody_listens() -> None:
    assert ConnectError("ws://x", "y", no_listener=True).no_listener
    assert not RefusedError("ws://x", "y").no_listener
