from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cti_listener.cli import Flags
from cti_listener.settings import Settings, load
from cti_listener.settings.model import ALIASES
from cti_listener.sources.options import ConnectionOptions
from tests.settings.given import URL, settings

if TYPE_CHECKING:
    from tests.settings.given import Write


def test_flags_win_over_environment_over_file_over_default(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('namespace = "file"\nvhost = "file"\norigin = "file"\n')
    monkeypatch.setenv("CTI_CONFIG", path)
    monkeypatch.setenv("CTI_NAMESPACE", "env")
    monkeypatch.setenv("CTI_VHOST", "env")
    configuration = load({"url": (URL,), "namespace": "flag"})
    found = configuration.settings
    assert (found.namespace, found.vhost, found.origin) == ("flag", "env", "file")
    assert found.zone == "Asia/Shanghai"
    assert configuration.sources == {
        "url": "--url",
        "namespace": "--ns",
        "config": "CTI_CONFIG",
        "vhost": "CTI_VHOST",
        "origin": f"{path}: origin",
    }


@pytest.mark.parametrize("name", ["CTI_NS", "CTI_NAMESPACE"])
def test_the_namespace_has_a_short_name(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "zhen04.cc")
    configuration = load({"url": (URL,)})
    assert configuration.settings.namespace == "zhen04.cc"
    assert configuration.sources["namespace"] == name
    monkeypatch.delenv(name)
    assert settings(config=write('ns = "a.cc"\n')).namespace == "a.cc"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTI_PASSCODE", "")
    monkeypatch.setenv("CTI_MAX_ATTEMPTS", "")
    assert settings().passcode is None


def test_a_weaker_file_gives_way_to_a_stronger_secret(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from the file\n", encoding="utf-8")
    path = write(f'passcode_file = "{secret}"\n')
    assert settings(config=path).credentials().passcode == "from the file"
    monkeypatch.setenv("CTI_PASSCODE", "from the environment")
    assert settings(config=path).credentials().passcode == "from the environment"


def test_every_flag_is_a_setting() -> None:
    assert {field.name for field in fields(Flags)} <= set(Settings.model_fields)


def test_the_test_suites_own_variable_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTI_REQUIRE_SERVERS", "1")
    settings()


def test_the_addresses_kubernetes_gives_of_a_service_named_cti_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in {
        "CTI_SERVICE_HOST": "10.0.0.1",
        "CTI_SERVICE_PORT": "80",
        "CTI_SERVER_SERVICE_PORT_HTTP": "80",
        "CTI_PORT": "tcp://10.0.0.1:80",
        "CTI_PORT_80_TCP": "tcp://10.0.0.1:80",
        "CTI_PORT_80_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, text)
    settings()


def test_the_connections_settings_are_its_options_with_their_defaults() -> None:
    names = {"topics": "topic", "headers": "header", "connect_headers": "connect_header"}
    for field in fields(ConnectionOptions):
        if field.name != "ssl_context":  # an object; no text can name one
            assert names.get(field.name, field.name) in Settings.model_fields
    assert ConnectionOptions(**settings().connection()) == ConnectionOptions()


def test_an_alias_is_no_setting_of_its_own() -> None:
    assert not ALIASES.keys() & set(Settings.model_fields)
