"""The lock files: complete, hashed, in agreement, and free of any index's address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("serve", "serve-cpu", "serve-cuda", "dev")
# Installed apart, because their builds differ by device.
APART = {"torch", "onnxruntime", "onnxruntime-gpu"}


def lock_text(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


def locked(name: str) -> dict[str, str]:
    """Package -> version."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock_text(name), re.M))


def declared(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_pinned_package_with_hashes(name: str) -> None:
    text = re.sub(r"^\s*#.*\n", "", lock_text(name), flags=re.M).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==\S+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+$", line), line


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_index_or_a_folder(name: str) -> None:
    assert not re.search(r"://|--(index|extra|find|trusted)|/tmp|/home", lock_text(name))


@pytest.mark.parametrize("name", ["serve-cpu", "serve-cuda", "dev"])
def test_locks_share_one_version_of_a_package(name: str) -> None:
    serve, other = locked("serve"), locked(name)
    shared = serve.keys() & other.keys()
    if name != "dev":  # which is installed on top of serve, the others in its place
        assert shared >= serve.keys() - APART
    assert {package: other[package] for package in shared} == {p: serve[p] for p in shared}
    if name == "serve-cpu":
        assert other["onnxruntime"] == serve["onnxruntime-gpu"]


@pytest.mark.parametrize(
    ("name", "extras"),
    [("serve", ()), ("serve-cuda", ()), ("dev", ("training", "signing", "tracing", "dev"))],
)
def test_a_lock_satisfies_what_the_project_declares(name: str, extras: tuple[str, ...]) -> None:
    versions = locked(name)
    apart = APART if name == "dev" else {"onnxruntime"}
    for requirement in declared(*extras):
        package = canonicalize_name(requirement.name)
        if package in apart:
            continue
        assert requirement.specifier.contains(versions[package]), requirement


def test_torch_and_its_cuda_libraries_are_in_no_lock_but_the_gpu_containers() -> None:
    for name in ("serve", "serve-cpu", "dev"):
        names = locked(name).keys()
        assert not any(p in {"torch", "triton"} or p.startswith("nvidia-") for p in names)
