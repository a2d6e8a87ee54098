from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from cti_listener import __version__, cli, quick
from cti_listener.cli import main
from cti_listener.simulator import Faults
from tests.program import PROGRAM, environment, run, started


@pytest.fixture
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CTI_"):
            monkeypatch.delenv(name)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--cuont", "3"], "Unknown option: --cuont. Did you mean --count?"),
            (["--count", "x"], 'Invalid value for --count: unable to convert "x" into int.'),
            (
                ["--wire", "x"],
                'Invalid value "x" for --wire. Choose from: "auto", "stomp", "json".',
            ),
            (["--device"], "Parameter --device requires an argument."),
            (["listen"], "'listen' is neither a flag nor a command"),
            (["simulate", "--rat", "3"], "Unknown option: --rat. Did you mean --rate?"),
        ],
    )
    def test_a_mistake_is_told_in_two_lines(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        assert capsys.readouterr() == (
            "",
            f"cti-listen: {said}\ncti-listen: See cti-listen --help.\n",
        )

    @pytest.mark.parametrize(
        "arguments",
        [["--passcode", "CANARY"], ["--token=CANARY"], ["check", "--cookie", "CANARY"]],
    )
    def test_a_secret_on_the_command_line_is_refused(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert re.search(r"set CTI_(\w+), or use --\w+-file FILE", said)
        assert "CANARY" not in said

    @pytest.mark.usefixtures("no_settings_around")
    def test_a_flag_out_of_range_is_a_usage_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--demo", "--count", "-1"]) == 2
        assert capsys.readouterr().err == (
            "cti-listen: --count: '-1' must be greater than or equal to 0\n"
        )

    @pytest.mark.usefixtures("no_settings_around")
    def test_no_server_says_what_to_do_and_names_the_demo(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([]) == 78
        said = capsys.readouterr().err
        assert said.startswith("cti-listen: url: no server is configured")
        assert said.endswith("or try --demo\n")

    def test_a_setting_misspelt_in_the_environment_is_no_usage_error(self) -> None:
        done = run("--demo", CTI_DEVICES="8002")
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == "cti-listen: CTI_DEVICES: no such setting; did you mean CTI_DEVICE?\n"

    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"]])
    def test_help_imports_nothing_heavy(self, arguments: list[str]) -> None:
        script = (
            "import sys\n"
            "from cti_listener.cli import main\n"
            f"assert main({arguments}) == 0\n"
            "heavy = {'pydantic', 'websockets', 'structlog', 'asyncio'} & sys.modules.keys()\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_help_names_every_flag_of_the_design(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["--help"])
        said = capsys.readouterr().out
        flags = "url ns device agent event wire topic format count duration config demo"
        flags += " log-level log-format passcode-file token-file"
        for flag in flags.split():
            assert f"--{flag}" in said

    @pytest.mark.parametrize("command", ["", "check", "simulate", "healthcheck", "journal gaps"])
    def test_help_is_the_command_lines_librarys_own(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [*command.split(), "--help"]
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        cli.app(arguments)
        assert shown == capsys.readouterr().out

    def test_help_says_of_each_command_what_it_is_for(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(["--help"])
        said = capsys.readouterr().out
        for command, what in (("check", "Print"), ("journal", "Look into"), ("simulate", "Serve")):
            assert re.search(rf"\b{command} +{what}", said)

    def test_the_help_that_is_kept_is_what_would_be_laid_out_now(self) -> None:
        """If this fails: `make help-page`."""
        laid_out = run("--help", COLUMNS="80", FORCE_COLOR="1", TERM="xterm").stdout
        assert laid_out == quick.HELP.read_text(encoding="utf-8")
        assert run("-h").stdout == run("--help").stdout == re.sub(r"\x1b\[\d*m", "", laid_out)

    def test_help_is_laid_out_anew_where_there_is_less_room(self) -> None:
        said = run("--help", COLUMNS="60").stdout
        assert max(map(len, said.splitlines())) == 60

    def test_only_the_help_of_what_has_settings_tells_of_them(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        told = {}
        for command in ("", "check", "simulate", "healthcheck"):
            assert main([*command.split(), "--help"]) == 0
            told[command] = "CTI_MAX_ATTEMPTS" in capsys.readouterr().out
        assert told == {"": True, "check": True, "simulate": False, "healthcheck": False}

    def test_the_help_of_the_simulator_names_every_fault(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["simulate", "--help"]) == 0
        said = capsys.readouterr().out.partition("There are:")[2]
        named = re.findall(r"\b[a-z]+[a-z0-9_]*\b", said)
        assert named == [field.name for field in fields(Faults)]

    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"{__version__}\n"

    def test_a_reader_that_leaves_the_help_is_no_error(self) -> None:
        done = subprocess.run(
            ["sh", "-c", '"$@" --help | head -1', "sh", *PROGRAM],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["check", "--demo"]])
    def test_a_full_disk_under_stdout_is_told_in_a_line(self, arguments: list[str]) -> None:
        with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device, as a shell opens it
            done = subprocess.run(
                [*PROGRAM, *arguments],
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=30,
                check=False,
            )
        said = "cti-listen: cannot write the output: No space left on device\n"
        assert (done.returncode, done.stderr) == (74, said)

    def test_help_flows_where_its_source_breaks_lines(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Each line of a cell is full: a word of the next one would not have fitted."""
        assert main(["simulate", "--help"]) == 0
        said = capsys.readouterr().out
        (cell,) = re.findall(r"There are:.*?expire_every\.", said, re.DOTALL)
        lines = [line.strip("│ ") for line in cell.splitlines()]
        assert max(map(len, lines[1:])) - min(map(len, lines[1:-1])) < len("half_open_every,")

    def test_closed_standard_streams_are_no_error(self) -> None:
        for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
            done = subprocess.run(
                ["sh", "-c", f'"$@" --demo --count 1 {closed}', "sh", *PROGRAM],
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 0
            assert b"Traceback" not in done.stderr


class TestCheck:
    def test_prints_each_setting_with_its_source_and_masks_secrets(self, tmp_path: Path) -> None:
        config = tmp_path / "cti.toml"
        config.write_text('wire = "json"\n', encoding="utf-8")
        done = run(
            "check",
            *("--ns", "zhen04.cc", "--config", str(config)),
            CTI_URL="wss://me:CANARY@cti.example.com/?token=CANARY",
            CTI_PASSCODE="CANARY",
        )
        rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
        assert done.returncode == 0
        assert ["namespace", "zhen04.cc", "--ns"] in rows
        assert ["wire", "json", f"{config}: wire"] in rows
        assert ["passcode", "********", "CTI_PASSCODE"] in rows
        assert ["url", "wss://********@cti.example.com/?token=********", "CTI_URL"] in rows
        assert ["zone", "Asia/Shanghai", "default"] in rows
        assert "CANARY" not in done.stdout + done.stderr

    def test_tells_every_mistake_at_once(self) -> None:
        done = run("check", "--device", "8002", CTI_WIRE="stmp", CTI_COUNT="x", CTI_TOKEN="CANARY")
        assert done.returncode == 78
        assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
            "CTI_WIRE",
            "CTI_COUNT",
            "url",
            "--device",
        ]
        assert "CANARY" not in done.stdout + done.stderr

    @pytest.mark.usefixtures("no_settings_around")
    def test_finds_what_only_the_listener_knows(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "--demo", "--topic", "/topic/{devcie}"]) == 78
        assert "{devcie}" in capsys.readouterr().err


class TestHealthcheck:
    def test_nothing_running_is_unwell(self, tmp_path: Path) -> None:
        done = run("healthcheck", CTI_HEALTH_FILE=str(tmp_path / "none"))
        assert (done.returncode, done.stdout) == (1, "")
        assert "the listener is not running" in done.stderr

    def test_imports_next_to_nothing(self, tmp_path: Path) -> None:
        file = str(tmp_path / "none")
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *PROGRAM[1:], "healthcheck", "--file", file],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert done.returncode == 1
        ours = {name for name in imported if name.startswith("cti_listener.")}
        assert ours == {"cti_listener.quick", "cti_listener.ops", "cti_listener.ops.health"}
        heavy = {"pydantic", "websockets", "cyclopts", "structlog", "asyncio", "rich", "argparse"}
        assert not heavy & imported

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--file", "F", "--max-age", "3"], (Path("F"), None, 3.0)),
            (["--max-age=0", "--config=C", "--file=F"], (Path("F"), Path("C"), 0.0)),
            ([], (None, None, None)),
        ],
    )
    def test_is_read_at_once_as_the_whole_command_line_reads_it(
        self, arguments: list[str], told: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard: list[tuple[object, ...]] = []

        def hear(*flags: object) -> int:
            heard.append(flags)
            return 0

        monkeypatch.setattr(quick, "healthcheck", hear)
        assert quick.answer(["healthcheck", *arguments]) == 0
        assert cli.app(["healthcheck", *arguments]) == 0
        assert heard == [told, told]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--fiel", "F"], "Unknown option: --fiel. Did you mean --file?"),
            (["--max-age", "soon"], 'unable to convert "soon" into float'),
            (["--file"], "--file requires an argument"),
            (["now"], "'now' is neither a flag nor a command"),
        ],
    )
    def test_mistakes_are_told_as_any_others(self, arguments: list[str], said: str) -> None:
        done = run("healthcheck", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


class TestSimulate:
    def test_serves_both_wires_until_told_to_stop(self) -> None:
        with started("simulate", "--port", "0", "--rate", "50", "--seed", "3") as simulator:
            urls = [simulator.stderr.readline().decode().split()[-1] for _ in range(2)]
            for url in urls:
                done = run("--url", url, "--ns", "zhen04.cc", "--count", "3")
                assert done.returncode == 0, done.stderr
                events = [json.loads(line) for line in done.stdout.splitlines()]
                assert sum(event["eventType"] != "listener" for event in events) == 3
            simulator.send_signal(signal.SIGTERM)
            assert simulator.wait(10) == 0
            assert simulator.stdout.read() == b""

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--rate", "0"], "rate: must be more than 0 events a second"),
            (["--fault", "rpeat=1"], "fault rpeat: is unknown"),
        ],
    )
    def test_says_what_it_cannot_do(
        self, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["simulate", *flags]) == 2
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize(
        "flags", [["--port", "99999"], ["--port", "-1"], ["--host", "\udcff", "--port", "0"]]
    )
    def test_a_place_that_is_none_is_told(self, flags: list[str]) -> None:
        done = run("simulate", *flags)
        assert done.returncode == 78
        assert "host, port: cannot listen on" in done.stderr

    def test_a_port_in_use_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            assert main(["simulate", "--port", str(taken.getsockname()[1])]) == 78
        assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
