"""The unit in `config/`, held to the program and, where systemd is here, to systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from cti_listener.ops.exits import ExitCode
from cti_listener.ops.notifying import MARGIN, PATIENCE
from cti_listener.settings.model import Settings
from tests.program import ROOT
from tests.servers import need_server

UNIT: Final = ROOT / "config" / "cti-listener.service"
ANALYZE: Final = Path("/usr/bin/systemd-analyze")


def assignments(name: str) -> list[str]:
    """Return what the unit assigns to this name, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def only(name: str) -> str:
    (text,) = assignments(name)
    return text


def test_its_journal_drops_no_events() -> None:
    assert only("LogRateLimitIntervalSec") == "0"


def test_systemd_is_waited_for_and_waits_long_enough() -> None:
    assert only("Type") == "notify"
    assert only("KillSignal") == "SIGTERM"
    drain = Settings.model_fields["drain"].default
    closing = Settings.model_fields["close_timeout"].default
    assert float(only("TimeoutStopSec")) > drain + closing + MARGIN
    assert float(only("TimeoutStartSec")) > PATIENCE


def test_a_reload_is_the_signal_that_ends_nothing() -> None:
    assert only("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_what_a_person_must_mend_is_not_tried_again() -> None:
    assert only("Restart") == "on-failure"
    never = {ExitCode(int(code)) for code in only("RestartPreventExitStatus").split()}
    assert never == {
        ExitCode.USAGE,
        ExitCode.OUTPUT,
        ExitCode.REFUSED,
        ExitCode.CONFIGURATION,
    }


def test_its_settings_are_settings_and_no_secret_is_in_its_environment() -> None:
    names = [text.partition("=")[0] for text in assignments("Environment")]
    assert {name.removeprefix("CTI_").lower() for name in names} <= Settings.model_fields.keys()
    assert all(name.endswith(("_FILE", "_JOURNAL")) for name in names)
    credential = only("LoadCredential").partition(":")[0]
    assert f"CTI_TOKEN_FILE=%d/{credential}" in assignments("Environment")


def test_its_files_lie_where_it_may_write() -> None:
    state, runtime = only("StateDirectory"), only("RuntimeDirectory")
    assert f"CTI_JOURNAL=/var/lib/{state}/journal.db" in assignments("Environment")
    assert f"CTI_HEALTH_FILE=/run/{runtime}/health.json" in assignments("Environment")
    assert only("ProtectSystem") == "strict"


@pytest.mark.server
def test_systemd_finds_nothing_wrong_with_it_and_little_exposed(tmp_path: Path) -> None:
    need_server("systemd", ANALYZE)
    program = shutil.which("true")
    assert program is not None
    unit = tmp_path / UNIT.name
    text = re.sub(
        r"^ExecStart=\S+", f"ExecStart={program}", UNIT.read_text("utf-8"), flags=re.MULTILINE
    )
    unit.write_text(text, encoding="utf-8")
    verified = subprocess.run(
        [ANALYZE, "verify", unit], capture_output=True, text=True, check=False, timeout=30
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    # Of 10; systemd itself calls what is below 2.0 "OK".
    judged = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert judged.returncode == 0, judged.stdout
