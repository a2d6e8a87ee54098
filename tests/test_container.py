"""The image's recipe, without a container engine: linted, read, and its steps carried out."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.program import LIMIT

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
# As in the Makefile: settings that turn pip's installs elsewhere are no part of the recipe.
NOT_THE_RECIPES = re.compile(
    r"PIP_(CONSTRAINT|DRY_RUN|NO_DEPS|PREFIX|PYTHON|REQUIREMENT|ROOT|TARGET|USER)$"
    r"|PYTHON(HOME|PATH)$|VIRTUAL_ENV$"
)


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line]


def stage(number: int) -> list[Instruction]:
    """The instructions of the stage, its FROM first."""
    starts = [i for i, step in enumerate(instructions()) if step.word == "FROM"]
    starts.append(len(instructions()))
    return instructions()[starts[number] : starts[number + 1]]


def only(steps: list[Instruction], word: str) -> str:
    (found,) = (step.rest for step in steps if step.word == word)
    return found


def copied(step: Instruction) -> tuple[list[str], str]:
    """What a COPY from the checkout takes, and where it puts it."""
    *sources, destination = step.rest.split()
    return sources, destination


def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, Any] = compose["services"]
    return found


def test_hadolint_finds_nothing_to_say_about_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, DOCKERFILE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_the_image_runs_the_listener_as_nobody_in_particular_and_checks_its_own_health() -> None:
    runtime = stage(1)
    assert only(runtime, "ENTRYPOINT") == '["cti-listen"]'
    assert only(runtime, "HEALTHCHECK").endswith('CMD ["cti-listen", "healthcheck"]')
    assert only(runtime, "STOPSIGNAL") == "SIGTERM"
    user, group = only(runtime, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "PYTHONUNBUFFERED=1" in only(runtime, "ENV").split()


def test_what_the_dockerfile_copies_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    taken = {
        source.removeprefix("./")
        for step in stage(0)
        if step.word == "COPY"
        for source in copied(step)[0]
    }
    assert {line[1:] for line in ignored if line.startswith("!")} == taken
    assert "*" in ignored


@pytest.mark.parametrize("name", ["simulator", "listener"])
def test_a_composed_program_is_the_image_with_a_place_for_its_files(name: str) -> None:
    service = services()[name]
    assert service["build"] == "."
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108  # inside the container


def test_the_composed_listener_waits_for_the_simulator_and_listens_to_it() -> None:
    listener, simulator = services()["listener"], services()["simulator"]
    assert listener["environment"] == {
        "CTI_URL": "ws://simulator:8008/events",
        "CTI_NAMESPACE": "zhen04.cc",
        "CTI_ADMIN": "127.0.0.1:9090",
    }
    assert listener["depends_on"] == {"simulator": {"condition": "service_healthy"}}
    assert simulator["command"] == ["simulate", "--host", "0.0.0.0", "--port", "8008"]  # noqa: S104
    assert simulator["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    compile(simulator["healthcheck"]["test"][3], "healthcheck", "exec")


@pytest.mark.parametrize("name", ["simulator", "listener", "prometheus"])
def test_a_composed_service_is_not_root_and_changes_nothing(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_composed_prometheus_scrapes_the_listener_on_its_own_loopback() -> None:
    """So the endpoint needs no token, and nothing of it is published."""
    listener, prometheus = services()["listener"], services()["prometheus"]
    assert prometheus["network_mode"] == "service:listener"
    source, target, _ = prometheus["volumes"][0].split(":")
    assert f"--config.file={target}" in prometheus["command"]
    (job,) = yaml.safe_load((ROOT / source).read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [listener["environment"]["CTI_ADMIN"]]}]
    (published,) = listener["ports"]
    port = published.rpartition(":")[2]
    assert published.startswith("127.0.0.1:")
    assert f"--web.listen-address=0.0.0.0:{port}" in prometheus["command"]
    assert not listener["environment"]["CTI_ADMIN"].endswith(f":{port}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_dockerfiles_steps_yield_a_listener_in_a_clean_virtual_environment(
    tmp_path: Path,
) -> None:
    image = tmp_path / "image"
    builder = tmp_path / "python"  # in the place of the base image
    subprocess.run([sys.executable, "-m", "venv", builder], check=True)

    carry_out(stage(0), image=image, python=builder)

    listener = image / "app" / "bin" / "cti-listen"
    done = subprocess.run([listener, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert version("cti-listener") in done.stdout
    # Pinned, every one of them.
    pins = (ROOT / "constraints.txt").read_text().split()
    installed = subprocess.run(
        [builder / "bin" / "pip", "--python", image / "app/bin/python", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [line for line in installed if line not in pins and "cti-listener" not in line] == []
    the_image_runs(str(listener), tmp_path)
    the_composed_services_run(str(listener), tmp_path)


def the_image_runs(program: str, home: Path) -> None:
    """Do what the image does: the entry point, its check, and a signal to stop."""
    own = environment_of(home)
    demo = [program, "--demo", "--count", "5", "--format", "json"]
    done = subprocess.run(demo, env=own, capture_output=True, text=True, check=True, timeout=LIMIT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(line["eventType"] != "listener" for line in lines) == 5
    check = [program, *json.loads(only(stage(1), "HEALTHCHECK").partition("CMD ")[2])[1:]]
    unwell = subprocess.run(check, env=own, capture_output=True, text=True, check=False)
    assert (unwell.returncode, "the listener is not running" in unwell.stderr) == (1, True)
    with running([program, "--demo"], own) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        well = subprocess.run(check, env=own, capture_output=True, text=True, check=False)
        assert (well.returncode, well.stderr) == (0, "")
        listener.send_signal(getattr(signal, only(stage(1), "STOPSIGNAL")))
        assert listener.wait(LIMIT) == 0


def the_composed_services_run(program: str, home: Path) -> None:
    """Run the services that are ours as composed, but for where they are."""
    composed = services()
    place = {"0.0.0.0": "127.0.0.1", "8008": "0"}  # noqa: S104 - what the containers have to themselves
    simulate = [place.get(word, word) for word in composed["simulator"]["command"]]
    own = environment_of(home)
    with running([program, *simulate], own) as simulator:
        assert simulator.stderr is not None
        stomp, served = (simulator.stderr.readline().split()[-1] for _ in range(2))
        assert stomp.endswith("/mvc/stomp/websocket")
        settings = dict(composed["listener"]["environment"])
        del settings["CTI_ADMIN"]  # its port may be taken here; the admin endpoint's tests have it
        url = settings.pop("CTI_URL").replace("ws://simulator:8008", served.rpartition("/")[0])
        listen = [program, "--count", "3"]
        done = subprocess.run(
            listen,
            env={**own, **settings, "CTI_URL": url},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stderr
        assert all(json.loads(line)["eventName"] for line in done.stdout.splitlines())


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment of a container: the image's, and a place for the health file."""
    variables = shlex.split(only(stage(1), "ENV"))
    kept = dict(pair.split("=", 1) for pair in variables if not pair.startswith("PATH="))
    # One container does not see the listeners of another; here they would be found in /tmp.
    return {"PATH": os.environ["PATH"], "CTI_HEALTH_FILE": str(home / "health.json"), **kept}


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test; it is killed at the end if it still runs."""
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def carry_out(steps: list[Instruction], *, image: Path, python: Path) -> None:
    """Do what a container engine would, in the directory `image` instead of a container."""

    def within(text: str) -> str:
        return re.sub(r"""(^|(?<=[\s"'=]))/(?=\w)""", f"{image}/", text)

    environment = {k: v for k, v in os.environ.items() if not NOT_THE_RECIPES.match(k)}
    environment |= {"PATH": f"{python / 'bin'}:{environment['PATH']}", "PIP_USER": "0"}
    here = image
    for step in steps:
        match step.word:
            case "FROM":
                here.mkdir(parents=True)
            case "ENV":
                environment |= dict(pair.split("=", 1) for pair in shlex.split(step.rest))
            case "WORKDIR":
                here = Path(within(step.rest))
                here.mkdir(parents=True, exist_ok=True)
            case "COPY":
                sources, destination = copied(step)
                copy(sources, here / destination)
            case "RUN":
                done = subprocess.run(
                    ["/bin/sh", "-c", within(step.rest)],
                    cwd=here,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{step.rest}\n{done.stdout}{done.stderr}"
            case word:
                pytest.fail(f"{word} is not known here: teach it to this test")


def copy(sources: list[str], destination: Path) -> None:
    """COPY: a directory's contents go to the destination, a file into it."""
    destination.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if (ROOT / source).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, destination, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, destination)
