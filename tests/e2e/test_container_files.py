"""The container's files, as far as they can be judged without an engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[2]

Service = dict[str, Any]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continuation lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    words = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in words]


def final_stage() -> dict[str, list[str]]:
    """Instruction -> the arguments of each of its uses in the stage that is shipped."""
    stage: dict[str, list[str]] = {}
    for word, arguments in instructions():
        if word == "FROM":
            stage = {}
        stage.setdefault(word, []).append(arguments)
    return stage


def services() -> dict[str, Service]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, Service] = compose["services"]
    return found


def test_the_dockerfile_needs_no_image_but_python() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^#\s*syntax=", text, re.M)
    bases = [arguments.split()[0] for word, arguments in instructions() if word == "FROM"]
    assert bases == ["python:${PYTHON}-slim"] * 2
    stages = [a.split()[-1] for word, a in instructions() if word == "FROM" and " AS " in a]
    sources = re.findall(r"--from=(\S+)", text)
    assert sources
    assert set(sources) <= set(stages)


def test_the_user_is_a_number_and_not_root() -> None:
    (user,) = final_stage()["USER"]
    uid, gid = map(int, user.split(":"))
    assert uid > 0
    assert gid > 0


def test_the_entry_point_is_in_exec_form_and_starts_the_service() -> None:
    (entry,) = final_stage()["ENTRYPOINT"]
    assert json.loads(entry) == ["python", "-m", "app"]
    assert "CMD" not in final_stage()


def test_the_image_checks_its_own_health_with_python() -> None:
    (check,) = final_stage()["HEALTHCHECK"]
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command[0] == "python"
    compile(command[2], "health check", "exec")
    assert "/health/ready" in command[2]
    assert all(
        tuple(service["healthcheck"]["test"]) == ("CMD", *command)
        for service in services().values()
    )


def test_the_shipped_stage_installs_nothing() -> None:
    assert not any("install" in run for run in final_stage().get("RUN", []))
    assert not any(re.search(r"\bapt|\bgcc\b", a) for word, a in instructions() if word == "RUN")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_device_has_a_lock_without_torch(device: str) -> None:
    lock = (ROOT / f"requirements/serve-{device}.txt").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.M))
    wanted = "onnxruntime" if device == "cpu" else "onnxruntime-gpu"
    assert {name for name in names if name.startswith("onnxruntime")} == {wanted}
    assert "torch" not in names
    assert any(name.startswith("nvidia-cudnn") for name in names) == (device == "cuda")


@pytest.mark.parametrize("name", ["limbeck", "limbeck-gpu"])
def test_the_services_are_hardened(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert service["volumes"] == ["./models:/models:ro"]
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_only_the_gpu_service_asks_for_a_device_and_it_is_opt_in() -> None:
    cpu, gpu = services()["limbeck"], services()["limbeck-gpu"]
    assert "profiles" not in cpu
    assert "deploy" not in cpu
    assert cpu["build"]["args"]["DEVICE"] == "cpu"
    assert gpu["profiles"] == ["gpu"]
    assert gpu["build"]["args"]["DEVICE"] == "cuda"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_every_setting_that_is_the_operators_reaches_the_service() -> None:
    # What names an address, a file or the device is settled by the image and its mounts.
    own = {"host", "port", "admin_host", "admin_port", "models_dir", "device"}
    files = {"bundle_public_key", "api_keys_file", "admin_key_file"}
    names = [f"LIMBECK_{name.upper()}" for name in Settings.model_fields if name not in own | files]
    for service in services().values():
        assert [name for name in service["environment"] if name.startswith("LIMBECK_")] == names


def test_the_grace_period_outlasts_the_drain() -> None:
    for service in services().values():
        grace_s = float(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > Settings.model_fields["drain_seconds"].default


def test_nothing_of_the_checkout_enters_the_build_unasked() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {"app", "models", "requirements/serve-*.txt"}
