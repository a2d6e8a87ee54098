"""The Kubernetes manifest: its shape, its powers, and that its settings are settings."""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final

import pytest
import yaml

from cti_listener.settings.model import Settings
from tests.program import ROOT, run

MANIFEST: Final = ROOT / "config" / "kubernetes.yaml"
CONFIG, DEPLOYMENT = yaml.safe_load_all(MANIFEST.read_text("utf-8"))
POD: Final[dict[str, Any]] = DEPLOYMENT["spec"]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
(SERVICE,) = POD["containers"]
SETTINGS: Final = tomllib.loads(CONFIG["data"]["settings.toml"])


def test_the_listener_is_a_native_sidecar_with_no_say_in_the_pods_readiness() -> None:
    assert SIDECAR["restartPolicy"] == "Always"
    probes = {name for name in SIDECAR if name.endswith("Probe")}
    assert probes == {"startupProbe", "livenessProbe"}


def test_its_probes_are_commands_that_there_are_and_give_it_time() -> None:
    for probe in (SIDECAR["startupProbe"], SIDECAR["livenessProbe"]):
        program, *arguments = probe["exec"]["command"]
        assert program == "cti-listen"
        assert arguments == ["healthcheck", "--file", SETTINGS["health_file"]]
    assert SIDECAR["startupProbe"]["failureThreshold"] >= 30


def test_the_pod_waits_longer_than_the_drain_takes() -> None:
    drain = Settings.model_fields["drain"].default
    close = Settings.model_fields["close_timeout"].default
    assert POD["terminationGracePeriodSeconds"] > 2 * (drain + close)


@pytest.mark.parametrize("container", [SIDECAR, SERVICE], ids=lambda one: one["name"])
def test_each_container_fits_the_restricted_standard(container: dict[str, Any]) -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] > 0
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}


def test_every_mount_has_its_volume_and_every_file_its_mount() -> None:
    mounts = {mount["mountPath"]: mount for mount in SIDECAR["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {one["name"] for one in POD["volumes"]}
    files = [*SIDECAR["args"][1:], *(SETTINGS[name] for name in SETTINGS if "file" in name)]
    for file in [*files, SETTINGS["journal"]]:
        assert file.rpartition("/")[0] in mounts, file
    assert not mounts[SETTINGS["journal"].rpartition("/")[0]].get("readOnly")


def test_no_secret_stands_in_it_and_its_settings_are_settings() -> None:
    assert "env" not in SIDECAR
    assert not {"passcode", "token", "cookie", "header"} & SETTINGS.keys()
    assert SETTINGS.keys() <= Settings.model_fields.keys()


def test_its_settings_hold(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("made up")
    files = {name: str(token) for name in SETTINGS if name.endswith("_file")}
    kept = {name: str(tmp_path / name) for name in ("journal", "health_file")}
    given = {**SETTINGS, **files, **kept}
    file = tmp_path / "settings.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items()))
    done = run("check", "--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
