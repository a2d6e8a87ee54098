from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from cti_listener import quick
from cti_listener.ops import health
from tests.program import environment
from tests.unprivileged import locked, unprivileged


def test_a_fresh_sign_of_life_is_well_and_holds_the_facts(tmp_path: Path) -> None:
    file = health.HealthFile(tmp_path / "health.json")
    file.beat({"connected": True})
    sign = json.loads(file.path.read_text(encoding="utf-8"))
    assert sign.keys() == {"pid", "monotonic", "connected"}
    assert health.ailment(file.path, {}) is None


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    file = health.HealthFile(tmp_path / "health.json")
    file.beat({})
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    file = health.HealthFile(tmp_path / "health.json")
    file.path.symlink_to(victim)
    (tmp_path / f".health.json.{os.getpid():07}").symlink_to(victim)
    file.beat({})
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not file.path.is_symlink()


@pytest.mark.parametrize(
    ("sign", "why"),
    [
        ({"pid": 7, "monotonic": time.monotonic() - 60}, "event loop of process 7 last turned"),
        ({"pid": 7, "monotonic": time.monotonic() + 1e6}, "before the machine was started"),
        ({"pid": 7}, "not a listener's health file"),
        ([], "not a listener's health file"),
    ],
)
def test_a_sign_that_is_old_or_none_is_not_well(tmp_path: Path, sign: object, why: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps(sign), encoding="utf-8")
    assert why in str(health.ailment(path, {}))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"pid": 7, "monotonic": 1%s}' % ("0" * 400)])
def test_a_sign_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(text, encoding="utf-8")
    assert health.ailment(path, {}) == f"{path} is not a listener's health file"


def test_what_never_ends_or_never_comes_is_no_sign(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe):
        assert health.ailment(path, {}) == f"{path} is not a listener's health file"
    assert health.ailment(tmp_path, {}) == f"cannot read {tmp_path}: Is a directory"


def test_a_missing_file_says_that_nothing_runs(tmp_path: Path) -> None:
    assert "not running" in str(health.ailment(tmp_path / "none", {}))


def test_removing_leaves_nothing_and_spares_what_is_anothers(tmp_path: Path) -> None:
    file = health.HealthFile(tmp_path / "health.json")
    file.beat({})
    file.remove()
    file.beat({})  # a thread was late
    assert list(tmp_path.iterdir()) == []
    file.path.write_text('{"pid": 1, "monotonic": 0}', encoding="utf-8")
    file.remove()
    assert file.path.exists()


@pytest.mark.parametrize(
    "text", [b"SQLite format 3\0" + bytes(5000), b"[]", b'{"pid": 1}', b"[" * 4096, b"{}\n{}\n"]
)
def test_what_is_no_sign_of_life_is_neither_replaced_nor_removed(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "precious"
    path.write_bytes(text)
    assert "name another file" in str(health.unfit(path))
    health.HealthFile(path).remove()
    assert path.read_bytes() == text


def test_an_older_sign_an_empty_file_and_none_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    assert health.unfit(path) is None
    path.touch()
    assert health.unfit(path) is None
    path.write_text('{"pid": 1, "monotonic": 0}', encoding="utf-8")
    assert health.unfit(path) is None


def test_a_directory_and_a_missing_one_are_no_place(tmp_path: Path) -> None:
    assert "is no file" in str(health.unfit(tmp_path))
    assert "there is no directory" in str(health.unfit(tmp_path / "none" / "health.json"))


def test_a_place_where_we_may_write_nothing_is_none() -> None:
    with unprivileged() as folder:
        path = folder / "health.json"
        with locked(folder):
            assert health.unfit(path) == f"cannot write {path}: Permission denied"
        health.HealthFile(path).beat({})
        assert health.unfit(path) is None
        with locked(folder):
            assert health.unfit(path) == f"cannot write {path}: Permission denied"


@pytest.mark.parametrize(("user", "name"), [(0, "root"), (4_000_000, "user 4000000")])
def test_a_file_of_another_user_is_told_as_such(user: int, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    with unprivileged() as folder:
        path = folder / "health.json"
        health.HealthFile(path).beat({})
        os.seteuid(0)
        os.chown(path, user, -1)
        os.seteuid(folder.stat().st_uid)
        assert health.unfit(path) == (
            f"cannot read {path}: Permission denied; it is {name}'s, delete it if a listener left"
            " it there"
        )
        path.unlink()
        assert health.unfit(path) is None


def test_our_own_file_that_cannot_be_read_is_told_as_it_is() -> None:
    with unprivileged() as folder:
        path = folder / "health.json"
        health.HealthFile(path).beat({})
        path.chmod(0)
        assert health.unfit(path) == f"cannot read {path}: Permission denied"


def test_a_name_too_long_for_the_draft_is_none(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 246)
    assert health.unfit(path) is None
    health.HealthFile(path).beat({})
    assert "File name too long" in str(health.unfit(tmp_path / ("n" * 247)))


def test_a_directory_that_systemd_makes_at_a_start_is_told_as_such() -> None:
    assert health.unfit(Path("/run/no-such-service/health.json")) == (
        "there is no directory /run/no-such-service; make it first, or leave it to"
        " RuntimeDirectory= of a systemd unit"
    )


def test_removing_leaves_a_disk_that_hangs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hangs, go = health.HealthFile(tmp_path / "health.json"), Event(), Event()

    def hang(*_: object) -> None:
        hangs.set()
        go.wait()

    def touch(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Path, "replace", hang)
    beating = Thread(target=file.beat, args=({},))
    beating.start()
    hangs.wait()
    monkeypatch.setattr(Path, "open", touch)
    try:
        file.remove()
    finally:
        go.set()
        beating.join()


class TestOwnFile:
    def test_is_found_by_the_check_without_being_named(self, tmp_path: Path) -> None:
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        file = health.own_file(environ)
        assert file.path.parent.parent == tmp_path
        assert health.ailment(None, environ) is None
        file.remove()

    def test_nobody_running_is_not_well(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # a user without listeners
        assert "no listener" in str(health.ailment(None, {"XDG_RUNTIME_DIR": str(tmp_path)}))

    def test_what_a_killed_process_left_does_not_count(self, tmp_path: Path) -> None:
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        file = health.own_file(environ)
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait()
        left = file.path.with_name(f"{process.pid}.json")
        left.write_text(json.dumps({"pid": process.pid, "monotonic": 0.0}), encoding="utf-8")
        assert health.ailment(None, environ) is None
        assert not left.exists()
        file.remove()

    def test_one_that_ends_while_it_is_looked_for_does_not_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its file is listed, and gone when it is read."""
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        file = health.own_file(environ)
        ended = file.path.with_name(f"{os.getppid()}.json")
        ended.write_text("{}", encoding="utf-8")

        def ends(pid: str) -> bool:
            ended.unlink(missing_ok=True)
            return True

        monkeypatch.setattr(health, "_lives", ends)
        monkeypatch.setattr(health, "_directories", lambda _environ: [file.path.parent])
        assert health.ailment(None, environ) is None
        file.remove()
        ended.write_text("{}", encoding="utf-8")
        assert "no listener of this user" in str(health.ailment(None, environ))

    def test_a_directory_that_others_can_write_to_is_not_used(self, tmp_path: Path) -> None:
        trap = tmp_path / f"cti-listener-{os.getuid()}"
        trap.mkdir()
        trap.chmod(0o777)
        file = health.own_file({"XDG_RUNTIME_DIR": str(tmp_path)})
        assert tmp_path not in file.path.parents
        file.remove()

    def test_a_link_in_the_directorys_place_is_not_used(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / f"cti-listener-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
        file = health.own_file({"XDG_RUNTIME_DIR": str(tmp_path)})
        assert tmp_path not in file.path.parents
        file.remove()


class TestNamedFile:
    def test_the_environment_names_it_before_the_settings_file(self, tmp_path: Path) -> None:
        config = tmp_path / "cti.toml"
        config.write_text('health_file = "/run/a"\n', encoding="utf-8")
        assert health.named_file(config, {"CTI_HEALTH_FILE": "/run/b"}) == Path("/run/b")
        assert health.named_file(config, {}) == Path("/run/a")
        assert health.named_file(None, {"CTI_CONFIG": str(config)}) == Path("/run/a")

    def test_nothing_names_it(self, tmp_path: Path) -> None:
        broken = tmp_path / "cti.toml"
        broken.write_text("=", encoding="utf-8")
        assert health.named_file(None, {}) is None
        assert health.named_file(broken, {}) is None
        assert health.named_file(Path("/dev/zero"), {}) is None
        assert health.named_file(Path("~none/cti.toml"), {}) is None

    def test_a_settings_file_that_cannot_be_read_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for path, why in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file or dir")):
            assert quick.healthcheck(None, path, None) == 1
            err = capsys.readouterr().err
            assert err.startswith(f"cti-listen: cannot read the settings file {path}: {why}")


def test_the_check_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from cti_listener.cli import main\n"
        "main(['healthcheck', '--file', '/nowhere'])\n"
        "heavy = {'pydantic', 'structlog', 'websockets', 'asyncio', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=30)
