"""The files of deploy/ against the schemas and linters of those who will read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import PREFIX, load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = [ROOT / "Dockerfile", *sorted(DEPLOY.glob("*.Dockerfile"))]
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "mbunet.service"
OLDEST_KUBERNETES = "1.30"
EXPOSURE = 2.0  # systemd-analyze security: 0 is a sealed box, 10 is anything goes


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def script(name: str) -> Path:
    """A program that came with a Python package."""
    return Path(sysconfig.get_path("scripts")) / name


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def manifests() -> dict[str, Any]:
    """Every manifest of the base by its kind."""
    listed = documents(KUBERNETES / "base/kustomization.yaml")[0]["resources"]
    found = [document for name in listed for document in documents(KUBERNETES / "base" / name)]
    return {document["kind"]: document for document in found}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    done = run(script("hadolint"), "--no-color", dockerfile)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_an_ordinary_user_and_end_by_sigterm(dockerfile: Path) -> None:
    lines = dockerfile.read_text().splitlines()
    assert {"USER 10001:10001", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["mbunet"]'} <= set(lines)


def test_nothing_built_here_goes_into_an_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv*", "**/*.so", "tests", "deploy"} <= set(ignored)


def test_compose_files_meet_the_specification() -> None:
    done = run(script("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *COMPOSE)
    assert done.returncode == 0, done.stdout


def test_compose_files_mount_what_exists() -> None:
    for path in COMPOSE:
        for service in documents(path)[0]["services"].values():
            assert (DEPLOY / service.get("build", {}).get("context", "..")).resolve() == ROOT
            for volume in service.get("volumes", []):
                if isinstance(volume, str) and volume.startswith("./"):
                    assert (DEPLOY / volume.partition(":")[0]).is_dir(), volume
                    assert volume.endswith(":ro"), volume


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_manifests_meet_the_published_schemas(version: str) -> None:
    for manifest in manifests().values():
        kubernetes_validate.validate(manifest, version, strict=True)
    assert set(manifests()) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}


def test_a_wrong_manifest_is_refused() -> None:
    deployment = manifests()["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_kustomize_builds_what_meets_the_schemas(overlay: str) -> None:
    needs("kubectl")
    done = run("kubectl", "kustomize", KUBERNETES / overlay)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for manifest in built:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    containers = [m["spec"]["template"]["spec"]["containers"] for m in built if m["kind"] == "Deployment"]
    ((container,),) = containers
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")


def test_everything_selects_the_pods_of_the_deployment() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]


def test_the_cluster_adds_no_setting_of_its_own() -> None:
    """A Service called mbunet would put MBUNET_PORT=tcp://10.0.0.1:80 into the pods, which is no port."""
    assert manifests()["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_only_settings_that_exist_are_set() -> None:
    texts = [path.read_text() for path in [*DOCKERFILES, *COMPOSE, *sorted(KUBERNETES.glob("*/*.yaml"))]]
    pattern = re.compile(rf"^[^#]*?\b({PREFIX}[A-Z_]+)(?:=|: |, value)", re.MULTILINE)
    names = {name for text in texts for name in pattern.findall(text)}
    names |= {entry["name"] for entry in manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert {"MBUNET_HOST", "MBUNET_THREADS", "MBUNET_DEVICE"} <= names
    load(dict.fromkeys(names, "1"))


def test_the_unit_is_sound_and_hardened(tmp_path: Path) -> None:
    needs("systemd-analyze")
    unit = tmp_path / "mbunet.service"
    unit.write_text(UNIT.read_text())
    done = run("systemd-analyze", "verify", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    threshold = f"--threshold={10 * EXPOSURE:.0f}"
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, unit)
    assert done.returncode == 0, done.stdout[-200:]


def test_actions_are_pinned_by_digest() -> None:
    used = re.findall(r"uses: *(\S+)", "\n".join(path.read_text() for path in (ROOT / ".github/workflows").iterdir()))
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
