"""From a URL to a sink: names without secrets, and sinks that other packages bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cti_listener import ConfigurationError
from cti_listener.sinks.making import make_outlets, stable_name
from tests.program import LIMIT, PROGRAM, environment, run
from tests.sinks.support import options


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/hook", "https://host/hook"),
        ("HTTPS://Host:8443/hook/", "https://host:8443/hook/"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("https://me:CANARY@host/hook?token=CANARY#CANARY", "https://host/hook"),
        ("https://host/hook;session=CANARY/x", "https://host/hook/x"),
        ("https://host/T0/B0/CANARYCANARY0123456789", "https://host/T0/B0/********"),
        (
            "https://host/call-center-production-events",
            "https://host/call-center-production-events",
        ),
        ("stdout:", "stdout:"),
        ("jsonl:/var/../tmp/x.jsonl", "jsonl:/tmp/x.jsonl"),
    ],
)
def test_a_name_is_the_url_without_what_may_be_secret(url: str, name: str) -> None:
    assert stable_name(url) == name


def test_a_file_goes_by_the_same_name_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stable_name("jsonl:x.jsonl") == f"jsonl:{tmp_path}/x.jsonl"


def test_a_name_of_its_own_stands_before_it() -> None:
    outlets = make_outlets(["a=https://h/x?k=1", "b=https://h/x?k=2", "stdout:"], options())
    assert [one.name for one in outlets] == ["a", "b", "stdout:"]
    with pytest.raises(ConfigurationError, match="NAME=URL"):
        make_outlets(["https://h/x?k=1", "https://h/x?k=2"], options())


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.cc", ""])
def test_a_host_that_has_no_name_is_told(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL; write it as https://HOST"):
        make_outlets([f"https://{host}/x"], options())


def test_what_is_no_address_is_told_without_the_password_in_it() -> None:
    with pytest.raises(ConfigurationError, match=r"\*@host is no URL") as raised:
        make_outlets(["http:/me:s3cret@host"], options())
    assert "s3cret" not in str(raised.value)


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    for missing in ("aiohttp", "standardwebhooks"):
        program = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from cti_listener.cli import main\n"
            "sys.exit(main(['check', '--demo', '--to', 'https://host/x']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 78
        assert "pip install 'cti-listener[http]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_nobody_who_has_no_webhook_loads_what_it_takes() -> None:
    program = (
        "import sys\nfrom cti_listener.cli import main\n"
        "main(['--demo', '--count', '1', '--to', 'stdout:'])\n"
        "assert not {'aiohttp', 'standardwebhooks'} & {*sys.modules}, 'loaded'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, "loaded" in done.stderr) == (0, False), done.stderr


# Other packages'

THEIRS = '''
from pathlib import Path

from cti_listener.sinks import Sink, SinkOptions


class CountSink:
    """Keeps in a file how many it was given."""

    order = "device"

    def __init__(self, path):
        self.path = path
        self.count = 0

    async def open(self):
        self.path.write_text("open")

    async def take(self, happening):
        self.count += 1

    async def close(self):
        self.path.write_text(f"{self.count} taken")


def make(url: str, *, name: str, options: SinkOptions) -> Sink:
    return CountSink(Path(url.partition(":")[2]))


def broken(url, *, name, options):
    raise AssertionError
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a directory in which another package is installed."""
    site = tmp_path / "site"
    info = site / "counting-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "counting.py").write_text(THEIRS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cti_listener.sinks]\ncount = counting:make\ngone = counting:nothing\n"
    )
    return site


def run_with(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment()
    env["PYTHONPATH"] = f"{site}:{env['PYTHONPATH']}"
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_sink_of_another_package_is_given_what_happens(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "counted"
    done = run_with(
        site, "--demo", "--count", "30", "--journal", str(tmp_path / "journal.db"),
        "--to", f"counted=count:{file}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    count, word = file.read_text().split()
    assert word == "taken"
    assert int(count) >= len(printed) - 1
    stats = run("journal", "stats", str(tmp_path / "journal.db"))
    assert "handler counted: 0 unfinished" in stats.stdout


def test_what_there_is_besides_is_named_and_so_is_what_cannot_be_loaded(site: Path) -> None:
    done = run_with(site, "check", "--demo", "--to", "cuont:x")
    assert done.returncode == 78
    assert "cuont: is no sink there is; there are jsonl:PATH" in done.stderr
    assert "http://HOST/PATH, count:..., gone:..." in done.stderr
    done = run_with(site, "check", "--demo", "--to", "gone:x")
    assert done.returncode == 78
    assert "gone: is counting:nothing, which cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
