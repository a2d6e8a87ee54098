"""No secret is seen by anybody: each is a canary, and all there is to see is searched for them.

The listener is run inside this process, and as the program, against servers that repeat what they
are sent. A place that could show a secret is one line of `EMBEDDED` or `PROGRAM_PLACES`.

`/proc/PID/environ` is left out: it holds what the user gave, and that user alone can read it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import gc
import io
import json
import logging
import signal
import ssl
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import CoroutineType, FunctionType, ModuleType
from typing import Any
from urllib.parse import quote

import pytest
import structlog
import trustme

from cti_listener import (
    ConfigurationError,
    Connected,
    Credentials,
    CtiError,
    Listener,
    Notice,
)
from cti_listener.settings import SettingsError, load
from cti_listener.simulator import SimulatorServer
from cti_listener.sources.base import Source
from cti_listener.sources.options import ConnectionOptions
from tests.canaries import (
    HTTP_WAYS,
    JSON_WAYS,
    STOMP_WAYS,
    canary,
    found_in,
    parrot,
    raw_parrot,
    readings,
)
from tests.program import LIMIT, PROGRAM, environment

NAMESPACE = "zhen04.cc"

# What the listener is given

TOKEN = canary(f"token-{'0' * 50}")
"""Longer than what some complaints quote."""

CREDENTIALS = Credentials(
    login="me",
    passcode=canary("passcode"),
    token=TOKEN,
    cookie=f"JSESSIONID={canary('cookie')}; theme=dark",
    headers={"sessionId": canary("header")},
    connect_headers={"sessionId": canary("connect_header")},
)
PASSWORD = canary("p@ss/w:rd%+")
OPTIONS: dict[str, Any] = {
    "headers": {"X-Api-Key": canary("option_header")},
    "connect_headers": {"ticket": canary("option_connect_header")},
    "query": f"key={canary('query')}&device={{device}}",
    "subscribe": [json.dumps({"do": "subscribe", "as": canary("message"), "who": "{device}"})],
}
HANDSHAKE = (PASSWORD, TOKEN, *map(canary, ("cookie", "header", "option_header")))
SENT_AS_JSON = (*HANDSHAKE, *map(canary, ("query", "message")))
SENT_IN_HANDSHAKE = (*HANDSHAKE, *map(canary, ("url_token", "url_session")))
SENT = (
    *SENT_IN_HANDSHAKE,
    *map(canary, ("passcode", "connect_header", "option_connect_header")),
)
"""What a server is sent in all, by the way it is met."""


def with_secrets(url: str) -> str:
    """Put a user, a password, a session and a token into an address, where it has room for them."""
    address = url.replace("ws://", f"ws://me:{quote(PASSWORD, safe='')}@")
    if "/stomp/" in url:
        address += f";jsessionid={canary('url_session')}?access={canary('url_token')}"
    return address


# The listener inside a program of one's own


@dataclasses.dataclass
class Embedded:
    """A listener that has run, and what could be seen of it."""

    listener: Listener
    heard: str = ""
    logged: str = ""
    objects: str = ""
    notices: list[Notice] = dataclasses.field(default_factory=list)
    error: CtiError | None = None

    @property
    def source(self) -> Source:
        return self.listener._engine.source  # noqa: SLF001 - nobody is shown it, but a debugger


EMBEDDED: dict[str, Callable[[Embedded], object]] = {
    "its repr": lambda it: f"{it.listener!r} {it.listener}",
    "its source's": lambda it: [it.source, it.source.endpoints],
    "its options' and its credentials'": lambda _: (ConnectionOptions(**OPTIONS), CREDENTIALS),
    "every object's that it holds": lambda it: it.objects,
    "its stats": lambda it: it.listener.stats(),
    "its notices": lambda it: it.notices,
    "its notices in JSON": lambda it: json.dumps([one.as_wire() for one in it.notices]),
    "its log": lambda it: it.logged,
    "what it raised": lambda it: list(all_of(it.error)),
}
"""Where to look in one's own program."""


def all_of(error: BaseException | None) -> Iterator[str]:
    """Yield all that an exception and those behind it show, also where Python would hide them."""
    if error is None:
        return
    yield f"{error} {error!r} {error.args} {vars(error)}"
    yield "".join(traceback.format_exception(error))
    yield from all_of(error.__cause__)
    yield from all_of(error.__context__)


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Take down what is logged without structlog being configured, traces and all."""
    structlog.reset_defaults()
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root, theirs = logging.getLogger(), logging.getLogger("websockets.server")
    levels = root.level, theirs.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    theirs.setLevel(logging.CRITICAL + 1)  # what it is sent
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        theirs.setLevel(levels[1])


def objects_of(listener: Listener) -> str:
    """Return the repr of every object of this package that a listener holds."""
    found: dict[int, object] = {}
    waiting: list[object] = [listener]
    while waiting:
        one = waiting.pop()
        foreign = isinstance(one, ModuleType | FunctionType | type | CoroutineType)
        if id(one) not in found and not foreign and "asyncio" not in type(one).__module__:
            found[id(one)] = one
            waiting += gc.get_referents(one)
    ours = (one for one in found.values() if type(one).__module__.startswith("cti_listener"))
    return "\n".join(map(repr, ours))


async def live(url: str, heard: Callable[[], str], **options: Any) -> Embedded:
    """Have a listener meet a server until it gives up."""
    with everything_logged() as log:
        listener = Listener(
            with_secrets(url),
            namespace=NAMESPACE,
            devices=["8002"],
            auth=CREDENTIALS,
            **{"proxy": None, "max_attempts": 1, "close_timeout": 0.5, **OPTIONS, **options},
        )
        it = Embedded(listener)

        @listener.on(Notice)
        async def note(notice: Notice) -> None:
            it.notices.append(notice)
            if isinstance(notice, Connected):
                it.objects += objects_of(listener)

        async with asyncio.timeout(10):
            try:
                await listener.run()
            except CtiError as error:
                it.error = error
    it.logged, it.heard = log.getvalue(), heard()
    it.objects += objects_of(listener)
    return it


async def meet_parrot(path: str) -> Embedded:
    async with parrot() as bird:
        return await live(f"{bird.url}/{path}", lambda: bird.heard)


async def meet_nonsense() -> Embedded:
    async with raw_parrot(lambda request: request) as bird:
        return await live(f"{bird.url}/stomp/x", lambda: bird.heard)


async def meet_proxy(answer: Callable[[str], str]) -> Embedded:
    async with raw_parrot(answer) as bird:
        proxy = bird.url.replace("ws://", f"http://me:{quote(PASSWORD, safe='')}@")
        return await live("ws://cti.invalid/stomp/x", lambda: bird.heard, proxy=proxy)


def no_proxy(request: str) -> str:
    lines = "".join(f"X-Asked: {line}\r\n" for line in request.split("\r\n") if line)
    return f"HTTP/1.1 407 No\r\n{lines}Content-Length: 0\r\n\r\n"


MEETINGS: dict[str, Callable[[], Coroutine[Any, Any, Embedded]]] = {
    **{f"/stomp/{way}": functools.partial(meet_parrot, f"stomp/{way}") for way in STOMP_WAYS},
    **{f"/json/{way}": functools.partial(meet_parrot, f"json/{way}") for way in JSON_WAYS},
    "no server": meet_nonsense,
    "a proxy that refuses": functools.partial(meet_proxy, no_proxy),
    "no proxy": functools.partial(meet_proxy, lambda request: request),
}


@functools.cache
def embedded(meeting: str) -> Embedded:
    return asyncio.run(MEETINGS[meeting]())


@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("place", EMBEDDED)
def test_no_secret_is_seen_of_a_listener_in(place: str, meeting: str) -> None:
    it = embedded(meeting)
    shown = EMBEDDED[place](it)
    assert found_in(shown if isinstance(shown, str) else repr(shown)) == []


@pytest.mark.parametrize("meeting", MEETINGS)
def test_the_server_was_sent_every_secret(meeting: str) -> None:
    it = embedded(meeting)
    assert it.error is not None
    heard = " ".join(readings(it.heard))
    assert [one for one in sent_at(meeting) if one not in heard] == []


def sent_at(meeting: str) -> tuple[str, ...]:
    """Return what a server, or a proxy, has been sent by then."""
    way = meeting.rpartition("/")[2]
    if "proxy" in meeting:
        return (PASSWORD,)
    if meeting.startswith("/json/"):
        return SENT_AS_JSON
    return SENT if way in STOMP_WAYS and way not in HTTP_WAYS else SENT_IN_HANDSHAKE


# The program


@dataclasses.dataclass
class Run:
    """A run of the program, and what could be seen of it.

    Attributes:
        code: How it ended.
        out: What it printed.
        errors: What it logged and complained of.
        titles: Its command line and the names of its threads, as others see them.
        health: What its health file held.
        journal: What its journal holds, and what is beside it.
        says: What must be in `errors`, or nothing was tried.
    """

    code: int = 0
    out: str = ""
    errors: str = ""
    titles: str = ""
    health: str = ""
    journal: str = ""
    says: tuple[str, ...] = ()


PROGRAM_PLACES: dict[str, Callable[[Run], str]] = {
    "what it prints": lambda run: run.out,
    "its log and its complaints": lambda run: run.errors,
    "the process list": lambda run: run.titles,
    "its health file": lambda run: run.health,
    "its journal": lambda run: run.journal,
}
"""Where to look at the program."""

Files = Callable[[str, str], str]
"""Writes a file, by name and content; returns its path."""


async def run_program(
    *arguments: str,
    files: Files,
    settings: Mapping[str, str],
    says: tuple[str, ...],
    until: str = "",
) -> Run:
    """Run the program; look at it at every line it logs; end it at one that tells of `until`."""
    run = Run(says=says)
    health = Path(files("health.json", ""))
    journal = health.with_name("journal.db")
    places = {"CTI_HEALTH_FILE": str(health), "CTI_JOURNAL": str(journal)}
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *arguments),
        env=environment(**places, **settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        printed = tasks.create_task(process.stdout.read())
        while line := await process.stderr.readline():
            run.errors += line.decode()
            run.titles += titles(process.pid)
            run.health += content(health)
            if "connected" in line.decode():  # what it writes first is not in one file yet
                run.journal += contents(journal)
            if until and until in line.decode():
                process.send_signal(signal.SIGTERM)
        run.code = await process.wait()
    run.out = printed.result().decode()
    run.journal += contents(journal)
    return run


def content(file: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return file.read_text(encoding="utf-8")
    return ""


def contents(journal: Path) -> str:
    """Return what is in a journal and in the files that belong to it, byte by byte."""
    files = journal.parent.glob(f"{journal.name}*")
    return " ".join(file.read_bytes().decode("latin-1") for file in files)


def titles(pid: int) -> str:
    """Return how a process and its threads are called."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        process = Path(f"/proc/{pid}")
        found += [(process / "cmdline").read_text(), (process / "comm").read_text()]
        found += [(one / "comm").read_text() for one in (process / "task").iterdir()]
    return " ".join(found)


def common(files: Files) -> dict[str, str]:
    """Return the settings that hold secrets: in the environment, in files, in the settings file."""
    return {
        "CTI_NS": NAMESPACE,
        "CTI_DEVICE": "8002",
        "CTI_LOGIN": "me",
        "CTI_PASSCODE": canary("passcode"),
        "CTI_TOKEN_FILE": files("token", f"{TOKEN}\n"),
        "CTI_COOKIE_FILE": files("cookie", f"JSESSIONID={canary('cookie')}; theme=dark\n"),
        "CTI_CONNECT_HEADER": f"sessionId: {canary('connect_header')}",
        "CTI_CONFIG": files(
            "cti.toml",
            f"""
            query = "{OPTIONS["query"]}"
            subscribe = ['{OPTIONS["subscribe"][0]}']
            header = {{sessionId = "{canary("header")}", X-Api-Key = "{canary("option_header")}"}}
            """,
        ),
        "CTI_LOG_LEVEL": "debug",
        "CTI_PROXY": "none",
    }


async def run_at_parrot(files: Files, form: str) -> Run:
    """Meet, one after the other, all the ways a server has to repeat what it was sent."""
    async with parrot() as bird:
        paths = [*(f"stomp/{way}" for way in STOMP_WAYS), *(f"json/{way}" for way in JSON_WAYS)]
        if form == "console":  # of what repeats some is left out: see the others first
            paths.reverse()
        settings = {
            "CTI_URL": json.dumps([with_secrets(f"{bird.url}/{path}") for path in paths]),
            "CTI_MAX_ATTEMPTS": str(len(paths)),
            "CTI_MAX_WAIT": "0.3",
            "CTI_LOG_FORMAT": form,
        }
        says = ("attempt_failed", "disconnected", "message_bad", "********")
        return await run_program(files=files, settings=common(files) | settings, says=says)


async def run_at_simulator(files: Files) -> Run:
    """Listen in peace, with TLS and a certificate of our own."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("listener@zhen04.cc")
    async with SimulatorServer(
        ssl_context=context, credentials=("me", canary("passcode")), token=TOKEN
    ) as server:
        settings = {
            "CTI_URL": server.stomp_url,
            "CTI_CA_FILE": files("ca.pem", authority.cert_pem.bytes().decode()),
            "CTI_CERT_FILE": files("cert.pem", ours.cert_chain_pems[0].bytes().decode()),
            "CTI_KEY_FILE": files("key.pem", keys(ours.private_key_pem.bytes().decode())),
        }
        return await run_program(
            files=files,
            settings=common(files) | settings,
            until='"connected"',
            says=("connected", "stopped"),
        )


def keys(pem: str) -> str:
    """Note a private key's lines, which are secrets too."""
    KEY_LINES.extend(line for line in pem.splitlines() if "-" not in line)
    return pem


KEY_LINES: list[str] = []


async def run_with_wrong_credentials(files: Files) -> Run:
    async with SimulatorServer(credentials=("me", "another")) as server:
        settings = {"CTI_URL": server.stomp_url}
        says = ("Access refused for user 'me'", "CTI_PASSCODE")
        return await run_program(files=files, settings=common(files) | settings, says=says)


async def run_through_proxy(files: Files) -> Run:
    async with raw_parrot(no_proxy) as bird:
        proxy = bird.url.replace("ws://", f"http://me:{quote(PASSWORD, safe='')}@")
        settings = {
            "CTI_URL": "wss://cti.invalid/x",
            "CTI_PROXY": proxy,
            "CTI_MAX_ATTEMPTS": "1",
        }
        says = ("answered HTTP 407",)
        return await run_program(files=files, settings=common(files) | settings, says=says)


async def check(files: Files) -> Run:
    """Have settings explained that are right."""
    settings = {"CTI_URL": with_secrets("ws://cti.invalid/stomp/x")}
    run = await run_program("check", files=files, settings=common(files) | settings, says=())
    shown = "********@cti.invalid/stomp/x;jsessionid=********?access=********"
    assert shown in run.out
    return run


async def check_mistakes(files: Files) -> Run:
    settings = {f"CTI_{name.upper()}": text for name, text in MISTAKES.items()}
    return await run_program("check", files=files, settings=settings, says=tuple(settings))


async def listen_with_mistakes(files: Files) -> Run:
    settings = {"CTI_CONFIG": files("cti.toml", toml(MISTAKES_IN_FILE))}
    says = tuple(f": {name}: " for name in MISTAKES_IN_FILE)
    return await run_program(files=files, settings=settings, says=says)


def toml(lines: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


RUNS: dict[str, Callable[[Files], Coroutine[Any, Any, Run]]] = {
    "met by parrots, log for people": functools.partial(run_at_parrot, form="console"),
    "met by parrots, log in JSON": functools.partial(run_at_parrot, form="json"),
    "at work": run_at_simulator,
    "refused": run_with_wrong_credentials,
    "through a proxy": run_through_proxy,
    "check": check,
    "check of mistakes": check_mistakes,
    "mistakes": listen_with_mistakes,
}
ENDS = {
    "met by parrots, log for people": 69,
    "met by parrots, log in JSON": 69,
    "at work": 0,
    "refused": 77,
    "through a proxy": 69,
    "check": 0,
    "check of mistakes": 78,
    "mistakes": 78,
}


@functools.cache
def runs() -> dict[str, Run]:
    """Run them all, side by side."""

    async def run_all(directory: str) -> dict[str, Run]:
        def files_for(run: str) -> Files:
            def write(name: str, content: str) -> str:
                path = Path(directory, run, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(content, encoding="utf-8")
                return str(path)

            return write

        async with asyncio.TaskGroup() as tasks:
            begun = {
                name: tasks.create_task(run(files_for(name.replace(",", ""))))
                for name, run in RUNS.items()
            }
        return {name: task.result() for name, task in begun.items()}

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(run_all(directory))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("place", PROGRAM_PLACES)
def test_no_secret_is_seen_of_the_program_in(place: str, name: str) -> None:
    shown = PROGRAM_PLACES[place](runs()[name])
    assert found_in(shown) == []
    assert [line for line in KEY_LINES if line in shown] == []


@pytest.mark.parametrize("name", RUNS)
def test_the_program_ended_as_meant_and_said_why(name: str) -> None:
    run = runs()[name]
    assert run.code == ENDS[name], run.errors
    assert [text for text in run.says if text not in run.errors] == []


def test_there_was_something_to_see_everywhere() -> None:
    for kind in ("<Life ", "LifePlan(", "Credentials(", "ConnectionOptions(", "<Discretion "):
        assert kind in embedded("/stomp/garbled").objects
    at_work = runs()["at work"]
    assert [place for place, look in PROGRAM_PLACES.items() if not look(at_work)] == []
    assert '"connected"' in at_work.health
    assert "cti_listener" in at_work.titles
    assert "SQLite format 3" in at_work.journal
    assert KEY_LINES


# Mistakes in the settings

MISTAKES = {
    "url": f"me:{canary('url')}@host/x?t={canary('url')}",
    "proxy": f"me:{canary('proxy')}@host:80",
    "passcode_file": canary("in-its-files-place-1"),
    "token_file": f"/{canary('in-its-files-place-2')}",
    "wire": canary("in-anothers-place-1"),
    "max_attempts": canary("in-anothers-place-2"),
    "log_level": canary("in-anothers-place-3"),
    "zone": canary("in-anothers-place-4"),
    "compression": canary("in-anothers-place-5"),
    "header": canary("not-NAME-VALUE"),
    "connect_header": '{"X": "' + canary("no-JSON"),
    "passcodes": canary("of-no-such-name"),
}
"""In the environment; each is told by its variable."""

MISTAKES_IN_FILE = {
    "passcode": f'["{canary("in-a-list")}"]',
    "token": f'{{value = "{canary("in-a-table")}"}}',
    "cookie_file": f'["{canary("in-a-list")}"]',
    "header": f'["{canary("not-NAME-VALUE")}"]',
    "connect_header": f'{{X = ["{canary("in-a-list")}"]}}',
    "url": f'["wss//me:{canary("url")}@h/x?t={canary("url")}", "ws://h/#{canary("fragment")}", 5]',
    "proxy": f'["http://me:{canary("proxy")}@h"]',
    "query": f'["{canary("in-a-list")}"]',
    "subscribe": f'[{{a = {{b = "{canary("in-tables")}"}}}}]',
    "topic": f'[{{a = "{canary("in-a-table")}"}}]',
    "device": f'{{a = "{canary("in-a-table")}"}}',
    "count": f'"{canary("in-anothers-place")}"',
    "pass_code": f'"{canary("of-no-such-name")}"',
}
"""In the settings file; each is told by its key."""


@pytest.mark.parametrize("name", MISTAKES_IN_FILE)
def test_a_mistake_is_told_without_the_secret_in_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "cti.toml"
    file.write_text(toml({name: MISTAKES_IN_FILE[name]}), encoding="utf-8")
    told = load({"config": file})
    assert name in " ".join(one.name for one in told.problems)
    assert found_in(f"{told!r} {told.rows()} {told.settings!r} {told.settings}") == []
    assert found_in(f"{SettingsError(told.problems)!r} {SettingsError(told.problems)}") == []


@pytest.mark.parametrize(
    "keywords",
    [
        {"subscribe": [f'{{"as": "{canary("message")}", "who": "{{devcie}}"}}']},
        {"wire": "json", "query": f"key={canary('query')}&who={{devcie}}"},
        {"proxy": f"http://me:{canary('proxy')}/x@h"},
        {"auth": Credentials(login="me", passcode=f"{canary('passcode')}\n")},
        {"auth": Credentials(token=f"{TOKEN}\N{SNOWMAN}")},
        {"headers": {"X-Api-Key": f"{canary('header')}\N{SNOWMAN}"}},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
async def test_a_mistake_in_the_keywords_is_told_without_the_secret_in_it(
    keywords: dict[str, Any], cti_server: SimulatorServer
) -> None:
    url = (
        cti_server.json_url
        if "wire" in keywords or "subscribe" in keywords
        else (cti_server.stomp_url)
    )
    given = {"proxy": None, "max_attempts": 1, **keywords}
    with everything_logged() as log, pytest.raises(CtiError) as raised:
        async with asyncio.timeout(LIMIT):
            await Listener(url, namespace=NAMESPACE, devices=["8002"], **given).run()
    assert found_in(" ".join((*all_of(raised.value), log.getvalue()))) == []


@pytest.mark.parametrize(
    "url",
    [
        f"wss://{canary('user')}@h/x",
        f"wss://me:{canary('password')}@h:99999/x",
        f"wss://me:{canary('password')}%ff@h/x",
        f"me:{canary('password')}@h/x",
        f"wss//h/x?token={TOKEN}",
        f"wss://h/x#{canary('fragment')}",
        f"https://h/x;jsessionid={canary('session')}",
    ],
)
def test_an_address_that_is_none_is_told_without_the_secret_in_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Listener(url)
    assert found_in(" ".join(all_of(raised.value))) == []


# The search itself


@pytest.mark.parametrize(
    "text",
    [
        canary("x"),
        canary("x")[:-3],
        canary("x")[3:].upper(),
        quote(canary("p@ss")).replace("4", "%34"),
        base64.b64encode(f"me:{canary('x')}".encode()).decode(),
        "Basic " + base64.urlsafe_b64encode(f"m:{canary('x?')}".encode()).decode().rstrip("="),
    ],
)
def test_the_search_finds_a_secret_however_it_is_written(text: str) -> None:
    assert found_in(f"said {text!r}.")
    assert found_in("said nothing but ********.") == []
