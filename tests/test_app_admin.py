"""The admin endpoint of the daemon, as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from cti_listener.simulator import SimulatorServer
from tests.admin.support import TOKEN
from tests.examples import make
from tests.program import environment, listening, read_until, rest, run
from tests.servers import free_ports

URL = "ws://127.0.0.1:9/mvc/stomp/websocket"


async def test_it_says_where_it_listens_and_answers_before_the_server_does() -> None:
    async with listening("--url", URL, "--ns", "x.cc", "--admin", "127.0.0.1:0") as process:
        said = await read_until(process.stderr, "admin_listening")
        async with aiohttp.ClientSession(said["url"]) as client:
            async with client.get("/livez") as live, client.get("/readyz") as ready:
                assert (live.status, ready.status) == (200, 503)
            process.send_signal(signal.SIGTERM)
            await rest(process)
    assert process.returncode == 0


async def test_it_answers_until_all_is_drained(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n", encoding="utf-8")
    given = ("--admin", f"127.0.0.1:{port}", "--admin-token-file", str(token))
    async with (
        SimulatorServer() as server,
        listening("--url", server.stomp_url, "--ns", "zhen04.cc", *given) as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        await read_until(process.stdout, "connected")
        await server.send(make())
        await read_until(process.stdout, "delivered")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with client.get("/v1/events", headers=headers) as events:
            async with client.get("/metrics", headers=headers) as answer:
                text = await answer.text()
            assert 'sink_records_total{outcome="taken",sink="output"} 1.0' in text
            async with client.get("/metrics") as refused:
                assert refused.status == 401
            process.send_signal(signal.SIGTERM)
            assert b"event: bye" in await events.content.read()
        _, errors = await rest(process)
        assert (process.returncode, TOKEN in errors) == (0, False)


@pytest.mark.parametrize(
    ("given", "settings", "problem"),
    [
        (("--admin", "0.0.0.0:0"), {}, "--admin-token-file"),
        (("--admin", "[::]:0"), {}, "CTI_ADMIN_TOKEN"),
        (("--admin", "127.0.0.1:0"), {"CTI_ADMIN_TOKEN": "short"}, "openssl rand -hex 32"),
    ],
)
@pytest.mark.parametrize("command", [(), ("check",)])
def test_it_is_not_open_to_others_without_a_token(
    command: tuple[str, ...], given: tuple[str, ...], settings: dict[str, str], problem: str
) -> None:
    done = run(*command, "--url", URL, "--ns", "x.cc", *given, **settings)
    assert done.returncode == 78
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert "short" not in done.stderr.replace("shortest", "")


@pytest.mark.parametrize("at", ["nowhere", "127.0.0.1", "127.0.0.1:99999", "::1:80"])
def test_an_address_that_is_none_is_a_mistake_of_usage(at: str) -> None:
    done = run("--url", URL, "--ns", "x.cc", "--admin", at)
    assert (done.returncode, "--admin: " in done.stderr) == (2, True)


def test_a_token_on_the_command_line_is_refused_and_not_repeated() -> None:
    done = run("--url", URL, "--ns", "x.cc", "--admin-token", TOKEN)
    assert (done.returncode, TOKEN in done.stderr) == (2, False)
    assert "CTI_ADMIN_TOKEN" in done.stderr


def test_check_shows_the_token_to_nobody() -> None:
    given = {"CTI_ADMIN_TOKEN": TOKEN, "CTI_ADMIN": "127.0.0.1:9464"}
    done = run("check", "--url", URL, "--ns", "x.cc", **given)
    assert (done.returncode, TOKEN in done.stdout + done.stderr) == (0, False)


def test_a_port_that_is_taken_ends_it_with_advice() -> None:
    import socket  # noqa: PLC0415 - for this alone

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--url", URL, "--ns", "x.cc", "--admin", f"127.0.0.1:{port}")
    assert done.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("module", ["aiohttp", "prometheus_client"])
async def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from cti_listener.cli import main\n"
        f"sys.exit(main(['--url', {URL!r}, '--ns', 'x.cc', '--admin', '127.0.0.1:0']))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment(), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 78
    assert "pip install 'cti-listener[http]'" in errors.decode()


async def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    program = (
        "import sys\n"
        "from cti_listener.cli import main\n"
        "main(['--demo', '--count', '1', '--format', 'json'])\n"
        "sys.exit(bool({'aiohttp', 'prometheus_client'} & sys.modules.keys()))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
