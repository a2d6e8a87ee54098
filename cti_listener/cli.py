"""The command line: flags and sub-commands, and what a user's mistake looks like.

`main` is the entry point. What is heavier than cyclopts is imported by the command that needs it,
so that `--help`, `--version` and `healthcheck` answer at once.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from cti_listener import __version__, quick
from cti_listener.quick import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from cti_listener.settings import Configuration

_OK: Final = 0
_USAGE: Final = 2
_CONFIGURATION: Final = 78
_INTERRUPTED: Final = 130

_WHAT: Final = Parameter(group=Group("What to listen to", sort_key=1), negative="")
_WHO: Final = Parameter(group=Group("Who we are", sort_key=2), negative="")
_HOW: Final = Parameter(group=Group("How to connect", sort_key=3), negative="")
_PRINT: Final = Parameter(group=Group("What to print", sort_key=4), negative="")
_TO: Final = Parameter(group=Group("Where else to", sort_key=5), negative="")
_RUN: Final = Parameter(group=Group("Running", sort_key=6), negative="")

_SECRETS: Final = ("passcode", "token", "cookie", "admin-token")

Texts = tuple[str, ...] | None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of listening; None: not given, so that environment, file or default counts."""

    url: Annotated[Texts, _WHAT] = None
    """The server, as wss://HOST/mvc/stomp/websocket; again for others to try in turn."""
    demo: Annotated[bool | None, _WHAT] = None
    """Listen to an embedded simulator: no server needed."""
    namespace: Annotated[str | None, _WHAT, Parameter(name=("--ns", "--namespace"))] = None
    """Completes short ids: 8002 is 8002@NAMESPACE."""
    device: Annotated[Texts, _WHAT] = None
    """Listen to this device; repeatable."""
    agent: Annotated[Texts, _WHAT] = None
    """Listen to this agent, at whatever device; repeatable."""
    event: Annotated[Texts, _WHAT] = None
    """Only events of this name, as delivered; repeatable."""
    wire: Annotated[Literal["auto", "stomp", "json"] | None, _WHAT] = None
    """What the server speaks; auto finds out."""
    redundancy: Annotated[int | None, _WHAT] = None
    """How many connections bring the same events at once, so that the loss of one is no gap."""
    topic: Annotated[Texts, _WHAT] = None
    """STOMP destination, or its template with {agent}, {device}, {namespace}; repeatable."""
    zone: Annotated[str | None, _WHAT] = None
    """Where the server's clock hangs; by default Asia/Shanghai."""

    login: Annotated[str | None, _WHO] = None
    """STOMP login; its passcode comes from CTI_PASSCODE or a file."""
    passcode_file: Annotated[Path | None, _WHO] = None
    """File that holds the STOMP passcode; read for every attempt, as the two below."""
    token_file: Annotated[Path | None, _WHO] = None
    """File that holds a bearer token; or set CTI_TOKEN."""
    cookie_file: Annotated[Path | None, _WHO] = None
    """File that holds a Cookie header; or set CTI_COOKIE."""
    cert_file: Annotated[Path | None, _WHO] = None
    """Client certificate (PEM)."""
    key_file: Annotated[Path | None, _WHO] = None
    """Its key, when not in the same file (PEM)."""

    ca_file: Annotated[Path | None, _HOW] = None
    """Authorities to trust instead of the system's (PEM)."""
    header: Annotated[Texts, _HOW] = None
    """HTTP header NAME:VALUE of the handshake; repeatable."""
    connect_header: Annotated[Texts, _HOW] = None
    """Header NAME:VALUE of the STOMP CONNECT; repeatable."""
    durable: Annotated[str | None, _HOW] = None
    """Have RabbitMQ keep what we miss, under this id; it must be this listener's alone."""
    vhost: Annotated[str | None, _HOW] = None
    """The broker's virtual host; by default /."""
    origin: Annotated[str | None, _HOW] = None
    """Origin header of the handshake."""
    proxy: Annotated[str | None, _HOW] = None
    """auto (as the environment says), none, or a URL."""
    compression: Annotated[bool | None, _HOW, Parameter(negative="--no-compression")] = None
    """Offer compression; on by default."""
    max_attempts: Annotated[int | None, _HOW] = None
    """Give up after so many attempts in a row; by default never."""

    format: Annotated[Literal["auto", "pretty", "json"] | None, _PRINT] = None
    """By default pretty on a terminal, JSON lines when piped."""
    calls: Annotated[bool | None, _PRINT, Parameter(negative="")] = None
    """Print the record of each call that ends, instead of events."""
    internal: Annotated[str | None, _PRINT] = None
    """Pattern of the ids that are ours, for these records; by default up to six digits."""
    count: Annotated[int | None, _PRINT] = None
    """Stop after so many events, or records; notices do not count."""
    duration: Annotated[float | None, _PRINT] = None
    """Stop after so many seconds."""

    to: Annotated[Texts, _TO] = None
    """A sink besides: jsonl:PATH, https://HOST/PATH or stdout:, or NAME= and one; repeatable."""
    to_records: Annotated[Literal["events", "records", "both"] | None, _TO] = None
    """What the sinks get: events, by default, records of calls, or both; notices always."""
    webhook_secret_file: Annotated[Path | None, _TO] = None
    """File that holds the keys that sign what webhooks get, one a line."""

    config: Annotated[Path | None, _RUN] = None
    """TOML file of settings; or set CTI_CONFIG."""
    journal: Annotated[Path | None, _RUN] = None
    """File that keeps every event until it is printed, through any crash."""
    drain: Annotated[float | None, _RUN] = None
    """How many seconds the end may take to print what has come; by default 8."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, _RUN] = None
    """By default info."""
    log_format: Annotated[Literal["auto", "console", "json"] | None, _RUN] = None
    """By default console on a terminal, JSON otherwise; on stderr."""
    health_file: Annotated[Path | None, _RUN] = None
    """Where to show that we live; by default where healthcheck looks."""

    admin: Annotated[str | None, _RUN] = None
    """Tell over HTTP how it fares, at HOST:PORT: probes, metrics, a live page."""
    admin_host: Annotated[Texts, _RUN] = None
    """Another name that endpoint may be asked by, as a Service's; repeatable."""
    admin_token_file: Annotated[Path | None, _RUN] = None
    """File that holds the token it demands; or set CTI_ADMIN_TOKEN."""

    def given(self) -> dict[str, Any]:
        """Return what was given, by the setting's name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}


app = App(
    name="cti-listen",
    help="Listen to a CTI server's events and print them, one a line.",
    help_epilogue="Each is also an environment variable and a key of the --config file: "
    "--max-attempts, CTI_MAX_ATTEMPTS, max_attempts. These have more of them.",
    version=__version__,
    version_format="plaintext",
    help_format="plaintext",  # Markdown takes longer to import than all the rest
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)


@app.default
def listen(flags: Flags | None = None) -> int:
    """Listen to a CTI server's events and print them, one a line.

    Try it without a server: cti-listen --demo
    """
    from cti_listener.settings import load

    configuration = load(flags.given() if flags else {})
    if not _told(configuration):
        from cti_listener.app import listen as run

        return run(configuration.settings, os.environ)
    kinds = {problem.kind for problem in configuration.problems}
    return _USAGE if kinds == {"flag"} else _CONFIGURATION


def _flowing(command: Callable[..., int]) -> Callable[..., int]:
    """Have the help of arguments flow: it is plain text, whose line breaks are shown."""
    command.__doc__ = re.sub(r"\n {12}(?=\S)", " ", command.__doc__ or "")
    return command


@app.command
@_flowing
def check(
    flags: Flags | None = None,
    *,
    connect: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Print the settings that would hold, each with its source, and every mistake in them.

    Args:
        flags: What is checked.
        connect: Go the way to each --url instead, step by step, each with its time: name, TCP, TLS,
            handshake, CONNECT, subscriptions, and the events of 5 seconds, or of --duration.
    """
    from cti_listener.settings import load

    configuration = load(flags.given() if flags else {})
    if connect:
        if _told(configuration):
            return _CONFIGURATION
        from cti_listener.checking import check_connection

        return check_connection(configuration.settings)
    rows = configuration.rows()
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, source in rows:
        sys.stdout.write(f"{name:{names}}  {value:{min(values, 40)}}  {source}\n")
    sys.stdout.flush()
    if _told(configuration):
        return _CONFIGURATION
    return _look_at(configuration.settings.journal)


def _look_at(journal: Path | None) -> int:
    """See whether the journal could be one; return the exit code of a run."""
    from cti_listener.errors import JournalError
    from cti_listener.journal import EXIT_CODE, visits

    if journal is not None:
        try:
            visits.look(journal)
        except JournalError as error:
            say(str(error))
            return EXIT_CODE
    return _OK


def _told(configuration: Configuration) -> bool:
    """Tell every problem there is; return whether there was any."""
    from cti_listener.settings.making import ailments

    problems = [str(problem) for problem in configuration.problems]
    for text in problems or (problems := ailments(configuration.settings)):
        say(text)
    return bool(problems)


@app.command(help_epilogue="")
@_flowing
def simulate(
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    namespace: Annotated[str, Parameter(name=("--ns", "--namespace"))] = "zhen04.cc",
    agents: int = 10,
    rate: float = 5.0,
    seed: int = 0,
    speed: float = 1.0,
    fault: Annotated[Texts, Parameter(negative="")] = None,
) -> int:
    """Serve a simulated contact centre, for a listener to be tried on.

    Args:
        host: Where to listen; 0.0.0.0 is everywhere.
        port: 0 picks a free one.
        namespace: The namespace of its agents and devices.
        agents: How many: 5001 at device 8001, and so on.
        rate: Events a second.
        seed: The same seed plays the same calls.
        speed: So many of the centre's seconds pass in one; 0: as fast as they are taken.
        fault: What goes wrong, as repeat=0.1 (a share) or drop_every=30 (seconds); repeatable.
            There are: restart_every, reorder, repeat, storm, malformed, invalid_utf8, deep,
            oversized, bomb, split, drop_every, reset_every, half_open_every, stall_every,
            drip_every, error_every, no_receipts, no_heartbeats, slow_heartbeats, zero_heartbeats,
            refuse, flap_every, away_every, expire_every.
    """
    from cti_listener.app import simulate as run

    return run(
        say,
        centre={"seed": seed, "agents": agents, "namespace": namespace, "rate": rate},
        faults=",".join(fault or ()),
        server={"host": host, "port": port, "speed": speed, "seed": seed},
    )


@app.command(help_epilogue="")
@_flowing
def healthcheck(
    *,
    file: Path | None = None,
    config: Path | None = None,
    max_age: float | None = None,
) -> int:
    """Tell by the exit code, 0 or 1, whether the listener on this machine is well.

    Its event loop turns: that is all it says; whether the server is there shows elsewhere.

    Args:
        file: The health file; by default CTI_HEALTH_FILE, the one the settings file names, or that
            of any listener of this user.
        config: The settings file; by default CTI_CONFIG.
        max_age: How many seconds the last sign of life may lie back.
    """
    return quick.healthcheck(file, config, max_age)


# Not imported before it is asked for, so what it says of itself is said here.
app.command(
    "cti_listener.journal.cli:journal_app",
    name="journal",
    help="Look into a journal and put it in order, also while a listener runs.",
)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit code.

    Args:
        argv: The arguments, without the program's name; None: the process's.
    """
    tokens = sys.argv[1:] if argv is None else argv
    if (answered := quick.answer(tokens)) is not None:
        return answered
    try:
        if (secret := _secret_flag(tokens)) is not None:
            variable = f"CTI_{secret.upper().replace('-', '_')}"
            say(f"--{secret}: others can read flags; set {variable}, or use --{secret}-file FILE")
            return _USAGE
        code = None if _helped(tokens) else app(tokens)
        sys.stdout.flush()
    except CycloptsError as error:
        say(f"{_mistake(error)}\nSee cti-listen --help.")
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        if error.filename is not None or error.errno not in quick.UNWRITABLE:
            raise
        return quick.unprintable(error)
    return code if isinstance(code, int) else _OK


def _helped(tokens: list[str]) -> bool:
    """Print the help of a command alone, which takes a third less than reading arguments first."""
    if tokens[-1:] != ["--help"] or app.parse_commands(tokens[:-1])[2]:
        return False
    app.help_print(tokens[:-1])
    return True


def _mistake(error: CycloptsError) -> str:
    """Say what is wrong with the arguments."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{error.unused_tokens[0]!r} is neither a flag nor a command"
    error.verbose = False
    return str(error)


def _secret_flag(tokens: list[str]) -> str | None:
    """Find a secret among the flags; every user of the machine can read them there."""
    names = {token.partition("=")[0] for token in tokens}
    return next((name for name in _SECRETS if f"--{name}" in names), None)
