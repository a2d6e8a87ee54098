from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cti_listener.sources.options import secrets_of_credentials
from tests.settings.given import settings

if TYPE_CHECKING:
    from tests.settings.given import Write


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("8002@a.cc", ("8002@a.cc",)),
        ("8002@a.cc, 8003@a.cc,", ("8002@a.cc", "8003@a.cc")),
        ('["8002@a.cc", "8003@a.cc"]', ("8002@a.cc", "8003@a.cc")),
    ],
)
def test_a_list_in_the_environment(
    text: str, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTI_DEVICE", text)
    assert settings().device == devices


def test_ids_may_be_joined_by_commas_in_one_flag() -> None:
    found = settings(namespace="a.cc", device=("8002,8003", "8004"), event=("held, failed",))
    assert (found.device, found.event) == (("8002", "8003", "8004"), ("held", "failed"))


def test_ids_in_a_file_need_no_quotes(write: Write) -> None:
    path = write('ns = "a.cc"\ndevice = [8002, "8003"]\nagent = 5002\n')
    found = settings(config=path)
    assert (found.device, found.agent) == (("8002", "8003"), ("5002",))


def test_a_message_template_keeps_its_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTI_SUBSCRIBE", '{"do": "subscribe", "who": "{device}"}')
    assert settings().subscribe == ('{"do": "subscribe", "who": "{device}"}',)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("X-Tenant: 5", {"X-Tenant": "5"}),
        ('{"X-Tenant": "5", "Y": "a: b, c"}', {"X-Tenant": "5", "Y": "a: b, c"}),
        ("X:1\nY: 2", {"X": "1", "Y": "2"}),
    ],
)
def test_headers_in_the_environment(
    text: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTI_HEADER", text)
    assert settings().credentials().headers == headers


def test_headers_in_flags_and_file(write: Write) -> None:
    assert settings(header=("X-Tenant:5",)).credentials().headers == {"X-Tenant": "5"}
    path = write('connect_header = {sessionId = "7"}\n')
    assert settings(config=path).credentials().connect_headers == {"sessionId": "7"}


def test_secret_files_are_read_afresh_without_their_line_break(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old\r\n", encoding="utf-8")
    found = settings(token_file=str(secret))
    assert found.credentials().token == "old"
    secret.write_text("new", encoding="utf-8")
    assert found.credentials().token == "new"
    assert secrets_of_credentials(found.credentials()) == {"new"}


@pytest.mark.parametrize(("text", "proxy"), [("auto", True), ("none", None)])
def test_a_proxy_may_be_found_or_forbidden(text: str, proxy: object) -> None:
    assert settings(proxy=text).connection()["proxy"] is proxy


def test_no_limit_of_attempts_is_told_by_zero() -> None:
    assert settings().connection()["max_attempts"] is None
    assert settings(max_attempts=3).connection()["max_attempts"] == 3
