"""Files that the settings name: what stands there already is not overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cti_listener.settings.making import ailments
from tests.program import run
from tests.settings.given import settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_health_file_does_not_take_the_place_of_another(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    journal = tmp_path / "journal.db"
    assert run("--demo", "--count", "1", "--journal", str(journal)).returncode == 0
    before = journal.read_bytes()
    done = run(*command, "--demo", "--duration", "1", "--health-file", str(journal))
    assert done.returncode == 78
    assert "health_file: " in done.stderr
    assert "is not a listener's health file" in done.stderr
    assert journal.read_bytes() == before


def test_where_no_health_file_can_be_is_told_beforehand(tmp_path: Path) -> None:
    [told] = ailments(settings(health_file=tmp_path))
    assert told == f"health_file: {tmp_path} is no file; name one"
    [told] = ailments(settings(health_file=tmp_path / "none" / "health.json"))
    assert told == f"health_file: there is no directory {tmp_path / 'none'}; make it first"
