"""Files that the settings name: what stands there already is not overwritten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from cti_listener.settings.making import ailments
from tests.program import run
from tests.settings.given import settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_health_file_does_not_take_the_place_of_another(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    records = tmp_path / "records"
    records.write_text("what nobody wants to lose", encoding="utf-8")
    done = run(*command, "--demo", "--duration", "1", "--health-file", str(records))
    assert done.returncode == 78
    assert "health_file: " in done.stderr
    assert "is not a listener's health file" in done.stderr
    assert records.read_text(encoding="utf-8") == "what nobody wants to lose"


def test_where_no_health_file_can_be_is_told_beforehand(tmp_path: Path) -> None:
    [told] = ailments(settings(health_file=tmp_path))
    assert told == f"health_file: {tmp_path} is no file; name one"
    [told] = ailments(settings(health_file=tmp_path / "none" / "health.json"))
    assert told == f"health_file: there is no directory {tmp_path / 'none'}; make it first"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"journal": "a", "health_file": "a"}, "health_file: names the file of journal"),
        ({"journal": "a", "health_file": "link/a"}, "health_file: names the file of journal"),
        ({"journal": "a", "health_file": "a-wal"}, "health_file: names the file of journal"),
        ({"journal": "a", "to": ("jsonl:a",)}, "to: names the file of journal"),
        ({"health_file": "a", "to": ("x=JSONL:a",)}, "to: names the file of health_file"),
        ({"to": ("x=jsonl:a", "y=jsonl:b/../a")}, "to: names the file of another sink"),
        ({"config": "c", "journal": "c"}, "journal: names the file of config"),
        ({"token_file": "t", "to": ("jsonl:t",)}, "to: names the file of token_file"),
    ],
)
def test_two_settings_do_not_name_one_file_to_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "c").touch()
    (tmp_path / "t").write_text("secret", encoding="utf-8")
    assert [one for one in ailments(settings(**flags)) if one.startswith(told)]


def test_two_that_are_read_may_be_one_file(tmp_path: Path) -> None:
    pem = tmp_path / "client.pem"
    trustme.CA().issue_cert("us").private_key_and_cert_chain_pem.write_to_path(str(pem))
    assert ailments(settings(cert_file=pem, key_file=pem)) == []


@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_file_that_is_named_twice_is_not_touched(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = str(tmp_path / "one")
    done = run(*command, "--demo", "--journal", path, "--health-file", path)
    assert done.returncode == 78
    assert "health_file: names the file of journal as well" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [(), ("check",)])
def test_no_lines_are_written_into_a_journal(tmp_path: Path, command: tuple[str, ...]) -> None:
    journal = tmp_path / "journal.db"
    with closing(sqlite3.connect(journal)) as db:
        db.execute("CREATE TABLE event (seq)")
    before = journal.read_bytes()
    done = run(*command, "--demo", "--duration", "1", "--to", f"jsonl:{journal}")
    assert (done.returncode, journal.read_bytes()) == (78, before)
    assert "it is a database" in done.stderr


def test_a_directory_in_the_place_of_a_sinks_file_is_told_beforehand(tmp_path: Path) -> None:
    [told] = ailments(settings(to=(f"jsonl:{tmp_path}",)))
    assert told == f"to: cannot write to {tmp_path}: Is a directory"
