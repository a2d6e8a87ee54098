"""The READMEs: what they show is run, what they list is held to the code.

Every program and command runs as it stands, against `cti-listen simulate`. What stands in for the
reader's own setting is in the environment alone: `CTI_URL` is the simulator of the tests,
`CTI_COUNT` ends what would listen for ever, `cti-listen` is on the path, and make finds an
environment that is made already. The Chinese README shows the same code, so it is run once.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Final, NamedTuple, get_args

import pytest
import yaml

from cti_listener import derived, notices
from cti_listener.events import CATALOGUE
from cti_listener.ops.exits import ExitCode
from cti_listener.settings.model import Settings
from cti_listener.values import routing_key
from tests.program import LIMIT, PROGRAM, ROOT, environment, run, started
from tests.servers import need_server

ENGLISH: Final = ROOT / "README.md"
CHINESE: Final = ROOT / "README.zh-CN.md"
READMES: Final = pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=lambda path: path.name)


class Block(NamedTuple):
    language: str
    text: str


def blocks(readme: Path) -> list[Block]:
    found = re.findall(
        r"^```(\w*)\n(.*?)^```$", readme.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [Block(language, text) for language, text in found]


def prose(readme: Path) -> str:
    return re.sub(r"^```.*?^```$", "", readme.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def in_language(language: str) -> list[str]:
    return [block.text for block in blocks(ENGLISH) if block.language == language]


def rows(readme: Path, columns: int) -> list[list[str]]:
    """Return the rows of all tables so wide, without the marks of code."""
    lines = re.findall(r"^\|(.*)\|$", prose(readme), re.MULTILINE)
    cells = [[cell.strip().strip("`") for cell in line.split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


# What both say


def meaning(block: Block) -> tuple[str, str]:
    """Return what a block does, less its comments, which are in the reader's language."""
    match block.language:
        case "python":
            return block.language, ast.dump(ast.parse(block.text))
        case "sh" | "yaml":
            return block.language, re.sub(r"\s+#.*", "", block.text)
        case _:
            return block


def test_both_readmes_show_the_same_code() -> None:
    assert [meaning(block) for block in blocks(CHINESE)] == [
        meaning(block) for block in blocks(ENGLISH)
    ]


def test_both_readmes_have_the_same_headings_and_tables() -> None:
    def shape(readme: Path) -> list[str]:
        return re.findall(r"^#+(?= )|^\|(?=.*\|$)", prose(readme), re.MULTILINE)

    assert shape(CHINESE) == shape(ENGLISH)


@READMES
def test_every_link_to_a_file_resolves(readme: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", prose(readme))
    files = [link for link in links if "://" not in link]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert files


# What they list


@READMES
def test_the_table_of_events_is_the_catalogue(readme: Path) -> None:
    listed = {
        name: (kind, by) for name, kind, _, _, by in rows(readme, 5) if kind in kinds_of_events()
    }
    always = "always" if readme == ENGLISH else "总是"
    assert listed == {
        name: (kind.__name__, camel(kind.own_field) if kind.own_field else always)
        for name, kind in CATALOGUE.items()
    }


def kinds_of_events() -> set[str]:
    return {kind.__name__ for kind in CATALOGUE.values()}


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


@READMES
def test_every_notice_is_listed(readme: Path) -> None:
    own = [kind for kind in notices.Notice.__subclasses__() if kind.__name__ != "Derived"]
    every = [*own, *derived.DERIVED]
    kinds = {kind.event_name: kind.__name__ for kind in every}
    listed = {name: kind for name, kind, _ in rows(readme, 3)}
    assert {name: kind for name, kind in listed.items() if kind in kinds.values()} == kinds


@READMES
def test_every_reason_of_a_gap_is_listed(readme: Path) -> None:
    reasons = set(get_args(notices.GapReason))
    assert {name for name, _ in rows(readme, 2)} & reasons == reasons


@READMES
def test_every_exit_code_is_listed(readme: Path) -> None:
    listed = [int(code) for code, _ in rows(readme, 2) if code.isdigit()]
    assert listed == sorted(ExitCode)


def test_the_compose_file_shown_sets_what_there_is() -> None:
    (text,) = in_language("yaml")
    listener = yaml.safe_load(text)["services"]["listener"]
    names = {name.removeprefix("CTI_").lower() for name in listener["environment"]}
    assert names <= Settings.model_fields.keys()


def test_the_settings_shown_make_a_listener(tmp_path: Path) -> None:
    text, *_ = in_language("toml")
    file = tmp_path / "settings.toml"
    file.write_text(text)
    done = run(
        "check", "--ns", "zhen04.cc", "--config", str(file), CTI_URL="ws://127.0.0.1:9/stomp"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_notice_shown_has_the_fields_of_a_gap() -> None:
    (text,) = in_language("json")
    shown = json.loads(text)
    names = [camel(field.name) for field in fields(notices.Gap)]
    assert list(shown) == ["eventType", "eventName", *names]
    assert shown["eventName"] == notices.Gap.event_name


def test_the_output_shown_is_what_the_demo_prints() -> None:
    (shown, *_) = in_language("text")
    done = run("--demo", "--count", "12", "--format", "pretty")
    assert done.returncode == 0, done.stderr
    assert timeless(done.stdout) == timeless(shown)


def timeless(output: str) -> list[str]:
    """Return the lines of events without what differs from run to run.

    When the listener knows that it is connected does: the first events may come before.
    """
    lines = (line for line in output.splitlines() if " connected " not in line)
    return [re.sub(r"^\d\d:\d\d:\d\d|\b\d{14}(?=_)", "TIME", line) for line in lines]


# What they show, run


@contextmanager
def simulator(*arguments: str) -> Iterator[str]:
    """Serve a contact centre in which time flies; yield the URL of its STOMP side."""
    with started("simulate", "--port", "0", "--speed", "20", *arguments, text=True) as server:
        for line in server.stderr:
            if found := re.search(r"STOMP +(\S+)", line):
                yield found[1]
                return
    pytest.fail("the simulator ended without saying where it is")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with simulator() as url:
        yield url


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a directory like the reader's, with the secrets that the README says are there."""
    for name in ("Makefile", "bench", "config", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("passcode.txt", "token.txt"):
        (tmp_path / name).write_text("made up, and long\n")
    return tmp_path


@pytest.fixture
def env(checkout: Path, url: str) -> dict[str, str]:
    venv = checkout / "venv"
    (venv / "bin").mkdir(parents=True)
    program = venv / "bin" / "cti-listen"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    (venv / ".ready").touch()
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # As if given on its command line: make takes no other environment for this.
    own = {"MAKEFLAGS": f"VENV={venv}", "MAKELEVEL": "0"}
    http_url = re.sub(r"^ws(.*?)/mvc/.*", r"http\1", url)
    asking = {"SERVER_URL": http_url, "SESSION_COOKIE": "JSESSIONID=5002"}
    return environment(CTI_URL=url, CTI_COUNT="3", PATH=path, **own, **asking)


COMMANDS: Final = [
    line.partition(" #")[0].strip() for text in in_language("sh") for line in text.splitlines()
]


LISTENING: Final = [text for text in COMMANDS if "listen --" in text and "--to http" not in text]


@pytest.mark.parametrize("command", LISTENING)
def test_what_listens_prints_events(command: str, checkout: Path, env: dict[str, str]) -> None:
    listens_and_prints(command, checkout, env)


@pytest.mark.parametrize("command", [text for text in COMMANDS if text.startswith("make demo")])
def test_the_demo_prints_events(command: str, checkout: Path, env: dict[str, str]) -> None:
    del env["CTI_URL"]
    listens_and_prints(command, checkout, env)


def listens_and_prints(command: str, checkout: Path, env: dict[str, str]) -> None:
    done = in_shell(command.replace(":9464", ":0"), checkout, env)  # whatever is free
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    if "--calls" in command:
        events = [one["event"] for one in printed if one["eventName"] == "callEnded"]
    else:
        events = [one for one in printed if one["eventType"] != "listener"]
    count = re.search(r"--count (\d+)", command)
    assert len(events) == int(count[1] if count else env["CTI_COUNT"])
    wanted = set(re.findall(r"--event (\w+)", command)) or set(CATALOGUE)
    assert {event["eventName"] for event in events} <= wanted


def in_shell(
    command: str, directory: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )


def test_check_prints_the_settings(checkout: Path, env: dict[str, str]) -> None:
    (command,) = (text for text in CHECKS if "--connect" not in text)
    done = in_shell(command, checkout, env)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^device +8002 +--device$", done.stdout, re.MULTILINE)
    assert re.search(r"^url +ws://\S+ +CTI_URL$", done.stdout, re.MULTILINE)


def test_check_goes_the_way_that_is_shown(checkout: Path, env: dict[str, str]) -> None:
    (command,) = (text for text in CHECKS if "--connect" in text)
    done = in_shell(command, checkout, env)
    assert (done.returncode, done.stderr) == (0, "")
    (shown,) = (text for text in in_language("text") if "SUBSCRIBE" in text)
    assert numberless(done.stdout) == numberless(shown)


def numberless(steps: str) -> list[str]:
    """Return the steps without their times, ports and counts."""
    return [" ".join(re.sub(r"\b\d+\b", "N", line).split()) for line in steps.splitlines()]


def test_a_journal_can_be_looked_into(checkout: Path, env: dict[str, str]) -> None:
    (fill,) = (text for text in COMMANDS if "--journal" in text and "--to" not in text)
    listens_and_prints(fill, checkout, env)
    looks = [text for text in COMMANDS if text.startswith("cti-listen journal")]
    stats, gaps = (in_shell(command, checkout, env) for command in looks)
    assert (stats.returncode, gaps.returncode) == (0, 0)
    assert "handler output: 0 unfinished" in stats.stdout or "unfinished since" in stats.stdout
    assert gaps.stdout == "none\n"


def test_the_admin_endpoint_tells_what_is_shown(checkout: Path, env: dict[str, str]) -> None:
    need_server("curl", Path("/usr/bin/curl"))
    del env["CTI_COUNT"]
    command = next(text for text in COMMANDS if text.endswith("--admin 127.0.0.1:9464"))
    (shown,) = (text for text in in_language("text") if "cti_listener_connected" in text)
    with started(*command.replace("9464", "0").split()[1:], env=env, text=True) as listener:
        logged = (json.loads(line) for line in listener.stderr)
        at = next(line["url"] for line in logged if line["event"] == "admin_listening")
        next(line for line in logged if line["event"] == "connected")
        asked = [text.replace("http://127.0.0.1:9464/", at) for text in COMMANDS if "curl" in text]
        ready, scraped, state, events = (in_shell(text, checkout, env).stdout for text in asked)
    assert json.loads(ready)["status"] == "ok"
    assert scraped == shown
    assert json.loads(state)["connection"]["connected"]
    assert '"eventName":"delivered"' in events


def test_the_simulator_is_where_the_readme_says() -> None:
    assert "cti-listen simulate" in COMMANDS
    shown = next(text for text in COMMANDS if text.startswith("export "))
    help_text = run("simulate", "--help").stdout
    port = re.search(r"--port.*?\[default:\s+(\d+)\]", help_text, re.DOTALL)
    assert port
    with simulator() as found:
        assert shown == "export CTI_URL=" + re.sub(r":\d+/", f":{port[1]}/", found)


def test_the_faults_shown_are_faults_there_are() -> None:
    (command,) = (text for text in COMMANDS if text.startswith("cti-listen simulate --fault"))
    with simulator(*command.split()[2:]) as url:
        assert url


def test_the_benchmark_prints_the_lines_that_are_shown() -> None:
    assert "make bench" in COMMANDS
    parts = ("--only", "throughput", "journal")
    done = subprocess.run(
        [sys.executable, "-m", "bench.speed", "--rounds", "1", "--events", "1000", *parts],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a goal is not met
    line = r"(?m)^(\S.+?) +[\d.]+ \([\d.]+-[\d.]+\) +>= [\d.]+ +(?:met|NOT MET) +[\d,/s to]+$"
    (shown,) = (text for text in in_language("text") if ">= 0.9" in text)
    names = re.findall(line, shown)
    assert len(names) == len(shown.splitlines())
    assert set(names) <= set(re.findall(line, done.stdout)), done.stdout


@pytest.mark.parametrize(
    ("target", "module"), [("test", "-m pytest -n "), ("bench", "-m bench.speed")]
)
def test_make_runs_the_tests_and_the_bench(
    target: str, module: str, checkout: Path, env: dict[str, str]
) -> None:
    assert f"make {target}" in COMMANDS
    done = in_shell(f"make --dry-run {target}", checkout, env)  # it would run this test, and so on
    assert done.returncode == 0
    assert module in done.stdout.splitlines()[-1]


def test_the_compose_commands_name_services_there_are() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    named = [text.split()[-1] for text in COMMANDS if text.startswith("docker compose logs")]
    assert named
    assert set(named) <= services.keys()


def test_no_command_is_left_out() -> None:
    tried = (
        r"cti-listen (--|check|simulate|journal)|make (demo|(test|bench)$)|export CTI_URL="
        r"|docker compose |echo .*webhook-keys|curl "
    )
    assert [text for text in COMMANDS if not re.match(tried, text)] == []


CHECKS: Final = [text for text in COMMANDS if text.startswith("cti-listen check")]

PROGRAMS: Final = [
    text for text in in_language("python") if "Listener(" in text and "def test_" not in text
]

SAID: Final = [
    [
        r"800[12]@zhen04.cc rings: \S+, call \S{36}",
        r"8002@zhen04.cc has hung up: \S+",
        r"500[12]@zhen04.cc agentReady at \S+ \S+\+08:00",
        r"\S+ \S+ to \S+ \S+: events may be missing, disconnected",
    ],
    [
        r"ringing \S{36}",
        r"here you would hang up",
        r"over \S{36}",
        r"established \S+@zhen04.cc \S+@zhen04.cc",
        r"\d+ events",
    ],
    [
        r"connected \S+ \S+",
        r"established \S{36}",
        r"HandlerStats\(handled=[1-9]\d*, failed=0, dropped=0, waiting=0\)",
    ],
    [r"\S{36} is over: \S+"],
    [
        r"800\d@zhen04.cc talks to \['\S+@zhen04.cc'\], since \S+ \S+",
        r"800\d@zhen04.cc (inbound|outbound|internal|predictive) \d+\.0 s",
        r"500\d@zhen04.cc is (Ready|NotReady|WorkNotReady), was \w+",
    ],
    [r"5002@zhen04.cc is \w+, as the server answered", r"\S+@zhen04.cc is \w+, by an event"],
]
"""What each program must print at least, a line each, in any order."""


def test_there_is_something_to_expect_of_every_program() -> None:
    assert len(PROGRAMS) == len(SAID)


@pytest.mark.parametrize(("program", "said"), list(zip(PROGRAMS, SAID, strict=False)))
def test_a_program_does_what_it_shows(
    program: str, said: list[str], env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)
    code = -signal.SIGTERM if "listener.run()" in program else 0
    if "@listener.on(Gap)" not in program:
        assert prints(said, file, env) == code
        return
    with simulator("--fault", "drop_every=1") as url:
        assert prints(said, file, {**env, "CTI_URL": url}) == code


def test_the_durable_program_names_the_time_it_was_not_there(
    env: dict[str, str], tmp_path: Path
) -> None:
    (program,) = (text for text in PROGRAMS if "journal=" in text)
    file = tmp_path / "program.py"
    file.write_text(program)
    over = r"\S{36} is over( again)?: \S+"
    assert prints([over], file, env) == -signal.SIGTERM
    assert prints([over, r"1: \S+ \S+ to \S+ \S+, listener_down"], file, env) == -signal.SIGTERM


def test_the_receiver_shown_verifies_what_the_command_shown_posts(
    checkout: Path, env: dict[str, str]
) -> None:
    """All as it stands, but for the port, of which there is one on a machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    (program,) = (text for text in in_language("python") if "WebhookVerificationError" in text)
    (command,) = (text for text in COMMANDS if "--to http" in text)
    (key,) = (text for text in COMMANDS if text.startswith("echo"))
    assert in_shell(key, checkout, env).returncode == 0
    file = checkout / "receiver.py"
    file.write_text(program.replace("8780", port))
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", file],
        cwd=checkout,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as receiver:
        limit = threading.Timer(LIMIT, receiver.kill)
        limit.start()
        assert receiver.stdout
        assert any("Running on" in line for line in receiver.stdout)
        done = in_shell(command.replace("8780", port), checkout, env)
        receiver.terminate()
        received = receiver.stdout.read()
        limit.cancel()
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    printed = [one for one in events if one["eventType"] != "listener"]
    assert printed
    for event in printed:
        device, call = routing_key(event), event.get("callId")
        assert f"cti.event.{event['eventName']} {device} {call}\n" in received


def test_the_sink_shown_can_be_installed_and_used(checkout: Path, env: dict[str, str]) -> None:
    (program,) = (text for text in in_language("python") if "SinkOptions" in text)
    (entry,) = (text for text in in_language("toml") if "entry-points" in text)
    ((name, where),) = tomllib.loads(entry)["project"]["entry-points"]["cti_listener.sinks"].items()
    (checkout / f"{where.partition(':')[0]}.py").write_text(program)
    info = checkout / "wallboard-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wallboard\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cti_listener.sinks]\n{name} = {where}\n")
    done = in_shell("cti-listen --ns zhen04.cc --to wallboard:now", checkout, env)
    assert done.returncode == 0, done.stderr
    assert {path.read_text() for path in (checkout / "now").iterdir()} <= set(CATALOGUE)
    assert list((checkout / "now").iterdir())


def prints(said: list[str], file: Path, env: dict[str, str]) -> int:
    """Run a program until it has printed all this, and if it has no end of its own, end it."""
    missing = set(said)
    lines = []
    with subprocess.Popen(
        [sys.executable, "-W", "error", file],
        cwd=file.parent,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            missing = {text for text in missing if not re.fullmatch(text, line.rstrip())}
            if not missing and "listener.run()" in file.read_text():
                process.terminate()
                break
        code = process.wait()
        limit.cancel()
    assert not missing, "".join(lines)
    return code


def test_the_tests_shown_pass(env: dict[str, str], tmp_path: Path) -> None:
    (text,) = (text for text in in_language("python") if "def test_" in text)
    file = tmp_path / "test_shown.py"
    file.write_text(text)
    del env["CTI_URL"], env["CTI_COUNT"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, file],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
