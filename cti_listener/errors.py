"""What can go wrong, as exceptions that hold fields and build their own text.

The tree::

    CtiError
    ├── ConfigurationError      what was asked for cannot be done as asked
    │   └── HandlerError        a handler that cannot be registered
    ├── BadMessageError         a message that is not what the protocol says
    ├── ConnectError            one attempt to connect and subscribe failed
    │   ├── RefusedError        the server said no: credentials, path, destination
    │   │   └── CertificateError    its certificate is not to be trusted, or ours is not taken
    │   └── SessionError        the STOMP session ended in an ERROR frame
    ├── UnreachableError        every allowed attempt failed
    ├── JournalError            the journal cannot be opened or written
    ├── WaitTimeoutError        what `wait_for` or `expect` waited for did not come in time
    ├── HaltError               raised by a handler that takes nothing more in this run
    ├── SinkError               a sink will never take this event
    │   └── SinkAwayError       a sink cannot take anything at the moment
    └── NotRunningError         the listener is stopped, or not started yet

Every public call raises one of these for a foreseeable failure, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

BadReason = Literal[
    "not_json", "not_an_object", "not_utf8", "too_deep", "too_large", "not_a_frame", "internal"
]
"""Why a message was left out; `internal` is our bug. A closed set, fit for a metric's label."""


class CtiError(Exception):
    """The base of every error this package raises on purpose."""


class ConfigurationError(CtiError):
    """What was asked for cannot be done as asked.

    Attributes:
        what: The setting or argument at fault.
        problem: What is wrong with it, and what to do instead.
    """

    def __init__(self, what: str, problem: str) -> None:
        """Name the setting at fault and what to do about it."""
        super().__init__(what, problem)
        self.what = what
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}"


class HandlerError(ConfigurationError):
    """A handler that cannot be registered: a plain function, or filters that cannot match."""


class BadMessageError(CtiError):
    """A message that is not what the protocol says.

    Attributes:
        reason: One of the closed set.
        detail: What exactly was wrong, for a person.
    """

    def __init__(self, reason: BadReason, detail: str) -> None:
        """Name the kind of badness and its detail."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class ConnectError(CtiError):
    """One attempt to connect and subscribe failed; another may succeed.

    Attributes:
        url: The endpoint, without credentials.
        problem: What happened.
        no_listener: Nothing listens on the port (TCP refused): the server is away or restarting.
    """

    def __init__(self, url: str, problem: str, *, no_listener: bool = False) -> None:
        """Name the endpoint and what happened."""
        super().__init__(url, problem)
        self.url = url
        self.problem = problem
        self.no_listener = no_listener

    def __str__(self) -> str:
        return f"{self.url}: {self.problem}"


class RefusedError(ConnectError):
    """The server said no: credentials, path or every destination; or see `CertificateError`.

    Fatal before the first success, since nothing will change it by itself; afterwards it is
    retried, since sessions expire and ingresses answer 404 during deploys.
    """


class CertificateError(RefusedError):
    """The server's certificate is not to be trusted, or it wants another one of us, or any.

    A server that is not trusted has been told nothing secret.
    """


class SessionError(ConnectError):
    """The STOMP session ended in an ERROR frame (STOMP 1.2, "ERROR")."""


class UnreachableError(CtiError):
    """Every allowed attempt failed.

    Attributes:
        attempts: How many there were.
        last: What the last one failed with.
    """

    def __init__(self, attempts: int, last: ConnectError) -> None:
        """Count the attempts and keep the last failure."""
        super().__init__(attempts, last)
        self.attempts = attempts
        self.last = last

    def __str__(self) -> str:
        plural = "" if self.attempts == 1 else "s"
        return f"gave up after {self.attempts} attempt{plural}: {self.last}"


class JournalError(CtiError):
    """The journal cannot be opened or written; the run ends with exit code 74.

    Attributes:
        path: The journal's file.
        problem: What is wrong with it, and what to do about it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        """Name the file and what is wrong with it."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"journal {self.path}: {self.problem}"


class WaitTimeoutError(CtiError, TimeoutError):
    """What `wait_for` or `expect` waited for did not come in time.

    Attributes:
        what: The event and filters waited for.
        timeout: The limit, in seconds.
    """

    def __init__(self, what: str, timeout: float) -> None:
        """Say what did not come, and in how long."""
        super().__init__(what, timeout)
        self.what = what
        self.timeout = timeout

    def __str__(self) -> str:
        return f"no {self.what} within {self.timeout:g} s"


class HaltError(CtiError):
    """Raised by a handler that takes nothing more in this run: not this event, nor a later one.

    It is not called again. With a journal what it is owed stays there for the next run, in order;
    without one its full lanes drop the oldest, and count them. Nobody waits for it at the end.

    Attributes:
        problem: Why, for a person.
    """

    def __init__(self, problem: str) -> None:
        """Say why."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class SinkError(CtiError):
    """A sink will never take this event: it is a dead letter, and the next one has its turn.

    Attributes:
        sink: The sink's name.
        problem: What is wrong, for a person; nothing secret.
    """

    def __init__(self, sink: str, problem: str) -> None:
        """Name the sink and what is wrong."""
        super().__init__(sink, problem)
        self.sink = sink
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.sink}: {self.problem}"


class SinkAwayError(SinkError):
    """A sink cannot take anything at the moment: it is given the same event again, later.

    Attributes:
        sink: The sink's name.
        problem: What is wrong, for a person; nothing secret.
        after: The shortest wait before that, in seconds; None: as ours.
    """

    def __init__(self, sink: str, problem: str, *, after: float | None = None) -> None:
        """Name the sink, what is wrong, and when to try again."""
        super().__init__(sink, problem)
        self.after = after


class NotRunningError(CtiError):
    """The listener is stopped, or not started yet."""
